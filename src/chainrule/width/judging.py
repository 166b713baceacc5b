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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chainrule._utils.numbers import format_number
from chainrule.width.records import (
    Metric,
    ModuleScaling,
    ParameterScaling,
    WidthFinding,
)
from chainrule.width.scaling import Scaling, write_exponent, write_power

ORDER_ONE = 10.0
"""From here on a size is no longer of order 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known besides the exponents.

    Attributes:
        children: For every module, the names of modules inside it.
        wide_inputs: Modules that are given something whose size goes with the width.
        containers: Modules that contain others.
        rows: For every module, the rows of its output: examples, tokens or places.
        eps: The ε of the optimizer, at every width; zeros if it has none.
        optimizer: Its class.
    """

    wide_inputs: frozenset[str]
    containers: frozenset[str]
    rows: dict[str, int]
    eps: tuple[float, ...]
    optimizer: str


@dataclass(slots=True)
class _Judge:
    """What was found so far, in the order of the modules."""

    widths: tuple[int, ...]
    facts: Facts
    findings: list[WidthFinding] = field(default_factory=list)
    undecided: list[tuple[str, str]] = field(default_factory=list)
    decided: int = 0

    def check(
        self, name: str, metric: str, scaling: Scaling | None, low: float | None
    ) -> int:
        """Return 1 if it grows, −1 if it falls, else 0; `low` is the least exponent it may have."""
        if scaling is None:
            return 0
        if scaling.is_above(0.0):
            self.decided += 1
            return 1
        if low is not None and scaling.is_below(low):
            self.decided += 1
            return -1
        clear = _Clear(scaling)
        if clear.is_not_above and (low is None or clear.is_not_below(low)):
            self.decided += 1
        else:
            self.undecided.append((name, metric))
        return 0


@dataclass(frozen=True, slots=True)
class _Clear:
    """What an interval excludes."""

    scaling: Scaling

    @property
    def is_not_above(self) -> bool:
        return self.scaling.exponent + self.scaling.error <= 0.25

    def is_not_below(self, low: float) -> bool:
        return self.scaling.exponent - self.scaling.error >= low - 0.25


def judge_modules(
    modules: Sequence[ModuleScaling], widths: tuple[int, ...], facts: Facts
) -> tuple[tuple[WidthFinding, ...], tuple[tuple[str, str], ...], int]:
    """Return the findings (what something else explains last), what is undecided, what is not.

    Args:
        modules: In the order in which they returned.
        widths: In rising order.
        facts: What else is known.
    """
    judge = _Judge(widths, facts)
    for module in modules:
        _judge_start(judge, module)
        for parameter in module.parameters:
            _judge_effect(judge, module, parameter)
        _judge_change(judge, module)
    ordered = sorted(judge.findings, key=lambda finding: bool(finding.cause))
    return tuple(ordered), tuple(judge.undecided), judge.decided


def _judge_start(judge: _Judge, module: ModuleScaling) -> None:
    """Judge the output at the start, and what the weights of the start do to a change."""
    low = 0.0 if module.kind == "hidden" else None
    way = judge.check(module.name, "output", module.output, low)
    scaling = module.output
    if way:
        assert scaling is not None
        cause = _find_cause(judge, module, "output", way, module.gain)
        _add(judge, module, "output", scaling, cause, _advise_start(judge, module, way))
        return
    passed = module.inherited
    if passed is None or not module.parameters or module.kind == "scores":
        return
    if judge.check(module.name, "inherited", passed, None) and (
        module.change_gain is None or module.change_gain.is_above(0.0)
    ):
        cause = "" if module.input_change else _find_cause(judge, module, "change", 1, None)
        text = f"its initial weights pass on the change of its input with {passed.describe()}"
        action = f"scale its initialization by {write_power(-passed.exponent)}"
        _add(judge, module, "change", passed, cause, action, text=f"{text} (expected 0)")


def _advise_start(judge: _Judge, module: ModuleScaling, way: int) -> str:
    scaling, factor = module.output, module.factor
    assert scaling is not None
    if factor is not None and (factor.is_above(0.0) or factor.is_below(0.0)):
        raw = scaling.exponent - factor.exponent
        if abs(raw) < abs(scaling.exponent):
            return (
                f"the constant that it is multiplied by goes with {factor.describe()}: multiply it "
                f"by {write_power(-scaling.exponent)}"
            )
    exponent = scaling.exponent
    if module.kind == "output" and module.inherited is not None and way > 0:
        exponent = max(exponent, module.inherited.exponent)  # what training aligns grows faster
    power = write_power(-exponent)
    if module.parameters:
        return f"scale its initialization by {power}"
    if module.kind == "scores":
        return f"multiply the scores by {power}"
    return f"multiply its output by {power}"


