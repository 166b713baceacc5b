"""The table of rules: what can be wrong, how it is measured, its limit, and why it matters.

Everything about a rule is in its entry of the table, and in the function of this file that it
reads with. So a rule is added or changed in one place. `diagnose` goes through the table.

The thresholds were chosen on dense networks by comparing with short real trainings; how often
verdicts agree with training is in docs/viability.md (`make viability`). A verdict therefore speaks
of plain SGD: Adam, which rescales gradients, trains some networks that are called vanishing or
exploding here.

No verdict moves with the scale of the loss, which a learning rate can undo, nor with batch size:
gradients are compared with the error at the output (`GradientFlow.output_error`, about 1 for a
cross-entropy at initialization), or with each other. The one exception is `below_epsilon`: no
learning rate makes up for the ε that Adam adds to a gradient.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.comparison import compare_deltas
from chainrule.diagnosis.evidence import (
    FLAT_SHARE,
    LARGEST_STEP,
    asks_the_same,
    is_nearly_large,
    is_nearly_small,
    is_small,
    is_soon_undone,
    list_saturable,
    read_chain,
    read_gradients,
)
from chainrule.diagnosis.factors import (
    trace_chain,
    trace_dead_units,
    trace_differences,
    trace_normalizations,
    trace_overflow,
    trace_saturation,
    trace_spreads,
    trace_way_back,
)
from chainrule.diagnosis.input_rules import INPUT_RULES, list_constant
from chainrule.diagnosis.loss_rules import LOSS_RULES
from chainrule.diagnosis.optimizer_rules import OPTIMIZER_RULES, OVERSHOOTS
from chainrule.diagnosis.overflow import count_non_finite, locate_overflow
from chainrule.diagnosis.precision_rules import PRECISION_RULES
from chainrule.diagnosis.reach import describe_unreached, read_unreached
from chainrule.diagnosis.reasons import STARVED, explain_fading, explain_starved
from chainrule.diagnosis.rule import (
    Reading,
    Rule,
    Verdict,
    describe_bound,
    describe_worst,
    find_worst,
    read_layers,
    read_whole,
)
from chainrule.diagnosis.slip_rules import SLIP_RULES
from chainrule.diagnosis.stream_rules import STREAM_RULES
from chainrule.diagnosis.structure import (
    DISTINCT,
    USABLE_IN_CHAIN,
    drop_explained,
    find_last_dependent,
    find_small_head,
    find_tied_head,
    has_small_layer,
    is_loss_flat,
    list_branch_layers,
    list_branch_normalizations,
    list_chain,
    list_judged,
    list_normalizations,
    measure_stream_gradient,
)
from chainrule.diagnosis.symmetry_rules import SYMMETRY_RULES
from chainrule.diagnosis.time_rules import (
    TIME_RULES,
    find_faded,
    find_variation_in_time,
)
from chainrule.diagnosis.trial_rules import TRIAL_RULES
from chainrule.diagnosis.viability.features import RESOLUTION
from chainrule.diagnosis.viability.model import (
    NOT_VIABLE,
    estimate_like_networks,
    is_fitted_kind,
)
from chainrule.diagnosis.zero_rules import ZERO_RULES
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members, multiply_members
from chainrule.flow.records import WeightLayer, read_saturation

# --- What rules read -----------------------------------------------------------------------------


def _list_compared(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the layers between whose ends δ is compared: no zeros explain their gradient."""
    layers = drop_explained(flow, list_judged(flow))
    if layers and (head := find_small_head(flow)) is not None and layers[-1].layer == head[0]:
        layers = layers[:-1]
    return layers


def _read_backward(flow: GradientFlow) -> list[Reading]:
    """Return ‖δ‖ at the first layer of the chain ÷ at its last, summed over positions."""
    ratio = compare_deltas(flow, _list_compared(flow))
    return [] if ratio is None else read_whole(flow, ratio)


