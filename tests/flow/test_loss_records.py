"""What a flow says of its loss: sums of parts, and files."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import FlowFileError
from chainrule.flow.loading import decode_flow
from chainrule.flow.loss import LossFlow, LossPart, LossTerm
from chainrule.flow.quantity import Quantity
from chainrule.measure.inspection import inspect


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    return inspect(
        model,
        lambda m: {
            "error": F.cross_entropy(m(x), y),
            "penalty": 0.1 * m[2].weight.square().sum(),
            "accuracy": (m(x).argmax(1) == y).float().mean(),
        },
    )


def test_comes_back_from_its_file(flow):
    back = decode_flow(flow.to_json())
    assert back == flow
    assert back.schema_version == 3
    assert [term.name for term in back.loss_facts.terms] == ["error", "penalty", "accuracy"]
    assert back.loss_facts.parts == flow.loss_facts.parts


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("outputs",), [99], "loss_facts.outputs"),
        (("parts", 0, "outputs"), [99], "loss_facts.parts.0.outputs"),
        (("parts", 0, "kind"), "hinge", "loss_facts.parts.0.kind"),
        (("parts", 0, "value"), [1.0, 2.0], "loss_facts.parts.0.value"),
        (("parts", 0, "further"), 1, "loss_facts.parts.0.further"),
        (("step",), -1.0, "loss_facts.step"),
        (("zero_examples",), 1.5, "loss_facts.zero_examples"),
        (("zero_examples",), [0.5, 0.5], "loss_facts.zero_examples"),
        (("terms", 0, "gradients", 0, "parameter"), 4, "gradients.0.parameter"),
        (("terms", 0, "gradients", 1, "parameter"), 0, "gradients.1.parameter"),
        (("terms", 0, "gradients", 0, "norm"), -1.0, "gradients.0.norm"),
        (("terms", 0, "name"), "a" * 5_000, "loss_facts.terms.0.name"),
    ],
)
def test_damaged_files_are_refused(flow, path, value, place):
    document = copy.deepcopy(json.loads(flow.to_json()))
    entry = document["loss_facts"]
    for step in path[:-1]:
        entry = entry[step]
    entry[path[-1]] = value
    with pytest.raises(FlowFileError) as caught:
        decode_flow(json.dumps(document))
    assert place in str(caught.value)


def one(value):
    return Quantity([value])


def test_parts_add_up_only_where_all_are_known():
    known = LossPart(kind="mse", value=one(1.0), guessing=one(2.0), floor=one(0.0))
    other = LossPart(kind="l1", value=one(3.0), guessing=one(5.0), floor=one(0.5))
    whole = LossFlow(parts=(known, other), offset=one(0.25))
    assert (whole.guessing, whole.floor, whole.constant) == (7.25, 0.75, None)
    assert whole.kind == "mixed"
    assert LossFlow(parts=(known, LossPart(kind="penalty")), offset=None).guessing is None
    assert LossFlow(parts=(known, LossPart(kind="penalty"))).kind == "mse"
    assert LossFlow(parts=(), offset=one(0.0)).kind == "custom"


def test_a_term_is_detached_only_if_that_was_measured():
    assert LossTerm(name="a", value=one(1.0), gradients=()).is_detached
    assert not LossTerm(name="a", value=one(1.0), gradients=None).is_detached
