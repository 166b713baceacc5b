"""Numbers as people read them: one style for page, report, terminal, chart and message."""

import math
from collections.abc import Sequence

MINUS = "−"

_SUPERSCRIPTS = str.maketrans("0123456789-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻")
_SUBSCRIPTS = str.maketrans("0123456789-−", "₀₁₂₃₄₅₆₇₈₉₋₋")
_LARGE = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_SMALL = ((1e-3, "thousandth"), (1e-6, "millionth"), (1e-9, "billionth"), (1e-12, "trillionth"))


def format_number(value: float | None) -> str:
    """Return a number as people read it: 0.28, 3.1·10⁻¹³, 2,900, −5.

    What is no number is a word: "none" where there is none, "undefined" for NaN, "infinite".

    Example:
        >>> format_number(1.4e-10)
        '1.4·10⁻¹⁰'
    """
    if value is None:
        return "none"
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else f"{MINUS if value < 0 else ''}infinite"
    digits, power = split_number(value)
    return digits if power is None else f"{digits}·10{to_superscript(power)}"


def split_number(value: float) -> tuple[str, int | None]:
    """Return the digits of a finite number and its power of ten, `None` where it needs none.

    Example:
        >>> split_number(-3.1e-13)
        ('−3.1', -13)
    """
    size = abs(value)
    if value == 0 or 0.001 <= size < 999.5:
        text = f"{value + 0.0:.3g}"  # + 0.0: no minus before zero
    else:
        text = f"{value:,.0f}" if 1 <= size < 9999.5 else f"{value:.1e}"
    digits, mark, power = text.partition("e")
    return digits.replace("-", MINUS), int(power) if mark else None


def encode_number(value: float | None) -> float | str | None:
    """Return a number as every JSON text of chainrule holds it.

    JSON has no infinite and no undefined numbers: they become the strings "Infinity", "-Infinity"
    and "NaN". Finite numbers and `None` stay.

    Example:
        >>> encode_number(-math.inf)
        '-Infinity'
    """
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def format_times(ratio: float) -> str:
    """Return how many times something is as large: "350 million times", "0.028 times".

    Example:
        >>> format_times(3.5e8)
        '350 million times'
    """
    for size, name in _LARGE:
        if size <= ratio * (1 + 5e-3) < 1000 * size:
            return f"{float(f'{ratio / size:.2g}'):,.3g} {name} times"
    return f"{format_number(ratio)} times"


def format_part(ratio: float) -> str:
    """Return which part of another value something is, to be followed by that value.

    Example:
        >>> [f"{format_part(ratio)} it" for ratio in (1.1e-9, 5.8e-11, 0.0034, 0.21, 240.0)]
        ['a billionth of it', '5.8·10⁻¹¹ times it', '0.34 % of it', '21 % of it', '240 times it']
    """
    if ratio == 0:
        return "nothing of"
    if 0.0015 <= ratio < 1.5:
        return f"{100 * ratio:.2g} % of" if ratio < 0.01 else f"{100 * ratio:.0f} % of"
    name = next((name for size, name in _SMALL if 0.95 * size <= ratio < 1.5 * size), None)
    return format_times(float(f"{ratio:.2g}")) if name is None else f"a {name} of"


def format_share(share: float | None) -> str:
    """Return a share in percent; nothing where there is none.

    Example:
        >>> format_share(0.25)
        '25 %'
    """
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if math.isfinite(share) else format_number(share)


def format_shape(shape: Sequence[int]) -> str:
    """Return a tensor's shape.

    Example:
        >>> format_shape((32, 64))
        '32×64'
    """
    return "×".join(map(str, shape)) or "scalar"


def to_superscript(number: int) -> str:
    """Return a whole number in superscript characters.

    Example:
        >>> to_superscript(-13)
        '⁻¹³'
    """
    return str(number).translate(_SUPERSCRIPTS)


def to_subscript(number: int) -> str:
    """Return a whole number in subscript characters.

    Example:
        >>> to_subscript(12)
        '₁₂'
    """
    return str(number).translate(_SUBSCRIPTS)
