/* What is seen first is drawn first. */

const LONGEST = 120; // milliseconds: a page that is not in sight paints nothing

/**
 * Wait until what is drawn now is on the screen.
 * @returns {Promise<void>}
 */
export const afterPaint = () =>
  new Promise((done) => {
    setTimeout(done, LONGEST);
    requestAnimationFrame(() => setTimeout(done)); // its frame is painted before the next task
  });
