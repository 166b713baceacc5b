"""What `inspect` reports for awkward models, against plain autograd."""

import contextlib
import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import chainrule
from chainrule.errors import InspectionError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.records import LayerFlow
from chainrule.measure import recording
from chainrule.spec.activations import ACTIVATIONS
from reference import SEED, Output, Reference, flatten, measure_plainly
from zoo import ZOO, Lambda, draw, on


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def measure(model: nn.Module, compute_loss: Callable[[nn.Module], Tensor]) -> GradientFlow:
    torch.manual_seed(SEED)
    return chainrule.inspect(model, compute_loss)


# --- Comparing -----------------------------------------------------------------------------------


SAMPLED_ABOVE = 65_536  # entries; zeros of larger tensors are counted in a sample


def near_share_of_zeros(flat: Tensor) -> object:
    share = (flat == 0).double().mean().item() if len(flat) else 1.0
    return pytest.approx(share, abs=0.02 if len(flat) > SAMPLED_ABOVE else 1e-6)


def near(expected: float, like: Tensor) -> object:
    """Return what equals `expected` up to the rounding of the tensor's precision."""
    exact = like.dtype in (torch.float64, torch.complex128)
    return pytest.approx(expected, rel=1e-10 if exact else 2e-6, abs=0.0, nan_ok=True)


