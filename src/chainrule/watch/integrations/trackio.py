"""A sink for Trackio."""

from typing import Any

from chainrule.watch.records import Alarm, Record, RunFacts
from chainrule.watch.sinks import describe_alarm, read_metrics


class TrackioSink:
    """Sends a run to Trackio: `sinks=[TrackioSink(trackio.init(project="digits"))]`.

    Example:
        >>> TrackioSink.__name__
        'TrackioSink'
    """

    def __init__(self, run: Any) -> None:
        """Take what `trackio.init` returned; it stays open."""
        self._run = run

    def __call__(self, record: Record, facts: RunFacts) -> None:
        """Log a record."""
        if isinstance(record, Alarm):
            self._run.alert(record.kind, describe_alarm(record), step=record.step)
        else:
            self._run.log(read_metrics(record, facts), step=record.step)
