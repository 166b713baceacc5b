"""Figures, through their data."""

import math

import numpy as np
import pytest

from chainrule import NetworkSpec, inspect, simulate
from chainrule._utils.numbers import format_number, format_part
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_layer_figure,
    theme,
)
from chainrule.figures.bins import SymmetricLog, spread
from chainrule.figures.gradients import MEASURES, POWERS
from chainrule.flow.quantity import divide_members
from chainrule.flow.records import Histogram
from chainrule.presets import PRESETS
from made_flows import make_chain


def test_medians_and_band_are_the_flows():
    flow = simulate(NetworkSpec(depth=6), 8)
    band, median, outside = build_gradient_figure(flow)["data"]
    norms = flow.weight_gradient_norms
    assert median["x"] == [1, 2, 3, 4, 5, 6]
    assert median["y"] == [float(norm) for norm in norms]
    assert band["y"] == [norm.high for norm in norms] + [norm.low for norm in reversed(norms)]
    assert outside["x"] == []


@pytest.mark.parametrize("name", ["Vanishing (Sigmoid)", "Healthy (ReLU + He)", "Dying ReLU"])
def test_the_axis_is_the_same_for_networks_that_have_room_on_it(name):
    figure = build_gradient_figure(simulate(PRESETS[name].spec, 3))
    assert figure["layout"]["yaxis"]["range"] == list(POWERS)


def test_the_axis_grows_by_whole_strides_where_a_network_leaves_it():
    flow = simulate(NetworkSpec(depth=15, activation="relu", init="random"), 3)
    assert max(flow.weight_gradient_norms) > 10.0 ** POWERS[1]
    low, high = build_gradient_figure(flow)["layout"]["yaxis"]["range"]
    assert low == POWERS[0]
    assert high > math.log10(max(flow.weight_gradient_norms))
    assert (high - POWERS[1]) % 6 == 0


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_colour_and_shape_of_a_mark_say_on_which_side_of_the_range_it_is(scale):
    flow = simulate(NetworkSpec(depth=15, init="xavier"), 3)
    norms = [float(norm) for norm in flow.weight_gradient_norms]
    usable = sorted(norms)[4], sorted(norms)[9]
    figure = build_gradient_figure(flow, scale=scale, usable=usable)
    marker = figure["data"][1]["marker"]
    for norm, color, symbol in zip(norms, marker["color"], marker["symbol"], strict=True):
        state = "small" if norm < usable[0] else "large" if norm > usable[1] else "usable"
        assert (color, symbol) == theme.STATES[state]
    assert len(set(marker["symbol"])) == len(set(marker["color"])) == 3
    zones = {shape["fillcolor"]: shape for shape in figure["layout"]["shapes"]}
    zone = zones[theme.ZONES["usable"]]
    assert (zone["y0"], zone["y1"]) == pytest.approx(usable)
    assert zones[theme.ZONES["small"]]["y1"] == zone["y0"]
    assert zones[theme.ZONES["large"]]["y0"] == zone["y1"]


def test_zones_are_those_of_the_verdict():
    flow = simulate(NetworkSpec(depth=15, init="xavier"), 3)
    low, high = read_usable_range(flow)
    error = float(flow.output_error)
    assert low == pytest.approx(RULES["vanishing_gradient"].threshold * error)
    assert high == pytest.approx(RULES["exploding_gradient"].threshold * error)
    assert read_usable_range(flow, Verdict.VANISHING) == (low, high)
    least = min(map(float, flow.weight_gradient_norms))
    assert read_usable_range(flow, Verdict.HEALTHY) == (least, high)


def test_other_measures_have_no_zones():
    flow = simulate(NetworkSpec(depth=4), 2)
    figure = build_gradient_figure(flow, measure="delta", usable=(0.1, 1.0))
    assert figure["layout"]["shapes"] == []
    assert figure["data"][1]["marker"]["color"] == theme.LINE


def _name_zones(figure):
    """Return the words of zones: those inside as they are, those in the margin word by word."""
    notes = [note for note in figure["layout"]["annotations"] if note.get("yref") != "paper"]
    inside = [note for note in notes if note["x"] <= 1]
    beside = [note for note in notes if note["x"] > 1]
    return inside, beside


def _say(notes):
    return " ".join(note["text"].removeprefix("<b>").removesuffix("</b>") for note in notes)


