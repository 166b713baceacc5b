"""The lesson's questions and answers, in the lesson's notation (`text/questions.md`)."""

from chainrule.app.text import read_paragraphs

QUESTIONS: tuple[tuple[str, str], ...] = tuple(
    (title, paragraphs[0]) for title, paragraphs in read_paragraphs("questions").items()
)
"""Questions and answers, in display order."""
