"""`measure_product`: the product of measured gains of a real network, as an equation.

The same view as that of a scalar chain, with every local derivative replaced by the gradient gain
(norm ratio) of one module call: ‖∂𝓛/∂input‖ ÷ ‖∂𝓛/∂output‖, measured by autograd. Each norm stands
once above and once below a fraction bar, so along a chain the product is exact.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chainrule.chain.derivation import Line, LineKind
from chainrule.chain.document import DOCUMENT_VERSION, describe_line, describe_number
from chainrule.chain.drawing import classify
from chainrule.chain.network import describe_effect
from chainrule.chain.notation import align_latex, render_latex, render_mathml, render_text
from chainrule.chain.terms import Apply, Gain, Mark, Number, Symbol, Term
from chainrule.chain.wide_float import ONE, ZERO, WideFloat, compute_exp, multiply
from chainrule.flow.gradient_flow import GradientFlow, select_path
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import Role

_LETTERS = {"weight": "W", "activation": "φ", "normalization": "norm", "residual": "block"}
_WORDS = {
    "weight": "the weights of layer {}",
    "activation": "the activation of layer {}",
    "normalization": "the normalization of layer {}",
    "residual": "the residual block of layer {}",
}
AGREEMENT = 1e-6
"""Relative difference below which two measured numbers count as the same."""

MAX_UNFOLDED_GAINS = 320
"""Longer lines are given in their folded form only: this is every module of 100 layers."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MeasuredFactor:
    """One gradient gain (norm ratio) of the product.

    Attributes:
        id: The same in equation, strip and chart: "phi-3", "W-3".
        name: The module call.
        role: What it contributes.
        layer: The layer l.
        gain: ‖∂𝓛/∂input‖ ÷ ‖∂𝓛/∂output‖ as a term.
        symbol: What it is the gain of, as a term: φ₃, W₃.
        exact: Geometric mean over the networks; `None` where some network has no such number.
        running: The product up to and including it: 0 from the first 0 on, `None` from the first
            factor that has no number.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="identity"), 1)
        >>> measure_product(flow).factors[0]
        MeasuredFactor(g(φ₂) ≈ 1)
    """

    id: str
    name: str
    role: Role
    layer: int
    gain: Gain
    symbol: Symbol
    exact: WideFloat | None
    running: WideFloat | None

    def __repr__(self) -> str:
        value = "undefined" if self.exact is None else f"≈ {self.exact}"
        return f"MeasuredFactor({render_text(self.formula)} {value})"

    @property
    def formula(self) -> Term:
        """Its short name as a term: g(φ₃)."""
        return Apply("g", (self.symbol,))

    @property
    def words(self) -> str:
        """What it is the gain of, in words."""
        return _WORDS.get(self.role, "module {} on the path").format(self.layer)

    @property
    def sentence(self) -> str:
        """What multiplying by it does, in words."""
        name = render_text(self.formula)
        if self.exact is None:
            gone = self.running is not None and not self.running.sign
            why = "no gradient arrives here" if gone else "not a finite number in every network"
            return f"× {name}, {self.words}: {why}"
        return f"× {name} ≈ {self.exact}, {self.words}: {describe_effect(self.exact)}"


