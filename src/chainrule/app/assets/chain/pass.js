/* The backward pass in the graph: what it has reached, its arrows, and the number that travels. */
import { find, findAll, svg as make } from "../shared/dom.js";

const TRAVEL = 480; // milliseconds for a factor

/** The node at which an edge starts; a fold stands for its last layer. */
const startOf = (/** @type {string} */ node) =>
  node.startsWith("fold") ? `h${node.split("-")[1]}` : node;

/**
 * Show how far the backward pass has come: gradients appear as they are reached.
 * @param {SVGSVGElement | null} graph
 * @param {any} answer
 * @param {number | null} step how many factors are done; `null` shows all of it
 */
export function showPass(graph, answer, step) {
  if (!graph || (step === null && !graph.classList.contains("stepping"))) return;
  graph.classList.toggle("stepping", step !== null);
  const own = new Set(answer.factors.map((/** @type {any} */ f) => f.id));
  const done = new Set(
    answer.factors.slice(0, step ?? answer.factors.length).map((/** @type {any} */ f) => f.id),
  );
  const edges = findAll(graph, ".edge[data-edge]");
  const nodes = findAll(graph, ".node[data-node]");
  const onWay = (/** @type {any} */ edge) =>
    edge.dataset.factor.split(" ").some((/** @type {string} */ id) => own.has(id));
  const passed = new Set(
    edges.filter(
      (edge) =>
        onWay(edge) &&
        edge.dataset.factor
          .split(" ")
          .every((/** @type {string} */ id) => done.has(id) || !own.has(id)),
    ),
  );
  const starts = (/** @type {Set<any>} */ some) =>
    new Set([...some].map((edge) => edge.dataset.edge.split("-")[0]));
  let reached = starts(passed);
  const isReached = (/** @type {any} */ node) =>
    node.dataset.node === "p" || reached.has(startOf(node.dataset.node));
  const names = new Set(nodes.filter(isReached).map((node) => node.dataset.node));
  for (const edge of edges) {
    // A weight beside the way has its gradient as soon as what it is multiplied into has.
    if (!onWay(edge) && names.has(edge.dataset.edge.split("-")[1])) passed.add(edge);
  }
  reached = starts(passed);
  for (const edge of edges) {
    edge.classList.toggle("ahead", step !== null && !passed.has(edge));
    turnArrow(graph, edge, step !== null && passed.has(edge));
  }
  for (const node of nodes) node.classList.toggle("ahead", step !== null && !isReached(node));
}

/**
 * Let an edge point back, for the gradient, or forward, for the values.
 * @param {SVGSVGElement} graph
 * @param {any} edge
 * @param {boolean} back
 */
function turnArrow(graph, edge, back) {
  const line = find(edge, ".line");
  const forward = line.dataset.forward ?? line.getAttribute("marker-end");
  if (!forward) return;
  line.dataset.forward = forward;
  if (!back) {
    line.setAttribute("marker-end", forward);
    line.removeAttribute("marker-start");
    return;
  }
  const name = forward.slice(5, -1);
  if (!find(graph, `#${name}-back`)) {
    const turned = find(graph, `#${name}`).cloneNode(true);
    turned.id = `${name}-back`;
    turned.setAttribute("orient", "auto-start-reverse");
    turned.setAttribute("refX", "4");
    find(graph, "defs").append(turned);
  }
  line.removeAttribute("marker-end");
  line.setAttribute("marker-start", `url(#${name}-back)`);
}

/**
 * Send the number that has come so far along a factor's edges, from the output to the input.
 * @param {SVGSVGElement | null} graph
 * @param {string[]} edges ids of the factor's edges, input to output
 * @param {string} text the number
 */
export function sendPulse(graph, edges, text) {
  if (!graph || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const lines = [...edges]
    .reverse()
    .map((id) => find(graph, `.edge[data-edge="${CSS.escape(id)}"] .line`))
    .filter(Boolean);
  for (const old of findAll(graph, ".pulse")) old.remove();
  if (!lines.length) return; // folded
  const label = make("text", { y: -12, "text-anchor": "middle" }, text);
  const pulse = make(
    "g",
    { class: "pulse", "aria-hidden": "true" },
    make("circle", { r: 6 }),
    label,
  );
  lines[0].closest("g.edge").parentNode.append(pulse);
  const sizes = lines.map((line) => line.getTotalLength());
  const whole = sizes.reduce((sum, size) => sum + size, 0);
  const began = performance.now();
  const move = (/** @type {number} */ now) => {
    if (!pulse.isConnected) return;
    const share = Math.max(0, Math.min(1, (now - began) / TRAVEL));
    let left = share * whole;
    let at = 0;
    while (at < lines.length - 1 && left > sizes[at]) left -= sizes[at++];
    const point = lines[at].getPointAtLength(sizes[at] - Math.min(left, sizes[at]));
    pulse.setAttribute("transform", `translate(${point.x} ${point.y})`);
    if (share < 1) requestAnimationFrame(move);
    else pulse.remove();
  };
  move(began);
}
