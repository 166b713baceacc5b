"""What the programs of the truth about alarms are made of: data, models, losses, judges."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Loss = Callable[[Any, int], Tensor]
Judge = Callable[[Any, Sequence[float]], tuple[bool, str]]
Batch = tuple[Tensor, Tensor]


def run_backward(setup: "Setup", step: int) -> float:
    """Run one backward pass, or several whose gradients are added, and return the loss."""
    total = 0.0
    for part in range(setup.accumulate):
        loss = setup.loss(setup.model, (step - 1) * setup.accumulate + part + 1)
        whole = loss / setup.accumulate
        if setup.scaler is not None:
            whole = setup.scaler.scale(whole)
        if whole.requires_grad:
            whole.backward()
        total += float(loss.detach()) / setup.accumulate
    return total


def do_nothing(setup: "Setup", step: int) -> None:
    """Change nothing before a step."""


@dataclass
class Setup:
    """One training, ready to go.

    Attributes:
        model: The model.
        optimizers: Its optimizers.
        loss: Computes the loss of a step, counted from 1.
        judge: Says of the trained model and its losses whether it trained, and a word.
        steps: How many.
        before: Called before each step.
        schedules: Learning-rate schedules, stepped after each step.
        clip: The norm that gradients are clipped to.
        scaler: A gradient scaler.
        accumulate: Backward passes per step.
        logged: Whether the loss is logged.
        zeroes: Whether gradients are set to zero before a step.
        loop: Does all of a step instead, and returns the loss.
    """

    model: Any
    optimizers: list[torch.optim.Optimizer]
    loss: Loss
    judge: Judge
    steps: int = 200
    before: Callable[["Setup", int], None] = do_nothing
    backward: Callable[["Setup", int], float] = run_backward
    schedules: Sequence[Any] = ()
    clip: float | None = None
    scaler: Any = None
    accumulate: int = 1
    logged: bool = True
    zeroes: Callable[[int], bool] = lambda step: True
    loop: Callable[["Setup", int], float] | None = None


@dataclass(frozen=True)
class Program:
    """One training program, faulty or sound.

    Attributes:
        name: Its key.
        build: Makes it anew; of a faulty one, `build(False)` is its sound twin.
        kinds: Kinds of alarm that name its trouble rightly; empty if it is sound.
        onset: The step at which the trouble begins.
        patience: Steps within which an alarm counts as in time.
        what: What it is, in a few words.
        group: "known", "own" or "clean".
        seed: Of its random numbers.
        also: Kinds that are true of it as well.
        source: The function that it was written as.
    """

    name: str
    build: Callable[[bool], Setup]
    kinds: tuple[str, ...] = ()
    onset: int = 1
    patience: int = 20
    what: str = ""
    group: str = "own"
    seed: int = 0
    also: tuple[str, ...] = ()
    source: Any = None


PROGRAMS: dict[str, Program] = {}


def faulty(
    *kinds: str,
    onset: int = 1,
    patience: int = 20,
    group: str = "own",
    also: tuple[str, ...] = (),
) -> Callable[[Callable[[bool], Setup]], Callable[[bool], Setup]]:
    """Register a faulty program with its twin; its docstring says what it is."""

    def register(build: Callable[[bool], Setup]) -> Callable[[bool], Setup]:
        name = build.__name__
        PROGRAMS[name] = Program(
            name,
            build,
            kinds,
            onset,
            patience,
            (build.__doc__ or "").strip().rstrip("."),
            group,
            also=also,
            source=build,
        )
        return build

    return register


def clean(build: Callable[[], Setup]) -> Callable[[], Setup]:
    """Register a sound program."""
    name = build.__name__
    PROGRAMS[name] = Program(
        name,
        lambda bug: build(),
        what=(build.__doc__ or "").strip().rstrip("."),
        group="clean",
        source=build,
    )
    return build


@cache
def load_images(scale: float = 1 / 16) -> Batch:
    """Return the digits of scikit-learn, [1797, 64], shuffled, and their classes."""
    data = load_digits()
    order = np.random.RandomState(0).permutation(len(data.data))
    return (
        torch.tensor(data.data[order] * scale, dtype=torch.float32),
        torch.tensor(data.target[order]),
    )


@cache
def make_linear(features: int = 8, noise: float = 0.1, outputs: int = 1) -> Batch:
    """Return a regression with standardized features."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(1500, features, generator=g)
    w = torch.randn(features, outputs, generator=g) / features**0.5
    return x, x @ w + noise * torch.randn(1500, outputs, generator=g)


