/* What to change: measured remedies for the network on screen, one click to apply each. */

import { el, find, part, scrolling } from "../shared/dom.js";

const CALM = 450; // ms without a change before remedies are looked for
const SHOWN = 5; // the rest is folded away
/** @type {Record<string, string>} */
const ICONS = { cures: "✔", "measures well": "✔", helps: "◐", trades: "⇄", fails: "✖" };

/**
 * Bring the section to life.
 * @param {HTMLElement} section
 * @param {import("./explore.js").Api} explore
 */
export function mountRemedies(section, explore) {
  const state = part(section, "remedies-state");
  const list = part(section, "remedies-list");
  /** @type {string | null} */
  let asked = null; // query that is asked for or shown
  /** @type {AbortController | null} */
  let control = null;
  /** @type {any} */
  let timer = null;
  let networks = 0; // how many the page shows

  explore.onAnswer((answer) => {
    networks = answer.ensemble.seeds;
    const query = new URLSearchParams(answer.view.query).toString();
    if (query === asked) return;
    clearTimeout(timer);
    control?.abort();
    asked = null;
    section.dataset.shown = "";
    if (answer.verdict === "healthy") {
      asked = query;
      show({ verdict: "healthy" });
      return;
    }
    section.style.minHeight = `${section.offsetHeight}px`; // what stands below need not jump
    list.replaceChildren(); // they belong to the network before
    state.textContent = "Measuring changes …";
    timer = setTimeout(() => ask(query), CALM);
  });

  /** @param {string} query */
  async function ask(query) {
    asked = query;
    control = new AbortController();
    state.textContent = "Measuring changes …";
    try {
      const response = await fetch(`/api/remedies?${query}`, { signal: control.signal });
      const answer = await response.json();
      if (asked !== query) return;
      if (response.status === 503) {
        state.textContent = answer.error;
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

  /** @param {any} answer */
  function show(answer) {
    section.style.minHeight = "";
    section.dataset.shown = asked || "";
    if (answer.error || answer.verdict === "healthy") {
      state.textContent =
        answer.error || "Nothing needs to change: every layer receives a usable gradient.";
      list.replaceChildren();
      return;
    }
    const { remedies, refuted, seeds } = answer;
    const fewer = seeds < networks ? " (fewer than above, to be quick)" : "";
    state.textContent = remedies.length
      ? `Each of these was measured on the same ${seeds} networks${fewer}, before and after. The cheapest change comes first.`
      : `${refuted.length} changes were measured on the same ${seeds} networks; none helps.`;
    const more = remedies.slice(SHOWN);
    list.replaceChildren(
      ...remedies.slice(0, SHOWN).map(makeCard),
      ...(more.length
        ? [fold(`${more.length} more that ${more.length === 1 ? "helps" : "help"}`, more)]
        : []),
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
    return el(
      "details",
      { "data-part": name },
      el("summary", {}, title),
      el("div", { class: "ex-remedy-list" }, remedies.map(makeCard)),
    );
  }

  /** @param {any} remedy */
  function makeCard(remedy) {
    const { comparison, outcome } = remedy;
    const works = outcome === "cures" || outcome === "measures well";
    const state = works ? "good" : outcome === "helps" ? "warn" : "bad";
    const fixed = Object.keys(remedy.changes).filter((name) => explore.locked().includes(name));
    const button = {
      type: "button",
      class: works ? "primary" : "",
      "aria-label": `apply: ${remedy.title}`,
      disabled: fixed.length > 0,
      onclick: () => apply(remedy),
    };
    return el(
      "article",
      { class: "ex-remedy", "data-outcome": outcome, "data-state": state },
      el(
        "div",
        { class: "ex-remedy-head" },
        el("h3", {}, remedy.title),
        el("button", button, works || outcome === "helps" ? "Apply" : "See it"),
      ),
      el(
        "p",
        { class: "ex-remedy-figure" },
        el("span", { class: "dim" }, `${comparison.name}: `),
        comparison.before_text,
        el("span", { role: "img", "aria-label": "becomes" }, " → "),
        el("b", {}, comparison.after_text),
        el("span", { class: "dim" }, ` (wanted ${comparison.threshold_text})`),
      ),
      el(
        "p",
        { class: "fv-card-word" },
        el("span", { "aria-hidden": "true" }, `${ICONS[outcome]} `),
        `${remedy.verdict_before} → ${remedy.verdict_after}: ${remedy.meaning}`,
      ),
      el(
        "p",
        { class: "dim" },
        fixed.length ? `${remedy.reason} (What it changes is fixed on this page.)` : remedy.reason,
      ),
    );
  }

  /** @param {any} remedy */
  function apply(remedy) {
    const query = new URLSearchParams(remedy.query);
    const seeds = new URLSearchParams(explore.query()).get("seeds");
    if (seeds) query.set("seeds", seeds);
    explore.apply(query.toString());
    find(document, ".ex-look")?.scrollIntoView({ block: "start", behavior: scrolling() });
  }
}
