"""Rules about the numbers themselves: infinite or undefined, lost in half precision, all zero."""

import math

import numpy as np
from numpy.typing import NDArray

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.optimizer_rules import EPSILON_CURE
from chainrule.watch.epsilons import describe_lost_epsilon
from chainrule.watch.gradient_rules import is_untrained, name_layer
from chainrule.watch.history import BadInput, History
from chainrule.watch.records import ABSENT, BAD_GRADIENT, Evidence
from chainrule.watch.rule import Bound, Finding, Rule

HALVINGS = 16
"""Steps that a gradient scaler skips in a row until its usual first scale, 2^16, is 1."""

LOST = 0.95
"""Share of ∂𝓛/∂output that is zero or subnormal, above which next to nothing is left of it."""

SUBNORMAL = 0.05
"""Share of subnormal numbers that tells a gradient lost by its format from one blocked by units."""

SEEN_BLANK = 2
"""Steps in which all inputs were seen to be zero: one may be an odd batch."""

BLANK = 3
"""Steps in which the first layer reads nothing but zeros."""


def _find_non_finite(history: History) -> Finding | None:
    record = history.record
    if record is None:
        return None
    bad_loss = record.loss is not None and not math.isfinite(record.loss)
    bad = not record.finite or record.bad_rank is not None
    if not (bad or bad_loss):
        return None
    bad_input = _get_bad_input(history)
    if record.skipped.startswith("gradient scaler") and not bad_loss and bad_input is None:
        # A scaler looks for its scale by skipping; below a scale of 1 the scale is not the reason.
        skips = history.get_skips(HALVINGS)
        if len(skips) < HALVINGS or not all(skips):
            return None
    norms = record.grad_norms
    wrong = np.flatnonzero(~np.isfinite(norms))
    reached = np.flatnonzero(norms != ABSENT)
    what = (
        f"the loss is {format_number(record.loss)}"
        if record.loss is not None and bad_loss
        else f"{len(wrong)} of {len(reached)} gradients are infinite or undefined"
    )
    layer, where = "", _describe_input(bad_input) if bad_input is not None else ""
    if bad_input is None:
        layer, where = _find_beginning(history, wrong, reached, bad_loss=bad_loss)
    if record.bad_rank is not None:
        where += f"; process {record.bad_rank} is the first with one"
    if record.skipped == BAD_GRADIENT:
        where += "; the optimizer's step was left out, as skip_step_on asks"
    before = history.get_norms(2)[:-1]
    is_sudden = len(before) == 1 and bool(np.isfinite(before).all())
    lost = describe_lost_epsilon(history) if is_sudden and bad_input is None else ""
    where = "" if lost else where
    evidence = [Evidence(name="gradients not finite", value=float(len(wrong)), step=record.step)]
    if record.loss is not None:
        evidence.append(Evidence(name="loss", value=record.loss, step=record.step))
    if bad_input is not None:
        value = float(bad_input.count)
        evidence.append(Evidence(name="inputs not finite", value=value, step=record.step))
    return Finding(
        value=float(len(wrong) or 1),
        bound=0.0,
        layer=layer,
        summary=f"At step {record.step} {what}{where}.",
        cause=lost
        if bad_input is None
        else "The batch itself holds them: a damaged or missing "
        "value, or a division by a spread of zero when the data were prepared.",
        action=(f"{EPSILON_CURE}." if lost else "")
        if bad_input is None
        else "Look at what the loader gave at this step, and repair "
        "or drop such records; `torch.isfinite(batch).all()` finds them.",
        evidence=tuple(evidence),
    )


def _get_bad_input(history: History) -> BadInput | None:
    """Return what the model read at the last step that was not finite."""
    found = history.bad_input
    return found[1] if found is not None and found[0] == history.step else None


def _describe_input(bad: BadInput) -> str:
    numbers = "1 number is" if bad.count == 1 else f"{bad.count} numbers are"
    of = f", in {bad.rows} of its {bad.shape[0]} rows" if len(bad.shape) > 1 else ""
    return f"; {numbers} infinite or undefined in {bad.name}, {list(bad.shape)}{of}"