def _read_backward_as_is(flow: GradientFlow) -> list[Reading]:
    """Return ‖δ‖ at the first layer of the chain ÷ at its last.

    The sum over P positions is at most √P · ‖δ‖, when all agree. What may be that large is not
    vanishing; what is called exploding must be so without it.
    """
    layers = _list_compared(flow)
    if len(layers) < 2 or layers[0].delta_norm is None or layers[-1].delta_norm is None:
        return []
    return read_whole(flow, divide_members(layers[0].delta_norm, layers[-1].delta_norm))


def _read_fading(flow: GradientFlow) -> list[Reading]:
    """Return the spread of the last layer's values that depend on the input ÷ the first's.

    Of the first's, 1 counts at most. What is larger comes of large inputs, or of frequencies in the
    weights (a sine network, Fourier features), and a bounded function brings it to 1 at once:
    nothing of it fades on the way.
    """
    end = find_last_dependent(flow)
    layers = [x for x in list_judged(flow) if end and x.layer <= end.layer]
    if len(layers) < 2:
        return []
    first, last = layers[0].std, layers[-1].std
    if first is None or last is None or first == 0.0 or _has_one_value(flow, layers[-1]):
        return []
    most = Quantity(1.0 if value > 1.0 else value for value in first.values)
    return read_whole(flow, last / most)


def _is_fading_evident(flow: GradientFlow) -> bool:
    """Whether small values count as evidence in a chain.

    A mean over positions, or gates that start half open, make the last values small, too. Where
    they still differ between the examples, no layer's gradient comes near its bound, and no layer
    is small itself, nothing keeps the network from learning. Measured: 3 of 3 recurrent networks
    whose weights start at a tenth of their usual size did not train with plain SGD, and their
    gradients alone do not show it.
    """
    if not list_chain(flow):
        return False
    values = [each.value for each in _read_variation(flow) if each.value is not None]
    same = min(values, default=1.0) < RULES["same_answer"].threshold and _is_evident(flow)
    return flow.spec is not None or is_nearly_small(flow) or same or has_small_layer(flow)


def _has_one_value(flow: GradientFlow, layer: WeightLayer) -> bool:
    """Whether a layer's output is a single number, which has no spread: one example, one unit."""
    shapes = [call.shape for call in flow.layers if call.layer == layer.layer]
    return bool(shapes) and all(math.prod(shape) == 1 for shape in shapes)


def _read_distinct(layer: WeightLayer) -> float | None:
    """Return how differently a layer answers the examples, before its activation or after.

    A sigmoid or a softmax at the end adds the same to every answer (one half, for example), and
    what is relative to that says nothing of the differences that a loss sees.
    """
    parts = (layer.pre_activation, layer.activation)
    found = [part.variation for part in parts if part and part.variation is not None]
    return max(found, default=None)


def _read_dead(flow: GradientFlow) -> list[Reading]:
    """Return the share of dead units of layers without a path around them."""
    inside = list_branch_layers(flow)
    layers = [layer for layer in flow.weight_layers if layer.layer not in inside]
    return read_layers(layers, lambda layer: layer.dead_share)


def _read_variation(flow: GradientFlow) -> list[Reading]:
    """Return how differently the last layer answers the examples, or the head that is tied."""
    head = find_tied_head(flow)
    if head is None:
        last = find_last_dependent(flow)
        in_time = find_variation_in_time(flow)
        at_end = flow.spec is None and last is not None and last is flow.weight_layers[-1]
        measure = _read_distinct if at_end else lambda layer: layer.variation

        def read(layer: WeightLayer) -> float | None:
            found = measure(layer)
            return found if found is None or in_time is None else max(found, in_time)

        return read_layers([] if last is None else [last], read)
    return [
        Reading(
            value=head.statistics.variation if head.statistics else None,
            layers=() if head.layer is None else (head.layer,),
            modules=(head.name,),
            where=f"{head.label!r}, the last layer",
        )
    ]


def _read_passed_on(flow: GradientFlow) -> list[Reading]:
    """Return how differently any weight layer at all answers the examples."""
    found = [
        float(value)
        for layer in flow.weight_layers
        for part in (layer.pre_activation, layer.activation)
        if part is not None and (value := part.variation) is not None
    ]
    return read_whole(flow, max(found)) if found else []


