"""The run as an object: what it keeps, what it says, and that nothing of it reaches the loop."""

import dis
import functools
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule.errors import RunFileError, TrainingStopped, WatchError
from chainrule.watch import ledger, sampling, skipping, watch
from chainrule.watch.reading import RunReader
from waiting import wait_until


def make(width=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def train(model, optimizer, run, count, bad=()):
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        x = torch.randn(6, 4, generator=generator)
        y = torch.randint(3, (6,), generator=generator)
        loss = F.cross_entropy(model(x), y)
        if number in bad:
            loss = loss * math.nan
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)


def warnings_in(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# --- What is kept ---------------------------------------------------------------------------------


def test_the_package_itself_can_be_called():
    model = make()
    run = chainrule.watch(model, torch.optim.SGD(model.parameters(), 0.1))
    run.close()
    run.close()
    assert isinstance(run, chainrule.watch.Run)
    assert run.facts.model == "Sequential"


def test_without_a_store_the_last_steps_stay_in_memory(monkeypatch):
    monkeypatch.setattr(ledger, "KEPT_STEPS", 20)
    monkeypatch.setattr(ledger, "KEPT_SAMPLES", 3)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer, every=5) as run:
        train(model, optimizer, run, 50)
    assert [record.step for record in run.steps] == list(range(31, 51))
    assert [sample.step for sample in run.samples] == [40, 45, 50]


def test_more_is_sampled_in_the_beginning():
    steps = [step for step in range(1, 401) if sampling.is_sampled(step, 50)]
    assert steps == [1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, 200, 250, 300, 350, 400]
    assert all(sampling.is_sampled(step, 1) for step in range(1, 20))


def test_a_flow_is_that_of_inspect():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(6, 4), torch.randint(3, (6,))
    expected = chainrule.inspect(model, lambda m: F.cross_entropy(m(x), y), optimizer)
    with watch(model, optimizer) as run:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
    flow = run.flow(1)
    assert flow.layers == expected.layers
    assert flow.parameters == expected.parameters
    assert flow.loss == expected.loss
    assert flow.optimizer == expected.optimizer
    assert flow.is_chain == expected.is_chain if hasattr(flow, "is_chain") else True
    assert chainrule.diagnose(flow).verdict == chainrule.diagnose(expected).verdict
    with pytest.raises(WatchError, match=r"\(1\).*2"):
        run.flow(2)


def test_samples_equal_the_flow_of_their_step():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 2)
    )
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = -1.0  # a dead unit
        model[3].weight *= 30  # saturates
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watch(model, optimizer) as run:
        model(torch.randn(5, 1, 6, 6)).square().mean().backward()
        optimizer.step()
    (sample,) = run.samples
    flow = {layer.name: layer for layer in run.flow(1).layers}
    for layer in sample.layers:
        wanted = flow[layer.name]
        assert layer.kind == wanted.kind
        assert layer.mean == pytest.approx(wanted.statistics.mean, rel=1e-5, abs=1e-7)
        assert layer.std == pytest.approx(wanted.statistics.std, rel=1e-5)
        assert layer.delta_norm == pytest.approx(wanted.gradient.norm, rel=1e-5)
        assert layer.zero_share == pytest.approx(wanted.gradient.zero_share, abs=1e-6)
        assert layer.non_finite == 0
    by_name = {layer.name: layer for layer in sample.layers}
    assert by_name["1"].dead_units == pytest.approx(flow["1"].statistics.dead_share) == 0.25
    assert by_name["4"].saturation == pytest.approx(flow["4"].statistics.saturation, abs=0.02)
    assert by_name["4"].saturation > 0.3
    assert [by_name["0"].dead_units, by_name["0"].saturation] == [None, None]


def test_subnormal_gradients_and_bad_outputs_are_counted():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watch(model, optimizer) as run:
        out = model(torch.ones(2, 4).half())
        out.backward(torch.full_like(out, 1e-7))
        optimizer.step()
    assert run.samples[0].layers[1].subnormal_share == 1.0
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watch(model, optimizer) as run:
        x = torch.ones(2, 4)
        x[0, 0] = math.inf
        model(x).sum().backward()
        optimizer.step()
    assert run.samples[0].layers[0].non_finite == 8


