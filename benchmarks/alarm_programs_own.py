"""Faulty programs of many kinds, each with a sound twin."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from alarm_parts import (
    Conv,
    Recurrent,
    Residual,
    Setup,
    Transformer,
    adam,
    classify,
    constant,
    draw,
    faulty,
    glorot,
    he,
    judge_calm,
    judge_classes,
    judge_loss,
    judge_values,
    load_images,
    make_curved,
    make_linear,
    make_sequences,
    make_waves,
    normal,
    regress,
    sgd,
    stack,
    zeros,
)
from torch import Tensor, nn

EXPLODES = ("exploding", "learning rate too high")
Batch = tuple[Tensor, Tensor]


# Learning rates


@faulty("learning rate too high")
def regression_rate_2(bug: bool) -> Setup:
    """SGD above 2 ÷ λ on a regression."""
    data = make_linear()
    model = stack(8, 32, 1, init=he)
    return Setup(model, sgd(model, 2.0 if bug else 0.05), regress(data), judge_values(data, 0.9))


@faulty("learning rate too high")
def momentum_too_high(bug: bool) -> Setup:
    """SGD 1 with momentum 0.99."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)
    optimizers = sgd(model, 1.0 if bug else 0.05, momentum=0.99 if bug else 0.9)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.8))


@faulty("learning rate too high")
def adam_rate_1(bug: bool) -> Setup:
    """Adam with a rate of 1 on a transformer."""
    data = load_images()
    model = Transformer(images=True)
    optimizers = adam(model, 1.0 if bug else 0.003)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.7))


@faulty("learning rate too high")
def convolution_rate_5(bug: bool) -> Setup:
    """SGD 5 on a convolutional network without normalization."""
    data = load_images()
    model = Conv()
    return Setup(model, sgd(model, 5.0 if bug else 0.1), classify(data), judge_classes(data, 0.7))


@faulty("learning rate too high", "spike", onset=121)
def rate_jumps(bug: bool) -> Setup:
    """From step 121 on the rate is a thousand times as large."""
    data = load_images()
    model = stack(64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        setup.optimizers[0].param_groups[0]["lr"] = 300.0 if bug and step >= 121 else 0.1

    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.8), before=before)


@faulty("learning rate too high")
def weight_decay_too_high(bug: bool) -> Setup:
    """Weight decay × rate above 2: the weights grow by themselves."""
    data = make_curved()
    model = stack(4, 64, 1)
    optimizers = sgd(model, 0.05, weight_decay=60.0 if bug else 1e-4)
    return Setup(model, optimizers, regress(data), judge_values(data, 0.6), 400)


@faulty("learning rate too low")
def sgd_rate_1e_7(bug: bool) -> Setup:
    """SGD with a rate of 10⁻⁷."""
    data = load_images()
    model = stack(64, 64, 10)
    return Setup(model, sgd(model, 1e-7 if bug else 0.3), classify(data), judge_classes(data, 0.8))


@faulty("learning rate too low")
def adam_rate_1e_9(bug: bool) -> Setup:
    """Adam with a rate of 10⁻⁹ on a convolutional network."""
    data = load_images()
    model = Conv()
    return Setup(
        model, adam(model, 1e-9 if bug else 3e-3), classify(data), judge_classes(data, 0.7)
    )


@faulty("learning rate too low")
def loss_divided(bug: bool) -> Setup:
    """The loss is divided by the number of weights, and SGD keeps its rate."""
    data = make_curved()
    model = stack(4, 64, 64, 1)
    plain = regress(data)
    return Setup(
        model,
        sgd(model, 0.1),
        lambda m, s: plain(m, s) / (1e6 if bug else 1.0),
        judge_values(data, 0.6),
        400,
    )


@faulty("learning rate too low", "loss flat", patience=250)
def rate_somewhat_too_low(bug: bool) -> Setup:
    """SGD with a rate of 3·10⁻⁵: it moves, and gets nowhere."""
    data = load_images()
    model = stack(64, 64, 64, 10)
    return Setup(
        model, sgd(model, 3e-5 if bug else 0.3), classify(data), judge_classes(data, 0.7), 300
    )


