"""Statistics against plain float64 arithmetic, small tensors and large ones."""

import math

import pytest
import torch
from torch import nn

from chainrule.measure import statistics
from chainrule.measure.statistics import (
    BINS,
    LARGE,
    SAMPLE,
    SMALL,
    STACK,
    choose_step,
    count_bins,
    fetch_rows,
    measure_subnormal,
    read_activation,
    read_gradient,
    sample_entries,
    summarize_derivative,
    summarize_distribution,
    summarize_gradients,
    summarize_parameters,
    summarize_sparse_gradient,
    summarize_values,
    summarize_weights,
)
from chainrule.spec.activations import ACTIVATIONS, LEAKY_SLOPE, SATURATION_SHARE


def describe(values):
    """Values of one member, [examples, ...], in float64."""
    values = values.double()
    centre = values.mean(0, keepdim=True)
    within = (values - centre).square().sum().sqrt()
    size = values.square().sum().sqrt()
    return {
        "mean": values.mean(),
        "std": values.std(correction=0),
        "min": values.min(),
        "max": values.max(),
        "zero_share": (values == 0).double().mean(),
        "non_finite": torch.zeros(()),
        "variation": within / size if size else torch.zeros(()),
    }


def draw(*shape, shift=0.3):
    return (torch.randn(*shape) + shift) * (torch.rand(*shape) > 0.2)


