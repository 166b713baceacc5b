/* A measurement on screen: status cards, charts, findings and the numbers as a table.
 *
 * Everything shown comes from one answer of the server (flow_answer.py); this file puts it into
 * its places (templates/flow.html), draws the charts, and links them: a layer that is pointed at
 * anywhere is marked everywhere. No number is computed here.
 */
import {
  dropIdle,
  el,
  find,
  findAll,
  makeTable,
  numberNodes,
  part,
  setText,
  whenIdle,
} from "./dom.js";
import { findCell } from "./heat_map.js";
import { draw, load, toImage } from "./plotly.js";
import { isPlain, QuickChart } from "./quick_chart.js";
import { Strip } from "./strip.js";

const NARROW = 420; // px below which every other number of a layer is left out
const LINKED = ["gradient", "activation", "factor"];
const BEHIND = 400; // ms after which what is not of the setting on screen looks so
const PICTURE = { width: 900, height: 520 };

/** @typedef {"measure" | "scale" | "theory" | "layer"} Switch */

export class FlowView {
  /**
   * @param {HTMLElement} root where its places are
   * @param {object} options
   * @param {Record<string, string>} options.panels titles of the charts by name
   * @param {(name: Switch, value: any) => void} [options.onSwitch] what was chosen
   * @param {string | null} [options.only] the one chart that is shown alone
   * @param {boolean} [options.quick] whether the main chart is a plain picture until there is time
   */
  constructor(root, { panels, onSwitch = () => {}, only = null, quick = false }) {
    this.root = root;
    this.panels = panels;
    this.onSwitch = onSwitch;
    this.only = only;
    /** @type {number | null} */
    this.layer = null;
    this.sketched = false; // whether the library's main chart is still to be drawn
    /** @type {number | undefined} */
    this.behind = undefined;
    /** @type {any} */
    this.answer = null;
    /** @type {any} */
    this.filled = null; // the table that is shown
    /** @type {number | undefined} */
    this.later = undefined;
    this.cards = findAll(root, ".fv-card").map((box) => ({
      box,
      title: find(box, ".fv-card-title"),
      value: find(box, ".fv-card-value"),
      word: find(box, ".fv-card-word"),
      note: find(box, ".fv-card-note"),
      shown: "",
    }));
    this.way = find(root, ".fv-way");
    this.note = part(root, "ensemble");
    this.clip = part(root, "clip");
    this.band = part(root, "band");
    this.readout = part(root, "readout");
    this.details = part(root, "table");
    this.layerNote = part(root, "layer-note");
    this.findings = part(root, "findings");
    this.empty = part(root, "empty");
    this.charts = find(root, ".fv-charts");
    const strip = part(root, "strip");
    this.strip = strip && new Strip(strip, (layer) => this.point(layer), this.choose.bind(this));
    /** @type {Record<string, {plot: any, mark: any}>} */
    this.marks = {};
    for (const chart of findAll(root, ".fv-chart")) {
      const [plot, mark] = [find(chart, ".fv-plot"), find(chart, ".fv-mark")];
      this.marks[chart.dataset.chart] = { plot, mark };
    }
    const { gradient } = this.marks;
    this.quick = quick && gradient ? new QuickChart(gradient.plot) : null;
    this.listen();
  }