@pytest.mark.parametrize(
    "norms",
    [
        [1.0] * 15,
        [10.0 ** (-i / 2) for i in range(15)],
        [10.0 ** (i / 2 - 7) for i in range(15)],
        [1e3, 1e-9],
        [10.0 ** (3 * (-1) ** i) for i in range(12)],  # up and down through all corners
    ],
)
def test_a_zone_that_is_seen_has_a_name_and_no_line_runs_through_it(norms):
    usable = (1e-3, 1e2)
    figure = build_gradient_figure(make_chain(norms), usable=usable)
    inside, beside = _name_zones(figure)
    for name in ("too small", "layers learn here", "too large"):
        assert name in _say(inside) or name in _say(beside)
    low, high = figure["layout"]["yaxis"]["range"]
    for note in inside:  # the line itself, as it is drawn, at 200 places
        middle = note["y"] + (0.05 if note["yshift"] > 0 else -0.05) * (high - low)
        half = 0.02 * (high - low)
        long = 0.02 * len(note["text"].removeprefix("<b>").removesuffix("</b>"))
        start = {"left": 0.0, "right": 1 - long, "center": 0.5 - long / 2}[note["xanchor"]]
        places = np.linspace(start, start + long, 200)
        ends = [(i + 0.5) / len(norms) for i in range(len(norms))]
        line = np.interp(places, ends, np.log10(norms), left=np.nan, right=np.nan)
        assert not np.any(np.abs(line - middle) < half), note["text"]


def test_where_a_line_runs_through_a_whole_zone_its_name_stands_in_the_margin():
    norms = [1e1, 1e-2] * 8
    figure = build_gradient_figure(make_chain(norms), usable=(1e-3, 1e2))
    inside, beside = _name_zones(figure)
    assert "layers learn here" not in _say(inside)
    assert _say(beside) == "layers learn here"
    assert len({note["y"] for note in beside}) == 1
    assert 1e-3 < 10 ** beside[0]["y"] < 1e2
    assert [note["yshift"] for note in beside] == [14, 0, -14]
    assert figure["layout"]["margin"]["r"] >= 50  # px: there is room for it


def test_a_zone_too_thin_for_words_inside_is_named_beside_it():
    figure = build_gradient_figure(make_chain([1e-30, 1e30]), usable=(1e-3, 1e-1))
    assert _say(_name_zones(figure)[1]) == "layers learn here"


def test_shapes_of_zones_have_their_names():
    figure = build_gradient_figure(make_chain([1.0] * 4), usable=(1e-3, 1e2))
    names = [shape["name"] for shape in figure["layout"]["shapes"]]
    assert names == ["too small", "layers learn here", "too large"]


def test_what_the_first_layer_gets_of_the_last_is_the_ratio_of_the_card():
    flow = simulate(PRESETS["Vanishing (Sigmoid)"].spec, 3)
    (note,) = [
        note
        for note in build_gradient_figure(flow)["layout"]["annotations"]
        if "layer 1" in note["text"]
    ]
    assert format_part(flow.gradient_ratio) in note["text"]
    assert note["yref"] == "paper"  # above the chart, on no line
    assert "layer 15" in note["text"]


@pytest.mark.parametrize(
    ("measure", "name"),
    [("weight", "weight gradient of"), ("delta", "δ of"), ("relative", "gradient ÷ weight of")],
)
def test_what_stands_over_the_chart_says_which_gradient_it_is(measure, name):
    flow = simulate(NetworkSpec(depth=5, init="xavier"), 3)
    notes = build_gradient_figure(flow, measure=measure)["layout"]["annotations"]
    (note,) = [each["text"] for each in notes if "layer 1" in each["text"]]
    first, last = (MEASURES[measure].read(flow.weight_layers[at]) for at in (0, -1))
    assert note == f"<b>{name} layer 1: {format_part(divide_members(first, last))} layer 5’s</b>"


def test_marks_of_the_pinned_network_are_hollow_and_lie_beneath():
    flow, other = (simulate(NetworkSpec(depth=4, init=init), 2) for init in ("he", "xavier"))
    data = build_gradient_figure(flow, other=other)["data"]
    pinned = data[3]
    assert pinned["marker"]["symbol"].endswith("-open")
    assert all(pinned["zorder"] < trace.get("zorder", 0) for trace in data[:3])
    assert pinned["marker"]["size"] < data[1]["marker"]["size"]


