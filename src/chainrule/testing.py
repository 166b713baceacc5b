"""Assertions for your tests: they fail when a change breaks a model's gradient flow.

from chainrule.testing import assert_healthy

def test_gradients_flow():
    assert_healthy(build_model(), compute_loss)
"""

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from chainrule.diagnosis.diagnosis import diagnose, overlook
from chainrule.diagnosis.limits import Limits, check_limits
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES
from chainrule.errors import ChainruleError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.inspection import inspect
from chainrule.measure.non_finite import add_origin
from chainrule.remedies.spec_search import find_remedies

OWN_LIMIT = (
    "The diagnosis finds nothing that needs a remedy: undo the change that moved this value, or "
    "change the limit."
)
"""What to do where only your limits do not hold."""


def assert_healthy(
    model: nn.Module,
    compute_loss: Callable[[Any], Tensor],
    *,
    min_gradient: float | None = None,
    max_gradient: float | None = None,
    max_ratio: float | None = None,
    allow: Collection[str] = (),
    remedies: bool = True,
) -> GradientFlow:
    """Measure a model and raise unless every weight layer receives a usable gradient.

    The model is left as it was. Draw data and weights from fixed seeds, so that the test does not
    depend on chance.

    Args:
        model: Any PyTorch module.
        compute_loss: As for `chainrule.inspect`.
        min_gradient: Smallest ‖∂𝓛/∂W‖ (Frobenius norm) allowed in any weight layer. It replaces the
            diagnosis's bound, which is relative to the error at the output.
        max_gradient: Largest ‖∂𝓛/∂W‖ allowed; it replaces the diagnosis's bound, too.
        max_ratio: Largest ‖∂𝓛/∂W‖ of all weight layers ÷ the smallest, at most.
        allow: Names of rules (keys of `chainrule.diagnosis.RULES`) whose findings are accepted, for
            example "dead_units".
        remedies: Whether the message names a remedy when something is wrong. Looking for one takes
            the time of up to 12 measurements.

    Returns:
        The measurement.

    Raises:
        AssertionError: If the diagnosis finds something or a limit does not hold. The message names
            the layer, the value, the bound and a remedy.
        InspectionError: If the model cannot be measured.
        ChainruleError: If a limit or the name of a rule is not legal.

    Example:
        >>> import torch
        >>> model, x = torch.nn.Linear(8, 2), torch.eye(8)
        >>> flow = assert_healthy(model, lambda m: (m(x) - 1).square().mean(), max_ratio=100)
    """
    __tracebackhide__ = True
    limits = Limits(min_gradient=min_gradient, max_gradient=max_gradient, max_ratio=max_ratio)
    flow = add_origin(inspect(model, compute_loss), model, compute_loss)
    diagnosis = diagnose(flow)
    violations = check_limits(flow, diagnosis, limits, allow=allow)
    if violations:
        diagnosis = overlook(diagnosis, flow, allow)
        lines = [
            f"Gradients do not flow as they must (diagnosis: {diagnosis.verdict}).",
            *violations,
        ]
        hint = diagnosis.action
        if not diagnosis.findings:
            hint = OWN_LIMIT
        elif remedies:
            hint = _describe_remedy(model, compute_loss, allow) or hint
        raise AssertionError("\n  ".join(map(str, lines)) + f"\n{hint}")
    return flow


def _describe_remedy(
    model: nn.Module, compute_loss: Callable[[Any], Tensor], allow: Collection[str]
) -> str:
    try:
        found = find_remedies(model, compute_loss, enough=1)
    except ChainruleError:
        return ""
    if not len(found):
        advice = [f"Advice: {advice.title}." for advice in found.advice]
        return "\n".join(filter(None, (found.note, *advice)))
    remedy = found[0]
    step = remedy.comparison
    unreached = any(finding.rule in IGNORED_BY_REMEDIES for finding in found.diagnosis.findings)
    more = f"\n{found.note}" if unreached and not set(IGNORED_BY_REMEDIES) <= set(allow) else ""
    return (
        f"Remedy: {remedy.title} ({step.metric}: {step.before_text} → {step.after_text}, then "
        f"{remedy.verdict_after}).\n"
        "  chainrule.apply_remedy(chainrule.find_remedies(model, compute_loss)[0], model)"
        f"{more}"
    )
