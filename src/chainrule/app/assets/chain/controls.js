/* The chain-rule page's controls: the boxes that come and go with the layers. */
import { escapeHtml, find, findAll } from "../shared/dom.js";
import { subscript } from "../shared/numbers.js";
import { letter } from "./charts.js";

/**
 * A slider and a box for one value.
 * @param {string} name
 */
export const valueField = (name) => {
  const label = letter(name);
  return `<div class="cr-value"><var>${label}</var><input type="range" min="-6" max="6" step="0.05" data-name="${name}" aria-label="${label}, slider"><input type="number" step="any" data-name="${name}" aria-label="${label}"></div>`;
};

/**
 * One box for all layers at once, where they differ.
 * @param {string} name
 */
export const sharedField = (name) =>
  `<div class="cr-value cr-all"><span>set every ${name}</span><input type="number" step="any" data-name="${name}" placeholder="they differ" aria-label="set every ${name}"></div>`;

/**
 * Set a control unless it is being typed in or already says so.
 * @param {any} control
 * @param {string | number} value
 */
export const setValue = (control, value) => {
  if (control === document.activeElement && control.type === "number") return;
  if (control.value !== String(value)) control.value = value;
};

/** @param {[string, string][]} activations name and label of each */
export const listOptions = (activations) =>
  activations
    .map(([name, label]) => `<option value="${escapeHtml(name)}">${escapeHtml(label)}</option>`)
    .join("");

/**
 * Show one activation for all layers, or a box for each.
 * @param {HTMLElement} root
 * @param {string[]} names those of the chain
 * @param {number} layers
 * @param {[string, string][]} activations all that there are
 */
export const showActivations = (root, names, layers, activations) => {
  const mixed = names.length > 1;
  const [select, box] = [find(root, '[data-part="activation"]'), find(root, '[data-part="phis"]')];
  setValue(select, mixed ? "mixed" : names[0]);
  find(select, '[value="mixed"]').disabled = layers < 2;
  box.hidden = !mixed;
  if (!mixed) return;
  if (box.children.length !== names.length) {
    box.innerHTML = names
      .map(
        (_, i) =>
          `<label>φ${subscript(i + 1)} <select data-phi="${i}" aria-label="activation of layer ${i + 1}">${listOptions(activations)}</select></label>`,
      )
      .join("");
  }
  for (const [i, each] of findAll(box, "select").entries()) setValue(each, names[i]);
};
