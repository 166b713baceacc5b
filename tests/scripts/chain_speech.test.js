/* Formulas are read aloud as they are written. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { readAddress, START, writeAddress } from "../../src/chainrule/app/assets/chain/address.js";
import { speak } from "../../src/chainrule/app/assets/chain/speech.js";

test("formulas are said in words", () => {
  assert.equal(speak("∂p/∂z₃"), "∂p by ∂z₃");
  assert.equal(speak("dp/dx = 2 · x"), "dp by dx equals 2 times x");
  assert.equal(speak("h₃(1 − h₃)"), "h₃ times (1 − h₃)");
  assert.equal(speak("σ′(z₃) ≈ 0.2"), "σ′(z₃) about 0.2");
});

test("the order and the push are kept in the address, and only possible ones are taken", () => {
  const page = { state: START, cards: {}, walk: 0, network: {} };
  const shown = { order: "forward", push: "0.1" };
  const query = writeAddress({ ...page, shown });
  assert.deepEqual(readAddress(`?${query}`, ["sigmoid"], 7).shown, shown);
  assert.equal(writeAddress(page).has("push"), false);
  const wrong = readAddress("?order=up&push=7", ["sigmoid"], 7).shown;
  assert.deepEqual(wrong, { order: "backward", push: "0.01" });
});
