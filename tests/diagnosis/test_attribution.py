"""Which modules contribute most: factors against autograd, along chains and on residual streams."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from chainrule.diagnosis.attribution import explain_attributions, rank_attributions
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.factors import MEANINGS, SAME, _is_among
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import RULES
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.presets import PRESETS
from chainrule.spec.network_spec import NetworkSpec


def make_chain(scales, width=16):
    """A chain of linear layers that keep a gradient's size, but for those with another scale."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(12)))
    with torch.no_grad():
        for at, layer in enumerate(model):
            nn.init.orthogonal_(layer.weight, gain=scales.get(at, 1.0))
    x = torch.randn(8, width)
    return model, lambda m: m(x).square().mean()


class Block(nn.Module):
    def __init__(self, width, scale, norm):
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.0)  # off, so that its input and output receive the same
        with torch.no_grad():
            self.second.weight.mul_(scale)

    def forward(self, x):
        return x + self.second(self.dropout(torch.relu(self.first(self.norm(x)))))


class PostNorm(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.branch, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        with torch.no_grad():
            self.branch.weight.mul_(scale)

    def forward(self, x):
        return self.norm(x + self.branch(x))


def make_stream(scales, *, norm=True, kind=Block, width=16, blocks=6):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.embed = nn.Linear(width, width)
    model.blocks = nn.Sequential(
        *(
            kind(width, scales.get(at, 1.0), norm) if kind is Block else kind(width, scales[at])
            for at in range(blocks)
        )
    )
    model.head = nn.Linear(width, width)
    x = torch.randn(8, width)
    return model, lambda m: m.head(m.blocks(m.embed(x))).square().mean()


def measure_sums(model, compute_loss):
    """‖∂loss/∂output‖ of every block, by autograd and hooks of our own."""
    outputs = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: outputs.append(out))
        for block in model.blocks
    ]
    loss = compute_loss(model)
    for handle in handles:
        handle.remove()
    return [float(g.norm()) for g in torch.autograd.grad(loss, outputs)]


class TestAlongAChain:
    def test_names_the_layers_that_shrink_the_gradient_most_and_their_factors(self):
        flow = inspect(*make_chain({3: 1e-3, 7: 0.01, 9: 0.2}))
        diagnosis = diagnose(flow)
        assert diagnosis.verdict is Verdict.VANISHING
        ranked = rank_attributions(flow, diagnosis)
        assert [each.name for each in ranked] == ["3", "7", "9"]
        assert [each.layer for each in ranked] == [4, 8, 10]
        # An orthogonal matrix times s multiplies every gradient by s.
        assert [float(each.factor) for each in ranked] == pytest.approx([1e-3, 0.01, 0.2], rel=1e-4)
        logs = [3, 2, -math.log10(0.2)]
        assert [each.share for each in ranked] == pytest.approx(
            [log / sum(logs) for log in logs], rel=1e-3
        )

    def test_names_those_that_make_it_explode(self):
        flow = inspect(*make_chain({2: 50.0, 5: 400.0, 8: 0.5}))
        assert diagnose(flow).verdict is Verdict.EXPLODING
        ranked = rank_attributions(flow)
        assert [each.name for each in ranked] == ["5", "2"]
        logs = [math.log10(400), math.log10(50)]  # the share is of what goes the wrong way alone
        assert [each.share for each in ranked] == pytest.approx(
            [log / sum(logs) for log in logs], rel=1e-3
        )

    def test_counts_only_what_lies_between_the_loss_and_the_layer_concerned(self):
        """A layer's own weights do not stand in the way of their gradient."""
        model, compute_loss = make_chain({0: 1e-2, 1: 1e-6})
        flow = inspect(model, compute_loss)
        finding = diagnose(flow).findings[0]
        assert finding.layers[0] == 1
        assert "0" not in [each.name for each in rank_attributions(flow)]
        assert rank_attributions(flow)[0].name == "1"

    def test_takes_the_calls_of_one_module_together(self):
        torch.manual_seed(0)
        act = nn.Sigmoid()
        model = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
        model.act = act
        x = torch.randn(8, 16)

        def compute_loss(m):
            h = x
            for layer in list(m)[:8]:
                h = act(layer(h))
            return h.square().mean()

        flow = inspect(model, compute_loss)
        first = rank_attributions(flow)[0]
        assert (first.name, first.calls) == ("act", 8)
        gains = [float(call.gain) for call in flow.layers if call.name == "act"]
        assert float(first.factor) == pytest.approx(math.prod(gains))

    def test_keeps_every_member_of_an_ensemble(self):
        flow = simulate(PRESETS["Vanishing (Sigmoid)"].spec, 4)
        for each in rank_attributions(flow):
            assert each.kind == "Sigmoid"
            assert len(each.factor.values) == 4
            assert float(each.factor) < 0.26  # a sigmoid passes on at most a quarter


