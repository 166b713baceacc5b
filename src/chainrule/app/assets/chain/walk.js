/* The chain-rule page's guided walk: each step sets the real controls and hands them over.
 *
 * Its words stand in the page (text/walk.md); here is what each step shows.
 */
import { el, find, findAll } from "../shared/dom.js";
import { CARDS } from "./address.js";

/** @typedef {import("./address.js").Chain} Chain */

/**
 * @param {number[]} weights
 * @returns {Chain}
 */
const sigmoid = (weights) => ({ x: 1, weights, biases: null, activation: "sigmoid", wrt: "w1" });

/** @type {{state: Chain, buttons?: boolean, goto?: string}[]} */
export const WALK = [
  { state: sigmoid([0.5]) },
  { state: sigmoid([0.5, -2]) },
  { state: sigmoid([0.5, -2, 1.5]), buttons: true },
  { state: sigmoid(Array(30).fill(1)) },
  { state: sigmoid(Array(30).fill(1)), goto: "depth" },
  { state: sigmoid([0.5, -2, 1.5]), goto: "game" },
  { state: sigmoid([0.5, -2, 1.5]), goto: "conclusion" },
];

export class Walk {
  /**
   * @param {import("./chain.js").Page} page
   * @param {number} at the step, counted from 1; 0 before the first
   */
  constructor(page, at) {
    this.page = page;
    this.at = at;
    this.hideAnswer = false;
    this.title = this.$("walk-title").textContent;
    this.text = find(this.$("walk-text"), "p");
    this.words = findAll(this.$("walk-steps"), "li").map((step) => ({
      title: find(step, "h3").textContent,
      text: findAll(step, ":scope > p"),
      answer: find(step, "blockquote")?.textContent.trim() ?? "",
    }));
  }

  /** @param {string} name */
  $(name) {
    return this.page.$(name);
  }

  get step() {
    return WALK[this.at - 1];
  }

  get heading() {
    return `${this.at} of ${WALK.length}: ${this.words[this.at - 1].title}`;
  }

  /**
   * Go to a step: its chain comes with it, and the browser's back button returns from it.
   * @param {number} number
   */
  go(number) {
    const { page } = this;
    this.at = Math.max(1, Math.min(WALK.length, number));
    page.equal = null;
    page.view.step = null;
    page.atOutput = false;
    page.state = structuredClone(this.step.state);
    const depth = this.step.goto === "depth";
    if (depth) Object.assign(page.cards.values.depth, CARDS.depth);
    this.show();
    const drawn = page.refresh({ push: true });
    if (depth) page.cards.refresh();
    this.scroll();
    const { at } = this;
    const top = window.scrollY;
    // The chain above may have grown; who has scrolled meanwhile stays there.
    if (this.step.goto)
      drawn.then(() => {
        if (this.at === at && window.scrollY === top) this.scroll();
      });
  }

  scroll() {
    if (this.step?.goto)
      this.$(`${this.step.goto}-card`).scrollIntoView({ block: "start", behavior: "instant" });
    else this.$("walk-card").scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  show() {
    const { step } = this;
    const words = step ? this.words[this.at - 1] : { text: [this.text], answer: "" };
    const button = (/** @type {string} */ name) => find(this.page.root, `[data-do="${name}"]`);
    const here = step?.goto === "depth";
    this.$("walk-title").textContent = step ? this.heading : this.title;
    this.$("walk-text").replaceChildren(...words.text);
    const done = this.at >= WALK.length;
    button("walk-next").textContent = step ? "Next step" : "Start";
    const focused = document.activeElement === button("walk-next");
    button("walk-next").hidden = done;
    this.$("walk-end").hidden = !done;
    if (done && focused) this.$("walk-end").focus({ preventScroll: true });
    button("walk-back").disabled = this.at <= 1;
    button("reveal").hidden = !words.answer;
    for (const name of ["walk-step", "walk-step-back"]) button(name).hidden = !step?.buttons;
    this.$("walk-live").hidden = !step || here;
    this.$("depth-task").hidden = !here;
    this.$("depth-task").replaceChildren(...(here ? this.makeTask() : []));
    this.hideAnswer = here;
    this.$("reveal").hidden = true;
    this.$("reveal").textContent = words.answer;
    this.showAnswer();
  }

  /** The step's question where it is answered: on a phone the walk's own card is far away. */
  makeTask() {
    const button = (/** @type {string} */ name, /** @type {string} */ words) =>
      el("button", { type: "button", "data-do": name }, words);
    const question = this.words[this.at - 1].text.map((text) => text.textContent).join(" ");
    return [
      el("strong", {}, this.heading),
      " ",
      el("span", { "data-part": "depth-question" }, question),
      el(
        "div",
        { class: "cr-tools" },
        button("walk-back-here", "Previous step"),
        button("reveal-here", "Show the answer"),
        button("walk-next-here", "Next step"),
        button("to-real", "On to a real network"),
        el("a", { href: "/learn", "data-nav": "learn" }, "Back to the lesson"),
      ),
    ];
  }

  /** What tells the answer is shown once people have found it, or asked for it. */
  showAnswer() {
    this.$("depth-sentence").hidden = this.$("region").hidden = this.hideAnswer;
  }

  /**
   * What the slider has found is said, too: only of the network that the question is about.
   * @param {string} activation
   * @param {number} size
   * @param {number} threshold
   */
  find(activation, size, threshold) {
    if (this.hideAnswer && size >= threshold && activation === CARDS.depth.activation)
      this.reveal();
  }

  reveal() {
    this.$("reveal").hidden = false;
    this.hideAnswer = false;
    this.showAnswer();
    this.page.cards.drawDepth();
    const question = this.$("depth-question");
    if (question) question.textContent = this.words[this.at - 1].answer;
    find(this.$("depth-task"), '[data-do="reveal-here"]')?.remove();
  }
}
