"""Correct numbers: what a run records equals what a plain loop would measure by hand."""

import copy
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule.watch import watch
from chainrule.watch.records import ABSENT


def make(seed=0, act=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), act(), nn.Linear(8, 3))


def batches(count, size=6):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 4, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def norms(model):
    return [float(p.grad.double().norm()) for p in model.parameters()]


def total(values):
    return math.hypot(*values)


def test_accumulation_gives_the_sum_at_the_step():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    expected = []
    with watch(model, optimizer, every=1) as run:
        for at, (x, y) in enumerate(batches(9)):
            (F.cross_entropy(model(x), y) / 3).backward()
            if at % 3 == 2:
                expected.append(norms(model))
                optimizer.step()
                optimizer.zero_grad()
    assert [record.step for record in run.steps] == [1, 2, 3]
    for record, wanted in zip(run.steps, expected, strict=True):
        assert record.grad_norms == pytest.approx(wanted, rel=1e-6)
        assert record.total_norm == pytest.approx(total(wanted), rel=1e-6)
        assert record.clipped_from is None
    assert all(layer.delta_norm > 0 for sample in run.samples for layer in sample.layers)


@pytest.mark.parametrize("early", [False, True])
def test_logged_numbers_belong_to_their_step(early):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    with watch(model, optimizer) as run:
        for x, y in batches(5):
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            if early:
                run.log(loss=loss, accuracy=0.5)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if not early:
                run.log(loss=loss, accuracy=0.5)
    assert [record.loss for record in run.steps] == losses
    assert [dict(record.scalars) for record in run.steps] == [{"accuracy": 0.5}] * 5


def test_a_log_must_be_one_number():
    model = make()
    with watch(model, torch.optim.SGD(model.parameters(), 0.1)) as run:
        for wrong in (torch.ones(2), "0.1", None, [1.0]):
            with pytest.raises(chainrule.errors.WatchError, match="loss"):
                run.log(loss=wrong)
        run.log(loss=torch.ones(1, 1), count=np.int64(3))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "fused": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "fused sgd": lambda p: torch.optim.SGD(p, 0.01, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "own": lambda p: SignDescent(p, 0.01),
}


class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad.sign()  # another memory, on purpose


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_equal_the_difference_of_the_parameters(name):
    model = make()
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    moved, sizes = [], []
    with watch(model, optimizer, every=1) as run:
        for x, y in batches(8):
            F.cross_entropy(model(x), y).backward()
            before = [p.detach().double().clone() for p in model.parameters()]
            optimizer.step()
            optimizer.zero_grad()
            after = [p.detach().double() for p in model.parameters()]
            moved.append([float((a - b).norm()) for a, b in zip(after, before, strict=True)])
            sizes.append([float(b.norm()) for b in before])
    assert len(run.samples) == 8
    for sample, wanted, size in zip(run.samples, moved, sizes, strict=True):
        assert sample.update_norms == pytest.approx(wanted, rel=1e-6)
        assert sample.weight_norms == pytest.approx(size, rel=1e-6)
        assert sample.ratios == pytest.approx(np.divide(wanted, size), rel=1e-5)


def test_updates_of_half_precision_are_those_of_its_values():
    model = make().to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    with watch(model, optimizer, every=1) as run:
        for x, y in batches(3):
            F.cross_entropy(model(x.bfloat16()).float(), y).backward()
            before = [p.detach().double().clone() for p in model.parameters()]
            wanted = norms(model)
            optimizer.step()
            optimizer.zero_grad()
            moved = [
                float((p.detach().double() - b).norm())
                for p, b in zip(model.parameters(), before, strict=True)
            ]
    assert run.samples[-1].update_norms == pytest.approx(moved, rel=1e-6)
    assert run.steps[-1].grad_norms == pytest.approx(wanted, rel=1e-6)


def test_lbfgs_and_other_closures_are_measured_after_they_ran():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    (x, y), *_ = batches(1)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with watch(model, optimizer, every=1) as run:
        for _ in range(3):
            optimizer.step(closure)
        wanted = norms(model)
    assert run.steps[-1].grad_norms == pytest.approx(wanted, rel=1e-6)
    assert all(sample.layers[0].delta_norm for sample in run.samples)

    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1)
    with watch(model, optimizer, every=1) as run:
        optimizer.step(closure)
    assert run.samples[0].update_norms.min() > 0


