"""The whole lesson: a table of contents and its sections."""

from functools import cache

from chainrule.app.lesson import story
from chainrule.app.lesson.figures import Figures, load_figures
from chainrule.app.lesson.markup import Html, tag
from chainrule.app.lesson.sections import Writer


def write_lesson(figures: Figures) -> Html:
    """Return the lesson as HTML, with these figures."""
    writer = Writer(figures)
    sections = (
        ("game", "The telephone game", writer.write_game()),
        ("steps", "The page in four steps", writer.write_steps()),
        ("why", "Why gradients vanish or explode", writer.write_why()),
        ("looks", "Vanishing, healthy, exploding", writer.write_looks()),
        ("activations", "Activations", writer.write_activations()),
        ("initializations", "Initializations", writer.write_initializations()),
        ("claims", "Popular claims, measured", writer.write_claims()),
        ("pytorch", "Inspect gradients in PyTorch", writer.write_pytorch()),
        ("fix", "The quick fix", writer.write_fix()),
        ("questions", "Questions", writer.write_questions()),
        ("glossary", "Glossary", writer.write_glossary()),
        ("reading", "Reading list", writer.write_readings()),
    )
    entries = [tag("li", tag("a", title, href=f"#lesson-{name}")) for name, title, _ in sections]
    return tag(
        "div",
        tag("h2", "The lesson: why deep networks stop learning", id="lesson", tabindex=-1),
        writer.paragraph(story.INTRODUCTION, "ls-lead"),
        tag("nav", tag("ol", *entries), class_="ls-contents", aria_label="the lesson's sections"),
        *(
            tag(
                "section",
                tag("h3", title, id=f"lesson-{name}", tabindex=-1),
                body,
                class_=f"ls-section ls-section-{name}",
                aria_labelledby=f"lesson-{name}",
            )
            for name, title, body in sections
        ),
        class_="ls-lesson",
    )


@cache
def build_lesson() -> Html:
    """Return the lesson as HTML, with the figures that came with the package."""
    return write_lesson(load_figures())
