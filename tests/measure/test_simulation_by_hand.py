"""Measurements against networks written out by hand.

Nothing of chainrule is used but the drawn numbers and, for saturation, the table's derivative.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch

from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, draw_batch, make_loss
from chainrule.measure.simulation import simulate
from chainrule.spec.activations import ACTIVATIONS, SATURATION_SHARE
from chainrule.spec.network_spec import NetworkSpec

SPEC = NetworkSpec(depth=4, width=12, batch_size=9, init="he", dtype="float64")
SEEDS = (5, 0, 11)
STRUCTURES = list(
    product(("none", "plain", "scaled"), ("none", "layernorm", "batchnorm", "rmsnorm"))
)

PHI = {
    "sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "tanh": lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
    "relu": lambda z: z * (z > 0),
    "leaky_relu": lambda z: torch.where(z > 0, z, z / 100),
    "elu": lambda z: torch.where(z > 0, z, torch.exp(z) - 1),
    "selu": lambda z: (
        1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * (torch.exp(z) - 1))
    ),
    "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "identity": lambda z: z,
}


def normalize(z, spec):
    if spec.normalization == "none":
        return z
    if spec.normalization == "rmsnorm":
        return z / (z.square().mean(1, keepdim=True) + torch.finfo(z.dtype).eps).sqrt()
    axis = {"layernorm": 1, "batchnorm": 0}[spec.normalization]
    centred = z - z.mean(axis, keepdim=True)
    return centred / (centred.square().mean(axis, keepdim=True) + 1e-5).sqrt()


def differentiate(spec, seed):
    """Return weights, pre-activations φ is applied to, input and output, each with its gradient."""
    state = build_network(spec, seed).double().state_dict()
    weights = [w.requires_grad_() for w in state.values() if w.dim() == 2]
    biases = [state[name.replace("weight", "bias")] for name, w in state.items() if w.dim() == 2]
    inputs, targets = (tensor.double() for tensor in draw_batch(spec, seed))
    h, applied = inputs.requires_grad_(), []
    for weight, bias in zip(weights, biases, strict=True):
        applied.append(normalize(h @ weight.T + bias, spec))
        branch = PHI[spec.activation](applied[-1])
        scale = {"none": 1.0, "plain": 1.0, "scaled": spec.depth**-0.5}[spec.residual]
        h = scale * branch + (0 if spec.residual == "none" else h)
    loss = (h - targets).square().sum() / targets.numel()
    loss.backward(inputs=[*weights, inputs, h])
    return weights, applied, inputs, h


def norm(tensor):
    return np.sqrt(np.square(tensor.detach().numpy()).sum())


@pytest.mark.parametrize(("residual", "normalization"), STRUCTURES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weight_gradients(activation, residual, normalization):
    structure = {"residual": residual, "normalization": normalization}
    spec = SPEC.replace(activation=activation, **structure)
    flow = simulate(spec, SEEDS)
    for member, seed in enumerate(SEEDS):
        weights, *_ = differentiate(spec, seed)
        received = [quantity.values[member] for quantity in flow.weight_gradient_norms]
        assert received == pytest.approx([norm(w.grad) for w in weights], rel=1e-9, abs=0)


@pytest.mark.parametrize("fields", [{}, {"activation": "relu", "init": "he"}], ids=str)
def test_weight_gradients_of_the_classic_script(fields):
    """In float32, yet right to six digits of what float64 gives."""
    spec = NetworkSpec(depth=15, **fields)
    weights, *_ = differentiate(spec, 0)
    received = [float(quantity) for quantity in simulate(spec, 1).weight_gradient_norms]
    assert received == pytest.approx([norm(w.grad) for w in weights], rel=1e-6, abs=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_saturation_and_dead_units(activation):
    """From the table's derivative, number by number."""
    spec = SPEC.replace(activation=activation, init="random", weight_std=2.0, bias_std=3.0)
    entry, flow = ACTIVATIONS[activation], simulate(spec, SEEDS)
    calls = [call for call in flow.layers if call.role == "activation"]
    for member, seed in enumerate(SEEDS):
        _, applied, *_ = differentiate(spec, seed)
        for call, z in zip(calls, applied, strict=True):
            slopes = np.abs(np.vectorize(entry.derivative)(z.detach().numpy()))
            flat = slopes < SATURATION_SHARE * entry.derivative_max
            assert call.statistics.saturation.values[member] == pytest.approx(flat.mean())
            dead = (slopes == 0).all(axis=0).sum()
            assert call.statistics.dead_units.values[member] == dead


@pytest.mark.parametrize("measure", ["inspect", "simulate"])
@pytest.mark.parametrize(("residual", "normalization"), STRUCTURES)
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_product_of_factors_telescopes(activation, residual, normalization, measure):
    structure = {"residual": residual, "normalization": normalization}
    spec = SPEC.replace(activation=activation, **structure)
    if measure == "simulate":
        factors = simulate(spec, SEEDS).factors()
    else:
        factors = inspect(build_network(spec, SEEDS[0]), make_loss(spec, SEEDS[0])).factors()
    parts = 2 + (normalization != "none") if residual == "none" else 1
    assert [f.layer for f in factors] == [1 + at // parts for at in range(4 * parts)][::-1]
    for member in range(len(factors[0].value.values)):
        _, _, inputs, output = differentiate(spec, SEEDS[member])
        expected = norm(inputs.grad) / norm(output.grad)
        values = [factor.value.values[member] for factor in factors]
        running = [factor.running.values[member] for factor in factors]
        assert math.prod(values) == pytest.approx(expected, rel=1e-9, abs=0)
        assert running == pytest.approx(np.cumprod(values).tolist(), rel=1e-12, abs=0)
