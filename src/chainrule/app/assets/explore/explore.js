/* The explore page: its controls ask the server, its answers are shown by FlowView.
 *
 * One question at a time: while the server measures, the newest setting waits and goes next, so
 * that a drag is followed instead of queued. An answer is shown only if nothing newer was shown,
 * and whatever takes long is given up as soon as something newer is wanted. A quick answer, one
 * network and the main chart, comes at once; it is then refined by the others, in two steps where
 * the whole ensemble takes long.
 */
import {
  afterPaint,
  el,
  find,
  findAll,
  part,
  readData,
  scrolling,
  setText,
  showNotices,
  whenIdle,
  whenNear,
} from "../shared/dom.js";
import { FlowView } from "../shared/flow_view.js";
import { keepExplorer } from "../shared/frame.js";
import { compose, follow, nameFile, nameNetwork, START, setPanel } from "./address.js";
import { Controls } from "./controls.js";
import { mountGuess } from "./guess.js";
import { mountRemedies } from "./remedies.js";

// After so many ms an unanswered question is given up for a newer one. Every time that happens
// the patience doubles until an answer comes: at a busy server somebody who asks anew again and
// again would stay last in the line.
const PATIENCE = 300;
const REST = 150; // ms of rest after which what one network showed is refined by the others
const LOADING = 300; // ms after which the page says that it is measuring
const LOST =
  "The server does not answer. Is it still running? The page asks again when you change something.";

/**
 * What the page's parts can ask the explorer, and hear from it.
 * @typedef {object} Api
 * @property {() => string} query the network on screen and the number of seeds
 * @property {() => string | null} pinnedQuery the pinned network
 * @property {() => string[]} locked names of what is fixed
 * @property {(query: string) => void} apply show a network
 * @property {(listener: (answer: any, query: string) => void) => void} onAnswer
 * @property {() => string} address everything on screen
 * @property {(step: string | null, show?: {query: string, pin: string | null}) => void} walk go to a step of the tour,
 *   or leave it; and show a network, with another pinned
 * @property {() => string | null} step the step of the tour that the address names
 */

/** @typedef {"whole" | "draft" | "none"} Step a finished change, one under way, none at all */
/** @typedef {"quick" | "first" | "whole"} Stage how much is asked for; the server names the next one */

/**
 * @typedef {object} Question
 * @property {string} query
 * @property {Step} step
 * @property {Stage} stage
 * @property {boolean} refining whether an answer with fewer networks is on screen already
 * @property {number} since
 * @property {AbortController} control
 */

/**
 * Load a part of the page when it comes into sight. A click that is quicker is done afterwards.
 * @param {HTMLElement} section
 * @param {() => Promise<unknown>} open
 */
function loadNear(section, open) {
  const whenLoaded = async () => {
    await open();
    section.removeEventListener("click", wait, true);
  };
  const wait = async (/** @type {any} */ event) => {
    event.stopImmediatePropagation();
    event.preventDefault();
    await whenLoaded();
    event.target.click();
  };
  section.addEventListener("click", wait, true);
  whenNear(section, whenLoaded);
}

