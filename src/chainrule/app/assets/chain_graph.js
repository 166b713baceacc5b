/* The chain-rule page's graph as the server drew it, made reachable; and what is told in tables. */
(() => {
  "use strict";

  const C = ((window.chainrule ||= {}).chain ||= {});
  const LOW = 400; // pixels: a graph that is not higher stays in sight
  const SHOWN_LAYERS = 12;

  /** Place the graph; its variables can be edited, its fold opened, its edges focused. */
  C.drawGraph = (root, answer, whole) => {
    const box = root.querySelector('[data-part="graph"]');
    box.innerHTML = answer.svg;
    root.querySelector(".cr-graph").classList.toggle("cr-low", box.querySelector("svg").viewBox.baseVal.height <= LOW);
    const folded = box.querySelector(".node.fold");
    const button = root.querySelector('[data-do="graph"]');
    button.hidden = !folded && !(whole && answer.chain.depth > SHOWN_LAYERS);
    button.setAttribute("aria-pressed", String(whole));
    button.textContent = whole ? "Fold the graph" : "Show all layers";
    for (const node of box.querySelectorAll(".node.weight, .node.bias, .node.input, .node.fold")) {
      node.setAttribute("tabindex", "0");
      node.setAttribute("role", "button");
      const name = node.querySelector("title")?.textContent || node.dataset.node;
      node.setAttribute("aria-label", `${node.matches(".fold") ? "show the folded layers;" : "change"} ${name}`);
    }
    box.querySelectorAll(".edge[data-factor]").forEach((edge) => edge.setAttribute("tabindex", "0"));
  };

  C.saveGraph = (svg) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
    link.download = "chain.svg";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  C.describeErratum = (erratum) =>
    `<p>${C.esc(erratum.sentence)}</p>` +
    `<table><thead><tr><th scope="col">layer</th><th scope="col">h(1 − h)</th><th scope="col">z(1 − z)</th></tr></thead><tbody>` +
    erratum.layers.slice(0, SHOWN_LAYERS).map((l) => `<tr><td>${l.layer}</td><td>${C.esc(l.right.text)}</td><td>${C.esc(l.wrong.text)}</td></tr>`).join("") +
    `</tbody></table>`;

  C.factorTable = (factors) =>
    `<thead><tr><th scope="col">factor</th><th scope="col">formula</th><th scope="col">value</th><th scope="col">product so far</th></tr></thead><tbody>` +
    factors.map((f) => `<tr><td>${C.esc(f.short)}</td><td>${C.esc(f.substituted)}</td><td>${C.esc(f.value.text)}</td><td>${C.esc(f.running_product.text)}</td></tr>`).join("") +
    `</tbody>`;
})();
