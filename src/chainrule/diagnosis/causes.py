"""What lies behind a finding, where the measurement shows it: an action names it first.

None of this is a finding of its own: heavy dropout, normalizations that run on statistics of
nothing, one layer of another size than the others.
"""

import math
from collections.abc import Sequence

from chainrule._utils.numbers import format_number, format_share
from chainrule.diagnosis.input_rules import list_large
from chainrule.diagnosis.note import Note
from chainrule.diagnosis.origins import is_of_formula
from chainrule.diagnosis.places import list_local, word_names
from chainrule.diagnosis.reasons import find_dead_output
from chainrule.diagnosis.rule import Rule, Verdict
from chainrule.diagnosis.slip_rules import list_slips, word_place
from chainrule.diagnosis.structure import SMALL_LAYER, count_units
from chainrule.diagnosis.time_rules import UNGATED
from chainrule.flow.gradient_flow import GradientFlow

GROWN = 1e6
"""Largest value of any module ÷ that of the inputs from which on values are said to grow."""

HALF = 0.5
"""Share of the growth, in powers of ten, that a module must have to be named."""

_SIZES = frozenset(
    {
        *(Verdict.DEAD_UNITS, Verdict.EXPLODING, Verdict.LARGE_LOSS, Verdict.VANISHING),
        *(Verdict.SATURATED, Verdict.SIGNAL_COLLAPSE, Verdict.HARD_TO_TRAIN),
    }
)
"""What is wrong with sizes, which dropout and normalizations change."""

_IN_TIME = ", from step to step: make its recurrent weights smaller, or orthogonal."

CALM = frozenset(
    {
        *("uniform_attention", "large_branch", "tiny_branch", "growing_pre_norm"),
        *("fading_post_norm", "starved_branch", "log_softmax_twice", "constant_columns"),
        *("untold_steps", "copied_units", "still_group"),
    }
)
"""Notes that advise no change."""


def list_untouched(flow: GradientFlow) -> tuple[str, ...]:
    """Return the normalizations that run in eval mode on running statistics of nothing.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_untouched(simulate(NetworkSpec(depth=3, width=4)))
        ()
    """
    return tuple(dict.fromkeys(each.module for each in list_slips(flow, "untouched")))


def word_untouched(flow: GradientFlow) -> str:
    """Return that normalizations run in eval mode on statistics of nothing, in one clause."""
    names = list_untouched(flow)
    one = len(names) == 1
    return (
        f"{word_names(names)} {'runs' if one else 'run'} in eval mode, and "
        f"{'its' if one else 'their'} running statistics have counted no batch (mean 0, variance "
        f"1): {'it normalizes' if one else 'they normalize'} nothing"
    )


def _word_dropout(flow: GradientFlow) -> str:
    """Return what heavy dropout does and where, as an instruction; "" without one."""
    found = [each for each in list_slips(flow, "dropout") if each.value is not None]
    if not found:
        return ""
    share = max(float(each.value or 0.0) for each in found)
    names = [each.module for each in found]
    scale = f", and scales the rest by {format_number(1.0 / (1.0 - share))}" if share < 1.0 else ""
    return (
        f"Lower the dropout of {word_names(names)}: it leaves out {format_share(share)} of the "
        f"values{scale} (in PyTorch p is the share that is left out)."
    )


def _word_place(flow: GradientFlow, rule: Rule, layers: Sequence[int]) -> str:
    """Return where most of what is wrong comes from, as an instruction; "" if it is everywhere."""
    if rule.trace is None or flow.spec is not None:
        return ""
    grows = (rule.harmful or rule.beyond) == ">"
    local = list_local(rule.trace(flow, layers), grows=grows)
    names = tuple(name for name in dict.fromkeys(x.name for x in flow.layers) if name in local)
    if not names:
        return ""
    sizes = _list_sizes(flow, names)
    odd = [size for size in sizes if (size > 1.0 / SMALL_LAYER if grows else size < SMALL_LAYER)]
    what = "Most of it comes from" if grows else "Most of it is lost at"
    weights = ""
    if odd and len(odd) == len(names):
        ends = dict.fromkeys(format_number(size) for size in (min(odd), max(odd)))
        weights = (
            f", where the weights are {' to '.join(ends)} times as large as PyTorch makes them"
        )
    return f"{what} {word_names(names)}{weights}: look there first."


def _list_sizes(flow: GradientFlow, names: Sequence[str]) -> list[float]:
    """Return the sizes of layers' weights ÷ the size that PyTorch gives them."""
    units = count_units(flow)
    return [
        float(layer.weight_norm) * math.sqrt(3.0 / units[layer.layer])
        for layer in flow.weight_layers
        if layer.name in names and units.get(layer.layer) and layer.weight_norm > 0.0
    ]


