"""The rule about gradients that half precision loses."""

import math
from collections.abc import Sequence

from chainrule._utils.numbers import format_number, to_superscript
from chainrule.diagnosis.rule import Reading, Rule, Verdict, find_worst
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.precision import FORMATS, PrecisionFlow

COARSE = 1.5
"""Size of the entries that are not zero ÷ smallest number of the format, below which rounding
leaves nearly every entry at zero, plus or minus one single number."""


def choose_loss_scale(flow: GradientFlow) -> int | None:
    """Return the k of a loss scale 2^k that would lift all gradients to where digits are kept.

    The smallest gradient that can still be seen is lifted to the smallest normal number of its
    format, but the largest one at most to a half of the largest number.

    Returns:
        The exponent, or `None` if no gradient of half precision is known.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> choose_loss_scale(simulate(NetworkSpec(depth=3, width=4)))
    """
    seen = [each for each in flow.precisions if _is_seen(each)]
    if not seen:
        return None
    # Logarithms are subtracted: a quotient of numbers of a flow file may be beyond all floats.
    wanted = max(
        math.log2(FORMATS[each.dtype].normal)
        - math.log2(FORMATS[each.dtype].smallest)
        - math.log2(each.resolution)
        for each in seen
        if each.resolution
    )
    room = min(
        math.log2(FORMATS[each.dtype].largest / 2) - math.log2(each.largest) for each in seen
    )
    return max(0, min(math.ceil(wanted), math.floor(room)))


def _is_seen(each: PrecisionFlow) -> bool:
    return (
        each.resolution is not None
        and 0.0 < each.resolution < math.inf
        and 0 < each.largest < math.inf
    )


def _read_resolution(flow: GradientFlow) -> list[Reading]:
    """Return the resolution of gradients; one that is all zero may be so for other reasons."""
    return [
        Reading(
            value=each.resolution,
            layers=_find_layers(flow, each),
            modules=(each.name,),
            where=_name(each),
        )
        for each in flow.precisions
        if _is_seen(each)
    ]


def _find_layers(flow: GradientFlow, each: PrecisionFlow) -> tuple[int, ...]:
    if each.layer is not None:
        layer = flow.layers[each.layer].layer
        return () if layer is None else (layer,)
    found = (p.layer for p in flow.parameters if p.name == each.name)
    return tuple(layer for layer in found if layer is not None)


def _name(each: PrecisionFlow) -> str:
    return {
        "arriving": f"the gradient that arrives at {each.name!r}",
        "output": f"the gradient at {each.name!r}",
        "weight": f"the gradient of {each.name!r}",
    }[each.of]


def _describe_resolution(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, _ = find_worst(rule, wrong)
    found = next(e for e in flow.precisions if _is_seen(e) and _name(e) == worst.where)
    weights = [each for each in flow.precisions if each.of == "weight"]
    zero = sum(each.zero_share == 1.0 for each in weights)
    lost = f"; {zero} of {len(weights)} weight gradients are exactly zero" if zero else ""
    exponent = choose_loss_scale(flow)
    scale = f". A loss scale of 2{to_superscript(exponent)} would lift it" if exponent else ""
    typical = float(found.size) / math.sqrt(1.0 - found.zero_share)
    return (
        f"{worst.where} has a typical entry of {format_number(typical)}, but the smallest number "
        f"of {found.dtype} is {format_number(FORMATS[found.dtype].smallest)}{lost}{scale}"
    )


PRECISION_RULES = (
    Rule(
        name="underflow",
        verdict=Verdict.UNDERFLOW,
        metric="typical gradient entry ÷ smallest number of the format",
        threshold=COARSE,
        beyond="<",
        reason="Numbers below half of the smallest one become zero, and a gradient of zero changes "
        "no weight. Without a loss scale this format cannot hold these gradients. With one "
        "(torch.amp.GradScaler), in bfloat16 or in float32 it can.",
        source="Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2; IEEE 754 binary16; "
        "threshold measured",
        read=_read_resolution,
        describe=_describe_resolution,
    ),
)
"""What can be wrong with half precision."""
