"""Gradients along time, against plain autograd."""

import pytest
import torch
from torch import nn

from chainrule.flow.loading import decode_flow
from chainrule.flow.time import MAX_STEPS
from chainrule.measure.inspection import inspect


class Reader(nn.Module):
    def __init__(self, rnn, width, *, last=True, first=False):
        super().__init__()
        self.rnn, self.head, self.last, self.first = rnn, nn.Linear(width, 2), last, first
        self.embedding = nn.Embedding(7, rnn.input_size) if first else nn.Identity()

    def forward(self, x):
        outputs, _ = self.rnn(self.embedding(x))
        time = 1 if self.rnn.batch_first else 0
        return self.head(outputs.select(time, -1) if self.last else outputs)


RNNS = {
    "lstm": lambda: nn.LSTM(3, 5, batch_first=True),
    "time first": lambda: nn.GRU(3, 5),
    "layers": lambda: nn.RNN(3, 5, num_layers=2, batch_first=True),
    "both ways": lambda: nn.LSTM(3, 5, batch_first=True, bidirectional=True),
}


@pytest.mark.parametrize("name", RNNS)
@pytest.mark.parametrize("last", [True, False])
def test_a_sequence_has_the_gradients_of_its_input_steps(name, last):
    rnn = RNNS[name]()
    width = rnn.hidden_size * (2 if rnn.bidirectional else 1)
    model = Reader(rnn, width, last=last)
    x = torch.randn(4, 9, 3) if rnn.batch_first else torch.randn(9, 4, 3)
    flow = inspect(model, lambda m: m(x).square().mean())
    assert decode_flow(flow.to_json()) == flow
    (time,) = flow.times
    asked = x.clone().requires_grad_()
    kept = []
    handle = model.rnn.register_forward_hook(lambda m, args, out: kept.append(out[0]))
    outputs = model(asked)
    handle.remove()
    inward, outward = torch.autograd.grad(outputs.square().mean(), [asked, kept[0]])
    others = (0, 2) if rnn.batch_first else (1, 2)
    assert (time.name, time.of, time.length) == ("rnn", "input", 9)
    assert time.steps == tuple(range(9))
    assert list(time.gradients) == pytest.approx(inward.norm(dim=others).tolist(), rel=1e-4)
    assert list(time.read) == pytest.approx(outward.norm(dim=others).tolist(), rel=1e-4)


def test_an_embedding_before_it_and_a_large_sequence_change_nothing():
    model = Reader(nn.GRU(64, 8, batch_first=True), 8, first=True)
    words = torch.randint(7, (16, 80))  # 81,920 entries after the embedding
    flow = inspect(model, lambda m: m(words).square().mean())
    embedded = model.embedding(words).detach().requires_grad_()
    loss = model.head(model.rnn(embedded)[0][:, -1]).square().mean()
    (gradient,) = torch.autograd.grad(loss, embedded)
    (time,) = flow.times
    norms = gradient.double().norm(dim=(0, 2))
    assert time.length == 80
    assert len(time.steps) == MAX_STEPS
    assert (time.steps[0], time.steps[-1]) == (0, 79)
    assert list(time.gradients) == pytest.approx(norms[list(time.steps)].tolist(), rel=1e-3)


class Loop(nn.Module):
    """Calls a cell once per step, or modules of its own."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(5, 2)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_has_the_gradients_of_its_state(kind):
    model, x = Loop(kind(3, 5)), torch.randn(4, 6, 3)
    flow = inspect(model, lambda m: m(x).square().mean())
    (time,) = flow.times
    states = []
    handle = model.cell.register_forward_hook(lambda m, args, out: states.append(out))
    loss = model(x).square().mean()
    handle.remove()
    want = []
    for state in states:
        tensors = state if isinstance(state, tuple) else (state,)
        found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
        want.append(sum(g.square().sum() for g in found if g is not None).sqrt().item())
    assert (time.name, time.of, time.length) == ("cell", "state", 6)
    assert list(time.gradients) == pytest.approx(want, rel=1e-4)


class Own(nn.Module):
    """A recurrence of two linear modules, or one that reads the same at every step."""

    def __init__(self, *, same):
        super().__init__()
        self.read, self.keep, self.same = nn.Linear(3, 5), nn.Linear(5, 5), same

    def forward(self, x):
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(self.read(x[:, 0 if self.same else t]) + self.keep(h))
        return h


def test_modules_of_ones_own_are_followed_where_they_read_a_sequence():
    x = torch.randn(4, 6, 3)
    flow = inspect(Own(same=False), lambda m: m(x).square().mean())
    assert [(each.name, each.of) for each in flow.times] == [("read", "output")]
    norms = [call.gradient.norm for call in flow.layers if call.name == "read"]
    assert list(flow.times[0].gradients) == norms
    assert inspect(Own(same=True), lambda m: m(x).square().mean()).times == ()


class TestWhatIsLeftAlone:
    def test_a_packed_sequence(self):
        packed = nn.utils.rnn.pack_padded_sequence(
            torch.randn(2, 5, 3), torch.tensor([5, 3]), batch_first=True
        )
        model = nn.Sequential(nn.GRU(3, 4, batch_first=True))
        flow = inspect(model, lambda m: m(packed)[0].data.square().mean())
        assert flow.times == ()

    def test_a_frozen_module(self):
        model = Reader(nn.GRU(3, 4, batch_first=True), 4)
        model.rnn.requires_grad_(False)
        x = torch.randn(2, 5, 3)
        assert inspect(model, lambda m: m(x).square().mean()).times == ()

    def test_where_gradients_are_off(self):
        model = Reader(nn.GRU(3, 4, batch_first=True), 4)
        x = torch.randn(2, 5, 3)

        def compute_loss(m):
            with torch.no_grad():
                h = m.rnn(x)[0][:, -1]
            return m.head(h).square().mean()

        assert inspect(model, compute_loss).times == ()
