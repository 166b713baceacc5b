"""The vocabulary of weight initializations: one table that everything reads.

Fan-in and fan-out are the numbers of inputs and outputs of a layer. Every entry gives the variance
of one weight as a function of them; the drawn distribution is normal or uniform with that variance
(a uniform distribution on [−b, b] has variance b²/3).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from chainrule.errors import SpecError, abbreviate, suggest

Distribution = Literal["normal", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Initializer:
    """One way to draw initial weights.

    Attributes:
        name: The name used in specifications.
        label: The name shown to people.
        formula: Variance of one weight, in LaTeX.
        variance: Variance of one weight from (fan_in, fan_out, weight_std).
        default_distribution: The form drawn unless a specification asks for the other one.
        distributions: The forms that exist. An orthogonal matrix has only one.
        bias_bound: Biases are drawn uniformly from ±(this value), from fan_in; `None` means zero.
        best_for: Where it suits, in a few words.
        source: Where it comes from.

    Example:
        >>> INITIALIZERS["he"].variance(64, 64, 1.0)
        0.03125
    """

    name: str
    label: str
    formula: str
    variance: Callable[[int, int, float], float]
    default_distribution: Distribution
    distributions: tuple[Distribution, ...]
    bias_bound: Callable[[int], float] | None
    best_for: str
    source: str

    def standard_deviation(self, fan_in: int, fan_out: int, weight_std: float = 1.0) -> float:
        """Return the standard deviation of one weight.

        Args:
            fan_in: Number of inputs of the layer.
            fan_out: Number of outputs of the layer.
            weight_std: The σ of `random`; the others ignore it.
        """
        return math.sqrt(self.variance(fan_in, fan_out, weight_std))

    def uniform_bound(self, fan_in: int, fan_out: int, weight_std: float = 1.0) -> float:
        """Return the bound b of the uniform form on [−b, b] (b = √3 · standard deviation)."""
        return math.sqrt(3.0) * self.standard_deviation(fan_in, fan_out, weight_std)


_BOTH: tuple[Distribution, ...] = ("normal", "uniform")

_TABLE = (
    Initializer(
        name="xavier",
        label="Xavier (Glorot)",
        formula=r"\operatorname{Var}(w) = \frac{2}{n_\text{in} + n_\text{out}}",
        variance=lambda fan_in, fan_out, _: 2.0 / (fan_in + fan_out),
        default_distribution="normal",
        distributions=_BOTH,
        bias_bound=None,
        best_for="tanh, and sigmoid in shallow networks",
        source="Glorot & Bengio 2010, equation 12",
    ),
    Initializer(
        name="he",
        label="He (Kaiming)",
        formula=r"\operatorname{Var}(w) = \frac{2}{n_\text{in}}",
        variance=lambda fan_in, _fan_out, _: 2.0 / fan_in,
        default_distribution="normal",
        distributions=_BOTH,
        bias_bound=None,
        best_for="ReLU and its relatives",
        source="He et al. 2015 (arXiv 1502.01852), equation 10",
    ),
    Initializer(
        name="lecun",
        label="LeCun",
        formula=r"\operatorname{Var}(w) = \frac{1}{n_\text{in}}",
        variance=lambda fan_in, _fan_out, _: 1.0 / fan_in,
        default_distribution="normal",
        distributions=_BOTH,
        bias_bound=None,
        best_for="SELU, and linear networks",
        source='LeCun et al. 1998, "Efficient BackProp", equation 16',
    ),
    Initializer(
        name="random",
        label="Random (fixed spread)",
        formula=r"\operatorname{Var}(w) = \sigma^2",
        variance=lambda _fan_in, _fan_out, weight_std: weight_std**2,
        default_distribution="normal",
        distributions=_BOTH,
        bias_bound=None,
        best_for="seeing what happens if the width is ignored",
        source="the simplest choice, which the others improve",
    ),
    Initializer(
        name="orthogonal",
        label="Orthogonal",
        formula=r"W^\top W = I \;\Rightarrow\; \operatorname{Var}(w) ="
        r" \frac{1}{\max(n_\text{in}, n_\text{out})}",
        variance=lambda fan_in, fan_out, _: 1.0 / max(fan_in, fan_out),
        default_distribution="normal",
        distributions=("normal",),
        bias_bound=None,
        best_for="deep linear and tanh networks: every singular value is 1",
        source="Saxe et al. 2014 (arXiv 1312.6120)",
    ),
    Initializer(
        name="pytorch",
        label="PyTorch default",
        formula=r"\operatorname{Var}(w) = \frac{1}{3\,n_\text{in}}",
        variance=lambda fan_in, _fan_out, _: 1.0 / (3.0 * fan_in),
        default_distribution="uniform",
        distributions=_BOTH,
        bias_bound=lambda fan_in: 1.0 / math.sqrt(fan_in),
        best_for="shallow networks; too small for deep ones",
        source="torch.nn.Linear.reset_parameters: uniform on ±1/√n_in, for weights and biases",
    ),
)

INITIALIZERS: Mapping[str, Initializer] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every initialization by name, in display order."""


def get_initializer(name: str) -> Initializer:
    """Return the initialization called `name`.

    Raises:
        SpecError: If there is none; the message names the nearest and lists all.

    Example:
        >>> get_initializer("he").default_distribution
        'normal'
    """
    try:
        return INITIALIZERS[name]
    except KeyError:
        raise SpecError(
            f"init: unknown {abbreviate(name)}. {suggest(name, INITIALIZERS)}"
        ) from None
