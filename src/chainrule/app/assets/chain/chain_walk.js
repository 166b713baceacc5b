/* The chain-rule page's guided walk: each step sets the real controls and hands them over. */
(() => {
  "use strict";

  const C = ((window.chainrule ||= {}).chain ||= {});
  const sigmoid = (weights) => ({ x: 1, weights, biases: null, activation: "sigmoid", wrt: "w1" });

  C.WALK = [
    {
      title: "One layer",
      text: "Start at p, at the right end of the graph. It is the output, and its gradient with respect to itself is 1. Going left, each edge multiplies what arrives by its local derivative. Change w₁ and watch the product follow.",
      state: sigmoid([0.5]),
    },
    {
      title: "Two layers",
      text: "One more layer is two more factors: a weight, and the slope of an activation. Point at a factor in the equation, tap it or tab to it, and see which edge it is.",
      state: sigmoid([0.5, -2]),
    },
    {
      title: "Three layers",
      text: "The graph grows sideways, but the equation stays one product. Step through it backwards: every σ′ keeps at most a quarter of what arrives.",
      state: sigmoid([0.5, -2, 1.5]),
      buttons: true,
    },
    {
      title: "Many layers",
      text: "Thirty layers with weights of 1. The middle is folded away because it says nothing new: again and again a slope below a quarter. Look at the value of the product.",
      state: sigmoid(Array(30).fill(1)),
    },
    {
      title: "When is it large enough?",
      text: "Each layer multiplies by w times at most a quarter. Move |w| until the dashed line, the best case, no longer falls. Where is that?",
      state: sigmoid(Array(30).fill(1)),
      goto: "depth",
      reveal: "At |w| = 4: a quarter of 4 is 1, so below 4 every product vanishes. Even at 4 only the best case survives; the chain's own slopes are smaller. That is why deep sigmoid networks vanish.",
    },
  ];

  C.Walk = class {
    constructor(page, at) {
      Object.assign(this, { page, at, hideAnswer: false, $: (name) => page.$(name) });
    }

    get step() { return C.WALK[this.at - 1]; }

    /** Go to a step: its chain comes with it, and the browser's back button returns from it. */
    go(number) {
      const { page } = this;
      this.at = Math.max(1, Math.min(C.WALK.length, number));
      page.equal = null;
      page.view.step = null;
      page.atOutput = false;
      page.state = structuredClone(this.step.state);
      if (this.step.goto) Object.assign(page.cards.values.depth, C.CARDS.depth);
      this.show();
      const drawn = page.refresh({ push: true });
      if (this.step.goto) page.cards.refresh();
      this.scroll();
      if (this.step.goto) drawn.then(() => this.scroll()); // the chain above may have grown
    }

    scroll() {
      if (this.step?.goto) this.$("depth-card").scrollIntoView({ block: "start", behavior: "instant" });
      else this.$("walk-card").scrollIntoView({ block: "nearest", behavior: "instant" });
    }

    show() {
      const { step } = this;
      const button = (name) => this.page.root.querySelector(`[data-do="${name}"]`);
      this.$("walk-title").textContent = step ? `${this.at} of ${C.WALK.length}: ${step.title}` : "A guided walk in five steps";
      this.$("walk-text").textContent = step ? step.text : "From one layer to many, with the controls in your hands at every step.";
      button("walk-next").textContent = step ? "Next" : "Start";
      button("walk-next").disabled = this.at >= C.WALK.length;
      button("walk-back").disabled = this.at <= 1;
      button("reveal").hidden = !step?.reveal;
      for (const name of ["walk-step", "walk-step-back"]) button(name).hidden = !step?.buttons;
      this.$("walk-live").hidden = !step || Boolean(step.goto);
      const here = step?.goto === "depth";
      this.$("depth-task").hidden = !here;
      this.$("depth-task").innerHTML = here
        ? `<strong>${this.at} of ${C.WALK.length}: ${C.esc(step.title)}</strong> <span>${C.esc(step.text)}</span> <span class="cr-tools"><button data-do="walk-back-here">Back</button><button data-do="reveal-here">Show the answer</button><button data-do="to-real">On to a real network</button><a href="/#lesson">Back to the lesson</a></span>`
        : "";
      this.hideAnswer = here;
      this.$("reveal").hidden = true;
      this.$("reveal").textContent = step?.reveal || "";
      this.showAnswer();
    }

    /** What tells the answer is shown once people have found it, or asked for it. */
    showAnswer() {
      this.$("depth-sentence").hidden = this.$("region").hidden = this.hideAnswer;
    }

    /** What the slider has found is said, too: only of the network that the question is about. */
    find(activation, size, threshold) {
      if (this.hideAnswer && size >= threshold && activation === C.CARDS.depth.activation) this.reveal();
    }

    reveal() {
      this.$("reveal").hidden = false;
      this.hideAnswer = false;
      this.showAnswer();
      this.page.cards.drawDepth();
      const task = this.$("depth-task").querySelector("span");
      if (task) task.textContent = this.step.reveal;
      this.$("depth-task").querySelector('[data-do="reveal-here"]')?.remove();
    }
  };
})();
