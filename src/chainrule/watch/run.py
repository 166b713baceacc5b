"""`Run`: what happens at each step of a training run that is watched.

Every optimizer step gives a `StepRecord`, every sampled one a `Sample` as well. Hooks of the
optimizers say when a step comes; the numbers of a step are read when the next one comes, so that
nothing waits for a device. Whatever fails in here is said once, and training goes on.
"""

import atexit
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from chainrule.errors import TrainingStopped
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.measure._torch_internals import is_unscaled, read_scale
from chainrule.measure.optimizers import read_optimizer
from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch.calls import listen, unlisten
from chainrule.watch.copies import CopySearch
from chainrule.watch.flows import FlowRecorder
from chainrule.watch.gradients import (
    Lagged,
    is_spread,
    measure_norms,
    take_local,
)
from chainrule.watch.inputs import InputKeeper
from chainrule.watch.ledger import Ledger
from chainrule.watch.leftovers import Leftovers, is_due
from chainrule.watch.measuring import look_at_units, measure_gradients, take_gradients
from chainrule.watch.notices import Notices
from chainrule.watch.ownership import Ownership
from chainrule.watch.parts import Nesting, has_closure, read_rates
from chainrule.watch.processes import LocalFlags, find_processes
from chainrule.watch.records import (
    BAD_GRADIENT,
    Alarm,
    RunFacts,
    Sample,
    StepRecord,
)
from chainrule.watch.remarks import find_remarks
from chainrule.watch.replay import BatchKeeper, KeptStep
from chainrule.watch.sampling import LayerSampler, UpdateMeter, is_sampled
from chainrule.watch.sinks import Sink
from chainrule.watch.skipping import guard_step, has_bad_gradient
from chainrule.watch.steps import (
    Step,
    describe_ending,
    make_exit,
    make_record,
    read_idle_units,
    read_scalars,
)
from chainrule.watch.subject import Watched, describe_run
from chainrule.watch.weight_sizes import WeightSizes

FLOW_EVERY = 20
"""Of so many samples, one is a whole measurement; so is the first, and the one after an alarm."""

SAMPLED_AFTER = 3
"""So many steps after an alarm are sampled."""

COMPARED, COMPARED_EVERY = 12, 5
"""Clipping by hand is looked for in so many first samples; until it is seen, then in each fifth."""

TURNS = 3
"""So many times must a loss have been seen to be trained in turns with another one."""

LOOK_EVERY = 8
"""In one of so many steps it is looked for units without a gradient, and for new parameters."""