class Explore {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.words = readData(root, "vocabulary");
    /** @type {((answer: any, query: string) => void)[]} */
    this.listeners = [];
    /** @type {any} */
    this.view = null;
    /** @type {any} */
    this.answer = null;
    this.extra = { ...START };
    /** @type {Question | null} */
    this.busy = null;
    this.patience = PATIENCE;
    this.wanted = { query: "", step: /** @type {Step} */ ("none") };
    this.drafting = false;
    /** @type {(() => void) | null} */
    this.following = null; // what is left to show of the answer on screen
    this.panel = root.dataset.embed || null;
    this.progress = part(root, "progress");
    this.notices = part(root, "notices");
    this.error = part(root, "error");
    this.look = part(root, "look-at");
    this.inForce = part(root, "in-force");
    this.pinWord = part(root, "pin-word");
    this.compare = part(root, "compare-result");
    this.scenarios = findAll(root, ".ex-preset");
    this.files = findAll(root, "[data-file]");
    /** @type {Controls | null} */
    this.controls = null;
    this.flow = new FlowView(part(root, "results"), {
      panels: this.words.panels,
      only: this.panel,
      quick: true,
      onSwitch: (name, value) => this.switch(name, value),
    });
  }

  start() {
    addEventListener("popstate", () => this.ask(location.search.slice(1), "none"));
    this.ask(location.search.slice(1), "none"); // before all else: the answer takes longest
    if (!this.panel) this.connect();
    const theory = part(this.root, "theory");
    if (theory) this.listeners.push((answer) => this.askTheory(theory, answer));
  }

  // --- the page ---------------------------------------------------------------------------------

  /** Bring to life what only the whole page has. */
  connect() {
    const { root, words } = this;
    const configure = find(root, ".ex-configure");
    this.controls = new Controls(configure, words.controls, (_, done) => this.change(done));
    for (const [i, button] of this.scenarios.entries()) {
      button.addEventListener("click", () => this.apply(words.presets[i].query));
    }
    for (const name of ["pin", "unpin"])
      part(root, name).addEventListener("click", () => this.pin());
    part(root, "swap").addEventListener("click", () => this.swap());
    /** @type {Api} */
    const api = {
      query: () => this.view?.query || "",
      pinnedQuery: () => this.extra.pin,
      locked: () => this.extra.lock,
      apply: (query) => this.apply(query),
      onAnswer: (listener) => {
        this.listeners.push(listener);
        if (this.answer) listener(this.answer, this.view.query); // who comes late hears the latest
      },
      address: () => this.view?.address || "",
      walk: (step, show) => this.walk(step, show),
      step: () => this.extra.tour,
    };
    mountGuess(part(root, "guess"), api);
    mountRemedies(find(root, ".ex-work"), api);
    this.loadLater(api);
    // Loaded when it is needed: what trains is far below the first screen.
    const train = part(root, "train");
    /** @type {Promise<() => void> | null} */
    let ready = null;
    const open = () => {
      ready ??= import("./train.js").then(({ mountTrain }) => mountTrain(train, api));
      return ready;
    };
    loadNear(train, open);
    part(root, "go-train").addEventListener("click", async () => {
      const begin = await open();
      train.scrollIntoView({ behavior: scrolling(), block: "start" });
      begin();
    });
    const share = part(root, "share");
    /** @type {Promise<() => void> | null} */
    let shared = null;
    const openShare = () => {
      shared ??= import("./share.js").then(({ mountShare }) => mountShare(share, api));
      return shared;
    };
    loadNear(share, openShare);
    part(root, "share-open").addEventListener("click", async () => (await openShare())());
  }

  /**
   * Load what the first chart need not wait for: the small chart of narrow windows, and the tour.
   * @param {Api} api
   */
  loadLater(api) {
    const glance = part(this.root, "glance");
    whenNear(glance, async () => (await import("./glance.js")).mountGlance(glance, api));
    const arrived = location.search;
    let asked = false;
    api.onAnswer(() => {
      if (asked) return;
      asked = true;
      whenIdle(async () => (await import("./tour.js")).mountTour(this.root, api, arrived));
    });
  }

  // --- changing ---------------------------------------------------------------------------------

  /**
   * A control was changed.
   * @param {boolean} done false while it is still being dragged or typed in
   */
  change(done) {
    this.ask(this.compose(), done ? "whole" : "draft");
  }

  /**
   * @param {import("../shared/flow_view.js").Switch} name
   * @param {any} value
   */
  switch(name, value) {
    this.extra = { ...this.extra, [name]: value };
    this.ask(this.compose(), "whole");
    if (name === "layer") this.flow.point(value);
  }

  /**
   * Show a network; how it is shown (pinned network, scale, locks) stays.
   * @param {string} query
   */
  apply(query) {
    this.ask(follow(query, this.compose(), this.extra.lock), "whole");
  }

  pin() {
    this.extra.pin = this.extra.pin ? null : nameNetwork(this.view.query);
    this.ask(this.compose(), "whole");
  }

  /**
   * Go to a step of the tour, or leave it.
   * @param {string | null} step
   * @param {{query: string, pin: string | null}} [show] a network to show, and one to pin
   */
  walk(step, show) {
    this.extra = { ...this.extra, tour: step };
    if (!show) {
      this.ask(this.compose(), "whole");
      return;
    }
    this.extra.pin = show.pin;
    this.apply(show.query);
  }

  swap() {
    const pinned = this.extra.pin;
    this.extra.pin = nameNetwork(this.view.query);
    this.apply(pinned || "");
  }

  compose() {
    if (!this.controls) return compose(new URLSearchParams(this.view?.query || ""), this.extra);
    const settings = this.controls.query();
    const dtype = this.view?.settings.dtype ?? "float32"; // it has no control
    if (dtype !== "float32") settings.set("dtype", dtype);
    return compose(settings, this.extra);
  }

  // --- asking -----------------------------------------------------------------------------------

  /**
   * Ask for an address.
   * @param {URLSearchParams | string} query
   * @param {Step} step "none" for an address that the history holds already
   */
  ask(query, step) {
    this.root.dataset.pending = "1";
    this.wanted = { query: query.toString(), step };
    if (this.busy) {
      const slow = performance.now() - this.busy.since > this.patience;
      if (!slow && !this.busy.refining) return;
      if (!this.busy.refining) this.patience *= 2;
      this.busy.control.abort();
    }
    this.send();
  }

  /**
   * Too many others are being served: what is on screen stays, and the page asks again.
   * @param {{busy: string, seconds: number}} answer
   * @param {Stage} stage
   */
  wait({ busy, seconds }, stage) {
    this.showBusy(true);
    setText(this.progress, busy);
    this.again = setTimeout(() => this.send(stage), 1000 * seconds);
  }

  /** A quick answer has the main chart alone. @returns {Stage} */
  begin() {
    return this.panel && this.panel !== "gradient" ? "first" : "quick";
  }

  async send(stage = this.begin()) {
    clearTimeout(this.again);
    const control = new AbortController();
    const refining = stage !== this.begin();
    /** @type {Question} */
    const question = { ...this.wanted, stage, refining, since: performance.now(), control };
    this.busy = question;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.showBusy(true), LOADING);
    const answer = await this.fetch(question);
    if (this.busy !== question) return; // a newer question is on its way
    this.busy = null;
    clearTimeout(this.waiting);
    if (answer?.busy) {
      this.wait(answer, stage);
      return;
    }
    if (answer) this.hear(answer, question);
    if (this.wanted.query !== question.query) this.send();
    else if (answer?.ensemble?.next) {
      const { next } = answer.ensemble;
      if (question.step === "draft") this.again = setTimeout(() => this.send(next), REST);
      else this.send(next);
    } else {
      this.showBusy(false);
      delete this.root.dataset.pending;
    }
  }

  /**
   * Return the server's answer, an error in words, or nothing where the question was given up.
   * @param {Question} question
   */
  async fetch({ query, stage, control }) {
    const mark = stage === "whole" ? "" : `${query ? "&" : ""}${stage}=1`;
    try {
      const response = await fetch(`/api/explore?${query}${mark}`, { signal: control.signal });
      const answer = await response.json();
      if (response.status !== 503) return answer;
      return { busy: answer.error, seconds: Number(response.headers.get("Retry-After")) };
    } catch {
      return control.signal.aborted ? null : { error: LOST };
    }
  }

  /**
   * @param {any} answer
   * @param {Question} question
   */
  hear(answer, question) {
    this.patience = PATIENCE;
    this.following?.();
    const newest = this.wanted.query === question.query;
    this.error.hidden = !answer.error;
    setText(this.error, answer.error || "");
    this.root.classList.toggle("ex-failed", Boolean(answer.error));
    if (answer.view) this.takeView(answer.view, newest);
    if (!question.refining) this.showNotices(answer.notices || []);
    if (answer.error) {
      const before = "This network was not measured; what is shown below is the one before.";
      if (this.look) setText(this.look, this.answer ? before : "This network was not measured.");
      return;
    }
    if (this.panel) {
      part(this.root, "whole").href = setPanel(answer.view.address, null);
      setText(part(this.root, "caption"), answer.caption); // before the chart takes its place
    }
    this.flow.show(answer);
    this.answer = answer;
    // While a control moves, there is no time to wait for the others: say whose values these are.
    if (question.step === "draft" && answer.ensemble.so_far)
      setText(this.progress, answer.ensemble.so_far);
    if (!this.panel) this.showSentences(answer);
    const { step } = this.wanted;
    const follow = () => {
      this.following = null;
      if (answer.quick) this.flow.showWords(answer);
      if (!this.panel) {
        this.showWords(answer);
        if (newest && !question.refining) this.keep(answer.view.address, step);
      }
      for (const listener of this.listeners) listener(answer, answer.view.query);
    };
    // The chart of a moving slider first, all that is read after the next frame. What an address
    // covers is covered before anything is painted.
    if (!answer.quick || answer.view.guess.length) follow();
    else {
      this.following = follow;
      afterPaint(() => this.following === follow && follow());
    }
  }

  /**
   * Take over what the server made of an address.
   * @param {any} view
   * @param {boolean} newest whether nothing newer is wanted
   */
  takeView(view, newest) {
    this.view = view;
    this.root.dataset.address = view.address;
    if (this.pinWord) {
      setText(this.pinWord, view.pin ? "Unpin" : "Pin");
      find(this.pinWord.parentElement, ".ex-wide").hidden = Boolean(view.pin);
    }
    if (!newest) return;
    const { measure, scale, layer, pin, hide, lock, embed, tour, guess, ask, theory } = view;
    this.extra = { measure, scale, layer, pin, hide, lock, embed, tour, guess, ask, theory };
    if (!this.controls) return;
    this.controls.hidden = new Set(hide);
    this.controls.locked = new Set(lock);
    this.controls.show(view.settings);
    for (const name of Object.keys(this.words.parts)) {
      part(this.root, name).hidden = hide.includes(name);
    }
    part(this.root, "apply-first").hidden = hide.includes("remedies");
    part(this.root, "share-open").hidden = hide.includes("share");
    part(this.root, "go-train").hidden = hide.includes("train");
  }

  /**
   * Write the address; the back button undoes one change, however many values it went through.
   * @param {string} address
   * @param {Step} step
   */
  keep(address, step) {
    clearTimeout(this.keeping);
    keepExplorer(address);
    const url = `?${address}${step === "none" ? location.hash : ""}`;
    const replace = () => history.replaceState(null, "", url);
    if (step === "none" || (step === "whole" && this.drafting)) replace();
    else if (step === "draft" && this.drafting) this.keeping = setTimeout(replace, 250);
    else if (location.search !== `?${address}`) history.pushState(null, "", url);
    this.drafting = step === "draft";
  }

  /** @param {boolean} on */
  showBusy(on) {
    this.root.setAttribute("aria-busy", String(on));
    this.root.classList.toggle("ex-busy", on);
    setText(this.progress, on ? this.answer?.ensemble.so_far || "measuring …" : "");
  }

  // --- showing ----------------------------------------------------------------------------------

  /**
   * Let the row of scenarios show the chosen one: on a phone it is longer than the screen.
   * @param {HTMLElement} button
   */
  bringIntoRow(button) {
    const row = /** @type {HTMLElement} */ (button.parentElement);
    const [box, seen] = [button.getBoundingClientRect(), row.getBoundingClientRect()];
    if (box.left >= seen.left && box.right <= seen.right) return;
    row.scrollLeft += box.left - seen.left - (seen.width - box.width) / 2;
  }

  /** @param {string[]} notices */
  showNotices(notices) {
    if (notices.length || this.notices.childElementCount) showNotices(this.notices, notices);
  }

  /** @param {any} answer */
  showWords(answer) {
    setText(this.look, answer.look_at);
    for (const [index, button] of this.scenarios.entries()) {
      const on = String(this.words.presets[index].name === answer.scenario);
      if (button.getAttribute("aria-pressed") === on) continue;
      button.setAttribute("aria-pressed", on);
      if (on === "true") this.bringIntoRow(button);
    }
    const inForce = this.controls?.describeMore() ?? [];
    this.inForce.hidden = !inForce.length;
    setText(this.inForce, `${inForce.join(". ")}.`);
    part(this.root, "chain-link").href = answer.chain;
    for (const link of this.files) {
      const { file } = link.dataset;
      link.href = `/files/${file}?${nameFile(file, answer.view)}`;
    }
    this.showComparison(answer);
  }

  /**
   * Ask for theory where it is wanted, once the whole ensemble is on screen.
   * @param {HTMLElement} place
   * @param {any} answer
   */
  async askTheory(place, answer) {
    if (!answer.view.theory) place.hidden = true;
    else if (!answer.ensemble.partial) {
      const { showTheory } = await import("./theory.js");
      await showTheory(place, answer, this.flow);
    }
  }

  /**
   * Show the diagnosis in three sentences, which the server writes (display/sentences.py).
   * @param {any} answer
   */
  showSentences({ cards, said, findings, limits }) {
    const { state, icon, value, badge } = cards.at(-1);
    const word = part(this.root, "verdict");
    word.dataset.state = state;
    setText(word, `${icon} ${value.digits}`);
    const chance = part(this.root, "chance");
    chance.dataset.state = badge?.state ?? "";
    setText(chance, badge ? `${badge.icon} ${badge.text}` : "");
    for (const name of ["what", "why"]) setText(part(this.root, name), said[name]);
    const compares = findings.some((/** @type {any} */ finding) => finding.compares);
    setText(part(this.root, "limits"), compares ? limits : "");
  }

  /** @param {any} answer */
  showComparison({ comparison }) {
    this.compare.hidden = !comparison;
    if (!comparison) return;
    const list = (/** @type {string[]} */ items) => items.map((item) => el("li", {}, item));
    const { settings, results } = comparison;
    const none = el("p", {}, "No setting yet: change one.");
    const changed = settings.length ? el("ul", {}, list(settings)) : none;
    part(this.compare, "settings-changed").replaceChildren(changed);
    part(this.compare, "results-changed").replaceChildren(...list(results));
  }
}

// The lesson once stood below; addresses that lead to it go on to its own page.
if (location.hash.startsWith("#lesson") && !new URLSearchParams(location.search).has("embed")) {
  location.replace(`/learn${location.search}${location.hash === "#lesson" ? "" : location.hash}`);
} else {
  new Explore(find(document, "#explore-root")).start();
}
