/* The network as a strip of layers between input and loss, and a pulse that goes back through it.
 *
 * How bright a layer is says what is left of the gradient there, by the measured norms; the server
 * gives every number (flow_answer.py, describe_journey).
 */
import { escapeHtml, find, findAll, part, setPieces, setText, svg } from "./dom.js";

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

/**
 * The outline of a layer, as a piece of a path.
 * @param {number} middle
 * @param {number} size
 * @param {number} corner
 */
function outline(middle, size, corner) {
  const [flat, tall, r] = [size - 2 * corner, COLUMN.height - 2 * corner, round(corner)];
  const turn = (/** @type {number} */ x, /** @type {number} */ y) => `a${r} ${r} 0 0 1 ${x} ${y}`;
  return (
    `M${round(middle - size / 2 + corner)} ${COLUMN.top}h${round(flat)}${turn(r, r)}v${round(tall)}` +
    `${turn(-r, r)}h${round(-flat)}${turn(-r, -r)}v${round(-tall)}${turn(r, -r)}z`
  );
}

/** @param {number} value */
function round(value) {
  return Math.round(100 * value) / 100;
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
    /** @type {any} */
    this.halo = null;
    /** @type {any} */
    this.dot = null;
    /** @type {number | null} */
    this.running = null;
    this.place = { left: 64, width: 0, right: 56 };
    this.button.addEventListener("click", () =>
      this.running === null ? this.play() : this.stop(),
    );
    this.listen();
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
   * @param {{left: number, width: number, whole: number}} chart where it lies, px
   */
  align({ left, width, whole }) {
    const place = { left, width, right: whole - left - width };
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
    const place = (/** @type {number} */ layer) => round(left + (layer - 0.5) * gap);
    const every = Math.ceil(READABLE / gap);
    const corner = Math.min(6, size / 3);
    const box = `y="${COLUMN.top}" width="${round(size)}" height="${COLUMN.height}" rx="${round(corner)}"`;
    const columns = this.steps.map(({ power }, i) => {
      const { light, heat } = shine(power);
      const name = power === null ? "st-column none" : "st-column";
      const style = `--light:${round(light)};--heat:${Math.round(100 * heat)}%`;
      return `<rect class="${name}" x="${round(place(i + 1) - size / 2)}" ${box} style="${style}"/>`;
    });
    const cross = Math.min(5, size / 4);
    const crosses = this.steps.map(({ power }, i) =>
      power === null
        ? `M${round(place(i + 1) - cross)} ${round(middle - cross)}l${2 * cross} ${2 * cross}m0 ${-2 * cross}l${-2 * cross} ${2 * cross}`
        : "",
    );
    const factors = this.steps.map(({ factor }, i) =>
      factor === null || (count - 2 - i) % every
        ? ""
        : `<text class="st-factor" x="${place(i + 1)}" y="${HEIGHT - 8}">×${escapeHtml(factor)}</text>`,
    );
    const loss = left + width + Math.min(right, 56) / 2;
    this.ends = { from: loss, place };
    const picture = find(this.picture, "svg") ?? svg("svg", { "aria-hidden": "true" });
    picture.setAttribute("width", left + width + right);
    picture.setAttribute("height", HEIGHT);
    // As text, and few elements: it is painted anew while a slider moves.
    setPieces(picture, [
      `<path class="st-line" d="M${left - 18} ${middle}H${left + width + 14}"/>` +
        `<text class="st-end" x="${left - 30}" y="${middle + 5}">x</text>` +
        `<circle class="st-loss" cx="${loss}" cy="${middle}" r="21"/>` +
        `<text class="st-loss-word" x="${loss}" y="${middle + 4}">loss</text>`,
      `<path class="st-ground" d="${this.steps.map((_, i) => outline(place(i + 1), size, corner)).join("")}"/>`,
      `${columns.join("")}<path class="st-none" d="${crosses.join("")}"/>`,
      factors.join(""),
      `<g class="st-pulse" visibility="hidden"><circle class="st-halo" cy="${middle}" r="16"/>` +
        `<circle class="st-dot" cy="${middle}" r="7"/></g>`,
    ]);
    if (!picture.parentElement) this.picture.append(picture);
    this.columns = findAll(this.picture, ".st-column");
    this.pulse = find(this.picture, ".st-pulse");
    [this.halo, this.dot] = this.pulse.children;
    this.picture.setAttribute(
      "aria-label",
      `${count} layers between input and loss. ${tell(this.steps, 1)}`,
    );
  }

  /** Let the picture say which layer is pointed at, and which is chosen. */
  listen() {
    /** @type {number | null} */
    let at = null;
    const point = (/** @type {number | null} */ layer) => {
      if (layer !== at) this.onPoint(layer);
      at = layer;
    };
    const read = (/** @type {PointerEvent} */ event) => {
      const { left, width } = this.place;
      const share = (event.clientX - this.picture.getBoundingClientRect().left - left) / width;
      const layer = Math.floor(share * this.steps.length) + 1;
      return layer < 1 || layer > this.steps.length ? null : layer;
    };
    this.picture.addEventListener("pointermove", (/** @type {PointerEvent} */ event) =>
      point(read(event)),
    );
    this.picture.addEventListener("pointerleave", () => point(null));
    this.picture.addEventListener("click", (/** @type {PointerEvent} */ event) => {
      const layer = read(event);
      if (layer !== null) this.onChoose(layer);
    });
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
