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
# On 182 networks of benchmarks/outcomes.csv, torch 2.13.0+cpu; penalty 0.02.
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=3.557,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.165),
                Slope("smallest_gradient", "<", -3.0, 0.034),
                Slope("smallest_gradient", "<", -6.0, 0.001),
                Slope("largest_gradient", ">", 2.0, 0.544),
                Slope("largest_gradient", ">", 3.5, 0.639),
                Slope("variation", "<", -0.5, 1.141),
                Slope("variation", "<", -2.0, 0.499),
                Slope("sensitivity", ">", 0.5, 0.371),
                Slope("sensitivity", ">", 1.0, 7.454),
                Slope("forward", "<", -0.5, 0.546),
                Slope("forward", "<", -2.0, 0.213),
                Slope("forward", "<", -5.0, 0.005),
                Slope("forward", ">", 1.0, 0.58),
                Slope("forward", ">", 2.5, 0.199),
                Slope("effective_depth", ">", 1.0, 6.12),
            ),
        ),
        "adam": Constants(
            base=4.28,
            slopes=(
                Slope("smallest_gradient", "<", -1.0, 0.167),
                Slope("smallest_gradient", "<", -3.0, 0.079),
                Slope("smallest_gradient", "<", -6.0, 0.005),
                Slope("largest_gradient", ">", 2.0, 0.117),
                Slope("largest_gradient", ">", 3.5, 0.311),
                Slope("variation", "<", -0.5, 0.415),
                Slope("variation", "<", -4.0, 0.003),
                Slope("sensitivity", ">", 0.5, 1.586),
                Slope("sensitivity", ">", 1.0, 5.464),
                Slope("forward", "<", -0.5, 0.346),
                Slope("forward", "<", -2.0, 0.245),
                Slope("forward", "<", -5.0, 0.025),
                Slope("forward", ">", 1.0, 0.285),
                Slope("forward", ">", 2.5, 0.34),
                Slope("effective_depth", ">", 1.0, 6.217),
            ),
        ),
    }
)
"""By optimizer."""
