"""What chainrule says of the models of `truth_models.py`, beside what became of them.

A score from the measurement alone is fitted on the kinds in `FITTED`; all that counts is judged on
the other kinds, of which nothing was fitted.
"""

import csv
import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from truth_models import FITTED, JUDGED, Batch, Entry, Problem
from viability import BINS, NEVER, fit

from chainrule import ChainruleError, GradientFlow, Verdict, diagnose
from chainrule import inspect as inspect_model
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.score import FEATURES, compute_score
from chainrule.diagnosis.viability.constants import Constants, Slope

SCORE_FILE = Path(__file__).parent.parent / "src/chainrule/diagnosis/score_constants.py"
SAID_FILE = Path(__file__).parent / "truth_said.csv"
OPTIMIZERS = ("sgd", "adam")
LABELS = {"sgd": "SGD", "adam": "Adam"}

TRAINED, STUCK = 0.5, 0.15
"""Shares of the way from guessing to what a good twin reaches: from the first on a model trained,
below the second it is stuck near guessing."""

LEAST_WAY = 0.25
"""The way from guessing to a good twin is at least this, so that noise is no progress."""

REFUSED = "refused"
"""The verdict on a model that `inspect` refuses with a sentence, for example a detached loss."""


# --- What is measured ----------------------------------------------------------------------------


KNOTS: Mapping[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    "worst": ((">", (-1.0, 0.0, 1.0)),),
    "step": (("<", (-1.0, -2.0, -4.0)), (">", (0.0, 1.0))),
    "rate": (("<", (-3.0, -4.0, -6.0)), (">", (0.0, 1.0, 3.0))),
}
"""Where the healthy range of each feature ends, by side, and where the slope may change."""

MEANINGS = {
    "worst": "how far the worst value is beyond its bound, over all rules",
    "step": "by how much the loss falls, relative to itself, if every weight moves by 1 %",
    "rate": "the learning rate at which SGD moves the median parameter by 1 %",
}
"""The features in words; all are powers of ten."""


@dataclass(frozen=True)
class Said:
    """What a measurement at the start says of a model."""

    verdict: str
    rules: tuple[str, ...]
    ratio: float
    features: Mapping[str, float | None]


def measure(problem: Problem, batch: Batch) -> GradientFlow:
    """Return the measurement of a model on a batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inspect_model(problem.model, lambda model: problem.compute_loss(model, batch))


def listen(entry: Entry) -> Said:
    """Measure a model on its first batch, and diagnose it."""
    problem = entry.build()
    batch = problem.draw(torch.Generator().manual_seed(entry.seed + 2), problem.batch_size)
    try:
        flow = measure(problem, batch)
    except ChainruleError as error:
        return Said(REFUSED, (type(error).__name__,), WORST_RATIO, dict.fromkeys(FEATURES))
    diagnosis = diagnose(flow)
    return Said(
        verdict=str(diagnosis.verdict),
        rules=tuple(finding.rule for finding in diagnosis.findings),
        ratio=_judge_ratio(flow),
        features=_read_features(flow, problem.loss_scale),
    )


def _read_features(flow: GradientFlow, loss_scale: float) -> dict[str, float | None]:
    """Return the features; gradients that are divided before a step count as they are then."""
    found = {name: read(flow) for name, read in FEATURES.items()}
    if found["rate"] is not None:
        found["rate"] += math.log10(loss_scale)
    return found


WORST_RATIO = -30.0


def _judge_ratio(flow: GradientFlow) -> float:
    """Return how near the gradient ratio is to 1, as other explorers look at it."""
    ratio = flow.gradient_ratio
    if ratio is None:
        return 0.0
    size = float(ratio)
    return (
        max(-abs(math.log10(max(size, 1e-30))), WORST_RATIO) if math.isfinite(size) else WORST_RATIO
    )


def save_said(said: Mapping[str, Said], path: Path = SAID_FILE) -> None:
    """Write what is said of models, by their keys."""
    with path.open("w", newline="") as file:
        file.write(
            f"# {json.dumps({'script': 'benchmarks/truth.py', 'torch': torch.__version__})}\n"
        )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key", "verdict", "rules", "ratio", *FEATURES))
        for key, each in said.items():
            values = [each.features[name] for name in FEATURES]
            cells = ["" if value is None else f"{value:.4g}" for value in values]
            writer.writerow((key, each.verdict, " ".join(each.rules), f"{each.ratio:.4g}", *cells))


def load_said(path: Path = SAID_FILE) -> dict[str, Said]:
    """Return what was said of models when the file was written."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        row["key"]: Said(
            verdict=row["verdict"],
            rules=tuple(row["rules"].split()),
            ratio=float(row["ratio"]),
            features={name: float(row[name]) if row[name] else None for name in FEATURES},
        )
        for row in rows
    }


