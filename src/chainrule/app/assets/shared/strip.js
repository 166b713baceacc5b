/* The network as a strip of layers between input and loss, and a pulse that goes back through it.
 *
 * How bright a layer is says what is left of the gradient there, by the measured norms; the server
 * gives every number (flow_answer.py, describe_journey).
 */
import { find, part, setText, svg } from "./dom.js";

const HEIGHT = 74;
const COLUMN = { top: 4, height: 48, most: 34 };
const DIM = 9; // powers of ten over which the light fades
const GLARE = 6; // powers of ten over which it turns hot
const FAINT = 0.05;
const READABLE = 42; // px that a factor needs under its layer
const SHOWN = 4; // factors written out before the dots
const STEP = 230; // ms that the pulse takes for a layer, in a short network
const LONGEST = 6500; // ms for a whole pass

/** @typedef {{factor: string | null, left: string, power: number | null}} Step */

/**
 * Return how strong the light of a gradient is, and how hot its colour, each 0 to 1.
 * @param {number | null} power what is left, as a power of ten
 */
export function shine(power) {
  if (power === null) return { light: 0, heat: 0 };
  return {
    light: Math.min(1, Math.max(FAINT, 1 + power / DIM)),
    heat: Math.min(1, Math.max(0, power / GLARE)),
  };
}

/**
 * Return what is said when the pulse has come to a layer.
 * @param {Step[]} steps layer 1 first
 * @param {number} layer
 */
export function tell(steps, layer) {
  const count = steps.length;
  const { left, factor } = steps[layer - 1];
  if (factor === null && left === "undefined") return "In most networks, no gradient comes back.";
  if (layer === count) return `It starts at layer ${count}, next to the loss: all of it.`;
  const passed = steps.slice(layer - 1, count - 1).reverse();
  const factors = passed.map(({ factor }) => factor ?? "none");
  const words = factors.slice(0, SHOWN).join(" × ") + (factors.length > SHOWN ? " × …" : "");
  const many = `${factors.length} factor${factors.length === 1 ? "" : "s"}`;
  const where = `δ from layer ${count} back to layer ${layer}, ${many}`;
  return factors.length > 1 ? `${where}: ${words} = ${left}` : `${where}: × ${words}`;
}

export class Strip {
  /**
   * @param {HTMLElement} root
   * @param {(layer: number | null) => void} onPoint a layer is pointed at
   * @param {(layer: number) => void} onChoose a layer is chosen
   */
  constructor(root, onPoint, onChoose) {
    this.root = root;
    this.onPoint = onPoint;
    this.onChoose = onChoose;
    this.picture = find(root, ".st-picture");
    this.words = part(root, "strip-words");
    this.button = part(root, "play");
    /** @type {Step[]} */
    this.steps = [];
    /** @type {any[]} */
    this.columns = [];
    /** @type {any} */
    this.pulse = null;
    /** @type {number | null} */
    this.running = null;
    this.place = { left: 64, width: 0, right: 56 };
    this.button.addEventListener("click", () =>
      this.running === null ? this.play() : this.stop(),
    );
  }

  /** @param {Step[]} steps */
  show(steps) {
    this.stop();
    this.steps = steps;
    this.root.hidden = steps.length < 2;
    this.paint();
    this.rest();
  }

  /**
   * Stand above the layers of the chart below.
   * @param {any} full layout of the chart, as it is drawn
   */
  align(full) {
    const { l: left, w: width } = full._size;
    const place = { left, width, right: full.width - left - width };
    if (JSON.stringify(place) === JSON.stringify(this.place)) return;
    this.place = place;
    this.paint();
  }

