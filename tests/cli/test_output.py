"""What reaches the terminal, standard output and the shell, whatever the user's code does."""

import json
import os
import re
import stat
import subprocess
import sys

import pytest

NAMES = ("heads[en]", "tasks[/x]", ":smile:", "a\x1b[31mb\rc\x07d\u202ee\x9bf")
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

MODEL = f"""
import atexit, os, sys, threading
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({{name: nn.Linear(4, 4) for name in {NAMES!r}}})

    def forward(self, x):
        for part in self.parts.values():
            x = torch.sigmoid(part(x))
        return x

def build():
    torch.manual_seed(0)
    return Model(), lambda model: model(torch.ones(3, 4)).sum()

def chatter():
    print("printed at once")
    os.write(1, b"written to the descriptor\\n")
    os.system("echo by a child")
    model, compute_loss = build()

    def compute_loudly(model):
        print("printed while measuring")
        return compute_loss(model)

    return model, compute_loudly

def chatter_to_the_end():
    atexit.register(print, "printed at the end")
    return chatter()

def leave(code=1):
    sys.exit(code)

def leave_later():
    return Model(), lambda model: sys.exit(1)

class Odd(BaseException):
    pass

def odd():
    raise Odd("no Exception")

def odd_later():
    return Model(), lambda model: odd()

def scream():
    raise ValueError("\\x1b[2J[/bold]")

def exhaust():
    return exhaust()
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "[model].py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize("options", [(), ("--all",), ("--remedies",)])
def test_names_are_printed_verbatim_and_never_act(run, model, options):
    code, out, err = run("inspect", f"{model}:build", *options)
    assert code == 0
    for name in ("heads[en]", "tasks[/x]", ":smile:", r"\x1b[31mb\rc\x07d\u202ee\x9bf"):
        assert name in out
    assert not ACTING.search(out + err)


def test_json_holds_names_exactly_and_nothing_that_acts(run, model):
    _, out, _ = run("inspect", f"{model}:build", "--json")
    names = [parameter["name"] for parameter in json.loads(out)["flow"]["parameters"]]
    assert names[::2] == [f"parts.{name}.weight" for name in NAMES]
    assert not ACTING.search(out)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("simulate", "--depth", "2", "--report", "a.png"), ".html"),
        (("simulate", "--depth", "2", "--output", "a.html"), ".json"),
        (("equation", "--svg", "a.png"), ".svg"),
        (("width", "model.py:build", "--plot", "a.pdf"), ".html"),
    ],
)
def test_a_file_is_named_like_what_it_holds(run, tmp_path, monkeypatch, words, kind):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert kind in err
    assert words[-1] in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("simulate", "--depth", "1.5"), ("--depth", "'1.5'", "chainrule simulate --help")),
        (("simulate", "--depth=x"), ("--depth", "'x'", "chainrule simulate --help")),
        (("runs", "prune", "--keep", "-1"), ("--keep", "'-1'", "chainrule runs prune --help")),
        (("equation", "--layers"), ("--layers", "chainrule equation --help")),
        (("runs", "show", "--folder"), ("--folder", "chainrule runs show --help")),
    ],
)
def test_a_wrong_option_says_what_came_and_where_to_read_on(run, words, facts):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    for fact in facts:
        assert fact in err


def test_closed_streams_are_no_error(start):
    for closed in (">&-", "2>&-"):
        command = f'"{sys.executable}" -m chainrule equation {closed}'
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr


def test_file_names_and_messages_are_printed_verbatim(run, model, tmp_path):
    target = tmp_path / "[flow]\x1b[1m.json"
    code, _, err = run("inspect", f"{model}:build", "--output", target)
    assert code == 0
    assert r"[flow]\x1b[1m.json" in err
    code, _, err = run("inspect", f"{model}:scream")
    assert code == 2
    assert r"ValueError: \x1b[2J[/bold]" in err
    assert "[model].py:scream" in err
    code, _, err = run("simulate", "--activation", "[red]\x1b[2J")
    assert code == 2
    assert "[red]" in err
    assert not ACTING.search(err)


def test_output_is_json_though_the_users_code_prints(start, model):
    done = start("inspect", f"{model}:chatter_to_the_end", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["diagnosis"]["verdict"]
    for said in (
        "printed at once",
        "written to the descriptor",
        "by a child",
        "printed while measuring",
        "printed at the end",
    ):
        assert said in done.stderr
        assert said not in done.stdout


def test_what_is_printed_here_is_kept_apart_as_well(run, model):
    code, out, err = run("inspect", f"{model}:chatter", "--json")
    assert code == 0
    assert json.loads(out)["flow"]["parameters"]
    assert "printed while measuring" in err


@pytest.mark.parametrize(
    "function", ["leave", "leave_later", "odd", "odd_later", "scream", "exhaust", "nothing"]
)
def test_code_that_fails_is_never_taken_for_an_unhealthy_network(run, model, function):
    code, out, err = run("inspect", f"{model}:{function}", "--check")
    assert (code, out) == (2, "")
    assert "error: " in err
    assert "Traceback" not in err


def test_a_fault_of_ours_is_never_taken_for_an_unhealthy_network(run, monkeypatch):
    def fail(*args, **settings):
        raise AssertionError("[wrong]\x1b")

    monkeypatch.setattr("chainrule.display.terminal.render_presets", fail)
    code, _, err = run("presets")
    assert code == 2
    assert r"AssertionError: [wrong]\x1b" in err
    assert "--debug" in err


def test_an_interrupt_says_so(run, monkeypatch):
    def interrupt(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("chainrule.display.terminal.render_presets", interrupt)
    code, _, err = run("presets")
    assert code == 130
    assert "nterrupted" in err


@pytest.mark.skipif(os.name != "posix", reason="needs pipes of the system")
def test_a_reader_that_goes_away_is_no_verdict(tmp_path):
    import subprocess
    import sys

    program = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "equation", "--layers", "1000", "--all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    program.stdout.readline()
    program.stdout.close()
    errors = program.stderr.read()
    program.stderr.close()
    assert program.wait() == 141
    assert errors == b""


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of the system")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_files_get_the_permissions_that_the_umask_leaves(run, tmp_path, mask):
    before = os.umask(mask)
    try:
        small = ("--depth", "2", "--width", "4", "--seeds", "1")
        run("simulate", *small, "-o", tmp_path / "flow.json", "--report", tmp_path / "report.html")
        run("equation", "--svg", tmp_path / "graph.svg")
    finally:
        os.umask(before)
    for name in ("flow.json", "report.html", "graph.svg"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_an_encoding_without_the_signs_is_no_failure(start):
    done = start("presets", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert r"\u03c3" in done.stdout
    done = start("presets", "--json", env={"PYTHONIOENCODING": "ascii"})
    assert "σ" in json.loads(done.stdout)[2]["name"]


@pytest.mark.parametrize(
    "args",
    [
        ("equation", "--layers", "3"),
        ("--help",),
        ("simulate", "--help"),
        ("inspect", "--help"),
        ("--version",),
        ("presets",),
    ],
)
def test_what_measures_nothing_starts_without_torch(args):
    import subprocess
    import sys

    code = (
        "import sys\nfrom chainrule.cli import main\n"
        f"try:\n    main({list(args)!r})\n"
        "except SystemExit as stopped:\n    assert not stopped.code\n"
        "heavy = {'torch', 'plotly', 'fastapi', 'pandas', 'sympy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
