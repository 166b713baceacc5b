"""The erratum: σ′(z) is h(1 − h), not z(1 − z), and by how much the other one is off."""

from dataclasses import dataclass

from chainrule._utils.numbers import to_subscript
from chainrule.chain.network import ChainLayer
from chainrule.chain.notation import format_equal
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.wide_float import ONE, WideFloat, multiply

ORIGIN = (
    "Some texts write z for the output of a unit, and then σ′ is z(1 − z). Here z is the input of "
    "σ and h = σ(z) its output, so σ′(z) is h(1 − h)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErratumLayer:
    """The right and the wrong slope of one sigmoid layer.

    Attributes:
        layer: The layer l.
        z: The pre-activation.
        h: The activation σ(z).
        right: h(1 − h).
        wrong: z(1 − z).
    """

    layer: int
    z: float
    h: float
    right: WideFloat
    wrong: WideFloat

    @property
    def off(self) -> float:
        """The wrong slope over the right one: 1 would be no error."""
        return _divide(self.wrong, self.right)

    @property
    def sentence(self) -> str:
        """What it comes to at the current values."""
        n = to_subscript(self.layer)
        return (
            f"At z{n} {_show(self.z)} the slope is h{n}(1 − h{n}) {format_equal(self.right)}; "
            f"z{n}(1 − z{n}) gives {self.wrong}, {_describe(self.wrong, self.right)}."
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Erratum:
    """What the wrong form does to one gradient.

    Attributes:
        wrt: The variable that p is differentiated by.
        layers: The sigmoid layers among the gradient's factors, output to input.
        right: The gradient.
        wrong: The gradient with z(1 − z) in place of every σ′(z).

    Example:
        >>> explain_erratum(ScalarChain(1.0, [0.5]))
        Erratum(w1: with h(1 − h) ≈ 0.235, with z(1 − z) = 0.25)
    """

    wrt: str
    layers: tuple[ErratumLayer, ...]
    right: WideFloat
    wrong: WideFloat

    def __repr__(self) -> str:
        right, wrong = format_equal(self.right), format_equal(self.wrong)
        return f"Erratum({self.wrt}: with h(1 − h) {right}, with z(1 − z) {wrong})"

    @property
    def off(self) -> float:
        """The wrong gradient over the right one."""
        return _divide(self.wrong, self.right)

    @property
    def sentence(self) -> str:
        """Where the wrong form comes from, and how far it is off here."""
        name = f"∂p/∂{self.wrt[0]}{to_subscript(int(self.wrt[1:])) if self.wrt[1:] else ''}"
        return (
            f"{ORIGIN} {self.layers[-1].sentence} With it in every layer {name} would be "
            f"{self.wrong} instead of {self.right}, "
            f"{_describe(self.wrong, self.right)}."
        )


def explain_erratum(chain: ScalarChain, wrt: str = "w1") -> Erratum | None:
    """Return what a gradient would be with z(1 − z) in place of σ′(z) = h(1 − h).

    Args:
        chain: The chain.
        wrt: A variable of the chain.

    Returns:
        The comparison, or `None` if no factor of the gradient is a sigmoid's slope.

    Raises:
        SpecError: If there is no such variable.

    Example:
        >>> explain_erratum(ScalarChain(1.0, [0.5, -2.0])).wrong
        1.4
    """
    factors = chain.factors(wrt)
    layers = {
        factor.id: _compare(chain.layers[factor.layer - 1])
        for factor in factors
        if factor.kind == "activation"
        and chain.layers[factor.layer - 1].activation.name == "sigmoid"
    }
    if not layers:
        return None
    wrong = multiply(
        layers[factor.id].wrong if factor.id in layers else factor.exact for factor in factors
    )
    return Erratum(wrt=wrt, layers=tuple(layers.values()), right=chain.gradient(wrt), wrong=wrong)


def _compare(layer: ChainLayer) -> ErratumLayer:
    return ErratumLayer(
        layer=layer.number,
        z=float(layer.z),
        h=float(layer.h),
        right=layer.slope,
        wrong=layer.z * (ONE + -layer.z),
    )


def _show(value: float) -> str:
    if abs(value) == float("inf"):
        return f"= {'∞' if value > 0 else '−∞'}"
    return format_equal(WideFloat.from_float(value))


def _divide(wrong: WideFloat, right: WideFloat) -> float:
    if not right.sign:
        return float("nan") if not wrong.sign else float("inf")
    return float(wrong / right)


def _describe(wrong: WideFloat, right: WideFloat) -> str:
    if not right.sign or not wrong.sign:
        if right.sign == wrong.sign:
            return "the same"
        return "as if nothing passed" if right.sign else "although nothing passes"
    ratio = wrong / right
    flipped = " and the wrong sign" if ratio.sign < 0 else ""
    if abs(ratio.log10) < 0.002:
        return "the wrong sign" if flipped else "by chance nearly the same"
    if ratio.log10 < 0:
        return f"{abs(right / wrong)} times too small{flipped}"
    return f"{abs(ratio)} times too large{flipped}"
