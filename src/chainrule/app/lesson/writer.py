"""What the lesson's sections are written with."""

from dataclasses import dataclass

from chainrule.app.lesson.figures import Figures
from chainrule.app.lesson.markup import Html, render_link, render_math, render_text, tag
from chainrule.app.lesson.subjects import ADDRESSES
from chainrule.diagnosis.rules import MEANINGS, Verdict

_COLORS = {Verdict.HEALTHY: "good", Verdict.EXPLODING: "bad", Verdict.DEAD_UNITS: "bad"}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes texts with figures.

    Attributes:
        figures: Where the numbers come from.
    """

    figures: Figures

    def text(self, words: str) -> Html:
        """Return a text in the lesson's notation as HTML."""
        return render_text(words, self.figures.render, ADDRESSES)

    def paragraph(self, words: str, kind: str | None = None) -> Html:
        """Return a paragraph."""
        return tag("p", self.text(words), class_=kind)

    def write_verdict(self, subject: str) -> Html:
        """Return the diagnosis of a subject, in its colour."""
        verdict = Verdict(str(self.figures.values[f"{subject}.verdict"]))
        color = _COLORS.get(verdict, "warn")
        return tag("span", str(verdict), class_=f"ls-{color}", title=MEANINGS[verdict])

    def show(self, subject: str) -> Html:
        """Return the link that sets the explorer to a subject."""
        return render_link("show me", f"show:{subject}", ADDRESSES)


def write_formula(latex: str) -> Html:
    """Return a formula on a line of its own."""
    return tag("div", render_math(latex, block=True), class_="ls-formula")


def write_table(title: str, head: tuple[str, ...], rows: list[Html]) -> Html:
    """Return a table that scrolls in itself where the page is narrow."""
    cells = [tag("th", words, scope="col") if words else tag("td") for words in head]
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows)),
        class_="ls-table",
        tabindex=0,
        role="region",
        aria_label=f"table: {title}",
    )


def write_code(text: str, part: str | None, label: str) -> Html:
    """Return code, in a box that scrolls in itself."""
    code = tag("code", text, data_part=part)
    return tag("pre", code, tabindex=0, role="region", aria_label=label)
