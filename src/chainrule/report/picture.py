"""A measurement as one picture to share: the network, its verdict, its main chart.

With a second measurement it is a picture of before and after: both charts on the same axis. It has
the size that link previews show (1200 × 630) and colours of its own, for light and dark
surroundings alike.
"""

import textwrap
from collections.abc import Sequence

from chainrule._utils.html import Content, Markup, element
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.display.cards import (
    LOOKS,
    describe_measurement,
    describe_subject,
    start_sentence,
)
from chainrule.display.sentences import explain
from chainrule.figures import build_gradient_figure
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.report.charts import Figure, draw_figure

SIZE = (1200, 630)
"""Width and height of the picture, in pixels."""

FONTS = "'DejaVu Sans', system-ui, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"

_MARGIN = 48
_GAP = 76
_FOOT = 596
_WIDTH = 0.58
"""Width of a character, as a share of its size; roughly, and rather too large."""

_STYLE = (
    f"text{{font-family:{FONTS}}} svg svg text{{font-size:13px}} "
    ".tick{fill:#4a535d} .title{fill:#1f2328} svg svg .note{font-size:12.5px} "
    ".grid{stroke:#dfe3e8} .column{fill:none} .dim{fill:#57606a} "
    ".good{fill:#0a7458} .warn{fill:#2f5fb8} .bad{fill:#b93c10}"
)


def draw_picture(
    flow: GradientFlow, *, other: GradientFlow | None = None, address: str = ""
) -> str:
    """Return the picture of a measurement as the text of an SVG file.

    Args:
        flow: The measurement.
        other: A second one, before a change: it is drawn at the left, on the same axis.
        address: Where to see it live; written at the foot, shortened where it is too long.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> draw_picture(flow)[:4]
        '<svg'
    """
    pair = [(flow, _build_figure(flow, other), "")]
    if other is not None:
        pair = [
            (other, _build_figure(other, flow), "Before"),
            (flow, pair[0][1], "After"),
        ]
    width = (SIZE[0] - 2 * _MARGIN - _GAP * (len(pair) - 1)) / len(pair)
    written = [_write_words(each, width, heading) for each, _, heading in pair]
    top = max(end for _, end in written)  # both charts begin where the longer text ends
    body: list[Content] = [
        element(
            "g",
            *words,
            _draw_chart(figure, width, top),
            transform=f"translate({_MARGIN + index * (width + _GAP):g} 0)",
        )
        for index, ((words, _), (_, figure, _)) in enumerate(zip(written, pair, strict=True))
    ]
    name = f"{describe_subject(flow)}: {diagnose(flow).verdict}"
    if other is not None:
        arrow = element(
            "text", "→", x=SIZE[0] / 2, y=90, class_="dim", font_size="34", text_anchor="middle"
        )
        body.append(arrow)
        name = f"before: {describe_subject(other)}: {diagnose(other).verdict}; after: {name}"
    body.append(_draw_foot(address, start_sentence(describe_measurement(flow)).rstrip(".")))
    return _draw_sheet(body, name)


def draw_question(question: str, subject: str, address: str = "") -> str:
    """Return a picture that asks about a network and does not tell.

    Args:
        question: What is asked.
        subject: The network, in one line.
        address: Where the answer is; written at the foot.

    Example:
        >>> "vanishing" in draw_question("What will it do?", "15 layers")
        False
    """
    note = "Guess first; the page shows what was measured"
    return draw_words(question, subject, note=note, address=address)


def draw_words(heading: str, text: str, *, note: str, address: str = "") -> str:
    """Return a picture of words alone, as the text of an SVG file.

    Args:
        heading: The large line or two.
        text: What is written below.
        note: Written at the foot.
        address: Where to see it live; written at the foot.

    Example:
        >>> draw_words("Training runs", "Live.", note="measured")[:4]
        '<svg'
    """
    lines = textwrap.wrap(heading, 34)
    body: list[Content] = [
        *_write(lines, _MARGIN, 220, 52, bold=True),
        *_write(textwrap.wrap(text, 64), _MARGIN, 250 + 70 * len(lines), 28, class_="dim"),
        _draw_foot(address, note),
    ]
    return _draw_sheet(body, f"{heading} {text}")


