"""`diagnose`: from the numbers of a flow to a verdict in words, with its evidence."""

import html
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from chainrule._utils.numbers import format_number, format_times
from chainrule.diagnosis.causes import (
    choose_measured_action,
    describe_growth,
    describe_large_inputs,
    put_cause_first,
)
from chainrule.diagnosis.note import Note
from chainrule.diagnosis.notes import list_notes
from chainrule.diagnosis.optimizer_rules import (
    OVERSHOOTS,
    describe_overshoot,
    list_partly_unheld,
)
from chainrule.diagnosis.origins import describe_cure
from chainrule.diagnosis.reach import read_unreached
from chainrule.diagnosis.rule import MEANINGS, Rule, Verdict, describe_worst, find_worst
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES, RULES
from chainrule.diagnosis.score import score_model
from chainrule.diagnosis.structure import list_explained
from chainrule.diagnosis.trial_rules import (
    DID_NOT_TRAIN,
    TRIAL_RULES,
    choose_failed_action,
    choose_failure,
    choose_tried_action,
    describe_failure,
    explain_failure,
    is_lessened,
    name_outcomes,
    read_failure,
    trains_all_the_same,
)
from chainrule.diagnosis.tried import describe_open, list_causes
from chainrule.diagnosis.viability.model import (
    NEGLIGIBLE,
    Outlook,
    Prospect,
    Viability,
    assess_viability,
    describe_cost,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.sharpness import Sharpness
from chainrule.flow.trial import Trial
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import get_initializer

ACTIONS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.NON_FINITE: "Ask chainrule.find_non_finite(model, compute_loss) for the operation "
        "and the line that make the first such number.",
        Verdict.UNDERFLOW: "Compute in bfloat16 or float32, or multiply the loss before the "
        "backward pass (torch.amp.GradScaler).",
        Verdict.SHAPES: "Give answers and targets the same shape; then measure again.",
        Verdict.SIGN: "Turn the sign of the loss; then measure again.",
        Verdict.FLAT_LOSS: "Look at the loss before the network: at its targets, at a function "
        "that is flat here, and at what is detached on the way to it.",
        Verdict.LARGE_LOSS: "Worth trying: a smaller initialization of what makes the output; then "
        "measure again.",
        Verdict.SYMMETRIC: "Draw the weights at random; then measure again.",
        Verdict.INPUTS: "Scale the inputs to mean 0 and standard deviation 1; then measure again.",
        Verdict.OUTPUT: "Give the loss what it expects; then measure again.",
        Verdict.OPTIMIZER: "Change the optimizer as the finding says; then measure again.",
        Verdict.LEARNING_RATE: "Change the learning rate as the finding says; then measure again.",
        Verdict.NO_GRADIENT: "Look for detach(), no_grad(), an unused module, or a parameter that "
        "forward() replaces.",
        Verdict.DEAD_UNITS: "Worth trying: a wider network, or Leaky ReLU; then measure again.",
        Verdict.EXPLODING: "Worth trying: {options}; then measure again.",
        Verdict.VANISHING: "Worth trying: {options}; then measure again.",
        Verdict.SATURATED: "Worth trying: {options}; then measure again.",
        Verdict.SIGNAL_COLLAPSE: "Worth trying: {options}; then measure again.",
        Verdict.HARD_TO_TRAIN: "Worth trying: {options}; then measure again.",
        Verdict.HEALTHY: "Nothing needs to change. Train it.",
    }
)
"""What to do next, by verdict; `{options}` is filled in with what suits the network."""

_RESIDUAL, _NORMALIZATION = "residual connections", "normalization"
_OPTIONS: Mapping[Verdict, tuple[str, ...]] = MappingProxyType(
    {
        Verdict.EXPLODING: ("{change}", _NORMALIZATION, "gradient clipping"),
        Verdict.VANISHING: ("{change}", _RESIDUAL, _NORMALIZATION),
        Verdict.SATURATED: ("{change}", "smaller inputs", _NORMALIZATION),
        Verdict.SIGNAL_COLLAPSE: ("{change}", _RESIDUAL, _NORMALIZATION),
        Verdict.HARD_TO_TRAIN: (_RESIDUAL, "fewer layers", "{change}"),
    }
)
"""What may be worth trying; what the network has already is left out."""

