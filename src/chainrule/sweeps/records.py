"""What a sweep gives back: a result per cell, all of them as rows, and how far a sweep is."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, with_config

from chainrule._utils.files import read_path
from chainrule._utils.numbers import encode_number
from chainrule._utils.tables import check_table, write_table
from chainrule.errors import SweepError

_CLOSED = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

Numbers = tuple[float | None, ...]
Bands = tuple[tuple[float, float, float] | None, ...]


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured in a cell, as medians over its networks.

    Attributes:
        verdict: The verdict of the diagnosis, for example "vanishing".
        rules: The names of the rules that found something, the gravest first.
        loss: The loss.
        gradient_norm: ‖∂𝓛/∂θ‖ of all parameters together.
        gradient_ratio: ‖∂𝓛/∂W‖ of the first weight layer divided by that of the last one.
        delta_ratio: The same for ‖δ‖.
        weight_gradient_norms: ‖∂𝓛/∂W_l‖, l = 1 … L; `None` where there is none.
        delta_norms: ‖δ_l‖.
        sgd: The estimated probability that plain SGD trains the network, `None` where nothing is
            estimated.
        adam: The same for Adam.

    Example:
        >>> Measured.__slots__[0]
        'verdict'
    """

    verdict: str
    rules: tuple[str, ...]
    loss: float
    gradient_norm: float | None
    gradient_ratio: float | None
    delta_ratio: float | None
    weight_gradient_norms: Numbers
    delta_norms: Numbers
    sgd: float | None
    adam: float | None


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What theory says of a cell's specification; see `chainrule.theory.predict`.

    Attributes:
        weight_gradient_bands: Per layer, (low, median, high) of ‖∂𝓛/∂W_l‖; `None` without one.
        layers_outside: Numbers of the layers whose measured median is outside of its band; `None`
            if there is no band.
        chi: χ at the fixed point; `None` where there is none.
        depth_scale: How many layers far the start carries a signal; `None` where unknown.
        missing: What theory does not say, and why.
        delta_bands: Per layer, the same as `weight_gradient_bands` for ‖δ_l‖.

    Example:
        >>> said = Foreseen(
        ...     weight_gradient_bands=(), layers_outside=None, chi=1.0, depth_scale=None, missing=()
        ... )
        >>> said.chi
        1.0
    """

    weight_gradient_bands: Bands
    layers_outside: tuple[int, ...] | None
    chi: float | None
    depth_scale: float | None
    missing: tuple[str, ...]
    delta_bands: Bands = ()


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training a cell's first network on the digits gave.

    Attributes:
        optimizer: "sgd" or "adam".
        steps: Steps that were taken.
        loss: Cross entropy at the end.
        accuracy: Share of the training examples that the network names right, in [0, 1].
        diverged: Whether the loss became infinite or undefined.
        trained: Whether the accuracy is above that of a trained network.

    Example:
        >>> end = Trained(
        ...     optimizer="sgd", steps=9, loss=0.1, accuracy=0.9, diverged=False, trained=True
        ... )
        >>> end.trained
        True
    """

    optimizer: str
    steps: int
    loss: float
    accuracy: float
    diverged: bool
    trained: bool


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a cell: the same bits wherever and however often it is measured.

    Attributes:
        error: Why it could not be measured; "" if it was.
        measured: What was measured; `None` after an error.
        foreseen: What theory says; `None` for a factory, or if it says nothing at all.
        trained: What training gave; `None` if none was asked for.

    Example:
        >>> Outcome(error="No.").measured is None
        True
    """

    error: str = ""
    measured: Measured | None = None
    foreseen: Foreseen | None = None
    trained: Trained | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell of a sweep, with what became of it.

    Two results are equal if cell and outcome are; time and origin do not count.

    Attributes:
        address: The address of the cell's content.
        settings: Its settings by name, as they are.
        seed: Its first seed.
        seeds: Number of networks in it.
        outcome: What became of it.
        seconds: How long it took.
        kept: Whether it was found in the store.

    Example:
        >>> result = CellResult(
        ...     address="a", settings={"depth": 2}, seed=0, seeds=1, outcome=Outcome(error="No.")
        ... )
        >>> result.status
        'failed'
    """

    address: str
    settings: Mapping[str, Any]
    seed: int
    seeds: int
    outcome: Outcome
    seconds: float = field(default=0.0, compare=False)
    kept: bool = field(default=False, compare=False)

    @property
    def status(self) -> Literal["measured", "failed"]:
        """Whether it was measured."""
        return "failed" if self.outcome.error else "measured"

    def read_setting(self, name: str) -> Any:
        """Return a setting; by the name "seed" the first seed, unless a setting is called so."""
        return self.settings.get(name, self.seed if name == "seed" else None)

    def to_record(self) -> dict[str, Any]:
        """Return the cell as one flat row: settings, status, and every single value.

        A setting that is called as one of the values ("loss") is the column "setting_loss".
        """
        measured, foreseen, trained = (
            self.outcome.measured,
            self.outcome.foreseen,
            self.outcome.trained,
        )
        row: dict[str, Any] = {name_setting(name): self.settings[name] for name in self.settings}
        row |= {"seed": self.seed, "seeds": self.seeds}
        row |= {"status": self.status, "error": self.outcome.error or None}
        for name in _MEASURED:
            row[name] = None if measured is None else getattr(measured, name)
        row["rules"] = None if measured is None else " ".join(measured.rules)
        for name in ("chi", "depth_scale"):
            row[name] = None if foreseen is None else getattr(foreseen, name)
        outside = None if foreseen is None else foreseen.layers_outside
        row["layers_outside_theory"] = None if outside is None else len(outside)
        for name in _TRAINED:
            row[f"training_{name}"] = None if trained is None else getattr(trained, name)
        row["address"] = self.address
        return row


