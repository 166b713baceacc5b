"""`try_training`: a short real training of copies of any model, which leaves no trace.

SGD and Adam run a race of learning rates each: all rates take a few steps, the better half goes on
(successive halving, Jamieson & Talwalkar 2016, arXiv 1502.07943), until one is left or one has
clearly learned.

Where the largest rate does best, larger ones are tried as well, and smaller ones where all are too
large: what suits depends on the scale of the loss, its targets and inputs.

Whether it learned is judged by the loss of batches that it was not trained on, where there are
such: an optimizer that rescales gradients learns one repeated batch by heart.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from chainrule.errors import InspectionError
from chainrule.flow.trial import (
    ADAPTIVE,
    HARDLY,
    OptimizerTrial,
    RateTrial,
    Trial,
    TrialOutcome,
)
from chainrule.measure.copying import copy_model, find_shared_memory, measure_size
from chainrule.measure.inspection import describe_error, take_checked_inventory
from chainrule.measure.modules import take_inventory
from chainrule.measure.optimizers import check_optimizer
from chainrule.measure.preservation import preserve
from chainrule.measure.tensor_hooks import find_uncarried
from chainrule.training.batches import Batches, Counter, find_batches
from chainrule.training.guessing import measure_guessing
from chainrule.training.judging import DIVERGED, judge, judge_term
from chainrule.training.movement import list_spoiled, measure_movement
from chainrule.training.optimizers import (
    NO_ROOM,
    PASSED_ON,
    OptimizerLike,
    choose_settings,
    describe_format,
    describe_lost,
    follow_schedule,
    needs_closure,
    rebuild_optimizer,
)

PASSES = 300
"""Most forward and backward passes by default."""

LEAST_PASSES = 40
"""Fewer tell nothing."""

SECONDS = 120.0
"""How long it may take by default; if one pass is slow, fewer passes are made."""

_TIMED = 3
"""So many passes are timed at most, and the shortest counts: a busy machine stops now and then."""

COPY_LIMIT = 2 * 2**30
"""Bytes of parameters and buffers up to which a model is copied by default."""

RATES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"SGD": (1e-3, 1e-2, 1e-1, 1.0), "Adam": (1e-4, 1e-3, 1e-2)}
)
"""The learning rates that are tried first: what people reach for."""

FURTHER = 4
"""Most rates beyond them that are tried, each ten times as large or as small as the last."""

FEW_PASSES, FEW_RATES = 100, 2
"""With fewer passes, so many rates of each optimizer are tried, and judged on one batch."""

_OPTIMIZERS: Mapping[str, Any] = MappingProxyType(
    {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}
)

SETTLED = 0.5
"""From this share on no further step is needed."""

_SHARES = (0.3, 0.3, 0.4)
"""How the passes of a race are shared among its rounds."""

_MOST_EVALUATIONS = 25
"""Passes that a step may take with an optimizer that needs several, if it does not say."""

_CHECK_EVERY = 50
"""Steps of your optimizer between two looks at the batches kept aside."""


def try_training(
    model: nn.Module,
    compute_loss: Callable[..., Any],
    optimizer: OptimizerLike | None = None,
    *,
    batches: Iterable[Any] | None = None,
    passes: int = PASSES,
    seconds: float | None = SECONDS,
    copy_limit: int = COPY_LIMIT,
) -> Trial:
    """Train copies of a model for a short while, and say whether they learn.

    Without an optimizer, plain SGD and Adam run a race of learning rates each. With one, its class,
    groups, settings and state are made again for the copy; a schedule of its rate is not, but where
    the rate of now is far below the one that it leads to, that one is tried. Training ends early
    where it has clearly succeeded.

    If `compute_loss` draws a batch at every call (from random numbers or an iterator), or
    `batches` are given, every step has its own batch, and the loss is that of batches kept aside.
    Else the one batch is repeated; then success with Adam shows only that the model can learn a
    batch by heart. Numbers that come from an iterator or a generator of your own cannot be put
    back; everything else is as before: parameters, `.grad`, buffers, modes, random states.

    Args:
        model: The model; only copies of it are trained.
        compute_loss: As for `inspect`, but called many times; with `batches`, it takes the model
            and a batch. It must use the model that it is given.
        optimizer: An optimizer of the model's parameters, or a function that makes one of a list of
            parameters; `None` for a race of SGD and Adam.
        batches: What `compute_loss(model, batch)` takes, one after the other; up to 35 are read.
        passes: Most forward and backward passes in all, at least 40. A forward pass alone counts
            as half of one.
        seconds: If so many passes would take longer, fewer are made, and the notes say so; `None`
            for any time.
        copy_limit: Most bytes of parameters and buffers of the model; a larger one is not copied.
            There are up to four copies at a time, with the state of their optimizers.

    Returns:
        What came of it; if nothing could be tried, `skipped` says why.

    Raises:
        InspectionError: If an argument is not legal, or `compute_loss` raises or does not use the
            model.
        LossError: If it does not return a loss with a gradient.

    Example:
        >>> model, x = nn.Linear(2, 1), torch.randn(64, 2)
        >>> y = x.sum(1, keepdim=True)
        >>> try_training(model, lambda m: nn.functional.mse_loss(m(x), y)).trains
        True
    """
    _check_arguments(model, compute_loss, optimizer, passes, seconds)
    inventory = take_checked_inventory(model)
    model = inventory.modules[0][1]
    if reason := _find_obstacle(model, copy_limit):
        return Trial(optimizers=(), passes=0.0, limit=passes, fresh=False, kept=0, skipped=reason)
    with (
        preserve(inventory),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        counter = Counter()
        try:
            return _try(model, compute_loss, optimizer, batches, passes, seconds, counter)
        except NO_ROOM as error:
            return Trial(
                optimizers=(),
                passes=counter.passes,
                limit=passes,
                fresh=False,
                kept=0,
                skipped=_describe_no_room(error),
            )


def confirm_training(
    model: nn.Module,
    compute_loss: Callable[..., Any],
    trial: Trial,
    optimizer: OptimizerLike | None = None,
    *,
    batches: Iterable[Any] | None = None,
    passes: int = PASSES,
) -> Trial:
    """Train again with what trained it, at its best rate, and without an end.

    A loss that falls may still become undefined on the way, as that of an arc cosine does at 1.

    Args:
        model: The model; only copies of it are trained.
        compute_loss: As for `try_training`.
        trial: What `try_training` showed.
        optimizer: As for `try_training`.
        batches: As for `try_training`.
        passes: Most passes in all.
    """
    trained = [each for each in trial.tried if each.outcome is TrialOutcome.TRAINED and each.best]
    builds: list[OptimizerLike] = [
        partial(_OPTIMIZERS[each.name], lr=each.best.rate, **choose_settings(each.name, model))
        for each in trained
        if each.best and each.name in RATES
    ]
    if optimizer is not None:
        builds = [optimizer]
    counter = Counter()
    with preserve(take_inventory(model)), torch.inference_mode(False), torch.enable_grad():
        source = find_batches(copy_model(model), compute_loss, batches, counter)
        runs = []
        for number, build in enumerate(builds):
            share = (passes - counter.passes) / (len(builds) - number)
            run, _ = _follow(model, build, source, share, trial.guessing, ends=False)
            runs.append(run)
    return replace(trial, optimizers=tuple(runs), passes=counter.passes, limit=passes)


def _check_arguments(
    model: object, compute_loss: object, optimizer: object, passes: object, seconds: object
) -> None:
    if not isinstance(model, nn.Module):
        raise InspectionError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. "
            "Call it as try_training(model, compute_loss)."
        )
    if not callable(compute_loss):
        raise InspectionError(
            f"compute_loss must be a function of the model; got {type(compute_loss).__name__}. "
            "Write for example try_training(model, lambda m: F.mse_loss(m(x), y))."
        )
    if optimizer is not None and not (
        isinstance(optimizer, torch.optim.Optimizer) or callable(optimizer)
    ):
        raise InspectionError(
            "optimizer must be a torch.optim.Optimizer, or a function that makes one of a list of "
            f"parameters; got {type(optimizer).__name__}. Leave it out to try SGD and Adam."
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        check_optimizer(optimizer)
    if not isinstance(passes, int) or isinstance(passes, bool) or passes < LEAST_PASSES:
        raise InspectionError(
            f"passes must be a whole number, at least {LEAST_PASSES}; got {passes!r:.40}."
        )
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0
    ):
        raise InspectionError(f"seconds must be a number above 0, or None; got {seconds!r:.40}.")


def _find_obstacle(model: nn.Module, copy_limit: int) -> str:
    """Return why no copy can be trained; "" if one can."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "the model has no parameters that are trained"
    size = measure_size(model)
    if size > copy_limit:
        return (
            f"a copy of the model takes {size / 2**20:,.0f} MiB, and copy_limit allows "
            f"{copy_limit / 2**20:,.0f} MiB"
        )
    if names := find_shared_memory(model):
        return "parameters {!r} and {!r} share memory, and a copy would separate them".format(
            *names
        )
    return find_uncarried(model) or _try_copy(model)


