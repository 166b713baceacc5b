/* The names of a chart's zones ("layers learn here"), where they stand beside a small chart. The
 * server's figure has the zones as shapes, each with its name (chainrule/figures/zones.py).
 */

export const ROW = 12; // px: a line of a name

/**
 * Return a function that gives a value's share of an axis, 0 at its start.
 * @param {{type: string, range: number[]}} axis
 * @returns {(value: number) => number}
 */
export function makePlace({ type, range: [low, high] }) {
  return (value) => {
    const at = type === "log" ? Math.log10(value) : value;
    return Math.min(1, Math.max(0, (at - low) / (high - low)));
  };
}

/**
 * Return where the names of zones stand, the highest first: in the middle of each, and one under
 * the other where zones are too thin for that.
 * @param {{name: string, middle: number}[]} zones their middles, px from above
 * @param {number} height
 * @returns {{lines: string[], y: number}[]} the lines of each, and the middle of the first one
 */
export function placeNames(zones, height) {
  const names = zones
    .toSorted((one, other) => one.middle - other.middle)
    .map(({ name, middle }) => {
      const space = name.lastIndexOf(" ");
      const lines = name.length > 12 ? [name.slice(0, space), name.slice(space + 1)] : [name];
      return { lines, high: ROW * lines.length, middle };
    });
  let end = height - names.reduce((sum, { high }) => sum + high, 0);
  let start = 0;
  return names.map(({ lines, high, middle }) => {
    const top = Math.max(start, Math.min(end, middle - high / 2)); // the others fit below
    start = top + high;
    end += high;
    return { lines, y: top + ROW / 2 };
  });
}

/**
 * Return the names of a figure's zones, and where they stand beside a chart.
 * @param {any} layout
 * @param {number} height px of the chart
 */
export function listNames({ shapes = [], yaxis }, height) {
  const place = makePlace(yaxis);
  const zones = shapes.map((/** @type {any} */ { name, y0, y1 }) => ({
    name,
    middle: height * (1 - (place(y0) + place(y1)) / 2),
  }));
  return placeNames(zones, height);
}
