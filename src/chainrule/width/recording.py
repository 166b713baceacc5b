"""What every module takes in and gives out in one pass, and what its new weights do to it.

A module's output counts with the constant that it is multiplied by afterwards (`head(x) / width`),
unless the product goes straight into another product: `head(x / width)` is a matter of `head`.
Attention scores are watched where a softmax or `scaled_dot_product_attention` takes them.
"""

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from chainrule.measure.attention import BARRED, open_multihead
from chainrule.training.batches import list_devices
from chainrule.width.records import MODEL

SCORES = "(scores)"
"""Follows the name of the module in which a softmax takes scores."""

Draws = list[tuple[torch.device | None, Tensor]]
"""Random states: of the CPU (`None`) and of accelerators."""

_TIMES = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
_OVER = frozenset({"div", "div_", "divide", "true_divide", "__truediv__", "__itruediv__"})
_CARRIED_BY = (
    "view reshape transpose permute swapaxes contiguous squeeze unsqueeze flatten unflatten float "
    "half bfloat16 to type_as __get__ __getitem__ split chunk clone"
)
_CARRIERS = frozenset(_CARRIED_BY.split())
_MULTIPLIED_BY = (
    "linear matmul mm bmm baddbmm addmm einsum conv1d conv2d conv3d bilinear __matmul__ "
    "scaled_dot_product_attention multi_head_attention_forward"
)
_PRODUCTS = frozenset(_MULTIPLIED_BY.split())


@dataclass(slots=True, eq=False)
class Seen:
    """What one module did in one pass.

    Attributes:
        outputs: Copies of the real tensors that it returned, of all calls.
        inputs: Copies of those it was given.
        factors: For every output, the constant that it is multiplied by afterwards.
        edges: Where the outputs sit in the graph; `None` for what has no gradient.
        effects: For every parameter, by how much its change moved the outputs.
        before: The outputs for the inputs of this pass with the weights of the beginning.
        is_scores: Whether this is what a softmax takes.
        has_children: Whether the module contains modules.
    """

    outputs: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    edges: list[GradientEdge | None] = field(default_factory=list)
    effects: dict[str, list[Tensor]] = field(default_factory=dict)
    before: list[Tensor] = field(default_factory=list)
    is_scores: bool = False
    has_children: bool = False


@dataclass(slots=True, eq=False)
class _Track:
    """A tensor that is an output of a module, times a constant."""

    tensor: weakref.ref[Tensor]
    seen: Seen
    at: int
    factor: float


