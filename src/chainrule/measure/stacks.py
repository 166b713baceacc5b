"""Statistics of tensors on a CPU: those of one shape share a stack, whatever they are.

Of a small network, statistics cost calls of operations and hardly any arithmetic. So outputs,
gradients and parameters of one shape are stacked once, the reductions that they have in common run
over all of them, and what follows from the few numbers that are left is calculated by NumPy, whose
calls on these take a third of the time. The formulas are those of `chainrule.measure.statistics`,
which takes over what is not of moderate size or not finite, in half precision, complex or on an
accelerator.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from chainrule.measure import statistics
from chainrule.measure.host import Numbers, count_into_bins, share_zeros
from chainrule.measure.statistics import (
    BINS,
    MODERATE,
    SMALL,
    STACK,
    AnyTable,
    Table,
    compute_norm,
    find_extremes,
    measure_deviation,
    measure_spreads,
    sample_entries,
    stack_alike,
    summarize_gradients,
    summarize_sparse_gradient,
    summarize_values,
    summarize_weights,
    take_first,
    thin_out,
)

Place = tuple[int, int]
"""Where a value will be found: (number of the table, entry in it)."""

_Key = TypeVar("_Key", bound=Hashable)
_PLAIN = {Tensor, nn.Parameter}
_REAL = (torch.float32, torch.float64)

_KINDS: tuple[Callable[[Sequence[Tensor] | Tensor], Table], ...] = (
    summarize_values,
    summarize_gradients,
    summarize_gradients,
    summarize_weights,
)
VALUES, DELTAS, GRADIENTS, WEIGHTS = range(4)
"""What may share a stack, in the order in which it lies there. Gradients of outputs (δ) and those
of parameters have tables of their own."""


def summarize_kinds(
    requests: Sequence[tuple[int, Mapping[Any, Tensor] | Mapping[Any, Tensor | AnyTable]]],
    tables: list[AnyTable],
) -> list[dict[Any, Place]]:
    """Summarize tensors of several kinds, those of one shape together; return places by key.

    Args:
        requests: Of each group its kind, and its tensors by key; or a table that there is already.
        tables: Receives the tables.
    """
    places: list[dict[Any, Place]] = [{} for _ in requests]
    alike: dict[
        tuple[torch.Size, torch.dtype, torch.device],
        list[list[tuple[dict[Any, Place], Any, Tensor]]],
    ] = {}
    for found, (kind, tensors) in zip(places, requests, strict=True):
        for key, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                found[key] = len(tables), 0
                tables.append(tensor)
            elif tensor.is_sparse:
                found[key] = len(tables), 0
                tables.append(summarize_sparse_gradient(tensor))
            else:
                group = (tensor.shape, tensor.dtype, tensor.device)
                if group not in alike:
                    alike[group] = [[] for _ in _KINDS]
                alike[group][kind].append((found, key, tensor))
    for by_kind in alike.values():
        flat = [(kind, *each) for kind, entries in enumerate(by_kind) for each in entries]
        size = max(1, flat[0][-1].numel())
        step = max(1, STACK // size) if size <= SMALL else 1
        for start in range(0, len(flat), step):
            _summarize_chunk(flat[start : start + step], tables)
    return places


def summarize_one(kind: int, tensor: Tensor) -> AnyTable:
    """Return the table of a single tensor, for which there is no need to hold it."""
    return _summarize_together([tensor], [kind])[0]


def _summarize_chunk(
    entries: Sequence[tuple[int, dict[Any, Place], Any, Tensor]], tables: list[AnyTable]
) -> None:
    kinds = [kind for kind, _, _, _ in entries]
    found = _summarize_together([tensor for _, _, _, tensor in entries], kinds)
    at, entry, before = len(tables) - 1, 0, -1
    for kind, places, key, _ in entries:
        if kind != before:
            at, entry, before = at + 1, 0, kind
        places[key] = at, entry
        entry += 1
    tables += found


def _summarize_together(tensors: Sequence[Tensor], kinds: Sequence[int]) -> Sequence[AnyTable]:
    """Return a table for each kind, in their order.

    Args:
        tensors: Of one shape and type, on one device.
        kinds: Their kinds, in order.
    """
    parts = [(kind, kinds.count(kind)) for kind in sorted(set(kinds))]
    example = tensors[0]
    if (
        example.dtype in _REAL
        and statistics.is_cheap_to_read(example.device)
        and example.numel()
        and example.layout == torch.strided
        and _PLAIN.issuperset(map(type, tensors))
    ):
        stack = (
            example.detach().unsqueeze(0)
            if len(tensors) == 1
            else torch.stack(tensors if isinstance(tensors, list) else list(tensors))
        ).unsqueeze(1)
        found = _summarize_stack(stack, parts)
        if found is not None:
            return found
    tables, start = [], 0
    for kind, count in parts:
        tables.append(_KINDS[kind](stack_alike(tensors[start : start + count])))
        start += count
    return tables


@np.errstate(all="ignore")  # whatever its caller has NumPy do
def _summarize_stack(stack: Tensor, parts: Sequence[tuple[int, int]]) -> list[AnyTable] | None:
    """Return a table for each part of a stack; `None` if something is not of moderate size.

    Args:
        stack: [entries, 1, ...], on a CPU.
        parts: Kind and number of entries of each, by kind.
    """
    flat = stack.flatten(2) if stack.dim() > 2 else stack.unsqueeze(-1)
    if parts[0] == (WEIGHTS, 1) and flat.shape[-1] > SMALL:
        return _summarize_weight(stack, flat)
    low, high = map(_fetch, find_extremes(flat))
    largest = np.maximum(np.abs(low), np.abs(high))
    if not _is_moderate(largest):
        return None
    zero_share = share_zeros(thin_out(flat))
    non_finite = np.zeros_like(largest)
    others = parts[0][1] if parts[0][0] == VALUES else 0
    norm = _fetch(compute_norm(flat[others:] if others else flat)) if others < len(flat) else low
    tables: list[AnyTable] = []
    start = 0
    for kind, count in parts:
        own = slice(start, start + count)
        start += count
        if kind == VALUES:
            whole = count == len(stack)
            table = {"min": low[own], "max": high[own], "zero_share": zero_share[own]}
            _add_distribution(table, stack if whole else stack[own], flat if whole else flat[own])
        else:
            table = {"norm": norm[own.start - others : own.stop - others]}
            if kind != WEIGHTS:
                table |= {"max_abs": largest[own], "zero_share": zero_share[own]}
            elif stack.dim() > 3:
                table["first"] = _fetch(take_first(stack[own]))
        table["non_finite"] = non_finite[own]
        tables.append(table)
    return tables


def _summarize_weight(weight: Tensor, flat: Tensor) -> list[AnyTable] | None:
    """Return the table of a large weight; `None` if it is not of moderate size.

    Its norm says so: it is finite only if all entries are, and at least as large as each of them.
    """
    norm = _fetch(compute_norm(flat))
    if not MODERATE[0] < norm.item() < MODERATE[1]:
        return None
    table = {"norm": norm, "non_finite": np.zeros_like(norm)}
    if weight.dim() > 3:
        table["first"] = _fetch(take_first(weight))
    return [table]


def _fetch(tensor: Tensor) -> Numbers:
    """Return numbers without their tensor: a flow keeps none alive."""
    return tensor.numpy().copy()


def _is_moderate(largest: Numbers) -> bool:
    if MODERATE[0] < largest.min() and largest.max() < MODERATE[1]:
        return True
    moderate = (largest > MODERATE[0]) & (largest < MODERATE[1]) | (largest == 0)
    return bool(moderate.all())


def _add_distribution(table: AnyTable, values: Tensor, flat: Tensor) -> None:
    """Add mean, spreads and histogram to the extremes of values of moderate size.

    Args:
        table: Has "min" and "max", [entries, 1].
        values: [entries, 1, examples, ...]
        flat: The same, [entries, 1, numbers].
    """
    if values.dim() > 2 and values.shape[2] > 1:
        within, between, whole, mean = map(_fetch, measure_spreads(values))
        size = np.hypot(within, whole)
        table["variation"] = np.divide(within, size, out=np.zeros_like(size), where=size > 0)
        deviation = np.hypot(within, between)
    else:
        mean, deviation = map(_fetch, measure_deviation(flat))
    table["mean"] = mean
    table["std"] = deviation / flat.shape[-1] ** 0.5
    low, high = table["min"][:, 0], table["max"][:, 0]
    counts = count_into_bins(sample_entries(flat), low, high - low, BINS)
    table |= {"bin_low": low, "bin_high": high, "counts": counts}


def summarize_alike(
    tensors: Mapping[_Key, Tensor],
    tables: list[AnyTable],
    summarize: Callable[[Sequence[Tensor] | Tensor], Table],
) -> dict[_Key, Place]:
    """Summarize tensors of one kind, those of one shape together; return places by key."""
    places: dict[_Key, Place] = {}
    alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[_Key]] = {}
    for key, tensor in tensors.items():
        alike.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(key)
    for group in alike.values():
        for entry, key in enumerate(group):
            places[key] = len(tables), entry
        tables.append(summarize(stack_alike([tensors[key] for key in group])))
    return places
