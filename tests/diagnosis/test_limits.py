"""Limits of your own, where a gradient is exactly on one, or is no number."""

import dataclasses
import math

import pytest

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import Limits, check_limits
from chainrule.flow.quantity import Quantity
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from made_flows import make_chain

FLOW = simulate(NetworkSpec(depth=3, width=8, activation="relu", init="he"), 1)
WIDE = {"min_gradient": 1e-30, "max_gradient": 1e30, "max_ratio": 1e30}
"""Limits that every number keeps."""


def check(flow, **limits):
    return check_limits(flow, diagnose(flow), Limits(**limits), allow=["non_finite"])


def set_gradient(layer, norm):
    """Return the flow with another ‖∂loss/∂W‖ in one layer."""
    name = FLOW.weight_layers[layer - 1].name
    return dataclasses.replace(
        FLOW,
        parameters=tuple(
            dataclasses.replace(each, grad_norm=Quantity([norm]))
            if each.name == f"{name}.weight"
            else each
            for each in FLOW.parameters
        ),
    )


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("limit", WIDE)
def test_an_undefined_gradient_keeps_no_limit(limit, layer):
    (violation,) = check(set_gradient(layer, math.nan), **{limit: WIDE[limit]})
    assert f"layer {layer}" in violation.place
    assert violation.value == "undefined"


@pytest.mark.parametrize(("limit", "layer"), [("min_gradient", 1), ("max_gradient", 3)])
def test_a_gradient_on_the_limit_keeps_it(limit, layer):
    norm = {"min_gradient": 0.01, "max_gradient": 100.0}[limit]
    flow = set_gradient(layer, norm)
    assert check(flow, **{limit: norm}) == ()
    beyond = norm * (1 + 1e-9) if limit == "min_gradient" else norm * (1 - 1e-9)
    (violation,) = check(flow, **{limit: beyond})
    assert f"layer {layer}" in violation.place


@pytest.mark.parametrize("limit", [{"min_gradient": 0.5}, {"max_ratio": 2.0}])
@pytest.mark.parametrize(("norm", "passed"), [(0.0, False), (2.0, True)])
def test_what_a_parameter_that_starts_at_zero_explains_keeps_every_limit(limit, norm, passed):
    made = make_chain([0.0, 1.0, 1.0])
    weights = [
        dataclasses.replace(each, norm=Quantity([norm])) if each.layer == 2 else each
        for each in made.parameters
    ]
    flow = dataclasses.replace(made, parameters=tuple(weights))
    found = [each for each in check(flow, **limit) if each.metric.endswith("‖∂𝓛/∂W‖")]
    assert [("layer 1" in each.place) for each in found] == ([True] if passed else [])
