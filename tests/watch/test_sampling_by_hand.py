"""What a sample keeps of gradients and outputs, and where its means lie, worked out by hand."""

import math

import numpy as np
import pytest
import torch

from chainrule.watch.overviews import _Means
from chainrule.watch.sampling import _summarize, _summarize_gradients

CLOSE = {torch.float64: 1e-13}


class TestGradients:
    @pytest.mark.parametrize(
        "dtype",
        [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64],
        ids=str,
    )
    def test_norms_are_as_exact_as_the_numbers(self, dtype):
        drawn = torch.randn(3, 20, 50, dtype=torch.complex64 if dtype.is_complex else torch.float64)
        values = (drawn * torch.tensor([1e-2, 1.0, 30.0]).view(3, 1, 1)).to(dtype)
        exact = values.to(torch.complex128 if dtype.is_complex else torch.float64)
        norms, zeros, _ = _summarize_gradients(values).unbind(1)
        expected = exact.flatten(1).abs().square().sum(1).sqrt()
        assert norms.tolist() == pytest.approx(expected.tolist(), rel=CLOSE.get(dtype, 2e-6))
        assert not zeros.any()

    @pytest.mark.parametrize(
        ("dtype", "size"), [(torch.float16, 6e4), (torch.float32, 1e30), (torch.float32, 1e-30)]
    )
    def test_norms_of_very_large_and_very_small_numbers_stay_finite(self, dtype, size):
        values = torch.full((2, 100), size, dtype=dtype)
        norms = _summarize_gradients(values)[:, 0]
        assert norms.tolist() == pytest.approx([10 * float(values[0, 0])] * 2, rel=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_zeros_are_not_subnormal(self, dtype):
        tiny = torch.finfo(dtype).tiny
        values = torch.tensor([[0.0, 0.0, tiny, 1.0], [0.0, tiny / 2, -tiny / 2, -tiny]])
        _, zeros, small = _summarize_gradients(values.to(dtype)).unbind(1)
        assert zeros.tolist() == [0.5, 0.25]
        assert small.tolist() == [0.0, 0.5]


class TestOutputs:
    def test_mean_and_deviation_are_those_of_all_entries(self):
        values = torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
        found = _summarize(values, "", -1)
        assert found[:, 0].tolist() == [3.0, -1.0]
        assert found[:, 1].tolist() == pytest.approx([math.sqrt(14 / 4), 0.0])
        assert found[:, 2:].tolist() == [[0.0, -1.0, -1.0]] * 2  # nothing saturates or dies

    def test_what_is_not_finite_is_counted(self):
        found = _summarize(torch.tensor([[1.0, math.inf, math.nan, 3.0], [1.0] * 4]), "", -1)
        assert found[:, 2].tolist() == [2.0, 0.0]
        assert math.isnan(found[0, 0])
        assert found[1, :2].tolist() == [1.0, 0.0]

    @pytest.mark.parametrize(
        ("activation", "values", "share"),
        [
            ("tanh", [0.0, 0.9, 0.99, -0.99, 1.0], 0.6),
            ("sigmoid", [0.5, 0.1, 0.995, 0.005, 1.0], 0.6),
            ("relu", [0.0, 1.0, 2.0, 0.0, 1.0], -1.0),
        ],
    )
    def test_saturated_is_what_lies_where_the_slope_is_small(self, activation, values, share):
        found = _summarize(torch.tensor([values]), activation, -1)
        assert found[0, 3].item() == pytest.approx(share)

    @pytest.mark.parametrize(("unit_dim", "dead"), [(-1, 1 / 3), (0, 0.5), (1, 1 / 3)])
    def test_dead_units_are_zero_wherever_they_are_not_counted(self, unit_dim, dead):
        values = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]])  # [1, 2, 3]
        assert _summarize(values, "relu", unit_dim)[0, 4].item() == pytest.approx(dead)


def test_steps_beyond_the_edges_are_in_the_outer_bins():
    means = _Means(1, np.array([0, 10, 20]))
    steps = np.array([-3, 0, 9, 10, 19, 20, 25])
    assert means.find_bins(steps).tolist() == [0, 0, 0, 1, 1, 1, 1]
