"""A measurement in words and short values, for every page, report and terminal that shows one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number, format_part, split_number
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rule import MEANINGS, Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.diagnosis.structure import list_explained
from chainrule.diagnosis.viability.model import (
    VIABLE,
    Outlook,
    Prospect,
    describe_probability,
)
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import KIND_NAMES
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import WeightLayer
from chainrule.flow.trial import OptimizerTrial, Trial, TrialOutcome
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import FIELD_NAMES, NetworkSpec

GOOD, WARN, BAD, PLAIN = "good", "warn", "bad", ""
"""States of a card; a page colours them, and never by colour alone."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a verdict looks: a sign that differs without colour, too, and a state."""

    icon: str
    state: str


LOOKS: Mapping[Verdict, Look] = MappingProxyType(
    {
        Verdict.HEALTHY: Look("✔", GOOD),
        Verdict.VANISHING: Look("▼", WARN),
        Verdict.EXPLODING: Look("▲", BAD),
        Verdict.SATURATED: Look("▬", WARN),
        Verdict.SIGNAL_COLLAPSE: Look("◆", WARN),
        Verdict.HARD_TO_TRAIN: Look("◇", WARN),
        Verdict.DEAD_UNITS: Look("✖", BAD),
        Verdict.NON_FINITE: Look("∞", BAD),
        Verdict.NO_GRADIENT: Look("∅", BAD),
        Verdict.UNDERFLOW: Look("↧", BAD),
        Verdict.SHAPES: Look("⊠", BAD),
        Verdict.SIGN: Look("⊖", BAD),
        Verdict.FLAT_LOSS: Look("▁", BAD),
        Verdict.LARGE_LOSS: Look("△", WARN),
        Verdict.SYMMETRIC: Look("≡", BAD),
        Verdict.INPUTS: Look("⇥", WARN),
        Verdict.OUTPUT: Look("⊘", WARN),
        Verdict.OPTIMIZER: Look("⊙", WARN),
        Verdict.LEARNING_RATE: Look("⇕", WARN),
    }
)

TRIAL_LOOKS: Mapping[TrialOutcome, Look] = MappingProxyType(
    {
        TrialOutcome.TRAINED: Look("●", GOOD),
        TrialOutcome.SLOW: Look("◐", WARN),
        TrialOutcome.FALLING: Look("◔", BAD),
        TrialOutcome.FLAT: Look("○", BAD),
        TrialOutcome.DIVERGED: Look("○", BAD),
        TrialOutcome.NON_FINITE: Look("○", BAD),
    }
)

NOT_TRIED = Look("◌", PLAIN)

