"""Recurrent networks and attention."""

from collections.abc import Callable  # noqa: TC003

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from truth_models.family import Batch, Draw, Problem, family
from truth_models.parts import (
    CLASSES,
    compute_cross_entropy,
    compute_square,
    draw_images,
    fix,
    judge_classes,
    judge_values,
    make_dense,
    start_weights,
)

# --- Recurrent -----------------------------------------------------------------------------------


def draw_first(length: int) -> Draw:
    """Return a task: which of four symbols came first, before noise of a length."""

    def draw(generator: Generator, count: int) -> Batch:
        y = torch.randint(CLASSES, (count,), generator=generator)
        x = 0.3 * torch.randn(count, length, 6, generator=generator)
        x[:, 0, :CLASSES] += F.one_hot(y, CLASSES)
        return x, y

    return draw


def draw_sum(length: int) -> Draw:
    """Return the adding task: the sum of the two numbers that are marked, standardized."""

    def draw(generator: Generator, count: int) -> Batch:
        x = torch.rand(count, length, 2, generator=generator)
        x[..., 1] = 0
        half = max(1, length // 2)
        for low, high in ((0, half), (half, length)):
            place = torch.randint(low, high, (count,), generator=generator)
            x[torch.arange(count), place, 1] = 1
        y = (x[..., 0] * x[..., 1]).sum(-1, keepdim=True)
        return x, (y - 1) / 0.41

    return draw


def draw_majority(length: int) -> Draw:
    """Return a task: the most frequent of four symbols."""

    def draw(generator: Generator, count: int) -> Batch:
        y = torch.randint(CLASSES, (count,), generator=generator)
        other = torch.randint(CLASSES, (count, length), generator=generator)
        keep = torch.rand(count, length, generator=generator) < 0.5
        symbols = torch.where(keep, y.unsqueeze(1), other)
        return F.one_hot(symbols, 6).float(), y

    return draw


class Recurrent(nn.Module):
    """A recurrent module whose last step is read."""

    def __init__(self, cell: str, inputs: int, outputs: int, layers: int = 1) -> None:
        super().__init__()
        kinds: dict[str, Callable[[], nn.Module]] = {
            "rnn": lambda: nn.RNN(inputs, 24, layers, batch_first=True),
            "rnn relu": lambda: nn.RNN(inputs, 24, layers, nonlinearity="relu", batch_first=True),
            "lstm": lambda: nn.LSTM(inputs, 24, layers, batch_first=True),
            "gru": lambda: nn.GRU(inputs, 24, layers, batch_first=True),
        }
        self.body = kinds[cell]()
        self.head = nn.Linear(24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


def start_recurrent(net: Recurrent, start: str) -> nn.Module:
    """Start the recurrent weights of a model in a way of their own."""
    if start == "remembering":  # forget gates or update gates almost closed, or the identity
        for name, parameter in net.body.named_parameters():
            if isinstance(net.body, nn.LSTM) and "bias_ih" in name:
                parameter.data[24:48] = 5.0
            elif isinstance(net.body, nn.GRU) and "bias_ih" in name:
                parameter.data[24:48] = 4.0
            elif isinstance(net.body, nn.RNN) and "weight_hh" in name:
                nn.init.eye_(parameter)
        return net
    if start == "orthogonal":
        for name, parameter in net.body.named_parameters():
            if "weight_hh" in name:
                for chunk in parameter.data.split(24):
                    nn.init.orthogonal_(chunk)
        return net
    return start_weights(net, start)


STEP_STARTS = ("pytorch", "pytorch", "remembering", "remembering", "orthogonal", "small", "large")


@family(
    "recurrent",
    44,
    cell=("rnn", "rnn relu", "lstm", "gru"),
    length=(4, 12, 30, 60),
    start=(*STEP_STARTS, "huge"),
)
def first_step(cell: str, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 6, CLASSES), start)
    return Problem("first", net, draw_first(length), compute_cross_entropy, judge_classes)


@family(
    "recurrent",
    22,
    cell=("rnn", "lstm", "gru"),
    length=(4, 20, 50),
    start=(*STEP_STARTS, "zero"),
)
def adding(cell: str, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 2, 1), start)
    return Problem("adding", net, draw_sum(length), compute_square, judge_values)


@family(
    "recurrent",
    20,
    cell=("rnn", "rnn relu", "lstm", "gru"),
    layers=(1, 3),
    length=(8, 30),
    start=(*STEP_STARTS, "normal", "zero"),
)
def majority(cell: str, layers: int, length: int, start: str) -> Problem:
    net = start_recurrent(Recurrent(cell, 6, CLASSES, layers), start)
    return Problem("majority", net, draw_majority(length), compute_cross_entropy, judge_classes)


# --- Attention -----------------------------------------------------------------------------------


