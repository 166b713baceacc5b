"""What residual connections and normalization layers do in a measurement.

A network with paths around its layers is not judged like a chain: a layer that receives little does
not keep the others from learning, and a branch that starts at zero is there on purpose.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow, ResidualFlow


@dataclass(frozen=True, slots=True)
class Place:
    """A figure and where it was measured.

    Attributes:
        name: The module.
        layer: Its weight layer, or `None`.
        value: The figure.
    """

    name: str
    layer: int | None
    value: float


def list_trunks(flow: GradientFlow) -> tuple[tuple[ResidualFlow, ...], ...]:
    """Return the residual connections of every trunk, in forward order."""
    trunks: dict[int, list[ResidualFlow]] = {}
    for each in flow.residuals:
        trunks.setdefault(each.trunk, []).append(each)
    return tuple(map(tuple, trunks.values()))


def measure_trunk_growth(flow: GradientFlow) -> float | None:
    """Return by how much the values on a trunk grow from its start to its last sum, at most.

    Only trunks without normalization count: post-norm brings a trunk back to size after every sum,
    and pre-norm hands every branch values of one size however far the trunk has grown.
    """
    grown = [
        trunk[-1].after / start
        for trunk in list_trunks(flow)
        if all(each.normalization == "none" for each in trunk)
        and (start := trunk[0].after if trunk[0].before is None else trunk[0].before) > 0
    ]
    return max(grown, default=None)


def measure_trunk_gradient(flow: GradientFlow) -> float | None:
    """Return ‖∂loss/∂trunk‖ at a trunk's first sum ÷ at its last, the smallest of all trunks."""
    ratios = [
        trunk[0].gradient / trunk[-1].gradient
        for trunk in list_trunks(flow)
        if trunk[0].gradient is not None and trunk[-1].gradient
    ]
    return min(ratios, default=None)


def list_waiting(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers that receive nothing only because a branch still ends in zeros.

    Their gradient is exactly zero while some weight, itself exactly zero, receives one: after the
    first step it is zero no more, and they receive theirs (Fixup, ReZero, a zero-initialized last
    normalization). Only networks with residual connections can train from there at once.
    """
    opens = any(
        parameter.norm == 0.0 and parameter.grad_norm is not None and parameter.grad_norm > 0.0
        for parameter in flow.parameters
        if not parameter.name.endswith("bias")
    )
    if not flow.residuals or not opens:
        return frozenset()
    return frozenset(
        layer.layer for layer in flow.weight_layers if layer.weight_gradient_norm == 0.0
    )


def measure_typical_gradient(flow: GradientFlow) -> float | None:
    """Return the median of ‖∂loss/∂W‖ ÷ error at the output over the layers that do not wait."""
    waiting = list_waiting(flow)
    norms = [
        float(layer.weight_gradient_norm)
        for layer in flow.weight_layers
        if layer.weight_gradient_norm is not None and layer.layer not in waiting
    ]
    return statistics.median(norms) / (flow.output_error or 1.0) if norms else None


def list_normalizations(flow: GradientFlow) -> tuple[Place, ...]:
    """Return the spread of what every normalization puts out, before its own scale.

    It is near 1 by construction: where it is not, the values are so small that what keeps the
    division from failing (ε) is larger than their variance. Modules without a scale of their own
    are taken as having scale 1; those with a scale of zero have no such figure.
    """
    scales = {
        parameter.name.removesuffix(".weight"): parameter.norm / math.sqrt(math.prod(size))
        for parameter in flow.parameters
        if parameter.name.endswith(".weight") and 0 not in (size := parameter.shape)
    }
    found = []
    for call in flow.layers:
        if call.role != "normalization" or call.statistics is None or call.output:
            continue
        scale = scales.get(call.name, 1.0)
        if scale > 0.0:
            found.append(Place(call.label, call.layer, _find_size(call) / scale))
    return tuple(found)


def find_tied_head(flow: GradientFlow) -> LayerFlow | None:
    """Return the last call of a module with weights if its layer is not the last by number.

    So it is where an output layer is tied to an embedding, and has the embedding's number.
    """
    for call in reversed(flow.layers):
        if call.role == "weight" and call.statistics is not None:
            is_last = not flow.weight_layers or call.name == flow.weight_layers[-1].name
            return None if is_last or flow.spec is not None else call
    return None


def _find_size(call: LayerFlow) -> float:
    """Return the root mean square of an output."""
    assert call.statistics is not None
    return math.hypot(call.statistics.mean, call.statistics.std)


PLACES: Mapping[str, Callable[[GradientFlow], tuple[Place, ...]]] = MappingProxyType(
    {"starved_normalization": list_normalizations}
)
"""What a rule about single modules reads of the whole network."""

RATIOS: Mapping[str, Callable[[GradientFlow], float | None]] = MappingProxyType(
    {
        "growing_trunk": measure_trunk_growth,
        "fading_trunk": measure_trunk_gradient,
        "vanishing_typical": measure_typical_gradient,
    }
)
"""What a rule about residual networks reads of the whole network."""
