"""`try_training`: what came of it, what it cost, and that it leaves no trace."""

import copy
import itertools
import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule._utils.numbers import format_number
from chainrule.display.export import to_result_json
from chainrule.errors import InspectionError, LossError
from chainrule.flow.optimizer import SUITED_EPSILON
from chainrule.flow.trial import RateTrial, Trial, TrialOutcome
from chainrule.training.judging import judge_term
from chainrule.training.trial import FURTHER, RATES, confirm_training, judge, try_training
from traces import unchanged

WEIGHTS = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def draw(scale=1.0, shift=0.0, size=64):
    """A loss that draws a batch of ten classes at every call."""

    def compute_loss(model):
        x = torch.randn(size, 20)
        return F.cross_entropy(model(scale * x + shift), (x @ WEIGHTS).argmax(1))

    return compute_loss


def dense(depth=2, activation=nn.ReLU, width=32, init=None):
    layers = [nn.Linear(20, width), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), activation()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for module in model.modules():
        if init and isinstance(module, nn.Linear):
            init(module.weight)
            nn.init.zeros_(module.bias)
    return model


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def recall(steps, place):
    """A class that some time step of a sequence shows."""

    def compute_loss(model):
        x = torch.randn(32, steps, 4)
        return F.cross_entropy(model(x), x[:, place].argmax(1))

    return compute_loss


def regress(model):
    x = torch.randn(64, 20)
    return F.mse_loss(model(x), torch.tanh(x @ WEIGHTS / 4))


def train(build, compute_loss, kind, rates, steps=400):
    """Return the lowest mean loss of the last 20 steps over rates: the truth."""
    best = math.inf
    for rate in rates:
        torch.manual_seed(5)
        model = build()
        optimizer = kind(model.parameters(), lr=rate)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = compute_loss(model)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
        if len(losses) == steps:
            best = min(best, sum(losses[-20:]) / 20)
    return best


def zero(weight):
    nn.init.zeros_(weight)


def kaiming(weight):
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def small(weight):
    nn.init.normal_(weight, std=0.02)


