"""`inspect`: measure the gradient flow of any `nn.Module`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from chainrule.errors import InspectionError, LossError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.assembly import assemble_flow
from chainrule.measure.attention import watch_attention
from chainrule.measure.modules import Inventory, take_inventory
from chainrule.measure.preservation import preserve
from chainrule.measure.recording import Call, Recorder, record
from chainrule.measure.residuals import find_residuals
from chainrule.measure.statistics import Table


def inspect(model: nn.Module, compute_loss: Callable[[Any], Tensor]) -> GradientFlow:
    """Measure values and gradients of every module of a model in one forward and backward pass.

    Gradients are those of plain autograd. Measured are modules without submodules and modules
    that own parameters themselves; operations written as functions (`F.relu`, `+`) belong to the
    path between them. Of attention, fused or written out, the spread of its weights is measured in
    a sample (see `AttentionFlow`). Nothing is left behind: parameters, `.grad`, buffers, modes,
    attributes, random states and hooks are as before, also when an error is raised. Hooks that the
    model already has run as they do in training.

    Args:
        model: Any PyTorch module. A model under `torch.compile` is measured uncompiled.
        compute_loss: Called once, with the model; returns the scalar tensor to differentiate,
            for example `lambda m: F.mse_loss(m(x), y)`. It must not call `backward()` or update
            anything. Inputs that should have a gradient of their own (and the first module a
            gain) need `requires_grad`.

    Returns:
        The measurement: an ensemble of one.

    Raises:
        LossError: If the loss is no scalar tensor, or is not attached to the graph.
        InspectionError: If the model cannot be measured, `compute_loss` or the backward pass
            raises (chained with `from`), or `compute_loss` changes parameters.
    """
    _check_arguments(model, compute_loss)
    inventory = take_inventory(getattr(model, "_orig_mod", model))
    _check_initialized(inventory)
    with ExitStack() as stack:
        stack.enter_context(preserve(inventory))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_run_eagerly())
        recorder = stack.enter_context(record(inventory))
        with watch_attention(inventory, recorder.overwritten) as watch:
            loss = _call(compute_loss, inventory.modules[0][1], recorder)
        trained = {
            position: parameter.tensor
            for position, parameter in enumerate(inventory.parameters)
            if parameter.tensor.requires_grad
        }
        residuals = find_residuals(recorder)  # the backward pass lets go of the graph
        gradients, edge_gradients = _differentiate(loss, list(trained.values()), recorder)
        with torch.no_grad():
            return assemble_flow(
                inventory,
                loss.detach(),
                recorder,
                _drop_missing(zip(trained, gradients, strict=True)),
                _select_edges(edge_gradients, recorder),
                residuals,
                watch.calls,
            )


def _drop_missing(gradients: Iterable[tuple[int, Tensor | None]]) -> dict[int, Tensor]:
    return {key: gradient for key, gradient in gradients if gradient is not None}


def _select_edges(
    gradients: Sequence[Tensor | Table | None], recorder: Recorder
) -> dict[int, Tensor | Table]:
    """Return the gradients of the edges that calls refer to."""
    wanted = {
        edge
        for call in recorder.calls
        for edge in (*call.input_edges, *(output.edge for output in call.outputs))
        if edge is not None
    }
    found = {}
    for edge in sorted(wanted):
        gradient = gradients[edge]
        if gradient is None and edge in recorder.replaced:
            gradient = gradients[recorder.replaced[edge]]
        if gradient is not None:
            found[edge] = gradient
    return found


def _check_arguments(model: object, compute_loss: object) -> None:
    if not isinstance(model, nn.Module):
        raise InspectionError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. "
            "Call it as inspect(model, compute_loss)."
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise InspectionError(
            "The model must be plain Python modules, but it holds TorchScript, whose submodules "
            "cannot be observed. Inspect the model it was scripted or traced from."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InspectionError(
            "The model's parameters must have values, but some are on the meta device. Load or "
            "initialize them first."
        )
    if not callable(compute_loss):
        raise InspectionError(
            f"compute_loss must be a function that takes the model and returns the loss; got "
            f"{type(compute_loss).__name__}. Write for example "
            "inspect(model, lambda m: F.mse_loss(m(x), y))."
        )


def _check_initialized(inventory: Inventory) -> None:
    for module_name, module in inventory.modules:
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
                name = f"{module_name}.{key}" if module_name else key
                raise InspectionError(
                    f"All parameters must have a shape, but {name!r} is still lazy. Run the model "
                    "once on an example before inspecting it."
                )


@contextmanager
def _run_eagerly() -> Iterator[None]:
    """Have compiled parts run as plain Python: hooks added after compilation would never fire."""
    may_be_compiled = "torch._dynamo" in sys.modules
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it passes over the modules
    try:
        with torch.compiler.set_stance("force_eager") if may_be_compiled else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)


def _call(compute_loss: Callable[[Any], Any], model: nn.Module, recorder: Recorder) -> Tensor:
    try:
        loss = compute_loss(model)
    except InspectionError:
        raise
    except (Exception, SystemExit) as error:
        raise InspectionError(
            f"compute_loss must run through, but it raised {type(error).__name__}: {error}. "
            f"{_describe_progress(recorder)}"
        ) from error
    if not isinstance(loss, Tensor):
        raise LossError(
            f"compute_loss must return a scalar tensor; got {type(loss).__name__}. "
            "Return the loss itself, not loss.item() or the model's whole output."
        )
    if loss.numel() != 1:
        raise LossError(
            f"compute_loss must return one number; got a tensor of shape {list(loss.shape)}. "
            "Reduce it, for example with .mean()."
        )
    if loss.is_complex():
        raise LossError("compute_loss must return a real number; got a complex one. Use .abs().")
    if not loss.requires_grad and next(model.parameters(), None) is None:
        raise LossError(
            "The model must have parameters, or inputs that require a gradient, to be measured; "
            "it has no parameters, and the loss depends on nothing that requires a gradient. "
            f"Measure a model that has some. {_describe_progress(recorder)}"
        )
    if not loss.requires_grad:
        raise LossError(
            "compute_loss must return a loss attached to the graph; this one depends on nothing "
            "that requires a gradient. Look for .detach(), .item(), torch.no_grad(), an integer "
            f"loss, or a model whose parameters are all frozen. {_describe_progress(recorder)}"
        )
    return loss


def _describe_progress(recorder: Recorder) -> str:
    if recorder.last_run is None:
        return "No measured module had run."
    name = recorder.last_run.name or "(model)"
    return f"The last module that ran was {name!r} ({recorder.last_run.kind})."


def _differentiate(
    loss: Tensor, parameters: Sequence[Tensor], recorder: Recorder
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | Table | None]]:
    """Return the gradients of the parameters, and of every recorded edge that the loss reached.

    Large ones are summarized already.
    """
    try:
        has_checkpoint, leaves = _walk_graph(loss)
        if has_checkpoint:
            return _differentiate_by_backward(loss, parameters, leaves, recorder)
        known = {id(tensor) for tensor in parameters}
        # What is listened to must lie on the way to something that is asked for.
        others = [leaf for leaf in leaves if recorder.large and id(leaf) not in known]
        small = [edge for edge in range(len(recorder.targets)) if edge not in recorder.large]
        targets: list[Any] = [*parameters, *(recorder.targets[edge] for edge in small), *others]
        tables = recorder.listen()
        gradients = torch.autograd.grad(loss.sum(), targets, allow_unused=True)
    except Exception as error:
        if "second time" in str(error):
            raise LossError(
                "compute_loss must only compute the loss, but its graph was already used: it "
                "calls backward(), or reuses a graph from before. Leave the backward pass to "
                "inspect."
            ) from error
        raise InspectionError(
            f"The backward pass must run through, but it raised: {error}"
        ) from error
    found: list[Tensor | Table | None] = [tables.get(e) for e in range(len(recorder.targets))]
    for edge, gradient in zip(small, gradients[len(parameters) :], strict=False):
        found[edge] = gradient
    return gradients[: len(parameters)], found


def _walk_graph(loss: Tensor) -> tuple[bool, list[Tensor]]:
    """Return whether a reentrant checkpoint lies on the graph, and the leaves it ends in.

    `torch.autograd.grad` cannot cross such a checkpoint.
    """
    has_checkpoint = False
    leaves: list[Tensor] = []
    seen: set[Any] = set()
    pending: list[Any] = [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        has_checkpoint |= node.name() == "CheckpointFunctionBackward"
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        pending += [following for following, _ in node.next_functions]
    return has_checkpoint, leaves


def _differentiate_by_backward(
    loss: Tensor, parameters: Sequence[Tensor], leaves: Sequence[Tensor], recorder: Recorder
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    """The same through `backward()`, the only way through reentrant checkpoints.

    `.grad` is empty here (`preserve` put it aside), so what `backward` leaves there is the
    gradient. Calls inside a checkpoint get their edges when the checkpoint repeats them.
    Hooks that act on accumulated gradients (an optimizer in the backward pass) are held back.
    """
    gradients: dict[int, Tensor] = {}

    def listen(edge: int) -> None:
        target: Any = recorder.targets[edge]
        if isinstance(target, Tensor):
            target = torch.autograd.graph.get_gradient_edge(target)

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
    everything = {id(tensor): tensor for tensor in (*parameters, *leaves)}.values()
    held_back = [
        (hooks, dict(hooks))
        for tensor in everything
        if (hooks := tensor._post_accumulate_grad_hooks)
    ]
    for hooks, _ in held_back:
        hooks.clear()
    set_aside = [(tensor, tensor.grad) for tensor in everything]
    for tensor, _ in set_aside:
        tensor.grad = None
    recorder.on_recomputed = adopt
    try:
        for edge in range(len(recorder.targets)):
            listen(edge)
        loss.sum().backward()
        edge_gradients = [gradients.get(edge) for edge in range(len(recorder.targets))]
        return [parameter.grad for parameter in parameters], edge_gradients
    finally:
        recorder.on_recomputed = None
        for handle in handles:
            handle.remove()
        for tensor, gradient in set_aside:
            tensor.grad = gradient
        for hooks, contents in held_back:
            hooks.update(contents)