@pytest.mark.parametrize("count", [1, 2, 12, 13, 15, 30, 33, 99, 100, 101, 1000])
def test_layers_are_named_by_round_numbers_and_the_ends(count):
    ticks = theme.list_layer_ticks(count)
    assert ticks[0] == 1
    assert ticks[-1] == count
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 12
    assert all(tick % 5 == 0 for tick in ticks[1:-1]) or count <= 12


def test_axis_is_logarithmic_in_powers_and_holds_everything():
    flow = simulate(NetworkSpec(depth=6), 8)
    axis = build_gradient_figure(flow)["layout"]["yaxis"]
    assert (axis["type"], axis["exponentformat"]) == ("log", "power")
    low, high = axis["range"]
    for norm in flow.weight_gradient_norms:
        assert 10**low < norm.low <= norm.high < 10**high


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


PINNED_CASES = [
    NetworkSpec(depth=6),
    NetworkSpec(depth=6, normalization="batchnorm", activation="relu"),
    NetworkSpec(depth=6, residual="plain"),
]


@pytest.mark.parametrize("spec", PINNED_CASES)
def test_the_pinned_network_looks_the_same_in_every_chart_and_like_nothing_else(spec):
    flow, other = simulate(spec, 4), simulate(NetworkSpec(depth=4, activation="tanh"), 4)
    for figure in (
        build_gradient_figure(flow, other=other),
        build_activation_figure(flow, other=other),
        build_factor_figure(flow, other=other),
        build_layer_figure(flow, 2, other=other),
    ):
        pinned = [trace for trace in figure["data"] if "pinned" in trace.get("name", "")]
        assert pinned
        for trace in figure["data"]:
            if trace["type"] == "heatmap":
                continue
            color = trace.get("line", {}).get("color") or trace.get("marker", {}).get("color")
            assert (color == theme.PINNED["color"]) is (trace in pinned)
            dash = trace.get("line", {}).get("dash")
            assert (dash == theme.PINNED["dash"]) is (trace in pinned)


@pytest.mark.parametrize(
    ("zero", "shares"),
    [
        (0.0, [0.125, 0.125, 0.25, 0.25, 0.25]),
        (0.2, [0.225, 0.025, 0.25, 0.25, 0.25]),
        (0.5, [0.25, 0.0, 0.25, 0.25, 0.25]),
    ],
)
def test_zeros_move_within_their_bin_and_no_more_than_it_holds(zero, shares):
    histogram = Histogram(low=0.0, high=4.0, counts=(3, 3, 3, 3), sampled=12)
    edges = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
    assert spread(histogram, edges, zero=zero) == pytest.approx(shares, abs=1e-12)


def test_one_layers_histograms_share_their_bins_and_are_whole():
    flow = simulate(NetworkSpec(depth=3, activation="sigmoid", init="random"), 4)
    other = simulate(NetworkSpec(depth=2, activation="relu", init="he"), 4)
    figure = build_layer_figure(flow, 2, other=other)
    before, after, pinned = figure["data"]
    assert before["x"] == after["x"]
    assert before["width"] == after["width"] == pytest.approx(before["x"][1] - before["x"][0])
    assert sum(before["y"]) == pytest.approx(1)
    assert sum(after["y"]) == pytest.approx(1)
    assert sum(pinned["y"]) == pytest.approx(2)  # every share at both of its edges
    histogram = flow.weight_layers[1].activation.histogram
    inside = sum(y for x, y in zip(after["x"], after["y"], strict=True) if x < 0.5)
    half = sum(histogram.counts[:20]) / sum(histogram.counts)  # of a sigmoid: 0 to 1
    assert inside == pytest.approx(half, abs=0.1)
    assert (
        f"in bins of {format_number(after['width'])}" in figure["layout"]["xaxis"]["title"]["text"]
    )
    assert len(build_layer_figure(flow, 3, other=other)["data"]) == 2  # the pinned one has none


