"""Rules about the step: a rate too high or too low, weights that do not move, lost parameters."""

import math

import numpy as np
from numpy.typing import NDArray

from chainrule._utils.numbers import format_number
from chainrule.watch.epsilons import describe_lost_epsilon
from chainrule.watch.gradient_rules import (
    STILL,
    is_untrained,
    is_warming,
    name_layer,
)
from chainrule.watch.history import DEAD, History
from chainrule.watch.records import ABSENT, NO_MODULE, Evidence, Sample
from chainrule.watch.rule import Bound, Finding, Rule

REPLACED = 1.0
"""‖ΔW‖ ÷ ‖W‖ of all weights together above which a step replaces what was there."""

WORSE = 1.5
"""Loss ÷ first loss above which such a step has done harm."""

RISING = 7
"""Steps in a row of which all but one must rise: by chance one of 600 such rows does."""

TENFOLD = 10.0
"""By which loss or norm must have grown in these steps."""

SOON = 20
"""Steps within which updates are added up."""

FAR = 5.0
"""Loss ÷ first loss, in most of the last steps, that a run does not come back from by itself."""

FALLEN, FALLEN_STEPS = 1e-3, 20
"""Learning rate ÷ largest one so far, and steps of so little that are no end of a schedule."""

BEFORE, AT_ONCE = 10, 4
"""Steps of ordinary rates, and steps within which a raised rate shows what it does."""

LATE = 5
"""Steps of a learning rate of zero, or without an update, that no schedule needs to begin."""

LOST_STEPS = 8
"""Steps with a gradient, and without an optimizer, of parameters of which the others are held."""

MOST = 0.5
"""Share of the numbers that get gradients, of which an optimizer holds so many by intention."""

IDLE = 3
"""Steps without a gradient and without a module that runs."""

SPREAD = 1e-5
"""Relative difference of a norm between processes: rounding of float32 is 6·10⁻⁸."""


def measure_step(history: History, sample: Sample) -> float | None:
    """Return ‖ΔW‖ ÷ ‖W‖ of all weights together; `None` if it is unknown."""
    known = history.is_weight & (sample.update_norms >= 0.0) & (sample.weight_norms > 0.0)
    if not known.any():
        return None
    size = float(np.sqrt(np.square(sample.weight_norms[known]).sum()))
    step = float(np.sqrt(np.square(sample.update_norms[known]).sum()))
    return step / size if size > 0.0 else None


def _find_rate_too_high(history: History) -> Finding | None:
    if _is_gone(history) and describe_lost_epsilon(history):
        return None  # its step divided by 0, at any rate
    return (
        _find_growth(history)
        or _find_replaced(history)
        or _find_raised(history)
        or _find_killed(history)
        or _find_far(history)
    )


def _find_growth(history: History) -> Finding | None:
    """Return that loss or norm grows by a factor, step after step."""
    totals, losses = history.get_totals(RISING + 1), history.get_losses(RISING + 1)
    if not history.has_one_loss:  # what one part gains there, the other one loses
        losses = np.full(len(losses), np.nan)
    for name, values in (("loss", losses), ("norm of all gradients", totals)):
        if name != "loss" and history.has_loss and not _is_worse(history):
            continue
        found = _measure_rise(values)
        if found is None or found < TENFOLD or (name == "loss" and not _is_worse(history)):
            continue
        older = (history.get_losses() if name == "loss" else history.get_totals())[: -len(values)]
        older = older[np.isfinite(older)]
        if len(older) and not values[np.isfinite(values)][-1] > WORSE * older.max():
            continue
        factor = found ** (1.0 / (len(values) - 1))
        return Finding(
            value=found,
            bound=TENFOLD,
            summary=f"In the {len(values) - 1} steps up to step {history.step} the {name} grew "
            f"{format_number(found)}-fold, by {format_number(factor)} per step.",
            evidence=_show_step(history),
        )
    return None


def _measure_rise(values: NDArray[np.float64]) -> float | None:
    """Return last ÷ first if all but one step of a row rise, or the numbers ran out of range.

    A run that goes to infinity in fewer steps counts from three on.
    """
    known = values[np.isfinite(values)]
    if len(known) < 3 or not (known > 0.0).all():
        return None
    gone = not np.isfinite(values[-1]) and len(known) < len(values)
    if len(values) < RISING + 1 and not (gone or known[-1] > 1e6 * known[0]):
        return None
    rises = np.diff(np.log(known))
    if (rises <= 0.0).sum() > (1 if len(rises) >= RISING - 1 else 0):
        return None
    return float(known[-1] / known[0])


