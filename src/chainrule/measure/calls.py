"""Calls of PyTorch's functions by the user's code: what was called, and with which tensors.

Below autograd a call falls into parts: `torch.logdet` writes NaN into a tensor and selects from it.
What makes a number must be named by what was called.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from chainrule._utils.numbers import format_number
from chainrule.measure.alignments import find_short
from chainrule.measure.elements import has_nan, is_finite, read_plain
from chainrule.measure.operations import Operation, name_operation
from chainrule.measure.results import find_tensors


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of one of PyTorch's functions.

    Attributes:
        name: The name of the function without its module: "logdet".
        args: Its positional arguments.
        kwargs: Its other arguments.
    """

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """The real numbers of the tensors that were given."""
        found = find_tensors((tuple(self.args), dict(self.kwargs)))
        plain = (read_plain(tensor) for _, tensor in found)
        return [each for each in plain if each is not None]

    @property
    def holds_nan(self) -> bool:
        """Whether NaN was given to it, as a number or in a tensor."""
        return any(map(math.isnan, _list_numbers((self.args, self.kwargs)))) or any(
            map(has_nan, self.tensors)
        )


class FollowCalls(TorchFunctionMode):
    """Knows which function of PyTorch the user's code has called, the outermost one.

    Attributes:
        current: The call that runs; `None` between calls, and in a backward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current: Call | None = None

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function, and remember it as long as it runs."""
        before, kwargs = self.current, kwargs or {}
        name = str(getattr(func, "__name__", ""))
        self.current = None if name in _BACKWARD else Call(name, args, kwargs)
        try:
            return func(*args, **kwargs)
        finally:
            self.current = before


def name_within(call: Call | None, words: str) -> str:
    """Return the name of the call that an operation is a part of; "" if it is the whole of it.

    Args:
        call: The call.
        words: What the operation is called.

    Example:
        >>> name_within(Call("corrcoef", (), {}), "division")
        'corrcoef'
        >>> name_within(Call("div", (), {}), "division")
        ''
    """
    if call is None or call.name.startswith("__") or words in _WHOLE:
        return ""
    own = name_operation(call.name)
    name, plain = (re.sub("[_ ]", "", text) for text in (own, words))
    return "" if not name or plain in name or name in plain else own


def describe_call(operation: Operation, call: Call | None, output: Tensor) -> str:
    """Return why an operation cannot give a number, in a clause; "" if nothing more is known.

    Args:
        operation: The operation.
        call: The function that it is a part of.
        output: What it gave, which is not finite.
    """
    if operation.name in _ALIGNMENTS:
        found = find_short(operation.args[_ALIGNMENTS[operation.name] :])
        return found.sentence if found is not None and found.short else ""
    if call is not None and call.name == "logdet" and call.tensors:
        return _describe_determinant(call.tensors[0])
    given = [t for _, t in find_tensors((tuple(operation.args), dict(operation.kwargs)))]
    return _describe_arguments(operation, given, output)


def _describe_arguments(operation: Operation, given: Sequence[Tensor], output: Tensor) -> str:
    if operation.name in ("_linalg_slogdet", "linalg_inv_ex") and given:
        return "the determinant is 0: the matrix has no inverse"
    if operation.name in _AVERAGES and given:
        if given[0].numel() == 0:
            return "no element went in: the mean of nothing is undefined"
        if operation.name.startswith("nll_loss"):
            return "no target counts: all are left out (ignore_index), or their weights are 0"
    if operation.name in _SPREADS and given and given[0].numel() <= output.numel():
        return (
            "each deviation is that of a single element: dividing by their number − 1 divides by 0"
        )
    return ""


def _describe_determinant(matrices: Tensor) -> str:
    if not is_finite(matrices):
        return ""
    found = torch.linalg.det(matrices.float()).flatten()
    negative = found[found < 0]
    if not len(negative):
        return ""
    which = "the determinant" if len(found) == 1 else f"one of the {len(found):,} determinants"
    value = format_number(float(negative[0]))
    return f"{which} is {value}, and a number below 0 has no logarithm"


def _list_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _list_numbers(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _list_numbers(each)


_ALIGNMENTS = {"_ctc_loss": 0, "_ctc_loss_backward": 1}
"""Operations about sequences and their labels, and where their arguments begin."""

_AVERAGES = frozenset(
    [
        "mean",
        "mse_loss",
        "smooth_l1_loss",
        "huber_loss",
        "binary_cross_entropy",
        "soft_margin_loss",
        "nll_loss_forward",
        "nll_loss2d_forward",
    ]
)
"""Operations that divide by how many elements there are."""

_SPREADS = frozenset(["std", "var", "std_mean", "var_mean"])

_BACKWARD = frozenset(["backward", "grad"])

_WHOLE = frozenset(
    [
        "matrix product",
        "convolution",
        "layer normalization",
        "group normalization",
        "batch normalization",
        "scaled_dot_product_attention",
        "embedding",
        "where",
    ]
)
"""Operations whose name says more than that of the call."""
