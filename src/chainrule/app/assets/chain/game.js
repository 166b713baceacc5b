/* The game: the same network as a graph and as an equation. Which of them tells what happens? */
import { escapeHtml, find, findAll } from "../shared/dom.js";
import { lineChart, widthOf } from "./charts.js";
import { speak } from "./speech.js";

/** @typedef {"vanishes" | "holds" | "explodes"} Outcome */
/** @typedef {import("./answers.js").Factor} Factor */
/** @typedef {import("./answers.js").Line} Line */

/** The networks, each with a gradient that the graph does not show. */
export const ROUNDS = [
  { weights: [2, 1.5, 2, 1.5, 2, 1.5, 2, 1.5], activation: "sigmoid" },
  { weights: [1.8, 1.5, 2.1, 1.4, 1.9, 1.6, 2, 1.7], activation: "relu" },
  { weights: [1.9, 0.6, 1.4, 0.8, 1.5, 0.7, 1.2, 0.9], activation: "leaky_relu" },
  { weights: [3, 2.5, 3, 2.5, 3, 2.5, 3, 2.5], activation: "tanh" },
];

export class Game {
  /** @param {import("./chain.js").Page} page */
  constructor(page) {
    this.page = page;
    this.round = 0;
    /** @type {{graph: boolean, equation: boolean}[]} */
    this.results = [];
    /** @type {any} */
    this.answer = null;
    this.phase = "graph";
  }

  /** @param {string} name */
  $(name) {
    return this.page.$(`game-${name}`);
  }

  start() {
    this.round = 0;
    this.results = [];
    this.answer = null;
    this.phase = "graph";
  }

  /** Ask for the network of this round and show it as a graph. */
  async show() {
    const { weights, activation } = ROUNDS[this.round];
    const query = { x: 1, weights: weights.join(","), activation, wrt: "w1", identifier: "game" };
    const answer = await this.page.ask("/api/chain", query, "game");
    if (!answer || answer.error) {
      this.$("task").textContent = answer?.error ?? this.$("task").textContent;
      return;
    }
    this.answer = answer;
    this.phase = "graph";
    this.draw();
  }

  draw() {
    const { phase, answer } = this;
    const done = phase === "answer";
    this.$("round").textContent = `network ${this.round + 1} of ${ROUNDS.length}`;
    this.$("guess").hidden = done;
    this.button("next").hidden = !done || this.round === ROUNDS.length - 1;
    this.button("again").hidden = !done || this.round < ROUNDS.length - 1;
    if (phase === "graph") {
      this.$("task").textContent =
        "Here is a network as a graph, with every weight and every value. Does the gradient ∂p/∂w₁ vanish (below 0.1), hold, or explode (above 10)?";
      // A name of its own: what holds for the page's graph does not hold for this picture.
      this.$("picture").innerHTML = answer.svg.replaceAll("chain-graph", "game-graph");
      this.blind(find(this.$("picture"), "svg"));
      this.$("answer").textContent = "";
      this.$("chart").innerHTML = "";
      this.showScore();
    } else if (phase === "equation") {
      this.$("task").textContent =
        "And now the same network as an equation: the factors of ∂p/∂w₁, in numbers. What do you say now?";
      this.$("picture").innerHTML = this.writeEquation();
    } else this.reveal();
  }

  /**
   * Leave what a usual picture of a network shows: no gradients, no local derivatives.
   * @param {SVGSVGElement} svg
   */
  blind(svg) {
    for (const extra of findAll(svg, ":scope > text")) extra.remove();
    for (const named of findAll(svg, "title, desc")) named.remove();
    svg.removeAttribute("aria-labelledby");
    svg.setAttribute("role", "img");
    svg.setAttribute(
      "aria-label",
      `A chain of ${ROUNDS[this.round].weights.length} layers, ${ROUNDS[this.round].activation.replace("_", " ")}, weights ${ROUNDS[this.round].weights.join(", ")}.`,
    );
    findAll(svg, ":scope > g").at(-1).remove(); // the legend
    const { width, height } = svg.viewBox.baseVal;
    svg.setAttribute("viewBox", `0 60 ${width} ${height - 128}`);
    svg.removeAttribute("height");
    svg.classList.add("cr-blind");
    // It is a picture: nothing in it is linked or can be changed.
    for (const entry of findAll(svg, "[data-node], [data-edge]"))
      for (const name of ["node", "edge", "factor"]) delete entry.dataset[name];
  }

