"""Loops over time that are written by hand: their gradients are those of plain autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect

WIDTH = 24


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def draw(steps, at, examples=32):
    """Return sequences whose class stands in one step."""
    y = torch.randint(2, (examples,))
    x = 0.3 * torch.randn(examples, steps, 3)
    x[:, at, 0] = 3.0 * (2.0 * y - 1.0)
    return x, y


class Products(nn.Module):
    """A recurrence of plain matrices; `steps` is what each of them makes of the data."""

    def __init__(self, gain=0.5, *, backwards=False, mean=False):
        super().__init__()
        self.enter = nn.Parameter(torch.randn(3, WIDTH) / 3**0.5)
        self.loop = nn.Parameter(gain * torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        self.head, self.backwards, self.mean = nn.Linear(WIDTH, 2), backwards, mean
        self.steps = []

    def forward(self, x):
        h, states, self.steps = x.new_zeros(len(x), WIDTH), [], []
        order = range(x.shape[1])
        for t in reversed(order) if self.backwards else order:
            self.steps.append(x[:, t] @ self.enter)
            h = torch.tanh(self.steps[-1] + h @ self.loop)
            states.append(h)
        return self.head(torch.stack(states).mean(0) if self.mean else h)


class Joined(nn.Module):
    """A linear layer reads data and state together."""

    def __init__(self, *, data_first=True):
        super().__init__()
        self.cell, self.head = nn.Linear(3 + WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.data_first, self.steps = data_first, []
        with torch.no_grad():
            self.cell.weight.mul_(0.5)

    def forward(self, x):
        h, self.steps = x.new_zeros(len(x), WIDTH), []
        for t in range(x.shape[1]):
            both = (x[:, t], h) if self.data_first else (h, x[:, t])
            self.steps.append(self.cell(torch.cat(both, 1)))
            h = torch.tanh(self.steps[-1])
        return self.head(h)


class Gated(nn.Module):
    """A GRU by hand over slices of what was computed for all steps at once."""

    def __init__(self, bias=0.0, *, unbind=False):
        super().__init__()
        self.enter, self.head = nn.Linear(3, 3 * WIDTH), nn.Linear(WIDTH, 2)
        self.loop = nn.Parameter(torch.randn(WIDTH, 3 * WIDTH) / WIDTH**0.5)
        self.bias, self.unbind, self.steps = bias, unbind, []

    def forward(self, x):
        u, h = self.enter(x), x.new_zeros(len(x), WIDTH)
        self.steps = list(u.unbind(1)) if self.unbind else [u[:, t] for t in range(x.shape[1])]
        for step in self.steps:
            keep, reset, new = step.chunk(3, 1)
            of_keep, of_reset, of_new = (h @ self.loop).chunk(3, 1)
            keep = torch.sigmoid(keep + of_keep + self.bias)
            new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
            h = keep * h + (1 - keep) * new
        return self.head(h)


class Decaying(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.enter, self.head = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.rate = nn.Parameter(torch.full((WIDTH,), start))
        self.steps = []

    def forward(self, x):
        h, keep = x.new_zeros(len(x), WIDTH), self.rate.sigmoid()
        self.steps = list(self.enter(x).unbind(1))
        for step in self.steps:
            h = keep * h + (1 - keep) * step
        return self.head(h)


LOOPS = {
    "products": Products,
    "backwards": lambda: Products(backwards=True),
    "joined": Joined,
    "joined behind": lambda: Joined(data_first=False),
    "slices": Gated,
    "unbound": lambda: Gated(unbind=True),
    "decaying": lambda: Decaying(-1.0),
}
LENGTH = 40


def judge(model, x, y):
    flow = inspect(model, lambda m: F.cross_entropy(m(x), y))
    return flow, diagnose(flow)


@pytest.mark.parametrize("name", LOOPS)
def test_gradients_by_step_are_those_of_autograd(name):
    model = LOOPS[name]().double()
    x, y = draw(12, 0)
    x = x.double()
    flow, _ = judge(model, x, y)
    (time,) = flow.times
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), model.steps)
    assert (time.of, time.length, time.steps) == ("output", 12, tuple(range(12)))
    expected = [float(each.norm()) for each in gradients]
    assert [float(each) for each in time.gradients] == pytest.approx(expected, rel=1e-9)
    assert len(time.chances) == 12


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("late", [False, True])
def test_an_answer_that_is_forgotten_is_vanishing_and_one_at_the_end_is_not(name, late):
    read_last = name != "backwards"
    x, y = draw(LENGTH, LENGTH - 1 if late == read_last else 0)
    flow, diagnosis = judge(LOOPS[name](), x, y)
    (time,) = flow.times
    assert min(time.shares) < 1e-3
    assert (diagnosis.verdict is Verdict.VANISHING) is not late
    if not late:
        finding = diagnosis.findings[0]
        assert finding.rule == "unheard_steps"
        assert "of 40" in finding.evidence
        told = [share for share, chance in zip(time.shares, time.chances, strict=True)
                if chance < 1e-3 / 40]  # fmt: skip
        assert finding.value == pytest.approx(float(max(told)))


SOUND = {
    "open gates": lambda: Gated(3.0),
    "slow decay": lambda: Decaying(4.0),
    "all states are read": lambda: Products(mean=True),
}


@pytest.mark.parametrize("name", SOUND)
def test_loops_that_remember_are_healthy(name):
    flow, diagnosis = judge(SOUND[name](), *draw(LENGTH, 0))
    assert len(flow.times) == 1
    assert diagnosis.verdict is Verdict.HEALTHY


def train(model, kind, rate, at, steps=150):
    optimizer = kind(model.parameters(), rate)
    for _ in range(steps):
        x, y = draw(LENGTH, at)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = draw(LENGTH, at, 256)
    return (model(x).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize(("kind", "rate"), [(torch.optim.SGD, 1.0), (torch.optim.Adam, 1e-2)])
def test_training_agrees(kind, rate):
    assert train(Decaying(-1.0), kind, rate, at=0) < 0.65
    assert train(Decaying(4.0), kind, rate, at=0) > 0.75
    assert train(Decaying(-1.0), kind, rate, at=LENGTH - 1) > 0.9


# --- What is no loop over time -------------------------------------------------------------------


class Settling(nn.Module):
    """Goes on until nothing changes, with the same data at every step."""

    def __init__(self, *, joined):
        super().__init__()
        self.enter, self.loop = nn.Linear(6, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        self.both, self.head, self.joined = nn.Linear(6 + WIDTH, WIDTH), nn.Linear(WIDTH, 2), joined

    def forward(self, x):
        h = x.new_zeros(len(x), WIDTH)
        for _ in range(20):
            h = self.both(torch.cat([x, h], 1)) if self.joined else self.enter(x) + self.loop(h)
            h = torch.tanh(h)
        return self.head(h)


class Stack(nn.Module):
    """Layers whose weights are slices of one parameter."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 2)
        self.weights = nn.Parameter(torch.randn(10, WIDTH, WIDTH) * (2 / WIDTH) ** 0.5)

    def forward(self, x):
        h = self.enter(x)
        for weight in self.weights:
            h = torch.relu(h @ weight)
        return self.head(h)


