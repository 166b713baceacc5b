/* Axes: every value has its place, ticks are whole, and nothing is left out. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  chooseLossAxis,
  findPowers,
  listPowers,
  writePath,
} from "../../src/chainrule/app/assets/shared/axes.js";

test("an axis of powers has whole ticks within its ends", () => {
  assert.deepEqual(listPowers(-3, 3), [-3, -2, -1, 0, 1, 2, 3]);
  assert.deepEqual(listPowers(-10.5, 0.2), [-10, -8, -6, -4, -2, 0]);
  for (const [low, high] of [
    [-300, 4],
    [-0.2, 0.3],
    [5, 600],
  ]) {
    const ticks = listPowers(low, high);
    assert.ok(ticks.length <= 8);
    assert.ok(ticks.every((tick) => Number.isInteger(tick) && tick >= low && tick <= high));
  }
});

test("an ordinary loss has a linear axis from zero", () => {
  const axis = chooseLossAxis([2.3, 0.4, 0.05]);
  assert.equal(axis.place(0), 0);
  assert.equal(axis.ticks[0], 0);
  const places = axis.ticks.map(axis.place);
  assert.equal(places.at(-1), 1);
  assert.ok(axis.place(2.3) <= 1);
  assert.equal(axis.write(0.5), "0.5");
});

test("a loss over many powers of ten has a logarithmic axis", () => {
  const axis = chooseLossAxis([1e12, 2.3, Infinity, Number.NaN]);
  assert.equal(axis.place(1), 0);
  assert.equal(axis.place(1e12), 1);
  assert.equal(axis.place(0), 0); // zero has no place of its own
  assert.ok(Math.abs(axis.place(1e6) - 0.5) < 1e-12);
  assert.equal(axis.write(axis.ticks.at(-1)), "10¹²");
  assert.ok(axis.ticks.length <= 5);
});

test("without any loss there is still an axis", () => {
  const axis = chooseLossAxis([]);
  assert.ok(axis.ticks.length > 1);
  assert.ok(axis.ticks.every((tick) => Number.isFinite(axis.place(tick))));
});

test("powers of ten hold all positive values", () => {
  assert.deepEqual(findPowers([0.002, 30, 0, null, Number.NaN]), [-3, 2]);
  assert.deepEqual(findPowers([1]), [0, 1]);
  assert.deepEqual(findPowers([0, null]), [-3, 0]);
  assert.deepEqual(findPowers([]), [-3, 0]);
});

test("a path begins anew where a value is missing", () => {
  assert.equal(
    writePath([
      [0, 1],
      [1, 2],
      [2, null],
      [3, 4],
    ]),
    "M0.0 1.0L1.0 2.0M3.0 4.0",
  );
  assert.equal(writePath([]), "");
});