ACTION_AT_RISK = (
    "Train it and watch the loss. Nothing is wrong at the start, but with plain SGD many networks "
    "with values like these learned only in part. Residual connections or fewer layers are worth "
    "trying."
)
"""What to do next with a healthy network that may not train, if viability covers its kind."""

ACTION_WITH_SGD = (
    "Train it with plain SGD. Nothing is wrong at the start, but with Adam few networks with "
    "values like these learned."
)
"""What to do next with a healthy network that suits one optimizer only."""

ACTION_MEASURED = (
    "No measured value needs to change. Train it, or find out first whether it learns: "
    "chainrule.try_training(model, compute_loss)."
)
"""What to do next with a healthy model of yours: a measurement is no training."""

NO_PARAMETERS = (
    "Measure a model that has parameters. This one has none, so it has nothing to train."
)
"""What to do next with a model without parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, with its evidence.

    Attributes:
        rule: Name of the rule in the table of rules.
        verdict: What it amounts to.
        layers: Numbers of the weight layers concerned, input to output.
        modules: Names of the modules or parameters concerned.
        metric: What was measured, in words.
        value: The worst value that was measured.
        threshold: The bound that it is beyond.
        beyond: ">" or "<": on which side of the bound it is.
        evidence: The measurement in one sentence.
        reason: Why it matters, in plain language.
        source: Where reason or threshold come from.
        log_odds: By how much it moves the verdict on training with plain SGD: what its feature
            adds to the log-odds of `viability.sgd`, below 0 or 0.
        total: These log-odds; `None` where no estimate was made.
        worst: Name of the module that `value` was measured at; `None` if it is no single one's.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> diagnose(simulate(NetworkSpec(depth=12), 1)).findings[0].rule
        'vanishing_gradient'
    """

    rule: str
    verdict: Verdict
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    metric: str
    value: float
    threshold: float
    beyond: str
    evidence: str
    reason: str
    source: str
    log_odds: float = 0.0
    total: float | None = None
    worst: str | None = None

    @property
    def consequence(self) -> str:
        """Why it matters, and what the chance of training with plain SGD would be without it.

        Where nothing can be trained at all, a chance says nothing.
        """
        is_certain = self.verdict in (Verdict.NON_FINITE, Verdict.NO_GRADIENT)
        if self.log_odds > -NEGLIGIBLE or self.total is None or is_certain:
            return self.reason
        return f"{self.reason} For plain SGD: {describe_cost(self.total, self.log_odds)}."

    def __repr__(self) -> str:
        return f"Finding({self.rule}: {self.evidence})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a measurement means.

    Attributes:
        verdict: The gravest finding's verdict, or healthy.
        findings: Everything that is wrong, the gravest first.
        summary: One sentence.
        action: What to do next.
        viability: How likely SGD and Adam are to train the network, each with its reasons.
        notes: What attention and residual connections do, where it leaves the verdict as it is;
            and what was found in a network that trained all the same.
        trial: The training that was tried, which the verdict follows; `None` if none was.
        specified: Whether the network is described by a specification. The estimate of viability
            was fitted on such networks; of others it is no headline.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> diagnose(simulate(NetworkSpec(depth=12), 1)).verdict.value
        'vanishing'
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    summary: str
    action: str
    viability: Viability
    notes: tuple[Note, ...] = ()
    trial: Trial | None = None
    specified: bool = True

    @property
    def was_tried(self) -> bool:
        """Whether some training was tried."""
        return self.trial is not None and bool(self.trial.tried)

    @property
    def prospects(self) -> str:
        """What is known of training, in a few words: tried, estimated, or measured only."""
        if self.trial is not None and self.trial.tried:
            return f"tried: {name_outcomes(self.trial)}"
        if not self.specified:
            return "measured only"
        return f"SGD {_name_outlook(self.viability.sgd)}, Adam {_name_outlook(self.viability.adam)}"

    def __repr__(self) -> str:
        count = len(self.findings)
        found = f"{count or 'no'} finding{'' if count == 1 else 's'}"
        return f"Diagnosis({self.verdict}: {found}, {self.prospects})"

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows: the verdict, what is wrong, and what to do next."""
        lines = [
            f"**{str(self.verdict).capitalize()}**: {MEANINGS[self.verdict]}.",
            f"Training: {self.prospects}.",
            "\n".join(
                f"- *{each.verdict}*: {_escape(f'{each.evidence}. {each.consequence}')}"
                for each in self.findings
            ),
            "\n".join(
                f"- Worth knowing: {_escape(f'{each.evidence}. {each.meaning}')}"
                for each in self.notes
            ),
            _escape(self.action),
        ]
        return "\n\n".join(filter(None, lines))


def _name_outlook(prospect: Prospect) -> str:
    """Return whether it is viable; its probability where neither yes nor no is likely."""
    if prospect.word is Outlook.AT_RISK and prospect.probability is not None:
        return f"{100 * prospect.probability:.0f} %"
    return str(prospect.word)


def _escape(text: str) -> str:
    """Return Markdown that shows a text as it is: module names may hold any characters."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]#|~$])", r"\\\1", plain)


