/* One product shown several ways, and what links them: equation, chart, strip, graph, steps.
 *
 * Everything that stands for a factor carries its id in data-factor (several, where it stands for
 * several), so lighting is one query within the view. The page has two views: that of the chain,
 * and that of a measured network.
 */
import { copy, escapeHtml, find, findAll, part, setText } from "../shared/dom.js";
import { equal } from "./charts.js";
import { writeEntries } from "./patch.js";
import { speak } from "./speech.js";

const PACE = 1100; // milliseconds for a factor while playing
/** Terms that are coloured by what they do to the gradient, and how. */
export const COLOURED =
  'li:is([data-kind="formulas"], [data-kind="numbers"]) math .factor[data-factor]';
export const EFFECTS = ["shrinks", "keeps", "grows", "blocks"];

/**
 * Show whether a button is pressed, and what it does next.
 * @param {HTMLElement} button
 * @param {boolean} on
 * @param {string} off what it says while it is pressed
 * @param {string} words what it says otherwise
 */
const press = (button, on, off, words) => {
  setText(button, on ? off : words);
  button.setAttribute("aria-pressed", String(on));
};

/**
 * A line of the derivation, as it is shown.
 * @param {any} line
 * @param {{text: string, mathml: string}} shown
 */
const writeLine = (line, shown) =>
  `<li data-row data-kind="${line.kind}" data-text="${escapeHtml(shown.text)}"><span class="cr-note">${escapeHtml(line.note)}</span><div class="cr-scroll" tabindex="-1">${shown.mathml}</div></li>`;

/**
 * Let Tab reach some terms once, and the arrow keys the others.
 * @param {any[]} terms
 * @param {(term: any) => [string, string]} describe gives a term's role and name
 */
const reach = (terms, describe) => {
  const at = Math.max(
    terms.findIndex((term) => term.getAttribute("tabindex") === "0"),
    0,
  );
  for (const [i, term] of terms.entries()) {
    const [role, name] = describe(term);
    term.setAttribute("tabindex", i === at ? "0" : "-1");
    term.setAttribute("role", role);
    term.setAttribute("aria-label", name);
  }
};

