"""The pages' longer texts: Markdown files, one a subject, a section for each heading."""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from markdown_it import MarkdownIt
from markupsafe import Markup

_HEADING = re.compile(r"^## +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a text.

    Attributes:
        title: Its heading.
        body: Its paragraphs, as HTML.
    """

    title: str
    body: Markup


@cache
def read_sections(name: str) -> tuple[Section, ...]:
    """Return the sections of a text.

    Args:
        name: The name of its file, without the ending.
    """
    text = resources.files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    # The texts are the project's own; what looks like HTML in them is still shown as text.
    markdown = MarkdownIt("commonmark", {"html": False})
    return tuple(
        Section(title.strip(), Markup(markdown.render(body)))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    )
