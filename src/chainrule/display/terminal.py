"""Flows and diagnoses as text for a terminal."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rules import MEANINGS, Verdict
from chainrule.display.bars import Bars, add_columns, shorten, write_cell, write_share
from chainrule.display.cards import build_forecasts, describe_attention
from chainrule.display.rows import ATTENTION_HEAD, BLAME_HEAD, write_attention_row, write_blame_row
from chainrule.display.terminal_blocks import render_profile, render_tree
from chainrule.flow.blocks import is_profiled
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import format_band
from chainrule.flow.records import WeightLayer, read_saturation
from chainrule.presets import Preset
from chainrule.remedies.result import PREPARATION, Remedies, Remedy, write_call

if TYPE_CHECKING:
    from chainrule.flow.quantity import Quantity

FOLD_BEYOND = 60
"""Tables with more layers than this show only the first and last ones."""

_STYLES = {Verdict.HEALTHY: "bold green", Verdict.NO_GRADIENT: "bold magenta"}
_ICONS = {Verdict.HEALTHY: "✔", Verdict.EXPLODING: "▲", Verdict.VANISHING: "▼"}


def print_flow(
    console: Console, flow: GradientFlow, diagnosis: Diagnosis, *, everything: bool = False
) -> None:
    """Print a flow: its layers with bars, the three headline values, the diagnosis.

    Args:
        console: Where to print.
        flow: The measurement.
        diagnosis: What it means.
        everything: Whether to print every measured module, as a tree, instead of the weight
            layers; of a large model these are shown by block.
    """
    console.print(render_heading(flow))
    console.print()
    if everything:
        table = render_tree(flow, console.width)
    elif is_profiled(flow):
        table = render_profile(flow, console.width)
    else:
        table = render_layers(flow, console.width)
    console.print(table)
    console.print()
    console.print(render_values(flow))
    console.print()
    if flow.attentions:
        console.print(render_attention(flow, everything=everything))
        console.print()
    console.print(render_diagnosis(diagnosis, flow))


def render_heading(flow: GradientFlow) -> RenderableType:
    """Return what was measured, in two lines."""
    if flow.spec is None:
        title = f"{len(flow.layers)} module outputs, {len(flow.parameters)} parameters"
    else:
        spec = flow.spec
        extras = [
            f"{spec.residual} residual" if spec.residual != "none" else "",
            spec.normalization if spec.normalization != "none" else "",
        ]
        title = (
            f"{spec.depth} layers × {spec.width} units, {spec.activation}, {spec.init}"
            + "".join(f", {extra}" for extra in extras if extra)
        )
    count = f"median of {flow.ensemble_size} networks" if flow.ensemble_size > 1 else "one network"
    return Group(
        Text(title, style="bold"),
        Text(f"{count}, {_describe_precision(flow)}, {flow.device}", style="dim"),
    )


def _describe_precision(flow: GradientFlow) -> str:
    dtypes = dict.fromkeys(parameter.dtype for parameter in flow.parameters)
    return "/".join(dtypes) or "no parameters"


def render_layers(flow: GradientFlow, width: int) -> RenderableType:
    """Return one row per weight layer; bars grow from the last layer's gradient on a log scale.

    Args:
        flow: The measurement.
        width: Columns of the terminal; where they do not suffice, the last values are left out.
    """
    layers = flow.weight_layers
    if not layers:
        return Text("No module with weights took part.", style="dim")
    bars = Bars([layer.weight_gradient_norm for layer in layers])
    columns: list[tuple[str, int, Callable[[WeightLayer], RenderableType]]] = [
        ("‖∂𝓛/∂W‖", 8, lambda layer: write_cell(layer.weight_gradient_norm)),
        (bars.heading, bars.width, lambda layer: bars.render(layer.weight_gradient_norm)),
        ("‖δ‖", 8, lambda layer: write_cell(layer.delta_norm)),
        ("saturated", 9, lambda layer: write_share(read_saturation(layer))),
        ("dead", 5, lambda layer: write_share(layer.dead_share)),
        ("std of h", 8, lambda layer: write_cell(layer.std)),
        ("‖∂W‖÷‖W‖", 9, lambda layer: write_cell(layer.grad_to_weight)),
    ]
    if flow.ensemble_size > 1:
        columns.append(
            ("10–90 % of ‖∂𝓛/∂W‖", 18, lambda layer: format_band(layer.weight_gradient_norm))
        )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", justify="right", no_wrap=True)
    left = width - 7
    if flow.spec is None:
        longest = min(28, max(7, *(len(layer.name or "(model)") for layer in layers)))
        table.add_column("module", no_wrap=True, min_width=longest)
        left -= longest + 2
    shown = add_columns(table, columns, left, bars.width)
    for layer in _fold(layers):
        if layer is None:
            table.add_row("⋯", *(["⋯"] if flow.spec is None else []), "⋯", f"{len(layers)} in all")
            continue
        name = [shorten(layer.name or "(model)", 28)] if flow.spec is None else []
        table.add_row(str(layer.layer), *name, *(render(layer) for render in shown))
    if len(shown) < 2:  # no room for bars
        return table
    note = "Bars: ‖∂𝓛/∂W‖ relative to the last layer's, on a log scale."
    return Group(table, Text(note, style="dim"))


def render_values(flow: GradientFlow) -> RenderableType:
    """Return the loss, the gradient at both ends, and their ratio."""
    norms = flow.weight_gradient_norms
    values: list[tuple[str, Quantity | None]] = [("loss", flow.loss)]
    if norms:
        values += [
            ("gradient at layer 1", norms[0]),
            *([(f"gradient at layer {len(norms)}", norms[-1])] if len(norms) > 1 else []),
            *([("ratio, first ÷ last", flow.gradient_ratio)] if len(norms) > 1 else []),
        ]
    if flow.clip_factor is not None:
        values += [
            ("clipping multiplies by", flow.clip_factor),
            ("all gradients together", flow.gradient_norm),
            ("… after clipping", flow.clipped_gradient_norm),
        ]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, value in values:
        grid.add_row(
            Text(label, style="dim"), write_cell(value), Text(format_band(value), style="dim")
        )
    return grid


def render_attention(flow: GradientFlow, *, everything: bool = False) -> RenderableType:
    """Return how widely attention is spread, in a sentence.

    Args:
        flow: The measurement.
        everything: Whether to show a row for each computation of it, too.
    """
    heading = Text(f"{describe_attention(flow)}.")
    if not everything:
        return heading
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    longest = min(40, max(len(each.label) for each in flow.attentions))
    table.add_column(ATTENTION_HEAD[0], no_wrap=True, min_width=longest)
    for name in ATTENTION_HEAD[1:]:
        table.add_column(name, justify="right")
    for each in flow.attentions:
        name, *cells = write_attention_row(each)
        table.add_row(shorten(name, longest), *cells)
    return Group(heading, table)


def render_diagnosis(diagnosis: Diagnosis, flow: GradientFlow) -> RenderableType:
    """Return the verdict, findings with evidence and reason, who is to blame, the next action."""
    style = _STYLES.get(diagnosis.verdict, "bold red")
    icon = _ICONS.get(diagnosis.verdict, "✖")
    heading = Text.assemble(
        (f"{icon} {diagnosis.verdict.upper()}", style), f": {MEANINGS[diagnosis.verdict]}"
    )
    lines: list[RenderableType] = [heading]
    if not diagnosis.findings:
        lines.append(Text(diagnosis.summary))
    for finding in diagnosis.findings:
        lines.append(Padding(Text(f"• {finding.evidence}."), (0, 0, 0, 2)))
        lines.append(
            Padding(Text(f"{finding.consequence} [{finding.source}]", style="dim"), (0, 0, 0, 4))
        )
    lines += _list_blame(diagnosis, flow)
    for note in diagnosis.notes:
        lines.append(Text.assemble(("Worth knowing: ", "bold"), f"{note.evidence}."))
        lines.append(Padding(Text(f"{note.meaning} [{note.source}]", style="dim"), (0, 0, 0, 4)))
    lines.append(Text.assemble(("Next: ", "bold"), diagnosis.action))
    for forecast in build_forecasts(diagnosis):
        lines.append(
            Text.assemble((f"{forecast.look.icon} {forecast.title}", "bold"), f": {forecast.note}")
        )
        lines += [Padding(Text(each, style="dim"), (0, 0, 0, 4)) for each in forecast.further]
    return Group(*lines)


def _list_blame(diagnosis: Diagnosis, flow: GradientFlow) -> list[RenderableType]:
    """Return the modules most to blame, with their factors; nothing for a healthy network."""
    blames = rank_attributions(flow, diagnosis)
    words = explain_attributions(diagnosis, blames)
    if not blames:
        return [Text.assemble(("Most to blame: ", "bold"), words)] if words else []
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(BLAME_HEAD[0], overflow="fold")
    table.add_column(BLAME_HEAD[1], overflow="fold")
    for heading in BLAME_HEAD[2:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for blame in blames:
        table.add_row(*write_blame_row(flow, blame))
    return [
        Text("Most to blame, by factor", style="bold"),
        Padding(table, (0, 0, 0, 2)),
        Padding(Text(words, style="dim"), (0, 0, 0, 4)),
    ]


def render_remedies(remedies: Remedies) -> RenderableType:
    """Return every remedy with what was measured, how to apply it, and what was refuted."""
    if remedies.diagnosis.verdict is Verdict.HEALTHY:
        return Group(Text("Remedies: none needed."), *_list_advice(remedies))
    if remedies.note and not remedies.tried:
        return Group(Text("Remedies", style="bold"), Text(remedies.note), *_list_advice(remedies))
    count = remedies.before.ensemble_size
    networks = f"the same {count} networks" if count > 1 else "the same network"
    lines: list[RenderableType] = [
        Text.assemble(
            (f"Remedies ({len(remedies)}): ", "bold"),
            f"each measured on {networks}"
            if len(remedies)
            else f"none of {len(remedies.tried)} changes that were measured helps",
        )
    ]
    if len(remedies):
        lines += [
            Text(_head_metric(remedies), style="dim"),
            _tabulate(remedies, numbered=True),
        ]
        if remedies[0].command:
            lines.append(Text("To see one:", style="dim"))
        else:
            lines.append(Text("To apply one, with your model and compute_loss:", style="dim"))
            lines += [Text(f"     {line}") for line in PREPARATION.splitlines()]
    for number in range(len(remedies)):
        lines.append(Text(f"{number + 1:>3}  {write_call(remedies, number)}"))
    if remedies.refuted:
        lines += [
            Text("Measured, and no remedy:", style="bold"),
            _tabulate(remedies.refuted, numbered=False),
        ]
    if remedies.note:
        lines.append(Text(remedies.note))
    return Group(*lines, *_list_advice(remedies))


def _list_advice(remedies: Remedies) -> list[RenderableType]:
    """Return advice, which was not measured, with its code."""
    if not remedies.advice:
        return []
    lines: list[RenderableType] = [Text("Advice, not measured:", style="bold")]
    for advice in remedies.advice:
        lines.append(Padding(Text(f"• {advice.title}: {advice.reason}"), (0, 0, 0, 2)))
        lines.append(Padding(Text(advice.code, style="dim"), (0, 0, 0, 6)))
    return lines


def _head_metric(remedies: Remedies) -> str:
    comparison = remedies.tried[0].comparison
    return f"Worst {comparison.metric}; it must be {comparison.threshold_text}."


def _tabulate(remedies: Sequence[Remedy], *, numbered: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True, min_width=3)
    table.add_column("change", overflow="fold")
    table.add_column("before → after", no_wrap=True)
    table.add_column("then", no_wrap=True)
    for number, remedy in enumerate(remedies, 1):
        comparison = remedy.comparison
        verdict = Text(str(remedy.verdict_after), style=_STYLES.get(remedy.verdict_after, "red"))
        if "clipping" in remedy.kinds:  # it leaves the gradients that are diagnosed as they are
            verdict.append(" before clipping", style="dim")
        table.add_row(
            str(number) if numbered else "",
            remedy.title,
            f"{comparison.before_text} → {comparison.after_text}",
            verdict,
        )
    return table


def render_presets(presets: Sequence[Preset]) -> RenderableType:
    """Return the presets with what to look at."""
    lines: list[RenderableType] = []
    for preset in presets:
        lines.append(Text(preset.name, style="bold"))
        lines.append(Padding(Text(preset.look_at), (0, 0, 0, 2)))
        lines.append(
            Padding(Text(f'chainrule simulate --preset "{preset.name}"', style="dim"), (0, 0, 1, 2))
        )
    return Group(*lines)


def _fold(layers: Sequence[WeightLayer]) -> list[WeightLayer | None]:
    if len(layers) <= FOLD_BEYOND:
        return list(layers)
    half = FOLD_BEYOND // 3
    return [*layers[:half], None, *layers[-half:]]
