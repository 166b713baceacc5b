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
# On 159 networks of benchmarks/outcomes.csv, torch 2.13.0+cpu; penalty 0.02.
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=3.794,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.213),
                Slope("smallest_gradient", "<", -3.0, 0.031),
                Slope("largest_gradient", ">", 2.0, 0.481),
                Slope("largest_gradient", ">", 3.5, 0.446),
                Slope("variation", "<", -0.5, 1.18),
                Slope("variation", "<", -2.0, 0.778),
                Slope("sensitivity", ">", 0.5, 0.749),
                Slope("sensitivity", ">", 1.0, 1.68),
                Slope("forward", "<", -0.5, 0.607),
                Slope("forward", "<", -2.0, 0.248),
                Slope("forward", ">", 1.0, 0.361),
                Slope("forward", ">", 2.5, 0.123),
                Slope("effective_depth", ">", 0.7, 2.173),
                Slope("effective_depth", ">", 1.0, 2.668),
                Slope("effective_depth", ">", 1.3, 9.551),
            ),
        ),
        "adam": Constants(
            base=4.692,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.174),
                Slope("smallest_gradient", "<", -3.0, 0.068),
                Slope("largest_gradient", ">", 2.0, 0.188),
                Slope("largest_gradient", ">", 3.5, 0.251),
                Slope("variation", "<", -0.5, 0.349),
                Slope("sensitivity", ">", 0.5, 0.266),
                Slope("forward", "<", -0.5, 0.413),
                Slope("forward", "<", -2.0, 0.24),
                Slope("forward", ">", 1.0, 0.188),
                Slope("forward", ">", 2.5, 0.178),
                Slope("effective_depth", ">", 0.7, 2.829),
                Slope("effective_depth", ">", 1.0, 4.01),
                Slope("effective_depth", ">", 1.3, 10.348),
            ),
        ),
    }
)
"""By optimizer."""
