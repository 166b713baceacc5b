"""What a flow works out of its entries, of flows small enough for paper."""

import json
import math
from dataclasses import replace

import pytest

from chainrule.errors import FlowFileError
from chainrule.flow.blocks import build_profile, group_blocks, group_calls, grow_tree, is_profiled
from chainrule.flow.loading import decode_flow
from chainrule.flow.loss import LossFlow
from chainrule.flow.quantity import Quantity, compute_quantile, decode_number, format_band
from chainrule.flow.records import AttentionFlow
from chainrule.flow.sharpness import Sharpness
from made_flows import (
    call,
    gradient,
    make_chain,
    make_flow,
    parameter,
    residual,
    statistics,
)


class TestEnds:
    def test_ratios_are_first_over_last_member_by_member(self):
        layers = [
            call("a", layer=1, gradient=[1.0, 6.0, 4.0]),
            call("b", layer=2, gradient=[2.0, 2.0, 2.0]),
        ]
        weights = [
            parameter("a.weight", 1, grad_norm=[8.0, 1.0, 2.0]),
            parameter("b.weight", 2, grad_norm=[2.0, 2.0, 0.0]),
        ]
        flow = make_flow(layers, weights, loss=[1.0, 1.0, 1.0])
        assert flow.gradient_ratio.values == (4.0, 0.5, math.inf)
        assert flow.delta_ratio.values == (0.5, 3.0, 2.0)

    @pytest.mark.parametrize("missing", [0, 1, 2])
    def test_ratio_needs_both_ends_and_no_more(self, missing):
        norms = [2.0, 3.0, 4.0]
        norms[missing] = None
        layers = [call(n, layer=at + 1, gradient=norms[at]) for at, n in enumerate("abc")]
        weights = [
            parameter(f"{n}.weight", at + 1, status="frozen" if at == missing else "measured")
            for at, n in enumerate("abc")
        ]
        flow = make_flow(layers, weights)
        if missing == 1:
            assert (flow.gradient_ratio, flow.delta_ratio) == (1.0, 0.5)
        else:
            assert (flow.gradient_ratio, flow.delta_ratio) == (None, None)


def test_weight_layers_are_in_the_order_of_their_numbers():
    """A head that is registered first is the last layer all the same."""
    calls = [call("b", layer=1), call("a", layer=2)]
    weights = [parameter("a.weight", 2, grad_norm=3.0), parameter("b.weight", 1, grad_norm=6.0)]
    flow = make_flow(calls, weights)
    assert [(each.layer, each.name) for each in flow.weight_layers] == [(1, "b"), (2, "a")]
    assert flow.gradient_ratio == 2.0


def test_a_parameters_gradient_is_relative_to_its_size():
    assert parameter("a", norm=4.0, grad_norm=1.0).grad_to_weight == 0.25
    assert parameter("a", status="frozen").grad_to_weight is None


