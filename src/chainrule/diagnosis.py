"""`diagnose`: from the numbers of a flow to a verdict in words, with its evidence."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chainrule.activations import ACTIVATIONS
from chainrule.diagnoses import ACTIONS, RULES, Rule, Verdict
from chainrule.flow import GradientFlow
from chainrule.initializers import get_initializer
from chainrule.measurement import WeightLayer
from chainrule.notes import Note, list_notes
from chainrule.numerals import format_number
from chainrule.overflow import locate_overflow
from chainrule.quantity import Quantity, multiply_members
from chainrule.structure import PLACES, RATIOS, find_tied_head
from chainrule.viability import Viability, assess_viability


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, with its evidence.

    Attributes:
        rule: Name of the rule in the table of diagnoses.
        verdict: What it amounts to.
        layers: Numbers of the weight layers concerned, input to output.
        modules: Names of the modules or parameters concerned.
        figure: What was measured, in words.
        value: The worst figure that was measured.
        threshold: The bound that it is beyond.
        beyond: ">" or "<": on which side of the bound it is.
        evidence: The measurement in one sentence.
        reason: Why it matters, in plain language.
        source: Where reason or threshold come from.
    """

    rule: str
    verdict: Verdict
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    figure: str
    value: float
    threshold: float
    beyond: str
    evidence: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a measurement means.

    Attributes:
        verdict: The gravest finding's verdict, or healthy.
        findings: Everything that is wrong, the gravest first.
        summary: One sentence.
        action: What to do next.
        viability: How likely SGD and Adam are to train the network, each with its reasons.
        notes: What attention and residual connections do, where it leaves the verdict as it is.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    summary: str
    action: str
    viability: Viability
    notes: tuple[Note, ...] = ()


def diagnose(flow: GradientFlow) -> Diagnosis:
    """Return the verdict on a measurement, every finding with its evidence, and what to do next.

    It looks at absolute gradients (too small and too large), at what reaches the first layer, at
    the forward signal, at saturation and at dead units; never at the gradient ratio alone, which
    hides a shrinkage that is the same in both directions. An ensemble is judged by its medians.

    Args:
        flow: A measurement by `inspect` or `simulate`.
    """
    order = list(Verdict)
    findings = sorted(_find(flow), key=lambda finding: order.index(finding.verdict))
    verdict = findings[0].verdict if findings else Verdict.HEALTHY
    return Diagnosis(
        verdict=verdict,
        findings=tuple(findings),
        summary=_summarize(flow, findings),
        action=ACTIONS[verdict].format(change=_suggest_change(flow)),
        viability=assess_viability(flow),
        notes=list_notes(flow),
    )


def _find(flow: GradientFlow) -> Iterator[Finding]:
    yield from _find_non_finite(flow)
    yield from _find_unreached(flow)
    if any(finding for finding in _find_non_finite(flow)):
        return  # every further figure is made of undefined numbers
    layers = flow.weight_layers
    yield from _find_layers(RULES["dead_units"], layers)
    yield from _find_layers(RULES["exploding_gradient"], layers)
    if flow.residuals:
        for name in RATIOS:
            yield from _find_ratio(RULES[name], flow)
    else:
        yield from _find_along_chain(flow)
    for name in PLACES:
        yield from _find_places(RULES[name], flow)
    yield from _find_layers(RULES["saturated"], layers)
    yield from _find_same_answer(RULES["same_answer"], flow)
    if not flow.residuals:
        yield from _find_ratio(RULES["fading_signal"], flow)


def _find_along_chain(flow: GradientFlow) -> Iterator[Finding]:
    """What a network without paths around its layers must pass on at every layer."""
    layers = flow.weight_layers
    if _is_near(layers, RULES["exploding_gradient"]):
        yield from _find_ratio(RULES["exploding_backward"], flow)
    yield from _find_layers(RULES["vanishing_gradient"], layers)
    if _is_near(layers, RULES["vanishing_gradient"]):
        yield from _find_ratio(RULES["vanishing_backward"], flow)


def measure_figure(flow: GradientFlow, rule: str, *, clipped: bool = False) -> float | None:
    """Return the worst value of the figure that a rule compares, beyond its bound or not.

    Where the rule finds something, it is that finding's value; elsewhere it tells how far the
    network is from it. So one figure can be followed from one network to another.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        rule: Name of a rule of the table of diagnoses.
        clipped: Whether to read gradients as they are after `flow.spec.clip_norm`.

    Returns:
        The figure, or `None` if the network has none (a single layer has no ratio of layers).
    """
    if rule in _COUNTS:
        return _COUNTS[rule](flow)
    if rule in _RATIOS:
        return _RATIOS[rule](flow)
    if rule in PLACES:
        values = [place.value for place in PLACES[rule](flow)]
        return (max if RULES[rule].beyond == ">" else min)(values) if values else None
    if rule == "same_answer" and (head := find_tied_head(flow)) is not None:
        return head.statistics.variation if head.statistics else None
    factor = flow.clip_factor if clipped and rule in _CLIPPED else None
    values = []
    for layer in flow.weight_layers[-1:] if rule == "same_answer" else flow.weight_layers:
        value = _READERS[rule](layer)
        if value is not None and factor is not None:
            value = multiply_members(value, factor)
        if value is not None:
            values.append(value)
    if any(map(math.isnan, values)):
        return math.nan
    pick = max if RULES[rule].beyond == ">" else min
    return float(pick(values)) if values else None