OUTLOOK_LOOKS: Mapping[Outlook, Look] = MappingProxyType(
    {
        Outlook.VIABLE: Look("●", GOOD),
        Outlook.AT_RISK: Look("◐", WARN),
        Outlook.NOT_VIABLE: Look("○", BAD),
        Outlook.UNKNOWN: Look("◌", PLAIN),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One status card.

    Attributes:
        title: What it is about.
        digits: The value's digits, or a word.
        exponent: The value's power of ten, `None` where it needs none.
        icon: A sign for the state.
        state: "good", "warn", "bad", or "" where nothing is judged.
        word: The judgement in a few words.
        note: What the value is, or how to read it.
        badge: A second judgement with a look of its own, and its words; `None` for none.
    """

    title: str
    digits: str
    exponent: int | None = None
    icon: str = ""
    state: str = PLAIN
    word: str = ""
    note: str = ""
    badge: tuple[Look, str] | None = None


def describe_verdict(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    """Return what the verdict means, in a few words; how many layers get too little, if known.

    Args:
        flow: A measurement.
        diagnosis: What it means.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=30, activation="relu", init="xavier"), 2)
        >>> describe_verdict(flow, diagnose(flow))
        'all 30 layers get too small a weight gradient to learn'
    """
    first = diagnosis.findings[0] if diagnosis.findings else None
    count = len(flow.weight_layers)
    if first is None or first.rule != "vanishing_gradient" or not first.layers or count < 2:
        return MEANINGS[diagnosis.verdict]
    few = len(first.layers)
    who = f"all {count}" if few == count else f"{few} of {count}"
    return f"{who} layers {'gets' if few == 1 else 'get'} too small a weight gradient to learn"


def build_cards(flow: GradientFlow, diagnosis: Diagnosis) -> tuple[Card, ...]:
    """Return the four status cards of a measurement, with or without weight layers.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> [card.title for card in build_cards(flow, diagnose(flow))][0]
        'Weight gradient at layer 1'
    """
    layers = flow.weight_layers
    look = LOOKS[diagnosis.verdict]
    verdict = Card(
        title="Diagnosis",
        digits=str(diagnosis.verdict).capitalize(),
        icon=look.icon,
        state=look.state,
        note=start_sentence(describe_verdict(flow, diagnosis)),
        badge=(
            _choose_look(diagnosis),
            describe_viability(diagnosis) + name_depth(flow, diagnosis),
        ),
    )
    if not layers:
        none = "all parameters together" if flow.parameters else "the model has no parameters"
        return (
            _show("Loss", flow.loss, note="what gradients are taken of"),
            _show("Gradient of the parameters", flow.gradient_norm, note=none),
            Card(title="Weight layers", digits="0", note="no weight matrix or kernel was used"),
            verdict,
        )
    first, last = layers[0], layers[-1]
    norms = flow.weight_gradient_norms
    if len(layers) == 1:
        return (
            _show("Loss", flow.loss, note="what gradients are taken of"),
            _judge_norm("Weight gradient at the only layer", first, flow, diagnosis),
            Card(title="Weight layers", digits="1", note="a ratio needs two layers"),
            verdict,
        )
    return (
        _judge_norm("Weight gradient at layer 1", first, flow, diagnosis),
        _judge_norm(f"Weight gradient at layer {len(layers)}, the last", last, flow, diagnosis),
        _judge_ratio(flow.gradient_ratio, norms, diagnosis),
        verdict,
    )


def describe_loss(flow: GradientFlow) -> str:
    """Return the kind of the loss, and what guessing would give, in words; "" if not known.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> describe_loss(simulate(NetworkSpec(depth=3, width=4), 2))
        ''
    """
    facts = flow.loss_facts
    if facts is None:
        return ""
    kind = KIND_NAMES.get(facts.kind, facts.kind)
    if facts.guessing is None:
        return kind
    return f"{kind}, guessing gives {format_number(facts.guessing)}"


def _choose_look(diagnosis: Diagnosis) -> Look:
    """Return how what is known of training looks."""
    best = diagnosis.trial.best if diagnosis.trial is not None else None
    if diagnosis.trial is not None and best is not None:
        return _look_at_trial(best, diagnosis.trial)
    return OUTLOOK_LOOKS[diagnosis.viability.sgd.word] if diagnosis.specified else NOT_TRIED


def _look_at_trial(optimizer: OptimizerTrial, trial: Trial) -> Look:
    if optimizer.outcome is None or optimizer not in trial.telling:
        return NOT_TRIED
    return TRIAL_LOOKS[optimizer.outcome]


def describe_viability(diagnosis: Diagnosis) -> str:
    """Return in a few words whether SGD trains it, and Adam where it differs: tried or estimated.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=16), 2)
        >>> describe_viability(diagnose(flow)).split()[0]
        'training'
    """
    if diagnosis.was_tried or not diagnosis.specified:
        return diagnosis.prospects
    sgd, adam = diagnosis.viability.sgd.word, diagnosis.viability.adam.word
    if sgd is Outlook.UNKNOWN:
        return "measured only: training is not estimated"
    return f"training {sgd}" if adam == sgd else f"training {sgd} with SGD, {adam} with Adam"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one optimizer can be expected to do, in words.

    Attributes:
        look: Its sign and state.
        title: "SGD: not viable".
        note: The probability, in a sentence.
        reasons: What lowered it, the gravest first; empty if nothing did.
        further: Those of them that no finding reports; for SGD only, which the findings are about.
    """

    look: Look
    title: str
    note: str
    reasons: tuple[str, ...]
    further: tuple[str, ...]


_MOST_REASONS = 3
_SLIGHT = 0.2
"""Log-odds below which a reason is not reported."""


