"""Norms of many tensors in few operations, and numbers that are read a step later.

A norm in float32 is infinite from entries of 1e19 on, and zero below 1e-23, where squares leave the
format. On a CPU, where a look costs nothing, such norms are computed again in float64.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chainrule.measure._torch_internals import compute_differences, compute_norms
from chainrule.measure.statistics import HALF, is_cheap_to_read

_MODERATE = (1e-15, 1e15)
_WHOLE = (Tensor, nn.Parameter)
_FULL = (torch.float32, torch.float64)

Values = NDArray[np.float64]


class Lagged:
    """Numbers of a device that are read later, so that the device need not be waited for.

    Reading waits for the copy alone, and after a step that has long been there.
    """

    __slots__ = ("_event", "_values")

    def __init__(self, values: Tensor, *, is_fresh: bool = False) -> None:
        """Take numbers.

        Args:
            values: On any device.
            is_fresh: Whether nobody else has them, so that they need no copy.
        """
        self._event: Any = None
        values = values.detach()
        if values.device.type == "cuda":
            pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            pinned.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
            values = pinned
        elif values.device.type == "cpu" and not is_fresh:
            values = values.clone()
        self._values = values

    def read(self) -> Values:
        """Return the numbers, as a flat array."""
        if self._event is not None:
            self._event.synchronize()
        values = self._values
        if values.device.type == "cpu" and values.dtype in _FULL:
            return np.array(values.numpy(), np.float64).reshape(-1)
        return values.reshape(-1).double().cpu().numpy()

    def is_odd(self) -> bool:
        """Whether a number is zero or not finite; not so where that would have to be waited for."""
        values = self._values
        if values.device.type != "cpu" or self._event is not None:
            return False
        known = values.tolist()
        return 0.0 in known or not math.isfinite(sum(known))


def measure_norms(tensors: Sequence[Tensor], *, is_plain: bool = False) -> Tensor:
    """Return the norms of whole tensors of one device, as one tensor [count].

    Args:
        tensors: At least one; dense or sparse, of any format. Repeated entries of a sparse one add
            up.
        is_plain: Whether all of them are float32, or all float64: that needs no look at each.
    """
    if is_plain:
        try:
            norms = torch.stack(compute_norms(tensors))
        except RuntimeError:  # one of them is sparse
            return measure_norms(tensors)
        return _mend(norms, tensors) if norms.device.type == "cpu" else norms
    if any(tensor.layout != torch.strided for tensor in tensors):
        tensors = [_to_dense_values(tensor) for tensor in tensors]
    if any(tensor.dtype in HALF for tensor in tensors):
        tensors = [tensor.float() if tensor.dtype in HALF else tensor for tensor in tensors]
    norms = torch.stack(_align(compute_norms(tensors)))
    return _mend(norms, tensors) if is_cheap_to_read(norms.device) else norms


def _align(norms: Sequence[Tensor]) -> list[Tensor]:
    """Bring norms of several formats into the widest of them."""
    if len({norm.dtype for norm in norms}) < 2:
        return list(norms)
    return [norm.double() for norm in norms]


def _to_dense_values(tensor: Tensor) -> Tensor:
    if tensor.layout == torch.strided:
        return tensor
    return tensor.coalesce().values() if tensor.is_sparse else tensor.to_dense()


def _mend(norms: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Compute norms of immoderate size again in float64."""
    # Plain numbers: at so few, a function of an array library costs more than what it computes.
    known = norms.tolist()
    if _MODERATE[0] < min(known) and math.hypot(*known) < _MODERATE[1]:  # no undefined one either
        return norms
    values, wide = norms.numpy(), norms.double()
    for at in np.nonzero(~((values > _MODERATE[0]) & (values < _MODERATE[1])))[0].tolist():
        wide[at] = torch.linalg.vector_norm(tensors[at].reshape(-1), dtype=wide.dtype)
    return wide


def measure_norms_exactly(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norms of whole dense tensors of one device in the widest format, [count]."""
    reals = [torch.view_as_real(each) if each.is_complex() else each for each in tensors]
    wide = torch.float32 if reals[0].device.type == "mps" else torch.float64
    halves = [each.float() if each.dtype in HALF else each for each in reals]
    return torch.stack(compute_norms(halves, wide))


def subtract(after: Sequence[Tensor], before: Sequence[Tensor]) -> list[Tensor]:
    """Return differences of tensors; of half precision in float32, where they are exact."""
    if any(tensor.dtype in HALF for tensor in before):
        pairs = zip(after, before, strict=True)
        return [a.float() - b.float() if a.dtype in HALF else a - b for a, b in pairs]
    if any(is_spread(tensor) for tensor in before):
        return [a - b for a, b in zip(after, before, strict=True)]
    return compute_differences(after, before)


def sharded_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm of each tensor as a whole, also where each process holds a part of it.

    No tensor is put together: squares of the parts' norms are added over the processes that hold
    different parts, once for all tensors that are spread in the same way. Every process must call
    it with the same tensors. (The norm of a part is not the norm; the sum of the parts' norms is
    not, either; and what is the same in several processes must count once.)

    Args:
        tensors: Plain tensors, which are taken to be whole, and `DTensor`s with any placements,
            as `fully_shard` and `parallelize_module` make them.

    Returns:
        Norms [count], in float64 (float32 where the device has no float64), in every process.

    Example:
        >>> sharded_norms([torch.ones(4), torch.zeros(2, 2)]).tolist()
        [2.0, 0.0]
    """
    if tensors and not any(map(is_spread, tensors)):
        try:
            with torch.no_grad():
                return measure_norms_exactly(tensors)
        except RuntimeError:  # some are sparse, or they are on several devices
            pass
    found: dict[int, Tensor] = {}
    alike: dict[Any, list[int]] = {}
    with torch.no_grad():
        parts = [_take_part(tensor.detach()) for tensor in tensors]
        for position, (part, mesh, dims) in enumerate(parts):
            alike.setdefault((part.device, mesh if dims else None, dims), []).append(position)
        for (_, mesh, dims), positions in alike.items():
            norms = measure_norms_exactly([parts[position][0] for position in positions])
            if dims:
                squares = norms.square()
                for dim in dims:
                    torch.distributed.all_reduce(squares, group=mesh.get_group(dim))
                norms = squares.sqrt()
            found.update(zip(positions, norms.unbind(), strict=True))
        if not found:
            return torch.zeros(0, dtype=torch.float64)
        device = parts[0][0].device
        return torch.stack([found[position].to(device) for position in range(len(parts))])


def _take_part(tensor: Tensor) -> tuple[Tensor, Any, tuple[int, ...]]:
    """Return this process's part of a tensor, the mesh, and its dimensions over which it is spread.

    What is still to be added up over processes (a partial result) is added up first.
    """
    if not is_spread(tensor):
        return _to_dense_values(tensor), None, ()
    spread: Any = tensor
    if any(placement.is_partial() for placement in spread.placements):
        return spread.full_tensor(), None, ()
    dims = tuple(at for at, each in enumerate(spread.placements) if not each.is_replicate())
    return spread.to_local(), spread.device_mesh, dims


def is_spread(tensor: Tensor) -> bool:
    """Whether a tensor is a `DTensor`, of which each process may hold a part."""
    return type(tensor) not in _WHOLE and hasattr(tensor, "device_mesh")


def take_local(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    spread: Any = tensor
    return spread.to_local() if is_spread(tensor) else tensor
