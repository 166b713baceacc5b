"""Does the theory hold? Predicted bands against measured medians, over the whole grid.

A cell is an activation, an initialization, a depth and a width. Of 16 networks of it, autograd
gives δ of every layer. The medians of ‖∂𝓛/∂W‖ and ‖δ‖ are kept in theory.csv, so an interrupted run
goes on from there, and a new theory needs no new measurement. A cell counts as inside only if the
medians of all of its layers are. Cells outside are measured again with other networks: chance, or
not? Writes docs/theory.md.

`simulate` would draw every network anew for each depth and each activation. But its networks of one
seed have the same weights whatever their activation, and the same first layers whatever their
depth. So `measure` draws the deepest network once, computes all activations with it as rows of one
batch, and goes back once from each depth: the same networks as those of `simulate`.
"""

import argparse
import csv
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule import ACTIVATIONS, INITIALIZERS, NetworkSpec
from chainrule.flow.quantity import Quantity
from chainrule.measure.networks import draw_batch, stack_networks
from chainrule.theory import Expected, predict

HERE = Path(__file__).parent
TABLE, PAGE = HERE / "theory.csv", HERE.parent / "docs" / "theory.md"
AGAIN = HERE / "theory_again.csv"
"""Cells that were outside, measured with the networks of other seeds."""

SEEDS = 16
MORE = range(SEEDS, SEEDS + 64)
WIDTHS, DEPTHS = (256, 1024), (2, 5, 10, 20, 35, 50)
FIELDS = ("width", "activation", "init", "depth", "weight_gradient_norms", "delta_norms")

Key = tuple[int, str, str, int]
Medians = tuple[list[float], list[float]]


def list_cells() -> Iterator[Key]:
    """Yield the cells, narrow and shallow ones first."""
    for width, depth, activation, init in product(WIDTHS, DEPTHS, ACTIVATIONS, INITIALIZERS):
        yield width, activation, init, depth


def make_spec(key: Key) -> NetworkSpec:
    """Return the specification of a cell."""
    width, activation, init, depth = key
    return NetworkSpec(depth=depth, width=width, activation=activation, init=init)


def measure(
    width: int,
    init: str,
    depths: Sequence[int] = DEPTHS,
    activations: Sequence[str] = tuple(ACTIVATIONS),
    seeds: Iterable[int] = range(SEEDS),
) -> dict[Key, Medians]:
    """Return the medians of ‖∂𝓛/∂W‖ and ‖δ‖ of the cells of a width and an initialization."""
    weights: dict[Key, list[list[float]]] = {}
    deltas: dict[Key, list[list[float]]] = {}
    for seed in seeds:
        spec = NetworkSpec(depth=max(depths), width=width, init=init, seed=seed)
        for depth, weight_norms, delta_norms in measure_network(spec, depths, activations):
            for number, activation in enumerate(activations):
                key = width, activation, init, depth
                weights.setdefault(key, []).append(weight_norms[:, number].tolist())
                deltas.setdefault(key, []).append(delta_norms[:, number].tolist())
    return {key: (find_medians(weights[key]), find_medians(deltas[key])) for key in weights}


