"""`PhaseMap`: theory, measurement and training of the networks over two axes, cell by cell."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from chainrule._utils.numbers import encode_number, format_number, format_share
from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.axes import Axis
from chainrule.sweeps.cells import Training
from chainrule.sweeps.phase_figure import Colour, Dot, Grid, plot_phases
from chainrule.sweeps.records import Outcome, Trained, write_rows
from chainrule.theory.critical import TRAINABLE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Phase = Literal["ordered", "critical", "chaotic"]

CRITICAL = 1e-6
"""A χ that differs from 1 by less is called critical."""

USUAL = 20
"""Ratios within this factor of 1 are drawn as neither small nor large."""

_FATES: dict[Phase, str] = {
    "ordered": "gradients vanish with depth",
    "critical": "gradients keep their size with depth",
    "chaotic": "gradients explode with depth",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCell:
    """One network of a map: what theory says, what was measured, and whether it was trained.

    The ratio is ‖δ_1‖ ÷ ‖δ_L‖, the backpropagated gradient of the first layer against that of the
    last one: below 1 gradients shrink on their way back, above 1 they grow.

    Attributes:
        spec: The network.
        error: Why it could not be measured; "" if it was.
        chi: χ at the fixed point of theory; `None` where there is none.
        depth_scale: How many layers far theory says that a signal gets; may be infinite.
        expected_ratio: The ratio of theory: the median for this width, or χ^((L − 1)/2) where only
            χ is known.
        layers_outside: Numbers of the layers whose measured ‖∂𝓛/∂W‖ is outside of its band; `None`
            where theory gives no band.
        missing: What theory does not say, and why.
        measured_ratio: The ratio as measured; `None` without one.
        verdict: Of the diagnosis; "" after an error.
        trained: What training gave; `None` if there was none.

    Example:
        >>> cell = PhaseCell(spec=NetworkSpec(depth=12), chi=0.8, depth_scale=4.5)
        >>> cell.phase, cell.expects_training
        ('ordered', True)
    """

    spec: NetworkSpec
    error: str = ""
    chi: float | None = None
    depth_scale: float | None = None
    expected_ratio: float | None = None
    layers_outside: tuple[int, ...] | None = None
    missing: tuple[str, ...] = ()
    measured_ratio: float | None = None
    verdict: str = ""
    trained: Trained | None = None

    @property
    def phase(self) -> Phase | None:
        """Where theory places it: "ordered" (χ < 1), "critical" or "chaotic" (χ > 1)."""
        if self.chi is None or math.isnan(self.chi):
            return None
        if abs(self.chi - 1.0) < CRITICAL:
            return "critical"
        return "ordered" if self.chi < 1.0 else "chaotic"

    @property
    def expects_training(self) -> bool | None:
        """Whether theory expects that it trains: its depth is at most 6 depth scales.

        The 6 is what Schoenholz et al. 2017 found (figure 5); `None` without a depth scale.
        """
        if self.depth_scale is None:
            return None
        return self.spec.depth <= TRAINABLE * self.depth_scale

    @property
    def fits(self) -> bool | None:
        """Whether every measured layer is inside the band of theory; `None` without a band."""
        return None if self.layers_outside is None else not self.layers_outside

    @property
    def dot(self) -> Dot:
        """How a map marks it: "filled" if it was trained, "empty" if it failed, "" without."""
        return "" if self.trained is None else "filled" if self.trained.trained else "empty"

    @property
    def sentence(self) -> str:
        """Theory, measurement and training in one line."""
        return f"{self._tell_theory()}; {self._tell_measured()}; {self._tell_trained()}."

    def _tell_theory(self) -> str:
        if self.phase is None:
            reason = self.missing[0].partition(": ")[2] if self.missing else "it has no depth scale"
            return f"Theory says nothing about the phase ({reason})"
        text = f"Theory says {_FATES[self.phase]}"
        if self.expected_ratio is not None:
            text += f", here δ first ÷ last {format_number(self.expected_ratio)}"
        if self.depth_scale is None:
            return text
        if math.isinf(self.depth_scale):
            return f"{text}, and any depth trains"
        most = math.floor(TRAINABLE * self.depth_scale)
        return f"{text}, and up to {_count(most)} train" if most else f"{text}, and none trains"

    def _tell_measured(self) -> str:
        if self.error:
            return f"measured nothing ({self.error})"
        if self.measured_ratio is None:
            return "measured no gradient"
        text = f"measured δ first ÷ last {format_number(self.measured_ratio)}"
        if self.fits is None:
            return text
        if self.fits:
            return f"{text}, as theory says"
        return f"{text}, {len(self.layers_outside or ())} of {_count(self.spec.depth)} not as said"

    def _tell_trained(self) -> str:
        end = self.trained
        if end is None:
            return "not trained yet"
        if end.diverged:
            return f"training diverged after {end.steps} steps"
        right = f"{format_share(end.accuracy)} right after {end.steps} steps"
        return f"trained, {right}" if end.trained else f"training failed, {right}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as one flat row: settings and every value."""
        end = self.trained
        return self.spec.model_dump() | {
            "error": self.error or None,
            "phase": self.phase,
            "chi": self.chi,
            "depth_scale": self.depth_scale,
            "expects_training": self.expects_training,
            "expected_ratio": self.expected_ratio,
            "measured_ratio": self.measured_ratio,
            "layers_outside": None if self.layers_outside is None else len(self.layers_outside),
            "verdict": self.verdict or None,
            "accuracy": None if end is None else end.accuracy,
            "loss": None if end is None else end.loss,
            "diverged": None if end is None else end.diverged,
            "trained": None if end is None else end.trained,
        }


