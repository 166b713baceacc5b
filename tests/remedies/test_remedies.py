"""`find_remedies`: what is called a remedy, and that its values are plain autograd's."""

import copy
import json
import math
import pickle
import statistics
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.diagnosis.viability.model import NOT_VIABLE, Outlook
from chainrule.errors import SpecError
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, draw_batch, make_loss
from chainrule.measure.simulation import simulate
from chainrule.presets import PRESETS
from chainrule.remedies.changes import COSTS
from chainrule.remedies.result import IMPROVED, Comparison, Outcome, compare_flows
from chainrule.remedies.spec_search import choose_seeds, find_remedies
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.trainability import Outcome as Trained
from chainrule.training.trainability import measure_trainability
from strategies import legal_fields

SMALL = NetworkSpec(depth=8, width=8, batch_size=6, dtype="float64")
UNHEALTHY = {
    "vanishing": SMALL,
    "hidden": SMALL.replace(depth=30, width=24, activation="relu", init="xavier"),
    "exploding": SMALL.replace(activation="relu", init="random", weight_std=3.0),
    "dead": SMALL.replace(depth=20, width=3, activation="relu", init="he"),
    "saturated": SMALL.replace(depth=2, activation="tanh", init="random", weight_std=200.0),
    "collapse": SMALL.replace(
        depth=3, width=32, activation="sigmoid", init="random", weight_std=1e-3, bias_std=2.0
    ),
    "non-finite": SMALL.replace(
        depth=12, activation="relu", init="random", weight_std=1e4, dtype="float32"
    ),
    "no weights": SMALL.replace(init="random", weight_std=0.0),
}
SMALL_SPECS = st.builds(
    lambda fields, depth, width, batch: NetworkSpec(
        **{**fields, "depth": depth, "width": width, "batch_size": batch}
    ),
    legal_fields(),
    st.integers(1, 12),
    st.integers(1, 8),
    st.integers(2, 6),
)


def measure_by_hand(spec: NetworkSpec, seeds: tuple[int, ...]) -> dict[str, float]:
    """Return the worst medians over an ensemble with nothing but modules and autograd."""
    norms: list[list[float]] = []
    dead: list[list[float]] = []
    for seed in seeds:
        model = build_network(spec, seed)
        shares = []

        def note(module, args, output, shares=shares):
            shares.append(float((output == 0).all(0).double().mean()))

        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(note)
        output = model(draw_batch(spec, seed)[0])
        output.retain_grad()
        make_loss(spec, seed)(lambda _, output=output: output).backward()
        error = math.sqrt(spec.batch_size) * float(output.grad.norm())
        if spec.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
        linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
        norms.append([float(linear.weight.grad.norm()) / error for linear in linears])
        dead.append(shares or [0.0])
    medians = [statistics.median(column) for column in zip(*norms, strict=True)]
    return {
        "vanishing_gradient": min(medians),
        "exploding_gradient": max(medians),
        "dead_units": max(statistics.median(column) for column in zip(*dead, strict=True)),
    }


@pytest.mark.parametrize("name", ["vanishing", "hidden", "exploding", "dead"])
def test_values_before_and_after_are_plain_autograds(name):
    spec = UNHEALTHY[name]
    found = find_remedies(spec, 5)
    assert len(found.tried) >= 5
    for remedy in found.tried:
        comparison, seeds = remedy.comparison, remedy.after.seeds
        assert seeds == found.before.seeds == (0, 1, 2, 3, 4)
        before = measure_by_hand(spec, seeds)[comparison.rule]
        after = measure_by_hand(remedy.spec, seeds)[comparison.rule]
        assert comparison.before == pytest.approx(before, rel=1e-6)
        assert comparison.after == pytest.approx(after, rel=1e-6, abs=1e-300)


