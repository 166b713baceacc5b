"""The pages' glossary: terms, what they mean, and the words by which a page knows them.

There is one, in the lesson's notation (`text/glossary.md`). The lesson shows it as a section; the
explorer holds it folded, and explains each word where it stands (`assets/shared/terms.js`).
"""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.app.text import read_paragraphs

_TEXTS = read_paragraphs("glossary")
_MARK = "Words: "

GLOSSARY: tuple[tuple[str, str], ...] = tuple(
    (title, paragraphs[0]) for title, paragraphs in _TEXTS.items()
)
"""Terms and meanings, in display order."""

WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        title: tuple(paragraph.removeprefix(_MARK).split(", "))
        for title, paragraphs in _TEXTS.items()
        for paragraph in paragraphs[1:]
        if paragraph.startswith(_MARK)
    }
)
"""The words by which pages know a term, by its title; terms that no page marks are left out."""
