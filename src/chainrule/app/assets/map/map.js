/* The phase map: theory, measurement and training over two axes (templates/map.html).
 *
 * No number is computed here: /api/map answers a stream of lines (the axes, then a cell after the
 * other), and this file places and paints them. Leaving or stopping ends the request.
 */
import "../shared/frame.js";
import { readLines } from "../explore/trial.js";
import { colorOf, onTheme } from "../shared/colors.js";
import { el, find, findAll, makeTable, part, setText, showNotices, svg } from "../shared/dom.js";
import { capitalize } from "../shared/numbers.js";
import { move, outline, thin } from "./grid.js";

const UNIT = 10; // a cell, in the picture's own units

/** @type {Record<string, string>} */
const COLOURS = {
  measured:
    "Colour: measured δ of the first layer ÷ δ of the last. δ is the gradient that travels back; the gradient of the weights, ∂𝓛/∂W, may differ.",
  theory: "Colour: the same, as theory predicts it.",
  accuracy: "Colour: how many digits the network names right after training.",
};
const ASIDE = ["Theory", "Measured", "Training"];

class PhaseMap {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.form = this.$("form");
    this.plot = this.$("plot");
    /** @type {any} */
    this.map = null;
    /** @type {Map<string, any>} */
    this.cells = new Map();
    /** @type {[number, number] | null} */
    this.mark = null;
    this.colour = "measured";
    /** @type {AbortController | null} */
    this.control = null;
    this.listen();
    this.fillForm(location.search);
    this.begin();
  }

  /** @param {string} name */
  $(name) {
    return part(this.root, name);
  }

  listen() {
    this.form.addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
    this.form.addEventListener("change", () => {
      this.showFields();
      this.begin();
    });
    for (const input of findAll(this.root, "input[name=colour]")) {
      input.addEventListener("change", () => {
        this.colour = input.value;
        this.paint();
      });
    }
    this.$("stop").addEventListener("click", () => this.control?.abort());
    this.$("details").addEventListener("toggle", () => this.showTable());
    this.plot.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
    this.plot.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (event.pointerType !== "touch") this.point(this.locate(event));
    });
    this.plot.addEventListener("focus", () => {
      if (!this.mark && this.map && this.plot.matches(":focus-visible")) this.point([0, 0]);
    });
    this.plot.addEventListener("click", (/** @type {PointerEvent} */ event) => {
      const at = this.locate(event);
      const again = String(at) === String(this.mark);
      this.point(at);
      // A finger has pointed at nothing before: the first touch says what is there.
      if (event.pointerType !== "touch" || again) this.open();
    });
    addEventListener("pagehide", () => this.control?.abort());
    addEventListener("popstate", () => {
      this.fillForm(location.search);
      this.begin();
    });
    onTheme(() => this.paint());
    new ResizeObserver(() => this.place()).observe(this.plot);
  }

  // --- what is shown ------------------------------------------------------------------------

  /** @param {string} search */
  fillForm(search) {
    const given = new URLSearchParams(search);
    for (const select of findAll(this.form, "select")) {
      const usual =
        [...select.options].find((option) => option.defaultSelected) ?? select.options[0];
      select.value = given.get(select.name) ?? usual.value;
      if (select.selectedIndex < 0) select.value = usual.value;
    }
    this.showFields();
  }

  showFields() {
    const kind = this.form.elements.map.value;
    for (const label of findAll(this.form, "[data-kinds]"))
      label.hidden = !label.dataset.kinds.split(" ").includes(kind);
  }

  /** The address of what is chosen. */
  query() {
    const query = new URLSearchParams();
    for (const select of findAll(this.form, "select")) {
      if (!select.closest("label").hidden) query.set(select.name, select.value);
    }
    return query;
  }

  async begin() {
    this.control?.abort();
    const control = new AbortController();
    this.control = control;
    delete this.root.dataset.ready;
    this.$("stop").hidden = false;
    let said = "";
    try {
      const answer = await fetch(`/api/map?${this.query()}`, {
        signal: control.signal,
        headers: { Accept: "application/x-ndjson" },
      });
      if (!answer.ok) said = (await answer.json()).error;
      else for await (const line of readLines(answer.body)) this.hear(line);
    } catch {
      if (this.control !== control) return; // something newer is asked
      said = control.signal.aborted ? "Stopped." : "The server does not answer. Try again.";
    }
    if (this.control !== control) return;
    if (said) setText(this.$("summary"), said);
    this.$("stop").hidden = true;
    this.root.dataset.ready = "1";
    this.showTable();
  }

  /** @param {any} line */
  hear(line) {
    if (line.type === "start") this.start(line);
    else if (line.type === "queued") setText(this.$("count"), line.status);
    else if (line.type === "cell") this.take(line);
    else {
      const said = line.type === "done" ? line.summary : line.error;
      this.$("summary").replaceChildren(...writeSymbols(said));
    }
  }

  /** @param {any} map */
  start(map) {
    this.map = map;
    this.cells.clear();
    this.mark = null;
    const address = map.address ? `?${map.address}` : location.pathname;
    if (location.search !== `?${map.address}` && (location.search || map.address))
      history.replaceState(null, "", address);
    showNotices(this.$("notices"), map.notices);
    const trains = this.form.elements.train.value !== "";
    const trained = find(this.root, "input[value=accuracy]");
    trained.disabled = !trains;
    if (!trains && trained.checked) {
      find(this.root, "input[value=measured]").checked = true;
      this.colour = "measured";
    }
    this.$("x-name").replaceChildren(...writeSymbols(`${map.x.label} →`));
    this.$("y-name").replaceChildren(...writeSymbols(`${map.y.label} →`));
    this.$("line-text").replaceChildren(...writeSymbols(map.line_text));
    this.showBiases(map.biases);
    setText(this.$("line-name"), map.line_name);
    for (const name of ["dot-key", "dot-key-empty"]) this.$(name).hidden = !trains;
    setText(this.$("settings"), map.settings);
    setText(this.$("summary"), "");
    const size = `${map.x.ticks.length} × ${map.y.ticks.length}`;
    this.plot.setAttribute("aria-label", `map of ${size}: ${map.x.label}, ${map.y.label}`);
    this.draw();
    this.showProgress();
    this.tell();
  }

  /**
   * Say why the line is not where it is without biases, where it is not.
   * @param {{text: string, links: [string, string][]} | null} biases
   */
  showBiases(biases) {
    const place = this.$("biases");
    place.hidden = !biases;
    if (!biases) return;
    const links = biases.links.flatMap(([words, href], i) => [
      i ? " · " : " ",
      el("a", { href }, words),
    ]);
    place.replaceChildren(...writeSymbols(biases.text), ...links);
  }

  /** @param {any} cell */
  take(cell) {
    this.cells.set(String(cell.at), cell);
    this.paintCell(cell);
    this.addDot(cell);
    if (String(cell.at) === String(this.mark)) this.tell();
    this.later();
  }

  /** Draw what depends on several cells once for all that came together. */
  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawEdge();
      this.showProgress();
    });
  }

  showProgress() {
    const bar = this.$("progress");
    bar.max = this.map.total;
    bar.value = this.cells.size;
    setText(this.$("count"), `${this.cells.size} of ${this.map.total}`);
  }

  // --- drawing ------------------------------------------------------------------------------

  /** The numbers of columns and rows. */
  size() {
    return /** @type {[number, number]} */ ([this.map.x.ticks.length, this.map.y.ticks.length]);
  }

  draw() {
    const [columns, rows] = this.size();
    const [wide, high] = [columns * UNIT, rows * UNIT];
    /** @type {Map<string, any>} */
    this.rects = new Map();
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1) {
        const place = { x: x * UNIT + 0.25, y: (rows - 1 - y) * UNIT + 0.25 };
        const size = { width: UNIT - 0.5, height: UNIT - 0.5 };
        this.rects.set(`${x},${y}`, svg("rect", { class: "mp-cell", ...place, ...size }));
      }
    }
    this.edge = svg("path", { class: "mp-edge" });
    this.edgeHalo = svg("path", { class: "mp-halo" });
    const line = this.map.line.map(
      (/** @type {[number, number]} */ [x, y]) => `${(x + 0.5) * UNIT} ${high - (y + 0.5) * UNIT}`,
    );
    const path = line.length ? `M${line.join("L")}` : "";
    this.dots = el("div", { class: "mp-dots" });
    this.marker = el("div", { class: "mp-mark", hidden: true });
    this.plot.replaceChildren(
      svg(
        "svg",
        { viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        [...this.rects.values()],
        this.edgeHalo,
        this.edge,
        svg("path", { class: "mp-halo", d: path }),
        svg("path", { class: "mp-line", d: path }),
      ),
      this.dots,
      this.marker,
    );
    this.place();
    this.paint();
  }

  /** Write the ticks that have room, and make dots fit. */
  place() {
    if (!this.map) return;
    const [columns, rows] = this.size();
    const [width, height] = [this.plot.clientWidth, this.plot.clientHeight];
    const longest = (/** @type {string[]} */ ticks) =>
      ticks.reduce((a, b) => (b.length > a.length ? b : a), "");
    // Where words have no room next to each other, they stand upright: none is left out.
    const needed = longest(this.map.x.ticks).length * 7 + 14;
    const words =
      width / columns < needed &&
      this.map.x.ticks.some((/** @type {string} */ tick) => Number.isNaN(Number(tick)));
    this.$("x").classList.toggle("mp-words", words);
    const room = words ? columns : width / needed;
    const across = thin(columns, room);
    const up = thin(rows, height / 20);
    this.$("x").replaceChildren(
      words ? el("i", {}, longest(this.map.x.ticks)) : "",
      ...across.map((i) =>
        el("span", { style: `left:${(100 * (i + 0.5)) / columns}%` }, this.map.x.ticks[i]),
      ),
    );
    this.$("y").replaceChildren(
      el("i", {}, longest(this.map.y.ticks)),
      ...up.map((i) =>
        el("span", { style: `bottom:${(100 * (i + 0.5)) / rows}%` }, this.map.y.ticks[i]),
      ),
    );
    const dot = Math.max(5, Math.min(13, 0.42 * Math.min(width / columns, height / rows)));
    this.plot.style.setProperty("--dot", `${dot.toFixed(1)}px`);
  }

  paint() {
    if (!this.map) return;
    for (const cell of this.cells.values()) this.paintCell(cell);
    setText(this.$("colour-name"), COLOURS[this.colour]);
    const keys = this.map.legend[this.colour === "accuracy" ? "accuracy" : "measured"];
    this.$("legend").replaceChildren(
      ...keys.map((/** @type {[number, string]} */ [shade, text]) =>
        el("li", {}, el("i", { style: `background:${colorOf(shade, false)}` }), text),
      ),
    );
  }

  /** @param {any} cell */
  paintCell(cell) {
    const shade = cell[this.colour];
    const fill = shade === null ? "" : colorOf(shade, false);
    this.rects.get(String(cell.at)).style.fill = fill;
  }

  /** @param {any} cell */
  addDot({ at: [x, y], dot }) {
    if (!dot) return;
    const [columns, rows] = this.size();
    const style = `left:${(100 * (x + 0.5)) / columns}%;bottom:${(100 * (y + 0.5)) / rows}%`;
    this.dots.append(el("i", { "data-dot": dot, style }));
  }

  drawEdge() {
    const [columns, rows] = this.size();
    const expects = (/** @type {number} */ x, /** @type {number} */ y) =>
      this.cells.get(`${x},${y}`)?.expects ?? null;
    const high = rows * UNIT;
    const path = outline(columns, rows, expects)
      .map(([[a, b], [c, d]]) => `M${a * UNIT} ${high - b * UNIT}L${c * UNIT} ${high - d * UNIT}`)
      .join("");
    this.edge.setAttribute("d", path);
    this.edgeHalo.setAttribute("d", path);
  }

  // --- one cell -----------------------------------------------------------------------------

  /**
   * The cell under a pointer.
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  locate(event) {
    const [columns, rows] = this.size();
    const box = this.plot.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const y = Math.floor(((box.bottom - event.clientY) / box.height) * rows);
    return [Math.max(0, Math.min(columns - 1, x)), Math.max(0, Math.min(rows - 1, y))];
  }

  /** @param {[number, number]} at */
  point(at) {
    if (!this.map || String(at) === String(this.mark)) return;
    this.mark = at;
    this.tell();
  }

  tell() {
    const open = this.$("open");
    this.marker.hidden = !this.mark;
    open.hidden = true;
    if (!this.mark) return;
    const [columns, rows] = this.size();
    const [x, y] = this.mark;
    Object.assign(this.marker.style, {
      left: `${(100 * x) / columns}%`,
      bottom: `${(100 * y) / rows}%`,
      width: `${100 / columns}%`,
      height: `${100 / rows}%`,
    });
    const cell = this.cells.get(String(this.mark));
    const ticks = `${this.map.x.label} ${this.map.x.ticks[x]}, ${this.map.y.label} ${this.map.y.ticks[y]}`;
    this.$("where").replaceChildren(...writeSymbols(capitalize(cell?.where ?? ticks)));
    if (!cell) {
      this.$("text").replaceChildren(el("p", {}, "Not computed yet."));
      return;
    }
    this.$("text").replaceChildren(el("dl", {}, ...writeParts(cell.text)));
    open.hidden = false;
    open.href = `/?${cell.query}`;
  }

  open() {
    const cell = this.mark && this.cells.get(String(this.mark));
    if (cell) location.assign(`/?${cell.query}`);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.map || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open();
      return;
    }
    const at = move(this.mark ?? [0, 0], event.key, this.size());
    if (!at) return;
    event.preventDefault();
    this.point(at);
  }

  showTable() {
    if (!this.$("details").open || !this.map) return;
    const rows = [...this.cells.values()].map((cell) => [cell.where, ...splitText(cell.text)]);
    this.$("table").replaceChildren(makeTable(["network", ...ASIDE], rows));
  }
}

/**
 * The three parts of a cell's line, without the words that a heading says.
 * @param {string} text
 */
function splitText(text) {
  const parts = text.replace(/\.$/, "").split("; ");
  return parts.map((each, i) =>
    capitalize(each.replace([/^Theory says:? /, /^measured /, /^training /][i] ?? /^$/, "")),
  );
}

/**
 * A text with σ_w and σ_b as symbols with a subscript.
 * @param {string} text
 */
function writeSymbols(text) {
  return text
    .split(/(σ_[wb])/)
    .map((each, i) => (i % 2 ? el("span", {}, "σ", el("sub", {}, each.slice(2))) : each));
}

/** @param {string} text */
function writeParts(text) {
  return splitText(text).flatMap((each, i) => [el("dt", {}, ASIDE[i] ?? ""), el("dd", {}, each)]);
}

new PhaseMap(/** @type {HTMLElement} */ (document.getElementById("map-root")));
