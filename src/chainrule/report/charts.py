"""Figures as static SVG: the charts of the explorer, without a script that draws them.

Only what `chainrule.figures` uses is drawn: lines, markers, filled bands, bars and heatmaps on
linear and log axes. A figure that uses anything else is an error, never a chart with a gap.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule._utils.html import Content, Markup, element
from chainrule.report.raster import draw_cells
from chainrule.report.scales import Scale, choose_range, list_ticks

Figure = Mapping[str, Any]

CHARACTER = 7.2
"""Width of a character of 13 pixels, roughly."""

_BESIDE = 56
"""Width of the margin to the right where words stand in it, in pixels; else it is narrow."""

_DASHES = {"dot": "2 4", "dash": "8 5", "12px,6px": "12 6"}
_PLACEHOLDER = re.compile(r"%\{(\w+)(?::([^}]*))?\}")


def draw_figure(figure: Figure, *, width: int, height: int, name: str) -> Markup:
    """Return a Plotly figure as an SVG element; axes, grid and text are coloured by classes.

    Each column of the chart carries its values in `data-tip`, one line each.

    Args:
        figure: A dictionary with "data" and "layout".
        width: Width in pixels.
        height: Height in pixels.
        name: What it shows, for those who do not see it.

    Raises:
        ValueError: If the figure uses something that is not drawn here.
    """
    traces, layout = figure["data"], figure["layout"]
    for trace in traces:
        if trace["type"] not in ("scatter", "bar", "heatmap"):
            raise ValueError(f"charts draw scatter, bar and heatmap; got {trace['type']!r}")
    legend = _draw_legend(traces, width) if layout.get("showlegend") else ([], 0)
    above = layout.get("margin", {}).get("t", 12) + 2
    beside = any(
        note["x"] > 1 for note in layout.get("annotations", []) if note.get("xref") == "paper"
    )
    top, bottom, right = above + legend[1], height - 46, width - (_BESIDE if beside else 14)
    vertical = {
        key: _build_vertical(key, layout[f"yaxis{key[1:]}"], traces, top, bottom)
        for key in sorted({trace.get("yaxis", "y") for trace in traces} | {"y"})
    }
    ticks = {
        key: list_ticks(layout[f"yaxis{key[1:]}"], scale.low, scale.high)
        for key, scale in vertical.items()
    }
    longest = max((len(label) for each in ticks.values() for _, label in each), default=1)
    left = 30 + CHARACTER * longest
    across = layout["xaxis"]
    low, high = choose_range(across, (x for trace in traces for x in trace["x"]))
    scale = Scale(low, high, across.get("type") == "log", left, right)
    content: list[Content] = [*legend[0]]
    for key, each in vertical.items():
        content += _draw_vertical(each, layout[f"yaxis{key[1:]}"], ticks[key], left, right)
    content += _draw_horizontal(scale, across, bottom, height)
    content += [_draw_shape(shape, scale, vertical["y"], left, right) for shape in _shapes(layout)]
    marks: list[Content] = []
    for trace in sorted(traces, key=lambda each: each.get("zorder", 0)):
        own = vertical[trace.get("yaxis", "y")]
        content.append(_clip(_draw_trace(trace, scale, own), left, right, own))
        marks += _draw_markers(trace, scale, own)
    content += marks
    content += [
        _draw_annotation(note, scale, vertical["y"], (left, right, top, bottom))
        for note in layout.get("annotations", [])
    ]
    content += _draw_columns(traces, scale, top, bottom)
    return element(
        "svg",
        *content,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=name,
    )


def _shapes(layout: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    shapes = layout.get("shapes", [])
    if any(shape["type"] not in ("line", "rect") for shape in shapes):
        raise ValueError("charts draw shapes that are lines and rectangles only")
    return shapes


def _build_vertical(
    key: str, axis: Mapping[str, Any], traces: Sequence[Figure], top: float, bottom: float
) -> Scale:
    own = [trace for trace in traces if trace.get("yaxis", "y") == key]
    low, high = choose_range(axis, (y for trace in own for y in trace["y"]))
    first, last = axis.get("domain", (0.0, 1.0))
    length = bottom - top
    log = axis.get("type") == "log"
    return Scale(low, high, log, bottom - first * length, bottom - last * length)


def _draw_vertical(
    scale: Scale,
    axis: Mapping[str, Any],
    ticks: Sequence[tuple[float, str]],
    left: float,
    right: float,
) -> list[Content]:
    content: list[Content] = []
    for value, label in ticks:
        y = scale.place_inner(value)
        if axis.get("showgrid", True):
            content.append(element("line", class_="grid", x1=left, x2=right, y1=_r(y), y2=_r(y)))
        content.append(
            element("text", label, class_="tick", x=_r(left - 8), y=_r(y + 4), text_anchor="end")
        )
    middle = (scale.start + scale.end) / 2
    title = axis.get("title", {}).get("text", "")
    content.append(
        element(
            "text",
            title,
            class_="title",
            text_anchor="middle",
            transform=f"translate(14 {_r(middle)}) rotate(-90)",
        )
    )
    return content


def _draw_horizontal(
    scale: Scale, axis: Mapping[str, Any], bottom: float, height: float
) -> list[Content]:
    ticks = list_ticks(axis, scale.low, scale.high)
    labels = [
        element("text", label, class_="tick", x=_r(x), y=_r(bottom + 20), text_anchor="middle")
        for value, label in ticks
        for x in [scale.place_inner(value)]
    ]
    middle = (scale.start + scale.end) / 2
    title = element(
        "text",
        axis.get("title", {}).get("text", ""),
        class_="title",
        x=_r(middle),
        y=_r(height - 8),
        text_anchor="middle",
    )
    line = element("line", class_="grid", x1=scale.start, x2=scale.end, y1=bottom, y2=bottom)
    return [line, *labels, title]


def _clip(content: list[Content], left: float, right: float, scale: Scale) -> Content:
    """Return content cut off at the edges of the plot, without the need for an id."""
    top = scale.end - 2
    box = (left, top, right - left, scale.start - top + 2)
    x, y, width, height = map(_r, box)
    return element(
        "svg",
        *content,
        x=x,
        y=y,
        width=width,
        height=height,
        viewBox=f"{x} {y} {width} {height}",
        overflow="hidden",
    )


def _draw_trace(trace: Figure, across: Scale, up: Scale) -> list[Content]:
    if trace["type"] == "heatmap":
        return [_draw_heatmap(trace, across, up)]
    if trace["type"] == "bar":
        return _draw_bars(trace, across, up)
    if "lines" not in trace["mode"]:
        return []
    line = trace.get("line", {})
    pieces = _split(trace, across, up)
    path = " ".join(
        f"M{'L'.join(f'{_r(x)} {_r(y)}' for x, y in piece)}" for piece in pieces if piece
    )
    if not path:
        return []
    if trace.get("fill") == "toself":
        return [element("path", d=f"{path}Z", fill=trace["fillcolor"])]
    return [
        element(
            "path",
            d=path,
            fill="none",
            stroke=line["color"],
            stroke_width=line.get("width", 2),
            stroke_dasharray=_DASHES.get(line.get("dash", "")),
            stroke_linejoin="round",
        )
    ]


def _split(trace: Figure, across: Scale, up: Scale) -> list[list[tuple[float, float]]]:
    """Return the places of a line's points, in pieces between its gaps."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(trace["x"], trace["y"], strict=True):
        place = across.place(x), up.place(y)
        if place[0] is None or place[1] is None:
            pieces.append([])
        else:
            pieces[-1].append((place[0], place[1]))
    return pieces


