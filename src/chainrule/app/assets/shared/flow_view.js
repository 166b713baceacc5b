/* A measurement on screen: status cards, charts, findings and the numbers as a table.
 *
 * Everything shown comes from one answer of the server (flow_answer.py); this file places it,
 * draws the charts with Plotly, and links them: a layer that is pointed at anywhere is marked
 * everywhere. No number is computed here.
 */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";

  const CONFIG = { displayModeBar: false, responsive: true, displaylogo: false };
  const NARROW = 420; // px below which every other number of a layer is left out
  const HEIGHTS = { gradient: 360, activation: 400, factor: 400, layer: 220 };

  const { el, text, numberNodes, whenIdle, dropIdle } = chainrule.dom;

  class FlowView {
    /**
     * @param root where to build it
     * @param panels titles of the charts by name
     * @param measures [name, label] of what the main chart can show, or null for no switch
     * @param onSwitch called with ("measure" | "scale" | "layer", value)
     */
    constructor(root, { panels, measures = null, onSwitch = () => {}, only = null }) {
      Object.assign(this, { root, panels, measures, onSwitch, only });
      this.marks = {};
      this.layer = null;
      this.build();
    }

    // --- places ---------------------------------------------------------------------------

    build() {
      this.cards = [0, 1, 2, 3].map(() => {
        const parts = {
          title: el("p", { class: "fv-card-title" }),
          value: el("p", { class: "fv-card-value" }),
          word: el("p", { class: "fv-card-word" }),
          note: el("p", { class: "fv-card-note" }),
        };
        return { ...parts, box: el("div", { class: "fv-card" }, parts.title, parts.value, parts.word, parts.note) };
      });
      this.way = el("a", { href: "#what-to-change", class: "fv-way", hidden: true }, "What to change ↓");
      this.cards[3].box.append(this.way);
      const cards = el("div", { class: "fv-cards", "data-part": "cards", role: "group", "aria-label": "status" }, this.cards.map((card) => card.box));
      this.note = el("p", { class: "fv-dim", "data-part": "ensemble" });
      this.clip = el("p", { class: "fv-clip", "data-part": "clip", hidden: true });
      this.readout = el("p", { class: "fv-readout", "aria-live": "polite", "data-part": "readout" });
      this.table = el("div", { class: "fv-scroll", tabindex: "0", role: "region", "aria-label": "the numbers as a table" });
      this.details = el("details", { "data-part": "table" }, el("summary", {}, "The numbers as a table"), this.table);
      this.details.addEventListener("toggle", () => this.fillTable());
      this.layerNote = el("p", { class: "fv-dim", "data-part": "layer-note" });
      const gradient = this.panel("gradient", this.note, this.switches(), [this.readout, this.clip, this.details]);
      const activation = this.panel(
        "activation",
        el("p", { class: "fv-dim" }, `The darker, the more activations lie there.${this.only ? "" : " Choose a layer to see it in full."}`),
        null,
        [],
      );
      const factor = this.panel(
        "factor",
        el("p", { class: "fv-dim" }, "What each layer multiplies the gradient by on its way back. Factors far from 1 are to blame; where the running product is steepest, most is lost or gained."),
        null,
        [],
      );
      const layer = this.panel("layer", this.layerNote, null, []);
      this.findings = el("div", { "data-part": "findings" });
      const diagnosis = el("section", { class: "fv-panel", "data-panel": "diagnosis" }, el("h2", {}, "Diagnosis"), this.findings);
      this.empty = el("p", { class: "fv-panel", hidden: true }, "This measurement holds no weight layers, so there is nothing to draw.");
      if (this.only) {
        const alone = { gradient, activation, factor }[this.only];
        this.root.append(alone);
        return;
      }
      this.charts = el("div", { class: "fv-charts" }, gradient, el("div", { class: "fv-two" }, activation, factor), layer);
      this.root.append(cards, this.empty, this.charts, diagnosis);
    }

    panel(name, note, tools, rest) {
      const id = `fv-${name}`;
      const save = ["SVG", "PNG"].map((format) =>
        el("button", { type: "button", class: "fv-quiet", "aria-label": `download this chart as ${format}`, onclick: () => this.download(name, format.toLowerCase()) }, format),
      );
      return el(
        "section",
        { class: "fv-panel", "data-panel": name, "aria-labelledby": id },
        el("div", { class: "fv-head" }, el("h2", { id }, this.panels[name] || "One layer in full"), el("div", { class: "fv-tools" }, save)),
        note,
        tools,
        this.chart(name),
        rest,
      );
    }

    chart(name) {
      const mark = el("div", { class: "fv-mark", hidden: true });
      const plot = el("div", { class: "fv-plot", id: `${name}-chart`, style: `height:${HEIGHTS[name]}px` });
      const box = el("div", {
        class: "fv-chart",
        tabindex: name === "layer" ? null : "0",
        role: "group",
        "aria-label": `${this.panels[name] || "One layer in full"}: chart. Arrow keys go through the layers${name === "layer" ? "" : ", Enter shows one in full"}.`,
        onkeydown: (event) => this.walk(event, name),
        onblur: () => this.point(null),
      }, plot, mark);
      this.marks[name] = { box, plot, mark };
      return box;
    }

    switches() {
      if (!this.measures) return null;
      return el("div", { class: "fv-switches" },
        this.choice("measure", "what the chart shows", this.measures),
        this.choice("scale", "scale of the axis", [["log", "log"], ["linear", "linear"]]));
    }

    choice(name, label, options) {
      const group = `${name}-${Math.random().toString(36).slice(2)}`;
      return el("fieldset", { class: "fv-choice", "data-choice": name }, el("legend", { class: "fv-hidden" }, label),
        options.map(([value, caption]) =>
          el("label", {}, el("input", { type: "radio", name: group, value, onchange: () => this.onSwitch(name, value) }), el("span", {}, caption))));
    }

    // --- showing --------------------------------------------------------------------------

    /** Show an answer: cards and the main chart at once, the rest as soon as there is time. */
    show(answer) {
      this.answer = answer;
      dropIdle(this.later);
      if (!this.only) this.showCards(answer.cards);
      text(this.note, answer.ensemble?.note || "");
      text(this.clip, answer.clip || "");
      this.clip.hidden = !answer.clip;
      for (const name of ["measure", "scale"]) {
        const wanted = answer.view?.[name];
        const radio = this.root.querySelector(`[data-choice="${name}"] input[value="${wanted}"]`);
        if (radio && !radio.checked) radio.checked = true;
      }
      const figures = answer.figures;
      if (!this.only) {
        this.empty.hidden = Boolean(figures);
        this.charts.hidden = !figures;
      }
      if (figures) this.draw(this.only || "gradient", figures[this.only || "gradient"]);
      this.later = whenIdle(() => this.showRest(answer));
    }

    showRest(answer) {
      const figures = answer.figures;
      if (figures && !this.only) {
        this.draw("activation", figures.activation);
        this.draw("factor", figures.factor);
      }
      if (figures && !this.only) this.draw("layer", figures.layer);
      text(this.layerNote, answer.layer || "");
      if (!this.only) this.showFindings(answer);
      this.fillTable();
      this.root.dataset.shown = answer.view ? answer.view.address : "whole";
    }

    showCards(cards) {
      cards.forEach((card, index) => {
        const parts = this.cards[index];
        parts.box.dataset.state = card.state;
        text(parts.title, card.title);
        const key = JSON.stringify([card.value, card.icon]);
        if (parts.shown !== key) {
          parts.value.replaceChildren(...(index === 3 ? [el("span", { "aria-hidden": "true" }, `${card.icon} `)] : []), ...numberNodes(card.value));
          parts.shown = key;
        }
        if (card.badge) {
          parts.word.dataset.state = card.badge.state;
          parts.word.replaceChildren(el("span", { "aria-hidden": "true" }, `${card.badge.icon} `), card.badge.text);
        } else {
          parts.word.dataset.state = card.state;
          parts.word.replaceChildren(el("span", { "aria-hidden": "true" }, `${card.icon} `), card.word);
        }
        text(parts.note, card.note);
        if (index === 3) {
          const place = document.getElementById("what-to-change");
          this.way.hidden = !place || place.hidden;
          this.way.classList.toggle("fv-idle", card.state === "good"); // its line stays, so that nothing jumps
        }
      });
    }

    showFindings(answer) {
      const nodes = answer.findings.map((finding) =>
        el("div", { class: "fv-finding" }, el("p", { class: "fv-strong" }, finding.evidence), el("p", { class: "fv-dim" }, `${finding.reason} (${finding.source})`)));
      if (!nodes.length) nodes.push(el("p", {}, answer.summary));
      if (answer.blame?.words) nodes.push(this.buildBlame(answer.blame));
      nodes.push(el("p", {}, el("b", {}, "Next: "), answer.action));
      if (answer.notes?.length) {
        nodes.push(el("div", { "data-part": "notes" }, el("h3", { class: "fv-strong" }, "Worth knowing"), answer.notes.map((note) =>
          el("div", { class: "fv-finding" }, el("p", { class: "fv-strong" }, note.evidence), el("p", { class: "fv-dim" }, `${note.meaning} (${note.source})`)))));
      }
      if (answer.forecasts) nodes.push(this.buildForecasts(answer));
      this.findings.replaceChildren(...nodes);
    }

    buildBlame({ head, rows, words }) {
      const table = el("div", { class: "fv-scroll fv-blame", tabindex: "0", role: "region", "aria-label": "the modules most to blame" },
        el("table", {}, el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));
      return el("div", { "data-part": "blame" }, el("h3", { class: "fv-strong" }, rows.length ? "Main causes, by factor" : "Main causes"), rows.length ? table : null, el("p", { class: "fv-dim" }, words));
    }

    buildForecasts(answer) {
      const boxes = answer.forecasts.map((forecast) =>
        el("div", { class: "fv-finding" },
          el("p", { class: "fv-word", "data-state": forecast.state }, el("span", { "aria-hidden": "true" }, `${forecast.icon} `), el("b", {}, forecast.title)),
          el("p", { class: "fv-dim" }, forecast.note),
          forecast.reasons.length ? el("ul", { class: "fv-reasons" }, forecast.reasons.map((reason) => el("li", {}, reason))) : null));
      return el("div", { "data-part": "forecasts" }, el("h3", { class: "fv-strong" }, "Will it train?"), boxes, answer.difference ? el("p", { class: "fv-dim" }, answer.difference) : null);
    }

    fillTable() {
      if (!this.details.open || !this.answer || this.filled === this.answer) return;
      this.filled = this.answer;
      const { head, rows } = this.answer.table;
      this.table.replaceChildren(
        el("table", {}, el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, rows.map((row) => el("tr", { onmouseenter: () => this.point(Number(row[0])) }, row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));
    }

    draw(name, figure) {
      const { plot } = this.marks[name];
      if (plot.clientWidth < NARROW && figure.layout.xaxis.dtick) figure.layout.xaxis.dtick *= 2;
      Plotly.react(plot, figure.data, figure.layout, CONFIG);
      if (!plot.dataset.linked) {
        plot.dataset.linked = "1";
        if (name !== "layer") {
          plot.on("plotly_hover", ({ points }) => this.point(Math.round(points[0].x)));
          plot.on("plotly_unhover", () => this.point(null));
          plot.on("plotly_click", ({ points }) => this.onSwitch("layer", Math.round(points[0].x)));
        }
      }
      if (this.layer !== null) this.place(name);
    }

    // --- linking --------------------------------------------------------------------------

    /** Mark a layer in every chart, and say its figures; null marks none. */
    point(layer) {
      const count = this.answer?.layers.length || 0;
      this.layer = layer === null || layer < 1 || layer > count ? null : layer;
      text(this.readout, this.layer === null ? "" : this.answer.layers[this.layer - 1]);
      for (const name of ["gradient", "activation", "factor"]) this.place(name);
    }

    place(name) {
      const { plot, mark } = this.marks[name] || {};
      const full = plot?._fullLayout;
      mark.hidden = this.layer === null || !full?.xaxis;
      if (mark.hidden) return;
      const { l, t, h } = full._size;
      const left = full.xaxis.l2p(this.layer - 0.5);
      const right = full.xaxis.l2p(this.layer + 0.5);
      Object.assign(mark.style, { left: `${l + left}px`, width: `${Math.max(3, right - left)}px`, top: `${t}px`, height: `${h}px` });
    }

    walk(event, name) {
      const count = this.answer?.layers.length || 0;
      const from = this.layer ?? (event.key === "ArrowLeft" ? count + 1 : 0);
      const steps = { ArrowRight: from + 1, ArrowLeft: from - 1, Home: 1, End: count };
      if (name === "layer" || event.target.closest("button, input, summary")) return;
      if (event.key in steps) {
        event.preventDefault();
        this.point(Math.min(count, Math.max(1, steps[event.key])));
      } else if (event.key === "Enter" && this.layer !== null) {
        this.onSwitch("layer", this.layer);
      } else if (event.key === "Escape") {
        this.point(null);
      }
    }

    // --- keeping --------------------------------------------------------------------------

    /** Save a chart as people put it into a document: on white, with its title and setting. */
    async download(name, format) {
      const { plot } = this.marks[name];
      const figure = this.answer?.figures?.[name];
      if (!figure) return;
      const title = [this.panels[name], this.answer.caption].filter(Boolean).join("<br>");
      const layout = structuredClone(figure.layout);
      Object.assign(layout, { paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", width: 900, height: 520, title: { text: title, font: { size: 15 }, x: 0.02, xanchor: "left", y: 0.97 } });
      layout.font = { ...layout.font, color: "#3a4149" };
      layout.margin = { ...layout.margin, t: 92 };
      const url = await Plotly.toImage({ data: figure.data, layout }, { format, width: 900, height: 520, scale: format === "png" ? 2 : 1 });
      const link = el("a", { href: url, download: `chainrule-${name}.${format}` });
      document.body.append(link);
      link.click();
      link.remove();
      plot.dataset.saved = format;
    }
  }

  chainrule.FlowView = FlowView;
})();
