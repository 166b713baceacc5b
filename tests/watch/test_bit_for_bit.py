"""A watched run trains exactly as an unwatched one: losses, weights and random numbers."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chainrule.watch import watch

STEPS = 500


class Model(nn.Module):
    def __init__(self, reentrant=None):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(8, 3)
        self.reentrant = reentrant

    def middle(self, h):
        return self.drop(self.act(self.norm(h)))

    def forward(self, x):
        h = self.first(x)
        if self.reentrant is None:
            h = self.middle(h)
        else:
            h = checkpoint(self.middle, h, use_reentrant=self.reentrant)
        return self.last(h)


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=generator), torch.randint(3, (5,), generator=generator)


def plain(model, optimizer, step, log):
    x, y = batch(step)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    log(loss)


def accumulated(model, optimizer, step, log):
    x, y = batch(step)
    loss = F.cross_entropy(model(x), y)
    (loss / 4).backward()
    if step % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
    log(loss)


def bfloat16(model, optimizer, step, log):
    x, y = batch(step)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    log(loss)


def make_scaled():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=20)

    def scaled(model, optimizer, step, log):
        x, y = batch(step)
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        log(loss)

    return scaled


def compile_eagerly(model):
    torch._dynamo.reset()
    return torch.compile(model, backend="aot_eager")


CASES = {
    "plain": (Model, lambda: plain),
    "accumulation": (Model, lambda: accumulated),
    "bfloat16": (Model, lambda: bfloat16),
    "float16 with a scaler": (Model, make_scaled),
    "checkpoint": (lambda: Model(reentrant=False), lambda: plain),
    "reentrant checkpoint": (lambda: Model(reentrant=True), lambda: plain),
    "compiled": (lambda: compile_eagerly(Model()), lambda: plain),
}


def train(case, make_optimizer, watching):
    make_model, make_step = CASES[case]
    model, step = make_model(), make_step()
    optimizer = make_optimizer(model.parameters())
    torch.manual_seed(7)
    losses = []
    run = watch(model, optimizer, every=3, on_alarm=lambda _: None) if watching else None
    with run or contextlib.nullcontext():
        for number in range(STEPS):

            def log(loss):
                losses.append(loss.item())
                if run:
                    run.log(loss=loss)

            step(model, optimizer, number, log)
    weights = [t.clone() for t in (*model.parameters(), *model.buffers())]
    return losses, weights, torch.get_rng_state(), run


@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same(case):
    def make_optimizer(parameters):
        return torch.optim.Adam(parameters, 0.003, weight_decay=0.01)

    losses, weights, state, _ = train(case, make_optimizer, False)
    own_losses, own_weights, own_state, run = train(case, make_optimizer, True)
    assert own_losses == losses
    assert all(torch.equal(a, b) for a, b in zip(own_weights, weights, strict=True))
    assert torch.equal(own_state, state)
    assert not run._notices._said
    count = STEPS // 4 if case == "accumulation" else STEPS
    assert run.steps[-1].step == len(run.steps) == count
    if case == "float16 with a scaler":
        assert any(record.skipped for record in run.steps)
    if case == "compiled":
        assert not run.samples[-1].layers
        assert "torch.compile" in run.samples[-1].missing
    else:
        names = ["first", "norm", "act", "drop", "last"]
        assert [layer.name for layer in run.samples[-1].layers] == names
        assert all(layer.delta_norm for layer in run.samples[-1].layers if layer.name != "act")
        assert [layer.name for layer in run.flow(1).layers] == names


@pytest.mark.parametrize("compiles", ["the model", "in place", "a function around it", "later"])
def test_compiled_code_is_neither_broken_nor_compiled_again(compiles):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    called = watched = model
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    if compiles == "the model":
        called = watched = torch.compile(model, backend=backend)
    elif compiles == "in place":
        model.compile(backend=backend)
    elif compiles == "a function around it":
        called = torch.compile(lambda x: model(x) * 1.0, backend=backend)
    with watch(watched, optimizer, every=2) as run:
        if compiles == "later":
            called = torch.compile(model, backend=backend)
        for number in range(12):
            x, y = batch(number)
            F.cross_entropy(called(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    # Hooks that are there when a function around the model is compiled are compiled with it, once.
    assert len(graphs) == (1 if compiles in {"the model", "in place"} else 2)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert len(run.steps) == 12
    assert all(record.total_norm > 0 for record in run.steps)
    assert all(sample.update_norms.max() > 0 for sample in run.samples)
    assert all(sample.missing and not sample.layers for sample in run.samples)
    assert not run._notices._said
    torch._dynamo.reset()
