"""`measure_sharpness` against the whole Hessian in float64, and that it leaves no trace."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

import chainrule
from chainrule import Verdict, measure_sharpness
from chainrule.errors import InspectionError, LossError
from traces import unchanged


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Smooth(torch.autograd.Function):
    """A softplus whose backward pass cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


class Once(nn.Module):
    def forward(self, x):
        return Smooth.apply(x)


MODELS = {
    "tanh": lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)),
    "relu": lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
                                  nn.Linear(8, 3)),
    "norm": lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 3)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.SiLU(),
                                         nn.Flatten(), nn.Linear(12, 3)),
}  # fmt: skip


def decompose(model, compute_loss, scales=None):
    """Return all eigenvalues of the Hessian, or of D^(−½)·H·D^(−½)."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    flat = torch.cat([p.reshape(-1) for p in parameters.values()])

    def evaluate(vector):
        pieces = vector.split([p.numel() for p in parameters.values()])
        named = {n: v.view(p.shape) for (n, p), v in zip(parameters.items(), pieces, strict=True)}
        return compute_loss(lambda x: functional_call(model, named, (x,)))

    hessian = torch.autograd.functional.hessian(evaluate, flat)
    if scales is not None:
        hessian = scales[:, None] * hessian * scales
    return torch.linalg.eigvalsh(hessian)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_eigenvalue(name, seed):
    torch.manual_seed(seed)
    model = MODELS[name]().double()
    x, y = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))

    def compute_loss(m):
        return F.cross_entropy(m(x), y)

    with unchanged(model):
        found = measure_sharpness(model, compute_loss)
    eigenvalues = decompose(model, compute_loss)
    largest = float(eigenvalues[-1])
    assert found.eigenvalue == pytest.approx(largest, rel=0.01)
    assert float((eigenvalues - found.eigenvalue).abs().min()) <= found.tolerance + 1e-9
    assert found.limit == pytest.approx(2 / found.eigenvalue)
    assert found.passes <= 25
    assert found.method == "hessian"


def test_adam_after_its_rescaling():
    model = MODELS["tanh"]().double()
    x, y = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))

    def compute_loss(m):
        return F.cross_entropy(m(x), y)

    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        compute_loss(model).backward()
        optimizer.step()
    held = [optimizer.state[p]["exp_avg_sq"].reshape(-1) for p in model.parameters()]
    scales = ((torch.cat(held) / (1 - 0.999**5)).sqrt() + 1e-8).rsqrt()
    largest = float(decompose(model, compute_loss, scales)[-1])
    found = measure_sharpness(model, compute_loss, optimizer, products=40)
    assert found.preconditioned == pytest.approx(largest, rel=0.02)
    assert found.adam_limit == pytest.approx(2 * 1.9 / 0.1 / found.preconditioned)
    assert found.excess is None


def test_a_quadratic_is_exact_and_its_limit_is_where_training_diverges():
    x = torch.tensor([[3.0], [1.0]])

    def compute_loss(m):
        return (m(x) - 1).square().mean()

    model = nn.Linear(1, 1, bias=False)
    found = measure_sharpness(model, compute_loss)
    assert found.eigenvalue == pytest.approx(10.0)

    def train(rate):
        copied = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(copied.parameters(), rate)
        for _ in range(400):
            optimizer.zero_grad()
            loss = compute_loss(copied)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    assert train(0.95 * found.limit) < 0.3
    assert not train(1.05 * found.limit) < 1e3


def test_differences_where_backward_cannot_be_differentiated():
    model = nn.Sequential(nn.Linear(5, 8), Once(), nn.Linear(8, 3)).double()
    twin = nn.Sequential(model[0], nn.Softplus(), model[2])
    x, y = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))

    def compute_loss(m):
        return F.cross_entropy(m(x), y)

    with unchanged(model):
        found = measure_sharpness(model, compute_loss, products=20)
    assert found.method == "differences"
    assert found.eigenvalue == pytest.approx(float(decompose(twin, compute_loss)[-1]), rel=0.02)


class Mistaken(torch.autograd.Function):
    """Its backward pass is differentiable, but that of its backward pass raises."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return _Inner.apply(gradient)


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("a mistake of mine")


