"""Rules about gradients: not finite, lost in half precision, absent, too large, too small."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from chainrule._utils.numbers import format_number
from chainrule.watch.history import FROZEN, History
from chainrule.watch.records import ABSENT, Evidence
from chainrule.watch.rule import Bound, Finding, Rule

NOTHING = 6
"""Steps in which every gradient is zero; by then a sample tells of dead or saturated units."""

UNREACHED = 10
"""Steps without any gradient after which a weight counts as not reached."""

FROZEN_STEPS = 8
"""Steps in which no weight asks for a gradient: longer than a turn of networks in turns."""

KEPT = 2
"""Looks, of the last four, that found the gradients of the step before: one is a slip."""

SENSITIVE = 1e4
"""Σ ‖∂𝓛/∂W‖ · ‖W‖ ÷ 𝓛 above which a change of all weights by 10⁻⁴ doubles the loss."""

OVERSHOT = 1.0
"""Σ ‖∂𝓛/∂W‖ · ‖ΔW‖ ÷ 𝓛 above which the step that was taken is one of that size."""

GROWTH = 1e6
"""Spread of an output ÷ spread of the first one (of the first, ÷ 1) above which numbers explode."""

JUMP = 1000.0
"""Total norm ÷ its median so far."""

EARLIER, RECENT, LONG = 8, 5, 25
"""Steps before a jump of the norm, steps in which it is seen, and all of them where the norm stays
finite."""

STILL = 1e-6
"""‖ΔW‖ ÷ ‖W‖ below which a weight moves by less than 1 % in 10,000 steps."""

APART = 1e-3
"""Gradient in front ÷ gradient at the end (root mean squares of entries)."""

UNTRAINED = 0.7
"""Loss ÷ first loss, above which a run has not learned yet."""


def is_untrained(history: History) -> bool:
    """Return whether the loss is near its first value; also where no loss is known, early on."""
    start = history.start_loss
    if start is None:
        return history.count <= 200
    losses = history.get_losses(10)
    known = losses[np.isfinite(losses)]
    return bool(len(known)) and float(np.median(known)) > UNTRAINED * abs(start) > 0.0


def name_layer(history: History, index: int) -> str:
    """Return the layer of a parameter; its own name where the model itself holds it."""
    facts = history.facts.parameters[index]
    return facts.layer or facts.name


def mask_numbers(name: str) -> str:
    """Return a parameter's name with the numbers inside it masked, the same for its siblings."""
    return re.sub(r"\.\d+\.", ".#.", name)


def _find_no_gradient(history: History) -> Finding | None:
    if history.count < 3 or history.record is None:
        return None
    norms = history.get_norms(UNREACHED)
    asked = history.is_trained & history.is_held
    if not asked.any():
        asked = history.is_trained
    frozen = _find_frozen(history)
    if frozen is not None:
        return frozen
    if not asked.any() or _is_solved(history):
        return None
    nothing = norms <= 0.0  # zero, or absent
    if len(nothing) >= NOTHING and nothing[-NOTHING:, asked].all():
        return Finding(
            value=0.0,
            bound=0.0,
            summary=f"In the last {NOTHING} steps up to step {history.step} every gradient was "
            "exactly zero or absent.",
            cause="Nothing that the weights do changes the loss: a constant output (a softmax "
            "over one unit), dead or saturated units, or a loss that is cut off from the model.",
            action="Look at what the last layer and the loss do to the output; "
            "`chainrule.inspect` of one batch shows where the gradient ends.",
        )
    if history.has_turns:
        return None
    return _find_unreached(history, asked)


def _find_frozen(history: History) -> Finding | None:
    """Return that every weight was frozen in mid-run, before anything was learned."""
    weights = history.is_weight & history.is_held & history.had_gradient
    norms = history.get_norms(FROZEN_STEPS)
    if len(norms) < FROZEN_STEPS or not weights.any() or not (norms[:, weights] == FROZEN).all():
        return None
    if not is_untrained(history) or not (history.is_trained & history.is_held).any():
        return None
    index = int(np.flatnonzero(weights)[0])
    return Finding(
        value=float(weights.sum()),
        bound=0.0,
        layer=name_layer(history, index),
        summary=f"In the last {FROZEN_STEPS} steps up to step {history.step} no weight asks for a "
        f"gradient: all {int(weights.sum())} of them, {history.facts.parameters[index].name!r} "
        "first, were frozen, and the loss is near where it began.",
        cause="Something has set `requires_grad` of every weight to false while the run went on.",
        action="Look for what freezes them; `requires_grad_(True)` lets them train again.",
    )


