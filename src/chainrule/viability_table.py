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
# On 202 networks of benchmarks/outcomes.csv, torch 2.13.0+cpu; penalty 0.02.
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=3.326,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.155),
                Slope("smallest_gradient", "<", -3.0, 0.06),
                Slope("smallest_gradient", "<", -6.0, 0.01),
                Slope("largest_gradient", ">", 2.0, 0.434),
                Slope("largest_gradient", ">", 3.5, 0.625),
                Slope("variation", "<", -0.5, 1.101),
                Slope("variation", "<", -2.0, 0.544),
                Slope("sensitivity", ">", 0.5, 1.258),
                Slope("sensitivity", ">", 1.0, 3.241),
                Slope("sensitivity", ">", 1.5, 0.264),
                Slope("forward", "<", -0.5, 0.403),
                Slope("forward", "<", -2.0, 0.175),
                Slope("forward", "<", -5.0, 0.038),
                Slope("forward", ">", 1.0, 0.556),
                Slope("forward", ">", 2.5, 0.2),
                Slope("effective_depth", ">", 1.0, 5.469),
            ),
        ),
        "adam": Constants(
            base=4.052,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.067),
                Slope("largest_gradient", ">", 2.0, 0.103),
                Slope("largest_gradient", ">", 3.5, 0.315),
                Slope("variation", "<", -0.5, 0.484),
                Slope("variation", "<", -4.0, 0.192),
                Slope("sensitivity", ">", 0.5, 1.413),
                Slope("sensitivity", ">", 1.0, 3.755),
                Slope("sensitivity", ">", 1.5, 0.293),
                Slope("forward", "<", -0.5, 0.154),
                Slope("forward", "<", -2.0, 0.053),
                Slope("forward", ">", 1.0, 0.281),
                Slope("forward", ">", 2.5, 0.348),
                Slope("effective_depth", ">", 1.0, 5.7),
            ),
        ),
    }
)
"""By optimizer."""
