"""What the lesson's sections are written with."""

from dataclasses import dataclass

from chainrule._utils.html import Markup, element
from chainrule.app.lesson.figures import Figures
from chainrule.app.lesson.markup import render_link, render_math, render_text
from chainrule.app.state.subjects import ADDRESSES
from chainrule.diagnosis.rule import MEANINGS, Verdict

_COLORS = {Verdict.HEALTHY: "good", Verdict.EXPLODING: "bad", Verdict.DEAD_UNITS: "bad"}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes texts with figures.

    Attributes:
        figures: Where the numbers come from.
    """

    figures: Figures

    def text(self, words: str) -> Markup:
        """Return a text in the lesson's notation as HTML."""
        return render_text(words, self.figures.render, ADDRESSES)

    def paragraph(self, words: str, kind: str | None = None) -> Markup:
        """Return a paragraph."""
        return element("p", self.text(words), class_=kind)

    def write_verdict(self, subject: str) -> Markup:
        """Return the diagnosis of a subject, in its colour."""
        verdict = Verdict(str(self.figures.values[f"{subject}.verdict"]))
        color = _COLORS.get(verdict, "warn")
        return element("span", str(verdict), class_=f"ls-{color}", title=MEANINGS[verdict])

    def show(self, subject: str) -> Markup:
        """Return the link that sets the explorer to a subject."""
        return render_link("show me", f"show:{subject}", ADDRESSES)


def write_formula(latex: str) -> Markup:
    """Return a formula on a line of its own."""
    return element("div", render_math(latex, block=True), class_="ls-formula")


def write_table(title: str, head: tuple[str, ...], rows: list[Markup]) -> Markup:
    """Return a table that scrolls in itself where the page is narrow."""
    cells = [element("th", words, scope="col") if words else element("td") for words in head]
    return element(
        "div",
        element("table", element("thead", element("tr", *cells)), element("tbody", *rows)),
        class_="ls-table",
        tabindex=0,
        role="region",
        aria_label=f"table: {title}",
    )


def write_code(text: str, part: str | None, label: str) -> Markup:
    """Return code, in a box that scrolls in itself."""
    code = element("code", text, data_part=part)
    return element("pre", code, tabindex=0, role="region", aria_label=label)
