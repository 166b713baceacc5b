"""The rows of a run file: several steps, or several samples, as one packed piece, and back.

What is kept exactly: step numbers, losses, total norms, logged numbers, learning rates, scales.
Times are kept to a microsecond. The norm of each tensor at each step is rounded; how much, a piece
says itself (`StepTable.precision`). Sampled norms are kept like float32, what was sampled of layers
to 2^−9. No step is left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from chainrule.watch.packing import (
    EXACT,
    DamagedError,
    Floats,
    Integers,
    is_nothing,
    make_table,
    pack_floats,
    pack_integers,
    pack_parts,
    unpack_floats,
    unpack_integers,
    unpack_parts,
)
from chainrule.watch.records import LayerSample, Sample, StepRecord

NORM_BITS = 6
"""Most bits kept of a step's norms: a relative error of at most 2^−7 = 0.8 %."""

LEAST_NORM_BITS = 2
"""Fewest bits kept of them: a relative error of at most 2^−3 = 12.5 %."""

NORM_BYTES = 0.6
"""Bytes that a norm of one tensor at one step may take once steps are packed together.

The noisier the norms, the fewer bits are kept: what is rounded away stays well below the noise.
"""

SAMPLE_BITS = 23
"""Bits kept of sampled norms of weights and updates, as many as float32 has."""

LAYER_BITS = 8
"""Bits kept of what was sampled of layers: a relative error of at most 2^−9 = 0.2 %."""

