"""What paths, zeros and small scales do in a measurement, of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.comparison import compare_deltas
from chainrule.diagnosis.structure import (
    count_units,
    drop_explained,
    find_last_dependent,
    find_small_head,
    find_tied_head,
    is_loss_flat,
    list_before_small,
    list_branch_layers,
    list_branch_normalizations,
    list_bypassed,
    list_chain,
    list_composites,
    list_explained,
    list_judged,
    list_normalizations,
    list_query_key_layers,
    list_zero_initialized,
    measure_size,
    measure_stream_gradient,
    measure_stream_growth,
    measure_typical_gradient,
    moves,
    read_once,
)
from chainrule.flow.loss import LossFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import AttentionFlow
from chainrule.spec.network_spec import NetworkSpec
from made_flows import call, gradient, make_chain, make_flow, parameter, quantity, residual

USABLE_IN_CHAIN, USABLE_ON_STREAM, SMALL_SCALE = 3e-3, 1e-4, 1e-2


def facts(**fields):
    values = {"parts": (), "outputs": (), "terms": ()} | dict.fromkeys(
        ("offset", "step", "reaction", "zero_examples", "cut", "detached")
    )
    values |= {
        name: quantity(each) if isinstance(each, float) else each for name, each in fields.items()
    }
    return LossFlow(**values)


def loose(norms, deltas=None, error=1.0, **fields):
    """Layers that are no chain, before an output with this error."""
    flow = make_chain(norms, gradients=deltas, chain=False)
    output = call("out", "Loss", "other", gradient=error, shape=(1, 4), layer=None)
    return make_flow((*flow.layers, output), flow.parameters, **fields)


def attention(name, entropy):
    values = {"one_hot": quantity(0.0), "uniform": quantity(1.0)}
    sizes = {"heads": 1, "queries": 4, "keys": 4, "call": 0}
    return AttentionFlow(name=name, entropy=quantity(entropy), **sizes, **values)


class TestLoss:
    @pytest.mark.parametrize(
        ("reaction", "step", "flat"),
        [
            (0.0, 0.0, True),
            (1e-7, 1e-7, True),
            (2.0**-23, 0.0, False),
            (0.0, 1e-3, False),
            (1e-3, 0.0, False),
            (None, 0.0, True),
            (0.0, None, True),
            (None, None, False),
        ],
    )
    def test_is_flat_if_it_reacts_to_nothing_that_is_known(self, reaction, step, flat):
        assert is_loss_flat(make_flow(loss_facts=facts(reaction=reaction, step=step))) is flat

    @pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float16")])
    def test_of_an_output_in_float16_is_not_judged(self, dtypes):
        calls = [call("a", dtype=dtypes[0]), call("b", dtype=dtypes[1])]
        known = facts(reaction=0.0, step=0.0)
        assert not is_loss_flat(make_flow(calls, loss_facts=replace(known, outputs=(0, 1))))
        assert is_loss_flat(
            make_flow(calls, loss_facts=replace(known, outputs=(dtypes.index("float32"),)))
        )

    def test_that_is_not_known_is_not_flat(self):
        assert not is_loss_flat(make_flow())


class TestStreams:
    def test_grow_by_the_last_sum_over_the_start_of_the_one_that_grows_most(self):
        flow = make_flow(
            residuals=(
                residual(before=2.0, after=3.0),
                residual(before=3.0, after=8.0),
                residual(stream=1, before=None, after=2.0),
                residual(stream=1, before=9.0, after=14.0),
            )
        )
        assert measure_stream_growth(flow) == 7.0
        first = make_flow(residuals=flow.residuals[:2])
        assert measure_stream_growth(first) == 4.0
        peak = residual(before=3.0, after=30.0)  # that falls again
        stream = (first.residuals[0], peak, first.residuals[1])
        assert measure_stream_growth(make_flow(residuals=stream)) == 4.0

    @pytest.mark.parametrize("at", [0, 1])
    def test_with_any_normalization_do_not_count(self, at):
        stream = [residual(before=2.0, after=3.0), residual(before=3.0, after=8.0)]
        stream[at] = replace(stream[at], normalization="before")
        assert measure_stream_growth(make_flow(residuals=tuple(stream))) is None

    def test_that_start_at_zero_do_not_count(self):
        assert measure_stream_growth(make_flow(residuals=(residual(before=0.0),))) is None

    def test_pass_the_gradient_at_the_first_sum_over_that_at_the_last(self):
        flow = make_flow(residuals=(residual(gradient=8.0), residual(), residual(gradient=2.0)))
        assert measure_stream_gradient(flow) == 4.0

    def test_of_several_the_one_that_passes_least_counts(self):
        norms = ((8.0, 2.0), (3.0, 2.0), (5.0, 2.0))
        stream = [residual(stream=at, gradient=n) for at, pair in enumerate(norms) for n in pair]
        assert measure_stream_gradient(make_flow(residuals=tuple(stream))) == 1.5

    @pytest.mark.parametrize(
        ("first", "branches", "ratio"),
        [
            (1.0, (2, 2), 3.0),  # what arrives at "b", 6, is more than at the first sum
            (8.0, (2, 2), 4.0),
            (1.0, (2, 1), 0.5),  # other weights at each sum
            (1.0, (0, 0), 0.5),  # nothing lies before it
        ],
    )
    def test_of_the_same_weights_pass_what_arrives_before_them(self, first, branches, ratio):
        norms = {"a": 9.0, "b": 6.0, "c": 1.0}
        calls = [
            call(name, layer=at, gradient=norm)
            for at, (name, norm) in enumerate(norms.items(), start=1)
        ]
        weights = [parameter(f"{name}.weight", at) for at, name in enumerate(norms, start=1)]
        stream = tuple(
            residual(gradient=norm, parameters=(at,))
            for norm, at in zip((first, 2.0), branches, strict=True)
        )
        assert measure_stream_gradient(make_flow(calls, weights, residuals=stream)) == ratio

    @pytest.mark.parametrize("norms", [(None, 1.0), (1.0, None), (1.0, 0.0)])
    def test_without_a_gradient_at_both_ends_pass_none(self, norms):
        flow = make_flow(residuals=tuple(residual(gradient=norm) for norm in norms))
        assert measure_stream_gradient(flow) is None


class TestChain:
    def test_of_a_model_without_paths_is_every_layer(self):
        assert [each.layer for each in list_chain(make_chain([1.0, 1.0, 1.0]))] == [1, 2, 3]

    @pytest.mark.parametrize(
        ("inside", "layers", "judged"),
        [(1, 4, [2, 3, 4]), (2, 4, []), (3, 4, []), (2, 5, [3, 4, 5])],
    )
    def test_holds_what_lies_outside_of_branches_if_that_is_most(self, inside, layers, judged):
        flow = make_chain([1.0] * layers)
        flow = make_flow(
            flow.layers,
            flow.parameters,
            residuals=(residual(parameters=tuple(range(inside))),),
        )
        assert [each.layer for each in list_chain(flow)] == judged
        assert [each.layer for each in list_judged(flow)] == (judged or [1, 2, 3, 4])

    def test_leaves_out_layers_that_something_leads_around(self):
        flow = loose([1.0, 1e-9, 1.0, 1.0], [10.0, 1.0, 2.0, 2.0])
        assert list_bypassed(flow) == {2}
        assert [each.layer for each in list_chain(flow)] == [1, 3, 4]

    def test_is_nothing_where_something_leads_around_a_third(self):
        assert list_chain(loose([1.0, 1e-9, 1.0], [10.0, 1.0, 2.0])) == ()

    @pytest.mark.parametrize(
        ("norms", "deltas", "bypassed"),
        [
            ([1.0, 1e-9], [10.0, 1.0], {2}),  # a δ ten times as large before it
            ([1.0, 1e-9], [9.9, 1.0], set()),
            ([1e-9, 1e-9], [10.0, 1.0], set()),  # which must be usable itself
            ([1.0, 1e-9], [10.0, 0.0], set()),
            ([1e-9, 1.0], [1.0, 10.0], set()),  # and earlier
            ([1.0, 0.5, 1e-9], [10.0, 1.0, 1.0], {3}),  # the largest of them counts
            ([USABLE_IN_CHAIN, 1e-9], [10.0, 1.0], {2}),
            ([1.0, USABLE_IN_CHAIN], [10.0, 1.0], set()),
        ],
    )
    def test_is_bypassed_where_an_earlier_layer_receives_far_more(self, norms, deltas, bypassed):
        assert list_bypassed(loose(norms, deltas)) == bypassed

    def test_bypass_is_relative_to_the_error_at_the_output(self):
        norms, deltas = [10 * USABLE_IN_CHAIN, 9 * USABLE_IN_CHAIN], [10.0, 1.0]
        assert list_bypassed(loose(norms, deltas, error=1.0)) == set()
        assert list_bypassed(loose(norms, deltas, error=10.0)) == {2}

    @pytest.mark.parametrize(
        ("layers", "bypassed"),
        [
            # of a module with weights of its own: all inside receive enough
            ({"a": (1.0, 1.0), "m.x": (1.0, 1.0), "m": (1e-9, None)}, {3}),
            ({"a": (1.0, 1.0), "m.x": (1e-9, 1.0), "m": (1e-9, None)}, set()),
            # or are bypassed themselves
            ({"a": (1.0, 10.0), "m.x": (1e-9, 1.0), "m": (1e-9, None)}, {2, 3}),
            # what only has a name that begins alike is not inside
            ({"m.x": (1.0, 1.0), "m": (1e-9, None), "mm": (1e-9, 1.0)}, {2}),
        ],
    )
    def test_is_bypassed_where_nothing_inside_waits_for_it(self, layers, bypassed):
        calls, weights = [], []
        for at, (name, (norm, delta)) in enumerate(layers.items(), start=1):
            calls.append(call(name, layer=at, gradient=delta))
            weights.append(parameter(f"{name}.weight", at, grad_norm=norm))
        calls.append(call("out", "Loss", "other", gradient=1.0, shape=(1, 4)))
        assert list_bypassed(make_flow(calls, weights)) == bypassed

    def test_of_a_model_that_is_one_has_no_bypass(self):
        assert list_bypassed(make_chain([1.0, 1e-9], gradients=[10.0, 1.0])) == set()


class TestTypicalGradient:
    def test_is_the_median_over_the_error_at_the_output(self):
        assert measure_typical_gradient(loose([1.0, 2.0, 9.0], error=4.0)) == 0.5

    def test_counts_what_a_small_scale_leaves_with_a_scale_of_one(self):
        flow = loose([1e-5, 8.0, 8.0])
        scale = parameter("0.scale", None, shape=(4,), norm=2e-3, grad_norm=1.0)  # 1e-3 each
        flow = make_flow(
            flow.layers, (*flow.parameters, scale), residuals=(residual(parameters=(0, 3)),)
        )
        # The first would have 0.01, which is usable; the median of it and 8, 8 is 8.
        assert measure_typical_gradient(flow) == 8.0
        two = make_flow(
            flow.layers, (flow.parameters[0], scale), residuals=(residual(parameters=(0, 1)),)
        )
        assert measure_typical_gradient(two) == pytest.approx(0.01)

    def test_leaves_out_what_zeros_and_uniform_attention_explain(self):
        zero = parameter("2.weight", 2, norm=0.0, grad_norm=3.0)
        flow = loose([0.0, 3.0])
        assert measure_typical_gradient(make_flow(flow.layers, (flow.parameters[0], zero))) == 3.0
        uniform = TestQueriesAndKeys.build(1e-9, 4.0)  # 1e-9, 4, 1e-9 and 1, the first explained
        assert measure_typical_gradient(uniform) == 1.0

    def test_of_no_gradient_is_none(self):
        frozen = parameter("0.weight", 1, status="frozen")
        assert measure_typical_gradient(make_flow([call("0", layer=1)], [frozen])) is None


class TestZeros:
    @staticmethod
    def build(zero_at, grads, *, streams=False, **fields):
        """Three layers, one with a zero weight."""
        flow = make_chain(list(grads))
        weights = [
            replace(p, norm=Quantity([0.0])) if at == zero_at else p
            for at, p in enumerate(flow.parameters)
        ]
        residuals = (residual(parameters=(zero_at,)),) if streams else ()
        return make_flow(flow.layers, weights, residuals=residuals, chain=not streams, **fields)

    def test_before_a_zero_head_that_moves_are_explained(self):
        flow = self.build(2, [0.0, 0.0, 1.0])
        assert list_explained(flow) == {1, 2}
        assert list_zero_initialized(flow) == {3}
        assert find_last_dependent(flow).layer == 2

    def test_that_are_frozen_are_not_there_for_the_first_step(self):
        flow = self.build(2, [1.0, 1.0, 1.0])
        frozen = parameter("2.weight", 2, norm=0.0, status="frozen")
        weights = (flow.parameters[0], frozen, flow.parameters[2])
        assert list_zero_initialized(make_flow(flow.layers, weights, chain=True)) == {3}

    def test_do_not_explain_small_gradients_nor_later_layers(self):
        assert list_explained(self.build(2, [1e-9, 0.0, 1.0])) == {2}
        assert list_explained(self.build(1, [0.0, 1.0, 0.0])) == {1}

    def test_that_receive_too_little_explain_nothing_in_a_chain(self):
        flow = self.build(2, [0.0, 0.0, 1e-9])
        assert list_explained(flow) == set()
        assert list_zero_initialized(flow) == set()

    def test_in_a_branch_any_gradient_will_do(self):
        flow = self.build(2, [0.0, 0.0, 1e-9], streams=True)
        assert list_explained(flow) == {1, 2}
        assert list_explained(self.build(2, [0.0, 0.0, 0.0], streams=True)) == set()

    def test_a_second_zero_that_receives_nothing_stays_zero(self):
        flow = self.build(2, [0.0, 0.0, 1.0])
        weights = list(flow.parameters)
        weights[1] = replace(weights[1], norm=Quantity([0.0]))
        assert list_explained(make_flow(flow.layers, weights, chain=True)) == set()

    def test_must_receive_a_gradient_that_is_usable_for_the_error_at_the_output(self):
        weights = [parameter("0.weight", 1, grad_norm=0.0)]
        weights += [parameter("2.weight", 2, norm=0.0, grad_norm=2 * USABLE_IN_CHAIN)]
        assert list_explained(make_flow(loose([0.0, 1.0]).layers, weights)) == {1}
        assert list_explained(make_flow(loose([0.0, 1.0], error=4.0).layers, weights)) == set()

    @pytest.mark.parametrize(
        ("variation", "explained"), [(0.011, {1}), (0.009, set()), (None, {1})]
    )
    def test_in_the_middle_must_leave_something_of_the_input(self, variation, explained):
        flow = self.build(1, [0.0, 1.0, 0.0])
        layers = list(flow.layers)
        for at in (4, 5):
            layers[at] = replace(
                layers[at],
                statistics=replace(layers[at].statistics, variation=quantity(variation)),
            )
        assert list_explained(make_flow(layers, flow.parameters, chain=True)) == explained

    def test_of_blocks_of_a_specification_are_in_branches_too(self):
        flow = self.build(2, [0.0, 1.0, 0.0])
        weights = list(flow.parameters)
        weights[0] = replace(weights[0], norm=Quantity([0.0]))
        weights[2] = replace(weights[2], grad_norm=Quantity([1.0]))
        assert list_explained(make_flow(flow.layers, weights)) == set()
        block = call("block", "ResidualBlock", "residual")
        assert list_explained(make_flow((*flow.layers, block), weights)) == {1}

    def test_of_a_scale_without_a_layer_explain_all_that_receive_nothing(self):
        flow = make_chain([0.0, 0.0])
        scale = parameter("scale", None, shape=(), norm=0.0, grad_norm=1.0)
        assert list_explained(make_flow(flow.layers, (*flow.parameters, scale))) == {1, 2}

    def test_explained_layers_are_dropped_and_the_others_kept(self):
        flow = self.build(2, [0.0, 1.0, 1.0])
        assert [each.layer for each in drop_explained(flow, flow.weight_layers)] == [2, 3]

    def test_of_biases_explain_nothing(self):
        flow = make_chain([0.0, 1.0])
        bias = parameter("2.bias", 2, shape=(4,), norm=0.0, grad_norm=1.0)
        assert list_explained(make_flow(flow.layers, (*flow.parameters, bias))) == set()


class TestScales:
    @staticmethod
    def build(size, weight=1e-5, moved=1.0, shape=(4,)):
        flow = loose([weight, 1.0])
        norm = size * math.sqrt(math.prod(shape))
        scale = parameter("0.scale", None, shape=shape, norm=norm, grad_norm=moved)
        return make_flow(
            flow.layers, (*flow.parameters, scale), residuals=(residual(parameters=(0, 2)),)
        )

    @pytest.mark.parametrize("shape", [(4,), (), (1, 4, 1)])
    def test_explain_what_would_be_usable_with_a_scale_of_one(self, shape):
        assert list_explained(self.build(1e-3, shape=shape)) == {1}

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"size": SMALL_SCALE * 1.01}, "the scale is not small"),
            ({"size": 0.0}, "zero is another case"),
            ({"size": 1e-3, "weight": 0.9e-3 * USABLE_ON_STREAM}, "too little even so"),
            ({"size": 1e-3, "weight": USABLE_ON_STREAM}, "usable as it is"),
            ({"size": 1e-3, "moved": 0.9 * USABLE_ON_STREAM}, "the scale does not grow"),
            ({"size": 1e-3, "shape": (2, 4)}, "a matrix is no scale"),
        ],
    )
    def test_explain_nothing_else(self, fields, why):
        assert list_explained(self.build(**fields)) == set(), why

    def test_are_no_biases(self):
        flow = self.build(1e-3)
        bias = replace(flow.parameters[2], name="0.bias")
        weights = (*flow.parameters[:2], bias)
        assert list_explained(make_flow(flow.layers, weights, residuals=flow.residuals)) == set()

    def test_are_compared_with_the_error_at_the_output(self):
        flow = self.build(1e-3, weight=2 * USABLE_ON_STREAM, moved=9.0)
        assert list_explained(flow) == set()
        output = call("out", "Loss", "other", gradient=4.0, shape=(1, 4))
        larger = make_flow((*flow.layers, output), flow.parameters, residuals=flow.residuals)
        assert list_explained(larger) == {1}

    def test_the_smallest_of_a_branch_counts(self):
        flow = self.build(1e-3)
        larger = parameter("0.gamma", None, shape=(4,), norm=2.0)
        both = make_flow(
            flow.layers,
            (*flow.parameters, larger),
            residuals=(residual(parameters=(0, 2, 3)),),
        )
        assert list_explained(both) == {1}


class TestHead:
    @staticmethod
    def build(head, others=(2.0, 2.0), moved=1.0, norms=1.0):
        """Weights of four units each; PyTorch's default size is √(4 ÷ 3)."""
        flow = loose([norms] * len(others) + [moved])
        usual = math.sqrt(4 / 3)
        weights = [
            replace(p, norm=Quantity([size * usual]))
            for p, size in zip(flow.parameters, (*others, head), strict=True)
        ]
        biases = [parameter(f"{p.name[:-6]}bias", p.layer, shape=(99,)) for p in weights]
        return make_flow(flow.layers, (*weights, *biases, parameter("free.weight", None)))

    def test_is_small_below_a_tenth_of_the_usual_size(self):
        number, size = find_small_head(self.build(0.05))
        assert (number, size) == (3, pytest.approx(0.05))
        assert find_small_head(self.build(0.11)) is None
        assert find_small_head(self.build(0.0)) is None

    @pytest.mark.parametrize(
        ("others", "small"),
        [((0.4, 0.4), False), ((0.6, 0.6), True), ((0.1, 9.0), True), ((0.1, 0.1, 9.0), False)],
    )
    def test_is_small_against_the_median_of_the_others_too(self, others, small):
        assert (find_small_head(self.build(0.05, others)) is not None) is small

    @pytest.mark.parametrize(
        ("moved", "small"),
        [(USABLE_IN_CHAIN * 1.001, True), (USABLE_IN_CHAIN * 0.999, False)],
    )
    def test_must_receive_a_usable_gradient(self, moved, small):
        assert (find_small_head(self.build(0.05, moved=moved)) is not None) is small

    def test_needs_another_layer_and_a_gradient(self):
        assert find_small_head(self.build(0.05, others=())) is None
        flow = self.build(0.05)
        frozen = [replace(p, grad_norm=None) if p.layer == 3 else p for p in flow.parameters]
        assert find_small_head(make_flow(flow.layers, frozen)) is None

    def test_explains_in_proportion_to_the_error_at_the_output(self):
        flow = self.build(0.05, norms=2 * USABLE_IN_CHAIN)
        assert list_explained(flow) == set()
        output = call("out", "Loss", "other", gradient=4.0, shape=(1, 4))
        assert list_explained(make_flow((*flow.layers, output), flow.parameters)) == {1, 2}

    def test_explains_no_frozen_layer(self):
        flow = self.build(0.05, norms=USABLE_IN_CHAIN * 0.999)
        frozen = [replace(p, grad_norm=None) if p.layer == 1 else p for p in flow.parameters]
        assert list_explained(make_flow(flow.layers, frozen)) == {2}

    @pytest.mark.parametrize(
        ("norms", "explained"),
        [
            (USABLE_IN_CHAIN * 1.001, set()),
            (USABLE_IN_CHAIN * 0.999, {1, 2}),
            (USABLE_IN_CHAIN * 0.051, {1, 2}),
            (USABLE_IN_CHAIN * 0.049, set()),
        ],
    )
    def test_explains_what_would_be_usable_before_one_of_usual_size(self, norms, explained):
        assert list_explained(self.build(0.05, norms=norms)) == explained

    @pytest.mark.parametrize(
        ("norms", "explained"),
        [
            (USABLE_ON_STREAM * 1.001, set()),
            (USABLE_ON_STREAM * 0.999, {1, 2}),
            (USABLE_ON_STREAM * 0.049, set()),
        ],
    )
    def test_explains_behind_streams_what_is_too_small_there(self, norms, explained):
        flow = self.build(0.05, norms=norms)
        streams = (residual(parameters=(0, 1)),)
        flow = make_flow(flow.layers, flow.parameters, residuals=streams)
        assert list_chain(flow) == ()
        assert list_explained(flow) == explained

    def test_that_is_small_is_not_what_depends_on_the_input_last(self):
        assert find_last_dependent(self.build(0.05)).layer == 2
        assert find_last_dependent(self.build(1.0)).layer == 3

    def test_is_tied_if_the_last_call_is_not_of_the_last_layer(self):
        flow = make_chain([1.0, 1.0])
        again = replace(flow.layers[0], call=1)
        assert find_tied_head(make_flow((*flow.layers, again), flow.parameters)) == again
        assert find_tied_head(flow) is None
        blind = replace(again, statistics=None)
        assert find_tied_head(make_flow((*flow.layers, blind), flow.parameters)) is None
        spec = NetworkSpec(depth=2, width=4)  # which ties nothing
        assert find_tied_head(make_flow((*flow.layers, again), flow.parameters, spec=spec)) is None


