"""Training runs made from plain numbers: every value can be worked out on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.watch.records import (
    Alarm,
    Evidence,
    LayerSample,
    OptimizerFacts,
    ParameterFacts,
    RunFacts,
    Sample,
    StepRecord,
)
from chainrule.watch.store import RunWriter


def make_facts(tensors: int = 4, name: str = "made", **fields: Any) -> RunFacts:
    """A chain of Linear layers with a weight and a bias each."""
    parameters = tuple(
        ParameterFacts(
            name=f"{index // 2}.{'bias' if index % 2 else 'weight'}",
            layer=str(index // 2),
            kind="Linear",
            shape=(4,) if index % 2 else (4, 4),
        )
        for index in range(tensors)
    )
    values: dict[str, Any] = {
        **{
            "model": "Sequential",
            "optimizers": (OptimizerFacts(kind="SGD", groups=({"lr": 0.1},)),),
        },
        **{"created": 1.7e9, "torch_version": "2", "chainrule_version": "0"},
    } | fields
    return RunFacts(name=name, parameters=parameters, **values)  # fmt: skip


def make_step(step: int, tensors: int = 4, **fields: Any) -> StepRecord:
    """A step whose loss is 1 ÷ step and whose norms are 1, 2, 4, … ÷ step."""
    norms = np.array([2.0 ** (index % 8) for index in range(tensors)]) / step
    values: dict[str, Any] = {
        **{"seconds": step / 64, "grad_norms": norms, "loss": 1 / step, "rates": (0.1,)},
        **{"total_norm": float(np.sqrt((norms[norms > 0] ** 2).sum()))},
    } | fields
    return StepRecord(step=step, **values)


def make_sample(step: int, tensors: int = 4, **fields: Any) -> Sample:
    """A sample of weights of norm 2 that changed by 2/100, behind each of them a ReLU."""
    layers = tuple(
        LayerSample(
            name=f"{index}.act",
            kind="ReLU",
            mean=0.5,
            std=1.0,
            delta_norm=2.0**-index,
            dead_units=0.25,
            zero_share=0.5,
            subnormal_share=0.0,
        )
        for index in range((tensors + 1) // 2)
    )
    values: dict[str, Any] = {
        **{"weight_norms": np.full(tensors, 2.0), "update_norms": np.full(tensors, 0.02)},
        **{"layers": layers},
    } | fields
    return Sample(step=step, **values)


def make_alarm(step: int, rule: str = "spike", **fields: Any) -> Alarm:
    """A jump of the loss."""
    values: dict[str, Any] = {
        **{"kind": "spike", "value": 80.0, "bound": 8.0, "layer": "0"},
        **{"summary": "The loss jumped.", "cause": "One batch is unlike the others."},
        **{"action": "Clip the gradients.", "evidence": (Evidence(name="loss", value=9.0),)},
    } | fields
    return Alarm(step=step, rule=rule, **values)


def make_records(steps: int, tensors: int = 4, every: int = 50, first: int = 1) -> Iterator[Any]:
    """The steps of a run, with a sample at the first and at every so many."""
    for step in range(first, first + steps):
        yield make_step(step, tensors)
        if step == 1 or step % every == 0:
            yield make_sample(step, tensors)


def make_run(path: Path, steps: int = 120, tensors: int = 4, **fields: Any) -> Path:
    """A run that ended, with an alarm in its middle."""
    with RunWriter.open(path, make_facts(tensors, path.stem, **fields)) as writer:
        for record in make_records(steps, tensors):
            writer.write(record)
        writer.write(make_alarm(max(steps // 2, 1)))
    return path


def make_noisy_steps(
    steps: int, tensors: int, noise: float = 0.3, seed: int = 0
) -> Iterator[StepRecord]:
    """Steps like those of a real training: norms that drift and tremble, all of them together."""
    generator = np.random.default_rng(seed)
    scale = generator.normal(-3, 2, tensors)
    drift = np.zeros(tensors)
    for step in range(1, steps + 1):
        drift = 0.98 * drift + 0.05 * generator.normal(size=tensors)
        common = 0.3 * noise * generator.normal()
        norms = np.exp(scale + drift + common + noise * generator.normal(size=tensors))
        norms = norms.astype(np.float32).astype(np.float64)
        yield StepRecord(
            step=step,
            seconds=0.01 * step + 0.001 * generator.random(),
            grad_norms=norms,
            total_norm=float(np.sqrt((norms**2).sum())),
            loss=float(np.float32(2 / np.sqrt(step) + 0.1 * generator.random())),
            rates=(1e-3,),
        )


def make_noisy_sample(step: int, tensors: int, modules: int, seed: int = 0) -> Sample:
    """A sample like one of a real training."""
    generator = np.random.default_rng((seed, step))
    pairs = zip(generator.random((modules, 5)), range(modules), strict=True)
    layers = tuple(
        LayerSample(
            name=f"blocks.{index // 4}.{index % 4}",
            kind=("Linear", "ReLU", "LayerNorm", "Linear")[index % 4],
            mean=float(draw[0] - 0.5),
            std=float(draw[1]),
            delta_norm=float(np.exp(3 * draw[2])),
            dead_units=float(np.round(draw[3], 2)) if index % 4 == 1 else None,
            zero_share=float(np.round(draw[4] ** 4, 3)),
            subnormal_share=0.0,
        )
        for draw, index in pairs
    )
    weights = np.sqrt(20 + step / 500 + np.arange(tensors))
    return Sample(
        step=step,
        weight_norms=weights.astype(np.float32).astype(np.float64),
        update_norms=(1e-3 * np.exp(0.3 * generator.normal(size=tensors))).astype(np.float32)
        + np.zeros(tensors),
        layers=layers,
    )