class Recorder(TorchFunctionMode):
    """Notes what the modules of a model do while it runs.

    Attributes:
        seen: By name, in the order in which the modules returned.
        owned: For every module, its parameters whose effect is measured there.
    """

    def __init__(
        self,
        model: nn.Module,
        start: Mapping[str, Tensor] | None = None,
        ran: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare to watch a model.

        Args:
            model: The model.
            start: Parameters as they were at the beginning, by name; `None` for the first pass.
            ran: Names of the modules that ran in the first pass.
        """
        super().__init__()
        self.seen: dict[str, Seen] = {}
        self._model = model
        self._start = start
        self._owned = _assign_parameters(model, ran) if start is not None else {}
        self._tracked: dict[int, _Track] = {}
        self._inside: list[str] = []
        self._calls: dict[str, int] = {}
        self._states: list[Draws | None] = []
        self._devices = [d for d in list_devices(model) if d.type not in ("cpu", "meta")]
        self._is_paused = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch the model inside."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._build_enter(name), prepend=True))
            handles.append(module.register_forward_hook(self._build_note(name), with_kwargs=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._tracked.clear()

    def _build_enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, _: Any) -> None:
            if not self._is_paused:
                self._inside.append(name)
                wanted = self._owned.get(name)
                self._states.append(self._read_random() if wanted else None)

        return enter

    def _build_note(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            if self._is_paused:
                return
            self._is_paused = True
            try:
                self._inside.pop()
                self._note(name, module, args, kwargs, result, self._states.pop())
            finally:
                self._is_paused = False

        return note

    def _note(
        self, name: str, module: nn.Module, args: Any, kwargs: Any, result: Any, state: Any
    ) -> None:
        outputs = list(list_reals(result))
        tracks = [self._find(each) for each in outputs]
        for track in tracks:
            if track is not None:
                track.seen.factors[track.at] = track.factor
        owned = self._owned.get(name)
        if all(tracks) and not owned and not (self._start is None and module._parameters):
            return  # it only returns what a module in it returned
        seen = self.seen.setdefault(self._name_call(name, module), Seen())
        seen.has_children = bool(module._modules)
        seen.inputs += [each.detach().clone() for each in list_reals((args, kwargs))]
        for output in outputs:
            self._tracked[id(output)] = _Track(weakref.ref(output), seen, len(seen.outputs), 1.0)
            _append(seen, output)
        if owned:
            self._measure_effects(module, owned, seen, args, kwargs, state)

    def _read_random(self) -> Draws:
        """Return the random states that a module draws from."""
        states: Draws = [(None, torch.get_rng_state())]
        for device in self._devices:
            states.append((device, torch.get_device_module(device).get_rng_state(device)))
        return states

    def _name_call(self, name: str, module: nn.Module) -> str:
        """Return a module's name; each call has its own where it has no weights, as an activation.

        One such module may serve many layers; the calls of a module with weights are one layer's.
        """
        if next(module.parameters(), None) is not None:
            return name or MODEL
        number = self._calls[name] = self._calls.get(name, 0) + 1
        return f"{name or MODEL} (call {number})" if number > 1 else name or MODEL

    def _measure_effects(
        self,
        module: nn.Module,
        owned: Mapping[str, str],
        seen: Seen,
        args: Any,
        kwargs: Any,
        state: Draws,
    ) -> None:
        """Run a module again with old weights, on the inputs that it has now."""
        assert self._start is not None
        after = self._read_random()
        old = {local: self._start[name] for local, name in owned.items()}

        def run(replaced: Mapping[str, Tensor]) -> list[Tensor]:
            _set_random(state)
            with torch.no_grad():
                result = functional_call(module, dict(replaced), args, kwargs)
            return [each.clone() for each in list_reals(result)]

        now = run({})
        before = run(old)
        seen.before += before
        for local, name in owned.items():
            without = before if len(owned) == 1 else run({local: old[local]})
            seen.effects.setdefault(name, []).extend(
                one - other for one, other in zip(now, without, strict=True)
            )
        _set_random(after)

    # --- Between modules --------------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of PyTorch; follow constants and look for attention."""
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func is F.multi_head_attention_forward:
            with self:
                return open_multihead()(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attend(*args, **kwargs)
        if name == "softmax" and args and isinstance(args[0], Tensor):
            self._note_softmax(args, kwargs)
        track = self._find(args[0]) if args else None
        other = args[1] if len(args) > 1 else None
        if name in _TIMES and track is None and (track := self._find(other)) is not None:
            other = args[0]
        result = func(*args, **kwargs)
        if track is not None and name in _TIMES | _OVER and (size := _read_constant(other)):
            factor = track.factor * (size if name in _TIMES else 1.0 / size)
            self._follow(result, track, factor)
        elif track is not None and name in _CARRIERS:
            for each in result if isinstance(result, (tuple, list)) else (result,):
                self._follow(each, track, track.factor)
        elif self._tracked and name not in _PRODUCTS and _holds_tensor(result):
            for each in (*args, *kwargs.values()):
                if (used := self._find(each)) is not None:
                    used.seen.factors[used.at] = used.factor
        return result

    def _find(self, value: Any) -> _Track | None:
        track = self._tracked.get(id(value))
        return track if track is not None and track.tensor() is value else None

    def _follow(self, result: Any, track: _Track, factor: float) -> None:
        if isinstance(result, Tensor):
            self._tracked[id(result)] = _Track(weakref.ref(result), track.seen, track.at, factor)

    def _note_softmax(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        given: Tensor = args[0]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        is_last = dim in (-1, given.dim() - 1)
        if given.dim() >= 2 and is_last and given.is_floating_point() and not self._find(given):
            self._note_scores(given)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Do what `scaled_dot_product_attention` does, step by step, so that scores are there."""
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], dim=-3)
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        self._note_scores(scores)
        weights = scores.softmax(-1)
        barred = (scores == -math.inf).all(-1, keepdim=True)
        if bool(barred.any()):  # the usual function gives zeros to who may look nowhere
            weights = weights.masked_fill(barred, 0.0)
        if dropout_p > 0.0:
            weights = F.dropout(weights, dropout_p)
        return weights @ value

    def _note_scores(self, scores: Tensor) -> None:
        """Note scores without what a softmax does not see: barred keys and an offset of a row."""
        place = self._inside[-1] if self._inside else ""
        seen = self.seen.setdefault(f"{place or MODEL} {SCORES}", Seen(is_scores=True))
        with torch.no_grad():
            values = scores.detach()
            allowed = values > -BARRED
            values = values.masked_fill(~allowed, 0.0)
            mean = values.sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True).clamp(1)
            seen.outputs.append((values - mean).masked_fill(~allowed, 0.0))
        seen.factors.append(1.0)
        seen.edges.append(_find_edge(scores))


def _set_random(states: Draws) -> None:
    for device, state in states:
        if device is None:
            torch.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state, device)


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, (list, tuple)) and any(isinstance(each, Tensor) for each in value)
    )


def _append(seen: Seen, output: Tensor) -> None:
    seen.outputs.append(output.detach().clone())
    seen.factors.append(1.0)
    seen.edges.append(_find_edge(output))


def _find_edge(tensor: Tensor) -> GradientEdge | None:
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def _assign_parameters(model: nn.Module, ran: frozenset[str]) -> dict[str, dict[str, str]]:
    """Return for every module that ran its parameters: name in the module → name in the model.

    Those of a module that did not run itself (`out_proj` of `nn.MultiheadAttention`) belong to the
    nearest one around it that did.
    """
    owned: dict[str, dict[str, str]] = {}
    for name, module in model.named_modules():
        owner = name
        while owner and owner not in ran:
            owner = owner.rpartition(".")[0]
        for key, parameter in module._parameters.items():
            if parameter is not None and parameter.requires_grad:
                full = f"{name}.{key}" if name else key
                local = full.removeprefix(f"{owner}.") if owner else full
                owned.setdefault(owner, {})[local] = full
    return owned


def list_reals(value: Any) -> Iterator[Tensor]:
    """Yield the real tensors in a value: itself, or those in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from list_reals(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from list_reals(each)


def _read_constant(value: Any) -> float:
    """Return a factor that is one number; 0 if it is none."""
    if isinstance(value, Tensor):
        value = float(value.detach()) if value.numel() == 1 else 0.0
    if isinstance(value, (int, float)) and math.isfinite(value):
        return abs(float(value))
    return 0.0
