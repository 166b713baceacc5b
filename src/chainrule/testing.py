"""Assertions for your tests: they fail when a change breaks a model's gradient flow, or its µP.

from chainrule.testing import assert_healthy

def test_gradients_flow():
    assert_healthy(build_model(), compute_loss)
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn, optim

from chainrule.diagnosis.diagnosis import diagnose, overlook
from chainrule.diagnosis.limits import Limits, check_limits
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES
from chainrule.errors import ChainruleError, InspectionError, suggest
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.inspection import inspect
from chainrule.measure.non_finite import add_origin
from chainrule.remedies.spec_search import find_remedies
from chainrule.width.check import SEEDS, STEPS, check_width
from chainrule.width.records import WidthCheck

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


def assert_width_independent(
    make_model: Callable[[int], nn.Module],
    widths: Sequence[int],
    make_batch: Callable[[], Any],
    compute_loss: Callable[[Any, Any], Any] | None = None,
    *,
    optimizer: Callable[..., optim.Optimizer],
    steps: int = STEPS,
    seeds: int = SEEDS,
    allow: Collection[str] = (),
) -> WidthCheck:
    """Train models of several widths, and raise if a size goes with the width and must not.

    Args:
        make_model: As for `chainrule.check_width`, like all that follows.
        widths: At least two.
        make_batch: Returns a batch.
        compute_loss: Takes the model and the batch.
        optimizer: Takes the model and returns an optimizer.
        steps: Steps of training.
        seeds: Models per width.
        allow: Names of modules and parameters whose findings are accepted, with what follows from
            them.

    Returns:
        The measurement.

    Raises:
        AssertionError: If something was found, or nothing could be judged. The message names the
            module, the exponent, what was expected and what to do.
        InspectionError: If the models cannot be made, measured or trained, or a name in `allow` is
            neither a module's nor a parameter's.
        ChainruleError: If a number is not legal.

    Example:
        >>> import torch
        >>> def make_model(width):
        ...     model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
        ...     nn.init.zeros_(model[2].weight)
        ...     return model
        >>> def make_optimizer(model):
        ...     groups = [{"params": model[0].parameters()}]
        ...     groups += [{"params": model[2].parameters(), "lr": 0.01 / model[2].in_features}]
        ...     return torch.optim.Adam(groups, lr=1e-3, eps=1e-12)
        >>> batch = torch.randn(8, 4), torch.randn(8, 2)
        >>> check = assert_width_independent(
        ...     make_model, [16, 32, 64], lambda: batch, optimizer=make_optimizer, allow=["2.bias"]
        ... )
    """
    __tracebackhide__ = True
    check = check_width(
        make_model,
        widths,
        make_batch,
        compute_loss,
        optimizer=optimizer,
        steps=steps,
        seeds=seeds,
    )
    known = {module.name for module in check.modules}
    known |= {parameter.name for module in check.modules for parameter in module.parameters}
    for name in allow:
        if name not in known:
            raise InspectionError(f"allow: unknown {name!r}. {suggest(str(name), sorted(known))}")
    causes = [f for f in check.causes if not {f.module, f.parameter} & set(allow)]
    places = {finding.module for finding in causes}
    left = tuple(
        finding for finding in check.findings if finding in causes or finding.cause in places
    )
    rest = replace(check, findings=left)
    if not rest.passed:
        raise AssertionError(rest.summary)
    return check


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
