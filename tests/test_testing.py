"""`chainrule.testing`: what your tests say when gradient flow breaks."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import chainrule
from chainrule._utils.numbers import format_number
from chainrule.diagnosis.limits import Limits
from chainrule.testing import assert_healthy
from sick_models import VARIANTS, plain
from traces import unchanged


def sound():
    torch.manual_seed(0)
    return plain(4, nn.ReLU, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"))


def test_a_sound_model_passes_and_is_left_alone():
    model, compute_loss = sound()
    with unchanged(model):
        flow = assert_healthy(model, compute_loss)
    assert flow.to_json() == chainrule.inspect(model, compute_loss).to_json()


def test_the_message_names_layer_value_bound_and_remedy():
    model, compute_loss = VARIANTS["plain 30, relu"]()
    with unchanged(model), pytest.raises(AssertionError) as caught:
        assert_healthy(model, compute_loss)
    lines = str(caught.value).splitlines()
    assert "vanishing" in lines[0]
    finding = chainrule.diagnose(chainrule.inspect(model, compute_loss)).findings[0]
    value, bound = format_number(finding.value), format_number(finding.threshold)
    assert any(all(fact in line for fact in ("'2'", "28", value, f"≥ {bound}")) for line in lines)
    remedy = chainrule.find_remedies(model, compute_loss, enough=1)[0]
    facts = ("Remedy", remedy.title, value, remedy.comparison.after_text, remedy.verdict_after)
    assert all(fact in lines[-2] for fact in facts)
    assert "chainrule.apply_remedy(chainrule.find_remedies(" in lines[-1]


def test_the_layer_of_the_worst_value_comes_first():
    """Which one that is, plain autograd says."""
    model, compute_loss = VARIANTS["plain 30, relu"]()
    weights = {name: p for name, p in model.named_parameters() if p.dim() == 2}
    gradients = torch.autograd.grad(compute_loss(model), list(weights.values()))
    norms = {name: g.norm().item() for name, g in zip(weights, gradients, strict=True)}
    worst = min(norms, key=norms.get).removesuffix(".weight")
    assert worst != "0"
    with pytest.raises(AssertionError, match=rf"\n  '{worst}' and 28 more: ‖∂𝓛/∂W‖ ÷"):
        assert_healthy(model, compute_loss, remedies=False)


class WithUnused(nn.Module):
    def __init__(self, used):
        super().__init__()
        self.used, self.unused = used, nn.Linear(3, 3)

    def forward(self, x):
        return self.used(x)


def test_allowed_unreached_weights_do_not_hide_the_remedy():
    used, compute_loss = VARIANTS["plain 30, relu"]()
    model = WithUnused(used)
    with unchanged(model), pytest.raises(AssertionError) as caught:
        assert_healthy(model, compute_loss, allow=["unreached"])
    lines = str(caught.value).splitlines()
    assert "vanishing" in lines[0]
    assert "Remedy: Initialization by what follows each layer" in lines[-2]
    assert "healthy" in lines[-2]
    assert "unused" not in str(caught.value)
    chainrule.apply_remedy(chainrule.find_remedies(model, compute_loss)[0], model)
    assert_healthy(model, compute_loss)  # what the loss does not use is a note
    assert_healthy(model, compute_loss, allow=["unreached"])


def test_a_limit_alone_brings_no_advice_on_learning_rates():
    model, compute_loss = sound()
    with pytest.raises(AssertionError) as caught:
        assert_healthy(model, compute_loss, min_gradient=50.0)
    assert "earning rate" not in str(caught.value)
    assert "Train it" not in str(caught.value)
    assert "Remedy" not in str(caught.value)
    assert "limit" in str(caught.value).splitlines()[-1]


def test_the_remedy_of_the_message_makes_the_test_pass():
    model, compute_loss = VARIANTS["plain 30, relu"]()
    chainrule.apply_remedy(chainrule.find_remedies(model, compute_loss)[0], model)
    assert_healthy(model, compute_loss)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_gradient": 50.0}, "must be ≥ 50"),
        ({"max_gradient": 1e-3}, "must be ≤ 0.001"),
        ({"max_ratio": 1.01}, "the ratio of their ‖∂𝓛/∂W‖ is"),
    ],
)
def test_your_limits(limits, message):
    model, compute_loss = sound()
    with pytest.raises(AssertionError, match=message):
        assert_healthy(model, compute_loss, remedies=False, **limits)


def test_your_limit_replaces_the_bound():
    model, compute_loss = VARIANTS["plain 8, relu"]()
    allow = ["vanishing_backward", "same_answer"]
    with pytest.raises(AssertionError) as caught:
        assert_healthy(model, compute_loss, allow=allow, remedies=False)
    assert "must be ≥ 0.003" in str(caught.value)
    assert_healthy(model, compute_loss, min_gradient=1e-4, allow=allow)
    with pytest.raises(AssertionError):
        assert_healthy(model, compute_loss, min_gradient=1e-4, remedies=False)


def test_advice_where_there_is_no_remedy():
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    with pytest.raises(AssertionError, match="the whole model"):
        assert_healthy(model, lambda m: x.clone().requires_grad_().sum())


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_illegal_limits(value):
    with pytest.raises(chainrule.ChainruleError, match="max_ratio must be zero or positive"):
        Limits(max_ratio=value)


def test_unknown_rules():
    model, compute_loss = sound()
    with pytest.raises(chainrule.ChainruleError, match=r"allow: unknown rule 'dead'.*'dead_units'"):
        assert_healthy(model, compute_loss, allow=["dead"])


def test_it_is_not_loaded_with_the_package():
    code = "import sys, chainrule; assert 'chainrule.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_another_project(tmp_path):
    """The failure shows the message, and none of chainrule's own lines."""
    (tmp_path / "test_model.py").write_text(
        "import torch\nfrom torch import nn\nfrom chainrule.testing import assert_healthy\n"
        "def test_flow():\n"
        "    torch.manual_seed(0)\n"
        "    parts = (p for _ in range(12) for p in (nn.Linear(8, 8), nn.Sigmoid()))\n"
        "    model, x = nn.Sequential(*parts), torch.randn(16, 8)\n"
        "    assert_healthy(model, lambda m: m(x).square().mean())\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "(diagnosis: vanishing)" in done.stdout
    assert "testing.py" not in done.stdout.replace("chainrule.testing", "")
