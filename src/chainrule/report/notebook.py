"""A flow as a notebook shows it: its table and its chart, without a script."""

import io
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from rich.console import Console

from chainrule._utils.html import Content, Markup, element
from chainrule.diagnosis.attribution import rank_attributions
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.display.cards import LOOKS, describe_measurement, describe_subject, start_sentence
from chainrule.display.tables import (
    BLAME_HEAD,
    list_layer_head,
    write_blame_row,
    write_layer_row,
)
from chainrule.display.terminal import print_flow
from chainrule.figures import build_gradient_figure
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.report.charts import draw_figure

COLUMNS = 100
"""Width of the text that is shown where HTML is not."""

SIZE = (860, 320)
"""Width and height of the chart, in pixels."""

OPEN = 30
"""Tables with more layers than this are folded."""

_STYLE = """
.chainrule-flow { font: 14px/1.5 system-ui, sans-serif; color: inherit; max-width: 900px; }
.chainrule-flow p { margin: 4px 0; }
.chainrule-flow .dim { opacity: 0.75; font-size: 13px; }
.chainrule-flow svg { display: block; max-width: 100%; height: auto; font: 13px system-ui; }
.chainrule-flow svg svg { display: inline; max-width: none; }
.chainrule-flow svg text { fill: currentColor; opacity: 0.8; }
.chainrule-flow svg .grid { stroke: currentColor; stroke-opacity: 0.18; }
.chainrule-flow svg .column { fill: transparent; }
.chainrule-flow .scroll { overflow-x: auto; }
.chainrule-flow table { border-collapse: collapse; font-size: 13px; margin: 4px 0; }
.chainrule-flow :is(th, td) { padding: 3px 10px; text-align: right; }
.chainrule-flow :is(th, td).words { text-align: left; }
.chainrule-flow summary { cursor: pointer; }
"""


def show_text(flow: GradientFlow) -> str:
    """Return a flow as the terminal shows it: its table, main values and diagnosis."""
    buffer = io.StringIO()
    console = Console(  # in a notebook, rich would send it to the page instead
        file=buffer, width=COLUMNS, color_system=None, force_terminal=False, force_jupyter=False
    )
    print_flow(console, flow, diagnose(flow))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def show_html(flow: GradientFlow) -> str:
    """Return a flow as a piece of HTML: verdict, chart, the main causes, and its table.

    It needs no script and nothing from a network, and takes its colours from the page around it.
    """
    diagnosis = diagnose(flow)
    look = LOOKS[diagnosis.verdict]
    subject = (
        f"{start_sentence(describe_subject(flow))} {start_sentence(describe_measurement(flow))}"
    )
    parts: list[Content] = [
        element("style", Markup(_STYLE)),
        element(
            "p", element("b", f"{look.icon} {start_sentence(diagnosis.verdict)}"), " ", subject
        ),
        element("p", diagnosis.summary, class_="dim"),
    ]
    layers = flow.weight_layers
    if layers:
        name = "weight gradient ‖∂𝓛/∂W‖ per layer"
        width, height = SIZE
        parts.append(
            draw_figure(
                build_gradient_figure(flow, usable=read_usable_range(flow, diagnosis.verdict)),
                width=width,
                height=height,
                name=name,
            )
        )
    blames = rank_attributions(flow, diagnosis)
    if blames:
        rows = [write_blame_row(flow, blame) for blame in blames]
        parts += [
            element("p", element("b", "Main causes, by factor")),
            _table(BLAME_HEAD, rows, words=(0, 1)),
        ]
    parts.append(element("p", element("b", "Next: "), diagnosis.action))
    if layers:
        rows = [write_layer_row(flow, layer) for layer in layers]
        summary = element("summary", f"Weight layers ({len(rows):,})")
        table = _table(list_layer_head(flow), rows, words=(1,) if flow.spec is None else ())
        opened = "" if len(rows) <= OPEN else None
        parts.append(element("details", summary, table, open=opened))
    return element("div", *parts, class_="chainrule-flow")


def _table(
    head: Collection[str], rows: Collection[Collection[str]], *, words: Collection[int]
) -> Markup:
    def fill(tag: str, cells: Collection[str]) -> list[Markup]:
        return [
            element(tag, cell, class_="words" if at in words else None)
            for at, cell in enumerate(cells)
        ]

    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", fill("th", head))),
            element("tbody", [element("tr", fill("td", row)) for row in rows]),
        ),
        class_="scroll",
    )


SHOWN: Mapping[str, Callable[[GradientFlow], str]] = MappingProxyType(
    {"text/plain": show_text, "text/html": show_html}
)
"""What a notebook can choose from, by media type."""


def build_bundle(
    flow: GradientFlow,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = None,
) -> dict[str, str]:
    """Return a flow in the forms that a notebook can show.

    Args:
        flow: The measurement.
        include: Media types that are wanted; all by default.
        exclude: Media types that are not.
    """
    return {
        kind: show(flow)
        for kind, show in SHOWN.items()
        if (include is None or kind in include) and kind not in (exclude or ())
    }
