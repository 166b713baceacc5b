"""A plain loop that measures what a watched run records, exactly and without any cleverness.

It is the reference for `chainrule.watch`: norms with `torch.linalg.vector_norm` in float64, updates
as the difference of two copies, hooks on every module at sampled steps. It is slow.
"""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from alarm_parts import Setup, take_loss
from torch import Tensor, nn

import chainrule
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.watch.history import History
from chainrule.watch.records import (
    ABSENT,
    Alarm,
    LayerSample,
    Norms,
    OptimizerFacts,
    ParameterFacts,
    RunFacts,
    Sample,
    StepRecord,
)
from chainrule.watch.rules import find_alarms

EVERY = 50
"""A sample is taken each so many steps, and more often in the first 100 and when asked for."""

FIRST = frozenset({1, 2, 3, 4, 5, 7, 10, *range(15, 100, 5)})
"""Sampled steps at the beginning."""

AFTER_ALARM = 3
"""Sampled steps after an alarm."""

TINY = {torch.float16: 2.0**-14, torch.bfloat16: 2.0**-126, torch.float32: 2.0**-126}


@dataclass(frozen=True)
class Outcome:
    """What became of one watched training."""

    alarms: tuple[Alarm, ...]
    losses: tuple[float, ...]
    trained: bool
    word: str
    seconds: float


def describe(setup: Setup) -> RunFacts:
    """Return the facts of a run before its first step."""
    owners = dict(setup.model.named_modules())
    held = {
        id(parameter): (number, group)
        for number, optimizer in enumerate(setup.optimizers)
        for group, settings in enumerate(optimizer.param_groups)
        for parameter in settings["params"]
    }
    parameters = []
    for name, parameter in setup.model.named_parameters():
        layer = name.rpartition(".")[0]
        optimizer, group = held.get(id(parameter), (None, None))
        parameters.append(
            ParameterFacts(
                name=name,
                layer=layer,
                kind=type(owners[layer]).__name__,
                shape=tuple(parameter.shape),
                dtype=str(parameter.dtype).removeprefix("torch."),
                trained=parameter.requires_grad,
                optimizer=optimizer,
                group=group,
            )
        )
    optimizers = tuple(
        OptimizerFacts(
            kind=type(each).__name__, groups=tuple({"lr": g["lr"]} for g in each.param_groups)
        )
        for each in setup.optimizers
    )
    return RunFacts(
        name="",
        model=type(setup.model).__name__,
        parameters=tuple(parameters),
        optimizers=optimizers,
    )


def _norm(tensor: Tensor | None) -> float:
    if tensor is None:
        return ABSENT
    return float(torch.linalg.vector_norm(tensor.detach().double()))


