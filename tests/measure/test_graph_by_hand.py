"""What the graph of a few operations holds, and what enters a model, worked out by hand."""

import math

import pytest
import torch
from torch import nn

from chainrule.measure.attention import EXAMPLES, QUERIES, _measure_fused, _measure_scores, _spread
from chainrule.measure.autograd_graph import (
    find_overwritten,
    find_scaled,
    find_sum,
    find_viewed,
    identify_edge,
    list_parameters_between,
    list_terms,
    list_views,
    make_edge,
    walk,
)
from chainrule.measure.inputs import assemble_inputs, pack, take_entering
from chainrule.measure.output_functions import (
    find_activation,
    find_bounds,
    find_rectifier,
    read_passed,
)


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


def edge(tensor):
    return tensor.grad_fn, tensor.output_nr


class TestWalk:
    def test_finds_leaves_and_operations_once(self):
        a, b = leaf(3), leaf(3)
        h = a * b
        graph = walk((h + h.tanh()).sum())
        assert {id(each) for each in graph.leaves} == {id(a), id(b)}
        assert sorted(node.name() for node in graph.nodes) == [
            "AddBackward0",
            "MulBackward0",
            "SumBackward0",
            "TanhBackward0",
        ]
        assert not graph.has_checkpoint
        assert not graph.has_own_functions

    def test_knows_functions_of_your_own(self):
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            def backward(ctx, gradient):
                return 2 * gradient

        graph = walk(Double.apply(leaf(3)).sum())
        assert graph.has_own_functions
        assert not graph.has_checkpoint


class TestBetween:
    def test_lists_the_leaves_used_on_the_way(self):
        x, w, v, other = leaf(3), leaf(3), leaf(3), leaf(3)
        start = x * other
        end = (start * w).tanh() + v
        assert list_parameters_between(edge(end), edge(start)) == {id(w), id(v)}

    def test_is_none_for_what_is_not_made_from_it(self):
        x, w = leaf(3), leaf(3)
        start = x.tanh()
        beside = x.sigmoid() * w
        assert list_parameters_between(edge(beside), edge(start)) is None
        assert list_parameters_between(edge(start), edge(beside)) is None
        assert list_parameters_between(edge(start), edge(start)) is None

    def test_tells_outputs_of_one_node_apart(self):
        first, second = (leaf(4).tanh() * 1.0).chunk(2)
        end = first.sin()
        assert list_parameters_between(edge(end), edge(first)) == frozenset()
        assert list_parameters_between(edge(end), edge(second)) is None

    def test_reaches_back_to_a_leaf(self):
        x, w = leaf(3), leaf(3)
        end = x * w
        node = end.grad_fn.next_functions[0][0]
        assert list_parameters_between(edge(end), (node, 0)) == {id(w)}


class TestViews:
    def test_hold_the_values_of_what_they_are_made_from(self):
        h = leaf(2, 6).tanh()
        for view in (
            h.view(3, 4),
            h.t(),
            h.unsqueeze(0),
            h.clone(),
            h.double(),
            h.view(3, 4).transpose(0, 1).unsqueeze(1),
        ):
            views = list_views(*edge(view))
            assert views[0] == edge(view)
            assert views[-1] == edge(h)
        for other in (h[0], h * 1, h.sum(0), h.narrow(1, 0, 3)):
            assert list_views(*edge(other)) == [edge(other)]

    def test_behind_products_with_what_is_not_computed(self):
        h, scale = leaf(3).tanh(), leaf(3)
        for multiple in (h * 0.5, h / 2.0, h * scale, (h * scale).view(1, 3) * 3.0):
            assert find_scaled(edge(multiple)) == edge(h)
        gated = h * h.sigmoid()
        assert find_scaled(edge(gated)) == edge(gated)
        assert find_scaled(edge(h)) == edge(h)

    def test_of_a_whole_tensor_is_found_and_of_a_part_not(self):
        h = leaf(2, 6).tanh()
        assert find_viewed(h.view(12)) is h
        assert find_viewed(h[0]) is None
        assert find_viewed(h) is None
        assert find_viewed(torch.ones(4).view(2, 2)) is None

    def test_edge_of_a_leaf_is_the_tensors(self):
        x = leaf(3)
        h = x.tanh()
        assert make_edge(x) is x
        assert tuple(make_edge(h))[:2] == (h.grad_fn, 0)
        node = h.grad_fn.next_functions[0][0]
        assert identify_edge(node, 0) == (id(x), -1)
        assert identify_edge(h.grad_fn, 1) == (h.grad_fn, 1)