def test_an_error_in_the_loop_loses_nothing(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"
    for error in (KeyboardInterrupt, ZeroDivisionError):
        path.unlink(missing_ok=True)

        def go(error=error):
            with watch(model, optimizer, store=path) as run:
                train(model, optimizer, run, 7)
                raise error

        with pytest.raises(error):
            go()
        reader = RunReader(path)
        assert len(reader.steps()) == 7
        assert reader.steps()[-1].loss is not None
        assert reader.ended
        assert not optimizer._optimizer_step_pre_hooks


def test_a_store_holds_what_the_run_had(tmp_path):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with watch(model, optimizer, store=tmp_path / "new" / "exp.db", every=10) as run:
        train(model, optimizer, run, 60)
        assert run.flow(1).layers
    reader = RunReader(tmp_path / "new" / "exp.db")
    assert reader.facts.name == run.facts.name == "exp"
    assert [each.step for each in reader.steps()] == [each.step for each in run.steps]
    for mine, theirs in zip(run.steps, reader.steps(), strict=True):
        assert theirs.loss == pytest.approx(mine.loss, rel=1e-3)
        assert theirs.grad_norms == pytest.approx(mine.grad_norms, rel=0.02)
    assert [each.step for each in reader.samples()] == [each.step for each in run.samples]
    assert reader.flow(1).layers == run.flow(1).layers


def test_it_goes_on_after_its_last_step_or_a_checkpoint(tmp_path):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    path = tmp_path / "run.db"
    for resume, steps in ((False, 10), (True, 15), (12, 17)):
        with watch(model, optimizer, store=path, resume=resume) as run:
            train(model, optimizer, run, steps if resume is False else 5)
        assert [each.step for each in RunReader(path).steps()] == list(range(1, steps + 1))
        assert run.steps[-1].step == steps
    with pytest.raises(RunFileError, match="exists"):
        watch(model, optimizer, store=path)
    wide = make(16)
    with pytest.raises(RunFileError, match=r"0\.weight"):
        watch(wide, torch.optim.SGD(wide.parameters(), 0.1), store=path, resume=True)
    assert not optimizer._optimizer_step_pre_hooks


def press_at_instruction(number):
    """Press Ctrl-C at a place of that number, of those that `chainrule.watch` passes.

    A place is where Python looks for signals: after a call or a jump back, within the same `try` or
    `with`. (Between a `with` block and its end it never looks.)

    Returns:
        What `sys.settrace` takes, and a list whose only entry is how many places were counted.
    """
    count, last = [0], {}

    def trace(frame, event, _):
        if event == "call":
            if "chainrule/watch" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "return":
            last.pop(frame, None)
        elif event == "opcode":
            before, last[frame] = last.get(frame), frame.f_lasti
            if before is not None and frame.f_lasti in list_places(frame.f_code).get(before, ()):
                count[0] += 1
                if count[0] == number:
                    raise KeyboardInterrupt
        return trace

    return trace, count


@functools.cache
def list_places(code):
    """Return the places after which signals are looked for, and those that may follow them."""
    handlers = dis.Bytecode(code).exception_entries

    def find_handler(offset):
        return [each.target for each in handlers if each.start <= offset < each.end]

    offsets = [each.offset for each in dis.get_instructions(code)]
    return {
        each.offset: {o for o in offsets if find_handler(o) == find_handler(each.offset)}
        for each in dis.get_instructions(code)
        if each.opname.startswith("CALL") or each.opname in ("JUMP_BACKWARD", "RESUME")
    }


def train_until_pressed(path, number, steps=4):
    """Train with a store; return the run, how many steps the optimizer took, and what was counted.

    Ctrl-C is pressed only inside of the loop, from its second step on.
    """
    model = make(2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    trace, count = press_at_instruction(number)
    before, taken = sys.gettrace(), 0
    try:
        with watch(model, optimizer, store=path, every=1) as run:
            try:
                for step in range(steps):
                    loss = model(torch.ones(2, 4)).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    old = model[2].bias.detach().clone()
                    sys.settrace(trace if step else None)
                    optimizer.step()
                    sys.settrace(before)
                    run.log(loss=loss)
            finally:
                sys.settrace(before)
                taken = step + (not torch.equal(old, model[2].bias))
    except KeyboardInterrupt:
        pass
    finally:
        is_enabled = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # whatever came, other tests go on
    assert is_enabled
    return run, taken, count[0]


def test_ctrl_c_at_any_instruction_of_a_step_loses_no_step(tmp_path, caplog):
    """A sample of all places in three steps."""
    run, taken, total = train_until_pressed(tmp_path / "whole.db", 0)
    assert len(run.steps) == len(run.samples) == taken == 4
    pressed = 0
    for number in range(1, total, max(1, total // 60)):
        path = tmp_path / f"{number}.db"
        run, taken, _ = train_until_pressed(path, number)
        numbers = list(range(1, len(run.steps) + 1))
        assert [each.step for each in run.steps] == numbers
        # One more where a step was measured that the optimizer then did not take.
        assert taken <= len(numbers) <= taken + 1, number
        reader = RunReader(path)
        assert [each.step for each in reader.steps()] == numbers
        assert [each.step for each in run.samples] == numbers
        assert [each.step for each in reader.samples()] == numbers
        assert reader.ended
        pressed += reader.ending.startswith("KeyboardInterrupt")
    assert pressed > 40
    assert not warnings_in(caplog)


LOOP = """
import sys, torch, logging
from torch import nn
from chainrule.watch import watch
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
optimizer = torch.optim.Adam(model.parameters(), 0.01)
with watch(model, optimizer, store=sys.argv[1], every=5, resume=True) as run:
    for step in range(int(sys.argv[2])):
        loss = model(torch.randn(6, 4)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=loss)
        if step % 50 == 0:
            print(step, flush=True)
"""


@pytest.mark.slow
def test_a_killed_run_opens_and_goes_on(programs, tmp_path):
    path = tmp_path / "run.db"
    command = [sys.executable, "-c", LOOP, str(path)]
    killed = subprocess.Popen([*command, "1000000"], stdout=subprocess.PIPE, text=True)
    try:
        for line in killed.stdout:
            if int(line) >= 300:
                break
        # What was written by now is on disk after a second.
        wait_until(lambda: path.exists() and RunReader(path).last_step > 300)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
    reader = RunReader(path)
    steps = reader.steps()
    assert not reader.damage
    assert [each.step for each in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 300
    assert not reader.ended
    done = programs.run(LOOP, path, 20)
    assert done.returncode == 0, done.stderr
    again = RunReader(path)
    assert [each.step for each in again.steps()] == list(range(1, len(steps) + 21))
    assert again.ended


# --- Alarms ---------------------------------------------------------------------------------------


def test_an_alarm_is_kept_told_and_stored_once(tmp_path, caplog):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    told = []

    def tell(alarm):
        told.append(alarm)
        raise ValueError("mine")

    with watch(model, optimizer, store=tmp_path / "run.db", on_alarm=tell) as run:
        train(model, optimizer, run, 30, bad={20})
    (alarm,) = [each for each in run.alarms if each.rule == "non_finite"]
    assert alarm.step in (20, 21)
    assert list(run.alarms) == told
    stored = RunReader(tmp_path / "run.db").alarms()
    assert [each.rule for each in stored] == [each.rule for each in told]
    said = [each for each in warnings_in(caplog) if "mine" in each]
    assert len(said) == 1
    after = {sample.step for sample in run.samples}
    assert {alarm.step + 2, alarm.step + 3} <= after  # sampled after an alarm
    assert len(run.steps) == 30


@pytest.mark.parametrize("name", ["non_finite", "non-finite numbers"])
def test_a_run_that_cannot_recover_is_stopped(name):
    from chainrule.watch.rules import RULES

    kinds = {rule.name: rule.kind for rule in RULES}
    name = name if name in kinds else kinds["non_finite"]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with (
        watch(model, optimizer, raise_on=[name]) as run,
        pytest.raises(TrainingStopped, match="21"),
    ):
        train(model, optimizer, run, 30, bad={20})
    assert len(run.steps) == 21
    with pytest.raises(WatchError, match="non_finite"):
        watch(model, optimizer, raise_on=["non_finit"])


@pytest.mark.parametrize("makes_scheduler", ["before", "after", "never"])
def test_a_step_with_a_bad_gradient_is_left_out(makes_scheduler):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    if makes_scheduler == "before":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    with watch(model, optimizer, every=1, skip_step_on=["non_finite"]) as run:
        if makes_scheduler == "after":
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
        for number in range(10):
            loss = model(torch.ones(2, 4)).square().mean() * (math.nan if number == 4 else 1.0)
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if makes_scheduler != "never":
                scheduler.step()
            if number == 4:
                assert all(map(torch.equal, model.parameters(), before))
                assert optimizer.state[model[0].weight]["step"] == 4
    skipped = [record.skipped for record in run.steps]
    assert skipped == [""] * 4 + ["non-finite gradient"] + [""] * 5
    assert all(p.isfinite().all() for p in model.parameters())
    assert not run.steps[4].finite
    (alarm,) = [each for each in run.alarms if each.rule == "non_finite"]
    assert "left out" in alarm.summary
    assert "skip_step_on" in alarm.summary
    optimizer.step()


@pytest.mark.parametrize("split", ["as it is", "each by itself"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("bad", [None, 0, 1, 3])
def test_one_bad_gradient_is_enough_on_any_device(bad, value, split, monkeypatch):
    model = make()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, 0.01)
    if split == "each by itself":  # as if each were on a device of its own
        monkeypatch.setattr(skipping, "split_tensors", lambda given: [[each] for each in given])
    for at, parameter in enumerate(parameters):
        if at != 2:  # one has none
            parameter.grad = torch.ones_like(parameter)
            parameter.grad.view(-1)[-1] = value if at == bad else 1.0
    assert skipping.has_bad_gradient(optimizer) == (bad is not None)


@pytest.mark.parametrize(
    ("gradient", "bad"),
    [
        (torch.full((8, 4), 1e30), False),  # whose norm float32 cannot hold
        (torch.full((8, 4), 60_000.0, dtype=torch.float16), False),  # nor this one float16
        (torch.full((8, 4), 60_000.0, dtype=torch.float16) * 2.0, True),
        (torch.full((8, 4), 1e30).to_sparse(), False),
        (torch.full((8, 4), math.nan).to_sparse(), True),
    ],
)
def test_a_large_gradient_is_no_bad_one(gradient, bad):
    weight = nn.Parameter(torch.zeros(8, 4, dtype=gradient.dtype))
    weight.grad = gradient
    assert skipping.has_bad_gradient(torch.optim.SGD([weight], 0.01)) == bad


def test_an_optimizer_that_asks_for_the_loss_again_and_again_may_do_so():
    weights = []
    for watched in (False, True):
        model = make()
        optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=4)

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().mean()
            loss.backward()
            return loss

        if watched:
            with watch(model, optimizer, skip_step_on=["non_finite"]):
                optimizer.step(closure)
        else:
            optimizer.step(closure)
        weights.append([each.detach().clone() for each in model.parameters()])
    assert all(map(torch.equal, *weights))


def test_without_any_gradient_there_is_no_bad_one():
    assert not skipping.has_bad_gradient(torch.optim.SGD(make().parameters(), 0.01))


def test_a_closure_with_a_bad_gradient_is_left_out():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    factor, calls = [1.0], []

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean() * factor[0]
        loss.backward()
        calls.append(loss.item())
        return loss

    with watch(model, optimizer, skip_step_on=["non_finite"]) as run:
        optimizer.step(closure)
        factor[0] = math.inf
        optimizer.step(closure=closure)
        factor[0] = 1.0
        assert optimizer.step(closure=closure).item() == calls[-1]
    assert [record.skipped for record in run.steps] == ["", "non-finite gradient", ""]
    assert len(calls) == 3


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        h = self.inner(x)
        return self.drop(h + h.masked_fill(x == 0, -math.inf).softmax(-1))


class Rooted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return (self.inner(x) * (x[:, :1] != 0)).abs().sqrt()


@pytest.mark.parametrize("where", ["forward", "backward", "loss"])
def test_the_origin_of_a_bad_number_is_found_by_running_the_step_again(where):
    torch.manual_seed(0)
    model = {"forward": Masked, "backward": Rooted, "loss": make}[where]()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    state = None
    with watch(model, optimizer, keep_batches=True) as run:
        for number in range(12):
            x = torch.rand(3, 4) + 0.1
            if number == 8:
                state = torch.get_rng_state()
                if where != "loss":
                    x[1] = 0
            out = model(x)
            loss = out.square().mean()
            if number == 8 and where == "loss":
                loss = (out * 0).sqrt().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
    assert run.kept.step == 9
    assert len(run.kept.batches) == 1
    assert torch.equal(run.kept.batches[0].random_states["cpu"], state)
    assert run.kept.optimizer_states[0]["state"]
    (alarm,) = [each for each in run.alarms if each.rule == "non_finite"]
    assert any(each.name.startswith("origin") for each in alarm.evidence)
    assert run.kept.origin.module == (None if where == "loss" else "")
    assert run.kept.origin.direction == ("forward" if where == "forward" else "backward")
    if where == "forward":
        assert "softmax" in alarm.cause
        assert "test_watching.py" in run.kept.origin.file
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_a_loss_that_is_not_finite_is_looked_into_though_gradients_are():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x).masked_fill(x == 0, -math.inf).softmax(-1)

    model = Head()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer, keep_batches=True) as run:
        for number in range(12):
            x = torch.rand(3, 4) + 0.1
            x[1] *= number != 8
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
    assert run.steps[8].finite
    assert run.kept.step == 9
    assert "softmax" in run.kept.origin.op


class Logarithm(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x).exp() * x.log()


@pytest.mark.parametrize("compiles", ["the model", "inside", "in place", "around"])
def test_a_step_of_a_compiled_model_is_run_again_without_the_compiler(compiles, caplog):
    torch.manual_seed(0)
    model = Logarithm()
    watched = called = model
    if compiles == "the model":
        watched = called = torch.compile(model, backend="aot_eager")
    elif compiles == "inside":
        model.inner = torch.compile(model.inner, backend="aot_eager")
    elif compiles == "in place":
        model.compile(backend="aot_eager")
    else:
        called = torch.compile(lambda x: model(x), backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(watched, optimizer, keep_batches=True) as run:
        for number in range(5):
            x = torch.rand(3, 4) + 0.1
            x[1, 1] *= -1 if number == 3 else 1
            loss = called(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
    assert run.kept.step == 4
    (alarm,) = [each for each in run.alarms if each.rule == "non_finite"]
    if compiles in {"the model", "inside"}:
        assert "log" in run.kept.origin.op
        assert "test_watching.py" in run.kept.origin.file
        assert "log" in alarm.cause
        assert not run.kept.missing
    else:
        assert run.kept.origin is None
        assert "compiled" in run.kept.missing
        assert "Step 4" in caplog.text
        assert "torch.compile" in caplog.text
    assert not called._forward_hooks if compiles == "the model" else True
    assert not model._forward_hooks


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "optimizer", "said"),
    [
        (nn.ReLU(), torch.optim.SGD([torch.ones(1)], 0.1), "parameters"),
        (lambda x: x, torch.optim.SGD([torch.ones(1)], 0.1), "function"),
        (nn.Linear(2, 1), None, "NoneType|none"),
        (nn.Linear(2, 1), [], "none"),
        (nn.Linear(2, 1), [1], "int"),
        (nn.LazyLinear(2), torch.optim.SGD([torch.ones(1)], 0.1), "lazy"),
    ],
)
def test_what_cannot_be_watched_is_refused(model, optimizer, said):
    with pytest.raises(WatchError, match=said):
        watch(model, optimizer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"every": 2.5},
        {"every": True},
        {"on_alarm": 3},
        {"skip_step_on": ["spike"]},
        {"resume": True},
        {"store": 3},
        {"store": b"run.db"},
        {"sinks": 3},
        {"sinks": None},
        {"raise_on": 3},
        {"raise_on": None},
        {"raise_on": [["spike"]]},
        {"skip_step_on": None},
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(wrong):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    (name,) = wrong
    with pytest.raises(WatchError, match=name):
        watch(model, optimizer, **wrong)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("resume", [-1, "x", None, 1.5, math.nan])
def test_a_wrong_step_to_go_on_after_changes_nothing_and_holds_no_lock(tmp_path, resume):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"
    with watch(model, optimizer, store=path) as run:
        train(model, optimizer, run, 5)
    before = path.read_bytes()
    with pytest.raises(WatchError, match=r"resume .*" + str(resume)):
        watch(model, optimizer, store=path, resume=resume)
    assert path.read_bytes() == before
    assert not optimizer._optimizer_step_pre_hooks
    with watch(model, optimizer, store=path, resume=np.int64(5)) as run:
        train(model, optimizer, run, 1)
    assert [each.step for each in RunReader(path).steps()] == [1, 2, 3, 4, 5, 6]
    with watch(model, optimizer, store=path, resume=0) as run:
        train(model, optimizer, run, 2)
    assert [each.step for each in RunReader(path).steps()] == [1, 2]


def test_a_checkpoint_may_be_newer_than_what_a_killed_run_left(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"
    with watch(model, optimizer, store=path) as run:
        train(model, optimizer, run, 5)
    with watch(model, optimizer, store=path, resume=8) as run:
        train(model, optimizer, run, 2)
    assert [each.step for each in RunReader(path).steps()] == [1, 2, 3, 4, 5, 9, 10]


@pytest.mark.parametrize("place", ["BatchKeeper", "LayerSampler", "listen"])
def test_an_error_while_a_run_begins_holds_no_lock(tmp_path, monkeypatch, place):
    def fail(*_, **__):
        raise KeyboardInterrupt

    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    path = tmp_path / "run.db"
    with monkeypatch.context() as patch:
        patch.setattr(f"chainrule.watch.run.{place}", fail)
        with pytest.raises(KeyboardInterrupt):
            watch(model, optimizer, store=path, keep_batches=True)
    with watch(model, optimizer, store=path, resume=True) as run:
        train(model, optimizer, run, 2)
    assert len(run.steps) == 2
    with monkeypatch.context() as patch:
        patch.setattr("chainrule.watch.ledger.find_alarms", fail)
        with pytest.raises(KeyboardInterrupt):
            watch(model, optimizer, store=path, resume=True)
    watch(model, optimizer, store=path, resume=True).close()


def test_names_that_can_be_read_once_are_kept():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    names = (name for name in ["non_finite"])
    with (
        pytest.raises(TrainingStopped),
        watch(model, optimizer, raise_on=names) as run,
    ):
        train(model, optimizer, run, 5, bad=[2])


def test_a_run_shows_how_far_it_is(tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer) as run:
        assert repr(run) == "Run(0 steps, 0 alarms)"
        train(model, optimizer, run, 3)
    assert repr(run) == "Run(3 steps, 0 alarms)"
    with watch(model, optimizer, store=tmp_path / "a.db") as run:
        train(model, optimizer, run, 2, bad=[1])
    assert repr(run) == f"Run(2 steps, 1 alarm, store={tmp_path / 'a.db'})"


def test_an_optimizer_of_another_model_is_an_alarm():
    model, other = make(), make()
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    with watch(model, optimizer) as run:
        train(model, optimizer, run, 25)
    assert run.alarms
    assert all(facts.optimizer is None for facts in run.facts.parameters)
    assert all(record.total_norm > 0 for record in run.steps)


def test_a_loop_without_steps_is_told(caplog):
    model = make()
    with watch(model, torch.optim.SGD(model.parameters(), 0.1)) as run:
        model(torch.ones(1, 4)).sum().backward()
        run.log(loss=1.0)
    assert len(warnings_in(caplog)) == 1
    assert run.steps == ()


def test_a_model_that_changes_goes_on(caplog):
    model = make()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with watch(model, optimizer, every=2) as run:
        train(model, optimizer, run, 4)
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.5})
        train(model, optimizer, run, 4)
        model[2] = nn.Linear(8, 3)
        optimizer.add_param_group({"params": list(model[2].parameters())})
        train(model, optimizer, run, 4)
        model.double().float()
    assert len(run.steps) == 12
    assert run.steps[3].grad_norms[0] < 0 < run.steps[4].grad_norms[0]
    assert run.steps[4].rates == (0.1, 0.5)
    assert run.steps[-1].grad_norms[2] < 0 or run.steps[-1].grad_norms[2] >= 0
    assert run.samples[-1].replaced == ()  # new, and held by the optimizer
    assert [each for each in warnings_in(caplog) if "2 parameters" in each]


@pytest.mark.parametrize(
    "place",
    [
        "sampling.LayerSampler._note",
        "sampling._summarize",
        "flows._Pass.assemble",
        "flows._Pass._listen",
        "measuring.measure_norms",
        "ledger.find_alarms",
        "run.make_record",
        "run.Run._enter",
        "run.UpdateMeter",
        "store.RunWriter.write",
    ],
)
def test_whatever_fails_in_here_is_told_once_and_training_goes_on(
    place, monkeypatch, caplog, tmp_path
):
    import importlib

    module, *names = place.split(".")
    owner = importlib.import_module(f"chainrule.watch.{module}")
    for name in names[:-1]:
        owner = getattr(owner, name)

    def fail(*args, **kwargs):
        raise RuntimeError("it broke")

    monkeypatch.setattr(owner, names[-1], fail)
    model, plain = make(), make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=2, store=tmp_path / "run.db") as run:
        train(model, optimizer, run, 12)
    expected = torch.optim.SGD(plain.parameters(), 0.1)
    with watch(plain, expected) as other:
        pass
    other.log = lambda **_: None
    train(plain, expected, other, 12)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    said = [each for each in warnings_in(caplog) if "it broke" in each]
    assert said
    assert len(said) == len(set(said))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_disk_that_fails_is_told_once_and_training_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, store=tmp_path / "file" / "run.db") as run:
        train(model, optimizer, run, 5)
    assert len(run.steps) == 5
    assert len(warnings_in(caplog)) == 1

    caplog.clear()
    with watch(model, optimizer, store=tmp_path / "run.db") as run:
        train(model, optimizer, run, 5)
        run._ledger._writer.failure = "the disk is full"
        run._ledger._writer._told = True
        train(model, optimizer, run, 5)
    assert len(run.steps) == 10
    assert [each for each in warnings_in(caplog) if "the disk is full" in each]
    assert len(warnings_in(caplog)) == 1


def test_hooks_of_the_user_that_raise_reach_the_user():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def fail(*_):
        raise ValueError("theirs")

    with watch(model, optimizer) as run:
        train(model, optimizer, run, 2)
        handle = model[1].register_forward_hook(fail)
        with pytest.raises(ValueError, match="theirs"):
            train(model, optimizer, run, 1)
        handle.remove()
        train(model, optimizer, run, 2)
    assert len(run.steps) == 4


def test_a_run_that_nobody_closes_is_closed_at_the_end_of_the_process(programs, tmp_path):
    code = LOOP.replace("with watch", "run = watch").replace(
        ", resume=True) as run:", ")\nif True:"
    )
    path = tmp_path / "run.db"
    done = programs.run(code, path, 30)
    assert done.returncode == 0, done.stderr
    reader = RunReader(path)
    assert len(reader.steps()) == 30
    assert reader.ended
    assert Path(path).exists()
