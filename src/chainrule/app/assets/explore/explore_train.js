/* "Train it for real": trains the network on screen, and the pinned one, and shows it as it goes.
 *
 * No number is computed here: /api/train answers a stream of lines (records, words, the end), and
 * this file places them. Leaving or cancelling ends the request, and with it the training.
 */
(() => {
  "use strict";

  const RATES = ["0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3", "1"];
  const DEFAULT_RATE = { sgd: "0.03", adam: "0.001" }; // chainrule.training.DEFAULT_RATES
  const SPOKEN_EVERY = 5000; // milliseconds between two readings of the status
  const ICONS = { trained: "✔", partly: "◐", chance: "✖", diverged: "∞" };
  /** Viridis: from dark to light with equal steps, told apart with any colour vision. */
  const SCALE = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"].map((hex) =>
    [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)),
  );
  const ZERO = [138, 143, 148];
  const MARGIN = { left: 56, right: 12, top: 8, bottom: 36 };
  const SVG = "http://www.w3.org/2000/svg";

  const sup = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
  const write = (value) => {
    if (value === null || value === undefined) return "none";
    const size = Math.abs(value);
    if (value === 0 || (size >= 0.001 && size < 9999.5)) return String(Number(value.toPrecision(3)));
    const [digits, exponent] = value.toExponential(1).split("e");
    return `${digits.replace("-", "−")}·10${sup(Number(exponent))}`;
  };
  const percent = (share) => (share === null ? "none" : `${Math.round(100 * share)} %`);
  const capitalize = (text) => text[0].toUpperCase() + text.slice(1);

  /** The settings of a query in one order, without what does not change the network. */
  const normalize = (query) => {
    const pairs = new URLSearchParams(query || "");
    pairs.delete("seeds");
    pairs.sort();
    return pairs.toString();
  };

  const make = (tag, attributes = {}, text = null) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    return element;
  };
  const draw = (parent, tag, attributes, text = null) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  };

  function mountTrain(element, explore) {
    if (element.dataset.trReady) return;
    element.dataset.trReady = "1";
    new Panel(element, explore).start();
  }

  class Panel {
    constructor(element, explore) {
      this.element = element;
      this.explore = explore;
      this.runs = [];
      this.control = null;
      this.spoken = 0;
      this.pointed = null;
    }

    start() {
      this.element.innerHTML = FRAME;
      this.element.setAttribute("aria-labelledby", "tr-head");
      this.root = this.element.firstElementChild;
      this.$ = (name) => this.root.querySelector(`[data-part="${name}"]`);
      for (const rate of RATES) this.$("rate").append(make("option", { value: rate }, rate));
      this.$("rate").value = DEFAULT_RATE.sgd;
      this.$("optimizer").addEventListener("change", (event) => {
        this.$("rate").value = DEFAULT_RATE[event.target.value];
      });
      this.$("begin").addEventListener("click", () => this.train());
      this.$("cancel").addEventListener("click", () => this.control?.abort());
      this.$("details").addEventListener("toggle", () => this.showTable());
      for (const name of ["loss", "accuracy", "map-0", "map-1"]) {
        this.$(name).addEventListener("pointermove", (event) => this.point(name, event));
        this.$(name).addEventListener("pointerleave", () => this.point(null));
      }
      this.explore.onAnswer?.(() => this.showKey());
      new ResizeObserver(() => this.redraw()).observe(this.root);
      addEventListener("pagehide", () => this.control?.abort());
      this.redraw();
    }

    // --- training ---------------------------------------------------------------------------

    async train() {
      if (this.control) return;
      const control = (this.control = new AbortController());
      const settings = { optimizer: this.$("optimizer").value, learning_rate: this.$("rate").value, steps: this.$("steps").value };
      const [now, pinned] = [this.explore.query() || "", this.explore.pinnedQuery?.() ?? null];
      const compares = pinned !== null && normalize(pinned) !== normalize(now);
      this.steps = Number(settings.steps);
      this.runs = [{ kind: "now", name: "on screen", query: now, records: [] }];
      if (compares) this.runs.push({ kind: "pinned", name: "pinned", query: pinned, records: [] });
      this.point(null);
      this.root.dataset.begun = "1"; // from now on there is something to show
      this.setBusy(true);
      this.$("ends").replaceChildren(...this.runs.map(() => make("p")));
      this.$("progress").max = this.steps * this.runs.length;
      this.$("progress").value = 0;
      this.redraw();
      this.showTable();
      for (const run of this.runs) {
        this.say("working", this.runs.length > 1 ? `Starting: the network ${run.name} …` : "Starting …");
        if (!(await this.follow(run, settings, control))) break;
      }
      this.control = null;
      this.setBusy(false);
      this.redraw();
      this.showTable();
    }

    /** Train one network; whether the next one may follow. */
    async follow(run, settings, control) {
      const query = new URLSearchParams(run.query);
      for (const [name, value] of Object.entries(settings)) query.set(name, value);
      try {
        const answer = await fetch(`/api/train?${query}`, { signal: control.signal, headers: { Accept: "application/x-ndjson" } });
        if (!answer.ok) {
          const body = await answer.json().catch(() => ({}));
          this.say(answer.status === 503 ? "busy" : "error", capitalize(body.error || "The server could not answer."));
          return false;
        }
        for await (const line of readLines(answer.body)) this.hear(run, line);
        if (!run.end) throw new Error("ended early");
        return run.end.type !== "error";
      } catch (error) {
        const step = run.records.at(-1)?.step;
        const where = step === undefined ? "" : ` after step ${step}`;
        if (control.signal.aborted) this.say("cancelled", `Cancelled${where}. The server has stopped too.`);
        else this.say("error", `The connection to the server was lost${where}. Try again.`);
        return false;
      }
    }

    hear(run, line) {
      if (line.type === "start") run.start = line;
      else if (line.type === "queued") this.say("queued", line.status);
      else if (line.type === "step") {
        run.records.push(line);
        const before = this.runs.indexOf(run) * this.steps;
        this.$("progress").value = before + line.step;
        this.say("working", this.runs.length > 1 ? `${capitalize(run.name)}: ${line.status}` : line.status);
      } else {
        run.end = line;
        if (line.type === "error") return this.say("error", line.error);
        const end = this.$("ends").children[this.runs.indexOf(run)];
        Object.assign(end.dataset, { outcome: line.outcome, icon: ICONS[line.outcome] || "", agrees: String(line.agrees) });
        end.textContent = this.runs.length > 1 ? `${capitalize(run.name)}: ${line.sentence}` : line.sentence;
        this.$("progress").value = (this.runs.indexOf(run) + 1) * this.steps;
        const last = run.records.at(-1);
        this.say("done", `${this.runs.length > 1 ? `${capitalize(run.name)}: ` : ""}${last ? last.status : ""}`, line.sentence);
      }
      this.later();
    }

    setBusy(busy) {
      for (const name of ["optimizer", "rate", "steps", "begin"]) this.$(name).disabled = busy;
      this.$("cancel").disabled = !busy;
      if (busy) this.$("cancel").focus({ preventScroll: true });
      else if (document.activeElement === document.body || document.activeElement === this.$("cancel")) this.$("begin").focus({ preventScroll: true });
      this.root.dataset.busy = busy ? "1" : "";
    }

    /** Show the status; it is read out when it becomes another one, and now and then. */
    say(state, text, spoken = text) {
      const status = this.$("status");
      const changed = status.dataset.state !== state;
      status.dataset.state = state;
      status.textContent = text;
      if (!changed && state === "working" && Date.now() - this.spoken < SPOKEN_EVERY) return;
      this.spoken = Date.now();
      this.$("spoken").textContent = spoken;
    }

    // --- drawing ----------------------------------------------------------------------------

    later() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.redraw();
      });
    }

    redraw() {
      this.showKey();
      this.drawCurves("loss");
      this.drawCurves("accuracy");
      this.drawMaps();
    }

    /** Name what the curves are, and say which of it is not on screen any more. */
    showKey() {
      const items = this.runs.map((run) => {
        const item = make("li");
        const sample = draw(item, "svg", { width: 30, height: 10, "aria-hidden": "true" });
        draw(sample, "line", { x1: 0, x2: 30, y1: 5, y2: 5, class: `tr-${run.kind}`, "stroke-width": 2.5 });
        const shown = run.kind === "now" ? this.explore.query() || "" : this.explore.pinnedQuery?.() ?? null;
        const same = shown !== null && normalize(shown) === normalize(run.query);
        const text = make("span", {}, `${this.runs.length > 1 ? `${capitalize(run.name)}: ` : ""}${run.start ? `trained: ${run.start.label}` : "not trained yet"}`);
        if (!same) text.append(" ", make("b", { class: "tr-earlier" }, run.kind === "now" ? "(an earlier configuration, not the one on screen)" : "(no longer the pinned one)"));
        item.append(text);
        return item;
      });
      const text = items.map((item) => item.textContent).join("\n");
      if (this.keyed === text) return;
      this.keyed = text;
      this.$("key").replaceChildren(...items);
    }

    drawCurves(name) {
      const plot = this.$(name);
      const start = this.runs.find((run) => run.start)?.start;
      const values = this.runs.flatMap((run) => run.records.map((record) => record[name])).filter((value) => value !== null);
      const guess = start && (name === "loss" ? start.chance_loss : start.chance);
      const axis = name === "accuracy" ? LINEAR_SHARE : chooseLossAxis(values.concat(guess ?? []));
      const box = this.frame(plot, axis.ticks.map((value) => [axis.place(value), axis.write(value)]));
      if (!box) return;
      const { svg, x, y } = box;
      if (guess !== undefined) {
        const at = y(axis.place(guess));
        draw(svg, "line", { x1: x(0), x2: x(1), y1: at, y2: at, class: "tr-guess" });
      }
      for (const run of this.runs) {
        const points = run.records.filter((record) => record[name] !== null).map((record) => [x(record.step / this.steps), y(axis.place(record[name]))]);
        if (!points.length) continue;
        draw(svg, "path", { d: `M${points.map((point) => point.map((value) => value.toFixed(1)).join(" ")).join("L")}`, class: `tr-${run.kind}` });
        draw(svg, "circle", { cx: points.at(-1)[0], cy: points.at(-1)[1], r: 3, class: `tr-${run.kind}` });
      }
      if (guess !== undefined) {
        const at = y(axis.place(guess));
        const label = name === "loss" ? `guessing: ${write(guess)}` : `chance: ${percent(guess)}`;
        draw(svg, "text", { x: x(1) - 8, y: at + (at < MARGIN.top + 18 ? 18 : -8), "text-anchor": "end", class: "tr-halo" }, label);
      }
      if (this.pointed !== null) draw(svg, "line", { x1: x(this.pointed), x2: x(this.pointed), y1: y(0), y2: y(1), class: "tr-at" });
    }

    /** An empty frame with axes: returns how to place shares of the plot's width and height. */
    frame(plot, ticks, { lines = true } = {}) {
      const [width, height] = [plot.clientWidth, plot.clientHeight];
      if (!width || !height) return null;
      plot.querySelector("svg")?.remove();
      const svg = draw(plot, "svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
      const x = (share) => MARGIN.left + share * (width - MARGIN.left - MARGIN.right);
      const y = (share) => height - MARGIN.bottom - share * (height - MARGIN.top - MARGIN.bottom);
      for (const [at, text] of ticks) {
        if (lines) draw(svg, "line", { x1: x(0), x2: x(1), y1: y(at), y2: y(at), class: "tr-grid" });
        draw(svg, "text", { x: x(0) - 8, y: y(at) + 4, "text-anchor": "end" }, text);
      }
      const steps = this.steps || Number(this.$("steps").value);
      for (const [share, anchor] of [[0, "middle"], [0.5, "middle"], [1, "end"]]) {
        draw(svg, "text", { x: x(share), y: height - MARGIN.bottom + 16, "text-anchor": anchor }, `${steps * share}${share === 1 ? " steps" : ""}`);
      }
      return { svg, x, y };
    }

    drawMaps() {
      const norms = this.runs.flatMap((run) => run.records.flatMap((record) => record.norms));
      const logs = norms.filter((norm) => norm > 0).map(Math.log10);
      let [low, high] = [Infinity, -Infinity];
      for (const log of logs) [low, high] = [Math.min(low, log), Math.max(high, log)];
      [low, high] = logs.length ? [Math.floor(low), Math.max(Math.ceil(high), Math.floor(low) + 1)] : [-3, 0];
      this.$("maps").dataset.runs = String(Math.max(this.runs.length, 1));
      this.$("legend").style.visibility = norms.length ? "visible" : "hidden";
      for (const index of [0, 1]) this.drawMap(index, low, high);
      const [from, to, zero] = ["from", "to", "zero"].map((name) => this.$(name));
      from.textContent = `10${sup(low)}`;
      to.textContent = `10${sup(high)}`;
      zero.style.visibility = norms.includes(0) ? "visible" : "hidden";
    }

    drawMap(index, low, high) {
      const plot = this.$(`map-${index}`);
      const run = this.runs[index];
      this.$(`map-title-${index}`).textContent = this.runs.length > 1 ? `Gradient of every layer: ${run?.name ?? ""}` : "Gradient of every layer";
      if (index && !run) return;
      const layers = run?.start?.layers ?? 1;
      const shown = [...new Set([1, Math.round((1 + layers) / 2), layers])];
      const ticks = run?.start ? shown.map((layer) => [(layer - 0.5) / layers, `layer ${layer}`]) : [];
      const box = this.frame(plot, ticks, { lines: false });
      if (!box) return;
      const canvas = plot.querySelector("canvas") || plot.insertBefore(make("canvas", { "aria-hidden": "true" }), plot.firstChild);
      const columns = run?.start ? Math.ceil(run.start.steps / run.start.every) + 1 : 1;
      if (canvas.width !== columns || canvas.height !== layers) [canvas.width, canvas.height] = [columns, layers];
      Object.assign(canvas.style, { left: `${box.x(0)}px`, top: `${box.y(1)}px`, width: `${box.x(1) - box.x(0)}px`, height: `${box.y(0) - box.y(1)}px` });
      const context = canvas.getContext("2d");
      const image = context.createImageData(columns, layers);
      (run?.records ?? []).forEach((record, column) => {
        record.norms.forEach((norm, layer) => {
          if (norm === null || column >= columns) return;
          const color = norm === 0 ? ZERO : shade((Math.log10(norm) - low) / (high - low));
          image.data.set([...color, 255], 4 * ((layers - 1 - layer) * columns + column));
        });
      });
      context.putImageData(image, 0, 0);
      if (this.pointed !== null) draw(box.svg, "line", { x1: box.x(this.pointed), x2: box.x(this.pointed), y1: box.y(0), y2: box.y(1), class: "tr-at" });
    }

    /** Say what the pictures show where the pointer is. */
    point(name, event) {
      const before = this.pointed;
      const readout = this.$("readout");
      this.pointed = null;
      readout.textContent = HINT;
      if (name && this.runs.some((run) => run.records.length)) {
        const plot = this.$(name).getBoundingClientRect();
        const share = (event.clientX - plot.left - MARGIN.left) / (plot.width - MARGIN.left - MARGIN.right);
        const height = 1 - (event.clientY - plot.top - MARGIN.top) / (plot.height - MARGIN.top - MARGIN.bottom);
        if (share >= 0 && share <= 1) {
          this.pointed = share;
          readout.textContent = this.runs.map((run) => this.describe(run, share, name.startsWith("map") ? height : null)).filter(Boolean).join(" · ");
        }
      }
      if (this.pointed !== before) this.later();
    }

    describe(run, share, height) {
      const last = run.start ? Math.ceil(run.start.steps / run.start.every) : 0;
      // A curve has a point per record, a heatmap a column.
      const record = run.records[height === null ? Math.round(share * last) : Math.min(Math.floor(share * (last + 1)), last)];
      if (!record) return "";
      const who = this.runs.length > 1 ? `${capitalize(run.name)}, after` : "After";
      if (height === null) return `${who} ${record.step} steps: loss ${write(record.loss)}, ${percent(record.accuracy)} right`;
      const layer = Math.min(Math.max(Math.ceil(height * record.norms.length), 1), record.norms.length);
      return `${who} ${record.step} steps, layer ${layer}: ‖∂𝓛/∂W‖ = ${write(record.norms[layer - 1])}`;
    }

    showTable() {
      if (!this.$("details").open) return;
      const tables = this.runs.filter((run) => run.start).map((run) => {
        const table = make("table");
        table.append(make("caption", {}, `${this.runs.length > 1 ? `${capitalize(run.name)}: ` : ""}${run.start.label}`));
        const clips = run.records.some((record) => record.clipped !== record.total);
        const heads = ["step", "loss", "right", "‖∂𝓛/∂W‖ layer 1", `layer ${run.start.layers}`, "smallest", "largest", "all parameters", ...(clips ? ["after clipping"] : [])];
        const head = make("tr");
        for (const text of heads) head.append(make("th", { scope: "col" }, text));
        table.append(make("thead"), make("tbody"));
        table.tHead.append(head);
        for (const record of run.records) {
          const row = make("tr");
          row.append(make("th", { scope: "row" }, String(record.step)));
          const norms = record.norms.filter((norm) => norm !== null);
          const [least, most] = norms.length ? [Math.min(...norms), Math.max(...norms)] : [null, null];
          const cells = [write(record.loss), percent(record.accuracy), write(record.norms[0]), write(record.norms.at(-1)), write(least), write(most), write(record.total)];
          if (clips) cells.push(write(record.clipped));
          for (const text of cells) row.append(make("td", {}, text));
          table.tBodies[0].append(row);
        }
        return table;
      });
      this.$("tables").replaceChildren(...(tables.length ? tables : [make("p", { class: "tr-dim" }, "Nothing is trained yet.")]));
    }
  }

  async function* readLines(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line) yield JSON.parse(line);
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  const LINEAR_SHARE = { ticks: [0, 0.25, 0.5, 0.75, 1], place: (value) => value, write: percent };

  /** Linear from zero; logarithmic where the values span more than two powers of ten. */
  function chooseLossAxis(values) {
    const finite = values.filter((value) => Number.isFinite(value));
    const high = finite.length ? Math.max(...finite) : 3;
    const positive = finite.filter((value) => value > 0);
    const low = positive.length ? Math.min(...positive) : high;
    if (high > 30 && high / low > 100) {
      const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
      const stride = Math.max(1, Math.ceil((to - from) / 4));
      const ticks = [];
      for (let exponent = from; exponent <= to; exponent += stride) ticks.push(10 ** exponent);
      return { ticks, place: (value) => (Math.log10(Math.max(value, 10 ** from)) - from) / (to - from), write: (value) => `10${sup(Math.round(Math.log10(value)))}` };
    }
    const stride = [0.5, 1, 2, 5, 10, 20, 50].find((size) => size * 5 >= high) || 10 ** Math.ceil(Math.log10(high / 5));
    const top = Math.max(stride * Math.ceil(high / stride), stride);
    const ticks = [];
    for (let tick = 0; tick <= top; tick += stride) ticks.push(tick);
    return { ticks, place: (value) => value / top, write: (value) => String(Number(value.toPrecision(3))) };
  }

  function shade(share) {
    const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1);
    const index = Math.min(Math.floor(at), SCALE.length - 2);
    return [0, 1, 2].map((part) => Math.round(SCALE[index][part] + (at - index) * (SCALE[index + 1][part] - SCALE[index][part])));
  }

  const HINT = "Point at a picture to read its numbers; all of them are in the table below.";
  const FRAME = `<div class="tr">
  <h2 id="tr-head">Train it for real</h2>
  <p class="tr-dim">The network on screen learns to read handwritten digits (scikit-learn’s 1797 images of 8 × 8 pixels), with a fresh layer of 10 outputs on top. It runs on the server, one training at a time. If a network is pinned, that one is trained too, after it.</p>
  <div class="tr-fields">
    <label>optimizer<select data-part="optimizer"><option value="sgd">SGD</option><option value="adam">Adam</option></select></label>
    <label>learning rate<select data-part="rate"></select></label>
    <label>steps<select data-part="steps"><option>100</option><option selected>300</option><option>600</option></select></label>
    <button class="tr-primary" type="button" data-part="begin">Train</button><button type="button" data-part="cancel" disabled>Cancel</button>
  </div>
  <progress data-part="progress" max="1" value="0" aria-label="progress of the training"></progress>
  <p class="tr-status" data-part="status">Nothing is trained yet.</p>
  <p class="tr-hidden" data-part="spoken" aria-live="polite"></p>
  <div class="tr-ends" data-part="ends"><p></p></div>
  <ul class="tr-key" data-part="key"></ul>
  <div class="tr-charts">
    <div><h3>Loss, on each batch</h3><div class="tr-plot" data-part="loss"></div></div>
    <div><h3>Accuracy on the training images</h3><div class="tr-plot" data-part="accuracy"></div></div>
  </div>
  <div class="tr-charts tr-maps" data-part="maps" data-runs="1">
    <div><h3 data-part="map-title-0">Gradient of every layer</h3><div class="tr-plot tr-map" data-part="map-0"></div></div>
    <div><h3 data-part="map-title-1"></h3><div class="tr-plot tr-map" data-part="map-1"></div></div>
  </div>
  <div class="tr-legend" data-part="legend"><span>‖∂𝓛/∂W‖</span><span data-part="from"></span><i style="background:linear-gradient(90deg,#440154,#472d7b,#3b528b,#2c728e,#21918c,#28ae80,#5ec962,#addc30,#fde725)"></i><span data-part="to"></span><span data-part="zero"><i class="tr-zero"></i> zero</span></div>
  <p class="tr-readout" data-part="readout">${HINT}</p>
  <p class="tr-dim tr-later">While it runs, the accuracy is that of every fifth image; at the end, of all of them.</p>
  <details data-part="details"><summary>The numbers as a table</summary><div class="tr-scroll" data-part="tables" tabindex="0" role="region" aria-label="numbers of the training"></div></details>
</div>`;

  window.chainrule = window.chainrule || {};
  window.chainrule.mountTrain = mountTrain;
})();
