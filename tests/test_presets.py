"""Every preset shows what its sentence says, measured."""

import pytest

from chainrule import PRESETS, NetworkSpec, diagnose, simulate
from chainrule.errors import SpecError
from chainrule.presets import get_preset

SEEDS = 16


@pytest.fixture(scope="module")
def flows():
    return {name: simulate(preset.spec, SEEDS) for name, preset in PRESETS.items()}


def test_all_named_presets_exist():
    assert list(PRESETS) == [
        "Vanishing (Sigmoid)",
        "Healthy (ReLU + He)",
        "Exploding (ReLU + random σ = 1)",
        "Vanishing (Tanh, PyTorch default)",
        "Hidden vanishing (ReLU + Xavier)",
        "Self-normalizing (SELU + LeCun)",
        "Dying ReLU",
        "Sigmoid that survives (random σ = 1)",
        "Deep and rescued (100 layers, residual)",
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_the_diagnosis_is_the_one_the_preset_is_there_to_show(flows, name):
    assert diagnose(flows[name]).verdict == PRESETS[name].verdict


@pytest.mark.parametrize("name", PRESETS)
def test_look_at_is_one_sentence_or_two(name):
    text = PRESETS[name].look_at
    assert text.endswith(".")
    assert text[:-1].count(". ") <= 1


def test_names_are_found_whatever_their_case():
    assert get_preset(" dying relu ") is PRESETS["Dying ReLU"]
    with pytest.raises(SpecError, match="Did you mean 'Dying ReLU'"):
        get_preset("dieing relu")


def test_vanishing_sigmoid(flows):
    flow = flows["Vanishing (Sigmoid)"]
    steps = [b / a for a, b in zip(flow.delta_norms[1:], flow.delta_norms[:-1], strict=True)]
    assert max(steps) < 0.25
    shrinkage = [factor.value for factor in flow.factors() if factor.role == "activation"]
    assert max(shrinkage) < 0.25
    assert 0.5e-9 < flow.gradient_ratio < 2e-9


def test_healthy(flows):
    flow = flows["Healthy (ReLU + He)"]
    assert flow.gradient_ratio.low > 1 / 3
    assert flow.gradient_ratio.high < 3


def test_exploding(flows):
    flow = flows["Exploding (ReLU + random σ = 1)"]
    layers = flow.weight_layers
    forward = (layers[-1].std / layers[0].std) ** (1 / 14)
    backward = flow.delta_ratio ** (1 / 14)
    assert min(forward, backward) > 5
    assert 0.1 < flow.gradient_ratio < 10


def test_vanishing_tanh(flows):
    flow = flows["Vanishing (Tanh, PyTorch default)"]
    per_layer = flow.delta_ratio ** (1 / 19)
    assert 0.5 < per_layer < 0.6
    assert flow.gradient_ratio.high < 1e-3


def test_hidden_vanishing(flows):
    flow = flows["Hidden vanishing (ReLU + Xavier)"]
    assert 0.3 < flow.gradient_ratio < 3
    assert max(flow.weight_gradient_norms) < 1e-4
    layers = flow.weight_layers
    assert layers[-1].std / layers[0].std < 1e-3
    assert flow.delta_ratio < 1e-3


def test_self_normalizing(flows):
    flow = flows["Self-normalizing (SELU + LeCun)"]
    assert all(0.85 < layer.std < 1.15 for layer in flow.weight_layers)
    assert 1 < flow.gradient_ratio.low < flow.gradient_ratio.high < 10


def test_dying_relu(flows):
    flow = flows["Dying ReLU"]
    wholly_dead = [
        any(layer.dead_share.values[member] == 1 for layer in flow.weight_layers)
        for member in range(SEEDS)
    ]
    zero = [norm == 0 for norm in flow.weight_gradient_norms[0].values]
    assert sum(wholly_dead) > SEEDS / 2
    assert all(z for z, dead in zip(zero, wholly_dead, strict=True) if dead)


def test_sigmoid_that_survives(flows):
    flow = flows["Sigmoid that survives (random σ = 1)"]
    assert flow.gradient_ratio > 0.1
    default = simulate(NetworkSpec(depth=10, activation="sigmoid", init="pytorch"), SEEDS)
    assert default.gradient_ratio < 1e-6


def test_deep_and_rescued(flows):
    flow = flows["Deep and rescued (100 layers, residual)"]
    assert all(0.9 < factor.value < 1.1 for factor in flow.factors())
    plain = simulate(flow.spec.replace(residual="none"), SEEDS)
    assert plain.gradient_ratio < 1e-30
