"""The product of factors as a chain of equal layers grows, and the weights for which it stays.

References:
    Hochreiter 1991 (diploma thesis, TUM); Bengio, Simard & Frasconi 1994 (IEEE TNN).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chainrule.chain.notation import format_equal
from chainrule.chain.scalar_chain import MAX_LAYERS, ScalarChain
from chainrule.chain.wide_float import ONE, WideFloat
from chainrule.errors import SpecError
from chainrule.spec.activations import Activation, get_activation

STABLE = 10.0
"""A product is stable while it stays within this factor of 1: between 0.1 and 10."""

WEIGHT_RANGE = (0.01, 100.0)
"""The sizes |w| that are searched for stable products."""

SEARCHED = "(searched in steps of 2 %: a narrower range can be missed)"
"""What to know about the intervals; a test holds it to the grid."""

_GRID = 400
_BISECTIONS = 40


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DepthCurve:
    """The product of the factors of ∂h_d/∂x for d = 1 … n equal layers.

    Attributes:
        weight: w of every layer.
        activation: Name of the activation of every layer.
        products: ∂h_d/∂x at the values of this chain.
        best: (|w| times the largest |φ′|)^d: no chain with this weight can have more.

    Example:
        >>> measure_depth(0.5, "identity", depth=3)
        DepthCurve(w = 0.5, identity, 3 layers: 0.5 … 0.125)
    """

    weight: float
    activation: str
    products: tuple[WideFloat, ...]
    best: tuple[WideFloat, ...]

    def __repr__(self) -> str:
        layers = f"{len(self.products)} layer{'s' if len(self.products) > 1 else ''}"
        return (
            f"DepthCurve(w {format_equal(WideFloat.from_float(self.weight))}, {self.activation}, "
            f"{layers}: {self.products[0]} … {self.products[-1]})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StableWeights:
    """The weights with which the product stays within 10× of 1 in all of d = 1 … n equal layers.

    Attributes:
        activation: Name of the activation.
        depth: The n up to which it does.
        intervals: Intervals of w in which it does for the given x and b; empty if there is none.
        best: The interval of |w| in which it does in the best case, where |φ′| is at its largest
            in every layer.
        threshold: 1 ÷ the largest |φ′|: below this |w| every product vanishes in the long run.

    Example:
        >>> find_stable_weights("sigmoid", depth=10).threshold
        4.0
    """

    activation: str
    depth: int
    intervals: tuple[tuple[float, float], ...]
    best: tuple[float, float]
    threshold: float

    @property
    def sentence(self) -> str:
        """The threshold and the region in words."""
        low, high = self.best
        layers = f"{self.depth} layer{'s' if self.depth > 1 else ''}"
        best = (
            f"Below |w| = {self.threshold:.3g} the product vanishes in the long run, even in the "
            "best case, where every |φ′| is at its largest. In that best case it stays between "
            f"0.1 and 10 in up to {layers} if {low:.3g} ≤ |w| ≤ {high:.3g}."
        )
        if not self.intervals:
            return f"{best} Starting from this x, it does so for no w {SEARCHED}."
        found = " or ".join(f"{_sign(a)} ≤ w ≤ {_sign(b)}" for a, b in self.intervals)
        return f"{best} Starting from this x, it does so if {found} {SEARCHED}."


def measure_depth(
    weight: float,
    activation: str = "sigmoid",
    *,
    x: float = 1.0,
    bias: float = 0.0,
    depth: int = 50,
) -> DepthCurve:
    """Return the running product as a chain of equal layers grows.

    Args:
        weight: w of every layer.
        activation: Activation of every layer.
        x: The input.
        bias: b of every layer.
        depth: The largest number of layers n.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> measure_depth(0.5, "identity", depth=3).products
        (0.5, 0.25, 0.125)
    """
    check_depth("depth", depth)
    chain = ScalarChain(x, [weight] * depth, activation, [bias] * depth)
    largest = WideFloat.from_float(get_activation(activation).derivative_max)
    size = WideFloat.from_float(abs(chain.weights[0])) * largest
    products, best = [ONE], [ONE]
    for layer in chain.layers:
        products.append(products[-1] * layer.weight * layer.slope)
        best.append(best[-1] * size)
    return DepthCurve(
        weight=chain.weights[0],
        activation=activation,
        products=tuple(products[1:]),
        best=tuple(best[1:]),
    )


def find_stable_weights(
    activation: str = "sigmoid", *, x: float = 1.0, bias: float = 0.0, depth: int = 50
) -> StableWeights:
    """Return the weights with which the running product stays within 10× of 1 at every depth.

    Searched are 0.01 ≤ |w| ≤ 100 on a logarithmic grid, so an interval narrower than 2 % of its
    weight can be missed.

    Args:
        activation: Activation of every layer.
        x: The input.
        bias: b of every layer.
        depth: The largest number of layers n.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> find_stable_weights("sigmoid", depth=20).threshold
        4.0
    """
    check_depth("depth", depth)
    entry = get_activation(activation)
    ScalarChain(x, [1.0], activation, [bias])
    sizes = _list_sizes()
    grid = [*(-size for size in reversed(sizes)), *sizes]
    return StableWeights(
        activation=activation,
        depth=depth,
        intervals=_find_intervals(grid, lambda w: _count_stable(entry, w, x, bias, depth) == depth),
        best=find_best_weights(activation, depth),
        threshold=1.0 / entry.derivative_max,
    )


def find_best_weights(activation: str, depth: int) -> tuple[float, float]:
    """Return the interval of |w| in which the best case stays within 10× of 1.

    In the best case |φ′| is at its largest in every layer, so the product is (|w| · max |φ′|)ⁿ.

    Args:
        activation: Activation of every layer.
        depth: The number of layers n.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> find_best_weights("sigmoid", 1)
        (0.4, 40.0)
    """
    check_depth("depth", depth)
    threshold = 1.0 / get_activation(activation).derivative_max
    return threshold * STABLE ** (-1.0 / depth), threshold * STABLE ** (1.0 / depth)


def count_stable_layers(
    activation: str = "sigmoid",
    *,
    x: float = 1.0,
    bias: float = 0.0,
    depth: int = 50,
    negative: bool = False,
) -> tuple[tuple[float, int], ...]:
    """Return for each size |w| searched up to how many equal layers the product stays within 10×.

    Args:
        activation: Activation of every layer.
        x: The input.
        bias: b of every layer.
        depth: The largest number of layers n.
        negative: Whether w is −|w|.

    Returns:
        Pairs of |w|, rising, and the number of layers, from 0 to `depth`.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> len(count_stable_layers("sigmoid", depth=20))
        400
    """
    check_depth("depth", depth)
    entry = get_activation(activation)
    x = ScalarChain(x, [1.0], activation, [bias]).x
    sign = -1.0 if negative else 1.0
    return tuple(
        (size, _count_stable(entry, sign * size, x, bias, depth)) for size in _list_sizes()
    )


def find_best_biases(x: float, weights: Sequence[float], activation: str) -> tuple[float, ...]:
    """Return biases that put every z_l where |φ′| is largest: the best case of these weights.

    Args:
        x: The input.
        weights: One per layer.
        activation: Activation of every layer.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> find_best_biases(1.0, [0.5, 4.0], "sigmoid")
        (-0.5, -2.0)
    """
    chain = ScalarChain(x, weights, activation)
    entry = get_activation(activation)
    z = entry.derivative_argmax
    inputs = [chain.x, *[entry.function(z)] * (chain.depth - 1)]
    return tuple(z - w * h for w, h in zip(chain.weights, inputs, strict=True))


def check_depth(name: str, depth: int) -> None:
    """Raise unless a number of layers or steps is one that a chain can have.

    Raises:
        SpecError: Naming the argument, the range and what came.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= MAX_LAYERS:
        raise SpecError(f"{name}: must be a whole number from 1 to {MAX_LAYERS}; got {depth!r}.")


