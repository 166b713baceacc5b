"""`chainrule inspect TARGET --try`: what was tried stands in the text, the JSON and the report."""

import json

import pytest

TARGET = """
import torch
from torch import nn
from torch.nn import functional as F

def draw(model):
    x = torch.randn(64, 16)
    return F.cross_entropy(model(x), x[:, :4].argmax(1))

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), draw

def sick():
    torch.manual_seed(0)
    layers = [part for _ in range(14) for part in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(16, 4)), draw

def own():
    model, compute_loss = build()
    return model, compute_loss, torch.optim.SGD(model.parameters(), 0.5, momentum=0.5)

def wrong():
    return *build(), 0.1
"""


@pytest.fixture
def target(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(TARGET)
    return lambda name: f"{file}:{name}"


def test_a_model_that_trains(run, target, tmp_path):
    report = tmp_path / "report.html"
    code, out, _ = run("inspect", target("build"), "--try", "--report", report)
    assert code == 0
    assert "HEALTHY" in out
    assert "SGD: trained" in out
    assert "Adam: trained" in out
    assert "→" in out.split("SGD: trained")[1]
    assert "SGD: trained" in report.read_text()


def test_a_model_that_does_not(run, target):
    code, out, _ = run("inspect", target("sick"), "--try", "--passes", 120, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["trial"]["trains"] is False
    assert document["trial"]["passes"] <= 120
    assert [each["name"] for each in document["trial"]["optimizers"]] == ["SGD", "Adam"]
    rules = {finding["rule"] for finding in document["diagnosis"]["findings"]}
    assert "did_not_train" in rules


def test_the_optimizer_of_the_target(run, target):
    _, out, _ = run("inspect", target("own"), "--try", "--json")
    document = json.loads(out)
    [optimizer] = document["trial"]["optimizers"]
    assert (optimizer["name"], optimizer["best_rate"]) == ("SGD", 0.5)
    assert document["flow"]["optimizer"]["rates"] == [0.5] * 4


def test_bad_arguments(run, target):
    code, _, err = run("inspect", target("wrong"))
    assert code != 0
    assert "torch.optim.Optimizer" in err
    code, _, err = run("inspect", target("build"), "--passes", 80)
    assert code != 0
    assert "--try" in err
