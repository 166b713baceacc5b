"""The lesson's drawings: activation functions, and the gradients of three networks, as SVG.

Colours come from the style sheet, so that one drawing suits light and dark.
"""

import math
from collections.abc import Callable, Sequence

from chainrule._utils.numbers import to_superscript
from chainrule.app.lesson.markup import Html, join, tag
from chainrule.diagnosis.rules import RULES
from chainrule.spec.activations import Activation

REACH = 4.0
"""An activation is drawn for z from −REACH to REACH."""

LOW, HIGH = -1.9, 2.25
"""Values of φ and φ' that are drawn."""

POWERS = (-12, 24)
"""Powers of ten at the ends of the gradient charts' axis: the same in all, so they compare."""

_WIDTH, _HEIGHT = 168, 112
_STEPS = 160
_JUMP = 0.3


def plot_activation(entry: Activation) -> Html:
    """Return the curves of an activation (solid) and its derivative (dashed)."""
    left, right, top, bottom = 16, _WIDTH - 6, 6, _HEIGHT - 14

    def place_x(z: float) -> float:
        return left + (z + REACH) / (2 * REACH) * (right - left)

    def place_y(value: float) -> float:
        return bottom - (value - LOW) / (HIGH - LOW) * (bottom - top)

    def draw(function: Callable[[float], float], kind: str) -> Html:
        pieces: list[list[str]] = [[]]
        before = math.nan
        for step in range(_STEPS + 1):
            z = -REACH + 2 * REACH * step / _STEPS
            value = function(z)
            seen = LOW <= value <= HIGH
            if abs(value - before) > _JUMP or not seen:
                pieces.append([])  # a jump is no line
            if seen:
                pieces[-1].append(f"{place_x(z):.1f},{place_y(value):.1f}")
            before = value
        lines = [tag("polyline", points=" ".join(p), class_=kind) for p in pieces if len(p) > 1]
        return join(*lines)

    ticks = [
        tag("text", str(z).replace("-", "−"), x=f"{place_x(z):.1f}", y=_HEIGHT - 3, class_="ls-x")
        for z in (-4, 0, 4)
    ]
    ticks += [
        tag("text", str(v).replace("-", "−"), x=left - 4, y=f"{place_y(v) + 3:.1f}", class_="ls-y")
        for v in (-1, 0, 1, 2)
    ]
    return tag(
        "svg",
        _line(left, place_y(0), right, place_y(0), "ls-axis"),
        _line(place_x(0), top, place_x(0), bottom, "ls-axis"),
        _line(left, place_y(1), right, place_y(1), "ls-grid"),
        draw(entry.function, "ls-value"),
        draw(entry.derivative, "ls-slope"),
        *ticks,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="ls-curve",
        role="img",
        aria_label=f"{entry.label}: the function (solid) and its derivative (dashed), "
        f"z from −{REACH:g} to {REACH:g}",
    )


def plot_profile(norms: Sequence[float], error: float, description: str) -> Html:
    """Return the gradient norm of every layer on a logarithmic axis, over the usable range.

    Args:
        norms: ‖∂𝓛/∂W_l‖ for l = 1 … L, all above zero.
        error: The error at the output (`GradientFlow.output_error`), which the range goes by.
        description: What a screen reader says.
    """
    width, height = 320, 200
    left, right, top, bottom = 40, width - 10, 10, height - 30

    def place_x(layer: float) -> float:
        return left + (layer - 0.5) / len(norms) * (right - left)

    def place_y(value: float) -> float:
        share = (math.log10(value) - POWERS[0]) / (POWERS[1] - POWERS[0])
        return bottom - share * (bottom - top)

    high, low = (
        place_y(RULES[name].threshold * error)
        for name in ("exploding_gradient", "vanishing_gradient")
    )
    band = tag(
        "rect",
        x=left,
        y=f"{high:.1f}",
        width=right - left,
        height=f"{low - high:.1f}",
        class_="ls-band",
    )
    marks: list[Html] = []
    for power in range(POWERS[0], POWERS[1] + 1, 6):
        y = place_y(10.0**power)
        marks.append(_line(left, y, right, y, "ls-grid"))
        text = "1" if power == 0 else f"10{to_superscript(power)}"
        marks.append(tag("text", text, x=left - 5, y=f"{y + 3.5:.1f}", class_="ls-y"))
    for layer in (1, len(norms)):
        text = tag("text", str(layer), x=f"{place_x(layer):.1f}", y=bottom + 13, class_="ls-x")
        marks.append(text)
    middle = f"{(left + right) / 2:.1f}"
    marks.append(tag("text", "layer, input to output", x=middle, y=height - 4, class_="ls-x"))
    points = [(place_x(layer), place_y(norm)) for layer, norm in enumerate(norms, 1)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_="ls-dot") for x, y in points]
    return tag(
        "svg",
        band,
        *marks,
        tag("polyline", points=path, class_="ls-path"),
        *dots,
        viewBox=f"0 0 {width} {height}",
        class_="ls-profile",
        role="img",
        aria_label=description,
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    places = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return tag("line", class_=kind, **places)
