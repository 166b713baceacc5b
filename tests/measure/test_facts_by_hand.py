"""Curvature, copies, half precision and sequences of models small enough for paper."""

import math

import pytest
import torch
from torch import nn

from chainrule.flow.sharpness import Sharpness
from chainrule.measure.inspection import inspect
from chainrule.measure.precision import _write
from chainrule.measure.sharpness import _find_largest, _list_scales, measure_sharpness
from chainrule.measure.symmetry import _compare, _group
from made_flows import gradient


def build(values):
    model = nn.Module()
    model.w = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    return model


class TestSharpness:
    CURVES = torch.tensor([3.0, -7.0, 5.0, 1.0], dtype=torch.float64)

    def compute_loss(self, model):
        return 0.5 * (self.CURVES * model.w.square()).sum() + model.w.sum()

    def test_is_the_largest_eigenvalue_not_the_largest_in_size(self):
        found = measure_sharpness(build([1.0, 2.0, 3.0, 4.0]), self.compute_loss)
        assert found.eigenvalue == pytest.approx(5.0, rel=1e-6)
        assert found.method == "hessian"
        assert found.passes == 1 + 2 * 4  # four products know a space of four dimensions

    def test_error_bounds_what_few_products_miss(self):
        curves = torch.linspace(-3, 9, 40, dtype=torch.float64)

        def multiply(vector):
            return [curves * vector[0]]

        for products in (2, 3, 5, 8):
            value, error, count = _find_largest(multiply, [curves], products)
            assert count <= products
            assert min(abs(value - float(each)) for each in curves) <= error + 1e-9
        value, _, _ = _find_largest(multiply, [curves], 40)
        assert value == pytest.approx(9.0, rel=2e-3)

    @pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
    def test_limits_and_rates_of_an_optimizer(self, kind):
        model = build([1.0, 2.0, 3.0, 4.0])
        settings = {"momentum": 0.5} if kind is torch.optim.SGD else {"betas": (0.8, 0.999)}
        found = measure_sharpness(
            model, self.compute_loss, kind(model.parameters(), 0.9, **settings)
        )
        assert (found.rate, found.optimizer) == (0.9, kind.__name__)
        if kind is torch.optim.SGD:
            assert found.limit == pytest.approx(2 * 1.5 / 5)
            assert found.excess == pytest.approx(0.9 / 0.6)
            assert found.adam_limit is None
        else:
            # D holds |gradient| + ε: curves divided by it have the largest eigenvalue.
            slopes = (self.CURVES * model.w + 1).detach().abs() + 1e-8
            largest = float((self.CURVES / slopes).max())
            assert found.preconditioned == pytest.approx(largest, rel=1e-4)
            assert found.limit == pytest.approx(2 / 5)
            assert found.adam_limit == pytest.approx(2 * 1.8 / 0.2 / largest, rel=1e-4)
            assert found.excess is None

    def test_adams_own_averages_are_taken_where_it_has_some(self):
        model = build([1.0, 2.0])
        optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.5), eps=1e-3)
        for slopes in ([1.0, 4.0], [3.0, 0.0]):
            model.w.grad = torch.tensor(slopes, dtype=torch.float64)
            optimizer.step()
        (scale,) = _list_scales(optimizer, [model.w], [torch.ones(2, dtype=torch.float64)])
        averages = [0.5 * 0.5 * 1 + 0.5 * 9, 0.5 * 0.5 * 16]
        sizes = [math.sqrt(each / (1 - 0.5**2)) for each in averages]
        assert scale.tolist() == pytest.approx([(each + 1e-3) ** -0.5 for each in sizes])
        (first,) = _list_scales(
            torch.optim.Adam([model.w], eps=1e-3), [model.w], [torch.tensor([0.25, 0.0])]
        )
        assert first.tolist() == pytest.approx([0.251**-0.5, 0.0])

    def test_downward_curves_have_no_limit(self):
        assert Sharpness(eigenvalue=-1.0, tolerance=0.0).limit == math.inf
        assert Sharpness(eigenvalue=0.0, tolerance=0.0).limit == math.inf
        assert math.isnan(Sharpness(eigenvalue=math.nan, tolerance=0.0).limit)
        assert Sharpness(eigenvalue=4.0, tolerance=0.0, momentum=0.9).limit == 0.5  # no optimizer
        adam = Sharpness(eigenvalue=4.0, tolerance=0.0, preconditioned=4.0)
        assert adam.adam_limit == pytest.approx(2 * 1.9 / 0.1 / 4)


