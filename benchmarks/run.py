"""The benchmark tables: every figure is a ratio of two things measured side by side.

The two sides take turns, so that a busy machine slows both; medians are compared.
"""

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from chainrule import NetworkSpec, build_network, inspect, make_loss, simulate

Action = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    what: str
    against: str
    seconds: float
    reference: float
    budget: float | None
    scale: float = 1.0

    @property
    def ratio(self) -> float:
        return self.seconds / self.reference * self.scale


def compare(
    what: str,
    action: Action,
    against: str,
    reference: Action,
    budget: float | None,
    rounds: int = 40,
    scale: float = 1.0,
) -> Comparison:
    """Measure two actions in turn and compare their medians (the first times `scale`)."""
    mine, theirs = [], []
    for _ in range(3):
        action(), reference()
    for _ in range(rounds):
        for times, act in ((mine, action), (theirs, reference)):
            start = time.perf_counter()
            act()
            times.append(time.perf_counter() - start)
    return Comparison(
        what, against, statistics.median(mine), statistics.median(theirs), budget, scale
    )


def run_step(model: nn.Module, compute_loss: Callable[[nn.Module], torch.Tensor]) -> Action:
    def step() -> None:
        model.zero_grad()
        compute_loss(model).backward()

    return step


class Transformer(nn.Module):
    def __init__(self, width: int = 256, layers: int = 6, vocabulary: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        block = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.embedding(tokens)))
        return out


def make_transformer() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    torch.manual_seed(0)
    tokens = torch.randint(0, 256, (8, 64))
    return Transformer(), lambda m: F.cross_entropy(m(tokens).flatten(0, 1), tokens.flatten())


def run_classic_script(seed: int) -> list[float]:
    """Build the classic network, run it once, print-worthy norms as the tutorials take them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(15):
        layers += [nn.Linear(64, 64), nn.Sigmoid()]
    model = nn.Sequential(*layers)
    inputs, targets = torch.randn(32, 64), torch.randn(32, 64)
    F.mse_loss(model(inputs), targets).backward()
    return [m.weight.grad.norm().item() for m in model if isinstance(m, nn.Linear) and m.weight.grad is not None]


def trace_with_torchlens(model: nn.Module, compute_loss: Any, inputs: torch.Tensor) -> Action:
    """Trace values and gradients with torchlens, as its documentation does."""
    import torchlens

    def run() -> None:
        model.zero_grad()
        log = torchlens.trace(model, inputs, save_grads=True)
        compute_loss(log).backward()

    return run


def measure_inspect() -> list[Comparison]:
    spec = NetworkSpec(depth=15, width=64)
    mlp, mlp_loss = build_network(spec), make_loss(spec)
    transformer, transformer_loss = make_transformer()
    rows = []
    for name, model, loss, budget, rounds in (
        ("inspect, 15×64 MLP", mlp, mlp_loss, 2.5, 100),
        ("inspect, 6-layer transformer", transformer, transformer_loss, 1.4, 15),
    ):
        step = run_step(model, loss)
        rows.append(
            compare(name, lambda m=model, l=loss: inspect(m, l), "forward + backward", step, budget, rounds)
        )
        rows.append(
            compare(
                f"{name}, all figures read",
                lambda m=model, l=loss: inspect(m, l).layers,
                "forward + backward",
                step,
                None,
                rounds,
            )
        )
    return rows
