"""Where the batches of a trial come from, and the ones that are kept aside to judge it.

A loss may draw a batch of its own at every call, from random numbers or from an iterator. Random
draws are frozen by seeding: the same random state gives the same batch. What an iterator gives
cannot be had twice, so there the mean of a few further batches is what counts.
"""

import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.errors import InspectionError, LossError
from chainrule.measure.inspection import describe_error
from chainrule.measure.terms import add_up, read_terms

KEPT = 3
"""Batches that are kept aside, if there are enough."""

KEPT_UNCHOSEN = 8
"""Batches that count where they cannot be kept aside, so that each look sees others."""

MOST_HELD = 32
"""Most batches that are read from `batches`; then training starts again with the first."""

HALF = 0.5
"""What a forward pass without a backward pass counts as."""

_FIRST_KEPT, _FIRST_TRAINED = 7_000_001, 1
"""Seeds of what is kept aside, and of what is trained on."""


@dataclass(slots=True, eq=False)
class Counter:
    """How many passes were made; a forward pass alone counts as half of one."""

    passes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """The losses of a trial.

    Attributes:
        read: The loss of a model on the batch of a number, as `compute_loss` returns it: of steps
            from 0, or one that is kept aside. Numbers are of no account where the batches cannot be
            chosen.
        kept: Number of batches that it is judged on.
        fresh: Whether steps have batches of their own.
        chosen: Whether the same batch can be had twice.
        counter: Counts passes.
    """

    read: Callable[[nn.Module, int, bool], Any]
    kept: int
    fresh: bool
    chosen: bool
    counter: Counter

    def compute(self, model: nn.Module, number: int, kept: bool) -> Tensor:
        """Return the loss of a model on the batch of a number; the sum of its terms, if any."""
        return check_loss(self.read(model, number, kept))

    def evaluate(
        self, model: nn.Module, terms: dict[str, list[float]] | None = None
    ) -> list[float]:
        """Return the losses of the batches that are kept aside.

        Args:
            model: The model.
            terms: Receives the same of each named term, if the loss has several.
        """
        losses = []
        for number in range(self.kept):
            returned = self.read(model, number, True)
            losses.append(float(check_loss(returned).detach()))
            self.counter.passes += HALF
            if terms is not None and isinstance(returned, Mapping) and len(returned) > 1:
                for term in read_terms(returned):
                    terms.setdefault(term.name, []).append(float(term.value.detach()))
        return losses


def find_batches(
    model: nn.Module,
    compute_loss: Callable[..., Any],
    given: Iterable[Any] | None,
    counter: Counter,
) -> Batches:
    """Return where batches come from, found by computing the loss of a copy up to three times.

    Args:
        model: A copy of the model; a training step may follow, so its buffers may change.
        compute_loss: Takes the model, and a batch if there are `given` ones.
        given: Batches.
        counter: Counts passes.

    Raises:
        InspectionError: If `compute_loss` raises, does not use the model, or does not return a
            scalar with a gradient; or if `given` holds nothing.
    """
    if given is not None:
        return _hold(compute_loss, given, counter)
    devices = list_devices(model)

    def seeded(model: nn.Module, number: int, kept: bool) -> Any:
        seed(devices, number + (_FIRST_KEPT if kept else _FIRST_TRAINED))
        return call(compute_loss, model)

    def unseeded(model: nn.Module, number: int, kept: bool) -> Any:
        return call(compute_loss, model)

    with _watch(model) as first:
        one = float(check_loss(seeded(model, 0, True)).detach())
    with _watch(model) as second:
        other = float(check_loss(seeded(model, 1, True)).detach())
    counter.passes += 2 * HALF
    if _is_same(first, second, one, other):
        return Batches(read=seeded, kept=1, fresh=False, chosen=True, counter=counter)
    with _watch(model) as again:
        repeated = float(check_loss(seeded(model, 0, True)).detach())
    counter.passes += HALF
    chosen = _is_same(first, again, one, repeated)
    return Batches(
        read=seeded if chosen else unseeded,
        kept=KEPT if chosen else KEPT_UNCHOSEN,
        fresh=True,
        chosen=chosen,
        counter=counter,
    )


