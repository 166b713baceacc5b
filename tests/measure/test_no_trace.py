"""`inspect` leaves everything as it was, also when it raises; and what it raises."""

import contextlib
import copy
import gc
import random
import re
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import chainrule
from chainrule.errors import InspectionError, LossError
from chainrule.measure import checksums, recording
from traces import HARMLESS, RAISING, Loss, unchanged
from zoo import ZOO, Checkpointed, Lambda, draw, mlp, on

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


@pytest.fixture(autouse=True)
def _process_as_at_first() -> None:
    """Undo what an earlier test may have left, so that leaving it again shows."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(True)


def give_gradients(model: nn.Module) -> nn.Module:
    """Give every other parameter a gradient, so that there is something to disturb."""
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.full_like(parameter, 3.0)
    return model


def inspect_anyhow(model: nn.Module, compute_loss: Loss) -> None:
    with contextlib.suppress(InspectionError):
        chainrule.inspect(model, compute_loss)


# --- Leaving no trace ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_no_trace(name: str) -> None:
    model, compute_loss = ZOO[name]()
    with unchanged(give_gradients(model)):
        chainrule.inspect(model, compute_loss)


@pytest.mark.parametrize("name", ZOO)
def test_no_trace_where_every_tensor_is_large(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of large tensors are caught by hooks on them."""
    monkeypatch.setattr(recording, "SMALL", 0)
    model, compute_loss = ZOO[name]()
    with unchanged(give_gradients(model)):
        chainrule.inspect(model, compute_loss)


def test_hooks_on_large_tensors_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "SMALL", 0)
    kept = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model[0].register_forward_hook(lambda module, args, out: kept.append(out))
    x = draw(3, 4, dtype=torch.float32)
    chainrule.inspect(model, lambda m: m(x).sum())
    assert kept
    assert not any(tensor._backward_hooks for tensor in kept)


@pytest.mark.parametrize("name", ["batch_norm", "dropout", "spectral_norm", "checkpoint_reentrant"])
@pytest.mark.parametrize("misbehave", RAISING)
def test_no_trace_after_an_error(name: str, misbehave: Callable[[Loss], Loss]) -> None:
    model, compute_loss = ZOO[name]()
    with unchanged(give_gradients(model)), pytest.raises(InspectionError):
        chainrule.inspect(model, misbehave(compute_loss))


PARTS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(4, 4),
    lambda: nn.ReLU(inplace=True),
    lambda: nn.Tanh(),
    lambda: nn.BatchNorm1d(4),
    lambda: nn.BatchNorm1d(4, momentum=None),
    lambda: nn.Dropout(0.5),
    lambda: nn.LayerNorm(4),
    lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(0.2))),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
]
SHARED = nn.Linear(4, 4)


@st.composite
def models(draw_from: st.DrawFn) -> nn.Module:
    """Models with mixed modes, frozen parameters, gradients, shared modules and hooks."""
    parts = draw_from(st.lists(st.sampled_from([*PARTS, lambda: SHARED]), min_size=1, max_size=5))
    model = copy.deepcopy(nn.Sequential(nn.Linear(4, 4), *(build() for build in parts)))
    for module in model.modules():
        module.training = draw_from(st.booleans())
        if draw_from(st.booleans()):
            module.register_forward_hook(lambda module, args, out: None)
            module.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
    for parameter in model.parameters():
        parameter.requires_grad_(draw_from(st.booleans()))
        if draw_from(st.booleans()):
            parameter.grad = torch.full_like(parameter, draw_from(st.sampled_from([0.0, 1.0])))
        if parameter.requires_grad and draw_from(st.booleans()):
            parameter.register_hook(lambda gradient: None)
            parameter.register_post_accumulate_grad_hook(lambda parameter: None)
    return model


