"""Whether remedies work when the network is really trained (`make remedies`).

    python benchmarks/remedies.py            # the first remedy of every network not viable
    python benchmarks/remedies.py --every    # every change that was measured, of fewer networks

The networks are the held-out grid of `calibrate.py` (scikit-learn's digits, width 64), those that
are called not viable with SGD or with Adam. Each is diagnosed, its first remedy is applied, and the
result is trained with both optimizers exactly as the grid was (`chainrule.training.trainability`).
What became of each is kept in `first_remedies.csv`, and the counts in docs/viability.md.

With `--every`, all that `find_remedies` tried is trained, what it refuted too: a table of outcomes,
printed only. Needs scikit-learn; takes about five minutes on two cores.
"""

import argparse
import csv
import json
import multiprocessing
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from calibrate import read_outcomes
from viability import OPTIMIZERS, REPORT_FILE, replace_part

from chainrule import NetworkSpec, find_remedies
from chainrule.diagnosis.viability.model import NOT_VIABLE, Outlook
from chainrule.training.trainability import RATES, Outcome, measure_trainability

FILE = Path(__file__).parent / "first_remedies.csv"
STRIDE = 5
"""With `--every`, one network of so many."""

COLUMNS = (
    "spec",
    "verdict",
    "sgd_probability",
    "adam_probability",
    "sgd_before",
    "adam_before",
    "remedy",
    "changes",
    "outcome",
    "sgd_after",
    "sgd_accuracy",
    "adam_after",
    "adam_accuracy",
)

Row = dict[str, object]


def _prepare() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def train_first(known: dict[str, str]) -> Row | None:
    """Return what the first remedy of a network did; `None` for one that is not in question."""
    _prepare()
    found = find_remedies(NetworkSpec.from_query(known["spec"]))
    viability = found.diagnosis.viability
    if Outlook.NOT_VIABLE not in (viability.sgd.word, viability.adam.word):
        return None
    row: Row = {
        "spec": known["spec"],
        "verdict": found.diagnosis.verdict,
        "sgd_probability": round(viability.sgd.probability or 0.0, 3),
        "adam_probability": round(viability.adam.probability or 0.0, 3),
        "sgd_before": known["sgd"],
        "adam_before": known["adam"],
        "remedy": "",
        "changes": "",
        "outcome": "",
    }
    if not found:
        return row | {f"{name}_after": Outcome.NOT for name in OPTIMIZERS}
    first = found[0]
    assert first.spec is not None
    row |= {"remedy": first.title, "changes": json.dumps(first.changes), "outcome": first.outcome}
    for name in RATES:
        result = measure_trainability(first.spec, optimizer=name)
        row |= {f"{name}_after": result.outcome, f"{name}_accuracy": round(result.accuracy, 3)}
    return row


def train_every(known: dict[str, str]) -> list[tuple[str, Outcome]]:
    """Return what became with SGD of every change that was tried on a network."""
    _prepare()
    found = find_remedies(NetworkSpec.from_query(known["spec"]))
    return [
        (str(remedy.outcome), measure_trainability(remedy.spec, optimizer="sgd").outcome)
        for remedy in found.tried
        if remedy.spec is not None
    ]


def write_table(rows: Sequence[Row]) -> str:
    """Return the counts as a Markdown table."""
    lines = [
        "| called not viable with | networks | trained as is | trained with the first remedy |",
        "|---|---|---|---|",
    ]
    for name, label in zip(OPTIMIZERS, ("SGD", "Adam"), strict=True):
        chosen = [row for row in rows if _is_in_question(row, name)]
        before = sum(row[f"{name}_before"] == Outcome.TRAINED for row in chosen)
        after = sum(row[f"{name}_after"] == Outcome.TRAINED for row in chosen)
        share = after / len(chosen) if chosen else 0.0
        lines.append(f"| {label} | {len(chosen)} | {before} | **{after}** ({share:.0%}) |")
    kinds = Counter(str(row["remedy"]) for row in rows)
    named = "; ".join(f"{title} ({count})" for title, count in kinds.most_common())
    return "\n".join([*lines, "", f"What came first: {named}."])


def _is_in_question(row: Row, name: str) -> bool:
    return float(str(row[f"{name}_probability"])) < NOT_VIABLE


def _save(rows: Sequence[Row]) -> None:
    provenance = {
        "script": "benchmarks/remedies.py",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    with FILE.open("w", newline="") as file:
        file.write(f"# {json.dumps(provenance)}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Train, and keep what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", action="store_true", help="train every change that was tried")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    grid = [row for row in read_outcomes() if row["part"] == "test"]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        if arguments.every:
            counts: Counter[tuple[str, Outcome]] = Counter()
            for results in pool.imap_unordered(train_every, grid[::STRIDE]):
                counts.update(results)
            for outcome in sorted({outcome for outcome, _ in counts}):
                total = sum(n for (name, _), n in counts.items() if name == outcome)
                print(f"{outcome}: {counts[outcome, Outcome.TRAINED]} of {total} trained with SGD")
            return
        rows = []
        for position, row in enumerate(pool.imap(train_first, grid)):
            if sys.stderr.isatty():
                print(f"\r{position + 1} of {len(grid)}", end="", file=sys.stderr)
            if row is not None:
                rows.append(row)
    _save(rows)
    table = write_table(rows)
    print(table)
    REPORT_FILE.write_text(replace_part(REPORT_FILE.read_text(), "remedies", table))


if __name__ == "__main__":
    main()
