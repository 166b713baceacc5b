"""CSV tables and the JSON summary."""

import csv
import io
import json
import math

import pytest
import torch
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.display.export import (
    list_records,
    summarize,
    to_csv,
    to_result_json,
    to_summary_json,
    write_csv,
)
from chainrule.errors import FlowFileError
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

SPEC = NetworkSpec(depth=3, width=8, activation="relu", init="he")
OVERFLOWING = NetworkSpec(depth=8, width=4, activation="identity", init="random", weight_std=1e6)


def read(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_layers_line_holds_what_the_flow_says_in_full_precision():
    flow = simulate(SPEC, 5)
    lines = read(to_csv(flow))
    assert [line["layer"] for line in lines] == ["1", "2", "3"]
    for line, layer in zip(lines, flow.weight_layers, strict=True):
        assert float(line["weight_grad_norm"]) == float(layer.weight_gradient_norm)
        assert float(line["weight_grad_norm_low"]) == layer.weight_gradient_norm.low
        assert float(line["weight_grad_norm_high"]) == layer.weight_gradient_norm.high
        assert float(line["delta_norm"]) == float(layer.delta_norm)
        assert float(line["dead_share"]) == float(layer.dead_share)


def test_modules_are_the_flows_own_records():
    flow = simulate(SPEC, 2)
    assert list_records(flow, "modules") == flow.to_records()
    assert [line["name"] for line in read(to_csv(flow, "modules"))] == [
        call.name for call in flow.layers
    ]


def test_parameters_without_gradient_have_empty_cells_and_say_why():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.spare = nn.Linear(2, 2)
    model[0].weight.requires_grad_(False)
    flow = inspect(model, lambda m: m[1](m[0](torch.ones(3, 2))).sum())
    lines = {line["name"]: line for line in read(to_csv(flow, "parameters"))}
    assert lines["0.weight"]["status"] == "frozen"
    assert lines["spare.weight"]["status"] == "unreached"
    assert lines["spare.weight"]["grad_norm"] == ""
    assert float(lines["1.weight"]["grad_norm"]) > 0


def test_undefined_numbers_are_spelled_so_that_readers_know_them():
    flow = simulate(OVERFLOWING, 2)
    gradients = [float(line["weight_grad_norm"]) for line in read(to_csv(flow))]
    assert all(math.isnan(gradient) for gradient in gradients)


def test_text_that_a_spreadsheet_would_run_is_kept_from_it():
    model = nn.ModuleDict({"=cmd|' /C calc'!A0": nn.Linear(2, 2)})
    flow = inspect(model, lambda m: next(iter(m.values()))(torch.ones(1, 2)).sum())
    (line,) = read(to_csv(flow))
    assert line["name"].startswith("'=cmd")


def test_a_flow_without_weight_layers_gives_an_empty_table():
    flow = inspect(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum())
    assert to_csv(flow) == ""
    assert len(read(to_csv(flow, "modules"))) == 1


def test_unknown_rows_are_refused():
    with pytest.raises(FlowFileError, match=r"unknown 'layer'. Did you mean 'layers'\?"):
        to_csv(simulate(SPEC, 1), "layer")


def test_csv_goes_to_a_file(tmp_path):
    flow = simulate(SPEC, 2)
    write_csv(flow, tmp_path / "layers.csv")
    assert (tmp_path / "layers.csv").read_bytes().decode() == to_csv(flow)


def test_the_summary_says_what_the_diagnosis_says():
    flow = simulate(SPEC.replace(activation="sigmoid", depth=12), 4)
    diagnosis = diagnose(flow)
    summary = summarize(flow)
    assert summary["verdict"] == diagnosis.verdict
    assert summary["next"] == diagnosis.action
    assert [f["evidence"] for f in summary["findings"]] == [
        finding.evidence for finding in diagnosis.findings
    ]
    assert summary["gradient_ratio"] == float(flow.gradient_ratio)
    assert summary["spec"]["depth"] == 12
    assert len(summary["layers"]) == 12


def test_the_summary_is_strict_json():
    document = json.loads(to_summary_json(simulate(OVERFLOWING, 2)))
    assert document["gradient_at_first_layer"] == "NaN"
    assert document["verdict"] == "non-finite"


def test_the_result_of_a_command_is_strict_json_also_where_values_overflow():
    flow = simulate(OVERFLOWING, 2)

    def refuse(word):
        raise AssertionError(word)

    document = json.loads(to_result_json(flow, diagnose(flow)), parse_constant=refuse)
    assert document["diagnosis"]["verdict"] == "non-finite"
    assert document["flow"] == json.loads(flow.to_json())
