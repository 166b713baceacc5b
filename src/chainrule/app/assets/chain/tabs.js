/* The page's two parts: a network with one path, and any expression (`?expr=`). */
import { find, findAll } from "../shared/dom.js";
import { keepChain, recallChain } from "../shared/frame.js";

const WORDS = {
  expr: {
    title: "The chain rule: a gradient is a sum of products",
    lead: "Where a variable acts in several ways, the chain rule multiplies along each path and adds the paths. Type any expression.",
  },
};

/**
 * Show the part that the address asks for, and keep the other's address.
 * @param {import("./chain.js").Page} page
 * @param {import("./expression.js").Expression} expression
 */
export function startTabs(page, expression) {
  const started = { chain: false, expr: false };
  const [title, lead] = ["title", "lead"].map((name) => find(document, `[data-part="${name}"]`));
  const own = { title: title.textContent, lead: lead.textContent };
  const read = () => (new URLSearchParams(location.search).has("expr") ? "expr" : "chain");

  const show = () => {
    const now = read();
    page.root.hidden = now !== "chain";
    expression.root.hidden = now !== "expr";
    const words = now === "expr" ? WORDS.expr : own;
    title.textContent = words.title;
    lead.textContent = words.lead;
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