class Groups(nn.Module):
    """Slices that are read side by side."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(6, 96), nn.Linear(48, 2)
        self.parts = nn.ModuleList(nn.Linear(8, 4) for _ in range(12))

    def forward(self, x):
        h = torch.relu(self.enter(x)).unflatten(1, (12, 8))
        return self.head(torch.cat([part(h[:, at]) for at, part in enumerate(self.parts)], 1))


class Read(nn.Module):
    """A recurrent module of PyTorch, which slices its input inside."""

    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(6, WIDTH, batch_first=True), nn.Linear(WIDTH, 2)

    def forward(self, x):
        return self.head(self.rnn(x.unsqueeze(1).repeat(1, 12, 1))[0][:, -1])


NONE = {
    "settling": lambda: Settling(joined=False),
    "settling, joined": lambda: Settling(joined=True),
    "stack": Stack,
    "groups": Groups,
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_loop_over_time_has_no_times(name):
    x = torch.randn(32, 6)
    flow, diagnosis = judge(NONE[name](), x, (x[:, 0] > 0).long())
    assert not flow.times
    assert diagnosis.verdict is Verdict.HEALTHY


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_modules_that_loop_inside_are_reported_once(kind):
    x = torch.randn(32, 6)
    flow, _ = judge(Read(kind), x, (x[:, 0] > 0).long())
    assert [(time.name, time.of) for time in flow.times] == [("rnn", "input")]


def test_where_it_is_not_known_what_the_loss_needs_it_is_a_note():
    x, y = draw(LENGTH, 0, examples=8)
    _, diagnosis = judge(Decaying(-1.0), x, y)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "fading_time" in {each.name for each in diagnosis.notes}


def test_a_loop_of_a_whole_model_has_a_name_in_words():
    _, diagnosis = judge(Products(), *draw(LENGTH, 0))
    assert "'(model)'" in diagnosis.findings[0].evidence


def test_the_first_state_of_a_loop_is_no_lost_step():
    """At the first step the state is zero, and so is the gradient of what it is multiplied by."""
    model = nn.ModuleDict({"keep": nn.Linear(3, WIDTH), "enter": nn.Linear(3, WIDTH)})
    model["head"] = nn.Linear(WIDTH, 2)
    x, y = draw(12, 0, examples=8)

    def compute(m):
        keep, u = torch.sigmoid(m["keep"](x)), m["enter"](x)
        h = x.new_zeros(len(x), WIDTH)
        for t in range(12):
            h = keep[:, t] * h + u[:, t]
        return F.cross_entropy(m["head"](h), y)

    flow = inspect(model, compute)
    assert {float(time.gradients[0]) for time in flow.times} > {0.0}
    assert "fading_time" not in {each.name for each in diagnose(flow).notes}


# --- Sums over steps -----------------------------------------------------------------------------


def add_up(weigh):
    """The error of each step, in a loop: `loss = loss + weight * error`."""

    def compute(m, x, y):
        loss = 0.0
        for t in range(x.shape[1]):
            loss = loss + weigh(t) * F.mse_loss(m(x[:, t]), y[:, t])
        return loss

    return compute


def discount(m, x, y):
    """The same from behind: `loss = error + 0.9 * loss`."""
    loss = 0.0
    for t in reversed(range(x.shape[1])):
        loss = F.mse_loss(m(x[:, t]), y[:, t]) + 0.9 * loss
    return loss


def pool(m, x, y):
    """Attention over steps, added up step by step."""
    z = m[:2](x)
    weights = (8 * z[..., :1]).softmax(1)
    total = 0.0
    for t in range(x.shape[1]):
        total = total + weights[:, t] * z[:, t]
    return F.mse_loss(m[2](total), y[:, 0])


SUMS = {
    "discounted": add_up(lambda t: 0.9**t),
    "discounted from behind": discount,
    "levels of noise": add_up(lambda t: 10.0 ** (4 - t / 10)),
    "weights that rise": add_up(lambda t: 10.0 ** (t / 8 - 8)),
    "pooling": pool,
}


@pytest.mark.parametrize("name", SUMS)
def test_what_is_added_up_step_by_step_is_no_recurrence(name):
    x = torch.randn(32, 80, 3)
    y = 2 * x[..., :1]
    model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    flow = inspect(model, lambda m: SUMS[name](m, x, y))
    assert flow.times == ()
    diagnosis = diagnose(flow)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "fading_time" not in {each.name for each in diagnosis.notes}


def test_an_answer_in_several_of_the_last_steps_is_no_finding():
    """No single step shows it, and the gradients of the first are lost: that does not matter."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.loop = nn.Linear(1, 48), nn.Linear(48, 48, bias=False)
            self.head = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))

        def forward(self, x):
            u, h = self.enter(x), x.new_zeros(len(x), 48)
            for t in range(x.shape[1]):
                h = torch.tanh(u[:, t] + self.loop(h))
            return self.head(h)

    x = torch.randn(64, 60, 1)
    y, model = x[:, -1] * x[:, -3], Last()
    diagnosis = diagnose(inspect(model, lambda m: F.mse_loss(m(x), y)))
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "fading_time" in {each.name for each in diagnosis.notes}
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * y.var()


