/* The chain-rule page's charts: what is drawn from an answer of the server, as SVG text. */
import { writePath } from "../shared/axes.js";
import { escapeHtml } from "../shared/dom.js";
import { formatPower, subscript } from "../shared/numbers.js";

/** @typedef {import("./answers.js").Factor} Factor */
/** @typedef {import("./answers.js").Quantity} Quantity */
/** @typedef {{factor: Factor, from: number, to: number}} Place where a factor stands across a chart */

/**
 * A number after its sign: "= 0.25", or "≈ 0.235" where the digits are not all of it.
 * @param {Quantity} number
 */
export const equal = ({ relation, text }) => `${relation} ${text}`;
/**
 * How much room the longest of some words needs.
 * @param {string[]} words
 * @param {number} least
 */
const room = (words, least) =>
  Math.max(least, ...words.map((word) => 14 + 7.2 * String(word).length));
/** @param {string} name of a variable: w1 */
export const letter = (name) => `${name[0]}${subscript(name.slice(1))}`;

/**
 * A chart is drawn at the width it is shown at, so that its text keeps its size.
 * @param {Element} box
 */
export const widthOf = (box) => Math.max(280, Math.floor(box.clientWidth));

/**
 * One bar per factor on a log scale, growing from 1: left of it shrinks, right of it grows.
 * @param {Factor[]} factors
 * @param {number} width
 */
export function factorChart(factors, width) {
  const logs = factors.map((f) => f.value.log10).filter((v) => v !== null);
  const reach = Math.max(1, Math.ceil(Math.max(0, ...logs.map(Math.abs))));
  const [row, left, right] = [
    30,
    room(
      factors.map((f) => f.short),
      64,
    ),
    room(
      factors.map((f) => f.value.text),
      88,
    ),
  ];
  const middle = left + (width - left - right) / 2;
  const scale = (width - left - right) / 2 / reach;
  const height = factors.length * row + 30;
  const ticks = [-reach, 0, reach].map(
    (t) =>
      `<line class="${t ? "grid" : "zero"}" x1="${middle + t * scale}" x2="${middle + t * scale}" y1="22" y2="${height - 4}"/><text x="${middle + t * scale}" y="14" text-anchor="middle">${t ? formatPower(t) : "× 1"}</text>`,
  );
  const bars = factors.map((f, i) => {
    const y = 26 + i * row;
    const log = f.value.log10;
    const size = log === null ? 0 : Math.max(1.5, Math.abs(log) * scale);
    const from = log !== null && log < 0 ? middle - size : middle;
    return `<g class="bar ${f.effect}${isEditable(f) ? " editable" : ""}" data-factor="${f.id}" tabindex="${i ? -1 : 0}" role="${isEditable(f) ? "button" : "img"}" aria-label="${escapeHtml(f.sentence)}${isEditable(f) ? "; change it" : ""}"><title>${escapeHtml(f.sentence)}</title><rect class="hit" x="0" y="${y}" width="${width}" height="${row - 2}" rx="4"/><text x="${left - 8}" y="${y + 19}" text-anchor="end">${escapeHtml(f.short)}</text><rect class="value" x="${from}" y="${y + 7}" width="${size}" height="${row - 16}" rx="2"/><text x="${width - right + 8}" y="${y + 19}">${escapeHtml(f.value.text)}</text></g>`;
  });
  return `<svg class="cr-chart" data-row viewBox="0 0 ${width} ${height}" role="group" aria-label="The factors of the product on a logarithmic scale">${ticks.join("")}${bars.join("")}</svg>`;
}

/**
 * Whether a factor is a number that people can set: a weight, or the input.
 * @param {Factor} factor
 */
export const isEditable = (factor) =>
  factor.kind === "weight" || (factor.kind === "input" && factor.layer === 1);

/**
 * Edges between small nodes in one line, coloured and as thick as their factors are.
 * @param {Place[]} places
 * @param {number} y
 * @param {{labels?: boolean}} [options]
 */