def read_saturation(layer: WeightLayer) -> Quantity | None:
    """Return saturation where it means something: for activations that are flat on both sides."""
    entry = _BY_CLASS.get(layer.activation_kind)
    bounded = entry is not None and all(map(math.isfinite, entry.output_range))
    return layer.saturation if bounded else None


def _measure_fading(flow: GradientFlow) -> float | None:
    layers = flow.weight_layers
    if len(layers) < 2:
        return None
    first, last = layers[0].std, layers[-1].std
    return None if first is None or last is None or first == 0.0 else last / first


def _is_near(layers: Sequence[WeightLayer], rule: Rule) -> bool:
    """Whether some gradient comes within a factor of 10 of an absolute bound.

    A ratio of gradients counts as evidence only then: alone it would call a network sick whose
    every layer receives plenty.
    """
    bound = rule.threshold * (10 if rule.beyond == "<" else 0.1)
    norms = [n for layer in layers if (n := layer.weight_gradient_norm) is not None]
    return any(norm < bound if rule.beyond == "<" else norm > bound for norm in norms)


def _is_beyond(value: float, rule: Rule) -> bool:
    return value > rule.threshold if rule.beyond == ">" else value < rule.threshold


def _find_layers(rule: Rule, layers: Sequence[WeightLayer]) -> Iterator[Finding]:
    read = _READERS[rule.name]
    wrong = [
        (layer, value)
        for layer in layers
        if (value := read(layer)) is not None and _is_beyond(value, rule)
    ]
    if wrong:
        worst = (max if rule.beyond == ">" else min)(wrong, key=lambda pair: pair[1])
        layer, value = worst
        count = f"{len(wrong)} of {len(layers)} layers, " if len(layers) > 1 else ""
        yield _report(
            rule,
            value,
            f"{rule.figure} is {format_figure(rule, value)} at layer {layer.layer} ({count}"
            f"bound {rule.beyond} {format_figure(rule, rule.threshold)})",
            [each.layer for each, _ in wrong],
            [each.name for each, _ in wrong],
        )


