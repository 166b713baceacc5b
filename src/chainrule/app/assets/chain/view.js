/* One product shown several ways, and what links them: equation, chart, strip, graph, steps.
 *
 * Everything that stands for a factor carries its id in data-factor (several, where it stands for
 * several), so lighting is one query within the view. The page has two views: that of the chain,
 * and that of a measured network.
 */
import { escapeHtml, find, findAll, part } from "../shared/dom.js";
import { equal } from "./charts.js";
import { speak } from "./speech.js";

const PACE = 1100; // milliseconds for a factor while playing

export class View {
  /**
   * @param {HTMLElement} box the element that holds the view
   * @param {string} prefix begins the names of its parts and buttons
   * @param {object} hooks
   * @param {() => void} hooks.draw draws graph and charts
   * @param {string} hooks.start what is said before the first factor
   * @param {(step: number | null, moved: boolean) => void} [hooks.pass] shows how far the backward pass is
   * @param {(ids: Set<string>) => void} [hooks.lit] lights what else belongs to factors
   * @param {() => void} [hooks.wantLines] asks for the lines left out
   * @param {(id: string) => boolean} [hooks.canEdit] whether a factor can be changed
   */
  constructor(box, prefix, hooks) {
    this.box = box;
    this.prefix = prefix;
    this.hooks = hooks;
    /** @type {any} */
    this.answer = null;
    /** @type {number | null} */
    this.step = null; // null: the whole product
    this.unfolded = false;
    this.allLines = false;
    this.hovering = false;
    /** @type {any} */
    this.timer = null;
  }

  /** @param {string} name */
  $(name) {
    return part(this.box, this.prefix + name);
  }

  /** @param {string} name */
  button(name) {
    return find(this.box, `[data-do="${this.prefix}${name}"]`);
  }

  /** Show another product; a step stays where it still means the same factor. */
  show(answer) {
    const before = this.answer;
    this.answer = answer;
    const same =
      this.step === 0 ||
      (this.step && before?.factors[this.step - 1]?.id === answer.factors[this.step - 1]?.id);
    if (!same && this.timer) this.pause();
    this.hooks.draw();
    this.showEquation();
    this.showStep(same ? this.step : null);
  }

  /** Do what a button says; return whether it is one of this view's. */
  act(name) {
    const count = this.answer?.factors.length || 0;
    if (name === "next") this.showStep(Math.min((this.step ?? 0) + 1, count));
    else if (name === "back") this.showStep(Math.max((this.step ?? count) - 1, 0));
    else if (name === "reset") this.showStep(null);
    else if (name === "play") this.play();
    else if (name === "fold") {
      this.unfolded = !this.unfolded;
      this.showEquation();
      this.shade();
    } else if (name === "lines" || name === "lines-here") this.toggleLines(name);
    else if (name === "copy") this.copy();
    else return false;
    return true;
  }

  // --- the equation -------------------------------------------------------------------------

