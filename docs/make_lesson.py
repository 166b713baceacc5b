"""Measure every figure of the lesson anew, and keep them in the package (`make lesson`).

Gradients come from `simulate`, accuracies from `train` (the digits, 300 steps, the best of
several learning rates), both in float64, so that every machine finds the same. Takes a few minutes
on one core; needs scikit-learn.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from chainrule import NetworkSpec
from chainrule._utils.version import read_version
from chainrule.app.lesson.figures import (
    FILE,
    SPREAD,
    STARTS,
    TRAINED,
    measure_flows,
    measure_profiles,
)
from chainrule.app.state.subjects import SEEDS, SUBJECTS
from chainrule.training.training import Optimizer, train

ROOT = Path(__file__).parent.parent
RATES: dict[Optimizer, tuple[float, ...]] = {
    "sgd": (1e-3, 1e-2, 1e-1, 1.0),
    "adam": (1e-4, 1e-3, 1e-2),
}
STEPS = 300
TARGET = ROOT / "src/chainrule/app/lesson" / FILE


def find_best(spec: NetworkSpec, optimizer: Optimizer, seed: int | None = None) -> float:
    """Return the best training accuracy over the learning rates, in [0, 1]."""
    precise = spec.replace(dtype="float64")
    runs = (
        train(precise, optimizer=optimizer, learning_rate=rate, steps=STEPS, every=STEPS, seed=seed)
        for rate in RATES[optimizer]
    )
    return max(list(run)[-1].accuracy for run in runs)


def measure_trainings(names: list[str]) -> dict[str, dict[str, float]]:
    """Return the best training accuracy of the named subjects, by optimizer."""
    return {
        name: {
            optimizer: round(find_best(SUBJECTS[name], optimizer), 4) for optimizer in TRAINED[name]
        }
        for name in names
    }


def measure_spreads(names: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """Return the least and the largest accuracy of the named subjects over `STARTS` starts."""
    spreads: dict[str, dict[str, list[float]]] = {}
    for name in names:
        spreads[name] = {}
        for optimizer in TRAINED[name]:
            found = [find_best(SUBJECTS[name], optimizer, seed) for seed in range(STARTS)]
            spreads[name][optimizer] = [round(min(found), 4), round(max(found), 4)]
    return spreads


def main() -> None:
    """Measure everything and write the file."""
    torch.set_num_threads(1)
    document = {
        "provenance": {
            "chainrule": read_version(),
            "torch": torch.__version__,
            "seeds": SEEDS,
            "training": "best of several learning rates; see docs/make_lesson.py",
            "command": "make lesson",
        },
        "flows": measure_flows(),
        "profiles": measure_profiles(),
        "trainings": measure_trainings(list(TRAINED)),
        "spreads": measure_spreads(SPREAD),
    }
    TARGET.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
