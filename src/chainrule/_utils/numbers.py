"""Numbers as people read them."""

import math

MINUS = "−"

_SUPERSCRIPTS = str.maketrans("0123456789-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻")
_SUBSCRIPTS = str.maketrans("0123456789-−", "₀₁₂₃₄₅₆₇₈₉₋₋")


def format_number(value: float) -> str:
    """Return a number as people read it: 0.28, 3.1e-13, 2,900."""
    if not math.isfinite(value):
        return str(float(value))
    size = abs(value)
    if value == 0 or 0.001 <= size < 999.5:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1 <= size < 9999.5 else f"{value:.1e}"


def split_number(value: float) -> tuple[str, int | None]:
    """Return the digits of a finite number and its power of ten, `None` where it needs none.

    For example ("−3.1", −13) for −3.1e-13 and ("0.28", None) for 0.28, with a true minus sign.
    """
    digits, mark, exponent = format_number(value).partition("e")
    return digits.replace("-", MINUS), int(exponent) if mark else None


def to_superscript(number: int) -> str:
    """Return a whole number in superscript characters: ⁻¹³."""
    return str(number).translate(_SUPERSCRIPTS)


def to_subscript(number: int) -> str:
    """Return a whole number in subscript characters: ₁₂."""
    return str(number).translate(_SUBSCRIPTS)
