"""Grids: the cells of all combinations of some values, counted before one of them is made."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from inspect import Parameter, signature
from typing import Any

from chainrule.errors import SpecError, SweepError, abbreviate, suggest
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.cells import FactoryCell, SpecCell, Training

LIMIT = 10_000
"""Most cells of a sweep unless its caller allows more."""

MAX_VALUES = 1_000_000
"""Most values of one axis."""

WEIGHT_SCALE = "weight_scale"
"""σ_w = (standard deviation of a weight)·√width: what theory counts in, whatever the width."""

AXES = (*NetworkSpec.model_fields, WEIGHT_SCALE)
"""What an axis of a specification can be."""

Axes = Mapping[str, Sequence[Any]]


def parse_axis(text: str) -> tuple[str, Sequence[Any]]:
    """Return the name and the values that the text of an axis describes.

    Args:
        text: "depth=2..100" for whole numbers, both ends included; "bias_std=0..1..0.1" with a
            step; "init=he,xavier" for single values. Ranges and values can be mixed by commas.

    Returns:
        The name; the values: whole numbers, other numbers, true, false, `None` for "none", text.

    Raises:
        SweepError: If there is no name or no value, or a range has no end.

    Example:
        >>> parse_axis("depth=2..4,10")
        ('depth', [2, 3, 4, 10])
    """
    if not isinstance(text, str):
        raise SweepError(f"An axis must be text, such as 'depth=2..100'; got {abbreviate(text)}.")
    name, equals, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name:
        raise SweepError(
            f"An axis must be NAME=VALUES, such as depth=2..100 or init=he,xavier; got "
            f"{abbreviate(text)}."
        )
    values: list[Any] = []
    for part in rest.split(","):
        word = part.strip()
        if not word:
            raise SweepError(
                f"{name}: an axis must have values between its commas; got {abbreviate(text)}."
            )
        values += _parse_range(name, word) if ".." in word else [parse_value(word)]
        _check_count(name, len(values))
    return name, values


def parse_value(word: str) -> Any:
    """Return a number, true, false, `None` for "none", or the word itself.

    Example:
        >>> [parse_value(word) for word in ("3", "0.5", "none", "he")]
        [3, 0.5, None, 'he']
    """
    plain = {"true": True, "false": False, "none": None}
    if word.lower() in plain:
        return plain[word.lower()]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _parse_range(name: str, word: str) -> list[Any]:
    ends = word.split("..")
    try:
        numbers = [Decimal(end) for end in ends]
    except InvalidOperation:
        numbers = []
    if len(numbers) not in (2, 3) or not all(number.is_finite() for number in numbers):
        raise SweepError(
            f"{name}: a range must have two finite ends, LOW..HIGH or LOW..HIGH..STEP; got "
            f"{abbreviate(word)}, which does not end or is no range of numbers."
        )
    low, high, *rest = numbers
    step = rest[0] if rest else Decimal(1)
    if step <= 0:
        raise SweepError(f"{name}: the step of a range must be above 0; got {step} in {word}.")
    if high < low:
        raise SweepError(
            f"{name}: a range must not be empty: LOW must be at most HIGH; got {abbreviate(word)}."
        )
    span = (high - low) / step
    _check_count(name, min(float(span), 1e18) + 1)
    whole = all(number == number.to_integral_value() for number in (low, step))
    kind = int if whole else float
    return [kind(low + place * step) for place in range(int(span) + 1)]


def _check_count(name: str, count: float) -> None:
    if count > MAX_VALUES:
        raise SweepError(
            f"{name}: an axis must have at most {MAX_VALUES:,} values; got {count:,.0f}. Take a "
            "larger step."
        )


def count_cells(axes: Axes, limit: int = LIMIT) -> int:
    """Return how many cells a grid has; nothing is made.

    Args:
        axes: The values of each axis.
        limit: Most cells that are allowed.

    Raises:
        SweepError: If an axis has no end, no value, or one twice; or there are too many cells.

    Example:
        >>> count_cells({"depth": range(2, 101), "init": ["he", "xavier"]})
        198
    """
    _check_dictionary("axes", axes)
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise SweepError(
                f"{name}: the values of an axis must be a list, tuple or range, whose length is "
                f"known; got {abbreviate(values)}. If it ends, write list(…) around it."
            )
        if len(values) == 0:
            raise SweepError(f"{name}: an axis must have at least one value; got none.")
    count = math.prod(len(values) for values in axes.values())
    check_limit(count, limit)
    for name, values in axes.items():
        seen: set[str] = set()
        for value in values:
            if repr(value) in seen:
                raise SweepError(
                    f"{name}: each value must be given once; {abbreviate(value)} came twice."
                )
            seen.add(repr(value))
    return count


def check_limit(count: int, limit: int) -> None:
    """Raise if a sweep has more cells than allowed.

    Raises:
        SweepError: If it has, or the limit is no number.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise SweepError(f"limit: must be a whole number of at least 1; got {abbreviate(limit)}.")
    if count > limit:
        raise SweepError(
            f"A sweep must have at most {limit:,} cells; this one has {count:,}. Take fewer "
            f"values, or raise the limit: limit={count}, on the command line --limit {count}."
        )


