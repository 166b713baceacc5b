/* The page's two parts: a network with one path, and any expression (`?expr=`). */
import { find, findAll, setText } from "../shared/dom.js";
import { keepChain, recallChain } from "../shared/frame.js";

/**
 * Show the part that the address asks for, and keep the other's address.
 * @param {import("./chain.js").Page} page
 * @param {import("./expression.js").Expression} expression
 */
export function startTabs(page, expression) {
  const started = { chain: false, expr: false };
  const words = ["title", "lead"].map((name) => {
    const box = find(document, `[data-part="${name}"]`);
    return { box, chain: box.textContent, expr: box.dataset.expr };
  });
  const read = () => (new URLSearchParams(location.search).has("expr") ? "expr" : "chain");

  const show = () => {
    const now = read();
    page.root.hidden = now !== "chain";
    expression.root.hidden = now !== "expr";
    for (const each of words) setText(each.box, each[now]);
    for (const link of findAll(document, ".cr-tabs [data-tab]")) {
      if (link.dataset.tab === now) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const first = !started[now];
    started[now] = true;
    if (first) (now === "expr" ? expression : page).start();
    return first;
  };

  document.addEventListener("click", (/** @type {any} */ event) => {
    const link = event.target.closest("a[data-tab]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const { tab } = link.dataset;
    if (tab === read()) return;
    keepChain(location.search);
    const { search } = new URL(link.href);
    const named = new URLSearchParams(search).get("expr"); // this expression, not the last one
    history.pushState(
      null,
      "",
      `${location.pathname}${named ? search : recallChain(tab) || search}`,
    );
    if (!show() && named) expression.apply();
    scrollTo({ top: 0, behavior: "instant" });
  });
  addEventListener("popstate", () => {
    if (!show() && read() === "expr") expression.apply();
  });
  show();
}
