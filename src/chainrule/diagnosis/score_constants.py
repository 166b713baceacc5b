"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.363,
            slopes=(
                Slope("worst", ">", -1.0, 0.225),
                Slope("worst", ">", 0.0, 0.149),
                Slope("worst", ">", 1.0, 0.029),
                Slope("step", "<", -1.0, 0.384),
                Slope("step", "<", -2.0, 0.349),
                Slope("step", "<", -4.0, 0.547),
                Slope("step", ">", 0.0, 0.563),
                Slope("rate", "<", -3.0, 0.479),
                Slope("rate", "<", -4.0, 0.312),
                Slope("rate", "<", -6.0, 0.012),
                Slope("rate", ">", 0.0, 0.474),
                Slope("rate", ">", 1.0, 0.302),
                Slope("rate", ">", 3.0, 0.135),
            ),
        ),
        "adam": Constants(
            base=2.745,
            slopes=(
                Slope("worst", ">", -1.0, 0.227),
                Slope("worst", ">", 0.0, 0.108),
                Slope("worst", ">", 1.0, 0.109),
                Slope("step", "<", -1.0, 0.239),
                Slope("step", "<", -2.0, 0.208),
                Slope("step", "<", -4.0, 0.45),
                Slope("step", ">", 0.0, 1.547),
                Slope("rate", "<", -3.0, 0.181),
                Slope("rate", "<", -4.0, 0.168),
                Slope("rate", "<", -6.0, 0.088),
                Slope("rate", ">", 0.0, 0.012),
                Slope("rate", ">", 1.0, 0.208),
                Slope("rate", ">", 3.0, 0.257),
            ),
        ),
    }
)
"""By optimizer."""