CASES = {
    "dense": (dense, draw(), math.log(10), True),
    "deep, He": (lambda: dense(6, init=kaiming), draw(), math.log(10), True),
    "residual": (lambda: nn.Sequential(dense(3), nn.Unflatten(1, (1, 10)), nn.Flatten()), draw(),
                 math.log(10), True),
    "tanh, Xavier": (lambda: dense(6, nn.Tanh, init=nn.init.xavier_normal_), draw(), math.log(10),
                     True),
    "regression": (lambda: dense(3, init=kaiming), regress, 0.412, True),
    "last step": (Recurrent, recall(6, -1), math.log(4), True),
    "all zero": (lambda: dense(4, init=zero), draw(), math.log(10), False),
    "sigmoids": (lambda: dense(12, nn.Sigmoid), draw(), math.log(10), False),
    "inputs far off": (lambda: dense(4, nn.Tanh), draw(shift=300.0), math.log(10), False),
    "inputs × 300": (lambda: dense(4, init=kaiming), draw(scale=300.0), math.log(10), False),
    "first step of 40": (Recurrent, recall(40, 0), math.log(4), False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_a_longer_training_shows(name):
    build, compute_loss, guessing, trains = CASES[name]
    best = min(
        train(build, compute_loss, torch.optim.SGD, (1.0, 0.1) if trains else (0.1,), 150),
        train(build, compute_loss, torch.optim.Adam, (0.01,), 150),
    )
    assert (best < 0.8 * guessing) == trains

    trial = try_training(build(), compute_loss, seconds=None)

    assert trial.fresh
    assert trial.trains == trains
    assert trial.fails != trains
    assert trial.guessing == pytest.approx(guessing, rel=0.1)


class TimeFirst(nn.Module):
    """PyTorch's default order: of the input the second size counts the examples."""

    def __init__(self, read):
        super().__init__()
        self.rnn, self.head, self.read = nn.GRU(4, 16), nn.Linear(16, 4), read

    def forward(self, x):
        out, last = self.rnn(x)
        return self.head(last[0] if self.read == "state" else out[-1])


@pytest.mark.parametrize("read", ["output", "state"])
@pytest.mark.parametrize("taught", [True, False])
def test_guessing_is_known_where_time_comes_first(read, taught):
    def compute_loss(model):
        x = torch.randn(6, 32, 4)
        label = x[-1].argmax(-1) if taught else torch.randint(4, (32,))
        return F.cross_entropy(3 * model(x), label)

    trial = try_training(TimeFirst(read), compute_loss, seconds=None)

    assert trial.guessing == pytest.approx(math.log(4), rel=0.1)
    assert trial.trains == taught


def test_the_scale_of_the_loss_does_not_matter():
    model, plain = dense(), draw()
    one = try_training(model, plain, torch.optim.SGD(model.parameters(), 0.1), passes=60)
    other = try_training(
        model, lambda m: 1e4 * plain(m), torch.optim.SGD(model.parameters(), 1e-5), passes=60
    )
    assert one.best.best.learned == pytest.approx(other.best.best.learned, abs=1e-3)


@pytest.mark.parametrize("passes", [40, 60, 120, 300])
@pytest.mark.parametrize("kind", [None, torch.optim.SGD, torch.optim.LBFGS])
def test_passes_are_counted_and_bounded(passes, kind):
    calls = {"forward": 0, "backward": 0}
    plain = draw()

    def compute_loss(model):
        loss = plain(model)
        calls["forward"] += 1
        loss.register_hook(lambda _: calls.update(backward=calls["backward"] + 1))
        return loss

    trial = try_training(dense(6, nn.Sigmoid), compute_loss, kind, passes=passes, seconds=None)

    assert trial.limit == passes
    assert trial.passes <= passes
    # The level of guessing calls the loss without the model, and its own backward passes.
    assert calls["forward"] >= trial.passes - 3
    steps = sum(rate.steps for each in trial.optimizers for rate in each.rates)
    assert steps <= trial.passes


@pytest.mark.parametrize("raises", [False, True])
def test_it_leaves_no_trace(raises):
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 10))
    plain = draw()
    plain(model).backward()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    optimizer.step()
    state = {key: {k: v.clone() for k, v in value.items()} for key, value in
             optimizer.state_dict()["state"].items()}  # fmt: skip
    calls = itertools.count()

    def compute_loss(m):
        if raises and next(calls) > 20:
            raise ValueError("lost")
        return plain(m)

    with unchanged(model):
        if raises:
            with pytest.raises(InspectionError, match="ValueError: lost"):
                try_training(model, compute_loss, optimizer, passes=60)
        else:
            try_training(model, compute_loss, optimizer, passes=60)
            try_training(model, compute_loss, passes=60)
    after = optimizer.state_dict()["state"]
    for key, values in state.items():
        for name, value in values.items():
            assert torch.equal(after[key][name], value)


def test_one_batch_repeated_tells_little_of_adam():
    model, x = dense(), torch.randn(32, 20)
    y = torch.randint(0, 10, (32,))  # nothing to learn but these
    trial = try_training(model, lambda m: F.cross_entropy(m(x), y), torch.optim.Adam)
    assert not trial.fresh
    assert trial.optimizers[0].outcome is TrialOutcome.TRAINED
    assert trial.trains is None
    assert not trial.fails
    diagnosis = chainrule.diagnose(
        chainrule.inspect(model, lambda m: F.cross_entropy(m(x), y)), trial=trial
    )
    assert "batches" in diagnosis.action


def test_dropout_is_no_fresh_batch():
    x, y = torch.randn(64, 20), torch.randint(0, 10, (64,))
    model = nn.Sequential(nn.Linear(20, 32), nn.Dropout(), nn.ReLU(), nn.Linear(32, 10))
    assert not try_training(model, lambda m: F.cross_entropy(m(x), y), passes=40).fresh


def test_batches_of_your_own_and_an_iterator():
    x = torch.randn(400, 20)
    y = (x @ WEIGHTS).argmax(1)
    pairs = [(x[at : at + 40], y[at : at + 40]) for at in range(0, 400, 40)]

    def compute_loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    given = try_training(dense(), compute_loss, batches=pairs)
    assert (given.fresh, given.kept, given.trains) == (True, 3, True)
    endless = itertools.cycle(pairs)
    drawn = try_training(dense(), lambda m: compute_loss(m, next(endless)))
    assert (drawn.fresh, drawn.trains) == (True, True)
    one = try_training(dense(), compute_loss, batches=pairs[:1], passes=40)
    assert not one.fresh


