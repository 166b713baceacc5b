"""Text and style of the graph's SVG: formulas as tspans, colours as variables.

Colours are from the Okabe-Ito palette, darkened or lightened until text of them reads on its paper.
"""

from html import escape

from chainrule.chain.notation import render_text
from chainrule.chain.terms import Apply, Partial, Product, Symbol, Term

_LIGHT = {
    "ink": "#1f2328",
    "muted": "#57606a",
    "paper": "#ffffff",
    "node": "#f3f5f8",
    "outline": "#8a94a0",
    "gradient": "#00735a",
    "shrinks": "#0067a8",
    "keeps": "#6b7580",
    "grows": "#b84e00",
}
_DARK = {
    "ink": "#eef2f6",
    "muted": "#a3adb8",
    "paper": "#16191d",
    "node": "#252b33",
    "outline": "#78838f",
    "gradient": "#3ecf9f",
    "shrinks": "#5cb0f2",
    "keeps": "#97a2ad",
    "grows": "#ff9c4d",
}


def _declare(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:var(--chain-{name},{colour});" for name, colour in palette.items())


_KINDS = "".join(
    f".chain-graph .{kind} .line{{stroke:var(--{colour})}}"
    f".chain-graph .arrow.{kind} path{{fill:var(--{colour})}}"
    f".chain-graph .{kind} .number{{fill:var(--{colour})}}"
    for kind, colour in (
        ("shrinks", "shrinks"),
        ("keeps", "keeps"),
        ("grows", "grows"),
        ("blocks", "muted"),
    )
)

STYLE = (
    f".chain-graph{{{_declare(_LIGHT)}"
    "font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;"
    "font-variant-numeric:tabular-nums;color-scheme:light dark}"
    f"@media (prefers-color-scheme:dark){{.chain-graph{{{_declare(_DARK)}}}}}"
    ".chain-graph .paper{fill:var(--paper)}"
    ".chain-graph text{fill:var(--ink)}"
    ".chain-graph .words{fill:var(--muted)}"
    ".chain-graph .strong{font-weight:600;fill:var(--ink)}"
    ".chain-graph .value{font-weight:600}"
    ".chain-graph .gradient{font-weight:600;fill:var(--gradient)}"
    ".chain-graph .headline{font-size:19px}"
    ".chain-graph .number{font-weight:600}"
    ".chain-graph .symbol{font-size:17px}"
    ".chain-graph .operation{font-size:21px}"
    ".chain-graph .operation.long{font-size:12px;font-weight:600}"
    ".chain-graph .v{font-family:'STIX Two Text','Cambria Math',Cambria,Georgia,'DejaVu Serif',"
    "serif;font-style:italic;font-size:1.08em}"
    ".chain-graph .i{font-size:.76em}"
    ".chain-graph .shape{fill:var(--node);stroke:var(--outline);stroke-width:1.5}"
    ".chain-graph .fold .shape{stroke-dasharray:5 4}"
    ".chain-graph .on-path .shape{stroke:var(--ink)}"
    ".chain-graph .line{fill:none}"
    ".chain-graph .reach{fill:none;stroke:transparent;stroke-width:18px}"
    ".chain-graph .blocks .line{stroke-dasharray:3 5}"
    f"{_KINDS}"
    ".chain-graph .off-path text{opacity:.8}"
    ".chain-graph .off-path .line,.chain-graph .off-path .shape{opacity:.45}"
    ".chain-graph .lit .line,.chain-graph .lit .shape,.chain-graph .lit text{opacity:1}"
    ".chain-graph .lit .shape{stroke:var(--gradient);stroke-width:3}"
    ".chain-graph .edge.lit .line{stroke:var(--gradient);filter:drop-shadow(0 0 3px currentColor)}"
    ".chain-graph .edge:focus-visible{outline:2px solid var(--gradient);outline-offset:4px}"
)
"""The style sheet of a graph."""

_SHIFT = 3.5
"""How far an index is lowered, in pixels at 13 px."""


def set_text(x_text: str, x: float, y: float, style: str, *, anchor: str = "middle") -> str:
    """Return a line of text.

    Args:
        x_text: The text.
        x: Where it is anchored.
        y: Its baseline.
        style: Its classes.
        anchor: "start", "middle" or "end".
    """
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(x_text)}</text>"
    )


def set_term(
    term: Term, x: float, y: float, style: str, *, anchor: str = "middle", size: float = 13.0
) -> tuple[str, float]:
    """Return a term as a line of text, variables in italics and indices lowered, and its width.

    Args:
        term: A symbol, a derivative, a product of symbols, a function, or a number.
        x: Where it is anchored.
        y: Its baseline.
        style: Its classes.
        anchor: "start", "middle" or "end".
        size: Its font size in pixels.
    """
    spans = []
    level = 0.0
    tokens = _split(term)
    for text, kind in tokens:
        target = _SHIFT * size / 13.0 if kind == "i" else 0.0
        move = f' dy="{target - level:.1f}"' if target != level else ""
        spans.append(f'<tspan class="{kind}"{move}>{escape(text)}</tspan>')
        level = target
    width = sum(measure_text(text, size * (0.76 if kind == "i" else 1.0)) for text, kind in tokens)
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{''.join(spans)}</text>",
        width,
    )


def measure_text(text: str, size: float) -> float:
    """Return about how wide a text is in pixels.

    Args:
        text: The text.
        size: Its font size in pixels.
    """
    narrow = sum(character in " .,il|()′·⁻" for character in text)
    return size * (0.6 * len(text) - 0.28 * narrow)


def _split(term: Term) -> list[tuple[str, str]]:
    """Return the parts of a term: v for variables, i for indices, o for everything else."""
    match term:
        case Symbol(name, index):
            return [(name, "v")] + ([] if index is None else [(str(index), "i")])
        case Partial(of, by):
            below = _split(by)
            if isinstance(by, Product):
                below = [("(", "o"), *below, (")", "o")]
            return [("∂", "o"), *_split(of), ("/∂", "o"), *below]
        case Product(factors):
            parts = [part for factor in factors for part in (("·", "o"), *_split(factor))]
            return parts[1:]
        case Apply(function, (argument,)):
            return [(function, "o"), ("(", "o"), *_split(argument), (")", "o")]
        case _:
            return [(render_text(term), "o")]
