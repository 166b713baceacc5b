"""Inputs beside an embedding, inputs that say nothing, and batches of a small world of states."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect
from faults import Tabular, stack


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def judge(model, compute):
    flow = inspect(model, compute)
    return flow, diagnose(flow)


def test_numbers_beside_an_embedding_are_looked_at():
    x, c, y = 5.0 + torch.randn(64, 4), torch.randint(7, (64,)), torch.randn(64)
    flow, _ = judge(Tabular(), lambda m: F.mse_loss(m(x, c), y))
    (entering,) = flow.inputs
    assert (entering.reader, entering.shape, entering.is_part) == ("net.0", (64, 4), True)
    assert float(entering.mean) == pytest.approx(float(x.mean()), rel=1e-6)


@pytest.mark.parametrize(
    "x",
    [torch.full((64, 4), 1e-4), (torch.arange(256) > 0).float().reshape(64, 4)],
    ids=["small", "mask"],
)
def test_small_numbers_and_masks_beside_an_embedding_are_no_fault(x):
    c, y = torch.randint(7, (64,)), torch.randn(64)
    _, diagnosis = judge(Tabular(), lambda m: F.mse_loss(m(x, c), y))
    assert diagnosis.verdict is Verdict.HEALTHY


class Scaling(nn.Module):
    """Scales bytes itself, and owns a parameter."""

    def __init__(self):
        super().__init__()
        self.first, self.shift = nn.Linear(16, 24), nn.Parameter(torch.zeros(24))
        self.last = nn.Linear(24, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x / 127.5 - 1.0) + self.shift))


def test_what_a_model_scales_itself_is_judged_behind_that():
    x, labels = torch.randint(256, (64, 16)).float(), torch.randint(3, (64,))
    flow, diagnosis = judge(Scaling(), lambda m: F.cross_entropy(m(x), labels))
    assert {each.reader for each in flow.inputs} == {"", "first"}
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "large_inputs" not in {note.name for note in diagnosis.notes}


def test_a_state_to_start_from_is_no_constant_input():
    x, labels = torch.randn(16, 5, 3), torch.randint(2, (16,))
    model = nn.ModuleDict({"x": nn.Linear(3, 8), "h": nn.Linear(8, 8), "end": nn.Linear(8, 2)})

    def compute(m):
        h = torch.zeros(16, 8)
        for step in x.unbind(1):
            h = torch.tanh(m["x"](step) + m["h"](h))
        return F.cross_entropy(m["end"](h), labels)

    _, diagnosis = judge(model, compute)
    assert "constant_input" not in {note.name for note in diagnosis.notes}


@pytest.mark.parametrize(
    ("x", "noted"),
    [
        (torch.eye(9)[torch.arange(64) % 9], False),
        (torch.eye(5)[torch.arange(64)[:, None] % torch.tensor([5, 4])].flatten(1), False),
        (torch.eye(9)[torch.full((64,), 3)], True),
        (torch.eye(200)[torch.arange(64) // 2], True),
        ((torch.arange(64 * 30).reshape(64, 30) % 7 < 3).float()[torch.arange(64) // 2], True),
        (torch.randn(64, 9)[torch.arange(64) // 2], True),
    ],
    ids=["states", "places", "one state", "many states", "bits", "numbers"],
)  # fmt: skip
def test_states_of_a_small_world_repeat(x, noted):
    _, diagnosis = judge(stack(x.shape[1], 24, 2), lambda m: m(x).square().mean())
    assert ("repeated_examples" in {note.name for note in diagnosis.notes}) is noted


@pytest.mark.parametrize("by_hand", [False, True])
def test_outputs_far_off_do_not_make_targets_the_same(by_hand):
    x, y = torch.randn(64, 4), torch.randn(64, 1)
    model = stack(4, 24, 1)
    with torch.no_grad():
        model[2].weight.mul_(1e9)
    loss = (lambda out: (out - y).square().mean()) if by_hand else lambda out: F.mse_loss(out, y)
    flow, diagnosis = judge(model, lambda m: loss(m(x)))
    assert "same_targets" not in {note.name for note in diagnosis.notes}
    (part,) = flow.loss_facts.parts
    if by_hand:  # what is left of the output without the target tells nothing of it
        assert part.guessing is None
    else:
        assert float(part.guessing) == pytest.approx(float(y.var(correction=0)), rel=1e-4)
        assert "large_loss" in {each.rule for each in diagnosis.findings}


@pytest.mark.parametrize(
    ("end", "off"),
    [
        (F.hardsigmoid, True),
        (F.relu, True),
        (F.hardtanh, True),
        (F.relu6, True),
        (lambda z: z.clamp(min=0.0), True),
        (lambda z: z.clamp(-1.0, 1.0), True),
        (lambda z: z.clamp_max(-12.0), True),
        (lambda z: z.clamp(max=0.0), False),
        (F.softplus, False),
    ],
)
def test_what_is_at_its_flat_end_is_known_with_its_line(end, off):
    x, y = torch.randn(32, 4), torch.rand(32, 1)
    model = stack(4, 24, 1)
    nn.init.constant_(model[2].bias, -8.0)
    flow, diagnosis = judge(model, lambda m: F.mse_loss(end(m(x)), y))
    found = [slip for slip in flow.slips if slip.kind == "off"]
    assert bool(found) is off
    if off:
        assert found[0].position.startswith("test_joined_inputs.py:")
        assert diagnosis.verdict is Verdict.FLAT_LOSS
        assert f"{found[0].operation} sends nothing back" in diagnosis.findings[0].evidence
