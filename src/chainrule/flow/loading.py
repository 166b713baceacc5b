"""Reading flow files: a `GradientFlow` as JSON, validated before anything sees it.

A file may come from anybody. What is loaded says exactly what the file says: nothing is converted,
completed or left out on the way; whatever does not allow that is refused, with the place and the
reason. Limits are checked before the work that they limit.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NoReturn

from pydantic import ValidationError

from chainrule._utils.files import read_path
from chainrule._utils.numbers import format_number
from chainrule.errors import FlowFileError, abbreviate
from chainrule.flow.gradient_flow import SCHEMA_VERSION, GradientFlow, flow_adapter
from chainrule.flow.loss import LossFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import ActivationStatistics, ParameterFlow
from chainrule.flow.time import TimeFlow
from chainrule.flow.trial import TrialOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a flow file is read.

    Attributes:
        size: Bytes of the whole file.
        entries: Module outputs, and as many parameters.
        members: Networks of an ensemble.
        text: Characters of one name.
    """

    size: int = 256 * 2**20
    entries: int = 100_000
    members: int = 100_000
    text: int = 2_000


LIMITS = Limits()
"""What is read from a file on your own disk."""

MAX_FIELDS = 24
"""Most fields of one object in a file; the flow itself has the most, 20."""

MAX_DOTS = 100
"""Most dots of one name: how deep modules may be nested."""

_MAX_DIGITS = 19


