"""Rules about the optimizer: parameters that it does not hold, steps of an unusable size."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.rule import Reading, Rule, Verdict, find_worst
from chainrule.diagnosis.structure import is_loss_flat
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.optimizer import LOST_STEP, SUITED_EPSILON
from chainrule.flow.precision import FORMATS
from chainrule.flow.records import ParameterFlow
from chainrule.flow.sharpness import Sharpness

EPSILON = 1e-8
"""What Adam adds to the size of a gradient before it divides by it, unless it is told otherwise."""

SHORTER = 100.0
"""How many times shorter Adam's steps may be: so much lies between the usual rates, 1e-4 to 1e-2.
Measured (docs/truth.md): models whose loss was divided by 10⁸ trained with Adam (about 30 times
shorter), those with 10¹⁰ did not (about 3,000 times)."""

UNTRAINED = 0.5
"""Loss ÷ loss of guessing from which on small gradients are no sign that training is done."""

DECAY = 3.0
"""Pull of the weight decay ÷ pull of the loss from which on training comes to nothing. Measured on
a regression and a classifier with SGD, Adam and AdamW: of 19 trainings below 1 all learned, of 6
from 1 to 3 the half, of 5 above that none (their weights went to zero)."""

STEPS = 10_000
"""Steps after which something should have moved."""

OVERSHOOT = 6.0
"""How many times the learning rate may exceed 2 ÷ λ: networks of ReLU were seen to come back up to
12 ÷ λ (Lewkowycz et al. 2020, arXiv 2003.02218)."""


def _list_trained(
    flow: GradientFlow, rates: Sequence[float | None] | None = None
) -> list[tuple[ParameterFlow, float | None]]:
    """Return the parameters that the loss reaches, with their learning rates, or with others."""
    if flow.optimizer is None:
        return []
    pairs = zip(flow.parameters, flow.optimizer.rates if rates is None else rates, strict=True)
    return [(parameter, rate) for parameter, rate in pairs if parameter.status == "measured"]


def list_unheld(flow: GradientFlow) -> list[str]:
    """Return the names of trained parameters that the loss reaches and no optimizer holds."""
    return [parameter.name for parameter, rate in _list_trained(flow) if rate is None]


def _read_unheld(flow: GradientFlow) -> list[Reading]:
    trained, names = _list_trained(flow), list_unheld(flow)
    if not trained:
        return []
    return [Reading(value=len(names) / len(trained), modules=tuple(names))]


def list_planned(flow: GradientFlow) -> tuple[float | None, ...]:
    """Return the largest learning rates that are known of the parameters: with a schedule, its own.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_planned(simulate(NetworkSpec(depth=3, width=4)))
        ()
    """
    return () if flow.optimizer is None else flow.optimizer.planned or flow.optimizer.rates


def _read_planned_step(flow: GradientFlow) -> list[Reading]:
    """Return the first step ÷ the weights at the rates that a schedule leads to.

    It may begin, and end, near 0. At a rate of 0, the steps of any optimizer are 0, unless it finds
    their size itself.
    """
    optimizer = flow.optimizer
    if optimizer is None or optimizer.steps != "other" or flow.ensemble_size != 1:
        return _read_step(flow, list_planned(flow))
    held = [rate for _, rate in _list_trained(flow, list_planned(flow)) if rate is not None]
    takes = optimizer.default_rate is not None and optimizer.name not in FIND_THEIR_OWN
    return [Reading(value=0.0)] if held and takes and not any(held) else []


def _read_step(flow: GradientFlow, rates: Sequence[float | None] | None = None) -> list[Reading]:
    """Return the norm of the first step of all held weights together ÷ the norm of these.

    The step is that at the rates of the optimizer, or at others.
    """
    optimizer = flow.optimizer
    if optimizer is None or optimizer.steps == "other" or flow.ensemble_size != 1:
        return []
    steps, sizes, names = [], [], []
    for parameter, rate in _list_trained(flow, rates):
        if rate is None or not parameter.is_weight or parameter.grad_norm is None:
            continue
        norm = float(parameter.grad_norm)
        if optimizer.steps == "gradient":
            step = rate * norm / (1.0 - min(optimizer.momentum, 0.999))
        else:
            root = math.sqrt(math.prod(map(float, parameter.shape)))
            entry = norm / root if root else 0.0  # root mean square of the gradient's entries
            step = rate * root * entry / (entry + optimizer.epsilon) if entry > 0 else 0.0
        steps.append(step)
        sizes.append(float(parameter.norm))
        names.append(parameter.name)
    size = math.hypot(*sizes) if sizes else 0.0
    if not 0.0 < size < math.inf or not all(map(math.isfinite, steps)):
        return []
    return [Reading(value=math.hypot(*steps) / size, modules=tuple(names))]


def _read_entries(flow: GradientFlow) -> list[Reading]:
    """Return the size of a gradient's entries: the root of their mean square over all weights."""
    found = [p for p in flow.parameters if p.grad_norm is not None]
    count = math.fsum(math.prod(map(float, p.shape)) for p in found)
    norm = math.hypot(*(float(p.grad_norm or 0.0) for p in found)) if found else 0.0
    return [Reading(value=norm / math.sqrt(count))] if count and norm > 0.0 else []


