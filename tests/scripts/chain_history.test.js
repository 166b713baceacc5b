import assert from "node:assert/strict";
import { test } from "node:test";
import { Edits } from "../../src/chainrule/app/assets/chain/history.js";

/** Stand in for a browser's history. */
function watch() {
  const calls = [];
  const write = (kind) => (_state, _title, address) => {
    calls.push(`${kind} ${address}`);
    globalThis.location.search = address;
  };
  globalThis.location = { search: "?a" };
  globalThis.history = { pushState: write("push"), replaceState: write("replace") };
  return calls;
}

test("an edit is one entry, however many values it goes through", () => {
  const calls = watch();
  const edits = new Edits();
  for (const address of ["?b", "?c"]) {
    edits.begin();
    edits.write(address);
  }
  edits.end();
  edits.begin();
  edits.write("?d");
  assert.deepEqual(calls, ["push ?b", "replace ?c", "push ?d"]);
});

test("to edit elsewhere is another edit, even if nothing said that the first one ended", () => {
  const calls = watch();
  const edits = new Edits();
  for (const [place, address] of [
    ["w1", "?b"],
    ["w1", "?c"],
    ["w2", "?d"],
  ]) {
    edits.begin(place);
    edits.write(address);
  }
  assert.deepEqual(calls, ["push ?b", "replace ?c", "push ?d"]);
});

test("what is no edit, or changes nothing, has no entry of its own", () => {
  const calls = watch();
  const edits = new Edits();
  edits.write("?b");
  edits.begin();
  edits.write("?b");
  assert.deepEqual(calls, ["replace ?b", "replace ?b"]);
  edits.write("?c", true);
  assert.equal(calls.at(-1), "push ?c");
});

test("a browser that refuses does not stop the page", () => {
  watch();
  globalThis.history.pushState = () => {
    throw new Error("too many");
  };
  const edits = new Edits();
  edits.begin();
  edits.write("?b");
});
