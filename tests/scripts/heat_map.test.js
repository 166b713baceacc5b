/* Heat maps: colours between those of the scale, cells where the pointer is. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  findCell,
  findEdges,
  mix,
  paintHeatMap,
  readScale,
} from "../../src/chainrule/app/assets/shared/heat_map.js";

const SCALE = readScale([
  [0, "rgba(58, 155, 220, 0.0)"],
  [0.5, "rgba(58, 155, 220, 0.5)"],
  [1, "#0B4F8A"],
]);

const TRACE = {
  type: "heatmap",
  x: [1, 2, 3],
  y: [0.5, 1.5],
  customdata: [
    [0.25, null, 1],
    [0.75, null, 0],
  ],
};

test("colours are mixed between the stops", () => {
  assert.deepEqual(mix(SCALE, 0), [58, 155, 220, 0]);
  assert.deepEqual(mix(SCALE, 0.25), [58, 155, 220, 64]);
  assert.deepEqual(mix(SCALE, 1), [11, 79, 138, 255]);
  assert.deepEqual(mix(SCALE, 0.75), [35, 117, 179, 191]);
});

test("rows reach from half a step below the first to half a step above the last", () => {
  assert.deepEqual(findEdges([0.5, 1.5]), [0, 2]);
  assert.deepEqual(findEdges([3]), [2.5, 3.5]);
});

test("a place has the cell that lies there", () => {
  assert.deepEqual(findCell(TRACE, 0.6, 0.1), {
    layer: 1,
    text: "layer 1: 25.0 % of activations near 0.5",
  });
  assert.deepEqual(findCell(TRACE, 3.4, 1.9), {
    layer: 3,
    text: "layer 3: 0.0 % of activations near 1.5",
  });
  assert.deepEqual(findCell(TRACE, 2, 1), { layer: 2, text: "layer 2" }); // nothing is known of it
  assert.equal(findCell(TRACE, 4, 1), null);
  assert.equal(findCell(TRACE, 1, 2.5), null);
  assert.equal(
    findCell({ ...TRACE, text: [["10⁻³"], ["10³"]] }, 1, 1.5).text,
    "layer 1: 75.0 % of activations near 10³",
  );
});

test("a figure without a heat map stays as it is", () => {
  const figure = { data: [{ type: "scatter" }], layout: {} };
  assert.equal(paintHeatMap(figure), figure);
});