@settings(max_examples=60, deadline=None)
@given(
    model=models(),
    misbehaviour=st.sampled_from([*HARMLESS, *RAISING]),
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(
        [contextlib.nullcontext, torch.no_grad, torch.inference_mode, torch.enable_grad]
    ),
)
def test_no_trace_whatever_happens(model, misbehaviour, seed, mode) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    x = torch.randn(3, 4)
    with mode(), unchanged(model):
        inspect_anyhow(model, misbehaviour(lambda m: m(x).square().sum()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_measures_where_gradients_are_off(mode: Callable) -> None:
    model, compute_loss = mlp()
    expected = chainrule.inspect(model, compute_loss)
    with mode(), unchanged(model):
        assert chainrule.inspect(model, compute_loss).parameters == expected.parameters


def test_measures_under_autocast() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)), draw(5, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        with unchanged(model):
            flow = chainrule.inspect(model, lambda m: m(x).float().sum())
        gradients = torch.autograd.grad(model(x).float().sum(), list(model.parameters()))
    norms = [gradient.double().norm().item() for gradient in gradients]
    assert [p.grad_norm for p in flow.parameters] == pytest.approx(norms, rel=1e-6)
    assert flow.layers[0].dtype == "bfloat16"


@pytest.mark.parametrize("use_reentrant", [None, False, True])
def test_gradients_of_other_tensors_are_not_touched(use_reentrant: bool | None) -> None:
    x, teacher = draw(6, 5, grad=True), nn.Linear(5, 5).double()
    model = Checkpointed(use_reentrant).double()
    x.grad = gradient = torch.ones_like(x)
    fired = []
    x.register_post_accumulate_grad_hook(fired.append)
    with unchanged(teacher), unchanged(model):
        chainrule.inspect(model, lambda m: m(teacher(x)).square().sum())
    assert x.grad is gradient
    assert (x.grad == 1).all()
    assert not fired


@pytest.mark.parametrize("name", ["mlp", "batch_norm", "batch_norm_eval", "spectral_norm"])
def test_a_graph_from_before_can_still_be_used(name: str) -> None:
    model, compute_loss = ZOO[name]()
    before, parameters = compute_loss(model), list(model.parameters())
    expected = torch.autograd.grad(before, parameters, retain_graph=True)
    chainrule.inspect(model, compute_loss)
    for gradient, old in zip(torch.autograd.grad(before, parameters), expected, strict=True):
        assert gradient.equal(old)


def test_buffers_made_or_replaced_inside() -> None:
    class Cache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.plain = nn.Tanh()  # has no buffers yet

        def forward(self, x: Tensor) -> Tensor:
            self.count = self.count + 1
            self.register_buffer("size", x.norm(), persistent=False)
            self.plain.register_buffer("made", torch.ones(2), persistent=False)
            return self.plain(x * self.count)

    model = nn.Sequential(nn.Linear(4, 4), Cache())
    with unchanged(model):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 4)).sum())


@pytest.mark.parametrize("write", [lambda b: b.add_(1), lambda b: b.data.add_(1)])
def test_buffers_written_inside(write: Callable[[Tensor], object]) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            write(self.count)
            return x

    model = nn.Sequential(nn.Linear(4, 4), Counter())
    with unchanged(model):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 4)).sum())


def test_parameters_replaced_inside() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def compute_loss(m: nn.Module) -> Tensor:
        m[0].weight = nn.Parameter(torch.zeros(4, 4))
        m[1].extra = nn.Parameter(torch.zeros(4))
        return m(torch.ones(2, 4)).sum()

    with unchanged(model):
        inspect_anyhow(model, compute_loss)


