/* The chain-rule page's address: everything on the page that can be set, to and from a query. */
import { subscript } from "../shared/numbers.js";

/**
 * A chain: one unit per layer.
 * @typedef {object} Chain
 * @property {number} x
 * @property {number[]} weights
 * @property {number[] | null} biases
 * @property {string} activation a name, or one for each layer, with commas
 * @property {string} wrt the variable that p is differentiated by
 */

/** @typedef {Record<string, Record<string, any>>} CardValues what the two cards beside the chain show */

/** @type {Chain} */
export const START = {
  x: 1,
  weights: [0.5, -2, 1.5],
  biases: null,
  activation: "sigmoid",
  wrt: "w1",
};
/** How the chain is shown: the order of its derivation, and how far the variable is pushed. */
export const SHOWN = { order: "backward", push: "0.01" };
export const ORDERS = ["backward", "forward"];
export const PUSHES = ["0.01", "0.1", "1"];
export const MAX_LAYERS = 50;
export const MAX_STEPS = 200;
/** @type {CardValues} */
export const CARDS = {
  depth: { w: 1, activation: "sigmoid" },
  time: { w: 1.3, steps: 20, activation: "identity", clip: "" },
};
export const NETWORK = [
  "depth",
  "width",
  "init",
  "distribution",
  "weight_std",
  "bias_std",
  "residual",
  "normalization",
  "clip_norm",
  "batch_size",
  "input_scale",
  "seed",
  "dtype",
  "network_activation",
];

const quote = (/** @type {any} */ text) => `“${String(text).slice(0, 20)}”`;
/**
 * A number as people write it; `null` where there is none, also for nothing at all.
 * @param {string} text
 */
const readNumber = (text) =>
  text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null;

/**
 * Return what the address asks for, and a notice for each thing in it that is not possible.
 * @param {string} search
 * @param {string[]} activations names of those that there are
 * @param {number} steps how many the walk has
 */
