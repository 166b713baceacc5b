"""A CTC loss of sequences that are too short names both lengths; with enough steps it trains."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.measure.alignments import find_short
from chainrule.measure.non_finite import add_origin

LABELS = torch.tensor([[1, 1, 2], [2, 1, 3], [3, 3, 3], [1, 2, 3]])
NEEDED = [4, 3, 5, 3]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(steps, *, zero=False, form="rows"):
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 5))
    x = torch.randn(steps, 4, 6)
    targets = LABELS if form == "rows" else LABELS.flatten()
    spans = (steps,) * 4, (3,) * 4
    spans = tuple(map(torch.tensor, spans)) if form == "rows" else spans

    def compute(m):
        logs = m(x).log_softmax(-1)
        return F.ctc_loss(logs, targets, *spans, zero_infinity=zero)

    return model, compute


@pytest.mark.parametrize("form", ["rows", "one after another"])
@pytest.mark.parametrize("zero", [False, True])
def test_too_few_steps_are_named_with_both_lengths(zero, form):
    model, compute = build(2, zero=zero, form=form)
    flow = chainrule.inspect(model, compute)
    diagnosis = chainrule.diagnose(flow)
    assert diagnosis.verdict is (Verdict.FLAT_LOSS if zero else Verdict.NON_FINITE)
    finding = next(each for each in diagnosis.findings if each.rule == "short_sequences")
    assert finding.value == 1.0
    for text in (finding.evidence, diagnosis.action):
        assert "example 0 has 2 time steps, and its 3 labels (1 repeated) need 4" in text
    origin = add_origin(flow, model, compute).origin
    if zero:
        assert origin is None
        before = copy.deepcopy(model.state_dict())
        compute(model).backward()
        torch.optim.SGD(model.parameters(), 1.0).step()
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    else:
        assert origin.op == "ctc_loss"
        assert "has 2 time steps, and its 3 labels (1 repeated) need 4" in origin.sentence
        assert "ctc_loss" in chainrule.diagnose(add_origin(flow, model, compute)).action


def test_enough_steps_are_healthy_and_train():
    model, compute = build(8)
    flow = chainrule.inspect(model, compute)
    assert flow.loss_facts.alignment.short == 0.0
    assert chainrule.diagnose(flow).verdict is Verdict.HEALTHY
    before = float(compute(model).detach())
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = compute(model)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2 * before


def test_some_too_short_ones_are_a_note():
    flow = chainrule.inspect(*build(4, zero=True))
    diagnosis = chainrule.diagnose(flow)
    assert diagnosis.verdict is Verdict.HEALTHY
    (note,) = [each for each in diagnosis.notes if each.name == "short_sequences"]
    assert note.value == 0.25
    assert "example 2 has 4 time steps" in note.evidence


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_what_is_called_short_is_what_pytorch_gives_no_probability(steps):
    logs = torch.randn(steps, 4, 5).log_softmax(-1)
    lengths = torch.full((4,), steps), torch.full((4,), 3)
    losses = F.ctc_loss(logs, LABELS, *lengths, reduction="none")
    found = find_short([logs, LABELS, *lengths])
    assert found.short == float(losses.isinf().sum())
    if found.short:
        assert bool(losses[found.example].isinf())
        assert found.labels + found.repeats == NEEDED[found.example]


@pytest.mark.parametrize("args", [[], [None] * 4, [torch.ones(2, 3), torch.ones(2), [1, 2], [1]]])
def test_what_cannot_be_read_says_nothing(args):
    assert find_short(args) is None


def test_the_usual_words_name_what_finds_the_operation():
    model = nn.Linear(2, 1)
    flow = chainrule.inspect(model, lambda m: (0.0 * m(torch.ones(3, 2))).sqrt().sum())
    assert "chainrule.find_non_finite" in chainrule.diagnose(flow).action
