"""Errors in a loop that is watched: each step stays one step, and the run says its end."""

import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.display.runs import read_line
from chainrule.errors import TrainingStopped, WatchError
from chainrule.watch import watch
from chainrule.watch.notices import Notices
from chainrule.watch.reading import RunReader
from chainrule.watch.records import Sample, StepRecord
from chainrule.watch.run import Run


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)


def compute_loss(model, step):
    x, y = batch(step)
    return F.cross_entropy(model(x), y)


class Fails:
    """Raises at some of its calls."""

    def __init__(self, error, calls):
        self.error, self.calls, self.count = error, calls, 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        if self.count in self.calls:
            raise self.error("it broke.")


def train(model, optimizer, run, steps=20, fail=lambda: None, place="none"):
    """Train, going on after errors; return the losses of the steps that were taken."""
    taken = []
    for step in range(1, steps + 1):
        try:
            optimizer.zero_grad()
            loss = compute_loss(model, step)
            if place == "loss":
                fail()
            loss.backward()
            if place == "backward":
                fail()
            optimizer.step()
        except (ValueError, KeyboardInterrupt):
            continue
        taken.append(loss.item())
        run.log(loss=loss)
    return taken


def check(run, taken):
    assert [record.step for record in run.steps] == list(range(1, len(taken) + 1))
    assert [record.loss for record in run.steps] == pytest.approx(taken)
    assert all((record.grad_norms > 0).all() for record in run.steps)


@pytest.mark.parametrize("place", ["loss", "backward"])
@pytest.mark.parametrize("every", [1, 50])
def test_an_error_in_the_users_step_leaves_one_step_for_each(place, every):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=every) as run:
        taken = train(model, optimizer, run, fail=Fails(ValueError, {1, 4, 5, 11}), place=place)
    assert len(taken) == 16
    check(run, taken)
    for sample in run.samples:
        assert [layer.name for layer in sample.layers] == ["0", "1", "2"]


def test_an_error_between_modules_spoils_no_sample():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    fail = Fails(ValueError, {2, 3, 7})
    with watch(model, optimizer, every=1) as run:
        handle = model[1].register_forward_pre_hook(lambda *_: fail())
        taken = train(model, optimizer, run)
        handle.remove()
    check(run, taken)
    plain, expected = make(), []
    for step in range(1, 21):
        if step not in (2, 3, 7):
            x, _ = batch(step)
            expected.append(float(plain[0](x).detach().std(correction=0)))
            loss = compute_loss(plain, step)
            plain.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in plain.parameters():
                    parameter.sub_(0.1 * parameter.grad)
    found = [sample.layers[0].std for sample in run.samples]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_in_the_model_spoils_no_flow(place):
    flows = []
    for calls in (set(), {1, 2}):
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        fail = Fails(ValueError, calls)
        with watch(model, optimizer) as run:
            model[place].register_forward_pre_hook(lambda *_, fail=fail: fail())
            for _ in range(1 + len(calls)):
                try:
                    loss = compute_loss(model, 1)
                except ValueError:
                    continue
                loss.backward()
                optimizer.step()
        flows.append(run.flow(1))
    assert flows[1].layers == flows[0].layers


def test_an_error_in_the_optimizer_itself():
    class Breaks(torch.optim.SGD):
        fail = Fails(ValueError, {3, 8})

        def step(self, closure=None):
            self.fail()
            return super().step(closure)

    model = make()
    optimizer = Breaks(model.parameters(), 0.1)
    with watch(model, optimizer, every=1) as run:
        for step in range(1, 16):
            optimizer.zero_grad()
            loss = compute_loss(model, step)
            loss.backward()
            try:
                optimizer.step()
            except ValueError:
                continue
            finally:
                run.log(loss=loss)
    assert [record.step for record in run.steps] == list(range(1, 16))
    assert [s.step for s in run.samples if (s.update_norms < 0).all()] == [3, 8]


