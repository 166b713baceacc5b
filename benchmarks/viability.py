"""Fit the model of viability on what `calibrate.py` found out, and judge it on what it never saw.

    python benchmarks/viability.py            # measure, fit, and write the constants and the report
    python benchmarks/viability.py --check    # write nothing; fail if the constants are not these

Measures the flow of every network in `outcomes.csv` that has no row in `features.csv` yet, fits the
constants on the rows of the part "fit" (log loss, no weight below 0, a small quadratic penalty),
and reports on the part "test": scikit-learn's digits at width 64. Needs scikit-learn and scipy.
"""

import argparse
import csv
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from calibrate import read_outcomes
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from chainrule import NetworkSpec, Verdict, diagnose, simulate
from chainrule.diagnosis.viability.constants import CONSTANTS, Constants, Slope
from chainrule.diagnosis.viability.features import FEATURES, measure_features
from chainrule.diagnosis.viability.model import find_hopeless, judge_features
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.training.trainability import Outcome

ROOT = Path(__file__).parent.parent
FEATURES_FILE = Path(__file__).parent / "features.csv"
TABLE_FILE = ROOT / "src" / "chainrule" / "diagnosis" / "viability" / "constants.py"
REPORT_FILE = ROOT / "docs" / "viability.md"
CURVE_FILE = ROOT / "docs" / "images" / "viability.svg"
SEEDS = 4
PENALTY = 0.02
NEVER = 1e-4
"""About the probability of a network with undefined numbers, which needs no model."""
OPTIMIZERS = ("sgd", "adam")

KNOTS: Mapping[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    "smallest_gradient": (("<", (-1.0, -3.0, -6.0)),),
    "largest_gradient": ((">", (2.0, 3.5)),),
    "variation": (("<", (-0.5, -2.0, -4.0)),),
    "sensitivity": ((">", (0.5, 1.0, 1.5)),),
    "forward": (("<", (-0.5, -2.0, -5.0)), (">", (1.0, 2.5))),
    "saturation": ((">", (0.3, 0.7)),),
    "dead_units": ((">", (0.5, 0.7)),),
    "effective_depth": ((">", (1.0,)),),
}
"""Where the healthy range of each feature ends, by side, and where the slope may change."""

COMPARED = {
    "first ÷ last gradient, \\|log\\|": "ratio",
    "first layer's gradient, both sides": "absolute",
}
"""What others judge by: shown beside the model, never used by it."""


@dataclass(frozen=True)
class Sample:
    """One trained network: what was measured before, and what became of it."""

    part: str
    task: str
    spec: str
    trained: Mapping[str, bool]
    features: Mapping[str, float | None]
    compared: Mapping[str, float]
    hopeless: bool


def _compare(flow: GradientFlow) -> dict[str, float]:
    """Return what others judge by; higher is meant to be healthier for the ratio."""
    ratio, first = flow.gradient_ratio, flow.weight_gradient_norms[0]
    bound = 60.0

    def log(value: float | None) -> float:
        if value is None or math.isnan(value):
            return bound
        return math.log10(min(max(value, 10.0**-bound), 10.0**bound))

    return {"ratio": -abs(log(ratio)), "absolute": log(first)}


