"""What `try_training` finds out about the models of `truth_models`, beside what became of them.

A trial takes seconds, so its results are kept in `truth_tried.csv`; delete the file to try again.
"""

import csv
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from truth_models import Entry
from truth_table import (
    OPTIMIZERS,
    REFUSED,
    Sample,
    list_groups,
    measure,
    measure_ranking,
    pick,
)

from chainrule import ChainruleError, Verdict, diagnose, try_training
from chainrule.flow.trial import TrialOutcome

FILE = Path(__file__).parent / "truth_tried.csv"
BATCHES = 35
"""`try_training` reads no more."""

COLUMNS = ("key", "verdict", "passes", "sgd", "sgd_learned", "adam", "adam_learned")


@dataclass(frozen=True)
class Tried:
    """What a trial says of a model: the verdict after it, and of each optimizer how it went."""

    verdict: str
    passes: float
    outcomes: Mapping[str, str]
    learned: Mapping[str, float]


def can_be_tried(entry: Entry) -> bool:
    """Return whether a trial trains as the real training does: it has no scaler of gradients."""
    return entry.build().loss_scale == 1


def try_entry(entry: Entry) -> dict[str, object]:
    """Return a row of the file."""
    problem = entry.build()
    stream = torch.Generator().manual_seed(entry.seed + 2)
    batches = [problem.draw(stream, problem.batch_size) for _ in range(BATCHES)]
    row: dict[str, object] = {"key": entry.key, "verdict": REFUSED, "passes": 0}
    for name in OPTIMIZERS:
        row |= {name: REFUSED, f"{name}_learned": math.nan}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = try_training(problem.model, problem.compute_loss, batches=batches)
        flow = measure(problem, batches[0])
    except ChainruleError:
        return row
    row |= {"verdict": diagnose(flow, trial=trial).verdict, "passes": trial.passes}
    for name, each in zip(OPTIMIZERS, trial.optimizers, strict=False):
        if each.best is not None:
            row |= {name: each.outcome, f"{name}_learned": f"{each.best.learned:.4g}"}
    return row


def append_tried(row: Mapping[str, object]) -> None:
    """Add a row to the file."""
    fresh = not FILE.exists()
    with FILE.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def try_missing(entries: Sequence[Entry], minutes: float) -> None:
    """Try the models that have no row yet until the time is up."""
    end = time.monotonic() + 60 * minutes
    done = read_tried()
    missing = [entry for entry in entries if entry.key not in done and can_be_tried(entry)]
    for count, entry in enumerate(missing, 1):
        if time.monotonic() > end:
            return
        append_tried(try_entry(entry))
        print(f"tried {count} of {len(missing)}: {entry.family.name}", file=sys.stderr)


def read_tried() -> dict[str, Tried]:
    """Return what was tried, by the keys of the models."""
    if not FILE.exists():
        return {}
    with FILE.open(newline="") as file:
        return {
            row["key"]: Tried(
                verdict=row["verdict"],
                passes=float(row["passes"]),
                outcomes={name: row[name] for name in OPTIMIZERS},
                learned={name: float(row[f"{name}_learned"]) for name in OPTIMIZERS},
            )
            for row in csv.DictReader(file)
        }


def write_trials(samples: Sequence[Sample]) -> str:
    """Return what was tried beside what became of the models, as a table."""
    tried = read_tried()
    lines = [
        "| kind | models tried | verdict agrees with SGD | trial agrees with SGD | with Adam | "
        "AUC, SGD | AUC, Adam | stuck with both, called healthy | trained with both, called sick |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, kinds in list_groups():
        part = [sample for sample in pick(samples, kinds) if sample.key in tried]
        if not part:
            continue
        found = [tried[sample.key] for sample in part]
        healthy = [each.verdict == Verdict.HEALTHY for each in found]
        pairs = list(zip(part, found, healthy, strict=True))
        agree = {"verdict": sum(well == s.trained["sgd"] for s, _, well in pairs)}
        for each in OPTIMIZERS:
            agree[each] = sum(
                (trial.outcomes[each] == TrialOutcome.TRAINED) == s.trained[each]
                for s, trial, _ in pairs
            )
        areas = [
            measure_ranking(
                [s.trained[each] for s in part], [_rank(trial, each) for trial in found]
            )
            for each in OPTIMIZERS
        ]
        missed = sum(all(s.stuck.values()) and well for s, _, well in pairs)
        alarms = sum(all(s.trained.values()) and not well for s, _, well in pairs)
        cells = [f"{count / len(part):.0%}" for count in agree.values()]
        cells += ["–" if area is None else f"{area:.3f}" for area in areas]
        cells.append(f"{missed} of {sum(all(s.stuck.values()) for s in part)}")
        cells.append(f"{alarms} of {sum(all(s.trained.values()) for s in part)}")
        lines.append(f"| {name} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rank(trial: Tried, optimizer: str) -> float:
    learned = trial.learned[optimizer]
    return max(learned, -1.0) if math.isfinite(learned) else -1.0
