"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.394,
            slopes=(
                Slope("worst", ">", -1.0, 0.228),
                Slope("worst", ">", 0.0, 0.169),
                Slope("worst", ">", 1.0, 0.051),
                Slope("step", "<", -1.0, 0.354),
                Slope("step", "<", -2.0, 0.323),
                Slope("step", "<", -4.0, 0.619),
                Slope("step", ">", 0.0, 0.615),
                Slope("rate", "<", -3.0, 0.461),
                Slope("rate", "<", -4.0, 0.32),
                Slope("rate", "<", -6.0, 0.011),
                Slope("rate", ">", 0.0, 0.484),
                Slope("rate", ">", 1.0, 0.298),
                Slope("rate", ">", 3.0, 0.122),
            ),
        ),
        "adam": Constants(
            base=2.806,
            slopes=(
                Slope("worst", ">", -1.0, 0.236),
                Slope("worst", ">", 0.0, 0.139),
                Slope("worst", ">", 1.0, 0.121),
                Slope("step", "<", -1.0, 0.195),
                Slope("step", "<", -2.0, 0.179),
                Slope("step", "<", -4.0, 0.568),
                Slope("step", ">", 0.0, 1.633),
                Slope("rate", "<", -3.0, 0.16),
                Slope("rate", "<", -4.0, 0.175),
                Slope("rate", "<", -6.0, 0.087),
                Slope("rate", ">", 0.0, 0.025),
                Slope("rate", ">", 1.0, 0.198),
                Slope("rate", ">", 3.0, 0.189),
            ),
        ),
    }
)
"""By optimizer."""