def test_a_step_that_calls_the_step_of_its_parent_is_one():
    class Twice(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            return super().step()

    torch.optim.SGD([torch.zeros(1)], 0.1)  # PyTorch adds its hooks to SGD's own step, too
    model = make()
    optimizer = Twice(model.parameters(), 0.05)
    with watch(model, optimizer, every=1) as run:
        before = [parameter.detach().clone() for parameter in model.parameters()]
        taken = train(model, optimizer, run, 1)
        moved = [
            float((p - b).detach().norm()) for p, b in zip(model.parameters(), before, strict=True)
        ]
        taken += train(model, optimizer, run, 5)
    check(run, taken)
    assert run.samples[0].update_norms.tolist() == pytest.approx(moved, rel=1e-5)


def test_an_error_in_a_closure_is_no_step():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    fail, taken = Fails(ValueError, {1, 4, 9}), []
    with watch(model, optimizer, every=1) as run:
        for step in range(1, 13):

            def closure(step=step):
                optimizer.zero_grad()
                loss = compute_loss(model, step)
                fail()
                loss.backward()
                return loss

            try:
                loss = optimizer.step(closure)
            except ValueError:
                continue
            taken.append(loss.item())
            run.log(loss=loss)
    check(run, taken)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", [StepRecord, Sample])
def test_an_error_in_a_sink(error, kind):
    fail = Fails(error, {2, 3})
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def sink(record, facts):
        if isinstance(record, kind):
            fail()

    with watch(model, optimizer, every=1, sinks=[sink]) as run:
        taken = train(model, optimizer, run)
    assert [record.step for record in run.steps] == list(range(1, len(run.steps) + 1))
    # Ctrl-C in a sink reaches the loop before its step is taken; another error does not.
    assert len(taken) == len(run.steps) == (20 if error is ValueError else 18)


@pytest.mark.parametrize(
    "place",
    [
        "run.make_record",
        "ledger.find_alarms",
        "history.History.add",
        "measuring.measure_norms",
        "weight_sizes.WeightSizes.make_sample",
        "sampling._summarize",
        "run.UpdateMeter",
        "ownership.Ownership.make_standing",
        "leftovers.Leftovers.finish",
    ],
)
def test_an_error_in_reading_a_step_leaves_the_next_ones_alone(place, monkeypatch):
    import importlib

    module, *names = place.split(".")
    owner = importlib.import_module(f"chainrule.watch.{module}")
    for name in names[:-1]:
        owner = getattr(owner, name)
    original, fail = getattr(owner, names[-1]), Fails(RuntimeError, set(range(3, 7)))

    def sometimes(*args, **kwargs):
        fail()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, names[-1], sometimes)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=2) as run:
        taken = train(model, optimizer, run)
    assert fail.count > 6
    assert len(taken) == 20
    steps = [record.step for record in run.steps]
    assert steps == sorted(set(steps))
    assert steps[-1] == 20
    assert len(steps) >= 16  # of a step that could not be read at all there is no record
    assert [record.loss for record in run.steps] == pytest.approx([taken[at - 1] for at in steps])
    assert run.alarms == ()


def test_two_optimizers_and_an_error_between_them():
    model = make()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.SGD(model[2].parameters(), 0.1)
    fail = Fails(ValueError, {4, 5})
    with watch(model, [first, second]) as run:
        for step in range(1, 13):
            loss = compute_loss(model, step)
            loss.backward()
            first.step()
            try:
                fail()
                second.step()
            except ValueError:
                pass
            first.zero_grad()
            second.zero_grad()
            run.log(loss=loss)
    assert [record.step for record in run.steps] == list(range(1, 13))
    held = [(record.grad_norms > 0).tolist() for record in run.steps]
    assert held == [[True, True, at not in (4, 5), at not in (4, 5)] for at in range(1, 13)]


def test_a_scaler_after_an_error_tells_no_other_scale():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with watch(model, optimizer) as run:
        with pytest.raises(AssertionError):
            scaler.step(optimizer)  # nothing was scaled
        compute_loss(model, 1).backward()
        optimizer.step()
        optimizer.zero_grad()
        scaler.scale(compute_loss(model, 2)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert [record.scale for record in run.steps] == [None, 8.0]
    assert [record.skipped for record in run.steps] == ["", ""]


def test_an_optimizer_is_given_once():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    other = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(WatchError, match="once"):
        watch(model, [optimizer, optimizer])
    with pytest.raises(WatchError, match="2"):
        watch(model, [optimizer, other, optimizer])
    assert not optimizer._optimizer_step_pre_hooks


# --- The end of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ValueError, "ValueError at step 7"),
        (KeyboardInterrupt, "KeyboardInterrupt at step 7"),
        (SystemExit, ""),
        (None, ""),
    ],
)
def test_a_run_keeps_what_stopped_it(tmp_path, error, ending):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"

    def go():
        with watch(model, optimizer, store=path) as run:
            train(model, optimizer, run, 7)
            if error is not None:
                raise error

    if error is None:
        go()
    else:
        with pytest.raises(error):
            go()
    reader = RunReader(path)
    assert reader.ended
    assert reader.ending == read_line(path).ending == ending
    assert reader.outcome == read_line(path).state == ("stopped" if ending else "ended")
    assert len(reader.steps()) == 7
    with watch(model, optimizer, store=path, resume=True) as run:
        train(model, optimizer, run, 3)
    assert (RunReader(path).outcome, RunReader(path).ending) == ("ended", "")