  listen() {
    for (const chart of findAll(this.root, ".fv-chart")) {
      const { chart: name } = chart.dataset;
      chart.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) =>
        this.walk(event, name),
      );
      chart.addEventListener("blur", () => this.point(null));
    }
    for (const button of findAll(this.root, "[data-save]")) {
      const { panel } = button.closest("[data-panel]").dataset;
      button.addEventListener("click", () => this.download(panel, button.dataset.save));
    }
    for (const group of findAll(this.root, "[data-choice]")) {
      group.addEventListener("change", (/** @type {any} */ event) =>
        this.onSwitch(group.dataset.choice, event.target.value),
      );
    }
    this.details?.addEventListener("toggle", () => this.fillTable());
  }

  // --- showing ----------------------------------------------------------------------------------

  /**
   * Show an answer: words and the main chart at once, the rest as soon as there is time. A quick
   * answer has no more than that; what it leaves as it was is marked until the next one.
   * @param {any} answer
   */
  show(answer) {
    this.answer = answer;
    dropIdle(this.later);
    this.fallBehind(answer.quick);
    const { figures } = answer;
    const first = this.only || "gradient";
    if (!this.only) {
      this.empty.hidden = Boolean(figures);
      this.charts.hidden = !figures;
    }
    if (figures) this.sketch(first, figures[first]);
    this.strip?.show(answer.journey);
    if (!answer.quick) this.showWords(answer);
    this.root.dataset.painted = answer.view ? answer.view.address : "whole";
    this.later = whenIdle(() => this.showRest(answer));
  }

  /**
   * Mark what a quick answer leaves as it was, if that takes a moment.
   * @param {boolean} behind
   */
  fallBehind(behind) {
    if (behind) {
      this.behind ??= setTimeout(() => this.root.classList.add("fv-behind"), BEHIND);
      return;
    }
    clearTimeout(this.behind);
    this.behind = undefined;
    this.root.classList.remove("fv-behind");
  }

  /**
   * Show what is read beside the chart; of a quick answer, whoever shows it asks for this.
   * @param {any} answer
   */
  showWords(answer) {
    if (!this.only) this.showCards(answer.cards);
    if (this.note) setText(this.note, answer.ensemble?.note || "");
    if (this.band) {
      setText(this.band, answer.band || "");
      this.band.hidden = !answer.band;
    }
    const pinned = part(this.root, "pinned");
    if (pinned) {
      setText(
        /** @type {HTMLElement} */ (pinned.lastElementChild),
        answer.comparison?.pinned || "",
      );
      pinned.hidden = !answer.comparison;
    }
    if (this.clip) {
      setText(this.clip, answer.clip || "");
      this.clip.hidden = !answer.clip;
    }
    for (const name of ["measure", "scale", "theory"]) {
      const wanted = answer.view?.[name];
      const radio = find(this.root, `[data-choice="${name}"] input[value="${wanted}"]`);
      if (radio && !radio.checked) radio.checked = true;
    }
    const bridge = part(this.root, "bridge");
    if (bridge) {
      setText(part(bridge, "bridge-words"), answer.bridge || "");
      bridge.hidden = !answer.bridge;
    }
  }

  /**
   * Show the main chart at once: as a plain picture where it can be, which the library's chart
   * follows with the rest.
   * @param {string} name
   * @param {import("./plotly.js").Figure} figure
   */
  sketch(name, figure) {
    if (name === "gradient" && isPlain(figure)) this.quick?.show(figure);
    else this.quick?.hide();
    const place = this.quick?.place;
    this.sketched = Boolean(place);
    if (!place) {
      this.draw(name, figure);
      return;
    }
    this.strip?.align(place);
    if (this.layer !== null) this.place(name);
  }

  /**
   * Draw what the main chart need not wait for, a piece at a time: a key pressed meanwhile comes
   * next.
   * @param {any} answer
   */
  async showRest(answer) {
    const { figures } = answer;
    if (figures) await load().catch(() => {}); // `draw` says so
    const isNewest = () => this.answer === answer;
    if (answer.quick || !isNewest()) return;
    const names = !figures || this.only ? [] : ["activation", "factor", "layer"];
    if (this.sketched) names.unshift("gradient");
    const pieces = names.map((name) => () => this.draw(name, figures[name]));
    pieces.push(() => {
      if (!this.only) {
        setText(this.layerNote, answer.layer || "");
        this.showFindings(answer);
      }
      this.fillTable();
      this.root.dataset.shown = answer.view ? answer.view.address : "whole";
    });
    const next = () => {
      if (!isNewest()) return;
      pieces.shift()?.();
      if (pieces.length) this.later = whenIdle(next);
    };
    next();
  }

  /** @param {any[]} cards */
  showCards(cards) {
    for (const [index, card] of cards.entries()) {
      const parts = this.cards[index];
      const last = index === cards.length - 1;
      parts.box.dataset.state = card.state;
      setText(parts.title, card.title);
      const key = JSON.stringify([card.value, card.icon]);
      if (parts.shown !== key) {
        const icon = last ? [makeIcon(card.icon)] : [];
        parts.value.replaceChildren(...icon, ...numberNodes(card.value));
        parts.shown = key;
      }
      const badge = card.badge ?? { state: card.state, icon: card.icon, text: card.word };
      parts.word.dataset.state = badge.state;
      parts.word.replaceChildren(makeIcon(badge.icon), badge.text);
      setText(parts.note, card.note);
      if (last) {
        const place = document.getElementById("what-to-change");
        this.way.hidden = !place || place.hidden;
        // Its line stays, so that nothing jumps.
        this.way.classList.toggle("idle", card.state === "good");
      }
    }
  }

  /** @param {any} answer */
  showFindings(answer) {
    /** @type {any[]} */
    const nodes = answer.findings.map((/** @type {any} */ { evidence, reason, source }) =>
      makeFinding(evidence, `${reason} (${source})`),
    );
    if (!nodes.length) nodes.push(el("p", {}, answer.summary));
    if (answer.blame?.words) nodes.push(makeBlame(answer.blame));
    nodes.push(el("p", { class: "fv-next" }, el("b", {}, "Next: "), answer.action));
    if (answer.notes?.length) {
      const notes = answer.notes.map((/** @type {any} */ { evidence, meaning, source }) =>
        makeFinding(evidence, `${meaning} (${source})`),
      );
      nodes.push(el("div", { "data-part": "notes" }, el("h3", {}, "Worth knowing"), notes));
    }
    if (answer.forecasts) nodes.push(makeForecasts(answer));
    this.findings.replaceChildren(...nodes);
  }

  fillTable() {
    const table = this.answer?.table; // a quick answer has none: the whole one fills it
    if (!this.details?.open || !table || this.filled === table) return;
    this.filled = table;
    const { head, rows } = table;
    const describe = (/** @type {string[]} */ row) => ({
      onmouseenter: () => this.point(Number(row[0])),
    });
    find(this.details, ".scroll").replaceChildren(makeTable(head, rows, describe));
  }

  /**
   * @param {string} name
   * @param {import("./plotly.js").Figure} figure
   */
  draw(name, figure) {
    const { plot } = this.marks[name];
    if (plot.clientWidth < NARROW && figure.layout.xaxis.dtick) figure.layout.xaxis.dtick *= 2;
    draw(plot, figure, () => {
      if (!plot.dataset.linked) this.link(plot, name);
      if (name === "gradient") this.quick?.hide();
      this.follow(name);
    });
  }

  /**
   * Let what stands over a chart follow it, whenever it was drawn: also in a window of another size.
   * @param {string} name
   */
  follow(name) {
    if (name === "gradient") {
      const { _size, width } = this.marks[name].plot._fullLayout;
      const drawn = { left: _size.l, width: _size.w, whole: width };
      this.strip?.align(this.quick?.place ?? drawn);
    }
    if (this.layer !== null && LINKED.includes(name)) this.place(name);
  }

  /**
   * Draw a chart of the answer on screen anew, with more in it.
   * @param {string} name
   * @param {import("./plotly.js").Figure} figure
   */
  redraw(name, figure) {
    this.answer.figures[name] = figure;
    this.draw(name, figure);
  }

  /**
   * @param {any} plot
   * @param {string} name
   */
  link(plot, name) {
    plot.dataset.linked = "1";
    plot.on("plotly_afterplot", () => this.follow(name));
    if (name === "layer") return;
    const read = (/** @type {any} */ { points }) => Math.round(points[0].x);
    plot.on("plotly_hover", (/** @type {any} */ event) => this.point(read(event)));
    plot.on("plotly_unhover", () => this.point(null));
    plot.on("plotly_click", (/** @type {any} */ event) => this.onSwitch("layer", read(event)));
    if (name === "activation") this.linkCells(plot);
  }

  /**
   * Say what a cell of the heat map holds, where the pointer is.
   * @param {any} plot
   */
  linkCells(plot) {
    const tip = el("div", { class: "fv-tip", hidden: true });
    plot.parentElement.append(tip);
    const locate = (/** @type {MouseEvent} */ event) => {
      const { xaxis, yaxis, _size: size } = plot._fullLayout;
      const { left, top } = plot.getBoundingClientRect();
      const [x, y] = [event.clientX - left - size.l, event.clientY - top - yaxis._offset];
      const inside = x >= 0 && x <= size.w && y >= 0 && y <= yaxis._length;
      // What is drawn, not the newest answer: a quick one leaves this chart as it was.
      const cell = inside && findCell(plot.wanted.data[0], xaxis.p2l(x), yaxis.p2l(y));
      return cell ? { ...cell, x: event.clientX - left, y: event.clientY - top } : null;
    };
    const hide = () => {
      if (!tip.hidden) this.point(null);
      tip.hidden = true;
    };
    plot.addEventListener("mousemove", (/** @type {MouseEvent} */ event) => {
      const cell = locate(event);
      if (!cell) {
        hide();
        return;
      }
      this.point(cell.layer);
      setText(tip, cell.text);
      tip.hidden = false;
      const right = cell.x > plot.clientWidth / 2;
      tip.style.left = right ? "" : `${cell.x + 14}px`;
      tip.style.right = right ? `${plot.clientWidth - cell.x + 14}px` : "";
      tip.style.top = `${cell.y - 14}px`;
    });
    plot.addEventListener("mouseleave", hide);
    plot.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const cell = locate(event);
      if (cell) this.onSwitch("layer", cell.layer);
    });
  }

  // --- linking ----------------------------------------------------------------------------------

  /**
   * Mark a layer in every chart, and say its values; null marks none.
   * @param {number | null} layer
   */
  point(layer) {
    const count = this.count();
    this.layer = layer === null || layer < 1 || layer > count ? null : layer;
    const words = this.layer === null ? "" : (this.answer.layers?.[this.layer - 1] ?? "");
    if (this.readout) setText(this.readout, words);
    this.strip?.mark(this.layer);
    for (const name of LINKED) if (this.marks[name]) this.place(name);
  }

  /** How many layers there are. */
  count() {
    return this.answer?.journey.length ?? 0;
  }

  /** @param {number} layer */
  choose(layer) {
    this.onSwitch("layer", layer);
  }

  /** @param {string} name */
  place(name) {
    const { mark } = this.marks[name];
    const chart = this.locate(name);
    mark.hidden = this.layer === null || !chart;
    if (!chart || this.layer === null) return;
    const { left, top, width, height, range } = chart;
    const step = width / (range[1] - range[0]);
    Object.assign(mark.style, {
      left: `${left + (this.layer - 0.5 - range[0]) * step}px`,
      width: `${Math.max(3, step)}px`,
      top: `${top}px`,
      height: `${height}px`,
    });
  }

  /**
   * Return where a chart lies in its place, px, and which layers it spans; null before it is drawn.
   * @param {string} name
   */
  locate(name) {
    const quick = name === "gradient" && this.quick?.place;
    if (quick) return quick;
    const full = this.marks[name].plot._fullLayout;
    if (!full?.xaxis) return null;
    const { l: left, t: top, w: width, h: height } = full._size;
    return { left, top, width, height, range: full.xaxis.range };
  }

  /**
   * @param {KeyboardEvent} event
   * @param {string} name
   */
  walk(event, name) {
    if (name === "layer") return;
    const count = this.count();
    const from = this.layer ?? (event.key === "ArrowLeft" ? count + 1 : 0);
    /** @type {Record<string, number>} */
    const steps = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 1, End: count };
    if (event.key in steps) {
      event.preventDefault();
      this.point(Math.min(count, Math.max(1, steps[event.key])));
    } else if (event.key === "Enter" && this.layer !== null) {
      this.onSwitch("layer", this.layer);
    } else if (event.key === "Escape") {
      this.point(null);
    }
  }

  // --- keeping ----------------------------------------------------------------------------------

  /**
   * Save a chart as people put it into a document: on white, with its title and setting.
   * @param {string} name
   * @param {string} format
   */
  async download(name, format) {
    const figure = this.answer?.figures?.[name];
    if (!figure) return;
    const title = [this.panels[name], this.answer.caption].filter(Boolean).join("<br>");
    const layout = structuredClone(figure.layout);
    Object.assign(layout, PICTURE, {
      paper_bgcolor: "#ffffff",
      plot_bgcolor: "#ffffff",
      title: { text: title, font: { size: 15 }, x: 0.02, xanchor: "left", y: 0.97 },
      font: { ...layout.font, color: "#3a4149" },
      margin: { ...layout.margin, t: 92 },
    });
    const scale = format === "png" ? 2 : 1;
    const url = await toImage({ data: figure.data, layout }, { format, ...PICTURE, scale });
    const link = el("a", { href: url, download: `chainrule-${name}.${format}` });
    document.body.append(link);
    link.click();
    link.remove();
  }
}

