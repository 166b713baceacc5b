/* The explore page: its controls ask the server, its answers are shown by FlowView.
 *
 * One question at a time: while the server measures, the newest setting waits and goes next, so
 * that a drag is followed instead of queued. An answer is shown only if nothing newer was shown,
 * and whatever takes long is given up as soon as something newer is wanted. Where the whole
 * ensemble takes long, a first answer from fewer networks comes at once and is then refined.
 */
window.chainrule = window.chainrule || {};
(() => {
  "use strict";

  // After so many ms an unanswered question is given up for a newer one. Every time that happens
  // the patience doubles until an answer comes: at a busy server somebody who asks anew again and
  // again would stay last in the line.
  const PATIENCE = 300;
  const LOADING = 300; // ms after which the page says that it is measuring
  const { el, text } = chainrule.dom;

  class Explore {
    constructor(root) {
      this.root = root;
      this.words = JSON.parse(root.dataset.vocabulary);
      this.listeners = [];
      this.view = null;
      this.extra = { measure: "weight", scale: "log", layer: 1, pin: null, hide: [], lock: [], embed: null };
      this.busy = null;
      this.patience = PATIENCE;
      this.wanted = null;
    }

    start() {
      const embed = new URLSearchParams(location.search).get("embed");
      this.build(embed in this.words.panels ? embed : null);
      addEventListener("popstate", () => this.ask(location.search.slice(1), "none"));
      this.root.addEventListener("click", (event) => this.follow(event));
      this.ask(location.search.slice(1), "none");
    }

    // --- the page -------------------------------------------------------------------------

    build(embed) {
      const { words } = this;
      this.controls = new chainrule.Controls(words.controls, (_, done) => this.change(done));
      this.notices = el("div", { class: "ex-notices", role: "alert", "data-part": "notices" });
      this.error = el("div", { class: "ex-error", role: "alert", "data-part": "error", hidden: true });
      this.progress = el("div", { class: "ex-progress", role: "status", "data-part": "progress" });
      const results = el("div", { class: "ex-results", "data-part": "results" });
      this.flow = new chainrule.FlowView(results, {
        panels: words.panels,
        measures: words.measures,
        only: embed,
        onSwitch: (name, value) => this.switch(name, value),
      });
      if (embed) {
        document.documentElement.classList.add("ex-embedded");
        this.whole = el("a", { target: "_blank", rel: "noopener" }, "Open in chainrule");
        this.root.replaceChildren(el("div", { class: "ex-root" }, this.progress, this.notices, this.error, results, el("p", { class: "ex-whole" }, this.whole)));
        return;
      }
      this.look = el("p", { class: "ex-look", "data-part": "look-at" });
      this.presets = words.presets.map((preset) =>
        el("button", { type: "button", class: "ex-preset", "data-verdict": preset.verdict, title: preset.look_at, "aria-pressed": "false", onclick: () => this.choose(preset) }, preset.name));
      const scenarios = el("section", { class: "ex-scenarios", "data-part": "presets", "aria-labelledby": "ex-scenarios" },
        el("h2", { id: "ex-scenarios" }, "Scenario"), el("div", { class: "ex-presets" }, this.presets));
      const main = words.controls.filter((control) => !control.more).map(({ name }) => this.controls.node(name));
      const more = words.controls.filter((control) => control.more).map(({ name }) => this.controls.node(name));
      this.more = el("details", { "data-part": "more" }, el("summary", {}, "More settings"), el("div", { class: "ex-more" }, more));
      this.inForce = el("p", { class: "fv-dim", "data-part": "in-force", hidden: true });
      this.pinButton = el("button", { type: "button", class: "ex-button", onclick: () => this.pin() }, "Pin to compare");
      this.chainLink = el("a", { href: "/chain-rule", "data-part": "chain-link" }, "See its product of factors");
      this.compare = el("section", { class: "fv-panel ex-compare", "data-part": "compare-result", hidden: true, "aria-labelledby": "ex-compare" });
      const compare = el("div", { class: "ex-row" }, this.pinButton);
      const configure = el("section", { class: "ex-configure fv-panel", "aria-labelledby": "ex-configure" },
        el("h2", { id: "ex-configure" }, "Configure"), main, this.more, this.inForce, this.controls.help,
        compare, this.chainLink);
      this.remedies = el("section", { class: "fv-panel ex-remedies", "data-part": "remedies", id: "what-to-change" });
      this.train = el("section", { "data-part": "train", id: "train" });
      this.share = el("section", { class: "fv-panel", "data-part": "share", id: "share" });
      this.lesson = el("section", { "data-part": "lesson", id: "lesson" });
      const side = el("div", { class: "ex-side" }, this.progress, this.error, this.compare, results, this.remedies, this.train, this.share);
      const columns = el("div", { class: "ex-columns" }, configure, side);
      this.root.replaceChildren(el("div", { class: "ex-root" }, scenarios, this.look, this.notices, columns), this.lesson);
      const { more: settings, remedies, train, share, lesson } = this;
      this.parts = { presets: scenarios, more: settings, compare, remedies, train, share, lesson };
      const api = {
        query: () => this.view?.query || "",
        pinnedQuery: () => this.extra.pin,
        locked: () => this.extra.lock,
        apply: (query) => this.apply(query),
        onAnswer: (listener) => {
          this.listeners.push(listener);
          if (this.answer) listener(this.answer, this.view.query); // who comes late hears the latest
        },
        view: this.flow,
        address: () => this.view?.address || "",
      };
      chainrule.explore = api;
      chainrule.mountRemedies?.(this.remedies, api);
      chainrule.mountTrain?.(this.train, api);
      chainrule.mountShare?.(this.share, api);
      chainrule.mountLesson?.(this.lesson, api);
    }

    // --- changing -------------------------------------------------------------------------

    /** A control was changed; `done` is false while it is still being dragged or typed in. */
    change(done) {
      this.ask(this.compose(), done ? "whole" : "draft");
    }

    switch(name, value) {
      this.extra[name] = value;
      this.ask(this.compose(), "whole");
      if (name === "layer") this.flow.point(value);
    }

    choose(preset) {
      this.apply(preset.query);
    }

    /** Show a configuration; how it is shown (pinned network, scale, locks) stays. */
    apply(query) {
      const wanted = new URLSearchParams(query);
      const now = this.compose();
      for (const name of ["measure", "scale", "pin", "hide", "lock", "embed"]) {
        if (now.has(name)) wanted.set(name, now.get(name));
      }
      for (const name of this.extra.lock) {
        if (now.has(name)) wanted.set(name, now.get(name));
        else wanted.delete(name);
      }
      if (this.extra.lock.includes("init") && now.get("init") !== "random") wanted.delete("weight_std");
      this.ask(wanted.toString(), "whole");
    }

    pin() {
      this.extra.pin = this.extra.pin ? null : this.network();
      this.ask(this.compose(), "whole");
    }

    swap() {
      const pinned = this.extra.pin;
      this.extra.pin = this.network();
      this.apply(pinned);
    }

    /** The address of the network on screen alone: how many of it are drawn does not belong to it. */
    network() {
      const query = new URLSearchParams(this.view.query);
      query.delete("seeds");
      return query.toString();
    }

    /** Links that show a configuration do so in place. */
    follow(event) {
      const link = event.target.closest("a[data-show]");
      if (!link || event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      this.apply(new URL(link.href).search.slice(1));
      const top = this.root.querySelector(".ex-columns").getBoundingClientRect().top;
      if (top < 0) this.root.querySelector(".ex-look").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
    }

    compose() {
      const query = this.controls.query();
      const { measure, scale, layer, pin, hide, lock, embed } = this.extra;
      const depth = Number(query.get("depth"));
      if (this.view?.settings.dtype !== "float32" && this.view) query.set("dtype", this.view.settings.dtype);
      if (measure !== "weight") query.set("measure", measure);
      if (scale !== "log") query.set("scale", scale);
      if (layer > 1 && layer <= depth) query.set("layer", layer);
      if (pin) query.set("pin", pin);
      if (hide.length) query.set("hide", hide.join(","));
      if (lock.length) query.set("lock", lock.join(","));
      if (embed) query.set("embed", embed);
      return query;
    }

    // --- asking ---------------------------------------------------------------------------

    /**
     * Ask for an address.
     * @param step "whole" for a finished change, "draft" while something is being dragged or typed,
     *   "none" for an address that the history holds already
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

    /** Too many others are being served: what is on screen stays, and the page asks again. */
    wait({ busy, seconds }, refining) {
      this.showBusy(true);
      text(this.progress, busy);
      this.again = setTimeout(() => this.send(refining), 1000 * seconds);
    }

    async send(refining = false) {
      clearTimeout(this.again);
      const question = { ...this.wanted, refining, since: performance.now(), control: new AbortController() };
      this.busy = question;
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.showBusy(true), LOADING);
      let answer;
      try {
        const joint = question.query ? "&" : "";
        const response = await fetch(`/api/explore?${question.query}${refining ? "" : `${joint}first=1`}`, { signal: question.control.signal });
        answer = await response.json();
        if (response.status === 503) answer = { busy: answer.error, seconds: Number(response.headers.get("Retry-After")) };
      } catch (error) {
        answer = question.control.signal.aborted ? null : { error: "The server does not answer. Is it still running? The page asks again when you change something." };
      }
      if (this.busy !== question) return; // a newer question is on its way
      this.busy = null;
      clearTimeout(this.waiting);
      if (answer?.busy) return this.wait(answer, refining);
      if (answer) this.hear(answer, question);
      if (this.wanted.query !== question.query) this.send();
      else if (answer?.ensemble?.partial && !refining) {
        this.send(true);
      } else {
        this.showBusy(false);
        delete this.root.dataset.pending;
      }
    }

    hear(answer, question) {
      this.patience = PATIENCE;
      const newest = this.wanted.query === question.query;
      this.error.hidden = !answer.error;
      text(this.error, answer.error || "");
      this.root.classList.toggle("ex-failed", Boolean(answer.error));
      if (answer.view) {
        this.view = answer.view;
        if (this.pinButton) text(this.pinButton, answer.view.pin ? "Unpin" : "Pin to compare");
        if (newest) {
          const { measure, scale, layer, pin, hide, lock, embed } = answer.view;
          this.extra = { measure, scale, layer, pin, hide, lock, embed };
          this.controls.hidden = new Set(hide);
          this.controls.locked = new Set(lock);
          this.controls.show(answer.view.settings);
          this.hide(hide);
        }
      }
      if (!question.refining) this.showNotices(answer.notices || []);
      if (answer.error) {
        if (this.look) text(this.look, "This network was not measured; what is shown below is the one before.");
        return;
      }
      this.flow.show(answer);
      if (this.whole) {
        const address = new URLSearchParams(answer.view.address);
        address.delete("embed");
        this.whole.href = `/?${address}`;
      }
      if (this.look) this.showWords(answer);
      if (newest && !this.whole && !question.refining) this.keep(answer.view.address, this.wanted.step);
      this.answer = answer;
      for (const listener of this.listeners) listener(answer, answer.view.query);
    }

    /** Write the address; the back button undoes one change, however many values it went through. */
    keep(address, step) {
      clearTimeout(this.keeping);
      const url = `?${address}${step === "none" ? location.hash : ""}`;
      const replace = () => history.replaceState(null, "", url);
      if (step === "none" || (step === "whole" && this.drafting)) replace();
      else if (step === "draft" && this.drafting) this.keeping = setTimeout(replace, 250);
      else if (location.search !== `?${address}`) history.pushState(null, "", url);
      this.drafting = step === "draft";
    }

    showBusy(on) {
      this.root.setAttribute("aria-busy", String(on));
      this.root.classList.toggle("ex-busy", on);
      text(this.progress, on ? "measuring …" : "");
    }

    // --- showing --------------------------------------------------------------------------

    showNotices(notices) {
      if (!notices.length && !this.notices.childElementCount) return;
      this.notices.replaceChildren(...notices.map((notice) => el("p", {}, notice)));
    }

    showWords(answer) {
      text(this.look, answer.look_at);
      this.presets.forEach((button, index) => {
        const on = this.words.presets[index].name === answer.scenario;
        if ((button.getAttribute("aria-pressed") === "true") !== on) button.setAttribute("aria-pressed", String(on));
      });
      const inForce = this.controls.describeMore();
      this.inForce.hidden = !inForce.length;
      text(this.inForce, `${inForce.join(". ")}.`);
      this.chainLink.href = answer.chain;
      this.showComparison(answer);
    }

    showComparison({ comparison }) {
      this.compare.hidden = !comparison;
      const key = JSON.stringify(comparison);
      if (!comparison || this.compared === key) return;
      this.compared = key;
      const list = (items) => el("ul", {}, items.map((item) => el("li", {}, item)));
      this.compare.replaceChildren(
        el("div", { class: "fv-head" }, el("h2", { id: "ex-compare" }, "Compared with the pinned network"),
          el("div", { class: "fv-tools" }, el("button", { type: "button", class: "fv-quiet", onclick: () => this.swap() }, "Swap"), el("button", { type: "button", class: "fv-quiet", onclick: () => this.pin() }, "Unpin"))),
        el("p", { class: "fv-dim" }, "Pinned: dashed, in orange. Each line reads pinned → on screen."),
        el("div", { class: "ex-differences" },
          el("div", {}, el("h3", {}, "What was changed"), comparison.settings.length ? list(comparison.settings) : el("p", {}, "Nothing yet: change a setting.")),
          el("div", {}, el("h3", {}, "What came of it"), list(comparison.results))),
      );
    }

    hide(names) {
      for (const [part, node] of Object.entries(this.parts || {})) node.hidden = names.includes(part);
    }
  }

  function boot() {
    const root = document.getElementById("explore-root");
    if (!root || root.dataset.ready || !window.Plotly || !chainrule.Controls || !chainrule.FlowView) return;
    root.dataset.ready = "1";
    new Explore(root).start();
  }
  new MutationObserver(boot).observe(document.documentElement, { childList: true, subtree: true });
  addEventListener("load", boot);
})();