def check(spec, found):
    """What holds for every answer."""
    verdict = diagnose(found.before).verdict
    assert found.diagnosis.verdict is verdict
    assert list(found) == [*found.measured, *found.helps]
    assert len(found) == len(found.measured) + len(found.helps)
    assert sorted(map(id, found.tried)) == sorted(map(id, [*found, *found.refuted]))
    assert len({remedy.spec for remedy in found.tried}) == len(found.tried)
    if verdict is Verdict.HEALTHY:
        assert not found.tried
        return
    known = {finding.verdict for finding in found.diagnosis.findings}
    if verdict is Verdict.NON_FINITE:
        known.add(Verdict.EXPLODING)
    chance = found.diagnosis.viability.sgd.probability
    if chance is not None and chance < NOT_VIABLE:
        known.add(Verdict.HARD_TO_TRAIN)
    for remedy in found.tried:
        comparison = remedy.comparison
        assert remedy.spec == spec.replace(**remedy.changes) != spec
        assert remedy.before is found.before
        assert remedy.verdict_before is verdict
        again = simulate(remedy.spec, found.before.seeds)
        assert again.to_json() == remedy.after.to_json()
        after = diagnose(again)
        assert remedy.verdict_after is after.verdict
        worst = found.diagnosis.findings[0]
        assert (comparison.rule, comparison.before) == (worst.rule, worst.value)
        assert comparison.threshold == RULES[worst.rule].threshold
        if remedy in found:
            assert comparison.closed >= IMPROVED
            if comparison.after is not None:
                better = comparison.after < comparison.before
                assert better if comparison.beyond == ">" else comparison.after > comparison.before
            assert {finding.verdict for finding in after.findings} <= known
        assert (remedy.outcome is Outcome.MEASURES) == remedy.is_good
        if remedy.is_good:
            assert after.verdict is Verdict.HEALTHY
            # Nothing is estimated outside of what the estimate was fitted on.
            estimated = after.viability.covered
            assert after.viability.sgd.word is (Outlook.VIABLE if estimated else Outlook.UNKNOWN)
            assert comparison.passes
    for group in (found.measured, found.helps):
        costs = [(len(r.kinds), *sorted((COSTS[k] for k in r.kinds), reverse=True)) for r in group]
        assert costs == sorted(costs)


@pytest.mark.parametrize("name", UNHEALTHY)
def test_every_kind_of_trouble_has_remedies(name):
    found = find_remedies(UNHEALTHY[name], 5)
    check(UNHEALTHY[name], found)
    assert found.measured
    assert len(found) >= 3


HEALTHY_BELOW_THE_BOUND = NetworkSpec(
    depth=4,
    width=2,
    activation="relu",
    init="xavier",
    normalization="batchnorm",
    batch_size=6,
    input_scale=21.0,
    seed=53,
)
"""Of its changes one ends healthy with the metric that was wrong still beyond its bound."""


@settings(max_examples=8, deadline=None)
@given(SMALL_SPECS, st.integers(1, 3))
@example(HEALTHY_BELOW_THE_BOUND, 1)
def test_what_is_called_a_remedy_is_one(spec, enough):
    seeds = [spec.seed, (spec.seed + 1) % 2**31, (spec.seed + 2) % 2**31]
    check(spec, find_remedies(spec, seeds, enough=enough))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_presets(preset):
    found = find_remedies(preset.spec)
    if preset.verdict is Verdict.HEALTHY:
        assert list(found) == []
        assert found.tried == ()
    else:
        assert len(found.measured) >= 2
        assert len(found) >= 3
        assert found[0] is found.measured[0]


def test_relu_asks_for_he():
    found = find_remedies(NetworkSpec(depth=15, activation="relu", init="pytorch"))
    assert found[0].changes == {"init": "he"}
    assert found[0].kinds == ("initialization",)


def test_healthy_at_the_start_is_no_cure_where_training_stays_unlikely():
    """30 layers of ReLU with He have usable gradients, and yet SGD trains them only partly."""
    found = find_remedies(PRESETS["Hidden vanishing (ReLU + Xavier)"].spec)
    (he,) = (remedy for remedy in found if remedy.changes == {"init": "he"})
    assert he.verdict_after is Verdict.HEALTHY
    assert he.diagnosis_after.viability.sgd.word is Outlook.AT_RISK
    assert he.outcome is Outcome.HELPS
    assert measure_trainability(he.spec).outcome is Trained.PARTLY


class TestClipping:
    def test_it_is_refuted_for_vanishing(self):
        found = find_remedies(UNHEALTHY["vanishing"], 5)
        (clipping,) = (remedy for remedy in found.tried if remedy.kinds == ("clipping",))
        assert clipping in found.refuted
        assert clipping.comparison.after == clipping.comparison.before

    def test_it_makes_gradients_smaller_but_cures_nothing(self):
        found = find_remedies(UNHEALTHY["exploding"], 5)
        (clipping,) = (remedy for remedy in found.tried if remedy.kinds == ("clipping",))
        assert clipping.outcome is Outcome.HELPS
        assert clipping.verdict_after is Verdict.EXPLODING
        assert clipping.comparison.after <= 1.0
        assert clipping.after.clipped_gradient_norm <= 1.0
        assert clipping.after.gradient_norm == found.before.gradient_norm


