/* The chain-rule page: asks the server for a chain, draws it, and links graph, equation and chart.
 *
 * No number is computed here: values, factors, lines of the derivation and the graph come from
 * /api/…; this file places them, lights what belongs together, and sends edits back.
 * Everything that stands for a factor carries its id in data-factor (several, where it stands for
 * several), so lighting is one query for all of graph, equation and chart.
 */
(() => {
  "use strict";

  const START = { x: 1, weights: [0.5, -2, 1.5], biases: null, activation: "sigmoid", wrt: "w1" };
  const MAX_LAYERS = 50;
  const SHOWN_VALUES = 12;
  const FALLBACK = { weight: 1, bias: 0 };

  /** The guided walk: each step sets the real controls and hands them over. */
  const WALK = [
    {
      title: "One layer",
      text: "Start at the right of the graph. p is the output, and its gradient with respect to itself is 1. Going left, each edge multiplies what arrives by its local derivative. Change w₁ and watch the product follow.",
      state: { x: 1, weights: [0.5], activation: "sigmoid", wrt: "w1" },
    },
    {
      title: "Two layers",
      text: "One more layer is two more factors: a weight, and the slope of an activation. Hover a factor in the equation and see which edge it is.",
      state: { x: 1, weights: [0.5, -2], activation: "sigmoid", wrt: "w1" },
    },
    {
      title: "Three layers",
      text: "The graph grows sideways, but the equation stays one product. Step through it backwards: every σ′ keeps less than a quarter.",
      state: { x: 1, weights: [0.5, -2, 1.5], activation: "sigmoid", wrt: "w1" },
    },
    {
      title: "Many layers",
      text: "Thirty layers with weights of 1. The middle is folded away because it says nothing new: again and again a number below 1. Look at the value of the product.",
      state: { x: 1, weights: Array(30).fill(1), activation: "sigmoid", wrt: "w1" },
    },
    {
      title: "When is it large enough?",
      text: "Each layer multiplies by w times at most a quarter. Below, move |w| until the dashed line, the best case, no longer falls. Where is that?",
      state: { x: 1, weights: Array(30).fill(1), activation: "sigmoid", wrt: "w1" },
      goto: "depth",
      reveal: "At |w| = 4: a quarter of 4 is 1. Even there only the best case survives; the chain's own slopes are smaller. That is why deep sigmoid networks vanish.",
    },
  ];

  const esc = (text) =>
    String(text).replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
  /** A number given by its decimal logarithm, as people write it. */
  const power = (log) => {
    if (Math.abs(log) < 3) return String(Number((10 ** log).toPrecision(3)));
    const exponent = Math.floor(log);
    return `${(10 ** (log - exponent)).toPrecision(2)} × 10${sup(exponent)}`;
  };
  const tick = (t) => (Math.abs(t) < 1e6 ? `10${sup(t)}` : `10^${t.toExponential(0)}`);
  const sub = (n) => String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
  const sup = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);

  function boot(root) {
    if (root.dataset.ready) return;
    root.dataset.ready = "1";
    new Page(root).start();
  }

  class Page {
    constructor(root) {
      this.root = root;
      this.activations = root.dataset.activations.split(",").map((entry) => entry.split(":"));
      this.state = readAddress(this.activations);
      const walk = Math.round(Number(new URLSearchParams(location.search).get("walk"))) || 0;
      this.walk = Math.max(0, Math.min(WALK.length, walk));
      this.step = null;
      this.unfolded = false;
      this.requests = {};
      this.before = {};
    }

    start() {
      this.root.innerHTML = frame(this.activations);
      this.$ = (name) => this.root.querySelector(`[data-part="${name}"]`);
      this.listen();
      if (this.walk && !new URLSearchParams(location.search).has("weights")) {
        this.state = { ...START, biases: null, ...structuredClone(WALK[this.walk - 1].state) };
      }
      this.showWalk();
      this.refresh();
      this.refreshDepth();
      this.refreshRecurrence();
      this.refreshNetwork();
      let drawn = innerWidth;
      addEventListener("resize", () => {
        if (innerWidth === drawn || !this.chain) return;
        drawn = innerWidth;
        this.showFactors();
        this.shade();
        this.refreshDepth();
        this.refreshRecurrence();
        this.refreshNetwork();
      });
      addEventListener("popstate", () => {
        this.state = readAddress(this.activations);
        this.refresh({ push: false });
      });
    }

    // --- asking the server ------------------------------------------------------------------

    /** Ask for something; an answer that a newer question has overtaken is dropped. */
    async ask(path, query) {
      this.requests[path]?.abort();
      const control = (this.requests[path] = new AbortController());
      try {
        const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { signal: control.signal });
        const body = await answer.json();
        return answer.ok ? body : { error: body.error || "The server could not answer." };
      } catch (error) {
        return error.name === "AbortError" ? null : { error: "The server does not answer." };
      }
    }

    async refresh({ push = true } = {}) {
      const query = toQuery(this.state);
      if (push) history.replaceState(null, "", `?${new URLSearchParams({ ...query, ...this.extra() })}`);
      this.showControls();
      const answer = await this.ask("/api/chain", query);
      if (!answer) return;
      this.$("error").textContent = answer.error || "";
      if (answer.error) return;
      this.chain = answer;
      this.step = null;
      this.showChain();
      if (this.focusLater) this.focusOn(this.focusLater);
      this.focusLater = null;
      this.root.dataset.shown = JSON.stringify(query);
    }

    extra() {
      const kept = Object.fromEntries(
        [...new URLSearchParams(location.search)].filter(([key]) => ["depth", "width", "init", "residual", "normalization", "weight_std", "bias_std", "distribution", "seed", "batch_size", "network_activation"].includes(key)),
      );
      return this.walk ? { ...kept, walk: this.walk } : kept;
    }

    // --- controls ---------------------------------------------------------------------------

    showControls() {
      const { weights, biases, activation, wrt, x } = this.state;
      setValue(this.$("layers"), weights.length);
      setValue(this.$("layers-range"), weights.length);
      setValue(this.$("activation"), activation);
      this.$("biased").checked = Boolean(biases);
      this.$("equal").checked = weights.every((w) => w === weights[0]) && weights.length > SHOWN_VALUES ? true : this.equal || false;
      const letters = ["x", ...weights.map((_, i) => `w${i + 1}`), ...(biases || []).map((_, i) => `b${i + 1}`)];
      const select = this.$("wrt");
      if (select.dataset.names !== letters.join()) {
        select.dataset.names = letters.join();
        select.innerHTML = letters.map((name) => `<option value="${name}">${name[0]}${sub(name.slice(1))}</option>`).join("");
      }
      setValue(select, wrt);
      const shared = weights.length > SHOWN_VALUES || this.$("equal").checked;
      const names = ["x", ...(shared ? ["w"] : letters.slice(1, weights.length + 1))];
      if (biases) names.push(...(shared ? ["b"] : biases.map((_, i) => `b${i + 1}`)));
      const box = this.$("values");
      if (box.dataset.names !== names.join()) {
        box.dataset.names = names.join();
        box.innerHTML = names.map((name) => valueField(name)).join("");
      }
      for (const name of names) {
        for (const input of box.querySelectorAll(`[data-name="${name}"]`)) setValue(input, this.read(name, x));
      }
    }

    read(name) {
      if (name === "x") return this.state.x;
      const list = name[0] === "w" ? this.state.weights : this.state.biases;
      return list[name.length > 1 ? Number(name.slice(1)) - 1 : 0];
    }

    /** Set one value; "w" and "b" alone mean all layers. */
    write(name, value) {
      if (!Number.isFinite(value)) return;
      const state = structuredClone(this.state);
      if (/^[wb]\d/.test(name) && this.$("equal").checked) name = name[0]; // stay the same everywhere
      if (name === "x") state.x = value;
      else {
        const list = name[0] === "w" ? state.weights : (state.biases ||= state.weights.map(() => FALLBACK.bias));
        if (name.length === 1) list.fill(value);
        else list[Number(name.slice(1)) - 1] = value;
      }
      this.state = state;
      this.refresh();
    }

    resize(count) {
      const layers = Math.max(1, Math.min(MAX_LAYERS, Math.round(count) || 1));
      const state = structuredClone(this.state);
      // Typing "12" passes through 1 layer: values of layers that were there before come back.
      const grow = (key, fallback) => {
        const list = state[key];
        this.before[key] = [...list, ...(this.before[key] || []).slice(list.length)];
        const kept = this.$("equal").checked ? [] : this.before[key];
        return Array.from({ length: layers }, (_, i) => list[i] ?? kept[i] ?? (this.$("equal").checked ? list[0] : fallback));
      };
      state.weights = grow("weights", FALLBACK.weight);
      if (state.biases) state.biases = grow("biases", FALLBACK.bias);
      if (Number(state.wrt.slice(1)) > layers) state.wrt = "w1";
      this.state = state;
      this.refresh();
    }

    listen() {
      const root = this.root;
      root.addEventListener("input", (event) => {
        const { part, name } = event.target.dataset;
        const value = event.target.valueAsNumber;
        if (name && !event.target.closest(".cr-edit")) this.write(name, value);
        else if (part === "layers" || part === "layers-range") { if (value >= 1) this.resize(value); }
        else if (part === "equal") {
          this.equal = event.target.checked;
          if (this.equal) this.write("w", this.state.weights[0]);
          else this.showControls();
        } else if (part === "biased") {
          this.state = { ...this.state, biases: event.target.checked ? this.state.weights.map(() => FALLBACK.bias) : null };
          if (!this.state.biases && this.state.wrt[0] === "b") this.state.wrt = "w1";
          this.refresh();
        } else if (part === "activation" || part === "wrt") {
          this.state = { ...this.state, [part]: event.target.value };
          this.refresh();
        } else if (part?.startsWith("depth-")) this.refreshDepth(event.target);
        else if (part?.startsWith("rnn-")) this.refreshRecurrence(event.target);
      });
      root.addEventListener("change", (event) => {
        // A box that is left shows what is in force, whatever was typed.
        const { name, part } = event.target.dataset;
        if (event.target.type !== "number" || event.target.closest(".cr-edit")) return;
        if (name) event.target.value = this.read(name);
        else if (part === "layers") event.target.value = this.state.weights.length;
      });
      root.addEventListener("click", (event) => {
        const button = event.target.closest("button[data-do]");
        if (button) return this.act(button.dataset.do);
        const editable = this.findEditable(event.target);
        if (editable) this.edit(editable, event.target);
      });
      root.addEventListener("focusin", (event) => this.bringIntoSight(event.target));
      for (const [on, off] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
        root.addEventListener(on, (event) => this.light(event.target.closest?.("[data-factor]")));
        root.addEventListener(off, () => this.light(null));
      }
      root.addEventListener("keydown", (event) => this.press(event));
    }

    press(event) {
      if (event.target.closest('[data-part="steps"]') && ["ArrowLeft", "ArrowRight", " "].includes(event.key)) {
        if (event.key === " " && event.target.tagName === "BUTTON") return;
        event.preventDefault();
        this.act({ ArrowLeft: "back", ArrowRight: "next", " ": "play" }[event.key]);
        return;
      }
      const factor = event.target.closest("[data-factor][tabindex]");
      if (!factor) return;
      const row = factor.closest("[data-row]"); // the graph has none: there, Tab goes on
      if (row && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
        const all = [...row.querySelectorAll("[data-factor][tabindex]")];
        const next = all[all.indexOf(factor) + (event.key === "ArrowRight" ? 1 : -1)];
        if (next) {
          all.forEach((entry) => entry.setAttribute("tabindex", entry === next ? "0" : "-1"));
          next.focus();
          event.preventDefault();
        }
      } else if (event.key === "Enter") {
        const editable = this.findEditable(factor);
        if (editable) { event.preventDefault(); this.edit(editable, factor); }
      }
    }

    async act(name) {
      const count = this.chain?.factors.length || 0;
      if (name === "next") this.showStep(Math.min((this.step ?? 0) + 1, count));
      else if (name === "back") this.showStep(Math.max((this.step ?? count) - 1, 0));
      else if (name === "reset") this.showStep(null);
      else if (name === "play") this.play();
      else if (name === "fold") { this.unfolded = !this.unfolded; this.showEquation(); }
      else if (name === "copy") this.copy();
      else if (name === "svg") this.download();
      else if (name === "walk-next" || name === "walk-back") this.go(this.walk + (name === "walk-next" ? 1 : -1));
      else if (name === "reveal" || name === "reveal-here") {
        this.$("reveal").hidden = false;
        this.hideAnswer = this.$("depth-sentence").hidden = false;
        this.$("depth-task").textContent = this.$("reveal").textContent;
      }
    }

    // --- drawing ----------------------------------------------------------------------------

    showChain() {
      if (this.timer) this.pause();
      this.$("graph").innerHTML = this.chain.svg;
      const drawn = this.$("graph").querySelector("svg").viewBox.baseVal;
      this.root.querySelector(".cr-graph").classList.toggle("cr-low", drawn.height <= 400);
      for (const node of this.$("graph").querySelectorAll(".node.weight, .node.bias, .node.input")) {
        node.setAttribute("tabindex", "0");
        node.setAttribute("role", "button");
        const name = node.querySelector("title")?.textContent || node.dataset.node;
        node.setAttribute("aria-label", `change ${name}`);
      }
      this.$("graph").querySelectorAll(".edge[data-factor]").forEach((edge) => edge.setAttribute("tabindex", "0"));
      this.showEquation();
      this.showFactors();
      this.showStep(null);
      const { erratum } = this.chain;
      this.$("erratum-card").hidden = !erratum;
      if (erratum) {
        this.$("erratum").innerHTML = `<p>${esc(erratum.sentence)}</p>` +
          `<table><thead><tr><th scope="col">layer</th><th scope="col">h(1 − h)</th><th scope="col">z(1 − z)</th></tr></thead><tbody>` +
          erratum.layers.slice(0, SHOWN_VALUES).map((l) => `<tr><td>${l.layer}</td><td>${esc(l.right.text)}</td><td>${esc(l.wrong.text)}</td></tr>`).join("") +
          `</tbody></table>`;
      }
      this.$("range").textContent = this.chain.range_note || "";
    }

    showEquation() {
      const folds = this.chain.lines.some((line) => line.unfolded);
      const button = this.root.querySelector('[data-do="fold"]');
      button.hidden = !folds;
      button.textContent = this.unfolded ? "Fold the middle" : "Show all factors";
      button.setAttribute("aria-pressed", String(this.unfolded));
      const labels = new Map(this.chain.factors.map((f) => [f.id, `${f.short} = ${f.value.text}`]));
      const left = this.chain.hidden_lines;
      const visible = this.chain.lines.filter((line) => !line.hidden || (this.unfolded && folds));
      const gap = left && visible.length < left + this.chain.lines.filter((line) => !line.hidden).length;
      const at = gap ? visible.findIndex((line, i) => i && line.number > visible[i - 1].number + 1) : -1;
      this.$("lines").innerHTML = visible
        .map((line, index) => {
          const skipped = index === at ? `<li class="cr-note">⋯ ${left} more lines, each with one more intermediate variable ⋯</li>` : "";
          const shown = this.unfolded && line.unfolded ? line.unfolded : line;
          return `${skipped}<li data-row data-kind="${line.kind}"><span class="cr-note">${esc(line.note)}</span><div class="cr-scroll" tabindex="-1">${shown.mathml}</div></li>`;
        })
        .join("");
      for (const row of this.$("lines").querySelectorAll('li[data-kind="product"], li[data-kind="formulas"], li[data-kind="numbers"]')) {
        row.querySelectorAll(".factor[data-factor]").forEach((factor, index) => {
          factor.setAttribute("tabindex", index ? "-1" : "0");
          factor.setAttribute("role", "button");
          factor.setAttribute("aria-label", labels.get(factor.dataset.factor) || factor.textContent);
        });
        // A formula's parts are nothing to assistive technology; a group's can be reached.
        row.querySelector("math")?.setAttribute("role", "group");
        row.querySelector("math")?.setAttribute("aria-label", "factors of the product");
      }
      this.shade();
    }

    showFactors() {
      const { factors } = this.chain;
      this.$("factors").innerHTML = factorChart(factors, widthOf(this.$("factors")));
      this.$("factor-table").innerHTML =
        `<thead><tr><th scope="col">factor</th><th scope="col">formula</th><th scope="col">value</th><th scope="col">product so far</th></tr></thead><tbody>` +
        factors.map((f) => `<tr><td>${esc(f.short)}</td><td>${esc(f.substituted)}</td><td>${esc(f.value.text)}</td><td>${esc(f.running_product.text)}</td></tr>`).join("") +
        `</tbody>`;
    }

    /** Show the backward pass up to a step: 0 is before the first factor, `null` all of it. */
    showStep(step) {
      const { factors, gradient, subject } = this.chain;
      this.step = step;
      const done = step ?? factors.length;
      const factor = done > 0 ? factors[done - 1] : null;
      this.$("step-count").textContent = `${done} of ${factors.length} factors`;
      this.$("step-product").textContent = factor ? factor.running_product.text : "1";
      this.$("step-sentence").textContent =
        step === null
          ? `The whole product: ${subject.text} = ${gradient.text}.`
          : factor ? `${factor.sentence}.` : "∂p/∂p = 1: the backward pass starts at the output.";
      // Not `disabled`: that would take the keyboard's place away at either end.
      const mark = (name, off) => this.root.querySelector(`[data-do="${name}"]`).setAttribute("aria-disabled", String(off));
      mark("next", step !== null && done >= factors.length);
      mark("back", done <= 0);
      this.shade();
      if (step !== null && factor) this.lightIds(new Set([factor.id]));
      else this.lightIds(new Set());
    }

    /** Pale what the stepped backward pass has not reached yet. */
    shade() {
      const later = new Set(this.step === null ? [] : this.chain.factors.slice(this.step).map((f) => f.id));
      for (const entry of this.root.querySelectorAll(".factor[data-factor], .bar[data-factor]")) {
        entry.classList.toggle("later", later.has(entry.dataset.factor));
      }
    }

    play() {
      if (this.timer) return this.pause();
      const button = this.root.querySelector('[data-do="play"]');
      button.textContent = "Pause";
      button.setAttribute("aria-pressed", "true");
      const count = this.chain.factors.length;
      if (this.step === null || this.step >= count) this.showStep(0);
      this.timer = setInterval(() => {
        if (this.hovering) return;
        if (this.step >= count) return this.pause();
        this.showStep(this.step + 1);
      }, 1100);
    }

    pause() {
      clearInterval(this.timer);
      this.timer = null;
      const button = this.root.querySelector('[data-do="play"]');
      button.textContent = "Play";
      button.setAttribute("aria-pressed", "false");
    }

    // --- linking ----------------------------------------------------------------------------

    light(element) {
      this.hovering = Boolean(element);
      element ||= document.activeElement?.closest?.("#chain-root [data-factor]");
      const ids = element ? element.dataset.factor.split(" ").filter(Boolean) : this.step ? [this.chain.factors[this.step - 1].id] : [];
      this.lightIds(new Set(ids));
    }

    lightIds(ids) {
      for (const entry of this.root.querySelectorAll("[data-factor]")) {
        const own = entry.dataset.factor.split(" ");
        entry.classList.toggle("lit", ids.size > 0 && own.some((id) => ids.has(id)));
      }
    }

    /** Scroll so that neither the header nor the graph that stays in sight lies over what has the focus. */
    bringIntoSight(focused) {
      const card = this.root.querySelector(".cr-graph");
      if (card.contains(focused)) return;
      const follows = card.compareDocumentPosition(focused) & Node.DOCUMENT_POSITION_FOLLOWING;
      const stays = getComputedStyle(card).position === "sticky" && follows;
      const over = stays ? Math.max(64, card.getBoundingClientRect().bottom) : 64;
      const { top } = focused.getBoundingClientRect();
      if (top < over) scrollBy({ top: top - over - 8, behavior: "instant" });
    }

    // --- editing in place -------------------------------------------------------------------

    /** Return the variable that a node of the graph or a factor of the equation stands for. */
    findEditable(target) {
      const node = target.closest?.(".node.weight, .node.bias, .node.input");
      if (node) return node.dataset.node;
      const term = target.closest?.("math .factor[data-factor]");
      const factor = term && this.chain.factors.find((f) => f.id === term.dataset.factor);
      if (!factor) return null;
      if (factor.kind === "weight") return `w${factor.layer}`;
      return factor.kind === "input" && factor.layer === 1 ? "x" : null;
    }

    edit(name, target) {
      this.root.querySelector(".cr-edit")?.remove();
      const form = document.createElement("form");
      form.className = "cr-edit";
      form.innerHTML = `<label>${name[0]}${sub(name.slice(1))} <input type="number" step="any" required value="${this.read(name)}" aria-label="new value of ${name}"></label><button class="cr-primary">Set</button>`;
      const box = target.getBoundingClientRect();
      document.body.scrollLeft = 0;
      form.style.left = `${Math.max(8, Math.min(box.left, innerWidth - 260)) + scrollX}px`;
      form.style.top = `${box.bottom + 6 + scrollY}px`;
      form.style.position = "absolute";
      this.root.append(form);
      const offset = form.offsetParent?.getBoundingClientRect();
      if (offset && form.offsetParent !== document.body) {
        form.style.left = `${Math.max(8, Math.min(box.left, innerWidth - 260)) - offset.left}px`;
        form.style.top = `${box.bottom + 6 - offset.top}px`;
      }
      const input = form.querySelector("input");
      let open = true;
      const close = ({ refocus = true } = {}) => {
        if (!open) return; // removing the form takes the focus from it, which closes it again
        open = false;
        form.remove();
        if (refocus) this.focusOn(name);
      };
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        const value = input.valueAsNumber;
        close();
        this.focusLater = name;
        this.write(name, value);
      });
      form.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
      form.addEventListener("focusout", (event) => {
        if (!form.contains(event.relatedTarget)) close({ refocus: false });
      });
      input.focus();
      input.select();
    }

    /** Give the keyboard back to where a variable was edited. */
    focusOn(name) {
      this.$("graph").querySelector(`[data-node="${CSS.escape(name)}"]`)?.focus();
    }

    // --- taking along -----------------------------------------------------------------------

    async copy() {
      const button = this.root.querySelector('[data-do="copy"]');
      try {
        await navigator.clipboard.writeText(this.chain.latex);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Could not copy";
      }
      setTimeout(() => (button.textContent = "Copy LaTeX"), 1500);
    }

    download() {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([this.chain.svg], { type: "image/svg+xml" }));
      link.download = "chain.svg";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    // --- the walk ---------------------------------------------------------------------------

    go(number) {
      this.walk = Math.max(1, Math.min(WALK.length, number));
      const { state, goto } = WALK[this.walk - 1];
      this.equal = state.weights.length > SHOWN_VALUES;
      this.state = { ...START, biases: null, ...structuredClone(state) };
      this.showWalk();
      this.refresh();
      if (goto) {
        setValue(this.$("depth-w"), 1);
        setValue(this.$("depth-w-range"), 1);
        setValue(this.$("depth-activation"), "sigmoid");
        this.refreshDepth();
        this.$("depth-card").scrollIntoView({ block: "center", behavior: "instant" });
      }
    }

    showWalk() {
      const at = WALK[this.walk - 1];
      this.$("walk-title").textContent = at ? `${this.walk} of ${WALK.length}: ${at.title}` : "A guided walk in five steps";
      this.$("walk-text").textContent = at ? at.text : "From one layer to many, with the controls in your hands at every step.";
      this.root.querySelector('[data-do="walk-next"]').textContent = at ? "Next" : "Start";
      this.root.querySelector('[data-do="walk-next"]').disabled = this.walk >= WALK.length;
      this.root.querySelector('[data-do="walk-back"]').disabled = this.walk <= 1;
      this.root.querySelector('[data-do="reveal"]').hidden = !at?.reveal;
      this.$("depth-task").hidden = at?.goto !== "depth";
      this.$("depth-task").innerHTML = at?.goto === "depth" ? `<strong>${this.walk} of ${WALK.length}.</strong> ${esc(at.text)} <button data-do="reveal-here">Show the answer</button>` : "";
      this.hideAnswer = at?.goto === "depth";
      this.$("depth-sentence").hidden = this.hideAnswer;
      this.$("reveal").hidden = true;
      this.$("reveal").textContent = at?.reveal || "";
    }

    // --- depth, recurrence, the real network -----------------------------------------------------

    async refreshDepth(source) {
      const [box, range] = [this.$("depth-w"), this.$("depth-w-range")];
      if (source === range) box.value = range.value;
      else if (source === box && box.value !== "") range.value = box.value;
      const answer = await this.ask("/api/depth", { w: box.value || "1", activation: this.$("depth-activation").value, depth: 50 });
      if (!answer) return;
      this.$("depth-sentence").textContent = answer.error || answer.sentence;
      // In the walk, people find the threshold before they read it.
      if (answer.error || Math.abs(Number(box.value)) >= answer.threshold) this.hideAnswer = false;
      this.$("depth-sentence").hidden = Boolean(this.hideAnswer);
      if (answer.error) return;
      const line = (list) => list.map((p, i) => [i + 1, p.log10]);
      this.$("depth-chart").innerHTML = lineChart({
        width: widthOf(this.$("depth-chart")),
        label: `Running product over 1 to 50 layers; at 50 layers ${answer.products.at(-1).text}, in the best case ${answer.best.at(-1).text}.`,
        x: "layers",
        band: [-1, 1],
        series: [
          { name: "this chain", color: "var(--cr-shrinks)", points: line(answer.products) },
          { name: "best case: |w| times the largest |φ′|", color: "var(--cr-grows)", dash: "6 5", points: line(answer.best) },
        ],
      });
      this.$("depth-end").textContent = `After 50 layers: ${answer.products.at(-1).text}, in the best case ${answer.best.at(-1).text}.`;
    }

    async refreshRecurrence(source) {
      const [box, range] = [this.$("rnn-w"), this.$("rnn-w-range")];
      if (source === range) box.value = range.value;
      else if (source === box && box.value !== "") range.value = box.value;
      const clip = this.$("rnn-clip").value;
      const answer = await this.ask("/api/recurrence", {
        w: box.value || "1", steps: this.$("rnn-steps").value || "20", activation: this.$("rnn-activation").value, x: "0.1", ...(clip ? { clip } : {}),
      });
      if (!answer) return;
      this.$("rnn-sentence").textContent = answer.error ||
        `∂p/∂w, summed over all uses of w, is ${answer.gradient.text}` +
        (clip ? `; clipping multiplies it by ${answer.clip_factor.text}, to ${answer.clipped_gradient.text}. It shortens every part alike: what had vanished stays vanished.` : ".");
      if (answer.error) return;
      const line = (name) => answer.steps.map((step) => [step.back, step[name].log10]);
      this.$("rnn-chart").innerHTML = lineChart({
        width: widthOf(this.$("rnn-chart")),
        label: `Gradient through time; after ${answer.steps.at(-1).back} steps ${answer.steps.at(-1).product.text}.`,
        x: "steps back in time",
        band: [-1, 1],
        series: [
          { name: "wᵗ, the weights alone", color: "var(--cr-grows)", dash: "6 5", points: line("power") },
          { name: "with the slopes of φ", color: "var(--cr-shrinks)", points: line("product") },
          ...(clip ? [{ name: "after clipping", color: "var(--cr-lit)", dash: "2 4", points: line("clipped") }] : []),
        ],
      });
    }

    async refreshNetwork() {
      const query = Object.fromEntries(new URLSearchParams(location.search));
      const spec = Object.fromEntries(Object.entries(query).filter(([key]) => ["depth", "width", "init", "residual", "normalization", "weight_std", "bias_std", "distribution", "seed", "batch_size"].includes(key)));
      if (query.network_activation) spec.activation = query.network_activation;
      if (!Object.keys(spec).length) Object.assign(spec, { depth: 15, activation: "sigmoid", init: "xavier" });
      const answer = await this.ask("/api/network", spec);
      if (!answer || answer.error) { this.$("real-sentence").textContent = answer?.error || ""; return; }
      const { factors, seeds, deltas } = answer;
      const log = (value) => (value > 0 ? Math.log10(value) : null);
      const line = (role) => factors.filter((f) => f.role === role).map((f) => [f.layer, log(f.value)]);
      const running = new Map(factors.map((f) => [f.layer, log(f.running)]));
      const product = factors.at(-1)?.running;
      this.$("real-chart").innerHTML = lineChart({
        width: widthOf(this.$("real-chart")),
        column: "layer",
        label: "Measured factors of each layer, and their running product from the loss back to layer 1.",
        x: "layer (the loss is at the right)",
        series: [
          { name: "activation factor", color: "var(--cr-shrinks)", points: line("activation") },
          { name: "weight factor", color: "var(--cr-grows)", points: line("weight") },
          { name: "normalization factor", color: "var(--cr-dim)", points: line("normalization") },
          { name: "factor of the block", color: "var(--cr-keeps)", points: line("residual") },
          { name: "running product", color: "var(--cr-lit)", points: [...running], dash: "6 5" },
        ].filter((entry) => entry.points.length),
      });
      this.$("real-gradients").innerHTML = lineChart({
        width: widthOf(this.$("real-gradients")),
        column: "layer",
        label: "The backpropagated gradient of each layer.",
        x: "layer (the loss is at the right)",
        series: [{ name: "‖δ‖, the backpropagated gradient", color: "var(--cr-lit)", points: deltas.map((value, i) => [i + 1, log(value)]) }],
      });
      const s = answer.spec;
      this.$("real-sentence").textContent =
        `${s.depth} layers of ${s.width} units, ${s.activation}, ${s.init}: gains of ${seeds} real networks (geometric means, so that they multiply), measured by autograd. ` +
        (product > 0
          ? `All ${factors.length} factors multiply to ${power(Math.log10(product))}: that is how much longer or shorter the gradient is at the input than at the output.`
          : "The product is zero or not finite.") +
        ` ${answer.notices.join(" ")}`;
      this.$("real-link").href = `/?${answer.query}`;
    }
  }

  // --- pure helpers -------------------------------------------------------------------------

  /** Return the state in the address; what is not possible there falls back to the start. */
  function readAddress(activations) {
    const query = new URLSearchParams(location.search);
    const numbers = (name) => (query.get(name) || "").split(",").map(Number);
    const state = structuredClone(START);
    if (query.get("weights")) state.weights = numbers("weights").slice(0, MAX_LAYERS).map((w) => (Number.isFinite(w) ? w : 1));
    if (query.get("biases")) {
      const biases = numbers("biases").map((b) => (Number.isFinite(b) ? b : 0));
      state.biases = state.weights.map((_, i) => biases[i] ?? 0);
    }
    if (query.has("x") && Number.isFinite(Number(query.get("x")))) state.x = Number(query.get("x"));
    const names = (query.get("activation") || "").split(",");
    const known = (name) => activations.some(([entry]) => entry === name);
    if (names.every(known) && [1, state.weights.length].includes(names.length)) state.activation = names.join();
    const variables = ["x", ...state.weights.map((_, i) => `w${i + 1}`), ...(state.biases || []).map((_, i) => `b${i + 1}`)];
    state.wrt = variables.includes(query.get("wrt")) ? query.get("wrt") : "w1";
    return state;
  }

  function toQuery({ x, weights, biases, activation, wrt }) {
    return { x, weights: weights.join(","), ...(biases ? { biases: biases.join(",") } : {}), activation, wrt };
  }

  /** A chart is drawn at the width it is shown at, so that its text keeps its size. */
  const widthOf = (box) => Math.max(280, Math.floor(box.clientWidth));

  /** Set a control unless it is being typed in or already says so. */
  function setValue(control, value) {
    if (control === document.activeElement && control.type === "number") return;
    if (control.value !== String(value)) control.value = value;
  }

  function valueField(name) {
    const label = `${name[0]}${sub(name.slice(1))}`;
    return `<div class="cr-value"><var>${label}</var><input type="range" min="-6" max="6" step="0.05" data-name="${name}" aria-label="${label}, slider"><input type="number" step="any" data-name="${name}" aria-label="${label}"></div>`;
  }

  /** One bar per factor on a log scale, growing from 1: left of it shrinks, right of it grows. */
  function factorChart(factors, width) {
    const logs = factors.map((f) => f.value.log10).filter((v) => v !== null);
    const reach = Math.max(1, Math.ceil(Math.max(0, ...logs.map(Math.abs))));
    const [row, left, right] = [30, 64, 88];
    const middle = left + (width - left - right) / 2;
    const scale = (width - left - right) / 2 / reach;
    const height = factors.length * row + 30;
    const ticks = [-reach, 0, reach].map((t) =>
      `<line class="${t ? "grid" : "zero"}" x1="${middle + t * scale}" x2="${middle + t * scale}" y1="22" y2="${height - 4}"/><text x="${middle + t * scale}" y="14" text-anchor="middle">${t ? tick(t) : "× 1"}</text>`);
    const bars = factors.map((f, i) => {
      const y = 26 + i * row;
      const log = f.value.log10;
      const size = log === null ? 0 : Math.max(1.5, Math.abs(log) * scale);
      const from = log < 0 ? middle - size : middle;
      return `<g class="bar ${f.effect}" data-factor="${f.id}" tabindex="${i ? -1 : 0}" role="img" aria-label="${esc(f.sentence)}"><title>${esc(f.sentence)}</title><rect class="hit" x="0" y="${y}" width="${width}" height="${row - 2}" rx="4"/><text x="${left - 8}" y="${y + 19}" text-anchor="end">${esc(f.short)}</text><rect class="value" x="${from}" y="${y + 7}" width="${size}" height="${row - 16}" rx="2"/><text x="${width - right + 8}" y="${y + 19}">${esc(f.value.text)}</text></g>`;
    });
    return `<svg class="cr-chart" data-row viewBox="0 0 ${width} ${height}" role="group" aria-label="The factors of the product on a logarithmic scale">${ticks.join("")}${bars.join("")}</svg>`;
  }

  /** Lines over a logarithmic axis; points are [x, log10 y], with null for a gap. */
  function lineChart({ series, x, band, label, width, column }) {
    const [height, left, right, top, bottom] = [280, 46, 12, 12, 40];
    const points = series.flatMap((entry) => entry.points).filter(([, y]) => y !== null);
    const xs = points.map(([value]) => value);
    const ys = points.map(([, value]) => value);
    let [low, high] = [Math.floor(Math.min(-1, ...ys)), Math.ceil(Math.max(1, ...ys))];
    const [first, final] = [Math.min(...xs, 1), Math.max(...xs, 2)];
    const px = (v) => left + ((v - first) / (final - first)) * (width - left - right);
    const py = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
    const step = Math.max(1, Math.ceil((high - low) / 7));
    const ticks = [];
    for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(t);
    const grid = ticks.map((t) => `<line class="${t ? "grid" : "zero"}" x1="${left}" x2="${width - right}" y1="${py(t)}" y2="${py(t)}"/><text x="${left - 8}" y="${py(t) + 4}" text-anchor="end">${t ? tick(t) : "1"}</text>`);
    const xstep = Math.max(1, Math.round((final - first) / 6));
    for (let t = first; t <= final; t += xstep) grid.push(`<text x="${px(t)}" y="${height - 20}" text-anchor="middle">${t}</text>`);
    const shade = band ? `<rect class="band" x="${left}" width="${width - left - right}" y="${py(band[1])}" height="${py(band[0]) - py(band[1])}"><title>within 10× of 1</title></rect>` : "";
    const lines = series.map((entry) => {
      let pen = "M";
      const path = entry.points.map(([a, b]) => {
        if (b === null) { pen = "M"; return ""; }
        const part = `${pen}${px(a).toFixed(1)} ${py(b).toFixed(1)}`;
        pen = "L";
        return part;
      }).join("");
      return `<path d="${path}" stroke="${entry.color}" ${entry.dash ? `stroke-dasharray="${entry.dash}"` : ""}/>`;
    });
    const spacing = (width - left - right) / Math.max(1, final - first);
    const columns = (column ? [...new Set(xs)].sort((a, b) => a - b) : []).map((at, index) => {
      const said = `${x.split(" ")[0]} ${at}: ${series.map((entry) => [entry.name, entry.points.find(([a]) => a === at)?.[1]]).filter(([, b]) => b !== undefined && b !== null).map(([name, b]) => `${name} ${power(b)}`).join(", ")}`;
      return `<rect class="column" data-factor="${column}-${at}" x="${Math.max(left, px(at) - spacing / 2)}" width="${spacing}" y="${top}" height="${height - top - bottom}" tabindex="${index ? -1 : 0}" role="img" aria-label="${esc(said)}"><title>${esc(said)}</title></rect>`;
    });
    const key = series.map((entry) => `<span><i style="background:${entry.color}"></i>${esc(entry.name)}</span>`).join("") + (band ? `<span><i style="height:10px;background:color-mix(in srgb, var(--cr-lit) 24%, transparent)"></i>within 10× of 1</span>` : "");
    return `<svg class="cr-chart" data-row viewBox="0 0 ${width} ${height}" role="${column ? "group" : "img"}" aria-label="${esc(label)}">${shade}${grid.join("")}${lines.join("")}${columns.join("")}<text x="${(left + width - right) / 2}" y="${height - 4}" text-anchor="middle">${esc(x)}</text></svg><div class="cr-key">${key}</div>`;
  }

  function frame(activations) {
    const options = activations.map(([name, label]) => `<option value="${esc(name)}">${esc(label)}</option>`).join("");
    const weight = (part, value, low, high) =>
      `<label>w<input type="number" step="any" data-part="${part}" value="${value}"></label><label style="flex:1">w, slider<input type="range" min="${low}" max="${high}" step="0.05" data-part="${part}-range" value="${value}"></label>`;
    return `
<section class="cr-card" aria-labelledby="walk-head">
  <div class="cr-head"><h2 id="walk-head" data-part="walk-title"></h2>
    <div class="cr-tools"><button data-do="walk-back">Back</button><button class="cr-primary" data-do="walk-next">Start</button></div></div>
  <p data-part="walk-text"></p>
  <div class="cr-tools"><button data-do="reveal" hidden>Show the answer</button></div><p data-part="reveal" hidden></p>
</section>
<section class="cr-card" aria-labelledby="network-head">
  <h2 id="network-head">The network</h2>
  <div class="cr-fields">
    <label>layers<input type="number" min="1" max="${MAX_LAYERS}" step="1" data-part="layers"></label>
    <label style="flex:1;max-width:220px">layers, slider<input type="range" min="1" max="12" step="1" data-part="layers-range"></label>
    <label>activation<select data-part="activation">${options}</select></label>
    <label>gradient of p with respect to<select data-part="wrt"></select></label>
    <label style="display:flex;gap:6px;align-items:center;min-height:34px"><input type="checkbox" data-part="equal">same w everywhere</label>
    <label style="display:flex;gap:6px;align-items:center;min-height:34px"><input type="checkbox" data-part="biased">biases</label>
  </div>
  <div class="cr-values" data-part="values"></div>
</section>
<p class="cr-card cr-error" role="alert" data-part="error" style="margin:0"></p>
<div class="cr-linked">
<section class="cr-card cr-graph" aria-labelledby="graph-head">
  <div class="cr-head"><h2 id="graph-head">The graph: every local step</h2><div class="cr-tools"><button data-do="svg">Download SVG</button></div></div>
  <p class="cr-dim">Values above, gradients below, local derivatives on the edges. Click x or a weight to change it.</p>
  <div class="cr-scroll" data-part="graph"></div>
</section>
<section class="cr-card" aria-labelledby="steps-head" data-part="steps">
  <div class="cr-head"><h2 id="steps-head">The backward pass, step by step</h2>
    <div class="cr-tools"><button data-do="back">Back</button><button data-do="play" aria-pressed="false">Play</button><button class="cr-primary" data-do="next">Next</button><button data-do="reset">Whole</button></div></div>
  <p><span class="cr-big" data-part="step-product"></span> <span class="cr-dim" data-part="step-count"></span></p>
  <p aria-live="polite" data-part="step-sentence"></p><p class="cr-dim" data-part="range"></p>
</section>
<div class="cr-two">
  <section class="cr-card" aria-labelledby="equation-head">
    <div class="cr-head"><h2 id="equation-head">The equation: one product</h2><div class="cr-tools"><button data-do="fold" hidden>Show all factors</button><button data-do="copy">Copy LaTeX</button></div></div>
    <ol class="cr-lines" data-part="lines"></ol>
  </section>
  <section class="cr-card" aria-labelledby="factors-head">
    <h2 id="factors-head">The factors, on a log scale</h2>
    <div data-part="factors"></div>
    <details><summary>The numbers as a table</summary><div class="cr-scroll" tabindex="0" aria-label="table of factors" role="region"><table data-part="factor-table"></table></div></details>
  </section>
</div>
</div>
<section class="cr-card" aria-labelledby="erratum-head" data-part="erratum-card">
  <h2 id="erratum-head">h(1 − h), not z(1 − z)</h2><div data-part="erratum"></div>
</section>
<div class="cr-two">
  <section class="cr-card" aria-labelledby="depth-head" data-part="depth-card">
    <h2 id="depth-head">Why it vanishes</h2>
    <div class="cr-fields">${weight("depth-w", 1, -8, 8)}<label>activation<select data-part="depth-activation">${options}</select></label></div>
    <p data-part="depth-task" hidden></p>
    <div data-part="depth-chart"></div><p data-part="depth-end"></p><p class="cr-dim" data-part="depth-sentence"></p>
  </section>
  <section class="cr-card" aria-labelledby="rnn-head">
    <h2 id="rnn-head">Through time: the same w again and again</h2>
    <div class="cr-fields">${weight("rnn-w", 1.3, -3, 3)}<label>steps<input type="number" min="1" max="200" step="1" value="20" data-part="rnn-steps"></label>
      <label>activation<select data-part="rnn-activation">${options.replace('value="identity"', 'value="identity" selected')}</select></label>
      <label>clip at<input type="number" min="0" step="any" placeholder="never" data-part="rnn-clip"></label></div>
    <div data-part="rnn-chart"></div><p class="cr-dim" data-part="rnn-sentence"></p>
  </section>
</div>
<section class="cr-card" aria-labelledby="real-head">
  <div class="cr-head"><h2 id="real-head">The same product in a real, wide network</h2><a data-part="real-link" href="/">Open it in the explorer</a></div>
  <p class="cr-dim" data-part="real-sentence"></p>
  <div class="cr-two"><div data-part="real-chart"></div><div data-part="real-gradients"></div></div>
</section>`;
  }

  new MutationObserver(() => {
    const root = document.getElementById("chain-root");
    if (root) boot(root);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
