"""Train faulty and sound programs under watch, and compare the alarms with what became of them.

    python benchmarks/alarms.py               # train what is missing, then write the tables
    python benchmarks/alarms.py --table       # only the tables
    python benchmarks/alarms.py --only rate   # only programs whose name has it

Every faulty program has a sound twin. What was said of each is kept in `alarms.csv`; started again,
it goes on, and what has changed since (the program, the rules) is trained anew. It writes
docs/alarms.md and src/chainrule/watch/alarm_constants.py.
"""

import argparse
import csv
import hashlib
import importlib
import inspect
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from alarm_parts import PROGRAMS, Program
from alarm_training import train_watched

from chainrule.watch import rules as rules_module
from chainrule.watch.rules import RULES

HERE = Path(__file__).parent
FILE = HERE / "alarms.csv"
REPORT_FILE = HERE.parent / "docs" / "alarms.md"
CONSTANTS_FILE = Path(rules_module.__file__).with_name("alarm_constants.py")
COLUMNS = ("key", "variant", "digest", "trained", "word", "steps", "seconds", "alarms")
for _group in ("known", "own", "clean", "later", "met"):  # the order says which are kept aside
    importlib.import_module(f"alarm_programs_{_group}")
KINDS = {rule.name: rule.kind for rule in RULES}


@dataclass(frozen=True)
class Said:
    """One alarm, as the file keeps it."""

    rule: str
    step: int
    layer: str

    @property
    def kind(self) -> str:
        return KINDS.get(self.rule, self.rule)


@dataclass(frozen=True)
class Row:
    """One training and what was said of it."""

    program: Program
    bug: bool
    digest: str
    trained: bool
    word: str
    steps: int
    seconds: float
    alarms: tuple[Said, ...]

    @property
    def right(self) -> Said | None:
        """The first alarm of a right kind since the onset."""
        for alarm in self.alarms:
            if alarm.kind in self.program.kinds and alarm.step >= self.program.onset:
                return alarm
        return None

    @property
    def found(self) -> bool:
        """Whether an alarm of a right kind came in time."""
        right = self.right
        return right is not None and right.step - self.program.onset <= self.program.patience

    def is_right(self, alarm: Said) -> bool:
        """Whether an alarm says something true."""
        if not self.bug or alarm.step < self.program.onset:
            return False
        return alarm.kind in (*self.program.kinds, *self.program.also)


def make_digest(program: Program) -> str:
    """Return what changes when a program, or what watches it, changes."""
    text = inspect.getsource(program.source)
    rules = Path(rules_module.__file__).parent
    names = (
        *(
            "history",
            "rules",
            "number_rules",
            "gradient_rules",
            "rate_rules",
            "unit_rules",
            "loss_rules",
        ),
        *("leftovers", "ownership", "copies", "inputs"),
    )
    for path in (*(rules / f"{name}.py" for name in names), HERE / "alarm_training.py"):
        text += path.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_held_out(program: Program) -> bool:
    """Return whether a program was kept aside while the bounds were chosen: every second one."""
    return not is_later(program) and list(PROGRAMS).index(program.name) % 2 == 1


def is_later(program: Program) -> bool:
    """Return whether a program was written after the bounds were chosen, with later rules."""
    return program.source.__module__ in ("alarm_programs_later", "alarm_programs_met")


def load_rows() -> dict[tuple[str, bool], Row]:
    """Return the rows of the file whose programs are still in the list."""
    if not FILE.exists():
        return {}
    rows = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for each in csv.DictReader(file):
            program = PROGRAMS.get(each["key"])
            if program is None:
                continue
            bug = each["variant"] == "faulty"
            rows[program.name, bug] = Row(
                program,
                bug,
                each["digest"],
                each["trained"] == "yes",
                each["word"],
                int(each["steps"]),
                float(each["seconds"]),
                tuple(Said(*alarm) for alarm in json.loads(each["alarms"])),
            )
    return rows


def save_rows(rows: Iterable[Row]) -> None:
    """Write all rows, in the order of the list."""
    order = {name: number for number, name in enumerate(PROGRAMS)}
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda row: (order[row.program.name], not row.bug)):
            alarms = json.dumps([[a.rule, a.step, a.layer] for a in row.alarms])
            writer.writerow(
                (
                    row.program.name,
                    "faulty" if row.bug else "sound",
                    row.digest,
                    "yes" if row.trained else "no",
                    row.word,
                    row.steps,
                    f"{row.seconds:.1f}",
                    alarms,
                )
            )


