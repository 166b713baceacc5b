/* Any scalar expression: its graph, its gradient as a sum over paths, and factored.
 *
 * As on the rest of the page, no number is computed here: all come from /api/expression.
 */
import { copy, el, escapeHtml, find, findAll, part } from "../shared/dom.js";
import { capitalize } from "../shared/numbers.js";
import { fitGraph, saveGraph } from "./graph.js";
import { Edits } from "./history.js";
import { speak } from "./speech.js";

const FIRST = "residual"; // the preset that the page begins with
const REST = 250; // milliseconds without a key before the server is asked

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

  /** Take one of the examples. */
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
    clearTimeout(this.waiting);
    this.history.begin(control);
    if (control !== this.field) {
      this.refresh();
      return;
    }
    this.waiting = setTimeout(() => {
      this.waiting = null;
      this.refresh();
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

  async refresh() {
    const query = this.toQuery();
    this.history.write(`?${new URLSearchParams(query)}`);
    this.request?.abort();
    this.request = new AbortController();
    let answer;
    try {
      const found = await fetch(`/api/expression?${new URLSearchParams(query)}`, {
        signal: this.request.signal,
      });
      answer = await found.json();
      if (!found.ok && !answer.error) answer = { error: "The server could not answer." };
    } catch (/** @type {any} */ error) {
      if (error.name === "AbortError") return;
      answer = { error: "The server does not answer." };
    }
    this.showError(answer.error);
    for (const box of findAll(this.root, ".cr-bench, .cr-equations")) {
      box.classList.toggle("cr-stale", Boolean(answer.error));
      box.hidden = Boolean(answer.error && !this.answer);
    }
    if (!answer.error) {
      this.answer = answer;
      this.draw();
    }
    this.root.dataset.shown = JSON.stringify(query);
  }

  /** Say what is wrong with the text, and point at the character. */
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

  draw() {
    const { answer } = this;
    this.state.wrt = answer.wrt;
    this.showControls();
    this.$("graph").innerHTML = answer.svg;
    const svg = find(this.$("graph"), "svg");
    const { width, height } = svg.viewBox.baseVal;
    for (const text of findAll(svg, ":scope > text")) text.remove();
    svg.setAttribute("viewBox", `0 60 ${width} ${height - 68}`);
    fitGraph(svg);
    this.$("bench").classList.toggle("cr-beside", width <= 980);
    const { subject, gradient } = answer;
    this.$("headline").innerHTML =
      `${escapeHtml(subject.text)} <strong>${escapeHtml(`${gradient.relation} ${gradient.text}`)}</strong>`;
    this.drawPaths();
    this.$("lines").innerHTML = answer.lines
      .map(
        (line) =>
          `<li data-kind="${line.kind}"><span class="cr-note">${escapeHtml(line.note)}</span><div class="cr-scroll" tabindex="0" role="group" aria-label="${escapeHtml(speak(line.text))}">${line.mathml}</div></li>`,
      )
      .join("");
    this.$("backward").innerHTML = answer.backward
      .map(
        (line) =>
          `<li><span class="cr-note">${escapeHtml(line.note)}</span><div class="cr-scroll" tabindex="0" role="group" aria-label="${escapeHtml(speak(line.text))}">${line.mathml}</div></li>`,
      )
      .join("");
    const effects = new Map(answer.factors.map((f) => [f.id, f.effect]));
    for (const term of findAll(this.root, "math .factor[data-factor]")) {
      const line = term.closest("li").dataset.kind;
      const effect = effects.get(term.dataset.factor);
      if (effect && (line === "formulas" || line === "numbers")) term.classList.add(effect);
    }
    this.drawCosts();
    this.$("range").textContent = [answer.range_note, ...answer.kinks].filter(Boolean).join(" ");
  }

  showControls() {
    const { answer, state } = this;
    const preset = findAll(this.root, "[data-preset]").find(
      (button) => button.dataset.text === state.text,
    );
    for (const button of findAll(this.root, "[data-preset]"))
      button.setAttribute("aria-pressed", String(button === preset));
    this.$("sentence").textContent = preset?.dataset.sentence ?? "";
    const select = this.$("wrt");
    const names = answer.variables.join();
    if (select.dataset.names !== names) {
      select.dataset.names = names;
      select.replaceChildren(
        ...answer.variables.map((name) => el("option", { value: name }, name)),
      );
      this.$("values").replaceChildren(
        ...answer.variables.map((name) =>
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
    for (const control of findAll(this.$("values"), "[data-name]"))
      if (control !== typed) control.value = answer.expression.values[control.dataset.name];
  }

  drawPaths() {
    const { paths } = this.answer;
    this.$("count").textContent = paths.sentence;
    const effects = new Map(this.answer.factors.map((f) => [f.id, f]));
    this.$("paths").innerHTML = paths.listed
      .map((path, i) => {
        const product = path.factors.map((id) => effects.get(id)?.value.text ?? "?").join(" · ");
        const share = `${Math.round(100 * path.share)} %`;
        const sign = path.product.sign < 0 ? " cr-negative" : "";
        return `<li data-path="${i}" tabindex="0" class="cr-path${sign}"><span class="cr-way">${escapeHtml(path.text)}</span><span class="cr-product">${escapeHtml(path.factors.length > 1 ? `${product} ${path.product.relation} ` : "")}<b>${escapeHtml(path.product.text)}</b></span><span class="cr-share"><i style="width:${(100 * path.share).toFixed(1)}%"></i></span><span class="cr-percent">${share}</span></li>`;
      })
      .join("");
    if (paths.omitted.value)
      this.$("paths").append(
        el(
          "li",
          { class: "dim" },
          `⋯ ${paths.omitted.text} more paths, together ${paths.rest.text} ⋯`,
        ),
      );
    const { total } = paths;
    this.$("paths").append(
      el(
        "li",
        { class: "cr-total" },
        "sum of the paths ",
        el("b", {}, `${total.relation} ${total.text}`),
      ),
    );
  }

  drawCosts() {
    const { by_path: slow, factored: fast, sentence } = this.answer.multiplications;
    const most = Math.max(slow.value, fast.value, 1);
    this.$("costs").innerHTML = [
      ["path by path", slow],
      ["each node once", fast],
    ]
      .map(
        ([name, count]) =>
          `<dt>${name}</dt><dd><i style="width:${Math.max(1, (60 * count.value) / most).toFixed(1)}%"></i><b>${escapeHtml(count.text)}</b></dd>`,
      )
      .join("");
    this.$("cost").textContent = sentence;
  }

  /** Light a path, or a factor, wherever it is. */
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

  async copy(button) {
    if (!this.answer) return;
    const rows = this.answer.lines.filter((/** @type {any} */ line) => line.relation);
    const { latex } = this.answer.subject;
    const text = rows.map(
      (/** @type {any} */ line, /** @type {number} */ i) =>
        `  ${i ? "" : `${latex} `}&${line.latex.trim()}`,
    );
    const done = await copy(`\\begin{aligned}\n${text.join(" \\\\\n")}\n\\end{aligned}`);
    button.textContent = done ? "Copied" : "Could not copy";
    setTimeout(() => {
      button.textContent = "Copy LaTeX";
    }, 1500);
  }
}
