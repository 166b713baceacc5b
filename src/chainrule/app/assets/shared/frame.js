/* What surrounds every page: the switch between light and dark, and links that keep the network. */

import { findAll } from "./dom.js";

const THEME = "theme";
const EXPLORER = "explorer"; // the explorer's last address in this tab
const CHAIN = "/chain-rule";

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

// The chain-rule page's address holds its whole state: what was built there is found again.
if (location.pathname === CHAIN) addEventListener("pagehide", () => keep(CHAIN, location.search));
for (const link of findAll(document, `nav.pages a[href="${CHAIN}"]`)) link.href += recall(CHAIN);
