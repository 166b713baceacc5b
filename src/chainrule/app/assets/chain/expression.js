/* Any scalar expression: its graph, its gradient as a sum over paths, and factored.
 *
 * As on the rest of the page, no number is computed here: all come from /api/expression.
 */
import { copy, el, escapeHtml, find, findAll, part, setText } from "../shared/dom.js";
import { capitalize } from "../shared/numbers.js";
import { cropGraph, saveGraph } from "./graph.js";
import { Edits } from "./history.js";
import { afterPaint } from "./paint.js";
import { writeDrawing, writeEntries, writeInside } from "./patch.js";
import { speak } from "./speech.js";
import { COLOURED, EFFECTS } from "./view.js";

const FIRST = "residual"; // the preset that the page begins with
/**
 * A line of a derivation.
 * @param {any} line
 */
const writeLine = (line) =>
  `<li${line.kind ? ` data-kind="${line.kind}"` : ""}><span class="cr-note">${escapeHtml(line.note)}</span><div class="cr-scroll" tabindex="0" role="group" aria-label="${escapeHtml(speak(line.text))}">${line.mathml}</div></li>`;

const REST = 250; // milliseconds without a key before the server is asked

/**
 * Ask the server; an answer that a newer question has overtaken is `null`.
 * @param {Record<string, string>} query
 * @param {AbortSignal} [signal]
 */
async function ask(query, signal) {
  try {
    const found = await fetch(`/api/expression?${new URLSearchParams(query)}`, { signal });
    const answer = await found.json();
    return found.ok || answer.error ? answer : { error: "The server could not answer." };
  } catch (/** @type {any} */ error) {
    return error.name === "AbortError" ? null : { error: "The server does not answer." };
  }
}

