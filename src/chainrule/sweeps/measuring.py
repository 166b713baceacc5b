"""Measuring one cell, in whatever process and thread an executor runs it.

Nothing here depends on other cells: one intra-op thread computes, random numbers start at the
cell's seed, and what was set before is set again. So the bits are the same everywhere.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chainrule._utils.user_code import find_place
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.errors import ChainruleError, InspectionError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.measure.inspection import describe_error, inspect
from chainrule.measure.simulation import simulate
from chainrule.sweeps.cells import Cell, FactoryCell, SpecCell
from chainrule.sweeps.records import Foreseen, Measured, Outcome, Trained
from chainrule.theory.expected import find_layers_outside
from chainrule.theory.prediction import predict
from chainrule.training.training import TRAINED, train

MAX_MESSAGE = 2000
"""Longest error that is kept, in characters."""


def measure_cell(cell: Cell) -> tuple[Outcome, float]:
    """Return what becomes of a cell, and the seconds it took; an error is an outcome."""
    begin = time.perf_counter()
    try:
        with _use_one_thread():
            outcome = _measure_spec(cell) if isinstance(cell, SpecCell) else _measure_model(cell)
    except ChainruleError as error:
        text = f"{str(error)[:MAX_MESSAGE]}{_describe_place(error)}"
        outcome = Outcome(error=text)
    except (Exception, SystemExit) as error:
        text = f"The cell must run without errors, but raised {describe_error(error)}."
        outcome = Outcome(error=f"{text[:MAX_MESSAGE]}{_describe_place(error)}")
    return outcome, time.perf_counter() - begin


def _describe_place(error: BaseException) -> str:
    """Return the line of the factory's code that made an error: the same text on all machines."""
    place = find_place(error)
    if place is None:
        return ""
    inside = f", in {place.function}" if place.function else ""
    return f" ({Path(place.file).name}, line {place.line}{inside}: {place.text})"


def _measure_spec(cell: SpecCell) -> Outcome:
    flow = simulate(cell.spec, cell.seeds)
    return Outcome(measured=_summarize(flow), foreseen=_foresee(cell, flow), trained=_train(cell))


def _measure_model(cell: FactoryCell) -> Outcome:
    with _draw_from(cell.seed):
        built = cell.factory(**cell.arguments)
        if not isinstance(built, tuple) or len(built) not in (2, 3):
            raise InspectionError(
                "A factory must return (model, compute_loss) or (model, compute_loss, optimizer); "
                f"got {type(built).__name__}."
            )
        return Outcome(measured=_summarize(inspect(*built)))


def _summarize(flow: GradientFlow) -> Measured:
    diagnosis = diagnose(flow)
    viability = diagnosis.viability
    return Measured(
        verdict=str(diagnosis.verdict),
        rules=tuple(dict.fromkeys(each.rule for each in diagnosis.findings)),
        loss=float(flow.loss),
        gradient_norm=_read(flow.gradient_norm),
        gradient_ratio=_read(flow.gradient_ratio),
        delta_ratio=_read(flow.delta_ratio),
        weight_gradient_norms=tuple(map(_read, flow.weight_gradient_norms)),
        delta_norms=tuple(map(_read, flow.delta_norms)),
        sgd=viability.sgd.probability,
        adam=viability.adam.probability,
    )


def _foresee(cell: SpecCell, flow: GradientFlow) -> Foreseen | None:
    prediction = predict(cell.spec, cell.seeds)
    bands = tuple(prediction.list_bands())
    scales = prediction.depth_scales
    if scales is None and not any(bands) and not prediction.missing:
        return None
    norms = [_read(each) for each in flow.weight_gradient_norms]
    outside = tuple(find_layers_outside(prediction.weight_gradient_norms, norms))
    return Foreseen(
        weight_gradient_bands=bands,
        layers_outside=outside if any(bands) else None,
        chi=None if scales is None else scales.chi,
        depth_scale=None if scales is None else scales.reach,
        missing=prediction.missing,
        delta_bands=tuple(prediction.list_bands("delta")),
    )


def _train(cell: SpecCell) -> Trained | None:
    plan = cell.training
    if plan is None:
        return None
    records = train(
        cell.spec,
        optimizer=plan.optimizer,
        learning_rate=plan.learning_rate,
        steps=plan.steps,
        every=plan.steps,
    )
    *_, last = records
    return Trained(
        optimizer=plan.optimizer,
        steps=last.step,
        loss=last.loss,
        accuracy=last.accuracy,
        diverged=last.diverged,
        trained=last.accuracy > TRAINED and not last.diverged,
    )


def _read(quantity: Quantity | None) -> float | None:
    return None if quantity is None else float(quantity)


@dataclass(slots=True)
class _Threads:
    """How many cells this process measures now, and what it had before the first of them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: int = 0
    before: int = 0


_threads = _Threads()
_drawing = threading.Lock()
"""Random states belong to the process: one cell with a factory at a time."""


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Compute with one intra-op thread, and restore what was set before the first cell began."""
    with _threads.lock:
        if _threads.running == 0:
            _threads.before = torch.get_num_threads()
        _threads.running += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads.lock:
            _threads.running -= 1
            torch.set_num_threads(_threads.before)  # of this thread; others have their own


@contextmanager
def _draw_from(seed: int) -> Iterator[None]:
    """Start the random numbers of PyTorch, NumPy and Python at a seed, and restore them."""
    with _drawing:
        states: tuple[Any, Any] = random.getstate(), np.random.get_state()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            try:
                yield
            finally:
                random.setstate(states[0])
                np.random.set_state(states[1])
