"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.367,
            slopes=(
                Slope("worst", ">", -1.0, 0.222),
                Slope("worst", ">", 0.0, 0.155),
                Slope("worst", ">", 1.0, 0.034),
                Slope("step", "<", -1.0, 0.382),
                Slope("step", "<", -2.0, 0.35),
                Slope("step", "<", -4.0, 0.548),
                Slope("step", ">", 0.0, 0.571),
                Slope("rate", "<", -3.0, 0.479),
                Slope("rate", "<", -4.0, 0.312),
                Slope("rate", "<", -6.0, 0.012),
                Slope("rate", ">", 0.0, 0.473),
                Slope("rate", ">", 1.0, 0.302),
                Slope("rate", ">", 3.0, 0.135),
            ),
        ),
        "adam": Constants(
            base=2.747,
            slopes=(
                Slope("worst", ">", -1.0, 0.224),
                Slope("worst", ">", 0.0, 0.107),
                Slope("worst", ">", 1.0, 0.111),
                Slope("step", "<", -1.0, 0.238),
                Slope("step", "<", -2.0, 0.21),
                Slope("step", "<", -4.0, 0.452),
                Slope("step", ">", 0.0, 1.551),
                Slope("rate", "<", -3.0, 0.182),
                Slope("rate", "<", -4.0, 0.168),
                Slope("rate", "<", -6.0, 0.089),
                Slope("rate", ">", 0.0, 0.011),
                Slope("rate", ">", 1.0, 0.208),
                Slope("rate", ">", 3.0, 0.26),
            ),
        ),
    }
)
"""By optimizer."""
