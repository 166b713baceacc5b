"""Every private name of PyTorch is there, does what it is used for, and can be done without."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import chainrule
from chainrule.errors import InspectionError
from chainrule.measure import _torch_internals as internals
from chainrule.measure import autograd_graph, inspection, recording
from traces import unchanged
from zoo import ZOO, draw

STACK = (
    "_len_torch_function_stack",
    "_pop_torch_function_stack",
    "_push_on_torch_function_stack",
)


def gone(self: object) -> None:
    raise AttributeError("not in this PyTorch")


def take_away(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave PyTorch without a name, as an older or newer one might be."""
    owner, _, name = path.rpartition(".")
    if owner == "torch.Tensor":
        monkeypatch.setattr(torch.Tensor, name, property(gone), raising=False)
    elif owner == "torch.nn.Module":
        monkeypatch.setattr(nn.Module, name, property(gone, lambda self, value: None), False)
    else:
        place = torch
        for part in owner.split(".")[1:]:
            place = getattr(place, part)
        monkeypatch.delattr(place, name)


NAMES = [path for path in internals.COSTS if path.startswith("torch.")]


def test_this_torch_has_all_of_them() -> None:
    assert internals.list_missing() == ()


def test_no_other_module_uses_private_names() -> None:
    package = Path(chainrule.__file__).parent
    private = re.compile(
        r"torch\._[a-zC]|_functorch\b|\._saved_|\._backward_hooks|\._post_accumulate|\._base\b"
        r"|\._version\b|\._is_view|\._sequence_nr|_orig_mod|_non_persistent_buffers_set"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in package.rglob("*.py")
        if path.name != "_torch_internals.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("path", NAMES)
def test_each_is_missed_and_can_be_done_without(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, compute_loss = ZOO["transformer_layer"]()
    expected = chainrule.inspect(model, compute_loss)
    take_away(path, monkeypatch)
    (sentence,) = internals.list_missing()
    assert path in sentence
    assert internals.COSTS[path] in sentence
    assert torch.__version__ in sentence
    flow = chainrule.inspect(model, compute_loss)
    assert flow.parameters == expected.parameters
    assert [layer.gradient for layer in flow.layers] == [
        layer.gradient for layer in expected.layers
    ]
    monkeypatch.undo()
    assert torch._C._len_torch_function_stack() == 0


def test_what_is_missing_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take_away("torch._C._current_graph_task_id", monkeypatch)
    inspection._report_missing.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            chainrule.inspect(nn.Linear(2, 1), lambda m: m(torch.ones(1, 2)).sum())
    inspection._report_missing.cache_clear()
    assert [record.name for record in caplog.records] == ["chainrule.measure.inspection"]
    assert "_current_graph_task_id" in caplog.text


# --- Modes ---------------------------------------------------------------------------------------


class Counting(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        return func(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        return func(*args, **(kwargs or {}))


def test_a_mode_is_taken_off_and_put_back() -> None:
    assert internals.has_function_stack()
    assert internals.pop_function_mode() is None
    with Counting() as mode:
        assert internals.pop_function_mode() is mode
        torch.ones(1).add(1)
        internals.push_function_mode(mode)
    assert mode.seen == 0


@pytest.mark.parametrize("name", STACK)
def test_without_the_stack_no_mode_is_taken_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    q = draw(1, 2, 4, 3, grad=True)

    class Attending(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x)

    model = nn.Sequential(nn.Linear(3, 3).double(), Attending())
    assert chainrule.inspect(model, lambda m: m(q).sum()).attentions
    with Counting() as mode, monkeypatch.context() as patch:
        patch.delattr(torch._C, name)
        assert not internals.has_function_stack()
        assert internals.pop_function_mode() is None
        assert chainrule.inspect(model, lambda m: m(q).sum()).attentions == ()
    assert mode.seen > 0


def test_operations_are_hidden_from_modes() -> None:
    with Counting() as functions, Dispatching() as dispatches:
        with internals.disable_function_modes(), internals.disable_dispatch_modes():
            torch.ones(1).add(1)
        assert (functions.seen, dispatches.seen) == (0, 0)
        torch.ones(1).add(1)
    assert functions.seen > 0
    assert dispatches.seen > 0


@pytest.mark.parametrize(
    ("path", "disable"),
    [
        ("torch._C.DisableTorchFunction", internals.disable_function_modes),
        ("torch._C._len_torch_dispatch_stack", internals.disable_dispatch_modes),
        (
            "torch.utils._python_dispatch._disable_current_modes",
            internals.disable_dispatch_modes,
        ),
    ],
)
def test_without_it_modes_see_operations(
    path: str, disable: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Counting() as functions, Dispatching() as dispatches:
        take_away(path, monkeypatch)
        with disable():
            torch.ones(1).add(1)
        monkeypatch.undo()
    assert functions.seen > 0
    assert dispatches.seen > 0


# --- Backward passes, transforms, compiled code --------------------------------------------------


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.lin, x, use_reentrant=False)


def test_a_backward_pass_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = []
    x = draw(2, 3, grad=True)
    y = x * 2
    y.register_hook(lambda gradient: inside.append(internals.is_in_backward()))
    y.sum().backward()
    assert inside == [True]
    assert not internals.is_in_backward()


def test_without_it_what_the_backward_pass_of_inspect_repeats_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = Repeated(), draw(2, 3)
    expected = chainrule.inspect(model, lambda m: m(x).square().sum())
    with monkeypatch.context() as patch:
        take_away("torch._C._current_graph_task_id", patch)  # checkpoints need it themselves
        assert not internals.is_in_backward()
    monkeypatch.setattr(recording, "is_in_backward", lambda: False)
    flow = chainrule.inspect(model, lambda m: m(x).square().sum())
    assert flow.layers == expected.layers
    assert flow.parameters == expected.parameters


def test_tensors_of_transforms_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = []
    torch.func.vmap(lambda x: wrapped.append(internals.is_functorch_wrapped(x)) or x)(draw(2, 3))
    assert wrapped == [True]
    assert not internals.is_functorch_wrapped(draw(2))
    model, x = nn.Linear(3, 3).double(), draw(2, 3)
    take_away("torch._C._functorch.is_functorch_wrapped_tensor", monkeypatch)
    with unchanged(model), pytest.raises(InspectionError):
        chainrule.inspect(model, lambda m: torch.func.vmap(lambda x: m(x).detach())(x).sum())


def test_without_stances_compiled_parts_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo

    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    compiled = torch.compile(model, backend="eager")
    assert internals.unwrap_compiled(compiled) is model
    assert internals.unwrap_compiled(model) is model
    before = torch._dynamo.eval_frame._stance
    stop = internals.start_running_eagerly()
    assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    stop()
    assert torch._dynamo.eval_frame._stance == before
    take_away("torch.compiler.set_stance", monkeypatch)
    assert internals.start_running_eagerly() is None
    flow = chainrule.inspect(compiled, lambda m: m(torch.ones(2, 3)).sum())
    assert all(parameter.grad_norm is not None for parameter in flow.parameters)


# --- Attributes ----------------------------------------------------------------------------------


def test_attributes_of_tensors() -> None:
    x = draw(2, 3, grad=True)
    y = x * 2
    assert internals.find_base(y.view(6)) is y
    assert internals.find_base(y) is None
    before = internals.read_version(y)
    y.add_(1)
    assert internals.read_version(y) == before + 1
    with torch.inference_mode():
        assert internals.read_version(torch.ones(1)) is None
    assert not internals.has_backward_hooks(y)
    y.register_hook(lambda gradient: None)
    assert internals.has_backward_hooks(y)
    assert internals.list_accumulation_hooks(x) == {}
    x.register_post_accumulate_grad_hook(lambda tensor: None)
    assert len(internals.list_accumulation_hooks(x)) == 1
    module = nn.Module()
    module.register_buffer("cache", torch.ones(1), persistent=False)
    assert internals.list_non_persistent(module) == {"cache"}


def test_attributes_of_nodes() -> None:
    x = draw(2, 3, grad=True)
    stack = torch.stack([x, x + 1])
    total = stack.sum(0)
    assert internals.read_saved_dim(stack.grad_fn) == 0
    assert internals.read_saved_dim(total.grad_fn) == (0,)
    assert internals.read_sequence_number(total.grad_fn) > internals.read_sequence_number(
        stack.grad_fn
    )


def test_attributes_that_are_missing() -> None:
    nothing = SimpleNamespace()
    assert internals.find_base(nothing) is None
    assert internals.read_version(nothing) is None
    assert internals.has_backward_hooks(nothing)  # may be
    assert internals.list_accumulation_hooks(nothing) == {}
    assert internals.list_non_persistent(nothing) == set()
    assert internals.read_saved_dim(nothing) is None
    assert internals.read_sequence_number(nothing) is None


class Residuals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3).double() for _ in range(3))
        self.last = nn.Linear(3, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([x, self.blocks[0](x)]).sum(0)
        for block in self.blocks[1:]:
            x = x + block(x)
        return self.last(x)


@pytest.mark.parametrize(("name", "found"), [("read_saved_dim", 2), ("read_sequence_number", 3)])
def test_residual_connections_without_attributes_of_nodes(
    name: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = Residuals(), draw(4, 3, grad=True)
    expected = chainrule.inspect(model, lambda m: m(x).square().sum()).residuals
    assert len(expected) == 3
    monkeypatch.setattr(autograd_graph, name, lambda node: None)
    residuals = chainrule.inspect(model, lambda m: m(x).square().sum()).residuals
    assert len(residuals) == found
    assert [each.after for each in residuals] == [each.after for each in expected[-found:]]


class PartlyInferring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.act = nn.Linear(2, 2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            scale = self.act(torch.ones(1, 2) + 1)
        return self.lin(x) * scale.sum().item()


def test_tensors_of_inference_mode_have_no_version_and_are_measured() -> None:
    model = PartlyInferring()
    with unchanged(model):
        flow = chainrule.inspect(model, lambda m: m(torch.ones(1, 2)).sum())
    assert [layer.name for layer in flow.layers] == ["act", "lin"]


def test_what_a_node_keeps_is_read_until_it_is_freed() -> None:
    one, target = torch.ones(2, requires_grad=True), torch.zeros(2)
    loss = F.mse_loss(one, target)
    assert internals.read_saved(loss.grad_fn, "target") is not None
    assert internals.read_saved(loss.grad_fn, "reduction") == 1
    assert internals.read_saved(loss.grad_fn, "no such name") is None
    loss.backward()
    assert internals.read_saved(loss.grad_fn, "target") is None


def test_without_what_nodes_keep_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "_compute_examples", lambda one: [torch.stack([one, one])])
    sentences = internals.list_missing()
    assert any("MseLossBackward0._saved_target" in each for each in sentences)


# --- In fewer calls ------------------------------------------------------------------------------


@pytest.mark.parametrize("has_name", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_many_tensors_are_joined_as_a_copy(
    has_name: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_name:
        monkeypatch.delattr(torch._C._nn, "flatten_dense_tensors")
    tensors = [draw(2, 3).T, torch.tensor(3.0), draw(0)][:count]
    expected = [x for tensor in tensors for x in tensor.flatten().tolist()]
    joined = internals.join_flat(tensors)
    tensors[0].add_(1.0)
    assert joined.tolist() == expected


def test_a_hook_comes_last_with_keywords_and_goes() -> None:
    module, seen = nn.Bilinear(2, 2, 2), []
    before = {name: dict(each) for name, each in vars(module).items() if "hooks" in name}
    handle = module.register_forward_hook(lambda _, args, result: result + 1.0)
    remove = internals.add_forward_hook(module, lambda *args: seen.append(args))
    x = torch.ones(1, 2)
    result = module(x, input2=x)
    remove()
    remove()  # what is interrupted is done once more
    module(x, x)
    handle.remove()
    ((at, args, kwargs, given),) = seen
    assert at is module
    assert len(args) == len(kwargs) == 1
    assert args[0] is kwargs["input2"] is x
    assert given is result
    assert before == {name: dict(each) for name, each in vars(module).items() if "hooks" in name}


def test_without_the_dictionaries_a_hook_is_registered() -> None:
    registered = []

    def register(hook: object, *, with_kwargs: bool) -> SimpleNamespace:
        registered.append((hook, with_kwargs))
        return SimpleNamespace(remove=registered.clear)

    remove = internals.add_forward_hook(SimpleNamespace(register_forward_hook=register), gone)
    assert registered == [(gone, True)]
    remove()
    assert not registered


# --- Training runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_foreach_norm", "_foreach_sub", None])
def test_many_tensors_are_measured_with_and_without_operations_for_many(name, monkeypatch) -> None:
    if name:
        monkeypatch.delattr(torch, name)
    after, before = ([torch.randn(3, 2), torch.randn(5)] for _ in range(2))
    norms = [each.double().square().sum().sqrt() for each in after]
    torch.testing.assert_close(internals.compute_norms(after, torch.float64), norms)
    found = internals.compute_differences(after, before)
    assert all(map(torch.equal, found, [a - b for a, b in zip(after, before, strict=True)]))
