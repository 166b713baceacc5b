import sys

import pytest

from chainrule.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command line here: (exit code, output, errors)."""
    monkeypatch.setenv("COLUMNS", "100")

    def run_main(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["chainrule", *args])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_main