export class View {
  /**
   * @param {HTMLElement} box the element that holds the view
   * @param {string} prefix begins the names of its parts and buttons
   * @param {object} hooks
   * @param {() => void} hooks.draw draws the graph
   * @param {string} hooks.start what is said before the first factor
   * @param {(step: number | null, moved: boolean) => void} [hooks.pass] shows how far the backward pass is
   * @param {(ids: Set<string>) => void} [hooks.lit] lights what else belongs to factors
   * @param {() => void} [hooks.wantMore] asks for lines left out, or for full forms of folded ones
   * @param {() => Promise<any>} [hooks.askWhole] asks for the answer with LaTeX, if it has none yet
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
    this.isLit = false; // whether anything is
    this.isShaded = false;
    /** @type {ReturnType<typeof setInterval> | undefined} */
    this.timer = undefined;
  }

  /** @param {string} name */
  $(name) {
    return part(this.box, this.prefix + name);
  }

  /** @param {string} name */
  button(name) {
    return find(this.box, `[data-do="${this.prefix}${name}"]`);
  }

  /**
   * Show another product; a step stays where it still means the same factor.
   * @param {any} answer
   */
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

  /**
   * Do what a button says; return whether it is one of this view's.
   * @param {string} name
   */
  act(name) {
    const count = this.answer?.factors.length || 0;
    if (name === "next") this.showStep(Math.min((this.step ?? 0) + 1, count));
    else if (name === "back") this.showStep(Math.max((this.step ?? count) - 1, 0));
    else if (name === "reset") this.showStep(null);
    else if (name === "play") this.play();
    else if (name === "fold") {
      this.unfolded = !this.unfolded;
      const { lines } = this.answer;
      if (this.unfolded && lines.some((/** @type {any} */ line) => line.unfolds && !line.unfolded))
        this.hooks.wantMore?.();
      else {
        this.showEquation();
        this.shade();
      }
    } else if (name === "lines" || name === "lines-here") this.toggleLines(name);
    else if (name === "copy") this.copy();
    else return false;
    return true;
  }

  // --- the equation -------------------------------------------------------------------------

  showEquation() {
    const { lines, factors, hidden_lines: left } = this.answer;
    const folds = lines.some((/** @type {any} */ line) => line.unfolds);
    this.button("fold").hidden = !folds;
    press(this.button("fold"), this.unfolded, "Fold the middle", "Show all factors");
    const more = this.button("lines");
    if (more) {
      more.hidden = !left;
      press(more, this.allLines, "Fold the lines", "Show all lines");
    }
    const visible = lines.filter((/** @type {any} */ line) => !line.hidden || this.allLines);
    const entries = visible.flatMap((/** @type {any} */ line, /** @type {number} */ i) => {
      const skips = i && line.number > visible[i - 1].number + 1;
      return [...(skips ? [this.writeGap(left)] : []), writeLine(line, this.pick(line))];
    });
    const byId = new Map(factors.map((/** @type {any} */ f) => [f.id, f]));
    const written = writeEntries(this.$("lines"), entries);
    for (const row of findAll(this.$("lines"), "li[data-kind]"))
      if (written.includes(row) || /derivative|value/.test(row.dataset.kind))
        this.nameTerms(row, byId, folds);
    for (const term of findAll(this.$("lines"), COLOURED)) {
      const effect = byId.get(term.dataset.factor)?.effect;
      for (const each of EFFECTS) term.classList.toggle(each, each === effect);
    }
  }

  /**
   * What stands in place of lines that are left out.
   * @param {number} left how many
   */
  writeGap(left) {
    return `<li class="cr-note">⋯ ${left} more line${left > 1 ? "s" : ""}, each with one more intermediate variable ⋯ <button data-do="${this.prefix}lines-here">Show them</button></li>`;
  }

  /**
   * Let the keyboard and assistive technology reach the parts of a line.
   * @param {any} row
   * @param {Map<string, any>} byId
   * @param {boolean} folds whether folded factors can be shown
   */
  nameTerms(row, byId, folds) {
    const { factors, subject, gradient } = this.answer;
    const { kind, text } = row.dataset;
    // A formula's parts are nothing to assistive technology; a group's can be reached.
    const math = find(row, "math");
    math?.setAttribute("role", "group");
    math?.setAttribute("aria-label", speak(text));
    if (kind === "derivative" || kind === "value") {
      const whole = `${subject.text} ${equal(gradient)}: all ${factors.length} factors`;
      reach(findAll(row, "[data-factor]"), () => ["img", whole]);
    } else if (kind === "product" || kind === "formulas" || kind === "numbers")
      reach(findAll(row, ".factor[data-factor], .fold[data-factor]"), (term) => {
        if (term.matches(".fold")) {
          const count = term.dataset.factor.split(" ").length;
          return [folds ? "button" : "img", `${count} factors folded${folds ? "; show them" : ""}`];
        }
        // What stands there is what is said.
        const f = byId.get(term.dataset.factor);
        const written = { product: f?.symbol, formulas: f?.substituted, numbers: f?.value.text };
        const edit = Boolean(this.hooks.canEdit?.(term.dataset.factor));
        const said = speak(written[/** @type {keyof typeof written} */ (kind)] ?? term.textContent);
        return [edit ? "button" : "img", `${said}${edit ? "; change it" : ""}`];
      });
  }

  /** @param {string} name of the button that was pressed */
  toggleLines(name) {
    this.allLines = !this.allLines;
    if (name === "lines-here") this.button("lines").focus();
    const { lines, hidden_lines: left } = this.answer;
    const here = lines.filter((/** @type {any} */ line) => line.hidden).length;
    if (this.allLines && here < left) this.hooks.wantMore?.();
    else {
      this.showEquation();
      this.shade();
    }
  }

  // --- the steps ----------------------------------------------------------------------------

  /**
   * Show the backward pass up to a step: 0 is before the first factor, `null` all of it.
   * @param {number | null} step
   */
  showStep(step) {
    const { factors, gradient, subject } = this.answer;
    const moved = step !== null && step === (this.step ?? 0) + 1;
    this.step = step;
    const done = step ?? factors.length;
    const factor = done > 0 ? factors[done - 1] : null;
    setText(this.$("step-count"), `${done} of ${factors.length} factors`);
    setText(this.$("step-product"), factor ? factor.running_product.text : "1");
    setText(
      this.$("step-sentence"),
      step === null
        ? `The whole product: ${subject.text} ${equal(gradient)}.`
        : factor
          ? `${factor.sentence}.`
          : this.hooks.start,
    );
    // Not `disabled`: that would take the keyboard's place away at either end.
    const mark = (/** @type {string} */ name, /** @type {boolean} */ off) =>
      this.button(name).setAttribute("aria-disabled", String(off));
    mark("next", step !== null && done >= factors.length);
    mark("back", done <= 0);
    const written = this.$("step-math");
    if (written)
      setText(
        written,
        step && factor
          ? `${step > 1 ? factors[step - 2].running_product.text : "1"} × ${factor.value.text} ≈ ${factor.running_product.text}`
          : "",
      );
    this.shade();
    this.hooks.pass?.(step, moved);
    this.light(null);
    if (step) this.center();
  }

  /** Pale what the stepped backward pass has not reached yet. */
  shade() {
    if (this.step === null && !this.isShaded) return;
    this.isShaded = this.step !== null;
    const later = new Set(
      this.step === null
        ? []
        : this.answer.factors.slice(this.step).map((/** @type {any} */ f) => f.id),
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
    this.timer = undefined;
    this.press(false);
  }

  /** @param {boolean} playing */
  press(playing) {
    this.button("play").textContent = playing ? "Pause" : "Play";
    this.button("play").setAttribute("aria-pressed", String(playing));
  }

  // --- linking ------------------------------------------------------------------------------

  /**
   * Light what belongs to an element; to none, what the focus or the step is at.
   * @param {any} element
   */
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

  /** @param {Set<string>} ids */
  lightIds(ids) {
    if (!ids.size && !this.isLit) return;
    this.isLit = ids.size > 0;
    for (const entry of findAll(this.box, "[data-factor]")) {
      const own = entry.dataset.factor.split(" ");
      entry.classList.toggle(
        "lit",
        own.some((/** @type {string} */ id) => ids.has(id)),
      );
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

  /**
   * The derivation as it is on screen: what is folded there is folded here.
   * @param {any} answer
   */
  writeLatex({ lines, subject }) {
    const rows = [];
    let last = 0;
    for (const line of lines.filter((/** @type {any} */ each) => !each.hidden || this.allLines)) {
      const skipped = last && line.number > last + 1;
      last = line.number;
      if (!line.relation) continue;
      if (skipped) rows.push("= \\;\\vdots");
      rows.push(`${line.relation === "≈" ? "\\approx" : line.relation} ${this.pick(line).latex}`);
    }
    return `\\begin{aligned}\n${rows.map((row, i) => `  ${i ? "" : `${subject.latex} `}&${row}`).join(" \\\\\n")}\n\\end{aligned}`;
  }

  /**
   * A line as it is on screen.
   * @param {any} line
   */
  pick(line) {
    return this.unfolded && line.unfolded ? line.unfolded : line;
  }

  async copy() {
    const button = this.button("copy");
    const whole = this.hooks.askWhole ? await this.hooks.askWhole() : this.answer;
    if (!whole) return; // asked once more: the newer question copies
    const done = !whole.error && (await copy(this.writeLatex(whole)));
    button.textContent = done ? "Copied" : "Could not copy";
    setTimeout(() => {
      button.textContent = "Copy LaTeX";
    }, 1500);
  }
}
