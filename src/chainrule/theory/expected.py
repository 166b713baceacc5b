"""A value of theory, with the band in which a measured median should lie."""

import math
from collections.abc import Sequence
from typing import Self


class Expected(float):
    """A float that theory gives in the limit of infinite width, with its band at a finite one.

    Attributes:
        median: The median that networks of this width should have.
        low: Lower end of the band for the median of an ensemble.
        high: Upper end.

    Example:
        >>> value = Expected(2.0, 1.9, 1.8, 2.0)
        >>> value.contains(1.85), value + 1
        (True, 3.0)
    """

    __slots__ = ("high", "low", "median")
    median: float
    low: float
    high: float

    def __new__(cls, value: float, median: float, low: float, high: float) -> Self:
        """Return the value in the limit, with its median and band."""
        expected = super().__new__(cls, value)
        expected.median, expected.low, expected.high = median, low, high
        return expected

    def contains(self, measured: float) -> bool:
        """Return whether a measured median lies inside the band."""
        return self.low <= measured <= self.high

    def __getnewargs__(self) -> tuple[float, float, float, float]:  # type: ignore[override]
        return float(self), self.median, self.low, self.high


def spread_out(
    log_value: float,
    variance: float,
    single: float,
    error: float,
    by_chance: float = 0.0,
    *,
    root: bool = False,
) -> Expected:
    """Return a positive value with its band, from its logarithm.

    The median lies variance/2 below the logarithm of the mean. The band reaches as far as an
    ensemble's median varies, and in addition as far as the corrections of first order themselves.

    Args:
        log_value: ln of the limit.
        variance: Of ln between networks, for the mean over the batch.
        single: The same for one example: twice the size of the corrections of order 1/width.
        error: Standard deviations of a median, times its √(variance).
        by_chance: What products of examples by chance add to ln of the mean.
        root: Whether the value is the root of what the logarithm is of.

    Example:
        >>> spread_out(0.0, 0.0, 0.0, 3.0).contains(1.0)
        True
    """
    power = 0.5 if root else 1.0
    if log_value == -math.inf:
        return Expected(0.0, 0.0, 0.0, 0.0)
    centre = log_value + by_chance - variance / 2.0
    reach = error * math.sqrt(variance) + max(single, variance) / 2.0 + abs(by_chance) / 2.0

    def write(log: float) -> float:
        return math.exp(min(power * log, 700.0))

    return Expected(write(log_value), write(centre), write(centre - reach), write(centre + reach))


def find_layers_outside(
    expected: Sequence[Expected | None], measured: Sequence[float | None]
) -> list[int]:
    """Return the numbers of the layers whose measured median is outside of its band.

    Example:
        >>> find_layers_outside([Expected(1.0, 1.0, 0.9, 1.1), None], [1.2, 5.0])
        [1]
    """
    return [
        number
        for number, (value, median) in enumerate(zip(expected, measured, strict=False), start=1)
        if value is not None and (median is None or not value.contains(median))
    ]
