"""The scenarios as tiny charts: the measured gradient of each layer, over the zones of the page.

They are drawn once, from measurements that came with the package (`lesson/figures.json`), all on
one axis. Colours come from the style sheet; shapes tell the states apart without them.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

from chainrule._utils.html import Markup, element
from chainrule.app.lesson.figures import load_figures
from chainrule.app.lesson.plots import POWERS
from chainrule.app.state.subjects import PRESET_SUBJECTS
from chainrule.figures.gradients import outline_gaps, read_state
from chainrule.report.scales import Scale

SIZE = (112, 32)
"""Width and height, in pixels."""

MOST = 9
"""Most layers that are marked; of more, some at equal distances, with the first and the last."""

_MARGIN, _HALF = 6.0, 2.8


@cache
def draw_thumbnail(preset: str) -> Markup:
    """Return the tiny chart of a scenario.

    Args:
        preset: Its name; one of `PRESETS`.

    Example:
        >>> draw_thumbnail("Healthy (ReLU + He)").count("th-usable")
        10
    """
    subject = next(name for name, each in PRESET_SUBJECTS.items() if each == preset)
    profile = load_figures().profiles[subject]
    low, high = profile["usable"]
    return plot_thumbnail(profile["norms"], (low, high))


def plot_thumbnail(norms: Sequence[float], usable: tuple[float, float]) -> Markup:
    """Return gradient norms as a tiny chart.

    Args:
        norms: ‖∂𝓛/∂W_l‖ for l = 1 … L. What is exactly zero has no place on the axis: it is a
            cross at the foot.
        usable: The least and the largest with which a layer learns.
    """
    width, height = SIZE
    up = Scale(*POWERS, True, height - _MARGIN / 2, _MARGIN / 2)

    def place(norm: float) -> float:
        found = up.place(norm)
        return up.start - 2 if found is None else min(max(found, up.end), up.start)

    bottom, top = (place(edge) for edge in usable)
    zones = [
        element("rect", class_=f"th-zone th-{state}", y=y, width=width, height=length)
        for state, y, length in (
            ("large", 0.0, top),
            ("usable", top, bottom - top),
            ("small", bottom, height - bottom),
        )
    ]
    count = min(len(norms), MOST)
    across = Scale(0, max(count - 1, 1), False, _MARGIN, width - _MARGIN)
    shown = [norms[round((len(norms) - 1) * i / max(count - 1, 1))] for i in range(count)]
    ends = tuple(10.0**power for power in POWERS)
    gaps = [
        element("path", class_=f"th-gap th-{state}", d=_outline(corners, across, place))
        for state, corners in outline_gaps(shown, usable, (ends[0], ends[1]))
    ]
    marks = []
    for index, norm in enumerate(shown):
        marks.append(_mark(across.place_inner(index), place(norm), norm, usable))
    return element(
        "svg",
        zones,
        gaps,
        marks,
        class_="th",
        viewBox=f"0 0 {width} {height}",
        aria_hidden="true",  # the button's words say the same
    )


def _outline(
    corners: Sequence[tuple[float, float]], across: Scale, place: Callable[[float], float]
) -> str:
    points = (
        f"{min(max(across.place_inner(at - 1), 0), SIZE[0]):.1f} {place(value):.1f}"
        for at, value in corners
    )
    return f"M{'L'.join(points)}Z"


def _mark(x: float, y: float, norm: float, usable: tuple[float, float]) -> Markup:
    """Return the mark of a layer: down for too small, up for too large, a cross for zero."""
    if not 0 < norm < math.inf:
        d = f"M{x - 2:.1f} {y - 2:.1f}l4 4m0 -4l-4 4"
        return element("path", class_="th-none", d=d)
    state = read_state(norm, usable)
    if state == "usable":
        return element("circle", class_="th-usable", cx=x, cy=y, r=_HALF - 0.4)
    sign = 1 if state == "small" else -1
    d = f"M{x - _HALF:.1f} {y - sign * _HALF:.1f}h{2 * _HALF}l{-_HALF} {sign * 2 * _HALF}Z"
    return element("path", class_=f"th-{state}", d=d)