def measure_network(
    spec: NetworkSpec, depths: Sequence[int], names: Sequence[str]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield ‖∂𝓛/∂W_l‖ and ‖δ_l‖ of one network, cut off after some numbers of layers.

    ∂𝓛/∂W_l is the sum over the batch of δ_a h_aᵀ, so the square of its norm is
    Σ_ab (δ_a·δ_b)(h_a·h_b), here in float64: no matrix as large as the weights is needed.

    Args:
        spec: The deepest network; its activation does not matter.
        depths: Where it is cut off.
        names: The activations that are computed.

    Yields:
        A depth, and the norms, each [depth, activations].
    """
    stack = stack_networks([spec])
    activations = [getattr(nn, ACTIVATIONS[name].module)() for name in names]
    inputs, targets = draw_batch(spec)
    h = inputs.expand(len(activations), *inputs.shape)
    before: list[Tensor] = []  # z of each layer, [activations, batch, width]
    products: list[Tensor] = []  # of what each layer reads, by pairs of examples
    outputs: dict[int, Tensor] = {}
    layers = zip(stack["weight", "weight"], stack["weight", "bias"], strict=True)
    for number, (weight, bias) in enumerate(layers, start=1):
        products.append(multiply_pairs(h))
        before.append(F.linear(h, weight[0], bias[0]).requires_grad_())
        h = torch.stack([activate(z) for activate, z in zip(activations, before[-1], strict=True)])
        outputs[number] = h
    for depth in depths:
        losses = [F.mse_loss(output, targets) for output in outputs[depth]]
        gradients = torch.autograd.grad(losses, before[:depth], retain_graph=True)
        pairs = [multiply_pairs(each) for each in gradients]
        squares = [(one * other).sum((1, 2)) for one, other in zip(pairs, products, strict=False)]
        lengths = [each.diagonal(dim1=1, dim2=2).sum(1) for each in pairs]
        yield depth, torch.stack(squares).sqrt(), torch.stack(lengths).sqrt()


def multiply_pairs(rows: Tensor) -> Tensor:
    """Return the inner products of all pairs of examples, [activations, batch, batch], float64."""
    wide = rows.detach().double()
    return wide @ wide.transpose(1, 2)


def find_medians(members: list[list[float]]) -> list[float]:
    """Return the median of each layer over [members, layers]."""
    return [float(Quantity(layer)) for layer in zip(*members, strict=True)]


def read_table(path: Path) -> dict[Key, Medians]:
    """Return what was measured so far; a row that was cut off is left out."""
    if not path.exists():
        return {}
    rows: dict[Key, Medians] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if any(row.get(field) is None for field in FIELDS):
                continue
            key = int(row["width"]), row["activation"], row["init"], int(row["depth"])
            both = [
                [float(each) for each in row[field].split()]
                for field in ("weight_gradient_norms", "delta_norms")
            ]
            if all(len(values) == key[3] for values in both):
                rows[key] = both[0], both[1]
    return rows


def write_table(path: Path, rows: dict[Key, Medians]) -> None:
    """Write all rows; an interruption leaves the old file."""
    new = path.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for key in list_cells():
            if key in rows:
                writer.writerow((*key, *(" ".join(f"{v:.4g}" for v in each) for each in rows[key])))
    new.replace(path)


@dataclass(frozen=True)
class Result:
    """How theory and measurement compare in one cell.

    Attributes:
        said: Layers of which theory says both norms.
        inside: Layers of these whose medians are both in their bands.
        factor: The largest of measured ÷ expected median or its inverse, over these layers.
        half: Half of the width of the widest band, as a factor.
        reason: Why theory says nothing, or why a median is outside; "" where all is well.
        outside: Whether a median is outside though theory says all layers.
    """

    said: int
    inside: int
    factor: float
    half: float
    reason: str
    outside: bool


def compare(key: Key, medians: Medians, seeds: int = SEEDS) -> Result:
    """Return how theory and measurement compare in one cell."""
    prediction = predict(make_spec(key), seeds)
    said = inside = 0
    factor, half = 1.0, 1.0
    odd = ""
    pairs = (prediction.weight_gradient_norms, prediction.delta_norms)
    for weight, delta, *found in zip(*pairs, *medians, strict=True):
        if weight is None or delta is None:
            continue
        said += 1
        fits = [_fits(each, median) for each, median in zip((weight, delta), found, strict=True)]
        inside += all(fits)
        for each, median in zip((weight, delta), found, strict=True):
            half = max(half, math.sqrt(each.high / each.low) if each.low > 0 else math.inf)
            if median > 0 and math.isfinite(median) and each.median > 0:
                factor = max(factor, median / each.median, each.median / median)
            elif not _fits(each, median):
                odd = "the measurement leaves float32"
    reason = ""
    if said < key[3]:
        reason = _shorten(prediction.missing)
    elif inside < said:
        reason = odd or f"{said - inside} of {said} layers, by a factor of {factor:.2f} at most"
    return Result(said, inside, factor, half, reason, said == key[3] and inside < said)


def _fits(expected: Expected, median: float) -> bool:
    return expected.contains(median)


def _shorten(missing: tuple[str, ...]) -> str:
    words = {
        "too large for the width": "depth too large for the width",
        "float32 can hold": "outside of float32",
        "below 1e-35 or above 1e35": "outside of float32",
    }
    for sentence in missing:
        for mark, short in words.items():
            if mark in sentence:
                return short
    return "; ".join(missing)


def describe_again(key: Key, again: dict[Key, Medians]) -> str:
    """Return what the networks of other seeds say of a cell that was outside."""
    if key not in again:
        return ""
    found = compare(key, again[key], len(MORE))
    if not found.outside:
        return f"; chance: of {len(MORE)} other networks, all {found.said} layers are inside"
    return f"; of {len(MORE)} other networks, {found.reason}"


def write_page(results: dict[Key, Result], again: dict[Key, Medians]) -> str:
    """Return the page: how many cells are inside, and every one that is not."""
    full = {key: result for key, result in results.items() if result.said == key[3]}
    inside = [key for key, result in full.items() if result.inside == result.said]
    partly = {key: result for key, result in results.items() if key not in full}
    layers = sum(result.said for result in results.values())
    good = sum(result.inside for result in results.values())
    lines = [
        "# Theory and measurement",
        "",
        "Made by `make theory`. A cell is an activation, an initialization, a depth and a width. "
        f"{SEEDS} networks of each are measured by autograd, and the medians of ‖∂𝓛/∂W‖ and of ‖δ‖ "
        "are compared with the band that `chainrule.theory.predict` gives for this width. A cell "
        "is inside only if both medians of all of its layers are. The bands have no constant that "
        "was fitted to measurements. Networks of one seed have the same weights whatever their "
        "activation, and the same first layers whatever their depth: neighbouring cells are not "
        "independent.",
        "",
        f"**{len(inside)} of {len(full)} cells ({_share(len(inside), len(full))}) are inside. "
        f"Of single layers, {good} of {layers} ({_share(good, layers)}) are.** In "
        f"{len(partly)} more cells theory says nothing about some or all layers, and says why: "
        + ", ".join(
            f"{reason} ({count})"
            for reason, count in Counter(each.reason for each in partly.values()).most_common()
        )
        + f". Measured so far: {len(results)} of {len(list(list_cells()))} cells.",
        "",
        "## By initialization",
        "",
        "| width | depth | " + " | ".join(INITIALIZERS) + " | all |",
        "|---|---|" + "---|" * (len(INITIALIZERS) + 1),
    ]
    for width in WIDTHS:
        for depth in DEPTHS:
            row = {k: r for k, r in full.items() if k[0] == width and k[3] == depth}
            if not any(k[0] == width and k[3] == depth for k in results):
                continue
            entries = [
                [r.inside == r.said for k, r in row.items() if init in (k[2], "")]
                for init in INITIALIZERS
            ]
            every = [r.inside == r.said for r in row.values()]
            cells = [f"{sum(each)}/{len(each)}" if each else "–" for each in [*entries, every]]
            lines.append(f"| {width} | {depth} | {' | '.join(cells)} |")
    lines += [
        "",
        "Cells of which theory says all layers: inside / all.",
        "",
        "## By activation",
        "",
        "| activation | inside | median of the largest factor | median half width of the band |",
        "|---|---|---|---|",
    ]
    for activation in ACTIVATIONS:
        own = [result for key, result in full.items() if key[1] == activation]
        if own:
            count = sum(result.inside == result.said for result in own)
            factors = sorted(result.factor for result in own)
            halves = sorted(result.half for result in own)
            middle = len(own) // 2
            lines.append(
                f"| {activation} | {count}/{len(own)} | {factors[middle]:.2f} | "
                f"{halves[middle]:.2f} |"
            )
    lines += ["", "## Outside, or without a statement", ""]
    lines += ["| width | activation | initialization | depth | why |", "|---|---|---|---|---|"]
    for key, result in results.items():
        if result.reason:
            more = describe_again(key, again) if result.outside else ""
            lines.append(f"| {' | '.join(map(str, key))} | {result.reason}{more} |")
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def main() -> None:
    """Measure what is not measured yet, as long as there is time, and write the page."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=math.inf, help="time to measure")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    rows = read_table(TABLE)
    for width, init in product(WIDTHS, INITIALIZERS):
        own = [key for key in list_cells() if (key[0], key[2]) == (width, init)]
        if all(key in rows for key in own):
            continue
        if time.monotonic() > end:
            break
        begin = time.process_time()
        rows |= measure(width, init)
        write_table(TABLE, rows)
        seconds = time.process_time() - begin
        print(f"{len(rows)} cells measured, last {width} {init}: {seconds:.0f} s", flush=True)
    results = {key: compare(key, rows[key]) for key in list_cells() if key in rows}
    again = read_table(AGAIN)
    for (width, activation, init, depth), result in results.items():
        if result.outside and (width, activation, init, depth) not in again:
            again |= measure(width, init, (depth,), (activation,), MORE)
            write_table(AGAIN, again)
    PAGE.write_text(write_page(results, again), encoding="utf-8")


if __name__ == "__main__":
    main()