  showEquation() {
    const { lines, factors, subject, gradient, hidden_lines: left } = this.answer;
    const folds = lines.some((line) => line.folds && line.unfolded);
    const press = (button, on, words) => {
      button.textContent = words;
      button.setAttribute("aria-pressed", String(on));
    };
    this.button("fold").hidden = !folds;
    press(
      this.button("fold"),
      this.unfolded,
      this.unfolded ? "Fold the middle" : "Show all factors",
    );
    const more = this.button("lines");
    if (more) {
      more.hidden = !left;
      press(more, this.allLines, this.allLines ? "Fold the lines" : "Show all lines");
    }
    const byId = new Map(factors.map((f) => [f.id, f]));
    /** What stands there is what is said. */
    const say = (kind, term) => {
      const f = byId.get(term.dataset.factor);
      const written = { product: f?.symbol, formulas: f?.substituted, numbers: f?.value.text }[
        kind
      ];
      const edit = this.hooks.canEdit?.(term.dataset.factor) ? "; change it" : "";
      return `${speak(written ?? term.textContent)}${edit}`;
    };
    const visible = lines.filter((line) => !line.hidden || this.allLines);
    const at = visible.findIndex((line, i) => i && line.number > visible[i - 1].number + 1);
    const items = visible.map((line, index) => {
      const gap =
        index === at
          ? `<li class="cr-note">⋯ ${left} more line${left > 1 ? "s" : ""}, each with one more intermediate variable ⋯ <button data-do="${this.prefix}lines-here">Show them</button></li>`
          : "";
      const shown = this.pick(line);
      return `${gap}<li data-row data-kind="${line.kind}" data-text="${escapeHtml(shown.text)}"><span class="cr-note">${escapeHtml(line.note)}</span><div class="cr-scroll" tabindex="-1">${shown.mathml}</div></li>`;
    });
    this.$("lines").innerHTML = items.join("");
    const reach = (row, selector, role, describe) => {
      findAll(row, selector).forEach((term, index) => {
        term.setAttribute("tabindex", index ? "-1" : "0");
        term.setAttribute("role", role(term));
        term.setAttribute("aria-label", describe(term));
      });
    };
    const kinds = { product: 1, formulas: 1, numbers: 1, derivative: 2, value: 2 };
    const whole = `${subject.text} ${equal(gradient)}: all ${factors.length} factors`;
    for (const row of this.$("lines").querySelectorAll("li[data-kind]")) {
      const kind = kinds[row.dataset.kind];
      // A formula's parts are nothing to assistive technology; a group's can be reached.
      find(row, "math")?.setAttribute("role", "group");
      find(row, "math")?.setAttribute("aria-label", speak(row.dataset.text));
      if (kind === 1) {
        reach(
          row,
          ".factor[data-factor], .fold[data-factor]",
          (term) =>
            (term.matches(".fold") && folds) || this.hooks.canEdit?.(term.dataset.factor)
              ? "button"
              : "img",
          (term) =>
            term.matches(".fold")
              ? `${term.dataset.factor.split(" ").length} factors folded${folds ? "; show them" : ""}`
              : say(row.dataset.kind, term),
        );
        for (const term of findAll(row, ".factor[data-factor]")) {
          const effect = byId.get(term.dataset.factor)?.effect;
          if (effect && row.dataset.kind !== "product") term.classList.add(effect);
        }
      } else if (kind === 2)
        reach(
          row,
          "[data-factor]",
          () => "img",
          () => whole,
        );
    }
  }

  toggleLines(name) {
    this.allLines = !this.allLines;
    if (name === "lines-here") this.button("lines").focus();
    const { lines, hidden_lines: left } = this.answer;
    if (this.allLines && lines.filter((line) => line.hidden).length < left)
      this.hooks.wantLines?.();
    else {
      this.showEquation();
      this.shade();
    }
  }

  // --- the steps ----------------------------------------------------------------------------

  /** Show the backward pass up to a step: 0 is before the first factor, `null` all of it. */
  showStep(step) {
    const { factors, gradient, subject } = this.answer;
    const moved = step !== null && step === (this.step ?? 0) + 1;
    this.step = step;
    const done = step ?? factors.length;
    const factor = done > 0 ? factors[done - 1] : null;
    this.$("step-count").textContent = `${done} of ${factors.length} factors`;
    this.$("step-product").textContent = factor ? factor.running_product.text : "1";
    this.$("step-sentence").textContent =
      step === null
        ? `The whole product: ${subject.text} ${equal(gradient)}.`
        : factor
          ? `${factor.sentence}.`
          : this.hooks.start;
    // Not `disabled`: that would take the keyboard's place away at either end.
    const mark = (name, off) => this.button(name).setAttribute("aria-disabled", String(off));
    mark("next", step !== null && done >= factors.length);
    mark("back", done <= 0);
    const written = this.$("step-math");
    if (written)
      written.textContent =
        step && factor
          ? `${step > 1 ? factors[step - 2].running_product.text : "1"} × ${factor.value.text} ≈ ${factor.running_product.text}`
          : "";
    this.shade();
    this.hooks.pass?.(step, moved);
    this.light(null);
    if (step) this.center();
  }

