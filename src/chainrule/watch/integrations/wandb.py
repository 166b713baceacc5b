"""A sink for Weights & Biases."""

from typing import Any

from chainrule.errors import WatchError
from chainrule.watch.integrations.packages import load
from chainrule.watch.records import Alarm, Record, RunFacts
from chainrule.watch.sinks import describe_alarm, read_metrics

_STEP = "chainrule/step"


class WandbSink:
    """Sends a run to W&B, also offline: `sinks=[WandbSink(wandb.init(...))]`.

    The x-axis is "chainrule/step". One row is logged per step of the run and without a step of
    W&B's own, so log yours without `step=` too (with `define_metric`, as trainers do it).

    Example:
        >>> WandbSink.__name__
        'WandbSink'
    """

    def __init__(self, run: Any = None) -> None:
        """Take a W&B run; the one that is going on if not given.

        Raises:
            WatchError: If there is none.
        """
        self._run = load("wandb").run if run is None else run
        if self._run is None:
            raise WatchError("There is no W&B run. Call wandb.init(...) first, or give its run.")
        self._run.define_metric(_STEP, hidden=True)
        self._run.define_metric("chainrule/*", step_metric=_STEP)
        self._row: dict[str, float] = {}

    def __call__(self, record: Record, facts: RunFacts) -> None:
        """Log a record."""
        if isinstance(record, Alarm):
            title = f"{record.kind}, step {record.step}"[:63]
            self._run.alert(title, describe_alarm(record))
            return
        if self._row.get(_STEP) != record.step:
            self.close()
        self._row |= {_STEP: record.step, **read_metrics(record, facts)}

    def close(self) -> None:
        """Log what is left; the W&B run stays open."""
        row, self._row = self._row, {}
        if row:
            self._run.log(row)
