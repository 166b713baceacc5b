"""A measurement for other programs and other people: CSV tables, and a JSON summary.

The whole measurement, to be read back, is `GradientFlow.save`; this is what one pastes into a
spreadsheet or a ticket.
"""

import csv
import io
import json
import os
from dataclasses import asdict, replace
from typing import Any, Literal

from pydantic_core import to_json

from chainrule._utils.files import write_text
from chainrule._utils.numbers import encode_number
from chainrule.diagnosis.attribution import rank_attributions
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.display.cards import describe_measurement, describe_subject
from chainrule.errors import FlowFileError, suggest
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import ParameterFlow, WeightLayer
from chainrule.remedies.result import Remedies, write_recipe

Rows = Literal["layers", "modules", "parameters"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def list_records(flow: GradientFlow, rows: Rows = "layers") -> list[dict[str, Any]]:
    """Return one flat dictionary per weight layer, module output or parameter.

    Values are medians over the ensemble; those that do not exist are `None`. Of the gradient of a
    weight layer and of a parameter, the 10th and 90th percentile are given, too.

    Args:
        flow: The measurement.
        rows: "layers" (weight layers), "modules" (as `GradientFlow.to_records`) or "parameters".

    Raises:
        FlowFileError: If `rows` is none of these.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> [record["layer"] for record in list_records(flow)]
        [1, 2, 3]
    """
    if rows == "layers":
        return [_flatten_layer(layer) for layer in flow.weight_layers]
    if rows == "modules":
        return flow.to_records()
    if rows == "parameters":
        return [_flatten_parameter(parameter) for parameter in flow.parameters]
    known = ("layers", "modules", "parameters")
    raise FlowFileError(f"rows: unknown {rows!r}. {suggest(str(rows), known)}")


def to_csv(flow: GradientFlow, rows: Rows = "layers") -> str:
    """Return records as CSV text with a heading line (RFC 4180), full precision.

    Values that do not exist are empty; others that JSON could not hold are inf, -inf and nan.
    Text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        flow: The measurement.
        rows: As in `list_records`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> to_csv(flow).splitlines()[0].split(",")[:3]
        ['layer', 'name', 'kind']
    """
    records = list_records(flow, rows)
    names = list(records[0]) if records else []
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\r\n")
    if names:
        writer.writeheader()
    for record in records:
        writer.writerow({name: _protect(value) for name, value in record.items()})
    return buffer.getvalue()


def write_csv(flow: GradientFlow, path: str | os.PathLike[str], rows: Rows = "layers") -> None:
    """Write records to a CSV file, replacing an older one only when all is written.

    Raises:
        FlowFileError: If the file cannot be written there, or `rows` is unknown.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> write_csv(flow, os.devnull, "rows")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        chainrule.errors.FlowFileError: rows: unknown 'rows'. ...
    """
    write_text(path, to_csv(flow, rows))


def summarize(flow: GradientFlow, diagnosis: Diagnosis | None = None) -> dict[str, Any]:
    """Return a measurement in short, as JSON can hold it: headline values and what is wrong.

    Args:
        flow: The measurement.
        diagnosis: Its diagnosis, if it is there already.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> summarize(flow)["networks"]
        2
    """
    diagnosis = diagnosis or diagnose(flow)
    return {
        "subject": describe_subject(flow),
        "measured": describe_measurement(flow),
        "chainrule_version": flow.chainrule_version,
        "torch_version": flow.torch_version,
        "spec": flow.spec.model_dump() if flow.spec else None,
        "networks": flow.ensemble_size,
        "loss": _plain(flow.loss),
        "loss_kind": flow.loss_facts.kind if flow.loss_facts else None,
        "loss_of_guessing": _plain(flow.loss_facts.guessing) if flow.loss_facts else None,
        "gradient_at_first_layer": _plain(_get_end(flow, 0)),
        "gradient_at_last_layer": _plain(_get_end(flow, -1)),
        "gradient_ratio": _plain(flow.gradient_ratio),
        "gradient_norm": _plain(flow.gradient_norm),
        "verdict": str(diagnosis.verdict),
        "summary": diagnosis.summary,
        "findings": [
            {
                "verdict": str(finding.verdict),
                "evidence": finding.evidence,
                "reason": finding.reason,
                "log_odds": finding.log_odds,
                "source": finding.source,
                "layers": list(finding.layers),
                "modules": list(finding.modules),
            }
            for finding in diagnosis.findings
        ],
        "blame": [
            {
                "module": blame.name,
                "kind": blame.kind,
                "layer": blame.layer,
                "factor": _plain(blame.factor),
                "what": blame.meaning,
                "share": blame.share,
            }
            for blame in rank_attributions(flow, diagnosis)
        ],
        "notes": [
            {
                "evidence": note.evidence,
                "meaning": note.meaning,
                "source": note.source,
                "modules": list(note.modules),
            }
            for note in diagnosis.notes
        ],
        "training": {
            name: {"outlook": str(prospect.word), "chance": prospect.probability}
            for name, prospect in (
                ("sgd", diagnosis.viability.sgd),
                ("adam", diagnosis.viability.adam),
            )
        },
        "next": diagnosis.action,
        "prospects": diagnosis.prospects,
        "layers": [
            {name: _plain(value) for name, value in record.items()}
            for record in list_records(flow, "layers")
        ],
        "attentions": [
            {
                "module": each.label,
                "heads": each.heads,
                "queries": each.queries,
                "keys": each.keys,
                "entropy": _plain(each.entropy),
                "one_hot": _plain(each.one_hot),
                "uniform": _plain(each.uniform),
            }
            for each in flow.attentions
        ],
    }


def to_summary_json(flow: GradientFlow, diagnosis: Diagnosis | None = None) -> str:
    """Return `summarize` as JSON text for people: indented, non-finite numbers as words.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> json.loads(to_summary_json(flow))["networks"]
        2
    """
    return json.dumps(summarize(flow, diagnosis), ensure_ascii=False, indent=2, allow_nan=False)


def to_result_json(
    flow: GradientFlow, diagnosis: Diagnosis, remedies: Remedies | None = None
) -> str:
    """Return what a command found as JSON text: diagnosis, causes, flow, and remedies if there are.

    Args:
        flow: The measurement.
        diagnosis: What it means.
        remedies: What was found when remedies were looked for.

    Example:
        >>> from chainrule import NetworkSpec, diagnose, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> list(json.loads(to_result_json(flow, diagnose(flow))))
        ['diagnosis', 'blame', 'flow']
    """
    document: dict[str, Any] = {
        "diagnosis": _encode(asdict(replace(diagnosis, trial=None))),
        "blame": [_encode(asdict(blame)) for blame in rank_attributions(flow, diagnosis)],
        "flow": json.loads(flow.to_json()),
    }
    if diagnosis.trial is not None:
        document["trial"] = diagnosis.trial.to_dict()
    if remedies is not None:
        codes = {id(each): write_recipe(remedies, at) for at, each in enumerate(remedies)}
        document["remedies"] = [
            {**remedy.to_dict(), "code": codes.get(id(remedy), "")} for remedy in remedies.tried
        ]
        if remedies.advice:
            document["advice"] = [_encode(asdict(advice)) for advice in remedies.advice]
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)


