"""Curvature, copies, half precision and sequences of models small enough for paper."""

import math
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from torch import nn

from chainrule.errors import InspectionError, LossError
from chainrule.flow.sharpness import Sharpness
from chainrule.measure.elements import describe_elements, is_finite, name_number, read_plain
from chainrule.measure.inspection import inspect
from chainrule.measure.modules import take_inventory
from chainrule.measure.optimizers import check_optimizer, read_optimizer
from chainrule.measure.precision import _write
from chainrule.measure.sharpness import _find_largest, _list_scales, measure_sharpness
from chainrule.measure.symmetry import _compare as compare_units
from chainrule.measure.symmetry import _group, _list_units
from chainrule.measure.terms import _compare, add_up, assemble_terms, read_terms
from chainrule.measure.time import choose_steps, find_time_dim, measure_steps
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
        found = compare_units(
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

    def test_groups_agree_along_every_direction(self):
        for frequency in (1.0, 2**0.5):  # units that differ, but not along this direction
            one, two = (math.cos(frequency * at * at) for at in (1, 2))
            units = torch.tensor([[0.0, 0.0], [two, -one]], dtype=torch.float64)
            assert len(set(_group(units, 1e-9).tolist())) == 2

    def test_groups_are_as_coarse_as_the_largest_unit_asks(self):
        units = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0 + 1e-8]]).double()
        found = _group(units, 1e-5).tolist()
        assert found[1] == found[2] != found[0]

    def test_of_large_weights_some_entries_are_compared(self):
        assert _list_units(torch.ones(2, 2049), 0).shape == (2, 683)
        assert _list_units(torch.ones(2, 1024), 0).shape == (2, 1024)
        assert _list_units(torch.ones(3, 5000), 1).shape == (4096, 3)

    @pytest.mark.parametrize("name", ["first", "weights"])
    @pytest.mark.parametrize("differ", [False, True])
    def test_units_with_biases_of_their_own_are_no_copies_whatever_the_name(self, name, differ):
        model = nn.Sequential(
            OrderedDict([(name, nn.Linear(3, 4)), ("on", nn.ReLU()), ("head", nn.Linear(4, 2))])
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.25)
            if differ:
                model[0].bias.copy_(torch.tensor([9.0, 8.0, 7.0, 6.0]))  # all of them are on
        x = torch.rand(6, 3)
        found = inspect(model, lambda m: m(x).square().mean()).symmetries
        assert [each.parameter for each in found if each.layer == 1] == (
            [] if differ else [f"{name}.weight"]
        )

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


class TestTime:
    @pytest.mark.parametrize(
        ("length", "count"), [(1, 1), (63, 63), (64, 64), (65, 64), (1000, 64)]
    )
    def test_steps_are_all_or_evenly_spaced_with_both_ends(self, length, count):
        steps = choose_steps(length)
        assert len(steps) == len(set(steps)) == count
        assert (steps[0], steps[-1]) == (0, length - 1)
        gaps = {b - a for a, b in pairwise(steps)}
        assert not gaps or max(gaps) - min(gaps) <= 1

    def test_norms_are_over_all_examples_of_a_step(self):
        gradient_ = torch.randn(4, 5, 3) * 1e-30  # whose squares float32 does not hold
        for dim in (0, 1):
            other = (1 - dim, 2)
            expected = gradient_.double().norm(dim=other).tolist()
            assert measure_steps(gradient_, dim).tolist() == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("module", "shape", "dim"),
        [
            (nn.GRU(2, 3), (5, 4, 2), 0),
            (nn.GRU(2, 3, batch_first=True), (4, 5, 2), 1),
            (nn.GRU(2, 3, batch_first=True), (5, 2), 0),  # without examples
            (nn.Linear(2, 3), (5, 4, 2), 0),
        ],
    )
    def test_lies_where_the_module_says(self, module, shape, dim):
        assert find_time_dim(module, torch.zeros(shape)) == dim


