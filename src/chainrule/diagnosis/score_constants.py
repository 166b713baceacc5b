"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.36,
            slopes=(
                Slope("worst", ">", -1.0, 0.209),
                Slope("worst", ">", 0.0, 0.155),
                Slope("worst", ">", 1.0, 0.041),
                Slope("step", "<", -1.0, 0.383),
                Slope("step", "<", -2.0, 0.348),
                Slope("step", "<", -4.0, 0.553),
                Slope("step", ">", 0.0, 0.573),
                Slope("rate", "<", -3.0, 0.48),
                Slope("rate", "<", -4.0, 0.313),
                Slope("rate", "<", -6.0, 0.012),
                Slope("rate", ">", 0.0, 0.477),
                Slope("rate", ">", 1.0, 0.302),
                Slope("rate", ">", 3.0, 0.133),
            ),
        ),
        "adam": Constants(
            base=2.745,
            slopes=(
                Slope("worst", ">", -1.0, 0.219),
                Slope("worst", ">", 0.0, 0.111),
                Slope("worst", ">", 1.0, 0.115),
                Slope("step", "<", -1.0, 0.237),
                Slope("step", "<", -2.0, 0.207),
                Slope("step", "<", -4.0, 0.455),
                Slope("step", ">", 0.0, 1.553),
                Slope("rate", "<", -3.0, 0.182),
                Slope("rate", "<", -4.0, 0.168),
                Slope("rate", "<", -6.0, 0.088),
                Slope("rate", ">", 0.0, 0.013),
                Slope("rate", ">", 1.0, 0.209),
                Slope("rate", ">", 3.0, 0.255),
            ),
        ),
    }
)
"""By optimizer."""
