"""The diagnosis: each verdict from a network that deserves it, with evidence."""

import math
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from chainrule import NetworkSpec, Verdict, diagnose, inspect, simulate
from chainrule._utils.numbers import format_number
from chainrule.app.answers.flow_answer import describe_layer
from chainrule.diagnosis.diagnosis import ACTION_AT_RISK, ACTIONS
from chainrule.diagnosis.rule import MEANINGS
from chainrule.diagnosis.rules import RULES
from chainrule.display.tables import list_layer_head, write_layer_row
from chainrule.flow.quantity import divide_members
from chainrule.flow.records import read_saturation


def diagnose_spec(**settings):
    return diagnose(simulate(NetworkSpec(**settings), 8))


def test_the_table_is_complete():
    assert set(ACTIONS) == set(MEANINGS) == set(Verdict)
    assert {rule.verdict for rule in RULES.values()} == set(Verdict) - {Verdict.HEALTHY}
    assert [str(verdict) for verdict in Verdict] == [
        "non-finite",
        "underflow",
        "no gradient",
        "mismatched shapes",
        "wrong sign",
        "flat loss",
        "output unsuited to the loss",
        "symmetric units",
        "inputs out of scale",
        "dead units",
        "exploding",
        "large loss",
        "vanishing",
        "saturated",
        "signal collapse",
        "optimizer",
        "learning rate",
        "hard to train",
        "healthy",
    ]
    for rule in RULES.values():
        assert rule.beyond in "<>"
        assert rule.reason.endswith(".")
        assert rule.source


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({"depth": 100, "activation": "relu", "init": "random", "width": 256}, "non-finite"),
        ({"depth": 30, "activation": "relu", "init": "he", "width": 4}, "dead units"),
        ({"depth": 15, "activation": "relu", "init": "random"}, "exploding"),
        ({"depth": 15, "activation": "tanh", "init": "random"}, "exploding"),
        ({"depth": 10, "activation": "sigmoid"}, "vanishing"),
        ({"depth": 30, "activation": "relu", "init": "xavier"}, "vanishing"),
        ({"depth": 2, "activation": "tanh", "init": "random", "weight_std": 5}, "saturated"),
        ({"depth": 10, "activation": "relu", "init": "he"}, "healthy"),
        ({"depth": 20, "activation": "tanh", "init": "xavier"}, "healthy"),
    ],
)
def test_verdicts(settings, verdict):
    assert diagnose_spec(**settings).verdict == verdict