class TestElements:
    def test_first_wrong_elements_with_what_went_in(self):
        output = torch.tensor([[1.0, math.inf], [math.inf, -math.inf]])
        values = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0]), 7.0]
        found = describe_elements(output, values, incoming=[torch.full((2, 2), 9.0)])
        assert [(each.index, float(each.value)) for each in found][:2] == [
            ((0, 1), math.inf),
            ((1, 0), math.inf),
        ]
        assert [list(map(float, each.inputs)) for each in found][:2] == [
            [2.0, 6.0, 7.0],
            [3.0, 5.0, 7.0],
        ]
        assert found[0].gradient == 9.0
        assert len(found) == 3

    def test_undefined_ones_are_shown_first_and_meant_ones_before_all(self):
        output = torch.tensor([math.inf, math.nan, 1.0])
        assert [each.index for each in describe_elements(output, [])] == [(1,)]
        meant = torch.tensor([True, False, False])
        assert [each.index for each in describe_elements(output, [], bad=meant)] == [(0,)]

    def test_where_places_do_not_correspond_the_largest_is_given(self):
        output = torch.tensor([math.nan, 1.0])
        values = [torch.tensor([[1.0, -9.0, 3.0]]), torch.tensor([2.0, -4.0])]
        (each,) = describe_elements(output, values)
        assert list(map(float, each.inputs)) == [-9.0, 2.0]
        (each,) = describe_elements(output, [torch.tensor([[8.0], [3.0]])], mixes=True)
        assert list(map(float, each.inputs)) == [8.0]

    @pytest.mark.parametrize(
        ("values", "finite", "name"),
        [
            ([1.0, -2.0], True, None),
            ([1.0, math.nan, math.inf], False, "nan"),
            ([1.0, math.inf, -math.inf], False, "inf"),
            ([1.0, -math.inf], False, "-inf"),
        ],
    )
    def test_kinds_of_numbers(self, values, finite, name):
        tensor = torch.tensor(values)
        assert is_finite(tensor) is finite
        if name:
            assert name_number(tensor) == name

    def test_plain_numbers_of_any_tensor(self):
        assert read_plain(torch.tensor([3 + 4j])).tolist() == [[3.0, 4.0]]
        assert read_plain(torch.tensor([1, 2])) is None
        assert read_plain(torch.zeros(0)) is None
        assert read_plain(torch.zeros(2, device="meta")) is None


class TestOptimizers:
    def test_rates_are_those_of_each_parameters_group(self):
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        foreign = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD(
            [
                {"params": [model[0].weight, foreign], "lr": 0.5},
                {"params": [model[1].bias], "momentum": 0.75},
            ],
            lr=0.25,
        )
        found = read_optimizer(optimizer, take_inventory(model))
        assert found.rates == (0.5, None, None, 0.25)
        assert (found.name, found.steps, found.momentum, found.foreign) == (
            "SGD",
            "gradient",
            0.75,
            1,
        )
        adam = read_optimizer(torch.optim.AdamW(model.parameters(), 0.1), take_inventory(model))
        assert (adam.steps, adam.momentum, adam.foreign) == ("rescaled", 0.0, 0)
        other = read_optimizer(torch.optim.Adadelta(model.parameters()), take_inventory(model))
        assert other.steps == "other"

    @pytest.mark.parametrize(("rate", "fine"), [(0.0, True), (1e9, True), (-1.0, False)])
    def test_rates_must_be_finite_and_at_least_zero(self, rate, fine):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
        optimizer.param_groups[0]["lr"] = rate
        if fine:
            check_optimizer(optimizer)
        else:
            with pytest.raises(InspectionError, match="learning rates"):
                check_optimizer(optimizer)
        for wrong in (math.inf, math.nan):
            optimizer.param_groups[0]["lr"] = wrong
            with pytest.raises(InspectionError):
                check_optimizer(optimizer)


class TestTerms:
    def test_pull_by_the_cosine_with_the_whole_gradient(self):
        a = torch.tensor([3e30, 4e30])
        norm, cosine = _compare(a, torch.tensor([4e-30, 3e-30])).tolist()
        assert (norm, cosine) == (pytest.approx(5e30), pytest.approx(24 / 25))
        assert _compare(a, -a).tolist()[1] == pytest.approx(-1.0)
        assert math.isnan(_compare(a, None).tolist()[1])
        assert math.isnan(_compare(a, torch.zeros(2)).tolist()[1])

    def test_are_put_together_in_their_order(self):
        terms = [("a", (0, 2)), ("b", ()), ("c", None), ("d", (1,))]
        rows = [[[1.0, 0.5], [2.0, -0.5]], [[3.0, 1.0]]]
        found = list(assemble_terms(terms, [10.0, 20.0, 30.0, 40.0], rows))
        assert [(each.name, float(each.value)) for each in found] == [
            ("a", 10.0),
            ("b", 20.0),
            ("c", 30.0),
            ("d", 40.0),
        ]
        assert found[1].is_detached
        assert found[2].gradients is None
        pulls = [(g.parameter, float(g.norm), float(g.cosine)) for g in found[0].gradients]
        assert pulls == [(0, 1.0, 0.5), (2, 2.0, -0.5)]
        assert found[3].gradients[0].norm == 3.0

    @pytest.mark.parametrize("count", [0, 1, 16, 17])
    def test_are_one_to_sixteen(self, count):
        returned = {f"t{at}": torch.tensor(float(at)) for at in range(count)}
        if 1 <= count <= 16:
            terms = read_terms(returned)
            assert float(add_up(terms)) == sum(range(count))
        else:
            with pytest.raises(LossError, match=str(count)):
                read_terms(returned)


def test_a_parametrized_module_is_of_the_class_it_was():
    plain = nn.Linear(3, 2)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    for model in (plain, normed):
        flow = inspect(model, lambda m: m(torch.ones(4, 3)).sum())
        assert (flow.layers[-1].kind, flow.layers[-1].role) == ("Linear", "weight")
