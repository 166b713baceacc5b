"""`probe_precision`: what half precision leaves of gradients, at several loss scales."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.errors import ChainruleError, InspectionError
from chainrule.flow.precision import PrecisionProbe, PrecisionTrial
from chainrule.measure.inspection import call_loss, check_arguments, take_checked_inventory
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.preservation import restore
from chainrule.measure.recording import record
from chainrule.measure.sharing import run_modules_one_by_one

EXPONENTS = tuple(range(0, 25, 2))
"""Loss scales 2^k that are tried: `torch.amp.GradScaler` starts at 2^16."""

_LOWEST, _HIGHEST = -30, 60


def probe_precision(
    model: nn.Module,
    compute_loss: Callable[[Any], Tensor],
    *,
    exponents: Sequence[int] = EXPONENTS,
) -> PrecisionProbe:
    """Measure which share of weight gradients is exactly zero at several loss scales.

    In float16 numbers below 6·10⁻⁸ become zero. Multiplying the loss by 2^k before the backward
    pass, and dividing the gradients by it afterwards, moves them to where the format has room:
    that is what `torch.amp.GradScaler` does (Micikevicius et al. 2018, arXiv 1710.03740). Zeros
    that remain at every scale (units that are off, inputs that are zero) are no underflow.

    One forward pass and a backward pass per scale; nothing of the model is changed, as in
    `inspect`.

    Args:
        model: Any PyTorch module.
        compute_loss: As for `inspect`.
        exponents: The k of the scales 2^k, whole numbers from −30 to 60, in growing order. The
            first should be 0: what happens without a loss scale.

    Returns:
        The zeros at each scale, and the smallest scale that keeps what can be kept.

    Raises:
        ChainruleError: If the exponents are not whole numbers in growing order in that range.
        LossError: If the loss is not a scalar tensor, or is not attached to the graph.
        InspectionError: If the model cannot be measured, or compute_loss or a backward pass raises.

    Example:
        >>> probe = probe_precision(nn.Linear(2, 1), lambda m: m(torch.ones(1, 2)).sum())
        >>> probe.loss_scale, len(probe.trials)
        (1.0, 13)
    """
    check_arguments(model, compute_loss)
    scales = _check_exponents(exponents)
    inventory = take_checked_inventory(model)
    weights = [
        p.tensor for p in inventory.parameters if p.tensor.requires_grad and p.tensor.dim() > 1
    ] or [p.tensor for p in inventory.parameters if p.tensor.requires_grad]
    if not weights:
        raise InspectionError(
            "The model must have parameters that are trained, but it has none. What half precision "
            "leaves is measured of their gradients."
        )
    with (
        HoldInterrupts() as interrupts,
        restore(inventory),
        torch.inference_mode(False),
        torch.enable_grad(),
        run_modules_one_by_one(),
    ):
        with record(inventory) as recorder, interrupts.let_through():
            loss, _ = call_loss(compute_loss, inventory.modules[0][1], lambda: recorder.last_run)
            recorder.release()
        with interrupts.let_through():
            trials = tuple(
                _try(loss, weights, exponent, is_last=exponent == scales[-1]) for exponent in scales
            )
    finite = [trial.zero_share for trial in trials if not trial.non_finite]
    return PrecisionProbe(trials=trials, kept=min(finite, default=None))


def _check_exponents(exponents: Sequence[int]) -> tuple[int, ...]:
    scales = tuple(exponents)
    whole = all(type(each) is int and _LOWEST <= each <= _HIGHEST for each in scales)
    if not scales or not whole or sorted(set(scales)) != list(scales):
        raise ChainruleError(
            f"exponents must be whole numbers from {_LOWEST} to {_HIGHEST} in growing order, at "
            f"least one; got {exponents!r}. Leave it out for 0, 2, … 24."
        )
    return scales


def _try(
    loss: Tensor, weights: Sequence[Tensor], exponent: int, *, is_last: bool
) -> PrecisionTrial:
    # The product is made in the format of the loss, as `GradScaler.scale` does it.
    try:
        gradients = torch.autograd.grad(
            (loss.sum() * 2.0**exponent), weights, allow_unused=True, retain_graph=not is_last
        )
    except Exception as error:
        raise InspectionError(
            f"The backward pass must run once per loss scale, but it raised: {error}. Checkpoints "
            "must have use_reentrant=False for that."
        ) from error
    entries = zeros = bad = 0
    for gradient in gradients:
        if gradient is None:
            continue
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        entries += values.numel()
        zeros += values.numel() - int(torch.count_nonzero(values))
        bad += int((~torch.isfinite(values)).sum())
    return PrecisionTrial(exponent=exponent, zero_share=zeros / max(1, entries), non_finite=bad)
