"""What is found when remedies are looked for: changes with what was measured before and after.

Nothing here measures or knows how a change is made, so it fits any network that was inspected.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any, overload

from chainrule._utils.numbers import encode_number, format_number
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose, overlook
from chainrule.diagnosis.overflow import count_non_finite
from chainrule.diagnosis.reach import list_unreached
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES, RULES, measure_metric
from chainrule.diagnosis.viability.model import NOT_VIABLE
from chainrule.errors import RemedyError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.trial import OptimizerTrial, Trial, TrialOutcome
from chainrule.remedies.advice import Advice
from chainrule.remedies.changes import KINDS
from chainrule.remedies.edits import Edit, describe_edits
from chainrule.remedies.spec_changes import list_changed_fields
from chainrule.spec.network_spec import NetworkSpec

IMPROVED = 0.25
"""A change helps if it closes at least this share of the way from the metric to its bound."""

CURED = 0.8
"""A change of a specified network cures only if SGD trains the result with this probability: of
the fitted networks above it 98 % trained, of those between 0.7 and here 71 % (`make viability`)."""

_SMALLEST = 1e-45
"""Smaller metrics count as this one: float32 has no smaller number but zero."""


MOST_LOSS = 10.0
"""A change that multiplies the loss by more than this is no help, whatever gradients do."""

CLEARLY = 0.5
"""If both train, a change cures if it closes this share of what the untouched model left."""


class Outcome(StrEnum):
    """What a change did; the best first. Only what was really trained is said to cure.

    Example:
        >>> list(Outcome)[0]
        <Outcome.CURES: 'cures'>
    """

    CURES = "cures"
    MEASURES = "measures well"
    HELPS = "helps"
    TRADES = "trades"
    FAILS = "fails"


OUTCOMES: Mapping[Outcome, str] = MappingProxyType(
    {
        Outcome.CURES: "it was tried on a copy, and trains where the model as it is does not",
        Outcome.MEASURES: "every layer then receives a usable gradient, and plain SGD is likely to "
        "train the network",
        Outcome.HELPS: "better, but not yet good enough",
        Outcome.TRADES: "it solves one problem and causes another",
        Outcome.FAILS: "it changes little or nothing, as measured",
    }
)
"""What each outcome means, in a few words."""

_TRIED: Mapping[Outcome, str] = MappingProxyType(
    {
        Outcome.MEASURES: "every layer then receives a usable gradient; the short training does "
        "not show whether it learns",
        Outcome.HELPS: "it measures better; the short training does not show whether it learns",
        Outcome.FAILS: "it measures better, but did not train, or not for long, when it was tried",
    }
)
"""What they mean after a training was tried."""

_TRAINS_TOO = "it trains when it is tried, but not clearly better than the model as it is"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison:
    """The metric that is wrong, before and after a change.

    Attributes:
        rule: Name of the rule in the table of rules.
        metric: What is compared, in words.
        before: The worst value before.
        after: The worst value after; `None` if the changed network has no such comparison.
        threshold: The bound to pass.
        beyond: ">" if metrics above the bound are wrong, "<" if those below are.

    Example:
        >>> Comparison(
        ...     rule="vanishing_gradient", metric="‖∂𝓛/∂W‖ ÷ error at the output",
        ...     before=3e-9, after=0.31, threshold=0.003, beyond="<",
        ... )
        Comparison('‖∂𝓛/∂W‖ ÷ error at the output': 3.0·10⁻⁹ → 0.31, wanted ≥ 0.003)
    """

    rule: str
    metric: str
    before: float
    after: float | None
    threshold: float
    beyond: str

    def __repr__(self) -> str:
        return (
            f"Comparison({self.metric!r}: {self.before_text} → {self.after_text}, wanted "
            f"{self.threshold_text})"
        )

    @property
    def name(self) -> str:
        """The metric in words that say which of all layers' it is."""
        if not RULES[self.rule].of_layers:
            return self.metric
        return f"{self.metric}, {'largest' if self.beyond == '>' else 'smallest'} of all layers"

    @property
    def before_text(self) -> str:
        """The metric before as people read it: shares in percent."""
        return RULES[self.rule].format(self.before)

    @property
    def after_text(self) -> str:
        """The metric after as people read it; "–" if there is none."""
        return "–" if self.after is None else RULES[self.rule].format(self.after)

    @property
    def threshold_text(self) -> str:
        """What must hold, as people read it: "≥ 0.003"."""
        sign = "≤" if self.beyond == ">" else "≥"
        return f"{sign} {RULES[self.rule].format(self.threshold)}"

    @property
    def passes(self) -> bool:
        """Whether the metric is on the right side of its bound afterwards."""
        if self.after is None:
            return True
        below, above = self.after <= self.threshold, self.after >= self.threshold
        return below if self.beyond == ">" else above  # NaN is neither

    @property
    def closed(self) -> float:
        """Share of the way to the bound that was closed: 1 passes, 0 nothing, negative worse.

        Measured in powers of ten, but plainly for shares and counts.
        """
        if self.passes:
            return 1.0
        if self.after is None or math.isnan(self.after) or math.isnan(self.before):
            return 0.0
        old, new, bound = (self._scale(v) for v in (self.before, self.after, self.threshold))
        return 1.0 - (new - bound) / (old - bound) if old != bound else 0.0

    def _scale(self, value: float) -> float:
        if RULES[self.rule].scale != "ratio":
            return value
        return math.log10(min(max(value, _SMALLEST), 1e308))


