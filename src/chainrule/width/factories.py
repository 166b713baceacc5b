"""`check_factory`: the check of a width for a function that builds everything that one model needs.

The same function serves `chainrule inspect` (where it needs no arguments) and `chainrule sweep`.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chainrule.errors import InspectionError
from chainrule.training.optimizers import rebuild_optimizer
from chainrule.width.check import SEEDS, STEPS, Progress, call_named, check_width
from chainrule.width.records import WidthCheck

FORM = "(model, compute_loss) or (model, compute_loss, optimizer)"


@dataclass(slots=True)
class _Built:
    """What the factory built last: `check_width` is done with a model before it asks for more."""

    model: nn.Module
    compute_loss: Callable[[nn.Module], Any]
    optimizer: Any


def check_factory(
    factory: Callable[..., Any],
    widths: Sequence[int],
    *,
    steps: int = STEPS,
    seeds: int = SEEDS,
    progress: Progress | None = None,
) -> WidthCheck:
    """Check a model whose factory takes a width and returns the model, its loss and its optimizer.

    Args:
        factory: Called with the width, by the name `width` if it has such an argument. It returns
            (model, compute_loss) or (model, compute_loss, optimizer), `compute_loss` as for
            `chainrule.inspect`. Without an optimizer, it is PyTorch's Adam. Random numbers start
            from the number of the seed, so a factory that draws its data before its model gives
            every width the same data.
        widths: As for `check_width`, like all that follows.
        steps: Steps of training.
        seeds: Models per width.
        progress: Called with (models done, models in all).

    Raises:
        InspectionError: If the factory returns something else, or as for `check_width`.
        ChainruleError: If a number is not legal.

    Example:
        >>> def build(width):
        ...     x = torch.randn(8, 4)
        ...     model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
        ...     return model, lambda model: model(x).square().mean()
        >>> check_factory(build, [16, 32, 64]).optimizer
        'Adam'
    """
    name = getattr(factory, "__name__", "factory")
    call = _find_call(factory, name)
    built: list[_Built] = []

    def make_model(width: int) -> nn.Module:
        built[:] = [_read(call_named(name, call, width), f"{name}({width})")]
        return built[0].model

    def compute_loss(model: nn.Module, _: None) -> Any:
        return built[0].compute_loss(model)

    def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return rebuild_optimizer(built[0].model, model, built[0].optimizer)

    return check_width(
        make_model,
        widths,
        lambda: None,
        compute_loss,
        optimizer=make_optimizer,
        steps=steps,
        seeds=seeds,
        progress=progress,
    )


def _find_call(factory: Callable[..., Any], name: str) -> Callable[[int], Any]:
    """Return how the factory is called with a width."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # of a builtin, nobody knows
        return factory
    has_width = "width" in signature.parameters
    try:
        signature.bind(**{"width": 1}) if has_width else signature.bind(1)
    except TypeError as error:
        raise InspectionError(
            f"{name} must take a width, and nothing else that has no default; {error}. Write "
            f"def {name}(width)."
        ) from None
    return (lambda width: factory(width=width)) if has_width else factory


def _read(result: object, what: str) -> _Built:
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise InspectionError(f"{what} must return {FORM}; got {type(result).__name__}.")
    model, compute_loss, optimizer = (*result, None)[:3]
    if not isinstance(model, nn.Module) or not callable(compute_loss):
        raise InspectionError(
            f"{what} must return {FORM}: a torch.nn.Module and a function of it; got "
            f"({type(model).__name__}, {type(compute_loss).__name__})."
        )
    return _Built(model, compute_loss, torch.optim.Adam if optimizer is None else optimizer)
