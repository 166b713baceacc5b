"""HTML and SVG that is safe by construction: text is escaped, unless it is markup made here."""

import re
from collections.abc import Sequence
from html import escape

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Characters that HTML does not allow or that change how their surroundings are read."""

_VOID = frozenset({"meta", "br", "path", "line", "rect", "circle", "image", "polygon", "hr"})


class Markup(str):
    """Text that is markup already; it is put into a page as it is."""

    __slots__ = ()


Content = str | float | None | Sequence["Content"]
"""What an element can hold: text, a number, nothing, or several of these."""


def render(content: Content) -> Markup:
    """Return content as markup: text escaped, `None` as nothing, several joined."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, float):
        return Markup(f"{content:.1f}".removesuffix(".0"))
    if not isinstance(content, str | int):
        return Markup("".join(render(part) for part in content))
    return Markup(escape(_CONTROL.sub("\ufffd", str(content))))


def element(tag: str, *content: Content, **attributes: Content) -> Markup:
    """Return an element.

    Args:
        tag: Its name.
        content: What is in it.
        attributes: Its attributes; `class_` and `data_tip` mean class and data-tip. `None` leaves
            one out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{render(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not content:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{render(content)}</{tag}>")
