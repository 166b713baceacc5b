"""What to change, in a report: remedies that were measured, how to apply them, and advice."""

from collections.abc import Iterable, Sequence

from chainrule._utils.html import Markup, element
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rule import Verdict
from chainrule.display.cards import start_sentence
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.advice import Advice, advise
from chainrule.remedies.edits import describe_edits
from chainrule.remedies.result import Remedies, Remedy, write_recipe, write_search


def build_remedies(remedies: Iterable[Remedy]) -> Markup:
    """Return the section on what to change: what was measured, and how to apply it.

    Args:
        remedies: Changes that were measured, as `find_remedies` returns them; of these, the ones
            that do not help are shown, too, and code to apply the others.
    """
    changes = list(remedies)
    refuted = remedies.refuted if isinstance(remedies, Remedies) else ()
    intro = "Each change was made and measured again with the same seeds."
    if not changes:
        intro = "Changes were tried and measured, and none helps."
        if isinstance(remedies, Remedies) and not refuted:
            intro = remedies.note or "Nothing needs to change, so nothing was tried."
    elif changes[0].edits:
        intro = "Each change was made on a copy of the model and measured again."
    if isinstance(remedies, Remedies) and remedies.tried and remedies.note:
        intro = f"{intro} {remedies.note}"
    return element(
        "section",
        element("h2", "What to change"),
        element("p", intro, class_="dim"),
        [_build_remedy(change, _write_code(remedies, at)) for at, change in enumerate(changes)],
        element(
            "details",
            element("summary", f"Tried and measured, without success ({len(refuted)})"),
            element("div", [_build_remedy(change) for change in refuted], class_="tried"),
        )
        if refuted
        else None,
        _build_advice(remedies.advice if isinstance(remedies, Remedies) else ()),
    )


def build_search(flow: GradientFlow, diagnosis: Diagnosis) -> Markup | None:
    """Return how to look for remedies, if none were given; `None` for a healthy network."""
    if diagnosis.verdict is Verdict.HEALTHY:
        return None
    return element(
        "section",
        element("h2", "What to change"),
        element("p", "This command tries changes and measures each:", class_="dim"),
        _build_code(write_search(flow)),
        _build_advice(advise(flow, diagnosis) if flow.spec is None else ()),
    )


def _write_code(remedies: Iterable[Remedy], number: int) -> str:
    return write_recipe(remedies, number) if isinstance(remedies, Remedies) else ""


def _build_code(code: str) -> Markup:
    return element("pre", element("code", code), tabindex=0)


def _build_remedy(change: Remedy, code: str = "") -> Markup:
    comparison, state = change.comparison, "good" if change.is_good else None
    return element(
        "div",
        element("b", change.title),
        element("span", f" {start_sentence(change.outcome_text)}", class_=state),
        element(
            "p",
            f"{comparison.metric}: {comparison.before_text} → {comparison.after_text}, wanted "
            f"{comparison.threshold_text}; diagnosis: {change.verdict_before} → "
            f"{change.verdict_after}; {change.loss_text}.",
        ),
        element("p", change.reason, class_="dim"),
        element("p", f"Changes {describe_edits(change.edits)}.", class_="dim")
        if change.edits
        else None,
        _build_code(code or change.command) if code or change.command else None,
        class_="finding",
    )


def _build_advice(advice: Sequence[Advice]) -> Markup | None:
    """Show what else is worth trying, set apart from what was measured."""
    if not advice:
        return None
    return element(
        "div",
        element("h3", "Advice, not measured"),
        [
            element(
                "div",
                element("b", each.title),
                element("p", each.reason, class_="dim"),
                _build_code(each.code),
                class_="finding",
            )
            for each in advice
        ],
    )
