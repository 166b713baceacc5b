"""Models that do not train, or train though they look sick: what a verdict has to tell apart.

Each function returns (model, compute_loss), seeded, as in `model_zoo`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import model_zoo
from model_zoo import BasicBlock, Case, Sequences, Translator, tokens

VARIANTS: dict[str, Callable[[], Case]] = {}


def variant(name: str, build: Callable[[], Case]) -> None:
    def build_seeded() -> Case:
        torch.manual_seed(3)
        return build()

    VARIANTS[name] = build_seeded


@torch.no_grad()
def scale(case: Case, factor: float) -> Case:
    """Multiply every weight matrix."""
    for parameter in case[0].parameters():
        if parameter.dim() >= 2:
            parameter.mul_(factor)
    return case


def plain(depth: int, activation: type[nn.Module], init: Callable | None = None) -> Case:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(32, 32)
        if init:
            init(linear.weight)
            nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    net = nn.Sequential(*layers, nn.Linear(32, 4))
    x, labels = torch.randn(32, 32), torch.randint(0, 4, (32,))
    return net, lambda m: F.cross_entropy(m(x), labels)


def convolutions(depth: int, activation: type[nn.Module], *, normalize: bool = False) -> Case:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Conv2d(12 if number else 3, 12, 3, padding=1))
        layers += [nn.BatchNorm2d(12)] if normalize else []
        layers.append(activation())
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    return net, lambda m: F.cross_entropy(m(images), labels)


class Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def residuals(blocks: int, *, he: bool = False, zero: bool = False, scale: float = 1.0) -> Case:
    """Residual blocks without normalization."""
    net = nn.Sequential()
    for _ in range(blocks):
        first, last = nn.Linear(32, 32), nn.Linear(32, 32)
        if he:
            nn.init.kaiming_normal_(first.weight)
            nn.init.kaiming_normal_(last.weight)
        with torch.no_grad():
            last.weight.mul_(0.0 if zero else scale)
            last.bias.mul_(0.0 if zero else scale)
        net.append(Residual(nn.Sequential(first, nn.ReLU(), last)))
    net.append(nn.Linear(32, 4))
    x, labels = torch.randn(32, 32), torch.randint(0, 4, (32,))
    return net, lambda m: F.cross_entropy(m(x), labels)


class Encoder(nn.Module):
    """A transformer that reads tokens and names one of three classes."""

    def __init__(self, layers: int, *, norm_first: bool, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(40, width), nn.Embedding(16, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=norm_first
        )
        norm = nn.LayerNorm(width) if norm_first else None
        self.blocks = nn.TransformerEncoder(block, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)
        for parameter in self.blocks.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.blocks(hidden)[:, 0])


def encoder(layers: int, *, norm_first: bool) -> Case:
    ids, labels = tokens(16, 10), torch.randint(0, 3, (16,))
    net = Encoder(layers, norm_first=norm_first)
    return net, lambda m: F.cross_entropy(m(ids), labels)


def translator(layers: int, *, norm_first: bool) -> Case:
    ids, out = tokens(8, 10), tokens(8, 9)

    def compute_loss(m: nn.Module) -> Tensor:
        return F.cross_entropy(m(ids, out[:, :-1]).flatten(0, 1), out[:, 1:].flatten())

    return Translator(norm_first=norm_first, layers=layers), compute_loss


def recurrent(kind: type[nn.RNNBase], length: int, factor: float = 1.0) -> Case:
    """Only the first token matters, so the gradient has to come the whole way."""
    ids, labels = tokens(24, length), torch.randint(0, 3, (24,))
    ids[:, 1:] = ids[:1, 1:]
    net = Sequences(kind, layers=1)
    with torch.no_grad():
        net.rnn.weight_hh_l0.mul_(factor)
    return net, lambda m: F.cross_entropy(m(ids), labels)


def gpt2(layers: int, **options: object) -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=32, n_layer=layers, n_head=4, use_cache=False,
        bos_token_id=1, eos_token_id=1, **options,
    )  # fmt: skip
    ids = tokens(8, 12)
    net = model_zoo.silence(GPT2LMHeadModel(config))
    return net, lambda m: m(input_ids=ids, labels=ids).loss


def zero_branches(case: Case) -> Case:
    for name, parameter in case[0].named_parameters():
        if "c_proj" in name or "bn2.weight" in name:
            nn.init.zeros_(parameter)
    return case


def sink_biases(case: Case, value: float) -> Case:
    for module in case[0].modules():
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, value)
    return case


def deep_resnet(blocks: int) -> Case:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        *(BasicBlock(8, 8) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    return net, lambda m: F.cross_entropy(m(images), labels)


he = nn.init.kaiming_normal_
variant("plain 30, sigmoid", lambda: plain(30, nn.Sigmoid))
variant("plain 30, tanh", lambda: plain(30, nn.Tanh))
variant("plain 30, tanh, xavier", lambda: plain(30, nn.Tanh, nn.init.xavier_normal_))
variant("plain 30, relu", lambda: plain(30, nn.ReLU))
variant("plain 30, relu, he", lambda: plain(30, nn.ReLU, lambda w: he(w, nonlinearity="relu")))
variant("plain 8, relu", lambda: plain(8, nn.ReLU))
variant("plain 4, relu, biases −10", lambda: sink_biases(plain(4, nn.ReLU), -10.0))
variant("convolutions 20, relu", lambda: convolutions(20, nn.ReLU))
variant("convolutions 20, relu, batch norm", lambda: convolutions(20, nn.ReLU, normalize=True))
variant("convolutions 8, sigmoid", lambda: convolutions(8, nn.Sigmoid))
variant("convolutions 4, relu", lambda: convolutions(4, nn.ReLU))
variant("residual 30", lambda: residuals(30))
variant("residual 30, he", lambda: residuals(30, he=True))
variant("residual 30, he ×3", lambda: residuals(30, he=True, scale=3.0))
variant("residual 30, zero branches", lambda: residuals(30, zero=True))
variant("resnet 16 blocks", lambda: deep_resnet(16))
variant("resnet, zero branches", lambda: zero_branches(model_zoo.resnet()))
variant("encoder 6, post-norm", lambda: encoder(6, norm_first=False))
variant("encoder 18, post-norm", lambda: encoder(18, norm_first=False))
variant("encoder 40, post-norm ×3", lambda: scale(encoder(40, norm_first=False), 3.0))
variant("encoder 18, pre-norm", lambda: encoder(18, norm_first=True))
variant("translator 6, post-norm", lambda: translator(6, norm_first=False))
variant("translator 6, pre-norm", lambda: translator(6, norm_first=True))
variant("rnn, 10 steps", lambda: recurrent(nn.RNN, 10))
variant("rnn, 100 steps", lambda: recurrent(nn.RNN, 100))
variant("rnn, 20 steps, recurrent ×4", lambda: recurrent(nn.RNN, 20, 4.0))
variant("lstm, 60 steps", lambda: recurrent(nn.LSTM, 60))
variant("gru, 60 steps", lambda: recurrent(nn.GRU, 60))
variant("gpt2 ×20", lambda: scale(model_zoo.gpt2(), 20.0))
variant("gpt2 ÷20", lambda: scale(model_zoo.gpt2(), 0.05))
variant("gpt2 ÷1000", lambda: scale(model_zoo.gpt2(), 0.001))
variant("gpt2 16 layers", lambda: gpt2(16))
variant("gpt2, zero branches", lambda: zero_branches(model_zoo.gpt2()))
variant("bert ÷20", lambda: scale(model_zoo.bert(), 0.05))
variant("bert ×20", lambda: scale(model_zoo.bert(), 20.0))
variant("vit ×20", lambda: scale(model_zoo.vit(), 20.0))
variant("llama ×20", lambda: scale(model_zoo.llama(), 20.0))
