"""The probability that a network trains: scale-free, two-sided, a sum of reasons."""

import importlib.util
import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chainrule import NetworkSpec, Verdict, build_network, diagnose, inspect, make_loss, simulate
from chainrule.diagnosis.viability.constants import CONSTANTS
from chainrule.diagnosis.viability.features import FEATURES, measure_features
from chainrule.diagnosis.viability.model import (
    NOT_VIABLE,
    VIABLE,
    Outlook,
    assess_viability,
    describe_cost,
    describe_probability,
    estimate_like_networks,
    is_fitted_kind,
    judge_features,
)
from chainrule.display.cards import build_forecasts, describe_viability, explain_difference
from chainrule.training.trainability import measure_trainability
from strategies import legal_specs
from zoo import ZOO

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROUNDED = 0.002
"""Constants have three decimals; where another library fits them, the last one may differ."""
OPTIMIZERS = ("sgd", "adam")

SIGMOID = NetworkSpec(depth=15, width=32, activation="sigmoid")
TANH = NetworkSpec(depth=6, width=32, activation="tanh", init="xavier")
RELU = NetworkSpec(depth=4, width=32, activation="relu", init="he")
HIDDEN = NetworkSpec(depth=30, width=32, activation="relu", init="xavier")
EXPLODING = NetworkSpec(depth=12, width=64, activation="relu", init="random")
SPECS = pytest.mark.parametrize("spec", [SIGMOID, TANH, RELU, HIDDEN, EXPLODING])


