"""A size measured at several widths, and the power of the width that it goes with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule._utils.numbers import MINUS, encode_number

MIDPOINT = 0.25
"""Half of the distance between exponents: theory knows multiples of 1/2 only, for sums of n terms
that point the same way (n) or at random (√n)."""

_NORMAL = 1.959963984540054
_STUDENT = (12.706204736, 4.302652730, 3.182446305, 2.776445105)


@dataclass(frozen=True, slots=True)
class Scaling:
    """A size at every width, and the exponent b of size ∝ widthᵇ.

    Attributes:
        sizes: Geometric mean over the seeds, one per width.
        exponent: Slope of log(size) against log(width).
        error: Half of its 95 % interval, from what is left over after the fit.

    Example:
        >>> fit_scaling([16, 32, 64], [[4.0], [8.0], [16.0]])
        Scaling(width^1.00 ± 0.00)
    """

    sizes: tuple[float, ...]
    exponent: float
    error: float

    def __repr__(self) -> str:
        return f"Scaling({self.describe()} ± {self.error:.2f})"

    def describe(self) -> str:
        """Return it as a power of the width."""
        return f"width^{write_exponent(self.exponent)}"

    def is_above(self, expected: float) -> bool:
        """Whether all of the interval is nearer to the next larger exponent."""
        return self.exponent - self.error > expected + MIDPOINT

    def is_below(self, expected: float) -> bool:
        """Whether all of the interval is nearer to the next smaller exponent."""
        return self.exponent + self.error < expected - MIDPOINT

    def may_not_exceed(self, expected: float) -> bool:
        """Whether none of the interval is nearer to the next larger exponent."""
        return self.exponent + self.error <= expected + MIDPOINT

    def may_not_fall(self, expected: float) -> bool:
        """Whether none of the interval is nearer to the next smaller exponent."""
        return self.exponent - self.error >= expected - MIDPOINT

    def divide(self, other: "Scaling") -> "Scaling":
        """Return the quotient of two sizes; its error is at most the sum of the two."""
        sizes = tuple(one / two for one, two in zip(self.sizes, other.sizes, strict=True))
        return Scaling(sizes, self.exponent - other.exponent, self.error + other.error)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "sizes": [encode_number(size) for size in self.sizes],
            "exponent": encode_number(self.exponent),
            "error": encode_number(self.error),
        }


def fit_scaling(widths: Sequence[int], values: Sequence[Sequence[float]]) -> Scaling | None:
    """Fit a straight line through log(value) against log(width), with an offset of every seed.

    All widths of a seed see the same batch, so what a seed adds to all of them is no error of the
    slope. What the line does not explain, noise or a curve, is.

    Args:
        widths: At least two.
        values: For every width, one value per seed.

    Returns:
        `None` if a value is zero or not finite: it has no logarithm.
    """
    seeds = len(values[0])
    if any(not 0.0 < value < math.inf for row in values for value in row):
        return None
    logs = [[math.log(value) for value in row] for row in values]
    x = [math.log(width) for width in widths]
    middle = math.fsum(x) / len(x)
    x = [each - middle for each in x]
    offsets = [math.fsum(row[seed] for row in logs) / len(x) for seed in range(seeds)]
    spread = seeds * math.fsum(each**2 for each in x)
    slope = math.fsum(a * y for a, row in zip(x, logs, strict=True) for y in row) / spread
    left = math.fsum(
        (y - offset - slope * a) ** 2
        for a, row in zip(x, logs, strict=True)
        for y, offset in zip(row, offsets, strict=True)
    )
    freedom = len(x) * seeds - seeds - 1
    error = math.inf
    if freedom > 0:
        error = find_quantile(freedom) * math.sqrt(left / freedom / spread)
    sizes = tuple(math.exp(math.fsum(row) / seeds) for row in logs)
    return Scaling(sizes, slope, error)


def find_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    From a table up to 4 degrees of freedom, else the expansion of Abramowitz & Stegun 26.7.5.

    Example:
        >>> round(find_quantile(10), 3)
        2.228
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, n = _NORMAL, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / n**power for power, term in enumerate(terms, start=1))


def write_exponent(exponent: float) -> str:
    """Return an exponent with two digits after the point.

    Example:
        >>> write_exponent(-0.4999)
        '−0.50'
    """
    text = f"{exponent:.2f}".replace("-", MINUS)
    return "0.00" if text == f"{MINUS}0.00" else text


def round_exponent(exponent: float) -> float:
    """Return the multiple of 1/2 that theory means: the nearest, or the next above; never 0.

    Terms that add up at random besides the ones that line up pull an exponent down, by up to 1/2 at
    small widths, and nothing pulls it up: so it is rounded up from a quarter of a step on.

    Example:
        >>> round_exponent(0.74), round_exponent(0.52), round_exponent(-0.97)
        (1.0, 0.5, -1.0)
    """
    nearest = math.ceil(2.0 * exponent - 0.25) / 2.0
    return max(0.5, nearest) if exponent > 0 else min(-0.5, nearest)


def write_power(exponent: float) -> str:
    """Return a power of the width, with an exponent as theory means it, as a factor.

    Example:
        >>> write_power(-1.0), write_power(0.5), write_power(-1.5)
        ('1/width', '√width', '1/width^1.5')
    """
    size = abs(exponent)
    power = {0.5: "√width", 1.0: "width"}.get(size, f"width^{size:g}")
    return power if exponent > 0 else f"1/{power}"
