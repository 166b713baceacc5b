"""Figures, through their data."""

import math

import pytest

from chainrule import NetworkSpec, inspect, simulate
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
)


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


def test_activation_columns_hold_every_layers_whole_distribution():
    flow = simulate(NetworkSpec(depth=6, activation="relu", init="he"), 4)
    heatmap, *_ = build_activation_figure(flow)["data"]
    assert heatmap["x"] == [1, 2, 3, 4, 5, 6]
    for column in range(6):
        assert sum(row[column] for row in heatmap["customdata"]) == pytest.approx(1)
    lowest = heatmap["customdata"][0]
    assert all(0.45 < share < 0.65 for share in lowest)  # ReLU is off for half of its inputs


def test_activations_without_finite_values_are_left_blank():
    flow = simulate(NetworkSpec(depth=60, width=256, activation="relu", init="random"), 2)
    heatmap, *_ = build_activation_figure(flow)["data"]
    assert heatmap["z"][0][0] is not None
    assert all(row[-1] is None for row in heatmap["z"])


def test_factors_are_the_flows():
    flow = simulate(NetworkSpec(depth=5, normalization="layernorm"), 4)
    traces = {trace["name"]: trace for trace in build_factor_figure(flow)["data"]}
    factors = flow.factors()
    for role, name in (
        ("activation", "activation factor"),
        ("weight", "weight factor"),
        ("normalization", "normalization factor"),
    ):
        own = [factor for factor in factors if factor.role == role]
        assert traces[name]["y"] == [float(factor.value) for factor in own]
        assert traces[name]["x"] == [factor.layer for factor in own]
    weights = [factor for factor in factors if factor.role == "weight"]
    assert traces["running product"]["y"] == [float(factor.running) for factor in weights]


def test_residual_blocks_are_one_factor_each():
    flow = simulate(NetworkSpec(depth=4, residual="scaled"), 2)
    names = [trace["name"] for trace in build_factor_figure(flow)["data"]]
    assert names == ["factor of the block", "running product"]
