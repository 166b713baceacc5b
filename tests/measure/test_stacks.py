"""Tensors of one shape share a stack; the numbers are those of each by itself."""

import numpy as np
import pytest
import torch
from torch import nn

from chainrule import inspect
from chainrule.measure import stacks
from chainrule.measure.stacks import (
    DELTAS,
    GRADIENTS,
    VALUES,
    WEIGHTS,
    summarize_alike,
    summarize_kinds,
    summarize_one,
)
from chainrule.measure.statistics import (
    SMALL,
    count_bins,
    fetch_rows,
    gather_rows,
    summarize_gradients,
    summarize_values,
    summarize_weights,
)

ALONE = {
    VALUES: summarize_values,
    DELTAS: summarize_gradients,
    GRADIENTS: summarize_gradients,
    WEIGHTS: summarize_weights,
}


def draw(*shape, dtype=torch.float32):
    return ((torch.randn(shape) + 0.3) * (torch.rand(shape) > 0.2)).to(dtype)


TENSORS = {
    "matrices": [draw(5, 6) for _ in range(4)],
    "float64": [draw(5, 6, dtype=torch.float64) for _ in range(4)],
    "half": [draw(5, 6, dtype=torch.float16) for _ in range(4)],
    "vectors": [draw(7) for _ in range(4)],
    "single numbers": [draw() for _ in range(4)],
    "one example": [draw(1, 6) for _ in range(4)],
    "maps": [draw(4, 3, 5, 5) for _ in range(4)],
    "all zero": [torch.zeros(5, 6), draw(5, 6), torch.zeros(5, 6), torch.zeros(5, 6)],
    "one is huge": [draw(5, 6), 1e30 * draw(5, 6), draw(5, 6), draw(5, 6)],
    "one is tiny": [draw(5, 6), draw(5, 6), 1e-30 * draw(5, 6), draw(5, 6)],
    "not finite": [draw(5, 6), draw(5, 6).log(), draw(5, 6), draw(5, 6) / 0.0],
    "sampled": [draw(70, 90) for _ in range(4)],
    "not stacked": [draw(40, 500) for _ in range(4)],
    "large": [draw(90, 1000) for _ in range(4)],
    "large and zero": [torch.zeros(90, 1000) for _ in range(4)],
    "large and tiny": [1e-30 * draw(90, 1000) for _ in range(4)],
    "large, not finite": [draw(90, 1000).log() for _ in range(4)],
    "not contiguous": [draw(6, 5).T for _ in range(4)],
    "a parameter": [draw(5, 6), draw(5, 6), draw(5, 6), nn.Parameter(draw(5, 6))],
}


@pytest.mark.parametrize("name", TENSORS)
def test_the_numbers_are_those_of_each_by_itself(name):
    tensors = dict(zip((VALUES, DELTAS, GRADIENTS, WEIGHTS), TENSORS[name], strict=True))
    tables = []
    with torch.no_grad():
        places = summarize_kinds([(kind, {"a": each}) for kind, each in tensors.items()], tables)
        rows = gather_rows(tables)()
        for (kind, tensor), place in zip(tensors.items(), places, strict=True):
            table, entry = place["a"]
            (expected,) = fetch_rows([ALONE[kind]([tensor.unsqueeze(0)])])
            for numbers in (rows[table], fetch_rows([summarize_one_as_tensors(kind, tensor)])[0]):
                if kind == WEIGHTS:
                    expected.pop("max_abs", None)  # nobody reads it
                assert numbers.keys() - {"max_abs"} == expected.keys() - {"max_abs"}
                for key, value in expected.items():
                    at = entry if numbers is rows[table] else 0
                    if name == "not contiguous" and numbers is not rows[table]:
                        # By itself it is not copied, and its numbers are added up in another order.
                        close = {"rtol": 1e-6, "atol": 1e-7, "err_msg": key}
                        np.testing.assert_allclose(numbers[key][at], value[0], **close)
                    else:
                        assert write(numbers[key][at]) == write(value[0]), key


def write(value):
    """All digits, so that undefined numbers are equal; zero has no sign."""
    return repr(value).replace("-0.0", "0.0")


def summarize_one_as_tensors(kind, tensor):
    return {key: torch.as_tensor(each) for key, each in summarize_one(kind, tensor).items()}


def test_places_are_by_group_and_kind():
    known, sparse = {"norm": torch.zeros(1, 1)}, torch.eye(3).to_sparse()
    one = {"a": torch.ones(3), "b": 2 * torch.ones(3), "c": torch.ones(2), "d": known}
    other = {"a": 3 * torch.ones(3), "b": sparse}
    tables = [{}]
    first, second = summarize_kinds([(DELTAS, one), (GRADIENTS, other)], tables)
    rows = gather_rows(tables)()

    def read(place):
        table, entry = place
        return rows[table]["norm"][entry][0]

    assert [read(first[key]) for key in "abcd"] == pytest.approx([3**0.5, 2 * 3**0.5, 2**0.5, 0.0])
    assert [read(second[key]) for key in "ab"] == pytest.approx([27**0.5, 3**0.5])
    assert first["a"][0] == first["b"][0] != second["a"][0]


def test_many_are_stacked_in_parts(monkeypatch):
    monkeypatch.setattr(stacks, "STACK", 14)
    values = {at: draw(5) for at in range(5)}
    tables = []
    (places, others) = summarize_kinds([(VALUES, values), (WEIGHTS, {0: draw(5)})], tables)
    assert len({table for table, _ in places.values()}) == 3
    rows = gather_rows(tables)()
    for key, (table, entry) in places.items():
        assert rows[table]["max"][entry][0] == values[key].max()
    assert "norm" in rows[others[0][0]]
    assert SMALL > 5


def test_tensors_of_one_kind_are_summarized_by_shape_and_precision():
    tensors = {
        "a": torch.ones(2),
        "b": torch.ones(3),
        "c": 2 * torch.ones(2),
        "d": torch.ones(2).double(),
    }
    tables, seen = [{}], []

    def summarize(group):
        seen.append([each.sum().item() for each in group])
        return {"norm": torch.zeros(len(group), 1)}

    places = summarize_alike(tensors, tables, summarize)
    assert sorted(seen) == [[2.0], [2.0, 4.0], [3.0]]
    assert places["a"][0] == places["c"][0] != places["d"][0]
    assert (places["a"][1], places["c"][1]) == (0, 1)
    assert len(tables) == 4


@pytest.mark.parametrize("width", [200, 1100])
@pytest.mark.parametrize("factor", [1e20, 1e-20, torch.nan])
def test_a_large_weight_out_of_range_is_measured_and_stays(factor, width):
    model = nn.Linear(width, width)
    with torch.no_grad():
        model.weight[:, :3] *= factor
        model.weight[:, 3:] *= 1.0 if torch.tensor(factor).isnan() else factor
    before = model.weight.detach().clone()
    x = torch.ones(2, width)
    flow = inspect(model, lambda m: m(x).square().mean())
    expected = float(before.double().norm())
    assert float(flow.parameters[0].norm) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0, equal_nan=True)


def test_numbers_too_close_to_be_told_apart_are_in_the_first_bin():
    table = count_bins(
        torch.tensor([[0.0, 1e-40, 2e-40]]), torch.tensor([[0.0]]), torch.tensor([[2e-40]])
    )
    assert table["counts"][0, 0] == 3


def test_numpy_raises_nothing_that_its_user_asked_it_to():
    model = nn.Linear(4, 4)
    with np.errstate(all="raise"):
        flow = inspect(model, lambda m: m(1e-14 * torch.rand(3, 4)).square().mean())
    assert flow.layers[0].statistics is not None
