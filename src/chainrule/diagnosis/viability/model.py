"""`assess_viability`: how likely a freshly initialized network is to train, from one measurement.

"To train" means: some usual learning rate gets it more than 7/9 of the way from chance to always
right within 300 steps of a small classification task (`chainrule.training.trainability` says
exactly what).
The probability comes from a small additive model. A network without a fault has the base odds; each
feature that leaves its healthy range lowers them, the more the further it is out, and one that
leaves it on the other side may lower them too. So every verdict is a sum that can be read:
log-odds = base + Σ contributions. The constants (`constants.py`) were fitted on real
trainings by `benchmarks/viability.py`; docs/viability.md holds what came out.

Every feature is a ratio within one measurement, so none changes when the loss is multiplied by a
constant, which plain SGD can undo by its learning rate and Adam does not notice at all.

What it does not cover: a network that was trained already (small gradients are then a success),
momentum, weight decay, warm-up and schedules, trainings of many thousands of steps, recurrent
networks over long sequences, tasks that are hard for a healthy network too, and generalization.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from chainrule.diagnosis.structure import is_loss_flat, read_once
from chainrule.diagnosis.viability.constants import CONSTANTS, Constants
from chainrule.diagnosis.viability.features import FEATURES, Feature, are_lost, measure_features
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.spec.activations import ACTIVATIONS


class Outlook(StrEnum):
    """Whether an optimizer can be expected to train a network, the worst first.

    "not estimated" is said of networks of another kind than the model was fitted on.

    Example:
        >>> Outlook("at risk") is Outlook.AT_RISK
        True
    """

    NOT_VIABLE = "not viable"
    AT_RISK = "at risk"
    VIABLE = "viable"
    UNKNOWN = "not estimated"


VIABLE, NOT_VIABLE = 0.7, 0.3
"""From this probability on training is called viable; below that one it is called not viable."""

CERTAIN = -12.0
"""Log-odds contributed by what no optimizer survives: an undefined number, or no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """How much one feature moved the verdict.

    Attributes:
        feature: Its name.
        value: What was measured, as the model reads it (many are powers of ten); `None` if the
            flow has no such metric, which then moves nothing.
        log_odds: What it adds to the log-odds; 0 inside the healthy range, never above.
        words: The same in one sentence.
    """

    feature: str
    value: float | None
    log_odds: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """Whether one optimizer can be expected to train the network.

    Attributes:
        optimizer: "sgd" or "adam".
        probability: That some usual learning rate trains it within 300 steps, in (0, 1); `None`
            where the model has no ground to say (`Viability.covered`). `diagnose` gives models
            without a specification a score instead (`chainrule.diagnosis.score`), which ranks
            models and is no forecast: the word stays "not estimated".
        word: The probability in words.
        log_odds: ln(p ÷ (1 − p)): the base and all contributions together; `None` as above.
        base: Log-odds of a network without a fault.
        contributions: What each feature adds, the gravest first; none where nothing is said.
    """

    optimizer: str
    probability: float | None
    word: Outlook
    log_odds: float | None
    base: float
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viability:
    """Whether a network can be expected to train.

    SGD and Adam may differ: SGD moves each layer in proportion to its gradient, so a layer that
    receives little stays where it is, and one that receives much sets the learning rate for all.
    Adam divides by the size of each gradient and moves every layer alike; what it cannot mend is
    an input that leaves no trace in the output.

    Attributes:
        sgd: With plain SGD.
        adam: With Adam.
        covered: Whether the model has ground to say something: the network was built from a
            specification, is of the kind that it was fitted on (`is_fitted_kind`), and was measured
            with several examples. Otherwise nothing is estimated, unless no step could help: there
            are infinite or undefined numbers, or no gradient at all.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> assess_viability(simulate(NetworkSpec(depth=12), 1)).covered
        True
    """

    sgd: Prospect
    adam: Prospect
    covered: bool


@read_once
def assess_viability(flow: GradientFlow) -> Viability:
    """Return how likely plain SGD and Adam are to train the network, with the reasons.

    Args:
        flow: A measurement of a freshly initialized network by `inspect` or `simulate`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> assess_viability(simulate(NetworkSpec(depth=12), 1)).sgd.word.value
        'not viable'
    """
    hopeless = tuple(find_hopeless(flow))
    covered = flow.spec is not None and is_fitted_kind(flow)
    if covered or hopeless:
        values = measure_features(flow) if covered else {}
        sgd, adam = (judge_features(values, name, hopeless) for name in ("sgd", "adam"))
    else:
        sgd, adam = (
            Prospect(
                optimizer=name,
                probability=None,
                word=Outlook.UNKNOWN,
                log_odds=None,
                base=CONSTANTS[name].base,
                contributions=(),
            )
            for name in ("sgd", "adam")
        )
    return Viability(sgd=sgd, adam=adam, covered=covered)


@read_once
def estimate_like_networks(flow: GradientFlow) -> Prospect:
    """Return how many dense networks with values like these plain SGD trained.

    It speaks of the networks that the model was fitted on, not of the one that was measured.
    """
    return judge_features(measure_features(flow), "sgd", find_hopeless(flow))


