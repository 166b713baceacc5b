"""The lesson's cards of claims, each with its verdict and the cases that it follows from."""

from chainrule._utils.html import Markup, element, render
from chainrule.app.lesson import story
from chainrule.app.lesson.claims import CLAIMS, Claim, Standing
from chainrule.app.lesson.markup import render_link
from chainrule.app.lesson.writer import Writer
from chainrule.app.state.subjects import ADDRESSES

_STANDINGS = {
    Standing.TRUE: ("✔", "good"),
    Standing.PARTLY: ("◐", "warn"),
    Standing.FALSE: ("✖", "bad"),
}

_WORDS = {
    "verdict": "",
    "dead": "dead: ",
    "sgd": "right: ",
    "step": "per layer: ",
    "std_last": "deviation: ",
    "ratio": "ratio: ",
}


def write_claims(writer: Writer) -> Markup:
    """Return the claims with their verdicts."""
    cards = [_write_claim(writer, claim) for claim in CLAIMS]
    return render(writer.paragraph(story.CLAIMS_NOTE), element("div", *cards, class_="ls-claims"))


def _write_claim(writer: Writer, claim: Claim) -> Markup:
    standing = claim.judge(writer.figures)
    icon, color = _STANDINGS[standing]
    items = []
    for case in claim.cases:
        holds = case.holds(writer.figures)
        name = f"{case.subject}.{case.figure}"
        style = "%" if case.figure in ("sgd", "dead") else None
        words = (
            render_link(case.words, f"show:{case.subject}", ADDRESSES)
            if case.subject in ADDRESSES
            else Markup(case.words)
        )
        items.append(
            element(
                "li",
                element("span", "✔" if holds else "✖", class_="ls-mark", aria_hidden="true"),
                element("span", "holds: " if holds else "does not hold: ", class_="ls-hidden"),
                words,
                element(
                    "span",
                    " ",
                    _WORDS.get(case.figure),
                    writer.figures.render(name, style),
                    class_="ls-dim",
                ),
                class_="ls-holds" if holds else "ls-fails",
            )
        )
    return element(
        "article",
        element("h3", f"“{claim.words}”"),
        element(
            "p",
            element("span", icon, aria_hidden="true"),
            f" {str(standing).capitalize()}",
            class_=f"ls-verdict ls-{color}",
            data_standing=str(standing),
        ),
        writer.paragraph(claim.finding),
        element(
            "details",
            element(
                "summary",
                f"The {'case' if len(items) == 1 else f'{len(items)} cases'} measured",
            ),
            element("p", "It holds where ", writer.text(claim.test), ".", class_="ls-note"),
            element("ul", *items, class_="ls-cases"),
        ),
        class_="ls-claim",
        id=f"lesson-claim-{claim.name}",
    )
