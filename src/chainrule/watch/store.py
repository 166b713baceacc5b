"""Writing a run: steps, samples and alarms into one SQLite file, from a thread of its own.

`RunWriter.write` only puts a record into a queue. The thread packs what came and commits it: 50
steps together, or what there is a second after the first of them. What is committed survives
`kill -9`. Some hundred steps later the small rows become one row (`rows.py`), in one transaction.
When the file can no longer be written, the writer says so once and stops; training goes on.

No other thread writes the file, and `flush` and `close` only wait. Ctrl-C reaches the main thread
alone, so it ends a wait, and never leaves a transaction half done.
"""

import atexit
import contextlib
import os
import secrets
import sqlite3
import threading
import time
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from chainrule._utils.databases import connect, describe_file
from chainrule.errors import ChainruleError, RunFileError, WatchError, abbreviate
from chainrule.watch.packing import DamagedError
from chainrule.watch.records import Alarm, Record, RunFacts, Sample, StepRecord
from chainrule.watch.rows import (
    describe_layers,
    list_samples,
    list_steps,
    pack_samples,
    pack_steps,
    unpack_samples,
    unpack_steps,
)
from chainrule.watch.schema import (
    DDL,
    SCHEMA_VERSION,
    is_run_file,
    read_facts,
    take_lock,
    write_alarm,
    write_ending,
    write_facts,
)

FLUSH_STEPS = 50
"""So many steps are committed together at most."""

FLUSH_SECONDS = 0.9
"""A record waits at most so long for its commit, which then takes some milliseconds."""

MAX_PENDING = 20_000
"""Records that may wait for a disk that does not answer."""

_Call = SimpleQueue[None] | None
"""What wakes the thread: `None`, the first record after a commit; or where to say that all that
was written before the call is committed.
"""

_PERHAPS = ("no SQLite database", "the beginning of a SQLite database, without the rest")
"""What a damaged run may look like: `chainrule runs export` may find something in it."""

_BLOCK_VALUES = 2**16
_BLOCK_STEPS = (64, 512)
_BLOCK_SAMPLES = 16


