"""The factors of a metric and the modules they name, of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.attribution import rank_attributions
from chainrule.diagnosis.factors import (
    trace_chain,
    trace_dead_units,
    trace_differences,
    trace_growth,
    trace_normalizations,
    trace_overflow,
    trace_saturation,
    trace_spreads,
    trace_streams,
    trace_way_back,
)
from made_flows import (
    call,
    make_chain,
    make_flow,
    parameter,
    residual,
    statistics,
)


class TestFactors:
    def test_of_a_chain_are_the_gains_between_the_loss_and_the_layer(self):
        calls = [
            call("a", layer=1, gain=2.0),
            call("b", "ReLU", layer=1, gain=3.0),
            call("c", layer=2, gain=5.0),
            call("d", "ReLU", layer=2, gain=None),
            call("e", layer=3, gain=7.0),
        ]
        flow = make_flow(calls, chain=True)
        assert [(p.name, p.value) for p in trace_chain(flow, [1, 3])] == [
            ("e", 7.0),
            ("c", 5.0),
            ("b", 3.0),
        ]
        assert [p.name for p in trace_way_back(flow, [2])] == ["e"]
        assert [p.name for p in trace_chain(flow, [])] == ["e", "c", "b"]

    def test_of_a_stream_are_its_steps_from_sum_to_sum(self):
        calls = [call(name, layer=at) for at, name in enumerate("abc", start=1)]
        flow = make_flow(
            calls,
            residuals=tuple(
                residual(branch=at, gradient=norm, before=100.0 + at)
                for at, norm in enumerate((12.0, 6.0, 2.0))
            ),
        )
        found = [(p.name, p.layer, p.value, p.what) for p in trace_streams(flow, [])]
        assert found == [
            ("c", 3, 3.0, "residual stream gradient"),
            ("b", 2, 2.0, "residual stream gradient"),
        ]

    def test_of_growth_are_sums_over_what_was_before(self):
        calls = [call("a", layer=1), call("b", layer=2)]
        flow = make_flow(
            calls,
            residuals=(
                residual(branch=0, before=2.0, after=6.0),
                residual(branch=None, before=2.0, after=8.0),
                residual(branch=1, before=None, after=8.0),
                residual(branch=1, before=8.0, after=4.0),
            ),
        )
        assert [(p.name, p.value) for p in trace_growth(flow, [])] == [("a", 3.0), ("b", 0.5)]

    def test_of_activations_are_what_is_left(self):
        calls = [
            call("a", "ReLU", layer=1, statistics={"dead_units": 1.0, "saturation": 0.9}),
            call("b", "ReLU", layer=2, statistics={"dead_units": 2.0, "saturation": 0.2}),
            call("c", layer=2, statistics={"dead_units": 3.0, "saturation": 0.3}),
            call("d", "ReLU", layer=2, statistics={"saturation": 0.5}),
        ]
        flow = make_flow(calls)
        assert [(p.name, p.value) for p in trace_dead_units(flow, [2])] == [("b", 0.5)]
        assert [(p.name, p.value) for p in trace_saturation(flow, [2])] == [("b", 0.8), ("d", 0.5)]

    def test_of_spreads_and_differences_are_each_over_the_one_before(self):
        calls = [
            call("a", layer=1, statistics={"std": 8.0, "variation": 0.5}),
            call("b", layer=2, statistics={"std": 2.0, "variation": 0.25}),
            call("c", layer=3, statistics={"std": 6.0, "variation": None}),
        ]
        weights = [parameter(f"{n}.weight", at) for at, n in enumerate("abc", start=1)]
        flow = make_flow(calls, weights)
        assert [(p.name, p.value) for p in trace_spreads(flow, [])] == [("b", 0.25), ("c", 3.0)]
        assert [(p.name, p.value) for p in trace_differences(flow, [])] == [("b", 0.5)]

    def test_of_normalizations_are_their_spreads(self):
        flow = make_flow([call("n", "LayerNorm", statistics={"std": 0.5}, layer=4)])
        found = [(p.name, p.kind, p.layer, p.value) for p in trace_normalizations(flow, [])]
        assert found == [("n", "LayerNorm", 4, 0.5)]

    def test_carry_the_name_kind_and_layer_of_their_module(self):
        calls = [
            call("a", layer=1, gain=2.0),
            call("b", "Tanh", layer=1, gain=3.0),
            call("c", "Conv2d", layer=2, gain=5.0),
        ]
        weights = [parameter("a.weight", 1), parameter("c.weight", 2)]
        flow = make_flow(calls, weights, chain=True, residuals=())
        named = [("c", "Conv2d", 2), ("b", "Tanh", 1)]
        assert [(p.name, p.kind, p.layer) for p in trace_chain(flow, [1])] == named
        found = [(p.name, p.kind, p.layer) for p in trace_overflow(flow, [])]
        assert found == [*named, ("a", "Linear", 1)]
        for trace in (trace_spreads, trace_differences):
            assert [(p.name, p.kind, p.layer) for p in trace(flow, [])] == [("c", "Conv2d", 2)]
        stream = replace(flow, residuals=(residual(branch=1), residual(branch=2)))
        for trace, parts in ((trace_growth, 2), (trace_streams, 1)):
            found = [(p.name, p.kind, p.layer) for p in trace(stream, [])]
            assert found == [("b", "Tanh", 1), ("c", "Conv2d", 2)][-parts:]

    def test_of_overflow_are_spreads_forward_or_gains_on_the_way_back(self):
        calls = [
            call("a", layer=1, gain=2.0),
            call("b", layer=2, gain=math.inf),
            call("c", layer=3, gain=3.0, statistics={"std": 9.0}),
        ]
        weights = [parameter(f"{n}.weight", at) for at, n in enumerate("abc", start=1)]
        back = make_flow(calls, weights, chain=True)
        assert [(p.name, p.value) for p in trace_overflow(back, [])] == [("c", 3.0), ("a", 2.0)]
        bad = replace(calls[2], statistics=statistics(std=9.0, non_finite=1.0))
        forward = make_flow([*calls[:2], bad], weights, chain=True)
        assert [(p.name, p.value) for p in trace_overflow(forward, [])] == [("b", 1.0), ("c", 9.0)]


class TestStreams:
    """Steps on a stream, and what lies in branches and behind the last sum."""

    @staticmethod
    def build(branch_gain=5.0, head_gain=3.0):
        calls = [
            call("stem", "Linear", layer=1, gradient=8.0, statistics={"mean": 1.2, "std": 1.6}),
            call("b1", layer=2, gradient=4.0, gain=branch_gain),
            call("post", "Tanh", layer=2, gain=None, statistics={"std": 5.0}),
            call("b2", layer=3, gradient=2.0),
            call("head", layer=4, gain=head_gain),
        ]
        return make_flow(
            calls,
            residuals=(
                residual(branch=1, before=2.0, gradient=4.0),
                residual(branch=3, before=9.0, gradient=2.0),
            ),
        )

    def test_way_back_is_steps_then_branches_and_the_head(self):
        found = [(p.name, p.value, p.what) for p in trace_way_back(self.build(), [1])]
        assert found == [
            ("b2", 2.0, "residual stream gradient"),
            ("b1", 2.0, "residual stream gradient"),
            ("head", 3.0, "gradient"),
            ("b1", 5.0, "gradient"),
        ]
        later = [(p.name, p.value) for p in trace_way_back(self.build(), [2])]
        assert later == [("b2", 2.0), ("head", 3.0)]

    def test_what_reads_the_stream_or_shares_its_tensor_is_no_factor(self):
        names = [p.name for p in trace_way_back(self.build(branch_gain=2.0), [1])]
        assert names == ["b2", "b1", "head"]  # 2 · 4 is the gradient at the stem
        names = [p.name for p in trace_way_back(self.build(branch_gain=0.75), [1])]
        assert names == ["b2", "b1"]  # 0.75 · 4 is what the head releases as well

    def test_differences_are_those_between_the_outputs_on_the_stream(self):
        calls = [
            call("stem", layer=1, statistics={"std": 2.0, "variation": 0.5}),
            call("b1", layer=2, statistics={"std": 7.0, "variation": 0.9}),
            call("post", "Tanh", layer=2, statistics={"std": 5.0, "variation": 0.25}),
            call("b2", layer=3, statistics={"std": 7.0, "variation": 0.9}),
        ]
        streams = (residual(branch=1, before=2.0), residual(branch=3, before=5.0))
        flow = make_flow(calls, residuals=streams)
        found = [(p.name, p.kind, p.layer, p.value) for p in trace_differences(flow, [])]
        assert found == [("post", "Tanh", 2, 0.5)]

    def test_a_stream_that_starts_where_another_ended_goes_on(self):
        calls = [
            call("stem", layer=1, gradient=64.0, statistics={"std": 2.0}),
            call("b1", layer=2, gradient=16.0),
            call("down", layer=3, gradient=8.0, statistics={"std": 3.0}),
            call("b2", layer=4, gradient=2.0),
        ]
        streams = (
            residual(branch=1, before=2.0, gradient=16.0),
            residual(stream=1, branch=3, before=3.0, gradient=2.0),
        )
        flow = make_flow(calls, residuals=streams)
        steps = [(p.name, p.value) for p in trace_way_back(flow, [1])][:3]
        assert steps == [("b2", 4.0), ("down", 2.0), ("b1", 4.0)]
        assert list(trace_streams(flow, [])) == []
        entering = replace(calls[2], gain=None)  # it reads an input: another way in
        flow = make_flow([*calls[:2], entering, calls[3]], residuals=streams)
        steps = [(p.name, p.value) for p in trace_way_back(flow, [1]) if p.what != "gradient"]
        assert steps == [("b2", 4.0), ("b1", 4.0)]


class TestAttribution:
    def test_names_the_gravest_factors_with_their_shares(self):
        calls = [
            call("a", layer=1, gain=1.0),
            call("b", "Tanh", layer=1, gain=1e-4),
            call("c", layer=2, gain=10.0),
            call("d", "Tanh", layer=2, gain=0.1),
            call("e", layer=3, gain=0.995),
            call("b", "Tanh", layer=3, gain=1e-1, call=1),
        ]
        weights = [
            parameter("a.weight", 1, grad_norm=1e-5),
            parameter("c.weight", 2, grad_norm=0.1),
            parameter("e.weight", 3, grad_norm=1.0),
        ]
        flow = make_flow(calls, weights, chain=True)
        found = rank_attributions(flow)
        assert [(each.name, each.calls) for each in found] == [("b", 2), ("d", 1)]
        assert found[0].factor == pytest.approx(1e-5)
        assert [each.share for each in found] == pytest.approx([5 / 6, 1 / 6])
        assert len(rank_attributions(flow, count=1)) == 1

    def test_of_dead_units_weighs_what_is_left(self):
        calls = [
            call("a", layer=1),
            call("b", "ReLU", layer=1, statistics={"dead_units": 99.0, "units": 100}),
            call("c", layer=2),
            call("d", "ReLU", layer=2, statistics={"dead_units": 90.0, "units": 100}),
        ]
        weights = [parameter("a.weight", 1), parameter("c.weight", 2)]
        found = rank_attributions(make_flow(calls, weights, chain=True))
        assert [each.name for each in found] == ["b", "d"]
        assert [each.share for each in found] == pytest.approx([2 / 3, 1 / 3])

    def test_of_a_healthy_network_names_none(self):
        assert rank_attributions(make_chain([1.0, 1.0])) == ()

    def test_zero_factor_weighs_all_and_gives_no_share(self):
        calls = [
            call("a", layer=1, gain=1.0),
            call("b", "Tanh", layer=1, gain=0.0),
            call("c", layer=2, gain=0.1),
        ]
        weights = [
            parameter("a.weight", 1, grad_norm=1e-9),
            parameter("c.weight", 2, grad_norm=1.0),
        ]
        found = rank_attributions(make_flow(calls, weights, chain=True))
        assert [(each.name, each.share) for each in found] == [("b", None), ("c", None)]
