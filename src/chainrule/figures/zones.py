"""What lies behind the gradients of the main chart: where they are too small, usable, too large.

Each zone has a colour and a name. The name stands where no line runs, inside or at the side.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from chainrule.figures import theme

_ZONE_WORDS = {
    "small": ("too small", ": layers stand still"),
    "usable": ("layers learn here", ""),
    "large": ("too large", ": steps explode"),
}
"""What a zone is called, and what more is said of it where there is room."""

_SIDES: Mapping[str, Mapping[str, Any]] = {
    "left": {"x": 0.01, "xanchor": "left"},
    "right": {"x": 0.99, "xanchor": "right"},
    "middle": {"x": 0.5, "xanchor": "center"},
}

_WORDS_HIGH, _LETTER = 0.12, 0.028
"""Shares of the axes, on a phone, that words and the marks beside them need: the height of a line,
and the length of a letter."""

_LEAST_ZONE = 0.08
"""Share of the axis below which a zone has no room for words."""

Point = tuple[float, float]


def draw_zones(
    usable: tuple[float, float],
    axis: Mapping[str, Any],
    lines: Sequence[Sequence[float | None]],
    crossed: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what lies behind the gradients: a zone for each state, and its words.

    The words stand in a corner of the zone or in its middle, where no line runs; where there is no
    room, they stand in the margin at its side.

    Args:
        usable: Where layers learn.
        axis: The axis of gradients.
        lines: The values of each line, layer by layer.
        crossed: Whether crosses stand at the foot, with the words above them.
    """
    log = axis["type"] == "log"
    bottom, top = read_ends(axis)
    low, high = (min(max(edge, bottom), top) for edge in usable)
    count = max(map(len, lines))

    def place(edge: float) -> float:
        """Return a value as a share of the axis."""
        at = math.log10(edge) if log else edge
        return float((at - axis["range"][0]) / (axis["range"][1] - axis["range"][0]))

    placed = [
        [
            None if value is None else ((i + 0.5) / count, place(value))
            for i, value in enumerate(line)
        ]
        for line in lines
    ]
    shapes, notes = [], []
    outside: dict[str, tuple[str, float, float]] = {}
    for state, start, end in (
        ("small", bottom, low),
        ("usable", low, high),
        ("large", high, top),
    ):
        if start >= end:
            continue
        name, more = _ZONE_WORDS[state]
        shapes.append(
            {
                "type": "rect",
                "name": name,
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": start,
                "y1": end,
                "fillcolor": theme.ZONES[state],
                "line": {"width": 0},
                "layer": "below",
            }
        )
        ends = (place(start), place(end))
        found = _find_room((name + more, name), ends, state == "small", placed)
        if found is None:
            outside[state] = (name, *ends)
            continue
        text, side, low_end = found
        edge = start if low_end else end
        up = (28 if crossed else 17) if state == "small" else 12
        notes.append(
            {
                "xref": "paper",
                **_SIDES[side],
                "y": math.log10(edge) if log else edge,
                "yshift": up if low_end else -11,
                "text": f"<b>{text}</b>",
                **_style_words(state),
            }
        )
    return shapes, [*notes, *_name_outside(outside, axis["range"])]


def _style_words(state: str) -> dict[str, Any]:
    return {"showarrow": False, "font": {"size": 12, "color": theme.STATES[state][0]}}


def _name_outside(
    zones: Mapping[str, tuple[str, float, float]], axis_range: Sequence[float]
) -> list[dict[str, Any]]:
    """Return the names of zones in the margin at their side, a word on each line.

    Args:
        zones: Name, foot and head of each, as shares of the axis. Where the name of another would
            run into “layers learn here”, and where another is too thin to be seen, it has none.
        axis_range: The ends of the axis, in its own measure.
    """
    low, high = axis_range
    middles = {state: (foot + head) / 2 for state, (_, foot, head) in zones.items()}
    notes = []
    for state, (name, foot, head) in zones.items():
        middle = middles[state]
        thin = head - foot < _LEAST_ZONE / 2
        near = abs(middle - middles.get("usable", math.inf)) < 2 * _WORDS_HIGH
        if state != "usable" and (thin or near):
            continue
        words = name.split()
        notes += [
            {
                "xref": "paper",
                "x": 1.008,
                "xanchor": "left",
                "y": low + middle * (high - low),
                "yshift": round(14 * ((len(words) - 1) / 2 - i)),
                "text": f"<b>{word}</b>",
                **_style_words(state),
            }
            for i, word in enumerate(words)
        ]
    return notes


def _find_room(
    texts: Sequence[str],
    ends: Point,
    low_first: bool,
    lines: Sequence[Sequence[Point | None]],
) -> tuple[str, str, bool] | None:
    """Return what can be said in a zone, at which side, and whether at its foot; `None` for none.

    Args:
        texts: What to say, the best first.
        ends: Foot and head of the zone, as shares of the axis.
        low_first: Whether the foot is tried first, and the right side.
        lines: The points of lines that must not run there, as shares of the axes.
    """
    foot, head = ends
    if head - foot < _LEAST_ZONE:
        return None
    sides = ("right", "left", "middle") if low_first else ("left", "right", "middle")
    for text in texts:
        long = _LETTER * len(text)
        starts = {"left": 0.0, "right": 1 - long, "middle": 0.5 - long / 2}
        for low_end in (low_first, not low_first):
            y = (foot, foot + _WORDS_HIGH) if low_end else (head - _WORDS_HIGH, head)
            for side in sides:
                x = (starts[side], starts[side] + long)
                if not any(_crosses(line, x, y) for line in lines):
                    return text, side, low_end
    return None


def _crosses(line: Sequence[Point | None], x: Point, y: Point) -> bool:
    """Return whether a line through points runs through a box.

    Args:
        line: Its points; `None` where it is broken.
        x: Where the box begins and ends to the right.
        y: Where it begins and ends upwards.
    """
    pieces = [(point, point) for point in line if point is not None]
    pieces += [(one, two) for one, two in pairwise(line) if one is not None and two is not None]
    for (x0, y0), (x1, y1) in pieces:
        start, end = max(x0, x[0]), min(x1, x[1])
        if start > end:
            continue
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        heights = [y0 + slope * (at - x0) for at in (start, end)]
        if min(heights) <= y[1] and max(heights) >= y[0]:
            return True
    return False


def read_ends(axis: Mapping[str, Any]) -> tuple[float, float]:
    """Return the values at the ends of an axis, which itself may end beyond the floats."""
    low, high = axis["range"]
    if axis["type"] != "log":
        return float(low), float(high)
    return 10.0**low or 5e-324, 10.0 ** min(high, 308)
