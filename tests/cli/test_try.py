"""`chainrule inspect TARGET --try`: what was tried stands in the text, the JSON and the report."""

import json

import pytest

from chainrule import diagnose, load_flow

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

def late():
    model, _ = build()
    start, steps = model[0].weight.detach().clone(), [0]
    def compute_loss(m):
        steps[0] += not torch.equal(m[0].weight, start)
        if steps[0] > 3:
            raise ValueError("the shelf is empty")
        return draw(m)
    return model, compute_loss

def late_and_sick(calls=[0]):
    model = sick()[0]
    def count(m):
        calls[0] += 1
        if calls[0] > 150:
            raise ValueError("the shelf is empty")
        return draw(m)
    return model, count

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


@pytest.mark.parametrize("further", [(), ("--json",), ("--check",)])
def test_a_loss_that_raises_later_does_not_lose_the_inspection(run, target, further):
    code, out, err = run("inspect", target("late"), "--try", *further)
    assert code == 0
    if further == ("--json",):
        document = json.loads(out)
        assert document["diagnosis"]["verdict"] == "healthy"
        assert "trial" not in document
    else:
        assert "HEALTHY" in out
    [line] = [line for line in err.splitlines() if "ended early" in line]
    assert "ValueError: the shelf is empty" in line
    assert "step 5 of SGD" in line
    assert "SGD at a learning rate of" in line


def test_remedies_are_kept_where_a_trial_ends(run, target):
    code, out, err = run("inspect", target("late_and_sick"), "--remedies", "--try")
    assert code == 0
    assert "Remedies (" in out
    assert "the shelf is empty" in out
    assert "the shelf is empty" in err


def test_bad_arguments(run, target):
    code, _, err = run("inspect", target("wrong"))
    assert code != 0
    assert "torch.optim.Optimizer" in err
    code, _, err = run("inspect", target("build"), "--passes", 80)
    assert code != 0
    assert "--try" in err


def test_a_flow_file_keeps_what_was_tried(run, target, tmp_path):
    path = tmp_path / "flow.json"
    code, _, _ = run("inspect", target("build"), "--try", "--output", path)
    assert code == 0
    flow = load_flow(path)
    assert flow.trial is not None
    assert flow.trial.tried
    assert diagnose(flow).was_tried
