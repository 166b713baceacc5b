"""Residual connections in a measurement, against sums written out by hand."""

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import chainrule
from chainrule.diagnosis.rules import measure_metric
from chainrule.diagnosis.structure import list_normalizations
from chainrule.flow.loading import decode_flow
from model_zoo import MODELS
from sick_models import VARIANTS, Residual, residuals
from zoo import Lambda, draw


def size(tensor):
    return tensor.detach().double().square().mean().sqrt().item()


@pytest.mark.parametrize("style", ["before", "after", "none"])
def test_by_hand(style):
    torch.manual_seed(1)
    make = [nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6)) for _ in range(3)]
    norms = [nn.LayerNorm(6) for _ in range(3)]
    parts = {f"branch{i}": part for i, part in enumerate(make)}
    parts |= {f"norm{i}": norm for i, norm in enumerate(norms)} if style != "none" else {}

    def run(m, x):
        h = m.first(x)
        sums, streams = [], []
        for i in range(3):
            branch, norm = getattr(m, f"branch{i}"), getattr(m, f"norm{i}", None)
            streams.append(h)
            total = h + branch(norm(h) if style == "before" else h)
            sums.append(total)
            h = norm(total) if style == "after" else total
        run.sums, run.streams = sums, streams
        return m.head(h)

    model = Lambda(run, first=nn.Linear(4, 6), **parts, head=nn.Linear(6, 2)).double()
    x = draw(10, 4)
    flow = chainrule.inspect(model, lambda m: m(x).square().mean())
    loss = model(x).square().mean()
    gradients = torch.autograd.grad(loss, run.sums)
    assert [each.normalization for each in flow.residuals] == [style] * 3
    assert {each.stream for each in flow.residuals} == {0}
    for i, each in enumerate(flow.residuals):
        assert flow.layers[each.branch].name == f"branch{i}.2"
        assert each.before == pytest.approx(size(run.streams[i]))
        assert each.added == pytest.approx(size(run.sums[i] - run.streams[i]))
        assert each.after == pytest.approx(size(run.sums[i]))
        assert each.gradient == pytest.approx(gradients[i].norm().item())
        assert each.share == pytest.approx(each.added / each.before)
    assert decode_flow(flow.to_json()) == flow


def test_sums_that_are_no_residual_connections():
    """Neither term is computed from the other."""
    model = Lambda(
        lambda m, x: m.head(m.left(x) + m.right(x)),
        left=nn.Linear(4, 6), right=nn.Linear(4, 6), head=nn.Linear(6, 1),
    )  # fmt: skip
    x = draw(5, 4, dtype=torch.float32, grad=True)
    assert chainrule.inspect(model, lambda m: m(x).sum()).residuals == ()


SUMS = {
    "viewed": lambda x, h: (x.reshape(-1, 8) + h.reshape(-1, 8)).view(x.shape),
    "branch viewed": lambda x, h: x + h.reshape(-1, 8).view(x.shape),
    "transposed": lambda x, h: (x.transpose(0, 1) + h.transpose(0, 1)).transpose(0, 1),
    "permuted": lambda x, h: (x.permute(2, 0, 1) + h.permute(2, 0, 1)).permute(1, 2, 0),
    "expanded": lambda x, h: (x + h).unsqueeze(0).expand(1, -1, -1, -1).squeeze(0),
    "contiguous": lambda x, h: (x.mT + h.mT).contiguous().mT,
    "cloned": lambda x, h: (x + h).clone(),
    "in half precision": lambda x, h: (x.bfloat16() + h.bfloat16()).float(),
    "in place": lambda x, h: h.add_(x),
    "stacked": lambda x, h: torch.stack([x, h]).sum(0),
    "interpolated": lambda x, h: torch.lerp(x, h, 0.5),
    "interpolated by a gate": lambda x, h: torch.lerp(x, h, torch.full((8,), 0.3)),
    "interpolated by a learned gate": lambda x, h: torch.lerp(
        x, h, torch.full((8,), 0.3, requires_grad=True)
    ),
    "scaled": lambda x, h: torch.add(x, h, alpha=0.3),
}
NO_SUMS = {
    "multiplied in place": lambda x, h: h.mul_(x),
    "added to a part in place": lambda x, h: add_to_part(torch.cat([h, h], 1), x),
    "stacked, summed along another dimension": lambda x, h: torch.stack([x, h]).sum(1),
    "overwritten": lambda x, h: h.copy_(x),
}


def add_to_part(longer, x):
    longer[:, : x.shape[1]].add_(x)
    return longer


