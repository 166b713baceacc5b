"""The whole lesson: a table of contents and its sections."""

from functools import cache

from chainrule._utils.html import Markup, element
from chainrule.app.lesson import story
from chainrule.app.lesson.figures import Figures, load_figures
from chainrule.app.lesson.sections import (
    write_game,
    write_glossary,
    write_looks,
    write_pytorch,
    write_questions,
    write_readings,
    write_steps,
    write_why,
)
from chainrule.app.lesson.tables import write_activations, write_fix, write_initializations
from chainrule.app.lesson.verdicts import write_claims
from chainrule.app.lesson.writer import Writer


def write_lesson(figures: Figures) -> Markup:
    """Return the lesson as HTML, with these figures."""
    writer = Writer(figures)
    sections = (
        ("game", "The telephone game", write_game(writer)),
        ("steps", "The page in four steps", write_steps(writer)),
        ("why", "Why gradients vanish or explode", write_why(writer)),
        ("looks", "Vanishing, healthy, exploding", write_looks(writer)),
        ("activations", "Activations", write_activations(writer)),
        ("initializations", "Initializations", write_initializations(writer)),
        ("claims", "Popular claims, measured", write_claims(writer)),
        ("pytorch", "Inspect gradients in PyTorch", write_pytorch(writer)),
        ("fix", "The quick fix", write_fix(writer)),
        ("questions", "Questions", write_questions(writer)),
        ("glossary", "Glossary", write_glossary(writer)),
        ("reading", "Reading list", write_readings(writer)),
    )
    entries = [
        element("li", element("a", title, href=f"#lesson-{name}")) for name, title, _ in sections
    ]
    return element(
        "div",
        element(
            "h2", "The lesson: why deep networks stop learning", id="lesson-start", tabindex=-1
        ),
        writer.paragraph(story.INTRODUCTION, "ls-lead"),
        element(
            "nav", element("ol", *entries), class_="ls-contents", aria_label="the lesson's sections"
        ),
        *(
            element(
                "section",
                element("h3", title, id=f"lesson-{name}", tabindex=-1),
                body,
                class_=f"ls-section ls-section-{name}",
                aria_labelledby=f"lesson-{name}",
            )
            for name, title, body in sections
        ),
        class_="ls-lesson",
    )


@cache
def build_lesson() -> Markup:
    """Return the lesson as HTML, with the figures that came with the package."""
    return write_lesson(load_figures())
