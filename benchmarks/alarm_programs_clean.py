"""Sound programs: models, optimizers, schedules and habits of many kinds, which all train."""

from typing import Any

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
    clean,
    draw,
    glorot,
    he,
    judge_classes,
    judge_loss,
    judge_values,
    load_images,
    make_curved,
    make_linear,
    make_sequences,
    make_waves,
    regress,
    sgd,
    stack,
)
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedules


def _images(model: nn.Module, optimizers: list[torch.optim.Optimizer], **more: Any) -> Setup:
    data = load_images()
    size, least = more.pop("size", 32), more.pop("least", 0.7)
    return Setup(model, optimizers, classify(data, size), judge_classes(data, least), **more)


@clean
def dense_sgd() -> Setup:
    """Dense ReLU network, SGD."""
    model = stack(64, 64, 64, 10)
    return _images(model, sgd(model, 0.3), steps=400)


@clean
def dense_momentum_cosine() -> Setup:
    """Momentum and a cosine schedule to zero."""
    model = stack(64, 64, 64, 10, init=he)
    optimizers = sgd(model, 0.05, momentum=0.9)
    return _images(
        model, optimizers, schedules=[schedules.CosineAnnealingLR(optimizers[0], 300)], steps=320
    )


@clean
def dense_adam_one_cycle() -> Setup:
    """Adam with one cycle of the rate."""
    model = stack(64, 64, 64, 10, norm=nn.LayerNorm)
    optimizers = adam(model, 0.001)
    cycle = schedules.OneCycleLR(optimizers[0], 0.02, total_steps=300)
    return _images(model, optimizers, schedules=[cycle], steps=300)


@clean
def warm_up_from_zero() -> Setup:
    """A transformer with warm-up from a rate of zero, clipping, AdamW."""
    model = Transformer(images=True)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model.parameters(), 0.005)]
    warm = schedules.LambdaLR(optimizers[0], lambda s: min(1.0, s / 60))
    return _images(model, optimizers, schedules=[warm], steps=300, clip=1.0)


@clean
def transformer_after_norm() -> Setup:
    """A transformer with normalization after the blocks, dropout, inverse square root."""
    model = Transformer(images=True, before=False, dropout=0.1)
    optimizers = adam(model, 0.004)
    rate = schedules.LambdaLR(optimizers[0], lambda s: min((s + 1) / 40, (40 / (s + 1)) ** 0.5))
    return _images(model, optimizers, schedules=[rate], steps=300)


@clean
def transformer_on_tokens() -> Setup:
    """A transformer on sequences of tokens."""
    data = make_sequences()
    model = Transformer(width=64)
    return Setup(model, adam(model, 0.003), classify(data, 64), judge_classes(data, 0.3), 400)


@clean
def convolution_batch_norm() -> Setup:
    """Convolutions with batch normalization, SGD with momentum."""
    model = Conv(norm=True)
    return _images(model, sgd(model, 0.05, momentum=0.9))


@clean
def convolution_plain_adam() -> Setup:
    """Convolutions without normalization, Adam."""
    model = Conv(pool=False)
    return _images(model, adam(model, 0.005))


@clean
def residual_zero_branches() -> Setup:
    """Residual blocks whose last layer starts at zero."""
    model = Residual(6, zero=True)
    return _images(model, sgd(model, 0.1))


@clean
def residual_deep() -> Setup:
    """Sixteen residual blocks."""
    model = Residual(16)
    return _images(model, adam(model, 0.002), steps=150)


@clean
def recurrent_tanh() -> Setup:
    """An RNN on sums over time, clipping."""
    data = make_waves()
    model = Recurrent("rnn")
    return Setup(model, adam(model, 0.005), classify(data), judge_classes(data, 0.8), 300, clip=1.0)


@clean
def recurrent_lstm() -> Setup:
    """An LSTM."""
    data = make_waves()
    model = Recurrent("lstm")
    return Setup(model, adam(model, 0.01), classify(data), judge_classes(data, 0.8), 250)


@clean
def recurrent_gru_rmsprop() -> Setup:
    """A GRU with RMSprop."""
    data = make_waves()
    model = Recurrent("gru")
    optimizers: list[torch.optim.Optimizer] = [torch.optim.RMSprop(model.parameters(), 0.003)]
    return Setup(model, optimizers, classify(data), judge_classes(data, 0.8), 250)


@clean
def small_batches() -> Setup:
    """Two examples per batch."""
    model = stack(64, 64, 10, init=he)
    return _images(model, sgd(model, 0.02), size=2, steps=600)