def is_fitted_kind(flow: GradientFlow) -> bool:
    """Return whether a network is of the kind that the model was fitted on.

    These are stacks of dense layers of 16 to 256 units, with activations of the table, with or
    without normalization and residual connections, whose weights are not all zero, measured with
    several examples, by a loss that compares answers with targets (not by a critic or a density).
    """
    kinds = {call.kind for call in flow.layers if call.role == "weight"}
    activations = {call.kind for call in flow.layers if call.role == "activation"}
    hidden = {layer.name for layer in flow.weight_layers[:-1]}
    widths = [
        call.shape[-1] if call.shape else 1
        for call in flow.layers
        if call.name in hidden and call.role == "weight"
    ]
    return (
        kinds == {"Linear"}
        and not any(call.call for call in flow.layers if call.role == "weight")
        and activations <= _ACTIVATIONS
        and all(LEAST <= width <= MOST for width in widths)
        and not flow.attentions
        and bool(flow.weight_layers)
        and flow.weight_layers[-1].variation is not None
        and all(each.norm for each in flow.parameters if each.is_weight)
        and not _has_own_loss(flow)
    )


def _has_own_loss(flow: GradientFlow) -> bool:
    """Whether nothing in the loss is a usual comparison of the network's answers with targets."""
    parts = () if flow.loss_facts is None else flow.loss_facts.parts
    return bool(parts) and all(
        part.kind in {"custom", "penalty"} or not part.is_direct for part in parts
    )


LEAST, MOST = 16, 256
"""Widths of the networks that the model was fitted on."""

_ACTIVATIONS = {entry.module for entry in ACTIVATIONS.values()}


def judge_features(
    values: Mapping[str, float | None], optimizer: str, further: Iterable[Contribution] = ()
) -> Prospect:
    """Return what the model says of features.

    Args:
        values: By name; each may be `None`.
        optimizer: "sgd" or "adam".
        further: Contributions to add.
    """
    constants = CONSTANTS[optimizer]
    weighed = [_weigh(feature, values, constants) for feature in FEATURES.values()]
    log_odds = constants.base + math.fsum(each.log_odds for each in (*further, *weighed))
    found = [*further, *(_add_cost(each, log_odds) for each in weighed)]
    probability = _to_probability(log_odds)
    return Prospect(
        optimizer=optimizer,
        probability=probability,
        word=_name_probability(probability),
        log_odds=log_odds,
        base=constants.base,
        contributions=tuple(sorted(found, key=lambda each: each.log_odds)),
    )


def _name_probability(probability: float) -> Outlook:
    if probability >= VIABLE:
        return Outlook.VIABLE
    return Outlook.AT_RISK if probability >= NOT_VIABLE else Outlook.NOT_VIABLE


def _weigh(
    feature: Feature, values: Mapping[str, float | None], constants: Constants
) -> Contribution:
    value = values.get(feature.name)
    low = high = 0.0
    if value is not None:
        for slope in constants.slopes:
            if slope.feature != feature.name:
                continue
            if slope.beyond == "<":
                low -= slope.weight * max(0.0, slope.knot - value)
            else:
                high -= slope.weight * max(0.0, value - slope.knot)
    log_odds = low + high
    if value is None:
        words = f"{feature.label}: not measured"
    else:
        words = f"{feature.label} is {feature.format(value, rounded=are_lost(values))}"
        if log_odds < -NEGLIGIBLE:
            meaning = feature.low if low < high else feature.high
            words += f": {meaning}"
    return Contribution(feature=feature.name, value=value, log_odds=log_odds, words=f"{words}.")


NEGLIGIBLE = 0.05
"""Log-odds below this are not worth a word."""


def _add_cost(contribution: Contribution, total: float) -> Contribution:
    """Return a contribution whose words say what the chance would be without it, if it matters."""
    if contribution.value is None or contribution.log_odds >= -NEGLIGIBLE:
        return contribution
    cost = describe_cost(total, contribution.log_odds)
    return replace(contribution, words=f"{contribution.words} {cost[0].upper()}{cost[1:]}.")


def describe_cost(total: float, log_odds: float) -> str:
    """Return what the chance of a network would be without one contribution, in words.

    Args:
        total: The network's log-odds.
        log_odds: The contribution, 0 or below.

    Example:
        >>> describe_cost(-1.8, -2.3), describe_cost(-12.0, -2.3)
        ('without this, the chance would be 62 % instead of 14 %', 'without this alone, the chance \
would still be less than 1 %')
    """
    now, else_ = (describe_probability(_to_probability(v)) for v in (total, total - log_odds))
    if now == else_:
        return f"without this alone, the chance would still be {now}"
    return f"without this, the chance would be {else_} instead of {now}"


def _to_probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


def describe_probability(value: float) -> str:
    """Return a probability in percent; near 0 and 1, as "less than 1 %" and "more than 99 %".

    Example:
        >>> describe_probability(0.27), describe_probability(0.001)
        ('27 %', 'less than 1 %')
    """
    if value < 0.01:
        return "less than 1 %"
    return "more than 99 %" if value > 0.99 else f"{100 * value:.0f} %"


def find_hopeless(flow: GradientFlow) -> Iterable[Contribution]:
    """Yield what needs no model: undefined numbers, or no gradient at all."""
    norms = [n for layer in flow.weight_layers if (n := layer.weight_gradient_norm) is not None]
    if not flow.has_finite_gradients or not all(map(math.isfinite, norms)):
        yield Contribution(
            feature="non_finite",
            value=None,
            log_odds=CERTAIN,
            words="The loss or the gradient of a parameter is infinite or undefined, and one step "
            "spreads that to the weights.",
        )
    elif is_loss_flat(flow):
        yield Contribution(
            feature="no_gradient",
            value=None,
            log_odds=CERTAIN,
            words="The loss does not react to the output, so no step makes it smaller.",
        )
    elif not any(p.grad_norm is not None and p.grad_norm > 0 for p in flow.parameters):
        yield Contribution(
            feature="no_gradient",
            value=None,
            log_odds=CERTAIN,
            words="No parameter receives a gradient, so no step changes anything.",
        )
