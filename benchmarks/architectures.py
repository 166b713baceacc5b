"""Are sound models called sound? Standard architectures at their standard start, judged in a table.

The models are those of `architecture_zoo`: written by hand, of torchvision and timm where these are
installed, and a tiny one of every model type of `transformers`. Each that is not called healthy is
trained with SGD and Adam at several rates, so that the table shows who is right. Writes
docs/architectures.md. What was measured stays in a file next to the results (`--cache`), and an
interrupted run goes on from there.
"""

import argparse
import json
import logging
import math
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from architecture_zoo.language import list_language_models
from architecture_zoo.tasks import Case
from architecture_zoo.vision import list_vision_models
from architecture_zoo.written import WRITTEN

from chainrule import diagnose, inspect

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
PATIENCE = 40
"""Seconds after which a model is left out as too slow for this table."""

RATES = {"SGD": (1e-2, 0.1, 1.0, 10.0), "Adam": (1e-3, 1e-2)}
STEPS = 60

Row = dict[str, Any]


def list_models() -> Iterator[tuple[str, str, Callable[[], Case]]]:
    """Yield the group, the name and the builder of every model."""
    for name, build in WRITTEN.items():
        yield "written by hand", name, build
    for name, build in list_vision_models():
        yield name.split()[0], name.split()[1], build
    for name, build in list_language_models():
        yield "transformers", name, build


def judge(build: Callable[[], Case]) -> Row:
    """Return what a diagnosis says of a model at its start; why not, if that fails."""
    try:
        torch.manual_seed(0)
        model, compute_loss = build()
        compute_loss(model)
    except Exception as error:
        return {"left out": f"{type(error).__name__}: {error}"[:120]}
    diagnosis = diagnose(inspect(model, compute_loss))
    return {
        "verdict": str(diagnosis.verdict),
        "findings": [f"{each.rule}: {each.evidence}" for each in diagnosis.findings],
        "notes": [each.name for each in diagnosis.notes],
    }


def train(build: Callable[[], Case], kind: str) -> tuple[float, float]:
    """Return the loss before and the lowest loss after a training, over the learning rates."""
    first, best = math.nan, math.inf
    for rate in RATES[kind]:
        torch.manual_seed(0)
        model, compute_loss = build()
        optimizer = getattr(torch.optim, kind)(
            [p for p in model.parameters() if p.requires_grad], lr=rate
        )
        loss = math.inf
        for step in range(STEPS):
            optimizer.zero_grad()
            torch.manual_seed(step)
            value = compute_loss(model)
            loss = value.item()
            first = loss if step == 0 else first
            if not math.isfinite(loss):
                break
            value.backward()
            optimizer.step()
        best = min(best, loss if math.isfinite(loss) else math.inf)
    return first, best


def _ring(*_: object) -> None:
    raise TimeoutError("too slow for this table")


def main() -> None:
    """Measure what is not measured yet, train what is not called healthy, write the page."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="", help="part of a name")
    arguments.add_argument("--cache", type=Path, default=Path("/tmp/architectures.jsonl"))
    arguments.add_argument("--patience", type=int, default=120, help="seconds for a training")
    options = arguments.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _ring)
    lines = options.cache.read_text().splitlines() if options.cache.exists() else []
    rows: dict[str, Row] = {row["name"]: row for row in map(json.loads, lines)}
    for group, name, build in list_models():
        if name in rows or options.only not in name:
            continue
        signal.alarm(PATIENCE)
        try:
            row = judge(build)
        except Exception as error:  # a measurement that fails is an exception worth a row
            row = {"verdict": "error", "findings": [str(error)[:300]], "notes": []}
            if "too slow" in str(error):
                row = {"left out": "too slow for this table"}
        if row.get("verdict", "healthy") not in ("healthy", "error"):
            signal.alarm(options.patience)
            with suppress(TimeoutError):
                row["training"] = {kind: train(build, kind) for kind in RATES}
        signal.alarm(0)
        rows[name] = {"group": group, "name": name, **row}
        print(json.dumps(rows[name]), file=options.cache.open("a"), flush=True)
        if row.get("verdict", "healthy") != "healthy":
            print(rows[name], flush=True)
    if not options.only:
        PAGE.write_text(write_page(list(rows.values())))


def write_page(rows: list[Row]) -> str:
    """Return the page: how many are called healthy, and every exception with its training."""
    measured = [row for row in rows if "left out" not in row]
    healthy = [row for row in measured if row["verdict"] == "healthy"]
    exceptions = [row for row in measured if row["verdict"] != "healthy"]
    share = 100 * len(healthy) / max(1, len(measured))
    lines = [
        "# Standard architectures at their standard start",
        "",
        "A sound model should be called sound. This table is made by `make architectures`: every "
        "model is built small, at the start that its paper or its library gives it, and judged by "
        "one measurement. What is not called healthy is trained, at the best of "
        f"{len(RATES['SGD'])} learning rates for SGD and {len(RATES['Adam'])} for Adam, for "
        f"{STEPS} steps on one batch.",
        "",
        f"**{len(healthy)} of {len(measured)} models ({share:.1f} %) are healthy or get notes "
        "only.**",
        "",
        "| models | measured | healthy | with notes |",
        "|---|---|---|---|",
    ]
    for group in dict.fromkeys(row["group"] for row in measured):
        inside = [row for row in measured if row["group"] == group]
        sound = [row for row in inside if row["verdict"] == "healthy"]
        noted = sum(bool(row["notes"]) for row in sound)
        lines.append(f"| {group} | {len(inside)} | {len(sound)} | {noted} |")
    lines += ["", "## Exceptions", ""]
    if exceptions:
        lines += ["| model | verdict | finding | SGD: loss | Adam: loss |", "|---|---|---|---|---|"]
    for row in exceptions:
        losses = [
            " → ".join(f"{value:.3g}" for value in row["training"][kind])
            if "training" in row
            else "too slow to train here"
            for kind in RATES
        ]
        finding = row["findings"][0].replace("|", "\\|")
        lines.append(
            f"| {row['group']}: {row['name']} | {row['verdict']} | {finding} | "
            f"{losses[0]} | {losses[1]} |"
        )
    if not exceptions:
        lines.append("None.")
    notes = Counter(note for row in measured for note in row["notes"])
    lines += ["", "## Notes", "", "| note | models |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in notes.most_common()]
    lines += ["", "## Measured", ""]
    for group in dict.fromkeys(row["group"] for row in measured):
        names = sorted(row["name"] for row in measured if row["group"] == group)
        lines += [f"**{group}**: {', '.join(names)}.", ""]
    left = [row for row in rows if "left out" in row]
    lines += [
        f"Left out were {len(left)} model types that cannot be built small by the usual names of "
        "sizes, need other inputs than tokens or images, or are too slow for this table.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