def _is_closed(flow: GradientFlow) -> bool:
    """Whether what reads the input receives no gradient either, though the inputs differ.

    If it receives one, the first step lets the input in: so a single layer of zeros learns. On a
    residual stream of zeros the first and the last layer do, one after the other, and the rest
    follows (measured: 3 of 3 trained), but not where positions meet in attention alone (0 of 6).
    """
    layers = flow.weight_layers
    repeated = [each.repeated >= 1.0 - 1.0 / each.examples for each in flow.inputs]
    return (
        len(layers) > 1
        and layers[0].weight_gradient_norm == 0.0
        and not (repeated and all(repeated))
        and bool(flow.attentions or not flow.residuals)
        and not is_loss_flat(flow)
    )


def _read_normalizations(flow: GradientFlow) -> list[Reading]:
    """Return the spread behind normalizations that everything has to pass.

    One on a residual branch is left out: what it starves is what that branch adds. So is one that a
    later normalization makes up for.
    """
    places = list_normalizations(flow)
    ignored = list_branch_normalizations(flow) if flow.residuals else frozenset()
    bound = RULES["starved_normalization"].threshold
    last = max((at for at, place in enumerate(places) if place.value >= bound), default=-1)
    places = tuple(
        place
        for at, place in enumerate(places)
        if place.module not in ignored and (at > last or place.value >= bound)
    )
    return [
        Reading(
            value=place.value,
            layers=() if place.layer is None else (place.layer,),
            modules=(place.name,),
            where=repr(place.name),
        )
        for place in places
    ]


def _read_non_finite(flow: GradientFlow) -> list[Reading]:
    if flow.has_finite_gradients:  # what stops before it reaches a parameter is a note
        return [Reading(value=0.0)]
    total, places, layers = count_non_finite(flow)
    return [Reading(value=total, layers=tuple(layers), modules=tuple(places))]


def _read_unreached(flow: GradientFlow) -> list[Reading]:
    found = read_unreached(flow)
    return [Reading(value=len(found.names), layers=found.layers, modules=found.names)]


def _is_evident(flow: GradientFlow) -> bool:
    """Whether nearly equal answers count as evidence in a network.

    Where they still differ by more than a ten-thousandth, biases often are what they have in
    common, and most networks learn to differ. So there some gradient must come near its bound, too:
    of a layer, of a residual stream, or of a time step where no gate can open the way to it. Or the
    loss asks the same of all answers.
    """
    if flow.spec is not None:
        return True
    values = [each.value for each in _read_variation(flow) if each.value is not None]
    least = min(values, default=1.0)
    faded, stream = find_faded(flow), measure_stream_gradient(flow)
    return (
        least < _CLEARLY_SAME
        or is_nearly_small(flow)
        or asks_the_same(flow)
        or (faded is not None and faded < 10 * USABLE_IN_CHAIN)
        or (stream is not None and stream < 10 * RULES["fading_stream"].threshold)
    )


_CLEARLY_SAME = 1e-4


def _count_measured(flow: GradientFlow) -> int:
    return sum(parameter.status == "measured" for parameter in flow.parameters)


# --- How findings are worded ---------------------------------------------------------------------


