"""How closely the steps of a sequence go with the targets, against random orders of the targets."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect
from chainrule.measure.ties import FEWEST, measure_chances


def draw(seed, examples=32, steps=6, features=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, examples, features, generator=generator)
    y = torch.randn(examples, 2, generator=generator)
    return x, y, generator


def look(x, y):
    return measure_chances(x, y, range(len(x)))


def shuffle(x, y, generator, times=400):
    """Return the share of random orders of the targets with a closer tie, the plain way."""
    x, y = x - x.mean(0), y - y.mean(0)
    mine = (x.T @ y).square().sum()
    others = [
        (x.T @ y[torch.randperm(len(y), generator=generator)]).square().sum() for _ in range(times)
    ]
    return (torch.stack(others) >= mine).float().mean().item()


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.4])
def test_a_chance_is_that_of_random_orders(strength):
    x, y, generator = draw(3)
    y = y + strength * x[2, :, :2]
    # The three ways to look at a step: its values, their squares, their products with before.
    looks = [x[2], x[2].square(), x[2] * x[1]]
    least = min(shuffle(each.double(), y.double(), generator) for each in looks)
    assert look(x, y)[2].item() == pytest.approx(min(1.0, 3 * least), abs=0.1)


def test_what_has_nothing_to_do_with_it_is_seldom_taken_for_a_tie():
    found = [look(*draw(seed)[:2]) for seed in range(40)]
    assert (torch.cat(found) < 0.01).float().mean() < 0.02


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x[3, :, :1],
        lambda x: x[3, :, :1].square(),
        lambda x: x[3, :, :1] * x[2, :, :1],
    ],
    ids=["values", "squares", "pace"],
)
def test_the_step_that_decides_is_found(answer):
    x, _, _ = draw(5, examples=64, features=1)
    chances = look(x, answer(x))
    assert chances.argmin() == 3
    assert chances[3] < 1e-6
    assert chances[0] > 1e-3


def test_a_step_that_is_kept_speaks_for_those_before_it():
    x, y, _ = draw(7, steps=7)
    one_by_one = look(x, y)
    some = measure_chances(x, y, [0, 3, 6])
    expected = [one_by_one[:1], one_by_one[1:4], one_by_one[4:]]
    expected = [min(1.0, len(part) * part.min().item()) for part in expected]
    assert some.tolist() == pytest.approx(expected)


def test_the_only_step_that_differs_is_the_one():
    x, y, _ = draw(2)
    x[1:] = x[1:, :1]
    assert look(x, y).tolist() == [0.0, *[1.0] * 5]


def test_equal_values_and_equal_targets_tell_nothing():
    x, y, _ = draw(1)
    assert look(torch.ones_like(x), y).tolist() == [1.0] * 6
    assert look(x, torch.ones_like(y)).tolist() == [1.0] * 6
    assert look(x[:, : FEWEST - 1], y[: FEWEST - 1]) is None


class Reader(nn.Module):
    def __init__(self, rnn, *, everywhere=False):
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, 4)
        self.everywhere = everywhere

    def forward(self, x):
        time = 1 if self.rnn.batch_first else 0
        out, _ = self.rnn(x)
        return self.head(out if self.everywhere else out.select(time, -1))


class Loop(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 4)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state)


def draw_classes(examples=32, steps=9, at=2, noise=0.3):
    y = torch.randint(4, (examples,))
    x = noise * torch.randn(examples, steps, 5)
    x[:, at, :4] += F.one_hot(y, 4)
    return x, y


def find(time):
    return [at for at, chance in enumerate(time.chances) if chance < 1e-4]


@pytest.mark.parametrize(
    ("build", "turn"),
    [
        (lambda: Reader(nn.GRU(5, 8, batch_first=True)), False),
        (lambda: Reader(nn.LSTM(5, 8)), True),
        (lambda: Loop(nn.RNNCell(5, 8)), False),
    ],
    ids=["batch first", "time first", "cell"],
)
def test_a_measurement_holds_the_steps_that_tell(build, turn):
    x, y = draw_classes()
    x = x.transpose(0, 1) if turn else x
    flow = inspect(build(), lambda m: F.cross_entropy(m(x), y))
    (time,) = flow.times
    assert find(time) == [2]
    assert len(time.chances) == len(time.steps)
    assert decode_flow(flow.to_json()) == flow


def test_the_state_that_is_read():
    x, y = draw_classes(examples=64, noise=0.05)
    model = Reader(nn.RNN(5, 16, batch_first=True))
    with torch.no_grad():
        model.rnn.weight_hh_l0.copy_(torch.eye(16))
    (time,) = inspect(model, lambda m: F.cross_entropy(m(x), y)).times
    assert time.state_chance < 1e-4
    with torch.no_grad():
        model.rnn.weight_hh_l0.zero_()  # only the last step is left
    (time,) = inspect(model, lambda m: F.cross_entropy(m(x), y)).times
    assert time.state_chance > 0.01


def test_nothing_is_said_where_it_cannot_be_known():
    x, y = draw_classes()
    model = Reader(nn.GRU(5, 8, batch_first=True))
    few = inspect(model, lambda m: F.cross_entropy(m(x[:8]), y[:8])).times[0]
    assert (few.chances, few.state_chance) == ((), None)
    every = Reader(nn.GRU(5, 8, batch_first=True), everywhere=True)
    labels = y.unsqueeze(1).expand(-1, 9).flatten()
    each = inspect(every, lambda m: F.cross_entropy(m(x).flatten(0, 1), labels)).times[0]
    assert (each.chances, each.state_chance) == ((), None)
    buffer = torch.zeros(32, 5)

    class Filling(Loop):
        def forward(self, x):
            with torch.no_grad():
                for t in range(x.shape[1]):
                    buffer.copy_(x[:, t])
                    state = self.cell(buffer)
            return self.head(self.cell(x[:, 0], state))

    times = inspect(Filling(nn.RNNCell(5, 8)), lambda m: F.cross_entropy(m(x), y)).times
    assert all(each.chances == () for each in times)