# --- Mixed precision ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fused", "unscales"), [(False, False), (False, True), (True, False), (True, True)]
)
def test_gradients_under_a_scaler_are_unscaled(fused, unscales):
    model, plain = make(), make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    (x, y), *_ = batches(1)
    F.cross_entropy(plain(x), y).backward()
    scale = scaler.get_scale()
    with watch(model, optimizer, every=1) as run:
        scaler.scale(F.cross_entropy(model(x), y)).backward()
        if unscales:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()
    record = run.steps[0]
    wanted = norms(plain)
    if unscales:
        assert record.clipped_from == pytest.approx(total(wanted), rel=1e-5)
        assert record.total_norm == pytest.approx(0.01, rel=1e-3)
    else:
        assert record.clipped_from is None
        assert record.grad_norms == pytest.approx(wanted, rel=1e-5)
    assert (record.scale, record.skipped) == (scale, "")


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_of_activations_are_divided_by_the_scale(fused):
    (x, y), *_ = batches(1)
    found = []
    for scale in (1.0, 2.0**10):
        model = make(act=nn.Tanh)
        optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with watch(model, optimizer, every=1) as run:
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append(run)
    one, scaled = found
    for plain, other in zip(one.samples[0].layers, scaled.samples[0].layers, strict=True):
        assert other.delta_norm == pytest.approx(plain.delta_norm, rel=1e-5)
    for plain, other in zip(one.flow(1).layers, scaled.flow(1).layers, strict=True):
        assert other.gradient.norm == pytest.approx(plain.gradient.norm, rel=1e-5)
        assert other.gradient.max_abs == pytest.approx(plain.gradient.max_abs, rel=1e-5)
    for plain, other in zip(one.flow(1).parameters, scaled.flow(1).parameters, strict=True):
        assert other.grad_norm == pytest.approx(plain.grad_norm, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_leaves_out_are_recorded_as_skipped(fused):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with watch(model, optimizer, every=1) as run:
        for at, (x, y) in enumerate(batches(4)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) * (math.inf if at == 1 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            run.log(loss=loss)
    assert [record.skipped for record in run.steps] == ["", "gradient scaler", "", ""]
    assert [record.finite for record in run.steps] == [True, False, True, True]
    assert [record.scale for record in run.steps] == [8.0, 8.0, 4.0, 4.0]
    assert run.steps[1].loss == math.inf
    assert max(run.samples[1].update_norms) <= 0  # nothing moved


def test_a_scaler_that_is_off_is_none():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with watch(model, optimizer) as run:
        for x, y in batches(2):
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [record.scale for record in run.steps] == [None, None]


# --- Clipping -------------------------------------------------------------------------------------


def clip_by_hand(parameters, bound):
    parameters = list(parameters)
    size = torch.stack([p.grad.norm() for p in parameters]).norm()
    for p in parameters:
        p.grad.mul_(min(1.0, bound / float(size)))


@pytest.mark.parametrize("clip", [torch.nn.utils.clip_grad_norm_, clip_by_hand])
def test_clipping_is_seen_and_both_norms_are_kept(clip):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = []
    with watch(model, optimizer, every=1) as run:
        for bound, (x, y) in zip((0.1, 100.0, 0.2), batches(3), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            before.append(total(norms(model)))
            clip(model.parameters(), bound)
            optimizer.step()
    first, second, third = run.steps
    assert (first.clipped_from, third.clipped_from) == pytest.approx(
        (before[0], before[2]), rel=1e-5
    )
    assert (first.total_norm, third.total_norm) == pytest.approx((0.1, 0.2), rel=1e-3)
    assert second.clipped_from is None
    assert second.total_norm == pytest.approx(before[1], rel=1e-6)


def test_clipping_a_part_counts_the_rest():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer) as run:
        (x, y), *_ = batches(1)
        F.cross_entropy(model(x), y).backward()
        before = total(norms(model))
        torch.nn.utils.clip_grad_norm_(model[2].parameters(), 0.01)
        optimizer.step()
    assert run.steps[0].clipped_from == pytest.approx(before, rel=1e-5)


def test_clipping_functions_are_put_back():
    before = torch.nn.utils.clip_grad._clip_grads_with_norm_, torch.amp.GradScaler.step
    model = make()
    with watch(model, torch.optim.SGD(model.parameters(), 0.1)):
        with watch(make(), torch.optim.SGD(make().parameters(), 0.1)):
            pass
        assert torch.amp.GradScaler.step is not before[1]
    assert before == (torch.nn.utils.clip_grad._clip_grads_with_norm_, torch.amp.GradScaler.step)


# --- Which parameters -----------------------------------------------------------------------------


def test_several_optimizers_make_one_step_together():
    model = nn.ModuleDict({"generator": make(0), "critic": make(1)})
    one = torch.optim.SGD(model["generator"].parameters(), 0.1)
    two = torch.optim.Adam(model["critic"].parameters(), 0.2)
    with watch(model, [one, two], every=1) as run:
        for x, _ in batches(3):
            one.zero_grad()
            two.zero_grad()
            model["generator"](x).square().mean().backward()
            one.step()
            model["critic"](x).square().mean().backward()
            two.step()
            run.log(loss=1.0)
    assert [record.step for record in run.steps] == [1, 2, 3]
    assert all(record.rates == (0.1, 0.2) for record in run.steps)
    assert all(min(record.grad_norms) > 0 for record in run.steps)
    for sample in run.samples:
        assert {layer.name.partition(".")[0] for layer in sample.layers} == {"generator", "critic"}
        assert min(sample.update_norms) > 0
    assert [facts.optimizer for facts in run.facts.parameters] == [0] * 4 + [1] * 4
    flow = run.flow(1)
    assert [float(p.grad_norm) for p in flow.parameters] == pytest.approx(
        run.steps[0].grad_norms, rel=1e-6
    )


def test_two_steps_of_one_optimizer_are_two_steps():
    model = nn.ModuleDict({"a": make(0), "b": make(1)})
    often = torch.optim.SGD(model["a"].parameters(), 0.1)
    seldom = torch.optim.SGD(model["b"].parameters(), 0.1)
    with watch(model, (often, seldom)) as run:
        for at, (x, _) in enumerate(batches(4)):
            model["a"](x).square().mean().backward()
            often.step()
            often.zero_grad()
            if at % 2:
                model["b"](x).square().mean().backward()
                seldom.step()
                seldom.zero_grad()
    assert [bool(record.grad_norms[4] > 0) for record in run.steps] == [False, True, False, True]
    assert all(record.grad_norms[0] > 0 for record in run.steps)


def test_an_optimizer_in_the_backward_pass():
    model, plain = make(), make()
    optimizers = {p: torch.optim.SGD([p], 0.1) for p in model.parameters()}

    def act(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(act)
    reference = torch.optim.SGD(plain.parameters(), 0.1)
    wanted = []
    with watch(model, list(optimizers.values()), every=1) as run:
        for x, y in batches(4):
            F.cross_entropy(model(x), y).backward()
            reference.zero_grad()
            F.cross_entropy(plain(x), y).backward()
            wanted.append(norms(plain))
            reference.step()
    assert len(run.steps) == 4
    for record, expected in zip(run.steps, wanted, strict=True):
        assert record.grad_norms == pytest.approx(expected, rel=1e-5)
    assert all(min(sample.update_norms) > 0 for sample in run.samples)
    assert [[layer.name for layer in sample.layers] for sample in run.samples] == [
        ["0", "1", "2"]
    ] * 4
    assert all(layer.delta_norm for sample in run.samples for layer in sample.layers)


def test_groups_frozen_shared_and_loose_parameters():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)])
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    groups = [
        {"params": [model[0].weight], "lr": 0.1},
        {"params": [model[0].bias, model[1].bias, *model[3].parameters()], "lr": 0.2},
    ]
    optimizer = torch.optim.SGD(groups)
    with watch(model, optimizer, every=1) as run:
        for x, _ in batches(2):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    names = [facts.name for facts in run.facts.parameters]
    assert len(names) == 9
    assert "1.weight" not in names
    by_name = dict(zip(names, run.facts.parameters, strict=True))
    assert [by_name[n].group for n in ("0.weight", "1.bias", "4.weight")] == [0, 1, None]
    assert not by_name["2.weight"].trained
    record, sample = run.steps[-1], run.samples[-1]
    assert record.rates == (0.1, 0.2)
    gradients = dict(zip(names, record.grad_norms, strict=True))
    updates = dict(zip(names, sample.update_norms, strict=True))
    sizes = dict(zip(names, sample.weight_norms, strict=True))
    assert gradients["2.weight"] == updates["2.weight"] == ABSENT
    assert gradients["4.weight"] > 0  # nobody holds it, but it has a gradient
    assert updates["4.weight"] == 0.0
    assert updates["0.weight"] == pytest.approx(0.1 * gradients["0.weight"], rel=1e-5)
    assert sizes["2.weight"] == pytest.approx(float(model[2].weight.norm()), rel=1e-6)


