"""Flow files to open without a model of one's own: real measurements, kept beside this module.

`docs/make_samples.py` measures them anew, as anybody would: each names its file in
`examples/samples/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement to look at.

    Attributes:
        name: Its name in addresses, and of its file in `examples/samples/`.
        title: What it is.
        teaser: What happens with it, in a few words.
    """

    name: str
    title: str
    teaser: str

    @property
    def path(self) -> Path:
        """Its flow file."""
        return FOLDER / f"{self.name}.json"

    @property
    def command(self) -> str:
        """The command that measured it."""
        return f"chainrule inspect examples/samples/{self.name}.py:build --try --output flow.json"


SAMPLES: Mapping[str, Sample] = MappingProxyType(
    {
        sample.name: sample
        for sample in (
            Sample("transformer_that_trains", "A small transformer", "it trains"),
            Sample("lost_over_time", "An LSTM over 100 steps", "its gradient is lost over time"),
            Sample("undefined_distance", "A distance of pictures", "its gradient becomes NaN"),
            Sample("flat_loss", "Boxes that do not overlap", "its loss is flat"),
        )
    }
)
"""The samples by name."""


@cache
def read_sample(name: str) -> bytes:
    """Return the flow file of a sample.

    Example:
        >>> read_sample("flat_loss")[:11]
        b'{"layers":['
    """
    return SAMPLES[name].path.read_bytes()
