"""What gets a run's records besides its file, and the records as named numbers for it.

A sink is a function of a record and the run's facts. It is called in the training thread, once
per record, one step late, because the numbers of a step are read when the next one comes. The file
of the run keeps every parameter at every step; a sink gets few numbers per step, and those of
parameters and modules only now and then.
"""

import re
from collections.abc import Callable, Iterator

from chainrule.watch.records import ABSENT, Alarm, Norms, Record, RunFacts, Sample, StepRecord

Sink = Callable[[Record, RunFacts], object]
"""A function of a record and the run's facts. What it returns is ignored."""

_UNUSUAL = re.compile(r"[^\w./ -]")


def read_metrics(record: Record, facts: RunFacts) -> dict[str, float]:
    """Return the numbers of a record by name, all below "chainrule/".

    A step gives its loss, what else was logged, the norm of all gradients, and the learning rates;
    each `facts.every` steps also the gradient norm of each parameter. A sample gives
    ‖ΔW‖ ÷ ‖W‖ of each parameter and the statistics of each module. An alarm gives nothing.

    Args:
        record: A step, a sample or an alarm.
        facts: Those of its run.

    Example:
        >>> import numpy as np
        >>> facts = RunFacts(name="a", model="Sequential", parameters=(), optimizers=())
        >>> step = StepRecord(step=7, seconds=0.1, grad_norms=np.ones(0), total_norm=2.0, loss=0.5)
        >>> read_metrics(step, facts)
        {'chainrule/loss': 0.5, 'chainrule/grad_norm': 2.0}
    """
    if isinstance(record, Alarm):
        return {}
    pairs = (
        _list_step(record, facts) if isinstance(record, StepRecord) else _list_sample(record, facts)
    )
    return {
        "chainrule/" + _UNUSUAL.sub("_", name): float(value)
        for name, value in pairs
        if value is not None
    }


def describe_alarm(alarm: Alarm) -> str:
    """Return an alarm as one paragraph: where, what, why, and what to do.

    Args:
        alarm: The alarm.

    Example:
        >>> describe_alarm(Alarm(step=9, rule="spike", kind="spike", value=80.0, bound=8.0,
        ...     summary="The loss jumped.", cause="One batch.", action="Clip gradients."))
        'Step 9: The loss jumped. One batch. Clip gradients.'
    """
    return f"Step {alarm.step}: {alarm.summary} {alarm.cause} {alarm.action}"


def _list_step(step: StepRecord, facts: RunFacts) -> Iterator[tuple[str, float | None]]:
    yield "loss", step.loss
    yield from step.scalars.items()
    yield "grad_norm", step.total_norm
    yield "grad_norm_before_clipping", step.clipped_from
    yield "loss_scale", step.scale
    for at, rate in enumerate(step.rates):
        yield f"lr/{at}", rate
    if step.step == 1 or step.step % facts.every == 0:
        yield from _list_parameters("gradient", step.grad_norms, facts)


def _list_sample(sample: Sample, facts: RunFacts) -> Iterator[tuple[str, float | None]]:
    yield from _list_parameters("update_ratio", sample.ratios, facts)
    for layer in sample.layers:
        for name in ("std", "delta_norm", "saturation", "dead_units"):
            yield f"{name}/{layer.name}", getattr(layer, name)


def _list_parameters(
    name: str, norms: Norms, facts: RunFacts
) -> Iterator[tuple[str, float | None]]:
    for parameter, norm in zip(facts.parameters, norms, strict=True):
        yield f"{name}/{parameter.name}", None if norm == ABSENT else norm
