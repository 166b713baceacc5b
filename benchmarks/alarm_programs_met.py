"""Programs that fail for reasons that people meet in mid-run, with twins; and sound look-alikes."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from alarm_parts import (
    Batch,
    Conv,
    Recurrent,
    Setup,
    Transformer,
    adam,
    classify,
    clean,
    draw,
    faulty,
    he,
    judge_classes,
    judge_loss,
    judge_values,
    load_images,
    make_linear,
    regress,
    sgd,
    stack,
)
from torch import Tensor, nn

HIGH = ("learning rate too high",)
DIVERGES = ("learning rate too high", "exploding")


def _images(model: nn.Module, optimizers: list[torch.optim.Optimizer], **more: Any) -> Setup:
    data, least = load_images(), more.pop("least", 0.8)
    change, size = more.pop("change", None), more.pop("size", 32)
    loss = classify(data, size, change)
    return Setup(model, optimizers, loss, judge_classes(data, least), **more)


def _schedule(rate: Callable[[int], float]) -> Callable[[Setup, int], None]:
    def before(setup: Setup, step: int) -> None:
        for optimizer in setup.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)

    return before


# The learning rate


@faulty(*HIGH, onset=150)
def restart_too_high(bug: bool) -> Setup:
    """A cosine schedule restarts at step 150 at a hundred times the first rate."""
    model = stack(64, 64, 64, 10, init=he)

    def rate(step: int) -> float:
        peak = 10.0 if bug and step >= 150 else 0.1
        return peak * (0.501 + 0.499 * math.cos(math.pi * ((step % 150) / 150)))

    return _images(model, sgd(model, 0.1), before=_schedule(rate), steps=260)


@faulty(*HIGH, onset=77)
def billion_from_77(bug: bool) -> Setup:
    """At step 77, far from any sample, somebody sets the rate to a billion."""
    model = stack(64, 64, 64, 10, init=he)
    before = _schedule(lambda step: 1e9 if bug and step >= 77 else 0.1)
    return _images(model, sgd(model, 0.1), before=before)


@faulty(*HIGH)
def rate_of_1e30(bug: bool) -> Setup:
    """The rate is so high that the second forward pass overflows."""
    model = stack(64, 64, 64, 10, init=he)
    return _images(model, sgd(model, 1e30 if bug else 0.1))


@faulty(*HIGH, patience=60)
def no_warm_up(bug: bool) -> Setup:
    """A transformer with normalization after the blocks, Adam 0.03 without warm-up."""
    model = Transformer(images=True, layers=6, before=False)
    top = 0.03 if bug else 0.001
    before = _schedule(lambda step: top if bug else top * min(1.0, step / 60))
    return _images(model, adam(model, top), before=before, steps=260)


@faulty("learning rate too low", "no update", onset=20, patience=60)
def schedule_falls_too_fast(bug: bool) -> Setup:
    """A rate that is to fall by 0.7 per epoch falls so with every step."""
    model = stack(64, 64, 64, 10, init=he)
    before = _schedule(lambda step: 0.01 * 0.7 ** (step if bug else step // 60))
    return _images(model, sgd(model, 0.01), before=before, steps=400, least=0.6)


@faulty(*DIVERGES)
def accumulated_and_not_divided(bug: bool) -> Setup:
    """Gradients of 32 batches are added up, and nobody divides by 32."""
    model = stack(64, 128, 128, 10, init=he)

    def backward(setup: Setup, step: int) -> float:
        total = 0.0
        for part in range(32):
            loss = setup.loss(setup.model, 32 * step + part)
            (loss if bug else loss / 32).backward()
            total += float(loss.detach()) / 32
        return total

    return _images(model, sgd(model, 0.5), backward=backward, steps=40, size=16)


@faulty(*DIVERGES)
def summed_loss(bug: bool) -> Setup:
    """The loss is the sum over a batch of 256, with the rate for a mean."""
    data = load_images()
    model = Conv()

    def loss(m: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 256, step)
        return F.cross_entropy(m(x), y, reduction="sum" if bug else "mean")

    return Setup(model, sgd(model, 0.2, momentum=0.9), loss, judge_classes(data, 0.7), 120)


@faulty("learning rate too low")
def clipped_to_1e_6(bug: bool) -> Setup:
    """Gradients are clipped to a norm of 10⁻⁶ instead of one."""
    model = stack(64, 64, 64, 10, init=he)
    return _images(model, sgd(model, 0.1), clip=1e-6 if bug else 1.0, steps=260)


@faulty(*HIGH)
def settings_exchanged(bug: bool) -> Setup:
    """The head's group has rate and weight decay the wrong way round: 50 and 0.01."""
    model = stack(64, 64, 64, 10, init=he)
    swapped = {"lr": 50.0, "weight_decay": 0.01} if bug else {"lr": 0.01, "weight_decay": 0.001}
    groups: list[dict[str, Any]] = [
        {"params": list(model[:4].parameters())},
        {"params": list(model[4:].parameters()), **swapped},
    ]
    return _images(model, [torch.optim.AdamW(groups, 0.002)])


