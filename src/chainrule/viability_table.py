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
# On 114 networks of benchmarks/outcomes.csv, torch 2.13.0+cpu; penalty 0.02.
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=3.856,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.289),
                Slope("smallest_gradient", "<", -3.0, 0.041),
                Slope("largest_gradient", ">", 2.0, 0.447),
                Slope("largest_gradient", ">", 3.5, 0.392),
                Slope("variation", "<", -0.5, 1.16),
                Slope("variation", "<", -2.0, 2.392),
                Slope("sensitivity", ">", 0.5, 1.179),
                Slope("sensitivity", ">", 1.0, 0.098),
                Slope("forward", "<", -0.5, 0.618),
                Slope("forward", "<", -2.0, 0.249),
                Slope("forward", ">", 1.0, 0.313),
                Slope("forward", ">", 2.5, 0.132),
                Slope("effective_depth", ">", 0.7, 2.749),
                Slope("effective_depth", ">", 1.0, 1.808),
                Slope("effective_depth", ">", 1.3, 11.29),
            ),
        ),
        "adam": Constants(
            base=4.526,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.232),
                Slope("smallest_gradient", "<", -3.0, 0.096),
                Slope("largest_gradient", ">", 2.0, 0.208),
                Slope("largest_gradient", ">", 3.5, 0.236),
                Slope("variation", "<", -0.5, 0.402),
                Slope("forward", "<", -0.5, 0.426),
                Slope("forward", "<", -2.0, 0.237),
                Slope("forward", ">", 1.0, 0.189),
                Slope("forward", ">", 2.5, 0.166),
                Slope("effective_depth", ">", 0.7, 2.842),
                Slope("effective_depth", ">", 1.0, 3.608),
                Slope("effective_depth", ">", 1.3, 12.863),
            ),
        ),
    }
)
"""By optimizer."""