@faulty("no update", "learning rate too low", onset=11)
def schedule_in_wrong_unit(bug: bool) -> Setup:
    """The schedule counts epochs and is stepped with every batch: zero after ten steps."""
    data = load_images()
    model = stack(64, 64, 10, act=nn.Sigmoid)
    optimizers = sgd(model, 0.3)
    end = 10 if bug else 400
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda s: max(0.0, 1 - s / end))
    return Setup(
        model, optimizers, classify(data), judge_classes(data, 0.7), 400, schedules=[schedule]
    )


# Inputs and targets


@faulty(*EXPLODES)
def convolution_pixels_to_255(bug: bool) -> Setup:
    """Pixels from 0 to 255 into a convolutional network, SGD 0.1."""
    data = load_images(255 / 16 if bug else 1 / 16)
    model = Conv()
    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.7))


@faulty(*EXPLODES)
def one_feature_out_of_scale(bug: bool) -> Setup:
    """One of eight features is 10,000 times as large."""
    x, y = make_linear()
    x = x.clone()
    if bug:
        x[:, 3] *= 1e4
    model = stack(8, 32, 1)
    return Setup(model, sgd(model, 0.05), regress((x, y)), judge_values((x, y), 0.8))


@faulty(*EXPLODES)
def targets_out_of_scale(bug: bool) -> Setup:
    """Targets in the hundred thousands, squared error."""
    x, y = make_curved()
    y = y * 1e5 + 1e5 if bug else y
    model = stack(4, 64, 1)
    return Setup(model, sgd(model, 0.1), regress((x, y)), judge_values((x, y), 0.6), 400)


@faulty("loss flat", patience=250)
def targets_shuffled(bug: bool) -> Setup:
    """The classes do not belong to the images."""
    data = load_images()

    def shuffle(batch: Batch, step: int) -> Batch:
        g = torch.Generator().manual_seed(step)
        return (batch[0], batch[1][torch.randperm(len(batch[1]), generator=g)]) if bug else batch

    model = stack(64, 64, 10)
    return Setup(model, sgd(model, 0.1), classify(data, 32, shuffle), judge_classes(data, 0.8), 300)


@faulty("loss flat", patience=250)
def inputs_of_noise(bug: bool) -> Setup:
    """The loader gives noise instead of the images."""
    data = load_images()

    def lose(batch: Batch, step: int) -> Batch:
        g = torch.Generator().manual_seed(step)
        return (torch.rand(batch[0].shape, generator=g), batch[1]) if bug else batch

    model = Conv(norm=True)
    return Setup(model, adam(model, 0.003), classify(data, 32, lose), judge_classes(data, 0.8), 300)


# Losses


@faulty("non-finite")
def root_of_zero(bug: bool) -> Setup:
    """A distance by hand, √Σ(a − b)², of equal points: its gradient is undefined."""
    x, _ = make_linear()

    def loss(model: nn.Module, step: int) -> Tensor:
        a, _ = draw((x, x), 32, step)
        b = a + 0.5 * torch.randn(a.shape, generator=torch.Generator().manual_seed(step))
        b[0] = a[0] if step >= 1 else b[0]
        square = ((model(a) - model(b)) ** 2).sum(1)
        return ((square if bug else square + 1e-6).sqrt() - (a - b).norm(dim=1)).square().mean()

    model = stack(8, 32, 4)
    return Setup(model, sgd(model, 0.05), loss, judge_loss(0.6))


@faulty("non-finite", onset=90)
def deviation_of_one_example(bug: bool) -> Setup:
    """A batch of one example at step 90, and the batch's standard deviation in the loss."""
    data = make_linear()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 1 if step == 90 else 32, step)
        spread = x.std(0, correction=1 if bug else 0)
        return F.mse_loss(model(x), y) * (1 + 0.01 * spread.mean())

    model = stack(8, 32, 1)
    return Setup(model, sgd(model, 0.05), loss, judge_values(data, 0.8))