export const stripEdges = (places, y, { labels = true } = {}) =>
  places
    .map(({ factor: f, from, to }, index) => {
      const log = f.value.log10;
      const thickness = log === null ? 2 : 4 + 1.5 * Math.max(-2, Math.min(2, log));
      const middle = (from + to) / 2;
      const name =
        labels && to - from >= 26
          ? `<text x="${middle}" y="${y + 21}" text-anchor="middle">${escapeHtml(f.label ?? f.short)}</text>`
          : "";
      const value =
        labels && to - from >= 38
          ? `<text class="number" x="${middle}" y="${y - 10}" text-anchor="middle">${escapeHtml(f.value.text)}</text>`
          : "";
      const gap = Math.min(5, (to - from) / 5);
      return `<g class="link ${f.effect}" data-factor="${f.id}" tabindex="${index === places.length - 1 ? 0 : -1}" role="img" aria-label="${escapeHtml(f.sentence)}"><title>${escapeHtml(f.sentence)}</title><rect class="hit" x="${from}" y="${y - 24}" width="${to - from}" height="50"/><path d="M${from + gap} ${y}H${to - gap}" style="stroke-width:${thickness.toFixed(1)}px"/>${name}${value}</g>`;
    })
    .join("") +
  places
    .map(
      ({ from, to }) =>
        `<circle class="dot" cx="${to}" cy="${y}" r="${Math.min(4, Math.max(1, (to - from) / 7)).toFixed(1)}"/>`,
    )
    .join("");

/**
 * The whole chain in one line, input at the left: it stays in sight where the graph cannot.
 * @param {Factor[]} factors
 * @param {number} width
 * @param {string[]} ends what stands at both ends
 */
export const stripChart = (factors, width, ends) => {
  const forward = [...factors].reverse();
  const [left, right, y] = [30, 30, 26];
  const size = (width - left - right) / forward.length;
  const places = forward.map((factor, i) => ({
    factor,
    from: left + i * size,
    to: left + (i + 1) * size,
  }));
  return `<svg class="cr-chart cr-line" data-row viewBox="0 0 ${width} 54" role="group" aria-label="The factors from input to output, in one line">${stripEdges(places, y)}<text x="${left - 8}" y="${y + 4}" text-anchor="end">${escapeHtml(ends[0])}</text><text x="${width - right + 8}" y="${y + 4}">${escapeHtml(ends[1])}</text></svg>`;
};

/**
 * Lines over a logarithmic axis; points are [x, log10 y], with null for a gap.
 * @param {object} chart
 * @param {{name: string, color: string, dash?: string, points: [number, number | null][]}[]} chart.series
 * @param {string} chart.x what the horizontal axis counts
 * @param {[number, number]} [chart.band] what is shaded
 * @param {string} chart.label
 * @param {number} chart.width
 */
export function lineChart({ series, x, band, label, width }) {
  const [height, right, top, bottom] = [280, 12, 12, 40];
  const points = series.flatMap((entry) => entry.points).filter(([, y]) => y !== null);
  const xs = points.map(([value]) => value);
  const ys = points.map(([, value]) => /** @type {number} */ (value));
  const [low, high] = [Math.floor(Math.min(-1, ...ys)), Math.ceil(Math.max(1, ...ys))];
  const [first, final] = [Math.min(...xs, 1), Math.max(...xs, 2)];
  const py = (/** @type {number} */ v) =>
    top + ((high - v) / (high - low)) * (height - top - bottom);
  const step = Math.max(1, Math.ceil((high - low) / 7));
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(t);
  const left = room(ticks.map(formatPower), 46);
  const px = (/** @type {number} */ v) =>
    left + ((v - first) / (final - first)) * (width - left - right);
  const grid = ticks.map(
    (t) =>
      `<line class="${t ? "grid" : "zero"}" x1="${left}" x2="${width - right}" y1="${py(t)}" y2="${py(t)}"/><text x="${left - 8}" y="${py(t) + 4}" text-anchor="end">${t ? formatPower(t) : "1"}</text>`,
  );
  const xstep = Math.max(1, Math.round((final - first) / 6));
  for (let t = first; t <= final; t += xstep)
    grid.push(`<text x="${px(t)}" y="${height - 20}" text-anchor="middle">${t}</text>`);
  const shade = band
    ? `<rect class="band" x="${left}" width="${width - left - right}" y="${py(band[1])}" height="${py(band[0]) - py(band[1])}"><title>within 10× of 1</title></rect>`
    : "";
  const lines = series.map((entry) => {
    const path = writePath(entry.points.map(([a, b]) => [px(a), b === null ? null : py(b)]));
    return `<path d="${path}" stroke="${entry.color}" ${entry.dash ? `stroke-dasharray="${entry.dash}"` : ""}/>`;
  });
  const key =
    series
      .map(
        (entry) =>
          `<span><svg class="cr-swatch" width="26" height="8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" stroke="${entry.color}" stroke-width="2.5" ${entry.dash ? `stroke-dasharray="${entry.dash}"` : ""}/></svg>${escapeHtml(entry.name)}</span>`,
      )
      .join("") +
    (band
      ? `<span><i style="height:10px;background:color-mix(in srgb, var(--cr-lit) 24%, transparent)"></i>within 10× of 1</span>`
      : "");
  return `<svg class="cr-chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(label)}">${shade}${grid.join("")}${lines.join("")}<text x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">${escapeHtml(x)}</text></svg><div class="cr-key">${key}</div>`;
}

