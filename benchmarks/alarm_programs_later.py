"""Programs of kinds that were looked for later: faulty ones with twins, and sound ones."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from alarm_parts import (
    Batch,
    Conv,
    Recurrent,
    Setup,
    adam,
    classify,
    clean,
    draw,
    faulty,
    he,
    judge_classes,
    judge_values,
    load_images,
    make_curved,
    make_linear,
    make_waves,
    regress,
    sgd,
    stack,
)
from torch import Tensor, nn

# Gradients that nobody sets to zero


@faulty("gradients not zeroed")
def never_zeroed(bug: bool) -> Setup:
    """No gradient is ever set to zero, SGD."""
    data = make_linear()
    model = stack(8, 32, 1)
    return Setup(
        model,
        sgd(model, 0.05),
        regress(data),
        judge_values(data, 0.9),
        zeroes=lambda step: not bug,
    )


@faulty("gradients not zeroed", onset=83)
def zeroed_no_more(bug: bool) -> Setup:
    """From step 83 on a branch of the loop forgets to set gradients to zero, momentum."""
    data = load_images()
    model = Conv()
    return Setup(
        model,
        sgd(model, 0.05, momentum=0.9),
        classify(data),
        judge_classes(data, 0.7),
        zeroes=lambda step: not bug or step < 83,
    )


@faulty("gradients not zeroed")
def zeroed_once_an_epoch(bug: bool) -> Setup:
    """Gradients are set to zero at the beginning of an epoch of 50 steps, and never between."""
    data = make_waves()
    model = Recurrent("gru")
    return Setup(
        model,
        sgd(model, 0.5),
        classify(data),
        judge_classes(data, 0.85),
        300,
        zeroes=lambda step: not bug or step % 50 == 1,
    )


# Targets and inputs that part


def _change(start: int, spoil: Callable[[Batch, torch.Generator], Batch]) -> Any:
    def change(batch: Batch, step: int) -> Batch:
        return batch if step < start else spoil(batch, torch.Generator().manual_seed(step))

    return change


def _shuffle(batch: Batch, g: torch.Generator) -> Batch:
    return batch[0], batch[1][torch.randperm(len(batch[1]), generator=g)]


@faulty("data changed", onset=150)
def classes_random_from_150(bug: bool) -> Setup:
    """From step 150 on the classes are drawn at random."""
    data = load_images()
    change = _change(
        150, lambda b, g: (b[0], torch.randint(0, 10, b[1].shape, generator=g)) if bug else b
    )
    model = stack(64, 64, 10, init=he)
    return Setup(model, sgd(model, 0.1), classify(data, 32, change), judge_classes(data, 0.8), 400)


@faulty("data changed", onset=203)
def batch_shifted_by_one(bug: bool) -> Setup:
    """From step 203 on every target belongs to the image before it; Adam, convolutions."""
    data = load_images()
    change = _change(203, lambda b, g: (b[0], b[1].roll(1)) if bug else b)
    model = Conv(norm=True)
    return Setup(
        model, adam(model, 0.002), classify(data, 32, change), judge_classes(data, 0.8), 400
    )


@faulty("data changed", onset=180)
def values_shuffled_from_180(bug: bool) -> Setup:
    """From step 180 on the values of a regression are shuffled within the batch."""
    data = make_linear()
    model = stack(8, 32, 1)
    change = _change(180, _shuffle if bug else lambda b, g: b)
    return Setup(model, adam(model, 0.01), regress(data, 32, change), judge_values(data, 0.8), 350)


@faulty("data changed", onset=240, patience=40)
def few_examples_shuffled(bug: bool) -> Setup:
    """From step 240 on the targets of batches of four are shuffled."""
    data = load_images()
    model = stack(64, 64, 10, init=he)
    change = _change(240, _shuffle if bug else lambda b, g: b)
    return Setup(model, sgd(model, 0.03), classify(data, 4, change), judge_classes(data, 0.8), 600)


# Units that die between two samples


def _kill(step: int, find: Callable[[Any], Tensor]) -> Any:
    def before(setup: Setup, now: int) -> None:
        if now == step:
            with torch.no_grad():
                find(setup.model).sub_(50.0)

    return before


@faulty("dead units", onset=101)
def first_layer_dies(bug: bool) -> Setup:
    """At step 101, just after a sample, the biases of the first layer become very small."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)
    before = _kill(101 if bug else 0, lambda m: m[0].bias)
    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.8), before=before)


