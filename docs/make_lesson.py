"""Measure every figure of the lesson anew, and keep them in the package (`make lesson`).

Gradients come from `simulate`, accuracies from `train` (as in benchmarks/agreement.py: the digits,
300 steps, the best of several learning rates).
Takes about two minutes on one core; needs scikit-learn.
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import agreement  # noqa: E402

from chainrule.app.lesson.figures import (  # noqa: E402
    FILE,
    TRAINED,
    measure_flows,
    measure_profiles,
)
from chainrule.app.lesson.subjects import SEEDS, SUBJECTS  # noqa: E402
from chainrule.version import read_version  # noqa: E402

TARGET = ROOT / "src/chainrule/app/lesson" / FILE


def measure_trainings(names: list[str]) -> dict[str, dict[str, float]]:
    """Return the best training accuracy of the named subjects, by optimizer."""
    return {
        name: {
            optimizer: round(agreement.find_best(SUBJECTS[name], optimizer), 4)
            for optimizer in TRAINED[name]
        }
        for name in names
    }


def main() -> None:
    """Measure everything and write the file."""
    torch.set_num_threads(1)
    document = {
        "provenance": {
            "chainrule": read_version(),
            "torch": torch.__version__,
            "seeds": SEEDS,
            "training": "best of several learning rates; see benchmarks/agreement.py",
            "command": "make lesson",
        },
        "flows": measure_flows(),
        "profiles": measure_profiles(),
        "trainings": measure_trainings(list(TRAINED)),
    }
    TARGET.write_text(f"{json.dumps(document, indent=1)}\n", encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
