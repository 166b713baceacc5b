"""What a finite width does to the limit: how much ln‖·‖² varies between networks.

A layer replaces a mean over infinitely many units by one over n. To first order in 1/n, three facts
give the spread of every norm, with no constant fitted to measurements:

- A mean over n units of f varies by Var(f)/n. For the activations that needs E φ⁴, for gradients
  E φ'⁴ and the fourth moment 3 of a Gaussian. (ReLU gives 5/n per layer forward, and 5/n backward
  to a gradient that is independent of the weights: the variance 5·depth/width of Hanin & Nica 2018,
  arXiv 1812.05994. The mean squared error makes it larger, for the gradient has the size of h_L.)
- Examples of a batch share the weights, but not all of the noise: of B examples the mean varies by
  (own + (B − 1)·shared)/B, where "shared" is the covariance of two examples.
- A deviation at one layer moves what follows: forward by d ln m_l / d ln m_{l−1}, backward through
  the χ of all later layers (Roberts, Yaida & Hanin 2022 follow the same expansion).

Orthogonal weights and layer or RMS normalization keep the length of the pre-activations, so what of
the noise is parallel to z² is taken out. Two examples also have a product by chance, whose square
is of the order depth/width. It is summed over B² pairs, so it shifts the mean of ‖∂𝓛/∂W‖² by the
order B·depth/width: `pair_spread` (forward) times `Backward.pair_response` is that shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.theory.mean_field import Backward, Forward, Setting


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances between networks at one layer, of logarithms of squares.

    Attributes:
        q: Of ln q, the mean over the batch.
        m: Of ln m of the layer's output.
        chi: Of ln χ.
        correlation: Of the correlation of two pre-activations itself.
        delta: Of ln‖δ‖².
        weight_gradient: Of ln‖∂𝓛/∂W‖².
        pair_spread: Variance of the mean product of h_{l−1} of two examples, relative to m².
    """

    q: float
    m: float
    chi: float
    correlation: float
    delta: float
    weight_gradient: float
    pair_spread: float


@dataclass(frozen=True, slots=True)
class _Noise:
    """What one layer adds, and how it passes on what came before; all for logarithms of squares."""

    forward: float  # Var of the new part of ln m_l
    backward: float  # Var of the new part of ln δ_l²
    both: float  # their covariance
    keeps: float  # d ln m_l / d ln m_{l−1}
    grows: float  # d ln q / d ln m_{l−1}
    scales: float  # d ln δ_l² / d ln m_{l−1}, with the gradient at h_l as it is
    rest: float  # part of δ_l² that comes from ζ_l; the other part comes from A·h_l
    turns: float  # d ln A² / d ln m_{l−1} in this layer
    past: float  # part of ζ_{l−1}² that is ζ_l²
    left: float  # part of ζ_{l−1}² that is what the branch adds to A·h_l
    share: float  # part of ζ_{l−1}² that came through the weights
    leaves: float  # d ln (what the branch adds) / d ln m_{l−1}
    crossing: float  # Var of ln ζ_{l−1}² by the product of what comes past and through the weights


def _average(own: float, shared: float, setting: Setting) -> float:
    return (own + (setting.batch - 1) * shared) / setting.batch / setting.width


