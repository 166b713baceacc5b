"""Watching attention during a forward pass: how widely every query spreads its attention.

Two ways to compute it are seen: `scaled_dot_product_attention`, and a softmax along the last
dimension of q·kᵀ whose result is then multiplied with values. The original operations run, once and
unchanged; what is measured comes from a sample of their inputs: of a tensor with many rows,
`QUERIES` evenly spaced queries in `EXAMPLES` evenly spaced examples, in all heads.
"""

import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import currentframe
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function

from chainrule.flow.records import NEAR_ONE_HOT, NEAR_UNIFORM
from chainrule.measure._torch_internals import (
    disable_dispatch_modes,
    disable_function_modes,
    find_base,
    has_function_stack,
    is_functorch_wrapped,
    is_in_backward,
    pop_function_mode,
    push_function_mode,
)
from chainrule.measure.alignments import find_short
from chainrule.measure.autograd_graph import find_overwritten
from chainrule.measure.broadcasts import COMPARES, Broadcasts
from chainrule.measure.constants import SUMS, Constants
from chainrule.measure.joins import JOINS, Joins
from chainrule.measure.modules import Inventory, is_leaf
from chainrule.measure.overwrites import Overwrites, watch_overwrites
from chainrule.measure.sharing import finish_all
from chainrule.measure.slips import WATCHED, Place, Slips
from chainrule.measure.source_lines import Callers, find_line

if TYPE_CHECKING:
    from chainrule.flow.loss import AlignmentFlow

QUERIES, EXAMPLES = 16, 2
"""How many queries are looked at, in how many examples of the batch."""

BARRED = 9_000.0
"""A key is barred to a query if the mask adds −9,000 or less: its weight is zero in any precision.
Masks are written as −∞, as the lowest number of the precision, −1e9 or −1e4."""

_TRACKED = 16
"""Most tensors that are followed at a time."""

_OF_CTC = ("log_probs", "targets", "input_lengths", "target_lengths")
_SOFTMAX = frozenset({"softmax", "special_softmax"})
_PRODUCTS = frozenset({"matmul", "bmm", "mm", "baddbmm", "einsum"})
_ADDS_IN_PLACE = frozenset({"add_", "__iadd__"})
_LOOKED_AT = (
    COMPARES
    | SUMS
    | JOINS
    | WATCHED
    | _ADDS_IN_PLACE
    | _PRODUCTS
    | {"scaled_dot_product_attention", "ctc_loss"}
)
"""Functions that are looked at where nothing is followed and their result needs a gradient."""
_NORMALIZES = frozenset(["layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm"])
_ACTIVATES_BY = (
    "relu relu_ leaky_relu elu selu celu gelu silu mish tanh sigmoid softplus hardtanh relu6"
)
_READS = _NORMALIZES | frozenset(_ACTIVATES_BY.split())
"""Functions that do what modules do that may stand behind a sum."""
_CARRIED_BY = (
    "add add_ sub sub_ mul mul_ div div_ true_divide masked_fill masked_fill_ where to float half "
    "bfloat16 double type type_as view reshape transpose permute swapaxes contiguous clone clamp "
    "clamp_min tanh tanh_ squeeze unsqueeze flatten unflatten nan_to_num cat concat dropout "
    "dropout_ __add__ __radd__ __iadd__ __sub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ "
    "__itruediv__ __getitem__"
)
_CARRIERS = frozenset(_CARRIED_BY.split())
"""Functions whose result still is what went in: scores masked and scaled, weights dropped out."""


NoteRead = Callable[..., Any]
"""How such a function is run: `chainrule.measure.recording.Recorder.note_read`."""


@dataclass(slots=True, eq=False)
class AttentionCall:
    """One computation of attention weights in the module called `name`.

    `sizes` are heads, queries and keys; `values` is [4]: relative entropy, how many of the rows
    looked at may attend more than one key, shares of heads near one-hot and near uniform.
    """

    name: str
    sizes: tuple[int, int, int]
    values: Tensor


