/* Showing new text in elements that stay: only what differs from before is written.
 *
 * A number that changes is then one text for the browser to lay out and to paint, and the keyboard
 * stays where it was. What has another shape is written anew.
 */

/** Classes that scripts add to what was written; they stay. */
const OWN = ["lit", "ahead", "later"];
/** The same in formulas, whose factors are coloured by what they do. */
const OWN_IN_FORMULAS = [...OWN, "shrinks", "keeps", "grows", "blocks"];

/**
 * Make an element like another one, and return what now stands in its place.
 * @param {Element} old
 * @param {Element} fresh
 * @param {readonly string[]} [own] classes that stay whatever the other one has
 * @returns {Element}
 */
export function patch(old, fresh, own = OWN) {
  if (old.nodeName !== fresh.nodeName || old.childNodes.length !== fresh.childNodes.length) {
    old.replaceWith(fresh);
    return fresh;
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "class") patchClasses(old, value, own);
    else if (name === "marker-end") patchArrow(old, value);
    else if (name !== "tabindex" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const pairs = [...old.childNodes].map(
    (child, i) => /** @type {[Node, Node]} */ ([child, fresh.childNodes[i]]),
  );
  for (const [child, other] of pairs) {
    if (child instanceof Element && other instanceof Element) patch(child, other, own);
    else if (child.nodeType !== other.nodeType) old.replaceChild(other, child);
    else if (child.nodeValue !== other.nodeValue) child.nodeValue = other.nodeValue;
  }
  return old;
}

/**
 * @param {Element} old
 * @param {string} value
 * @param {readonly string[]} own
 */
function patchClasses(old, value, own) {
  const kept = own.filter((name) => old.classList.contains(name));
  const classes = [...new Set([...value.split(" "), ...kept])].join(" ");
  if (old.getAttribute("class") !== classes) old.setAttribute("class", classes);
}

/**
 * An arrow that the backward pass has turned (pass.js) keeps its own end in mind.
 * @param {Element} old
 * @param {string} value
 */
function patchArrow(old, value) {
  const turned = /** @type {SVGElement} */ (old).dataset;
  if ((turned.forward ?? old.getAttribute("marker-end")) === value) return;
  delete turned.forward;
  old.removeAttribute("marker-start");
  old.setAttribute("marker-end", value);
}

/** @type {WeakMap<Element, string[]>} what was written last */
const WRITTEN = new WeakMap();

/**
 * Write a list, entry by entry: entries that say the same stay untouched.
 * @param {Element} box
 * @param {string[]} entries each an element as HTML
 * @returns {Element[]} the elements that were written
 */
export function writeEntries(box, entries) {
  const before = WRITTEN.get(box);
  WRITTEN.set(box, entries);
  if (before?.length !== entries.length || box.children.length !== entries.length) {
    box.innerHTML = entries.join("");
    return [...box.children];
  }
  const numbers = entries.map((_, i) => i).filter((i) => entries[i] !== before[i]);
  const fresh = parse(numbers.map((i) => entries[i]).join(""));
  const olds = numbers.map((i) => box.children[i]);
  return olds.map((old, i) => patch(old, fresh[i], OWN_IN_FORMULAS));
}

/**
 * Write what stands in a box; where it is of the same shape, only what differs.
 * @param {Element} box
 * @param {string} html
 */
export function writeInside(box, html) {
  const before = WRITTEN.get(box);
  WRITTEN.set(box, [html]);
  if (before?.[0] === html) return;
  const fresh = before ? parse(html) : [];
  if (!fresh.length || fresh.length !== box.children.length) box.innerHTML = html;
  else for (const [i, old] of [...box.children].entries()) patch(old, fresh[i]);
}

/**
 * Show elements in place of those that a box has; where they are of the same shape, only what differs.
 * @param {Element} box
 * @param {Element[]} fresh
 */
export function showInside(box, fresh) {
  if (fresh.length !== box.children.length) box.replaceChildren(...fresh);
  else for (const [i, old] of [...box.children].entries()) patch(old, fresh[i]);
}

/**
 * @param {string} html
 * @returns {Element[]}
 */
function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return [...template.content.children];
}

/**
 * A drawing on the page.
 * @typedef {object} Drawing
 * @property {SVGSVGElement} svg
 * @property {boolean} anew whether all of it was written
 * @property {any[]} changed the nodes and edges that were written
 * @property {number} width in pixels
 * @property {number} height
 * @property {string[]} headline what the server wrote above the graph; the page says it elsewhere
 */

const NAMED = /^<g class="(?:edge|node) [^>]* id="([^"]+)"/;
const SIZED = /viewBox="0 0 (\d+) (\d+)"/;

/**
 * Show a drawing of the server, which has a line for each node and edge. Of one with the same nodes
 * and edges, only what differs is written.
 * @param {Element} box
 * @param {string} text
 * @returns {Drawing}
 */
export function writeDrawing(box, text) {
  const lines = text.split("\n");
  const before = WRITTEN.get(box);
  WRITTEN.set(box, lines);
  const names = lines.map(nameLine);
  const [width, height] = (SIZED.exec(lines[0]) ?? ["", "0", "0"]).slice(1).map(Number);
  const old = box.querySelector("svg");
  if (!old || before?.length !== lines.length || before.some((l, i) => nameLine(l) !== names[i])) {
    box.innerHTML = text;
    const svg = /** @type {SVGSVGElement} */ (box.querySelector("svg"));
    const changed = [...svg.querySelectorAll(".edge[id], .node[id]")];
    return { svg, anew: true, changed, width, height, headline: takeHeadline(svg) };
  }
  const numbers = lines.map((_, i) => i).filter((i) => names[i] && lines[i] !== before[i]);
  const news = [...parse(`<svg>${numbers.map((i) => lines[i]).join("")}</svg>`)[0].children];
  const changed = numbers.map((at, i) =>
    patch(/** @type {Element} */ (old.getElementById(names[at])), news[i]),
  );
  const [frame] = parse(lines.filter((_, i) => !names[i]).join("\n"));
  const headline = takeHeadline(frame);
  patchFrame(old, frame);
  return { svg: old, anew: false, changed, width, height, headline };
}

/** @param {string} line */
const nameLine = (line) => NAMED.exec(line)?.[1] ?? "";

/**
 * Take the first line out of a drawing.
 * @param {Element} svg
 */
const takeHeadline = (svg) => {
  const texts = [...svg.querySelectorAll(":scope > text")];
  for (const text of texts) text.remove();
  return texts.map((text) => text.textContent);
};

/**
 * Write what stands around nodes and edges: what is said of the graph, and the legend.
 * @param {SVGSVGElement} svg
 * @param {Element} frame the same drawing without nodes and edges
 */
function patchFrame(svg, frame) {
  const [own, other] = [svg, frame].map((each) => {
    const groups = [...each.querySelectorAll(":scope > g")];
    const around = [...each.querySelectorAll(":scope > :is(title, desc, .paper)")];
    // Edges that no gradient passes have no names, but keep their order.
    return {
      group: groups[0],
      rest: [...around, groups[1], ...groups[0].querySelectorAll(":scope > .operand")],
    };
  });
  for (const [i, each] of own.rest.entries()) patch(each, other.rest[i], []);
  const place = other.group.getAttribute("transform") ?? "";
  if (own.group.getAttribute("transform") !== place) own.group.setAttribute("transform", place);
}
