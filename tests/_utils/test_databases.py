"""SQLite files: what is at a path, and whose it is."""

import os
import sqlite3

import pytest

from chainrule._utils.databases import (
    MAGIC,
    RUN_MARK,
    SWEEP_MARK,
    describe_file,
    has_mark,
    is_database,
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