def _find_unreached(history: History, asked: NDArray[np.bool_]) -> Finding | None:
    """Return held weights that never had a gradient: the first one, or more than half of all."""
    norms = history.get_norms(UNREACHED)
    if len(norms) < UNREACHED:
        return None
    weights = np.flatnonzero(asked & history.is_weight)
    own = norms[:, weights]
    lost = (own == 0.0) & history.had_gradient[weights]  # zeroed in place, and cut off since
    unreached = ((own == ABSENT) | lost).all(0)
    if not len(weights) or unreached.all():
        return None
    if not unreached[0]:
        # Of experts only some are chosen: those with a reached sibling do not count.
        names = [mask_numbers(history.facts.parameters[i].name) for i in weights]
        reached = {name for name, gone in zip(names, unreached, strict=True) if not gone}
        unreached &= np.array([name not in reached for name in names])
        if unreached.mean() <= 0.5:
            return None
    index = int(weights[unreached][0])
    return Finding(
        value=float(unreached.mean()),
        bound=0.5,
        layer=name_layer(history, index),
        summary=f"In the {UNREACHED} steps up to step {history.step} {int(unreached.sum())} of "
        f"{len(weights)} weights that the optimizer holds, "
        f"{history.facts.parameters[index].name!r} first, had no gradient.",
        cause="The loss does not reach them: `detach`, `torch.no_grad`, or a module that is not "
        "called.",
        action="Look for what cuts them off; if they are meant to stay, freeze them with "
        "`requires_grad_(False)` and leave them out of the optimizer.",
    )


def _is_solved(history: History) -> bool:
    """Return whether the loss is zero or next to nothing, so that no gradient is needed."""
    start = history.start_loss
    losses = history.get_losses(3)
    known = losses[np.isfinite(losses)]
    if start is None or not len(known):
        return False
    return bool(np.abs(known).max() <= 1e-6 * abs(start)) if start else True


def _measure_sensitivity(history: History) -> tuple[float, float, int] | None:
    """Return Σ ‖g‖ · ‖W‖ ÷ 𝓛 and Σ ‖g‖ · ‖ΔW‖ ÷ 𝓛 of a sampled step, and the first's main part."""
    record = history.record
    if record is None or not record.loss or not history.samples:
        return None
    sample = history.samples[-1]
    if sample.step != record.step or not math.isfinite(record.loss):
        return None
    scale = 1.0
    if record.clipped_from is not None and record.total_norm > 0.0:
        scale = record.clipped_from / record.total_norm
    known = history.is_weight & (record.grad_norms > 0.0) & (sample.weight_norms > 0.0)
    if not known.any():
        return None
    slopes = np.where(known, record.grad_norms, 0.0) * scale
    slopes = slopes / max(abs(record.loss), _floor(history))
    parts = slopes * np.where(known, sample.weight_norms, 0.0)
    taken = float((slopes * np.maximum(sample.update_norms, 0.0)).sum())
    return float(parts.sum()), taken, int(parts.argmax())


def _floor(history: History) -> float:
    """Return a tenth of the first loss: near its end a loss is small, and says little."""
    return 0.1 * abs(history.start_loss or 0.0)


def _find_exploding(history: History) -> Finding | None:
    return (
        _find_growing_outputs(history)
        or _find_overflow_in_time(history)
        or _find_sensitive(history)
        or _find_jumped_norm(history)
    )


def _find_growing_outputs(history: History) -> Finding | None:
    """Return that the outputs grow from layer to layer, or within one, beyond all use."""
    sample = history.samples[-1] if history.samples else None
    if sample is None or sample.step < history.step - 1:
        return None
    if history.bad_input is not None and history.bad_input[0] >= sample.step:
        return None
    first, most, base, worst = 0.0, 0.0, 1.0, None
    for each in sample.layers:
        # Of numbers near the end of the format, mean or spread leave it.
        size = math.inf if math.isinf(each.mean) else each.std
        if not size > 0.0:
            continue
        growth = size / max(first, 1.0)
        if growth > most:
            most, base, worst = growth, first or 1.0, each
        first = first or (size if size < math.inf else 1.0)
    if worst is None or not most > GROWTH:
        return None
    end = ", and then overflows" if any(each.non_finite for each in sample.layers) else ""
    size = worst.std if worst.std == worst.std else math.inf
    return Finding(
        value=size / base,
        bound=GROWTH,
        layer=worst.name,
        summary=f"At step {sample.step} the spread of the outputs grows from "
        f"{format_number(base)} to {format_number(size)} in {worst.name!r}{end}.",
    )