class TestSizes:
    USUAL = math.sqrt(4 / 3)
    """Norm of the weights of four units of the size that PyTorch gives them."""

    def test_units_are_the_rows_of_all_weights_of_a_layer(self):
        weights = [
            parameter("a.up", 1, shape=(8, 2)),
            parameter("a.down", 1, shape=(4, 2)),
            parameter("a.bias", 1, shape=(99,)),
            parameter("b.weight", 2, shape=(3, 5, 7, 7)),
            parameter("free"),
        ]
        assert count_units(make_flow([], weights)) == {1: 12.0, 2: 3.0}

    @pytest.mark.parametrize(("error", "moved"), [(1.0, True), (4.0, False)])
    def test_a_step_moves_a_layer_in_proportion_to_the_error(self, error, moved):
        flow = loose([1.0, 0.01], error=error)  # of weights of norm 2, and 0.002 · 2 is the bound
        assert moves(flow, flow.weight_layers[0])
        assert moves(flow, flow.weight_layers[1]) is moved

    @pytest.mark.parametrize(
        ("sizes", "share", "explained"),
        [
            ((1.0, 1.0, 0.1, 0.1), 0.011, {2}),  # both behind it are small
            ((1.0, 1.0, 0.1, 0.1), 0.009, set()),
            ((1.0, 1.0, 0.1, 9.0), 0.11, {2}),  # a large one makes up for none
            ((1.0, 1.0, 0.1, 9.0), 0.09, set()),
        ],
    )
    def test_small_layers_explain_what_usual_ones_would_hand_on(self, sizes, share, explained):
        flow = loose([1.0, share * USABLE_IN_CHAIN, 1.0, 1.0])
        weights = [
            replace(each, norm=Quantity([size * self.USUAL]))
            for each, size in zip(flow.parameters, sizes, strict=True)
        ]
        assert list_before_small(make_flow(flow.layers, weights)) == explained


