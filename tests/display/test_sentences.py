"""The diagnosis in three sentences: every number in them is measured."""

import re
from statistics import median

import pytest
from torch import nn

from chainrule import PRESETS, NetworkSpec, diagnose, find_remedies, inspect, simulate
from chainrule._utils.numbers import format_number, format_part
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.display.cards import build_cards, describe_verdict
from chainrule.display.sentences import (
    _write_left,
    explain,
    explain_band,
    explain_limits,
    recommend,
)
from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow
from chainrule.remedies.result import Remedies, compare_flows
from made_flows import call, make_chain, make_flow, parameter
from sick_models import plain

NUMBER = r"\d(?:[\d.,]*\d)?(?:·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"


def say(spec: NetworkSpec, seeds: int = 4):
    flow = simulate(spec, seeds)
    diagnosis = diagnose(flow)
    return flow, diagnosis, explain(flow, diagnosis)


@pytest.mark.parametrize("name", PRESETS)
def test_every_scenario_is_said_in_whole_short_sentences(name):
    _, diagnosis, said = say(PRESETS[name].spec, 16)
    for text in (said.what, said.why):
        assert re.fullmatch(r"[A-Z0-9].*\.", text)
        assert "None" not in text
        assert "nan" not in text.lower()
        assert len(text.split()) < 60
    assert said.do == diagnosis.action


def test_vanishing_names_the_part_that_layer_1_gets_and_the_factor():
    flow, diagnosis, said = say(NetworkSpec(depth=15, init="xavier"))
    ratio = flow.gradient_ratio  # of each network first, as the card of the ratio has it
    assert (
        f"weight gradient of layer 1 is almost nothing: {format_part(ratio)} layer 15" in said.what
    )
    assert f"{len(diagnosis.findings[0].layers)} of 15 layers" in said.what
    product = flow.delta_ratio
    step = median(value ** (1 / 14) for value in product.values)
    assert f"about {format_number(step)}." in said.why
    assert (
        f"14 steps from layer 15 to layer 1 leave about {format_number(product)} of δ" in said.why
    )
    assert "at most 0.25" in said.why


def test_hidden_vanishing_says_why_the_ratio_hides_it():
    flow, diagnosis, said = say(PRESETS["Hidden vanishing (ReLU + Xavier)"].spec, 16)
    assert diagnosis.verdict is Verdict.VANISHING
    assert "All 30 layers" in said.what
    assert format_number(read_usable_range(flow)[0]) in said.what
    assert "forward the values shrink" in said.why
    assert "He (Kaiming) initialization draws them 1.4 times as large" in said.why


def test_exploding_names_the_largest_gradient():
    flow, _, said = say(PRESETS["Exploding (ReLU + random σ = 1)"].spec)
    largest = max(flow.weight_gradient_norms)
    layer = 1 + list(flow.weight_gradient_norms).index(largest)
    assert f"Layer {layer} gets a weight gradient of {format_number(largest)}" in said.what
    assert "5.7 times as large as ReLU needs them" in said.why


def test_healthy_names_the_range_of_its_gradients():
    flow, _, said = say(PRESETS["Healthy (ReLU + He)"].spec)
    low, high = min(flow.weight_gradient_norms), max(flow.weight_gradient_norms)
    assert f"between {format_number(low)} and {format_number(high)}" in said.what


def test_dead_units_name_their_share_and_layer():
    _, diagnosis, said = say(PRESETS["Dying ReLU"].spec, 16)
    finding = next(each for each in diagnosis.findings if each.rule == "dead_units")
    assert said.what.startswith(f"{100 * finding.value:.0f} % of the units of layer ")
    assert "slope of ReLU is 0" in said.why


def test_layers_after_a_dead_one_get_zeros_where_that_is_measured():
    flow, _, said = say(PRESETS["Dying ReLU"].spec, 16)
    assert all(norm == 0.0 for norm in flow.weight_gradient_norms[17:])
    assert "layers after it" in said.why
    flow, diagnosis, said = say(PRESETS["Dying ReLU"].spec, 6)  # no layer is off as a whole
    assert diagnosis.verdict is Verdict.DEAD_UNITS
    assert flow.weight_gradient_norms[-1] > 0
    assert "layers after it" not in said.why


@pytest.mark.parametrize(
    ("spec", "who"),
    [
        (PRESETS["Hidden vanishing (ReLU + Xavier)"].spec, "all 30"),
        (NetworkSpec(depth=15, init="xavier"), "11 of 15"),
    ],
)
def test_how_many_layers_get_too_little_is_said_in_one_wording(spec, who):
    flow, diagnosis, said = say(spec)
    words = f"{who} layers get too small a weight gradient to learn"
    assert describe_verdict(flow, diagnosis) == words
    assert words[1:] in said.what
    assert words[1:] in build_cards(flow, diagnosis)[-1].note


def test_a_moved_band_is_explained_by_the_error_at_the_output():
    flow = simulate(PRESETS["Exploding (ReLU + random σ = 1)"].spec, 4)
    assert "higher than usual" in explain_band(flow)
    assert format_number(flow.output_error) in explain_band(flow)
    assert explain_band(simulate(PRESETS["Vanishing (Sigmoid)"].spec, 4)) == ""