def _find_beginning(
    history: History, wrong: NDArray[np.int_], reached: NDArray[np.int_], *, bad_loss: bool
) -> tuple[str, str]:
    """Return where the first number that is not finite was made, as far as it can be told.

    Args:
        history: The run.
        wrong: Which parameters have such gradients.
        reached: Which have any.
        bad_loss: Whether the loss is not finite.

    Returns:
        The layer, "" if it is unknown, and words about it.
    """
    sample = history.samples[-1] if history.samples else None
    layers = sample.layers if sample is not None and sample.step >= history.step - 1 else ()
    at = next((at for at, each in enumerate(layers) if each.non_finite), None)
    if at is not None:
        name = layers[at].name
        where = f"; its first infinite or undefined output is that of {name!r}"
        if at == 0:
            where += ", the first module: what it reads may hold them already"
        return name, where
    if len(wrong) and wrong[-1] < reached[-1]:
        # The backward pass runs from the end: the last of the wrong ones was the first.
        layer = name_layer(history, int(wrong[-1]))
        return layer, f"; going backward it begins at {layer!r}: later layers have finite gradients"
    if not len(wrong) or not bad_loss:
        return "", ""
    if layers and sample is not None and sample.step == history.step:
        return "", "; every module's output is finite, so the loss, or a target, made it"
    return "", "; the forward pass, the loss or a target made it, since every gradient is concerned"


def _find_zero_inputs(history: History) -> Finding | None:
    """Return that the first weight has a gradient of zero because what it is multiplied with is."""
    norms = history.get_norms(BLANK)
    seen = [shape for step, shape in history.blank_inputs if step > history.step - SEEN_BLANK]
    if len(seen) >= SEEN_BLANK:
        return Finding(
            value=0.0,
            bound=0.0,
            layer=_find_first_layer(history),
            summary=f"In the last {SEEN_BLANK} steps up to step {history.step} every number that "
            f"the model read, {list(seen[-1])}, was zero.",
        )
    if history.sound_input > history.step - BLANK:
        return None
    if len(norms) < BLANK or not (norms == 0.0).all(0).any():
        return None
    name = _find_first_layer(history)
    facts = history.facts.parameters
    own = [at for at, each in enumerate(facts) if each.layer == name and history.is_trained[at]]
    weights = [at for at in own if history.is_weight[at]]
    if not weights or (norms[:, weights[0]] != 0.0).any() or not (norms[-1] > 0.0).any():
        return None
    biases = [at for at in own if not history.is_weight[at]]
    if biases:
        is_blank = bool((norms[:, biases].max(1) > 0.0).all())
    else:
        is_blank = _puts_out_zero(history, name, weights[0])
    if not is_blank:
        return None
    index = weights[0]
    return Finding(
        value=0.0,
        bound=0.0,
        layer=name,
        summary=f"In the last {BLANK} steps up to step {history.step} the gradient of "
        f"{facts[index].name!r} was exactly zero, and "
        + (
            f"that of {facts[biases[0]].name!r} was not"
            if biases
            else f"so was what {name!r} put out"
        )
        + ": every input of the first layer is zero.",
    )


def _find_first_layer(history: History) -> str:
    """Return the first module that runs and holds a weight; without a sample the first one held."""
    layers = {
        each.layer
        for each, is_weight in zip(history.facts.parameters, history.is_weight, strict=True)
        if is_weight and each.kind != "Embedding"
    }
    for sample in reversed(history.samples):
        for each in sample.layers:
            if each.name in layers:
                return each.name
    found = (each.layer for each in history.facts.parameters if each.layer in layers)
    return next(found, "")


def _puts_out_zero(history: History, name: str, index: int) -> bool:
    """Return whether a layer without a bias has put out zeros since its gradient became zero."""
    sample = history.samples[-1] if history.samples else None
    if sample is None or sample.step < history.step - BLANK or not sample.weight_norms[index] > 0.0:
        return False
    own = next((each for each in sample.layers if each.name == name), None)
    return own is not None and own.std == 0.0 and own.mean == 0.0


