"""Recording a forward pass: which modules ran, on what edge of the graph, with what values.

One forward hook per measured module, no backward hooks: these break in-place operations, are
silent for dictionary outputs and cost ten times as much. A gradient is later asked for at the
*edge* of the autograd graph that a tensor sat on when its module returned, so an operation that
overwrites the tensor afterwards does not change what is measured. For the same reason small
tensors are copied at once and large ones summarized at once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from chainrule.errors import InspectionError
from chainrule.flow.records import Role
from chainrule.measure._torch_internals import (
    add_forward_hook,
    has_backward_hooks,
    is_functorch_wrapped,
    is_in_backward,
    read_version,
)
from chainrule.measure.attention import unwatched
from chainrule.measure.autograd_graph import (
    Edge,
    Target,
    find_sum,
    find_viewed,
    identify_edge,
    make_edge,
)
from chainrule.measure.constants import Constants
from chainrule.measure.inputs import MAX_ENTERING, Entering, take_entering
from chainrule.measure.joins import Joins
from chainrule.measure.modules import Inventory, classify, has_weights, is_leaf, is_measured
from chainrule.measure.results import find_tensors, flatten_nested
from chainrule.measure.sharing import finish_all
from chainrule.measure.stacks import DELTAS, VALUES, summarize_one
from chainrule.measure.statistics import (
    HALF,
    AnyTable,
    is_cheap_to_read,
    measure_norm,
    summarize_derivative,
    summarize_sparse_gradient,
    summarize_values,
)
from chainrule.measure.time import Scan, find_time_dim, measure_steps
from chainrule.spec.activations import Activation

SMALL = 2**16
"""Tensors of up to this many entries are copied and summarized later, together."""

SAME = 1e-3
"""Relative difference up to which a module's output counts as the repetition of an earlier one.
Reversible layers compute their inputs again from their outputs, up to rounding."""


@dataclass(slots=True, eq=False)
class Output:
    """One output tensor of a call.

    Until it is summarized, a small tensor is kept in `values` (with the input of an activation in
    `pre_activation`); a large one leaves its `table` at once.
    """

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    unit_dim: int
    edge: int | None
    values: Tensor | None = None
    pre_activation: Tensor | None = None
    table: AnyTable | None = None
    fingerprint: Tensor | None = None


@dataclass(slots=True, eq=False)
class Subject:
    """A measured module; `module` is there until the recorder is released."""

    module: nn.Module | None
    name: str
    kind: str
    role: Role
    activation: Activation | None
    unit_dim: int | None
    dims: int | None
    watched: bool
    recurrent: bool = False
    is_leaf: bool = True
    runs: int = 0


@dataclass(slots=True, eq=False)
class Sum:
    """A sum that a module or a function read, itself or a view of it: maybe a residual one."""

    node: Any
    edge: int
    size: Tensor


@dataclass(slots=True, eq=False)
class Call:
    """One call of one module.

    `sequence` is the edge of what a recurrent module reads step by step; `is_cell` says that it
    reads a single step. `step` is what a module read that may be one step of a sequence, with its
    version; `is_apart` says that what comes of it does not go into what comes of the next call.
    """

    subject: Subject
    number: int
    parent: "Call | None"
    input_edges: tuple[int, ...] = ()
    sequence: int | None = None
    is_cell: bool = False
    step: tuple[Tensor, int | None] | None = None
    is_apart: bool = False
    outputs: list[Output] = field(default_factory=list)


class Recorder:
    """What the hooks of one forward pass write down.

    Attributes:
        calls: The calls, in the order in which they returned.
        targets: Every edge of the graph that a call's input or output sat on. Elsewhere, edges are
            positions in this list.
        large: Those of them whose gradients are too large to be held all at once: once `listen`
            was called, they are summarized as they pass.
        last_run: The last measured module that returned.
        is_complete: Whether the forward pass is over: a module that runs later is repeated.
        without_grad: By module, calls made while gradients were off: no gradient is wanted there,
            or a reentrant checkpoint will repeat them.
        replaced: Edge of a view that was overwritten in place → edge of the tensor viewed, where
            the gradient arrives instead.
        sums: What modules read that is a sum, by the node and output where it was made; so it is
            with functions that do what activations and normalizations do (`note_read`).
        read: Edges of sums that such functions read, and of what they made of them; and whether it
            was a normalization: one of other outputs counts, too.
        overwritten: Nodes that add in place (`chainrule.measure.autograd_graph.find_sum`).
        kept: Edges whose gradients are wanted, also if no call's tensor sat on them.
        by_example: Edges at which it is noted which examples (entries of the first dimension)
            receive a gradient; `active` holds it for large ones.
        on_recomputed: Receives such a call and its fresh outputs when it is repeated.
        entering: What came in from outside.
        joins, constants: What is joined to values that have a gradient; what is cut off the graph.
        readers: Names of modules that read what was cut off.
        lent: Edges of sequences from outside that require a gradient only while this records, so
            that it can be had step by step (`lend_gradient`); to calls they are no inputs.
        timed: Edge of a sequence that a recurrent module reads or returns → dimension of its time.
        sequences: Edge of such a sequence → its values, not copied, with their version.
        steps: Those of them that are large → the gradient's norm at each step.
        scans: Loops over time that are written by hand.
        spread: The first output with positions, and others that read the same; their dimension.
        arriving: Edge behind a change to a wider format → the output in half precision before it.
        has_half: Whether some output is in half precision.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.calls: list[Call] = []
        self.targets: list[Target] = []
        self.large: set[int] = set()
        self.handles: list[Any] = []
        self.last_run: Subject | None = None
        self.is_complete = False
        self.without_grad: dict[nn.Module, list[Call]] = {}
        self.on_recomputed: Callable[[Call, Sequence[Tensor]], None] | None = None
        self.subjects = {
            module: describe_module(name, module)
            for name, module in inventory.modules
            if is_measured(name, module)
        }
        self.replaced: dict[int, int] = {}
        self.sums: dict[tuple[Any, int], Sum] = {}
        self.read: list[tuple[int, int | None, bool]] = []
        self.overwritten: set[Any] = set()
        self.kept: set[int] = set()
        self.by_example: set[int] = set()
        self.active: dict[int, Tensor] = {}
        self._positions: dict[tuple[Any, int], int] = {}
        self._open: list[Call] = []
        self._before: dict[nn.Module, tuple[Tensor | None, tuple[int, ...]]] = {}
        self._tables: dict[int, Any] | None = None
        self._layout: tuple[int, int | None] = -1, None
        self._latest: tuple[Tensor, int | None, Output] | None = None
        self.entering: list[Entering] = []
        self.joins = Joins()
        self.constants = Constants()
        self.readers: list[str] = []
        self.lent: set[int] = set()
        self.timed: dict[int, int] = {}
        self.sequences: dict[int, tuple[Tensor, int | None]] = {}
        self.steps: dict[int, Tensor] = {}
        self.scans: list[Scan] = []
        self.spread: list[tuple[Call, Output, int]] = []
        self.arriving: dict[int, Output] = {}
        self.has_half = False
        self._may_enter = True
        self._sequence: tuple[nn.Module, int, int] | None = None

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a module that contains modules, or that works in place."""
        if self.is_complete or is_in_backward():
            return
        subject = self.subjects[module]
        tensors = [tensor for _, tensor in find_tensors((args, kwargs))]
        edges = self._note_inputs(subject, args, kwargs, first=not subject.runs)
        if subject.watched:
            for tensor in tensors:
                if (base := find_viewed(tensor)) is not None:
                    self._note_base(tensor, base, only_private=False)
            keep = subject.activation is not None and tensors
            self._before[module] = (self._copy(tensors[0]) if keep else None, edges)
            return
        call = self._start(subject)
        call.input_edges = edges
        self._open.append(call)

    def leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """After any measured module."""
        if self.is_complete or is_in_backward():  # a checkpoint repeats an earlier call
            self._match_recomputation(module, result)
            return
        subject = self.last_run = self.subjects[module]
        first = not subject.runs
        pre_activation = args[0] if args else next(iter(kwargs.values()), None)
        is_copy = False
        if subject.watched:
            call = self._start(subject)
            before, call.input_edges = self._before.pop(module)
            pre_activation, is_copy = (pre_activation, False) if before is None else (before, True)
        elif self._open and self._open[-1].subject is subject:
            call = self._open.pop()
        else:
            call = self._start(subject)
            call.input_edges = self._note_inputs(subject, args, kwargs, first=first)
        self.calls.append(call)
        if subject.recurrent:
            self._note_sequence(call, module)
        if subject.role == "weight" and (call.is_cell or not call.input_edges):
            _note_step(call, args)
        if subject.unit_dim is not None:
            self._layout = subject.unit_dim, subject.dims
        if isinstance(result, Tensor):
            self._note_output(call, "", result, pre_activation, is_copy=is_copy)
        else:
            for path, tensor in find_tensors(result):
                self._note_output(call, path, tensor, pre_activation, is_copy=is_copy)
        if not torch.is_grad_enabled():
            for output in call.outputs:
                output.fingerprint = _take_fingerprint(output)
            self.without_grad.setdefault(module, []).append(call)

    def _note_sequence(self, call: Call, module: nn.Module) -> None:
        call.is_cell = isinstance(module, nn.RNNCellBase)
        if self._sequence is not None and self._sequence[0] is module:
            _, call.sequence, length = self._sequence
            call.is_cell = length == 1
        self._sequence = None

    def _copy(self, tensor: Tensor) -> Tensor:
        """Return a copy of what a module reads: if there is one of this very output, that one."""
        latest, version = self._latest, read_version(tensor)
        if latest and version is not None and latest[0] is tensor and latest[1] == version:
            copied = latest[2].values
            assert copied is not None
            return copied
        return tensor.detach().clone()

    def note_edge(self, tensor: Tensor) -> int | None:
        """Remember where in the graph a tensor sits now, so that its gradient can be asked for."""
        if not tensor.requires_grad:
            return None
        node = tensor.grad_fn
        key = (id(tensor), -1) if node is None else (node, tensor.output_nr)  # as `identify_edge`
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = len(self.targets)
            edge = make_edge(tensor)
            if tensor.numel() > SMALL and edge is not tensor and not has_backward_hooks(tensor):
                self.large.add(position)
                self.handles.append(tensor.register_hook(partial(self._summarize, position)))
            self.targets.append(edge)
        return position

    def keep_edge(self, node: Any, output_nr: int) -> int | None:
        """Have the gradient kept where a node puts out; `None` if it is too large for that."""
        key = identify_edge(node, output_nr)
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = len(self.targets)
            self.targets.append(GradientEdge(node, output_nr))
        elif position in self.large:
            return None
        self.kept.add(position)
        return position

    def note_node(self, node: Any) -> int:
        """Remember the output of a node of the graph that no module returned."""
        key = identify_edge(node, 0)
        position = self._positions.get(key)
        if position is None:
            position = self._positions[key] = len(self.targets)
            self.targets.append(GradientEdge(node, 0))
        return position

    def release(self) -> None:
        """Release all tensors and the graph; what remains are plain descriptions."""
        self._latest = None
        self.targets.clear()
        self._positions.clear()
        self.without_grad.clear()
        self.sums.clear()
        self.overwritten.clear()
        self.active.clear()
        self.entering.clear()
        self.steps.clear()
        self.sequences.clear()
        self.scans.clear()
        self.spread.clear()
        self.arriving.clear()
        for subject in self.subjects.values():
            subject.module = None
        self.subjects.clear()
        for call in self.calls:
            call.step = None
            for output in call.outputs:
                output.values = output.pre_activation = output.fingerprint = output.table = None

    def _start(self, subject: Subject) -> Call:
        subject.runs += 1
        return Call(subject, subject.runs - 1, self._open[-1] if self._open else None)

    def listen(self, tables: dict[int, Any] | None) -> None:
        """Have backward passes from now on put tables into a dictionary, by large edge, or not."""
        self._tables = tables

    def _summarize(self, edge: int, gradient: Tensor) -> None:
        if self._tables is not None:
            with torch.no_grad():
                gradient = flatten_nested(gradient)
                if edge in self.by_example and not gradient.is_sparse:
                    self.active[edge] = find_active(gradient.detach())
                if edge in self.timed:
                    self.steps[edge] = measure_steps(gradient.detach(), self.timed[edge])
                self._tables[edge] = (
                    summarize_sparse_gradient(gradient)
                    if gradient.is_sparse
                    else summarize_one(DELTAS, gradient.detach())
                )

    def lend_gradient(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Before a recurrent module reads a sequence: note its edge, and if it has none, make one.

        A sequence from outside needs no gradient, but what reaches its steps is what recurrence
        passes on. So the module gets the same values with a gradient of their own.
        """
        if self.is_complete or is_in_backward() or not torch.is_grad_enabled():
            return None
        in_args = bool(args)
        sequence = args[0] if in_args else kwargs.get("input")
        if not _is_sequence(sequence):
            return None
        edge = self.note_edge(sequence)
        if edge is None and any(
            p.requires_grad for p in module._parameters.values() if p is not None
        ):
            sequence = sequence.detach().requires_grad_()
            edge = self.note_edge(sequence)
            assert edge is not None
            self.lent.add(edge)
        if edge is not None:
            time_dim = self.timed[edge] = find_time_dim(module, sequence)
            self.sequences[edge] = sequence.detach(), read_version(sequence)
            self._sequence = module, edge, sequence.shape[time_dim]
        if edge not in self.lent:
            return None
        return ((sequence, *args[1:]), kwargs) if in_args else (args, kwargs | {"input": sequence})

    def _note_entering(self, subject: Subject, args: Any, kwargs: Any) -> None:
        """Note what a module reads at its first call that no measured module has made.

        Once a module's output needs no gradient, what is made of it looks like an input.
        """
        found = [each for each in args if isinstance(each, Tensor)]
        found = found or [each for each in kwargs.values() if isinstance(each, Tensor)][:1]
        self._take(subject, found[:1] if isinstance(subject.module, _RECURRENT) else found)

    def _take(self, subject: Subject, found: Sequence[Tensor], *, is_part: bool = False) -> None:
        """Keep a sample of tensors that came from outside."""
        module = subject.module
        if module is None or isinstance(module, _LOSSES):
            return
        for tensor in found:
            if (
                tensor.grad_fn is None
                and tensor.is_floating_point()
                and tensor.layout == torch.strided
                and not isinstance(tensor, nn.Parameter)
                and tensor.numel() > 1
                and tensor.dim()
                and len(self.entering) < MAX_ENTERING
                and not tensor.is_nested
                and not is_functorch_wrapped(tensor)
                and not any(each.is_of(tensor) for each in self.entering)
            ):
                self.entering.append(
                    take_entering(subject.name, module, subject.unit_dim, tensor, is_part=is_part)
                )

    def find_edge(self, node: Any, output_nr: int) -> int | None:
        """Return the edge where a node of the graph puts out, if a call's tensor sat on it."""
        return self._positions.get(identify_edge(node, output_nr))

    def _note_inputs(
        self, subject: Subject, args: Any, kwargs: Any, *, first: bool
    ) -> tuple[int, ...]:
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            tensors = [args[0]]
        else:
            tensors = [tensor for _, tensor in find_tensors((args, kwargs))]
        edges = []
        has_entered = False
        for tensor in tensors:
            if first and self._may_enter and tensor.is_leaf and not has_entered:
                self._note_entering(subject, args, kwargs)
                has_entered = True
            edge = self.note_edge(tensor)
            if first and torch.is_grad_enabled():
                self._note_parts(subject, tensor)
            if edge is not None and edge not in self.lent:
                edges.append(edge)
                if (key := find_sum(tensor, self.overwritten)) is not None:
                    self._note_sum(key, tensor, edge)
        return tuple(edges)

    def _note_parts(self, subject: Subject, tensor: Tensor) -> None:
        """Note what a module reads joined to something else, and what was cut off the graph."""
        parts = self.joins.find(tensor) if tensor.requires_grad else (tensor,)
        if any(map(self.constants.is_cut, parts)):
            self.readers.append(subject.name)
        if tensor.requires_grad and self._may_enter:
            self._take(subject, parts, is_part=True)

    def note_read(self, tensor: Tensor, run: Callable[[], Any], *, is_normalization: bool) -> Any:
        """Run an activation or a normalization that is called as a function, and note its sum."""
        if self.is_complete or is_functorch_wrapped(tensor) or tensor.grad_fn is None:
            return run()
        key = find_sum(tensor, self.overwritten)
        edge = self._positions.get((tensor.grad_fn, tensor.output_nr))
        if (
            key is not None
            and key not in self.sums
            and (edge := self.note_edge(tensor)) is not None
        ):
            self._note_sum(key, tensor, edge)
        result = run()
        if edge is not None and (key is not None or is_normalization) and type(result) is Tensor:
            self.read.append((edge, self.note_edge(result), is_normalization))
        return result

    def _note_sum(self, key: Edge, tensor: Tensor, edge: int) -> None:
        if key in self.sums or tensor.numel() == 0 or tensor.is_nested or tensor.is_sparse:
            return
        if is_functorch_wrapped(tensor):
            return
        values = tensor.detach()
        if values.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        self.sums[key] = Sum(key[0], edge, measure_norm(values) / tensor.numel() ** 0.5)

    def _note_output(
        self, call: Call, path: str, tensor: Tensor, pre_activation: Any, *, is_copy: bool
    ) -> None:
        if is_functorch_wrapped(tensor):
            raise InspectionError(
                "Modules must run outside of torch.func transforms (vmap, grad, …) to be measured, "
                f"but {call.subject.name!r} runs inside one. Call the model directly in "
                "compute_loss."
            )
        values = tensor.detach()
        if values.is_nested:
            values = flatten_nested(values)
        shape, edge = tuple(values.shape), self.note_edge(tensor)
        output = Output(path, shape, tensor.dtype, self._find_unit_dim(len(shape)), edge)
        if edge is not None and (base := find_viewed(tensor)) is not None:
            self._note_base(tensor, base, only_private=True)
        call.outputs.append(output)
        self._note_kind(call, output, tensor)
        subject = call.subject
        if edge is not None and not subject.is_leaf:
            key = find_sum(tensor, self.overwritten)
            if key is not None:
                self._note_sum(key, tensor, edge)
        if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
            return
        if values.layout != torch.strided:
            values = values.to_dense()
        if isinstance(pre_activation, Tensor) and pre_activation.is_nested:
            pre_activation = flatten_nested(pre_activation.detach())
        has_input = (
            subject.activation is not None
            and isinstance(pre_activation, Tensor)
            and pre_activation.shape == values.shape
        )
        if values.numel() <= SMALL:
            output.values = values.clone()
            if has_input:
                output.pre_activation = pre_activation if is_copy else self._copy(pre_activation)
            self._latest = tensor, read_version(tensor), output
            return
        with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
            output.table = summarize_one(VALUES, values)
            if has_input:
                assert subject.activation is not None
                output.table |= summarize_derivative(
                    [pre_activation.detach().unsqueeze(0)],
                    subject.activation,
                    subject.module,
                    output.unit_dim,
                )

    def _note_kind(self, call: Call, output: Output, tensor: Tensor) -> None:
        self._may_enter = self._may_enter and tensor.requires_grad
        self.has_half = self.has_half or output.dtype in HALF
        if call.subject.recurrent and output.path == "0" and output.edge is not None:
            module = call.subject.module
            if isinstance(module, nn.RNNBase):
                self.timed[output.edge] = find_time_dim(module, tensor)
                self.sequences[output.edge] = tensor.detach(), read_version(tensor)

    def _note_base(self, tensor: Tensor, base: Tensor, *, only_private: bool) -> None:
        """Note the edge of the tensor of which this one is a view, for when it is overwritten.

        Overwriting a view rewrites the graph: the gradient of its old values then arrives at the
        tensor viewed, not at the view. (A linear layer returns a view for inputs of three
        dimensions.) A base that no module has returned is private: it has no other users.
        """
        if base.grad_fn is None:
            return
        known = len(self.targets)
        view, edge = self.note_edge(tensor), self.note_edge(base)
        if view is not None and edge is not None and (edge == known or not only_private):
            self.replaced[view] = edge

    def _find_unit_dim(self, dims: int) -> int:
        unit_dim, expected = self._layout
        if -unit_dim > dims or (expected is not None and expected != dims):
            unit_dim = -1
        return max(dims + unit_dim, 0)

    def _match_recomputation(self, module: nn.Module, result: Any) -> None:
        """Pair a call inside a reentrant checkpoint's backward pass with its first run."""
        pending = self.without_grad.get(module)
        if not pending or self.on_recomputed is None or not torch.is_grad_enabled():
            return
        tensors = [tensor for _, tensor in find_tensors(result)]
        alike = [
            (max(map(_measure_distance, call.outputs, tensors), default=0.0), call)
            for call in reversed(pending)
            if len(call.outputs) == len(tensors)
        ]
        distance, call = min(alike, key=lambda pair: pair[0], default=(math.inf, None))
        if call is not None and distance <= SAME:
            pending.remove(call)
            self.on_recomputed(call, tensors)