def test_no_gradient_is_not_zero():
    model = nn.ModuleDict({"used": nn.Linear(4, 1), "unused": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for to_none in (True, False):
        with watch(model, optimizer) as run:
            for x, _ in batches(2):
                optimizer.zero_grad(set_to_none=to_none)
                (model["used"](x).square().mean() + 0 * model["unused"](x).sum() * to_none).sum()
                model["used"](x).square().mean().backward()
                optimizer.step()
        assert list(run.steps[-1].grad_norms[2:]) == [ABSENT, ABSENT]


def test_sparse_and_complex_gradients():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 4, sparse=True)
            self.turn = nn.Parameter(torch.ones(4, dtype=torch.complex64))

        def forward(self, x):
            return (self.table(x) * self.turn).abs().square().sum()

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, optimizer) as run:
        model(torch.tensor([1, 1, 3])).backward()
        wanted = {n: float(p.grad.to_dense().abs().norm()) for n, p in model.named_parameters()}
        optimizer.step()
    found = dict(zip([f.name for f in run.facts.parameters], run.steps[0].grad_norms, strict=True))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e25, 0.0])
def test_gradients_of_any_size_have_a_norm(size):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watch(model, optimizer) as run:
        for p in model.parameters():
            p.grad = torch.full_like(p, size)
        optimizer.step()
    wanted = [size * p.numel() ** 0.5 for p in model.parameters()]
    assert run.steps[0].grad_norms == pytest.approx(wanted, rel=1e-5)
    assert run.steps[0].finite


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_single_bad_number_is_seen(bad):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer) as run:
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        model[2].bias.grad[1] = bad
        optimizer.step()
    assert not run.steps[0].finite
    assert list(np.isfinite(run.steps[0].grad_norms)) == [True, True, True, False]


