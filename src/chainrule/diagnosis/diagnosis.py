"""`diagnose`: from the numbers of a flow to a verdict in words, with its evidence."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from chainrule._utils.numbers import format_number, format_times
from chainrule.diagnosis.metrics import (
    RELATIVE,
    WHOLE,
    count_non_finite,
    format_metric,
    is_beyond,
    list_unreached,
    locate_overflow,
    read_layer,
)
from chainrule.diagnosis.notes import Note, list_notes
from chainrule.diagnosis.rules import ACTION_AT_RISK, ACTIONS, RULES, Outlook, Rule, Verdict
from chainrule.diagnosis.structure import (
    PLACES,
    RATIOS,
    find_last_speaking,
    find_tied_head,
    list_chain,
    list_receiving,
    list_waiting,
)
from chainrule.diagnosis.viability.model import NEGLIGIBLE, Viability, assess_viability
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import WeightLayer
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import get_initializer


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, with its evidence.

    Attributes:
        rule: Name of the rule in the table of diagnoses.
        verdict: What it amounts to.
        layers: Numbers of the weight layers concerned, input to output.
        modules: Names of the modules or parameters concerned.
        metric: What was measured, in words.
        value: The worst metric that was measured.
        threshold: The bound that it is beyond.
        beyond: ">" or "<": on which side of the bound it is.
        evidence: The measurement in one sentence.
        reason: Why it matters, in plain language.
        source: Where reason or threshold come from.
        log_odds: By how much it moves the verdict on training with plain SGD: what its feature
            adds to the log-odds of `viability.sgd`, below 0 or 0.
        worst: Name of the module that `value` was measured at; `None` if it is no single one's.
    """

    rule: str
    verdict: Verdict
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    metric: str
    value: float
    threshold: float
    beyond: str
    evidence: str
    reason: str
    source: str
    log_odds: float = 0.0
    worst: str | None = None

    @property
    def consequence(self) -> str:
        """Why it matters, and what it does to the odds that plain SGD trains the network."""
        if self.log_odds > -NEGLIGIBLE:
            return self.reason
        factor = format_number(float(f"{math.exp(-self.log_odds):.2g}"))
        return f"{self.reason} It divides the odds that plain SGD trains it by {factor}."


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


PASSED_OVER = ("unreached",)
"""Rules that changes of weights are judged beside: weights that the loss does not reach, as an
unused head has them, need not keep the rest from being helped."""

NO_PARAMETERS = (
    "Measure a model that has parameters: this one has none, so there is nothing to train in it."
)
"""What to do next with a model without parameters."""


def diagnose(flow: GradientFlow) -> Diagnosis:
    """Return the verdict on a measurement, every finding with its evidence, and what to do next.

    It looks at absolute gradients (too small and too large), at what reaches the first layer, at
    the forward signal, at saturation and at dead units; never at the gradient ratio alone, which
    hides a shrinkage that is the same in both directions. An ensemble is judged by its medians.

    Args:
        flow: A measurement by `inspect` or `simulate`.
    """
    order = list(Verdict)
    viability = assess_viability(flow)
    found = [*_find(flow)] or [*_find_unlikely(flow, viability)]
    findings = sorted(_weigh(found, viability), key=lambda each: order.index(each.verdict))
    verdict = findings[0].verdict if findings else Verdict.HEALTHY
    return Diagnosis(
        verdict=verdict,
        findings=tuple(findings),
        summary=_summarize(flow, findings),
        action=_choose_action(flow, verdict, viability),
        viability=viability,
        notes=list_notes(flow),
    )


def overlook(diagnosis: Diagnosis, flow: GradientFlow, rules: Collection[str]) -> Diagnosis:
    """Return what a diagnosis says besides the findings of some rules.

    Args:
        diagnosis: The diagnosis of `flow`.
        flow: The measurement.
        rules: Names of the rules whose findings are left out.

    Returns:
        The diagnosis whose gravest finding is the gravest of the others. Without others it is
        healthy, or hard to train.
    """
    findings = tuple(finding for finding in diagnosis.findings if finding.rule not in rules)
    if len(findings) == len(diagnosis.findings):
        return diagnosis
    if not findings and "unlikely" not in rules:
        found = _find_unlikely(flow, diagnosis.viability)
        findings = tuple(_weigh(found, diagnosis.viability))
    verdict = findings[0].verdict if findings else Verdict.HEALTHY
    return replace(
        diagnosis,
        verdict=verdict,
        findings=findings,
        summary=_summarize(flow, findings),
        action=_choose_action(flow, verdict, diagnosis.viability),
    )


