"""Rules about the course of the loss: jumps, odd and empty batches, new data, no progress."""

import math

import numpy as np
from numpy.typing import NDArray

from chainrule._utils.numbers import format_number
from chainrule.watch.history import History, measure_outlier
from chainrule.watch.records import Evidence
from chainrule.watch.rule import Bound, Finding, Rule

LEARNED = 20
"""Steps of ordinary history that a jump is compared with, at least."""

UNUSUAL = 6.0
"""Robust distance from the median, of logarithms where all losses are positive: in normal noise one
value of a billion is further away, and logarithms are near to normal in heavy-tailed noise, too."""

THRICE = 3.0
"""Loss ÷ median loss of a jump."""

PART = 0.25
"""Loss of a jump ÷ first loss: noise around a loss of nearly nothing is no trouble."""

LED = 5.0
"""Norm ÷ median norm in the steps before a jump of the loss."""

FALLING = 0.6
"""Loss of the last steps ÷ loss of a jump that comes back."""

WAIT = 4
"""Steps after a jump that tell what it was."""

LASTED = 10
"""Steps for which the loss must stay up until the data count as changed."""

EMPTY = 2
"""Times among the last 20 steps that a step without any gradient is followed by one with."""

ORDINARY = 0.2
"""Smallest loss ÷ median loss of the steps with a gradient, among the last 64."""

FLAT_STEPS = 20
"""Means of ten steps without progress."""

LITTLE, PROGRESS = 0.9, 0.02
"""Least loss so far ÷ first loss of a run that has learned next to nothing, and the progress in the
last 200 steps ÷ first loss that is none."""

EVEN = 0.5
"""Usual change of the logarithm of these from one to the next: a sum of a few terms that are seldom
above zero varies by more than that."""

UNSOLVED = 0.1
"""Their median ÷ the first loss."""

AT_LEVEL, LEARNED_LEVEL = 0.85, 0.7
"""Loss ÷ loss of guessing of a run that guesses, and of one that has learned something."""

HALF = 0.5
"""Share of the rise that the five steps on both sides of a change show: less is a climb."""

ROUNDING = 1e-5
"""Relative difference of two norms, by rounding."""

MIXED = 0.1
"""Share of the pairs of a loss before and one after a change that are the other way round."""

LOST_AGAIN = 0.9
"""Loss ÷ first loss of a run that has lost what it learned."""


class _Jump:
    """A loss that jumped, some steps ago: what the three rules read."""

    __slots__ = ("after", "before", "losses", "middle", "rates", "start", "totals")

    def __init__(self, history: History, ago: int) -> None:
        losses, totals = history.get_losses(), history.get_totals()
        where = len(losses) - 1 - ago
        self.start = abs(history.start_loss or 0.0)
        self.losses, self.totals, self.rates = losses, totals, history.get_rates()
        self.before = losses[max(0, where - 64) : where]
        self.after = losses[where:]
        self.middle = math.nan

    def is_jump(self) -> bool:
        """Whether the loss left its history at this step, by far, and was ordinary before."""
        known = self.before[np.isfinite(self.before)]
        value = float(self.after[0])
        if len(known) < LEARNED or not math.isfinite(value):
            return False
        distance, self.middle = measure_outlier(known, value)
        usual = float(known.max())
        if value > 0.0 and (known > 0.0).all():
            distance, _ = measure_outlier(np.log(known), math.log(value))
        return (
            distance > UNUSUAL
            and value > THRICE * abs(self.middle)
            and value > 1.5 * abs(usual)
            and value - self.middle > PART * self.start
        )

    @property
    def high(self) -> int:
        """In how many of the following steps the loss is still higher than it ever was before."""
        level = max(THRICE * abs(self.middle), float(np.nanmax(self.before)))
        return int((~(self.after[1:] < level)).sum())

    def measure_lead(self) -> float:
        """Norm or learning rate ÷ its median, the larger one, in the three steps before."""
        where = len(self.losses) - len(self.after)
        leads = [0.0]
        for values in (self.totals, self.rates):
            old = values[max(0, where - 64) : max(0, where - 3)]
            old = old[np.isfinite(old) & (old > 0)]
            lead = values[max(0, where - 3) : where]
            if len(old) and len(lead):
                leads.append(float(lead.max() / np.median(old)))
        return max(leads)


