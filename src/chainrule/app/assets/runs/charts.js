/* The charts of a run: the loss, and heat maps of layers × steps, all above one axis of steps.
 *
 * Every value is the server's; here they are only placed and painted. One cell is marked at a time:
 * arrow keys move the mark, and so does the mouse. It stays at its step when new steps come.
 */

import { colorOf, onTheme } from "../shared/colors.js";
import { el, find, findAll, part, setText, svg } from "../shared/dom.js";
import { formatNumber, formatRounded } from "../shared/numbers.js";

const WIDE = 1000; // of the loss, in its own units
const HIGH = 100;
const ROW = 12; // pixels
const [LOWEST, HIGHEST] = [64, 136];
const NEAR = 26; // alarms nearer than this share a mark
const LETTER = 7.4; // pixels
const END = 95; // percent: labels behind it end at their step

/** @typedef {{name: string, row: number, step: number}} Mark */

export class Charts {
  /**
   * @param {HTMLElement} root
   * @param {{onMark: (mark: Mark | null) => void, onAlarm: (index: number) => void,
   *   onOpen: () => void}} listeners
   */
  constructor(root, listeners) {
    this.root = root;
    this.listeners = listeners;
    /** @type {any} */
    this.run = null;
    /** @type {Mark | null} */
    this.mark = null;
    this.span = [1, 1];
    this.chosen = -1;
    this.readout = part(root, "readout");
    this.size = 0;
    new ResizeObserver(() => {
      if (this.run && this.root.clientWidth !== this.size) this.draw();
    }).observe(root);
    onTheme(() => this.run && this.draw());
  }

  /**
   * @param {any} run
   * @param {number} chosen the alarm whose words are on the page
   */
  show(run, chosen) {
    this.run = run;
    this.chosen = chosen;
    const spans = [run.span, ...(run.other ? [run.other.span] : [])].filter(([a, b]) => b >= a);
    this.span = [Math.min(...spans.map(([a]) => a)), Math.max(...spans.map(([, b]) => b))];
    if (!spans.length) this.span = [1, 1];
    this.draw();
  }

  /** @param {number} chosen */
  choose(chosen) {
    this.chosen = chosen;
    if (this.run) this.draw();
  }

  draw() {
    this.size = this.root.clientWidth;
    const focused = find(document, ":focus")?.dataset;
    const [chart, alarm] = [focused?.chart, focused?.at];
    this.drawLoss();
    this.drawRate();
    part(this.root, "maps").replaceChildren(
      ...this.run.maps.map((/** @type {any} */ map) => this.makeMap(map)),
    );
    for (const map of this.run.maps) this.paint(map);
    this.drawAxis();
    this.drawMark(false);
    if (chart) find(this.root, `[data-chart="${chart}"]`)?.focus({ preventScroll: true });
    else if (alarm) find(this.root, `[data-at="${alarm}"]`)?.focus({ preventScroll: true });
  }

  /**
   * The place of a step, in percent of the width.
   * @param {number} step
   */
  place(step) {
    const [first, last] = this.span;
    return (100 * (step - first)) / (last - first + 1);
  }

  /** Lines at the alarms, and where a second run parts. */
  makeLines() {
    const { alarms, other } = this.run;
    const lines = alarms.map((/** @type {any} */ { step }, /** @type {number} */ i) =>
      el("div", {
        class: i === this.chosen ? "ru-line ru-line-chosen" : "ru-line",
        style: `left:${this.place(step + 0.5)}%`,
      }),
    );
    if (other?.parted) {
      lines.push(
        el("div", { class: "ru-line ru-parted", style: `left:${this.place(other.parted + 0.5)}%` }),
      );
    }
    return lines;
  }

  drawLoss() {
    const { loss, other } = this.run;
    const head = el(
      "div",
      { class: "ru-head" },
      el("h3", {}, "Loss"),
      el("p", { class: "dim" }, loss ? loss.note : "none was logged; run.log(loss=loss) draws it"),
      other
        ? el("p", { class: "ru-keys dim" }, [
            key("ru-key-own", this.run.name),
            key("ru-key-other", other.name),
          ])
        : null,
    );
    const plot = el("div", {
      class: "ru-plot ru-loss",
      tabindex: "0",
      role: "group",
      "data-chart": "loss",
      "aria-label": "Loss: chart. Left and right arrow keys go through the steps.",
    });
    const ticks = loss ?? other?.loss;
    if (ticks) plot.append(...this.makeTicks(ticks.ticks), this.makeCurves(ticks.ticks));
    else plot.classList.add("ru-loss-none");
    plot.append(...this.makeLines(), el("div", { class: "ru-cell", hidden: true }));
    this.listen(plot, "loss");
    part(this.root, "loss").replaceChildren(head, this.makeLane(), plot);
  }

