"""What a training that was tried says about the verdict, and the words for it.

A measurement looks at the first moment; a training looks at what comes of it. Where they
contradict each other, the training counts.
"""

from dataclasses import replace

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.rule import Rule, Verdict
from chainrule.flow.trial import LEARNED, OptimizerTrial, Trial, TrialOutcome

DID_NOT_TRAIN = Rule(
    name="did_not_train",
    verdict=Verdict.HARD_TO_TRAIN,
    metric="share of the loss that a short training took away",
    threshold=LEARNED,
    beyond="<",
    reason="Copies of the model were really trained for a short while, and at no learning rate did "
    "the loss fall below where it was, or below what guessing gives.",
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
    reason="Copies of the model were really trained, and after some steps the loss was infinite or "
    "undefined. Either steps were too large, or a batch came that some operation is not made for.",
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

TRIAL_RULES = (DID_NOT_TRAIN, LOSES_NUMBERS, DIVERGES)

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


def choose_failure(trial: Trial) -> Rule:
    """Return the rule of a training that failed: what became of the loss says which."""
    outcomes = {each.outcome for each in trial.tried}
    if outcomes == {TrialOutcome.NON_FINITE}:
        return LOSES_NUMBERS
    is_yours = len(trial.optimizers) == 1 and len(trial.optimizers[0].rates) == 1
    return DIVERGES if is_yours and outcomes == {TrialOutcome.DIVERGED} else DID_NOT_TRAIN


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
    return f"{optimizer.name} at a learning rate of {format_number(best.rate)}: {best.describe()}"


def describe_failure(trial: Trial) -> str:
    """Return the evidence that nothing trained it."""
    clauses = "; ".join(describe_best(each) for each in trial.tried)
    level = ""
    if trial.guessing is not None:
        level = f"; the best constant answer reaches {format_number(trial.guessing)}"
    return f"tried, and it did not train ({clauses}{level})"


def choose_tried_action(verdict: Verdict, trial: Trial, usual: str) -> str:
    """Return what to do next with a network that was tried.

    Args:
        verdict: The verdict, which follows the trial already.
        trial: What was tried.
        usual: What to do if nothing had been tried.
    """
    trained = [each for each in trial.telling if each.outcome is TrialOutcome.TRAINED]
    best = min(trained, key=lambda each: -(each.best.learned if each.best else 0.0), default=None)
    if best is not None and best.best is not None:
        others = [each.name for each in trial.tried if each not in trained]
        rate = format_number(best.best.rate)
        not_others = f", not with {' or '.join(others)}" if others and trial.fresh else ""
        if verdict is Verdict.HEALTHY:
            return f"Train it with {best.name} at a learning rate near {rate}{not_others}."
        return (
            f"With {best.name} at a learning rate near {rate} it trained all the same"
            f"{not_others}. {usual}"
        )
    if verdict is Verdict.HEALTHY:
        return _go_on(trial)
    return usual


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
