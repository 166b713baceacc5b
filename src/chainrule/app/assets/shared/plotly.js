/* The chart library: nothing but the charts waits for it. */

import { find } from "./dom.js";
import { paintHeatMap } from "./heat_map.js";

const CONFIG = { displayModeBar: false, responsive: true, displaylogo: false };

/** @type {Promise<any> | null} */
let loading = null;
/** @type {any} */
let library = null;

/**
 * Load the library, when the first chart is about to be drawn: to run it takes longer than all else
 * on a page, so what can be shown without it comes first.
 * @returns {Promise<any>}
 */
export function load() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = find(document, "#plotly-script").href;
    script.addEventListener("load", () => {
      library = /** @type {any} */ (globalThis).Plotly;
      resolve(library);
    });
    script.addEventListener("error", () => reject(new Error("The charts could not be loaded.")));
    document.head.append(script);
  });
  return loading;
}

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
    load().then(work, () =>
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
  return (await load()).toImage(paintHeatMap(figure), options);
}
