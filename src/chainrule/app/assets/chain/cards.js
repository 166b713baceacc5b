/* The chain-rule page's two cards beside the chain: why products vanish, and through time. */

import { subscript } from "../shared/numbers.js";
import { MAX_STEPS } from "./address.js";
import { lineChart, regionChart, widthOf } from "./charts.js";
import { setValue } from "./controls.js";

/** @typedef {import("./answers.js").Quantity} Quantity */

/**
 * The points of a line over the layers.
 * @param {Quantity[]} list
 * @returns {[number, number | null][]}
 */
const line = (list) => list.map((p, i) => [i + 1, p.log10]);

/**
 * Return what a number box says, or the last good value, with a word about that in the note.
 * @param {HTMLInputElement} box
 * @param {number} last
 * @param {string[]} note
 */
const readBox = (box, last, note) => {
  if (Number.isFinite(box.valueAsNumber)) return box.valueAsNumber;
  note.push(`${box.dataset.name || "w"}: a finite number is needed; keeping ${last}.`);
  return last;
};

export class Cards {
  /**
   * @param {import("./chain.js").Page} page
   * @param {import("./address.js").CardValues} values
   */
  constructor(page, values) {
    this.page = page;
    this.values = values;
    /** @type {any} */
    this.depthAnswer = null;
    /** @type {any} */
    this.timeAnswer = null;
  }

  /** @param {string} name */
  $(name) {
    return this.page.$(name);
  }

  /** Set the controls as the values say. */
  showControls() {
    const { depth, time } = this.values;
    for (const [part, value] of [
      ["depth-w", depth.w],
      ["depth-w-range", depth.w],
      ["depth-activation", depth.activation],
      ["rnn-w", time.w],
      ["rnn-w-range", time.w],
      ["rnn-steps", time.steps],
      ["rnn-activation", time.activation],
      ["rnn-clip", time.clip],
    ])
      setValue(this.$(part), value);
  }

  refresh() {
    this.showControls();
    return Promise.all([this.refreshDepth(), this.refreshTime()]);
  }

  /**
   * Show many layers like the first one of a chain.
   * @param {import("./address.js").Chain} chain
   */
  take({ weights, activation }) {
    Object.assign(this.values.depth, { w: weights[0], activation: activation.split(",")[0] });
    this.showControls();
    this.page.writeAddress();
    return this.refreshDepth();
  }

  /** @param {HTMLElement} source the control that was moved */
  readDepth(source) {
    /** @type {string[]} */
    const note = [];
    const range = this.$("depth-w-range");
    const depth = this.values.depth;
    depth.w = source === range ? Number(range.value) : readBox(this.$("depth-w"), depth.w, note);
    depth.activation = this.$("depth-activation").value;
    this.$("depth-note").textContent = note.join(" ");
    this.showControls();
    this.page.writeAddress();
    return this.refreshDepth();
  }

  async refreshDepth() {
    const { page } = this;
    const { w, activation } = this.values.depth;
    const answer = await page.ask("/api/depth", { w, activation, depth: 50 });
    if (!answer) return;
    this.$("depth-sentence").textContent = answer.error || answer.sentence;
    // In the walk, people find the threshold before they read it.
    if (answer.error) return;
    this.depthAnswer = answer;
    page.walk.find(activation, answer.size, answer.threshold);
    this.drawDepth();
  }

  drawDepth() {
    const answer = this.depthAnswer;
    if (!answer) return;
    const [last, best] = [answer.products.at(-1), answer.best.at(-1)];
    this.$("depth-chart").innerHTML = lineChart({
      width: widthOf(this.$("depth-chart")),
      label: `Running product over 1 to 50 layers; at 50 layers ${last.text}, in the best case ${best.text}.`,
      x: "layers",
      band: [-1, 1],
      series: [
        { name: "this chain", color: "var(--ink)", points: line(answer.products) },
        {
          name: "best case: |w| times the largest |φ′|",
          color: "var(--soft)",
          dash: "6 5",
          points: line(answer.best),
        },
      ],
    });
    this.$("depth-end").textContent =
      `After 50 layers: ${last.text}, in the best case ${best.text}.`;
    this.$("region-chart").innerHTML = regionChart(answer, widthOf(this.$("depth-chart")));
  }

  /** @param {HTMLElement} source the control that was moved */
  readTime(source) {
    /** @type {string[]} */
    const note = [];
    const range = this.$("rnn-w-range");
    const time = this.values.time;
    time.w = source === range ? Number(range.value) : readBox(this.$("rnn-w"), time.w, note);
    const steps = Math.round(readBox(this.$("rnn-steps"), time.steps, note));
    time.steps = Math.max(1, Math.min(MAX_STEPS, steps));
    if (time.steps !== steps) note.push(`steps: 1 to ${MAX_STEPS} here; using ${time.steps}.`);
    time.activation = this.$("rnn-activation").value;
    time.clip = this.$("rnn-clip").value;
    this.$("rnn-note").textContent = note.join(" ");
    this.showControls();
    this.page.writeAddress();
    return this.refreshTime();
  }

  async refreshTime() {
    const { w, steps, activation, clip } = this.values.time;
    const answer = await this.page.ask("/api/recurrence", {
      w,
      steps,
      activation,
      x: "0.1",
      ...(clip ? { clip } : {}),
    });
    if (!answer) return;
    this.$("rnn-sentence").textContent = answer.error || answer.sentence;
    if (answer.error) return;
    this.$("rnn-equation").innerHTML = answer.mathml;
    this.timeAnswer = { ...answer, clip };
    const [first, last] = [answer.uses.at(-1), answer.uses[0]];
    this.$("rnn-sum").textContent =
      `∂p/∂x, above, is one product: the way back to the input x = ${answer.x}. ∂p/∂w is a sum: w is used ${steps} time${steps > 1 ? "s" : ""}, and every use adds its own product, ∂p/∂w = ∂p/∂w₁ + … + ∂p/∂w${subscript(steps)}. The first use adds ${first.text}, the last one ${last.text}.`;
    this.drawTime();
  }

  drawTime() {
    const answer = this.timeAnswer;
    if (!answer) return;
    const points = (/** @type {string} */ name) =>
      answer.steps.map((/** @type {any} */ step) => [step.back, step[name].log10]);
    this.$("rnn-chart").innerHTML = lineChart({
      width: widthOf(this.$("rnn-chart")),
      label: `Gradient through time; after ${answer.steps.at(-1).back} steps ${answer.steps.at(-1).product.text}.`,
      x: "steps back in time",
      band: [-1, 1],
      series: [
        { name: "the product of both", color: "var(--ink)", points: points("product") },
        {
          name: "wᵗ, the weights alone",
          color: "var(--soft)",
          dash: "6 5",
          points: points("power"),
        },
        {
          name: "the slopes of φ alone",
          color: "var(--soft)",
          dash: "9 3 2 3",
          points: points("slopes"),
        },
        {
          name: "what each use of w adds to ∂p/∂w",
          color: "var(--cr-lit)",
          points: answer.uses.map((/** @type {Quantity} */ use, /** @type {number} */ back) => [
            back,
            use.log10,
          ]),
        },
        ...(answer.clip
          ? [
              {
                name: "after clipping",
                color: "var(--ink)",
                dash: "2 4",
                points: points("clipped"),
              },
            ]
          : []),
      ],
    });
  }
}
