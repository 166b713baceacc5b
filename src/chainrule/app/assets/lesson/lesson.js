/* The lesson: puts the server's text on the page, plays the telephone game, shows the listing.
 *
 * Numbers of networks come from the server; only the game, which is arithmetic, is computed here.
 */
(() => {
  "use strict";

  const chainrule = (window.chainrule = window.chainrule || {});
  const WAIT = 250; // milliseconds after the last change, before a listing is asked for
  const SCROLLED = 600; // until a smooth scroll has left the lesson
  const SETTLED = 5000; // until the page above has its final height

  /** Put the lesson into an element.
   *
   * explore: query() of the configuration on screen, onAnswer(listener). Links with data-show are
   * followed by the page itself.
   */
  chainrule.mountLesson = async (element, explore) => {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "1";
    const state = { known: false };
    explore?.onAnswer?.(() => (state.known = true));
    try {
      const answer = await fetch("/api/lesson");
      if (!answer.ok) throw new Error(String(answer.status));
      element.innerHTML = (await answer.json()).html; // the server's own, escaped there
    } catch {
      delete element.dataset.mounted;
      const sorry = document.createElement("p");
      sorry.className = "ls-failed";
      sorry.textContent = "The lesson could not be loaded. ";
      const again = document.createElement("button");
      again.type = "button";
      again.textContent = "Try again";
      again.addEventListener("click", () => chainrule.mountLesson(element, explore));
      sorry.append(again);
      element.replaceChildren(sorry);
      return;
    }
    playGame(element);
    followLinks(element);
    showListing(element, explore, state);
    if (location.hash.startsWith("#lesson")) arrive(location.hash);
  };

  const part = (element, name) => element.querySelector(`[data-part="${name}"]`);
  const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  // --- the telephone game ---------------------------------------------------------------------

  const sup = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);

  /** A positive number as people write it: 3.1, 0.098, 33,600, 1.1·10⁻⁹. */
  function write(value) {
    if (value >= 0.001 && value < 99.95) return String(Number(value.toPrecision(2)));
    if (value >= 99.95 && value < 1e6) return Math.round(Number(value.toPrecision(3))).toLocaleString("en");
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits}·10${sup(Number(power))}`;
  }

  function playGame(element) {
    const toy = part(element, "toy");
    const multiplier = part(toy, "multiplier");
    const layers = part(toy, "layers");
    const row = part(toy, "row");
    const result = part(toy, "result");

    function play() {
      const factor = Number(multiplier.value);
      const count = Number(layers.value);
      part(toy, "multiplier-value").textContent = `× ${factor}`;
      part(toy, "layers-value").textContent = String(count);
      multiplier.setAttribute("aria-valuetext", `times ${factor}`);
      const left = factor ** count;
      const most = Math.max(1, left);
      row.replaceChildren(
        ...Array.from({ length: count + 1 }, (_, passed) => {
          const person = document.createElement("div");
          person.className = "ls-person";
          const message = document.createElement("i");
          message.style.height = `${(100 * factor ** passed) / most}%`;
          person.append(message);
          return person;
        }),
      );
      const fate = left < 0.1 ? "fades" : left > 10 ? "swells" : "keeps";
      row.dataset.fate = fate;
      const words =
        left > 1 + 1e-9
          ? `The message has grown to ${write(left)} times what it was.`
          : `${write(100 * left)} % of the message is left.`;
      const note = document.createElement("small");
      note.textContent = `${factor} multiplied with itself ${count} time${count > 1 ? "s" : ""}: ${
        { fades: "it vanishes", swells: "it explodes", keeps: "it gets through" }[fate]
      }.`;
      result.replaceChildren(words, note);
    }
    for (const slider of [multiplier, layers]) slider.addEventListener("input", play);
    for (const button of toy.querySelectorAll("button[data-multiplier]")) {
      button.addEventListener("click", () => {
        multiplier.max = String(Math.max(2, Math.ceil(Number(button.dataset.multiplier))));
        multiplier.value = button.dataset.multiplier;
        layers.value = button.dataset.layers;
        play();
      });
    }
    play();
  }

  // --- links ----------------------------------------------------------------------------------

  function goTo(hash, behavior = calm() ? "auto" : "smooth") {
    const target = document.getElementById(hash.slice(1));
    if (!target) return false;
    for (let box = target; box; box = box.parentElement) {
      if (box.tagName === "DETAILS") box.open = true;
    }
    target.scrollIntoView({ behavior, block: "start" });
    if (target.tabIndex < 0) target.focus({ preventScroll: true });
    return true;
  }

  /** Go where the address says, and stay there while charts above still grow. */
  function arrive(hash) {
    const keep = new ResizeObserver(() => goTo(hash, "instant"));
    const stop = () => keep.disconnect();
    keep.observe(document.body);
    for (const event of ["wheel", "touchmove", "keydown", "pointerdown"]) {
      addEventListener(event, stop, { once: true, passive: true });
    }
    setTimeout(stop, SETTLED);
  }

  /** From links that set the explorer there is a way back to where one read. */
  function followLinks(element) {
    const back = document.createElement("button");
    back.type = "button";
    back.className = "ls-back";
    back.textContent = "↓ Back to the lesson";
    back.hidden = true;
    element.append(back);
    let read = null;

    back.addEventListener("click", () => {
      back.hidden = true;
      read?.scrollIntoView({ behavior: calm() ? "auto" : "smooth", block: "center" });
      read?.focus({ preventScroll: true });
    });
    // Whoever scrolls back by hand needs no button.
    new IntersectionObserver(([entry]) => {
      if (entry.isIntersecting && read) back.hidden = true;
    }).observe(element);

    element.addEventListener("click", (event) => {
      if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = event.target.closest("a");
      if (!link) return;
      const address = link.getAttribute("href");
      if (address.startsWith("#")) {
        if (goTo(address)) {
          event.preventDefault();
          history.replaceState(history.state, "", address);
        }
      } else if (link.hasAttribute("data-show")) {
        read = link;
        setTimeout(() => (back.hidden = false), SCROLLED);
      }
    });
  }

  // --- the listing ----------------------------------------------------------------------------

  /** Show the script of the configuration on screen; ask for it only while it is in sight. */
  function showListing(element, explore, state) {
    const box = part(element, "listing");
    const copied = part(box, "copied");
    let shown = null;
    let visible = false;
    let timer = null;
    let asking = null;

    async function ask() {
      const query = explore.query();
      if (query === shown || (query === "" && !state.known)) return;
      asking?.abort();
      asking = new AbortController();
      try {
        const response = await fetch(`/api/listing?${query}`, { signal: asking.signal });
        if (!response.ok) throw new Error(String(response.status));
        const answer = await response.json();
        part(box, "code").textContent = answer.listing;
        part(box, "output").textContent = answer.output ?? "";
        part(box, "output").parentElement.hidden = answer.output === null;
        part(box, "listing-note").textContent = answer.note;
        shown = query;
      } catch (error) {
        if (error.name === "AbortError") return;
        part(box, "listing-note").textContent = "The server does not answer. Change something to ask again.";
      }
    }
    function change() {
      const query = explore.query();
      part(box, "download").href = `/listing.py?${query}`;
      linkChain(part(element, "chain"), query);
      copied.textContent = "";
      clearTimeout(timer);
      if (visible) timer = setTimeout(ask, WAIT);
    }
    if (!explore) return;
    explore.onAnswer?.(change);
    new IntersectionObserver(
      ([entry]) => {
        visible = entry.isIntersecting;
        if (visible) ask();
      },
      { rootMargin: "400px" },
    ).observe(box);
    part(box, "copy").addEventListener("click", async () => {
      const text = part(box, "code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        copied.textContent = "Copied.";
      } catch {
        // Without a secure connection there is no clipboard: select it for the keyboard's copy.
        getSelection().selectAllChildren(part(box, "code"));
        copied.textContent = "Selected: press Ctrl+C.";
      }
    });
    change();
  }

  /** Point a link at the chain-rule page's view of a network.
   *
   * That page's own chain has an activation by that name, so the network's goes by another.
   */
  function linkChain(link, query) {
    const fields = new URLSearchParams(query);
    const activation = fields.get("activation") ?? link.dataset.activation;
    fields.delete("seeds");
    fields.delete("activation");
    fields.set("depth", fields.get("depth") ?? link.dataset.depth);
    fields.set("network_activation", activation);
    link.href = `/chain-rule?${fields}`;
  }
})();
