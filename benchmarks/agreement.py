"""How often the diagnosis agrees with what happens when the network is really trained.

Every network of a grid is diagnosed, then trained on scikit-learn's digits (300 steps, batches of
64, best of several learning rates, a fresh linear layer on top). "Trained" means more than 80 % of
the training examples right. Takes some ten minutes on one core; needs scikit-learn.
"""

import json
import sys
from collections import Counter
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import NetworkSpec, Verdict, build_network, diagnose, simulate

DEPTHS = (2, 4, 8, 15, 25, 50)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "selu", "gelu")
INITIALIZATIONS = ("xavier", "he", "lecun", "random", "pytorch")
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, (1e-3, 1e-2, 1e-1, 1.0)),
    "Adam": (torch.optim.Adam, (1e-4, 1e-3, 1e-2)),
}
STEPS, BATCH, TRAINED = 300, 64, 0.8


def load_digits() -> tuple[Tensor, Tensor]:
    """Return standardized images [examples, 64] and their classes."""
    from sklearn.datasets import load_digits as load

    images, classes = load(return_X_y=True)
    inputs = torch.tensor(images, dtype=torch.float32)
    return (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-3), torch.tensor(classes)


def train(spec: NetworkSpec, optimizer: str, inputs: Tensor, classes: Tensor) -> float:
    """Return the best training accuracy over the learning rates, in [0, 1]."""
    kind, rates = OPTIMIZERS[optimizer]
    best = 0.0
    for rate in rates:
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(build_network(spec), nn.Linear(spec.width, 10))
        steps = kind(model.parameters(), lr=rate)
        for _ in range(STEPS):
            batch = torch.randint(0, len(inputs), (BATCH,), generator=generator)
            steps.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), classes[batch])
            if not torch.isfinite(loss):
                break
            loss.backward()
            if spec.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
            steps.step()
        with torch.no_grad():
            best = max(best, float((model(inputs).argmax(1) == classes).float().mean()))
    return best


def main() -> None:
    """Print one line of JSON per network, then the counts of agreement."""
    torch.set_num_threads(1)
    inputs, classes = load_digits()
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for depth, activation, init in product(DEPTHS, ACTIVATIONS, INITIALIZATIONS):
        spec = NetworkSpec(depth=depth, width=64, activation=activation, init=init)
        verdict = diagnose(simulate(spec, 4)).verdict
        row = {"depth": depth, "activation": activation, "init": init, "verdict": verdict}
        for optimizer in OPTIMIZERS:
            accuracy = train(spec, optimizer, inputs, classes)
            row[optimizer] = round(accuracy, 3)
            counts[optimizer, verdict is Verdict.HEALTHY, accuracy > TRAINED] += 1
        print(json.dumps(row), file=sys.stderr, flush=True)
    for optimizer in OPTIMIZERS:
        right = counts[optimizer, True, True] + counts[optimizer, False, False]
        total = len(DEPTHS) * len(ACTIVATIONS) * len(INITIALIZATIONS)
        print(
            f"{optimizer}: {right} of {total} agree; "
            f"healthy and trained {counts[optimizer, True, True]}, "
            f"unhealthy and not trained {counts[optimizer, False, False]}, "
            f"healthy but not trained {counts[optimizer, True, False]}, "
            f"unhealthy but trained {counts[optimizer, False, True]}"
        )


if __name__ == "__main__":
    main()