class Keeping(nn.Module):
    """Keeps tensors in attributes, lists and dictionaries, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.last = torch.zeros(3)
        self.runs = 0
        self.seen: list[Tensor] = []
        self.by_name: dict[str, list[Tensor]] = {"outputs": []}
        self.state = [torch.zeros(4), torch.zeros(4)]
        self.gone = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        out = self.lin(x)
        self.last, self.fresh = out, out.sum()
        self.runs += 1
        self.seen.append(out)
        self.state[1] = out
        self.by_name["outputs"].append(out)
        self.by_name["mean"] = [out.mean()]
        del self.gone
        return out


@pytest.mark.parametrize("fails", [False, True])
def test_attributes_are_put_back(fails: bool) -> None:
    """Nothing of the graph stays, so the model can be copied and saved as before."""
    model = nn.Sequential(Keeping(), nn.Tanh())
    keeper, last, state = model[0], model[0].last, list(model[0].state)
    with unchanged(model):
        inspect_anyhow(model, lambda m: m(torch.ones(2, 4)).sum().reshape([()] if fails else ()))
    assert keeper.last is last
    assert keeper.runs == 0
    assert keeper.seen == []
    assert list(map(id, keeper.state)) == list(map(id, state))
    assert keeper.by_name == {"outputs": []}
    assert not hasattr(keeper, "fresh")
    assert keeper.gone == 1
    copy.deepcopy(model)


class Renaming(nn.Module):
    """Gives what a dictionary and a registry hold other names, in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(4))
        self.settings = {"first": "a", "second": "b"}

    def forward(self, x: Tensor) -> Tensor:
        self.settings["third"] = self.settings.pop("second")
        self._buffers["moved"] = self._buffers.pop("shift")
        return self.lin(x) + self.moved


def test_names_are_put_back_where_the_objects_are_the_same() -> None:
    model = nn.Sequential(Renaming(), nn.Tanh())
    with unchanged(model):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 4)).sum())
    assert list(model[0].settings.items()) == [("first", "a"), ("second", "b")]
    assert list(model.state_dict()) == ["0.shift", "0.lin.weight", "0.lin.bias"]


def test_keyboard_interrupt_passes_through() -> None:
    def compute_loss(m: nn.Module) -> Tensor:
        m(torch.ones(3, 4))
        raise KeyboardInterrupt

    model = give_gradients(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        chainrule.inspect(model, compute_loss)


def test_compiled_models_stay_compiled() -> None:
    runs = []

    def backend(graph: nn.Module, inputs: object) -> Callable:
        return lambda *args: runs.append(1) or graph(*args)

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    compiled = torch.compile(model, backend=backend)
    compiled(torch.ones(2, 4))
    with unchanged(model), unchanged(compiled):
        chainrule.inspect(compiled, lambda m: m(torch.ones(2, 4)).sum())
    before = len(runs)
    compiled(torch.ones(2, 4))
    assert len(runs) == before + 1


def count_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("read_first", [False, True])
def test_a_flow_keeps_no_tensors_alive(read_first: bool) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4)
    outputs: list[weakref.ref] = []
    model[0].register_forward_hook(lambda module, args, out: outputs.append(weakref.ref(out)))
    before = count_tensors()
    flow = chainrule.inspect(model, lambda m: m(x).sum())
    if read_first:
        assert flow.layers
    assert count_tensors() == before
    kept = [*outputs, weakref.ref(model[0]), weakref.ref(model[0].weight)]
    del model
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3
    assert flow.layers[0].name == "0"


# --- Errors --------------------------------------------------------------------------------------


def test_errors_name_the_last_module_that_ran() -> None:
    model, x = mlp()[0], draw(8, 3)
    model[1].register_forward_hook(lambda module, args, out: out[:, :5])  # does not fit model[2]
    with pytest.raises(
        InspectionError, match=r"RuntimeError.*last module that ran was '1' \(Tanh\)"
    ):
        chainrule.inspect(model, lambda m: m(draw(8, 4)).sum())
    with pytest.raises(InspectionError, match=r"No measured module had run") as caught:
        chainrule.inspect(model, lambda m: m(x).sum())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not isinstance(caught.value, LossError)


