"""Rules about gradients along time: what recurrent modules pass on from step to step."""

import math
from collections.abc import Callable, Collection, Sequence

from chainrule._utils.numbers import format_number, format_times
from chainrule.diagnosis.rule import Reading, Rule, Verdict, find_worst
from chainrule.diagnosis.structure import USABLE_IN_CHAIN
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.time import LOST, TimeFlow

LARGEST_GROWTH = 1e3
"""Gradient of the first quarter of steps ÷ that of the last, from which on it explodes."""

UNGATED = frozenset({"RNN", "RNNCell"})
"""Recurrent modules without gates: unrolled, they are a chain of layers, a layer per time step."""

_RECURRENT = ("input", "state")
"""What the gradients of recurrent modules and cells are of."""

SHORTEST = 8
"""Steps from which on quarters are compared."""

TELLING = 1e-3
"""A step tells something of the targets if such a tie is less likely than this at any step of all,
by accident."""

HOLDING = 0.01
"""What is read last holds something of the targets if such a tie is less likely than this."""

HELD = 0.1
"""Least gradient of a step ÷ the largest from which on what a module holds is not lost in time."""

LONG = 16
"""Steps beyond which a module without gates seldom finds what the targets depend on, if neither a
step nor what the loss hears shows it. Measured: of 8 such networks of 18 to 80 steps plain SGD
trained none, and Adam 3; with gates, SGD trained 1 of 9, and Adam 7."""


def list_lost(time: TimeFlow) -> tuple[int, ...]:
    """Return the positions of the kept steps that hardly any gradient reaches.

    Steps after the last one with a gradient do not count: the loss does not ask for them (padding).

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> norms = tuple(Quantity([norm]) for norm in (0.0, 1e-9, 1.0, 0.0))
        >>> list_lost(TimeFlow(name="a", kind="GRU", call=0, of="input", length=4,
        ...                    steps=(0, 1, 2, 3), gradients=norms))
        (0, 1)
    """
    shares = time.shares
    last = max((at for at, share in enumerate(shares) if share >= LOST), default=0)
    return tuple(at for at in range(last) if shares[at] < LOST)


def measure_lost(time: TimeFlow) -> float | None:
    """Return the share of steps before the last one with a gradient that hardly any reaches.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> norms = tuple(Quantity([norm]) for norm in (0.0, 1.0))
        >>> measure_lost(TimeFlow(name="a", kind="GRU", call=0, of="input", length=2,
        ...                       steps=(0, 1), gradients=norms))
        0.5
    """
    shares = time.shares
    if any(map(math.isnan, shares)):
        return None
    reached = [at for at, share in enumerate(shares) if share >= LOST]
    # Members may reach different steps each, so that the median reaches none.
    return len(list_lost(time)) / (reached[-1] + 1) if reached else None


def is_untested(time: TimeFlow) -> bool:
    """Return whether it is not known, of a loop of your own, which steps tell of the targets.

    So it is where no tie was found, too: the answer may lie in several steps together, near the
    end. What the loss reads of the whole is known of PyTorch's own modules alone.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one = Quantity([1.0])
        >>> is_untested(TimeFlow(name="a", kind="loop", call=0, of="output", length=2,
        ...                      steps=(0, 1), gradients=(one, one)))
        True
    """
    return time.of == "output" and not list_telling(time)


def list_telling(time: TimeFlow) -> tuple[int, ...] | None:
    """Return the positions of the kept steps whose input tells something of the targets.

    `None` if that was not measured.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one = Quantity([1.0])
        >>> list_telling(TimeFlow(name="a", kind="GRU", call=0, of="input", length=2, steps=(0, 1),
        ...                       gradients=(one, one), chances=(Quantity([1e-9]), one)))
        (0,)
    """
    if not time.chances:
        return None
    bound = TELLING / len(time.chances)
    return tuple(at for at, chance in enumerate(time.chances) if chance < bound)


def measure_heard(time: TimeFlow) -> float | None:
    """Return the gradient at the telling steps ÷ the largest of all steps; `None` without one.

    Of several telling steps the one that receives most counts: if that one is heard, the network
    can begin to learn.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one, tiny = Quantity([1.0]), Quantity([1e-9])
        >>> measure_heard(TimeFlow(name="a", kind="GRU", call=0, of="input", length=2, steps=(0, 1),
        ...                        gradients=(tiny, one), chances=(tiny, one)))
        1e-09
    """
    telling = list_telling(time)
    shares = time.shares
    if not telling or any(math.isnan(share) for share in shares):
        return None
    return float(max(shares[at] for at in telling))