def add_up(add):
    """Three blocks after a first layer, whose branches a function adds."""
    torch.manual_seed(0)

    def run(m, x):
        h = m.first(x)
        for i in range(3):
            h = add(h, getattr(m, f"branch{i}")(m.read(h)))
        return m.head(h)

    branches = {f"branch{i}": nn.Linear(8, 8) for i in range(3)}
    model = Lambda(run, first=nn.Linear(8, 8), **branches, read=nn.Tanh(), head=nn.Linear(8, 2))
    return chainrule.inspect(model, lambda m: m(draw(4, 5, 8, dtype=torch.float32)).sum())


@pytest.mark.parametrize("name", SUMS)
def test_however_a_sum_is_written(name):
    flow = add_up(SUMS[name])
    assert [flow.layers[each.branch].name for each in flow.residuals] == [
        f"branch{i}" for i in range(3)
    ]
    assert {each.stream for each in flow.residuals} == {0}
    assert all(each.before is not None for each in flow.residuals)
    for i, each in enumerate(flow.residuals):
        names = {flow.parameters[position].name for position in each.parameters}
        assert names == {f"branch{i}.weight", f"branch{i}.bias"}
    assert decode_flow(flow.to_json()) == flow


@pytest.mark.parametrize("name", NO_SUMS)
def test_other_operations_are_no_sums(name):
    assert add_up(NO_SUMS[name]).residuals == ()


def encode(depth, cut):
    """A deep encoder of sigmoids, drawn from by `cut`, and a decoder."""
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    model = Lambda(
        lambda m, x: m.decode(cut(m, m.encode(x))),
        encode=nn.Sequential(*layers, nn.Linear(32, 16)),
        decode=nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32)),
    )
    x = draw(32, 32, dtype=torch.float32)
    return chainrule.inspect(model, lambda m: (m(x) - x).square().mean())


@pytest.mark.parametrize("cut", ["chunk", "split", "unbind"])
def test_two_outputs_of_one_operation_are_not_made_from_each_other(cut):
    def sample(_, hidden):
        if cut == "unbind":
            mean, spread = hidden.unflatten(1, (2, 8)).unbind(1)
        else:
            mean, spread = getattr(hidden, cut)(2 if cut == "chunk" else 8, 1)
        return mean + torch.randn_like(mean) * (spread / 2).exp()

    flow = encode(4, sample)
    assert flow.residuals == ()
    assert chainrule.diagnose(flow).verdict == "vanishing"


def test_streams_are_numbered_one_after_another():
    """A layer between two streams begins the next one, however many sums came before."""
    torch.manual_seed(0)

    def run(m, x):
        h = m.first(x)
        for i in range(2):
            h = h + getattr(m, f"branch{i}")(m.read(h))
        h = m.between(h)
        for i in range(2, 4):
            h = h + getattr(m, f"branch{i}")(m.read(h))
        return m.head(h)

    branches = {f"branch{i}": nn.Linear(6, 6) for i in range(4)}
    parts = {"first": nn.Linear(4, 6), "between": nn.Linear(6, 6), "head": nn.Linear(6, 1)}
    parts["read"] = nn.Tanh()
    x = draw(5, 4, dtype=torch.float32)
    flow = chainrule.inspect(Lambda(run, **branches, **parts), lambda m: m(x).sum())
    assert [each.stream for each in flow.residuals] == [0, 0, 1, 1]


@pytest.mark.parametrize("gate_first", [False, True])
def test_a_branch_may_read_both_outputs_of_one_operation(gate_first):
    """a + f(a) · g(b), where a and b are two halves: the other half hides no way to the first."""

    def run(m, x):
        kept, other = m.first(x).chunk(2, -1)
        value, gate = m.value(kept), m.gate(other).sigmoid()
        return m.head(kept + (gate * value if gate_first else value * gate))

    torch.manual_seed(0)
    model = Lambda(
        run, first=nn.Linear(4, 12), value=nn.Linear(6, 6), gate=nn.Linear(6, 6),
        head=nn.Linear(6, 1),
    )  # fmt: skip
    x = draw(5, 4, dtype=torch.float32)
    flow = chainrule.inspect(model, lambda m: m(x).sum())
    (residual,) = flow.residuals
    names = {flow.parameters[position].name for position in residual.parameters}
    assert names >= {"value.weight", "value.bias", "gate.weight", "gate.bias"}
    kept = model.first(x).chunk(2, -1)[0]
    added = model.value(kept) * model.gate(model.first(x).chunk(2, -1)[1]).sigmoid()
    assert residual.after == pytest.approx(size(kept + added))


def test_a_short_skip_does_not_excuse_the_layers_outside_of_it():
    flow = encode(5, lambda m, hidden: (h := hidden[:, :8]) + h * torch.sigmoid(h))
    assert len(flow.residuals) == 1
    finding = chainrule.diagnose(flow).findings[0]
    assert finding.rule == "vanishing_gradient"
    assert {1, 2, 3} <= set(finding.layers)
    assert measure_metric(flow, finding.rule) == finding.value


