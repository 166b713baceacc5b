"""Why nothing, or less than usual, could be tried on a model, in sentences."""

from collections.abc import Sequence

from torch import nn

from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rules import Verdict, list_unreached
from chainrule.errors import ChainruleError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.copying import quote_error
from chainrule.remedies.result import find_curable

NAMED = 8
"""Most names that are listed."""


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
    if find_curable(diagnosis, flow).verdict is Verdict.NO_GRADIENT:
        return (
            "Nothing was tried: where no path leads from the loss to the weights, no change of "
            "weights helps."
        )
    size = measure_size(model)
    if size > copy_limit:
        return (
            f"Nothing was tried: a copy of the model takes {size / 2**20:,.0f} MiB and copy_limit "
            f"allows {copy_limit / 2**20:,.0f}. What follows is advice only."
        )
    return ""


def measure_size(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers: what a copy of it takes."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def describe_unreached(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    """Return which weights stay unreached whatever is changed; "" if that is all, or none do."""
    names = list_unreached(flow)
    if not names or find_curable(diagnosis, flow) is diagnosis:
        return ""
    return (
        f"Beside what changes of weights can help, the loss does not reach {_list(names)}; no "
        "change of weights alters that. If they are meant to learn, look for an unused module, "
        "detach() or no_grad()."
    )


def describe_repeat(error: ChainruleError) -> str:
    """Return that the loss ran on the model, but not on a copy of it."""
    return (
        "Nothing was tried: the loss was computed once, but computing it again on an unchanged "
        f"copy of the model raised {quote_error(error.__cause__ or error)}. compute_loss must be "
        "able to run many times: let it use the same batch each time, drawn before, rather than "
        "take the next one. What follows is advice only."
    )


def describe_failures(errors: Sequence[ChainruleError], changes: int) -> str:
    """Return for how many changes the loss could not be measured, and why; "" for none."""
    if not errors:
        return ""
    first = errors[0].__cause__ or errors[0]
    return (
        f"{len(errors)} of {changes} changes could not be measured: on the copy, the "
        f"loss raised {quote_error(first)}. compute_loss must be able to run many times on the "
        "same batch."
    )


def describe_nothing_listed(flow: GradientFlow) -> str:
    """Return why there is no change to try on a model's weights."""
    names = [p.name for p in flow.parameters if p.status == "measured"]
    return (
        f"Nothing was tried: what can be trained is {_list(names)}, and no known kind of layer "
        "owns any of it. Changes are known for the weights of linear, convolutional, recurrent "
        "and embedding layers and of attention. Weights that forward() uses directly can be drawn "
        "anew by hand, for example with torch.nn.init.kaiming_normal_(weight). What follows is "
        "advice only."
    )


def describe_no_budget() -> str:
    """Return that the number of measurements left none for a change."""
    return (
        "Nothing was tried: `measurements` leaves none for a change, as the model itself takes "
        "the first and an unchanged copy the second. What follows is advice only."
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NAMED]))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