_MEASURED = (*("verdict", "loss", "gradient_norm", "gradient_ratio", "delta_ratio", "sgd", "adam"),)
_TRAINED = ("optimizer", "steps", "loss", "accuracy", "diverged", "trained")
_OWN = frozenset(
    {
        *("seed", "seeds", "status", "error", "rules", "chi", "depth_scale"),
        *("layers_outside_theory", "address", *_MEASURED),
        *(f"training_{name}" for name in _TRAINED),
    }
)
"""Columns that every row has: a factory may have arguments of these names."""


def name_setting(name: str) -> str:
    """Return the column of a setting: its name, or "setting_…" where that is a value's.

    Example:
        >>> name_setting("width"), name_setting("loss")
        ('width', 'setting_loss')
    """
    return f"setting_{name}" if name in _OWN else name


@dataclass(frozen=True, slots=True)
class Sweep:
    """The results of a sweep, in the order of its cells.

    Attributes:
        results: One per cell; cells with the same address have the same result.

    Example:
        >>> Sweep(()).to_records()
        []
    """

    results: tuple[CellResult, ...]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[CellResult]:
        return iter(self.results)

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """The cells that could not be measured."""
        return tuple(each for each in self.results if each.status == "failed")

    def to_records(self) -> list[dict[str, Any]]:
        """Return one flat row per cell, each with the same columns, as for a data frame."""
        rows = [each.to_record() for each in self.results]
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def to_json(self) -> list[dict[str, Any]]:
        """Return `to_records` as JSON can hold it: infinite and undefined numbers as text."""
        return [
            {
                name: encode_number(value) if isinstance(value, float) else value
                for name, value in row.items()
            }
            for row in self.to_records()
        ]

    def write(self, path: str | os.PathLike[str]) -> int:
        """Write `to_records` to a file ending with .csv or .parquet, and return the rows.

        Raises:
            SweepError: If it has another ending, or no package for Parquet is installed.
            FlowFileError: If the file cannot be written.
        """
        return write_rows(path, self.to_records())


def write_rows(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> int:
    """Write flat rows, one per cell, to a file ending with .csv or .parquet; return how many.

    Raises:
        SweepError: If it has another ending, or no package for Parquet is installed.
        FlowFileError: If the file cannot be written.
    """
    target = read_path(path)
    check_table(target, SweepError)
    head = list(rows[0]) if rows else ["address"]
    mixed = {name for name in head if _is_mixed([row[name] for row in rows])}
    return write_table(
        target,
        head,
        (
            [str(row[n]) if n in mixed and row[n] is not None else row[n] for n in head]
            for row in rows
        ),
        SweepError,
    )


def _is_mixed(values: list[Any]) -> bool:
    """Return whether a column holds text and other things, which a Parquet file cannot."""
    kinds = {type(value) for value in values if value is not None}
    return len(kinds) > 1 and not kinds <= {int, float}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done: Cells that have a result, those found in the store included.
        total: Cells in all.
        kept: Cells that were found in the store.
        failed: Cells that could not be measured.
        seconds: Time since the start.
        note: What just happened, in a sentence; "" if nothing unusual did.
        first: Cells that were measured at the first report of some.
        first_seconds: When that was, from the start: workers start until then.

    Example:
        >>> progress = Progress(
        ...     done=30, total=40, kept=10, failed=0, seconds=9.0, first=4, first_seconds=1.0
        ... )
        >>> progress.seconds_left
        5.0
    """

    done: int
    total: int
    kept: int
    failed: int
    seconds: float
    note: str = ""
    first: int = 0
    first_seconds: float = 0.0

    @property
    def seconds_left(self) -> float:
        """How long the rest takes at the mean speed since the first results.

        It is infinite until two more cells are measured.
        """
        if self.done >= self.total:
            return 0.0
        later = self.done - self.kept - self.first
        if not self.first or later < 2:
            return math.inf
        return (self.seconds - self.first_seconds) / later * (self.total - self.done)


_outcomes = TypeAdapter(Outcome)


def write_outcome(outcome: Outcome) -> str:
    """Return an outcome as JSON text."""
    return _outcomes.dump_json(outcome).decode()


def read_outcome(text: str) -> Outcome:
    """Return the outcome that `write_outcome` wrote, bit for bit.

    Raises:
        ValueError: If the text holds none.
    """
    return _outcomes.validate_json(text)
