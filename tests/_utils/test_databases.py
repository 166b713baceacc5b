"""SQLite files: what is at a path, and whose it is."""

import os
import sqlite3

import pytest

from chainrule._utils.databases import (
    MAGIC,
    RUN_MARK,
    SWEEP_MARK,
    connect,
    describe_file,
    has_mark,
    is_database,
    take_lock,
)


def make_database(path, mark=0):
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {mark}")
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    return path


@pytest.mark.parametrize(
    ("mark", "fact"), [(RUN_MARK, "training run"), (SWEEP_MARK, "sweep"), (7, "another program")]
)
def test_a_database_is_known_by_its_mark(mark, fact, tmp_path):
    path = make_database(tmp_path / "a.db", mark)
    assert fact in describe_file(path)
    assert is_database(path)
    assert [has_mark(path, each) for each in (mark, mark + 1)] == [True, False]


@pytest.mark.parametrize(
    ("content", "fact", "known"),
    [
        (b"", "an empty file", False),
        (MAGIC[:-1], "no SQLite database", False),
        (b"x" * 200, "no SQLite database", False),
        (MAGIC, "without the rest", True),
        (MAGIC + b"\0" * 83, "without the rest", True),
        (MAGIC + b"\0" * 84, "another program", True),
    ],
)
def test_what_else_a_file_can_be(content, fact, known, tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(content)
    assert fact in describe_file(path)
    assert is_database(path) is known
    assert not has_mark(path, RUN_MARK)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert describe_file(tmp_path) == "a folder"
    assert describe_file(tmp_path / "pipe") == "no regular file"
    for path in (tmp_path, tmp_path / "lost"):
        assert not is_database(path)
        assert not has_mark(path, RUN_MARK)


def test_a_mark_counts_in_databases_alone(tmp_path):
    path = make_database(tmp_path / "a.db", RUN_MARK)
    path.write_bytes(b"x" * 16 + path.read_bytes()[16:])
    assert not has_mark(path, RUN_MARK)


def test_there_is_one_writer_at_a_time(tmp_path):
    path = tmp_path / "a.db"
    lock = take_lock(path)
    assert lock is not None
    assert take_lock(path) is None
    lock.close()
    again = take_lock(path)
    assert again is not None
    again.close()


def test_what_nobody_writes_is_read_without_a_lock(tmp_path):
    path = make_database(tmp_path / "a.db")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    connection.close()
    reader = connect(path, "immutable")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.close()
    assert os.listdir(tmp_path) == ["a.db"]
