"""A measurement's tables in a terminal: layers with bars, blocks as sparklines, modules as a tree.

None needs colours or more than 80 columns. Names are printed as they are; a character that would
act on the terminal is shown as an escape.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from chainrule._utils.numbers import format_number, format_shape, to_superscript
from chainrule._utils.text import make_printable
from chainrule.display.tables import write_cell, write_share
from chainrule.flow.blocks import Branch, Stack, build_profile, grow_tree
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, format_band
from chainrule.flow.records import LayerFlow, WeightLayer, read_saturation

FOLD_BEYOND = 60
"""Tables with more layers than this show only the first and last ones."""

BAR_CELLS = 24
"""Cells of a bar's scale."""

SPARKS = "▁▂▃▄▅▆▇█"
"""Heights of a sparkline's cells, smallest first."""

DECADES = 2.0
"""Powers of ten that a sparkline's scale spans at least, so that small differences look small."""

LAYER_CELLS, NAME_CELLS, TREE_CELLS, KIND_CELLS = 28, 32, 30, 18
"""Cells at most of a module's name in the three tables, and of a kind."""

SPARK_CELLS = 48
"""Cells of a sparkline at most."""

INDENT = "  "

_STREAM = "residual stream, ‖∂𝓛/∂sum‖"


def show(text: str, style: str = "", *, keep: str = "") -> Text:
    r"""Return a text for a terminal: no markup is read in it, and nothing in it acts.

    Args:
        text: The text.
        style: Its style.
        keep: Characters to leave alone that would be escaped, for example line breaks.

    Example:
        >>> print(show("heads[en]\x1b[2J"))
        heads[en]\x1b[2J
    """
    return Text(make_printable(text, keep=keep), style=style)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, filled before it is known whether it fits.

    Attributes:
        heading: What is in it.
        cells: One text per row.
        justify: Where the text stands in a cell that is wider.
    """

    heading: str
    cells: Sequence[Text]
    justify: JustifyMethod = "right"

    @property
    def width(self) -> int:
        """Cells of the terminal that the widest text takes."""
        return max(cell_len(self.heading), *(cell.cell_len for cell in self.cells))


def fill(heading: str, cells: Iterable[str | Text], justify: JustifyMethod = "right") -> Column:
    """Return a column of texts, made safe to print.

    Example:
        >>> fill("zeros", ["25 %", "–"]).width
        5
    """
    texts = [show(cell) if isinstance(cell, str) else cell for cell in cells]
    return Column(heading, texts, justify)


def tabulate(columns: Sequence[Column], width: int) -> Table:
    """Return a table of those columns that fit beside each other; the first is always there.

    Args:
        columns: The columns, the most important first.
        width: Columns of the terminal.

    Example:
        >>> columns = [fill("layer", ["1", "2"]), fill("zeros", ["–", "–"])]
        >>> len(tabulate(columns, 9).columns)
        1
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown: list[Column] = []
    left = width
    for column in columns:
        if not shown or column.width <= left:
            shown.append(column)
            left -= column.width + 2
    for column in shown:
        table.add_column(Text(column.heading), justify=column.justify, no_wrap=True)
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*row)
    return table


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
        """Return the bar of one value; what has no place on a log scale is a word."""
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


def shorten(name: str, cells: int) -> str:
    """Return the end of a name that is too long, which tells it apart from its neighbours.

    Example:
        >>> shorten("blocks.layers.32.norm1", 10)
        '….32.norm1'
    """
    name = make_printable(name)
    if cell_len(name) <= cells:
        return name
    while cell_len(name) > cells - 1:
        name = name[1:]
    return f"…{name}"


def render_layers(flow: GradientFlow, width: int) -> RenderableType:
    """Return one row per weight layer; bars grow from the last layer's gradient on a log scale.

    Args:
        flow: The measurement.
        width: Columns of the terminal; where they do not suffice, the last values are left out.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> render_layers(simulate(NetworkSpec(depth=3, width=4), 1), 20).row_count
        3
    """
    layers = flow.weight_layers
    if not layers:
        return Text("No module with weights was used.", style="dim")
    bars = Bars([layer.weight_gradient_norm for layer in layers])
    rows = _fold(layers)

    def column(heading: str, write: Callable[[WeightLayer], str | Text], gap: str = "") -> Column:
        justify: JustifyMethod = "left" if heading in ("module", bars.heading) else "right"
        return fill(heading, [gap if row is None else write(row) for row in rows], justify)

    columns = [
        column("layer", lambda layer: str(layer.layer), "⋯"),
        column("‖∂𝓛/∂W‖", lambda layer: write_cell(layer.weight_gradient_norm), "⋯"),
        column(
            bars.heading,
            lambda layer: bars.render(layer.weight_gradient_norm),
            f"{len(layers)} in all",
        ),
        column("‖δ‖", lambda layer: write_cell(layer.delta_norm)),
        column("saturated", lambda layer: write_share(read_saturation(layer))),
        column("dead", lambda layer: write_share(layer.dead_share)),
        column("std of h", lambda layer: write_cell(layer.std)),
        column("‖∂W‖÷‖W‖", lambda layer: write_cell(layer.grad_to_weight)),
    ]
    if flow.spec is None:
        names = column("module", lambda layer: shorten(layer.name or "(model)", LAYER_CELLS), "⋯")
        columns.insert(1, names)
    if flow.ensemble_size > 1:
        columns.append(
            column("10–90 % of ‖∂𝓛/∂W‖", lambda layer: format_band(layer.weight_gradient_norm))
        )
    table = tabulate(columns, width)
    if all(column.header != Text(bars.heading) for column in table.columns):
        return table
    note = "Bars: ‖∂𝓛/∂W‖ relative to the last layer's, on a log scale."
    return Group(table, Text(note, style="dim"))


