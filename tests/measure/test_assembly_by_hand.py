"""From records to a flow: numbers of layers, gains, chains and residual connections, by hand."""

from types import SimpleNamespace

import pytest
import torch

from chainrule.measure.assembly import (
    _assemble_attentions,
    _assemble_layers,
    _assemble_parameter,
    _compute_gain,
    _is_chain,
    _list_suspects,
    number_layers,
)
from chainrule.measure.residuals import assemble_residuals, describe_residuals, place_edges
from chainrule.measure.sequences import _reads_steps
from chainrule.measure.sharing import finish_all, run_all
from made_flows import call as layer_flow
from made_flows import gradient, quantity


def call(name, outputs=(), inputs=(), role="weight", parent=None, number=0, kind="Linear"):
    return SimpleNamespace(
        subject=SimpleNamespace(name=name, role=role, kind=kind),
        outputs=[
            SimpleNamespace(edge=edge, path="", shape=(3, 4), dtype=torch.float32)
            for edge in outputs
        ],
        input_edges=tuple(inputs),
        parent=parent,
        number=number,
        is_apart=False,
    )


class TestNumbers:
    @staticmethod
    def number(calls, names, reached=(), dims=None):
        dims = dims or [1 if name.endswith("bias") else 2 for name in names]
        parameters = list(zip(names, dims, strict=True))
        positions, modules = number_layers(calls, parameters, set(map(names.index, reached)))
        return {names[at]: number for at, number in positions.items()}, modules

    def test_follow_the_first_calls(self):
        calls = [call("b"), call("a"), call("b", number=1)]
        positions, modules = self.number(calls, ["a.weight", "a.bias", "b.weight"])
        assert modules == {"b": 1, "a": 2}
        assert positions == {"b.weight": 1, "a.weight": 2, "a.bias": 2}

    def test_need_a_matrix_that_ran_or_that_the_loss_reached(self):
        calls = [call("norm"), call("a")]
        names = ["norm.weight", "a.weight", "idle.weight", "used.weight"]
        _, modules = self.number(calls, names, ["used.weight"], [1, 2, 2, 2])
        assert modules == {"a": 1, "used": 2}
        names = ["used.weight", "used.bias"]
        _, modules = self.number([], names, ["used.bias"])
        assert modules == {"used": 1}  # one of its parameters is enough

    def test_without_a_call_follow_the_layer_registered_before(self):
        calls = [call("b"), call("a")]
        names = ["a.weight", "used.weight", "b.weight"]
        _, modules = self.number(calls, names, ["used.weight"])
        assert modules == {"b": 1, "a": 2, "used": 3}

    def test_parts_that_never_run_belong_to_the_module_around_them(self):
        calls = [call("attend")]
        names = ["attend.in_proj", "attend.out.weight", "attend.deep.er.weight"]
        positions, modules = self.number(calls, names)
        assert modules == {"attend": 1}
        assert set(positions.values()) == {1}
        outer = call("attend")
        _, modules = self.number([call("attend.inner", parent=outer), outer], names, names)
        assert set(modules) == {"attend", "attend.out", "attend.deep.er"}