def _is_worse(history: History) -> bool:
    start, losses = history.start_loss, history.get_losses(3)
    known = losses[np.isfinite(losses)]
    if start is None or not len(known):
        return not history.has_loss
    return float(known[-1]) > WORSE * max(abs(start), min(history.first_loss, key=abs))


def _find_replaced(history: History) -> Finding | None:
    """Return that a step was larger than the weights, and the loss is worse since."""
    for sample in reversed(history.samples):
        if sample.step < history.step - 10:
            break
        ratio = measure_step(history, sample)
        if ratio is None or not ratio > REPLACED or history.step <= sample.step:
            continue
        if not _was_finite(history, sample.step):  # no rate would have done
            continue
        losses = history.get_losses(min(10, history.step - sample.step))
        first = history.first_loss[0] if history.first_loss else math.nan
        if not _is_harm(losses, first, history):
            continue
        last = _get_loss(history)
        return Finding(
            value=ratio,
            bound=REPLACED,
            layer=_find_fastest(history, sample),
            summary=f"At step {sample.step} the update was {format_number(ratio)} times as large "
            f"as the weights. The loss is now {format_number(last)}; at the first step "
            f"it was {format_number(first)}.",
            evidence=_show_step(history),
        )
    return None


def _was_finite(history: History, step: int) -> bool:
    """Return whether the gradient of a step, and its loss if one is logged, were finite."""
    back = history.step - step + 1
    values = [history.get_totals(back)[:1]]
    if history.has_loss:
        values.append(history.get_losses(back)[:1])
    return bool(np.isfinite(np.concatenate(values)).all())


def _is_harm(losses: NDArray[np.float64], usual: float, history: History) -> bool:
    """Return whether losses are worse than a usual one by far, or not finite though logged."""
    known = losses[np.isfinite(losses)]
    if len(known):
        return float(np.median(known)) > WORSE * abs(usual)
    return _is_gone(history)


def _is_gone(history: History) -> bool:
    """Return whether the last step's loss, or a gradient of it, is not finite."""
    record = history.record
    if record is None or record.skipped or history.bad_input is not None:
        return False
    return not record.finite or (record.loss is not None and not math.isfinite(record.loss))


def _get_loss(history: History) -> float:
    record = history.record
    return math.nan if record is None or record.loss is None else record.loss


def _find_raised(history: History) -> Finding | None:
    """Return that the loss left its history, or all numbers, just after the rate was raised."""
    rates, losses = history.get_rates(), history.get_losses()
    if len(rates) <= BEFORE + AT_ONCE or not np.isfinite(rates).all():
        return None
    start = len(rates) - AT_ONCE - 1
    usual = float(rates[start - BEFORE : start].max())
    raised = rates[start:-1] >= TENFOLD * usual
    if not usual > 0.0 or not raised.any():
        return None
    first = start + int(raised.argmax())
    old, new = losses[max(0, first - 64) : first + 1], losses[first + 1 :]
    if not np.isfinite(old).all() and history.has_loss:
        return None
    is_worse = len(new) >= 3 and bool((new > WORSE * old.max()).all())
    if not is_worse and not _is_gone(history):
        return None
    rate, step = float(rates[first]), history.step - len(rates) + 1 + first
    return Finding(
        value=rate / usual,
        bound=TENFOLD,
        summary=f"At step {step} the learning rate rose from {format_number(usual)} to "
        f"{format_number(rate)}, and at step {history.step} the loss is "
        f"{format_number(_get_loss(history))}.",
        cause="A schedule, or something else, raised the learning rate in mid-run further than the "
        "loss allows.",
        action="Look at what sets the learning rate: let it restart at a rate with which the run "
        "has trained, or warm up again.",
        evidence=_show_step(history),
    )


def _find_killed(history: History) -> Finding | None:
    """Return that most units of a layer died while a few steps moved the weights by their size."""
    now = history.samples[-1] if history.samples else None
    if now is None or now.step < history.step - 1:
        return None
    dead = {each.name for each in now.layers if (each.dead_units or 0.0) >= DEAD}
    moved: list[float] = []
    for sample in list(history.samples)[-2::-1]:
        elapsed = now.step - sample.step
        if elapsed > SOON or not dead:
            break
        ratio = measure_step(history, sample)
        moved.append(0.0 if ratio is None else ratio)
        alive = [x.name for x in sample.layers if x.name in dead and (x.dead_units or 0.0) < 0.5]
        value = elapsed * sum(moved) / len(moved)
        if alive and value > REPLACED:
            return Finding(
                value=value,
                bound=REPLACED,
                layer=alive[0],
                summary=f"From step {sample.step} to {now.step} the updates were "
                f"{format_number(value)} times as large as the weights, and meanwhile the units of "
                f"{alive[0]!r} died.",
                evidence=_show_step(history),
            )
    return None