class TestSums:
    @pytest.mark.parametrize(
        ("add", "terms"),
        [
            (lambda a, b: a + b, 2),
            (lambda a, b: a + 1.0, 1),
            (lambda a, b: torch.lerp(a, b, 0.3), 2),
            (lambda a, b: torch.lerp(a, b, torch.full((3,), 0.3, requires_grad=True)), 2),
            (lambda a, b: torch.stack([a, b, a]).sum(0), 3),
            (lambda a, b: torch.stack([a, b], -1).sum(-1), 2),
            (lambda a, b: torch.stack([a, b], 1).sum(0), 0),
            (lambda a, b: torch.stack([a, b]).sum((0, 1)), 0),
            (lambda a, b: a - b, 0),
            (lambda a, b: a * b, 0),
            (lambda a, b: a.unsqueeze(0).sum(0), 0),
        ],
    )
    def test_hold_what_is_added(self, add, terms):
        a, b = leaf(3).tanh(), leaf(3).sin()
        total = add(a, b)
        found = list_terms(total.grad_fn, set())
        assert len(found) == terms
        assert set(found) <= {edge(a), edge(b)}
        view = total.reshape(-1, 1).squeeze(1) if total.dim() else total
        assert find_sum(view, set()) == (edge(total) if terms else None)

    def test_in_place_behind_a_view_are_known_by_their_node(self):
        h, b = leaf(2, 3).tanh() * 1.0, leaf(6).sin()
        h.view(6).add_(b)
        node = find_overwritten(h.view(6))
        assert node is not None
        assert find_sum(h, set()) is None
        assert find_sum(h, {node}) == (node, 0)
        assert len(list_terms(node, {node})) == 2
        assert find_overwritten(leaf(3).tanh().view(3, 1)) is None
        assert find_overwritten(3.0) is None

    def test_of_a_leaf_there_is_none(self):
        assert find_sum(leaf(3), set()) is None


