"""A whole measurement of one step of the user's own loop, as a `GradientFlow`.

`inspect` runs a forward and backward pass of its own. Here the same recorder listens to the passes
that the loop makes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.quantity import Quantity
from chainrule.measure._torch_internals import is_in_backward
from chainrule.measure.assembly import assemble_flow
from chainrule.measure.modules import Inventory, is_leaf, is_measured
from chainrule.measure.recording import Call, Recorder
from chainrule.measure.residuals import Residual, find_residuals
from chainrule.measure.results import flatten_nested
from chainrule.watch.hooks import ModuleHook
from chainrule.watch.sampling import MOST_ENTRIES

if TYPE_CHECKING:
    from chainrule.measure.statistics import Table


class FlowRecorder:
    """Records what a model does in one step of its training while it is attached."""

    def __init__(self, inventory: Inventory, report: Callable[[Exception], None]) -> None:
        self._inventory = inventory
        self._report = report
        self._handles: list[Any] = []
        self._passing: _Pass | None = None
        self._finished: _Pass | None = None

    def attach(self) -> None:
        """Record from now on."""
        if not self._handles:
            self._passing = self._finished = None
            enter, leave = ModuleHook(self._enter), ModuleHook(self._leave)
            begin = ModuleHook(self._begin)
            for name, module in self._inventory.modules:
                if not name:
                    self._handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
                if is_measured(name, module):
                    self._handles += [
                        module.register_forward_pre_hook(enter, with_kwargs=True),
                        module.register_forward_hook(leave, with_kwargs=True),
                    ]

    def detach(self) -> None:
        """Record nothing more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def release(self) -> None:
        """Let go of everything."""
        self.detach()
        for each in (self._passing, self._finished):
            if each is not None:
                each.release()
        self._passing = self._finished = None

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before the model itself runs: what an error broke off was no pass."""
        passing = self._passing
        if passing is not None and passing.inside and not is_in_backward():
            passing.release()
            self._passing = None

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._guard(module, lambda each: each.enter(module, args, kwargs))

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self._guard(module, lambda each: each.leave(module, args, kwargs, result))

    def _guard(self, module: nn.Module, note: Callable[["_Pass"], None]) -> None:
        try:
            passing = self._find_pass(module)
            if passing is not None:
                note(passing)
        except Exception as error:
            self.release()
            self._report(error)

    def _find_pass(self, module: nn.Module) -> "_Pass | None":
        """Return the recording that a call belongs to: a new one after a backward pass."""
        if is_in_backward():
            return self._passing
        if not torch.is_grad_enabled() and not module.training:
            return None
        if self._passing is None or self._passing.had_backward:
            if self._finished is not None:
                self._finished.release()
            self._finished = self._passing
            self._passing = _Pass(self._inventory, self._fail)
        return self._passing

    def _fail(self, error: Exception) -> None:
        self.release()
        self._report(error)

    def take(
        self,
        gradients: Mapping[int, Tensor],
        scale: float,
        read_optimizer: Callable[[], OptimizerFlow | None],
        read_loss: Callable[[], float],
        *,
        only_finished: bool = False,
    ) -> GradientFlow | None:
        """Return the flow of the last backward pass; `None` if there was none.

        Args:
            gradients: Of the parameters, by position in the inventory, without the scale.
            scale: What the loss was multiplied with.
            read_optimizer: Gives what is known of the optimizer.
            read_loss: Gives the loss, when somebody reads the flow.
            only_finished: As for `LayerSampler.take`.
        """
        passing = self._passing
        if only_finished and self._finished is not None:
            passing = self._finished
        if passing is None or not passing.had_backward:
            self.release()
            return None
        with torch.no_grad():
            flow = passing.assemble(gradients, scale)
        optimizer = read_optimizer()
        self.release()
        return GradientFlow.defer(
            lambda: replace(flow, optimizer=optimizer, loss=Quantity([read_loss()]))
        )


class _Pass:
    """One forward pass and what comes back."""

    def __init__(self, inventory: Inventory, fail: Callable[[Exception], None]) -> None:
        self.recorder = Recorder(inventory)
        self.had_backward = False
        self.inside: set[nn.Module] = set()
        self._inventory = inventory
        self._fail = fail
        self._listened = 0
        self._found: dict[int, Tensor | Table] = {}
        self._residuals: list[Residual] = []
        self._opens = frozenset(
            module
            for module, subject in self.recorder.subjects.items()
            if not is_leaf(module) or subject.watched
        )
        self.recorder.listen(self._found)
        self.recorder.on_recomputed = self._adopt

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a module runs."""
        self.inside.add(module)
        if module in self._opens:
            self.recorder.enter(module, args, kwargs)
            self._listen()

    def leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """After a module ran."""
        self.inside.discard(module)
        if len(self.recorder.calls) >= MOST_ENTRIES:
            raise RuntimeError(f"more than {MOST_ENTRIES:,} module calls in one step")
        self.recorder.leave(module, args, kwargs, result)
        self._listen()

    def _adopt(self, call: Call, tensors: Sequence[Tensor]) -> None:
        """Give calls that a checkpoint repeats the edges of the second run."""
        for output, tensor in zip(call.outputs, tensors, strict=True):
            output.edge = self.recorder.note_edge(tensor)
        self._listen()

    def _listen(self) -> None:
        """Listen to the edges that were noted since the last time."""
        targets: Any = self.recorder.targets
        for edge in range(self._listened, len(targets)):
            target = targets[edge]
            if isinstance(target, Tensor):
                target = get_gradient_edge(target)
            self.recorder.handles.append(
                target.node.register_prehook(partial(self._arrive, edge, target.output_nr))
            )
        self._listened = len(targets)

    def _arrive(self, edge: int, output_nr: int, gradients: Sequence[Tensor | None]) -> None:
        try:
            if not self.had_backward:
                self.had_backward = True
                self._residuals = find_residuals(self.recorder)
            gradient = gradients[output_nr]
            if gradient is not None and edge not in self.recorder.large:
                self._found[edge] = gradient.detach().clone()
        except Exception as error:
            self._fail(error)

    def assemble(self, gradients: Mapping[int, Tensor], scale: float) -> GradientFlow:
        """Return what was recorded as a flow, and release it."""
        recorder = self.recorder
        recorder.is_complete = True
        for handle in recorder.handles:
            handle.remove()
        found: dict[int, Tensor | Table] = {}
        for edge, gradient in self._found.items():
            found[edge] = flatten_nested(gradient) if isinstance(gradient, Tensor) else gradient
        for view, base in recorder.replaced.items():
            if view not in found and base in found:
                found[view] = found[base]
        device = next((p.tensor.device for p in self._inventory.parameters), None)
        flow = assemble_flow(
            self._inventory,
            torch.zeros((), device=device),
            recorder,
            gradients,
            found,
            self._residuals,
            scale=scale,
        )
        self.release()
        return flow

    def release(self) -> None:
        """Let go of the graph and of all tensors."""
        for handle in self.recorder.handles:
            handle.remove()
        self.recorder.on_recomputed = None
        self.recorder.release()
        self._found = {}
        self._residuals = []
