"""Copies have the hooks of a model's tensors, and the model keeps its own."""

from functools import partial

import pytest
import torch
from torch import nn

from chainrule import try_training
from chainrule.errors import InspectionError
from chainrule.measure.copying import copy_model
from chainrule.measure.tensor_hooks import find_uncarried

X = torch.ones(1, 3)


def gradients(model):
    model(X).sum().backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


class Masked(nn.Linear):
    """A module whose hooks are its own methods, and read its buffer."""

    def __init__(self):
        super().__init__(3, 2)
        self.register_buffer("mask", torch.zeros(2, 3))
        self.weight.register_hook(self.cover)
        self.bias.register_hook(partial(self.stretch, by=2.0))

    def cover(self, gradient):
        return gradient * self.mask

    def stretch(self, gradient, by):
        return gradient * by


def test_hooks_of_parameters_change_the_gradients_of_a_copy():
    model = nn.Linear(3, 2)
    model.weight.register_hook(lambda gradient: gradient.clamp(-0.25, 0.25))

    def clear(bias):
        bias.grad.zero_()

    model.bias.register_post_accumulate_grad_hook(clear)
    weight, bias = gradients(copy_model(model))
    assert weight.eq(0.25).all()
    assert bias.eq(0.0).all()
    assert model.weight.grad is None
    assert (len(model.weight._backward_hooks), len(model.bias._post_accumulate_grad_hooks)) == (
        1,
        1,
    )


def test_a_hook_of_a_copy_uses_what_belongs_to_the_copy():
    model = Masked()
    copied = copy_model(model)
    copied.mask.fill_(3.0)
    assert gradients(copied)[0].eq(3.0).all()
    assert gradients(copied)[1].eq(2.0).all()
    assert gradients(model)[0].eq(0.0).all()


def test_a_closure_over_the_model_is_one_over_the_copy():
    model, arrived = nn.Linear(3, 2), []

    def scale(gradient):
        arrived.append(1)
        return gradient * model.bias.sum()

    model.weight.register_hook(scale)
    copied = copy_model(model)
    with torch.no_grad():
        model.bias.fill_(1.0)
        copied.bias.fill_(5.0)
    assert gradients(copied)[0].eq(10.0).all()
    assert gradients(model)[0].eq(2.0).all()
    assert len(arrived) == 2  # what is no part of the model is shared, as the loss may read it


def test_a_parameter_that_is_not_trained_keeps_its_hook_for_later():
    model = nn.Linear(3, 2)
    model.weight.register_hook(lambda gradient: gradient * 0.0)
    model.weight.requires_grad_(False)
    copied = copy_model(model)
    assert not copied.weight.requires_grad
    copied.weight.requires_grad_()
    assert gradients(copied)[0].eq(0.0).all()


def test_an_optimizer_in_a_hook_is_not_run_on_copies():
    model = nn.Linear(3, 2)
    optimizers = {p: torch.optim.SGD([p], 0.1) for p in model.parameters()}

    def step(parameter):
        optimizers[parameter].step()

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    before = [parameter.clone() for parameter in model.parameters()]
    gradients(copy_model(model))
    trial = try_training(model, lambda m: m(torch.randn(8, 3)).square().mean())
    assert "'weight'" in find_uncarried(model)
    assert trial.skipped == find_uncarried(model)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_hook_that_uses_a_module_around_the_model_cannot_be_carried_over():
    model = nn.Linear(3, 2)
    around = nn.Sequential(model)
    model.weight.register_hook(lambda gradient: gradient * around[0].bias.sum())
    with pytest.raises(InspectionError, match="weight"):
        copy_model(model)
    assert try_training(model, lambda m: m(X).sum()).skipped


def test_a_trial_trains_the_model_with_its_hooks():
    torch.manual_seed(0)
    trials = []
    for bound in (1e-6, 10.0):
        model = nn.Linear(3, 1)
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient, bound=bound: gradient.clamp(-bound, bound))

        def compute_loss(model):
            x = torch.randn(32, 3)
            return (model(x) - 5.0 * x[:, :1]).square().mean()

        trials.append(
            try_training(model, compute_loss, torch.optim.SGD(model.parameters(), 0.1), passes=100)
        )
    assert [trial.trains for trial in trials] == [False, True]
