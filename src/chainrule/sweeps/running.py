"""`run`: measure the cells of a sweep that are missing, keep each as it comes."""

import itertools
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from chainrule.errors import SweepError, abbreviate
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.cells import Cell, FactoryCell, Plain, SpecCell
from chainrule.sweeps.grids import LIMIT, check_limit
from chainrule.sweeps.pools import Answer, GivenPool, Pool, check_arguments, open_pool
from chainrule.sweeps.records import CellResult, Outcome, Progress, Sweep
from chainrule.sweeps.store import SweepStore

_LAST_SECONDS = 0.5
"""When a sweep is interrupted: time for results that workers have sent to arrive."""


def run(
    cells: Iterable[Cell | NetworkSpec],
    executor: Executor | None = None,
    *,
    store: str | Path | None = None,
    processes: int | None = None,
    limit: int = LIMIT,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Sweep:
    """Measure many cells, on one machine or on many; what a store has is not measured again.

    The results are the same bits whatever measures them, on the same kind of machine. An error in a
    cell is that cell's result. If a worker process dies, the cells that it may have died of are
    tried once more, each alone. Ctrl-C ends the sweep: what is finished is in the store.

    Args:
        cells: What to measure; `make_grid` and `make_factory_grid` make cells. A specification
            stands for the cell of its 16 networks.
        executor: Any executor: of threads, `dask.distributed.Client.get_executor()`, those of Ray
            and submitit. Without one, processes of this machine. In a script, the call must then
            stand below `if __name__ == "__main__":`.
        store: A file for the results; it is made if it does not exist. Folders, too.
        processes: Number of processes without an executor; the cores of this machine by default.
        limit: Most cells that are allowed.
        retry_failed: Measure cells again whose stored result is an error.
        progress: Called after each commit. An exception that it raises ends the sweep.

    Returns:
        One result per cell, in the order of the cells.

    Raises:
        SweepError: If there is no cell or too many, a factory cannot reach the workers, the store
            cannot be used, or the executor broke. `error.results` has what was finished.

    Warns:
        RuntimeWarning: When a worker died, if `progress` is not given.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(1) as threads:
        ...     sweep = run([NetworkSpec(depth=2, width=4)], threads)
        >>> sweep.results[0].status
        'measured'
    """
    check_arguments(executor, processes)
    if progress is not None and not callable(progress):
        raise SweepError(f"progress: must be a function; got {abbreviate(progress)}.")
    listed = _list_cells(cells, limit)
    addressed = {cell.address: cell for cell in listed}
    job = _Job(total=len(addressed), progress=progress or _warn)
    with ExitStack() as stack:
        if store is not None:
            job.store = stack.enter_context(SweepStore.open(store))
            found = job.store.find(addressed)
            job.results = {
                address: result
                for address, result in found.items()
                if not (retry_failed and result.status == "failed")
            }
            job.kept = len(job.results)
            job.failed = sum(each.status == "failed" for each in job.results.values())
        missing = [cell for address, cell in addressed.items() if address not in job.results]
        job.tell()
        if missing:
            pool = open_pool(executor, processes, missing)
            stack.callback(pool.stop)
            try:
                _measure(missing, pool, job)
            except SweepError as error:
                error.results = tuple(job.results.values())
                raise
    return Sweep(tuple(_name(job.results[cell.address], cell) for cell in listed))


def _list_cells(cells: Iterable[Cell | NetworkSpec], limit: int) -> list[Cell]:
    if not isinstance(cells, Iterable) or isinstance(cells, NetworkSpec):
        raise SweepError(f"cells: must be a list of cells; got {abbreviate(cells)}.")
    check_limit(0, limit)
    taken = list(itertools.islice(cells, limit + 1))
    if len(taken) > limit and not isinstance(cells, Sequence):
        raise SweepError(
            f"A sweep must have at most {limit:,} cells; this one has more, or no end. Take fewer, "
            "or raise the limit, such as limit=100_000."
        )
    check_limit(len(cells) if isinstance(cells, Sequence) else len(taken), limit)
    if not taken:
        raise SweepError("A sweep must have at least one cell; got none.")
    listed: list[Cell] = []
    for each in taken:
        cell = SpecCell(each) if isinstance(each, NetworkSpec) else each
        if not isinstance(cell, SpecCell | FactoryCell):
            raise SweepError(
                "Each cell must be a SpecCell, a FactoryCell or a NetworkSpec; got "
                f"{abbreviate(each)}."
            )
        listed.append(cell)
    return listed


def _warn(progress: Progress) -> None:
    if progress.note:
        warnings.warn(progress.note, RuntimeWarning, stacklevel=6)


@dataclass(slots=True)
class _Job:
    """What a sweep has so far, and where it goes."""

    total: int
    progress: Callable[[Progress], None]
    store: SweepStore | None = None
    results: dict[str, CellResult] = field(default_factory=dict)
    fresh: list[CellResult] = field(default_factory=list)
    kept: int = 0
    failed: int = 0
    begin: float = field(default_factory=time.perf_counter)
    first: int = 0
    first_seconds: float = 0.0

    def keep(self) -> None:
        """Commit the fresh results."""
        fresh = self.fresh
        if not fresh:
            return
        self.commit()
        if not self.first:
            self.first, self.first_seconds = len(fresh), time.perf_counter() - self.begin
        self.failed += sum(each.status == "failed" for each in fresh)
        self.tell()

    def commit(self) -> None:
        """Put the fresh results into the store; they stay fresh until they are there."""
        fresh = self.fresh
        self.results |= {each.address: each for each in fresh}
        if self.store is not None and fresh:
            self.store.add(fresh)
        self.fresh = []

    def tell(self, note: str = "") -> None:
        """Say how far the sweep is."""
        self.progress(
            Progress(
                done=len(self.results),
                total=self.total,
                kept=self.kept,
                failed=self.failed,
                seconds=time.perf_counter() - self.begin,
                note=note,
                first=self.first,
                first_seconds=self.first_seconds,
            )
        )


def _measure(cells: Iterable[Cell], pool: Pool | GivenPool, job: _Job) -> None:
    """Measure cells until each has a result.

    When processes die, nobody can say which of the cells that they had was the cause. So these are
    tried once more one at a time: what dies alone is the cause.
    """
    todo, suspects = deque(cells), deque[Cell]()
    tried: set[str] = set()
    running: dict[Answer, Cell] = {}
    try:
        while todo or suspects or running:
            lost = list(_fill(pool, todo, suspects, running))
            done = wait(running, return_when=FIRST_COMPLETED).done if running else set()
            for answer in done:
                _sort(answer, running[answer], job, lost)
                del running[answer]  # only now: Ctrl-C may come between any two lines
            if any(isinstance(error, BrokenExecutor) for _, error in lost):
                for answer, cell in running.items():  # they end at once, most of them by an error
                    _sort(answer, cell, job, lost)
                running.clear()
                job.keep()
                _renew(pool, job)
            for cell, error in lost:
                if cell.address in tried:
                    job.fresh.append(_fail(cell, error))
                    continue
                tried.add(cell.address)
                (suspects if isinstance(error, BrokenExecutor) else todo).append(cell)
            if lost:
                _report(lost, job)
            job.keep()
    except BaseException:
        _save(running, job)
        raise


def _fill(
    pool: Pool | GivenPool,
    todo: deque[Cell],
    suspects: deque[Cell],
    running: dict[Answer, Cell],
) -> Iterator[tuple[Cell, BaseException]]:
    """Hand cells to the pool; give those that it does not take."""
    alone = bool(suspects)
    source = suspects if alone else todo
    while source and len(running) < (1 if alone else pool.capacity):
        cell = source.popleft()
        try:
            running[pool.submit(cell)] = cell
        except BrokenExecutor as error:
            yield cell, error
            return


def _sort(
    answer: Answer,
    cell: Cell,
    job: _Job,
    lost: list[tuple[Cell, BaseException]],
) -> None:
    try:
        outcome, seconds = answer.result()
    except (Exception, CancelledError) as error:  # of the executor: a cell's own is an outcome
        lost.append((cell, error))
    else:
        job.fresh.append(_make_result(cell, outcome, seconds))


def _renew(pool: Pool | GivenPool, job: _Job) -> None:
    if not pool.renewable:
        raise SweepError(
            "The executor must stay usable, but a worker died and it takes nothing more; "
            f"{len(job.results)} of {job.total} cells are finished. Start the same sweep again "
            "with its store and a new executor: it goes on. Without an executor, chainrule starts "
            "new processes by itself."
        )
    pool.renew()


def _report(lost: Sequence[tuple[Cell, BaseException]], job: _Job) -> None:
    names = sorted({type(error).__name__ for _, error in lost})
    count = "1 cell" if len(lost) == 1 else f"{len(lost)} cells"
    job.tell(
        f"A worker died ({', '.join(names)}) while {count} waited for it; what was lost is tried "
        "once more."
    )


def _fail(cell: Cell, error: BaseException) -> CellResult:
    text = " ".join(str(error).split())[:500]
    message = (
        f"The cell must leave its worker alive, but the worker died twice: {type(error).__name__}: "
        f"{text}"
    )
    return _make_result(cell, Outcome(error=message), 0.0)


def _save(running: dict[Answer, Cell], job: _Job) -> None:
    """Commit what is finished, and take back what has not begun."""
    try:
        job.commit()
    finally:  # also where the disk is full: somebody's executor is not to measure in vain
        begun = [answer for answer in running if not answer.cancel()]
    for answer in wait(begun, _LAST_SECONDS).done:
        if not answer.cancelled() and answer.exception() is None:
            job.fresh.append(_make_result(running[answer], *answer.result()))
    job.commit()


def _name(result: CellResult, cell: Cell) -> CellResult:
    """Return a result under the settings of its cell: others may have the same address."""
    settings = _list_settings(cell)
    return result if result.settings == settings else replace(result, settings=settings)


def _list_settings(cell: Cell) -> dict[str, Plain]:
    is_spec = isinstance(cell, SpecCell)
    return {name: each for name, each in cell.settings.items() if not (is_spec and name == "seed")}


def _make_result(cell: Cell, outcome: Outcome, seconds: float) -> CellResult:
    return CellResult(
        address=cell.address,
        settings=_list_settings(cell),
        seed=cell.spec.seed if isinstance(cell, SpecCell) else cell.seed,
        seeds=cell.seeds if isinstance(cell, SpecCell) else 1,
        outcome=outcome,
        seconds=seconds,
    )
