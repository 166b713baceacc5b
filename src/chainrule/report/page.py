"""The report: one HTML page that needs nothing but itself."""

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from chainrule._utils.html import Content, Markup, element
from chainrule._utils.numbers import format_number
from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.display.cards import (
    Card,
    Forecast,
    build_cards,
    build_forecasts,
    describe_loss,
    describe_measurement,
    describe_subject,
    describe_versions,
    explain_difference,
    start_sentence,
)
from chainrule.errors import ChainruleError, abbreviate
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_profile_figure,
    count_hidden,
)
from chainrule.flow.blocks import build_profile, is_profiled
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.trial import Trial
from chainrule.remedies.result import Remedy
from chainrule.report.changes import build_remedies, build_search
from chainrule.report.charts import Figure, draw_figure
from chainrule.report.tables import (
    build_attention_table,
    build_blame_table,
    build_layer_table,
    build_module_tables,
    build_parameter_table,
)
from chainrule.theory.prediction import Prediction, predict

DEEPEST = 100
"""Weight layers up to which the report asks theory: it takes some milliseconds for each."""

WIDE, NARROW = (1000, 340), (360, 300)
"""Sizes in which a chart is drawn: for a page and for a phone, in pixels."""


def _check(
    flow: object,
    remedies: object,
    title: object,
    date: object,
    trial: object,
    other: object,
) -> None:
    """Raise unless what a report is made of is of the right kinds.

    Raises:
        ChainruleError: If it is not.
    """
    checks: tuple[tuple[str, object, Any, str], ...] = (
        ("flow", flow, GradientFlow, "a GradientFlow, as chainrule.inspect returns"),
        ("title", title, str | None, "text"),
        ("date", date, str | None, "text"),
        ("trial", trial, Trial | None, "a Trial, as chainrule.try_training returns"),
        ("other", other, GradientFlow | None, "a GradientFlow, as chainrule.inspect returns"),
    )
    for name, value, kind, form in checks:
        if not isinstance(value, kind):
            raise ChainruleError(f"{name}: must be {form}; got {abbreviate(value)}.")
    if remedies is not None and (isinstance(remedies, str) or not isinstance(remedies, Iterable)):
        raise ChainruleError(
            f"remedies: must be those that chainrule.find_remedies returns; got "
            f"{abbreviate(remedies)}."
        )


def build_report(
    flow: GradientFlow,
    *,
    remedies: Iterable[Remedy] | None = None,
    title: str | None = None,
    date: str | None = None,
    trial: Trial | None = None,
    other: GradientFlow | None = None,
) -> str:
    """Return the report as HTML text; the same flow always gives the same text.

    Args:
        flow: The measurement.
        remedies: Changes that were measured, as `find_remedies` returns them; of these, the ones
            that do not help are shown, too.
        title: What the report is about; what was measured, by default.
        date: When it was measured, in any form; left out by default.
        trial: What `try_training` showed of the same model and loss; the verdict follows it.
        other: A second measurement to compare with, the one before a change, say: its values stand
            beside, and it is dashed in the charts.

    Raises:
        ChainruleError: If an argument is of another kind.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> build_report(flow)[:15]
        '<!DOCTYPE html>'
    """
    _check(flow, remedies, title, date, trial, other)
    diagnosis = diagnose(flow, trial=trial)
    heading = title or describe_subject(flow)
    main: list[Content] = [
        _build_header(flow, heading, titled=title is not None, date=date),
        element(
            "div", [_build_card(card) for card in build_cards(flow, diagnosis)], class_="cards"
        ),
        _build_loss(flow),
        _build_clipping(flow),
        _build_diagnosis(flow, diagnosis),
        _build_comparison(flow, diagnosis, other) if other else None,
        _build_charts(flow, diagnosis, other),
        _build_profile(flow),
        build_search(flow, diagnosis) if remedies is None else build_remedies(remedies),
        element("h2", "All values"),
        build_layer_table(flow),
        build_attention_table(flow),
        build_module_tables(flow),
        build_parameter_table(flow),
        element(
            "footer",
            element(
                "p",
                "All gradients were computed by PyTorch autograd. The diagnosis is meant for a "
                "freshly initialized network that is trained with plain SGD. Multiplying the loss "
                "by a constant does not change it.",
                class_="dim",
            ),
        ),
    ]
    return build_document(f"{heading} · chainrule", main)