def _find_places(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    """Judge single modules, by name."""
    places = PLACES[rule.name](flow)
    wrong = [place for place in places if _is_beyond(place.value, rule)]
    if wrong:
        worst = (max if rule.beyond == ">" else min)(wrong, key=lambda place: place.value)
        count = f"{len(wrong)} of {len(places)}, " if len(places) > 1 else ""
        yield _report(
            rule,
            worst.value,
            f"{rule.figure} is {format_figure(rule, worst.value)} at {worst.name!r} ({count}bound "
            f"{rule.beyond} {format_figure(rule, rule.threshold)})",
            sorted({place.layer for place in wrong if place.layer is not None}),
            [place.name for place in wrong],
        )


def _find_same_answer(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    call = find_tied_head(flow)
    if call is None:
        yield from _find_layers(rule, flow.weight_layers[-1:])
        return
    value = call.statistics.variation if call.statistics else None
    if value is not None and _is_beyond(value, rule):
        yield _report(
            rule,
            value,
            f"{rule.figure} is {format_number(value)} at {call.label!r}, the last layer (bound "
            f"{rule.beyond} {format_number(rule.threshold)})",
            [] if call.layer is None else [call.layer],
            [call.name],
        )


def format_figure(rule: Rule, value: float) -> str:
    """Return a figure of a rule as people read it: shares in percent."""
    return f"{100 * value:.0f} %" if rule.figure.startswith("share") else format_number(value)


def _find_ratio(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    value = _RATIOS[rule.name](flow)
    if value is not None and _is_beyond(value, rule):
        yield _report(
            rule,
            value,
            f"{rule.figure} is {format_number(value)} (bound {rule.beyond} "
            f"{format_number(rule.threshold)})",
            [layer.layer for layer in flow.weight_layers],
            [layer.name for layer in flow.weight_layers],
        )


def _count_non_finite(flow: GradientFlow) -> tuple[float, dict[str, float], set[int]]:
    """Return how many numbers are infinite or undefined, where, and in which weight layers.

    Where they may come from stands first: weights, then values forward, then gradients.
    """
    places: dict[str, float] = {}
    layers = set()

    def count(name: str, layer: int | None, number: float) -> None:
        if number > 0:
            places[name] = places.get(name, 0.0) + number
            if layer is not None:
                layers.add(layer)

    for parameter in flow.parameters:
        count(parameter.name, parameter.layer, parameter.non_finite)
    for call in flow.layers:
        count(call.label, call.layer, call.statistics.non_finite if call.statistics else 0.0)
    for call in reversed(flow.layers):
        count(call.label, call.layer, call.gradient.non_finite if call.gradient else 0.0)
    for parameter in flow.parameters:
        count(parameter.name, parameter.layer, parameter.grad_non_finite or 0.0)
    return sum(places.values()) + (not math.isfinite(flow.loss)), places, layers


def _find_non_finite(flow: GradientFlow) -> Iterator[Finding]:
    total, places, layers = _count_non_finite(flow)
    if total:
        rule = RULES["non_finite"]
        count = f"{len(places)} place{'' if len(places) == 1 else 's'}"
        where = f": {start}" if (start := locate_overflow(flow)) else ""
        yield _report(
            rule,
            total,
            f"{rule.figure} occur in {count}{where}; the loss is {format_number(flow.loss)}"
            if places
            else f"the loss is {format_number(flow.loss)}, though all values and gradients are "
            "finite",
            sorted(layers),
            list(places),
        )


def _list_unreached(flow: GradientFlow) -> list[str]:
    return [p.name for p in flow.parameters if p.status == "unreached" and p.is_weight]


def _find_unreached(flow: GradientFlow) -> Iterator[Finding]:
    if not any(parameter.status == "measured" for parameter in flow.parameters):
        rule = RULES["nothing_to_train"]
        evidence = f"the loss depends on none of {len(flow.parameters)} parameters"
        yield _report(rule, 0, evidence, [], [])
        return
    names = _list_unreached(flow)
    if names:
        rule = RULES["unreached"]
        weights = sum(p.is_weight for p in flow.parameters)
        layers = {p.layer for p in flow.parameters if p.name in set(names)}
        yield _report(
            rule,
            len(names),
            f"the loss does not reach {len(names)} of {weights} weight tensors, "
            f"{names[0]!r} for one",
            sorted(layer for layer in layers if layer is not None),
            names,
        )


def _report(
    rule: Rule,
    value: float,
    evidence: str,
    layers: Sequence[int],
    modules: Sequence[str],
) -> Finding:
    return Finding(
        rule=rule.name,
        verdict=rule.verdict,
        layers=tuple(layers),
        modules=tuple(modules),
        figure=rule.figure,
        value=float(value),
        threshold=rule.threshold,
        beyond=rule.beyond,
        evidence=evidence,
        reason=rule.reason,
        source=rule.source,
    )


def _summarize(flow: GradientFlow, findings: Sequence[Finding]) -> str:
    if findings:
        return f"{findings[0].evidence[0].upper()}{findings[0].evidence[1:]}."
    ratio = flow.gradient_ratio
    norms = [norm for norm in flow.weight_gradient_norms if norm is not None]
    if ratio is None or not norms:
        return "Nothing that was measured is beyond its bound."
    return (
        f"Every layer's gradient lies between {format_number(min(norms))} and "
        f"{format_number(max(norms))}, and layer 1 receives {format_number(ratio)} times what the "
        "last layer does."
    )


def _suggest_change(flow: GradientFlow) -> str:
    """Return the change of activation or initialization that suits the network, in words."""
    spec = flow.spec
    if spec is None:
        return "an initialization that suits the activation"
    activation = ACTIVATIONS[spec.activation]
    recommended = get_initializer(activation.initialization)
    if activation.derivative_max < 0.5:  # no initialization of the table makes up for it
        share = f"{100 * activation.derivative_max:g} %"
        return f"an activation that passes more than {share} of a gradient"
    if spec.init == recommended.name:
        return "another activation with its own initialization"
    return f"{recommended.label} initialization"


_READERS: Mapping[str, Callable[[WeightLayer], Quantity | None]] = {
    "dead_units": lambda layer: layer.dead_share,
    "exploding_gradient": lambda layer: layer.weight_gradient_norm,
    "vanishing_gradient": lambda layer: layer.weight_gradient_norm,
    "saturated": read_saturation,
    "same_answer": lambda layer: layer.variation,
}
"""What a rule reads of every weight layer."""

_RATIOS: Mapping[str, Callable[[GradientFlow], float | None]] = {
    "exploding_backward": lambda flow: flow.delta_ratio,
    "vanishing_backward": lambda flow: flow.delta_ratio,
    "fading_signal": _measure_fading,
    **RATIOS,
}
"""What a rule reads of the whole network."""

_COUNTS: Mapping[str, Callable[[GradientFlow], float]] = {
    "non_finite": lambda flow: _count_non_finite(flow)[0],
    "unreached": lambda flow: float(len(_list_unreached(flow))),
    "nothing_to_train": lambda flow: float(
        sum(parameter.status == "measured" for parameter in flow.parameters)
    ),
}
"""What is counted in the whole network."""

_CLIPPED = ("exploding_gradient", "vanishing_gradient")
"""The rules whose figures clipping scales; ratios of gradients stay as they are."""

_BY_CLASS = {entry.module: entry for entry in ACTIVATIONS.values()}
