"""`nudge_chain`: what a small change of a variable does to every value on its way to the output."""

import math
from dataclasses import dataclass, replace

from chainrule.chain.network import Factor, Node
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.wide_float import WideFloat
from chainrule.errors import SpecError

_SEEN = 1e-9
"""Smaller shares of a value are mostly rounding where two values are subtracted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A value on the way, and how far the nudge moves it.

    Attributes:
        node: The node.
        factor: The local derivative that led to it; `None` at the variable itself.
        predicted: The nudge times all local derivatives so far.
        true: How far the value really moves; `None` where that is too small beside the value.
    """

    node: Node
    factor: Factor | None
    predicted: WideFloat
    true: WideFloat | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """A variable changed by a small amount.

    Attributes:
        wrt: The variable.
        amount: How far it is moved.
        stops: The values that move with it, the variable first and p last.

    Example:
        >>> [stop.node.id for stop in nudge_chain(ScalarChain(2.0, [0.5]), "w1").stops]
        ['w1', 'z1', 'p']
    """

    wrt: str
    amount: float
    stops: tuple[Stop, ...]


def nudge_chain(chain: ScalarChain, wrt: str = "w1", amount: float = 0.01) -> Nudge:
    """Return how far every value moves when a variable does, beside what the product predicts.

    Args:
        chain: The chain.
        wrt: The variable to move.
        amount: How far.

    Raises:
        SpecError: If there is no such variable, or the amount is 0 or not finite.

    Example:
        >>> nudge_chain(ScalarChain(2.0, [0.5, 3.0], "identity")).stops[-1].predicted
        0.06
    """
    factors = chain.factors(wrt)
    chain = chain.show(wrt)
    before = {node.id: node for node in chain.nodes}
    after = _compute_values(_move(chain, wrt, amount))
    predicted = WideFloat.from_float(amount)
    stops = [Stop(node=before[wrt], factor=None, predicted=predicted, true=predicted)]
    for factor in reversed(factors):
        predicted = predicted * factor.exact
        name = factor.id.split("-")[1]
        node = before["p" if name == f"h{chain.depth}" else name]
        stops.append(_stop(node, factor, predicted, after[node.id]))
    return Nudge(wrt=wrt, amount=amount, stops=tuple(stops))


def _compute_values(chain: ScalarChain) -> dict[str, WideFloat]:
    """Return the values of the nodes that a nudge moves; no graph is built for them."""
    found = {"p": chain.output}
    for layer in chain.layers:
        found |= {f"z{layer.number}": layer.z, f"h{layer.number}": layer.h}
    return found


def _stop(node: Node, factor: Factor, predicted: WideFloat, after: WideFloat) -> Stop:
    true = after - node.value
    exact = after.sign == node.value.sign == 0
    seen = exact or abs(true) > _SEEN * max(abs(after), abs(node.value))
    return Stop(node=node, factor=factor, predicted=predicted, true=true if seen else None)


def _move(chain: ScalarChain, wrt: str, amount: float) -> ScalarChain:
    if not math.isfinite(amount) or not amount:
        raise SpecError(f"nudge: must be a finite number other than 0; got {amount!r}.")
    if wrt == "x":
        return replace(chain, x=chain.x + amount)
    place = int(wrt[1:]) - 1
    given = chain.weights if wrt[0] == "w" else chain.biases or ()
    values = [value + amount if n == place else value for n, value in enumerate(given)]
    return replace(chain, weights=values) if wrt[0] == "w" else replace(chain, biases=values)