def build_document(title: str, main: list[Content]) -> str:
    """Return an HTML page that needs nothing but itself.

    Args:
        title: Its title.
        main: What is on it.
    """
    style, script = _read("style.css"), _read("tips.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    head = [
        Markup('<meta charset="utf-8"/>'),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(style)),
    ]
    body = [element("main", *main), element("script", Markup(script))]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


@cache
def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _build_header(flow: GradientFlow, heading: str, *, titled: bool, date: str | None) -> Markup:
    measured = start_sentence(describe_measurement(flow)).rstrip(".")
    lines = [
        start_sentence(describe_subject(flow)) if titled else "",
        " · ".join(filter(None, (measured, describe_versions(flow), date))),
    ]
    return element(
        "header",
        element("p", "Gradient flow", class_="dim"),
        element("h1", heading),
        [element("p", line, class_="dim") for line in lines if line],
    )


def _build_card(card: Card) -> Markup:
    icon = element("span", f"{card.icon} ", aria_hidden="true") if card.icon else None
    judged = element("div", icon, card.word, class_=card.state or None) if card.word else None
    badge = None
    if card.badge:
        look, words = card.badge
        sign = element("span", f"{look.icon} ", aria_hidden="true")
        badge = element("div", sign, words, class_=look.state)
    return element(
        "div",
        element("div", card.title, class_="dim"),
        element(
            "div",
            None if judged else icon,
            _write_value(card),
            class_=f"value {'' if judged else card.state}".rstrip(),
        ),
        judged or badge,
        element("div", card.note, class_="dim"),
        class_="card",
    )


def _build_loss(flow: GradientFlow) -> Markup | None:
    words = describe_loss(flow)
    if not words:
        return None
    return element("p", f"Loss: {format_number(flow.loss)} ({words}).", class_="dim")


def _build_clipping(flow: GradientFlow) -> Markup | None:
    if flow.clip_factor is None:
        return None
    factor = format_number(flow.clip_factor)
    return element(
        "p",
        f"Gradients are shown before clipping. Clipping multiplies every gradient by {factor}.",
        class_="dim",
    )


def _build_diagnosis(flow: GradientFlow, diagnosis: Diagnosis) -> Markup:
    findings: list[Content] = [
        element(
            "div",
            element("b", start_sentence(finding.evidence)),
            element("p", finding.consequence, f" ({finding.source})", class_="dim"),
            class_="finding",
        )
        for finding in diagnosis.findings
    ]
    difference = explain_difference(diagnosis)
    return element(
        "section",
        element("h2", f"Diagnosis: {diagnosis.verdict}"),
        findings or element("p", diagnosis.summary),
        _build_blame(flow, diagnosis),
        element("p", element("b", "Next: "), diagnosis.action, class_="next"),
        _build_notes(diagnosis),
        element("h3", "Will it train?"),
        [_build_forecast(forecast) for forecast in build_forecasts(diagnosis)],
        element("p", difference, class_="dim") if difference else None,
    )


def _build_blame(flow: GradientFlow, diagnosis: Diagnosis) -> list[Markup] | None:
    """Name the modules that are the main causes; nothing for a healthy network."""
    blames = rank_attributions(flow, diagnosis)
    words = explain_attributions(diagnosis, blames)
    if not words:
        return None
    return [
        element("h3", "Main causes, by factor" if blames else "Main causes"),
        *([build_blame_table(flow, blames)] if blames else []),
        element("p", words, class_="dim"),
    ]


def _build_notes(diagnosis: Diagnosis) -> Markup | None:
    if not diagnosis.notes:
        return None
    return element(
        "div",
        element("h3", "Worth knowing"),
        [
            element(
                "div",
                element("b", start_sentence(note.evidence)),
                element("p", note.meaning, f" ({note.source})", class_="dim"),
                class_="finding",
            )
            for note in diagnosis.notes
        ],
    )


def _build_forecast(forecast: Forecast) -> Markup:
    sign = element("span", f"{forecast.look.icon} ", aria_hidden="true")
    return element(
        "div",
        element("b", sign, forecast.title, class_=forecast.look.state),
        element("p", start_sentence(forecast.note), class_="dim"),
        element("ul", [element("li", reason) for reason in forecast.reasons], class_="dim")
        if forecast.reasons
        else None,
        class_="finding",
    )