class TestEntering:
    @staticmethod
    def describe(values, module=None, unit_dim=None, reader="a"):
        each = take_entering(reader, module or nn.Identity(), unit_dim, values)
        (found,) = assemble_inputs(
            [(each.reader, each.shape, each.dtype, pack(each.sample), each.is_part)]
        )
        return found

    def test_numbers_by_hand(self):
        x = torch.tensor([[1.0, 5.0, 0.0, 2.0], [3.0, 5.0, 0.0, 2.0], [1.0, 5.0, 0.0, 2.0]])
        x[:, 3] = torch.tensor([0.0, 20.0, 0.0])
        found = self.describe(x)
        assert (found.examples, found.columns, found.shape) == (3, 4, (3, 4))
        assert (found.constant_columns, found.zero_columns) == (1.0, 1.0)
        assert found.mean == pytest.approx(40 / 12)
        assert found.std == pytest.approx(float(x.double().std(correction=0)))
        assert (found.min, found.max, found.non_finite) == (0.0, 20.0, 0.0)
        assert found.repeated == pytest.approx(1 / 3)
        one, two = x[:, 0].double(), x[:, 3].double()
        spreads = [float(each.std(correction=0)) for each in (one, two)]
        assert found.spread_ratio == pytest.approx(spreads[1] / spreads[0])
        centre = math.hypot(float(one.mean()), float(two.mean()))
        assert found.offset == pytest.approx(centre / math.hypot(*spreads))

    def test_columns_with_numbers_that_are_not_finite_are_left_out(self):
        x = torch.tensor([[1.0, math.nan, 3.0], [5.0, 2.0, 3.0]])
        found = self.describe(x)
        assert found.non_finite == pytest.approx(1 / 6)
        assert (found.min, found.max) == (1.0, 5.0)
        assert found.mean == pytest.approx(14 / 5)
        assert (found.spread_ratio, found.offset) == (1.0, 1.5)
        assert found.constant_columns == 1.0
        nothing = self.describe(torch.full((2, 2), math.nan))
        assert math.isnan(nothing.mean)
        assert math.isnan(nothing.std)
        assert math.isnan(nothing.max)
        assert (nothing.offset, nothing.spread_ratio, nothing.non_finite) == (None, None, 1.0)

    def test_of_one_example_no_column_is_compared(self):
        found = self.describe(torch.tensor([[1.0, 0.0]]))
        assert (found.constant_columns, found.zero_columns) == (0.0, 0.0)
        assert (found.offset, found.spread_ratio, found.repeated) == (None, None, 0.0)

    @pytest.mark.parametrize(
        ("shape", "module", "unit_dim", "examples", "columns"),
        [
            ((5, 7), None, None, 5, 7),
            ((5,), None, None, 5, 1),
            ((5, 7, 3), None, None, 5, 3),  # sequences by feature
            ((5, 3, 4, 4), None, None, 5, 3),  # images by channel
            ((5, 3, 8), nn.Conv1d(3, 2, 1), -2, 5, 3),
            ((9, 5, 3), nn.GRU(3, 2), -1, 5, 3),
            ((5, 9, 3), nn.GRU(3, 2, batch_first=True), -1, 5, 3),
            ((5, 7), nn.Linear(7, 2), -1, 5, 7),
        ],
    )
    def test_examples_come_first_and_then_the_columns(
        self, shape, module, unit_dim, examples, columns
    ):
        found = self.describe(torch.randn(shape), module, unit_dim)
        assert (found.examples, found.columns, found.shape) == (examples, columns, shape)

    def test_of_large_ones_a_part_is_looked_at(self):
        x = torch.randn(3000, 100)
        each = take_entering("a", nn.Linear(100, 1), -1, x)
        assert each.sample.numel() <= 2**16
        assert each.sample.shape == (250, 100)  # 256 examples at most: every 12th
        assert torch.equal(each.sample, x[::12])
        images = take_entering("a", nn.Conv2d(3, 1, 1), -3, torch.randn(64, 3, 64, 64))
        assert images.sample.numel() <= 2**16
        assert images.sample.shape[:2] == (64, 3)
        assert images.sample.shape[2] == images.sample.shape[3]
        wide = take_entering("a", nn.Linear(10_000, 1), -1, torch.randn(20, 10_000))
        assert wide.sample.shape == (20, 2500)  # as many columns as there is room for
        whole = take_entering("a", nn.Linear(64, 1), -1, torch.randn(1024, 64))
        assert whole.sample.shape == (1024, 64)

    def test_is_of_another_view_of_the_same_tensor(self):
        x = torch.randn(4, 6)
        each = take_entering("a", nn.Identity(), None, x)
        assert each.is_of(x.view(24))
        assert not each.is_of(x[:2])
        assert not each.is_of(x[1:])
        assert not each.is_of(x.clone())
        x.zero_()
        assert each.sample.abs().sum() > 0  # taken before it was overwritten


