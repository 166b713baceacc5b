"""Small values that are no fault: starts that a step undoes, saturated first layers, scores."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.evidence import asks_the_same, list_saturable
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.structure import USABLE_IN_CHAIN, list_before_small, moves
from chainrule.measure.inspection import inspect


def measure(layers, factor):
    torch.manual_seed(0)
    sizes = [16, *[32] * (layers - 1), 4]
    parts = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*parts[:-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() > 1 else 1.0)
    x, y = torch.randn(64, 16), torch.randint(4, (64,))
    return inspect(model, lambda m: F.cross_entropy(m(x), y))


@pytest.mark.parametrize(("layers", "sound"), [(2, True), (10, False)])
def test_a_small_start_is_sound_where_few_layers_multiply(layers, sound):
    diagnosis = diagnose(measure(layers, 0.1))
    assert (diagnosis.verdict is Verdict.HEALTHY) is sound
    assert ("vanishing_gradient" in {each.rule for each in diagnosis.findings}) is not sound


def test_a_layer_moves_by_its_gradient_beside_its_own_size():
    flow = measure(2, 0.1)
    for layer in flow.weight_layers:
        share = layer.weight_gradient_norm / layer.weight_norm / flow.output_error
        assert moves(flow, layer) is bool(share >= 2e-3)
        assert not moves(flow, layer, 1e-3 / share)


def test_layers_before_small_ones_are_explained_while_those_receive_enough():
    flow = measure(10, 0.1)
    weak = [
        layer.layer
        for layer in flow.weight_layers
        if layer.weight_gradient_norm < USABLE_IN_CHAIN * flow.output_error
    ]
    assert list_before_small(flow) <= {max(weak)}


@pytest.mark.parametrize("place", [0, 2])
def test_only_a_first_layer_may_be_saturated(place):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
    )
    with torch.no_grad():
        model[place].weight.mul_(1000.0)
    x, y = torch.randn(64, 8), torch.randint(3, (64,))
    layers = list_saturable(inspect(model, lambda m: F.cross_entropy(m(x), y)))
    assert {layer.name for layer in layers} >= ({"2", "4"} if place == 0 else {"0", "2", "4"})


@pytest.mark.parametrize(("targets", "same"), [("empty", True), ("half", False), ("none", False)])
def test_empty_targets_pull_all_answers_alike(targets, same):
    torch.manual_seed(0)
    model = nn.Linear(6, 6)
    x = torch.randn(32, 6)
    mask = {"empty": 0.0, "half": 1.0, "none": 0.0}[targets] * (torch.rand(32, 6) > 0.8)

    def compute(m):
        if targets == "none":  # a score
            return m(x).mean()
        p = (0.1 * m(x)).sigmoid()
        return 1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1)

    assert asks_the_same(inspect(model, compute)) is same