def _encode(value: Any) -> Any:
    """Return what JSON can hold; its numbers are spelled as `encode_number` does."""
    return json.loads(to_json(value, inf_nan_mode="strings", fallback=str))


def _get_end(flow: GradientFlow, position: int) -> Quantity | None:
    return flow.weight_gradient_norms[position] if flow.weight_gradient_norms else None


def _plain(value: Any) -> Any:
    return encode_number(float(value)) if isinstance(value, float) else value


def _number(value: Quantity | None) -> float | None:
    return None if value is None else float(value)


def _flatten_layer(layer: WeightLayer) -> dict[str, Any]:
    gradient = layer.weight_gradient_norm
    return {
        "layer": layer.layer,
        "name": layer.name,
        "kind": layer.kind,
        "activation": layer.activation_kind,
        "weight_norm": _number(layer.weight_norm),
        "weight_grad_norm": _number(gradient),
        "weight_grad_norm_low": None if gradient is None else gradient.low,
        "weight_grad_norm_high": None if gradient is None else gradient.high,
        "delta_norm": _number(layer.delta_norm),
        "grad_to_weight": _number(layer.grad_to_weight),
        "std": _number(layer.std),
        "variation": _number(layer.variation),
        "saturation": _number(layer.saturation),
        "dead_share": _number(layer.dead_share),
    }


def _flatten_parameter(parameter: ParameterFlow) -> dict[str, Any]:
    gradient = parameter.grad_norm
    return {
        "name": parameter.name,
        "shape": "×".join(map(str, parameter.shape)),
        "dtype": parameter.dtype,
        "layer": parameter.layer,
        "status": parameter.status,
        "norm": _number(parameter.norm),
        "non_finite": _number(parameter.non_finite),
        "grad_norm": _number(gradient),
        "grad_norm_low": None if gradient is None else gradient.low,
        "grad_norm_high": None if gradient is None else gradient.high,
        "grad_to_weight": _number(parameter.grad_to_weight),
        "grad_zero_share": _number(parameter.grad_zero_share),
        "grad_non_finite": _number(parameter.grad_non_finite),
    }


def _protect(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
