/* Finding, making and changing elements. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Any element that a page's own template holds: which kind it is, the template says.
 * @typedef {any} Found
 */

/** @typedef {Node | string | null | undefined} Child */

/**
 * Return the first element in `root` that fits a selector.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {Found}
 */
export function find(root, selector) {
  return root.querySelector(selector);
}

/**
 * Return all elements in `root` that fit a selector.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {Found[]}
 */
export function findAll(root, selector) {
  return [...root.querySelectorAll(selector)];
}

/**
 * Return the element of a page's template that has a name.
 * @param {ParentNode} root
 * @param {string} name
 * @returns {Found}
 */
export function part(root, name) {
  return root.querySelector(`[data-part="${name}"]`);
}

/**
 * Return data that the server wrote into the page.
 * @param {ParentNode} root
 * @param {string} name
 * @returns {any}
 */
export function readData(root, name) {
  return JSON.parse(part(root, name).textContent);
}

/**
 * Make an element of HTML: attributes ("on…" is a listener), then children.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {Found}
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Make an element of SVG.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {Found}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @param {Element} node
 * @param {Record<string, any>} attributes
 * @param {(Child | Child[])[]} children
 */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

/** @type {WeakMap<Element, string[]>} */
const pieces = new WeakMap();

/**
 * Let an element of SVG hold pieces, each in a group of its own. Those that stay as they are are
 * left alone: to style and lay out everything anew takes most of a frame.
 * @param {Found} picture
 * @param {string[]} markup of each piece
 */
export function setPieces(picture, markup) {
  const before = pieces.get(picture) ?? [];
  for (const [i, text] of markup.entries()) {
    if (i >= picture.childElementCount) picture.append(svg("g"));
    if (text !== before[i]) picture.children[i].innerHTML = text;
  }
  while (picture.childElementCount > markup.length) picture.lastElementChild.remove();
  pieces.set(picture, markup);
}

/**
 * Set an element's text, unless it says so already.
 * @param {Found} node
 * @param {string} value
 */
export function setText(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/**
 * A number as people write it: digits, and a raised power of ten.
 * @param {{digits: string, exponent: number | null}} number
 * @returns {Child[]}
 */
export function numberNodes({ digits, exponent }) {
  if (exponent === null) return [digits];
  return [`${digits}·10`, el("sup", {}, String(exponent).replace("-", "−"))];
}

/**
 * Return a table.
 * @param {string[]} head
 * @param {string[][]} rows
 * @param {(row: string[]) => Record<string, any>} [describe] attributes of a row
 * @param {string} [first] class of each row's first cell
 * @returns {Found}
 */
export function makeTable(head, rows, describe = () => ({}), first = undefined) {
  const cells = (/** @type {string[]} */ row) =>
    row.map((cell, i) => (i ? el("td", {}, cell) : el("th", { scope: "row", class: first }, cell)));
  const titles = head.map((name) => el("th", { scope: "col" }, name));
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, titles)),
    el(
      "tbody",
      {},
      rows.map((row) => el("tr", describe(row), cells(row))),
    ),
  );
}

/** @type {Record<string, string>} */
const ESCAPED = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/**
 * Escape text for HTML that is written as a string.
 * @param {string | number} text
 */
export function escapeHtml(text) {
  return String(text).replace(/[&<>"']/g, (mark) => ESCAPED[mark]);
}

/**
 * Do something when the browser has time; return a ticket for `dropIdle`.
 * @param {() => void} work
 * @returns {number}
 */
export function whenIdle(work) {
  if (!("requestIdleCallback" in globalThis)) return Number(setTimeout(work, 30));
  return requestIdleCallback(work, { timeout: 150 });
}

/**
 * After all, do it not.
 * @param {number | undefined} ticket
 */
export function dropIdle(ticket) {
  if (ticket === undefined) return;
  if ("cancelIdleCallback" in globalThis) cancelIdleCallback(ticket);
  else clearTimeout(ticket);
}

/**
 * Do something when what was changed has been painted; soon, where nothing is painted at all.
 * @param {() => void} work
 */
export function afterPaint(work) {
  let done = false;
  const once = () => {
    if (done) return;
    done = true;
    work();
  };
  requestAnimationFrame(() => setTimeout(once));
  setTimeout(once, 200); // in a window that nobody sees
}

/**
 * Do something once an element is about to come into sight.
 * @param {Element} element
 * @param {() => void} work
 */
export function whenNear(element, work) {
  const watcher = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watcher.disconnect();
      work();
    },
    { rootMargin: "600px" },
  );
  watcher.observe(element);
}

/**
 * How to scroll: at once for whoever asked for less motion.
 * @returns {ScrollBehavior}
 */
export function scrolling() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
}

/**
 * Copy text; return whether there is a clipboard.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // without a secure connection there is none
  }
}

const NOTICES = 4; // so many are on screen at once

/**
 * Show notices, each on a line of its own; of many, all but the first ones are folded.
 * @param {any} box
 * @param {string[]} notices
 */
export function showNotices(box, notices) {
  const before = findAll(box, "p").map((line) => line.textContent);
  if (before.join("\n") === notices.join("\n")) return;
  const open = Boolean(find(box, "details")?.open); // an answer that comes later folds nothing
  const lines = notices.map((notice) => el("p", {}, notice));
  const folded = lines.splice(NOTICES);
  const more = el("details", { open }, el("summary", {}, `… and ${folded.length} more`), folded);
  box.replaceChildren(...lines, ...(folded.length ? [more] : []));
}
