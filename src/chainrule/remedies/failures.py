"""Sentences that say why no change, or not every change, could be tried on a model."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.origins import is_of_formula
from chainrule.diagnosis.reach import list_unreached
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.copying import find_shared_memory, find_uncopied, measure_size
from chainrule.remedies.result import find_curable

NAMED = 8
"""Most names that are listed."""

LONGEST = 300
"""Most characters of a quoted error."""


_OUTSIDE: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.OUTPUT: "what the loss is given has to change, and weights do not change that.",
        Verdict.INPUTS: "the inputs have to change, and weights do not change them.",
        Verdict.UNDERFLOW: "the number format or the scale of the loss has to change, not the "
        "weights.",
        Verdict.OPTIMIZER: "the optimizer has to change, not the weights.",
        Verdict.LEARNING_RATE: "the optimizer has to change, not the weights.",
    }
)
"""Why no change of weights is tried, for what is wrong outside of them."""


def find_obstacle(
    model: nn.Module, flow: GradientFlow, diagnosis: Diagnosis, copy_limit: int
) -> str:
    """Return why nothing can be tried on a copy; "" if it can.

    Args:
        model: The model.
        flow: Its measurement.
        diagnosis: What that means.
        copy_limit: Most bytes of parameters and buffers.
    """
    if not flow.parameters:
        return "Nothing was tried: the model has no parameters, so there is nothing to change."
    curable = find_curable(diagnosis, flow)
    # Where two factors of a product are zero there is a path, and other weights open it.
    if curable.verdict is Verdict.NO_GRADIENT and curable.findings[0].rule != "zero_product":
        return (
            "Nothing was tried: no path leads from the loss to the weights, and without one no "
            "change of weights helps."
        )
    if (outside := _OUTSIDE.get(curable.verdict)) is not None:
        return f"Nothing was tried: {outside} What follows is advice only."
    origin = flow.origin if curable.verdict is Verdict.NON_FINITE else None
    if origin is not None and is_of_formula(origin):
        return (
            f"Nothing was tried: {origin.op} in {origin.place} is not defined at values that it "
            "gets. Other weights would only move the place where that happens. What follows is "
            "advice only."
        )
    size = measure_size(model)
    if size > copy_limit:
        return (
            f"Nothing was tried: a copy of the model takes {size / 2**20:,.0f} MiB and copy_limit "
            f"allows {copy_limit / 2**20:,.0f} MiB. What follows is advice only."
        )
    return describe_shared_memory(model)


def describe_shared_memory(model: nn.Module) -> str:
    """Return that two parameters share memory without being one; "" if none do."""
    names = find_shared_memory(model)
    if names is None:
        return ""
    one, other = names
    return (
        f"Nothing was tried: changes are tried on a copy, but parameters {one!r} and {other!r} are "
        "two tensors in the same memory, and a copy would separate them. Make them one parameter "
        "(assign the parameter itself, not its .data), or give each its own memory (.data = "
        ".data.clone()). What follows is advice only."
    )


def describe_uncopied(model: nn.Module, error: Exception) -> str:
    """Return which attribute of a model cannot be copied, why, and what to do, in sentences.

    Args:
        model: The model.
        error: What copying it raised.
    """
    found = find_uncopied(model, error)
    kind = f" (of type {found.kind})" if found.kind else ""
    return (
        f"Nothing was tried: changes are tried on a copy, but {found.place}{kind} cannot be copied."
        f" Copying raised {quote_error(found.error)}. Set it to None while you look for remedies, "
        "or give its class a __deepcopy__ method. What follows is advice only."
    )


def quote_error(error: BaseException) -> str:
    """Return the kind of an error and the first sentence of what it says, without its full stop."""
    text = " ".join(str(error).split())
    text = re.split(r"(?<=[.!?]) (?=[A-Z])", text, maxsplit=1)[0].rstrip(".")
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rpartition(' ')[0]} …"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_unreached(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    """Return which weights stay unreached whatever is changed; "" if that is all, or none do."""
    names = list_unreached(flow)
    if not names or all(each.rule in IGNORED_BY_REMEDIES for each in diagnosis.findings):
        return ""
    return (
        f"In addition, the loss does not reach {_list(names)}. No change of weights alters that. "
        "If they are meant to learn, look for an unused module, detach() or no_grad()."
    )


def describe_repeat(error: str) -> str:
    """Return that the loss ran on the model, but not on a copy of it."""
    return (
        "Nothing was tried: the loss was computed once, but computing it again on an unchanged "
        f"copy of the model raised {error}. compute_loss must be able to run many times. Draw a "
        "batch before, and use the same batch each time. What follows is advice only."
    )


def describe_failures(errors: Sequence[str], changes: int) -> str:
    """Return how many changes could not be measured, and why; "" for none."""
    if not errors:
        return ""
    return (
        f"{len(errors)} of {changes} changes could not be measured: on the copy, the first of them "
        f"raised {errors[0]}. compute_loss must be able to run many times on the same batch."
    )


def describe_nothing_listed(model: nn.Module, flow: GradientFlow) -> str:
    """Return why there is no change to try on a model's weights."""
    names = [p.name for p in flow.parameters if p.status == "measured"]
    complex_ = {name for name, tensor in model.named_parameters() if tensor.is_complex()}
    if complex_.issuperset(names):
        why = (
            "all of these are complex. The initializations that chainrule knows are for real "
            "weights. Complex"
        )
    else:
        why = (
            "none of these belongs to a layer that chainrule knows. It can change the real weights "
            "of linear, convolutional, recurrent and embedding layers and of attention. Other"
        )
    return (
        f"Nothing was tried: the trainable parameters are {_list(names)}, and {why} weights can be "
        "drawn by hand, for example with torch.nn.init.normal_(weight, std=0.02). What follows is "
        "advice only."
    )


def describe_no_budget() -> str:
    """Return that the number of measurements left none for a change."""
    return (
        "Nothing was tried: `measurements` must be at least 3, because the model itself takes the "
        "first and an unchanged copy the second. What follows is advice only."
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NAMED]))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
