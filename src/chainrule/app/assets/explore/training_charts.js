/* The pictures of a training: curves as SVG, and the gradients of all layers as a heat map. */

import { chooseLossAxis, writePath } from "../shared/axes.js";
import { el, find, svg } from "../shared/dom.js";
import { formatNumber, formatShare } from "../shared/numbers.js";

/** Viridis: from dark to light with equal steps, told apart with any colour vision. */
const SCALE = [
  "#440154",
  "#472d7b",
  "#3b528b",
  "#2c728e",
  "#21918c",
  "#28ae80",
  "#5ec962",
  "#addc30",
  "#fde725",
].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const ZERO = [138, 143, 148];
const MARGIN = { left: 56, right: 12, top: 8, bottom: 36 };
/** @type {import("../shared/axes.js").Axis} */
const SHARES = { ticks: [0, 0.25, 0.5, 0.75, 1], place: (value) => value, write: formatShare };

/**
 * A network that is trained, and what has come of it.
 * @typedef {object} Run
 * @property {"now" | "pinned"} kind
 * @property {string} name
 * @property {string} query
 * @property {any[]} records
 * @property {any} [start]
 * @property {any} [end]
 */

/**
 * Return where the pointer is in a picture: shares of its width and of its height from below.
 * @param {any} plot
 * @param {PointerEvent} event
 */
export function locate(plot, event) {
  const { left, top, width, height } = plot.getBoundingClientRect();
  return {
    x: (event.clientX - left - MARGIN.left) / (width - MARGIN.left - MARGIN.right),
    y: 1 - (event.clientY - top - MARGIN.top) / (height - MARGIN.top - MARGIN.bottom),
  };
}

/**
 * Draw the loss or the accuracy over the steps.
 * @param {any} plot
 * @param {"loss" | "accuracy"} name
 * @param {Run[]} runs
 * @param {number} steps
 * @param {number | null} pointed where the pointer is, as a share of the width
 */
export function drawCurves(plot, name, runs, steps, pointed) {
  const start = runs.find((run) => run.start)?.start;
  const values = runs
    .flatMap((run) => run.records.map((record) => record[name]))
    .filter((value) => value !== null);
  const guess = start && (name === "loss" ? start.chance_loss : start.chance);
  const axis = name === "accuracy" ? SHARES : chooseLossAxis(values.concat(guess ?? []));
  const frame = drawFrame(
    plot,
    axis.ticks.map((value) => [axis.place(value), axis.write(value)]),
    steps,
    true,
  );
  if (!frame) return;
  const { picture, x, y } = frame;
  const at = guess === undefined ? 0 : y(axis.place(guess));
  if (guess !== undefined)
    picture.append(svg("line", { x1: x(0), x2: x(1), y1: at, y2: at, class: "tr-guess" }));
  for (const run of runs) {
    const known = run.records.filter((record) => record[name] !== null);
    if (!known.length) continue;
    /** @type {[number, number][]} */
    const points = known.map((record) => [x(record.step / steps), y(axis.place(record[name]))]);
    const [cx, cy] = points[points.length - 1];
    picture.append(
      svg("path", { d: writePath(points), class: `tr-${run.kind}` }),
      svg("circle", { cx, cy, r: 3, class: `tr-${run.kind}` }),
    );
  }
  if (guess !== undefined) {
    const label =
      name === "loss" ? `guessing: ${formatNumber(guess)}` : `chance: ${formatShare(guess)}`;
    const above = at < MARGIN.top + 18 ? 18 : -8;
    picture.append(
      svg("text", { x: x(1) - 8, y: at + above, "text-anchor": "end", class: "tr-halo" }, label),
    );
  }
  if (pointed !== null) picture.append(drawPointer(frame, pointed));
}

/**
 * Draw the gradients of all layers, a column for each record.
 * @param {any} plot
 * @param {Run | undefined} run
 * @param {[number, number]} powers what the colours' ends stand for
 * @param {number} steps
 * @param {number | null} pointed
 */