@faulty("non-finite", onset=1, patience=200)
def logarithm_of_probability(bug: bool) -> Setup:
    """The logarithm of a softmax that reaches zero."""
    data = load_images(40.0)

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        answer = model(x)
        if bug:
            return -(answer.softmax(1).log() * F.one_hot(y, 10)).sum(1).mean()
        return F.cross_entropy(answer, y)

    model = stack(64, 64, 10)
    return Setup(model, adam(model, 0.003), loss, judge_classes(data, 0.8))


@faulty("no gradient")
def rounded_answers(bug: bool) -> Setup:
    """The answers are rounded before the loss."""
    data = make_linear()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        answer = model(x)
        return F.mse_loss(answer.round() if bug else answer, y)

    model = stack(8, 32, 1)
    return Setup(model, sgd(model, 0.05), loss, judge_values(data, 0.8))


@faulty("no gradient")
def answers_clamped(bug: bool) -> Setup:
    """The answers are clamped to a range that they never reach."""
    x, y = make_linear()
    y = y + 20

    def loss(model: nn.Module, step: int) -> Tensor:
        a, b = draw((x, y), 32, step)
        answer = model(a)
        return F.mse_loss(answer.clamp(10, 30) if bug else answer, b)

    model = stack(8, 32, 1)
    return Setup(model, sgd(model, 0.02), loss, judge_values((x, y), 0.7), 400)


# Units


@faulty("dead units")
def biases_far_below_zero(bug: bool) -> Setup:
    """ReLU with biases of −20: nearly no unit is ever on."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=normal(0.15, -20.0 if bug else 0.0))
    return Setup(model, adam(model, 0.001), classify(data), judge_classes(data, 0.7))


@faulty("dead units", onset=100)
def one_step_kills(bug: bool) -> Setup:
    """At step 100 one step of the biases, a thousand times too large, turns every unit off."""
    data = load_images()
    model = stack(64, 64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        if bug and step == 100:
            with torch.no_grad():
                setup.model[0].bias.sub_(30.0)

    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.8), before=before)


@faulty("dead units", onset=80, patience=60)
def units_die_slowly(bug: bool) -> Setup:
    """From step 80 on a penalty with the wrong sign pulls the biases down."""
    data = load_images()
    plain = classify(data)

    def loss(model: nn.Module, step: int) -> Tensor:
        hidden = [each for each in model.children() if isinstance(each, nn.Linear)][:2]
        biases = sum(each.bias.sum() for each in hidden)
        return plain(model, step) + (5.0 * biases if bug and step >= 80 else 0.0)

    model = stack(64, 64, 64, 10, init=he)
    return Setup(model, sgd(model, 0.1), loss, judge_classes(data, 0.8), 250)


@faulty("saturation")
def tanh_inputs_to_1000(bug: bool) -> Setup:
    """Features of size 1,000 into tanh."""
    x, y = make_curved()
    x = 1000 * x if bug else x
    model = stack(4, 32, 32, 1, act=nn.Tanh, init=normal(0.5))
    return Setup(model, adam(model, 0.003), regress((x, y)), judge_values((x, y), 0.5), 400)


@faulty("saturation")
def sigmoid_weights_of_20(bug: bool) -> Setup:
    """Sigmoid units with weights of N(0, 20²)."""
    data = load_images()
    model = stack(64, 64, 64, 10, act=nn.Sigmoid, init=normal(20.0) if bug else glorot)
    if bug:
        glorot(model[-1])
    return Setup(model, sgd(model, 0.5), classify(data), judge_classes(data, 0.9), 800)


@faulty("symmetric units")
def constant_weights(bug: bool) -> Setup:
    """Every weight is 0.1."""
    data = load_images()
    model = stack(64, 64, 64, 10, act=nn.Tanh, init=constant if bug else glorot)
    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.7))


@faulty("symmetric units")
def zero_hidden_layers(bug: bool) -> Setup:
    """All hidden weights zero, tanh."""
    x, y = make_curved()
    model = stack(4, 32, 32, 1, act=nn.Tanh, init=zeros if bug else glorot)
    return Setup(model, adam(model, 0.01), regress((x, y)), judge_values((x, y), 0.6), 300)


# Depth and time


@faulty("vanishing")
def sigmoid_15_layers(bug: bool) -> Setup:
    """Fifteen sigmoid layers at PyTorch's default start."""
    data = load_images()
    model = stack(64, *[64] * 14, 10, act=nn.Sigmoid if bug else nn.ReLU, init=None if bug else he)
    return Setup(model, sgd(model, 0.05), classify(data), judge_classes(data, 0.7), 400)