def _try_copy(model: nn.Module) -> str:
    try:
        copy_model(model)
    except NO_ROOM as error:
        return _describe_no_room(error)
    except Exception as error:
        return f"the model cannot be copied ({type(error).__name__}: {error!s:.200})"
    return ""


def _describe_no_room(error: Exception) -> str:
    return f"there is no room for copies of the model ({type(error).__name__})"


def _try(
    model: nn.Module,
    compute_loss: Callable[..., Any],
    optimizer: OptimizerLike | None,
    given: Iterable[Any] | None,
    passes: int,
    seconds: float | None,
    counter: Counter,
) -> Trial:
    copied = copy_model(model)
    batches = find_batches(copied, compute_loss, given, counter)
    one_pass = math.inf
    for _ in range(_TIMED):
        started = time.perf_counter()
        _check_used(copied, batches)
        one_pass = min(one_pass, time.perf_counter() - started)
        if seconds is None or one_pass * passes <= seconds:
            break
    guessing = measure_guessing(copied, batches)
    del copied
    notes = []
    allowed = float(passes)
    if seconds is not None and one_pass * passes > seconds:
        allowed = max(LEAST_PASSES, math.floor(seconds / one_pass))
        if allowed < passes:
            notes.append(
                f"One pass takes {one_pass:.2g} s, so {allowed:g} passes were allowed instead of "
                f"{passes}."
            )
    if allowed < FEW_PASSES:
        batches = replace(batches, kept=1)
    rates = FEW_RATES if allowed < FEW_PASSES else None
    left = allowed - counter.passes
    runs = []
    if optimizer is None:
        for number, name in enumerate(RATES):
            share = (allowed - counter.passes) / (len(RATES) - number)
            try:
                runs.append(_race(model, name, batches, share, guessing, rates))
            except _NoStepError as error:
                runs.append(OptimizerTrial(name=name, rates=(), skipped=str(error)))
    else:
        try:
            run, left_out = _follow(model, optimizer, batches, left, guessing)
        except _NoStepError as error:
            raise InspectionError(str(error)) from error
        runs.append(run)
        notes += left_out
    notes += describe_format(model, runs)
    trial = Trial(
        optimizers=tuple(runs),
        passes=counter.passes,
        limit=passes,
        fresh=batches.fresh,
        kept=batches.kept,
        guessing=guessing,
    )
    if trial.best is not None and trial.best.best is not None:
        notes += filter(None, [trial.best.best.describe_standing()])
    return replace(trial, notes=tuple(notes))


