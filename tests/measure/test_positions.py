"""Which places of a sequence the loss hears, at the first tensor that has some."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import Verdict, diagnose, inspect


class Scan(nn.Module):
    """A sum over all places that forgets with a rate for each feature; no loop, and no module."""

    def __init__(self, rate):
        super().__init__()
        self.read = nn.Linear(4, 24)
        self.rate = nn.Parameter(torch.full((24,), rate))
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        seen = torch.tanh(self.read(x))
        weights = self.rate ** torch.arange(x.shape[1] - 1, -1, -1).unsqueeze(1)
        return self.head((seen * weights).sum(1))


class Window(nn.Module):
    """Convolutions of which the last place or the mean is read."""

    def __init__(self, *, last):
        super().__init__()
        self.first = nn.Conv1d(8, 16, 3, padding=1)
        self.second = nn.Conv1d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)
        self.last = last

    def forward(self, x):
        seen = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(seen[:, :, -1] if self.last else seen.mean(2))


class LastQuery(nn.Module):
    """Linear attention over all places, of which the last one asks."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 16) for _ in range(3))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        weights = self.query(x) @ self.key(x).mT
        return self.head((weights @ self.value(x))[:, -1])


class Points(nn.Module):
    """A set, pooled by its maximum."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(3, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(torch.relu(self.each(x)).amax(1))


def measure(model, *shape, told=None):
    """Return a flow; the class is told at one place, if any."""
    torch.manual_seed(0)
    x, labels = 0.3 * torch.randn(32, *shape), torch.randint(3, (32,))
    if told is not None:
        x[:, told, :3] += 3 * F.one_hot(labels, 3)
    return inspect(model, lambda m: F.cross_entropy(m(x), labels))


@pytest.mark.parametrize("length", [40, 100])
def test_a_scan_that_forgets_is_recorded_place_by_place(length):
    flow = measure(Scan(0.1), length, 4, told=2)
    (time,) = flow.times
    assert (time.of, time.name, time.length) == ("position", "read", length)
    shares = [float(share) for share in time.shares]
    assert max(shares[: len(shares) // 2]) < 1e-6
    assert shares[-1] == 1.0
    diagnosis = diagnose(flow)
    assert diagnosis.verdict is Verdict.VANISHING
    assert diagnosis.findings[0].rule == "unheard_steps"
    assert f"of {length} of 'read'" in diagnosis.summary
    assert diagnosis.summary.startswith("Position")
    assert "mask" in diagnosis.action


def test_where_no_place_tells_of_the_targets_it_is_a_note():
    diagnosis = diagnose(measure(Scan(0.1), 40, 4))
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "unheard_positions" in {note.name for note in diagnosis.notes}


def test_places_of_a_convolution_stand_in_the_last_dimension():
    (time,) = measure(Window(last=True), 8, 40).times
    assert (time.name, time.length) == ("first", 40)
    assert [float(norm) > 0.0 for norm in time.gradients] == [False] * 38 + [True] * 2


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Scan(0.97), (40, 4)),
        (Window(last=False), (8, 40)),
        (Points(), (256, 3)),
        (LastQuery(), (40, 4)),
    ],
)
def test_nothing_is_kept_where_every_part_is_heard(model, shape):
    assert measure(model, *shape).times == ()
