"""The whole lesson: a table of contents and its sections."""

from functools import cache

from chainrule._utils.html import Markup, element
from chainrule.app.lesson import story
from chainrule.app.lesson.figures import Figures, load_figures
from chainrule.app.lesson.scenes import SCENES, write_scene
from chainrule.app.lesson.sections import (
    write_game,
    write_glossary,
    write_looks,
    write_paragraphs,
    write_pytorch,
    write_questions,
    write_readings,
    write_residual,
    write_step,
    write_steps,
    write_why,
)
from chainrule.app.lesson.tables import write_activations, write_fix, write_initializations
from chainrule.app.lesson.verdicts import write_claims
from chainrule.app.lesson.writer import Writer

SHORT = ("problem", "game", "step", "residual")
"""The sections of the short way: what vanishes, why a product, what a factor is, and a cure."""

FIRST = frozenset(("why", "activations", "initializations", "fix", "claims"))
"""Sections so long that their control comes before their text."""


def write_lesson(figures: Figures) -> Markup:
    """Return the lesson as HTML, with these figures."""
    writer = Writer(figures)
    sections = (
        ("problem", "The gradient flow problem", write_paragraphs(writer, story.PROBLEM)),
        ("backprop", "Backpropagation in one picture", write_paragraphs(writer, story.BACKPROP)),
        ("game", "The telephone game", write_game(writer)),
        ("tool", "What this tool does", write_paragraphs(writer, story.TOOL)),
        ("steps", "How to use the explorer", write_steps(writer)),
        ("step", "What one layer multiplies by", write_step(writer)),
        ("why", "Why gradients vanish or explode", write_why(writer)),
        ("residual", "Residual connections: a path around", write_residual(writer)),
        ("looks", "Vanishing, healthy, exploding", write_looks(writer)),
        ("activations", "Activations", write_activations(writer)),
        ("initializations", "Initializations", write_initializations(writer)),
        ("fix", "The quick fix", write_fix(writer)),
        ("claims", "Popular claims, measured", write_claims(writer)),
        ("pytorch", "Inspect gradients in PyTorch", write_pytorch(writer)),
        ("questions", "Questions", write_questions(writer)),
        ("glossary", "Glossary", write_glossary(writer)),
        ("reading", "Reading list", write_readings(writer)),
    )
    entries = [
        element("li", element("a", title, href=f"#lesson-{name}")) for name, title, _ in sections
    ]
    titles = {name: title for name, title, _ in sections}
    short = [element("li", element("a", titles[name], href=f"#lesson-{name}")) for name in SHORT]
    return element(
        "div",
        writer.paragraph(story.INTRODUCTION, "ls-lead"),
        element(
            "nav",
            writer.paragraph(story.SHORT),
            element("ol", *short),
            class_="ls-short",
            aria_label="the short way",
        ),
        element(
            "nav", element("ol", *entries), class_="ls-contents", aria_label="the lesson's sections"
        ),
        *(
            element(
                "section",
                element("h2", title, id=f"lesson-{name}", tabindex=-1),
                *_place_scene(writer, name, body),
                class_=f"ls-section ls-section-{name}",
                aria_labelledby=f"lesson-{name}",
            )
            for name, title, body in sections
        ),
        class_="ls-lesson",
    )


def _place_scene(writer: Writer, name: str, body: Markup) -> tuple[Markup, ...]:
    """Return a section's text with its control: before tables and cards, after running text."""
    if name not in SCENES:
        return (body,)
    scene = write_scene(writer, name, SCENES[name])
    return (scene, body) if name in FIRST else (body, scene)


@cache
def build_glossary() -> Markup:
    """Return the glossary as HTML for a page that is not the lesson's."""
    glossary = write_glossary(Writer(load_figures()))
    return Markup(glossary.replace('href="#lesson-', 'href="/learn#lesson-'))


@cache
def build_lesson() -> Markup:
    """Return the lesson as HTML, with the figures that came with the package."""
    return write_lesson(load_figures())