def put_cause_first(
    flow: GradientFlow, verdict: Verdict, rule: Rule | None, layers: Sequence[int], usual: str
) -> str:
    """Return what to do next, with what lies behind the finding before what is worth trying.

    Args:
        flow: The measurement.
        verdict: The gravest finding's.
        rule: Its rule.
        layers: The layers that it names.
        usual: What to do by the finding alone.
    """
    off = list_slips(flow, "off") if verdict is Verdict.FLAT_LOSS else []
    if off:
        return (
            f"Look at {off[-1].operation}{word_place(off[-1])}: all that it reads is where it is "
            "flat. Leave it out, or keep what it reads inside of its range (where an output must "
            "not be negative, softplus or exp in its place do). Then measure again."
        )
    if verdict not in _SIZES:
        return usual
    if (dead := find_dead_output(flow)) is not None:
        return (
            f"Leave the last activation out ({dead.label!r}, {dead.kind}): the loss reads what it "
            "makes of the last layer, and that is flat for every example. If answers must not be "
            "negative, take softplus or exp in its place. Then measure again."
        )
    first = []
    if list_untouched(flow):
        sentence = word_untouched(flow)
        first.append(f"Call model.train(): {sentence}.")
    if dropout := _word_dropout(flow):
        first.append(dropout)
    if first:
        rest = usual.removeprefix("Worth trying: ")
        then = f"If it stays, try {rest}" if rest != usual else f"If it stays: {usual}"
        return f"{' '.join(first)} Then measure again. {then}"
    is_own = rule is not None and bool(rule.action)  # it names a place itself
    place = "" if rule is None or is_own else _word_place(flow, rule, layers)
    if verdict is Verdict.EXPLODING and flow.spec is None and not (place or is_own):
        place = describe_growth(flow)
    return f"{place} {usual}" if place else usual


def describe_growth(flow: GradientFlow) -> str:
    """Return where values grow until they are infinite, and what to do; "" if they do not.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> describe_growth(simulate(NetworkSpec(depth=3, width=4)))
        ''
    """
    sizes = []
    is_bad = any(each.non_finite > 0 for each in flow.inputs) or any(
        each.non_finite > 0 for each in flow.parameters
    )
    for call in flow.layers:
        if call.statistics is not None and call.statistics.non_finite > 0:
            if not is_bad and call.kind in UNGATED:
                return (
                    f"Values grow beyond the largest number in {call.name or '(model)'!r}{_IN_TIME}"
                )
            break
    for call in flow.layers:
        if call.statistics is not None:
            size = max(abs(float(call.statistics.min)), abs(float(call.statistics.max)))
            if 0.0 < size < math.inf:
                sizes.append((size, call))
    start = max(
        (max(abs(float(each.min)), abs(float(each.max))) for each in flow.inputs), default=0.0
    )
    if not 0.0 < start < math.inf:
        start = sizes[0][0] if sizes else 0.0
    largest = max((size for size, _ in sizes), default=0.0)
    if not start > 0.0 or largest <= GROWN * start:
        return ""
    total, before, logs = math.log(largest / start), start, dict[str, float]()
    kinds = {}
    for size, call in sizes:
        if size > before:
            logs[call.name] = logs.get(call.name, 0.0) + math.log(size / before)
            before = size
        kinds[call.name] = call.kind
    words = f"Values grow from {format_number(start)} to {format_number(largest)}"
    worst = max(logs, key=lambda name: logs[name])
    if logs[worst] < HALF * total:
        return f"{words} from layer to layer: make the initial weights smaller."
    cure = _IN_TIME if kinds[worst] in UNGATED else ": make its initial weights smaller."
    return f"{words}, most of it in {worst or '(model)'!r}{cure}"


def describe_large_inputs(flow: GradientFlow) -> str:
    """Return that inputs out of scale may be what makes numbers too large; "" if none are.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> describe_large_inputs(simulate(NetworkSpec(depth=3, width=4)))
        ''
    """
    found = list_large(flow)
    origin = flow.origin
    if not found or (
        origin is not None and (origin.source != "operation" or is_of_formula(origin))
    ):
        return ""
    worst = max(found, key=lambda each: each.size)
    return (
        f"The input of {worst.reader or '(model)'!r} has a root mean square of "
        f"{format_number(worst.size)}, which makes all values larger: scale it to mean 0 and "
        "standard deviation 1 first."
    )


def choose_measured_action(notes: Sequence[Note], usual: str) -> str:
    """Return what to do next with a model without a finding, in one voice with its notes.

    Args:
        notes: What is noted.
        usual: What to do if none of them advises a change.
    """
    found = [note.evidence for note in notes if note.name not in CALM]
    if not found:
        return usual
    more = f", and {len(found) - 2} more notes" if len(found) > 3 else ""
    shown = "; ".join(found if len(found) < 4 else found[:2])
    _, _, rest = usual.partition(". ")
    return (
        f"Nothing that was measured is beyond its limit, but look first at what is noted: {shown}"
        f"{more}. {rest}"
    )
