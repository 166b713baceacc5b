"""Advice against what lies outside of the weights: what is shown is pasted and run."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import Verdict, diagnose, find_remedies, inspect
from chainrule.remedies import advice as table
from faults import FAULTS, Program, Reader, draw_sequences, stack, unscaled_targets


def advise(name):
    """Return the first advice on a fault."""
    torch.manual_seed(0)
    made = FAULTS[name].build(True)
    program = made if isinstance(made, Program) else Program(*made)
    found = find_remedies(program.model, program.compute_loss, optimizer=program.optimizer)
    assert not found.tried
    return found.advice


def run(entry, **names):
    """Run the code of an advice as a person would, and return what it assigns."""
    space = {"torch": torch, "nn": nn, **names}
    exec(entry.code, space)
    return space


def verdict(model, compute_loss, optimizer=None):
    return diagnose(inspect(model, compute_loss, optimizer)).verdict


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("large inputs", lambda x: 1e4 * x),
        ("small inputs", lambda x: 1e-3 * x),
        ("years", lambda x: 2000 + 10 * x),
        ("mixed units", lambda x: x * torch.logspace(-5, 0, 10)),
    ],
)
def test_standardized_inputs_are_in_scale(name, change):
    x, labels = change(torch.randn(64, 10)), torch.randint(3, (64,))
    model = stack(10, 24, 3)
    assert verdict(model, lambda m: F.cross_entropy(m(x), labels)) is Verdict.INPUTS
    x = run(advise(name)[0], x=x)["x"]
    assert verdict(model, lambda m: F.cross_entropy(m(x), labels)) is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("name", "units", "y"),
    [
        ("softmax twice", 40, torch.arange(64) % 40),
        ("sigmoid as logits", 4, (torch.arange(256).reshape(64, 4) % 20 == 0).float()),
        ("softmax of one", 1, (torch.arange(64)[:, None] % 2).float()),
    ],
)
def test_a_loss_of_logits_expects_what_it_gets(name, units, y):
    (entry, *_), x = advise(name), torch.randn(64, 16)
    model = stack(16, 32, units)
    assert verdict(model, lambda m: run(entry, logits=m(x), y=y)["loss"]) is Verdict.HEALTHY


def test_a_sure_critic_is_heard_through_logits():
    torch.manual_seed(0)
    found = find_remedies(*FAULTS["sure critic"].build(True), measurements=2)
    assert found.advice == (table.ON_LOGITS,)
    z, y, model = torch.randn(48, 8), torch.ones(48), stack(8, 32, 32, 16)

    def compute(m):
        return run(table.ON_LOGITS, logits=m(z).mean(1) - 60, y=y)["loss"]

    assert verdict(model, compute) is Verdict.HEALTHY


def test_standardized_targets_are_near_the_first_answers():
    model, compute = unscaled_targets(30.0)
    found = find_remedies(model, compute, measurements=2)
    assert found.advice[0] == table.SCALED_TARGETS
    x = torch.randn(128, 10)
    y = torch.tanh(x[:, :2]) + 30.0
    y = run(found.advice[0], y=y)["y"]
    assert verdict(model, lambda m: F.mse_loss(m(x), y)) is Verdict.HEALTHY


def test_half_precision_keeps_its_gradients():
    wide, scaled = advise("small loss in half precision")[:2]
    x, y, model = torch.randn(64, 16), torch.tanh(torch.randn(64, 8)), stack(16, 32, 32, 8)

    def compute(m):
        return 1e-5 * F.mse_loss(run(wide, model=m, x=x)["output"].float(), y)

    assert verdict(model, compute) is Verdict.HEALTHY
    optimizer = torch.optim.SGD(model.parameters(), 1e4)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.autocast("cpu", torch.float16):
        output = model(x)
    run(scaled, loss=1e-5 * F.mse_loss(output.float(), y), optimizer=optimizer, x=x)
    assert all(not p.equal(old) for p, old in zip(model.parameters(), before, strict=True))
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_optimizer_built_last_holds_the_model():
    x = torch.randn(64, 6)
    y, model = torch.tanh(x[:, :2]), stack(6, 24, 2)
    optimizer = run(advise("other parameters")[0], model=model)["optimizer"]
    assert verdict(model, lambda m: F.mse_loss(m(x), y), optimizer) is Verdict.HEALTHY


def test_the_first_steps_of_a_warm_up_are_small():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 300.0)
    schedule = run(advise("rate too large")[0], optimizer=optimizer)["schedule"]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3.0)
    for _ in range(100):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(300.0)


def test_probabilities_have_a_derivative():
    logits = torch.randn(4, 6, requires_grad=True)
    run(advise("argmax in a term")[0], logits=logits)["chosen"][:, 0].sum().backward()
    assert logits.grad.norm() > 0


def test_a_mean_over_steps_reaches_the_first():
    torch.manual_seed(0)
    model = Reader(nn.LSTM(2, 24, batch_first=True))
    x, labels = draw_sequences(80)
    found = find_remedies(model, lambda m: F.cross_entropy(m(x), labels), measurements=2)
    assert found.diagnosis.findings[0].rule == "unheard_steps"

    def compute(m):
        return F.cross_entropy(m.head(run(found.advice[0], rnn=m.rnn, x=x)["hidden"]), labels)

    assert verdict(model, compute) is Verdict.HEALTHY


@pytest.mark.parametrize("name", ["empty masks", "sure critic", "softmax twice", "years"])
def test_another_architecture_is_no_advice_where_the_fault_is_outside(name):
    torch.manual_seed(0)
    found = find_remedies(*FAULTS[name].build(True), measurements=2)
    titles = {each.title for each in found.advice}
    assert not titles & {"Residual connections", "Normalization"}
