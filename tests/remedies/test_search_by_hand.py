"""Changes judged, proved, ranked and listed: worked out by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import RemedyError, SpecError
from chainrule.flow.quantity import Quantity
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.measure.inspection import inspect
from chainrule.remedies.changes import RESIDUAL, Change
from chainrule.remedies.edits import Edit
from chainrule.remedies.failures import describe_failures, find_obstacle
from chainrule.remedies.model_changes import ModelChange
from chainrule.remedies.model_search import _list_pairs as list_model_pairs
from chainrule.remedies.result import (
    OUTCOMES,
    Comparison,
    Outcome,
    Remedies,
    _judge,
    compare_flows,
    confirm,
    describe_harm,
    prove,
)
from chainrule.remedies.search import Search
from chainrule.remedies.spec_changes import (
    SpecChange,
    choose_ingredients,
    combine_spec_changes,
    list_spec_changes,
    scale_weights,
)
from chainrule.remedies.spec_search import find_spec_remedies
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.network_spec import NetworkSpec
from faults import FAULTS
from made_flows import call, make_chain, make_flow, parameter


class TestOutcome:
    @staticmethod
    def compare(before, after, **options):
        values = {"title": "t", "reason": "r", "kinds": ("initialization",)} | options
        return compare_flows(before, after, **values)

    def test_is_judged_by_the_gravest_finding(self):
        before = make_chain([1e-9, 1.0, 1.0])
        remedy = self.compare(before, make_chain([1.0, 1.0, 1.0]))
        assert remedy.outcome is Outcome.MEASURES
        assert remedy.is_good
        assert not remedy.is_cure
        assert remedy.comparison.rule == "vanishing_gradient"
        root = math.sqrt(3.0)  # three outputs
        assert remedy.comparison.before == pytest.approx(1e-9 / root)
        assert remedy.comparison.after == pytest.approx(1.0 / root)
        assert self.compare(before, make_chain([1e-5, 1.0, 1.0])).outcome is Outcome.HELPS
        assert self.compare(before, make_chain([1.1e-9, 1.0, 1.0])).outcome is Outcome.FAILS
        assert self.compare(before, make_chain([1.0, 1e7, 1.0])).outcome is Outcome.TRADES

    def test_weights_that_are_cut_off_are_another_problem(self):
        before = make_chain([1e-9, 1.0, 1.0])
        after = make_chain([1.0, 1.0, 1.0])
        cut = replace(after.parameters[1], status="unreached", grad_norm=None)
        after = make_flow(after.layers, (after.parameters[0], cut, after.parameters[2]), chain=True)
        assert self.compare(before, after).outcome is Outcome.TRADES

    @pytest.mark.parametrize("outcome", list(Outcome))
    def test_is_said_as_it_is_unless_harm_or_a_missing_training_says_more(self, outcome):
        before = make_chain([1e-9, 1.0, 1.0])
        remedy = replace(self.compare(before, make_chain([1.0, 1.0, 1e7])), outcome=outcome)
        untried = outcome is Outcome.MEASURES
        assert (remedy.outcome_text == OUTCOMES[outcome]) is not untried
        assert ("training was not tried" in remedy.outcome_text) is untried
        harmed = replace(remedy, after=make_chain([1.0, 1.0, 1e7], loss=math.inf))
        harm = "infinite or undefined"
        assert (harm in harmed.outcome_text) is (outcome is Outcome.FAILS)

    def test_losses_are_shown_with_what_was_tried(self):
        before, after = make_chain([1e-9, 1.0], loss=3.0), make_chain([1.0, 1.0], loss=2.0)
        remedy = self.compare(before, after)
        assert remedy.loss_text == "loss 3 → 2"
        nothing = Trial(optimizers=(), passes=0.0, limit=9, fresh=False, kept=0, skipped="no room")
        tried = make_trial(TrialOutcome.TRAINED)
        assert replace(remedy, trial_before=nothing, trial_after=nothing).loss_text == "loss 3 → 2"
        text = replace(remedy, trial_before=nothing, trial_after=tried).loss_text
        assert ("as it is" in text, "tried changed: SGD" in text) == (False, True)

    def test_of_a_healthy_network_there_is_nothing_to_compare(self):
        with pytest.raises(RemedyError):
            self.compare(make_chain([1.0, 1.0]), make_chain([1.0, 1.0]))

    @pytest.mark.parametrize(
        ("before", "after", "harm"),
        [
            (1.0, 9.9, False),
            (1.0, 10.1, True),
            (0.0, 10.0, False),
            (-1.0, 99.0, False),
            (math.nan, 99.0, False),
            (1.0, math.nan, True),
            (1.0, math.inf, True),
            (10.0, 1.0, False),
        ],
    )
    def test_a_loss_ten_times_as_large_is_harm(self, before, after, harm):
        one, other = make_chain([1.0], loss=before), make_chain([1.0], loss=after)
        assert bool(describe_harm(one, other)) is harm

    def test_numbers_that_are_lost_are_harm(self):
        one = make_chain([1.0, 1.0])

        def spoil(**fields):
            bad = replace(one.parameters[0], **{k: Quantity([v]) for k, v in fields.items()})
            return make_flow(one.layers, (bad, one.parameters[1]), chain=True)

        assert describe_harm(one, spoil(grad_non_finite=1.0))
        assert describe_harm(one, spoil(non_finite=1.0))
        assert not describe_harm(spoil(non_finite=5.0), spoil(non_finite=1.0))
        assert describe_harm(spoil(non_finite=5.0), spoil(non_finite=5.0))

    @pytest.mark.parametrize(
        ("rule", "after", "passes"),
        [
            ("dead_units", 0.7, True),
            ("dead_units", 0.71, False),
            ("same_answer", 0.01, True),
            ("same_answer", 0.009, False),
            ("same_answer", math.nan, False),
            ("same_answer", None, True),
        ],
    )
    def test_passes_on_the_bound(self, rule, after, passes):
        bound, beyond = (0.7, ">") if rule == "dead_units" else (0.01, "<")
        comparison = Comparison(
            rule=rule, metric="m", before=0.8, after=after, threshold=bound, beyond=beyond
        )
        assert comparison.passes is passes
        word = "largest" if rule == "dead_units" else "m"
        assert word in comparison.name


@pytest.mark.parametrize(
    ("was", "now", "chance", "outcome"),
    [
        ("vanishing", "vanishing", 0.9, Outcome.HELPS),
        ("vanishing", "exploding", 0.9, Outcome.TRADES),
        ("non-finite", "exploding", 0.9, Outcome.HELPS),  # what had overflowed has a size again
        ("vanishing", "hard to train", 0.9, Outcome.TRADES),
        ("vanishing", "hard to train", 0.01, Outcome.HELPS),  # it was that already
        ("vanishing", "hard to train", None, Outcome.HELPS),
    ],
)
def test_a_problem_that_was_there_before_is_not_traded_for(was, now, chance, outcome):
    def diagnose_as(verdict, probability):
        return SimpleNamespace(
            verdict=Verdict(verdict),
            findings=[SimpleNamespace(verdict=Verdict(verdict))],
            viability=SimpleNamespace(sgd=SimpleNamespace(probability=probability)),
        )

    comparison = SimpleNamespace(closed=0.5, passes=False)
    before, after = diagnose_as(was, chance), diagnose_as(now, 0.5)
    assert _judge(comparison, before, after, specified=True, cuts=False) is outcome


def make_trial(outcome, learned=0.5, fresh=True, name="SGD", after=1.0):
    rate = RateTrial(
        rate=0.1, steps=40, before=2.0, after=after, learned=learned, outcome=TrialOutcome(outcome)
    )
    optimizer = OptimizerTrial(name=name, rates=(rate,))
    return Trial(optimizers=(optimizer,), passes=80.0, limit=300, fresh=fresh, kept=3)


class TestProof:
    REMEDY = TestOutcome.compare(make_chain([1e-9, 1.0, 1.0]), make_chain([1.0, 1.0, 1.0]))

    @pytest.mark.parametrize(
        ("before", "after", "outcome"),
        [
            (("flat", 0.0), ("trained", 0.2), Outcome.CURES),
            (("trained", 0.5), ("trained", 0.55), Outcome.HELPS),
            (("trained", 0.2), ("trained", 0.99), Outcome.CURES),
            (("flat", 0.0), ("flat", 0.0), Outcome.FAILS),
            (("trained", 0.9), ("slow", 0.05), Outcome.MEASURES),
        ],
    )
    def test_is_training_where_it_did_not_or_far_better(self, before, after, outcome):
        proved = prove(self.REMEDY, make_trial(*before), make_trial(*after))
        assert proved.outcome is outcome
        assert proved.is_cure is (outcome is Outcome.CURES)
        assert proved.trial_after == make_trial(*after)
        assert proved.loss_text.count("tried") == 2

    def test_on_one_batch_is_none(self):
        silent = make_trial("trained", fresh=False, name="Adam")
        proved = prove(self.REMEDY, silent, silent)
        assert proved.outcome is Outcome.MEASURES
        assert "does not show whether it learns" in proved.outcome_text

    @pytest.mark.parametrize(
        ("longer", "reached", "outcome"),
        [
            ("trained", 0.5, Outcome.CURES),
            ("flat", 0.9, Outcome.CURES),
            ("trained", 1.0, Outcome.HELPS),
            ("diverged", 0.5, Outcome.FAILS),
            ("non-finite", 0.5, Outcome.FAILS),
        ],
    )
    def test_must_end_below_what_was_reached_without_the_change(self, longer, reached, outcome):
        cured = prove(self.REMEDY, make_trial("flat", 0.0), make_trial("trained"))
        untouched = make_trial("flat", 0.0, after=1.0)
        assert confirm(cured, make_trial(longer, after=reached), untouched).outcome is outcome


class TestRemedies:
    @staticmethod
    def build(*outcomes):
        remedy = TestProof.REMEDY
        tried = tuple(
            replace(remedy, outcome=each, title=str(at)) for at, each in enumerate(outcomes)
        )
        return Remedies(before=remedy.before, diagnosis=remedy.diagnosis_before, tried=tried)

    def test_are_cures_then_what_measures_well_then_what_helps(self):
        found = self.build(
            Outcome.HELPS, Outcome.FAILS, Outcome.MEASURES, Outcome.CURES, Outcome.TRADES
        )
        assert [each.title for each in found] == ["3", "2", "0"]
        assert len(found) == 3
        assert (found[0].title, found[-1].title) == ("3", "0")
        assert [each.title for each in found[1:]] == ["2", "0"]
        assert [each.title for each in found.refuted] == ["1", "4"]
        assert "1 cure, 1 measures well, 1 helps, 2 do not" in repr(found)

    def test_are_counted_in_words(self):
        many = self.build(*[Outcome.HELPS] * 2, Outcome.FAILS, *[Outcome.MEASURES] * 2)
        assert "2 measure well, 2 help, 1 does not" in repr(many)
        assert "cure" not in repr(many)
        assert "nothing was tried" in repr(self.build())

    def test_of_a_model_have_no_query_and_no_command(self):
        found = TestProof.REMEDY.to_dict()
        assert (found["query"], found["command"], found["changes"]) == ("", "", {})
        assert found["comparison"]["passes"] is True
        assert (found["verdict_before"], found["verdict_after"]) == ("vanishing", "healthy")
        assert "training was not tried" in found["outcome_text"]
        assert found["trial"] is None
        assert found["loss"] == {"before": 1.0, "after": 1.0, "text": "loss 1 → 1"}


class TestUnreached:
    """Weights that the loss reached neither before nor after a change are left out."""

    @staticmethod
    def build(weakest, names):
        flow = make_chain([weakest, 1.0, 1.0])
        others = [parameter(name, None, status="unreached") for name in names]
        calls = [call(name.removesuffix(".weight"), layer=None) for name in names]
        return make_flow((*calls, *flow.layers), (*flow.parameters, *others), chain=True)

    def test_the_same_ones_do_not_count_and_others_do(self):
        before = self.build(1e-9, ["u.weight"])
        assert diagnose(before).verdict is Verdict.NO_GRADIENT
        same = TestOutcome.compare(before, self.build(1.0, ["u.weight"]))
        assert (same.verdict_before, same.verdict_after) == (Verdict.VANISHING, Verdict.HEALTHY)
        assert same.outcome is Outcome.MEASURES
        other = TestOutcome.compare(before, self.build(1.0, ["v.weight"]))
        assert other.verdict_after is Verdict.NO_GRADIENT
        assert other.outcome is Outcome.TRADES


class TestSearch:
    @staticmethod
    def build(*weakest, kinds=None, **options):
        search = Search(make_chain([1e-9, 1.0, 1.0]), enough=2, **options)
        kinds = kinds or ["bias"] * len(weakest)
        changes = [Change(kinds=(kind,), title=str(at), reason="") for at, kind in enumerate(kinds)]
        flows = {id(c): make_chain([w, 1.0, 1.0]) for c, w in zip(changes, weakest, strict=True)}
        return search, changes, lambda change: flows.get(id(change))

    def test_ranks_by_outcome_then_cost_then_effect(self):
        kinds = ["width", "bias", "bias", "bias"]
        search, changes, measure_change = self.build(1.0, 1e-6, 1e-5, 1.0, kinds=kinds)
        search.run(changes, [], measure_change)
        assert [each.title for each in search.rank()] == ["3", "0", "1", "2"]
        ranked = search.rank(lambda remedy: remedy.comparison.closed)
        assert [each.title for each in ranked] == ["3", "0", "2", "1"]
        assert [change.title for change in search.list_best()] == ["0", "3", "2", "1"]
        assert search.count(Outcome.MEASURES) == 2
        assert search.count(Outcome.MEASURES, Outcome.HELPS) == 4
        assert search.is_done
        assert search.has_good()
        assert search.has_good("width")
        assert not search.has_good("gain")

    def test_is_not_done_before_enough_measure_well(self):
        search, changes, measure_change = self.build(1.0, 1e-6)
        search.run(changes, [], measure_change)
        assert not search.is_done

    def test_pairs_stay_if_they_do_more_than_the_better_of_the_two(self):
        search, changes, measure_change = self.build(1e-7, 1e-6)
        search.run(changes, [], measure_change)
        for weakest, kept in ((1e-5, 3), (0.5e-6, 2), (1e-6, 2), (1.0, 3)):
            search, changes, measure_change = self.build(1e-7, 1e-6)
            both = Change(kinds=("bias", "gain"), title="both", reason="")
            flow = make_chain([weakest, 1.0, 1.0])
            search.run(changes, [], measure_change)
            (pair,) = search.pair_up(changes, lambda first, second, both=both: both)
            assert pair.alone == max(each.remedy.comparison.closed for each in search.tried)
            search.run([], [pair], lambda change, flow=flow: flow)
            assert len(search.tried) == kept
        assert search.pair_up(changes, lambda first, second: None) == []

    def test_of_a_model_pairs_begin_with_what_did_most(self):
        weakest = [1e-7, 1e-5, 1e-8, 1e-6]
        search = Search(make_chain([1e-9, 1.0, 1.0]), enough=1)
        changes = [
            ModelChange(
                kinds=("bias",),
                title=f"{at}",
                reason="",
                edits=(Edit(parameter=f"{at}.bias", shape=(4,), action="fill"),),
            )
            for at in range(4)
        ]
        flows = [make_chain([each, 1.0, 1.0]) for each in weakest]
        search.run(changes, [], lambda change: flows[changes.index(change)])
        pairs = [pair.change.title for pair in list_model_pairs(search)]
        assert pairs == ["1 + 3", "1 + 0", "1 + 2"]

    def test_keeps_the_best_of_a_kind(self):
        kinds = ["bias", "bias", "gain"]
        search, changes, measure_change = self.build(1e-7, 1e-6, 1e-5, kinds=kinds)
        search.run(changes, [], measure_change)
        search.keep_best("bias")
        assert [entry.change.title for entry in search.tried] == ["1", "2"]
        search.keep_best("width")
        assert len(search.tried) == 2

    def test_counts_what_was_done_and_planned(self):
        seen = []
        search = Search(
            make_chain([1e-9, 1.0]), enough=1, progress=lambda *a: seen.append(a), limit=4
        )
        assert (search.left, search.done, search.planned) == (3, 1, 4)
        search.plan(2)
        search.advance()
        search.advance(8)
        search.finish()
        assert seen == [(1, 6), (2, 6), (10, 10), (10, 10)]
        assert search.left == -6
        assert Search(make_chain([1e-9, 1.0]), enough=1).left == math.inf


class TestSpecChanges:
    SPEC = NetworkSpec(depth=9, width=16, activation="sigmoid", init="xavier")

    def list(self, verdict=Verdict.VANISHING, **fields):
        return list(list_spec_changes(self.SPEC.replace(**fields), verdict))

    def find(self, kind, verdict=Verdict.VANISHING, **fields):
        return [each.spec for each in self.list(verdict, **fields) if each.kinds == (kind,)]

    def test_residual_connections_are_named_with_their_scale(self):
        found = {
            each.spec.residual: (each.title, each.reason)
            for each in self.list()
            if each.kinds == ("residual",)
        }
        (scaled, why), (plain, reason) = found["scaled"], found["plain"]
        assert scaled == f"{plain}, scaled by 1/√depth"
        assert plain == RESIDUAL.title
        assert reason == RESIDUAL.reason
        assert why.startswith(reason)
        assert "√depth" in why

    def test_depths_are_halved_down_to_two(self):
        assert [spec.depth for spec in self.find("depth")] == [4, 2]
        assert self.find("depth", depth=3) == []
        assert [spec.depth for spec in self.find("depth", depth=4)] == [2]

    def test_widths_are_doubled_where_there_are_few_units_or_dead_ones(self):
        assert [spec.width for spec in self.find("width")] == [32, 64, 128]
        assert [spec.width for spec in self.find("width", width=32)] == [64, 128, 256]
        assert self.find("width", width=33) == []
        dead = self.find("width", Verdict.DEAD_UNITS, width=128)
        assert [spec.width for spec in dead] == [256, 512]

    def test_clipping_is_tried_where_gradients_vanish_or_explode(self):
        for verdict, tried in (
            (Verdict.VANISHING, 1),
            (Verdict.EXPLODING, 1),
            (Verdict.DEAD_UNITS, 0),
        ):
            assert len(self.find("clipping", verdict)) == tried
        assert self.find("clipping")[0].clip_norm == 1.0
        assert self.find("clipping", clip_norm=3.0) == []

    def test_biases_are_set_to_zero_where_they_are_drawn(self):
        assert self.find("bias") == []
        assert [spec.bias_std for spec in self.find("bias", bias_std=0.5)] == [0.0]
        assert [spec.bias_std for spec in self.find("bias", init="pytorch")] == [0.0]
        assert self.find("bias", init="pytorch", bias_std=0.0) == []

    def test_initializations_draw_something_else_and_the_suited_one_is_first(self):
        assert [spec.init for spec in self.find("initialization")] == ["he", "orthogonal"]
        relu = self.find("initialization", activation="relu", init="pytorch")
        assert [spec.init for spec in relu] == ["he", "xavier", "orthogonal"]

    def test_activations_bring_their_initialization(self):
        found = {spec.activation: spec.init for spec in self.find("activation")}
        assert found == {
            "relu": "he",
            "leaky_relu": "he",
            "elu": "he",
            "selu": "lecun",
            "tanh": "xavier",
        }

    def test_activations_are_compared_by_their_slope_where_the_old_one_has_little(self):
        for activation, is_flat in (("sigmoid", True), ("tanh", False), ("relu", False)):
            changes = [c for c in self.list(activation=activation) if c.kinds == ("activation",)]
            assert changes
            for each in changes:
                assert ("0.25" in each.reason) is is_flat
                assert (each.reason == ACTIVATIONS[each.spec.activation].note) is not is_flat

    def test_structures_that_are_there_already_are_not_tried(self):
        assert [spec.residual for spec in self.find("residual")] == ["scaled", "plain"]
        assert [spec.residual for spec in self.find("residual", residual="plain")] == ["scaled"]
        names = ["layernorm", "rmsnorm", "batchnorm"]
        assert [spec.normalization for spec in self.find("normalization")] == names
        assert "layernorm" not in {
            spec.normalization for spec in self.find("normalization", normalization="layernorm")
        }

    def test_measured_scale_is_drawn(self):
        drawn = [each.reason for each in self.list() if each.kinds == ("initialization",)]
        assert "σ = 0.354 instead of 0.25" in drawn[0]  # √(2 ÷ 16) and √(1 ÷ 16)
        change = scale_weights(self.SPEC, 0.25)
        assert change.kinds == ("gain",)
        assert (change.spec.init, change.spec.weight_std) == ("random", 0.25)

    def test_pairs_change_different_fields_and_are_of_different_kinds(self):
        changes = {each.kinds[0]: each for each in self.list()}
        both = combine_spec_changes(self.SPEC, changes["residual"], changes["depth"])
        assert (both.spec.residual, both.spec.depth) == ("plain", 2)
        assert both.kinds == ("residual", "depth")
        assert combine_spec_changes(self.SPEC, changes["depth"], changes["depth"]) is None
        relu = next(each for each in self.list() if each.spec.activation == "relu")
        clash = combine_spec_changes(self.SPEC, changes["initialization"], relu)
        assert clash is None

    def test_ingredients_are_the_best_one_or_two_of_every_kind(self):
        def make(kind):
            return SpecChange(kinds=(kind,), title="", reason="", spec=self.SPEC)

        kinds = ("residual", "normalization", "clipping", "width", "bias")
        chosen = choose_ingredients([make(kind) for kind in kinds for _ in range(3)])
        assert [each.kinds[0] for each in chosen] == [
            "residual",
            "residual",
            "normalization",
            "normalization",
            "width",
            "bias",
        ]


@pytest.mark.parametrize("enough", [0, -1, 2.0, "2", None, True])
def test_enough_is_a_whole_number_above_0(enough):
    with pytest.raises(SpecError) as raised:
        find_spec_remedies(NetworkSpec(depth=2, width=2), 1, enough=enough)
    for part in ("enough", "above 0", repr(enough)):
        assert part in str(raised.value)


def test_changes_are_measured_with_the_seeds_of_the_network_as_it_is():
    found = find_spec_remedies(NetworkSpec(depth=12, width=4), [3, 7], enough=1)
    assert found.before.seeds == (3, 7)
    assert {remedy.after.seeds for remedy in found.tried} == {(3, 7)}


def test_a_copy_may_take_as_many_bytes_as_its_limit():
    model = nn.Linear(3, 2)  # eight numbers of four bytes
    flow = make_chain([1e-9, 1.0])
    assert find_obstacle(model, flow, diagnose(flow), 32) == ""
    assert "copy_limit" in find_obstacle(model, flow, diagnose(flow), 31)


def test_other_weights_open_a_path_that_zeros_close():
    model, compute_loss = FAULTS["all zero"].build(True)
    flow = inspect(model, compute_loss)
    diagnosis = diagnose(flow)
    assert (diagnosis.verdict, diagnosis.findings[0].rule) == (Verdict.NO_GRADIENT, "zero_product")
    assert find_obstacle(model, flow, diagnosis, 2**20) == ""
    unreached = make_flow((), (parameter("a.weight", None, status="unreached"),))
    assert diagnose(unreached).verdict is Verdict.NO_GRADIENT
    assert "path" in find_obstacle(model, unreached, diagnose(unreached), 2**20)


def test_of_several_failures_the_first_is_quoted():
    said = describe_failures(["ValueError: one", "KeyError: other"], 5)
    assert "2 of 5" in said
    assert "ValueError: one" in said
    assert "other" not in said
    assert describe_failures([], 5) == ""
