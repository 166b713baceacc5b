"""`inspect`: measure the gradient flow of any `nn.Module`."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from chainrule.errors import InspectionError, LossError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure._torch_internals import list_missing, unwrap_compiled
from chainrule.measure.assembly import assemble_flow
from chainrule.measure.attention import watch_attention
from chainrule.measure.backward import differentiate
from chainrule.measure.interrupts import HoldInterrupts
from chainrule.measure.loss import find_loss
from chainrule.measure.modules import Inventory, take_inventory
from chainrule.measure.optimizers import check_optimizer, read_optimizer
from chainrule.measure.positions import note_positions
from chainrule.measure.precision import note_arriving
from chainrule.measure.preservation import restore
from chainrule.measure.recording import Subject, record
from chainrule.measure.residuals import find_residuals
from chainrule.measure.sharing import run_modules_one_by_one
from chainrule.measure.slip_proofs import conclude_slips, prepare_slips
from chainrule.measure.terms import Term, add_up, read_terms

_LOG = logging.getLogger(__name__)


def inspect(
    model: nn.Module,
    compute_loss: Callable[[Any], Tensor | Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer | None = None,
) -> GradientFlow:
    """Measure values and gradients of every module of a model in one forward and backward pass.

    Gradients are those of plain autograd. It measures modules without submodules, and modules that
    own parameters themselves. Operations written as functions (`F.relu`, `+`) belong to the path
    between them. For attention, it measures in a sample how widely the weights are spread (see
    `AttentionFlow`). Afterwards parameters, `.grad`, buffers, modes, attributes, random states and
    hooks are as before, even if an error or Ctrl-C ends it. Hooks of the model run as in training,
    but those on accumulated gradients (`register_post_accumulate_grad_hook`), which may hold an
    optimizer step, do not: gradients are those that arrive there. Models that are spread over
    processes (FSDP, DTensor, DistributedDataParallel) are refused: inspect what they wrap.

    Several threads may inspect at the same time, each a different model. Meanwhile no other thread
    may run or change the model. Random states belong to the whole process, so numbers that other
    threads draw during an inspection are drawn again afterwards. Of several inspections at the same
    time, the last one that ends restores the random states that the first one found. During an
    inspection, all threads run without the fused paths of `nn.TransformerEncoder` and without code
    compiled by `torch.compile`: results are the same, but slower.

    Args:
        model: Any PyTorch module. A model under `torch.compile` is measured uncompiled.
        compute_loss: Called once, with the model; returns the scalar tensor to differentiate,
            for example `lambda m: F.mse_loss(m(x), y)`. Or it returns up to 16 named scalar
            tensors, `{"error": …, "kl": …}`, whose sum is the loss: then each term is measured by
            itself as well (`flow.loss_facts.terms`), which takes one more backward pass per term
            and holds the gradients of two at a time. (With a reentrant checkpoint, terms have a
            value only.) It must not call `backward()` or update
            anything. Inputs that should have a gradient of their own (and the first module a
            gain) need `requires_grad`.
        optimizer: If given, the flow holds its learning rates, and `diagnose` compares its steps
            with the weights. It is not changed.

    Returns:
        The measurement: an ensemble of one.

    Raises:
        LossError: If the loss is not a scalar tensor, or is not attached to the graph.
        InspectionError: If the model cannot be measured, `compute_loss` or the backward pass
            raises (chained with `from`), `compute_loss` changes parameters, something cannot be
            restored, or the model or a part of it is being inspected already (in another thread, or
            by a call around this one).

    Example:
        >>> flow = inspect(nn.Linear(2, 1), lambda m: m(torch.ones(1, 2)).sum())
        >>> float(flow.parameters[1].grad_norm)
        1.0
    """
    check_arguments(model, compute_loss)
    check_optimizer(optimizer)
    _report_missing()
    inventory = take_checked_inventory(model)
    with (
        HoldInterrupts() as interrupts,
        restore(inventory),
        torch.inference_mode(False),
        torch.enable_grad(),
        run_modules_one_by_one(),
        record(inventory) as recorder,
    ):
        watched = watch_attention(inventory, recorder.overwritten, recorder.note_read)
        with watched as watch, interrupts.let_through():
            recorder.joins, recorder.constants = watch.joins, watch.constants
            loss, terms = call_loss(
                compute_loss, inventory.modules[0][1], lambda: recorder.last_run
            )
        with interrupts.let_through():
            recorder.is_complete = True
            trained = {
                position: parameter.tensor
                for position, parameter in enumerate(inventory.parameters)
                if parameter.tensor.requires_grad
            }
            # The backward pass releases the graph.
            residuals = find_residuals(recorder)
            if recorder.has_half:
                note_arriving(loss, recorder)
            facts = find_loss(
                loss, recorder, watch.constants, terms, watch.broadcasts, watch.alignment
            )
            slips = prepare_slips(watch.slips.found, recorder, facts)
            note_positions(recorder, facts)
            reached, edge_gradients = differentiate(loss, trained, recorder, terms)
            with torch.no_grad():
                flow = assemble_flow(
                    inventory,
                    loss.detach(),
                    recorder,
                    reached,
                    edge_gradients,
                    residuals,
                    watch.calls,
                    facts,
                    slips=conclude_slips(slips, edge_gradients),
                )
                overwritten = watch.overwrites.conclude()
                if overwritten:
                    flow = replace(flow, slips=(*flow.slips, *overwritten))
                if optimizer is None:
                    return flow
                return replace(flow, optimizer=read_optimizer(optimizer, inventory, reached))


@cache
def _report_missing() -> None:
    """Log once what this PyTorch does not offer."""
    for sentence in list_missing():
        _LOG.warning(sentence)


def take_checked_inventory(model: nn.Module) -> Inventory:
    """Return what a model consists of.

    Raises:
        InspectionError: If it is none that can be measured.
    """
    try:
        inventory = take_inventory(unwrap_compiled(model))
    except RuntimeError as error:  # a dictionary changed while it was looked through
        raise InspectionError(
            "A model must not change while it is read, but another thread changes "
            f"its modules or parameters ({error}). Inspect it when nothing else uses it."
        ) from error
    _check_model(inventory)
    return inventory


def check_arguments(model: object, compute_loss: object) -> None:
    """Raise `InspectionError` unless a model and a function are given."""
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


def _check_model(inventory: Inventory) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for _, module in inventory.modules):
        raise InspectionError(
            "The model must be made of Python modules, but it contains TorchScript, whose "
            "submodules cannot be measured. Inspect the model that was scripted or traced."
        )
    _check_whole(inventory)
    if any(parameter.tensor.is_meta for parameter in inventory.parameters):
        raise InspectionError(
            "The model's parameters must have values, but some are on the meta device. Load or "
            "initialize them first."
        )
    for module_name, module in inventory.modules:
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if type(tensor) not in _ORDINARY and isinstance(
                tensor, (UninitializedParameter, UninitializedBuffer)
            ):
                name = f"{module_name}.{key}" if module_name else key
                raise InspectionError(
                    f"All parameters must have a shape, but {name!r} is still lazy. Run the model "
                    "once on an example before inspecting it."
                )


def _check_whole(inventory: Inventory) -> None:
    """Raise unless this process holds the whole model, without a wrapper that shares gradients."""
    for kind in {type(module) for _, module in inventory.modules}:
        kinds = {each.__name__ for each in kind.__mro__}
        found = next((each for each in _SHARDING if each in kinds), None)
        if found is not None:
            raise InspectionError(
                f"The model must be whole on one process, but it contains {found}, which spreads "
                "parameters or gradients over processes in hooks of its own, so they cannot be "
                "measured from outside. Inspect the model before it is wrapped (the same module "
                f"without it{', or wrapped.module' if found in _KEEPS_MODULE else ''}); a process "
                "then measures its own batch."
            )
    for parameter in inventory.parameters:
        if type(parameter.tensor) not in _ORDINARY and hasattr(parameter.tensor, "device_mesh"):
            raise InspectionError(
                "Parameters must be whole on one process, but "
                f"{parameter.names[0]!r} is a DTensor, of which each process holds a part. Inspect "
                "the model before it is distributed (fully_shard, parallelize_module, "
                "distribute_tensor), or give each module its parameter.full_tensor()."
            )


_ORDINARY = (nn.Parameter, Tensor, type(None))
"""Classes of what needs no further look."""

_KEEPS_MODULE = ("FullyShardedDataParallel", "DistributedDataParallel")
_SHARDING = (*_KEEPS_MODULE, "FSDPModule")
"""Classes of modules, by name, whose gradients arrive by hooks of their own."""


def call_loss(
    compute_loss: Callable[[Any], Any], model: nn.Module, read_last: Callable[[], Subject | None]
) -> tuple[Tensor, list[Term]]:
    """Return the loss of a model, checked, and its terms if it came as named ones.

    Args:
        compute_loss: As for `inspect`.
        model: The model.
        read_last: Returns the last module that ran, for messages.

    Raises:
        LossError: If it is not one number that a gradient can be computed of.
        InspectionError: If `compute_loss` raises.
    """
    try:
        loss = compute_loss(model)
    except InspectionError:
        raise
    except (Exception, SystemExit) as error:
        raise InspectionError(
            f"compute_loss must run without errors, but it raised {describe_error(error)}. "
            f"{_describe_progress(read_last())}"
        ) from error
    terms: list[Term] = []
    if isinstance(loss, Mapping):
        terms = read_terms(loss)
        loss = add_up(terms)
    if not isinstance(loss, Tensor):
        raise LossError(
            f"compute_loss must return a scalar tensor; got {type(loss).__name__}. "
            "Return the loss itself (or a dictionary of its terms), not loss.item() or the model's "
            "whole output."
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
            f"Measure a model that has some. {_describe_progress(read_last())}"
        )
    if not loss.requires_grad:
        raise LossError(
            "compute_loss must return a loss attached to the graph; this one depends on nothing "
            "that requires a gradient. Look for .detach(), .item(), torch.no_grad(), an integer "
            f"loss, or a model whose parameters are all frozen. {_describe_progress(read_last())}"
        )
    return loss, terms


def describe_error(error: BaseException) -> str:
    """Return what `compute_loss` raised: its class and what it says, if it says anything."""
    text = str(error).rstrip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1]  # a sentence goes on after it
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, StopIteration):
        return f"{said} (an iterator that it reads has ended)"
    return said


def _describe_progress(last: Subject | None) -> str:
    if last is None:
        return "No measured module had run."
    name = last.name or "(model)"
    return f"The last module that ran was {name!r} ({last.kind})."
