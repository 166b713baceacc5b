"""Activations on numbers of any size: exact where a float64 would have become 0 or inf.

In the range of floats these are the functions of `chainrule.spec.activations`. Beyond it, each
function is its expansion for tiny or huge z, with as many terms as a float has digits for.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from chainrule.chain.wide_float import WideFloat
from chainrule.spec.activations import Activation

_FAR = 1e300
"""Stands for any z beyond the range of floats where a function has reached its asymptote."""

_FARTHEST_TAILS: Mapping[str, float] = MappingProxyType({"gelu": 1e150})
_FARTHEST_TAIL = 1e300
"""Tails are followed up to this |z|, where z or z² is still a float; beyond, what they are there is
only a bound of their size."""

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def _log_normal_density(z: float) -> float:
    return -0.5 * z * z - _HALF_LOG_TWO_PI


def _compute_mills_ratio(z: float) -> float:
    """Return |z|Φ(z)/φ(z) for z far below 0."""
    q = 1.0 / (z * z)
    return 1.0 - q * (1.0 - 3.0 * q * (1.0 - 5.0 * q * (1.0 - 7.0 * q * (1.0 - 9.0 * q))))


_LOG_TAILS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "sigmoid": lambda z: z,
        "gelu": lambda z: _log_normal_density(z) + math.log(_compute_mills_ratio(z)),
        "silu": lambda z: z + math.log(-z),
    }
)
"""ln|φ(z)| for z → −∞, for activations that go to 0 there."""

_LOG_SLOPE_TAILS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "sigmoid": lambda z: -abs(z),
        "tanh": lambda z: 2.0 * (math.log(2.0) - abs(z)),
        "elu": lambda z: z,
        "selu": lambda z: z + math.log(1.0507009873554805 * 1.6732632423543772),
        "gelu": lambda z: (
            _log_normal_density(z) + math.log(-z) + math.log1p(-_compute_mills_ratio(z) / (z * z))
        ),
        "silu": lambda z: z + math.log(-1.0 - z),
    }
)
"""ln|φ′(z)| where it goes to 0: for z → −∞, for sigmoid and tanh on both sides."""


def apply_activation(activation: Activation, z: WideFloat) -> WideFloat:
    """Return φ(z)."""
    if z.range == "underflow":
        start = activation.function(0.0)
        return WideFloat.from_float(start) if start else apply_derivative(activation, z) * z
    near = _approach(z)
    if z.range == "overflow":
        slope = WideFloat.from_float(activation.derivative(near))
        if abs(float(slope)) > 1e-9:
            return slope * z
    value = activation.function(near)
    if abs(value) >= sys.float_info.min or not z.sign or activation.name not in _LOG_TAILS:
        return WideFloat.from_float(value)
    sign = 1.0 if activation.name == "sigmoid" else -1.0
    return _follow(_LOG_TAILS, activation, z, sign)


def apply_derivative(activation: Activation, z: WideFloat) -> WideFloat:
    """Return φ′(z)."""
    if z.range == "underflow":
        return WideFloat.from_float(activation.derivative(z.sign * sys.float_info.min))
    near = _approach(z)
    value = activation.derivative(near)
    far = abs(near) > 30.0  # elsewhere a zero is a zero, as at the minimum of GELU
    if abs(value) >= sys.float_info.min or not far or activation.name not in _LOG_SLOPE_TAILS:
        return WideFloat.from_float(value)
    sign = -1.0 if activation.name in ("gelu", "silu") else 1.0
    return _follow(_LOG_SLOPE_TAILS, activation, z, sign)


def _follow(
    tails: Mapping[str, Callable[[float], float]],
    activation: Activation,
    z: WideFloat,
    sign: float,
) -> WideFloat:
    """Return the tail at z; beyond the farthest z that it is followed to, a bound of its size."""
    end = _FARTHEST_TAILS.get(activation.name, _FARTHEST_TAIL)
    value = WideFloat.from_log(tails[activation.name](_clamp(z, end)), sign)
    return replace(value, bound=True) if abs(float(z)) > end else value


def _approach(z: WideFloat) -> float:
    """Return z, or a float of its sign at which every activation has reached its asymptote."""
    return _clamp(z, _FAR) if z.range == "overflow" else float(z)


def _clamp(z: WideFloat, bound: float) -> float:
    return max(-bound, min(bound, float(z)))