def load_script(name):
    """Return a script of benchmarks/ as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        module_spec = importlib.util.spec_from_file_location(
            f"benchmark_{name}", BENCHMARKS / f"{name}.py"
        )
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_spec.name] = module
        module_spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def read_log_odds(flow):
    viability = assess_viability(flow)
    return {name: getattr(viability, name).log_odds for name in OPTIMIZERS}


class TestAnswers:
    def test_known_networks_are_judged_as_they_train(self):
        for spec in (TANH, RELU):
            viability = diagnose(simulate(spec, 8)).viability
            assert viability.sgd.word is Outlook.VIABLE, spec
            assert viability.adam.word is Outlook.VIABLE, spec
        for spec in (SIGMOID, SIGMOID.replace(depth=40), HIDDEN.replace(depth=100)):
            viability = diagnose(simulate(spec, 8)).viability
            assert viability.sgd.word is Outlook.NOT_VIABLE, spec

    def test_hidden_vanishing_is_seen_although_its_ratio_is_fine(self):
        flow = simulate(HIDDEN.replace(depth=50), 8)
        assert 0.1 < flow.gradient_ratio < 10
        assert assess_viability(flow).sgd.word is Outlook.NOT_VIABLE

    @settings(max_examples=40, deadline=None)
    @given(legal_specs)
    def test_any_network_has_probabilities(self, spec):
        small = spec.replace(
            depth=min(spec.depth, 6),
            width=min(spec.width, 6),
            batch_size=min(spec.batch_size, 5),
            seed=spec.seed // 2,
        )
        flow = simulate(small, 2)
        assert_sound(assess_viability(flow))

    @pytest.mark.parametrize("name", ZOO)
    def test_every_animal_of_the_zoo_has_an_answer(self, name):
        model, compute_loss = ZOO[name]()
        assert_sound(assess_viability(inspect(model, compute_loss)))

    def test_undefined_numbers_are_hopeless_and_said_first(self):
        model, compute_loss = build_network(RELU), make_loss(RELU)
        with torch.no_grad():
            model[0].weight[0, 0] = math.nan
        diagnosis = diagnose(inspect(model, compute_loss))
        assert diagnosis.verdict is Verdict.NON_FINITE
        for prospect in (diagnosis.viability.sgd, diagnosis.viability.adam):
            assert prospect.probability < 0.01
            assert prospect.contributions[0].feature == "non_finite"

    def test_a_loss_that_ignores_the_model_is_hopeless(self):
        x = torch.zeros(4, 32)
        flow = inspect(build_network(RELU), lambda m: m(x).sum() * 0)
        assert assess_viability(flow).adam.probability < 0.01

    @pytest.mark.parametrize(
        ("hidden", "classes", "fitted"),
        [(16, 3, True), (256, 300, True), (15, 16, False), (257, 16, False)],
    )
    def test_only_the_hidden_layers_must_be_as_wide_as_those_fitted(self, hidden, classes, fitted):
        model = nn.Sequential(nn.Linear(5, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        inputs, targets = torch.ones(2, 5), torch.tensor([0, 1])
        flow = inspect(model, lambda m: nn.functional.cross_entropy(m(inputs), targets))
        assert is_fitted_kind(flow) is fitted
        assert not assess_viability(flow).covered  # of your model nothing is estimated

    @pytest.mark.parametrize(("width", "covered"), [(16, True), (256, True), (15, False)])
    def test_networks_of_a_specification_are_covered_at_fitted_widths(self, width, covered):
        flow = simulate(RELU.replace(width=width), 1)
        assert assess_viability(flow).covered is covered

    @pytest.mark.parametrize("depth", [3, 10])
    def test_nothing_is_forecast_for_weights_that_are_all_zero(self, depth):
        """Adam trains no such network: the gradient of every weight but the last is zero."""
        spec = NetworkSpec(depth=depth, init="random", weight_std=0.0)
        diagnosis = diagnose(simulate(spec, 2))
        assert diagnosis.verdict is not Verdict.HEALTHY
        assert diagnosis.viability.adam.word is Outlook.UNKNOWN

    def test_nothing_measured_moves_nothing(self):
        for name in OPTIMIZERS:
            for values in ({}, dict.fromkeys(FEATURES)):
                prospect = judge_features(values, name)
                assert prospect.log_odds == CONSTANTS[name].base
                assert all(each.log_odds == 0 for each in prospect.contributions)


def assert_sound(viability):
    for name in OPTIMIZERS:
        prospect = getattr(viability, name)
        assert prospect.optimizer == name
        assert (prospect.probability is None) == (prospect.word is Outlook.UNKNOWN)
        if prospect.probability is None:
            assert not viability.covered
            assert prospect.log_odds is None
            assert prospect.contributions == ()
            continue
        assert 0 <= prospect.probability <= 1
        parts = sum(each.log_odds for each in prospect.contributions)
        assert prospect.base + parts == pytest.approx(prospect.log_odds, abs=1e-9)
        odds = prospect.probability / (1 - prospect.probability)
        assert math.log(odds) == pytest.approx(prospect.log_odds, abs=1e-6)
        assert (prospect.word is Outlook.VIABLE) == (prospect.probability >= VIABLE)
        assert (prospect.word is Outlook.NOT_VIABLE) == (prospect.probability < NOT_VIABLE)
        costs = [each.log_odds for each in prospect.contributions]
        assert costs == sorted(costs)
        assert all(cost <= 0 for cost in costs)
        for each in prospect.contributions:
            assert each.value is None or math.isfinite(each.value)
            assert each.words.endswith(".")


class TestScaleFree:
    @SPECS
    @pytest.mark.parametrize("factor", [1e-6, 1e-3, 1000.0])
    def test_a_multiple_of_the_loss_is_judged_alike(self, spec, factor):
        spec = spec.replace(dtype="float64")
        model, compute_loss = build_network(spec), make_loss(spec)
        plain = read_log_odds(inspect(model, compute_loss))
        scaled = read_log_odds(inspect(model, lambda m: factor * compute_loss(m)))
        assert scaled == pytest.approx(plain, abs=1e-6)

    @SPECS
    def test_a_wrapped_model_is_judged_alike(self, spec):
        class Wrapper(nn.Module):
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return self.inner(x)

        model, compute_loss = build_network(spec), make_loss(spec)
        plain = assess_viability(inspect(model, compute_loss))
        for wrapped in (
            Wrapper(model),
            nn.Sequential(Wrapper(nn.Sequential(model)), nn.Identity()),
        ):
            assert assess_viability(inspect(wrapped, compute_loss)) == plain

    @SPECS
    @pytest.mark.parametrize("batch_size", [16, 64, 128])
    def test_the_batch_size_hardly_matters(self, spec, batch_size):
        plain, other = (
            assess_viability(simulate(spec.replace(batch_size=size), 16))
            for size in (32, batch_size)
        )
        for name in OPTIMIZERS:
            before, after = getattr(plain, name), getattr(other, name)
            assert after.probability == pytest.approx(before.probability, abs=0.12)

    def test_the_precision_hardly_matters(self):
        for spec in (SIGMOID, TANH, RELU):
            single, double = (
                assess_viability(simulate(spec.replace(dtype=dtype), 4))
                for dtype in ("float32", "float64")
            )
            for name in OPTIMIZERS:
                wanted = getattr(double, name).probability
                assert getattr(single, name).probability == pytest.approx(wanted, abs=0.05)

    @SPECS
    def test_inspect_and_simulate_agree(self, spec):
        spec = spec.replace(dtype="float64")
        own = inspect(build_network(spec), make_loss(spec))
        wanted = assess_viability(simulate(spec, 1)).sgd.log_odds
        assert estimate_like_networks(own).log_odds == pytest.approx(wanted, abs=1e-6)
        assert assess_viability(own).sgd.word is Outlook.UNKNOWN


class TestShape:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("name", FEATURES)
    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_further_out_is_never_better(self, optimizer, name, data):
        low, high = FEATURES[name].range
        values = sorted(data.draw(st.lists(st.floats(low, high), min_size=2, max_size=6)))
        slopes = [s for s in CONSTANTS[optimizer].slopes if s.feature == name]
        inner_low = max((s.knot for s in slopes if s.beyond == "<"), default=-math.inf)
        inner_high = min((s.knot for s in slopes if s.beyond == ">"), default=math.inf)
        assert inner_low <= inner_high
        for below, above in itertools.pairwise(values):
            first, second = (
                judge_features({name: value}, optimizer).log_odds for value in (below, above)
            )
            if above <= inner_high:
                assert first <= second + 1e-12
            if below >= inner_low:
                assert second <= first + 1e-12

    def test_gradients_are_judged_on_both_sides(self):
        weak, healthy, strong = (
            read_log_odds(
                simulate(NetworkSpec(depth=20, activation="relu", init="random", weight_std=std), 8)
            )["sgd"]
            for std in (0.02, math.sqrt(2 / 64), 1.0)
        )
        assert weak < healthy
        assert strong < healthy

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_a_smaller_network_of_the_same_kind_is_no_worse(self, optimizer):
        for activation, init in (("sigmoid", "pytorch"), ("relu", "xavier"), ("tanh", "random")):
            odds = [
                read_log_odds(
                    simulate(NetworkSpec(depth=depth, activation=activation, init=init), 8)
                )[optimizer]
                for depth in (2, 8, 25)
            ]
            assert odds[0] >= odds[1] >= odds[2] - 0.5


class TestWords:
    def test_what_costs_says_by_how_much(self):
        prospect = assess_viability(simulate(SIGMOID, 8)).sgd
        worst = prospect.contributions[0]
        assert worst.log_odds < -1
        assert worst.words.endswith(f"{describe_cost(prospect.log_odds, worst.log_odds)[1:]}.")

    def test_what_costs_nothing_does_not(self):
        prospect = assess_viability(simulate(RELU.replace(depth=2), 8)).adam
        assert not any(
            "the chance would" in c.words for c in prospect.contributions if c.log_odds == 0
        )

    def test_every_cost_has_its_words(self):
        for constants in CONSTANTS.values():
            for slope in constants.slopes:
                feature = FEATURES[slope.feature]
                assert feature.low if slope.beyond == "<" else feature.high
                assert slope.weight > 0


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
class TestCalibration:
    def test_the_constants_are_those_of_a_refit(self):
        script = load_script("viability")
        samples = [s for s in script.read_samples(measure=False) if s.part == "fit"]
        assert len(samples) > 200
        for name in OPTIMIZERS:
            fitted = script.fit(samples, name)
            installed = CONSTANTS[name]
            assert fitted.base == pytest.approx(installed.base, abs=ROUNDED)
            for slope, kept in zip(fitted.slopes, installed.slopes, strict=True):
                assert replace(slope, weight=kept.weight) == kept
                assert slope.weight == pytest.approx(kept.weight, abs=ROUNDED)
            features = [sample.features for sample in samples]
            for each in features[::10]:
                expected = script.compute_log_odds(fitted, each)
                assert judge_features(each, name).log_odds == pytest.approx(expected, abs=0.1)

    def test_nothing_of_the_test_part_was_fitted_on(self):
        script = load_script("calibrate")
        rows = script.read_outcomes()
        parts = {row["part"] for row in rows}
        assert parts == {"fit", "test"}
        for row in rows:
            width = NetworkSpec.from_query(row["spec"]).width
            assert (row["task"] == "digits") == (row["part"] == "test") == (width == 64)

    def test_stored_features_are_measured_again(self):
        script = load_script("viability")
        samples = [s for s in script.read_samples(measure=False) if len(s.spec) < 90]
        for sample in samples[:: max(1, len(samples) // 4)]:
            flow = simulate(NetworkSpec.from_query(sample.spec), script.SEEDS)
            for name, value in measure_features(flow).items():
                stored = sample.features[name]
                assert (stored is None) == (value is None), name
                if value is not None:
                    assert stored == pytest.approx(value, rel=0.02, abs=0.05), name

    def test_the_held_out_networks_are_ranked_far_better_than_by_the_ratio(self):
        script = load_script("viability")
        samples = [s for s in script.read_samples(measure=False) if s.part == "test"]
        for name in OPTIMIZERS:
            ours = script.measure_auc(samples, name, script.predict(samples, name))
            ratio = script.measure_auc(samples, name, [s.compared["ratio"] for s in samples])
            assert ours >= 0.95
            assert ours > ratio + 0.1

    def test_the_page_of_the_docs_says_what_the_script_says(self):
        script = load_script("viability")
        samples = script.read_samples(measure=False)
        text = script.REPORT_FILE.read_text()
        assert script.write_table(samples) in text
        assert script.write_reliability(samples) in text

    def test_stored_outcomes_are_trained_again(self):
        rows = [
            row
            for row in load_script("calibrate").read_outcomes()
            if row["part"] == "fit" and int(row["sgd_steps"]) <= 75 and row["sgd"] == "trained"
        ]
        cheap = sorted(
            rows, key=lambda row: (NetworkSpec.from_query(row["spec"]).depth, row["spec"])
        )
        for row in cheap[:3]:
            found = measure_trainability(
                NetworkSpec.from_query(row["spec"]), task=row["task"], optimizer="sgd"
            )
            assert found.outcome == row["sgd"]
            assert found.accuracy == pytest.approx(float(row["sgd_accuracy"]), abs=0.03)


class TestOnPages:
    def test_one_word_where_both_agree_and_two_where_they_differ(self):
        same = diagnose(simulate(TANH, 8))
        assert describe_viability(same) == "training viable"
        assert explain_difference(same) == ""
        spec = NetworkSpec(depth=6, activation="relu", init="random")
        other = diagnose(simulate(spec, 8))
        sgd, adam = other.viability.sgd.word, other.viability.adam.word
        assert sgd != adam
        assert describe_viability(other) == f"training {sgd} with SGD, {adam} with Adam"
        assert "Adam divides by the size" in explain_difference(other)

    def test_forecasts_say_the_probability_and_the_gravest_reasons(self):
        diagnosis = diagnose(simulate(SIGMOID, 8))
        both = (diagnosis.viability.sgd, diagnosis.viability.adam)
        for forecast, prospect in zip(build_forecasts(diagnosis), both, strict=True):
            assert 1 <= len(forecast.reasons) <= 3
            assert describe_probability(prospect.probability) in forecast.note
        for forecast in build_forecasts(diagnose(simulate(TANH.replace(depth=2), 8))):
            assert forecast.title.endswith(": viable")
            assert forecast.reasons == ()