def test_layers_of_very_different_size_get_a_symmetric_logarithmic_axis():
    flow = simulate(PRESETS["Exploding (ReLU + random σ = 1)"].spec, 4)
    heatmap = build_activation_figure(flow)["data"][0]
    axis = build_activation_figure(flow)["layout"]["yaxis"]
    assert axis["ticktext"][0] == "0"
    scale = SymmetricLog.choose(layer.output.histogram.high for layer in flow.weight_layers)
    for column, layer in enumerate(flow.weight_layers):
        shares = [row[column] for row in heatmap["customdata"]]
        assert sum(shares) == pytest.approx(1)
        assert sum(share > 0.005 for share in shares) > 2  # more than one line is seen
        zeros = layer.output.zero_share.values
        assert shares[0] >= sum(zeros) / len(zeros) - 0.001
        top = max(row for row, share in enumerate(shares) if share > 0)
        assert heatmap["y"][top] == pytest.approx(scale.place(layer.output.histogram.high), abs=0.5)
    small = build_activation_figure(simulate(NetworkSpec(depth=3), 2))["layout"]["yaxis"]
    assert "ticktext" not in small


def test_a_symmetric_log_scale_is_odd_and_can_be_read_back():
    scale = SymmetricLog.choose([0.02, 5e30])
    assert scale.power == -2
    for value in (0.0, 1e-4, 0.01, 3.0, 7e12, 4e30, 1e300):
        assert scale.read(scale.place(value)) == pytest.approx(value, rel=1e-9)
        assert scale.place(-value) == -scale.place(value)
    assert scale.place(1e20) == pytest.approx(22, abs=1e-6)
    assert SymmetricLog.choose([0.1, 9.0, 0.0, math.inf]) is None


def test_layers_whose_values_are_not_finite_are_marked():
    spec = NetworkSpec(depth=12, activation="identity", init="random", weight_std=1e6)
    flow = simulate(spec, 2)
    figure = build_activation_figure(flow)
    (marks,) = [trace for trace in figure["data"] if trace.get("name") == "not finite"]
    wrong = [layer.layer for layer in flow.weight_layers if layer.output.non_finite > 0]
    assert wrong
    assert marks["x"] == wrong
    assert f"× {len(wrong)} layers: values not finite" in figure["layout"]["annotations"][0]["text"]


def test_where_the_gradient_becomes_zero_is_marked_and_said():
    flow = simulate(PRESETS["Dying ReLU"].spec, 16)
    figure = build_factor_figure(flow)
    zero = next(f for f in flow.factors() if f.running == 0)
    mark = figure["layout"]["shapes"][-1]
    assert mark["x0"] == mark["x1"] == zero.layer
    (note,) = figure["layout"]["annotations"]
    assert note["text"] == f"× exactly zero from layer {zero.layer} back"
    count = sum(value == 0 for value in zero.value.values)
    assert f"0 (in {count} of 16 networks)" in figure["data"][-1]["customdata"][0]
    for trace in figure["data"]:
        if not any(y is not None for y in trace["y"]):
            assert trace["showlegend"] is False
    assert len(build_factor_figure(simulate(NetworkSpec(depth=4), 2))["layout"]["shapes"]) == 1


def test_a_spike_of_zeros_is_cut_and_named_and_nothing_else_is():
    spec = NetworkSpec(depth=4, width=32, activation="relu", init="he")
    figure = build_layer_figure(simulate(spec, 4), 2)
    low, top = figure["layout"]["yaxis"]["range"]
    shares = sorted((y for trace in figure["data"] for y in trace["y"]), reverse=True)
    assert low == 0
    assert shares[0] > 4 * top / 1.25 == pytest.approx(4 * shares[1])
    (note,) = figure["layout"]["annotations"]
    assert f"{100 * shares[0]:.0f} % of the activations h" in note["text"]
    even = build_layer_figure(simulate(spec.replace(activation="tanh"), 4), 2)
    assert "range" not in even["layout"]["yaxis"]
    assert even["layout"]["annotations"] == []


def test_with_residual_connections_what_is_drawn_is_the_branch():
    spec = NetworkSpec(depth=4, width=8, activation="relu", init="he")
    names = [
        build_activation_figure(simulate(each, 2))["layout"]["yaxis"]["title"]["text"]
        for each in (spec, spec.replace(residual="plain"))
    ]
    assert names[0].startswith("activation h")
    assert names[1].startswith("activation φ(z)")


def test_two_shares_on_one_line_are_both_seen():
    spec = NetworkSpec(depth=4, width=8, activation="tanh")
    saturated, dead = build_activation_figure(simulate(spec, 2))["data"][1:3]
    assert saturated["line"]["dash"] != dead["line"]["dash"]
    assert saturated["marker"]["symbol"] != dead["marker"]["symbol"]
