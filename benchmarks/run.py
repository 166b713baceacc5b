"""The benchmark tables: every figure is a ratio of two things measured side by side.

The two sides take turns, so that a busy machine slows both; medians are compared.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
    mine: list[float] = []
    theirs: list[float] = []
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


class Attention(nn.Module):
    """Causal attention, as GPT-2 has it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = batch, length, 3, self.heads, width // self.heads
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: torch.Tensor = self.out(out.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


class Gpt2(nn.Module):
    """The shape of GPT-2: 12 layers, pre-norm, tied embeddings; narrower than the original."""

    def __init__(self, width: int = 256, layers: int = 12, vocabulary: int = 1000) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(128, width)
        self.blocks = nn.Sequential(*(Block(width, 8) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        out: torch.Tensor = self.head(self.norm(self.blocks(hidden)))
        return out


def make_gpt2() -> tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]:
    torch.manual_seed(0)
    tokens = torch.randint(0, 1000, (8, 128))
    return Gpt2(), lambda m: F.cross_entropy(m(tokens).flatten(0, 1), tokens.flatten())


PEAK = """
import sys, torch
sys.path.insert(0, {folder!r})
from run import make_gpt2, run_step
from chainrule import inspect
def read(name):  # of this process alone: getrusage counts what its parent had as well
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0])
torch.set_num_threads(1)
model, compute_loss = make_gpt2()
before = read("VmRSS")
for _ in range(2):
    {action}
print(read("VmHWM"), before)
"""
"""Prints kibibytes (Linux only)."""


def measure_peak(*, returned: bool) -> tuple[float, float]:
    """Return the peak memory of fresh processes that inspect the GPT-2 shape, and that train it.

    In KiB, with the model, but without what Python and PyTorch take before.

    Args:
        returned: Whether the C library gives freed memory back at once, so that the peak is what
            was in use; by default it keeps much, and the peak changes with chance.
    """
    environment = dict(os.environ)
    if returned:
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    peaks = []
    for action in ("inspect(model, compute_loss).layers", "run_step(model, compute_loss)()"):
        code = PEAK.format(folder=str(Path(__file__).parent), action=action)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        peak, before = map(int, done.stdout.split())
        model = sum(p.numel() * p.element_size() for p in make_gpt2()[0].parameters()) / 1024
        peaks.append(peak - before + model)
    return peaks[0], peaks[1]


def run_classic_script(seed: int) -> list[float]:
    """Build the classic network, run it once, print-worthy norms as the tutorials take them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(15):
        layers += [nn.Linear(64, 64), nn.Sigmoid()]
    model = nn.Sequential(*layers)
    inputs, targets = torch.randn(32, 64), torch.randn(32, 64)
    F.mse_loss(model(inputs), targets).backward()
    return [
        m.weight.grad.norm().item()
        for m in model
        if isinstance(m, nn.Linear) and m.weight.grad is not None
    ]


class LossModel(nn.Module):
    """A model whose output is its loss, as torchlens needs it."""

    def __init__(self, model: nn.Module, compute_loss: Callable[[nn.Module], torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        self.compute_loss = compute_loss

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.compute_loss(self.model)


def trace_with_torchlens(
    model: nn.Module, compute_loss: Callable[[nn.Module], torch.Tensor]
) -> Action:
    """Return an action that records values and gradients of every layer with torchlens."""
    import torchlens
    from torchlens.options import CaptureOptions

    wrapped = LossModel(model, compute_loss)
    capture = CaptureOptions(save_grads="all", backward_ready=True)

    def run() -> None:
        model.zero_grad()
        trace = torchlens.trace(wrapped, torch.zeros(1), capture=capture)
        trace.backward(trace[trace.output_layers[0]].out)

    return run


def measure_inspect() -> list[Comparison]:
    spec = NetworkSpec(depth=15, width=64)
    mlp, mlp_loss = build_network(spec), make_loss(spec)
    transformer, transformer_loss = make_transformer()
    rows = []
    for name, model, loss, budget, lens_budget, rounds in (
        ("inspect, 15×64 MLP", mlp, mlp_loss, 2.5, 0.2, 100),
        ("inspect, 6-layer transformer", transformer, transformer_loss, 1.4, 0.6, 15),
        ("inspect, 12-layer GPT-2 shape, d = 256, 8×128 tokens", *make_gpt2(), 1.5, None, 7),
    ):
        step = run_step(model, loss)
        measure = partial(inspect, model, loss)
        rows.append(compare(name, measure, "forward + backward", step, budget, rounds))
        rows.append(
            compare(
                f"{name}, and every figure read",
                lambda measure=measure: measure().layers,  # type: ignore[misc]
                "forward + backward",
                step,
                None,
                rounds,
            )
        )
        if lens_budget is not None:
            lens = trace_with_torchlens(model, loss)
            rows.append(compare(name, measure, "torchlens.trace", lens, lens_budget, 7))
    return rows


def measure_simulate() -> list[Comparison]:
    spec = NetworkSpec(depth=15, width=64, activation="sigmoid")
    deep, shallow = spec.replace(depth=1000), spec.replace(depth=100)
    return [
        compare(
            "simulate, 16 seeds, 15×64",
            partial(simulate, spec, 16),
            "the classic script, 16 times",
            lambda: [run_classic_script(seed) for seed in range(16)],
            0.5,
            30,
        ),
        compare(
            "simulate, 1000 layers, per layer",
            partial(simulate, deep, 4),
            "100 layers, per layer",
            partial(simulate, shallow, 4),
            1.2,
            5,
            scale=0.1,
        ),
        compare(
            "inspect, 1000 layers, per layer",
            partial(inspect, build_network(deep), make_loss(deep)),
            "100 layers, per layer",
            partial(inspect, build_network(shallow), make_loss(shallow)),
            1.2,
            5,
            scale=0.1,
        ),
    ]


def measure_import() -> Comparison:
    """Compare `import chainrule` with `import torch`, each in fresh processes taking turns."""

    def time_import(name: str) -> float:
        code = (
            f"import time; s = time.perf_counter(); import {name}; print(time.perf_counter() - s)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    mine, torch_alone = [], []
    for _ in range(5):
        torch_alone.append(time_import("torch"))
        mine.append(time_import("chainrule"))
    return Comparison(
        "import chainrule",
        "import torch",
        statistics.median(mine),
        statistics.median(torch_alone),
        None,
    )


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torchlens warns about its own deprecations
    table = Table(title="chainrule benchmarks: median ratios, both sides taking turns")
    for heading in ("what", "against", "here", "there", "ratio", "budget", ""):
        table.add_column(heading, justify="left" if heading in ("what", "against") else "right")
    rows = [*measure_inspect(), *measure_simulate()]
    for row in rows:
        kept = "" if row.budget is None else "✔" if row.ratio <= row.budget else "missed"
        table.add_row(
            row.what,
            row.against,
            f"{row.seconds * 1e3:.2f} ms",
            f"{row.reference * 1e3:.2f} ms",
            f"{row.ratio:.2f}",
            "–" if row.budget is None else f"≤ {row.budget}",
            kept,
        )
    for what, returned in (("peak memory in use", True), ("peak memory held", False)):
        peaks = [measure_peak(returned=returned) for _ in range(5)]
        mine, theirs = (statistics.median(side) for side in zip(*peaks, strict=True))
        table.add_row(
            f"inspect, 12-layer GPT-2 shape, {what}",
            "forward + backward",
            f"{mine / 1024:.0f} MiB",
            f"{theirs / 1024:.0f} MiB",
            f"{mine / theirs:.2f}",
            "≤ 1.3",
            "✔" if mine <= 1.3 * theirs else "missed",
        )
    startup = measure_import()
    beyond = startup.seconds - startup.reference
    table.add_row(
        "import chainrule, beyond torch",
        "import torch",
        f"{startup.seconds * 1e3:.0f} ms",
        f"{startup.reference * 1e3:.0f} ms",
        f"+{beyond:.2f} s",
        "≤ 0.3 s",
        "✔" if beyond <= 0.3 else "missed",
    )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
