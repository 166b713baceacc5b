"""Operations of PyTorch below autograd: what they are called, write, mix and keep."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from chainrule.measure._torch_internals import list_saved as list_saved_by_name
from chainrule.measure.elements import has_nan, is_finite, read_plain
from chainrule.measure.results import find_tensors


@dataclass(frozen=True, slots=True)
class Operation:
    """A call of an operation."""

    function: Any
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @property
    def numbers(self) -> list[float]:
        """The numbers among its arguments that are no tensors."""
        found = [*self.args, *self.kwargs.values()]
        return [float(x) for x in found if isinstance(x, (int, float)) and not isinstance(x, bool)]

    @property
    def is_pointwise(self) -> bool:
        """Whether each element comes from the elements at the same place."""
        return torch.Tag.pointwise in getattr(self.function, "tags", ())


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that went into an operation: its values then, and the memory that it lies in."""

    values: Tensor
    memory: int | None


def get_operation_name(function: Any) -> str:
    """Return the name of an operation without name space and overload: "log_softmax"."""
    packet = getattr(function, "overloadpacket", None)
    return str(getattr(packet or function, "__name__", function))


def list_written(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation writes to in place."""
    if not schema.is_mutable:
        return []
    found = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [tensor for _, tensor in find_tensors(value)]
    return found


def is_view(schema: Any) -> bool:
    """Whether an operation returns memory that it was given."""
    return any(each.alias_info is not None for each in schema.returns)


MASKED_ROW = "softmax of a row that is masked everywhere"

ROW_WISE = frozenset(
    [
        "_softmax",
        "_log_softmax",
        "_safe_softmax",
        "softmax",
        "log_softmax",
        "_masked_softmax",
        "_sparse_softmax",
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    ]
)
"""Operations that divide by the sum of a row of exponentials, which is 0 if all is −∞."""

MIXES = frozenset(
    [
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "mv",
        "addmv",
        "dot",
        "convolution",
        "_convolution",
        "convolution_overrideable",
        "mkldnn_convolution",
        "linear",
        "mean",
        "sum",
        "var",
        "std",
        "native_layer_norm",
        "native_batch_norm",
        "native_group_norm",
        "_native_batch_norm_legit",
        "cudnn_batch_norm",
        "miopen_batch_norm",
    ]
)
"""Operations that read infinity as a number; for others it may stand for "not this one"."""

OVERWRITES = frozenset(
    [
        "copy_",
        "fill_",
        "zero_",
        "normal_",
        "uniform_",
        "bernoulli_",
        "random_",
        "exponential_",
        "cauchy_",
        "geometric_",
        "log_normal_",
        "resize_",
        "set_",
        "_foreach_copy_",
        "_foreach_zero_",
    ]
)
"""Operations in place that do not look at what was there."""

MAKES_GARBAGE = frozenset(
    [
        "empty",
        "empty_like",
        "empty_strided",
        "empty_permuted",
        "new_empty",
        "new_empty_strided",
        "resize",
        "resize_",
        "_efficientzerotensor",
        "set_",
    ]
)
"""Operations whose output holds whatever was in memory before."""

CONSTANTS = frozenset(["scalar_tensor", "full", "fill", "fill_", "new_full", "full_like"])
"""Operations that write one number everywhere, often as a part of what was called."""

INVERTS = frozenset(["div", "div_", "true_divide", "reciprocal", "reciprocal_", "rsqrt", "rsqrt_"])
"""Operations that make 0 of infinity."""

WITH_NUMBERS = frozenset(
    [
        "pow",
        "pow_",
        "div",
        "div_",
        "mul",
        "mul_",
        "add",
        "add_",
        "sub",
        "sub_",
        "rsub",
        "fmod",
        "remainder",
    ]
)
"""Operations of which numbers among the arguments are shown, too."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("div", "true_divide", "reciprocal", "divide"), "division"),
        **dict.fromkeys(("mul", "multiply"), "multiplication"),
        **dict.fromkeys(("sub", "rsub", "subtract"), "subtraction"),
        "add": "addition",
        "sqrt": "square root",
        "rsqrt": "1 ÷ square root",
        **dict.fromkeys(("pow", "square", "float_power"), "power"),
        **dict.fromkeys(("norm", "linalg_vector_norm"), "norm"),
        **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "linear", "matmul"), "matrix product"),
        **dict.fromkeys(("mv", "addmv", "dot"), "matrix product"),
        **dict.fromkeys(("convolution", "mkldnn_convolution", "cudnn_convolution"), "convolution"),
        "native_layer_norm": "layer normalization",
        "native_group_norm": "group normalization",
        **dict.fromkeys(
            ("native_batch_norm", "native_batch_norm_legit", "cudnn_batch_norm"),
            "batch normalization",
        ),
        "to_copy": "conversion to another data type",
        "cumprod": "cumulative product",
        "prod": "product",
        "sum": "sum",
        "mse_loss": "squared error",
        "safe_softmax": "softmax",
        "std": "standard deviation",
        "var": "variance",
        "where": "where",
        "euclidean_dist": "cdist",
        "cdist_forward": "cdist",
        "embedding_dense": "embedding",
    }
)


