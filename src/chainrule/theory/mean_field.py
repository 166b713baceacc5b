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
from dataclasses import dataclass, replace
from functools import lru_cache

from chainrule.spec.network_spec import NetworkSpec
from chainrule.theory.quadrature import (
    Law,
    OnePoint,
    TwoPoint,
    expect_one,
    expect_two,
    multiply,
)

LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm and BatchNorm1d; RMSNorm takes float32's rounding
RMS_EPSILON = 2.0**-23
_MACHINE = {"float32": 2.0**-23, "float64": 2.0**-52}

SMALLEST, LARGEST = 1e-70, 1e70
"""Mean squares of signals outside of these are not followed further: fourth moments need room."""


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
    phi3: float
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
    grow_psi2: float
    grow_psi_bend: float
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
    pair_phi_phi2: float
    pair_phi3_phi: float
    pair_slope2: float
    pair_slope2_psi2: float
    pair_psi2: float
    pair_phi2_slope2: float
    pair_phi2_psi2: float


@lru_cache(maxsize=512)
def compute_moments(activation: str, law: Law) -> Moments:
    """Return the moments of an activation under a law.

    Example:
        >>> round(compute_moments("relu", Law(1.0)).slope2, 12)
        0.5
    """
    one, two = expect_one(activation, law), expect_two(activation, law)
    return _gather(one, two)


