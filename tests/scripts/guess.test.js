/* What is said after a guess. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { judge } from "../../src/chainrule/app/assets/explore/guess.js";

test("a guess is right if it was measured", () => {
  assert.match(judge("exploding", "exploding"), /^Right.*exploding/);
  assert.match(judge("healthy", "vanishing"), /^Not so.*vanishing/);
});

test("what has no button is something else", () => {
  assert.match(judge("other", "dead units"), /^Right.*dead units/);
  assert.match(judge("other", "healthy"), /^Not so/);
});
