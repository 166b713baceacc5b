"""The lesson's tables: activations, initializations and the quick fix."""

import math

from chainrule._utils.html import Markup, element, render
from chainrule._utils.numbers import format_number
from chainrule.app.lesson import story
from chainrule.app.lesson.markup import render_math
from chainrule.app.lesson.plots import plot_activation
from chainrule.app.lesson.writer import Writer, write_table
from chainrule.spec.activations import ACTIVATIONS, Activation
from chainrule.spec.initializers import INITIALIZERS, Initializer
from chainrule.spec.network_spec import NetworkSpec

WIDTH = NetworkSpec().width
"""The width for which the table of initializations gives a standard deviation."""


def write_activations(writer: Writer) -> Markup:
    """Return the table of activations."""
    head = ("Activation", "Curves", "Formulas", "Range of φ", "Largest |φ′|", "Start with",
            "Measured")  # fmt: skip
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
            scope="row",
            class_="ls-wide",
        ),
        element("td", plot_activation(entry)),
        element(
            "td",
            element("div", render_math(entry.formula)),
            element("div", render_math(entry.derivative_formula)),
            class_="ls-formulas",
        ),
        element("td", f"{_write_bound(low)} to {_write_bound(high)}"),
        element("td", format_number(entry.derivative_max)),
        element("td", INITIALIZERS[entry.initialization].label),
        element(
            "td",
            element("div", writer.text(f"{{{subject}.step|times}} per layer")),
            element("div", writer.text(f"{{{subject}.first}} arrives")),
            element("div", writer.write_verdict(subject), " ", writer.show(subject)),
            class_="ls-measured",
        ),
    )


def write_initializations(writer: Writer) -> Markup:
    """Return the table of initializations."""
    head = ("Initialization", "Variance of a weight", "Drawn", "Biases", f"σ at width {WIDTH}",
            "Best for", "With tanh", "With ReLU")  # fmt: skip
    rows = [_write_initialization(writer, entry) for entry in INITIALIZERS.values()]
    return render(
        writer.paragraph(story.INITIALIZATION_NOTE),
        write_table("Initializations", head, rows),
    )


def _write_initialization(writer: Writer, entry: Initializer) -> Markup:
    measured = [
        element(
            "td",
            writer.text(f"{{{subject}.first}} "),
            writer.write_verdict(subject),
            " ",
            writer.show(subject),
        )
        for subject in (f"tanh_with_{entry.name}", f"relu_with_{entry.name}")
    ]
    forms = "one form only" if len(entry.distributions) == 1 else entry.default_distribution
    return element(
        "tr",
        element(
            "th",
            entry.label,
            element("span", entry.source, class_="ls-note"),
            scope="row",
            class_="ls-wide",
        ),
        element("td", render_math(entry.formula)),
        element("td", forms),
        element("td", "zero" if entry.bias_bound is None else "uniform"),
        element("td", format_number(entry.standard_deviation(WIDTH, WIDTH))),
        element("td", entry.best_for, class_="ls-wide"),
        *measured,
    )


def write_fix(writer: Writer) -> Markup:
    """Return what to change, in which order, with what it does."""
    head = ("Change", "First layer, after", "Diagnosis")
    parts = list(map(writer.paragraph, story.FIX))
    for title, start, fixes in story.FIXES:
        rows = [
            element(
                "tr",
                element("th", words, scope="row", class_="ls-wide"),
                element("td", writer.text(f"{{{after}.first}}")),
                element("td", writer.write_verdict(after), " ", writer.show(after)),
            )
            for words, after in fixes
        ]
        table = write_table(title, head, rows)
        parts += [element("h4", title), writer.paragraph(start), table]
    return render(*parts, writer.paragraph(story.FIX_AFTER))


def _write_bound(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format_number(value)
