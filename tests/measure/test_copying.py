"""Copies of models whose attributes hold tensors with a graph."""

import pytest
import torch
from torch import nn

from chainrule.measure.copying import copy_model, find_uncopied, list_tensors
from chainrule.measure.inspection import inspect


def wrap(held, depth, kind=list):
    """Return something in so many containers."""
    for _ in range(depth):
        held = {"key": held} if kind is dict else kind([held])
    return held


def unwrap(held, depth):
    for _ in range(depth):
        held = held["key"] if isinstance(held, dict) else next(iter(held))
    return held


@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_what_has_a_graph_is_copied_without_it_up_to_four_containers_deep(kind, depth):
    model = nn.Linear(2, 2)
    output = model(torch.ones(1, 2))
    model.kept = wrap(output, depth, kind)
    copied = copy_model(model)
    found = unwrap(copied.kept, depth)
    assert torch.equal(found, output)
    assert found is not output
    assert found.is_leaf
    assert unwrap(model.kept, depth) is output


def test_deeper_ones_are_named_as_what_cannot_be_copied():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].kept = wrap(model(torch.ones(1, 2)), 5)
    with pytest.raises(RuntimeError) as raised:
        copy_model(model)
    assert "0.kept" in find_uncopied(model, raised.value).place


def test_containers_that_hold_themselves_come_to_an_end():
    tensor = torch.ones(1)
    around = [tensor]
    around += [around, around]
    assert len(list(list_tensors(around))) == 1 + 2 + 4 + 8


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_what_a_loss_appends_is_taken_off_up_to_four_containers_deep(depth):
    model = nn.Linear(2, 2)
    kept = ["first"]
    model.kept = wrap(kept, depth - 1)

    def compute_loss(m):
        kept.append("second")
        return m(torch.ones(1, 2)).sum()

    inspect(model, compute_loss)
    assert kept == ["first"]


def test_deeper_ones_are_left_as_the_loss_leaves_them():
    model = nn.Linear(2, 2)
    kept = ["first"]
    model.kept = wrap(kept, 4)
    inspect(model, lambda m: (kept.append("second"), m(torch.ones(1, 2)).sum())[1])
    assert kept == ["first", "second"]