def test_a_training_that_an_alarm_stopped_says_so(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"

    def go():
        with watch(model, optimizer, store=path, raise_on=["non_finite"]):
            for step in range(9):
                optimizer.zero_grad()
                (compute_loss(model, step) * (float("nan") if step == 4 else 1.0)).backward()
                optimizer.step()

    with pytest.raises(TrainingStopped):
        go()
    assert RunReader(path).ending == "TrainingStopped at step 5"


LOOP = """
import sys, torch
from torch import nn
from chainrule.watch import watch
torch.set_num_threads(1)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
run = watch(model, optimizer, store=sys.argv[1])
for step in range(12):
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
{end}
"""


@pytest.mark.parametrize(
    ("end", "ending"),
    [("raise ValueError('mine')", "ValueError at step 12"), ("sys.exit(0)", ""), ("", "")],
)
def test_an_error_that_nobody_caught_is_known_without_with(programs, tmp_path, end, ending):
    path = tmp_path / "run.db"
    programs.run(LOOP.format(end=end), path)
    assert RunReader(path).ending == ending


@pytest.mark.parametrize("rate", [1e3, 1e9])
@pytest.mark.parametrize("asked", ["non_finite", "non-finite"])
def test_a_run_stops_at_the_rule_asked_for_whatever_was_said_before(rate, asked):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), rate)
    run = watch(model, optimizer, raise_on=[asked])

    def go_on():
        with run:
            for _ in range(60):
                x = torch.randn(32, 20)
                loss = F.mse_loss(model(x), 2 * x[:, :1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)

    with pytest.raises(TrainingStopped, match=r"infinite or undefined|loss is") as caught:
        go_on()
    assert run.alarms[0].rule != "non_finite"
    assert run.alarms[-1].rule == "non_finite"
    assert "'non_finite'" in str(caught.value)
    assert len(run.steps) < 20


def test_a_resumed_run_stops_though_its_numbers_were_not_finite_before(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    with watch(model, optimizer, store=tmp_path / "a.db") as run:
        train(model, optimizer, run, 5)
    with (
        pytest.raises(TrainingStopped),
        watch(model, optimizer, store=tmp_path / "a.db", resume=True, raise_on="non_finite") as run,
    ):
        train(model, optimizer, run, 5)


@pytest.mark.parametrize("place", ["_detach", "_conclude"])
def test_ctrl_c_while_a_run_is_closed_loses_no_step(tmp_path, monkeypatch, place):
    original, pressed = getattr(Run, place), []

    def interrupt(self, *args, **named):
        if not pressed:
            pressed.append(place)
            raise KeyboardInterrupt
        return original(self, *args, **named)

    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = watch(model, optimizer, store=tmp_path / "a.db")
    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    monkeypatch.setattr(Run, place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.close()
    reader = RunReader(tmp_path / "a.db")
    assert (len(reader.steps()), reader.live, reader.ended) == (2, False, True)
    assert not optimizer._optimizer_step_pre_hooks


def test_what_a_signal_handler_raises_is_not_swallowed():
    class TimeLimitError(Exception):
        pass

    def end(number, frame):
        raise TimeLimitError

    notices = Notices()
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(TimeLimitError), notices.guard("testing"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    with notices.guard("testing"):
        raise ValueError
    assert len(notices.said) == 1


@pytest.mark.parametrize("read", ["output", "state"])
def test_of_several_results_the_loss_may_read_one(read):
    """What nobody reads of an LSTM gets no gradient: autograd says so with `None`."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            output, (state, _) = self.rnn(x)
            return self.head(state[0] if read == "state" else output[-1])

    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=1) as run:
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(5, 8, 3)).pow(2).mean().backward()
            optimizer.step()
    assert run.notices == ()
    assert len(run.samples) == 4
    rnn, head = run.samples[-1].layers
    assert (rnn.name, head.name) == ("rnn", "head")
    assert rnn.std > 0.0
    assert head.delta_norm > 0.0
    assert (rnn.delta_norm is None) == (read == "state")
