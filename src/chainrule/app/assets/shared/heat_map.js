/* Heat maps for a chart library without any: a picture behind the other traces.
 *
 * The library's smallest bundle has lines and bars. One kind of trace more would make what every
 * visitor loads a quarter larger, so a heat map is painted here, a pixel for each cell.
 */

import { el } from "./dom.js";

/**
 * @typedef {object} Cell
 * @property {number} layer
 * @property {string} text what is said of it
 */

/**
 * Return a figure in which a heat map, its first trace, is a picture. The trace stays in its place,
 * without points.
 * @param {{data: any[], layout: any}} figure
 */
export function paintHeatMap(figure) {
  const [trace, ...others] = figure.data;
  if (trace?.type !== "heatmap") return figure;
  const { x, y, z } = trace;
  const [low, high] = findEdges(y);
  const ends = others.filter((other) => (other.yaxis ?? "y") === "y").flatMap((other) => other.y);
  const range = [Math.min(low, ...ends), Math.max(high, ...ends)];
  const picture = {
    source: paint(z, readScale(trace.colorscale)),
    xref: "x",
    yref: "y",
    x: x[0] - 0.5,
    y: high,
    sizex: x.length,
    sizey: high - low,
    sizing: "stretch",
    layer: "below",
  };
  // With points, though none that is drawn: a trace without any would be left out with its axes.
  const blank = {
    type: "scatter",
    mode: "markers",
    name: trace.name,
    showlegend: false,
    x,
    y: x.map(() => null),
  };
  return {
    data: [blank, ...others],
    layout: {
      ...figure.layout,
      images: [picture],
      yaxis: { range, ...figure.layout.yaxis },
    },
  };
}

/**
 * Return the cell of a heat map at a place on its axes; nothing where there is none.
 * @param {any} trace
 * @param {number} x
 * @param {number} y
 * @returns {Cell | null}
 */
export function findCell(trace, x, y) {
  const [low, high] = findEdges(trace.y);
  const layer = Math.round(x);
  const column = layer - trace.x[0];
  const row = Math.floor(((y - low) / (high - low)) * trace.y.length);
  const share = trace.customdata[row]?.[column];
  if (share === undefined) return null;
  if (share === null) return { layer, text: `layer ${layer}` };
  const near = trace.text ? trace.text[row][0] : Number(trace.y[row].toPrecision(3));
  return {
    layer,
    text: `layer ${layer}: ${(100 * share).toFixed(1)} % of activations near ${near}`,
  };
}

/**
 * The places where the first row begins and the last one ends.
 * @param {number[]} centres
 * @returns {[number, number]}
 */
export function findEdges(centres) {
  const half = centres.length > 1 ? (centres[1] - centres[0]) / 2 : 0.5;
  return [centres[0] - half, centres[centres.length - 1] + half];
}

/** @typedef {{at: number, color: number[]}} Stop */

/**
 * Read a scale of colours: "#rrggbb" or "rgba(…)" at shares of the way.
 * @param {[number, string][]} scale
 * @returns {Stop[]}
 */
export function readScale(scale) {
  return scale.map(([at, color]) => {
    if (color.startsWith("#")) {
      return {
        at,
        color: [...[1, 3, 5].map((from) => parseInt(color.slice(from, from + 2), 16)), 1],
      };
    }
    return { at, color: (color.match(/[\d.]+/g) ?? []).map(Number) };
  });
}

/**
 * Return the colour at a share of a scale: red, green, blue, alpha from 0 to 255.
 * @param {Stop[]} scale
 * @param {number} share
 */
export function mix(scale, share) {
  const next = Math.max(
    1,
    scale.findIndex(({ at }) => at >= share),
  );
  const [a, b] = [scale[next - 1], scale[next]];
  const way = (share - a.at) / (b.at - a.at);
  const [red, green, blue, alpha] = a.color.map((part, i) => part + way * (b.color[i] - part));
  return [red, green, blue, 255 * alpha].map(Math.round);
}

/**
 * @param {(number | null)[][]} rows from below
 * @param {Stop[]} scale
 */
function paint(rows, scale) {
  const [width, height] = [rows[0].length, rows.length];
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  let most = 0;
  for (const row of rows) for (const value of row) most = Math.max(most, value ?? 0);
  for (const [at, row] of rows.entries()) {
    for (const [column, value] of row.entries()) {
      if (value === null || !most) continue;
      image.data.set(mix(scale, value / most), 4 * ((height - 1 - at) * width + column));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
