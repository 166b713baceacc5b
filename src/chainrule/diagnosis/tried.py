"""What a measurement says of a training that was tried: causes that a falling loss leaves open."""

from collections.abc import Iterator, Sequence

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.note import Note
from chainrule.diagnosis.optimizer_rules import list_planned
from chainrule.diagnosis.trial_rules import PROMISING, describe_doubt, find_recommended
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.trial import LEARNED, Trial, TrialOutcome

STAYING = frozenset({"swamped_term", "unnamed_terms", "not_logarithms"})
"""Notes on what the loss means: it may fall, and below guessing, without what they doubt."""

REFUTED = frozenset(
    {
        *("scrambled_sizes", "mixed_rows", "over_examples", "same_views", "same_targets"),
        "one_number",
    }
)
"""Notes that a loss below what guessing gives refutes, but no other fall."""

OF_OPTIMIZER = frozenset({"small_steps", "foreign_rate", "partly_held"})
"""Notes on the optimizer that a training was tried with."""

FAILING = frozenset(
    {
        *(*STAYING, *REFUTED, *OF_OPTIMIZER, "slow_start", "some_decay", "high_rate", "low_rate"),
        *("tiny_gradients", "large_start", "heavy_dropout", "one_sided_logits", "rare_targets"),
        *("partly_out_of_reach", "short_sequences", "deep_post_norm", "overwritten_input"),
        *("smoothed_targets", "frozen_constant", "little_trained"),
    }
)
"""Notes that name what may keep a network back that did not train."""


def read_level(flow: GradientFlow) -> float | None:
    """Return what guessing gives on the measured batch: the lower one of its two kinds."""
    facts = flow.loss_facts
    known = [facts.guessing, facts.constant] if facts is not None else []
    return min((float(each) for each in known if each is not None), default=None)


def describe_open(flow: GradientFlow, trial: Trial) -> str:
    """Return why a loss that fell is no proof that the model learns, in a sentence; "" if it is."""
    best = find_recommended(trial)
    tried = {} if best is None or best.best is None else {t.name: t for t in best.best.terms}
    terms = flow.loss_facts.terms if flow.loss_facts is not None else ()
    shares = [
        tried[term.name].after / float(term.guessing)
        for term in terms
        if term.name in tried and term.guessing is not None and term.guessing > 0.0
    ]
    told = bool(shares) and max(shares) <= 1.0 - PROMISING
    return describe_doubt(trial, read_level(flow), is_told_by_terms=told)


def list_causes(
    flow: GradientFlow, trial: Trial, notes: Sequence[Note], *, is_explained: bool = False
) -> tuple[str, ...]:
    """Return in clauses what may be wrong with a network that was tried, however its loss fell.

    Args:
        flow: The measurement.
        trial: What was tried.
        notes: The notes on the measurement.
        is_explained: Whether a finding says why it did not train.
    """
    if trial.fails:
        names = FAILING
    elif trial.guessing is None and read_level(flow) is None:
        names = STAYING | REFUTED
    else:
        names = STAYING
    if trial.fails and is_explained:
        names = OF_OPTIMIZER
    parts = flow.loss_facts.parts if flow.loss_facts is not None else ()
    if any(part.rectifier and part.kind.startswith("binary") for part in parts):
        names = names | {"one_sided_logits"}  # however the loss falls, no answer is below one half
    noted = (note.evidence for note in notes if note.name in names)
    return tuple(dict.fromkeys((*noted, *_list_terms(flow, trial), *_name_standstill(flow))))


def _name_standstill(flow: GradientFlow) -> Iterator[str]:
    """Yield that the learning rates are 0 now, where a schedule leads to others."""
    optimizer = flow.optimizer
    now = [rate for rate in optimizer.rates if rate is not None] if optimizer else []
    planned = max((rate for rate in list_planned(flow) if rate is not None), default=0.0)
    if optimizer is not None and now and max(now) == 0.0 < planned:
        yield (
            f"the learning rate of {optimizer.name} is {format_number(0.0)} now, and a schedule "
            f"leads to {format_number(planned)}: no step changes anything until it is raised, "
            "which is the whole first epoch if it is stepped once per epoch"
        )


def _list_terms(flow: GradientFlow, trial: Trial) -> Iterator[str]:
    """Yield the named terms that training cannot change, or that are still at guessing."""
    best = trial.best.best if trial.best is not None else None
    terms = flow.loss_facts.terms if flow.loss_facts is not None else ()
    if best is None or best.outcome not in (TrialOutcome.TRAINED, TrialOutcome.SLOW):
        return
    found = {term.name: term for term in best.terms}
    for term in terms:
        tried = found.get(term.name)
        if tried is None:
            continue
        level = None if term.guessing is None else float(term.guessing)
        if term.is_detached and (tried.before or tried.after):
            yield f"the term {term.name!r} reaches no parameter"
        elif level is not None and level > 0.0 and tried.after > (1.0 - LEARNED) * level:
            yield (
                f"the term {term.name!r} is at {format_number(tried.after)}, and guessing costs it "
                f"{format_number(level)}"
            )
