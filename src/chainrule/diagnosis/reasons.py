"""Why a finding matters in one flow, where that differs from what its rule says of all."""

from chainrule.diagnosis.factors import trace_spreads
from chainrule.diagnosis.places import list_local, word_names
from chainrule.diagnosis.slip_rules import list_slips
from chainrule.diagnosis.structure import list_normalizations
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import LayerFlow

STARVED = 0.1
"""Spread of a normalization's output before its scale, below which it does not do its work."""


def find_dead_output(flow: GradientFlow) -> LayerFlow | None:
    """Return the activation that makes the output the loss reads, if it is flat for every example.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> find_dead_output(simulate(NetworkSpec(depth=3, width=4)))
    """
    off = {each.module for each in list_slips(flow, "off") if not each.is_in_loss}
    for at in () if flow.loss_facts is None else flow.loss_facts.outputs:
        if at >= len(flow.layers):  # a file may say anything
            continue
        call = flow.layers[at]
        share = None if call.statistics is None else call.statistics.dead_share
        is_off = call.name in off if share is None else share >= 1.0
        if call.role == "activation" and is_off:
            return call
    return None


def explain_fading(flow: GradientFlow) -> str:
    """Return where values get lost, if it is at the end or in one place; "" elsewhere.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> explain_fading(simulate(NetworkSpec(depth=3, width=4)))
        ''
    """
    if find_dead_output(flow) is not None:
        return "The last activation is flat for every example, so nothing of the input is left."
    if any((layer.dead_share or 0.0) >= 1.0 for layer in flow.weight_layers):
        return "A layer whose units are all off passes nothing of the input on."
    names = list_local(trace_spreads(flow, ()), grows=False) if flow.spec is None else ()
    if not names:
        return ""
    return f"The values shrink at {word_names(names)} until almost nothing of the input is left."


def explain_starved(flow: GradientFlow) -> str:
    """Return why normalizations in eval mode do not scale their values; "" if others are starved.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> explain_starved(simulate(NetworkSpec(depth=3, width=4)))
        ''
    """
    untouched = {each.module for each in list_slips(flow, "untouched")}
    found = {each.module for each in list_normalizations(flow) if each.value < STARVED}
    if not found or not untouched.issuperset(found):
        return ""
    return (
        "This normalization runs in eval mode, and its running statistics have counted no batch. "
        "So it divides by 1, whatever the values are."
    )
