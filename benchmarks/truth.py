"""Really train small models of many kinds, and compare the verdict with what became of them.

    python benchmarks/truth.py --minutes 20    # train what is missing, then write the table
    python benchmarks/truth.py --try           # also short trials with `try_training`
    python benchmarks/truth.py --table         # only the table

The models are those of `truth_models`. What became of them is kept in `truth.csv`; started again,
it goes on. What is measured and said of them is made anew by each run and kept in `truth_said.csv`,
and docs/truth.md shows both side by side.
"""

import argparse
import csv
import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from truth_models import FITTED, Entry, Problem, list_entries
from truth_table import (
    Sample,
    fit_score,
    gather,
    list_wrong,
    listen,
    load_said,
    pick,
    save_said,
    write_constants,
    write_ranking,
    write_reliability,
    write_rules,
    write_score,
    write_verdicts,
)
from truth_trials import FILE as TRIED_FILE
from truth_trials import try_missing, write_trials
from viability import replace_part

FILE = Path(__file__).parent / "truth.csv"
REPORT_FILE = Path(__file__).parent.parent / "docs" / "truth.md"

RATES: Mapping[str, tuple[float, ...]] = {
    "sgd": (0.1, 0.3, 1.0, 0.03, 0.01, 0.001),
    "adam": (0.01, 0.003, 0.001, 0.0001),
}
"""Learning rates in the order in which they are tried. SGD has no momentum."""

STEPS = 120
KEPT = 256
"""Examples of the batch that is kept aside."""

WORST = 2.0
"""Errors above this, and undefined ones, count as this."""

GOOD, PLENTY = 0.3, 0.12
"""An error below the first spares a model the other learning rates, one below the second spares it
the other steps of a training. It is looked at after each third."""

FLAT = 0.01
"""A training whose loss and error have not moved by this share after a third is left, except at the
largest learning rate. Smaller rates are then not tried either."""

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


@dataclass(frozen=True)
class Training:
    """What became of one training: the error at the end, and how it ended if before its time."""

    error: float
    end: Literal["", "flat", "non-finite"] = ""


def train(entry: Entry, optimizer: str, rate: float) -> Training:
    """Train a model on fresh batches."""
    problem = entry.build()
    kept = problem.draw(torch.Generator().manual_seed(entry.seed + 1), KEPT)
    before = measure_error(problem, kept)
    stream = torch.Generator().manual_seed(entry.seed + 2)
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    stepper = kind(problem.model.parameters(), lr=rate)
    losses = []
    for step in range(STEPS):
        stepper.zero_grad()
        loss = problem.compute_loss(problem.model, problem.draw(stream, problem.batch_size))
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            return Training(measure_error(problem, kept), "non-finite")
        loss.backward()
        if problem.loss_scale != 1:
            for parameter in problem.model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= problem.loss_scale
        stepper.step()
        if (step + 1) % (STEPS // 3) == 0:
            error = measure_error(problem, kept)
            if error < PLENTY:
                return Training(error)
            first = step + 1 == STEPS // 3
            if first and rate < max(RATES[optimizer]) and is_flat(losses, before, error):
                return Training(error, "flat")
    return Training(measure_error(problem, kept))


def is_flat(losses: Sequence[float], before: float, error: float) -> bool:
    """Return whether neither the loss of the batches nor the error moves."""
    early, late = (sum(part) / len(part) for part in (losses[:10], losses[-10:]))
    return abs(late - early) <= FLAT * abs(early) and abs(error - before) <= 2 * FLAT


def try_rates(entry: Entry, optimizer: str) -> tuple[float, float]:
    """Return the least error that an optimizer reaches, and its learning rate."""
    found: dict[float, Training] = {}
    for rate in RATES[optimizer]:
        if any(each.end == "flat" and rate < tried for tried, each in found.items()):
            continue
        if any(each.end == "non-finite" and rate > tried for tried, each in found.items()):
            continue
        found[rate] = train(entry, optimizer, rate)
        if found[rate].error < GOOD:
            break
    best = min(found, key=lambda rate: found[rate].error)
    return found[best].error, best


def find_outcome(entry: Entry) -> dict[str, object]:
    """Return one row of the file: the best that each optimizer reaches."""
    problem = entry.build()
    kept = problem.draw(torch.Generator().manual_seed(entry.seed + 1), KEPT)
    row: dict[str, object] = {
        "key": entry.key,
        "kind": entry.family.kind,
        "family": entry.family.name,
        "parameters": entry.query,
        "seed": entry.seed,
        "task": problem.task,
        "start": round(measure_error(problem, kept), 3),
    }
    for optimizer in RATES:
        error, rate = try_rates(entry, optimizer)
        row[optimizer] = round(error, 3)
        row[f"{optimizer}_rate"] = rate
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


def drop_stale(path: Path) -> None:
    """Leave out of a file the rows of models that are no longer, or no longer the same."""
    if not path.exists():
        return
    current = {entry.key for entry in list_entries()}
    lines = path.read_text().splitlines(keepends=True)
    kept = [
        line
        for line in lines
        if line.startswith(("#", "key,")) or line.partition(",")[0] in current
    ]
    if kept != lines:
        path.write_text("".join(kept))


def train_missing(path: Path, minutes: float) -> None:
    """Train what has no row yet until the time is up, and add a row for each."""
    end = time.monotonic() + 60 * minutes
    drop_stale(path)
    done = read_outcomes(path)
    missing = [entry for entry in list_entries() if entry.key not in done]
    for count, entry in enumerate(missing, 1):
        if time.monotonic() > end:
            return
        _append(find_outcome(entry), path)
        print(f"{count} of {len(missing)}: {entry.family.name} {entry.query}", file=sys.stderr)


def write_report(samples: Sequence[Sample]) -> str:
    """Return docs/truth.md anew."""
    constants = fit_score(samples)
    text = REPORT_FILE.read_text()
    for name, content in (
        ("verdicts", write_verdicts(samples)),
        ("ranking", write_ranking(samples, constants)),
        ("reliability", write_reliability(samples, constants)),
        ("constants", write_constants(constants)),
        ("trials", write_trials(samples)),
        ("rules", write_rules(samples)),
        ("wrong", list_wrong(samples)),
    ):
        text = replace_part(text, name, content)
    return text


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="for trainings (20)")
    parser.add_argument("--try", dest="tries", action="store_true", help="try_training as well")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # numbers below 1e-38 would take ten times as long
    if not arguments.table:
        train_missing(FILE, arguments.minutes)
    outcomes = read_outcomes()
    entries = [entry for entry in list_entries() if entry.key in outcomes]
    if arguments.tries:
        drop_stale(TRIED_FILE)
        try_missing(entries, arguments.minutes)
    save_said({entry.key: listen(entry) for entry in entries})
    samples = gather(entries, outcomes, load_said())
    write_score(fit_score(samples), len(pick(samples, FITTED)))
    text = write_report(samples)
    REPORT_FILE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