class TestOutputError:
    """√N · ‖∂loss/∂output‖ for N outputs; entries along the features count as one."""

    @pytest.mark.parametrize(
        ("shape", "count"),
        [((5, 3), 5), ((5, 7, 3), 35), ((5, 3, 2, 2), 20), ((), 1), ((6,), 1), ((5, 0), 1)],
    )
    def test_counts_outputs_but_not_their_features(self, shape, count):
        flow = make_flow([call("a", gradient=0.25, shape=shape)])
        error = flow.output_error
        if shape == (5, 0):
            assert error is None  # nothing to ask anything of
        else:
            assert error == pytest.approx(math.sqrt(count) * 0.25)

    def test_is_that_of_the_last_call_with_a_gradient_and_values(self):
        flow = make_flow(
            [
                call("a", gradient=3.0, shape=(4, 2)),
                call("b", gradient=5.0, shape=(9, 2)),
                call("c", gradient=7.0, statistics=None),
                call("d", gradient=None),
            ]
        )
        assert flow.output_error == pytest.approx(15.0)

    @pytest.mark.parametrize("norm", [0.0, math.inf, math.nan])
    def test_is_none_where_it_is_zero_or_not_finite(self, norm):
        assert make_flow([call("a", gradient=norm)]).output_error is None

    def test_is_taken_member_by_member(self):
        flow = make_flow([call("a", gradient=[1.0, 2.0, 6.0], shape=(4, 2))], loss=[1.0] * 3)
        assert flow.output_error.values == (2.0, 4.0, 12.0)

    @pytest.mark.parametrize("order", [1, -1])
    @pytest.mark.parametrize(
        ("second", "count"),
        [
            ({"name": "b"}, 50),  # of modules beside each other, the one with most outputs counts
            ({"name": "a", "output": "1"}, 50),
            ({"name": "a", "call": 1}, 55),  # calls of one module count as one
        ],
    )
    def test_is_that_of_all_that_the_loss_reads(self, second, count, order):
        """Gradients of 3 and 4 are 5 together."""
        read = [
            call("a", gradient=3.0, shape=(5, 3)),
            call(**({"gradient": 4.0, "shape": (50, 2)} | second)),
        ]
        facts = LossFlow(parts=(), outputs=(0, 1))
        flow = make_flow([*read[::order], call("c", gradient=9.0)], loss_facts=facts)
        assert flow.output_error == pytest.approx(math.sqrt(count) * 5.0)

    def test_what_the_loss_reads_needs_a_gradient_and_values(self):
        read = [
            call("a", gradient=None),
            call("b", gradient=8.0, statistics=None),
            call("c", gradient=3.0, shape=(4, 2)),
            call("d", gradient=5.0, shape=(9, 2)),
        ]
        for outputs, error in (((0, 1, 2), 6.0), ((0, 1), 15.0)):  # else it is the last call's
            facts = LossFlow(parts=(), outputs=outputs)
            assert make_flow(read, loss_facts=facts).output_error == pytest.approx(error)

    def test_without_calls_is_none(self):
        assert make_flow().output_error is None


class TestFinite:
    def test_ordinary_flow_is(self):
        flow = make_chain([1.0, 2.0])
        assert flow.is_finite
        assert flow.has_finite_gradients

    @pytest.mark.parametrize("field", ["statistics", "gradient"])
    def test_one_entry_of_any_call_makes_it_not_finite(self, field):
        bad = {"statistics": statistics(non_finite=1.0), "gradient": gradient(non_finite=1.0)}
        flow = make_chain([1.0, 2.0])
        layers = [replace(flow.layers[0], **{field: bad[field]}), *flow.layers[1:]]
        changed = replace(flow, layers=tuple(layers))
        assert not changed.is_finite
        assert changed.has_finite_gradients  # it stopped before it reached a parameter

    @pytest.mark.parametrize("loss", [math.nan, math.inf])
    def test_loss_makes_both_not_finite(self, loss):
        flow = make_chain([1.0, 2.0], loss=loss)
        assert not flow.is_finite
        assert not flow.has_finite_gradients

    @pytest.mark.parametrize(
        ("fields", "gradients"),
        [
            ({"non_finite": 1.0}, False),
            ({"grad_non_finite": 1.0}, False),
            ({"non_finite": 1.0, "status": "frozen"}, True),
            ({"non_finite": 1.0, "status": "unreached"}, False),
        ],
    )
    def test_entry_of_one_parameter(self, fields, gradients):
        flow = make_flow([], [parameter("a.weight"), parameter("b.weight", **fields)])
        assert not flow.is_finite
        assert flow.has_finite_gradients is gradients