export function readAddress(search, activations, steps) {
  const query = new URLSearchParams(search);
  /** @type {string[]} */
  const notices = [];
  const known = (/** @type {string} */ name) => activations.includes(name);
  const read = (/** @type {string} */ key) => query.get(key) ?? "";

  const list = (
    /** @type {string} */ key,
    /** @type {number} */ fallback,
    /** @type {number} */ most,
  ) => {
    const parts = read(key).split(",");
    if (parts.length > most)
      notices.push(`${key}: ${parts.length} came; the first ${most} are shown.`);
    return parts.slice(0, most).map((part, i) => {
      const value = readNumber(part);
      if (value === null)
        notices.push(
          `${key[0]}${subscript(i + 1)}: ${quote(part)} is no finite number; using ${fallback}.`,
        );
      return value ?? fallback;
    });
  };
  const number = (/** @type {string} */ key, /** @type {number} */ fallback, name = key) => {
    if (!query.has(key)) return fallback;
    const value = readNumber(read(key));
    if (value === null)
      notices.push(
        `${name}: ${quote(read(key))} is no finite number; ${name === "walk" ? "not started" : `using ${fallback}`}.`,
      );
    return value ?? fallback;
  };
  const choice = (/** @type {string} */ key, /** @type {string} */ fallback) => {
    if (!query.has(key) || known(read(key))) return query.get(key) ?? fallback;
    notices.push(`activation: ${quote(read(key))} is not known; using ${fallback}.`);
    return fallback;
  };

  const state = structuredClone(START);
  if (query.has("weights")) state.weights = list("weights", 1, MAX_LAYERS);
  if (query.has("biases")) {
    const biases = list("biases", 0, MAX_LAYERS);
    if (biases.length !== state.weights.length)
      notices.push(
        `biases: ${biases.length} came for ${state.weights.length} layers; those missing are 0.`,
      );
    state.biases = state.weights.map((_, i) => biases[i] ?? 0);
  }
  state.x = number("x", state.x);
  if (query.has("activation")) {
    const names = read("activation").split(",").slice(0, MAX_LAYERS);
    const unknown = names.find((name) => !known(name));
    if (unknown !== undefined)
      notices.push(`activation: ${quote(unknown)} is not known; using ${state.activation}.`);
    else if (![1, state.weights.length].includes(names.length))
      notices.push(
        `activation: ${names.length} came for ${state.weights.length} layers; using ${state.activation}.`,
      );
    else state.activation = names.join();
  }
  const variables = listVariables(state);
  if (query.has("wrt")) {
    if (variables.includes(read("wrt"))) state.wrt = read("wrt");
    else
      notices.push(
        `gradient of p with respect to: ${quote(read("wrt"))} is no variable of this chain; using w₁.`,
      );
  }

  const cards = structuredClone(CARDS);
  cards.depth.w = number("depth_w", cards.depth.w, "w of “Why it vanishes”");
  cards.depth.activation = choice("depth_activation", cards.depth.activation);
  cards.time.w = number("time_w", cards.time.w, "w of “Through time”");
  cards.time.activation = choice("time_activation", cards.time.activation);
  const length = number("time_steps", cards.time.steps, "steps");
  cards.time.steps = Math.max(1, Math.min(MAX_STEPS, Math.round(length)));
  if (cards.time.steps !== length)
    notices.push(`steps: ${length} is not possible; using ${cards.time.steps}.`);
  const clip = query.has("time_clip") ? readNumber(read("time_clip")) : null;
  if (clip !== null && clip > 0) cards.time.clip = String(clip);
  else if (query.has("time_clip"))
    notices.push(`clip: ${quote(read("time_clip"))} is no number above 0; never clipping.`);

  const asked = number("walk", 0);
  const walk = Math.max(0, Math.min(steps, Math.round(asked)));
  if (walk !== asked)
    notices.push(`walk: it has ${steps} steps; ${walk ? `showing step ${walk}` : "not started"}.`);

  const shown = { ...SHOWN };
  if (ORDERS.includes(read("order"))) shown.order = read("order");
  if (PUSHES.includes(read("push"))) shown.push = read("push");

  const network = Object.fromEntries(
    NETWORK.filter((key) => query.has(key)).map((key) => [key, read(key)]),
  );
  for (const key of ["depth", "width"]) {
    if (key in network && readNumber(network[key]) === null) {
      notices.push(
        `${key} of the real network: ${quote(network[key])} is no finite number; left out.`,
      );
      delete network[key]; // with nothing else asked for, the network is the page's own
    }
  }
  return { state, cards, walk, network, shown, notices, chosen: query.has("weights") };
}

/**
 * The names of all that p can be differentiated by.
 * @param {Chain} chain
 */
export const listVariables = ({ weights, biases }) => [
  "x",
  ...weights.map((_, i) => `w${i + 1}`),
  ...(biases || []).map((_, i) => `b${i + 1}`),
];

/**
 * What to ask the server for a chain.
 * @param {Chain} chain
 * @returns {Record<string, any>}
 */
export const toQuery = ({ x, weights, biases, activation, wrt }) => ({
  x,
  weights: weights.join(","),
  ...(biases ? { biases: biases.join(",") } : {}),
  activation,
  wrt,
});

/**
 * The query that brings all of it back.
 * @param {{state: Chain, cards: CardValues, walk: number, network: Record<string, string>, shown?: typeof SHOWN}} page
 */
export const writeAddress = ({ state, cards, walk, network, shown = SHOWN }) => {
  const query = new URLSearchParams({ ...toQuery(state), ...network });
  for (const [card, values] of Object.entries(cards)) {
    for (const [key, value] of Object.entries(values)) {
      if (value !== CARDS[card][key]) query.set(`${card}_${key}`, value);
    }
  }
  if (shown.order !== SHOWN.order) query.set("order", shown.order);
  if (shown.push !== SHOWN.push) query.set("push", shown.push);
  if (walk) query.set("walk", String(walk));
  return query;
};
