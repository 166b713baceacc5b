"""When a value counts as evidence: what layers of a chain receive, and what may make up for it.

A ratio of two layers, or answers that are nearly the same, say nothing by themselves. They count
where some gradient comes near the bound of its size, too.
"""

import math
from collections.abc import Sequence

from chainrule.diagnosis.input_rules import list_large
from chainrule.diagnosis.rule import Reading, read_layers
from chainrule.diagnosis.structure import (
    DISTINCT,
    USABLE_IN_CHAIN,
    count_units,
    drop_explained,
    list_before_small,
    list_chain,
    list_judged,
    moves,
)
from chainrule.diagnosis.time_rules import list_recurrent, measure_gates
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import WeightLayer, read_saturation

LARGEST_STEP = 1500.0
"""‖∂loss/∂W‖ ÷ error at the output from which on a step along the gradient is too large."""


def read_gradients(flow: GradientFlow, layers: Sequence[WeightLayer]) -> list[Reading]:
    """Return ‖∂loss/∂W‖ of weight layers relative to the error at the output."""
    error = flow.output_error

    def read(layer: WeightLayer) -> Quantity | None:
        norm = layer.weight_gradient_norm
        return norm if norm is None or error is None else divide_members(norm, error)

    return read_layers(layers, read)


def read_chain(flow: GradientFlow) -> list[Reading]:
    """The same of the chain; what passes gradients on in time is judged by that.

    The gates of a recurrent module scale its gradient, most of all where they start open or closed
    on purpose, and the bounds were measured on dense layers. So a layer before one counts only if
    its gradient would be too small without what they take from it. Nor does one count that is so
    small itself that its gradient moves it, or that small layers behind it keep from a larger one.
    """
    recurrent = list_recurrent(flow)
    layers = drop_explained(flow, list_judged(flow))
    readings = read_gradients(flow, [each for each in layers if each.layer not in recurrent])
    small = list_before_small(flow) | {x.layer for x in layers if moves(flow, x)}
    return [
        each
        for each in readings
        if each.value is None
        or each.value >= USABLE_IN_CHAIN
        or (
            each.value < USABLE_IN_CHAIN * measure_gates(flow, each.layers[0])
            and each.layers[0] not in small
        )
    ]


def is_nearly_large(flow: GradientFlow) -> bool:
    """Whether some gradient of a chain comes within a factor of 10 of the bound of its size.

    A ratio of gradients counts as evidence only then: alone it would call a network sick whose
    every layer receives plenty.
    """
    norms = [each.value for each in read_chain(flow) if each.value is not None]
    return bool(list_chain(flow)) and any(norm > 0.1 * LARGEST_STEP for norm in norms)


def is_nearly_small(flow: GradientFlow) -> bool:
    """The same at the other side, of layers that their gradient does not move."""
    layers = {layer.layer: layer for layer in flow.weight_layers}
    return bool(list_chain(flow)) and any(
        each.value < 10 * USABLE_IN_CHAIN and not moves(flow, layers[each.layers[0]])
        for each in read_chain(flow)
        if each.value is not None
    )


FLAT_SHARE = 0.9
"""Share of saturated activations from which on a layer is flat."""


def is_flat(layer: WeightLayer) -> bool:
    """Whether nearly all activations behind a layer are saturated.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> is_flat(simulate(NetworkSpec(depth=3, width=4)).weight_layers[0])
        False
    """
    saturation = read_saturation(layer)
    return saturation is not None and saturation > FLAT_SHARE


def list_saturable(flow: GradientFlow) -> tuple[WeightLayer, ...]:
    """Return the weight layers whose saturated activations would keep others from learning.

    Flat activations block the gradient for the layers before them, and the first has none. If its
    values still differ between the examples, and it receives a usable gradient itself, it is a
    layer of switches, from which the later ones learn. Measured: of 11 networks whose first layer
    was saturated by inputs of 60 to 10,000, plain SGD and Adam trained all.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> len(list_saturable(simulate(NetworkSpec(depth=3, width=4))))
        3
    """
    layers = flow.weight_layers
    if len(layers) < 2 or not is_flat(layers[0]):
        return layers
    first, error = layers[0], float(flow.output_error or 1.0)
    norm, variation = first.weight_gradient_norm, first.variation
    passes = (
        norm is not None
        and norm >= USABLE_IN_CHAIN * error
        and moves(flow, first)
        and variation is not None
        and variation >= DISTINCT
    )
    return layers[1:] if passes else layers


_BOUNDED = frozenset({"cross_entropy", "nll", "binary_cross_entropy_with_logits"})
"""Losses whose gradient at the output is at most 1 per example, however large they are."""

RATES_TO_UNDO = 1e-4, 100.0
"""Learning rates at which one step, to first order, may undo a large start: a tenth of the least
one that is usual, 0.001, and 100 steps at a rate of 1."""


