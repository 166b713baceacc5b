"""`watch`: a training run is measured while it trains, and left exactly as it would have been.

Every optimizer step gives a `StepRecord`, every sampled one a `Sample` as well. Hooks of the
optimizers say when a step comes; the numbers of a step are read when the next one comes, so that
nothing waits for a device. Whatever fails in here is said once, and training goes on.
"""

import atexit
import logging
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from types import MethodType, TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from chainrule.errors import RunFileError, TrainingStopped, WatchError, abbreviate, suggest
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.measure.optimizers import read_optimizer
from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch._torch_internals import is_unscaled, read_scale
from chainrule.watch.calls import listen, unlisten
from chainrule.watch.flows import FlowRecorder
from chainrule.watch.gradients import (
    Lagged,
    Values,
    is_spread,
    measure_norms,
    sharded_norms,
    take_local,
)
from chainrule.watch.history import SAMPLES, WINDOW, History
from chainrule.watch.processes import (
    LocalFlags,
    find_processes,
    refuse_flat_shards,
)
from chainrule.watch.reading import RunReader
from chainrule.watch.records import (
    ABSENT,
    Alarm,
    Evidence,
    LayerSample,
    Record,
    RunFacts,
    Sample,
    StepRecord,
)
from chainrule.watch.replay import BatchKeeper, KeptStep
from chainrule.watch.rules import RULES, find_alarms
from chainrule.watch.sampling import NO_MODULE, LayerSampler, UpdateMeter, is_sampled
from chainrule.watch.sinks import Sink
from chainrule.watch.store import RunWriter
from chainrule.watch.subject import Watched, describe_run, find_watched

_LOG = logging.getLogger(__name__)

KEPT_STEPS, KEPT_SAMPLES = 10_000, 200
"""How many of the last steps and samples stay in memory."""

FLOW_EVERY = 20
"""Of so many samples, one is a whole measurement; so is the first, and the one after an alarm."""

SAMPLED_AFTER = 3
"""So many steps after an alarm are sampled."""

NON_FINITE = "non_finite"
"""What `skip_step_on` may hold."""


def watch(  # noqa: PLR0913  (settings, each with a sound default)
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    store: str | os.PathLike[str] | None = None,
    every: int = 50,
    on_alarm: Callable[[Alarm], object] | None = None,
    raise_on: Collection[str] = (),
    skip_step_on: Collection[str] = (),
    resume: bool | int = False,
    keep_batches: bool = False,
    sinks: Sequence[Sink] = (),
) -> "Run":
    """Watch a training run: measure it while it trains, and say in words when it goes wrong.

    The loop stays as it is; it trains bit for bit as without. At every optimizer step the norms of
    all gradients are measured as the optimizer uses them: accumulated, unscaled, averaged over
    processes. In sampled steps, also what modules put out, what comes back to them, and by how
    much the weights move; in some of these the whole `GradientFlow`. Numbers of a step are read
    when the next one comes, so no device is waited for. What fails in here is said once in the
    log, and training goes on.

    On several processes call it in each of them, with the same arguments. Rank 0 writes.

    Args:
        model: The model that trains; also one that is compiled, or spread by
            DistributedDataParallel or `fully_shard`.
        optimizer: Its optimizer, or several. A step of the run ends when one of them steps again.
        store: File to keep the run in; without one, the last steps and samples stay in memory.
        every: A sample is taken each so many steps, more often in the first 100 and after alarms.
        on_alarm: Called with every alarm. What it raises is said in the log.
        raise_on: Names of rules, or kinds of alarms, at which to raise `TrainingStopped`.
        skip_step_on: ("non_finite",) to leave out the optimizer's step, in all processes, when a
            gradient is infinite or undefined in one. The device is then waited for at each step.
        resume: Go on with the file at `store`, if it exists: after its last step, or, where the
            loop goes on from an older checkpoint, after the step that is given.
        keep_batches: Keep the inputs of the last forward pass, and when a gradient is not finite,
            run the step again on a copy to find the operation that began it. The device is then
            waited for at each step.
        sinks: Functions of a record (`StepRecord`, `Sample` or `Alarm`) and the run's facts, called
            with each record once it is complete, on rank 0. If one has a method `close`, the end of
            the run calls it. What a sink raises is said once in the log. Ready ones are in
            `chainrule.watch.integrations`.

    Returns:
        The run, to be used with `with`, or to be closed by `close()`.

    Raises:
        WatchError: If there is nothing to watch, or an argument cannot be.
        RunFileError: If the file at `store` is there already (without `resume`), belongs to
            another model, is damaged, or is being written by another run.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with watch(model, optimizer) as run:
        ...     loss = model(torch.ones(1, 2)).square().sum()
        ...     loss.backward()
        ...     optimizer.step()
        ...     run.log(loss=loss)
        >>> len(run.steps)
        1
    """
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise WatchError(f"every must be a whole number of at least 1; got {abbreviate(every)}.")
    if on_alarm is not None and not callable(on_alarm):
        raise WatchError(f"on_alarm must be a function of an alarm; got {type(on_alarm).__name__}.")
    unknown = [each for each in _list_names(skip_step_on) if each != NON_FINITE]
    if unknown:
        raise WatchError(
            f"skip_step_on may hold {NON_FINITE!r} only; got {abbreviate(unknown[0])}."
        )
    for name in _list_names(raise_on):
        if name not in {known for rule in RULES for known in (rule.name, rule.kind)}:
            raise WatchError(
                f"raise_on takes names of rules, or their kinds; got {abbreviate(name)}. "
                f"{suggest(str(name), [rule.name for rule in RULES])}"
            )
    outlets = (sinks,) if callable(sinks) else tuple(sinks)
    for at, sink in enumerate(outlets):
        if not callable(sink):
            raise WatchError(
                "sinks must be functions of a record and the run's facts; sinks"
                f"[{at}] is {abbreviate(sink)}. See chainrule.watch.integrations for ready ones."
            )
    if resume is not False and store is None:
        raise WatchError("resume needs the file to go on with. Give it as store.")
    refuse_flat_shards(model) if isinstance(model, nn.Module) else None
    watched = find_watched(model, optimizer)
    return Run(
        watched,
        store=None if store is None else Path(store),
        every=every,
        on_alarm=on_alarm,
        raise_on=frozenset(_list_names(raise_on)),
        skips=bool(_list_names(skip_step_on)),
        resume=resume,
        keep_batches=keep_batches,
        sinks=outlets,
    )