  /** The learning rates, where they change: a line for each group that has one of its own. */
  drawRate() {
    const { rate } = this.run;
    const chart = part(this.root, "rate");
    chart.hidden = !rate;
    if (!rate) {
      chart.replaceChildren();
      return;
    }
    const head = el(
      "div",
      { class: "ru-head" },
      el("h3", {}, "Learning rate"),
      el("p", { class: "dim" }, rate.note),
    );
    const plot = el("div", {
      class: "ru-plot ru-rate",
      tabindex: "0",
      role: "group",
      "data-chart": "rate",
      "aria-label":
        "Learning rate: chart. Left and right arrow keys go through the steps, up and down through the groups.",
    });
    const ticks = rate.ticks.map((/** @type {[number, string]} */ [height, text]) =>
      el("div", { class: "ru-tick", style: `bottom:${100 * height}%` }, el("span", {}, text)),
    );
    const drawn = svg("svg", {
      viewBox: `0 0 ${WIDE} ${HIGH}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    for (const heights of rate.heights) {
      let before = false;
      const d = heights.map((/** @type {number | null} */ height, /** @type {number} */ i) => {
        const known = height !== null;
        const from = ((this.place(rate.first[i]) * WIDE) / 100).toFixed(1);
        const to = ((this.place(rate.last[i] + 1) * WIDE) / 100).toFixed(1);
        const y = known ? (HIGH * (1 - height)).toFixed(1) : "";
        const piece = known ? `${before ? `V${y}` : `M${from} ${y}`}H${to}` : "";
        before = known;
        return piece;
      });
      drawn.append(svg("path", { class: "ru-own-line", d: d.join("") }));
    }
    plot.append(...ticks, drawn, ...this.makeLines());
    plot.append(el("div", { class: "ru-cell", hidden: true }));
    this.listen(plot, "rate");
    chart.replaceChildren(head, plot);
  }

  /** Marks above the loss that open an alarm's words; those that are too near share one. */
  makeLane() {
    const width = Math.max(1, this.root.clientWidth - 90);
    /** @type {{at: number, indices: number[]}[]} */
    const groups = [];
    const places = this.run.alarms.map((/** @type {any} */ alarm, /** @type {number} */ i) => ({
      i,
      x: (this.place(alarm.step + 0.5) * width) / 100,
    }));
    places.sort((/** @type {any} */ a, /** @type {any} */ b) => a.x - b.x);
    for (const { i, x } of places) {
      const last = groups.at(-1);
      if (last && x - last.at < NEAR) last.indices.push(i);
      else groups.push({ at: x, indices: [i] });
    }
    const buttons = groups.map(({ at, indices }, g) => {
      const shown = indices.includes(this.chosen) ? this.chosen : indices[0];
      const alarm = this.run.alarms[shown];
      const more = indices.length > 1 ? ` +${indices.length - 1}` : "";
      const next = groups[g + 1]?.at ?? width + NEAR;
      const fits = (alarm.kind.length + more.length + 3) * LETTER < next - at;
      const before = groups[g - 1]?.at ?? -NEAR;
      const flips =
        !fits && g === groups.length - 1 && (alarm.kind.length + 5) * LETTER < at - before - NEAR;
      return el(
        "button",
        {
          type: "button",
          class: `ru-mark${flips ? " ru-mark-left" : ""}`,
          style: `left:${(100 * at) / width}%`,
          "aria-pressed": String(indices.includes(this.chosen)),
          "aria-label": `${alarm.title}${more ? `, and ${indices.length - 1} more near it` : ""}`,
          "data-at": String(indices[0]),
          onclick: () => {
            const now = indices.indexOf(this.chosen);
            this.listeners.onAlarm(indices[(now + 1) % indices.length]);
          },
        },
        el("span", { "aria-hidden": "true" }, "▲"),
        fits || flips ? el("span", {}, `${alarm.kind}${more}`) : null,
      );
    });
    return el(
      "div",
      { class: "ru-lane", role: "group", "aria-label": "alarms", hidden: !buttons.length },
      el("div", { class: "ru-lane-inner" }, buttons),
    );
  }

  /** @param {[number, string][]} ticks */
  makeTicks(ticks) {
    const [low, high] = [ticks[0][0], ticks[ticks.length - 1][0]];
    return ticks.map(([value, text]) => {
      const style = `bottom:${(100 * (value - low)) / (high - low)}%`;
      return el("div", { class: "ru-tick", style }, el("span", {}, text));
    });
  }

  /** @param {[number, string][]} ticks */
  makeCurves(ticks) {
    const [low, high] = [ticks[0][0], ticks[ticks.length - 1][0]];
    const up = (/** @type {number} */ value) =>
      HIGH - (HIGH * (Math.min(Math.max(value, low), high) - low)) / (high - low);
    const across = (/** @type {any} */ loss, /** @type {number} */ i) =>
      (this.place((loss.first[i] + loss.last[i]) / 2 + 0.5) * WIDE) / 100;
    const drawn = svg("svg", {
      viewBox: `0 0 ${WIDE} ${HIGH}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    const curves = [
      [this.run.other?.loss, "ru-other-line"],
      [this.run.loss, "ru-own-line"],
    ];
    for (const [loss, name] of curves) {
      if (!loss) continue;
      const range = loss.low.map((/** @type {any} */ value, /** @type {number} */ i) =>
        value === null
          ? ""
          : `${i && loss.low[i - 1] !== null ? "L" : "M"}${across(loss, i).toFixed(1)} ${up(value).toFixed(1)}V${up(loss.high[i]).toFixed(1)}`,
      );
      const line = loss.median.map((/** @type {any} */ value, /** @type {number} */ i) =>
        value === null
          ? ""
          : `${i && loss.median[i - 1] !== null ? "L" : "M"}${across(loss, i).toFixed(1)} ${up(value).toFixed(1)}`,
      );
      // What is above the axis is dots at its end, not a line: the loss is not that value.
      const above = (/** @type {number} */ i) => loss.median[i] > high;
      const cut = line.filter((/** @type {string} */ _, /** @type {number} */ i) => above(i));
      const kept = line.map((/** @type {string} */ piece, /** @type {number} */ i) =>
        above(i) && (i === 0 || above(i - 1))
          ? ""
          : i && above(i - 1)
            ? piece.replace("L", "M")
            : piece,
      );
      drawn.append(
        svg("path", { class: `${name} ru-thin`, d: range.join("") }),
        svg("path", { class: name, d: kept.join("") }),
        svg("path", { class: `${name} ru-cut`, d: cut.join("").replace(/^L/, "M") }),
      );
      const bad = loss.bad.map((/** @type {number} */ count, /** @type {number} */ i) =>
        count ? `M${across(loss, i).toFixed(1)} 0V5` : "",
      );
      drawn.append(svg("path", { class: "ru-bad", d: bad.join("") }));
    }
    return drawn;
  }

  /** @param {any} map */
  makeMap(map) {
    const legend = map.legend.map((/** @type {[number, string]} */ [shade, text]) =>
      el(
        "span",
        { class: "ru-key" },
        text,
        el("i", {
          style: `background:${colorOf(shade, map.name === "dead" || map.name === "saturation")}`,
        }),
      ),
    );
    const rows = map.rows.length;
    const height = Math.min(HIGHEST, Math.max(LOWEST, rows * ROW));
    const plot = el(
      "div",
      {
        class: "ru-plot ru-map",
        tabindex: "0",
        role: "group",
        style: `height:${height}px`,
        "data-chart": map.name,
        "aria-label": `${map.title}: heat map of ${rows} layers. Arrow keys go through steps and layers, Enter opens a step.`,
      },
      el("canvas", { "aria-hidden": "true" }),
      el(
        "span",
        { class: "ru-end ru-end-top", "aria-hidden": "true" },
        rows > 1 ? String(rows) : "",
      ),
      el("span", { class: "ru-end ru-end-foot", "aria-hidden": "true" }, "layer 1"),
      this.makeLines(),
      el("div", { class: "ru-cell", hidden: true }),
    );
    this.listen(plot, map.name);
    return el(
      "div",
      { class: "ru-chart", "data-map": map.name },
      el(
        "div",
        { class: "ru-head" },
        el("h3", {}, map.title),
        el("p", { class: "dim" }, map.note),
        el("p", { class: "ru-keys dim" }, legend),
      ),
      plot,
    );
  }

  /** @param {any} map */
  paint(map) {
    const plot = find(this.root, `[data-chart="${map.name}"]`);
    const canvas = find(plot, "canvas");
    const [width, height] = [plot.clientWidth, plot.clientHeight];
    const scale = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    if (!context || !canvas.width) return;
    const share = map.name === "dead" || map.name === "saturation";
    const rows = map.rows.length;
    const gap = canvas.height / rows > 6 * scale ? Math.round(scale) : 0;
    const xs = map.first.map((/** @type {number} */ step, /** @type {number} */ i) => [
      Math.round((this.place(step) * canvas.width) / 100),
      Math.round((this.place(map.last[i] + 1) * canvas.width) / 100),
    ]);
    for (const [row, shades] of map.shades.entries()) {
      const top = Math.round(((rows - 1 - row) * canvas.height) / rows);
      const foot = Math.round(((rows - row) * canvas.height) / rows);
      for (const [i, shade] of shades.entries()) {
        if (shade === null) continue;
        context.fillStyle = colorOf(shade, share);
        context.fillRect(xs[i][0], top, Math.max(1, xs[i][1] - xs[i][0]), foot - top - gap);
      }
    }
  }

  drawAxis() {
    const [first, last] = this.span;
    const size = (last - first) / 5 || 1;
    const power = 10 ** Math.floor(Math.log10(size));
    const step = Math.max(1, ([1, 2, 5, 10].find((unit) => unit * power >= size) ?? 10) * power);
    const ticks = [];
    for (let at = Math.ceil(first / step) * step; at <= last; at += step) ticks.push(at);
    part(this.root, "axis").replaceChildren(
      el("span", { class: "ru-axis-name" }, "step"),
      ...ticks.map((at) =>
        el(
          "span",
          {
            class: this.place(at) > END ? "ru-axis-end" : null,
            style: `left:${this.place(at + 0.5)}%`,
          },
          at.toLocaleString("en"),
        ),
      ),
    );
  }

  /** @param {string} name */
  find(name) {
    if (name === "loss") return this.run.loss ? { ...this.run.loss, rows: [""] } : null;
    if (name === "rate")
      return this.run.rate ? { ...this.run.rate, rows: this.run.rate.rates } : null;
    return this.run.maps.find((/** @type {any} */ map) => map.name === name) ?? null;
  }

  /**
   * The column of a chart that holds a step.
   * @param {any} chart
   * @param {number} step
   */
  column(chart, step) {
    let at = 0;
    while (at + 1 < chart.first.length && chart.first[at + 1] <= step) at += 1;
    return at;
  }

  /**
   * @param {any} plot
   * @param {string} name
   */
  listen(plot, name) {
    plot.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) =>
      this.press(event, name),
    );
    const point = (/** @type {PointerEvent} */ event) => {
      const chart = this.find(name);
      if (!chart || /** @type {any} */ (event.target).closest("button")) return;
      const box = plot.getBoundingClientRect();
      const [x, y] = [
        (event.clientX - box.left) / box.width,
        (event.clientY - box.top) / box.height,
      ];
      if (x < 0 || x > 1 || y < 0 || y > 1) return;
      const [first, last] = this.span;
      const step = Math.floor(first + x * (last - first + 1));
      const row =
        chart.rows.length - 1 - Math.min(chart.rows.length - 1, Math.floor(y * chart.rows.length));
      this.mark = { name, row, step: this.clamp(chart, step) };
      this.drawMark(false);
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("focus", () => {
      if (this.mark?.name === name || !plot.matches(":focus-visible")) return;
      const chart = this.find(name);
      if (!chart) return;
      const step = this.mark?.step ?? this.run.alarms[this.chosen]?.step ?? chart.last.at(-1);
      this.mark = { name, row: 0, step: this.clamp(chart, step) };
      this.drawMark(true);
    });
  }

  /**
   * @param {any} chart
   * @param {number} step
   */
  clamp(chart, step) {
    return Math.min(Math.max(step, chart.first[0]), chart.last[chart.last.length - 1]);
  }

  /**
   * @param {KeyboardEvent} event
   * @param {string} name
   */
  press(event, name) {
    const chart = this.find(name);
    if (!chart || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      this.listeners.onOpen();
      return;
    }
    const mark = this.mark?.name === name ? this.mark : null;
    let column = this.column(chart, mark?.step ?? chart.last.at(-1));
    let row = mark?.row ?? 0;
    const leap = event.shiftKey ? 10 : 1;
    if (event.key === "ArrowRight") column += leap;
    else if (event.key === "ArrowLeft") column -= leap;
    else if (event.key === "ArrowUp") row += 1;
    else if (event.key === "ArrowDown") row -= 1;
    else if (event.key === "Home") column = 0;
    else if (event.key === "End") column = chart.first.length - 1;
    else return;
    event.preventDefault();
    column = Math.min(Math.max(column, 0), chart.first.length - 1);
    row = Math.min(Math.max(row, 0), chart.rows.length - 1);
    this.mark = { name, row, step: chart.first[column] };
    this.drawMark(true);
  }

  /**
   * Show which cell is marked, and say its value.
   * @param {boolean} said whether it is to be read out
   */
  drawMark(said) {
    for (const cell of findAll(this.root, ".ru-cell")) cell.hidden = true;
    const { mark } = this;
    const chart = mark && this.find(mark.name);
    const hint = "Point at a chart, or move through it with the arrow keys.";
    this.readout.setAttribute("aria-live", said ? "polite" : "off");
    if (!mark || !chart?.first.length) {
      setText(this.readout, hint);
      this.listeners.onMark(null);
      return;
    }
    const column = this.column(chart, mark.step);
    const row = Math.min(mark.row, chart.rows.length - 1);
    const [from, to] = [chart.first[column], chart.last[column]];
    const cell = find(this.root, `[data-chart="${mark.name}"] .ru-cell`);
    const rows = chart.rows.length;
    cell.hidden = false;
    cell.style.left = `${this.place(from)}%`;
    cell.style.width = `max(3px, ${this.place(to + 1) - this.place(from)}%)`;
    const whole = !chart.shades; // a line has no rows to mark
    cell.style.top = whole ? "0" : `${(100 * (rows - 1 - row)) / rows}%`;
    cell.style.height = whole ? "100%" : `${100 / rows}%`;
    setText(this.readout, `${nameSteps(from, to)}: ${nameValue(chart, row, column)}`);
    this.listeners.onMark({ ...mark, step: from });
  }
}

/**
 * @param {string} name
 * @param {string} text
 */
function key(name, text) {
  return el("span", { class: "ru-key" }, text, el("i", { class: name }));
}

/**
 * @param {number} from
 * @param {number} to
 */
function nameSteps(from, to) {
  const [a, b] = [from, to].map((step) => step.toLocaleString("en"));
  return from === to ? `step ${a}` : `steps ${a}–${b}`;
}

/**
 * @param {any} chart
 * @param {number} row
 * @param {number} column
 */
function nameValue(chart, row, column) {
  if (chart.rates) {
    const whose = chart.rates.length > 1 ? `learning rate ${row + 1}` : "learning rate";
    return `${whose} ${chart.rates[row][column] || "is not known"}`;
  }
  if (!chart.values) {
    const [low, high, bad] = [chart.low[column], chart.high[column], chart.bad[column]];
    if (low === null) return "the loss is infinite or undefined";
    const range =
      low === high ? formatNumber(low) : `${formatNumber(low)} to ${formatNumber(high)}`;
    return `loss ${range}${bad ? `, and ${bad} infinite or undefined` : ""}`;
  }
  const [value, shade] = [chart.values[row][column], chart.shades[row][column]];
  const place = `layer ${row + 1} · ${chart.rows[row]} · ${chart.symbol}`;
  if (shade >= 900) return `${place} is infinite or undefined`;
  if (value === null) return `${place} was not measured`;
  const small = value !== 0 && value < 1e-5;
  return `${place} ${chart.share && !small ? `${formatRounded(100 * value, 2)} %` : formatNumber(value)}`;
}