/**
 * Which |w| keep the product within 10× of 1, for each number of layers: a funnel.
 * @param {import("./answers.js").Depth} answer
 * @param {number} width
 */
export const regionChart = (
  { funnel, reach, size, negative, threshold, region, intervals },
  width,
) => {
  const [height, left, right, top, bottom] = [250, 40, 14, 12, 66];
  const [low, high] = [Math.log10(0.03), Math.log10(100)];
  const px = (/** @type {number} */ w) =>
    left +
    ((Math.min(high, Math.max(low, Math.log10(Math.max(w, 1e-9)))) - low) / (high - low)) *
      (width - left - right);
  const depth = funnel.length;
  const py = (/** @type {number} */ layers) => top + (layers / depth) * (height - top - bottom);
  const edge = (/** @type {number} */ side) =>
    [funnel[0], ...funnel].map((pair, i) => `${px(pair[side]).toFixed(3)} ${py(i).toFixed(1)}`);
  const best = `M${edge(0).join("L")}L${edge(1).reverse().join("L")}Z`;
  const own = reach.filter(([w]) => w >= 0.03);
  const mine = `M${px(own[0][0])} ${top}${own.map(([w, layers]) => `L${px(w).toFixed(1)} ${py(layers).toFixed(1)}`).join("")}L${px(own[own.length - 1][0])} ${top}Z`;
  const grid = [0.1, 1, 10, 100].map(
    (w) =>
      `<line class="grid" x1="${px(w)}" x2="${px(w)}" y1="${top}" y2="${height - bottom}"/><text x="${px(w)}" y="${height - bottom + 34}" text-anchor="middle">${w}</text>`,
  );
  for (const layers of [1, 10, 20, 30, 40, 50].filter((n) => n <= depth))
    grid.push(`<text x="${left - 8}" y="${py(layers) + 4}" text-anchor="end">${layers}</text>`);
  // The intervals at the full depth, on the axis of |w| itself.
  const y = height - bottom + 8;
  const bar = (/** @type {number} */ from, /** @type {number} */ to, /** @type {string} */ kind) =>
    `<rect class="${kind}" x="${px(from)}" width="${Math.max(2, px(to) - px(from))}" y="${y}" height="10"/>`;
  const ownBars = intervals
    .filter(([a]) => a < 0 === negative)
    .map(([a, b]) =>
      bar(Math.min(Math.abs(a), Math.abs(b)), Math.max(Math.abs(a), Math.abs(b)), "own"),
    );
  const at = px(size);
  const [sign, short] = [negative ? "−" : "", Number(size.toPrecision(4))];
  const said = `Up to ${depth} layers the best case stays within 10 times of 1 for |w| from ${region[0].toPrecision(3)} to ${region[1].toPrecision(3)}; now |w| is ${size}.`;
  return (
    `<svg class="cr-chart cr-region" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(said)}">${grid.join("")}<path class="best" d="${best}"/><path class="own" d="${mine}"/><rect class="axis" x="${left}" width="${width - left - right}" y="${y}" height="10"/>${bar(region[0], region[1], "best")}${ownBars.join("")}<line class="zero" stroke-dasharray="3 4" x1="${px(threshold)}" x2="${px(threshold)}" y1="${top}" y2="${y + 10}"/><text x="${px(threshold)}" y="${y + 42}" text-anchor="middle" class="strong">${Number(threshold.toPrecision(3))}</text><line class="marker" x1="${at}" x2="${at}" y1="${top}" y2="${y + 14}"/><path class="pointer" d="M${at} ${y + 8}l-6 10h12z"/><text x="${(left + width - right) / 2}" y="${height - 3}" text-anchor="middle">|w|, at ${depth} layers shaded where it stays</text><text transform="rotate(-90 10 ${top + 70})" x="10" y="${top + 70}" text-anchor="middle">layers</text></svg>` +
    `<div class="cr-key"><span><i class="best"></i>best case stays within 10× of 1</span><span><i class="own"></i>this chain does, w ${negative ? "&lt;" : "&gt;"} 0</span><span><i class="now"></i>now: w ${short === size ? "=" : "≈"} ${sign}${short}</span></div>`
  );
};
