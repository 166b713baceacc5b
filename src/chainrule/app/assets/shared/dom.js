/* Small helpers that the pages' scripts share. They are loaded before all others. */
window.chainrule = window.chainrule || {};
window.chainrule.dom = {
  /** Make an element: attributes, then children (nodes or text). */
  el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  },
  text(node, value) {
    if (node.textContent !== value) node.textContent = value;
  },
  /** A number as people write it: digits, and a raised power of ten. */
  numberNodes({ digits, exponent }) {
    if (exponent === null) return [digits];
    const sup = document.createElement("sup");
    sup.textContent = String(exponent).replace("-", "−");
    return [`${digits}·10`, sup];
  },
  whenIdle(work) {
    if (!window.requestIdleCallback) return setTimeout(work, 30);
    return requestIdleCallback(work, { timeout: 150 });
  },
  dropIdle(ticket) {
    (window.cancelIdleCallback || clearTimeout)(ticket);
  },
};
