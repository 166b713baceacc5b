"""Sinks get every record, once and in order, and what they do never reaches the loop."""

import importlib
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import PackageError, WatchError
from chainrule.watch import integrations, watch
from chainrule.watch.integrations import packages
from chainrule.watch.records import Alarm, LayerSample, ParameterFacts, RunFacts, Sample, StepRecord
from chainrule.watch.sinks import read_metrics


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def train(sinks, steps=20, bad=None):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    generator = torch.Generator().manual_seed(1)
    with watch(model, optimizer, sinks=sinks, every=5) as run:
        for step in range(1, steps + 1):
            x = torch.randn(6, 4, generator=generator)
            loss = F.cross_entropy(model(x), x[:, :3].argmax(1))
            optimizer.zero_grad()
            (loss * math.nan if step == bad else loss).backward()
            optimizer.step()
            run.log(loss=loss)
    return run, torch.cat([each.detach().flatten() for each in model.parameters()])


class Keeping:
    def __init__(self):
        self.records, self.facts, self.closed = [], [], 0

    def __call__(self, record, facts):
        self.records.append(record)
        self.facts.append(facts)

    def close(self):
        self.closed += 1


def test_a_sink_gets_every_record_once_and_in_order():
    sink, other = Keeping(), []
    run, _ = train([sink, lambda record, facts: other.append(record)], bad=12)

    def of(kind):
        return tuple(each for each in sink.records if isinstance(each, kind))

    assert of(StepRecord) == run.steps
    assert of(Sample) == run.samples
    assert of(Alarm) == run.alarms != ()
    assert [each.step for each in sink.records] == sorted(each.step for each in sink.records)
    assert {id(each) for each in sink.facts} == {id(run.facts)}
    assert sink.closed == 1
    assert list(map(id, other)) == list(map(id, sink.records))


def test_a_sink_that_raises_is_reported_once_and_the_others_go_on(caplog):
    class Broken(Keeping):
        def __call__(self, record, facts):
            super().__call__(record, facts)
            raise RuntimeError("no space left")

        def close(self):
            raise OSError("gone")

    broken, whole = Broken(), Keeping()
    with caplog.at_level(logging.WARNING):
        run, weights = train([broken, whole])
    said = [each.getMessage() for each in caplog.records]
    assert sum("no space left" in each and "sinks[0]" in each for each in said) == 1
    assert sum("gone" in each for each in said) == 1
    assert len(broken.records) == len(whole.records) >= len(run.steps)
    assert whole.closed == 1
    assert torch.equal(weights, train([])[1])


def test_what_is_no_sink_is_refused():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(WatchError, match=r"sinks\[1\] is 'logs'"):
        watch(model, optimizer, sinks=[print, "logs"])
    assert not optimizer._optimizer_step_pre_hooks
    with watch(model, optimizer, sinks=Keeping()):  # a single one
        pass


def test_metrics_are_named_and_absent_ones_left_out():
    facts = RunFacts(
        name="a",
        model="M",
        parameters=tuple(
            ParameterFacts(name=name, layer="0", kind="Linear", shape=(2,))
            for name in ("0.weight", "strange:[0]")
        ),
        optimizers=(),
        every=10,
    )
    norms = np.array([3.0, -1.0])
    step = StepRecord(
        step=10, seconds=1, grad_norms=norms, total_norm=3.0, scalars={"acc": 0.5}, rates=(0.1, 0.2)
    )
    assert read_metrics(step, facts) == {
        "chainrule/acc": 0.5,
        "chainrule/grad_norm": 3.0,
        "chainrule/lr/0": 0.1,
        "chainrule/lr/1": 0.2,
        "chainrule/gradient/0.weight": 3.0,
    }
    sample = Sample(
        step=10,
        weight_norms=np.array([2.0, 4.0]),
        update_norms=np.array([1.0, 1.0]),
        layers=(LayerSample(name="1", kind="ReLU", mean=0.1, std=0.5, dead_units=0.0),),
    )
    assert read_metrics(sample, facts) == {
        "chainrule/update_ratio/0.weight": 0.5,
        "chainrule/update_ratio/strange__0_": 0.25,
        "chainrule/std/1": 0.5,
        "chainrule/dead_units/1": 0.0,
    }


@pytest.mark.parametrize("name", sorted({*integrations.__all__} - {"TrackioSink"}))  # takes a run
def test_a_missing_package_is_named_with_what_to_run(name, monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "find_spec", lambda package: None)
    home = f"chainrule.watch.integrations.{integrations._HOMES[name]}"
    monkeypatch.delitem(sys.modules, home, raising=False)
    monkeypatch.delitem(vars(integrations), name, raising=False)
    model = make()
    given = {
        "watch_accelerator": (None, model, torch.optim.SGD(model.parameters(), 0.1)),
        "TensorBoardSink": (tmp_path,),
    }.get(name, ())
    sample = Sample(step=1, weight_norms=np.ones(0), update_norms=np.ones(0))

    def use():
        getattr(importlib.import_module(home), name)(*given)(sample, None)

    with pytest.raises(PackageError, match=r"pip install \w+") as caught:
        use()
    assert isinstance(caught.value, ImportError)


def test_no_package_is_loaded_before_it_is_asked_for():
    code = (
        "import sys, chainrule.watch.integrations, chainrule.watch.watching\n"
        "names = {'lightning', 'transformers', 'accelerate', 'tensorboard', 'wandb', 'mlflow'}\n"
        "assert not names & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_closure_that_raises_leaves_no_step_without_numbers():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def fail():
        raise RuntimeError("in the closure")

    def compute():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    run = watch(model, optimizer)
    optimizer.step(compute)
    with pytest.raises(RuntimeError, match="in the closure"):
        optimizer.step(fail)
    run.close()
    assert [step.step for step in run.steps] == [1]


def test_of_a_wrapped_optimizer_the_one_inside_is_watched():
    class Wrapper(torch.optim.Optimizer):  # as Accelerate's: it never calls __init__
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self, closure=None):
            return self.optimizer.step(closure)

    model = make()
    optimizer = Wrapper(torch.optim.Adam(model.parameters()))
    with watch(model, optimizer) as run:
        model(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
    assert run.facts.optimizers[0].kind == "Adam"
    assert len(run.steps) == 1