def _judge_effect(judge: _Judge, module: ModuleScaling, parameter: ParameterScaling) -> None:
    scaling = parameter.effect
    low = 0.0
    if module.name in judge.facts.wide_inputs and any(len(s) > 1 for s in parameter.shapes):
        # An update is a sum of rows. With more rows than coordinates, what other rows contribute at
        # random (√n) outweighs what a row contributes to itself (n): half a power less.
        low = -0.5 if judge.facts.rows.get(module.name, 0) > judge.widths[0] else 0.0
    way = judge.check(parameter.name, "effect", scaling, low)
    if not way:
        return
    assert scaling is not None
    own = None
    if module.input is not None and len(scaling.sizes) == len(module.input.sizes):
        own = Scaling(
            (), scaling.exponent - module.input.exponent, scaling.error + module.input.error
        )
    cause = _find_cause(judge, module, "effect", way, own)
    ending = "" if way > 0 else "; it learns less and less"
    text = f"the effect of its update {_word(way)} with {scaling.describe()} (expected 0){ending}"
    action = f"multiply its learning rate by {write_power(-scaling.exponent)}"
    if way < 0 and (reason := _blame_eps(judge, parameter)):
        action = reason
    _add(judge, module, "effect", scaling, cause, action, text=text, parameter=parameter.name)


def _blame_eps(judge: _Judge, parameter: ParameterScaling) -> str:
    """Return a sentence if the optimizer's ε is as large as a gradient at the largest width.

    From one tenth of √v on, ε takes more than 9 % of a step, and more at every larger width.
    """
    gradient, eps = parameter.gradient, judge.facts.eps[-1]
    if gradient is None or eps < 0.1 * gradient.sizes[-1]:
        return ""
    return (
        f"the ε of {judge.facts.optimizer} ({format_number(eps)}) is not small against its "
        f"gradient ({format_number(gradient.sizes[-1])} at width {judge.widths[-1]}): lower it, or "
        f"scale it as the gradient, by {gradient.describe()}"
    )


def _judge_change(judge: _Judge, module: ModuleScaling) -> None:
    """Judge the whole change where its parts do not explain it."""
    low = None
    if module.kind != "scores":
        low = -0.5 if judge.facts.rows.get(module.name, 0) > judge.widths[0] else 0.0
    way = judge.check(module.name, "change", module.change, low)
    if not way or any(f.module == module.name for f in judge.findings):
        return
    scaling = module.change
    assert scaling is not None
    own = None
    if module.input_change is not None:
        own = Scaling(
            (),
            scaling.exponent - module.input_change.exponent,
            scaling.error + module.input_change.error,
        )
    cause = _find_cause(judge, module, "change", way, own)
    action = ""
    if module.kind == "scores":
        action = "multiply q·k by 1/d (d: the size of a head) where it is 1/√d"
    elif not module.parameters:
        action = f"multiply its output by {write_power(-scaling.exponent)}"
    _add(judge, module, "change", scaling, cause, action)


def _find_cause(
    judge: _Judge, module: ModuleScaling, metric: Metric, way: int, own: Scaling | None
) -> str:
    """Return the module that a finding follows from; "" if it begins here.

    It follows if what the module adds by itself (`own`) is not wrong in the same way, and something
    before it, or in it, was found already.
    """
    before = [finding for finding in judge.findings if not finding.cause]
    if module.name in judge.facts.containers:
        prefix = "" if module.name == "(model)" else f"{module.name}."
        before_in = [f for f in before if f.module.startswith(prefix)]
        if before_in and not module.parameters:
            return before_in[-1].module
    if not before:
        return ""
    adds = own is None or (own.is_above(0.0) if way > 0 else own.is_below(0.0))
    if adds and own is not None:
        return ""
    if own is None and module.parameters and metric == "output":
        return ""
    others = [f.module for f in before if f.module != module.name]
    return others[-1] if others else ""


def _add(  # noqa: PLR0917
    judge: _Judge,
    module: ModuleScaling,
    metric: Metric,
    scaling: Scaling,
    cause: str,
    action: str,
    *,
    text: str = "",
    parameter: str = "",
) -> None:
    way = 1 if scaling.exponent > 0 else -1
    at_most = metric == "output" and module.kind != "hidden"
    if not text:
        what = {"output": "output", "change": "change of its output"}[metric]
        expected = "expected 0 or less" if at_most else "expected 0"
        text = f"{what} {_word(way)} with {scaling.describe()} ({expected})"
    limit = ORDER_ONE
    if metric != "output" and module.kind == "hidden":
        limit = module.output.sizes[-1] if module.output else 1.0
    size = scaling.sizes[-1]
    judge.findings.append(
        WidthFinding(
            module=module.name,
            metric=metric,
            parameter=parameter,
            exponent=scaling.exponent,
            error=scaling.error,
            at_most=at_most,
            cause=cause,
            text=text,
            action="" if cause else action,
            size=size,
            limit=limit,
            harmful=way > 0 and size >= limit,
            harmful_from=_extrapolate(judge.widths[-1], size, limit, scaling.exponent),
        )
    )


def _extrapolate(width: int, size: float, limit: float, exponent: float) -> float | None:
    """Return the width at which a size that goes on so reaches a limit."""
    if exponent <= 0:
        return None
    with_logs: Callable[[float], float] = lambda ratio: width * ratio ** (1.0 / exponent)  # noqa: E731
    return with_logs(limit / size)


def _word(way: int) -> str:
    return "grows" if way > 0 else "falls"


__all__ = ["Facts", "judge_modules", "write_exponent"]