def _describe_gradient(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    norms = {layer.layer: layer.weight_gradient_norm for layer in flow.weight_layers}
    return (
        f"‖∂𝓛/∂W‖ is {format_number(norms[worst.layers[0]])} at {worst.where}; "
        f"divided by the error at the output, it is {rule.format(value)} "
        f"({describe_bound(rule, readings, wrong)})"
    )


def _describe_non_finite(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    if flow.origin is not None and not flow.origin.is_harmless:
        sentence = flow.origin.sentence.removesuffix(".")
        return f"{sentence[0].lower()}{sentence[1:]}"
    loss = f"the loss is {format_number(flow.loss)}"
    places = len(wrong[0].modules)
    if not places:
        return f"{loss}, though all values and gradients are finite: it is the loss itself"
    where = f": {start}" if (start := locate_overflow(flow)) else ""
    return f"{rule.metric} occur in {places} place{'' if places == 1 else 's'}{where}; {loss}"


def _describe_unreached(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    return describe_unreached(read_unreached(flow))


def _describe_nothing(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    if not flow.parameters:
        return "the model has no parameters"
    return f"the loss depends on none of {len(flow.parameters)} parameters"


def _describe_unlikely(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst = estimate_like_networks(flow).contributions[0]
    return f"{describe_worst(rule, flow, readings, wrong)}. {worst.words.removesuffix('.')}"


# --- The table -----------------------------------------------------------------------------------

_RULES = (
    Rule(
        name="non_finite",
        verdict=Verdict.NON_FINITE,
        metric="infinite or undefined numbers",
        threshold=0,
        beyond=">",
        reason="One infinite or undefined number spreads to every weight at the first update.",
        feature="non_finite",
        source="IEEE 754 arithmetic",
        read=_read_non_finite,
        describe=_describe_non_finite,
        trace=trace_overflow,
        scale="count",
        despite_overflow=True,
    ),
    Rule(
        name="unreached",
        verdict=Verdict.NO_GRADIENT,
        metric="number of weights that the loss does not depend on",
        threshold=0,
        beyond=">",
        reason="No path leads from the loss to these weights, so training cannot change them.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
        read=_read_unreached,
        applies=lambda flow: _count_measured(flow) > 0 and read_unreached(flow).cut,
        describe=_describe_unreached,
        scale="count",
        despite_overflow=True,
        ignored_by_remedies=True,
    ),
    Rule(
        name="nothing_to_train",
        verdict=Verdict.NO_GRADIENT,
        metric="parameters that the loss depends on",
        threshold=1,
        beyond="<",
        reason="Nothing that was measured can be trained.",
        feature="no_gradient",
        source="reverse-mode differentiation: no path in the graph, no derivative",
        read=lambda flow: [Reading(value=_count_measured(flow))],
        describe=_describe_nothing,
        scale="count",
        despite_overflow=True,
    ),
    Rule(
        name="dead_units",
        verdict=Verdict.DEAD_UNITS,
        metric="share of units that are off for every example",
        threshold=0.7,
        beyond=">",
        reason="A dead unit has a derivative of zero for every example, so no gradient passes "
        "through it or reaches its weights. No step on this batch can bring it back.",
        feature="dead_units",
        source="Lu et al. 2019 (arXiv 1903.06733); threshold measured",
        read=_read_dead,
        trace=trace_dead_units,
        harmful="<",
        scale="share",
        of_layers=True,
    ),
    Rule(
        name="exploding_gradient",
        verdict=Verdict.EXPLODING,
        metric="‖∂𝓛/∂W‖ ÷ error at the output",
        threshold=LARGEST_STEP,
        beyond=">",
        reason="With a gradient this large, one step changes the weights far too much. A learning "
        "rate small enough to prevent that is too small for the other layers.",
        feature="largest_gradient",
        source="Pascanu et al. 2013 (arXiv 1211.5063); threshold measured",
        read=lambda flow: read_gradients(flow, flow.weight_layers),
        describe=_describe_gradient,
        trace=trace_way_back,
        of_layers=True,
        clipped=True,
        of_gradients=True,
    ),
    *STREAM_RULES,
    Rule(
        name="exploding_backward",
        verdict=Verdict.EXPLODING,
        metric="‖δ‖ at layer 1 ÷ ‖δ‖ at the last layer",
        threshold=1000.0,
        beyond=">",
        reason="On the way back, the factors multiply to far more than 1. So one step changes "
        "the early layers a lot and the late layers hardly at all.",
        feature="sensitivity",
        source="Hochreiter 1991; threshold measured",
        read=_read_backward_as_is,
        applies=is_nearly_large,
        trace=trace_chain,
    ),
    Rule(
        name="vanishing_gradient",
        verdict=Verdict.VANISHING,
        metric="‖∂𝓛/∂W‖ ÷ error at the output",
        threshold=USABLE_IN_CHAIN,
        beyond="<",
        reason="With a gradient this small, the weights hardly change at any usual learning rate.",
        feature="smallest_gradient",
        source="Bengio et al. 1994; threshold measured",
        read=read_chain,
        applies=lambda flow: bool(list_chain(flow)),
        describe=_describe_gradient,
        trace=trace_chain,
        of_layers=True,
        clipped=True,
        of_gradients=True,
    ),
    Rule(
        name="vanishing_backward",
        verdict=Verdict.VANISHING,
        metric="‖δ‖ at layer 1 ÷ ‖δ‖ at the last layer",
        threshold=0.01,
        beyond="<",
        reason="On the way back, the factors multiply to almost zero, so the error signal does "
        "not reach the early layers.",
        feature="smallest_gradient",
        source="Hochreiter 1991; threshold measured",
        read=_read_backward,
        applies=is_small,
        trace=trace_chain,
    ),
    Rule(
        name="saturated",
        verdict=Verdict.SATURATED,
        metric="share of saturated activations",
        threshold=FLAT_SHARE,
        beyond=">",
        reason="Where an activation function is flat, its derivative is near zero, so almost no "
        "gradient passes through it.",
        feature="saturation",
        source="Glorot & Bengio 2010, section 3; threshold measured",
        read=lambda flow: read_layers(list_saturable(flow), read_saturation),
        trace=trace_saturation,
        harmful="<",
        scale="share",
        of_layers=True,
    ),
    Rule(
        name="starved_normalization",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="spread of a normalization's output before its scale",
        threshold=STARVED,
        beyond="<",
        reason="The values that reach this normalization are so small that its constant ε is "
        "larger than their variance. So it cannot scale them up to a standard deviation of 1.",
        source="Ba et al. 2016 (arXiv 1607.06450), section 3; threshold measured",
        read=_read_normalizations,
        applies=lambda flow: not list_chain(flow) or is_nearly_small(flow),
        explain=explain_starved,
        trace=trace_normalizations,
    ),
    Rule(
        name="same_answer",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="relative variation between examples",
        threshold=DISTINCT,
        beyond="<",
        reason="Different inputs give outputs that differ by less than a hundredth of their "
        "size, so the loss hardly shows the network which change suits which input.",
        feature="variation",
        source="Schoenholz et al. 2017 (arXiv 1611.01232); threshold measured",
        read=_read_variation,
        applies=_is_evident,
        trace=trace_differences,
        resolution=RESOLUTION,
    ),
    Rule(
        name="nothing_passed_on",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="largest relative variation between examples of any weight layer",
        threshold=RESOLUTION,
        beyond="<",
        reason="Not one layer answers two inputs differently, and the first, which could let the "
        "input in, receives no gradient. A zero-initialized layer is fine where the layers before "
        "it are not zero as well.",
        source="Goodfellow et al. 2016, Deep Learning, section 8.4; measured: docs/truth.md",
        read=_read_passed_on,
        applies=_is_closed,
        resolution=RESOLUTION,
    ),
    Rule(
        name="fading_signal",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="spread of the last layer's values ÷ first layer's (1 at most)",
        threshold=0.01,
        beyond="<",
        reason="The values shrink from layer to layer until almost nothing of the input is left.",
        feature="forward",
        source="He et al. 2015 (arXiv 1502.01852), section 2.2; threshold measured",
        read=_read_fading,
        applies=_is_fading_evident,
        explain=explain_fading,
        trace=trace_spreads,
    ),
    Rule(
        name="unlikely",
        verdict=Verdict.HARD_TO_TRAIN,
        metric="share of dense networks with such values that plain SGD trained within 300 steps",
        threshold=NOT_VIABLE,
        beyond="<",
        reason="No single value is beyond its limit. But dense networks with values like these "
        "seldom learned when they were really trained.",
        source="fitted on real trainings, docs/viability.md; Schoenholz et al. 2017 (arXiv "
        "1611.01232) on depth and the growth of small differences",
        read=lambda flow: read_whole(flow, estimate_like_networks(flow).probability),
        applies=is_fitted_kind,
        describe=_describe_unlikely,
        scale="share",
        last=True,
    ),
)


def _silence_without_error(rule: Rule) -> Rule:
    """Return a rule that does not count where the loss is flat, if it compares with the error.

    Everything is small or large relative to an error that vanished: one cause, one finding.
    """
    if rule.verdict not in (Verdict.VANISHING, Verdict.EXPLODING):
        return rule
    return replace(rule, applies=lambda flow: not is_loss_flat(flow) and rule.applies(flow))


_EFFECTS = (
    "outlying_examples",
    "offset_inputs",
    "uneven_inputs",
    "dead_units",
    "exploding_gradient",
    "exploding_backward",
    "large_loss",
    "vanishing_gradient",
    "vanishing_backward",
    "saturated",
    "same_answer",
)
"""Rules that find what large inputs do, or what else is wrong with them."""


def _add_evidence(rule: Rule) -> Rule:
    """Return a rule that finds a cause only where something comes of it, and is a note elsewhere.

    A large loss that a few steps undo is none. Nor are large inputs, by themselves, at a learning
    rate that suits them. Measured: of 24 networks whose inputs were bytes, or had a standard
    deviation of 100 or 1,000, Adam trained all, and plain SGD all but one, whose gradient explodes.
    """
    if rule.name == "large_loss":
        return replace(rule, applies=lambda flow: not is_soon_undone(flow))
    if rule.name == "constant_inputs":
        same = ("same_answer", "nothing_passed_on")
        return replace(
            rule,
            applies=lambda flow: (
                bool(list_constant(flow)) and any(RULES[name].finds(flow) for name in same)
            ),
        )
    if rule.name == "large_inputs":
        return replace(rule, applies=lambda flow: any(RULES[name].finds(flow) for name in _EFFECTS))
    return rule


_TABLE = sorted(
    (
        *map(_silence_without_error, (*_RULES, *TIME_RULES)),
        *map(_add_evidence, (*LOSS_RULES, *INPUT_RULES)),
        *PRECISION_RULES,
        *SLIP_RULES,
        *SYMMETRY_RULES,
        *ZERO_RULES,
        *OPTIMIZER_RULES,
        OVERSHOOTS,
        *TRIAL_RULES,
    ),
    key=lambda rule: list(Verdict).index(rule.verdict),
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _TABLE})
"""Every rule by name, in the order of the verdicts."""

IGNORED_BY_REMEDIES = tuple(name for name, rule in RULES.items() if rule.ignored_by_remedies)
"""Rules that changes of weights are judged without."""


def measure_metric(
    flow: GradientFlow, rule: str, *, clipped: bool = False, rules: Mapping[str, Rule] = RULES
) -> float | None:
    """Return the worst value of the metric that a rule compares, beyond its bound or not.

    Where the rule finds something, it is that finding's value; elsewhere it shows how far the
    network is from it. So one metric can be followed from one network to another.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        rule: Name of a rule of the table.
        clipped: Whether to read gradients as they are after `flow.spec.clip_norm`.
        rules: The table.

    Returns:
        The metric, or `None` if the network has none (a single layer has no ratio of layers);
        undefined where one of its values is.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> measure_metric(simulate(NetworkSpec(depth=3), 1), "nothing_to_train")
        6.0
    """
    entry = rules[rule]
    values = [each.value for each in entry.read(flow) if each.value is not None]
    factor = flow.clip_factor if clipped and entry.clipped else None
    if factor is not None:
        values = [
            multiply_members(value, factor) if isinstance(value, Quantity) else value * factor
            for value in values
        ]
    if any(map(math.isnan, values)):
        return math.nan
    pick = max if entry.beyond == ">" else min
    return float(pick(values)) if values else None
