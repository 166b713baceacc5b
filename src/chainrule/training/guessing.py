"""What guessing gives: the loss of the best answer that is the same for every example.

A model that falls from a loss of 50 to this level has learned nothing of its inputs. The level is
measured: the answers of the model are replaced by one constant per feature, and that is fitted to
the batches that are kept aside, together with some of those that are trained on. So no chance of
the draw can make a model look better than a constant that knows as much.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.training.batches import HALF, Batches

_FITTED = 3
"""Batches of training that the constant is fitted to, in addition to those kept aside."""

_ENDLESS = 0.5
"""A loss that falls by so much of its fall again, at twice the distance, has no lowest value."""

_STEPS = 20
"""Most steps of L-BFGS."""


def measure_guessing(model: nn.Module, batches: Batches) -> float | None:
    """Return the mean loss of the best constant answer on the batches kept aside.

    Args:
        model: A copy of the model; its `forward` is replaced meanwhile.
        batches: Where batches come from.

    Returns:
        The loss, or `None` where it makes no sense: the loss does not come from one tensor that
        the model returns for several examples.
    """
    if not batches.chosen:
        return None
    original, own = model.forward, vars(model).get("forward")
    answer: list[Tensor] = []
    shapes: dict[tuple[Any, ...], torch.Size] = {}
    uses = [0]

    def respond(*args: Any, **options: Any) -> Tensor:
        inputs = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
        key = tuple(x.shape for x in inputs)
        if key not in shapes:
            with torch.no_grad():
                output = original(*args, **options)
            if not _is_answer(output, inputs):
                raise _NoAnswerError
            shapes[key] = output.shape
            batches.counter.passes += HALF
            if not answer:
                answer.append(_start(output))
        uses[0] += 1
        return answer[0].expand(shapes[key])

    try:
        model.forward = respond
        return _fit(model, batches, answer, uses)
    except Exception:  # with other outputs, anything may go wrong in the loss
        return None
    finally:
        del model.forward
        if own is not None:
            model.forward = own


class _NoAnswerError(Exception):
    """The model does not return one tensor with an answer per example."""


def _is_answer(output: Any, inputs: list[Tensor]) -> bool:
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.dim() >= 1
        and len(output) >= 2
        and any(len(output) in x.shape for x in inputs)  # time may come before the examples
        and bool(output.isfinite().all())
    )


def _start(output: Tensor) -> Tensor:
    """Return one value per feature (channel of maps): the mean of the answers there are."""
    features = {1: 0, 4: 1, 5: 1}.get(output.dim(), output.dim() - 1)
    dims = [dim for dim in range(output.dim()) if dim != features or output.dim() == 1]
    return output.detach().mean(dims, keepdim=True).requires_grad_()


def _fit(model: nn.Module, batches: Batches, answer: list[Tensor], uses: list[int]) -> float | None:
    fitted = [(number, True) for number in range(batches.kept)]
    fitted += [(number, False) for number in range(_FITTED if batches.fresh else 0)]
    count = len(fitted)

    def compute() -> Tensor:
        losses = [batches.compute(model, number, kept) for number, kept in fitted]
        return torch.stack([loss.float() for loss in losses]).mean()

    compute()
    if uses[0] != count or not answer:  # several answers per loss are no single guess
        return None
    starts = answer[0].detach(), torch.zeros_like(answer[0])
    levels = []
    for start in starts:  # far from the best answer, a loss may be too steep to come back
        answer[0] = start.clone().requires_grad_()
        _descend(answer, compute)
        losses = [float(batches.compute(model, at, True).detach()) for at in range(batches.kept)]
        level = sum(losses) / len(losses)
        if _has_no_floor(answer, start, compute):
            return None
        levels += [level] if math.isfinite(level) else []
    return min(levels, default=None)


def _has_no_floor(answer: list[Tensor], start: Tensor, compute: Callable[[], Tensor]) -> bool:
    """Whether the loss of a constant answer falls without an end, so that none is the best.

    At the best answer, going on in the same direction raises the loss, or moves it little. Where
    twice the way gives twice the fall (a critic's score, minus a distance), there is none.
    """
    found = answer[0].detach()
    losses = []
    for each in (start, found, start + 2.0 * (found - start)):
        answer[0] = each.clone().requires_grad_()
        losses.append(float(compute().detach()))
    answer[0] = found
    origin, level, further = losses
    return level - further > _ENDLESS * (origin - level) > 0.0


def _descend(answer: list[Tensor], compute: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(answer, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def close() -> Any:
        optimizer.zero_grad()
        loss = compute()
        (answer[0].grad,) = torch.autograd.grad(loss, answer)
        return loss.detach()

    optimizer.step(close)
