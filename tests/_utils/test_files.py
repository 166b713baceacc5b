"""Files are written whole or not at all."""

import os
from contextlib import contextmanager

import pytest

from chainrule._utils.files import check_writable, write_text
from chainrule.errors import FlowFileError

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