def _choose_action(flow: GradientFlow, verdict: Verdict, viability: Viability) -> str:
    if verdict is Verdict.NO_GRADIENT and not flow.parameters:
        return NO_PARAMETERS
    at_risk = viability.covered and viability.sgd.word is Outlook.AT_RISK
    if verdict is Verdict.HEALTHY and at_risk:
        return ACTION_AT_RISK
    return ACTIONS[verdict].format(change=_suggest_change(flow))


def _weigh(findings: Iterable[Finding], viability: Viability) -> Iterator[Finding]:
    """Yield the findings with what each does to the odds that plain SGD trains the network.

    Findings of one feature share what it does, so only the first of them carries it.
    """
    shares = {each.feature: each.log_odds for each in viability.sgd.contributions}
    for finding in findings:
        yield replace(finding, log_odds=shares.pop(RULES[finding.rule].feature, 0.0))


def _find(flow: GradientFlow) -> Iterator[Finding]:
    yield from _find_non_finite(flow)
    yield from _find_unreached(flow)
    if any(finding for finding in _find_non_finite(flow)):
        return  # every further metric is made of undefined numbers
    yield from _find_layers(RULES["dead_units"], flow)
    yield from _find_layers(RULES["exploding_gradient"], flow)
    if flow.residuals:
        for name in RATIOS:
            yield from _find_ratio(RULES[name], flow)
    yield from _find_along_chain(flow)
    for name in PLACES:
        yield from _find_places(RULES[name], flow)
    yield from _find_layers(RULES["saturated"], flow)
    yield from _find_same_answer(RULES["same_answer"], flow)
    if list_chain(flow):
        yield from _find_ratio(RULES["fading_signal"], flow)


def _find_unlikely(flow: GradientFlow, viability: Viability) -> Iterator[Finding]:
    """Judge what all metrics together say of a network of the kind they were fitted on."""
    rule, sgd = RULES["unlikely"], viability.sgd
    if viability.covered and is_beyond(sgd.probability, rule):
        worst = sgd.contributions[0]
        yield _report(
            rule,
            sgd.probability,
            f"{rule.metric} is {format_metric(rule, sgd.probability)} (bound {rule.beyond} "
            f"{format_metric(rule, rule.threshold)}). {worst.words.removesuffix('.')}",
            [layer.layer for layer in flow.weight_layers],
            [layer.name for layer in flow.weight_layers],
        )


def _find_along_chain(flow: GradientFlow) -> Iterator[Finding]:
    """What layers without paths around them must pass on, every one."""
    chain = list_receiving(flow, list_chain(flow))
    if not chain:
        return
    if _is_near(flow, RULES["exploding_gradient"], chain):
        yield from _find_ratio(RULES["exploding_backward"], flow)
    yield from _find_layers(RULES["vanishing_gradient"], flow, chain)
    if _is_near(flow, RULES["vanishing_gradient"], chain):
        yield from _find_ratio(RULES["vanishing_backward"], flow)


def _is_near(flow: GradientFlow, rule: Rule, layers: Sequence[WeightLayer]) -> bool:
    """Whether some gradient comes within a factor of 10 of the bound of its size.

    A ratio of gradients counts as evidence only then: alone it would call a network sick whose
    every layer receives plenty.
    """
    bound = rule.threshold * (10 if rule.beyond == "<" else 0.1)
    norms = [norm for layer in layers if (norm := read_layer(flow, layer, rule.name)) is not None]
    return any(norm < bound if rule.beyond == "<" else norm > bound for norm in norms)


def _find_layers(
    rule: Rule, flow: GradientFlow, layers: Sequence[WeightLayer] | None = None
) -> Iterator[Finding]:
    layers = flow.weight_layers if layers is None else layers
    wrong = [
        (layer, value)
        for layer in layers
        if (value := read_layer(flow, layer, rule.name)) is not None and is_beyond(value, rule)
    ]
    if wrong:
        worst = (max if rule.beyond == ">" else min)(wrong, key=lambda pair: pair[1])
        layer, value = worst
        count = f"{len(wrong)} of {len(layers)} layers, " if len(layers) > 1 else ""
        what = f"{rule.metric} is {format_metric(rule, value)} at layer {layer.layer}"
        if rule.name in RELATIVE and layer.weight_gradient_norm is not None:
            what = (
                f"‖∂𝓛/∂W‖ is {format_number(layer.weight_gradient_norm)} at layer {layer.layer}, "
                f"{format_metric(rule, value)} times the error at the output"
            )
        yield _report(
            rule,
            value,
            f"{what} ({count}bound {rule.beyond} {format_metric(rule, rule.threshold)})",
            [each.layer for each, _ in wrong],
            [each.name for each, _ in wrong],
            layer.name,
        )