# The optimizer


@faulty("no gradient")
def zeroed_before_the_step(bug: bool) -> Setup:
    """Gradients are set to zero between the backward pass and the step."""
    model = stack(64, 64, 64, 10, init=he)
    setup = _images(model, sgd(model, 0.1))
    plain = setup.backward

    def backward(setup: Setup, step: int) -> float:
        loss = plain(setup, step)
        if bug:
            setup.optimizers[0].zero_grad()
        return loss

    setup.backward = backward
    return setup


@faulty("loss flat", "no update", patience=220)
def average_put_back(bug: bool) -> Setup:
    """A slow average of the weights is put into the model before each step, and left there."""
    model = stack(64, 64, 64, 10, init=he)
    average = [p.detach().clone() for p in model.parameters()]

    def before(setup: Setup, step: int) -> None:
        with torch.no_grad():
            for mean, p in zip(average, setup.model.parameters(), strict=True):
                mean.lerp_(p, 0.001)
                if bug:
                    p.copy_(mean)

    return _images(model, sgd(model, 0.03), before=before, steps=260, least=0.7)


@faulty("loss flat", patience=220)
def two_against_each_other(bug: bool) -> Setup:
    """Two optimizers hold the same weights, and one of them goes uphill."""
    model = stack(64, 64, 64, 10, init=he)
    both: list[torch.optim.Optimizer] = [
        torch.optim.SGD(model.parameters(), 0.05),
        torch.optim.SGD(model.parameters(), 0.05, maximize=bug),
    ]
    return _images(model, both, steps=260)


# The batches


