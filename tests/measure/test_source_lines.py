"""Warnings name the line of your code that caused them, as without an inspection."""

import linecache
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import InspectionError
from chainrule.measure.inspection import inspect

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def build():
    return nn.Linear(3, 1)


def broadcast(m):
    return F.mse_loss(m(X), X[:, 0])  # a function in Python


def broadcast_in_a_module(m):
    return nn.MSELoss()(m(X), X[:, 0])  # a module of PyTorch


def without_dim(m):
    return F.softmax(m(X)).square().sum()  # a function in Python, another one


def warn(m):
    warnings.warn("mine", UserWarning, stacklevel=1)  # a line of yours
    return m(X).sum()


def list_warnings(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [(each.category, each.filename, each.lineno, str(each.message)) for each in caught]


@pytest.mark.parametrize("compute", [broadcast, broadcast_in_a_module, without_dim, warn])
def test_warnings_are_those_of_plain_pytorch(compute):
    torch.manual_seed(0)
    model = build()
    plain = list_warnings(lambda: compute(model))
    assert plain
    assert list_warnings(lambda: inspect(model, compute)) == plain


def test_each_line_warns_once():
    def twice(m):
        return sum(F.mse_loss(m(X), X[:, 0]) for _ in range(2))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        inspect(build(), twice)
    (found,) = caught
    assert "F.mse_loss" in linecache.getline(found.filename, found.lineno)


def test_warnings_as_errors_are_raised_in_the_loss():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InspectionError, match="UserWarning: Using a target size"):
            inspect(build(), broadcast)


def test_warnings_of_operations_in_other_languages():
    def compute(m):
        return m(X).expand(2, 6, 1).mT.sum() + m(X).expand(2, 6, 1).T.sum()

    found = list_warnings(lambda: inspect(build(), compute))
    assert all(file == __file__ for _, file, *_ in found)  # PyTorch says it once per process
