/* The chain-rule page: asks the server for a chain, draws it, and sends edits back.
 *
 * No number is computed here: values, factors, lines of the derivation and the graph come from
 * /api/…; the scripts put them into the places of templates/chain.html.
 */
import { escapeHtml, find, findAll, part, setText, showNotices } from "../shared/dom.js";
import "../shared/frame.js";
import {
  listVariables,
  MAX_LAYERS,
  MAX_STEPS,
  PUSHES,
  readAddress,
  toQuery,
  writeAddress,
} from "./address.js";
import { Cards } from "./cards.js";
import { equal, factorChart, isEditable, letter, stripChart, widthOf } from "./charts.js";
import { setValue, sharedField, showActivations, valueField } from "./controls.js";
import { describePlace, findEditable, openEditor } from "./edit.js";
import { Expression } from "./expression.js";
import { Game } from "./game.js";
import { describeErratum, drawGraph, factorTable, saveGraph } from "./graph.js";
import { Edits } from "./history.js";
import { Network } from "./layers.js";
import { describeNudge, listStops } from "./nudge.js";
import { afterPaint } from "./paint.js";
import { sendPulse, showPass } from "./pass.js";
import { showInside, writeInside } from "./patch.js";
import { bringIntoSight } from "./sight.js";
import { startTabs } from "./tabs.js";
import { View } from "./view.js";
import { WALK, Walk } from "./walk.js";

const SHOWN_VALUES = 12; // of longer chains the boxes scroll, and one box sets them all
/** @type {Record<string, string>} what the keys do in the backward pass */
const KEYS = { ArrowLeft: "back", ArrowRight: "next", " ": "play" };
const FALLBACK = { weight: 1, bias: 0 };

