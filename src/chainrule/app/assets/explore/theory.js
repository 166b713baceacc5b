/* What theory says of the network on screen, drawn behind the main chart by the server. */
import { setText } from "../shared/dom.js";

const LOST = "The server does not answer: theory is not shown.";

/**
 * Ask what theory says of an answer, and show it if that answer is still on screen.
 * @param {HTMLElement} place for the words
 * @param {any} answer
 * @param {import("../shared/flow_view.js").FlowView} flow
 */
export async function showTheory(place, answer, flow) {
  const { address } = answer.view;
  /** @type {any} */
  let said;
  try {
    const response = await fetch(`/api/theory?${address}`);
    said = await response.json();
  } catch {
    said = { error: LOST };
  }
  if (flow.answer !== answer) return;
  if (said.figure) flow.redraw("gradient", said.figure);
  place.classList.toggle("fv-no-theory", !said.figure);
  setText(/** @type {HTMLElement} */ (place.lastElementChild), said.words || said.error);
  place.dataset.shown = address;
  place.hidden = false;
}