def read_cell(spec: NetworkSpec, outcome: Outcome) -> PhaseCell:
    """Return what a map shows of what became of a sweep's cell."""
    measured, foreseen = outcome.measured, outcome.foreseen
    if foreseen is None:
        foreseen_parts: dict[str, Any] = {}
    else:
        foreseen_parts = {
            "chi": foreseen.chi,
            "depth_scale": foreseen.depth_scale,
            "expected_ratio": _expect_ratio(foreseen.delta_bands, foreseen.chi, spec.depth),
            "layers_outside": foreseen.layers_outside,
            "missing": foreseen.missing,
        }
    return PhaseCell(
        spec=spec,
        error=outcome.error,
        measured_ratio=None if measured is None else measured.delta_ratio,
        verdict="" if measured is None else measured.verdict,
        trained=outcome.trained,
        **foreseen_parts,
    )


def _expect_ratio(
    bands: tuple[tuple[float, float, float] | None, ...], chi: float | None, depth: int
) -> float | None:
    """Return ‖δ_1‖ ÷ ‖δ_L‖ of theory; where it gives no medians, the limit of infinite width."""
    first, last = (bands[0], bands[-1]) if bands else (None, None)
    if first is not None and last is not None and last[1] > 0.0:
        return first[1] / last[1]
    if chi is None or chi < 0.0:
        return None
    if chi == 0.0:
        return 0.0 if depth > 1 else 1.0
    power = (depth - 1) / 2 * math.log(chi)
    return math.inf if power > 700.0 else math.exp(power)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """In how many cells two of theory, measurement and training say the same.

    Attributes:
        same: Cells in which they do.
        compared: Cells in which both say something.

    Example:
        >>> str(Agreement(same=9, compared=12))
        '9 of 12'
    """

    same: int
    compared: int

    def __str__(self) -> str:
        return f"{self.same} of {self.compared}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PhaseMap:
    """The networks over two axes.

    Attributes:
        x: The axis to the right.
        y: The axis upwards.
        rows: The cells, a row for each value of `y`, the first value first.
        line: The critical line of theory as (x, y) points; empty where there is none to draw.
        is_critical: Whether that is the critical line; else only χ = 1 holds on it: with biases,
            ReLU has no fixed point there.
        seeds: Networks per cell that the measurement is the median of.
        training: How each cell's first network was trained; `None` if none was.

    Example:
        >>> axis = Axis(name="depth", values=(2,))
        >>> cell = PhaseCell(spec=NetworkSpec(depth=2))
        >>> PhaseMap(x=axis, y=Axis(name="width", values=(64,)), rows=((cell,),), seeds=1)
        PhaseMap(1 × 1 over depth and width; measured 0 of 1)
    """

    x: Axis
    y: Axis
    rows: tuple[tuple[PhaseCell, ...], ...]
    seeds: int
    line: tuple[tuple[float, float], ...] = ()
    training: Training | None = None
    is_critical: bool = True

    def __repr__(self) -> str:
        size = f"{len(self.x.values)} × {len(self.y.values)} over {self.x.name} and {self.y.name}"
        cells = list(self)
        measured = sum(cell.measured_ratio is not None for cell in cells)
        parts = [f"measured {measured} of {len(cells)}"]
        if self.measured.compared:
            parts.append(f"{self.measured} as theory says")
        if self.trained.compared:
            parts.append(f"{self.trained} trained as theory says")
        return f"PhaseMap({size}; {', '.join(parts)})"

    def __iter__(self) -> Iterator[PhaseCell]:
        """Return the cells, row by row."""
        return (cell for row in self.rows for cell in row)

    def at(self, x: Any, y: Any) -> PhaseCell:
        """Return the cell of two values.

        Raises:
            SweepError: If a value is not on its axis.
        """
        places = []
        for axis, value in ((self.x, x), (self.y, y)):
            if value not in axis.values:
                raise SweepError(
                    f"{axis.name}: must be one of the map's values, "
                    f"{', '.join(map(str, axis.values[:30]))}; got {value!r}."
                )
            places.append(axis.values.index(value))
        return self.rows[places[1]][places[0]]

    @property
    def measured(self) -> Agreement:
        """Theory and measurement: all layers' ‖∂𝓛/∂W‖ in the bands of theory."""
        known = [cell.fits for cell in self if cell.fits is not None]
        return Agreement(same=sum(known), compared=len(known))

    @property
    def trained(self) -> Agreement:
        """Theory and training: a network learned where its depth is at most 6 depth scales."""
        known = [
            cell.expects_training == cell.trained.trained
            for cell in self
            if cell.trained is not None and cell.expects_training is not None
        ]
        return Agreement(same=sum(known), compared=len(known))

    @property
    def summary(self) -> str:
        """How far theory, measurement and training agree, in words."""
        cells = list(self)
        failed = sum(bool(cell.error) for cell in cells)
        parts = [
            f"{len(cells)} networks over {self.x.label} and {self.y.label}, each measured as the "
            f"median of {self.seeds} {'seed' if self.seeds == 1 else 'seeds'}."
        ]
        if self.measured.compared:
            parts.append(
                f"Measurement: in {self.measured} cells all layers are as theory says, within its "
                "band."
            )
        bare = sum(cell.fits is None for cell in cells) - failed
        if bare > 0:
            parts.append(f"Of {bare} cells theory gives no band.")
        silent = sum(cell.phase is None for cell in cells) - failed
        if silent > 0:
            parts.append(f"Of {silent} cells theory says no phase.")
        if failed:
            parts.append(f"{failed} cells could not be measured.")
        if self.training is not None and self.trained.compared:
            parts.append(self._tell_training(cells))
        return " ".join(parts)

    def _tell_training(self, cells: list[PhaseCell]) -> str:
        both = [
            (cell.expects_training, cell.trained.trained)
            for cell in cells
            if cell.trained is not None and cell.expects_training is not None
        ]
        text = f"Training: {self.trained} cells end as theory says"
        more, less = both.count((False, True)), both.count((True, False))
        apart = [f"{more} learned beyond {TRAINABLE} depth scales"] if more else []
        apart += [f"{less} did not learn within them"] if less else []
        return f"{text} ({', '.join(apart)})." if apart else f"{text}."

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat row per cell, as for a data frame."""
        return [
            {"x": x, "y": y, **cell.to_dict()}
            for y, row in zip(self.y.values, self.rows, strict=True)
            for x, cell in zip(self.x.values, row, strict=True)
        ]

    def write(self, path: str | os.PathLike[str]) -> int:
        """Write `to_records` to a file ending with .csv or .parquet, and return the rows.

        Raises:
            SweepError: If it has another ending, or no package for Parquet is installed.
            FlowFileError: If the file cannot be written.
        """
        return write_rows(path, self.to_records())

    def draw_text(self) -> str:
        """Return the map as text, a sign for each cell: what was measured, and what learned.

        A measured ratio of 1/20 to 20 is "·", a smaller one "-", a larger one "+", none "?"; "●"
        follows where the network learned, "○" where it did not.
        """
        dots = {"filled": "●", "empty": "○", "": " "}
        names = [self.y.write(value) for value in self.y.values]
        width = max(map(len, names))
        lines = [
            f"{name:>{width}} │{''.join(_sign(c.measured_ratio) + dots[c.dot] for c in row)}"
            for name, row in zip(names, self.rows, strict=True)
        ]
        first, last = (self.x.write(self.x.values[end]) for end in (0, -1))
        gap = max(2 * len(self.x.values) - len(first) - len(last), 1)
        foot = f"{' ' * width}  {first}{' ' * gap}{last}  {self.x.label} →"
        return "\n".join([f"{self.y.label} ↑", *reversed(lines), foot])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: "Infinity" and "NaN" where a number is not finite."""
        plan = self.training
        return {
            "x": {"name": self.x.name, "values": list(self.x.values)},
            "y": {"name": self.y.name, "values": list(self.y.values)},
            "seeds": self.seeds,
            "training": None
            if plan is None
            else {"optimizer": plan.optimizer, "steps": plan.steps, "rate": plan.learning_rate},
            "line": [list(point) for point in self.line],
            "line_is_critical": self.is_critical,
            "summary": self.summary,
            "cells": [
                {
                    name: encode_number(value) if isinstance(value, float) else value
                    for name, value in row.items()
                }
                for row in self.to_records()
            ],
        }

    def to_json(self) -> str:
        """Return it as a JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def plot(self, colour: Colour = "measured") -> "Figure":
        """Return the map as a Plotly figure, to show, change or save.

        Args:
            colour: What the cells' colours show: "measured" or "theory" (‖δ_1‖ ÷ ‖δ_L‖), or
                "accuracy" (after training). Lines are always theory, dots always training.

        Raises:
            ChainruleError: If Plotly is not installed or the colour is unknown.
        """
        return plot_phases(self.read_grid(), colour)

    def read_grid(self) -> Grid:
        """Return what a picture of the map needs, without what it is about."""
        return Grid(
            x=self.x,
            y=self.y,
            line=self.line,
            line_name="critical line" if self.is_critical else "χ = 1, gradients keep their size",
            measured=tuple(tuple(cell.measured_ratio for cell in row) for row in self.rows),
            theory=tuple(tuple(cell.expected_ratio for cell in row) for row in self.rows),
            accuracy=tuple(
                tuple(None if cell.trained is None else cell.trained.accuracy for cell in row)
                for row in self.rows
            ),
            expects=tuple(tuple(cell.expects_training for cell in row) for row in self.rows),
            dots=tuple(tuple(cell.dot for cell in row) for row in self.rows),
            sentences=tuple(tuple(cell.sentence for cell in row) for row in self.rows),
        )


def _sign(ratio: float | None) -> str:
    if ratio is None or math.isnan(ratio):
        return "?"
    return "-" if ratio < 1 / USUAL else "+" if ratio > USUAL else "·"


def _count(layers: int) -> str:
    return "1 layer" if layers == 1 else f"{layers} layers"
