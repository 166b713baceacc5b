/* The page for your model: takes a flow file or a sample, asks the server what it says, shows that.
 *
 * The file is only ever sent to the server that this page came from, and is kept here alone, in
 * memory, to ask again when another measure, scale or layer is chosen.
 */
import "../shared/frame.js";
import { el, find, findAll, makeTable, part, readData, scrolling, setText } from "../shared/dom.js";
import { FlowView } from "../shared/flow_view.js";
import { draw } from "../shared/plotly.js";

const LOST =
  "The file could not be sent: it was changed or removed, or the server does not answer. " +
  "Choose it again.";

class ModelPage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.view = { measure: "weight", scale: "log", layer: 1 };
    this.asked = 0;
    /** @type {File | null} */
    this.file = null;
    /** @type {File | null} */
    this.shown = null; // the file of which all is on the page
    this.title = ""; // of a sample
    this.input = find(root, "#model-file");
    this.drop = find(root, ".mo-drop");
    this.status = find(root, ".mo-status");
    this.error = find(root, ".ex-error");
    this.results = find(root, ".mo-results");
    this.heading = find(root, ".mo-heading");
    this.profile = part(root, "profile");
    this.sections = part(root, "sections");
    this.firstSections = part(root, "first-sections");
    /** @type {any[]} */
    this.samples = readData(root, "samples");
    this.changes = find(root, '[data-panel="changes"]');
    this.modules = find(root, '[data-panel="modules"]');
    this.flow = new FlowView(part(root, "results"), {
      panels: readData(root, "vocabulary").panels,
      onSwitch: (name, value) => {
        this.view = { ...this.view, [name]: value };
        if (this.file) this.ask(this.file);
      },
    });
    this.input.addEventListener("change", () => this.take(this.input.files));
    for (const button of findAll(root, "[data-sample]")) {
      button.addEventListener("click", () => this.openSample(button.dataset.sample, true));
    }
    addEventListener("popstate", () => this.openAddress());
    this.catchDrops();
    this.openAddress();
    root.dataset.ready = "1";
  }

  /** Files may be dropped anywhere on the page; the place for them lights up. */
  catchDrops() {
    const light = (/** @type {boolean} */ on) => this.drop.classList.toggle("mo-over", on);
    const hold = (/** @type {DragEvent} */ event, /** @type {boolean} */ on) => {
      if (!event.dataTransfer?.types.includes("Files")) return null;
      event.preventDefault();
      light(on);
      return event.dataTransfer.files;
    };
    document.addEventListener("dragover", (event) => hold(event, true));
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) light(false);
    });
    document.addEventListener("drop", (event) => {
      const files = hold(event, false);
      if (files) this.take(files);
    });
  }

  /** The address names the sample that is open, so that it can be sent to somebody. */
  openAddress() {
    const query = new URLSearchParams(location.search);
    const [name, run] = [query.get("sample"), query.get("run")];
    if (name) this.openSample(name, false);
    else if (run) this.openStep(run, query.get("step") ?? "");
    else this.close();
  }

  /** Show the empty page again. */
  close() {
    this.asked += 1;
    this.file = null;
    this.shown = null;
    this.nameSample(null);
    setText(this.status, "");
    this.error.hidden = true;
    this.results.hidden = true;
  }

  /**
   * @param {string} name
   * @param {boolean} chosen whether a visitor chose it, and not the address
   */
  async openSample(name, chosen) {
    if (!this.samples.some((sample) => sample.name === name)) {
      this.fail(`There is no sample of this name: ${name}. Choose one of those above.`);
      return;
    }
    this.asked += 1;
    const turn = this.asked;
    try {
      const response = await fetch(`/files/samples/${name}.json`);
      const file = new File([await response.blob()], `${name}.json`);
      if (turn !== this.asked) return; // something else was opened
      this.file = file;
      this.view = { ...this.view, layer: 1 };
      if (chosen) history.pushState(null, "", `?sample=${name}`);
      this.nameSample(name);
    } catch {
      if (turn !== this.asked) return;
      this.fail("The sample could not be fetched: the server does not answer. Try it again.");
      return;
    }
    await this.ask(this.file);
  }

  /**
   * Open the whole measurement of one step of a training run.
   * @param {string} run
   * @param {string} step
   */
  async openStep(run, step) {
    this.asked += 1;
    const turn = this.asked;
    this.nameSample(null);
    const address = encodeURIComponent(run);
    try {
      const path = `/files/runs/${address}/flow.json?step=${encodeURIComponent(step)}`;
      const response = await fetch(path);
      const content = await response.blob();
      if (turn !== this.asked) return; // something else was opened
      if (!response.ok) {
        this.fail(JSON.parse(await content.text()).error);
        return;
      }
      this.file = new File([content], `${run}-step-${step}.json`);
      this.view = { ...this.view, layer: 1 };
      this.title = `Step ${step} of the run ${run}`;
      const place = part(this.root, "sample-command");
      place.hidden = false;
      place.replaceChildren(el("a", { href: `/runs/${address}` }, `← Back to the run ${run}`));
    } catch {
      if (turn !== this.asked) return;
      this.fail("The step could not be fetched: the server does not answer. Try it again.");
      return;
    }
    await this.ask(this.file);
  }

  /**
   * Mark the sample that is open, and say how it was measured; null for a file of one's own.
   * @param {string | null} name
   */
  nameSample(name) {
    for (const button of findAll(this.root, "[data-sample]")) {
      button.setAttribute("aria-pressed", String(button.dataset.sample === name));
    }
    const sample = this.samples.find((each) => each.name === name);
    const place = part(this.root, "sample-command");
    place.hidden = !sample;
    this.title = sample ? `${sample.title}: ${sample.teaser}` : "";
    if (sample) place.replaceChildren("A sample. Measured with ", el("code", {}, sample.command));
  }

  /** @param {FileList} files */
  take(files) {
    const [file] = files;
    if (!file) return;
    if (files.length > 1) this.fail(`One file at a time, please; got ${files.length}.`);
    else if (file.size > Number(this.root.dataset.limit))
      this.fail(this.root.dataset.tooLarge ?? "");
    else {
      this.file = file;
      this.view = { ...this.view, layer: 1 };
      if (location.search) history.pushState(null, "", location.pathname);
      this.nameSample(null);
      this.ask(file);
    }
    this.input.value = ""; // so that the same file can be chosen again
  }

  /** @param {File} file */
  async ask(file) {
    this.asked += 1;
    const turn = this.asked;
    if (file !== this.shown) setText(this.status, `Reading ${file.name} …`);
    const answer = await this.send(file);
    if (turn !== this.asked) return; // another question followed
    if (answer.error) this.fail(answer.error);
    else this.show(answer, file);
  }

  /** @param {File} file */
  async send(file) {
    const { measure, scale, layer } = this.view;
    const query = new URLSearchParams({ measure, scale, layer: String(layer) });
    const headers = { "Content-Type": "application/json" };
    try {
      const response = await fetch(`/api/flow?${query}`, { method: "POST", body: file, headers });
      return await response.json();
    } catch {
      return { error: LOST };
    }
  }

  /** @param {string} sentence */
  fail(sentence) {
    this.asked += 1; // what is under way counts no more
    this.file = null;
    this.shown = null;
    setText(this.status, "");
    setText(this.error, sentence);
    this.error.hidden = false;
    this.results.hidden = true;
  }

  /**
   * @param {any} answer
   * @param {File} file
   */
  show(answer, file) {
    this.error.hidden = true;
    this.results.hidden = false;
    setText(this.heading, this.title || file.name);
    setText(part(this.root, "versions"), answer.versions);
    this.flow.show(answer);
    if (file === this.shown) return; // another measure, scale or layer of it
    this.shown = file;
    setText(this.status, `Read ${file.name}.`);
    this.showSentences(answer);
    this.showSections(answer.sections);
    this.showProfile(answer.profile);
    this.showChanges(answer.changes);
    this.showModules(answer);
    this.results.scrollIntoView({ behavior: scrolling(), block: "start" });
    this.heading.focus({ preventScroll: true });
  }

  /** @param {any} answer */
  showSentences({ cards, said, findings, limits }) {
    const { icon, value, state, badge } = cards.at(-1);
    const word = part(this.root, "verdict");
    find(this.root, ".mo-verdict").dataset.state = state;
    word.dataset.state = state;
    word.replaceChildren(el("span", { "aria-hidden": "true" }, `${icon} `), value.digits);
    const chance = part(this.root, "chance");
    chance.dataset.state = badge?.state ?? "";
    setText(chance, badge ? `${badge.icon} ${badge.text}` : "");
    for (const name of ["what", "why", "do"]) setText(part(this.root, name), said[name]);
    const compares = findings.some((/** @type {any} */ finding) => finding.compares);
    setText(part(this.root, "limits"), compares ? limits : "");
  }

  /**
   * What else was measured, a card for each kind; what the diagnosis is about comes first.
   * @param {any[]} sections
   */
  showSections(sections) {
    const places = { first: this.firstSections, later: this.sections };
    for (const [when, place] of Object.entries(places)) {
      const shown = sections.filter(({ first }) => first === (when === "first"));
      place.replaceChildren(...shown.map(makeSection));
      place.hidden = !shown.length;
      for (const [i, plot] of findAll(place, ".mo-time").entries())
        draw(plot, shown.flatMap(({ charts }) => charts)[i].figure);
    }
  }

  /**
   * Repeated blocks side by side: a chart for each kind of block.
   * @param {{title: string, note: string, figure: any}[]} stacks
   */
  showProfile(stacks) {
    this.profile.hidden = !stacks.length;
    const panels = stacks.map(({ title, note }) =>
      el(
        "section",
        { class: "card fv-panel", "data-panel": "profile" },
        el("h2", { class: "mo-title" }, title),
        el("p", { class: "dim" }, note),
        el("div", { class: "fv-plot mo-plot" }),
      ),
    );
    this.profile.replaceChildren(...panels);
    for (const [i, plot] of findAll(this.profile, ".mo-plot").entries())
      draw(plot, stacks[i].figure);
  }

  /**
   * A file holds no weights to try changes on: the command that does, and what else is advised.
   * @param {any} changes
   */
  showChanges(changes) {
    this.changes.hidden = !changes;
    if (!changes) return;
    setText(part(this.changes, "command"), changes.command);
    const advice = changes.advice.map((/** @type {any} */ { title, reason, code }) => {
      const region = { tabindex: "0", role: "region", "aria-label": `code: ${title}` };
      return el(
        "div",
        { class: "fv-finding" },
        el("p", { class: "strong" }, title),
        el("p", { class: "dim" }, reason),
        el("pre", { class: "mo-code", ...region }, el("code", {}, code)),
      );
    });
    const heading = advice.length ? [el("h3", {}, "Advice, not measured")] : [];
    part(this.changes, "advice").replaceChildren(...heading, ...advice);
  }

  /** @param {any} answer */
  showModules({ modules, attention, parameters }) {
    const note = (/** @type {string} */ words) => el("span", { class: "dim" }, words);
    const name = (/** @type {string} */ words) => el("span", { class: "mo-name" }, words);
    const foldBlock = (/** @type {number} */ at) => {
      const block = modules.blocks[at];
      return fold([name(block.name), " ", note(block.note)], modules.head, block.rows);
    };
    const blocks = modules.stacks.map((/** @type {any} */ { name: pattern, blocks: members }) => {
      const folded = members.map(foldBlock);
      if (folded.length === 1) return folded[0];
      const summary = el("summary", {}, name(pattern), " ", note(`${members.length} blocks`));
      return el("details", { class: "mo-stack" }, summary, folded);
    });
    const heading = attention && [attention.title, " ", note(attention.note)];
    this.modules.replaceChildren(
      el("h2", { id: "mo-modules" }, modules.title),
      el("div", { class: "mo-blocks" }, blocks),
      ...(attention ? [fold(heading, attention.head, attention.rows)] : []),
      fold([parameters.title], parameters.head, parameters.rows),
    );
  }
}

