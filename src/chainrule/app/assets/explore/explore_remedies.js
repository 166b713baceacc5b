/* What to change: measured remedies for the network on screen, one click to apply each. */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";

  const CALM = 450; // ms without a change before remedies are looked for
  const SHOWN = 5; // the rest is folded away

  chainrule.mountRemedies = (section, explore) => {
    const { el } = chainrule.dom;
    const state = el("p", { class: "fv-dim", "aria-live": "polite" });
    const list = el("div", { class: "ex-remedy-list" });
    section.replaceChildren(el("h2", { id: "ex-remedies" }, "What to change"), state, list);
    let asked = null; // query that is asked for or shown
    let control = null;
    let timer = null;
    let networks = 0; // how many the page shows

    explore.onAnswer((answer) => {
      networks = answer.ensemble.seeds;
      const query = new URLSearchParams(answer.view.query);
      if (query.toString() === asked) return;
      clearTimeout(timer);
      control?.abort();
      asked = null;
      section.dataset.shown = "";
      if (answer.verdict === "healthy") {
        asked = query.toString();
        show({ verdict: "healthy" });
        return;
      }
      section.style.minHeight = `${section.offsetHeight}px`; // what stands below need not jump
      list.replaceChildren(); // they belong to the network before
      state.textContent = "Measuring changes …";
      timer = setTimeout(() => ask(query.toString()), CALM);
    });

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
      } catch (error) {
        if (asked !== query || error.name === "AbortError") return;
        show({ error: "Changes could not be measured. Change a setting to try again." });
        asked = null;
      }
    }

    function show(answer) {
      section.style.minHeight = "";
      section.dataset.shown = asked || "";
      if (answer.error || answer.verdict === "healthy") {
        state.textContent = answer.error || "Nothing needs to change: every layer receives a usable gradient.";
        list.replaceChildren();
        return;
      }
      const { remedies, refuted, seeds } = answer;
      const fewer = seeds < networks ? " (fewer than above, to be quick)" : "";
      state.textContent = remedies.length
        ? `Each of these was measured on the same ${seeds} networks${fewer}, before and after. The cheapest change comes first.`
        : `${refuted.length} changes were measured on the same ${seeds} networks; none helps.`;
      const [first, rest] = [remedies.slice(0, SHOWN), remedies.slice(SHOWN)];
      list.replaceChildren(
        ...first.map(card),
        ...(rest.length ? [el("details", {}, el("summary", {}, `${rest.length} more that ${rest.length === 1 ? "helps" : "help"}`), el("div", { class: "ex-remedy-list" }, rest.map(card)))] : []),
        ...(refuted.length ? [el("details", { "data-part": "refuted" }, el("summary", {}, `Measured, and no help: ${refuted.length}`), el("div", { class: "ex-remedy-list" }, refuted.map(card)))] : []),
      );
    }

    function card(remedy) {
      const { comparison } = remedy;
      const works = remedy.outcome === "cures" || remedy.outcome === "measures well";
      const good = works ? "good" : remedy.outcome === "helps" ? "warn" : "bad";
      const fixed = Object.keys(remedy.changes).filter((name) => explore.locked().includes(name));
      const icon = { cures: "✔", "measures well": "✔", helps: "◐", trades: "⇄", fails: "✖" }[remedy.outcome];
      return el("article", { class: "ex-remedy", "data-outcome": remedy.outcome, "data-state": good },
        el("div", { class: "ex-remedy-head" },
          el("h3", {}, remedy.title),
          el("button", { type: "button", class: works ? "ex-primary" : "", "aria-label": `apply: ${remedy.title}`, disabled: fixed.length > 0, onclick: () => apply(remedy) }, works || remedy.outcome === "helps" ? "Apply" : "See it")),
        el("p", { class: "ex-remedy-figure" },
          el("span", { class: "fv-dim" }, `${comparison.name}: `), comparison.before_text, el("span", { "aria-label": "becomes" }, " → "), el("b", {}, comparison.after_text),
          el("span", { class: "fv-dim" }, ` (wanted ${comparison.threshold_text})`)),
        el("p", { class: "fv-card-word" }, el("span", { "aria-hidden": "true" }, `${icon} `), `${remedy.verdict_before} → ${remedy.verdict_after}: ${remedy.meaning}`),
        el("p", { class: "fv-dim" }, fixed.length ? `${remedy.reason} (What it changes is fixed on this page.)` : remedy.reason));
    }

    function apply(remedy) {
      const query = new URLSearchParams(remedy.query);
      const seeds = new URLSearchParams(explore.query()).get("seeds");
      if (seeds) query.set("seeds", seeds);
      explore.apply(query.toString());
      document.querySelector(".ex-look")?.scrollIntoView({ block: "start" });
    }
  };
})();
