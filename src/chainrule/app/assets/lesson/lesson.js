/* The lesson: plays the telephone game, follows its links, shows the listing.
 *
 * Its text stands in the page. Numbers of networks come from the server; only the game, which is
 * arithmetic, is computed here.
 */
import { linkChain } from "../explore/address.js";
import { copy, el, findAll, part, scrolling, setText } from "../shared/dom.js";
import { formatRounded } from "../shared/numbers.js";

const WAIT = 250; // milliseconds after the last change, before a listing is asked for
const SETTLED = 5000; // until the page above has its final height
const ENDS = { fades: "it vanishes", swells: "it explodes", keeps: "it gets through" };

/**
 * What the picture beside the text shows.
 * @typedef {object} Shown
 * @property {() => string} query
 * @property {(listener: (answer: any, query: string) => void) => void} onAnswer
 */

/**
 * Bring the lesson to life. Links with data-show are followed by the page itself.
 * @param {HTMLElement} element
 * @param {Shown} picture
 */
export function mountLesson(element, picture) {
  playGame(part(element, "toy"));
  followLinks(element);
  showListing(element, picture);
  if (location.hash.startsWith("#lesson")) arrive(location.hash);
}

// --- the telephone game -------------------------------------------------------------------------

/**
 * Two digits where they are enough, three where people count.
 * @param {number} value
 */
function write(value) {
  return formatRounded(value, value < 99.95 ? 2 : 3);
}

/** @param {any} toy */
function playGame(toy) {
  const multiplier = part(toy, "multiplier");
  const layers = part(toy, "layers");
  const row = part(toy, "row");

  function play() {
    const factor = Number(multiplier.value);
    const count = Number(layers.value);
    setText(part(toy, "multiplier-value"), `× ${factor}`);
    setText(part(toy, "layers-value"), String(count));
    multiplier.setAttribute("aria-valuetext", `times ${factor}`);
    const left = factor ** count;
    const most = Math.max(1, left);
    const people = Array.from({ length: count + 1 }, (_, passed) => {
      const person = el("div", { class: "ls-person" }, el("i"));
      person.firstChild.style.height = `${(100 * factor ** passed) / most}%`;
      return person;
    });
    row.replaceChildren(...people.reverse()); // from right to left, as a gradient travels
    const fate = left < 0.1 ? "fades" : left > 10 ? "swells" : "keeps";
    row.dataset.fate = fate;
    const words =
      left > 1 + 1e-9
        ? `The message has grown to ${write(left)} times what it was.`
        : `${write(100 * left)} % of the message is left.`;
    const times = `${factor} multiplied with itself ${count} time${count > 1 ? "s" : ""}`;
    part(toy, "result").replaceChildren(words, el("small", {}, `${times}: ${ENDS[fate]}.`));
  }

  for (const slider of [multiplier, layers]) slider.addEventListener("input", play);
  for (const button of findAll(toy, "button[data-multiplier]")) {
    button.addEventListener("click", () => {
      multiplier.max = String(Math.max(2, Math.ceil(Number(button.dataset.multiplier))));
      multiplier.value = button.dataset.multiplier;
      layers.value = button.dataset.layers;
      play();
    });
  }
  play();
}

// --- links --------------------------------------------------------------------------------------

/**
 * Go to a place on the page; return whether there is one.
 * @param {string} hash
 * @param {ScrollBehavior} [behavior]
 */
function goTo(hash, behavior = scrolling()) {
  const target = document.getElementById(hash.slice(1));
  if (!target) return false;
  for (let box = /** @type {HTMLElement | null} */ (target); box; box = box.parentElement) {
    if (box instanceof HTMLDetailsElement) box.open = true;
  }
  target.scrollIntoView({ behavior, block: "start" });
  if (target.tabIndex < 0) target.focus({ preventScroll: true });
  return true;
}

/**
 * Go where the address says, and stay there while charts above still grow.
 * @param {string} hash
 */
function arrive(hash) {
  const keep = new ResizeObserver(() => goTo(hash, "instant"));
  const stop = () => keep.disconnect();
  keep.observe(document.body);
  for (const event of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    addEventListener(event, stop, { once: true, passive: true });
  }
  setTimeout(stop, SETTLED);
}

/**
 * Links to places on this page lead there smoothly, and open what is folded.
 * @param {HTMLElement} element
 */
function followLinks(element) {
  element.addEventListener("click", (/** @type {any} */ event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const address = event.target.closest("a")?.getAttribute("href");
    if (!address?.startsWith("#") || !goTo(address)) return;
    event.preventDefault();
    history.replaceState(history.state, "", address);
  });
}

// --- the listing --------------------------------------------------------------------------------

/**
 * Show the script of the network in the picture; ask for it only while it is in sight.
 * @param {HTMLElement} element
 * @param {Shown} picture
 */
function showListing(element, picture) {
  const box = part(element, "listing");
  const copied = part(box, "copied");
  const chain = part(element, "chain");
  const { depth, activation } = chain.dataset;
  let known = false; // before the first answer an empty query says nothing
  /** @type {string | null} */
  let shown = null;
  let visible = false;
  /** @type {any} */
  let timer = null;
  /** @type {AbortController | null} */
  let asking = null;

  async function ask() {
    const query = picture.query();
    if (query === shown || (query === "" && !known)) return;
    asking?.abort();
    asking = new AbortController();
    try {
      const response = await fetch(`/api/listing?${query}`, { signal: asking.signal });
      if (!response.ok) throw new Error(String(response.status));
      const answer = await response.json();
      setText(part(box, "code"), answer.listing);
      setText(part(box, "output"), answer.output ?? "");
      part(box, "output").parentElement.hidden = answer.output === null;
      setText(part(box, "listing-note"), answer.note);
      shown = query;
    } catch (/** @type {any} */ error) {
      if (error.name === "AbortError") return;
      const words = "The server does not answer. Change something to ask again.";
      setText(part(box, "listing-note"), words);
    }
  }

  function change() {
    const query = picture.query();
    part(box, "download").href = `/listing.py?${query}`;
    chain.href = linkChain(query, { depth, activation });
    copied.textContent = "";
    clearTimeout(timer);
    if (visible) timer = setTimeout(ask, WAIT);
  }

  picture.onAnswer(() => {
    known = true;
    change();
  });
  new IntersectionObserver(
    ([entry]) => {
      visible = entry.isIntersecting;
      if (visible) ask();
    },
    { rootMargin: "400px" },
  ).observe(box);
  part(box, "copy").addEventListener("click", async () => {
    if (await copy(part(box, "code").textContent)) {
      copied.textContent = "Copied.";
    } else {
      // Without a secure connection there is no clipboard: select it for the keyboard's copy.
      getSelection()?.selectAllChildren(part(box, "code"));
      copied.textContent = "Selected: press Ctrl+C.";
    }
  });
  change();
}
