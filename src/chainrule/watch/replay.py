"""The step that made a number that is not finite, run again on a copy to find where it began.

What the model read is kept, with the random state, and the gradients that arrived at its outputs.
The sum of the outputs, each times its gradient, has the same derivative in every parameter as the
user's loss, so the model is run again without that loss being known.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.flow.non_finite import NonFiniteOrigin
from chainrule.flow.quantity import Quantity
from chainrule.measure._torch_internals import has_compiled, start_running_eagerly
from chainrule.measure.copying import copy_model
from chainrule.measure.elements import is_finite
from chainrule.measure.non_finite import find_non_finite
from chainrule.measure.results import find_tensors
from chainrule.watch.hooks import ModuleHook
from chainrule.watch.notices import Notices

MOST_BATCHES = 16
"""Most forward passes of one step that are kept, the last ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one forward pass read.

    Attributes:
        args: What the model was called with.
        kwargs: And by name.
        random_states: States of the random generators before it, by device.
        autocast: Formats that operations ran in, by type of device, where that was on.
        gradients: What arrived at its outputs, by their place in what the model returned.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    random_states: Mapping[str, Tensor]
    autocast: Mapping[str, torch.dtype]
    gradients: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class KeptStep:
    """A step that went wrong, kept so that it can be looked into.

    Attributes:
        step: Its number.
        batches: Its forward passes.
        optimizer_states: `state_dict()` of each optimizer before the step.
        origin: What began it; `None` if running it again did not show it.
        missing: Why it could not be run again; "" if it could.
    """

    step: int
    batches: tuple[Batch, ...]
    optimizer_states: tuple[Mapping[str, Any], ...]
    origin: NonFiniteOrigin | None
    missing: str = ""


COMPILED = (
    "The model ran as compiled code, in which its inputs cannot be seen. Give watch what "
    "torch.compile(model) returned and call that; after model.compile(), or in a compiled function "
    "around the model, run the step without compilation to find the origin."
)

UNSEEN = "No forward pass of the model was seen in this step."


class BatchKeeper:
    """Keeps what a model reads from one optimizer step to the next.

    A compiled model is run again as plain Python: what its compiled code computes cannot be seen.
    """

    def __init__(self, model: nn.Module, called: nn.Module, notices: Notices) -> None:
        """Keep from now on.

        Args:
            model: The model.
            called: Whose hooks run when it is called.
            notices: Says what fails.
        """
        self._model = model
        self._notices = notices
        self._batches: list[Batch] = []
        self._before: list[Batch] = []
        self._handles = [
            called.register_forward_pre_hook(ModuleHook(self._enter), with_kwargs=True),
            called.register_forward_hook(ModuleHook(self._leave)),
        ]

    def remove(self) -> None:
        """Keep nothing more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def end_step(self) -> None:
        """After a step: begin anew, and keep what it read until the next one ends."""
        self._before, self._batches = self._batches, []

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.is_grad_enabled():
            return
        try:
            self._batches = [*self._batches[1 - MOST_BATCHES :]] if self._batches else []
            device = next(module.parameters()).device
            self._batches.append(
                Batch(tuple(args), dict(kwargs), _read_random(device), _read_autocast(device))
            )
        except Exception as error:
            self._notices.report("keeping batches", error)

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        if not torch.is_grad_enabled() or not self._batches:
            return
        batch = self._batches[-1]
        for path, tensor in find_tensors(result):
            if tensor.requires_grad:
                tensor.register_hook(partial(_keep, batch.gradients, path))

    def look(
        self, step: int, optimizers: Sequence[torch.optim.Optimizer], *, before: bool = False
    ) -> KeptStep:
        """Return what is kept, with the origin of its first number that is not finite.

        Args:
            step: The step's number.
            optimizers: Those of the run.
            before: Whether the last step is meant that has ended, not the one that goes on.
        """
        batches = tuple(self._before if before else self._batches)
        missing = "" if batches else COMPILED if has_compiled() else UNSEEN
        origin = None
        restart = start_running_eagerly()
        try:
            for batch in batches:
                origin = _find_origin(self._model, batch)
                if origin is not None:
                    break
        finally:
            if restart is not None:
                restart()
        if missing:
            self._notices.say(
                "running a step again",
                f"Step {step} could not be run again to find where its first number began that is "
                f"not finite. {missing}",
            )
        states = tuple(_copy_state(each.state_dict()) for each in optimizers)
        return KeptStep(step, batches, states, origin, missing)


def _keep(gradients: dict[str, Tensor], path: str, gradient: Tensor) -> None:
    gradients[path] = gradient.detach()


def _find_origin(model: nn.Module, batch: Batch) -> NonFiniteOrigin | None:
    arrived = batch.gradients
    known = bool(arrived) and all(is_finite(gradient) for gradient in arrived.values())

    def compute_loss(copied: nn.Module) -> Tensor:
        with ExitStack() as stack:
            for device, dtype in batch.autocast.items():
                stack.enter_context(torch.autocast(device, dtype))
            _put_random(batch.random_states)
            result = copied(*batch.args, **batch.kwargs)
        outputs = [(path, t) for path, t in find_tensors(result) if t.requires_grad]
        return torch.stack(
            [
                (tensor * arrived[path]).sum().float() if known else tensor.sum().float()
                for path, tensor in outputs
                if not known or path in arrived
            ]
        ).sum()

    found = find_non_finite(copy_model(model), compute_loss)
    bad = next(((p, g) for p, g in arrived.items() if not is_finite(g)), None)
    if found is not None and not found.is_harmless:
        return found
    if bad is None:
        return None
    path, gradient = bad
    return NonFiniteOrigin(
        op="the derivative of the loss",
        function="",
        direction="backward",
        module=None,
        dtype=str(gradient.dtype).removeprefix("torch."),
        shape=tuple(gradient.shape),
        count=max(1, int((~gradient.isfinite()).sum())),
        loss=Quantity([float("nan")]),
        detail=f"the model's output{f' {path}' if path else ''} was finite, what came back was not",
    )


def _read_random(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type not in ("cpu", "meta"):
        states[str(device)] = torch.get_device_module(device).get_rng_state(device)
    return states


def _put_random(states: Mapping[str, Tensor]) -> None:
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(torch.device(name)).set_rng_state(state, name)


def _read_autocast(device: torch.device) -> dict[str, torch.dtype]:
    return {
        kind: torch.get_autocast_dtype(kind)
        for kind in {"cpu", device.type} - {"meta"}
        if torch.is_autocast_enabled(kind)
    }


def _copy_state(state: Any) -> Any:
    """Return a state with tensors of its own."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy_state(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_copy_state(value) for value in state)
    return state
