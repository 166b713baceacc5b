"""The numbers of a loss: what its parts are worth, and what guessing would give instead.

They follow from the targets and from the weight that every entry has in the loss, which is the
gradient at the operation that computes it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.measure.loss import Loss, Part
from chainrule.measure.recording import Recorder, find_active
from chainrule.measure.statistics import Table, is_cheap_to_read

_ALIKE = 1e-4
"""Relative difference of weights up to which it is rounding."""

_ROUGH = 1e6
"""Cost of outputs ÷ that of targets up to which a difference still shows what the targets were."""

_Number = Tensor | float | None
_Numbers = tuple[_Number, _Number, _Number, _Number, _Number]
"""Value, guessing, best constant answer, floor, what outputs in their range can reach."""
_NOTHING: _Numbers = (None,) * 5


def summarize_loss(
    loss: Loss,
    value: Tensor,
    gradients: Mapping[int, Any],
    recorder: Recorder,
    has_zeros: Callable[[int], bool],
) -> Table:
    """Return the numbers of a loss: of all parts and of the examples without gradient.

    Args:
        loss: What was found before.
        value: The loss.
        gradients: By recorded edge; large ones are tables.
        recorder: The forward pass.
        has_zeros: Whether the gradient at an edge may have entries that are zero.
    """
    numbers: list[_Number] = []
    for part in loss.parts:
        try:
            found = _measure(part, gradients)
        except (RuntimeError, TypeError, ValueError, IndexError):  # no tensors as usual losses have
            found = None
        if found is not None and len(loss.parts) == 1 and not loss.is_shifted:
            found = (value.reshape(()), *found[1:])
        numbers += (*(found or _NOTHING), _share_of_off(part))
    numbers.append(_share_of_idle(loss.outputs, gradients, recorder, has_zeros))
    return {"numbers": _join(numbers, value.device).unsqueeze(0)}


def _join(numbers: Sequence[_Number], device: torch.device) -> Tensor:
    """Return numbers as one tensor; those that are not known become NaN."""
    if is_cheap_to_read(device):
        return torch.tensor(
            [math.nan if n is None else float(n) for n in numbers], dtype=torch.float64
        )
    wide = torch.float32 if device.type == "mps" else torch.float64
    unknown = torch.full((), math.nan, dtype=wide, device=device)
    return torch.stack(
        [
            unknown
            if n is None
            else n.to(unknown)
            if isinstance(n, Tensor)
            else torch.full_like(unknown, n)
            for n in numbers
        ]
    )


def _share_of_idle(
    outputs: Sequence[int],
    gradients: Mapping[int, Any],
    recorder: Recorder,
    has_zeros: Callable[[int], bool],
) -> _Number:
    """Return the share of examples whose gradient is zero in every output."""
    if len(outputs) == 1 and isinstance(gradients.get(outputs[0]), Tensor):
        gradient = gradients[outputs[0]]
        several = gradient.dim() > 0 and gradient.shape[0] > 1 and not gradient.is_sparse
        if several and gradient.numel() and not has_zeros(outputs[0]):
            return 0.0
    by_size: dict[int, Tensor] = {}
    for edge in outputs:
        active, gradient = recorder.active.get(edge), gradients.get(edge)
        if (
            active is None
            and isinstance(gradient, Tensor)
            and not gradient.is_sparse
            and gradient.numel()
        ):
            active = find_active(gradient)
        if active is not None and active.numel() > 1:
            known = by_size.get(active.numel())
            by_size[active.numel()] = active if known is None else active | known
    if not by_size:
        return None
    groups = list(by_size.values())
    active = groups[0] if len(groups) == 1 else torch.cat(groups)
    return 1.0 - active.sum() / active.numel()


def _share_of_off(part: Part) -> _Number:
    """Return the share of examples of which a rectifier stops the gradient of the right class."""
    passed, target = part.saved.get("passed"), part.saved.get("target")
    ignored = part.saved.get("ignore_index")
    if part.kind != "cross_entropy" or part.bounds is None or passed is None or target is None:
        return None
    by_class = passed.movedim(1, -1) if passed.dim() > 1 else passed
    by_class, right = by_class.reshape(-1, by_class.shape[-1]), target.detach().flatten()
    if ignored is None or len(by_class) != len(right):
        return None
    kept = right != (ignored if ignored < 2**63 else ignored - 2**64)
    by_class, right = by_class[kept], right[kept]
    if len(right) == 0:
        return None
    return (by_class.gather(1, right.unsqueeze(1)) <= part.bounds[0]).double().mean()


def _measure(part: Part, gradients: Mapping[int, Any]) -> _Numbers | None:
    saved = part.saved
    weight: Tensor | None = None
    if part.weights is not None:
        weight = gradients.get(part.weights)
        if not isinstance(weight, Tensor):
            return None
        weight = weight.detach()
    if "log_probabilities" in saved:
        return None if weight is None else _measure_soft(part, weight)
    target = saved.get("target")
    if not isinstance(target, Tensor) or (not part.reduction and weight is None):
        return None
    target = target.detach()
    if part.kind in ("cross_entropy", "nll"):
        return _measure_classes(part, target, weight)
    if part.kind.startswith("binary"):
        return _measure_binary(part, target, weight)
    return _measure_regression(part, target, weight)


def _measure_classes(part: Part, target: Tensor, weight: Tensor | None) -> _Numbers | None:
    """Of targets that are numbers of classes."""
    saved = part.saved
    classes, own = saved.get("classes"), saved.get("weight")
    ignored = saved.get("ignore_index")
    if classes is None or ignored is None:
        return None
    flat = target.flatten().cpu()
    mass = None
    if weight is not None and not part.reduction:
        mass = weight.flatten().cpu().double()
    kept = flat != (ignored if ignored < 2**63 else ignored - 2**64)
    if not bool(kept.all()):
        flat, mass = flat[kept], mass if mass is None else mass[kept]
    if own is not None:
        entry = own.detach().cpu().double()[flat]
        mass = entry if mass is None else mass * entry
    counts = torch.bincount(flat, weights=mass, minlength=classes).double()
    total = counts.sum()
    if not bool(total > 0):
        return None
    scale = torch.ones((), dtype=torch.float64)
    if part.reduction:
        scale = scale if weight is None else weight.sum().cpu().double()
        if part.reduction == "mean":
            scale = scale / total
    entropy = torch.special.entr(counts / total).sum() * total
    value: Tensor | None = None
    given = saved.get("self")
    if given is not None:
        picked = given.movedim(1, -1) if given.dim() > 1 else given
        picked = picked.reshape(-1, classes).cpu()
        picked = picked[kept] if len(kept) == len(picked) else picked
        each = -picked.gather(1, flat.unsqueeze(1)).squeeze(1).double()
        value = (each if mass is None else each * mass).sum() * scale
    # What "nll" reads need not be logarithms of probabilities. The larger something is that is
    # taken off, the better: that has no floor.
    if part.kind == "nll" or not bool(scale >= 0):
        return value, None, None if part.kind == "nll" else entropy * scale, None, None
    least = _reach_classes(part, classes)
    reach = None if least is None else total * least * scale
    return value, total * math.log(classes) * scale, entropy * scale, 0.0, reach


def _reach_classes(part: Part, classes: int) -> float | None:
    """Return the least cross-entropy of an example if logits lie in a range."""
    if part.bounds is None or not all(map(math.isfinite, part.bounds)):
        return None
    low, high = part.bounds
    return math.log1p((classes - 1) * math.exp(low - high))


def _measure_soft(part: Part, weight: Tensor) -> _Numbers | None:
    """Of targets that are probabilities, or any sum of log-probabilities with weights."""
    saved = part.saved
    dim = saved["dim"]
    dim = dim if dim < 2**63 else dim - 2**64
    logs = saved["log_probabilities"]
    mass = -weight.to(torch.float64 if weight.device.type != "mps" else torch.float32)
    largest = mass.abs().max()
    if not bool((mass >= -1e-9 * largest).all()):
        each = mass.sum(dim)  # of an example; one that is left out has none
        alike = (each == 0) | ((each - each.amin()).abs() <= _ALIKE * each.abs().amax())
        if bool((mass <= 0).all() & alike.all()):
            turned = _measure_soft_entropy(-mass, dim)  # its sign was turned
            return (mass * -logs).sum(), None, -turned, None, None
        part.kind = "custom"  # weights of both signs, as a policy gradient has them
        return None
    part.width = part.width or logs.shape[dim]
    mass = mass.clamp_min(0.0)
    value = torch.where(mass > 0, -mass * logs, 0.0).sum()
    rows = mass.sum(dim)
    shares = mass / rows.unsqueeze(dim).clamp_min(torch.finfo(mass.dtype).tiny)
    floor = (torch.special.entr(shares).sum(dim) * rows).sum()
    total = rows.sum()
    entropy = _measure_soft_entropy(mass, dim)
    guessing = total * math.log(logs.shape[dim])
    if part.is_shifted:  # Σ q (ln q − ln p)
        part.kind = "kl"
        return value - floor, guessing - floor, entropy - floor, 0.0, None
    return value, guessing, entropy, floor, None


def _measure_soft_entropy(mass: Tensor, dim: int) -> Tensor:
    """Return the cross-entropy of answers that all are the frequencies of the classes."""
    total = mass.sum()
    frequencies: Tensor = mass.movedim(dim, -1).reshape(-1, mass.shape[dim]).sum(0) / total
    return torch.special.entr(frequencies).sum() * total


def _scale(part: Part, target: Tensor, weight: Tensor | None) -> Tensor | float:
    """Return the weight of every entry in the loss: a tensor of its own shape, or one number."""
    if not part.reduction:
        assert weight is not None
        return weight
    scale = 1.0 if weight is None else weight.sum()
    return scale / target.numel() if part.reduction == "mean" else scale


def _measure_binary(part: Part, target: Tensor, weight: Tensor | None) -> _Numbers | None:
    """Of targets from 0 to 1, each by itself."""
    saved = part.saved
    scale: Tensor | float = _scale(part, target, weight)
    if isinstance(saved.get("weight"), Tensor):
        scale = scale * saved["weight"].detach()
    ratio = saved.get("pos_weight")
    ones = target * scale
    zeros = (1.0 - target) * scale
    if isinstance(ratio, Tensor):
        ones = ones * ratio.detach()
    is_turned = _is_turned(scale)
    if is_turned:  # the larger it is, the better: that has no floor
        ones, zeros = -ones, -zeros
    if not bool((ones >= 0).all() & (zeros >= 0).all()):
        return None
    both = ones + zeros
    guessing = both.sum() * math.log(2.0)
    floor = _measure_entropy(ones, both)
    constant = None
    if _count_rows(target) > 1:
        constant = _measure_entropy(_sum_rows(ones), _sum_rows(both))
    reach = None
    if part.rectifier is not None and part.bounds is not None:
        reach = _reach_binary(ones, zeros, part.bounds)
    value = None
    given = saved.get("self")
    if given is not None:
        if part.kind == "binary_cross_entropy":
            logs = given.log().clamp_min(-100.0), (1.0 - given).log().clamp_min(-100.0)
        else:
            logs = nn.functional.logsigmoid(given), nn.functional.logsigmoid(-given)
        value = -(ones * logs[0] + zeros * logs[1]).sum()
    if is_turned:
        value, constant = (None if each is None else -each for each in (value, constant))
        return value, None, constant, None, None
    return value, guessing, constant, floor, reach


def _reach_binary(ones: Tensor, zeros: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the least that logits in a range cost, where there is this much of ones and zeros."""
    best = (ones / zeros.clamp_min(torch.finfo(zeros.dtype).tiny)).log().clamp(*bounds)
    costs: Tensor = torch.where(ones > 0, ones * nn.functional.softplus(-best), 0.0)
    return (costs + torch.where(zeros > 0, zeros * nn.functional.softplus(best), 0.0)).sum()