def _find_places(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    """Judge single modules, by name."""
    places = PLACES[rule.name](flow)
    wrong = [place for place in places if is_beyond(place.value, rule)]
    if wrong:
        worst = (max if rule.beyond == ">" else min)(wrong, key=lambda place: place.value)
        count = f"{len(wrong)} of {len(places)}, " if len(places) > 1 else ""
        yield _report(
            rule,
            worst.value,
            f"{rule.metric} is {format_metric(rule, worst.value)} at {worst.name!r} ({count}bound "
            f"{rule.beyond} {format_metric(rule, rule.threshold)})",
            sorted({place.layer for place in wrong if place.layer is not None}),
            [place.name for place in wrong],
            worst.name,
        )


def _find_same_answer(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    call = find_tied_head(flow)
    if call is None:
        last = find_last_speaking(flow)
        yield from _find_layers(rule, flow, [] if last is None else [last])
        return
    value = call.statistics.variation if call.statistics else None
    if value is not None and is_beyond(value, rule):
        yield _report(
            rule,
            value,
            f"{rule.metric} is {format_number(value)} at {call.label!r}, the last layer (bound "
            f"{rule.beyond} {format_number(rule.threshold)})",
            [] if call.layer is None else [call.layer],
            [call.name],
        )


def _find_ratio(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    value = WHOLE[rule.name](flow)
    if value is not None and is_beyond(value, rule):
        yield _report(
            rule,
            value,
            f"{rule.metric} is {format_number(value)} (bound {rule.beyond} "
            f"{format_number(rule.threshold)})",
            [layer.layer for layer in flow.weight_layers],
            [layer.name for layer in flow.weight_layers],
        )


def _find_non_finite(flow: GradientFlow) -> Iterator[Finding]:
    total, places, layers = count_non_finite(flow)
    if total:
        rule = RULES["non_finite"]
        count = f"{len(places)} place{'' if len(places) == 1 else 's'}"
        where = f": {start}" if (start := locate_overflow(flow)) else ""
        yield _report(
            rule,
            total,
            f"{rule.metric} occur in {count}{where}; the loss is {format_number(flow.loss)}"
            if places
            else f"the loss is {format_number(flow.loss)}, though all values and gradients are "
            "finite",
            sorted(layers),
            list(places),
        )


def _find_unreached(flow: GradientFlow) -> Iterator[Finding]:
    if not any(parameter.status == "measured" for parameter in flow.parameters):
        rule = RULES["nothing_to_train"]
        evidence = f"the loss depends on none of {len(flow.parameters)} parameters"
        if not flow.parameters:
            evidence = "the model has no parameters"
        yield _report(rule, 0, evidence, [], [])
        return
    names = list_unreached(flow)
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
    worst: str | None = None,
) -> Finding:
    return Finding(
        rule=rule.name,
        verdict=rule.verdict,
        layers=tuple(layers),
        modules=tuple(modules),
        metric=rule.metric,
        value=float(value),
        threshold=rule.threshold,
        beyond=rule.beyond,
        evidence=evidence,
        reason=rule.reason,
        source=rule.source,
        worst=worst,
    )


def _summarize(flow: GradientFlow, findings: Sequence[Finding]) -> str:
    if findings:
        return f"{findings[0].evidence[0].upper()}{findings[0].evidence[1:]}."
    ratio = flow.gradient_ratio
    norms = [norm for norm in flow.weight_gradient_norms if norm is not None]
    if ratio is None or not norms:
        return "Nothing that was measured is beyond its bound."
    if waiting := list_waiting(flow):
        return (
            f"{len(waiting)} of {len(flow.weight_layers)} layers wait for weights that start at or "
            "near zero to move, and receive their gradient after that; nothing is beyond its bound."
        )
    return (
        f"Every layer's gradient lies between {format_number(min(norms))} and "
        f"{format_number(max(norms))}, and layer 1 receives {format_times(ratio)} what the "
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