def _find_far(history: History) -> Finding | None:
    """Return that the loss stays far above where it began."""
    start = history.start_loss
    if start is None or start <= 0.0 or history.count < 8 or not history.has_one_loss:
        return None
    losses = history.get_losses(8)
    known = losses[np.isfinite(losses)]
    if len(known) < 8 or (known > FAR * start).sum() < 6:
        return None
    value = float(np.median(known)) / start
    return Finding(
        value=value,
        bound=FAR,
        summary=f"In the last 8 steps up to step {history.step} the loss was "
        f"{format_number(value)} times what it was at first.",
        evidence=_show_step(history),
    )


def _find_fastest(history: History, sample: Sample) -> str:
    ratios = np.where(history.is_weight, sample.ratios, ABSENT)
    return name_layer(history, int(ratios.argmax())) if ratios.max() > 0.0 else ""


def _show_step(history: History) -> tuple[Evidence, ...]:
    if not history.samples:
        return ()
    sample = history.samples[-1]
    ratio = measure_step(history, sample)
    if ratio is None:
        return ()
    return (
        Evidence(name="‖ΔW‖ ÷ ‖W‖ of all weights", value=ratio, bound=REPLACED, step=sample.step),
    )


def _find_rate_too_low(history: History) -> Finding | None:
    """Return that no weight moves by a usable part of its size, at a rate that does not rise."""
    if history.count < 10 or len(history.samples) < 3:
        return None
    fallen = _has_fallen(history)
    is_moving = is_warming(history) and not fallen
    if not is_untrained(history) or is_moving or any(history.get_skips(10)):
        return None
    weights = history.is_weight & history.is_trained & history.is_held
    largest = []
    for sample in list(history.samples)[-3:]:
        ratios = sample.ratios[weights]
        known = ratios[ratios >= 0.0]
        if not len(known) or not (0.0 < known.max() < STILL or (fallen and known.max() == 0.0)):
            return None
        largest.append(float(known.max()))
    value = max(largest)
    return Finding(
        value=value,
        bound=STILL,
        summary=f"By step {history.step} no weight moves by more than {format_number(value)} of "
        f"its size in a step, and the loss is where it began.",
        cause=f"The learning rate fell from {format_number(history.peak_rate)} to "
        f"{format_number(float(history.get_rates(1)[-1]))} before anything was learned."
        if fallen
        else "",
        action="Look at the schedule: is it stepped once per batch, or once per epoch?"
        if fallen
        else "",
    )