def is_untold(time: TimeFlow) -> bool | None:
    """Return whether neither a step nor what is read last tells anything of the targets.

    `None` if that was not measured, or if the loss reads more than one step.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one = Quantity([1.0])
        >>> is_untold(TimeFlow(name="a", kind="RNN", call=0, of="input", length=2, steps=(0, 1),
        ...                    gradients=(one, one), chances=(one, one), state_chance=one))
        True
    """
    telling = list_telling(time)
    if telling is None or time.state_chance is None or time.of != "input":
        return None
    return not telling and float(time.state_chance) >= HOLDING


def is_held(time: TimeFlow) -> bool:
    """Return whether all steps receive a gradient of about the same size.

    So it is where recurrent weights start as an identity or a rotation, and nothing squeezes what
    they pass on. Measured on networks of 24 to 30 steps that no step tells of: where the least was
    0.12 to 0.27 of the largest, Adam learned three of three, and at 0.08 it did not; plain SGD
    learned none, as with most modules with gates. Steps after the last one with a gradient do not
    count.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one = Quantity([1.0])
        >>> is_held(TimeFlow(name="a", kind="RNN", call=0, of="input", length=2, steps=(0, 1),
        ...                  gradients=(one, one)))
        True
    """
    shares = list(map(float, time.shares))
    while shares and shares[-1] == 0.0:
        shares.pop()
    return all(share >= HELD for share in shares) and bool(shares)


def is_left_to_adam(flow: GradientFlow, time: TimeFlow) -> bool:
    """Return whether all steps are heard, and the optimizer is one that may learn from that.

    Plain SGD learned none of the networks that are measured in `is_held`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> from chainrule.flow.quantity import Quantity
        >>> time = TimeFlow(name="a", kind="RNN", call=0, of="input", length=1, steps=(0,),
        ...                 gradients=(Quantity([1.0]),))
        >>> is_left_to_adam(simulate(NetworkSpec(depth=3, width=4)), time)  # no optimizer is known
        False
    """
    optimizer = flow.optimizer
    return optimizer is not None and optimizer.steps == "rescaled" and is_held(time)


def list_cut(flow: GradientFlow, time: TimeFlow) -> tuple[int, ...]:
    """Return the positions of the kept steps that no path leads to from the loss.

    A gradient that decays is small, and smaller at every step. Where there is none at all beside a
    usable one, something cuts the path: `detach`, `.data`, `no_grad`, a new tensor.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> from chainrule.flow.quantity import Quantity
        >>> norms = tuple(Quantity([norm]) for norm in (0.0, 0.0, 1.0))
        >>> time = TimeFlow(name="a", kind="loop", call=0, of="output", length=3, steps=(0, 1, 2),
        ...                 gradients=norms)
        >>> list_cut(simulate(NetworkSpec(depth=3, width=4)), time)
        (0, 1)
    """
    lost, shares = list_lost(time), time.shares
    if time.of in {"input", "position"} or not lost:
        return ()
    none = tuple(at for at in lost if shares[at] == 0.0)
    calls: dict[int, bool] = {}
    for each in flow.layers:
        if each.name == time.name:
            calls[each.call] = calls.get(each.call, False) or each.gradient is not None
    if len(calls) == time.length:
        return tuple(at for at in none if not calls.get(time.steps[at], True))
    # Of other loops nothing is known but that a gradient of a usable size is followed by none.
    reached = {at for at, share in enumerate(shares) if share >= USABLE_IN_CHAIN}
    return none if none and none[-1] + 1 in reached else ()


def fades_on_the_way(flow: GradientFlow, modules: Collection[str]) -> bool:
    """Return whether what modules lack along time is lost step by step: no cut, no mere position.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> fades_on_the_way(simulate(NetworkSpec(depth=3, width=4)), ["rnn"])
        True
    """
    times = [each for each in flow.times if each.name in modules]
    return not any(each.of == "position" or list_cut(flow, each) for each in times)


