"""Each rule on histories written by hand, on both sides of its bound."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.watch import history as history_module
from chainrule.watch import rules as rules_module
from chainrule.watch.alarm_constants import RECORD
from chainrule.watch.history import BadInput, History, measure_outlier
from chainrule.watch.loss_rules import is_high
from chainrule.watch.records import ABSENT, OptimizerFacts, StepRecord
from chainrule.watch.rules import RULES, find_alarms
from made_histories import MadeRun, layer, make_facts

BY_NAME = {rule.name: rule for rule in RULES}


class TestTable:
    def test_every_rule_has_a_kind_bounds_with_sources_and_words(self):
        assert len(BY_NAME) == len(RULES)
        for rule in RULES:
            assert rule.kind
            assert rule.cause
            assert rule.action
            assert rule.bounds
            assert all(bound.source and bound.unit for bound in rule.bounds)

    def test_what_a_rule_follows_from_are_other_rules_of_the_table(self):
        for rule in RULES:
            assert set(rule.follows) <= set(BY_NAME) - {rule.name}

    def test_the_record_of_the_rules_is_of_these_rules(self):
        assert set(RECORD) <= set(BY_NAME)
        for right, said, found, faulty in RECORD.values():
            assert 0 <= right <= said
            assert 0 <= found <= faulty

    def test_an_alarm_shows_how_often_its_rule_was_right(self, monkeypatch):
        monkeypatch.setattr(rules_module, "RECORD", {"non_finite": (3, 4, 5, 5)})
        alarm = MadeRun().run(1, loss=math.nan, norms=math.nan).alarms[0]
        shown = {each.name.split()[0]: each.value for each in alarm.evidence}
        assert shown["precision"] == 0.75
        assert shown["recall"] == 1.0


class TestHealthy:
    def test_a_run_that_learns_gives_no_alarm(self):
        run = MadeRun()
        for step in range(600):
            sampled = {"layers": (layer(dead_units=0.2),)} if step % 10 == 0 else None
            run.add(loss=0.2 + 2 * 0.99**step, norms=1 + 0.1 * math.sin(step), sample=sampled)
        assert run.rules == []

    def test_warm_up_from_a_rate_of_zero_gives_no_alarm(self):
        run = MadeRun()
        for step in range(100):
            rate = 0.001 * step
            updates = {"updates": 0.01 * rate}
            run.add(loss=2.0 - 0.01 * step, rates=(rate,), sample=updates)
        assert run.rules == []

    def test_a_schedule_that_ends_at_zero_gives_no_alarm(self):
        run = MadeRun()
        for step in range(150):
            rate = max(0.0, 0.1 * (1 - step / 100))
            run.add(loss=0.3 + 2 * 0.95**step, rates=(rate,), sample={"updates": rate})
        assert run.rules == []


class TestNonFinite:
    def test_the_layer_nearest_to_the_loss_is_named(self):
        run = MadeRun().run(30)
        (alarm,) = run.add(norms=[math.inf, math.nan, 1.0])
        assert (alarm.rule, alarm.layer, alarm.step) == ("non_finite", "1", 31)

    def test_the_first_bad_output_is_named_where_it_was_sampled(self):
        run = MadeRun().run(30)
        bad = {"layers": (layer("0"), layer("1", non_finite=4), layer("2", non_finite=9))}
        (alarm,) = run.add(loss=math.nan, norms=math.nan, sample=bad)
        assert alarm.layer == "1"

    def test_steps_that_a_scaler_skips_are_no_alarm_until_its_scale_is_not_the_reason(self):
        run = MadeRun().run(30)
        for _ in range(15):
            assert run.add(norms=math.inf, skipped="gradient scaler") == ()
        (alarm,) = run.add(norms=math.inf, skipped="gradient scaler")
        assert alarm.rule == "non_finite"

    def test_a_skipped_step_whose_loss_is_undefined_is_no_matter_of_the_scale(self):
        run = MadeRun().run(30)
        (alarm,) = run.add(loss=math.nan, norms=math.inf, skipped="gradient scaler")
        assert alarm.rule == "non_finite"

    def test_numbers_in_the_batch_are_counted_and_located(self):
        run = MadeRun().run(30)
        lost = np.full(3, math.nan)
        run.history.add(replace(run.history.record, step=31, grad_norms=lost, total_norm=math.nan))
        run.history.note_input(BadInput("the input", (8, 10), 3, 2))
        (alarm,) = find_alarms(run.history)
        assert "3 numbers are infinite or undefined in the input" in alarm.summary
        assert "in 2 of its 8 rows" in alarm.summary
        assert {e.name: e.value for e in alarm.evidence}["inputs not finite"] == 3.0

    @pytest.mark.parametrize(("blank", "rules"), [((5, 7), []), ((5, 6), ["zero_inputs"])])
    def test_inputs_of_zeros_are_said_after_two_steps_in_a_row(self, blank, rules):
        run, found = MadeRun(), []
        for step in range(1, 12):
            run.add()
            if step in blank:
                run.history.note_input(BadInput("the input", (8, 10), 0, 0))
            found += [each.rule for each in find_alarms(run.history)]
        assert found == rules

    def test_the_process_is_named(self):
        run = MadeRun(make_facts(world_size=4)).run(30)
        (alarm,) = run.add(norms=math.nan, bad_rank=3)
        assert "process 3" in alarm.summary

    def test_it_lasts_as_one_alarm(self):
        run = MadeRun().run(30)
        run.run(100, loss=math.nan, norms=math.nan)
        assert run.rules == ["non_finite"]


class TestExploding:
    @pytest.mark.parametrize(("weights", "said"), [(4e3, False), (2e4, True)])
    def test_the_loss_is_too_sensitive_and_the_step_is_taken(self, weights, said):
        # Three parts ‖g‖ · ‖W‖ = weights ÷ 3 each, and ‖g‖ · ‖ΔW‖ = 1.
        run = MadeRun()
        run.add(norms=1.0, sample={"weights": weights / 3, "updates": 1.0})
        assert (run.rules == ["exploding"]) == said
        if said:
            assert "change the loss 20-fold" in run.alarms[0].summary  # a thousandth of all weights

    @pytest.mark.parametrize(("weights", "said"), [(4e3, False), (2e4, True)])
    def test_the_gradient_before_clipping_is_what_the_loss_is_sensitive_to(self, weights, said):
        run = MadeRun()
        whole = math.sqrt(3.0)  # of three norms of 1, which are clipped to a tenth
        sample = {"weights": weights / 3, "updates": 1.0}
        run.add(norms=0.1, clipped_from=whole, sample=sample)
        assert (run.rules == ["exploding"]) == said
        if said:
            assert run.alarms[0].value == pytest.approx(weights)

    def test_a_small_step_is_no_trouble(self):
        run = MadeRun()
        run.add(norms=1.0, sample={"weights": 1e5, "updates": 0.01})
        assert run.rules == []

    @pytest.mark.parametrize(("spread", "said"), [(5e5, False), (2e6, True)])
    def test_outputs_grow(self, spread, said):
        run = MadeRun()
        run.add(sample={"layers": (layer("0"), layer("1", std=spread))})
        assert (run.rules == ["exploding"]) == said

    @pytest.mark.parametrize(
        ("high", "count"), [((1, 1, 0, 0, 0), 0), ((1, 0, 1, 0, 1), 3), ((1, 1, 0, 1, 1), 4)]
    )
    def test_the_norm_jumps_in_most_of_the_last_steps(self, high, count):
        run = MadeRun().run(20)
        for each in high:
            run.add(norms=[1.0, 3000.0 if each else 1.0, 0.5])
        found = BY_NAME["exploding"].find(run.history)
        assert (found is not None) == (count > 0)
        if found is not None:
            assert found.layer == "1"
            assert found.value == pytest.approx(math.hypot(1, 3000, 0.5) / math.sqrt(3))
            assert f"{count} of the last 5 steps" in found.summary

    def test_what_follows_from_it_is_not_said(self):
        run = MadeRun()
        run.add(sample={"layers": (layer("0"), layer("1", std=1e8))})
        run.run(20, loss=math.nan, norms=math.nan)
        assert run.rules == ["exploding"]

    @pytest.mark.parametrize(
        ("demanded", "rules"),
        [((), []), (["non_finite"], ["non_finite"]), (["non-finite"], ["non_finite"])],
    )
    def test_what_follows_from_it_is_said_if_its_rule_or_its_kind_is_asked_for(
        self, demanded, rules
    ):
        run = MadeRun()
        run.add(sample={"layers": (layer("0"), layer("1", std=1e8))})
        assert run.rules == ["exploding"]
        lost = np.full(3, math.nan)
        run.history.add(replace(run.history.record, step=2, grad_norms=lost, total_norm=math.nan))
        assert [each.rule for each in find_alarms(run.history, demanded)] == rules


class TestVanishing:
    @pytest.mark.parametrize(
        ("front", "moved", "said"),
        [(1e-4, 1e-7, True), (1e-2, 1e-7, False), (1e-4, 1e-4, False)],
    )
    def test_both_bounds(self, front, moved, said):
        run = MadeRun()
        updates = {"updates": [10 * moved, 0.01, 0.01]}
        for _ in range(12):
            run.add(norms=[front, 0.1, 1.0], sample=updates)
        assert (run.rules == ["vanishing"]) == said
        if said:
            assert run.alarms[0].layer == "0"

    def test_a_run_that_learns_is_not_vanishing(self):
        run = MadeRun()
        for step in range(30):
            run.add(loss=0.9**step, norms=[1e-5, 0.1, 1.0], sample={"updates": [1e-6, 0.01, 0.01]})
        assert run.rules == []


class TestUnderflow:
    @pytest.mark.parametrize(
        ("zero", "small", "said"), [(0.9, 0.09, True), (0.99, 0.0, False), (0.5, 0.1, False)]
    )
    def test_shares(self, zero, small, said):
        run = MadeRun()
        lost = layer("1", "Linear", zero_share=zero, subnormal_share=small)
        run.add(sample={"layers": (lost,)})
        assert (run.rules == ["underflow"]) == said

    def test_zero_gradients_of_half_precision(self):
        facts = make_facts()
        facts = replace(
            facts, parameters=tuple(replace(p, dtype="float16") for p in facts.parameters)
        )
        run = MadeRun(facts).run(4, norms=[0.0, 0.0, 1e-3])
        assert run.rules == ["underflow"]
        assert run.alarms[0].layer == "1"


class TestNoGradient:
    def test_all_zero(self):
        run = MadeRun().run(5, norms=0.0)
        assert run.rules == []
        run.run(100, norms=0.0)
        assert run.rules == ["no_gradient"]

    def test_a_loss_of_zero_needs_none(self):
        run = MadeRun().run(30).run(100, norms=0.0, loss=0.0)
        assert run.rules == []

    def test_weights_in_front_that_are_never_reached(self):
        run = MadeRun().run(30, norms=[ABSENT, 1.0, 1.0])
        assert (run.rules, run.alarms[0].layer) == (["no_gradient"], "0")

    def test_a_last_weight_that_is_not_used_is_no_trouble(self):
        run = MadeRun().run(30, norms=[1.0, 1.0, ABSENT])
        assert run.rules == []

    def test_experts_with_a_reached_sibling_are_no_trouble(self):
        names = ("gate.weight", *(f"experts.{n}.up.weight" for n in range(4)))
        facts = make_facts(5)
        facts = replace(
            facts,
            parameters=tuple(
                replace(p, name=name) for p, name in zip(facts.parameters, names, strict=True)
            ),
        )
        run = MadeRun(facts).run(30, norms=[1.0, 1.0, ABSENT, ABSENT, ABSENT])
        assert run.rules == []


class TestRate:
    def test_a_loss_that_grows_by_a_factor(self):
        run = MadeRun()
        for step in range(12):
            run.add(loss=1.0 * 1.6**step, norms=1.3**step)
        assert run.rules == ["rate_too_high"]
        assert "by 1.6 per step" in run.alarms[0].summary

    def test_a_loss_that_grows_slowly_or_in_turns_is_none(self):
        run = MadeRun()
        for step in range(40):
            run.add(loss=1.0 + 0.2 * (step % 3), norms=1.3 ** (step % 3))
        assert run.rules == []

    @pytest.mark.parametrize(("updates", "said"), [(9.0, False), (11.0, True)])
    def test_a_step_as_large_as_the_weights(self, updates, said):
        run = MadeRun()
        run.add(loss=1.0, sample={"updates": updates})
        run.run(3, loss=2.0)
        assert (run.rules == ["rate_too_high"]) == said

    def test_a_large_step_without_harm_is_none(self):
        run = MadeRun()
        run.add(loss=1.0, sample={"updates": 20.0})
        run.run(10, loss=0.9)
        assert run.rules == []

    def test_the_loss_stays_far_above_its_start(self):
        run = MadeRun().run(3).run(12, loss=8.0)
        assert run.rules == ["rate_too_high"]
        assert MadeRun().run(3).run(12, loss=4.0).rules == []

    def test_units_that_die_while_the_weights_are_replaced(self):
        run = MadeRun()
        run.add(sample={"updates": 4.0, "layers": (layer(dead_units=0.1),)})
        run.run(3, sample=None)
        run.add(sample={"updates": 4.0, "layers": (layer(dead_units=0.95),)})
        assert (run.rules, run.alarms[0].layer) == (["rate_too_high"], "1")

    @pytest.mark.parametrize(("updates", "said"), [(5e-6, True), (5e-5, False)])
    def test_too_low(self, updates, said):
        run = MadeRun().run(30, sample={"updates": updates})
        assert (run.rules == ["rate_too_low"]) == said

    def test_too_low_is_not_said_of_a_run_that_has_learned(self):
        run = MadeRun().run(5)
        run.run(60, loss=0.2, sample={"updates": 1e-7})
        assert run.rules == []


class TestUpdates:
    def test_no_update_though_there_are_gradients(self):
        run = MadeRun()
        for _ in range(8):
            run.add(sample={"updates": 0.0})
        assert run.rules == ["no_update"]

    def test_parameters_that_no_optimizer_holds(self):
        facts = make_facts()
        unheld = replace(facts.parameters[1], optimizer=None)
        facts = replace(facts, parameters=(facts.parameters[0], unheld, facts.parameters[2]))
        run = MadeRun(facts).run(12)
        assert (run.rules, run.alarms[0].layer) == (["no_update"], "1")

    @pytest.mark.parametrize(("held", "said"), [(2, False), (3, True)])
    def test_who_holds_less_than_half_of_the_model_trains_a_part_on_purpose(self, held, said):
        facts = make_facts(5)
        own, others = facts.parameters[:held], facts.parameters[held:]
        loose = tuple(replace(each, optimizer=None, group=None) for each in others)
        run = MadeRun(replace(facts, parameters=(*own, *loose))).run(12)
        assert (run.rules == ["no_update"]) == said

    @pytest.mark.parametrize(("rate", "said"), [(0.0, False), (1e-12, True)])
    def test_a_group_with_a_rate_of_zero_is_frozen_on_purpose(self, rate, said):
        facts = make_facts()
        groups = ({"lr": rate}, {"lr": 0.1})
        held = [replace(each, group=at // 2) for at, each in enumerate(facts.parameters)]
        facts = replace(facts, parameters=tuple(held))
        facts = replace(facts, optimizers=(replace(facts.optimizers[0], groups=groups),))
        run = MadeRun(facts)
        for _ in range(9):
            run.add(rates=(rate, 0.1), sample={"updates": [0.0, 0.0, 0.01]})
        assert (run.rules == ["no_update"]) == said

    def test_a_rate_of_zero(self):
        run = MadeRun().run(10).run(20, rates=(0.0,), sample={"updates": 0.0})
        assert run.rules == ["no_update"]
        assert run.alarms[0].step <= 20

    def test_gradients_that_go_and_never_come_back(self):
        run = MadeRun().run(30).run(20, norms=[ABSENT, ABSENT, 1.0])
        assert (run.rules, run.alarms[0].layer) == (["no_gradient"], "0")

    def test_gradients_that_come_and_go_are_no_trouble(self):
        run = MadeRun()
        for step in range(100):
            run.add(norms=[1.0, ABSENT if step // 5 % 2 else 1.0, 1.0], loss=0.99**step)
        assert run.rules == []

    def test_parameters_that_were_replaced(self):
        run = MadeRun().run(30)
        (alarm,) = run.add(sample={"replaced": ("2.weight",)})
        assert (alarm.rule, alarm.layer) == ("stale_optimizer", "2")

    @pytest.mark.parametrize(("spread", "said"), [(5e-6, False), (1e-3, True)])
    def test_replicas(self, spread, said):
        run = MadeRun(make_facts(world_size=2)).run(30)
        run.add(sample={"replica_spread": spread})
        assert (run.rules == ["replicas_diverge"]) == said


class TestUnits:
    @pytest.mark.parametrize(("share", "said"), [(0.85, False), (0.95, True)])
    def test_dead(self, share, said):
        run = MadeRun().run(20, sample={"layers": (layer(dead_units=0.1),)})
        run.run(20, sample={"layers": (layer(dead_units=share),)})
        assert (run.rules == ["dead_units"]) == said

    def test_dead_units_are_compared_with_the_first_sample(self):
        run = MadeRun()
        run.step = 500  # a run that goes on where another one ended
        run.run(20, sample={"layers": (layer(dead_units=0.25),)})
        run.run(20, sample={"layers": (layer(dead_units=0.95),)})
        (alarm,) = run.alarms
        (shown,) = [each for each in alarm.evidence if each.name == "share of dead units"]
        assert (alarm.value, shown.value, shown.step) == (0.95, 0.25, 501)

    @pytest.mark.parametrize(("share", "said"), [(0.95, False), (1.0, True)])
    def test_a_layer_that_is_wholly_dead_from_the_start_is_said_though_the_loss_falls(
        self, share, said
    ):
        run = MadeRun()
        for step in range(60):
            run.add(loss=0.9**step)
        for step in range(60, 90):
            run.add(loss=0.9**step, sample={"layers": (layer(dead_units=share),)})
        assert (run.rules == ["dead_units"]) == said

    def test_dead_in_one_sample_only_is_no_trouble(self):
        run = MadeRun().run(20, sample={"layers": (layer(dead_units=0.1),)})
        run.add(sample={"layers": (layer(dead_units=1.0),)})
        run.run(20, sample={"layers": (layer(dead_units=0.1),)})
        assert run.rules == []

    @pytest.mark.parametrize(("share", "said"), [(0.85, False), (0.95, True)])
    def test_saturated(self, share, said):
        flat = (layer("1", "Tanh", saturation=share), layer("2", "Linear"))
        run = MadeRun().run(5, sample={"layers": flat})
        assert (run.rules == ["saturated"]) == said

    def test_a_saturated_output_is_sure_of_itself(self):
        sure = (layer("1", "Linear"), layer("2", "Sigmoid", saturation=0.99))
        assert MadeRun().run(5, sample={"layers": sure}).rules == []

    def test_zero_weights_without_gradients(self):
        run = MadeRun().run(5, norms=[0.0, 0.0, 1.0], sample={"weights": [0.0, 0.0, 1.0]})
        assert run.rules == ["symmetric"]

    def test_a_zero_weight_with_a_gradient_is_no_trouble(self):
        run = MadeRun().run(5, norms=[0.0, 1.0, 1.0], sample={"weights": [10.0, 0.0, 10.0]})
        assert run.rules == []

    @pytest.mark.parametrize(("share", "said"), [(0.2, False), (0.9, True)])
    def test_copies_of_the_first_flow(self, share, said, monkeypatch):
        monkeypatch.setattr(
            history_module,
            "list_symmetric",
            lambda flow: [(SimpleNamespace(parameter="1.weight"), share)],
        )
        run = MadeRun()
        run.add(sample={"flow": SimpleNamespace(loss_facts=None)})
        assert (run.rules == ["symmetric"]) == said
        assert all(each.flow is None for each in run.history.samples)


def noisy(seed, steps, run=None, level=1.0):
    """A run of lognormal noise of 10 % around a level that falls a little."""
    run, draw = run or MadeRun(), np.random.default_rng(seed)
    for step in range(steps):
        run.add(loss=level * 0.999**step * draw.lognormal(0, 0.1), norms=draw.lognormal(0, 0.1, 3))
    return run


class TestLoss:
    @pytest.mark.parametrize(("times", "said"), [(2.5, False), (8.0, True)])
    def test_one_batch(self, times, said):
        run = noisy(0, 60)
        run.add(loss=times)
        noisy(1, 20, run, 0.95)
        assert (run.rules == ["outlier_batch"]) == said

    def test_a_spike_that_a_large_gradient_leads(self):
        run = noisy(0, 60)
        run.add(norms=30.0)
        for step in range(20):
            run.add(loss=1 + 8 * 0.7**step, norms=1 + 5 * 0.7**step)
        noisy(1, 30, run)
        assert run.rules == ["spike"]

    def test_data_that_change(self):
        run = noisy(0, 60)
        noisy(1, 40, run, 4.5)
        assert run.rules == ["data_changed"]

    def test_small_losses_may_jump(self):
        run = MadeRun().run(3, loss=10.0)
        noisy(0, 60, run, 0.01)
        run.add(loss=0.5)
        noisy(1, 20, run, 0.01)
        assert run.rules == []

    @pytest.mark.parametrize(("loss", "said"), [(2.3, False), (2.7, True)])
    def test_a_jump_is_one_by_a_quarter_of_the_first_loss(self, loss, said):
        run = MadeRun().run(3, loss=10.0)
        noisy(0, 80, run, 0.01)
        run.add(loss=loss)
        noisy(1, 20, run, 0.01)
        assert (run.rules == ["outlier_batch"]) == said

    def test_empty_batches(self):
        run = noisy(0, 60)
        for step in range(20):
            empty = step % 2 == 0
            run.add(loss=0.0 if empty else 0.9, norms=0.0 if empty else 1.0)
        assert run.rules == ["empty_batches"]

    def test_margins_that_are_kept_are_no_empty_batches(self):
        run, draw = MadeRun(), np.random.default_rng(0)
        for step in range(150):
            empty = step > 60 and step % 2 == 0
            loss = 0.0 if empty else 0.96**step * draw.lognormal(0, 1.0)
            run.add(loss=loss, norms=0.0 if empty else 1.0)
        assert run.rules == []

    @pytest.mark.parametrize(("end", "said"), [(0.98, True), (0.7, False)])
    def test_flat(self, end, said):
        run, draw = MadeRun(), np.random.default_rng(0)
        for step in range(250):
            level = 1 + (end - 1) * min(1.0, step / 200)
            run.add(loss=level + 0.01 * draw.normal(), norms=draw.lognormal(0, 0.1, 3))
        assert (run.rules == ["loss_flat"]) == said

    @pytest.mark.parametrize(("guessing", "said"), [(2.0, True), (3.0, False)])
    def test_a_fall_to_the_level_of_guessing_is_no_progress(self, guessing, said, monkeypatch):
        monkeypatch.setattr(history_module, "list_symmetric", lambda flow: [])
        run = MadeRun()
        facts = SimpleNamespace(guessing=guessing)
        run.add(loss=50.0, sample={"flow": SimpleNamespace(loss_facts=facts)})
        for step in range(1, 250):
            run.add(loss=50.0 if step < 10 else 2.0)
        found = BY_NAME["loss_flat"].find(run.history)
        assert (found is not None) == said
        if found is not None:
            assert found.value == pytest.approx(0.0)
            assert all(fact in found.summary for fact in ("250 steps", "50 to 2", "gives 2"))

    def test_what_was_learned_is_lost_again(self):
        run = noisy(0, 20)
        noisy(1, 60, run, 0.4)
        for step in range(80):
            run.add(loss=min(1.0, 0.4 * 1.02**step))
        assert run.rules == ["stalled"]


class TestOneAlarmPerTrouble:
    @given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.3), st.floats(0.01, 0.5))
    @settings(max_examples=25, deadline=None, derandomize=True)
    def test_stationary_noise_seldom_gives_one(self, seed, spread, norm_spread):
        # 25 runs of 150 steps: none says anything but that the loss is flat.
        run, draw = MadeRun(), np.random.default_rng(seed)
        for _ in range(150):
            run.add(loss=draw.lognormal(0, spread), norms=draw.lognormal(0, norm_spread, 3))
        assert set(run.rules) <= {"loss_flat"}

    @given(st.sampled_from(["nan", "zero", "dead", "grows"]), st.integers(25, 60))
    @settings(max_examples=8, deadline=None, derandomize=True)
    def test_a_trouble_that_lasts_is_one_alarm(self, kind, onset):
        run = noisy(onset, onset)
        for step in range(120):
            if kind == "nan":
                run.add(loss=math.nan, norms=math.nan)
            elif kind == "zero":
                run.add(norms=0.0)
            elif kind == "dead":
                run.add(sample={"layers": (layer(dead_units=1.0),)})
            else:
                run.add(loss=1.5 ** min(step, 300), norms=1.2 ** min(step, 300))
        assert len(run.alarms) == 1

    def test_it_is_said_again_after_it_was_gone(self):
        run = noisy(0, 30)
        run.add(loss=math.nan, norms=math.nan)
        noisy(1, 200, run)
        run.add(loss=math.nan, norms=math.nan)
        assert run.rules == ["non_finite", "non_finite"]


class TestHigh:
    @pytest.mark.parametrize(
        ("losses", "last", "high"),
        [
            ([1.0] * 9 + [3.0] * 11, 9.1, True),  # three times the median of the 20 before
            ([1.0] * 9 + [3.0] * 11, 8.9, False),
            ([3.0] * 11 + [1.0] * 9, 8.9, False),
            ([3.0] * 9 + [1.0] * 11, 3.1, True),
            ([50.0] * 3 + [1.0] * 20, 13.6, True),  # a quarter of the first loss above it
            ([50.0] * 3 + [1.0] * 20, 13.4, False),
            ([-1.0] * 20, 3.1, True),
            ([-1.0] * 20, 2.9, False),
            ([1.0] * 19, 9.0, False),  # too few to say
            ([1.0] * 20, math.inf, False),
            ([math.nan] + [1.0] * 19, 9.0, False),
        ],
    )
    def test_is_far_above_the_losses_before(self, losses, last, high):
        run = MadeRun()
        for loss in (*losses, last):
            run.add(loss=loss)
        assert is_high(run.history) is high


class TestHistory:
    def test_its_memory_does_not_grow(self):
        run = MadeRun()
        for step in range(400):
            run.add(loss=0.999**step, sample={"layers": (layer(),)})
        history = run.history
        assert len(history.samples) == history_module.SAMPLES
        assert history.get_norms(10**6).shape == (history_module.NEAR, 3)
        assert len(history.get_losses(10**6)) == history_module.WINDOW
        assert len(history.get_blocks()) <= history_module.BLOCKS

    def test_last_steps_are_the_last_ones_wherever_the_window_is(self):
        run = MadeRun()
        for step in range(1, 301):
            run.add(loss=1 / step, norms=float(step))
            assert run.history.get_losses(3).tolist() == [
                1 / s for s in range(max(1, step - 2), step + 1)
            ]
            assert run.history.get_norms(2)[-1].tolist() == [step] * 3

    def test_weights_are_those_of_two_dimensions_or_more(self):
        shapes = ((10, 10), (10,), (), (4, 2, 3, 3))
        facts = make_facts(len(shapes))
        parameters = zip(facts.parameters, shapes, strict=True)
        shaped = tuple(replace(each, shape=shape) for each, shape in parameters)
        history = History(replace(facts, parameters=shaped))
        assert history.is_weight.tolist() == [True, False, False, True]
        assert history.sizes.tolist() == [100, 10, 1, 72]

    def test_the_norm_before_clipping_counts(self):
        run = MadeRun()
        run.add(clipped_from=40.0)
        assert run.history.get_totals().tolist() == [40.0]

    @pytest.mark.parametrize(
        ("losses", "start"),
        [
            ([], None),
            ([None, math.nan, math.inf], None),
            ([3.0], 3.0),
            ([2.0, 90.0, 1.0], 2.0),  # one odd batch is not where a run began
            ([90.0, 1.0, 2.0], 2.0),
            ([math.inf, 5.0, None, 6.0, math.nan, 4.0, 7.0, 8.0], 5.0),  # three finite ones
        ],
    )
    def test_the_loss_at_the_start_is_the_median_of_the_first_three(self, losses, start):
        run = MadeRun()
        for loss in losses:
            run.add(loss=loss)
        assert run.history.start_loss == start

    def test_blocks_are_means_of_ten_losses_and_the_first_and_the_least_are_kept(self):
        run, means = MadeRun(), [5.0, 1.0, 3.0]
        assert (run.history.first_block, run.history.best_block) == (None, math.inf)
        for number, mean in enumerate(means, start=1):
            for loss in (*(mean + part - 4.5 for part in range(9)), math.nan, None):
                run.add(loss=loss)
            assert run.history.get_blocks().tolist() == means[: number - 1]  # nine are none yet
            run.add(loss=mean + 4.5)
            assert run.history.get_blocks().tolist() == means[:number]
            assert (run.history.first_block, run.history.best_block) == (5.0, min(means[:number]))

    @pytest.mark.parametrize(("changes", "turns"), [(3, False), (4, True)])
    def test_a_weight_whose_gradient_comes_and_goes_twice_is_trained_in_turns(self, changes, turns):
        run = MadeRun()
        for change in range(changes + 1):
            for _ in range(3):
                run.add(norms=[1.0, 1.0, ABSENT if change % 2 else 2.0])
        assert run.history.has_turns is turns
        assert run.history.has_one_loss is not turns

    def test_a_gradient_that_has_become_zero_is_unusual_and_one_that_always_was_is_not(self):
        run = MadeRun().run(60, norms=[1.0, 1.0, ABSENT])
        run.add(norms=[1.0, 1.0, 0.0])
        assert not run.history.wants_sample
        run.add(norms=[1.0, 0.0, 0.0])
        assert run.history.wants_sample

    def test_rates_are_those_of_the_groups_and_the_highest_is_kept(self):
        groups = ({"lr": 0.1}, {"lr": 0.2})
        optimizers = (
            OptimizerFacts(kind="SGD", groups=groups[:1]),
            OptimizerFacts(kind="Adam", groups=groups),
        )
        places = ((0, 0), (1, 1), (None, None), (1, 0))
        parameters = tuple(
            replace(each, optimizer=optimizer, group=group)
            for each, (optimizer, group) in zip(make_facts(4).parameters, places, strict=True)
        )
        run = MadeRun(make_facts(4, parameters=parameters, optimizers=optimizers))
        assert np.isnan(run.history.get_current_rates()).all()
        for rates in ((0.5, 0.25, 4.0), (0.1, 0.2, 0.3)):
            run.add(rates=rates)
            found = run.history.get_current_rates()
            assert found[[0, 1, 3]].tolist() == [rates[0], rates[2], rates[1]]
            assert math.isnan(found[2])
        assert run.history.peak_rate == 4.0
        assert run.history.get_rates().tolist() == [4.0, 0.3]

    def test_a_step_of_another_model_is_refused(self):
        history = History(make_facts(3))
        step = StepRecord(step=1, seconds=0.0, grad_norms=np.ones(2), total_norm=1.0)
        with pytest.raises(ValueError, match=r"3.*2"):
            history.add(step)
        assert history.count == 0

    def test_most_steps_of_a_usual_run_are_not_asked_about(self):
        run, draw, asked = MadeRun(), np.random.default_rng(0), 0
        for _ in range(300):
            run.history.add(
                StepRecord(
                    step=run.history.count + 1,
                    seconds=0.0,
                    grad_norms=np.ones(3),
                    total_norm=draw.lognormal(0, 0.1),
                    loss=draw.lognormal(0, 0.1),
                )
            )
            asked += run.history.due
            find_alarms(run.history)
        assert asked < 70

    def test_parameters_that_are_lost_ask_the_rules_where_they_become_more(self):
        history = MadeRun().run(1).history
        first = history.standing
        for fields, due in (
            ({}, False),
            ({"unused": 1}, True),
            ({"unused": 1}, False),
            ({"unused": 2}, True),
            ({"unused": 1, "strays": ("a",)}, True),
            ({"unused": 1, "strays": ("b",)}, False),
            ({}, False),
        ):
            history.due = False
            history.stand(replace(first, **fields))
            assert history.due is due

    def test_an_unusual_step_asks_for_a_sample(self):
        run = noisy(0, 60)
        assert not run.history.wants_sample
        run.add(norms=100.0)
        assert run.history.wants_sample

    @given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=40), st.floats(-1e6, 1e6))
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_outliers_are_measured_from_the_median(self, values, value):
        distance, middle = measure_outlier(np.array(values), value)
        assert middle == float(np.median(values))
        assert (distance > 0) == (value > middle)
