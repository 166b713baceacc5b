"""What half precision keeps of gradients, against counting by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import ChainruleError, InspectionError, LossError
from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect
from chainrule.measure.loss_scale import probe_precision

TINY, SMALLEST = 2.0**-14, 2.0**-24


def make(dtype, factor=1.0):
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x, y = torch.randn(32, 8), torch.randn(32, 4)

    def compute_loss(m):
        with torch.autocast("cpu", dtype=dtype):
            output = m(x)
        return factor * F.mse_loss(output.float(), y)

    return model, compute_loss


def test_float32_says_nothing():
    model, x = nn.Linear(3, 1), torch.randn(4, 3)
    assert inspect(model, lambda m: m(x).square().mean()).precisions == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 2.0**-9, 2.0**-14])
def test_shares_are_those_of_the_gradients(dtype, factor):
    model, compute_loss = make(dtype, factor)
    flow = inspect(model, compute_loss)
    assert decode_flow(flow.to_json()) == flow
    compute_loss(model).backward()
    tiny = torch.finfo(dtype).tiny
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        gradient = parameter.grad.double()
        (found,) = [each for each in flow.precisions if each.name == name]
        size = gradient.abs()
        assert (found.of, found.dtype) == ("weight", str(dtype).removeprefix("torch."))
        assert found.zero_share == pytest.approx((size == 0).double().mean().item())
        below = ((size > 0) & (size < tiny)).double().mean().item()
        assert found.subnormal_share == pytest.approx(below)
        assert found.size == pytest.approx(size.square().mean().sqrt().item(), rel=1e-5)
    weights = [each.name for each in flow.precisions if each.of == "weight"]
    assert weights == [name for name, p in model.named_parameters() if p.dim() > 1]
    outputs = [each for each in flow.precisions if each.of == "output"]
    assert [each.name for each in outputs] == ["0", "1", "2"]


def test_what_arrives_is_the_gradient_before_it_is_rounded():
    model, compute_loss = make(torch.float16, 1e-8)
    flow = inspect(model, compute_loss)
    (arriving,) = [each for each in flow.precisions if each.of == "arriving"]
    with torch.autocast("cpu", dtype=torch.float16):
        output = model(torch.zeros(1, 8))
    assert output.dtype == torch.float16
    kept = []
    handle = model.register_forward_hook(lambda m, args, out: kept.append(out) or out)
    loss = compute_loss(model)
    handle.remove()
    wide = kept[0].detach().float().requires_grad_()
    (target,) = [
        c
        for c in (compute_loss.__closure__ or ())
        if getattr(c.cell_contents, "shape", ()) == (32, 4)
    ]
    (gradient,) = torch.autograd.grad(1e-8 * F.mse_loss(wide, target.cell_contents), wide)
    assert loss.item() == pytest.approx(1e-8 * F.mse_loss(wide, target.cell_contents).item())
    assert arriving.name == "2"
    assert arriving.size == pytest.approx(gradient.double().square().mean().sqrt().item(), rel=1e-5)
    assert arriving.largest == pytest.approx(gradient.abs().max().item())
    assert arriving.zero_share == 0
    assert arriving.resolution == pytest.approx(float(arriving.size) / SMALLEST)
    assert all(each.zero_share == 1 for each in flow.precisions if each.of == "weight")


class TestProbe:
    def test_each_scale_has_the_zeros_of_plain_autograd(self):
        model, compute_loss = make(torch.float16, 2.0**-14)
        probe = probe_precision(model, compute_loss, exponents=(0, 6, 12))
        weights = [p for p in model.parameters() if p.dim() > 1]
        for trial in probe.trials:
            found = torch.autograd.grad(compute_loss(model) * trial.scale, weights)
            zeros = sum(int((g == 0).sum()) for g in found) / sum(g.numel() for g in found)
            assert trial.zero_share == pytest.approx(zeros)

    def test_the_scale_brings_back_what_float32_has(self):
        model, compute_loss = make(torch.float16, 2.0**-20)
        probe = probe_precision(model, compute_loss)
        assert probe.trials[0].zero_share > 0.5
        assert 2.0**8 <= probe.loss_scale <= 2.0**24
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        x, y = torch.randn(32, 8), torch.randn(32, 4)
        weights = [p for p in model.parameters() if p.dim() > 1]
        found = torch.autograd.grad(F.mse_loss(model(x), y), weights)
        zeros = sum(int((g == 0).sum()) for g in found) / sum(g.numel() for g in found)
        assert probe.best.zero_share == pytest.approx(zeros, abs=2e-3)

    def test_float32_needs_none(self):
        model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), torch.randn(9, 3)
        model[0].weight.data[0] = -50.0
        model[0].bias.data[0] = -500.0  # a unit that is off: its zeros are no underflow
        probe = probe_precision(model, lambda m: m(x).square().mean())
        assert probe.loss_scale == 1
        assert probe.trials[0].zero_share > 0

    def test_overflow_is_seen(self):
        model, compute_loss = make(torch.float16, 1e6)
        probe = probe_precision(model, compute_loss)
        assert probe.trials[-1].non_finite > 0
        assert probe.best is None or not probe.best.non_finite

    def test_it_leaves_no_trace(self):
        model, compute_loss = make(torch.float16)
        model[0].weight.grad = torch.ones(16, 8)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        torch.manual_seed(5)
        want = torch.rand(3)
        torch.manual_seed(5)
        probe_precision(model, compute_loss)
        assert torch.equal(torch.rand(3), want)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model[0].weight.grad, torch.ones(16, 8))
        assert not model[0]._forward_hooks

    @pytest.mark.parametrize("exponents", [(), (0, 0), (4, 0), (0.5,), (0, 99), (True, 2)])
    def test_exponents_that_are_none_are_refused(self, exponents):
        model, compute_loss = make(torch.float16)
        with pytest.raises(ChainruleError, match=r"exponents must be whole numbers from -30 to 60"):
            probe_precision(model, compute_loss, exponents=exponents)

    def test_other_bad_input_is_refused_as_by_inspect(self):
        model, _ = make(torch.float16)
        with pytest.raises(LossError):
            probe_precision(model, lambda m: m(torch.ones(2, 8)))
        with pytest.raises(InspectionError):
            probe_precision(model, "loss")


def test_a_model_without_parameters_has_no_gradients_to_lose():
    with pytest.raises(InspectionError, match="parameters"):
        probe_precision(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum())
