"""Snapshots of all that `inspect` must leave alone, and losses that do what they should not."""

import contextlib
import pickle
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

Loss = Callable[[nn.Module], object]


def copy_values(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def list_entries(registry: dict) -> list[tuple[object, int]]:
    return [(key, id(entry)) for key, entry in registry.items()]


def describe_module(module: nn.Module) -> dict[str, object]:
    """Return all that a module holds: modes, hooks of every kind, other attributes, registries."""

    def describe(held: object) -> object:
        if isinstance(held, dict):
            return list_entries(held)
        return frozenset(held) if isinstance(held, set) else (id(held), held is True)

    return {name: describe(held) for name, held in vars(module).items()}


def read_stance() -> object:
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo._stance.stance if dynamo else "default"


def describe_process() -> dict[str, object]:
    hooks = torch.nn.modules.module
    return {
        "torch": bytes(torch.get_rng_state().numpy()),
        "random": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "fused attention": torch.backends.mha.get_fastpath_enabled(),
        "compile stance": read_stance(),
        "torch-function modes": torch._C._len_torch_function_stack(),
        "optimizer hooks": list_entries(_global_optimizer_pre_hooks),
        "signal handlers": [signal.getsignal(number) for number in signal.valid_signals()],
        "global hooks": [
            (name, list_entries(held))
            for name, held in vars(hooks).items()
            if name.startswith("_global_") and isinstance(held, dict)
        ],
    }


@dataclass
class State:
    """What must not change. Tensors are kept by identity and by value."""

    process: dict[str, object]
    modules: dict[str, dict[str, object]]
    tensors: dict[str, tuple[Tensor, Tensor | None, bool, tuple[object, ...]]]
    values: dict[str, tuple[Tensor | None, Tensor | None]]


def take_state(model: nn.Module) -> State:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return State(
        describe_process(),
        {name: describe_module(module) for name, module in model.named_modules()},
        {
            name: (
                tensor,
                tensor.grad,
                tensor.requires_grad,
                tuple(list_entries(tensor._backward_hooks or {}))
                + tuple(list_entries(tensor._post_accumulate_grad_hooks or {})),
            )
            for name, tensor in tensors.items()
        },
        {name: (copy_values(t), copy_values(t.grad)) for name, t in tensors.items()},
    )


# --- Losses that do what they should not ---------------------------------------------------------


def use_all_randomness(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        noise = torch.rand(()).item() + random.random() + np.random.rand()
        return compute_loss(m) * (1 + noise)

    return compute


def raise_half_way(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        compute_loss(m)
        torch.rand(3)
        raise KeyError("half way")

    return compute


def flip_modes(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        m.train(not m.training)
        m.requires_grad_(True)
        return compute_loss(m)

    return compute


def call_backward(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        loss = compute_loss(m)
        loss.backward(retain_graph=True)
        return loss

    return compute


def call_backward_and_free(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        loss = compute_loss(m)
        loss.backward()
        return loss

    return compute


def turn_gradients_off(compute_loss: Loss) -> Loss:
    def compute(m: nn.Module) -> object:
        torch.set_grad_enabled(False)
        m.zero_grad()
        return compute_loss(m)

    return compute


def raise_in_a_module(compute_loss: Loss) -> Loss:
    def fail(module: nn.Module, args: object, result: object) -> None:
        raise OSError("in a module")

    def compute(m: nn.Module) -> object:
        handle = list(m.modules())[-1].register_forward_hook(fail)
        try:
            return compute_loss(m)
        finally:
            handle.remove()

    return compute


HARMLESS: list[Callable[[Loss], Loss]] = [
    lambda compute_loss: compute_loss,
    use_all_randomness,
    flip_modes,
    call_backward,
]
RAISING: list[Callable[[Loss], Loss]] = [
    raise_half_way,
    raise_in_a_module,
    call_backward_and_free,
    turn_gradients_off,
    lambda compute_loss: lambda m: compute_loss(m).detach(),
    lambda compute_loss: lambda m: compute_loss(m).expand(2),
    lambda compute_loss: lambda m: compute_loss(m).item(),
]


def assert_same_state(now: State, before: State) -> None:
    assert now.process == before.process
    assert now.modules == before.modules
    assert now.tensors.keys() == before.tensors.keys()
    for name, (tensor, gradient, *rest) in before.tensors.items():
        now_tensor, now_gradient, *now_rest = now.tensors[name]
        assert now_tensor is tensor
        assert now_gradient is gradient
        assert now_rest == rest
        for value, old in zip(now.values[name], before.values[name], strict=True):
            torch.testing.assert_close(value, old, rtol=0, atol=0, equal_nan=True)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """All that `inspect` must leave alone is as before."""
    before = take_state(model)
    yield
    assert_same_state(take_state(model), before)