def test_an_optimizer_is_made_again_with_its_groups_and_state():
    model, made = dense(), []

    class Watched(torch.optim.SGD):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            made.append(self)

    optimizer = Watched(
        [{"params": model[0].parameters(), "lr": 0.3}, {"params": [model[2].weight]}],
        lr=0.1, momentum=0.9,
    )  # fmt: skip
    draw()(model).backward()
    optimizer.step()
    trial = try_training(model, draw(), optimizer, passes=40)
    twin = made[1]
    assert [group["lr"] for group in twin.param_groups] == [0.3, 0.1]
    assert twin.param_groups[0]["momentum"] == 0.9
    assert trial.optimizers[0].name == "Watched"
    assert any("1 of 4" in note for note in trial.notes)
    assert not {id(p) for p in model.parameters()} & {
        id(p) for group in twin.param_groups for p in group["params"]
    }


def test_a_model_that_diverges_and_one_that_ends_in_nan():
    model = dense(4, init=nn.init.normal_)
    trial = try_training(model, regress, lambda p: torch.optim.SGD(p, lr=10.0))
    found = trial.optimizers[0].rates[0]
    assert found.outcome in (TrialOutcome.NON_FINITE, TrialOutcome.DIVERGED)
    assert 1 <= found.failed_at <= found.steps
    assert trial.fails
    flow = chainrule.inspect(model, regress)
    verdict = chainrule.diagnose(flow, trial=trial).verdict
    assert verdict is not chainrule.Verdict.HEALTHY


def test_a_longer_training_finds_what_comes_late():
    x = torch.randn(64, 8)
    target = 0.5 * x[:, :3].tanh()
    target[:4] = torch.tensor([1.0, 0.0, 0.0])
    x[:4] = 0.0

    def compute_loss(m):  # the derivative of the root is undefined where an answer is right
        distance = (m(x) - target).square().sum(1)
        return torch.sqrt(distance * (distance > 1e-5)).mean()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
    trial = try_training(model, compute_loss, passes=120, seconds=None)
    assert TrialOutcome.TRAINED in [each.outcome for each in trial.optimizers]
    longer = confirm_training(model, compute_loss, trial)
    assert any(each.outcome is TrialOutcome.NON_FINITE for each in longer.tried)


def test_a_longer_training_goes_on_after_a_success():
    model, compute_loss = dense(), draw()

    def build(parameters):
        return torch.optim.Adam(parameters, 0.01)

    trial = try_training(model, compute_loss, build, passes=250)
    longer = confirm_training(model, compute_loss, trial, build, passes=250)
    first, second = (each.optimizers[0].rates[0] for each in (trial, longer))
    assert first.outcome is second.outcome is TrialOutcome.TRAINED
    assert first.steps < 200 < second.steps
    assert longer.passes <= 250


def test_a_machine_that_stops_for_a_moment_costs_no_passes(monkeypatch):
    times = iter([0.0, 3.0, 3.0, 3.001])
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr("chainrule.training.trial.time", clock)
    trial = try_training(dense(), draw(), torch.optim.SGD, passes=60, seconds=100.0)
    assert not trial.notes
    assert list(times) == []


def test_of_three_passes_the_fastest_counts(monkeypatch):
    times = iter([0.0, 3.0, 3.0, 3.5, 3.5, 6.5])
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr("chainrule.training.trial.time", clock)
    trial = try_training(dense(), draw(), torch.optim.SGD, passes=100, seconds=30.0)
    assert any("60 passes were allowed" in note for note in trial.notes)  # 30 s of 0.5 s each
    assert trial.passes <= 60


def test_fewer_passes_where_one_is_slow_and_none_without_room():
    slow = try_training(dense(), draw(), passes=300, seconds=1e-9)
    assert slow.passes <= 40
    assert any("instead of 300" in note for note in slow.notes)
    large = try_training(dense(), draw(), copy_limit=100)
    assert "copy_limit" in large.skipped
    assert large.trains is None
    frozen = dense().requires_grad_(False)
    assert "no parameters" in try_training(frozen, draw()).skipped


