/* The measured network of the chain-rule page: strip, factors and gradients over the same layers.
 *
 * All three stand on one axis of layers, so what belongs together stands together, too.
 */

import { listPowers, writePath } from "../shared/axes.js";
import { escapeHtml, find } from "../shared/dom.js";
import { formatPower } from "../shared/numbers.js";
import { stripEdges, widthOf } from "./charts.js";
import { factorTable } from "./graph.js";
import { View } from "./view.js";

const CLASSIC = { depth: 15, activation: "sigmoid", init: "xavier" };
const [LEFT, RIGHT] = [56, 34];

/** @typedef {import("./answers.js").Factor} Factor */
/** @typedef {import("./answers.js").Quantity} Quantity */
/** @typedef {import("./answers.js").NetworkAnswer} NetworkAnswer */
/** @typedef {import("./charts.js").Place} Place */
/** @typedef {[number, number | null]} Point */

/**
 * Return where each factor stands, input to output: every layer has a slot of the same width.
 * @param {Factor[]} factors
 * @param {number} slot
 * @returns {Place[]}
 */
const placeFactors = (factors, slot) => {
  /** @type {Map<number, Factor[]>} */
  const layers = new Map();
  for (const factor of [...factors].reverse()) {
    const own = layers.get(factor.layer) ?? [];
    layers.set(factor.layer, [...own, factor]);
  }
  return [...layers.values()].flatMap((own, index) => {
    const size = slot / own.length;
    return own.map((factor, i) => ({
      factor,
      from: LEFT + index * slot + i * size,
      to: LEFT + index * slot + (i + 1) * size,
    }));
  });
};

/**
 * @param {number[]} ticks powers of ten
 * @param {(log: number) => number} py where a power stands
 * @param {number} width
 * @param {string} title
 * @param {number} y of the title
 */
const drawGrid = (ticks, py, width, title, y) =>
  `${ticks
    .map(
      (t) =>
        `<line class="${t ? "grid" : "zero"}" x1="${LEFT}" x2="${width - RIGHT}" y1="${py(t)}" y2="${py(t)}"/><text x="${LEFT - 8}" y="${py(t) + 4}" text-anchor="end">${t ? formatPower(t) : "1"}</text>`,
    )
    .join("")}<text class="strong" x="${LEFT}" y="${y}">${escapeHtml(title)}</text>`;

/**
 * One bar per factor, up from 1 where it grows the gradient and down where it shrinks it.
 * @param {Place[]} places
 * @param {number} width
 * @param {number} top
 * @param {number} height
 */
function drawGains(places, width, top, height) {
  const logs = places.map(({ factor }) => factor.value.log10).filter((log) => log !== null);
  const reach = (/** @type {number} */ side) =>
    Math.max(0.3, ...logs.map((log) => side * log)) * 1.1;
  const [high, low] = [reach(1), -reach(-1)];
  const py = (/** @type {number} */ log) => top + ((high - log) / (high - low)) * height;
  const whole = listPowers(low, high);
  const grid = drawGrid(whole.length > 1 ? whole : [0], py, width, "the factors", top - 6);
  const numbers =
    whole.length > 1
      ? ""
      : [2, 0.5]
          .filter((v) => Math.log10(v) < high && Math.log10(v) > low)
          .map(
            (v) =>
              `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${py(Math.log10(v))}" y2="${py(Math.log10(v))}"/><text x="${LEFT - 8}" y="${py(Math.log10(v)) + 4}" text-anchor="end">${v}</text>`,
          )
          .join("");
  return (
    grid +
    numbers +
    `<g data-row>` +
    places
      .map(({ factor: f, from, to }, index) => {
        const log = f.value.log10;
        const size = Math.min(26, (to - from) * 0.62);
        const [a, b] = log === null ? [py(0), py(0)] : [py(Math.max(0, log)), py(Math.min(0, log))];
        return `<g class="gain ${f.effect}" data-factor="${f.id}" tabindex="${index === places.length - 1 ? 0 : -1}" role="img" aria-label="${escapeHtml(f.sentence)}"><title>${escapeHtml(f.sentence)}</title><rect class="hit" x="${from}" y="${top}" width="${to - from}" height="${height}"/><rect class="value ${f.kind}" x="${(from + to) / 2 - size / 2}" width="${size}" y="${a}" height="${Math.max(1.5, b - a)}" rx="1.5"/></g>`;
      })
      .join("") +
    "</g>"
  );
}

/**
 * ‖δ_l‖ and ‖∂L/∂W_l‖, and the running product beside them: it passes through every ‖δ_l‖.
 * @param {NetworkAnswer} answer
 * @param {Place[]} places
 * @param {number} slot
 * @param {number} width
 * @param {number} top
 * @param {number} height
 */
