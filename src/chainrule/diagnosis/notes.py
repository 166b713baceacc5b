"""Notes on a measurement: what attention, branches and residual streams do, and what is unused.

A note never changes the verdict: nothing need be wrong. It reports a metric that people ask about,
and what was found when the claim that goes with it was put to the test.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.reach import describe_unreached, read_unreached
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.structure import (
    list_normalizations,
    list_streams,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import NEAR_ONE_HOT, NEAR_UNIFORM, AttentionFlow, ResidualFlow

_LONG = 4
"""Sums from which on a residual stream is worth a note of its own."""


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


_OBSERVATIONS = (
    Observation(
        name="one_hot_attention",
        metric="relative entropy of attention",
        threshold=NEAR_ONE_HOT,
        beyond="<",
        meaning="It is often said that such attention cannot train, because no gradient passes "
        "through it. Tests on tiny GPT-2 models with larger queries and keys show otherwise. "
        "With Adam they learned at every level, but at some levels more slowly. With plain SGD "
        "they learned at a relative entropy of 0.01, hardly between 0.003 and nearly 0, and again "
        "where attention was exactly one-hot. If your model does not train, try smaller query and "
        "key weights, or normalized queries and keys.",
        source="measured: docs/decisions.md, “Attention that is one-hot trains”",
    ),
    Observation(
        name="uniform_attention",
        metric="relative entropy of attention",
        threshold=NEAR_UNIFORM,
        beyond=">",
        meaning="GPT-2, Llama, BERT and ViT start like this: small random queries and keys give "
        "every position about the same score, so each position gets the average of all. This is no "
        "fault. On tiny GPT-2 models with Adam, this start was as good as sharper attention. With "
        "plain SGD, models with queries and keys five times as large learned to look something up "
        "sooner.",
        source="measured: docs/decisions.md, “Attention that is one-hot trains”",
    ),
    Observation(
        name="large_branch",
        metric="size of a branch ÷ its residual stream",
        threshold=2.0,
        beyond=">",
        meaning="Most of such a sum comes from the branch, and the smaller part from the path "
        "around the block. After a few blocks little of the input is left. Models like this were "
        "seen to train if a normalization scales the sum down again. Without one, each block "
        "multiplies the residual stream by about that factor.",
        source="Zhang et al. 2019, Fixup (arXiv 1901.09321); De & Smith 2020 (arXiv 2002.10444)",
    ),
    Observation(
        name="tiny_branch",
        metric="median size of the branches ÷ their residual stream",
        threshold=0.01,
        beyond="<",
        meaning="Each block changes its input only a little, so at the start the network behaves "
        "like one with few layers. This is no fault: branches that start at exactly zero train, "
        "too.",
        source="De & Smith 2020 (arXiv 2002.10444); Zhang et al. 2019, Fixup (arXiv 1901.09321)",
    ),
    Observation(
        name="growing_pre_norm",
        metric="size of a normalized residual stream's last sum ÷ its start",
        threshold=1.5,
        beyond=">",
        meaning="With the normalization inside the branches, every branch adds about the same "
        "amount, but the residual stream grows. So later blocks change it by a smaller part. The "
        "gradient has a path to the first block without any normalization.",
        source="Xiong et al. 2020 (arXiv 2002.04745); Sun et al. 2025 (arXiv 2502.05795)",
    ),
    Observation(
        name="fading_post_norm",
        metric="gradient of a residual stream's first sum ÷ its last",
        threshold=0.5,
        beyond="<",
        meaning="A normalization after every sum divides the gradient by the size of that sum, so "
        "the gradient gets smaller with depth. The usual remedies are a learning rate that starts "
        "small (warm-up), or normalization before each branch (pre-norm).",
        source="Xiong et al. 2020 (arXiv 2002.04745)",
    ),
    Observation(
        name="starved_branch",
        metric="spread of a normalization's output before its scale",
        threshold=RULES["starved_normalization"].threshold,
        beyond="<",
        meaning="The values that reach this normalization are so small that its constant ε is "
        "larger than their variance. This is no fault here: it lies on a residual branch, which "
        "grows with its weights while the path around it carries signal and gradient, or a later "
        "normalization gives the values their size back.",
        source="Ba et al. 2016 (arXiv 1607.06450), section 3; De & Smith 2020 (arXiv 2002.10444); "
        "measured: docs/architectures.md",
    ),
    Observation(
        name="unused_weights",
        metric="number of weights that the loss does not depend on",
        threshold=RULES["unreached"].threshold,
        beyond=">",
        meaning="Everything else receives a gradient. These weights stay as they are, which is "
        "right for a part that this loss does not use: another head, a pooler, an expert that no "
        "input chose. If they are meant to learn, look for detach(), no_grad(), or a module that "
        "forward() leaves out.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
    ),
)

OBSERVATIONS: Mapping[str, Observation] = MappingProxyType(
    {each.name: each for each in _OBSERVATIONS}
)
"""Every observation by name, in the order in which notes are given."""


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


def list_notes(flow: GradientFlow) -> tuple[Note, ...]:
    """Return what is worth knowing of a model's attention, residual connections and unused parts.

    What is grave enough to be a finding of the diagnosis is left to it.
    """
    return tuple(note for find in _FINDERS for note in find(flow))


def _find_one_hot(flow: GradientFlow) -> Iterator[Note]:
    found = [each for each in flow.attentions if each.entropy < NEAR_ONE_HOT]
    if found:
        least = min(found, key=lambda each: each.entropy)
        yield _note(
            "one_hot_attention",
            least.entropy,
            f"attention is nearly one-hot in {_count(found, flow.attentions)}: its relative "
            f"entropy is {format_number(least.entropy)} at {least.label!r} (0 is one-hot, 1 is "
            "uniform)",
            [each.name for each in found],
        )


def _find_uniform(flow: GradientFlow) -> Iterator[Note]:
    found = [each for each in flow.attentions if each.entropy > NEAR_UNIFORM]
    if 2 * len(found) > len(flow.attentions):
        least = min(each.entropy for each in found)
        yield _note(
            "uniform_attention",
            least,
            f"attention is nearly uniform in {_count(found, flow.attentions)}: its relative "
            f"entropy is at least {math.floor(1000 * least) / 1000:g} there (0 is one-hot, 1 is "
            "uniform)",
            [each.name for each in found],
        )


def _count(found: Sequence[AttentionFlow], every: Sequence[AttentionFlow]) -> str:
    return f"{len(found)} of {len(every)} computation{'' if len(every) == 1 else 's'}"


def _find_large_branches(flow: GradientFlow) -> Iterator[Note]:
    bound = OBSERVATIONS["large_branch"].threshold
    shares = [(share, each) for each in flow.residuals if (share := each.share) is not None]
    found = [(share, each) for share, each in shares if share > bound]
    if found:
        share, worst = max(found, key=lambda pair: pair[0])
        yield _note(
            "large_branch",
            share,
            f"{len(found)} of {len(shares)} branches add more than {bound:g} times the size of "
            f"their residual stream; {_name(flow, worst)!r} adds {format_number(share)} times",
            [_name(flow, each) for _, each in found],
        )


def _find_tiny_branches(flow: GradientFlow) -> Iterator[Note]:
    shares = [(share, each) for each in flow.residuals if (share := each.share) is not None]
    if not shares:
        return
    median = statistics.median(float(share) for share, _ in shares)
    if median < OBSERVATIONS["tiny_branch"].threshold:
        yield _note(
            "tiny_branch",
            median,
            "the branches add nothing yet"
            if max(share for share, _ in shares) == 0.0
            else f"the median branch adds {format_number(median)} times the size of its residual "
            "stream",
            [_name(flow, each) for _, each in shares],
        )


def _find_growing(flow: GradientFlow) -> Iterator[Note]:
    for stream in _list_long(flow, "before"):
        start = stream[0].after if stream[0].before is None else stream[0].before
        growth = stream[-1].after / start if start > 0.0 else 0.0
        if growth <= OBSERVATIONS["growing_pre_norm"].threshold:
            continue
        shares = [share for each in stream if (share := each.share) is not None]
        half = len(shares) // 2
        falls = ""
        if half:  # a sum of several branches has no share of one
            parts = (shares[:half], shares[-half:])
            early, late = (statistics.median(map(float, part)) for part in parts)
            falls = (
                f"; the median branch adds {format_number(early)} times its size in the first half "
                f"and {format_number(late)} times in the second"
            )
        first, last = stream[0].gradient, stream[-1].gradient
        reaches = (
            f"; its gradient at the first sum is {format_number(first / last)} times that at the "
            "last"
            if first is not None and last
            else ""
        )
        yield _note(
            "growing_pre_norm",
            growth,
            f"the pre-norm residual stream grows by a factor of {format_number(growth)} over its "
            f"{len(stream)} sums{falls}{reaches}",
            [_name(flow, each) for each in stream],
        )


def _find_fading(flow: GradientFlow) -> Iterator[Note]:
    for stream in _list_long(flow, "after"):
        first, last = stream[0].gradient, stream[-1].gradient
        if first is None or not last:
            continue
        ratio = first / last
        if RULES["fading_stream"].threshold <= ratio < OBSERVATIONS["fading_post_norm"].threshold:
            yield _note(
                "fading_post_norm",
                ratio,
                f"the gradient at the first of {len(stream)} sums of the post-norm residual stream "
                f"is {format_number(ratio)} times that at the last",
                [_name(flow, each) for each in stream],
            )


def _find_starved_branches(flow: GradientFlow) -> Iterator[Note]:
    rule = RULES["starved_normalization"]
    places = list_normalizations(flow)
    found = [place for place in places if place.value < rule.threshold]
    wrong = any(each.value is not None and rule.is_beyond(each.value) for each in rule.read(flow))
    if found and not wrong:
        least = min(found, key=lambda place: place.value)
        yield _note(
            "starved_branch",
            least.value,
            f"{len(found)} of {len(places)} normalizations put out less than {rule.threshold:g} "
            f"times the spread that they should; {least.name!r} puts out "
            f"{format_number(least.value)} times",
            [place.module for place in found],
        )


def _find_unused(flow: GradientFlow) -> Iterator[Note]:
    unreached = read_unreached(flow)
    if unreached.names and not unreached.cut:
        yield _note(
            "unused_weights",
            len(unreached.names),
            describe_unreached(unreached),
            unreached.names,
        )


def _list_long(flow: GradientFlow, normalization: str) -> Iterator[tuple[ResidualFlow, ...]]:
    for stream in list_streams(flow):
        styles = {each.normalization for each in stream}
        if len(stream) >= _LONG and styles == {normalization}:
            yield stream


def _name(flow: GradientFlow, residual: ResidualFlow) -> str:
    return "" if residual.branch is None else flow.layers[residual.branch].name


def _note(name: str, value: float, evidence: str, modules: Sequence[str]) -> Note:
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


_FINDERS: tuple[Callable[[GradientFlow], Iterator[Note]], ...] = (
    _find_one_hot,
    _find_uniform,
    _find_large_branches,
    _find_tiny_branches,
    _find_growing,
    _find_fading,
    _find_starved_branches,
    _find_unused,
)