def list_recurrent(flow: GradientFlow) -> frozenset[int]:
    """Return the weight layers that pass gradients on in time, and so are judged by that.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> list_recurrent(simulate(NetworkSpec(depth=3, width=4)))
        frozenset()
    """
    names = {each.name for each in flow.times if each.of in _RECURRENT}
    return frozenset(layer.layer for layer in flow.weight_layers if layer.name in names)


def measure_gates(flow: GradientFlow, layer: int) -> float:
    """Return what recurrent modules behind a layer multiply the gradient by, at most 1.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> measure_gates(simulate(NetworkSpec(depth=3, width=4)), 1)
        1.0
    """
    names = {each.name for each in flow.times if each.of == "input"}
    if not names:
        return 1.0
    gains = (
        float(call.gain)
        for call in flow.layers
        if call.name in names and call.gain is not None and (call.layer or 0) > layer
    )
    return math.prod((min(1.0, gain) for gain in gains if gain > 0.0), start=1.0)


def find_variation_in_time(flow: GradientFlow) -> float | None:
    """Return how differently the last recurrent module answers the examples.

    Gates that start nearly closed make its values small beside the bias of a layer behind it. That
    hides no difference: they are what the gates let through. Modules without gates have nothing
    that opens, so there the answer itself counts.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> find_variation_in_time(simulate(NetworkSpec(depth=3, width=4)))
    """
    names = {each.name for each in flow.times if each.of in _RECURRENT and each.kind not in UNGATED}
    found = [
        (at, call.statistics.variation)
        for at, call in enumerate(flow.layers)
        if call.name in names and call.statistics and call.statistics.variation is not None
    ]
    if not found or _starts_the_same(flow, found[0][0]):
        return None
    return max(variation for _, variation in found)


def _starts_the_same(flow: GradientFlow, end: int) -> bool:
    """Whether nothing differs before some call: the steps of such a sequence differ by themselves.

    That says nothing of the examples.
    """
    before = [call.statistics.variation for call in flow.layers[:end] if call.statistics]
    return bool(before) and all(
        (*(each == 0.0 for each in before), *(each.min == each.max for each in flow.inputs))
    )


def find_faded(flow: GradientFlow) -> float | None:
    """Return the smallest gradient of a step ÷ the largest, of modules without gates.

    Steps after the last one with a gradient do not count.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> find_faded(simulate(NetworkSpec(depth=3, width=4)))
    """
    found = []
    for each in flow.times:
        shares = list(each.shares) if each.kind in UNGATED and each.of == "input" else []
        while shares and shares[-1] == 0.0:
            shares.pop()
        found += [share for share in shares if not math.isnan(share)]
    return min(found, default=None)


def _read_lost(flow: GradientFlow) -> list[Reading]:
    """Return the lost share of every module, but where the loss hears what tells."""

    def measure(time: TimeFlow) -> float | None:
        heard, state = measure_heard(time), time.state_chance
        if is_untested(time) or time.of == "position":
            return None
        if (heard is not None and heard >= USABLE_IN_CHAIN) or (
            state is not None and state < TELLING
        ):
            return None
        return measure_lost(time)

    return _read_times(flow, measure)


def _read_heard(flow: GradientFlow) -> list[Reading]:
    """Return what telling steps receive; of mere positions, only where that is nothing at all.

    A class token receives far more than each of many positions that it attends to.
    """
    return _read_times(flow, _measure_heard)


def _measure_heard(time: TimeFlow) -> float | None:
    heard = measure_heard(time)
    return None if heard is None or (time.of == "position" and heard >= LOST) else heard


def _read_untold(flow: GradientFlow) -> list[Reading]:
    """Return the length of the sequences of which nothing is told, and nothing is held either."""

    def measure(time: TimeFlow) -> float | None:
        is_found = time.kind in UNGATED and is_untold(time)
        return float(time.length) if is_found and not is_left_to_adam(flow, time) else None

    return _read_times(flow, measure)


