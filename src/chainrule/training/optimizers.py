"""Optimizers of copies: the one that is given, made again for the parameters of a copy."""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from chainrule._utils.numbers import format_number
from chainrule.errors import ChainruleError, InspectionError
from chainrule.flow.optimizer import SUITED_EPSILON
from chainrule.flow.trial import OptimizerTrial
from chainrule.measure.divisors import DIVIDING, is_lost
from chainrule.measure.inspection import describe_error
from chainrule.measure.optimizers import read_planned_rate

OptimizerLike = torch.optim.Optimizer | Callable[[Any], torch.optim.Optimizer]
"""An optimizer of a model's parameters, or a function that makes one from a list of them."""

NO_ROOM = (torch.OutOfMemoryError, MemoryError)
"""Errors that mean that there is no room."""

PASSED_ON = (ChainruleError, *NO_ROOM)
"""Errors that say all there is to say, or mean that there is no room."""


def rebuild_optimizer(
    model: nn.Module,
    copied: nn.Module,
    optimizer: OptimizerLike,
    notes: list[str] | None = None,
) -> torch.optim.Optimizer:
    """Return an optimizer of the copy's parameters as the given one is of the model's.

    Args:
        model: The model.
        copied: A copy of it.
        optimizer: An optimizer of the model's parameters, or a function that makes one.
        notes: Receives sentences on parameters that one of them lacks.

    Raises:
        InspectionError: If that is not possible.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        try:
            made = optimizer([p for p in copied.parameters() if p.requires_grad])
        except PASSED_ON:
            raise
        except Exception as error:
            raise InspectionError(
                "optimizer must return a torch.optim.Optimizer when it is called with a list of "
                f"parameters, but it raised {describe_error(error)}."
            ) from error
        if not isinstance(made, torch.optim.Optimizer):
            raise InspectionError(
                "optimizer must return a torch.optim.Optimizer when it is called with a list of "
                f"parameters; got {type(made).__name__}."
            )
        return made
    twins = {id(p): twin for p, twin in zip(model.parameters(), copied.parameters(), strict=True)}
    notes = [] if notes is None else notes
    groups = []
    missing = 0
    for group in optimizer.param_groups:
        own = [twins[id(p)] for p in group["params"] if id(p) in twins]
        missing += len(group["params"]) - len(own)
        settings = {key: copy.deepcopy(held) for key, held in group.items() if key != "params"}
        groups.append({**settings, "params": own})
    held = {id(p) for group in groups for p in group["params"]}
    if not held:
        raise InspectionError(
            "optimizer must hold parameters of the model, but it holds none of them. Build it "
            "from model.parameters() after the model is complete."
        )
    trained = [p for p in copied.parameters() if p.requires_grad]
    if left_out := sum(id(p) not in held for p in trained):
        notes.append(f"The optimizer does not hold {left_out} of {len(trained)} parameters.")
    if missing:
        notes.append(f"The optimizer holds {missing} parameters that the model does not have.")
    if missing:
        groups = [group for group in groups if group["params"]]
    made = _construct(optimizer, groups)
    if not missing:
        made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return made


def choose_settings(name: str, model: nn.Module) -> dict[str, float]:
    """Return what an optimizer of a trial is given beside a rate, for weights in float16."""
    trained = [p for p in model.parameters() if p.requires_grad]
    is_narrow = any(is_lost(_USUAL, p.dtype) for p in trained)
    return {"eps": SUITED_EPSILON} if name == "Adam" and is_narrow else {}


def describe_format(model: nn.Module, tried: Sequence[OptimizerTrial]) -> list[str]:
    """Return in a sentence that trainings were done in float16, if some weights are kept in it."""
    if not any(p.requires_grad and p.dtype is torch.float16 for p in model.parameters()):
        return []
    given = "".join(
        f" {each.name} was given {each.settings}, since float16 rounds its usual ε to 0."
        for each in tried
        if each.settings
    )
    return [
        "Weights are kept in float16, and so they were in these trainings: what they show holds "
        f"for this format.{given}"
    ]


_USUAL = 1e-8
"""The ε of Adam, unless it is told otherwise."""


def describe_lost(optimizer: torch.optim.Optimizer) -> str:
    """Return which ε the format of the weights rounds to 0, in a clause; "" if none."""
    for group in optimizer.param_groups:
        epsilon = group.get("eps")
        if not isinstance(epsilon, int | float) or group.get("fused"):
            continue
        for each in group["params"]:
            if isinstance(optimizer, DIVIDING) and is_lost(epsilon, each.dtype):
                kept = str(each.dtype).removeprefix("torch.")
                return (
                    f"{type(optimizer).__name__} divides by the root of squared gradients plus an "
                    f"ε of {format_number(epsilon)}, which {kept}, the format of the weights, "
                    "rounds to 0: so it divides by 0 where these squares are too small for it, too"
                )
    return ""


_FAR_BELOW = 0.01
"""Share of the rate that a schedule leads to, below which the rate of now is that of its start."""


def follow_schedule(optimizer: torch.optim.Optimizer) -> str:
    """Give the groups the rates that a schedule leads to, where all are far below them now.

    Args:
        optimizer: An optimizer of a copy; no schedule will raise its rates.

    Returns:
        What was done, in a sentence; "" if nothing was.
    """
    groups = optimizer.param_groups
    pairs = [(float(group.get("lr", 0.0)), read_planned_rate(group)) for group in groups]
    if not pairs or not all(now < _FAR_BELOW * planned for now, planned in pairs):
        return ""
    for group, (_, planned) in zip(groups, pairs, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(planned)
        else:
            group["lr"] = planned
    now, planned = pairs[0]
    return (
        f"The learning rate is {format_number(now)} now, and a schedule leads to "
        f"{format_number(planned)}, which was tried. Steps that are taken before it rises change "
        "little or nothing: all of the first epoch, if it is stepped once per epoch."
    )


def _construct(optimizer: torch.optim.Optimizer, groups: list[Any]) -> torch.optim.Optimizer:
    kind: Any = type(optimizer)
    known = inspect.signature(kind.__init__).parameters
    settings = {
        key: copy.deepcopy(held) for key, held in optimizer.defaults.items() if key in known
    }
    try:
        made = kind(groups, **settings)
    except Exception as error:
        raise InspectionError(
            f"optimizer must be one that can be made again for a copy of the model, but "
            f"{kind.__name__} raised {type(error).__name__}: {error}. Give a function that makes "
            "it: try_training(model, compute_loss, lambda parameters: ...)."
        ) from error
    assert isinstance(made, torch.optim.Optimizer)
    return made


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a step of an optimizer needs a function that computes the loss again."""
    parameter = inspect.signature(optimizer.step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty
