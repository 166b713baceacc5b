"""Remedies in words, and as bars on the axis of the main chart, as JSON can hold them."""

import math
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.app.state.paths import write_paths
from chainrule.app.state.view import write_query
from chainrule.chain.graph_presets import EXPRESSIONS
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.viability.model import Outlook, describe_probability
from chainrule.display.cards import LOOKS, OUTLOOK_LOOKS, name_depth
from chainrule.display.sentences import recommend
from chainrule.figures.gradients import choose_powers, read_state
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.result import Remedies, Remedy

Answer = dict[str, Any]

_LARGEST = (Verdict.EXPLODING, Verdict.NON_FINITE, Verdict.LARGE_LOSS)
"""Verdicts for which the layer with the largest gradient is compared; else the smallest."""

_STATES = {"small": "warn", "usable": "good", "large": "bad"}


def describe_remedies(remedies: Remedies, shown: int | None = None) -> Answer:
    """Return what was found: a sentence on what to do, and every change with its bar.

    Args:
        remedies: What was measured.
        shown: How many networks the page shows. Where changes were measured on fewer, each bar
            says so: its values are not those of the chart.
    """
    seeds = remedies.before.ensemble_size
    fewer = shown is not None and seeds < shown
    powers = choose_powers(_list_norms(remedies.before))
    return {
        "verdict": str(remedies.diagnosis.verdict),
        "do": recommend(remedies),
        "seeds": seeds,
        "remedies": [_describe_remedy(remedy, powers, fewer=fewer) for remedy in remedies],
        "refuted": [_describe_remedy(remedy, powers, fewer=fewer) for remedy in remedies.refuted],
    }


def _describe_remedy(remedy: Remedy, powers: tuple[float, float], *, fewer: bool) -> Answer:
    look = LOOKS[remedy.verdict_after]
    return {
        **remedy.to_dict(),
        "query": "" if remedy.spec is None else write_query(remedy.spec),
        "meaning": remedy.outcome_text,
        "icon_after": look.icon,
        "chance_after": _describe_chance(remedy),
        "paths": write_paths(EXPRESSIONS["residual"])
        if remedy.changes.get("residual", "none") != "none"
        else None,
        "bar": describe_bar(remedy, powers, fewer=fewer),
    }


def _describe_chance(remedy: Remedy) -> Answer | None:
    """Return the estimated chance of training after a change; `None` where none is estimated.

    It names the depth that it holds for where the change made the network deeper or shallower.
    """
    sgd = remedy.diagnosis_after.viability.sgd
    if sgd.probability is None or sgd.word is Outlook.UNKNOWN:
        return None
    look = OUTLOOK_LOOKS[sgd.word]
    text = f"chance to learn with SGD: {describe_probability(sgd.probability)}"
    if len(remedy.after.weight_layers) != len(remedy.before.weight_layers):
        text += name_depth(remedy.after, remedy.diagnosis_after)
    return {"icon": look.icon, "state": look.state, "text": text}


def describe_bar(remedy: Remedy, powers: tuple[float, float], *, fewer: bool = False) -> Answer:
    """Return where a change moves the gradient of the layer that is worst off.

    Args:
        remedy: The change.
        powers: Powers of ten at the ends of the axis.
        fewer: Whether it was measured on fewer networks than the page shows.

    Returns:
        What is compared, its values before and after as text, state and share of the axis (0 at
        its start, 1 at its end), and the shares between which layers learn after the change.
    """
    largest = remedy.diagnosis_before.verdict in _LARGEST
    before, after = (_read_worst(flow, largest=largest) for flow in (remedy.before, remedy.after))
    usable = read_usable_range(remedy.after, remedy.diagnosis_after.verdict)
    of_fewer = f", median of {remedy.before.ensemble_size} networks" if fewer else ""
    return {
        "name": f"{'largest' if largest else 'smallest'} weight gradient{of_fewer}",
        "before": _place(before, read_usable_range(remedy.before), powers),
        "after": _place(after, usable, powers),
        "usable": [_share(edge, powers) for edge in usable],
    }


def _list_norms(flow: GradientFlow) -> list[float]:
    return [float(norm) for norm in flow.weight_gradient_norms if norm and 0 < norm < math.inf]


def _read_worst(flow: GradientFlow, *, largest: bool) -> float | None:
    """Return the largest or the smallest ‖∂𝓛/∂W‖ of all layers; an undefined one is the worst."""
    norms = [float(norm) for norm in flow.weight_gradient_norms if norm is not None]
    if any(map(math.isnan, norms)):
        return math.nan
    return (max if largest else min)(norms, default=None)


def _place(value: float | None, usable: tuple[float, float], powers: tuple[float, float]) -> Answer:
    known = value is not None and not math.isnan(value)
    return {
        "text": format_number(value),
        "state": _STATES[read_state(value, usable)] if value is not None and known else "bad",
        "share": _share(value, powers) if value is not None and known else 1.0,
    }


def _share(value: float, powers: tuple[float, float]) -> float:
    """Return a value's place on the axis; beyond its ends it stands at the end."""
    low, high = powers
    if value <= 0.0:
        return 0.0
    power = math.log10(value) if value < math.inf else high
    return round(min(max((power - low) / (high - low), 0.0), 1.0), 4)