def _is_turned(scale: Tensor | float) -> bool:
    """Whether all entries have the same weight in the loss, and it is negative."""
    if not isinstance(scale, Tensor):
        return scale < 0.0
    if scale.numel() == 0 or not bool((scale < 0).all()):
        return False
    return bool(scale.amax() - scale.amin() <= 1e-6 * scale.abs().amax())


def _measure_entropy(ones: Tensor, both: Tensor) -> Tensor:
    """Return Σ of the weighted binary entropies."""
    share = ones / both.clamp_min(torch.finfo(both.dtype).tiny)
    entropy: Tensor = torch.special.entr(share) + torch.special.entr((1.0 - share).clamp_min(0.0))
    return (entropy * both).sum()


def _measure_regression(part: Part, target: Tensor, weight: Tensor | None) -> _Numbers | None:
    """Of targets that are any numbers."""
    if not target.is_floating_point():
        return None
    value = None
    given = part.saved.get("self")
    scale = _scale(part, target, weight)
    if given is not None:
        value = (_penalize(part, given - target) * scale).sum()
    if _is_turned(scale):
        turned = None  # the larger it is, the better: that has no floor
        if part.kind == "mse" and _count_rows(target) > 1:
            rows = _list_rows(target)
            each = scale.flatten()[0] if isinstance(scale, Tensor) else scale
            turned = (rows - rows.mean(0)).square().sum() * each
        return value, None, turned, None, None
    reach = None
    if part.bounds is not None:
        reach = (_penalize(part, target.clamp(*part.bounds) - target) * scale).sum()
    if _count_rows(target) < 2:
        return value, None, None, 0.0, reach
    rows = _list_rows(target)
    if not isinstance(scale, Tensor) or scale.dim() == 0:
        if part.kind == "mse":
            guessing = (rows - rows.mean(0)).square().sum() * scale
        else:
            # PyTorch takes a wrong median of a tensor that was expanded.
            centre = rows.contiguous().median(dim=0).values
            guessing = (_penalize(part, rows - centre) * scale).sum()
        guessing = _leave_out_rounding(part, guessing, target, scale)
        return value, guessing, guessing, 0.0, reach
    scale = _list_rows(scale.expand_as(target))
    if not bool((scale >= 0).all()):
        return None
    if part.kind == "mse":
        total = scale.sum(0).clamp_min(torch.finfo(scale.dtype).tiny)
        centre = (rows * scale).sum(0) / total
    else:
        centre = _find_median(rows, scale)
    guessing = (_penalize(part, rows - centre) * scale).sum()
    guessing = _leave_out_rounding(part, guessing, rows, scale)
    return value, guessing, guessing, 0.0, reach


