"""Calls whose effect is seldom meant: flat functions, mixed-up dimensions, no logarithms.

While the loss is computed, functions of PyTorch are looked at as they are called. Nothing is
calculated for it, but the largest number that goes into a loss which expects logarithms, and
whether all values of a rectifier or a clamp are at an end.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chainrule.flow.slips import HEAVY, SMOOTH, STEP_FUNCTIONS, SlipKind
from chainrule.measure._torch_internals import is_functorch_wrapped
from chainrule.measure.statistics import is_cheap_to_read

_SOFTMAXES = frozenset(["softmax", "special_softmax", "log_softmax", "special_log_softmax"])
_DROPOUTS = frozenset(
    ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "dropout_"]
)
_RESHAPES = frozenset(["view", "reshape"])
_COMPARES = frozenset(
    ["cross_entropy", "nll_loss", "nll_loss_nd", "binary_cross_entropy_with_logits"]
)
_EXPECT_LOGARITHMS = frozenset(["nll_loss", "nll_loss_nd", "kl_div", "ctc_loss"])
_ENDS: Mapping[str, tuple[float, float]] = {
    "relu": (0.0, math.inf),
    "relu_": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
}
"""Functions that pass no gradient where their result is at an end, and these ends."""
_CLAMPS = frozenset(["clamp", "clip", "clamp_min", "clamp_max"])
_WITH_ENDS = _CLAMPS | set(_ENDS)
_WAVES = frozenset(["sin", "cos"])
WATCHED = (
    STEP_FUNCTIONS
    | _DROPOUTS
    | _SOFTMAXES
    | _RESHAPES
    | _EXPECT_LOGARITHMS
    | _COMPARES
    | {"layer_norm", "group_norm", "normalize"}
    | _WITH_ENDS
    | _WAVES
)
"""Functions that are looked at."""

_SAMPLED = 2**14
"""About how many angles are looked at."""

_MOST = 8
"""Most calls of each kind that are kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function is called: in which module, if any, and at which line of your code."""

    module: str
    file: str
    line: int | None
    is_in_loss: bool = False


@dataclass(slots=True, eq=False)
class Slip:
    """A call that may be one.

    Where gradients decide, `tensors` are what went in and came out, and `edges` theirs; where
    values do, what went in. `sums_to_one` says whether that is probabilities.
    """

    kind: SlipKind
    operation: str
    place: Place
    shape: tuple[int, ...]
    result: tuple[int, ...]
    value: Tensor | float | None = None
    tensors: tuple[Tensor, ...] = ()
    sums_to_one: Tensor | None = None
    edges: tuple[int | None, ...] = ()


class Slips:
    """Looks at functions while a loss is computed.

    Attributes:
        found: What may be a slip, in order.
    """

    def __init__(self) -> None:
        self.found: list[Slip] = []
        self._counts: dict[SlipKind, int] = {}

    def note(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
        find_place: Callable[[], Place],
    ) -> None:
        """After a function of PyTorch.

        Args:
            name: The function.
            args: What it was given.
            kwargs: The same, by name.
            result: What it returned.
            find_place: Returns where it was called.
        """
        if name not in WATCHED or not isinstance(result, Tensor):
            return
        read = args[0] if args else kwargs.get("input", kwargs.get("log_probs"))
        if not isinstance(read, Tensor) or not read.is_floating_point() or read.is_nested:
            return
        if name in _COMPARES and result.requires_grad:
            self._add(_compare(name, args, kwargs), name, read, args, kwargs, result, find_place)
        kind = _classify(name, read, args, kwargs, result)
        self._add(kind, name, read, args, kwargs, result, find_place)

    def _add(
        self,
        kind: SlipKind | None,
        name: str,
        read: Tensor,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Tensor,
        find_place: Callable[[], Place],
    ) -> None:
        if kind is None or self._counts.get(kind, 0) >= _MOST:
            return
        self._counts[kind] = self._counts.get(kind, 0) + 1
        slip = Slip(
            kind,
            name.removeprefix("special_").removesuffix("_nd"),
            find_place(),
            tuple(read.shape),
            tuple(result.shape),
        )
        if kind == "flat":
            slip.tensors = read, result
        elif kind == "not_logarithms":
            slip.tensors = (read,)
        elif kind == "dropout":
            slip.value = _read_rate(args, kwargs)
        elif kind == "wave":
            slip.value = _measure_angles(read.detach())
        elif kind == "over_examples":
            slip.value = float(_read_dim(name, args, kwargs) % read.dim())
        elif kind == "smoothed":
            slip.value = _read_smoothing(args, kwargs)
        self.found.append(slip)


def _classify(
    name: str, read: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor
) -> SlipKind | None:
    """Return what a call may be."""
    kind: SlipKind | None = None
    if name in _RESHAPES:
        before, after = tuple(read.shape), tuple(result.shape)
        if _is_scrambled(before, after):
            return "scrambled"
        return "maybe_mixed" if result.requires_grad and _may_mix(before, after) else None
    if not result.requires_grad or result.numel() == 0:
        return None
    if name in _COMPARES and name not in _EXPECT_LOGARITHMS:
        return None
    if name in _WITH_ENDS:
        return "off" if _is_off(name, read, args, kwargs, result) else None
    if name in STEP_FUNCTIONS:
        kind = "flat"
    elif name in _EXPECT_LOGARITHMS:
        kind = "not_logarithms" if read.requires_grad else None
    elif name in _DROPOUTS:
        is_on = kwargs.get("training", args[2] if len(args) > 2 else True)
        kind = "dropout" if is_on and _read_rate(args, kwargs) > HEAVY else None
    elif name in _WAVES:
        kind = None if is_functorch_wrapped(read) or read.dim() == 0 else "wave"
    elif name == "layer_norm":
        sizes = args[1] if len(args) > 1 else kwargs.get("normalized_shape", ())
        kind = "flat" if _is_one(sizes) else None
    elif name == "group_norm":
        groups = args[1] if len(args) > 1 else kwargs.get("num_groups", 1)
        kind = "flat" if read.dim() > 1 and read[0].numel() == groups else None
    else:
        kind = _classify_by_dim(name, read, args, kwargs)
    return kind


def _compare(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SlipKind | None:
    """Return what a loss may be that hardly depends on its targets, as its arguments say."""
    if name == "cross_entropy" and _read_smoothing(args, kwargs) > SMOOTH:
        return "smoothed"
    is_binary = name == "binary_cross_entropy_with_logits"
    at = 6 if is_binary else 2
    given = kwargs.get("pos_weight" if is_binary else "weight", (*args, *[None] * 7)[at])
    if not isinstance(given, Tensor) or not is_cheap_to_read(given.device):
        return None
    if is_functorch_wrapped(given) or given.numel() < 1:
        return None
    count = int((given.detach() != 0).sum())
    left = count == 0 if is_binary else count == 1 and given.numel() > 1
    return "one_target" if left else None


def _read_smoothing(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    given = kwargs.get("label_smoothing", args[7] if len(args) > 7 else 0.0)
    return float(given) if isinstance(given, int | float) else 0.0


def _measure_angles(angles: Tensor) -> Tensor:
    """Return the standard deviation of each feature over a sample of examples and positions."""
    rows = angles.reshape(-1, angles.shape[-1])
    step = max(1, rows.numel() // _SAMPLED)
    some = rows[::step].float()
    return (some - some.mean(0)).square().mean().sqrt()


def _is_off(
    name: str, read: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor
) -> bool:
    """Whether all values are where a function is flat; a few are looked at first.

    On a device that has to be waited for, nothing is looked at.
    """
    if not is_cheap_to_read(result.device) or is_functorch_wrapped(result):
        return False
    if name in _CLAMPS:
        given = [*args[1:], None, None][:2]
        low = kwargs.get("min", None if name == "clamp_max" else given[0])
        high = kwargs.get("max", given[0] if name == "clamp_max" else given[1])
        if any(isinstance(each, Tensor) for each in (low, high)):
            return False
    else:
        low, high = _ENDS[name]
        if name == "hardtanh":
            low = kwargs.get("min_val", args[1] if len(args) > 1 else low)
            high = kwargs.get("max_val", args[2] if len(args) > 2 else high)
    values = (read if name in _CLAMPS else result).detach().flatten()
    strictly = name in _CLAMPS  # at its very end a clamp still passes the gradient on
    for some in (values[:: max(1, len(values) // 16)], values):
        is_at_end = torch.zeros_like(some, dtype=torch.bool)
        if low is not None:
            is_at_end |= (some < low) if strictly else (some <= low)
        if high is not None:
            is_at_end |= (some > high) if strictly else (some >= high)
        if not bool(is_at_end.all()):
            return False
    return True


def _classify_by_dim(
    name: str, read: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> SlipKind | None:
    """Return what a function may be that goes over one dimension: a softmax, a normalization."""
    dim = _read_dim(name, args, kwargs)
    if not isinstance(dim, int) or not -read.dim() <= dim < read.dim():
        return None
    dim %= read.dim()
    if read.shape[dim] == 1:  # a single query with a single key has no choice
        return "flat" if name == "normalize" or read.shape[-2:] != (1, 1) else None
    is_matrix = read.dim() == 2 and read.shape[0] == read.shape[1]
    if dim == 0:
        return "over_examples" if read.dim() > 1 and not is_matrix else None
    # Time may come first: then examples are the second of three dimensions or more. Where a later
    # one is as long, they look at each other, as the nodes of a graph do.
    later = dim == 1 and read.dim() > 2 and read.shape[1] not in (read.shape[0], *read.shape[2:])
    return "over_examples" if later else None


def _read_dim(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    at = 2 if name == "normalize" else 1
    return kwargs.get("dim", args[at] if len(args) > at else 1 if name == "normalize" else None)


def _read_rate(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return float(rate) if isinstance(rate, int | float) else 0.0


def _is_one(sizes: Any) -> bool:
    return all(size == 1 for size in sizes) if isinstance(sizes, list | tuple) else False


def _is_scrambled(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether the same sizes come out in another order.

    Attention over relative positions does so on purpose with the last two of four dimensions, of
    sizes n and n + 1.
    """
    one, other = ([size for size in sizes if size != 1] for sizes in (before, after))
    if one == other or sorted(one) != sorted(other):
        return False
    shifts = len(before) > 3 and one[:-2] == other[:-2] and abs(one[-1] - one[-2]) == 1
    return not shifts


def _may_mix(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether as many rows come out as the second dimension has, each made of several of these.

    (A, B, ...) gives B rows. Where A is a multiple of B, its entries may be rows that are parted.
    """
    if len(before) < 3 or not after or min(before[:2]) < 2:
        return False
    return after[0] == before[1] != before[0] and before[0] % before[1] != 0
