"""`WidthCheck`: how a model's sizes go with its width, in numbers and in words."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from chainrule._utils.numbers import encode_number, format_number
from chainrule.width.figure import Line, plot_widths
from chainrule.width.scaling import Scaling, write_exponent

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Kind = Literal["hidden", "output", "scores"]

Metric = Literal["output", "change", "effect"]

METRICS = (
    "output",
    "change",
    "gradient",
    "inherited",
    "input",
    "input_change",
    "gain",
    "change_gain",
    "factor",
)
"""What is known of a module, by the names of its attributes."""

MODEL = "(model)"
"""The name of the model itself."""

NAMED = 6
"""Names that a sentence lists; of more, it says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterScaling:
    """How one parameter goes with the width; a size is a root mean square per entry.

    Attributes:
        name: In the model.
        shapes: At every width.
        size: At the start.
        gradient: At the start.
        update: Its change after the steps.
        effect: By how much its change moves the output of its module: the output with it, less the
            output with its value from the start, on the same inputs.

    Example:
        >>> ParameterScaling(name="head.bias", shapes=((10,), (10,))).update is None
        True
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    size: Scaling | None = None
    gradient: Scaling | None = None
    update: Scaling | None = None
    effect: Scaling | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {"name": self.name, "shapes": [list(shape) for shape in self.shapes]} | {
            metric: _encode(getattr(self, metric))
            for metric in ("size", "gradient", "update", "effect")
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleScaling:
    """How one module goes with the width; a size is a root mean square per coordinate.

    What is zero at some width, or not there, has no exponent and is `None`.

    Attributes:
        name: Its name in the model; of what a softmax takes, followed by "(scores)".
        kind: "hidden" if the size of its output goes with the width, "output" if not (as a
            readout's), "scores" for what a softmax takes.
        output: Its output at the start, with the constant that it is multiplied by afterwards.
        change: The change of that after the steps, for the same batch; of scores, only along
            ∂𝓛/∂scores: what training lines up.
        gradient: ∂𝓛/∂output at the start.
        inherited: The part of the change that its weights from the start pass on; of an "output",
            only along ∂𝓛/∂output.
        input: What it was given, at the start.
        input_change: The change of that.
        gain: output ÷ input.
        change_gain: inherited ÷ input_change.
        factor: The constant.
        parameters: Its own.

    Example:
        >>> ModuleScaling(name="head", kind="output").output is None
        True
    """

    name: str
    kind: Kind
    output: Scaling | None = None
    change: Scaling | None = None
    gradient: Scaling | None = None
    inherited: Scaling | None = None
    input: Scaling | None = None
    input_change: Scaling | None = None
    gain: Scaling | None = None
    change_gain: Scaling | None = None
    factor: Scaling | None = None
    parameters: tuple[ParameterScaling, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "name": self.name,
            "kind": self.kind,
            **{metric: _encode(getattr(self, metric)) for metric in METRICS},
            "parameters": [each.to_dict() for each in self.parameters],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthFinding:
    """One size that goes with the width and must not.

    Attributes:
        module: Where.
        metric: "output" (at the start), "change" (after the steps) or "effect" (of a parameter's
            update).
        parameter: Which, if it is about one; else "".
        exponent: What was measured.
        error: Half of its 95 % interval.
        expected: What theory wants: 0, or at most 0 where `at_most`.
        at_most: Whether less is fine as well.
        cause: Name of the module that it follows from; "" where it begins.
        text: What it is, in words.
        action: What to do about it, in words; "" if it follows from something else.
        size: At the largest width that was measured.
        limit: From which size on it does harm: a hidden output changes as much as it was at the
            start, and everything else is no longer of order 1.
        harmful: Whether something that grows has reached its limit at a width that was measured.
        harmful_from: The width from which it has, if it goes on so; `None` where it falls.

    Example:
        >>> finding = WidthFinding(
        ...     module="head", metric="output", exponent=0.5, error=0.02, text="output grows"
        ... )
        >>> str(finding)
        '`head`: output grows'
    """

    module: str
    metric: Metric
    exponent: float
    error: float
    text: str
    expected: float = 0.0
    at_most: bool = False
    parameter: str = ""
    cause: str = ""
    action: str = ""
    size: float = math.nan
    limit: float = math.nan
    harmful: bool = False
    harmful_from: float | None = None

    def __str__(self) -> str:
        """Return all of it as one sentence."""
        place = self.parameter or self.module
        return f"`{place}`: {'; '.join(filter(None, (self.text, self.action)))}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            field.name: encode_number(held) if isinstance(held, float) else held
            for field in fields(self)
            for held in (getattr(self, field.name),)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthCheck:
    """What training copies of a model at several widths showed.

    Attributes:
        widths: In rising order.
        seeds: How many models there were of every width.
        steps: How many steps each was trained for.
        optimizer: Class of the optimizer.
        modules: In the order in which they returned.
        findings: What goes with the width and must not; what something else explains comes last.
        undecided: Modules or parameters, and sizes, whose exponent is not known well enough.
        decided: Number of exponents that were judged.
        losses: Mean loss before and after, at every width.
        notes: What to know about the measurement.
        reason: Why too little was decided for a pass; "" if enough was.

    Example:
        >>> check = WidthCheck(widths=(16, 32), seeds=2, steps=3, optimizer="Adam", decided=4)
        >>> check.passed, check.verdict
        (True, 'width-independent')
    """

    widths: tuple[int, ...]
    seeds: int
    steps: int
    optimizer: str
    decided: int
    modules: tuple[ModuleScaling, ...] = ()
    findings: tuple[WidthFinding, ...] = ()
    undecided: tuple[tuple[str, str], ...] = ()
    losses: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""

    def __repr__(self) -> str:
        widths = f"widths {self.widths[0]} to {self.widths[-1]}"
        count = len(self.causes)
        return f"WidthCheck({self.verdict}; {widths}, {count} finding{'' if count == 1 else 's'})"

    def __getitem__(self, name: str) -> ModuleScaling:
        """Return a module by its name.

        Raises:
            KeyError: If there is none.
        """
        for module in self.modules:
            if module.name == name:
                return module
        raise KeyError(name)

    @property
    def passed(self) -> bool:
        """Whether nothing was found, and enough was decided: changes, and most exponents."""
        return self.verdict == "width-independent"

    @property
    def verdict(self) -> str:
        """Return "width-independent", "depends on width" or "undecided"."""
        if self.findings:
            return "depends on width"
        return "width-independent" if self.decided and not self.reason else "undecided"

    @property
    def causes(self) -> tuple[WidthFinding, ...]:
        """The findings that no other one explains."""
        return tuple(finding for finding in self.findings if not finding.cause)

    @property
    def summary(self) -> str:
        """The verdict in words, module by module."""
        return "\n".join(self._list_lines())

    def _list_lines(self) -> Iterator[str]:
        span = f"widths {self.widths[0]} to {self.widths[-1]}"
        steps = f"{self.steps} step{'' if self.steps == 1 else 's'} of {self.optimizer}"
        if self.passed:
            yield (
                f"Width-independent: over {span}, no output and no change of one after {steps} "
                f"goes with the width where it must not ({self.decided} exponents)."
            )
        elif not self.findings:
            known = f"{self.decided} of {self.decided + len(self.undecided)} exponents"
            reason = self.reason or "Use more seeds."
            yield f"Not decided: over {span}, {known} are known well enough. {reason}"
        else:
            yield f"Depends on width (measured over {span}, {steps}):"
        for group in _group(self.causes):
            yield f"  {describe_group(group)}. {describe_harm(group, self.widths)}"
            places = {finding.module for finding in group}
            if follow := sorted({f.module for f in self.findings if f.cause in places} - places):
                verb = "follows" if len(follow) == 1 else "follow"
                yield f"    {_list_names(follow)} {verb} from it."
        if self.undecided and (self.findings or self.passed):
            more = "" if len(self.undecided) == 1 else "s"
            yield f"  Not decided: {len(self.undecided)} exponent{more}. Use more seeds or widths."
        for note in self.notes:
            yield f"  {note}"

    def to_records(self) -> list[dict[str, Any]]:
        """Return one row per module or parameter, size and width, for a table or data frame.

        Keys: "module", "kind", "parameter", "metric", "width", "size", "exponent", "error".
        """
        rows: list[dict[str, Any]] = []
        for module in self.modules:
            entries = [("", metric, getattr(module, metric)) for metric in METRICS]
            entries += [
                (each.name, metric, getattr(each, metric))
                for each in module.parameters
                for metric in ("size", "gradient", "update", "effect")
            ]
            for parameter, metric, scaling in entries:
                if scaling is None:
                    continue
                rows += [
                    {
                        "module": module.name,
                        "kind": module.kind,
                        "parameter": parameter,
                        "metric": metric,
                        "width": width,
                        "size": size,
                        "exponent": scaling.exponent,
                        "error": scaling.error,
                    }
                    for width, size in zip(self.widths, scaling.sizes, strict=True)
                ]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it: "Infinity" and "NaN" where a number is not finite."""
        return {
            "verdict": self.verdict,
            "widths": list(self.widths),
            "seeds": self.seeds,
            "steps": self.steps,
            "optimizer": self.optimizer,
            "decided": self.decided,
            "undecided": [list(each) for each in self.undecided],
            "losses": [[encode_number(each) for each in pair] for pair in self.losses],
            "notes": list(self.notes),
            "reason": self.reason,
            "findings": [finding.to_dict() for finding in self.findings],
            "modules": [module.to_dict() for module in self.modules],
        }

    def to_json(self) -> str:
        """Return it as a JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def plot(self, metric: str = "change") -> "Figure":
        """Return a Plotly figure of one size against the width: a line for every module.

        Args:
            metric: "output", "change", "gradient" or "effect" (a line for every parameter).

        Raises:
            ChainruleError: If Plotly is not installed or the metric is unknown.
        """
        ways = {
            finding.parameter or finding.module: 1 if finding.exponent > 0 else -1
            for finding in self.findings
            if finding.metric == metric
        }
        lines = [
            Line(name, scaling, ways.get(name, 0)) for name, scaling in self._list_scalings(metric)
        ]
        return plot_widths(self.widths, lines, metric)

    def _list_scalings(self, metric: str) -> Iterator[tuple[str, Scaling]]:
        for module in self.modules:
            places: list[tuple[str, Any]] = [(module.name, module)]
            if metric == "effect":
                places = [(parameter.name, parameter) for parameter in module.parameters]
            for name, place in places:
                if (scaling := getattr(place, metric, None)) is not None:
                    yield name, scaling


def _group(findings: tuple[WidthFinding, ...]) -> list[tuple[WidthFinding, ...]]:
    """Put findings together that say the same of several parameters, in their order."""
    groups: dict[tuple[str, ...], list[WidthFinding]] = {}
    for finding in findings:
        own = "" if finding.metric == "effect" else finding.module
        key = (finding.metric, own, "grows" if finding.exponent > 0 else "falls", finding.action)
        groups.setdefault(key, []).append(finding)
    return [tuple(group) for group in groups.values()]


def describe_group(findings: tuple[WidthFinding, ...]) -> str:
    """Return findings that say the same as one sentence."""
    first = findings[0]
    if len(findings) == 1:
        return str(first)
    exponents = sorted(finding.exponent for finding in findings)
    span = f"width^{write_exponent(exponents[0])} to width^{write_exponent(exponents[-1])}"
    way = "grow" if first.exponent > 0 else "fall"
    names = _list_names([finding.parameter or finding.module for finding in findings])
    text = f"the effects of their updates {way} with {span} (expected 0)"
    action = first.action.replace("its learning rate", "their learning rates")
    return f"{names}: {'; '.join(filter(None, (text, action)))}"


def describe_harm(findings: tuple[WidthFinding, ...], widths: tuple[int, ...]) -> str:
    """Return whether what was found does harm at the widths that were measured."""
    falls = [finding for finding in findings if finding.harmful_from is None]
    if falls:
        return f"At width {widths[-1]} it is {format_number(falls[0].size)}; less with every width."
    worst = min(findings, key=lambda finding: finding.harmful_from or math.inf)
    assert worst.harmful_from is not None
    now = f"At width {widths[-1]} it is {format_number(worst.size)}"
    if len(findings) > 1:
        now = f"{now} (`{worst.parameter or worst.module}`)"
    limit = format_number(worst.limit)
    if worst.harmful:
        return f"{now}: harmful, being above {limit}."
    reach = f"{float(f'{worst.harmful_from:.1g}'):,.0f}"
    return f"{now}: harmless so far, harmful above {limit}, from a width of about {reach} on."


def _list_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more


def _encode(scaling: Scaling | None) -> dict[str, Any] | None:
    return None if scaling is None else scaling.to_dict()