class TestLayers:
    def test_activations_follow_the_layer_before_them(self):
        calls = [
            call("act0", [0], role="activation"),
            call("a", [1]),
            call("act1", [2], role="activation"),
            call("b", [3]),
            call("free", [4]),
        ]
        layers, sources = _assemble_layers(calls, {"a": 1, "b": 2}, lambda output: None, {})
        assert [each.layer for each in layers] == [None, 1, 1, 2, 2]
        assert sources == calls

    def test_parents_are_positions_of_their_first_output(self):
        outer = call("outer", [7, 8], role="other")
        hollow = call("hollow", [], role="other")
        calls = [
            call("a", [1, 2], parent=outer),
            call("b", [3], parent=outer),
            call("c", [4], parent=hollow),
            hollow,
            outer,
        ]
        layers, _ = _assemble_layers(calls, {}, lambda output: None, {})
        assert [each.parent for each in layers] == [4, 4, 4, None, None, None]

    def test_gain_stands_at_the_first_output_and_gradients_at_their_own(self):
        gradients = {1: gradient(6.0), 2: gradient(8.0), 5: gradient(20.0)}
        calls = [call("a", [1, 2, None], [5])]
        layers, _ = _assemble_layers(calls, {}, lambda output: None, gradients)
        assert [each.gain for each in layers] == [2.0, None, None]
        assert [each.gradient and each.gradient.norm for each in layers] == [6.0, 8.0, None]

    @pytest.mark.parametrize(
        ("outputs", "inputs", "gain"),
        [
            ([1], [2], 0.75),
            ([2], [1], 4 / 3),
            ([1, 2], [3], 0.4),
            ([3], [1, 2], 2.5),
            ([3], [1, 1, 2, None, 99], 2.5),  # one tensor twice is one
            ([1], [], None),
            ([None], [1], None),
            ([99], [1], None),
        ],
    )
    def test_gain_is_what_arrives_over_what_was_released(self, outputs, inputs, gain):
        gradients = {1: gradient(4.0), 2: gradient(3.0), 3: gradient(2.0)}
        found = _compute_gain(call("a", outputs, inputs), gradients)
        assert found == (gain if gain is None else pytest.approx(gain))

    @pytest.mark.parametrize(
        ("path", "chain"),
        [
            ([call("a", [1], [0]), call("b", [2], [1]), call("c", [3], [2])], True),
            ([call("a", [1], [0]), call("b", [2], [1]), call("c", [3], [1])], False),
            ([call("a", [1], [0]), call("b", [2], [1, 1])], True),
            ([call("a", [1], [0]), call("b", [2], [1, 0])], False),
            ([call("a", [1, 5], [0]), call("b", [2], [1])], False),
            ([call("a", [None], [0]), call("b", [2], [None])], False),
            ([call("a", [1], [0])], True),
            ([], False),
        ],
    )
    def test_chain_reads_the_single_output_before(self, path, chain):
        assert _is_chain(path) is chain


class TestParameters:
    @pytest.mark.parametrize(
        ("requires", "found", "status"),
        [
            (True, gradient(3.0, zero_share=0.5, non_finite=2.0), "measured"),
            (True, None, "unreached"),
            (False, None, "frozen"),
        ],
    )
    def test_are_measured_unreached_or_frozen(self, requires, found, status):
        described = (("a", "b"), (2, 3), torch.float16, requires)
        row = {"norm": [4.0], "non_finite": [1.0]}
        each = _assemble_parameter(described, 7, row, found)
        assert (each.name, each.aliases, each.shape, each.dtype) == ("a", ("b",), (2, 3), "float16")
        assert (each.status, each.layer, each.norm, each.non_finite) == (status, 7, 4.0, 1.0)
        values = (each.grad_norm, each.grad_zero_share, each.grad_non_finite)
        assert values == ((3.0, 0.5, 2.0) if found else (None, None, None))

    def test_are_suspected_of_copies_if_two_first_entries_agree(self):
        places = {4: (0, 0), 5: (0, 1), 6: (1, 0)}
        rows = [{"first": [[[1.0, 2.0, 1.0]], [[1.0, 2.0, 3.0]]]}, {"norm": [[1.0]]}]
        tables = [
            {name: torch.tensor(values, dtype=torch.float64) for name, values in row.items()}
            for row in rows
        ]
        assert list(_list_suspects(places, tables, lambda: rows)) == [4]

    def test_attention_without_a_choice_is_left_out_and_still_counted(self):
        sizes = (2, 3, 4)
        computed = [("a", sizes), ("a", sizes), ("b", sizes), ("a", sizes)]
        values = [(0.5, 6, 0.25, 0.75), (0.0, 0, 0.0, 0.0), (0.1, 2, 0.0, 1.0), (0.9, 1, 0.0, 1.0)]
        found = list(_assemble_attentions(computed, values))
        assert [(each.name, each.call, each.entropy) for each in found] == [
            ("a", 0, 0.5),
            ("b", 0, 0.1),
            ("a", 2, 0.9),
        ]
        first = found[0]
        assert (first.heads, first.queries, first.keys) == sizes
        assert (first.one_hot, first.uniform) == (0.25, 0.75)


