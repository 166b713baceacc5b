/* What the first step of the tour says of the network on screen. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { tellDepth } from "../../src/chainrule/app/assets/explore/tour.js";

test("that both layers learn is said of two layers only", () => {
  assert.match(tellDepth(2), /2 layers, and both learn\./);
  assert.doesNotMatch(tellDepth(15), /both learn\./);
  assert.match(tellDepth(15), /15 layers/);
  assert.match(tellDepth(1), /1 layer\./);
});
