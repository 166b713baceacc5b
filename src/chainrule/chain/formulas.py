"""What stands for each local derivative in a formula: φ′(z) of every activation as a term."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from chainrule.chain.terms import Apply, Condition, Power, Product, Sum, Symbol, Term, number
from chainrule.errors import SpecError, suggest

_ONE = number(1.0)
_ZERO = number(0.0)

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "sigmoid": "σ",
        "tanh": "tanh",
        "relu": "ReLU",
        "leaky_relu": "LReLU",
        "elu": "ELU",
        "selu": "SELU",
        "gelu": "GELU",
        "silu": "SiLU",
        "identity": "id",
    }
)
"""How each activation is written in formulas."""


def _clamp(z: Term) -> Term:
    return Apply("min", (z, _ZERO))


def _negative(z: Term) -> Term:
    return Condition(z, "≤", _ZERO)


_SLOPES: Mapping[str, Callable[[Term, Term], Term]] = MappingProxyType(
    {
        "sigmoid": lambda z, h: Product((h, Sum(_ONE, "−", h)), tight=True),
        "tanh": lambda z, h: Sum(_ONE, "−", Power(h, number(2.0))),
        "relu": lambda z, h: Condition(z, ">", _ZERO),
        "leaky_relu": lambda z, h: Power(number(0.01), _negative(z)),
        "elu": lambda z, h: Power(Symbol("e"), _clamp(z)),
        "selu": lambda z, h: Product(
            (Symbol("λ"), Power(Symbol("α"), _negative(z)), Power(Symbol("e"), _clamp(z))),
            tight=True,
        ),
        "gelu": lambda z, h: Sum(Apply("Φ", (z,)), "+", Product((z, Apply("φ", (z,))), tight=True)),
        "silu": lambda z, h: Sum(
            Apply("σ", (z,)), "+", Product((h, Sum(_ONE, "−", Apply("σ", (z,)))), tight=True)
        ),
        "identity": lambda z, h: _ONE,
    }
)

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "relu": "[z > 0] is 1 where z > 0 and 0 elsewhere",
        "leaky_relu": "0.01^[z ≤ 0] is 0.01 where z ≤ 0 and 1 elsewhere",
        "elu": "e^min(z, 0) is 1 where z > 0 and e^z elsewhere",
        "selu": "λ = 1.0507, α = 1.6733; λα^[z ≤ 0]e^min(z, 0) is λ where z > 0, λαe^z elsewhere",
        "gelu": "Φ and φ are the standard normal distribution and its density",
        "silu": "σ(z) = 1/(1 + e^−z)",
    }
)
"""What a reader needs to read a formula, for activations where that is not plain."""


def write_slope(activation: str, layer: int) -> Term:
    """Return φ′(z_l) in terms of z_l and h_l.

    It holds for every z. For piecewise activations that takes brackets [z > 0], min(z, 0) or a
    power of them, so that a product stays one line.

    Args:
        activation: Name of the activation.
        layer: The layer l.
    """
    try:
        write = _SLOPES[activation]
    except KeyError:
        raise SpecError(
            f"activation: unknown {activation!r}. {suggest(activation, NAMES)}"
        ) from None
    return write(Symbol("z", layer), Symbol("h", layer))


def write_prime(activation: str, layer: int) -> Term:
    """Return the derivative's short name, as in σ′(z₁)."""
    return Apply(f"{NAMES[activation]}′", (Symbol("z", layer),))
