"""A sink for TensorBoard."""

import os
from typing import Any

from chainrule.watch.integrations.packages import load
from chainrule.watch.records import Alarm, Record, RunFacts
from chainrule.watch.sinks import describe_alarm, read_metrics


class TensorBoardSink:
    """Sends a run to TensorBoard: `watch(model, optimizer, sinks=[TensorBoardSink("logs")])`.

    Example:
        >>> TensorBoardSink("logs").folder
        'logs'
    """

    def __init__(self, writer: Any) -> None:
        """Take a folder, or a `torch.utils.tensorboard.SummaryWriter`, which stays open."""
        self.folder = os.fspath(writer) if isinstance(writer, (str, os.PathLike)) else None
        self._writer = None if self.folder is not None else writer

    def __call__(self, record: Record, facts: RunFacts) -> None:
        """Write a record."""
        if self._writer is None:
            module = load("torch.utils.tensorboard", package="tensorboard")
            self._writer = module.SummaryWriter(self.folder)
        if isinstance(record, Alarm):
            name = f"chainrule/alarms/{record.rule}"
            self._writer.add_text(name, describe_alarm(record), record.step)
        for name, value in read_metrics(record, facts).items():
            self._writer.add_scalar(name, value, record.step, new_style=True)

    def close(self) -> None:
        """Write what is left; close the file if it was opened here."""
        if self._writer is not None:
            self._writer.flush() if self.folder is None else self._writer.close()