class TestOnAStream:
    def test_factors_are_steps_from_sum_to_sum(self):
        model, compute_loss = make_stream({1: 300.0, 3: 600.0}, norm=False)
        flow = inspect(model, compute_loss)
        assert {"exploding_gradient"} <= {each.rule for each in diagnose(flow).findings}
        norms = measure_sums(model, compute_loss)
        steps = {
            f"blocks.{at + 1}.second": before / after
            for at, (before, after) in enumerate(pairwise(norms))
        }
        found = {
            each.name: float(each.factor)
            for each in rank_attributions(flow, count=50)
            if each.what == "residual stream gradient"
        }
        assert {"blocks.1.second", "blocks.3.second"} <= set(found)
        for name, value in found.items():
            if name in steps:
                assert value == pytest.approx(steps[name], rel=1e-4)

    def test_a_module_that_reads_the_stream_is_not_blamed_for_all_paths(self):
        """The gain of a pre-norm's normalization holds the residual stream's gradient as well."""
        flow = inspect(*make_stream(dict.fromkeys(range(6), 1e-06)))
        assert flow.layers[1].kind == "LayerNorm"
        assert (
            flow.layers[1].gain > 1e3
        )  # as it is: the residual stream's gradient over its branch's
        model, compute_loss = make_stream(dict.fromkeys(range(6), 1e-06))
        with torch.no_grad():
            model.head.weight.mul_(1e-6)
        model.head.weight.requires_grad_(False)  # else it would grow to its usual size
        flow = inspect(model, compute_loss)
        diagnosis = diagnose(flow)
        assert diagnosis.findings[0].rule == "vanishing_typical"
        names = [each.name for each in rank_attributions(flow, diagnosis, count=100)]
        assert not any(name.endswith("norm") for name in names)
        assert sorted(names[:6]) == [f"blocks.{at}.second" for at in range(6)]

    def test_post_norm_steps_multiply_to_the_figure_that_fades(self):
        model, compute_loss = make_stream([20.0] * 6, kind=PostNorm)
        with torch.no_grad():
            for block in model.blocks:
                block.branch.weight.normal_(std=1e-3)
                block.branch.bias.normal_(std=5.0)  # makes the sum large, and passes nothing on
        flow = inspect(model, compute_loss)
        diagnosis = diagnose(flow)
        finding = next(f for f in diagnosis.findings if f.rule == "fading_stream")
        assert diagnosis.verdict is finding.verdict
        ranked = [
            b
            for b in rank_attributions(flow, diagnosis, count=100)
            if b.what == "residual stream gradient"
        ]
        assert diagnosis.findings[0].rule == "fading_stream"
        assert math.prod(float(each.factor) for each in ranked) == pytest.approx(finding.value)
        norms = measure_branch_sums(model, compute_loss)
        assert norms[0] / norms[-1] == pytest.approx(finding.value, rel=1e-4)

    def test_growing_stream_names_the_branches_that_add_most(self):
        model, compute_loss = make_stream({2: 3000.0}, norm=False)
        with torch.no_grad():
            model.head.weight.mul_(1e-3)
        flow = inspect(model, compute_loss)
        diagnosis = diagnose(flow)
        assert diagnosis.findings[0].rule == "growing_stream"
        first = rank_attributions(flow, diagnosis)[0]
        assert (first.name, first.what) == ("blocks.2.second", "stream")
        hidden = []
        handle = model.blocks[2].register_forward_hook(lambda _m, a, out: hidden.extend((*a, out)))
        compute_loss(model)
        handle.remove()
        before, after = (float(each.detach().square().mean().sqrt()) for each in hidden)
        assert float(first.factor) == pytest.approx(after / before, rel=1e-4)


def measure_branch_sums(model, compute_loss):
    """‖∂loss/∂(x + branch(x))‖ of every post-norm block: what its normalization reads."""
    inputs = []
    handles = [
        block.norm.register_forward_hook(lambda _m, a, _out: inputs.append(a[0]))
        for block in model.blocks
    ]
    loss = compute_loss(model)
    for handle in handles:
        handle.remove()
    return [float(g.norm()) for g in torch.autograd.grad(loss, inputs)]


