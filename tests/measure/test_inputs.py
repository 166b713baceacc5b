"""What enters a model from outside, against the same numbers computed plainly."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect


def measure(model, x):
    flow = inspect(model, lambda m: m(x).square().mean())
    assert decode_flow(flow.to_json()) == flow
    return flow.inputs


def test_the_numbers_are_those_of_the_tensor():
    x = torch.randn(32, 5) * torch.tensor([1.0, 2.0, 4.0, 8.0, 0.0]) + 3.0
    x[:, 4] = 7.0
    x[9] = x[8]
    (entering,) = measure(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)), x)
    wide = x.double()
    assert (entering.reader, entering.shape, entering.dtype) == ("0", (32, 5), "float32")
    assert (entering.examples, entering.columns) == (32, 5)
    assert entering.mean == pytest.approx(wide.mean().item())
    assert entering.std == pytest.approx(wide.std(correction=0).item())
    assert (entering.min, entering.max) == (x.min().item(), x.max().item())
    assert entering.size == pytest.approx(wide.square().mean().sqrt().item())
    spreads, means = wide.std(0, correction=0)[:4], wide.mean(0)[:4]
    assert entering.spread_ratio == pytest.approx((spreads.max() / spreads.min()).item())
    assert entering.offset == pytest.approx((means.norm() / spreads.norm()).item())
    assert (entering.constant_columns, entering.zero_columns) == (1, 0)
    assert entering.repeated == pytest.approx(1 / 32)
    assert entering.non_finite == 0


def test_columns_of_images_are_channels_and_those_of_sequences_features():
    image = torch.randn(4, 3, 8, 8) + torch.tensor([0.0, 10.0, 20.0]).view(3, 1, 1)
    (entering,) = measure(nn.Conv2d(3, 2, 3), image)
    assert (entering.examples, entering.columns) == (4, 3)
    means = image.double().mean((0, 2, 3))
    spreads = image.double().std((0, 2, 3), correction=0)
    assert entering.offset == pytest.approx((means.norm() / spreads.norm()).item())
    (entering,) = measure(nn.Linear(5, 2), torch.randn(4, 9, 5))
    assert (entering.examples, entering.columns) == (4, 5)
    model = nn.Sequential(nn.Conv1d(3, 2, 3), nn.Flatten())
    (entering,) = measure(model, torch.randn(4, 3, 9))
    assert entering.columns == 3


def test_a_sequence_with_time_first_has_its_examples_second():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4)

        def forward(self, x):
            return self.rnn(x)[0]

    (entering,) = measure(Reader(), torch.randn(7, 5, 3))
    assert (entering.examples, entering.columns) == (5, 3)


def test_a_large_tensor_is_sampled_and_its_scale_kept():
    x = torch.rand(600, 3, 40, 40) * 255
    (entering,) = measure(nn.Sequential(nn.Conv2d(3, 1, 40), nn.Flatten()), x)
    assert entering.shape == (600, 3, 40, 40)
    assert entering.examples <= 300
    assert entering.columns == 3
    assert entering.mean == pytest.approx(127.5, rel=0.05)


def test_what_is_not_finite_is_counted_and_left_out_of_the_rest():
    x = torch.ones(4, 2)
    x[0, 0], x[1, 1] = math.nan, math.inf
    (entering,) = measure(nn.Linear(2, 1), x)
    assert entering.non_finite == 0.25
    assert (entering.mean, entering.max) == (1.0, 1.0)
    assert entering.offset is None


class Branches(nn.Module):
    """Two inputs, one of them read twice, an embedding, and a hidden layer."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.again = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(3, 4)
        self.words, self.head = nn.Embedding(9, 4), nn.Linear(4, 1)

    def forward(self, x, z, words):
        h = self.left(x) + self.right(z) + self.again(x) + self.words(words)
        return self.head(torch.relu(h))


class TestWhatCounts:
    def test_each_tensor_from_outside_once(self):
        x, z, words = torch.randn(6, 3), torch.randn(6, 2), torch.randint(9, (6,))
        flow = inspect(Branches(), lambda m: m(x, z, words).square().mean())
        assert [each.reader for each in flow.inputs] == ["left", "right"]

    def test_one_that_requires_a_gradient_counts(self):
        (entering,) = measure(nn.Linear(3, 1), torch.randn(6, 3, requires_grad=True))
        assert entering.shape == (6, 3)

    def test_what_a_frozen_module_made_does_not(self):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        model[0].requires_grad_(False)
        assert [each.reader for each in measure(model, torch.randn(6, 3))] == ["0"]

    def test_a_mask_a_target_and_a_state_do_not(self):
        class Reader(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
                self.rnn, self.loss = nn.GRU(4, 4, batch_first=True), nn.MSELoss()

            def forward(self, x, y):
                mask = torch.full((5, 5), -math.inf).triu(1)
                h, _ = self.attention(x, x, x, attn_mask=mask)
                return self.loss(self.rnn(h, torch.zeros(1, len(x), 4))[0], y)

        x, y = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
        flow = inspect(Reader(), lambda m: m(x, y))
        assert [each.reader for each in flow.inputs] == ["attention"]

    @pytest.mark.parametrize("shape", [(4, 2), (600, 200)])  # the second one is sampled
    def test_values_are_those_that_were_read_even_if_overwritten_later(self, shape):
        x = torch.ones(shape)

        def compute_loss(model):
            loss = model(x).square().mean()
            x.fill_(5.0)
            return loss

        # The first layer is frozen, so that its backward pass does not need what is overwritten.
        model = nn.Sequential(nn.Linear(shape[1], 2).requires_grad_(False), nn.Linear(2, 1))
        entering = inspect(model, compute_loss).inputs[0]
        assert (entering.reader, entering.min, entering.max, entering.mean) == ("0", 1.0, 1.0, 1.0)


def test_all_else_is_measured_as_before():
    model = nn.Sequential(nn.LSTM(3, 4, batch_first=True))
    x = torch.randn(2, 5, 3)
    flow = inspect(model, lambda m: m(x)[0].square().mean())
    assert flow.layers[0].gain is None  # its input required no gradient
    assert not x.requires_grad
    reference = F.mse_loss(model(x)[0], torch.zeros(2, 5, 4))
    assert flow.loss == pytest.approx(reference.item())
