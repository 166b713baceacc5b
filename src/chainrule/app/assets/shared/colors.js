/* Colours of heat maps: how far a value is from what is usual, in light and in dark. */

/** @typedef {[number, [number, number, number]][]} Stops */

/** @type {Record<string, {zones: Stops, shares: Stops, broken: string}>} */
const THEMES = {
  light: {
    zones: [
      [-300, [38, 78, 156]],
      [-100, [186, 205, 240]],
      [-100, [190, 226, 213]],
      [0, [122, 190, 168]],
      [100, [52, 152, 123]],
      [100, [246, 196, 174]],
      [200, [224, 112, 66]],
      [300, [176, 54, 12]],
    ],
    shares: [
      [0, [255, 255, 255]],
      [150, [235, 140, 100]],
      [300, [160, 44, 8]],
    ],
    broken: "#1c1d1f",
  },
  dark: {
    zones: [
      [-300, [122, 167, 255]],
      [-100, [40, 62, 104]],
      [-100, [26, 62, 53]],
      [0, [34, 104, 84]],
      [100, [52, 158, 127]],
      [100, [98, 48, 28]],
      [200, [190, 88, 48]],
      [300, [255, 143, 99]],
    ],
    shares: [
      [0, [36, 39, 43]],
      [150, [150, 76, 48]],
      [300, [255, 143, 99]],
    ],
    broken: "#ffffff",
  },
};

const BROKEN = 900;

/** Whether the page is dark now. */
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * Return the colour of a shade, as CSS writes it.
 * @param {number} shade from −300 to 300, or from 0 to 300 for shares; 900: not finite
 * @param {boolean} share
 */
export function colorOf(shade, share) {
  const theme = THEMES[isDark() ? "dark" : "light"];
  if (shade >= BROKEN) return theme.broken;
  const stops = share ? theme.shares : theme.zones;
  const next = stops.findIndex(([at], i) => i > 0 && shade <= at);
  const [a, b] =
    next < 0 ? [stops[stops.length - 1], stops[stops.length - 1]] : [stops[next - 1], stops[next]];
  const way = b[0] > a[0] ? Math.max(0, (shade - a[0]) / (b[0] - a[0])) : 1;
  const mixed = a[1].map((from, i) => Math.round(from + way * (b[1][i] - from)));
  return `rgb(${mixed.join(" ")})`;
}

/**
 * Do something whenever light becomes dark, or the other way round.
 * @param {() => void} work
 */
export function onTheme(work) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", work);
  new MutationObserver(work).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}
