"""Rules on gradients along time, judged by training."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.time_rules import measure_lost
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


def draw_told(length, at, examples=32):
    """Return sequences whose class, one of three, stands in one step among noise."""
    y = torch.randint(3, (examples,))
    x = 0.5 * torch.randn(examples, length, 5)
    x[:, at, :3] += 2.0 * F.one_hot(y, 3)
    return x, y


def judge_told(model, length, at):
    return judge(model, *draw_told(length, at))


def learn_told(model, length, at, rate=0.3, steps=100):
    """Return how often plain SGD gets it right."""
    update = torch.optim.SGD(model.parameters(), rate)
    for _ in range(steps):
        x, y = draw_told(length, at)
        update.zero_grad()
        F.cross_entropy(model(x), y).backward()
        update.step()
    x, y = draw_told(length, at, 256)
    return (model(x).argmax(1) == y).float().mean().item()


class Three(nn.Module):
    """Reads the last output of a module, or the mean over all."""

    def __init__(self, rnn, width=16, *, mean=False):
        super().__init__()
        self.rnn, self.head, self.mean = rnn, nn.Linear(width, 3), mean

    def forward(self, x):
        outputs = self.rnn(x)[0]
        return self.head(outputs.mean(1) if self.mean else outputs[:, -1])


class TestStepsThatTell:
    @pytest.mark.parametrize(
        "build",
        [
            lambda: Three(nn.RNN(5, 16, batch_first=True)),
            lambda: Three(nn.LSTM(5, 16, batch_first=True)),
            lambda: Three(nn.GRU(5, 16, num_layers=2, batch_first=True)),
            lambda: Three(nn.LSTM(5, 16, batch_first=True, bidirectional=True), 32),
        ],
        ids=["rnn", "lstm", "layers", "both ways"],
    )
    def test_what_tells_is_named_where_the_loss_does_not_hear_it(self, build):
        diagnosis = judge_told(build(), 24, 1)
        assert diagnosis.verdict is Verdict.VANISHING
        (finding,) = [each for each in diagnosis.findings if each.rule == "unheard_steps"]
        assert finding.modules == ("rnn",)
        assert finding.evidence.startswith("step 2 of 24 of 'rnn' tells")
        assert finding.value < RULES["unheard_steps"].threshold

    def test_such_a_network_is_not_trained(self):
        assert learn_told(Three(nn.LSTM(5, 16, batch_first=True)), 24, 1) < 0.5

    @pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
    def test_late_steps_that_tell_are_heard_however_long_it_is(self, kind):
        model = Three(kind(5, 16, batch_first=True))
        diagnosis = judge_told(model, 90, -3)
        assert diagnosis.verdict is Verdict.HEALTHY
        assert measure_lost(inspect_told(model, 90, -3).times[0]) > 0.5

    def test_and_are_learned(self):
        assert learn_told(Three(nn.RNN(5, 16, batch_first=True)), 60, -3) > 0.9

    def test_a_mean_over_all_outputs_hears_the_first_step(self):
        model = Three(nn.GRU(5, 16, batch_first=True), mean=True)
        assert judge_told(model, 50, 0).verdict is Verdict.HEALTHY

    def test_cells_in_a_loop_are_judged_alike(self):
        class Cells(Three):
            def forward(self, x):
                state = None
                for t in range(x.shape[1]):
                    state = self.rnn(x[:, t], state)
                return self.head(state)

        early = judge_told(Cells(nn.GRUCell(5, 16)), 24, 1)
        assert early.findings[0].rule == "unheard_steps"
        assert judge_told(Cells(nn.GRUCell(5, 16)), 24, -2).verdict is Verdict.HEALTHY

    def test_a_recurrence_written_by_hand(self):
        class Elman(Three):
            def __init__(self):
                super().__init__(nn.Linear(5, 16))
                self.back = nn.Linear(16, 16)

            def forward(self, x):
                state = torch.zeros(len(x), 16)
                for t in range(x.shape[1]):
                    state = torch.tanh(self.rnn(x[:, t]) + self.back(state))
                return self.head(state)

        assert "unheard_steps" in {e.rule for e in judge_told(Elman(), 24, 1).findings}
        assert judge_told(Elman(), 24, -2).verdict is Verdict.HEALTHY


def inspect_told(model, length, at):
    x, y = draw_told(length, at)
    return inspect(model, lambda m: F.cross_entropy(m(x), y))


class TestNothingTells:
    @pytest.fixture
    def batch(self):
        """The answer lies in the products of steps far apart."""
        x = torch.randn(32, 30, 5)
        return x, (x[:, 2, 0] * x[:, 20, 1] > 0).long()

    def test_a_module_without_gates_is_hard_to_train(self, batch):
        diagnosis = judge(Three(nn.RNN(5, 16, batch_first=True)), *batch)
        assert diagnosis.verdict is Verdict.HARD_TO_TRAIN
        assert [each.rule for each in diagnosis.findings] == ["untold_steps"]
        assert "30 steps" in diagnosis.findings[0].evidence

    def test_with_gates_it_is_a_note(self, batch):
        diagnosis = judge(Three(nn.GRU(5, 16, batch_first=True)), *batch)
        assert diagnosis.verdict is Verdict.HEALTHY
        assert "untold_steps" in {each.name for each in diagnosis.notes}

    def test_short_sequences_and_small_batches_are_left_alone(self, batch):
        x, y = batch
        model = Three(nn.RNN(5, 16, batch_first=True))
        assert judge(model, x[:, -12:], y).verdict is Verdict.HEALTHY
        assert judge(model, x[:8], y[:8]).verdict is Verdict.HEALTHY

    def test_many_steps_may_show_a_little_each(self):
        y = torch.randint(2, (32,))
        x = torch.randn(32, 30, 2) * (0.5 + y.float()).view(-1, 1, 1)
        diagnosis = judge(Three(nn.RNN(2, 16, batch_first=True)), x, y)
        assert diagnosis.verdict is Verdict.HEALTHY
