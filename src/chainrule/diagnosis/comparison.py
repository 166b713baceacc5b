"""Like compared with like: gradients of maps, sequences and vectors on one scale.

δ of a dense layer has one entry per unit. δ of a convolution has one per unit and position, and the
layer's weight is used at all of them. What moves the weight is the sum over the positions, and that
is what is compared: if the gradient is spread evenly over P positions, ‖Σ_p δ_p‖ = √P · ‖δ‖. So the
average of P values, whose backward pass divides δ by P at each of P positions and hence ‖δ‖ by √P,
changes nothing; no information is lost there, and none is reported as lost.

That is the most that the sum can be. So it decides what is not vanishing; whether something
explodes is judged without it.

Positions that receive exactly nothing (those a maximum did not choose, or all but the last of a
sequence that is read at its end) do not count. Nor do positions that a dense layer behind the maps
reads with weights of their own (`Flatten`), as their gradients do not add up: of P positions of
which P' are flattened, P ÷ P' share weights.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from chainrule.diagnosis.structure import read_once
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import LayerFlow, WeightLayer


def compare_deltas(flow: GradientFlow, layers: Sequence[WeightLayer]) -> Quantity | None:
    """Return ‖δ‖ at the first of some layers ÷ at the last, each summed over its positions.

    `None` if there are fewer than two, or one of the ends has no δ.
    """
    if len(layers) < 2 or layers[0].delta_norm is None or layers[-1].delta_norm is None:
        return None
    factors = _list_factors(flow)
    ratio = divide_members(layers[0].delta_norm, layers[-1].delta_norm)
    factor = factors.get(layers[0].layer, 1.0) / factors.get(layers[-1].layer, 1.0)
    return ratio if factor == 1.0 else Quantity(factor * value for value in ratio.values)


@read_once
def _list_factors(flow: GradientFlow) -> dict[int, float]:
    """Return √(number of positions that share a layer's weights and receive a gradient)."""
    calls: dict[int, LayerFlow] = {}
    for call in flow.layers:
        if call.role == "weight" and call.layer is not None and call.gradient is not None:
            calls.setdefault(call.layer, call)
    own = _count_own_positions(flow)
    return {
        layer: math.sqrt(max(1.0, _count_positions(call) / own)) for layer, call in calls.items()
    }


def _count_positions(call: LayerFlow) -> float:
    """Return at how many positions of an example an output receives a gradient."""
    if len(call.shape) < 3 or 0 in call.shape or call.gradient is None or call.statistics is None:
        return 1.0
    reached = 1.0 - float(call.gradient.zero_share)
    positions = math.prod(map(float, call.shape[1:])) / call.statistics.units
    return positions * reached if math.isfinite(reached) else positions


def _count_own_positions(flow: GradientFlow) -> float:
    """Return how many positions of the last maps a dense layer reads with weights of their own."""
    outputs = [call for call in flow.layers if call.role == "weight" and call.statistics]
    inputs = {p.layer: p.shape[1] for p in flow.parameters if p.is_weight and len(p.shape) == 2}
    for before, after in pairwise(outputs):
        if len(before.shape) > 2 and len(after.shape) == 2 and before.statistics is not None:
            ratio = inputs.get(after.layer, 0) / before.statistics.units
            if ratio > 1.0 and ratio.is_integer():
                return ratio
    return 1.0
