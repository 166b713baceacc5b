import assert from "node:assert/strict";
import { test } from "node:test";
import { makePattern, splitText } from "../../src/chainrule/app/assets/shared/terms.js";

const WORDS = { gradient: 1, "weight gradient": 2, He: 3, "1/√depth": 4, "‖δ‖": 5, δ: 6 };
const pattern = makePattern(Object.keys(WORDS));
const name = (word) =>
  Object.entries(WORDS).find(([known]) => known.toLowerCase() === word.toLowerCase())?.[1];
const split = (text, seen = new Set()) => splitText(text, pattern, name, seen);
const found = (text) => split(text).filter(({ term }) => term);

test("the pieces are the text", () => {
  const text = "The weight gradient is δ times what came forward; the gradient travels.";
  const pieces = split(text).map((piece) => piece.text);
  assert.equal(pieces.join(""), text);
});

test("the longest word is taken, and each term once", () => {
  const text = "The weight gradient, a gradient, another gradient, ‖δ‖ and δ.";
  assert.deepEqual(
    found(text).map(({ text }) => text),
    ["weight gradient", "gradient", "‖δ‖", "δ"],
  );
});

test("a term that was found before is not found again", () => {
  const seen = new Set([1]);
  assert.deepEqual(split("gradient", seen), []);
  assert.equal(split("He", seen).length, 1);
  assert.ok(seen.has(3));
});

test("words are whole, and may start a sentence", () => {
  assert.deepEqual(found("Here the gradientless heap"), []);
  assert.equal(found("Gradient by gradient")[0].text, "Gradient");
  assert.deepEqual(found("then he said"), []);
  assert.equal(found("scaled by 1/√depth:")[0].text, "1/√depth");
});

test("text without such words is left as it is", () => {
  assert.deepEqual(split("nothing here"), []);
});