class TestAttention:
    """Relative entropy, rows with a choice, shares of heads near one-hot and near uniform."""

    @staticmethod
    def expect(scores, permitted):
        """[heads, queries, keys] in plain Python."""
        totals, rows, heads = 0.0, 0, []
        for head, barred in zip(scores.tolist(), permitted.tolist(), strict=True):
            values = []
            for row, may in zip(head, barred, strict=True):
                allowed = [score for score, ok in zip(row, may, strict=True) if ok]
                if len(allowed) < 2:
                    continue
                total = sum(math.exp(each - max(allowed)) for each in allowed)
                shares = [math.exp(each - max(allowed)) / total for each in allowed]
                entropy = -sum(p * math.log(p) for p in shares if p)
                values.append(entropy / math.log(len(allowed)))
            totals, rows = totals + sum(values), rows + len(values)
            if values:
                heads.append(sum(values) / len(values))
        narrow = sum(each < 0.05 for each in heads) / len(heads)
        return [totals / rows, rows, narrow, sum(each > 0.95 for each in heads) / len(heads)]

    def test_of_scores(self):
        scores = torch.randn(1, 3, 6, 5, dtype=torch.float64)
        scores[0, 1] *= 200.0
        scores[0, 2] *= 1e-3
        permitted = torch.rand(3, 6, 5) > 0.4
        permitted[:, 2] = torch.tensor([True, False, False, False, False])
        expected = self.expect(scores[0], permitted)
        barred = scores.masked_fill(~permitted, -1e9)
        assert _measure_scores(barred).tolist() == pytest.approx(expected)
        assert expected[2:] == pytest.approx([1 / 3, 1 / 3])
        barred = scores.masked_fill(~permitted, -torch.inf)
        assert _measure_scores(barred).tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("scale", [None, 0.3])
    @pytest.mark.parametrize("mask", [None, "bool", "float"])
    def test_of_the_fused_function(self, causal, scale, mask):
        query, key = (torch.randn(1, 2, 7, 4, dtype=torch.float64) for _ in range(2))
        permitted = torch.ones(2, 7, 7, dtype=torch.bool)
        scores = (query @ key.mT)[0] * (0.5 if scale is None else scale)
        given = None
        if mask == "bool":
            given = torch.rand(7, 7) > 0.3
            given[:, 0] = True
            permitted = permitted & given
        elif mask == "float":
            given = torch.randn(7, 7, dtype=torch.float64)
            given[2:4, 3] = -torch.inf
            given[5, 1] = -9_000.0
            permitted = permitted & (given > -9_000.0)
            scores = scores + given
        if causal:
            permitted = permitted & torch.ones(7, 7, dtype=torch.bool).tril()
        found = _measure_fused(query, key, given, causal, scale, grouped=False)
        assert found.tolist() == pytest.approx(self.expect(scores, permitted))

    def test_of_grouped_queries_each_key_serves_its_group(self):
        query = torch.randn(1, 4, 3, 4, dtype=torch.float64)
        key = torch.randn(1, 2, 3, 4, dtype=torch.float64)
        found = _measure_fused(query, key, None, False, None, grouped=True)
        scores = (query @ key[:, [0, 0, 1, 1]].mT)[0] / 2
        expected = self.expect(scores, torch.ones(4, 3, 3, dtype=torch.bool))
        assert found.tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("size", "wanted", "places"),
        [(3, 16, [0, 1, 2]), (5, 3, [0, 2, 4]), (1, 2, [0]), (9, 2, [0, 8]), (4, 1, [0])],
    )
    def test_samples_are_evenly_spaced_with_both_ends(self, size, wanted, places):
        assert _spread(size, wanted, torch.device("cpu")).tolist() == places
        assert (QUERIES, EXAMPLES) == (16, 2)

    def test_of_many_queries_and_examples_some_are_looked_at(self):
        query, key = (torch.randn(5, 2, 40, 4, dtype=torch.float64) for _ in range(2))
        found = _measure_fused(query, key, None, False, None, grouped=False)
        at = [round(place * 39 / 15) for place in range(16)]
        picked = (query[[0, 4]][:, :, at] @ key[[0, 4]].mT) / 2
        joined = picked.transpose(0, 1).flatten(1, 2)
        expected = self.expect(joined, torch.ones_like(joined, dtype=torch.bool))
        assert found.tolist() == pytest.approx(expected)


