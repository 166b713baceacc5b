/* The explorer's controls: what stands in the page's template, described by the server's table. */

import { find, setText } from "../shared/dom.js";

const TYPING = 200; // ms after the last key until a number counts as typed

/**
 * @typedef {object} Control
 * @property {string} name
 * @property {string} label
 * @property {string} help
 * @property {"range" | "choice" | "number"} kind
 * @property {[string, string][]} choices
 * @property {Record<string, string>} meanings
 * @property {number[]} slider
 * @property {string | null} placeholder
 * @property {Record<string, string[]>} when
 * @property {boolean} more
 * @property {string} default
 */

export class Controls {
  /**
   * @param {HTMLElement} root where they stand
   * @param {Control[]} table descriptions of all controls
   * @param {(name: string, done: boolean) => void} onChange done is false while a slider moves
   */
  constructor(root, table, onChange) {
    this.root = root;
    this.table = table;
    this.onChange = onChange;
    /** @type {Record<string, {control: Control, box: any, input: any, slider: any}>} */
    this.fields = {};
    /** @type {Record<string, string>} */
    this.values = {};
    /** @type {Set<string>} */
    this.locked = new Set();
    /** @type {Set<string>} */
    this.hidden = new Set();
    for (const control of table) {
      this.values[control.name] = control.default;
      this.fields[control.name] = this.connect(control);
    }
  }

  /** @param {Control} control */
  connect(control) {
    const { name } = control;
    const box = find(this.root, `[data-control="${name}"]`);
    const input = find(box, `#control-${name}`);
    const slider = find(box, `#control-${name}-slider`);
    if (control.kind === "choice") {
      input.addEventListener("change", () => this.take(name, input.value, true));
    } else {
      let typing = 0; // digits are awaited: who types 1000 does not ask for 1 and 100
      input.addEventListener("input", () => {
        clearTimeout(typing);
        typing = Number(setTimeout(() => this.take(name, input.value, false), TYPING));
      });
      input.addEventListener("change", () => {
        clearTimeout(typing);
        this.take(name, input.value, true);
      });
    }
    if (slider) {
      const move = (/** @type {boolean} */ done) => {
        const value = String(control.slider[Number(slider.value)]);
        slider.setAttribute("aria-valuetext", value);
        input.value = value;
        this.take(name, value, done);
      };
      slider.addEventListener("input", () => move(false));
      slider.addEventListener("change", () => move(true));
    }
    input.addEventListener("blur", () => this.write(name));
    const ask = find(box, ".ex-ask");
    ask.addEventListener("click", () => {
      const help = find(box, ".ex-help");
      for (const { box: other } of Object.values(this.fields)) {
        if (other === box) continue; // one at a time
        find(other, ".ex-help").hidden = true;
        find(other, ".ex-ask").setAttribute("aria-expanded", "false");
      }
      help.hidden = !help.hidden;
      ask.setAttribute("aria-expanded", String(!help.hidden));
    });
    box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const help = find(box, ".ex-help");
      if (event.key !== "Escape" || help.hidden) return;
      help.hidden = true;
      ask.setAttribute("aria-expanded", "false");
      ask.focus();
    });
    return { control, box, input, slider };
  }

  /**
   * Take over what was typed or chosen, unless it says nothing yet.
   * @param {string} name
   * @param {string} value
   * @param {boolean} done
   */
  take(name, value, done) {
    const { control } = this.fields[name];
    if (value === "" && control.kind !== "choice" && control.placeholder === null) return;
    if (this.values[name] === value && !done) return;
    this.values[name] = value;
    if (control.kind === "choice") this.write(name);
    this.setUse();
    this.onChange(name, done);
  }

  /**
   * Set all controls to what the server made of them; what is being typed in is left alone.
   * @param {Record<string, string>} settings
   */
  show(settings) {
    for (const { name } of this.table) {
      const { input, control } = this.fields[name];
      this.values[name] = settings[name];
      if (input !== document.activeElement || control.kind === "choice") this.write(name);
      else this.moveSlider(name);
    }
    this.setUse();
  }

  /** @param {string} name */
  write(name) {
    const { input, box, control } = this.fields[name];
    const meaning = find(box, ".ex-meaning");
    if (meaning) setText(meaning, control.meanings[this.values[name]] ?? "");
    if (input.value !== this.values[name]) input.value = this.values[name];
    this.moveSlider(name);
  }

  /** @param {string} name */
  moveSlider(name) {
    const { slider, control } = this.fields[name];
    if (!slider) return;
    const value = Number(this.values[name]);
    let nearest = 0;
    control.slider.forEach((stop, index) => {
      if (Math.abs(stop - value) < Math.abs(control.slider[nearest] - value)) nearest = index;
    });
    slider.value = nearest;
    slider.setAttribute("aria-valuetext", this.values[name]);
  }

  /**
   * Whether a control matters beside the others.
   * @param {Control} control
   */
  isUsed(control) {
    return Object.entries(control.when).every(([name, values]) =>
      values.includes(this.values[name]),
    );
  }

  setUse() {
    for (const control of this.table) {
      const { box, input, slider } = this.fields[control.name];
      const used = this.isUsed(control);
      const disabled = !used || this.locked.has(control.name);
      box.hidden = this.hidden.has(control.name) || (!used && !control.more);
      for (const each of [input, slider])
        if (each && each.disabled !== disabled) each.disabled = disabled;
      box.classList.toggle("ex-locked", this.locked.has(control.name));
    }
  }

  /** The further settings in force that differ from their defaults, in words. */
  describeMore() {
    return this.table
      .filter(
        (control) =>
          control.more && this.isUsed(control) && this.values[control.name] !== control.default,
      )
      .map((control) => {
        const value = this.values[control.name];
        const choice = control.choices.find(([name]) => name === value);
        return `${control.label}: ${choice ? choice[1] : value}`;
      });
  }

  /** The settings that differ from their defaults, and the depth always. */
  query() {
    const query = new URLSearchParams();
    for (const control of this.table) {
      const value = this.values[control.name];
      if (!this.isUsed(control) || value === "") continue;
      if (value !== control.default || control.name === "depth") query.set(control.name, value);
    }
    return query;
  }
}
