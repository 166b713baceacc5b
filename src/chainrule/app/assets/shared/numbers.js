/* Numbers as people read them: the same style as chainrule/_utils/numbers.py. */

const MINUS = "−";
const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const LOWERED = "₀₁₂₃₄₅₆₇₈₉";
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0, roundingMode: "halfEven" });

/**
 * A whole number in superscript characters.
 * @param {number | string} number
 */
export function superscript(number) {
  return String(number)
    .replace(/[-−]/, "⁻")
    .replace(/\d/g, (digit) => RAISED[Number(digit)]);
}

/**
 * A whole number in subscript characters.
 * @param {number | string} number
 */
export function subscript(number) {
  return String(number)
    .replace(/[-−]/, "₋")
    .replace(/\d/g, (digit) => LOWERED[Number(digit)]);
}

/**
 * A number as people read it: 0.28, 3.1·10⁻¹³, 2,900, −5.
 * @param {number | null | undefined} value
 */
export function formatNumber(value) {
  if (value === null || value === undefined) return "none";
  if (Number.isNaN(value)) return "undefined";
  if (!Number.isFinite(value)) return value < 0 ? `${MINUS}infinite` : "infinite";
  const size = Math.abs(value);
  const sign = value < 0 ? MINUS : "";
  if (size === 0 || (size >= 0.001 && size < 999.5))
    return sign + String(Number(size.toPrecision(3)));
  if (size >= 1 && size < 9999.5) return sign + WHOLE.format(size);
  const [digits, power] = size.toExponential(1).split("e");
  return `${sign}${digits}·10${superscript(Number(power))}`;
}

/**
 * A number with so many significant digits.
 * @param {number} value
 * @param {number} digits
 */
export function formatRounded(value, digits) {
  return formatNumber(Number(value.toPrecision(digits)));
}

/**
 * A share in percent.
 * @param {number | null} share
 */
export function formatShare(share) {
  return share === null ? "none" : `${Math.round(100 * share)} %`;
}

/**
 * A power of ten: 1, 10, 10⁻³, and 10^(1.2·10⁷) where the power itself is too long to raise.
 * @param {number} power
 */
export function formatPower(power) {
  if (power === 0 || power === 1) return String(10 ** power);
  return Math.abs(power) < 1e6
    ? `10${superscript(power)}`
    : `10^(${power.toExponential(0).split("e")[0].replace("-", MINUS)}·10${superscript(Number(power.toExponential(0).split("e")[1]))})`;
}

/**
 * Text that begins with a capital letter.
 * @param {string} text
 */
export function capitalize(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
