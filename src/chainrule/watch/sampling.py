"""Sampled steps: what modules put out and what comes back to them, and by how much weights move.

Only in a sampled step, hooks of the modules note their outputs, and hooks on the outputs their
gradients; small tensors are copied and summarized together when the optimizer steps. Random
numbers are never drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.measure._torch_internals import (
    has_compiled,
    is_compiled,
    is_functorch_wrapped,
    is_in_backward,
    queue_after_backward,
)
from chainrule.measure.modules import Inventory, classify, is_measured
from chainrule.measure.recording import SMALL
from chainrule.measure.results import find_tensors, flatten_nested
from chainrule.measure.statistics import (
    HALF,
    LARGE,
    SAMPLE,
    choose_step,
    is_cheap_to_read,
    summarize_distribution,
    to_real,
)
from chainrule.spec.activations import SATURATION_SHARE
from chainrule.watch.gradients import Lagged, sharded_norms, subtract
from chainrule.watch.hooks import ModuleHook
from chainrule.watch.records import NO_MODULE, LayerSample, Norms

DENSE = 100
"""Among the first so many steps, more are sampled."""

MOST_ENTRIES = 20_000
"""Most outputs that are kept of one step."""

_EARLY = frozenset({1, 2, 5})
_DENSE_EVERY = 10
_BOUNDED = {"sigmoid": 0.25, "tanh": 1.0}


def is_sampled(step: int, every: int) -> bool:
    """Whether a step is sampled: each `every` steps, and more often in the beginning."""
    return step % every == 0 or (step <= DENSE and (step in _EARLY or step % _DENSE_EVERY == 0))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A watched module."""

    name: str
    kind: str
    activation: str
    unit_dim: int | None
    dims: int | None


@dataclass(slots=True, eq=False)
class _Entry:
    """One output of one call: its values until they are summarized, and the gradient's."""

    leaf: _Leaf
    unit_dim: int
    has_edge: bool
    values: Tensor | None = None
    columns: Tensor | None = None
    gradients: list[Tensor] = field(default_factory=list)
    gradient_columns: list[Tensor] = field(default_factory=list)


