"""How often the diagnosis agrees with what happens when the network is really trained.

Every network of a grid is diagnosed, then trained on scikit-learn's digits (`chainrule.training`:
300 steps, batches of 64, best of several learning rates). "Trained" means more than 80 % of the
training examples right. Takes some ten minutes on one core; needs scikit-learn.
"""

import json
import sys
from collections import Counter
from itertools import product

import torch

from chainrule import NetworkSpec, Verdict, diagnose, simulate
from chainrule.training import TRAINED, Optimizer, train

DEPTHS = (2, 4, 8, 15, 25, 50)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "selu", "gelu")
INITIALIZATIONS = ("xavier", "he", "lecun", "random", "pytorch")
RATES: dict[Optimizer, tuple[float, ...]] = {
    "sgd": (1e-3, 1e-2, 1e-1, 1.0),
    "adam": (1e-4, 1e-3, 1e-2),
}
STEPS = 300


def find_best(spec: NetworkSpec, optimizer: Optimizer) -> float:
    """Return the best training accuracy over the learning rates, in [0, 1]."""
    runs = (
        train(spec, optimizer=optimizer, learning_rate=rate, steps=STEPS, every=STEPS)
        for rate in RATES[optimizer]
    )
    return max(list(run)[-1].accuracy for run in runs)


def main() -> None:
    """Print one line of JSON per network, then the counts of agreement."""
    torch.set_num_threads(1)
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for depth, activation, init in product(DEPTHS, ACTIVATIONS, INITIALIZATIONS):
        spec = NetworkSpec(depth=depth, width=64, activation=activation, init=init)
        verdict = diagnose(simulate(spec, 4)).verdict
        row = {"depth": depth, "activation": activation, "init": init, "verdict": verdict}
        for optimizer in RATES:
            accuracy = find_best(spec, optimizer)
            row[optimizer] = round(accuracy, 3)
            counts[optimizer, verdict is Verdict.HEALTHY, accuracy > TRAINED] += 1
        print(json.dumps(row), file=sys.stderr, flush=True)
    for optimizer in RATES:
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
