/* The chain-rule page's addresses: what comes in is repaired, what goes out comes back. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  CARDS,
  listVariables,
  MAX_LAYERS,
  readAddress,
  START,
  writeAddress,
} from "../../src/chainrule/app/assets/chain/address.js";

const ACTIVATIONS = ["sigmoid", "tanh", "identity"];
const read = (search) => readAddress(search, ACTIVATIONS, 5);

test("an empty address is the page's own chain", () => {
  const found = read("");
  assert.deepEqual(found.state, START);
  assert.deepEqual(found.cards, CARDS);
  assert.deepEqual([found.walk, found.network, found.notices, found.chosen], [0, {}, [], false]);
});

test("what is written is read again", () => {
  const page = {
    state: {
      x: -0.5,
      weights: [1, 1e-7, -3],
      biases: [0, 0.1, 2],
      activation: "tanh,sigmoid,tanh",
      wrt: "b2",
    },
    cards: {
      depth: { w: 4, activation: "tanh" },
      time: { w: 0.9, steps: 50, activation: "tanh", clip: "2" },
    },
    walk: 3,
    network: { depth: "12", network_activation: "tanh" },
  };
  const found = read(`?${writeAddress(page)}`);
  assert.deepEqual(found.notices, []);
  for (const name of ["state", "cards", "walk", "network"])
    assert.deepEqual(found[name], page[name]);
});

const REPAIRED = [
  ["weights=1,x,2", ({ state }) => assert.deepEqual(state.weights, [1, 1, 2])],
  ["weights=1,,2", ({ state }) => assert.deepEqual(state.weights, [1, 1, 2])],
  ["weights=1,1e999", ({ state }) => assert.deepEqual(state.weights, [1, 1])],
  ["biases=1,2", ({ state }) => assert.deepEqual(state.biases, [1, 2, 0])],
  ["x=abc", ({ state }) => assert.equal(state.x, START.x)],
  ["activation=nonsense", ({ state }) => assert.equal(state.activation, "sigmoid")],
  ["activation=tanh,tanh", ({ state }) => assert.equal(state.activation, "sigmoid")],
  ["wrt=w9", ({ state }) => assert.equal(state.wrt, "w1")],
  ["depth_w=no", ({ cards }) => assert.equal(cards.depth.w, CARDS.depth.w)],
  ["time_steps=9999", ({ cards }) => assert.equal(cards.time.steps, 200)],
  ["time_clip=-1", ({ cards }) => assert.equal(cards.time.clip, "")],
  ["walk=9", ({ walk }) => assert.equal(walk, 5)],
  ["depth=x", ({ network }) => assert.deepEqual(network, {})],
];

for (const [search, check] of REPAIRED) {
  test(`${search} is repaired, and said`, () => {
    const found = read(`?${search}`);
    assert.equal(found.notices.length, 1);
    check(found);
  });
}

test("a chain that is too long is cut, and said", () => {
  const found = read(`?weights=${Array(MAX_LAYERS + 5).fill(2)}`);
  assert.equal(found.state.weights.length, MAX_LAYERS);
  assert.match(found.notices[0], /55 came; the first 50/);
});

test("everything that p depends on can be asked for", () => {
  assert.deepEqual(listVariables({ ...START, biases: [0, 0, 0] }), [
    "x",
    "w1",
    "w2",
    "w3",
    "b1",
    "b2",
    "b3",
  ]);
});
