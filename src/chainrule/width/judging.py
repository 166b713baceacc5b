"""From exponents to findings: what goes with the width and must not, and where it begins.

What theory wants (Yang & Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv 2203.03466), so that a
model of any width learns features and stays finite: every hidden output is of order 1 per
coordinate and changes by order 1; a readout's output is of order 1 at most at the start, as
attention scores are, and changes by order 1. Exponents are multiples of 1/2, so one is wrong if all
of its 95 % interval is nearer to another multiple. No bound is fitted to a case.

Sizes are taken apart before they are judged, so that a small part that grows is not hidden by a
large one that does not: the effect of every parameter's change, and the part of a change that the
weights from the start pass on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chainrule._utils.numbers import format_number
from chainrule.width.records import (
    MODEL,
    Metric,
    ModuleScaling,
    ParameterScaling,
    WidthFinding,
)
from chainrule.width.scaling import MIDPOINT, Scaling, round_exponent, write_power

ORDER_ONE = 10.0
"""From here on a size is no longer of order 1."""

SMALL_EPS = 0.1
"""From this share of a gradient on, an optimizer's ε takes more than 9 % of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known besides the exponents.

    Attributes:
        wide_inputs: Modules that are given something whose size goes with the width.
        containers: Modules that contain others.
        rows: For every module, the rows of its output at most: examples, tokens or places.
        eps: The ε of the optimizer at the largest width; 0 if it has none.
        optimizer: Its class.
        shared: Modules whose parameters are also another's, with its name.
    """

    wide_inputs: frozenset[str]
    containers: frozenset[str]
    rows: dict[str, int]
    eps: float
    optimizer: str
    shared: Mapping[str, str]


@dataclass(slots=True)
class _Judge:
    """What was found so far, in the order of the modules."""

    widths: tuple[int, ...]
    facts: Facts
    findings: list[WidthFinding] = field(default_factory=list)
    undecided: list[tuple[str, str]] = field(default_factory=list)
    decided: int = 0
    decided_changes: int = 0

    def check(self, name: str, metric: str, scaling: Scaling | None, low: float | None) -> int:
        """Return 1 if it grows, −1 if it falls, else 0; `low` is the least exponent it may have."""
        if scaling is None:
            return 0
        way = 1 if scaling.is_above(0.0) else 0
        if low is not None and scaling.is_below(low):
            way = -1
        if way or (scaling.may_not_exceed(0.0) and (low is None or scaling.may_not_fall(low))):
            self.decided += 1
            self.decided_changes += metric != "output"
        else:
            self.undecided.append((name, metric))
        return way

    def find_low(self, module: ModuleScaling, *, is_sum: bool) -> float:
        """Return the least exponent of a change.

        An update is a sum over rows. With more rows than coordinates, what the other rows add at
        random (√n) outweighs what a row adds to itself (n): half a power less. So it is with what
        passes on through other layers: the modules inside of one that owns a parameter itself.
        """
        if module.name in self.facts.containers:
            return -0.5
        many = self.facts.rows.get(module.name, 0) > self.widths[0]
        return -0.5 if is_sum and many else 0.0


def judge_modules(
    modules: Sequence[ModuleScaling], widths: tuple[int, ...], facts: Facts
) -> tuple[tuple[WidthFinding, ...], tuple[tuple[str, str], ...], int, int]:
    """Return the findings (what something else explains last) and what is undecided.

    At last: how many exponents are decided, and how many of these are of what training changes.

    Args:
        modules: In the order in which they returned.
        widths: In rising order.
        facts: What else is known.
    """
    judge = _Judge(widths, facts)
    for module in modules:
        _judge_start(judge, module)
        _judge_inherited(judge, module)
        for parameter in module.parameters:
            _judge_effect(judge, module, parameter)
        _judge_change(judge, module)
    ordered = sorted(judge.findings, key=lambda finding: bool(finding.cause))
    return tuple(ordered), tuple(judge.undecided), judge.decided, judge.decided_changes


def _judge_start(judge: _Judge, module: ModuleScaling) -> None:
    """Judge the output at the start."""
    scaling = module.output
    low = 0.0 if module.kind == "hidden" else None
    way = judge.check(module.name, "output", scaling, low)
    if not way or scaling is None:
        return
    exponent = round_exponent(scaling.exponent)
    if module.kind == "output" and module.change_gain is not None and way > 0:
        # What training lines up grows faster than what is drawn at random.
        exponent = max(exponent, round_exponent(module.change_gain.exponent))
    power = write_power(-exponent)
    if other := judge.facts.shared.get(module.name):
        action = f"multiply its output by {power} (its weights are also those of `{other}`)"
    elif module.parameters:
        action = f"scale its initialization by {power}"
    else:
        action = f"multiply {'the scores' if module.kind == 'scores' else 'its output'} by {power}"
    own = module.gain or scaling  # nothing before an embedding has a size
    text = f"output {_word(way)} with {scaling.describe()}"
    expected = "expected 0" if module.kind == "hidden" else "expected 0 or less"
    cause = _find_cause(judge, module, way, own)
    action = _blame_factor(module, scaling) or action
    _add(judge, module, "output", scaling, cause, (f"{text} ({expected})", action))


def _judge_inherited(judge: _Judge, module: ModuleScaling) -> None:
    """Judge what the weights from the start make of a change of their input."""
    gain, passed = module.change_gain, module.inherited
    if not module.parameters or gain is None or passed is None:
        return
    if any(f.module == module.name and f.exponent > 0 for f in judge.findings):
        return
    grows = passed.is_above(0.0) if module.kind == "hidden" else passed.exponent > MIDPOINT
    if not grows:  # as behind a constant on its input, which the gain would count twice
        return
    if not judge.check(module.name, "inherited", gain, None):
        return
    power = write_power(-round_exponent(gain.exponent))
    _add(
        judge,
        module,
        "change",
        passed,
        _find_cause(judge, module, 1, gain),
        (
            f"its initial weights multiply the change of its input by {gain.describe()} "
            "(expected 0)",
            _blame_factor(module, gain) or f"scale its initialization by {power}",
        ),
        exponent=gain,
    )


def _judge_effect(judge: _Judge, module: ModuleScaling, parameter: ParameterScaling) -> None:
    scaling = parameter.effect
    is_sum = module.name in judge.facts.wide_inputs and any(len(s) > 1 for s in parameter.shapes)
    way = judge.check(parameter.name, "effect", scaling, judge.find_low(module, is_sum=is_sum))
    if not way or scaling is None:
        return
    own = scaling if module.input is None else scaling.divide(module.input)
    ending = "" if way > 0 else ", so that it learns less and less"
    power = write_power(-round_exponent(scaling.exponent))
    action = _blame_factor(module, scaling) or f"multiply its learning rate by {power}"
    if way < 0:
        action = _blame_eps(judge, parameter) or action
    _add(
        judge,
        module,
        "effect",
        scaling,
        _find_cause(judge, module, way, own),
        (
            f"the effect of its update {_word(way)} with {scaling.describe()} (expected 0){ending}",
            action,
        ),
        parameter=parameter.name,
    )


def _judge_change(judge: _Judge, module: ModuleScaling) -> None:
    """Judge the whole change where its parts do not explain it."""
    scaling = module.change
    low = None if module.kind == "scores" else judge.find_low(module, is_sum=True)
    way = judge.check(module.name, "change", scaling, low)
    if not way or scaling is None or any(f.module == module.name for f in judge.findings):
        return
    own = scaling if module.input_change is None else scaling.divide(module.input_change)
    action = ""
    if module.kind == "scores":
        action = "multiply q·k by 1/d (d: the size of a head) where it is 1/√d"
    elif not module.parameters:
        action = f"multiply its output by {write_power(-round_exponent(scaling.exponent))}"
    cause = _find_cause(judge, module, way, own)
    if module.parameters and not cause:  # its parts are judged: what is left came with its input
        cause = next((f.module for f in reversed(judge.findings) if not f.cause), "")
    text = f"change of its output {_word(way)} with {scaling.describe()} (expected 0)"
    _add(judge, module, "change", scaling, cause, (text, action))


def _find_cause(judge: _Judge, module: ModuleScaling, way: int, own: Scaling) -> str:
    """Return the module that a finding follows from; "" if it begins here.

    It follows from what was found in the module, or, if its input is wrong already, from the last
    finding before, unless what the module does by itself (`own`) is wrong in the same way.
    """
    before = [finding for finding in judge.findings if not finding.cause]
    if module.name in judge.facts.containers:
        prefix = "" if module.name == MODEL else f"{module.name}."
        inside = [f for f in before if f.module.startswith(prefix) and f.module != module.name]
        if inside:
            return inside[-1].module
    before = [finding for finding in before if finding.module != module.name]
    if not before:
        return ""
    own_is_wrong = own.is_above(0.0) if way > 0 else own.is_below(0.0)
    given = (module.input, module.input_change)
    is_given_wrong = any(each and (each.is_above(0.0) or each.is_below(0.0)) for each in given)
    if module.parameters:
        return before[-1].module if is_given_wrong and not own_is_wrong else ""
    if module.kind == "scores":
        head, dot, _ = module.name.rpartition(".")
        near = [f for f in before if f.module.startswith(f"{head}{dot}")]
        return near[-1].module if near else ""
    return before[-1].module if is_given_wrong or not own_is_wrong else ""


def _blame_factor(module: ModuleScaling, scaling: Scaling) -> str:
    """Return what to do if the constant behind the module makes a size go with the width."""
    factor = module.factor
    if factor is None or abs(factor.exponent) < MIDPOINT:
        return ""
    if abs(scaling.exponent - factor.exponent) >= abs(scaling.exponent):
        return ""
    return (
        f"the constant that it is multiplied by goes with {factor.describe()}: multiply it by "
        f"{write_power(-round_exponent(scaling.exponent))}"
    )


def _blame_eps(judge: _Judge, parameter: ParameterScaling) -> str:
    """Return what to do if the optimizer's ε is as large as a gradient at the largest width."""
    gradient, eps = parameter.gradient, judge.facts.eps
    if gradient is None or eps < SMALL_EPS * gradient.sizes[-1]:
        return ""
    return (
        f"the ε of {judge.facts.optimizer} ({format_number(eps)}) is not small against the "
        f"gradient at width {judge.widths[-1]}: lower it, or scale it as the gradient goes"
    )


def _add(
    judge: _Judge,
    module: ModuleScaling,
    metric: Metric,
    scaling: Scaling,
    cause: str,
    says: tuple[str, str],
    *,
    parameter: str = "",
    exponent: Scaling | None = None,
) -> None:
    judged = exponent or scaling
    limit = ORDER_ONE
    if metric != "output" and module.kind == "hidden":
        limit = module.output.sizes[-1] if module.output else 1.0
    size = scaling.sizes[-1]
    grows = judged.exponent > 0
    reach = (limit / size) ** (1.0 / round_exponent(judged.exponent)) if grows else 0.0
    judge.findings.append(
        WidthFinding(
            module=module.name,
            metric=metric,
            parameter=parameter,
            exponent=judged.exponent,
            error=judged.error,
            at_most=metric == "output" and module.kind != "hidden",
            cause=cause,
            text=says[0],
            action="" if cause else says[1],
            size=size,
            limit=limit,
            harmful=grows and size >= limit,
            harmful_from=judge.widths[-1] * reach if grows else None,
        )
    )


def _word(way: int) -> str:
    return "grows" if way > 0 else "falls"