def is_high(history: History) -> bool:
    """Return whether the last loss is far above those before, by however much they vary."""
    losses = history.get_losses(LEARNED + 1)
    if len(losses) <= LEARNED or not np.isfinite(losses).all():
        return False
    middle, value = float(np.median(losses[:-1])), float(losses[-1])
    return value > THRICE * abs(middle) and value - middle > PART * abs(history.start_loss or 0.0)


def _find_jump(history: History, least: int, most: int) -> tuple[_Jump, int] | None:
    """Return the first jump of the loss that is as many steps ago, and how many."""
    for count in history.jumps:
        ago = history.count - count
        if least <= ago <= most and count > LEARNED:
            jump = _Jump(history, ago)
            if jump.is_jump():
                return jump, ago
    return None


def _show(jump: _Jump, history: History, ago: int) -> tuple[Evidence, ...]:
    step = history.step - ago
    return (
        Evidence(name="loss", value=float(jump.after[0]), bound=jump.middle, step=step),
        Evidence(
            name="norm of all gradients, or rate, before ÷ median",
            value=jump.measure_lead(),
            bound=LED,
            step=step - 1,
        ),
    )


def _find_outlier_batch(history: History) -> Finding | None:
    """Return that one batch had a large loss, and the next ones had not."""
    found = _find_jump(history, WAIT, WAIT + 5)
    if found is None:
        return None
    jump, ago = found
    if jump.measure_lead() > LED or jump.high > 1:
        return None
    ratio = float(jump.after[0]) / abs(jump.middle) if jump.middle else math.inf
    return Finding(
        value=ratio,
        bound=THRICE,
        summary=f"At step {history.step - ago} the loss was {format_number(float(jump.after[0]))}"
        f", {format_number(ratio)} times the usual one, and came back at once.",
        evidence=_show(jump, history, ago),
    )


def _find_spike(history: History) -> Finding | None:
    """Return that the loss went up for several steps, or after a large step, and comes back."""
    found = _find_jump(history, WAIT, WAIT + 5)
    if found is None:
        return None
    jump, ago = found
    lead = jump.measure_lead()
    last = float(np.median(jump.after[-3:]))
    falling = last < FALLING * float(jump.after[0])
    if _is_at_guessing(history, last) and _keeps_weights(history, ago):
        falling = False  # then it may stay there
    if not (lead > LED or (jump.high > 1 and falling)):
        return None
    ratio = float(jump.after[0]) / abs(jump.middle) if jump.middle else math.inf
    leads = f"; {format_number(lead)} times the usual step came before it" if lead > LED else ""
    return Finding(
        value=ratio,
        bound=THRICE,
        summary=f"At step {history.step - ago} the loss jumped to "
        f"{format_number(float(jump.after[0]))}, {format_number(ratio)} times the usual one"
        f"{leads}.",
        evidence=_show(jump, history, ago),
    )


def _find_data_changed(history: History) -> Finding | None:
    """Return that the loss went up from one step to the next, and stayed there."""
    if not history.has_one_loss:
        return None
    found = _find_jump(history, LASTED, LASTED + 5)
    if found is not None:
        jump, ago = found
        is_data = jump.measure_lead() <= LED and _keeps_weights(history, ago)
        if is_data and jump.high >= LASTED - 1:
            return _describe_change(history, jump, ago)
    return _find_shift(history)


