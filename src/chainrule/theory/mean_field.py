"""The limit of infinite width: signals forward, gradients backward, layer by layer.

Forward, m is the mean square of a layer's input, q that of its pre-activations (Poole et al. 2016):
q_l = n·Var(W)·m_{l−1} + Var(b) and m_l = E φ(z_l)². Two examples have the mean products M and K in
the same way.

Backward, the textbook takes the gradient as independent of the weights (Schoenholz et al. 2017).
With a mean squared error on the last activations it is not: 𝓛 = |h_L − t|²/(B·n) gives
g_L = 2(h_L − t)/(B·n), and h_L was made by the weights that g_L goes back through. So a gradient is
kept in two parts, g_l = A·h_l + ζ_l. The second is independent of h_l. The first follows from
Wᵀδ(W h) = σ_w²·E[∂δ/∂z]·h + (an independent Gaussian), which holds in the limit of infinite width
(Bolthausen 2014; Yang 2020, "Tensor Programs III", arXiv 2009.10685). No part of the gradient is
left out, so the limit is also right for outputs as wide as the hidden layers.

Residual connections (Yang & Schoenholz 2017) add what they carry past a layer; layer and RMS
normalization divide by √q and take the directions 1 and z out of the gradient; batch normalization
is the theory of Yang et al. 2019 for a batch of finite size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from chainrule.spec.network_spec import NetworkSpec
from chainrule.theory.quadrature import (
    Law,
    OnePoint,
    TwoPoint,
    expect_one,
    expect_two,
    is_homogeneous,
    multiply,
)

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm and BatchNorm1d; RMSNorm takes float32's rounding
RMS_EPSILON = 2.0**-23
_MACHINE = {"float32": 2.0**-23, "float64": 2.0**-52}

SMALLEST, LARGEST = 1e-280, 1e280
"""Mean squares of signals outside of these are not followed further."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What of a specification the theory needs.

    Attributes:
        activation: Its name.
        weight_variance: σ_w², the variance of a weight times its fan-in.
        bias_variance: Of one bias.
        uniform_bias: Whether biases are uniform, and not Gaussian.
        orthogonal: Whether the weights are an orthogonal matrix.
        skips: Whether a residual connection leads past each layer.
        scale: What multiplies the branch of a residual block; 1 without one.
        normalization: Its name, or "none".
        epsilon: What the normalization adds to the variance.
        width: n.
        batch: B, the number of examples.
        depth: L.
        input_square: Mean square of the inputs.
    """

    activation: str
    weight_variance: float
    bias_variance: float
    uniform_bias: bool
    orthogonal: bool
    skips: bool
    scale: float
    normalization: str
    epsilon: float
    width: int
    batch: int
    depth: int
    input_square: float


def read_setting(spec: NetworkSpec) -> Setting:
    """Return what of a specification the theory needs.

    Example:
        >>> read_setting(NetworkSpec(width=64, init="he")).weight_variance
        2.0
    """
    entry = spec.initializer
    bound = None if entry.bias_bound is None else entry.bias_bound(spec.width)
    uniform = spec.bias_std is None and bound is not None
    if spec.bias_std is not None:
        bias_variance = spec.bias_std**2
    else:
        bias_variance = 0.0 if bound is None else bound**2 / 3.0
    return Setting(
        activation=spec.activation,
        weight_variance=spec.width * entry.variance(spec.width, spec.width, spec.weight_std),
        bias_variance=bias_variance,
        uniform_bias=uniform,
        orthogonal=entry.name == "orthogonal",
        skips=spec.residual != "none",
        scale=1.0 / math.sqrt(spec.depth) if spec.residual == "scaled" else 1.0,
        normalization=spec.normalization,
        epsilon=_MACHINE[spec.dtype] if spec.normalization == "rmsnorm" else LAYER_NORM_EPSILON,
        width=spec.width,
        batch=spec.batch_size,
        depth=spec.depth,
        input_square=spec.input_scale**2,
    )


@dataclass(frozen=True, slots=True)
class Moments:
    """Expectations over the pre-activations of one layer, after normalization if there is one.

    For one example: of φ, φ', ψ = φ·φ' and of what the width's fluctuations need. Names that begin
    with `pair_` are of two examples; those with `turn_` are derivatives by the correlation, and
    those with `grow_` by ln q, relative to the moment itself.
    """

    phi: float
    phi2: float
    phi4: float
    slope: float
    slope2: float
    slope4: float
    psi: float
    psi2: float
    psi4: float
    slope_psi: float
    slope2_psi2: float
    phi2_psi2: float
    bend: float  # E φ''
    psi_bend: float  # E (φφ')'
    slope_z: float
    psi_z: float
    slope2_z2: float
    slope_psi_z2: float
    psi2_z2: float
    grow_phi2: float
    grow_slope2: float
    pair_phi: float
    pair_slope: float
    pair_slope_psi: float
    pair_psi: float
    pair_slope_z: float
    pair_slope_psi_z: float
    pair_psi_z: float
    turn_slope: float
    turn_slope_psi: float
    turn_psi: float
    pair_phi2: float
    pair_phi3_phi: float
    pair_slope2: float
    pair_slope2_psi2: float
    pair_psi2: float
    pair_phi2_slope2: float
    pair_phi2_psi2: float


@lru_cache(maxsize=512)
def compute_moments(activation: str, law: Law) -> Moments:
    """Return the moments of an activation under a law.

    The derivative of a homogeneous activation does not feel the scale of its input, so those are
    computed at q = 1 and scaled.

    Example:
        >>> compute_moments("relu", Law(1.0)).slope2
        0.5
    """
    one, two = expect_one(activation, law), expect_two(activation, law)
    return _gather(one, two)


def _gather(one: OnePoint, two: TwoPoint) -> Moments:
    mean, phi, slope, psi, z = one.mean, one.phi, one.slope, one.product, one.z
    phi2, slope2 = mean(phi**2), mean(slope**2)
    pair, turn = two.mean, two.follow_correlation
    f, d, p = two.phi, two.slope, two.product
    f2, d2, p2 = multiply(f, f), multiply(d, d), multiply(p, p)
    dz, pz = multiply(d, two.z), multiply(p, two.z)
    return Moments(
        phi=mean(phi),
        phi2=phi2,
        phi4=mean(phi**4),
        slope=mean(slope),
        slope2=slope2,
        slope4=mean(slope**4),
        psi=mean(psi),
        psi2=mean(psi**2),
        psi4=mean(psi**4),
        slope_psi=mean(slope * psi),
        slope2_psi2=mean(slope**2 * psi**2),
        phi2_psi2=mean(phi**2 * psi**2),
        bend=one.mean_derivative(slope),
        psi_bend=one.mean_derivative(psi),
        slope_z=mean(slope * z),
        psi_z=mean(psi * z),
        slope2_z2=mean((slope * z) ** 2),
        slope_psi_z2=mean(slope * psi * z**2),
        psi2_z2=mean((psi * z) ** 2),
        grow_phi2=one.follow_variance(phi**2) / phi2 if phi2 > 0 else 0.0,
        grow_slope2=one.follow_variance(slope**2) / slope2 if slope2 > 0 else 0.0,
        pair_phi=pair(f, f),
        pair_slope=pair(d, d),
        pair_slope_psi=pair(d, p),
        pair_psi=pair(p, p),
        pair_slope_z=pair(dz, dz),
        pair_slope_psi_z=pair(dz, pz),
        pair_psi_z=pair(pz, pz),
        turn_slope=turn(d, d),
        turn_slope_psi=turn(d, p),
        turn_psi=turn(p, p),
        pair_phi2=pair(f2, f2),
        pair_phi3_phi=pair(multiply(f2, f), f),
        pair_slope2=pair(d2, d2),
        pair_slope2_psi2=pair(d2, p2),
        pair_psi2=pair(p2, p2),
        pair_phi2_slope2=pair(f2, d2),
        pair_phi2_psi2=pair(f2, p2),
    )


@dataclass(frozen=True, slots=True)
class Forward:
    """The signal at one layer.

    Attributes:
        before: m of the layer's input h_{l−1}: the mean of its square.
        before_pair: The mean product of h_{l−1} of two examples.
        before_mean: The mean of h_{l−1}.
        q: Mean square of the pre-activations z_l.
        correlation: Of z_l of two examples.
        law: Distribution of what φ reads.
        divisor: What normalization divides z² by; 1 without one.
        moments: Expectations over it.
        after: m of the layer's output h_l.
        after_pair: The mean product of h_l of two examples.
        after_mean: The mean of h_l.
    """

    before: float
    before_pair: float
    before_mean: float
    q: float
    correlation: float
    law: Law
    divisor: float
    moments: Moments
    after: float
    after_pair: float
    after_mean: float


def _read_law(setting: Setting, q: float, correlation: float) -> tuple[Law, float]:
    """Return the law of what φ reads, and what normalization divides z² by."""
    share = setting.bias_variance / q if setting.uniform_bias else 0.0
    if setting.normalization == "none":
        return Law(q, correlation, share), 1.0
    if setting.normalization == "batchnorm":
        batch = setting.batch
        spread = q * (1.0 - correlation) + setting.epsilon
        # E 1/s² of the batch's variance s² over B − 1 free directions.
        return Law(1.0, -1.0 / (batch - 1), sphere=batch - 1), spread * (batch - 3) / batch
    divisor = q + setting.epsilon
    return Law(q / divisor, correlation, share), divisor


def run_forward(setting: Setting) -> tuple[list[Forward], str]:
    """Return the signal at each layer, and why it ends before the last one, if it does.

    Example:
        >>> layers, _ = run_forward(read_setting(NetworkSpec(activation="relu", init="he")))
        >>> [round(layers[0].q, 12), round(layers[-1].q, 12)]
        [2.0, 2.0]
    """
    layers: list[Forward] = []
    m, pair, mean = setting.input_square, 0.0, 0.0
    variance, scale = setting.weight_variance, setting.scale
    for number in range(1, setting.depth + 1):
        q = variance * m + setting.bias_variance
        if q == 0.0:
            return layers, f"every pre-activation of layer {number} is exactly 0"
        if not SMALLEST < q < LARGEST:
            return layers, f"the signal leaves the range of numbers at layer {number}"
        correlation = min((variance * pair + setting.bias_variance) / q, 1.0)
        law, divisor = _read_law(setting, q, correlation)
        if setting.normalization == "batchnorm" and q * (1.0 - correlation) < 1e3 * setting.epsilon:
            return layers, (
                f"at layer {number} the examples differ so little that the ε of batch "
                "normalization decides"
            )
        moments = compute_moments(setting.activation, law)
        after = scale**2 * moments.phi2
        after_pair, after_mean = scale**2 * moments.pair_phi, scale * moments.phi
        if setting.skips:
            cross = 2.0 * mean * scale * moments.phi
            after, after_pair = m + cross + after, pair + cross + after_pair
            after_mean += mean
        layers.append(
            Forward(
                before=m,
                before_pair=pair,
                before_mean=mean,
                q=q,
                correlation=correlation,
                law=law,
                divisor=divisor,
                moments=moments,
                after=after,
                after_pair=after_pair,
                after_mean=after_mean,
            )
        )
        m, pair, mean = after, after_pair, after_mean
        if is_homogeneous(setting.activation) and m < SMALLEST:
            return layers, f"the signal leaves the range of numbers after layer {number}"
    return layers, ""


@dataclass(frozen=True, slots=True)
class Backward:
    """The gradient at one layer; all squares are to be multiplied by exp(log_scale).

    Attributes:
        delta: Mean of δ_l² of one example and unit.
        delta_pair: Mean product of δ_l of two examples.
        pair_response: d delta_pair / d (the mean product of h_{l−1}): what a correlation that is
            there by chance does to the gradient.
        inward: Mean square of the gradient at h_{l−1}.
        outward: Mean square of the gradient at h_l.
        outward_pair: The mean product of the gradient at h_l of two examples.
        along: A: the part of that gradient along h_l.
        log_scale: See above.
    """

    delta: float
    delta_pair: float
    pair_response: float
    inward: float
    outward: float
    outward_pair: float
    along: float
    log_scale: float


def run_backward(setting: Setting, layers: Sequence[Forward]) -> list[Backward]:
    """Return the gradient at each layer, in the order of the layers.

    Example:
        >>> setting = read_setting(NetworkSpec(depth=2, activation="identity", init="lecun"))
        >>> len(run_backward(setting, run_forward(setting)[0]))
        2
    """
    units = setting.batch * setting.width
    log_scale = 2.0 * math.log(2.0 / units)
    along, mean, square, pair, response = 1.0, 0.0, 1.0, 0.0, 0.0  # ζ_L = −targets
    steps: list[Backward] = []
    for layer in reversed(layers):
        m = layer.moments
        variance, scale = setting.weight_variance, setting.scale
        # Y is what of the gradient at h_l does not depend on z_l.
        y_mean, y_square, y_pair = mean, square, pair
        # d (the mean product of the branch) / d (that of h_{l−1})
        gain = scale**2 * variance * m.pair_slope / layer.divisor
        if setting.normalization == "batchnorm":
            gain = 0.0
        turn = variance / layer.q  # d correlation / d (the mean product of h_{l−1})
        y_response = response * (gain + (1.0 if setting.skips else 0.0))
        if setting.skips:
            y_mean += along * layer.before_mean
            both = 2.0 * along * layer.before_mean * mean
            y_square += along**2 * layer.before + both
            y_pair += along**2 * layer.before_pair + both
            y_response += along**2
        own = along * scale
        delta = y_square * m.slope2 + 2.0 * own * y_mean * m.slope_psi + own**2 * m.psi2
        delta_pair = (
            y_pair * m.pair_slope + 2.0 * own * y_mean * m.pair_slope_psi + own**2 * m.pair_psi
        )
        delta_response = y_response * m.pair_slope + turn * (
            y_pair * m.turn_slope + 2.0 * own * y_mean * m.turn_slope_psi + own**2 * m.turn_psi
        )
        bend = y_mean * m.bend + own * m.psi_bend  # E ∂δ/∂z, before normalization
        if setting.normalization in ("layernorm", "rmsnorm"):
            touch = y_mean * m.slope_z + own * m.psi_z  # E δ·z: normalization takes it out
            centre = y_mean * m.slope + own * m.psi if setting.normalization == "layernorm" else 0.0
            size = layer.law.variance
            delta -= touch**2 * (2.0 - size) + centre**2
            delta_pair -= touch**2 * (2.0 - size) * layer.correlation + centre**2
            delta_response -= touch**2 * (2.0 - size) * turn
            bend -= touch
        elif setting.normalization == "batchnorm":
            others = setting.batch - 1
            total = delta + others * delta_pair
            touch_square = (
                y_square * m.slope2_z2 + 2.0 * own * y_mean * m.slope_psi_z2 + own**2 * m.psi2_z2
            )
            touch_pair = (
                y_pair * m.pair_slope_z
                + 2.0 * own * y_mean * m.pair_slope_psi_z
                + own**2 * m.pair_psi_z
            )
            delta -= (total + touch_square + others * touch_pair) / setting.batch
            delta_pair, delta_response, bend = -delta / others, 0.0, 0.0
        shrink = scale**2 / layer.divisor
        delta, delta_pair = delta * shrink, delta_pair * shrink
        delta_response *= shrink
        old_along, new_along = along, variance * scale * bend / layer.divisor
        outward = along**2 * layer.after + 2.0 * along * layer.after_mean * mean + square
        outward_pair = along**2 * layer.after_pair + 2.0 * along * layer.after_mean * mean + pair
        # Below the layer: a Gaussian of variance σ_w²·δ², and what goes past.
        fresh, fresh_pair = variance * delta, variance * delta_pair
        if setting.orthogonal:  # Wᵀ keeps lengths: the part along h is not on top of the rest
            fresh -= new_along**2 * layer.before
            fresh_pair -= new_along**2 * layer.before_pair
        response = variance * delta_response
        if setting.orthogonal:
            response -= new_along**2
        if setting.skips:
            response += y_response - along**2 + along**2 * gain
            past = own * m.phi
            square += 2.0 * past * mean + own**2 * m.phi2 + fresh
            pair += 2.0 * past * mean + own**2 * m.pair_phi + fresh_pair
            mean += past
            along += new_along
        else:
            square, pair, mean, along = fresh, fresh_pair, 0.0, new_along
        inward = along**2 * layer.before + 2.0 * along * layer.before_mean * mean + square
        steps.append(
            Backward(
                delta=max(delta, 0.0),
                delta_pair=delta_pair,
                pair_response=delta_response,
                inward=inward,
                outward=outward,
                outward_pair=outward_pair,
                along=old_along,
                log_scale=log_scale,
            )
        )
        size = inward or 1.0
        root = math.sqrt(size)
        along, mean = along / root, mean / root
        square, pair, response = square / size, pair / size, response / size
        log_scale += math.log(size)
    return steps[::-1]


def compute_chi(setting: Setting, layer: Forward) -> float:
    """Return χ: what a layer multiplies the mean square of an independent gradient by.

    σ_w²·E φ'² for a plain layer (Schoenholz et al. 2017), 1 + α²·σ_w²·E φ'² with a residual
    connection (Yang & Schoenholz 2017). Layer and RMS normalization divide it by q. Batch
    normalization takes two directions out of a batch of gradients that add up to 0, too.

    Example:
        >>> setting = read_setting(NetworkSpec(activation="relu", init="he"))
        >>> round(compute_chi(setting, run_forward(setting)[0][0]), 12)
        1.0
    """
    m = layer.moments
    square = m.slope2
    if setting.normalization == "batchnorm":
        centred = m.slope2 - m.pair_slope
        touched = m.slope2_z2 - m.pair_slope_z
        square -= (centred + touched) / setting.batch
    branch = setting.scale**2 * setting.weight_variance * square / layer.divisor
    return branch + (1.0 if setting.skips else 0.0)
