/* "Train it for real": trains the network on screen, and the pinned one, and shows it as it goes.
 *
 * No number is computed here: /api/train answers a stream of lines (records, words, the end), and
 * this file places them. Leaving or cancelling ends the request, and with it the training.
 */
import { findPowers } from "../shared/axes.js";
import { el, find, makeTable, part, setText } from "../shared/dom.js";
import { capitalize, formatNumber, formatPower, formatShare } from "../shared/numbers.js";
import { isSameNetwork } from "./address.js";
import { drawCurves, drawMap, drawSample, locate } from "./training_charts.js";
import { readLines } from "./trial.js";

/** @typedef {import("./training_charts.js").Run} Run */

/** @type {Record<string, string>} */
const DEFAULT_RATE = { sgd: "0.03", adam: "0.001" }; // chainrule.training.DEFAULT_RATES
const SPOKEN_EVERY = 5000; // milliseconds between two readings of the status
/** @type {Record<string, string>} */
const ICONS = { trained: "✔", partly: "◐", chance: "✖", diverged: "∞" };

/**
 * Bring the section to life; return what begins a training.
 * @param {HTMLElement} section
 * @param {import("./explore.js").Api} explore
 */
export function mountTrain(section, explore) {
  const panel = new Panel(section, explore);
  panel.start();
  return () => panel.train();
}

class Panel {
  /**
   * @param {HTMLElement} section
   * @param {import("./explore.js").Api} explore
   */
  constructor(section, explore) {
    this.root = find(section, ".tr");
    this.explore = explore;
    /** @type {Run[]} */
    this.runs = [];
    this.steps = 0;
    /** @type {AbortController | null} */
    this.control = null;
    this.spoken = 0; // when the status was last read out
    /** @type {number | null} */
    this.pointed = null; // where the pointer is, as a share of the width
    this.hint = this.$("readout").textContent;
    this.keyed = ""; // what the key says
  }

  /** @param {string} name */
  $(name) {
    return part(this.root, name);
  }

  start() {
    this.$("optimizer").addEventListener("change", (/** @type {any} */ event) => {
      this.$("rate").value = DEFAULT_RATE[event.target.value];
    });
    this.$("begin").addEventListener("click", () => this.train());
    this.$("cancel").addEventListener("click", () => this.control?.abort());
    this.$("details").addEventListener("toggle", () => this.showTable());
    for (const name of ["loss", "accuracy", "map-0", "map-1"]) {
      this.$(name).addEventListener("pointermove", (/** @type {PointerEvent} */ event) =>
        this.point(name, event),
      );
      this.$(name).addEventListener("pointerleave", () => this.point(null));
    }
    this.explore.onAnswer(() => this.showKey());
    new ResizeObserver(() => this.redraw()).observe(this.root);
    addEventListener("pagehide", () => this.control?.abort());
    this.$("begin").disabled = false;
    this.redraw();
  }

  // --- training ---------------------------------------------------------------------------

  async train() {
    if (this.control) return;
    const control = new AbortController();
    this.control = control;
    const settings = {
      optimizer: this.$("optimizer").value,
      learning_rate: this.$("rate").value,
      steps: this.$("steps").value,
    };
    const [now, pinned] = [this.explore.query(), this.explore.pinnedQuery()];
    const compares = pinned !== null && !isSameNetwork(pinned, now);
    this.steps = Number(settings.steps);
    this.runs = [{ kind: "now", name: "on screen", query: now, records: [] }];
    if (compares) this.runs.push({ kind: "pinned", name: "pinned", query: pinned, records: [] });
    this.point(null);
    this.root.dataset.begun = "1"; // from now on there is something to show
    this.setBusy(true);
    this.$("ends").replaceChildren(...this.runs.map(() => el("p")));
    this.$("progress").max = this.steps * this.runs.length;
    this.$("progress").value = 0;
    this.redraw();
    this.showTable();
    for (const run of this.runs) {
      this.say(
        "working",
        this.runs.length > 1 ? `Starting: the network ${run.name} …` : "Starting …",
      );
      if (!(await this.follow(run, settings, control))) break;
    }
    this.control = null;
    this.setBusy(false);
    this.redraw();
    this.showTable();
  }