def test_a_measured_scale_keeps_the_gradients_size():
    found = find_remedies(NetworkSpec(depth=15, activation="sigmoid", init="xavier"))
    (scaled,) = (remedy for remedy in found.tried if remedy.kinds == ("gain",))
    assert scaled.verdict_after is Verdict.HEALTHY
    assert found.before.delta_ratio < 1e-8
    assert 0.1 < scaled.after.delta_ratio < 10


def test_fields_that_only_belonged_to_the_old_initialization_go():
    found = find_remedies(UNHEALTHY["exploding"], 3)
    assert found[0].changes == {"init": "he", "weight_std": 1.0}


def test_pairs_where_no_single_change_cures():
    """Weights far too small and biases far too large: each change mends one of the two."""
    two_faults = {"init": "random", "weight_std": 1e-4, "bias_std": 500.0}
    spec = SMALL.replace(depth=3, activation="tanh", **two_faults)
    found = find_remedies(spec, 4)
    check(spec, found)
    assert found.measured
    assert all(len(remedy.kinds) == 2 for remedy in found.measured)
    assert found[0].changes == {"init": "xavier", "weight_std": 1.0, "bias_std": 0.0}
    alone = {
        remedy.kinds: remedy.comparison.closed for remedy in found.tried if len(remedy.kinds) == 1
    }
    for remedy in found.tried:
        if len(remedy.kinds) == 2 and not remedy.is_good:
            assert all(remedy.comparison.closed > alone[(kind,)] for kind in remedy.kinds)


def test_enough_stops_early():
    spec = UNHEALTHY["vanishing"]
    few, many = find_remedies(spec, 2, enough=1), find_remedies(spec, 2, enough=50)
    assert len(few.tried) < len(many.tried)
    assert len(few) >= 3  # even so
    assert few[0].spec == many[0].spec


def test_same_arguments_same_answer():
    first, second = (find_remedies(UNHEALTHY["vanishing"], 2) for _ in range(2))
    assert [r.to_dict() for r in first.tried] == [r.to_dict() for r in second.tried]


def test_progress_counts_up_to_its_total():
    calls = []
    find_remedies(UNHEALTHY["vanishing"], 3, progress=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert all(each <= total for each, total in calls)
    assert calls[-1][0] == calls[-1][1]
    healthy = []
    find_remedies(SMALL.replace(depth=1), 3, progress=lambda *call: healthy.append(call))
    assert list(dict.fromkeys(healthy)) == [(0, 1), (1, 1)]


@pytest.mark.parametrize("after", [1, 2, 9])
def test_cancelling_leaves_nothing_changed(after):
    class CancelledError(Exception):
        pass

    def stop(done, total):
        if done >= after:
            raise CancelledError

    spec = UNHEALTHY["vanishing"]
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(CancelledError):
        find_remedies(spec, 3, progress=stop)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True)
    assert spec == SMALL
    assert len(find_remedies(spec, 3)) >= 3


@pytest.mark.parametrize(
    ("args", "options", "facts"),
    [
        (("sigmoid",), {}, ["spec:", "NetworkSpec", "got str"]),
        ((None,), {}, ["spec:", "got NoneType"]),
        ((SMALL, 0), {}, ["seeds:", "1", "1024", "got 0"]),
        ((SMALL, "many"), {}, ["seeds:"]),
        ((SMALL, 3), {"enough": 0}, ["enough:", "above 0", "got 0"]),
        ((SMALL, 3), {"enough": 1.5}, ["enough:", "got 1.5"]),
        ((SMALL, 3), {"enough": True}, ["enough:", "got True"]),
        ((SMALL, 3), {"budget": 100}, ["seeds", "100"]),
    ],
)
def test_bad_input(args, options, facts):
    with pytest.raises(SpecError) as error:
        find_remedies(*args, **options)
    assert all(fact in str(error.value) for fact in facts)


