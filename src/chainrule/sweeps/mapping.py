"""`phase_map`: measure and train the networks over two axes, next to what theory says of them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from chainrule.errors import SweepError, abbreviate
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.axes import Axis, is_line_critical, read_axes, trace_critical_line
from chainrule.sweeps.cells import SpecCell, Training
from chainrule.sweeps.grids import LIMIT, WEIGHT_SCALE, make_spec
from chainrule.sweeps.phases import PhaseMap, read_cell
from chainrule.sweeps.records import Progress
from chainrule.sweeps.running import run

AXES: Mapping[str, Sequence[Any]] = MappingProxyType(
    {
        WEIGHT_SCALE: tuple(round(0.5 + 0.1 * step, 1) for step in range(24)),
        "depth": tuple(range(2, 49, 2)),
    }
)
"""The axes of a map unless others are given: 24 × 24, around the critical line of tanh."""

BASE = NetworkSpec(width=64, activation="tanh", init="random", bias_std=0.2)
"""The other settings of a map unless others are given."""

SEEDS = 4
"""Networks per cell: the median of four lies in the band of theory, which knows their number."""


def phase_map(  # noqa: PLR0913  (one argument per setting)
    axes: Mapping[str, Sequence[Any]] | None = None,
    base: NetworkSpec | None = None,
    *,
    seeds: int = SEEDS,
    training: Training | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
    processes: int | None = None,
    limit: int = LIMIT,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> PhaseMap:
    """Show on one map what theory says of networks, what is measured, and what training gives.

    Every cell is a network of `NetworkSpec`. Theory is that of `chainrule.theory.predict` (Poole et
    al. 2016, Schoenholz et al. 2017). The measurement is `chainrule.simulate`: real autograd, the
    median over `seeds` networks. Training is `chainrule.training.train` on the digits. The cells
    are those of `chainrule.sweeps.run`, so a map goes on where it stopped, and one that the store
    has comes at once.

    Args:
        axes: Two axes with their values, the first one to the right: fields of `NetworkSpec`, or
            "weight_scale" for σ_w, which stands for `init="random"` with a standard deviation of
            σ_w/√width. 24 × 24 values of σ_w and depth by default.
        base: The other settings: tanh, width 64 and biases of spread 0.2 by default.
        seeds: Networks per cell.
        training: How the first network of each cell is trained; `None` for no training.
        executor: Where cells are measured; processes of this machine without one.
        store: A file for the results; it is made if it does not exist.
        processes: Number of processes without an executor; the cores of this machine by default.
        limit: Most cells that are allowed.
        retry_failed: Measure cells again whose stored result is an error.
        progress: Called whenever cells are finished.

    Raises:
        SweepError: If the axes are not two lists of legal values, or as `chainrule.sweeps.run`.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> axes = {"weight_scale": [0.8, 1.8], "depth": [2, 4]}
        >>> with ThreadPoolExecutor(1) as threads:
        ...     found = phase_map(axes, NetworkSpec(width=16, activation="tanh"), executor=threads)
        >>> found.at(0.8, 4).phase, found.at(1.8, 4).phase
        ('ordered', 'chaotic')
    """
    axes = AXES if axes is None else axes
    base = BASE if base is None else base
    checks: tuple[tuple[str, object, Any, str], ...] = (
        ("axes", axes, Mapping, 'a dictionary of two axes: {"weight_scale": [1, 2], "depth": [5]}'),
        ("base", base, NetworkSpec, "a chainrule.NetworkSpec"),
        ("training", training, Training | None, 'chainrule.sweeps.Training(optimizer="sgd")'),
    )
    for name, value, kind, form in checks:
        if not isinstance(value, kind):
            raise SweepError(f"{name}: must be {form}; got {abbreviate(value)}.")
    x, y = read_axes(axes, limit)
    cells = make_cells(x, y, base, seeds=seeds, training=training)
    in_order = order_cells(x, y, cells)
    sweep = run(
        in_order,
        executor,
        store=store,
        processes=processes,
        limit=limit,
        retry_failed=retry_failed,
        progress=progress,
    )
    outcomes = {result.address: result.outcome for result in sweep}
    rows = tuple(
        tuple(read_cell(cell.spec, outcomes[cell.address]) for cell in row) for row in cells
    )
    line = trace_critical_line(x, y, base)
    return PhaseMap(
        x=x,
        y=y,
        rows=rows,
        line=line,
        seeds=seeds,
        training=training,
        is_critical=is_line_critical(x, y, base),
    )


def make_cells(
    x: Axis, y: Axis, base: NetworkSpec, *, seeds: int, training: Training | None = None
) -> list[list[SpecCell]]:
    """Return the cells of a map, a row for each value of `y`.

    Raises:
        SweepError: If a specification is not legal.

    Example:
        >>> x, y = Axis(name="depth", values=(2, 3)), Axis(name="width", values=(8,))
        >>> [[cell.spec.depth for cell in row] for row in make_cells(x, y, NetworkSpec(), seeds=1)]
        [[2, 3]]
    """
    if x.name == y.name:
        raise SweepError(f"A map must have two different axes; got {x.name} twice.")
    return [
        [
            SpecCell(make_spec(base, {x.name: across, y.name: up}), seeds, training)
            for across in x.values
        ]
        for up in y.values
    ]


def order_cells(x: Axis, y: Axis, cells: Sequence[Sequence[SpecCell]]) -> list[SpecCell]:
    """Return the cells in the order in which they are computed fastest.

    Networks that differ in their depth alone share most of their theory, which a process keeps for
    a while: they follow one another, the deepest first.
    """
    if "depth" not in (x.name, y.name):
        return [cell for row in cells for cell in row]
    groups = zip(*cells, strict=True) if y.name == "depth" else cells
    return [cell for group in groups for cell in sorted(group, key=lambda each: -each.spec.depth)]
