/* What surrounds every page: the switch between light and dark, and links that keep the network. */

import { find, findAll, whenIdle } from "./dom.js";

const THEME = "theme";
const EXPLORER = "explorer"; // the explorer's last address in this tab
const CHAIN = "/chain-rule";
const EXPRESSION = "/chain-rule?expr"; // what is kept of its other part

/** Whether the page is dark now. */
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

for (const button of findAll(document, "button.theme")) {
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(THEME, theme);
    } catch {} // a browser that keeps nothing: it holds for this page
  });
}

/**
 * Let all links to the explorer and to the lesson keep a network, with all that is set beside it.
 * @param {string} address
 */
export function keepExplorer(address) {
  keep(EXPLORER, address);
  leadTo(address);
}

/** The explorer's last address in this tab; empty if there is none. */
export function recallExplorer() {
  return recall(EXPLORER);
}

/**
 * @param {string} name
 * @param {string} value
 */
function keep(name, value) {
  try {
    sessionStorage.setItem(name, value);
  } catch {} // a browser that keeps nothing
}

/** @param {string} name */
function recall(name) {
  try {
    return sessionStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} address */
function leadTo(address) {
  for (const link of findAll(document, "a[data-nav]")) {
    const path = link.dataset.nav === "learn" ? "/learn" : "/";
    link.href = `${path}?${address}${link.hash}`;
  }
}

const last = recallExplorer();
if (last) leadTo(last);

// The chain-rule page's address holds its whole state: what was built there is found again. An
// expression has a place of its own, so the menu leads to the network that was there before.
if (location.pathname === CHAIN) addEventListener("pagehide", () => keepChain(location.search));

/**
 * Keep an address of the chain-rule page: of its network, or of its expression.
 * @param {string} search
 */
export function keepChain(search) {
  keep(new URLSearchParams(search).has("expr") ? EXPRESSION : CHAIN, search);
}

/**
 * The last address of one part of the chain-rule page in this tab; empty if there is none.
 * @param {string} tab
 */
export function recallChain(tab) {
  return recall(tab === "expr" ? EXPRESSION : CHAIN);
}

for (const link of findAll(document, `nav.pages a[href="${CHAIN}"]`)) {
  link.href = CHAIN + recall(CHAIN);
  link.addEventListener("click", () => {
    if (location.pathname === CHAIN) keepChain(location.search);
    link.href = CHAIN + recall(CHAIN);
  });
}

// Words are explained where a page has a glossary; nothing on screen waits for that.
if (find(document, "[data-terms]") && find(document, "dt[data-words]")) {
  addEventListener("load", () => whenIdle(async () => (await import("./terms.js")).mountTerms()));
}
