"""Formulas as data, to be rendered by `notation`: the term tree, and φ′ of every activation."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from chainrule.chain.wide_float import WideFloat
from chainrule.errors import SpecError, suggest


@dataclass(frozen=True, slots=True)
class Number:
    """A number, shown with the digits that people read."""

    value: WideFloat


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable or constant with an optional index: x, w₁, z₁₂, λ."""

    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Partial:
    """The derivative ∂of/∂by.

    Attributes:
        of: What is differentiated.
        by: By what.
        place: Where an operation reads one value twice, as in x · x: by which of the two, 1 or 2;
            otherwise 0.
    """

    of: Symbol
    by: "Symbol | Product"
    place: int = 0


@dataclass(frozen=True, slots=True)
class Total:
    """The derivative dof/dby along all paths; a `Partial` beside it is that of one operation."""

    of: Symbol
    by: Symbol


@dataclass(frozen=True, slots=True)
class Gain:
    """The gradient gain (norm ratio) ‖∂𝓛/∂above‖ ÷ ‖∂𝓛/∂below‖ between two tensors."""

    above: Symbol
    below: Symbol


@dataclass(frozen=True, slots=True)
class Product:
    """A product; a tight one is written without signs between its factors, as in h(1 − h)."""

    factors: "tuple[Term, ...]"
    tight: bool = False


@dataclass(frozen=True, slots=True)
class Sum:
    """left + right or left − right."""

    left: "Term"
    sign: Literal["+", "−"]
    right: "Term"


@dataclass(frozen=True, slots=True)
class Negative:
    """−term."""

    term: "Term"


@dataclass(frozen=True, slots=True)
class Quotient:
    """numerator ÷ denominator."""

    numerator: "Term"
    denominator: "Term"


@dataclass(frozen=True, slots=True)
class Power:
    """base to the power of exponent."""

    base: "Term"
    exponent: "Term"


@dataclass(frozen=True, slots=True)
class Apply:
    """A function of arguments, as in σ(z) or min(z, 0); a prime in the name is a derivative."""

    function: str
    arguments: "tuple[Term, ...]"


@dataclass(frozen=True, slots=True)
class Condition:
    """The Iverson bracket [left relation right]: 1 where it holds, else 0."""

    left: "Term"
    relation: Literal[">", "≤"]
    right: "Term"


@dataclass(frozen=True, slots=True)
class Mark:
    """A term that stands for one or several factors of the chain rule.

    Attributes:
        factors: Ids of the factors; several for what is not expanded yet.
        term: The term.
    """

    factors: tuple[str, ...]
    term: "Term"


@dataclass(frozen=True, slots=True)
class Fold:
    """Middle factors of a long product, folded into one sign.

    Attributes:
        hidden: The folded factors.
        value: Their product, or `None` where it is not to be shown.
    """

    hidden: tuple[Mark, ...]
    value: WideFloat | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        """Ids of the folded factors, in order."""
        return tuple(name for mark in self.hidden for name in mark.factors)


@dataclass(frozen=True, slots=True)
class Omitted:
    """Summands that are not written out: how many paths, and their sum."""

    count: int
    value: WideFloat | None = None


Term: TypeAlias = (
    Number
    | Symbol
    | Partial
    | Total
    | Gain
    | Product
    | Sum
    | Negative
    | Quotient
    | Power
    | Apply
    | Condition
    | Mark
    | Fold
    | Omitted
)


def number(value: float) -> Number:
    """Return a finite float as a term."""
    return Number(WideFloat.from_float(value))


def iterate_marks(term: Term) -> Iterator[Mark]:
    """Yield the marks of a term in order, also those inside folds."""
    match term:
        case Mark():
            yield term
        case Product(factors):
            for factor in factors:
                yield from iterate_marks(factor)
        case Sum(left, _, right):
            yield from iterate_marks(left)
            yield from iterate_marks(right)
        case Fold(hidden):
            yield from hidden
        case _:
            pass


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


def write_derivative(activation: str, z: Term, h: Term) -> Term:
    """Return φ′(z) in terms of z and h = φ(z).

    It holds for every z. For piecewise activations that takes brackets [z > 0], min(z, 0) or a
    power of them, so that a product stays one line.

    Args:
        activation: Name of the activation.
        z: What it is applied to.
        h: Its value.
    """
    try:
        write = _SLOPES[activation]
    except KeyError:
        raise SpecError(
            f"activation: unknown {activation!r}. {suggest(activation, NAMES)}"
        ) from None
    return write(z, h)


def write_slope(activation: str, layer: int) -> Term:
    """Return φ′(z_l) in terms of z_l and h_l, as `write_derivative` does.

    Args:
        activation: Name of the activation.
        layer: The layer l.
    """
    return write_derivative(activation, Symbol("z", layer), Symbol("h", layer))


def write_prime(activation: str, layer: int) -> Term:
    """Return the derivative's short name, as in σ′(z₁)."""
    return Apply(f"{NAMES[activation]}′", (Symbol("z", layer),))
