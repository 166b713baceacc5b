import assert from "node:assert/strict";
import { test } from "node:test";
import { move, outline, thin } from "../../src/chainrule/app/assets/map/grid.js";

test("an outline runs between cells that differ, and not around unknown ones", () => {
  const rows = [
    [true, false, null],
    [true, true, false],
  ];
  assert.deepEqual(
    outline(3, 2, (x, y) => rows[y][x]),
    [
      [
        [1, 0],
        [1, 1],
      ],
      [
        [1, 1],
        [2, 1],
      ],
      [
        [2, 1],
        [2, 2],
      ],
    ],
  );
});

test("keys go from cell to cell and stay on the map", () => {
  const size = [3, 4];
  assert.deepEqual(move([0, 0], "ArrowRight", size), [1, 0]);
  assert.deepEqual(move([0, 0], "ArrowUp", size), [0, 1]);
  assert.deepEqual(move([0, 0], "ArrowLeft", size), [0, 0]);
  assert.deepEqual(move([1, 3], "ArrowUp", size), [1, 3]);
  assert.deepEqual(move([1, 2], "End", size), [2, 2]);
  assert.deepEqual(move([1, 2], "PageDown", size), [1, 0]);
  assert.equal(move([1, 2], "a", size), null);
});

test("ticks are as many as there is room for, and the first is among them", () => {
  assert.deepEqual(thin(4, 10), [0, 1, 2, 3]);
  assert.deepEqual(thin(6, 3), [0, 2, 4]);
  assert.deepEqual(thin(5, 0), [0]);
});