def draw_card(
    heading: str,
    lines: Sequence[str],
    drawing: Markup,
    size: tuple[float, float],
    *,
    note: str,
    address: str = "",
) -> str:
    """Return a picture of any drawing: what it is, in words, and the drawing as large as fits.

    Args:
        heading: Its first line.
        lines: What is written below, each shortened to one line.
        drawing: The drawing, as SVG elements.
        size: Its width and height in its own units.
        note: Written at the foot.
        address: Where to see it live; written at the foot.

    Example:
        >>> draw_card("A dot", [], element("circle", r=1), (2, 2), note="small")[:4]
        '<svg'
    """
    width = SIZE[0] - 2 * _MARGIN
    written = [line for text in lines for line in _wrap(text, 20, width, 1)]
    top = 100 + 27 * len(written)
    room = _FOOT - 40 - top
    zoom = min(width / size[0], room / size[1])
    left = _MARGIN + (width - zoom * size[0]) / 2
    body: list[Content] = [
        *_write(_wrap(heading, 40, width, 1), _MARGIN, 78, 40, bold=True),
        *_write(written, _MARGIN, 116, 20, class_="dim"),
        element(
            "g",
            drawing,
            transform=f"translate({left:g} {top + (room - zoom * size[1]) / 2:g}) scale({zoom:g})",
        ),
        _draw_foot(address, note),
    ]
    return _draw_sheet(body, heading)


def _draw_sheet(body: Sequence[Content], name: str) -> str:
    width, height = SIZE
    sheet = element(
        "svg",
        element("style", Markup(_STYLE)),
        element("rect", width=width, height=height, fill="#ffffff"),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=name,
    )
    return str(sheet).replace("𝓛", "ℒ")  # few fonts have the first


def _build_figure(flow: GradientFlow, beside: GradientFlow | None) -> Figure | None:
    """Return the main chart; its axis holds the values of a second measurement, too."""
    if not flow.weight_layers:
        return None
    usable = read_usable_range(flow, diagnose(flow).verdict)
    figure = build_gradient_figure(flow, usable=usable)
    if beside is None:
        return figure
    both = build_gradient_figure(flow, other=beside, usable=usable)
    layout = {**both["layout"], "xaxis": figure["layout"]["xaxis"]}  # each its own layers
    return {"data": [each for each in both["data"] if each["name"] != "pinned"], "layout": layout}


def _write_words(flow: GradientFlow, width: float, heading: str) -> tuple[list[Content], float]:
    """Return verdict, subject and what happens, and where they end, in pixels from the top."""
    diagnosis = diagnose(flow)
    look = LOOKS[diagnosis.verdict]
    verdict = f"{look.icon} {str(diagnosis.verdict).capitalize()}"
    top = 50 if heading else 30
    content = [
        *_write([heading], 0, 44, 19, class_="dim"),
        *_write([verdict], 0, top + 44, 42, class_=look.state, bold=True),
    ]
    y = top + 82.0
    for text, kind in ((describe_subject(flow), ""), (explain(flow, diagnosis).what, "dim")):
        lines = _wrap(text, 20, width, 3 if heading else 2)
        content += _write(lines, 0, y, 20, class_=kind)
        y += 27 * len(lines) + 4
    return content, y


def _draw_chart(figure: Figure | None, width: float, top: float) -> Content:
    """Return the chart, enlarged so that its words can be read in a preview."""
    if figure is None:
        return None
    zoom = 1.45 if width > SIZE[0] / 2 else 1.25
    chart = draw_figure(
        figure,
        width=round(width / zoom),
        height=round((_FOOT - 26 - top) / zoom),
        name="gradient magnitude per layer",
    )
    return element("g", chart, transform=f"translate(0 {top - 12:g}) scale({zoom})")


def _draw_foot(address: str, note: str) -> Content:
    width = SIZE[0] - 2 * _MARGIN
    note = f"chainrule · {note}"
    line = element("rect", x=_MARGIN, y=_FOOT - 26, width=width, height=1, fill="#dfe3e8")
    right = element(
        "text",
        note,
        x=_MARGIN + width,
        y=_FOOT,
        font_size="15",
        class_="dim",
        text_anchor="end",
    )
    left = _write(_wrap(address, 15, width - _WIDTH * 15 * len(note) - 20, 2), _MARGIN, _FOOT, 15)
    return [line, right, *left]


def _wrap(text: str, size: float, width: float, most: int) -> list[str]:
    """Return text in lines that fit a width; the last one ends in … where some is left out."""
    return textwrap.wrap(
        text,
        max(8, int(width / (_WIDTH * size))),
        max_lines=most,
        placeholder=" …",
        break_on_hyphens=False,
    )


def _write(
    lines: Sequence[str],
    x: float,
    y: float,
    size: int,
    *,
    class_: str = "",
    bold: bool = False,
) -> list[Content]:
    return [
        element(
            "text",
            line,
            x=x,
            y=float(y + index * round(1.35 * size)),
            font_size=str(size),
            class_=class_ or None,
            font_weight="bold" if bold else None,
        )
        for index, line in enumerate(lines)
        if line
    ]
