"""From a specification to plain PyTorch: structure, draws, loss, names."""

from itertools import product

import pytest
import torch
from torch import nn

from chainrule.errors import SpecError
from chainrule.measure.networks import (
    ResidualBlock,
    build_network,
    draw_batch,
    make_loss,
    name_modules,
)
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

NORMALIZATIONS = {
    "none": None,
    "layernorm": nn.LayerNorm,
    "batchnorm": nn.BatchNorm1d,
    "rmsnorm": nn.RMSNorm,
}
COMBINATIONS = list(product(("none", "plain", "scaled"), NORMALIZATIONS))
SMALL = NetworkSpec(depth=3, width=4, batch_size=5)


def read_state(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def are_equal(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


@pytest.fixture(autouse=True)
def _leave_the_global_generator_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


class TestStructure:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_plain_network_alternates_linear_and_activation(self, activation):
        model = build_network(SMALL.replace(activation=activation))
        module = getattr(nn, ACTIVATIONS[activation].module)
        assert type(model) is nn.Sequential
        assert [type(part) for part in model] == [nn.Linear, module] * 3
        assert all(part.weight.shape == (4, 4) and part.bias.shape == (4,) for part in model[::2])

    @pytest.mark.parametrize("normalization", ["layernorm", "batchnorm", "rmsnorm"])
    def test_normalization_sits_between_linear_and_activation(self, normalization):
        model = build_network(SMALL.replace(normalization=normalization, activation="relu"))
        between = NORMALIZATIONS[normalization]
        assert [type(part) for part in model] == [nn.Linear, between, nn.ReLU] * 3
        assert all(part.weight.eq(1).all() and part.weight.shape == (4,) for part in model[1::3])

    @pytest.mark.parametrize(("residual", "scale"), [("plain", 1.0), ("scaled", 3**-0.5)])
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_residual_network_adds_each_branch_to_its_input(self, residual, scale, normalization):
        spec = SMALL.replace(residual=residual, normalization=normalization, activation="tanh")
        model = build_network(spec)
        assert [type(block) for block in model] == [ResidualBlock] * 3
        h = draw_batch(spec)[0]
        for block in model:
            parts = list(block.children())
            kinds = [nn.Linear, NORMALIZATIONS[normalization], nn.Tanh]
            assert [type(part) for part in parts] == [kind for kind in kinds if kind]
            branch = h
            for part in parts:
                branch = part(branch)
            torch.testing.assert_close(block(h), h + scale * branch)
            h = block(h)
        assert f"scale={scale:.4g}" in repr(model)

    @pytest.mark.parametrize(("residual", "normalization"), COMBINATIONS)
    @pytest.mark.parametrize("activation", ["gelu", "leaky_relu"])
    def test_names_are_those_of_the_built_network(self, residual, normalization, activation):
        """Names, classes and their order, read from hooks as the modules finish."""
        spec = SMALL.replace(residual=residual, normalization=normalization, activation=activation)
        model = build_network(spec)
        ran = []
        for name, module in model.named_modules():
            if module is not model:
                module.register_forward_hook(
                    lambda module, *_, name=name: ran.append((name, type(module).__name__))
                )
        model(draw_batch(spec)[0])
        named = list(name_modules(spec))
        assert [(each.name, each.kind) for each in named] == ran

        roles = {
            "Linear": "weight",
            "ResidualBlock": "residual",
            **dict.fromkeys(("LayerNorm", "BatchNorm1d", "RMSNorm"), "normalization"),
        }
        assert [each.role for each in named] == [roles.get(kind, "activation") for _, kind in ran]
        per_layer = len(named) // 3
        assert [each.layer for each in named] == [1 + at // per_layer for at in range(len(ran))]
        for each in named:
            around = each.name.rpartition(".")[0]
            assert (named[each.parent].name if each.parent is not None else "") == around


class TestDraws:
    @pytest.mark.parametrize("init", INITIALIZERS)
    def test_one_seed_is_one_network(self, init):
        spec = SMALL.replace(init=init, bias_std=0.1)
        model = build_network(spec, 7)
        assert are_equal(read_state(model), read_state(build_network(spec, 7)))
        assert are_equal(read_state(model), read_state(build_network(spec.replace(seed=7))))
        other = read_state(build_network(spec, 8))
        assert not any(map(torch.equal, read_state(model), other))

    def test_layers_of_one_network_differ(self):
        weights = [part.weight for part in build_network(SMALL)[::2]]
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])

    def test_a_deeper_network_begins_with_the_same_layers(self):
        shallow, deep = build_network(SMALL), build_network(SMALL.replace(depth=5))
        assert are_equal(read_state(shallow), read_state(deep)[:6])

    @pytest.mark.parametrize("init", INITIALIZERS)
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_float64_is_the_same_draw_as_float32(self, init, normalization):
        spec = SMALL.replace(init=init, normalization=normalization)
        single = build_network(spec)
        double = build_network(spec.replace(dtype="float64"))
        assert {parameter.dtype for parameter in single.parameters()} == {torch.float32}
        assert {parameter.dtype for parameter in double.parameters()} == {torch.float64}
        assert are_equal(read_state(single.double()), read_state(double))

    def test_draws_do_not_depend_on_the_default_dtype(self):
        expected = read_state(build_network(SMALL))
        torch.set_default_dtype(torch.float64)
        try:
            received = read_state(build_network(SMALL))
        finally:
            torch.set_default_dtype(torch.float32)
        assert are_equal(received, expected)

    def test_draws_do_not_depend_on_the_default_device(self):
        """As set in many notebooks: networks and batches start on the CPU all the same."""
        spec = SMALL.replace(normalization="layernorm")
        expected = [*read_state(build_network(spec)), *draw_batch(spec)]
        with torch.device("meta"):
            received = [*read_state(build_network(spec)), *draw_batch(spec)]
        assert {str(tensor.device) for tensor in received} == {"cpu"}
        assert are_equal(received, expected)

    @pytest.mark.parametrize("seed", [-1, 2**31])
    def test_a_seed_that_cannot_be_is_an_error(self, seed):
        for function in (build_network, draw_batch, make_loss):
            with pytest.raises(SpecError, match=f"seed: must be .* got {seed}"):
                function(SMALL, seed)


class TestBatch:
    def test_is_standard_normal(self):
        inputs, targets = draw_batch(NetworkSpec(width=400, batch_size=500))
        for tensor in (inputs, targets):
            assert tensor.shape == (500, 400)
            assert tensor.mean().item() == pytest.approx(0.0, abs=0.01)
            assert tensor.std().item() == pytest.approx(1.0, abs=0.01)
        assert not torch.equal(inputs, targets)

    def test_belongs_to_its_seed_in_either_precision(self):
        single = draw_batch(SMALL, 3)
        double = draw_batch(SMALL.replace(seed=3, dtype="float64"))
        assert [tensor.dtype for tensor in double] == [torch.float64] * 2
        assert are_equal([tensor.double() for tensor in single], double)
        assert not any(map(torch.equal, single, draw_batch(SMALL, 4)))

    def test_is_drawn_apart_from_the_weights(self):
        """Weights and inputs of one seed must not be the same random numbers."""
        spec = NetworkSpec(width=8, batch_size=8, init="random")
        weight = build_network(spec)[0].weight
        assert not torch.isclose(weight, draw_batch(spec)[0]).any()


class TestLoss:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_is_the_mean_squared_error_on_the_batch(self, dtype):
        spec = SMALL.replace(dtype=dtype)
        model = build_network(spec, 2)
        inputs, targets = draw_batch(spec, 2)
        expected = sum((model(inputs) - targets).square().flatten()) / targets.numel()
        torch.testing.assert_close(make_loss(spec, 2)(model), expected)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_the_input_scale_multiplies_the_inputs_alone(self, dtype):
        plain, scaled = SMALL.replace(dtype=dtype), SMALL.replace(dtype=dtype, input_scale=2.5)
        (inputs, targets), (larger, same) = draw_batch(plain, 2), draw_batch(scaled, 2)
        torch.testing.assert_close(larger, 2.5 * inputs)
        assert torch.equal(same, targets)
        assert torch.equal(larger.float(), draw_batch(scaled.replace(dtype="float32"), 2)[0])

    def test_is_reproducible(self):
        model = build_network(SMALL)
        loss = make_loss(SMALL, 5)
        assert loss(model).item() == loss(model).item() == make_loss(SMALL, 5)(model).item()
        assert loss(model).item() != make_loss(SMALL, 6)(model).item()
        assert make_loss(SMALL)(model).item() == make_loss(SMALL, 0)(model).item()

    def test_reaches_its_inputs(self):
        seen = []
        model = build_network(SMALL)
        model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        (gradient,) = torch.autograd.grad(make_loss(SMALL)(model), seen)
        assert gradient.norm() > 0