@faulty("vanishing")
def tanh_small_weights(bug: bool) -> Setup:
    """Twelve tanh layers with weights of N(0, 0.02²)."""
    data = load_images()
    model = stack(64, *[64] * 11, 10, act=nn.Tanh, init=normal(0.02) if bug else glorot)
    return Setup(model, sgd(model, 0.05), classify(data), judge_classes(data, 0.7), 300)


@faulty("vanishing")
def relu_small_weights(bug: bool) -> Setup:
    """Eight ReLU layers with weights of N(0, 0.01²), momentum."""
    data = load_images()
    model = stack(64, *[64] * 7, 10, init=normal(0.01) if bug else he)
    optimizers = sgd(model, 0.03, momentum=0.9)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.7), 200)


@faulty("exploding", also=("saturation",))
def deep_large_weights(bug: bool) -> Setup:
    """Twenty tanh layers with weights of N(0, 1): chaos."""
    data = load_images()
    model = stack(64, *[64] * 19, 10, act=nn.Tanh, init=normal(1.0) if bug else glorot)
    if bug:
        glorot(model[-1])
    return Setup(model, sgd(model, 0.05), classify(data), judge_classes(data, 0.7), 300)


@faulty("exploding")
def recurrent_large_weights(bug: bool) -> Setup:
    """A ReLU RNN over 60 steps whose recurrent weights multiply by about two."""
    data = make_waves(60)
    model = Recurrent("relu")
    with torch.no_grad():
        model.cell.weight_hh_l0.copy_((2.0 if bug else 1.0) * torch.eye(24))
    optimizers = adam(model, 0.001)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.8), 300)


@faulty("loss flat", "vanishing", patience=250)
def memory_over_80_steps(bug: bool) -> Setup:
    """An RNN is asked for what it saw 80 steps ago."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1500, 80 if bug else 5, 2, generator=g)
    data = (x, (x[:, 0, 0] > 0).long())
    model = Recurrent("rnn")
    return Setup(model, adam(model, 0.003), classify(data), judge_classes(data, 0.8), 300)


# Masked rows and batches


@faulty("non-finite", onset=60)
def mean_over_nothing(bug: bool) -> Setup:
    """A mean over the tokens that are not padding, of a sequence of padding only, at step 60."""
    data = make_sequences()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        keep = torch.ones(len(x))
        if step == 60:
            keep[:] = 0
        each = F.cross_entropy(model(x), y, reduction="none") * keep
        return each.sum() / (keep.sum() if bug else keep.sum().clamp(min=1))

    model = Transformer()
    return Setup(model, adam(model, 0.003), loss, judge_loss(0.9), 300)


@faulty("empty batches", onset=60, patience=20)
def most_targets_ignored(bug: bool) -> Setup:
    """From step 60 on three of four batches have only targets that are ignored."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        if bug and step >= 60 and step % 4:
            y = torch.full_like(y, -100)
        found = (y >= 0).sum().clamp(min=1)
        return F.cross_entropy(model(x), y, reduction="sum", ignore_index=-100) / found

    def judge(model: nn.Module, losses: Sequence[float]) -> tuple[bool, str]:
        share = float(np.mean([each == 0.0 for each in losses]))
        return share < 0.1, f"{100 * share:.0f} % of the batches are empty"

    model = Conv()
    return Setup(model, sgd(model, 0.05), loss, judge)