def name_operation(name: str) -> str:
    """Return what an operation is called, in plain words.

    Args:
        name: Its name without name space and overload.

    Example:
        >>> name_operation("div_"), name_operation("_log_softmax"), name_operation("acos")
        ('division', 'log_softmax', 'acos')
    """
    plain = name.strip("_").removesuffix("_forward").removesuffix("_backward")
    if plain not in _WORDS:
        plain = re.sub(r"^(linalg|special)_|_ex$", "", plain)
    if "scaled_dot_product" in plain:
        return "scaled_dot_product_attention"
    return _WORDS.get(plain, plain)


def name_node(name: str) -> str:
    """Return what the operation is called that a node of the graph stands for, in plain words.

    Example:
        >>> name_node("DivBackward0"), name_node("LinalgVectorNormBackward0")
        ('division', 'norm')
    """
    words = re.sub(r"Backward\d*$", "", name)
    return name_operation(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words).lower())


def find_new(operation: Operation, inputs: Sequence[Input], output: Tensor) -> Tensor | None:
    """Return where an output is not finite though all that went in is; `None` if nowhere."""
    if not operation.is_pointwise:
        return None
    new = ~output.isfinite()
    for each in inputs:
        try:
            new &= each.values.isfinite().expand(output.shape)
        except RuntimeError:  # numbers of another place
            return None
    return new if bool(new.any()) else None


def is_overflow(operation: Operation, inputs: Sequence[Input], output: Tensor) -> bool:
    """Whether the result is finite in float32, and only too large for half precision."""
    if output.dtype not in (torch.float16, torch.bfloat16) or has_nan(output):
        return False
    if operation.name == "_to_copy":
        return True
    function = operation.function
    values = iter(inputs)

    def widen(value: Any) -> Any:
        if isinstance(value, Tensor) and read_plain(value) is not None:
            each = next(values).values
            return each.float() if each.shape == value.shape else value.float()
        if isinstance(value, (list, tuple)):
            return type(value)(map(widen, value))
        return torch.float32 if value in (torch.float16, torch.bfloat16) else value

    if operation.name.endswith("_") and not operation.name.startswith("_"):
        packet = getattr(torch.ops.aten, operation.name[:-1], None)
        function = getattr(packet, function._overloadname, None)
    try:
        args = [widen(value) for value in operation.args]
        wide = function(*args, **{key: widen(value) for key, value in operation.kwargs.items()})
        found = [read_plain(tensor) for _, tensor in find_tensors(wide)]
    except Exception:  # it cannot be computed in float32 like this
        return False
    return bool(found) and all(each is None or is_finite(each) for each in found)


Saved = list[Tensor | float]


def list_saved(node: Any) -> tuple[Saved, Saved]:
    """Return what a node of the graph keeps of the forward pass.

    Its inputs, and its results if it keeps no inputs.
    """
    if isinstance(node, BackwardCFunction):
        return [x for tensor in node.saved_tensors if (x := read_plain(tensor)) is not None], []
    found: list[tuple[int, Tensor | float]] = []
    for name, saved in list_saved_by_name(node).items():
        rank = _SAVED.index(name) if name in _SAVED else len(_SAVED) + (name in _RESULTS)
        if isinstance(saved, Tensor):
            value = read_plain(saved)
            found += [] if value is None else [(rank, value)]
        elif name == "exponent" and isinstance(saved, (int, float)):
            found.append((rank, float(saved)))
    found.sort(key=lambda pair: pair[0])
    inputs = [value for rank, value in found if rank < len(_SAVED)]
    inputs = inputs or [value for rank, value in found if rank == len(_SAVED)]
    results = [] if inputs else [value for _, value in found]
    if str(node.name()).startswith("SqrtBackward"):  # the root of 0, and of nothing else, is 0
        zeros: Saved = [each for each in results if isinstance(each, Tensor) and not each.any()]
        return (zeros, []) if zeros else (inputs, results)
    return inputs, results


_SAVED = ("self", "input", "other", "exponent")
_RESULTS = frozenset(
    [
        "result",
        "result0",
        "result1",
        "result2",
        "result3",
        "result4",
        "output",
        "inverse",
        "eigenvalues",
        "eigenvectors",
        "U",
        "S",
        "Vh",
        "L",
        "V",
        "Q",
        "R",
        "LU",
        "LD",
        "pivots",
        "sign",
        "logabsdet",
        "logsumexp",
        "values",
        "indices",
        "solution",
    ]
)
"""Names under which a node keeps what came out of its operation."""