@cache
def make_curved(features: int = 4) -> Batch:
    """Return a regression that is not linear."""
    g = torch.Generator().manual_seed(6)
    x = torch.randn(1500, features, generator=g)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3] * 0.5
    return x, y


@cache
def make_sequences(length: int = 12, tokens: int = 8) -> Batch:
    """Return sequences of tokens, and the token that stands at the place the first one names."""
    g = torch.Generator().manual_seed(7)
    x = torch.randint(0, tokens, (2000, length), generator=g)
    return x, (x[:, -1] + x[:, -2]) % tokens


@cache
def make_waves(length: int = 20) -> Batch:
    """Return noisy sums over time, [1500, length, 2], and whether the sum is positive."""
    g = torch.Generator().manual_seed(8)
    x = torch.randn(1500, length, 2, generator=g)
    return x, (x[:, :, 0].sum(1) > 0).long()


def draw(data: Batch, size: int, step: int) -> Batch:
    """Return the batch of a step."""
    g = torch.Generator().manual_seed(1000 + step)
    index = torch.randint(0, len(data[0]), (size,), generator=g)
    return data[0][index], data[1][index]


def classify(
    data: Batch, size: int = 32, change: Callable[[Batch, int], Batch] | None = None
) -> Loss:
    """Return a loss: cross-entropy on the batch of the step, which `change` may spoil."""

    def compute(model: nn.Module, step: int) -> Tensor:
        batch = draw(data, size, step)
        x, y = batch if change is None else change(batch, step)
        return F.cross_entropy(model(x), y)

    return compute


def regress(
    data: Batch, size: int = 32, change: Callable[[Batch, int], Batch] | None = None
) -> Loss:
    """Return a loss: mean squared error on the batch of the step."""

    def compute(model: nn.Module, step: int) -> Tensor:
        batch = draw(data, size, step)
        x, y = batch if change is None else change(batch, step)
        return F.mse_loss(model(x), y)

    return compute


