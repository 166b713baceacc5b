/* The main chart as a plain picture, drawn in a millisecond or two: it follows a slider, and it is
 * there before the chart library is. At rest the library draws the same figure in the same places,
 * with what is said where the pointer is.
 *
 * It knows what `chainrule.figures.gradients` draws on an axis of powers of ten, and no more.
 */
import { el, escapeHtml, setPieces, svg } from "./dom.js";

const LABELS = 67; // px left of the chart for "10⁻¹²"
const DIGIT = 6; // px more for each further digit of the power
const BELOW = 1; // px that the library adds to the foot

/** @typedef {{left: number, top: number, width: number, height: number, whole: number}} Place */
/** @typedef {import("./plotly.js").Figure} Figure */

/**
 * Whether a figure can be drawn so.
 * @param {Figure} figure
 */
export function isPlain({ data, layout }) {
  return layout.yaxis.type === "log" && data.every(({ type }) => type === "scatter");
}

/**
 * Return where the chart itself lies in a picture of some size.
 * @param {any} layout
 * @param {number} width
 * @param {number} height
 * @returns {Place}
 */
export function findPlace({ margin, yaxis: { range } }, width, height) {
  const digits = Math.max(...range.map((/** @type {number} */ at) => String(Math.abs(at)).length));
  const left = LABELS + DIGIT * Math.max(0, digits - 2);
  const inner = {
    width: Math.max(1, width - left - margin.r), // a frame may have no room for it yet
    height: Math.max(1, height - margin.t - margin.b - BELOW),
  };
  return { left, top: margin.t, ...inner, whole: width };
}

/**
 * Return the picture of a figure as SVG, in pieces that lie one over the other.
 * @param {Figure} figure
 * @param {number} width
 * @param {number} height
 */
export function writeChart({ data, layout }, width, height) {
  const place = findPlace(layout, width, height);
  const { left, top, width: inner, height: tall } = place;
  const [right, foot] = [left + inner, top + tall];
  const { xaxis, yaxis } = layout;
  const [first, last] = xaxis.range;
  const [low, high] = yaxis.range;
  const x = (/** @type {number} */ at) => left + ((at - first) / (last - first)) * inner;
  const rise = (/** @type {number} */ power) => foot - ((power - low) / (high - low)) * tall;
  const y = (/** @type {number} */ value) => rise(Math.log10(value));
  const scales = { x, y };
  const zones = layout.shapes.map((/** @type {any} */ { y0, y1, fillcolor }) => {
    const [head, end] = [y(y1), y(y0)];
    return `<rect x="${left}" y="${round(head)}" width="${inner}" height="${round(end - head)}" fill="${fillcolor}"/>`;
  });
  const grid = [];
  const labels = [];
  for (
    let power = Math.ceil(low / yaxis.dtick) * yaxis.dtick;
    power <= high;
    power += yaxis.dtick
  ) {
    const at = round(rise(power));
    if (power > low && power < high) grid.push(`M${left} ${at}H${right}`);
    labels.push(`<text x="${left - 3.4}" y="${round(at + 5.25)}">${writePower(power)}</text>`);
  }
  const ticks = xaxis.tickvals.map(
    (/** @type {number} */ at, /** @type {number} */ i) =>
      `<text x="${round(x(at))}" y="${foot + 16.6}">${escapeHtml(xaxis.ticktext[i])}</text>`,
  );
  // As the library does: what has a lower place lies beneath.
  const ordered = data.toSorted((one, other) => (one.zorder ?? 0) - (other.zorder ?? 0));
  const inside = ordered.filter(({ cliponaxis }) => cliponaxis !== false);
  const beyond = data.filter(({ cliponaxis }) => cliponaxis === false);
  const draw = (/** @type {any} */ trace) => drawTrace(trace, scales);
  const middle = top + tall / 2;
  const turned = left - 45.7; // the foot of the words that stand upright
  return [
    `${zones.join("")}<path class="grid" d="${grid.join("")}" stroke="${yaxis.gridcolor}"/>`,
    `<svg x="${left}" y="${top}" width="${inner}" height="${tall}" viewBox="${left} ${top} ${inner} ${tall}" overflow="hidden">${inside.map(draw).join("")}</svg>`,
    `<path class="axes" d="M${left - 1} ${foot + 0.5}H${right}M${left - 0.5} ${top}V${foot}" stroke="${yaxis.linecolor}"/>` +
      `<g class="ytick">${labels.join("")}</g>` +
      `<text class="xtitle" x="${left + inner / 2}" y="${height - 5}">${escapeHtml(xaxis.title.text)}</text>` +
      `<text class="ytitle" x="${turned}" y="${middle}" transform="rotate(-90 ${turned} ${middle})">${escapeHtml(yaxis.title.text)}</text>`,
    `${beyond.map(draw).join("")}<g class="xtick">${ticks.join("")}</g>`,
    ...layout.annotations.map((/** @type {any} */ note) => writeNote(note, place, rise)),
  ];
}

/** The picture over the place of the library's chart. */
export class QuickChart {
  /** @param {HTMLElement} plot that place */
  constructor(plot) {
    this.plot = plot;
    this.box = plot.parentElement;
    this.svg = svg("svg");
    this.box?.append(el("div", { class: "fv-quick", "aria-hidden": "true" }, this.svg));
    /** @type {Figure | null} */
    this.figure = null; // what is shown; null while the library's chart is
    this.size = [0, 0];
    new ResizeObserver(() => this.resize()).observe(plot);
  }

  /** @param {Figure} figure */
  show(figure) {
    if (!this.size[0]) this.size = [this.plot.clientWidth, this.plot.clientHeight];
    const [width, height] = this.size;
    if (!width) {
      this.hide(); // folded away
      return;
    }
    this.figure = figure;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("height", height);
    setPieces(this.svg, writeChart(figure, width, height));
    this.box?.classList.add("quick");
  }

