/* The page for your model: takes a flow file, asks the server what it says, shows that.
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
    this.input = find(root, "#model-file");
    this.drop = find(root, ".mo-drop");
    this.status = find(root, ".mo-status");
    this.error = find(root, ".ex-error");
    this.results = find(root, ".mo-results");
    this.heading = find(root, ".mo-heading");
    this.profile = part(root, "profile");
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
    this.catchDrops();
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
      this.ask(file, true);
    }
    this.input.value = ""; // so that the same file can be chosen again
  }

  /**
   * @param {File} file
   * @param {boolean} [fresh] whether the file has just been chosen
   */
  async ask(file, fresh = false) {
    this.asked += 1;
    const turn = this.asked;
    if (fresh) setText(this.status, `Reading ${file.name} …`);
    const answer = await this.send(file);
    if (turn !== this.asked) return; // another question followed
    if (answer.error) this.fail(answer.error);
    else this.show(answer, file, fresh);
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
    setText(this.status, "");
    setText(this.error, sentence);
    this.error.hidden = false;
    this.results.hidden = true;
  }

  /**
   * @param {any} answer
   * @param {File} file
   * @param {boolean} fresh
   */
  show(answer, file, fresh) {
    this.error.hidden = true;
    this.results.hidden = false;
    setText(this.heading, file.name);
    setText(part(this.root, "versions"), answer.versions);
    this.flow.show(answer);
    if (!fresh) return;
    setText(this.status, `Read ${file.name}.`);
    this.showProfile(answer.profile);
    this.showChanges(answer.changes);
    this.showModules(answer);
    this.results.scrollIntoView({ behavior: scrolling(), block: "start" });
    this.heading.focus({ preventScroll: true });
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
