"""A score for models of any kind: how likely a short training gets them off the ground.

`docs/truth.md` says how well it ranks models of kinds that it was not fitted on. It is no headline:
where a model has no specification, the verdict says what was measured, or what was tried.
"""

import math
from collections.abc import Callable, Mapping

from chainrule.diagnosis.optimizer_rules import measure_usual_rate
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.score_constants import SCORES
from chainrule.diagnosis.viability.constants import Constants
from chainrule.flow.gradient_flow import GradientFlow

FAR = 6.0
"""Powers of ten beyond a bound that all count alike."""

LONGEST = 0.999
"""Largest probability that is given; 1 minus it is the smallest."""


def score_model(flow: GradientFlow, optimizer: str) -> float:
    """Return a chance in (0, 1) that an optimizer trains a model within 120 steps.

    log-odds = base − Σ costs: of the value that is furthest beyond its bound, of the fall of the
    loss for a step of 1 %, and of the rate at which SGD would move the median parameter by 1 %.
    All are powers of ten. The constants were fitted on small models of five kinds, really trained
    (`make truth`).

    Args:
        flow: A measurement of a freshly initialized model.
        optimizer: "sgd" or "adam".

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> 0 < score_model(simulate(NetworkSpec(depth=3, width=4)), "adam") < 1
        True
    """
    values = {name: read(flow) for name, read in FEATURES.items()}
    odds = compute_score(SCORES[optimizer], values)
    return min(max(1 / (1 + math.exp(-odds)), 1 - LONGEST), LONGEST)


def compute_score(constants: Constants, values: Mapping[str, float | None]) -> float:
    """Return the log-odds that constants give to features.

    Args:
        constants: Base and costs.
        values: The features by name; `None` costs nothing.

    Example:
        >>> compute_score(SCORES["sgd"], {}) == SCORES["sgd"].base
        True
    """
    costs = 0.0
    for slope in constants.slopes:
        value = values.get(slope.feature)
        if value is not None:
            excess = value - slope.knot if slope.beyond == ">" else slope.knot - value
            costs += slope.weight * max(excess, 0.0)
    return constants.base - costs


def _measure_distance(flow: GradientFlow, name: str) -> float | None:
    """Return how far a metric is beyond the bound of a rule; below 0 if it is on the right side.

    In powers of ten for ratios, in log-odds ÷ ln 10 for shares; counts, and what is compared with
    0, are beyond or not.
    """
    rule = RULES[name]
    value = measure_metric(flow, name) if rule.applies(flow) else None
    if value is None:
        return None
    if math.isnan(value):
        return FAR
    sign = 1 if rule.beyond == ">" else -1
    if rule.scale == "count" or rule.threshold == 0:
        return 1.0 if rule.is_beyond(value) else -FAR
    compared = [value, rule.threshold]
    if rule.scale == "share":
        compared = [(each + 1e-6) / (1 - each + 1e-6) for each in compared]
    value, bound = (math.log10(min(max(each, 1e-30), 1e30)) for each in compared)
    return min(max(sign * (value - bound), -FAR), FAR)


def _measure_worst(flow: GradientFlow) -> float:
    """Return the largest distance beyond a bound over all rules that have no model behind them."""
    found = [_measure_distance(flow, name) for name, rule in RULES.items() if not rule.last]
    return max((each for each in found if each is not None), default=0.0)


def _measure_step(flow: GradientFlow) -> float | None:
    """Return the logarithm of the fall of the loss, relative to itself, for a step of 1 %."""
    if flow.loss_facts is None or flow.loss_facts.step is None:
        return None
    fall = float(flow.loss_facts.step)
    return math.log10(min(max(fall, 10.0**-FAR), 10.0**FAR)) if math.isfinite(fall) else FAR


def _measure_rate(flow: GradientFlow) -> float | None:
    """Return the logarithm of the rate at which SGD moves the median parameter by 1 %."""
    rate = measure_usual_rate(flow)
    return None if rate is None else math.log10(rate)


FEATURES: Mapping[str, Callable[[GradientFlow], float | None]] = {
    "worst": _measure_worst,
    "step": _measure_step,
    "rate": _measure_rate,
}
"""What the score is made of."""
