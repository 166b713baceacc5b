"""The product of measured gains: its symbols, its numbers, what it says where there are none."""

import itertools
import math

import pytest
import torch

import chainrule
from chainrule import NetworkSpec, build_network, make_loss, simulate
from chainrule.chain import (
    ScalarChain,
    count_stable_layers,
    describe_product,
    draw_graph,
    find_best_weights,
    find_stable_weights,
    measure_depth,
    measure_product,
)
from chainrule.errors import SpecError

SIGMOID = NetworkSpec(depth=3, width=8, activation="sigmoid", init="xavier")


def read_symbols(spec: NetworkSpec) -> list[str]:
    return [factor["symbol"] for factor in describe_product(measure(spec))["factors"]]


def measure(spec: NetworkSpec, seeds: int = 2):
    return measure_product(simulate(spec, seeds))


def test_gains_are_ratios_of_gradients_that_autograd_gives():
    """Against plain autograd on the same network, none of the library's measurement."""
    model = build_network(SIGMOID, seed=0)
    compute_loss = make_loss(SIGMOID, seed=0)
    tensors: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: tensors.append(output))
        for module in model
    ]
    inputs: list[torch.Tensor] = []

    def keep(_module, args):
        inputs.append(args[0].requires_grad_())

    hooks.append(model[0].register_forward_pre_hook(keep))
    loss = compute_loss(model)
    gradients = torch.autograd.grad(loss, [*inputs, *tensors])
    for hook in hooks:
        hook.remove()
    norms = [gradient.norm().item() for gradient in gradients]
    expected = [before / after for before, after in itertools.pairwise(norms)][::-1]
    product = measure(SIGMOID, 1)
    assert [float(factor.exact) for factor in product.factors] == pytest.approx(expected, rel=1e-4)
    assert float(product.value) == pytest.approx(norms[0] / norms[-1], rel=1e-4)
    assert float(product.output_norm) == pytest.approx(norms[-1], rel=1e-4)


def test_neighbouring_norms_cancel():
    for spec in (
        SIGMOID,
        SIGMOID.replace(normalization="layernorm"),
        SIGMOID.replace(residual="scaled"),
    ):
        pairs = [symbol.split("/∂", 1)[1] for symbol in read_symbols(spec)]
        halves = [pair.split("‖/‖∂𝓛/∂") for pair in pairs]
        assert [above for above, _ in halves[:-1]] == [below.rstrip("‖") for _, below in halves[1:]]
        assert halves[0][1] == "h₃‖"
        assert halves[-1][0] == "x"


def test_symbols_by_role():
    assert read_symbols(SIGMOID)[:2] == ["‖∂𝓛/∂z₃‖/‖∂𝓛/∂h₃‖", "‖∂𝓛/∂h₂‖/‖∂𝓛/∂z₃‖"]
    names = [f["id"] for f in describe_product(measure(SIGMOID))["factors"]]
    assert names == ["phi-3", "W-3", "phi-2", "W-2", "phi-1", "W-1"]
    normalized = measure(SIGMOID.replace(normalization="rmsnorm"))
    assert [factor.id for factor in normalized.factors][:3] == ["phi-3", "norm-3", "W-3"]
    blocks = measure(SIGMOID.replace(residual="plain"))
    assert [factor.id for factor in blocks.factors] == ["block-3", "block-2", "block-1"]
    assert blocks.check is None


def test_product_is_exact_and_says_so():
    product = measure(NetworkSpec(depth=15, activation="sigmoid", init="xavier"), 8)
    total = math.fsum(math.log(float(factor.exact)) for factor in product.factors)
    assert math.log(float(product.value)) == pytest.approx(total, rel=1e-12)
    assert product.check.endswith("the same.")
    assert "g(φ₁)" in product.extremes
    sizes = [float(factor.exact) for factor in product.factors]
    assert f"≈ {min(sizes):.3g} " in product.extremes
    assert f"≈ {max(sizes):.3g} " in product.extremes


def test_zero_and_undefined_are_shown_as_such():
    spec = NetworkSpec(depth=3, width=8, activation="tanh", init="random", weight_std=0.0)
    document = describe_product(measure(spec))
    texts = [factor["value"]["text"] for factor in document["factors"]]
    assert texts == ["1", "0", "undefined", "undefined", "undefined", "undefined"]
    assert [f["running_product"]["text"] for f in document["factors"]] == ["1", *["0"] * 5]
    assert document["gradient"]["text"] == "0"
    assert "no gradient arrives here" in document["factors"][2]["sentence"]
    assert document["check"] is None
    assert document["summary"].startswith("All 6 factors multiply to 0:")


def test_what_overflows_is_called_no_number():
    spec = NetworkSpec(depth=40, width=8, activation="identity", init="random", weight_std=1000.0)
    document = describe_product(measure(spec))
    assert document["gradient"]["text"] == "undefined"
    assert "not a finite number" in document["summary"]
    assert "undefined" in document["lines"][-1]["text"]


def test_document_folds_and_unfolds():
    document = describe_product(measure(NetworkSpec(depth=100, width=4)))
    line = document["lines"][2]
    assert line["folds"]
    assert line["mathml"].count('class="factor"') == 6
    assert line["unfolded"]["mathml"].count('class="factor"') == 200
    assert document["latex"].startswith("\\begin{aligned}")
    assert r"\lVert\partial\mathcal{L}/\partial x\rVert" in document["latex"]


def test_graph_of_one_row_is_as_long_as_its_layers():
    chain = ScalarChain(1.0, [1.0] * 20)
    folded = draw_graph(chain)
    whole = draw_graph(chain, max_layers=20, one_row=True)
    assert folded.count('class="node weight') == 6
    assert whole.count('class="node weight') == 20
    assert "fold" not in whole.partition("</style>")[2]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "identity", "relu"])
def test_stable_layers_agree_with_the_measured_curve(activation, negative):
    for size, layers in count_stable_layers(activation, depth=12, negative=negative)[::37]:
        curve = measure_depth(-size if negative else size, activation, depth=12)
        inside = [abs(product.log10) <= 1 for product in curve.products]
        assert layers == (inside.index(False) if False in inside else 12)


def test_best_weights_shrink_towards_the_threshold():
    assert find_best_weights("sigmoid", 1) == pytest.approx((0.4, 40.0))
    assert find_best_weights("sigmoid", 50) == find_stable_weights("sigmoid").best
    with pytest.raises(SpecError, match="depth: must be a whole number"):
        find_best_weights("sigmoid", 0)
    with pytest.raises(SpecError, match="depth: must be a whole number"):
        count_stable_layers("sigmoid", depth=-1)
    assert chainrule.chain.find_best_weights is find_best_weights
