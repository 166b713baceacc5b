"""Whatever a flow file holds: once it is loaded, a diagnosis of it raises nothing."""

import json
import math

import pytest
from hypothesis import HealthCheck, example, given, settings

from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import diagnose, overlook
from chainrule.diagnosis.limits import Limits, check_limits
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES, measure_metric
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import decode_flow
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from strategies import flow_files


def change(spec, *path, value, seeds=1):
    """Return the file of a measured specification with one value replaced."""
    document = json.loads(simulate(spec, seeds).to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document)


SPEC = NetworkSpec(depth=3, width=4, batch_size=5, activation="tanh", init="xavier")
NORMALIZED = SPEC.replace(normalization="layernorm")
SIGMOID = SPEC.replace(activation="sigmoid", init="random", weight_std=100.0)
BELOW_ZERO = {
    "parts": [
        {"kind": "custom", "value": [-1.0], "guessing": [0.0], "constant": None, "floor": None}
        | {"activation": None, "width": None, "is_direct": True, "outputs": []}
    ],
    "outputs": [],
    "terms": [],
} | dict.fromkeys(("offset", "step", "reaction", "zero_examples", "cut", "detached"))
LEAST = {
    "name": "", "of": "output", "dtype": "float16", "layer": 1, "zero_share": [0.0],
    "subnormal_share": [0.0], "size": [5e-324], "largest": [1e-300],
}  # fmt: skip

APART = {
    "name": "", "kind": "LSTM", "call": 0, "of": "input", "length": 9, "steps": [0, 1, 2],
    "gradients": [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], "read": [],
}  # fmt: skip

FINDS = {
    "a scalar first layer": change(SPEC, "layers", 0, "shape", value=[]),
    "more entries than a float can count": change(SPEC, "layers", -1, "shape", value=[2**62] * 20),
    "a scale with more entries than a float can count": change(
        NORMALIZED, "parameters", 2, "shape", value=[2**62] * 20
    ),
    "saturation above 1 by rounding": change(
        SIGMOID, "layers", 1, "statistics", "saturation", value=1 + 5e-7
    ),
    "a loss below zero where guessing gives zero": change(SPEC, "loss_facts", value=BELOW_ZERO),
    "variation below 0 by rounding": change(
        SPEC, "layers", -1, "statistics", "variation", value=-5e-7
    ),
    "members that reach different steps": change(SPEC, "times", value=[APART], seeds=3),
    "half precision far below the smallest number": change(SPEC, "precisions", value=[LEAST]),
}
"""Files that a diagnosis or an attribution once failed on."""


def read_all(flow: GradientFlow) -> None:
    diagnosis = diagnose(flow)
    assert (diagnosis.verdict is Verdict.HEALTHY) is not bool(diagnosis.findings)
    for each in diagnosis.findings:
        assert RULES[each.rule].is_beyond(each.value)
        assert set(each.layers) <= {layer.layer for layer in flow.weight_layers}
        assert each.evidence
        assert each.consequence
    ranked = rank_attributions(flow, diagnosis, count=10**6)
    for attribution in ranked:
        assert attribution.share is None or 0 <= attribution.share <= 1
    assert isinstance(explain_attributions(diagnosis, ranked), str)
    assert "\n" not in repr(diagnosis)
    assert diagnosis._repr_markdown_()
    for name, rule in RULES.items():
        values = [each.value for each in rule.read(flow) if each.value is not None]
        worst = measure_metric(flow, name)
        assert (worst is None) is not bool(values)
        assert worst is None or math.isnan(worst) or worst in values
        measure_metric(flow, name, clipped=True)
        rest = overlook(diagnosis, flow, [name])
        assert name not in {each.rule for each in rest.findings}
        alone = diagnose(flow, rules={name: rule})
        rank_attributions(flow, alone, rules={name: rule})
    for limits in (Limits(min_gradient=1e-3, max_gradient=1.0, max_ratio=5.0), Limits()):
        for violation in check_limits(flow, diagnosis, limits):
            assert str(violation)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow_files())
@example(FINDS["a scalar first layer"])
@example(FINDS["more entries than a float can count"])
def test_no_flow_makes_it_raise(text):
    read_all(decode_flow(text))


@pytest.mark.parametrize("name", FINDS)
def test_what_was_found_stays_mended(name):
    flow = decode_flow(FINDS[name])
    read_all(flow)
    for rule in RULES.values():  # every factor, whichever rule decides
        rank_attributions(flow, diagnose(flow, rules={rule.name: rule}), rules={rule.name: rule})


def test_saturation_above_1_counts_as_1():
    flow = decode_flow(FINDS["saturation above 1 by rounding"])
    saturated = {"saturated": RULES["saturated"]}
    (first, *_) = rank_attributions(flow, rules=saturated)
    assert first.layer == 1
    assert first.share is None  # a factor of zero
