/* One training run: charts, the words of its alarms, its time line; live while it trains.
 *
 * The address names the run, the alarm that is open and the run it is compared with. The server is
 * asked again and again; what was chosen on the page stays.
 */
import "../shared/frame.js";
import { copy, el, find, makeTable, part, scrolling, setText } from "../shared/dom.js";
import { ask, stateNodes } from "./asking.js";
import { Charts } from "./charts.js";

const LIVE = 500; // milliseconds between two looks at a run that trains
const STILL = 4000;
const COPIED = 1500;

class RunPage {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.name = decodeURIComponent(location.pathname.split("/").pop() ?? "");
    this.tag = "";
    /** @type {any} */
    this.run = null;
    this.alarm = 0;
    this.other = "";
    this.turn = 0;
    this.flow = null;
    this.open = part(root, "open");
    this.with = part(root, "with");
    this.charts = new Charts(part(root, "charts"), {
      onMark: (mark) => this.offer(mark),
      onAlarm: (index) => this.choose(index),
      onOpen: () => this.open.hidden || this.open.click(),
    });
    this.with.addEventListener("change", () => {
      this.other = this.with.value;
      this.keep();
      this.look();
    });
    addEventListener("popstate", () => {
      this.readAddress();
      this.look();
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
    document.addEventListener("click", (event) => {
      const menu = part(root, "menu");
      if (!menu.contains(event.target)) menu.open = false;
    });
    part(root, "menu").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape") return;
      part(root, "menu").open = false;
      find(root, ".ru-menu summary").focus();
    });
    this.readAddress();
    this.offerRuns();
    this.look();
  }

  readAddress() {
    const query = new URLSearchParams(location.search);
    this.alarm = Math.max(0, Number.parseInt(query.get("alarm") ?? "1", 10) - 1 || 0);
    this.other = query.get("with") ?? "";
    this.tag = "";
  }

  keep() {
    const query = new URLSearchParams();
    if (this.alarm) query.set("alarm", String(this.alarm + 1));
    if (this.other) query.set("with", this.other);
    this.tag = "";
    history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}`);
  }

  /** Fill the list of runs to compare with. */
  async offerRuns() {
    const { answer } = await ask("/api/runs", "");
    const names = (answer?.runs ?? [])
      .filter((/** @type {any} */ run) => run.readable && run.name !== this.name)
      .map((/** @type {any} */ run) => run.name);
    if (this.other && !names.includes(this.other)) names.push(this.other);
    this.with.replaceChildren(
      el("option", { value: "" }, names.length ? "no other run" : "no other run here"),
      ...names.map((/** @type {string} */ name) => el("option", { value: name }, name)),
    );
    this.with.value = this.other;
  }

  /** Ask the server, show what is new, and come back. */
  async look() {
    this.turn += 1;
    const turn = this.turn;
    const begun = performance.now();
    if (!document.hidden) {
      const query = this.other ? `?with=${encodeURIComponent(this.other)}` : "";
      const path = `/api/runs/${encodeURIComponent(this.name)}${query}`;
      const { status, answer, tag } = await ask(path, this.tag);
      if (turn !== this.turn) return; // something else was asked for
      this.tag = tag;
      if (status === 404 && this.run) this.showGone();
      else if (status !== 304) this.show(answer);
    }
    const took = performance.now() - begun;
    const wait = this.run?.state === "live" ? Math.max(LIVE, 2 * took) : STILL;
    setTimeout(() => turn === this.turn && this.look(), wait);
  }

  /** The file that was shown is there no more: what was read of it stays. */
  showGone() {
    const failed = part(this.root, "error");
    const words = `The file of this run is gone: it was deleted, moved or renamed. The page shows what it held at step ${this.run.step.toLocaleString("en")}, and goes on when the file is back.`;
    if (failed.textContent !== words) {
      setText(failed, words);
      failed.hidden = false;
    }
    const [state] = stateNodes("gone");
    find(this.root, ".ru-state").replaceWith(state);
    this.run.state = "gone";
    part(this.root, "tools").hidden = true; // nothing can be exported or compared
    this.tag = "";
  }

  /** @param {any} answer */
  show(answer) {
    const failed = part(this.root, "error");
    failed.hidden = !answer.error;
    setText(failed, answer.error ?? "");
    if (answer.error) {
      if (!this.run) setText(part(this.root, "name"), this.name);
      this.root.dataset.ready = "1";
      return;
    }
    const before = this.run;
    this.run = answer;
    if (before && answer.alarms.length > before.alarms.length) {
      const fresh = answer.alarms[before.alarms.length];
      setText(part(this.root, "said"), `New alarm. ${fresh.title}.`);
    }
    document.title = `${answer.name} · chainrule`;
    setText(part(this.root, "name"), answer.name);
    const words = answer.words.map((/** @type {string} */ word) => el("span", {}, word));
    part(this.root, "facts").replaceChildren(...stateNodes(answer.state), ...words);
    const damage = part(this.root, "damage");
    damage.hidden = !answer.damage;
    setText(damage, `This file is damaged. ${answer.damage}`);
    part(this.root, "tools").hidden = false;
    part(this.root, "results").hidden = false;
    this.showFiles();
    this.showAlarm();
    this.showEvents();
    this.showOther();
    this.charts.show(answer, answer.alarms.length ? this.alarm : -1);
    this.root.dataset.ready = "1";
    this.root.dataset.step = String(answer.step);
  }

  showFiles() {
    const folder = `/files/runs/${encodeURIComponent(this.name)}`;
    part(this.root, "report").href = `${folder}/report.html`;
    const list = part(this.root, "exports");
    if (list.childElementCount) return;
    list.replaceChildren(
      ...this.run.exports.map((/** @type {[string, string]} */ [what, words]) =>
        el(
          "li",
          {},
          el("a", { href: `${folder}/${what}.csv` }, `${what}.csv`),
          el("span", { class: "dim" }, words),
        ),
      ),
    );
  }

  /** The words of the alarm that is open. */
  showAlarm() {
    const { alarms, state } = this.run;
    this.alarm = Math.min(this.alarm, Math.max(alarms.length - 1, 0));
    const alarm = alarms[this.alarm];
    const card = part(this.root, "alarm");
    const key = JSON.stringify([alarm ?? state, this.run.step > 0]);
    if (card.dataset.key === key) return; // what is folded out stays so
    card.dataset.key = key;
    card.dataset.state = alarm ? "bad" : "good";
    const title = part(this.root, "alarm-title");
    const body = part(this.root, "alarm-body");
    if (!alarm) {
      const words = this.run.step ? "No alarm" : "No step yet";
      title.replaceChildren(el("span", { "aria-hidden": "true" }, "✓ "), words);
      const so = state === "live" ? "so far" : "in the whole run";
      body.replaceChildren(
        el(
          "p",
          {},
          `Every step is checked for gradients that vanish or explode, rates that are too high, dead units and more. Nothing was found ${so}.`,
        ),
      );
      return;
    }
    title.replaceChildren(el("span", { "aria-hidden": "true" }, "▲ "), alarm.title);
    const said = [
      ["What", alarm.what],
      ["Why", alarm.why],
      ["Do", alarm.do],
    ].filter(([, text]) => text);
    const dl = said.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]);
    const table = makeTable(["measured", "value", "bound", "step"], alarm.evidence);
    body.replaceChildren(
      el("dl", { class: "ru-said" }, dl.flat()),
      el(
        "div",
        { class: "ru-acts" },
        el(
          "button",
          {
            type: "button",
            class: "primary",
            onclick: (/** @type {any} */ event) => this.copyAlarm(event.currentTarget, alarm),
          },
          "Copy alarm",
        ),
        alarm.flow === null ? null : this.makeWay(alarm.flow),
      ),
      ...(alarm.flow === null || alarm.flow === alarm.step
        ? []
        : [
            el(
              "p",
              { class: "dim" },
              `Step ${alarm.flow.toLocaleString("en")} is the nearest one that was kept whole.`,
            ),
          ]),
      ...(alarm.flow === null
        ? [el("p", { class: "dim" }, "No step of this run was kept whole, so none can be opened.")]
        : []),
      el("p", { class: "dim" }, alarm.record),
      ...(alarm.evidence.length
        ? [
            el(
              "details",
              { class: "ru-evidence" },
              el("summary", {}, "The evidence"),
              el(
                "div",
                { class: "scroll", tabindex: "0", role: "region", "aria-label": "evidence" },
                table,
              ),
            ),
          ]
        : []),
    );
  }

  /**
   * A link to a step's whole measurement.
   * @param {number} flow
   */
  makeWay(flow) {
    const words = `Open step ${flow.toLocaleString("en")}`;
    return el("a", { class: "button", href: this.addressOf(flow) }, words);
  }

  /** @param {number} flow */
  addressOf(flow) {
    return `/your-model?run=${encodeURIComponent(this.name)}&step=${flow}`;
  }

  /**
   * @param {any} button
   * @param {any} alarm
   */
  async copyAlarm(button, alarm) {
    const lines = [`${this.name}: ${alarm.title}`, alarm.what, alarm.why, alarm.do];
    const done = await copy(lines.filter(Boolean).join("\n"));
    setText(button, done ? "Copied" : "No clipboard here");
    setText(part(this.root, "said"), button.textContent);
    setTimeout(() => setText(button, "Copy alarm"), COPIED);
  }

  showEvents() {
    const list = part(this.root, "events");
    const key = JSON.stringify([this.run.events, this.run.hidden, this.alarm]);
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    const focused = find(document, ":focus")?.dataset.event;
    const items = this.run.events.map((/** @type {any} */ { step, text, alarm }) => {
      const number = el("span", { class: "ru-event-step" }, step.toLocaleString("en"));
      if (alarm === null) return el("li", { class: "ru-event" }, number, el("span", {}, text));
      const pressed = String(alarm === this.alarm);
      return el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: "ru-event",
            "aria-pressed": pressed,
            "data-event": String(alarm),
            onclick: () => this.choose(alarm, true),
          },
          number,
          el("span", {}, text),
        ),
      );
    });
    if (this.run.hidden)
      items.push(el("li", { class: "dim" }, `${this.run.hidden} more alarms are in alarms.csv.`));
    list.replaceChildren(...items);
    if (focused) find(list, `[data-event="${focused}"]`)?.focus({ preventScroll: true });
  }

  /** The second run. */
  showOther() {
    const card = part(this.root, "other");
    const { other } = this.run;
    card.hidden = !other;
    if (!other) return;
    setText(part(this.root, "other-title"), `Compared with ${other.name}`);
    const alarms = other.alarms.map((/** @type {any} */ alarm) => el("li", {}, alarm.title));
    part(this.root, "other-body").replaceChildren(
      el("p", {}, other.said),
      ...(other.settings.length
        ? [
            el("h3", {}, "What differs"),
            el(
              "ul",
              {},
              other.settings.map((/** @type {string} */ text) => el("li", {}, text)),
            ),
          ]
        : [el("p", { class: "dim" }, "Model, optimizer and their settings are the same.")]),
      el("h3", {}, `Alarms of ${other.name}`),
      alarms.length ? el("ul", {}, alarms) : el("p", {}, "No alarm."),
    );
  }

  /**
   * Open the words of an alarm.
   * @param {number} index
   * @param {boolean} [goes] whether to bring them into sight
   */
  choose(index, goes = false) {
    this.alarm = index;
    this.keep();
    this.showAlarm();
    this.showEvents();
    this.charts.choose(index);
    setText(part(this.root, "said"), this.run.alarms[index].title);
    if (goes) part(this.root, "alarm").scrollIntoView({ behavior: scrolling(), block: "nearest" });
  }

  /**
   * Offer to open the whole measurement that is nearest to a step.
   * @param {any} mark
   */
  offer(mark) {
    const flows = this.run?.flows ?? [];
    find(this.root, ".ru-readout").toggleAttribute("data-marked", Boolean(mark));
    this.open.hidden = !mark || !flows.length;
    if (this.open.hidden) return;
    let flow = flows[0];
    for (const each of flows)
      if (Math.abs(each - mark.step) <= Math.abs(flow - mark.step)) flow = each;
    this.open.href = this.addressOf(flow);
    setText(this.open, `Open step ${flow.toLocaleString("en")}`);
  }
}

new RunPage(find(document, "#run-root"));