def build_forecasts(diagnosis: Diagnosis) -> tuple[Forecast, ...]:
    """Return what optimizers did when they were tried, or what can be expected of them, and why.

    The estimate was fitted on specified networks; of a model of yours it says nothing reliable, so
    there it is not shown.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> [forecast.title[:4] for forecast in build_forecasts(diagnose(flow))]
        ['SGD:', 'Adam']
    """
    trial = diagnosis.trial
    if trial is not None and trial.tried:
        return tuple(_describe_trial(each, trial) for each in trial.optimizers)
    if not diagnosis.specified:
        why = f"training was not tried: {trial.skipped}" if trial else NOT_TRIED_YET
        return (Forecast(look=NOT_TRIED, title="Measured only", note=why, reasons=(), further=()),)
    doubt = ""
    if diagnosis.findings and (diagnosis.viability.sgd.probability or 0.0) >= VIABLE:
        doubt = ". It comes from all values together, and one of them is beyond its limit"
    reported = {RULES[finding.rule].feature for finding in diagnosis.findings}
    both = (("SGD", diagnosis.viability.sgd), ("Adam", diagnosis.viability.adam))
    return tuple(
        Forecast(
            look=OUTLOOK_LOOKS[prospect.word],
            title=f"{name}: {prospect.word}",
            note=_describe_chance(prospect, doubt),
            reasons=tuple(
                each.words for each in prospect.contributions if each.log_odds < -_SLIGHT
            )[:_MOST_REASONS],
            further=tuple(
                each.words
                for each in prospect.contributions
                if each.log_odds < -_SLIGHT and each.feature not in reported and name == "SGD"
            ),
        )
        for name, prospect in both
    )


NOT_TRIED_YET = (
    "whether it learns was not tried. To find out: chainrule.try_training(model, compute_loss), or "
    "chainrule inspect TARGET --try"
)


def _describe_trial(optimizer: OptimizerTrial, trial: Trial) -> Forecast:
    best = optimizer.best
    if best is None or optimizer.outcome is None:
        return Forecast(
            look=NOT_TRIED,
            title=f"{optimizer.name}: not tried",
            note=optimizer.skipped,
            reasons=(),
            further=(),
        )
    telling = optimizer in trial.telling
    word = str(optimizer.outcome) if telling else "learned the one batch"
    others = tuple(
        f"At {format_number(rate.rate)}: {rate.describe()}."
        for rate in optimizer.rates
        if rate is not best
    )
    note = f"at a learning rate of {format_number(best.rate)}: {best.describe_loss()}"
    if not telling:
        note += ". The same batch came every time: this shows that it can learn it by heart, not "
        note += "that it learns what new batches have in common"
    return Forecast(
        look=_look_at_trial(optimizer, trial),
        title=f"{optimizer.name}: {word}",
        note=note,
        reasons=others,
        further=others,
    )


def describe_trial(trial: Trial) -> str:
    """Return how a training was tried, in one sentence.

    Example:
        >>> describe_trial(Trial(optimizers=(), passes=0, limit=300, fresh=False, kept=0,
        ...     skipped="no room"))
        'Training was not tried: no room.'
    """
    if trial.skipped:
        return f"Training was not tried: {trial.skipped}."
    judged = (
        f"a batch of its own for every step, judged on {trial.kept} others"
        if trial.fresh
        else "one batch, repeated"
    )
    level = ""
    if trial.guessing is not None:
        level = f"; the best constant answer has a loss of {format_number(trial.guessing)}"
    sentence = (
        f"Tried on copies with {trial.passes:g} forward and backward passes: {judged}{level}."
    )
    return " ".join((sentence, *trial.notes))


_RATES: Mapping[str, str] = MappingProxyType({"sgd": "0.001 to 1", "adam": "0.0001 to 0.01"})
"""The learning rates that the estimate was fitted with (`chainrule.training.trainability`)."""


def _describe_chance(prospect: Prospect, doubt: str) -> str:
    """Return the probability, and whose learning rate it is about; or why there is none."""
    if prospect.probability is None or prospect.word is Outlook.UNKNOWN:
        return (
            "measured only. The estimate was fitted on dense networks of 16 to 256 units that are "
            "built from a specification, and this is another kind"
        )
    return (
        "the chance that it learns within 300 steps, at the best learning rate from "
        f"{_RATES[prospect.optimizer]}, is {describe_probability(prospect.probability)}{doubt}"
    )


def explain_difference(diagnosis: Diagnosis) -> str:
    """Return how it was tried; else why SGD and Adam are judged differently, if they are.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> explain_difference(diagnose(simulate(NetworkSpec(activation="relu", init="he"), 2)))
        ''
    """
    if diagnosis.trial is not None and diagnosis.trial.tried:
        return describe_trial(diagnosis.trial)
    if not diagnosis.specified or diagnosis.viability.sgd.word == diagnosis.viability.adam.word:
        return ""
    return (
        "SGD changes each layer in proportion to its gradient. A layer with a small gradient "
        "hardly changes, and the layer with the largest gradient limits the learning rate for all. "
        "Adam divides by the size of each gradient, so all layers change by similar amounts."
    )


