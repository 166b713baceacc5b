"""The table of rules about a run, and the function that asks them."""

from collections.abc import Collection

import numpy as np

from chainrule.watch.alarm_constants import RECORD
from chainrule.watch.gradient_rules import GRADIENT_RULES
from chainrule.watch.history import History, Trouble
from chainrule.watch.loss_rules import LOSS_RULES
from chainrule.watch.number_rules import NUMBER_RULES
from chainrule.watch.rate_rules import RATE_RULES
from chainrule.watch.records import Alarm, Evidence
from chainrule.watch.rule import Finding, Rule
from chainrule.watch.unit_rules import UNIT_RULES

_FIRST = (
    "not_zeroed",
    "rate_too_high",
    "exploding",
    "non_finite",
    "zero_inputs",
    "symmetric",
    "underflow",
    "stale_optimizer",
    "dead_units",
    "saturated",
)
_ALL = NUMBER_RULES + GRADIENT_RULES + RATE_RULES + UNIT_RULES + LOSS_RULES

RULES: tuple[Rule, ...] = tuple(
    sorted(_ALL, key=lambda rule: _FIRST.index(rule.name) if rule.name in _FIRST else len(_FIRST))
)
"""Every rule, causes before what they bring about."""

LASTING = 60
"""Steps for which a trouble explains those that follow from it, after it was last seen; longer if
samples are further apart."""


def find_alarms(history: History, demanded: Collection[str] = ()) -> tuple[Alarm, ...]:
    """Return the alarms that the last record gives rise to: most often none.

    A trouble that lasts is one alarm, and one that follows from another is none while the other
    lasts. The history remembers what was said.

    Args:
        history: What is known of the run; ask after every record.
        demanded: Names of rules, or kinds of alarms, that are said also where they follow from
            another trouble.

    Returns:
        New alarms only.

    Example:
        >>> from chainrule.watch.records import RunFacts
        >>> find_alarms(History(RunFacts(name="a", model="M", parameters=(), optimizers=())))
        ()
    """
    if not history.ask():
        return ()
    step = history.step
    alarms = []
    for rule in RULES:
        with np.errstate(all="ignore"):  # an undefined number is beyond no bound
            finding = rule.find(history)
        if finding is None:
            continue
        old = history.troubles.get(rule.name)
        if old is None or step - old.last > max(rule.repeats, 3 * history.facts.every):
            old = Trouble(None, step)
            if rule.name in demanded or rule.kind in demanded or not _is_explained(rule, history):
                old.said = step
                alarms.append(_make_alarm(rule, finding, step))
            history.troubles[rule.name] = old
        old.last = step
    return tuple(alarms)


def _is_explained(rule: Rule, history: History) -> bool:
    """Return whether a trouble that was said, and lasts, brings this one about."""
    lasting = max(LASTING, 2 * history.facts.every + 10)
    for name in rule.follows:
        trouble = history.troubles.get(name)
        if trouble is None or trouble.said is None:
            continue
        if rule.outlasts or history.step - trouble.last <= lasting:
            return True
    return False


def _make_alarm(rule: Rule, finding: Finding, step: int) -> Alarm:
    return Alarm(
        step=step,
        rule=rule.name,
        kind=rule.kind,
        layer=finding.layer,
        value=finding.value,
        bound=finding.bound,
        summary=finding.summary,
        cause=finding.cause or rule.cause,
        action=finding.action or rule.action,
        evidence=finding.evidence + _show_record(rule.name),
    )


def _show_record(name: str) -> tuple[Evidence, ...]:
    """Return how often the rule was right on the truth set, as evidence."""
    if name not in RECORD:
        return ()
    right, said, found, faulty = RECORD[name]
    shown = []
    if said:
        shown.append(Evidence(name="precision of this rule (docs/alarms.md)", value=right / said))
    if faulty:
        shown.append(Evidence(name="recall of this rule (docs/alarms.md)", value=found / faulty))
    return tuple(shown)