def test_without_a_level_of_guessing_the_way_begins_at_the_start():
    assert judge([4.0], [2.0])[1] == 0.5
    assert judge([4.0], [2.0], guessing=2.5)[1] == pytest.approx(0.2)
    assert judge([-1.0], [-2.0])[1] == 0.5
    rate = RateTrial(
        rate=0.1, steps=5, before=4.0, after=2.0, learned=0.5, outcome=TrialOutcome.TRAINED
    )
    assert rate.guessing is None
    assert Trial(optimizers=(), passes=0.0, limit=40, fresh=False, kept=0).guessing is None


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_without_room_for_a_copy_or_its_training_nothing_is_tried(kind, monkeypatch):
    def build(parameters):
        raise kind

    model, passes = dense(), 61
    said = f"there is no room for copies of the model ({kind.__name__})"
    nothing = Trial(optimizers=(), passes=0.0, limit=passes, fresh=False, kept=0, skipped=said)
    with unchanged(model):
        begun = try_training(model, draw(), build, passes=passes)
    assert 0 < begun.passes < passes
    assert replace(begun, passes=0.0) == nothing
    assert begun.trains is None
    monkeypatch.setattr("chainrule.training.trial.copy_model", build)
    with unchanged(model):
        assert try_training(model, draw(), passes=passes) == nothing


def test_a_copy_may_take_as_much_as_is_allowed():
    model = dense()
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    given = model, draw(), torch.optim.SGD
    said = try_training(*given, passes=40, copy_limit=size - 1)
    nothing = Trial(optimizers=(), passes=0.0, limit=40, fresh=False, kept=0)
    assert replace(said, skipped="") == nothing
    assert "copy_limit" in said.skipped
    assert try_training(*given, passes=40, copy_limit=size).tried


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"model": 3}, "model"), ({"compute_loss": 3}, "compute_loss"),
        ({"optimizer": 3}, "optimizer"), ({"passes": 39}, "passes"), ({"passes": True}, "passes"),
        ({"seconds": 0}, "seconds"), ({"batches": []}, "batches"), ({"batches": 3}, "batches"),
        ({"optimizer": lambda p: 3}, "optimizer"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments, part):
    model = dense()
    given = {"model": model, "compute_loss": draw(), **arguments}
    with unchanged(model), pytest.raises(InspectionError, match=part):
        try_training(**given)


@pytest.mark.parametrize(
    "compute_loss", [lambda m: 3.0, lambda m: torch.zeros(2), lambda m: torch.tensor(1.0)]
)
def test_what_is_no_loss(compute_loss):
    with pytest.raises(LossError):
        try_training(dense(), compute_loss)


def test_a_loss_of_another_model():
    model, x = dense(), torch.randn(8, 20)
    with pytest.raises(InspectionError, match="the model that it is given"):
        try_training(model, lambda m: model(x).square().mean())


def test_an_optimizer_of_another_model():
    optimizer = torch.optim.SGD(dense().parameters(), 0.1)
    with pytest.raises(InspectionError, match="holds none"):
        try_training(dense(), draw(), optimizer)


@pytest.mark.parametrize(
    ("before", "after", "guessing", "outcome"),
    [
        ([596.0], [278.0], 80.0, "not yet at guessing"), ([596.0], [595.0], 80.0, "flat"),
        ([2.3], [0.4], None, "trained"), ([50.0], [2.3], 2.3, "flat"), ([2.3], [2.2], None, "slow"),
        ([2.3], [2.3], None, "flat"), ([1.0], [20.0], None, "diverged"),
        ([1.0], [math.nan], None, "non-finite"), ([1.0], [math.inf], None, "non-finite"),
        ([3.0], [-5.0], None, "trained"), ([-1.0], [-3.0], None, "trained"),
        ([2.0, 2.0, 2.0], [1.0, 2.9, 2.05], None, "flat"),  # noise
        ([2.0, 2.4, 2.2], [1.0, 1.3, 1.2], None, "trained"), ([0.0], [0.0], None, "flat"),
    ],
)  # fmt: skip
def test_judge(before, after, guessing, outcome):
    found, learned = judge(before, after, guessing=guessing)
    assert found == outcome
    assert learned <= 1 or math.isnan(learned) or min(after) < 0


