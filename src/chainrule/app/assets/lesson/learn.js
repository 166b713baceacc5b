/* The lesson's page: the picture beside the text follows the section in sight.
 *
 * Every section that has a control (`data-scene`) says which measured networks it goes through; the
 * picture shows the one that is chosen. Links that say "show me" put theirs into the picture. The
 * address holds the section, what was put into the picture by hand, and the explorer's network, to
 * which all ways back lead.
 */
import { follow } from "../explore/address.js";
import { find, findAll, part, readData, setText } from "../shared/dom.js";
import { FlowView } from "../shared/flow_view.js";
import { keepExplorer, recallExplorer } from "../shared/frame.js";
import { listNames, ROW } from "../shared/zones.js";
import { mountLesson } from "./lesson.js";

const LINE = "-47% 0px -52% 0px"; // the section that crosses this strip of the window is in sight
const BAND = "(max-width: 69.99em)"; // the picture is a band above the text
const SHOW = "show"; // in the address: what was put into the picture by hand
const KEPT = 60; // answers that are kept: whoever scrolls back waits for nothing
const LOST = "The server does not answer. Choose a network to ask again.";

/**
 * Return the network that a link or a control names.
 * @param {string} address
 */
function readQuery(address) {
  return address.slice(address.indexOf("?") + 1);
}

/**
 * Leave out of a chart what a narrow band has no room for; the names of zones stand beside it.
 * @param {any} figure
 * @param {number} height px of its place
 */
function trim(figure, height) {
  const layout = structuredClone(figure.layout);
  const margin = { l: 46, r: 68, t: 4, b: 18 };
  layout.margin = margin;
  layout.annotations = listNames(layout, height - margin.t - margin.b).flatMap(({ lines, y }) =>
    lines.map((line, i) => ({
      xref: "paper",
      x: 1,
      xanchor: "left",
      yref: "paper",
      y: 1,
      yanchor: "middle",
      yshift: -(y + i * ROW),
      text: `<b>${line}</b>`,
      showarrow: false,
      font: { size: 10 },
    })),
  );
  for (const axis of [layout.xaxis, layout.yaxis]) {
    axis.title = { text: "" };
    axis.automargin = false;
  }
  const [low, high] = layout.yaxis.range;
  layout.yaxis.dtick = 6 * Math.max(1, Math.ceil((high - low) / 24));
  layout.yaxis.tickfont = { size: 10 };
  layout.xaxis.tickfont = { size: 10 };
  return { data: figure.data, layout };
}

/**
 * Let the titles of a chart's axes be no larger than its ticks.
 * @param {any} figure
 */
function fit(figure) {
  const layout = structuredClone(figure.layout);
  for (const axis of [layout.xaxis, layout.yaxis]) axis.title.font = { size: 12 };
  return { data: figure.data, layout };
}

/** The picture: one network at a time, as the server measures it. */
class Picture {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.wanted = "";
    this.shown = "";
    this.busy = false;
    /** @type {Map<string, any>} */
    this.answers = new Map();
    /** @type {((answer: any, query: string) => void)[]} */
    this.listeners = [];
    /** @type {(() => void)[]} */
    this.waiting = []; // what is done once the wanted network is shown
    this.flow = new FlowView(root, {
      panels: readData(document, "vocabulary").panels,
      only: "gradient",
      onSwitch: (name, value) => name === "layer" && this.flow.point(value),
    });
    this.band = matchMedia(BAND);
    this.band.addEventListener("change", () => this.draw());
  }

  query() {
    return this.wanted;
  }

  /** @param {(answer: any, query: string) => void} listener */
  onAnswer(listener) {
    this.listeners.push(listener);
    if (this.shown) listener(this.answers.get(this.shown), this.shown);
  }

  /**
   * Show a network; while one is being measured, the newest waits and goes next.
   * @param {string} query
   * @param {() => void} [then] called once it is shown
   */
  show(query, then) {
    if (query !== this.wanted) this.waiting = [];
    if (then) this.waiting.push(then);
    this.wanted = query;
    const known = this.answers.get(query);
    if (known) this.take(known, query);
    else if (!this.busy) this.ask();
  }

  async ask() {
    const query = this.wanted;
    this.busy = true;
    this.root.setAttribute("aria-busy", "true");
    const answer = await this.fetch(query);
    this.busy = false;
    if (answer.figures) {
      this.answers.set(query, answer);
      if (this.answers.size > KEPT) this.answers.delete(this.answers.keys().next().value ?? "");
    }
    if (query === this.wanted) this.take(answer, query);
    else if (!this.answers.has(this.wanted)) this.ask();
  }

  /** @param {string} query */
  async fetch(query) {
    try {
      const response = await fetch(`/api/explore?${query}`);
      return await response.json();
    } catch {
      return { error: LOST };
    }
  }

  /**
   * @param {any} answer
   * @param {string} query
   */
  take(answer, query) {
    this.root.setAttribute("aria-busy", "false");
    const error = part(this.root, "error");
    error.hidden = !answer.error;
    setText(error, answer.error || "");
    if (answer.error) return;
    if (query !== this.shown) {
      this.shown = query;
      this.draw();
    }
    for (const work of this.waiting.splice(0)) work();
    for (const listener of this.listeners) listener(answer, query);
  }

  draw() {
    const answer = this.answers.get(this.shown);
    if (!answer) return;
    const { figures } = answer;
    const { plot } = this.flow.marks.gradient;
    const gradient = this.band.matches
      ? trim(figures.gradient, plot.clientHeight)
      : fit(figures.gradient);
    this.flow.show({ ...answer, figures: { ...figures, gradient } });
    const verdict = part(this.root, "verdict");
    const { icon, state, value } = answer.cards.at(-1);
    verdict.dataset.state = state;
    verdict.dataset.verdict = answer.verdict;
    setText(verdict, `${icon} ${value.digits}`);
    setText(part(this.root, "name"), answer.caption);
    this.root.dataset.network = this.shown;
  }

  /** Say what is shown, to those who do not see it. */
  say() {
    const { verdict, caption } = this.answers.get(this.shown);
    setText(part(this.root, "said"), `${caption}: ${verdict}`);
  }
}