class TestFactors:
    def test_run_back_from_the_loss_with_the_products_so_far(self):
        flow = make_flow(
            [
                call("a", layer=1, gain=5.0),
                call("b", "ReLU", layer=1, gain=3.0),
                call("c", layer=2, gain=[2.0]),
            ],
            chain=True,
        )
        found = [(f.name, f.kind, f.role, f.layer, f.value, f.running) for f in flow.factors()]
        assert found == [
            ("c", "Linear", "weight", 2, 2.0, 2.0),
            ("b", "ReLU", "activation", 1, 3.0, 6.0),
            ("a", "Linear", "weight", 1, 5.0, 30.0),
        ]

    def test_have_no_product_behind_a_call_without_a_gain(self):
        flow = make_flow(
            [call("a", gain=5.0), call("b", gain=None), call("c", gain=2.0)], chain=True
        )
        assert [(f.value, f.running) for f in flow.factors()] == [
            (2.0, 2.0),
            (None, None),
            (5.0, None),
        ]

    def test_of_residual_connections_are_named_by_what_the_branch_returns(self):
        calls = [call("a", gain=9.0), call("b", "Tanh", layer=3, gain=9.0)]
        flow = make_flow(
            calls,
            residuals=(
                residual(gradient=12.0, branch=0),
                residual(gradient=6.0, branch=None),
                residual(gradient=3.0, branch=1),
            ),
        )
        found = [(f.name, f.kind, f.role, f.layer, f.value, f.running) for f in flow.factors()]
        assert found == [
            ("b", "Tanh", "residual", 3, 2.0, 2.0),
            ("residual connection 2", "", "residual", None, 2.0, 4.0),
        ]

    @pytest.mark.parametrize(
        "residuals",
        [
            (residual(stream=0), residual(stream=1)),
            (residual(), residual(gradient=None)),
            (residual(gradient=None), residual()),
        ],
        ids=["two streams", "last without a gradient", "first without a gradient"],
    )
    def test_of_residual_connections_need_one_stream_and_its_gradients(self, residuals):
        flow = make_flow([call("a", gain=9.0), call("b", gain=9.0)], residuals=residuals)
        assert [(f.name, f.running) for f in flow.factors()] == [("b", None), ("a", None)]

    @pytest.mark.parametrize(
        ("calls", "row"),
        [
            ([call("a", gradient=6.0, gain=4.0), call("b", gradient=2.0, gain=3.0)], True),
            ([call("a", gradient=6.1, gain=4.0), call("b", gradient=2.0, gain=3.0)], False),
            ([call("a", gradient=None, gain=None), call("b", gradient=2.0, gain=None)], True),
            ([call("a", gradient=None, gain=4.0), call("b", gradient=2.0, gain=None)], False),
            ([call("a", gradient=None, gain=None), call("b", gradient=2.0, gain=3.0)], True),
            ([call("a", gradient=None, gain=4.0), call("b", gradient=2.0, gain=3.0)], False),
        ],
    )
    def test_multiply_where_each_call_receives_what_the_next_one_releases(self, calls, row):
        last = make_flow(calls).factors()[0]
        assert last.running == (last.value if row else None)

    def test_every_member_must_be_such_a_row(self):
        calls = [
            call("a", gradient=[6.0, 6.0], gain=[1.0, 1.0]),
            call("b", gradient=[2.0, 2.0], gain=[3.0, 4.0]),
        ]
        assert make_flow(calls, loss=[1.0, 1.0]).factors()[0].running is None

    def test_are_those_of_contained_modules_but_of_residual_blocks_as_a_whole(self):
        calls = [
            call("block.pair.inner", gain=2.0, parent=1),  # children come before what holds them
            call("block.pair", "Pair", "other", gain=2.0, parent=2),
            call("block", "ResidualBlock", "residual", gain=3.0),
            call("pair.inner", gain=5.0, parent=4),
            call("pair", "Pair", "other", gain=7.0),
            call("two", gain=11.0),
            call("two", gain=13.0, output="1"),
            call("two", gain=17.0, call=1),
        ]
        flow = make_flow(calls, chain=True)
        assert [f.value for f in flow.factors()] == [17.0, 11.0, 5.0, 3.0]