def read_samples(*, measure: bool = True) -> list[Sample]:
    """Return every trained network with its features, measuring those that have none yet."""
    known: dict[str, dict[str, str]] = {}
    if FEATURES_FILE.exists():
        with FEATURES_FILE.open(newline="") as file:
            lines = csv.DictReader(line for line in file if not line.startswith("#"))
            known = {row["spec"]: row for row in lines}
    columns = ["spec", *FEATURES, *COMPARED.values(), "hopeless"]
    outcomes = read_outcomes()
    missing = [row["spec"] for row in outcomes if row["spec"] not in known]
    stale = any(set(row) != set(columns) for row in known.values())
    if measure and (missing or stale):
        for position, query in enumerate(row["spec"] for row in outcomes):
            if query in known and not stale:
                continue
            flow = simulate(NetworkSpec.from_query(query), SEEDS)
            hopeless = float(any(find_hopeless(flow)))
            values = {**measure_features(flow), **_compare(flow), "hopeless": hopeless}
            known[query] = {"spec": query} | {
                name: "" if value is None else f"{value:.4g}" for name, value in values.items()
            }
            if sys.stderr.isatty():
                print(f"\rmeasured {position + 1} of {len(outcomes)}", end="", file=sys.stderr)
        with FEATURES_FILE.open("w", newline="") as file:
            provenance = {"script": "benchmarks/viability.py", "seeds": SEEDS}
            file.write(f"# {json.dumps(provenance | {'torch': torch.__version__})}\n")
            writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(known[query] for query in dict.fromkeys(r["spec"] for r in outcomes))
    return [
        Sample(
            part=row["part"],
            task=row["task"],
            spec=row["spec"],
            trained={name: row[name] == Outcome.TRAINED for name in OPTIMIZERS},
            features={
                name: float(text) if (text := known[row["spec"]][name]) else None
                for name in FEATURES
            },
            compared={name: float(known[row["spec"]][name]) for name in COMPARED.values()},
            hopeless=known[row["spec"]]["hopeless"] == "1",
        )
        for row in outcomes
        if row["spec"] in known
    ]


def fit(samples: Sequence[Sample], optimizer: str) -> Constants:
    """Return the constants with the least penalized log loss on samples."""
    samples = [sample for sample in samples if not sample.hopeless]
    slopes = [
        (name, side, knot)
        for name, sides in KNOTS.items()
        for side, knots in sides
        for knot in knots
    ]
    excess = np.array(
        [[_measure_excess(s.features[name], side, t) for name, side, t in slopes] for s in samples]
    )
    scale = excess.std(0) + 1e-9
    matrix = excess / scale
    labels = np.array([s.trained[optimizer] for s in samples], dtype=float)

    def measure_loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        logits = point[0] - matrix @ point[1:]
        loss = np.logaddexp(0, -logits) * labels + np.logaddexp(0, logits) * (1 - labels)
        error = labels - 1 / (1 + np.exp(-logits))
        slope = matrix.T @ error / len(labels) + PENALTY * point[1:]
        return (
            float(loss.mean() + PENALTY * (point[1:] ** 2).sum() / 2),
            np.concatenate([[-error.mean()], slope]),
        )

    found = minimize(
        measure_loss,
        np.zeros(len(slopes) + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None)] + [(0, None)] * len(slopes),
        options={"maxiter": 10_000, "ftol": 1e-14, "gtol": 1e-9},
    )
    weights = found.x[1:] / scale
    return Constants(
        base=round(float(found.x[0]), 3),
        slopes=tuple(
            Slope(name, side, knot, round(float(weight), 3))
            for (name, side, knot), weight in zip(slopes, weights, strict=True)
            if weight >= 0.0005
        ),
    )


def _measure_excess(value: float | None, side: str, knot: float) -> float:
    if value is None:
        return 0.0
    return max(0.0, knot - value if side == "<" else value - knot)


def compute_log_odds(constants: Constants, features: Mapping[str, float | None]) -> float:
    """Return what constants say of features, without the library."""
    costs = (
        slope.weight * _measure_excess(features[slope.feature], slope.beyond, slope.knot)
        for slope in constants.slopes
    )
    return constants.base - sum(costs)


def predict(samples: Sequence[Sample], optimizer: str) -> list[float]:
    """Return the probability that the installed constants give to each sample."""
    return [
        NEVER
        if sample.hopeless
        else judge_features(sample.features, optimizer).probability or NEVER
        for sample in samples
    ]


def measure_auc(samples: Sequence[Sample], optimizer: str, scores: Sequence[float]) -> float:
    """Return the chance that a network that trained scores higher than one that did not."""
    return float(roc_auc_score([sample.trained[optimizer] for sample in samples], scores))