class _Layers:
    """Hooks on every module without children, for one step."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: list[tuple[str, nn.Module, Tensor, list[Tensor]]] = []
        self._handles = [
            module.register_forward_hook(partial(self._see, name))
            for name, module in model.named_modules()
            if name and not list(module.children())
        ]

    def _see(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        deltas: list[Tensor] = []
        if output.requires_grad:
            output.register_hook(lambda gradient: deltas.append(gradient.detach()))
        self.outputs.append((name, module, output.detach(), deltas))

    def close(self) -> tuple[LayerSample, ...]:
        for handle in self._handles:
            handle.remove()
        return tuple(
            _sample_layer(name, module, output, deltas)
            for name, module, output, deltas in self.outputs
        )


def _sample_layer(
    name: str, module: nn.Module, output: Tensor, deltas: Sequence[Tensor]
) -> LayerSample:
    values = output.double()
    finite = torch.isfinite(values)
    known = values[finite]
    saturation = dead = None
    if isinstance(module, nn.Sigmoid):
        saturation = float((4 * values * (1 - values) < 0.05).double().mean())
    elif isinstance(module, nn.Tanh):
        saturation = float((1 - values * values < 0.05).double().mean())
    elif isinstance(module, nn.ReLU | nn.ReLU6) and values.dim() > 1:
        axis = 1 if values.dim() == 4 else values.dim() - 1
        others = [each for each in range(values.dim()) if each != axis]
        dead = (
            float((values == 0).all(dim=others[0]).double().mean())
            if len(others) == 1
            else (float((values == 0).movedim(axis, 0).flatten(1).all(1).double().mean()))
        )
    delta = deltas[-1] if deltas else None
    zero = small = None
    if delta is not None and delta.numel():
        zero = float((delta == 0).double().mean())
        small = float(((delta != 0) & (delta.abs() < TINY.get(delta.dtype, 0.0))).double().mean())
    return LayerSample(
        name=name,
        kind=type(module).__name__,
        mean=float(known.mean()) if known.numel() else math.nan,
        std=float(known.std(correction=0)) if known.numel() else math.nan,
        delta_norm=None if delta is None else _norm(delta),
        saturation=saturation,
        dead_units=dead,
        zero_share=zero,
        subnormal_share=small,
        non_finite=int((~finite).sum()),
    )


def _open_flow(setup: Setup) -> GradientFlow | None:
    """Return the whole measurement of the first step; `None` if the model refuses it."""
    state = torch.get_rng_state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return chainrule.inspect(setup.model, lambda model: take_loss(setup, model, 1))
    except Exception:
        return None
    finally:
        torch.set_rng_state(state)


def record_run(setup: Setup) -> Outcome:
    """Train a program to its end, watched by the reference, and return what was said of it."""
    began = time.process_time()
    facts = describe(setup)
    parameters = dict(setup.model.named_parameters())
    watched = [parameters[each.name] for each in facts.parameters]
    history = History(facts)
    alarms: list[Alarm] = []
    losses: list[float] = []
    soon = 0
    for step in range(1, setup.steps + 1):
        setup.before(setup, step)
        sampled = step in FIRST or step % EVERY == 0 or history.wants_sample or soon > 0
        soon = max(0, soon - 1)
        flow = _open_flow(setup) if step == 1 and setup.flow else None
        layers = _Layers(setup.model) if sampled else None
        for optimizer in setup.optimizers:
            optimizer.zero_grad()
        losses.append(setup.backward(setup, step))
        found = layers.close() if layers else ()
        before = [each.detach().clone() for each in watched] if sampled else []
        history.add(_take_step(setup, watched, step, losses[-1]))
        if sampled:
            history.add(_take_sample(setup, facts, watched, before, found, flow, step))
        new = find_alarms(history)
        alarms.extend(new)
        soon = AFTER_ALARM if new else soon
        for schedule in setup.schedules:
            schedule.step()
        if len(losses) > 5 and not any(map(math.isfinite, losses[-5:])):
            break
    trained, word = setup.judge(setup.model, losses)
    return Outcome(tuple(alarms), tuple(losses), trained, word, time.process_time() - began)


def _measure_norms(watched: Sequence[Tensor]) -> tuple[Norms, float]:
    """Return ‖gradient‖ of each parameter, and of all together."""
    norms: Norms = np.array([_norm(each.grad) for each in watched], float)
    if np.isnan(norms).any():
        return norms, math.nan
    return norms, float(np.sqrt(np.square(norms[norms >= 0]).sum()))


def _take_step(setup: Setup, watched: Sequence[Tensor], step: int, loss: float) -> StepRecord:
    """Let the optimizers step, and return what was measured."""
    scaler = setup.scaler
    scale = scaler.get_scale() if scaler is not None else None
    if scaler is not None:
        for optimizer in setup.optimizers:
            scaler.unscale_(optimizer)
    norms, total = _measure_norms(watched)
    clipped = None
    if setup.clip is not None and total > setup.clip:
        clipped = total
        torch.nn.utils.clip_grad_norm_(setup.model.parameters(), setup.clip)
        norms, total = _measure_norms(watched)
    rates = tuple(float(group["lr"]) for each in setup.optimizers for group in each.param_groups)
    skipped = ""
    for optimizer in setup.optimizers:
        if scaler is None:
            optimizer.step()
            continue
        scaler.step(optimizer)
        scaler.update()
        skipped = "" if math.isfinite(total) else "gradient scaler"
    return StepRecord(
        step=step,
        seconds=0.0,
        grad_norms=norms,
        total_norm=total,
        clipped_from=clipped,
        loss=loss if setup.logged else None,
        rates=rates,
        scale=scale,
        skipped=skipped,
    )


def _take_sample(
    setup: Setup,
    facts: RunFacts,
    watched: Sequence[Tensor],
    before: Sequence[Tensor],
    layers: tuple[LayerSample, ...],
    flow: GradientFlow | None,
    step: int,
) -> Sample:
    """Return what was measured of a sampled step."""
    now = dict(setup.model.named_parameters())
    pairs = list(zip(facts.parameters, watched, strict=True))
    return Sample(
        step=step,
        weight_norms=np.array([_norm(each) for each in before], float),
        update_norms=np.array(
            [_norm(each - old) for each, old in zip(watched, before, strict=True)], float
        ),
        layers=layers,
        flow=flow,
        replaced=tuple(each.name for each, old in pairs if now.get(each.name) is not old),
    )
