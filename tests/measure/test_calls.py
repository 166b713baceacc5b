"""`find_non_finite` on functions that fall into parts, on saved results, on infinity made zero."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import chainrule
from chainrule.diagnosis.origins import find_cure
from chainrule.flow.loading import decode_flow
from chainrule.measure.non_finite import add_origin, find_non_finite

X = torch.linspace(-1, 1, 24).reshape(6, 4)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def find(compute, model=None):
    return find_non_finite(net() if model is None else model, compute)


def zeros(m):
    y = m(X)
    return y - y.detach()


def flipped(m):
    """Return a matrix with a negative determinant."""
    return torch.diag(torch.tensor([-1.0, 1.0, 1.0])) + zeros(m)[:3]


NAMED = {
    "logdet": (lambda m: torch.logdet(flipped(m)), "logdet", "determinant is −1"),
    "logdet of several": (
        lambda m: torch.stack([flipped(m).abs(), flipped(m)]).logdet().sum(),
        "logdet",
        "one of the 2 determinants is −1",
    ),
    "slogdet": (lambda m: torch.linalg.slogdet(zeros(m)[:3])[1], "slogdet", "determinant is 0"),
    "inverse": (lambda m: torch.linalg.inv_ex(zeros(m)[:3])[0].sum(), "inv", "no inverse"),
    "std of one": (lambda m: m(X)[:1].std(0).sum(), "standard deviation", "single element"),
    "var of one": (lambda m: m(X)[0, 0].var(), "variance", "single element"),
    "mean of nothing": (lambda m: m(X)[X[:, 0] > 9].mean(), "mean", "no element"),
    "error of nothing": (
        lambda m: F.mse_loss(m(X)[:0], torch.zeros(0, 3)), "squared error", "no element"),
    "nothing counts": (
        lambda m: F.cross_entropy(m(X), torch.full((6,), -100)),
        "nll_loss, in cross_entropy",
        "no target counts",
    ),
    "correlation of constants": (
        lambda m: torch.corrcoef(zeros(m)).sum(), "division, in corrcoef", ""),
    "entropy": (lambda m: torch.special.entr(m(X)).sum(), "entr", ""),
    "density": (
        lambda m: torch.distributions.Normal(m(X), zeros(m), validate_args=False)
        .log_prob(X[:, :3]).sum(),
        "division, in Normal.log_prob",
        "",
    ),
    "root": (lambda m: (zeros(m) - 1).sqrt().sum(), "square root", ""),
    "square": (lambda m: (1e30 * m(X)).square().sum(), "power", ""),
}  # fmt: skip


ONE_ELEMENT = pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")


@ONE_ELEMENT
@pytest.mark.parametrize("name", NAMED)
def test_an_origin_is_named_by_what_was_called(name):
    compute, op, detail = NAMED[name]
    origin = find(compute)
    assert (origin.source, origin.op, origin.direction) == ("operation", op, "forward")
    assert detail in origin.detail
    assert bool(origin.detail) is bool(detail)


def test_a_determinant_above_zero_is_no_fault():
    model = nn.Linear(3, 3)
    nn.init.eye_(model.weight)
    assert find(lambda m: torch.logdet(m.weight), model) is None


def test_what_the_code_itself_writes_is_named_by_its_call():
    written = torch.full((6, 3), math.nan)
    assert find(lambda m: (m(X) * written).sum()).source == "input"
    origin = find(lambda m: torch.where(m(X) > 0, m(X), math.nan).sum())
    assert (origin.source, origin.op) == ("constant", "where")


@ONE_ELEMENT
@pytest.mark.parametrize("name", ["logdet", "std of one", "mean of nothing", "nothing counts"])
def test_such_an_origin_has_a_cure_of_its_own(name):
    compute, _, _ = NAMED[name]
    origin = find(compute)
    cure = find_cure(origin)
    assert cure is not None
    assert cure is not find_cure(find(lambda m: zeros(m).sqrt().sum()))


class Huge(torch.autograd.Function):
    """Passes values on, and sends back gradients that the next factor makes infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return torch.full_like(g, 3e38)


SAVED = {
    "exp": (torch.exp, 5.0),
    "exp2": (torch.exp2, 9.0),
    "1 ÷ square root": (torch.rsqrt, 1e-3),
    "division": (torch.reciprocal, 1e-3),
    "tan": (torch.tan, 1.5),
    "square root": (torch.sqrt, 1e-6),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_result_that_was_kept_is_not_taken_for_what_went_in(name):
    function, value = SAVED[name]
    origin = find(lambda m: Huge.apply(function(zeros(m) + value)).sum())
    first = origin.elements[0]
    assert (origin.op, origin.direction) == (name, "backward")
    assert first.inputs == ()
    assert first.results == (pytest.approx(float(function(torch.tensor(value)))),)
    assert "came out forward" in origin.sentence


def test_a_root_of_zero_had_zero_as_its_input():
    first = find(lambda m: zeros(m).sqrt().sum()).elements[0]
    assert (first.inputs, first.results) == ((0.0,), ())


class Scaled(nn.Module):
    """Divides by a size that is too large for float16.

    Args:
        by: How it divides.
        wide: Whether it squares in float32.
    """

    def __init__(self, by, *, wide):
        super().__init__()
        self.by, self.wide = by, wide
        self.head = nn.Linear(4, 3).half()

    def forward(self, x):
        y = x.float() if self.wide else x
        size = y.square().mean(-1, keepdim=True) + 1e-5
        return self.head(self.by(y, size).to(x.dtype))


BY = {
    "1 ÷ square root": lambda y, size: y * size.rsqrt(),
    "division": lambda y, size: y / size.sqrt(),
}


def _compute_scaled(m):
    return m((400 * (X + 2)).half()).float().square().mean()


@pytest.mark.parametrize("name", BY)
def test_infinity_of_which_zeros_are_made_is_no_harmless_number(name):
    model = Scaled(BY[name], wide=False)
    origin = find(_compute_scaled, model)
    assert (origin.op, origin.direction, origin.overflow) == ("power", "forward", True)
    assert not origin.is_harmless
    assert origin.zeroed_by.startswith(name)
    assert "neither" not in origin.sentence
    assert find(_compute_scaled, Scaled(BY[name], wide=True)) is None


def test_what_follows_from_such_zeros_is_put_down_to_them():
    model = Scaled(BY["division"], wide=False)

    def compute(m):
        y = _compute_scaled(m)
        return y + (m.head.weight * 0).sum() + (1 / (m((400 * (X + 2)).half()) - m.head.bias)).sum()

    origin = find(compute, model)
    assert (origin.op, origin.direction) == ("power", "forward")
    assert not math.isfinite(origin.loss)
    flow = add_origin(chainrule.inspect(model, compute), model, compute)
    assert flow.origin.zeroed_by == origin.zeroed_by
    assert decode_flow(flow.to_json()) == flow


def test_a_few_zeros_beside_numbers_are_as_meant():
    def compute(m):
        sizes = torch.tensor([1.0, 1.0, 1e3])
        return (1 / (1 + (m(X).abs() * sizes + sizes - 1).exp())).sum()

    origin = find(compute)
    assert origin is not None
    assert not origin.zeroed_by
