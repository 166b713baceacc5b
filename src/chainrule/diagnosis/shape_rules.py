"""Answers that meet the targets of other examples, since shapes differ and one is repeated."""

import math
from collections.abc import Sequence

from chainrule.diagnosis.evidence import name_outputs
from chainrule.diagnosis.rule import Reading, Rule, Verdict
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import BroadcastFlow


def _read_broadcasts(flow: GradientFlow) -> list[Reading]:
    """Return with how many targets every answer is compared, where there should be one."""
    facts = flow.loss_facts
    if facts is None:
        return []
    modules = name_outputs(flow, facts.outputs)
    return [
        Reading(value=float(_count_targets(each)), modules=modules)
        for each in facts.broadcasts
        if each.by_mistake
    ]


def _count_targets(broadcast: BroadcastFlow) -> int:
    return math.prod(broadcast.result) // max(1, math.prod(broadcast.output))


def _describe_broadcast(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return word_broadcast(_find_mistake(flow))


def word_broadcast(broadcast: BroadcastFlow) -> str:
    """Return what is compared with what, and where, in one clause."""
    code = f": {broadcast.code}" if broadcast.code else ""
    where = f" ({broadcast.position}{code})" if broadcast.position else ""
    return (
        f"in the loss, {broadcast.operation}{where} gets the shapes {broadcast.shapes} and makes "
        f"{broadcast.result} of them: every answer meets the targets of all "
        f"{_count_targets(broadcast):,} examples"
    )


def _find_mistake(flow: GradientFlow) -> BroadcastFlow:
    assert flow.loss_facts is not None
    return next(each for each in flow.loss_facts.broadcasts if each.by_mistake)


def _mend_broadcast(flow: GradientFlow) -> str:
    """Return how to give both tensors the same shape, in code."""
    found = _find_mistake(flow)
    longer = max(found.output, found.target, key=len)
    name, other = ("output", "target") if longer == found.output else ("target", "output")
    if len(found.output) == len(found.target):
        change = f"target.reshape{found.output}"
    else:
        at = longer.index(1, 1) if 1 in longer[1:] else 0
        last = at == len(longer) - 1
        change = f"{name}.squeeze({-1 if last else at}), or "
        change += f"{other}[:, None]" if at == 1 else f"{other}.unsqueeze({at})"
    where = f" at {found.position}" if found.position else ""
    return f"Give both the same shape{where}: {change}. Then measure again."


SHAPE_RULES = (
    Rule(
        name="broadcast_loss",
        verdict=Verdict.SHAPES,
        metric="targets that every answer is compared with",
        threshold=1.0,
        beyond=">",
        reason="No example has a target of its own, so the loss is lowest where all answers are "
        "the same: training learns the mean of the targets, and nothing of the inputs.",
        source="PyTorch documentation, Broadcasting semantics; Σᵢⱼ (xᵢ − yⱼ)² is lowest at xᵢ = "
        "mean of y",
        read=_read_broadcasts,
        describe=_describe_broadcast,
        action=_mend_broadcast,
        scale="count",
        ignored_by_remedies=True,
    ),
)
"""Rules about the shapes of answers and targets."""