def assert_same_gradient(figures: object, gradient: Tensor) -> None:
    flat = flatten(gradient)
    assert figures.norm == near(flat.norm().item(), gradient)
    assert figures.max_abs == near(flat.abs().max().item() if len(flat) else 0.0, gradient)
    assert figures.zero_share == near_share_of_zeros(flat)
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
        assert statistics.zero_share == near_share_of_zeros(flat)
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
            assert parameter.grad_zero_share == near_share_of_zeros(flat)
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


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", ZOO)
def test_agrees_with_plain_autograd_where_every_tensor_is_large(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large tensors are summarized as they pass, small ones together at the end."""
    monkeypatch.setattr(recording, "SMALL", 0)
    model, compute_loss = ZOO[name]()
    reference = measure_plainly(model, compute_loss)
    assert_same_flow(measure(model, compute_loss), reference, model)


# --- By hand -------------------------------------------------------------------------------------


def assert_same_outputs(flow: GradientFlow, loss: Tensor, **tensors: Tensor) -> None:
    """Compare what modules returned with tensors of a forward pass written out by hand."""
    gradients = torch.autograd.grad(loss, list(tensors.values()))
    for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True):
        (entry,) = (entry for entry in flow.layers if entry.name == name.removeprefix("_"))
        assert_same_output(entry, Output(entry.name, "", tensor.detach(), gradient))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(8, 4), (3, 8, 4)])
def test_relu_by_hand(in_place: bool, shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(in_place), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[0].bias[2] = -100.0  # unit 2 dies
    x = draw(*shape)
    z = F.linear(x, model[0].weight, model[0].bias)
    h = z.clamp(min=0)
    out = F.linear(h, model[2].weight, model[2].bias)
    flow = measure(model, lambda m: m(x).square().sum())
    assert_same_outputs(flow, out.square().sum(), _0=z, _1=h, _2=out)
    assert flow.layers[1].statistics.dead_units == (z <= 0).flatten(0, -2).all(0).sum() == 1
    assert flow.layers[1].statistics.saturation == pytest.approx((z <= 0).double().mean().item())


@pytest.mark.parametrize("name", ["residual_in_place_add", "residual_in_place_add_and_relu"])
def test_residual_in_place_add_by_hand(name: str) -> None:
    model, _ = ZOO[name]()
    x = draw(6, 5) - torch.tensor([20.0, 0.0, 0.0, 0.0, 20.0])
    normal = F.batch_norm(model.lin(x), None, None, model.bn.weight, model.bn.bias, training=True)
    z = normal + x
    h = z.clamp(min=0)
    flow = measure(model, lambda m: m(x).square().sum())
    assert_same_outputs(flow, h.square().sum(), bn=normal, act=h)
    assert flow.layers[2].statistics.dead_units == (z <= 0).all(0).sum() == 2
    assert flow.layers[2].statistics.saturation == pytest.approx((z <= 0).double().mean().item())


ACTIVATION_MODULES = [
    nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.GELU(), nn.SiLU(),
    nn.Identity(),
]  # fmt: skip


@pytest.mark.parametrize("module", ACTIVATION_MODULES, ids=lambda module: type(module).__name__)
def test_saturation_and_dead_units(module: nn.Module) -> None:
    def derive(z: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(module(z).sum(), z)
        return slope.abs()

    z = (4 * draw(9, 5) - torch.tensor([0.0, 0.0, 2000.0, 0.0, 1000.0])).requires_grad_()
    slope = derive(z)
    steepest = derive(torch.linspace(-9, 9, 180_001, dtype=torch.float64, requires_grad=True)).max()
    statistics = measure(nn.Sequential(module), lambda m: m(z).sum()).layers[0].statistics
    assert statistics.dead_units == (slope == 0).all(0).sum()
    assert statistics.saturation == pytest.approx((slope < 0.05 * steepest).double().mean().item())
    assert statistics.units == 5


def test_input_given_by_keyword() -> None:
    model = Lambda(lambda m, z: m.act(input=m.lin(input=z)), lin=nn.Linear(4, 3), act=nn.ReLU())
    nn.init.constant_(model.lin.bias, -100.0)
    _, relu = measure(*on(model, draw(5, 4))).layers
    assert relu.statistics.dead_units == 3
    assert relu.statistics.saturation == 1.0


@pytest.mark.parametrize("batch", [(4,), ()], ids=["batch", "no_batch"])
def test_channels_are_units(batch: tuple[int, ...]) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(-3), nn.Linear(48, 7), nn.ReLU()
    )
    with torch.no_grad():
        model[0].bias[1] = -100.0
        model[3].bias[2:4] = -100.0
    x = draw(*batch, 2, 6, 6, dtype=torch.float32)
    conv, relu, _, linear, last = measure(model, lambda m: m(x).sum()).layers
    assert conv.statistics.units == relu.statistics.units == 3
    assert relu.statistics.dead_units == 1
    assert linear.statistics.units == last.statistics.units == 7
    assert last.statistics.dead_units >= 2


# --- Gains, chains and weight layers -------------------------------------------------------------


CHAINS = [
    "mlp", "in_place_relu", "in_place_relu_on_sequences", "in_place_unknown", "conv_net", "dropout",
    "batch_norm", "custom_function", "bfloat16", "shared_module", "large_tensors", "tiny_gradients",
]  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_gains_of_a_chain(name: str) -> None:
    model, compute_loss = ZOO[name]()
    norms = [
        flatten(o.gradient).norm().item() for o in measure_plainly(model, compute_loss).outputs
    ]
    flow = measure(model, compute_loss)
    for entry, inward, outward in zip(flow.layers[1:], norms, norms[1:], strict=False):
        assert entry.gain == pytest.approx(inward / outward, rel=1e-5)
    assert flow.chain


def test_product_of_a_chain() -> None:
    model, x = ZOO["mlp"]()[0], draw(8, 4, grad=True)
    out = model(x)
    outward, inward = torch.autograd.grad(out.exp().sum(), [out, x])
    flow = measure(model, lambda m: m(x).exp().sum())
    assert flow.factors()[-1].running == pytest.approx((inward.norm() / outward.norm()).item())


def test_an_input_given_several_times_counts_once() -> None:
    model, x = nn.MultiheadAttention(8, 2).double(), draw(5, 3, 8, grad=True)
    out, _ = model(x, x, x)
    outward, inward = torch.autograd.grad(out.exp().sum(), [out, x])
    flow = measure(model, lambda m: m(x, x, x)[0].exp().sum())
    assert flow.layers[0].gain == pytest.approx((inward.norm() / outward.norm()).item())


@pytest.mark.parametrize("name", ["residual_in_place_add", "functional_weight", "unreached"])
def test_is_no_chain(name: str) -> None:
    assert not measure(*ZOO[name]()).chain


def differentiate_at(model: nn.Module, compute_loss: Callable, *names: str) -> list[float]:
    """Return ‖∂loss/∂output‖ of modules that are called once each."""
    model, outputs = copy.deepcopy(model), {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: outputs.update({name: out})
        )
    torch.manual_seed(SEED)
    gradients = torch.autograd.grad(compute_loss(model), [outputs[name] for name in names])
    return [gradient.norm().item() for gradient in gradients]


@pytest.mark.parametrize(
    ("name", "layers"),
    [("mlp", "0 2 4"), ("weight_norm", "0 2"), ("spectral_norm", "0 1"), ("conv_net", "0 4")],
)
def test_deltas_of_weight_layers(name: str, layers: str) -> None:
    model, compute_loss = ZOO[name]()
    flow = measure(model, compute_loss)
    expected = differentiate_at(model, compute_loss, *layers.split())
    assert list(flow.delta_norms) == pytest.approx(expected)


def test_weights_used_in_a_function_are_a_layer() -> None:
    flow = measure(*ZOO["functional_weight"]())
    assert [layer.name for layer in flow.weight_layers] == ["first", "lin", "last"]
    assert flow.weight_gradient_norms[1] > 0
    assert flow.delta_norms[1] is None


@pytest.mark.parametrize("name", ["tied_weights", "shared_module"])
def test_aliases(name: str) -> None:
    model, compute_loss = ZOO[name]()
    for parameter in measure(model, compute_loss).parameters:
        tensor = model.get_parameter(parameter.name)
        every = [n for n, p in model.named_parameters(remove_duplicate=False) if p is tensor]
        assert [parameter.name, *parameter.aliases] == every


def test_calls_of_one_module_are_numbered() -> None:
    flow = measure(*ZOO["rnn_cell_loop"]())
    assert [entry.call for entry in flow.layers if entry.name == "cell"] == [0, 1, 2, 3, 4]
    cell = [entry.gradient.norm for entry in flow.layers if entry.name == "cell"]
    assert flow.delta_norms[0] == pytest.approx(math.hypot(*cell))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_ratios_do_not_depend_on_the_scale_of_the_loss(scale: float) -> None:
    model, x = ZOO["mlp"]()[0].float(), draw(8, 4, dtype=torch.float32)
    plain, scaled = (measure(model, lambda m, s=s: s * m(x).sum()) for s in (1.0, scale))
    assert scaled.gradient_ratio == pytest.approx(plain.gradient_ratio, rel=1e-5)
    assert scaled.gradient_norm == pytest.approx(scale * plain.gradient_norm, rel=1e-5)


# --- Gradients and hooks that are already there --------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "sparse_embedding", "checkpoint_reentrant"])
def test_existing_gradients_do_not_count(name: str) -> None:
    model, compute_loss = ZOO[name]()
    reference = measure_plainly(model, compute_loss)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    assert_same_flow(measure(model, compute_loss), reference, model)


@pytest.mark.parametrize("name", ["mlp", "checkpoint_reentrant"])
def test_hooks_on_parameters(name: str) -> None:
    model, compute_loss = ZOO[name]()
    reference = measure_plainly(model, compute_loss)
    fired = []
    for key, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient: 10 * gradient)  # as in training: it acts
        parameter.register_post_accumulate_grad_hook(fired.append)  # steps an optimizer: must not
        reference.gradients[key] = 10 * reference.gradients[key]
    assert_same_flow(measure(model, compute_loss), reference, model)
    assert not fired


def test_full_backward_hooks_fire_as_in_training() -> None:
    model, compute_loss = ZOO["mlp"]()
    reference, fired = measure_plainly(model, compute_loss), []
    model[2].register_full_backward_hook(lambda module, inward, outward: fired.append(module))
    assert_same_flow(measure(model, compute_loss), reference, model)
    assert fired == [model[2]]


# --- Compiled and checkpointed -------------------------------------------------------------------


def compile_whole(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def compile_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compile_parts(model: nn.Module) -> nn.Module:
    model[0], model[1] = compile_whole(model[0]), compile_whole(model[1])
    return model


def compile_forward(model: nn.Module) -> nn.Module:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("compiled_by", "through"),
    [
        (compile_whole, "argument"),
        (compile_whole, "closure"),
        (compile_in_place, "argument"),
        (compile_parts, "argument"),
        (compile_forward, "argument"),
    ],
)
def test_compiled(compiled_by: Callable[[nn.Module], nn.Module], through: str) -> None:
    model, compute_loss = ZOO["mlp"]()
    reference, plain = measure_plainly(model, compute_loss), copy.deepcopy(model)
    compiled = compiled_by(model)
    assert compute_loss(compiled).item() == pytest.approx(reference.loss)  # compiles it
    loss = compute_loss if through == "argument" else lambda _: compute_loss(compiled)
    assert_same_flow(measure(compiled, loss), reference, plain)


class FunctionalCheckpoint(nn.Module):
    """A reentrant checkpoint with no module in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(draw(4, 4))
        self.use_reentrant: bool | None = True

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return F.linear(x, self.weight).tanh()
        return checkpoint(lambda x: F.linear(x, self.weight).tanh(), x, use_reentrant=True)


class TwoSegments(nn.Module):
    """One block in two reentrant checkpoints, whose outputs are combined by a function."""

    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor], shift: float = 0.0) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
        self.use_reentrant: bool | None = True
        self.combine, self.shift = combine, shift

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.combine(self.block(x), self.block(x + self.shift))
        first = checkpoint(self.block, x, use_reentrant=True)
        return self.combine(first, checkpoint(self.block, x + self.shift, use_reentrant=True))