  paint() {
    const { left, width, right } = this.place;
    const count = this.steps.length;
    if (!width || count < 2) return;
    const gap = width / count;
    const size = Math.min(COLUMN.most, Math.max(1.5, 0.72 * gap));
    const middle = COLUMN.top + COLUMN.height / 2;
    const place = (/** @type {number} */ layer) => left + (layer - 0.5) * gap;
    const line = svg("line", {
      class: "st-line",
      x1: left - 18,
      x2: left + width + 14,
      y1: middle,
      y2: middle,
    });
    this.columns = this.steps.map(({ power }, i) => {
      const column = svg("rect", {
        class: "st-column",
        x: place(i + 1) - size / 2,
        y: COLUMN.top,
        width: size,
        height: COLUMN.height,
        rx: Math.min(6, size / 3),
      });
      const { light, heat } = shine(power);
      column.style.setProperty("--light", String(light));
      column.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
      if (power === null) column.classList.add("none");
      return column;
    });
    const grounds = this.steps.map((_, i) =>
      svg("rect", {
        class: "st-ground",
        x: place(i + 1) - size / 2,
        y: COLUMN.top,
        width: size,
        height: COLUMN.height,
        rx: Math.min(6, size / 3),
      }),
    );
    const every = Math.ceil(READABLE / gap);
    const factors = this.steps.map(({ factor }, i) =>
      factor === null || (count - 2 - i) % every
        ? null
        : svg("text", { class: "st-factor", x: place(i + 1), y: HEIGHT - 8 }, `×${factor}`),
    );
    const hits = this.steps.map((_, i) =>
      svg("rect", {
        class: "st-hit",
        x: left + i * gap,
        y: 0,
        width: gap,
        height: HEIGHT,
        onpointerenter: () => this.onPoint(i + 1),
        onpointerleave: () => this.onPoint(null),
        onclick: () => this.onChoose(i + 1),
      }),
    );
    this.halo = svg("circle", { class: "st-halo", cy: middle, r: 16 });
    this.dot = svg("circle", { class: "st-dot", cy: middle, r: 7 });
    this.pulse = svg("g", { class: "st-pulse", visibility: "hidden" }, this.halo, this.dot);
    const loss = left + width + Math.min(right, 56) / 2;
    this.ends = { from: loss, place };
    this.picture.replaceChildren(
      svg(
        "svg",
        { width: left + width + right, height: HEIGHT, "aria-hidden": "true" },
        line,
        svg("text", { class: "st-end", x: left - 30, y: middle + 5 }, "x"),
        grounds,
        this.columns,
        factors,
        svg("circle", { class: "st-loss", cx: loss, cy: middle, r: 21 }),
        svg("text", { class: "st-loss-word", x: loss, y: middle + 4 }, "loss"),
        this.pulse,
        hits,
      ),
    );
    this.picture.setAttribute(
      "aria-label",
      `${count} layers between input and loss. ${tell(this.steps, 1)}`,
    );
  }

  /**
   * Mark a layer that is pointed at; null marks none.
   * @param {number | null} layer
   */
  mark(layer) {
    for (const [i, column] of this.columns.entries()) {
      column.classList.toggle("at", i + 1 === layer);
    }
    if (this.running !== null || this.steps.length < 2) return;
    if (layer === null) this.rest();
    else setText(this.words, tell(this.steps, layer));
  }

  // --- the pulse --------------------------------------------------------------------------------

  play() {
    if (!this.columns.length) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.rest();
      return;
    }
    const count = this.steps.length;
    const time = Math.min(LONGEST, 500 + STEP * count);
    const start = performance.now();
    let reached = count + 1;
    setText(this.button, "■ Stop");
    this.root.classList.add("playing");
    for (const column of this.columns) column.classList.remove("lit");
    this.pulse.setAttribute("visibility", "visible");
    const move = (/** @type {number} */ now) => {
      const share = Math.min(1, (now - start) / time);
      const layer = count + 1 - share * count; // count + 1 is the loss, 1 the first layer
      this.shine(layer);
      const at = Math.max(1, Math.ceil(layer - 0.5));
      for (; reached > at; reached -= 1) this.columns[reached - 2].classList.add("lit");
      if (at <= count) setText(this.words, tell(this.steps, at));
      if (share < 1) this.running = requestAnimationFrame(move);
      else this.stop();
    };
    this.running = requestAnimationFrame(move);
  }

  /**
   * Put the pulse to its place between two layers, as bright as the gradient is there.
   * @param {number} layer
   */
  shine(layer) {
    const count = this.steps.length;
    const low = Math.max(1, Math.floor(layer));
    const rest = layer - low;
    const before = this.steps[Math.min(low, count - 1)].power;
    const after = this.steps[Math.min(low, count) - 1].power;
    const power = before === null || after === null ? null : (1 - rest) * after + rest * before;
    const { light, heat } = shine(power);
    const { from, place } = /** @type {any} */ (this.ends);
    const x = layer > count ? from + (count + 1 - layer) * (place(count) - from) : place(layer);
    for (const circle of [this.halo, this.dot]) circle.setAttribute("cx", String(x));
    this.halo.setAttribute("r", String(10 + 6 * light + 16 * heat));
    this.pulse.style.setProperty("--light", String(Math.max(0.12, light)));
    this.pulse.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
  }

  stop() {
    if (this.running !== null) cancelAnimationFrame(this.running);
    const played = this.running !== null;
    this.running = null;
    this.root.classList.remove("playing");
    this.pulse?.setAttribute("visibility", "hidden");
    setText(this.button, "▶ Play");
    if (played) this.rest();
  }

  /** Say what has become of the gradient. */
  rest() {
    setText(this.words, this.steps.length < 2 ? "" : tell(this.steps, 1));
  }
}
