"""Where signals and gradients neither die nor explode, and how far they get elsewhere."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Real

from chainrule.errors import SpecError, abbreviate
from chainrule.spec.activations import get_activation
from chainrule.theory.mean_field import Setting, compute_chi, compute_moments, run_forward
from chainrule.theory.quadrature import Law, OnePoint, expect_one, expect_two, is_homogeneous

TINY, HUGE = 1e-14, 1e14
"""Variances that stand for 0 and for infinity in the search for fixed points."""

TRAINABLE = 6
"""Networks were trained up to a depth of about 6 ξ (4.5 to 6; Schoenholz et al. 2017, figure 5)."""

_STEPS = 400
_CLOSE = 1e-13
_ON_THE_LINE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPoint:
    """A start at which χ = 1: gradients neither shrink nor grow with depth.

    Attributes:
        weight_variance: σ_w², the variance of a weight times its fan-in.
        bias_variance: σ_b².
        q: Variance of the pre-activations at this start: the fixed point. 0 if every one is (a
            homogeneous activation), or if the signal fades, more slowly than exponentially.

    Example:
        >>> point = critical_line("relu", 0.0)
        >>> round(point.weight_std, 6)
        1.414214
    """

    weight_variance: float
    bias_variance: float
    q: float

    @property
    def weight_std(self) -> float:
        """σ_w; one weight has the standard deviation σ_w/√fan_in."""
        return math.sqrt(self.weight_variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthScales:
    """How many layers a signal keeps what it knows (Schoenholz et al. 2017, equations 8, 9, 16).

    A deviation shrinks with depth l as exp(−l/ξ). ξ is infinite where it shrinks more slowly.

    Attributes:
        xi_q: ξ_q, for the size of the signal.
        xi_c: ξ_c, for the correlation of two examples: how far their difference is seen. `None`
            with batch normalization, which gives all pairs the same correlation in one layer.
        xi_grad: ξ_grad = 1/|ln χ|, for the square of a gradient.
        chi: χ at the fixed point: below 1 gradients shrink with depth, above they grow.
        q: The fixed point of the variance of the pre-activations; 0 or infinite if the signal dies
            or explodes.
        correlation: The fixed point of the correlation of two examples.

    Example:
        >>> from chainrule.spec.network_spec import NetworkSpec
        >>> from chainrule.theory.prediction import predict
        >>> round(predict(NetworkSpec(activation="relu", init="xavier")).depth_scales.chi, 12)
        0.5
    """

    xi_q: float
    xi_c: float | None
    xi_grad: float
    chi: float
    q: float
    correlation: float

    @property
    def reach(self) -> float:
        """The shorter one of ξ_c and ξ_grad: how many layers far this start carries a signal."""
        return self.xi_grad if self.xi_c is None else min(self.xi_c, self.xi_grad)

    @property
    def sentence(self) -> str:
        """What this means, in words."""
        if not math.isfinite(self.reach):
            return (
                "This start is on the critical line: signal and gradient fade or grow more slowly "
                "than exponentially with depth, so there is no depth scale."
            )
        slow = self.reach >= 0.75
        layers = f"{self.reach:.0f} layers" if self.reach >= 1.5 else "1 layer"
        first = self.xi_c is None or self.xi_grad <= self.xi_c
        cause = "the gradient's square" if first else "what tells examples apart"
        change = "grows" if first and self.chi > 1 else "shrinks"
        far = f"about {layers} far" if slow else "less than 1 layer far"
        sentence = (
            f"This start carries a signal {far}: over that many layers, {cause} {change} by a "
            "factor of e."
        )
        trained = TRAINABLE * self.reach
        if not slow:
            return sentence
        return (
            f"{sentence} Networks were trained up to about {TRAINABLE} times that ({trained:.0f})."
        )


def critical_line(activation: str, bias_std: float = 0.0) -> CriticalPoint | None:
    """Return the weights that put a plain network with these biases on the critical line.

    On the line, χ = σ_w²·E φ'(√q z)² = 1 at the fixed point q = σ_w²·E φ(√q z)² + σ_b² (Poole et
    al. 2016; Schoenholz et al. 2017; Hayou et al. 2019 call it the edge of chaos). Both equations
    give σ_w² and σ_b² as functions of q, and σ_b² is searched for; of several solutions, the one
    with the smallest q is returned.

    Args:
        activation: A name of the table `ACTIVATIONS`.
        bias_std: σ_b, the standard deviation of a bias.

    Returns:
        The point, or `None` if there is none: for ReLU, any bias leaves the line.

    Raises:
        SpecError: If the activation is unknown or the standard deviation is not a number ≥ 0.

    Example:
        >>> round(critical_line("tanh", 0.05**0.5).weight_variance, 6)
        1.760955
    """
    if not isinstance(activation, str):
        raise SpecError(
            f"activation: must be a name, such as 'tanh'; got {abbreviate(activation)}."
        )
    name = get_activation(activation).name
    is_number = isinstance(bias_std, Real) and not isinstance(bias_std, bool)
    if not is_number or not 0.0 <= bias_std <= 1e6:
        raise SpecError(f"bias_std: must be a number from 0 to 1e6; got {abbreviate(bias_std)}.")
    wanted = bias_std**2

    def place(log_q: float) -> tuple[float, float]:
        """Return σ_w² and σ_b² of the critical point with this q."""
        q = math.exp(log_q)
        one = _expect(name, q)
        weight = 1.0 / one.mean(one.slope**2)
        return weight, q - weight * one.mean(one.phi**2)

    weight, bias = place(math.log(TINY))
    if abs(bias) <= 1e-10 * TINY and wanted == 0.0:
        return CriticalPoint(weight_variance=weight, bias_variance=0.0, q=0.0)
    if is_homogeneous(name):
        return None
    low, high = math.log(TINY), math.log(HUGE)
    steps = 128
    edges = [low + (high - low) * step / steps for step in range(steps + 1)]
    start = edges[0]
    if bias - wanted > 0.0:
        return None
    for end in edges[1:]:
        if place(end)[1] - wanted >= 0.0:
            break
        start = end
    else:
        return None
    root = _find_root(lambda log_q: place(log_q)[1] - wanted, start, end)
    return CriticalPoint(weight_variance=place(root)[0], bias_variance=wanted, q=math.exp(root))


def _find_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return a zero between a value below 0 and one above, by halves."""
    for _ in range(80):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) < 0.0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _expect(activation: str, q: float, uniform_share: float = 0.0) -> OnePoint:
    return expect_one(activation, Law(q, uniform_share=uniform_share))


