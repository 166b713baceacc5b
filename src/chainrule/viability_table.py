"""The constants of the model of viability, written by `make viability`: not by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Slope:
    """What a feature costs beyond a knot.

    Attributes:
        feature: Its name.
        beyond: "<" if values below the knot cost, ">" if values above do.
        knot: Where it begins.
        weight: Log-odds lost per unit beyond the knot; never below 0.
    """

    feature: str
    beyond: str
    knot: float
    weight: float


@dataclass(frozen=True, slots=True)
class Constants:
    """The model of one optimizer.

    Attributes:
        base: Log-odds of a network without a fault.
        slopes: What faults cost.
    """

    base: float
    slopes: tuple[Slope, ...]


# --- fitted ---
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {"sgd": Constants(3.0, ()), "adam": Constants(3.0, ())}
)
"""By optimizer."""
