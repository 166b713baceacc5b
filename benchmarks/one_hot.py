"""Does attention that is one-hot at the start train? A table, by training.

Tiny GPT-2s, whose query and key weights are multiplied, are trained on two tasks with SGD and with
Adam at the best of several learning rates:

- recall: the last position must name the first token. New tokens at every step, so nothing but
  attention can bring it there. Share that is right after 400 steps; chance is 0.06.
- memorize: the next token of 16 fixed sequences. Loss after 150 steps; 2.8 before.

Attention is computed by a softmax in float32 here: the fused function's backward pass calculates
the weights anew from scores and their logarithmic sum, which rounds far too coarsely once scores
are as large as at the last levels.

Takes about 20 minutes; `--factor 100` trains one level.
"""

import argparse
import logging
import math
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import inspect

FACTORS = (1.0, 5.0, 20.0, 100.0, 200.0, 400.0, 1e3, 1e4, 1e5)
RATES = {"SGD": (0.03, 0.3, 1.0, 3.0), "Adam": (3e-4, 1e-3, 3e-3, 1e-2)}
SEEDS = 3
WORDS, LENGTH = 16, 12

Loss = Callable[[nn.Module, int], Tensor]
Score = Callable[[nn.Module], float]


def build(seed: int, factor: float) -> nn.Module:
    """Return a GPT-2 of two layers, 32 units and four heads with scaled queries and keys."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    eager: Any = {"attn_implementation": "eager"}
    model: nn.Module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=4, use_cache=False,
            bos_token_id=1, eos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            **eager,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("c_attn.weight"):
                parameter[:, :64] *= factor
    return model


def draw(examples: int, seed: int) -> Tensor:
    return torch.randint(
        0, WORDS, (examples, LENGTH), generator=torch.Generator().manual_seed(seed)
    )


def recall(seed: int) -> tuple[Loss, int, Score]:
    def compute_loss(model: nn.Module, step: int) -> Tensor:
        ids = draw(64, 1000 * seed + step)
        return F.cross_entropy(model(input_ids=ids).logits[:, -1], ids[:, 0])

    def score(model: nn.Module) -> float:
        ids = draw(512, 10**6 + seed)
        answer = model(input_ids=ids).logits[:, -1].argmax(-1)
        return (answer == ids[:, 0]).float().mean().item()

    return compute_loss, 400, score


def memorize(seed: int) -> tuple[Loss, int, Score]:
    ids = draw(16, seed)

    def compute_loss(model: nn.Module, _: int) -> Tensor:
        loss: Tensor = model(input_ids=ids, labels=ids).loss
        return loss

    return compute_loss, 150, lambda model: -compute_loss(model, 0).item()


def train(seed: int, factor: float, kind: str, task: Callable[[int], Any]) -> float:
    """Return the best score over the learning rates (of losses, the negative)."""
    best = -math.inf
    for rate in RATES[kind]:
        compute_loss, steps, score = task(seed)
        model = build(seed, factor)
        optimizer: Any = getattr(torch.optim, kind)(model.parameters(), lr=rate)
        for step in range(steps):
            optimizer.zero_grad()
            loss = compute_loss(model, step)
            if not math.isfinite(loss.item()):
                break
            loss.backward()
            optimizer.step()
        else:
            with torch.no_grad():
                reached = score(model)
            best = max(best, reached if math.isfinite(reached) else -math.inf)
    return best


def measure_entropy(seed: int, factor: float) -> float:
    compute_loss, _, _ = memorize(seed)
    flow = inspect(build(seed, factor), lambda m: compute_loss(m, 0))
    return statistics.mean(float(each.entropy) for each in flow.attentions)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--factor", type=float, help="of query and key weights")
    chosen = arguments.parse_args().factor
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    table = Table(title=f"Median of {SEEDS} networks (smallest to largest)")
    for heading in ("q, k ×", "entropy", *(f"{t}, {k}" for t in ("recall", "loss") for k in RATES)):
        table.add_column(heading)
    for factor in [chosen] if chosen else FACTORS:
        row = [
            f"{factor:g}",
            f"{statistics.mean(measure_entropy(s, factor) for s in range(SEEDS)):.5f}",
        ]
        for task in (recall, memorize):
            for kind in RATES:
                scores = sorted(abs(train(s, factor, kind, task)) for s in range(SEEDS))
                row.append(f"{statistics.median(scores):.2f} ({scores[0]:.2f}–{scores[-1]:.2f})")
        table.add_row(*row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
