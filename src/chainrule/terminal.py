"""Flows and diagnoses as text for a terminal."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chainrule.diagnoses import MEANINGS, Verdict
from chainrule.diagnosis import Diagnosis, read_saturation
from chainrule.edits import describe_edits
from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow, WeightLayer
from chainrule.numerals import format_number, to_superscript
from chainrule.presets import Preset
from chainrule.quantity import Quantity
from chainrule.remedy import Remedies, Remedy
from chainrule.rows import ATTENTION_HEAD, write_attention_row
from chainrule.wording import build_forecasts, describe_attention

BAR_CELLS = 24
"""Cells of a bar's scale."""

APPLY = "To apply one, after remedies = chainrule.find_remedies(model, compute_loss):"
"""How a remedy for a model of somebody's own is used."""

_Row = TypeVar("_Row")

FOLD_BEYOND = 60
"""Tables with more layers than this show only the first and last ones."""

ALIKE = 0.02
"""Computations of attention whose relative entropies differ by less are told in one sentence."""

_STYLES = {Verdict.HEALTHY: "bold green", Verdict.NO_GRADIENT: "bold magenta"}
_ICONS = {Verdict.HEALTHY: "✔", Verdict.EXPLODING: "▲", Verdict.VANISHING: "▼"}


def print_flow(
    console: Console, flow: GradientFlow, diagnosis: Diagnosis, *, everything: bool = False
) -> None:
    """Print a flow: its layers with bars, the three headline figures, the diagnosis.

    Args:
        console: Where to print.
        flow: The measurement.
        diagnosis: What it means.
        everything: Whether to print every measured module instead of the weight layers, and long
            tables whole.
    """
    console.print(render_heading(flow))
    console.print()
    table = (
        render_modules(flow, console.width) if everything else render_layers(flow, console.width)
    )
    console.print(table)
    console.print()
    console.print(render_figures(flow))
    console.print()
    if flow.attentions:
        console.print(render_attention(flow, everything=everything))
        console.print()
    console.print(render_diagnosis(diagnosis))


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
        width: Columns of the terminal; where they do not suffice, the last figures are left out.
    """
    layers = flow.weight_layers
    if not layers:
        return Text("No module with weights took part.", style="dim")
    bars = _Bars([layer.weight_gradient_norm for layer in layers])
    columns: list[tuple[str, int, Callable[[WeightLayer], RenderableType]]] = [
        ("‖∂𝓛/∂W‖", 8, lambda layer: _number(layer.weight_gradient_norm)),
        (bars.heading, bars.width, lambda layer: bars.render(layer.weight_gradient_norm)),
        ("‖δ‖", 8, lambda layer: _number(layer.delta_norm)),
        ("saturated", 9, lambda layer: _share(read_saturation(layer))),
        ("dead", 5, lambda layer: _share(layer.dead_share)),
        ("std of h", 8, lambda layer: _number(layer.std)),
        ("‖∂W‖÷‖W‖", 9, lambda layer: _number(layer.grad_to_weight)),
    ]
    if flow.ensemble_size > 1:
        columns.append(("10–90 % of ‖∂𝓛/∂W‖", 18, lambda layer: _band(layer.weight_gradient_norm)))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("layer", justify="right", no_wrap=True)
    left = width - 7
    if flow.spec is None:
        longest = min(28, max(7, *(len(layer.name or "(model)") for layer in layers)))
        table.add_column("module", no_wrap=True, min_width=longest)
        left -= longest + 2
    shown = _add_columns(table, columns, left, bars.width)
    for layer in _fold(layers):
        if layer is None:
            table.add_row("⋯", *(["⋯"] if flow.spec is None else []), "⋯", f"{len(layers)} in all")
            continue
        name = [_shorten(layer.name or "(model)", 28)] if flow.spec is None else []
        table.add_row(str(layer.layer), *name, *(render(layer) for render in shown))
    if len(shown) < 2:  # no room for bars
        return table
    note = "Bars: ‖∂𝓛/∂W‖ relative to the last layer's, on a log scale."
    return Group(table, Text(note, style="dim"))


def render_modules(flow: GradientFlow, width: int) -> RenderableType:
    """Return one row per measured module output, in forward order.

    Args:
        flow: The measurement.
        width: Columns of the terminal; where they do not suffice, the last figures are left out.
    """
    bars = _Bars([call.gradient.norm if call.gradient else None for call in flow.layers])
    columns: list[tuple[str, int, Callable[[LayerFlow], RenderableType]]] = [
        ("‖∂𝓛/∂output‖", 12, lambda call: _number(_read_gradient(call))),
        (bars.heading, bars.width, lambda call: bars.render(_read_gradient(call))),
        ("gain", 8, lambda call: _number(call.gain)),
        ("std", 8, lambda call: _number(_read(call, "std"))),
        ("mean", 9, lambda call: _number(_read(call, "mean"))),
        ("zeros", 5, lambda call: _share(_read(call, "zero_share"))),
        ("shape", 12, lambda call: "×".join(map(str, call.shape)) or "scalar"),
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    name_width = min(30, max((6, *(len(call.label) for call in flow.layers))))
    kind_width = min(18, max((4, *(len(call.kind) for call in flow.layers))))
    table.add_column("module", no_wrap=True, min_width=name_width)
    table.add_column("kind", no_wrap=True, min_width=kind_width)
    shown = _add_columns(table, columns, width - name_width - kind_width - 4, bars.width)
    for call in flow.layers:
        name, kind = _shorten(call.label, name_width), _shorten(call.kind, kind_width)
        table.add_row(name, kind, *(render(call) for render in shown))
    return table


def _read_gradient(call: LayerFlow) -> Quantity | None:
    return call.gradient.norm if call.gradient else None


def _read(call: LayerFlow, figure: str) -> Quantity | None:
    return getattr(call.statistics, figure) if call.statistics else None


def _add_columns(
    table: Table,
    columns: Sequence[tuple[str, int, Callable[[_Row], RenderableType]]],
    left: int,
    bar_width: int,
) -> list[Callable[[_Row], RenderableType]]:
    """Add those columns (heading, width, content) that fit, and return their contents."""
    shown = []
    for heading, size, render in columns:
        if size <= left:
            justify: JustifyMethod = "left" if size == bar_width else "right"
            table.add_column(heading, justify=justify, no_wrap=True, min_width=size)
            shown.append(render)
            left -= size + 2
    return shown


def render_figures(flow: GradientFlow) -> RenderableType:
    """Return the loss, the gradient at both ends, and their ratio."""
    norms = flow.weight_gradient_norms
    figures: list[tuple[str, Quantity | None]] = [("loss", flow.loss)]
    if norms:
        figures += [
            ("gradient at layer 1", norms[0]),
            *([(f"gradient at layer {len(norms)}", norms[-1])] if len(norms) > 1 else []),
            *([("ratio, first ÷ last", flow.gradient_ratio)] if len(norms) > 1 else []),
        ]
    if flow.clip_factor is not None:
        figures += [
            ("clipping multiplies by", flow.clip_factor),
            ("all gradients together", flow.gradient_norm),
            ("… after clipping", flow.clipped_gradient_norm),
        ]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for label, value in figures:
        grid.add_row(Text(label, style="dim"), _number(value), Text(_band(value), style="dim"))
    return grid


def render_attention(flow: GradientFlow, *, everything: bool = False) -> RenderableType:
    """Return how widely attention is spread: a sentence where all computations of it are alike.

    Args:
        flow: The measurement.
        everything: Whether to show every row, however alike or many they are.
    """
    heading = Text(f"{describe_attention(flow)}.")
    entropies = [each.entropy for each in flow.attentions]
    if not everything and max(entropies) - min(entropies) < ALIKE:
        return heading
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    longest = min(40, max(len(each.label) for each in flow.attentions))
    table.add_column(ATTENTION_HEAD[0], no_wrap=True, min_width=longest)
    for name in ATTENTION_HEAD[1:]:
        table.add_column(name, justify="right")
    for each in flow.attentions if everything else _fold(flow.attentions):
        name, *cells = write_attention_row(each) if each else ("⋯",) * len(ATTENTION_HEAD)
        table.add_row(_shorten(name, longest), *cells)
    return Group(heading, table)


def render_diagnosis(diagnosis: Diagnosis) -> RenderableType:
    """Return the verdict, every finding with its evidence and reason, and the next action."""
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
            Padding(Text(f"{finding.reason} [{finding.source}]", style="dim"), (0, 0, 0, 4))
        )
    for note in diagnosis.notes:
        lines.append(Text.assemble(("Worth knowing: ", "bold"), f"{note.evidence}."))
        lines.append(Padding(Text(f"{note.meaning} [{note.source}]", style="dim"), (0, 0, 0, 4)))
    lines.append(Text.assemble(("Next: ", "bold"), diagnosis.action))
    lines += [
        Text.assemble((f"{forecast.look.icon} {forecast.title}", "bold"), f": {forecast.note}")
        for forecast in build_forecasts(diagnosis)
    ]
    return Group(*lines)


def render_remedies(remedies: Remedies) -> RenderableType:
    """Return every remedy with what was measured, how to apply it, and what was refuted."""
    if remedies.diagnosis.verdict is Verdict.HEALTHY:
        return Group(Text("Remedies: none needed."), *_list_advice(remedies))
    if remedies.note:
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
            Text(_head_figure(remedies), style="dim"),
            _tabulate(remedies, numbered=True),
        ]
        lines.append(Text("To see one:" if remedies[0].command else APPLY, style="dim"))
    for number, remedy in enumerate(remedies, 1):
        lines.append(Text(f"{number:>3}  {remedy.command or _write_call(number, remedy)}"))
    if remedies.refuted:
        lines += [
            Text("Measured, and no remedy:", style="bold"),
            _tabulate(remedies.refuted, numbered=False),
        ]
    return Group(*lines, *_list_advice(remedies))


def _write_call(number: int, remedy: Remedy) -> str:
    return (
        f"chainrule.apply_remedy(remedies[{number - 1}], model)  # {describe_edits(remedy.edits)}"
    )


def _list_advice(remedies: Remedies) -> list[RenderableType]:
    """Return advice, which was not measured, with its code."""
    if not remedies.advice:
        return []
    lines: list[RenderableType] = [Text("Advice, not measured:", style="bold")]
    for advice in remedies.advice:
        lines.append(Padding(Text(f"• {advice.title}: {advice.reason}"), (0, 0, 0, 2)))
        lines.append(Padding(Text(advice.code, style="dim"), (0, 0, 0, 6)))
    return lines


def _head_figure(remedies: Remedies) -> str:
    figure = remedies.tried[0].figure
    return f"Worst {figure.figure}; it must be {figure.threshold_text}."


def _tabulate(remedies: Sequence[Remedy], *, numbered: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", justify="right", no_wrap=True, min_width=3)
    table.add_column("change", overflow="fold")
    table.add_column("before → after", no_wrap=True)
    table.add_column("then", no_wrap=True)
    for number, remedy in enumerate(remedies, 1):
        figure = remedy.figure
        verdict = Text(str(remedy.verdict_after), style=_STYLES.get(remedy.verdict_after, "red"))
        if "clipping" in remedy.kinds:  # it leaves the gradients that are diagnosed as they are
            verdict.append(" before clipping", style="dim")
        table.add_row(
            str(number) if numbered else "",
            remedy.title,
            f"{figure.before_text} → {figure.after_text}",
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


class _Bars:
    """Bars on a log scale that grow from the last layer's figure: left is smaller, right larger."""

    def __init__(self, figures: Sequence[Quantity | None]) -> None:
        logs = [math.log10(f) for f in figures if f is not None and 0 < f < math.inf]
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

    def render(self, figure: Quantity | None) -> Text:
        """Return the bar of one figure; what has no place on a log scale is told in words."""
        if figure is None:
            return Text("no gradient".center(self.width), style="magenta")
        if figure <= 0:
            return Text("zero".center(self.width), style="red")
        if not math.isfinite(figure):
            return Text("not finite".center(self.width), style="red")
        decades = math.log10(figure) - self.reference
        bar = "█" * round(abs(decades) * self.cells_per_decade)
        left, right = (bar, "") if decades < 0 else ("", bar)
        return Text.assemble(
            (left.rjust(self.left), "blue"), ("│", "dim"), (right.ljust(self.right), "yellow")
        )


def _fold(layers: Sequence[_Row]) -> list[_Row | None]:
    if len(layers) <= FOLD_BEYOND:
        return list(layers)
    half = FOLD_BEYOND // 3
    return [*layers[:half], None, *layers[-half:]]


def _number(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _share(value: float | None) -> str:
    known = value is not None and math.isfinite(value)
    return f"{value:.0%}".replace("%", " %") if known else "–"


def _band(value: Quantity | None) -> str:
    if value is None or len(value.values) == 1:
        return ""
    return f"{format_number(value.low)} – {format_number(value.high)}"
