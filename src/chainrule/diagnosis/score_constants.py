"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.385,
            slopes=(
                Slope("worst", ">", -1.0, 0.237),
                Slope("worst", ">", 0.0, 0.163),
                Slope("worst", ">", 1.0, 0.046),
                Slope("step", "<", -1.0, 0.352),
                Slope("step", "<", -2.0, 0.322),
                Slope("step", "<", -4.0, 0.622),
                Slope("step", ">", 0.0, 0.597),
                Slope("rate", "<", -3.0, 0.46),
                Slope("rate", "<", -4.0, 0.319),
                Slope("rate", "<", -6.0, 0.011),
                Slope("rate", ">", 0.0, 0.482),
                Slope("rate", ">", 1.0, 0.298),
                Slope("rate", ">", 3.0, 0.122),
            ),
        ),
        "adam": Constants(
            base=2.799,
            slopes=(
                Slope("worst", ">", -1.0, 0.244),
                Slope("worst", ">", 0.0, 0.133),
                Slope("worst", ">", 1.0, 0.116),
                Slope("step", "<", -1.0, 0.194),
                Slope("step", "<", -2.0, 0.178),
                Slope("step", "<", -4.0, 0.571),
                Slope("step", ">", 0.0, 1.618),
                Slope("rate", "<", -3.0, 0.159),
                Slope("rate", "<", -4.0, 0.175),
                Slope("rate", "<", -6.0, 0.087),
                Slope("rate", ">", 0.0, 0.024),
                Slope("rate", ">", 1.0, 0.198),
                Slope("rate", ">", 3.0, 0.188),
            ),
        ),
    }
)
"""By optimizer."""
