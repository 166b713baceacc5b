"""The lesson's sections of running text as HTML."""

from collections.abc import Iterable

from chainrule._utils.html import Markup, element, render
from chainrule._utils.numbers import format_number
from chainrule.app.lesson import story
from chainrule.app.lesson.glossary import GLOSSARY, WORDS
from chainrule.app.lesson.markup import render_link
from chainrule.app.lesson.plots import plot_profile
from chainrule.app.lesson.questions import QUESTIONS
from chainrule.app.lesson.readings import READINGS
from chainrule.app.lesson.writer import Writer, write_code, write_formula
from chainrule.app.state.paths import write_paths
from chainrule.app.state.subjects import ADDRESSES, SUBJECTS
from chainrule.chain.graph_presets import EXPRESSIONS
from chainrule.spec.network_spec import NetworkSpec


def write_paragraphs(writer: Writer, texts: Iterable[str]) -> Markup:
    """Return paragraphs."""
    return render(*map(writer.paragraph, texts))


def write_game(writer: Writer) -> Markup:
    """Return the telephone game and its toy, which lesson.js brings to life."""
    multiplier = writer.figures.number("game.multiplier")
    layers = writer.figures.number("game.layers")
    tries = [
        element(
            "button",
            words,
            type="button",
            data_multiplier=f"{value:.2f}",
            data_layers=f"{count:.0f}",
            data_network=address,
        )
        for words, value, count, address in (
            (f"halve it {layers:.0f} times", multiplier, layers, None),
            *(
                (
                    words,
                    writer.figures.number(f"{name}.step"),
                    SUBJECTS[name].depth - 1,
                    ADDRESSES[name],
                )
                for words, name in (
                    ("like sigmoid", "vanishing"),
                    ("like ReLU + He", "healthy"),
                    ("like ReLU + spread 1", "exploding"),
                )
            ),
        )
    ]
    toy = element(
        "div",
        element(
            "div",
            _write_slider("multiplier", "Each layer multiplies by", 0.1, 2, 0.01, multiplier),
            _write_slider("layers", "Number of steps", 1, 50, 1, layers),
            class_="ls-sliders",
        ),
        element("div", *tries, class_="ls-tries", role="group", aria_label="examples"),
        element("div", class_="ls-row", data_part="row", aria_hidden="true"),
        element(
            "div",
            element("span", "← what arrives (layer 1)"),
            element("span", "what was said (loss)"),
            class_="ls-ends",
            aria_hidden="true",
        ),
        element("p", class_="ls-result", data_part="result", role="status"),
        class_="ls-toy",
        data_part="toy",
    )
    return render(*map(writer.paragraph, story.GAME), toy, writer.paragraph(story.GAME_AFTER))


def write_steps(writer: Writer) -> Markup:
    """Return how to use the explorer, step by step."""
    steps = [
        element("li", element("strong", title), " ", writer.text(words))
        for title, words in story.STEPS
    ]
    return render(element("ol", *steps, class_="ls-steps"), writer.paragraph(story.STEPS_AFTER))


def write_step(writer: Writer) -> Markup:
    """Return what one layer multiplies by, with one unit: the step from the game to the product."""
    first, second, *others = map(writer.paragraph, story.STEP)
    return render(first, second, write_formula(story.STEP_FORMULA), *others)


def write_why(writer: Writer) -> Markup:
    """Return the product formula and the variance rules."""
    texts = [writer.paragraph(words) for words in story.WHY]
    formulas = [write_formula(latex) for latex in story.WHY_FORMULAS]
    lines = [
        element(
            "div",
            element("dt", name),
            element("dd", write_formula(latex), writer.paragraph(words)),
        )
        for name, latex, words in story.VARIANCE_LINES
    ]
    chain = element(
        "a",
        "the network in the picture",
        href="/chain-rule",
        data_part="chain",
        data_depth=NetworkSpec().depth,  # what an address that does not say means
        data_activation=NetworkSpec().activation,
    )
    return render(
        [part for pair in zip(texts, [*formulas, None], strict=True) for part in pair],
        writer.paragraph(story.VARIANCE),
        element("dl", *lines, class_="ls-lines"),
        writer.paragraph(story.VARIANCE_AFTER),
        element("p", writer.text(story.WALK), " Or open it for ", chain, "."),
    )


