/* The list of training runs: asks the server for it again and again, as runs come and go. */
import "../shared/frame.js";
import { copy, el, find, findAll, part, setText } from "../shared/dom.js";
import { ask, stateNodes } from "./asking.js";

const PERIOD = 2000; // milliseconds between two looks
const COPIED = 1500;

class RunList {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.tag = "";
    for (const button of findAll(root, "[data-copy]")) {
      button.addEventListener("click", () => this.copyFrom(button));
    }
    this.look();
  }

  /** @param {any} button */
  async copyFrom(button) {
    const done = await copy(part(this.root, button.dataset.copy).textContent);
    const words = done ? "Copied" : "Select it and copy by hand";
    setText(part(this.root, "said"), words);
    setText(button, words);
    setTimeout(() => setText(button, "Copy"), COPIED);
  }

  async look() {
    if (!document.hidden) {
      const { status, answer, tag } = await ask("/api/runs", this.tag);
      this.tag = tag;
      if (status !== 304) this.show(answer);
    }
    setTimeout(() => this.look(), PERIOD);
  }

  /** @param {any} answer */
  show({ error, runs = [], folder = "", hidden = 0 }) {
    const failed = part(this.root, "error");
    failed.hidden = !error;
    setText(failed, error ?? "");
    part(this.root, "list").hidden = !runs.length;
    part(this.root, "how").hidden = Boolean(error) || runs.length > 0;
    setText(
      part(this.root, "how-title"),
      folder ? `No run in the folder “${folder}” yet` : "How to get a run",
    );
    const focused = find(document, ":focus")?.getAttribute("href");
    part(this.root, "runs").replaceChildren(...runs.map(makeLine));
    if (focused) find(this.root, `a[href="${CSS.escape(focused)}"]`)?.focus();
    const more = part(this.root, "hidden");
    more.hidden = !hidden;
    setText(more, `${hidden} older runs are not shown.`);
    this.root.dataset.ready = "1";
  }
}

/** @param {any} run */
function makeLine(run) {
  const name = el("span", { class: "ru-run-name" }, run.name);
  const what = el("span", { class: "dim" }, [run.model, run.began].filter(Boolean).join(" · "));
  const cells = [
    el("span", { class: "ru-run-what" }, name, what),
    el("span", { class: "ru-run-state" }, stateNodes(run.state)),
    el("span", { class: "ru-run-step" }, el("i", {}, "steps"), run.steps),
    el("span", { class: "ru-run-loss" }, el("i", {}, "loss"), run.loss || "not logged"),
    run.alarm
      ? el(
          "span",
          { class: "ru-run-alarm", "data-state": "bad" },
          el("span", { "aria-hidden": "true" }, "▲ "),
          `${run.alarm} ${run.more}`,
        )
      : el("span", { class: "ru-run-alarm dim" }, run.readable ? "no alarm" : ""),
  ];
  const line = run.readable
    ? el("a", { class: "ru-run", href: `/runs/${encodeURIComponent(run.name)}` }, cells)
    : el("div", { class: "ru-run" }, cells.slice(0, 2));
  return el("li", {}, line, run.damage ? el("p", { class: "ru-run-damage" }, run.damage) : null);
}

new RunList(find(document, "#runs-root"));