def _leave_out_rounding(
    part: Part, guessing: Tensor, target: Tensor, scale: Tensor | float
) -> Tensor:
    """Return what guessing costs: 0 if targets differ by rounding only, NaN if none can tell.

    Targets of a difference that was written by hand are what is left of the output without it, so
    they are as rough as the larger of the two.
    """

    def cost(values: Tensor, factor: float = 1.0) -> Tensor:
        return (_penalize(part, factor * values) * scale).sum()

    rounding = 4.0 * torch.finfo(target.dtype).eps
    known = guessing <= cost(target, rounding)
    given = part.saved.get("self")
    if "sign" in part.saved and given is not None:
        given = given.reshape(target.shape)
        is_rough = guessing <= cost(given, rounding)
        known = known | (is_rough & (cost(given) <= _ROUGH * cost(target)))
        guessing = torch.where(is_rough, math.nan, guessing)
    return torch.where(known, 0.0, guessing)


def _find_median(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the value of each column with half of its weight on either side, the lower of two."""
    ordered, order = rows.sort(0)
    wide = torch.float32 if rows.device.type == "mps" else torch.float64
    mass = weights.gather(0, order).to(wide).cumsum(0)
    place = (mass < mass[-1:] / 2).sum(0, keepdim=True)
    return ordered.gather(0, place).squeeze(0)


def _penalize(part: Part, difference: Tensor) -> Tensor:
    """Return what each difference costs."""
    if part.kind == "mse":
        return difference.square()
    if part.kind == "l1":
        return difference.abs()
    nothing = torch.zeros_like(difference)
    if part.kind == "huber":
        return nn.functional.huber_loss(
            difference, nothing, reduction="none", delta=part.saved["delta"]
        )
    return nn.functional.smooth_l1_loss(
        difference, nothing, reduction="none", beta=part.saved["beta"]
    )


def _list_rows(tensor: Tensor) -> Tensor:
    """Return a tensor as [answers, features]: the second dimension of images, else the last."""
    if tensor.dim() < 2:
        return tensor.reshape(-1, 1)
    moved = tensor.movedim(1, -1) if tensor.dim() > 3 else tensor
    return moved.reshape(-1, moved.shape[-1])


def _count_rows(tensor: Tensor) -> int:
    return _list_rows(tensor).shape[0] if tensor.numel() else 0


def _sum_rows(tensor: Tensor) -> Tensor:
    return _list_rows(tensor).sum(0)
