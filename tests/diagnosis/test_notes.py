"""Notes: what is reported of attention and residual streams, and that the verdict stays."""

import dataclasses
import io
import json
import math
import re
import statistics

import pytest
import torch
from rich.console import Console
from torch import nn

import chainrule
from chainrule import report
from chainrule.app.routes.model_page import describe_model
from chainrule.diagnosis import notes
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.display import export
from chainrule.display.terminal import print_flow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import AttentionFlow
from model_zoo import MODELS
from sick_models import VARIANTS


def measure(name):
    model, compute_loss = {**MODELS, **VARIANTS}[name]()
    return chainrule.inspect(model, compute_loss)


def note(name, flow):
    (found,) = [each for each in notes.list_notes(flow) if each.name == name]
    return found


def names(flow):
    return [each.name for each in notes.list_notes(flow)]


def attend(entropy, name="block.0.attn", call=0):
    return AttentionFlow(
        name=name,
        call=call,
        heads=4,
        queries=9,
        keys=9,
        entropy=Quantity([entropy]),
        one_hot=Quantity([float(entropy < 0.05)]),
        uniform=Quantity([float(entropy > 0.95)]),
    )


@pytest.fixture(scope="module")
def gpt2():
    return measure("gpt2")


def with_attention(flow, *entropies):
    found = tuple(attend(each, f"block.{i}.attn") for i, each in enumerate(entropies))
    return dataclasses.replace(flow, attentions=found)


# --- Attention -----------------------------------------------------------------------------------


def test_uniform_attention(gpt2):
    found = note("uniform_attention", gpt2)
    assert found.value == min(each.entropy for each in gpt2.attentions)
    assert found.modules == tuple(f"transformer.h.{i}.attn" for i in range(4))
    assert "in 4 of 4 computations: its relative entropy is at least 0.999 there" in found.evidence
    assert "uniform_attention" not in names(with_attention(gpt2, 0.99, 0.94))
    assert "uniform_attention" in names(with_attention(gpt2, 0.99, 0.94, 0.951))


def test_one_hot_attention(gpt2):
    flow = with_attention(gpt2, 0.5, 0.049, 0.012, 0.05)
    found = note("one_hot_attention", flow)
    assert found.value == 0.012
    assert found.modules == ("block.1.attn", "block.2.attn")
    assert found.evidence.startswith("attention is nearly one-hot in 2 of 4 computations")
    assert "0.012 at 'block.2.attn'" in found.evidence
    assert "one_hot_attention" not in names(with_attention(gpt2, 0.051, math.nan))


def test_one_hot_attention_for_real():
    model, compute_loss = MODELS["gpt2"]()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, :64] *= 300
    flow = chainrule.inspect(model, compute_loss)
    assert len(note("one_hot_attention", flow).modules) == 4
    assert diagnose(flow).verdict == "healthy"


@pytest.mark.parametrize("name", ["gpt2 ×20", "encoder 40, post-norm ×3", "residual 30, he"])
def test_the_verdict_stays_as_it_is(name, monkeypatch):
    flow = measure(name)
    told = diagnose(flow)
    assert told.notes
    monkeypatch.setattr("chainrule.diagnosis.diagnosis.list_notes", lambda flow: ())
    assert diagnose(flow) == dataclasses.replace(told, notes=())


# --- Branches and residual streams ---------------------------------------------------------------


def test_large_branches():
    flow = measure("gpt2 ×20")
    shares = [each.added / each.before for each in flow.residuals]
    found = note("large_branch", flow)
    assert found.value == pytest.approx(max(shares))
    assert found.evidence.startswith(f"{sum(s > 2 for s in shares)} of 8 branches add more than 2")
    assert found.modules == ("transformer.h.0.attn.c_proj",)


def test_tiny_branches():
    flow = measure("gpt2 ÷20")
    shares = [each.added / each.before for each in flow.residuals]
    found = note("tiny_branch", flow)
    assert found.value == pytest.approx(statistics.median(shares))
    assert found.value < 0.01
    waiting = measure("gpt2, zero branches")
    assert note("tiny_branch", waiting).evidence == "the branches add nothing yet"
    assert diagnose(waiting).verdict == "healthy"


def test_growing_pre_norm():
    flow = measure("encoder 18, pre-norm")
    stream = flow.residuals
    found = note("growing_pre_norm", flow)
    assert found.value == pytest.approx(stream[-1].after / stream[0].before)
    shares = [each.added / each.before for each in stream]
    first, second = (statistics.median(half) for half in (shares[:18], shares[18:]))
    assert first > second
    assert f"factor of {found.value:.3g} over its 36 sums" in found.evidence
    assert f"adds {first:.3g} times its size in the first half" in found.evidence
    assert f"{second:.3g} times in the second" in found.evidence
    ratio = stream[0].gradient / stream[-1].gradient
    assert f"gradient at the first sum is {ratio:.3g} times that at the last" in found.evidence
    assert "fading_post_norm" not in names(flow)


