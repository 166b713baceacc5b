"""The table of rules: one entry is all that a rule needs."""

import dataclasses
import math
import pickle

import pytest
import torch
from torch import nn

from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import diagnose, overlook
from chainrule.diagnosis.factors import Part
from chainrule.diagnosis.input_rules import INPUT_RULES
from chainrule.diagnosis.limits import check_limits
from chainrule.diagnosis.loss_rules import LOSS_RULES
from chainrule.diagnosis.precision_rules import PRECISION_RULES
from chainrule.diagnosis.rule import Reading, Rule, Verdict
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES, RULES, measure_metric
from chainrule.diagnosis.symmetry_rules import SYMMETRY_RULES
from chainrule.diagnosis.time_rules import TIME_RULES
from chainrule.diagnosis.trial_rules import TRIAL_RULES
from chainrule.errors import ChainruleError
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

HEALTHY = NetworkSpec(depth=4, width=32, activation="relu", init="he")


def read_means(flow):
    """Read |mean| ÷ spread of every activation."""
    return [
        Reading(
            value=abs(call.statistics.mean) / call.statistics.std,
            layers=(call.layer,),
            modules=(call.name,),
            where=repr(call.name),
        )
        for call in flow.layers
        if call.role == "activation"
    ]


def trace_means(flow, layers):
    for call in flow.layers:
        if call.role == "activation" and call.layer in layers:
            yield Part(call.name, call.kind, call.layer, call.statistics.mean, "the mean")


OFF_CENTER = Rule(
    name="off_center",
    verdict=Verdict.HARD_TO_TRAIN,
    metric="mean of an activation ÷ its spread",
    threshold=0.1,
    beyond=">",
    reason="All weights of a unit are pushed the same way.",
    source="LeCun et al. 1998",
    read=read_means,
    trace=trace_means,
    harmful="<",
)
EXTENDED = {**RULES, OFF_CENTER.name: OFF_CENTER}


@pytest.fixture(scope="module")
def flow():
    return simulate(HEALTHY, 2)


@pytest.fixture(scope="module")
def diagnosis(flow):
    return diagnose(flow, rules=EXTENDED)


class TestANewRuleIsOneEntry:
    def test_it_is_found_and_worded(self, flow, diagnosis):
        assert diagnose(flow).verdict is Verdict.HEALTHY
        assert diagnosis.verdict is Verdict.HARD_TO_TRAIN
        (finding,) = diagnosis.findings
        values = [each.value for each in read_means(flow)]
        assert min(values) > 0.1
        assert finding.rule == "off_center"
        assert finding.value == max(values)
        assert finding.layers == (1, 2, 3, 4)
        assert finding.worst == read_means(flow)[values.index(max(values))].modules[0]
        for fact in (OFF_CENTER.metric, f"{finding.value:.3g}", "4 of 4", "above the limit of 0.1"):
            assert fact in finding.evidence
        assert (finding.reason, finding.source) == (OFF_CENTER.reason, OFF_CENTER.source)
        assert finding.evidence in repr(finding)

    def test_it_is_attributed(self, flow, diagnosis):
        ranked = rank_attributions(flow, diagnosis, rules=EXTENDED)
        assert ranked
        means = {call.name: call.statistics.mean for call in flow.layers}
        assert [float(each.factor) for each in ranked] == sorted(
            float(means[each.name]) for each in ranked
        )
        assert "the mean" in explain_attributions(diagnosis, ranked)

    def test_it_can_be_allowed(self, flow, diagnosis):
        (violation,) = check_limits(flow, diagnosis, rules=EXTENDED)
        assert violation.metric == OFF_CENTER.metric
        assert violation.bound == "≤ 0.1"
        assert check_limits(flow, diagnosis, allow=["off_center"], rules=EXTENDED) == ()
        with pytest.raises(ChainruleError, match="off_center"):
            check_limits(flow, diagnose(flow), allow=["off_center"])
        assert overlook(diagnosis, flow, ["off_center"], rules=EXTENDED) == diagnose(flow)

    def test_it_can_be_followed_from_one_network_to_another(self, flow, diagnosis):
        assert measure_metric(flow, "off_center", rules=EXTENDED) == diagnosis.findings[0].value
        other = simulate(HEALTHY.replace(activation="tanh", init="xavier"), 2)
        assert measure_metric(other, "off_center", rules=EXTENDED) < diagnosis.findings[0].value

    def test_the_others_find_what_they_found(self, flow):
        sick = simulate(NetworkSpec(depth=12), 2)
        found = diagnose(sick, rules=EXTENDED).findings
        assert [each for each in found if each.rule != "off_center"] == list(
            diagnose(sick).findings
        )


