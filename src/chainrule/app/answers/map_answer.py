"""A phase map in lines, as its page shows it: what is on the axes, then cell after cell."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.app.state.maps import MapView
from chainrule.app.state.subjects import SUBJECTS
from chainrule.app.state.view import write_query
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.axes import is_line_critical, trace_critical_line
from chainrule.sweeps.cells import SpecCell, Training
from chainrule.sweeps.grids import WEIGHT_SCALE
from chainrule.sweeps.mapping import SEEDS, make_cells, order_cells
from chainrule.sweeps.measuring import measure_cell
from chainrule.sweeps.phase_figure import DECADES, place_line, shade
from chainrule.sweeps.phases import PhaseCell, PhaseMap, read_cell
from chainrule.sweeps.records import Outcome

Line = dict[str, Any]

XAVIER_SCALE = 1.0
"""Weight scale of Xavier's weights between layers of one width: spread √(1 / width) × √width."""

END = 300
"""The shade of a ratio of 10⁴ and more; that of 10⁻⁴ and less is −300, that of 1 is 0."""

KEPT = 4096
"""Outcomes of cells that are kept, some 10 kB each."""


class CellStore:
    """Measures cells, and keeps what became of the last ones: the same cell has the same bits."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Outcome] = OrderedDict()
        self._lock = threading.Lock()

    def measure(self, cell: SpecCell) -> Outcome:
        """Return what becomes of a cell, from the store or anew.

        Args:
            cell: Which.
        """
        with self._lock:
            if cell.address in self._kept:
                self._kept.move_to_end(cell.address)
                return self._kept[cell.address]
        outcome, _ = measure_cell(cell)
        with self._lock:
            self._kept[cell.address] = outcome
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return outcome


def describe_start(view: MapView, notices: tuple[str, ...]) -> Line:
    """Return the first line: everything but the cells.

    Args:
        view: What is shown.
        notices: What was changed in its address.
    """
    x, y = view.axes
    line = trace_critical_line(x, y, view.base)
    critical = is_line_critical(x, y, view.base)
    empty = PhaseMap(x=x, y=y, rows=(), line=line, seeds=SEEDS)
    return {
        "type": "start",
        "address": view.address,
        "notices": list(notices),
        "x": {"label": x.label, "ticks": [x.write(value) for value in x.values]},
        "y": {"label": y.label, "ticks": [y.write(value) for value in y.values]},
        "total": len(x.values) * len(y.values),
        "line": place_line(empty.read_grid()),
        "line_name": "theory: the critical line" if critical else "theory: χ = 1",
        "line_text": _tell_line(line, across=x.name == WEIGHT_SCALE, critical=critical),
        "biases": _tell_biases(view, line),
        "settings": _tell_settings(view.base, view.training),
        "legend": {
            "measured": [
                [-END, f"1/{10**DECADES:,} or less"],
                [0, "1: as large as at the last layer"],
                [END, f"{10**DECADES:,} or more"],
            ],
            "accuracy": [[_shade_share(share), f"{share:.0%}"] for share in (0.0, 0.5, 1.0)],
        },
    }


def _tell_line(line: tuple[tuple[float, float], ...], *, across: bool, critical: bool) -> str:
    if not line:
        return "On this map theory has no critical line to draw."
    scales = sorted(point[0 if across else 1] for point in line)
    low, high = format_number(scales[0]), format_number(scales[-1])
    where = f"σ_w = {low}" if low == high else f"σ_w from {low} to {high}"
    if not critical:
        return (
            f"χ = 1 at {where}: there gradients keep their size. With biases the signal grows with "
            "every layer there, so no fixed point exists, and this is no critical line. Smaller "
            "weights let gradients vanish, larger ones let them explode."
        )
    return (
        f"The critical line of theory is at {where}: smaller weights let gradients vanish, larger "
        "ones let them explode."
    )


def _tell_biases(view: MapView, line: tuple[tuple[float, float], ...]) -> Line | None:
    """Return why the line is not where it is without biases, and where to see that.

    The lesson's networks have none: what it says of tanh with Xavier, whose weight scale is 1, is
    not what a map with biases shows there.

    Args:
        view: What is shown.
        line: Its line.

    Returns:
        A sentence and links (words and address); `None` where biases do not move the line.
    """
    x, y = view.axes
    bias = view.base.bias_std
    if not bias or not line or x.name != WEIGHT_SCALE or y.name == "bias_std":
        return None
    without = trace_critical_line(x, y, view.base.replace(bias_std=0.0))
    here, there = line[0][0], without[0][0] if without else math.nan
    if not math.isfinite(there) or math.isclose(here, there, rel_tol=0.01):
        return None
    text = (
        f"Biases of spread σ_b = {format_number(bias)} move the line to σ_w = "
        f"{format_number(here)}. Without biases it is at σ_w = {format_number(there)}"
    )
    links = [("The map without biases", f"/map?{view.replace_setting('bias_std', 0.0).address}")]
    if view.base.activation == "tanh" and math.isclose(there, XAVIER_SCALE, rel_tol=0.01):
        text += ", which is Xavier: there the lesson's tanh keeps its gradients over "
        text += f"{SUBJECTS['tanh_xavier_100'].depth} layers"
        links.append(("Where the lesson says so", "/learn#lesson-claim-tanh_depth"))
    return {"text": f"{text}.", "links": [list(link) for link in links]}


def _tell_settings(base: NetworkSpec, training: Training | None) -> str:
    text = (
        f"Width {base.width}, {base.batch_size} examples, median of {SEEDS} networks per cell, "
        "measured by autograd."
    )
    if training is None:
        return text
    name = {"sgd": "SGD", "adam": "Adam"}[training.optimizer]
    return (
        f"{text} The first network of each cell is trained on handwritten digits: {training.steps} "
        f"steps of {name} at its usual rate."
    )


def describe_cells(
    view: MapView, store: CellStore, should_stop: Callable[[], bool]
) -> Iterator[Line]:
    """Yield a line for each cell, then one with what the whole map shows.

    Args:
        view: What is shown.
        store: Measures.
        should_stop: Whether nobody waits any more.
    """
    x, y = view.axes
    rows = make_cells(x, y, view.base, seeds=SEEDS, training=view.training)
    places = {id(cell): (i, j) for j, row in enumerate(rows) for i, cell in enumerate(row)}
    found: dict[tuple[int, int], PhaseCell] = {}
    for cell in order_cells(x, y, rows):
        if should_stop():
            return
        at = places[id(cell)]
        found[at] = read_cell(cell.spec, store.measure(cell))
        where = f"{x.describe(x.values[at[0]])}, {y.describe(y.values[at[1]])}"
        yield describe_cell(found[at], at, where)
    whole = PhaseMap(
        x=x,
        y=y,
        rows=tuple(tuple(found[i, j] for i in range(len(x.values))) for j in range(len(y.values))),
        seeds=SEEDS,
        training=view.training,
    )
    yield {"type": "done", "summary": whole.summary}


def describe_cell(cell: PhaseCell, at: tuple[int, int], where: str) -> Line:
    """Return the line of one cell.

    Args:
        cell: What is known of it.
        at: Its numbers on the axes.
        where: Its values on the axes, in words.
    """
    measured, theory = shade(cell.measured_ratio), shade(cell.expected_ratio)
    return {
        "type": "cell",
        "at": list(at),
        "where": where,
        "measured": None if measured is None else round(END * measured),
        "theory": None if theory is None else round(END * theory),
        "accuracy": None if cell.trained is None else _shade_share(cell.trained.accuracy),
        "expects": cell.expects_training,
        "dot": cell.dot,
        "text": cell.sentence,
        "query": write_query(cell.spec),
    }


def _shade_share(share: float) -> int:
    """Return the shade of an accuracy: light to dark in the colours of what learns."""
    return round(-99 + 199 * share)
