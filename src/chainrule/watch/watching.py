"""`watch`: a training run is measured while it trains, and left exactly as it would have been."""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import index
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.errors import WatchError, abbreviate, suggest
from chainrule.watch.ledger import NON_FINITE
from chainrule.watch.processes import refuse_flat_shards
from chainrule.watch.records import Alarm
from chainrule.watch.rules import RULES
from chainrule.watch.run import Run
from chainrule.watch.sinks import Sink
from chainrule.watch.subject import find_watched


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
) -> Run:
    """Watch a training run: measure it while it trains, and say in words when it goes wrong.

    The loop stays as it is; it trains bit for bit as without. At every optimizer step the norms of
    all gradients are measured as the optimizer uses them: accumulated, unscaled, averaged over
    processes. In sampled steps, also what modules put out, what comes back to them, and by how
    much the weights move; in some of these the whole `GradientFlow`. Numbers of a step are read
    when the next one comes, so no device is waited for. What fails in here is said once in the
    log, and training goes on. So is what is no trouble if it is meant, such as most of a network
    frozen in mid-run, or parameters that no optimizer moves; `Run.notices` keeps all of it.

    On several processes call it in each of them, with the same arguments. Rank 0 writes.

    Args:
        model: The model that trains; also one that is compiled, or spread by
            DistributedDataParallel or `fully_shard`.
        optimizer: Its optimizer, or several. A step of the run ends when one of them steps again.
        store: File to keep the run in; without one, the last steps and samples stay in memory.
        every: A sample is taken each so many steps, more often in the first 100 and after alarms.
        on_alarm: Called with every alarm. What it raises is said in the log.
        raise_on: Names of rules, or kinds of alarms, at which to raise `TrainingStopped`. They are
            said also where another alarm explains them.
        skip_step_on: ("non_finite",) to leave out the optimizer's step, in all processes, when a
            gradient is infinite or undefined in one. The device is then waited for at each step.
        resume: Go on with the file at `store`, if it exists: after its last step (True), or, where
            the loop goes on from a checkpoint, after the step that is given. A killed run lacks
            its last second: steps between its last one and a newer checkpoint are then missing.
        keep_batches: Keep the inputs of the last forward pass, and when a gradient is not finite,
            run the step again on a copy to find the operation that began it; of a compiled model
            as plain Python. The device is then waited for at each step.
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
    skipped = _list_names("skip_step_on", skip_step_on)
    unknown = [each for each in skipped if each != NON_FINITE]
    if unknown:
        raise WatchError(
            f"skip_step_on may hold {NON_FINITE!r} only; got {abbreviate(unknown[0])}."
        )
    stops = _list_names("raise_on", raise_on)
    for name in stops:
        if name not in {known for rule in RULES for known in (rule.name, rule.kind)}:
            raise WatchError(
                f"raise_on takes names of rules, or their kinds; got {abbreviate(name)}. "
                f"{suggest(name, [rule.name for rule in RULES])}"
            )
    outlets = _list_sinks(sinks)
    path, after = _read_path(store), _read_resume(resume)
    if after is not False and path is None:
        raise WatchError("resume needs the file to go on with. Give it as store.")
    refuse_flat_shards(model) if isinstance(model, nn.Module) else None
    watched = find_watched(model, optimizer)
    return Run(
        watched,
        store=path,
        every=every,
        on_alarm=on_alarm,
        raise_on=frozenset(stops),
        skips=bool(skipped),
        resume=after,
        keep_batches=keep_batches,
        sinks=outlets,
    )


def _list_names(argument: str, given: Any) -> list[str]:
    """Return names that were given: one alone, or several.

    Raises:
        WatchError: If they are none.
    """
    if isinstance(given, str):
        return [given]
    names = list(given) if isinstance(given, Iterable) else [given]
    wrong = [each for each in names if not isinstance(each, str)]
    if wrong:
        raise WatchError(
            f"{argument} must be a name or several, for example [{NON_FINITE!r}]; got "
            f"{abbreviate(wrong[0])}."
        )
    return names


def _list_sinks(given: Any) -> tuple[Sink, ...]:
    if not callable(given) and not isinstance(given, Iterable):
        raise WatchError(
            "sinks must be functions of a record and the run's facts, in a list; got "
            f"{abbreviate(given)}. Leave it out to have none."
        )
    sinks: tuple[Sink, ...] = (given,) if callable(given) else tuple(given)
    for at, sink in enumerate(sinks):
        if not callable(sink):
            raise WatchError(
                "sinks must be functions of a record and the run's facts; sinks"
                f"[{at}] is {abbreviate(sink)}. See chainrule.watch.integrations for ready ones."
            )
    return sinks


def _read_path(store: Any) -> Path | None:
    if store is None:
        return None
    path = os.fspath(store) if isinstance(store, os.PathLike) else store
    if not isinstance(path, str):
        raise WatchError(
            f"store must be the path of a file, as text or pathlib.Path; got {abbreviate(store)}."
        )
    return Path(path)


def _read_resume(resume: Any) -> bool | int:
    """Return whether a run goes on, or the step after which it does.

    Raises:
        WatchError: If it is neither.
    """
    if isinstance(resume, bool):
        return resume
    try:
        step = index(resume)  # also whole numbers of NumPy and of tensors
    except TypeError:
        step = -1
    if step < 0:
        raise WatchError(
            "resume must be True, False, or the step of the checkpoint, a whole number of at least "
            f"0; got {abbreviate(resume)}."
        )
    return step