def _find_underflow(history: History) -> Finding | None:
    if not history.samples:
        return None
    sample = history.samples[-1]
    for each in reversed(sample.layers):
        if each.subnormal_share is None or each.zero_share is None:
            continue
        share = each.subnormal_share + each.zero_share
        if each.subnormal_share >= SUBNORMAL and share >= LOST:
            return Finding(
                value=share,
                bound=LOST,
                layer=each.name,
                summary=f"At step {sample.step} {100 * share:.0f} % of the gradient at the output "
                f"of {each.name!r} is zero or subnormal.",
                evidence=(
                    Evidence(
                        name="share of subnormal numbers",
                        value=each.subnormal_share,
                        bound=SUBNORMAL,
                        step=sample.step,
                    ),
                ),
            )
    return _find_zero_in_half(history)


def _find_zero_in_half(history: History) -> Finding | None:
    """Return weights of half precision whose gradients are exactly zero, while no unit is dead."""
    half = [each.dtype in ("float16", "bfloat16") for each in history.facts.parameters]
    if not any(half) or history.count < 3:
        return None
    norms = history.get_norms(3)
    weights = history.is_weight & history.is_trained & np.array(half)
    zero = (norms[:, weights] == 0.0).all(0)
    layers = history.samples[-1].layers
    if any((each.dead_units or 0.0) >= 1.0 for each in layers) or not is_untrained(history):
        return None
    if not len(zero) or zero.mean() < 0.5:
        return None
    index = int(np.flatnonzero(weights)[np.flatnonzero(zero)[-1]])
    return Finding(
        value=float(zero.mean()),
        bound=0.5,
        layer=name_layer(history, index),
        summary=f"In the last 3 steps the gradients of {int(zero.sum())} of {len(zero)} weights "
        f"of {history.facts.parameters[index].dtype} were exactly zero.",
    )


NUMBER_RULES = (
    Rule(
        name="non_finite",
        kind="non-finite",
        find=_find_non_finite,
        bounds=(Bound(value=0.0, unit="infinite or undefined numbers", source="any is too many"),),
        cause="An operation got a value it is not defined for (the logarithm of a negative number, "
        "a division by zero, a softmax over nothing but −∞), or a number overflowed.",
        action="Guard the input of that operation, or leave such batches out; `watch(…, "
        "keep_batches=True)` runs the step again on a copy and names the operation.",
        follows=("rate_too_high", "exploding", "not_zeroed"),
    ),
    Rule(
        name="zero_inputs",
        kind="inputs all zero",
        find=_find_zero_inputs,
        bounds=(
            Bound(
                value=0.0,
                unit="‖∂𝓛/∂W‖ of the first layer",
                source="the inputs themselves; where they cannot be seen, ∂𝓛/∂W = Σ δ xᵀ is zero "
                "and ∂𝓛/∂b = Σ δ is not, so that x is zero",
            ),
        ),
        cause="The loader or a transform gives zeros: a file that could not be read, a mask, a "
        "scale of zero, or an integer division by 255.",
        action="Look at one batch just before the model gets it.",
        follows=("non_finite", "symmetric", "stale_optimizer"),
    ),
    Rule(
        name="underflow",
        kind="underflow",
        find=_find_underflow,
        bounds=(
            Bound(
                value=LOST,
                unit="share of zero or subnormal gradients",
                source="next to no entry is left with its digits (Micikevicius et al. 2018, "
                "arXiv 1710.03740)",
            ),
        ),
        cause="Gradients are smaller than the smallest numbers of the format, and are rounded to "
        "zero.",
        action="Scale the loss (`torch.amp.GradScaler`), use bfloat16 or float32, or leave out "
        "what divides the loss.",
        follows=("non_finite", "dead_units", "stalled"),
    ),
)
