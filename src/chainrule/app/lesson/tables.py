"""The lesson's tables: activations, initializations and the quick fix."""

import math

from chainrule._utils.numbers import format_number
from chainrule.app.lesson import story
from chainrule.app.lesson.markup import Html, join, render_math, tag
from chainrule.app.lesson.plots import plot_activation
from chainrule.app.lesson.writer import Writer, write_table
from chainrule.spec.activations import ACTIVATIONS, Activation
from chainrule.spec.initializers import INITIALIZERS, Initializer
from chainrule.spec.network_spec import NetworkSpec

WIDTH = NetworkSpec().width
"""The width for which the table of initializations gives a standard deviation."""


def write_activations(writer: Writer) -> Html:
    """Return the table of activations."""
    head = ("Activation", "Curves", "Formulas", "Range of φ", "Largest |φ′|", "Start with",
            "Measured")  # fmt: skip
    rows = [_write_activation(writer, entry) for entry in ACTIVATIONS.values()]
    return join(writer.paragraph(story.ACTIVATION_NOTE), write_table("Activations", head, rows))


def _write_activation(writer: Writer, entry: Activation) -> Html:
    subject = f"activation_{entry.name}"
    low, high = entry.output_range
    return tag(
        "tr",
        tag(
            "th",
            entry.label,
            tag("span", entry.note, class_="ls-note"),
            tag("span", tag("strong", "Risk: "), entry.risk, ".", class_="ls-note"),
            scope="row",
            class_="ls-wide",
        ),
        tag("td", plot_activation(entry)),
        tag(
            "td",
            tag("div", render_math(entry.formula)),
            tag("div", render_math(entry.derivative_formula)),
            class_="ls-formulas",
        ),
        tag("td", f"{_write_bound(low)} to {_write_bound(high)}"),
        tag("td", format_number(entry.derivative_max)),
        tag("td", INITIALIZERS[entry.initialization].label),
        tag(
            "td",
            tag("div", writer.text(f"{{{subject}.step|times}} per layer")),
            tag("div", writer.text(f"{{{subject}.first}} arrives")),
            tag("div", writer.write_verdict(subject), " ", writer.show(subject)),
            class_="ls-measured",
        ),
    )


def write_initializations(writer: Writer) -> Html:
    """Return the table of initializations."""
    head = ("Initialization", "Variance of a weight", "Drawn", "Biases", f"σ at width {WIDTH}",
            "Best for", "With tanh", "With ReLU")  # fmt: skip
    rows = [_write_initialization(writer, entry) for entry in INITIALIZERS.values()]
    return join(
        writer.paragraph(story.INITIALIZATION_NOTE),
        write_table("Initializations", head, rows),
    )


def _write_initialization(writer: Writer, entry: Initializer) -> Html:
    measured = [
        tag(
            "td",
            writer.text(f"{{{subject}.first}} "),
            writer.write_verdict(subject),
            " ",
            writer.show(subject),
        )
        for subject in (f"tanh_with_{entry.name}", f"relu_with_{entry.name}")
    ]
    forms = "one form only" if len(entry.distributions) == 1 else entry.default_distribution
    return tag(
        "tr",
        tag(
            "th",
            entry.label,
            tag("span", entry.source, class_="ls-note"),
            scope="row",
            class_="ls-wide",
        ),
        tag("td", render_math(entry.formula)),
        tag("td", forms),
        tag("td", "zero" if entry.bias_bound is None else "uniform"),
        tag("td", format_number(entry.standard_deviation(WIDTH, WIDTH))),
        tag("td", entry.best_for, class_="ls-wide"),
        *measured,
    )


def write_fix(writer: Writer) -> Html:
    """Return what to change, in which order, with what it does."""
    head = ("Change", "First layer, after", "Diagnosis")
    parts = list(map(writer.paragraph, story.FIX))
    for title, start, fixes in story.FIXES:
        rows = [
            tag(
                "tr",
                tag("th", words, scope="row", class_="ls-wide"),
                tag("td", writer.text(f"{{{after}.first}}")),
                tag("td", writer.write_verdict(after), " ", writer.show(after)),
            )
            for words, after in fixes
        ]
        table = write_table(title, head, rows)
        parts += [tag("h4", title), writer.paragraph(start), table]
    return join(*parts, writer.paragraph(story.FIX_AFTER))


def _write_bound(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format_number(value)
