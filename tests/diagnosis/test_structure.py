"""Which weight layers of a network are judged as a chain."""

import pytest
import torch
from torch import nn

from chainrule.diagnosis.structure import list_chain
from chainrule.measure.inspection import inspect
from zoo import Lambda


@pytest.mark.parametrize(("inside", "outside"), [(3, 2), (2, 2), (2, 3), (3, 3), (1, 4), (0, 3)])
def test_a_chain_is_judged_where_branches_hold_less_than_half_of_the_layers(inside, outside):
    torch.manual_seed(0)

    def run(m, x):
        h = m.before(x)
        return m.head(h + m.branch(h.tanh()) if inside else h)

    model = Lambda(
        run,
        before=nn.Sequential(*(nn.Linear(6, 6) for _ in range(outside - 1))),
        branch=nn.Sequential(*(nn.Linear(6, 6) for _ in range(inside))),
        head=nn.Linear(6, 6),
    )
    flow = inspect(model, lambda m: m(torch.randn(5, 6)).square().mean())
    assert len(flow.weight_layers) == inside + outside
    assert len(flow.residuals) == bool(inside)
    names = [*(f"before.{i}" for i in range(outside - 1)), "head"]
    judged = [layer.name for layer in list_chain(flow)]
    assert judged == (names if inside < outside else [])
