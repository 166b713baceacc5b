"""Flows, diagnoses, remedies and presets as text for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rule import Verdict
from chainrule.display.cards import (
    BAD,
    GOOD,
    LOOKS,
    WARN,
    build_forecasts,
    describe_attention,
    describe_loss,
    describe_measurement,
    describe_subject,
    describe_trial,
    describe_verdict,
)
from chainrule.display.tables import (
    ATTENTION_HEAD,
    BLAME_HEAD,
    write_attention_row,
    write_blame_row,
    write_cell,
)
from chainrule.display.terminal_tables import (
    render_layers,
    render_profile,
    render_tree,
    shorten,
    show,
)
from chainrule.flow.blocks import is_profiled
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import format_band
from chainrule.presets import Preset

if TYPE_CHECKING:
    from chainrule.flow.quantity import Quantity
    from chainrule.remedies.result import Remedies, Remedy

_STYLES = {GOOD: "bold green", WARN: "bold yellow", BAD: "bold red"}
"""Styles by state of a verdict, whose sign says the same without colour."""

_ATTENTION_CELLS = 40

_TIMES = 3
"""Most recurrent modules that get a line."""


def print_flow(
    console: Console, flow: GradientFlow, diagnosis: Diagnosis, *, everything: bool = False
) -> None:
    """Print a flow: its layers with bars, the headline values, the diagnosis.

    Args:
        console: Where to print.
        flow: The measurement.
        diagnosis: What it means.
        everything: Whether to print every measured module, as a tree, instead of the weight
            layers; of a large model these are shown by block.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 1)
        >>> print_flow(Console(quiet=True), flow, diagnose(flow))
    """
    console.print(_render_heading(flow))
    console.print()
    if everything:
        table = render_tree(flow, console.width)
    elif is_profiled(flow):
        table = render_profile(flow, console.width)
    else:
        table = render_layers(flow, console.width)
    console.print(table)
    console.print()
    console.print(_render_values(flow))
    console.print()
    if flow.attentions:
        console.print(_render_attention(flow, everything=everything))
        console.print()
    console.print(render_diagnosis(diagnosis, flow))


def _render_heading(flow: GradientFlow) -> RenderableType:
    """Return what was measured and how, in two lines."""
    return Group(show(describe_subject(flow), "bold"), show(describe_measurement(flow), "dim"))


def _render_values(flow: GradientFlow) -> RenderableType:
    """Return the loss, the gradient at both ends, and their ratio."""
    norms = flow.weight_gradient_norms
    values: list[tuple[str, Quantity | None]] = [("loss", flow.loss)]
    if norms:
        values += [
            ("weight gradient at layer 1", norms[0]),
            *([(f"weight gradient at layer {len(norms)}", norms[-1])] if len(norms) > 1 else []),
            *([("ratio, first ÷ last", flow.gradient_ratio)] if len(norms) > 1 else []),
        ]
    values += [
        (f"{each.name}: gradient at step 1 of {each.length:,} ÷ the largest", each.shares[0])
        for each in flow.times[:_TIMES]
    ]
    if flow.clip_factor is not None:
        values += [
            ("clipping multiplies by", flow.clip_factor),
            ("all gradients together", flow.gradient_norm),
            ("all together, clipped", flow.clipped_gradient_norm),
        ]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, value in values:
        further = format_band(value) or (describe_loss(flow) if label == "loss" else "")
        grid.add_row(Text(label, style="dim"), Text(write_cell(value)), Text(further, style="dim"))
    return grid


def _render_attention(flow: GradientFlow, *, everything: bool = False) -> RenderableType:
    """Return how widely attention is spread, in a sentence; with everything, each computation."""
    heading = show(f"{describe_attention(flow)}.")
    if not everything:
        return heading
    rows = []
    for each in flow.attentions:
        name, *cells = write_attention_row(each)
        rows.append([shorten(name, _ATTENTION_CELLS), *cells])
    table = _draw_table(ATTENTION_HEAD, rows, words=1)
    table.columns[0].min_width = max(cell_len(row[0]) for row in rows)
    return Group(heading, table)


def render_diagnosis(diagnosis: Diagnosis, flow: GradientFlow) -> RenderableType:
    """Return the verdict, findings with evidence and reason, the main causes, the next action.

    Args:
        diagnosis: What the measurement means.
        flow: The measurement.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 1)
        >>> Console(quiet=True).print(render_diagnosis(diagnose(flow), flow))
    """
    lines: list[RenderableType] = [
        Text.assemble(
            (
                f"{LOOKS[diagnosis.verdict].icon} {diagnosis.verdict.upper()}",
                _get_style(diagnosis.verdict),
            ),
            f": {describe_verdict(flow, diagnosis)}",
        )
    ]
    if not diagnosis.findings:
        lines.append(show(diagnosis.summary))
    for finding in diagnosis.findings:
        lines.append(_indent(2, show(f"• {finding.evidence}.")))
        lines.append(_indent(4, show(f"{finding.consequence} [{finding.source}]", "dim")))
    lines += _list_blame(diagnosis, flow)
    for note in diagnosis.notes:
        lines.append(_name("Worth knowing: ", f"{note.evidence}."))
        lines.append(_indent(4, show(f"{note.meaning} [{note.source}]", "dim")))
    lines.append(_name("Next: ", diagnosis.action))
    for forecast in build_forecasts(diagnosis):
        lines.append(_name(f"{forecast.look.icon} {forecast.title}", f": {forecast.note}"))
        lines += [_indent(4, show(each, "dim")) for each in forecast.further]
    if diagnosis.trial is not None and diagnosis.trial.tried:
        lines.append(show(describe_trial(diagnosis.trial), "dim"))
    return Group(*lines)


def _list_blame(diagnosis: Diagnosis, flow: GradientFlow) -> list[RenderableType]:
    """Return the modules that are the main causes, with factors; none for a healthy network."""
    blames = rank_attributions(flow, diagnosis)
    words = explain_attributions(diagnosis, blames)
    if not blames:
        return [_name("Main causes: ", words)] if words else []
    rows = [write_blame_row(flow, blame) for blame in blames]
    return [
        Text("Main causes, by factor", style="bold"),
        _indent(2, _draw_table(BLAME_HEAD, rows, words=2)),
        _indent(4, show(words, "dim")),
    ]


def render_remedies(remedies: "Remedies") -> RenderableType:
    """Return every remedy with what was measured, how to apply it, and what was refuted.

    Args:
        remedies: What was found.
    """
    from chainrule.remedies.result import PREPARATION, write_call

    if remedies.diagnosis.verdict is Verdict.HEALTHY:
        return Group(Text("Remedies: none needed."), *_list_advice(remedies))
    if remedies.note and not remedies.tried:
        return Group(Text("Remedies", style="bold"), show(remedies.note), *_list_advice(remedies))
    count = remedies.before.ensemble_size
    networks = f"the same {count} networks" if count > 1 else "the same network"
    lines: list[RenderableType] = [
        _name(
            f"Remedies ({len(remedies)}): ",
            f"each measured on {networks}"
            if len(remedies)
            else f"{len(remedies.tried)} changes were measured, and none helps",
        )
    ]
    if len(remedies):
        lines += [
            Text(_head_metric(remedies), style="dim"),
            _tabulate(remedies, numbered=True),
        ]
        if remedies[0].command:
            lines.append(Text("To measure one:", style="dim"))
        else:
            lines.append(Text("To apply one, with your model and compute_loss:", style="dim"))
            lines += _show_code(PREPARATION, 5)
    for number, remedy in enumerate(remedies, 1):
        if remedy.trial_after is not None:
            lines.append(show(f"{number:>3}  {remedy.outcome}: {remedy.loss_text}"))
    for number in range(len(remedies)):
        lines += _show_code(f"{number + 1:>3}  {write_call(remedies, number)}", 0)
    if remedies.refuted:
        lines += [
            Text("Measured, but does not help:", style="bold"),
            _tabulate(remedies.refuted, numbered=False),
        ]
    if remedies.note:
        lines.append(show(remedies.note))
    return Group(*lines, *_list_advice(remedies))


def _list_advice(remedies: "Remedies") -> Iterator[RenderableType]:
    """Yield advice, which was not measured, with its code."""
    if remedies.advice:
        yield Text("Advice, not measured:", style="bold")
    for advice in remedies.advice:
        yield _indent(2, show(f"• {advice.title}: {advice.reason}"))
        yield from _show_code(advice.code, 6)


def _head_metric(remedies: "Remedies") -> str:
    comparison = remedies.tried[0].comparison
    return f"Worst {comparison.metric}; it must be {comparison.threshold_text}."


def _tabulate(remedies: "Sequence[Remedy]", *, numbered: bool) -> Table:
    rows: list[list[str | Text]] = []
    for number, remedy in enumerate(remedies, 1):
        comparison = remedy.comparison
        verdict = Text(str(remedy.verdict_after), style=_get_style(remedy.verdict_after))
        if "clipping" in remedy.kinds:  # it leaves the gradients that are diagnosed as they are
            verdict.append(" before clipping", style="dim")
        change = f"{comparison.before_text} → {comparison.after_text}"
        loss = f"{format_number(remedy.before.loss)} → {format_number(remedy.after.loss)}"
        rows.append([f"{number:>3}" if numbered else "   ", remedy.title, change, loss, verdict])
    head = ("", "change", "before → after", "loss", "diagnosis then")
    table = _draw_table(head, rows, words=5)
    for at in (0, 2, 3, 4):
        table.columns[at].no_wrap = True
    return table


def render_presets(presets: Sequence[Preset]) -> RenderableType:
    """Return the presets with what to look at, and the command that measures each.

    Args:
        presets: The presets.

    Example:
        >>> from chainrule import PRESETS
        >>> Console(width=60).print(render_presets([PRESETS["Dying ReLU"]]))
        Dying ReLU
          These networks are narrow and deep. In most of them a
          whole layer is off for every input, so the gradient before
          it is exactly zero and cannot recover.
          chainrule simulate --preset dying-relu
    """
    lines: list[RenderableType] = []
    for number, preset in enumerate(presets):
        lines += [
            *([Text()] if number else []),
            Text(preset.name, style="bold"),
            _indent(2, Text(preset.look_at)),
            *_show_code(f"chainrule simulate --preset {preset.slug}", 2),
        ]
    return Group(*lines)


def _show_code(code: str, indent: int) -> Iterator[Text]:
    """Yield lines to copy: they are never broken, however narrow the terminal."""
    for line in code.splitlines():
        text = show(f"{' ' * indent}{line}", "dim" if indent else "")
        text.no_wrap, text.overflow = True, "ignore"
        yield text


def _draw_table(head: Sequence[str], rows: Sequence[Sequence[str | Text]], *, words: int) -> Table:
    """Return a table whose first columns hold words, and the others numbers, which never break."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    cells = [[show(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    for at, heading in enumerate(head):
        if at < words:
            table.add_column(Text(heading), overflow="fold")
        else:
            widest = max(row[at].cell_len for row in cells)
            table.add_column(Text(heading), justify="right", min_width=widest)
    for row in cells:
        table.add_row(*row)
    return table


def _name(label: str, text: str) -> Text:
    """Return a text led by a bold label."""
    return Text.assemble((label, "bold"), show(text))


@dataclass(frozen=True, slots=True)
class _Indented:
    """A text of which every line is indented, without spaces behind it."""

    text: Text
    cells: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self.text.wrap(console, max(1, options.max_width - self.cells)):
            line.rstrip()
            yield Text.assemble(" " * self.cells, line)


def _indent(cells: int, content: Text | Table) -> RenderableType:
    if isinstance(content, Text):
        return _Indented(content, cells)
    return Padding(content, (0, 0, 0, cells), expand=False)


def _get_style(verdict: Verdict) -> str:
    return _STYLES[LOOKS[verdict].state]