def _has_fallen(history: History) -> bool:
    """Return whether next to nothing has been left of the learning rate for half of the run."""
    rates = history.get_rates()
    low = int((rates < FALLEN * history.peak_rate).sum())
    return low >= max(FALLEN_STEPS, len(rates) // 2)


def _find_no_update(history: History) -> Finding | None:
    return _find_unheld(history) or _find_unmoved(history)


def _find_unheld(history: History) -> Finding | None:
    """Return parameters that have gradients, and that no optimizer holds, though one should.

    Who trains a part on purpose leaves out the front (a probe), or most of the model (adapters).
    """
    lost = list_unheld(history)
    if not lost.any():
        return None
    held = history.is_trained & history.is_held
    what = ""
    if held.any():
        lost = lost if _is_by_accident(history, lost, held) else lost & history.unfrozen
        if history.count < LOST_STEPS or not lost.any():
            return None
        what = " They began to ask for gradients in mid-run." * bool(history.unfrozen[lost].all())
    names = [history.facts.parameters[i].name for i in np.flatnonzero(lost)]
    return Finding(
        value=lost.sum() / max(1, int(history.is_trained.sum())),
        bound=0.0,
        layer=name_layer(history, int(np.flatnonzero(lost)[0])),
        summary=f"{len(names)} parameters get gradients, {names[0]!r} first, but no optimizer "
        f"holds them" + ("." if held.any() else "; it holds none of this model's.") + what,
        cause="They were not given to the optimizer: it was built before them, or for another "
        "copy of the model, or they were frozen then.",
        action="Build the optimizer after everything that copies, replaces or adds layers, or "
        "call `add_param_group`; if they are meant to stay, freeze them with "
        "`requires_grad_(False)`.",
    )


def list_unheld(history: History) -> NDArray[np.bool_]:
    """Return which parameters have gradients, and no optimizer of the process that moves them."""
    loose = history.is_trained & ~history.is_held & ~history.standing.elsewhere
    return loose & (history.get_norms(2) > 0.0).all(0)


def _is_by_accident(history: History, lost: NDArray[np.bool_], held: NDArray[np.bool_]) -> bool:
    """Return whether the optimizer holds most of the model, but not what comes behind it."""
    behind, front = (
        np.flatnonzero(lost & history.is_weight),
        np.flatnonzero(held & history.is_weight),
    )
    if not len(behind) or not len(front) or behind.max() < front.min():
        return False
    own, others = history.sizes[held].sum(), history.sizes[lost].sum()
    return bool(own >= MOST * (own + others))


def _find_unmoved(history: History) -> Finding | None:
    """Return held parameters with gradients whose update is exactly zero, sample after sample."""
    if history.count < LATE or any(history.get_skips(LATE)):
        return None
    moving = history.is_trained & history.is_held & (history.get_norms(LATE) > 0.0).all(0)
    weights = moving & history.is_weight
    if not weights.any() or not is_untrained(history):  # a schedule may end at zero
        return None
    rates = history.get_rates(LATE)
    zero = bool((rates == 0.0).all())
    if not zero:  # a group with a rate of zero is frozen on purpose
        weights &= history.get_current_rates() != 0.0
        if not weights.any():
            return None
    recent = list(history.samples)[-3:]
    still = weights[weights]
    if not zero:
        if len(recent) < 3 or float(rates[-1]) == 0.0 or is_warming(history):
            return None
        still = np.all([each.update_norms[weights] == 0.0 for each in recent], axis=0)
        if still.mean() < 0.5:
            return None
    index = int(np.flatnonzero(weights)[np.flatnonzero(still)[0]])
    dtype = history.facts.parameters[index].dtype
    return Finding(
        value=float(still.mean()),
        bound=0.5,
        layer=name_layer(history, index),
        summary=f"Up to step {history.step} {int(still.sum())} of {len(still)} weights with a "
        "gradient did not move at all.",
        cause="The learning rate is zero."
        if zero
        else f"The update is smaller than the last digit of {dtype}, or something puts the "
        "weights back.",
        action="Look at the schedule of the learning rate."
        if zero
        else "Keep the weights in float32 (mixed precision keeps a copy), or look for code that "
        "restores them.",
    )


def _find_stale_optimizer(history: History) -> Finding | None:
    return _find_strays(history) or _find_exchanged(history) or _find_abandoned(history)


def _find_strays(history: History) -> Finding | None:
    """Return parameters that came into the model in mid-run, and that no optimizer holds."""
    names = history.standing.strays
    step = history.step
    if not names and history.samples:
        names, step = history.samples[-1].replaced, history.samples[-1].step
    if not names:
        return None
    return Finding(
        value=float(len(names)),
        bound=0.0,
        layer=names[0].rpartition(".")[0] or names[0],
        summary=f"At step {step} {len(names)} parameters of the model, {names[0]!r} first, are not "
        "those that it began with: they get gradients, and no optimizer holds them.",
    )


def _find_exchanged(history: History) -> Finding | None:
    """Return that the optimizer holds tensors without use instead of parameters of the model."""
    unused = history.standing.unused
    if history.count < 2 or not unused or not (history.is_trained & history.is_held).any():
        return None
    lost = np.flatnonzero(list_unheld(history))
    if not len(lost):
        return None
    name = history.facts.parameters[lost[0]].name
    return Finding(
        value=float(unused),
        bound=0.0,
        layer=name_layer(history, int(lost[0])),
        summary=f"The optimizer holds {unused} tensors that are not in the model and have no "
        f"gradient; {len(lost)} parameters of the model, {name!r} first, have gradients, and no "
        "optimizer holds them.",
    )


def _find_abandoned(history: History) -> Finding | None:
    """Return that optimizers step, and the model that is watched is not called any more."""
    norms = history.get_norms(IDLE)
    held = history.is_trained & history.is_held
    if len(norms) < IDLE or not held.any() or not history.samples or any(history.get_skips(IDLE)):
        return None
    sample = history.samples[-1]
    if sample.layers or sample.missing != NO_MODULE or sample.step <= history.step - IDLE:
        return None
    if (norms[:, held] > 0.0).any():
        return None
    return Finding(
        value=0.0,
        bound=0.0,
        summary=f"In the last {IDLE} steps up to step {history.step} no parameter had a gradient, "
        f"and no module of the model ran at step {sample.step}.",
        cause="Another model is trained than the one that the optimizer and `watch` got: it was "
        "made anew or copied after they were.",
    )


def _find_replicas(history: History) -> Finding | None:
    sample = history.samples[-1] if history.samples else None
    if sample is None or sample.replica_spread is None or history.facts.world_size < 2:
        return None
    if sample.replica_spread <= SPREAD:
        return None
    return Finding(
        value=sample.replica_spread,
        bound=SPREAD,
        summary=f"At step {sample.step} the weights of the {history.facts.world_size} processes "
        f"differ by {format_number(sample.replica_spread)} of their size.",
    )


RATE_RULES = (
    Rule(
        name="rate_too_high",
        kind="learning rate too high",
        find=_find_rate_too_high,
        bounds=(
            Bound(
                value=REPLACED,
                unit="‖ΔW‖ ÷ ‖W‖ of all weights",
                source="triangle inequality: beyond it a step replaces the weights; usual is a "
                "thousandth (Karpathy, CS231n 2015)",
            ),
            Bound(
                value=TENFOLD,
                unit="growth in 7 steps",
                source="gradient descent above 2 ÷ λ multiplies the error by a constant factor "
                "(LeCun et al. 1998)",
            ),
            Bound(
                value=FAR,
                unit="loss ÷ first loss",
                source="catapults come back within a few steps (Lewkowycz et al. 2020, "
                "arXiv 2003.02218)",
            ),
        ),
        cause="Each step is so long that it jumps over the place where the loss is low, and lands "
        "higher than before.",
        action="Divide the learning rate by 10, or scale the inputs; add warm-up, or clip "
        "gradients.",
        follows=("exploding", "data_changed", "no_update", "stale_optimizer", "not_zeroed"),
    ),
    Rule(
        name="no_update",
        kind="no update",
        find=_find_no_update,
        bounds=(Bound(value=0.0, unit="‖ΔW‖", source="exactly zero: nothing is learned"),),
        cause="Gradients arrive, but no step changes these weights.",
        action="Build the optimizer after everything that copies or replaces layers.",
        follows=("zero_inputs", "non_finite", "underflow", "stale_optimizer"),
    ),
    Rule(
        name="stale_optimizer",
        kind="stale optimizer",
        find=_find_stale_optimizer,
        bounds=(
            Bound(
                value=0.0,
                unit="parameters with a gradient that no optimizer holds",
                source="any is too many where the optimizer holds tensors in their place, or they "
                "came in mid-run",
            ),
        ),
        cause="The model's parameters were replaced or added (a new layer, "
        "`load_state_dict(assign=True)`, a copy), and the optimizer does not hold the new ones.",
        action="Build the optimizer anew, or add the new parameters with `add_param_group`.",
        follows=("non_finite", "no_gradient"),
    ),
    Rule(
        name="replicas_diverge",
        kind="replicas diverge",
        find=_find_replicas,
        bounds=(
            Bound(
                value=SPREAD,
                unit="relative difference between processes",
                source="a hundred times the rounding of float32",
            ),
        ),
        cause="The processes do not apply the same update: gradients that are not averaged, "
        "parameters outside the wrapper, or other random numbers.",
        action="Wrap the whole model, start from the same weights, and step on averaged gradients "
        "only.",
    ),
    Rule(
        name="rate_too_low",
        kind="learning rate too low",
        find=_find_rate_too_low,
        bounds=(
            Bound(
                value=STILL,
                unit="‖ΔW‖ ÷ ‖W‖ of the fastest weight",
                source="less than 1 % in 10,000 steps, by the triangle inequality",
            ),
        ),
        cause="The learning rate, or the gradient, is too small for weights of this size.",
        action="Raise the learning rate until a step moves weights by about a thousandth of their "
        "size, or leave out what divides the loss.",
        follows=(
            "rate_too_high",
            "exploding",
            "zero_inputs",
            "no_update",
            "underflow",
            "vanishing",
            "no_gradient",
            "dead_units",
            "saturated",
            "symmetric",
            "stale_optimizer",
        ),
    ),
)
