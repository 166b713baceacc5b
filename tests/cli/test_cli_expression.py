"""`chainrule equation --expr`: what it prints, writes and exits with."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from chainrule._utils.numbers import format_number
from chainrule.chain import (
    EXPRESSIONS,
    ScalarGraph,
    derive_expression,
    describe_expression,
    draw_expression,
    get_expression,
)
from chainrule.display.expression import MOST_EQUATIONS, MOST_PATHS, print_expression

RESIDUAL = ["equation", "--expr", "x + sigmoid(w*x)", "--value", "x=0.5,w=1.2"]
GRAPH = ScalarGraph.parse("x + sigmoid(w*x)", {"x": 0.5, "w": 1.2})


def test_the_derivation_ends_in_the_number_that_autograd_finds(run):
    x, w = torch.tensor([0.5, 1.2], dtype=torch.float64).unbind()
    x.requires_grad_()
    (x + torch.sigmoid(w * x)).backward()
    code, out, err = run(*RESIDUAL)
    assert (code, err) == (0, "")
    assert f"      ≈ {format_number(x.grad.item())}\n" in out
    assert "u₂ = σ(u₁) ≈ 0.646" in out
    assert "= 1 + 1 · u₂(1 − u₂) · w" in out
    assert "78 %       1   p ← x\n" in out
    assert "dp/du₁ = dp/du₂ · ∂u₂/∂u₁ = dp/du₂ · u₂(1 − u₂)" in out


def test_values_are_1_unless_they_are_given(run):
    out = run("equation", "--expr", "x*w + b", "--value", "b=3", "--value", "w = -2")[1]
    assert "x = 1   w = −2   b = 3" in out


def test_names_keep_their_case(run):
    out = run("equation", "--expr", "W*x", "--wrt", "W")[1]
    assert "dp/dW = x" in out or "dp/dW = ∂p/∂W" in out


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_presets(run, name):
    preset = EXPRESSIONS[name]
    graph = preset.build()
    code, out, _ = run("equation", "--preset", name, columns=120)
    assert code == 0
    assert str(graph.gradient(preset.wrt)) in out
    changed = run("equation", "--preset", name, "--value", f"{preset.wrt}=0.25")[1]
    assert " = 0.25" in changed


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_row_fits_the_terminal(name, width):
    preset = get_expression(name)
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        print_expression(console, derive_expression(preset.build(), preset.wrt))
    rows = captured.get().splitlines()
    assert [row for row in rows if cell_len(row) > width] == []
    assert [row for row in rows if row != row.rstrip()] == []


def test_colours_say_what_factors_do():
    console = Console(width=80, color_system="standard", force_terminal=True)
    with console.capture() as captured:
        print_expression(console, derive_expression(get_expression("tied").build(), "w"))
    out = captured.get()
    assert "shrinks the gradient" in out
    assert "grows the gradient" in out
    assert "\x1b[94m" in out


def test_latex(run):
    code, out, err = run(*RESIDUAL, "--latex")
    assert (code, out, err) == (0, derive_expression(GRAPH, "x").to_latex() + "\n", "")


def test_json(run):
    code, out, _ = run(*RESIDUAL, "--json", "--wrt", "w")
    assert code == 0
    assert json.loads(out) == describe_expression(GRAPH, "w")


def test_svg_is_written_beside_the_text(run, tmp_path):
    path = tmp_path / "graph.svg"
    plain = run(*RESIDUAL)[1]
    code, out, err = run(*RESIDUAL, "--svg", str(path))
    assert (code, out) == (0, plain)
    assert "Wrote" in err
    assert path.read_text(encoding="utf-8") == draw_expression(GRAPH, "x")
    ElementTree.parse(path)


def build_tower(depth):
    lines = [f"h{n}=h{n - 1}+tanh(w*h{n - 1})" for n in range(1, depth + 1)]
    return ";".join(["h0=x+0", *lines])


def test_of_many_paths_the_largest_are_printed(run):
    args = ["equation", "--expr", build_tower(8), "--value", "w=0.3"]
    folded, whole = run(*args)[1], run(*args, "--all")[1]
    assert "256 paths, of which the largest 64" in folded
    assert folded.count("← h₀ ← x\n") <= MOST_PATHS
    assert f"{256 - MOST_PATHS} other paths" in folded
    assert "\n⋯ " in folded
    assert "192 other paths" in whole
    assert "\n⋯ " not in whole


def test_kinks_and_what_is_beyond_float64_are_said(run):
    out = run("equation", "--expr", "relu(x)*exp(-y)", "--value", "x=0,y=2000", "--wrt", "x")[1]
    assert "ReLU has a kink at 0" in out
    out = run("equation", "--expr", "exp(-y)", "--value", "y=2000")[1]
    assert "underflows float64" in out


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--expr", "x +"], "expression, character 4: +"),
        (["--expr", ""], "expression, character 1: nothing"),
        (["--expr", "1/x", "--value", "x=0"], "character 3: divisor 0"),
        (["--expr", "x", "--value", "x"], "value: x=0.5 'x'"),
        (["--expr", "x", "--value", "x=a"], "value: 'x=a'"),
        (["--expr", "x", "--value", "x=nan"], "value: finite 'x=nan'"),
        (["--expr", "x", "--value", "y=1"], "values: unknown 'y' Known: x"),
        (["--expr", "x", "--wrt", "y"], "wrt: unknown 'y' Known: x"),
        (["--expr", "x", "--preset", "tied"], "expr, preset: together"),
        (["--preset", "tide"], "preset: unknown 'tide' 'tied'"),
        (["--preset", "tied", "--value", "y=1"], "unknown 'y'"),
        (["--value", "x=1"], "value: expression"),
        (["--expr", "x", "--x", "2"], "--x: --expr chain --value x="),
        (["--expr", "x", "--layers", "3"], "--layers: --expr chain"),
        (["--preset", "tied", "--order", "forward"], "--order: chain"),
        (["--expr", "x", "--json", "--latex"], "--json, --latex: together"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, args, facts):
    code, out, err = run("equation", *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(fact in err for fact in facts.split()), err


def test_it_needs_no_torch():
    code = (
        "import sys\n"
        "from chainrule.cli import main\n"
        "try:\n"
        "    main(['equation', '--expr', 'x + sigmoid(w*x)', '--json'])\n"
        "except SystemExit as stopped:\n"
        "    assert not stopped.code\n"
        "assert not {'torch', 'numpy', 'sympy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_of_many_equations_both_ends_are_shown_once(run):
    text = "x"
    for _ in range(MOST_EQUATIONS + 6):
        text = f"sigmoid({text})"
    out = run("equation", "--expr", text)[1].partition("Backwards")[2]
    lines = [line for line in out.splitlines() if line.startswith(("dp/d", "⋯"))]
    half = MOST_EQUATIONS // 2
    assert len(lines) == len(set(lines)) == MOST_EQUATIONS + 1
    assert lines[0].startswith("dp/dp ")
    assert lines[half] == "⋯ 7 more ⋯"  # of one equation for each operation, and one for x
    assert lines[-1].startswith("dp/dx ")
    whole = run("equation", "--expr", text, "--all")[1].partition("Backwards")[2]
    every = [line for line in whole.splitlines() if line.startswith("dp/d")]
    assert len(every) == MOST_EQUATIONS + 7
    assert lines == [*every[:half], lines[half], *every[-half:]]