def find_depth_scales(setting: Setting) -> tuple[DepthScales | None, str]:
    """Return the depth scales of a start, or `None` and why it has none.

    Example:
        >>> from chainrule.spec.network_spec import NetworkSpec
        >>> from chainrule.theory.mean_field import read_setting
        >>> find_depth_scales(read_setting(NetworkSpec(residual="plain")))[0] is None
        True
    """
    if setting.skips:
        return None, (
            "depth_scales: residual connections carry signal and gradient past every layer, so "
            "their rates change from layer to layer and there is no depth scale"
        )
    if setting.weight_variance == 0.0:
        return None, "depth_scales: all weights are 0, so no signal passes a layer"
    if setting.normalization != "none":
        return _find_normalized_scales(setting)
    # What only a finite network has does not matter: networks of all depths share the answer.
    return _find_plain_scales(replace(setting, depth=1, width=1, batch=1)), ""


@lru_cache(maxsize=512)
def _find_plain_scales(setting: Setting) -> DepthScales:
    """Return the depth scales of a plain network."""
    q = _find_fixed_variance(setting)
    activation, variance = setting.activation, setting.weight_variance
    share = setting.bias_variance / q if setting.uniform_bias and q > 0.0 else 0.0
    at = min(max(q, TINY), HUGE)
    one = _expect(activation, at, min(share, 1.0))
    chi = variance * one.mean(one.slope**2)
    size = variance * one.mean_derivative(one.product)
    if 0.0 < q < math.inf:
        correlation, rate = _find_fixed_correlation(setting, q, chi)
    elif q == 0.0:
        correlation, rate = 1.0, chi
    else:  # far from 0, φ is two straight lines: all examples slowly become one
        correlation, rate = 1.0, 1.0
    return DepthScales(
        xi_q=_measure_depth(size),
        xi_c=_measure_depth(rate),
        xi_grad=_measure_depth(chi),
        chi=chi,
        q=q,
        correlation=correlation,
    )


