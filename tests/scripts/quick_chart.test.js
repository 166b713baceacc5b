/* The main chart as a plain picture: values stand where the axes say. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  findPlace,
  isPlain,
  writeChart,
} from "../../src/chainrule/app/assets/shared/quick_chart.js";

/** @param {any} changes */
function makeFigure({ y = [1e-12, 1e-3, 1e6], range = [-12, 6], annotations = [] } = {}) {
  const x = y.map((_, i) => i + 1);
  return {
    data: [
      { type: "scatter", mode: "lines", x: [], y: [], fill: "toself", line: { width: 0 } },
      {
        type: "scatter",
        mode: "lines+markers",
        x,
        y,
        line: { color: "#111111", width: 2 },
        marker: { size: 10, color: "#222222", symbol: "diamond" },
      },
    ],
    layout: {
      margin: { l: 64, r: 56, t: 44, b: 48 },
      xaxis: {
        range: [0.5, y.length + 0.5],
        tickvals: x,
        ticktext: x.map(String),
        title: { text: "layer" },
      },
      yaxis: { type: "log", range, dtick: 3, title: { text: "size < 1" } },
      shapes: [{ y0: 1e-12, y1: 1e-3, fillcolor: "rgba(0, 0, 0, 0.1)" }],
      annotations,
    },
  };
}

test("values stand at their layer and their power of ten", () => {
  const { left, top, width, height } = findPlace(makeFigure().layout, 700, 300);
  const [back, lines] = writeChart(makeFigure(), 700, 300);
  const at = [...lines.matchAll(/M([\d.]+) ([\d.]+)m/g)].map((found) => found.slice(1).map(Number));
  const near = (/** @type {number} */ one, /** @type {number} */ other) =>
    assert.ok(Math.abs(one - other) < 0.01, `${one} ${other}`);
  assert.equal(at.length, 3);
  for (const [i, [x, y]] of at.entries()) {
    near(x, left + ((i + 0.5) * width) / 3);
    near(y, top + (height * (2 - i)) / 2);
  }
  const zone = back
    .match(/y="([\d.]+)" width="[\d.]+" height="([\d.]+)"/)
    ?.slice(1)
    .map(Number);
  near(zone?.[0] ?? 0, top + height / 2);
  near(zone?.[1] ?? 0, height / 2);
});

test("a value without a place breaks the line and has no mark", () => {
  const [, lines] = writeChart(makeFigure({ y: [1, null, 1] }), 700, 300);
  assert.equal(lines.match(/d="(M[^mzLa"]+){2}"/g)?.length, 1);
  assert.equal(lines.match(/z/g)?.length, 2);
});

test("every power of ten of the axis is written, in words that cannot be markup", () => {
  const [, , axes] = writeChart(makeFigure(), 700, 300);
  for (const power of ["−12", "−9", "−6", "−3", "3", "6"]) assert.ok(axes.includes(`>${power}<`));
  assert.ok(axes.includes("size &lt; 1"));
  const note = {
    xref: "paper",
    x: 0,
    y: -3,
    text: "<b>a<i</b>",
    font: { size: 12, color: "#000" },
  };
  const words = writeChart(makeFigure({ annotations: [note] }), 700, 300).at(-1);
  assert.ok(words?.includes('<tspan font-weight="bold">a&lt;i</tspan>'));
});

test("a longer power takes more room, and only an axis of powers is drawn so", () => {
  const long = findPlace(makeFigure({ range: [-12, 306] }).layout, 700, 300);
  assert.ok(long.left > findPlace(makeFigure().layout, 700, 300).left);
  const linear = makeFigure();
  linear.layout.yaxis.type = "linear";
  assert.deepEqual([isPlain(makeFigure()), isPlain(linear)], [true, false]);
});
