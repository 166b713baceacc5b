"""A flow file keeps what was tried: it comes back as it was, and the verdict follows it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from chainrule import diagnose, inspect
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import FlowFileError
from chainrule.flow.loading import decode_flow
from chainrule.flow.trial import OptimizerTrial, RateTrial, TrialOutcome
from chainrule.report import build_report
from made_flows import make_trial


def make_flow(outcome=TrialOutcome.FLAT, after=2.0, failed_at=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    rate = RateTrial(
        rate=0.1,
        steps=80,
        before=2.0,
        after=after,
        learned=math.nan,
        outcome=outcome,
        failed_at=failed_at,
    )
    tried = OptimizerTrial(name="SGD", rates=(rate,))
    trial = make_trial(tried, passes=120.5, notes=("Fewer passes.",))
    return replace(inspect(model, lambda m: nn.functional.cross_entropy(m(x), y)), trial=trial)


@pytest.mark.parametrize("after", [1.5, math.inf, math.nan])
def test_it_comes_back_as_it_was(after):
    flow = make_flow(TrialOutcome.NON_FINITE, after, failed_at=3)
    back = decode_flow(flow.to_json())
    assert back == flow
    assert hash(back.trial) == hash(flow.trial)
    assert back != replace(flow, trial=None)
    other = replace(flow.trial.optimizers[0].rates[0], steps=81)
    assert other != flow.trial.optimizers[0].rates[0]


def test_the_verdict_and_the_report_follow_it():
    flow = decode_flow(make_flow().to_json())
    assert diagnose(flow).verdict is Verdict.HARD_TO_TRAIN
    assert diagnose(flow).was_tried
    assert diagnose(replace(flow, trial=None)).verdict is Verdict.HEALTHY
    better = make_flow(TrialOutcome.TRAINED, 0.1).trial
    assert diagnose(flow, trial=better).verdict is Verdict.HEALTHY
    assert "SGD: flat" in build_report(flow)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("passes",), "many", "trial.passes"),
        (("passes",), -1, "trial.passes"),
        (("fresh",), 1, "trial.fresh"),
        (("notes",), ["a" * 3000], r"trial.notes.0"),
        (("optimizers", 0, "name"), "a" * 3000, r"trial.optimizers.0.name"),
        (("optimizers", 0, "rates", 0, "outcome"), "fine", r"rates.0.outcome"),
        (("optimizers", 0, "rates", 0, "after"), "2.0", r"rates.0.after"),
        (("optimizers", 0, "rates", 0, "stopped"), 0, r"rates.0.stopped"),
        (("optimizers", 0, "rates", 0, "outcome"), "non-finite", r"rates.0.failed_at"),
        (("optimizers", 0, "rates", 0, "more"), 1, r"rates.0.more"),
    ],
)
def test_a_damaged_one_is_refused(path, value, place):
    document = json.loads(make_flow().to_json())
    parent = document["trial"]
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with pytest.raises(FlowFileError, match=place):
        decode_flow(json.dumps(document))
