"""Cards, tables and summaries of flows small enough for paper."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from chainrule.diagnosis.attribution import Attribution
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.display.cards import (
    BAD,
    GOOD,
    PLAIN,
    WARN,
    build_cards,
    build_forecasts,
    describe_attention,
    describe_loss,
    describe_measurement,
    describe_spec,
    describe_subject,
    describe_verdict,
    describe_viability,
    explain_difference,
    start_sentence,
)
from chainrule.display.export import (
    list_records,
    summarize,
    to_csv,
    to_result_json,
    to_summary_json,
)
from chainrule.display.runs import (
    compare_runs,
    draw_spark,
    read_view,
    render_view,
    to_comparison_json,
)
from chainrule.display.tables import (
    describe_block,
    list_layer_head,
    write_attention_row,
    write_blame_row,
    write_call_row,
    write_layer_row,
    write_parameter_row,
)
from chainrule.flow.blocks import Block
from chainrule.flow.loss import LossFlow, LossPart
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import AttentionFlow
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from chainrule.watch.reading import RunReader
from chainrule.watch.records import ABSENT, OptimizerFacts
from chainrule.watch.store import RunWriter
from made_flows import call, gradient, make_chain, make_flow, make_trial, parameter, quantity
from made_runs import make_alarm, make_facts, make_run, make_step


def show(flow):
    return build_cards(flow, diagnose(flow))


class TestCards:
    def test_are_of_both_ends_their_ratio_and_the_verdict(self):
        first, last, ratio, verdict = show(make_chain([3.0, 1.0, 2.0]))
        assert (first.digits, first.state, first.word) == ("3", GOOD, "usable")
        assert (last.digits, last.state) == ("2", GOOD)
        assert "layer 3" in last.title
        assert (ratio.digits, ratio.state) == ("1.5", GOOD)
        assert "1.5 times" in ratio.note
        assert verdict.digits == "Healthy"
        assert "of 0" in first.note

    @pytest.mark.parametrize(
        ("norm", "state", "word"),
        [
            (1e-9, WARN, "too small"),
            (0.0, WARN, "exactly zero"),
            (1e7, BAD, "too large"),
            (math.inf, BAD, "not a finite"),
            (math.nan, BAD, "not a finite"),
            (4e-3 * math.sqrt(3), GOOD, "usable"),
            (2e-3 * math.sqrt(3), WARN, "too small"),
            (1600 * math.sqrt(3), BAD, "too large"),
            (1400 * math.sqrt(3), GOOD, "usable"),
        ],
    )
    def test_of_a_norm_say_what_the_bounds_say(self, norm, state, word):
        first = show(make_chain([norm, 1e-8, 1.0]))[0]  # the second layer makes it unhealthy
        assert (first.state, first.word[: len(word)]) == (state, word)

    def test_of_a_norm_that_is_missing(self):
        flow = make_chain([1.0, 1.0])
        frozen = replace(flow.parameters[0], grad_norm=None, status="frozen")
        first = show(make_flow(flow.layers, (frozen, flow.parameters[1]), chain=True))[0]
        assert (first.digits, first.state) == ("none", PLAIN)
        assert first.word == "no gradient reaches it"

    def test_of_a_healthy_network_alarm_nobody(self):
        flow = make_chain([0.0, 1.0])
        zero = replace(flow.parameters[1], norm=Quantity([0.0]))
        flow = make_flow(flow.layers, (flow.parameters[0], zero), chain=True)
        diagnosis = diagnose(flow)
        assert diagnosis.verdict is Verdict.HEALTHY
        first, _, ratio, _ = build_cards(flow, diagnosis)
        assert (first.state, ratio.state) == (PLAIN, PLAIN)
        assert first.word == "zero at the start, until a later parameter has grown"

    @pytest.mark.parametrize(
        ("ratio", "state", "words", "note"),
        [
            (1e-9, WARN, "shrinks on the way back", "a billionth"),
            (0.009, WARN, "shrinks on the way back", "0.9 %"),
            (0.011, PLAIN, "far smaller at layer 1", "1 %"),
            (0.09, PLAIN, "far smaller at layer 1", "9 %"),
            (0.11, PLAIN, "smaller at layer 1: about a ninth", "11 %"),
            (0.17, PLAIN, "smaller at layer 1: about a sixth", "17 %"),
            (0.49, PLAIN, "smaller at layer 1: about half", "49 %"),
            (0.51, GOOD, "similar at both ends", "51 %"),
            (1.99, GOOD, "similar at both ends", "2 times"),
            (2.01, PLAIN, "larger at layer 1: about 2 times", "2 times"),
            (9.0, PLAIN, "larger at layer 1: about 9 times", "9 times"),
            (11.0, PLAIN, "far larger at layer 1", "11 times"),
            (99.0, PLAIN, "far larger at layer 1", "99 times"),
            (101.0, BAD, "grows on the way back", "100 times"),
            (math.inf, BAD, "grows on the way back", "infinite times"),
            (math.nan, BAD, "undefined", "not a number"),
        ],
    )
    def test_of_a_ratio_say_what_it_is(self, ratio, state, words, note):
        flow = make_chain([ratio, 1e-9, 1.0])
        card = show(flow)[2]
        assert (card.state, card.word) == (state, words)
        assert note in card.note

    @pytest.mark.parametrize(
        ("norms", "who"),
        [
            ([1e-9, 1.0, 1.0, 1.0], "1 of 4 layers gets"),
            ([1e-9, 1e-9, 1e-9, 1.0], "3 of 4 layers get"),
        ],
    )
    def test_verdict_counts_the_layers_that_get_too_little(self, norms, who):
        flow = make_chain(norms)
        assert describe_verdict(flow, diagnose(flow)).startswith(who)

    def test_of_two_zeros_have_no_ratio(self):
        card = show(make_chain([0.0, 1.0, 0.0]))[2]
        assert "both gradients are zero" in card.note
        card = show(make_chain([math.nan, 1.0, 0.0]))[2]
        assert "not a number" in card.note

    def test_of_few_layers_show_the_loss(self):
        loss, only, count, _ = show(make_chain([2.0], loss=7.0))
        assert (loss.digits, only.digits, count.digits) == ("7", "2", "1")
        none = make_flow([], [parameter("a", shape=(4,), grad_norm=3.0)], loss=7.0)
        loss, norm, count, _ = show(none)
        assert (loss.digits, norm.digits, count.digits) == ("7", "3", "0")

    def test_numbers_have_digits_and_a_power(self):
        first = show(make_chain([1.4e-10, 1.0]))[0]
        assert (first.digits, first.exponent) == ("1.4", -10)


class TestWords:
    def test_subject_counts_what_there_is(self):
        flow = make_flow([call("a", layer=1)], [parameter("a.weight", 1), parameter("b")])
        assert describe_subject(flow) == "1 weight layer, 1 module output, 2 parameters"

    def test_subject_counts_one_as_one(self):
        one = describe_spec(NetworkSpec(depth=1, width=1))
        assert one.startswith("1 layer × 1 unit, ")
        assert describe_spec(NetworkSpec(depth=2, width=3)).startswith("2 layers × 3 units, ")

    def test_subject_names_what_is_not_usual(self):
        spec = NetworkSpec(
            depth=3,
            width=4,
            activation="relu",
            residual="scaled",
            normalization="layernorm",
            clip_norm=2.0,
            batch_size=16,
        )
        text = describe_subject(make_flow(spec=spec))
        assert text.startswith("3 layers × 4 units, ReLU, ")
        assert "scaled residual connections, layernorm, gradients clipped to 2" in text
        assert text.endswith(" 16")
        assert "residual" not in describe_subject(make_flow(spec=NetworkSpec(depth=3, width=4)))

    def test_measurement_names_networks_precisions_and_device(self):
        flow = make_flow([], [parameter("a", dtype="float16"), parameter("b"), parameter("c")])
        assert describe_measurement(flow) == "one network, float16/float32, cpu"
        assert describe_measurement(make_flow(loss=[1.0, 2.0])) == (
            "median of 2 networks, no parameters, cpu"
        )

    @pytest.mark.parametrize(
        ("entropies", "words"),
        [
            ((), ""),
            ((0.5,), "1 computation of attention, relative entropy 0.5 ("),
            ((0.75, 0.25), "2 computations of attention, relative entropy 0.25 to 0.75 ("),
            ((0.5, math.nan), "undefined in some"),
        ],
    )
    def test_attention_is_summed_up(self, entropies, words):
        calls = tuple(attention(entropy) for entropy in entropies)
        text = describe_attention(make_flow(attentions=calls))
        assert (words in text) if words else text == ""

    def test_loss_is_named_with_what_guessing_gives(self):
        def ask(kind, guessing):
            part = LossPart(kind=kind, value=quantity(1.0), guessing=quantity(guessing))
            return describe_loss(
                make_flow(loss_facts=LossFlow(parts=(part,), offset=quantity(0.0)))
            )

        assert ask("mse", 2.5) == "mean squared error, guessing gives 2.5"
        assert ask("mse", None) == "mean squared error"
        assert describe_loss(make_flow()) == ""

    def test_sentences_start_large_and_end_once(self):
        assert [start_sentence(text) for text in ("a b", "a b.", "")] == ["A b.", "A b.", "."]


class TestForecasts:
    def test_of_a_model_of_yours_say_that_nothing_was_tried(self):
        diagnosis = diagnose(make_chain([1.0, 1.0]))
        (forecast,) = build_forecasts(diagnosis)
        assert forecast.title == "Measured only"
        assert describe_viability(diagnosis) == diagnosis.prospects
        assert explain_difference(diagnosis) == ""

    def test_of_a_specification_are_of_both_optimizers(self):
        flow = simulate(NetworkSpec(depth=12, width=16), 2)
        diagnosis = diagnose(flow)
        sgd, adam = build_forecasts(diagnosis)
        words = [diagnosis.viability.sgd.word, diagnosis.viability.adam.word]
        assert [sgd.title, adam.title] == [f"SGD: {words[0]}", f"Adam: {words[1]}"]
        assert "0.001 to 1" in sgd.note
        assert "0.0001 to 0.01" in adam.note
        contributions = diagnosis.viability.sgd.contributions
        grave = [each.words for each in contributions if each.log_odds < -0.2]
        assert sgd.reasons == tuple(grave[:3])
        assert adam.further == ()
        reported = {RULES[each.rule].feature for each in diagnosis.findings}
        assert sgd.further == tuple(
            each.words
            for each in contributions
            if each.log_odds < -0.2 and each.feature not in reported
        )
        assert bool(explain_difference(diagnosis)) is (words[0] != words[1])
        if words[0] != words[1]:
            assert f"{words[0]} with SGD, {words[1]} with Adam" in describe_viability(diagnosis)


def attention(entropy=0.5, **fields):
    values = {"name": "b", "call": 1, "heads": 2, "queries": 3, "keys": 4}
    shares = {"one_hot": quantity(0.25), "uniform": quantity(0.75)}
    return AttentionFlow(entropy=quantity(entropy), **(values | shares | fields))


class TestTables:
    def test_layer_rows_hold_the_layers_numbers_under_their_headings(self):
        active = {"std": 6.0, "saturation": 0.5, "dead_units": 1.0}
        calls = [
            call("a", layer=1, gradient=[3.0, 3.0, 3.0]),
            call("b", "Tanh", layer=1, gradient=[1.0] * 3, statistics=active),
        ]
        weights = [parameter("a.weight", 1, norm=[2.0] * 3, grad_norm=[4.0, 5.0, 6.0])]
        flow = make_flow(calls, weights, loss=[1.0] * 3)
        row = dict(
            zip(list_layer_head(flow), write_layer_row(flow, *flow.weight_layers), strict=True)
        )
        assert row == {
            "layer": "1",
            "module": "a",
            "‖∂𝓛/∂W‖": "5",
            "10–90 %": "4.2 – 5.8",
            "‖δ‖": "3",
            "gradient ÷ weight": "2.5",
            "std of h": "6",
            "saturated": "50 %",
            "dead": "25 %",
        }

    def test_rows_of_one_network_of_a_specification_have_neither_name_nor_band(self):
        flow = make_flow(
            [call("a", layer=1)], [parameter("a.weight", 1)], spec=NetworkSpec(depth=1, width=4)
        )
        row = write_layer_row(flow, *flow.weight_layers)
        assert row == ("1", "1", "1", "0.5", "1", "–", "–")
        assert len(list_layer_head(flow)) == len(row)

    def test_call_rows(self):
        one = call(
            "a",
            shape=(3, 4),
            gradient=2.0,
            gain=0.5,
            statistics={"mean": 7.0, "std": 8.0, "zero_share": 0.25},
        )
        assert write_call_row(one) == ("a", "Linear", "3×4", "2", "0.5", "7", "8", "25 %")
        bare = call("a", shape=(), gradient=None, gain=None, statistics=None)
        assert write_call_row(bare) == ("a", "Linear", "scalar", "–", "–", "–", "–", "–")

    def test_parameter_rows(self):
        one = parameter("a", norm=4.0, grad_norm=2.0, grad_zero_share=0.5, aliases=("b",))
        assert write_parameter_row(one) == ("a, b", "4×4", "4", "2", "0.5", "50 %")
        frozen = parameter("a", norm=4.0, status="frozen")
        assert write_parameter_row(frozen) == ("a", "4×4", "4", "frozen", "–", "–")

    def test_attention_rows(self):
        assert write_attention_row(attention()) == (
            "b (call 2)",
            "2",
            "3 × 4",
            "0.5",
            "25 %",
            "75 %",
        )

    @pytest.mark.parametrize(
        ("fields", "row"),
        [
            ({}, ("a", "Tanh", "× 0.5", "25 %")),
            ({"calls": 2}, ("a (2 calls)", "Tanh", "× 0.5", "25 %")),
            ({"name": "", "share": None}, ("(model)", "Tanh", "× 0.5", "–")),
            (
                {"what": "residual stream gradient"},
                ("a", "block ending in Tanh", "× 0.5", "25 %"),
            ),
        ],
    )
    def test_blame_rows(self, fields, row):
        values = {"name": "a", "kind": "Tanh", "layer": 3, "calls": 1, "what": "gradient"}
        values |= {"factor": quantity(0.5), "share": 0.25} | fields
        blame = Attribution(**values)
        assert write_blame_row(make_flow(), blame) == row
        numbered = write_blame_row(make_flow(spec=NetworkSpec(depth=3, width=4)), blame)
        assert numbered[0].startswith("layer 3")

    def test_blocks_in_a_few_words(self):
        calls = (call("a", gradient=2.0), call("b", gradient=gradient(0.5, non_finite=1.0)))
        block = Block(name="h.0", calls=calls)
        assert describe_block(block) == "2 outputs, gradients 0.5 to 2, 1 not finite"
        bare = Block(name="h.0", calls=(call("a", gradient=None),))
        assert describe_block(bare) == "1 output, no gradient"


class TestExport:
    FLOW = make_flow(
        [
            call("a", layer=1, gradient=[1.0, 2.0, 3.0], statistics={"variation": 0.5}),
            call("b", "Tanh", layer=1, statistics={"std": 6.0, "saturation": 0.5}),
            call("c", layer=2, statistics=None, gradient=None),
        ],
        [
            parameter("a.weight", 1, norm=[2.0] * 3, grad_norm=[4.0, 5.0, 6.0]),
            parameter("c.weight", 2, status="frozen"),
        ],
        loss=[1.0, 2.0, 9.0],
        attentions=(attention(),),
    )

    def test_layers(self):
        first, second = list_records(self.FLOW)
        assert first == {
            **{"layer": 1, "name": "a", "kind": "Linear", "activation": "Tanh"},
            **{"weight_norm": 2.0, "weight_grad_norm": 5.0, "weight_grad_norm_low": 4.2},
            **{"weight_grad_norm_high": 5.8, "delta_norm": 2.0, "grad_to_weight": 2.5},
            **{"std": 6.0, "variation": 1.0, "saturation": 0.5, "dead_share": None},
        }
        assert second["weight_grad_norm"] is second["weight_grad_norm_low"] is None
        assert second["weight_grad_norm_high"] is second["delta_norm"] is None

    def test_parameters(self):
        first, second = list_records(self.FLOW, "parameters")
        assert first == {
            **{"name": "a.weight", "shape": "4×4", "dtype": "float32", "layer": 1},
            **{"status": "measured", "norm": 2.0, "non_finite": 0.0, "grad_norm": 5.0},
            **{"grad_norm_low": 4.2, "grad_norm_high": 5.8, "grad_to_weight": 2.5},
            **{"grad_zero_share": 0.0, "grad_non_finite": 0.0},
        }
        assert (second["status"], second["grad_norm"]) == ("frozen", None)
        assert second["grad_norm_low"] is second["grad_norm_high"] is None

    def test_summary(self):
        found = summarize(self.FLOW)
        assert (found["networks"], found["loss"], found["spec"]) == (3, 2.0, None)
        assert found["gradient_at_first_layer"] == 5.0
        assert found["gradient_at_last_layer"] is None
        assert (found["gradient_ratio"], found["gradient_norm"]) == (None, 5.0)
        assert found["attentions"] == [
            {
                **{"module": "b (call 2)", "heads": 2, "queries": 3, "keys": 4},
                **{"entropy": 0.5, "one_hot": 0.25, "uniform": 0.75},
            }
        ]
        assert json.loads(to_summary_json(self.FLOW)) == json.loads(json.dumps(found))

    def test_summary_tells_guessing_from_the_lowest_loss(self):
        part = LossPart(
            kind="mse", value=quantity(9.0), guessing=quantity(4.0), floor=quantity(0.5)
        )
        facts = LossFlow(parts=(part,), offset=quantity(1.0))
        found = summarize(make_flow(loss_facts=facts))
        assert (found["loss_kind"], found["loss_of_guessing"]) == ("mse", 5.0)

    def test_a_result_holds_its_trial_once(self):
        trial = make_trial()
        flow = make_chain([1.0, 1.0])
        found = json.loads(to_result_json(flow, diagnose(flow, trial=trial)))
        assert found["diagnosis"]["trial"] is None
        assert found["trial"] == trial.to_dict()
        assert "trial" not in json.loads(to_result_json(flow, diagnose(flow)))

    def test_formulas_of_a_spreadsheet_are_text(self):
        weights = [parameter(name) for name in ("=1", "+1", "-1", "@a", "a=1")]
        lines = to_csv(make_flow([], weights), "parameters").split("\r\n")
        assert [line.split(",")[0] for line in lines[1:-1]] == ["'=1", "'+1", "'-1", "'@a", "a=1"]


class TestRuns:
    @pytest.mark.parametrize(
        ("values", "cells", "spark"),
        [
            ([1.0, 100.0], 8, "▁█"),
            ([1e-3, 1.0, 1e3], 8, "▁▅█"),
            ([10.0, 10.0], 8, "▅▅"),  # in the middle of two powers of ten
            ([1e9, 1.0, 100.0], 2, "▁█"),
            ([0.0, 1.0, -1.0, 100.0], 8, "▁▁▁█"),
            ([0.0, math.nan, math.inf], 8, "▁ !"),
        ],
    )
    def test_sparks_are_powers_of_ten(self, values, cells, spark):
        assert draw_spark(np.array(values), cells).plain == spark

    @pytest.mark.parametrize(("count", "words"), [(3, ""), (2, "1 earlier alarm:"), (1, "2 ear")])
    def test_earlier_alarms_are_counted(self, count, words, tmp_path):
        with RunWriter.open(tmp_path / "a.db", make_facts()) as writer:
            for step in (1, 2, 3):
                writer.write(make_step(step))
                writer.write(make_alarm(step))
        console = Console(file=io.StringIO(), width=100)
        console.print(render_view(read_view(RunReader(tmp_path / "a.db")), alarms=count))
        lines = console.file.getvalue().splitlines()
        assert [line[:8] for line in lines if line.startswith("! ")] == [
            f"! step {step}" for step in (1, 2, 3)[-count:]
        ]
        assert [words] * bool(words) == [line[: len(words)] for line in lines if "earlier" in line]

    @pytest.mark.parametrize(
        ("optimizers", "differ"),
        [
            ([("SGD", {"lr": 0.1})], []),
            ([("SGD", {"lr": 0.2})], ["lr 0.1 and 0.2"]),
            ([("SGD", {"lr": 0.1, "nesterov": 1.0})], ["nesterov none and 1"]),
            ([("Adam", {"lr": 0.1})], ["optimizer SGD and Adam"]),
            ([("SGD", {"lr": 0.1}, {"lr": 0.3})], ["groups 1 and 2"]),
            ([("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1})], ["optimizers 1 and 2"]),
            ([], ["optimizers 1 and 0"]),
        ],
    )
    def test_differ_in_their_settings(self, optimizers, differ, tmp_path):
        facts = tuple(OptimizerFacts(kind=kind, groups=tuple(each)) for kind, *each in optimizers)
        one = make_run(tmp_path / "one.db", 2)
        other = make_run(tmp_path / "other.db", 3, optimizers=facts)
        found = compare_runs(RunReader(one), RunReader(other))
        assert list(found.settings) == differ
        assert (found.common, found.parted) == (2, None)

    @pytest.mark.parametrize(
        ("one", "other", "common", "parted"),
        [
            ([3.0, 2.0, 1.0], [3.0, None, 1.0], 2, None),  # logged at every other step
            ([3.0, 2.0, 1.0], [None, 2.0, 9.0], 2, 3),
            ([3.0, math.nan], [3.0, math.nan], 2, None),
            ([3.0, 2.0], [3.0, math.nan], 2, 2),
            ([None, None], [None, None], 0, None),
        ],
    )
    def test_are_compared_where_both_have_a_loss(self, one, other, common, parted, tmp_path):
        readers = []
        for name, losses in (("one", one), ("other", other)):
            path = tmp_path / f"{name}.db"
            with RunWriter.open(path, make_facts(name=name)) as writer:
                for step, loss in enumerate(losses, start=1):
                    writer.write(make_step(step, loss=loss))
            readers.append(RunReader(path))
        found = compare_runs(*readers)
        assert (found.common, found.parted) == (common, parted)
        assert len(found.rows) == common
        shown = to_comparison_json(found)["rows"]
        assert all(None not in row["losses"] for row in shown)
        if parted is not None:
            losses = {row["step"]: row["losses"] for row in shown}[parted]
            expected = [each[parted - 1] for each in (one, other)]
            assert losses == ["NaN" if math.isnan(each) else each for each in expected]

    def test_blocks_have_the_norm_of_all_layers_that_have_a_gradient(self, tmp_path):
        norms = [
            (3.0, 4.0, 12.0, 0.0),
            (ABSENT, ABSENT, 3.0, 4.0),
            (ABSENT,) * 4,
            (3.0, math.inf, 1.0, 1.0),
        ]
        path = tmp_path / "a.db"
        with RunWriter.open(path, make_facts()) as writer:
            for step, each in enumerate(norms, start=1):
                writer.write(make_step(step, grad_norms=np.array(each), total_norm=1.0))
        ((name, found),) = read_view(RunReader(path), cells=4, blocks=1).blocks
        assert name == "0 … 1"
        assert found.tolist() == pytest.approx([13.0, 5.0, math.nan, math.inf], nan_ok=True)
