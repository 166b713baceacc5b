"""Advice against numbers that are not finite: what is shown is pasted and run."""

import pytest
import torch
from torch import nn

import chainrule
import non_finite_zoo as zoo
from chainrule.diagnosis import origins
from chainrule.diagnosis.rule import Verdict


def _leaf(*values):
    return torch.tensor(values, requires_grad=True)


def _run(cure, **names):
    """Run code as a person would, and return what it assigns."""
    space = {"torch": torch, "nn": nn, **names}
    exec(cure.code, space)  # the text of a table of ours
    return space


FORMULAS = {
    "acos": ("angle", {"x": (-1.0, 0.5, 1.0)}),
    "square root": ("root", {"x": (0.0, 4.0)}),
    "1 ÷ square root": ("inverse", {"x": (0.0, 4.0)}),
    "norm": ("unit", {"x": (0.0, 0.0)}),
    "division": ("ratio", {"x": (1.0, 1.0), "y": (0.0, 2.0)}),
    "log": ("log", {"x": (0.0, 1.0)}),
    "power": ("power", {"x": (-1.0, 0.0, 2.0), "exponent": (0.5,)}),
    "exp": ("value", {"x": (1000.0, 1.0)}),
}


@pytest.mark.parametrize("op", FORMULAS)
def test_formulas_and_their_gradients_are_finite_where_they_were_not(op):
    result, values = FORMULAS[op]
    leaves = {name: _leaf(*numbers) for name, numbers in values.items()}
    found = _run(origins.CURES[op], **leaves)[result]
    found.sum().backward()
    assert found.isfinite().all()
    for name in ("x", "y"):
        assert name not in leaves or leaves[name].grad.isfinite().all()


@pytest.mark.parametrize("op", ["softmax", "multiplication"])
def test_masks_are_finite(op):
    name = next(key for key in origins.CURES if key.startswith(op))
    scores = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = _run(origins.CURES[name], scores=scores, mask=mask)["scores"].softmax(-1)
    found.square().sum().backward()
    assert found.isfinite().all()
    assert found[1, 0] == 0.0
    assert scores.grad.isfinite().all()


def test_an_impossible_alignment_counts_as_zero():
    logits = torch.zeros(6, 1, 5, requires_grad=True)
    names = {
        "log_probs": logits.log_softmax(-1),
        "targets": torch.tensor([[1, 1, 2, 2, 3, 3]]),
        "input_lengths": torch.tensor([6]),
        "target_lengths": torch.tensor([6]),
    }
    loss = _run(origins.CURES["ctc_loss"], **names)["loss"]
    loss.backward()
    assert loss == 0.0
    assert logits.grad.isfinite().all()


def _find(build):
    model, compute_loss = build()
    return model, compute_loss, chainrule.find_non_finite(model, compute_loss)


def test_weights_that_are_too_large_are_drawn_anew():
    model, compute_loss, origin = _find(zoo.several_calls)
    _run(origins.find_cure(origin), model=model)
    assert chainrule.find_non_finite(model, compute_loss) is None


def test_half_precision_with_a_wider_range():
    model, _, origin = _find(zoo.half_overflow)
    x = zoo.X + 2
    output = _run(origins.find_cure(origin), model=model, x=x)["output"]
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


def test_gradients_in_half_precision_are_scaled():
    model, x = nn.Linear(4, 1), torch.ones(2, 4)
    weights = [p.detach().clone() for p in model.parameters()]

    def compute_loss(m):
        return (m.half()(x.half()).float() * 1e6).sum()

    origin = chainrule.find_non_finite(model.half(), compute_loss)
    model = model.float()
    names = {
        "model": model,
        "x": x,
        "loss": model(x).sum(),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1),
    }
    _run(origins.find_cure(origin), **names)
    changed = [not torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True)]
    assert all(changed)


def test_data_parameters_and_buffers_that_are_undefined():
    x, y = torch.ones(5, 4), torch.arange(5)
    x[3, 2] = torch.nan
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    origin = chainrule.find_non_finite(model, lambda m: m(x).sum())
    kept = _run(origins.find_cure(origin), x=x, y=y)
    assert kept["x"].isfinite().all()
    assert kept["y"].tolist() == [0, 1, 2, 4]
    x = torch.randn(5, 4)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    origin = chainrule.find_non_finite(model, lambda m: m(x).sum())
    _run(origins.find_cure(origin), model=model)
    model.eval()[1].running_var.fill_(torch.nan)
    origin = chainrule.find_non_finite(model, lambda m: m(x).sum())
    _run(origins.find_cure(origin), model=model)
    assert chainrule.find_non_finite(model, lambda m: m(x).sum()) is None


@pytest.mark.parametrize("name", zoo.FAULTS)
def test_remedies_name_the_origin_and_call_no_change_of_weights_a_cure_of_a_formula(name):
    model, compute_loss = zoo.FAULTS[name].build()
    found = chainrule.find_remedies(model, compute_loss, measurements=3)
    origin = found.before.origin
    assert found.diagnosis.verdict is Verdict.NON_FINITE
    assert origin.op == zoo.FAULTS[name].op
    cure = origins.find_cure(origin)
    assert cure is not None
    assert found.advice[0].title == cure.title
    assert origin.op in found.advice[0].reason
    if origins.is_of_formula(origin):
        assert not found.tried
        assert origin.op in found.note
