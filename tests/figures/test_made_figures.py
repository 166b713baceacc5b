"""What is drawn of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_layer_figure,
    theme,
)
from chainrule.figures.bins import SymmetricLog, spread
from chainrule.figures.layers import MOST_BINS
from chainrule.figures.profile import LINES, build_profile_figure, count_hidden
from chainrule.figures.zones import read_ends
from chainrule.flow.blocks import ProfileRow, Stack
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import Histogram, WeightLayer
from made_flows import call, make_chain, make_flow, parameter, quantity, statistics


def histogram(low, high, *counts):
    return Histogram(low=low, high=high, counts=counts, sampled=sum(counts))


class TestBins:
    @pytest.mark.parametrize(
        ("edges", "shares"),
        [
            ([0.0, 1.0, 2.0, 3.0, 4.0], [0.1, 0.2, 0.3, 0.4]),
            ([0.0, 2.0, 4.0], [0.3, 0.7]),
            ([-1.0, 0.5, 1.5, 5.0], [0.05, 0.15, 0.8]),
            ([-9.0, 9.0], [1.0]),
        ],
    )
    def test_share_of_a_bin_is_spread_evenly_over_its_width(self, edges, shares):
        assert spread(histogram(0.0, 4.0, 1, 2, 3, 4), edges) == pytest.approx(shares)

    def test_single_value_is_in_one_bin(self):
        assert spread(histogram(2.0, 2.0, 5), [0.0, 1.0, 2.0, 3.0]) == [0.0, 0.0, 1.0]
        assert spread(histogram(3.0, 3.0, 5), [0.0, 1.0, 2.0, 3.0]) == [0.0, 0.0, 1.0]

    def test_zeros_are_put_where_zero_is_if_it_is_in_range(self):
        edges = [-2.0, -1.0, 0.0, 1.0, 2.0]
        counts = histogram(-2.0, 2.0, 1, 1)
        assert spread(counts, edges, zero=0.5) == pytest.approx([0.25, 0.25, 0.5, 0.0])
        beyond = histogram(1.0, 2.0, 1)
        assert spread(beyond, edges, zero=0.5) == pytest.approx([0.0, 0.0, 0.0, 1.0])

    def test_range_up_to_the_largest_float_is_spread(self):
        shares = spread(histogram(-1.7e308, 1.7e308, 1, 3), [-1.7e308, -1e308, 0.0, 1.7e308])
        assert shares == pytest.approx([0.25 * 0.7 / 1.7, 0.25 / 1.7, 0.75])


class TestSymmetricLog:
    @pytest.mark.parametrize(
        ("extents", "power"),
        [([1.0, 100.0], None), ([1.0, 101.0], 0), ([0.05, 9.0, 7.0], -2), ([0.0, 3.0], None)],
    )
    def test_is_chosen_from_a_hundred_times_on(self, extents, power):
        scale = SymmetricLog.choose(extents)
        assert (scale and scale.power) == power

    def test_places_are_one_power_of_ten_apart_far_from_zero(self):
        scale = SymmetricLog(-2)
        assert scale.place(0.01) == pytest.approx(math.log10(2))
        assert scale.place(-0.09) == pytest.approx(-1.0)
        assert scale.place(1e8) == pytest.approx(10.0)
        assert scale.place(1e20) == pytest.approx(22.0)
        assert scale.read(1.0) == pytest.approx(0.09)
        assert scale.read(0.0) == 0.0

    def test_ticks_are_powers_of_ten_on_both_sides(self):
        places, texts = SymmetricLog(-1).list_ticks(-2.2, 3.2)
        assert texts == ["−10", "−1", "0", "1", "10", "10²"]
        assert places == sorted(places)
        assert places[2] == 0.0
        assert places[3] == pytest.approx(math.log10(11))
        _, few = SymmetricLog(0).list_ticks(0.0, 20.0)
        assert few == ["0", "10³", "10⁶", "10⁹", "10¹²", "10¹⁵", "10¹⁸"]


class TestTheme:
    @pytest.mark.parametrize(
        ("values", "span"),
        [
            ([], [-2, 2]),
            ([1.0], [-1, 1]),
            ([3.0], [-1, 1]),
            ([1e-3, 1e4], [-4, 5]),
            ([2e-3, 5e4], [-3, 5]),
            ([0.9], [-1, 1]),
        ],
    )
    def test_log_axis_holds_everything_with_some_room(self, values, span):
        axis = theme.build_log_axis("t", values)
        assert axis["range"] == span
        assert axis["dtick"] == max(1, math.ceil((span[1] - span[0]) / 8))

    @pytest.mark.parametrize(
        ("count", "ticks"),
        [
            (1, [1]),
            (12, list(range(1, 13))),
            (13, [1, 5, 10, 13]),
            (100, [1, *range(10, 101, 10)]),
        ],
    )
    def test_layers_are_counted_from_one(self, count, ticks):
        axis = theme.build_layer_axis(count, title="t")
        assert (axis["range"], axis["tickvals"]) == ([0.5, count + 0.5], ticks)
        assert axis["ticktext"] == list(map(str, ticks))


class TestGradients:
    @staticmethod
    def build(**options):
        norms = [[1.0, 2.0, 9.0], [0.0, 0.0, 0.0], [3.0, 4.0, 5.0]]
        deltas = [[5.0] * 3, [6.0] * 3, [7.0] * 3]
        layers = [call(n, layer=at + 1, gradient=deltas[at]) for at, n in enumerate("abc")]
        weights = [
            parameter(f"{n}.weight", at + 1, norm=[2.0] * 3, grad_norm=norms[at])
            for at, n in enumerate("abc")
        ]
        flow = make_flow(layers, weights, loss=[1.0] * 3)
        return build_gradient_figure(flow, **options)

    def test_band_runs_there_and_back_around_the_medians(self):
        band, median, outside = self.build()["data"]
        assert median["y"] == [2.0, None, 4.0]
        assert band["x"] == [1, 3, 3, 1]
        assert band["y"] == pytest.approx([7.6, 4.8, 3.2, 1.2])
        assert outside["x"] == [2]
        low, high = self.build()["layout"]["yaxis"]["range"]
        assert low < math.log10(outside["y"][0]) < low + 0.05 * (high - low)  # just above the foot

    def test_linear_scale_has_a_place_for_zero(self):
        figure = self.build(scale="linear")
        assert figure["data"][1]["y"] == [2.0, 0.0, 4.0]
        assert figure["data"][2]["x"] == []
        assert figure["layout"]["yaxis"]["range"] == [0, pytest.approx(1.06 * 7.6)]
        names = [note for note in figure["layout"]["annotations"] if "layer 1" in note["text"]]
        assert [note["yref"] for note in names] == ["paper"]

    def test_linear_scale_without_any_value_goes_up_to_one(self):
        flow = make_flow([call("a", layer=1)], [parameter("a.weight", 1, status="frozen")])
        figure = build_gradient_figure(flow, scale="linear")
        assert figure["layout"]["yaxis"]["range"] == [0, 1.06]
        zero = build_gradient_figure(make_chain([0.0]), scale="linear")
        assert zero["layout"]["yaxis"]["range"] == [0, 1.06]

    def test_measures_are_the_layers(self):
        assert self.build(measure="delta")["data"][1]["y"] == [5.0, 6.0, 7.0]
        assert self.build(measure="relative")["data"][1]["y"] == [1.0, None, 2.0]

    def test_last_layer_is_the_reference(self):
        figure = self.build()
        (name,) = [n for n in figure["layout"]["annotations"] if "layer 1" in n["text"]]
        assert (name["yref"], name["y"]) == ("paper", 1.0)  # above the chart, on no line
        assert "50 % of layer 3" in name["text"]
        texts = figure["data"][1]["customdata"]
        assert "0.5 × the last layer" in texts[0]
        assert "1.2 – 7.6" in texts[0]
        assert texts[1] == "exactly zero"

    def test_each_reason_is_named_once(self):
        flow = make_chain([math.nan, math.inf, 0.0, 1.0])
        weights = [*flow.parameters[:3], replace(flow.parameters[3], grad_norm=None)]
        figure = build_gradient_figure(make_flow(flow.layers, weights))
        text = figure["layout"]["annotations"][-1]["text"]
        assert text == "× 4 layers: gradient not finite or exactly zero or no gradient reaches it"
        assert figure["layout"]["shapes"] == []

    def test_zones_are_drawn_up_to_the_largest_number_there_is(self):
        figure = build_gradient_figure(make_chain([1e308, 1e-320, 1.0]), usable=(1e-3, 1e3))
        assert figure["layout"]["yaxis"]["range"][1] > 308
        tops = [shape["y1"] for shape in figure["layout"]["shapes"]]
        assert max(tops) == 1e308

    def test_a_range_beyond_the_axis_is_one_zone_from_end_to_end(self):
        figure = build_gradient_figure(make_chain([1e-3, 1.0]), usable=(1e-30, 1e30))
        (zone,) = figure["layout"]["shapes"]
        assert [zone["y0"], zone["y1"]] == pytest.approx([1e-12, 1e6])

    def test_what_is_missing_and_what_is_too_much_is_filled_up_to_the_range(self):
        usable = (1e-2, 1e2)
        flow = make_chain([1e-4, 1e-3, 1.0, 1e4, 1e4, 0.0])
        data = build_gradient_figure(flow, usable=usable)["data"]
        small, large, zero = data[3:]
        assert small["x"] == pytest.approx([1, 2, 2 + 1 / 3, 2 + 1 / 3, 1])  # a third of the way up
        assert small["y"] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-2, 1e-2])
        assert large["x"] == pytest.approx([3.5, 4, 5, 5, 3.5])
        assert large["y"] == pytest.approx([1e2, 1e4, 1e4, 1e2, 1e2])
        assert zero["x"] == [5.5, 6.5, 6.5, 5.5]  # all of the column under the range
        assert zero["y"] == pytest.approx([1e-12, 1e-12, 1e-2, 1e-2])
        assert all(area["zorder"] < 0 for area in data[3:])  # beneath the line

    def test_two_areas_of_one_state_are_apart(self):
        figure = build_gradient_figure(make_chain([1e-4, 1.0, 1e-4]), usable=(1e-2, 1e2))
        (area,) = figure["data"][3:]
        assert area["x"].count(None) == area["y"].count(None) == 1
        assert (area["x"][0], area["x"][-2]) == (1.0, 3.0)

    @pytest.mark.parametrize("options", [{}, {"measure": "delta", "usable": (0.1, 1.0)}])
    def test_nothing_is_filled_where_all_is_well_or_no_range_is_known(self, options):
        assert len(build_gradient_figure(make_chain([1e-4, 1e4]), **options)["data"]) == 3
        assert len(build_gradient_figure(make_chain([1.0]), usable=(0.1, 10.0))["data"]) == 3

    def test_an_area_on_a_linear_axis_ends_where_the_line_crosses_there(self):
        flow = make_chain([0.0, 1.0, 5.0])
        data = build_gradient_figure(flow, scale="linear", usable=(2.0, 9.0))["data"]
        small = next(area for area in data if area["name"] == "too small")
        assert small["x"] == pytest.approx([2, 2.25, 2.25, 2])

    @pytest.mark.parametrize("least", [1.0, 1e-20, 1e-60, 1e-300])
    def test_a_long_axis_has_no_more_numbers_than_a_short_one(self, least):
        axis = build_gradient_figure(make_chain([least, 1.0]))["layout"]["yaxis"]
        low, high = axis["range"]
        assert 3 <= (high - low) / axis["dtick"] <= 8

    def test_other_is_drawn_behind_and_widens_the_axes(self):
        flow, other = make_chain([1.0, 1.0]), make_chain([1e-11, 1.0, 1.0])
        figure = build_gradient_figure(flow, other=other)
        assert figure["data"][3]["y"] == [1e-11, 1.0, 1.0]
        assert figure["layout"]["yaxis"]["range"][0] == -18
        assert figure["layout"]["xaxis"]["range"] == [0.5, 3.5]


class TestFactors:
    def test_running_product_ends_with_each_layers_last_factor(self):
        calls = [
            call("a", layer=1, gain=2.0),
            call("b", "ReLU", layer=1, gain=3.0),
            call("c", layer=2, gain=5.0),
            call("free", "ReLU", gain=99.0),
        ]
        weights = [parameter("a.weight", 1), parameter("c.weight", 2)]
        figure = build_factor_figure(make_flow(calls, weights, chain=True))
        traces = {trace["name"]: trace for trace in figure["data"]}
        assert traces["weight factor"]["x"] == [2, 1]
        assert traces["weight factor"]["y"] == [5.0, 2.0]
        assert traces["activation factor"]["y"] == [3.0]
        assert traces["running product"]["x"] == [2, 1]
        assert traces["running product"]["y"] == [99.0 * 5.0, 99.0 * 30.0]
        assert figure["layout"]["shapes"][0]["y0"] == 1

    def test_what_has_no_place_is_counted_by_kind(self):
        calls = [
            call("a", layer=1, gain=0.0),
            call("b", layer=2, gain=math.inf),
            call("c", layer=3, gain=None),
            call("d", layer=4, gain=0.0),
        ]
        weights = [parameter(f"{n}.weight", at) for at, n in enumerate("abcd", start=1)]
        figure = build_factor_figure(make_flow(calls, weights))
        (note,) = figure["layout"]["annotations"]
        assert note["text"] == "× factors: 2 exactly zero, 2 undefined or infinite"
        assert figure["data"][-1]["x"] == [4, 3, 2, 1]
        floor = 10.0 ** figure["layout"]["yaxis"]["range"][0]
        assert figure["data"][-1]["y"] == [floor] * 4

    def test_small_factors_have_a_place_and_one_is_marked(self):
        flow = make_flow([call("a", layer=1, gain=0.25)], [parameter("a.weight", 1)], chain=True)
        figure = build_factor_figure(flow)
        weights, running = figure["data"]
        assert (weights["y"], running["y"]) == ([0.25], [0.25])
        assert weights["showlegend"]
        (line,) = figure["layout"]["shapes"]
        assert (line["y0"], line["y1"]) == (1, 1)
        assert figure["layout"]["annotations"] == []

    def test_factors_that_are_zero_in_some_networks_say_in_how_many(self):
        calls = [
            call("a", layer=1, gain=[0.0, 0.0, 2.0]),
            call("b", layer=2, gain=[0.0, 0.0, 0.0]),
        ]
        weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
        flow = make_flow(calls, weights, loss=[1.0] * 3, chain=True)
        figure = build_factor_figure(flow)
        assert figure["data"][-1]["customdata"] == [
            "weight factor 0",
            "weight factor 0 (in 2 of 3 networks)",
        ]
        end = figure["layout"]["shapes"][-1]
        span = figure["layout"]["yaxis"]["range"]
        assert (end["x0"], end["x1"]) == (2, 2)
        assert [end["y0"], end["y1"]] == [10.0**each for each in span]
        assert "from layer 2 back" in figure["layout"]["annotations"][0]["text"]


def active(at, low, high, *counts, **fields):
    values = {"histogram": histogram(low, high, *counts), "mean": 0.5, "std": 0.25} | fields
    return [
        call(f"w{at}", layer=at, statistics={"histogram": histogram(-1.0, 1.0, 1, 1)}),
        call(f"h{at}", fields.pop("kind", "Sigmoid"), layer=at, statistics=statistics(**values)),
    ]


def build_layers(*groups):
    calls = [each for group in groups for each in group]
    weights = [parameter(f"w{at}.weight", at) for at in range(1, len(groups) + 1)]
    return make_flow(calls, weights)


class TestActivations:
    def test_columns_are_layers_and_rows_are_values(self):
        flow = build_layers(
            active(1, 0.0, 1.0, 3, 1, saturation=0.25, dead_units=1.0),
            active(2, 0.0, 2.0, 1, 3, saturation=0.5, dead_units=2.0),
        )
        picture, saturated, dead = build_activation_figure(flow)["data"]
        assert picture["x"] == [1, 2]
        low = [
            sum(
                row[at] for row, y in zip(picture["customdata"], picture["y"], strict=True) if y < 1
            )
            for at in (0, 1)
        ]
        assert low == pytest.approx([1.0, 0.25])
        assert picture["z"][0][0] == pytest.approx(math.sqrt(picture["customdata"][0][0]))
        assert (saturated["x"], saturated["y"]) == ([1, 2], [0.25, 0.5])
        assert (dead["x"], dead["y"]) == ([1, 2], [0.25, 0.5])

    def test_no_dead_unit_is_a_small_mark_and_any_is_a_large_one(self):
        units = (0.0, 0.01, 2.0)
        flow = build_layers(
            *(active(at, 0.0, 1.0, 1, 1, dead_units=n) for at, n in enumerate(units, 1))
        )
        none, few, many = build_activation_figure(flow)["data"][2]["marker"]["size"]
        assert none < few == many

    def test_other_is_two_lines_around_its_means(self):
        flow = build_layers(active(1, 0.0, 1.0, 1, 1))
        other = build_layers(
            active(1, 0.0, 1.0, 1, 1, mean=0.5, std=0.125),
            active(2, 0.0, 1.0, 1, 1, mean=math.inf),
            active(3, 0.0, 1.0, 1, 1, mean=-1.0, std=0.5),
        )
        figure = build_activation_figure(flow, other=other)
        upper, lower = (t for t in figure["data"] if "pinned" in t["name"])
        assert (upper["x"], upper["y"], lower["y"]) == ([1, 3], [0.75, 0.0], [0.25, -2.0])
        assert (upper["showlegend"], lower["showlegend"]) == (True, False)
        assert figure["layout"]["xaxis"]["range"] == [0.5, 3.5]

    def test_shares_that_are_not_finite_are_left_out(self):
        flow = build_layers(
            active(1, 0.0, 1.0, 1, 1, saturation=math.nan),
            active(2, 0.0, 1.0, 1, 1, saturation=0.5),
        )
        saturated = build_activation_figure(flow)["data"][1]
        assert (saturated["x"], saturated["y"], saturated["showlegend"]) == ([2], [0.5], True)

    def test_layers_a_hundred_times_apart_share_a_logarithmic_axis(self):
        flow = build_layers(
            active(1, -0.5, 0.25, 1, 1), active(2, -90.0, 60.0, 1, 1), [call("w3", layer=3)]
        )
        figure = build_activation_figure(flow)
        scale = SymmetricLog(-1)  # the smallest of the largest magnitudes is 0.5
        places = [scale.place(-90.0), scale.place(60.0)]
        assert figure["layout"]["yaxis"]["range"] == pytest.approx(places)
        picture = figure["data"][0]
        half = (places[1] - places[0]) / 48 / 2
        assert picture["y"][0] == pytest.approx(places[0] + half)
        assert picture["y"][-1] == pytest.approx(places[1] - half)
        assert [row[2] for row in picture["z"]] == [None] * 48
        near = build_layers(active(1, -0.5, 0.25, 1, 1), active(2, -50.0, 9.0, 1, 1))
        assert "range" not in build_activation_figure(near)["layout"]["yaxis"]

    def test_layers_with_one_entry_that_is_not_finite_are_marked(self):
        bad = active(2, 0.0, 1.0, 1, 1, non_finite=1.0)
        figure = build_activation_figure(build_layers(active(1, 0.0, 1.0, 1, 1), bad))
        (marks,) = (trace for trace in figure["data"] if trace.get("name") == "not finite")
        assert (marks["x"], marks["y"]) == ([2], [0.0])
        assert "1 layer:" in figure["layout"]["annotations"][0]["text"]

    def test_zeros_are_the_mean_over_the_networks(self):
        shares = {"mean": [0.5] * 2, "std": [0.25] * 2, "min": [0.0] * 2, "max": [1.0] * 2}
        shares |= {"zero_share": [0.2, 0.6], "non_finite": [0.0] * 2, "variation": [1.0] * 2}
        flow = build_layers(active(1, 0.0, 1.0, 1, **shares))
        picture = build_activation_figure(flow)["data"][0]
        assert picture["customdata"][0][0] == pytest.approx(0.4 + 0.6 / 48)

    def test_one_value_alone_has_a_range(self):
        picture = build_activation_figure(build_layers(active(1, 2.0, 2.0, 4)))["data"][0]
        assert picture["y"][0] < 2.0 < picture["y"][-1]
        assert picture["y"][0] + picture["y"][-1] == pytest.approx(4.0)
        assert picture["y"][-1] - picture["y"][0] == pytest.approx(47 / 48)


class TestLayer:
    def test_bins_are_as_fine_as_the_finest(self):
        flow = build_layers(active(1, 0.0, 1.0, *[1] * 20), active(2, 0.0, 4.0, 1, 1))
        before, after = build_layer_figure(flow, 1)["data"]
        assert len(after["x"]) == 40  # from −1 to 1 in bins of 1/20
        assert after["width"] == pytest.approx(0.05)
        assert sum(y for x, y in zip(after["x"], after["y"], strict=True) if x > 0) == (
            pytest.approx(1.0)
        )
        assert sum(y for x, y in zip(before["x"], before["y"], strict=True) if x > 0) == (
            pytest.approx(0.5)
        )
        coarse = build_layer_figure(flow, 2)["data"][1]
        assert len(coarse["x"]) == 10  # at least

    def test_there_are_no_more_bins_than_can_be_seen(self):
        flow = build_layers(active(1, 0.0, 1e-3, 1, 1))  # beside −1 to 1: in bins of 1/2000
        bars = build_layer_figure(flow, 1)["data"]
        assert [len(each["x"]) for each in bars] == [MOST_BINS] * 2

    def test_outline_of_another_leaves_out_what_is_empty(self):
        flow = build_layers(active(1, 0.0, 1.0, *[1] * 10))
        other = build_layers(active(1, 0.0, 1.0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0))
        figure = build_layer_figure(flow, 1, other=other)
        assert figure["layout"]["showlegend"]  # which bars are which
        assert len({trace["name"] for trace in figure["data"]}) == len(figure["data"]) > 2
        outline = figure["data"][2]
        assert min(outline["x"]) == pytest.approx(0.2)
        assert max(outline["x"]) < 0.51  # rounding may leave a trace in the next bin
        assert outline["y"][0] == outline["y"][-1] == 0.0
        assert sum(outline["y"]) == pytest.approx(2.0)  # each share at both of its edges

    def test_one_value_alone_has_a_range(self):
        calls = [call("w1", layer=1, statistics={"histogram": histogram(2.0, 2.0, 5)})]
        flow = make_flow(calls, [parameter("w1.weight", 1)])
        (bars,) = build_layer_figure(flow, 1)["data"]
        assert bars["x"] == pytest.approx([1.55 + 0.1 * at for at in range(10)])
        assert sum(bars["y"]) == 1.0


class TestProfile:
    @staticmethod
    def build(*rows, stream=()):
        def layer(norm):
            return WeightLayer(
                layer=1,
                name="a",
                kind="Linear",
                weight_norm=quantity(1.0),
                weight_gradient_norm=quantity(norm),
                delta_norm=None,
                pre_activation=None,
                activation=None,
                activation_kind="",
            )

        count = len(rows[0])
        return Stack(
            "h.*",
            tuple(map(str, range(count))),
            tuple(
                ProfileRow(f"row {at}", tuple(None if n is None else layer(n) for n in row))
                for at, row in enumerate(rows)
            ),
            tuple(map(quantity, stream)),
        )

    def test_lines_are_rows_over_the_blocks(self):
        figure = build_profile_figure(
            self.build((1.0, None, 0.0), (2.0, math.inf, 4.0), stream=(5.0, 6.0, 7.0))
        )
        first, second, stream = figure["data"]
        assert (first["x"], first["y"]) == ([0, 1, 2], [1.0, None, None])
        assert second["y"] == [2.0, None, 4.0]
        assert stream["y"] == [5.0, 6.0, 7.0]
        assert "stream" in stream["name"]
        assert figure["layout"]["xaxis"]["range"] == [-0.5, 2.5]
        assert figure["layout"]["xaxis"]["ticktext"] == ["0", "1", "2"]

    def test_of_many_rows_those_that_differ_most_are_drawn_in_order(self):
        rows = [(1.0, 10.0**at) for at in range(10)]
        stack = self.build(*rows)
        names = [trace["name"] for trace in build_profile_figure(stack)["data"]]
        assert names == [f"row {at}" for at in range(2, 10)]
        assert count_hidden(stack) == 2
        assert LINES == 8
        assert count_hidden(self.build((1.0,))) == 0

    def test_many_blocks_have_some_labels(self):
        axis = build_profile_figure(self.build([1.0] * 25))["layout"]["xaxis"]
        assert axis["tickvals"] == [0, 3, 6, 9, 12, 15, 18, 21, 24]
        assert axis["ticktext"] == ["0", "3", "6", "9", "12", "15", "18", "21", "24"]

    def test_long_names_keep_their_end(self):
        stack = self.build((1.0,))
        long = replace(stack, rows=(replace(stack.rows[0], name="a" * 20 + "b" * 20),))
        (trace,) = build_profile_figure(long)["data"]
        assert trace["name"] == "…" + "a" * 9 + "b" * 20
        assert stack.rows[0].norms == (Quantity([1.0]),)


class TestTheory:
    BANDS = ((0.5, 1.0, 2.0), None, (1e-20, 1e-3, 5.0))

    def test_band_and_median_come_before_what_was_measured(self):
        flow = make_chain([1.0, 0.1, 0.01])
        data = build_gradient_figure(flow, theory=self.BANDS)["data"]
        first, second, line, _, median, _ = data
        assert line["y"] == [1.0, None, 1e-3]
        assert (first["y"], first["x"]) == ([2.0, 0.5], [1, 1])
        assert second["x"] == [3, 3]
        assert second["y"] == [5.0, pytest.approx(1e-12)]  # it ends at the edge of the axis
        assert median["y"] == [1.0, 0.1, 0.01]

    def test_without_any_value_nothing_is_drawn(self):
        flow = make_chain([1.0, 0.1])
        figure = build_gradient_figure(flow, theory=[None, None])
        assert figure == build_gradient_figure(flow)

    def test_axis_holds_the_median_of_the_theory(self):
        flow = make_chain([1.0])
        axis = build_gradient_figure(flow, theory=[(1e-31, 1e-30, 1e-29)])["layout"]["yaxis"]
        assert axis["range"][0] < -30


@pytest.mark.parametrize(
    ("kind", "ends", "values"),
    [
        ("linear", [-3, 2], (-3.0, 2.0)),
        ("log", [-3, 2], (1e-3, 100.0)),
        ("log", [-400, 400], (5e-324, 1e308)),  # no float is smaller or, but for a digit, larger
    ],
)
def test_ends_of_an_axis_are_numbers(kind, ends, values):
    assert read_ends({"type": kind, "range": ends}) == pytest.approx(values)