def _fold(layers: Sequence[WeightLayer]) -> list[WeightLayer | None]:
    """Return the layers to show, `None` in the place of those left out."""
    if len(layers) <= FOLD_BEYOND:
        return list(layers)
    half = FOLD_BEYOND // 3
    return [*layers[:half], None, *layers[-half:]]


def render_profile(flow: GradientFlow, width: int) -> RenderableType:
    """Return the weight layers by block: a row per place in a block, a cell per block.

    Args:
        flow: The measurement.
        width: Columns of the terminal.
    """
    stacks = build_profile(flow)
    values = [norm for stack in stacks for row in stack.rows for norm in row.norms]
    sparks = Sparks([*values, *(norm for stack in stacks for norm in stack.stream)])
    places = [place for stack in stacks for place in _list_places(stack)]
    longest = max(cell_len(make_printable(name)) for name, norms in places if norms is not None)
    name_cells = min(NAME_CELLS, longest)
    blocks = max(len(stack.labels) for stack in stacks)
    first = fill("first", (_write_end(norms, 0) for _, norms in places))
    last = fill("last", (_write_end(norms, -1) for _, norms in places))
    room = width - name_cells - first.width - last.width - 6
    cells = max(1, min(SPARK_CELLS, room, blocks))
    counts = iter([f"{len(stack.labels)} blocks" for stack in stacks if stack.repeats])
    columns = [
        fill(
            "module",
            (
                Text(shorten(name, name_cells), style="bold" if norms is None else "")
                for name, norms in places
            ),
            "left",
        ),
        first,
        fill(
            "‖∂𝓛/∂W‖",
            (
                show(next(counts), "dim") if norms is None else sparks.render(norms, cells)
                for _, norms in places
            ),
            "left",
        ),
        last,
    ]
    per_cell = count_per_cell(blocks, cells)
    shared = f" Up to {per_cell} blocks share a cell." if per_cell > 1 else ""
    notes = f"A cell per block, input to output: {sparks.scale}.{shared} --all shows every module."
    return Group(tabulate(columns, width), Text(notes, style="dim"))


def _list_places(stack: Stack) -> Iterator[tuple[str, tuple[Quantity | None, ...] | None]]:
    """Yield name and gradients of every row of a stack; `None` for the heading of repeated blocks.

    Each place in a block is a row, and so is the residual stream.
    """
    indent = INDENT if stack.repeats else ""
    if stack.repeats:
        yield stack.name, None
    for row in stack.rows:
        yield f"{indent}{row.name or '(model)'}", row.norms
    if stack.stream:
        yield f"{indent}{_STREAM}", stack.stream


def _write_end(norms: Sequence[Quantity | None] | None, end: int) -> str:
    """Return the first known value of a row (end 0) or the last (end −1), if it has several."""
    if norms is None or (end and len(norms) < 2):
        return ""
    known = [norm for norm in norms if norm is not None]
    return write_cell(known[end] if known else None)


def render_tree(flow: GradientFlow, width: int) -> RenderableType:
    """Return every measured module output as an indented tree, in forward order.

    Args:
        flow: The measurement.
        width: Columns of the terminal; where they do not suffice, the last values are left out.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> render_tree(simulate(NetworkSpec(depth=3, width=4), 1), 80).row_count
        6
    """
    bars = Bars([_read_gradient(call) for call in flow.layers])
    lines = list(_walk(grow_tree(flow), ""))

    def column(
        heading: str, write: Callable[[LayerFlow], str | Text], justify: JustifyMethod = "right"
    ) -> Column:
        return fill(heading, ["" if call is None else write(call) for _, call in lines], justify)

    columns = [
        fill(
            "module",
            (
                Text(shorten(name, TREE_CELLS), style="bold" if call is None else "")
                for name, call in lines
            ),
            "left",
        ),
        column("kind", lambda call: shorten(call.kind, KIND_CELLS), "left"),
        column("‖∂𝓛/∂output‖", lambda call: write_cell(_read_gradient(call))),
        column(bars.heading, lambda call: bars.render(_read_gradient(call)), "left"),
        column("gain", lambda call: write_cell(call.gain)),
        column("std", lambda call: write_cell(_read(call, "std"))),
        column("mean", lambda call: write_cell(_read(call, "mean"))),
        column("zeros", lambda call: write_share(_read(call, "zero_share"))),
        column("shape", lambda call: format_shape(call.shape)),
    ]
    return tabulate(columns, width)


def _walk(branch: Branch, indent: str) -> Iterator[tuple[str, LayerFlow | None]]:
    """Yield the lines of a tree: a name with its indent, and what was measured there if it was."""
    deeper = indent
    if branch.calls:
        for call in branch.calls:
            yield (
                f"{indent}{branch.label or '(model)'}{call.label[len(call.name or '(model)') :]}",
                call,
            )
        deeper = indent + INDENT
    elif branch.name:
        yield f"{indent}{branch.label}", None
        deeper = indent + INDENT
    for each in branch.branches:
        yield from _walk(each, deeper)


def _read_gradient(call: LayerFlow) -> Quantity | None:
    return call.gradient.norm if call.gradient else None


def _read(call: LayerFlow, value: str) -> Quantity | None:
    return getattr(call.statistics, value) if call.statistics else None