  /** Pale what the stepped backward pass has not reached yet. */
  shade() {
    const later = new Set(
      this.step === null ? [] : this.answer.factors.slice(this.step).map((f) => f.id),
    );
    for (const entry of findAll(
      this.box,
      ".factor[data-factor], .bar[data-factor], .link[data-factor], .gain[data-factor]",
    )) {
      entry.classList.toggle("later", later.has(entry.dataset.factor));
    }
  }

  play() {
    if (this.timer) return this.pause();
    this.press(true);
    if (this.step === null || this.step >= this.answer.factors.length) this.showStep(0);
    this.timer = setInterval(() => {
      if (!this.box.isConnected) return this.pause();
      if (this.hovering) return;
      if (this.step === null || this.step >= this.answer.factors.length) return this.pause();
      this.showStep(this.step + 1);
    }, PACE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.press(false);
  }

  press(playing) {
    this.button("play").textContent = playing ? "Pause" : "Play";
    this.button("play").setAttribute("aria-pressed", String(playing));
  }

  // --- linking ------------------------------------------------------------------------------

  /** Light what belongs to an element; to none, what the focus or the step is at. */
  light(element) {
    this.hovering = Boolean(element);
    if (!element) {
      element = document.activeElement?.closest?.("[data-factor]");
      if (!this.box.contains(element)) element = null;
    }
    const ids = element
      ? element.dataset.factor.split(" ").filter(Boolean)
      : this.step
        ? [this.answer.factors[this.step - 1].id]
        : [];
    this.lightIds(new Set(ids));
  }

  lightIds(ids) {
    for (const entry of findAll(this.box, "[data-factor]")) {
      const own = entry.dataset.factor.split(" ");
      entry.classList.toggle("lit", ids.size > 0 && own.some((id) => ids.has(id)));
    }
    this.hooks.lit?.(ids);
    if (ids.size === 1) this.bringBar();
  }

  /** Scroll the chart to the bar that is lit, where it has more bars than room. */
  bringBar() {
    const tall = find(this.box, ".cr-tall");
    const lit = tall?.querySelector(".bar.lit");
    if (!lit || tall.matches(":hover") || tall.scrollHeight <= tall.clientHeight) return;
    const [at, around] = [lit.getBoundingClientRect(), tall.getBoundingClientRect()];
    if (at.top < around.top) tall.scrollTop += at.top - around.top;
    else if (at.bottom > around.bottom) tall.scrollTop += at.bottom - around.bottom;
  }

  /** Scroll what is lit into sight where a picture is wider than the page. */
  center() {
    for (const scroll of findAll(this.box, ".cr-wide")) {
      if (scroll.scrollWidth <= scroll.clientWidth + 1) continue;
      const lit = find(scroll, "g.lit");
      if (!lit) continue;
      const [at, around] = [lit.getBoundingClientRect(), scroll.getBoundingClientRect()];
      if (at.left < around.left + 40 || at.right > around.right - 40) {
        scroll.scrollLeft += (at.left + at.right - around.left - around.right) / 2;
      }
    }
  }

  // --- taking along -------------------------------------------------------------------------

  /** The derivation as it is on screen: what is folded there is folded here. */
  writeLatex() {
    const { lines, subject } = this.answer;
    const rows = [];
    let last = 0;
    for (const line of lines.filter((each) => !each.hidden || this.allLines)) {
      const skipped = last && line.number > last + 1;
      last = line.number;
      if (!line.relation) continue;
      if (skipped) rows.push("= \\;\\vdots");
      rows.push(`${line.relation === "≈" ? "\\approx" : line.relation} ${this.pick(line).latex}`);
    }
    return `\\begin{aligned}\n${rows.map((row, i) => `  ${i ? "" : `${subject.latex} `}&${row}`).join(" \\\\\n")}\n\\end{aligned}`;
  }

  /** A line as it is on screen. */
  pick(line) {
    return this.unfolded && line.unfolded ? line.unfolded : line;
  }

  async copy() {
    const button = this.button("copy");
    try {
      await navigator.clipboard.writeText(this.writeLatex());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Could not copy";
    }
    setTimeout(() => (button.textContent = "Copy LaTeX"), 1500);
  }
}
