"""What an observation is: a measured value that is worth a note, and no fault for sure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One thing that is worth a note.

    Attributes:
        name: Its key.
        metric: What is compared, in words.
        threshold: The bound from which on it is reported.
        beyond: ">" if values above the bound are reported, "<" if those below are.
        meaning: What measurement says about the claim that people make of it.
        source: Where claim and answer come from.
    """

    name: str
    metric: str
    threshold: float
    beyond: str
    meaning: str
    source: str