@faulty("dead units", onset=153)
def most_units_die(bug: bool) -> Setup:
    """At step 153 sixty of 64 units of the second layer die; Adam."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)
    before = _kill(153 if bug else 0, lambda m: m[2].bias[:61])
    optimizers = adam(model, 0.001)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.9), 220, before=before)


@faulty("dead units", onset=117)
def convolution_dies(bug: bool) -> Setup:
    """At step 117 every channel of the second convolution dies."""
    data = load_images()
    model = Conv()
    before = _kill(117 if bug else 0, lambda m: m.body[4].bias)
    return Setup(model, adam(model, 0.003), classify(data), judge_classes(data, 0.7), before=before)


# Parameters that no optimizer holds


@faulty("stale optimizer", onset=67)
def one_layer_exchanged(bug: bool) -> Setup:
    """At step 67 the last layer is replaced by a new one, and the optimizer keeps the old one."""
    data = load_images()
    model = stack(64, 8, 8, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        if bug and step == 67:
            torch.manual_seed(9)
            setup.model[4] = nn.Linear(8, 10)
            nn.init.normal_(setup.model[4].weight, std=1e-3)

    return Setup(
        model, adam(model, 0.003), classify(data), judge_classes(data, 0.8), 400, before=before
    )


@faulty("no update", "stale optimizer", onset=1)
def head_exchanged_at_first(bug: bool) -> Setup:
    """The head of a network is replaced after its optimizer was built."""
    data = load_images()
    model = stack(64, 8, 8, 100, init=he)
    optimizers = adam(model, 0.003)
    model[4] = nn.Linear(8, 10)
    nn.init.normal_(model[4].weight, std=1e-3)
    if not bug:
        optimizers = adam(model, 0.01)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.7), 300)


@faulty("no update", "stale optimizer", onset=60)
def unfrozen_and_not_given(bug: bool) -> Setup:
    """At step 60 the first layers begin to ask for gradients, and no optimizer gets them."""
    data = load_images()
    model = stack(64, 6, 64, 10, init=he)
    with torch.no_grad():
        model[0].weight.mul_(0.02)
    model[0].requires_grad_(False)
    optimizers = sgd(model[2:], 0.05)

    def before(setup: Setup, step: int) -> None:
        if step == 60:
            setup.model[0].requires_grad_(True)
            if not bug:
                new = {"params": list(setup.model[0].parameters()), "lr": 0.5}
                setup.optimizers[0].add_param_group(new)

    return Setup(model, optimizers, classify(data), judge_classes(data, 0.5), 800, before=before)


# Freezing on purpose


def _images(model: nn.Module, optimizers: list[torch.optim.Optimizer], **more: Any) -> Setup:
    data, least = load_images(), more.pop("least", 0.7)
    return Setup(model, optimizers, classify(data), judge_classes(data, least), **more)


@clean
def body_frozen_later() -> Setup:
    """The body is frozen at step 90, and the optimizer keeps it."""
    model = stack(64, 64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        if step == 90:
            setup.model[:4].requires_grad_(False)

    return _images(model, adam(model, 0.002), before=before, steps=250)


@clean
def group_with_rate_zero() -> Setup:
    """The body is a group with a learning rate of zero."""
    model = stack(64, 128, 128, 10, init=he)
    groups = [
        {"params": list(model[:4].parameters()), "lr": 0.0},
        {"params": list(model[4:].parameters()), "lr": 0.1},
    ]
    return _images(model, [torch.optim.SGD(groups)], steps=250)


@clean
def probe_of_open_body() -> Setup:
    """Only the head is given to the optimizer, and the body still asks for gradients."""
    model = stack(64, 128, 128, 10, init=he)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model[4:].parameters(), 0.01)]
    return _images(model, optimizers)


@clean
def adapters_on_open_weights() -> Setup:
    """Low-rank adapters are given to the optimizer; the weights beneath ask for gradients."""

    class Adapter(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.layer = nn.Linear(a, b)
            he(self.layer)
            self.a = nn.Parameter(torch.randn(4, a) / a**0.5)
            self.b = nn.Parameter(torch.zeros(b, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + x @ self.a.T @ self.b.T

    model = nn.Sequential(Adapter(64, 64), nn.ReLU(), Adapter(64, 64), nn.ReLU(), Adapter(64, 10))
    small = [p for name, p in model.named_parameters() if "layer" not in name]
    return _images(model, [torch.optim.Adam(small, 0.005)], steps=300)


@clean
def unfrozen_from_the_top() -> Setup:
    """Layers are unfrozen from the top, and given to the optimizer as groups then."""
    model = stack(64, 64, 64, 10, init=he)
    model[:4].requires_grad_(False)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(model[4:].parameters(), 0.003)]

    def before(setup: Setup, step: int) -> None:
        if step in (60, 120):
            layer = setup.model[2 if step == 60 else 0].requires_grad_(True)
            group = {"params": list(layer.parameters()), "lr": 0.001}
            setup.optimizers[0].add_param_group(group)

    return _images(model, optimizers, before=before, steps=250)


@clean
def another_optimizer_for_the_head() -> Setup:
    """The head has an optimizer of its own, which nobody watches."""
    model = stack(64, 64, 64, 10, init=he)
    head = torch.optim.Adam(model[4:].parameters(), 0.003)

    def before(setup: Setup, step: int) -> None:
        if step > 1:
            head.step()
        head.zero_grad()

    return _images(model, sgd(model[:4], 0.05), before=before, steps=250)


@clean
def accumulated_in_place() -> Setup:
    """Three backward passes per step, and gradients are set to zero where they are."""
    data = make_curved()
    model = stack(4, 64, 64, 1)

    def before(setup: Setup, step: int) -> None:
        for optimizer in setup.optimizers:
            optimizer.zero_grad(set_to_none=False)

    return Setup(
        model,
        adam(model, 0.003),
        regress(data, 16),
        judge_values(data, 0.6),
        300,
        accumulate=3,
        before=before,
        zeroes=lambda step: False,
    )


# Losses that are trained against each other


def _make_players(seed: int, turns: int = 1) -> Setup:
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(2)
    real = torch.randn(2000, 2, generator=g) * 0.5 + 1.0
    make = stack(4, 32, 2, act=lambda: nn.LeakyReLU(0.2))
    tell = stack(2, 32, 1, act=lambda: nn.LeakyReLU(0.2))
    model = nn.ModuleDict({"tell": tell, "make": make})
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(each.parameters(), 0.002, betas=(0.5, 0.9)) for each in (tell, make)
    ]

    def loop(setup: Setup, step: int) -> float:
        z = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        fake = make(z)
        optimizers[0].zero_grad()
        loss = F.softplus(-tell(draw((real, real), 64, step)[0])).mean()
        loss = loss + F.softplus(tell(fake.detach())).mean()
        loss.backward()
        optimizers[0].step()
        if step % turns == 0:
            optimizers[1].zero_grad()
            F.softplus(-tell(fake)).mean().backward()
            optimizers[1].step()
        return float(loss.detach())

    def judge(model: Any, losses: Any) -> tuple[bool, str]:
        with torch.no_grad():
            made = make(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
        far = float((made.mean(0) - 1.0).norm())
        return far < 0.7, f"mean {far:.2f} away"

    return Setup(model, optimizers, lambda m, s: torch.zeros(()), judge, 400, loop=loop)


@clean
def two_players() -> Setup:
    """A generator and a discriminator with an optimizer each; the loss stays near 2 ln 2."""
    return _make_players(1)


@clean
def two_players_other_seed() -> Setup:
    """The same from other random numbers."""
    return _make_players(3)


@clean
def two_players_unequal_turns() -> Setup:
    """The discriminator takes four steps for one of the generator."""
    return _make_players(2, 4)
