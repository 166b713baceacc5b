/* The main chart in small, and the verdict: on a phone they stay in sight of the controls.
 *
 * It is drawn from the figure of the main chart, so it shows the same values on the same axis.
 */
import { writePath } from "../shared/axes.js";
import { part, setText, svg } from "../shared/dom.js";

const [WIDTH, HEIGHT, EDGE] = [340, 88, 6];
const MOST = 50; // layers that are drawn as dots of their own

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
 * Bring it to life.
 * @param {HTMLElement} box
 * @param {import("./explore.js").Api} explore
 */
export function mountGlance(box, explore) {
  const chart = part(box, "glance-chart");
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  chart.setAttribute("preserveAspectRatio", "none");
  explore.onAnswer((answer) => {
    const { state, icon, value } = answer.cards.at(-1);
    const word = part(box, "glance-verdict");
    word.dataset.state = state;
    setText(word, `${icon} ${value.digits}`);
    setText(part(box, "glance-what"), answer.said.what);
    if (answer.figures) paint(chart, answer.figures.gradient);
  });
}

/**
 * @param {SVGElement} chart
 * @param {import("../shared/plotly.js").Figure} figure
 */
function paint(chart, { data, layout }) {
  const place = makePlace(layout.yaxis);
  const y = (/** @type {number} */ value) => HEIGHT - place(value) * HEIGHT;
  const [from, to] = layout.xaxis.range;
  const x = (/** @type {number} */ layer) =>
    EDGE + ((layer - from) / (to - from)) * (WIDTH - 2 * EDGE);
  const zones = (layout.shapes || []).map((/** @type {any} */ { y0, y1, fillcolor }) =>
    svg("rect", {
      x: 0,
      width: WIDTH,
      y: y(y1),
      height: Math.max(0, y(y0) - y(y1)),
      fill: fillcolor,
    }),
  );
  const other = data.find(({ name }) => name === "pinned");
  const pinned = other ? [drawLine(other, x, y, "ex-glance-pinned")] : [];
  const gaps = data
    .filter(({ zorder, fill }) => zorder < 0 && fill)
    .map((area) => svg("path", { d: drawPath(area, x, y), fill: area.fillcolor }));
  const { x: layers, y: values, marker } = data[1];
  const step = Math.ceil(layers.length / MOST);
  const dots = layers.map((/** @type {number} */ layer, /** @type {number} */ i) => {
    if (values[i] === null || (i % step && i < layers.length - 1)) return null;
    const fill = Array.isArray(marker.color) ? marker.color[i] : marker.color;
    return svg("circle", { class: "ex-glance-dot", cx: x(layer), cy: y(values[i]), r: 3, fill });
  });
  const lost = data[2].x.map((/** @type {number} */ layer) =>
    svg("rect", {
      x: x(layer) - 2,
      y: HEIGHT - 5,
      width: 4,
      height: 5,
      fill: data[2].marker.color,
    }),
  );
  chart.replaceChildren(
    ...zones,
    ...gaps,
    ...pinned,
    drawLine(data[1], x, y, "ex-glance-line"),
    ...dots.filter(Boolean),
    ...lost,
  );
}

/**
 * @param {any} trace
 * @param {(value: number) => number} x
 * @param {(value: number) => number} y
 * @param {string} name
 */
function drawLine(trace, x, y, name) {
  return svg("path", { class: name, d: drawPath(trace, x, y) });
}

/**
 * @param {any} trace
 * @param {(value: number) => number} x
 * @param {(value: number) => number} y
 */
function drawPath(trace, x, y) {
  /** @type {[number, number | null][]} */
  const points = trace.x.map((/** @type {number} */ layer, /** @type {number} */ i) => [
    x(layer),
    trace.y[i] === null ? null : y(trace.y[i]),
  ]);
  return writePath(points);
}
