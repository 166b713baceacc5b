/* Editing a value of the chain where it stands, in the graph, the equation or the chart. */
import { find } from "../shared/dom.js";
import { isEditable, letter } from "./charts.js";

/**
 * Return the variable that a node of the graph, a factor or its bar stands for.
 * @param {any} target
 * @param {import("./answers.js").Factor[]} factors
 */
export const findEditable = (target, factors) => {
  const node = target.closest?.(".node.weight, .node.bias, .node.input");
  if (node) return node.dataset.node;
  const term = target.closest?.('[data-view="chain"] :is(math .factor, .bar, .link)[data-factor]');
  const factor = term && factors.find((f) => f.id === term.dataset.factor);
  if (!factor || !isEditable(factor)) return null;
  return factor.kind === "weight" ? `w${factor.layer}` : "x";
};

/**
 * Where the keyboard was: what to give it back to once everything is drawn anew.
 * @param {any} target
 * @returns {string | null} a selector
 */
export const describePlace = (target) => {
  const term = target.closest?.("[data-factor][tabindex], .node[data-node]");
  if (!term) return null;
  const kind = term.closest("li[data-kind]")?.dataset.kind;
  if (term.dataset.node) return `.node[data-node="${CSS.escape(term.dataset.node)}"]`;
  const own = `[data-factor="${CSS.escape(term.dataset.factor)}"][tabindex]`;
  if (kind) return `li[data-kind="${kind}"] ${own}`;
  return `${term.matches(".bar") ? ".bar" : term.matches(".link") ? ".link" : ".edge"}${own}`;
};

/**
 * Open a small form below a target, above it where there is no room.
 * @param {HTMLElement} root
 * @param {string} name of the value
 * @param {string | number} value
 * @param {Element} target
 * @param {{done: (value: number) => void, close: (refocus: boolean) => void}} then what to do with
 *     what is set, and once the form is gone
 */
export const openEditor = (root, name, value, target, { done, close: after }) => {
  find(root, ".cr-edit")?.remove();
  const form = document.createElement("form");
  form.className = "cr-edit";
  form.innerHTML = `<label>${letter(name)} <input type="number" step="any" required value="${value}" aria-label="new value of ${name}"></label><button class="primary">Set</button>`;
  const box = target.getBoundingClientRect();
  root.append(form);
  const around = (form.offsetParent || document.body).getBoundingClientRect();
  form.style.left = `${Math.max(8, Math.min(box.left, innerWidth - 260)) - around.left}px`;
  const { offsetHeight: height } = form;
  const below = box.bottom + 6;
  const top =
    below + height + 8 <= innerHeight ? below : Math.min(box.top - 6, innerHeight - 8) - height;
  form.style.top = `${Math.max(64, top) - around.top}px`;
  const input = find(form, "input");
  let open = true;
  const close = ({ refocus = true } = {}) => {
    if (!open) return; // removing the form takes the focus from it, which closes it again
    open = false;
    form.remove();
    after(refocus);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const typed = input.valueAsNumber;
    close();
    done(typed);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  form.addEventListener("focusout", (/** @type {any} */ event) => {
    if (!form.contains(event.relatedTarget)) close({ refocus: false });
  });
  input.focus({ preventScroll: true });
  input.select();
};