@pytest.mark.parametrize(("factor", "found"), [(1e-6, True), (1e-3, False)])
def test_signal_collapse(factor, found):
    """Where gradients are large, answers must be the same to four digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    with torch.no_grad():
        model[0].weight.mul_(factor)
        model[0].bias.fill_(0.3)
    inputs = torch.randn(32, 8)
    flow = inspect(model, lambda m: m(inputs).sum())
    assert flow.weight_layers[-1].variation < RULES["same_answer"].threshold
    diagnosis = diagnose(flow)
    assert (diagnosis.verdict is Verdict.SIGNAL_COLLAPSE) == found
    assert ("same_answer" in {each.rule for each in diagnosis.findings}) == found


def test_no_gradient_names_the_weights():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            self.unused(x)
            return self.used(x)

    diagnosis = diagnose(inspect(Half(), lambda m: m(torch.randn(8, 4)).square().sum()))
    assert diagnosis.verdict is Verdict.NO_GRADIENT
    assert diagnosis.findings[0].modules == ("unused.weight",)


def test_frozen_weights_are_no_fault():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    flow = inspect(model, lambda m: m(torch.randn(32, 8)).square().mean())
    assert diagnose(flow).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_found_where_they_are(value):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with torch.no_grad():
        model[2].weight[0, 0] = value
    diagnosis = diagnose(inspect(model, lambda m: m(torch.randn(8, 4)).sum()))
    assert diagnosis.verdict is Verdict.NON_FINITE
    assert len(diagnosis.findings) == 1
    assert "2.weight" in diagnosis.findings[0].modules


def test_the_ratio_alone_never_decides():
    flow = simulate(NetworkSpec(depth=30, activation="relu", init="xavier"), 8)
    assert 0.5 < flow.gradient_ratio < 2
    diagnosis = diagnose(flow)
    assert {finding.rule for finding in diagnosis.findings} >= {
        "vanishing_gradient",
        "vanishing_backward",
        "fading_signal",
    }


def test_findings_carry_their_evidence():
    flow = simulate(NetworkSpec(depth=10), 8)
    finding = diagnose(flow).findings[0]
    rule = RULES[finding.rule]
    shares = {
        layer.layer: divide_members(layer.weight_gradient_norm, flow.output_error)
        for layer in flow.weight_layers
    }
    wrong = [layer for layer, share in shares.items() if share < rule.threshold]
    assert finding.layers == tuple(wrong)
    assert finding.value == min(shares.values())
    assert format_number(min(flow.weight_gradient_norms)) in finding.evidence
    assert (finding.threshold, finding.reason, finding.source) == (
        rule.threshold,
        rule.reason,
        rule.source,
    )
    assert format_number(finding.value) in finding.evidence
    assert format_number(rule.threshold) in finding.evidence


MODELS = {
    "healthy": ([32] * 6, nn.Tanh, 1.0),
    "vanishing": ([32] * 30, nn.ReLU, 1.0),
    "exploding": ([32] * 8, nn.ReLU, 12.0),
    "saturated": ([32] * 2, nn.Tanh, 100.0),
}


def build_chain(name):
    """Return a classifier and a batch for it, in float64."""
    widths, activation, factor = MODELS[name]
    torch.manual_seed(0)
    layers = []
    for before, after in pairwise([32, *widths]):
        layers += [nn.Linear(before, after), activation()]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], 5)).double()
    with torch.no_grad():
        for linear in model[:-1:2]:
            linear.weight.mul_(factor)
    return model, torch.randn(64, 32).double(), torch.randint(0, 5, (64,))


@pytest.mark.parametrize("name", MODELS)
class TestNothingButTheNetworkDecides:
    """The verdict, its rules and the layers they name stay what they are."""

    @staticmethod
    def judge(model, compute_loss):
        diagnosis = diagnose(inspect(model, compute_loss))
        return [(each.rule, each.layers, each.value) for each in diagnosis.findings]

    def expect(self, found, expected):
        assert [each[:2] for each in found] == [each[:2] for each in expected]
        for (*_, value), (*_, wanted) in zip(found, expected, strict=True):
            assert value == pytest.approx(wanted, rel=1e-6)

    @settings(max_examples=10, deadline=None)
    @given(exponent=st.floats(-9, 9))
    def test_a_multiple_of_the_loss(self, name, exponent):
        model, inputs, labels = build_chain(name)
        plain = self.judge(model, lambda m: cross_entropy(m(inputs), labels))
        assert bool(plain) == (name != "healthy")
        factor = 10**exponent
        found = self.judge(model, lambda m: factor * cross_entropy(m(inputs), labels))
        small = [each for each in found if each[0] == "below_epsilon"]
        assert not small or exponent < -2  # no learning rate makes up for Adam's epsilon
        self.expect([each for each in found if each not in small], plain)

    def test_a_sum_over_the_examples(self, name):
        model, inputs, labels = build_chain(name)
        self.expect(
            self.judge(model, lambda m: cross_entropy(m(inputs), labels, reduction="sum")),
            self.judge(model, lambda m: cross_entropy(m(inputs), labels)),
        )

    @pytest.mark.parametrize("times", [2, 16])
    def test_the_batch_size(self, name, times):
        model, inputs, labels = build_chain(name)
        many, answers = inputs.repeat(times, 1), labels.repeat(times)
        self.expect(
            self.judge(model, lambda m: cross_entropy(m(many), answers)),
            self.judge(model, lambda m: cross_entropy(m(inputs), labels)),
        )

    def test_other_examples_in_other_numbers(self, name):
        model, inputs, labels = build_chain(name)
        rules = [
            {
                rule
                for rule, *_ in self.judge(
                    model, lambda m, n=n: cross_entropy(m(inputs[:n]), labels[:n])
                )
            }
            for n in (16, 64)
        ]
        assert rules[0] == rules[1]

    def test_a_wrapper(self, name):
        model, inputs, labels = build_chain(name)
        wrapped = nn.Sequential(nn.Sequential(model))
        self.expect(
            self.judge(wrapped, lambda m: cross_entropy(m(inputs), labels)),
            self.judge(model, lambda m: cross_entropy(m(inputs), labels)),
        )


@pytest.mark.parametrize(
    ("shape", "outputs"), [((6, 3), 6), ((4, 5, 3), 20), ((2, 3, 4, 4), 32), ((7,), 1)]
)
def test_the_error_at_the_output(shape, outputs):
    """√N · ‖∂𝓛/∂output‖ by plain autograd, for N outputs."""
    torch.manual_seed(0)
    inputs = torch.randn(*shape, dtype=torch.float64)
    scale = nn.Linear(1, 1, dtype=torch.float64)
    model = nn.Sequential(nn.Unflatten(-1, (-1, 1)), scale, nn.Flatten(-2))
    flow = inspect(model, lambda m: m(inputs).square().mean())
    output = model(inputs).detach().requires_grad_()  # of the same shape as the inputs
    output.square().mean().backward()
    assert flow.output_error == pytest.approx(math.sqrt(outputs) * output.grad.norm().item())


def test_findings_are_ordered_and_the_first_decides():
    diagnosis = diagnose_spec(depth=15)
    order = [list(Verdict).index(finding.verdict) for finding in diagnosis.findings]
    assert order == sorted(order)
    assert diagnosis.verdict is diagnosis.findings[0].verdict


def test_action_suits_the_network():
    sigmoid, relu = (
        diagnose_spec(depth=10),
        diagnose_spec(depth=30, activation="relu", init="xavier"),
    )
    assert "above 0.25" in sigmoid.action
    assert "He (Kaiming) initialization" in relu.action
    assert "{" not in sigmoid.action + relu.action
    assert diagnose_spec(activation="relu", init="he").action == ACTIONS[Verdict.HEALTHY]
    doubtful = diagnose_spec(depth=50, activation="relu", init="he")
    assert doubtful.verdict is Verdict.HEALTHY
    assert doubtful.action == ACTION_AT_RISK


def test_a_diagnosis_is_immutable():
    diagnosis = diagnose_spec(depth=3)
    with pytest.raises(AttributeError):
        diagnosis.verdict = Verdict.HEALTHY


def test_a_ratio_needs_an_absolute_value_in_addition():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[1].weight.normal_(0, 4e-4)
    inputs = 300 * torch.randn(32, 64)
    flow = inspect(model, lambda m: m(inputs).square().mean())
    assert flow.delta_ratio < RULES["vanishing_backward"].threshold
    assert min(flow.weight_gradient_norms) > 10 * RULES["vanishing_gradient"].threshold
    assert "vanishing_backward" not in [finding.rule for finding in diagnose(flow).findings]


def test_a_model_without_parameters_cannot_be_healthy():
    x = torch.ones(3, 4, requires_grad=True)
    diagnosis = diagnose(inspect(nn.Identity(), lambda m: m(x).sum()))
    assert diagnosis.verdict is Verdict.NO_GRADIENT
    assert diagnosis.findings[0].rule == "nothing_to_train"


def test_shares_read_as_percent():
    finding = diagnose_spec(depth=30, width=4, activation="relu", init="he").findings[0]
    assert " %" in finding.evidence
    assert "above the limit of 70 %" in finding.evidence


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        (
            {"depth": 3, "activation": "identity", "init": "random", "weight_std": 1e6},
            ["the loss is infinite", "all values and gradients are finite"],
        ),
        (
            {"depth": 5, "activation": "identity", "init": "random", "weight_std": 1e6},
            ["all values are finite", "gradients are not finite from layer 4 on"],
        ),
        (
            {"depth": 100, "activation": "identity", "init": "random", "weight_std": 1e6},
            ["values are finite up to layer 5", "not from layer 6 on"],
        ),
    ],
)
def test_non_finite_numbers_are_said_to_begin_where_they_do(changes, facts):
    spec = NetworkSpec(**changes)
    flow = simulate(spec, 8)
    (finding,) = diagnose(flow).findings
    assert all(fact in finding.evidence for fact in facts)
    values = [layer.pre_activation.non_finite for layer in flow.weight_layers]
    gradients = [layer.weight_gradient_norm for layer in flow.weight_layers]
    if "up to" in finding.evidence:
        assert values[4] == 0 < values[5]
    else:
        assert not any(values)
    assert all(map(math.isfinite, gradients)) is (spec.depth == 3)


def test_where_non_finite_numbers_begin_in_your_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    (finding,) = diagnose(
        inspect(model, lambda m: (1e30 * m(torch.ones(8, 4))).exp().sum())
    ).findings
    assert "all values are finite" in finding.evidence
    assert "already at the output of '2', so in the loss" in finding.evidence
    with torch.no_grad():
        model[2].weight[0, 0] = math.nan
    (finding,) = diagnose(inspect(model, lambda m: m(torch.ones(8, 4)).sum())).findings
    assert "the parameter '2.weight' holds some" in finding.evidence


def test_shares_of_undefined_values_are_undefined():
    spec = NetworkSpec(depth=60, width=256, activation="relu", init="random")
    flow = simulate(spec, 2)
    first, last = flow.weight_layers[0], flow.weight_layers[-1]
    assert first.dead_share == 0
    assert last.pre_activation.non_finite > 0
    assert math.isnan(last.dead_share)
    assert math.isnan(last.saturation)


def test_saturation_is_shown_of_bounded_activations_only():
    for name, shown in (("sigmoid", True), ("tanh", True), ("relu", False), ("gelu", False)):
        flow = simulate(NetworkSpec(depth=3, width=16, activation=name), 2)
        layer = flow.weight_layers[0]
        assert layer.saturation is not None
        assert (read_saturation(layer) is not None) is shown
        row = dict(zip(list_layer_head(flow), write_layer_row(flow, layer), strict=True))
        assert row["saturated"].endswith("%") is shown
        assert ("saturated" in describe_layer(layer)) is shown


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(depth=15, activation="sigmoid"),
        NetworkSpec(depth=12, activation="relu", init="random"),
        NetworkSpec(depth=20, activation="relu", init="he", width=16),
        NetworkSpec(depth=3, activation="tanh", init="xavier"),
    ],
)
def test_findings_and_what_no_finding_tells_add_up_to_the_odds(spec):
    diagnosis = diagnose(simulate(spec, 4))
    sgd = diagnosis.viability.sgd
    told = {RULES[finding.rule].feature for finding in diagnosis.findings}
    untold = [each.log_odds for each in sgd.contributions if each.feature not in told]
    total = sgd.base + sum(each.log_odds for each in diagnosis.findings) + sum(untold)
    assert total == pytest.approx(sgd.log_odds, abs=1e-9)
    for finding in diagnosis.findings:
        said = re.search(r"the chance would (?:still )?be ([a-z\d ]+) %", finding.consequence)
        assert bool(said) == (finding.log_odds < -0.05)
        if said:
            chance = 100 / (1 + math.exp(finding.log_odds - sgd.log_odds))
            low = "less than 1" if chance < 1 else f"{chance:.0f}"
            assert said[1] == ("more than 99" if chance > 99 else low)