class TestResiduals:
    @staticmethod
    def describe(rows, calls=()):
        """Each row is (edge of the sum, stream, branch, sum that the stream is, or `None`)."""
        residuals = [
            SimpleNamespace(
                sum=SimpleNamespace(edge=edge),
                stream=stream,
                branch=branch,
                stream_sum=None if before is None else SimpleNamespace(edge=before),
                parameters=frozenset({edge}),
            )
            for edge, stream, branch, before in rows
        ]
        return describe_residuals(residuals, calls)

    def test_one_stream_goes_on_from_sum_to_sum(self):
        found = self.describe([(10, 1, 2, None), (20, None, 12, 10), (30, 25, 26, None)])
        assert [each.stream for each in found] == [0, 0, 1]
        assert [each.stream_edge for each in found] == [1, None, 25]
        assert [each.stream_sum for each in found] == [None, 10, None]
        assert [each.branch_edge for each in found] == [2, 12, 26]
        assert [each.sum_edge for each in found] == [10, 20, 30]
        assert found[2].parameters == {30}

    @pytest.mark.parametrize("role", ["normalization", "activation", "weight"])
    def test_a_stream_goes_on_behind_a_normalization_or_an_activation(self, role):
        between = [call("n", [11], [10], role=role)]
        found = self.describe([(10, 1, 2, None), (20, 11, 12, None)], between)
        assert [each.stream for each in found] == ([0, 1] if role == "weight" else [0, 0])

    def test_normalization_is_before_after_or_none(self):
        rows = [(10, 1, 2, None)]
        before = [call("n", [3], [1], role="normalization")]
        after = [call("n", [3], [10], role="normalization")]
        other = [call("n", [3], [1]), call("m", [4], [10])]
        for calls, word in ((before, "before"), (after, "after"), (other, "none")):
            assert self.describe(rows, calls)[0].normalization == word
        assert self.describe(rows, before + after)[0].normalization == "before"

    def test_places_are_of_the_first_output_on_an_edge(self):
        calls = [call("a", [5, None]), call("b", [6]), call("c", [5])]
        assert place_edges(calls) == {5: 0, 6: 2}

    def test_numbers_are_those_of_their_edges(self):
        connections = self.describe([(10, 1, 2, None), (20, None, 12, 10), (30, 99, None, None)])
        layers = [
            layer_flow("a", statistics={"mean": [3.0, 0.0], "std": [4.0, 2.0]}),
            layer_flow("b", statistics={"mean": 0.0, "std": 0.5}),
            layer_flow("c", statistics=None),
        ]
        sizes = {10: quantity(7.0), 20: quantity(9.0), 30: quantity(1.0)}
        first, second, third = assemble_residuals(
            connections,
            layers,
            {1: 0, 2: 1, 12: 2},
            sizes,
            {10: gradient(6.0)},
            {10: 4, 30: 3},
        )
        assert (first.before.values, first.added, first.after) == ((5.0, 2.0), 0.5, 7.0)
        assert (first.branch, first.gradient, first.parameters) == (1, 6.0, (4,))
        assert (second.before, second.added, second.after) == (7.0, None, 9.0)
        assert (second.branch, second.gradient, second.parameters) == (2, None, ())
        assert (third.before, third.added, third.branch, third.parameters) == (
            None,
            None,
            None,
            (3,),
        )


class TestSteps:
    @pytest.mark.parametrize(
        ("spreads", "steps"),
        [
            ((1.0, 2.0, 3.0, 4.0), True),
            ((1.0, 1.0, 1.0, 2.0), False),  # half of them differ at least
            ((1.0, 1.0, 3.0, 2.0), True),
            ((1.0, 1.0, 2.0, 2.0), False),
        ],
    )
    def test_read_another_part_at_most_calls(self, spreads, steps):
        calls = [call("a", [at]) for at in range(4)]
        outputs = [layer_flow("a", statistics={"std": spread}) for spread in spreads]
        assert _reads_steps(calls, outputs) is steps

    def test_read_from_outside_and_return_one_tensor(self):
        outputs = [layer_flow("a", statistics={"std": float(at)}) for at in range(4)]
        inside = [call("a", [at], [9] if at == 2 else []) for at in range(4)]
        several = [call("a", [at, 99] if at == 2 else [at]) for at in range(4)]
        apart = [call("a", [at]) for at in range(4)]
        apart[2].is_apart = True  # what comes of it does not go into the next call
        assert not _reads_steps(inside, outputs)
        assert not _reads_steps(several, outputs)
        assert not _reads_steps(apart, outputs)


class TestUndoing:
    def test_every_step_runs_though_others_fail(self):
        done = []

        def fail():
            done.append("fail")
            raise ValueError("first")

        def interrupt():
            done.append("interrupt")
            if done.count("interrupt") == 1:
                raise KeyboardInterrupt

        failures = run_all([fail, lambda: done.append("last")])
        assert [str(each) for each in failures] == ["first"]
        assert done == ["fail", "last"]
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            run_all([interrupt, lambda: done.append("last")])
        assert done == ["interrupt", "interrupt", "last"]
        done.clear()
        with pytest.raises(ValueError, match="first"):
            finish_all([fail, lambda: done.append("last")])
        assert done == ["fail", "last"]
