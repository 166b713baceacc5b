"""Records in data frames: numbers are numbers there, and what is missing is missing."""

import math

import pandas as pd
import polars as pl
import pytest
import torch
from torch import nn

from chainrule.display.export import list_records
from chainrule.flow.gradient_flow import RECORD_TYPES
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

NUMBERS = [name for name, kind in RECORD_TYPES.items() if kind is not str]


def measure_mixed():
    """A linear layer, an activation that saturates, and a module whose output gets no gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].requires_grad_(False)
    x = torch.randn(8, 4)
    return inspect(model, lambda m: m(x).square().mean())


def measure_frozen(count=60):
    """A model whose first modules are frozen: 120 rows without a gradient, and then some with."""
    torch.manual_seed(0)
    layers = [part for _ in range(count) for part in (nn.Linear(4, 4), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(4, 4))
    model[:-1].requires_grad_(False)
    x = torch.randn(8, 4)
    return inspect(model, lambda m: m(x).square().mean())


class TestPandas:
    def test_numbers_are_numeric_and_missing_is_null(self):
        flow = measure_mixed()
        records = flow.to_records()
        frame = pd.DataFrame(records)
        assert list(frame.columns) == list(RECORD_TYPES)
        assert len(frame) == len(flow.layers)
        for name in NUMBERS:
            values = [record[name] for record in records]
            assert frame[name].isna().tolist() == [value is None for value in values]
            if any(value is not None for value in values):
                assert pd.api.types.is_numeric_dtype(frame[name]), name
        gradients = [c.gradient.norm for c in flow.layers if c.gradient is not None]
        assert frame["grad_norm"].sum() == pytest.approx(math.fsum(gradients))
        assert frame["grad_norm"].isna().sum() == 2  # nothing before the frozen layer's output
        assert frame.groupby("kind")["saturation"].mean()["Sigmoid"] == pytest.approx(
            float(flow.layers[1].statistics.saturation)
        )

    @pytest.mark.parametrize("rows", ["layers", "parameters"])
    def test_other_records_load_as_well(self, rows):
        frame = pd.DataFrame(list_records(measure_mixed(), rows))
        column = "weight_grad_norm" if rows == "layers" else "grad_norm"
        assert pd.api.types.is_float_dtype(frame[column])
        assert frame[column].isna().sum() == (1 if rows == "layers" else 2)


class TestPolars:
    def test_numbers_are_numeric_and_missing_is_null(self):
        flow = measure_mixed()
        records = flow.to_records()
        frame = pl.DataFrame(records)
        assert frame.columns == list(RECORD_TYPES)
        for name in NUMBERS:
            values = [record[name] for record in records]
            assert frame[name].to_list() == values  # None comes back as None: null, and not NaN
            if any(value is not None for value in values):
                assert frame[name].dtype.is_numeric(), name
        assert frame["grad_norm"].null_count() == 2

    def test_with_types_also_columns_that_start_empty(self):
        flow = measure_frozen()
        records = flow.to_records()
        assert all(record["grad_norm"] is None for record in records[:100])
        frame = pl.DataFrame(records, schema=RECORD_TYPES)
        assert frame["grad_norm"].to_list() == [record["grad_norm"] for record in records]
        assert frame["dead_units"].dtype == pl.Float64
        assert dict(frame.schema) == {
            name: {str: pl.String, int: pl.Int64, float: pl.Float64}[kind]
            for name, kind in RECORD_TYPES.items()
        }


def test_types_name_every_column_in_order():
    flow = simulate(NetworkSpec(depth=3, width=8), 2)
    for record in flow.to_records():
        assert list(record) == list(RECORD_TYPES)
        for name, value in record.items():
            assert value is None or type(value) is RECORD_TYPES[name], name