  /**
   * Train one network; return whether the next one may follow.
   * @param {Run} run
   * @param {Record<string, string>} settings
   * @param {AbortController} control
   */
  async follow(run, settings, control) {
    const query = new URLSearchParams(run.query);
    for (const [name, value] of Object.entries(settings)) query.set(name, value);
    try {
      const answer = await fetch(`/api/train?${query}`, {
        signal: control.signal,
        headers: { Accept: "application/x-ndjson" },
      });
      if (!answer.ok) {
        const body = await answer.json().catch(() => ({}));
        this.say(
          answer.status === 503 ? "busy" : "error",
          capitalize(body.error || "The server could not answer."),
        );
        return false;
      }
      for await (const line of readLines(answer.body)) this.hear(run, line);
      if (!run.end) throw new Error("ended early");
      return run.end.type !== "error";
    } catch {
      const step = run.records.at(-1)?.step;
      const where = step === undefined ? "" : ` after step ${step}`;
      if (control.signal.aborted)
        this.say("cancelled", `Cancelled${where}. The server has stopped too.`);
      else this.say("error", `The connection to the server was lost${where}. Try again.`);
      return false;
    }
  }

  /**
   * @param {Run} run
   * @param {any} line
   */
  hear(run, line) {
    if (line.type === "start") run.start = line;
    else if (line.type === "queued") this.say("queued", line.status);
    else if (line.type === "step") {
      run.records.push(line);
      const before = this.runs.indexOf(run) * this.steps;
      this.$("progress").value = before + line.step;
      this.say("working", `${this.name(run)}${line.status}`);
    } else {
      run.end = line;
      if (line.type === "error") {
        this.say("error", line.error);
        return;
      }
      const end = this.$("ends").children[this.runs.indexOf(run)];
      Object.assign(end.dataset, {
        outcome: line.outcome,
        icon: ICONS[line.outcome] || "",
        agrees: String(line.agrees),
      });
      end.textContent = `${this.name(run)}${line.sentence}`;
      end.append(...(line.rates || []).map((/** @type {string} */ rate) => this.offer(rate)));
      this.$("progress").value = (this.runs.indexOf(run) + 1) * this.steps;
      const last = run.records.at(-1);
      this.say("done", `${this.name(run)}${last ? last.status : ""}`, line.sentence);
    }
    this.later();
  }

  /**
   * A button that trains again with a learning rate that the server holds worth trying.
   * @param {string} rate
   */
  offer(rate) {
    const again = () => {
      this.$("rate").value = rate;
      this.train();
    };
    return el(
      "button",
      { type: "button", class: "tr-again", onclick: again },
      `Try learning rate ${rate}`,
    );
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    for (const name of ["optimizer", "rate", "steps", "begin"]) this.$(name).disabled = busy;
    this.$("cancel").disabled = !busy;
    if (busy) this.$("cancel").focus({ preventScroll: true });
    else if (
      document.activeElement === document.body ||
      document.activeElement === this.$("cancel")
    )
      this.$("begin").focus({ preventScroll: true });
    this.root.dataset.busy = busy ? "1" : "";
  }

  /**
   * Show the status; it is read out when it becomes another one, and now and then.
   * @param {string} state
   * @param {string} text
   * @param {string} [spoken]
   */
  say(state, text, spoken = text) {
    const status = this.$("status");
    const changed = status.dataset.state !== state;
    status.dataset.state = state;
    status.textContent = text;
    if (!changed && state === "working" && Date.now() - this.spoken < SPOKEN_EVERY) return;
    this.spoken = Date.now();
    this.$("spoken").textContent = spoken;
  }

