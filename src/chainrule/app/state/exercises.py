"""Exercises: addresses that ask first and show what was measured after a guess."""

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.app.state.view import COVERS, View
from chainrule.spec.network_spec import NetworkSpec

_QUESTION = "Does the gradient vanish, hold or explode?"

SPECS: Mapping[str, tuple[NetworkSpec, str]] = MappingProxyType(
    {
        "Tanh with Xavier, 20 layers": (
            NetworkSpec(depth=20, activation="tanh", init="xavier"),
            f"20 layers of tanh, weights by Xavier. {_QUESTION}",
        ),
        "ReLU with Xavier, 30 layers": (
            NetworkSpec(depth=30, activation="relu", init="xavier"),
            f"30 layers of ReLU, weights by Xavier. {_QUESTION}",
        ),
        "ReLU with He and residual paths, 50 layers": (
            NetworkSpec(depth=50, activation="relu", init="he", residual="plain"),
            f"50 layers of ReLU with He, and a residual path around each. {_QUESTION}",
        ),
        "Sigmoid with weights of spread 1, 10 layers": (
            NetworkSpec(depth=10, activation="sigmoid", init="random"),
            f"10 layers of sigmoid, and weights much larger than usual. {_QUESTION}",
        ),
    }
)
"""The network and the question of each exercise, by title."""


def write_exercise(spec: NetworkSpec, question: str) -> str:
    """Return the address of an exercise: all is covered until the visitor has guessed.

    Args:
        spec: The network.
        question: What is asked.
    """
    view = View(spec=spec, guess=tuple(COVERS), ask=question)
    return f"/?{view.address}"


EXERCISES: tuple[tuple[str, str], ...] = tuple(
    (title, write_exercise(spec, question)) for title, (spec, question) in SPECS.items()
)
"""Title and address of every exercise."""
