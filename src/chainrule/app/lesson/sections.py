"""The lesson's sections of running text as HTML."""

from chainrule._utils.numbers import format_number
from chainrule.app.lesson import story
from chainrule.app.lesson.glossary import GLOSSARY
from chainrule.app.lesson.markup import Html, join, render_link, tag
from chainrule.app.lesson.plots import plot_profile
from chainrule.app.lesson.questions import QUESTIONS
from chainrule.app.lesson.readings import READINGS
from chainrule.app.lesson.subjects import SUBJECTS
from chainrule.app.lesson.writer import Writer, write_code, write_formula
from chainrule.spec.network_spec import NetworkSpec


def write_game(writer: Writer) -> Html:
    """Return the telephone game and its toy, which lesson.js brings to life."""
    multiplier = writer.figures.number("game.multiplier")
    layers = writer.figures.number("game.layers")
    tries = [
        tag(
            "button",
            words,
            type="button",
            data_multiplier=f"{value:.2f}",
            data_layers=f"{count:.0f}",
        )
        for words, value, count in (
            (f"halve it {layers:.0f} times", multiplier, layers),
            *(
                (words, writer.figures.number(f"{name}.step"), SUBJECTS[name].depth)
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
        tag(
            "div",
            tag("span", "what was said"),
            tag("span", "what arrives"),
            class_="ls-ends",
            aria_hidden="true",
        ),
        tag("p", class_="ls-result", data_part="result", role="status"),
        class_="ls-toy",
        data_part="toy",
    )
    return join(*map(writer.paragraph, story.GAME), toy, writer.paragraph(story.GAME_AFTER))


def write_steps(writer: Writer) -> Html:
    """Return how to use the page, in four steps."""
    steps = [
        tag("li", tag("strong", title), " ", writer.text(words)) for title, words in story.STEPS
    ]
    return join(tag("ol", *steps, class_="ls-steps"), writer.paragraph(story.STEPS_AFTER))


def write_why(writer: Writer) -> Html:
    """Return the product formula and the variance rules."""
    before, between, after = map(writer.paragraph, story.WHY)
    first, product = (write_formula(latex) for latex in story.WHY_FORMULAS)
    lines = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", write_formula(latex), writer.paragraph(words)),
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
        writer.paragraph(story.VARIANCE),
        tag("dl", *lines, class_="ls-lines"),
        writer.paragraph(story.VARIANCE_AFTER),
        tag("p", writer.text(story.WALK), " Or open it for ", chain, "."),
    )


def write_looks(writer: Writer) -> Html:
    """Return a vanishing, a healthy and an exploding network side by side."""
    cards = []
    for name, (title, words) in story.LOOKS.items():
        norms = writer.figures.profiles[name]
        description = (
            f"{title}: gradient norm of layers 1 to {len(norms)}, from "
            f"{format_number(norms[0])} to {format_number(norms[-1])}"
        )
        cards.append(
            tag(
                "figure",
                tag("h4", title, class_=f"ls-{name}"),
                plot_profile(norms, writer.figures.number(f"{name}.error"), description),
                tag("figcaption", writer.text(words)),
            )
        )
    return join(
        tag("div", *cards, class_="ls-three"), writer.paragraph(story.LOOKS_NOTE, "ls-note")
    )


def write_pytorch(writer: Writer) -> Html:
    """Return how to read gradients in PyTorch, and the place for the listing."""
    first, second = map(writer.paragraph, story.PYTORCH)
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
            write_code(" ", "code", "the script"),
            tag(
                "div",
                tag("h5", "What it prints"),
                write_code(" ", "output", "what the script prints"),
                tag("p", class_="ls-note", data_part="listing-note"),
            ),
            class_="ls-code",
        ),
        class_="ls-listing",
        data_part="listing",
    )
    return join(
        first,
        write_code(story.PYTORCH_SNIPPET, None, "reading gradients"),
        second,
        listing,
        writer.paragraph(story.PYTORCH_OWN),
        write_code(story.PYTORCH_OWN_SNIPPET, None, "measuring a model with chainrule"),
    )


def write_questions(writer: Writer) -> Html:
    """Return questions and answers."""
    entries = [
        tag("details", tag("summary", question), writer.paragraph(answer))
        for question, answer in QUESTIONS
    ]
    return tag("div", *entries, class_="ls-questions")


def write_glossary(writer: Writer) -> Html:
    """Return the glossary."""
    entries = [
        tag("div", tag("dt", writer.text(term)), tag("dd", writer.text(meaning)))
        for term, meaning in GLOSSARY
    ]
    return tag("dl", *entries, class_="ls-glossary")


def write_readings(writer: Writer) -> Html:
    """Return the reading list and where the lesson's own figures come from."""
    entries = [
        tag(
            "li",
            f"{reading.authors} ({reading.year}). ",
            tag("cite", reading.title),
            ". ",
            reading.venue if reading.link is None else render_link(reading.venue, reading.link, {}),
            ".",
            tag("span", reading.reason, class_="ls-note"),
        )
        for reading in READINGS
    ]
    made = writer.figures.provenance
    versions = f" Measured with chainrule {made['chainrule']} on PyTorch {made['torch']}."
    return join(
        tag("ul", *entries, class_="ls-readings"),
        tag("h4", "Where the numbers come from"),
        tag("p", writer.text(story.PROVENANCE), versions, class_="ls-note"),
    )


def _write_slider(
    name: str, label: str, low: float, high: float, step: float, value: float
) -> Html:
    return tag(
        "label",
        tag("span", label, " ", tag("b", f"{value:g}", data_part=f"{name}-value")),
        tag(
            "input",
            type="range",
            aria_label=label,
            min=f"{low:g}",
            max=f"{high:g}",
            step=f"{step:g}",
            value=f"{value:g}",
            data_part=name,
        ),
    )
