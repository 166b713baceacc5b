"""A diagnosis in three sentences: what is wrong, why, and what to do; filled with measured values.

The first table has an entry for kinds of verdicts, the second for single findings. What has no
words of its own is told by the evidence and the reason of the gravest finding.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number, format_part, format_share, format_times
from chainrule.diagnosis.diagnosis import Diagnosis, Finding
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rule import MEANINGS, Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.time_rules import fades_on_the_way, list_lost, word_steps
from chainrule.diagnosis.trial_rules import TRIAL_RULES
from chainrule.diagnosis.tried import describe_open
from chainrule.diagnosis.viability.model import Outlook, describe_probability
from chainrule.display.cards import describe_verdict, start_sentence
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide
from chainrule.remedies.result import Outcome, Remedies, Remedy
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

_NEAR = (0.1, 10.0)
"""A ratio of the first to the last weight gradient between these raises no alarm by itself."""

_TINY = 0.001
"""Below this part of another gradient, one is called almost nothing."""

_USUAL = (0.1, 10.0)
"""An error at the output between these leaves the limits about where they mostly are."""

_UNDERFLOW = 1e-36
"""A gradient that is smaller than this has elements near the end of float32 (1.4·10⁻⁴⁵)."""

_OTHER_SIZE = 1.05
"""From this factor on, weights are said to be larger or smaller than those that suit."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """A diagnosis in three sentences.

    Attributes:
        what: What is wrong, or that nothing is.
        why: Where it comes from.
        do: What to do next.
    """

    what: str
    why: str
    do: str


def explain(flow: GradientFlow, diagnosis: Diagnosis) -> Sentences:
    """Return a diagnosis in three sentences, filled with measured values.

    Args:
        flow: A measurement.
        diagnosis: What it means.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=15, init="xavier"), 2)
        >>> explain(flow, diagnose(flow)).why.split(".")[0]
        'The slope of Sigmoid is at most 0'
    """
    rule = diagnosis.findings[0].rule if diagnosis.findings else ""
    usual = _TABLE.get(diagnosis.verdict, (_tell_evidence, _tell_reason))
    what, why = _TABLE_OF_RULES.get(rule, usual)
    return Sentences(
        what=what(flow, diagnosis) or _tell_evidence(flow, diagnosis),
        why=why(flow, diagnosis) or _tell_reason(flow, diagnosis),
        do=diagnosis.action,
    )


def recommend(remedies: Remedies) -> str:
    """Return what to do, now that changes were measured: the first of them, or where to go on.

    Example:
        >>> from chainrule import NetworkSpec, find_remedies
        >>> recommend(find_remedies(NetworkSpec(depth=15, width=16, activation="relu"), 2))[:28]
        'He (Kaiming) initialization:'
    """
    if remedies:
        best = remedies[0]
        well = best.outcome is Outcome.MEASURES and best.trial_after is None
        came = "every layer then gets a usable gradient" if well else best.outcome_text
        return " ".join((f"{best.title}: {came}.", *_tell_suited(remedies)))
    if remedies.diagnosis.verdict is Verdict.HEALTHY:
        return remedies.diagnosis.action
    count = len(remedies.refuted)
    said = f"{count} changes were measured, and none of them helps."
    if count < 2:
        said = "One change was measured, and it does not help." if count else ""
    return f"{said} {remedies.diagnosis.action}".strip()


def _tell_suited(remedies: Remedies) -> Iterator[str]:
    """Yield why the initialization that the reason names is not advised first, if it is not."""
    spec = remedies.before.spec
    if spec is None:
        return
    suited = {"init": ACTIVATIONS[spec.activation].initialization}
    if INITIALIZERS[suited["init"]].label not in _blame_small(spec) + _blame_large(spec):
        return
    for remedy in (*remedies[1:], *remedies.refuted):
        if dict(remedy.changes) != suited:
            continue
        best, other = (_read_chance(each) for each in (remedies[0], remedy))
        if best is None or other is None:
            yield f"{remedy.title} alone: {remedy.outcome_text}."
        elif remedy.verdict_after is Verdict.HEALTHY:
            yield (
                f"{remedy.title}, which mends the cause, makes the gradients healthy, too, but the "
                f"estimated chance that SGD then trains the network is {other}; with the first "
                f"change it is {best}."
            )
        else:
            yield (
                f"{remedy.title} alone is not enough ({remedy.verdict_after}): the estimated "
                f"chance that SGD then trains the network is {other}; with the first change it is "
                f"{best}."
            )


def _read_chance(remedy: Remedy) -> str | None:
    """Return the estimated chance that plain SGD trains the changed network, in words."""
    sgd = remedy.diagnosis_after.viability.sgd
    known = sgd.probability is not None and sgd.word is not Outlook.UNKNOWN
    return describe_probability(sgd.probability) if known and sgd.probability else None


def explain_limits(flow: GradientFlow) -> str:
    """Return where the limits of a usable gradient come from; "" where the error is unknown.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> explain_limits(simulate(NetworkSpec(depth=3, width=4), 2)).split(":")[0]
        'Gradients are compared with the error at the output'
    """
    error = flow.output_error
    if error is None or not math.isfinite(error):
        return ""
    bounds = [RULES[name].threshold for name in ("vanishing_gradient", "exploding_gradient")]
    low, high = (bound * error for bound in bounds)
    return (
        f"Gradients are compared with the error at the output: it is {format_number(error)} here. "
        f"So the limits are {format_number(bounds[0])} × {format_number(error)} = "
        f"{format_number(low)} and {format_number(bounds[1])} × {format_number(error)} = "
        f"{format_number(high)}."
    )


def explain_band(flow: GradientFlow) -> str:
    """Return why the range where layers learn is not at its usual place; "" where it is.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> explain_band(simulate(NetworkSpec(depth=3, width=4), 2))
        ''
    """
    error = flow.output_error
    if error is None or not 0 < error < math.inf or _USUAL[0] <= error <= _USUAL[1]:
        return ""
    side = "higher" if error > _USUAL[1] else "lower"
    return (
        f"The band “layers learn here” lies {side} than usual. It moves with the error at the "
        f"output, which is {format_number(error)} here and often about 1."
    )


# --- what ------------------------------------------------------------------------------------


def _tell_evidence(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if not diagnosis.findings:
        return start_sentence(MEANINGS[diagnosis.verdict])
    return start_sentence(diagnosis.findings[0].evidence)


def _tell_small(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = diagnosis.findings[0]
    count, norms = len(flow.weight_layers), flow.weight_gradient_norms
    if finding.rule == "vanishing_backward" and flow.spec is not None:
        return _tell_lost_on_the_way(flow)
    if finding.rule != "vanishing_gradient" or count < 2:
        return ""
    layer = finding.layers[0]
    norm, first, last = norms[layer - 1], norms[0], norms[-1]
    if norm is None or first is None or last is None:
        return ""
    if norm == 0.0:
        return f"Layer {layer} gets no gradient at all: it is exactly zero."
    ratio = flow.gradient_ratio
    if ratio is not None and ratio < _NEAR[0]:
        tiny = "almost nothing: " if ratio < _TINY else ""
        return (
            f"The weight gradient of layer 1 is {tiny}{format_part(ratio)} layer {count}'s. "
            f"{start_sentence(describe_verdict(flow, diagnosis))}"
        )
    return (
        f"{start_sentence(describe_verdict(flow, diagnosis))[:-1]}: it is {format_number(norm)} at "
        f"layer {layer}, and a layer needs {format_number(read_usable_range(flow)[0])}."
    )


def _tell_lost_on_the_way(flow: GradientFlow) -> str:
    """Return what is left of δ at layer 1, and whether the weight gradients show it."""
    left, ratio = _measure_product(flow), flow.gradient_ratio
    if left is None:
        return ""
    tiny = "almost nothing: " if left < _TINY else "only "
    text = f"Of δ, the gradient that travels back, layer 1 gets {tiny}{_write_left(left)}."
    if ratio is not None and _NEAR[0] <= ratio <= _NEAR[1]:
        last = len(flow.weight_layers)
        text += f" The weight gradients hide it: layer 1's is {format_part(ratio)} layer {last}'s."
    return text


def _write_left(left: float) -> str:
    """Return what is left of something: a number where it is tiny, else a share."""
    if left < _TINY:
        return format_number(left)
    return f"{100 * left:.2g} %" if left < 0.01 else format_share(left)


def _tell_large(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = diagnosis.findings[0]
    if finding.rule != "exploding_gradient":
        return ""
    norms = {layer.layer: layer.weight_gradient_norm for layer in flow.weight_layers}
    known = {at: norms[at] for at in finding.layers if norms.get(at) is not None}
    if not known:
        return ""
    layer, norm = max(known.items(), key=lambda pair: pair[1] or 0.0)
    high = read_usable_range(flow)[1]
    return (
        f"Layer {layer} gets a weight gradient of {format_number(norm)}, "
        f"{format_times(float(f'{divide(norm or 0.0, high):.2g}'))} the most that a layer can use. "
        "One training step throws its weights far away."
    )


def _tell_dead(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = _find(diagnosis, "dead_units")
    if finding is None:
        return ""
    layer = _find_layer(flow, finding)
    text = f"{format_share(finding.value)} of the units of {layer} are off for every example."
    norms = flow.weight_gradient_norms
    if flow.spec is not None and norms and norms[0] == 0.0:
        text += " In most of these networks, the weight gradient of layer 1 is exactly zero."
    return text


def _tell_saturated(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = _find(diagnosis, "saturated")
    if finding is None:
        return ""
    where = _find_layer(flow, finding)
    return (
        f"{format_share(finding.value)} of the activations of {where} lie where the curve is flat."
    )


def _tell_alike(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = _find(diagnosis, "same_answer")
    if finding is None:
        return ""
    return (
        "Different inputs give almost the same output: the answers differ by "
        f"{RULES[finding.rule].format(finding.value)} of their size."
    )


def _tell_unlikely(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if diagnosis.was_tried:
        return ""
    return (
        "Every layer gets a weight gradient of a usable size, but the network is unlikely to learn."
    )


def _tell_healthy(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    norms = [norm for norm in flow.weight_gradient_norms if norm is not None]
    if len(norms) < 2 or not 0 < min(norms) <= max(norms) < math.inf:
        return ""
    low, high = format_number(min(norms)), format_number(max(norms))
    trial = diagnosis.trial
    is_sure = trial is not None and not describe_open(flow, trial)
    start = "It trains. " if is_sure and _tell_tried(diagnosis) else ""
    return (
        f"{start}Every layer gets a weight gradient that it can learn from: between {low} and "
        f"{high}."
    )


def _tell_tried(diagnosis: Diagnosis) -> str:
    """Return what the best training did to the loss, if one trained; else ""."""
    trial = diagnosis.trial
    best = trial.best if trial is not None and trial.trains else None
    if best is None or best.best is None:
        return ""
    rate = best.best
    return (
        f"Tried: with {best.name} at a learning rate of {format_number(rate.rate)}, the loss fell "
        f"from {format_number(rate.before)} to {format_number(rate.after)} in {rate.steps} steps."
    )


def _tell_origin(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if flow.origin is None:
        return ""
    return flow.origin.cause.replace(f": {flow.origin.code})", ")")  # the line has its own place


def _tell_flat(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    facts = flow.loss_facts
    if facts is None or facts.reaction is None:
        return ""
    changes = "does not change at all" if facts.reaction == 0.0 else "hardly changes"
    return (
        f"The loss is {format_number(flow.loss)}, and it {changes} when the output of the model "
        "changes a little."
    )


def _tell_lost(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    finding = diagnosis.findings[0]
    time = next(
        (each for each in flow.times if each.name in finding.modules and list_lost(each)), None
    )
    if time is None or not fades_on_the_way(flow, finding.modules):
        return ""
    lost = list_lost(time)
    gets = "gets" if len(lost) == 1 else "get"
    return start_sentence(
        f"{word_steps(time, lost)} of {time.length:,} of {time.name!r} {gets} less than a "
        "millionth of the gradient of the best step"
    )


def _tell_failure(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    trial = diagnosis.trial
    best = trial.best if trial is not None else None
    if trial is None or best is None or best.best is None:
        return ""
    names = " and ".join(each.name for each in trial.tried)
    return f"Tried with {names}, and it did not train. At best: {best.best.describe_loss()}."


def _find(diagnosis: Diagnosis, rule: str) -> Finding | None:
    return next((each for each in diagnosis.findings if each.rule == rule), None)


def _find_layer(flow: GradientFlow, finding: Finding) -> str:
    """Return the layer whose value is the worst: its number, or its name in a model of yours."""
    at = next(
        (layer.layer for layer in flow.weight_layers if layer.name == finding.worst),
        finding.layers[0] if finding.layers else None,
    )
    if flow.spec is None and finding.worst:
        return repr(finding.worst)
    return "one layer" if at is None else f"layer {at}"


# --- why -------------------------------------------------------------------------------------


def _tell_reason(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if diagnosis.findings:
        return diagnosis.findings[0].reason
    return ""


def _explain_small(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    product = _tell_product(flow)
    if flow.spec is not None and _compare_weights(flow.spec) == 0.0:
        return "All weights are zero, so nothing passes through them."
    if flow.spec is not None and (lost := _tell_underflow(flow)):
        return " ".join(filter(None, (_blame_small(flow.spec), lost)))
    if flow.spec is None or not product or not _shrinks(flow):
        return ""
    return " ".join(filter(None, (_blame_small(flow.spec), product, _tell_hidden(flow))))


def _explain_large(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    product = _tell_product(flow)
    if flow.spec is None or not product or _shrinks(flow):
        return ""
    return " ".join(filter(None, (_blame_large(flow.spec), product)))


def _explain_dead(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if flow.spec is None:
        return ""
    label = ACTIVATIONS[flow.spec.activation].label
    return (
        f"A unit that is off passes no gradient back: the slope of {label} is 0 there. Where a "
        f"whole layer is off, no layer before it can learn.{_explain_behind(flow, diagnosis)}"
    )


def _explain_behind(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    """Return why the layers after a dead one get no weight gradient either; "" where they do."""
    finding = _find(diagnosis, "dead_units")
    off = next(
        (each for each in flow.weight_layers if finding and each.name == finding.worst), None
    )
    if off is None or off.output is None:
        return ""
    if any(end is None or float(end) != 0.0 for end in (off.output.min, off.output.max)):
        return ""
    after = flow.weight_gradient_norms[off.layer :]
    if not after or any(norm is None or float(norm) != 0.0 for norm in after):
        return ""
    return (
        " Only zeros come out of it. They are the inputs of the layers after it, so the weight "
        "gradients there are zero, too."
    )


def _explain_origin(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if flow.origin is None:
        return ""
    spread = "" if flow.origin.is_harmless else " At the first step it spreads to these weights."
    return f"{flow.origin.evidence} {flow.origin.reach}{spread}".strip()


def _explain_flat(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    return (
        "Where the loss is flat, no gradient goes back, whatever the layers do. Typical causes: a "
        "clamp or a sigmoid at its end, targets for which the loss is constant, a detached part."
    )


def _explain_lost(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if not fades_on_the_way(flow, diagnosis.findings[0].modules):
        return ""
    return (
        "On the way back through time, every step multiplies the gradient by a factor below 1. "
        "What these steps hold cannot be learned."
    )


def _explain_grown(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    return (
        "On the way back through time, every step multiplies the gradient by the same recurrent "
        "weights, and here they are too large. The steps long ago decide the whole gradient."
    )


def _explain_healthy(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    if tried := _tell_tried(diagnosis):
        return tried
    product = _tell_product(flow)
    if flow.spec is None or not product:
        return "No measured value is beyond its limit."
    around = "The residual connections carry δ around the layers."
    carried = "" if flow.spec.residual == "none" else around
    return " ".join(filter(None, (carried, product, _tell_both(flow))))


def _tell_both(flow: GradientFlow) -> str:
    """Return why the weight gradient and δ differ from end to end, where one grows and one not."""
    ratio, product = flow.gradient_ratio, _measure_product(flow)
    if ratio is None or product is None or (ratio < 1.0) == (product < 1.0):
        return ""
    count = len(flow.weight_layers)
    return (
        "A weight gradient is δ times what came forward, so it differs: layer 1's is "
        f"{format_part(ratio)} layer {count}'s."
    )


def _measure_product(flow: GradientFlow) -> Quantity | None:
    """Return ‖δ‖ at layer 1 ÷ ‖δ‖ at the last layer, in each network; `None` if there is none."""
    ratio = flow.delta_ratio
    if len(flow.delta_norms) < 2 or ratio is None or not 0 < ratio < math.inf:
        return None
    return ratio


def measure_step(flow: GradientFlow) -> Quantity | None:
    """Return what one layer multiplies ‖δ‖ by on the way back; `None` where that is undefined.

    It is the geometric mean over the steps between layers, worked out in each network.

    Args:
        flow: A measurement of at least two layers.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> measure_step(flow) == Quantity(ratio**0.5 for ratio in flow.delta_ratio.values)
        True
    """
    ratio, steps = flow.delta_ratio, len(flow.delta_norms) - 1
    return None if ratio is None or not steps else Quantity(v ** (1 / steps) for v in ratio.values)


def _shrinks(flow: GradientFlow) -> bool:
    product = _measure_product(flow)
    return product is not None and product < 1.0


def _tell_product(flow: GradientFlow) -> str:
    """Return what a layer multiplies the gradient by, and what comes of all of them."""
    ratio, factor = _measure_product(flow), measure_step(flow)
    if ratio is None:
        return ""
    last = len(flow.delta_norms)
    start = (
        f"Each layer multiplies δ, the gradient that travels back, by about {format_number(factor)}"
    )
    these = "The step" if last == 2 else f"The {last - 1} steps"
    these += f" from layer {last} to layer 1"
    if ratio < 1.0:
        result = f"{'leaves' if last == 2 else 'leave'} about {_write_left(ratio)} of δ"
    else:
        times = format_times(float(f"{ratio:.2g}"))
        result = f"{'makes' if last == 2 else 'make'} δ {times} as large"
    return f"{start}. {these} {result}."


def _tell_underflow(flow: GradientFlow) -> str:
    """Return where δ becomes too small to be a number at all; "" if it does not."""
    norms = [float(norm or 0.0) for norm in flow.delta_norms]
    last = next((at for at, norm in enumerate(norms) if norm > 0.0), 0)  # it still has some
    types = {each.dtype for each in flow.parameters}
    if not 0 < last < len(norms) - 1 or norms[last] > _UNDERFLOW or types != {"float32"}:
        return ""
    factor = (norms[last] / norms[-1]) ** (1 / (len(norms) - 1 - last))
    return (
        "Each layer multiplies δ, the gradient that travels back, by about "
        f"{format_number(factor)}. Before layer {last + 1} it is smaller than the smallest number "
        "that float32 can hold, so it becomes exactly zero."
    )


def _blame_small(spec: NetworkSpec) -> str:
    activation = ACTIVATIONS[spec.activation]
    if activation.derivative_max < 1.0:
        return f"The slope of {activation.label} is at most {activation.derivative_max:g}."
    suited = INITIALIZERS[activation.initialization]
    size = _compare_weights(spec)
    if spec.normalization == "none" and size * _OTHER_SIZE < 1.0:
        return (
            f"The weights are too small for {activation.label}: {suited.label} initialization "
            f"draws them {1 / size:.2g} times as large."
        )
    return ""


def _blame_large(spec: NetworkSpec) -> str:
    activation = ACTIVATIONS[spec.activation]
    size = _compare_weights(spec)
    if spec.normalization != "none" or size < _OTHER_SIZE:
        return ""
    return (
        f"The weights are {size:.2g} times as large as {activation.label} needs them "
        f"({INITIALIZERS[activation.initialization].label} initialization)."
    )


def _compare_weights(spec: NetworkSpec) -> float:
    """Return the standard deviation of a weight ÷ that of the initialization that suits."""
    suited = INITIALIZERS[ACTIVATIONS[spec.activation].initialization]
    now = INITIALIZERS[spec.init].standard_deviation(spec.width, spec.width, spec.weight_std)
    return now / suited.standard_deviation(spec.width, spec.width)


def _tell_hidden(flow: GradientFlow) -> str:
    """Return why the ratio of the first to the last layer's gradient shows nothing, if so."""
    ratio = flow.gradient_ratio
    if ratio is None or not _NEAR[0] <= ratio <= _NEAR[1]:
        return ""
    return (
        "On the way forward the values shrink, too, and a weight gradient is the product of both."
    )


