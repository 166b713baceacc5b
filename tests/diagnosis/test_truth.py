"""benchmarks/truth.py: models of many kinds, their outcomes, and the page that is made of them."""

import importlib
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chainrule import NetworkSpec, diagnose, inspect, simulate
from chainrule.diagnosis.score import FEATURES, _measure_distance, compute_score
from chainrule.diagnosis.score_constants import SCORES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROUNDED = 0.002
"""Constants have three decimals; where another library fits them, the last one may differ."""


@pytest.fixture(scope="module")
def scripts():
    """Return `truth`, `truth_table`, `truth_models` and `truth_models.family`."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("truth", "truth_table", "truth_models", "truth_models.family")
        yield tuple(importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def samples(scripts):
    truth, table, models, _ = scripts
    return table.gather(models.list_entries(), truth.read_outcomes(), table.load_said())


class TestModels:
    def test_kinds_that_are_fitted_on_are_not_those_that_are_judged_on(self, scripts):
        *_, models, _ = scripts
        assert not set(models.FITTED) & set(models.JUDGED)
        kinds = {each.kind for each in models.FAMILIES.values()}
        assert kinds == {*models.FITTED, *models.JUDGED}

    def test_every_family_builds_a_model_that_can_be_measured_or_is_refused(self, scripts):
        truth, table, models, _ = scripts
        entries = {entry.family.name: entry for entry in models.list_entries()}
        assert set(entries) == set(models.FAMILIES)
        for entry in entries.values():
            said = table.listen(entry)
            assert said.verdict == table.REFUSED or set(said.features) == set(table.FEATURES)
            problem = entry.build()
            kept = problem.draw(torch.Generator().manual_seed(0), 16)
            assert 0 <= truth.measure_error(problem, kept) <= truth.WORST

    def test_a_model_is_the_same_whenever_it_is_built(self, scripts):
        *_, models, _ = scripts
        entry = models.list_entries()[0]
        one, other = entry.build(), entry.build()
        for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)
        first, second = (each.draw(torch.Generator().manual_seed(1), 4) for each in (one, other))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_keys_tell_models_apart_and_follow_the_code(self, scripts):
        *_, models, family = scripts
        entries = models.list_entries()
        assert len({entry.key for entry in entries}) == len(entries)
        code = family.read_code(models.FAMILIES["lenet"].build)
        assert "def draw_images" in code  # a helper in another module
        assert "CLASSES = 4" in code
        assert "shifted by up to one pixel" not in code  # a docstring
        assert "draw_vectors" not in code

    def test_the_list_may_grow_without_changing_what_is_in_it(self, scripts):
        *_, models, _ = scripts
        entries = models.list_entries()
        half = {entry.family.kind for entry in entries[: len(entries) // 4]}
        assert half == {*models.FITTED, *models.JUDGED}


class TestOutcomes:
    def test_there_are_enough_of_every_kind(self, scripts, samples):
        truth, _, models, _ = scripts
        assert len(samples) >= 400
        kinds = Counter(sample.kind for sample in samples)
        assert set(kinds) == {*models.FITTED, *models.JUDGED}
        assert min(kinds.values()) >= 10
        current = {entry.key for entry in models.list_entries()}
        assert set(truth.read_outcomes()) <= current

    def test_every_task_can_be_learned(self, samples):
        """Some model of every family trains, so that it is the others that fail."""
        for name in {sample.family for sample in samples}:
            some = [sample for sample in samples if sample.family == name]
            assert any(sample.trained["adam"] for sample in some), name

    def test_outcomes_are_found_again(self, scripts):
        truth, _, models, _ = scripts
        outcomes = truth.read_outcomes()
        cheap = ("classifier_head", "regression_head", "deep_sets", "spoiled_input")
        for name in cheap:
            entry = next(
                entry
                for entry in models.list_entries()
                if entry.family.name == name
                and entry.key in outcomes
                and float(outcomes[entry.key]["adam"]) < 0.2
            )
            row = outcomes[entry.key]
            again = truth.train(entry, "adam", float(row["adam_rate"]))
            assert again.error == pytest.approx(float(row["adam"]), abs=0.1), name


class TestPage:
    def test_it_says_what_the_script_says(self, scripts, samples):
        truth, *_ = scripts
        assert truth.write_report(samples) == truth.REPORT_FILE.read_text()

    def test_what_is_kept_is_what_is_said_now(self, scripts):
        _, table, models, _ = scripts
        said = table.load_said()
        entries = [entry for entry in models.list_entries() if entry.key in said]
        for entry in entries[:: max(1, len(entries) // 12)]:
            now, kept = table.listen(entry), said[entry.key]
            assert (now.verdict, now.rules) == (kept.verdict, kept.rules), entry.query

    def test_a_way_is_measured_from_guessing_to_a_good_twin(self, scripts):
        _, table, *_ = scripts
        assert table.judge_error(1.0, best=0.2) == 0
        assert table.judge_error(0.2, best=0.2) == pytest.approx(1)
        assert table.judge_error(1.5, best=0.2) < 0
        assert table.judge_error(0.95, best=0.94) < table.TRAINED  # noise is no progress

    @pytest.mark.parametrize("spec", [NetworkSpec(depth=12), NetworkSpec(depth=4, init="he")])
    def test_the_distance_to_a_bound_has_the_sign_of_the_finding(self, scripts, spec):
        _, table, *_ = scripts
        flow = simulate(spec, 1)
        found = {finding.rule for finding in diagnose(flow).findings}
        for name, rule in table.RULES.items():
            distance = _measure_distance(flow, name)
            if distance is not None and not rule.last:
                assert (distance > 0) == (name in found), name


class TestScore:
    """The score of the library is the one of the page."""

    def test_constants_are_those_that_the_trainings_give(self, scripts, samples):
        for name, found in scripts[1].fit_score(samples).items():
            assert found.base == pytest.approx(SCORES[name].base, abs=ROUNDED)
            for slope, kept in zip(found.slopes, SCORES[name].slopes, strict=True):
                assert replace(slope, weight=kept.weight) == kept
                assert slope.weight == pytest.approx(kept.weight, abs=ROUNDED)

    def test_a_model_gets_it_and_no_forecast(self):
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(16, 8)
        flow = inspect(model, lambda m: F.cross_entropy(m(x), torch.arange(16) % 3))
        viability = diagnose(flow).viability
        for prospect in (viability.sgd, viability.adam):
            values = {name: read(flow) for name, read in FEATURES.items()}
            odds = compute_score(SCORES[prospect.optimizer], values)
            assert prospect.probability == pytest.approx(1 / (1 + math.exp(-odds)))
            assert prospect.word.value == "not estimated"
        assert not viability.covered
