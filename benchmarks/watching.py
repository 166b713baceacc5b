"""What watching a training run costs: the bare loop against the watched one, interleaved.

    python benchmarks/watching.py [--model mlp|transformer] [--windows N] [--no-memory]

CPU time of the training thread and wall time, each as a ratio to the bare loop. All variants take
turns of a few steps on one machine, so that what else runs there meets all of them; the turns of a
window, in which every variant takes 50 steps (one sample at the defaults, five at every=10), are
added up, and the median over the windows is given. One thread. A run is written to a file in a
temporary folder, as users do it. Lightning's `grad_norm` and `wandb.watch` (offline) are measured
where they are installed: in the environment of `make test-integrations`.

Memory is the peak of a process of its own that trains 120 steps, less what it held before the model
was made (Linux).
"""

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
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


MODELS = {"mlp": make_mlp, "transformer": make_transformer}

WORDS = {"mlp": "15×64 MLP", "transformer": "4-layer transformer, 128"}

BARE = "bare loop"

TURN, WINDOW = 10, 50
"""Steps of one turn, and of all turns of a window."""


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


def enter_lightning(
    stack: ExitStack, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[[Tensor], Any]:
    """Return what a loop does that calls Lightning's `grad_norm` at every step."""
    grad_norm = import_module("lightning.pytorch.utilities").grad_norm
    history: list[Any] = []
    return lambda loss: history.append((loss.item(), grad_norm(model, 2)))


def enter_wandb(
    folder: Path, **settings: Any
) -> Callable[[ExitStack, nn.Module, torch.optim.Optimizer], Callable[[Tensor], Any]]:
    """Return what has `wandb.watch` look at a model."""

    def enter(
        stack: ExitStack, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Callable[[Tensor], Any]:
        wandb = import_module("wandb")
        run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
        stack.callback(run.finish)
        run.watch(model, **settings)
        return lambda loss: run.log({"loss": loss.item()})

    return enter


def list_variants(folder: Path) -> dict[str, Any]:
    """Return how each variant is entered, by its name."""
    variants: dict[str, Any] = {
        BARE: lambda *_: lambda loss: None,
        "naive loop with .item()": enter_naive,
        "watch, defaults": enter_watched(folder),
        "watch, every=10": enter_watched(folder, every=10),
    }
    if find_spec("lightning"):
        variants["Lightning's grad_norm"] = enter_lightning
    if find_spec("wandb"):
        # It writes to the one run of the process, so it is measured once.
        variants["wandb.watch, gradients"] = enter_wandb(folder, log="gradients", log_freq=1)
    return variants


def measure(name: str, windows: int) -> Iterator[tuple[str, float, float]]:
    """Yield (variant, CPU ratio, wall ratio).

    Args:
        name: Of the model.
        windows: How many times every variant takes `WINDOW` steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        variants = {
            key: Variant(MODELS[name], enter) for key, enter in list_variants(Path(folder)).items()
        }
        for key, variant in variants.items():
            variant.run(105 if "watch," in key else 5)  # past the first hundred: more samples
        order = list(variants)
        sums: dict[str, list[list[float]]] = {key: [] for key in order}
        for _ in range(windows):
            for each in sums.values():
                each.append([0.0, 0.0])
            for turn in range(WINDOW // TURN):
                gc.collect()
                for key in order[turn % len(order) :] + order[: turn % len(order)]:
                    cpu, wall = variants[key].run(TURN)
                    sums[key][-1][0] += cpu
                    sums[key][-1][1] += wall
        for key in order:
            pairs = list(zip(sums[key], sums[BARE], strict=True))
            cpu, wall = (median(own[at] / bare[at] for own, bare in pairs) for at in (0, 1))
            yield key, cpu, wall
        for variant in variants.values():
            variant.close()


def read_memory(field: str) -> float:
    """Return a field of this process's memory, in MB: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def train_alone(name: str, variant: str) -> None:
    """Train in this process, and print the memory before, and the most that was held."""
    before = read_memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        held = Variant(MODELS[name], list_variants(Path(folder))[variant])
        held.run(120)
        print(before, read_memory("VmHWM"))
        held.close()


def measure_memory(name: str, variant: str) -> tuple[float, float]:
    """Return the memory of a process, and what of it came with the training, in MB."""
    found = []
    for _ in range(3):
        command = [sys.executable, __file__, "--alone", variant, "--model", name]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        before, most = map(float, result.stdout.split())
        found.append((most, most - before))
    return median(each[0] for each in found), median(each[1] for each in found)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--windows", type=int, default=9)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = given.model or list(MODELS)
    if given.alone:
        train_alone(models[0], given.alone)
        return
    print("| model | variant | CPU time of the thread | wall time |\n|---|---|---|---|", flush=True)
    for name in models:
        for variant, cpu, wall in measure(name, given.windows):
            print(f"| {WORDS[name]} | {variant} | {cpu:.3f} | {wall:.3f} |", flush=True)
    if given.no_memory:
        return
    print("\n| model | variant | peak, MB | of the training, MB | ratio |\n|---|---|---|---|---|")
    for name in models:
        bare = 0.0
        for variant in (BARE, "watch, defaults", "watch, every=10"):
            peak, own = measure_memory(name, variant)
            bare = bare or own
            row = f"| {WORDS[name]} | {variant} | {peak:.1f} | {own:.1f} | {own / bare:.3f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
