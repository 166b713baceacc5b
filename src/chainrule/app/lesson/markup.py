"""The notation that the lesson is written in: formulas, measured values, links."""

import re
from collections.abc import Callable, Mapping
from functools import cache

from latex2mathml.converter import convert

from chainrule._utils.html import Markup, element, render


@cache
def render_math(latex: str, *, block: bool = False) -> Markup:
    """Return a formula in LaTeX as MathML."""
    text = unescape_marks(convert(latex, display="block" if block else "inline"))
    # Letter by letter, a name would be read out as a product; as an operator, it gets gaps.
    for pattern in (r'(?:<mi mathvariant="normal">\w</mi>){2,}', r"<mo>\w+</mo>"):
        text = re.sub(pattern, _join_letters, text)
    # A prime is raised by itself; as a superscript it would be too small to see.
    name = r"<mi>[^<]+</mi>"
    primed = rf"<msup>({name}|<mrow>{name}</mrow>)<mi>′</mi></msup>"
    return Markup(re.sub(primed, r'<mrow>\1<mo lspace="0" rspace="0">′</mo></mrow>', text))


def unescape_marks(text: str) -> str:
    """Return MathML with its character references as characters, but for those that it needs."""
    return re.sub(
        r"&#x([0-9A-F]+);",
        lambda found: found[0] if chr(int(found[1], 16)) in "<>&" else chr(int(found[1], 16)),
        text,
    )


def _join_letters(found: re.Match[str]) -> str:
    letters = "".join(re.findall(r">(\w+)<", found[0]))
    upright = ' mathvariant="normal"' if len(letters) == 1 else ""
    return f"<mi{upright}>{letters}</mi>"


_NOTATION = re.compile(
    r"\$(?P<math>[^$]+)\$"
    r"|\{(?P<figure>\w+\.\w+)(?:\|(?P<style>[\w%]+))?\}"
    r"|\[(?P<words>[^\]]+)\]\((?P<target>[^)]+)\)"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|\*(?P<emphasis>.+?)\*"
    r"|`(?P<code>[^`]+)`"
)


def find_figures(text: str) -> list[tuple[str, str | None]]:
    """Return the figures (name, style) that a text asks for."""
    return [
        pair
        for found in _NOTATION.finditer(text)
        for pair in (
            [(found["figure"], found["style"])]
            if found["figure"]
            else find_figures(found["words"] or found["strong"] or found["emphasis"] or "")
        )
    ]


def find_targets(text: str) -> list[str]:
    """Return the targets that a text links to."""
    return [found["target"] for found in _NOTATION.finditer(text) if found["target"]]


def strip_notation(text: str) -> str:
    """Return the words of a text alone: no figures, formulas, code or targets."""
    return _NOTATION.sub(
        lambda found: strip_notation(found["words"] or found["strong"] or found["emphasis"] or ""),
        text,
    )


def render_text(
    text: str, figure: Callable[[str, str | None], Markup], addresses: Mapping[str, str]
) -> Markup:
    """Return a text of the lesson as HTML.

    Its notation: $LaTeX$, {name.figure} or {name.figure|style}, [words](target), **strong**,
    *emphasis*, `code`. A target is show:NAME for a network of `addresses` in the picture,
    open:NAME for the same in the explorer (open:NAME#PART for a part of it), a path, an anchor or
    an address.

    Args:
        text: What to render.
        figure: Gives the HTML of a figure by name and style.
        addresses: The explorer's address of every named network.
    """
    parts: list[Markup] = []
    end = 0
    for found in _NOTATION.finditer(text):
        parts.append(render(text[end : found.start()]))
        end = found.end()
        if found["math"]:
            parts.append(render_math(found["math"]))
        elif found["figure"]:
            parts.append(figure(found["figure"], found["style"]))
        elif found["target"]:
            words = render_text(found["words"], figure, addresses)
            parts.append(render_link(words, found["target"], addresses))
        elif found["code"]:
            parts.append(element("code", found["code"]))
        else:
            name = "strong" if found["strong"] else "em"
            inner = found["strong"] or found["emphasis"]
            parts.append(element(name, render_text(inner, figure, addresses)))
    parts.append(render(text[end:]))
    return render(*parts)


def render_link(words: str, target: str, addresses: Mapping[str, str]) -> Markup:
    """Return a link; those that set the picture beside the text are marked as such."""
    if target.startswith("show:"):
        return element("a", words, href=addresses[target.removeprefix("show:")], data_show=True)
    if target.startswith("open:"):
        name, mark, place = target.removeprefix("open:").partition("#")
        return element("a", words, href=f"{addresses[name]}{mark}{place}")
    outside = {"rel": "noopener noreferrer", "target": "_blank"} if "://" in target else {}
    return element("a", words, href=target, **outside)