def test_errors_are_chained() -> None:
    error = KeyError("mine")

    def compute_loss(m: nn.Module) -> Tensor:
        raise error

    with pytest.raises(InspectionError, match="KeyError: 'mine'") as caught:
        chainrule.inspect(nn.Linear(1, 1), compute_loss)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_errors_in_the_backward_pass_are_chained(kind: type, use_reentrant: bool) -> None:
    error = kind("no")

    def fail(gradient: Tensor) -> None:
        raise error

    def run(m: nn.Module, x: Tensor) -> Tensor:
        z = checkpoint(m.lin, x, use_reentrant=use_reentrant)
        z.register_hook(fail)
        return z

    model, compute_loss = on(Lambda(run, lin=nn.Linear(4, 4)), draw(2, 4, grad=True))
    with (
        unchanged(give_gradients(model)),
        pytest.raises(InspectionError, match=r"backward pass.*no") as caught,
    ):
        chainrule.inspect(model, compute_loss)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda out: None, "scalar tensor; got NoneType"),
        (lambda out: out.sum().item(), "scalar tensor; got float"),
        (lambda out: (out.sum(),), "scalar tensor; got tuple"),
        (lambda out: out, "one number; got a tensor of shape [2, 4]"),
        (lambda out: out[:0].sum(0), "one number; got a tensor of shape [4]"),
        (lambda out: out.sum().detach(), "attached to the graph"),
        (lambda out: out.argmax(), "attached to the graph"),
        (lambda out: out.argmax(), "integer loss"),
        (lambda out: out.sum() * 1j, "real number; got a complex one"),
        (lambda out: torch.tensor(1.0, requires_grad=False), "attached to the graph"),
    ],
)
def test_loss_errors(returned: Callable[[Tensor], object], message: str) -> None:
    model = nn.Linear(4, 4)
    with unchanged(model), pytest.raises(LossError, match=re.escape(message)):
        chainrule.inspect(model, lambda m: returned(m(torch.ones(2, 4))))


def test_all_parameters_frozen() -> None:
    model = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(LossError, match="all frozen"):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 4)).sum())


def test_a_graph_used_before() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    loss = model(torch.ones(2, 4)).square().sum()
    loss.backward()
    with pytest.raises(LossError, match="graph was already used"):
        chainrule.inspect(model, lambda m: loss)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_losses_that_are_no_number_are_measured(shape: tuple, value: float) -> None:
    flow = chainrule.inspect(
        nn.Linear(4, 1), lambda m: (m(torch.ones(1, 4)) * value).sum().reshape(shape)
    )
    assert not torch.isfinite(torch.tensor(flow.loss))
    assert flow.parameters[0].grad_non_finite == 4


OPTIMIZERS = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, foreach=True),
    lambda parameters: torch.optim.Adam(parameters, fused=True),
]


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS)
@pytest.mark.parametrize("retain_graph", [False, True])
def test_optimizer_steps_are_errors(make_optimizer: Callable, retain_graph: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4))

    def compute_loss(m: nn.Module) -> Tensor:
        loss = m(torch.ones(2, 4)).square().sum()
        loss.backward(retain_graph=retain_graph)
        make_optimizer(m.parameters()).step()
        return loss

    gradients = [parameter.grad for parameter in give_gradients(model).parameters()]
    with pytest.raises(InspectionError, match="optimizer"):
        chainrule.inspect(model, compute_loss)
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


def clamp(m: nn.Module) -> None:
    for parameter in m.parameters():
        parameter.data.clamp_(-0.01, 0.01)


def change_one(m: nn.Module) -> None:
    m[2].bias.data[1] += 0.25


def fill_undefined(m: nn.Module) -> None:
    m[0].weight.data[0, 0] = torch.nan


def replace_and_change(m: nn.Module) -> None:
    m[2].bias.data[0] = 3.0
    m[2].bias.data = torch.zeros_like(m[2].bias.data[:1])