@faulty("non-finite", onset=45)
def class_weights_of_zero(bug: bool) -> Setup:
    """A weighted mean whose weights are all zero at step 45."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        if bug and step == 45:
            y = torch.zeros_like(y)
        weight = torch.ones(10)
        weight[0] = 0.0
        return F.cross_entropy(model(x), y, weight=weight)

    model = Residual()
    return Setup(model, adam(model, 0.002), loss, judge_classes(data, 0.65))


# Half precision


class Half(nn.Module):
    """A model that computes in another number format."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.to(self.dtype)).float()


@faulty("underflow")
def half_without_scaling(bug: bool) -> Setup:
    """float16 and a loss divided by ten million, which rate and momentum make up for."""
    data = make_curved()
    model = Half(stack(4, 64, 64, 1), torch.float16 if bug else torch.float32)
    plain = regress(data)
    optimizers = sgd(model, 6e4, momentum=0.9)
    return Setup(model, optimizers, lambda m, s: 1e-7 * plain(m, s), judge_values(data, 0.5), 400)


@faulty("no update")
def bfloat16_small_steps(bug: bool) -> Setup:
    """Weights of bfloat16, and steps smaller than their last digit."""
    data = load_images()
    model = Half(stack(64, 64, 10, init=he), torch.bfloat16 if bug else torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.sign(parameter) * 0.1)
    rate = 2e-6 if bug else 0.1
    return Setup(model, sgd(model, rate), classify(data), judge_classes(data, 0.7))


@faulty("non-finite", "exploding")
def half_overflow(bug: bool) -> Setup:
    """Activations above 65,504 in float16."""
    data = load_images(4.0 if bug else 1 / 16)
    model = Half(stack(64, 128, 128, 10, init=normal(3.0) if bug else he), torch.float16)
    return Setup(model, sgd(model, 0.02), classify(data), judge_classes(data, 0.7), 300)


# Optimizers that do not fit


@faulty("stale optimizer", onset=60)
def head_replaced(bug: bool) -> Setup:
    """The whole model is replaced at step 60 and the optimizer is not."""
    data = load_images()
    model = stack(64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        if bug and step == 60:
            torch.manual_seed(9)
            setup.model[0] = nn.Linear(64, 64)
            setup.model[2] = nn.Linear(64, 10)

    return Setup(model, sgd(model, 0.1), classify(data), judge_classes(data, 0.8), before=before)


@faulty("stale optimizer", onset=80)
def reloaded_by_assignment(bug: bool) -> Setup:
    """A checkpoint is loaded with `assign=True` at step 80."""
    data = make_curved()
    model = stack(4, 64, 64, 1)

    def before(setup: Setup, step: int) -> None:
        if step == 80:
            state = copy.deepcopy(setup.model.state_dict())
            setup.model.load_state_dict(state, assign=bug)

    return Setup(
        model, adam(model, 0.003), regress(data), judge_values(data, 0.8), 400, before=before
    )


@faulty("no update")
def layers_added_afterwards(bug: bool) -> Setup:
    """The last layer is added after the optimizer was built, and its weights are too large."""
    data = load_images()
    torch.manual_seed(1)
    body = stack(64, 8, 8, init=normal(0.02))
    optimizers = sgd(body, 0.1)
    head = nn.Linear(8, 10)
    model = nn.Sequential(body, nn.ReLU(), head)
    nn.init.normal_(head.weight, std=1e-3)
    if not bug:
        optimizers = adam(model, 0.01)
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.5), 300)