class TestWeightLayers:
    def test_put_together_the_weights_and_calls_of_one_number(self):
        calls = [
            call("cell", "LSTM", "weight", layer=1, gradient=3.0, statistics={"std": 7.0}),
            call("cell", "LSTM", "weight", layer=1, gradient=4.0, statistics={"std": 8.0}, call=1),
            call("hold", "Identity", layer=1, statistics={"std": 5.0}),
            call("act", "Tanh", layer=1, statistics={"std": 6.0}),
            call("act2", "ReLU", layer=1, statistics={"std": 9.0}),
        ]
        weights = [
            parameter("cell.w1", 1, norm=6.0, grad_norm=0.3),
            parameter("cell.w2", 1, norm=8.0, grad_norm=0.4),
            parameter("cell.bias", 1, shape=(4,), norm=100.0, grad_norm=100.0),
        ]
        (layer,) = make_flow(calls, weights).weight_layers
        assert (layer.layer, layer.name, layer.kind) == (1, "cell", "LSTM")
        assert layer.weight_norm == pytest.approx(10.0)
        assert layer.weight_gradient_norm == pytest.approx(0.5)
        assert layer.delta_norm == pytest.approx(5.0)
        assert layer.pre_activation.std == 7.0
        assert (layer.activation.std, layer.activation_kind) == (6.0, "Tanh")
        assert layer.std == 6.0
        assert layer.grad_to_weight == pytest.approx(0.05)

    def test_without_calls_are_named_by_their_weight(self):
        (layer,) = make_flow([], [parameter("a.b.weight", 1, status="frozen")]).weight_layers
        assert (layer.name, layer.kind, layer.activation_kind) == ("a.b", "", "")
        assert layer.pre_activation is layer.activation is layer.delta_norm is layer.std is None
        assert layer.weight_gradient_norm is layer.grad_to_weight is None

    def test_a_placeholder_is_the_activation_where_there_is_no_other(self):
        calls = [call("a", layer=1), call("hold", "Identity", layer=1, statistics={"std": 5.0})]
        (layer,) = make_flow(calls, [parameter("a.weight", 1)]).weight_layers
        assert (layer.activation_kind, layer.std) == ("Identity", 5.0)

    def test_shares_are_undefined_for_the_members_that_are_not_finite(self):
        active = {"saturation": [0.5, 0.5, 0.5], "dead_units": [1.0, 1.0, 1.0]}
        calls = [
            call("a", layer=1, statistics={"non_finite": [0.0, 1.0, 0.0]}, gradient=None),
            call("b", "Tanh", layer=1, statistics=active | {"non_finite": [0.0, 0.0, 2.0]}),
        ]
        (layer,) = make_flow(calls, [parameter("a.weight", 1)], loss=[1.0] * 3).weight_layers
        for share, value in ((layer.saturation, 0.5), (layer.dead_share, 0.25)):
            assert share.values[0] == value
            assert [math.isnan(each) for each in share.values] == [False, True, True]


class TestClipFactor:
    @pytest.mark.parametrize(
        ("norm", "factor"), [(4.0, 0.5 / (1 + 2.5e-7)), (1.0, 1.0), (2.0, 1 / (1 + 5e-7))]
    )
    def test_is_the_limit_over_the_norm_and_at_most_one(self, norm, factor):
        flow = make_flow([], [parameter("a", grad_norm=norm), parameter("b", status="frozen")])
        assert flow.compute_clip_factor(2.0) == pytest.approx(factor, rel=1e-12)


class TestText:
    def test_names_the_ends_of_sorted_norms_and_undefined_ones_last(self):
        text = repr(make_chain([3.0, 1.0, math.nan, 2.0]))
        assert "1 … undefined" in text

    def test_without_weight_gradients(self):
        flow = make_flow([call("a", layer=1)], [parameter("a.weight", 1, status="frozen")])
        assert repr(flow) == "GradientFlow(1 layer, no weight gradients, 𝓛 1)"

    def test_of_one_norm_names_it_once(self):
        assert repr(make_chain([2.0, 2.0])).count("2") == 2  # two layers, and the norm

    def test_of_parts_says_what_is_there_and_how_large(self):
        assert "‖∂𝓛/∂output‖ 5, gain 3" in repr(call("a", gradient=5.0, gain=3.0))
        assert "‖∂𝓛/∂output‖ none, gain none" in repr(call("a", gradient=None, gain=None))
        assert "1×1×1×1×1×2" in repr(call("a", shape=(1, 1, 1, 1, 1, 2)))
        assert "7 dimensions" in repr(call("a", shape=(1, 1, 1, 1, 1, 1, 2)))
        assert [call("a").label, call("", call=1, output="1.0").label] == [
            "a",
            "(model) (call 2) → 1.0",
        ]


