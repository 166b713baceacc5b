/* The first minute: three steps on the real controls, each with a guess before it is seen.
 *
 * The words are in templates/tour.html; what was measured is told by the server's answers. The
 * address holds the step. It is offered once, to whoever comes without an address.
 */
import { el, find, findAll, part, setText } from "../shared/dom.js";
import { formatShare } from "../shared/numbers.js";
import { tryNetwork } from "./trial.js";

const SEEN = "tour";
const USUAL = 15; // layers where an address does not say
const [LEAST, MOST] = [10, 20]; // layers that are near enough to what the first step asks for

/**
 * The network that cannot learn.
 * @param {number} depth
 */
const sink = (depth) => `depth=${depth}&activation=sigmoid&init=xavier`;

/**
 * The same with other layers.
 * @param {number} depth
 */
const rescue = (depth) => `depth=${depth}&activation=relu&init=he`;

/** @typedef {{query: string, pin: string | null}} Show */
/** @type {Record<string, {show: (depth: number) => Show, done: (settings: any) => boolean, controls: string[]}>} */
const STEPS = {
  1: {
    show: () => ({ query: sink(2), pin: null }),
    done: ({ depth, activation }) => isNear(depth) && activation === "sigmoid",
    controls: ["depth"],
  },
  2: {
    show: (depth) => ({ query: sink(depth), pin: sink(depth) }),
    done: ({ activation, init }) => activation === "relu" && init === "he",
    controls: ["activation", "init"],
  },
  3: {
    show: (depth) => ({ query: rescue(depth), pin: sink(depth) }),
    done: () => false,
    controls: [],
  },
};

/** @param {string | number} depth */
function isNear(depth) {
  return Number(depth) >= LEAST && Number(depth) <= MOST;
}

/**
 * What a learner who has moved the slider elsewhere is told.
 * @param {number} depth
 */
export function hint(depth) {
  if (depth === 2 || isNear(depth)) return "";
  return `There are ${depth} now: anything from ${LEAST} to ${MOST} will do.`;
}

/**
 * What the first step begins with, in words that stay true while the slider moves.
 * @param {number} depth
 */
export function tellDepth(depth) {
  if (depth === 2) return "This network has 2 layers, and both learn.";
  const layers = depth === 1 ? "1 layer" : `${depth} layers`;
  return `With 2 layers, both learned. Now there ${depth === 1 ? "is" : "are"} ${layers}.`;
}

/**
 * Bring the tour to life.
 * @param {HTMLElement} root
 * @param {import("./explore.js").Api} explore
 * @param {string} arrived the address as it was before the page wrote it
 */
