"""Rules on gradients along time, judged by training."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect
from faults import Reader, draw_sequences, open_gates


class Loop(nn.Module):
    """The same with a cell that is called step by step."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 2)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0])


def judge(model, x, y):
    def compute_loss(m):
        output = m(x)
        target = y if output.dim() == 2 else y.unsqueeze(1).expand(output.shape[:2])
        return F.cross_entropy(output.flatten(0, -2), target.flatten())

    return diagnose(inspect(model, compute_loss))


def learn(model, length, steps=60, rate=1e-2):
    update = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        x, y = draw_sequences(length)
        update.zero_grad()
        F.cross_entropy(model(x), y).backward()
        update.step()
    x, y = draw_sequences(length, 256)
    return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_what_stands_long_ago_is_lost_and_not_learned(kind):
    length = 80
    model = Reader(kind(2, 16, batch_first=True))
    diagnosis = judge(model, *draw_sequences(length))
    assert diagnosis.verdict is Verdict.VANISHING
    (finding,) = [each for each in diagnosis.findings if each.rule == "vanishing_time"]
    assert finding.modules == ("rnn",)
    assert "steps 1 to" in finding.evidence
    assert "of 80" in finding.evidence
    assert learn(model, length) < 0.65


def test_open_forget_gates_keep_it_and_learn():
    length = 80
    model = Reader(open_gates(nn.LSTM(2, 16, batch_first=True), 16))
    assert judge(model, *draw_sequences(length)).verdict is Verdict.HEALTHY
    assert learn(model, length) > 0.9


def test_a_cell_in_a_loop_is_judged_alike():
    x, y = draw_sequences(80)
    findings = judge(Loop(nn.LSTMCell(2, 16)), x, y).findings
    assert [each.rule for each in findings if each.rule.endswith("time")] == ["vanishing_time"]
    model = Loop(open_gates(nn.LSTMCell(2, 16), 16))
    assert judge(model, x, y).verdict is Verdict.HEALTHY


class TestWhatIsNormal:
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    @pytest.mark.parametrize("length", [5, 20])
    def test_short_sequences(self, kind, length):
        diagnosis = judge(Reader(kind(2, 16, batch_first=True)), *draw_sequences(length))
        assert not [each for each in diagnosis.findings if each.rule.endswith("time")]

    def test_a_sequence_that_loses_less_than_half_is_a_note(self):
        diagnosis = judge(Reader(nn.LSTM(2, 16, batch_first=True)), *draw_sequences(40))
        assert "vanishing_time" not in {each.rule for each in diagnosis.findings}
        assert "fading_time" in {each.name for each in diagnosis.notes}

    def test_a_loss_that_reads_every_step(self):
        diagnosis = judge(
            Reader(nn.LSTM(2, 16, batch_first=True), everywhere=True), *draw_sequences(100)
        )
        assert not [each for each in diagnosis.findings if each.rule.endswith("time")]
        assert "fading_time" not in {each.name for each in diagnosis.notes}

    def test_padding_behind_the_last_step_that_is_read(self):
        class Short(Reader):
            def forward(self, x):
                return self.head(self.rnn(x)[0][:, 9])

        diagnosis = judge(Short(nn.GRU(2, 16, batch_first=True)), *draw_sequences(100))
        assert not [each for each in diagnosis.findings if each.rule.endswith("time")]


def build_rnn(scale):
    rnn = nn.RNN(2, 32, batch_first=True)
    nn.init.orthogonal_(rnn.weight_hh_l0, scale)
    return Reader(rnn)


def test_gradients_that_grow_along_time_explode():
    length = 40
    x, y = draw_sequences(length)
    model = build_rnn(4.0)
    (finding,) = [e for e in judge(model, x, y).findings if e.rule.endswith("time")]
    assert (finding.rule, finding.verdict) == ("exploding_time", Verdict.EXPLODING)
    assert learn(model, length) < 0.65
    model = build_rnn(1.0)
    assert not [e for e in judge(model, x, y).findings if e.rule.endswith("time")]
    assert learn(model, length) > 0.9


class Language(nn.Module):
    """Predicts the next of a few words, which one before it decides."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.rnn = nn.LSTM(16, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, 20)

    def forward(self, words):
        return self.head(self.rnn(self.words(words))[0])


def test_gates_before_an_embedding_are_no_vanishing_gradient():
    start = torch.randint(20, (32, 1))
    words = (start + 3 * torch.arange(24)) % 20
    model = Language()

    def compute_loss(m):
        return F.cross_entropy(m(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())

    assert diagnose(inspect(model, compute_loss)).verdict is Verdict.HEALTHY
    update = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        update.zero_grad()
        compute_loss(model).backward()
        update.step()
    assert compute_loss(model) < 1.0