  writeEquation() {
    const { lines, subject } = this.answer;
    const own = lines
      .filter((/** @type {Line} */ line) => line.kind === "formulas" || line.kind === "numbers")
      .map((/** @type {Line} */ line) => line.unfolded ?? line);
    const effects = new Map(this.answer.factors.map((/** @type {Factor} */ f) => [f.id, f.effect]));
    const box = document.createElement("div");
    box.innerHTML = own
      .map(
        (/** @type {{text: string, mathml: string}} */ line) =>
          `<div class="cr-equation" role="img" aria-label="${escapeHtml(`${speak(subject.text)} ${speak(line.text)}`)}">${line.mathml}</div>`,
      )
      .join("");
    for (const term of findAll(box, "[data-factor]")) {
      const effect = effects.get(term.dataset.factor);
      if (effect) term.classList.add(effect);
      term.removeAttribute("data-factor");
    }
    return `<p class="cr-subject">${escapeHtml(subject.text)}</p>${box.innerHTML}`;
  }

  /** @param {Outcome} guess */
  guess(guess) {
    if (!this.answer || this.phase === "answer") return;
    const right = guess === this.answer.outcome;
    if (this.phase === "graph") {
      this.results.push({ graph: right, equation: false });
      this.phase = "equation";
      this.draw();
      this.$("answer").textContent =
        `From the graph you say: it ${guess}. The answer comes after the equation.`;
    } else {
      this.results[this.results.length - 1].equation = right;
      this.phase = "answer";
      this.draw();
      this.button(this.round === ROUNDS.length - 1 ? "again" : "next").focus({
        preventScroll: true,
      });
    }
  }

  reveal() {
    const { outcome, gradient, factors } = this.answer;
    const last = this.results[this.results.length - 1];
    const say = (/** @type {boolean} */ right) => (right ? "right" : "not right");
    this.$("task").textContent = `∂p/∂w₁ ${gradient.relation} ${gradient.text}: it ${outcome}.`;
    this.$("answer").textContent =
      `Your guess from the graph was ${say(last.graph)}, from the equation ${say(last.equation)}. ${WHY[this.round]}`;
    this.$("chart").innerHTML = lineChart({
      width: widthOf(this.$("chart")),
      label: `The product after each factor, from the output back to w₁; at the end ${gradient.text}.`,
      x: "factors multiplied, from the output back",
      band: [-1, 1],
      series: [
        {
          name: "the product so far",
          color: outcome === "explodes" ? "var(--cr-grows)" : "var(--cr-shrinks)",
          points: [
            [0, 0],
            ...factors.map((/** @type {Factor} */ f, /** @type {number} */ i) => [
              i + 1,
              f.running_product.log10,
            ]),
          ],
        },
      ],
    });
    this.showScore();
  }

  showScore() {
    const { results } = this;
    const count = (/** @type {"graph" | "equation"} */ way) =>
      results.filter((result) => result[way]).length;
    const end =
      results.length === ROUNDS.length && this.phase === "answer"
        ? " Vanishing and exploding are easy to read off a product, and hard to see in a graph."
        : "";
    this.$("score").textContent = results.length
      ? `So far: ${count("graph")} of ${results.length} from the graph, ${count("equation")} of ${results.length} from the equation.${end}`
      : "";
  }

  /**
   * Do what a button says; return whether it is one of the game's.
   * @param {string} name
   */
  act(name) {
    if (name.startsWith("guess-")) this.guess(/** @type {Outcome} */ (name.slice(6)));
    else if (name === "game-again") {
      this.start();
      this.show();
    } else if (name === "game-next") {
      this.round++;
      this.show();
    } else return false;
    return true;
  }

  /** @param {string} name */
  button(name) {
    return find(this.page.root, `[data-do="game-${name}"]`);
  }
}

/** What each network teaches. */
const WHY = [
  "Every weight is above 1, and still every layer makes the gradient smaller: the slope of sigmoid is at most a quarter.",
  "ReLU passes the gradient on whole, so the weights multiply, and all of them are above 1.",
  "Weights above and below 1 take turns: their product stays near 1.",
  "The weights are the largest of all four, and the gradient is gone: they push tanh to its flat ends, where the slope is near 0.",
];