@contextmanager
def record(inventory: Inventory) -> Iterator[Recorder]:
    """Hook a model's measured modules, and unhook them on leaving."""
    recorder = Recorder(inventory)
    undo: list[Callable[[], None]] = []
    enter, leave = unwatched(recorder.enter), unwatched(recorder.leave)
    lend = unwatched(recorder.lend_gradient)
    try:
        for module, subject in recorder.subjects.items():
            if not subject.is_leaf or subject.watched:
                undo.append(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            if subject.recurrent and isinstance(module, nn.RNNBase):
                undo.append(module.register_forward_pre_hook(lend, with_kwargs=True).remove)
            undo.append(add_forward_hook(module, leave))
        yield recorder
    finally:
        finish_all((*undo, *(handle.remove for handle in recorder.handles)))


def list_call_edges(calls: Iterable[Call]) -> set[int]:
    """Return the edges that inputs and outputs of calls sat on."""
    return {
        edge
        for call in calls
        for edge in (*call.input_edges, *(output.edge for output in call.outputs))
        if edge is not None
    }


def _note_step(call: Call, args: Sequence[Any]) -> None:
    """Note what a module read that may be one step of a sequence; it is not copied."""
    read = args[0] if args else None
    if (
        isinstance(read, Tensor)
        and read.is_floating_point()
        and not (read.is_nested or read.is_sparse or is_functorch_wrapped(read))
    ):
        call.step = read.detach(), read_version(read)


def _is_sequence(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dim() >= 2
        and value.numel() > 0
        and not value.is_nested
        and not is_functorch_wrapped(value)
    )


_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_LOSSES = nn.modules.loss._Loss


def find_active(gradient: Tensor) -> Tensor:
    """Return which examples (entries of the first dimension) have a gradient other than zero."""
    rows = gradient.flatten(1) if gradient.dim() > 1 else gradient.reshape(-1, 1)
    if rows.numel() > SMALL and is_cheap_to_read(rows.device):
        seen = rows[:, :: max(1, rows.shape[1] // 64)].any(1)
        if bool(seen.all()):
            return seen
    return rows.any(1)


def describe_module(name: str, module: nn.Module) -> Subject:
    """Return what is known of a module before it runs."""
    traits = classify(module)
    leaf = is_leaf(module)
    return Subject(
        module=module,
        name=name,
        kind=traits.kind,
        role="weight" if module._parameters and has_weights(module) else traits.role,
        activation=traits.activation,
        unit_dim=traits.unit_dim,
        dims=traits.dims,
        # Its inputs are looked at before it runs: it works in place, or might, unknown to us.
        watched=leaf and (not traits.is_known or bool(vars(module).get("inplace"))),
        recurrent=isinstance(module, _RECURRENT),
        is_leaf=leaf,
    )


def _take_fingerprint(output: Output) -> Tensor | None:
    """Return a few numbers by which a repeated call can be told from the module's other calls."""
    if output.values is not None:
        return _thin_out(output.values)
    return torch.as_tensor(output.table["mean"]).flatten() if output.table else None


def _measure_distance(output: Output, tensor: Tensor) -> float:
    """Return by how much a tensor differs from an earlier output, relative to that one's size."""
    values = flatten_nested(tensor.detach())
    if output.shape != tuple(values.shape):
        return math.inf
    if output.fingerprint is None:
        return 0.0
    if values.numel() > SMALL:
        flat = summarize_values([values.unsqueeze(0)])["mean"].flatten()
    else:
        flat = _thin_out(values)
    both = output.fingerprint
    same = (flat == both) | (flat.isnan() & both.isnan())
    if bool(same.all()):
        return 0.0
    size = float(torch.linalg.vector_norm(both)) or 1.0
    distance = float(torch.linalg.vector_norm(flat - both)) / size
    return math.inf if math.isnan(distance) else distance


def _thin_out(tensor: Tensor) -> Tensor:
    return tensor.flatten()[:: max(1, tensor.numel() // 64)]