  // --- drawing ----------------------------------------------------------------------------

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.redraw();
    });
  }

  redraw() {
    this.showKey();
    const steps = this.steps || Number(this.$("steps").value);
    drawCurves(this.$("loss"), "loss", this.runs, steps, this.pointed);
    drawCurves(this.$("accuracy"), "accuracy", this.runs, steps, this.pointed);
    this.drawMaps(steps);
  }

  /** @param {number} steps */
  drawMaps(steps) {
    const norms = this.runs.flatMap((run) => run.records.flatMap((record) => record.norms));
    const powers = findPowers(norms);
    this.$("maps").dataset.runs = String(Math.max(this.runs.length, 1));
    this.$("legend").style.visibility = norms.length ? "visible" : "hidden";
    this.$("zero").style.visibility = norms.includes(0) ? "visible" : "hidden";
    setText(this.$("from"), formatPower(powers[0]));
    setText(this.$("to"), formatPower(powers[1]));
    for (const index of [0, 1]) {
      const run = this.runs[index];
      const name = this.runs.length > 1 ? `: ${run.name}` : "";
      setText(this.$(`map-title-${index}`), `Gradient of every layer${name}`);
      if (run || !index) drawMap(this.$(`map-${index}`), run, powers, steps, this.pointed);
    }
  }

  /** Name what the curves are, and say which of it is not on screen any more. */
  showKey() {
    const items = this.runs.map((run) => {
      const shown = run.kind === "now" ? this.explore.query() : this.explore.pinnedQuery();
      const past = shown === null || !isSameNetwork(shown, run.query);
      const gone =
        run.kind === "now"
          ? "(an earlier configuration, not the one on screen)"
          : "(no longer the pinned one)";
      return el(
        "li",
        {},
        drawSample(run),
        el(
          "span",
          {},
          `${this.name(run)}${run.start ? `trained: ${run.start.label}` : "not trained yet"}`,
          past ? [" ", el("b", { class: "tr-earlier" }, gone)] : null,
        ),
      );
    });
    const text = items.map((item) => item.textContent).join("\n");
    if (this.keyed === text) return;
    this.keyed = text;
    this.$("key").replaceChildren(...items);
  }

  /**
   * What begins a sentence about a run, where there are two.
   * @param {Run} run
   */
  name(run) {
    return this.runs.length > 1 ? `${capitalize(run.name)}: ` : "";
  }

  /**
   * Say what the pictures show where the pointer is.
   * @param {string | null} name
   * @param {PointerEvent} [event]
   */
  point(name, event) {
    const before = this.pointed;
    const readout = this.$("readout");
    this.pointed = null;
    let text = this.hint;
    if (name && event && this.runs.some((run) => run.records.length)) {
      const { x, y } = locate(this.$(name), event);
      if (x >= 0 && x <= 1) {
        this.pointed = x;
        text = this.runs
          .map((run) => this.describe(run, x, name.startsWith("map") ? y : null))
          .filter(Boolean)
          .join(" · ");
      }
    }
    setText(readout, text);
    if (this.pointed !== before) this.later();
  }

  /**
   * @param {Run} run
   * @param {number} share
   * @param {number | null} height null for a curve
   */
  describe(run, share, height) {
    const last = run.start ? Math.ceil(run.start.steps / run.start.every) : 0;
    // A curve has a point per record, a heatmap a column.
    const record =
      run.records[
        height === null ? Math.round(share * last) : Math.min(Math.floor(share * (last + 1)), last)
      ];
    if (!record) return "";
    const who = this.runs.length > 1 ? `${capitalize(run.name)}, after` : "After";
    if (height === null)
      return `${who} ${record.step} steps: loss ${formatNumber(record.loss)}, ${formatShare(record.accuracy)} right`;
    const layer = Math.min(
      Math.max(Math.ceil(height * record.norms.length), 1),
      record.norms.length,
    );
    return `${who} ${record.step} steps, layer ${layer}: ‖∂𝓛/∂W‖ = ${formatNumber(record.norms[layer - 1])}`;
  }

  showTable() {
    if (!this.$("details").open) return;
    const tables = this.runs.filter((run) => run.start).map((run) => this.makeTable(run));
    this.$("tables").replaceChildren(
      ...(tables.length ? tables : [el("p", { class: "dim" }, "Nothing is trained here yet.")]),
    );
  }

  /** @param {Run} run */
  makeTable(run) {
    const clips = run.records.some((record) => record.clipped !== record.total);
    const head = [
      "step",
      "loss",
      "right",
      "‖∂𝓛/∂W‖ layer 1",
      `layer ${run.start.layers}`,
      "smallest",
      "largest",
      "all parameters",
    ];
    const rows = run.records.map((record) => {
      const norms = record.norms.filter((/** @type {number | null} */ norm) => norm !== null);
      const [least, most] = norms.length ? [Math.min(...norms), Math.max(...norms)] : [null, null];
      const numbers = [
        record.norms[0],
        record.norms.at(-1),
        least,
        most,
        record.total,
        ...(clips ? [record.clipped] : []),
      ];
      return [
        String(record.step),
        formatNumber(record.loss),
        formatShare(record.accuracy),
        ...numbers.map(formatNumber),
      ];
    });
    const table = makeTable(clips ? [...head, "after clipping"] : head, rows);
    table.prepend(el("caption", {}, `${this.name(run)}${run.start.label}`));
    return table;
  }
}
