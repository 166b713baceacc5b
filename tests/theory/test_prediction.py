"""Predictions against known values, an independent quadrature, and measurements."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import INITIALIZERS, NetworkSpec, simulate
from chainrule._utils.numbers import format_number
from chainrule.errors import ChainruleError, SpecError
from chainrule.measure.networks import run_stack, stack_networks
from chainrule.spec.activations import ACTIVATIONS
from chainrule.theory import critical_line, predict
from chainrule.theory.agreement import describe_agreement
from chainrule.theory.critical import DepthScales
from chainrule.theory.expected import Expected, find_layers_outside
from chainrule.theory.fluctuations import compute_spreads
from chainrule.theory.mean_field import compute_chi, read_setting, run_backward, run_forward
from made_flows import make_chain
from test_quadrature import PHI, average

PAIRS = [(activation, init) for activation in ACTIVATIONS for init in INITIALIZERS]


class TestKnownValues:
    @pytest.mark.parametrize(
        ("activation", "bias", "weight"),
        [("relu", 0.0, 2.0), ("tanh", 0.0, 1.0), ("tanh", 0.05, 1.76095464), ("gelu", 0.0, 4.0)],
    )
    def test_critical_weights(self, activation, bias, weight):
        point = critical_line(activation, math.sqrt(bias))
        assert point.weight_variance == pytest.approx(weight, abs=5e-9)

    def test_selu_contracts(self):
        spec = NetworkSpec(activation="selu", init="lecun", width=4096)
        scales = predict(spec.replace(depth=1)).depth_scales
        assert scales.q == pytest.approx(1.0, abs=1e-8)
        assert math.exp(-1 / scales.xi_q) == pytest.approx(0.782648, abs=5e-7)

    def test_batch_normalized_rectifiers_explode(self):
        rates = {}
        for batch in (64, 4096):
            spec = NetworkSpec(
                depth=2, activation="relu", init="he", normalization="batchnorm", batch_size=batch
            )
            rates[batch] = predict(spec).depth_scales.chi
        limit = math.pi / (math.pi - 1)
        assert rates[4096] == pytest.approx(limit, rel=1e-3)
        assert rates[4096] - limit == pytest.approx((rates[64] - limit) / 64, rel=0.2)

    @pytest.mark.parametrize("batch", [6, 16])
    def test_of_a_batch_of_mean_zero_two_examples_are_against_each_other(self, batch):
        spec = NetworkSpec(
            depth=2, activation="tanh", init="xavier", normalization="batchnorm", batch_size=batch
        )
        values = np.random.default_rng(0).normal(size=batch)
        values = (values - values.mean()) / values.std()
        products = np.outer(values, values)[~np.eye(batch, dtype=bool)]
        scales = predict(spec).depth_scales
        assert scales.correlation == pytest.approx(products.mean(), rel=1e-12)
        assert scales.xi_c is None

    @pytest.mark.parametrize(("residual", "chi"), [("plain", 2.0), ("scaled", 1.1)])
    def test_residual_connections_add_one(self, residual, chi):
        spec = NetworkSpec(depth=10, activation="relu", init="he", residual=residual)
        prediction = predict(spec)
        assert prediction.layers[4].chi == pytest.approx(chi, rel=1e-12)
        assert prediction.depth_scales is None
        assert "residual" in prediction.missing[0]

    def test_linear_layer_by_hand(self):
        width, batch = 64, 8
        spec = NetworkSpec(
            depth=1, width=width, batch_size=batch, activation="identity", init="lecun"
        )
        (layer,) = predict(spec).layers
        # 𝓛 = |h − t|²/(B·n) with h and t of variance 1.
        delta = 2 / (batch * width) * math.sqrt(2)
        assert layer.delta_norm == pytest.approx(delta * math.sqrt(batch * width), rel=1e-12)
        gradient = delta * math.sqrt(batch) * width
        assert layer.weight_gradient_norm == pytest.approx(gradient, rel=1e-12)

    def test_orthogonal_linear_network_keeps_everything(self):
        spec = NetworkSpec(depth=30, activation="identity", init="orthogonal")
        norms = predict(spec).weight_gradient_norms
        assert norms == pytest.approx([norms[0]] * 30, rel=1e-10)


@pytest.mark.parametrize(("activation", "init"), PAIRS)
def test_signals_equal_an_independent_quadrature(activation, init):
    spec = NetworkSpec(depth=3, width=200, activation=activation, init=init)
    phi, derivative = PHI[activation], ACTIVATIONS[activation].derivative
    entry = INITIALIZERS[init]
    variance = 200 * entry.variance(200, 200, 1.0)
    half = 0.0 if entry.bias_bound is None else entry.bias_bound(200)
    biases, weights = np.polynomial.legendre.leggauss(12) if half else ([0.0], [2.0])

    def expect(function, m):
        each = [average(function, math.sqrt(variance * m), shift=half * bias) for bias in biases]
        return float(np.dot(weights, each)) / 2

    m, pair = 1.0, 0.0
    for layer in predict(spec).layers[:2]:
        q = variance * m + half**2 / 3
        assert layer.q == pytest.approx(q, rel=1e-8)
        assert layer.correlation == pytest.approx((variance * pair + half**2 / 3) / q, rel=1e-8)
        chi = variance * expect(lambda z: derivative(z) ** 2, m)
        assert layer.chi == pytest.approx(chi, rel=1e-8)
        if not half:  # two examples share nothing at the first layer
            pair = expect(phi, m) ** 2
        m = expect(lambda z: phi(z) ** 2, m)
        assert layer.m == pytest.approx(m, rel=1e-8)
        if half:
            return


@settings(max_examples=15, deadline=None)
@given(
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    bias=st.floats(0.0, 2.0),
)
def test_chi_is_one_on_the_critical_line(activation, bias):
    point = critical_line(activation, bias)
    if point is None:
        return
    scale = math.sqrt(point.q)
    if point.q == 0.0:
        return
    derivative = ACTIVATIONS[activation].derivative
    chi = point.weight_variance * average(lambda z: derivative(z) ** 2, scale)
    assert chi == pytest.approx(1.0, abs=1e-8)
    m = average(lambda z: PHI[activation](z) ** 2, scale)
    assert point.weight_variance * m + bias**2 == pytest.approx(point.q, rel=1e-7)


@settings(max_examples=10, deadline=None)
@given(
    activation=st.sampled_from(["relu", "leaky_relu", "identity"]),
    size=st.floats(0.01, 0.3),
    factor=st.floats(0.5, 2.0),
)
def test_homogeneous_networks_scale_with_their_weights(activation, size, factor):
    spec = NetworkSpec(depth=3, width=64, activation=activation, init="random", weight_std=size)
    small, large = predict(spec), predict(spec.replace(weight_std=size * factor))
    for number, (one, other) in enumerate(zip(small.layers, large.layers, strict=True), start=1):
        assert other.q == pytest.approx(one.q * factor ** (2 * number), rel=1e-10)
        assert other.chi == pytest.approx(one.chi * factor**2, rel=1e-10)
        assert other.correlation == pytest.approx(one.correlation, abs=1e-12)


MEASURED = [
    {"activation": "tanh", "init": "lecun"},
    {"activation": "relu", "init": "he", "residual": "scaled"},
    {"activation": "sigmoid", "init": "pytorch"},
    {"activation": "identity", "init": "orthogonal"},
    {"activation": "gelu", "init": "he", "normalization": "layernorm"},
    {"activation": "relu", "init": "he", "normalization": "batchnorm"},
]


@pytest.mark.parametrize(
    ("normalization", "taken"), [("rmsnorm", 0.25), ("layernorm", 0.25 + 1 / (2 * math.pi))]
)
def test_a_normalized_rectifier_loses_its_size_and_with_its_mean_also_that_by_hand(
    normalization, taken
):
    """δ after the normalization is 2(h − t)φ′ ÷ Bn, of mean square E h²φ′² + E φ′² = 1.

    Its product with u has the mean E u·relu(u) = 1/2, and its own mean is E relu(u) = 1/√2π. Both
    are taken out, and z = √2·u with the weights of He.
    """
    spec = NetworkSpec(depth=1, width=64, activation="relu", init="he", normalization=normalization)
    count = spec.width * spec.batch_size
    found = float(predict(spec).layers[0].delta_norm)
    assert found == pytest.approx(2 * math.sqrt((1 - taken) / 2 / count), rel=1e-4)


def test_what_a_normalization_adds_to_the_variance_is_pytorchs():
    eps = {
        name: read_setting(NetworkSpec(normalization=name)).epsilon
        for name in ("layernorm", "batchnorm", "rmsnorm")
    }
    assert eps["layernorm"] == torch.nn.LayerNorm(4).eps
    assert eps["batchnorm"] == torch.nn.BatchNorm1d(4).eps
    assert torch.nn.RMSNorm(4).eps is None  # then it is the rounding of the inputs
    assert eps["rmsnorm"] == torch.finfo(torch.float32).eps
    double = NetworkSpec(normalization="rmsnorm", dtype="float64")
    assert read_setting(double).epsilon == torch.finfo(torch.float64).eps


@pytest.mark.parametrize("fields", MEASURED, ids=lambda fields: " ".join(fields.values()))
def test_measured_medians_are_inside_the_bands(fields):
    spec = NetworkSpec(depth=4, width=256, **fields)
    prediction, flow = predict(spec, 8), simulate(spec, 8)
    assert find_layers_outside(prediction.weight_gradient_norms, flow.weight_gradient_norms) == []
    assert find_layers_outside(prediction.delta_norms, flow.delta_norms) == []
    for layer, measured in zip(prediction.layers, flow.weight_layers, strict=True):
        band = layer.weight_gradient_norm
        assert band.high / band.low < 1.6  # a band that says something
        assert measured.delta_norm == pytest.approx(layer.delta_norm.median, rel=0.25)


def test_spread_at_the_end_of_an_orthogonal_linear_network_by_hand():
    width, batch = 64, 4
    spec = NetworkSpec(
        depth=4, width=width, batch_size=batch, activation="identity", init="orthogonal"
    )
    setting = read_setting(spec)
    forward, _ = run_forward(setting)
    last = compute_spreads(setting, forward, run_backward(setting, forward))[-1]
    # ‖Σ (Oh − t)hᵀ‖² over Gaussian h and targets t. Of one example ‖h‖² and ‖Oh − t‖² vary by
    # 2/width each, relative to their means, and their covariance is 1/width.
    alone = (2 + 2 + 2 * 1) / width / batch
    # Of two examples 2⟨h, h′⟩⟨d, d′⟩ with variances width and 4·width, over 2·width² for each.
    pairs = batch * (batch - 1) / 2 * 4 * (width * 4 * width) / (2 * width**2 * batch) ** 2
    assert last.weight_gradient == pytest.approx(alone + pairs, rel=0.01)


@pytest.mark.parametrize("residual", ["none", "plain"])
def test_spread_equals_that_of_many_networks(residual):
    spec = NetworkSpec(
        depth=4, width=64, batch_size=4, activation="relu", init="he", residual=residual
    )
    setting = read_setting(spec)
    forward, _ = run_forward(setting)
    spreads = compute_spreads(setting, forward, run_backward(setting, forward))
    count = 300
    stack = stack_networks([spec.replace(seed=seed) for seed in range(count)])
    for tensors in stack.values():
        for tensor in tensors:
            tensor.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(2, count, 4, 64, generator=generator)
    *_, (_, outputs) = run_stack(spec, stack, inputs)
    ((outputs - targets) ** 2).mean((1, 2)).sum().backward()
    for spread, weight in zip(spreads, stack["weight", "weight"], strict=True):
        measured = weight.grad.pow(2).sum((1, 2)).log().var().item()
        assert 0.6 * measured < spread.weight_gradient < 1.4 * measured


class TestWhatTheoryLeavesOut:
    def test_depth_too_large_for_the_width(self):
        prediction = predict(NetworkSpec(depth=60, width=16, activation="relu", init="he"))
        assert prediction.weight_gradient_norms[0] is None
        assert prediction.layers[0].q == pytest.approx(2.0)
        assert any("too large for the width" in each for each in prediction.missing)

    def test_small_batches_of_batch_normalization(self):
        prediction = predict(NetworkSpec(depth=2, normalization="batchnorm", batch_size=4))
        assert prediction.layers[0].q is None
        assert any("at least 6" in each and "4" in each for each in prediction.missing)

    def test_numbers_that_float32_cannot_hold(self):
        spec = NetworkSpec(depth=60, width=256, activation="sigmoid")
        assert any("float32" in each for each in predict(spec).missing)

    def test_small_numbers_that_float32_can_hold_are_said(self):
        spec = NetworkSpec(
            depth=5, width=256, activation="identity", init="random", weight_std=1e-6 / 16
        )
        narrow, wide = (predict(spec.replace(dtype=dtype)) for dtype in ("float32", "float64"))
        assert 1e-31 < wide.weight_gradient_norms[0] < 1e-22
        assert narrow.weight_gradient_norms == wide.weight_gradient_norms
        assert narrow.missing == ()

    def test_dead_start(self):
        spec = NetworkSpec(depth=2, activation="tanh", init="random", weight_std=0.0)
        prediction = predict(spec)
        assert prediction.layers[0].q is None
        assert any("exactly 0" in each for each in prediction.missing)

    def test_signals_beyond_every_number_end_there(self):
        spec = NetworkSpec(depth=1000, activation="relu", init="random", weight_std=1e6)
        prediction = predict(spec)
        assert prediction.layers[0].q is not None
        assert prediction.layers[-1].q is None

    @pytest.mark.parametrize("seeds", [0, -1, 2.0, True])
    def test_ensembles_have_whole_numbers_of_networks(self, seeds):
        with pytest.raises(SpecError, match="seeds"):
            predict(NetworkSpec(), seeds)

    def test_critical_line_of_rectifiers_needs_biases_of_zero(self):
        assert critical_line("relu", 0.1) is None
        with pytest.raises(SpecError, match="bias_std"):
            critical_line("relu", math.nan)
        with pytest.raises(SpecError, match="relux"):
            critical_line("relux")


class TestWrongKinds:
    @pytest.mark.parametrize("spec", [None, {"depth": 3}, "x"])
    def test_a_specification_must_be_one(self, spec):
        with pytest.raises(SpecError, match=r"spec: .*NetworkSpec; got"):
            predict(spec)

    @pytest.mark.parametrize(
        ("given", "name"),
        [((None,), "activation"), (("tanh", "0.1"), "bias_std"), (("tanh", True), "bias_std"),
         (([],), "activation"), (("tanh", None), "bias_std")],
    )  # fmt: skip
    def test_the_critical_line_needs_a_name_and_a_number(self, given, name):
        with pytest.raises(SpecError, match=f"{name}: must be .*; got"):
            critical_line(*given)

    @pytest.mark.parametrize("measure", ["foo", None, []])
    def test_bands_are_of_a_known_measure(self, measure):
        with pytest.raises(SpecError, match="measure: must be 'weight' or 'delta'; got"):
            predict(NetworkSpec(depth=2)).list_bands(measure)


class TestDepthScales:
    def test_reach_in_words(self):
        spec = NetworkSpec(depth=1, activation="tanh", init="random", width=100, weight_std=0.095)
        scales = predict(spec).depth_scales
        assert scales.chi == pytest.approx(0.9025, rel=1e-8)
        assert scales.reach == pytest.approx(-1 / math.log(0.9025), rel=1e-6)
        assert "about 10 layers far" in predict(spec).sentence

    @pytest.mark.parametrize(
        ("grad", "correlation", "chi", "cause", "change"),
        [
            (5.0, 9.0, 1.2, "the gradient's square", "grows"),
            (5.0, 9.0, 0.8, "the gradient's square", "shrinks"),
            (5.0, None, 1.2, "the gradient's square", "grows"),
            (5.0, 5.0, 1.2, "the gradient's square", "grows"),
            (9.0, 5.0, 1.2, "what tells examples apart", "shrinks"),
            (9.0, 5.0, 0.8, "what tells examples apart", "shrinks"),
        ],
    )
    def test_the_shorter_depth_names_what_goes_which_way(
        self, grad, correlation, chi, cause, change
    ):
        scales = DepthScales(
            xi_q=3.0, xi_c=correlation, xi_grad=grad, chi=chi, q=1.0, correlation=0.5
        )
        assert scales.reach == 5.0
        assert all(part in scales.sentence for part in ("about 5 layers", f"{cause} {change}"))
        assert "(30)" in scales.sentence  # six times as deep

    def test_critical_start_has_no_scale(self):
        prediction = predict(NetworkSpec(depth=1, activation="relu", init="he"))
        assert prediction.depth_scales.reach == math.inf
        assert "critical line" in prediction.sentence

    def test_fixed_correlation_of_a_chaotic_start(self):
        spec = NetworkSpec(depth=60, width=256, activation="tanh", init="random", weight_std=0.15)
        spec = spec.replace(bias_std=0.3)
        prediction = predict(spec)
        scales = prediction.depth_scales
        assert scales.chi > 1.0
        assert prediction.layers[-1].correlation == pytest.approx(scales.correlation, rel=1e-4)
        assert prediction.layers[-1].q == pytest.approx(scales.q, rel=1e-9)

    def test_chi_is_what_a_layer_does_to_an_independent_gradient(self):
        setting = read_setting(NetworkSpec(depth=8, activation="tanh", init="he"))
        layers, _ = run_forward(setting)
        steps = run_backward(setting, layers)
        # Far from the loss, the part along the signal has faded.
        ratio = steps[0].inward
        assert ratio == pytest.approx(compute_chi(setting, layers[0]), rel=1e-3)


@pytest.mark.parametrize(("seeds", "square"), [(2, 1 / 2), (3, math.pi / 6), (9, math.pi / 18)])
def test_bands_reach_as_far_as_a_median_of_so_many_varies(seeds, square):
    # The median of two is their mean; of more, it varies by π/2 more than a mean.
    spec = NetworkSpec(depth=2, width=4096, activation="tanh", init="xavier", bias_std=0.5)

    def measure(seeds):
        value = predict(spec, seeds).layers[-1].correlation
        assert value.median - value.low == pytest.approx(value.high - value.median)
        return value.high - value.median

    assert measure(seeds) ** 2 == pytest.approx(square * measure(1) ** 2, rel=1e-6)


class TestAgreement:
    def test_words_name_both_numbers_and_the_count(self):
        spec = NetworkSpec(depth=3, width=128, activation="tanh", init="xavier")
        words = predict(spec, 8).describe_agreement(simulate(spec, 8))
        assert words.startswith("Layer 1: measured ")
        assert "all 3 layers" in words

    @pytest.mark.parametrize("measure", ["weight", "delta"])
    def test_words_are_of_the_measure_that_is_asked_for(self, measure):
        spec = NetworkSpec(depth=3, width=128, activation="tanh", init="xavier")
        flow, prediction = simulate(spec, 8), predict(spec, 8)
        measured, theory = (
            each.delta_norms[0] if measure == "delta" else each.weight_gradient_norms[0]
            for each in (flow, prediction)
        )
        numbers = f"{format_number(measured)}, theory {format_number(theory.median)} "
        said = prediction.describe_agreement(flow, measure)
        assert said.startswith(f"Layer 1: measured {numbers}")

    def test_parting_is_explained(self):
        spec = NetworkSpec(depth=3, width=128, activation="tanh", init="xavier")
        other = simulate(spec.replace(init="he"), 8)
        assert "part in 3 of 3 layers" in predict(spec, 8).describe_agreement(other)

    @pytest.mark.parametrize(
        ("width", "measured", "normalization", "words"),
        [
            (63, 2.0, "none", "63 units are few"),
            (64, 2.0, "none", "second order in depth/width"),
            (64, 2.0, "batchnorm", "with batch normalization"),
            (63, 0.0, "none", "zero or not finite"),
        ],
    )
    def test_reasons_for_parting(self, width, measured, normalization, words):
        spec = NetworkSpec(depth=1, width=width, normalization=normalization)
        flow = make_chain([measured], spec=spec)
        text = describe_agreement([Expected(1.0, 1.0, 0.9, 1.1)], flow)
        assert "part in 1 of the one layer" in text
        assert words in text

    @pytest.mark.parametrize(
        ("measured", "farthest"),
        [([1.5, 0.1, 3.0], 2), ([1.5, 0.5, 3.0], 3), ([0.5, 0.9, 0.2], 3), ([1.0, 0.7, 1.0], 2)],
    )
    def test_the_layer_farthest_from_its_band_on_either_side_is_shown(self, measured, farthest):
        flow = make_chain(measured, spec=NetworkSpec(depth=3, width=64))
        text = describe_agreement([Expected(1.0, 1.0, 0.8, 1.25)] * 3, flow)
        value = measured[farthest - 1]
        assert text.startswith(f"Layer {farthest}: measured {value:g}, theory 1 (0.8 to 1.25).")
        count = sum(not 0.8 <= each <= 1.25 for each in measured)
        assert f"part in {count} of 3 layers" in text

    def test_other_number_of_layers_is_an_error(self):
        with pytest.raises(ChainruleError, match="3 for 2"):
            predict(NetworkSpec(depth=3)).describe_agreement(simulate(NetworkSpec(depth=2), 1))

    def test_values_are_floats_with_bands_that_survive_pickling(self):
        value = predict(NetworkSpec(depth=2)).layers[0].weight_gradient_norm
        copy = pickle.loads(pickle.dumps(value))
        assert (copy, copy.low, copy.median, copy.high) == (
            value,
            value.low,
            value.median,
            value.high,
        )
        assert value.low < value.median < value.high
        assert not value.contains(math.nan)
