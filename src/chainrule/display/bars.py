"""Pieces of terminal tables: numbers, shares, bars and sparklines on a log scale."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from chainrule._utils.numbers import format_number, to_superscript
from chainrule.flow.quantity import Quantity

BAR_CELLS = 24
"""Cells of a bar's scale."""

SPARKS = "▁▂▃▄▅▆▇█"
"""Heights of a sparkline's cells, smallest first."""

DECADES = 2.0
"""Powers of ten that a sparkline's scale spans at least, so that small differences look small."""

Row = TypeVar("Row")


def add_columns(
    table: Table,
    columns: Sequence[tuple[str, int, Callable[[Row], RenderableType]]],
    left: int,
    bar_width: int,
) -> list[Callable[[Row], RenderableType]]:
    """Add those columns (heading, width, content) that fit, and return their contents."""
    shown = []
    for heading, size, render in columns:
        if size <= left:
            justify: JustifyMethod = "left" if size == bar_width else "right"
            table.add_column(heading, justify=justify, no_wrap=True, min_width=size)
            shown.append(render)
            left -= size + 2
    return shown


class Bars:
    """Bars on a log scale that grow from the last layer's value: left is smaller, right larger."""

    def __init__(self, values: Sequence[Quantity | None]) -> None:
        logs = [math.log10(f) for f in values if f is not None and 0 < f < math.inf]
        self.reference = logs[-1] if logs else 0.0
        below = math.ceil(self.reference - min(logs, default=0.0) - 1e-9)
        above = math.ceil(max(logs, default=0.0) - self.reference - 1e-9)
        below = below or (0 if above else 1)
        self.cells_per_decade = BAR_CELLS / (below + above)
        self.left = round(below * self.cells_per_decade)
        self.right = BAR_CELLS - self.left
        self.width = BAR_CELLS + 1
        low = f"10⁻{to_superscript(below)}" if below else ""
        high = f"10{to_superscript(above)}" if above else ""
        self.heading = f"{low.ljust(self.left)}1{high.rjust(self.right)}"

    def render(self, value: Quantity | None) -> Text:
        """Return the bar of one value; what has no place on a log scale is told in words."""
        if value is None:
            return Text("no gradient".center(self.width), style="magenta")
        if value <= 0:
            return Text("zero".center(self.width), style="red")
        if not math.isfinite(value):
            return Text("not finite".center(self.width), style="red")
        decades = math.log10(value) - self.reference
        bar = "█" * round(abs(decades) * self.cells_per_decade)
        left, right = (bar, "") if decades < 0 else ("", bar)
        return Text.assemble(
            (left.rjust(self.left), "blue"), ("│", "dim"), (right.ljust(self.right), "yellow")
        )


class Sparks:
    """Sparklines on one log scale: a cell per value, the higher the larger."""

    def __init__(self, values: Sequence[Quantity | None]) -> None:
        logs = [math.log10(f) for f in values if f is not None and 0 < f < math.inf]
        self.high = max(logs, default=0.0)
        self.low = min([*logs, self.high - DECADES])

    @property
    def scale(self) -> str:
        """What the smallest and the largest cell stand for."""
        low, high = format_number(10**self.low), format_number(10**self.high)
        return f"{SPARKS[0]} {low} to {SPARKS[-1]} {high}, on a log scale"

    def render(self, values: Sequence[Quantity | None], cells: int) -> Text:
        """Return one row of cells; where values are too many, several share one.

        What has no place on a log scale has a sign of its own, and wins a shared cell: "0" for
        exactly zero, "!" for not finite. A cell without any gradient is "·".
        """
        line = Text()
        per_cell = count_per_cell(len(values), cells)
        for start in range(0, len(values), per_cell):
            line.append_text(self._render_cell(values[start : start + per_cell]))
        return line

    def _render_cell(self, values: Sequence[Quantity | None]) -> Text:
        known = [value for value in values if value is not None]
        if not known:
            return Text("·", style="dim")
        if any(not math.isfinite(value) for value in known):
            return Text("!", style="red")
        if any(value <= 0 for value in known):
            return Text("0", style="red")
        mean = sum(map(math.log10, known)) / len(known)
        share = (mean - self.low) / (self.high - self.low)
        return Text(SPARKS[min(len(SPARKS) - 1, int(share * len(SPARKS)))], style="blue")


def count_per_cell(values: int, cells: int) -> int:
    """Return how many values share a cell."""
    return max(1, math.ceil(values / max(1, cells)))


def write_cell(value: float | None) -> str:
    """Return a value, a dash where there is none."""
    return "–" if value is None else format_number(value)


def shorten(name: str, length: int) -> str:
    """Return the end of a name that is too long, which tells it apart from its neighbours."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def write_share(value: float | None) -> str:
    """Return a share in percent, a dash where it is not known."""
    known = value is not None and math.isfinite(value)
    return f"{value:.0%}".replace("%", " %") if known else "–"