def name_depth(flow: GradientFlow, diagnosis: Diagnosis) -> str:
    """Return how deep the network is that an estimate of its training holds for; "" without one.

    Args:
        flow: A measurement.
        diagnosis: What it means.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=16), 2)
        >>> name_depth(flow, diagnose(flow))
        ' (3 layers)'
    """
    unknown = diagnosis.viability.sgd.word is Outlook.UNKNOWN
    if diagnosis.was_tried or not diagnosis.specified or unknown:
        return ""
    count = len(flow.weight_layers)
    return f" ({count} layer{'' if count == 1 else 's'})"


def _show(title: str, value: float | None, *, note: str) -> Card:
    digits, exponent = _split(value)
    return Card(title=title, digits=digits, exponent=exponent, note=note)


def _judge_norm(title: str, layer: WeightLayer, flow: GradientFlow, diagnosis: Diagnosis) -> Card:
    """Return the card of one layer's gradient, which never says other than the verdict does."""
    norm = layer.weight_gradient_norm
    small, large = read_usable_range(flow)
    healthy = diagnosis.verdict is Verdict.HEALTHY
    icon, state, word = "✔", GOOD, "usable"
    if norm is None:
        icon, state, word = "∅", PLAIN if healthy else BAD, "no gradient reaches it"
    elif not math.isfinite(norm):
        icon, state, word = "∞", BAD, "not a finite number"
    elif norm < small and healthy:
        icon, state = "▽", PLAIN
        word = "zero at the start" if norm == 0.0 else "small at the start"
        if layer.layer in list_explained(flow):
            word += ", until a later parameter has grown"
    elif norm < small:
        icon, state = "▼", WARN
        word = "exactly zero" if norm == 0.0 else f"too small (below {format_number(small)})"
    elif norm > large:
        icon, state, word = "▲", BAD, f"too large (above {format_number(large)})"
    digits, exponent = _split(norm)
    # Names of specified networks are ours and say nothing new.
    note = f"‖∂𝓛/∂W‖ of {layer.name}" if flow.spec is None and layer.name else "‖∂𝓛/∂W‖"
    return Card(
        title=title,
        digits=digits,
        exponent=exponent,
        icon=icon,
        state=state,
        word=word,
        note=note,
    )


_RATIO_WORDS: tuple[tuple[float, str, str, str], ...] = (
    (0.01, "▼", WARN, "shrinks on the way back"),
    (0.1, "▽", PLAIN, "far smaller at layer 1"),
    (0.5, "▽", PLAIN, "smaller at layer 1"),
    (2.0, "✔", GOOD, "similar at both ends"),
    (10.0, "△", PLAIN, "larger at layer 1"),
    (100.0, "△", PLAIN, "far larger at layer 1"),
    (math.inf, "▲", BAD, "grows on the way back"),
)
"""What is said of the ratio of the first to the last weight gradient: up to which ratio, with which
sign, state and words. Similar is within a factor of two."""

_PARTS = ("half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth",
          "a tenth")  # fmt: skip


def _say_ratio(ratio: float) -> tuple[str, str, str]:
    """Return sign, state and words for a ratio; for one of some size, about how much it is."""
    row = next((row for row in _RATIO_WORDS if ratio < row[0]), _RATIO_WORDS[-1])
    icon, state, words = row[1:]
    if 0.1 <= ratio < 0.5:
        words += f": about {_PARTS[round(1 / ratio) - 2]}"
    elif 2.0 <= ratio < 10.0:
        words += f": about {ratio:.0f} times"
    return icon, state, words


def _judge_ratio(
    ratio: Quantity | None, norms: Sequence[Quantity | None], diagnosis: Diagnosis
) -> Card:
    if ratio is None or math.isnan(ratio):
        icon, state, word = "∅", BAD, "undefined"
    else:
        icon, state, word = _say_ratio(ratio)
    if diagnosis.verdict is Verdict.HEALTHY and state != GOOD:  # a ratio alone is no fault
        icon, state = {"▼": "▽", "▲": "△"}.get(icon, icon), PLAIN
    digits, exponent = _split(ratio)
    return Card(
        title="Gradient ratio, first ÷ last",
        digits=digits,
        exponent=exponent,
        icon=icon,
        state=state,
        word=word,
        note=_read_ratio(ratio, norms),
    )


