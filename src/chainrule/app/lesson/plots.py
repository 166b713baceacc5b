"""The lesson's drawings: activation functions, and the gradients of three networks, as SVG.

Colours come from the style sheet, so that one drawing suits light and dark.
"""

import math
from collections.abc import Callable, Sequence

from chainrule._utils.html import Markup, element, render
from chainrule._utils.numbers import format_number, to_superscript
from chainrule.diagnosis.rules import RULES
from chainrule.report.scales import Scale
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


def plot_activation(entry: Activation) -> Markup:
    """Return the curves of an activation (solid) and its derivative (dashed)."""
    left, right, top, bottom = 16, _WIDTH - 6, 6, _HEIGHT - 14
    place_x = Scale(-REACH, REACH, False, left, right).place_inner
    place_y = Scale(LOW, HIGH, False, bottom, top).place_inner

    def draw(function: Callable[[float], float], kind: str) -> Markup:
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
        lines = [element("polyline", points=" ".join(p), class_=kind) for p in pieces if len(p) > 1]
        return render(*lines)

    ticks = [
        element("text", format_number(z), x=place_x(z), y=_HEIGHT - 3, class_="ls-x")
        for z in (-4, 0, 4)
    ]
    ticks += [
        element("text", format_number(v), x=left - 4, y=place_y(v) + 3, class_="ls-y")
        for v in (-1, 0, 1, 2)
    ]
    return element(
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


def plot_profile(norms: Sequence[float], error: float, description: str) -> Markup:
    """Return the gradient norm of every layer on a logarithmic axis, over the usable range.

    Args:
        norms: ‖∂𝓛/∂W_l‖ for l = 1 … L, all above zero.
        error: The error at the output (`GradientFlow.output_error`), which the range goes by.
        description: What a screen reader says.
    """
    width, height = 320, 200
    left, right, top, bottom = 40, width - 10, 10, height - 30
    place_x = Scale(0.5, len(norms) + 0.5, False, left, right).place_inner
    powers = Scale(*POWERS, True, bottom, top)
    high, low = (
        powers.place_inner(math.log10(RULES[name].threshold * error))
        for name in ("exploding_gradient", "vanishing_gradient")
    )
    band = element(
        "rect",
        x=left,
        y=high,
        width=right - left,
        height=low - high,
        class_="ls-band",
    )
    marks: list[Markup] = []
    for power in range(POWERS[0], POWERS[1] + 1, 6):
        y = powers.place_inner(power)
        marks.append(_line(left, y, right, y, "ls-grid"))
        text = "1" if power == 0 else f"10{to_superscript(power)}"
        marks.append(element("text", text, x=left - 5, y=y + 3.5, class_="ls-y"))
    for layer in (1, len(norms)):
        text = element("text", str(layer), x=place_x(layer), y=bottom + 13, class_="ls-x")
        marks.append(text)
    middle = f"{(left + right) / 2:.1f}"
    marks.append(element("text", "layer, input to output", x=middle, y=height - 4, class_="ls-x"))
    points = [
        (place_x(layer), powers.place_inner(math.log10(norm)))
        for layer, norm in enumerate(norms, 1)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [element("circle", cx=x, cy=y, r=3, class_="ls-dot") for x, y in points]
    return element(
        "svg",
        band,
        *marks,
        element("polyline", points=path, class_="ls-path"),
        *dots,
        viewBox=f"0 0 {width} {height}",
        class_="ls-profile",
        role="img",
        aria_label=description,
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)