class RunWriter:
    """The only writer of one run file.

    Attributes:
        path: The file.
        last_step: The last step that the file held when it was opened; 0 in a new run.
        last_seconds: The `seconds` of that step: where the clock of the run goes on.
        failure: Why nothing is written any more; "" while all is well.

    Example:
        >>> import tempfile, pathlib
        >>> facts = RunFacts(name="a", model="Sequential", parameters=(), optimizers=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunWriter.open(pathlib.Path(folder) / "a.db", facts) as writer:
        ...         writer.last_step
        0
    """

    def __init__(self, path: Path, parameters: int) -> None:
        """Prepare a writer that has no file; `open` makes one that has."""
        self.path = path
        self.last_step = 0
        self.last_seconds = 0.0
        self.failure = ""
        self._parameters = parameters
        self._told = False
        self._closed = False
        self._owner = os.getpid()
        self._pending: deque[Record] = deque()
        self._waiting_steps = 0
        self._newest = {StepRecord: 0, Sample: 0}
        self._rewind = False
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._is_called = False
        self._ending = ""
        self._end: SimpleQueue[None] = SimpleQueue()
        self._is_over = False
        self._lock: sqlite3.Connection | None = None
        self._file: sqlite3.Connection | None = None
        self._thread: threading.Thread | None = None
        self._is_fresh = False
        self._tables: tuple[_Table, ...] = ()
        self._place = 0, 0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        facts: RunFacts,
        *,
        resume: bool = False,
        strict: bool = True,
        warns: bool = True,
    ) -> Self:
        """Make a run file, or go on with one, and become its only writer.

        Going on, the first step or sample that is written decides where: what the file holds of
        that step and later ones, alarms too, is replaced. So a run that continues from an older
        checkpoint does not hold two versions of a step.

        Args:
            path: The file; folders that are missing are made.
            facts: What is known of the run.
            resume: Go on with the file if it exists. Its parameters must be the same.
            strict: Raise if the file cannot be written. Otherwise that is a warning, said once,
                and the writer takes records and keeps none.
            warns: Whether to warn when the file can no longer be written. Otherwise only `failure`
                says so.

        Raises:
            RunFileError: If the file exists and `resume` is false; if it is another model's, is
                damaged or not a run; if another writer has it; or if it cannot be written.
        """
        writer = cls(Path(path), len(facts.parameters))
        writer._told = not warns
        try:
            writer._open(facts, resume=resume)
        except (sqlite3.Error, OSError, ValueError, RuntimeError) as error:
            writer._give_up()
            if isinstance(error, ChainruleError):
                refusal: ChainruleError = error
            elif isinstance(error, RuntimeError):
                refusal = RunFileError(
                    f"A run file must have a thread that writes it; for {writer.path} none could "
                    f"start: {error}. End threads or processes that are not needed."
                )
            else:
                refusal = RunFileError(
                    f"A run file must be in a folder that can be written; {writer.path} could not "
                    f"be opened: {_describe(error)}. Choose another place, or free it."
                )
            if strict or isinstance(error, WatchError):
                raise refusal from None
            writer.failure = f"{refusal} This run is not recorded; training goes on."
            writer._tell()
        except BaseException:
            writer._give_up()
            raise
        return writer

    def write(self, record: Record) -> None:
        """Take a record; it is on disk after a second at the latest.

        Steps must grow, and so must samples; both may come in any order of each other. The record
        and its arrays must not be changed afterwards. In a forked child this does nothing.

        Args:
            record: What to keep.

        Raises:
            RunFileError: If the record does not fit what came before. Then nothing is written.

        Warns:
            RuntimeWarning: Once, if the file can no longer be written.
        """
        if self.failure or self._closed or os.getpid() != self._owner:
            self._tell()
            return
        if not isinstance(record, Alarm):
            self._check(record)
            self._newest[type(record)] = record.step
        self._pending.append(record)  # no Ctrl-C comes between these two
        if isinstance(record, StepRecord):
            self._waiting_steps += 1
            if self._waiting_steps % FLUSH_STEPS == 0:
                self._calls.put(SimpleQueue())
        if not self._is_called:
            self._is_called = True
            self._calls.put(None)

    def has(self, record: StepRecord | Sample) -> bool:
        """Whether `write` took a step, or a sample, of the same number or a later one before.

        Args:
            record: Another one of its kind.
        """
        return self._newest[type(record)] >= record.step

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called; it may have been left by Ctrl-C."""
        return self._closed

    def flush(self) -> None:
        """Return when all that was written is committed."""
        if os.getpid() != self._owner or self._is_in_thread():
            return
        done: SimpleQueue[None] = SimpleQueue()
        self._calls.put(done)
        while self._thread is not None and not self._is_over:
            with contextlib.suppress(Empty):
                done.get(timeout=1.0)
                break
        self._tell()

    def close(self, ending: str = "") -> None:
        """Commit what is left, note how the run ended, and let others write the file.

        If Ctrl-C ends the wait for that, the thread goes on; a second call waits for it again, and
        so does the end of the process.

        Args:
            ending: What stopped it before its end, for example "ValueError at step 123"; "" if
                nothing did.
        """
        if os.getpid() != self._owner:
            return
        if not self._closed:
            self._ending = ending
            self._closed = True
        self._calls.put(SimpleQueue())
        if self._is_in_thread():  # which ends the file next
            return
        if self._thread is not None:
            # A `join` that Ctrl-C ends may take the thread for dead from then on (in Python 3.11).
            while not self._is_over:
                with contextlib.suppress(Empty):
                    self._end.get(timeout=1.0)
            self._thread.join()
        atexit.unregister(self.close)
        self._tell()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the writer."""
        self.close()

    def _open(self, facts: RunFacts, *, resume: bool) -> None:
        path = self.path
        if path.exists() and not path.is_file():
            raise RunFileError(f"A run file must be a file; {path} is none. Give another name.")
        if path.exists() and not resume:
            raise RunFileError(
                f"A new run must have a new file; {path} exists. Give another name, delete it, or "
                "go on with it: resume=True."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(path)
        fresh = not path.exists()
        if fresh:
            self._is_fresh = True
            _make_file(path, facts)
        elif not resume:  # another writer made it a moment ago
            raise RunFileError(f"A new run must have a new file; {path} exists. Give another name.")
        self._file = file = connect(path, "rw")
        state = os.stat(path)
        self._place = state.st_dev, state.st_ino
        if not fresh:
            self._resume(file, facts)
            _add_session(file, facts)
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("PRAGMA wal_autocheckpoint = 512")
        file.execute("PRAGMA journal_size_limit = 4194304")
        low, high = _BLOCK_STEPS
        steps = min(max(_BLOCK_VALUES // max(self._parameters, 1), low), high)
        self._tables = (
            _Table("steps", pack_steps, steps, lambda _: None),
            _Table("samples", pack_samples, _BLOCK_SAMPLES, describe_layers),
        )
        self._thread = threading.Thread(target=self._serve, name="chainrule-run", daemon=True)
        atexit.register(self.close)
        self._thread.start()

    def _resume(self, file: sqlite3.Connection, facts: RunFacts) -> None:
        """Check that a file is sound and of the same model, and find where it ends."""
        damaged = RunFileError(
            f"A run can only go on in a sound file; {self.path} is damaged or not a run of "
            "chainrule. Save what can be read with `chainrule runs export`, and start a new file."
        )
        if not is_run_file(self.path):
            what = describe_file(self.path)
            if what not in _PERHAPS:
                raise RunFileError(
                    f"A run can only go on in a file that chainrule.watch wrote; {self.path} is "
                    f"{what}. Nothing was changed. Give another name."
                )
            raise damaged
        try:
            version = file.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA_VERSION:
                raise RunFileError(
                    f"A run can only go on with schema version {SCHEMA_VERSION}; {self.path} has "
                    f"{version}. Use the chainrule that began it, or start a new file."
                )
            sound = file.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
            row = file.execute("SELECT facts FROM sessions ORDER BY id LIMIT 1").fetchone()
            if not sound or row is None:
                raise damaged
            before = read_facts(row[0])
            _check_same(self.path, before, facts)
            ends = [
                file.execute(f"SELECT max(last) FROM {name}").fetchone()[0] or 0
                for name in ("steps", "samples")
            ]
            last = file.execute("SELECT data FROM steps ORDER BY first DESC LIMIT 1").fetchone()
        except (sqlite3.DatabaseError, ValueError) as error:
            if isinstance(error, RunFileError) or _is_about_disk(error):
                raise
            raise damaged from None
        self._rewind = True
        self.last_step = max(ends)
        if last is not None:
            try:
                self.last_seconds = float(unpack_steps(last[0], self._parameters).seconds[-1])
            except DamagedError:
                raise damaged from None

    def _check(self, record: StepRecord | Sample) -> None:
        kind = type(record)
        norms = record.grad_norms if isinstance(record, StepRecord) else record.weight_norms
        if kind not in self._newest or len(norms) != self._parameters:
            raise RunFileError(
                f"A record must have one norm for each of the {self._parameters} parameters of the "
                f"run; got {len(norms)}. Open a new run when the model changes."
            )
        if record.step <= self._newest[kind]:
            raise RunFileError(
                f"Steps must grow: the next one must be above {self._newest[kind]}; got "
                f"{abbreviate(record.step)}."
            )
        if len(self._pending) >= MAX_PENDING:
            self.failure = (
                f"{self.path} has not taken anything for {MAX_PENDING:,} records: the disk is too "
                "slow or does not answer. Nothing more of this run is recorded; training goes on."
            )

    def _serve(self) -> None:
        """Commit what comes, until the writer is closed; then end the file."""
        try:
            while not self._closed:
                call = self._calls.get()
                if call is None and not self._closed:  # others will follow
                    with contextlib.suppress(Empty):
                        call = self._calls.get(timeout=FLUSH_SECONDS)
                self._commit()
                if call is not None:
                    call.put(None)
            self._commit()
            self._finish(self._ending)
            self._release()
        finally:
            self._is_over = True
            self._end.put(None)

    def _commit(self) -> None:
        self._is_called = False
        self._waiting_steps = 0
        records = [self._pending.popleft() for _ in range(len(self._pending))]
        if not records or self._file is None or self.failure:
            return
        try:
            self._check_place()
            self._file.execute("BEGIN IMMEDIATE")
            self._insert(self._file, records)
            self._file.execute("COMMIT")
        except Exception as error:  # whatever it is, it must not reach the training loop
            with contextlib.suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            self._fail(error)

    def _check_place(self) -> None:
        """Raise unless the file is where it was: what is written to a deleted one is lost.

        Raises:
            OSError: If it was deleted, moved or replaced.
        """
        try:
            state = os.stat(self.path)
        except FileNotFoundError:
            state = None
        if state is None or (state.st_dev, state.st_ino) != self._place:
            raise OSError("it was deleted, moved or replaced while the run was writing it")

    def _insert(self, file: sqlite3.Connection, records: Sequence[Record]) -> None:
        steps = [each for each in records if isinstance(each, StepRecord)]
        samples = [each for each in records if isinstance(each, Sample)]
        if self._rewind and (steps or samples):
            firsts = [each.step for each in steps[:1]] + [each.step for each in samples[:1]]
            self._forget(file, min(firsts))
        came: tuple[Sequence[Any], ...] = (steps, samples)
        for table, part in zip(self._tables, came, strict=True):
            table.insert(file, part)
        file.executemany(
            "INSERT OR REPLACE INTO flows VALUES (?, ?)",
            [
                (each.step, zlib.compress(each.flow.to_json().encode(), 6))
                for each in samples
                if each.flow is not None
            ],
        )
        file.executemany(
            "INSERT INTO alarms (step, data) VALUES (?, ?)",
            [(each.step, write_alarm(each)) for each in records if isinstance(each, Alarm)],
        )

    def _forget(self, file: sqlite3.Connection, step: int) -> None:
        """Remove a step and all later ones, which the run takes again."""
        readers: tuple[Callable[[bytes], list[Any]], ...] = (
            lambda data: list_steps(unpack_steps(data, self._parameters)),
            lambda data: list_samples(unpack_samples(data, self._parameters)),
        )
        for table, read in zip(self._tables, readers, strict=True):
            cut = file.execute(
                f"SELECT first, data FROM {table.name} WHERE first < ? AND last >= ?", (step, step)
            ).fetchone()
            file.execute(f"DELETE FROM {table.name} WHERE last >= ?", (step,))
            if cut is not None:
                table.insert(file, [each for each in read(cut[1]) if each.step < step])
        file.execute("DELETE FROM flows WHERE step >= ?", (step,))
        file.execute("DELETE FROM alarms WHERE step >= ?", (step,))
        self._rewind = False

    def _finish(self, ending: str) -> None:
        """Pack the last rows, note the end, and leave one plain file behind."""
        file = self._file
        if file is None or self.failure:
            return
        try:
            file.execute("BEGIN IMMEDIATE")
            for table in self._tables:
                table.pack_rest(file)
            file.execute(
                "UPDATE sessions SET closed = ? WHERE id = (SELECT max(id) FROM sessions)",
                (time.time(),),
            )
            if ending:
                write_ending(file, ending)
            file.execute("COMMIT")
            file.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page only
            file.execute("PRAGMA busy_timeout = 100")
            file.execute("PRAGMA journal_mode = DELETE").fetchall()
        except Exception as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF != sqlite3.SQLITE_BUSY:  # somebody reads: stays WAL
                self._fail(error)

    def _is_in_thread(self) -> bool:
        """Whether the writer's own thread is here, which must not wait for itself.

        The garbage collector calls `__del__` of any object in any thread, and that may close a run.
        """
        return threading.current_thread() is self._thread

    def _give_up(self) -> None:
        """Leave no file, no lock and no thread behind where a file could not be opened."""
        atexit.unregister(self.close)
        file, self._file = self._file, None
        if file is not None:
            file.close()
        if self._is_fresh:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    self.path.with_name(self.path.name + end).unlink()
        self._release()
        self._closed = True  # a thread that has started ends
        self._calls.put(None)
        self._thread = None

    def _release(self) -> None:
        for connection in (self._file, self._lock):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._file = self._lock = None

    def _fail(self, error: Exception) -> None:
        self.failure = (
            f"{self.path} could not be written: {_describe(error)}. Nothing more of this run is "
            "recorded; training goes on. Free space or choose another place, then go on with "
            "resume=True."
        )
        self._pending.clear()

    def _tell(self) -> None:
        """Say why nothing is written any more: once, and in the thread of the user."""
        if self.failure and not self._told:
            self._told = True
            warnings.warn(self.failure, RuntimeWarning, stacklevel=3)


class _Table:
    """One table of packed rows, and the records of its last rows, which are packed again."""

    def __init__(
        self,
        name: str,
        pack: Callable[..., bytes],
        block: int,
        describe: Callable[[Any], object],
    ) -> None:
        self.name = name
        self._pack = pack
        self._block = block
        self._describe = describe
        self._rest: list[Any] = []

    def insert(self, file: sqlite3.Connection, records: Sequence[Any]) -> None:
        """Add records, each run of alike ones as a row; pack the last rows if they are enough."""
        while records:
            alike = self._describe(records[0])
            count = next(
                (place for place, each in enumerate(records) if self._describe(each) != alike),
                len(records),
            )
            if self._rest and self._describe(self._rest[0]) != alike:
                self.pack_rest(file)
            self._add(file, records[:count], together=False)
            self._rest += [_lighten(each) for each in records[:count]]
            if len(self._rest) >= self._block:
                self.pack_rest(file)
            records = records[count:]

    def pack_rest(self, file: sqlite3.Connection) -> None:
        """Replace the last rows by one."""
        if self._rest:
            file.execute(f"DELETE FROM {self.name} WHERE first >= ?", (self._rest[0].step,))
            self._add(file, self._rest, together=True)
            self._rest = []

    def _add(self, file: sqlite3.Connection, records: Sequence[Any], *, together: bool) -> None:
        data = self._pack(records, together=together)
        file.execute(
            f"INSERT INTO {self.name} VALUES (?, ?, ?)", (records[0].step, records[-1].step, data)
        )


def _lighten(record: Any) -> Any:
    """Return a record without its flow, which is large and already written."""
    return record if getattr(record, "flow", None) is None else replace(record, flow=None)


def _make_file(path: Path, facts: RunFacts) -> None:
    """Make a run file: it is there whole or not at all."""
    draft = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}")
    try:
        file = connect(draft, "rwc")
        try:
            file.executescript(DDL)
            _add_session(file, facts)
        finally:
            file.close()
        os.replace(draft, path)  # nobody else makes it: the lock is ours
    finally:
        draft.unlink(missing_ok=True)


def _add_session(file: sqlite3.Connection, facts: RunFacts) -> None:
    file.execute(
        "INSERT INTO sessions (facts, opened) VALUES (?, ?)", (write_facts(facts), time.time())
    )


def _check_same(path: Path, before: RunFacts, facts: RunFacts) -> None:
    """Raise unless a run goes on with the parameters that it began with."""
    old = [(each.name, each.shape) for each in before.parameters]
    new = [(each.name, each.shape) for each in facts.parameters]
    if old != new:
        place = next(
            (place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
            min(len(old), len(new)),
        )
        had, has = (
            f"{each[place][0]} {list(each[place][1])}" if place < len(each) else "none"
            for each in (old, new)
        )
        raise RunFileError(
            f"A run must go on with the parameters it began with; in {path} parameter {place + 1} "
            f"of {len(old)} is {had}, and in this model ({len(new)} parameters) it is {has}. Start "
            "a new file."
        )


def _is_about_disk(error: Exception) -> bool:
    """Return whether an error of SQLite is about access and space, not about what a file holds."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in {
        *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM),
    }


def _describe(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {error}"