def test_fading_post_norm():
    flow = measure("encoder 18, post-norm")
    found = note("fading_post_norm", flow)
    assert found.value == pytest.approx(flow.residuals[0].gradient / flow.residuals[-1].gradient)
    assert found.value < 0.5
    assert f"is {found.value:.3g} times that at the last" in found.evidence
    assert "growing_pre_norm" not in names(flow)
    assert diagnose(flow).verdict == "healthy"


def test_what_a_finding_says_is_not_said_again():
    """Where the fading is so strong that it is a finding, the note would only repeat it."""
    told = diagnose(measure("encoder 40, post-norm ×3"))
    assert "fading_stream" in {finding.rule for finding in told.findings}
    assert "fading_post_norm" not in {each.name for each in told.notes}


@pytest.mark.parametrize("name", ["lstm", "unet", "plain 30, sigmoid"])
def test_nothing_to_tell(name):
    assert notes.list_notes(measure(name)) == ()


def test_the_table_is_complete():
    for key, each in notes.OBSERVATIONS.items():
        assert key == each.name
        assert each.beyond in "<>"
        assert each.meaning.endswith(".")
        assert each.source
    with pytest.raises(TypeError):
        notes.OBSERVATIONS["new"] = each
    with pytest.raises(dataclasses.FrozenInstanceError):
        note("uniform_attention", measure("gpt2")).value = 0.0


# --- Where they are shown ------------------------------------------------------------------------


def show(flow, **options):
    console = Console(file=io.StringIO(), width=100)
    print_flow(console, flow, diagnose(flow), **options)
    return console.file.getvalue()


def test_in_the_terminal(gpt2):
    text = show(gpt2)
    assert "4 computations of attention, relative entropy 1 (0 is one-hot, 1 is uniform)." in text
    assert "Worth knowing: attention is nearly uniform in 4 of 4" in text
    assert "queries × keys" not in text
    assert "transformer.h.3.attn" in show(gpt2, everything=True).partition("queries × keys")[2]
    mixed = with_attention(gpt2, 0.5, 0.54)
    assert "relative entropy 0.5 to 0.54" in show(mixed)
    assert "block.1.attn" not in show(mixed)
    everything = show(mixed, everything=True)
    assert re.search(r"^block\.1\.attn +4 +9 × 9 +0\.54 +0 % +0 %$", everything, re.MULTILINE)
    assert "undefined in some" in show(with_attention(gpt2, 0.5, math.nan))
    assert "attention" not in show(measure("lstm"))


def test_in_the_report(gpt2):
    page = report.build_report(gpt2)
    assert "<summary>Attention (4) <span" in page
    assert "4 computations of attention, relative entropy 1 (" in page
    assert "transformer.h.2.attn" in page
    assert "Worth knowing" in page
    assert "nearly uniform in 4 of 4" in page
    plain = report.build_report(measure("lstm"))
    assert "Attention" not in plain
    assert "Worth knowing" not in plain


def test_on_the_page(gpt2):
    answer = describe_model(gpt2)
    assert [row[0] for row in answer["attention"]["rows"]] == [a.name for a in gpt2.attentions]
    assert answer["attention"]["note"].startswith("4 computations of attention")
    assert answer["notes"][0]["evidence"].startswith("Attention is nearly uniform")
    json.dumps(answer)
    plain = describe_model(measure("lstm"))
    assert plain["attention"] is None
    assert plain["notes"] == []


def test_in_the_summary(gpt2):
    summary = json.loads(export.to_summary_json(gpt2))
    assert summary["attentions"][1]["module"] == "transformer.h.1.attn"
    assert summary["attentions"][1]["entropy"] == float(gpt2.attentions[1].entropy)
    assert summary["notes"][0]["modules"] == [a.name for a in gpt2.attentions]


def test_several_computations_in_one_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attn(self.attn(x, x, x)[0], x, x)[0]

    x = torch.randn(3, 5, 8)
    flow = chainrule.inspect(Twice(), lambda m: m(x).sum())
    assert "attn (call 2)" in show(flow, everything=True)


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_blocks_whose_branches_are_added_together(blocks):
    """As in GPT-J and Falcon: x + attention(n) + mlp(n); no share of a single branch is known."""

    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            h = self.norm(x)
            return self.first(h) + self.second(h) + x

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), *(Parallel() for _ in range(blocks)), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight.mul_(0.01)
        model[0].bias.zero_()
    x = torch.randn(12, 8)
    diagnosis = diagnose(chainrule.inspect(model, lambda m: m(x).square().mean()))
    assert diagnosis.verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("layers", "first", "noted"), [(12, False, True), (11, False, False), (12, True, False)]
)
def test_a_deep_post_norm_stack_is_noted(layers, first, noted):
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=first)
    model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    x, y = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    flow = chainrule.inspect(model, lambda m: (m(x) - y).square().mean())
    found = [each for each in diagnose(flow).notes if each.name == "deep_post_norm"]
    assert bool(found) is noted
    if noted:
        assert 23 <= found[0].value <= 24
        assert len(found[0].modules) == found[0].value
