"""One model of one width: a pass, a few steps of training, and the pass again."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.errors import InspectionError
from chainrule.measure.inspection import describe_error
from chainrule.measure.sharing import run_modules_one_by_one
from chainrule.training.batches import call, check_loss, list_devices, seed
from chainrule.training.optimizers import needs_closure
from chainrule.width.recording import Recorder, Seen
from chainrule.width.records import MODEL

_FIRST_PROBE, _FIRST_STEP = 11_000_003, 13_000_003
"""Random states of the passes that are compared (dropout draws the same), and of the steps."""

ROUNDING = 30.0
"""A difference below so many roundings of what it is a difference of is not measured."""


@dataclass(slots=True, eq=False)
class ModuleSizes:
    """Root mean squares per coordinate of one module at one width; NaN where there is none.

    Attributes:
        shapes: Of what it returned.
        input_shapes: Of what it was given.
        is_scores: Whether it stands for attention scores.
        has_children: Whether it contains modules.
        values: By the names of `METRICS`.
        parameters: For each of its parameters, "size", "gradient", "update", "effect", and its
            shape.
    """

    shapes: tuple[tuple[int, ...], ...]
    input_shapes: tuple[tuple[int, ...], ...]
    is_scores: bool
    has_children: bool
    values: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, tuple[tuple[int, ...], dict[str, float]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Run:
    """What one model did.

    Attributes:
        modules: By name, in the order in which they returned.
        names: Of all modules, also those that did not run.
        shapes: Of all parameters, by name.
        loss: Before the first step.
        trained: After the last.
        optimizer: Class of the optimizer.
        eps: The largest ε of its groups; 0 if it has none.
        unheld: Parameters that it does not hold.
        shared: Modules whose parameters other modules use as well, with one of these.
    """

    modules: dict[str, ModuleSizes]
    names: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    loss: float
    trained: float
    optimizer: str
    eps: float
    unheld: tuple[str, ...]
    shared: dict[str, str]


def measure_run(
    model: nn.Module,
    batch: Any,
    compute_loss: Callable[..., Any],
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int,
    number: int,
    where: str,
) -> Run:
    """Measure a model, train it for a few steps on a batch, and measure it again.

    Args:
        model: The model; it is trained.
        batch: What `compute_loss` takes.
        compute_loss: Takes the model and the batch.
        build_optimizer: Makes an optimizer of a model.
        steps: How many.
        number: The seed.
        where: "at width 64, seed 0", for messages.

    Raises:
        InspectionError: If it cannot be trained, or becomes infinite or undefined.
    """
    devices = list_devices(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    if not trained:
        raise InspectionError(f"The model must have parameters that are trained; {where} has none.")
    optimizer = build_optimizer(model)
    unheld = _check_held(optimizer, trained, where)
    start = {name: p.detach().clone() for name, p in trained.items()}
    with run_modules_one_by_one():
        first = Recorder(model)
        seed(devices, number + _FIRST_PROBE)
        with first.watch():
            loss = check_loss(call(compute_loss, model, batch))
        before = float(loss.detach())
        _check_start(before, first, batch, where)
        edges = [edge for seen in first.seen.values() for edge in seen.edges]
        known = [edge for edge in edges if edge is not None]
        unique = list(dict.fromkeys(trained.values()))
        targets: Any = [*known, *unique]
        found = torch.autograd.grad(loss, targets, allow_unused=True)
        gradients = dict(zip(known, found, strict=False))
        weight_gradients = dict(zip(unique, found[len(known) :], strict=True))
        del loss, found
    _train(model, batch, compute_loss, optimizer, steps, number, devices, where)
    with run_modules_one_by_one():
        last = Recorder(model, start, frozenset({"", *first.seen}))
        seed(devices, number + _FIRST_PROBE)
        with last.watch():
            after = float(check_loss(call(compute_loss, model, batch)).detach())
        _check_finite(after, last, f"{where} after {steps} steps")
    modules = {}
    for name, seen in first.seen.items():
        modules[name] = _measure_module(seen, last.seen.get(name), gradients)
        later = last.seen.get(name)
        if later is None:
            continue
        for key in later.effects:
            gradient = weight_gradients[trained[key]]
            modules[name].parameters[key] = _measure_parameter(
                trained[key], start[key], gradient, later, key, modules[name]
            )
    return Run(
        modules=modules,
        names=tuple(name or MODEL for name, _ in model.named_modules()),
        shapes={name: tuple(p.shape) for name, p in parameters.items()},
        loss=before,
        trained=after,
        optimizer=type(optimizer).__name__,
        eps=max(float(group.get("eps") or 0.0) for group in optimizer.param_groups),
        unheld=unheld,
        shared=_find_shared(parameters),
    )


def _find_shared(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    owners: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0] or MODEL)
    return {
        owner: next(each for each in places if each != owner)
        for places in owners.values()
        for owner in places
        if len(set(places)) > 1
    }


def _check_held(
    optimizer: torch.optim.Optimizer, trained: Mapping[str, Tensor], where: str
) -> tuple[str, ...]:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in trained.values()}
    if others := len(held - own):
        raise InspectionError(
            f"optimizer must hold parameters of the model that it is given, but {where} it holds "
            f"{others} that are not the model's (or are not trained). Build it from the argument: "
            "lambda model: torch.optim.Adam(model.parameters(), lr=1e-3)."
        )
    return tuple(name for name, p in trained.items() if id(p) not in held)


def _train(
    model: nn.Module,
    batch: Any,
    compute_loss: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    steps: int,
    number: int,
    devices: Sequence[torch.device],
    where: str,
) -> None:
    step_with: Any = optimizer.step if needs_closure(optimizer) else None
    for step in range(1, steps + 1):

        def evaluate() -> Tensor:
            seed(devices, number + _FIRST_STEP + step)  # noqa: B023
            optimizer.zero_grad(set_to_none=True)
            loss = check_loss(call(compute_loss, model, batch))
            loss.backward()
            return loss.detach()

        try:
            if step_with is not None:
                loss = step_with(evaluate)
            else:
                loss = evaluate()
                optimizer.step()
        except InspectionError:
            raise
        except Exception as error:
            raise InspectionError(
                f"The model must train, but step {step} {where} raised {describe_error(error)}."
            ) from error
        if not math.isfinite(float(loss)):
            raise InspectionError(
                f"Training must stay finite to be compared, but {where} the loss was "
                f"{float(loss)} at step {step}. Use a smaller learning rate or smaller widths."
            )
    optimizer.zero_grad(set_to_none=True)


def _check_start(loss: float, recorder: Recorder, batch: Any, where: str) -> None:
    """Raise if a model is not finite before anything was trained: a rate is no reason for it."""
    outputs = (each for seen in recorder.seen.values() for each in seen.outputs)
    if math.isfinite(loss) and all(bool(each.isfinite().all()) for each in outputs):
        return
    if place := _find_non_finite(batch, "batch"):
        raise InspectionError(
            f"The batch must hold finite numbers where the model needs them, but {place}, and "
            f"{where} the model is infinite or undefined before the first step. Mend make_batch."
        )
    name = next(
        (
            name
            for name, seen in recorder.seen.items()
            if not all(bool(each.isfinite().all()) for each in seen.outputs)
        ),
        "the loss",
    )
    raise InspectionError(
        f"The model must be finite at the start, but {where} before the first step {name!r} is "
        f"infinite or undefined (loss {loss}). Check the data, the initial weights and the loss."
    )


def _find_non_finite(batch: Any, name: str) -> str:
    """Return where a batch holds the first NaN or infinity; "" if nowhere."""
    if isinstance(batch, Tensor):
        bad = (~batch.isfinite()).nonzero()
        if not len(bad):
            return ""
        at = tuple(bad[0].tolist())
        return f"{name} holds {batch[at].item()} at {list(at)}"
    if isinstance(batch, Mapping):
        parts = [(f"{name}[{key!r}]", each) for key, each in batch.items()]
    elif isinstance(batch, (tuple, list)):
        parts = [(f"{name}[{at}]", each) for at, each in enumerate(batch)]
    else:
        return ""
    return next(filter(None, (_find_non_finite(each, part) for part, each in parts)), "")


def _check_finite(loss: float, recorder: Recorder, when: str) -> None:
    for name, seen in recorder.seen.items():
        if not all(bool(each.isfinite().all()) for each in seen.outputs):
            raise InspectionError(
                f"Training must stay finite to be compared, but {when} the output of {name!r} is "
                "infinite or undefined. Use a smaller learning rate or smaller widths."
            )
    if not math.isfinite(loss):
        raise InspectionError(
            f"Training must stay finite to be compared, but {when} the loss is {loss}. Use a "
            "smaller learning rate or smaller widths."
        )


# --- Sizes ----------------------------------------------------------------------------------------


def _measure_module(
    seen: Seen, later: Seen | None, gradients: Mapping[Any, Tensor | None]
) -> ModuleSizes:
    sizes = ModuleSizes(
        tuple(tuple(each.shape) for each in seen.outputs),
        tuple(tuple(each.shape) for each in seen.inputs),
        seen.is_scores,
        seen.has_children,
    )
    outputs = _scale(seen.outputs, seen.factors)
    own = [
        None if edge is None or factor == 0 or (g := gradients.get(edge)) is None else g / factor
        for edge, factor in zip(seen.edges, seen.factors, strict=True)
    ]
    values = sizes.values
    values["output"] = measure_rms(outputs)
    values["input"] = measure_rms(seen.inputs)
    values["gradient"] = measure_rms([g for g in own if g is not None])
    values["factor"] = seen.factors[0] if seen.factors else math.nan
    values["change"] = values["inherited"] = values["input_change"] = math.nan
    values["aligned"] = math.nan
    if later is None or not _match(seen.outputs, later.outputs):
        return sizes
    floor = _find_floor(outputs)
    moved = _subtract(_scale(later.outputs, later.factors), outputs)
    values["change"] = _read(moved, floor)
    known = [g for g in own if g is not None]
    if seen.is_scores and known and len(known) == len(moved) and values["gradient"] > 0:
        values["change"] = _measure_along(moved, known, floor)
    if _match(later.outputs, later.before):
        moved = _subtract(_scale(later.before, seen.factors), outputs)
        values["inherited"] = _read(moved, floor)
        if len(known) == len(moved):
            values["aligned"] = _measure_along(moved, known, floor)
    if _match(seen.inputs, later.inputs):
        values["input_change"] = _read(
            _subtract(later.inputs, seen.inputs), _find_floor(seen.inputs)
        )
    return sizes


def _measure_parameter(
    parameter: Tensor,
    start: Tensor,
    gradient: Tensor | None,
    later: Seen,
    key: str,
    module: ModuleSizes,
) -> tuple[tuple[int, ...], dict[str, float]]:
    effects = later.effects[key]
    values = {
        "size": measure_rms([start]),
        "gradient": math.nan if gradient is None else measure_rms([gradient.to_dense()]),
        "update": _read([parameter.detach() - start], _find_floor([start])),
        "effect": math.nan,
    }
    if len(effects) == len(later.outputs) and not _cancels(values["gradient"], start, module):
        values["effect"] = _read(_scale(effects, later.factors), _find_floor(later.outputs))
    return tuple(parameter.shape), values


def _cancels(gradient: float, start: Tensor, module: ModuleSizes) -> bool:
    """Whether a gradient is rounding only: a sum over rows that cancels, as of a key's bias.

    An optimizer that rescales gradients makes steps of usual size of it. A sum of independent rows
    is about √rows as large as one; the bound lies halfway, in powers, between that and a rounding.
    """
    shapes = module.shapes
    if start.dim() != 1 or not shapes or shapes[0][-1:] != start.shape:
        return False
    rows = sum(map(math.prod, shapes)) / start.shape[0]
    delta = module.values["gradient"] * module.values["factor"]
    return gradient < math.sqrt(torch.finfo(start.dtype).eps) * delta * math.sqrt(rows)


def measure_rms(tensors: Sequence[Tensor]) -> float:
    """Return the root of the mean square of all entries; NaN if there are none."""
    count = sum(each.numel() for each in tensors)
    if not count:
        return math.nan
    return math.sqrt(
        math.fsum(float(each.detach().double().square().sum()) for each in tensors) / count
    )


def _find_floor(tensors: Sequence[Tensor]) -> float:
    """Return what rounding alone makes of a difference of such tensors."""
    if not tensors:
        return 0.0
    eps = max(torch.finfo(each.dtype).eps for each in tensors)
    return ROUNDING * eps * measure_rms(tensors)


def _measure_along(moved: Sequence[Tensor], along: Sequence[Tensor], floor: float) -> float:
    """Return the root mean square of the part of a tensor along another one."""
    count = sum(each.numel() for each in moved)
    dot = math.fsum(
        float((one.double() * other.double()).sum())
        for one, other in zip(moved, along, strict=True)
    )
    norm = measure_rms(along) * math.sqrt(count)
    size = abs(dot) / norm / math.sqrt(count) if norm else math.nan
    return size if size > floor else 0.0


def _read(difference: Sequence[Tensor], floor: float) -> float:
    size = measure_rms(difference)
    return size if size > floor else 0.0


def _scale(tensors: Sequence[Tensor], factors: Sequence[float]) -> list[Tensor]:
    return [each * factor for each, factor in zip(tensors, factors, strict=True)]


def _subtract(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    return [one - other for one, other in zip(some, others, strict=True)]


def _match(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(
        one.shape == other.shape for one, other in zip(some, others, strict=True)
    )