@faulty("inputs all zero")
def zeros_from_the_start(bug: bool) -> Setup:
    """Whole numbers up to 16 are divided by 255 without rest."""
    model = stack(64, 64, 64, 10, init=he)
    change = (lambda b, s: ((16 * b[0]) // 255, b[1])) if bug else None
    return _images(model, adam(model, 0.002), change=change)


@faulty("inputs all zero", onset=93)
def zeros_from_93(bug: bool) -> Setup:
    """From step 93 on the loader gives zeros; convolutions without biases, normalized."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )
    change = (lambda b, s: (b[0] * 0 if s >= 93 else b[0], b[1])) if bug else None
    return _images(model, adam(model, 0.005), change=change, least=0.95)


@faulty("non-finite", onset=93)
def undefined_value_in_a_batch(bug: bool) -> Setup:
    """One value of one example is undefined at step 93."""
    model = stack(64, 64, 64, 10, init=he)

    def change(batch: Batch, step: int) -> Batch:
        x = batch[0].clone()
        if bug and step == 93:
            x[3, 7] = math.nan
        return x, batch[1]

    return _images(model, adam(model, 0.002), change=change)


@faulty("data changed", "spike", "outlier batch", onset=61)
def sorted_by_class(bug: bool) -> Setup:
    """The loader gives sixty batches of one class after the other."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)

    def loss(m: nn.Module, step: int) -> Tensor:
        x, y = data
        if bug:
            keep = y == (step - 1) // 60 % 10
            x, y = x[keep], y[keep]
        x, y = draw((x, y), 32, step)
        return F.cross_entropy(m(x), y)

    return Setup(model, sgd(model, 0.1), loss, judge_classes(data, 0.8), 300)


@faulty("data changed", onset=201)
def targets_resorted(bug: bool) -> Setup:
    """At step 201 the targets are read again, in another order; a transformer."""
    data = load_images()
    model = Transformer(images=True)
    other = (
        data[0],
        data[1][torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(1))],
    )

    def loss(m: nn.Module, step: int) -> Tensor:
        x, y = draw(other if bug and step >= 201 else data, 32, step)
        return F.cross_entropy(m(x), y)

    return Setup(model, adam(model, 0.002), loss, judge_classes(data, 0.8), 300)


@faulty("outlier batch", "spike", "dead units", *HIGH, onset=120)
def units_die_after_a_batch(bug: bool) -> Setup:
    """One batch with values of minus a thousand at step 120, and SGD kills units with it."""
    model = stack(64, 64, 64, 10, init=he)

    def change(batch: Batch, step: int) -> Batch:
        return (batch[0] * (-1000.0 if bug and step == 120 else 1.0), batch[1])

    return _images(model, sgd(model, 0.1), change=change, steps=220)


# The model


class _Cut(nn.Module):
    """A body and a head, between which the graph may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = stack(64, 16, 12, init=he)
        self.head = nn.Linear(12, 10)
        self.cut = False

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x))
        return self.head(h.detach() if self.cut else h)


def _cut(start: int, *, to_none: bool) -> Callable[[Setup, int], None]:
    def before(setup: Setup, step: int) -> None:
        setup.model.cut = step >= start
        setup.optimizers[0].zero_grad(set_to_none=to_none)

    return before


@faulty("no gradient", onset=25)
def detached_from_25(bug: bool) -> Setup:
    """From step 25 on a branch of the code detaches what the body gives."""
    model = _Cut()
    before = _cut(25 if bug else 10_000, to_none=True)
    return _images(model, sgd(model, 0.1), before=before, steps=400, least=0.7)


@faulty("no gradient", onset=25)
def detached_and_zeroed_in_place(bug: bool) -> Setup:
    """The same, and gradients are set to zero where they are."""
    model = _Cut()
    before = _cut(25 if bug else 10_000, to_none=False)
    setup = _images(model, sgd(model, 0.1), before=before, steps=400, least=0.7)
    setup.zeroes = lambda step: False
    return setup


class _Half(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.half()).float()


@faulty("non-finite", "exploding")
def scaled_too_far(bug: bool) -> Setup:
    """float16, and the loss is multiplied by 2²⁴ by hand, for gradients to have digits."""
    data = load_images()
    scale = 2.0**24 if bug else 2.0**8
    model = _Half(stack(64, 64, 64, 10, init=he))
    plain = classify(data)
    return Setup(
        model, sgd(model, 0.1 / scale), lambda m, s: scale * plain(m, s), judge_classes(data, 0.8)
    )


@faulty("exploding")
def recurrent_overflow(bug: bool) -> Setup:
    """A ReLU RNN over 200 steps whose recurrent weights double what they read."""
    g = torch.Generator().manual_seed(4)
    x = torch.randn(600, 200, 2, generator=g)
    data = x, (x[:, -5:, 0].sum(1) > 0).long()
    model = Recurrent("relu")
    with torch.no_grad():
        weight: Any = model.cell.weight_hh_l0
        nn.init.eye_(weight).mul_(2.0 if bug else 0.7)
    return Setup(model, adam(model, 0.003), classify(data), judge_classes(data, 0.8), 150, clip=1.0)


# Sound ones that look like trouble


def _make_q(seed: int, copy_weights: Callable[[Any, Any], Any], *, period: int = 100) -> Setup:
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(2000, 4, generator=g)
    actions = torch.randint(0, 2, (2000,), generator=g)
    after = states + 0.1 * torch.randn(2000, 4, generator=g)
    rewards = states[:, 0] * (2 * actions - 1) + 0.5
    torch.manual_seed(seed)
    model = stack(4, 64, 64, 2)
    kept = [copy.deepcopy(model)]

    def loss(m: nn.Module, step: int) -> Tensor:
        if step % period == 1:
            kept[0] = copy_weights(kept[0], m)
        i = torch.randint(0, 2000, (64,), generator=g)
        with torch.no_grad():
            target = rewards[i] + 0.95 * kept[0](after[i]).max(1).values
        return F.mse_loss(m(states[i]).gather(1, actions[i, None]).squeeze(1), target)

    def judge(m: Any, losses: Any) -> tuple[bool, str]:
        with torch.no_grad():
            best = m(states).argmax(1) == (states[:, 0] > 0)
        return float(best.float().mean()) > 0.9, f"{float(best.float().mean()):.2f} best actions"

    return Setup(model, adam(model, 0.001), loss, judge, 700)


def _load(kept: Any, model: Any) -> Any:
    kept.load_state_dict(model.state_dict())
    return kept


def _copy_data(kept: Any, model: Any) -> Any:
    for old, new in zip(kept.parameters(), model.parameters(), strict=True):
        old.data.copy_(new.data)
    return kept


@clean
def target_network() -> Setup:
    """Q-learning whose target network is loaded anew every 100 steps."""
    return _make_q(0, _load)


@clean
def target_network_copied_by_hand() -> Setup:
    """The same, parameter by parameter, every 70 steps."""
    return _make_q(2, _copy_data, period=70)


@clean
def target_network_made_anew() -> Setup:
    """The same, and the target network is a new copy each time."""
    return _make_q(1, lambda kept, model: copy.deepcopy(model))


@clean
def mean_teacher() -> Setup:
    """Answers of an average of the weights are targets as well."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)
    teacher = copy.deepcopy(model)

    def loss(m: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        with torch.no_grad():
            for mean, p in zip(teacher.parameters(), m.parameters(), strict=True):
                mean.lerp_(p, 0.05)
            wanted = teacher(x).softmax(-1)
        answer = m(x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(step)))
        return F.cross_entropy(answer, y) + F.cross_entropy(answer, wanted)

    return Setup(model, adam(model, 0.002), loss, judge_classes(data, 0.85), 300)


@clean
def sparse_features() -> Setup:
    """Nine of ten features of an example are zero, and a batch holds two examples."""
    x, y = make_linear(20)
    g = torch.Generator().manual_seed(3)
    x = x * (torch.rand(x.shape, generator=g) < 0.1)
    y = x.sum(1, keepdim=True)
    model = stack(20, 32, 1)
    return Setup(model, adam(model, 0.003), regress((x, y), 2), judge_values((x, y), 0.7), 700)


@clean
def large_first_outputs() -> Setup:
    """Features in the ten thousands go through a normalization first."""
    x, y = make_linear(8)
    data = 3e4 * x + 5e4, y
    model = nn.Sequential(nn.BatchNorm1d(8), *stack(8, 32, 1))
    return Setup(model, adam(model, 0.01), regress(data), judge_loss(0.2), 300)
