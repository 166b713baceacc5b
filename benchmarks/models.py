"""Do verdicts on real models agree with training, and do remedies work? A table, by training.

Every model of tests/model_zoo.py and tests/sick_models.py is measured, then trained with SGD and
with Adam at the best of several learning rates. A model that is diagnosed sick is trained again
after its first remedy. Takes some minutes; `--only NAME` trains one.
"""

import argparse
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from chainrule import apply_remedy, find_remedies

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

RATES: dict[str, tuple[float, ...]] = {
    "SGD": (3e-3, 3e-2, 0.3, 3.0),
    "Adam": (1e-4, 1e-3, 1e-2),
}
STEPS = 80
ENOUGH = 0.1
"""A share of the loss that is low enough to skip the other learning rates."""

Case = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def train(build: Callable[[], Case], kind: str, scale: float) -> float:
    """Return the lowest final loss over the learning rates, relative to `scale`."""
    best = math.inf
    for rate in RATES[kind]:
        model, compute_loss = build()
        model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer: Any = getattr(torch.optim, kind)(parameters, lr=rate)
        losses: list[float] = []
        for step in range(STEPS):
            optimizer.zero_grad()
            torch.manual_seed(step)
            loss = compute_loss(model)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            loss.backward()
            optimizer.step()
        last = sum(losses[-3:]) / len(losses[-3:])
        best = min(best, last / scale if math.isfinite(last) else math.inf)
        if best < ENOUGH:
            break
    return best


def main() -> None:
    """Print the table."""
    from model_zoo import MODELS  # type: ignore[import-not-found]
    from sick_models import VARIANTS  # type: ignore[import-not-found]

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", help="name of one model")
    only = arguments.parse_args().only
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    table = Table(title=f"Loss after {STEPS} steps ÷ before, at the best of several learning rates")
    for heading in ("model", "verdict", "SGD", "Adam", "first remedy", "then", "SGD", "Adam"):
        table.add_column(heading)
    for name, build in {**MODELS, **VARIANTS}.items():
        if only and name != only:
            continue
        found = find_remedies(*build())
        # What explodes starts from a loss that says nothing: there ln 4 (chance) is the scale.
        scale = min(float(found.before.loss), 10.0)
        scale = scale if math.isfinite(scale) else math.log(4.0)
        row = [name, str(found.diagnosis.verdict)]
        row += [f"{train(build, kind, scale):.3f}" for kind in RATES]
        if len(found):
            remedy = found[0]

            def build_changed(build: Callable[[], Case] = build, remedy: Any = remedy) -> Case:
                model, compute_loss = build()
                apply_remedy(remedy, model)
                return model, compute_loss

            row += [remedy.title, str(remedy.verdict_after)]
            row += [f"{train(build_changed, kind, scale):.3f}" for kind in RATES]
        table.add_row(*row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