class TestRecords:
    def test_weight_gradient_stands_with_the_weights_own_calls(self):
        flow = make_flow(
            [
                call("a", layer=1, gradient=[3.0, 4.0, 9.0], gain=None, shape=(5, 6)),
                call("b", "ReLU", layer=1),
                call("c", layer=None),
            ],
            [parameter("a.weight", 1, grad_norm=[7.0, 8.0, 20.0])],
            loss=[1.0] * 3,
        )
        records = flow.to_records()
        assert [record["weight_grad_norm"] for record in records] == [8.0, None, None]
        assert (records[0]["grad_norm"], records[0]["gain"]) == (4.0, None)
        assert records[0]["shape"] == "5×6"

    def test_calls_are_counted_from_zero(self):
        records = make_flow([call("a"), call("a", call=1)]).to_records()
        assert [record["call"] for record in records] == [0, 1]


class TestSharpness:
    def test_limit_of_sgd_grows_with_its_momentum(self):
        """2·(1 + momentum) ÷ λ; of other optimizers, that of plain gradient descent."""
        ordinary = {"eigenvalue": 40.0, "tolerance": 0.5, "rate": 0.2, "momentum": 0.5}
        assert Sharpness(**ordinary, optimizer="SGD").limit == pytest.approx(0.075)
        assert Sharpness(**ordinary, optimizer="Adam").limit == pytest.approx(0.05)
        assert Sharpness(**(ordinary | {"eigenvalue": -40.0})).limit == math.inf
        assert math.isnan(Sharpness(**(ordinary | {"eigenvalue": math.nan})).limit)

    def test_limit_of_adam_is_that_of_its_own_beta(self):
        """2·(1 + β₁) ÷ ((1 − β₁)·λ); β₁ is 0.9 where no Adam was given."""
        ordinary = {"eigenvalue": 40.0, "tolerance": 0.5, "preconditioned": 4.0, "momentum": 0.5}
        for name, limit in (("Adam", 1.5), ("AdamW", 1.5), ("SGD", 9.5), ("", 9.5)):
            assert Sharpness(**ordinary, optimizer=name).adam_limit == pytest.approx(limit)
        assert Sharpness(eigenvalue=40.0, tolerance=0.5).adam_limit is None

    def test_as_json_holds_what_was_measured_and_both_limits(self):
        found = Sharpness(
            **{"eigenvalue": 40.0, "tolerance": 0.5, "preconditioned": 4.0, "passes": 21.0},
            **{"rate": 0.2, "momentum": 0.5, "optimizer": "SGD"},
        ).to_dict()
        assert found == {
            **{"eigenvalue": 40.0, "tolerance": 0.5, "preconditioned": 4.0, "method": "hessian"},
            **{"limit": pytest.approx(0.075), "adam_limit": pytest.approx(9.5), "passes": 21.0},
            **{"rate": 0.2, "momentum": 0.5, "optimizer": "SGD"},
        }
        lost = Sharpness(eigenvalue=math.nan, tolerance=math.inf).to_dict()
        assert (lost["eigenvalue"], lost["tolerance"], lost["limit"]) == ("NaN", "Infinity", "NaN")


class TestBounds:
    """What a file may hold: shares up to rounding, counts, magnitudes."""

    @pytest.mark.parametrize(
        ("field", "value", "legal"),
        [
            ("grad_zero_share", 1.0, True),
            ("grad_zero_share", 0.0, True),
            ("grad_zero_share", 1.1, False),
            ("grad_zero_share", -0.1, False),
            ("grad_zero_share", "NaN", True),
            ("non_finite", 3.0, True),
            ("non_finite", 0.5, False),
            ("non_finite", -1.0, False),
            ("norm", 0.0, True),
            ("norm", -1.0, False),
            ("norm", "NaN", True),
            ("layer", 1, True),
            ("layer", 0, False),
            ("layer", 2**31, False),
        ],
    )
    def test_of_a_parameter(self, field, value, legal):
        document = json.loads(make_chain([1.0]).to_json())
        document["parameters"][0][field] = value
        text = json.dumps(document)
        if legal:
            found = getattr(decode_flow(text).parameters[0], field)
            assert math.isnan(found) if value == "NaN" else found == value
        else:
            with pytest.raises(FlowFileError, match=field):
                decode_flow(text)


