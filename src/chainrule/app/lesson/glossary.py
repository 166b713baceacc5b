"""The lesson's glossary: terms and what they mean, in its notation (`text/glossary.md`)."""

from chainrule.app.text import read_paragraphs

GLOSSARY: tuple[tuple[str, str], ...] = tuple(
    (title, paragraphs[0]) for title, paragraphs in read_paragraphs("glossary").items()
)
"""Terms and meanings, in display order."""
