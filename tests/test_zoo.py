"""What `inspect` reports for awkward models, against plain autograd."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from zoo import ZOO, Case, Lambda, draw, on

import chainrule
from chainrule.errors import InspectionError
from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow

SEED = 5


# --- The reference: plain autograd, and zeros added to outputs to get their gradients ------------


@dataclass
class Output:
    """One output of a module: its values when the module returned, and their gradient."""

    name: str
    path: str
    values: Tensor
    gradient: Tensor | None = None


@dataclass
class Reference:
    loss: float
    gradients: dict[str, Tensor | None]
    outputs: list[Output]


def map_tensors(value: object, function: Callable[[str, Tensor], Tensor], path: str = "") -> object:
    """Return a structure with every tensor replaced by `function(path, tensor)`."""

    def follow(key: object, entry: object) -> object:
        return map_tensors(entry, function, f"{path}.{key}" if path else str(key))

    if isinstance(value, Tensor):
        return function(path, value)
    if isinstance(value, dict):
        return {key: follow(key, entry) for key, entry in value.items()}
    if is_dataclass(value):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: follow(name, getattr(value, name)) for name in names})
    if isinstance(value, (tuple, list)):
        entries = [follow(index, entry) for index, entry in enumerate(value)]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


def differentiate(loss: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, tensors, allow_unused=True)) if tensors else []


def measure_plainly(model: nn.Module, compute_loss: Callable[[nn.Module], Tensor]) -> Reference:
    """Measure a copy of a model: once as it is, once with zeros added to its modules' outputs.

    The gradient of such a zero is the gradient of the output as it was when the module returned,
    whatever happens to the tensor afterwards.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, "use_reentrant"):
            module.use_reentrant = None
    buffers = copy.deepcopy(dict(model.named_buffers()))

    torch.manual_seed(SEED)
    loss = compute_loss(model)
    named = dict(model.named_parameters())
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    found = dict(zip(trained, differentiate(loss, list(trained.values())), strict=True))

    outputs: list[Output] = []
    probes: list[tuple[Output, Tensor]] = []

    def watch(name: str) -> Callable:
        def add_zeros(path: str, tensor: Tensor) -> Tensor:
            outputs.append(Output(name, path, tensor.detach().clone()))
            if not tensor.requires_grad:
                return tensor
            zeros = torch.zeros_like(tensor.detach()).requires_grad_()
            probes.append((outputs[-1], zeros))
            return tensor + zeros

        return lambda module, args, result: map_tensors(result, add_zeros)

    for name, module in model.named_modules():
        if not list(module.children()) or list(module.parameters(recurse=False)):
            module.register_forward_hook(watch(name))
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    torch.manual_seed(SEED)
    probed_loss = compute_loss(model)
    for (output, _), gradient in zip(
        probes, differentiate(probed_loss, [zeros for _, zeros in probes]), strict=True
    ):
        output.gradient = gradient
    torch.testing.assert_close(probed_loss, loss, equal_nan=True)  # the zeros changed nothing
    return Reference(loss.item(), {name: found.get(name) for name in named}, outputs)


def measure(model: nn.Module, compute_loss: Callable[[nn.Module], Tensor]) -> GradientFlow:
    torch.manual_seed(SEED)
    return chainrule.inspect(model, compute_loss)


# --- Comparing -----------------------------------------------------------------------------------


def flatten(tensor: Tensor) -> Tensor:
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return (tensor.abs() if tensor.is_complex() else tensor).double().flatten()


def near(expected: float, like: Tensor) -> object:
    """Return what equals `expected` up to the rounding of the tensor's precision."""
    exact = like.dtype in (torch.float64, torch.complex128)
    return pytest.approx(expected, rel=1e-10 if exact else 2e-6, abs=0.0, nan_ok=True)


def assert_same_gradient(figures: object, gradient: Tensor) -> None:
    flat = flatten(gradient)
    assert figures.norm == near(flat.norm().item(), gradient)
    assert figures.max_abs == near(flat.abs().max().item() if len(flat) else 0.0, gradient)
    share = (flat == 0).double().mean().item() if len(flat) else 1.0
    assert figures.zero_share == pytest.approx(share, abs=1e-6)
    assert figures.non_finite == (~flat.isfinite()).sum()


def assert_same_output(entry: LayerFlow, expected: Output) -> None:
    values = expected.values
    assert (entry.name, entry.output) == (expected.name, expected.path)
    assert entry.shape == tuple(values.shape)
    assert entry.dtype == str(values.dtype).removeprefix("torch.")
    measurable = values.numel() and (values.is_floating_point() or values.is_complex())
    assert (entry.statistics is not None) == bool(measurable)
    if measurable:
        flat, statistics = flatten(values), entry.statistics
        spread = flat.std(correction=0).item()
        slack = 1e-6 * (flat.abs().max().item() if flat.isfinite().all() else 0.0)
        precise = values.dtype in (torch.float64, torch.complex128)
        for figure, wanted in ((statistics.mean, flat.mean().item()), (statistics.std, spread)):
            assert figure == pytest.approx(
                wanted, rel=1e-9, abs=1e-13 if precise else slack, nan_ok=True
            )
        assert statistics.min == near(flat.min().item(), values)
        assert statistics.max == near(flat.max().item(), values)
        assert statistics.zero_share == pytest.approx((flat == 0).double().mean().item(), abs=1e-6)
        assert statistics.non_finite == (~flat.isfinite()).sum()
    assert (entry.gradient is not None) == (expected.gradient is not None)
    if expected.gradient is not None:
        assert_same_gradient(entry.gradient, expected.gradient)


def assert_same_flow(flow: GradientFlow, reference: Reference, model: nn.Module) -> None:
    assert flow.loss == pytest.approx(reference.loss, rel=1e-6, nan_ok=True)
    named = dict(model.named_parameters())
    assert [parameter.name for parameter in flow.parameters] == list(named)
    for parameter in flow.parameters:
        tensor, gradient = named[parameter.name].detach(), reference.gradients[parameter.name]
        assert parameter.norm == near(flatten(tensor).norm().item(), tensor)
        assert parameter.non_finite == (~flatten(tensor).isfinite()).sum()
        if gradient is None:
            status = "unreached" if named[parameter.name].requires_grad else "frozen"
            assert (parameter.name, parameter.status) == (parameter.name, status)
            assert parameter.grad_norm is parameter.grad_zero_share is None
            assert parameter.grad_non_finite is None
        else:
            assert (parameter.name, parameter.status) == (parameter.name, "measured")
            flat = flatten(gradient)
            assert parameter.grad_norm == near(flat.norm().item(), gradient)
            share = (flat == 0).double().mean().item()
            assert parameter.grad_zero_share == pytest.approx(share, abs=1e-6)
            assert parameter.grad_non_finite == (~flat.isfinite()).sum()
    assert len(flow.layers) == len(reference.outputs)
    for entry, output in zip(flow.layers, reference.outputs, strict=True):
        assert_same_output(entry, output)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", ZOO)
def test_agrees_with_plain_autograd(name: str) -> None:
    model, compute_loss = ZOO[name]()
    reference = measure_plainly(model, compute_loss)
    assert_same_flow(measure(model, compute_loss), reference, model)