def _answer(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        answer = model(x)
    model.train()
    return answer.float()


def judge_classes(data: Batch, least: float) -> Judge:
    """Return a judge: accuracy on all data."""

    def judge(model: nn.Module, losses: Sequence[float]) -> tuple[bool, str]:
        answer = _answer(model, data[0])
        if not torch.isfinite(answer).all():
            return False, "output not finite"
        share = float((answer.argmax(-1) == data[1]).float().mean())
        return share >= least, f"accuracy {share:.2f}"

    return judge


def judge_values(data: Batch, least: float) -> Judge:
    """Return a judge: explained variance on all data."""

    def judge(model: nn.Module, losses: Sequence[float]) -> tuple[bool, str]:
        answer = _answer(model, data[0])
        if not torch.isfinite(answer).all():
            return False, "output not finite"
        rest = ((answer - data[1]) ** 2).sum() / ((data[1] - data[1].mean(0)) ** 2).sum()
        return float(1 - rest) >= least, f"R² {float(1 - rest):.2f}"

    return judge


def judge_loss(part: float) -> Judge:
    """Return a judge: mean of the last ten losses ÷ mean of the first three."""

    def judge(model: nn.Module, losses: Sequence[float]) -> tuple[bool, str]:
        end, start = float(np.mean(losses[-10:])), float(np.mean(losses[:3]))
        return math.isfinite(end) and end <= part * start, f"loss {start:.3g} to {end:.3g}"

    return judge


def judge_calm(onset: int, times: float = 3.0) -> Judge:
    """Return a judge: the loss never leaves its history, from a step on, by so many times."""

    def judge(model: nn.Module, losses: Sequence[float]) -> tuple[bool, str]:
        usual = float(np.median(losses[onset - 30 : onset - 1]))
        worst = max(losses[onset - 1 :])
        return worst <= times * usual, f"loss {usual:.3g}, at worst {worst:.3g}"

    return judge


def stack(
    *widths: int,
    act: Callable[[], nn.Module] | None = nn.ReLU,
    end: nn.Module | None = None,
    init: Callable[[nn.Linear], None] | None = None,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> Any:
    """Return dense layers in a row."""
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if number < len(widths) - 2:
            if norm is not None:
                layers.append(norm(b))
            if act is not None:
                layers.append(act())
            if dropout:
                layers.append(nn.Dropout(dropout))
    if end is not None:
        layers.append(end)
    if init is not None:
        for layer in layers:
            if isinstance(layer, nn.Linear):
                init(layer)
    return nn.Sequential(*layers)


def he(layer: nn.Linear) -> None:
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


def glorot(layer: nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def constant(layer: nn.Linear) -> None:
    nn.init.constant_(layer.weight, 0.1)
    nn.init.zeros_(layer.bias)


def zeros(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def normal(std: float, bias: float = 0.0) -> Callable[[nn.Linear], None]:
    def init(layer: nn.Linear) -> None:
        nn.init.normal_(layer.weight, std=std)
        nn.init.constant_(layer.bias, bias)

    return init


class Conv(nn.Module):
    """A small convolutional network for the digits."""

    def __init__(self, norm: bool = False, width: int = 8, pool: bool = True) -> None:
        super().__init__()

        def bn(n: int) -> nn.Module:
            return nn.BatchNorm2d(n) if norm else nn.Identity()

        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            bn(width),
            nn.ReLU(),
            nn.MaxPool2d(2) if pool else nn.AvgPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            bn(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2) if pool else nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.view(-1, 1, 8, 8)))


class Block(nn.Module):
    """A residual block of dense layers."""

    def __init__(self, width: int, zero: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * width, width)
        if zero:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(self.norm(x))))


class Residual(nn.Module):
    """A residual network for the digits."""

    def __init__(self, depth: int = 4, width: int = 32, zero: bool = False) -> None:
        super().__init__()
        self.into = nn.Linear(64, width)
        self.blocks = nn.Sequential(*(Block(width, zero) for _ in range(depth)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.into(x)))


class Transformer(nn.Module):
    """A small transformer that reads tokens, or rows of an image."""

    def __init__(
        self,
        tokens: int = 8,
        width: int = 32,
        layers: int = 2,
        length: int = 12,
        images: bool = False,
        before: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.images = images
        self.into: nn.Module = nn.Linear(8, width) if images else nn.Embedding(tokens, width)
        self.place = nn.Parameter(0.1 * torch.randn(8 if images else length, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=dropout, batch_first=True, norm_first=before
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10 if images else tokens)

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x.view(-1, 8, 8) if self.images else x) + self.place
        h = self.body(h)
        return self.head(h.mean(1) if self.images else h[:, -1])


class Recurrent(nn.Module):
    """A recurrent network that answers after the last time step."""

    def __init__(
        self, cell: str = "rnn", width: int = 24, inputs: int = 2, classes: int = 2
    ) -> None:
        super().__init__()
        kinds: Mapping[str, Any] = {
            "rnn": nn.RNN,
            "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
            "lstm": nn.LSTM,
            "gru": nn.GRU,
        }
        self.cell = kinds[cell](inputs, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def sgd(model: nn.Module, rate: float, **settings: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(model.parameters(), rate, **settings)]


def adam(model: nn.Module, rate: float, **settings: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adam(model.parameters(), rate, **settings)]
