"""`chainrule equation`: what it prints, writes and exits with."""

import json
from xml.etree import ElementTree

import pytest
import torch

from chainrule._utils.numbers import format_number
from chainrule.chain import derive, describe_chain, draw_graph
from chainrule.chain.arguments import DEFAULT_LAYERS
from chainrule.chain.scalar_chain import ScalarChain

THREE = ["equation", "--layers", "3", "--activation", "sigmoid", "--x", "1"]
THREE += ["--weights", "0.5,-2,1.5", "--wrt", "w1"]
CHAIN = ScalarChain(1.0, [0.5, -2.0, 1.5])
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def test_the_derivation_ends_in_the_number_that_autograd_finds(run):
    x = torch.tensor(1.0, dtype=torch.float64)
    weights = torch.tensor([0.5, -2.0, 1.5], dtype=torch.float64, requires_grad=True)
    for weight in weights:
        x = torch.sigmoid(weight * x)
    x.backward()
    code, out, _ = run(*THREE)
    assert code == 0
    assert out.rstrip().splitlines()[-1].split() == ["≈", format_number(weights.grad[0].item())]
    assert "h₃(1 − h₃) · w₃ · h₂(1 − h₂) · w₂ · h₁(1 − h₁) · x" in out


def test_without_options_there_are_the_layers_that_the_help_says(run):
    helped = " ".join(run("equation", "--help")[1].split())
    assert f"else {DEFAULT_LAYERS}]" in helped
    for options in ((), ("--tied", "1")):
        out = run("equation", *options)[1]
        assert f"w{DEFAULT_LAYERS}".translate(SUBSCRIPTS) in out
        assert f"w{DEFAULT_LAYERS + 1}".translate(SUBSCRIPTS) not in out


def test_forward_order_and_capitals(run):
    out = run("equation", "--weights", "0.5,-2", "--order", "forward", "--wrt", "W1")[1]
    assert "∂p/∂w₁ = ∂z₁/∂w₁ · ∂p/∂z₁" in out
    assert "= x · h₁(1 − h₁) · w₂ · h₂(1 − h₂)" in out


def test_what_vanishes_beyond_float64_is_said(run):
    out = run("equation", "--layers", "1000")[1]
    assert "3.5·10⁻⁶⁴⁹" in out
    assert "−648.5" in out
    assert "1995 more lines" in out


def test_clipping_is_said_once(run):
    args = ("equation", "--layers", "30", "--tied", "1.5", "--activation", "tanh")
    out = run(*args, "--clip", "0.1")[1]
    assert "0.373" in out
    assert "Clipped to 0.1 (× 0.268)." in out
    assert "Clipped" not in run(*args, "--clip", "10")[1]


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
    assert out.splitlines()[-1].startswith("∂p/∂w")
    assert out.endswith(" 32.\n")
    dead = run("equation", "--layers", "2", "--tied", "-2", "--activation", "relu")[1]
    assert "      = 4 · 0\n      = 0\n" in dead


@pytest.mark.parametrize(
    ("args", "facts"),
    [
        (["--layers", "0"], "layers: 1 to 1000 got 0"),
        (["--layers", "1000000"], "layers: 1000 got 1000000"),
        (["--layers", "3", "--weights", "1,2"], "weights: layers (3) got 2"),
        (["--weights", "1,nan"], "w2: finite got nan"),
        (["--weights", "1,-inf"], "w2: finite got -inf"),
        (["--weights", "1,a"], "weights: commas got 'a'"),
        (["--weights", ""], "weights: commas got ''"),
        (["--x", "inf"], "x: finite got inf"),
        (["--wrt", "w9"], "wrt: 'w9' 'w2' b2"),
        (["--order", "up"], "order: 'backward' 'forward' 'up'"),
        (["--weights", "1,2", "--biases", "1"], "biases: weights (2) got 1"),
        (["--tied", "1", "--weights", "1,2"], "tied: without weights, biases"),
        (["--clip", "1"], "clip: tied"),
        (["--tied", "1", "--clip", "0"], "clip: above 0 got 0.0"),
        (["--tied", "nan"], "tied: finite got nan"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, args, facts):
    code, out, err = run("equation", *args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(fact in err for fact in facts.split()), err


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


def test_numbers_of_any_size_are_written_as_powers(run):
    _, out, _ = run("equation", "--weights", "1e308,-1e308,1e308")
    assert out.rstrip().splitlines()[-1].startswith("∂p/∂w₁ underflows")
    assert "≈ −10^(−8.7·10³⁰⁷)" in out
