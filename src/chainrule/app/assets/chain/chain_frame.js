/* The chain-rule page's frame: its cards and controls, before any answer has come. */
(() => {
  "use strict";

  const C = ((window.chainrule ||= {}).chain ||= {});

  C.valueField = (name) => {
    const label = C.letter(name);
    return `<div class="cr-value"><var>${label}</var><input type="range" min="-6" max="6" step="0.05" data-name="${name}" aria-label="${label}, slider"><input type="number" step="any" data-name="${name}" aria-label="${label}"></div>`;
  };

  /** One box for all layers at once, where they differ. */
  C.sharedField = (name) =>
    `<div class="cr-value cr-all"><span>set every ${name}</span><input type="number" step="any" data-name="${name}" placeholder="they differ" aria-label="set every ${name}"></div>`;

  /** Set a control unless it is being typed in or already says so. */
  C.setValue = (control, value) => {
    if (control === document.activeElement && control.type === "number") return;
    if (control.value !== String(value)) control.value = value;
  };

  C.listOptions = (activations) => activations.map(([name, label]) => `<option value="${C.esc(name)}">${C.esc(label)}</option>`).join("");

  /** Show one activation for all layers, or a box for each. */
  C.showActivations = (root, names, layers, activations) => {
    const mixed = names.length > 1;
    const [select, box] = [root.querySelector('[data-part="activation"]'), root.querySelector('[data-part="phis"]')];
    C.setValue(select, mixed ? "mixed" : names[0]);
    select.querySelector('[value="mixed"]').disabled = layers < 2;
    box.hidden = !mixed;
    if (!mixed) return;
    if (box.children.length !== names.length) {
      box.innerHTML = names.map((_, i) => `<label>φ${C.sub(i + 1)} <select data-phi="${i}" aria-label="activation of layer ${i + 1}">${C.listOptions(activations)}</select></label>`).join("");
    }
    box.querySelectorAll("select").forEach((each, i) => C.setValue(each, names[i]));
  };

  const steps = (prefix, title) => `
  <div class="cr-head"><h2 id="${prefix}steps-head">${title}</h2>
    <div class="cr-tools"><button data-do="${prefix}back">Back</button><button data-do="${prefix}play" aria-pressed="false">Play</button><button class="cr-primary" data-do="${prefix}next">Next</button><button data-do="${prefix}reset">Whole</button></div></div>
  <p><span class="cr-big" data-part="${prefix}step-product"></span> <span class="cr-dim" data-part="${prefix}step-count"></span></p>
  <p aria-live="polite" data-part="${prefix}step-sentence"></p>`;

  const weight = (part, low, high) =>
    `<label>w<input type="number" step="any" data-part="${part}" data-box="w"></label><label style="flex:1"><span aria-hidden="true">&nbsp;</span><input type="range" aria-label="w, slider" min="${low}" max="${high}" step="0.05" data-part="${part}-range"></label>`;

  C.frame = (activations) => {
    const options = C.listOptions(activations);
    return `
<nav class="cr-ways" aria-label="ways from here"><a data-part="explorer-link" href="/">← The explorer, with this network</a><a href="/#lesson">The lesson</a><button class="cr-jump" data-do="to-real">↓ The same in a real, wide network</button></nav>
<p class="cr-card cr-notice" role="alert" data-part="notice"></p>
<section class="cr-card cr-walk" aria-labelledby="walk-head" data-part="walk-card">
  <div class="cr-head"><h2 id="walk-head" data-part="walk-title"></h2>
    <div class="cr-tools"><button data-do="walk-back">Back</button><button class="cr-primary" data-do="walk-next">Start</button></div></div>
  <p data-part="walk-text"></p>
  <div class="cr-tools" data-part="walk-live" hidden><button data-do="walk-step-back" hidden>One factor back</button><button data-do="walk-step" hidden>One factor on</button><button data-do="to-graph">To the graph</button><button data-do="to-equation">To the equation</button><span class="cr-live" data-part="walk-sentence"></span></div>
  <div class="cr-tools"><button data-do="reveal" hidden>Show the answer</button></div><p data-part="reveal" hidden></p>
</section>
<section class="cr-card" aria-labelledby="network-head">
  <h2 id="network-head">The network</h2>
  <div class="cr-fields">
    <label>layers<input type="number" min="1" max="${C.MAX_LAYERS}" step="1" data-part="layers"></label>
    <label style="flex:1;max-width:220px"><span aria-hidden="true">&nbsp;</span><input type="range" aria-label="layers, slider" min="1" max="12" step="1" data-part="layers-range"></label>
    <label>activation<select data-part="activation">${options}<option value="mixed">one per layer</option></select></label>
    <label>gradient of p with respect to<select data-part="wrt"></select></label>
    <label class="cr-check"><input type="checkbox" data-part="equal">same w everywhere</label>
    <label class="cr-check"><input type="checkbox" data-part="biased">biases</label>
  </div>
  <div class="cr-phis" data-part="phis" hidden></div>
  <div class="cr-values" data-part="values"></div>
</section>
<p class="cr-card cr-error" role="alert" data-part="error"></p>
<div class="cr-linked" data-view="chain">
<section class="cr-card cr-graph" aria-labelledby="graph-head" data-part="graph-card">
  <div class="cr-head"><h2 id="graph-head">The graph: every local step</h2><p class="cr-headline" data-part="headline"></p><div class="cr-tools"><span class="cr-dim">Click x or a weight to change it.</span><button data-do="graph" aria-pressed="false" hidden>Show all layers</button><button data-do="svg">Download SVG</button></div></div>
  <div class="cr-scroll cr-wide" data-part="graph"></div>
</section>
<div class="cr-strip" data-part="strip"></div>
<section class="cr-card" aria-labelledby="steps-head" data-part="steps">${steps("", "The backward pass, step by step")}<p class="cr-dim" data-part="range"></p></section>
<div class="cr-two">
  <section class="cr-card" aria-labelledby="equation-head" data-part="equation-card">
    <div class="cr-head"><h2 id="equation-head">The equation: one product</h2><div class="cr-tools"><button data-do="lines" hidden>Show all lines</button><button data-do="fold" hidden>Show all factors</button><button data-do="copy">Copy LaTeX</button></div></div>
    <ol class="cr-lines" data-part="lines"></ol>
  </section>
  <section class="cr-card cr-factors" aria-labelledby="factors-head">
    <h2 id="factors-head">The factors, on a log scale</h2>
    <div class="cr-tall" data-part="factors"></div>
    <details><summary>The numbers as a table</summary><div class="cr-scroll" tabindex="0" aria-label="table of factors" role="region"><table data-part="factor-table"></table></div></details>
  </section>
</div>
</div>
<section class="cr-card" aria-labelledby="erratum-head" data-part="erratum-card">
  <h2 id="erratum-head">h(1 − h), not z(1 − z)</h2><div data-part="erratum"></div>
</section>
<div class="cr-two">
  <section class="cr-card" aria-labelledby="depth-head" data-part="depth-card">
    <h2 id="depth-head">Why it vanishes</h2>
    <p data-part="depth-task" class="cr-task" hidden></p>
    <div class="cr-fields">${weight("depth-w", -8, 8)}<label>activation<select data-part="depth-activation">${options}</select></label></div>
    <p class="cr-note" role="status" data-part="depth-note"></p>
    <div data-part="depth-chart"></div><p data-part="depth-end"></p>
    <div data-part="region"><h3>Which |w| keep it within 10× of 1</h3><div data-part="region-chart"></div></div>
    <p class="cr-dim" data-part="depth-sentence"></p>
  </section>
  <section class="cr-card" aria-labelledby="rnn-head">
    <h2 id="rnn-head">Through time: the same w again and again</h2>
    <div class="cr-fields">${weight("rnn-w", -3, 3)}<label>steps<input type="number" min="1" max="${C.MAX_STEPS}" step="1" data-part="rnn-steps" data-box="steps"></label>
      <label>activation<select data-part="rnn-activation">${options}</select></label>
      <label>clip at<input type="number" min="0" step="any" placeholder="never" data-part="rnn-clip"></label></div>
    <p class="cr-note" role="status" data-part="rnn-note"></p>
    <div class="cr-scroll" tabindex="0" role="region" aria-label="the equation through time" data-part="rnn-equation"></div>
    <div data-part="rnn-chart"></div><p class="cr-dim" data-part="rnn-sentence"></p>
  </section>
</div>
<div class="cr-linked" data-view="real">
<section class="cr-card" aria-labelledby="real-head" data-part="real-card">
  <div class="cr-head"><h2 id="real-head">The same product in a real, wide network</h2><a data-part="real-link" href="/">Open it in the explorer</a></div>
  <p class="cr-dim" data-part="real-sentence"></p>
  <div class="cr-scroll cr-wide" data-part="real-layers"></div>
  <div class="cr-key" data-part="real-key"></div>
  <p data-part="real-extremes"></p><p class="cr-dim" data-part="real-check"></p>
</section>
<section class="cr-card" aria-labelledby="real-steps-head" data-part="real-steps">${steps("real-", "From the loss back, factor by factor")}</section>
<section class="cr-card" aria-labelledby="real-equation-head">
  <div class="cr-head"><h2 id="real-equation-head">Its equation: the gains telescope</h2><div class="cr-tools"><button data-do="real-fold" hidden>Show all factors</button><button data-do="real-copy">Copy LaTeX</button></div></div>
  <ol class="cr-lines" data-part="real-lines"></ol>
  <details><summary>The numbers as a table</summary><div class="cr-scroll" tabindex="0" aria-label="table of measured factors" role="region"><table data-part="real-table"></table></div></details>
</section>
</div>`;
  };
})();
