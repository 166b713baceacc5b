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
# On 836 networks of benchmarks/outcomes.csv, torch 2.13.0+cpu; penalty 0.02.
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=3.063,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.176),
                Slope("smallest_gradient", "<", -3.0, 0.066),
                Slope("smallest_gradient", "<", -6.0, 0.005),
                Slope("largest_gradient", ">", 2.0, 0.374),
                Slope("largest_gradient", ">", 3.5, 0.431),
                Slope("variation", "<", -0.5, 1.01),
                Slope("variation", "<", -2.0, 0.449),
                Slope("sensitivity", ">", 0.5, 1.368),
                Slope("sensitivity", ">", 1.0, 0.37),
                Slope("sensitivity", ">", 1.5, 0.59),
                Slope("forward", "<", -0.5, 0.405),
                Slope("forward", "<", -2.0, 0.221),
                Slope("forward", "<", -5.0, 0.046),
                Slope("forward", ">", 1.0, 0.633),
                Slope("forward", ">", 2.5, 0.182),
                Slope("dead_units", ">", 0.5, 10.799),
                Slope("effective_depth", ">", 1.0, 4.021),
            ),
        ),
        "adam": Constants(
            base=3.874,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.127),
                Slope("smallest_gradient", "<", -3.0, 0.065),
                Slope("smallest_gradient", "<", -6.0, 0.016),
                Slope("largest_gradient", ">", 2.0, 0.031),
                Slope("largest_gradient", ">", 3.5, 0.232),
                Slope("variation", "<", -0.5, 0.256),
                Slope("sensitivity", ">", 0.5, 1.287),
                Slope("sensitivity", ">", 1.0, 0.799),
                Slope("sensitivity", ">", 1.5, 0.702),
                Slope("forward", "<", -0.5, 0.199),
                Slope("forward", "<", -2.0, 0.124),
                Slope("forward", ">", 1.0, 0.357),
                Slope("forward", ">", 2.5, 0.28),
                Slope("dead_units", ">", 0.5, 17.271),
                Slope("effective_depth", ">", 1.0, 4.319),
            ),
        ),
    }
)
"""By optimizer."""