def _draw_heatmap(trace: Figure, across: Scale, up: Scale) -> Content:
    xs, ys = trace["x"], trace["y"]
    if not xs or not ys:
        return None
    step = ys[1] - ys[0] if len(ys) > 1 else 1.0
    left, right = across.place_inner(xs[0] - 0.5), across.place_inner(xs[-1] + 0.5)
    bottom, top = up.place_inner(ys[0] - step / 2), up.place_inner(ys[-1] + step / 2)
    return element(
        "image",
        class_="cells",
        href=draw_cells(trace["z"], trace["colorscale"]),
        x=_r(left),
        y=_r(top),
        width=_r(right - left),
        height=_r(bottom - top),
        preserveAspectRatio="none",
    )


def _draw_bars(trace: Figure, across: Scale, up: Scale) -> list[Content]:
    bars: list[Content] = []
    for x, y in zip(trace["x"], trace["y"], strict=True):
        left, right = (across.place(x + side * trace["width"] / 2) for side in (-1, 1))
        top = up.place(y)
        if left is not None and right is not None and top is not None:
            bars.append(
                element(
                    "rect",
                    x=_r(left),
                    y=_r(top),
                    width=_r(right - left),
                    height=_r(up.start - top),
                    fill=trace["marker"]["color"],
                    fill_opacity=str(trace["marker"].get("opacity", 1)),
                )
            )
    return bars