class TestBlocks:
    def test_calls_belong_to_their_block_or_to_the_module_around_them(self):
        names = ["stem", "h.0", "h.0.fc", "h.1.fc", "h.1.act", "tail.norm.scale", "tail.fc"]
        flow = make_flow([call(name) for name in names])
        found = [(block.name, [each.name for each in block.calls]) for block in group_calls(flow)]
        assert found == [
            ("", ["stem"]),
            ("h.0", ["h.0", "h.0.fc"]),
            ("h.1", ["h.1.fc", "h.1.act"]),
            ("tail.norm", ["tail.norm.scale"]),
            ("tail", ["tail.fc"]),
        ]
        groups = group_blocks(group_calls(flow))
        assert [(name, [b.name for b in members]) for name, members in groups] == [
            ("", [""]),
            ("h.*", ["h.0", "h.1"]),
            ("tail.norm", ["tail.norm"]),
            ("tail", ["tail"]),
        ]

    def test_hold_the_ends_of_their_gradients_and_count_what_is_not_finite(self):
        (block,) = group_calls(
            make_flow(
                [
                    call("h.0.a", gradient=3.0),
                    call("h.0.b", gradient=math.nan),
                    call("h.0.c", gradient=math.inf, statistics={"non_finite": 2.0}),
                    call("h.0.d", gradient=gradient(1.0, non_finite=5.0)),
                    call("h.0.e", gradient=None, statistics=None),
                ]
            )
        )
        assert (block.smallest_gradient, block.largest_gradient) == (1.0, math.inf)
        assert block.non_finite == 2
        undefined = [call("h.0.a", gradient=math.nan), call("h.0.b", gradient=3.0)]
        (block,) = group_calls(make_flow(undefined))
        assert (block.smallest_gradient, block.largest_gradient) == (3.0, 3.0)
        (empty,) = group_calls(make_flow([call("h.0.e", gradient=None)]))
        assert (empty.smallest_gradient, empty.largest_gradient) == (None, None)

    def test_tree_leaves_out_containers_of_numbered_parts_and_of_single_ones(self):
        names = ["stem", "body.0", "body.1.a", "body.1.b", "wrap.inner.a", "wrap.inner.b", "own"]
        calls = [*(call(name) for name in names), call("own.part"), call("own")]

        def write(branch):
            inner = [write(each) for each in branch.branches]
            return (branch.label, branch.size, *inner)

        assert write(grow_tree(make_flow(calls))) == (
            "",
            9,
            ("stem", 1),
            ("body.0", 1),
            ("body.1", 2, ("a", 1), ("b", 1)),
            ("wrap.inner", 2, ("a", 1), ("b", 1)),
            ("own", 3, ("part", 1)),
        )

    def test_tree_keeps_a_container_of_which_only_some_parts_are_numbered(self):
        tree = grow_tree(make_flow([call("mix.0"), call("mix.1"), call("mix.out")]))
        (branch,) = tree.branches
        assert branch.label == "mix"
        assert [each.label for each in branch.branches] == ["0", "1", "out"]

    def test_a_block_that_repeats_no_other_has_its_own_name(self):
        groups = group_blocks(group_calls(make_flow([call("h.0.a"), call("h.0.b")])))
        assert [name for name, _ in groups] == ["h.0"]
        calls = [call("h.0.a", layer=1), call("h.0.b", layer=2)]
        weights = [parameter("h.0.a.weight", 1), parameter("h.0.b.weight", 2)]
        (stack,) = build_profile(make_flow(calls, weights))
        assert (stack.repeats, [row.name for row in stack.rows]) == (False, ["h.0.a", "h.0.b"])

    def test_title_counts_blocks_as_numbers(self):
        (stack,) = build_profile(self.build(12))
        assert stack.title == "h.*, 12 blocks, 0 to 11"

    @pytest.mark.parametrize(("parts", "stacks"), [(12, ["s.*"]), (13, ["s.*.l.*"])])
    def test_profile_of_long_blocks_goes_one_number_deeper(self, parts, stacks):
        names = [f"s.{at}.l.{part}.w" for at in range(2) for part in range(parts)]
        calls = [call(name, layer=at) for at, name in enumerate(names, start=1)]
        weights = [parameter(f"{name}.weight", at) for at, name in enumerate(names, start=1)]
        profile = build_profile(make_flow(calls, weights))
        assert [each.name for each in profile if each.repeats] == stacks

    @staticmethod
    def build(blocks, singles=0):
        names = [f"h.{at}.fc" for at in range(blocks)] + [f"tail{'x' * n}" for n in range(singles)]
        calls = [call(name, layer=at) for at, name in enumerate(names, start=1)]
        weights = [parameter(f"{name}.weight", at) for at, name in enumerate(names, start=1)]
        return make_flow(calls, weights)

    def test_profile_is_for_more_weight_layers_than_a_list_shows_well(self):
        assert not is_profiled(self.build(24))
        assert is_profiled(self.build(25))

    def test_profile_must_be_at_most_half_as_long_as_the_list(self):
        # One row and one title for the blocks, and a row for each other layer.
        assert is_profiled(self.build(18, 14))
        assert not is_profiled(self.build(17, 15))

    def test_neighbours_that_do_not_repeat_stand_together(self):
        calls = [call(name) for name in ("a", "b", "h.0.x", "h.1.x", "c", "d")]
        calls = [replace(each, layer=at) for at, each in enumerate(calls, start=1)]
        weights = [
            parameter(f"{each.name}.weight", at, grad_norm=float(at))
            for at, each in enumerate(calls, start=1)
        ]
        stacks = build_profile(make_flow(calls, weights))
        assert [[row.name for row in stack.rows] for stack in stacks] == [
            ["a", "b"],
            ["x"],
            ["c", "d"],
        ]
        assert stacks[1].rows[0].norms == (Quantity([3.0]), Quantity([4.0]))
        assert stacks[1].title == "h.*, 2 blocks, 0 to 1"

    def test_of_several_sums_in_a_block_the_stream_shows_the_last(self):
        names = [f"h.{at}.{name}" for at in range(3) for name in ("a", "b")]
        calls = [call(name, layer=at) for at, name in enumerate(names, start=1)]
        weights = [parameter(f"{name}.weight", at) for at, name in enumerate(names, start=1)]
        sums = tuple(residual(branch=at, gradient=at + 1.0) for at in range(6))
        (stack,) = build_profile(make_flow(calls, weights, residuals=sums))
        assert stack.stream == (2.0, 4.0, 6.0)


