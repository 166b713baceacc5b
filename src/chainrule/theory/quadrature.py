"""Expectations of an activation function over the pre-activations of a wide layer.

In a wide network the pre-activations of one unit, for two examples a and b of a batch, are Gaussian
(Neal 1996). They are written as z_a = √q·r·cos(θ − γ) and z_b = √q·r·cos(θ + γ) with cos 2γ the
correlation, so that r·cos θ and r·sin θ are independent with variance 1. All kinks of the
activations lie at z = 0: on rays from the origin. Between these rays everything is smooth, and
Gauss-Legendre quadrature is exact to about 13 digits, for every correlation up to 1.

Two starts are not Gaussian. A uniform bias adds the same uniform number to z_a and z_b: that
changes the density of r·cos θ alone. Batch normalization puts the batch of one unit on a sphere:
that changes the density of r alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from chainrule.spec.activations import get_activation

Array = NDArray[np.float64]

REACH = 10.0
"""Standard deviations after which a Gaussian is left out: its density is below 1e-22 there."""

_RADII = (0.0, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, REACH)
_RADIAL_NODES, _ANGULAR_NODES = 10, 22
_GRADED_NODES = 12
"""Nodes of a panel of angles where there are several between two rays."""

_GRADING = 3.0
"""How much shorter each panel is than the one before it, towards a kink."""

_FINEST = 1e-5
"""Part of a standard deviation below which no panel gets: what bends there weighs nothing."""

_NEAR_ONE = 1e-7
"""Below this difference of the correlation from 1, derivatives by it are not resolved."""


@dataclass(frozen=True, slots=True)
class Law:
    """How the pre-activations of one unit are distributed, for one example or a pair of them.

    Attributes:
        variance: q, the mean of z².
        correlation: Of z_a and z_b.
        uniform_share: Part of the variance that comes from a uniform number which the examples
            share: a bias.
        sphere: Dimensions of the sphere on which the batch lies; `None` for a Gaussian.
    """

    variance: float
    correlation: float = 0.0
    uniform_share: float = 0.0
    sphere: int | None = None


def vectorize(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """Return a function of the table of activations for arrays of any shape.

    Example:
        >>> vectorize(math.tanh)(np.array([0.0, 400.0])).tolist()
        [0.0, 1.0]
    """
    each = np.frompyfunc(function, 1, 1)
    return lambda z: np.asarray(each(z), dtype=np.float64)


_erf = vectorize(math.erf)


def _sigmoid(z: Array) -> Array:
    tail = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0, tail) / (1.0 + tail)


def _slope_tanh(z: Array) -> Array:
    return np.asarray(np.cosh(np.clip(z, -350.0, 350.0)) ** -2.0)


_ARRAYS: Mapping[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = MappingProxyType(
    {
        "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
        "tanh": (np.tanh, _slope_tanh),
        "relu": (lambda z: np.maximum(z, 0.0), lambda z: np.where(z > 0.0, 1.0, 0.0)),
        "silu": (
            lambda z: z * _sigmoid(z),
            lambda z: _sigmoid(z) * (1.0 + z * _sigmoid(-z)),
        ),
        "elu": (
            lambda z: np.where(z > 0.0, z, np.expm1(np.minimum(z, 0.0))),
            lambda z: np.exp(np.minimum(z, 0.0)),
        ),
        "identity": (lambda z: z, np.ones_like),
    }
)
"""φ and φ' of the table for whole arrays, where that is simple: ten times as fast."""