export class Expression {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.state = { text: "", set: /** @type {Record<string, number>} */ ({}), wrt: "" };
    /** @type {any} */
    this.answer = null;
    /** @type {AbortController | null} */
    this.request = null;
    /** @type {any} */
    this.waiting = null;
    this.history = new Edits();
    this.fresh = true; // whether the address has just been read
  }

  /** @param {string} name */
  $(name) {
    return part(this.root, `expr-${name}`);
  }

  get field() {
    return part(this.root, "expr");
  }

  start() {
    const { root } = this;
    root.addEventListener("click", (/** @type {any} */ event) => {
      const button = event.target.closest("button");
      if (button?.dataset.preset) this.choose(button);
      else if (button?.dataset.do === "expr-svg") this.save();
      else if (button?.dataset.do === "expr-copy") this.copy(button);
    });
    root.addEventListener("input", (/** @type {any} */ event) => this.change(event.target));
    root.addEventListener("change", () => this.finish());
    for (const [on, lit] of /** @type {[string, boolean][]} */ ([
      ["pointerover", true],
      ["focusin", true],
      ["pointerout", false],
      ["focusout", false],
    ]))
      root.addEventListener(on, (/** @type {any} */ event) =>
        this.light(lit ? event.target.closest?.("[data-path], [data-factor]") : null),
      );
    this.apply();
  }

  /** Show what the address asks for. */
  apply() {
    clearTimeout(this.waiting);
    this.waiting = null;
    this.history.end();
    this.fresh = true;
    const query = new URLSearchParams(location.search);
    const text = query.get("expr") ?? "";
    if (!text) return this.take(find(this.root, `[data-preset="${FIRST}"]`));
    const pairs = (query.get("set") ?? "").split(",").map((each) => each.split("="));
    this.state = {
      text,
      set: Object.fromEntries(
        pairs
          .filter(([name, value]) => name && value?.trim() && Number.isFinite(Number(value)))
          .map(([name, value]) => [name.trim(), Number(value)]),
      ),
      wrt: query.get("wrt") ?? "",
    };
    this.field.value = text;
    return this.refresh();
  }

  /**
   * Take one of the examples because somebody wants it: Back undoes it.
   * @param {HTMLElement} button
   */
  choose(button) {
    this.history.begin();
    this.take(button);
    this.history.end();
  }

  /**
   * Take one of the examples.
   * @param {any} button
   */
  take(button) {
    const { text, set, wrt } = button.dataset;
    const pairs = set.split(",").map((/** @type {string} */ each) => each.split("="));
    this.state = {
      text,
      set: Object.fromEntries(
        pairs.map((/** @type {string[]} */ [name, value]) => [name, Number(value)]),
      ),
      wrt,
    };
    this.field.value = text;
    return this.refresh();
  }

  /** @param {any} control */
  change(control) {
    const { name } = control.dataset;
    if (control === this.field) this.state.text = control.value;
    else if (control === this.$("wrt")) this.state.wrt = control.value;
    else if (name) {
      if (!Number.isFinite(control.valueAsNumber)) return;
      this.state.set[name] = control.valueAsNumber;
      for (const twin of findAll(this.$("values"), `[data-name="${name}"]`))
        if (twin !== control) twin.value = control.value;
    } else return;
    const typing = Boolean(this.waiting);
    clearTimeout(this.waiting);
    this.history.begin(control);
    if (control !== this.field) {
      this.refresh();
      return;
    }
    if (!typing) this.refresh({ quiet: true }); // the first key does not wait
    this.waiting = setTimeout(() => {
      this.waiting = null;
      if (this.state.text !== this.answer?.asked) this.refresh();
    }, REST);
  }

  /** An edit is done; what still waits for a rest between keys is asked now. */
  finish() {
    if (this.waiting) {
      clearTimeout(this.waiting);
      this.waiting = null;
      this.refresh();
    }
    this.history.end();
  }

  toQuery() {
    const { text, set, wrt } = this.state;
    const given = Object.entries(set).map(([name, value]) => `${name}=${value}`);
    return {
      expr: text,
      ...(given.length ? { set: given.join(",") } : {}),
      ...(wrt ? { wrt } : {}),
    };
  }

  /**
   * Ask for the expression in force and show it: graph, sums and value at once, then the rest.
   * @param {{quiet?: boolean}} [options] whether to say nothing of an expression that is not
   *     finished
   */
  async refresh({ quiet = false } = {}) {
    const query = this.toQuery();
    this.request?.abort();
    this.request = new AbortController();
    const asked = ask({ ...query, form: "brief" }, this.request.signal);
    this.history.write(`?${new URLSearchParams(query)}`); // while the server is at work
    const answer = await asked;
    if (!answer || (quiet && answer.error)) return;
    this.showError(answer.error);
    for (const box of findAll(this.root, ".cr-bench, .cr-equations")) {
      box.classList.toggle("cr-stale", Boolean(answer.error));
      box.hidden = Boolean(answer.error && !this.answer);
    }
    const first = !this.answer;
    const shown = JSON.stringify(query);
    if (!answer.error) {
      const now = { ...answer, asked: query.expr };
      this.answer = now;
      const { wrt } = this.state;
      this.draw();
      if (quiet) this.state.wrt = wrt; // what is typed next may have it again
      this.root.dataset.drawn = shown;
      if (!first) await afterPaint();
      if (this.answer !== now) return; // a newer one is here
      this.drawRest();
    }
    this.root.dataset.shown = shown;
  }

  /**
   * Say what is wrong with the text, and point at the character.
   * @param {string | undefined} error
   */
  showError(error) {
    const box = this.$("error");
    this.field.setAttribute("aria-invalid", String(Boolean(error)));
    if (!error) {
      box.replaceChildren();
      return;
    }
    const at = Number(error.match(/^expression, character (\d+)/)?.[1] ?? 0);
    const { text } = this.state;
    const from = Math.max(0, at - 40);
    const shown = text.slice(from, from + 80);
    box.replaceChildren(
      ...(at
        ? [
            el(
              "span",
              { class: "cr-caret", "aria-hidden": "true" },
              `${shown}\n${" ".repeat(at - 1 - from)}▲`,
            ),
          ]
        : []),
      el(
        "span",
        { class: "cr-reason" },
        capitalize(error.replace(/^expression, (?=character)/, "")),
      ),
    );
  }

  // --- drawing ----------------------------------------------------------------------------

  /** Draw the graph, the sum over paths and the derivation. */
  draw() {
    const { answer } = this;
    this.state.wrt = answer.wrt;
    this.showControls();
    const drawing = writeDrawing(this.$("graph"), answer.svg);
    cropGraph(drawing, 60, 68);
    this.$("bench").classList.toggle("cr-beside", drawing.width <= 980);
    const { subject, gradient } = answer;
    writeInside(
      this.$("headline"),
      `<span>${escapeHtml(subject.text)}</span> <strong>${escapeHtml(`${gradient.relation} ${gradient.text}`)}</strong>`,
    );
    this.drawPaths();
    writeEntries(this.$("lines"), answer.lines.map(writeLine));
    this.colourTerms(this.$("lines"));
    setText(this.$("range"), [answer.range_note, ...answer.kinks].filter(Boolean).join(" "));
  }

  /** Draw what stands below: the gradient as reverse mode computes it, and what that costs. */
  drawRest() {
    writeEntries(this.$("backward"), this.answer.backward.map(writeLine));
    this.drawCosts();
    this.light(null);
  }

  /**
   * Colour formulas and numbers by what they do to the gradient.
   * @param {HTMLElement} box
   */
  colourTerms(box) {
    const effects = new Map(this.answer.factors.map((/** @type {any} */ f) => [f.id, f.effect]));
    for (const term of findAll(box, COLOURED)) {
      const effect = effects.get(term.dataset.factor);
      for (const each of EFFECTS) term.classList.toggle(each, each === effect);
    }
  }

  showControls() {
    const { answer, state } = this;
    const preset = findAll(this.root, "[data-preset]").find(
      (button) => button.dataset.text === state.text,
    );
    for (const button of findAll(this.root, "[data-preset]"))
      button.setAttribute("aria-pressed", String(button === preset));
    setText(this.$("sentence"), preset?.dataset.sentence ?? "");
    const select = this.$("wrt");
    const names = answer.variables.join();
    if (select.dataset.names !== names) {
      select.dataset.names = names;
      select.replaceChildren(
        ...answer.variables.map((/** @type {string} */ name) =>
          el("option", { value: name }, name),
        ),
      );
      this.$("values").replaceChildren(
        ...answer.variables.map((/** @type {string} */ name) =>
          el(
            "div",
            { class: "cr-value" },
            el("var", {}, name),
            el("input", {
              type: "range",
              min: -4,
              max: 4,
              step: 0.05,
              "data-name": name,
              "aria-label": `${name}, slider`,
            }),
            el("input", { type: "number", step: "any", "data-name": name, "aria-label": name }),
          ),
        ),
      );
    }
    select.value = answer.wrt;
    const typed = this.fresh ? null : document.activeElement; // what is typed in stays as it is
    this.fresh = false;
    for (const control of findAll(this.$("values"), "[data-name]")) {
      const value = String(answer.expression.values[control.dataset.name]);
      if (control !== typed && control.value !== value) control.value = value;
    }
  }

  drawPaths() {
    const { paths, factors } = this.answer;
    setText(this.$("count"), paths.sentence);
    const byId = new Map(factors.map((/** @type {any} */ f) => [f.id, f]));
    const entries = paths.listed.map((/** @type {any} */ path, /** @type {number} */ i) => {
      const product = path.factors
        .map((/** @type {string} */ id) => byId.get(id)?.value.text ?? "?")
        .join(" · ");
      const share = `${Math.round(100 * path.share)} %`;
      const sign = path.product.sign < 0 ? " cr-negative" : "";
      return `<li data-path="${i}" tabindex="0" class="cr-path${sign}"><span class="cr-way">${escapeHtml(path.text)}</span><span class="cr-product">${escapeHtml(path.factors.length > 1 ? `${product} ${path.product.relation} ` : "")}<b>${escapeHtml(path.product.text)}</b></span><span class="cr-share"><i style="width:${(100 * path.share).toFixed(1)}%"></i></span><span class="cr-percent">${share}</span></li>`;
    });
    if (paths.omitted.value)
      entries.push(
        `<li class="dim">⋯ ${escapeHtml(paths.omitted.text)} more paths, together ${escapeHtml(paths.rest.text)} ⋯</li>`,
      );
    const { total } = paths;
    entries.push(
      `<li class="cr-total">sum of the paths <b>${escapeHtml(`${total.relation} ${total.text}`)}</b></li>`,
    );
    writeEntries(this.$("paths"), entries);
  }

  drawCosts() {
    const { by_path: slow, factored: fast, sentence } = this.answer.multiplications;
    const most = Math.max(slow.value, fast.value, 1);
    const bars = /** @type {[string, any][]} */ ([
      ["path by path", slow],
      ["each node once", fast],
    ]).map(
      ([name, count]) =>
        `<dt>${name}</dt><dd><i style="width:${Math.max(1, (60 * count.value) / most).toFixed(1)}%"></i><b>${escapeHtml(count.text)}</b></dd>`,
    );
    writeInside(this.$("costs"), bars.join(""));
    setText(this.$("cost"), sentence);
  }

  /**
   * Light a path, or a factor, wherever it is.
   * @param {any} element
   */
  light(element) {
    const focused = document.activeElement?.closest?.("[data-path]");
    const at = element ?? (focused && this.root.contains(focused) ? focused : null);
    const path = at?.dataset.path === undefined ? null : this.answer?.paths.listed[at.dataset.path];
    const ids = new Set(
      path ? path.factors : (at?.dataset.factor ?? "").split(" ").filter(Boolean),
    );
    const ends = new Set();
    for (const edge of this.answer?.edges ?? []) {
      if (!path || !ids.has(edge.id)) continue;
      ends.add(edge.source).add(edge.target);
    }
    for (const edge of findAll(this.$("graph"), ".edge"))
      edge.classList.toggle("lit", ids.has(edge.dataset.edge));
    for (const node of findAll(this.$("graph"), ".node"))
      node.classList.toggle("lit", ends.has(node.dataset.node));
    this.$("graph").classList.toggle("cr-dimmed", Boolean(path));
    for (const term of findAll(this.root, "math [data-factor]"))
      term.classList.toggle(
        "lit",
        !path && term.dataset.factor.split(" ").some((/** @type {string} */ id) => ids.has(id)),
      );
    for (const row of findAll(this.$("paths"), "[data-path]"))
      row.classList.toggle("lit", row === at);
  }

  save() {
    if (this.answer) saveGraph(this.answer.svg, "expression.svg");
  }

  /** @param {HTMLElement} button */
  async copy(button) {
    if (!this.answer) return;
    const whole = await ask(this.toQuery());
    const done = !whole.error && (await copy(writeLatex(whole)));
    button.textContent = done ? "Copied" : "Could not copy";
    setTimeout(() => {
      button.textContent = "Copy LaTeX";
    }, 1500);
  }
}

/**
 * The derivation in LaTeX.
 * @param {any} answer
 */
function writeLatex({ lines, subject }) {
  const rows = lines.filter((/** @type {any} */ line) => line.relation);
  const text = rows.map(
    (/** @type {any} */ line, /** @type {number} */ i) =>
      `  ${i ? "" : `${subject.latex} `}&${line.latex.trim()}`,
  );
  return `\\begin{aligned}\n${text.join(" \\\\\n")}\n\\end{aligned}`;
}
