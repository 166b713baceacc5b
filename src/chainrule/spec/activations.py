"""The vocabulary of activation functions: one table that everything reads.

The numeric functions work on plain floats, so that reasoning and lessons need no tensor library.
At a kink they follow PyTorch's convention (for example ReLU'(0) = 0).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from chainrule.errors import SpecError, abbreviate, suggest

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
LEAKY_SLOPE = 0.01
_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_PI = math.sqrt(2.0 * math.pi)

SATURATION_SHARE = 0.05
"""An entry is saturated where |φ'(z)| is below this share of its maximum over z."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One activation function φ: its formulas, its values, and where it is used.

    Attributes:
        name: The name used in specifications.
        label: The name shown to people.
        formula: φ(z) in LaTeX.
        derivative_formula: φ'(z) in LaTeX.
        function: φ on a float.
        derivative: φ' on a float.
        output_range: Infimum and supremum of φ.
        derivative_range: Infimum and supremum of φ'.
        derivative_argmax: A z at which |φ'| is largest (the left limit for a kink).
        initialization: Name of the recommended initialization (see `initializers`).
        risk: What goes wrong with it in deep networks, in a few words.
        note: One sentence worth knowing.
        module: Class name in `torch.nn`.
        module_defaults: Attributes of that class for which the values above hold.

    Example:
        >>> ACTIVATIONS["sigmoid"].derivative(0.0)
        0.25
    """

    name: str
    label: str
    formula: str
    derivative_formula: str
    function: Callable[[float], float]
    derivative: Callable[[float], float]
    output_range: tuple[float, float]
    derivative_range: tuple[float, float]
    derivative_argmax: float
    initialization: str
    risk: str
    note: str
    module: str
    module_defaults: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def derivative_max(self) -> float:
        """The supremum of |φ'(z)| over z: the largest factor that one activation can have."""
        return max(abs(bound) for bound in self.derivative_range)


def _sigmoid(z: float) -> float:
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    growth = math.exp(z)
    return growth / (1.0 + growth)


def _sigmoid_derivative(z: float) -> float:
    # σ(z)·σ(−z) rather than h(1−h): exact in both tails, where 1 − h would round to zero.
    return _sigmoid(z) * _sigmoid(-z)


def _tanh_derivative(z: float) -> float:
    # 1/cosh² rather than 1 − tanh²: keeps its digits where tanh rounds to one.
    return 0.0 if abs(z) > 350 else 1.0 / math.cosh(z) ** 2


def _normal_density(z: float) -> float:
    return math.exp(-0.5 * z * z) / _SQRT_TWO_PI


def _normal_distribution(z: float) -> float:
    return 0.5 * math.erfc(-z * _SQRT_HALF)


def _silu_derivative(z: float) -> float:
    return _sigmoid(z) * (1.0 + z * _sigmoid(-z))


def _elu(z: float) -> float:
    return z if z > 0 else math.expm1(z)