@pytest.mark.parametrize(
    ("after", "outcome"), [([2.0, 5.0, 5.0], "diverged"), ([1.0, 1.8, 8.0], "flat")]
)
def test_judge_does_not_mind_the_order_of_batches(after, outcome):
    """A loss of 2 that rises to 4 or 3.6, by twice its standard error and by less than one."""
    for order in itertools.permutations(after):
        assert judge([2.0, 2.0, 2.0], order)[0] == outcome


@pytest.mark.parametrize(("after", "outcome"), [([1.0, 1.8], "flat"), ([1.0, 1.5], "trained")])
def test_judge_asks_for_a_fall_of_two_standard_errors(after, outcome):
    """Of two falls it is half of their difference: 0.6 is less than 2 · 0.4, 0.75 is not."""
    assert judge([2.0, 2.0], after)[0] == outcome


TABLE = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
ANSWERS = TABLE[:, :1].sin() + 0.3 * TABLE.sum(1, keepdim=True)


def raw_table(scale, shift, size, penalty=F.mse_loss):
    """A sound regression on a table as it is, without scaling."""

    def compute_loss(model):
        chosen = torch.randint(0, 1000, (64,))
        return penalty(model(size * TABLE[chosen]), scale * ANSWERS[chosen] + shift)

    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    return model.append(nn.Linear(64, 1)), compute_loss


@pytest.mark.parametrize(
    ("table", "beyond"),
    [
        ((100.0, 500.0, 1.0), ("Adam", 0.01)), ((1e4, 0.0, 1.0), ("Adam", 0.01)),
        ((1e3, 0.0, 1.0, F.l1_loss), ("Adam", 0.01)),
        ((100.0, 0.0, 30.0), ("SGD", 1e-3)),
    ],
)  # fmt: skip
def test_rates_reach_as_far_as_the_loss_asks_for(table, beyond):
    """Each of them trains, at a rate that is none of the usual ones for one optimizer."""
    trial = try_training(*raw_table(*table), seconds=None)
    assert trial.trains
    assert trial.passes <= 300
    name, end = beyond
    found = next(each for each in trial.optimizers if each.name == name)
    rates = [each.rate for each in found.rates]
    assert rates == sorted(rates)
    assert max(rates) > end if name == "Adam" else min(rates) < end
    assert found.outcome is TrialOutcome.TRAINED
    assert found.best.rate not in RATES[name]


def test_noise_is_not_learned_at_any_rate():
    model, _ = raw_table(1.0, 0.0, 1.0)

    def compute_loss(m):
        return F.mse_loss(m(torch.randn(64, 8)), 100 * torch.randn(64, 1) + 500)

    trial = try_training(model, compute_loss, seconds=None)
    assert trial.fails
    assert all(len(each.rates) <= len(RATES[each.name]) + FURTHER for each in trial.optimizers)
    fallen = [each.best for each in trial.optimizers if each.outcome is TrialOutcome.FALLING]
    for best in fallen:
        assert best.after < best.before
        assert "still" in best.describe()
        assert format_number(trial.guessing) in best.describe()


@pytest.mark.parametrize("factor", [1e-6, 1e3])
def test_judge_does_not_mind_the_scale(factor):
    losses = [2.3, 2.2, 2.4], [1.9, 1.8, 2.1]
    scaled = [[factor * value for value in each] for each in losses]
    assert judge(*losses)[1] == pytest.approx(judge(*scaled)[1])


def build_sparse():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 8, sparse=True), nn.Linear(8, 3))


IDS = torch.arange(30) % 10


def lose_sparse(model):
    return F.cross_entropy(model(IDS), IDS % 3)


def test_an_optimizer_that_cannot_take_steps_is_skipped():
    model = build_sparse()
    with unchanged(model):
        trial = try_training(model, lose_sparse, passes=100)
    sgd, adam = trial.optimizers
    assert sgd.rates
    assert not adam.rates
    assert "sparse" in adam.skipped
    with unchanged(model), pytest.raises(InspectionError, match="sparse"):
        try_training(model, lose_sparse, torch.optim.Adam(model.parameters()))


def fail(parameters):
    raise ValueError("no such setting")


