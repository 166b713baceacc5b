"""A large model in a terminal: blocks side by side as a depth profile, and every module as a tree.

Both need no colours and no more than 80 columns.
"""

from collections.abc import Callable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chainrule.display.bars import (
    Bars,
    Sparks,
    add_columns,
    count_per_cell,
    shorten,
    write_cell,
    write_share,
)
from chainrule.flow.blocks import Branch, Stack, build_profile, grow_tree
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import LayerFlow

NAME_CELLS = 32
"""Cells of a module's name at most."""

SPARK_CELLS = 48
"""Cells of a sparkline at most."""

INDENT = "  "

_STREAM = "residual stream, ‖∂𝓛/∂sum‖"


def render_profile(flow: GradientFlow, width: int) -> RenderableType:
    """Return the weight layers by block: a row per place in a block, a cell per block.

    Args:
        flow: The measurement.
        width: Columns of the terminal.
    """
    stacks = build_profile(flow)
    values = [norm for stack in stacks for row in stack.rows for norm in row.norms]
    sparks = Sparks([*values, *(norm for stack in stacks for norm in stack.stream)])
    names = [
        name
        for stack in stacks
        for name in (
            *(f"{INDENT if stack.repeats else ''}{row.name or '(model)'}" for row in stack.rows),
            *([f"{INDENT}{_STREAM}"] if stack.stream else []),
        )
    ]
    name_width = min(NAME_CELLS, max(map(len, names)))
    blocks = max(len(stack.labels) for stack in stacks)
    cells = max(1, min(SPARK_CELLS, width - name_width - 24, blocks))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("module", no_wrap=True, min_width=name_width)
    table.add_column("first", justify="right", no_wrap=True, min_width=8)
    table.add_column("‖∂𝓛/∂W‖", no_wrap=True, min_width=max(cells, 8))
    table.add_column("last", justify="right", no_wrap=True, min_width=8)
    for stack in stacks:
        if stack.repeats:
            table.add_section()
            table.add_row(Text(shorten(stack.name, name_width), style="bold"), "", _count(stack))
        for name, norms in _list_rows(stack):
            table.add_row(shorten(name, name_width), *_show(norms, sparks, cells))
    per_cell = count_per_cell(blocks, cells)
    shared = f" Up to {per_cell} blocks share a cell." if per_cell > 1 else ""
    notes = f"A cell per block, input to output: {sparks.scale}.{shared} --all shows every module."
    return Group(table, Text(notes, style="dim"))


def _count(stack: Stack) -> Text:
    return Text(f"{len(stack.labels)} blocks", style="dim")


def _list_rows(stack: Stack) -> Iterator[tuple[str, tuple[Quantity | None, ...]]]:
    indent = INDENT if stack.repeats else ""
    for row in stack.rows:
        yield f"{indent}{row.name or '(model)'}", row.norms
    if stack.stream:
        yield f"{indent}{_STREAM}", stack.stream


def _show(norms: Sequence[Quantity | None], sparks: Sparks, cells: int) -> list[RenderableType]:
    """Return the first value, all of them as a sparkline, and the last."""
    known = [norm for norm in norms if norm is not None]
    if not known:
        return ["–", sparks.render(norms, cells), "–"]
    last = write_cell(known[-1]) if len(norms) > 1 else ""
    return [write_cell(known[0]), sparks.render(norms, cells), last]


def render_tree(flow: GradientFlow, width: int) -> RenderableType:
    """Return every measured module output as an indented tree, in forward order.

    Args:
        flow: The measurement.
        width: Columns of the terminal; where they do not suffice, the last values are left out.
    """
    bars = Bars([_read_gradient(call) for call in flow.layers])
    columns: list[tuple[str, int, Callable[[LayerFlow], RenderableType]]] = [
        ("‖∂𝓛/∂output‖", 12, lambda call: write_cell(_read_gradient(call))),
        (bars.heading, bars.width, lambda call: bars.render(_read_gradient(call))),
        ("gain", 8, lambda call: write_cell(call.gain)),
        ("std", 8, lambda call: write_cell(_read(call, "std"))),
        ("mean", 9, lambda call: write_cell(_read(call, "mean"))),
        ("zeros", 5, lambda call: write_share(_read(call, "zero_share"))),
        ("shape", 12, lambda call: "×".join(map(str, call.shape)) or "scalar"),
    ]
    lines = list(_walk(grow_tree(flow), ""))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    name_width = min(30, max((6, *(len(name) for name, _ in lines))))
    kind_width = min(18, max((4, *(len(call.kind) for call in flow.layers))))
    table.add_column("module", no_wrap=True, min_width=name_width)
    table.add_column("kind", no_wrap=True, min_width=kind_width)
    shown = add_columns(table, columns, width - name_width - kind_width - 4, bars.width)
    for name, call in lines:
        if call is None:
            table.add_row(Text(shorten(name, name_width), style="bold"))
        else:
            kind = shorten(call.kind, kind_width)
            table.add_row(shorten(name, name_width), kind, *(render(call) for render in shown))
    return table


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