def test_candidates_beyond_the_budget_are_ignored():
    spec = UNHEALTHY["dead"]
    budget = spec.depth * spec.width**2 * 2
    assert all(r.spec.width == 3 for r in find_remedies(spec, 2, budget=budget, enough=50).tried)
    found = find_remedies(spec, 2, enough=50)
    assert any(r.kinds == ("width",) for r in found.tried)


def test_fewer_seeds_for_larger_networks():
    assert choose_seeds(NetworkSpec(depth=15, width=64)) == 16
    assert choose_seeds(NetworkSpec(depth=30, width=4)) == 16
    assert choose_seeds(NetworkSpec(depth=100, width=4)) == 10
    # Layers narrower than 32 count as 32: 2^20 ÷ (128 · 32²) = 8, and 2^20 ÷ (114 · 32²) = 8.98.
    assert [choose_seeds(NetworkSpec(depth=d, width=31)) for d in (128, 114, 113)] == [8, 8, 9]
    assert choose_seeds(NetworkSpec(depth=100, width=33)) == 9  # 2^20 ÷ (100 · 33²) = 9.6
    assert choose_seeds(NetworkSpec(depth=100, width=64)) == 3
    assert find_remedies(SMALL.replace(depth=1)).before.ensemble_size == 16


def test_results_are_frozen_and_travel():
    found = find_remedies(UNHEALTHY["hidden"], 2)
    with pytest.raises(FrozenInstanceError):
        found[0].title = "another"
    assert isinstance(found[0:2], tuple)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert [r.to_dict() for r in other.tried] == [r.to_dict() for r in found.tried]
    document = json.loads(json.dumps([r.to_dict() for r in found.tried], allow_nan=False))
    assert document[0]["changes"] == found[0].changes
    assert NetworkSpec.from_query(document[0]["query"]) == found[0].spec


def test_flows_without_a_specification_compare_too():
    spec = UNHEALTHY["hidden"]
    before, after = (
        inspect(build_network(each), make_loss(each)) for each in (spec, spec.replace(init="he"))
    )
    remedy = compare_flows(before, after, title="He", reason="It fits.", kinds=("initialization",))
    assert (remedy.spec, remedy.changes, remedy.command) == (None, {}, "")
    assert remedy.comparison.after > remedy.comparison.before
    assert remedy.to_dict()["changes"] == {}


class TestComparison:
    def compare(self, rule, before, after):
        return Comparison(
            rule=rule,
            metric="",
            before=before,
            after=after,
            threshold=RULES[rule].threshold,
            beyond=RULES[rule].beyond,
        )

    @pytest.mark.parametrize(
        ("rule", "before", "after", "closed"),
        [
            ("vanishing_gradient", 3e-9, 3e-6, 0.5),
            ("vanishing_gradient", 3e-9, 3e-3, 1.0),
            ("vanishing_gradient", 3e-9, 3e-15, -1.0),
            ("vanishing_gradient", 3e-9, math.nan, 0.0),
            ("vanishing_gradient", 0.0, 1.0, 1.0),
            ("vanishing_gradient", 0.0, 0.0, 0.0),
            ("vanishing_gradient", 1e-100, 1e-50, 0.0),
            ("exploding_backward", 1e9, 1e6, 0.5),
            ("exploding_backward", 1e9, math.inf, -299 / 6 + 0.0),
            ("exploding_gradient", math.inf, math.inf, 0.0),
            ("dead_units", 1.0, 0.85, 0.5),
            ("dead_units", 1.0, 0.7, 1.0),
            ("saturated", 0.95, None, 1.0),
            ("non_finite", 10.0, 10.0, 0.0),
        ],
    )
    def test_share_of_the_way(self, rule, before, after, closed):
        assert self.compare(rule, before, after).closed == pytest.approx(closed, abs=1e-9)
        assert self.compare(rule, before, after).passes == (closed == 1.0)

    def test_in_words(self):
        dead = self.compare("dead_units", 1.0, 0.25)
        assert (dead.before_text, dead.after_text, dead.threshold_text) == (
            "100 %",
            "25 %",
            "≤ 70 %",
        )
        weak = self.compare("vanishing_gradient", 1e-9, None)
        assert (weak.after_text, weak.threshold_text) == ("–", "≥ 0.003")


@pytest.mark.parametrize("name", UNHEALTHY)
def test_a_metric_is_read_as_its_finding_reads_it(name):
    flow = simulate(UNHEALTHY[name], 4)
    for finding in diagnose(flow).findings:
        assert measure_metric(flow, finding.rule) == finding.value
