"""Figures, through their data."""

import math

import pytest

from chainrule import NetworkSpec, inspect, simulate
from chainrule.figures import build_gradient_figure


def test_medians_and_band_are_the_flows():
    flow = simulate(NetworkSpec(depth=6), 8)
    band, median, outside = build_gradient_figure(flow)["data"]
    norms = flow.weight_gradient_norms
    assert median["x"] == [1, 2, 3, 4, 5, 6]
    assert median["y"] == [float(norm) for norm in norms]
    assert band["y"] == [norm.high for norm in norms] + [norm.low for norm in reversed(norms)]
    assert outside["x"] == []


def test_axis_is_logarithmic_in_powers_and_holds_everything():
    flow = simulate(NetworkSpec(depth=6), 8)
    axis = build_gradient_figure(flow)["layout"]["yaxis"]
    assert (axis["type"], axis["exponentformat"]) == ("log", "power")
    low, high = axis["range"]
    for norm in flow.weight_gradient_norms:
        assert 10**low < norm.low <= norm.high < 10**high


def test_reference_line_is_the_last_layer():
    flow = simulate(NetworkSpec(depth=6), 8)
    (line,) = build_gradient_figure(flow)["layout"]["shapes"]
    assert line["y0"] == line["y1"] == float(flow.weight_gradient_norms[-1])


def test_zero_gradients_are_drawn_and_named():
    flow = simulate(NetworkSpec(depth=30, width=4, activation="relu", init="he"), 16)
    figure = build_gradient_figure(flow)
    _, median, outside = figure["data"]
    zero = [i + 1 for i, norm in enumerate(flow.weight_gradient_norms) if norm == 0]
    assert zero
    assert outside["x"] == zero
    assert all(median["y"][layer - 1] is None for layer in zero)
    assert "exactly zero" in figure["layout"]["annotations"][-1]["text"]


def test_non_finite_and_missing_gradients_are_drawn_and_named():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    with torch.no_grad():
        model[2].weight.fill_(math.inf)
    flow = inspect(model, lambda m: m(torch.ones(2, 3)).sum())
    figure = build_gradient_figure(flow)
    assert figure["data"][2]["x"] == [1, 2, 3] or figure["data"][2]["x"] == [1, 2]
    text = figure["layout"]["annotations"][-1]["text"]
    assert "not finite" in text
    assert "no gradient reaches it" in text
    assert all(math.isfinite(edge) for edge in figure["layout"]["yaxis"]["range"])


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_any_depth(depth):
    flow = simulate(NetworkSpec(depth=depth, width=8), 2)
    assert len(build_gradient_figure(flow)["data"][1]["x"]) == depth