class Learn {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    const query = new URLSearchParams(location.search);
    this.byHand = query.get(SHOW);
    query.delete(SHOW);
    this.own = query.toString();
    if (this.own) keepExplorer(this.own);
    else this.own = recallExplorer();
    this.picture = new Picture(part(root, "picture"));
    /** @type {any} */
    this.section = null;
    this.links = new Map(
      findAll(root, ".ls-contents a").map((link) => [link.getAttribute("href").slice(1), link]),
    );
  }

  start() {
    const { picture } = this;
    picture.onAnswer((_, query) => {
      const own = new URLSearchParams(this.own);
      const back = follow(query, own, own.get("lock")?.split(",") ?? []);
      part(this.root, "open").href = `/?${back}`;
    });
    picture.show(this.byHand ?? readQuery(find(this.root, "[data-scene]").dataset.start));
    mountLesson(find(this.root, ".ls-lesson"), picture);
    for (const scene of findAll(this.root, "[data-scene]")) this.connect(scene);
    this.root.addEventListener("click", (event) => this.follow(event));
    const watcher = new IntersectionObserver((entries) => this.watch(entries), {
      rootMargin: LINE,
    });
    for (const section of findAll(this.root, ".ls-section")) watcher.observe(section);
    this.root.dataset.ready = "1";
  }

  // --- controls ---------------------------------------------------------------------------------

  /** @param {any} scene */
  connect(scene) {
    const slider = find(scene, "input[type=range]");
    const play = find(scene, "[data-play]");
    const output = find(scene, "output");
    slider?.addEventListener("input", () => {
      const label = slider.dataset.labels.split(" ")[Number(slider.value)];
      output.value = label;
      slider.setAttribute("aria-valuetext", `${label} layers`);
      this.put(this.read(scene), scene);
    });
    for (const radio of findAll(scene, "input[type=radio]")) {
      radio.addEventListener("change", () => this.put(this.read(scene), scene));
    }
    play?.addEventListener("click", () => {
      this.put(this.read(scene), scene, () => this.picture.flow.strip?.play());
    });
  }

  /**
   * Return the network that a control is set to.
   * @param {any} scene
   */
  read(scene) {
    const slider = find(scene, "input[type=range]");
    const radio = find(scene, "input:checked");
    const address = slider
      ? slider.dataset.networks.split(" ")[Number(slider.value)]
      : (radio?.value ?? scene.dataset.start);
    return readQuery(address);
  }

  /**
   * Put a network into the picture, as somebody asked for it.
   * @param {string} query
   * @param {Element} from what was used; its section, which may only just have come into sight, does
   *   not put its own picture in place of this one
   * @param {() => void} [then]
   */
  put(query, from, then) {
    this.entered = from.closest(".ls-section") ?? this.entered;
    this.byHand = query;
    this.write();
    this.picture.show(query, () => {
      this.picture.say();
      then?.();
    });
  }

  /** @param {any} event */
  follow(event) {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("a[data-show]");
    const example = event.target.closest("button[data-network]:not([data-play])");
    if (link) event.preventDefault();
    if (link) this.put(readQuery(link.getAttribute("href")), link);
    else if (example) this.put(readQuery(example.dataset.network), example);
  }

  // --- sections ---------------------------------------------------------------------------------

  /** @param {IntersectionObserverEntry[]} entries */
  watch(entries) {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) this.enter(target);
      else if (target === this.section) this.section = null;
    }
    this.mark();
  }

  /**
   * Show what belongs to a section; where it has no picture of its own, the last one stays.
   * @param {any} section
   */
  enter(section) {
    const arrived = this.section === null && this.entered === undefined;
    this.section = section;
    if (this.entered === section) return;
    this.entered = section;
    if (arrived && this.byHand !== null) return; // the address says what to show
    const scene = find(section, "[data-scene]");
    if (!scene) return;
    this.byHand = null;
    this.picture.show(this.read(scene));
  }

  /** Mark the section in sight among the contents, and write it into the address. */
  mark() {
    const id = this.section?.getAttribute("aria-labelledby");
    for (const [name, link] of this.links) {
      if (name === id) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    this.write();
  }

  write() {
    const query = new URLSearchParams(location.search);
    if (this.byHand === null) query.delete(SHOW);
    else query.set(SHOW, this.byHand);
    const id = this.section?.getAttribute("aria-labelledby");
    const search = query.size ? `?${query}` : "";
    const url = `${location.pathname}${search}${id ? `#${id}` : ""}`;
    if (url !== `${location.pathname}${location.search}${location.hash}`) {
      history.replaceState(history.state, "", url);
    }
  }
}

new Learn(find(document, "#learn-root")).start();