def end_soon(model, rows=iter(range(3))):  # noqa: B008  (one iterator, which ends)
    return model(torch.ones(4, 20)).sum() * next(rows)


@pytest.mark.parametrize(
    ("model", "compute_loss", "optimizer", "words"),
    [
        (nn.Sequential(nn.LazyLinear(10)), draw(), None, "0.weight"),
        (nn.Linear(20, 10), draw(), fail, "no such setting"),
        (nn.Linear(20, 10), end_soon, None, "iterator"),
        (nn.Linear(20, 10), lambda m: {}, None, "0 terms"),
    ],
)
def test_what_cannot_be_tried_is_refused(model, compute_loss, optimizer, words):
    with pytest.raises(InspectionError, match=words):
        try_training(model, compute_loss, optimizer)


def test_a_loss_without_a_floor_has_no_best_constant_answer():
    """A critic's score falls for as long as it is trained: no constant answer is the best."""
    model, x = dense(activation=nn.Tanh), torch.randn(64, 20)
    critic = try_training(model, lambda m: m(x).mean())
    assert critic.guessing is None
    assert critic.trains
    bounded = try_training(model, lambda m: m(x).tanh().mean())
    assert bounded.guessing == pytest.approx(-1.0, abs=0.05)


def test_numbers_that_json_lacks_are_words():
    model, x = dense(), torch.randn(64, 20)
    trial = try_training(model, lambda m: (m(x) * torch.nan).mean())
    flow = chainrule.inspect(model, lambda m: (m(x) * torch.nan).mean())
    text = to_result_json(flow, chainrule.diagnose(flow, trial=trial))
    json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert '"NaN"' in text


def train_plainly(model, compute_loss, name, rate, steps):
    """The losses before each of some steps of an ordinary loop, and after the last."""
    copied = copy.deepcopy(model)
    optimizer = getattr(torch.optim, name)(copied.parameters(), lr=rate)
    losses = [float(compute_loss(copied).detach())]
    for _ in range(steps):
        optimizer.zero_grad()
        compute_loss(copied).backward()
        optimizer.step()
        losses.append(float(compute_loss(copied).detach()))
    return losses


def draw_regression(scale, slope, noise):
    x = scale * torch.randn(64, 2)
    y = slope * x.sum(1, keepdim=True) + noise * torch.randn(64, 1)
    return lambda model: F.mse_loss(model(x), y)


def test_every_rate_gives_what_plain_training_gives():
    model, compute_loss = nn.Linear(2, 1), draw_regression(10.0, 1.0, 5.0)
    found = try_training(model, compute_loss)
    for optimizer in found.optimizers:
        assert [each.rate for each in optimizer.rates] == sorted(e.rate for e in optimizer.rates)
        for each in optimizer.rates:
            losses = train_plainly(model, compute_loss, optimizer.name, each.rate, each.steps)
            assert each.before == pytest.approx(losses[0], rel=1e-5)
            if math.isfinite(each.after):
                assert each.after == pytest.approx(losses[-1], rel=1e-3)
            grown = [at for at, loss in enumerate(losses) if not loss <= 10 * losses[0]]
            is_bad = each.outcome in (TrialOutcome.DIVERGED, TrialOutcome.NON_FINITE)
            assert each.failed_at == (grown[0] if is_bad else None)
    sgd, adam = found.optimizers
    # With SGD the best has settled after the first look, so none is left for it. Adam's smallest
    # rate makes room for one above its largest, which does best.
    assert [each.stopped for each in sgd.rates] == [False] * 4
    assert [each.stopped for each in adam.rates] == [True, False, False, False]
    assert (sgd.best.rate, adam.best.rate) == (1e-3, 1e-1)
    assert sgd.rates[3].outcome is TrialOutcome.DIVERGED  # to infinity, but it had grown before


def test_the_better_half_goes_on_until_one_is_left():
    model, compute_loss = nn.Linear(2, 1), draw_regression(2.0, 0.3, 1.0)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    found = try_training(model, compute_loss, passes=160)
    assert 150 < found.passes <= 160
    for optimizer in found.optimizers:
        by_steps = sorted(optimizer.rates, key=lambda each: -each.steps)
        assert by_steps[0] == optimizer.best
        assert by_steps[0].steps > by_steps[1].steps > by_steps[2].steps == by_steps[-1].steps
        assert [each.stopped for each in by_steps] == [False] + [True] * (len(by_steps) - 1)
        reached = [each.after for each in by_steps[:2]]
        assert max(reached) < min(each.after for each in by_steps[2:])


