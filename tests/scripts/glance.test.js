/* The chart in small: values keep their place on the axis of the main chart. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { makePlace } from "../../src/chainrule/app/assets/explore/glance.js";

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
