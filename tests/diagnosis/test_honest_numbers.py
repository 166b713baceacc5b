"""What is below the resolution of float32 is a bound; a mild value is not said to be extreme."""

import re

import pytest

from chainrule import PRESETS, NetworkSpec, diagnose, simulate
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.viability.constants import CONSTANTS
from chainrule.display.cards import build_forecasts
from chainrule.display.sentences import explain


def list_words(spec, seeds=4):
    """Return all that is said of a network."""
    flow = simulate(spec, seeds)
    diagnosis = diagnose(flow)
    said = explain(flow, diagnosis)
    return [
        *(said.what, said.why, said.do),
        *(f"{each.evidence} {each.consequence}" for each in diagnosis.findings),
        *(f"{each.evidence} {each.meaning}" for each in diagnosis.notes),
        *(reason for forecast in build_forecasts(diagnosis) for reason in forecast.reasons),
    ]


def test_differences_lost_in_rounding_are_bounds_wherever_they_are_said():
    words = " ".join(list_words(NetworkSpec(depth=15, init="xavier"), 16))
    variations = re.findall(r"variation between examples[^.:]*? is ([^,:(]+)", words)
    assert len(variations) > 1
    assert all("below" in each or "or less" in each for each in variations)
    spreads = re.findall(
        r"spread between examples at the last layer ÷ at the first is ([^:]+)", words
    )
    assert spreads
    assert all(each.endswith("or less") for each in spreads)


def test_differences_that_are_measured_are_no_bounds():
    words = " ".join(list_words(NetworkSpec(depth=5, init="xavier"), 8))
    assert "or less" not in words


@pytest.mark.parametrize("optimizer", CONSTANTS)
def test_shrinking_and_growing_are_said_of_what_shrinks_and_grows(optimizer):
    for slope in CONSTANTS[optimizer].slopes:
        if slope.feature == "forward":
            assert slope.knot <= 0 if slope.beyond == "<" else slope.knot >= 0


@pytest.mark.parametrize("name", PRESETS)
def test_only_a_finding_says_that_outputs_are_alike(name):
    spec = PRESETS[name].spec
    flow = simulate(spec, 8)
    alike = any(each.rule == "same_answer" for each in diagnose(flow).findings)
    words = " ".join(list_words(spec, 8))
    assert ("hundredth of their size" in words) is alike
    assert "almost the same output" not in words or alike


def test_weights_of_zero_are_drawn_anew_whatever_the_activation():
    diagnosis = diagnose(simulate(NetworkSpec(depth=10, init="random", weight_std=0.0), 4))
    assert diagnosis.verdict is Verdict.VANISHING
    assert diagnosis.action.startswith("Worth trying: Xavier (Glorot) initialization")