def write_constants(constants: Mapping[str, Constants], samples: Sequence[Sample]) -> str:
    """Return the text of the table of constants."""
    head = TABLE_FILE.read_text().partition("# --- fitted ---\n")[0]
    count = sum(sample.part == "fit" for sample in samples)
    lines = [
        "# --- fitted ---",
        f"# On {count} networks of benchmarks/outcomes.csv, torch {torch.__version__}; penalty "
        f"{PENALTY:g}.",
        "CONSTANTS: Mapping[str, Constants] = MappingProxyType(",
        "    {",
    ]
    for name, each in constants.items():
        lines += [
            f'        "{name}": Constants(',
            f"            base={each.base},",
            "            slopes=(",
        ]
        for s in each.slopes:
            lines.append(
                f'                Slope("{s.feature}", "{s.beyond}", {s.knot}, {s.weight}),'
            )
        lines += ["            ),", "        ),"]
    lines += ["    }", ")", '"""By optimizer."""', ""]
    return head + "\n".join(lines)


def _pick(samples: Sequence[Sample], part: str) -> list[Sample]:
    return [sample for sample in samples if sample.part == part]


def write_table(samples: Sequence[Sample]) -> str:
    """Return the AUCs as a Markdown table."""
    lines = [
        "| judged by | SGD, digits (held out) | Adam, digits (held out) | SGD, fitted on | "
        "Adam, fitted on |",
        "|---|---|---|---|---|",
    ]
    parts = [_pick(samples, "test"), _pick(samples, "fit")]

    def add(label: str, score: dict[str, list[list[float]]]) -> None:
        cells = [
            f"{measure_auc(part, name, score[name][position]):.3f}"
            for position, part in enumerate(parts)
            for name in OPTIMIZERS
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")

    model = {name: [predict(part, name) for part in parts] for name in OPTIMIZERS}
    add("**viability**", model)
    for label, column in COMPARED.items():
        values = {
            name: [
                _center([s.compared[column] for s in part], column, parts[1], name)
                for part in parts
            ]
            for name in OPTIMIZERS
        }
        add(label, values)
    counts = [
        f"{sum(s.trained[name] for s in part)} of {len(part)}"
        for part in parts
        for name in OPTIMIZERS
    ]
    lines.append("| *networks that trained* | " + " | ".join(counts) + " |")
    return "\n".join(lines)


def _center(
    values: Sequence[float], column: str, fitted: Sequence[Sample], optimizer: str
) -> list[float]:
    """Return how near values are to their median over the networks that trained."""
    if column == "ratio":
        return list(values)
    usual = float(np.median([s.compared[column] for s in fitted if s.trained[optimizer]]))
    return [-abs(value - usual) for value in values]


BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def measure_reliability(
    samples: Sequence[Sample], optimizer: str
) -> list[tuple[float, float, int, float, float]]:
    """Return (from, to, networks, mean probability, share that trained) of bins of probability."""
    probabilities = np.array(predict(samples, optimizer))
    trained = np.array([sample.trained[optimizer] for sample in samples])
    rows = []
    for low, high in itertools.pairwise(BINS):
        inside = (probabilities >= low) & (probabilities < high if high < 1 else True)
        if inside.any():
            mean, share = float(probabilities[inside].mean()), float(trained[inside].mean())
            rows.append((low, high, int(inside.sum()), mean, share))
    return rows


def write_reliability(samples: Sequence[Sample]) -> str:
    """Return the reliability on the part that was held out as a Markdown table."""
    lines = [
        "| optimizer | said | networks | mean probability | trained |",
        "|---|---|---|---|---|",
    ]
    for name in OPTIMIZERS:
        for low, high, count, mean, share in measure_reliability(_pick(samples, "test"), name):
            said = f"{100 * low:.0f}–{100 * high:.0f} %"
            label = "SGD" if name == "sgd" else "Adam"
            lines.append(f"| {label} | {said} | {count} | {mean:.0%} | {share:.0%} |")
    return "\n".join(lines)


def write_verdicts(samples: Sequence[Sample]) -> str:
    """Return how often the verdict agrees with training on the held-out part, as a table."""
    held_out = _pick(samples, "test")
    healthy = [
        diagnose(simulate(NetworkSpec.from_query(sample.spec), SEEDS)).verdict is Verdict.HEALTHY
        for sample in held_out
    ]
    lines = [
        "| optimizer | agree | healthy, trained | unhealthy, not trained | healthy, not trained "
        "| unhealthy, trained |",
        "|---|---|---|---|---|---|",
    ]
    for name, label in zip(OPTIMIZERS, ("SGD", "Adam"), strict=True):
        counts = Counter(
            (well, sample.trained[name]) for well, sample in zip(healthy, held_out, strict=True)
        )
        agree = counts[True, True] + counts[False, False]
        lines.append(
            f"| {label} | {agree} of {len(held_out)} | {counts[True, True]} | "
            f"{counts[False, False]} | {counts[True, False]} | {counts[False, True]} |"
        )
    return "\n".join(lines)


def draw_curve(samples: Sequence[Sample]) -> str:
    """Return the reliability curve as SVG; a circle's area is the number of networks."""
    size, left, top = 320, 56, 16

    def place(x: float, y: float) -> tuple[float, float]:
        return left + size * x, top + size * (1 - y)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + size + 130} '
        f'{top + size + 52}" font-family="sans-serif" font-size="12" role="img">',
        "<title>Reliability on the held-out digits: how often networks trained, by the "
        "probability that was said</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        (x, low), (start, y) = place(tick, 0), place(0, tick)
        parts.append(
            f'<path d="M{x:g} {low:g}V{top}M{start:g} {y:g}H{left + size}" stroke="#ddd"/>'
            f'<text x="{x:g}" y="{low + 18:g}" text-anchor="middle">{tick:.0%}</text>'
            f'<text x="{start - 6:g}" y="{y + 4:g}" text-anchor="end">{tick:.0%}</text>'
        )
    parts.append(
        f'<path d="M{left} {top + size}L{left + size} {top}" stroke="#888" '
        'stroke-dasharray="4 4"/>'
        f'<text x="{left + size / 2:g}" y="{top + size + 40}" text-anchor="middle">probability '
        "that was said</text>"
        f'<text transform="translate(14 {top + size / 2:g}) rotate(-90)" text-anchor="middle">'
        "share that trained</text>"
    )
    for row, (name, colour) in enumerate(zip(OPTIMIZERS, ("#1f6fb4", "#c2500a"), strict=True)):
        points = measure_reliability(_pick(samples, "test"), name)
        path = "L".join(
            f"{x:.1f} {y:.1f}" for x, y in (place(mean, share) for *_, mean, share in points)
        )
        dash = ' stroke-dasharray="6 3"' if row else ""
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}"{dash}/>')
        for _, _, count, mean, share in points:
            x, y = place(mean, share)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{1.2 * math.sqrt(count):.1f}" '
                f'fill="{colour}" fill-opacity="0.45"/>'
            )
        y = top + 20 + 22 * row
        label = "SGD" if name == "sgd" else "Adam"
        parts.append(
            f'<path d="M{left + size + 14} {y - 4}h28" stroke="{colour}"{dash}/>'
            f'<text x="{left + size + 48}" y="{y}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def replace_part(text: str, name: str, content: str) -> str:
    """Return a Markdown text with what stands between two comments replaced."""
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{REPORT_FILE} must have a part between {start!r} and {end!r}.")
    return before + start + content + end + after


def main() -> None:
    """Write the constants, then the report on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples = read_samples(measure=not arguments.check)
    fitted = {name: fit(_pick(samples, "fit"), name) for name in OPTIMIZERS}
    if arguments.check:
        sys.exit(0 if fitted == dict(CONSTANTS) else "the constants are not those of a refit")
    if fitted != dict(CONSTANTS):
        TABLE_FILE.write_text(write_constants(fitted, samples))
        print("New constants were written; run it again for the report.")
        return
    table, reliability = write_table(samples), write_reliability(samples)
    verdicts = write_verdicts(samples)
    print(table, verdicts, reliability, sep="\n\n")
    text = replace_part(REPORT_FILE.read_text(), "table", table)
    text = replace_part(text, "verdicts", verdicts)
    REPORT_FILE.write_text(replace_part(text, "reliability", reliability))
    CURVE_FILE.write_text(draw_curve(samples))


if __name__ == "__main__":
    main()