def _check_used(model: nn.Module, batches: Batches) -> None:
    """Raise unless the loss depends on a parameter of the copy that it was given."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = batches.compute(model, 0, False)
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    batches.counter.passes += 1
    if all(gradient is None for gradient in found):
        raise InspectionError(
            "compute_loss must use the model that it is given, but its loss depends on none of "
            "the copy's parameters. Write lambda m: loss(m(x)) rather than lambda m: "
            "loss(model(x))."
        )


class _NoStepError(InspectionError):
    """An optimizer cannot take a step with such parameters or gradients (sparse ones, for Adam)."""


class TrialEndedError(InspectionError):
    """A trial could not go on, though it had begun.

    Args:
        error: What was raised.
        step: The step at which it was, in words.
    """

    def __init__(self, error: InspectionError, step: str) -> None:
        super().__init__(f"{error} That was at {step}.")
        self.step = step


def describe_end(error: InspectionError) -> str:
    """Return how a trial ended, in one sentence: with what error, and at which step."""
    cause = error.__cause__
    said = describe_error(cause if isinstance(cause, Exception) else error).rstrip(".")
    at = f"at {error.step}" if isinstance(error, TrialEndedError) else "before its first step"
    return f"The trial ended early, {at}: {said}."


class _Lane:
    """A copy that is trained at one learning rate."""

    def __init__(
        self,
        model: nn.Module,
        build: Callable[[nn.Module], torch.optim.Optimizer],
        batches: Batches,
        guessing: float | None,
    ) -> None:
        self.origin, self.model = model, copy_model(model)
        for parameter in self.model.parameters():
            parameter.grad = None
        self.optimizer = build(self.model)
        self.rate = float(self.optimizer.param_groups[0].get("lr", 0.0))
        self.batches, self.guessing = batches, guessing
        self.steps = 0
        self.failed_at: int | None = None
        self.is_over = self.is_stopped = self.has_grown = False
        self.spoiled: list[str] = []
        self.before: list[float] = []
        self.after: list[float] = []
        self.terms_before: dict[str, list[float]] = {}
        self.terms_after: dict[str, list[float]] = {}
        self._needs_closure = needs_closure(self.optimizer)
        self._most = _MOST_EVALUATIONS if self._needs_closure else 1
        for group in self.optimizer.param_groups:
            self._most = max(self._most, group.get("max_eval") or 1)

    def train(self, passes: float) -> None:
        """Take steps until so many passes are used, or the loss is not finite."""
        counter = self.batches.counter
        until = counter.passes + passes
        limit = DIVERGED * max(map(abs, self.before))
        while counter.passes + self._most <= until and not self.is_over:
            try:
                loss = self._step()
            except _NoStepError:
                raise
            except InspectionError as error:
                if not self._is_lost():
                    raise TrialEndedError(error, self._name_step()) from error.__cause__
                self._end()
                return
            if not math.isfinite(loss):
                self._end()
            elif loss > limit and self.failed_at is None:
                self.failed_at = max(1, self.steps)
            self.steps += 1

    def _end(self) -> None:
        """Go no further: after the last step, the loss was no number or far above its start."""
        self.has_grown = self.failed_at is not None
        self.failed_at = self.failed_at or max(1, self.steps)
        self.is_over = True

    def _is_lost(self) -> bool:
        """Whether the weights are such that a loss may raise an error in place of being NaN."""
        return self.failed_at is not None or not all(
            bool(parameter.isfinite().all()) for parameter in self.model.parameters()
        )

    def _name_step(self) -> str:
        rate = f"{type(self.optimizer).__name__} at a learning rate of {self.rate:g}"
        return f"step {self.steps + 1} of {rate}"

    def _step(self) -> float:
        losses: list[float] = []

        def close() -> Any:
            self.optimizer.zero_grad()
            loss = self.batches.compute(self.model, self.steps, False)
            try:
                loss.backward()
            except PASSED_ON:
                raise
            except Exception as error:
                raise InspectionError(
                    "The backward pass must run many times on copies of the model, but it raised "
                    f"{describe_error(error)}."
                ) from error
            self.batches.counter.passes += 1
            losses.append(float(loss.detach()))
            return loss

        if not self._needs_closure:
            close()
            if not math.isfinite(losses[0]):
                return losses[0]
        try:
            if self._needs_closure:
                self.optimizer.step(close)
            else:
                self.optimizer.step()
        except PASSED_ON:
            raise
        except Exception as error:
            raise _NoStepError(
                f"{type(self.optimizer).__name__} must take steps with the model's gradients, but "
                f"it raised {describe_error(error)}."
            ) from error
        return losses[0]

    def evaluate(self) -> None:
        """Look at the batches that are kept aside."""
        self.terms_after = {}
        try:
            self.after = self.batches.evaluate(self.model, self.terms_after)
        except InspectionError:
            if not (self.is_over or self._is_lost()):
                raise
            self.after = [math.nan] * len(self.before)
        if self.is_over:
            return
        self.spoiled = list_spoiled(self.origin, self.model)
        if self.spoiled or not all(map(math.isfinite, self.after)):
            self._end()

    def judge(self) -> tuple[TrialOutcome, float]:
        """Return what became of it so far."""
        if self.is_over:
            lost = TrialOutcome.DIVERGED if self.has_grown else TrialOutcome.NON_FINITE
            return lost, math.nan
        return judge(self.before, self.after, guessing=self.guessing)

    def close(self) -> RateTrial:
        """Return what became of it, and release the copy."""
        outcome, learned = self.judge()
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        moved, unchanged = measure_movement(self.origin, self.model, held)
        del self.origin, self.model, self.optimizer
        return RateTrial(
            rate=self.rate,
            steps=self.steps,
            before=math.fsum(self.before) / len(self.before),
            after=math.fsum(self.after) / len(self.after),
            learned=learned,
            outcome=outcome,
            failed_at=self.failed_at
            if outcome in (TrialOutcome.NON_FINITE, TrialOutcome.DIVERGED)
            else None,
            stopped=self.is_stopped,
            guessing=self.guessing,
            terms=tuple(
                judge_term(name, values, self.terms_after[name])
                for name, values in self.terms_before.items()
                if len(self.terms_after.get(name, ())) == len(values)
            ),
            moved=moved,
            unchanged=unchanged,
            spoiled=tuple(self.spoiled),
        )


def _race(
    model: nn.Module,
    name: str,
    batches: Batches,
    passes: float,
    guessing: float | None,
    limit: int | None,
) -> OptimizerTrial:
    """Try an optimizer at its rates; those that do worse are left early.

    With a limit, so many rates are tried: those before the largest that suits it, and that one.
    """
    kind, settings = _OPTIMIZERS[name], choose_settings(name, model)
    rates = RATES[name] if limit is None else sorted(RATES[name])[-limit - 1 :][:limit]
    count = len(rates)
    looks = batches.kept * 0.5  # passes that one look at the batches kept aside costs
    started = batches.counter.passes

    def build(rate: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
        return lambda copied: kind(
            [p for p in copied.parameters() if p.requires_grad], lr=rate, **settings
        )

    lanes = [_Lane(model, build(rate), batches, guessing) for rate in rates]
    with _same_for_all(lanes):
        running = lanes.copy()
        done: list[RateTrial] = []
        for number, share in enumerate(_SHARES):
            last = number == len(_SHARES) - 1
            left = passes - (batches.counter.passes - started)
            part = left * share / sum(_SHARES[number:])
            for lane in running:
                lane.train(part / len(running) - looks)
                lane.evaluate()
            running.sort(key=_rank)
            while (
                number == 0
                and limit is None
                and len(lanes) < count + FURTHER
                and (rate := _find_further(name, running, lanes)) is not None
            ):
                worst = running.pop()  # so that there are no more copies than before
                worst.is_stopped = not worst.is_over
                done.append(worst.close())
                lane = _Lane(model, build(rate), batches, guessing)
                lane.before, lane.after = lanes[0].before, lanes[0].before
                lane.terms_before = lanes[0].terms_before
                lanes.append(lane)
                lane.train(part / count - looks)
                lane.evaluate()
                running.append(lane)
                running.sort(key=_rank)
            if last or _is_clear(running[0]):
                break
            keep = max(1, count >> (number + 1)) if count > 3 else max(1, count - number - 1)
            for lane in running[keep:]:
                lane.is_stopped = not lane.is_over
                done.append(lane.close())
            running = [lane for lane in running[:keep] if not lane.is_over]
            done += [lane.close() for lane in lanes if lane.is_over and hasattr(lane, "model")]
            if not running:
                break
        done += [lane.close() for lane in running]
    return OptimizerTrial(
        name=name,
        rates=tuple(sorted(done, key=lambda each: each.rate)),
        settings=", ".join(f"{key}={value:g}" for key, value in settings.items()),
    )


@contextmanager
def _same_for_all(lanes: Sequence[_Lane]) -> Iterator[None]:
    """Look once at the batches kept aside: before the first step all copies are the same."""
    terms: dict[str, list[float]] = {}
    before = lanes[0].batches.evaluate(lanes[0].model, terms)
    for lane in lanes:
        lane.before, lane.terms_before = before, terms
        lane.after, lane.terms_after = before, terms
    yield


def _find_further(name: str, running: Sequence[_Lane], lanes: Sequence[_Lane]) -> float | None:
    """Return a rate beyond those that were tried, if the best one is at their end.

    Steps of SGD grow with the gradient, so one that hardly moves the loss says that it is flat.
    Those of Adam do not: with targets of 10,000, a rate of 0.01 goes a small part of the way.
    """
    best, rates = running[0], [lane.rate for lane in lanes]
    if _is_settled(best):
        return None
    standing, _ = _rank(best)
    if standing >= _LOST:
        return float(f"{min(rates) / 10.0:.3g}")
    moves = standing == 0 or name in ADAPTIVE
    return float(f"{max(rates) * 10.0:.3g}") if moves and best.rate == max(rates) else None


_LOST = 2
"""In `_rank`, from here on the loss is higher than it was."""


def _rank(lane: _Lane) -> tuple[int, float]:
    """Order lanes: the lowest loss first; where it hardly moved, the largest rate first.

    After few steps such losses differ by chance, and small rates would go on for nothing.
    """
    if lane.is_over:
        return 3, 0.0
    start = math.fsum(lane.before) / len(lane.before)
    end = math.fsum(lane.after) / len(lane.after)
    if abs(start - end) <= HARDLY * abs(start):
        return 1, -lane.rate
    return (0 if end < start else 2), end


def _is_settled(lane: _Lane) -> bool:
    outcome, learned = lane.judge()
    return outcome is TrialOutcome.TRAINED and learned >= SETTLED


def _is_clear(lane: _Lane) -> bool:
    """Whether no further step is needed.

    Where it is not known what guessing gives, half of the loss may be a bad start alone.
    """
    return lane.guessing is not None and _is_settled(lane)


def _follow(
    model: nn.Module,
    optimizer: OptimizerLike,
    batches: Batches,
    passes: float,
    guessing: float | None,
    *,
    ends: bool = True,
) -> tuple[OptimizerTrial, list[str]]:
    """Train with one optimizer; `ends` says whether a clear success is the end."""
    notes: list[str] = []

    def build(copied: nn.Module) -> torch.optim.Optimizer:
        made = rebuild_optimizer(model, copied, optimizer, notes)
        notes.extend(filter(None, [follow_schedule(made)]))
        return made

    lane = _Lane(model, build, batches, guessing)
    name, lost = type(lane.optimizer).__name__, describe_lost(lane.optimizer)
    until = batches.counter.passes + passes
    looks = batches.kept * 0.5
    with _same_for_all([lane]):
        while not lane.is_over:
            steps = lane.steps
            lane.train(min(_CHECK_EVERY, until - batches.counter.passes - looks))
            if lane.steps == steps:
                break
            lane.evaluate()
            if ends and _is_clear(lane):
                break
    return OptimizerTrial(name=name, rates=(lane.close(),), lost=lost), notes
