"""The backward pass of a measurement: gradients of parameters and of recorded edges."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from chainrule.errors import InspectionError, LossError
from chainrule.measure._torch_internals import list_accumulation_hooks
from chainrule.measure.autograd_graph import Graph, walk
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.recording import Call, Recorder
from chainrule.measure.sharing import finish_all
from chainrule.measure.statistics import Table


def differentiate(
    loss: Tensor, parameters: Sequence[Tensor], recorder: Recorder
) -> tuple[Sequence[Tensor | None], dict[int, Tensor | Table]]:
    """Return the gradients of the parameters, and of the recorded edges that calls refer to.

    Large ones of edges are summarized already; those that the loss did not reach are missing.

    Args:
        loss: What is differentiated, one number.
        parameters: Those that require a gradient; `None` for those that the loss did not reach.
        recorder: The forward pass.

    Raises:
        LossError: If the graph was used before.
        InspectionError: If the backward pass raises.
    """
    try:
        graph = walk(loss)
        if _accumulates(graph, parameters):
            gradients, found = _differentiate_by_backward(loss, parameters, graph, recorder)
        else:
            gradients, found = _differentiate_by_grad(loss, parameters, graph, recorder)
    except Exception as error:
        if "second time" in str(error):
            raise LossError(
                "compute_loss must only compute the loss, but its graph was already used: it "
                "calls backward(), or reuses a graph from before. Leave the backward pass to "
                "inspect."
            ) from error
        raise InspectionError(
            f"The backward pass must run without errors, but it raised: {error}"
        ) from error
    return gradients, _select_edges(found, recorder)


def _accumulates(graph: Graph, parameters: Sequence[Tensor]) -> bool:
    """Whether gradients arrive by a backward pass within the backward pass.

    A reentrant checkpoint runs its part of the model again in there, and adds the gradients to
    `.grad`. So may any other function written in Python, which is expected of it if parameters
    do not lie on the graph.
    """
    if graph.has_checkpoint:
        return True
    if not graph.has_own_functions:
        return False
    reached = {id(leaf) for leaf in graph.leaves}
    return any(id(parameter) not in reached for parameter in parameters)


def _differentiate_by_grad(
    loss: Tensor, parameters: Sequence[Tensor], graph: Graph, recorder: Recorder
) -> tuple[Sequence[Tensor | None], dict[int, Tensor | Table]]:
    known = {id(tensor) for tensor in parameters}
    # What is listened to must lie on the way to something that is asked for.
    others = [leaf for leaf in graph.leaves if recorder.large and id(leaf) not in known]
    small = [edge for edge in range(len(recorder.targets)) if edge not in recorder.large]
    targets: list[Any] = [*parameters, *(recorder.targets[edge] for edge in small), *others]
    found: dict[int, Tensor | Table] = {}
    recorder.listen(found)
    gradients = torch.autograd.grad(loss.sum(), targets, allow_unused=True)
    of_edges = zip(small, gradients[len(parameters) :], strict=False)
    found |= {edge: gradient for edge, gradient in of_edges if gradient is not None}
    return gradients[: len(parameters)], found


def _select_edges(
    gradients: dict[int, Tensor | Table], recorder: Recorder
) -> dict[int, Tensor | Table]:
    """Return the gradients of the edges that calls refer to."""
    wanted = {
        edge
        for call in recorder.calls
        for edge in (*call.input_edges, *(output.edge for output in call.outputs))
        if edge is not None
    }
    wanted |= recorder.timed.keys() | recorder.arriving.keys()
    found = {}
    for edge in sorted(wanted):
        gradient = gradients.get(edge)
        if gradient is None and edge in recorder.replaced:
            gradient = gradients.get(recorder.replaced[edge])
        if gradient is not None:
            found[edge] = gradient
    return found


def _differentiate_by_backward(
    loss: Tensor, parameters: Sequence[Tensor], graph: Graph, recorder: Recorder
) -> tuple[Sequence[Tensor | None], dict[int, Tensor | Table]]:
    """The same through `backward()`, the only way through reentrant checkpoints.

    `.grad` is empty here (`restore` put it aside), so what `backward` leaves there is the
    gradient. Calls inside a checkpoint get their edges when the checkpoint repeats them.
    Hooks that act on accumulated gradients (an optimizer in the backward pass) are held back.
    """
    gradients: dict[int, Tensor | Table] = {}

    def listen(edge: int) -> None:
        target: Any = recorder.targets[edge]
        if isinstance(target, Tensor):
            target = get_gradient_edge(target)

        def keep(grads: tuple[Tensor | None, ...]) -> None:
            gradient = grads[target.output_nr]
            if gradient is not None:
                gradients[edge] = gradient.detach().clone()

        handles.append(target.node.register_prehook(keep))

    def adopt(call: Call, tensors: Sequence[Tensor]) -> None:
        for output, tensor in zip(call.outputs, tensors, strict=True):
            known = len(recorder.targets)
            output.edge = recorder.note_edge(tensor)
            if output.edge == known:
                listen(output.edge)

    handles: list[Any] = []
    everything = {id(tensor): tensor for tensor in (*parameters, *graph.leaves)}.values()
    held_back = [
        (hooks, dict(hooks)) for tensor in everything if (hooks := list_accumulation_hooks(tensor))
    ]
    set_aside = [(tensor, tensor.grad) for tensor in everything]
    with HoldInterrupts() as interrupts:
        try:
            for hooks, _ in held_back:
                hooks.clear()
            for tensor, _ in set_aside:
                tensor.grad = None
            recorder.on_recomputed = adopt
            with interrupts.let_through():
                for edge in range(len(recorder.targets)):
                    listen(edge)
                loss.sum().backward()
            return [parameter.grad for parameter in parameters], gradients
        finally:
            recorder.on_recomputed = None
            finish_all(
                (
                    *(handle.remove for handle in handles),
                    *(partial(setattr, tensor, "grad", gradient) for tensor, gradient in set_aside),
                    *(partial(hooks.update, contents) for hooks, contents in held_back),
                )
            )
