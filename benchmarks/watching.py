"""What watching a training run costs: the bare loop against the watched one, interleaved.

    python benchmarks/watching.py [STEPS] [ROUNDS]

CPU time of the training thread and wall time per step, each as a ratio to the bare loop: the median
over rounds in which all variants take turns on one machine, so that what else runs there meets all
of them. One thread. A run is written to a file in a temporary folder, as users do it.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.watch import watch

Step = Callable[[], Tensor]


def make_mlp() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """Fifteen layers of 64 units, a batch of 64."""
    layers: list[nn.Module] = []
    for _ in range(14):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    x, y = torch.randn(64, 64), torch.randint(10, (64,))
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    return model, lambda m: F.cross_entropy(m(x), y)


def make_transformer() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """Four layers of width 128, a batch of 16 sequences of 64 steps."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    model = nn.Sequential(nn.Linear(32, 128), encoder, nn.Linear(128, 32))
    x, y = torch.randn(16, 64, 32), torch.randn(16, 64, 32)
    return model, lambda m: F.mse_loss(m(x), y)


MODELS = {"15×64 MLP": make_mlp, "4-layer transformer, 128": make_transformer}


class Variant:
    """One way to run the loop, with a model of its own that goes on from round to round."""

    def __init__(
        self,
        make: Callable[[], tuple[nn.Module, Callable[[nn.Module], Tensor]]],
        enter: Callable[[ExitStack, nn.Module, torch.optim.Optimizer], Callable[[Tensor], Any]],
    ) -> None:
        torch.manual_seed(0)
        self.model, self._compute_loss = make()
        self._optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)
        self._stack = ExitStack()
        self._after = enter(self._stack, self.model, self._optimizer)

    def run(self, steps: int) -> tuple[float, float]:
        """Return CPU seconds of this thread and wall seconds per step."""
        cpu, wall = time.thread_time(), time.perf_counter()
        for _ in range(steps):
            loss = self._compute_loss(self.model)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._after(loss)
        return (time.thread_time() - cpu) / steps, (time.perf_counter() - wall) / steps

    def close(self) -> None:
        """End it."""
        self._stack.close()


def enter_watched(
    folder: Path, **settings: Any
) -> Callable[[ExitStack, nn.Module, torch.optim.Optimizer], Callable[[Tensor], Any]]:
    """Return what watches a loop."""

    def enter(
        stack: ExitStack, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Callable[[Tensor], Any]:
        name = "-".join(map(str, settings.values())) or "defaults"
        run = stack.enter_context(watch(model, optimizer, store=folder / f"{name}.db", **settings))
        return lambda loss: run.log(loss=loss)

    return enter


def enter_naive(
    stack: ExitStack, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[Tensor], Any]:
    """Return what a loop does that reads every norm by itself."""
    history: list[Any] = []

    def after(loss: Tensor) -> None:
        norms = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
        history.append((loss.item(), norms))

    return after


def measure(name: str, steps: int, rounds: int) -> list[tuple[str, str, float, float]]:
    """Return (model, variant, CPU ratio, wall ratio)."""
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make = MODELS[name]
        variants = {
            "bare loop": Variant(make, lambda *_: lambda loss: None),
            "naive loop with .item()": Variant(make, enter_naive),
            "watch, defaults": Variant(make, enter_watched(Path(folder))),
            "watch, every=10": Variant(make, enter_watched(Path(folder), every=10)),
        }
        for variant in variants.values():
            variant.run(105)  # past the first hundred, where more is sampled
        for number in range(rounds):
            order = list(variants)
            for key in order[number % len(order) :] + order[: number % len(order)]:
                gc.collect()
                found.setdefault(key, []).append(variants[key].run(steps))
        for variant in variants.values():
            variant.close()
    bare = found["bare loop"]
    return [
        (
            name,
            key,
            median(a[0] / b[0] for a, b in zip(times, bare, strict=True)),
            median(a[1] / b[1] for a, b in zip(times, bare, strict=True)),
        )
        for key, times in found.items()
    ]


def main() -> None:
    """Print the table."""
    steps, rounds = (int(sys.argv[at]) if len(sys.argv) > at else 0 for at in (1, 2))
    torch.set_num_threads(1)
    print("| model | variant | CPU time of the thread | wall time |\n|---|---|---|---|")
    for name in MODELS:
        for model, variant, cpu, wall in measure(name, steps or 100, rounds or 9):
            print(f"| {model} | {variant} | {cpu:.3f} | {wall:.3f} |", flush=True)


if __name__ == "__main__":
    main()
