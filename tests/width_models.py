"""A multilayer perceptron and a transformer in µP, written by hand, and the same with one fault.

Table 8 of Yang et al. 2022 (arXiv 2203.03466), with m = width ÷ 16: hidden weights have the
standard deviation 1/√width and Adam's rate ÷ m; weights of inputs and biases neither. The readout
is divided by m, with weights of order 1 and the rate of inputs, or it starts at 1/m and learns at
rate ÷ m. q·k is divided by d.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BASE = 16
VOCABULARY, LENGTH, CLASSES, FEATURES = 11, 5, 4, 6


def fill(linear: nn.Linear, std: float) -> nn.Linear:
    nn.init.normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


class Perceptron(nn.Module):
    """Two hidden layers besides the first; the readout starts at 1/width."""

    def __init__(self, width: int, fault: str = "") -> None:
        super().__init__()
        m = width / BASE
        self.fault, self.m = fault, m
        self.first = fill(nn.Linear(FEATURES, width), FEATURES**-0.5)
        self.second = fill(nn.Linear(width, width), (2 / width) ** 0.5)
        self.third = fill(nn.Linear(width, width), (2 / width) ** 0.5)
        self.act = nn.ReLU()
        self.head = fill(nn.Linear(width, CLASSES), BASE**0.5 / width)
        with torch.no_grad():
            if fault == "readout":
                self.head.weight.mul_(math.sqrt(m))
            if fault == "readout of order 1":
                self.head.weight.mul_(m)
            if fault == "one initialization":
                self.second.weight.mul_(math.sqrt(m))
            if fault == "small initialization":
                self.third.weight.div_(math.sqrt(m))
            if fault == "first layer":
                self.first.weight.mul_(math.sqrt(m))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(self.second(x))
        if self.fault == "multiplier":
            return self.head(self.act(self.third(x))) * self.m
        return self.head(self.act(self.third(x)))


def perceptron_groups(model: nn.Module, rate: float, fault: str) -> list[dict[str, Any]]:
    groups = []
    m = model.m
    for name, parameter in model.named_parameters():
        slower = name in ("second.weight", "third.weight", "head.weight")
        lr = rate / m if slower else rate
        if fault == "one rate" or (fault == "one layer's rate" and name == "third.weight"):
            lr = rate
        if fault == "bias rate" and name == "second.bias":
            lr = rate * m
        if fault == "slow first layer" and name == "first.weight":
            lr = rate / m
        groups.append({"params": [parameter], "lr": lr})
    return groups


class Attention(nn.Module):
    def __init__(self, width: int, fault: str, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fault, self.fused = 2, fault, fused
        for name in ("query", "key", "value", "out"):
            setattr(self, name, fill(nn.Linear(width, width), width**-0.5))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        d = q.shape[-1]
        scale = d**-0.5 if self.fault == "attention" else (BASE / 2) ** 0.5 / d
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        else:
            scores = q @ k.transpose(-1, -2) * scale
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


class Gate(nn.Module):
    """A product without a factor 1/√width, made harmless by a normalization inside."""

    def __init__(self, width: int, fault: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        self.fault = fault

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight)
        return x if self.fault == "norm removed" else F.layer_norm(x, x.shape[-1:])


class Block(nn.Module):
    def __init__(self, width: int, fault: str, *, fused: bool) -> None:
        super().__init__()
        self.fault, self.m = fault, width / BASE
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, fault, fused=fused)
        self.up = fill(nn.Linear(width, 2 * width), width**-0.5)
        self.act = nn.GELU()
        self.down = fill(nn.Linear(2 * width, width), (2 * width) ** -0.5)
        self.gate = Gate(width, fault) if fault in ("norm inside", "norm removed") else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        if self.gate is not None:
            y = self.gate(y)
        y = self.down(self.act(self.up(y)))
        return x + (y * self.m if self.fault == "branch" else y)


class Transformer(nn.Module):
    """Pre-norm, causal; the readout is divided by m outside of its module."""

    def __init__(self, width: int, fault: str = "", *, fused: bool = False) -> None:
        super().__init__()
        self.fault, self.m = fault, width / BASE
        self.embed = nn.Embedding(VOCABULARY, width)
        self.place = nn.Parameter(0.5 * torch.randn(LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, fault, fused=fused) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = fill(nn.Linear(width, VOCABULARY, bias=False), BASE**-0.5)
        if fault in ("tied", "tied with multiplier"):
            self.head.weight = self.embed.weight
        with torch.no_grad():
            if fault == "embedding":
                self.embed.weight.mul_(self.m)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        if self.fault == "embedding multiplier":
            x = x * self.m**0.5
        x = x + self.place
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.fault in ("readout", "tied"):
            return self.head(x)
        if self.fault == "input of head":
            return self.head(x * (1 / self.m))
        return self.head(x) / self.m


def transformer_groups(model: nn.Module, rate: float, fault: str) -> list[dict[str, Any]]:
    groups = []
    for name, parameter in model.named_parameters():
        hidden = "blocks" in name and parameter.dim() == 2
        lr = rate / model.m if hidden else rate
        if fault == "one rate" or (fault == "one layer's rate" and name == "blocks.0.up.weight"):
            lr = rate
        if fault == "bias rate" and name == "blocks.1.up.bias":
            lr = rate * model.m
        if "gate" in name and fault == "norm inside":  # its weights are √width times as large
            lr = rate / model.m**0.5
        groups.append({"params": [parameter], "lr": lr})
    return groups


def make_optimizer(
    groups: Callable[..., Any], fault: str, rate: float = 2e-3
) -> Callable[[nn.Module], torch.optim.Optimizer]:
    eps = 1.0 if fault == "eps" else 1e-10
    return lambda model: torch.optim.Adam(groups(model, rate, fault), eps=eps)


def perceptron_batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, FEATURES), torch.randint(CLASSES, (8,))


def transformer_batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(VOCABULARY, (2, LENGTH + 1))
    return tokens[:, :-1], tokens[:, 1:]


def perceptron_case(fault: str = "", **options: Any) -> dict[str, Any]:
    """Return the arguments of `check_width`."""
    return {
        "make_model": lambda width: Perceptron(width, fault),
        "widths": [16, 32, 64, 128],
        "make_batch": perceptron_batch,
        "optimizer": make_optimizer(perceptron_groups, fault),
        "seeds": 3,
    } | options


def transformer_case(fault: str = "", *, fused: bool = False, **options: Any) -> dict[str, Any]:
    """Return the arguments of `check_width`."""
    return {
        "make_model": lambda width: Transformer(width, fault, fused=fused),
        "widths": [16, 32, 64, 128],
        "make_batch": transformer_batch,
        "optimizer": make_optimizer(transformer_groups, fault),
        "seeds": 3 if fault == "attention" else 2,
    } | options
