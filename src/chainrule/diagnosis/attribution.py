"""Which modules contribute most to what a diagnosis names, by their factors.

A diagnosis rests on a metric, and nearly every metric is a product of factors (`factors`). The
modules whose factors push the product furthest beyond its bound are named.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.factors import MEANINGS, Part
from chainrule.diagnosis.rule import Rule, Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, multiply_members

COUNT = 3
"""How many modules are named."""

SLIGHT = 0.01
"""A factor that differs from 1 by less than this contributes nothing."""

SHARE = (
    "The share says how much of the whole effect comes from this module. Factors that make it "
    "worse are compared by their logarithms."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """A module and the factor by which it contributes to what is wrong.

    Attributes:
        name: Qualified name of the module; of a step on a residual stream, of the module in which
            the block's branch ends.
        kind: Class name of that module.
        layer: Its weight layer, or `None`.
        calls: Number of calls that are taken together.
        factor: What it multiplies the metric by, over all of its calls.
        what: What is multiplied, in a word or two.
        share: Its part of everything that goes the wrong way, in powers of ten, in [0, 1]; `None`
            where a factor is zero or infinite.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> rank_attributions(simulate(NetworkSpec(depth=12), 1))[0].kind
        'Sigmoid'
    """

    name: str
    kind: str
    layer: int | None
    calls: int
    factor: Quantity
    what: str
    share: float | None

    @property
    def meaning(self) -> str:
        """What its factor is, in words."""
        return MEANINGS.get(self.what, self.what)

    def __repr__(self) -> str:
        name = f"{self.name or '(model)'} ({self.kind})"
        share = "" if self.share is None else f", {format_share(self.share)}"
        return f"Attribution({name}: {self.what} × {format_number(self.factor)}{share})"


def rank_attributions(
    flow: GradientFlow,
    diagnosis: Diagnosis | None = None,
    *,
    count: int = COUNT,
    rules: Mapping[str, Rule] = RULES,
) -> tuple[Attribution, ...]:
    """Return the modules that contribute most to the verdict, the gravest factor first.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        diagnosis: What it means, if that is there already.
        count: How many at most.
        rules: The rules that the diagnosis was made with.

    Returns:
        None for a healthy network, for weights that no gradient reaches (no factor leads there),
        and where no factor goes the wrong way: a gradient can be too small at the loss already.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> {each.kind for each in rank_attributions(simulate(NetworkSpec(depth=12), 1))}
        {'Sigmoid'}
    """
    diagnosis = diagnosis or diagnose(flow, rules=rules)
    for finding in diagnosis.findings:
        rule = rules.get(finding.rule)  # what a trial found is in no table of your own
        if rule is None or rule.trace is None:
            continue
        if finding.verdict is diagnosis.verdict:
            factors = _merge(rule.trace(flow, finding.layers))
            found = _rank(factors, grows=(rule.harmful or rule.beyond) == ">")
            if found:
                return tuple(found[:count])
    return ()


def explain_attributions(diagnosis: Diagnosis, attributions: tuple[Attribution, ...]) -> str:
    """Return what the factors are, in words; or why there are none; "" if nothing is wrong.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> explain_attributions(diagnose(simulate(NetworkSpec(init="lecun", depth=1), 1)), ())
        ''
    """
    if attributions:
        factors = "; or ".join(dict.fromkeys(each.meaning for each in attributions))
        share = "" if attributions[0].share is None else f" {SHARE}"
        return f"The factor is {factors}.{share}"
    if diagnosis.verdict is Verdict.HEALTHY:
        return ""
    rule, verdict = diagnosis.findings[0].rule, diagnosis.verdict
    return _WITHOUT_FACTORS.get(rule) or _WITHOUT_FACTORS.get(verdict, _WHERE_IT_STARTS)


_WHERE_IT_STARTS = (
    "No module makes it worse: the value is already beyond its limit where it starts."
)

_WITHOUT_FACTORS: Mapping[str, str] = MappingProxyType(
    {
        "zero_product": "There is no factor to show: it is zero.",
        "untold_steps": "There is no factor to show: no gradient is wrong.",
        Verdict.NO_GRADIENT: "There is no factor to show: no path leads from the loss to these "
        "weights.",
        Verdict.HARD_TO_TRAIN: "No single module is the cause: the verdict comes from all values "
        "together.",
    }
)
"""Why there is none, by rule or verdict."""


def _merge(parts: Iterable[Part]) -> list[Attribution]:
    """Return the factors by module; of one that is called several times, their product."""
    merged: dict[tuple[str, str], Attribution] = {}
    for part in parts:
        before = merged.get((part.name, part.what))
        merged[part.name, part.what] = Attribution(
            name=part.name,
            kind=part.kind,
            layer=part.layer if before is None else before.layer,
            calls=1 if before is None else before.calls + 1,
            factor=part.value if before is None else multiply_members(before.factor, part.value),
            what=part.what,
            share=None,
        )
    return list(merged.values())


def _rank(factors: list[Attribution], *, grows: bool) -> list[Attribution]:
    """Return the factors that go the wrong way, the gravest first, each with its share."""
    weights = [(_weigh(each.factor, grows=grows), each) for each in factors]
    wrong = [(weight, each) for weight, each in weights if weight > math.log10(1 + SLIGHT)]
    wrong.sort(key=lambda pair: -pair[0])  # stable: among equals the one met first on the way
    total = sum(weight for weight, _ in wrong)
    return [
        replace(each, share=weight / total if math.isfinite(total) else None)
        for weight, each in wrong
    ]


def _weigh(factor: float, *, grows: bool) -> float:
    """Return how far a factor goes the wrong way, in powers of ten; undefined ones do not."""
    if math.isnan(factor):
        return 0.0
    if factor <= 0.0 or factor == math.inf:  # a share can be below 0 by rounding
        return math.inf if (factor > 0) is grows else -math.inf
    return math.log10(factor) if grows else -math.log10(factor)
