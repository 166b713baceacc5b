"""From the text of a command line or an address to a chain or an expression."""

import math
from collections.abc import Iterable

from chainrule.chain.depth import check_depth
from chainrule.chain.graph_presets import get_expression
from chainrule.chain.recurrence import Recurrence, measure_recurrence
from chainrule.chain.scalar_chain import ScalarChain
from chainrule.chain.scalar_graph import ScalarGraph
from chainrule.errors import SpecError

DEFAULT_LAYERS = 2
"""Layers of a chain where nothing says how many."""


def build_chain(
    *,
    layers: int | None,
    activation: str,
    x: float,
    weights: str | None,
    biases: str | None,
    tied: float | None,
    clip: float | None,
) -> tuple[ScalarChain, Recurrence | None]:
    """Return the chain that options describe, and with a tied weight the recurrent network.

    Args:
        layers: Number of layers, or `None` for as many as there are weights.
        activation: A name, or one per layer separated by commas.
        x: The input.
        weights: Numbers separated by commas, or `None` for weights of 1.
        biases: Numbers separated by commas, or `None` for no biases.
        tied: One weight for every layer.
        clip: With a tied weight: largest |∂p/∂w| that clipping lets pass.

    Raises:
        SpecError: If the options contradict each other or one is out of range.
    """
    if layers is not None:
        check_depth("layers", layers)
    names = [name.strip() for name in activation.split(",")]
    parts = parse_numbers("biases", biases) if biases is not None else None
    if tied is not None:
        if not math.isfinite(tied):
            raise SpecError(f"tied: must be a finite number; got {tied!r}.")
        if weights is not None or parts is not None or len(names) > 1:
            raise SpecError(
                "tied: must come without weights, biases and a list of activations, since every "
                "layer is the same. Leave them out, or leave tied out."
            )
        recurrence = measure_recurrence(
            tied, layers or DEFAULT_LAYERS, x=x, activation=names[0], clip=clip
        )
        return recurrence.chain, recurrence
    if clip is not None:
        raise SpecError("clip: must come with a tied weight, whose gradient it clips. Add tied.")
    numbers = parse_numbers("weights", weights) if weights is not None else None
    if numbers is None:
        numbers = [1.0] * (layers or (len(names) if len(names) > 1 else DEFAULT_LAYERS))
    if layers is not None and len(numbers) != layers:
        raise SpecError(
            f"weights: must be as many as layers ({layers}); got {len(numbers)}. "
            "Make them agree, or leave layers out."
        )
    return ScalarChain(x, numbers, names if len(names) > 1 else names[0], parts), None


def build_expression(
    text: str | None, values: Iterable[str], preset: str | None, wrt: str | None
) -> tuple[ScalarGraph, str]:
    """Return the graph that options describe, and the variable to differentiate by.

    Args:
        text: The expression, or `None` with a preset.
        values: Settings such as "x=0.5" or "x=0.5,w=1.2"; 1 for every other name, or the preset's
            own value.
        preset: Name of a known expression, or `None`.
        wrt: The variable, or `None` for the preset's own or the first one.

    Raises:
        SpecError: If the options contradict each other, or one is wrong.

    Example:
        >>> build_expression("w*x", ["x=2,w=3"], None, None)
        (ScalarGraph(p = w · x = 6, 3 nodes), 'w')
    """
    given = {name: number for each in values for name, number in parse_settings(each)}
    if preset is not None:
        if text is not None:
            raise SpecError("expr, preset: must not come together; got both. Leave one out.")
        known = get_expression(preset)
        graph = ScalarGraph.parse(known.text, known.values).replace(**given)
        return graph, known.wrt if wrt is None else wrt
    if text is None:
        raise SpecError(
            "value: must come with an expression, whose names it sets; got none. "
            'For example expr "w*x".'
        )
    graph = ScalarGraph.parse(text, given, default=1.0)
    return graph, graph.variables[0] if wrt is None else wrt


def parse_settings(text: str) -> list[tuple[str, float]]:
    """Return names and numbers of a list such as "x=0.5,w=-2".

    Args:
        text: Settings separated by commas.

    Raises:
        SpecError: If one of them is no name with a finite number.
    """
    settings = []
    for part in text.split(","):
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise SpecError(
                "value: must be a name and a finite number, for example x=0.5; "
                f"got {part.strip()!r:.60}."
            )
        settings.append((name, value))
    return settings


def parse_numbers(name: str, text: str) -> list[float]:
    """Return the numbers of a list such as "0.5,-2,1.5".

    Args:
        name: What they are, for the error.
        text: Numbers separated by commas.

    Raises:
        SpecError: If one of them is no number.
    """
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            raise SpecError(
                f"{name}: must be numbers separated by commas, for example 0.5,-2,1.5; "
                f"got {part.strip()!r:.60}."
            ) from None
    return numbers
