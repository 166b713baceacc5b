"""Where cells are measured: processes of this machine, any executor, or a Dask cluster."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from chainrule.errors import SweepError, abbreviate
from chainrule.sweeps.cells import Cell, FactoryCell
from chainrule.sweeps.measuring import measure_cell
from chainrule.sweeps.records import Outcome

MAX_PROCESSES = 1024
MAX_SUBMITTED = 2000
"""Cells that wait in somebody's executor at most."""

Answer = Future[tuple[Outcome, float]]


class Pool:
    """Processes of this machine, which end when this one does, however it ends.

    They are started afresh ("spawn"), compute with one intra-op thread each, and leave Ctrl-C to
    the process that started them.
    """

    renewable = True

    def __init__(self, processes: int) -> None:
        """Start the processes.

        Raises:
            SweepError: If they cannot start.
        """
        self.capacity = 2 * processes
        self._processes = processes
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, self._theirs = _make_pipe()
        self._executor = ProcessPoolExecutor(
            self._processes, mp_context=context, initializer=_prepare, initargs=(self._theirs,)
        )
        try:
            # One task per process starts all of them now: they take seconds to load PyTorch.
            with _hold_interrupt():
                probes = [self._executor.submit(os.getpid) for _ in range(self._processes)]
            probes[0].result()
        except (BrokenExecutor, OSError) as error:
            self.stop()
            raise SweepError(
                f"Worker processes must be able to start, but did not: {error}. In a script, the "
                "sweep must stand below `if __name__ == '__main__':`, because each process loads "
                "the script. Or give an executor."
            ) from None
        except BaseException:
            self.stop()
            raise

    def submit(self, cell: Cell) -> Answer:
        """Have a cell measured."""
        with _hold_interrupt():
            return self._executor.submit(measure_cell, cell)

    def renew(self) -> None:
        """Start new processes in place of those that died."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """End all processes now, also those that are measuring."""
        self._ours.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._theirs.close()  # open until now, because processes start when there is work


class GivenPool:
    """Somebody's executor, which is theirs to end."""

    renewable = False
    capacity = MAX_SUBMITTED

    def __init__(self, executor: Executor) -> None:
        """Hold an executor."""
        self._executor = executor

    def submit(self, cell: Cell) -> Answer:
        """Have a cell measured.

        Raises:
            SweepError: If the executor takes nothing more.
        """
        try:
            return self._executor.submit(measure_cell, cell)
        except BrokenExecutor:
            raise
        except RuntimeError as error:
            raise SweepError(
                f"The executor must take work until the sweep has ended, but does not: {error}. "
                "Call shutdown() afterwards, or leave the executor out."
            ) from None

    def renew(self) -> None:
        """Do nothing: it cannot be renewed."""

    def stop(self) -> None:
        """Do nothing: what waits is taken back by the sweep."""


def open_pool(
    executor: Executor | None, processes: int | None, cells: Iterable[Cell]
) -> Pool | GivenPool:
    """Return where some cells are measured.

    Raises:
        SweepError: If a cell cannot reach another process, or the processes cannot start.
    """
    waiting = list(cells)
    if executor is None or isinstance(executor, ProcessPoolExecutor):
        for cell in {
            id(each.factory): each for each in waiting if isinstance(each, FactoryCell)
        }.values():
            check_picklable(cell)
    if executor is not None:
        return GivenPool(executor)
    return Pool(max(min(processes or count_cores(), len(waiting)), 1))


def check_arguments(executor: object, processes: object) -> None:
    """Raise unless a sweep can run with an executor or a number of processes.

    Raises:
        SweepError: If it cannot.
    """
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise SweepError(
            "executor: must be a concurrent.futures.Executor, with a method submit; got "
            f"{abbreviate(executor)}."
        )
    if processes is None:
        return
    if executor is not None:
        raise SweepError("processes: the executor decides how many; give only one of the two.")
    whole = isinstance(processes, int) and not isinstance(processes, bool)
    if not whole or not 1 <= processes <= MAX_PROCESSES:  # type: ignore[operator]
        raise SweepError(
            f"processes: must be a whole number from 1 to {MAX_PROCESSES}; got "
            f"{abbreviate(processes)}."
        )


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_picklable(cell: FactoryCell) -> None:
    """Raise unless another process of this machine can load the factory of a cell.

    Raises:
        SweepError: If it cannot.
    """
    factory: Callable[..., Any] = cell.factory
    while isinstance(factory, partial):
        factory = factory.func
    advice = (
        "Put it at the top of a module, under its own name; or give an executor of threads: "
        "executor=ThreadPoolExecutor()."
    )
    main = sys.modules.get("__main__")
    if getattr(factory, "__module__", "") == "__main__" and not getattr(main, "__file__", None):
        raise SweepError(
            f"A factory must be one that other processes can load; {abbreviate(factory)} exists in "
            f"this session only. {advice}"
        )
    taken = sys.modules.get(getattr(factory, "__module__", ""))
    file = getattr(getattr(factory, "__code__", None), "co_filename", None)
    other = getattr(taken, "__file__", None)
    if file and other and not hasattr(taken, getattr(factory, "__name__", "")) and file != other:
        raise SweepError(
            f"A factory must be in a file with a name of its own; {file} has that of the module "
            f"{other}, which other processes would load. Rename the file."
        )
    try:
        pickle.dumps(cell)
    except Exception as error:
        raise SweepError(
            f"A factory must be one that other processes can load; {abbreviate(factory)} cannot be "
            f"pickled: {error}. {advice}"
        ) from None


@contextmanager
def connect_dask(address: str) -> Iterator[Executor]:
    """Give an executor that measures on a Dask cluster.

    Args:
        address: Of its scheduler, for example "tcp://10.0.0.1:8786".

    Raises:
        SweepError: If Dask is not installed, or the cluster does not answer.

    Example:
        >>> with connect_dask("tcp://127.0.0.1:8786") as executor:  # doctest: +SKIP
        ...     run(cells, executor)
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise SweepError(
            "A sweep on a Dask cluster needs distributed, which is not installed. Run: "
            "pip install 'chainrule[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError, TypeError) as error:
        raise SweepError(
            f"--dask must be the address of a Dask scheduler that runs, such as "
            f"tcp://10.0.0.1:8786; {abbreviate(address)} did not answer: {error}."
        ) from None
    with client:
        yield client.get_executor()


@contextmanager
def _hold_interrupt() -> Iterator[None]:
    """Keep Ctrl-C back for a moment, so that a process that starts now never sees one.

    It would print a traceback while it loads PyTorch. It has the signal blocked from its first
    instruction on, and ignores it when it is ready.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_pipe() -> tuple[Connection, Connection]:
    """Return our end and that of the workers, on which they notice that we have ended."""
    theirs, ours = multiprocessing.get_context("spawn").Pipe(duplex=False)
    return ours, theirs


def _prepare(alive: Connection) -> None:
    """Make a worker process ready."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()


def _end_with_parent(alive: Connection) -> None:
    """End this process at once when the other end of the pipe is closed."""
    try:
        alive.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
