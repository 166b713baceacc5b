"""The factors of the chain-rule product of a scalar chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chainrule.chain.formulas import write_prime, write_slope
from chainrule.chain.layers import ChainLayer
from chainrule.chain.notation import format_equal, format_wide, render_text
from chainrule.chain.terms import Number, Partial, Symbol, Term
from chainrule.chain.wide_float import ONE, WideFloat, strip_bound

FactorKind = Literal["activation", "weight", "input", "bias"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One local derivative of the chain-rule product.

    Attributes:
        id: The same in the graph, the equation and the chart: "h1-z2" for ∂z₂/∂h₁.
        kind: "activation" for ∂h/∂z, "weight" for ∂z/∂h, "input" for ∂z/∂w, "bias" for ∂z/∂b.
        layer: The layer l.
        edges: Ids of the edges of the graph that it stands for; the first carries the derivative.
        partial: ∂z₂/∂h₁ as a term.
        formula: What it is, as a term: w₂.
        prime: The formula by a short name, as a term: σ′(z₁) for h₁(1 − h₁).
        exact: Its value, whatever its size.
    """

    id: str
    kind: FactorKind
    layer: int
    edges: tuple[str, ...]
    partial: Partial
    formula: Term
    prime: Term
    exact: WideFloat

    @property
    def edge(self) -> str:
        """Id of the edge that carries the derivative."""
        return self.edges[0]

    @property
    def symbol(self) -> str:
        """The derivative in plain text: ∂z₂/∂h₁."""
        return render_text(self.partial)

    @property
    def substituted(self) -> str:
        """Its formula in plain text: w₂, or h₁(1 − h₁) for a sigmoid."""
        return render_text(self.formula)

    @property
    def value(self) -> float:
        """Its value in float64; 0 or inf where `exact` is beyond its range."""
        return float(self.exact)

    @property
    def sentence(self) -> str:
        """What multiplying by it does: "× σ′(z₂) = 0.105: keeps 10 %"."""
        name = render_text(self.prime)
        number = format_wide(self.exact)
        shown = number if name == number else f"{name} {format_equal(self.exact)}"
        return f"× {shown}: {describe_effect(self.exact)}"


def list_factors(
    layers: Sequence[ChainLayer], letter: str, last: int, *, biased: bool
) -> tuple[Factor, ...]:
    """Return the factors of ∂p/∂variable, output to input.

    Args:
        layers: All layers of the chain.
        letter: "h" for the input of layer `last`, "w" or "b" for its weight or bias.
        last: The layer at which the path ends.
        biased: Whether the graph adds biases.
    """
    factors = []
    for layer in reversed(layers[last - 1 :]):
        factors.append(_build_activation_factor(layer, final=layer.number == len(layers)))
        kind = letter if layer.number == last else "h"
        factors.append(_build_linear_factor(layer, kind, biased))
    return tuple(factors)


def _build_activation_factor(layer: ChainLayer, *, final: bool) -> Factor:
    """Return ∂h_l/∂z_l, of the last layer ∂p/∂z_n."""
    n, name = layer.number, layer.activation.name
    edge = f"z{n}-h{n}"
    return Factor(
        id=edge,
        kind="activation",
        layer=n,
        edges=(edge, f"h{n}-p") if final else (edge,),
        partial=Partial(Symbol("p") if final else Symbol("h", n), Symbol("z", n)),
        formula=write_slope(name, n),
        prime=write_prime(name, n),
        exact=layer.slope,
    )


def _build_linear_factor(layer: ChainLayer, letter: str, biased: bool) -> Factor:
    """Return ∂z_l/∂h_{l−1}, ∂z_l/∂w_l or ∂z_l/∂b_l."""
    n, z = layer.number, f"z{layer.number}"
    source = name_activation(n - 1) if letter == "h" else f"{letter}{n}"
    by = write_activation(n - 1) if letter == "h" else Symbol(letter, n)
    kind: FactorKind
    formula: Term
    if letter == "h":
        kind, formula, value = "weight", Symbol("w", n), layer.weight
    elif letter == "w":
        kind, formula, value = "input", write_activation(n - 1), layer.input
    else:
        kind, formula, value = "bias", Number(ONE), ONE
    through_product = biased and letter != "b"
    return Factor(
        id=f"{source}-{z}",
        kind=kind,
        layer=n,
        edges=(f"{source}-m{n}", f"m{n}-{z}") if through_product else (f"{source}-{z}",),
        partial=Partial(Symbol("z", n), by),
        formula=formula,
        prime=formula,
        exact=value,
    )


def describe_effect(value: WideFloat) -> str:
    """Return what a factor does to a gradient, in words.

    Args:
        value: The factor.
    """
    if not value.sign:
        return "stops the gradient, nothing is left"
    flip = ", sign flipped" if value.sign < 0 else ""
    size = abs(value)
    if size == ONE:
        return f"keeps all of it{flip}"
    if abs(float(size) - 1.0) < 0.01:
        return f"changes it by less than 1 %{flip}"
    if size.log10 > 0:
        return f"grows it {format_wide(size)} times{flip}"
    if size.log10 < -3:
        less = "less than " if size.bound else ""
        return f"keeps {less}{format_wide(strip_bound(size))} of it{flip}"
    return f"keeps {100 * float(size):.2g} %{flip}"


def name_activation(layer: int) -> str:
    """Return the id of h_l: "x" for h₀."""
    return f"h{layer}" if layer else "x"


def write_activation(layer: int) -> Symbol:
    """Return h_l as a term: x for h₀."""
    return Symbol("h", layer) if layer else Symbol("x")
