"""Really train a broad sample of networks, and keep what became of them in `outcomes.csv`.

    python benchmarks/calibrate.py --minutes 15 --processes 2

Every run adds to the file what is still missing, in a fixed random order, and stops when its time
is up; started again, it goes on. The sample has two parts:

* "fit": the teacher's and the patterns' task on networks of widths 16 to 256 but never 64, depths 2
  to 100, all activations and initializations, with and without residual connections and
  normalization. `viability.py` fits the constants in `diagnosis/viability/constants.py` on these.
* "test": a complete grid on scikit-learn's digits at width 64, which nothing was fitted on.
"""

import argparse
import csv
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from chainrule import ACTIVATIONS, INITIALIZERS, NetworkSpec
from chainrule.training.tasks import TaskName
from chainrule.training.trainability import RATES, STEPS, measure_alike

FILE = Path(__file__).parent / "outcomes.csv"
SEED = 5
FIT_GROUPS = 1500
DEPTHS = (2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100)
WIDTHS = (16, 32, 48, 96, 128, 256)
WEIGHT_STDS = (1.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
MOST, PLENTY = 400_000, 50_000
"""Networks with depth · (width² + 32²) above the first are not drawn, because they take too long;
those above the second are drawn the less often the larger they are."""

DEEP_MOST = 200_000
"""Largest depth · width² of the deep networks that are drawn besides."""

TEST_DEPTHS = (2, 4, 8, 15, 25, 50)
TEST_ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu")
TEST_INITIALIZATIONS = ("xavier", "he", "lecun", "random", "pytorch")

COLUMNS = (
    "part",
    "task",
    "spec",
    "sgd",
    "sgd_accuracy",
    "sgd_rate",
    "sgd_steps",
    "adam",
    "adam_accuracy",
    "adam_rate",
    "adam_steps",
)


@dataclass(frozen=True)
class Group:
    """Networks that are trained together: alike but for their initialization."""

    part: str
    task: TaskName
    specs: tuple[NetworkSpec, ...]


def list_groups() -> list[Group]:
    """Return the whole sample in the order it is worked through."""
    chance = random.Random(SEED)
    fit = [_draw_group(chance) for _ in range(FIT_GROUPS)]
    test = [
        Group(
            "test",
            "digits",
            tuple(
                NetworkSpec(depth=depth, width=64, activation=activation, init=init)
                for init in TEST_INITIALIZATIONS
            ),
        )
        for depth, activation in product(TEST_DEPTHS, TEST_ACTIVATIONS)
    ]
    chance.shuffle(test)
    chance = random.Random(SEED + 1)
    fit = [group for pair in zip(_draw_deep_groups(chance), fit, strict=False) for group in pair]
    mixed = []
    for position, group in enumerate(fit):
        mixed.append(group)
        if position % 2 == 0 and test:
            mixed.append(test.pop())
    return mixed


def _draw_deep_groups(chance: random.Random) -> Iterator[Group]:
    """Yield deep plain networks whose gradients are of a usual size: those hard to tell."""
    while True:
        base = NetworkSpec(
            depth=chance.choice((20, 30, 40, 50, 70)),
            width=chance.choice((32, 48, 48, 96)),
            activation=chance.choice(("tanh", "relu", "leaky_relu", "elu", "selu", "gelu")),
            seed=chance.randrange(2**31 - 100),
        )
        if base.depth * base.width**2 <= DEEP_MOST:
            inits = chance.sample(("xavier", "he", "orthogonal"), 2)
            specs = tuple(base.replace(init=init) for init in inits)
            yield Group("fit", chance.choice(("teacher", "patterns")), specs)


def _draw_group(chance: random.Random) -> Group:
    while True:
        depth, width = chance.choice(DEPTHS), chance.choice(WIDTHS)
        cost = depth * (width**2 + 32**2)
        if cost <= MOST and chance.random() < PLENTY / cost:
            break
    base = NetworkSpec(
        depth=depth,
        width=width,
        activation=chance.choice(list(ACTIVATIONS)),
        residual=chance.choice(("none", "none", "none", "plain", "scaled")),
        normalization=chance.choice(("none",) * 6 + ("layernorm", "batchnorm", "rmsnorm")),
        seed=chance.randrange(2**31 - 100),
    )
    specs = []
    for init in chance.sample(list(INITIALIZERS), 3):
        std = chance.choice(WEIGHT_STDS) if init == "random" else 1.0
        specs.append(base.replace(init=init, weight_std=std))
    return Group("fit", chance.choice(("teacher", "patterns")), tuple(specs))


def train_group(group: Group) -> list[dict[str, object]]:
    """Return one row of the file per network of a group."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # numbers below 1e-38 would take ten times as long
    rows: list[dict[str, object]] = [
        {"part": group.part, "task": group.task, "spec": spec.to_query()} for spec in group.specs
    ]
    for optimizer in RATES:
        found = measure_alike(group.specs, task=group.task, optimizer=optimizer)
        for row, result in zip(rows, found, strict=True):
            row[optimizer] = result.outcome
            row[f"{optimizer}_accuracy"] = round(result.accuracy, 3)
            row[f"{optimizer}_rate"] = result.learning_rate
            row[f"{optimizer}_steps"] = result.steps
    return rows


def describe_provenance() -> str:
    """Return where outcomes come from, as one line of JSON."""
    return json.dumps(
        {
            "script": "benchmarks/calibrate.py",
            "seed": SEED,
            "rates": dict(RATES),
            "steps": STEPS,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
    )


def read_outcomes(path: Path = FILE) -> list[dict[str, str]]:
    """Return the rows of the file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _append(rows: Sequence[dict[str, object]], path: Path) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        if fresh:
            file.write(f"# {describe_provenance()}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["part"], row["task"], row["spec"]


def _list_missing(path: Path) -> Iterator[Group]:
    done = {_key(row) for row in read_outcomes(path)}
    for group in list_groups():
        if not all((group.part, group.task, spec.to_query()) in done for spec in group.specs):
            yield group


def main() -> None:
    """Train what is missing until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--part", choices=("fit", "test"), help="only this part, small ones first")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes end too
    missing = list(_list_missing(arguments.file))
    if arguments.part:
        missing = [group for group in missing if group.part == arguments.part]
        missing.sort(key=lambda group: group.specs[0].depth * group.specs[0].width ** 2)
    start = time.monotonic()
    end = start + 60 * arguments.minutes
    print(f"{len(missing)} groups are missing", file=sys.stderr)

    def feed() -> Iterator[Group]:
        for group in missing:
            if time.monotonic() > end:
                return
            yield group

    count = 0
    queue = feed()
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        waiting = [
            pool.apply_async(train_group, (group,))
            for _, group in zip(range(arguments.processes), queue, strict=False)
        ]
        while waiting:
            ready = next((each for each in waiting if each.ready()), None)
            if ready is None:
                time.sleep(0.02)
                continue
            waiting.remove(ready)
            _append(ready.get(), arguments.file)
            count += 1
            following = next(queue, None)
            if following is not None:
                waiting.append(pool.apply_async(train_group, (following,)))
            minutes = (time.monotonic() - start) / 60
            print(f"{count} of {len(missing)} groups, {minutes:.1f} min", file=sys.stderr)


if __name__ == "__main__":
    main()