# --- Both together -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A model with what was said of it and what became of it."""

    key: str
    kind: str
    family: str
    parameters: str
    said: Said
    trained: Mapping[str, bool]
    stuck: Mapping[str, bool]
    errors: Mapping[str, float]

    @property
    def features(self) -> Mapping[str, float | None]:
        return self.said.features

    @property
    def hopeless(self) -> bool:
        return self.said.verdict in {REFUSED, Verdict.NON_FINITE}

    @property
    def is_healthy(self) -> bool:
        return self.said.verdict == Verdict.HEALTHY

    @property
    def is_missed(self) -> bool:
        """Whether it was called healthy, and neither optimizer got it off the ground."""
        return self.is_healthy and all(self.stuck.values())

    @property
    def is_false_alarm(self) -> bool:
        """Whether it was called sick, and both optimizers train it."""
        return not self.is_healthy and all(self.trained.values())


def judge_error(error: float, best: float) -> float:
    """Return the share of the way from guessing to what a good twin reaches; below 0 if worse.

    Args:
        error: 0 for a perfect model, 1 for guessing.
        best: The least error of all models with the same task.
    """
    return (1 - error) / max(1 - best, LEAST_WAY)


def gather(
    entries: Sequence[Entry],
    outcomes: Mapping[str, Mapping[str, str]],
    said: Mapping[str, Said],
) -> list[Sample]:
    """Return every model that was trained and measured."""
    best: dict[str, float] = {}
    for row in outcomes.values():
        reached = min(float(row[name]) for name in OPTIMIZERS)
        best[row["task"]] = min(best.get(row["task"], math.inf), reached)
    samples = []
    for entry in entries:
        if entry.key not in outcomes or entry.key not in said:
            continue
        row = outcomes[entry.key]
        errors = {name: float(row[name]) for name in OPTIMIZERS}
        way = {name: judge_error(errors[name], best[row["task"]]) for name in OPTIMIZERS}
        samples.append(
            Sample(
                key=entry.key,
                kind=entry.family.kind,
                family=entry.family.name,
                parameters=entry.query,
                said=said[entry.key],
                trained={name: way[name] >= TRAINED for name in OPTIMIZERS},
                stuck={name: way[name] < STUCK for name in OPTIMIZERS},
                errors=errors,
            )
        )
    return samples


# --- The score -----------------------------------------------------------------------------------


def fit_score(samples: Sequence[Sample]) -> dict[str, Constants]:
    """Return the constants of the score for each optimizer, from the kinds it is fitted on."""
    fitted = [sample for sample in samples if sample.kind in FITTED]
    return {name: fit(fitted, name, KNOTS) for name in OPTIMIZERS}


def write_score(constants: Mapping[str, Constants], count: int) -> None:
    """Write the constants where the library reads them."""
    head = SCORE_FILE.read_text().partition("# --- fitted ---\n")[0]
    lines = [
        "# --- fitted ---",
        f"# On {count} models of benchmarks/truth.csv, torch {torch.__version__}.",
        "SCORES: Mapping[str, Constants] = MappingProxyType(",
        "    {",
    ]
    for name, each in constants.items():
        lines += [f'        "{name}": Constants(', f"            base={each.base},"]
        lines.append("            slopes=(")
        lines += [
            f'                Slope("{s.feature}", "{s.beyond}", {s.knot}, {s.weight}),'
            for s in each.slopes
        ]
        lines += ["            ),", "        ),"]
    lines += ["    }", ")", '"""By optimizer."""', ""]
    SCORE_FILE.write_text(head + "\n".join(lines))


def predict(sample: Sample, constants: Constants) -> float:
    """Return the probability that a model trains."""
    if sample.hopeless:
        return NEVER
    return 1 / (1 + math.exp(-compute_score(constants, sample.features)))


