"""The constants of the score for models of any kind, written by `make truth`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.diagnosis.viability.constants import Constants, Slope

# --- fitted ---
# On 281 models of benchmarks/truth.csv, torch 2.13.0+cpu.
SCORES: Mapping[str, Constants] = MappingProxyType(
    {
        "sgd": Constants(
            base=2.392,
            slopes=(
                Slope("worst", ">", -1.0, 0.284),
                Slope("worst", ">", 0.0, 0.159),
                Slope("worst", ">", 1.0, 0.002),
                Slope("step", "<", -1.0, 0.361),
                Slope("step", "<", -2.0, 0.324),
                Slope("step", "<", -4.0, 0.595),
                Slope("step", ">", 0.0, 0.637),
                Slope("rate", "<", -3.0, 0.45),
                Slope("rate", "<", -4.0, 0.313),
                Slope("rate", "<", -6.0, 0.011),
                Slope("rate", ">", 0.0, 0.482),
                Slope("rate", ">", 1.0, 0.296),
                Slope("rate", ">", 3.0, 0.118),
            ),
        ),
        "adam": Constants(
            base=2.788,
            slopes=(
                Slope("worst", ">", -1.0, 0.238),
                Slope("worst", ">", 0.0, 0.153),
                Slope("worst", ">", 1.0, 0.101),
                Slope("step", "<", -1.0, 0.201),
                Slope("step", "<", -2.0, 0.178),
                Slope("step", "<", -4.0, 0.548),
                Slope("step", ">", 0.0, 1.663),
                Slope("rate", "<", -3.0, 0.155),
                Slope("rate", "<", -4.0, 0.173),
                Slope("rate", "<", -6.0, 0.088),
                Slope("rate", ">", 0.0, 0.023),
                Slope("rate", ">", 1.0, 0.196),
                Slope("rate", ">", 3.0, 0.189),
            ),
        ),
    }
)
"""By optimizer."""