def load_flow(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> GradientFlow:
    """Return the flow that `GradientFlow.save` wrote.

    Args:
        path: The file.
        limits: How much is read.

    Raises:
        FlowFileError: If the file is missing, too large, damaged, or from a newer chainrule.

    Example:
        >>> load_flow("lost.json")
        Traceback (most recent call last):
        chainrule.errors.FlowFileError: Could not read lost.json: No such file or directory.
    """
    source = read_path(path)
    try:
        with source.open("rb") as file:
            content = file.read(limits.size + 1)  # its size may change, or be unknown (a pipe)
    except OSError as error:
        raise FlowFileError(f"Could not read {source}: {error.strerror}.") from None
    except ValueError as error:  # a path that no file system has
        raise FlowFileError(f"Could not read {str(path)!r}: {error}.") from None
    if len(content) > limits.size:
        raise FlowFileError(
            f"A flow file must be at most {_describe_size(limits.size)}; {source} has more."
        )
    return decode_flow(content, limits=limits)


NEW_IN_3 = (
    *("origin", "loss_facts", "inputs", "times", "symmetries", "precisions", "optimizer"),
    "trial",
    "slips",
)
"""What flow files hold since version 3."""

_LATER = frozenset({"slips"})
"""What the first files of version 3 do not hold."""


def decode_flow(text: str | bytes, *, limits: Limits = LIMITS) -> GradientFlow:
    """Return the flow that JSON text holds.

    Args:
        text: What `GradientFlow.to_json` gave; bytes are UTF-8.
        limits: How much is read.

    Raises:
        FlowFileError: If the text is not a flow, is damaged, too large, or has a newer schema.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4))
        >>> decode_flow(flow.to_json()) == flow
        True
    """
    if len(text) > limits.size:
        raise FlowFileError(
            f"A flow file must be at most {_describe_size(limits.size)}; "
            f"this one has {_describe_size(len(text))}."
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            _refuse_json("it is not UTF-8 text")
    document = _parse(text)
    version = _check_version(document)
    _check_lengths(document, limits)
    if version == 1:
        _rename_streams(document)
    for name in NEW_IN_3 if version < 3 else ():
        if name in document:
            _refuse(name, f"must not be there in version {version}", document[name])
    try:
        # Not `validate_json`: its parser takes 120 times the size of a text of empty lists.
        flow = flow_adapter().validate_python(document | {"schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        raise _explain(error) from None
    if version >= 3:
        _check_complete(document)
    _check_spec(document["spec"], flow)
    _check_seeds(flow)
    _check_parts(flow, limits)
    _check_origin(flow, limits)
    _check_layer_numbers(flow)
    return flow


def _parse(text: str) -> Any:
    """Return the JSON value; what JSON allows but chainrule never writes is refused."""

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > MAX_FIELDS:
            raise ValueError(f"an object in it has more than {MAX_FIELDS} fields")
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{abbreviate(twice)} is given twice in one object")
        return fields

    def read_integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            raise ValueError(f"it has a whole number of {len(digits)} digits")
        return int(digits)

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} must be in quotes")

    try:
        return json.loads(
            text,
            object_pairs_hook=collect,
            parse_int=read_integer,
            parse_constant=refuse_constant,
        )
    except RecursionError:
        _refuse_json("it is nested too deeply")
    except ValueError as error:
        _refuse_json(str(error))


def _refuse_json(problem: str) -> NoReturn:
    raise FlowFileError(
        f"A flow file must hold JSON as written by chainrule; it could not be read ({problem}). "
        "Measure again and save a new one."
    )


def _check_version(document: Any) -> int:
    """Return the version of the file's structure, if it is one that this chainrule reads."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise FlowFileError(
            f"This flow file has schema version {version}, but this chainrule reads up to "
            f"{SCHEMA_VERSION}. Upgrade with: pip install --upgrade chainrule"
        )
    if type(version) is not int or version < 1:
        raise FlowFileError(
            f"A flow file must state a schema_version from 1 to {SCHEMA_VERSION}; this one has "
            f"{abbreviate(version)}. It was not written by chainrule, or is damaged. "
            "Write one with: chainrule inspect FILE.py:FUNCTION --output flow.json"
        )
    return version


def _check_complete(document: dict[str, Any]) -> None:
    """Raise if a field is missing that has a default: what is not there cannot be said."""
    for name in GradientFlow.__dataclass_fields__:
        if name not in document and name not in _LATER:
            raise FlowFileError(
                f"The flow file is damaged at {name}: this field must be there and is missing. "
                "Measure again and save a new one."
            )


def _rename_streams(document: dict[str, Any]) -> None:
    """Give the residual connections of a file of version 1 the field name of today."""
    residuals = document.get("residuals")
    for index, each in enumerate(residuals if isinstance(residuals, list) else ()):
        if isinstance(each, dict):
            if "stream" in each:
                _refuse(
                    f"residuals.{index}.stream", "must not be there in version 1", each["stream"]
                )
            if "trunk" in each:
                each["stream"] = each.pop("trunk")


def _check_lengths(document: dict[str, Any], limits: Limits) -> None:
    for name, most in (
        ("layers", limits.entries),
        ("parameters", limits.entries),
        ("residuals", limits.entries),
        ("attentions", limits.entries),
        ("inputs", limits.entries),
        ("times", limits.entries),
        ("symmetries", limits.entries),
        ("slips", limits.entries),
        ("precisions", 2 * limits.entries),
        ("loss", limits.members),
        ("seeds", limits.members),
    ):
        value = document.get(name)
        if isinstance(value, list) and len(value) > most:
            raise FlowFileError(
                f"A flow file must have at most {most:,} entries in {name}; this one has "
                f"{len(value):,}. Measure a part of the model."
            )


def _check_spec(written: Any, flow: GradientFlow) -> None:
    """Raise unless the specification was taken over as it was written."""
    if flow.spec is None:
        return
    for name, read in flow.spec.model_dump().items():
        came = written.get(name, read)
        if came != read or isinstance(came, bool) is not isinstance(read, bool):
            _refuse(f"spec.{name}", f"must be written as {read!r}", came)


def _check_seeds(flow: GradientFlow) -> None:
    if flow.seeds and len(flow.seeds) != flow.ensemble_size:
        _refuse(
            "seeds", f"must be one per network of the {flow.ensemble_size} measured", flow.seeds
        )
    if len(set(flow.seeds)) < len(flow.seeds):
        _refuse("seeds", "must each occur once", flow.seeds)


def _check_parts(flow: GradientFlow, limits: Limits) -> None:
    """Raise unless every part fits the others: sizes of ensembles, positions, lengths of texts."""
    for name in ("device", "torch_version", "chainrule_version"):
        _check_text(getattr(flow, name), limits, name)
    layers = len(flow.layers)
    for name in (
        *("layers", "parameters", "residuals", "attentions"),
        *("inputs", "times", "symmetries", "precisions", "slips"),
    ):
        for index, part in enumerate(getattr(flow, name)):
            _check_values(part, flow.ensemble_size, limits, f"{name}.{index}")
    if flow.loss_facts is not None:
        _check_loss(flow.loss_facts, flow, limits)
    for index, call in enumerate(flow.layers):
        if call.parent is not None and not index < call.parent < layers:  # so there are no circles
            _refuse(f"layers.{index}.parent", "must be the position of a later entry", call.parent)
        if call.statistics is not None:
            _check_statistics(call.statistics, f"layers.{index}.statistics")
    for index, parameter in enumerate(flow.parameters):
        _check_parameter(parameter, index)
    _check_optimizer(flow, limits)
    _check_trial(flow, limits)
    _check_residuals(flow)
    _check_inputs(flow)
    for index, time in enumerate(flow.times):
        _check_time(time, f"times.{index}")


def _check_residuals(flow: GradientFlow) -> None:
    """Raise unless branches and parameters exist."""
    for index, residual in enumerate(flow.residuals):
        for position in residual.parameters:
            if position >= len(flow.parameters):
                where = f"residuals.{index}.parameters"
                _refuse(where, "must be positions of parameters", position)
        if residual.branch is not None and residual.branch >= len(flow.layers):
            _refuse(f"residuals.{index}.branch", "must be the position of a layer", residual.branch)


def _check_inputs(flow: GradientFlow) -> None:
    """Raise unless columns and units are not more than there are, and positions exist."""
    for index, entering in enumerate(flow.inputs):
        for field in ("constant_columns", "zero_columns"):
            for count in getattr(entering, field).values:
                if count > entering.columns:
                    where = f"inputs.{index}.{field}"
                    _refuse(where, f"must be at most columns, {entering.columns}", count)
    for index, symmetry in enumerate(flow.symmetries):
        for share in symmetry.share.values:
            if share >= 1.0:
                where = f"symmetries.{index}.copies"
                _refuse(where, f"must be below units, {symmetry.units}", symmetry.copies)
    for index, rounded in enumerate(flow.precisions):
        if rounded.layer is not None and rounded.layer >= len(flow.layers):
            where = f"precisions.{index}.layer"
            _refuse(where, "must be the position of a layer", rounded.layer)


def _check_time(time: TimeFlow, place: str) -> None:
    """Raise unless every step that was kept is one of the sequence, in order, and has values."""
    if any(a >= b for a, b in pairwise(time.steps)) or time.steps[-1] >= time.length:
        need = f"must grow, and end below length, {time.length}"
        _refuse(f"{place}.steps", need, list(time.steps))
    for name in ("gradients", "read", "chances"):
        values = getattr(time, name)
        if len(values) != len(time.steps) and (values or name == "gradients"):
            need = f"must be one for each of {len(time.steps)} steps"
            _refuse(f"{place}.{name}", need, len(values))


def _check_origin(flow: GradientFlow, limits: Limits) -> None:
    if flow.origin is not None:
        if flow.ensemble_size != 1:
            _refuse("origin", "must be null for several networks", flow.ensemble_size)
        _check_values(flow.origin, 1, limits, "origin")
        for index, name in enumerate(flow.origin.parameters):
            _check_text(name, limits, f"origin.parameters.{index}")


def _check_loss(facts: LossFlow, flow: GradientFlow, limits: Limits) -> None:
    _check_values(facts, flow.ensemble_size, limits, "loss_facts")
    places = [("loss_facts", facts.outputs)]
    for index, part in enumerate(facts.parts):
        _check_values(part, flow.ensemble_size, limits, f"loss_facts.parts.{index}")
        places.append((f"loss_facts.parts.{index}", part.outputs))
    for place, outputs in places:
        for position in outputs:
            if position >= len(flow.layers):
                _refuse(f"{place}.outputs", "must be positions of layers", position)
    for index, term in enumerate(facts.terms):
        place = f"loss_facts.terms.{index}"
        _check_values(term, flow.ensemble_size, limits, place)
        before = -1
        for number, gradient in enumerate(term.gradients or ()):
            where = f"{place}.gradients.{number}"
            _check_values(gradient, flow.ensemble_size, limits, where)
            if not before < gradient.parameter < len(flow.parameters):
                _refuse(
                    f"{where}.parameter",
                    "must be the position of a parameter, and of a later one than before",
                    gradient.parameter,
                )
            before = gradient.parameter


def _check_optimizer(flow: GradientFlow, limits: Limits) -> None:
    if flow.optimizer is None:
        return
    count, needed = len(flow.optimizer.rates), len(flow.parameters)
    if count != needed:
        _refuse("optimizer.rates", f"must have one entry for each of {needed} parameters", count)
    for name in ("decays", "planned", "rounded"):
        count = len(getattr(flow.optimizer, name))
        if count not in (0, needed):
            must = f"must have one entry for each of {needed} parameters"
            _refuse(f"optimizer.{name}", must, count)
    _check_values(flow.optimizer, flow.ensemble_size, limits, "optimizer")


def _check_trial(flow: GradientFlow, limits: Limits) -> None:
    if flow.trial is None:
        return
    if flow.ensemble_size != 1:
        _refuse("trial", "must be null for several networks", flow.ensemble_size)
    _check_values(flow.trial, 1, limits, "trial")
    for index, note in enumerate(flow.trial.notes):
        _check_text(note, limits, f"trial.notes.{index}")
    for index, optimizer in enumerate(flow.trial.optimizers):
        _check_values(optimizer, 1, limits, f"trial.optimizers.{index}")
    for optimizer in flow.trial.optimizers:
        for number, rate in enumerate(optimizer.rates):
            if rate.outcome is TrialOutcome.NON_FINITE and rate.failed_at is None:
                where = f"trial.{optimizer.name}.rates.{number}.failed_at"
                _refuse(where, "must be a step where outcome is 'non-finite'", None)


def _check_statistics(statistics: ActivationStatistics, place: str) -> None:
    for low, high in zip(statistics.min.values, statistics.max.values, strict=True):
        if low > high:
            _refuse(f"{place}.min", f"must not be above max, {high}", low)
    for count in statistics.dead_units.values if statistics.dead_units else ():
        if count > statistics.units:
            _refuse(f"{place}.dead_units", f"must be at most units, {statistics.units}", count)
    histogram = statistics.histogram
    if histogram is None:
        return
    if histogram.low > histogram.high:
        _refuse(
            f"{place}.histogram.low", f"must not be above high, {histogram.high}", histogram.low
        )
    if (total := sum(histogram.counts)) != histogram.sampled:
        _refuse(f"{place}.histogram.counts", f"must add up to {histogram.sampled}", total)


def _check_parameter(parameter: ParameterFlow, index: int) -> None:
    measured = parameter.status == "measured"
    for name in ("grad_norm", "grad_zero_share", "grad_non_finite"):
        value = getattr(parameter, name)
        if measured is (value is None):
            need = "a number where status is" if measured else "null unless status is"
            _refuse(f"parameters.{index}.{name}", f"must be {need} 'measured'", value)


def _check_layer_numbers(flow: GradientFlow) -> None:
    """Raise unless weight layers are numbered 1 … L and nothing belongs to another one."""
    numbers = {p.layer for p in flow.parameters if p.is_weight and p.layer is not None}
    count = len(numbers)
    if numbers != set(range(1, count + 1)):
        _refuse(
            "parameters", f"must number the {count} weight layers 1 to {count}", sorted(numbers)
        )
    entries: tuple[tuple[str, Any], ...] = (
        ("layers", flow.layers),
        ("parameters", flow.parameters),
    )
    for name, parts in entries:
        for index, part in enumerate(parts):
            if part.layer is not None and part.layer > count:
                _refuse(
                    f"{name}.{index}.layer",
                    f"must be null or one of the {count} weight layers",
                    part.layer,
                )


def _check_values(part: Any, size: int, limits: Limits, place: str) -> None:
    """Raise unless every value in a part has one number per network, and texts are short."""
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        if isinstance(value, Quantity):
            if len(value.values) != size:
                _refuse(
                    f"{place}.{name}",
                    f"must have one value for each of {size} networks",
                    len(value.values),
                )
        elif hasattr(value, "__dataclass_fields__"):
            _check_values(value, size, limits, f"{place}.{name}")
        elif isinstance(value, str):
            _check_text(value, limits, f"{place}.{name}")
        elif isinstance(value, tuple) and value and isinstance(value[0], Quantity):
            for member in value:
                if len(member.values) != size:
                    _refuse(
                        f"{place}.{name}",
                        f"must have one value for each of {size} networks",
                        len(member.values),
                    )
        elif name == "aliases":
            for alias in value:
                _check_text(alias, limits, f"{place}.aliases")


def _check_text(text: str, limits: Limits, place: str) -> None:
    if text.count(".") > MAX_DOTS:
        _refuse(place, f"must have at most {MAX_DOTS} dots", text)
    if len(text) > limits.text:
        _refuse(place, f"must have at most {limits.text} characters", text)


_REQUIREMENTS: Mapping[str, str] = MappingProxyType(
    {
        "unexpected_keyword_argument": "is no field that chainrule writes",
        "dataclass_type": "must be an object with the fields that chainrule writes",
        "model_type": "must be an object with the fields of a specification",
        "tuple_type": "must be a list",
        "string_unicode": "must be text without half of a surrogate pair",
    }
)
"""What must hold, where pydantic's own words are about Python and not about the file."""


def _explain(error: ValidationError) -> FlowFileError:
    first = error.errors(include_url=False)[0]
    place = ".".join(_name_step(step) for step in first["loc"]) or "its start"
    requirement = first["msg"].removeprefix("Value error, ").partition("\n")[0].rstrip(".")
    if place.startswith("spec") and first["type"] == "value_error":  # it says what came by itself
        return FlowFileError(
            f"The flow file is damaged at {place}: {requirement}. Measure again and save a new one."
        )
    if first["type"] == "missing":
        return FlowFileError(
            f"The flow file is damaged at {place}: this field must be there and is missing. "
            "Measure again and save a new one."
        )
    if first["type"] == "too_long" and isinstance(first["input"], list):
        requirement = f"must have at most {first['ctx']['max_length']:,} entries"
    if first["type"] == "too_short":
        requirement = f"must have at least {first['ctx']['min_length']} entries"
    requirement = _REQUIREMENTS.get(first["type"], f"{requirement[:1].lower()}{requirement[1:]}")
    return _build_error(place, requirement, first["input"])


def _name_step(step: int | str) -> str:
    """Return a field's name or a list's position; a stranger's name cut and made printable."""
    return str(step) if isinstance(step, int) else abbreviate(step)[1:-1]


def _refuse(place: str, requirement: str, received: Any) -> NoReturn:
    raise _build_error(place, requirement, received)


def _build_error(place: str, requirement: str, received: Any) -> FlowFileError:
    came = "null" if received is None else abbreviate(received)
    return FlowFileError(
        f"The flow file is damaged at {place}: {requirement}; got {came}. "
        "Measure again and save a new one."
    )


def _describe_size(size: int) -> str:
    return f"{format_number(size / 2**20)} MiB" if size >= 2**20 else f"{size} bytes"