_AMPLIFIED = 10.0
"""Error at the output ÷ the scale of the loss, above which a factor stands between them."""


def is_soon_undone(flow: GradientFlow) -> bool:
    """Whether a few steps undo a loss far above guessing, so that it is none of the network's.

    A cross-entropy grows with its logits, its gradient at the output does not: its size says how
    far there is to go, and ‖∂loss/∂θ‖² by how much a step at a learning rate of 1 lowers it, both
    in units of what it gives for guessing ÷ log(classes), so that its scale does not matter. Where
    even a step at the least usual rate goes ten times too far, the gradient is too large as well. A
    squared error is another matter: its size is how far the answers are off, and its gradient grows
    with it. So is one where a large factor stands between the output and the loss, or where the
    last layer is so large itself that its gradient does not move it.

    Measured: of 11 networks that start at 110 to 1,200 times guessing and so undo it, plain SGD
    trained 9, and Adam 10; of 3 that cannot, plain SGD trained none, and Adam 1.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> is_soon_undone(simulate(NetworkSpec(depth=3, width=4)))
        False
    """
    parts = () if flow.loss_facts is None else flow.loss_facts.parts
    if not parts or any(part.kind not in _BOUNDED or not part.guessing for part in parts):
        return False
    unit = math.fsum(
        float(each.guessing or 0.0) / math.log(max(each.width or 2, 2)) for each in parts
    )
    norms = [float(each.grad_norm) for each in flow.parameters if each.grad_norm is not None]
    size = math.fsum(norm * norm for norm in norms)
    last = flow.weight_layers[-1] if flow.weight_layers else None
    direct = float(flow.output_error or 0.0) <= _AMPLIFIED * unit
    direct = direct and last is not None and moves(flow, last)
    least, most = (rate * size for rate in RATES_TO_UNDO)
    return direct and least <= float(flow.loss) * unit <= most


ONE_SIZE = 0.9
"""‖δ‖ ÷ (largest entry · √(number of entries)) from which on all entries are of one size."""


ROUNDING = 1e-4
"""Shares of ‖δ‖ closer to 1 than this are 1, but for rounding."""


def asks_the_same(flow: GradientFlow) -> bool:
    """Whether a loss of your own pulls every entry of every answer with the same force.

    Then its targets do not differ, or they are empty. It may pull them in two directions, as a
    hinge does, so by itself this says nothing. Where all forces are equal to the last digit, the
    loss is a sum or a mean of the answers (a score), and has no targets.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> asks_the_same(simulate(NetworkSpec(depth=3, width=4)))
        False
    """
    facts = flow.loss_facts
    if facts is None or not facts.parts or any(part.kind != "custom" for part in facts.parts):
        return False
    for position in facts.outputs:
        call = flow.layers[position]
        entries = math.prod(map(float, call.shape))
        if call.gradient is None or not call.gradient.norm > 0.0 or entries <= 1.0:
            return False
        share = float(call.gradient.norm / (call.gradient.max_abs * math.sqrt(entries)))
        if not ONE_SIZE <= share < 1.0 - ROUNDING:
            return False
    return bool(facts.outputs)


def is_even(flow: GradientFlow) -> bool:
    """Whether the layers of a chain are alike: three or more of one width, nothing normalized.

    The last may have another width. Then a ratio of δ is a product of equal factors, and says how
    each layer passes it on.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> is_even(simulate(NetworkSpec(depth=4, width=4)))
        True
    """
    units = count_units(flow)
    chain = list_chain(flow)
    widths = {units.get(layer.layer) for layer in chain[:-1]}
    is_normalized = any(call.role == "normalization" for call in flow.layers)
    return len(chain) > 2 and len(widths) == 1 and not is_normalized


def is_small(flow: GradientFlow) -> bool:
    """Whether some layer of a chain receives too little: a ratio of δ tells why, not that.

    δ of two layers differs also where a normalization divides by a small spread, or where a
    bottleneck lies between, and every layer still receives plenty. Where the layers are alike, it
    is enough that some gradient comes near the bound. Inputs that are too large make a gradient
    large, and tell no more of the error than others: they are taken out.
    """
    if is_even(flow) and is_nearly_small(flow):
        return True
    sizes = {each.reader: each.size for each in list_large(flow)}
    layers = {layer.layer: layer for layer in flow.weight_layers}
    for each in read_chain(flow) if list_chain(flow) else ():
        layer = layers[each.layers[0]]
        share = 1.0 if is_flat(layer) else 1.0 / sizes.get(layer.name, 1.0)
        if each.value is None or share * each.value >= USABLE_IN_CHAIN:
            continue
        if share == 1.0 or not moves(flow, layer, share):
            return True
    return False


def name_outputs(flow: GradientFlow, positions: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the modules whose outputs are at some positions."""
    return tuple(dict.fromkeys(flow.layers[position].name for position in positions))
