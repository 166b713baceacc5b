"""Every private name of PyTorch that chainrule uses, each behind a function of its own.

Private names change without notice. A PyTorch that lacks one costs one feature, never more: the
functions then fall back to what needs no such name, and `list_missing` says what is lost to a
measurement. Those of training runs say in their own text what comes without the name.
"""

import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COSTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "torch._C._len_torch_function_stack",
                "torch._C._pop_torch_function_stack",
                "torch._C._push_on_torch_function_stack",
            ),
            "attention, sums written in place and constant terms of the loss are not watched",
        ),
        "torch._C.DisableTorchFunction": "other torch-function modes see what measures attention",
        "torch._C._len_torch_dispatch_stack": "other dispatch modes see what measures attention",
        "torch.utils._python_dispatch._disable_current_modes": (
            "other dispatch modes see what measures attention"
        ),
        "torch._C._current_graph_task_id": (
            "a checkpoint that a backward pass inside compute_loss repeats is counted twice"
        ),
        "torch._C._functorch.is_functorch_wrapped_tensor": (
            "a model that runs inside torch.func transforms gets a less clear error"
        ),
        "torch._C._current_autograd_node": "operations on the way back are not named",
        "torch.autograd._get_sequence_nr": "operations on the way back have no line of code",
        "torch.compiler.set_stance": "parts compiled by torch.compile are not measured",
        "torch.Tensor._base": "sums written in place to a view are not recognized",
        "torch.Tensor._version": (
            "in large models, changes of parameters that cancel each other are not noticed"
        ),
        "torch.Tensor._backward_hooks": "gradients of large tensors are held all at once",
        "torch.Tensor._post_accumulate_grad_hooks": (
            "hooks on accumulated gradients run where a checkpoint is reentrant"
        ),
        "torch.nn.Module._non_persistent_buffers_set": (
            "buffers registered inside compute_loss may stay marked as not persistent"
        ),
        "StackBackward0._saved_dim": "a stack that is summed up is not recognized as a residual",
        "StackBackward0._sequence_nr": "looking for residual connections takes longer",
        **dict.fromkeys(
            (
                "MseLossBackward0._saved_reduction",
                "MseLossBackward0._saved_self",
                "MseLossBackward0._saved_target",
                "NllLossBackward0._saved_ignore_index",
                "NllLossBackward0._saved_weight",
                "BinaryCrossEntropyWithLogitsBackward0._saved_pos_weight",
                "SmoothL1LossBackward0._saved_beta",
                "HuberLossBackward0._saved_delta",
                "LogSoftmaxBackward0._saved_result",
                "LogSoftmaxBackward0._saved_dim",
                "PowBackward0._saved_exponent",
                "AddBackward0._saved_alpha",
            ),
            "what guessing would give, and the lowest possible loss, are not known",
        ),
    }
)
"""What a PyTorch without one of the names does not offer. Names that start with a node of the graph
are attributes of such nodes."""


def list_missing() -> tuple[str, ...]:
    """Return what this PyTorch does not offer for lack of a private name, one sentence each."""
    with torch.enable_grad():
        one = torch.zeros(1, requires_grad=True)
        nodes: dict[str, Any] = {
            result.grad_fn.name(): result.grad_fn for result in _compute_examples(one)
        }
    module = nn.Module()
    missing: dict[str, list[str]] = {}
    for path, cost in COSTS.items():
        start, *names = path.split(".")
        found: Any = torch if start == "torch" else nodes.get(start)
        if path.startswith("torch.nn.Module."):
            found, names = module, names[-1:]
        elif path.startswith("torch.Tensor."):
            found, names = one, names[-1:]
        for name in names:
            found = getattr(found, name, _MISSING)
        if found is _MISSING:
            missing.setdefault(cost, []).append(path)
    return tuple(
        f"With PyTorch {torch.__version__}, {cost}: it lacks {', '.join(paths)}."
        for cost, paths in missing.items()
    )


_MISSING = object()


def _compute_examples(one: Tensor) -> list[Any]:
    """Return a result of every function whose node of the graph is read."""
    zero = torch.zeros(1)
    logs = F.log_softmax(one.expand(1, 1), 1)
    return [
        torch.stack([one, one]),
        F.mse_loss(one, zero),
        F.nll_loss(logs, torch.zeros(1, dtype=torch.int64)),
        logs,
        F.binary_cross_entropy_with_logits(one, zero),
        F.smooth_l1_loss(one, zero),
        F.huber_loss(one, zero),
        one.square(),
        one + one,
    ]


