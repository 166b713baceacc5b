"""Gradients that arrive in unusual ways: each is plain autograd's, or refused with what to do."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import chainrule
from chainrule.errors import InspectionError
from checkpoints import HandCheckpoint
from traces import unchanged

X = torch.linspace(-1, 1, 128).reshape(16, 8)


class Checkpointed(nn.Module):
    """A network whose middle is checkpointed by hand.

    Args:
        also_plain: Whether the same module also runs as usual.
        as_function: Whether the checkpoint uses its weights without calling it.
    """

    def __init__(self, *, also_plain=False, as_function=False):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.also_plain, self.as_function = also_plain, as_function

    def run(self, h):
        weight = self.body[0]
        return torch.tanh(h @ weight.weight.T + weight.bias) if self.as_function else self.body(h)

    def forward(self, x):
        h = self.first(x)
        if self.also_plain:
            h = self.body(h)
        return self.last(HandCheckpoint.apply(self.run, h))


class Couple(torch.autograd.Function):
    """A reversible layer: backward computes its inputs again from its outputs."""

    @staticmethod
    def forward(ctx, f, g, a, b):
        with torch.no_grad():
            y = a + f(b)
            z = b + g(y)
        ctx.f, ctx.g = f, g
        ctx.save_for_backward(y, z)
        return y, z

    @staticmethod
    def backward(ctx, dy, dz):
        y, z = ctx.saved_tensors
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            gy = ctx.g(y)
        gy.backward(dz)
        b = (z - gy.detach()).requires_grad_()
        dy = dy + y.grad
        with torch.enable_grad():
            fb = ctx.f(b)
        fb.backward(dy)
        return None, None, dy, dz + b.grad


class Reversible(nn.Module):
    """Three reversible layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.f = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.g = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        for f, g in zip(self.f, self.g, strict=True):
            a, b = Couple.apply(f, g, a, b)
        return torch.cat([a, b], 1)


def _net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def _hooked(kind):
    model = _net()
    if kind == "tensor":
        model[0].weight.register_hook(lambda g: g * 0.5)
    elif kind == "module":
        model[2].register_full_backward_hook(lambda module, into, out: (into[0] * 3,))
    elif kind == "module before":
        model[2].register_full_backward_pre_hook(lambda module, out: (out[0] * 3,))
    else:

        def clip(module, args, output):
            output.register_hook(lambda g: g.clamp(-1e-3, 1e-3))

        model[0].register_forward_hook(clip)
    return model


MODELS = {
    "checkpoint": Checkpointed,
    "checkpoint and plain": lambda: Checkpointed(also_plain=True),
    "checkpoint of functions": lambda: Checkpointed(as_function=True),
    "both of functions": lambda: Checkpointed(also_plain=True, as_function=True),
    "reversible": Reversible,
    **{kind: lambda kind=kind: _hooked(kind) for kind in ("tensor", "module", "module before")},
    "output": lambda: _hooked("output"),
}


def _assert_as_autograd(model, compute_loss):
    with unchanged(model):
        flow = chainrule.inspect(model, compute_loss)
    compute_loss(model).backward()
    for parameter in flow.parameters:
        gradient = model.get_parameter(parameter.name).grad
        assert parameter.status == "measured"
        assert parameter.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-6)
    return flow


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_autograd(name):
    torch.manual_seed(0)
    flow = _assert_as_autograd(MODELS[name](), lambda m: m(X).square().mean())
    assert all(call.gradient is not None for call in flow.layers)


def test_hooks_on_accumulated_gradients_do_not_run():
    torch.manual_seed(0)
    model = _net()
    seen = []
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(seen.append)
    flow = chainrule.inspect(model, lambda m: m(X).square().mean())
    assert not seen
    plain = torch.autograd.grad(model(X).square().mean(), list(model.parameters()))
    for parameter, gradient in zip(flow.parameters, plain, strict=True):
        assert parameter.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("lengths", [(3, 5), (3000, 5000)])
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_are_measured_step_by_step(layout, lengths):
    torch.manual_seed(0)
    parts = [torch.randn(length, 8) for length in lengths]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    model = _net()
    flow = _assert_as_autograd(model, lambda m: torch.cat(m(nested).unbind()).square().mean())
    flat = torch.cat(parts)
    same = chainrule.inspect(model, lambda m: m(flat).square().mean())
    assert len(flow.layers) == 3
    for call, other in zip(flow.layers, same.layers, strict=True):
        assert call.shape == other.shape
        assert call.statistics.std == pytest.approx(other.statistics.std, rel=1e-5)
        assert call.gradient.norm == pytest.approx(other.gradient.norm, rel=1e-5)


@pytest.fixture
def mesh(tmp_path):
    """One process that is a group by itself."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="PyTorch was built without it")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_models_that_are_spread_over_processes_are_refused_and_work_on(mesh):
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import distribute_module

    def compute_loss(m):
        return m(X).square().mean()

    fully_sharded = _net()
    fully_shard(fully_sharded, mesh=mesh)
    models = {
        "FullyShardedDataParallel": FullyShardedDataParallel(
            _net(), device_id=torch.device("cpu"), use_orig_params=True
        ),
        "FSDPModule": fully_sharded,
        "DistributedDataParallel": nn.parallel.DistributedDataParallel(_net()),
        "DTensor": distribute_module(_net(), mesh),
    }
    for name, model in models.items():
        for measure in (chainrule.inspect, chainrule.find_non_finite):
            with pytest.raises(InspectionError, match=f"{name}.*Inspect the model before"):
                measure(model, compute_loss)
    for name in ("FullyShardedDataParallel", "FSDPModule", "DistributedDataParallel"):
        if name == "FSDPModule" and not hasattr(torch.cpu.Stream, "record_event"):
            continue  # PyTorch 2.6 itself cannot run it on the CPU
        compute_loss(models[name]).backward()
        assert all(parameter.grad is not None for parameter in models[name].parameters())
    wrapped = models["DistributedDataParallel"]
    assert chainrule.inspect(wrapped.module, compute_loss).gradient_norm > 0
