"""HTML and SVG that is safe by construction: text is escaped, unless it is markup made here."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

__all__ = ["VOID", "Content", "Markup", "element", "render"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
"""Characters that HTML does not allow or that change how their surroundings are read."""

VOID = frozenset(
    (
        "meta",
        "link",
        "br",
        "hr",
        "input",
        "path",
        "line",
        "rect",
        "circle",
        "image",
        "polygon",
        "polyline",
    )
)
"""Elements without content; those of SVG are closed in themselves."""

Content = str | float | None | Sequence["Content"]
"""What an element can hold: text, a number, nothing, or several of these."""


def render(*content: Content) -> Markup:
    """Return content as markup: text escaped, `None` as nothing, several joined.

    Example:
        >>> render("1 < 2", Markup("<br/>"))
        Markup('1 &lt; 2<br/>')
    """
    return Markup("".join(map(_render, content)))


def _render(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Markup):
        return content
    if isinstance(content, str | int):
        return escape(_CONTROL.sub("\ufffd", str(content)))
    if isinstance(content, float):
        return f"{content:.1f}".removesuffix(".0")
    return "".join(map(_render, content))


def element(name: str, /, *content: Content, **attributes: Content) -> Markup:
    """Return an element.

    Args:
        name: Its name.
        content: What is in it.
        attributes: Its attributes: "_" in a name stands for "-", a trailing "_" is dropped
            (`class_` means class). `True` gives an attribute without a value; `None` and `False`
            leave it out.

    Example:
        >>> element("p", "a", class_="note")
        Markup('<p class="note">a</p>')
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_render(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID and not content:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{render(*content)}</{name}>")
