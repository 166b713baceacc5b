/* What has the focus must not lie under the page's header. */

const HEADER = 64;

/**
 * Scroll so that the header does not lie over what has the focus.
 * @param {Element} focused
 */
export const bringIntoSight = (focused) => {
  if (focused.closest(".cr-edit")) return;
  const { top } = focused.getBoundingClientRect();
  if (top < HEADER) scrollBy({ top: top - HEADER - 8, behavior: "instant" });
};