_Tell = Callable[[GradientFlow, Diagnosis], str]

_TABLE: Mapping[Verdict, tuple[_Tell, _Tell]] = MappingProxyType(
    {
        Verdict.VANISHING: (_tell_small, _explain_small),
        Verdict.EXPLODING: (_tell_large, _explain_large),
        Verdict.DEAD_UNITS: (_tell_dead, _explain_dead),
        Verdict.SATURATED: (_tell_saturated, _tell_reason),
        Verdict.SIGNAL_COLLAPSE: (_tell_alike, _tell_reason),
        Verdict.HARD_TO_TRAIN: (_tell_unlikely, _tell_reason),
        Verdict.HEALTHY: (_tell_healthy, _explain_healthy),
    }
)
"""Who says what is wrong and why, by verdict; "" leaves it to the gravest finding."""

_TABLE_OF_RULES: Mapping[str, tuple[_Tell, _Tell]] = MappingProxyType(
    {
        "non_finite": (_tell_origin, _explain_origin),
        "flat_loss": (_tell_flat, _explain_flat),
        "vanishing_time": (_tell_lost, _explain_lost),
        "unheard_steps": (_tell_evidence, _explain_lost),
        "untold_steps": (_tell_evidence, _tell_reason),
        "exploding_time": (_tell_evidence, _explain_grown),
        **{rule.name: (_tell_failure, _tell_reason) for rule in TRIAL_RULES},
    }
)
"""The same for findings that are no matter of layers alone, by rule."""