def _find_overflow_in_time(history: History) -> Finding | None:
    """Return that a recurrent network overflows by itself: its weights and inputs are finite."""
    sample = history.samples[-1] if history.samples else None
    if sample is None or sample.step < history.step - 1 or history.bad_input is not None:
        return None
    at = next((at for at, each in enumerate(sample.layers) if each.non_finite), None)
    if at is None or sample.layers[at].kind not in ("RNN", "RNNCell"):
        return None
    if at == 0 and history.facts.device != "cpu":  # what it reads was not looked at
        return None
    layer = sample.layers[at]
    own = [
        number for number, each in enumerate(history.facts.parameters) if each.layer == layer.name
    ]
    if not np.isfinite(sample.weight_norms[own]).all():
        return None
    return Finding(
        value=math.inf,
        bound=GROWTH,
        layer=layer.name,
        summary=f"At step {sample.step} the outputs of {layer.name!r} grow over time until "
        f"{layer.non_finite} of them are infinite or undefined; its weights are finite.",
    )


def _find_sensitive(history: History) -> Finding | None:
    found = _measure_sensitivity(history)
    if found is None or not (found[0] > SENSITIVE and found[1] > OVERSHOT):
        return None
    value, taken, index = found
    return Finding(
        value=value,
        bound=SENSITIVE,
        layer=name_layer(history, index),
        summary=f"At step {history.step} a change of all weights by a thousandth would change the "
        f"loss {format_number(value / 1000)}-fold; most of it is due to "
        f"{history.facts.parameters[index].name!r}.",
        evidence=(
            Evidence(
                name="Σ ‖gradient‖ · ‖ΔW‖ ÷ loss", value=taken, bound=OVERSHOT, step=history.step
            ),
        ),
    )


def _find_jumped_norm(history: History) -> Finding | None:
    """Return that the norm has been far above its median, or was just before it overflowed."""
    totals = history.get_totals()
    before, last = totals[:-RECENT], totals[-RECENT:]
    if len(before) < EARLIER or (last <= JUMP * before.min()).all():
        return None  # none is above the median
    known = before[np.isfinite(before)]
    middle = float(np.median(known)) if len(known) else 0.0
    high = last[np.isfinite(last) & (last > JUMP * middle)]
    if middle <= 0.0 or not len(high):
        return None
    if not math.isfinite(totals[-1]) and history.bad_input is None:
        return _describe_jump(history, float(high.max()), middle, "and then it overflowed")
    if len(totals) < LONG or len(high) < 3 or (history.has_loss and not is_untrained(history)):
        return None
    return _describe_jump(
        history, float(np.median(high)), middle, f"in {len(high)} of the last {len(last)} steps"
    )


def _describe_jump(history: History, norm: float, usual: float, often: str) -> Finding:
    value = norm / usual
    return Finding(
        value=value,
        bound=JUMP,
        layer=_find_largest(history),
        summary=f"Up to step {history.step} the norm of all gradients was {format_number(value)} "
        f"times what it had been, {often}.",
    )


def _find_largest(history: History) -> str:
    record = history.record
    if record is None or not len(record.grad_norms):
        return ""
    return name_layer(history, int(np.nan_to_num(record.grad_norms).argmax()))


def _find_not_zeroed(history: History) -> Finding | None:
    """Return that steps use the gradients of the steps before as well."""
    looks = history.leftovers
    kept = [step for step, is_left in looks if is_left]
    if len(kept) < KEPT or not looks[-1][1] or looks[-1][0] < history.step - 1:
        return None
    return Finding(
        value=float(len(kept)),
        bound=float(KEPT),
        summary=f"At steps {', '.join(map(str, kept))} the backward pass added its gradient to the "
        "one that the step before had used: that was still there, number for number.",
        evidence=(
            Evidence(
                name="steps that were looked at and kept older gradients",
                value=float(len(kept)),
                bound=float(KEPT),
                step=history.step,
            ),
        ),
    )


