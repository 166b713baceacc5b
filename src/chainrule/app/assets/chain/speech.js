/* Formulas as a screen reader should say them. */

/**
 * Return a formula in words that are read aloud as it is written.
 * @param {string} text
 */
export const speak = (text) =>
  text
    .replace(/\/(?=[∂d])/g, " by ")
    .replace(/([a-z][₀-₉]+)\(/g, "$1 times (")
    .replaceAll("·", "times")
    .replaceAll("≈", "about")
    .replaceAll("=", "equals")
    .replaceAll("⋯", "and so on")
    .trim();
