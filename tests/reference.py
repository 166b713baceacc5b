"""The reference that measurements are compared with: plain autograd."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor, nn

SEED = 5


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
    if is_dataclass(value):  # before dictionaries: outputs of transformers are both
        names = [field.name for field in fields(value)]
        return replace(value, **{name: follow(name, getattr(value, name)) for name in names})
    if isinstance(value, dict):
        return {key: follow(key, entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        entries = [follow(index, entry) for index, entry in enumerate(value)]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


def differentiate(loss: Tensor, tensors: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, tensors, allow_unused=True)) if tensors else []


@contextmanager
def without_fused_attention() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


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
            # One of several outputs may also have been used inside, to make another one.
            probes.append((outputs[-1], tensor if path else zeros))
            return tensor + zeros

        return lambda module, args, result: map_tensors(result, add_zeros)

    for name, module in model.named_modules():
        children = [name for name, _ in module.named_children() if name != "parametrizations"]
        is_parametrization = "parametrizations" in name
        if not is_parametrization and (not children or list(module.parameters(recurse=False))):
            module.register_forward_hook(watch(name))
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    torch.manual_seed(SEED)
    with without_fused_attention():
        probed_loss = compute_loss(model)
    for (output, _), gradient in zip(
        probes, differentiate(probed_loss, [probe for _, probe in probes]), strict=True
    ):
        output.gradient = gradient
    torch.testing.assert_close(probed_loss, loss, equal_nan=True)  # the zeros changed nothing
    return Reference(loss.item(), {name: found.get(name) for name in named}, outputs)


def flatten(tensor: Tensor) -> Tensor:
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return (tensor.abs() if tensor.is_complex() else tensor).double().flatten()
