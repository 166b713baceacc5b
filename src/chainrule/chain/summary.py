"""A derivation with everything around it as plain text for a terminal."""

from chainrule._utils.numbers import to_subscript
from chainrule.chain.derivation import Derivation
from chainrule.chain.formulas import NAMES
from chainrule.chain.layers import ChainLayer
from chainrule.chain.notation import format_equal, format_wide, render_text
from chainrule.chain.recurrence import Recurrence

MAX_LAYERS_LISTED = 12
"""Of a longer forward pass only both ends are listed."""


def summarize_derivation(derivation: Derivation, *, fold: bool = True) -> str:
    """Return what the symbols mean, the forward pass, the derivation, and what became of its value.

    Args:
        derivation: The derivation.
        fold: Whether to leave out the middle of what is long.
    """
    rows = list_layer_rows(derivation, fold=fold)
    cells = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    layers = [
        "   ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    paragraphs = [
        "\n".join(derivation.describe_symbols()),
        "\n".join(layers),
        derivation.to_text(fold=fold),
    ]
    note = derivation.describe_range()
    return "\n\n".join([*paragraphs, note] if note else paragraphs)


def summarize_recurrence(recurrence: Recurrence) -> str:
    """Return the product through time with its weight taken out, and what clipping does.

    Args:
        recurrence: The recurrent network.
    """
    left = render_text(recurrence.subject)
    product, numbers, _ = recurrence.write_lines()
    last = recurrence.steps[-1]
    signs = recurrence.list_signs()
    lines = [
        "The same weight in every step, w₁ = w₂ = … = w:",
        f"{left} = {render_text(product)}",
        f"{' ' * len(left)} {signs[0]} {render_text(numbers)}",
        f"{' ' * len(left)} {format_equal(last.product, signs[1])}",
    ]
    lines.append(f"∂p/∂w, summed over all steps, is {format_wide(recurrence.gradient)}.")
    if recurrence.clip is not None:
        factor = format_wide(recurrence.clip_factor)
        clipped = format_wide(recurrence.clipped_gradient)
        lines.append(f"Clipped: × {factor} = {clipped}. {recurrence.clipping}")
    return "\n".join(lines)


def list_layer_rows(derivation: Derivation, *, fold: bool = True) -> list[tuple[str, ...]]:
    """Return the forward pass: the input, then weight, bias, z, h and slope of every layer.

    Args:
        derivation: The derivation.
        fold: Whether one row "⋯ k layers ⋯" stands for the middle of a deep chain.
    """
    chain = derivation.chain
    half = MAX_LAYERS_LISTED // 4
    rows = [_list_values(layer, chain.biases is not None) for layer in chain.layers]
    if fold and len(rows) > MAX_LAYERS_LISTED:
        rows[half:-half] = [(f"⋯ {len(rows) - 2 * half} layers ⋯",)]
    return [(f"x = {format_wide(chain.layers[0].input)}",), *rows]


def _list_values(layer: ChainLayer, biased: bool) -> tuple[str, ...]:
    n = to_subscript(layer.number)
    return (
        f"w{n} {format_equal(layer.weight)}",
        *([f"b{n} {format_equal(layer.bias)}"] if biased else []),
        f"z{n} {format_equal(layer.z)}",
        f"h{n} {format_equal(layer.h)}",
        f"{NAMES[layer.activation.name]}′(z{n}) {format_equal(layer.slope)}",
    )
