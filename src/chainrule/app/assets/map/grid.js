/* Places on a map of cells, counted from its lower left corner. */

/** @typedef {[number, number]} Place */

/**
 * The segments between neighbours of which one is true and one is false.
 * @param {number} columns
 * @param {number} rows
 * @param {(x: number, y: number) => boolean | null} read null where it is not known
 * @returns {[Place, Place][]} corners of cells: the cell [0, 0] reaches from 0 to 1
 */
export function outline(columns, rows, read) {
  /** @type {[Place, Place][]} */
  const segments = [];
  const differ = (/** @type {any} */ a, /** @type {any} */ b) =>
    a !== null && b !== null && a !== b;
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1) {
      const own = read(x, y);
      if (x + 1 < columns && differ(own, read(x + 1, y)))
        segments.push([
          [x + 1, y],
          [x + 1, y + 1],
        ]);
      if (y + 1 < rows && differ(own, read(x, y + 1)))
        segments.push([
          [x, y + 1],
          [x + 1, y + 1],
        ]);
    }
  }
  return segments;
}

/**
 * The place that a key leads to; null for other keys.
 * @param {Place} at
 * @param {string} key
 * @param {Place} size columns and rows
 * @returns {Place | null}
 */
export function move([x, y], key, [columns, rows]) {
  /** @type {Record<string, Place>} */
  const ways = {
    ArrowLeft: [x - 1, y],
    ArrowRight: [x + 1, y],
    ArrowUp: [x, y + 1],
    ArrowDown: [x, y - 1],
    Home: [0, y],
    End: [columns - 1, y],
    PageUp: [x, rows - 1],
    PageDown: [x, 0],
  };
  const to = ways[key];
  if (!to) return null;
  return [Math.max(0, Math.min(columns - 1, to[0])), Math.max(0, Math.min(rows - 1, to[1]))];
}

/**
 * The numbers of the ticks that are written: every one, every second, … as there is room.
 * @param {number} count
 * @param {number} room how many fit
 */
export function thin(count, room) {
  const stride = Math.max(1, Math.ceil(count / Math.max(1, room)));
  return [...Array(count).keys()].filter((i) => i % stride === 0);
}