class TestSymmetry:
    @staticmethod
    def compare(weights, changes, bias=None, dim=0):
        found = _compare(
            0,
            torch.tensor(weights),
            torch.tensor(changes),
            None if bias is None else torch.tensor(bias),
            dim,
        )
        return found and (found.units, found.copies, found.idle)

    W = ((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (3.0, 4.0))

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            (((1.0, 0.0),) * 4, (4, 2, 0)),
            (((1.0, 0.0), (1.0, 0.0), (2.0, 0.0), (1.0, 0.0)), (4, 1, 0)),
            (((1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (1.0, 0.0)), None),
            (((0.0, 0.0),) * 4, (4, 0, 2)),
            (((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.0, 0.0)), (4, 0, 1)),
            (((1.0, 0.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)), (4, 1, 0)),
            (((1.0, 0.0), (1.0 + 1e-7, 0.0), (math.nan, 0.0), (1.0, 0.0)), None),
        ],
    )
    def test_copies_have_the_same_weights_and_gradients(self, changes, found):
        assert self.compare(self.W, changes) == found

    def test_other_biases_make_other_units(self):
        changes = ((1.0, 0.0),) * 4
        assert self.compare(self.W, changes, [0.0, 0.0, 1.0, 0.0]) == (4, 1, 0)
        assert self.compare(self.W, changes, [0.0, 1.0, 2.0, 0.0]) is None

    def test_units_may_be_counted_along_the_second_dimension(self):
        weights = tuple(zip(*self.W, strict=True))
        changes = tuple(zip(*((1.0, 0.0),) * 4, strict=True))
        assert self.compare(weights, changes, dim=1) == (4, 2, 0)

    def test_groups_number_what_is_the_same(self):
        units = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0 + 1e-4]]).double()
        first = _group(units, 0.0).tolist()
        assert first[0] == first[2]
        assert len(set(first)) == 3
        assert len(set(_group(units, 1e-3).tolist())) == 2

    def test_a_model_with_copies_has_them_in_its_flow(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        with torch.no_grad():
            model[0].weight[1:3] = model[0].weight[0]
            model[0].bias[1:3] = model[0].bias[0]
            model[2].weight[:, 1:3] = model[2].weight[:, :1]
        x = torch.randn(6, 3)
        (found,) = inspect(model, lambda m: m(x).square().mean()).symmetries
        assert (found.parameter, found.layer, found.units) == ("0.weight", 1, 4)
        assert (found.copies, found.idle) == (2.0, 0.0)


def test_size_of_a_gradient_in_half_precision_is_its_root_mean_square():
    each = _write("a", "output", "float16", 3, 0.25, gradient(12.0, max_abs=7.0), (4, 9))
    assert (each.size, each.largest, each.subnormal_share, each.layer) == (2.0, 7.0, 0.25, 3)
    assert _write("a", "weight", "float16", None, 0.0, gradient(3.0), ()).size == 3.0


class TestSequences:
    def test_gradients_at_the_steps_are_autograds(self):
        torch.manual_seed(0)
        model = nn.GRU(2, 3, batch_first=True).double()
        x = torch.randn(4, 5, 2, dtype=torch.float64, requires_grad=True)

        def compute_loss(m):
            return m(x)[0][:, 1:4].square().sum()

        (time,) = inspect(model, compute_loss).times
        output, _ = model(x)
        inward, read = torch.autograd.grad(output[:, 1:4].square().sum(), [x, output])
        assert (time.name, time.kind, time.call, time.of, time.length) == ("", "GRU", 0, "input", 5)
        assert time.steps == (0, 1, 2, 3, 4)
        assert list(map(float, time.gradients)) == pytest.approx(
            inward.norm(dim=(0, 2)).tolist(), abs=1e-12
        )
        assert list(map(float, time.read)) == pytest.approx(read.norm(dim=(0, 2)).tolist())

    @pytest.mark.parametrize(("steps", "known"), [(3, False), (4, True)])
    def test_cells_are_sequences_from_four_steps_on(self, steps, known):
        torch.manual_seed(0)
        model = nn.RNNCell(2, 3)
        x = torch.randn(steps, 5, 2)

        def compute_loss(m):
            h = torch.zeros(5, 3)
            for step in x:
                h = m(step, h)
            return h.square().sum()

        times = inspect(model, compute_loss).times
        assert bool(times) is known
        if known:
            states, h = [], torch.zeros(5, 3)
            for step in x:
                h = model(step, h)
                states.append(h)
            norms = [float(g.norm()) for g in torch.autograd.grad(h.square().sum(), states)]
            assert list(map(float, times[0].gradients)) == pytest.approx(norms, rel=1e-5)
            assert (times[0].of, times[0].length) == ("state", steps)