def _hold(compute_loss: Callable[..., Any], given: Iterable[Any], counter: Counter) -> Batches:
    try:
        held = list(islice(given, MOST_HELD + KEPT))
    except TypeError as error:
        raise InspectionError(
            "batches must be an iterable of what compute_loss(model, batch) takes; got "
            f"{type(given).__name__}. Give a list of batches or a DataLoader."
        ) from error
    if not held:
        raise InspectionError(
            "batches must hold at least one batch, but it is empty. An iterator can be read once "
            "only: give the DataLoader itself."
        )
    kept = min(KEPT, len(held) // 2)
    aside, trained = (held[:kept], held[kept:]) if kept else (held, held)

    def read(model: nn.Module, number: int, is_kept: bool) -> Any:
        devices = list_devices(model)
        seed(devices, number + (_FIRST_KEPT if is_kept else _FIRST_TRAINED))
        batch = aside[number] if is_kept else trained[number % len(trained)]
        return call(compute_loss, model, batch)

    return Batches(read=read, kept=max(kept, 1), fresh=kept > 0, chosen=True, counter=counter)


def call(compute_loss: Callable[..., Any], model: nn.Module, *batch: Any) -> Any:
    """Return what `compute_loss` returns.

    Raises:
        InspectionError: If it raises.
    """
    try:
        return compute_loss(model, *batch)
    except InspectionError:
        raise
    except (Exception, SystemExit) as error:
        raise InspectionError(
            "compute_loss must run many times on copies of the model, but it raised "
            f"{describe_error(error)}. Make it use the model that it is given, and draw or repeat "
            "its batch at every call, or give the data as `batches`."
        ) from error


def check_loss(loss: Any) -> Tensor:
    """Return the loss: a scalar with a gradient, the sum of its terms if it has several.

    Raises:
        LossError: If it is none.
    """
    if isinstance(loss, Mapping):
        loss = add_up(read_terms(loss))
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        shape = f" of shape {list(loss.shape)}" if isinstance(loss, Tensor) else ""
        raise LossError(
            f"compute_loss must return one real number as a tensor; got {type(loss).__name__}"
            f"{shape}. Reduce it, for example with .mean()."
        )
    if not loss.requires_grad:
        raise LossError(
            "compute_loss must return a loss attached to the graph of the model that it is given; "
            "this one depends on nothing that requires a gradient. Write lambda m: loss(m(x)) "
            "rather than lambda m: loss(model(x)), and look for .detach() and .item()."
        )
    return loss.sum()


def list_devices(model: nn.Module) -> tuple[torch.device, ...]:
    """Return where the parameters of a model are."""
    return tuple(dict.fromkeys(parameter.device for parameter in model.parameters()))


def seed(devices: Sequence[torch.device], number: int) -> None:
    """Set the random states of PyTorch (CPU and some accelerators), `random` and NumPy."""
    torch.default_generator.manual_seed(number)
    for device in devices:
        if device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            with module.device(device):
                module.manual_seed(number)
    random.seed(number)
    numpy: Any = sys.modules.get("numpy")
    if numpy:
        numpy.random.seed(number % 2**32)


@dataclass(slots=True, eq=False)
class _Seen:
    """The tensors that the first module to run was given."""

    inputs: list[Tensor] = field(default_factory=list)


@contextmanager
def _watch(model: nn.Module) -> Iterator[_Seen]:
    """Note what the first module of a model to run on tensors is given."""
    seen = _Seen()

    def note(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if not seen.inputs:
            given = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
            seen.inputs = [x.detach().clone() for x in given]

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _is_same(one: _Seen, other: _Seen, loss: float, other_loss: float) -> bool:
    """Whether two calls had the same batch; by the loss, if no module was given a tensor.

    The loss alone would not tell: dropout and sampling change it on the same batch.
    """
    if not one.inputs:
        return loss == other_loss or math.isnan(loss)
    return len(one.inputs) == len(other.inputs) and all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(one.inputs, other.inputs, strict=True)
    )
