"""`ScalarChain`: a one-dimensional network, with every local derivative that backpropagation uses.

References:
    Karpathy 2016, "Yes you should understand backprop".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from chainrule.chain.chain_graph import build_graph, list_edges, list_nodes
from chainrule.chain.drawing import draw_graph
from chainrule.chain.network import (
    ChainLayer,
    Edge,
    Factor,
    Node,
    compute_layers,
    list_factors,
)
from chainrule.chain.notation import format_equal
from chainrule.chain.scalar_graph import ScalarGraph, check_number
from chainrule.chain.wide_float import ONE, WideFloat
from chainrule.errors import SpecError, suggest
from chainrule.spec.activations import get_activation

MAX_LAYERS = 1000


@dataclass(frozen=True, repr=False)
class ScalarChain:
    """A network with one unit per layer: h₀ = x, z_l = w_l·h_{l−1} + b_l, h_l = φ(z_l), p = h_n.

    It knows all forward values, every local derivative, and for each of its variables "x", "w1",
    "b1", … the factors whose product is the gradient of p. No tensor library is involved.

    Attributes:
        x: The input.
        weights: w_1 … w_n.
        activation: A name of the table `ACTIVATIONS` for all layers, or one name per layer.
        biases: b_1 … b_n, or `None` for a chain without biases.

    Raises:
        SpecError: On construction, naming the argument, what must hold and what came.

    Example:
        >>> ScalarChain(1.0, [0.5, -2.0], "tanh")
        ScalarChain(2 layers, tanh: x = 1, p ≈ −0.728)
    """

    x: float
    weights: Sequence[float]
    activation: str | Sequence[str] = "sigmoid"
    biases: Sequence[float] | None = None

    def __post_init__(self) -> None:
        weights = _list_values("weights", self.weights)
        depth = len(weights)
        if not depth:
            raise SpecError(
                "weights: must give one weight per layer, at least one; got none. "
                "For example weights=[0.5]."
            )
        if depth > MAX_LAYERS:
            raise SpecError(
                f"weights: must be at most {MAX_LAYERS}, one per layer; got {depth}. "
                "Use fewer layers."
            )
        activation = self.activation
        if not isinstance(activation, str):
            activation = _list_values("activation", activation)
        if not isinstance(activation, str) and len(activation) != depth:
            raise SpecError(
                f"activation: must be one name, or as many as weights ({depth}); "
                f"got {len(activation)}."
            )
        for name in {activation} if isinstance(activation, str) else dict.fromkeys(activation):
            get_activation(name)
        biases = None if self.biases is None else _list_values("biases", self.biases)
        if biases is not None and len(biases) != depth:
            raise SpecError(
                f"biases: must be as many as weights ({depth}), or left out; got {len(biases)}."
            )
        object.__setattr__(self, "x", check_number("x", self.x))
        object.__setattr__(self, "weights", _check_numbers("w", weights))
        object.__setattr__(self, "activation", activation)
        object.__setattr__(self, "biases", None if biases is None else _check_numbers("b", biases))

    def __repr__(self) -> str:
        layers = f"{self.depth} layer{'s' if self.depth > 1 else ''}"
        names = ", ".join(dict.fromkeys(layer.activation.name for layer in self.layers))
        x, p = format_equal(self.layers[0].input), format_equal(self.output)
        return f"ScalarChain({layers}, {names}: x {x}, p {p})"

    def _repr_svg_(self) -> str:
        """What a notebook shows: the computational graph with ∂p/∂w₁."""
        return draw_graph(self, identifier=f"chain-{hash(self) & 0xFFFFFFFF:x}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.x, self.weights, self.activation, self.biases)

    @property
    def depth(self) -> int:
        """Number of layers n."""
        return len(self.weights)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all that p can be differentiated by: "x", then "w1" …, then "b1" …."""
        numbers = range(1, self.depth + 1)
        return ("x", *(f"w{n}" for n in numbers), *(f"b{n}" for n in numbers))

    @cached_property
    def layers(self) -> tuple[ChainLayer, ...]:
        """The forward pass, one entry per layer."""
        names = (
            [self.activation] * self.depth if isinstance(self.activation, str) else self.activation
        )
        activations = [get_activation(name) for name in names]
        return compute_layers(self.x, self.weights, activations, self.biases)

    @property
    def output(self) -> WideFloat:
        """p, whatever its size."""
        return self.layers[-1].h

    @property
    def p(self) -> float:
        """The output p = h_n in float64."""
        return float(self.output)

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Every forward value in float64 by name: "x", "z1", "h1", …, "p"."""
        values = {"x": float(self.x)}
        for layer in self.layers:
            values[f"z{layer.number}"] = float(layer.z)
            values[f"h{layer.number}"] = float(layer.h)
        return MappingProxyType({**values, "p": self.p})

    def factors(self, wrt: str) -> tuple[Factor, ...]:
        """Return the factors of ∂p/∂wrt, in the order of the backward pass: output to input.

        Args:
            wrt: A variable: "x", "w1" … or "b1" … (also of a chain without biases, where b is 0).

        Raises:
            SpecError: If there is no such variable.

        Example:
            >>> ScalarChain(1.0, [0.5]).factors("w1")
            (Factor(∂p/∂z₁ = h₁(1 − h₁) ≈ 0.235), Factor(∂z₁/∂w₁ = x = 1))
        """
        letter, last = self._find_variable(wrt)
        return _list_factors(self, letter, last)

    def gradient(self, wrt: str) -> WideFloat:
        """Return ∂p/∂wrt, whatever its size.

        It is a number to calculate with, see `WideFloat`; `float()` makes a float64 of it.

        Args:
            wrt: A variable, as for `factors`.

        Raises:
            SpecError: If there is no such variable.

        Example:
            >>> gradient = ScalarChain(1.0, [0.5, -2.0, 1.5]).gradient("w1")
            >>> gradient, gradient < 0, f"{2 * gradient:.3g}"
            (−0.0298, True, '-0.0595')
        """
        letter, last = self._find_variable(wrt)
        product = ONE
        for layer in reversed(self.layers[last:]):
            product = product * layer.slope * layer.weight
        own = self.layers[last - 1]
        local = {"h": own.weight, "w": own.input, "b": ONE}[letter]
        return product * own.slope * local

    def running_products(self, wrt: str) -> tuple[WideFloat, ...]:
        """Return the product of the first 1, 2, … factors of ∂p/∂wrt.

        Args:
            wrt: A variable, as for `factors`.

        Raises:
            SpecError: If there is no such variable.
        """
        products = []
        product = ONE
        for factor in self.factors(wrt):
            product = product * factor.exact
            products.append(product)
        return tuple(products)

    def show(self, wrt: str) -> "ScalarChain":
        """Return the chain whose graph has a node for `wrt`: with biases of 0 if need be.

        Args:
            wrt: A variable, as for `factors`.

        Raises:
            SpecError: If there is no such variable.
        """
        if self._find_variable(wrt)[0] != "b" or self.biases is not None:
            return self
        return ScalarChain(self.x, self.weights, self.activation, [0.0] * self.depth)

    def to_graph(self) -> ScalarGraph:
        """Return the chain as a graph, of which it is the special case with one path.

        Example:
            >>> ScalarChain(1.0, [0.5, -2.0]).to_graph().find_paths("w1")
            PathSum(1 path from h₂ to w₁ = −0.0816)
        """
        return self._graph

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of the computational graph, input to output."""
        return list_nodes(self._graph)

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The edges of the computational graph, input to output."""
        return list_edges(self._graph)

    @cached_property
    def _graph(self) -> ScalarGraph:
        return build_graph(self.layers, biased=self.biases is not None)

    def _find_variable(self, wrt: str) -> tuple[str, int]:
        """Return the letter and the layer of a variable; x is the input "h" of layer 1."""
        if wrt == "x":
            return "h", 1
        if isinstance(wrt, str) and (found := re.fullmatch(r"([wb])([1-9][0-9]{0,3})", wrt)):
            letter, layer = found[1], int(found[2])
            if layer <= self.depth:
                return letter, layer
        raise SpecError(f"wrt: unknown {wrt!r}. {self._suggest_variable(wrt)}")

    def _suggest_variable(self, wrt: str) -> str:
        guess = suggest(str(wrt), self.variables).partition("Known:")[0]
        ends = [
            letter + ("1" if self.depth == 1 else f"1 … {letter}{self.depth}") for letter in "wb"
        ]
        return f"{guess}Known: x, {', '.join(ends)}."


@lru_cache(maxsize=4)
def _list_factors(chain: ScalarChain, letter: str, last: int) -> tuple[Factor, ...]:
    """Return the factors of a gradient; drawing and derivation of one chain share them."""
    biased = chain.biases is not None or letter == "b"
    return list_factors(chain.layers, letter, last, biased=biased)


def _list_values(name: str, values: Any) -> tuple[Any, ...]:
    """Return a list, an array or a tensor as a tuple."""
    if hasattr(values, "tolist"):  # NumPy, PyTorch
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise SpecError(
            f"{name}: must be a list with one entry per layer; got {values!r:.60}. "
            f"For one layer: {name}=[{values!r:.60}]."
        )
    return tuple(values)


def _check_numbers(letter: str, values: Sequence[object]) -> tuple[float, ...]:
    return tuple(check_number(f"{letter}{n}", value) for n, value in enumerate(values, 1))