@clean
def single_examples() -> Setup:
    """One example per batch, regression."""
    data = make_linear()
    model = stack(8, 32, 1)
    return Setup(model, sgd(model, 0.01), regress(data, 1), judge_values(data, 0.7), 600)


@clean
def small_batches_convolution() -> Setup:
    """Four images per batch, Adam."""
    model = Conv()
    return _images(model, adam(model, 0.002), size=4, steps=400)


@clean
def accumulated_gradients() -> Setup:
    """Four backward passes per step."""
    model = stack(64, 64, 10, init=he)
    return _images(model, sgd(model, 0.1), size=8, accumulate=4)


@clean
def dropout_heavy() -> Setup:
    """Dropout of one half."""
    model = stack(64, 128, 128, 10, dropout=0.5)
    return _images(model, adam(model, 0.002), steps=300)


@clean
def fine_tuned_head() -> Setup:
    """A frozen body and a new head."""
    model = stack(64, 64, 64, 10, init=he)
    for layer in list(model)[:4]:
        layer.requires_grad_(False)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01)
    ]
    return _images(model, optimizers)


@clean
def fine_tuned_small_rate() -> Setup:
    """A trained network goes on with a small rate, and with weight decay."""
    model = stack(64, 64, 10, init=he)
    data = load_images()
    warm = torch.optim.Adam(model.parameters(), 0.003)
    for step in range(150):
        warm.zero_grad()
        classify(data)(model, 5000 + step).backward()
        warm.step()
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model.parameters(), 2e-5)]
    return _images(model, optimizers, steps=300)


@clean
def two_groups() -> Setup:
    """Two groups, the body with a hundredth of the rate."""
    model = stack(64, 64, 64, 10, init=he)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(
            [
                {"params": list(model[:4].parameters()), "lr": 0.002},
                {"params": list(model[4:].parameters()), "lr": 0.2},
            ]
        )
    ]
    return _images(model, optimizers, steps=300)


@clean
def two_optimizers() -> Setup:
    """SGD for the body, Adam for the head."""
    model = stack(64, 64, 64, 10, init=he)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(model[:4].parameters(), 0.05),
        torch.optim.Adam(model[4:].parameters(), 0.003),
    ]
    return _images(model, optimizers)


@clean
def autoencoder() -> Setup:
    """An autoencoder of the images."""
    x, _ = load_images()
    model = stack(64, 64, 12, 64, 64, act=nn.ELU)
    return Setup(model, adam(model, 0.003), regress((x, x), 64), judge_values((x, x), 0.4), 400)


@clean
def variational_autoencoder() -> Setup:
    """A variational autoencoder: a loss of two terms, with random numbers."""
    x, _ = load_images()

    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = stack(64, 64, 16), stack(8, 64, 64)

        def forward(self, a: Tensor) -> Tensor:
            mean, spread = self.encoder(a).chunk(2, -1)
            z = mean + torch.randn_like(mean) * (spread / 2).exp()
            rest = F.mse_loss(self.decoder(z), a, reduction="none").sum(1)
            extra = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)
            return (rest + 0.1 * extra).mean()

    model = Vae()
    return Setup(
        model, adam(model, 0.003), lambda m, s: m(draw((x, x), 64, s)[0]), judge_loss(0.6), 300
    )


@clean
def metric_learning() -> Setup:
    """Triplets with a margin: many examples soon have no loss."""
    x, y = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        g = torch.Generator().manual_seed(step)
        a = torch.randint(0, len(x), (48,), generator=g)
        same = torch.stack([torch.nonzero(y == y[i])[int(i) % 50, 0] for i in a])
        other = torch.randint(0, len(x), (48,), generator=g)
        keep = y[other] != y[a]
        return F.triplet_margin_loss(model(x[a[keep]]), model(x[same[keep]]), model(x[other[keep]]))

    model = stack(64, 64, 16)
    return Setup(model, adam(model, 0.003), loss, judge_loss(0.5), 250)


@clean
def solved_completely() -> Setup:
    """A task that is solved: the loss falls by many powers of ten."""
    data = make_linear(noise=0.0)
    model = nn.Sequential(nn.Linear(8, 1))
    return Setup(model, sgd(model, 0.2), regress(data), judge_values(data, 0.99), 500)