def compute_spreads(
    setting: Setting, forward: Sequence[Forward], backward: Sequence[Backward]
) -> list[Spread]:
    """Return the spread at each layer.

    Example:
        >>> from chainrule.spec.network_spec import NetworkSpec
        >>> from chainrule.theory.mean_field import read_setting, run_backward, run_forward
        >>> spec = NetworkSpec(activation="relu", init="he", depth=8, width=80, batch_size=1)
        >>> layers, _ = run_forward(setting := read_setting(spec))
        >>> spreads = compute_spreads(setting, layers, run_backward(setting, layers))
        >>> spreads[0].weight_gradient > 0.5  # 5·8/80, and the output's part
        True
    """
    width, batch = setting.width, setting.batch
    pairs = _follow_pairs(setting, forward)
    returns = _follow_pairs_back(setting, forward, backward)
    noises = [
        _measure_noise(setting, layer, gradient, pair, number == setting.depth)
        for number, (layer, gradient, pair) in enumerate(
            zip(forward, backward, pairs, strict=True), start=1
        )
    ]
    # Forward: Var ln m before each layer. The inputs are Gaussian numbers, own to each example.
    before = [2.0 / (width * batch)]
    for noise in noises:
        before.append(noise.keeps**2 * before[-1] + noise.forward)
    new = np.array([noise.forward for noise in noises])
    new_back = np.array([noise.backward for noise in noises])
    both = np.array([noise.both for noise in noises])
    # Backward: what the noise of every later layer does to ζ² and A² here. "size" is the answer to
    # a deviation of m_l itself; entry k of an array is the answer to what layer k adds.
    size_rest, size_along = 0.0, 0.0
    rest, along, rest_back = (np.zeros(len(noises)) for _ in range(3))
    crossings, spreads = 0.0, []
    for index in reversed(range(len(noises))):
        layer, noise = forward[index], noises[index]
        rest[index], along[index] = size_rest, size_along
        delta = noise.rest * rest + (1.0 - noise.rest) * along
        delta_back = noise.rest * rest_back
        delta_back[index] = 1.0
        answer = noise.keeps * (noise.rest * size_rest + (1.0 - noise.rest) * size_along)
        answer += noise.scales
        every = delta**2 * new + 2.0 * delta * delta_back * both + delta_back**2 * new_back
        later = max(float(every.sum()), 0.0) + noise.rest**2 * crossings
        chance = 2.0 * pairs[index] * returns[index] * (batch - 1) / batch
        slope2 = layer.moments.slope2 or 1.0
        slopes = _average(
            max(layer.moments.slope4 / slope2**2 - 1.0, 0.0),
            max(layer.moments.pair_slope2 / slope2**2 - 1.0, 0.0),
            setting,
        )
        chi = noise.grows * (layer.moments.grow_slope2 if setting.normalization == "none" else -1.0)
        spreads.append(
            Spread(
                q=noise.grows**2 * before[index],
                m=before[index + 1],
                chi=chi**2 * before[index] + slopes,
                correlation=pairs[index] * noise.grows**2,
                delta=answer**2 * before[index] + later,
                weight_gradient=(1.0 + answer) ** 2 * before[index] + later + chance,
                pair_spread=pairs[index],
            )
        )
        rest = noise.past * rest + noise.left * along + noise.share * delta
        rest_back = noise.past * rest_back + noise.share * delta_back
        crossings = noise.past**2 * crossings + noise.share**2 * noise.rest**2 * crossings
        crossings += noise.crossing
        size_rest = (
            noise.keeps * (noise.past * size_rest + noise.left * size_along)
            + noise.left * noise.leaves
            + noise.share * answer
        )
        size_along = noise.keeps * size_along + noise.turns
        # A_{l−1}·m_{l−1} = A_l·m_l where φ is homogeneous: A² gets the noise of m_l twice.
        along[index] += 2.0
    return spreads[::-1]