class TestQueriesAndKeys:
    @staticmethod
    def build(q, v, entropy=0.96, name="block.attn"):
        names = ("block.attn.q", "block.attn.v", "block.attnother.q", "head")
        calls = [call(each, layer=at) for at, each in enumerate(names, start=1)]
        weights = [
            parameter(f"{each}.weight", at, grad_norm=norm)
            for at, (each, norm) in enumerate(zip(names, (q, v, 1e-9, 1.0), strict=True), start=1)
        ]
        output = call("out", "Loss", "other", gradient=1.0, shape=(1, 4))
        return make_flow((*calls, output), weights, attentions=(attention(name, entropy),))

    def test_receive_little_under_uniform_attention(self):
        assert list_query_key_layers(self.build(0.9 * USABLE_ON_STREAM, 1.0)) == {1}

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"q": USABLE_ON_STREAM * 1.001, "v": 1.0}, "they receive enough"),
            ({"q": 1e-9, "v": 1e-9}, "and so do not the values"),
            ({"q": 1e-9, "v": 1.0, "entropy": 0.9}, "attention is not uniform"),
            ({"q": 1e-9, "v": 1.0, "name": "other"}, "it is in another module"),
        ],
    )
    def test_else_are_layers_as_all(self, fields, why):
        assert list_query_key_layers(self.build(**fields)) == set(), why

    def test_are_compared_with_the_error_at_the_output(self):
        flow = self.build(2 * USABLE_ON_STREAM, 1.0)
        assert list_query_key_layers(flow) == set()
        layers = [*flow.layers[:-1], replace(flow.layers[-1], gradient=gradient(4.0))]
        larger = make_flow(layers, flow.parameters, attentions=flow.attentions)
        assert list_query_key_layers(larger) == {1}

    def test_of_attention_in_the_model_itself_are_among_all_layers(self):
        assert list_query_key_layers(self.build(1e-9, 1.0, name="")) == {1, 3}


