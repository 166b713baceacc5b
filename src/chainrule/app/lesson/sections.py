"""The lesson's sections as HTML."""

import math
from dataclasses import dataclass

from chainrule.activations import ACTIVATIONS, Activation
from chainrule.app.lesson import story
from chainrule.app.lesson.claims import CLAIMS, Claim, Standing
from chainrule.app.lesson.figures import Figures, render_number
from chainrule.app.lesson.glossary import GLOSSARY
from chainrule.app.lesson.markup import Html, join, render_link, render_math, render_text, tag
from chainrule.app.lesson.plots import plot_activation, plot_profile
from chainrule.app.lesson.questions import QUESTIONS
from chainrule.app.lesson.readings import READINGS
from chainrule.app.lesson.subjects import ADDRESSES, SUBJECTS
from chainrule.diagnoses import MEANINGS, Verdict
from chainrule.initializers import INITIALIZERS, Initializer
from chainrule.spec import NetworkSpec

_COLORS = {Verdict.HEALTHY: "good", Verdict.EXPLODING: "bad", Verdict.DEAD_UNITS: "bad"}

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


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the lesson's sections.

    Attributes:
        figures: Where its numbers come from.
    """

    figures: Figures

    def text(self, words: str) -> Html:
        """Return a text in the lesson's notation as HTML."""
        return render_text(words, self.figures.render, ADDRESSES)

    def paragraph(self, words: str, kind: str | None = None) -> Html:
        """Return a paragraph."""
        return tag("p", self.text(words), class_=kind)

    # ------------------------------------------------------------------ the sections

    def write_game(self) -> Html:
        """Return the telephone game and its toy, which lesson.js brings to life."""
        multiplier = self.figures.number("game.multiplier")
        layers = self.figures.number("game.layers")
        tries = [
            tag(
                "button",
                words,
                type="button",
                data_multiplier=f"{value:.2f}",
                data_layers=f"{count:.0f}",
            )
            for words, value, count in (
                ("halve it 5 times", multiplier, layers),
                *(
                    (words, self.figures.number(f"{name}.step"), SUBJECTS[name].depth)
                    for words, name in (
                        ("like sigmoid", "vanishing"),
                        ("like ReLU + He", "healthy"),
                        ("like ReLU + σ = 1", "exploding"),
                    )
                ),
            )
        ]
        toy = tag(
            "div",
            tag(
                "div",
                _write_slider("multiplier", "Each layer multiplies by", 0.1, 2, 0.01, multiplier),
                _write_slider("layers", "Number of layers", 1, 50, 1, layers),
                class_="ls-sliders",
            ),
            tag("div", *tries, class_="ls-tries", role="group", aria_label="examples"),
            tag("div", class_="ls-row", data_part="row", aria_hidden="true"),
            tag("p", class_="ls-result", data_part="result", role="status"),
            class_="ls-toy",
            data_part="toy",
        )
        return join(*map(self.paragraph, story.GAME), toy, self.paragraph(story.GAME_AFTER))

    def write_steps(self) -> Html:
        """Return how to use the page, in four steps."""
        steps = [
            tag("li", tag("strong", title), " ", self.text(words)) for title, words in story.STEPS
        ]
        return join(tag("ol", *steps, class_="ls-steps"), self.paragraph(story.STEPS_AFTER))

    def write_why(self) -> Html:
        """Return the product formula and the variance rules."""
        before, between, after = map(self.paragraph, story.WHY)
        first, product = (_write_formula(latex) for latex in story.WHY_FORMULAS)
        lines = [
            tag(
                "div",
                tag("dt", name),
                tag("dd", _write_formula(latex), self.paragraph(words)),
            )
            for name, latex, words in story.VARIANCE_LINES
        ]
        chain = tag(
            "a",
            "the configuration on screen",
            href="/chain-rule",
            data_part="chain",
            data_depth=NetworkSpec().depth,  # what an address that does not say means
            data_activation=NetworkSpec().activation,
        )
        return join(
            before,
            first,
            between,
            product,
            after,
            self.paragraph(story.VARIANCE),
            tag("dl", *lines, class_="ls-lines"),
            self.paragraph(story.VARIANCE_AFTER),
            tag("p", self.text(story.WALK), " Or open it for ", chain, "."),
        )

    def write_looks(self) -> Html:
        """Return a vanishing, a healthy and an exploding network side by side."""
        cards = []
        for name, (title, words) in story.LOOKS.items():
            norms = self.figures.profiles[name]
            description = (
                f"{title}: gradient norm of layers 1 to {len(norms)}, from {norms[0]:.2g} to "
                f"{norms[-1]:.2g}"
            )
            cards.append(
                tag(
                    "figure",
                    tag("h4", title, class_=f"ls-{name}"),
                    plot_profile(norms, description),
                    tag("figcaption", self.text(words)),
                )
            )
        return join(
            tag("div", *cards, class_="ls-three"), self.paragraph(story.LOOKS_NOTE, "ls-note")
        )

    def write_activations(self) -> Html:
        """Return the table of activations."""
        head = ("Activation", "Curves", "Formulas", "Range of φ", "Largest |φ′|", "Start with",
                "Risk", "Measured")  # fmt: skip
        rows = [self._write_activation(entry) for entry in ACTIVATIONS.values()]
        return join(self.paragraph(story.ACTIVATION_NOTE), _write_table("Activations", head, rows))

    def _write_activation(self, entry: Activation) -> Html:
        subject = f"activation_{entry.name}"
        low, high = entry.output_range
        return tag(
            "tr",
            tag(
                "th",
                entry.label,
                tag("span", entry.note, class_="ls-note"),
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
            tag("td", render_number(entry.derivative_max)),
            tag("td", INITIALIZERS[entry.initialization].label),
            tag("td", entry.risk, class_="ls-wide"),
            tag(
                "td",
                self.text(f"{{{subject}.step|times}} per layer, {{{subject}.first}} arrives: "),
                self._write_verdict(subject),
                " ",
                self._show(subject),
                class_="ls-wide",
            ),
        )

    def write_initializations(self) -> Html:
        """Return the table of initializations."""
        head = ("Initialization", "Variance of a weight", "Drawn", "Biases", "σ at width 64",
                "Best for", "With tanh", "With ReLU")  # fmt: skip
        rows = [self._write_initialization(entry) for entry in INITIALIZERS.values()]
        return join(
            self.paragraph(story.INITIALIZATION_NOTE),
            _write_table("Initializations", head, rows),
        )

    def _write_initialization(self, entry: Initializer) -> Html:
        measured = [
            tag(
                "td",
                self.text(f"{{{subject}.first}} "),
                self._write_verdict(subject),
                " ",
                self._show(subject),
            )
            for subject in (f"tanh_with_{entry.name}", f"relu_with_{entry.name}")
        ]
        forms = "one form" if len(entry.distributions) == 1 else entry.default_distribution
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
            tag("td", render_number(entry.standard_deviation(64, 64))),
            tag("td", entry.best_for, class_="ls-wide"),
            *measured,
        )

    def write_claims(self) -> Html:
        """Return the claims with their verdicts."""
        cards = [self._write_claim(claim) for claim in CLAIMS]
        return join(self.paragraph(story.CLAIMS_NOTE), tag("div", *cards, class_="ls-claims"))

    def _write_claim(self, claim: Claim) -> Html:
        standing = claim.judge(self.figures)
        icon, color = _STANDINGS[standing]
        items = []
        for case in claim.cases:
            holds = case.holds(self.figures)
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
                        self.figures.render(name, style),
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
            self.paragraph(claim.finding),
            tag(
                "details",
                tag(
                    "summary",
                    f"The {'case' if len(items) == 1 else f'{len(items)} cases'} measured",
                ),
                tag("p", "It holds where ", self.text(claim.test), ".", class_="ls-note"),
                tag("ul", *items, class_="ls-cases"),
            ),
            class_="ls-claim",
            id=f"lesson-claim-{claim.name}",
        )

    def write_pytorch(self) -> Html:
        """Return how to read gradients in PyTorch, and the place for the listing."""
        first, second = map(self.paragraph, story.PYTORCH)
        listing = tag(
            "div",
            tag(
                "div",
                tag("h4", "The configuration on screen, as a script"),
                tag(
                    "div",
                    tag("button", "Copy", type="button", data_part="copy"),
                    tag(
                        "a",
                        "Download listing.py",
                        href="/listing.py",
                        download="listing.py",
                        data_part="download",
                        class_="ls-button",
                    ),
                    tag("span", role="status", data_part="copied", class_="ls-dim"),
                    class_="ls-tools",
                ),
                class_="ls-head",
            ),
            tag(
                "div",
                _write_code(" ", "code", "the script"),
                tag(
                    "div",
                    tag("h5", "What it prints"),
                    _write_code(" ", "output", "what the script prints"),
                    tag("p", class_="ls-note", data_part="listing-note"),
                ),
                class_="ls-code",
            ),
            class_="ls-listing",
            data_part="listing",
        )
        return join(
            first,
            _write_code(story.PYTORCH_SNIPPET, None, "reading gradients"),
            second,
            listing,
            self.paragraph(story.PYTORCH_OWN),
            _write_code(story.PYTORCH_OWN_SNIPPET, None, "measuring a model with chainrule"),
        )

    def write_fix(self) -> Html:
        """Return what to change, in which order, with what it does."""
        head = ("Change", "Gradient at the first layer", "Diagnosis", "")
        parts = list(map(self.paragraph, story.FIX))
        for title, fixes in story.FIXES:
            rows = [
                tag(
                    "tr",
                    tag("th", words, scope="row", class_="ls-wide"),
                    tag("td", self.text(f"{{{before}.first}} → {{{after}.first}}")),
                    tag("td", self._write_verdict(after)),
                    tag("td", self._show(after)),
                )
                for words, before, after in fixes
            ]
            parts += [tag("h4", title), _write_table(title, head, rows)]
        return join(*parts, self.paragraph(story.FIX_AFTER))

    def write_questions(self) -> Html:
        """Return questions and answers."""
        entries = [
            tag("details", tag("summary", question), self.paragraph(answer))
            for question, answer in QUESTIONS
        ]
        return tag("div", *entries, class_="ls-questions")

    def write_glossary(self) -> Html:
        """Return the glossary."""
        entries = [
            tag("div", tag("dt", self.text(term)), tag("dd", self.text(meaning)))
            for term, meaning in GLOSSARY
        ]
        return tag("dl", *entries, class_="ls-glossary")

    def write_readings(self) -> Html:
        """Return the reading list and where the lesson's own figures come from."""
        entries = [
            tag(
                "li",
                f"{reading.authors} ({reading.year}). ",
                tag("cite", reading.title),
                ". ",
                reading.venue
                if reading.link is None
                else render_link(reading.venue, reading.link, {}),
                ".",
                tag("span", reading.reason, class_="ls-note"),
            )
            for reading in READINGS
        ]
        made = self.figures.provenance
        versions = f" Measured with chainrule {made['chainrule']} on PyTorch {made['torch']}."
        return join(
            tag("ul", *entries, class_="ls-readings"),
            tag("h4", "Where the numbers come from"),
            tag("p", self.text(story.PROVENANCE), versions, class_="ls-note"),
        )

    # ------------------------------------------------------------------ small parts

    def _write_verdict(self, subject: str) -> Html:
        verdict = Verdict(str(self.figures.values[f"{subject}.verdict"]))
        color = _COLORS.get(verdict, "warn")
        return tag("span", str(verdict), class_=f"ls-{color}", title=MEANINGS[verdict])

    def _show(self, subject: str) -> Html:
        return render_link("show me", f"show:{subject}", ADDRESSES)


def _write_formula(latex: str) -> Html:
    return tag("div", render_math(latex, block=True), class_="ls-formula")


def _write_bound(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.3g}".replace("-", "−")


def _write_table(title: str, head: tuple[str, ...], rows: list[Html]) -> Html:
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


def _write_code(text: str, part: str | None, label: str) -> Html:
    code = tag("code", text, data_part=part)
    return tag("pre", code, tabindex=0, role="region", aria_label=label)


def _write_slider(
    name: str, label: str, low: float, high: float, step: float, value: float
) -> Html:
    return tag(
        "label",
        tag("span", label, " ", tag("output", f"{value:g}", data_part=f"{name}-value")),
        tag(
            "input",
            type="range",
            min=f"{low:g}",
            max=f"{high:g}",
            step=f"{step:g}",
            value=f"{value:g}",
            data_part=name,
        ),
    )