def test_a_real_model_that_reshapes_its_sums():
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, ffn_dim=64,
        word_embed_proj_dim=32, max_position_embeddings=32,
    )  # fmt: skip
    ids = torch.randint(0, 40, (4, 12))
    flow = chainrule.inspect(OPTForCausalLM(config), lambda m: m(input_ids=ids, labels=ids).loss)
    assert [each.normalization for each in flow.residuals] == ["before"] * 8
    assert {each.stream for each in flow.residuals} == {0}
    assert chainrule.diagnose(flow).verdict == "healthy"


@pytest.mark.parametrize(
    ("name", "styles", "streams"),
    [
        ("gpt2", ["before"] * 8, 1),
        ("bert", ["after"] * 8, 1),
        ("t5", ["before"] * 15, 2),
        ("whisper", ["before"] * 10, 2),
        ("mixtral", ["before"] * 4, 1),
        ("mamba", ["before"] * 3, 1),
        ("transformer_pre_norm", ["before"] * 10, 2),
        ("transformer_post_norm", ["after"] * 10, 2),
        (
            "resnet",
            ["none"] * 2,
            2,
        ),  # a block that changes the shape starts another residual stream
        ("lstm", [], 0),
        ("unet", [], 0),
    ],
)
def test_found_in_real_architectures(name, styles, streams):
    model, compute_loss = MODELS[name]()
    flow = chainrule.inspect(model, compute_loss)
    assert [each.normalization for each in flow.residuals] == styles
    assert len({each.stream for each in flow.residuals}) == streams


def test_findings_speak_of_the_stream():
    flow = chainrule.inspect(*VARIANTS["residual 30, he"]())
    findings = {finding.rule: finding for finding in chainrule.diagnose(flow).findings}
    growth = flow.residuals[-1].after / flow.residuals[0].before
    assert findings["growing_stream"].value == pytest.approx(growth)
    assert "vanishing_backward" not in findings


def test_branches_that_wait_are_no_fault_but_dead_ones_are():
    model, compute_loss = residuals(4, zero=True)
    assert chainrule.diagnose(chainrule.inspect(model, compute_loss)).verdict == "healthy"
    for block in model[:-1]:
        nn.init.constant_(block.branch[0].bias, -100.0)
    assert chainrule.diagnose(chainrule.inspect(model, compute_loss)).verdict == "dead units"


def test_a_checkpointed_block_has_no_sum_to_see_but_runs():
    block = Residual(nn.Linear(4, 4))
    model = Lambda(
        lambda m, x: m.head(torch.utils.checkpoint.checkpoint(m.block, x, use_reentrant=True)),
        block=block, head=nn.Linear(4, 1),
    )  # fmt: skip
    x = draw(5, 4, dtype=torch.float32, grad=True)
    assert chainrule.inspect(model, lambda m: m(x).sum()).residuals == ()


# --- Normalization -------------------------------------------------------------------------------


def normalized():
    """A normalization with a scale of 3, and one with a scale of zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2), nn.LayerNorm(2)
    )
    with torch.no_grad():
        model[1].weight.fill_(3.0)
        model[4].weight.zero_()  # no figure: its output is its bias
    x = torch.randn(16, 8)
    return model, lambda m: (m(x) - 1).square().mean()


def test_the_spread_of_a_normalization_is_before_its_scale():
    model, compute_loss = normalized()
    (place,) = list_normalizations(chainrule.inspect(model, compute_loss))
    assert (place.name, place.layer) == ("1", 1)
    assert place.value == pytest.approx(1.0, rel=1e-3)


def test_a_normalization_without_a_scale_counts_as_having_one():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8, bias=False), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 2)
    )
    with torch.no_grad():
        model[0].weight.mul_(1e-2)
    x = torch.randn(16, 8)
    flow = chainrule.inspect(model, lambda m: m(x).square().mean())
    (place,) = list_normalizations(flow)
    assert place.name == "1"
    assert place.value == pytest.approx(size(model[:2](x)), rel=1e-5)
    assert 0.1 < place.value < 0.9


def test_a_starved_normalization_is_named():
    """Inputs this small leave the layer before it without a gradient that moves it, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))
    x = 1e-5 * torch.randn(16, 8)
    flow = chainrule.inspect(model, lambda m: (m(x) - 1).square().mean())
    (place,) = list_normalizations(flow)
    z = flow.layers[0].statistics.std
    assert place.value == pytest.approx(z / (z**2 + 1e-5) ** 0.5, rel=0.2)
    (finding,) = (f for f in chainrule.diagnose(flow).findings if f.rule == "starved_normalization")
    assert finding.modules == ("1",)
    assert measure_metric(flow, "starved_normalization") == finding.value == place.value