def write_residual(writer: Writer) -> Markup:
    """Return what residual connections do to the product, and where to see its paths."""
    first, *others = map(writer.paragraph, story.RESIDUAL)
    preset = EXPRESSIONS["residual"]
    way = element("a", "See the four paths, with numbers to change", href=write_paths(preset))
    return render(first, write_formula(story.RESIDUAL_FORMULA), *others, element("p", way, "."))


def write_looks(writer: Writer) -> Markup:
    """Return a vanishing, a healthy and an exploding network side by side."""
    cards = []
    for name, (title, words) in story.LOOKS.items():
        norms = writer.figures.profiles[name]["norms"]
        description = (
            f"{title}: gradient norm of layers 1 to {len(norms)}, from "
            f"{format_number(norms[0])} to {format_number(norms[-1])}"
        )
        cards.append(
            element(
                "figure",
                element("h3", title, class_=f"ls-{name}"),
                plot_profile(norms, writer.figures.number(f"{name}.error"), description),
                element("figcaption", writer.text(words)),
            )
        )
    return render(writer.paragraph(story.LOOKS_NOTE), element("div", *cards, class_="ls-three"))


def write_pytorch(writer: Writer) -> Markup:
    """Return how to read gradients in PyTorch, and the place for the listing."""
    first, second = map(writer.paragraph, story.PYTORCH)
    listing = element(
        "div",
        element(
            "div",
            element("h3", "The network in the picture, as a script"),
            element(
                "div",
                element("button", "Copy", type="button", data_part="copy"),
                element(
                    "a",
                    "Download listing.py",
                    href="/listing.py",
                    download="listing.py",
                    data_part="download",
                    class_="ls-button",
                ),
                element("span", role="status", data_part="copied", class_="ls-dim"),
                class_="ls-tools",
            ),
            class_="ls-head",
        ),
        element(
            "div",
            write_code(" ", "code", "the script"),
            element(
                "div",
                element("h4", "What it prints"),
                write_code(" ", "output", "what the script prints"),
                element("p", class_="ls-note", data_part="listing-note"),
            ),
            class_="ls-code",
        ),
        class_="ls-listing",
        data_part="listing",
    )
    return render(
        first,
        write_code(story.PYTORCH_SNIPPET, None, "reading gradients"),
        second,
        listing,
        writer.paragraph(story.PYTORCH_OWN),
        write_code(story.PYTORCH_OWN_SNIPPET, None, "measuring a model with chainrule"),
    )


def write_questions(writer: Writer) -> Markup:
    """Return questions and answers."""
    entries = [
        element("details", element("summary", question), writer.paragraph(answer))
        for question, answer in QUESTIONS
    ]
    return element("div", *entries, class_="ls-questions")


def write_glossary(writer: Writer) -> Markup:
    """Return the glossary; a term that pages mark carries the words by which they know it."""
    entries = [
        element(
            "div",
            element("dt", writer.text(term), data_words="|".join(WORDS.get(term, ())) or None),
            element("dd", writer.text(meaning)),
        )
        for term, meaning in GLOSSARY
    ]
    return element("dl", *entries, class_="ls-glossary")


def write_readings(writer: Writer) -> Markup:
    """Return the reading list and where the lesson's own figures come from."""
    entries = [
        element(
            "li",
            f"{reading.authors} ({reading.year}). ",
            element("cite", reading.title),
            ". ",
            reading.venue if reading.link is None else render_link(reading.venue, reading.link, {}),
            ".",
            element("span", reading.reason, class_="ls-note"),
        )
        for reading in READINGS
    ]
    made = writer.figures.provenance
    versions = f" Measured with chainrule {made['chainrule']} on PyTorch {made['torch']}."
    return render(
        element("ul", *entries, class_="ls-readings"),
        element("h3", "Where the numbers come from"),
        element("p", writer.text(story.PROVENANCE), versions, class_="ls-note"),
    )


def _write_slider(
    name: str, label: str, low: float, high: float, step: float, value: float
) -> Markup:
    return element(
        "label",
        element("span", label, " ", element("b", f"{value:g}", data_part=f"{name}-value")),
        element(
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
