import assert from "node:assert/strict";
import { test } from "node:test";
import { shine, tell } from "../../src/chainrule/app/assets/shared/strip.js";

const steps = [
  { factor: "0.5", left: "0.02", power: -1.7 },
  { factor: "0.2", left: "0.04", power: -1.4 },
  { factor: "0.2", left: "0.2", power: -0.7 },
  { factor: null, left: "1", power: 0 },
];

test("light fades with every power of ten and heat grows", () => {
  const lights = [0, -1, -3, -6].map((power) => shine(power).light);
  for (let i = 1; i < lights.length; i += 1) assert.ok(lights[i] < lights[i - 1]);
  assert.equal(shine(0).light, 1);
  assert.ok(shine(-400).light > 0); // still there, hardly to be seen
  assert.deepEqual(shine(400), { light: 1, heat: 1 });
  assert.equal(shine(-5).heat, 0);
  assert.deepEqual(shine(null), { light: 0, heat: 0 });
});

test("what is said holds the factors passed, from the loss on, and what is left", () => {
  assert.ok(tell(steps, 4).includes("layer 4"));
  assert.ok(tell(steps, 3).endsWith("× 0.2"));
  assert.ok(tell(steps, 2).includes("0.2 × 0.2 = 0.04"));
  assert.ok(tell(steps, 1).includes("0.2 × 0.2 × 0.5 = 0.02"));
  assert.ok(tell(steps, 1).includes("layer 4 back to layer 1, 3 factors"));
});

test("a long product is cut, and its result stays", () => {
  const many = Array.from({ length: 9 }, () => ({ factor: "0.5", left: "0.004", power: -2.4 }));
  assert.ok(tell(many, 1).endsWith("0.5 × 0.5 × 0.5 × 0.5 × … = 0.004"));
});

test("where no gradient comes back, no product of nothing is written", () => {
  const steps = [
    { factor: null, left: "undefined", power: null },
    { factor: null, left: "undefined", power: null },
    { factor: null, left: "1", power: 0 },
  ];
  assert.match(tell(steps, 1), /no gradient/);
  assert.doesNotMatch(tell(steps, 2), /undefined/);
});
