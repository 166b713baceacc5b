/* What to do: measured remedies for the network on screen, each as a bar on the axis of the main
 * chart, with one click to apply it and one to try it by training. */

import { el, find, part, scrolling, setText, svg } from "../shared/dom.js";
import { formatShare } from "../shared/numbers.js";

const CALM = 450; // ms without a change before remedies are looked for
const SHOWN = 3; // the rest is folded away
const BAR = { width: 240, height: 20, edge: 6, radius: 4.5 };

/**
 * Bring it to life.
 * @param {HTMLElement} root what holds the list, the sentence and the button of the first remedy
 * @param {import("./explore.js").Api} explore
 */
export function mountRemedies(root, explore) {
  const section = part(root, "remedies");
  const state = part(root, "remedies-state");
  const list = part(root, "remedies-list");
  const sentence = part(root, "do");
  const first = part(root, "apply-first");
  const undo = part(root, "undo");
  const leaving = new AbortController();
  /** @type {string | null} */
  let asked = null; // query that is asked for or shown
  /** @type {AbortController | null} */
  let control = null;
  /** @type {any} */
  let timer = null;
  /** @type {any} */
  let best = null; // the remedy that the button applies
  let fallback = ""; // what to do where nothing was measured
  let networks = 0; // how many the page shows
  let words = ""; // the network on screen
  /** @type {{query: string, words: string, applied: string | null} | null} */
  let before = null; // the network that a change was applied to

  addEventListener("pagehide", () => leaving.abort());
  first.addEventListener("click", () => best && apply(best));
  find(undo, "button").addEventListener("click", () => before && explore.apply(before.query));

  explore.onAnswer((answer) => {
    networks = answer.ensemble.seeds;
    const query = new URLSearchParams(answer.view.query).toString();
    words = `${answer.subject}: ${answer.verdict}`;
    if (before && query !== before.query) {
      before.applied ??= query;
      if (query !== before.applied) before = null;
    }
    showBefore(query);
    part(root, "go-train").classList.toggle("primary", answer.verdict === "healthy"); // what to do next
    if (query === asked) return;
    clearTimeout(timer);
    control?.abort();
    asked = null;
    section.dataset.shown = "";
    offer(null);
    if (answer.verdict === "healthy") {
      asked = query;
      show({ verdict: "healthy", do: answer.said.do });
      return;
    }
    list.replaceChildren(); // they belong to the network before
    setText(sentence, "First, changes are tried on this network."); // no advice that the next answer takes back
    fallback = answer.said.do;
    setText(state, "Measuring changes …");
    timer = setTimeout(() => ask(query), CALM);
  });

  /**
   * Offer the way back, while the changed network is on screen.
   * @param {string} query
   */
  function showBefore(query) {
    undo.hidden = before?.applied !== query;
    setText(find(undo, "span"), before ? `Before: ${before.words}.` : "");
  }

  /** @param {string} query */
  async function ask(query) {
    asked = query;
    control = new AbortController();
    try {
      const response = await fetch(`/api/remedies?${query}`, { signal: control.signal });
      const answer = await response.json();
      if (asked !== query) return;
      if (response.status === 503) {
        setText(state, answer.error);
        timer = setTimeout(() => ask(query), 1000 * Number(response.headers.get("Retry-After")));
      } else {
        show(answer);
      }
    } catch (/** @type {any} */ error) {
      if (asked !== query || error.name === "AbortError") return;
      show({ error: "Changes could not be measured. Change a setting to try again." });
      asked = null;
    }
  }

  /**
   * Let the button in the bar apply a remedy; null lets it rest.
   * @param {any} remedy
   */
  function offer(remedy) {
    best = remedy && !isFixed(remedy) ? remedy : null;
    first.disabled = !best;
    setText(part(first, "apply-name"), best ? `: ${best.title}` : " a change");
  }

  /** @param {any} answer */
  function show(answer) {
    section.dataset.shown = asked || "";
    setText(sentence, answer.do || fallback);
    if (answer.error || answer.verdict === "healthy") {
      setText(state, answer.error || "");
      list.replaceChildren();
      return;
    }
    const { remedies, refuted, seeds } = answer;
    const which = seeds < networks ? `first ${seeds} of the ${networks}` : `same ${seeds}`;
    setText(
      state,
      remedies.length
        ? `Each change was measured on the ${which} networks; the cheapest change comes first.`
        : `${refuted.length} changes were measured on the ${which} networks; none helps.`,
    );
    offer(remedies[0] ?? null);
    const more = remedies.slice(SHOWN);
    list.replaceChildren(
      ...remedies
        .slice(0, SHOWN)
        .map((/** @type {any} */ remedy, /** @type {number} */ i) => makeCard(remedy, !i)),
      ...(more.length ? [fold(`${more.length} more, better than before`, more)] : []),
      ...(refuted.length
        ? [fold(`Measured, and no help: ${refuted.length}`, refuted, "refuted")]
        : []),
    );
  }

  /**
   * @param {string} title
   * @param {any[]} remedies
   * @param {string | null} name
   */
  function fold(title, remedies, name = null) {
    const cards = remedies.map((remedy) => makeCard(remedy));
    return el(
      "details",
      { "data-part": name },
      el("summary", {}, title),
      el("div", { class: "ex-remedy-list" }, cards),
    );
  }

  /** @param {any} remedy */
  function isFixed(remedy) {
    return Object.keys(remedy.changes).some((name) => explore.locked().includes(name));
  }

  /**
   * @param {any} remedy
   * @param {boolean} [leading] whether it is the first thing to do
   */
  function makeCard(remedy, leading = false) {
    const { bar, outcome } = remedy;
    const works = outcome === "cures" || outcome === "measures well";
    const fixed = isFixed(remedy);
    const button = {
      type: "button",
      class: leading && works ? "primary" : "",
      "aria-label": `apply: ${remedy.title}`,
      disabled: fixed,
      onclick: () => apply(remedy),
    };
    const tried = el("p", { class: "ex-remedy-tried", role: "status" });
    return el(
      "article",
      { class: "ex-remedy", "data-outcome": outcome },
      el(
        "div",
        { class: "ex-remedy-head" },
        el("h4", {}, remedy.title),
        el("button", button, works || outcome === "helps" ? "Apply" : "See it"),
      ),
      drawBar(bar),
      el(
        "p",
        { class: "ex-remedy-figure" },
        el("span", { class: "dim" }, `${bar.name}: `),
        bar.before.text,
        el("span", { role: "img", "aria-label": "becomes" }, " → "),
        el("b", { "data-state": bar.after.state }, bar.after.text),
        " ",
        el("span", { class: "ex-remedy-verdict" }, `${remedy.icon_after} ${remedy.verdict_after}`),
        showChance(remedy.chance_after),
      ),
      el(
        "div",
        { class: "ex-remedy-more" },
        el(
          "details",
          {},
          el("summary", {}, "Why"),
          el(
            "p",
            { class: "dim" },
            `${remedy.reason} ${remedy.verdict_before} → ${remedy.verdict_after}: ${remedy.meaning}.`,
            fixed ? " What it changes is fixed on this page." : "",
          ),
        ),
        remedy.paths ? showPaths(remedy) : null,
        el(
          "button",
          {
            type: "button",
            class: "quiet",
            "aria-label": `try it by training: ${remedy.title}`,
            onclick: (/** @type {any} */ event) => tryOut(remedy, event.target, tried),
          },
          "Try it by training",
        ),
      ),
      tried,
    );
  }

  /**
   * Train the changed network, and say how many answers are right.
   * @param {any} remedy
   * @param {any} button
   * @param {any} place
   */
  async function tryOut(remedy, button, place) {
    button.disabled = true;
    setText(place, "Training …");
    const hear = (/** @type {any} */ line) => {
      if (line.type === "queued") setText(place, line.status);
      if (line.type === "step")
        setText(place, `Step ${line.step}: ${formatShare(line.accuracy)} right`);
    };
    const { tryNetwork } = await import("./trial.js");
    const end = await tryNetwork(remedy.query, hear, leaving.signal);
    button.disabled = false;
    if (end.type === "error") setText(place, end.error);
    else {
      button.hidden = true;
      setText(place, `Tried: ${end.sentence}`);
      place.dataset.outcome = end.outcome;
    }
  }

  /** @param {any} remedy */
  function apply(remedy) {
    const query = new URLSearchParams(remedy.query);
    const seeds = new URLSearchParams(explore.query()).get("seeds");
    if (seeds) query.set("seeds", seeds);
    before = { query: new URLSearchParams(explore.query()).toString(), words, applied: null };
    explore.apply(query.toString());
    // The verdict is read from its start, also by who had scrolled to the evidence.
    find(document, ".ex-verdict").scrollTop = 0;
    const top = find(document, ".ex-columns");
    if (top.getBoundingClientRect().top < 0)
      top.scrollIntoView({ block: "start", behavior: scrolling() });
  }
}