def diagnose(
    flow: GradientFlow,
    *,
    rules: Mapping[str, Rule] = RULES,
    trial: Trial | None = None,
    sharpness: Sharpness | None = None,
) -> Diagnosis:
    """Return the verdict on a measurement, every finding with its evidence, and what to do next.

    It looks at gradients that are too small or too large, at what reaches the first layer, at
    the forward signal, at saturation and at dead units. It never looks at the gradient ratio alone:
    where values shrink forward as much as gradients shrink backward, the ratio looks healthy. An
    ensemble is judged by its medians.

    If a training was tried, the verdict follows it. A network that did not train with any optimizer
    is hard to train, however healthy it looked. Where all optimizers trained it, values that are
    beyond their bounds become notes; what is wrong however the loss falls (weights that it does not
    reach, numbers that are not finite) stays a finding.

    Args:
        flow: A measurement by `inspect` or `simulate`.
        rules: What is looked for: the table of rules, or one of your own.
        trial: What `try_training` showed of the same model and loss; by default what the flow holds
            of it.
        sharpness: What `measure_sharpness` found with the optimizer: a learning rate far above the
            limit is a finding.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> diagnose(simulate(NetworkSpec(depth=4, activation="relu", init="he"), 1))
        Diagnosis(healthy: no findings, SGD viable, Adam viable)
    """
    viability = _score(assess_viability(flow), flow)
    findings = _find_all(flow, viability, rules)
    if sharpness is not None and (sharpness.excess or 0.0) > OVERSHOOTS.threshold:
        findings = _add_overshoot(sharpness, findings)
    notes = (*list_notes(flow), *_list_unheld_notes(flow))
    tried = flow.trial if trial is None else trial
    return _conclude(flow, findings, viability, notes, tried, rules)