def get_arrays(activation: str) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Return φ and φ' of the table of activations, for arrays of any shape.

    Example:
        >>> phi, slope = get_arrays("relu")
        >>> phi(np.array([-1.0, 2.0])).tolist(), slope(np.array([-1.0, 2.0])).tolist()
        ([0.0, 2.0], [0.0, 1.0])
    """
    if activation in _ARRAYS:
        return _ARRAYS[activation]
    entry = get_activation(activation)
    return vectorize(entry.function), vectorize(entry.derivative)


@cache
def _list_nodes(count: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return np.asarray(nodes), np.asarray(weights)


def integrate(edges: Sequence[float], count: int) -> tuple[Array, Array]:
    """Return nodes and weights of Gauss-Legendre quadrature, composed of the panels between edges.

    Example:
        >>> nodes, weights = integrate([0.0, 1.0, 3.0], 4)
        >>> round(float((nodes**2 * weights).sum()), 12)
        9.0
    """
    nodes, weights = _list_nodes(count)
    ends = np.asarray(edges, dtype=np.float64)
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    return (middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()


def _grade(edges: Sequence[float], finest: float) -> list[float]:
    """Return edges from 0 on, with more of them near 0 until a panel is as short as `finest`."""
    graded = list(edges)
    while graded[1] > finest:
        graded.insert(1, graded[1] / _GRADING)
    return graded


def is_homogeneous(activation: str) -> bool:
    """Return whether φ(cz) = c·φ(z) for c > 0: two straight lines that meet at 0.

    Example:
        >>> is_homogeneous("leaky_relu"), is_homogeneous("tanh")
        (True, False)
    """
    function = get_activation(activation).function
    return all(function(8.0 * z) == 8.0 * function(z) for z in (-4.0, -0.5, 0.5, 4.0))


def _choose_fineness(activation: str, law: Law) -> float:
    """Return the part of a standard deviation in which φ bends; 1 if it bends nowhere but at 0."""
    if law.variance <= 1.0 or is_homogeneous(activation):
        return 1.0
    return max(1.0 / math.sqrt(law.variance), _FINEST)


def _list_radii(law: Law, fineness: float) -> list[float]:
    end = REACH if law.sphere is None else math.sqrt(law.sphere)
    edges = [radius for radius in _RADII if radius < end] + [end]
    return _grade(edges, 0.5 * fineness)


def _measure_density(x: Array, law: Law) -> tuple[Array, Array]:
    """Return the density of r·cos θ (variance 1) and minus its derivative."""
    if law.uniform_share <= 0.0:
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return density, x * density
    spread = math.sqrt(max(1.0 - law.uniform_share, 1e-12))
    half = math.sqrt(3.0 * law.uniform_share)
    above, below = (x + half) / spread, (x - half) / spread
    density = (_erf(above * math.sqrt(0.5)) - _erf(below * math.sqrt(0.5))) / (4.0 * half)
    slope = np.exp(-0.5 * above * above) - np.exp(-0.5 * below * below)
    return density, -slope / (math.sqrt(2.0 * math.pi) * 2.0 * half * spread)


@dataclass(frozen=True)
class OnePoint:
    """Expectations over one pre-activation.

    Attributes:
        law: Its distribution.
        z: The nodes.
        weights: Their weights; they add up to 1.
        phi: φ at the nodes.
        slope: φ' at the nodes.
        scores: Weights with which a sum over f is the mean of the derivative f', also where f has
            a kink or a step (Stein's identity).
    """

    law: Law
    z: Array
    weights: Array
    phi: Array
    slope: Array
    scores: Array

    def mean(self, values: Array) -> float:
        """Return the mean of values at the nodes."""
        return float((self.weights * values).sum())

    def mean_derivative(self, values: Array) -> float:
        """Return the mean of the derivative by z of values at the nodes."""
        return float((self.scores * values).sum())

    def follow_variance(self, values: Array) -> float:
        """Return d mean / d ln q: how a mean changes if the pre-activations grow."""
        return 0.5 * self.mean(values * (self.z**2 / self.law.variance - 1.0))

    @cached_property
    def product(self) -> Array:
        """φ·φ' at the nodes."""
        return np.asarray(self.phi * self.slope)


def expect_one(activation: str, law: Law) -> OnePoint:
    """Return what expectations over one pre-activation need.

    Example:
        >>> one = expect_one("relu", Law(1.0))
        >>> round(one.mean(one.phi**2), 12)
        0.5
    """
    phi, slope = get_arrays(activation)
    fineness = _choose_fineness(activation, law)
    radii, lengths = integrate(_list_radii(law, fineness), _RADIAL_NODES + 4)
    x = np.concatenate([-radii[::-1], radii])
    widths = np.concatenate([lengths[::-1], lengths])
    if law.sphere is None:
        density, falling = _measure_density(x, law)
    else:
        power = (law.sphere - 3) / 2
        density = np.maximum(1.0 - x * x / law.sphere, 0.0) ** power
        density /= float((widths * density).sum())
        falling = x * density
    scale = math.sqrt(law.variance)
    z = scale * x
    return OnePoint(
        law=law,
        z=z,
        weights=widths * density,
        phi=phi(z),
        slope=slope(z),
        scores=widths * falling / scale,
    )


@dataclass(frozen=True)
class TwoPoint:
    """Expectations over the pre-activations of two examples.

    Attributes:
        law: Their distribution.
        z: z_a and z_b at the nodes of one half plane; the other half exchanges them.
        weights: Weights of the nodes; twice their sum is 1.
        turns: Weights for the derivative by the correlation; `None` where it is almost 1.
        phi: φ(z_a) and φ(z_b).
        slope: φ'(z_a) and φ'(z_b).
    """

    law: Law
    z: tuple[Array, Array]
    weights: Array
    turns: Array | None
    phi: tuple[Array, Array]
    slope: tuple[Array, Array]

    def mean(self, left: tuple[Array, Array], right: tuple[Array, Array]) -> float:
        """Return the mean of left(z_a)·right(z_b)."""
        return _sum_both(self.weights, left, right)

    def follow_correlation(self, left: tuple[Array, Array], right: tuple[Array, Array]) -> float:
        """Return d mean / d correlation; 0 where the correlation is almost 1."""
        return 0.0 if self.turns is None else _sum_both(self.turns, left, right)

    @cached_property
    def product(self) -> tuple[Array, Array]:
        """φ·φ' of both."""
        return multiply(self.phi, self.slope)


def multiply(left: tuple[Array, Array], right: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the products of two functions, at both examples."""
    return left[0] * right[0], left[1] * right[1]


def _sum_both(weights: Array, left: tuple[Array, Array], right: tuple[Array, Array]) -> float:
    # A plain sum: the threads of a linear-algebra library cost more than they save here.
    return float((weights * (left[0] * right[1] + left[1] * right[0])).sum())


def _list_sectors(gamma: float, finest: float) -> Iterator[list[float]]:
    """Yield the edges of the half plane's sectors between the rays on which z_a or z_b is 0."""
    ends = (0.0, math.pi / 2 - gamma, math.pi / 2 + gamma, math.pi)
    for number, (start, end) in enumerate(pairwise(ends)):
        width = end - start
        if width <= 0.0:
            continue
        if number == 1:  # both ends are kinks
            half = _grade([0.0, width / 2], finest)
            yield [start + edge for edge in half] + [end - edge for edge in half[-2::-1]]
        else:
            edges = _grade([0.0, width], finest)
            inward = [start + edge for edge in edges]
            yield inward if number else [end - edge for edge in reversed(edges)]


def expect_two(activation: str, law: Law) -> TwoPoint:
    """Return what expectations over the pre-activations of two examples need.

    Example:
        >>> two = expect_two("relu", Law(1.0, correlation=1.0))
        >>> round(two.mean(two.phi, two.phi), 12)
        0.5
    """
    phi, slope = get_arrays(activation)
    rho = min(max(law.correlation, -1.0), 1.0)
    gamma = 0.5 * math.acos(rho)
    fineness = _choose_fineness(activation, law)
    parts = [
        integrate(edges, _ANGULAR_NODES if len(edges) == 2 else _GRADED_NODES)
        for edges in _list_sectors(gamma, 2.0 * fineness)
    ]
    angles = np.concatenate([nodes for nodes, _ in parts])[:, None]
    widths = np.concatenate([weights for _, weights in parts])[:, None]
    radii, lengths = integrate(_list_radii(law, fineness), _RADIAL_NODES)
    across, along = radii * np.cos(angles), radii * np.sin(angles)
    if law.sphere is not None:
        power = (law.sphere - 4) / 2
        density = np.maximum(1.0 - radii * radii / law.sphere, 0.0) ** power
        density = density / (2.0 * math.pi) * (law.sphere - 2) / law.sphere
        weights = widths * (lengths * radii * density)
    elif law.uniform_share <= 0.0:
        weights = widths * (lengths * radii * np.exp(-0.5 * radii * radii) / (2.0 * math.pi))
    else:
        # Of z_a + z_b the uniform number is a larger part than of z_a alone.
        share = law.uniform_share / math.cos(gamma) ** 2
        density, _ = _measure_density(across, Law(1.0, uniform_share=min(share, 1.0)))
        normal = np.exp(-0.5 * along * along) / math.sqrt(2.0 * math.pi)
        weights = widths * lengths * radii * density * normal
    scale = math.sqrt(law.variance)
    # cos(θ ∓ γ) is written as a distance from the ray of its zero, to keep its sign exact there.
    z_a = scale * radii * np.sin(math.pi / 2 + gamma - angles)
    z_b = scale * radii * np.sin(math.pi / 2 - gamma - angles)
    turns = None
    if 1.0 - abs(rho) > _NEAR_ONE and law.sphere is None:
        tangent = math.tan(gamma)
        change = tangent * (across**2 - 1.0) + (1.0 - along**2) / tangent
        turns = weights * change / (2.0 * math.sin(2.0 * gamma))
    return TwoPoint(
        law=law,
        z=(z_a, z_b),
        weights=np.asarray(weights),
        turns=turns,
        phi=(phi(z_a), phi(z_b)),
        slope=(slope(z_a), slope(z_b)),
    )