class Thinking(nn.Module):
    """A cell that may stop at every step (PonderNet): late steps count less and less."""

    def __init__(self):
        super().__init__()
        self.cell, self.head, self.stop = nn.GRUCell(4, 16), nn.Linear(16, 2), nn.Linear(16, 1)

    def forward(self, x):
        h, left, answers = x.new_zeros(len(x), 16), x.new_ones(len(x)), []
        for _ in range(24):
            h = self.cell(x, h)
            stop = torch.sigmoid(self.stop(h))[:, 0]
            answers.append((self.head(h), left * stop))
            left = left * (1 - stop)
        return answers


def test_steps_that_count_less_and_less_do_not_explode():
    x = torch.randn(32, 4)
    y = (x[:, 0] > 0).long()

    def compute(m):
        errors = [F.cross_entropy(z, y, reduction="none") * share for z, share in m(x)]
        return torch.stack(errors).sum(0).mean()

    flow = inspect(Thinking(), compute)
    (time,) = flow.times
    assert time.gradients[0] > 1e3 * time.gradients[-1]
    assert not [each for each in diagnose(flow).findings if each.rule == "exploding_time"]


def test_a_loop_by_hand_whose_gradient_grows_explodes():
    model = Products()
    nn.init.orthogonal_(model.loop, 4.0)
    x, y = draw(LENGTH, 0)
    rules = {each.rule for each in judge(model, x, y)[1].findings}
    assert "exploding_time" in rules


class Selective(nn.Module):
    """A state-space model: what a step adds and how fast all decays depends on the step."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(3, 16), nn.Linear(16, 2)
        self.pace, self.write, self.read = nn.Linear(16, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.decay = nn.Parameter(torch.arange(1.0, 5.0).log().repeat(16, 1))
        nn.init.constant_(self.pace.bias, -3.0)

    def forward(self, x):
        u = F.silu(self.enter(x))
        pace, write, read = F.softplus(self.pace(u)), self.write(u), self.read(u)
        h, out = 0.0, []
        for t in range(x.shape[1]):
            p = pace[:, t, :, None]
            h = torch.exp(-p * self.decay.exp()) * h + p * write[:, t, None] * u[:, t, :, None]
            out.append((h * read[:, t, None]).sum(-1) + u[:, t])
        return self.head(torch.stack(out, 1))


def test_a_decay_with_a_small_gradient_keeps_nothing_from_learning():
    x = torch.randn(32, 24, 3)
    y = (x[..., 0] > 0).long()
    model = Selective()
    diagnosis = diagnose(inspect(model, lambda m: F.cross_entropy(m(x).transpose(1, 2), y)))
    assert diagnosis.verdict is Verdict.HEALTHY