export function mountTour(root, explore, arrived) {
  const card = part(root, "tour");
  const invite = part(root, "invite");
  /** @type {string | null} */
  let shown = null;
  let right = /** @type {boolean | null} */ (null); // whether the guess was; null before it
  let depth = USUAL; // of the learner's own network: later steps go on with it
  /** @type {AbortController | null} */
  let race = null;

  card.dataset.ready = "1";
  if (!arrived && isNew()) invite.hidden = false;
  part(root, "tour-start").addEventListener("click", () => go("1"));
  part(root, "tour-dismiss").addEventListener("click", () => remember());
  for (const name of ["tour-skip", "tour-done"])
    part(card, name).addEventListener("click", () => {
      remember();
      race?.abort();
      explore.walk(null);
    });
  for (const button of findAll(card, "[data-next]"))
    button.addEventListener("click", () => go(button.dataset.next));
  for (const button of findAll(card, "[data-guesses] button"))
    button.addEventListener("click", () => guess(button));
  part(card, "race").addEventListener("click", () => run());
  addEventListener("pagehide", () => race?.abort());

  // An address that names a step and no network stands for the step as it begins.
  let bare = /^\?tour=\d$/.test(arrived);

  explore.onAnswer((answer) => {
    const step = explore.step();
    if (bare && step) {
      bare = false;
      go(step);
      return;
    }
    if (step !== shown) open(step);
    if (!step) return;
    const now = Number(answer.view.settings.depth);
    if (step === "1") {
      setText(part(card, "tour-hint"), hint(now));
      setText(part(card, "tour-now"), tellDepth(now));
    }
    if (step === "1" ? isNear(now) : explore.pinnedQuery()) depth = readDepth(now);
    setText(part(card, "tour-depth"), String(depth));
    if (answer.ensemble.partial) return;
    if (!STEPS[step].done(answer.view.settings)) {
      if (right !== null) ask(step); // what was seen is on screen no more
      return;
    }
    setText(part(card, "tour-why"), answer.said.why);
    setText(part(card, "tour-bridge"), answer.bridge);
    reveal(step, answer.said.what);
  });

  /** @param {string} step */
  function go(step) {
    remember();
    explore.walk(step, STEPS[step].show(depth));
  }

  /**
   * The depth of the network that the learner has made: from the second step on it is pinned.
   * @param {number} now the depth on screen
   */
  function readDepth(now) {
    const pinned = new URLSearchParams(explore.pinnedQuery() ?? "").get("depth");
    return shown !== "1" && pinned ? Number(pinned) : now;
  }

  function remember() {
    invite.hidden = true;
    try {
      localStorage.setItem(SEEN, "1");
    } catch {} // a browser that keeps nothing is asked again
  }

  /** @param {string | null} step */
  function open(step) {
    shown = step;
    right = null;
    race?.abort();
    card.hidden = !step;
    part(root, "apply-first").classList.toggle("primary", !step); // no louder than the tour
    if (step) invite.hidden = true;
    for (const box of findAll(card, "[data-tour]")) {
      box.hidden = box.dataset.tour !== step;
      for (const later of findAll(box, "[data-task], [data-end]")) later.hidden = true;
      for (const button of findAll(box, "[data-guesses] button")) {
        button.disabled = false;
        button.setAttribute("aria-pressed", "false");
      }
    }
    part(card, "race-lanes").hidden = true;
    setText(part(card, "race-status"), "");
    for (const item of findAll(card, "[data-step]")) {
      if (item.dataset.step === step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
    light(null);
  }

  /**
   * Let the controls that a step is about stand out.
   * @param {string | null} step
   */
  function light(step) {
    const names = step ? STEPS[step].controls : [];
    for (const box of findAll(root, "[data-control]"))
      box.classList.toggle("ex-lit", names.includes(box.dataset.control));
  }

  /** @param {any} button */
  function guess(button) {
    const box = button.closest("[data-tour]");
    right = button.dataset.right !== undefined;
    for (const each of findAll(box, "[data-guesses] button")) {
      each.setAttribute("aria-pressed", String(each === button));
      each.disabled = each !== button;
    }
    find(box, "[data-task]").hidden = false;
    light(shown);
  }

  /**
   * Say how it is, beside what was guessed.
   * @param {string} step
   * @param {string} measured
   */
  function reveal(step, measured) {
    const box = find(card, `[data-tour="${step}"]`);
    const words = right === null ? "" : right ? "Your guess was right." : "Not as you guessed.";
    setText(find(box, "[data-verdict]"), words);
    setText(find(box, "[data-measured]"), measured);
    find(box, "[data-end]").hidden = false;
    find(box, "[data-task]").hidden = true;
    light(null);
  }

  /**
   * Ask again for what a step asks for.
   * @param {string} step
   */
  function ask(step) {
    const box = find(card, `[data-tour="${step}"]`);
    if (step === "3" || find(box, "[data-end]").hidden) return;
    find(box, "[data-end]").hidden = true;
    find(box, "[data-task]").hidden = false;
    light(step);
  }

  async function run() {
    const control = new AbortController();
    race = control;
    const lanes = findAll(card, "[data-part=race-lanes] p");
    const status = part(card, "race-status");
    part(card, "race-lanes").hidden = false;
    find(card, '[data-tour="3"] [data-task]').hidden = true;
    const ends = [];
    for (const lane of lanes)
      setText(find(lane, "b"), lane === lanes[0] ? "training …" : "is next");
    for (const [i, query] of [rescue(depth), sink(depth)].entries()) {
      const [bar, number] = [find(lanes[i], "progress"), find(lanes[i], "b")];
      setText(number, "training …");
      const end = await tryNetwork(
        query,
        (line) => {
          if (line.type === "queued") setText(status, line.status);
          if (line.type !== "step") return;
          setText(status, `Step ${line.step} of 300`);
          bar.value = line.accuracy ?? 0;
          setText(number, formatShare(line.accuracy));
        },
        control.signal,
      );
      if (control.signal.aborted) return;
      if (end.type === "error") {
        status.replaceChildren(end.error, " ", el("button", { onclick: () => run() }, "Again"));
        return;
      }
      bar.value = end.accuracy ?? 0;
      setText(number, `${formatShare(end.accuracy)} right`);
      ends.push(end);
    }
    setText(status, "");
    const [rescued, deep] = ends.map(({ accuracy }) => formatShare(accuracy));
    reveal("3", `The ReLU network reads ${rescued} of the digits, the Sigmoid network ${deep}.`);
  }
}

/** Whether the tour was never taken nor skipped in this browser. */
function isNew() {
  try {
    return !localStorage.getItem(SEEN);
  } catch {
    return true;
  }
}
