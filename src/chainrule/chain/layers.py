"""The forward pass of a scalar chain, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.chain.tails import apply_activation, apply_derivative
from chainrule.chain.wide_float import ZERO, WideFloat
from chainrule.spec.activations import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLayer:
    """One layer's forward values and slope.

    Attributes:
        number: The layer l, from 1.
        activation: Its activation.
        weight: w_l.
        bias: b_l; 0 if the chain has no biases.
        input: h_{l−1}.
        product: w_l·h_{l−1}.
        z: The pre-activation.
        h: The activation.
        slope: φ′(z).
    """

    number: int
    activation: Activation
    weight: WideFloat
    bias: WideFloat
    input: WideFloat
    product: WideFloat
    z: WideFloat
    h: WideFloat
    slope: WideFloat


def compute_layers(
    x: float,
    weights: Sequence[float],
    activations: Sequence[Activation],
    biases: Sequence[float] | None,
) -> tuple[ChainLayer, ...]:
    """Return h_l = φ(w_l·h_{l−1} + b_l) for l = 1 … n, with every value on the way.

    Args:
        x: The input h₀.
        weights: w_1 … w_n.
        activations: One per layer.
        biases: b_1 … b_n, or `None` for zeros.
    """
    layers = []
    h = WideFloat.from_float(x)
    for n, (weight, activation) in enumerate(zip(weights, activations, strict=True), 1):
        w = WideFloat.from_float(weight)
        b = ZERO if biases is None else WideFloat.from_float(biases[n - 1])
        product = w * h
        z = product + b
        layer = ChainLayer(
            number=n,
            activation=activation,
            weight=w,
            bias=b,
            input=h,
            product=product,
            z=z,
            h=apply_activation(activation, z),
            slope=apply_derivative(activation, z),
        )
        layers.append(layer)
        h = layer.h
    return tuple(layers)