/** @param {{icon: string, state: string, text: string} | null} chance whether SGD trains it then */
function showChance(chance) {
  if (!chance) return null;
  const { icon, state, text } = chance;
  return el("span", { class: "ex-remedy-chance", "data-state": state }, `${icon} ${text}`);
}

/** @param {any} remedy */
function showPaths({ paths }) {
  return el("a", { href: paths }, "Path by path");
}

/**
 * Before → after on the axis of the main chart; green is where layers learn.
 * @param {any} bar
 */
function drawBar({ name, before, after, usable }) {
  const { width, height, edge, radius } = BAR;
  const place = (/** @type {number} */ share) => edge + share * (width - 2 * edge);
  const middle = height / 2;
  const [low, high] = usable.map(place);
  const [from, to] = [place(before.share), place(after.share)];
  return svg(
    "svg",
    {
      class: "ex-bar-chart",
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `${name}: from ${before.text} to ${after.text}`,
    },
    svg("rect", { class: "axis", x: 0, y: middle - 1, width, height: 2 }),
    svg("rect", {
      class: "usable",
      x: low,
      y: middle - 5,
      width: Math.max(2, high - low),
      height: 10,
      rx: 4,
    }),
    svg("line", { class: "way", x1: from, x2: to, y1: middle, y2: middle }),
    svg("circle", { "data-state": before.state, class: "before", cx: from, cy: middle, r: radius }),
    svg("circle", { "data-state": after.state, class: "after", cx: to, cy: middle, r: radius }),
  );
}