class LayerSampler:
    """Notes what the modules of a model put out while it is attached.

    Attributes:
        missing: Why nothing can be noted; "" if something can.
        reason: Why nothing was noted in the last step, if nothing was.
    """

    def __init__(
        self,
        inventory: Inventory,
        report: Callable[[Exception], None],
        *,
        is_compiled: bool = False,
    ) -> None:
        hidden = _list_compiled(inventory, is_compiled)
        self._leaves: dict[nn.Module, _Leaf] = {}
        for name, module in inventory.modules:
            if is_measured(name, module) and id(module) not in hidden:
                traits = classify(module)
                self._leaves[module] = _Leaf(
                    name,
                    type(module).__name__.removeprefix("Parametrized"),
                    "" if traits.activation is None else traits.activation.name,
                    traits.unit_dim,
                    traits.dims,
                )
        self.missing = "" if self._leaves else COMPILED if hidden else NO_LEAF
        self.reason = NO_MODULE
        self._report = report
        self._handles: list[Any] = []
        self._reset()

    def _reset(self) -> None:
        self._entries: list[_Entry] = []
        self._finished: dict[str, list[_Entry]] = {}
        self._had_backward = self._is_functional = False
        self._layout: tuple[int, int | None] = -1, None
        self._after_backward: Callable[[], None] | None = None

    @property
    def is_attached(self) -> bool:
        """Whether it notes something now."""
        return bool(self._handles)

    def attach(self, after_backward: Callable[[], None] | None = None) -> None:
        """Note what runs from now on.

        Args:
            after_backward: Called when a backward pass through the modules is over.
        """
        if self._handles or self.missing:
            return
        self._reset()
        self._after_backward = after_backward
        hook = ModuleHook(self._leave)
        for module in self._leaves:
            self._handles.append(module.register_forward_hook(hook))

    def detach(self) -> None:
        """Note nothing more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        try:
            self._note(self._leaves[module], module, result)
        except Exception as error:
            self.detach()
            self._report(error)

    def _note(self, leaf: _Leaf, module: nn.Module, result: Any) -> None:
        tensors = [result] if isinstance(result, Tensor) else [t for _, t in find_tensors(result)]
        if not tensors:
            return
        tensor = tensors[0]
        if is_in_backward():
            self._match_repeated(leaf, tensor)
            return
        if not torch.is_grad_enabled() and not module.training:
            return
        if self._had_backward:
            self._finish()
        if leaf.unit_dim is not None:
            self._layout = leaf.unit_dim, leaf.dims
        self._is_functional |= is_functorch_wrapped(tensor)
        if not _has_numbers(tensor) or len(self._entries) >= MOST_ENTRIES:
            return
        values = flatten_nested(tensor.detach())
        if values.layout != torch.strided or values.numel() == 0:
            return
        unit_dim, dims = self._layout
        if -unit_dim > values.dim() or dims not in (None, values.dim()):
            unit_dim = -1
        entry = _Entry(leaf, unit_dim, tensor.requires_grad)
        if values.numel() <= SMALL:
            entry.values = values.clone()
        else:
            entry.columns = _summarize(values.unsqueeze(0), leaf.activation, unit_dim)
        self._entries.append(entry)
        if tensor.requires_grad:
            tensor.register_hook(partial(self._arrive, entry))

    def _match_repeated(self, leaf: _Leaf, tensor: Tensor) -> None:
        """Listen to what a reentrant checkpoint repeats, where the first run had no graph."""
        if not tensor.requires_grad:
            return
        for entry in reversed(self._entries):
            if entry.leaf is leaf and not entry.has_edge:
                entry.has_edge = True
                tensor.register_hook(partial(self._arrive, entry))
                return

    def _arrive(self, entry: _Entry, gradient: Tensor | None) -> None:
        try:
            if not self._had_backward:
                self._had_backward = True
                if self._after_backward is not None:
                    call = self._after_backward
                    # What others have queued by then, such as the averaging of gradients over
                    # processes, comes first.
                    queue_after_backward(partial(_queue_again, call))
            if gradient is None:  # of an LSTM's results the loss may read another one
                return
            gradient = flatten_nested(gradient.detach())
            if gradient.layout != torch.strided or gradient.numel() == 0:
                return
            if gradient.numel() <= SMALL:
                entry.gradients.append(gradient.clone())
            else:
                entry.gradient_columns.append(_summarize_gradients(gradient.unsqueeze(0)))
        except Exception as error:
            self.detach()
            self._report(error)

    def _finish(self) -> None:
        """Put what a backward pass has been through aside: a new forward pass begins."""
        fresh: dict[str, list[_Entry]] = {}
        for entry in self._entries:
            fresh.setdefault(entry.leaf.name, []).append(entry)
        if self._had_backward:
            self._finished.update(fresh)
        else:  # a look at the model between the backward pass and the step replaces nothing
            self._finished = fresh | self._finished
        self._entries = []
        self._had_backward = False

    def take(
        self, scale: Tensor | float, *, has_gradients: bool = True, only_finished: bool = False
    ) -> Callable[[], tuple[LayerSample, ...]]:
        """Return a function that returns what was noted; the numbers are computed now.

        Args:
            scale: What the loss was multiplied with; gradients are divided by it.
            has_gradients: Whether the parameters have any, so that something has used them.
            only_finished: Leave out what ran after the last backward pass that was followed by a
                forward pass: it belongs to the next step.
        """
        if not only_finished or not self._finished:
            self._finish()
        groups = tuple(self._finished.values())
        self._finished = {}
        self.reason = FUNCTIONAL if self._is_functional else NO_MODULE
        if not groups and not self._is_functional and has_gradients and has_compiled():
            self.missing = UNSEEN  # as it is, it would be compiled again at each sample
        entries = [entry for group in groups for entry in group]
        numbers = {id(entry): at for at, entry in enumerate(entries)}
        with torch.no_grad():
            values = _summarize_alike(
                [(at, e.leaf.activation, e.unit_dim, e.values) for at, e in enumerate(entries)]
            )
            gradients = _summarize_alike(
                [(at, None, 0, each) for at, e in enumerate(entries) for each in e.gradients]
            )
            values += [
                ([at], Lagged(e.columns, is_fresh=True))
                for at, e in enumerate(entries)
                if e.columns is not None
            ]
            gradients += [
                ([at], Lagged(each, is_fresh=True))
                for at, e in enumerate(entries)
                for each in e.gradient_columns
            ]
            read_scale = Lagged(scale).read if isinstance(scale, Tensor) else None
        calls = [(group[0].leaf, [numbers[id(entry)] for entry in group]) for group in groups]

        def read() -> tuple[LayerSample, ...]:
            factor = scale if read_scale is None else float(read_scale()[0])
            return _read_layers(calls, _spread(values), _spread(gradients), float(factor))

        return read


def _queue_again(call: Callable[[], None]) -> None:
    queue_after_backward(call)


NO_LEAF = "The model has no modules whose outputs could be measured."

FUNCTIONAL = (
    "The model ran inside a transform of torch.func (grad, vmap), where outputs of modules cannot "
    "be read."
)

UNSEEN = (
    "No module was seen to run in this step: code that torch.compile made, or "
    "torch.func.functional_call of another module, used the parameters."
)

COMPILED = "The model runs as code that torch.compile made, in which modules cannot be seen."


def _list_compiled(inventory: Inventory, everything: bool) -> set[int]:
    """Return the modules (by `id`) that run inside compiled code."""
    return {
        id(inner)
        for _, module in inventory.modules
        if everything or is_compiled(module)
        for inner in module.modules()
    }


def _has_numbers(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and not is_functorch_wrapped(tensor)


def _summarize_alike(
    found: Sequence[tuple[int, str | None, int, Tensor | None]],
) -> list[tuple[list[int], Lagged]]:
    """Summarize tensors, those of one shape together.

    Args:
        found: Per tensor a number, the activation that it comes from, where its units are, and the
            tensor; an activation of `None` stands for a gradient.

    Returns:
        Numbers, and their rows of columns.
    """
    alike: dict[Any, list[tuple[int, Tensor]]] = {}
    for number, activation, unit_dim, tensor in found:
        if tensor is not None:
            place = unit_dim if activation in _WITH_UNITS else 0
            key = tensor.shape, tensor.dtype, tensor.device, activation, place
            alike.setdefault(key, []).append((number, tensor))
    tables = []
    for (*_, activation, unit_dim), group in alike.items():
        stacked = torch.stack([tensor for _, tensor in group])
        columns = (
            _summarize_gradients(stacked)
            if activation is None
            else _summarize(stacked, activation, unit_dim)
        )
        tables.append(([number for number, _ in group], Lagged(columns, is_fresh=True)))
    return tables


_WITH_UNITS = ("relu",)


def _summarize(values: Tensor, activation: str, unit_dim: int) -> Tensor:
    """Return mean, deviation, non-finite, saturated, and dead units of outputs, [entries, 5].

    What does not apply is −1.

    Args:
        values: [entries, ...].
        activation: Name of the activation that they come from, or "".
        unit_dim: Which dimension of an output counts the units, from the start.
    """
    real = to_real(values)
    flat = real.flatten(1)
    mean, deviation = _measure_spread(flat)
    if not is_cheap_to_read(flat.device):
        non_finite = (~flat.isfinite()).sum(1)
    elif math.isfinite((deviation + mean).sum().item()):
        non_finite = torch.zeros_like(mean)
    else:
        table = summarize_distribution(real.unsqueeze(1))
        mean, deviation, non_finite = (
            table[name].flatten() for name in ("mean", "std", "non_finite")
        )
    absent = torch.full_like(mean, -1.0)
    saturated, dead = absent, absent
    if activation in _BOUNDED:
        slope = 1 - flat.square() if activation == "tanh" else flat * (1 - flat)
        limit = SATURATION_SHARE * _BOUNDED[activation]
        saturated = _mark(torch.lt, slope, limit).mean(1)
    if activation == "relu":
        unit = 1 + unit_dim % max(1, real.dim() - 1)
        dims = [dim for dim in range(1, real.dim()) if dim != unit]
        largest = real.amax(dims) if dims else real
        dead = _mark(torch.eq, largest, 0.0).flatten(1).mean(1)
    return _join(mean, deviation, non_finite, saturated, dead)


def _measure_spread(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of rows, [entries] each.

    On a CPU `torch.var_mean` takes 5 to 13 times as long as these passes over pieces that fit into
    its cache.
    """
    if not is_cheap_to_read(flat.device):
        variance, mean = torch.var_mean(flat, dim=1, correction=0)
        return mean, variance.sqrt()
    mean = flat.mean(1, keepdim=True)
    pieces = flat.split(max(1, _PIECE // len(flat)), dim=1)
    norms = [torch.linalg.vector_norm(piece - mean, dim=1) for piece in pieces]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return mean.squeeze(1), norm / math.sqrt(flat.shape[1])


def _mark(compare: Callable[..., Tensor], values: Tensor, bound: float) -> Tensor:
    """Return 1 where a comparison holds and 0 elsewhere, in a format that is quick to add up."""
    return compare(values, bound, out=torch.empty_like(values, dtype=torch.float32))


def _join(*columns: Tensor) -> Tensor:
    """Return columns of numbers as a table in float64."""
    if len({column.dtype for column in columns}) > 1:
        columns = tuple(column.double() for column in columns)
    return torch.stack(columns, 1).double()


_PIECE = 2**17
"""Entries that are looked at together."""


def _summarize_gradients(gradients: Tensor) -> Tensor:
    """Return norms, and the shares of zeros and of subnormal numbers, [entries, 3].

    Subnormal numbers of full precision, which are rare, are counted in evenly spaced entries, and
    in large gradients zeros, too.
    """
    flat = (torch.view_as_real(gradients) if gradients.is_complex() else gradients).flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1, dtype=_choose_format(flat))
    if not is_cheap_to_read(flat.device) or not _is_moderate(norms):
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    count = flat.shape[1]
    looked = flat if count <= LARGE else flat[:, :: choose_step(count, SAMPLE)]
    zeros = _mark(torch.eq, looked, 0.0).mean(1)
    seen = flat if flat.dtype in HALF else flat[:, :: choose_step(count, _SEEN)]
    size = seen.abs()
    small = _mark(torch.lt, size, torch.finfo(flat.dtype).tiny)
    small -= _mark(torch.eq, size, 0.0)
    return _join(norms, zeros, small.mean(1))


_SEEN = 512


def _choose_format(flat: Tensor) -> torch.dtype:
    return torch.float32 if flat.dtype in HALF else flat.dtype


def _is_moderate(norms: Tensor) -> bool:
    smallest, largest = torch.aminmax(norms)
    return smallest.item() > 1e-15 and largest.item() < 1e15


def _spread(tables: Sequence[tuple[list[int], Lagged]]) -> dict[int, list[list[float]]]:
    """Return the rows of each number."""
    rows: dict[int, list[list[float]]] = {}
    for numbers, lagged in tables:
        matrix = lagged.read().reshape(len(numbers), -1).tolist()
        for number, row in zip(numbers, matrix, strict=True):
            rows.setdefault(number, []).append(row)
    return rows


def _read_layers(
    calls: Sequence[tuple[_Leaf, list[int]]],
    values: dict[int, list[list[float]]],
    gradients: dict[int, list[list[float]]],
    scale: float,
) -> tuple[LayerSample, ...]:
    """Return one sample per module: of its last call, with the gradients of all calls together."""
    layers = []
    for leaf, numbers in calls:
        mean, deviation, non_finite, saturated, dead = values[numbers[-1]][0]
        rows = [row for number in numbers for row in gradients.get(number, ())]
        layers.append(
            LayerSample(
                name=leaf.name,
                kind=leaf.kind,
                mean=mean,
                std=deviation,
                delta_norm=math.hypot(*[row[0] for row in rows]) / scale if rows else None,
                saturation=saturated if saturated >= 0 else None,
                dead_units=dead if dead >= 0 else None,
                zero_share=_average(rows, 1),
                subnormal_share=_average(rows, 2),
                non_finite=int(non_finite),
            )
        )
    return tuple(layers)


def _average(rows: Sequence[Sequence[float]], column: int) -> float | None:
    return sum(row[column] for row in rows) / len(rows) if rows else None


class UpdateMeter:
    """Measures by how much an optimizer's step moves weights: after − before, not rate × gradient.

    The copy of the weights lives only while the optimizer steps.
    """

    def __init__(self, positions: Sequence[int], parameters: Sequence[Tensor]) -> None:
        self._positions = list(positions)
        self._parameters = list(parameters)
        with torch.no_grad():
            self._before = [parameter.clone() for parameter in parameters]
            sizes = sharded_norms(self._before)
        self._sizes = Lagged(sizes, is_fresh=True) if parameters else None
        self._updates: Lagged | None = None

    def finish(self) -> None:
        """After the optimizer's step."""
        if self._before:
            with torch.no_grad():
                updates = sharded_norms(subtract(self._parameters, self._before))
            self._updates = Lagged(updates, is_fresh=True)
        self._before, self._parameters = [], []

    def write(self, sizes: Norms, updates: Norms) -> None:
        """Write ‖W‖ before the step and ‖ΔW‖ to the places of the parameters."""
        if self._sizes is not None:
            sizes[self._positions] = self._sizes.read()
        if self._updates is not None:
            updates[self._positions] = self._updates.read()