def _read_growth(flow: GradientFlow) -> list[Reading]:
    """Return the growth of every module, but where the gradient only starts to grow very small.

    Where late steps count little in the answer (a weight that falls from step to step, the chance
    that it goes on that far), the first ones receive more than these, and no more than the output.
    """
    read = () if flow.loss_facts is None else flow.loss_facts.outputs
    norms = [each.norm for at in read if (each := flow.layers[at].gradient) is not None]
    arriving = math.hypot(*map(float, norms))

    def measure(time: TimeFlow) -> float | None:
        if time.of == "position":
            return None
        growth = _measure_growth(time)
        first = max(map(float, time.gradients[: len(time.gradients) // 4]), default=0.0)
        return None if first < math.sqrt(LARGEST_GROWTH) * arriving else growth

    return _read_times(flow, measure)


def _read_times(flow: GradientFlow, measure: Callable[[TimeFlow], float | None]) -> list[Reading]:
    return [
        Reading(
            value=measure(each),
            layers=_find_layers(flow, each),
            modules=(each.name,),
            where=_word_name(each.name),
        )
        for each in flow.times
    ]


def _measure_growth(time: TimeFlow) -> float | None:
    """Return the largest gradient of the first quarter of steps ÷ that of the last quarter.

    Single steps may have a large or a small one of their own. Steps after the last one with a
    gradient do not count.
    """
    norms = [float(norm) for norm in time.gradients]
    while norms and norms[-1] == 0.0:
        norms.pop()
    if len(norms) < SHORTEST or not all(map(math.isfinite, norms)):
        return None
    quarter = len(norms) // 4
    return max(norms[:quarter]) / max(norms[-quarter:])


def _find_layers(flow: GradientFlow, time: TimeFlow) -> tuple[int, ...]:
    return tuple(layer.layer for layer in flow.weight_layers if layer.name == time.name)


def describe_lost(time: TimeFlow, cut: Sequence[int] = ()) -> str:
    """Return which steps hardly any gradient reaches, or none at all.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> norms = tuple(Quantity([norm]) for norm in (0.0, 1e-9, 1.0))
        >>> describe_lost(TimeFlow(name="a", kind="GRU", call=0, of="input", length=3,
        ...                        steps=(0, 1, 2), gradients=norms))
        "steps 1 to 2 of 3 of 'a' receive less than 1.0·10⁻⁶ of the largest gradient of all steps"
    """
    if cut:
        return (
            f"no gradient at all reaches {word_steps(time, cut)} of {time.length:,} of "
            f"{_word_name(time.name)}"
        )
    lost = list_lost(time)
    verb = "receives" if len(lost) == 1 else "receive"
    return (
        f"{word_steps(time, lost)} of {time.length:,} of {_word_name(time.name)} {verb} less than "
        f"{format_number(LOST)} of the largest gradient of all {time.unit}s"
    )


def _describe_lost(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, _ = find_worst(rule, wrong)
    time = _find_time(flow, worst, measure_lost)
    others = f"; so it is in {len(wrong)} of {len(readings)} modules" if len(wrong) > 1 else ""
    return f"{describe_lost(time, list_cut(flow, time))}{others}"


def _find_time(
    flow: GradientFlow, reading: Reading, measure: Callable[[TimeFlow], float | None]
) -> TimeFlow:
    return next(
        each
        for each in flow.times
        if each.name == reading.modules[0] and measure(each) == reading.value
    )


def _describe_unheard(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    time = _find_time(flow, worst, _measure_heard)
    telling = list_telling(time) or ()
    if set(telling) <= set(cut := list_cut(flow, time)):
        return (
            f"{word_steps(time, telling)} of {time.length:,} of {_word_name(time.name)} "
            f"{'tells' if len(telling) == 1 else 'tell'} something of the targets, but "
            f"{describe_lost(time, cut)}"
        )
    return (
        f"{word_steps(time, telling)} of {time.length:,} of {_word_name(time.name)} "
        f"{'tells' if len(telling) == 1 else 'tell'} something of the targets, but the loss hardly "
        f"hears {'it' if len(telling) == 1 else 'them'}: the gradient there is "
        f"{rule.format(value)} times the largest of all {time.unit}s (below the limit of "
        f"{rule.format(rule.threshold)})"
    )


def _word_name(name: str) -> str:
    return repr(name or "(model)")


def word_steps(time: TimeFlow, positions: Sequence[int]) -> str:
    """Return which steps they are: "step 3", "steps 3 to 9", "9 steps between 3 and 40".

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> norms = tuple(Quantity([norm]) for norm in (0.0, 1e-9, 1.0))
        >>> word_steps(TimeFlow(name="a", kind="GRU", call=0, of="input", length=3,
        ...                     steps=(0, 1, 2), gradients=norms), (1, 2))
        'steps 2 to 3'
    """
    first, last = positions[0], positions[-1]
    word = time.unit
    from_, to = time.steps[first] + 1, time.steps[last] + 1
    if first == last:
        return f"{word} {from_:,}"
    if last - first + 1 == len(positions):
        return f"{word}s {from_:,} to {to:,}"
    return f"{len(positions)} {word}s between {from_:,} and {to:,}"


def describe_untold(time: TimeFlow) -> str:
    """Return that neither a step nor the output that is read tells anything of the targets.

    Example:
        >>> from chainrule.flow.quantity import Quantity
        >>> one = Quantity([1.0])
        >>> describe_untold(TimeFlow(name="a", kind="RNN", call=0, of="input", length=2,
        ...                          steps=(0, 1), gradients=(one, one)))[:42]
        "none of the 2 steps that 'a' reads shows w"
    """
    return (
        f"none of the {time.length:,} steps that {_word_name(time.name)} reads shows what the "
        "targets depend on, and neither does the output that is read"
    )


def _describe_untold(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, _ = find_worst(rule, wrong)
    time = next(each for each in flow.times if each.name == worst.modules[0])
    return f"{describe_untold(time)}; it has no gates (above the limit of {rule.threshold:g} steps)"


def _describe_growth(
    rule: Rule, flow: GradientFlow, readings: Sequence[Reading], wrong: Sequence[Reading]
) -> str:
    worst, value = find_worst(rule, wrong)
    return (
        "the gradient at the first quarter of the time steps of "
        f"{_word_name(worst.modules[0])} is {format_times(value)} that at the last (above the "
        f"limit of {rule.format(rule.threshold)})"
    )


def _name_way_to_hold(time: TimeFlow) -> str:
    """Return what makes a module of this kind hold what it has read for longer."""
    if time.kind.startswith("LSTM"):
        return "forget gates that start open (a bias of 3 to 5)"
    if time.kind.startswith("GRU"):
        return "update gates that start near 1 (a bias of 3 to 5, so that the state is kept)"
    if time.kind in UNGATED:
        return "a module with gates (nn.LSTM, nn.GRU)"
    return "a factor nearer to 1 between the steps"


def _reads_last(time: TimeFlow) -> bool:
    """Whether the loss reads only the last step of a module that reads a whole sequence."""
    read = [float(each) for each in time.read]
    return len(read) > 1 and read[-1] > 0.0 and not any(read[:-1])


def _word_action(time: TimeFlow | None, rest: str) -> str:
    if time is None:
        return f"Worth trying: {rest}; then measure again."
    padded = ""
    if _reads_last(time):
        padded = (
            f"If the sequences of {_word_name(time.name)} are padded at their ends, read the last "
            "real step of each example instead of the last one. Else worth trying: "
        )
    return f"{padded or 'Worth trying: '}{_name_way_to_hold(time)}, {rest}; then measure again."


def _find_heard(flow: GradientFlow) -> TimeFlow | None:
    measured = [(value, each) for each in flow.times if (value := _measure_heard(each)) is not None]
    return min(measured, key=lambda pair: pair[0])[1] if measured else None


def _find_lost(flow: GradientFlow) -> TimeFlow | None:
    measured = [
        (reading.value, reading.modules[0])
        for reading in _read_lost(flow)
        if reading.value is not None
    ]
    if not measured:
        return None
    value, name = max(measured, key=lambda pair: pair[0])
    return next(each for each in flow.times if each.name == name and measure_lost(each) == value)


def _explain(find: Callable[[GradientFlow], TimeFlow | None]) -> Callable[[GradientFlow], str]:
    def explain(flow: GradientFlow) -> str:
        time = find(flow)
        if time is None or not list_cut(flow, time):
            return ""
        return (
            "This is no decay: a small gradient would be left of that. The path from the loss to "
            "these steps is cut, so what they hold cannot be learned."
        )

    return explain


def _mend_cut(flow: GradientFlow, time: TimeFlow | None) -> str:
    if time is None or not (cut := list_cut(flow, time)):
        return ""
    at = time.steps[cut[-1]] + 1
    return (
        f"Look for what cuts {_word_name(time.name)} off between step {at:,} and the next one: "
        "detach(), .data, torch.no_grad() or a new tensor. If it is cut on purpose, to go back "
        "fewer steps, cut less often than what belongs together lies apart. Then measure again."
    )


def _choose_heard_action(flow: GradientFlow) -> str:
    time = _find_heard(flow)
    if time is not None and time.of == "position":
        return (
            f"Look at what lies between {_word_name(time.name)} and the loss: a mask the wrong way "
            "round, or a scan that forgets. Worth trying: a slower decay, a mean over all "
            "positions, or attention; then measure again."
        )
    return _mend_cut(flow, time) or _word_action(
        time, "a mean over the outputs of all steps, or attention"
    )


def _choose_lost_action(flow: GradientFlow) -> str:
    time = _find_lost(flow)
    return _mend_cut(flow, time) or _word_action(
        time, "a shorter path to the steps that matter, or shorter sequences"
    )


def _choose_untold_action(flow: GradientFlow) -> str:
    options = [
        "a module with gates (nn.LSTM, nn.GRU)",
        "recurrent weights that start as an identity or orthogonal",
        "a mean over the outputs of all steps",
    ]
    if flow.optimizer is None or flow.optimizer.steps == "gradient":
        options.append("Adam")
    return (
        f"Worth trying: {', '.join(options[:-1])}, or {options[-1]}. If the targets of this batch "
        "are made up, measure with real ones."
    )


TIME_RULES = (
    Rule(
        name="exploding_time",
        verdict=Verdict.EXPLODING,
        metric="gradient of the first quarter of time steps ÷ of the last",
        threshold=LARGEST_GROWTH,
        beyond=">",
        reason="On the way back through time, every step multiplies the gradient by the same "
        "recurrent weights. Here the steps long ago decide the whole gradient, and a small change "
        "of the weights changes it completely. Clip the gradient, or start with smaller recurrent "
        "weights.",
        source="Pascanu et al. 2013 (arXiv 1211.5063); threshold measured",
        action="Worth trying: smaller recurrent weights, an orthogonal start, or gradient "
        "clipping; then measure again.",
        read=_read_growth,
        describe=_describe_growth,
    ),
    Rule(
        name="unheard_steps",
        verdict=Verdict.VANISHING,
        metric="gradient at the time steps that tell something of the targets ÷ the largest",
        threshold=USABLE_IN_CHAIN,
        beyond="<",
        reason="The batch shows what the targets depend on, and hardly any gradient comes back to "
        "these steps, so the loss does not show the weights how to use them.",
        source="Hochreiter 1991; Bengio et al. 1994; ties measured by HSIC, Gretton et al. 2007; "
        "the bound is that of a chain of layers",
        action=_choose_heard_action,
        explain=_explain(_find_heard),
        read=_read_heard,
        describe=_describe_unheard,
    ),
    Rule(
        name="vanishing_time",
        verdict=Verdict.VANISHING,
        metric="share of time steps that hardly any gradient reaches",
        threshold=0.5,
        beyond=">",
        reason="What these steps hold cannot be learned: on the way back through time, every step "
        "multiplies the gradient by a factor below 1. If the loss needs them, give it a shorter "
        "path to them. If it needs the last steps only, give the module shorter sequences.",
        source="Hochreiter 1991; Jozefowicz et al. 2015 and Tallec & Ollivier 2018 (arXiv "
        "1804.11188) on the forget bias; threshold measured",
        action=_choose_lost_action,
        explain=_explain(_find_lost),
        read=_read_lost,
        describe=_describe_lost,
        scale="share",
    ),
    Rule(
        name="untold_steps",
        verdict=Verdict.HARD_TO_TRAIN,
        metric="time steps in which a module without gates must find what the targets depend on",
        threshold=LONG,
        beyond=">",
        reason="What decides the answer lies in several steps together, far back, or nowhere in "
        "this batch. A module without gates seldom finds it with plain SGD.",
        source="Bengio et al. 1994; Hochreiter & Schmidhuber 1997; threshold measured",
        action=_choose_untold_action,
        read=_read_untold,
        describe=_describe_untold,
        scale="count",
    ),
)
"""What can be wrong along time."""