export function drawMap(plot, run, [low, high], steps, pointed) {
  const layers = run?.start?.layers ?? 1;
  const shown = [...new Set([1, Math.round((1 + layers) / 2), layers])];
  /** @type {[number, string][]} */
  const ticks = run?.start ? shown.map((layer) => [(layer - 0.5) / layers, `layer ${layer}`]) : [];
  const frame = drawFrame(plot, ticks, steps, false);
  if (!frame) return;
  const { picture, x, y } = frame;
  const canvas =
    find(plot, "canvas") ||
    plot.insertBefore(el("canvas", { "aria-hidden": "true" }), plot.firstChild);
  const columns = run?.start ? Math.ceil(run.start.steps / run.start.every) + 1 : 1;
  if (canvas.width !== columns || canvas.height !== layers)
    Object.assign(canvas, { width: columns, height: layers });
  Object.assign(canvas.style, {
    left: `${x(0)}px`,
    top: `${y(1)}px`,
    width: `${x(1) - x(0)}px`,
    height: `${y(0) - y(1)}px`,
  });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, layers);
  for (const [column, record] of (run?.records ?? []).entries()) {
    if (column >= columns) break;
    for (const [layer, norm] of record.norms.entries()) {
      if (norm === null) continue;
      const color = norm === 0 ? ZERO : shade((Math.log10(norm) - low) / (high - low));
      image.data.set([...color, 255], 4 * ((layers - 1 - layer) * columns + column));
    }
  }
  context.putImageData(image, 0, 0);
  if (pointed !== null) picture.append(drawPointer(frame, pointed));
}

/**
 * Draw a sample of a run's line, for a key.
 * @param {Run} run
 */
export function drawSample(run) {
  const line = svg("line", {
    x1: 0,
    x2: 30,
    y1: 5,
    y2: 5,
    class: `tr-${run.kind}`,
    "stroke-width": 2.5,
  });
  return svg("svg", { width: 30, height: 10, "aria-hidden": "true" }, line);
}

/** @typedef {{picture: any, x: (share: number) => number, y: (share: number) => number}} Frame */

/**
 * Draw axes; return how to place shares of the width and of the height from below.
 * @param {any} plot
 * @param {[number, string][]} ticks
 * @param {number} steps
 * @param {boolean} lines whether the ticks have lines
 * @returns {Frame | null} nothing where the picture has no room
 */
function drawFrame(plot, ticks, steps, lines) {
  const [width, height] = [plot.clientWidth, plot.clientHeight];
  if (!width || !height) return null;
  find(plot, "svg")?.remove();
  const x = (/** @type {number} */ share) =>
    MARGIN.left + share * (width - MARGIN.left - MARGIN.right);
  const y = (/** @type {number} */ share) =>
    height - MARGIN.bottom - share * (height - MARGIN.top - MARGIN.bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const [at, text] of ticks) {
    if (lines)
      picture.append(svg("line", { x1: x(0), x2: x(1), y1: y(at), y2: y(at), class: "tr-grid" }));
    picture.append(svg("text", { x: x(0) - 8, y: y(at) + 4, "text-anchor": "end" }, text));
  }
  for (const share of [0, 0.5, 1]) {
    const place = {
      x: x(share),
      y: height - MARGIN.bottom + 16,
      "text-anchor": share === 1 ? "end" : "middle",
    };
    picture.append(svg("text", place, `${steps * share}${share === 1 ? " steps" : ""}`));
  }
  plot.append(picture);
  return { picture, x, y };
}

/**
 * @param {Frame} frame
 * @param {number} share
 */
function drawPointer({ x, y }, share) {
  return svg("line", { x1: x(share), x2: x(share), y1: y(0), y2: y(1), class: "tr-at" });
}

/** @param {number} share */
function shade(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
  const index = Math.min(Math.floor(at), SCALE.length - 2);
  return [0, 1, 2].map((part) =>
    Math.round(SCALE[index][part] + (at - index) * (SCALE[index + 1][part] - SCALE[index][part])),
  );
}
