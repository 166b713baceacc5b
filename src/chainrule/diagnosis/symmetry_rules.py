"""The rule about units that are copies of each other."""

from collections.abc import Sequence

from chainrule.diagnosis.rule import Reading, Rule, Verdict, find_worst
from chainrule.diagnosis.structure import list_explained
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import WeightLayer
from chainrule.flow.symmetry import SymmetryFlow


def count_copies(flow: GradientFlow, symmetry: SymmetryFlow) -> float:
    """Return the units of a layer that the first step leaves equal to an earlier one.

    Units whose weights and gradients are all zero count only if the whole layer receives nothing,
    and no zero-initialized parameter behind it explains that: a gate or a scale that starts at
    zero keeps back gradients that will differ, and where the units before are dead these are the
    cause.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> from chainrule.flow.quantity import Quantity
        >>> flow = simulate(NetworkSpec(depth=3, width=4))
        >>> three = Quantity([3.0])
        >>> count_copies(
        ...     flow,
        ...     SymmetryFlow(parameter="0.weight", layer=1, units=9, copies=three, idle=three),
        ... )
        3.0
    """
    layers = {layer.layer: layer for layer in flow.weight_layers}
    layer = layers.get(symmetry.layer or 0)
    idles = (
        layer is not None
        and layer.weight_gradient_norm == 0.0
        and layer.layer not in list_explained(flow)
        and not _is_dead(layers.get(layer.layer - 1))
    )
    return float(symmetry.copies) + (float(symmetry.idle) if idles else 0.0)


def _is_dead(layer: WeightLayer | None) -> bool:
    return layer is not None and layer.dead_share is not None and layer.dead_share >= 1.0


def list_symmetric(flow: GradientFlow) -> list[tuple[SymmetryFlow, float]]:
    """Return weights that a further layer reads, and which share of their units adds nothing.

    It is the copies ÷ the units that could be copies: 1 if all are alike. The last layer's units
    are told apart by the loss.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_symmetric(simulate(NetworkSpec(depth=3, width=4)))
        []
    """
    last = len(flow.weight_layers)
    return [
        (each, count_copies(flow, each) / max(1, each.units - 1))
        for each in flow.symmetries
        if each.layer is not None and each.layer < last and each.units > 1
    ]


def _read_symmetric(flow: GradientFlow) -> list[Reading]:
    return [
        Reading(
            value=share,
            layers=(each.layer,) if each.layer else (),
            modules=(each.parameter,),
            where=repr(each.parameter),
        )
        for each, share in list_symmetric(flow)
    ]


def _describe_symmetric(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, _ = find_worst(rule, wrong)
    found = next(each for each in flow.symmetries if each.parameter == worst.modules[0])
    distinct = found.units - round(count_copies(flow, found))
    others = f"; so it is in {len(wrong)} layers" if len(wrong) > 1 else ""
    if distinct == 1:
        return (
            f"all {found.units:,} units of {worst.modules[0]!r} have the same weights and "
            f"the same gradients{others}"
        )
    return (
        f"the {found.units:,} units of {worst.modules[0]!r} have only {distinct:,} different "
        f"sets of weights and gradients{others}"
    )


SYMMETRY_RULES = (
    Rule(
        name="symmetric_units",
        verdict=Verdict.SYMMETRIC,
        metric="share of a layer's units that are copies",
        threshold=0.9,
        beyond=">",
        reason="Units with the same weights and the same gradients stay the same after every step. "
        "Together they can do no more than one of them, however many they are. Draw the weights at "
        "random.",
        source="Goodfellow et al. 2016, Deep Learning, section 8.4; threshold measured: two hidden "
        "layers of 64 units learned digits with 8 different ones each, and not with 4",
        read=_read_symmetric,
        describe=_describe_symmetric,
        scale="share",
    ),
)
"""What can be wrong with units that are alike."""
