"""The same chain with tied weights: a recurrent network through time, where w becomes w^n.

References:
    Bengio, Simard & Frasconi 1994 (IEEE TNN); Pascanu et al. 2013 (arXiv 1211.5063), for clipping.
"""

import math
from dataclasses import dataclass
from textwrap import wrap

from chainrule.chain.depth import STABLE, check_depth
from chainrule.chain.derivation import KEPT_FACTORS
from chainrule.chain.notation import (
    align_mathml,
    format_equal,
    render_mathml,
    render_text,
    split_text,
    wrap_pieces,
)
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.terms import (
    Fold,
    Mark,
    Number,
    Partial,
    Power,
    Product,
    Symbol,
    Term,
    write_prime,
)
from chainrule.chain.wide_float import ONE, ZERO, WideFloat, multiply
from chainrule.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is left of the gradient t steps back in time.

    Attributes:
        back: t.
        power: w^t, the weights' part of the product.
        slopes: The product of the last t slopes φ′(z), the activations' part.
        product: ∂p/∂h_{n−t}, the two together.
        clipped: The product after clipping.
    """

    back: int
    power: WideFloat
    slopes: WideFloat
    product: WideFloat
    clipped: WideFloat


@dataclass(frozen=True, kw_only=True, repr=False)
class Recurrence:
    """One weight used n times: h_t = φ(w·h_{t−1} + b), p = h_n.

    Attributes:
        chain: The network unrolled, one layer per step.
        steps: For t = 0 … n steps back.
        gradient: ∂p/∂w, the sum of ∂p/∂w_t over all uses of the weight.
        clip: Largest |∂p/∂w| that clipping lets pass; `None` for no clipping.
        clip_factor: What clipping multiplies the gradient by; 1 where it does nothing.

    Example:
        >>> measure_recurrence(0.5, 3, activation="identity")
        Recurrence(3 steps, w = 0.5: ∂p/∂x = 0.125, ∂p/∂w = 0.75)
    """

    chain: ScalarChain
    steps: tuple[Step, ...]
    gradient: WideFloat
    clip: float | None
    clip_factor: WideFloat

    def __repr__(self) -> str:
        steps = f"{self.chain.depth} step{'s' if self.chain.depth > 1 else ''}"
        weight = format_equal(self.chain.layers[0].weight)
        product = format_equal(self.steps[-1].product)
        return (
            f"Recurrence({steps}, w {weight}: ∂p/∂x {product}, ∂p/∂w {format_equal(self.gradient)})"
        )

    @property
    def uses(self) -> tuple[WideFloat, ...]:
        """∂p/∂w_t of each use of the weight, the last use first; their sum is ∂p/∂w.

        Example:
            >>> measure_recurrence(2.0, 3, activation="identity").uses
            (4, 4, 4)
        """
        layers = reversed(self.chain.layers)
        return tuple(
            step.product * layer.slope * layer.input
            for step, layer in zip(self.steps, layers, strict=False)
        )

    @property
    def clipped_gradient(self) -> WideFloat:
        """∂p/∂w after clipping."""
        return self.gradient * self.clip_factor

    @property
    def subject(self) -> Partial:
        """∂p/∂x as a term."""
        return Partial(Symbol("p"), Symbol("x"))

    def write_lines(self) -> tuple[Term, ...]:
        """Return the product over all steps: with w^n taken out, and in numbers."""
        n = self.chain.depth
        last = self.steps[-1]
        power = Mark(tuple(_name_weight(t) for t in range(n, 0, -1)), _write_power(n))
        slopes = [
            Mark(
                (f"z{layer.number}-h{layer.number}",),
                write_prime(layer.activation.name, layer.number),
            )
            for layer in reversed(self.chain.layers)
        ]
        if len(slopes) > 2 * KEPT_FACTORS:
            middle = Fold(tuple(slopes[KEPT_FACTORS:-KEPT_FACTORS]))
            parts: tuple[Term, ...] = (*slopes[:KEPT_FACTORS], middle, *slopes[-KEPT_FACTORS:])
        else:
            parts = tuple(slopes)
        names = tuple(name for mark in slopes for name in mark.factors)
        numbers = (Mark(power.factors, Number(last.power)), Mark(names, Number(last.slopes)))
        return (
            Product((power, *parts)),
            Product(numbers),
            Mark((*power.factors, *names), Number(last.product)),
        )

    def to_mathml(self) -> str:
        """Return the product over all steps as one math element: formula, numbers, value.

        The slopes of a linear network are all 1, and left out.
        """
        product, numbers, _ = self.write_lines()
        value = Number(self.steps[-1].product)
        signs: tuple[str, ...] = ("=", *self.list_signs())
        lines: tuple[Term, ...] = (product, numbers, value)
        if self.chain.layers[0].activation.name == "identity":
            assert isinstance(product, Product)
            signs, lines = ("=", signs[-1]), (product.factors[0], value)
        rows = zip(signs, map(render_mathml, lines), strict=True)
        return align_mathml(render_mathml(self.subject), list(rows))

    def list_signs(self) -> tuple[str, str]:
        """Return the signs before the numbers and before the value of `write_lines`."""
        last = self.steps[-1]
        exact = last.power.reads_exactly and last.slopes.reads_exactly
        whole = exact and last.product.reads_exactly
        return "=" if exact else "≈", "=" if whole else "≈"

    @property
    def sentence(self) -> str:
        """What becomes of the gradient over all steps, and what clipping does to it."""
        said = f"∂p/∂w, summed over all uses of w, is {self.gradient}"
        if self.clip is None:
            return f"{said}."
        if self.clip_factor != ONE:
            said += f"; clipping multiplies it by {self.clip_factor}, to {self.clipped_gradient}"
        last = self.steps[-1].product
        gone = last.sign and last.log10 < -math.log10(STABLE) and self.clip_factor != ONE
        more = " It cannot bring back a gradient that has vanished." if gone else ""
        return f"{said}. {self.clipping}{more}"

    @property
    def clipping(self) -> str:
        """What clipping does to the product, in words."""
        if self.clip is None:
            return "No clipping."
        if self.clip_factor == ONE:
            return (
                "Clipping changes nothing here: it makes a gradient smaller that is too large, and "
                "never makes one larger that vanishes."
            )
        return (
            "Clipping multiplies the finished product by one more factor. The step gets smaller "
            "and keeps its direction. The factors of the product stay as they are."
        )


def unroll(
    weight: float, steps: int, *, x: float = 1.0, activation: str = "tanh", bias: float = 0.0
) -> ScalarChain:
    """Return a recurrent network as a chain whose layers share their weight.

    Args:
        weight: The weight of every step.
        steps: Number of steps n.
        x: The state h₀ before the first step.
        activation: The activation of every step.
        bias: The bias of every step.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> unroll(0.5, 3).depth
        3
    """
    check_depth("steps", steps)
    biases = [bias] * steps if bias != 0.0 else None
    return ScalarChain(x, [weight] * steps, activation, biases)


def measure_recurrence(
    weight: float,
    steps: int,
    *,
    x: float = 1.0,
    activation: str = "tanh",
    bias: float = 0.0,
    clip: float | None = None,
) -> Recurrence:
    """Return the gradient through time of a recurrent network with one weight.

    Args:
        weight: The weight of every step.
        steps: Number of steps n.
        x: The state h₀ before the first step.
        activation: The activation of every step.
        bias: The bias of every step.
        clip: Largest |∂p/∂w| that clipping lets pass; `None` for no clipping.

    Raises:
        SpecError: If an argument is out of range.

    Example:
        >>> measure_recurrence(0.5, 3, activation="identity").gradient
        0.75
    """
    if isinstance(weight, float) and not math.isfinite(weight):
        raise SpecError(f"w: must be a finite number; got {weight!r}.")
    chain = unroll(weight, steps, x=x, activation=activation, bias=bias)
    if clip is not None and not (math.isfinite(clip) and clip > 0.0):
        raise SpecError(f"clip: must be a finite number above 0, or left out; got {clip!r}.")
    powers, slopes, products = [ONE], [ONE], [ONE]
    gradient = ZERO
    for layer in reversed(chain.layers):
        gradient = gradient + products[-1] * layer.slope * layer.input
        powers.append(powers[-1] * layer.weight)
        slopes.append(slopes[-1] * layer.slope)
        products.append(products[-1] * layer.slope * layer.weight)
    factor = ONE if clip is None else _compute_clip_factor(gradient, clip)
    return Recurrence(
        chain=chain,
        steps=tuple(
            Step(back=t, power=w, slopes=s, product=product, clipped=multiply((product, factor)))
            for t, (w, s, product) in enumerate(zip(powers, slopes, products, strict=True))
        ),
        gradient=gradient,
        clip=clip,
        clip_factor=factor,
    )


def summarize_recurrence(recurrence: Recurrence, *, width: int | None = None) -> str:
    """Return the product through time with its weight taken out, and what clipping does.

    Args:
        recurrence: The recurrent network.
        width: Columns of the terminal, `None` for lines of any length.

    Example:
        >>> print(summarize_recurrence(measure_recurrence(2.0, 2, activation="identity")))
        The same weight in every step, w₁ = w₂ = … = w:
        ∂p/∂x = w² · id′(z₂) · id′(z₁)
              = 4 · 1
              = 4
        ∂p/∂w, summed over all steps, is 4.
    """
    left = render_text(recurrence.subject)
    margin = " " * len(left)
    signs = ("=", *recurrence.list_signs())
    lines = ["The same weight in every step, w₁ = w₂ = … = w:"]
    for i, (sign, term) in enumerate(zip(signs, recurrence.write_lines(), strict=True)):
        start = f"{margin if i else left} {sign}"
        room = None if width is None else width - len(left) - 3
        for pieces in wrap_pieces(split_text(term), room):
            lines.append(f"{start} {' '.join(piece.text for piece in pieces)}")
            start = f"{margin}  "
    said = [f"∂p/∂w, summed over all steps, is {recurrence.gradient}."]
    if recurrence.clip is not None:
        if recurrence.clip_factor != ONE:
            factor, clipped = recurrence.clip_factor, recurrence.clipped_gradient
            said.append(f"Clipped, it is {recurrence.gradient} · {factor} = {clipped}.")
        said.append(recurrence.clipping)
    if width is None:
        return "\n".join([*lines, said[0], *([" ".join(said[1:])] if said[1:] else [])])
    return "\n".join([*lines, *wrap(" ".join(said), max(width, 20), break_long_words=False)])


def _compute_clip_factor(gradient: WideFloat, clip: float) -> WideFloat:
    if abs(gradient) <= clip:
        return ONE
    return WideFloat.from_float(clip) / abs(gradient)


def _write_power(n: int) -> Term:
    return Symbol("w") if n == 1 else Power(Symbol("w"), Number(WideFloat.from_float(float(n))))


def _name_weight(layer: int) -> str:
    return f"h{layer - 1}-z{layer}" if layer > 1 else "x-z1"
