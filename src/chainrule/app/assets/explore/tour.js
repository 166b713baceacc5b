/* The first minute: three steps on the real controls, each with a guess before it is seen.
 *
 * The words are in templates/tour.html; what was measured is told by the server's answers. The
 * address holds the step. It is offered once, to whoever comes without an address.
 */
import { el, find, findAll, part, setText } from "../shared/dom.js";
import { formatShare } from "../shared/numbers.js";
import { tryNetwork } from "./trial.js";

const SEEN = "tour";
const DEEP = "depth=15&activation=sigmoid&init=xavier";
const RESCUED = "depth=15&activation=relu&init=he";
/** @type {Record<string, {show: {query: string, pin: string | null}, done: (settings: any) => boolean, controls: string[]}>} */
const STEPS = {
  1: {
    show: { query: "depth=2&activation=sigmoid&init=xavier", pin: null },
    done: ({ depth, activation }) => Number(depth) >= 15 && activation === "sigmoid",
    controls: ["depth"],
  },
  2: {
    show: { query: DEEP, pin: DEEP },
    done: ({ activation, init }) => activation === "relu" && init === "he",
    controls: ["activation", "init"],
  },
  3: { show: { query: RESCUED, pin: DEEP }, done: () => false, controls: [] },
};

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
    if (!step || !STEPS[step].done(answer.view.settings) || answer.ensemble.partial) return;
    setText(part(card, "tour-bridge"), answer.bridge);
    reveal(step, answer.said.what);
  });

  /** @param {string} step */
  function go(step) {
    remember();
    explore.walk(step, STEPS[step].show);
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
    for (const [i, query] of [RESCUED, DEEP].entries()) {
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
