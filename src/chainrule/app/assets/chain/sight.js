/* What stays in sight on the chain-rule page while it scrolls, and what must not lie under it. */
import { find, findAll } from "../shared/dom.js";

const HEADER = 64; // what the page's own header covers
const LOW_STAYS = "(min-width: 62em) and (min-height: 760px)"; // as in chain.css

export const watchWhatStays = (root) => {
  // What stays in sight says how far down it reaches, and the factors stay below it.
  const stays = new ResizeObserver(() => {
    const low = find(root, ".cr-graph.cr-low") && matchMedia(LOW_STAYS).matches;
    const height = find(root, low ? ".cr-graph" : ".cr-strip").offsetHeight;
    root.style.setProperty("--cr-over", `${HEADER + height}px`);
  });
  for (const name of ["graph-card", "strip"]) stays.observe(find(root, `[data-part="${name}"]`));
};

/** Scroll so that neither the header nor what stays in sight lies over what has the focus. */
export const bringIntoSight = (root, focused) => {
  if (focused.closest(".cr-edit")) return;
  let over = HEADER;
  for (const card of findAll(root, ".cr-graph, .cr-strip")) {
    if (card.contains(focused)) return;
    const follows = card.compareDocumentPosition(focused) & Node.DOCUMENT_POSITION_FOLLOWING;
    const inside = card.parentElement.contains(focused); // outside its view it scrolls away
    if (getComputedStyle(card).position === "sticky" && follows && inside) {
      // Near the end of its view it has moved up, but it comes back as one scrolls up.
      over = Math.max(
        over,
        Math.max(parseFloat(getComputedStyle(card).top), card.getBoundingClientRect().top) +
          card.offsetHeight,
      );
    }
  }
  const { top, bottom } = focused.getBoundingClientRect();
  const end = find(root, '[data-part="end"]'); // the short lines, which stay in sight at the lower edge
  const docked =
    end &&
    !end.contains(focused) &&
    find(root, '[data-part="lines"]').contains(focused) &&
    getComputedStyle(end).position === "sticky";
  const below = docked ? end.getBoundingClientRect().top : Infinity;
  if (top >= over && bottom <= below) return;
  scrollBy({ top: top < over ? top - over - 8 : bottom - below + 8, behavior: "instant" });
};