def test_weights_of_zero_are_the_reason():
    _, _, said = say(NetworkSpec(depth=10, init="random", weight_std=0.0))
    assert "exactly zero" in said.what
    assert said.why == "All weights are zero, so nothing passes through them."


def test_a_gradient_too_small_to_be_a_number_is_said_to_be_so():
    flow, _, said = say(NetworkSpec(depth=100, width=8, init="xavier"), 2)
    norms = [float(norm) for norm in flow.delta_norms]
    last = next(at for at, norm in enumerate(norms, 1) if norm > 0.0)
    assert last > 1
    assert f"layer {last} " in said.why
    assert "float32" in said.why
    factor = float(re.search(r"about (0\.\d+)", said.why)[1])
    assert factor == pytest.approx((norms[70] / norms[99]) ** (1 / 29), rel=0.05)  # of other layers
    for spec in (PRESETS["Dying ReLU"].spec, NetworkSpec(depth=15, width=8, init="xavier")):
        assert "float32" not in say(spec)[2].why


@pytest.mark.parametrize("depth", [1, 2])
def test_the_smallest_networks(depth):
    _, _, said = say(NetworkSpec(depth=depth, activation="relu", init="he"))
    assert said.what.endswith(".")
    assert said.why.endswith(".")


def test_the_limits_are_the_rules_bounds_times_the_error():
    flow = simulate(NetworkSpec(depth=15, init="xavier"), 4)
    low, high = read_usable_range(flow)
    text = explain_limits(flow)
    for value in (low, high, flow.output_error, RULES["vanishing_gradient"].threshold):
        assert format_number(value) in re.findall(NUMBER, text.replace("1,500", "1500"))


def test_what_to_do_is_the_first_remedy():
    remedies = find_remedies(NetworkSpec(depth=15, width=16, activation="relu"), 2)
    assert recommend(remedies).startswith(f"{remedies[0].title}: every layer then gets")


def test_advice_says_what_came_of_the_initialization_that_the_reason_names():
    spec = NetworkSpec(depth=30, activation="relu", init="xavier")
    remedies = find_remedies(spec, 2)
    he = next(each for each in remedies if dict(each.changes) == {"init": "he"})
    assert remedies[0] is not he
    said = recommend(remedies)
    assert said.startswith(remedies[0].title)
    chances = [each.diagnosis_after.viability.sgd.probability for each in (he, remedies[0])]
    assert he.title in said
    assert [int(each) for each in re.findall(r"(\d+) %", said)] == [round(100 * p) for p in chances]
    assert he.verdict_after is Verdict.HEALTHY
    assert "makes the gradients healthy" in said  # as the list below says
    assert chances[0] < chances[1]


def test_nothing_to_do_for_a_healthy_network():
    remedies = find_remedies(NetworkSpec(depth=3, activation="relu", init="he"), 2)
    assert recommend(remedies) == remedies.diagnosis.action


def test_a_model_of_your_own_is_told_by_its_findings():
    model, compute_loss = plain(20, nn.Sigmoid)
    flow = inspect(model, compute_loss)
    diagnosis = diagnose(flow)
    said = explain(flow, diagnosis)
    assert said.why == diagnosis.findings[0].reason
    assert said.do == diagnosis.action
    assert said.what.endswith(".")


@pytest.mark.parametrize(
    ("norms", "which"),
    [
        ([1e-9] * 8 + [1.0], "Steps 1 to 8 of 9"),
        ([1e-9] * 7 + [1.0, 1e-9, 1.0], "8 steps between 1 and 9 of 10"),
    ],
)
def test_steps_without_a_gradient_are_named(norms, which):
    gradients = tuple(Quantity([norm]) for norm in norms)
    time = TimeFlow(
        name="0",
        kind="RNN",
        call=0,
        of="input",
        length=len(norms),
        steps=tuple(range(len(norms))),
        gradients=gradients,
    )
    flow = make_flow([call("0", "RNN", "weight", layer=1)], [parameter("0.w", 1)], times=(time,))
    diagnosis = diagnose(flow)
    assert diagnosis.findings[0].rule == "vanishing_time"
    assert explain(flow, diagnosis).what.startswith(f"{which} of '0' get less than a millionth")


@pytest.mark.parametrize(
    ("count", "words"), [(0, ""), (1, "One change was"), (2, "2 changes were")]
)
def test_changes_that_did_not_help_are_counted(count, words):
    before = make_chain([1e-9, 1.0, 1.0])
    tried = [
        compare_flows(before, before, title="t", reason="r", kinds=("initialization",))
        for _ in range(count)
    ]
    remedies = Remedies(before=before, diagnosis=diagnose(before), tried=tuple(tried))
    said = recommend(remedies)
    assert said.endswith(remedies.diagnosis.action)
    assert said.startswith(words or remedies.diagnosis.action)


@pytest.mark.parametrize(
    ("left", "words"),
    [(0.25, "25 %"), (0.01, "1 %"), (0.0044, "0.44 %"), (0.001, "0.1 %"), (0.00099, "9.9·10⁻⁴")],
)
def test_what_is_left_has_two_digits(left, words):
    assert _write_left(left) == words
