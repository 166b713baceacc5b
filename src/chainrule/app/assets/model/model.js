/* The page for one's own model: takes a flow file, asks the server what it says, shows that.
 *
 * The file is only ever sent to the server that this page came from, and is kept here alone, in
 * memory, to ask again when another measure, scale or layer is chosen.
 */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";
  const { el, text } = chainrule.dom;

  const EXAMPLE = [
    "def build():",
    "    model = MyModel()",
    "    x, y = next(iter(my_data))",
    "    return model, lambda m: loss_function(m(x), y)",
  ].join("\n");

  class ModelPage {
    constructor(root) {
      this.root = root;
      this.words = JSON.parse(root.dataset.vocabulary);
      this.view = { measure: "weight", scale: "log", layer: 1 };
      this.asked = 0;
      this.build();
    }

    build() {
      this.input = el("input", { type: "file", accept: ".json,application/json", class: "fv-hidden", id: "model-file", onchange: () => this.take(this.input.files) });
      this.drop = el("div", { class: "mo-drop" },
        this.input,
        el("label", { for: "model-file", class: "mo-button" }, "Choose a flow file"),
        el("span", { class: "fv-dim" }, "or drop it here"));
      this.status = el("p", { class: "mo-status", role: "status" });
      this.error = el("div", { class: "ex-error", role: "alert", hidden: true });
      const code = (content) => el("code", {}, content);
      const guide = el("section", { class: "fv-panel", "aria-labelledby": "mo-title" },
        el("h2", { id: "mo-title" }, "Your own model"),
        el("ol", { class: "mo-steps" },
          el("li", {}, "Write a function that returns your model and a function of its loss:", el("pre", { tabindex: "0", "aria-label": "example" }, code(EXAMPLE))),
          el("li", {}, "Measure it where it lives: ", code("chainrule inspect your_file.py:build --output flow.json")),
          el("li", {}, "Give that file to this page.")),
        this.drop,
        el("p", { class: "fv-dim" }, "The file holds numbers and names of modules: no weights, no data, no code. Nothing in it is run, and nothing of it is stored."),
        this.status, this.error);
      this.results = el("div", { class: "ex-results mo-results", hidden: true });
      this.heading = el("h2", { class: "mo-heading", tabindex: "-1" });
      this.versions = el("p", { class: "fv-dim" });
      const chart = el("div", { class: "ex-results" });
      this.profile = el("div", { class: "ex-results", "data-part": "profile" });
      this.changes = el("section", { class: "fv-panel", "data-panel": "changes", "aria-labelledby": "mo-changes" });
      this.modules = el("section", { class: "fv-panel", "data-panel": "modules", "aria-labelledby": "mo-modules" });
      this.results.append(el("div", {}, this.heading, this.versions), chart, this.profile, this.changes, this.modules);
      this.root.replaceChildren(guide, this.results);
      this.flow = new chainrule.FlowView(chart, {
        panels: this.words.panels,
        measures: this.words.measures,
        onSwitch: (name, value) => {
          this.view[name] = value;
          if (this.file) this.ask();
        },
      });
      this.catchDrops();
    }

    /** Files may be dropped anywhere on the page; the place for them lights up. */
    catchDrops() {
      const holdsFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
      const light = (on) => this.drop.classList.toggle("mo-over", on);
      const here = () => this.root.isConnected;
      document.addEventListener("dragover", (event) => {
        if (!here() || !holdsFile(event)) return;
        event.preventDefault();
        light(true);
      });
      document.addEventListener("dragleave", (event) => {
        if (!event.relatedTarget) light(false);
      });
      document.addEventListener("drop", (event) => {
        if (!here() || !holdsFile(event)) return;
        event.preventDefault();
        light(false);
        this.take(event.dataTransfer.files);
      });
    }

    take(files) {
      const [file] = files;
      if (!file) return;
      if (files.length > 1) this.fail(`One file at a time, please; got ${files.length}.`);
      else if (file.size > this.words.limit) this.fail(this.words.too_large);
      else {
        this.file = file;
        this.view = { ...this.view, layer: 1 };
        this.ask(true);
      }
      this.input.value = ""; // so that the same file can be chosen again
    }

    async ask(fresh = false) {
      const turn = (this.asked += 1);
      const { file } = this;
      if (fresh) text(this.status, `Reading ${file.name} …`);
      let answer;
      try {
        const response = await fetch(`/api/flow?${new URLSearchParams(this.view)}`, { method: "POST", body: file, headers: { "Content-Type": "application/json" } });
        answer = await response.json();
      } catch {
        answer = { error: "The file could not be sent: it was changed or removed, or the server does not answer. Choose it again." };
      }
      if (turn !== this.asked) return; // another question followed
      if (answer.error) this.fail(answer.error);
      else this.show(answer, fresh);
    }

    fail(sentence) {
      this.asked += 1; // what is under way counts no more
      this.file = null;
      text(this.status, "");
      text(this.error, sentence);
      this.error.hidden = false;
      this.results.hidden = true;
    }

    show(answer, fresh) {
      this.error.hidden = true;
      this.results.hidden = false;
      text(this.heading, this.file.name);
      text(this.versions, answer.versions);
      this.flow.show(answer);
      if (!fresh) return;
      text(this.status, `Read ${this.file.name}.`);
      this.showProfile(answer.profile);
      this.showChanges(answer.changes);
      this.showModules(answer);
      this.results.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
      this.heading.focus({ preventScroll: true });
    }

    /** Repeated blocks side by side: a chart for each kind of block. */
    showProfile(stacks) {
      this.profile.hidden = !stacks.length;
      this.profile.replaceChildren(...stacks.map(({ title, note }) =>
        el("section", { class: "fv-panel", "data-panel": "profile" }, el("h2", { class: "mo-title" }, title), el("p", { class: "fv-dim" }, note), el("div", { class: "fv-plot mo-plot" }))));
      this.profile.querySelectorAll(".mo-plot").forEach((plot, i) =>
        Plotly.react(plot, stacks[i].figure.data, stacks[i].figure.layout, { displayModeBar: false, responsive: true }));
    }

    /** A file holds no weights to try changes on: the command that does, and what else is advised. */
    showChanges(changes) {
      this.changes.hidden = !changes;
      if (!changes) return;
      const code = (content) => el("pre", { class: "mo-code", tabindex: "0", "aria-label": "code" }, el("code", {}, content));
      const advice = changes.advice.map((each) =>
        el("div", { class: "fv-finding" }, el("p", { class: "fv-strong" }, each.title), el("p", { class: "fv-dim" }, each.reason), code(each.code)));
      this.changes.replaceChildren(
        el("h2", { id: "mo-changes" }, "What to change"),
        el("p", {}, "This command tries changes where your model lives, measures each, and says how to apply it:"),
        code(changes.command),
        ...(advice.length ? [el("h3", { class: "fv-strong" }, "Advice, not measured"), ...advice] : []));
    }

    showModules({ modules, attention, parameters }) {
      const foldBlock = (block) =>
        this.fold([el("span", { class: "mo-name" }, block.name), " ", el("span", { class: "fv-dim" }, block.note)], modules.head, block.rows);
      const blocks = modules.stacks.map(({ name, blocks: members }) =>
        members.length === 1
          ? foldBlock(modules.blocks[members[0]])
          : el("details", { class: "mo-stack" },
              el("summary", {}, el("span", { class: "mo-name" }, name), " ", el("span", { class: "fv-dim" }, `${members.length} blocks`)),
              members.map((at) => foldBlock(modules.blocks[at]))));
      this.modules.replaceChildren(
        el("h2", { id: "mo-modules" }, modules.title),
        el("div", { class: "mo-blocks" }, blocks),
        ...(attention ? [this.fold([attention.title, " ", el("span", { class: "fv-dim" }, attention.note)], attention.head, attention.rows)] : []),
        this.fold([parameters.title], parameters.head, parameters.rows));
    }

    /** A table that is built when it is opened: a large model has thousands of rows. */
    fold(title, head, rows) {
      const place = el("div", { class: "fv-scroll", tabindex: "0", role: "region", "aria-label": "the numbers as a table" });
      const details = el("details", {}, el("summary", {}, title), place);
      details.addEventListener("toggle", () => {
        if (!details.open || place.firstChild) return;
        place.append(el("table", {},
          el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el(i ? "td" : "th", i ? {} : { scope: "row", class: "mo-name" }, cell)))))));
      });
      return details;
    }
  }

  function boot() {
    const root = document.getElementById("model-root");
    if (!root || root.dataset.ready || !window.Plotly || !chainrule.FlowView) return;
    root.dataset.ready = "1";
    chainrule.model = new ModelPage(root);
  }
  new MutationObserver(boot).observe(document.documentElement, { childList: true, subtree: true });
  addEventListener("load", boot);
})();