class TestTerms:
    @staticmethod
    def draw(weight):
        """Two terms of a net with two answers: classes, and a number whose weight is given."""

        def compute_loss(model):
            x = torch.randn(64, 20)
            answers = model(x)
            target = (x @ WEIGHTS).argmax(1)
            size = F.mse_loss(answers[:, :1], 3.0 + x[:, :1])
            return {"class": F.cross_entropy(answers, target), "size": weight * size}

        return compute_loss

    def test_every_term_is_looked_at_before_and_after(self):
        trial = try_training(dense(), self.draw(1e-9), passes=120)
        for optimizer in trial.optimizers:
            best = optimizer.best
            assert [term.name for term in best.terms] == ["class", "size"]
            assert sum(term.before for term in best.terms) == pytest.approx(best.before)
            assert sum(term.after for term in best.terms) == pytest.approx(best.after)
            assert best.terms[0].fell
        named = {term.name for term in trial.best.best.standing}
        assert any("'size'" in note for note in trial.notes) is ("size" in named)

    def test_one_loss_has_no_terms(self):
        trial = try_training(dense(), draw(), passes=60)
        assert all(rate.terms == () for each in trial.optimizers for rate in each.rates)


@pytest.mark.parametrize(
    ("before", "after", "fell"),
    [
        ([1.0, 1.0, 1.0], [0.98, 0.98, 0.98], True),
        ([1.0, 1.0, 1.0], [0.995, 0.995, 0.995], False),
        ([1.0, 1.0, 1.0], [0.2, 1.6, 1.0], False),
        ([1.0], [2.0], False),
        ([0.0], [0.0], False),
        ([-1.0], [-2.0], True),
    ],
)
def test_a_term_falls_by_more_than_chance_and_by_a_hundredth(before, after, fell):
    assert judge_term("t", before, after).fell is fell


def test_weights_are_compared_with_what_they_were():
    model = nn.Linear(3, 2).bfloat16()
    trial = try_training(
        model,
        lambda m: m(torch.ones(4, 3).bfloat16()).float().square().mean(),
        torch.optim.SGD(model.parameters(), 1e-9),
        passes=60,
    )
    (rate,) = trial.optimizers[0].rates
    assert (rate.moved, rate.unchanged) == (0.0, 1.0)
    trial = try_training(dense(), draw(), lambda parameters: torch.optim.SGD(parameters, 0.1))
    assert trial.optimizers[0].rates[0].moved > 0.01
    assert trial.optimizers[0].rates[0].unchanged is None


def test_a_loss_that_cannot_be_computed_with_lost_weights_ends_that_rate_alone():
    """A distribution refuses a scale that is infinite: with large steps only."""

    def compute_loss(model):
        x = torch.randn(32, 20)
        width = model(x).exp()[:, 0]
        wanted = torch.distributions.Normal(0.0, 0.5 + x[:, 0].abs())
        found = torch.distributions.Normal(0.0, width, validate_args=True)
        return torch.distributions.kl_divergence(wanted, found).mean() * 100.0

    trial = try_training(dense(), compute_loss, passes=150)
    lost = (TrialOutcome.DIVERGED, TrialOutcome.NON_FINITE)
    assert any(rate.outcome in lost for rate in trial.optimizers[0].rates)
    assert trial.optimizers[0].best.outcome not in lost


@pytest.mark.parametrize(("factor", "followed"), [(0.0, True), (0.005, True), (0.1, False)])
def test_a_schedule_that_begins_near_zero_is_tried_where_it_leads(factor, followed):
    model = dense()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor if step < 9 else 1.0)
    trial = try_training(model, draw(), optimizer, passes=80)
    (rate,) = trial.optimizers[0].rates
    assert rate.rate == pytest.approx(0.01 if followed else 0.01 * factor)
    assert any("schedule" in note for note in trial.notes) is followed
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor)