def _list_sizes() -> list[float]:
    low, high = map(math.log, WEIGHT_RANGE)
    return [math.exp(low + (high - low) * i / (_GRID - 1)) for i in range(_GRID)]


def _count_stable(entry: Activation, w: float, x: float, bias: float, depth: int) -> int:
    """Return the number of layers before the product first leaves 10× of 1, at most `depth`."""
    bound, log, h = math.log(STABLE), 0.0, x
    for layer in range(depth):
        z = w * h + bias
        slope = abs(w * entry.derivative(z)) if math.isfinite(z) else 0.0
        log += math.log(slope) if slope else -math.inf
        if not abs(log) <= bound:
            return layer
        h = entry.function(z)
    return depth


def _find_intervals(
    grid: Sequence[float], holds: Callable[[float], bool]
) -> tuple[tuple[float, float], ...]:
    """Return the intervals in which a condition holds, their ends refined between grid points."""
    intervals: list[tuple[float, float]] = []
    held = [holds(value) for value in grid]
    start: float | None = None
    for i, (value, now) in enumerate(zip(grid, held, strict=True)):
        if now and start is None:
            start = _bisect(value, grid[i - 1], holds) if i else value
        after = held[i + 1] if i + 1 < len(grid) else False
        if now and not after and start is not None:
            end = _bisect(value, grid[i + 1], holds) if i + 1 < len(grid) else value
            intervals.append((start, end))
            start = None
    return tuple(intervals)


def _bisect(inside: float, outside: float, holds: Callable[[float], bool]) -> float:
    for _ in range(_BISECTIONS):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def _sign(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