class Mixer(nn.Module):
    """Self-attention or a dense branch, in a residual block with its normalization."""

    def __init__(self, width: int, norm: str, *, causal: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.dense = make_dense([width, 2 * width, width], "gelu")
        self.norms = nn.ModuleList(
            nn.Identity() if norm == "none" else nn.LayerNorm(width) for _ in range(2)
        )
        self.after = norm == "after"
        self.causal = causal

    def attend(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1) if self.causal else None
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            x = self.norms[0](x + self.attend(x))
            return self.norms[1](x + self.dense(x))
        x = x + self.attend(self.norms[0](x))
        return x + self.dense(self.norms[1](x))


class Transformer(nn.Module):
    """Tokens in; classes of the whole, or the next token, out."""

    def __init__(
        self, tokens: int, depth: int, norm: str, outputs: int, *, causal: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 24)
        self.position = nn.Parameter(0.02 * torch.randn(16, 24))
        self.blocks = nn.Sequential(*(Mixer(24, norm, causal=causal) for _ in range(depth)))
        self.norm = nn.LayerNorm(24) if norm == "before" else nn.Identity()
        self.head = nn.Linear(24, outputs)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        z = self.embedding(x) + self.position[: x.shape[1]]
        z = self.norm(self.blocks(z))
        return self.head(z if self.causal else z.mean(1))


def draw_pair(generator: Generator, count: int) -> Batch:
    """Tokens of which one is a mark: the token after it is the answer."""
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = torch.randint(CLASSES, (count, 10), generator=generator)
    place = torch.randint(0, 9, (count,), generator=generator)
    x[torch.arange(count), place] = CLASSES
    x[torch.arange(count), place + 1] = y + CLASSES + 1
    return x, y


TRANSFORMER_STARTS = (
    "pytorch", "pytorch", "bert", "xavier", "small", "large", "huge", "zero", "constant", "normal",
)  # fmt: skip


@family(
    "attention",
    40,
    depth=(1, 4, 10),
    norm=("before", "after", "none"),
    start=TRANSFORMER_STARTS,
)
def encoder(depth: int, norm: str, start: str) -> Problem:
    net = start_weights(Transformer(9, depth, norm, CLASSES), start)
    return Problem("pair", net, draw_pair, compute_cross_entropy, judge_classes)


TOKENS = 12


def make_chain() -> tuple[Tensor, float, float]:
    """Return a Markov chain, and the loss of guessing and of knowing it."""
    table = (2.5 * torch.randn(TOKENS, TOKENS, generator=fix(5))).softmax(-1)
    share = torch.matrix_power(table, 50)[0]
    entropy = -(share.unsqueeze(1) * table * table.log()).sum()
    return table, float(-(share * share.log()).sum()), float(entropy)


def draw_text(generator: Generator, count: int) -> Batch:
    table, *_ = make_chain()
    steps = [torch.randint(TOKENS, (count,), generator=generator)]
    for _ in range(12):
        steps.append(torch.multinomial(table[steps[-1]], 1, generator=generator).squeeze(1))
    text = torch.stack(steps, 1)
    return text[:, :-1], text[:, 1:]


def compute_text_loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def judge_text(model: nn.Module, batch: Batch) -> float:
    """Return the loss: 0 if the chain is known, 1 if only the frequencies of the tokens are."""
    _, guess, floor = make_chain()
    return (float(compute_text_loss(model, batch)) - floor) / (guess - floor)


@family(
    "attention",
    36,
    depth=(1, 4, 10),
    norm=("before", "after", "none"),
    tied=("no", "std 1", "std 0.02", "scaled"),
    start=("pytorch", "pytorch", "bert", "large", "small"),
)
def language_model(depth: int, norm: str, tied: str, start: str) -> Problem:
    net = Transformer(TOKENS, depth, norm, TOKENS, causal=True)
    start_weights(net, start)
    if tied != "no":
        net.head.weight = net.embedding.weight
        stds = {"std 1": 1.0, "std 0.02": 0.02, "scaled": 24**-0.5}
        nn.init.normal_(net.embedding.weight, std=stds[tied])
    return Problem("text", net, draw_text, compute_text_loss, judge_text)


class Patches(nn.Module):
    """A vision transformer: patches of 2×2 pixels and a token for the class."""

    def __init__(self, depth: int, norm: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 24, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 24))
        self.position = nn.Parameter(0.02 * torch.randn(17, 24))
        self.blocks = nn.Sequential(*(Mixer(24, norm, causal=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(24) if norm == "before" else nn.Identity()
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.token.expand(len(z), -1, -1), z], 1) + self.position
        return self.head(self.norm(self.blocks(z))[:, 0])


@family("attention", 18, depth=(2, 6), norm=("before", "after", "none"), start=TRANSFORMER_STARTS)
def vision(depth: int, norm: str, start: str) -> Problem:
    net = start_weights(Patches(depth, norm), start)
    return Problem("images", net, draw_images, compute_cross_entropy, judge_classes)
