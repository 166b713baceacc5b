/* A small push on a variable, followed to the output: the product before it is written. */
import { el } from "../shared/dom.js";

const [FIRST, LAST] = [5, 4]; // stops that are shown of a long way

/**
 * The stops on the way: how far each value moves, by the product and really.
 * @param {any} nudge
 */
export function listStops(nudge) {
  const { stops } = nudge;
  const long = stops.length > FIRST + LAST + 2;
  const shown = long ? [...stops.slice(0, FIRST), ...stops.slice(-LAST)] : stops;
  return shown.map((/** @type {any} */ stop, /** @type {number} */ i) => {
    const item = el(
      "li",
      stop.factor ? { "data-factor": stop.factor, class: "stop" } : { class: "stop" },
      stop.local ? el("span", { class: "cr-times" }, `× ${stop.local.text}`) : null,
      el(
        "span",
        { class: "cr-moved" },
        `Δ${stop.symbol}`,
        " ",
        el("strong", {}, stop.predicted.text),
      ),
      i
        ? el("span", { class: "dim" }, `really ${sayTrue(stop)}`)
        : el("span", { class: "dim" }, "the push"),
    );
    if (long && i === FIRST)
      return [el("li", { class: "cr-gap" }, `⋯ ${stops.length - shown.length} more ⋯`), item];
    return [item];
  });
}

const sayTrue = (/** @type {any} */ stop) => stop.true?.text ?? "too small to see";

/**
 * What the push shows, in words.
 * @param {any} nudge
 */
export function describeNudge(nudge) {
  const last = nudge.stops.at(-1);
  const predicted = `Multiplied along the way, the push moves p by ${last.predicted.text}.`;
  if (!last.true)
    return `${predicted} That is too small to see: p has 16 digits, and none of them moves clearly.`;
  const really = `In truth, with the network computed twice, p moves by ${last.true.text}.`;
  const why =
    nudge.amount > 0.05
      ? " The larger the push, the more the slopes change on the way: a derivative is a promise for small pushes."
      : "";
  return `${predicted} ${really}${why}`;
}
