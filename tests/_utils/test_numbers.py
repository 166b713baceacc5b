"""Numbers as people read them."""

import math

import pytest

from chainrule._utils.numbers import format_number, split_number, to_subscript, to_superscript


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-2.0, "-2"),
        (0.28471, "0.285"),
        (0.001, "0.001"),
        (0.000999, "1.0e-03"),
        (3.14e-13, "3.1e-13"),
        (999.4, "999"),
        (999.7, "1,000"),
        (2900.4, "2,900"),
        (9999.4, "9,999"),
        (9999.6, "1.0e+04"),
        (-1234567.0, "-1.2e+06"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_format_number(value, text):
    assert format_number(value) == text


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


def test_scripts():
    assert to_superscript(-13) == "⁻¹³"
    assert to_subscript(120) == "₁₂₀"
