"""Limits of gradients: between which layers learn, and those that you set in addition."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rule import Rule, Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.structure import list_explained
from chainrule.errors import ChainruleError, suggest
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import WeightLayer


def read_usable_range(flow: GradientFlow, verdict: Verdict | None = None) -> tuple[float, float]:
    """Return the least and the largest ‖∂𝓛/∂W‖ with which a weight layer learns.

    These are the bounds of the rules `vanishing_gradient` and `exploding_gradient` times the error
    at the output (1 where it is unknown).

    Args:
        flow: A measurement.
        verdict: What the diagnosis says of it. In a healthy flow the range holds every layer's
            gradient: what starts small there grows later, or needs no gradient.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> low, high = read_usable_range(flow)
        >>> low < flow.weight_gradient_norms[-1] < high
        True
    """
    error = float(flow.output_error or 1.0)
    if not math.isfinite(error):
        error = 1.0
    low, high = (
        RULES[name].threshold * error for name in ("vanishing_gradient", "exploding_gradient")
    )
    if verdict is Verdict.HEALTHY:
        norms = [norm for norm in flow.weight_gradient_norms if norm and 0 < norm < math.inf]
        low, high = min([low, *norms]), max([high, *norms])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What must hold of ‖∂loss/∂W‖ in every weight layer; `None` for no limit of your own.

    Attributes:
        min_gradient: The smallest that is allowed.
        max_gradient: The largest that is allowed.
        max_ratio: The most that two layers may differ: largest ÷ smallest.

    Raises:
        ChainruleError: If a limit is negative or undefined.

    Example:
        >>> Limits(min_gradient=1e-6).min_gradient
        1e-06
    """

    min_gradient: float | None = None
    max_gradient: float | None = None
    max_ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("min_gradient", "max_gradient", "max_ratio"):
            value = getattr(self, name)
            if value is not None and (math.isnan(value) or value < 0):
                raise ChainruleError(f"{name} must be zero or positive; got {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit or bound that does not hold.

    Attributes:
        place: The layer or module, in words.
        metric: What was measured, in words.
        value: The metric, as people read it.
        bound: What must hold, as people read it: "≥ 0.003".

    Example:
        >>> print(Violation(place="layer 1 ('fc')", metric="‖∂𝓛/∂W‖", value="0", bound="≥ 0.001"))
        layer 1 ('fc'): ‖∂𝓛/∂W‖ is 0, must be ≥ 0.001
    """

    place: str
    metric: str
    value: str
    bound: str

    def __str__(self) -> str:
        return f"{self.place}: {self.metric} is {self.value}, must be {self.bound}"


def check_limits(
    flow: GradientFlow,
    diagnosis: Diagnosis,
    limits: Limits = Limits(),
    *,
    allow: Collection[str] = (),
    rules: Mapping[str, Rule] = RULES,
) -> tuple[Violation, ...]:
    """Return what is wrong with a measurement: findings of the diagnosis, and limits passed.

    A limit of your own takes the place of the diagnosis's bound on the same metric.

    Args:
        flow: A measurement.
        diagnosis: What it means.
        limits: Limits of your own.
        allow: Names of rules of the table that may find something.
        rules: The rules that the diagnosis was made with.

    Raises:
        ChainruleError: If a rule is not known.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=12), 1)
        >>> check_limits(flow, diagnose(flow))[0].bound
        '≥ 0.003'
    """
    for name in allow:
        if name not in rules:
            raise ChainruleError(f"allow: unknown rule {name!r}. {suggest(name, rules)}")
    ignored = set(allow)
    for name, rule in rules.items():
        limit = limits.min_gradient if rule.beyond == "<" else limits.max_gradient
        if rule.of_gradients and limit is not None:
            ignored.add(name)
    return (*_list_findings(diagnosis, ignored, rules), *_list_passed(flow, limits))


def _list_findings(
    diagnosis: Diagnosis, ignored: Collection[str], rules: Mapping[str, Rule]
) -> Iterator[Violation]:
    for finding in diagnosis.findings:
        if finding.rule in ignored:
            continue
        rule = rules[finding.rule]
        sign = "≤" if finding.beyond == ">" else "≥"
        first = () if finding.worst is None else (finding.worst,)  # whose metric is shown
        names = list(dict.fromkeys((*first, *finding.modules)))
        if not names:
            place = "the whole model"
        else:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            place = f"{names[0] or '(model)'!r}{others}"
        yield Violation(
            place=place,
            metric=rule.metric,
            value=rule.format(finding.value),
            bound=f"{sign} {rule.format(finding.threshold)}",
        )


def _list_passed(flow: GradientFlow, limits: Limits) -> Iterator[Violation]:
    explained = list_explained(flow)
    norms = [
        (float(layer.weight_gradient_norm), layer)
        for layer in flow.weight_layers
        if layer.weight_gradient_norm is not None and layer.layer not in explained
    ]
    if not norms:
        return
    # An undefined one keeps no limit, so it stands for both ends.
    norms = [pair for pair in norms if math.isnan(pair[0])] or norms
    low, low_layer = min(norms, key=lambda pair: pair[0])
    high, high_layer = max(norms, key=lambda pair: pair[0])
    if limits.min_gradient is not None and not low >= limits.min_gradient:
        yield _pass(low_layer, low, "≥", limits.min_gradient)
    if limits.max_gradient is not None and not high <= limits.max_gradient:
        yield _pass(high_layer, high, "≤", limits.max_gradient)
    if limits.max_ratio is not None and not high <= limits.max_ratio * low:
        yield Violation(
            place=f"{_name(high_layer)} and {_name(low_layer)}",
            metric="the ratio of their ‖∂𝓛/∂W‖",
            value=format_number(high / low if low else math.inf),
            bound=f"≤ {format_number(limits.max_ratio)}",
        )


def _pass(layer: WeightLayer, value: float, sign: str, bound: float) -> Violation:
    return Violation(
        place=_name(layer),
        metric="‖∂𝓛/∂W‖",
        value=format_number(value),
        bound=f"{sign} {format_number(bound)}",
    )


def _name(layer: WeightLayer) -> str:
    return f"layer {layer.layer} ({layer.name or '(model)'!r})"