class Run:
    """A training run that is watched. `watch` makes it.

    Attributes:
        facts: What was known before the first step.

    Example:
        >>> from torch import nn
        >>> from chainrule.watch.watching import watch
        >>> model = nn.Linear(2, 1)
        >>> run = watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> run.close()
        >>> run.alarms
        ()
    """

    def __init__(  # noqa: PLR0913  (settings, each with a sound default)
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
        self._closed = False
        self._undo: list[Callable[[], object]] = []
        self._notices = Notices()
        self._current: Step | None = None
        self._early_logs: list[Mapping[str, Lagged | float]] = []
        self._logs_early: bool | None = None
        self._clips: list[tuple[list[int], Lagged]] = []
        self._scaling: dict[int, tuple[Tensor | float, bool]] = {}
        self._arrived: Lagged | None = None
        self._wanted = 0
        self._flow_wanted = self._flow_asked = False
        self._samples_taken = 0
        self._extra = 0
        self._clips_by_hand = False
        self._waits = True
        self._is_left, self._has_changed, self._turns = False, True, 0
        self._nesting = Nesting()
        self.facts: RunFacts = describe_run(
            watched,
            name="run" if store is None else store.stem,
            every=every,
            world_size=processes.size,
        )
        self._is_spread = any(is_spread(tensor) for tensor in watched.parameters)
        if self._is_spread or skips:
            processes.wait_for_all()
        self._ledger = Ledger(
            self.facts,
            self._notices,
            path=store,
            resume=resume,
            is_first=processes.rank == 0,
            on_alarm=on_alarm,
            raise_on=raise_on,
            sinks=sinks,
        )
        with self._ledger.closing_on_error():
            try:
                self._attach(skips=skips, keeps=keep_batches)
            except BaseException:
                self._detach()
                raise

    def _attach(self, *, skips: bool, keeps: bool) -> None:
        """Prepare what measures the steps, and attach it to the optimizers."""
        watched, processes, undo = self._watched, self._processes, self._undo
        self._number = self._ledger.last_step
        self._start = time.perf_counter() - self._ledger.last_seconds
        self._kept: KeptStep | None = None
        self._keeper = BatchKeeper(watched.model, watched.called, self._notices) if keeps else None
        undo += [] if self._keeper is None else [self._keeper.remove]
        self._was_finite = True
        self._sampler = LayerSampler(
            watched.inventory,
            self._notices.reporter("sampling modules"),
            is_compiled=watched.is_compiled,
        )
        undo.append(self._sampler.detach)
        self._sizes = WeightSizes(watched.parameters, processes, self._sampler, self._every)
        self._flows = FlowRecorder(watched.inventory, self._notices.reporter("recording a flow"))
        undo.append(self._flows.release)
        self._locals = LocalFlags(watched.model, watched.parameters) if processes.size > 1 else None
        undo += [] if self._locals is None else [self._locals.remove]
        self._owners = Ownership(watched, self._notices)
        self._idle: Any = None
        self._copies = CopySearch(
            () if self._is_spread else watched.parameters,  # of these it is not asked
            self._notices.reporter("looking for copies of the weights"),
        )
        self._inputs = InputKeeper(watched.called, self._notices)
        undo.append(self._inputs.remove)
        self._leftovers = Leftovers(self._notices.reporter("looking at older gradients"))
        undo += [self._leftovers.drop, register_optimizer_step_post_hook(self._note_other).remove]
        for optimizer in watched.optimizers:
            undo.append(optimizer.register_step_pre_hook(self._before_step).remove)
            undo.append(optimizer.register_step_post_hook(self._after_step).remove)
            if skips:
                undo.append(guard_step(optimizer, self._decide_skip))
        undo.append(partial(unlisten, self))
        listen(self)
        self._at_exit = make_exit(self)
        atexit.register(self._at_exit)
        self._prepare_next()

    # --- For the user -----------------------------------------------------------------------------

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms so far, each trouble once."""
        return tuple(self._ledger.alarms)

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The last steps (up to 10,000); the one that is going on is not among them."""
        return tuple(self._ledger.steps)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The last samples (up to 200)."""
        return tuple(self._ledger.samples)

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
            >>> from torch import nn
            >>> from chainrule.watch.watching import watch
            >>> model = nn.Linear(2, 1)
            >>> with watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as run:
            ...     run.log(loss=1.0)
        """
        found = read_scalars(scalars)
        if self._closed or not found:
            return
        step = self._current
        if self._logs_early is None:
            self._logs_early = step is None
        if self._logs_early or step is None or step.is_begun:
            self._early_logs.append(found)
        else:
            step.logs.append(found)

    @property
    def notices(self) -> tuple[str, ...]:
        """What was said in the log so far: what failed, and what is no trouble if it is meant."""
        return self._notices.said

    def flow(self, step: int) -> GradientFlow:
        """Return the whole measurement of a sampled step.

        Args:
            step: One of those that have a flow: the first, every 20th sample, and the sample
                after an alarm.

        Raises:
            WatchError: If there is none of that step.

        Example:
            >>> from torch import nn
            >>> from chainrule.watch.watching import watch
            >>> model = nn.Linear(2, 1)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with watch(model, optimizer) as run:
            ...     model(torch.ones(1, 2)).sum().backward()
            ...     optimizer.step()
            >>> run.flow(1).layers[0].kind
            'Linear'
        """
        return self._ledger.find_flow(step)

    def close(self, error: BaseException | None = None) -> None:
        """End the run: read what is left, and take all hooks off.

        Ctrl-C ends the wait for the disk only; a second call waits for it again.

        Args:
            error: What stopped the training before its end; it is kept with the run.
        """
        if self._closed:
            self._ledger.wait()
            return
        try:
            self._closed = self._sizes.is_last = True
            self._end()
        except TrainingStopped:
            pass  # it ends anyway; the alarm is in `alarms`
        except BaseException:  # Ctrl-C: first the rest
            self._end()
            raise
        finally:
            self._ledger.close(describe_ending(error, self._number))
        atexit.unregister(self._at_exit)

    def _end(self) -> None:
        """Take all hooks off, and read the last step; again where Ctrl-C came between."""
        self._detach()
        step = self._current
        if step is None and not self._number:
            self._notices.say(
                "no step",
                "The run saw no step of its optimizers. Was the model trained by another one?",
            )
        if step is not None and step.is_measured:  # no error came out of its closure
            self._finish(step, is_last=True)
        self._current = None

    def _detach(self) -> None:
        """Take all hooks off."""
        for undo in self._undo:
            undo()

    def __repr__(self) -> str:
        return f"Run({self._ledger.describe()})"

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close the run, also after an error or Ctrl-C, which is kept with it."""
        self.close(error)

    # --- Hooks ------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        with self._notices.guard("beginning a step"):
            if not self._nesting.enter(optimizer):
                return
            step = self._enter(optimizer)
            if not has_closure(args, kwargs):
                with self._notices.guard("measuring a step"):
                    self._measure(step, optimizer)
            if step.is_sampled:
                self._weigh(step, optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        step = self._current
        if not self._nesting.leave(optimizer) or step is None or id(optimizer) not in step.stepped:
            return
        with self._notices.guard("measuring updates"):
            if step.meters:
                step.meters[-1].finish()
        if has_closure(args, kwargs):
            with self._notices.guard("measuring a step"):
                self._measure(step, optimizer)
        self._leave(step, optimizer)

    def _leave(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """After an optimizer stepped, or did not: prepare what the next step needs."""
        with self._notices.guard("preparing a step"):
            key = id(optimizer)
            self._leftovers.mark(step.stepped)
            if is_due(step.number + 1) or self._is_left:
                parameters = self._watched.parameters
                self._leftovers.arm(key, [parameters[at] for at in self._owners.held[key]])
            if len(step.stepped) == len(self._watched.optimizers):
                self._inputs.release()
                self._prepare_next()

    def _note_other(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Note that any optimizer of the process stepped."""
        with self._notices.guard("seeing another optimizer"):
            self._turns += self._owners.note_other(optimizer)

    def enter_scaler(self, scaler: Any, optimizer: torch.optim.Optimizer) -> None:
        """Note the scale before a gradient scaler steps one of the optimizers, or does not."""
        if id(optimizer) in self._owners.held:
            with self._notices.guard("reading a gradient scaler"):
                self._scaling[id(optimizer)] = read_scale(scaler), is_unscaled(scaler, optimizer)

    def leave_scaler(self, optimizer: torch.optim.Optimizer) -> None:
        """Note a step that the gradient scaler left out."""
        if id(optimizer) in self._scaling:
            self._skip(optimizer, "gradient scaler")

    def abandon_scaler(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the scale of a step out of which an error came."""
        self._scaling.pop(id(optimizer), None)

    def note_clipping(self, parameters: Sequence[Tensor], total_norm: Tensor) -> None:
        """Note the norm of gradients that are about to be clipped."""
        with self._notices.guard("seeing gradients clipped"):
            positions = self._watched.positions
            found = [positions[id(each)] for each in parameters if id(each) in positions]
            if found:
                total: Any = total_norm.detach()
                total = total.full_tensor() if is_spread(total) else total
                self._clips.append((found, Lagged(total.reshape(1))))

    # --- A step -----------------------------------------------------------------------------------

    def _enter(self, optimizer: torch.optim.Optimizer) -> Step:
        """Return the step that an optimizer takes part in; a new one if it was in the last.

        Whatever fails while the last one is read, this one is a step of its own. Ctrl-C alone, or
        what another signal raises, ends that: the last one stays, to be kept when the run is closed
        or goes on.
        """
        step = self._current
        if step is None or id(optimizer) in step.stepped:
            if step is not None and step.is_measured:
                self._finish(step)
                step = None
            # Of one whose closure raised an error, which was not taken, the number is taken again.
            number = self._number + 1 if step is None else step.number
            seconds = time.perf_counter() - self._start
            step = Step(number, seconds, number == self._wanted, logs=self._early_logs)
            self._current, self._number, self._early_logs = step, number, []
        step.stepped.add(id(optimizer))
        return step

    def _skip(self, optimizer: torch.optim.Optimizer, why: str) -> None:
        """Record a step that the optimizer did not take."""
        with self._notices.guard("recording a step that was skipped"):
            step = self._enter(optimizer)
            step.skipped = why
            with self._notices.guard("measuring a step"):
                self._measure(step, optimizer)
            self._leave(step, optimizer)

    def _measure(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """Measure the gradients as the optimizer uses them."""
        key = id(optimizer)
        step.is_measured = True
        own = grad_scale = getattr(optimizer, "grad_scale", None)
        scaling = self._scaling.pop(key, None)
        if scaling is not None or grad_scale is not None:
            scale = scaling[0] if scaling is not None else grad_scale
            step.scale = Lagged(scale) if isinstance(scale, Tensor) else scale
            step.clip_scale = grad_scale is not None or not (scaling is None or scaling[1])
            found_inf = getattr(optimizer, "found_inf", None)
            if isinstance(found_inf, Tensor):
                step.found_bad = Lagged(found_inf)
        step.rates = tuple(rate for each in self._watched.optimizers for rate in read_rates(each))
        measure_gradients(step, self._owners, optimizer, own, is_spread=self._is_spread)
        step.bad_input = step.bad_input or self._inputs.finish(step)
        left = self._leftovers.finish(key)
        if left is not None:
            step.leftovers.append(left[0])
            self._turns += left[1]
        if step.number % LOOK_EVERY == 0:
            look_at_units(step, self._owners, key)
        if self._has_changed or step.is_sampled or step.number % LOOK_EVERY == 0:
            step.standing = self._owners.make_standing()
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
            with self._notices.guard("sampling a step"):
                self._take_layers(step, optimizer, own)
        if self._keeper is not None:
            self._look_into(step, own)

    def _look_into(self, step: Step, grad_scale: Tensor | None) -> None:
        """Run a step again whose gradients have just become not finite, before it is taken."""
        assert self._keeper is not None
        is_finite = all(np.isfinite(lagged.read()).all() for _, lagged, _ in step.norms)
        under_scaler = step.skipped or grad_scale is not None  # which tries too large a scale
        try:
            if not is_finite and self._was_finite and not under_scaler:
                self._kept = self._keeper.look(step.number, self._watched.optimizers)
        except Exception as error:
            self._notices.report("running a step again", error)
        self._was_finite = is_finite
        if len(step.stepped) == len(self._watched.optimizers):
            self._keeper.end_step()

    def _take_layers(
        self, step: Step, optimizer: torch.optim.Optimizer, grad_scale: Tensor | None
    ) -> None:
        """Summarize what modules put out; with several optimizers that waits for the last."""
        is_single = len(self._watched.optimizers) == 1
        if is_single:
            try:
                step.layers = self._sampler.take(
                    self._read_scale_now(step), has_gradients=bool(step.norms)
                )
            finally:
                self._sampler.detach()
        if self._flow_wanted:
            step.gradients |= take_gradients(
                step, self._owners, optimizer, grad_scale, copies=not is_single
            )
            if is_single:
                self._take_flow(step)

    def _read_scale_now(self, step: Step) -> float:
        if step.scale is None:
            return 1.0
        return float(step.scale.read()[0]) if isinstance(step.scale, Lagged) else step.scale

    def _take_flow(self, step: Step, *, only_finished: bool = False) -> None:
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

    def _weigh(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        """Copy the weights that may move, to see by how much they do."""
        trained = [
            at
            for part in self._owners.parts[id(optimizer), not step.meters]
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
        if not self._owners.is_valid():
            self._owners.read()
        taken = self._samples_taken
        looks = self._clips_by_hand or taken < COMPARED or taken % COMPARED_EVERY == 0
        compares = looks and len(self._watched.optimizers) == 1 and not self._is_spread
        self._sampler.attach(self._note_arrived if compares else None)
        self._flow_wanted = not (self._is_spread or self._sampler.missing) and (
            taken % FLOW_EVERY == 0 or self._flow_asked
        )
        self._flow_asked = False
        if self._flow_wanted:
            self._flows.attach()
        self._samples_taken += 1

    def _note_arrived(self) -> None:
        """After a backward pass of a sampled step: measure gradients before they are clipped."""
        with self._notices.guard("comparing gradients before and after clipping"):
            (optimizer,) = self._watched.optimizers
            parameters = self._watched.parameters
            gradients = [
                gradient
                for at in self._owners.held[id(optimizer)]
                if (gradient := parameters[at].grad) is not None
            ]
            if gradients:
                with torch.no_grad():
                    total = torch.linalg.vector_norm(measure_norms(gradients))
                    self._arrived = Lagged(total.reshape(1), is_fresh=True)

    # --- The end of a step ------------------------------------------------------------------------

    def _finish(self, step: Step, *, is_last: bool = False) -> None:
        """Read a step, which stays the current one until it is kept.

        It may be called again where Ctrl-C ended that, and in the middle of it, by a signal handler
        or a callback that closes the run.
        """
        step.is_cut, step.is_begun = step.is_begun, True
        try:
            self._conclude(step, is_last=is_last)
        except TrainingStopped:
            self._current = None
            raise
        self._current = None

    def _conclude(self, step: Step, *, is_last: bool = False) -> None:
        """Read the numbers of a step, and keep them; what fails of it, the rest does not miss."""
        ledger, guard = self._ledger, self._notices.guard
        count = len(self._watched.optimizers)
        if not (is_last or step.is_cut):
            self._turns += len(step.stepped) < count
        if step.is_sampled and count > 1 and not step.is_cut:
            with guard("sampling a step"):
                self._take_together(step, is_last=is_last)
        with guard("reading a step"):
            held = self._owners.is_held
            record = make_record(step, held, lambda total: self._find_bad_rank(step, total))
            if step.arrived is not None:
                self._clips_by_hand = record.clipped_from is not None
            if record.loss is not None:
                step.loss.append(record.loss)
                self._look_back(step, record.loss)
            if step.standing is not None and ledger.history is not None:
                ledger.history.stand(step.standing)
            ledger.keep(record, is_judged=step.is_whole and not step.is_cut)
            if not step.is_cut:
                self._inform(step, record)
        if step.is_sampled:
            with guard("reading a sample"):
                ledger.keep(self._sizes.make_sample(step))
        if step.is_cut:  # the rules may have seen a part of it
            return
        # Spread over processes, all of them sample the same steps, and rank 0 alone judges.
        if ledger.wants_sample and not self._is_spread:
            self._extra = max(self._extra, 1)
        alarms: Sequence[Alarm] = ()
        with guard("judging a step"):
            alarms = ledger.judge(self._kept)
        if alarms and not self._is_spread:
            self._extra, self._flow_asked = SAMPLED_AFTER, True
        ledger.stop_at(alarms)

    def _take_together(self, step: Step, *, is_last: bool) -> None:
        """Summarize what modules put out in a step of several optimizers."""
        try:
            step.layers = self._sampler.take(self._read_scale_now(step), only_finished=not is_last)
        finally:
            if self._wanted == step.number:  # the next one is not sampled
                self._sampler.detach()
        if step.gradients:
            self._take_flow(step, only_finished=not is_last)

    def _inform(self, step: Step, record: StepRecord) -> None:
        """Give the rules what is no record: what older gradients left, who plays in turns."""
        idle = record.grad_norms <= 0.0
        self._has_changed = self._idle is None or bool((idle != self._idle).any())
        self._idle = idle
        history = self._ledger.history
        if history is None:
            return
        history.has_players = self._turns >= TURNS
        known = [found for read in step.leftovers if (found := read()) is not None]
        self._is_left = any(known)
        if known:
            history.note_leftover(step.number, self._is_left)
        history.note_idle_units(read_idle_units(step))
        if step.bad_input is not None:
            history.note_input(step.bad_input)
        elif step.has_sound_input:
            history.sound_input = history.step
        if history.count == 1:  # who else steps is known by now
            history.stand(self._owners.make_standing())
        if step.standing is not None:
            for subject, words in find_remarks(history):
                self._notices.say(subject, words)
        if not self._is_spread and self._copies.look(history):
            self._notices.say("copies", self._copies.describe(step.number))

    def _look_back(self, step: Step, loss: float) -> None:
        """Run a step again whose loss is not finite though its gradients are."""
        if self._keeper is None or math.isfinite(loss) or not self._was_finite:
            return
        with self._notices.guard("running a step again"):
            self._was_finite = False
            self._kept = self._keeper.look(step.number, self._watched.optimizers, before=True)

    def _find_bad_rank(self, step: Step, total: float) -> int | None:
        if self._processes.size < 2:
            return None
        if step.local is not None and not np.isfinite(step.local.read()[0]):
            self._processes.mark_bad(step.number)
        if math.isfinite(total):
            return None
        found = self._processes.find_bad(step.number, wait=self._waits)
        self._waits = found is not None
        return found

    # --- Steps that are left out ------------------------------------------------------------------

    def _decide_skip(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a step must be left out, because a gradient of some process is not finite."""
        try:
            device = take_local(self._watched.parameters[0]).device
            bad = self._processes.agree(has_bad_gradient(optimizer), device)
        except Exception as error:
            self._notices.report("deciding whether to skip a step", error)
            return False
        if bad:
            self._skip(optimizer, BAD_GRADIENT)
        return bad
