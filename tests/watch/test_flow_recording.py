"""Whole flows in a training: what one pass may hold."""

import pytest
import torch
from torch import nn

from chainrule.measure.modules import take_inventory
from chainrule.watch.flows import FlowRecorder


@pytest.mark.parametrize(("most", "calls"), [(3, 3), (2, None)])
def test_a_step_with_more_calls_than_are_kept_has_no_flow(most, calls, monkeypatch):
    monkeypatch.setattr("chainrule.watch.flows.MOST_ENTRIES", most)
    model, reports = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), []
    inventory = take_inventory(model)
    recorder = FlowRecorder(inventory, reports.append)
    recorder.attach()
    model(torch.ones(2, 4)).sum().backward()
    gradients = {at: each.tensor.grad for at, each in enumerate(inventory.parameters)}
    flow = recorder.take(gradients, 1.0, lambda: None, lambda: 1.0)
    assert (None if flow is None else len(flow.layers)) == calls
    assert [f"more than {most}" in str(each) for each in reports] == [True] * (calls is None)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