@clean
def separable_hinge() -> Setup:
    """A hinge loss on separable classes: later steps have no gradient."""
    x, _ = make_linear()
    y = 2.0 * (x[:, :1] + x[:, 1:2] > 0) - 1
    far = (x[:, 0] + x[:, 1]).abs() > 0.7
    data = (x[far], y[far])

    def loss(model: nn.Module, step: int) -> Tensor:
        a, b = draw(data, 16, step)
        return F.relu(1 - b * model(a)).mean()

    model = nn.Sequential(nn.Linear(8, 1))
    return Setup(model, sgd(model, 0.5), loss, judge_loss(0.1), 400)


@clean
def noisy_regression() -> Setup:
    """A regression with as much noise as signal."""
    data = make_linear(noise=1.0)
    model = stack(8, 32, 1, act=nn.Tanh)
    return Setup(model, sgd(model, 0.05), regress(data), judge_values(data, 0.3), 400)


@clean
def heavy_tailed_targets() -> Setup:
    """Targets with a heavy tail and a robust loss."""
    x, y = make_linear()
    noise = torch.distributions.StudentT(2.0).sample(y.shape) * 0.3
    data = (x, y + noise)

    def loss(model: nn.Module, step: int) -> Tensor:
        a, b = draw(data, 32, step)
        return F.smooth_l1_loss(model(a), b)

    model = stack(8, 32, 1)
    return Setup(model, adam(model, 0.005), loss, judge_loss(0.7), 400)


@clean
def rare_class() -> Setup:
    """One class in fifty examples."""
    x, _ = make_linear()
    y = (x[:, 0] > 1.9).long()
    model = stack(8, 32, 2)
    return Setup(model, adam(model, 0.01), classify((x, y), 64), judge_classes((x, y), 0.97), 300)


@clean
def counts_poisson() -> Setup:
    """Counts, with a Poisson loss, which may be negative."""
    x, y = make_linear()
    counts = torch.poisson((1.5 + y).clamp(min=0.2), generator=torch.Generator().manual_seed(1))

    def loss(model: nn.Module, step: int) -> Tensor:
        a, b = draw((x, counts), 32, step)
        return F.poisson_nll_loss(model(a), b)

    model = stack(8, 32, 1)
    return Setup(model, adam(model, 0.005), loss, judge_values((x, counts), -5.0), 300)


@clean
def label_smoothing_nadam() -> Setup:
    """Smoothed labels, NAdam, and steps of the schedule."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        return F.cross_entropy(model(x), y, label_smoothing=0.1)

    model = stack(64, 64, 10, act=nn.SiLU)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.NAdam(model.parameters(), 0.004)]
    return Setup(
        model,
        optimizers,
        loss,
        judge_classes(data, 0.8),
        300,
        schedules=[schedules.StepLR(optimizers[0], 100, 0.1)],
    )


@clean
def adagrad_embeddings() -> Setup:
    """Embeddings with Adagrad: most rows have no gradient in a step."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(8, 16), stack(12 * 16, 64, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x).flatten(1))

    data = make_sequences()
    model = Bag()
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adagrad(model.parameters(), 0.05)]
    return Setup(model, optimizers, classify(data, 64), judge_classes(data, 0.4), 400)