def _measure_noise(
    setting: Setting, layer: Forward, gradient: Backward, chance: float, last: bool
) -> _Noise:
    m, scale, variance = layer.moments, setting.scale, setting.weight_variance
    plain = setting.normalization == "none"
    grows = variance * layer.before / layer.q
    answer = m.grow_phi2 if plain else 0.0
    part = scale**2 * m.phi2 / layer.after  # of h_l², what is the branch's alone
    keeps = part * grows * answer
    if setting.skips:
        stream = layer.before / layer.after
        keeps += stream + (1.0 - part - stream) * (1.0 + (grows if plain else 0.0)) / 2.0
    chances = min(chance * grows**2, 1.0 - layer.correlation**2)
    new = _measure_forward_noise(setting, layer, chances)
    along, free = gradient.along * scale, gradient.free
    size = free * m.slope2 + along**2 * m.psi2
    if size <= 0.0:
        return _Noise(new, 0.0, 0.0, keeps, grows, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    through = free * m.slope2 / size
    steep = through * m.grow_slope2 + (1.0 - through) * m.grow_psi2
    rest = min(gradient.rest * m.slope2 / size, 1.0)
    scales = grows * steep if plain else -grows
    if setting.skips:  # what of the branch's gradient is along h_{l−1} grows with it
        scales += max(through - rest, 0.0)
    inward = gradient.rest_inward or 1.0
    past = left = 0.0
    if setting.skips:
        past = min(gradient.rest / inward, 1.0)
        left = along**2 * m.phi2 / inward
    share = min(max(1.0 - past - left, 0.0), 1.0)
    backward, both = _measure_backward_noise(setting, layer, gradient, chances, last)
    return _Noise(
        forward=new,
        backward=backward,
        both=part * both,
        keeps=keeps,
        grows=grows,
        scales=scales,
        rest=rest,
        turns=2.0 * grows * m.grow_psi_bend if plain and not setting.skips else 0.0,
        past=past,
        left=left,
        share=share,
        leaves=grows * answer,
        crossing=4.0 * share * past / setting.width,
    )


def _count_taken(setting: Setting) -> float:
    """Return the part of Var(z²)/q² that does not occur where the length of z is kept."""
    kept = setting.orthogonal or setting.normalization in ("layernorm", "rmsnorm")
    return 2.0 if kept else 0.0


def _measure_forward_noise(setting: Setting, layer: Forward, chances: float) -> float:
    """Return the variance of what is new in ln m_l; `chances` is Var of the correlation."""
    m, scale, taken = layer.moments, setting.scale, _count_taken(setting)
    square = layer.correlation**2
    own = m.phi4 - m.phi2**2 * (1.0 + taken * m.grow_phi2**2)
    shared = m.pair_phi2 - m.phi2**2 * (1.0 + taken * square * m.grow_phi2**2)
    shared += (2.0 - taken) * chances * (m.phi2 * m.grow_phi2) ** 2
    new = scale**4 * _average(max(own, 0.0), max(shared, 0.0), setting)
    if setting.skips:
        mean = layer.before_mean
        cross = layer.before * m.phi2 - (mean * m.phi) ** 2
        cross_pair = layer.before_pair * m.pair_phi - (mean * m.phi) ** 2
        skew = mean * (m.phi3 - m.phi * m.phi2)
        skew_pair = mean * (m.pair_phi_phi2 - m.phi * m.phi2)
        new += 4.0 * scale**2 * _average(cross, cross_pair, setting)
        new += 4.0 * scale**3 * _average(skew, skew_pair, setting)
    return max(new, 0.0) / layer.after**2


def _measure_backward_noise(
    setting: Setting, layer: Forward, gradient: Backward, chances: float, last: bool
) -> tuple[float, float]:
    """Return the variance of what is new in ln δ_l², and its covariance with ln φ².

    δ = φ'·y + a·φφ' with a Gaussian y; `chances` is the variance of the correlation, and the last
    layer's y are the targets, whose length no orthogonal matrix has kept.
    """
    m, taken, square = layer.moments, _count_taken(setting), layer.correlation**2
    along, free, pair = gradient.along * setting.scale, gradient.free, gradient.free_pair
    size = free * m.slope2 + along**2 * m.psi2
    through = free * m.slope2 / size
    steep = through * m.grow_slope2 + (1.0 - through) * m.grow_psi2
    own = 3.0 * free**2 * m.slope4 + 6.0 * free * along**2 * m.slope2_psi2 + along**4 * m.psi4
    shared = (free**2 + 2.0 * pair**2) * m.pair_slope2
    shared += 2.0 * free * along**2 * m.pair_slope2_psi2 + along**4 * m.pair_psi2
    shared += 4.0 * pair * along**2 * m.pair_slope_psi
    own = own / size**2 - 1.0 - taken * steep**2
    shared = shared / size**2 - 1.0 + ((2.0 - taken) * chances - taken * square) * steep**2
    if setting.orthogonal and not last:
        own -= 2.0 * through**2
        shared -= 2.0 * (through * pair / free) ** 2 if free > 0.0 else 0.0
    backward = _average(max(own, 0.0), max(shared, 0.0), setting)
    if m.phi2 <= 0.0:
        return backward, 0.0
    both = free * m.psi2 + along**2 * m.phi2_psi2
    both_pair = free * m.pair_phi2_slope2 + along**2 * m.pair_phi2_psi2
    both = both / (size * m.phi2) - 1.0 - taken * m.grow_phi2 * steep
    both_pair = both_pair / (size * m.phi2) - 1.0 - taken * square * m.grow_phi2 * steep
    return backward, _average(both, both_pair, setting)


def _follow_pairs(setting: Setting, forward: Sequence[Forward]) -> list[float]:
    """Return Var(the mean product of h_{l−1} of two examples) / m² for each layer."""
    spread = 1.0 / setting.width
    spreads = []
    for layer in forward:
        spreads.append(spread)
        m, scale = layer.moments, setting.scale
        if m.phi2 <= 0.0 or setting.normalization == "batchnorm":
            spread = 0.0 if m.phi2 <= 0.0 else 1.0 / setting.width
            continue
        slope = scale**2 * setting.weight_variance * m.pair_slope / layer.divisor
        kept = slope + (1.0 if setting.skips else 0.0)
        rho = m.pair_phi / m.phi2
        # Var of φ_aφ_b/m − ρ(φ_a² + φ_b²)/(2m): the noise that turns, and does not stretch.
        new = m.pair_phi2 - 2.0 * rho * m.pair_phi3_phi
        new = (new + 0.5 * rho**2 * (m.phi4 + m.pair_phi2)) / m.phi2**2
        if setting.orthogonal:
            linear = setting.weight_variance * m.pair_slope * layer.before / m.phi2
            new -= linear**2 * max(1.0 - layer.correlation**2, 0.0)
        part = scale**2 * m.phi2 / layer.after
        new = part**2 * max(new, 0.0)
        if setting.skips:
            cross = layer.before * m.phi2 + layer.before_pair * m.pair_phi
            new += 2.0 * scale**2 * cross * max(1.0 - rho, 0.0) / layer.after**2
        spread = (kept * layer.before / layer.after) ** 2 * spread + new / setting.width
        spread = min(spread, 1.0)
    return spreads


def _follow_pairs_back(
    setting: Setting, forward: Sequence[Forward], backward: Sequence[Backward]
) -> list[float]:
    """Return Var(the mean product of δ_l of two examples) / (mean δ_l²)² for each layer."""
    fresh = 0.0 if setting.orthogonal else 1.0 / setting.width
    spread, spreads = 1.0 / setting.width, []
    for layer, gradient in zip(reversed(forward), reversed(backward), strict=True):
        m = layer.moments
        ratio = m.pair_slope / m.slope2 if m.slope2 > 0.0 else 0.0
        spread = min(ratio**2 * spread, 1.0)
        spreads.append(spread)
        share = setting.weight_variance * gradient.delta / (gradient.inward or 1.0)
        weight = min(share, 1.0) ** 2 if setting.skips else 1.0
        spread = min(spread + weight * fresh, 1.0)
    return spreads[::-1]