def _find_vanishing(history: History) -> Finding | None:
    """Return that weights in front get far less than those at the end, and hardly move."""
    if history.count < 10 or len(history.samples) < 2:
        return None
    moved_at_all = history.get_current_rates() != 0.0
    trained = history.is_weight & history.is_trained & history.is_held
    weights = np.flatnonzero(trained & moved_at_all)
    if len(weights) < 3 or not is_untrained(history):
        return None
    rms = np.median(history.get_norms(10)[:, weights], axis=0) / np.sqrt(history.sizes[weights])
    third = max(1, len(weights) // 3)
    front, end = rms[:third], rms[-third:]
    is_cut = (front == 0.0) & history.had_gradient[weights[:third]]  # another rule's
    if (front < 0.0).any() or is_cut.any() or not end.max() > 0.0:
        return None
    ratio = float(np.median(front) / end.max())
    if ratio >= APART:
        return None
    moved = [np.median(sample.ratios[weights][:third]) for sample in list(history.samples)[-2:]]
    if not all(0.0 <= each < STILL for each in moved) or is_warming(history):
        return None
    index = int(weights[int(front.argmin())])
    return Finding(
        value=ratio,
        bound=APART,
        layer=name_layer(history, index),
        summary=f"By step {history.step} the gradients of the first weights are "
        f"{format_number(ratio)} times those of the last, and a step moves them by "
        f"{format_number(float(moved[-1]))} of their size.",
        evidence=(
            Evidence(name="‖ΔW‖ ÷ ‖W‖", value=float(moved[-1]), bound=STILL, step=history.step),
        ),
    )


def is_warming(history: History) -> bool:
    """Return whether the learning rate is still rising, or was lowered to below a half."""
    rates = history.get_rates(10)
    known = rates[np.isfinite(rates)]
    if not len(known):
        return False
    return bool(known[-1] > known[0] * (1 + 1e-9) or known[-1] < 0.5 * history.peak_rate)


GRADIENT_RULES = (
    Rule(
        name="not_zeroed",
        kind="gradients not zeroed",
        find=_find_not_zeroed,
        bounds=(
            Bound(
                value=float(KEPT),
                unit="looks of the last four that found the last step's gradient",
                source="equal in every number; where several backward passes make one step, it is "
                "gone before the first",
            ),
        ),
        cause="Nothing sets the gradients to zero between the steps, so that each step repeats all "
        "earlier ones.",
        action="Call `optimizer.zero_grad()` once per step, before the backward pass or after the "
        "step.",
        follows=("non_finite",),
    ),
    Rule(
        name="exploding",
        kind="exploding",
        find=_find_exploding,
        bounds=(
            Bound(
                value=SENSITIVE,
                unit="Σ ‖∂𝓛/∂W‖ · ‖W‖ ÷ 𝓛",
                source="first-order Taylor expansion: a tenth of a usual step (a thousandth of the "
                "weights: Karpathy, CS231n 2015) changes the loss by more than itself",
            ),
            Bound(value=GROWTH, unit="spread of outputs, last ÷ first", source="far beyond depth"),
            Bound(value=JUMP, unit="total norm ÷ its median", source="three orders of magnitude"),
        ),
        cause="Numbers grow from layer to layer or from time step to time step: weights or inputs "
        "are too large, or an activation has no bound.",
        action="Scale the inputs, use an initialization for this activation, put normalization "
        "between the layers, or clip gradients.",
        follows=("rate_too_high", "non_finite", "not_zeroed"),
    ),
    Rule(
        name="no_gradient",
        kind="no gradient",
        find=_find_no_gradient,
        bounds=(
            Bound(value=0.0, unit="‖gradient‖", source="exactly zero: no step changes anything"),
        ),
        cause="The loss does not depend on the weights.",
        action="Look for what cuts the loss off from the weights.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "underflow",
            "dead_units",
            "symmetric",
            "stale_optimizer",
            "empty_batches",
        ),
    ),
    Rule(
        name="vanishing",
        kind="vanishing",
        find=_find_vanishing,
        bounds=(
            Bound(
                value=STILL,
                unit="‖ΔW‖ ÷ ‖W‖ of the first weights",
                source="less than 1 % in 10,000 steps, by the triangle inequality",
            ),
            Bound(
                value=APART,
                unit="gradient in front ÷ at the end",
                source="so that it is the depth and not the rate",
            ),
        ),
        cause="Each layer passes back less than it receives: the activations are flat or the "
        "weights too small, and the depth multiplies it.",
        action="Use ReLU-like activations with an initialization made for them, normalization, or "
        "residual connections.",
        follows=(
            "zero_inputs",
            "underflow",
            "no_gradient",
            "dead_units",
            "saturated",
            "symmetric",
            "no_update",
            "exploding",
            "rate_too_high",
            "stale_optimizer",
        ),
        outlasts=True,
    ),
)
"""The gravest first."""
