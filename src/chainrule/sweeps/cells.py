"""Cells: what is measured once, and the address that its content has."""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any, Literal

from chainrule._utils.version import read_version
from chainrule.errors import SweepError, abbreviate
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec
from chainrule.sweeps.sources import read_source

Plain = str | int | float | bool | None

MAX_MEMBERS = 1024
"""Most networks that one cell measures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the network of a cell is trained on the digits, if it is.

    Attributes:
        optimizer: "sgd" or "adam".
        steps: Number of optimizer steps, 1 to 100,000.
        learning_rate: `None` for the optimizer's usual one.

    Raises:
        SweepError: If the optimizer or the number of steps is another one.

    Example:
        >>> Training(steps=20).optimizer
        'sgd'
    """

    optimizer: Literal["sgd", "adam"] = "sgd"
    steps: int = 300
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise SweepError(
                f"optimizer: must be 'sgd' or 'adam'; got {abbreviate(self.optimizer)}."
            )
        if isinstance(self.steps, bool) or not isinstance(self.steps, int):
            raise SweepError(f"steps: must be a whole number; got {abbreviate(self.steps)}.")
        if not 1 <= self.steps <= 100_000:
            raise SweepError(f"steps: must be from 1 to 100000; got {self.steps}.")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, float | int | None):
            raise SweepError(f"learning_rate: must be a number; got {abbreviate(rate)}.")
        if rate is not None and not 0.0 < rate <= 1000.0:
            raise SweepError(f"learning_rate: must be above 0, at most 1000; got {rate!r}.")


@dataclass(frozen=True)
class SpecCell:
    """A specification to measure with `simulate`, to diagnose, and to put beside theory.

    Attributes:
        spec: What is measured; its `seed` is the first one.
        seeds: Number of networks, with seeds counted up from `spec.seed`.
        training: Train the first network, too; `None` for no training.
        weight_scale: The σ_w that `weight_std` came from, if it came from one: the cell is then
            named by it. The result does not depend on it.

    Raises:
        SweepError: If `seeds` is not a whole number from 1 to 1024, a seed is too large, or
            `weight_scale` is not that of the specification.

    Example:
        >>> SpecCell(NetworkSpec(depth=3), seeds=2).settings["depth"]
        3
    """

    spec: NetworkSpec
    seeds: int = 16
    training: Training | None = None
    weight_scale: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.spec, NetworkSpec):
            raise SweepError(f"spec: must be a chainrule.NetworkSpec; got {abbreviate(self.spec)}.")
        if not isinstance(self.training, Training | None):
            raise SweepError(
                'training: must be chainrule.sweeps.Training(optimizer="sgd") or None; got '
                f"{abbreviate(self.training)}."
            )
        _check_whole("seeds", self.seeds, 1, MAX_MEMBERS)
        _check_whole("the last seed", self.spec.seed + self.seeds - 1, 0, MAX_SEED)
        scale = self.weight_scale
        if scale is not None and not _is_scale(scale, self.spec.weight_std, self.spec.width):
            raise SweepError(
                f"weight_scale: must be weight_std times √width, which is "
                f"{self.spec.weight_std * math.sqrt(self.spec.width):.6g}; got {abbreviate(scale)}."
            )

    @property
    def settings(self) -> dict[str, Plain]:
        """Every field of the specification, and the weight scale if it has one."""
        scale = {} if self.weight_scale is None else {"weight_scale": self.weight_scale}
        return self.spec.model_dump() | scale

    @cached_property
    def address(self) -> str:
        """SHA-256 of all that decides the result: specification, seeds, training, versions."""
        training = None if self.training is None else asdict(self.training)
        return _hash({"spec": self.spec.model_dump(), "seeds": self.seeds, "training": training})


@dataclass(frozen=True)
class FactoryCell:
    """A model of your own to measure with `inspect`, and to diagnose.

    Attributes:
        factory: Called with the arguments; returns (model, compute_loss), or (model, compute_loss,
            optimizer). The random numbers of PyTorch, NumPy and Python start from `seed`.
        arguments: By name; values are text, numbers, true, false or `None`.
        seed: Where random numbers start, from 0 to 2³¹ − 1.

    Raises:
        SweepError: If the factory has no source or does not take the arguments, an argument is of
            another kind, or the seed is out of range.

    Example:
        >>> def build(depth): ...
        >>> FactoryCell(build, {"width": 3})
        Traceback (most recent call last):
        chainrule.errors.SweepError: build must take the arguments it is given; ...
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Plain] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise SweepError(
                f"factory: must be a function that returns (model, compute_loss); got "
                f"{abbreviate(self.factory)}."
            )
        _check_whole("seed", self.seed, 0, MAX_SEED)
        if not isinstance(self.arguments, Mapping):
            raise SweepError(
                f"arguments: must be a dictionary of names and values; got "
                f"{abbreviate(self.arguments)}."
            )
        for name, value in self.arguments.items():
            if not isinstance(value, str | int | float | bool | None):
                raise SweepError(
                    f"{name}: must be text, a number, true, false or None, so that it can be a "
                    f"part of an address; got {abbreviate(value)}. Give its settings instead."
                )
        name = getattr(self.factory, "__name__", "factory")
        try:
            inspect.signature(self.factory).bind(**self.arguments)
        except TypeError as error:
            raise SweepError(f"{name} must take the arguments it is given; {error}.") from None
        object.__setattr__(self, "arguments", dict(self.arguments))

    @property
    def settings(self) -> dict[str, Plain]:
        """The arguments."""
        return dict(self.arguments)

    @cached_property
    def address(self) -> str:
        """SHA-256 of all that decides the result: source, arguments, seed, versions."""
        name = getattr(self.factory, "__qualname__", "")
        source = read_source(self.factory)
        content = {"factory": name, "source": source, "seed": self.seed}
        return _hash({**content, "arguments": [[k, v] for k, v in sorted(self.settings.items())]})


Cell = SpecCell | FactoryCell


def _hash(content: dict[str, Any]) -> str:
    text = json.dumps({**content, "versions": _read_versions()}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _read_versions() -> dict[str, str]:
    """Return what the bits of a result depend on; looking it up takes 2 ms, so once."""
    return {"chainrule": read_version(), "torch": version("torch")}


def _check_whole(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SweepError(
            f"{name}: must be a whole number from {low} to {high}; got {abbreviate(value)}."
        )


def list_axes(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the settings that differ between cells, in their order.

    A `weight_std` that follows from a weight scale is left out.

    Example:
        >>> list_axes([SpecCell(NetworkSpec(depth=depth)) for depth in (2, 3)])
        ['depth']
    """
    return list_differing([cell.settings for cell in cells])


def list_differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the settings that differ between cells; see `list_axes`."""
    names = dict.fromkeys(name for row in rows for name in row)
    nothing = math.nan  # equal to no value
    return [
        name
        for name in names
        if len({repr(row.get(name, nothing)) for row in rows}) > 1
        and not (name == "weight_std" and all(map(_is_scaled, rows)))
    ]


def _is_scaled(row: Mapping[str, Any]) -> bool:
    """Return whether the `weight_std` of a cell follows from its weight scale."""
    values = [row.get(name) for name in ("weight_scale", "weight_std", "width")]
    numbers = [each for each in values if isinstance(each, int | float)]
    return len(numbers) == 3 and _is_scale(*numbers)


def _is_scale(scale: object, weight_std: float, width: float) -> bool:
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        return False
    return width >= 0 and math.isclose(scale, weight_std * math.sqrt(width), rel_tol=1e-9)
