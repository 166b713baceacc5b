/* The chart library: loaded beside everything else, so that nothing but the charts waits for it. */

import { find } from "./dom.js";
import { paintHeatMap } from "./heat_map.js";

const CONFIG = { displayModeBar: false, responsive: true, displaylogo: false };

/** @type {Promise<any>} */
const loaded = new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = find(document, "#plotly-script").href;
  script.addEventListener("load", () => resolve(/** @type {any} */ (globalThis).Plotly));
  script.addEventListener("error", () => reject(new Error("The charts could not be loaded.")));
  document.head.append(script);
});

/** @type {any} */
let library = null;
loaded.then(
  (plotly) => {
    library = plotly;
  },
  () => {},
);

/** @typedef {{data: any[], layout: any}} Figure */

/**
 * Draw a figure, at once where the library is there; later questions overtake earlier ones.
 * @param {any} plot where
 * @param {Figure} figure
 * @param {() => void} [after] called once it is drawn
 */
export function draw(plot, figure, after = () => {}) {
  plot.wanted = figure;
  const work = () => {
    if (plot.wanted !== figure) return;
    const { data, layout } = paintHeatMap(figure);
    library.react(plot, data, layout, CONFIG);
    after();
  };
  if (library) work();
  else
    loaded.then(work, () =>
      plot.replaceChildren("The charts could not be loaded. Load the page again."),
    );
}

/**
 * Return a figure as a picture: the address of its data.
 * @param {Figure} figure
 * @param {{format: string, width: number, height: number, scale: number}} options
 * @returns {Promise<string>}
 */
export async function toImage(figure, options) {
  return (await loaded).toImage(paintHeatMap(figure), options);
}
