"""What is kept and said of a run: its last records in memory, its file, its alarms."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from chainrule.errors import RunFileError, TrainingStopped, WatchError, abbreviate
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.watch.history import SAMPLES, WINDOW, History
from chainrule.watch.notices import Notices
from chainrule.watch.reading import RunReader
from chainrule.watch.records import Alarm, Evidence, Record, RunFacts, Sample, StepRecord
from chainrule.watch.replay import KeptStep
from chainrule.watch.rules import find_alarms
from chainrule.watch.sinks import Sink
from chainrule.watch.store import RunWriter

KEPT_STEPS, KEPT_SAMPLES = 10_000, 200
"""How many of the last steps and samples stay in memory."""

NON_FINITE = "non_finite"
"""The rule about infinite and undefined numbers; also what `skip_step_on` may hold."""


class Ledger:
    """The records and alarms of one run, in memory and in its file.

    Args:
        facts: What is known before the first step.
        notices: Says what fails.
        path: The run's file; `None` to keep the run in memory alone.
        resume: Whether to go on with a file that is there, or the step to go on after.
        is_first: Whether this process judges and writes; of several, one does.
        on_alarm: Called with every alarm.
        raise_on: Names of rules, or kinds of alarms, that end the training.
        sinks: Functions that get every record and the run's facts.

    Attributes:
        steps: The last steps.
        samples: The last samples.
        alarms: All alarms.
        history: What the rules see of the run; `None` in a process that does not judge.
        last_step: The step after which the run goes on.
        last_seconds: The time that had passed by then.
    """

    def __init__(
        self,
        facts: RunFacts,
        notices: Notices,
        *,
        path: Path | None,
        resume: bool | int,
        is_first: bool,
        on_alarm: Callable[[Alarm], object] | None,
        raise_on: frozenset[str],
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self._notices = notices
        self._path = path
        self._on_alarm = on_alarm
        self._raise_on = raise_on
        self._facts = facts
        self._owner = os.getpid()
        self._sinks = sinks if is_first else ()
        self.steps: deque[StepRecord] = deque(maxlen=KEPT_STEPS)
        self.samples: deque[Sample] = deque(maxlen=KEPT_SAMPLES)
        self.alarms: list[Alarm] = []
        self.last_step, self.last_seconds = 0, 0.0
        self.history = History(facts) if is_first else None
        self._writer: RunWriter | None = None
        if path is not None and is_first:
            self._writer = self._open(path, facts, resume)
            if self._writer is not None:
                with self.closing_on_error():
                    self._go_on(self._writer, resume)

    @property
    def wants_sample(self) -> bool:
        """Whether the last step was so unusual that the next one is to be sampled."""
        return self.history is not None and self.history.wants_sample

    def keep(self, record: StepRecord | Sample, *, is_judged: bool = True) -> None:
        """Keep a record, and give it to the file, the sinks and the rules.

        It may be called again with a record of the same step: where Ctrl-C came while the first
        one was kept.

        Args:
            record: What to keep.
            is_judged: Whether the rules see it; not so where measuring it failed.
        """
        kept: deque[Any] = self.samples if isinstance(record, Sample) else self.steps
        is_new = not kept or kept[-1].step < record.step
        if is_new:
            kept.append(record)
        writer = self._writer
        if writer is not None and not writer.has(record):
            self._write(record)
        if not is_new:
            return
        self._send(record)
        if self.history is not None and is_judged:
            with self._notices.guard("giving a record to the rules"):
                self.history.add(record)

    def judge(self, kept: KeptStep | None) -> Sequence[Alarm]:
        """Find new alarms, keep them, and tell whoever wants to know.

        Args:
            kept: The step that was run again, whose origin is evidence.
        """
        if self.history is None:
            return ()
        alarms = [_add_evidence(alarm, kept) for alarm in find_alarms(self.history, self._raise_on)]
        for alarm in alarms:
            self.alarms.append(alarm)
            self._write(alarm)
            self._send(alarm)
        for alarm in alarms:  # when all are kept: `on_alarm` may end the process
            if self._on_alarm is not None:
                try:
                    self._on_alarm(alarm)
                except Exception as error:
                    self._notices.report("calling on_alarm", error)
        return alarms

    def stop_at(self, alarms: Sequence[Alarm]) -> None:
        """End the training if the user asked for that at one of these alarms.

        Raises:
            TrainingStopped: If so.
        """
        for alarm in alarms:
            if self._raise_on & {alarm.rule, alarm.kind}:
                if self._writer is not None:
                    self._writer.flush()
                raise TrainingStopped(
                    f"Step {alarm.step}: {alarm.summary} {alarm.cause} {alarm.action} (The run was "
                    f"told to stop at {alarm.rule!r}.)"
                )

    @contextmanager
    def closing_on_error(self) -> Iterator[None]:
        """Release the file if an error comes out of what is done in here."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def describe(self) -> str:
        """Return in a few words how far the run is: its steps, its alarms, its file."""
        step = self.steps[-1].step if self.steps else self.last_step
        parts = [_count(step, "step"), _count(len(self.alarms), "alarm")]
        if self._path is not None:
            parts.append(f"store={self._path}")
        return ", ".join(parts)

    def find_flow(self, step: int) -> GradientFlow:
        """Return the whole measurement of a step.

        Raises:
            WatchError: If there is none of that step.
        """
        steps = []
        for sample in self.samples:
            if sample.flow is not None:
                if sample.step == step:
                    return sample.flow
                steps.append(sample.step)
        if self._path is not None and self._path.exists():
            if self._writer is not None:
                self._writer.flush()
            reader = RunReader(self._path)
            if step in reader.flow_steps():
                return reader.flow(step)
            steps = list(reader.flow_steps())
        known = ", ".join(map(str, steps[-20:])) or "none so far"
        raise WatchError(
            f"A flow is there for some sampled steps only ({known}); got {abbreviate(step)}."
        )

    def close(self, ending: str = "") -> None:
        """Close the file and the sinks.

        Args:
            ending: What stopped the run before its end; "" if nothing did.
        """
        try:
            self._close_writer(ending)
        finally:
            self._close_sinks()

    def wait(self) -> None:
        """Wait for a file that is being closed: Ctrl-C may have ended the wait before."""
        writer = self._writer
        if writer is not None and writer.is_closed:
            self._close_writer()

    def _close_sinks(self) -> None:
        sinks, self._sinks = self._sinks, ()
        for at, sink in enumerate(sinks if os.getpid() == self._owner else ()):
            close = getattr(sink, "close", None)
            if callable(close):
                try:
                    close()
                except Exception as error:
                    self._notices.report(f"closing sinks[{at}]", error)

    def _close_writer(self, ending: str = "") -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            writer.close(ending)
        except Exception as error:
            self._notices.report("closing the file", error)
        if writer.failure:
            self._notices.say("store", writer.failure)
        self._writer = None

    def _open(self, path: Path, facts: RunFacts, resume: bool | int) -> RunWriter | None:
        """Open the file; where the disk does not let it be made, training goes on without.

        Raises:
            RunFileError: If there is a file that cannot be gone on with.
        """
        try:
            return RunWriter.open(path, facts, resume=resume is not False, warns=False)
        except RunFileError as error:
            if path.exists():
                raise
            self._notices.say("store", f"{error} This run is not recorded; training goes on.")
            return None

    def _go_on(self, writer: RunWriter, resume: bool | int) -> None:
        """Take up a run where its file, or the checkpoint, ends."""
        last = writer.last_step if resume is True else resume
        if not writer.last_step or not last:
            return
        self.last_step, self.last_seconds = last, writer.last_seconds
        reader = RunReader(writer.path)
        records: list[StepRecord | Sample] = [
            *reader.steps(after=max(0, last - WINDOW)),
            *reader.samples()[-SAMPLES:],
        ]
        assert self.history is not None
        for record in sorted(records, key=lambda each: each.step):
            if record.step <= last:
                self.history.add(record)
        find_alarms(self.history)  # they were said
        if NON_FINITE in self._raise_on:  # it looks at the newest step alone
            self.history.troubles.pop(NON_FINITE, None)
        self.alarms += [alarm for alarm in reader.alarms() if alarm.step <= last]

    def _send(self, record: Record) -> None:
        """Give a record to the sinks, which are the parent's in a forked child."""
        if os.getpid() != self._owner:
            return
        for at, sink in enumerate(self._sinks):
            try:
                sink(record, self._facts)
            except Exception as error:
                self._notices.report(f"giving a record to sinks[{at}]", error)

    def _write(self, record: Record) -> None:
        writer = self._writer
        if writer is None:
            return
        if writer.failure:
            self._close_writer()
            return
        try:
            writer.write(record)
        except Exception as error:
            self._notices.report("writing the run's file", error)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _add_evidence(alarm: Alarm, kept: KeptStep | None) -> Alarm:
    """Add what running the step again has shown to an alarm about such numbers."""
    if alarm.rule != NON_FINITE or kept is None or kept.origin is None:
        return alarm
    origin = kept.origin
    value = float(origin.elements[0].value) if origin.elements else math.nan
    evidence = Evidence(name=f"origin: {origin.sentence}", value=value, step=kept.step)
    inside = origin.source not in ("input", "constant")
    return replace(
        alarm,
        layer=alarm.layer or (origin.module or "" if inside else ""),
        cause=origin.cause,
        evidence=(*alarm.evidence, evidence),
    )
