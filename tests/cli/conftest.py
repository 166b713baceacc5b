import os
import subprocess
import sys
from pathlib import Path

import pytest

from chainrule.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(monkeypatch):
    """The addresses that a browser was asked to open; none is started."""
    addresses = []

    def open_address(address):
        addresses.append(address)
        return True

    monkeypatch.setattr("webbrowser.open", open_address)
    return addresses


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, opened):
    """Return a function that runs the command line here: (exit code, output, errors)."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def run_main(*args, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main


@pytest.fixture
def start(tmp_path):
    """Return a function that runs the command line as a program of its own, in a folder."""

    def run_program(*args, **settings) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "100", **settings.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "chainrule", *map(str, args)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            **settings,
        )

    return run_program