class TestNormalizations:
    def test_put_out_their_root_mean_square_over_their_scale(self):
        calls = [
            call("n", "LayerNorm", statistics={"mean": 3.0, "std": 4.0}, layer=2),
            call("free", "RMSNorm", "normalization", statistics={"mean": 0.0, "std": 0.5}),
            call("off", "LayerNorm"),
            call("n", "LayerNorm", output="1"),
            call("none", "NoNorm", "normalization"),
            call("blind", "LayerNorm", statistics=None),
            call("act", "ReLU"),
        ]
        scales = [
            parameter("n.weight", None, shape=(4,), norm=20.0),  # 10 each
            parameter("n.bias", None, shape=(4,), norm=999.0),
            parameter("off.weight", None, shape=(4,), norm=0.0),
        ]
        found = [
            (p.name, p.layer, p.value, p.module)
            for p in list_normalizations(make_flow(calls, scales))
        ]
        assert found == [("n", 2, 0.5, "n"), ("free", None, 0.5, "free")]

    def test_are_on_a_branch_if_their_parameters_or_those_around_them_are(self):
        names = ("block.norm", "block.bare", "norm", "head.bare", "head.norm")
        calls = [call(name, "LayerNorm") for name in names] + [call("block.fc")]
        held = ["block.norm.weight", "block.fc.weight", "norm.weight", "head.fc.weight"]
        weights = [parameter(name) for name in held] + [parameter("head.norm.weight")]
        flow = make_flow(calls, weights, residuals=(residual(parameters=(0, 1)),))
        assert list_branch_normalizations(flow) == {"block.norm", "block.bare"}

    def test_are_on_no_branch_that_holds_only_some_of_what_is_around_them(self):
        calls = [call("net.bare", "LayerNorm"), call("net.fc"), call("net.out")]
        weights = [parameter("net.fc.weight"), parameter("net.out.weight")]
        flow = make_flow(calls, weights, residuals=(residual(parameters=(0,)),))
        assert list_branch_normalizations(flow) == frozenset()

    def test_size_of_a_parameter_is_its_root_mean_square(self):
        assert measure_size(parameter("a", shape=(4, 9), norm=12.0)) == 2.0
        assert measure_size(parameter("a", shape=(), norm=3.0)) == 3.0


