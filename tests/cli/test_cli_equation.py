"""`chainrule equation`: what it prints, writes and exits with."""

import json
from xml.etree import ElementTree

import pytest

from chainrule.chain import derive, describe_chain, draw_graph
from chainrule.chain.scalar_chain import ScalarChain

THREE = ["equation", "--layers", "3", "--activation", "sigmoid", "--x", "1"]
THREE += ["--weights", "0.5,-2,1.5", "--wrt", "w1"]
CHAIN = ScalarChain(1.0, [0.5, -2.0, 1.5])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cli_equation", THREE),
        ("cli_equation_forward", ["equation", "--weights", "0.5,-2", "--order", "forward"]),
        (
            "cli_equation_biases",
            ["equation", "--weights", "-2,1", "--biases", "0,1", "--activation", "tanh, relu"],
        ),
        ("cli_equation_defaults", ["equation"]),
        ("cli_equation_tied", ["equation", "--layers", "30", "--tied", "1.5", "--clip", "0.1",
                               "--activation", "tanh"]),
        ("cli_equation_vanished", ["equation", "--layers", "1000"]),
    ],
)  # fmt: skip
def test_output_is_as_recorded(run, golden, name, args):
    code, out, _ = run(*args)
    assert code == 0
    golden(name, out)


def test_latex(run):
    code, out, err = run(*THREE, "--latex")
    assert (code, out, err) == (0, derive(CHAIN).to_latex() + "\n", "")


def test_svg_is_written_beside_the_text(run, tmp_path):
    path = tmp_path / "graph.svg"
    plain = run(*THREE)[1]
    code, out, err = run(*THREE, "--svg", str(path))
    assert (code, out) == (0, plain)
    assert "Wrote" in err
    assert path.read_text(encoding="utf-8") == draw_graph(CHAIN, "w1")
    ElementTree.parse(path)


def test_json(run):
    code, out, _ = run(*THREE, "--json")
    assert code == 0
    assert json.loads(out) == describe_chain(CHAIN, "w1")


def test_all_unfolds(run):
    args = ["equation", "--layers", "30"]
    folded, unfolded = run(*args)[1], run(*args, "--all")[1]
    assert "⋯" in folded
    assert "⋯" not in unfolded
    assert "w₁₅ = 1" in unfolded
    assert r"\cdots" not in run(*args, "--all", "--latex")[1]


def test_tied_weights_without_clipping(run):
    out = run("equation", "--layers", "4", "--tied", "2", "--activation", "relu")[1]
    assert "∂p/∂x = w⁴ · ReLU′(z₄) · ReLU′(z₃) · ReLU′(z₂) · ReLU′(z₁)" in out
    assert "      = 16 · 1\n      = 16\n" in out
    assert out.endswith("∂p/∂w, summed over all steps, is 32.\n")
    dead = run("equation", "--layers", "2", "--tied", "-2", "--activation", "relu")[1]
    assert "      = 4 · 0\n      = 0\n" in dead


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "0"], "layers: must be a whole number from 1 to 1000; got 0."),
        (["--layers", "1000000"], "layers: must be a whole number from 1 to 1000; got 1000000."),
        (
            ["--layers", "3", "--weights", "1,2"],
            "weights: must be as many as layers (3); got 2. Make them agree, or leave layers out.",
        ),
        (["--weights", "1,nan"], "w2: must be a finite number; got nan."),
        (["--weights", "1,-inf"], "w2: must be a finite number; got -inf."),
        (
            ["--weights", "1,a"],
            "weights: must be numbers separated by commas, for example 0.5,-2,1.5; got 'a'.",
        ),
        (
            ["--weights", ""],
            "weights: must be numbers separated by commas, for example 0.5,-2,1.5; got ''.",
        ),
        (["--x", "inf"], "x: must be a finite number; got inf."),
        (["--wrt", "w9"], "wrt: unknown 'w9'. Did you mean 'w2'? Known: x, w1 … w2, b1 … b2."),
        (["--order", "up"], "order: must be 'backward' or 'forward'; got 'up'."),
        (
            ["--weights", "1,2", "--biases", "1"],
            "biases: must be as many as weights (2), or left out; got 1.",
        ),
        (
            ["--tied", "1", "--weights", "1,2"],
            "tied: must come without weights, biases and a list of activations, since every layer "
            "is the same. Leave them out, or leave tied out.",
        ),
        (["--clip", "1"], "clip: must come with a tied weight, whose gradient it clips. Add tied."),
        (
            ["--tied", "1", "--clip", "0"],
            "clip: must be a finite number above 0, or left out; got 0.0.",
        ),
        (["--tied", "nan"], "tied: must be a finite number; got nan."),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, args, message):
    assert run("equation", *args) == (2, "", f"error: {message}\n")


def test_an_unknown_activation(run):
    code, out, err = run("equation", "--activation", "sigmod")
    assert (code, out) == (2, "")
    assert err.startswith("error: activation: unknown 'sigmod'. Did you mean 'sigmoid'? Known:")


def test_a_file_that_cannot_be_written(run, tmp_path):
    code, out, err = run("equation", "--svg", str(tmp_path / "missing" / "graph.svg"))
    assert (code, out) == (2, "")
    assert "The output must be in an existing folder" in err


def test_a_value_that_is_no_number(run):
    code, out, err = run("equation", "--x", "abc")
    assert (code, out) == (2, "")
    assert "--x" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--json", "--latex"], "--json, --latex: must not come together"),
        (["--tied", "nan", "--layers", "3"], "tied: must be a finite number"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_the_name_that_was_typed(run, args, message):
    code, out, err = run("equation", *args)
    assert (code, out) == (2, "")
    assert message in err


def test_bounds_are_not_printed_as_numbers(run):
    _, out, _ = run("equation", "--weights", "1e308,-1e308,1e308")
    assert "σ′(z₁) < 10^(−" in out
    assert "= 10^(" not in out
    assert "≈ 10^(" not in out
