"""Rules about units: dead, saturated, copies of each other."""

import numpy as np

from chainrule.watch.gradient_rules import is_untrained, name_layer
from chainrule.watch.history import DEAD, History
from chainrule.watch.records import Evidence, LayerSample, Sample
from chainrule.watch.rule import Bound, Finding, Rule

GROWN = 0.3
"""By how much the share has grown since the first sample, if it is below one."""

FLAT = 0.9
"""Share of a bounded activation's values that are flat."""

ALIKE = 0.5
"""Share of a layer's units that are copies of another."""


def _get(sample: Sample, name: str) -> LayerSample | None:
    return next((each for each in sample.layers if each.name == name), None)


def _list_recent(history: History) -> list[Sample]:
    """Return the last two samples with layers, at most; the newest first."""
    return [each for each in reversed(history.samples) if each.layers][:2]


def _find_dead_units(history: History) -> Finding | None:
    recent = _list_recent(history)
    if not recent or recent[0].step < history.step - 1:
        return None
    first = history.first_sample
    for layer in recent[0].layers:
        share = layer.dead_units
        if share is None or share < DEAD:
            continue
        before = [each.dead_units for each in (_get(x, layer.name) for x in recent[1:]) if each]
        lasting = bool(before) and before[0] is not None and before[0] >= DEAD
        if not lasting:
            continue
        start = _get(first, layer.name) if first is not None else None
        origin = start.dead_units if start is not None and start.dead_units is not None else 0.0
        if share < 1.0 and share - origin < GROWN and not is_untrained(history):
            continue
        begun = first.step if first is not None else 0
        return Finding(
            value=share,
            bound=DEAD,
            layer=layer.name,
            summary=f"At step {recent[0].step} {100 * share:.0f} % of the units of {layer.name!r} "
            f"are zero for every example; at step {begun} it was {100 * origin:.0f} %.",
            evidence=(Evidence(name="share of dead units", value=origin, step=begun),),
        )
    return None


def _find_saturated(history: History) -> Finding | None:
    recent = _list_recent(history)
    if len(recent) < 2 or recent[0].step < history.step - 1 or not is_untrained(history):
        return None
    for layer in recent[0].layers[:-1]:  # an output may be sure of itself
        share = layer.saturation
        if share is None or share < FLAT:
            continue
        before = _get(recent[1], layer.name)
        if before is None or before.saturation is None or before.saturation < FLAT:
            continue
        first = _get(history.first_sample, layer.name) if history.first_sample else None
        origin = first.saturation if first and first.saturation is not None else share
        return Finding(
            value=share,
            bound=FLAT,
            layer=layer.name,
            summary=f"At step {recent[0].step} {100 * share:.0f} % of the outputs of "
            f"{layer.name!r} are where the activation is flat; it began with {100 * origin:.0f} %.",
        )
    return None


def _find_symmetric(history: History) -> Finding | None:
    """Return weights whose units are copies, from a flow; or weights that are zero and stay so."""
    if history.symmetric and (history.count <= 50 or is_untrained(history)):
        name, share = max(history.symmetric, key=lambda each: each[1])
        if share >= ALIKE:
            return Finding(
                value=share,
                bound=ALIKE,
                layer=name.rpartition(".")[0],
                summary=f"{100 * share:.0f} % of the units of {name!r} have the same weights and "
                "the same gradients as another one.",
            )
    if history.count < 3 or not history.samples:
        return None
    weights = np.flatnonzero(history.is_weight & history.is_trained & history.is_held)
    zero = history.samples[-1].weight_norms[weights] == 0.0
    zero &= (history.get_norms(3)[:, weights] == 0.0).all(0)
    if zero.sum() < 2 or history.count > 50:
        return None
    index = int(weights[zero][0])
    return Finding(
        value=float(zero.mean()),
        bound=0.0,
        layer=name_layer(history, index),
        summary=f"{int(zero.sum())} weights, {history.facts.parameters[index].name!r} first, are "
        "exactly zero and have no gradient: all their units are alike.",
    )


UNIT_RULES = (
    Rule(
        name="dead_units",
        kind="dead units",
        find=_find_dead_units,
        bounds=(
            Bound(
                value=DEAD,
                unit="share of dead units, in two samples",
                source="Lu et al. 2019 (arXiv 1903.06733): a dead unit has no gradient",
            ),
        ),
        cause="A step moved the biases or weights so far that these units are off for every input; "
        "they have no gradient, and stay off.",
        action="Lower the learning rate, use a leaky activation, or leave the rectifier out of the "
        "output.",
        follows=(
            "zero_inputs",
            "non_finite",
            "rate_too_high",
            "exploding",
            "symmetric",
            "vanishing",
            "not_zeroed",
        ),
    ),
    Rule(
        name="saturated",
        kind="saturation",
        find=_find_saturated,
        bounds=(
            Bound(
                value=FLAT,
                unit="share of saturated outputs, in two samples",
                source="Glorot & Bengio 2010, section 3; as in the diagnosis of a single step",
            ),
        ),
        cause="The inputs or weights of the layer are so large that its activation is flat, and "
        "hardly any gradient passes it.",
        action="Standardize the inputs, lower the learning rate or the weights, or use another "
        "activation.",
        follows=("non_finite", "rate_too_high", "exploding", "symmetric", "not_zeroed"),
    ),
    Rule(
        name="symmetric",
        kind="symmetric units",
        find=_find_symmetric,
        bounds=(
            Bound(
                value=ALIKE,
                unit="share of units that are copies",
                source="equal weights with equal gradients stay equal",
            ),
        ),
        cause="The weights began with one value, so the units learn the same.",
        action="Initialize weights at random; only biases, and the last scale of a residual "
        "branch, may start at zero.",
        follows=("non_finite",),
    ),
)
