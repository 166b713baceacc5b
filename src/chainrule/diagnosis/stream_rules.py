"""Rules about residual streams, and about what lies between two modules."""

from collections.abc import Sequence

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.evidence import is_nearly_small
from chainrule.diagnosis.factors import trace_growth, trace_streams, trace_way_back
from chainrule.diagnosis.rule import Reading, Rule, Verdict, describe_worst, find_worst, read_whole
from chainrule.diagnosis.structure import (
    DISTINCT,
    USABLE_ON_STREAM,
    find_faded_stream,
    list_branch_layers,
    list_bypassed,
    list_normalizations,
    measure_stream_gradient,
    measure_stream_growth,
    measure_typical_gradient,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import LayerFlow


def _describe_fading_stream(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    sums = len(find_faded_stream(flow))
    ratio = float(wrong[0].value or 0.0)
    words = describe_worst(rule, flow, readings, wrong)
    if sums < 3 or not ratio > 0.0:
        return words
    step = format_number(ratio ** (1.0 / (sums - 1)))
    return f"{words}: on average each step between its {sums} sums multiplies it by {step}"


def _choose_stream_action(flow: GradientFlow) -> str:
    if any(each.normalization == "after" for each in find_faded_stream(flow)):
        return (
            "Worth trying: normalization before each branch instead of after each sum; then "
            "measure again."
        )
    return (
        "Look at what multiplies the stream at every sum (a decay, a gate, a scale below 1), and "
        "bring it nearer to 1, or take fewer steps; then measure again."
    )


CLOSED = -8.0
"""Values below which a sigmoid is less than 0.0004: as a gate, it is closed."""


def _list_closed(flow: GradientFlow) -> list[LayerFlow]:
    """Return the outputs of weight layers in residual branches that would make closed gates."""
    inside = list_branch_layers(flow)
    return [
        call
        for call in flow.layers
        if call.role == "weight"
        and call.layer in inside
        and call.statistics is not None
        and call.statistics.max < CLOSED
    ]


def _is_lost_in_branches(flow: GradientFlow) -> bool:
    """Whether only layers inside of residual branches receive too little, and all of them."""
    bound = USABLE_ON_STREAM * float(flow.output_error or 1.0)
    inside = list_branch_layers(flow)
    small = {
        layer.layer
        for layer in flow.weight_layers
        if layer.weight_gradient_norm is not None and layer.weight_gradient_norm < bound
    }
    return bool(inside) and small == inside and len(inside) < len(flow.weight_layers)


def _describe_typical(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    words = describe_worst(rule, flow, readings, wrong)
    if not _is_lost_in_branches(flow):
        return words
    words += ": it is lost inside the residual branches, and the layers outside receive theirs"
    if closed := _list_closed(flow):
        call = max(closed, key=lambda each: float(each.statistics.max if each.statistics else 0.0))
        assert call.statistics is not None
        words += (
            f"; the values of {call.label!r} lie between {format_number(call.statistics.min)} and "
            f"{format_number(call.statistics.max)}: as a gate, their sigmoid lets nothing through"
        )
    return words


def _choose_typical_action(flow: GradientFlow) -> str:
    if not _is_lost_in_branches(flow):
        return ""
    if _list_closed(flow):
        return "Start the gates open (biases near 0); then measure again."
    return (
        "Look at what the branches are multiplied by before they are added (a gate, a scale, a "
        "last layer with tiny weights), and start it larger; then measure again."
    )


# --- Averages behind normalizations --------------------------------------------------------------

SAME = 1e-5
"""Relative variation between examples up to which they are the same, but for rounding."""


def _list_averaged(flow: GradientFlow) -> list[tuple[LayerFlow, LayerFlow]]:
    """Return normalizations, each with the layer behind it that answers all examples alike.

    The values that leave the normalization differ between the examples, the layer has weights, and
    what it reads has fewer dimensions: something was taken over them. Batch normalization, whose
    mean is that of all examples, makes no example's mean the same.
    """
    weights = {layer.layer: float(layer.weight_norm) for layer in flow.weight_layers}
    normalizations = {place.module for place in list_normalizations(flow)}
    found = []
    before: LayerFlow | None = None
    for call in flow.layers:
        if call.name in normalizations and "Batch" not in call.kind:
            before = call
        elif call.role == "weight" and before is not None:
            values, answers = before.statistics, call.statistics
            if (
                values is not None
                and answers is not None
                and values.variation is not None
                and answers.variation is not None
                and values.variation >= DISTINCT
                and answers.variation < SAME
                and len(call.shape) < len(before.shape)
                and weights.get(call.layer or 0, 0.0) > 0.0
            ):
                found.append((before, call))
            before = None
    return found


def _is_small_before(flow: GradientFlow) -> bool:
    """Whether some gradient comes near its bound; a last layer that starts small explains none."""
    typical = measure_typical_gradient(flow)
    return is_nearly_small(flow) or (typical is not None and typical < USABLE_ON_STREAM)


def _read_averaged(flow: GradientFlow) -> list[Reading]:
    return [
        Reading(
            value=call.statistics.variation if call.statistics else None,
            layers=() if call.layer is None else (call.layer,),
            modules=(before.name, call.name),
            where=repr(before.name),
        )
        for before, call in _list_averaged(flow)
    ]


def _describe_averaged(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    before, call = next(
        pair for pair in _list_averaged(flow) if (pair[0].name, pair[1].name) == worst.modules
    )
    varied = before.statistics.variation if before.statistics else None
    return (
        f"the examples differ in what {before.label!r} ({before.kind}) puts out (relative "
        f"variation {format_number(varied)}), and {call.label!r} behind it answers all of them "
        f"alike ({format_number(value)})"
    )


STREAM_RULES = (
    Rule(
        name="growing_stream",
        verdict=Verdict.EXPLODING,
        metric="size of the residual stream's last sum ÷ its start",
        threshold=100.0,
        beyond=">",
        reason="Every branch adds about as much as the residual stream already holds, so every "
        "block multiplies the values. Then the first steps change the weights far too much.",
        feature="forward",
        source="Zhang et al. 2019, Fixup (arXiv 1901.09321); threshold measured",
        read=lambda flow: read_whole(flow, measure_stream_growth(flow)),
        trace=trace_growth,
    ),
    Rule(
        name="fading_stream",
        verdict=Verdict.VANISHING,
        metric="gradient of a residual stream's first sum ÷ its last",
        threshold=0.03,
        beyond="<",
        reason="A residual stream passes gradients through unchanged unless something on it "
        "shrinks them at every sum. What lies before it then receives almost none.",
        feature="smallest_gradient",
        source="Xiong et al. 2020 (arXiv 2002.04745); threshold measured",
        read=lambda flow: read_whole(flow, measure_stream_gradient(flow)),
        describe=_describe_fading_stream,
        trace=trace_streams,
        action=_choose_stream_action,
    ),
    Rule(
        name="vanishing_typical",
        verdict=Verdict.VANISHING,
        metric="median ‖∂𝓛/∂W‖ of the layers ÷ error at the output",
        threshold=USABLE_ON_STREAM,
        beyond="<",
        reason="A network with residual connections can train even if some layers receive a small "
        "gradient. But here most layers receive almost none.",
        feature="smallest_gradient",
        source="Veit et al. 2016 (arXiv 1605.06431); threshold measured",
        read=lambda flow: read_whole(flow, measure_typical_gradient(flow)),
        applies=lambda flow: bool(flow.residuals or list_bypassed(flow)),
        describe=_describe_typical,
        trace=trace_way_back,
        action=_choose_typical_action,
        of_gradients=True,
    ),
    Rule(
        name="averaged_away",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="relative variation between examples of what reads a normalization's average",
        threshold=SAME,
        beyond="<",
        reason="What lies between the two takes from every example the same. So it is with an "
        "average over the values that a normalization has just given the mean 0: the average is "
        "the bias, whatever the input.",
        source="follows from what a normalization does: the mean of its values is its bias",
        read=_read_averaged,
        applies=_is_small_before,
        describe=_describe_averaged,
        action="Take the average before the normalization, or put an activation between them, or "
        "use batch normalization there; then measure again.",
    ),
)
"""What can be wrong on residual streams, and between a normalization and an average."""
