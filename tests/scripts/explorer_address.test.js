/* The explorer's addresses. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  compose,
  follow,
  isSameNetwork,
  linkChain,
  nameNetwork,
  START,
  setPanel,
} from "../../src/chainrule/app/assets/explore/address.js";

const SETTINGS = new URLSearchParams("depth=15&init=xavier");

test("what is as usual is not in an address", () => {
  assert.equal(compose(SETTINGS, START).toString(), "depth=15&init=xavier");
});

test("everything else is", () => {
  const extra = {
    measure: "delta",
    scale: "linear",
    layer: 3,
    pin: "depth=5",
    hide: ["train", "lesson"],
    lock: ["depth"],
    embed: "factor",
    guess: ["cards", "charts"],
    ask: "Which & why?",
    theory: "1",
  };
  assert.deepEqual(Object.fromEntries(compose(SETTINGS, extra)), {
    depth: "15",
    init: "xavier",
    measure: "delta",
    scale: "linear",
    layer: "3",
    pin: "depth=5",
    hide: "train,lesson",
    lock: "depth",
    embed: "factor",
    guess: "cards,charts",
    ask: "Which & why?",
    theory: "1",
  });
});

test("a layer that the network has not is left out", () => {
  assert.equal(compose(SETTINGS, { ...START, layer: 16 }).get("layer"), null);
  assert.equal(SETTINGS.get("layer"), null); // and what was given stays as it was
});

test("another network is shown as the one before", () => {
  const now = new URLSearchParams("depth=15&measure=delta&pin=depth%3D5&layer=4&seeds=3");
  const wanted = follow("depth=10&activation=relu", now, []);
  assert.deepEqual(Object.fromEntries(wanted), {
    depth: "10",
    activation: "relu",
    measure: "delta",
    pin: "depth=5",
  });
});

test("what is fixed stays, also where it is as usual", () => {
  const now = new URLSearchParams("depth=15&init=xavier");
  const wanted = follow("depth=100&residual=plain&init=random&weight_std=1", now, [
    "depth",
    "residual",
    "init",
  ]);
  assert.deepEqual(Object.fromEntries(wanted), { depth: "15", init: "xavier" });
});

test("the number of networks does not belong to a network", () => {
  assert.equal(nameNetwork("depth=5&seeds=3"), "depth=5");
  assert.ok(isSameNetwork("depth=5&init=he&seeds=3", "init=he&depth=5"));
  assert.ok(!isSameNetwork("depth=5", "depth=6"));
});

test("the chain-rule page has another name for the activation", () => {
  const defaults = { depth: "10", activation: "sigmoid" };
  assert.equal(
    linkChain("activation=relu&seeds=4", defaults),
    "/chain-rule?depth=10&network_activation=relu",
  );
  assert.equal(linkChain("depth=3", defaults), "/chain-rule?depth=3&network_activation=sigmoid");
});

test("a chart alone, and the whole page again", () => {
  assert.equal(setPanel("depth=3", "factor"), "/?depth=3&embed=factor");
  assert.equal(setPanel("depth=3&embed=factor", null), "/?depth=3");
});