def _is_untrained(flow: GradientFlow) -> bool:
    facts = flow.loss_facts
    level = None if facts is None else facts.guessing
    return not is_loss_flat(flow) and level is not None and flow.loss >= UNTRAINED * level > 0.0


def _describe_entries(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    _, value = find_worst(rule, wrong)
    return (
        f"the entries of the gradients have a size of {format_number(value)}, and Adam adds an ε "
        f"of {format_number(EPSILON)} before it divides by it: its steps are "
        f"{format_number(EPSILON / value)} times shorter than its learning rate says (above the "
        f"limit of {SHORTER:g}). The loss is {format_number(flow.loss)}"
    )


def _enlarge(flow: GradientFlow) -> str:
    value = _read_entries(flow)[0].value or 0.0
    factor = 10.0 ** math.ceil(math.log10(1e-3 / value))
    return (
        f"Multiply the loss by {format_number(factor)}, or leave out what divides it; then "
        "measure again."
    )


def _describe_unheld(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    foreign = flow.optimizer.foreign if flow.optimizer is not None else 0
    held = f", but {foreign} that the model does not have" if foreign else ""
    return (
        f"the optimizer holds none of the {len(wrong[0].modules)} parameters that the loss "
        f"reaches{held}"
    )


def _describe_step(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    assert flow.optimizer is not None
    is_large = rule.beyond == ">"
    shown = _word_rates(flow.optimizer.rates if is_large else list_planned(flow))
    value = wrong[0].value
    metric, momentum = rule.metric, ""
    if flow.optimizer.steps == "gradient" and flow.optimizer.momentum > 0.0:
        momentum = f" and a momentum of {flow.optimizer.momentum:g}"
        metric = metric.replace("the first step", "a step, with what momentum adds to it,")
    return (
        f"with {flow.optimizer.name} at a learning rate of {shown}{momentum}, {metric} is "
        f"{format_number(value)} ({'above' if is_large else 'below'} the limit of "
        f"{format_number(rule.threshold)}){_describe_epsilon(flow)}"
    )


def word_step(flow: GradientFlow, value: float) -> str:
    """Return how large the first step is, in one clause."""
    assert flow.optimizer is not None
    return (
        f"with {flow.optimizer.name} at a learning rate of {_word_rates(list_planned(flow))}, "
        f"{_STEP} is {format_number(value)}"
    )


def _word_rates(rates: Sequence[float | None]) -> str:
    known = sorted({rate for rate in rates if rate is not None})
    return " to ".join(format_number(rate) for rate in dict.fromkeys((known[0], known[-1])))


def measure_usual_rate(flow: GradientFlow) -> float | None:
    """Return the learning rate at which plain SGD moves the median parameter by 1 % of its norm.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> 0.01 < measure_usual_rate(simulate(NetworkSpec(depth=3, width=4))) < 10
        True
    """
    rates = [
        0.01 * float(parameter.norm) / float(parameter.grad_norm)
        for parameter in flow.parameters
        if parameter.grad_norm is not None and parameter.grad_norm > 0 and parameter.norm > 0
    ]
    rates = [rate for rate in rates if math.isfinite(rate) and rate > 0]
    return median(rates) if rates else None


def _read_decay(flow: GradientFlow) -> list[Reading]:
    """Return by how much the first step shrinks the weights ÷ by how much it follows the loss."""
    optimizer = flow.optimizer
    if optimizer is None or optimizer.steps == "other" or flow.ensemble_size != 1:
        return []
    pulls, follows, names = [], [], []
    pairs = zip(_list_trained(flow), _list_decays(flow), strict=True)
    for (parameter, rate), decay in pairs:
        if not rate or not decay or not parameter.is_weight or parameter.grad_norm is None:
            continue
        root = math.sqrt(math.prod(map(float, parameter.shape)))
        own = optimizer.steps == "rescaled" and optimizer.is_decoupled
        pulls.append(rate * decay * float(parameter.norm))
        follows.append(rate * (root if own else float(parameter.grad_norm)))
        names.append(parameter.name)
    follow = math.hypot(*follows) if follows else 0.0
    if not follow > 0.0 or not all(map(math.isfinite, (*pulls, follow))):
        return []
    return [Reading(value=math.hypot(*pulls) / follow, modules=tuple(names))]


def _list_decays(flow: GradientFlow) -> list[float | None]:
    """Return the weight decay of the parameters that the loss reaches."""
    if flow.optimizer is None:
        return []
    decays = flow.optimizer.decays or (None,) * len(flow.parameters)
    pairs = zip(flow.parameters, decays, strict=True)
    return [decay for parameter, decay in pairs if parameter.status == "measured"]


def _describe_decay(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    _, value = find_worst(rule, wrong)
    return f"{word_decay(flow, value)} (above the limit of {format_number(rule.threshold)})"


def word_decay(flow: GradientFlow, value: float) -> str:
    """Return how strongly weight decay pulls, in one clause."""
    assert flow.optimizer is not None
    largest = max((decay or 0.0 for decay in _list_decays(flow)), default=0.0)
    return (
        f"with a weight decay of {format_number(largest)}, {flow.optimizer.name} pulls the weights "
        f"to zero {format_number(value)} times as strongly as along the gradient"
    )


FIND_THEIR_OWN = frozenset({"Rprop"})
"""Optimizers whose steps soon are of their own size, whatever rate they start with."""


def count_still(flow: GradientFlow) -> tuple[int, int]:
    """Return how many trained parameters an optimizer holds at a rate of 0, and how many in all.

    One that a schedule leads to another rate does not count.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> count_still(simulate(NetworkSpec(depth=3, width=4)))
        (0, 0)
    """
    rates = [rate for _, rate in _list_trained(flow, list_planned(flow)) if rate is not None]
    return rates.count(0.0), len(rates)


def list_rounded(flow: GradientFlow) -> list[tuple[ParameterFlow, float]]:
    """Return the trained parameters in half precision, and the share of each that cannot move.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_rounded(simulate(NetworkSpec(depth=3, width=4)))
        []
    """
    if flow.optimizer is None or not flow.optimizer.rounded:
        return []
    pairs = zip(flow.parameters, flow.optimizer.rounded, strict=True)
    return [(each, float(share)) for each, share in pairs if share is not None]


def measure_rounded(flow: GradientFlow) -> float | None:
    """Return which share of all entries in half precision the first step leaves unchanged.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> measure_rounded(simulate(NetworkSpec(depth=3, width=4)))
    """
    found = [(math.prod(map(float, each.shape)), share) for each, share in list_rounded(flow)]
    total = math.fsum(size for size, _ in found)
    return math.fsum(size * share for size, share in found) / total if total else None


def word_rounded(flow: GradientFlow) -> str:
    """Return what rounding does to the steps, in one clause."""
    assert flow.optimizer is not None
    found = list_rounded(flow)
    types = " and ".join(dict.fromkeys(each.dtype for each, _ in found))
    worst, share = max(found, key=lambda pair: pair[1])
    return (
        f"{flow.optimizer.name} at a learning rate of {_word_rates(list_planned(flow))} leaves "
        f"{format_share(measure_rounded(flow) or 0.0)} of the entries of weights in {types} as "
        f"they are: a step is less than half of the distance to the next number of the format "
        f"({format_share(share)} at {worst.name!r})"
    )


def _list_divided(flow: GradientFlow) -> list[tuple[ParameterFlow, float]]:
    """Return the parameters of which the share is known at which a step divides by nothing."""
    if flow.optimizer is None or not flow.optimizer.divided or flow.ensemble_size != 1:
        return []
    pairs = zip(flow.parameters, flow.optimizer.divided, strict=True)
    return [(each, float(share)) for each, share in pairs if share is not None]


def _read_divided(flow: GradientFlow) -> list[Reading]:
    """Return at which share of all entries that are concerned a step divides by nothing."""
    found = [(math.prod(map(float, each.shape)), share) for each, share in _list_divided(flow)]
    total = math.fsum(size for size, _ in found)
    if not total:
        return []
    names = tuple(each.name for each, share in _list_divided(flow) if share)
    return [Reading(value=math.fsum(size * part for size, part in found) / total, modules=names)]


def _describe_divided(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    assert flow.optimizer is not None
    found = [each for each, share in _list_divided(flow) if share]
    types = " and ".join(dict.fromkeys(each.dtype for each in found))
    epsilon = flow.optimizer.epsilon
    known = [FORMATS[each.dtype].smallest for each in found if each.dtype in FORMATS]
    is_rounded = any(0.0 < epsilon <= 0.5 * smallest for smallest in known)
    held = f", which {types} rounds to 0" if is_rounded else ""
    return (
        f"{flow.optimizer.name} divides by the root of squared gradients plus an ε of "
        f"{format_number(epsilon)}{held}; in {types}, small squares are 0 as well. At "
        f"{format_share(wrong[0].value or 0.0)} of the entries the first step divides by 0, or is "
        f"more than {LOST_STEP:,.0f} times the learning rate"
    )


def _choose_epsilon(flow: GradientFlow) -> str:
    if flow.optimizer is not None and not flow.optimizer.epsilon:
        return "Give the optimizer an ε above 0 (eps=1e-8 in float32); then measure again."
    return f"{EPSILON_CURE}; then measure again."


EPSILON_CURE = (
    "Keep the weights in float32 and compute in 16 bits under torch.autocast, or make the weights "
    "bfloat16, which holds such numbers. If they must stay in float16, give the optimizer an ε of "
    f"at least {SUITED_EPSILON:g} (eps={SUITED_EPSILON:g}), or fused=True, which computes the step "
    "in float32"
)
"""What helps where a format cannot hold the ε of an optimizer."""


_STEP = "size of the first step ÷ size of the weights"


def _describe_epsilon(flow: GradientFlow) -> str:
    """Return that gradients are smaller than what is added to them; "" if they are not."""
    epsilon = flow.optimizer.epsilon if flow.optimizer is not None else 0.0
    entries = [
        float(each.grad_norm) / math.sqrt(math.prod(map(float, each.shape)))
        for each, _ in _list_trained(flow)
        if each.is_weight and each.grad_norm is not None and 0 not in each.shape
    ]
    if not entries or max(entries) >= epsilon:
        return ""
    return (
        f"; a gradient's typical entry is {format_number(max(entries))} at most, and the "
        f"optimizer's ε is {format_number(epsilon)}"
    )


HEAVY_MOMENTUM = 0.95
"""Momentum above which steps are more than 20 times as long as the rate says; 0.9 is usual."""


def _lower_rate(flow: GradientFlow) -> str:
    """Return the learning rate at which a step is 1 % of the weights, as an instruction."""
    found = _read_step(flow)
    if flow.optimizer is None or not found or not found[0].value:
        return ""
    factor = 0.01 / found[0].value
    rates = [rate for rate in flow.optimizer.rates if rate is not None]
    low = _word_rates([factor * rate for rate in rates])
    action = f"Lower the learning rate to {low} or less: there a step is 1 % of the weights"
    momentum = flow.optimizer.momentum if flow.optimizer.steps == "gradient" else 0.0
    if momentum > HEAVY_MOMENTUM:
        longer = 1.0 / (1.0 - min(momentum, 0.999))
        usual = _word_rates([factor * rate * longer / 10.0 for rate in rates])
        action += (
            f". A momentum of {momentum:g} makes steps {format_number(longer)} times as long; with "
            f"0.9, it is so at {usual}"
        )
    return f"{action}. Then measure again."


def _explain_large(flow: GradientFlow) -> str:
    """Return why a step is too large that momentum makes long; "" without momentum."""
    optimizer = flow.optimizer
    if optimizer is None or optimizer.steps != "gradient" or optimizer.momentum <= 0.0:
        return ""
    return (
        "Steps add up along a direction that stays: then one is larger than the weights "
        "themselves, and replaces what the initialization made."
    )


OPTIMIZER_RULES = (
    Rule(
        name="lost_epsilon",
        verdict=Verdict.UNDERFLOW,
        metric="share of entries at which the first step divides by nothing",
        threshold=0.0,
        beyond=">",
        reason="Without a gradient that is 0 ÷ 0, with one it is infinite, or next to it: after "
        "this step the weights are lost, whatever the learning rate is.",
        source="computed as PyTorch does, in the format of the weights; Kingma & Ba 2015 (arXiv "
        "1412.6980), algorithm 1, on ε; IEEE 754 binary16",
        action=_choose_epsilon,
        read=_read_divided,
        describe=_describe_divided,
        scale="share",
    ),
    Rule(
        name="below_epsilon",
        verdict=Verdict.OPTIMIZER,
        metric="size of the gradients' entries",
        threshold=EPSILON / SHORTER,
        beyond="<",
        reason="All gradients are so small, because the loss is, that Adam hardly moves a weight: "
        "its ε is larger than they are. Plain SGD would need a learning rate of thousands.",
        source="Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1; ε as in torch.optim.Adam",
        read=_read_entries,
        applies=_is_untrained,
        describe=_describe_entries,
        action=_enlarge,
    ),
    Rule(
        name="not_held",
        verdict=Verdict.OPTIMIZER,
        metric="share of trained parameters that the optimizer does not hold",
        threshold=0.999,
        beyond=">",
        reason="Gradients arrive, but no step changes these weights. Build the optimizer last: a "
        "model that is copied, replaced or moved to another type afterwards has other parameters.",
        source="follows from what an optimizer does",
        action="Build the optimizer from this model's parameters, after everything that copies or "
        "replaces them; then measure again.",
        read=_read_unheld,
        describe=_describe_unheld,
        scale="share",
    ),
    Rule(
        name="strong_decay",
        verdict=Verdict.OPTIMIZER,
        metric="pull of the weight decay ÷ pull of the loss",
        threshold=DECAY,
        beyond=">",
        reason="Nearly all of a step makes the weights smaller, so they go to zero before they "
        "learn, and stay there.",
        source="Loshchilov & Hutter 2019 (arXiv 1711.05101), section 2; threshold measured",
        action="Lower the weight decay; usual values are 1e-4 with SGD and 0.01 to 0.1 with AdamW. "
        "Then measure again.",
        read=_read_decay,
        applies=_is_untrained,
        describe=_describe_decay,
    ),
    Rule(
        name="large_step",
        verdict=Verdict.LEARNING_RATE,
        metric=_STEP,
        threshold=1.0,
        beyond=">",
        reason="The first step is larger than the weights themselves, so it replaces what the "
        "initialization made.",
        source="follows from the triangle inequality; usual steps are near a thousandth (Karpathy, "
        "CS231n 2015)",
        action=_lower_rate,
        explain=_explain_large,
        read=_read_step,
        describe=_describe_step,
    ),
    Rule(
        name="small_step",
        verdict=Verdict.LEARNING_RATE,
        metric=_STEP,
        threshold=0.01 / STEPS,
        beyond="<",
        reason=f"Even {STEPS:,} such steps in one direction would change the weights by less than "
        "a hundredth of their size, so almost nothing moves.",
        source="follows from the triangle inequality",
        action="Raise the learning rate. If gradients are smaller than the ε of the optimizer, "
        "multiply the loss instead; then measure again.",
        read=_read_planned_step,
        describe=_describe_step,
    ),
)

OVERSHOOTS = Rule(
    name="overshoots",
    verdict=Verdict.LEARNING_RATE,
    metric="learning rate ÷ (2 ÷ largest eigenvalue of the Hessian)",
    threshold=OVERSHOOT,
    beyond=">",
    reason="The loss is curved so strongly that a step overshoots the minimum by more than it was "
    "away from it: the loss grows instead of falling.",
    source="gradient descent on a quadratic; Lewkowycz et al. 2020 (arXiv 2003.02218)",
    action="Lower the learning rate to what the finding says; then measure again.",
    read=lambda flow: (),  # it is about a probe, which no flow holds
)


def describe_overshoot(sharpness: Sharpness) -> str:
    """Return the evidence of a learning rate above the limit, and what rate is safe."""
    return (
        f"the learning rate {format_number(sharpness.rate)} of {sharpness.optimizer} is "
        f"{format_number(sharpness.excess)} times the limit of {format_number(sharpness.limit)} "
        f"that the curvature allows (largest eigenvalue {format_number(sharpness.eigenvalue)}). A "
        f"rate of {format_number(0.5 * sharpness.limit)} is safe"
    )


def list_partly_unheld(flow: GradientFlow) -> Iterator[str]:
    """Yield names of trained parameters that the optimizer does not hold, if it holds others."""
    names = list_unheld(flow)
    if 0 < len(names) < len(_list_trained(flow)):
        yield from names