def test_a_band_is_the_middle_of_an_ensemble():
    assert format_band(Quantity(map(float, range(11)))) == "1 – 9"
    assert format_band(Quantity([1.0])) == format_band(None) == ""


def test_several_computations_of_attention_are_counted_from_one():
    half = dict.fromkeys(("entropy", "one_hot", "uniform"), Quantity([0.5]))
    sizes = {"heads": 2, "queries": 8, "keys": 8}
    labels = [AttentionFlow(name="b", call=at, **sizes, **half).label for at in range(3)]
    assert labels == ["b", "b (call 2)", "b (call 3)"]


@pytest.mark.parametrize("value", [True, 2**63, -(2**63), "1.0", math.inf, None])
def test_a_file_holds_numbers_of_float64_alone(value):
    with pytest.raises(ValueError, match="must be a number"):
        decode_number(value)
    assert decode_number(2**63 - 1) == 2.0**63


@pytest.mark.parametrize(
    ("ordered", "share", "value"),
    [
        ((1.0, 3.0), 0.25, 1.5),
        ((1.0, 3.0, 9.0), 0.5, 3.0),
        ((1.0, math.inf), 0.5, math.inf),
        ((math.inf, math.inf), 0.5, math.inf),
        ((-math.inf, 1.0), 0.5, -math.inf),
        ((-math.inf, -math.inf, 2.0), 0.25, -math.inf),
        ((-math.inf, math.inf), 0.5, math.nan),
        ((1.0, math.nan), 0.5, math.nan),
    ],
)
def test_quantiles_of_what_may_be_infinite(ordered, share, value):
    assert compute_quantile(ordered, share) == pytest.approx(value, nan_ok=True)