def _read_ratio(ratio: float | None, norms: Sequence[Quantity | None]) -> str:
    if ratio is None:
        return "the first or the last layer receives no gradient"
    if math.isnan(ratio):
        zero = norms[0] == 0.0 and norms[-1] == 0.0
        return "both gradients are zero" if zero else "one of the gradients is not a number"
    return f"the weight gradient of layer 1 is {format_part(ratio)} the last layer's"


_SHOWN = {
    "depth",
    "width",
    "activation",
    "init",
    "residual",
    "normalization",
    "clip_norm",
    "seed",
    "dtype",
}


def describe_subject(flow: GradientFlow) -> str:
    """Return what was measured, in one line.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> describe_subject(flow)
        '3 layers × 4 units, Sigmoid, PyTorch default initialization'
    """
    spec = flow.spec
    if spec is None:
        counts = (
            (len(flow.weight_layers), "weight layer"),
            (len(flow.layers), "module output"),
            (len(flow.parameters), "parameter"),
        )
        return ", ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counts)
    return describe_spec(spec)


def describe_spec(spec: NetworkSpec) -> str:
    """Return what a specified network is, in one line.

    Example:
        >>> from chainrule import NetworkSpec
        >>> describe_spec(NetworkSpec(depth=3, width=4))
        '3 layers × 4 units, Sigmoid, PyTorch default initialization'
    """
    others = spec.model_dump(exclude=_SHOWN, exclude_defaults=True)
    extras = [
        f"{spec.residual} residual connections" if spec.residual != "none" else "",
        spec.normalization if spec.normalization != "none" else "",
        f"gradients clipped to {format_number(spec.clip_norm)}"
        if spec.clip_norm is not None
        else "",
    ]
    parts = [
        f"{spec.depth} layer{'' if spec.depth == 1 else 's'}"
        f" × {spec.width} unit{'' if spec.width == 1 else 's'}",
        ACTIVATIONS[spec.activation].label,
        f"{INITIALIZERS[spec.init].label} initialization",
        *(extra for extra in extras if extra),
        *(f"{FIELD_NAMES[name]} {_write(value)}" for name, value in others.items()),
    ]
    return ", ".join(parts)


def describe_attention(flow: GradientFlow) -> str:
    """Return what the attention of a model is like, in one sentence; nothing without attention.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> describe_attention(flow)
        ''
    """
    if not flow.attentions:
        return ""
    entropies = [each.entropy for each in flow.attentions]
    low, high = min(entropies), max(entropies)
    count = f"{len(entropies):,} computation{'' if len(entropies) == 1 else 's'} of attention"
    if any(map(math.isnan, entropies)):
        span = "undefined in some"
    elif format_number(low) == format_number(high):
        span = format_number(low)
    else:
        span = f"{format_number(low)} to {format_number(high)}"
    return f"{count}, relative entropy {span} (0 is one-hot, 1 is uniform)"


def describe_measurement(flow: GradientFlow) -> str:
    """Return how it was measured, in one line.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> describe_measurement(flow)
        'median of 2 networks, float32, cpu'
    """
    count = f"median of {flow.ensemble_size} networks" if flow.ensemble_size > 1 else "one network"
    dtypes = "/".join(dict.fromkeys(parameter.dtype for parameter in flow.parameters))
    return ", ".join(part for part in (count, dtypes or "no parameters", flow.device) if part)


def describe_versions(flow: GradientFlow) -> str:
    """Return what measured it, in one line.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> describe_versions(flow).split()[0]
        'chainrule'
    """
    return f"chainrule {flow.chainrule_version}, PyTorch {flow.torch_version}"


def _split(value: float | None) -> tuple[str, int | None]:
    """Return a number as a page writes it: digits, and a power of ten where it needs one."""
    if value is None:
        return "none", None
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite", None
    return split_number(value)


def _write(value: str | float) -> str:
    return value if isinstance(value, str) else format_number(value)


def start_sentence(text: str) -> str:
    """Return a clause as a sentence.

    Example:
        >>> start_sentence("a clause")
        'A clause.'
    """
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