def _build_comparison(flow: GradientFlow, diagnosis: Diagnosis, other: GradientFlow) -> Markup:
    """Return both measurements side by side."""
    before = diagnose(other)
    pairs = [
        (card.title, _write_value(old), _write_value(card))
        for card, old in zip(build_cards(flow, diagnosis), build_cards(other, before), strict=True)
    ]
    head = element("tr", [element("th", name, scope="col") for name in ("", "Before", "After")])
    rows = [
        element("tr", element("th", title, scope="row"), element("td", old), element("td", new))
        for title, old, new in pairs
    ]
    return element(
        "section",
        element("h2", "Before and after"),
        element(
            "p",
            f"Before: {start_sentence(describe_subject(other))} It is dashed in the charts.",
            class_="dim",
        ),
        element("table", element("thead", head), element("tbody", rows)),
    )


def _write_value(card: Card) -> Content:
    power: Content = None
    if card.exponent is not None:
        power = ["·10", element("sup", str(card.exponent).replace("-", "−"))]
    return [card.digits, power]


def _build_charts(flow: GradientFlow, diagnosis: Diagnosis, other: GradientFlow | None) -> Markup:
    if not flow.weight_layers:
        return element(
            "section",
            element("h2", "Charts"),
            element(
                "p",
                "Charts show weight layers, but this model used none: no module with a weight "
                "matrix or kernel was called. The tables show what was measured.",
            ),
        )
    banded = "; the band holds the middle 80 % of the networks" if flow.ensemble_size > 1 else ""
    theory = _ask_theory(flow)
    return element(
        "section",
        _build_chart(
            "Gradient magnitude per layer",
            f"‖∂𝓛/∂W‖ of each weight layer, layer 1 next to the input{banded}."
            + _describe_theory(flow, theory),
            build_gradient_figure(
                flow,
                usable=read_usable_range(flow, diagnosis.verdict),
                other=other,
                theory=theory.list_bands() if theory else None,
            ),
        ),
        _build_chart(
            "Activation distribution per layer",
            "One column per layer. The darker a cell, the more activations have a value there.",
            build_activation_figure(flow, other=other),
        ),
        _build_chart(
            "The product, factor by factor",
            "Each module multiplies the gradient by a factor on the way back. The line is their "
            "running product. Factors that are zero or undefined cannot be shown on a log scale.",
            build_factor_figure(flow, other=other),
        ),
        class_="charts",
    )


def _ask_theory(flow: GradientFlow) -> Prediction | None:
    """Return what theory says of a specified network, if it has an answer for any layer."""
    spec = flow.spec
    if spec is None or spec.depth > DEEPEST or len(flow.weight_layers) != spec.depth:
        return None
    prediction = predict(spec, flow.ensemble_size)
    said = any(norm is not None for norm in prediction.weight_gradient_norms)
    return prediction if said else None


def _describe_theory(flow: GradientFlow, theory: Prediction | None) -> str:
    if theory is None:
        return ""
    words = f" Dashed, with its band: what theory gives. {theory.describe_agreement(flow)}"
    return f"{words} {theory.sentence}".rstrip()


def _build_profile(flow: GradientFlow) -> Markup | None:
    """Show the repeated blocks of a large model side by side."""
    stacks = [stack for stack in build_profile(flow) if stack.repeats] if is_profiled(flow) else []
    if not stacks:
        return None
    return element(
        "section",
        [
            _build_chart(
                f"Depth profile: {stack.title}",
                "The blocks from input to output, with one line for each module of a block."
                + (
                    f" {hidden} more modules are in the table."
                    if (hidden := count_hidden(stack))
                    else ""
                ),
                build_profile_figure(stack),
            )
            for stack in stacks
        ],
        class_="charts",
    )


def _build_chart(title: str, caption: str, figure: Figure) -> Markup:
    return element(
        "figure",
        element("h2", title),
        element("p", caption, class_="dim"),
        [
            element(
                "div", draw_figure(figure, width=size[0], height=size[1], name=title), class_=name
            )
            for name, size in (("wide", WIDE), ("narrow", NARROW))
        ],
    )