def train(program: Program, bug: bool) -> Row:
    """Train one program under watch."""
    torch.manual_seed(program.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = train_watched(program.build(bug))
    alarms = tuple(Said(each.rule, each.step, each.layer) for each in outcome.alarms)
    return Row(
        program,
        bug,
        make_digest(program),
        outcome.trained,
        outcome.word,
        len(outcome.losses),
        outcome.seconds,
        alarms,
    )


def count_rules(rows: Sequence[Row]) -> dict[str, tuple[int, int, int, int]]:
    """Return by rule: right alarms, all alarms, faulty programs of its kind found, and all such.

    A program that two kinds name rightly counts for both.
    """
    found = {}
    for rule in RULES:
        said = [(row, alarm) for row in rows for alarm in row.alarms if alarm.rule == rule.name]
        faulty = [row for row in rows if row.bug and rule.kind in row.program.kinds]
        found[rule.name] = (
            sum(row.is_right(alarm) for row, alarm in said),
            len(said),
            sum(row.found for row in faulty),
            len(faulty),
        )
    return found


def write_constants(rows: Sequence[Row]) -> None:
    """Write how often each rule was right, for its alarms to show."""
    table = "".join(f'        "{name}": {counts},\n' for name, counts in count_rules(rows).items())
    CONSTANTS_FILE.write_text(
        '"""How often each rule was right on the truth set, written by `make alarms`: not by '
        'hand."""\n\n'
        "from collections.abc import Mapping\nfrom types import MappingProxyType\n\n"
        "RECORD: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(\n    {\n"
        f"{table}    }}\n)\n"
        '"""By rule: alarms that were right, all its alarms, faulty programs of its kind that were '
        'found, and\nhow many there are."""\n',
        encoding="utf-8",
    )


def _show_alarms(alarms: Iterable[Said]) -> str:
    return ", ".join(
        f"{each.kind} at {each.step}" + (f" (`{each.layer}`)" if each.layer else "")
        for each in alarms
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole else "")


def _write_summary(rows: Sequence[Row]) -> str:
    lines = [
        "| programs | faulty, an alarm of the right kind in time | twins with a false alarm | "
        "clean runs with a false alarm |",
        "|---|---|---|---|",
    ]
    early = [row for row in rows if not is_later(row.program)]
    parts = {
        "after published benchmarks": [r for r in early if r.program.group == "known"],
        "of our own": [r for r in early if r.program.group == "own"],
        "clean": [r for r in early if r.program.group == "clean"],
        "of these, the half on which bounds were chosen": [
            r for r in early if not is_held_out(r.program)
        ],
        "of these, the half that was kept aside": [r for r in early if is_held_out(r.program)],
        "written later": [r for r in rows if is_later(r.program)],
        "all": list(rows),
    }
    for name, part in parts.items():
        bad = [row for row in part if row.bug]
        twins = [row for row in part if not row.bug and row.program.kinds]
        sound = [row for row in part if not row.program.kinds]
        lines.append(
            f"| {name} | {_share(sum(r.found for r in bad), len(bad))} "
            f"| {_share(sum(bool(r.alarms) for r in twins), len(twins))} "
            f"| {_share(sum(bool(r.alarms) for r in sound), len(sound))} |"
        )
    return "\n".join(lines)


def _write_rules(rows: Sequence[Row]) -> str:
    lines = ["| rule | says | alarms right | faulty programs found |", "|---|---|---|---|"]
    counts = count_rules(rows)
    for rule in RULES:
        right, said, found, faulty = counts[rule.name]
        lines.append(
            f"| `{rule.name}` | {rule.kind} | {_share(right, said) if said else 'none given'} "
            f"| {_share(found, faulty) if faulty else 'none in the set'} |"
        )
    return "\n".join(lines)


def _write_faulty(rows: Sequence[Row]) -> str:
    lines = [
        "| program | right kinds | onset | steps to the alarm | outcome | all alarms | its twin |",
        "|---|---|---|---|---|---|---|",
    ]
    twins = {row.program.name: row for row in rows if not row.bug}
    for row in rows:
        if not row.bug:
            continue
        program, right, twin = row.program, row.right, twins.get(row.program.name)
        late = "" if right is None or row.found else " (late)"
        steps = "**none**" if right is None else f"{right.step - program.onset}{late}"
        mark = "†" if is_held_out(program) else ""
        lines.append(
            f"| {program.what}{mark} | {' or '.join(program.kinds)} | {program.onset} | {steps} "
            f"| {'trained' if row.trained else 'failed'}: {row.word} | {_show_alarms(row.alarms)} "
            f"| {_describe_sound(twin)} |"
        )
    return "\n".join(lines)


def _describe_sound(row: Row | None) -> str:
    if row is None:
        return ""
    word = f"{'trained' if row.trained else 'did not train'}: {row.word}"
    return word + (f"; **{_show_alarms(row.alarms)}**" if row.alarms else "")


def _write_clean(rows: Sequence[Row]) -> str:
    lines = ["| program | steps | outcome | alarms |", "|---|---|---|---|"]
    for row in rows:
        if row.program.kinds:
            continue
        mark = "†" if is_held_out(row.program) else ""
        lines.append(
            f"| {row.program.what}{mark} | {row.steps} | "
            f"{'trained' if row.trained else 'did not train'}: {row.word} "
            f"| {_show_alarms(row.alarms) or 'none'} |"
        )
    return "\n".join(lines)


def _write_bounds() -> str:
    lines = ["| rule | bound | of | from |", "|---|---|---|---|"]
    lines.extend(
        f"| `{rule.name}` | {bound.value:g} | {bound.unit} | {bound.source} |"
        for rule in RULES
        for bound in rule.bounds
    )
    return "\n".join(lines)


def write_report(rows: Sequence[Row]) -> None:
    """Write docs/alarms.md anew."""
    text = TEMPLATE
    for name, part in (
        ("summary", _write_summary(rows)),
        ("rules", _write_rules(rows)),
        ("bounds", _write_bounds()),
        ("faulty", _write_faulty(rows)),
        ("clean", _write_clean(rows)),
    ):
        text = text.replace(f"<!-- {name} -->", part)
    REPORT_FILE.write_text(text, encoding="utf-8")


TEMPLATE = """# How often are the alarms of a run right?

`chainrule.watch` says in words when a training goes wrong. This page holds its alarms against
programs of which it is known what is wrong, and since which step. `make alarms` trains them all,
watched, and writes this page; `benchmarks/alarms.csv` keeps every alarm.

## What was done

- **Faulty programs** (`benchmarks/alarm_programs_known.py`, after published benchmarks of faulty
  training programs, and `alarm_programs_own.py`). Each knows the step at which its trouble begins
  and the kinds of alarm that name it rightly. Two kinds are right where two remedies mend it: a run
  that diverges may be called exploding, or its learning rate too high. Each has a **sound twin**
  that differs in the fault alone.
- **Clean runs** (`alarm_programs_clean.py`): models, optimizers, schedules and habits of many
  kinds: warm-up, restarts, dropout, batch normalization, small batches, clipping, fine-tuning,
  mixed precision, networks that train in turns.
- **Programs of `alarm_programs_later.py` and `alarm_programs_met.py`** were written later: the
  first with the rules about gradients that nobody zeroed, targets that change, units that die
  between two samples, freezing on purpose and losses that are trained against each other; the
  second with those about inputs, raised and fallen learning rates, overflow, and copies of the
  weights that make the targets. No half of them was kept aside.
- **What may be meant is no alarm**, but said once in the log and kept in `run.notices`: most of a
  network frozen in mid-run, parameters that get gradients and no optimizer moves, an optimizer of
  another model, one that holds what another one holds, one that steps and is not watched, none that
  steps at all, and a weight decay that takes a tenth of the weights in each step.
- **Outcomes are measured**, not assumed: a faulty program has to fail by its own measure
  (accuracy, explained variance, a loss that leaves its course), its twin and every clean run
  have to train.
- **In time** means within 20 steps of the onset; where the trouble itself needs time (a loss
  without progress, units that die one after the other, weights that decay) the program says
  how many.
- **Bounds** come from theory where there is one. The others were chosen on every second program
  only. With these, 28 of the 33 faulty programs of the other half, marked †, had an alarm of the
  right kind in time, and none of the 39 sound ones that were measured by then had any. The tables
  below are of today, after what the five had to teach: one had no fault and one knew the wrong
  onset; in two a rate that replaced the weights had killed units, and only the units were named;
  one began above the loss of guessing, and fell to it.

Small networks on a processor are what this page can measure: large models, long runs and many
processes are not among them. Who gives an optimizer only the front of a model, or leaves a new
first layer out of it, is told nothing: that looks like a part that is trained on purpose.

## In short

<!-- summary -->

## Rule by rule

A rule's own record is part of the evidence of each of its alarms. A program that two kinds name
rightly counts for both. Alarms of a faulty program that name something else count as wrong.

<!-- rules -->

## Bounds

<!-- bounds -->

## Faulty programs

<!-- faulty -->

## Clean runs

<!-- clean -->
"""


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--only", default="", help="only programs whose name has this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = load_rows()
    for program in PROGRAMS.values():
        for bug in (True, False) if program.kinds else (False,):
            old = rows.get((program.name, bug))
            done = old is not None and old.digest == make_digest(program)
            if arguments.table or done or arguments.only not in program.name:
                continue
            row = rows[program.name, bug] = train(program, bug)
            save_rows(rows.values())
            said = _show_alarms(row.alarms) or "no alarm"
            sys.stderr.write(f"{program.name} {'faulty' if bug else 'sound'}: {said}\n")
    order = {name: number for number, name in enumerate(PROGRAMS)}
    ready = sorted(rows.values(), key=lambda row: (order[row.program.name], not row.bug))
    write_report(ready)
    write_constants(ready)


if __name__ == "__main__":
    main()