# --- Modes of the thread --------------------------------------------------------------------------


def has_function_stack() -> bool:
    """Whether torch-function modes can be taken off and put on: needed to watch attention."""
    names = ("_len_torch_function_stack", "_pop_torch_function_stack", _PUSH)
    return all(hasattr(torch._C, name) for name in names)


_PUSH = "_push_on_torch_function_stack"


def pop_function_mode() -> Any:
    """Take the innermost torch-function mode off this thread; `None` if there is none.

    What a hook computes for itself is then seen by no mode.
    """
    try:
        if torch._C._len_torch_function_stack() and hasattr(torch._C, _PUSH):
            return torch._C._pop_torch_function_stack()
    except AttributeError:
        pass
    return None


def push_function_mode(mode: Any) -> None:
    """Put a torch-function mode on this thread; the counterpart of `pop_function_mode`."""
    torch._C._push_on_torch_function_stack(mode)


def disable_function_modes() -> AbstractContextManager[Any]:
    """Return a context in which no torch-function mode or tensor subclass sees an operation."""
    try:
        return torch._C.DisableTorchFunction()
    except AttributeError:
        return nullcontext()


def disable_dispatch_modes() -> AbstractContextManager[Any]:
    """Return a context in which no dispatch mode (a FLOP counter, say) sees an operation."""
    try:
        if not torch._C._len_torch_dispatch_stack():
            return nullcontext()
        from torch.utils._python_dispatch import _disable_current_modes
    except (AttributeError, ImportError):
        return nullcontext()
    return _disable_current_modes()


def is_in_backward() -> bool:
    """Whether this thread is in a backward pass: a module that runs there is repeated."""
    try:
        return torch._C._current_graph_task_id() != -1
    except AttributeError:
        return False


def find_current_node() -> Any:
    """Return the node of the graph that a backward pass of this thread is at; `None` if unknown."""
    try:
        return torch._C._current_autograd_node()
    except AttributeError:
        return None


def next_sequence_number() -> int:
    """Return the number that this thread's next node of the graph will get; −1 if unknown."""
    try:
        return int(torch.autograd._get_sequence_nr())  # type: ignore[attr-defined]
    except AttributeError:
        return -1


def is_functorch_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a `torch.func` transform, and so has no values to read."""
    try:
        return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    except AttributeError:
        return False


# --- Hooks ----------------------------------------------------------------------------------------


def add_forward_hook(module: nn.Module, hook: Callable[..., Any]) -> Callable[[], None]:
    """Add a hook after a module's forward pass, last, with keyword arguments; return what ends it.

    The public way makes an object with weak references for each hook, which takes ten times as
    long.
    """
    hooks = getattr(module, "_forward_hooks", None)
    with_kwargs = getattr(module, "_forward_hooks_with_kwargs", None)
    if not isinstance(hooks, dict) or not isinstance(with_kwargs, dict):
        return module.register_forward_hook(hook, with_kwargs=True).remove
    key: Any = object()
    hooks[key], with_kwargs[key] = hook, True

    def remove() -> None:
        hooks.pop(key, None)
        with_kwargs.pop(key, None)

    return remove


# --- Compiled models ------------------------------------------------------------------------------


def unwrap_compiled(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` made a model from; any other model itself."""
    return getattr(model, COMPILED, model)


COMPILED = "_orig_mod"
"""Under which name a compiled module holds the module that it was made from."""


