/* Small charts: values keep their place on the axis of the main chart, zones have their names. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { makePlace, placeNames } from "../../src/chainrule/app/assets/shared/zones.js";

test("a logarithmic axis places powers of ten evenly", () => {
  const place = makePlace({ type: "log", range: [-12, 6] });
  assert.deepEqual([1e-12, 1e-3, 1e6].map(place), [0, 0.5, 1]);
});

test("a linear axis places values in proportion", () => {
  const place = makePlace({ type: "linear", range: [0, 4] });
  assert.deepEqual([0, 1, 4].map(place), [0, 0.25, 1]);
});

test("what leaves the axis stands at its end", () => {
  const place = makePlace({ type: "log", range: [-12, 6] });
  assert.deepEqual([1e-30, 1e30].map(place), [0, 1]);
});

const NAMES = ["too large", "layers learn here", "too small"];
const zones = (/** @type {number[]} */ middles) =>
  NAMES.map((name, i) => ({ name, middle: middles[i] }));

/**
 * The first and the last pixel of each name.
 * @param {{lines: string[], y: number}[]} placed
 */
const spans = (placed) => placed.map(({ lines, y }) => [y - 6, y + 6 + 12 * (lines.length - 1)]);

test("names of zones stand in their middle where there is room", () => {
  const placed = placeNames(zones([10, 40, 75]), 88);
  assert.deepEqual(
    placed.map(({ lines }) => lines.join(" ")),
    NAMES,
  );
  for (const [i, [start, end]] of spans(placed).entries())
    assert.equal((start + end) / 2, [10, 40, 75][i]);
});

for (const middles of [
  [0, 1, 2],
  [86, 87, 88],
  [40, 44, 48],
  [2, 80, 87],
]) {
  test(`names of zones at ${middles} do not run into each other, or out of the chart`, () => {
    const placed = spans(placeNames(zones(middles), 88));
    assert.ok(placed[0][0] >= 0 && placed[2][1] <= 88);
    for (const i of [1, 2]) assert.ok(placed[i][0] >= placed[i - 1][1]);
  });
}
