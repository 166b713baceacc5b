/* The main chart in small, and the verdict: on a phone they stay in sight of the controls.
 *
 * It is drawn from the figure of the main chart, so it shows the same values on the same axis, with
 * the same marks. The names of the zones stand beside the values, so that they cover none.
 */
import { writePath } from "../shared/axes.js";
import { part, setText, svg } from "../shared/dom.js";
import { outline } from "../shared/quick_chart.js";
import { listNames, makePlace, ROW } from "../shared/zones.js";

const [HEIGHT, EDGE] = [88, 6];
const NAMES = 70; // px that the names of zones take at the right
const RADIUS = 3.5;
const MOST = 50; // layers that are drawn as dots of their own

/**
 * Bring it to life.
 * @param {HTMLElement} box
 * @param {import("./explore.js").Api} explore
 */
export function mountGlance(box, explore) {
  const chart = part(box, "glance-chart");
  /** @type {any} */
  let figure = null;
  const draw = () => {
    if (figure && chart.clientWidth) paint(chart, figure, chart.clientWidth);
  };
  new ResizeObserver(draw).observe(chart);
  explore.onAnswer((answer) => {
    const { state, icon, value } = answer.cards.at(-1);
    const word = part(box, "glance-verdict");
    word.dataset.state = state;
    setText(word, `${icon} ${value.digits}`);
    const { so_far: count } = answer.ensemble;
    setText(part(box, "glance-count"), count && `(${count})`);
    setText(part(box, "glance-what"), answer.said.what);
    figure = answer.figures?.gradient ?? figure;
    draw();
  });
}

/**
 * @param {SVGElement} chart
 * @param {import("../shared/plotly.js").Figure} figure
 * @param {number} width
 */
function paint(chart, { data, layout }, width) {
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const place = makePlace(layout.yaxis);
  const y = (/** @type {number} */ value) => HEIGHT - place(value) * HEIGHT;
  const [from, to] = layout.xaxis.range;
  const shapes = layout.shapes || [];
  const end = width - (shapes.length ? NAMES : 0);
  const x = (/** @type {number} */ layer) =>
    EDGE + ((layer - from) / (to - from)) * (end - 2 * EDGE);
  const zones = shapes.map((/** @type {any} */ { y0, y1, fillcolor }) =>
    svg("rect", { x: 0, width, y: y(y1), height: Math.max(0, y(y0) - y(y1)), fill: fillcolor }),
  );
  const names = listNames(layout, HEIGHT).flatMap(({ lines, y: at }) =>
    lines.map((line, i) => svg("text", { class: "ex-glance-name", x: end, y: at + i * ROW }, line)),
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
    const [fill, symbol] = [marker.color, marker.symbol].map((each) =>
      Array.isArray(each) ? each[i] : each,
    );
    const d = `M${x(layer)} ${y(values[i])}${outline(symbol ?? "circle", RADIUS)}`;
    return svg("path", { class: "ex-glance-dot", d, fill });
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
    ...names,
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
