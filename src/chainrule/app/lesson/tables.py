"""The lesson's tables: activations, initializations and the quick fix."""

import math
from collections.abc import Mapping

from chainrule._utils.html import Markup, element, render
from chainrule._utils.numbers import format_number
from chainrule.app.lesson import story
from chainrule.app.lesson.markup import render_math
from chainrule.app.lesson.plots import plot_activation
from chainrule.app.lesson.writer import Writer, write_code, write_table
from chainrule.spec.activations import ACTIVATIONS, Activation
from chainrule.spec.initializers import INITIALIZERS, Initializer
from chainrule.spec.network_spec import NetworkSpec

WIDTH = NetworkSpec().width
"""The width for which the table of initializations gives a standard deviation."""


REACH = 6.0
"""How far from zero a bound of a derivative is looked for."""

_GRID = 6000
_REACHED = 1e-5

BOUNDS: Mapping[str, str] = {
    "xavier": r"\sqrt{\frac{6}{n_\text{in} + n_\text{out}}}",
    "he": r"\sqrt{\frac{6}{n_\text{in}}}",
    "lecun": r"\sqrt{\frac{3}{n_\text{in}}}",
    "random": r"\sqrt{3}\,\sigma",
    "pytorch": r"\frac{1}{\sqrt{n_\text{in}}}",
}
"""The bound of the uniform form of each initialization that has one, in LaTeX."""


def write_activations(writer: Writer) -> Markup:
    """Return the table of activations."""
    head = ("Activation", "Curves and formulas", "Ranges, and measured")
    rows = [_write_activation(writer, entry) for entry in ACTIVATIONS.values()]
    return render(writer.paragraph(story.ACTIVATION_NOTE), write_table("Activations", head, rows))


def _write_activation(writer: Writer, entry: Activation) -> Markup:
    subject = f"activation_{entry.name}"
    low, high = entry.output_range
    return element(
        "tr",
        element(
            "th",
            entry.label,
            element("span", entry.note, class_="ls-note"),
            element("span", element("strong", "Risk: "), entry.risk, ".", class_="ls-note"),
            element(
                "span",
                element("strong", "Start with: "),
                INITIALIZERS[entry.initialization].label,
                class_="ls-note",
            ),
            scope="row",
            class_="ls-wide",
        ),
        element(
            "td",
            plot_activation(entry),
            element("div", render_math(entry.formula)),
            element("div", render_math(entry.derivative_formula)),
            class_="ls-formulas",
        ),
        element(
            "td",
            element("div", "slope φ′ in ", element("b", write_slopes(entry))),
            element("div", f"φ from {_write_bound(low)} to {_write_bound(high)}"),
            element("div", writer.text(f"{{{subject}.step|times}} per layer"), class_="ls-gap"),
            element("div", writer.text(f"layer one gets {{{subject}.first}}")),
            element("div", writer.write_verdict(subject), " ", writer.show(subject)),
            class_="ls-measured",
        ),
    )


def write_slopes(entry: Activation) -> str:
    """Return the set of values that a derivative takes: {0, 1}, or an interval such as (0, 0.25].

    A bound belongs to the interval if some z within `REACH` reaches it.
    """
    grid = [REACH * step / _GRID for step in range(-_GRID, _GRID + 1)]
    slopes = [entry.derivative(z) for z in (*grid, entry.derivative_argmax)]
    values = sorted(set(slopes))
    if len(values) <= 2:
        return f"{{{', '.join(map(format_number, values))}}}"
    low, high = entry.derivative_range
    opening = "[" if min(slopes) - low < _REACHED else "("
    closing = "]" if high - max(slopes) < _REACHED else ")"
    return f"{opening}{format_number(low)}, {format_number(high)}{closing}"


def write_initializations(writer: Writer) -> Markup:
    """Return the table of initializations."""
    head = ("Initialization", "A weight is drawn from", "Measured at layer one")
    rows = [_write_initialization(writer, entry) for entry in INITIALIZERS.values()]
    return render(
        *map(writer.paragraph, story.INITIALIZATION_NOTE),
        write_table("Initializations", head, rows),
    )


def _write_initialization(writer: Writer, entry: Initializer) -> Markup:
    measured = [
        element(
            "div",
            element("b", name),
            ": ",
            writer.text(f"{{{subject}.first}}"),
            element("div", writer.write_verdict(subject), " ", writer.show(subject)),
        )
        for name, subject in (
            ("tanh", f"tanh_with_{entry.name}"),
            ("ReLU", f"relu_with_{entry.name}"),
        )
    ]
    return element(
        "tr",
        element(
            "th",
            entry.label,
            element("span", element("strong", "For: "), entry.best_for, ".", class_="ls-note"),
            element("span", element("strong", "From: "), entry.source, ".", class_="ls-note"),
            scope="row",
            class_="ls-wide",
        ),
        element("td", *_write_forms(entry), class_="ls-formulas"),
        element("td", *measured, class_="ls-measured"),
    )


def _write_forms(entry: Initializer) -> list[Markup]:
    """Return the variance and the forms that are drawn; the usual one is named first."""
    bound = BOUNDS.get(entry.name)
    deviation = format_number(entry.standard_deviation(WIDTH, WIDTH))
    forms = [
        element("div", render_math(entry.formula)),
        element("div", f"σ = {deviation} at width {WIDTH}", class_="ls-note"),
    ]
    if bound is None:
        return [*forms, element("div", "a random rotation", class_="ls-note")]
    normal = element("div", render_math(r"\mathcal{N}(0, \operatorname{Var}(w))"))
    uniform = element("div", render_math(rf"\mathcal{{U}}\left(\pm {bound}\right)"))
    usual = entry.default_distribution == "normal"
    word = element("div", "or", class_="ls-note")
    forms += [normal, word, uniform] if usual else [uniform, word, normal]
    biases = "zero" if entry.bias_bound is None else "uniform, too"
    return [*forms, element("div", f"biases: {biases}", class_="ls-note")]


def write_fix(writer: Writer) -> Markup:
    """Return what to change, in which order, with what it does."""
    head = ("Change", "First layer, after", "Diagnosis")
    before, other, after = map(writer.paragraph, story.FIX)
    parts = [
        before,
        write_code(story.FIX_SNIPPET, None, "He initialization for a model of yours"),
        other,
        write_code(story.ACTIVATION_SNIPPET, None, "ReLU instead of sigmoid"),
        after,
    ]
    for title, start, fixes in story.FIXES:
        rows = [
            element(
                "tr",
                element("th", words, scope="row", class_="ls-wide"),
                element("td", writer.text(f"{{{name}.first}}")),
                element("td", writer.write_verdict(name), " ", writer.show(name)),
            )
            for words, name in fixes
        ]
        table = write_table(title, head, rows)
        parts += [element("h3", title), writer.paragraph(start), table]
    return render(*parts, writer.paragraph(story.FIX_AFTER))


def _write_bound(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format_number(value)