  resize() {
    const size = [this.plot.clientWidth, this.plot.clientHeight];
    if (String(size) === String(this.size)) return;
    this.size = size;
    if (this.figure) this.show(this.figure);
  }

  /** Where the chart lies, and its layers; null while the library's chart is shown. */
  get place() {
    if (!this.figure) return null;
    const { layout } = this.figure;
    return { ...findPlace(layout, this.size[0], this.size[1]), range: layout.xaxis.range };
  }

  /** Give the place to the library's chart. */
  hide() {
    this.figure = null;
    this.box?.classList.remove("quick");
  }
}

/**
 * @param {any} trace
 * @param {{x: (at: number) => number, y: (value: number) => number}} scales
 */
function drawTrace(trace, { x, y }) {
  /** @type {([number, number] | null)[]} */
  const points = trace.x.map((/** @type {number} */ at, /** @type {number} */ i) =>
    trace.y[i] === null ? null : [round(x(at)), round(y(trace.y[i]))],
  );
  const parts = [];
  if (trace.mode.includes("lines")) {
    const d = writeLine(points);
    if (trace.fill === "toself" && d) parts.push(`<path d="${d}Z" fill="${trace.fillcolor}"/>`);
    const { width, color, dash } = trace.line;
    const size = Math.max(3, width);
    const long = dash === "dash" ? 3 * size : size;
    const broken = dash && dash !== "solid" ? ` stroke-dasharray="${long} ${long}"` : "";
    if (width && d) {
      parts.push(`<path d="${d}" fill="none" stroke="${color}" stroke-width="${width}"${broken}/>`);
    }
  }
  if (trace.mode.includes("markers")) parts.push(drawMarks(points, trace.marker));
  return parts.join("");
}

/**
 * Marks of one colour and shape are one path: a thousand elements would take a frame.
 * @param {([number, number] | null)[]} points
 * @param {any} marker
 */
function drawMarks(points, { size, color, symbol = "circle" }) {
  /** @type {Map<string, string[]>} */
  const paths = new Map();
  for (const [i, point] of points.entries()) {
    if (!point) continue;
    const fill = Array.isArray(color) ? color[i] : color;
    const shape = outline(Array.isArray(symbol) ? symbol[i] : symbol, size / 2);
    if (!paths.has(fill)) paths.set(fill, []);
    paths.get(fill)?.push(`M${point[0]} ${point[1]}${shape}`);
  }
  return [...paths].map(([fill, d]) => `<path d="${d.join("")}" fill="${fill}"/>`).join("");
}

/**
 * The outline of a mark around the pen's place.
 * @param {string} symbol
 * @param {number} radius
 */
export function outline(symbol, radius) {
  const wide = round((2 * radius) / Math.sqrt(3));
  const half = round(radius / 2);
  if (symbol === "triangle-up") {
    return `m${-wide} ${half}h${2 * wide}l${-wide} ${-(half + radius)}z`;
  }
  if (symbol === "triangle-down") {
    return `m${-wide} ${-half}h${2 * wide}l${-wide} ${half + radius}z`;
  }
  if (symbol === "diamond") {
    const far = round(1.3 * radius);
    return `m${far} 0l${-far} ${far}l${-far} ${-far}l${far} ${-far}z`;
  }
  if (symbol === "x") {
    const arm = round((0.8 * radius) / Math.SQRT2);
    const [ne, se, sw, nw] = [
      `l${arm} ${arm}`,
      `l${arm} ${-arm}`,
      `l${-arm} ${-arm}`,
      `l${-arm} ${arm}`,
    ];
    return `m0 ${arm}${ne}${se}${sw}${se}${sw}${nw}${sw}${nw}${ne}${nw}${ne}z`;
  }
  return `m${radius} 0a${radius} ${radius} 0 1 1 ${-2 * radius} 0a${radius} ${radius} 0 1 1 ${2 * radius} 0z`;
}

/** @param {([number, number] | null)[]} points */
function writeLine(points) {
  let pen = "M";
  let d = "";
  for (const point of points) {
    if (point) d += `${pen}${point[0]} ${point[1]}`;
    pen = point ? "L" : "M";
  }
  return d;
}

/**
 * Words in the chart: at a share of its width, and at a power of ten or a share of its height.
 * @param {any} note
 * @param {Place} place
 * @param {(power: number) => number} rise
 */
function writeNote(note, { left, top, width, height }, rise) {
  const share = note.xanchor === "right" ? "end" : note.xanchor === "left" ? "start" : "middle";
  const inset = share === "end" ? -1.5 : share === "start" ? 1.5 : 0;
  const x = left + note.x * width + inset;
  const onPaper = note.yref === "paper";
  const foot = onPaper ? top + (1 - note.y) * height : rise(note.y);
  const y = foot - (note.yshift ?? 0) + (onPaper ? -6 : 5);
  const words = escapeHtml(note.text.replace(/<\/?b>/g, ""));
  const bold = note.text.startsWith("<b>");
  return (
    `<text class="annotation-text" x="${round(x)}" y="${round(y)}" text-anchor="${share}"` +
    ` font-size="${note.font.size}" fill="${note.font.color}">` +
    `${bold ? `<tspan font-weight="bold">${words}</tspan>` : words}</text>`
  );
}

/** @param {number} power */
function writePower(power) {
  if (power === 0 || power === 1) return String(10 ** power);
  const digits = String(power).replace("-", "−");
  return `10<tspan font-size="70%" dy="-0.6em">${digits}</tspan>`;
}

/** @param {number} value */
function round(value) {
  return Math.round(100 * value) / 100;
}