class TestWhatElseIsWrong:
    def test_nobody_is_to_blame_for_a_healthy_network(self):
        flow = simulate(PRESETS["Healthy (ReLU + He)"].spec, 3)
        assert rank_attributions(flow) == ()
        assert explain_attributions(diagnose(flow), ()) == ""

    def test_weights_that_nothing_reaches_have_no_factor(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model.requires_grad_(False)
        flow = inspect(model, lambda m: m(torch.ones(2, 2, requires_grad=True)).sum())
        assert rank_attributions(flow) == ()
        assert "no path" in explain_attributions(diagnose(flow), ())

    def test_a_gradient_that_is_small_because_the_inputs_are_is_no_modules_fault(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        with torch.no_grad():
            model[1].weight.copy_(torch.eye(8))
        x = torch.randn(16, 8) * 1e-6
        flow = inspect(model, lambda m: m(x).square().mean())
        diagnosis = diagnose(flow)
        assert diagnosis.verdict is Verdict.INPUTS  # the cause before what it brings about
        assert "vanishing_gradient" in {each.rule for each in diagnosis.findings}
        alone = {"vanishing_gradient": RULES["vanishing_gradient"]}
        for found, rules in ((diagnosis, RULES), (diagnose(flow, rules=alone), alone)):
            assert rank_attributions(flow, found, rules=rules) == ()
            assert "No module" in explain_attributions(found, ())

    def test_units_that_are_dead_blame_their_activation(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        with torch.no_grad():
            model[2].bias.fill_(-100.0)
            model[2].bias[0] = 100.0
        x = torch.randn(8, 8)
        flow = inspect(model, lambda m: m(x).square().mean())
        assert diagnose(flow).verdict is Verdict.DEAD_UNITS
        (first,) = rank_attributions(flow)
        assert (first.name, first.what) == ("3", "dead_units")
        assert float(first.factor) == pytest.approx(1 / 8)  # one of eight units is on

    def test_a_factor_of_zero_comes_first_and_has_no_share(self):
        model, _ = make_chain({4: 0.0, 6: 0.01})
        x = torch.randn(8, 16)
        ranked = rank_attributions(inspect(model, lambda m: (m(x) - 1.0).square().mean()))
        assert (ranked[0].name, float(ranked[0].factor), ranked[0].share) == ("4", 0.0, None)

    def test_the_layer_where_the_signal_fades(self):
        model, compute_loss = make_chain({5: 1e-4})
        flow = inspect(model, compute_loss)
        finding = next(f for f in diagnose(flow).findings if f.rule == "fading_signal")
        assert finding.value == pytest.approx(1e-4, rel=0.5)

    def test_overflow_is_blamed_on_what_grew_before_it(self):
        model, compute_loss = make_chain(dict.fromkeys(range(2, 8), 10000000000.0))
        flow = inspect(model, compute_loss)
        diagnosis = diagnose(flow)
        assert diagnosis.verdict is Verdict.NON_FINITE
        ranked = rank_attributions(flow, diagnosis)
        assert ranked
        for each in ranked:
            assert float(each.factor) == pytest.approx(1e10, rel=0.5)

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_preset_gets_an_answer(self, name):
        flow = simulate(PRESETS[name].spec, 2)
        diagnosis = diagnose(flow)
        ranked = rank_attributions(flow, diagnosis)
        assert len(ranked) == (0 if diagnosis.verdict is Verdict.HEALTHY else 3)
        assert all(each.what in MEANINGS for each in ranked)
        assert bool(explain_attributions(diagnosis, ranked)) is bool(ranked)


def test_names_at_most_as_many_as_asked_for():
    flow = simulate(NetworkSpec(depth=12, width=16, activation="sigmoid"), 2)
    assert len(rank_attributions(flow)) == 3
    assert rank_attributions(flow, count=1) == rank_attributions(flow)[:1]


@pytest.mark.parametrize("share", [-1.5, -0.5, 0.0, 0.5, 1.5])
@pytest.mark.parametrize("at", range(4))
def test_norms_are_those_of_one_tensor_up_to_rounding_on_both_sides(at, share):
    others = [1e-12, 0.5, 2.0, 3e8]
    value = others[at] * (1 + share * SAME)
    assert _is_among(value, others) is (abs(share) < 1)
    assert not _is_among(value, [])
