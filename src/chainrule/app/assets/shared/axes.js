/* Ticks and places on the axes of the charts that are drawn here. */

import { formatPower } from "./numbers.js";

/**
 * @typedef {object} Axis
 * @property {number[]} ticks values that are written
 * @property {(value: number) => number} place a value's share of the axis, 0 at its start
 * @property {(value: number) => string} write a tick's text
 */

/**
 * The whole numbers from low to high, at most about so many: ticks of an axis of powers of ten.
 * @param {number} low
 * @param {number} high
 * @param {number} [most]
 */
export function listPowers(low, high, most = 6) {
  const stride = Math.max(1, Math.ceil((high - low) / most));
  const ticks = [];
  for (let power = Math.ceil(low / stride) * stride; power <= high; power += stride)
    ticks.push(power);
  return ticks;
}

/**
 * An axis for a loss: linear from zero; logarithmic where it spans more than two powers of ten.
 * @param {number[]} values
 * @returns {Axis}
 */
export function chooseLossAxis(values) {
  const finite = values.filter((value) => Number.isFinite(value));
  const high = finite.length ? Math.max(...finite) : 3;
  const positive = finite.filter((value) => value > 0);
  const low = positive.length ? Math.min(...positive) : high;
  if (high > 30 && high / low > 100) {
    const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const stride = Math.max(1, Math.ceil((to - from) / 4));
    const ticks = [];
    for (let power = from; power <= to; power += stride) ticks.push(10 ** power);
    return {
      ticks,
      place: (value) => (Math.log10(Math.max(value, 10 ** from)) - from) / (to - from),
      write: (value) => formatPower(Math.round(Math.log10(value))),
    };
  }
  const stride =
    [0.5, 1, 2, 5, 10, 20, 50].find((size) => size * 5 >= high) ||
    10 ** Math.ceil(Math.log10(high / 5));
  const top = Math.max(stride * Math.ceil(high / stride), stride);
  const ticks = [];
  for (let tick = 0; tick <= top; tick += stride) ticks.push(tick);
  return {
    ticks,
    place: (value) => value / top,
    write: (value) => String(Number(value.toPrecision(3))),
  };
}

/**
 * The powers of ten that hold some values: at least one, [-3, 0] where nothing is positive.
 * @param {number[]} values
 * @returns {[number, number]}
 */
export function findPowers(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!(value > 0)) continue;
    const log = Math.log10(value);
    [low, high] = [Math.min(low, log), Math.max(high, log)];
  }
  if (low > high) return [-3, 0];
  const bottom = Math.floor(low);
  return [bottom, Math.max(Math.ceil(high), bottom + 1)];
}

/**
 * The path through points [x, y] of a picture; where y is null, it begins anew.
 * @param {[number, number | null][]} points
 */
export function writePath(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (y === null) {
        pen = "M";
        return "";
      }
      const step = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
}
