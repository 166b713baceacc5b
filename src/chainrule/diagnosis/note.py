"""What a note of the diagnosis is."""

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.diagnosis.observations import OBSERVATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth knowing that does not change the verdict.

    Attributes:
        name: Key in the table of observations.
        modules: Names of the modules concerned, in forward order; empty where no module returned
            what was looked at.
        metric: What was measured, in words.
        value: The metric that is furthest beyond the bound.
        threshold: The bound from which on it is reported.
        beyond: ">" or "<": on which side of the bound it is.
        evidence: The measurement in one sentence.
        meaning: What measurement says about the claim that people make of it.
        source: Where claim and answer come from.

    Example:
        >>> Note(name="a", modules=(), metric="m", value=1.0, threshold=0.5, beyond=">",
        ...      evidence="m is 1", meaning="", source="")
        Note(a: m is 1)
    """

    name: str
    modules: tuple[str, ...]
    metric: str
    value: float
    threshold: float
    beyond: str
    evidence: str
    meaning: str
    source: str

    def __repr__(self) -> str:
        return f"Note({self.name}: {self.evidence})"


def make_note(name: str, value: float, evidence: str, modules: Sequence[str]) -> Note:
    """Return a note, with what the table of observations says of it.

    Args:
        name: Its key in that table.
        value: What was measured.
        evidence: The measurement in one sentence.
        modules: The modules concerned.

    Example:
        >>> make_note("slow_start", 1e-5, "the loss hardly moves", ["head"])
        Note(slow_start: the loss hardly moves)
    """
    observation = OBSERVATIONS[name]
    return Note(
        name=name,
        modules=tuple(dict.fromkeys(filter(None, modules))),
        metric=observation.metric,
        value=float(value),
        threshold=observation.threshold,
        beyond=observation.beyond,
        evidence=evidence,
        meaning=observation.meaning,
        source=observation.source,
    )