function drawGradients(answer, places, slot, width, top, height) {
  const { deltas, weight_gradients: weights, output } = answer;
  const own = (/** @type {number} */ layer, /** @type {string} */ role) =>
    places.find(({ factor }) => factor.layer === layer && factor.kind === role);
  const at = (/** @type {number} */ index, /** @type {boolean} */ end) => {
    const weight = own(index + 1, "weight");
    return weight ? (end ? weight.to : (weight.from + weight.to) / 2) : LEFT + (index + 0.5) * slot;
  };
  /** @type {[string, Point[]][]} */
  const series = [
    ["delta", deltas.map((n, i) => [at(i, true), n.log10])],
    ["weights", weights.map((n, i) => [at(i, false), n.log10])],
  ];
  const start = output.log10;
  /** @type {Point[]} */
  const product =
    start === null
      ? []
      : [
          [places[places.length - 1].to, start],
          ...[...places].reverse().map(({ factor, from }) => {
            const { log10 } = factor.running_product;
            return /** @type {Point} */ ([from, log10 === null ? null : start + log10]);
          }),
        ];
  const logs = [...series.flatMap(([, points]) => points), ...product]
    .map(([, log]) => log)
    .filter((log) => log !== null);
  if (!logs.length)
    return `<text x="${LEFT}" y="${top + 20}">No gradient here is a finite number above 0 in every network.</text>`;
  const [low, high] = [
    Math.floor(Math.min(...logs)),
    Math.max(Math.ceil(Math.max(...logs)), Math.floor(Math.min(...logs)) + 1),
  ];
  const py = (/** @type {number} */ log) => top + ((high - log) / (high - low)) * height;
  const path = (/** @type {Point[]} */ points) =>
    writePath(points.map(([x, log]) => [x, log === null ? null : py(log)]));
  const lines =
    `<path class="line product" d="${path(product)}"/>` +
    series
      .map(
        ([kind, points]) =>
          `<path class="line ${kind}" d="${path(points)}"/>` +
          (slot >= 9
            ? points
                .filter(([, log]) => log !== null)
                .map(
                  ([x, log]) =>
                    `<circle class="${kind}" cx="${x.toFixed(1)}" cy="${py(log ?? 0).toFixed(1)}" r="3.2"/>`,
                )
                .join("")
            : ""),
      )
      .join("");
  const columns = deltas.map((delta, index) => {
    const layer = index + 1;
    const ids = places
      .filter(({ factor }) => factor.layer === layer)
      .map(({ factor }) => factor.id);
    const said = `layer ${layer}: ‖δ‖ ${delta.text}, ‖∂L/∂W‖ ${weights[index]?.text}`;
    return `<rect class="column" data-factor="${ids.join(" ")}" x="${LEFT + index * slot}" width="${slot}" y="${top}" height="${height}" tabindex="${layer === deltas.length ? 0 : -1}" role="img" aria-label="${escapeHtml(said)}"><title>${escapeHtml(said)}</title></rect>`;
  });
  return (
    drawGrid(listPowers(low, high), py, width, "the gradients", top - 6) +
    lines +
    `<g data-row>${columns.join("")}</g>`
  );
}

/**
 * The whole chart.
 * @param {NetworkAnswer} answer
 * @param {number} width
 */
export const layersChart = (answer, width) => {
  const { factors, deltas } = answer;
  const count = deltas.length;
  const slot = Math.max(count <= 60 ? 56 : 14, (width - LEFT - RIGHT) / count);
  const full = Math.max(width, Math.ceil(LEFT + RIGHT + slot * count));
  const places = placeFactors(factors, slot);
  const [line, gains, gradients] = [40, 100, 280];
  const every = Math.max(1, Math.ceil(26 / slot));
  const numbers = deltas
    .map((_, i) =>
      i % every && i !== count - 1
        ? ""
        : `<text x="${LEFT + (i + 0.5) * slot}" y="490" text-anchor="middle">${i + 1}</text>`,
    )
    .join("");
  return `<svg class="cr-chart cr-layers" style="width:${full}px" viewBox="0 0 ${full} 496" role="group" aria-label="The network as a chain, its factors and its gradients, layer by layer"><g data-row>${stripEdges(places, line)}</g><text class="strong" x="${LEFT - 12}" y="${line + 4}" text-anchor="end">x</text><text class="strong" x="${places[places.length - 1].to + 10}" y="${line + 4}">𝓛</text>${drawGains(places, full, gains, 140)}${drawGradients(answer, places, slot, full, gradients, 190)}${numbers}</svg>`;
};

export class Network {
  /** @param {import("./chain.js").Page} page */
  constructor(page) {
    const box = find(page.root, '[data-view="real"]');
    this.page = page;
    this.view = new View(box, "real-", {
      draw: () => this.draw(),
      start: "Before the first factor: the gradient at the output, counted as 1.",
    });
  }

  async refresh() {
    const { page } = this;
    const { network_activation: activation, ...spec } = page.network;
    if (activation) spec.activation = activation;
    const answer = await page.ask("/api/network", Object.keys(spec).length ? spec : CLASSIC);
    if (!answer) return;
    if (answer.error) {
      page.$("real-sentence").textContent = answer.error;
      return;
    }
    page.$("real-sentence").textContent = `${answer.sentence} ${answer.summary}`;
    page.$("real-extremes").textContent = answer.extremes;
    page.$("real-check").textContent = answer.check || "";
    for (const link of ["real-link", "explorer-link", "walk-explorer"])
      page.$(link).href = `/?${answer.query}`;
    page.addNotices(answer.notices);
    this.view.show(answer);
    page.$("real-table").innerHTML = factorTable(answer.factors);
  }

  draw() {
    const { answer } = this.view;
    if (!answer) return;
    const box = this.page.$("real-layers");
    box.innerHTML = layersChart(answer, widthOf(box));
    box.scrollLeft = box.scrollWidth; // the backward pass starts at the right
  }
}
