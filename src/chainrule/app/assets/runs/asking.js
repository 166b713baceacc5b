/* What the pages of runs share: asking the server, and a run's state in words. */
import { el } from "../shared/dom.js";

const AWAY = "The server does not answer. This page tries again.";

/** @type {Record<string, [string, string]>} */
const STATES = {
  live: ["●", "good"],
  ended: ["✓", ""],
  stopped: ["■", "warn"],
  gone: ["■", "warn"],
  damaged: ["!", "bad"],
};

/**
 * Ask for an answer, unless it is still the one of a tag.
 * @param {string} address
 * @param {string} tag of the last answer
 * @returns {Promise<{status: number, answer: any, tag: string}>}
 */
export async function ask(address, tag) {
  /** @type {Record<string, string>} */
  const headers = tag ? { "If-None-Match": tag } : {};
  try {
    const response = await fetch(address, { headers, cache: "no-store" });
    const next = response.headers.get("ETag") ?? "";
    if (response.status === 304) return { status: 304, answer: null, tag };
    return { status: response.status, answer: await response.json(), tag: next };
  } catch {
    return { status: 0, answer: { error: AWAY }, tag: "" };
  }
}

/**
 * @param {string} state
 * @returns {any[]}
 */
export function stateNodes(state) {
  const [sign, mood] = STATES[state] ?? ["", ""];
  return [
    el(
      "span",
      { class: "ru-state", "data-state": mood, "data-run": state },
      el("span", { "aria-hidden": "true" }, `${sign} `),
      state,
    ),
  ];
}