_TABLE = (
    Activation(
        name="sigmoid",
        label="Sigmoid",
        formula=r"\sigma(z) = \frac{1}{1 + e^{-z}}",
        derivative_formula=r"\sigma'(z) = \sigma(z)\,(1 - \sigma(z))",
        function=_sigmoid,
        derivative=_sigmoid_derivative,
        output_range=(0.0, 1.0),
        derivative_range=(0.0, 0.25),
        derivative_argmax=0.0,
        initialization="xavier",
        risk="vanishing, saturation",
        note="Its derivative is at most 0.25, and the mean of its outputs is never 0.",
        module="Sigmoid",
    ),
    Activation(
        name="tanh",
        label="Tanh",
        formula=r"\tanh(z) = \frac{e^{z} - e^{-z}}{e^{z} + e^{-z}}",
        derivative_formula=r"\tanh'(z) = 1 - \tanh^2(z)",
        function=math.tanh,
        derivative=_tanh_derivative,
        output_range=(-1.0, 1.0),
        derivative_range=(0.0, 1.0),
        derivative_argmax=0.0,
        initialization="xavier",
        risk="saturation",
        note="Its derivative is 1 at 0 and almost 0 far from it, so the initial scale matters.",
        module="Tanh",
    ),
    Activation(
        name="relu",
        label="ReLU",
        formula=r"\mathrm{ReLU}(z) = \max(0, z)",
        derivative_formula=r"\mathrm{ReLU}'(z) = \begin{cases} 1 & z > 0 \\ 0 & z \le 0"
        r" \end{cases}",
        function=lambda z: max(z, 0.0),
        derivative=lambda z: 1.0 if z > 0 else 0.0,
        output_range=(0.0, math.inf),
        derivative_range=(0.0, 1.0),
        derivative_argmax=1.0,
        initialization="he",
        risk="dead units",
        note="Sets about half of the values to 0. To make up for that, He initialization doubles "
        "the variance of the weights.",
        module="ReLU",
    ),
    Activation(
        name="leaky_relu",
        label="Leaky ReLU",
        formula=r"\mathrm{LeakyReLU}(z) = \max(0.01\,z, z)",
        derivative_formula=r"\mathrm{LeakyReLU}'(z) = \begin{cases} 1 & z > 0 \\ 0.01 & z \le 0"
        r" \end{cases}",
        function=lambda z: z if z > 0 else LEAKY_SLOPE * z,
        derivative=lambda z: 1.0 if z > 0 else LEAKY_SLOPE,
        output_range=(-math.inf, math.inf),
        derivative_range=(LEAKY_SLOPE, 1.0),
        derivative_argmax=1.0,
        initialization="he",
        risk="few: units cannot die, but below 0 the derivative is only 0.01",
        note="It has a small slope below 0, so that every unit can recover.",
        module="LeakyReLU",
        module_defaults=MappingProxyType({"negative_slope": LEAKY_SLOPE}),
    ),
    Activation(
        name="elu",
        label="ELU",
        formula=r"\mathrm{ELU}(z) = \begin{cases} z & z > 0 \\ e^{z} - 1 & z \le 0 \end{cases}",
        derivative_formula=r"\mathrm{ELU}'(z) = \begin{cases} 1 & z > 0 \\ e^{z} & z \le 0"
        r" \end{cases}",
        function=_elu,
        derivative=lambda z: 1.0 if z > 0 else math.exp(z),
        output_range=(-1.0, math.inf),
        derivative_range=(0.0, 1.0),
        derivative_argmax=1.0,
        initialization="he",
        risk="saturation on the negative side",
        note="Its negative outputs move the mean activation towards 0.",
        module="ELU",
        module_defaults=MappingProxyType({"alpha": 1.0}),
    ),
    Activation(
        name="selu",
        label="SELU",
        formula=r"\mathrm{SELU}(z) = \lambda \begin{cases} z & z > 0 \\ \alpha\,(e^{z} - 1) &"
        r" z \le 0 \end{cases}",
        derivative_formula=r"\mathrm{SELU}'(z) = \lambda \begin{cases} 1 & z > 0 \\"
        r" \alpha\,e^{z} & z \le 0 \end{cases}",
        function=lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * math.expm1(z)),
        derivative=lambda z: SELU_SCALE * (1.0 if z > 0 else SELU_ALPHA * math.exp(z)),
        output_range=(-SELU_SCALE * SELU_ALPHA, math.inf),
        derivative_range=(0.0, SELU_SCALE * SELU_ALPHA),
        derivative_argmax=0.0,
        initialization="lecun",
        risk="slow growth of gradients with depth",
        note="With LeCun initialization, the activations approach mean 0 and variance 1.",
        module="SELU",
    ),
    Activation(
        name="gelu",
        label="GELU",
        formula=r"\mathrm{GELU}(z) = z\,\Phi(z)",
        derivative_formula=r"\mathrm{GELU}'(z) = \Phi(z) + z\,\varphi(z)",
        function=lambda z: z * _normal_distribution(z),
        derivative=lambda z: _normal_distribution(z) + z * _normal_density(z),
        output_range=(-0.16997120747, math.inf),
        derivative_range=(-0.12890414515, 1.12890414515),
        derivative_argmax=math.sqrt(2.0),
        initialization="he",
        risk="vanishing in deep plain stacks: it shrinks small signals by half",
        note="Smooth, and close to ReLU for large inputs; the usual choice in transformers.",
        module="GELU",
        module_defaults=MappingProxyType({"approximate": "none"}),
    ),
    Activation(
        name="silu",
        label="SiLU (Swish)",
        formula=r"\mathrm{SiLU}(z) = z\,\sigma(z)",
        derivative_formula=r"\mathrm{SiLU}'(z) = \sigma(z)\,\bigl(1 + z\,(1 - \sigma(z))\bigr)",
        function=lambda z: z * _sigmoid(z),
        derivative=_silu_derivative,
        output_range=(-0.27846454276, math.inf),
        derivative_range=(-0.09983932013, 1.09983932013),
        derivative_argmax=2.39935728052,
        initialization="he",
        risk="vanishing in deep plain stacks: it shrinks small signals by half",
        note="Smooth like GELU, built from the sigmoid.",
        module="SiLU",
    ),
    Activation(
        name="identity",
        label="None (linear)",
        formula=r"\phi(z) = z",
        derivative_formula=r"\phi'(z) = 1",
        function=lambda z: z,
        derivative=lambda z: 1.0,
        output_range=(-math.inf, math.inf),
        derivative_range=(1.0, 1.0),
        derivative_argmax=0.0,
        initialization="lecun",
        risk="none of its own, but the product of many weight matrices can still vanish or explode",
        note="The network is then only a product of weight matrices.",
        module="Identity",
    ),
)

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every activation by name, in display order."""


def get_activation(name: str) -> Activation:
    """Return the activation called `name`.

    Raises:
        SpecError: If there is none; the message names the nearest and lists all.

    Example:
        >>> get_activation("tanh").label
        'Tanh'
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        known = suggest(name, ACTIVATIONS)
        raise SpecError(f"activation: unknown {abbreviate(name)}. {known}") from None