@dataclass(frozen=True, repr=False)
class MeasuredProduct:
    """The product of all measured gains, from the loss back to the input.

    Attributes:
        factors: In backward order.
        output_norm: ‖∂𝓛/∂h_L‖ at the output.
        delta_norms: ‖δ_l‖ = ‖∂𝓛/∂z_l‖ for l = 1 … L.
        weight_gradient_norms: ‖∂𝓛/∂W_l‖ for l = 1 … L.

    All of them are geometric means over the networks: unlike medians, these multiply as the gains
    do. `None` stands for what some network does not have as a finite number.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="identity"), 1)
        >>> len(measure_product(flow).factors)
        4
    """

    factors: tuple[MeasuredFactor, ...]
    output_norm: WideFloat | None
    delta_norms: tuple[WideFloat | None, ...]
    weight_gradient_norms: tuple[WideFloat | None, ...]

    def __repr__(self) -> str:
        value = "undefined" if self.value is None else f"≈ {self.value}"
        return f"MeasuredProduct({len(self.factors)} factors: {render_text(self.subject)} {value})"

    @property
    def value(self) -> WideFloat | None:
        """The product of all factors: ‖∂𝓛/∂x‖ ÷ ‖∂𝓛/∂h_L‖."""
        return self.factors[-1].running

    @property
    def subject(self) -> Gain:
        """What the product is, as a term."""
        return Gain(self.factors[-1].gain.above, self.factors[0].gain.below)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The derivation: the whole gain, its telescoping product, gains, numbers, value."""
        names = tuple(factor.id for factor in self.factors)
        undefined = Symbol("undefined")
        value = undefined if self.value is None else Number(self.value)
        steps: tuple[tuple[LineKind, str, tuple[Mark, ...]], ...] = (
            (
                "derivative",
                "The norm of the gradient at the input, divided by its norm at the output.",
                (Mark(names, self.subject),),
            ),
            (
                "product",
                "One fraction per module. Each norm stands once above and once below, so all but "
                "the first and the last cancel: the product is exact.",
                tuple(Mark((f.id,), f.gain) for f in self.factors),
            ),
            (
                "formulas",
                "Each fraction by a short name: g, the gradient gain (norm ratio) of a module.",
                tuple(Mark((f.id,), f.formula) for f in self.factors),
            ),
            (
                "numbers",
                "The gains that autograd measured.",
                tuple(
                    Mark((f.id,), undefined if f.exact is None else Number(f.exact))
                    for f in self.factors
                ),
            ),
            ("value", "Their product.", (Mark(names, value),)),
        )
        return tuple(
            Line(
                number=number,
                kind=kind,
                relation="" if number == 1 else "≈" if kind in ("numbers", "value") else "=",
                note=note,
                _build=lambda marks=marks: marks,  # type: ignore[misc]
            )
            for number, (kind, note, marks) in enumerate(steps, 1)
        )

    @property
    def summary(self) -> str:
        """The product in words, also where it is 0 or no number."""
        count = len(self.factors)
        if self.value is None:
            return f"The product of all {count} factors is not a finite number in every network."
        if not self.value.sign:
            return f"All {count} factors multiply to 0: no gradient reaches the input."
        layers = len(self.delta_norms)
        each = (
            f" ({layers} layers of two factors: the slope of the activation, and the weights)"
            if count == 2 * layers
            else ""
        )
        return (
            f"All {count} factors{each} multiply to {self.value}: the norm of the gradient at the "
            "input, divided by its norm at the output."
        )

    @property
    def extremes(self) -> str:
        """The smallest and the largest factor in words."""
        known = [(f.exact, f) for f in self.factors if f.exact is not None]
        if not known:
            return "No factor is a finite number in every network."
        low, smallest = min(known, key=lambda entry: entry[0].log10)
        high, largest = max(known, key=lambda entry: entry[0].log10)
        return (
            f"The smallest factor is {render_text(smallest.formula)} ≈ {low} "
            f"({smallest.words}), the largest {render_text(largest.formula)} ≈ "
            f"{high} ({largest.words})."
        )

    @property
    def check(self) -> str | None:
        """The product compared with the gradient measured at layer 1, in words.

        `None` where the path does not pass z₁ or a number is missing.
        """
        reached = [f for f in self.factors if f.gain.above == Symbol("z", 1)]
        measured = self.delta_norms[0] if self.delta_norms else None
        product = reached[0].running if reached else None
        if product is None or measured is None or self.output_norm is None or not measured.sign:
            return None
        expected = self.output_norm * product
        agrees = abs(float(expected / measured) - 1.0) < AGREEMENT
        output = render_text(self.factors[0].gain.below)
        return (
            f"‖∂𝓛/∂{output}‖ ≈ {self.output_norm} at the output, times the factors "
            f"down to layer 1, {product}, is {expected}. Autograd "
            f"measured ‖δ₁‖ ≈ {measured}: "
            f"{'the same' if agrees else 'not the same, since the network is no single chain'}."
        )


def measure_product(flow: GradientFlow) -> MeasuredProduct:
    """Return the product of the gains of a measured network.

    Args:
        flow: A measurement with at least one module call.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="identity"), 1)
        >>> [factor.id for factor in measure_product(flow).factors]
        ['phi-2', 'W-2', 'phi-1', 'W-1']
    """
    path = [flow.layers[index] for index in select_path(flow.layers)]
    gradient = path[-1].gradient
    return MeasuredProduct(
        tuple(_iterate_factors(flow)),
        average_members(None if gradient is None else gradient.norm),
        tuple(map(average_members, flow.delta_norms)),
        tuple(map(average_members, flow.weight_gradient_norms)),
    )


def describe_product(product: MeasuredProduct) -> dict[str, Any]:
    """Return a measured product as data of the same form as a chain's, without a graph.

    Args:
        product: The product. A number that it does not have reads "undefined".

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="identity"), 1)
        >>> describe_product(measure_product(flow))["subject"]["text"]
        '‖∂𝓛/∂x‖/‖∂𝓛/∂h₂‖'
    """
    left = render_latex(product.subject)
    rows = [(line.relation, line.to_latex()) for line in product.lines[1:]]
    return {
        "version": DOCUMENT_VERSION,
        "factors": [_describe_measured(factor) for factor in product.factors],
        "subject": {
            "text": render_text(product.subject),
            "latex": left,
            "mathml": render_mathml(product.lines[0].full),
        },
        "lines": [describe_line(line, MAX_UNFOLDED_GAINS) for line in product.lines],
        "hidden_lines": 0,
        "latex": align_latex(left, [row for row in rows if row[0]]),
        "gradient": describe_number(product.value),
        "output": describe_number(product.output_norm),
        "deltas": [describe_number(norm) for norm in product.delta_norms],
        "weight_gradients": [describe_number(norm) for norm in product.weight_gradient_norms],
        "summary": product.summary,
        "extremes": product.extremes,
        "check": product.check,
    }


def average_members(quantity: Quantity | None) -> WideFloat | None:
    """Return the geometric mean over the networks, 0 if one of them has 0.

    Args:
        quantity: One non-negative number per network; `None` gives `None`, as do infinite ones.
    """
    if quantity is None or not all(0 <= member < math.inf for member in quantity.values):
        return None
    if not all(quantity.values):
        return ZERO
    mean = statistics.fmean(map(math.log, quantity.values))
    return compute_exp(WideFloat.from_float(mean))


def _iterate_factors(flow: GradientFlow) -> Iterator[MeasuredFactor]:
    factors = flow.factors()
    product: WideFloat | None = ONE
    normalized = {f.layer for f in factors if f.role == "normalization"}
    below: Symbol | None = None
    for position, factor in enumerate(factors):
        layer = len(factors) - position if factor.layer is None else factor.layer
        below = Symbol("h", layer) if below is None else below
        last = position == len(factors) - 1
        if last:
            above = Symbol("x")
        elif factor.role == "activation" and layer in normalized:
            above = Symbol("n", layer)
        elif factor.role in ("activation", "normalization"):
            above = Symbol("z", layer)
        elif factor.role in ("weight", "residual"):
            above = Symbol("h", layer - 1)
        else:
            above = Symbol("u", layer)
        exact = average_members(factor.value)
        if product is not None and product.sign:  # once it is 0, nothing brings it back
            product = None if exact is None else multiply((product, exact))
        letter = _LETTERS.get(factor.role, "u")
        yield MeasuredFactor(
            id=f"{'phi' if letter == 'φ' else letter}-{layer}",
            name=factor.name,
            role=factor.role,
            layer=layer,
            gain=Gain(above, below),
            symbol=Symbol(letter, layer),
            exact=exact,
            running=product,
        )
        below = above


def _describe_measured(factor: MeasuredFactor) -> dict[str, Any]:
    return {
        "id": factor.id,
        "kind": factor.role,
        "layer": factor.layer,
        "name": factor.name,
        "symbol": render_text(factor.gain),
        "substituted": render_text(factor.gain),
        "label": render_text(factor.symbol),
        "short": render_text(factor.formula),
        "value": describe_number(factor.exact),
        "running_product": describe_number(factor.running),
        "effect": "blocks" if factor.exact is None else classify(factor.exact),
        "sentence": factor.sentence,
    }