def start_running_eagerly() -> Callable[[], None] | None:
    """Have compiled parts run as plain Python, in all threads; return what ends it.

    Hooks that are added after compilation would never run. `None` if nothing can be compiled, or
    if this PyTorch cannot do it.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return None
    stance: Any = torch.compiler.set_stance("force_eager")
    stance.__enter__()
    return lambda: stance.__exit__(None, None, None)


# --- Attributes of tensors ------------------------------------------------------------------------


def find_base(tensor: Tensor) -> Tensor | None:
    """Return the tensor that this one is a view of, to follow what overwrites it in place."""
    return getattr(tensor, "_base", None)


def read_version(tensor: Tensor) -> int | None:
    """Return how often a tensor was changed in place; `None` if PyTorch does not count it."""
    try:
        return tensor._version
    except (AttributeError, RuntimeError):  # the second for tensors made in inference mode
        return None


def has_backward_hooks(tensor: Tensor) -> bool:
    """Whether a tensor has hooks, which may change its gradient; taken to be so if unknown."""
    return bool(getattr(tensor, "_backward_hooks", True))


def list_gradient_hooks(tensor: Tensor) -> Mapping[int, Any]:
    """Return the hooks that run when a gradient arrives at a tensor; empty if not known."""
    return getattr(tensor, "_backward_hooks", None) or {}


def list_accumulation_hooks(tensor: Tensor) -> MutableMapping[int, Any]:
    """Return the hooks that run when a gradient was accumulated, to hold them back."""
    return getattr(tensor, "_post_accumulate_grad_hooks", None) or {}


def list_non_persistent(module: nn.Module) -> set[str]:
    """Return the set in which a module notes which of its buffers are not saved."""
    found = getattr(module, "_non_persistent_buffers_set", None)
    return found if isinstance(found, set) else set()


# --- Attributes of nodes of the graph -------------------------------------------------------------


def read_saved_dim(node: Any) -> int | tuple[int, ...] | None:
    """Return the dimension or dimensions that a stack or sum was taken over."""
    return getattr(node, "_saved_dim", None)


def read_saved(node: Any, name: str) -> Any:
    """Return what a node keeps of the forward pass under a name; `None` if it has it no more."""
    try:
        return getattr(node, f"_saved_{name}", None)
    except RuntimeError:  # freed, or changed in place
        return None


def list_saved(node: Any) -> dict[str, Any]:
    """Return what a node keeps of the forward pass, by the names that PyTorch gives it."""
    found = {}
    for name in dir(node):
        if name.startswith(_SAVED):
            try:
                found[name.removeprefix(_SAVED)] = getattr(node, name)
            except RuntimeError:  # it was released, or a checkpoint gave it once already
                continue
    return found


_SAVED = "_saved_"


def read_sequence_number(node: Any) -> int | None:
    """Return a number that grows from node to node as they are made, to end a search early."""
    try:
        return node._sequence_nr()
    except AttributeError:
        return None


# --- Training runs --------------------------------------------------------------------------------


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module itself run code that `torch.compile` made."""
    return hasattr(module, COMPILED) or getattr(module, "_compiled_call_impl", None) is not None


def has_compiled() -> bool:
    """Whether `torch.compile` has compiled anything in this process, as far as is known."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters.get("frames"))


def read_scale(scaler: Any) -> Tensor | float:
    """Return the scale of a gradient scaler, on its device if that can be: nothing waits."""
    scale = getattr(scaler, "_scale", None)
    return scale if isinstance(scale, Tensor) else float(scaler.get_scale())


def is_unscaled(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scaler has divided the gradients of an optimizer already in this step."""
    states = getattr(scaler, "_per_optimizer_states", {})
    stage = states[id(optimizer)]["stage"] if id(optimizer) in states else None
    return getattr(stage, "name", "") == "UNSCALED"


def queue_after_backward(call: Callable[[], None]) -> bool:
    """Have a function called at the end of the backward pass that runs; `False` if it cannot be."""
    engine: Any = getattr(torch.autograd.Variable, "_execution_engine", None)
    if engine is None:
        return False
    engine.queue_callback(call)
    return True


CLIPPING = "_clip_grads_with_norm_"
"""The function of `torch.nn.utils.clip_grad` that scales gradients down, and gets their norm."""


def find_process_store() -> Any:
    """Return what processes exchange small values by without waiting for each other, or `None`."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
    except (ImportError, ValueError, RuntimeError):
        return None


def compute_norms(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Return the norm of each of many dense tensors, in one operation or, without it, in many.

    Raises:
        RuntimeError: If one is sparse.
    """
    if hasattr(torch, "_foreach_norm"):
        return list(torch._foreach_norm(list(tensors), 2, dtype))
    return [torch.linalg.vector_norm(each, dtype=dtype) for each in tensors]


def join_flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of the numbers of many dense tensors of one type, one after another."""
    flatten = getattr(torch._C._nn, "flatten_dense_tensors", None)
    if flatten is None or len(tensors) == 1:  # of one, it would not be a copy
        return torch.cat([tensor.reshape(-1) for tensor in tensors])
    joined: Tensor = flatten(list(tensors))
    return joined


def compute_differences(after: Sequence[Tensor], before: Sequence[Tensor]) -> list[Tensor]:
    """Return differences of many tensors, in one operation or, without it, in many."""
    if hasattr(torch, "_foreach_sub"):
        return list(torch._foreach_sub(list(after), list(before)))
    return [one - other for one, other in zip(after, before, strict=True)]