@pytest.mark.parametrize(
    "build",
    [
        FunctionalCheckpoint,
        lambda: TwoSegments(lambda first, second: first - 3 * second),
        lambda: TwoSegments(lambda first, second: first, shift=1.0),
        lambda: TwoSegments(lambda first, second: first - 3 * second, shift=math.nan),
    ],
    ids=["functional", "equal_segments", "unused_segment", "nan"],
)
def test_reentrant_checkpoints(build: Callable[[], nn.Module]) -> None:
    model, x = build(), draw(5, 4, grad=True)
    reference = measure_plainly(model, lambda m: m(x).square().sum())
    assert_same_flow(measure(model, lambda m: m(x).square().sum()), reference, model)


# --- What cannot be measured, or not wholly ------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    "lazy", [lambda: nn.LazyLinear(3), lambda: nn.LazyBatchNorm1d(affine=False)]
)
def test_lazy_modules_raise(lazy: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), lazy())
    with pytest.raises(InspectionError, match="lazy"):
        measure(model, lambda m: m(torch.ones(2, 4)).sum())


def test_a_caught_error_leaves_later_calls_right() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor, broken: bool = False) -> Tensor:
            if broken:
                raise ValueError
            return self.inner(x * self.scale)

    def run(m, x):
        with contextlib.suppress(ValueError):
            m.block(x, broken=True)
        return m.head(m.block(x))

    flow = measure(*on(Lambda(run, block=Broken(), head=nn.Linear(4, 2)), draw(5, 4)))
    assert [(entry.name, entry.parent) for entry in flow.layers] == [
        ("block.inner", 1), ("block", None), ("head", None)
    ]  # fmt: skip


