"""The lesson's cards of claims, each with its verdict and the cases that it follows from."""

from chainrule.app.lesson import story
from chainrule.app.lesson.claims import CLAIMS, Claim, Standing
from chainrule.app.lesson.markup import Html, join, render_link, tag
from chainrule.app.lesson.subjects import ADDRESSES
from chainrule.app.lesson.writer import Writer

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


def write_claims(writer: Writer) -> Html:
    """Return the claims with their verdicts."""
    cards = [_write_claim(writer, claim) for claim in CLAIMS]
    return join(writer.paragraph(story.CLAIMS_NOTE), tag("div", *cards, class_="ls-claims"))


def _write_claim(writer: Writer, claim: Claim) -> Html:
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
            else Html(case.words)
        )
        items.append(
            tag(
                "li",
                tag("span", "✔" if holds else "✖", class_="ls-mark", aria_hidden="true"),
                tag("span", "holds: " if holds else "does not hold: ", class_="ls-hidden"),
                words,
                tag(
                    "span",
                    " ",
                    _WORDS.get(case.figure),
                    writer.figures.render(name, style),
                    class_="ls-dim",
                ),
                class_="ls-holds" if holds else "ls-fails",
            )
        )
    return tag(
        "article",
        tag("h4", f"“{claim.words}”"),
        tag(
            "p",
            tag("span", icon, aria_hidden="true"),
            f" {str(standing).capitalize()}",
            class_=f"ls-verdict ls-{color}",
            data_standing=str(standing),
        ),
        writer.paragraph(claim.finding),
        tag(
            "details",
            tag(
                "summary",
                f"The {'case' if len(items) == 1 else f'{len(items)} cases'} measured",
            ),
            tag("p", "It holds where ", writer.text(claim.test), ".", class_="ls-note"),
            tag("ul", *items, class_="ls-cases"),
        ),
        class_="ls-claim",
        id=f"lesson-claim-{claim.name}",
    )
