"""`inspect`: measure the gradient flow of any `nn.Module`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.assembly import assemble_flow
from chainrule.errors import InspectionError, LossError
from chainrule.flow import GradientFlow
from chainrule.inventory import Inventory, take_inventory
from chainrule.preservation import preserve
from chainrule.recording import Call, Recorder, record


def inspect(model: nn.Module, compute_loss: Callable[[Any], Tensor]) -> GradientFlow:
    """Measure values and gradients of every module of a model in one forward and backward pass.

    Gradients are those of plain autograd. Measured are modules without submodules and modules
    that own parameters themselves; operations written as functions (`F.relu`, `+`) belong to the
    path between them. Nothing is left behind: parameters, `.grad`, buffers, modes, random states
    and hooks are as before, also when an error is raised. Hooks that the model already has run as
    they do in training.

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
        stack.enter_context(_run_eagerly(inventory))
        recorder = stack.enter_context(record(inventory))
        loss = _call(compute_loss, inventory.modules[0][1], recorder)
        trained = {
            position: parameter.tensor
            for position, parameter in enumerate(inventory.parameters)
            if parameter.tensor.requires_grad
        }
        gradients, edge_gradients = _differentiate(loss, list(trained.values()), recorder)
        with torch.no_grad():
            return assemble_flow(
                inventory,
                loss.detach(),
                recorder,
                _drop_missing(zip(trained, gradients, strict=True)),
                _drop_missing(enumerate(edge_gradients)),
            )


def _drop_missing(gradients: Iterable[tuple[int, Tensor | None]]) -> dict[int, Tensor]:
    return {key: gradient for key, gradient in gradients if gradient is not None}


def _check_arguments(model: object, compute_loss: object) -> None:
    if not isinstance(model, nn.Module):
        raise InspectionError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. "
            "Call it as inspect(model, compute_loss)."
        )
    if not callable(compute_loss):
        raise InspectionError(
            f"compute_loss must be a function that takes the model and returns the loss; got "
            f"{type(compute_loss).__name__}. Write for example "
            "inspect(model, lambda m: F.mse_loss(m(x), y))."
        )


def _check_initialized(inventory: Inventory) -> None:
    for parameter in inventory.parameters:
        if isinstance(parameter.tensor, nn.parameter.UninitializedParameter):
            raise InspectionError(
                f"All parameters must have a shape, but {parameter.names[0]!r} is still lazy. Run "
                "the model once on an example before inspecting it."
            )


@contextmanager
def _run_eagerly(inventory: Inventory) -> Iterator[None]:
    """Have compiled parts run as plain Python: hooks added after compilation would never fire."""
    compiled = any(
        hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        for _, module in inventory.modules
    )
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield


def _call(compute_loss: Callable[[Any], Any], model: nn.Module, recorder: Recorder) -> Tensor:
    try:
        loss = compute_loss(model)
    except Exception as error:
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
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    """Return the gradients of the parameters, and of every recorded edge that the loss reached."""
    try:
        if recorder.without_grad and _has_reentrant_checkpoint(loss):
            return _differentiate_by_backward(loss, parameters, recorder)
        targets: list[Any] = [*parameters, *recorder.targets]
        gradients = torch.autograd.grad(loss.sum(), targets, allow_unused=True)
    except RuntimeError as error:
        if "second time" in str(error):
            raise LossError(
                "compute_loss must only compute the loss, but its graph was already used: it "
                "calls backward(), or reuses a graph from before. Leave the backward pass to "
                "inspect."
            ) from error
        raise InspectionError(
            f"The backward pass must run through, but it raised: {error}"
        ) from error
    return gradients[: len(parameters)], gradients[len(parameters) :]


def _has_reentrant_checkpoint(loss: Tensor) -> bool:
    """Whether a reentrant checkpoint lies on the graph; `torch.autograd.grad` cannot cross it."""
    seen, pending = set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        pending += [following for following, _ in node.next_functions]
    return False


def _differentiate_by_backward(
    loss: Tensor, parameters: Sequence[Tensor], recorder: Recorder
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
    held_back = [
        (hooks, dict(hooks))
        for parameter in parameters
        if (hooks := parameter._post_accumulate_grad_hooks)
    ]
    for hooks, _ in held_back:
        hooks.clear()
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
        for hooks, contents in held_back:
            hooks.update(contents)
