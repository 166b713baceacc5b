"""A derivation in a terminal: its width and its colours."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from chainrule.chain import ScalarChain, derive, measure_recurrence
from chainrule.display.equation import STYLES, print_equation
from chainrule.spec.activations import ACTIVATIONS

MIXED = ScalarChain(1.0, [3.0, -2.0, 1.5, 1.0], ["sigmoid", "tanh", "relu", "identity"])


def draw(chain, width, wrt="w1", *, fold=True, recurrence=None, **settings):
    console = Console(file=io.StringIO(), width=width, **{"color_system": None, **settings})
    print_equation(console, derive(chain, wrt), recurrence, fold=fold)
    return console.file.getvalue()


def read_derivation(text):
    """Return the lines of the derivation, each joined with what hangs below it."""
    lines = text[text.index("∂p/∂") :].split("\n\n")[0].splitlines()
    joined = []
    for line in lines:
        if line.lstrip().startswith("·"):
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line.strip())
    return joined


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=40),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(36, 130),
    st.booleans(),
    st.booleans(),
)
def test_it_fits_any_width(weights, activation, width, biased, fold):
    biases = [0.5] * len(weights) if biased else None
    text = draw(ScalarChain(1.0, weights, activation, biases), width, fold=fold)
    for line in text.splitlines():  # one factor alone may be wider
        assert cell_len(line) <= width or line.count(" · ") == 0


@pytest.mark.parametrize("width", [40, 50, 60, 80, 200])
@pytest.mark.parametrize("order", ["backward", "forward"])
def test_what_hangs_below_is_the_rest_of_the_line(width, order):
    derivation = derive(MIXED, "w1", order=order)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_equation(console, derivation)
    expected = [line.strip() for line in derivation.to_text().splitlines()]
    hidden = [at for at, line in enumerate(expected) if "more line" in line]
    shown = read_derivation(console.file.getvalue())
    assert [line for at, line in enumerate(shown) if at not in hidden] == [
        line for at, line in enumerate(expected) if at not in hidden
    ]


def test_the_rest_hangs_under_the_sign():
    text = draw(ScalarChain(1.0, [1.0] * 3), 40)
    lines = text[text.index("∂p/∂w₁") :].splitlines()
    column = lines[0].index("=")
    hanging = [line for line in lines if line.lstrip().startswith("· ")]
    assert hanging
    assert {line.index("·") for line in hanging} == {column}


def test_a_long_product_is_folded_to_as_many_factors_as_fit():
    chain = ScalarChain(1.0, [1.0] * 12)
    kept = []
    for width in (50, 80, 110):
        (line,) = [line for line in read_derivation(draw(chain, width)) if line.endswith("· x")]
        assert "factors" in line
        folded = int(re.search(r"⋯ (\d+) factors ⋯", line).group(1))
        kept.append(line.count(" · "))
        assert folded + line.count(" · ") == len(chain.factors("w1"))
    assert kept == sorted(set(kept))
    assert "⋯" not in draw(chain, 50, fold=False)


def test_of_many_layers_the_middle_is_left_out_and_counted_unless_all_are_asked_for():
    chain = ScalarChain(1.0, [1.0] * 14, "identity")
    folded, whole = (draw(chain, 80, fold=fold) for fold in (True, False))
    assert "⋯ 8 layers ⋯" in folded
    numbers = [re.findall(r"^w([₀-₉]+) ", text, re.MULTILINE) for text in (folded, whole)]
    assert numbers[0] == ["₁", "₂", "₃", "₁₂", "₁₃", "₁₄"]
    assert len(numbers[1]) == 14


def test_the_fold_says_the_product_of_what_it_hides():
    chain = ScalarChain(1.0, [2.0] * 12, "identity")
    (line,) = [line for line in read_derivation(draw(chain, 50)) if "factors =" in line]
    shown, hidden = line.split("⋯")[::2], line.split("⋯")[1].split("=")[1]
    twos = sum(part.split().count("2") for part in shown)
    assert float(hidden.replace(",", "")) == 2.0 ** (11 - twos)


def test_factors_have_the_colour_of_their_effect():
    text = draw(MIXED, 120, color_system="truecolor", force_terminal=True)
    codes = {"shrinks": "94", "grows": "33", "blocks": "31"}
    numbers = next(line for line in text.splitlines() if "(−2)" in line)
    assert f"\x1b[{codes['grows']}m(−2)\x1b[0m" in numbers
    assert f"\x1b[{codes['grows']}m1.5\x1b[0m" in numbers
    assert f"\x1b[{codes['blocks']}m0\x1b[0m" in numbers
    assert re.search(rf"\x1b\[{codes['shrinks']}m0\.\d+\x1b\[0m", numbers)
    assert set(codes) == set(STYLES)


@pytest.mark.parametrize("color", [{"no_color": True}, {"force_terminal": False}])
def test_colours_are_left_out_where_they_are_not_wanted(color):
    kind = {"color_system": "truecolor" if "no_color" in color else "auto"}
    assert "\x1b[3" not in draw(MIXED, 80, **kind, **color)
    assert "\x1b[9" not in draw(MIXED, 80, **kind, **color)


def test_a_recurrent_network_has_its_product_through_time():
    recurrence = measure_recurrence(2.0, 4, x=1.0, activation="relu", clip=8.0)
    text = draw(recurrence.chain, 44, recurrence=recurrence)
    assert "∂p/∂x = w⁴ · ReLU′(z₄) · ReLU′(z₃)" in text
    assert "      = 16 · 1\n      = 16\n" in text
    assert "Clipped to 8" in text
    assert max(map(cell_len, text.splitlines())) <= 44
