"""What the model of viability reads of a flow: a few ratios within one measurement.

None of them changes when the loss is multiplied by a constant. "Spread" is by how much an entry of
a layer's values differs between the examples of the batch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.structure import (
    find_last_dependent,
    find_tied_head,
    list_explained,
    list_zero_initialized,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import ActivationStatistics, WeightLayer, read_saturation

ROUNDING = 1e-5
"""Relative differences below this are taken for rounding, as they are in float32."""

RESOLUTION = 1e-6
"""Smallest relative difference that counts as one; float32 rounds at some 1e-7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One metric that the model reads of a flow.

    Attributes:
        name: Its key in the table of constants.
        label: What it is, in words.
        low: What it means if it is too small, in words.
        high: What it means if it is too large, in words.
        read: Computes it; `None` where the flow has no such metric.
        range: Between these it is taken as it is; beyond, as the nearer one.
        logarithmic: Whether it is a power of ten (then people are shown the number itself).
        share: Whether people are shown percent.
        side: "or less" or "or more": on which side of what was computed the value lies where the
            last layer's differences are lost in rounding, and `RESOLUTION` stands for them.
    """

    name: str
    label: str
    low: str
    high: str
    read: Callable[[GradientFlow], float | None]
    range: tuple[float, float]
    logarithmic: bool = True
    share: bool = False
    side: str = ""

    def format(self, value: float, *, rounded: bool = False) -> str:
        """Return a value as people read it; at an end of its range, "or less" or "or more".

        Args:
            value: The value.
            rounded: Whether the last layer's differences between examples are lost in rounding.
        """
        if self.share:
            return f"{100 * value:.0f} %"
        text = format_number(10.0**value if self.logarithmic else value)
        if rounded and self.side:
            return f"{text} {self.side}"
        low, high = self.range
        return f"{text} or less" if value <= low else f"{text} or more" if value >= high else text


def are_lost(values: Mapping[str, float | None]) -> bool:
    """Return whether the last layer's differences between examples are lost in rounding.

    Args:
        values: Features by name.
    """
    variation = values.get("variation")
    return variation is not None and variation <= math.log10(RESOLUTION)


def measure_features(flow: GradientFlow) -> dict[str, float | None]:
    """Return every feature by name; `None` where the flow has none, or where it is undefined."""
    values = {}
    for name, feature in FEATURES.items():
        value = feature.read(flow)
        low, high = feature.range
        defined = value is not None and not math.isnan(value)
        values[name] = min(max(value, low), high) if defined and value is not None else None
    return values


def _log(value: float | None) -> float | None:
    """Return the power of ten; of zero, one below every range."""
    if value is None or math.isnan(value):
        return None
    return math.log10(value) if value > 0 else -math.inf


def _measure_spread(statistics: ActivationStatistics | None) -> float | None:
    """Return by how much an entry differs between examples: root mean square deviation.

    Relative differences below `RESOLUTION` count as that, so that both precisions agree.
    """
    if statistics is None or statistics.variation is None:
        return None
    return math.hypot(statistics.mean, statistics.std) * max(statistics.variation, RESOLUTION)


def _divide(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or denominator is None or denominator == 0.0:
        return None
    return numerator / denominator


def _multiply(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left * right


def _scale_gradients(flow: GradientFlow) -> list[float]:
    """Return ‖∂𝓛/∂W_l‖ ÷ ‖δ_L‖ of the layers that have it.

    Where a weight is zero on purpose, such as the last one of a residual branch, so is the gradient
    of what comes before it until the first step: these layers do not count, nor do others whose
    small gradient a later parameter explains.
    """
    last = next((d for d in reversed(flow.delta_norms) if d is not None), None)
    explained = list_explained(flow)
    ratios = (
        _divide(layer.weight_gradient_norm, last)
        for layer in flow.weight_layers
        if layer.layer not in explained
    )
    on_purpose = any(layer.weight_norm == 0.0 for layer in flow.weight_layers)
    return [
        ratio
        for ratio in ratios
        if ratio is not None and not math.isnan(ratio) and not (on_purpose and ratio == 0.0)
    ]


def _is_closed(flow: GradientFlow, layer: WeightLayer) -> bool:
    """Whether metrics of a layer say nothing yet, because weights are zero on purpose."""
    return layer.layer in list_explained(flow) or layer.layer in list_zero_initialized(flow)


def _read_smallest(flow: GradientFlow) -> float | None:
    return _log(min(_scale_gradients(flow), default=None))


def _read_largest(flow: GradientFlow) -> float | None:
    return _log(max(_scale_gradients(flow), default=None))


def _read_variation(flow: GradientFlow) -> float | None:
    if (head := find_tied_head(flow)) is not None:
        return _log(head.statistics.variation) if head.statistics else None
    last = find_last_dependent(flow)
    return None if last is None else _log(last.variation)


def _read_sensitivity(flow: GradientFlow) -> float | None:
    """Return the log of (‖δ_1‖ ÷ ‖δ_L‖) · (spread of z_1 ÷ spread of z_L).

    Small differences of z_1 grow ‖δ_1‖ ÷ ‖δ_L‖-fold on the way; the differences between examples
    grow as the spreads do. Where the first is far more than the second, neighbours land anywhere.
    Unknown while the first or the last layer is zero on purpose, or a later zero explains it.
    """
    layers = flow.weight_layers
    if len(layers) < 2 or _is_closed(flow, layers[0]) or _is_closed(flow, layers[-1]):
        return None
    spreads = [_measure_spread(layer.pre_activation) for layer in (layers[0], layers[-1])]
    backward, forward = flow.delta_ratio, _divide(spreads[1], spreads[0])
    return _log(_divide(backward, forward))


def _read_effective_depth(flow: GradientFlow) -> float | None:
    """Return the log of Σ_l min(1, e_l)², where e_l is the share of the output that is made in l.

    e_l = (‖δ_l‖ · spread of z_l) ÷ (‖∂𝓛/∂out‖ · spread of the output): how far a change of z_l as
    large as its differences between examples moves the loss, relative to one of the output. In a
    chain every layer counts in full and the sum is the depth; of a residual branch only what it
    adds to its residual stream counts. Where the differences between examples are lost in
    rounding they cannot be compared, and every layer counts. Unknown while the last layer is zero
    on purpose.
    """
    if flow.weight_layers and _is_closed(flow, flow.weight_layers[-1]):
        return None
    output = next((c for c in reversed(flow.layers) if c.gradient and c.statistics), None)
    if output is None or output.gradient is None or not flow.weight_layers:
        return None
    variation = output.statistics.variation if output.statistics else None
    if variation is not None and variation < ROUNDING:
        return _log(float(len(flow.weight_layers)))
    whole = _multiply(output.gradient.norm, _measure_spread(output.statistics))
    parts = [
        _divide(_multiply(layer.delta_norm, _measure_spread(layer.pre_activation)), whole)
        for layer in flow.weight_layers
    ]
    shares = [min(1.0, part) ** 2 for part in parts if part is not None and not math.isnan(part)]
    return _log(math.fsum(shares)) if shares else None


def _read_forward(flow: GradientFlow) -> float | None:
    layers = flow.weight_layers
    if len(layers) < 2:
        return None
    head = find_tied_head(flow)
    dependent = find_last_dependent(flow)
    if head is None and (dependent is None or dependent.layer == layers[0].layer):
        return None
    last = head.statistics if head else dependent.output if dependent else None
    return _log(_divide(_measure_spread(last), _measure_spread(layers[0].output)))


def _read_worst(
    read: Callable[[WeightLayer], float | None],
) -> Callable[[GradientFlow], float | None]:
    def read_flow(flow: GradientFlow) -> float | None:
        values = (read(layer) for layer in flow.weight_layers)
        return max((v for v in values if v is not None and not math.isnan(v)), default=None)

    return read_flow


_FEATURES = (
    Feature(
        name="smallest_gradient",
        label="The smallest ‖∂𝓛/∂W‖ ÷ ‖δ‖ at the last layer",
        low="the smaller it is, the less some layer learns in a step",
        high="",
        read=_read_smallest,
        range=(-12.0, 12.0),
    ),
    Feature(
        name="largest_gradient",
        label="The largest ‖∂𝓛/∂W‖ ÷ ‖δ‖ at the last layer",
        low="the smaller it is, the less any layer learns in a step",
        high="a learning rate that suits the other layers changes this one too much",
        read=_read_largest,
        range=(-12.0, 12.0),
    ),
    Feature(
        name="variation",
        label="The relative variation between examples at the last layer",
        low="the smaller it is, the more alike are the outputs of different inputs",
        high="",
        read=_read_variation,
        range=(-6.0, 0.0),
    ),
    Feature(
        name="sensitivity",
        label="The growth of small input differences ÷ the growth of the spread between examples",
        low="",
        high="the larger it is, the less similar are the outputs of similar inputs, so the "
        "gradients of different examples disagree",
        read=_read_sensitivity,
        range=(-3.0, 6.0),
        side="or more",
    ),
    Feature(
        name="forward",
        label="The spread between examples at the last layer ÷ at the first",
        low="the differences between the examples shrink from layer to layer",
        high="values grow from layer to layer",
        read=_read_forward,
        range=(-12.0, 12.0),
        side="or less",
    ),
    Feature(
        name="saturation",
        label="The largest share of saturated activations",
        low="",
        high="flat activations block the gradient",
        read=_read_worst(read_saturation),
        range=(0.0, 1.0),
        share=True,
    ),
    Feature(
        name="dead_units",
        label="The largest share of dead units",
        low="",
        high="no signal and no gradient passes through dead units",
        read=_read_worst(lambda layer: layer.dead_share),
        range=(0.0, 1.0),
        share=True,
    ),
    Feature(
        name="effective_depth",
        label="The effective depth (layers that the signal passes one after another)",
        low="",
        high="the more there are, the more a step in one layer disturbs the others",
        read=_read_effective_depth,
        range=(0.0, 3.0),
    ),
)

FEATURES: Mapping[str, Feature] = MappingProxyType({each.name: each for each in _FEATURES})
"""Every feature by name, in the order in which they are reported."""
