"""The axes of a chart: from values to places, and where the ticks stand."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule._utils.numbers import format_number, to_superscript

_LARGEST = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis.

    Attributes:
        low: Value at the start of the axis; on a log axis its power of ten.
        high: Value at the end of the axis; on a log axis its power of ten.
        log: Whether the axis is logarithmic.
        start: Place of `low`, in pixels.
        end: Place of `high`, in pixels.
    """

    low: float
    high: float
    log: bool
    start: float
    end: float

    def place(self, value: float | None) -> float | None:
        """Return the place of a value in pixels; `None` if it has none on this axis."""
        if value is None or not math.isfinite(value) or (self.log and value <= 0):
            return None
        return self.place_inner(math.log10(value) if self.log else value)

    def place_inner(self, number: float) -> float:
        """Return the place of a value that is a power of ten already on a log axis."""
        share = (number / 4 - self.low / 4) / (self.high / 4 - self.low / 4)  # within floats
        return self.start + share * (self.end - self.start)


def choose_range(axis: Mapping[str, Any], values: Iterable[float | None]) -> tuple[float, float]:
    """Return the ends of an axis: those that the figure states, or those that hold all values."""
    if "range" in axis:
        return float(axis["range"][0]), float(axis["range"][1])
    log = axis.get("type") == "log"
    known = [
        math.log10(value) if log else float(value)
        for value in values
        if value is not None and math.isfinite(value) and (value > 0 or not log)
    ]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = 0.06 * high - 0.06 * low or 0.5
    low, high = max(low - margin, -_LARGEST), min(high + margin, _LARGEST)
    return (0.0 if axis.get("rangemode") == "tozero" else low), high


def list_ticks(axis: Mapping[str, Any], low: float, high: float) -> list[tuple[float, str]]:
    """Return the ticks of an axis as (value or power of ten, label)."""
    if "tickvals" in axis:
        labels: Sequence[str] = axis.get("ticktext") or [format_number(v) for v in axis["tickvals"]]
        return list(zip(map(float, axis["tickvals"]), labels, strict=True))
    if axis.get("type") == "log":
        return _list_powers(low, high, axis.get("dtick"))
    if math.isinf(high - low):
        return [(value, _label(value, axis)) for value in (low / 2, 0.0, high / 2)]
    step = float(axis.get("dtick") or _choose_step(high - low))
    first = float(axis.get("tick0", 0.0))
    index = math.ceil((low - first) / step - 1e-9)
    ticks = []
    while (value := first + index * step) <= high + 1e-9 * step:
        ticks.append((value, _label(value, axis)))
        index += 1
    return ticks


def _label(value: float, axis: Mapping[str, Any]) -> str:
    if "%" in str(axis.get("tickformat", "")):
        return f"{100 * value:.0f} %"
    return format_number(round(value, 12))


def _choose_step(length: float) -> float:
    power = 10.0 ** math.floor(math.log10(length / 5))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= length / 5 * 0.999)


def _list_powers(low: float, high: float, dtick: float | None) -> list[tuple[float, str]]:
    if high - low < 1.5:
        digits = (1, 2, 5) if high - low > 0.4 else range(1, 10)
        fine = [
            (math.log10(digit) + power, format_number(digit * 10.0**power))
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in digits
        ]
        return [(place, label) for place, label in fine if low <= place <= high]
    step = max(1, round(dtick or math.ceil((high - low) / 8)))
    first = math.ceil(low / step - 1e-9) * step
    return [(n, _power(n)) for n in range(first, math.floor(high + 1e-9) + 1, step)]


def _power(exponent: int) -> str:
    return {0: "1", 1: "10"}.get(exponent, f"10{to_superscript(exponent)}")