SHAPES = {
    "vectors": (5, 6),
    "maps": (4, 3, 5, 5),
    "numbers": (7,),
    "one example": (1, 6),
    "large": (40, 2000),
    "large, one member": (90, 1000),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_values_are_those_of_float64(name, scale):
    members = 1 if name == "large, one member" else 2
    tensors = [draw(members, *SHAPES[name]) * scale for _ in range(3)]
    table = summarize_distribution(tensors)
    for entry, tensor in enumerate(tensors):
        for member, values in enumerate(tensor):
            expected = describe(values)
            if len(SHAPES[name]) == 1 or SHAPES[name][0] == 1:
                expected.pop("variation")
            found = {key: column[entry, member] for key, column in table.items()}
            if SHAPES[name][0] == 1:
                assert "variation" not in found
            for key, value in expected.items():
                if key == "zero_share" and values.numel() > LARGE:
                    assert abs(found[key] - value) < 0.03  # counted in a sample
                elif key != "variation" or key in found:
                    size = float(expected["std"]) if key == "mean" else 0.0
                    assert float(found[key]) == pytest.approx(
                        float(value), rel=2e-5, abs=1e-5 * size
                    ), key


@pytest.mark.parametrize(
    ("entries", "variation"),
    [([[2.0], [2.0]], 0.0), ([[1.0], [-1.0]], 1.0), ([[0.0], [0.0]], 0.0), ([[3.0], [1.0]], 0.2)],
)
def test_variation_is_the_share_of_the_size_that_differs_between_examples(entries, variation):
    (found,) = summarize_distribution([torch.tensor([entries])])["variation"].flatten().tolist()
    assert found == pytest.approx(math.sqrt(variation))


def test_not_finite_entries_are_counted_and_leave_nothing_defined():
    tensor = torch.tensor([[[1.0, torch.inf], [torch.nan, 2.0]], [[1.0, 2.0], [3.0, 4.0]]])
    table = summarize_distribution([tensor])
    assert table["non_finite"].tolist() == [[2.0, 0.0]]
    assert table["mean"].isfinite().tolist() == [[False, True]]
    for function in (summarize_gradients, summarize_parameters):
        assert function([tensor])["non_finite"].tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize("shape", [(5, 6), (2048,), (7,), (90, 1000), (3000, 3)])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_gradients_and_parameters_are_those_of_float64(shape, scale):
    tensors = [draw(2, *shape) * scale for _ in range(2)]
    gradients, parameters = summarize_gradients(tensors), summarize_parameters(tensors)
    for entry, tensor in enumerate(tensors):
        for member, values in enumerate(tensor.double()):
            at = entry, member
            norm = float(values.norm())
            assert float(gradients["norm"][at]) == pytest.approx(norm, rel=1e-6)
            assert float(parameters["norm"][at]) == pytest.approx(norm, rel=1e-6)
            assert float(gradients["max_abs"][at]) == pytest.approx(float(values.abs().max()))
            share = float((values == 0).double().mean())
            loose = 0.03 if values.numel() > LARGE else 1e-6
            assert float(gradients["zero_share"][at]) == pytest.approx(share, abs=loose)


def test_of_nothing_the_norm_is_zero_and_all_is_zero():
    table = summarize_gradients([torch.zeros(1, 0, 4)])
    assert {name: column.tolist() for name, column in table.items()} == {
        "norm": [[0.0]],
        "max_abs": [[0.0]],
        "non_finite": [[0.0]],
        "zero_share": [[1.0]],
    }


def test_one_member_of_immoderate_size_leaves_the_others_as_they_are():
    ordinary, huge = draw(4, 5), draw(4, 5) * 1e30
    both = summarize_distribution([torch.stack([ordinary, huge])])
    alone = summarize_distribution([ordinary.unsqueeze(0)])
    for name, column in both.items():
        assert column[0, 0] == alone[name][0, 0], name
    assert float(both["std"][0, 1]) == pytest.approx(float(huge.double().std(correction=0)))


def test_large_members_keep_their_digits_whichever_of_them_lies_far_from_zero():
    near, far = torch.randn(40, 2000), 1e3 + 0.1 * torch.randn(40, 2000)
    for members in ((near, far), (far, near)):
        found = summarize_distribution([torch.stack(members)])
        for at, member in enumerate(members):
            expected = describe(member)
            assert float(found["std"][0, at]) == pytest.approx(float(expected["std"]), rel=1e-3)


def test_many_small_tensors_are_summarized_as_each_alone(monkeypatch):
    monkeypatch.setattr(statistics, "STACK", 25)
    tensors = [draw(1, 4, 3) for _ in range(7)]  # two in a stack, and one is left
    table = summarize_distribution(tensors)
    for entry, tensor in enumerate(tensors):
        alone = summarize_distribution([tensor])
        assert all(column[entry] == alone[name][0] for name, column in table.items())


def test_complex_and_half_tensors_are_taken_as_magnitudes_and_float32():
    tensor = torch.tensor([[[3 + 4j, 0j]]])
    assert summarize_gradients([tensor])["norm"].tolist() == [[5.0]]
    half = torch.full((1, 4, 64), 250.0, dtype=torch.float16)
    table = summarize_gradients([half])
    assert table["norm"].tolist() == [[250.0 * 16]]  # whose square has no place in float16
    assert table["subnormal_share"].tolist() == [[0.0]]
    assert "subnormal_share" not in summarize_gradients([half.float()])


def test_subnormal_entries_are_below_the_smallest_normal_number_and_not_zero():
    tensor = torch.tensor([[0.0, 1e-3, -1e-3, 1e-2, 2e-2, -5.0, 0.0, 0.0]])
    assert measure_subnormal([tensor, tensor * 10], 1e-2).tolist() == [[0.25], [0.0]]
    assert measure_subnormal([torch.zeros(1, 0)], 1e-2).tolist() == [[0.0]]
    large = torch.full((1, LARGE + 1), 1.0)
    large[:, ::4] = 1e-3
    assert measure_subnormal([large], 1e-2).item() == pytest.approx(0.25, abs=0.01)


def test_sparse_gradient_is_that_of_its_dense_form():
    indices = torch.tensor([[0, 2, 0]])
    values = torch.tensor([[1.0, 0.0], [2.0, 2.0], [3.0, 0.0]])
    sparse = torch.sparse_coo_tensor(indices, values, check_invariants=True)
    dense = summarize_gradients([sparse.to_dense().unsqueeze(0)])
    found = summarize_sparse_gradient(sparse)
    assert {name: float(column) for name, column in found.items()} == pytest.approx(
        {name: float(column) for name, column in dense.items()}
    )


@pytest.mark.parametrize("entries", [1, 12, 5000, 4096 * 3, 2**16, 70_000])
def test_steps_share_no_factor_and_leave_about_as_many_as_wanted(entries):
    for wanted in (1, 64, 4096):
        step = choose_step(entries, wanted)
        assert math.gcd(step, entries) == 1 or step == 1
        assert step >= entries / wanted
        least = max(1, math.ceil(entries / wanted))
        assert all(math.gcd(each, entries) > 1 for each in range(max(least, 2), step))


def test_sample_is_evenly_spaced():
    tensors = [torch.arange(10.0).reshape(1, 2, 5), -torch.arange(10.0).reshape(1, 2, 5)]
    assert sample_entries(tensors, 3).tolist() == [[0.0, 3.0, 6.0, 9.0], [0.0, -3.0, -6.0, -9.0]]
    assert sample_entries(tensors).shape == (2, 10)
    assert sample_entries([torch.arange(20_000.0).reshape(1, -1)]).shape[1] <= 4096


class TestBins:
    @staticmethod
    def count(values, low=None, high=None):
        samples = torch.tensor([values])
        finite = samples[samples.isfinite()]
        low = float(finite.min()) if low is None else low
        high = float(finite.max()) if high is None else high
        return count_bins(samples, torch.tensor([[low]]), torch.tensor([[high]]))

    def test_every_entry_is_in_the_bin_that_holds_it(self):
        values = torch.linspace(-3, 5, 401)
        table = self.count(values.tolist())
        expected = torch.histc(values, BINS, -3, 5)
        assert table["counts"].sum() == 401
        assert (table["counts"][0] - expected).abs().max() <= 1  # of those on an edge
        assert (table["bin_low"].item(), table["bin_high"].item()) == (-3.0, 5.0)

    def test_lowest_and_highest_are_in_the_first_and_the_last(self):
        counts = self.count([0.0, 10.0])["counts"][0].tolist()
        assert counts == [1, *[0] * (BINS - 2), 1]

    def test_of_one_value_are_one_bin(self):
        assert self.count([2.0, 2.0, 2.0])["counts"][0].tolist() == [3, *[0] * (BINS - 1)]

    def test_leave_out_what_is_not_finite_and_take_the_range_of_the_rest(self):
        table = self.count([0.0, math.inf, 4.0, math.nan, -math.inf], math.nan, math.nan)
        assert table["counts"][0].tolist() == [1, *[0] * (BINS - 2), 1]
        assert (table["bin_low"].item(), table["bin_high"].item()) == (0.0, 4.0)

    def test_reach_up_to_the_largest_float(self):
        table = self.count([-3e38, 1e37, 3e38])
        counts = table["counts"][0]
        assert (counts[0], counts[BINS // 2], counts[-1], counts.sum()) == (1, 1, 1, 3)
        assert table["bin_high"].item() == pytest.approx(3e38)

    def test_range_is_shared_by_all_members(self):
        low, high = torch.tensor([[-1.0, -5.0]]), torch.tensor([[7.0, 2.0]])
        table = count_bins(torch.tensor([[0.0, 1.0]]), low, high)
        assert (table["bin_low"].item(), table["bin_high"].item()) == (-5.0, 7.0)


MODULES = {
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "gelu": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "identity": nn.Identity(),
}


class TestDerivative:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    @pytest.mark.parametrize("standard", [True, False])
    def test_saturation_is_the_share_of_slopes_that_are_small(self, name, standard):
        usual = type(MODULES[name])()
        module = usual if standard else MODULES[name]
        activation = ACTIVATIONS[name]
        z = torch.linspace(-8, 8, 60).reshape(1, 10, 6).requires_grad_()
        (slopes,) = torch.autograd.grad(module(z).sum(), z)
        table = summarize_derivative([z.detach()], activation, module, -1)
        share = (slopes.abs() < SATURATION_SHARE * activation.derivative_max).float().mean()
        if standard:
            assert table["saturation"].item() == pytest.approx(share.item(), abs=1e-6)
        elif activation.module_defaults:
            assert "saturation" not in table
        assert table["dead_units"].item() == (slopes == 0).all(1).sum().item()

    def test_of_anything_without_a_slope_the_standard_one_is_meant(self):
        z = torch.tensor([[[-1.0], [1.0]]])
        table = summarize_derivative([z], ACTIVATIONS["leaky_relu"], object(), -1)
        assert table["dead_units"].item() == 0
        assert LEAKY_SLOPE == 0.01

    @pytest.mark.parametrize(
        ("shape", "unit_dim", "dead"),
        [((1, 4, 3), -1, 1), ((1, 4, 3, 5), 1, 1), ((1, 4, 5, 3), -1, 1), ((1, 3), -1, 1)],
    )
    def test_a_unit_is_dead_if_it_is_off_in_every_example_and_place(self, shape, unit_dim, dead):
        z = torch.ones(shape)
        if len(shape) == 2:
            z[0, 1] = -1.0
        elif unit_dim == 1:
            z[0, :, 1] = -1.0
            z[0, :, 2, 1:] = -1.0
        else:
            z[0, ..., 1] = -1.0
            z[0, 1:, ..., 2] = -1.0
        table = summarize_derivative([z], ACTIVATIONS["relu"], nn.ReLU(), unit_dim)
        assert table["dead_units"].item() == dead

    def test_of_large_maps_every_place_is_looked_at(self):
        z = -torch.ones(1, 4, 300, 10, 10)
        z[0, 2, 7, 3, 4] = 1.0  # one place of one example
        table = summarize_derivative([z], ACTIVATIONS["relu"], nn.ReLU(), 1)
        assert table["dead_units"].item() == 299
        assert table["saturation"].item() == pytest.approx(1 - 1 / z.numel(), abs=1e-7)

    def test_of_large_tensors_rows_are_sampled_and_no_living_unit_is_called_dead(self):
        z = -torch.ones(1, 2000, 100)
        z[0, :, 0] = 1.0
        z[0, 1234, 1] = 1.0  # on in one row alone
        table = summarize_derivative([z], ACTIVATIONS["relu"], nn.ReLU(), -1)
        assert table["dead_units"].item() == 98
        assert table["saturation"].item() == pytest.approx(0.99, abs=1e-3)


class TestWeights:
    def test_first_entries_are_those_of_evenly_spaced_units(self):
        weights = torch.arange(20.0 * 3).reshape(1, 20, 3)
        assert summarize_weights([weights])["first"].tolist() == [
            [[3.0 * unit for unit in range(0, 16, 2)]]
        ]
        few = torch.arange(12.0).reshape(1, 3, 4)
        assert summarize_weights([few])["first"].tolist() == [[[0.0, 4.0, 8.0]]]
        assert "first" not in summarize_weights([torch.ones(1, 5)])
        assert "first" not in summarize_weights([torch.ones(1, 0, 4)])


class TestRows:
    def test_come_back_as_they_are(self, monkeypatch):
        tables = [
            {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3, 4], dtype=torch.int64)},
            {"a": torch.tensor([[5.0], [6.0]], dtype=torch.float64)},
        ]
        expected = [{"a": [[1.0, 2.0]], "b": [3, 4]}, {"a": [[5.0], [6.0]]}]
        assert fetch_rows(tables) == expected
        monkeypatch.setattr(statistics, "is_cheap_to_read", lambda device: False)
        assert fetch_rows(tables) == expected

    def test_make_records(self):
        row = {
            **{"mean": [1.0], "std": [2.0], "min": [3.0], "max": [4.0], "zero_share": [0.5]},
            **{"non_finite": [0.0], "variation": [0.25], "dead_units": [1.0]},
            **{"bin_low": 3.0, "bin_high": 4.0, "counts": [1.0, 2.0]},
        }
        found = read_activation(row, 7)
        assert (found.mean, found.std, found.min, found.max) == (1.0, 2.0, 3.0, 4.0)
        assert (found.zero_share, found.variation, found.saturation) == (0.5, 0.25, None)
        assert (found.dead_units, found.units) == (1.0, 7)
        assert (found.histogram.low, found.histogram.high) == (3.0, 4.0)
        assert (found.histogram.counts, found.histogram.sampled) == ((1, 2), 3)
        assert read_activation(row | {"counts": [0, 0]}, 7).histogram is None
        values = {"norm": [1.0], "max_abs": [2.0], "zero_share": [0.5], "non_finite": [3.0]}
        gradient = read_gradient(values)
        assert (gradient.norm, gradient.max_abs) == (1.0, 2.0)
        assert (gradient.zero_share, gradient.non_finite) == (0.5, 3.0)


def test_limits_of_size():
    assert (SMALL, STACK, LARGE, SAMPLE) == (2**14, 2**22, 2**16, 2**14)


def test_values_hold_their_histogram():
    table = summarize_values([draw(2, 5, 3)])
    assert table["counts"].sum().item() == 30
    assert table["bin_low"].item() == table["min"].min().item()
    assert table["bin_high"].item() == table["max"].max().item()
