"""The term tree of a derivation: formulas as data, to be rendered by `notation`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chainrule.chain.wide_float import WideFloat


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
    """The derivative ∂of/∂by."""

    of: Symbol
    by: "Symbol | Product"


@dataclass(frozen=True, slots=True)
class Gain:
    """The gain ‖∂𝓛/∂above‖ ÷ ‖∂𝓛/∂below‖ of what lies between two tensors of a network."""

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


Term: TypeAlias = (
    Number | Symbol | Partial | Gain | Product | Sum | Power | Apply | Condition | Mark | Fold
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
        case Fold(hidden):
            yield from hidden
        case _:
            pass
