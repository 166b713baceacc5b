/* Numbers are written as chainrule/_utils/numbers.py writes them: number_cases.json is both's. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  capitalize,
  formatNumber,
  formatPower,
  formatRounded,
  formatShare,
  subscript,
  superscript,
} from "../../src/chainrule/app/assets/shared/numbers.js";

const cases = JSON.parse(readFileSync(new URL("number_cases.json", import.meta.url), "utf8"));

test("numbers are written as in Python", () => {
  for (const [value, text] of cases) assert.equal(formatNumber(value), text);
});

test("what is no number is a word", () => {
  assert.equal(formatNumber(null), "none");
  assert.equal(formatNumber(undefined), "none");
  assert.equal(formatNumber(Number.NaN), "undefined");
  assert.equal(formatNumber(Infinity), "infinite");
  assert.equal(formatNumber(-Infinity), "−infinite");
});

test("numbers are rounded before they are written", () => {
  assert.equal(formatRounded(3.125, 2), "3.1");
  assert.equal(formatRounded(3325.3, 3), "3,330");
  assert.equal(formatRounded(1e-48, 2), "1.0·10⁻⁴⁸");
});

test("shares are in percent", () => {
  assert.equal(formatShare(0.25), "25 %");
  assert.equal(formatShare(null), "none");
});

test("powers of ten are raised, unless the power is too long", () => {
  assert.equal(formatPower(-12), "10⁻¹²");
  assert.equal(formatPower(0), "1");
  assert.equal(formatPower(1), "10");
  assert.equal(formatPower(-12345678), "10^(−1·10⁷)");
});

test("digits are raised and lowered", () => {
  assert.equal(superscript(-13), "⁻¹³");
  assert.equal(subscript("10"), "₁₀");
});

test("sentences begin with a capital letter", () => {
  assert.equal(capitalize("pinned: x"), "Pinned: x");
  assert.equal(capitalize(""), "");
});
