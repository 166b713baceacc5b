/* The controls of the explore page, built from the server's table of them (controls.py). */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";

  const TYPING = 200; // ms after the last key until a number counts as typed
  const { el } = chainrule.dom;

  class Controls {
    /**
     * @param table descriptions of all controls
     * @param onChange called with (name, done): done is false while a slider is being dragged
     */
    constructor(table, onChange) {
      Object.assign(this, { table, onChange });
      this.fields = Object.fromEntries(table.map((control) => [control.name, this.build(control)]));
      this.values = Object.fromEntries(table.map((control) => [control.name, control.default]));
      this.help = el("p", { class: "ex-help", "aria-hidden": "true", "data-part": "help" });
      this.explain("");
      this.locked = new Set();
      this.hidden = new Set();
    }

    /** Explain a control in the place kept for it: nothing moves when the focus does. */
    explain(words) {
      this.help.textContent = words || "Each setting explains itself here.";
    }

    node(name) {
      return this.fields[name].box;
    }

    build(control) {
      const id = `control-${control.name}`;
      const help = el("p", { class: "fv-hidden", id: `${id}-help` }, control.help);
      const shared = { id, "data-name": control.name, "aria-describedby": `${id}-help` };
      const field = { control };
      if (control.kind === "choice") {
        field.input = el("select", shared, control.choices.map(([value, label]) => el("option", { value }, label)));
        field.input.addEventListener("change", () => this.take(control.name, field.input.value, true));
      } else {
        field.input = el("input", { ...shared, type: "number", inputmode: control.step === 1 ? "numeric" : "decimal", min: control.low, max: control.high, step: control.step, placeholder: control.placeholder });
        let typing = null; // digits are awaited: who types 1000 does not ask for 1 and 100
        field.input.addEventListener("input", () => {
          clearTimeout(typing);
          typing = setTimeout(() => this.take(control.name, field.input.value, false), TYPING);
        });
        field.input.addEventListener("change", () => {
          clearTimeout(typing);
          this.take(control.name, field.input.value, true);
        });
      }
      const head = el("div", { class: "ex-control-head" }, el("label", { for: id }, control.label), control.kind === "choice" ? null : field.input);
      const parts = [head];
      if (control.kind === "choice") parts.push(field.input);
      if (control.slider.length) {
        field.slider = el("input", { type: "range", min: 0, max: control.slider.length - 1, step: 1, id: `${id}-slider`, "aria-label": `${control.label}, slider`, "aria-describedby": `${id}-help` });
        const move = (done) => {
          const value = String(control.slider[Number(field.slider.value)]);
          field.slider.setAttribute("aria-valuetext", value);
          field.input.value = value;
          this.take(control.name, value, done);
        };
        field.slider.addEventListener("input", () => move(false));
        field.slider.addEventListener("change", () => move(true));
        const ends = [control.slider[0], control.slider[control.slider.length - 1]];
        parts.push(field.slider, el("div", { class: "ex-ends", "aria-hidden": "true" }, el("span", {}, String(ends[0])), el("span", {}, String(ends[1]))));
      }
      field.box = el("div", { class: "ex-control", "data-control": control.name }, parts, help);
      field.input.addEventListener("blur", () => this.write(control.name));
      field.box.addEventListener("focusin", () => this.explain(control.help));
      field.box.addEventListener("focusout", () => this.explain(""));
      return field;
    }

    /** Take over what was typed or chosen, unless it says nothing yet. */
    take(name, value, done) {
      const { control } = this.fields[name];
      if (value === "" && control.kind !== "choice" && control.placeholder === null) return;
      if (this.values[name] === value && !done) return;
      this.values[name] = value;
      this.setUse();
      this.onChange(name, done);
    }

    /** Set all controls to what the server made of them; what is being typed in is left alone. */
    show(settings) {
      for (const { name } of this.table) {
        this.values[name] = settings[name];
        if (this.fields[name].input !== document.activeElement || this.fields[name].control.kind === "choice") this.write(name);
        else this.moveSlider(name);
      }
      this.setUse();
    }

    write(name) {
      const { input } = this.fields[name];
      if (input.value !== this.values[name]) input.value = this.values[name];
      this.moveSlider(name);
    }

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

    /** Whether a control matters beside the others. */
    inUse(control) {
      return Object.entries(control.when).every(([name, values]) => values.includes(this.values[name]));
    }

    setUse() {
      for (const control of this.table) {
        const { box, input, slider } = this.fields[control.name];
        const used = this.inUse(control);
        box.hidden = this.hidden.has(control.name) || (!used && !control.more);
        const disabled = !used || this.locked.has(control.name);
        for (const part of [input, slider]) if (part && part.disabled !== disabled) part.disabled = disabled;
        box.classList.toggle("ex-locked", this.locked.has(control.name));
      }
    }

    /** The further settings in force that differ from their defaults, in words. */
    describeMore() {
      return this.table
        .filter((control) => control.more && this.inUse(control) && this.values[control.name] !== control.default)
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
        if (!this.inUse(control) || value === "") continue;
        if (value !== control.default || control.name === "depth") query.set(control.name, value);
      }
      return query;
    }
  }

  chainrule.Controls = Controls;
})();
