/* The diagnosis in three sentences; the server writes them (display/sentences.py). */
import { part, setText } from "../shared/dom.js";

/**
 * Bring it to life.
 * @param {HTMLElement} box
 * @param {import("./explore.js").Api} explore
 */
export function mountVerdict(box, explore) {
  explore.onAnswer((answer) => {
    const { state, icon, value, badge } = answer.cards.at(-1);
    const word = part(box, "verdict");
    word.dataset.state = state;
    setText(word, `${icon} ${value.digits}`);
    const chance = part(box, "chance");
    chance.dataset.state = badge?.state ?? "";
    setText(chance, badge ? `${badge.icon} ${badge.text}` : "");
    for (const name of ["what", "why"]) setText(part(box, name), answer.said[name]);
    const compares = answer.findings.some((/** @type {any} */ each) => each.compares);
    setText(part(box, "limits"), compares ? answer.limits : "");
  });
}
