"""What a training that was tried says about the verdict, and the words for it.

A measurement looks at the first moment; a training looks at what comes of it. Where they
contradict each other, the training counts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.optimizer_rules import EPSILON_CURE
from chainrule.diagnosis.rule import Rule, Verdict
from chainrule.flow.trial import LEARNED, OptimizerTrial, Trial, TrialOutcome

PROMISING = 0.4
"""Share of the way from guessing to the floor from which on a short training promises a long one.
Measured (docs/truth.md): of 358 small models that got as far, 339 learned their task."""

_EARLY = (22, 44)
"""Of those that had not got as far and were said to train: how many learned, and how many there
were (3 stayed at guessing)."""

LEAST_MOVED = 1e-3
"""Below this way of the weights ÷ their norm, a failed training says nothing about the model."""

_MOST_UNCHANGED = 0.5
"""Share of weights that a training leaves as they were, from which on it is what keeps it back."""

DID_NOT_TRAIN = Rule(
    name="did_not_train",
    verdict=Verdict.HARD_TO_TRAIN,
    metric="share of the loss that a short training took away",
    threshold=LEARNED,
    beyond="<",
    reason="Copies of the model were really trained for a short while. At no learning rate was the "
    "loss in the end clearly below both what it was and what guessing gives.",
    source="tried: chainrule.try_training",
    read=lambda flow: (),  # it is about a trial, which no flow holds
    action="Look at what the loss is given: targets that belong to other inputs, inputs without "
    "the information, a loss that is flat here. Then try smaller parts of the model, or residual "
    "connections and normalization.",
    scale="share",
)

LOSES_NUMBERS = replace(
    DID_NOT_TRAIN,
    name="loses_numbers",
    verdict=Verdict.NON_FINITE,
    reason="Copies of the model were really trained, and after some steps the loss or weights were "
    "infinite or undefined. Either steps were too large, or a batch came that some operation is "
    "not made for, forward or on the way back.",
    action="Call chainrule.find_non_finite(model, compute_loss) on the batch of that step: it "
    "names the operation. If the loss had grown before, lower the learning rate.",
)

DIVERGES = replace(
    DID_NOT_TRAIN,
    name="diverges",
    verdict=Verdict.LEARNING_RATE,
    reason="A copy of the model was really trained with your optimizer, and its loss grew instead "
    "of falling.",
    action="Lower the learning rate, or let it rise from zero over the first steps; then try "
    "again. Without an optimizer, chainrule.try_training looks for a rate that works.",
)

HARDLY_MOVED = replace(
    DID_NOT_TRAIN,
    name="hardly_moved",
    verdict=Verdict.LEARNING_RATE,
    metric="way of the weights in a short training ÷ their size",
    threshold=LEAST_MOVED,
    reason="A copy of the model was really trained with your optimizer, and its weights hardly "
    "moved. That says nothing of the model.",
    action="Look at the optimizer first: at its learning rate, and at hooks or clipping that make "
    "gradients small. Without an optimizer, chainrule.try_training looks for a rate that works.",
    scale="ratio",
)

TRIAL_RULES = (DID_NOT_TRAIN, LOSES_NUMBERS, DIVERGES, HARDLY_MOVED)

_FACTS = frozenset(
    {
        Verdict.NON_FINITE,
        Verdict.UNDERFLOW,
        Verdict.NO_GRADIENT,
        Verdict.SHAPES,
        Verdict.SIGN,
        Verdict.OUTPUT,
    }
)
"""What is wrong also in a network whose loss falls."""


def choose_failure(trial: Trial, *, is_explained: bool = False) -> Rule:
    """Return the rule of a training that failed: what became of the loss says which.

    Args:
        trial: What was tried.
        is_explained: Whether a finding on the model says why its weights hardly moved.
    """
    outcomes = {each.outcome for each in trial.tried}
    if outcomes == {TrialOutcome.NON_FINITE}:
        return LOSES_NUMBERS
    is_yours = len(trial.optimizers) == 1 and len(trial.optimizers[0].rates) == 1
    if is_yours and outcomes == {TrialOutcome.DIVERGED}:
        return DIVERGES
    moved = trial.optimizers[0].rates[0].moved if is_yours else None
    is_still = moved is not None and moved < LEAST_MOVED and not is_explained
    return HARDLY_MOVED if is_still else DID_NOT_TRAIN


def is_lessened(verdict: Verdict) -> bool:
    """Return whether a finding of this kind is none in a network that trains."""
    return verdict not in _FACTS


def trains_all_the_same(trial: Trial) -> bool:
    """Return whether every optimizer that was tried trained it, and one says something by that."""
    return bool(trial.telling) and all(each.outcome is TrialOutcome.TRAINED for each in trial.tried)


def name_outcomes(trial: Trial) -> str:
    """Return what became of each optimizer, in a few words: "SGD trained, Adam flat"."""
    return ", ".join(_name_outcome(each, trial) for each in trial.tried)


def _name_outcome(optimizer: OptimizerTrial, trial: Trial) -> str:
    if optimizer in trial.telling:
        return f"{optimizer.name} {optimizer.outcome}"
    return f"{optimizer.name} learned the one batch"


def describe_best(optimizer: OptimizerTrial) -> str:
    """Return what an optimizer did at its best rate, in a clause."""
    best = optimizer.best
    if best is None:
        return f"{optimizer.name} was not tried: {optimizer.skipped}"
    return f"{optimizer.title} at a learning rate of {format_number(best.rate)}: {best.describe()}"


def describe_failure(trial: Trial, rule: Rule = DID_NOT_TRAIN) -> str:
    """Return the evidence that nothing trained it."""
    if rule is HARDLY_MOVED:
        tried = trial.optimizers[0]
        rate = tried.rates[0]
        way = (
            "its weights are exactly where they were"
            if not rate.moved
            else f"its weights moved by {format_share(rate.moved)} of their size"
        )
        return (
            f"tried with {tried.name} at a learning rate of {format_number(rate.rate)}, and after "
            f"{rate.steps} steps {way}"
        )
    clauses = "; ".join(describe_best(each) for each in trial.tried)
    level = ""
    if trial.guessing is not None:
        level = f"; the best constant answer reaches {format_number(trial.guessing)}"
    return f"tried, and it did not train ({clauses}{level})"


def explain_failure(trial: Trial, rule: Rule) -> str:
    """Return why a training that failed matters: what is true of all its learning rates.

    Args:
        trial: What was tried.
        rule: What `choose_failure` returned.
    """
    if rule is not DID_NOT_TRAIN:
        return rule.reason
    start = "Copies of the model were really trained for a short while. "
    if TrialOutcome.FALLING in {each.outcome for each in trial.tried}:
        return (
            f"{start}The loss fell, but in the end it was still above what guessing gives, so "
            "nothing of the inputs was learned."
        )
    if trial.guessing is None:
        return f"{start}At no learning rate was the loss in the end clearly below what it was."
    return rule.reason


def read_failure(trial: Trial, rule: Rule) -> float:
    """Return the value of a training that failed: the way of its weights, or what it learned.

    Of several optimizers the best counts; where nothing is known of any, nothing was learned.
    """
    if rule is HARDLY_MOVED:
        return trial.optimizers[0].rates[0].moved or 0.0
    shares = [each.best.learned for each in trial.tried if each.best]
    share = max((share for share in shares if not math.isnan(share)), default=0.0)
    return share if rule.is_beyond(share) else 0.0  # else a file contradicts itself


def choose_failed_action(
    trial: Trial, usual: str, causes: Sequence[str], *, is_explained: bool = False
) -> str:
    """Return what to do next with a network that did not train, by what the trial shows.

    Args:
        trial: What was tried.
        usual: What to do by the gravest finding.
        causes: What notes of the diagnosis say, in clauses.
        is_explained: Whether that finding says why it did not train.
    """
    lost = [each.lost for each in trial.tried if each.lost]
    if lost and {each.outcome for each in trial.tried} == {TrialOutcome.NON_FINITE}:
        return f"{lost[0][:1].upper()}{lost[0][1:]}. {EPSILON_CURE}. Then try again."
    if is_explained:
        return " ".join((usual, *_point_at(causes)))
    return " ".join((*_list_reasons(trial), *_point_at(causes))) or usual


def _list_reasons(trial: Trial) -> Iterator[str]:
    """Yield what to do about an optimizer that lost its numbers, or whose steps are rounded off."""
    for each in trial.tried:
        best = each.best
        if best is None:
            continue
        if best.outcome is TrialOutcome.NON_FINITE and len(trial.tried) > 1:
            yield (
                f"With {each.name} the loss became infinite or undefined at every learning rate: "
                "chainrule.find_non_finite(model, compute_loss), called with the weights and the "
                f"batch of that step (the one after step {best.failed_at} at "
                f"{format_number(best.rate)}), names the operation."
            )
        elif best.unchanged is not None and best.unchanged > _MOST_UNCHANGED:
            yield (
                f"After {best.steps} steps of {each.name}, {format_share(best.unchanged)} of the "
                "weights in a format of 16 bits are exactly what they were: a step that is smaller "
                "than half the distance to the next number is lost. Keep the weights in float32 "
                "and compute in 16 bits with torch.autocast, or raise the learning rate."
            )


def _point_at(causes: Sequence[str]) -> Iterator[str]:
    if causes:
        yield f"Look first at this: {'; '.join(causes)}."


def choose_tried_action(
    verdict: Verdict,
    trial: Trial,
    usual: str,
    *,
    doubt: str = "",
    causes: Sequence[str] = (),
) -> str:
    """Return what to do next with a network that was tried.

    Args:
        verdict: The verdict, which follows the trial already.
        trial: What was tried.
        usual: What to do if nothing had been tried.
        doubt: Why a loss that fell is no proof that it learns, in a sentence.
        causes: What notes of the diagnosis say that a falling loss does not refute, in clauses.
    """
    best = find_recommended(trial)
    standing = trial.best.best.describe_standing() if trial.best and trial.best.best else ""
    if best is None or best.best is None:
        if verdict is not Verdict.HEALTHY:
            return usual
        return " ".join(filter(None, (_go_on(trial), standing, *_point_at(causes))))
    standing = best.best.describe_standing(unmoved=not doubt)
    others = [each for each in trial.tried if each.outcome is not TrialOutcome.TRAINED]
    rate = format_number(best.best.rate)
    if not (doubt or standing or causes):
        names = " or ".join(each.name for each in others)
        not_others = f", not with {names}" if others and trial.fresh else ""
        if verdict is Verdict.HEALTHY:
            return f"Train it with {best.title} at a learning rate near {rate}{not_others}."
        return (
            f"With {best.title} at a learning rate near {rate} it trained all the same"
            f"{not_others}. {usual}"
        )
    what = ", ".join(f"{each.name}: {each.outcome}" for each in others)
    still = "" if verdict is Verdict.HEALTHY else " all the same,"
    fell = (
        f"With {best.title} at a learning rate near {rate}, the loss fell{still} from "
        f"{format_number(best.best.before)} to {format_number(best.best.after)} in "
        f"{best.best.steps} steps{f' ({what})' if what and trial.fresh else ''}."
    )
    parts = [fell, doubt, standing, *_point_at(causes)]
    return " ".join(filter(None, (*parts, "" if verdict is Verdict.HEALTHY else usual)))


def find_recommended(trial: Trial) -> OptimizerTrial | None:
    """Return the optimizer that learned most of those that trained it; `None` if none did."""
    trained = [each for each in trial.telling if each.outcome is TrialOutcome.TRAINED]
    return min(trained, key=lambda each: -(each.best.learned if each.best else 0.0), default=None)


def describe_doubt(
    trial: Trial, level: float | None = None, *, is_told_by_terms: bool = False
) -> str:
    """Return why a loss that fell is no proof that the model learns, in a sentence; "" if it is.

    Args:
        trial: What was tried.
        level: What guessing gives on the measured batch, if it is known.
        is_told_by_terms: Whether all terms of which that is known are far below it.
    """
    best = find_recommended(trial)
    if best is None or best.best is None:
        return ""
    rate = best.best
    known = trial.guessing if trial.guessing is not None else level
    if known is None:
        if is_told_by_terms:
            return ""
        return (
            "What guessing reaches is not known for this loss, so look at what the model answers: "
            "the fall may be that of a bad start alone."
        )
    learned = rate.learned
    if trial.guessing is None and known > 0.0:
        learned = min(learned, (known - rate.after) / known)
    if learned >= PROMISING:
        return ""
    return (
        f"That is little so far: guessing gives {format_number(known)}. Train it for longer, and "
        f"watch whether the loss goes on falling. Of {_EARLY[1]} small models that were as far, "
        f"{_EARLY[0]} learned their task."
    )


def _go_on(trial: Trial) -> str:
    """Return what to do next where nothing is wrong, and no training has shown that it learns."""
    if not trial.telling:
        return (
            "Find out whether it learns: on one batch repeated, this optimizer would succeed with "
            "most models. Call try_training with `batches`, or draw a batch at every call of "
            "compute_loss."
        )
    if learned := [each.name for each in trial.tried if each not in trial.telling]:
        return (
            f"Find out on fresh batches whether it learns: {' and '.join(learned)} learned the one "
            "batch by heart, as with most models. Call try_training with `batches`, or draw a "
            "batch at every call of compute_loss."
        )
    return f"Train it for longer and watch the loss: in {count_steps(trial)} steps it fell little."


def count_steps(trial: Trial) -> int:
    """Return the most steps that were taken at one learning rate."""
    return max((rate.steps for each in trial.tried for rate in each.rates), default=0)
