"""The picture of a view, to share: SVG, and PNG for what shows no SVG, such as link previews."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from chainrule.app.state.view import View
from chainrule.display.cards import describe_spec
from chainrule.report.picture import draw_question

FONTS = tuple(
    str(Path(__file__).parent.parent / "assets/vendor" / name)
    for name in ("dejavu-sans.ttf", "dejavu-sans-bold.ttf")
)
"""What is written with: a server often has no fonts, and so every server draws the same."""

QUESTION = "What will this network do?"
"""Stands on the picture of a page whose answer is covered until the visitor has guessed."""


def write_picture_address(view: View) -> str:
    """Return the address of what a picture shows: the networks, and what the page asks first.

    How the page shows them (scale, layer, tour) is left out: short addresses are read.
    """
    shown = View(spec=view.spec, seeds=view.seeds, pin=view.pin, guess=view.guess, ask=view.ask)
    return shown.address


def cover_picture(view: View, address: str) -> str:
    """Return the picture of a view that keeps its answer covered, as SVG: it tells nothing."""
    return draw_question(QUESTION, describe_spec(view.spec), address)


def rasterize(svg: str) -> bytes:
    """Return an SVG file as PNG, in its own size.

    Args:
        svg: The file's text.

    Example:
        >>> rasterize('<svg xmlns="http://www.w3.org/2000/svg" width="2" height="1"/>')[1:4]
        b'PNG'
    """
    from resvg_py import svg_to_bytes  # a server that nobody asks for a picture does without

    return bytes(
        svg_to_bytes(
            svg_string=svg,
            skip_system_fonts=True,
            font_files=list(FONTS),
            font_family="DejaVu Sans",
            sans_serif_family="DejaVu Sans",
        )
    )


KINDS: Mapping[str, tuple[str, Callable[[str], bytes]]] = MappingProxyType(
    {"png": ("image/png", rasterize), "svg": ("image/svg+xml", str.encode)}
)
"""Media type of each kind of picture, and what makes it of the SVG."""
