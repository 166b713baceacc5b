/* The chain-rule page's graph as the server drew it, made reachable; and what is told in tables. */
import { escapeHtml, find, findAll } from "../shared/dom.js";
import { writeDrawing, writeInside } from "./patch.js";

const BESIDE = { width: 980, height: 400 }; // pixels: a graph that is not larger stands beside the equation
const SHOWN_LAYERS = 12;
const CROPPED = 60; // pixels at the graph's top, where its headline stands
const BELOW = 8; // and at its lower edge, below the legend
const ROW = 288; // from one row of the graph to the next

/**
 * Place the graph; its variables can be edited, its fold opened, its edges focused.
 * @param {HTMLElement} root
 * @param {any} answer
 * @param {boolean} whole whether nothing is folded
 * @returns {boolean} whether it now stands elsewhere on the page, beside or above the equation
 */
export const drawGraph = (root, answer, whole) => {
  const box = find(root, '[data-part="graph"]');
  const drawing = writeDrawing(box, answer.svg);
  const { svg, anew, width, height, headline } = drawing;
  sayHeadline(find(root, '[data-part="headline"]'), answer.subject.text, headline);
  for (const node of drawing.changed) if (node.matches(CHANGEABLE)) nameNode(node);
  cropGraph(drawing, CROPPED, CROPPED + BELOW);
  if (!anew) return false;
  const beside = width <= BESIDE.width && height <= BESIDE.height;
  const bench = find(root, ".cr-bench").classList;
  const moved = bench.contains("cr-beside") !== beside;
  bench.toggle("cr-beside", beside);
  const folded = find(box, ".node.fold");
  const button = find(root, '[data-do="graph"]');
  button.hidden = !folded && !(whole && answer.chain.depth > SHOWN_LAYERS);
  button.setAttribute("aria-pressed", String(whole));
  button.textContent = whole ? "Fold the graph" : "Show all layers";
  setOrder(svg);
  return moved;
};

const CHANGEABLE = ".node.weight, .node.bias, .node.input, .node.fold";

/**
 * Say what pressing a node does.
 * @param {any} node
 */
const nameNode = (node) => {
  node.setAttribute("role", "button");
  const name = find(node, "title")?.textContent || node.dataset.node;
  node.setAttribute(
    "aria-label",
    `${node.matches(".fold") ? "show the folded layers;" : "change"} ${name}`,
  );
};

/**
 * Say the result beside the card's title: what stays in sight is to be low.
 * @param {HTMLElement} headline
 * @param {string} subject
 * @param {string[]} texts what the server wrote: the derivative, its value, and words
 */
const sayHeadline = (headline, subject, [, value, words]) => {
  writeInside(
    headline,
    `<span>${escapeHtml(subject)}</span> <strong>${escapeHtml(value)}</strong> <span class="dim">${escapeHtml(words)}</span>`,
  );
};

/**
 * Show a drawing without the lines above the graph, and fit it into its card.
 * @param {import("./patch.js").Drawing} drawing
 * @param {number} above pixels that are left out there
 * @param {number} less pixels that are left out in all
 */
export const cropGraph = ({ svg, anew, width, height }, above, less) => {
  const seen = `0 ${above} ${width} ${height - less}`;
  if (!anew && svg.getAttribute("viewBox") === seen) return;
  svg.setAttribute("viewBox", seen);
  fitGraph(svg);
};

/**
 * Let a graph fill its card, as far as its text stays readable.
 * @param {SVGSVGElement} svg
 */
export const fitGraph = (svg) => {
  const { width, height } = svg.viewBox.baseVal;
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  svg.style.setProperty("--natural", `${width}px`);
  svg.style.setProperty("--ratio", String(width / height));
  svg.style.aspectRatio = `${width} / ${height}`;
};

/**
 * Let Tab reach the graph once and the arrow keys walk it: row by row, input to output.
 * @param {SVGSVGElement} svg
 */
const setOrder = (svg) => {
  const describe = (/** @type {any} */ entry) => {
    const line = find(entry, "path.line");
    const shape = find(entry, ".shape");
    const size = (/** @type {string} */ name) => Number(shape.getAttribute(name) || 0);
    const [x, y] = line
      ? line
          .getAttribute("d")
          .match(/M([\d.]+) ([\d.]+)/)
          .slice(1)
          .map(Number)
      : [size("cx") || size("x") + size("width") / 2, size("cy") || size("y") + size("height") / 2];
    return { entry, x, row: Math.floor(y / ROW), edge: Number(Boolean(line)) };
  };
  const all = [
    ...findAll(svg, ".edge[data-factor]:not([data-factor='']), .node[role='button']"),
  ].map(describe);
  all.sort((a, b) => a.row - b.row || a.x - b.x || a.edge - b.edge);
  all.forEach(({ entry }, index) => {
    entry.setAttribute("tabindex", index ? "-1" : "0");
    entry.dataset.order = index;
  });
  svg.dataset.row = "";
};

/**
 * Save a drawing as a file.
 * @param {string} svg
 * @param {string} [name]
 */
export const saveGraph = (svg, name = "chain.svg") => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

/** @typedef {import("./answers.js").Erratum} Erratum */

/**
 * Where the two forms differ is what there is to see; where z and h are equal, they agree.
 * @param {Erratum} erratum
 */
export const describeErratum = (erratum) => {
  const differ = erratum.layers.filter((l) => l.right.text !== l.wrong.text);
  const same = erratum.layers.length - differ.length;
  const note = same
    ? `<p class="dim">In ${same} more layer${same > 1 ? "s" : ""} z and h are nearly equal, so both forms give the same digits there. That is chance, not a rule.</p>`
    : "";
  return `<p>${escapeHtml(erratum.sentence)}</p>${differ.length ? tabulateErratum(differ) : ""}${note}`;
};

/** @param {Erratum["layers"]} layers */
const tabulateErratum = (layers) =>
  `<table><thead><tr><th scope="col">layer</th><th scope="col">h(1 − h)</th><th scope="col">z(1 − z)</th></tr></thead><tbody>` +
  layers
    .slice(0, SHOWN_LAYERS)
    .map(
      (l) =>
        `<tr><td>${l.layer}</td><td>${escapeHtml(l.right.text)}</td><td>${escapeHtml(l.wrong.text)}</td></tr>`,
    )
    .join("") +
  `</tbody></table>`;

/**
 * The factors as rows of a table.
 * @param {import("./answers.js").Factor[]} factors
 */
export const factorTable = (factors) =>
  `<thead><tr><th scope="col">factor</th><th scope="col">formula</th><th scope="col">value</th><th scope="col">product so far</th></tr></thead><tbody>` +
  factors
    .map(
      (f) =>
        `<tr><td>${escapeHtml(f.short)}</td><td>${escapeHtml(f.substituted)}</td><td>${escapeHtml(f.value.text)}</td><td>${escapeHtml(f.running_product.text)}</td></tr>`,
    )
    .join("") +
  `</tbody>`;