@clean
def gradient_scaler_float16() -> Setup:
    """Mixed precision in float16 with a scaler that begins far too high."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        with torch.autocast("cpu", torch.float16):
            answer = model(x)
        return F.cross_entropy(answer.float(), y)

    model = stack(64, 64, 64, 10, init=he)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    return Setup(model, sgd(model, 0.1), loss, judge_classes(data, 0.7), scaler=scaler)


@clean
def autocast_bfloat16() -> Setup:
    """Mixed precision in bfloat16."""
    data = load_images()

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = draw(data, 32, step)
        with torch.autocast("cpu", torch.bfloat16):
            answer = model(x)
        return F.cross_entropy(answer.float(), y)

    model = Residual()
    return Setup(model, adam(model, 0.003), loss, judge_classes(data, 0.7))


@clean
def gradual_unfreezing() -> Setup:
    """Layers are unfrozen one after the other."""
    model = stack(64, 64, 64, 10, init=he)
    optimizers = adam(model, 0.002)
    layers = [model[0], model[2]]
    for layer in layers:
        layer.requires_grad_(False)

    def before(setup: Setup, step: int) -> None:
        if step in (60, 120):
            layers[1 if step == 60 else 0].requires_grad_(True)

    return _images(model, optimizers, before=before, steps=250)


@clean
def low_rank_adapters() -> Setup:
    """Frozen weights with low-rank adapters, the second factor zero at first."""

    class Adapter(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(4, layer.in_features) / layer.in_features**0.5)
            self.b = nn.Parameter(torch.zeros(layer.out_features, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + x @ self.a.T @ self.b.T

    def wrap(a: int, b: int) -> Adapter:
        layer = nn.Linear(a, b)
        he(layer)
        return Adapter(layer)

    model = nn.Sequential(wrap(64, 64), nn.ReLU(), wrap(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return _images(model, adam(model, 0.005))


@clean
def data_in_order() -> Setup:
    """Every class in turn for ten steps: the loss goes up and down."""
    x, y = load_images()
    parts = [(x[y % 2 == k], y[y % 2 == k]) for k in range(2)]

    def loss(model: nn.Module, step: int) -> Tensor:
        a, b = draw(parts[step // 10 % 2], 32, step)
        return F.cross_entropy(model(a), b)

    model = stack(64, 64, 10, init=he)
    return Setup(model, adam(model, 0.001), loss, judge_classes((x, y), 0.6), 400)


@clean
def networks_in_turns() -> Setup:
    """A generator and a discriminator, trained in turns."""
    g = torch.Generator().manual_seed(2)
    real = torch.randn(2000, 2, generator=g) * 0.5 + 1.0

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make = stack(4, 32, 2, act=lambda: nn.LeakyReLU(0.2))
            self.tell = stack(2, 32, 1, act=lambda: nn.LeakyReLU(0.2))

        def forward(self, z: Tensor) -> Tensor:
            return self.make(z)

    def loss(model: nn.Module, step: int) -> Tensor:
        assert isinstance(model, Pair)
        z = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        turn = step % 2
        model.make.requires_grad_(bool(turn))
        model.tell.requires_grad_(not turn)
        fake = model.tell(model.make(z))
        if turn:
            return F.softplus(-fake).mean()
        return (
            F.softplus(fake).mean()
            + F.softplus(-model.tell(draw((real, real), 64, step)[0])).mean()
        )

    def judge(model: nn.Module, losses: Any) -> tuple[bool, str]:
        with torch.no_grad():
            made = model(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
        far = float((made.mean(0) - 1.0).norm())
        return far < 0.7, f"mean {far:.2f} away"

    model = Pair()
    optimizers = adam(model, 0.002, betas=(0.5, 0.9))
    return Setup(model, optimizers, loss, judge, 300)


@clean
def loss_not_logged() -> Setup:
    """No loss is logged."""
    model = stack(64, 64, 10, act=nn.Tanh, init=glorot)
    return _images(model, sgd(model, 0.1), logged=False, steps=300)


@clean
def sigmoid_shallow() -> Setup:
    """Two sigmoid layers at the default start, SGD 0.5."""
    model = stack(64, 64, 10, act=nn.Sigmoid)
    return _images(model, sgd(model, 0.5), steps=500)


@clean
def selu_deep() -> Setup:
    """Ten SELU layers, Adamax."""

    def lecun(layer: nn.Linear) -> None:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)

    model = stack(64, *[64] * 9, 10, act=nn.SELU, init=lecun)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adamax(model.parameters(), 0.002)]
    return _images(model, optimizers)


@clean
def mixture_of_experts() -> Setup:
    """Each example goes to one of four experts; some have no gradient in a step."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.head = nn.Linear(64, 4), nn.Linear(32, 10)
            self.experts = nn.ModuleList(stack(64, 32, 32) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            weight, choice = self.gate(x).softmax(-1).max(-1)
            out = x.new_zeros(len(x), 32)
            for number, expert in enumerate(self.experts):
                rows = (choice == number).nonzero()[:, 0]
                if len(rows):
                    out = out.index_add(0, rows, expert(x[rows]) * weight[rows, None])
            return self.head(F.relu(out))

    model = Experts()
    return _images(model, adam(model, 0.003), size=8, steps=400)


@clean
def restarts_of_the_rate() -> Setup:
    """Cosine schedule with warm restarts."""
    model = stack(64, 64, 64, 10, init=he)
    optimizers = sgd(model, 0.1, momentum=0.9)
    restarts = schedules.CosineAnnealingWarmRestarts(optimizers[0], 60)
    return _images(model, optimizers, schedules=[restarts], steps=300)


@clean
def curved_regression_lion_like() -> Setup:
    """Steps of the sign of the gradient."""

    class Sign(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": 0.001})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.sub_(group["lr"] * p.grad.sign())

    data = make_curved()
    model = stack(4, 64, 64, 1)
    return Setup(model, [Sign(model.parameters())], regress(data), judge_values(data, 0.6), 400)