def _gather(one: OnePoint, two: TwoPoint) -> Moments:
    mean, phi, slope, psi, z = one.mean, one.phi, one.slope, one.product, one.z
    phi2, slope2, psi2, psi_z = mean(phi**2), mean(slope**2), mean(psi**2), mean(psi * z)
    pair, turn = two.mean, two.follow_correlation
    f, d, p = two.phi, two.slope, two.product
    f2, d2, p2 = multiply(f, f), multiply(d, d), multiply(p, p)
    dz, pz = multiply(d, two.z), multiply(p, two.z)
    return Moments(
        phi=mean(phi),
        phi2=phi2,
        phi3=mean(phi**3),
        phi4=mean(phi**4),
        slope=mean(slope),
        slope2=slope2,
        slope4=mean(slope**4),
        psi=mean(psi),
        psi2=psi2,
        psi4=mean(psi**4),
        slope_psi=mean(slope * psi),
        slope2_psi2=mean(slope**2 * psi**2),
        phi2_psi2=mean(phi**2 * psi**2),
        bend=one.mean_derivative(slope),
        psi_bend=one.mean_derivative(psi),
        slope_z=mean(slope * z),
        psi_z=psi_z,
        slope2_z2=mean((slope * z) ** 2),
        slope_psi_z2=mean(slope * psi * z**2),
        psi2_z2=mean((psi * z) ** 2),
        grow_phi2=one.follow_variance(phi**2) / phi2 if phi2 > 0 else 0.0,
        grow_slope2=one.follow_variance(slope**2) / slope2 if slope2 > 0 else 0.0,
        grow_psi2=one.follow_variance(psi**2) / psi2 if psi2 > 0 else 0.0,
        grow_psi_bend=one.follow_variance(psi * z) / psi_z - 1.0 if psi_z > 0 else 0.0,
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
        pair_phi_phi2=pair(f, f2),
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
            return layers, f"the signal is below 1e-35 or above 1e35 at layer {number}"
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
        rest_inward: Mean square of ζ_{l−1}: the part of it that is not along h_{l−1}.
        rest: Mean square of ζ_l.
        free: Mean square of what of the gradient at h_l does not depend on z_l.
        free_pair: The mean product of that of two examples.
        along: A: the part of the gradient at h_l along h_l.
        log_scale: See above.
    """

    delta: float
    delta_pair: float
    pair_response: float
    inward: float
    rest_inward: float
    rest: float
    free: float
    free_pair: float
    along: float
    log_scale: float


@dataclass(frozen=True, slots=True)
class _Gradient:
    """The gradient at h_l: A·h_l + ζ_l, with squares to be multiplied by exp(log_scale)."""

    along: float  # A
    mean: float  # E ζ
    square: float  # E ζ²
    pair: float  # E ζ_aζ_b
    response: float  # d E ζ_aζ_b / d (the mean product of h_l of two examples)
    log_scale: float


@dataclass(frozen=True, slots=True)
class _Delta:
    """The gradient before an activation, per unit and example."""

    square: float
    pair: float
    response: float  # d pair / d (the mean product of h_{l−1} of two examples)
    bend: float  # E ∂δ/∂z


def run_backward(setting: Setting, layers: Sequence[Forward]) -> list[Backward]:
    """Return the gradient at each layer, in the order of the layers.

    Example:
        >>> setting = read_setting(NetworkSpec(depth=2, activation="identity", init="lecun"))
        >>> len(run_backward(setting, run_forward(setting)[0]))
        2
    """
    start = 2.0 * math.log(2.0 / (setting.batch * setting.width))
    gradient = _Gradient(1.0, 0.0, 1.0, 0.0, 0.0, start)  # ζ_L = −targets
    steps: list[Backward] = []
    for layer in reversed(layers):
        step, gradient = _step_back(setting, layer, gradient)
        steps.append(step)
    return steps[::-1]


def _step_back(setting: Setting, layer: Forward, gradient: _Gradient) -> tuple[Backward, _Gradient]:
    """Return the gradient at one layer, and at the layer's input."""
    variance, scale, m = setting.weight_variance, setting.scale, layer.moments
    free = _find_free_part(setting, layer, gradient)
    own = gradient.along * scale
    delta = _normalize(setting, layer, free, own, _pass_activation(setting, layer, free, own))
    new_along = scale * variance * delta.bend
    # Below the layer: a Gaussian of variance σ_w²·δ², and what goes past.
    square, pair, response = (
        variance * each for each in (delta.square, delta.pair, delta.response)
    )
    if setting.orthogonal:  # Wᵀ keeps lengths: the part along h is not on top of the rest
        square -= new_along**2 * layer.before
        pair -= new_along**2 * layer.before_pair
        response -= new_along**2
    along, mean = new_along, 0.0
    if setting.skips:
        past = own * m.phi
        both = 2.0 * past * gradient.mean
        square += gradient.square + both + own**2 * m.phi2
        pair += gradient.pair + both + own**2 * m.pair_phi
        gain = _find_gain(setting, layer)
        response += gradient.response * (1.0 + gain) + gradient.along**2 * gain
        mean = gradient.mean + past
        along += gradient.along
    inward = along**2 * layer.before + 2.0 * along * layer.before_mean * mean + square
    step = Backward(
        delta=max(delta.square, 0.0),
        delta_pair=delta.pair,
        pair_response=delta.response,
        inward=inward,
        rest_inward=square,
        rest=gradient.square,
        free=free.square,
        free_pair=free.pair,
        along=gradient.along,
        log_scale=gradient.log_scale,
    )
    size = inward if inward > 0.0 else 1.0
    root = math.sqrt(size)
    log_scale = gradient.log_scale + math.log(size)
    return step, _Gradient(
        along / root, mean / root, square / size, pair / size, response / size, log_scale
    )


def _find_gain(setting: Setting, layer: Forward) -> float:
    """Return d (the mean product of the branch of two examples) / d (that of h_{l−1})."""
    if setting.normalization == "batchnorm":
        return 0.0
    return setting.scale**2 * setting.weight_variance * layer.moments.pair_slope / layer.divisor


def _find_free_part(setting: Setting, layer: Forward, gradient: _Gradient) -> _Gradient:
    """Return what of the gradient at h_l does not depend on z_l; its response is by h_{l−1}."""
    gain, along = _find_gain(setting, layer), gradient.along
    if not setting.skips:
        return replace(gradient, along=0.0, response=gradient.response * gain)
    both = 2.0 * along * layer.before_mean * gradient.mean
    return replace(
        gradient,
        mean=gradient.mean + along * layer.before_mean,
        square=gradient.square + along**2 * layer.before + both,
        pair=gradient.pair + along**2 * layer.before_pair + both,
        response=gradient.response * (1.0 + gain) + along**2,
    )


def _pass_activation(setting: Setting, layer: Forward, free: _Gradient, own: float) -> _Delta:
    """Return the moments of δ = φ'·y + own·φφ', for y the free part."""
    m = layer.moments
    cross = 2.0 * own * free.mean
    turned = free.pair * m.turn_slope + cross * m.turn_slope_psi + own**2 * m.turn_psi
    return _Delta(
        square=free.square * m.slope2 + cross * m.slope_psi + own**2 * m.psi2,
        pair=free.pair * m.pair_slope + cross * m.pair_slope_psi + own**2 * m.pair_psi,
        response=free.response * m.pair_slope + setting.weight_variance / layer.q * turned,
        bend=free.mean * m.bend + own * m.psi_bend,
    )


def _normalize(
    setting: Setting, layer: Forward, free: _Gradient, own: float, delta: _Delta
) -> _Delta:
    """Return δ before the normalization, for a δ after it."""
    m, cross = layer.moments, 2.0 * own * free.mean
    shrink = setting.scale**2 / layer.divisor
    square, pair, response, bend = delta.square, delta.pair, delta.response, delta.bend
    if setting.normalization in ("layernorm", "rmsnorm"):
        touch = free.mean * m.slope_z + own * m.psi_z  # E δ·z
        centre = 0.0
        if setting.normalization == "layernorm":
            centre = free.mean * m.slope + own * m.psi  # E δ
        taken = touch**2 * (2.0 - layer.law.variance)
        square -= taken + centre**2
        pair -= taken * layer.correlation + centre**2
        response -= taken * setting.weight_variance / layer.q
        bend -= touch
    elif setting.normalization == "batchnorm":
        others = setting.batch - 1
        touch_square = free.square * m.slope2_z2 + cross * m.slope_psi_z2 + own**2 * m.psi2_z2
        touch_pair = free.pair * m.pair_slope_z + cross * m.pair_slope_psi_z + own**2 * m.pair_psi_z
        total = square + others * pair + touch_square + others * touch_pair
        square -= total / setting.batch
        pair, response, bend = -square / others, 0.0, 0.0
    return _Delta(square * shrink, pair * shrink, response * shrink, bend / layer.divisor)


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