@faulty("no gradient")
def body_without_gradients(bug: bool) -> Setup:
    """The body runs under `torch.no_grad`, by surprise."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = stack(64, 6, 6, init=normal(0.05)), nn.Linear(6, 10)

        def forward(self, x: Tensor) -> Tensor:
            if not bug:
                return self.head(torch.relu(self.body(x)))
            with torch.no_grad():
                h = self.body(x)
            return self.head(torch.relu(h))

    data = load_images()
    model = Cut()
    return Setup(model, adam(model, 0.01), classify(data), judge_classes(data, 0.6), 400)


@faulty("no gradient", "stale optimizer", onset=50)
def frozen_at_step_50(bug: bool) -> Setup:
    """A callback meant for another model freezes everything but a bias at step 50."""
    data = load_images()
    model = stack(64, 64, 10, act=nn.Sigmoid)

    def before(setup: Setup, step: int) -> None:
        if bug and step == 50:
            for parameter in list(setup.model.parameters())[:-1]:
                parameter.requires_grad_(False)

    return Setup(
        model, sgd(model, 0.2), classify(data), judge_classes(data, 0.7), 400, before=before
    )


# Data that change, spikes


@faulty("data changed", "spike", onset=120)
def normalization_lost(bug: bool) -> Setup:
    """From step 120 on the inputs come without their normalization."""
    x, y = load_images()
    mean, spread = x.mean(), x.std()

    def scale(batch: Batch, step: int) -> Batch:
        a, b = batch
        return (20 * a + 10 if bug and step >= 120 else (a - mean) / spread), b

    model = Conv()
    return Setup(
        model,
        adam(model, 0.005),
        classify((x, y), 32, scale),
        judge_calm(120, 4.0),
    )


@faulty("data changed", "spike", onset=150)
def classes_renumbered(bug: bool) -> Setup:
    """From step 150 on the classes have other numbers."""
    data = load_images()

    def renumber(batch: Batch, step: int) -> Batch:
        return (batch[0], (batch[1] + 3) % 10) if bug and step >= 150 else batch

    model = stack(64, 64, 10, init=he)
    return Setup(model, sgd(model, 0.1), classify(data, 32, renumber), judge_calm(150), 250)


@faulty("outlier batch", "spike", onset=120)
def one_batch_out_of_scale(bug: bool) -> Setup:
    """The targets of one batch are 30 times as large."""
    data = make_linear()

    def spoil(batch: Batch, step: int) -> Batch:
        return (batch[0], 30 * batch[1]) if bug and step == 120 else batch

    model = stack(8, 32, 1, init=he)
    return Setup(model, adam(model, 0.003), regress(data, 32, spoil), judge_calm(120, 5.0))


@faulty("outlier batch", "spike", onset=140)
def one_damaged_record(bug: bool) -> Setup:
    """One record of a batch has values of a thousand."""
    data = load_images()

    def spoil(batch: Batch, step: int) -> Batch:
        x = batch[0].clone()
        if bug and step == 140:
            x[3] = 1000.0
        return x, batch[1]

    model = stack(64, 64, 10, init=he)
    return Setup(model, sgd(model, 0.05), classify(data, 32, spoil), judge_calm(140, 5.0), clip=1.0)


@faulty("spike", "learning rate too high", onset=130)
def spike_that_recovers(bug: bool) -> Setup:
    """One step with 60 times the rate, at step 130."""
    data = load_images()
    model = stack(64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        setup.optimizers[0].param_groups[0]["lr"] = 6.0 if bug and step == 130 else 0.1

    return Setup(
        model, sgd(model, 0.1), classify(data), judge_calm(130), 250, before=before, clip=5.0
    )


@faulty("spike", onset=110)
def adam_after_calm(bug: bool) -> Setup:
    """Weights are disturbed at step 110, as a bit flip does, and training repairs them."""
    data = make_curved()
    model = stack(4, 64, 64, 1)

    def before(setup: Setup, step: int) -> None:
        if bug and step == 110:
            with torch.no_grad():
                setup.model[4].weight[0, :8] += 2.0

    return Setup(
        model, adam(model, 0.005), regress(data, 64), judge_calm(110, 5.0), 250, before=before
    )


@faulty("stalled", onset=150, patience=60)
def weights_decay_to_nothing(bug: bool) -> Setup:
    """From step 150 on weight decay is 10,000 times as large."""
    data = load_images()
    model = stack(64, 64, 10, init=he)

    def before(setup: Setup, step: int) -> None:
        group: Any = setup.optimizers[0].param_groups[0]
        group["weight_decay"] = 5.0 if bug and step >= 150 else 5e-4

    return Setup(
        model, sgd(model, 0.1), classify(data), judge_classes(data, 0.8), 300, before=before
    )