/** @param {any} section */
function makeSection({ name, title, sentences, code, tables, charts }) {
  const heading = `mo-section-${name}`;
  const region = (/** @type {string} */ words) => ({
    tabindex: "0",
    role: "region",
    "aria-label": words,
  });
  const plots = charts.map((/** @type {any} */ chart) =>
    el("figure", {}, [
      el("figcaption", { class: "strong" }, chart.title),
      el("div", { class: "fv-plot mo-time", role: "img", "aria-label": chart.title }),
    ]),
  );
  const values = tables.map((/** @type {any} */ table) => {
    if (table.title) return fold([table.title], table.head, table.rows);
    const place = el("div", { class: "scroll", ...region(title) });
    place.append(makeTable(table.head, table.rows, undefined, "mo-cell"));
    return place;
  });
  return el(
    "section",
    { class: "card mo-section", "data-panel": name, "aria-labelledby": heading },
    el("h2", { id: heading }, title),
    code ? el("pre", { class: "mo-code", ...region("your line") }, el("code", {}, code)) : null,
    sentences.map((/** @type {string} */ words) => el("p", {}, words)),
    plots,
    values,
  );
}

/**
 * A table that is built when it is opened: a large model has thousands of rows.
 * @param {any[]} title
 * @param {string[]} head
 * @param {string[][]} rows
 */
function fold(title, head, rows) {
  const region = { tabindex: "0", role: "region", "aria-label": "the numbers as a table" };
  const place = el("div", { class: "scroll", ...region });
  const details = el("details", {}, el("summary", {}, title), place);
  details.addEventListener("toggle", () => {
    if (!details.open || place.firstChild) return;
    place.append(makeTable(head, rows, undefined, "mo-name"));
  });
  return details;
}

new ModelPage(find(document, "#model-root"));