VALUES = torch.tensor([[-1e4, -3.0, 0.0, 0.25, 2.0, 1e4]], dtype=torch.float64)

FUNCTIONS = {
    "relu": (torch.relu, (0.0, math.inf), "relu"),
    "softplus": (nn.functional.softplus, (0.0, math.inf), "softplus"),
    "exp": (lambda z: (z / 100).exp(), (0.0, math.inf), "exp"),
    "sigmoid": (torch.sigmoid, (0.0, 1.0), None),
    "softmax": (lambda z: z.softmax(1), (0.0, 1.0), None),
    "tanh": (torch.tanh, (-1.0, 1.0), None),
    "log_softmax": (lambda z: z.log_softmax(1), (-math.inf, 0.0), None),
    "logsigmoid": (nn.functional.logsigmoid, (-math.inf, 0.0), None),
    "relu6": (nn.functional.relu6, (0.0, 6.0), "relu6"),
    "hardtanh": (lambda z: nn.functional.hardtanh(z, -2.0, 3.0), (-2.0, 3.0), None),
    "clamp": (lambda z: z.clamp(-0.5, 0.5), (-0.5, 0.5), None),
    "clamp at 1": (lambda z: z.clamp(1.0, 5.0), (1.0, 5.0), "clamp"),
    "clamp_min": (lambda z: z.clamp(min=0.0), (0.0, math.inf), "clamp"),
    "clamp max": (lambda z: z.clamp(max=0.5), (-math.inf, 0.5), None),
    "some of them": (lambda z: torch.relu(z)[:, 2:].flatten(), (0.0, math.inf), "relu"),
    "linear": (lambda z: 2.0 * z, None, None),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_their_values_between_bounds(name):
    function, bounds, rectifier = FUNCTIONS[name]
    result = function(VALUES.clone().requires_grad_())
    edge = (result.grad_fn, 0)
    assert find_bounds(edge) == bounds
    assert find_rectifier(edge, bounds) == rectifier
    if bounds:  # and they come as near to them as they can
        low, high = result.min().item(), result.max().item()
        assert bounds[0] <= low <= (bounds[0] + 1e-9 if math.isfinite(bounds[0]) else -1e3)
        assert bounds[1] >= high >= (bounds[1] - 1e-9 if math.isfinite(bounds[1]) else 1e3)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda z: z.softmax(1), ("softmax", 6)),
        (lambda z: z.view(2, 3).softmax(0), ("softmax", 2)),
        (lambda z: z.view(2, 3).log_softmax(-1), ("log_softmax", 3)),
        (torch.sigmoid, ("sigmoid", None)),
        (lambda z: (z.softmax(1) + 1e-8).clamp(0.1, 0.9), ("softmax", 6)),
        (lambda z: z.softmax(1)[:, 1], ("softmax", 6)),
        (lambda z: z.softmax(1) + z.sigmoid(), (None, None)),
        (lambda z: 2.0 * z.softmax(1), (None, None)),
        (torch.relu, (None, None)),
    ],
)
def test_activations_are_known_with_the_values_they_go_over(function, found):
    result = function(VALUES.clone().requires_grad_())
    assert find_activation((result.grad_fn, 0)) == found


def test_what_a_rectifier_turned_off_is_known_of_all_its_values():
    z = VALUES.clone().requires_grad_()
    assert torch.equal(read_passed((torch.relu(z).grad_fn, 0)), z.detach().clamp(min=0.0))
    assert torch.equal(read_passed((z.clamp(min=0.5).grad_fn, 0)), z.detach())
    for other in (torch.relu(z)[:, 1:], nn.functional.softplus(z), torch.sigmoid(z)):
        assert read_passed((other.grad_fn, 0)) is None
