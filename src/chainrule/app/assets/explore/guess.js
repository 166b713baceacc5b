/* Guess first: what an address covers is shown once the visitor has guessed.
 *
 * Every network is a new question. What was measured comes from the server; here it is only covered.
 */
import { findAll, part, setText } from "../shared/dom.js";

const USUAL = "Guess first: what will this network do?";
const BEFORE = "What was measured appears after your guess.";

/**
 * Return what is said after a guess.
 * @param {string} guess a verdict, or "other" for all that have no button
 * @param {string} verdict what was measured
 */
export function judge(guess, verdict) {
  const offered = ["vanishing", "healthy", "exploding"];
  const right = guess === verdict || (guess === "other" && !offered.includes(verdict));
  return `${right ? "Right" : "Not so"}: measured, it is “${verdict}”.`;
}

/**
 * Bring the question to life.
 * @param {HTMLElement} section
 * @param {import("./explore.js").Api} explore
 */
export function mountGuess(section, explore) {
  const root = /** @type {HTMLElement} */ (section.closest("#explore-root"));
  const buttons = findAll(section, "[data-guess]");
  /** @type {Map<string, string>} */
  const guesses = new Map(); // by network
  /** @type {any} */
  let shown = null;
  let asked = { ask: "", query: "" }; // a question is about the network that it came with

  function show() {
    const { guess: covers, ask, query } = shown.view;
    section.hidden = !covers.length;
    if (asked.ask !== ask) asked = { ask, query };
    const guess = guesses.get(query);
    const covered = covers.length && guess === undefined ? ["guess", ...covers] : [];
    root.dataset.covered = covered.join(" ");
    setText(part(section, "question"), (asked.query === query && ask) || USUAL);
    setText(part(section, "guessed"), guess === undefined ? BEFORE : judge(guess, shown.verdict));
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.guess === guess));
    }
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      if (!shown || guesses.has(shown.view.query)) return;
      guesses.set(shown.view.query, button.dataset.guess);
      show();
    });
  }
  explore.onAnswer((answer) => {
    shown = answer;
    show();
  });
}