def _draw_markers(trace: Figure, across: Scale, up: Scale) -> list[Content]:
    if trace["type"] != "scatter" or "markers" not in trace["mode"]:
        return []
    marker, marks = trace["marker"], []
    for index, (x, y) in enumerate(zip(trace["x"], trace["y"], strict=True)):
        place = across.place(x), up.place(y)
        if place[0] is not None and place[1] is not None:
            marks.append(_draw_marker(_pick(marker, index), place[0], place[1]))
    return marks


def _pick(marker: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return how one point is marked: entries may be lists, with one value per point."""
    return {name: v[index] if isinstance(v, list) else v for name, v in marker.items()}


def _draw_marker(marker: Mapping[str, Any], x: float, y: float) -> Content:
    half, color = marker.get("size", 6) / 2, marker["color"]
    symbol = marker.get("symbol", "circle")
    if symbol == "circle":
        return element("circle", cx=_r(x), cy=_r(y), r=_r(half), fill=color)
    shapes = {
        "square": f"M{_r(x - half)} {_r(y - half)}h{2 * half}v{2 * half}h{-2 * half}Z",
        "triangle-down": f"M{_r(x - half)} {_r(y - half)}h{2 * half}l{-half} {2 * half}Z",
        "triangle-up": f"M{_r(x - half)} {_r(y + half)}h{2 * half}l{-half} {-2 * half}Z",
        "diamond": f"M{_r(x)} {_r(y - half)}l{half} {half}l{-half} {half}l{-half} {-half}Z",
    }
    if symbol in shapes:
        return element("path", d=shapes[symbol], fill=color)
    if symbol.removesuffix("-open") in shapes:
        shape = shapes[symbol.removesuffix("-open")]
        return element("path", d=shape, fill="none", stroke=color, stroke_width=1.5)
    if symbol == "x":
        cross = (
            f"M{_r(x - half)} {_r(y - half)}l{2 * half} {2 * half}m0 {-2 * half}l{-2 * half} "
            f"{2 * half}"
        )
        return element("path", d=cross, fill="none", stroke=color, stroke_width=2.5)
    raise ValueError(
        f"charts draw circles, squares, diamonds, triangles and crosses; got {symbol!r}"
    )


def _draw_shape(
    shape: Mapping[str, Any], across: Scale, up: Scale, left: float, right: float
) -> Content:
    if shape["type"] == "line":
        return _draw_line(shape, across, up, left, right)
    bottom, top = up.place(shape["y0"]), up.place(shape["y1"])
    if bottom is None or top is None:
        return None
    return element(
        "rect",
        x=_r(left),
        y=_r(top),
        width=_r(right - left),
        height=_r(bottom - top),
        fill=shape["fillcolor"],
    )


def _draw_line(
    shape: Mapping[str, Any], across: Scale, up: Scale, left: float, right: float
) -> Content:
    paper = shape.get("xref") == "paper"
    x1, x2 = (left, right) if paper else (across.place(shape["x0"]), across.place(shape["x1"]))
    y1, y2 = up.place(shape["y0"]), up.place(shape["y1"])
    if None in (x1, x2, y1, y2) or not up.end - 1 <= float(y1 or 0) <= up.start + 1:
        return None
    line = shape["line"]
    return element(
        "line",
        x1=_r(x1),
        x2=_r(x2),
        y1=_r(y1),
        y2=_r(y2),
        stroke=line["color"],
        stroke_width=line.get("width", 1),
        stroke_dasharray=_DASHES.get(line.get("dash", "")),
    )


def _draw_annotation(
    note: Mapping[str, Any],
    across: Scale,
    up: Scale,
    box: tuple[float, float, float, float],
) -> Content:
    left, right, top, bottom = box
    if note.get("xref") == "paper":
        x = left + note["x"] * (right - left)
    else:
        x = across.place_inner(note["x"])
    if note.get("yref") == "paper":
        y = bottom - note["y"] * (bottom - top)
    else:
        y = up.place_inner(note["y"])  # Plotly states powers of ten on log axes here
    anchor = {"left": "start", "right": "end"}.get(note.get("xanchor", ""), "middle")
    return element(
        "text",
        _strip(note["text"])[0],
        class_="note",
        x=_r(x),
        y=_r(y - note.get("yshift", 0) + 4),
        fill=note.get("font", {}).get("color"),
        text_anchor=anchor,
    )


def _draw_legend(traces: Sequence[Figure], width: float) -> tuple[list[Content], float]:
    """Return the legend and its height; entries wrap."""
    content: list[Content] = []
    x, y = 16.0, 16.0
    for trace in traces:
        if trace["type"] == "heatmap" or trace.get("showlegend") is False:
            continue
        size = 34 + CHARACTER * len(trace["name"]) + 14
        if x > 16 and x + size > width:
            x, y = 16.0, y + 20
        color = (trace.get("line") or trace["marker"])["color"]
        content.append(
            element(
                "line",
                x1=_r(x),
                x2=_r(x + 24),
                y1=y - 4,
                y2=y - 4,
                stroke=color,
                stroke_width=10 if trace["type"] == "bar" else 2.5,
                stroke_dasharray=_DASHES.get(trace.get("line", {}).get("dash", "")),
            )
        )
        content += (
            [_draw_marker({**trace["marker"], "size": 7}, x + 12, y - 4)]
            if "markers" in trace.get("mode", "")
            else []
        )
        content.append(element("text", trace["name"], class_="tick", x=_r(x + 30), y=y))
        x += size
    return content, y + 4


def _draw_columns(
    traces: Sequence[Figure], across: Scale, top: float, bottom: float
) -> list[Content]:
    """Return invisible columns, one for each place on the axis, that carry the values there."""
    tips: dict[float, list[str]] = {}
    for trace in traces:
        if trace.get("hoverinfo") == "skip" or "hovertemplate" not in trace:
            continue
        for index, x in enumerate(trace["x"]):
            lines = _write_tip(trace, index)
            own = tips.setdefault(x, [])
            own += [line for line in lines if line not in own]
    places = [(x, across.place(x)) for x in sorted(tips)]
    known = [(x, place) for x, place in places if place is not None]
    columns: list[Content] = []
    for index, (x, place) in enumerate(known):
        before = known[index - 1][1] if index else across.start
        after = known[index + 1][1] if index + 1 < len(known) else across.end
        left = (before + place) / 2 if index else across.start
        right = (after + place) / 2 if index + 1 < len(known) else across.end
        columns.append(
            element(
                "rect",
                class_="column",
                x=_r(left),
                y=_r(top),
                width=_r(right - left),
                height=_r(bottom - top),
                data_tip="\n".join(tips[x]),
            )
        )
    return columns


def _write_tip(trace: Figure, index: int) -> list[str]:
    """Return the lines that Plotly would show at one point; of a heatmap, at the fullest cell."""
    values: dict[str, Any] = {"x": trace["x"][index]}
    if trace["type"] == "heatmap":
        column = [row[index] for row in trace["z"]]
        known = [(value, row) for row, value in enumerate(column) if value is not None]
        if not known:
            return []
        row = max(known)[1]
        values |= {"y": trace["y"][row], "customdata": trace["customdata"][row][index]}
        if "text" in trace:
            values["text"] = trace["text"][row][index]
    else:
        values["y"] = trace["y"][index]
        if values["y"] is None:
            return []
        if "customdata" in trace:
            values["customdata"] = trace["customdata"][index]

    def fill(match: re.Match[str]) -> str:
        value = values[match[1]]
        return format(value, match[2]).replace("%", " %") if match[2] else str(value)

    return _strip(_PLACEHOLDER.sub(fill, trace["hovertemplate"].partition("<extra>")[0]))


def _strip(text: str) -> list[str]:
    """Return the lines of text in which Plotly would read <b> and <br>."""
    return [re.sub(r"</?b>", "", line) for line in text.split("<br>")]


def _r(value: float | None) -> str:
    """Return a coordinate as short text."""
    if value is None or not math.isfinite(value):
        raise ValueError(f"a place on a chart must be a finite number; got {value}")
    return f"{value:.1f}".removesuffix(".0")