# --- Saving ---------------------------------------------------------------------------------------


def test_a_watched_model_can_be_copied_and_saved_and_holds_nothing_of_ours(tmp_path):
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    with watch(model, optimizer, every=1, skip_step_on=("non_finite",)) as run:
        for x, y in batches(3):
            loss = F.cross_entropy(model(x), y)
            copied = copy.deepcopy(model)
            stored = pickle.dumps((model, optimizer))
            torch.save(model, tmp_path / "model.pt")
            torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(run.samples) == 3
    assert b"chainrule" not in stored
    for name in ("model.pt", "state.pt"):
        assert b"chainrule" not in (tmp_path / name).read_bytes()
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks)
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert torch.equal(loaded(x), copied(x))
    assert "step" not in vars(optimizer)


def test_nothing_keeps_a_closed_run_or_its_model_alive():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer, every=1)
    for x, y in batches(3):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    run.close()
    found = weakref.ref(run)
    del run
    import gc

    gc.collect()
    assert found() is None
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(module._forward_hooks for module in model)


def test_what_no_optimizer_holds_is_not_in_the_total():
    model = make()
    head = model[2]
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    expected = []
    with watch(model, optimizer) as run:
        for x, y in batches(5):  # the body's gradients are never cleared, and grow
            F.cross_entropy(model(x), y).backward()
            expected.append(total(norms(head)))
            optimizer.step()
            optimizer.zero_grad()
    assert [record.total_norm for record in run.steps] == pytest.approx(expected, rel=1e-6)
    assert all(record.clipped_from is None for record in run.steps)


@pytest.mark.parametrize("looks_with_gradients", [False, True])
def test_a_look_between_the_backward_pass_and_the_step_changes_no_sample(looks_with_gradients):
    def train(looks):
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with watch(model, optimizer, every=1) as run:
            for x, y in batches(3):
                F.cross_entropy(model(x), y).backward()
                if looks:
                    with torch.set_grad_enabled(looks_with_gradients):
                        model(100 * x)
                optimizer.step()
                optimizer.zero_grad()
        return [sample.layers for sample in run.samples]

    assert train(looks=True) == train(looks=False)


def test_layers_added_to_the_optimizer_are_not_called_lost():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, every=1) as run:
        for step, (x, y) in enumerate(batches(30)):
            if step == 5:
                model.append(nn.Linear(3, 3))
                optimizer.add_param_group({"params": list(model[3].parameters())})
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert run.samples[-1].replaced == ()
    assert not [alarm for alarm in run.alarms if alarm.rule == "stale_optimizer"]


def test_any_single_number_can_be_logged():
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer) as run:
        ((x, y),) = batches(1)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        run.log(array=np.array(4.0), one=np.ones(1), large=10**400, true=True)
    assert run.steps[0].scalars == {"array": 4.0, "one": 1.0, "large": math.inf, "true": 1.0}
