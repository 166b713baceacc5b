"""Which weight layers of a network are judged as a chain."""

import pytest
import torch
from torch import nn

from chainrule.diagnosis.structure import list_chain, list_streams, measure_stream_gradient
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


@pytest.mark.parametrize("scales", [(0.1, 2.0), (2.0, 0.1)])
def test_of_several_streams_the_smallest_gradient_counts(scales):
    torch.manual_seed(0)
    sums = []

    def run(m, x):
        h = m.first(x)
        for stream in (m.early, m.late):
            for branch in stream[:-1]:
                h = h + branch(h)
                sums.append(h)
            h = stream[-1](h)
        return m.head(h)

    early, late = (nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))) for _ in range(2))
    with torch.no_grad():
        for scale, stream in zip(scales, (early, late), strict=True):
            for branch in stream[:-1]:
                branch.weight.mul_(scale)
    model = Lambda(
        run, first=nn.Linear(6, 6), early=early, late=late, head=nn.Linear(6, 6)
    ).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    flow = inspect(model, lambda m: m(x).square().mean())
    assert [len(stream) for stream in list_streams(flow)] == [3, 3]
    sums.clear()
    norms = [float(g.norm()) for g in torch.autograd.grad(model(x).square().mean(), sums)]
    ratios = [norms[0] / norms[2], norms[3] / norms[5]]
    assert max(ratios) > 1.2 * min(ratios)
    assert measure_stream_gradient(flow) == pytest.approx(min(ratios), rel=1e-9)
