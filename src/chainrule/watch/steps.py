"""A step from its first hook to its record."""

import math
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chainrule.errors import WatchError, abbreviate
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.statistics import is_cheap_to_read
from chainrule.watch.gradients import Lagged, Values, take_local
from chainrule.watch.history import BadInput
from chainrule.watch.records import ABSENT, LayerSample, StepRecord
from chainrule.watch.sampling import UpdateMeter
from chainrule.watch.standing import Standing

_ROUNDING = 1e-4
"""Relative difference of two norms of the same gradients, by rounding."""


@dataclass(slots=True, eq=False)
class Step:
    """A step that is not over yet; its numbers may still be on the device."""

    number: int
    seconds: float
    is_sampled: bool
    is_measured: bool = False
    is_begun: bool = False  # it is being read, or was
    is_cut: bool = False  # that it is read for a second time: Ctrl-C came while it was
    is_whole: bool = True
    norms: list[tuple[Any, Lagged, Lagged | None]] = field(default_factory=list)
    stepped: set[int] = field(default_factory=set)
    rates: tuple[float, ...] = ()
    scale: Lagged | float | None = None
    skipped: str = ""
    found_bad: Lagged | None = None
    clips: list[tuple[list[int], Lagged]] = field(default_factory=list)
    clip_scale: bool = False
    arrived: Lagged | None = None
    local: Lagged | None = None
    logs: list[Mapping[str, Lagged | float]] = field(default_factory=list)
    meters: list[UpdateMeter] = field(default_factory=list)
    layers: Callable[[], tuple[LayerSample, ...]] | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)
    flow: GradientFlow | None = None
    loss: list[float] = field(default_factory=list)
    standing: Standing | None = None
    leftovers: list[Callable[[], bool | None]] = field(default_factory=list)
    idle_units: list[tuple[list[tuple[int, int]], Lagged]] = field(default_factory=list)
    bad_input: BadInput | None = None
    has_sound_input: bool = False


def make_record(
    step: Step, held: NDArray[np.bool_], find_bad_rank: Callable[[float], int | None]
) -> StepRecord:
    """Read the numbers of a step that is over.

    Args:
        step: The step.
        held: Which parameters of the run an optimizer holds; only these make the total norm.
        find_bad_rank: Returns whose gradient was not finite, of the total norm.
    """
    norms = np.full(len(held), ABSENT)
    for positions, lagged, factor in step.norms:
        values = lagged.read()
        if factor is not None:
            values = values / factor.read()[0]
        norms[positions] = values
    total = _add_up(norms[held])
    skipped = step.skipped
    if step.found_bad is not None and step.found_bad.read()[0] > 0:
        skipped = "gradient scaler"
    scale = step.scale.read()[0] if isinstance(step.scale, Lagged) else step.scale
    logged = _average_logs(step.logs)
    return StepRecord(
        step=step.number,
        seconds=step.seconds,
        grad_norms=norms,
        total_norm=total,
        clipped_from=_find_clipping(step, norms, scale),
        loss=logged.pop("loss", None),
        scalars=logged,
        rates=step.rates,
        scale=None if scale is None else float(scale),
        skipped=skipped,
        bad_rank=find_bad_rank(total),
    )


def _add_up(norms: Values) -> float:
    """Return the norm of several tensors together."""
    return math.hypot(*[norm for norm in norms.tolist() if not norm < 0])  # undefined ones stay


def _find_clipping(step: Step, norms: Values, scale: float | None) -> float | None:
    """Return the total norm before clipping, if there was any."""
    factor = 1.0 if scale is None else float(scale)
    if step.clips:
        seen: dict[int, float] = {}
        squares = 0.0
        for positions, before in step.clips:
            if not seen.keys() & set(positions):
                squares += float(before.read()[0] / (factor if step.clip_scale else 1.0)) ** 2
                seen.update(dict.fromkeys(positions, 0.0))
        rest = [at for at in range(len(norms)) if at not in seen and norms[at] > 0]
        before_all = math.sqrt(squares + float(norms[rest] @ norms[rest]))
    elif step.arrived is not None:
        before_all = float(step.arrived.read()[0]) / factor
    else:
        return None
    return before_all if before_all > _add_up(norms) * (1 + _ROUNDING) else None


def read_idle_units(step: Step) -> dict[int, float]:
    """Return the share of units without a gradient, by position of the bias that tells."""
    shares: dict[int, float] = {}
    for places, zero in step.idle_units:
        begin, flags = 0, zero.read()
        for at, size in places:
            shares[at] = float(flags[begin : begin + size].mean())
            begin += size
    return shares


def describe_ending(error: BaseException | None, step: int) -> str:
    """Return what stopped a run at a step; "" if it came to its end.

    Args:
        error: What came out of the training, or the end of it that was asked for.
        step: The last step that began.
    """
    if error is None or isinstance(error, GeneratorExit):
        return ""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return ""
    return f"{type(error).__name__} at step {step}"


def make_exit(run: Any) -> Callable[[], None]:
    """Return what closes a run at the end of the process, without keeping it alive."""
    found, owner = weakref.ref(run), os.getpid()

    def close() -> None:
        held = found()
        if held is not None and os.getpid() == owner:  # not at the end of a forked child
            held.close(getattr(sys, "last_value", None))  # an error that nobody caught

    return close


def read_scalars(scalars: Mapping[str, Any]) -> dict[str, Lagged | float]:
    """Return numbers that were logged; those on a device are read later.

    Raises:
        WatchError: If something is not one number.
    """
    found: dict[str, Lagged | float] = {}
    for name, value in scalars.items():
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            detached = take_local(value.detach())
            is_cheap = is_cheap_to_read(detached.device)
            found[name] = float(detached) if is_cheap else Lagged(detached)
        elif isinstance(value, (int, float, np.integer, np.floating)):
            found[name] = _read_float(value)
        elif isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf":
            found[name] = float(value.item())
        else:
            raise WatchError(
                f"log takes numbers and tensors of one number; {name} is "
                f"{_describe_value(value)}. Reduce it first, for example by .mean()."
            )
    return found


def _read_float(value: Any) -> float:
    """Return a number as a float; a whole number beyond the largest float is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _average_logs(logs: Sequence[Mapping[str, Lagged | float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for each in logs:
        for name, value in each.items():
            number = float(value.read()[0]) if isinstance(value, Lagged) else value
            found.setdefault(name, []).append(number)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _describe_value(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return abbreviate(value)
