/* What surrounds every page: the switch between light and dark, and links that keep the network. */

import { findAll } from "./dom.js";

const THEME = "theme";
const EXPLORER = "explorer"; // the explorer's last address in this tab

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
 * Let all links to the explorer lead back to a network, with all that is set beside it.
 * @param {string} address
 */
export function keepExplorer(address) {
  try {
    sessionStorage.setItem(EXPLORER, address);
  } catch {}
  leadTo(address);
}

/** @param {string} address */
function leadTo(address) {
  for (const link of findAll(document, "a[data-nav]")) {
    link.href = `/?${address}${link.dataset.nav === "learn" ? "#lesson" : ""}`;
  }
}

try {
  const last = sessionStorage.getItem(EXPLORER);
  if (last) leadTo(last);
} catch {}
