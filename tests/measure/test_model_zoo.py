"""Models as people have them: right numbers, right verdicts, and nothing left behind."""

import logging
import math

import pytest
import torch

import chainrule
from chainrule import Verdict
from model_zoo import MODELS
from reference import measure_plainly
from sick_models import VARIANTS
from test_zoo import assert_same_flow, measure
from traces import unchanged


@pytest.fixture(autouse=True)
def _quiet_and_seeded():
    """Silence the notes of transformers on missing fused kernels and on token numbers."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_plain_autograd(name):
    model, compute_loss = MODELS[name]()
    model = model.double()
    reference = measure_plainly(model, compute_loss)
    assert_same_flow(measure(model, compute_loss), reference, model)


@pytest.mark.parametrize("name", MODELS)
def test_healthy_and_nothing_changed(name):
    """All of these train, with plain SGD too (see `benchmarks/models.py`)."""
    model, compute_loss = MODELS[name]()
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.diagnosis.verdict is Verdict.HEALTHY, found.diagnosis.summary
    assert not found.tried
    assert [advice for advice in found.advice if "learning rate" in advice.title]


HEALTHY = Verdict.HEALTHY
VERDICTS = {
    "plain 30, sigmoid": Verdict.VANISHING,
    "plain 30, tanh": Verdict.VANISHING,
    "plain 30, tanh, xavier": HEALTHY,
    "plain 30, relu": Verdict.VANISHING,
    "plain 30, relu, he": HEALTHY,
    "plain 8, relu": Verdict.VANISHING,
    "plain 4, relu, biases −10": Verdict.DEAD_UNITS,
    "convolutions 20, relu": Verdict.VANISHING,
    "convolutions 20, relu, batch norm": HEALTHY,
    "convolutions 8, sigmoid": Verdict.VANISHING,
    "convolutions 4, relu": Verdict.SIGNAL_COLLAPSE,
    "residual 30": HEALTHY,
    "residual 30, he": Verdict.EXPLODING,
    "residual 30, he ×3": Verdict.EXPLODING,
    "residual 30, zero branches": HEALTHY,
    "resnet 16 blocks": HEALTHY,
    "resnet, zero branches": HEALTHY,
    "encoder 6, post-norm": HEALTHY,
    "encoder 18, post-norm": HEALTHY,
    "encoder 40, post-norm ×3": Verdict.VANISHING,
    "encoder 18, pre-norm": HEALTHY,
    "translator 6, post-norm": HEALTHY,
    "translator 6, pre-norm": HEALTHY,
    "rnn, 10 steps": Verdict.VANISHING,
    "rnn, 100 steps": Verdict.VANISHING,
    "rnn, 20 steps, recurrent ×4": HEALTHY,
    "lstm, 60 steps": Verdict.VANISHING,
    "gru, 60 steps": Verdict.VANISHING,
    "gpt2 ×20": HEALTHY,
    "gpt2 ÷20": HEALTHY,
    "gpt2 ÷1000": Verdict.VANISHING,
    "gpt2 16 layers": HEALTHY,
    "gpt2, zero branches": HEALTHY,
    "bert ÷20": Verdict.VANISHING,
    "bert ×20": HEALTHY,
    "vit ×20": HEALTHY,
    "llama ×20": HEALTHY,
}
"""As short real trainings with plain SGD have it (see `benchmarks/models.py`)."""


def test_every_variant_has_a_verdict():
    assert VERDICTS.keys() == VARIANTS.keys()


@pytest.mark.parametrize("name", VARIANTS)
def test_verdict(name):
    model, compute_loss = VARIANTS[name]()
    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute_loss))
    assert diagnosis.verdict is VERDICTS[name], diagnosis.summary


@pytest.mark.parametrize("name", [name for name, v in VERDICTS.items() if v is not HEALTHY])
def test_remedies_of_the_sick(name):
    """Every remedy, applied, gives exactly the flow that was promised; nothing else changes."""
    build = VARIANTS[name]
    model, compute_loss = build()
    steps = []
    with unchanged(model):
        found = chainrule.find_remedies(
            model, compute_loss, progress=lambda done, planned: steps.append((done, planned))
        )
    assert found.tried
    assert found.advice
    assert len(found) >= 1
    assert steps[-1][0] == steps[-1][1] <= 12
    assert all(done <= planned for done, planned in steps)
    for remedy in (found[0], *found.refuted[:1]):
        model, compute_loss = build()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        state = torch.get_rng_state()
        flow = chainrule.apply_remedy(remedy, model, compute_loss)
        assert torch.equal(torch.get_rng_state(), state)
        assert flow.to_json() == remedy.after.to_json()
        edited = {edit.parameter for edit in remedy.edits}
        for key, parameter in model.named_parameters():
            assert key in edited or torch.equal(parameter, before[key])


def train(model, compute_loss, kind, rate, steps=60):
    """Train; return the last loss, infinite where it left the numbers."""
    model.train()
    optimizer = kind(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
    return loss.item() if math.isfinite(loss.item()) else math.inf


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [
        ("plain 30, relu", torch.optim.Adam, 3e-3),
        ("plain 4, relu, biases −10", torch.optim.Adam, 3e-3),
        ("convolutions 4, relu", torch.optim.Adam, 3e-3),
        ("residual 30, he", torch.optim.SGD, 1e-2),
    ],
)
def test_a_cured_model_trains_where_the_sick_one_did_not(name, kind, rate):
    sick, compute_loss = VARIANTS[name]()
    remedy = chainrule.find_remedies(sick, compute_loss)[0]
    assert remedy.is_good
    stuck = train(sick, compute_loss, kind, rate)
    cured, compute_loss = VARIANTS[name]()
    chainrule.apply_remedy(remedy, cured)
    reached = train(cured, compute_loss, kind, rate)
    assert reached < 0.7 * stuck
    assert math.isfinite(reached)