@dataclass(frozen=True, kw_only=True, repr=False)
class Remedy:
    """A change that was tried, with what was measured before and after it.

    Attributes:
        title: The change in words, for example "He (Kaiming) initialization".
        reason: Why it could help, in one plain sentence (one for each of a pair).
        kinds: What kind of change it is (see `changes.KINDS`); two for a pair.
        outcome: What it did.
        comparison: The gravest finding's metric before and after.
        before: The measurement before.
        after: The measurement after, of the same seeds.
        diagnosis_before: The diagnosis of `before`.
        diagnosis_after: The diagnosis of `after`.
        edits: For a model of yours, what is changed in its parameters; `apply_remedy` does it.
        trial_before: What a short training of the model as it is showed; `None` if not tried.
        trial_after: The same of the changed model.

    Example:
        >>> from chainrule import NetworkSpec, find_remedies
        >>> find_remedies(NetworkSpec(depth=15, width=16, activation="relu"), 2)[0].title
        'He (Kaiming) initialization'
    """

    title: str
    reason: str
    kinds: tuple[str, ...]
    outcome: Outcome
    comparison: Comparison
    before: GradientFlow
    after: GradientFlow
    diagnosis_before: Diagnosis
    diagnosis_after: Diagnosis
    edits: tuple[Edit, ...] = ()
    trial_before: Trial | None = None
    trial_after: Trial | None = None

    def __repr__(self) -> str:
        return f"Remedy({self.title!r}, {self.outcome}: {self._steps})"

    def _repr_markdown_(self) -> str:
        """Show the change, what it did and why in a notebook."""
        return (
            f"**{_escape(self.title)}**: {_escape(self.outcome_text)}\n\n"
            f"{_escape(self.comparison.name)}: {self._steps}, wanted "
            f"{self.comparison.threshold_text}; diagnosis: {self.verdict_before} → "
            f"{self.verdict_after}; {_escape(self.loss_text)}\n\n{_escape(self.reason)}"
        )

    @property
    def loss_text(self) -> str:
        """The loss before and after the change, and after a short training if that was tried."""
        text = f"loss {format_number(self.before.loss)} → {format_number(self.after.loss)}"
        for word, trial in (("as it is", self.trial_before), ("changed", self.trial_after)):
            if trial is not None and trial.tried:
                text += (
                    f"; tried {word}: {'; '.join(_describe_tried(each) for each in trial.tried)}"
                )
        return text

    @property
    def _steps(self) -> str:
        return f"{self.comparison.before_text} → {self.comparison.after_text}"

    @property
    def spec(self) -> NetworkSpec | None:
        """The specification after the change; `None` for a model that chainrule did not build."""
        return self.after.spec

    @property
    def outcome_text(self) -> str:
        """What the change did, in a few words."""
        harm = describe_harm(self.before, self.after)
        if self.outcome is Outcome.FAILS and harm:
            return harm
        if self.trial_after is not None and self.outcome in _TRIED:
            helped = self.outcome is Outcome.HELPS and self.trial_after.trains
            return _TRAINS_TOO if helped else _TRIED[self.outcome]
        if self.outcome is Outcome.MEASURES and self.spec is None:
            return "every layer then receives a usable gradient; training was not tried"
        if self.outcome is Outcome.HELPS and self.verdict_after is Verdict.HEALTHY:
            if self.comparison.passes:
                return (
                    "every layer then receives a usable gradient, but plain SGD is not yet likely "
                    "to train the network"
                )
            return "the network is then healthy, but this value is still beyond its limit"
        return OUTCOMES[self.outcome]

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the specification that change, with their new values."""
        before, after = self.before.spec, self.after.spec
        return {} if before is None or after is None else list_changed_fields(before, after)

    @property
    def verdict_before(self) -> Verdict:
        """What was wrong, apart from weights that the loss does not reach."""
        return find_curable(self.diagnosis_before, self.before).verdict

    @property
    def verdict_after(self) -> Verdict:
        """What the changed network is diagnosed as, apart from weights unreached already before."""
        return _find_rest(self.diagnosis_before, self.diagnosis_after, self.after).verdict

    @property
    def command(self) -> str:
        """The shell command that measures the changed network; "" for a model of yours."""
        return "" if self.spec is None else self.spec.to_command()

    def to_dict(self) -> dict[str, Any]:
        """Return words and metrics without the two flows, ready for JSON.

        Infinite and undefined metrics are the strings "Infinity", "-Infinity" and "NaN".
        """
        comparison = self.comparison
        return {
            "title": self.title,
            "reason": self.reason,
            "kinds": list(self.kinds),
            "prices": [KINDS[kind].price for kind in self.kinds if kind in KINDS],
            "outcome": str(self.outcome),
            "outcome_text": self.outcome_text,
            "changes": self.changes,
            "query": "" if self.spec is None else self.spec.to_query(),
            "command": self.command,
            "loss": {
                "before": encode_number(float(self.before.loss)),
                "after": encode_number(float(self.after.loss)),
                "text": self.loss_text,
            },
            "trial": None if self.trial_after is None else self.trial_after.to_dict(),
            "parameters": list(dict.fromkeys(edit.parameter for edit in self.edits)),
            "verdict_before": str(self.verdict_before),
            "verdict_after": str(self.verdict_after),
            "comparison": {
                "rule": comparison.rule,
                "name": comparison.name,
                "before": encode_number(comparison.before),
                "after": encode_number(comparison.after),
                "threshold": comparison.threshold,
                "before_text": comparison.before_text,
                "after_text": comparison.after_text,
                "threshold_text": comparison.threshold_text,
                "passes": comparison.passes,
            },
        }

    @property
    def is_cure(self) -> bool:
        """Whether the changed model was really trained, and trains where it did not before."""
        return self.outcome is Outcome.CURES

    @property
    def is_good(self) -> bool:
        """Whether the network is healthy afterwards, and likely to train.

        The metric that was wrong is then within its bound. The likelihood (`CURED`) is asked
        of specified networks alone: viability was fitted on these.
        """
        return self.outcome in (Outcome.CURES, Outcome.MEASURES)


@dataclass(frozen=True, kw_only=True, repr=False)
class Remedies(Sequence[Remedy]):
    """The remedies found for a network: cures, then what measures well, then what helps.

    As a sequence it holds remedies only; what was tried without success is in `refuted`.

    Attributes:
        before: The measurement of the network as it is.
        diagnosis: What is wrong with it.
        tried: Every change that was measured, ranked by outcome and cost. Of pairs only those that
            measure well, or help more than either change alone.
        advice: What else is worth trying; this was not measured.
        note: Why nothing or less was measured, and which weights no change can help since the loss
            does not reach them; "" where everything was measured and is reached.

    Example:
        >>> from chainrule import NetworkSpec, find_remedies
        >>> find_remedies(NetworkSpec(depth=2, activation="relu", init="he"), 2)
        Remedies(healthy: nothing to change)
    """

    before: GradientFlow
    diagnosis: Diagnosis
    tried: tuple[Remedy, ...]
    advice: tuple[Advice, ...] = ()
    note: str = ""

    def __repr__(self) -> str:
        return f"Remedies({self.diagnosis.verdict}: {self._counts})"

    def _repr_markdown_(self) -> str:
        """Show what was measured as a table in a notebook."""
        parts = [f"**Remedies** ({self.diagnosis.verdict}: {self._counts})"]
        if self.tried:
            metric = self.tried[0].comparison
            head = (
                f"change | {_escape(metric.name)}, wanted {metric.threshold_text} | then | effect"
            )
            rows = [
                f"{_escape(remedy.title)} | {remedy._steps} | {remedy.verdict_after} | "
                f"{_escape(remedy.outcome_text)}"
                for remedy in (*self, *self.refuted)
            ]
            parts.append("\n".join(f"| {row} |" for row in (head, "--- | --- | --- | ---", *rows)))
        parts.append(_escape(self.note))
        parts += [f"Advice, not measured: {_escape(each.title)}" for each in self.advice]
        return "\n\n".join(filter(None, parts))

    @property
    def _counts(self) -> str:
        if not self.tried:
            healthy = self.diagnosis.verdict is Verdict.HEALTHY
            return "nothing to change" if healthy else "nothing was tried"
        cures, helps, others = len(self.cures), len(self.helps), len(self.refuted)
        measured = len(self.measured)
        texts = (
            (cures, "cure" if cures == 1 else "cures"),
            (measured, "measures well" if measured == 1 else "measure well"),
            (helps, "helps" if helps == 1 else "help"),
            (others, "does not" if others == 1 else "do not"),
        )
        shown = texts if cures else texts[1:]  # cures are there only where training was tried
        return ", ".join(f"{count} {text}" for count, text in shown)

    @cached_property
    def cures(self) -> tuple[Remedy, ...]:
        """Changes that were really trained, and train where the model as it is does not."""
        return tuple(each for each in self.tried if each.outcome is Outcome.CURES)

    @cached_property
    def measured(self) -> tuple[Remedy, ...]:
        """Changes after which the network is healthy and likely to train, as measured."""
        return tuple(each for each in self.tried if each.outcome is Outcome.MEASURES)

    @cached_property
    def helps(self) -> tuple[Remedy, ...]:
        """Changes that bring the wrong metric nearer to its bound, and do no harm."""
        return tuple(each for each in self.tried if each.outcome is Outcome.HELPS)

    @cached_property
    def refuted(self) -> tuple[Remedy, ...]:
        """Changes that, measured, do not help or exchange one problem for another."""
        return tuple(each for each in self.tried if each.outcome in (Outcome.TRADES, Outcome.FAILS))

    def __iter__(self) -> Iterator[Remedy]:
        return iter((*self.cures, *self.measured, *self.helps))

    def __len__(self) -> int:
        return len(self.cures) + len(self.measured) + len(self.helps)

    @overload
    def __getitem__(self, index: int) -> Remedy: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Remedy, ...]: ...
    def __getitem__(self, index: int | slice) -> Remedy | tuple[Remedy, ...]:
        return (*self.cures, *self.measured, *self.helps)[index]


def compare_flows(
    before: GradientFlow,
    after: GradientFlow,
    *,
    title: str,
    reason: str,
    kinds: tuple[str, ...],
    diagnosis: Diagnosis | None = None,
    edits: tuple[Edit, ...] = (),
) -> Remedy:
    """Return what a change did, judged by the metric of the gravest finding before it.

    Weights that the loss reaches neither before nor after are ignored if more is wrong.

    Args:
        before: The measurement before; not healthy.
        after: The measurement after, of the same seeds.
        title: The change in words.
        reason: Why it could help.
        kinds: What kind of change it is.
        diagnosis: The diagnosis of `before`, if it is there already.
        edits: What was changed in the parameters of a model of yours.

    Raises:
        RemedyError: If nothing is wrong before.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flows = [
        ...     simulate(NetworkSpec(depth=15, activation="relu", init=init), 2)
        ...     for init in ("pytorch", "he")
        ... ]
        >>> compare_flows(*flows, title="He", reason="It fits.", kinds=("initialization",)).is_good
        True
    """
    diagnosis_before = diagnosis or diagnose(before)
    diagnosis_after = diagnose(after)
    judged_before = find_curable(diagnosis_before, before)
    judged_after = _find_rest(diagnosis_before, diagnosis_after, after)
    if not judged_before.findings:
        raise RemedyError(
            "before must be the flow of a network that is not healthy, but its diagnosis found "
            "nothing wrong, so there is nothing to compare. Compare two healthy flows by their "
            "own numbers, such as flow.gradient_ratio."
        )
    worst = judged_before.findings[0]
    comparison = Comparison(
        rule=worst.rule,
        metric=worst.metric,
        before=worst.value,
        after=measure_metric(after, worst.rule, clipped="clipping" in kinds),
        threshold=worst.threshold,
        beyond=worst.beyond,
    )
    return Remedy(
        title=title,
        reason=reason,
        kinds=kinds,
        outcome=Outcome.FAILS
        if describe_harm(before, after)
        else _judge(
            comparison,
            judged_before,
            judged_after,
            specified=after.spec is not None,
            cuts=not set(list_unreached(after)) <= set(list_unreached(before)),
        ),
        comparison=comparison,
        before=before,
        after=after,
        diagnosis_before=diagnosis_before,
        diagnosis_after=diagnosis_after,
        edits=edits,
    )


def describe_harm(before: GradientFlow, after: GradientFlow) -> str:
    """Return why a change is no help however gradients look: a loss blown up, or numbers lost."""
    bad, bad_before = count_non_finite(after)[0], count_non_finite(before)[0]
    broken = [p.name for p in after.parameters if (p.grad_non_finite or 0.0) > 0]
    if not math.isfinite(after.loss) or broken or (bad and bad >= bad_before):
        return "it leaves numbers that are infinite or undefined"
    if math.isfinite(before.loss) and before.spec is None:  # a specified one has a loss of ours
        rise = after.loss - before.loss
        if rise > (MOST_LOSS - 1.0) * abs(before.loss) and rise > 0.0 < before.loss:
            return (
                f"it raises the loss from {format_number(before.loss)} to "
                f"{format_number(after.loss)}"
            )
    return ""


def _describe_tried(optimizer: OptimizerTrial) -> str:
    return f"{optimizer.name} {optimizer.best.describe()}" if optimizer.best else ""


def prove(remedy: Remedy, before: Trial, after: Trial) -> Remedy:
    """Return a remedy with what trainings of the model as it is and of the changed one showed.

    It cures if the changed model trains and the other does not, or if it learns clearly more.

    Args:
        remedy: One that was measured.
        before: What `try_training` showed of the model as it is.
        after: The same of the changed copy.
    """
    if not after.telling:
        return replace(remedy, trial_before=before, trial_after=after)
    outcome = remedy.outcome
    if not after.trains and not after.fails and not _is_lost(after):  # slowly, or by heart
        return replace(remedy, trial_before=before, trial_after=after)
    if after.trains:
        gone, left = _read_learned(after), 1.0 - _read_learned(before)
        better = not before.trains or gone - (1.0 - left) >= CLEARLY * left
        outcome = Outcome.CURES if better else Outcome.HELPS
    else:
        outcome = Outcome.FAILS
    return replace(remedy, outcome=outcome, trial_before=before, trial_after=after)


def confirm(remedy: Remedy, longer: Trial, untouched: Trial) -> Remedy:
    """Return what looked like a cure after a longer training: refuted if the loss got lost.

    It is no more than a help if the loss does not fall below all that was seen without the change.

    Args:
        remedy: One that `prove` calls a cure.
        longer: What `confirm_training` showed.
        untouched: The same of the model as it is, or what `try_training` showed if it did not
            train.
    """
    if _is_lost(longer):
        return replace(remedy, outcome=Outcome.FAILS, trial_after=longer)
    if not _read_lowest(longer) < _read_lowest(untouched):
        return replace(remedy, outcome=Outcome.HELPS, trial_after=longer)
    return remedy


def _read_lowest(trial: Trial) -> float:
    """Return the lowest loss that a telling optimizer started from or reached."""
    best = [each.best for each in trial.telling if each.best is not None]
    losses = [loss for each in best for loss in (each.before, each.after) if math.isfinite(loss)]
    return min(losses, default=math.inf)


def _is_lost(trial: Trial) -> bool:
    """Whether the loss grew or became undefined with some optimizer, at every rate."""
    lost = (TrialOutcome.NON_FINITE, TrialOutcome.DIVERGED)
    return any(each.outcome in lost for each in trial.tried)


def _read_learned(trial: Trial) -> float:
    learned = [each.best.learned for each in trial.telling if each.best is not None]
    return max((value for value in learned if math.isfinite(value)), default=0.0)


def find_curable(diagnosis: Diagnosis, flow: GradientFlow) -> Diagnosis:
    """Return a diagnosis without unreached weights; all of it if nothing else is wrong."""
    rest = overlook(diagnosis, flow, IGNORED_BY_REMEDIES)
    return rest if rest.findings else diagnosis


def _find_rest(before: Diagnosis, after: Diagnosis, flow: GradientFlow) -> Diagnosis:
    """Return a diagnosis after a change without the weights that were unreached before it."""
    known = {finding.modules for finding in before.findings if finding.rule in IGNORED_BY_REMEDIES}
    same = all(f.modules in known for f in after.findings if f.rule in IGNORED_BY_REMEDIES)
    return overlook(after, flow, IGNORED_BY_REMEDIES) if same else after


def _judge(
    comparison: Comparison, before: Diagnosis, after: Diagnosis, *, specified: bool, cuts: bool
) -> Outcome:
    if comparison.closed < IMPROVED:
        return Outcome.FAILS
    if cuts:  # weights that were reached are reached no more
        return Outcome.TRADES
    if after.verdict is Verdict.HEALTHY:  # some metrics count as evidence only together with others
        chance = after.viability.sgd.probability
        viable = not specified or chance is None or chance >= CURED
        return Outcome.MEASURES if comparison.passes and viable else Outcome.HELPS
    known = {finding.verdict for finding in before.findings}
    if before.verdict is Verdict.NON_FINITE:
        known.add(Verdict.EXPLODING)  # what had overflowed has a size again
    if before.viability.sgd.probability is None or before.viability.sgd.probability < NOT_VIABLE:
        known.add(Verdict.HARD_TO_TRAIN)  # it was before, beneath what is graver
    new = {finding.verdict for finding in after.findings} - known
    return Outcome.TRADES if new else Outcome.HELPS


PREPARATION = "import chainrule\nremedies = chainrule.find_remedies(model, compute_loss)"
"""What a call of `apply_remedy` needs; the same model gives the same remedies again."""


def write_call(remedies: Remedies, number: int) -> str:
    """Return the line of code, or the shell command, that applies one remedy.

    Args:
        remedies: What was found.
        number: Its place in them, from 0.

    Returns:
        For a specification the command that measures the changed network. For a model of yours a
        line of Python that changes `model` in place; it needs `PREPARATION`.
    """
    remedy = remedies[number]
    if remedy.command:
        return remedy.command
    return f"chainrule.apply_remedy(remedies[{number}], model)  # {describe_edits(remedy.edits)}"


def write_recipe(remedies: Remedies, number: int) -> str:
    """Return everything that applies one remedy: a command, or code to paste.

    Args:
        remedies: What was found.
        number: Its place in them, from 0.

    Returns:
        Code expects `model` and `compute_loss`, as `find_remedies` was given them.
    """
    call = write_call(remedies, number)
    return call if remedies[number].command else f"{PREPARATION}\n{call}"


def write_search(flow: GradientFlow) -> str:
    """Return the command that looks for remedies for a network, and measures each."""
    if flow.spec is None:
        return "chainrule inspect FILE.py:FUNCTION --remedies"
    return f"{flow.spec.to_command()} --remedies"


def _escape(text: str) -> str:
    """Return a text that Markdown shows as it is, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", text).replace("\n", " ")