_STEP_FIELDS = ("total_norm", "clipped_from", "loss", "scale")
_LAYER_FIELDS = (
    *("mean", "std", "delta_norm", "saturation", "dead_units", "zero_share", "subnormal_share"),
)
_NEEDED = frozenset({"mean", "std"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """Steps as columns.

    Attributes:
        steps: The step numbers [steps].
        seconds: Time since the run began [steps].
        norms: ‖gradient‖ of each parameter [steps, parameters].
        fields: total_norm, clipped_from, loss and scale, each [steps]; `NOTHING` for `None`.
        scalars: Other logged numbers, each [steps]; `NOTHING` where nothing was logged.
        rates: Learning rates [steps, groups]; `NOTHING` behind the last group.
        skipped: Why the optimizer did not step, by position.
        bad_ranks: The process in which a gradient was not finite, by position.
        precision: Bits kept of `norms`.
    """

    steps: Integers
    seconds: Floats
    norms: Floats
    fields: Mapping[str, Floats]
    scalars: Mapping[str, Floats]
    rates: Floats
    skipped: Mapping[int, str]
    bad_ranks: Mapping[int, int]
    precision: int = NORM_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """Samples of the same layers as columns.

    Attributes:
        steps: The step numbers [samples].
        weight_norms: ‖W‖ of each parameter [samples, parameters].
        update_norms: ‖ΔW‖ of each parameter [samples, parameters].
        layers: Name and kind of each layer.
        values: Per field of `LayerSample` its numbers [samples, layers]; `NOTHING` for `None`.
        non_finite: Counts of values that are not finite [samples, layers].
        missing: Why there are no layers.
    """

    steps: Integers
    weight_norms: Floats
    update_norms: Floats
    layers: tuple[tuple[str, str], ...]
    values: Mapping[str, Floats]
    non_finite: Integers
    missing: str = ""


def describe_layers(sample: Sample) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return what samples must share to be packed together."""
    return tuple((each.name, each.kind) for each in sample.layers), sample.missing


def pack_steps(records: Sequence[StepRecord], *, together: bool = False) -> bytes:
    """Return steps as one piece.

    Args:
        records: At least one; the norms of all have one length.
        together: Whether this is their last form: then each norm takes at most `NORM_BYTES`, and
            is rounded as far as that needs.
    """
    level = 6 if together else 1
    names = list(dict.fromkeys(name for each in records for name in each.scalars))
    groups = max(len(each.rates) for each in records)
    table = make_table(
        [
            [
                *(getattr(each, name) for name in _STEP_FIELDS),
                *(each.scalars.get(name) for name in names),
                *each.rates,
            ]
            for each in records
        ],
        len(_STEP_FIELDS) + len(names) + groups,
    )
    head = {
        "scalars": names,
        "skipped": {index: each.skipped for index, each in enumerate(records) if each.skipped},
        "bad_ranks": {
            index: each.bad_rank for index, each in enumerate(records) if each.bad_rank is not None
        },
    }
    micros = [round(each.seconds * 1e6) for each in records]
    whole = np.array([[each.step for each in records], micros], np.int64).T
    norms = np.array([each.grad_norms for each in records], np.float64)
    bits = _choose_bits(norms) if together and norms.size else NORM_BITS
    packed = pack_floats(norms, bits, level)
    while together and bits > LEAST_NORM_BITS and len(packed) > NORM_BYTES * norms.size + 256:
        bits -= 1
        packed = pack_floats(norms, bits, level)
    return pack_parts(head, [pack_integers(whole, level), pack_floats(table, EXACT, level), packed])


def _choose_bits(norms: Floats) -> int:
    """Return how many bits fit into `NORM_BYTES`, judged by a part of the tensors."""
    part = np.ascontiguousarray(norms[:, :: max(norms.shape[1] // 32, 1)])
    size = len(pack_floats(part, NORM_BITS)) - 256
    excess = math.floor(8 * (size / part.size - NORM_BYTES))  # a bit of each is 1/8 byte of each
    return min(max(NORM_BITS - excess, LEAST_NORM_BITS), NORM_BITS)


def unpack_steps(data: bytes, parameters: int, *, norms: bool = True) -> StepTable:
    """Return the steps of one piece.

    Args:
        data: What `pack_steps` gave.
        parameters: Number of parameters of the run.
        norms: Whether the norms are wanted; without them `norms` has no columns.

    Raises:
        DamagedError: If it is damaged.
    """
    head, parts = unpack_parts(data)
    if len(parts) != 3:
        raise DamagedError("a row of steps has three tables")
    whole, table = unpack_integers(parts[0]), unpack_floats(parts[1])[0]
    matrix, precision = unpack_floats(parts[2]) if norms else (np.empty((len(whole), 0)), 0)
    names = _read_texts(head.get("scalars"))
    first = len(_STEP_FIELDS) + len(names)
    count = len(whole)
    if (
        (whole.shape[1:], matrix.shape) != ((2,), (count, parameters * norms))
        or len(table) != count
        or table.shape[1] < first
        or not _grow(whole[:, 0])
    ):
        raise DamagedError("the tables of a row do not fit each other")
    columns = [np.ascontiguousarray(column) for column in table.T[:first]]
    return StepTable(
        steps=whole[:, 0],
        seconds=whole[:, 1] / 1e6,
        norms=matrix,
        fields=dict(zip(_STEP_FIELDS, columns, strict=False)),
        scalars=dict(zip(names, columns[len(_STEP_FIELDS) :], strict=True)),
        rates=np.ascontiguousarray(table[:, first:]),
        skipped=_read_places(head.get("skipped"), str),
        bad_ranks=_read_places(head.get("bad_ranks"), int),
        precision=precision,
    )


def count_parameters(data: bytes) -> int:
    """Return how many parameters a piece of steps has norms of.

    Raises:
        DamagedError: If it is damaged.
    """
    _, parts = unpack_parts(data)
    return int(unpack_floats(parts[-1])[0].shape[1]) if parts else 0


def list_steps(table: StepTable, after: int = 0) -> list[StepRecord]:
    """Return the steps of a table as records, those after a step."""
    start = int(np.searchsorted(table.steps, after, side="right"))
    table.norms.flags.writeable = False
    fields = {name: _to_optional(values) for name, values in table.fields.items()}
    scalars = {name: _to_optional(values) for name, values in table.scalars.items()}
    groups = (~is_nothing(table.rates)).sum(axis=1).tolist()
    rates = table.rates.tolist()
    steps, seconds = table.steps.tolist(), table.seconds.tolist()
    return [
        StepRecord(
            step=steps[index],
            seconds=seconds[index],
            grad_norms=table.norms[index],
            total_norm=_fill(fields["total_norm"][index]),
            clipped_from=fields["clipped_from"][index],
            loss=fields["loss"][index],
            scalars=MappingProxyType(
                {name: value for name, values in scalars.items()
                 if (value := values[index]) is not None}
            ),
            rates=tuple(rates[index][: groups[index]]),
            scale=fields["scale"][index],
            skipped=table.skipped.get(index, ""),
            bad_rank=table.bad_ranks.get(index),
        )
        for index in range(start, len(steps))
    ]  # fmt: skip


def pack_samples(samples: Sequence[Sample], *, together: bool = False) -> bytes:
    """Return samples of the same layers as one piece.

    Args:
        samples: At least one; all have the same layers (`describe_layers`).
        together: Whether this is their last form.
    """
    level = 6 if together else 1
    layers, missing = describe_layers(samples[0])
    values = make_table(
        [
            [getattr(layer, name) for name in _LAYER_FIELDS for layer in each.layers]
            for each in samples
        ],
        len(_LAYER_FIELDS) * len(layers),
    )
    counts = np.array([[layer.non_finite for layer in each.layers] for each in samples], np.int64)
    parts = [
        pack_integers(np.array([[each.step] for each in samples], np.int64), level),
        pack_floats(np.array([each.weight_norms for each in samples]), SAMPLE_BITS, level),
        pack_floats(np.array([each.update_norms for each in samples]), SAMPLE_BITS, level),
        pack_floats(values, LAYER_BITS, level, signed=True),
        pack_integers(counts.reshape(len(samples), len(layers)), level),
    ]
    return pack_parts({"layers": [list(each) for each in layers], "missing": missing}, parts)


def unpack_samples(data: bytes, parameters: int) -> SampleTable:
    """Return the samples of one piece.

    Args:
        data: What `pack_samples` gave.
        parameters: Number of parameters of the run.

    Raises:
        DamagedError: If it is damaged.
    """
    head, parts = unpack_parts(data)
    if len(parts) != 5:
        raise DamagedError("a row of samples has five tables")
    steps, counts = unpack_integers(parts[0]), unpack_integers(parts[4])
    weights, updates, values = (unpack_floats(each)[0] for each in parts[1:4])
    listed, missing = head.get("layers"), head.get("missing")
    if not isinstance(listed, list) or not isinstance(missing, str):
        raise DamagedError("a row of samples names its layers")
    pairs = [_read_texts(each) for each in listed]
    count, width = len(steps), len(pairs)
    shapes = [each.shape for each in (steps, weights, updates, values, counts)]
    wanted = [
        *((count, 1), (count, parameters), (count, parameters)),
        *((count, width * len(_LAYER_FIELDS)), (count, width)),
    ]
    if shapes != wanted or any(len(each) != 2 for each in pairs) or not _grow(steps[:, 0]):
        raise DamagedError("the tables of a row do not fit each other")
    split = values.reshape(count, len(_LAYER_FIELDS), width)
    return SampleTable(
        steps=steps[:, 0],
        weight_norms=weights,
        update_norms=updates,
        layers=tuple((name, kind) for name, kind in pairs),
        values={
            name: np.ascontiguousarray(split[:, place]) for place, name in enumerate(_LAYER_FIELDS)
        },
        non_finite=counts,
        missing=missing,
    )


def list_samples(table: SampleTable, after: int = 0) -> list[Sample]:
    """Return the samples of a table as records, those after a step."""
    start = int(np.searchsorted(table.steps, after, side="right"))
    table.weight_norms.flags.writeable = table.update_norms.flags.writeable = False
    found = []
    for index in range(start, len(table.steps)):
        columns = {name: _to_optional(table.values[name][index]) for name in _LAYER_FIELDS}
        layers = tuple(
            LayerSample(
                name=name,
                kind=kind,
                non_finite=int(table.non_finite[index, place]),
                **{
                    field: _fill(values[place]) if field in _NEEDED else values[place]
                    for field, values in columns.items()
                },  # type: ignore[arg-type]
            )
            for place, (name, kind) in enumerate(table.layers)
        )
        found.append(
            Sample(
                step=int(table.steps[index]),
                weight_norms=table.weight_norms[index],
                update_norms=table.update_norms[index],
                layers=layers,
                missing=table.missing,
            )
        )
    return found


def _to_optional(values: Floats) -> list[float | None]:
    numbers: list[Any] = values.tolist()
    for index in np.flatnonzero(is_nothing(np.ascontiguousarray(values))):
        numbers[index] = None
    return numbers


def _fill(value: float | None) -> float:
    return float("nan") if value is None else value


def _grow(steps: Integers) -> bool:
    return len(steps) > 0 and steps[0] > 0 and bool(np.all(np.diff(steps) > 0))


def _read_texts(listed: Any) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise DamagedError("a list of names is none")
    return listed


def _read_places(entries: Any, kind: type) -> dict[int, Any]:
    """Return what stands at some positions; JSON has texts for them."""
    if not isinstance(entries, dict):
        raise DamagedError("a list of exceptions is none")
    try:
        places = {int(place): value for place, value in entries.items()}
    except ValueError:
        raise DamagedError("a position is no number") from None
    if not all(type(value) is kind for value in places.values()):
        raise DamagedError("an exception is of another kind")
    return places