def test_vectorized_calls_are_measured_or_refused() -> None:
    model, _ = ZOO["in_place_relu"]()
    x = draw(8, 4)
    gradients = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    with contextlib.suppress(InspectionError):
        flow = measure(model, lambda m: torch.vmap(m)(x).square().sum())
        norms = [gradient.norm().item() for gradient in gradients]
        assert [parameter.grad_norm for parameter in flow.parameters] == pytest.approx(norms)


def test_an_output_that_contains_itself() -> None:
    class Leaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x: Tensor) -> dict:
            out: dict = {"z": x @ self.weight}
            out["self"] = out
            return out

    flow = measure(Leaf(), lambda m: m(draw(5, 4).float())["z"].square().sum())
    assert [entry.output for entry in flow.layers] == ["z"]


def test_torchscript_is_refused_in_words() -> None:
    model = torch.jit.ScriptModule()
    with pytest.raises(chainrule.errors.InspectionError, match="TorchScript"):
        measure(model, lambda m: torch.ones((), requires_grad=True))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
@pytest.mark.parametrize("dead", [0, 2])
def test_units_of_large_activations(activation, dead):
    """Dead units are exact however large; saturation comes from a sample that is near the whole."""
    torch.manual_seed(0)
    z = 2 * torch.randn(8, 128, 96)
    z[..., :dead] = -200.0
    model = nn.Sequential(nn.Linear(96, 96, bias=False), activation())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(96))
    figures = chainrule.inspect(model, lambda m: m(z).sum()).layers[1].statistics
    z.requires_grad_()
    slope = torch.autograd.grad(activation()(z).sum(), z)[0].abs()
    limit = 0.05 * ACTIVATIONS[activation.__name__.lower()].derivative_max
    expected = float((slope < limit).double().mean())
    assert figures.saturation == pytest.approx(expected, abs=0.01)
    assert figures.dead_units == int((slope.amax((0, 1)) == 0).sum()) == dead
