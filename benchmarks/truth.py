"""Really train small models of many kinds, and compare the verdict with what became of them.

    python benchmarks/truth.py --minutes 20    # train what is missing, then write the table
    python benchmarks/truth.py --table         # only the table

The models are those of `truth_models.py`. What became of them is kept in `truth.csv`; started
again, it goes on. What is measured and said of them is made anew by each run (`said.csv` holds it),
and docs/truth.md shows both side by side.
"""

import argparse
import csv
import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from truth_models import Entry, Problem, list_entries

FILE = Path(__file__).parent / "truth.csv"

RATES: Mapping[str, tuple[float, ...]] = {
    "sgd": (0.1, 0.3, 1.0, 0.01, 0.001),
    "adam": (0.01, 0.003, 0.001, 0.0001),
}
"""Learning rates in the order in which they are tried. SGD has no momentum."""

STEPS = 120
KEPT = 256
"""Examples of the batch that is kept aside."""

GOOD, PLENTY = 0.3, 0.12
"""An error below the first spares a model the other learning rates, one below the second spares it
the other steps of a training; it is looked at after each third."""

WORST = 2.0
"""Errors above this, and undefined ones, count as this."""

HARM = 0.05
"""The smallest learning rate is tried only if the one above it makes the error grow by this (or
leaves it far above guessing)."""

COLUMNS = (
    "key",
    "kind",
    "family",
    "parameters",
    "seed",
    "task",
    "start",
    "sgd",
    "sgd_rate",
    "adam",
    "adam_rate",
)


def measure_error(problem: Problem, kept: tuple[torch.Tensor, ...]) -> float:
    """Return the error on the batch that was kept aside, no worse than the worst."""
    with torch.no_grad():
        error = problem.measure_error(problem.model, kept)
    return min(max(error, 0.0), WORST) if math.isfinite(error) else WORST


def train(entry: Entry, optimizer: str, rate: float) -> float:
    """Return the error after a training on fresh batches."""
    problem = entry.build()
    kept = problem.draw(torch.Generator().manual_seed(entry.seed + 1), KEPT)
    stream = torch.Generator().manual_seed(entry.seed + 2)
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    stepper = kind(problem.model.parameters(), lr=rate)
    for step in range(STEPS):
        stepper.zero_grad()
        loss = problem.compute_loss(problem.model, problem.draw(stream, problem.batch_size))
        if not math.isfinite(loss.item()):
            break
        loss.backward()
        if problem.loss_scale != 1:
            for parameter in problem.model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= problem.loss_scale
        stepper.step()
        if (step + 1) % (STEPS // 3) == 0 and measure_error(problem, kept) < PLENTY:
            break
    return measure_error(problem, kept)


def find_outcome(entry: Entry) -> dict[str, object]:
    """Return one row of the file: the best that each optimizer reaches."""
    problem = entry.build()
    kept = problem.draw(torch.Generator().manual_seed(entry.seed + 1), KEPT)
    before = measure_error(problem, kept)
    row: dict[str, object] = {
        "key": entry.key,
        "kind": entry.family.kind,
        "family": entry.family.name,
        "parameters": entry.query,
        "seed": entry.seed,
        "task": problem.task,
        "start": round(before, 3),
    }
    for optimizer, rates in RATES.items():
        errors: dict[float, float] = {}
        for rate in rates:
            if rate == rates[-1] and errors[rates[-2]] < min(before + HARM, 1.5):
                break
            errors[rate] = train(entry, optimizer, rate)
            if errors[rate] < GOOD:
                break
        rate = min(errors, key=lambda each: errors[each])
        row[optimizer], row[f"{optimizer}_rate"] = round(errors[rate], 3), rate
    return row


# --- The file of outcomes ------------------------------------------------------------------------


def describe_provenance() -> str:
    """Return where outcomes come from, as one line of JSON."""
    return json.dumps(
        {
            "script": "benchmarks/truth.py",
            "rates": dict(RATES),
            "steps": STEPS,
            "kept": KEPT,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
    )


def read_outcomes(path: Path = FILE) -> dict[str, dict[str, str]]:
    """Return the rows of the file by key; none if there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["key"]: row for row in rows}


def _append(row: Mapping[str, object], path: Path) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        if fresh:
            file.write(f"# {describe_provenance()}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def train_missing(path: Path, minutes: float) -> None:
    """Train what has no row yet until the time is up, and add a row for each."""
    end = time.monotonic() + 60 * minutes
    done = read_outcomes(path)
    missing = [entry for entry in list_entries() if entry.key not in done]
    for count, entry in enumerate(missing, 1):
        if time.monotonic() > end:
            return
        _append(find_outcome(entry), path)
        print(f"{count} of {len(missing)}: {entry.family.name} {entry.query}", file=sys.stderr)


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # numbers below 1e-38 would take ten times as long
    if not arguments.table:
        train_missing(FILE, arguments.minutes)


if __name__ == "__main__":
    main()
