"""What changes of a specification and of a model have in common: kinds, prices and words."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from chainrule.remedies.edits import Edit

CLIP_NORM = 1.0
"""The total norm that gradients are clipped to, as most recipes have it (Pascanu et al. 2013)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of change.

    Attributes:
        name: Key of the kind.
        label: The name shown to people.
        price: Why it costs what it does, in one sentence.
    """

    name: str
    label: str
    price: str


_KINDS = (
    Kind("initialization", "initialization", "One line before training; nothing while it runs."),
    Kind("bias", "biases", "One line before training; nothing while it runs."),
    Kind(
        "clipping",
        "gradient clipping",
        "One line in the training loop; the network stays the same.",
    ),
    Kind("residual", "residual connections", "One addition per layer; no additional weights."),
    Kind(
        "normalization",
        "normalization",
        "Every layer computes statistics at every step, and has additional weights.",
    ),
    Kind(
        "gain",
        "measured scale",
        "The scale must be measured, and measured again for every new depth, width or activation.",
    ),
    Kind(
        "activation", "activation", "Every layer computes another function, so it is another model."
    ),
    Kind("depth", "fewer layers", "Cheaper to run, but a smaller model can express less."),
    Kind("width", "more units", "Weights and time grow with the square of the width."),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every kind of change by name, the cheapest first."""

COSTS: Mapping[str, int] = MappingProxyType({name: rank for rank, name in enumerate(KINDS)})
"""The place of a kind in that order. Two changes cost more than any single one."""


@dataclass(frozen=True, slots=True)
class Words:
    """What one change is called, and why it could help, wherever it is offered.

    Attributes:
        title: The change in a few words.
        reason: Why it could help, in one or two plain sentences.
    """

    title: str
    reason: str


ZERO_BIASES = Words(
    "Zero biases",
    "A bias shifts all examples by the same amount; without it they differ more.",
)
RESIDUAL = Words(
    "Residual connections",
    "On the path around each layer the gradient stays unchanged, whatever the layer does.",
)
CLIPPING = Words(
    f"Gradient clipping at {CLIP_NORM:g}",
    "Clipping makes a step smaller when all gradients together are too large. It does not change "
    "the ratio between the gradients of two layers, so the cause stays.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change to try, not yet measured.

    Attributes:
        kinds: What kind of change it is (see `KINDS`); two names for a pair of changes.
        title: The change in a few words.
        reason: Why it could help, in plain sentences.
        edits: What it changes in the parameters of a model; empty for a specification.
    """

    kinds: tuple[str, ...]
    title: str
    reason: str
    edits: tuple[Edit, ...] = ()

    @property
    def cost(self) -> tuple[int, ...]:
        """What changes are ranked by, cheap first: how many they are, then their kinds."""
        return (len(self.kinds), *sorted((COSTS[kind] for kind in self.kinds), reverse=True))


def join(first: Change, second: Change) -> dict[str, Any]:
    """Return the kinds, title and reason of two changes made together, as fields of a `Change`."""
    return {
        "kinds": (*first.kinds, *second.kinds),
        "title": f"{first.title} + {second.title}",
        "reason": f"{first.reason} {second.reason}",
    }