def _find_shift(history: History) -> Finding | None:
    """Return that the loss changed at one step to the level of guessing, and stays there.

    A jump of the loss that is small beside its noise is seen from more steps.
    """
    level, _ = _find_level(history)
    losses = history.get_losses()
    if level <= 0.0 or len(losses) < LEARNED + LASTED or not np.isfinite(losses).all():
        return None
    if float(losses[-LASTED:].mean()) < AT_LEVEL * level:
        return None
    values = np.minimum(losses, 2.0 * level)
    split = _find_split(values)
    before, after = values[max(0, split - 64) : split], values[split:]
    late = int((after > 0.5 * (before.mean() + after.mean())).argmax())
    split, after = split + late, after[late:]
    if len(after) < LASTED or before.mean() > LEARNED_LEVEL * level:
        return None
    if after.mean() < AT_LEVEL * level:
        return None
    ago = len(losses) - 1 - split
    jump = _Jump(history, ago)
    jump.middle = float(np.median(before))
    is_data = jump.measure_lead() <= LED and _keeps_weights(history, ago)
    return _describe_change(history, jump, ago) if is_data and _is_step(before, after) else None


def _find_split(values: NDArray[np.float64]) -> int:
    """Return where values change their level: where two means fit them best (least squares)."""
    count = len(values)
    splits = np.arange(LEARNED, count - LASTED + 1)
    sums = np.cumsum(values)
    apart = (sums[-1] - sums[splits - 1]) / (count - splits) - sums[splits - 1] / splits
    return int(splits[(apart * np.sqrt(splits * (count - splits))).argmax()])