CHANGES = [clamp, change_one, fill_undefined, replace_and_change]


def three_layers(dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(dtype)


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.inference_mode])
def test_changes_through_data_are_undone(
    change: Callable, dtype: torch.dtype, fails: bool, mode: Callable
) -> None:
    if dtype.is_complex and change is clamp:
        pytest.skip("complex numbers cannot be clamped")
    model, x = three_layers(dtype), torch.ones(2, 4, dtype=dtype)

    def compute_loss(m: nn.Module) -> Tensor:
        loss = m(x).abs().sum()
        change(m)
        return loss.expand(2) if fails else loss

    message = "must return one number" if fails else "changed the values of .* was undone"
    with mode(), unchanged(model), pytest.raises(InspectionError, match=message):
        chainrule.inspect(model, compute_loss)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_changes_through_data_of_large_models_are_errors(
    change: Callable, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "COPIED", 0)
    model, x = three_layers(dtype), torch.ones(2, 4, dtype=dtype)

    def compute_loss(m: nn.Module) -> Tensor:
        change(m)
        return m(x).sum()

    name = {clamp: "0.weight", fill_undefined: "0.weight"}.get(change, "2.bias")
    with pytest.raises(InspectionError, match=f"values of parameter '{name}'.* was not undone"):
        chainrule.inspect(model, compute_loss)


@pytest.mark.parametrize("most", [0, 1000])
def test_undefined_weights_that_stay_are_no_change(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "COPIED", most)
    model = three_layers(torch.float32)
    fill_undefined(model)
    with unchanged(model):
        flow = chainrule.inspect(model, lambda m: m(torch.ones(2, 4)).sum())
    assert not torch.isfinite(torch.tensor(flow.loss))


class Normalizing(nn.Module):
    """Puts other tensors in the place of its weights, as spectral or weight normalization may."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = nn.functional.normalize(self.weight.data, dim=1)
        return x @ self.weight


@pytest.mark.parametrize("most", [0, 1000])
@pytest.mark.parametrize("mode", [contextlib.nullcontext, torch.inference_mode])
def test_replaced_data_is_put_back(
    most: int, mode: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "COPIED", most)
    model, x = nn.Sequential(Normalizing(), nn.Tanh()), torch.randn(3, 4)
    address, values = model[0].weight.data_ptr(), model[0].weight.detach().clone()
    with mode(), unchanged(model):
        flow = chainrule.inspect(model, lambda m: m(x).square().sum())
    assert model[0].weight.data_ptr() == address
    weight = nn.functional.normalize(values, dim=1).requires_grad_()
    (expected,) = torch.autograd.grad((x @ weight).tanh().square().sum(), weight)
    assert flow.parameters[0].grad_norm == pytest.approx(expected.norm().item(), rel=1e-5)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=9),
    st.sampled_from(["plain", "shifted", "transposed"]),
    st.data(),
)
def test_sums_of_bits_notice_any_single_change(
    values: list[float], layout: str, data: st.DataObject
) -> None:
    tensor = torch.tensor([*values, *values])
    if layout == "shifted":
        tensor = tensor[1:]
    if layout == "transposed":
        tensor = tensor.reshape(2, -1).t()
    (before,) = checksums.sum_bits([tensor])
    bits = tensor.numpy().view(np.int32)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in tensor.shape)
    bits[place] ^= 1 << data.draw(st.integers(0, 30))
    assert checksums.sum_bits([tensor]) != [before]


@pytest.mark.parametrize(
    ("model", "compute_loss", "message"),
    [
        (lambda x: x, lambda m: m(1), "model must be a torch.nn.Module; got function"),
        (nn.Linear(1, 1), torch.ones(()), "must be a function.*got Tensor"),
    ],
)
def test_wrong_arguments(model: object, compute_loss: object, message: str) -> None:
    with pytest.raises(InspectionError, match=message):
        chainrule.inspect(model, compute_loss)
