"""Files and tables are written whole or not at all."""

import csv
import os
from contextlib import contextmanager

import pytest

from chainrule._utils.files import check_writable, write_text
from chainrule._utils.tables import check_table, write_table
from chainrule.errors import FlowFileError, SpecError

TEXT = "‖∂𝓛/∂W‖\n" * 1000
"""Longer than any buffer, and not ASCII."""


@contextmanager
def limit_file_size(size):
    """Have the system refuse to write longer files, as a full disk would."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def older(tmp_path):
    path = tmp_path / "flow.json"
    path.write_text("older")
    return path


@pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path])
def test_writes_text_as_utf8(tmp_path, kind):
    write_text(kind(tmp_path / "new.json"), TEXT)
    assert (tmp_path / "new.json").read_text(encoding="utf-8") == TEXT
    os.umask(umask := os.umask(0))
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["new.json"]


def test_replaces_an_older_file_and_keeps_its_mode(older):
    older.chmod(0o640)
    write_text(older, TEXT)
    assert older.read_text(encoding="utf-8") == TEXT
    assert older.stat().st_mode & 0o777 == 0o640
    assert os.listdir(older.parent) == ["flow.json"]


def test_a_full_disk_leaves_the_older_file_and_no_draft(older):
    failure = None
    with limit_file_size(1000):
        try:
            write_text(older, TEXT)
        except FlowFileError as error:
            failure = str(error)
    assert failure == f"Could not write {older}: File too large."
    assert older.read_text() == "older"
    assert os.listdir(older.parent) == ["flow.json"]


def test_text_that_cannot_be_encoded_leaves_the_older_file_and_no_draft(older):
    with pytest.raises((UnicodeEncodeError, FlowFileError)):
        write_text(older, "\ud800")
    assert older.read_text() == "older"
    assert os.listdir(older.parent) == ["flow.json"]


@pytest.mark.parametrize("function", [check_writable, lambda path: write_text(path, TEXT)])
class TestImpossiblePlaces:
    def test_a_missing_folder_is_named(self, function, tmp_path):
        place = tmp_path / "nowhere" / "flow.json"
        with pytest.raises(FlowFileError) as caught:
            function(place)
        assert str(caught.value) == (
            f"The output must be in an existing folder; there is no {place.parent}. "
            "Create it first."
        )

    def test_a_folder_is_no_file(self, function, tmp_path):
        with pytest.raises(FlowFileError) as caught:
            function(tmp_path)
        assert str(caught.value) == f"The output must be a file, but {tmp_path} is a folder."

    def test_an_unwritable_folder_is_named(self, function, tmp_path, monkeypatch):
        # Root may write everywhere: have the system answer as it answers other users.
        monkeypatch.setattr(
            os, "access", lambda path, mode: bool(os.stat(path).st_mode & mode << 6)
        )
        tmp_path.chmod(0o500)
        with pytest.raises(FlowFileError) as caught:
            function(tmp_path / "flow.json")
        assert str(caught.value) == f"The output folder must be writable; {tmp_path} is not."
        assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
def test_a_place_where_the_system_refuses_is_named():
    with pytest.raises(FlowFileError, match="/proc"):
        write_text("/proc/flow.json", TEXT)


def test_checking_creates_nothing(tmp_path):
    check_writable(tmp_path / "flow.json")
    assert os.listdir(tmp_path) == []


def test_what_is_neither_a_file_nor_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FlowFileError, match="no regular file"):
        check_writable(tmp_path / "pipe")


def test_a_link_stays_and_the_file_it_leads_to_is_written(older, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(older)
    write_text(link, TEXT)
    assert link.is_symlink()
    assert older.read_text(encoding="utf-8") == TEXT


class TestTables:
    @pytest.mark.parametrize("name", ["a.csv", "a.CSV"])
    def test_hold_a_head_and_rows_and_count_these(self, name, tmp_path):
        check_table(tmp_path / name, SpecError)
        rows = [(1, "α"), (None, 0.5), (3, "x,y")]
        assert write_table(tmp_path / name, ["a", "b"], iter(rows), SpecError) == 3
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [["a", "b"], ["1", "α"], ["", "0.5"], ["3", "x,y"]]
        assert write_table(tmp_path / name, ["a", "b"], iter(()), SpecError) == 0
        assert os.listdir(tmp_path) == [name]

    @pytest.mark.parametrize("rows", [[(1, 0.5), (2, None)], []])
    @pytest.mark.parametrize("name", ["a.parquet", "a.Parquet"])
    def test_hold_the_same_as_parquet(self, name, rows, tmp_path):
        polars = pytest.importorskip("polars")
        check_table(tmp_path / name, SpecError)
        assert write_table(tmp_path / name, ["a", "b"], iter(rows), SpecError) == len(rows)
        found = polars.read_parquet(tmp_path / name)
        assert (found.columns, found.rows()) == (["a", "b"], rows)
        assert os.listdir(tmp_path) == [name]

    def test_of_columns_with_one_name_are_no_parquet(self, tmp_path):
        pytest.importorskip("polars")
        with pytest.raises(SpecError, match="'b' is there twice"):
            write_table(tmp_path / "a.parquet", ["a", "b", "b"], iter([(1, 2, 3)]), SpecError)
        assert write_table(tmp_path / "a.csv", ["b", "b"], iter([(1, 2)]), SpecError) == 1

    @pytest.mark.parametrize("name", ["a.txt", "csv", "a.csv.gz"])
    def test_of_another_kind_are_refused(self, name, tmp_path):
        with pytest.raises(SpecError, match=r"must end with \.csv or \.parquet"):
            check_table(tmp_path / name, SpecError)

    def test_that_fail_leave_the_older_one_and_nothing_else(self, tmp_path):
        (tmp_path / "a.csv").write_text("older")

        def fail():
            yield (1,)
            raise RuntimeError("lost")

        with pytest.raises(RuntimeError, match="lost"):
            write_table(tmp_path / "a.csv", ["a"], fail(), SpecError)
        assert (tmp_path / "a.csv").read_text() == "older"
        assert os.listdir(tmp_path) == ["a.csv"]