def _is_step(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Return whether values went up for certain, and from one to the next: they did not climb."""
    rise = float(after.mean() - before.mean())
    error = math.sqrt(before.var() / len(before) + after.var() / len(after))
    inverted = float((after[:, None] <= before[None, :]).mean())
    if rise < UNUSUAL * error or inverted > MIXED:
        return False
    edge = LASTED // 2
    return bool(after[:edge].mean() - before[-edge:].mean() >= HALF * rise)


def _find_level(history: History) -> tuple[float, str]:
    """Return the loss of guessing and what it is: where it is not known, where the run began."""
    if history.guessing is not None and history.guessing > 0.0:
        return history.guessing, "the level of guessing"
    return abs(history.start_loss or 0.0), "where the run began"


def _is_at_guessing(history: History, loss: float) -> bool:
    level, _ = _find_level(history)
    return level > 0.0 and loss >= AT_LEVEL * level


def _keeps_weights(history: History, ago: int) -> bool:
    """Return whether the weights are those that the optimizer made, as far as samples tell.

    Their size must be near the one before the step, and by the triangle inequality no norm may
    change by more than the updates add up to.
    """
    step, weights = history.step - ago, history.is_weight
    old = [each for each in history.samples if each.step < step]
    new = [each for each in history.samples if each.step >= step]
    if not old or not new:
        return True
    before, after = old[-1], new[-1]
    first, last = before.weight_norms[weights], after.weight_norms[weights]
    moved = [each.update_norms[weights] for each in (before, *new)]
    most = (after.step - before.step) * np.maximum(np.max(moved, axis=0), 0.0)
    if (np.abs(last - first) > THRICE * most + ROUNDING * first).any():
        return False
    sizes = float(np.square(first).sum()), float(np.square(last).sum())
    return sizes[0] <= 0.0 or 0.25 <= sizes[1] / sizes[0] <= 4.0


def _describe_change(history: History, jump: _Jump, ago: int) -> Finding:
    step = history.step - ago
    level, name = _find_level(history)
    last = float(np.mean(jump.after[-LASTED:]))
    ratio = float(jump.after[0]) / abs(jump.middle) if jump.middle else math.inf
    evidence = [*_show(jump, history, ago), Evidence(name="loss since", value=last, bound=level)]
    split = len(jump.totals) - len(jump.after)
    old = jump.totals[max(0, split - 64) : split]
    old, new = old[np.isfinite(old)], jump.totals[split + 1 :]
    new = new[np.isfinite(new)]
    if len(old) and len(new) and np.median(old) > 0.0:
        grown = float(np.median(new) / np.median(old))
        evidence.append(Evidence(name="norm of all gradients since ÷ before", value=grown))
    at_level = level > 0.0 and last >= AT_LEVEL * level
    where = f", {name} ({format_number(level)})" if at_level else ""
    return Finding(
        value=ratio,
        bound=THRICE,
        summary=f"At step {step} the loss jumped from {format_number(jump.middle)} to "
        f"{format_number(float(jump.after[0]))}, and since then it is at {format_number(last)}"
        f"{where}: targets or inputs changed at step {step}. No large step came before.",
        cause="From this step on the targets do not follow from the inputs as they did: they are "
        "shuffled, shifted against the inputs, renumbered, or the inputs are others."
        if at_level
        else "",
        evidence=tuple(evidence),
    )


def _find_empty_batches(history: History) -> Finding | None:
    """Return that some steps have no gradient at all, and the others are as ever."""
    totals = history.get_totals(20)
    none = totals == 0.0
    ends = int((none[:-1] & ~none[1:]).sum())
    if len(totals) < 8 or ends < EMPTY:
        return None
    # Where a margin is kept there is no gradient either, but then the others are small, too.
    wide, more = history.get_losses(64), history.get_totals(64)
    usual = wide[(more > 0.0) & np.isfinite(wide)]
    middle = float(np.median(usual)) if len(usual) else 0.0
    alike = len(usual) >= 6 and bool(usual.min() > ORDINARY * middle)
    alike = alike and float(np.median(np.abs(np.diff(np.log(usual))))) < EVEN
    alike = alike and middle > UNSOLVED * abs(history.start_loss or 0.0)
    if history.has_loss and not alike:
        return None
    return Finding(
        value=float(none.sum()),
        bound=float(EMPTY),
        summary=f"In {int(none.sum())} of the last {len(totals)} steps up to step {history.step} "
        "every gradient was exactly zero.",
    )


def _find_loss_flat(history: History) -> Finding | None:
    """Return that the loss has made no progress since the first steps."""
    blocks, first = history.get_blocks(), history.first_block
    if first is None or len(blocks) < FLAT_STEPS:
        return None
    origin, beside = first, ""
    if history.guessing is not None and 0.0 < history.guessing < first:
        first = history.guessing  # down to the loss of guessing nothing is learned
        beside = f", and guessing gives {format_number(first)}"
    if history.best_block < LITTLE * abs(first):
        return None
    last = blocks[-FLAT_STEPS:]
    noise = float(last.std()) / math.sqrt(len(last))
    half = len(last) // 2
    slope = float(last[:half].mean() - last[half:].mean())
    if not history.has_one_loss or slope > PROGRESS * abs(first) + 2 * noise:
        return None
    fallen = first - float(last[half:].mean())
    return Finding(
        value=fallen / abs(first) if first else 0.0,
        bound=PROGRESS,
        summary=f"In {history.count} steps the loss went from {format_number(origin)} to "
        f"{format_number(float(last[half:].mean()))}{beside}.",
    )


def _find_stalled(history: History) -> Finding | None:
    """Return that a run had learned, and has lost it again."""
    blocks, first = history.get_blocks(), history.first_block
    if first is None or len(blocks) < 8 or first <= 0.0 or not history.has_one_loss:
        return None
    last = blocks[-4:]
    if history.best_block > 0.6 * first or (last < LOST_AGAIN * first).any():
        return None
    return Finding(
        value=float(last.mean()) / first,
        bound=LOST_AGAIN,
        summary=f"The loss had fallen to {format_number(history.best_block)}, and for 40 steps up "
        f"to step {history.step} it is at {format_number(float(last.mean()))}, where it began.",
    )


_JUMP = Bound(
    value=UNUSUAL,
    unit="distance of the loss from its median",
    source="robust z (Rousseeuw & Croux 1993), and three times the median",
)

LOSS_RULES = (
    Rule(
        name="empty_batches",
        kind="empty batches",
        find=_find_empty_batches,
        bounds=(
            Bound(
                value=float(EMPTY),
                unit="steps without a gradient among 20",
                source="exactly zero, between steps that are not",
            ),
        ),
        cause="Some batches have nothing to learn from: every example or target is masked.",
        action="Leave such batches out, or check how the mask is made.",
        follows=("non_finite", "no_gradient", "dead_units", "underflow", "stale_optimizer"),
    ),
    Rule(
        name="spike",
        kind="spike",
        find=_find_spike,
        bounds=(
            _JUMP,
            Bound(value=LED, unit="norm or rate before ÷ median", source="it leads the loss"),
        ),
        cause="A step was too large for where the weights were; often Adam's second moment was "
        "still small when a large gradient came.",
        action="Clip gradients, lower the learning rate or Adam's β₂; if it comes back by itself, "
        "skip such steps.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "outlier_batch",
            "data_changed",
            "stale_optimizer",
            "not_zeroed",
        ),
        repeats=30,
    ),
    Rule(
        name="outlier_batch",
        kind="outlier batch",
        find=_find_outlier_batch,
        bounds=(_JUMP,),
        cause="One batch is unlike the others: values out of scale, wrong labels, a damaged "
        "record; or the first of another class, where the data are sorted.",
        action="Look at the inputs of this step, and whether the data are shuffled; clip "
        "gradients, so that one batch cannot do much.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "spike",
            "data_changed",
            "stale_optimizer",
            "not_zeroed",
        ),
        repeats=30,
    ),
    Rule(
        name="data_changed",
        kind="data changed",
        find=_find_data_changed,
        bounds=(
            _JUMP,
            Bound(
                value=AT_LEVEL,
                unit="loss since ÷ loss of guessing, of smaller jumps",
                source="who guesses is there; nine of ten pairs of losses before and after must "
                "show the change, and its mean be six standard errors",
            ),
        ),
        cause="From this step on the data are others: another scale, another order of classes, "
        "another source.",
        action="Compare the inputs and targets of this step with earlier ones.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "spike",
            "dead_units",
            "saturated",
            "no_gradient",
            "no_update",
            "stale_optimizer",
            "not_zeroed",
        ),
    ),
    Rule(
        name="stalled",
        kind="stalled",
        find=_find_stalled,
        bounds=(Bound(value=LOST_AGAIN, unit="loss ÷ first loss", source="back where it began"),),
        cause="The weights have left the region in which they could learn.",
        action="Go back to an earlier checkpoint with a smaller learning rate.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "spike",
            "data_changed",
            "dead_units",
            "saturated",
            "no_gradient",
            "stale_optimizer",
            "no_update",
            "not_zeroed",
        ),
        repeats=500,
        outlasts=True,
    ),
    Rule(
        name="loss_flat",
        kind="loss flat",
        find=_find_loss_flat,
        bounds=(
            Bound(
                value=PROGRESS,
                unit="progress in 200 steps ÷ first loss",
                source="within the noise of the loss, which never fell by a tenth",
            ),
        ),
        cause="Nothing that the weights do brings the loss down: the rate is too small or too "
        "large, the targets do not follow from the inputs, or the signal does not arrive.",
        action="Try to fit a single batch (`chainrule.try_training`), and other learning rates.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "underflow",
            "no_gradient",
            "vanishing",
            "dead_units",
            "saturated",
            "symmetric",
            "no_update",
            "stale_optimizer",
            "rate_too_low",
            "empty_batches",
            "data_changed",
            "not_zeroed",
        ),
        repeats=500,
        outlasts=True,
    ),
)
