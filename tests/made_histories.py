"""Histories of runs written by hand, of plain numbers."""

import math
from typing import Any

import numpy as np

from chainrule.watch.history import History
from chainrule.watch.records import (
    Alarm,
    LayerSample,
    OptimizerFacts,
    ParameterFacts,
    RunFacts,
    Sample,
    StepRecord,
)
from chainrule.watch.rules import find_alarms


def make_facts(layers: int = 3, **fields: Any) -> RunFacts:
    """A chain of dense layers of 10 units, each with a weight and no bias."""
    parameters = tuple(
        ParameterFacts(name=f"{number}.weight", layer=str(number), kind="Linear", shape=(10, 10))
        for number in range(layers)
    )
    optimizers = (OptimizerFacts(kind="SGD", groups=({"lr": 0.1},)),)
    return RunFacts(
        **{
            "name": "made",
            "model": "Sequential",
            "parameters": parameters,
            "optimizers": optimizers,
        }
        | fields
    )


class MadeRun:
    """A run whose steps are given one by one; it is healthy unless something else is given."""

    def __init__(self, facts: RunFacts | None = None) -> None:
        self.facts = facts or make_facts()
        self.history = History(self.facts)
        self.alarms: list[Alarm] = []
        self.step = 0

    def add(
        self,
        loss: float | None = 1.0,
        norms: Any = 1.0,
        sample: Sample | dict[str, Any] | None = None,
        **fields: Any,
    ) -> tuple[Alarm, ...]:
        """Add a step, and a sample of it where one is given; return the new alarms."""
        self.step += 1
        grads = np.broadcast_to(np.asarray(norms, float), len(self.facts.parameters)).copy()
        known = grads[grads >= 0] if not np.isnan(grads).any() else grads
        total = float(np.sqrt(np.square(known).sum()))
        record = {
            "step": self.step,
            "seconds": 0.1 * self.step,
            "grad_norms": grads,
            "total_norm": total,
            "loss": loss,
            "rates": (0.1,),
        } | fields
        self.history.add(StepRecord(**record))
        if sample is not None:
            self.history.add(self.make_sample(**sample) if isinstance(sample, dict) else sample)
        new = find_alarms(self.history)
        self.alarms.extend(new)
        return new

    def run(self, steps: int, **fields: Any) -> "MadeRun":
        """Add so many steps that are alike; samples come at each tenth."""
        sample = fields.pop("sample", {})
        for number in range(steps):
            self.add(sample=sample if number % 10 == 0 or self.step < 3 else None, **fields)
        return self

    def make_sample(self, weights: Any = 10.0, updates: Any = 0.01, **fields: Any) -> Sample:
        """A sample of this step: ‖W‖ is 10 and ‖ΔW‖ a thousandth of it."""
        count = len(self.facts.parameters)
        return Sample(
            step=self.step,
            weight_norms=np.broadcast_to(np.asarray(weights, float), count).copy(),
            update_norms=np.broadcast_to(np.asarray(updates, float), count).copy(),
            **fields,
        )

    @property
    def rules(self) -> list[str]:
        """Names of the rules that spoke, in order."""
        return [each.rule for each in self.alarms]


def layer(name: str = "1", kind: str = "ReLU", **fields: Any) -> LayerSample:
    """A module's output with mean 0 and deviation 1, but for what is given."""
    return LayerSample(**{"name": name, "kind": kind, "mean": 0.0, "std": 1.0} | fields)


NAN = math.nan