@dataclass(slots=True, eq=False)
class _Weights:
    """A softmax that may turn out to be attention: its scores, sampled."""

    name: str
    sizes: tuple[int, int, int]
    scores: Tensor


class AttentionWatch(TorchFunctionMode):
    """Notes every computation of attention weights while it is entered.

    Attributes:
        calls: What was seen, in order.
        is_paused: Whether it looks away, because another model is measured in between.
        constants: What is cut off the graph meanwhile.
        broadcasts: What compares every answer with the targets of all examples.
        alignment: Whether the sequences of a CTC loss are long enough.
        slips: Calls whose effect is seldom meant.
        joins: What is joined to values that have a gradient.
        overwrites: What is given to the model and changed in place.
    """

    def __init__(
        self,
        inventory: Inventory,
        overwritten: set[Any] | None = None,
        note_read: NoteRead | None = None,
    ) -> None:
        super().__init__()
        self._overwritten = set() if overwritten is None else overwritten
        self._note_read = note_read
        self.calls: list[AttentionCall] = []
        self.is_paused = False
        self.constants = Constants()
        self.broadcasts = Broadcasts()
        self.slips = Slips()
        self.joins = Joins()
        self.overwrites = Overwrites()
        self.alignment: AlignmentFlow | None = None
        self._callers = Callers()
        self._names = {module: name for name, module in inventory.modules}
        self._inside: list[nn.Module] = []
        self._heads: list[int] = []
        self._tracked: dict[int, tuple[weakref.ref[Tensor], _Weights | None]] = {}

    def __exit__(self, *_: Any) -> None:
        """Leave, also where another mode was put on top and left it there."""
        self._tracked.clear()
        self._inside.clear()
        above = []
        while (mode := pop_function_mode()) is not None and mode is not self:
            above.append(mode)
        for each in reversed(above):
            push_function_mode(each)

    def enter(self, module: nn.Module, _: Any) -> None:
        """Before a module that contains modules."""
        self._inside.append(module)

    def leave(self, module: nn.Module, *_: Any) -> None:
        """After it, also when it raised."""
        if self._inside and self._inside[-1] is module:
            self._inside.pop()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of PyTorch, and look at what went in if it is attention."""
        kwargs = kwargs or {}
        if self.is_paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "multi_head_attention_forward" and func is F.multi_head_attention_forward:
            return self._run_multihead(args, kwargs)
        result = self._run(name, self._callers.find(_find_caller()), (func, args, kwargs))
        if (
            name not in _LOOKED_AT
            and type(result) is Tensor
            and result.requires_grad
            and not self._tracked
            and not self.broadcasts.are_followed
        ):
            return result  # most of them
        self.broadcasts.note(name, args, kwargs, result)
        self.slips.note(name, args, kwargs, result, self._find_place)
        self.joins.note(name, args, kwargs, result)
        if name == "ctc_loss":
            self._note_alignment(args, kwargs)
        if type(result) is Tensor:
            if not result.requires_grad:
                self.constants.note_constant(name, args, result)
            elif self.constants.are_there and name in SUMS:
                self.constants.note_sum(name, args, result)
        if name in _ADDS_IN_PLACE and (node := find_overwritten(result)) is not None:
            self._overwritten.add(node)
        if name == "scaled_dot_product_attention":
            self._note_fused(*args, **kwargs)
        elif name in _PRODUCTS:
            self._note_product(args, kwargs, result)
        elif self._tracked and name in _CARRIERS:
            self._carry(args, result)
        elif self._tracked and name in _SOFTMAX:
            self._note_softmax(args, kwargs, result)
        return result

    def _run(self, name: str, call: Callable[..., Any], given: tuple[Any, Any, Any]) -> Any:
        """Run a function; a sum that an activation or a normalization reads may be a residual."""
        args = given[1]
        if name not in _READS or self._note_read is None or not args or type(args[0]) is not Tensor:
            result = call(*given)
        else:
            result = self._note_read(
                args[0], lambda: call(*given), is_normalization=name in _NORMALIZES
            )
        if self.overwrites.is_open:
            self.overwrites.note(name, self._find_place)
        return result

    def _note_alignment(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given = dict(zip(_OF_CTC, args, strict=False)) | dict(kwargs)
        with disable_function_modes():
            found = find_short([given.get(key) for key in _OF_CTC])
        if found is not None and (self.alignment is None or not self.alignment.short):
            self.alignment = found

    def _run_multihead(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run the function of `nn.MultiheadAttention` so that what it calls is seen as well."""
        if self._heads or not _is_plain(*args):
            return F.multi_head_attention_forward(*args, **kwargs)
        self._heads.append(args[4] if len(args) > 4 else kwargs["num_heads"])
        try:
            with self._resumed():
                return open_multihead()(*args, **kwargs)
        finally:
            self._heads.pop()

    @contextmanager
    def _resumed(self) -> Iterator[None]:
        push_function_mode(self)
        try:
            yield
        finally:
            pop_function_mode()

    # --- Softmax between two products ------------------------------------------------------------

    def _note_product(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        operands = [value for value in _flatten((*args, *kwargs.values())) if _is_plain(value)]
        for operand in operands:
            weights = self._find(operand)
            if weights is not None and min(each.dim() for each in operands) > 1:
                self._tracked = {
                    key: entry for key, entry in self._tracked.items() if entry[1] is not weights
                }
                values = _measure_scores(weights.scores)
                self.calls.append(AttentionCall(weights.name, weights.sizes, values))
                return
        if _is_plain(result) and result.dim() > 1 and not any(map(_is_parameter, operands)):
            self._follow(result, None)

    def _carry(self, args: Sequence[Any], result: Any) -> None:
        for value in _flatten(args):
            entry = self._tracked.get(id(value))
            if entry is not None and entry[0]() is value:
                if isinstance(result, Tensor) and result is not value:
                    self._follow(result, entry[1])
                return

    def _note_softmax(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        scores: Tensor | None = args[0] if args else kwargs.get("input")
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        entry = self._tracked.get(id(scores))
        if scores is None or entry is None or entry[0]() is not scores or entry[1] is not None:
            return
        if not _is_plain(scores) or dim not in (-1, scores.dim() - 1):
            return
        if is_in_backward():  # a checkpoint repeats what was seen
            return
        values = scores.detach()
        if values.dim() == 3 and self._heads:
            values = values.unflatten(0, (-1, self._heads[-1]))
        with _undisturbed(values):
            sample = _pick_rows(values)
            sample = sample.clone() if sample is values else sample
        sizes = _count_heads(values), values.shape[-2], values.shape[-1]
        self._follow(result, _Weights(self._name_place(), sizes, sample))

    def _find(self, value: Tensor) -> _Weights | None:
        entry = self._tracked.get(id(value))
        return entry[1] if entry is not None and entry[0]() is value else None

    def _follow(self, tensor: Tensor, weights: _Weights | None) -> None:
        """Remember that a tensor is a product of two tensors, or weights made from one."""
        if len(self._tracked) >= _TRACKED:
            del self._tracked[next(iter(self._tracked))]
        self._tracked.pop(id(tensor), None)
        self._tracked[id(tensor)] = weakref.ref(tensor), weights

    # --- The fused function ----------------------------------------------------------------------

    def _note_fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if not _is_plain(query, key) or query.numel() == 0 or key.numel() == 0:
            return
        if is_in_backward():  # a checkpoint repeats what was seen
            return
        values = _measure_fused(query, key, attn_mask, is_causal, scale, enable_gqa)
        sizes = _count_heads(query), query.shape[-2], key.shape[-2]
        self.calls.append(AttentionCall(self._name_place(), sizes, values))

    def _find_place(self) -> Place:
        """Return which module is running, by its `forward`: innermost ones have no hooks here."""
        frame: Any = currentframe()
        while frame is not None:
            if frame.f_code.co_name == "forward":
                module = frame.f_locals.get("self")
                if isinstance(module, nn.Module) and module in self._names:
                    is_of_torch = type(module).__module__.startswith("torch.nn.")
                    line = ("", None) if is_of_torch else find_line()
                    return Place(self._names[module], *line)
            frame = frame.f_back
        return Place(self._name_place(), *find_line(), is_in_loss=not self._inside)

    def _name_place(self) -> str:
        return self._names.get(self._inside[-1], "") if self._inside else ""


def _find_caller() -> Any:
    """Return the frame that called the function which a mode was asked to run.

    Functions of PyTorch that are written in Python ask by a function of their own.
    """
    frame: Any = currentframe()
    frame = frame.f_back.f_back
    return frame.f_back.f_back if frame.f_code is _ASKS else frame


_ASKS = handle_torch_function.__code__

_THREAD = threading.local()
"""In `watch`, the one that this thread is in."""


@contextmanager
def watch_attention(
    inventory: Inventory,
    overwritten: set[Any] | None = None,
    note_read: NoteRead | None = None,
) -> Iterator[AttentionWatch]:
    """Watch a model's attention in this thread; `overwritten` receives nodes of sums in place.

    `note_read` runs activations and normalizations that are called as functions.

    A watch that this thread has begun already, for another model, pauses meanwhile.
    """
    watch = AttentionWatch(inventory, overwritten, note_read)
    if not has_function_stack():
        yield watch
        return
    handles: list[Any] = []
    around, _THREAD.watch = getattr(_THREAD, "watch", None), watch
    try:
        if around is not None:
            around.is_paused = True
        for _, module in inventory.modules:
            if not is_leaf(module):
                handles.append(module.register_forward_pre_hook(watch.enter, prepend=True))
                handles.append(module.register_forward_hook(watch.leave, always_call=True))
        model = inventory.modules[0][1]
        outer = (model, *model.children())
        with watch_overwrites(watch.overwrites, outer, unwatched), watch:
            yield watch
    finally:
        _THREAD.watch = around
        if around is not None:
            around.is_paused = False
        finish_all(handle.remove for handle in handles)


def unwatched(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook whose own operations no watch sees, so that it takes no longer than before."""

    def run(*args: Any) -> Any:
        mode = pop_function_mode()
        if mode is None:
            return hook(*args)
        try:
            return hook(*args)
        finally:
            push_function_mode(mode)

    return run


@cache
def open_multihead() -> Callable[..., Any]:
    """Return `F.multi_head_attention_forward` without its question whether a mode watches.

    That question hands the whole function over; the same code without it lets its parts be seen.
    """
    function: Any = F.multi_head_attention_forward
    opened = types.FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda _: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _is_plain(*values: Any) -> bool:
    """Whether these hold ordinary tensors of real numbers only (what is no tensor counts not)."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    return bool(tensors) and all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_floating_point()
        and not tensor.is_nested
        and not tensor.is_meta
        and tensor.layout == torch.strided
        and not is_functorch_wrapped(tensor)
        for tensor in tensors
    )


def _count_heads(tensor: Tensor) -> int:
    return tensor.shape[-3] if tensor.dim() > 3 else 1


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or isinstance(find_base(tensor), nn.Parameter)


# --- Values --------------------------------------------------------------------------------------


@contextmanager
def _undisturbed(tensor: Tensor) -> Iterator[None]:
    """Calculate in plain precision, without a graph, and unseen by other watchers."""
    with (
        disable_function_modes(),
        torch.no_grad(),
        torch.autocast(tensor.device.type, enabled=False),
        disable_dispatch_modes(),
    ):
        yield


def _pick(tensor: Tensor, dim: int, wanted: int) -> Tensor:
    """Return evenly spaced slices along a dimension (from the end), first and last among them."""
    size = tensor.shape[dim] if -dim <= tensor.dim() else 1
    if size <= wanted:
        return tensor
    return tensor.index_select(dim, _spread(size, wanted, tensor.device))


def _spread(size: int, wanted: int, device: torch.device) -> Tensor:
    count = min(size, wanted)
    places = [round(index * (size - 1) / max(count - 1, 1)) for index in range(count)]
    return torch.tensor(places, device=device)


def _pick_rows(tensor: Tensor, *, queries: bool = True) -> Tensor:
    """Return a sample of [..., heads, queries, keys]: some examples and, if asked, some queries."""
    for dim in range(-tensor.dim(), -3):
        tensor = _pick(tensor, dim, EXAMPLES)
    return _pick(tensor, -2, QUERIES) if queries else tensor


def _widen(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _measure_fused(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
    grouped: bool,
) -> Tensor:
    """Return the values of `scaled_dot_product_attention` for these arguments, [4]."""
    with _undisturbed(query):
        length, width = query.shape[-2:]
        rows = _widen(_pick_rows(query.detach()))
        columns = _widen(_pick_rows(key.detach(), queries=False))
        if grouped:
            columns = columns.repeat_interleave(rows.shape[-3] // columns.shape[-3], dim=-3)
        scores = rows * (width**-0.5 if scale is None else scale) @ columns.mT
        permitted = None
        if mask is not None:
            seen = _pick_rows(mask.detach())
            permitted = seen if seen.dtype == torch.bool else seen > -BARRED
            scores = scores if seen.dtype == torch.bool else scores + seen
        if causal:
            keys = torch.arange(key.shape[-2], device=scores.device)
            earlier = keys <= _spread(length, QUERIES, scores.device)[:, None]
            permitted = earlier if permitted is None else permitted & earlier
        return _summarize(scores, permitted)


def _measure_scores(scores: Tensor) -> Tensor:
    """Return the values of a softmax over these scores, [4]; what is barred is read off them.

    Scores may be large by themselves, so a bar must lie twice as far below zero as any of them
    lies above.
    """
    with _undisturbed(scores):
        scores = _widen(scores)
        finite = scores.where(scores.isfinite(), torch.zeros_like(scores))
        bar = (2.0 * finite.max()).clamp(BARRED)
        return _summarize(scores, (scores > -bar) | scores.isnan())


def _summarize(scores: Tensor, permitted: Tensor | None) -> Tensor:
    """Return relative entropy, rows, and shares of heads near one-hot and near uniform, [4].

    Args:
        scores: [..., heads, queries, keys]; with less than four dimensions there is one head.
        permitted: Which keys a query may attend, broadcast to the same shape; all if `None`.
    """
    if permitted is None:
        keys = torch.tensor(scores.shape[-1], device=scores.device)
    else:
        scores = scores.masked_fill(~permitted, -torch.inf)
        keys = permitted.expand(*permitted.shape[:-1], scores.shape[-1]).sum(-1)
    chooses = keys > 1  # where there is no choice there is no entropy
    entropy = torch.special.entr(scores.softmax(-1)).sum(-1) / keys.to(scores.dtype).log()
    entropy = entropy.masked_fill(~chooses, 0.0)
    summed = [dim for dim in range(-entropy.dim(), 0) if dim != -2 or entropy.dim() < 3]
    totals, rows = entropy.sum(summed), chooses.expand_as(entropy).sum(summed)
    means = totals / rows  # undefined, and so in neither share, for a head without a choice
    heads, count = (rows > 0).sum(), rows.sum()
    shares = torch.stack([(means < NEAR_ONE_HOT).sum(), (means > NEAR_UNIFORM).sum()]) / heads
    return torch.cat([torch.stack([totals.sum() / count, count.to(means.dtype)]), shares])
