"""The pages' longer texts: Markdown files, one a subject, a section for each heading."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

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
    # The texts are the project's own; what looks like HTML in them is still shown as text.
    markdown = MarkdownIt("commonmark", {"html": False})
    return tuple(Section(title, Markup(markdown.render(body))) for title, body in _split(name))


@cache
def read_paragraphs(name: str) -> Mapping[str, tuple[str, ...]]:
    """Return the paragraphs of each section of a text as they are written, by heading.

    Args:
        name: The name of its file, without the ending.
    """
    return MappingProxyType(
        {
            title: tuple(" ".join(part.split()) for part in re.split(r"\n{2,}", body.strip()))
            for title, body in _split(name)
        }
    )


def _split(name: str) -> list[tuple[str, str]]:
    """Return the sections of a text: heading and body."""
    text = resources.files(__package__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    return [(title.strip(), body) for title, body in zip(parts[::2], parts[1::2], strict=True)]
