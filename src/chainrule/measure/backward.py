"""The backward pass of a measurement: gradients of parameters and of recorded edges."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from chainrule.errors import InspectionError, LossError
from chainrule.measure._torch_internals import list_accumulation_hooks
from chainrule.measure.autograd_graph import Graph, walk
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.recording import Call, Recorder, list_call_edges
from chainrule.measure.results import flatten_nested
from chainrule.measure.scans import note_scans
from chainrule.measure.sharing import finish_all
from chainrule.measure.statistics import Table
from chainrule.measure.terms import Term, measure_terms


def differentiate(
    loss: Tensor, parameters: Mapping[int, Tensor], recorder: Recorder, terms: Sequence[Term] = ()
) -> tuple[dict[int, Tensor], dict[int, Tensor | Table]]:
    """Return the gradients of the parameters, and of the recorded edges that calls refer to.

    Large ones of edges are summarized already; those that the loss did not reach are missing. Named
    terms are differentiated by themselves, too, unless a backward pass within the backward pass is
    needed.

    Args:
        loss: What is differentiated, one number.
        parameters: Those that require a gradient, by position.
        recorder: The forward pass.
        terms: Terms that the loss is the sum of.

    Raises:
        LossError: If the graph was used before.
        InspectionError: If the backward pass raises.
    """
    tensors = list(parameters.values())
    with explain_failure():
        graph = walk(loss)
        note_scans(graph.nodes, recorder)
        by_backward = _accumulates(graph, tensors, recorder)
        if by_backward:
            gradients, found = _differentiate_by_backward(loss, tensors, graph, recorder)
        else:
            gradients, found = _differentiate_by_grad(
                loss, tensors, graph, recorder, keep_graph=bool(terms)
            )
        reached = {
            position: gradient
            for position, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None
        }
        if terms and not by_backward:
            measure_terms(terms, parameters, reached)
    return reached, _select_edges(found, recorder)


@contextmanager
def explain_failure() -> Iterator[None]:
    """Raise what a backward pass inside raises as an error that says what to do.

    Raises:
        LossError: If the graph was used before.
        InspectionError: If the backward pass raises anything else.
    """
    try:
        yield
    except InspectionError:
        raise
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


def _accumulates(graph: Graph, parameters: Sequence[Tensor], recorder: Recorder) -> bool:
    """Whether gradients arrive by a backward pass within the backward pass.

    A reentrant checkpoint runs its part of the model again in there, and adds the gradients to
    `.grad`. So may any other function written in Python (reversible layers, checkpoints of your
    own), which is expected of it if parameters do not lie on the graph, or if modules ran without
    one.
    """
    if graph.has_checkpoint:
        return True
    if not graph.has_own_functions:
        return False
    if recorder.without_grad:
        return True
    reached = {id(leaf) for leaf in graph.leaves}
    return any(id(parameter) not in reached for parameter in parameters)


def _differentiate_by_grad(
    loss: Tensor,
    parameters: Sequence[Tensor],
    graph: Graph,
    recorder: Recorder,
    *,
    keep_graph: bool = False,
) -> tuple[Sequence[Tensor | None], dict[int, Tensor | Table]]:
    known = {id(tensor) for tensor in parameters}
    # What is listened to must lie on the way to something that is asked for.
    others = [leaf for leaf in graph.leaves if recorder.large and id(leaf) not in known]
    small = [edge for edge in range(len(recorder.targets)) if edge not in recorder.large]
    targets: list[Any] = [*parameters, *(recorder.targets[edge] for edge in small), *others]
    found: dict[int, Tensor | Table] = {}
    gradients: Sequence[Tensor | None]
    recorder.listen(found)
    differentiate_all = partial(
        torch.autograd.grad, loss.sum(), targets, allow_unused=True, retain_graph=keep_graph
    )
    if graph.has_own_functions:  # which may add to `.grad` what is no part of the graph
        with gather_gradients((*parameters, *graph.leaves)):
            gradients = differentiate_all()
            with torch.no_grad():
                added = [
                    _add(gradient, parameter.grad)
                    for gradient, parameter in zip(gradients, parameters, strict=False)
                ]
        gradients = [*added, *gradients[len(parameters) :]]
    else:
        gradients = differentiate_all()
    recorder.listen(None)
    of_edges = zip(small, gradients[len(parameters) :], strict=False)
    found |= {edge: gradient for edge, gradient in of_edges if gradient is not None}
    return gradients[: len(parameters)], found


def _add(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _select_edges(
    gradients: dict[int, Tensor | Table], recorder: Recorder
) -> dict[int, Tensor | Table]:
    """Return the gradients of the edges that calls refer to."""
    wanted = list_call_edges(recorder.calls) | {edge for edge, _, _ in recorder.read}
    wanted |= recorder.kept | recorder.timed.keys() | recorder.arriving.keys()
    found = {}
    for edge in sorted(wanted):
        gradient = gradients.get(edge)
        if gradient is None and edge in recorder.replaced:
            gradient = gradients.get(recorder.replaced[edge])
        if gradient is not None:
            if isinstance(gradient, Tensor) and gradient.is_nested:
                gradient = flatten_nested(gradient)
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
    with HoldInterrupts() as interrupts, gather_gradients((*parameters, *graph.leaves)):
        try:
            recorder.on_recomputed = adopt
            with interrupts.let_through():
                for edge in range(len(recorder.targets)):
                    listen(edge)
                loss.sum().backward()
            return [parameter.grad for parameter in parameters], gradients
        finally:
            recorder.on_recomputed = None
            finish_all(handle.remove for handle in handles)


@contextmanager
def gather_gradients(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Let `backward()` leave gradients in `.grad` inside, and put everything back on leaving.

    Hooks that act on accumulated gradients (an optimizer in the backward pass) are held back.

    Args:
        leaves: All tensors in which the graph may end.
    """
    everything = {id(tensor): tensor for tensor in leaves}.values()
    held_back = [
        (hooks, dict(hooks)) for tensor in everything if (hooks := list_accumulation_hooks(tensor))
    ]
    set_aside = [(tensor, tensor.grad) for tensor in everything]
    try:
        for hooks, _ in held_back:
            hooks.clear()
        for tensor, _ in set_aside:
            tensor.grad = None
        yield
    finally:
        finish_all(
            (
                *(partial(setattr, tensor, "grad", gradient) for tensor, gradient in set_aside),
                *(partial(hooks.update, contents) for hooks, contents in held_back),
            )
        )