export class Page {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    const options = findAll(part(root, "depth-activation"), "option");
    /** @type {[string, string][]} */
    this.activations = options.map((option) => [option.value, option.textContent]);
    /** @type {Record<string, AbortController>} */
    this.requests = {};
    /** @type {Record<string, any[]>} */
    this.before = {}; // values of layers that are gone
    /** @type {boolean | null} */
    this.equal = null; // null: as the weights are
    this.wholeGraph = false;
    this.atOutput = true; // whether a graph that is too wide need not go there
    /** @type {string[]} */
    this.notices = [];
    this.history = new Edits();
    /** @type {string | null} */
    this.focusLater = null;
    this.$("layers").max = MAX_LAYERS;
    this.$("rnn-steps").max = MAX_STEPS;
    this.found = this.readAddress();
    this.state = this.found.state;
    /** @type {Record<string, string>} */
    this.network = this.found.network;
    this.shown = this.found.shown;
    this.view = new View(find(root, '[data-view="chain"]'), "", {
      draw: () => this.draw(),
      pass: (step, moved) => this.showPass(step, moved),
      lit: (ids) => this.lightWeights(ids),
      wantMore: () => this.refresh({ write: false }),
      askWhole: () => this.ask("/api/chain", this.toQuestion({ whole: true }), "latex"),
      canEdit: (id) =>
        this.view.answer.factors.some((/** @type {any} */ f) => f.id === id && isEditable(f)),
      start: "∂p/∂p = 1: the backward pass starts at the output.",
    });
    this.measured = new Network(this);
    this.views = [this.view, this.measured.view];
    this.cards = new Cards(this, this.found.cards);
    this.walk = new Walk(this, this.found.walk);
    this.game = new Game(this);
  }

  /** @param {string} name */
  $(name) {
    return part(this.root, name);
  }

  readAddress() {
    return readAddress(
      location.search,
      this.activations.map(([name]) => name),
      WALK.length,
    );
  }

  start() {
    const { found } = this;
    this.listen();
    const asked = Object.keys(found.network).length && !found.chosen && !found.walk;
    this.apply(found).then(async () => {
      if (this.walk.step?.goto && !found.notices.length) this.walk.scroll();
      if (!asked || scrollY) return; // who comes from a network of the explorer looks for that one
      await this.allShown;
      if (!scrollY) this.act("to-real");
    });
  }

  /**
   * Show what an address asked for.
   * @param {ReturnType<typeof readAddress>} found
   */
  apply({ state, cards, walk, network, shown, notices, chosen }) {
    this.state = walk && !chosen ? structuredClone(WALK[walk - 1].state) : state;
    this.network = network;
    this.shown = shown;
    this.cards.values = cards;
    this.walk.at = walk;
    this.equal = null;
    this.notices = notices;
    this.addNotices([]);
    this.walk.show();
    this.allShown = Promise.all([this.cards.refresh(), this.measured.refresh()]);
    if (!this.game.answer) this.game.show();
    return this.refresh();
  }

  // --- asking the server ------------------------------------------------------------------

  /**
   * Ask for something; an answer that a newer question has overtaken is dropped.
   * @param {string} path
   * @param {Record<string, any>} query
   * @param {string} [key] questions of one key overtake each other
   * @returns {Promise<any>}
   */
  async ask(path, query, key = path) {
    this.requests[key]?.abort();
    const control = new AbortController();
    this.requests[key] = control;
    try {
      const answer = await fetch(`${path}?${new URLSearchParams(query)}`, {
        signal: control.signal,
      });
      const body = await answer.json();
      return answer.ok ? body : { error: body.error || "The server could not answer." };
    } catch (/** @type {any} */ error) {
      return error.name === "AbortError" ? null : { error: "The server does not answer." };
    }
  }

  /**
   * What the server is asked.
   * @param {{whole?: boolean}} [options] whether it is to give LaTeX and the full forms of lines
   */
  toQuestion({ whole = false } = {}) {
    return {
      ...toQuery(this.state),
      ...(whole || this.view.unfolded ? {} : { form: "brief" }),
      ...(this.view.allLines ? { lines: "all" } : {}),
      ...(this.wholeGraph ? { graph: "all" } : {}),
      ...(this.shown.order === "forward" ? { order: "forward" } : {}),
      nudge: this.shown.push,
    };
  }

  /** Ask for the chain in force and show it: graph and equation at once, then all the rest. */
  async refresh({ push = false, write = true } = {}) {
    const query = JSON.stringify(toQuery(this.state));
    const asked = this.ask("/api/chain", this.toQuestion());
    if (write) this.writeAddress({ push }); // while the server is at work
    this.showControls();
    const answer = await asked;
    if (!answer) return;
    setText(this.$("error"), answer.error || "");
    if (answer.error) return;
    const first = !this.view.answer;
    const place = this.focusLater ?? describePlace(document.activeElement);
    this.focusLater = null;
    this.view.show(answer);
    this.showStepInWalk();
    this.keepFocus(place);
    this.root.dataset.drawn = query;
    if (!first) await afterPaint();
    if (this.view.answer !== answer) return; // a newer one is here
    this.drawRest();
    this.keepFocus(place);
    this.root.dataset.shown = query;
  }

  /**
   * Give the keyboard back to where it was, unless it is somewhere else by now.
   * @param {string | null} place
   */
  keepFocus(place) {
    const focused = document.activeElement?.closest("[data-part], .cr-edit");
    if (place && !this.root.contains(focused ?? null)) this.focusOn(place);
  }

  /** Write everything on the page into the address; a step of the walk and an edit are ones to come back to. */
  writeAddress({ push = false } = {}) {
    const query = writeAddress({
      state: this.state,
      cards: this.cards.values,
      walk: this.walk.at,
      network: this.network,
      shown: this.shown,
    });
    this.history.write(`?${query}`, push);
  }

  /** @param {string[]} notices */
  addNotices(notices) {
    this.notices = [...this.notices, ...notices.filter((notice) => !this.notices.includes(notice))];
    showNotices(this.$("notice"), this.notices);
  }

  /** @param {string[]} notices */
  setNotice(...notices) {
    this.notices = [];
    this.addNotices(notices);
  }

  // --- controls ---------------------------------------------------------------------------

  /** Whether one box stands for all layers. */
  get isShared() {
    const { weights, biases } = this.state;
    const same = (/** @type {number[] | null} */ list) =>
      !list || list.every((value) => value === list[0]);
    return same(weights) && same(biases) && (this.equal ?? weights.length > SHOWN_VALUES);
  }

  showControls() {
    const { weights, biases, activation, wrt } = this.state;
    setValue(this.$("layers"), weights.length);
    this.$("layers-range").max = Math.max(SHOWN_VALUES, weights.length);
    setValue(this.$("layers-range"), weights.length);
    showActivations(this.root, activation.split(","), weights.length, this.activations);
    this.$("biased").checked = Boolean(biases);
    const shared = this.isShared;
    this.$("equal").checked = shared;
    const letters = listVariables(this.state);
    const select = this.$("wrt");
    if (select.dataset.names !== letters.join()) {
      select.dataset.names = letters.join();
      select.innerHTML = letters
        .map((name) => `<option value="${name}">${letter(name)}</option>`)
        .join("");
    }
    setValue(select, wrt);
    const many = weights.length > SHOWN_VALUES && !shared;
    const list = (/** @type {string} */ letter) =>
      shared
        ? [letter]
        : [...(many ? [letter] : []), ...weights.map((_, i) => `${letter}${i + 1}`)];
    const names = ["x", ...list("w"), ...(biases ? list("b") : [])];
    const box = this.$("values");
    box.classList.toggle("cr-many", many);
    if (box.dataset.names !== names.join()) {
      box.dataset.names = names.join();
      box.innerHTML = names
        .map((name) => (many && "wb".includes(name) ? sharedField(name) : valueField(name)))
        .join("");
    }
    for (const input of findAll(box, "[data-name]")) setValue(input, this.read(input.dataset.name));
  }

  /**
   * Return a value; of "w" and "b", which stand for all layers, "" where those differ.
   * @param {string} name
   */
  read(name) {
    if (name === "x") return this.state.x;
    const list = (name[0] === "w" ? this.state.weights : this.state.biases) ?? [];
    if (name.length > 1) return list[Number(name.slice(1)) - 1];
    return list.every((value) => value === list[0]) ? list[0] : "";
  }

  /**
   * Set one value; "w" and "b" alone mean all layers.
   * @param {string} name
   * @param {number} value
   */
  write(name, value) {
    if (!Number.isFinite(value)) return;
    const state = structuredClone(this.state);
    if (/^[wb]\d/.test(name) && this.$("equal").checked) name = name[0]; // stay the same everywhere
    if (name === "x") state.x = value;
    else {
      if (name[0] === "b") state.biases ??= state.weights.map(() => FALLBACK.bias);
      const list = (name[0] === "w" ? state.weights : state.biases) ?? [];
      if (name.length === 1) list.fill(value);
      else if (Number(name.slice(1)) <= list.length) list[Number(name.slice(1)) - 1] = value;
    }
    this.state = state;
    this.refresh();
  }

  /** @param {number} count how many layers */
  resize(count) {
    const layers = Math.max(1, Math.min(MAX_LAYERS, Math.round(count) || 1));
    if (layers !== count)
      this.setNotice(
        `layers: a whole number from 1 to ${MAX_LAYERS} here, and ${count} came; showing ${layers}. The command line takes up to 1000.`,
      );
    const state = structuredClone(this.state);
    const shared = this.isShared;
    // Typing "12" passes through 1 layer: values of layers that were there before come back.
    const grow = (
      /** @type {string} */ key,
      /** @type {any} */ fallback,
      /** @type {any[]} */ list,
    ) => {
      this.before[key] = [...list, ...(this.before[key] || []).slice(list.length)];
      const kept = shared ? [] : this.before[key];
      return Array.from(
        { length: layers },
        (_, i) => list[i] ?? kept[i] ?? (shared ? list[0] : fallback),
      );
    };
    state.weights = grow("weights", FALLBACK.weight, state.weights);
    if (state.biases) state.biases = grow("biases", FALLBACK.bias, state.biases);
    const names = state.activation.split(",");
    const mixed =
      names.length > 1 ||
      (state.activation === this.before.activations?.[0] && this.state.weights.length === 1);
    if (mixed) state.activation = grow("activations", names.at(-1), names).join();
    if (Number(state.wrt.slice(1)) > layers) state.wrt = "w1";
    this.state = state;
    this.refresh();
  }

  /**
   * Take over what a control says.
   * @param {any} control
   */
  change(control) {
    const { part, name, phi } = control.dataset;
    const value = control.valueAsNumber;
    const names = this.state.activation.split(",");
    this.setNotice();
    this.history.begin(control);
    if (name) this.write(name, value);
    else if (phi !== undefined)
      this.set({
        activation: names.map((old, i) => (i === Number(phi) ? control.value : old)).join(),
      });
    else if (part === "layers" || part === "layers-range") {
      if (Number.isFinite(value)) this.resize(value);
    } else if (part === "equal") {
      this.equal = control.checked;
      if (!this.equal) return this.showControls();
      this.state = {
        ...this.state,
        biases: this.state.biases?.map((_, __, all) => all[0]) ?? null,
      };
      this.write("w", this.state.weights[0]);
    } else if (part === "biased") {
      const biases = control.checked ? this.state.weights.map(() => FALLBACK.bias) : null;
      this.set({ biases, wrt: !biases && this.state.wrt[0] === "b" ? "w1" : this.state.wrt });
    } else if (part === "activation" && control.value === "mixed")
      this.set({ activation: this.state.weights.map((_, i) => names[i] ?? names[0]).join() });
    else if (part === "activation" || part === "wrt") this.set({ [part]: control.value });
    else if (part?.startsWith("depth-")) this.cards.readDepth(control);
    else if (part?.startsWith("rnn-")) this.cards.readTime(control);
  }

  /** @param {Partial<import("./address.js").Chain>} changes */
  set(changes) {
    this.state = { ...this.state, ...changes };
    this.refresh();
  }

  /**
   * A box that is left shows what is in force, whatever was typed.
   * @param {any} control
   */
  settle(control) {
    const { name, part } = control.dataset;
    if (control.type !== "number" || control.closest(".cr-edit")) return;
    if (name) control.value = this.read(name);
    else if (part === "layers") {
      if (!Number.isFinite(control.valueAsNumber))
        this.setNotice(
          `layers: a whole number from 1 to ${MAX_LAYERS}; keeping ${this.state.weights.length}.`,
        );
      control.value = this.state.weights.length;
    } else if (part === "depth-w") control.value = this.cards.values.depth.w;
    else if (part === "rnn-w") control.value = this.cards.values.time.w;
    else if (part === "rnn-steps") control.value = this.cards.values.time.steps;
  }

  // --- events -----------------------------------------------------------------------------

  listen() {
    const { root } = this;
    const viewOf = (/** @type {Node} */ target) =>
      this.views.find((view) => view.box.contains(target));
    root.addEventListener("input", (/** @type {any} */ event) => {
      if (!event.target.closest(".cr-edit")) this.change(event.target);
    });
    root.addEventListener("focusout", (/** @type {any} */ event) => this.settle(event.target));
    root.addEventListener("change", (/** @type {any} */ event) => {
      this.settle(event.target);
      this.history.end();
    });
    root.addEventListener("click", (/** @type {any} */ event) => {
      const button = event.target.closest("button[data-do]");
      if (button) this.act(button.dataset.do);
      else if (!event.target.closest(".cr-edit")) this.activate(event.target);
    });
    root.addEventListener("focusin", (/** @type {any} */ event) => {
      // Tab comes back to where one was in a row.
      const at = event.target.closest("[data-row] [data-factor][tabindex]");
      if (at)
        for (const entry of findAll(at.closest("[data-row]"), "[data-factor][tabindex]"))
          entry.setAttribute("tabindex", entry === at ? "0" : "-1");
      bringIntoSight(event.target);
    });
    for (const [on, off] of [
      ["pointerover", "pointerout"],
      ["focusin", "focusout"],
    ]) {
      root.addEventListener(on, (/** @type {any} */ event) =>
        viewOf(event.target)?.light(event.target.closest?.("[data-factor]")),
      );
      root.addEventListener(off, (/** @type {any} */ event) => {
        const view = viewOf(event.target);
        if (view?.answer) view.light(null);
      });
    }
    root.addEventListener("keydown", (/** @type {any} */ event) => this.press(event));

    const left = new AbortController();
    const whileHere = (/** @type {() => void} */ act) => () =>
      root.isConnected ? act() : left.abort();
    let drawn = innerWidth;
    addEventListener(
      "resize",
      whileHere(() => {
        if (innerWidth === drawn || !this.view.answer) return;
        drawn = innerWidth;
        this.drawCharts();
        this.view.shade();
        this.cards.drawDepth();
        this.cards.drawTime();
        this.measured.draw();
      }),
      { signal: left.signal },
    );
    addEventListener(
      "popstate",
      whileHere(() => {
        if (new URLSearchParams(location.search).has("expr")) return;
        this.history.end();
        this.apply(this.readAddress());
        if (root.contains(document.activeElement)) this.settle(document.activeElement);
      }),
      { signal: left.signal },
    );
  }

  /** @param {any} event a key that was pressed */
  press(event) {
    const steps = event.target.closest('[data-part="steps"], [data-part="real-steps"]');
    if (steps && ["ArrowLeft", "ArrowRight", " "].includes(event.key)) {
      if (event.key === " " && event.target.closest("button, summary")) return;
      event.preventDefault();
      const prefix = steps.dataset.part === "steps" ? "" : "real-";
      this.act(prefix + KEYS[event.key]);
      return;
    }
    const factor = event.target.closest("[data-factor][tabindex], .node[tabindex]");
    if (!factor) return;
    const row = factor.closest("[data-row]");
    if (row && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
      const all = [...findAll(row, "[data-factor][tabindex]")];
      if (factor.dataset.order) all.sort((a, b) => a.dataset.order - b.dataset.order);
      const next = all[all.indexOf(factor) + (event.key === "ArrowRight" ? 1 : -1)];
      next?.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && this.activate(factor)) event.preventDefault();
  }

  /**
   * Edit or unfold what was clicked, or chosen by Enter; return whether it was such a thing.
   * @param {any} target
   */
  activate(target) {
    if (target.closest(".fold")) {
      const view = this.views.find((entry) => entry.box.contains(target));
      if (!view) return false;
      const name = target.closest("svg") ? "graph" : "fold";
      if (view.button(name).hidden) return false; // too long to be shown whole
      this.act(view.prefix + name);
      view.button(name).focus();
      return true;
    }
    const name = this.view.answer && findEditable(target, this.view.answer.factors);
    if (!name) return false;
    const place = describePlace(target.closest("[data-factor], .node"));
    openEditor(this.root, name, this.read(name), target, {
      done: (value) => {
        this.setNotice();
        this.focusLater = place;
        this.history.begin();
        this.write(name, value);
        this.history.end();
      },
      close: (refocus) => {
        if (refocus) this.focusOn(place);
      },
    });
    return true;
  }

  /**
   * Do what a button says.
   * @param {string} name
   */
  act(name) {
    if (name.startsWith("real-")) {
      if (this.measured.view.answer) this.measured.view.act(name.slice(5));
    } else if (name === "walk-next" || name === "walk-back")
      this.walk.go(this.walk.at + (name === "walk-next" ? 1 : -1));
    else if (name === "walk-again") {
      this.walk.go(1);
      find(this.root, '[data-do="walk-next"]').focus({ preventScroll: true });
    } else if (name === "walk-back-here") this.walk.go(this.walk.at - 1);
    else if (name === "walk-next-here") this.walk.go(this.walk.at + 1);
    else if (this.game.act(name)) return;
    else if (name === "take-chain") {
      this.history.begin();
      this.cards.take(this.state);
      this.history.end();
    } else if (name.startsWith("order-")) this.show({ order: name.slice(6) });
    else if (name.startsWith("nudge-")) this.show({ push: name.slice(6) });
    else if (name.startsWith("to-"))
      this.$(`${name.slice(3)}-card`).scrollIntoView({ block: "start", behavior: "instant" });
    else if (name === "reveal" || name === "reveal-here") this.walk.reveal();
    else if (!this.view.answer) return;
    else if (name === "graph") {
      this.wholeGraph = !this.wholeGraph;
      this.refresh({ write: false });
    } else if (name === "svg") saveGraph(this.view.answer.svg);
    else if (name === "walk-step" || name === "walk-step-back") {
      if (this.view.step === null) this.view.step = 0;
      this.view.act(name === "walk-step" ? "next" : "back");
    } else this.view.act(name);
    this.showStepInWalk();
  }

  /**
   * Show the same chain another way.
   * @param {Partial<Page["shown"]>} changes
   */
  show(changes) {
    this.shown = { ...this.shown, ...changes };
    this.refresh();
  }

  /**
   * A factor that is a weight comes from that weight's node.
   * @param {Set<string>} ids
   */
  lightWeights(ids) {
    for (const f of this.view.answer?.factors ?? []) {
      if (f.kind !== "weight") continue;
      find(this.$("graph"), `.node[data-node="w${f.layer}"]`)?.classList.toggle(
        "lit",
        ids.has(f.id),
      );
    }
  }

  /**
   * Show in the graph how far the backward pass is, and let the number travel there.
   * @param {number | null} step
   * @param {boolean} moved
   */
  showPass(step, moved) {
    const { answer } = this.view;
    const graph = find(this.$("graph"), "svg");
    showPass(graph, answer, step);
    if (!moved || !step) return;
    const before = step > 1 ? answer.factors[step - 2].running_product.text : "1";
    sendPulse(graph, answer.factors[step - 1].edges, before);
  }

  /** The walk's own card says what comes of it: on a phone the graph is not in sight there. */
  showStepInWalk() {
    const { step, answer } = this.view;
    if (!answer) return;
    this.$("walk-sentence").textContent =
      step === null
        ? `${answer.subject.text} ${equal(answer.gradient)}`
        : `${this.$("step-sentence").textContent} Product so far: ${this.$("step-product").textContent}.`;
  }

  // --- drawing ----------------------------------------------------------------------------

  /** Draw the graph; its definitions are part of it. */
  draw() {
    const { answer } = this.view;
    drawGraph(this.root, answer, this.wholeGraph);
    if (!this.atOutput) {
      // the backward pass starts at the right
      this.atOutput = true;
      this.$("graph").scrollLeft = this.$("graph").scrollWidth;
    }
    setText(this.$("range"), answer.range_note || "");
    this.drawDefinitions(answer);
  }

  /** Draw what stands below: the factors as charts and as a table, the push, and the note. */
  drawRest() {
    const { answer } = this.view;
    this.drawCharts();
    this.$("erratum-card").hidden = !answer.erratum;
    writeInside(this.$("erratum"), answer.erratum ? describeErratum(answer.erratum) : "");
    setText(this.$("nudge-name"), letter(answer.wrt));
    showInside(this.$("nudge"), listStops(answer.nudge).flat());
    setText(this.$("nudge-sentence"), describeNudge(answer.nudge));
    for (const [name, on] of [
      ...["backward", "forward"].map((order) => [`order-${order}`, order === this.shown.order]),
      ...PUSHES.map((push) => [`nudge-${push}`, push === this.shown.push]),
    ])
      find(this.root, `[data-do="${name}"]`).setAttribute("aria-pressed", String(on));
    this.view.shade();
    this.view.light(null);
  }

  /**
   * What the letters mean, each part linked to the factors that it stands for.
   * @param {{definitions: any[], symbols: string[]}} answer
   */
  drawDefinitions({ definitions, symbols }) {
    const [, ...notes] = symbols;
    writeInside(
      this.$("definitions"),
      definitions
        .map(
          (/** @type {any} */ each) =>
            `${each.gap ? "<span>⋯</span> " : ""}<span class="cr-def" data-factor="${each.factors.join(" ")}">${each.mathml}</span>`,
        )
        .join(" ") +
        notes
          .map((/** @type {string} */ note) => `<span class="dim">${escapeHtml(note)}</span>`)
          .join(" "),
    );
  }

  measure() {
    // The strip may be hidden until this is drawn; it is as wide as the graph and its padding.
    return { factors: widthOf(this.$("factors")), strip: widthOf(this.$("strip").parentElement) };
  }

  drawCharts() {
    const widths = this.measure(); // before anything is written, or the browser lays out twice
    const { factors, wrt } = this.view.answer;
    writeInside(this.$("factors"), factorChart(factors, widths.factors));
    writeInside(this.$("strip"), stripChart(factors, widths.strip, [letter(wrt), "p"]));
    writeInside(this.$("factor-table"), factorTable(factors));
  }

  /**
   * Give the keyboard back to where it was.
   * @param {string | null} place
   */
  focusOn(place) {
    if (!place) return;
    const found = find(this.view.box, place);
    found?.focus({ preventScroll: true });
  }
}

startTabs(
  new Page(find(document, "#chain-root")),
  new Expression(find(document, "#expression-root")),
);