@pytest.mark.parametrize("beyond", ["<", ">"])
@pytest.mark.parametrize("at", range(3))
def test_a_metric_is_undefined_where_one_of_its_values_is(flow, at, beyond):
    values = [1.0, 2.0, 3.0]
    values[at] = math.nan
    rule = dataclasses.replace(
        OFF_CENTER, beyond=beyond, read=lambda flow: [Reading(value=value) for value in values]
    )
    assert math.isnan(measure_metric(flow, rule.name, rules={rule.name: rule}))


def test_rules_can_be_left_out():
    flow = simulate(NetworkSpec(depth=12), 2)
    rest = {name: rule for name, rule in RULES.items() if rule.verdict is not Verdict.VANISHING}
    assert not {"vanishing_gradient", "vanishing_backward"} & {
        each.rule for each in diagnose(flow, rules=rest).findings
    }
    assert diagnose(flow, rules={}).verdict is Verdict.HEALTHY


def test_the_table_is_read_only_and_in_the_order_of_the_verdicts():
    order = list(Verdict)
    ranks = [order.index(rule.verdict) for rule in RULES.values()]
    assert ranks == sorted(ranks)
    with pytest.raises(TypeError):
        RULES["new"] = OFF_CENTER
    with pytest.raises(dataclasses.FrozenInstanceError):
        OFF_CENTER.threshold = 1.0
    assert set(IGNORED_BY_REMEDIES) == {
        *("unreached", "detached_term", "broadcast_loss", "wrong_sign", "out_of_reach"),
        *("flat_function", "examples_as_steps", "probabilities_for_logarithms", "constant_inputs"),
        *("mixed_examples", "targets_without_effect", "frozen_alike"),
    }


def test_every_rule_that_has_factors_lists_them():
    without = {name for name, rule in RULES.items() if rule.trace is None}
    parts = (INPUT_RULES, LOSS_RULES, PRECISION_RULES, SYMMETRY_RULES, TIME_RULES, TRIAL_RULES)
    new = {rule.name for rules in parts for rule in rules}  # what they read is no product
    new |= {
        "averaged_away",
        "mixed_examples",
        "targets_without_effect",
        "frozen_alike",
        "examples_as_steps",
        "flat_function",
        "probabilities_for_logarithms",
        "strong_decay",
        "zero_product",
        "nothing_passed_on",
        "below_epsilon",
        "lost_epsilon",
        "not_held",
        "large_step",
        "small_step",
        "overshoots",
    }
    assert without - new == {"unreached", "nothing_to_train", "unlikely"}


def test_shares_are_formatted_in_percent_and_ratios_as_numbers():
    assert RULES["dead_units"].format(0.75) == "75 %"
    assert RULES["vanishing_gradient"].format(0.75) == "0.75"
    assert RULES["dead_units"].format(float("nan")) == "undefined"


class TestReprs:
    def test_are_one_readable_line(self):
        flow = simulate(NetworkSpec(depth=12), 2)
        diagnosis = diagnose(flow)
        text = repr(diagnosis)
        count = len(diagnosis.findings)
        assert text.startswith(f"Diagnosis(vanishing: {count} findings, SGD not viable, Adam ")
        for each in (diagnosis, *diagnosis.findings, *rank_attributions(flow, diagnosis)):
            assert "\n" not in repr(each)
            assert len(repr(each)) < 300
        healthy = diagnose(simulate(HEALTHY, 2))
        assert repr(healthy) == "Diagnosis(healthy: no findings, SGD viable, Adam viable)"

    def test_a_notebook_shows_findings_as_a_list(self):
        diagnosis = diagnose(simulate(NetworkSpec(depth=12), 2))
        text = diagnosis._repr_markdown_()
        assert text.startswith("**Vanishing**: ")
        assert text.count("\n- ") == len(diagnosis.findings)

    def test_a_notebook_shows_names_as_they_are(self):
        model = nn.Sequential()
        model.add_module("<b>*x*_", nn.Linear(2, 2))
        model.add_module("spare", nn.Linear(2, 2))
        flow = inspect(model, lambda m: m[0](torch.ones(2, 2)).sum() * float("inf"))
        text = diagnose(flow)._repr_markdown_()
        assert "&lt;b&gt;\\*x\\*\\_" in text
        assert "<b>" not in text

    def test_a_diagnosis_can_be_sent_to_another_process(self):
        diagnosis = diagnose(simulate(NetworkSpec(depth=12), 2))
        assert pickle.loads(pickle.dumps(diagnosis)) == diagnosis