def _find_normalized_scales(setting: Setting) -> tuple[DepthScales | None, str]:
    """Return the scales behind a normalization: it sets the size of the signal in every layer."""
    layers, why = run_forward(replace(setting, depth=min(setting.depth, 3) + 1))
    if not layers:
        return None, f"depth_scales: {why}"
    layer = layers[-1]
    chi, q = compute_chi(setting, layer), layer.q
    rate: float | None
    if setting.normalization == "batchnorm":
        correlation, rate = -1.0 / (setting.batch - 1), None
    else:
        unit = replace(
            setting,
            weight_variance=setting.weight_variance / layer.divisor,
            bias_variance=setting.bias_variance / layer.divisor,
            uniform_bias=False,
        )
        correlation, rate = _find_fixed_correlation(unit, layer.law.variance, chi)
    return (
        DepthScales(
            xi_q=0.0,
            xi_c=None if rate is None else _measure_depth(rate),
            xi_grad=_measure_depth(chi),
            chi=chi,
            q=q,
            correlation=correlation,
        ),
        "",
    )


def _measure_depth(rate: float) -> float:
    """Return 1/|ln rate|: infinite at 1, up to rounding."""
    if abs(rate - 1.0) < _ON_THE_LINE:
        return math.inf
    return 1.0 / abs(math.log(rate)) if rate > 0.0 else 0.0


def _find_fixed_variance(setting: Setting) -> float:
    """Return the q that stays as it is, from the first layer's on; 0 or infinity beyond numbers."""
    variance, bias = setting.weight_variance, setting.bias_variance

    def step(q: float) -> float:
        share = bias / q if setting.uniform_bias else 0.0
        one = _expect(setting.activation, q, min(share, 1.0))
        return variance * one.mean(one.phi**2) + bias

    q = variance * setting.input_square + bias
    if bias == 0.0:
        small = step(TINY) / TINY
        if is_homogeneous(setting.activation):
            return q if abs(small - 1.0) < _ON_THE_LINE else math.inf if small > 1.0 else 0.0
        if small <= 1.0 + _ON_THE_LINE and step(q) <= q:
            probe = [q * 10.0**-power for power in range(1, 13, 3)]
            if all(step(each) <= each * (1.0 + 1e-12) for each in probe):
                return 0.0  # nothing holds the signal up on its way down
    for _ in range(_STEPS):
        new = step(q)
        if abs(new - q) <= _CLOSE * q:
            return new
        # Aitken's extrapolation, taken only where it is a small step in the same direction.
        third = step(new)
        bend = third - 2.0 * new + q
        ahead = q - (new - q) ** 2 / bend if bend != 0.0 else third
        same = (ahead - new) * (new - q) > 0.0
        q = ahead if same and ahead > 0.0 and abs(ahead - q) < 3.0 * abs(third - q) else third
        if q < TINY:
            return 0.0
        if q > HUGE:
            return math.inf
    return q


def _find_fixed_correlation(setting: Setting, q: float, chi: float) -> tuple[float, float]:
    """Return the correlation that stays as it is, and the rate at which it is approached.

    The map of the correlation is convex, so Newton's method from 0 rises to its lowest fixed point.
    """
    if chi <= 1.0 + _ON_THE_LINE:
        return 1.0, chi
    rho = 0.0
    variance, bias = setting.weight_variance, setting.bias_variance
    share = bias / q if setting.uniform_bias else 0.0
    for _ in range(60):
        two = expect_two(setting.activation, Law(q, rho, min(share, 1.0)))
        value = (variance * two.mean(two.phi, two.phi) + bias) / q
        slope = variance * two.mean(two.slope, two.slope)
        if slope >= 1.0:
            break
        ahead = rho + (value - rho) / (1.0 - slope)
        if abs(ahead - rho) <= 1e-14 or ahead >= 1.0:
            break
        rho = ahead
    moments = compute_moments(setting.activation, Law(q, rho, min(share, 1.0)))
    return rho, variance * moments.pair_slope