def _list_names(given: Collection[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


@dataclass(slots=True, eq=False)
class _Step:
    """A step that is not over yet; its numbers may still be on the device."""

    number: int
    seconds: float
    is_sampled: bool
    is_measured: bool = False
    norms: list[tuple[Any, Lagged, Lagged | None]] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)
    rates: tuple[float, ...] = ()
    scale: Lagged | float | None = None
    skipped: str = ""
    found_bad: Lagged | None = None
    clips: list[tuple[list[int], Lagged]] = field(default_factory=list)
    clip_scale: bool = False
    arrived: Lagged | None = None
    local: Lagged | None = None
    logs: list[Mapping[str, Lagged | float]] = field(default_factory=list)
    meters: list[UpdateMeter] = field(default_factory=list)
    layers: Callable[[], tuple[LayerSample, ...]] | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)
    flow: GradientFlow | None = None
    loss: list[float] = field(default_factory=list)


class Run:
    """A training run that is watched. `watch` makes it.

    Attributes:
        facts: What was known before the first step.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> run = watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> run.close()
        >>> run.alarms
        ()
    """

    def __init__(  # noqa: PLR0913, PLR0915  (one object that knows the state of the run)
        self,
        watched: Watched,
        *,
        store: Path | None,
        every: int,
        on_alarm: Callable[[Alarm], object] | None,
        raise_on: frozenset[str],
        skips: bool,
        resume: bool | int,
        keep_batches: bool,
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self._watched = watched
        self._processes = processes = find_processes()
        self._every = every
        self._on_alarm = on_alarm
        self._raise_on = raise_on
        self._skips = skips
        self._sinks = sinks if processes.rank == 0 else ()
        self._said: set[str] = set()
        self._closed = False
        self._steps: deque[StepRecord] = deque(maxlen=KEPT_STEPS)
        self._samples: deque[Sample] = deque(maxlen=KEPT_SAMPLES)
        self._alarms: list[Alarm] = []
        self._number = 0
        self._start = time.perf_counter()
        self._current: _Step | None = None
        self._early_logs: list[Mapping[str, Lagged | float]] = []
        self._logs_early: bool | None = None
        self._clips: list[tuple[list[int], Lagged]] = []
        self._scaling: dict[int, tuple[Tensor | float, bool]] = {}
        self._last_scale: Tensor | float | None = None
        self._arrived: Lagged | None = None
        self._wanted = 0
        self._flow_wanted = self._flow_asked = False
        self._samples_taken = 0
        self._extra = 0
        self._waits = self._compares = True
        self._frozen: Values | None = None
        self.facts: RunFacts = describe_run(
            watched,
            name="run" if store is None else store.stem,
            every=every,
            world_size=processes.size,
        )
        self._is_spread = any(is_spread(tensor) for tensor in watched.parameters)
        if self._is_spread or skips:
            processes.wait_for_all()
        self._history = History(self.facts) if processes.rank == 0 else None
        self._writer: RunWriter | None = None
        self._path = store
        if store is not None and processes.rank == 0:
            self._writer = _open_writer(store, self.facts, resume)
            if self._writer is not None:
                self._go_on(self._writer, resume)
        self._kept: KeptStep | None = None
        self._keeper = (
            BatchKeeper(watched.model, self._reporter("keeping batches")) if keep_batches else None
        )
        self._was_finite = True
        self._sampler = LayerSampler(
            watched.inventory,
            self._reporter("sampling modules"),
            is_compiled=watched.is_compiled,
        )
        self._flows = FlowRecorder(watched.inventory, self._reporter("recording a flow"))
        self._locals = LocalFlags(watched.model, watched.parameters) if processes.size > 1 else None
        self._read_ownership()
        self._handles: list[Any] = []
        self._restore: list[Callable[[], None]] = []
        for optimizer in watched.optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(optimizer.register_step_post_hook(self._after_step))
            if skips:
                self._restore.append(_guard_step(optimizer, self._decide_skip))
        listen(self)
        self._at_exit = _make_exit(self)
        atexit.register(self._at_exit)
        self._prepare_next()

    # --- For the user -----------------------------------------------------------------------------

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms so far, each trouble once."""
        return tuple(self._alarms)

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The last steps (up to 10,000); the one that is going on is not among them."""
        return tuple(self._steps)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The last samples (up to 200)."""
        return tuple(self._samples)

    @property
    def kept(self) -> KeptStep | None:
        """The step that `keep_batches` kept: the last one in which a gradient became not finite."""
        return self._kept

    def log(self, **scalars: Any) -> None:
        """Note numbers of a step, above all `loss`.

        What is logged after an optimizer's step belongs to that step. Where the first call comes
        before the first step, calls belong to the step that follows. Several numbers of one name
        in one step are averaged.

        Args:
            **scalars: Numbers, or tensors of one number, which are read a step later.

        Raises:
            WatchError: If something is not one number.

        Example:
            >>> model = nn.Linear(2, 1)
            >>> with watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as run:
            ...     run.log(loss=1.0)
        """
        found: dict[str, Lagged | float] = {}
        for name, value in scalars.items():
            if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
                detached = take_local(value.detach())
                is_cheap = is_cheap_to_read(detached.device)
                found[name] = float(detached) if is_cheap else Lagged(detached)
            elif isinstance(value, (int, float, np.integer, np.floating)):
                found[name] = float(value)
            else:
                raise WatchError(
                    f"log takes numbers and tensors of one number; {name} is "
                    f"{_describe_value(value)}. Reduce it first, for example by .mean()."
                )
        if self._closed or not found:
            return
        if self._logs_early is None:
            self._logs_early = self._current is None
        if self._logs_early or self._current is None:
            self._early_logs.append(found)
        else:
            self._current.logs.append(found)

    def flow(self, step: int) -> GradientFlow:
        """Return the whole measurement of a sampled step.

        Args:
            step: One of those that have a flow: the first, every 20th sample, and the sample
                after an alarm.

        Raises:
            WatchError: If there is none of that step.

        Example:
            >>> model = nn.Linear(2, 1)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with watch(model, optimizer) as run:
            ...     model(torch.ones(1, 2)).sum().backward()
            ...     optimizer.step()
            >>> run.flow(1).layers[0].kind
            'Linear'
        """
        steps = []
        for sample in self._samples:
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

    def close(self) -> None:
        """End the run: read what is left, and take all hooks off."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        for handle in self._handles:
            handle.remove()
        for undo in self._restore:
            undo()
        unlisten(self)
        self._sampler.detach()
        self._flows.release()
        if self._locals is not None:
            self._locals.remove()
        if self._keeper is not None:
            self._keeper.remove()
        current, self._current = self._current, None
        try:
            if current is None and not self._number:
                self._say(
                    "no step",
                    "The run saw no step of its optimizers. Was the model trained by another one?",
                )
            if current is not None and current.is_measured:  # no error came out of its closure
                self._conclude(current, is_last=True)
        except TrainingStopped:
            pass  # it ends anyway; the alarm is in `alarms`
        except Exception as error:
            self._report("ending the run", error)
        finally:
            self._close_writer()
            self._close_sinks()

    def _close_sinks(self) -> None:
        for at, sink in enumerate(self._sinks):
            close = getattr(sink, "close", None)
            if callable(close):
                try:
                    close()
                except Exception as error:
                    self._report(f"closing sinks[{at}]", error)

    def _close_writer(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except Exception as error:
            self._report("closing the file", error)
        if self._writer.failure:
            self._say("store", self._writer.failure)
        self._writer = None

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run, also after an error or Ctrl-C."""
        self.close()

    # --- What may go wrong ------------------------------------------------------------------------

    def _say(self, subject: str, message: str) -> None:
        """Tell the user once."""
        if subject not in self._said:
            self._said.add(subject)
            _LOG.warning("chainrule.watch: %s", message)

    def _go_on(self, writer: RunWriter, resume: bool | int) -> None:
        """Take up a run where its file, or the checkpoint, ends."""
        last = writer.last_step if resume is True else int(resume)
        if not writer.last_step or not last:
            return
        self._number = last
        self._start -= writer.last_seconds
        reader = RunReader(writer.path)
        records: list[StepRecord | Sample] = [
            *reader.steps(after=max(0, last - WINDOW)),
            *reader.samples()[-SAMPLES:],
        ]
        assert self._history is not None
        for record in sorted(records, key=lambda each: each.step):
            if record.step <= last:
                self._history.add(record)
        find_alarms(self._history)  # they were said
        self._alarms += [alarm for alarm in reader.alarms() if alarm.step <= last]

    def _report(self, doing: str, error: Exception) -> None:
        self._say(
            doing,
            f"While {doing}, {type(error).__name__} was raised: {error}. Training goes on; this is "
            "said once.",
        )

    def _reporter(self, doing: str) -> Callable[[Exception], None]:
        run = weakref.ref(self)

        def report(error: Exception) -> None:
            found = run()
            if found is not None:
                found._report(doing, error)

        return report

    # --- Hooks ------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:
            step = self._enter(optimizer)
            if not _has_closure(args, kwargs):
                self._measure(step, optimizer)
            if step.is_sampled:
                self._weigh(step, optimizer)
        except TrainingStopped:
            raise
        except Exception as error:
            self._report("measuring a step", error)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        try:
            step = self._current
            if step is None or id(optimizer) not in step.stepped:
                return
            if step.meters:
                step.meters[-1].finish()
            if _has_closure(args, kwargs):
                self._measure(step, optimizer)
            if len(step.stepped) == len(self._watched.optimizers):
                self._prepare_next()
        except Exception as error:
            self._report("measuring a step", error)

    def enter_scaler(self, scaler: Any, optimizer: torch.optim.Optimizer) -> None:
        """Note the scale before a gradient scaler steps one of the optimizers, or does not."""
        if id(optimizer) in self._held:
            try:
                scale = self._last_scale = read_scale(scaler)
                self._scaling[id(optimizer)] = scale, is_unscaled(scaler, optimizer)
            except Exception as error:
                self._report("reading a gradient scaler", error)

    def leave_scaler(self, optimizer: torch.optim.Optimizer) -> None:
        """Note a step that the gradient scaler left out."""
        if id(optimizer) in self._scaling:
            self._skip(optimizer, "gradient scaler")

    def note_clipping(self, parameters: Sequence[Tensor], total_norm: Tensor) -> None:
        """Note the norm of gradients that are about to be clipped."""
        try:
            positions = self._watched.positions
            found = [positions[id(each)] for each in parameters if id(each) in positions]
            if found:
                total: Any = total_norm.detach()
                total = total.full_tensor() if is_spread(total) else total
                self._clips.append((found, Lagged(total.reshape(1))))
        except Exception as error:
            self._report("seeing gradients clipped", error)

    # --- A step -----------------------------------------------------------------------------------

    def _enter(self, optimizer: torch.optim.Optimizer) -> _Step:
        """Return the step that an optimizer takes part in; a new one if it was in the last."""
        step = self._current
        if step is None or id(optimizer) in step.stepped:
            self._current = None
            if step is not None:
                self._conclude(step)
            self._number += 1
            step = self._current = _Step(
                self._number,
                time.perf_counter() - self._start,
                self._number == self._wanted,
            )
            step.logs, self._early_logs = self._early_logs, []
        step.stepped.add(id(optimizer))
        return step

    def _skip(self, optimizer: torch.optim.Optimizer, why: str) -> None:
        """Record a step that the optimizer did not take."""
        try:
            step = self._enter(optimizer)
            step.skipped = why
            self._measure(step, optimizer)
            if len(step.stepped) == len(self._watched.optimizers):
                self._prepare_next()
        except TrainingStopped:
            raise
        except Exception as error:
            self._report("recording a step that was skipped", error)

    def _measure(self, step: _Step, optimizer: torch.optim.Optimizer) -> None:
        """Measure the gradients as the optimizer uses them."""
        step.is_measured = True
        own = grad_scale = getattr(optimizer, "grad_scale", None)
        scaling = self._scaling.get(id(optimizer))
        if scaling is not None or grad_scale is not None:
            scale = scaling[0] if scaling is not None else grad_scale
            step.scale = Lagged(scale) if isinstance(scale, Tensor) else scale
            step.clip_scale = grad_scale is not None or not (scaling is None or scaling[1])
            found_inf = getattr(optimizer, "found_inf", None)
            if isinstance(found_inf, Tensor):
                step.found_bad = Lagged(found_inf)
            self._scaling.pop(id(optimizer), None)
        step.rates = tuple(rate for each in self._watched.optimizers for rate in _read_rates(each))
        if sum(len(group["params"]) for group in optimizer.param_groups) != self._counts.get(
            id(optimizer)
        ):
            self._read_ownership()
        is_first = not step.norms
        try:
            for part in self._parts[id(optimizer), is_first]:
                self._measure_part(step, part, own)
        except RuntimeError:  # parameters have moved to another device
            self._read_ownership()
            step.norms = [] if is_first else step.norms
            for part in self._parts[id(optimizer), is_first]:
                self._measure_part(step, part, own)
        if self._clips:
            step.clips += self._clips
            self._clips = []
        step.arrived, self._arrived = self._arrived, None
        if self._locals is not None and (local := self._locals.take()) is not None:
            step.local = local
            if is_cheap_to_read(self._watched.parameters[0].device) and not np.isfinite(
                local.read()[0]
            ):
                self._processes.mark_bad(step.number)
        if step.is_sampled:
            self._take_layers(step, optimizer, own)
        if self._keeper is not None:
            self._look_into(step, own)

    def _look_into(self, step: _Step, grad_scale: Tensor | None) -> None:
        """Run a step again whose gradients have just become not finite, before it is taken."""
        assert self._keeper is not None
        is_finite = all(np.isfinite(lagged.read()).all() for _, lagged, _ in step.norms)
        under_scaler = step.skipped or grad_scale is not None  # which tries too large a scale
        try:
            if not is_finite and self._was_finite and not under_scaler:
                self._kept = self._keeper.look(step.number, self._watched.optimizers)
        except Exception as error:
            self._report("running a step again", error)
        self._was_finite = is_finite
        if len(step.stepped) == len(self._watched.optimizers):
            self._keeper.end_step()

    def _measure_part(self, step: _Step, part: "_Part", grad_scale: Tensor | None) -> None:
        positions: Any = part.places
        gradients: list[Any] = [parameter.grad for parameter in part.parameters]
        with torch.no_grad():
            try:
                norms = self._compute_norms(gradients, part)
            except (TypeError, AttributeError):  # some have no gradient
                found = [at for at, each in enumerate(gradients) if each is not None]
                if not found:
                    return
                positions = positions[found]
                norms = self._compute_norms([gradients[at] for at in found], part)
            factor = Lagged(grad_scale) if isinstance(grad_scale, Tensor) else None
            step.norms.append((positions, Lagged(norms, is_fresh=True), factor))

    def _compute_norms(self, gradients: Sequence[Tensor], part: "_Part") -> Tensor:
        if self._is_spread:
            return sharded_norms(gradients)
        return measure_norms(gradients, is_plain=part.is_plain)

    def _take_layers(
        self, step: _Step, optimizer: torch.optim.Optimizer, grad_scale: Tensor | None
    ) -> None:
        """Summarize what modules put out; with several optimizers that waits for the last."""
        is_single = len(self._watched.optimizers) == 1
        if is_single:
            step.layers = self._sampler.take(self._read_scale_now(step))
            self._sampler.detach()
        if self._flow_wanted:
            step.gradients |= self._copy_gradients(
                optimizer, grad_scale, step, copies=not is_single
            )
            if is_single:
                self._take_flow(step)

    def _read_scale_now(self, step: _Step) -> float:
        if step.scale is None:
            return 1.0
        return float(step.scale.read()[0]) if isinstance(step.scale, Lagged) else step.scale

    def _copy_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        grad_scale: Tensor | None,
        step: _Step,
        *,
        copies: bool,
    ) -> dict[int, Tensor]:
        """Return the gradients that an optimizer uses, by position; others if nobody holds them."""
        found: dict[int, Tensor] = {}
        for part in self._parts[id(optimizer), not step.gradients]:
            for at in part.positions:
                gradient = self._watched.parameters[at].grad
                if gradient is not None:
                    if grad_scale is not None:
                        gradient = gradient / grad_scale
                    found[at] = gradient.clone() if copies else gradient
        return found

    def _take_flow(self, step: _Step, *, only_finished: bool = False) -> None:
        gradients, step.gradients = step.gradients, {}
        watched, loss = self._watched, step.loss

        def read_loss() -> float:
            return loss[0] if loss else math.nan

        def describe_optimizer() -> OptimizerFlow | None:
            if len(watched.optimizers) > 1:
                return None
            return read_optimizer(watched.optimizers[0], watched.inventory)

        step.flow = self._flows.take(
            gradients,
            self._read_scale_now(step),
            describe_optimizer,
            read_loss,
            only_finished=only_finished,
        )

    def _weigh(self, step: _Step, optimizer: torch.optim.Optimizer) -> None:
        """Copy the weights that may move, to see by how much they do."""
        trained = [
            at
            for part in self._parts[id(optimizer), not step.meters]
            for at in part.positions
            if self._watched.parameters[at].requires_grad
        ]
        with torch.no_grad():
            step.meters.append(
                UpdateMeter(trained, [self._watched.parameters[at] for at in trained])
            )

    def _prepare_next(self) -> None:
        """Attach what listens to the modules, if the next step is sampled."""
        number = self._number + 1
        if self._wanted == number or not (is_sampled(number, self._every) or self._extra):
            return
        self._extra = max(0, self._extra - 1)
        self._wanted = number
        if not self._ids_hold():
            self._read_ownership()
        is_single = len(self._watched.optimizers) == 1
        compares = is_single and not self._is_spread
        self._sampler.attach(self._note_arrived if compares else None)
        self._flow_wanted = not (self._is_spread or self._sampler.missing) and (
            self._samples_taken % FLOW_EVERY == 0 or self._flow_asked
        )
        self._flow_asked = False
        if self._flow_wanted:
            self._flows.attach()
        self._samples_taken += 1

    def _note_arrived(self) -> None:
        """After a backward pass of a sampled step: measure gradients before they are clipped."""
        try:
            (optimizer,) = self._watched.optimizers
            parameters = self._watched.parameters
            gradients = [
                gradient
                for at in self._held[id(optimizer)]
                if (gradient := parameters[at].grad) is not None
            ]
            if gradients:
                with torch.no_grad():
                    total = torch.linalg.vector_norm(measure_norms(gradients))
                    self._arrived = Lagged(total.reshape(1))
        except Exception as error:
            self._report("comparing gradients before and after clipping", error)

    def _ids_hold(self) -> bool:
        """Whether the optimizers still hold the parameters that they did."""
        return all(
            self._watched.list_held(optimizer) == self._held[id(optimizer)]
            for optimizer in self._watched.optimizers
        )

    def _read_ownership(self) -> None:
        """Find out which optimizer holds which parameters, and on which devices they are."""
        watched = self._watched
        self._held = {id(each): watched.list_held(each) for each in watched.optimizers}
        self._counts = {
            id(each): sum(len(group["params"]) for group in each.param_groups)
            for each in watched.optimizers
        }
        held = {at for positions in self._held.values() for at in positions}
        loose = [at for at in range(len(watched.parameters)) if at not in held]
        self._parts = {
            (key, is_first): _split_by_device(
                [*positions, *(loose if is_first else ())], watched.parameters
            )
            for key, positions in self._held.items()
            for is_first in (True, False)
        }
        unknown = sum(watched.count_unknown(each) for each in watched.optimizers)
        if unknown and held:
            self._say(
                "unknown parameters",
                f"{unknown} parameter{'' if unknown == 1 else 's'} of the optimizer are not among "
                "those that the model had when the run began. They train, but are not measured; "
                "start a new run to have them measured.",
            )

    # --- The end of a step ------------------------------------------------------------------------

    def _conclude(self, step: _Step, *, is_last: bool = False) -> None:
        """Read the numbers of a step, and keep them."""
        if step.is_sampled and len(self._watched.optimizers) > 1:
            step.layers = self._sampler.take(self._read_scale_now(step), only_finished=not is_last)
            if self._wanted == step.number:  # the next one is not sampled
                self._sampler.detach()
            if step.gradients:
                self._take_flow(step, only_finished=not is_last)
        record = self._make_record(step)
        if record.loss is not None:
            step.loss.append(record.loss)
            self._look_back(step, record.loss)
        self._steps.append(record)
        self._keep(record)
        if step.is_sampled:
            sample = self._make_sample(step)
            self._samples.append(sample)
            self._keep(sample)
        if self._history is not None:
            if self._history.wants_sample and not self._is_spread:
                self._extra = max(self._extra, 1)
            alarms = find_alarms(self._history)
            if alarms:
                self._raise_alarms(alarms)

    def _look_back(self, step: _Step, loss: float) -> None:
        """Run a step again whose loss is not finite though its gradients are."""
        if self._keeper is None or math.isfinite(loss) or not self._was_finite:
            return
        try:
            self._was_finite = False
            self._kept = self._keeper.look(step.number, self._watched.optimizers, before=True)
        except Exception as error:
            self._report("running a step again", error)

    def _keep(self, record: StepRecord | Sample) -> None:
        """Give a record to the rules and to the file."""
        if self._history is not None:
            self._history.add(record)
        self._write(record)
        self._send(record)

    def _send(self, record: Record) -> None:
        """Give a record to the sinks."""
        for at, sink in enumerate(self._sinks):
            try:
                sink(record, self.facts)
            except Exception as error:
                self._report(f"giving a record to sinks[{at}]", error)

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
            self._report("writing the run's file", error)

    def _raise_alarms(self, alarms: Sequence[Alarm]) -> None:
        """Keep new alarms, and tell whoever wants to know."""
        if (
            not self._is_spread
        ):  # there all processes sample the same steps, and rank 0 alone judges
            self._extra, self._flow_asked = SAMPLED_AFTER, True
        found = [self._add_evidence(alarm) for alarm in alarms]
        for alarm in found:
            self._alarms.append(alarm)
            self._write(alarm)
            self._send(alarm)
            if self._on_alarm is not None:
                try:
                    self._on_alarm(alarm)
                except Exception as error:
                    self._report("calling on_alarm", error)
        for alarm in found:
            if self._raise_on & {alarm.rule, alarm.kind}:
                if self._writer is not None:
                    self._writer.flush()
                raise TrainingStopped(
                    f"Step {alarm.step}: {alarm.summary} {alarm.cause} {alarm.action} (The run was "
                    f"told to stop at {alarm.rule!r}.)"
                )

    def _add_evidence(self, alarm: Alarm) -> Alarm:
        """Add what running the step again has shown to an alarm about such numbers."""
        kept = self._kept
        if alarm.rule != NON_FINITE or kept is None or kept.origin is None:
            return alarm
        origin = kept.origin
        value = float(origin.elements[0].value) if origin.elements else math.nan
        evidence = Evidence(name=f"origin: {origin.sentence}", value=value, step=kept.step)
        return replace(
            alarm,
            layer=alarm.layer or origin.module or "",
            cause=origin.cause,
            evidence=(*alarm.evidence, evidence),
        )

    def _make_record(self, step: _Step) -> StepRecord:
        norms = np.full(len(self._watched.parameters), ABSENT)
        squares = 0.0
        for positions, lagged, factor in step.norms:
            values = lagged.read()
            if factor is not None:
                values = values / factor.read()[0]
            norms[positions] = values
            squares += float(values @ values)
        total = math.sqrt(squares) if squares < math.inf else squares
        skipped = step.skipped
        if step.found_bad is not None and step.found_bad.read()[0] > 0:
            skipped = "gradient scaler"
        scale = step.scale.read()[0] if isinstance(step.scale, Lagged) else step.scale
        logged = _average_logs(step.logs)
        return StepRecord(
            step=step.number,
            seconds=step.seconds,
            grad_norms=norms,
            total_norm=total,
            clipped_from=self._find_clipping(step, norms, total, scale),
            loss=logged.pop("loss", None),
            scalars=logged,
            rates=step.rates,
            scale=None if scale is None else float(scale),
            skipped=skipped,
            bad_rank=self._find_bad_rank(step, total),
        )

    def _find_clipping(
        self, step: _Step, norms: Values, total: float, scale: float | None
    ) -> float | None:
        """Return the total norm before clipping, if there was any."""
        factor = 1.0 if scale is None else float(scale)
        if step.clips:
            seen: dict[int, float] = {}
            squares = 0.0
            for positions, before in step.clips:
                if not seen.keys() & set(positions):
                    squares += float(before.read()[0] / (factor if step.clip_scale else 1.0)) ** 2
                    seen.update(dict.fromkeys(positions, 0.0))
            rest = [at for at in range(len(norms)) if at not in seen and norms[at] > 0]
            before_all = math.sqrt(squares + float(norms[rest] @ norms[rest]))
        elif step.arrived is not None:
            before_all = float(step.arrived.read()[0]) / factor
        else:
            return None
        return before_all if before_all > total * (1 + _ROUNDING) else None

    def _find_bad_rank(self, step: _Step, total: float) -> int | None:
        if self._processes.size < 2:
            return None
        if step.local is not None and not np.isfinite(step.local.read()[0]):
            self._processes.mark_bad(step.number)
        if math.isfinite(total):
            return None
        found = self._processes.find_bad(step.number, wait=self._waits)
        self._waits = found is not None
        return found

    def _make_sample(self, step: _Step) -> Sample:
        count = len(self._watched.parameters)
        sizes, updates = np.full(count, ABSENT), np.full(count, ABSENT)
        for meter in step.meters:
            meter.write(sizes, updates)
        frozen = np.flatnonzero(sizes < 0)
        sizes[frozen] = self._measure_frozen()[frozen]
        layers: tuple[LayerSample, ...] = ()
        if step.layers is not None:
            layers = step.layers()
        return Sample(
            step=step.number,
            weight_norms=sizes,
            update_norms=updates,
            layers=layers,
            missing="" if layers else self._sampler.missing or NO_MODULE,
            flow=step.flow,
            replaced=tuple(
                name
                for name, parameter in self._watched.model.named_parameters()
                if id(parameter) not in self._watched.positions
            ),
            replica_spread=self._compare_replicas(step.number, sizes),
        )

    def _compare_replicas(self, number: int, sizes: Values) -> float | None:
        if self._processes.size < 2 or self._is_spread or not self._compares:
            return None
        spread = self._processes.compare(number, sizes)
        self._compares = spread is not None or self._processes.rank > 0
        return spread

    def _measure_frozen(self) -> Values:
        """Return ‖W‖ of parameters as it was when first asked: those that nobody moves."""
        if self._frozen is None:
            if self._is_spread and self._closed:  # the others may not get here
                return np.full(len(self._watched.parameters), ABSENT)
            with torch.no_grad():
                norms = sharded_norms(self._watched.parameters)
            self._frozen = Lagged(norms).read()
        return self._frozen

    # --- Steps that are left out ------------------------------------------------------------------

    def _decide_skip(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a step must be left out, because a gradient of some process is not finite."""
        try:
            parameters = self._watched.parameters
            gradients = [
                take_local(gradient)
                for group in optimizer.param_groups
                for each in group["params"]
                if (gradient := each.grad) is not None
            ]
            with torch.no_grad():
                bad = bool(gradients) and not all(
                    bool(torch.isfinite(measure_norms(part)).all())
                    for part in _split_tensors(gradients)
                )
            bad = self._processes.agree(bad, take_local(parameters[0]).device)
        except Exception as error:
            self._report("deciding whether to skip a step", error)
            return False
        if bad:
            self._skip(optimizer, "non-finite gradient")
        return bad


_ROUNDING = 1e-4


def _has_closure(args: Any, kwargs: Any) -> bool:
    return (args[1] if len(args) > 1 else kwargs.get("closure")) is not None


def _read_rates(optimizer: torch.optim.Optimizer) -> Iterable[float]:
    for group in optimizer.param_groups:
        rate = group.get("lr", math.nan)
        yield rate if type(rate) is float else float(rate)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Parameters on one device, whose norms are computed together.

    Attributes:
        positions: Where they are among those of the run.
        places: The same as an array.
        parameters: The parameters.
        is_plain: Whether they are all float32, or all float64.
    """

    positions: list[int]
    places: Any
    parameters: list[Tensor]
    is_plain: bool


def _split_by_device(positions: Iterable[int], parameters: Sequence[Tensor]) -> list[_Part]:
    found: dict[torch.device, list[int]] = {}
    for at in positions:
        found.setdefault(parameters[at].device, []).append(at)
    parts = []
    for places in found.values():
        own = [parameters[at] for at in places]
        dtypes = {each.dtype for each in own}
        is_plain = dtypes in ({torch.float32}, {torch.float64})
        parts.append(_Part(places, np.array(places), own, is_plain))
    return parts


def _split_tensors(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    found: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device, []).append(tensor)
    return list(found.values())


def _average_logs(logs: Sequence[Mapping[str, Lagged | float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for each in logs:
        for name, value in each.items():
            number = float(value.read()[0]) if isinstance(value, Lagged) else value
            found.setdefault(name, []).append(number)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _describe_value(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return abbreviate(value)


def _open_writer(path: Path, facts: RunFacts, resume: bool | int) -> RunWriter | None:
    """Open the file of a run; where the disk does not let it be made, training goes on without.

    Raises:
        RunFileError: If there is a file that cannot be gone on with.
    """
    resumes = resume is not False
    try:
        return RunWriter.open(path, facts, resume=resumes)
    except RunFileError as error:
        if path.exists():
            raise
        _LOG.warning("chainrule.watch: %s This run is not recorded; training goes on.", error)
        return None


def _make_exit(run: Run) -> Callable[[], None]:
    """Return what closes a run at the end of the process, without keeping it alive."""
    found = weakref.ref(run)

    def close() -> None:
        held = found()
        if held is not None:
            held.close()

    return close


def _guard_step(
    optimizer: torch.optim.Optimizer, must_skip: Callable[[torch.optim.Optimizer], bool]
) -> Callable[[], None]:
    """Have a function decide before each step whether the optimizer takes it.

    Returns:
        What undoes it.
    """
    original: Any = optimizer.step
    had_own = "step" in vars(optimizer)
    is_active = [True]

    @wraps(original)
    def step(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        if not is_active or isinstance(self, torch.optim.LBFGS):
            return original(*args, **kwargs)
        closure = args[0] if args else kwargs.get("closure")
        if closure is not None:  # it computes the gradients, which the optimizer would have it do
            with torch.enable_grad():
                loss = closure()
            if must_skip(self):
                return loss
            rest = {name: value for name, value in kwargs.items() if name != "closure"}
            return original(lambda: loss, *args[1:], **rest)
        return None if must_skip(self) else original(*args, **kwargs)

    bound = MethodType(step, optimizer)
    vars(optimizer)["step"] = bound

    def undo() -> None:
        is_active.clear()
        if vars(optimizer).get("step") is bound:
            if had_own:
                vars(optimizer)["step"] = original
            else:
                del vars(optimizer)["step"]

    return undo
