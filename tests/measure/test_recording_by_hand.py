"""What a recorder keeps of a forward pass, on tensors written by hand."""

import math

import pytest
import torch

from chainrule.measure.recording import (
    SMALL,
    Output,
    _measure_distance,
    _take_fingerprint,
    find_active,
)
from chainrule.measure.statistics import LARGE, SAMPLE, thin_out


class TestActive:
    @pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 2, 3), (4, 2, 3, 3)])
    def test_are_the_examples_with_an_entry_that_is_not_zero(self, shape):
        gradient = torch.zeros(shape)
        gradient.view(4, -1)[1, -1] = 1e-30
        gradient.view(4, -1)[2, 0] = math.nan
        gradient.view(4, -1)[3, 0] = -0.0
        assert find_active(gradient).tolist() == [False, True, True, False]

    @pytest.mark.parametrize("at", [0, 1, SMALL // 2 + 1, SMALL - 1])
    def test_of_large_ones_every_entry_is_looked_at(self, at):
        gradient = torch.zeros(3, SMALL)
        gradient[0] = 1.0
        gradient[1, at] = 1.0
        assert find_active(gradient).tolist() == [True, True, False]


class TestDistance:
    """Of an output that was seen before and the one that may repeat it."""

    @staticmethod
    def measure(before, after):
        output = Output("", tuple(before.shape), before.dtype, 1, None, values=before)
        output.fingerprint = _take_fingerprint(output)
        return _measure_distance(output, after)

    def test_is_relative_to_the_one_before(self):
        before = torch.tensor([[3.0, 4.0]])
        assert self.measure(before, before.clone()) == 0.0
        assert self.measure(before, torch.tensor([[3.0, 4.5]])) == pytest.approx(0.1)
        assert self.measure(torch.tensor([[3.0, 4.5]]), before) == pytest.approx(
            0.5 / math.hypot(3.0, 4.5)
        )
        assert self.measure(torch.zeros(1, 2), before) == pytest.approx(5.0)

    def test_of_another_shape_is_infinite(self):
        assert self.measure(torch.ones(1, 2), torch.ones(2, 1)) == math.inf

    @pytest.mark.parametrize(
        ("before", "after", "distance"),
        [
            ([math.nan, 1.0], [math.nan, 1.0], 0.0),
            ([math.inf, 1.0], [math.inf, 1.0], 0.0),
            ([math.nan, 1.0], [math.nan, 2.0], math.inf),
            ([math.nan, 1.0], [1.0, 1.0], math.inf),
            ([1.0, 1.0], [math.nan, 1.0], math.inf),
            ([math.inf, 1.0], [-math.inf, 1.0], math.inf),
        ],
    )
    def test_undefined_numbers_repeat_undefined_ones(self, before, after, distance):
        assert self.measure(torch.tensor(before), torch.tensor(after)) == distance


@pytest.mark.parametrize(
    ("size", "thinned"), [(LARGE, False), (LARGE + 1, True), (3 * LARGE, True)]
)
def test_zeros_of_large_tensors_are_counted_in_evenly_spaced_entries(size, thinned):
    flat = torch.arange(size).expand(2, 1, size)
    found = thin_out(flat)
    assert (found.shape[-1] < size) is thinned
    steps = found[0, 0].diff()
    assert bool((steps == steps[0]).all())
    assert found[0, 0, -1] + steps[0] >= size
    assert not thinned or SAMPLE / 2 <= found.shape[-1] <= 2 * SAMPLE  # about so many