def test_half_of_a_loss_of_unknown_level_is_not_the_end():
    """Several calls of the model have no single guess, so a bad start cannot be told apart."""

    def compute_loss(model):
        x = torch.randn(64, 20)
        target = (x @ WEIGHTS).argmax(1)
        opposite = (-x @ WEIGHTS).argmax(1)
        return F.cross_entropy(model(x), target) + F.cross_entropy(model(-x), opposite)

    one = try_training(dense(), draw(), lambda p: torch.optim.Adam(p, 0.01), passes=200)
    two = try_training(dense(), compute_loss, lambda p: torch.optim.Adam(p, 0.01), passes=200)
    assert two.guessing is None
    assert one.guessing is not None
    assert one.optimizers[0].rates[0].steps < two.optimizers[0].rates[0].steps


class _Step(torch.autograd.Function):
    """A step whose way back is undefined far below it."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        e = torch.exp(-25 * ctx.saved_tensors[0])
        return gradient * 25 * e / (e + 1) ** 2


class _Sigmoid(_Step):
    @staticmethod
    def backward(ctx, gradient):
        s = torch.sigmoid(25 * ctx.saved_tensors[0])
        return gradient * 25 * s * (1 - s)


class _Spikes(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.first, self.last, self.step = nn.Linear(20, 32), nn.Linear(32, 10), step

    def forward(self, x):
        return self.last(self.step.apply(8 * self.first(x)))


class TestWeightsThatAreLost:
    def test_are_seen_though_the_loss_stays_finite(self):
        optimizer = partial(torch.optim.Adam, lr=1e-3)
        trial = try_training(_Spikes(_Step), draw(), optimizer, passes=60)
        (rate,) = trial.optimizers[0].rates
        assert rate.outcome is TrialOutcome.NON_FINITE
        assert rate.spoiled == ("first.weight", "first.bias")
        assert math.isfinite(rate.after)
        assert "'first.weight'" in rate.describe()
        assert format_number(rate.after) in rate.describe()
        finding = chainrule.diagnose(
            chainrule.inspect(nn.Linear(20, 10), draw()), trial=trial
        ).findings[0]
        assert finding.rule == "loses_numbers"
        assert "'first.weight'" in finding.evidence

    def test_are_not_those_of_a_sound_twin(self):
        optimizer = partial(torch.optim.Adam, lr=1e-3)
        trial = try_training(_Spikes(_Sigmoid), draw(), optimizer, passes=60)
        assert trial.optimizers[0].rates[0].spoiled == ()
        assert trial.optimizers[0].outcome is not TrialOutcome.NON_FINITE

    def test_are_not_those_that_were_infinite_before(self):
        model = nn.Sequential(nn.Linear(20, 10))
        model.mask = nn.Parameter(torch.tensor([0.0, -math.inf]))
        trial = try_training(model, draw(), partial(torch.optim.SGD, lr=0.1), passes=40)
        assert trial.optimizers[0].rates[0].spoiled == ()


class TestFloat16:
    @staticmethod
    def compute(model):
        x = torch.randn(16, 20)
        return F.cross_entropy(model(x.half()), (x @ WEIGHTS).argmax(1))

    def test_adam_gets_an_epsilon_that_the_format_holds(self):
        trial = try_training(nn.Linear(20, 10).half(), self.compute, passes=60)
        by_name = {each.name: each for each in trial.optimizers}
        assert (by_name["SGD"].settings, by_name["Adam"].settings) == ("", "eps=0.0001")
        assert by_name["Adam"].outcome is not TrialOutcome.NON_FINITE
        assert any("float16" in note and "eps=0.0001" in note for note in trial.notes)

    def test_yours_that_lost_its_epsilon_is_named(self):
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10)).half()
        adam = torch.optim.Adam(model.parameters(), 1e-3)
        trial = try_training(model, self.compute, adam, passes=40)
        assert trial.optimizers[0].outcome is TrialOutcome.NON_FINITE
        action = chainrule.diagnose(chainrule.inspect(model, self.compute), trial=trial).action
        assert all(word in action for word in ("float16", "autocast", f"eps={SUITED_EPSILON:g}"))
        for sound in (
            torch.optim.Adam(model.parameters(), 1e-3, eps=1e-4),
            torch.optim.SGD(model.parameters(), 1e-3),
        ):
            assert try_training(model, self.compute, sound, passes=40).optimizers[0].lost == ""