def test_branch_layers_are_those_of_weights_in_branches():
    weights = [
        parameter("a.weight", 1),
        parameter("a.bias", 2, shape=(4,)),
        parameter("b.weight", 3),
        parameter("c.weight"),
    ]
    flow = make_flow([], weights, residuals=(residual(parameters=(0, 1, 3)),))
    assert list_branch_layers(flow) == {1}


def test_composites_have_weights_of_their_own_and_layers_inside():
    calls = [
        call("vit.fc", layer=2, parent=1),
        call("vit", "ViT", "weight", layer=1),
        call("pair.act", "ReLU", layer=3, parent=3),
        call("pair", "Pair", "weight", layer=3),
        call("box.fc", layer=4, parent=5),
        call("box", "Box", "other", layer=4),
    ]
    assert list_composites(make_flow(calls)) == {1}


class TestComparison:
    """Deltas of maps are compared as if summed over their positions."""

    @staticmethod
    def build(shape, zero_share=0.0, units=4, read=None, last=(3, 4)):
        calls = [
            call(
                "conv",
                "Conv2d",
                layer=1,
                shape=shape,
                gradient=gradient(3.0, zero_share=zero_share),
                statistics={"units": units},
            ),
            call("head", layer=2, shape=last, gradient=2.0),
        ]
        columns = units if read is None else read
        weights = [
            parameter("conv.weight", 1, shape=(4, 4, 3, 3)),
            parameter("head.weight", 2, shape=(4, columns)),
        ]
        return make_flow(calls, weights)

    @pytest.mark.parametrize(
        ("fields", "positions"),
        [
            ({"shape": (3, 4)}, 1.0),
            ({"shape": (3, 4, 25)}, 25.0),
            ({"shape": (3, 4, 6, 6)}, 36.0),
            ({"shape": (3, 4, 6, 6), "zero_share": 0.75}, 9.0),
            ({"shape": (3, 4, 6, 6), "zero_share": math.nan}, 36.0),
            ({"shape": (3, 4, 6, 6), "zero_share": 1.0}, 1.0),
            ({"shape": (3, 4, 6, 6), "read": 4 * 9}, 4.0),  # nine of them are flattened
            ({"shape": (3, 4, 6, 6), "read": 7}, 36.0),
            ({"shape": (3, 4, 0, 6)}, 1.0),
        ],
    )
    def test_counts_positions_that_share_weights_and_receive_something(self, fields, positions):
        flow = self.build(**fields)
        ratio = compare_deltas(flow, flow.weight_layers)
        assert ratio == pytest.approx(1.5 * math.sqrt(positions))

    def test_positions_that_maps_read_again_share_their_weights(self):
        flow = self.build((3, 4, 6, 6), read=4 * 9, last=(3, 4, 1))
        assert compare_deltas(flow, flow.weight_layers) == pytest.approx(1.5 * 6 / 1)
        flow = self.build((3, 4, 6, 6), read=2)  # fewer columns than units: nothing is flattened
        assert compare_deltas(flow, flow.weight_layers) == pytest.approx(1.5 * 6)
        flow = self.build((3, 4, 6, 6), read=4 * 9)
        pool = call("pool", "Pool", "other", shape=(3, 4, 3, 3))
        layers = (flow.layers[0], pool, flow.layers[1])  # between them what has no weights
        again = make_flow(layers, flow.parameters)
        assert compare_deltas(again, again.weight_layers) == pytest.approx(3.0)

    def test_counts_the_positions_of_a_layers_first_call_with_a_gradient(self):
        flow = self.build((3, 4, 5, 5))
        others = [
            call("conv", "Conv2d", layer=1, shape=(3, 4, 9, 9), gradient=None),
            call("act", "ReLU", layer=1, shape=(3, 4, 9, 9)),
            call("free", "Conv2d", shape=(3, 4, 9, 9)),
        ]
        again = make_flow((*others, *flow.layers), flow.parameters)
        assert compare_deltas(again, again.weight_layers) == pytest.approx(1.5 * 5)
        later = call("conv", "Conv2d", layer=1, call=1, shape=(3, 4, 9, 9), gradient=4.0)
        twice = make_flow((*flow.layers, later), flow.parameters)  # δ is 5 of both together
        assert compare_deltas(twice, twice.weight_layers) == pytest.approx(2.5 * 5)

    def test_needs_two_ends_with_a_gradient(self):
        flow = make_chain([1.0, 1.0], gradients=[6.0, 2.0])
        first, last = flow.weight_layers
        assert compare_deltas(flow, (first, last)) == 3.0
        assert compare_deltas(flow, (first,)) is None
        assert compare_deltas(flow, (replace(first, delta_norm=None), last)) is None
        assert compare_deltas(flow, (first, replace(last, delta_norm=None))) is None


def test_what_is_read_once_is_kept_with_the_flow():
    asked = []

    @read_once
    def read(flow):
        asked.append(flow)
        return len(asked)

    one, other = make_flow(), make_flow()
    assert [read(one), read(one), read(other), read(one)] == [1, 1, 2, 1]