def test_a_mistake_on_the_second_way_back_is_passed_on():
    model, x = nn.Linear(5, 3), torch.randn(8, 5)
    with unchanged(model), pytest.raises(InspectionError, match="a mistake of mine") as caught:
        measure_sharpness(model, lambda m: Mistaken.apply(m(x)).square().sum())
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    "compute",
    [
        lambda z: torch.cdist(z, z.detach().flip(0) + 1.0).mean(),
        lambda z: F.multilabel_margin_loss(z, torch.zeros(8, 3, dtype=torch.long)),
        lambda z: F.ctc_loss(
            z.log_softmax(-1)[:, None], torch.tensor([[1, 2]]), torch.tensor([8]), torch.tensor([2])
        ),
    ],
)
def test_operations_of_pytorch_without_a_second_derivative(compute):
    model, x = nn.Linear(5, 3), torch.randn(8, 5)
    assert measure_sharpness(model, lambda m: compute(m(x))).method == "differences"


def test_buffers_and_dropout_leave_no_trace():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    x = torch.randn(32, 5)
    with unchanged(model):
        measure_sharpness(model, lambda m: m(x).square().mean())


@pytest.mark.parametrize(("rate", "trains"), [(0.01, True), (20.0, False)])
def test_a_rate_far_above_the_limit_is_a_finding(rate, trains):
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(64, 5)

    def compute_loss(m):
        return F.mse_loss(m(x), x[:, :1])

    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.5)
    found = measure_sharpness(model, compute_loss, optimizer)
    assert found.limit == pytest.approx(2 * 1.5 / found.eigenvalue)
    flow = chainrule.inspect(model, compute_loss)
    diagnosis = chainrule.diagnose(flow, sharpness=found)
    assert (diagnosis.verdict is Verdict.HEALTHY) == trains
    for _ in range(100):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
    assert (float(loss.detach()) < 0.5) == trains
    if not trains:
        assert diagnosis.verdict is Verdict.LEARNING_RATE
        assert diagnosis.findings[0].rule == "overshoots"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({"model": 3}, "Module"), ({"compute_loss": 3}, "function"), ({"products": 1}, "products"),
     ({"optimizer": 3}, "optimizer")],
)  # fmt: skip
def test_bad_arguments(arguments, part):
    given = {"model": nn.Linear(2, 1), "compute_loss": lambda m: m(torch.ones(1, 2)).sum()}
    with pytest.raises(InspectionError, match=part):
        measure_sharpness(**(given | arguments))


def test_what_is_no_loss():
    with pytest.raises(LossError):
        measure_sharpness(nn.Linear(2, 1), lambda m: m(torch.ones(3, 2)))


def test_sparse_gradients_are_curved_as_dense_ones():
    found = []
    ids = torch.arange(12) % 5
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(5, 4, sparse=sparse), nn.Linear(4, 3))
        with unchanged(model):
            found.append(measure_sharpness(model, lambda m: F.cross_entropy(m(ids), ids % 3)))
    assert found[1].eigenvalue == pytest.approx(found[0].eigenvalue, rel=0.02)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def forward(self, x):
        return (x * self.weight).abs()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.LazyLinear(1)), "lazy"),
        (nn.Tanh(), "none"),
        (Complex(), "complex"),
    ],
)
def test_models_without_a_curvature_are_refused(model, words):
    with pytest.raises(InspectionError, match=words):
        measure_sharpness(model, lambda m: m(torch.ones(2, 4, requires_grad=True)).sum())


@pytest.mark.parametrize("terms", [{}, {"a": 1.0}, {str(at): torch.ones(()) for at in range(17)}])
def test_named_terms_are_refused_as_inspect_does(terms):
    with pytest.raises(LossError, match="terms"):
        measure_sharpness(nn.Linear(1, 1), lambda m: terms)
