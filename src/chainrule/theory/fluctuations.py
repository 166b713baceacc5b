"""What a finite width does to the limit: how much ln‖·‖² varies between networks.

A layer replaces a mean over infinitely many units by one over n. To first order in 1/n, three facts
give the spread of every norm, with no constant fitted to measurements:

- A mean over n units of f varies by Var(f)/n. For the activations that needs E φ⁴, for the gradients
  E φ'⁴ and the fourth moment 3 of a Gaussian. (A unit of ReLU gives 5/n forward and 5/n backward,
  so ln‖∂𝓛/∂W‖² has the variance 5·depth/width of Hanin & Nica 2018, arXiv 1812.05994.)
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
    """What one layer adds, and how it passes on what came before."""

    forward: float  # Var of the new part of ln m_l
    backward: float  # Var of the new part of ln δ_l²
    both: float  # their covariance
    keeps: float  # d ln m_l / d ln m_{l−1}
    grows: float  # d ln q / d ln m_{l−1}
    turns: float  # d ln E φ'² / d ln m_{l−1}, with what normalization divides by
    share: float  # part of the gradient at h_{l−1} that came through this layer
    crossing: float  # Var from the sum of that part and the residual stream


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
        >>> 0.4 < spreads[0].weight_gradient < 0.6  # 5·8/80, and the output's part
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
    # Backward: how the gradient at h_l answers to m_l, from the output on.
    last = backward[-1]
    answers = [last.along**2 * forward[-1].after / last.outward]
    for noise in reversed(noises):
        answers.append(noise.keeps * answers[-1] + noise.share * noise.turns)
    answers.reverse()  # answers[l] is d ln g_l² / d ln m_l, l = 0 … L
    spreads, later = [], 0.0
    for index in reversed(range(len(noises))):
        layer, noise = forward[index], noises[index]
        answer = noise.keeps * answers[index + 1] + noise.turns
        own = _combine(noise, answers[index + 1], 1.0)
        chance = 2.0 * pairs[index] * returns[index] * (batch - 1) / batch
        slope2 = layer.moments.slope2 or 1.0
        slopes = _average(
            max(layer.moments.slope4 / slope2**2 - 1.0, 0.0),
            max(layer.moments.pair_slope2 / slope2**2 - 1.0, 0.0),
            setting,
        )
        spreads.append(
            Spread(
                q=noise.grows**2 * before[index],
                m=before[index + 1],
                chi=noise.turns**2 * before[index] + slopes,
                correlation=pairs[index] * noise.grows**2,
                delta=answer**2 * before[index] + own + later,
                weight_gradient=(1.0 + answer) ** 2 * before[index] + own + later + chance,
                pair_spread=pairs[index],
            )
        )
        later += _combine(noise, answers[index + 1], noise.share) + noise.crossing
    return spreads[::-1]


def _combine(noise: _Noise, answer: float, weight: float) -> float:
    """Return the variance of answer·(forward noise) + weight·(backward noise)."""
    forward, backward = answer**2 * noise.forward, weight**2 * noise.backward
    return max(forward + 2.0 * answer * weight * noise.both + backward, 0.0)


def _measure_noise(
    setting: Setting, layer: Forward, gradient: Backward, chance: float, last: bool
) -> _Noise:
    m, scale, variance = layer.moments, setting.scale, setting.weight_variance
    grows = variance * layer.before / layer.q
    if setting.normalization == "none":
        answer, turns = m.grow_phi2, grows * m.grow_slope2
    else:
        answer, turns = 0.0, -grows
    part = scale**2 * m.phi2 / layer.after  # of h_l, what the branch adds
    keeps = part * grows * answer + (layer.before / layer.after if setting.skips else 0.0)
    square = layer.correlation**2
    chances = min(chance * grows**2, 1.0 - square)
    kept = setting.orthogonal or setting.normalization in ("layernorm", "rmsnorm")
    taken = 2.0 if kept else 0.0
    if m.phi2 > 0.0:
        own = m.phi4 / m.phi2**2 - 1.0 - taken * m.grow_phi2**2
        shared = m.pair_phi2 / m.phi2**2 - 1.0 - taken * square * m.grow_phi2**2
        shared += (2.0 - taken) * chances * m.grow_phi2**2
    else:
        own = shared = 0.0
    new = part**2 * _average(max(own, 0.0), max(shared, 0.0), setting)
    if setting.skips:
        cross, cross_pair = layer.before * m.phi2, layer.before_pair * m.pair_phi
        new += 4.0 * scale**2 * _average(cross, cross_pair, setting) / layer.after**2
    # Backward: δ² = (φ'·y + a·ψ)² with a Gaussian y.
    along = gradient.along * scale
    rest = gradient.outward
    if not setting.skips:
        rest = max(gradient.outward - gradient.along**2 * layer.after, 0.0)
    rest_pair = gradient.outward_pair
    if not setting.skips:
        rest_pair -= gradient.along**2 * layer.after_pair
    size = rest * m.slope2 + along**2 * m.psi2
    if size <= 0.0:
        return _Noise(new, 0.0, 0.0, keeps, grows, turns, 0.0, 0.0)
    fourth = 3.0 * rest**2 * m.slope4 + 6.0 * rest * along**2 * m.slope2_psi2
    fourth += along**4 * m.psi4
    fourth_pair = (rest**2 + 2.0 * rest_pair**2) * m.pair_slope2
    fourth_pair += 2.0 * rest * along**2 * m.pair_slope2_psi2 + along**4 * m.pair_psi2
    fourth_pair += 4.0 * rest_pair * along**2 * m.pair_slope_psi
    steep = m.grow_slope2
    own_back = fourth / size**2 - 1.0 - taken * steep**2
    shared_back = fourth_pair / size**2 - 1.0 + ((2.0 - taken) * chances - taken * square) * steep**2
    if setting.orthogonal and not last:
        random = rest * m.slope2 / size
        own_back -= 2.0 * random**2
        shared_back -= 2.0 * (random * rest_pair / rest) ** 2 if rest > 0.0 else 0.0
    both = both_pair = 0.0
    if m.phi2 > 0.0:
        both = (rest * m.psi2 + along**2 * m.phi2_psi2) / (size * m.phi2) - 1.0
        both_pair = rest * m.pair_phi2_slope2 + along**2 * m.pair_phi2_psi2
        both_pair = both_pair / (size * m.phi2) - 1.0
        both -= taken * m.grow_phi2 * steep
        both_pair -= taken * square * m.grow_phi2 * steep
    inward = gradient.inward
    share = min(variance * gradient.delta / inward, 1.0) if inward > 0.0 else 0.0
    crossing = 4.0 * share * (1.0 - share) / setting.width if setting.skips else 0.0
    return _Noise(
        forward=new,
        backward=_average(max(own_back, 0.0), max(shared_back, 0.0), setting),
        both=part * _average(both, both_pair, setting),
        keeps=keeps,
        grows=grows,
        turns=turns,
        share=share,
        crossing=crossing,
    )


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
