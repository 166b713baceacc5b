"""Theory and measurement of the same start, in one sentence."""

import math
from collections.abc import Sequence

from chainrule._utils.numbers import format_number
from chainrule.errors import ChainruleError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.theory.expected import Expected, find_layers_outside

NARROW = 64
"""Units below which first-order corrections in 1/width are large."""


def describe_agreement(
    expected: Sequence[Expected | None],
    flow: GradientFlow,
    reason: str = "",
    measure: str = "weight",
) -> str:
    """Return whether measured medians lie in their bands, and if not, why.

    Args:
        expected: What theory says of ‖∂𝓛/∂W_l‖ or ‖δ_l‖, l = 1 … L.
        flow: A measurement with as many weight layers.
        reason: Why theory leaves something out.
        measure: "weight" for ‖∂𝓛/∂W‖, "delta" for ‖δ‖.

    Raises:
        ChainruleError: If the numbers of layers differ.

    Example:
        >>> import chainrule
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=1, width=4), 1)
        >>> describe_agreement([None], flow, "the width is too small")
        'Theory says nothing about these gradients: the width is too small.'
    """
    measured = flow.delta_norms if measure == "delta" else flow.weight_gradient_norms
    if len(measured) != len(expected):
        raise ChainruleError(
            f"theory: must be about as many weight layers as were measured; got {len(expected)} "
            f"for {len(measured)}. Predict the specification of the measurement: flow.spec."
        )
    pairs = [
        (number, theory, median)
        for number, (theory, median) in enumerate(zip(expected, measured, strict=True), start=1)
        if theory is not None
    ]
    if not pairs:
        return f"Theory says nothing about these gradients: {reason or 'none was measured'}."
    outside = find_layers_outside(expected, measured)
    shown = [pair for pair in pairs if not outside or pair[0] in outside]
    number, theory, median = max(shown, key=_measure_distance) if outside else shown[0]
    words = "nothing" if median is None else format_number(median)
    text = f"Layer {number}: measured {words}, theory {format_number(theory.median)}"
    text += f" ({format_number(theory.low)} to {format_number(theory.high)})."
    count = f"{len(pairs)} layers" if len(pairs) > 1 else "the one layer"
    left = f" Of {len(expected) - len(pairs)} more, theory says nothing: {reason}."
    left = left if len(pairs) < len(expected) else ""
    if not outside:
        return f"{text} They agree in {'all ' if len(pairs) > 1 else ''}{count}.{left}"
    away = [pair for pair in pairs if pair[0] in outside]
    return f"{text} They part in {len(outside)} of {count}: {_explain(away, flow)}.{left}"


Pair = tuple[int, Expected, float | None]


def _measure_distance(pair: Pair) -> float:
    """Return how far a median is from its theory, in logarithms."""
    _, theory, median = pair
    if not median or not math.isfinite(median) or theory.median <= 0.0:
        return math.inf
    return abs(math.log(median / theory.median))


def _explain(pairs: Sequence[Pair], flow: GradientFlow) -> str:
    """Return why medians are outside of their bands."""
    if any(math.isinf(_measure_distance(pair)) for pair in pairs):
        return "the measured values are zero or not finite, where the precision ends"
    spec = flow.spec
    if spec is not None and spec.width < NARROW:
        return f"theory is for wide layers, and {spec.width} units are few"
    if spec is not None and spec.normalization == "batchnorm":
        return "with batch normalization, the band leaves out corrections of the order batch/width"
    return "corrections of second order in depth/width and batch/width are not in the band"