/** @param {string} icon */
function makeIcon(icon) {
  return el("span", { "aria-hidden": "true" }, `${icon} `);
}

/**
 * @param {string} evidence
 * @param {string} meaning
 */
function makeFinding(evidence, meaning) {
  const words = [el("p", { class: "strong" }, evidence), el("p", { class: "dim" }, meaning)];
  return el("div", { class: "fv-finding" }, words);
}

/** @param {{head: string[], rows: string[][], words: string}} blame */
function makeBlame({ head, rows, words }) {
  const region = { tabindex: "0", role: "region", "aria-label": "the modules most to blame" };
  return el(
    "div",
    { "data-part": "blame" },
    el("h3", {}, rows.length ? "Main causes, by factor" : "Main causes"),
    rows.length ? el("div", { class: "scroll fv-blame", ...region }, makeTable(head, rows)) : null,
    el("p", { class: "dim" }, words),
  );
}

/** @param {any} answer */
function makeForecasts(answer) {
  const boxes = answer.forecasts.map((/** @type {any} */ { state, icon, title, note, reasons }) => {
    const items = reasons.map((/** @type {string} */ reason) => el("li", {}, reason));
    const head = [makeIcon(icon), el("b", {}, title)];
    return el(
      "div",
      { class: "fv-finding" },
      el("p", { class: "fv-word", "data-state": state }, head),
      el("p", { class: "dim" }, note),
      items.length ? el("ul", { class: "fv-reasons" }, items) : null,
    );
  });
  return el(
    "div",
    { "data-part": "forecasts" },
    el("h3", {}, "Will it train?"),
    boxes,
    answer.difference ? el("p", { class: "dim" }, answer.difference) : null,
  );
}
