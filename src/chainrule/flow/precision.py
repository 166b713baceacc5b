"""Gradients that were computed in half precision: what its format keeps of them."""

import math
from dataclasses import dataclass
from reprlib import repr as shorten
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, Strict, with_config

from chainrule._utils.numbers import format_number, format_share
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import CLOSED, Magnitude, Position, Share, Text

Exponent = Annotated[int, Strict(), Field(ge=-1074, le=1023)]


@dataclass(frozen=True, slots=True)
class Format:
    """The range of a number format.

    Attributes:
        smallest: Smallest positive number: half of it and less becomes zero.
        normal: Smallest number with all its digits; those below are called subnormal.
        largest: Largest finite number.

    Example:
        >>> FORMATS["float16"].largest
        65504.0
    """

    smallest: float
    normal: float
    largest: float


FORMATS = MappingProxyType(
    {
        "float16": Format(2.0**-24, 2.0**-14, 65504.0),
        "bfloat16": Format(2.0**-133, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
    }
)
"""IEEE 754 binary16, and the upper half of its binary32."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionFlow:
    """One gradient that was computed in half precision, or rounded to it.

    Attributes:
        name: The module or parameter.
        of: What the gradient is of: an "output" (δ); a "weight", computed in half precision even
            if autocast then gives it back as float32; or "arriving", the gradient in a wider
            format just before it is rounded to the format of the output.
        dtype: Data type in which it was computed; of "arriving", to which it is rounded next.
        layer: Position in `GradientFlow.layers` of the output; `None` for weights.
        zero_share: Share of entries that are exactly zero, in [0, 1]; as in `GradientStatistics`
            of a sample.
        subnormal_share: Share of entries that are not zero and below the smallest normal number
            of `dtype`: they have lost digits. Of "arriving", those that will.
        size: Root mean square of the entries.
        largest: Largest absolute entry.

    Example:
        >>> zero, small = Quantity([0.0]), Quantity([2.0**-25])
        >>> PrecisionFlow(
        ...     name="head",
        ...     of="arriving",
        ...     dtype="float16",
        ...     layer=3,
        ...     zero_share=zero,
        ...     subnormal_share=zero,
        ...     size=small,
        ...     largest=small,
        ... ).resolution
        0.5
    """

    name: Text
    of: Literal["output", "weight", "arriving"]
    dtype: Text
    layer: Position | None
    zero_share: Share
    subnormal_share: Share
    size: Magnitude
    largest: Magnitude

    def __repr__(self) -> str:
        return (
            f"PrecisionFlow({self.of} {shorten(self.name)}, {shorten(self.dtype)}, zero "
            f"{format_share(self.zero_share)}, subnormal {format_share(self.subnormal_share)}, "
            f"size {format_number(self.size)})"
        )

    @property
    def resolution(self) -> Quantity | None:
        """Size of the entries that are not zero ÷ smallest positive number of the format.

        At 1 the typical entry is rounded to zero or to one single number. 0 if all are zero;
        `None` if the format is not known.
        """
        bounds = FORMATS.get(self.dtype)
        if bounds is None:
            return None
        members = zip(self.size.values, self.zero_share.values, strict=True)
        return Quantity(
            size / math.sqrt(1.0 - zero) / bounds.smallest if zero < 1.0 else 0.0
            for size, zero in members
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionTrial:
    """What one loss scale leaves of the gradients.

    Attributes:
        exponent: k of the loss scale 2^k.
        zero_share: Share of all weights' gradient entries that are exactly zero, in [0, 1].
        non_finite: Number of gradient entries that are infinite or NaN.

    Example:
        >>> PrecisionTrial(exponent=10, zero_share=0.25, non_finite=0).scale
        1024.0
    """

    exponent: int
    zero_share: float
    non_finite: int

    @property
    def scale(self) -> float:
        """The loss scale."""
        return math.ldexp(1.0, self.exponent)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionProbe:
    """Gradients at several loss scales, from one forward pass.

    Attributes:
        trials: One per loss scale, the smallest scale first; the first is 1, as it is now.
        kept: The smallest share of zeros that any scale reached without an overflow: what a format
            of enough range would leave. `None` if no scale gave finite gradients.

    Example:
        >>> now = PrecisionTrial(exponent=0, zero_share=1.0, non_finite=0)
        >>> better = PrecisionTrial(exponent=8, zero_share=0.1, non_finite=0)
        >>> PrecisionProbe(trials=(now, better), kept=0.1)
        PrecisionProbe(zero 100 % now, 10 % at loss scale 2^8)
    """

    trials: tuple[PrecisionTrial, ...]
    kept: float | None

    @property
    def best(self) -> PrecisionTrial | None:
        """The trial with the smallest scale that keeps what can be kept, up to 0.1 % of entries."""
        if self.kept is None:
            return None
        bound = self.kept + TOLERANCE
        return next(t for t in self.trials if not t.non_finite and t.zero_share <= bound)

    @property
    def loss_scale(self) -> float | None:
        """The smallest loss scale that keeps what can be kept: 1 if none is needed."""
        return None if self.best is None else self.best.scale

    def __repr__(self) -> str:
        now = f"zero {format_share(self.trials[0].zero_share)} now"
        if self.best is None:
            return f"PrecisionProbe({now}, no scale gives finite gradients)"
        then = f"{format_share(self.best.zero_share)} at loss scale 2^{self.best.exponent}"
        return f"PrecisionProbe({now}, {then})"


TOLERANCE = 1e-3
"""Share of entries up to which two loss scales keep the same."""
