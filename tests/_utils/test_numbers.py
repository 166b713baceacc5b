"""Numbers as people read them, and as JSON holds them."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule._utils.numbers import (
    encode_number,
    format_number,
    format_part,
    format_shape,
    format_share,
    format_times,
    split_number,
    to_subscript,
    to_superscript,
)

_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−", "0123456789--")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-2.0, "−2"),
        (0.28471, "0.285"),
        (0.001, "0.001"),
        (0.000999, "1.0·10⁻³"),
        (3.14e-13, "3.1·10⁻¹³"),
        (5e-324, "4.9·10⁻³²⁴"),
        (999.4, "999"),
        (999.7, "1,000"),
        (2900.4, "2,900"),
        (9999.4, "9,999"),
        (9999.6, "1.0·10⁴"),
        (-1234567.0, "−1.2·10⁶"),
        (math.inf, "infinite"),
        (-math.inf, "−infinite"),
        (math.nan, "undefined"),
        (None, "none"),
    ],
)
def test_format_number(value, text):
    assert format_number(value) == text


@settings(deadline=None)
@given(st.floats(-1e308, 1e308))
def test_a_formatted_number_is_near_the_number(value):
    text = format_number(value).replace(",", "").translate(_PLAIN).replace("·10", "e")
    assert float(text) == pytest.approx(value, rel=0.05, abs=5e-324)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (0.28471, ("0.285", None)),
        (-3.14e-13, ("−3.1", -13)),
        (1.5e300, ("1.5", 300)),
        (2900.0, ("2,900", None)),
    ],
)
def test_split_number(value, parts):
    assert split_number(value) == parts


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.028, "0.028 times"),
        (1.0, "1 times"),
        (2900.0, "2,900 times"),
        (3.5e8, "350 million times"),
        (999_999.0, "1 million times"),
        (2.5e9, "2.5 billion times"),
        (7e12, "7 trillion times"),
        (9.9e14, "990 trillion times"),
        (9.96e14, "1.0·10¹⁵ times"),  # with two digits a thousand trillion
        (1e20, "1.0·10²⁰ times"),
        (math.inf, "infinite times"),
        (math.nan, "undefined times"),
    ],
)
def test_format_times(ratio, text):
    assert format_times(ratio) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, ""), (0.0, "0 %"), (0.25, "25 %"), (1.0, "100 %"), (math.nan, "undefined")],
)
def test_format_share(share, text):
    assert format_share(share) == text


def test_format_shape():
    assert format_shape((32, 64)) == "32×64"
    assert format_shape(()) == "scalar"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "null"),
        (0.5, "0.5"),
        (3, "3"),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
        (math.nan, '"NaN"'),
    ],
)
def test_encode_number(value, code):
    assert json.dumps(encode_number(value), allow_nan=False) == code


def test_scripts():
    assert to_superscript(-13) == "⁻¹³"
    assert to_subscript(120) == "₁₂₀"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.0, "nothing of"), (1e-12, "a trillionth of"), (9.6e-10, "a billionth of"),
        (1.4e-9, "a billionth of"), (2e-9, "2.0·10⁻⁹ times"), (5.8e-11, "5.8·10⁻¹¹ times"),
        (0.001, "a thousandth of"), (0.0034, "0.34 % of"), (0.01, "1 % of"), (0.034, "3 % of"),
        (1.0, "100 % of"),
        (6e-4, "6.0·10⁻⁴ times"),
        (1.49, "149 % of"),
        (1.5, "1.5 times"), (12.24, "12 times"), (3.5e8, "350 million times"),
        (math.inf, "infinite times"),
    ],
)  # fmt: skip
def test_format_part(ratio, text):
    assert format_part(ratio) == text