def measure_ranking(trained: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Return the AUC; `None` where all trained or none."""
    if len(set(trained)) < 2:
        return None
    return float(roc_auc_score(trained, scores))


# --- The tables ----------------------------------------------------------------------------------


def pick(samples: Sequence[Sample], kinds: Sequence[str]) -> list[Sample]:
    """Return the models of some kinds."""
    return [sample for sample in samples if sample.kind in kinds]


def list_groups() -> list[tuple[str, tuple[str, ...]]]:
    """Return the rows of the tables: the name of each and its kinds."""
    return [
        *((kind, (kind,)) for kind in FITTED),
        ("**fitted on**", FITTED),
        *((kind, (kind,)) for kind in JUDGED),
        ("**judged on**", JUDGED),
    ]


def write_verdicts(samples: Sequence[Sample]) -> str:
    """Return the verdict beside the outcome, as a table."""
    lines = [
        "| kind | models | trained with SGD | with Adam | verdict agrees with SGD | with Adam | "
        "stuck with both, called healthy | trained with both, called sick |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, kinds in list_groups():
        part = pick(samples, kinds)
        if not part:
            continue
        agree = {
            each: sum(s.is_healthy == s.trained[each] for s in part) / len(part)
            for each in OPTIMIZERS
        }
        lost = [s for s in part if all(s.stuck.values())]
        sound = [s for s in part if all(s.trained.values())]
        lines.append(
            f"| {name} | {len(part)} | {sum(s.trained['sgd'] for s in part)} | "
            f"{sum(s.trained['adam'] for s in part)} | {agree['sgd']:.0%} | {agree['adam']:.0%} | "
            f"{sum(s.is_missed for s in part)} of {len(lost)} | "
            f"{sum(s.is_false_alarm for s in part)} of {len(sound)} |"
        )
    return "\n".join(lines)


def write_ranking(samples: Sequence[Sample], constants: Mapping[str, Constants]) -> str:
    """Return the AUCs of the score and of what others judge by, as a table."""
    lines = [
        "| kind | score, SGD | score, Adam | verdict, SGD | verdict, Adam | "
        "gradient ratio, SGD | gradient ratio, Adam |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kinds in list_groups():
        part = pick(samples, kinds)
        if not part:
            continue
        cells = []
        for score in (
            lambda s, each: predict(s, constants[each]),
            lambda s, each: float(s.is_healthy),
            lambda s, each: s.said.ratio,
        ):
            for each in OPTIMIZERS:
                area = measure_ranking(
                    [s.trained[each] for s in part], [score(s, each) for s in part]
                )
                cells.append("–" if area is None else f"{area:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_reliability(samples: Sequence[Sample], constants: Mapping[str, Constants]) -> str:
    """Return how often models trained, by the probability of the score, on the judged kinds."""
    lines = [
        "| optimizer | said | models | mean probability | trained |",
        "|---|---|---|---|---|",
    ]
    part = pick(samples, JUDGED)
    for name in OPTIMIZERS:
        said = [(predict(sample, constants[name]), sample.trained[name]) for sample in part]
        for low, high in itertools.pairwise(BINS):
            inside = [pair for pair in said if low <= pair[0] < (high if high < 1 else 2)]
            if inside:
                mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
                lines.append(
                    f"| {LABELS[name]} | {100 * low:.0f}–{100 * high:.0f} % | {len(inside)} | "
                    f"{mean:.0%} | {share:.0%} |"
                )
    return "\n".join(lines)


def write_constants(constants: Mapping[str, Constants]) -> str:
    """Return what the score is made of, as a table."""
    lines = ["| value (power of ten) | costs | SGD | Adam |", "|---|---|---|---|"]
    bases = " | ".join(f"{constants[name].base:+.2f}" for name in OPTIMIZERS)
    lines.append(f"| a model without a fault | | {bases} |")
    for feature, sides in KNOTS.items():
        for beyond, knots in sides:
            for knot in knots:
                slopes = [
                    [s for s in constants[name].slopes if _place(s) == (feature, beyond, knot)]
                    for name in OPTIMIZERS
                ]
                if any(slopes):
                    side = "below" if beyond == "<" else "above"
                    cells = " | ".join(
                        f"{-found[0].weight:.2f}" if found else "0" for found in slopes
                    )
                    lines.append(f"| {MEANINGS[feature]} | {side} {knot:g} | {cells} |")
    return "\n".join(lines)


def _place(slope: Slope) -> tuple[str, str, float]:
    return slope.feature, slope.beyond, slope.knot


def write_rules(samples: Sequence[Sample]) -> str:
    """Return what became of the models in which each rule finds something, as a table."""
    lines = [
        "| rule | models | alone | trained with both | Adam only | SGD only | neither |",
        "|---|---|---|---|---|---|---|",
    ]
    outcomes = ((True, True), (False, True), (True, False), (False, False))
    for name in RULES:
        found = [sample for sample in samples if name in sample.said.rules]
        if not found:
            continue
        alone = sum(len(sample.said.rules) == 1 for sample in found)
        counts = [
            sum((s.trained["sgd"], s.trained["adam"]) == each for s in found) for each in outcomes
        ]
        lines.append(f"| {name} | {len(found)} | {alone} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def list_wrong(samples: Sequence[Sample]) -> str:
    """Return every verdict that is wrong whichever optimizer one takes, as a list."""
    lines = []
    for title, wrong in (
        ("Stuck near guessing with both, called healthy", [s for s in samples if s.is_missed]),
        ("Trained with both, called sick", [s for s in samples if s.is_false_alarm]),
    ):
        lines += [f"{title}:", ""]
        for s in sorted(wrong, key=lambda s: (s.kind, s.family, s.parameters)):
            rules = ", ".join(s.said.rules)
            said = f": {s.said.verdict} ({rules})" if rules else ""
            errors = ", ".join(f"{LABELS[each]} {s.errors[each]:.2f}" for each in OPTIMIZERS)
            lines.append(f"- {s.kind} · {s.family} `{s.parameters}`{said}; error {errors}")
        lines += ["" if wrong else "none\n"]
    return "\n".join(lines).rstrip()