def make_grid(
    axes: Axes,
    base: NetworkSpec | None = None,
    *,
    seeds: int = 16,
    training: Training | None = None,
    limit: int = LIMIT,
) -> list[SpecCell]:
    """Return the cells of all combinations of some settings; the last axis changes fastest.

    Args:
        axes: Fields of `NetworkSpec`, each with its values; or "weight_scale" for σ_w, which
            stands for `init="random"` with a standard deviation of σ_w/√width.
        base: The other settings; the defaults without it.
        seeds: Networks per cell.
        training: How the first network of each cell is trained, if it is.
        limit: Most cells that are allowed.

    Raises:
        SweepError: If an axis is no field, endless or empty; if a specification is not legal; or if
            there are more cells than allowed. Nothing has run then.

    Example:
        >>> [cell.spec.depth for cell in make_grid({"depth": [2, 4]})]
        [2, 4]
    """
    base = NetworkSpec() if base is None else base
    if not isinstance(base, NetworkSpec):
        raise SweepError(f"base: must be a chainrule.NetworkSpec; got {abbreviate(base)}.")
    check_axes(axes, AXES)
    count_cells(axes, limit)
    return [
        SpecCell(make_spec(base, settings), seeds, training, settings.get(WEIGHT_SCALE))
        for settings in _combine(axes)
    ]


def check_axes(axes: Axes, known: Sequence[str]) -> None:
    """Raise unless axes are a dictionary of known names that go together.

    Args:
        axes: The values of each axis.
        known: What an axis can be.

    Raises:
        SweepError: If they are not.
    """
    _check_dictionary("axes", axes)
    for name in axes:
        if name not in known:
            raise SweepError(f"{abbreviate(name)} is no axis. {suggest(str(name), known)}")
    if WEIGHT_SCALE in axes and axes.keys() & {"weight_std", "init"}:
        raise SweepError(
            f"{WEIGHT_SCALE}: decides weight_std and init, so neither can be another axis. Leave "
            "out one of them."
        )


def _check_dictionary(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise SweepError(
            f'{name}: must be a dictionary of names and values, such as {{"depth": [2, 4]}}; got '
            f"{abbreviate(value)}."
        )


def make_spec(base: NetworkSpec, settings: Mapping[str, Any]) -> NetworkSpec:
    """Return the specification of a cell.

    Args:
        base: The other settings.
        settings: Fields, and "weight_scale", which sets `init="random"` and `weight_std` to it
            divided by √width.

    Raises:
        SweepError: If the result is not legal.

    Example:
        >>> make_spec(NetworkSpec(width=64), {"weight_scale": 2.0, "depth": 5}).weight_std
        0.25
    """
    fields = dict(settings)
    scale = fields.pop(WEIGHT_SCALE, None)
    try:
        if WEIGHT_SCALE not in settings:
            return base.replace(**fields)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not scale >= 0:
            raise SpecError(f"{WEIGHT_SCALE}: must be a number of at least 0; got {scale!r}.")
        sized = base.replace(**fields)  # so that a wrong width is the width's error
        weight_std = scale / math.sqrt(sized.width)
        return sized.replace(init="random", weight_std=weight_std)
    except (SpecError, TypeError, OverflowError) as error:
        where = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise SweepError(
            f"Every cell must be a legal specification; {where or 'this one'} is none. {error}"
        ) from None


def make_factory_grid(
    factory: Callable[..., Any],
    axes: Axes,
    *,
    arguments: Mapping[str, Any] | None = None,
    seeds: Iterable[int] = (0,),
    limit: int = LIMIT,
) -> list[FactoryCell]:
    """Return the cells of all combinations of a factory's arguments, each with every seed.

    Args:
        factory: What builds (model, compute_loss); see `FactoryCell`.
        axes: Its arguments, each with its values.
        arguments: Arguments that are the same everywhere.
        seeds: Seeds of each combination.
        limit: Most cells that are allowed.

    Raises:
        SweepError: If the factory has no such argument, an axis is endless or empty, or there are
            more cells than allowed. Nothing has run then.

    Example:
        >>> def build(width): ...
        >>> len(make_factory_grid(build, {"width": [8, 16]}, seeds=range(3)))
        6
    """
    _check_dictionary("axes", axes)
    _check_dictionary("arguments", arguments or {})
    if not callable(factory):
        raise SweepError(
            "factory: must be a function that returns (model, compute_loss); got "
            f"{abbreviate(factory)}."
        )
    try:
        parameters = signature(factory).parameters
    except ValueError:
        raise SweepError(
            f"factory: must be a function of your own, whose arguments can be known; got "
            f"{abbreviate(factory)}."
        ) from None
    if all(each.kind is not Parameter.VAR_KEYWORD for each in parameters.values()):
        for name in [*axes, *(arguments or {})]:
            if name not in parameters:
                raise SweepError(
                    f"{abbreviate(name)} is no argument of the factory. "
                    f"{suggest(str(name), parameters)}"
                )
    check_limit(0, limit)
    if not isinstance(seeds, Iterable):
        raise SweepError(f"seeds: must be a list of numbers, such as range(3); got {seeds!r:.60}.")
    numbers = list(itertools.islice(seeds, limit + 1))
    if not numbers:
        raise SweepError("seeds: must be at least one; got none.")
    check_limit(count_cells(axes, limit) * len(numbers), limit)
    return [
        FactoryCell(factory, {**(arguments or {}), **settings}, seed)
        for settings in _combine(axes)
        for seed in numbers
    ]


def _combine(axes: Axes) -> Iterable[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))