def _add_overshoot(sharpness: Sharpness, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    found = Finding(
        rule=OVERSHOOTS.name,
        verdict=OVERSHOOTS.verdict,
        layers=(),
        modules=(),
        metric=OVERSHOOTS.metric,
        value=sharpness.excess or 0.0,
        threshold=OVERSHOOTS.threshold,
        beyond=OVERSHOOTS.beyond,
        evidence=describe_overshoot(sharpness),
        reason=OVERSHOOTS.reason,
        source=OVERSHOOTS.source,
    )
    order = list(Verdict)
    return tuple(sorted((*findings, found), key=lambda each: order.index(each.verdict)))


def _list_unheld_notes(flow: GradientFlow) -> Iterator[Note]:
    names = tuple(list_partly_unheld(flow))
    if names:
        yield Note(
            name="partly_held",
            modules=names,
            metric="trained parameters that the optimizer does not hold",
            value=float(len(names)),
            threshold=0.0,
            beyond=">",
            evidence=f"the optimizer does not hold {len(names)} of the parameters that the loss "
            f"reaches, such as {names[0]!r}",
            meaning="They stay as they are. This is right where they belong to another optimizer, "
            "or shall not learn (then requires_grad_(False) saves time).",
            source="follows from what an optimizer does",
        )


def _score(viability: Viability, flow: GradientFlow) -> Viability:
    """Return an outlook with the score of a model without a specification in it."""
    if flow.spec is not None or viability.sgd.word is not Outlook.UNKNOWN:
        return viability
    sgd, adam = (
        replace(each, probability=score_model(flow, each.optimizer))
        for each in (viability.sgd, viability.adam)
    )
    return replace(viability, sgd=sgd, adam=adam)


def _follow(
    flow: GradientFlow,
    trial: Trial,
    findings: tuple[Finding, ...],
    notes: tuple[Note, ...],
    ignored: Collection[str],
) -> tuple[tuple[Finding, ...], tuple[Note, ...]]:
    """Return findings and notes as they are after a training was tried."""
    if trial.fails:
        return _add_failure(trial, findings, ignored), notes
    if not trains_all_the_same(trial):
        return findings, notes
    lessened = [finding for finding in findings if is_lessened(finding.verdict)]
    excused = (
        f"Its loss falls all the same ({name_outcomes(trial)})."
        if describe_open(flow, trial)
        else f"It trains all the same ({name_outcomes(trial)}), so this is no fault of it."
    )
    added = tuple(
        Note(
            name=each.rule,
            modules=each.modules,
            metric=each.metric,
            value=each.value,
            threshold=each.threshold,
            beyond=each.beyond,
            evidence=each.evidence,
            meaning=excused,
            source=each.source,
        )
        for each in lessened
    )
    return tuple(each for each in findings if each not in lessened), (*added, *notes)


def _add_failure(
    trial: Trial, findings: tuple[Finding, ...], ignored: Collection[str]
) -> tuple[Finding, ...]:
    tried = {each.name for each in TRIAL_RULES}
    found = tuple(each for each in findings if each.rule not in tried)
    rest = [each for each in found if each.verdict is not Verdict.HARD_TO_TRAIN]
    rule = choose_failure(trial, is_explained=bool(rest))
    if rule.name in ignored:
        return found
    failure = Finding(
        rule=rule.name,
        verdict=rule.verdict,
        layers=(),
        modules=(),
        metric=rule.metric,
        value=read_failure(trial, rule),
        threshold=rule.threshold,
        beyond=rule.beyond,
        evidence=describe_failure(trial, rule),
        reason=explain_failure(trial, rule),
        source=rule.source,
    )
    order = list(Verdict)
    return tuple(sorted((*rest, failure), key=lambda each: order.index(each.verdict)))


def _temper(viability: Viability, findings: Sequence[Finding]) -> Viability:
    """Return an outlook that does not contradict findings: beside one, SGD is at risk at best.

    The estimate takes all values together, and one beyond its limit may weigh little in it.
    """
    if not findings or viability.sgd.word is not Outlook.VIABLE:
        return viability
    return replace(viability, sgd=replace(viability.sgd, word=Outlook.AT_RISK))


def overlook(
    diagnosis: Diagnosis,
    flow: GradientFlow,
    ignored: Collection[str] = IGNORED_BY_REMEDIES,
    *,
    rules: Mapping[str, Rule] = RULES,
) -> Diagnosis:
    """Return what a diagnosis says in addition to the findings of some rules.

    Args:
        diagnosis: The diagnosis of `flow`.
        flow: The measurement.
        ignored: Names of the rules whose findings are left out.
        rules: The rules that the diagnosis was made with.

    Returns:
        The diagnosis whose gravest finding is the gravest of the others. Without others it is
        healthy, or hard to train.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=12), 1)
        >>> overlook(diagnose(flow), flow, ["vanishing_gradient"]).findings[0].rule
        'vanishing_backward'
    """
    findings = tuple(each for each in diagnosis.findings if each.rule not in ignored)
    if len(findings) == len(diagnosis.findings):
        return diagnosis
    if not findings:
        rest = {name: rule for name, rule in rules.items() if name not in ignored and rule.last}
        findings = _find_all(flow, assess_viability(flow), rest)
    viability = assess_viability(flow)
    return _conclude(flow, findings, viability, diagnosis.notes, diagnosis.trial, rules, ignored)


def _find_all(
    flow: GradientFlow, viability: Viability, rules: Mapping[str, Rule]
) -> tuple[Finding, ...]:
    """Return what rules find, the gravest first.

    Where numbers are infinite or undefined, most rules would compare what is made of these.
    """
    found: list[Finding] = []
    for rule in sorted(rules.values(), key=lambda each: each.last):
        overflown = any(each.verdict is Verdict.NON_FINITE for each in found)
        if (rule.last and found) or (overflown and not rule.despite_overflow):
            continue
        found += _find(rule, flow)
    order = list(Verdict)
    found.sort(key=lambda each: order.index(each.verdict))
    return tuple(_weigh(_put_cause_first(found, flow), viability, rules))


_EFFECTS = frozenset({Verdict.VANISHING, Verdict.SIGNAL_COLLAPSE})


def _put_cause_first(found: list[Finding], flow: GradientFlow) -> list[Finding]:
    """Put the finding that names where gradients are lost before those that say that they are.

    It is a module that passes nothing on in time, where all layers that receive too little lie
    before it; or an average behind a normalization that makes all examples the same.
    """
    if not found or found[0].verdict not in _EFFECTS:
        return found
    small = {layer for each in found if each.rule == "vanishing_gradient" for layer in each.layers}
    for name in ("averaged_away", "unheard_steps", "vanishing_time"):
        cause = next((each for each in found if each.rule == name), None)
        if cause is None:
            continue
        if name == "averaged_away" or (small and cause.layers and max(small) < min(cause.layers)):
            return [cause, *(each for each in found if each is not cause)]
    return found


def _find(rule: Rule, flow: GradientFlow) -> Iterator[Finding]:
    """Yield what one rule finds: nothing, or all that is beyond its bound."""
    if not rule.applies(flow):
        return
    readings = rule.read(flow)
    wrong = [each for each in readings if each.value is not None and rule.is_beyond(each.value)]
    if wrong:
        worst, value = find_worst(rule, wrong)
        yield Finding(
            rule=rule.name,
            verdict=rule.verdict,
            layers=tuple(sorted({layer for each in wrong for layer in each.layers})),
            modules=tuple(name for each in wrong for name in each.modules),
            metric=rule.metric,
            value=float(value),
            threshold=rule.threshold,
            beyond=rule.beyond,
            evidence=(rule.describe or describe_worst)(rule, flow, readings, wrong),
            reason=(rule.explain(flow) if rule.explain else "") or rule.reason,
            source=rule.source,
            worst=worst.modules[0] if worst.where and worst.modules else None,
        )


def _weigh(
    findings: Iterable[Finding], viability: Viability, rules: Mapping[str, Rule]
) -> Iterator[Finding]:
    """Give every finding what its feature adds to the log-odds of plain SGD.

    Two findings that rest on one feature are one thing seen twice: the gravest carries what it
    does, so only the first of them carries it.
    """
    sgd = viability.sgd
    shares = {each.feature: each.log_odds for each in sgd.contributions}
    for finding in findings:
        share = shares.pop(rules[finding.rule].feature, 0.0)
        yield replace(finding, log_odds=share, total=sgd.log_odds)


def _conclude(
    flow: GradientFlow,
    findings: tuple[Finding, ...],
    viability: Viability,
    notes: tuple[Note, ...],
    trial: Trial | None,
    rules: Mapping[str, Rule],
    ignored: Collection[str] = (),
) -> Diagnosis:
    """Return the diagnosis that findings amount to, and what was tried."""
    if trial is not None:
        findings, notes = _follow(flow, trial, findings, notes, ignored)
    verdict = findings[0].verdict if findings else Verdict.HEALTHY
    return Diagnosis(
        verdict=verdict,
        findings=findings,
        summary=_summarize(flow, findings),
        action=_choose_action(flow, findings, viability, trial, rules, notes),
        viability=_temper(viability, findings),
        notes=notes,
        trial=trial,
        specified=flow.spec is not None,
    )


def _choose_action(
    flow: GradientFlow,
    findings: Sequence[Finding],
    viability: Viability,
    trial: Trial | None,
    rules: Mapping[str, Rule],
    notes: Sequence[Note],
) -> str:
    verdict = findings[0].verdict if findings else Verdict.HEALTHY
    if verdict is Verdict.NO_GRADIENT and not flow.parameters:
        return NO_PARAMETERS
    if verdict is Verdict.NON_FINITE and flow.origin is not None and not flow.origin.is_harmless:
        return _add_sizes(flow, describe_cure(flow.origin))
    # Where numbers are undefined, another finding may say why (sequences too short for CTC).
    speaking = findings if verdict is Verdict.NON_FINITE else findings[:1]
    actions = [rules[each.rule].action for each in speaking if each.rule in rules]
    made = next((action(flow) for action in actions if callable(action)), "")
    words = actions[0] if actions and isinstance(actions[0], str) else ""
    usual = made or words or ACTIONS[verdict].format(options=_list_options(flow, verdict))
    if verdict is Verdict.NON_FINITE and not (made or words):
        usual = _add_sizes(flow, usual)
    if findings:
        first = findings[0]
        usual = put_cause_first(flow, verdict, rules.get(first.rule), first.layers, usual)
    if trial is not None and trial.tried:
        is_explained = bool(findings) and findings[0].rule != DID_NOT_TRAIN.name
        causes = list_causes(flow, trial, notes, is_explained=is_explained)
        if trial.fails:
            return choose_failed_action(trial, usual, causes, is_explained=is_explained)
        doubt = describe_open(flow, trial)
        return choose_tried_action(verdict, trial, usual, doubt=doubt, causes=causes)
    return _choose_healthy_action(flow, viability, notes) if verdict is Verdict.HEALTHY else usual


def _add_sizes(flow: GradientFlow, action: str) -> str:
    """Return what to do against infinite numbers, with what makes them so large before."""
    return " ".join(filter(None, (describe_large_inputs(flow), describe_growth(flow), action)))


def _choose_healthy_action(flow: GradientFlow, viability: Viability, notes: Sequence[Note]) -> str:
    if flow.spec is None:
        return choose_measured_action(notes, ACTION_MEASURED)
    if viability.sgd.word is Outlook.AT_RISK:
        return ACTION_AT_RISK
    if viability.adam.word is Outlook.NOT_VIABLE:
        return ACTION_WITH_SGD
    return ACTIONS[Verdict.HEALTHY]


def _summarize(flow: GradientFlow, findings: Sequence[Finding]) -> str:
    if findings:
        return f"{findings[0].evidence[0].upper()}{findings[0].evidence[1:]}."
    ratio = flow.gradient_ratio
    norms = [norm for norm in flow.weight_gradient_norms if norm is not None]
    if ratio is None or not norms:
        return "No measured value is beyond its limit."
    if explained := list_explained(flow):
        return (
            f"The small gradients of {len(explained)} of {len(flow.weight_layers)} layers are "
            "explained by later parameters that start at or near zero. Once these have grown, the "
            "layers receive larger gradients. Nothing is beyond its limit."
        )
    unused = bool(read_unreached(flow).names)
    subject = (
        "The gradient of every layer that the loss uses" if unused else "Every layer's gradient"
    )
    return (
        f"{subject} lies between {format_number(min(norms))} and "
        f"{format_number(max(norms))}, and the gradient at layer 1 is {format_times(ratio)} that "
        "at the last layer."
    )


def _list_options(flow: GradientFlow, verdict: Verdict) -> str:
    """Return what is worth trying and is not there yet, in words."""
    there = set()
    if flow.residuals or any(call.role == "residual" for call in flow.layers):
        there.add(_RESIDUAL)
    if any(call.role == "normalization" for call in flow.layers) or any(
        each.normalization != "none" for each in flow.residuals
    ):
        there.add(_NORMALIZATION)
    options = [each for each in _OPTIONS.get(verdict, ()) if each not in there]
    words = [each.format(change=_suggest_change(flow)) for each in options]
    if len(words) < 3:
        return " or ".join(words)
    return f"{', '.join(words[:-1])}, or {words[-1]}"


def _suggest_change(flow: GradientFlow) -> str:
    """Return the change of activation or initialization that suits the network, in words."""
    spec = flow.spec
    if spec is None:
        return "an initialization that suits the activation"
    activation = ACTIVATIONS[spec.activation]
    recommended = get_initializer(activation.initialization)
    if spec.init == "random" and spec.weight_std == 0.0:  # nothing passes, whatever the activation
        return f"{recommended.label} initialization"
    if activation.derivative_max < 0.5:  # no initialization of the table makes up for it
        return f"an activation whose largest derivative is above {activation.derivative_max:g}"
    if spec.init == recommended.name:
        return "another activation with its own initialization"
    return f"{recommended.label} initialization"
