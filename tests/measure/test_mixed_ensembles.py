"""Ensembles in which some members overflow and others do not are right member by member.

Where sums overflow, the order of their terms decides between infinite and undefined, and it differs
between one network and several. So the weights are drawn without signs here: nothing cancels, and
every entry has one right value.
"""

import math
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.measure import networks
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, make_loss
from chainrule.measure.simulation import simulate
from chainrule.measure.statistics import (
    count_bins,
    summarize_derivative,
    summarize_distribution,
    summarize_gradients,
)
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.network_spec import NetworkSpec

MEMBERS = 5
"""An odd number, so that a median is the value of a member."""

STATISTICS = ("mean", "std", "min", "max", "zero_share", "non_finite", "variation", "saturation")
GRADIENT = ("norm", "max_abs", "zero_share", "non_finite")
PARAMETER = ("norm", "non_finite", "grad_norm", "grad_zero_share", "grad_non_finite")


@contextmanager
def weights_without_signs():
    draw = networks.initialize

    def initialize(weight, bias, spec, generator):
        draw(weight, bias, spec, generator)
        weight.abs_()
        bias.abs_()

    with mock.patch.object(networks, "initialize", initialize):
        yield


def list_quantities(flow):
    """Return {what: (a Quantity or None, another one that it is relative to)}."""
    found = {("loss",): (flow.loss, None)}
    for number, call in enumerate(flow.layers):
        for name in (*STATISTICS, "dead_units"):
            found[number, name] = getattr(call.statistics, name), call.statistics.max
        for name in GRADIENT:
            found[number, "gradient", name] = getattr(call.gradient, name), None
        found[number, "gain"] = call.gain, None
    for part in flow.parameters:
        for name in PARAMETER:
            found[part.name, name] = getattr(part, name), None
    return found


def assert_members_are_those_of_inspect(spec, flow):
    received = list_quantities(flow)
    tolerance = 1e-3 if spec.dtype == "float32" else 1e-9
    tiny = 1e-36 if spec.dtype == "float32" else 1e-300
    for member, seed in enumerate(flow.seeds):
        expected = list_quantities(inspect(build_network(spec, seed), make_loss(spec, seed)))
        assert received.keys() == expected.keys()
        for what, (quantity, scale) in expected.items():
            if quantity is None:
                assert received[what][0] is None
                continue
            size = abs(scale.values[0]) if scale is not None else 0.0
            margin = max(tiny, tolerance * size if math.isfinite(size) else 0.0)
            assert received[what][0].values[member] == pytest.approx(
                quantity.values[0], rel=tolerance, abs=margin, nan_ok=True
            ), (seed, what)


def assert_medians_are_those_of_members(flow):
    for what, (quantity, _) in list_quantities(flow).items():
        if quantity is None:
            continue
        middle = sorted(quantity.values, key=lambda v: (math.isnan(v), v))[MEMBERS // 2]
        assert float(quantity) == pytest.approx(middle, rel=0, abs=0, nan_ok=True), what


def count_overflowing(flow):
    last = flow.layers[-1].statistics.non_finite.values
    first = flow.layers[0].gradient.non_finite.values
    return sum(a > 0 or b > 0 for a, b in zip(last, first, strict=True))


SPECS = st.builds(
    NetworkSpec,
    depth=st.integers(1, 40),
    width=st.integers(1, 3),
    batch_size=st.integers(1, 4),
    # In the tails of GELU and SiLU a derivative is a small difference of two numbers near 1, of
    # which no digit is sure; the test below has them where they overflow.
    activation=st.sampled_from(("identity", "relu", "leaky_relu", "elu", "selu")),
    init=st.just("random"),
    weight_std=st.floats(0.5, 6.0).map(lambda power: round(10**power)),
    residual=st.sampled_from(("none", "none", "plain", "scaled")),
    normalization=st.sampled_from(("none", "none", "none", "rmsnorm")),
    clip_norm=st.sampled_from((None, 1.0)),
    dtype=st.sampled_from(("float32", "float32", "float64")),
    seed=st.integers(0, 1000),
)


class TestMembers:
    @settings(max_examples=5, deadline=None)
    @given(SPECS)
    def test_are_what_inspect_measures(self, spec):
        with weights_without_signs():
            flow = simulate(spec, MEMBERS)
            assert_members_are_those_of_inspect(spec, flow)
        assert_medians_are_those_of_members(flow)

    @pytest.mark.parametrize("residual", ["none", "scaled"])
    @pytest.mark.parametrize(
        "activation", ["identity", "relu", "leaky_relu", "elu", "selu", "gelu", "silu"]
    )
    def test_are_what_inspect_measures_where_some_overflow(self, activation, residual):
        """The depth is searched at which some of the members overflow."""
        spec = NetworkSpec(
            width=1, batch_size=3, activation=activation, residual=residual, init="random",
            weight_std=30.0,
        )  # fmt: skip
        with weights_without_signs():
            flows = (simulate(spec.replace(depth=depth), MEMBERS) for depth in range(16, 40))
            flow = next(each for each in flows if count_overflowing(each) in (1, 2, 3, 4))
            assert_members_are_those_of_inspect(flow.spec, flow)
        assert_medians_are_those_of_members(flow)


HUGE = torch.tensor([1e30, -2e30, 3e30, 1e-8])
SMALL = torch.tensor([1e4, -2.0, 3e-40, 1e-8])
LOST = torch.tensor([1.0, torch.inf, -2.0, torch.nan])


class TestStatistics:
    """A member's values beside members of other sizes are its values alone."""

    @pytest.mark.parametrize("summarize", [summarize_distribution, summarize_gradients])
    @pytest.mark.parametrize("shape", [(4,), (2, 2)], ids=str)
    def test_do_not_depend_on_other_members(self, summarize, shape):
        members = [each.reshape(shape) for each in (SMALL, HUGE, LOST, 1e-30 * SMALL.sign())]
        together = summarize([torch.stack(members)])
        for position, member in enumerate(members):
            alone = summarize([member.unsqueeze(0)])
            for name, column in together.items():
                assert torch.equal(
                    column[0, position].nan_to_num(nan=-1.0, posinf=-2.0),
                    alone[name][0, 0].nan_to_num(nan=-1.0, posinf=-2.0),
                ), name

    def test_small_entries_beside_large_ones_are_no_zeros(self):
        values = torch.tensor([[1e30, 1e-30, 0.0, 1.0]])
        assert summarize_gradients([values])["zero_share"].item() == 0.25
        assert summarize_distribution([values])["zero_share"].item() == 0.25

    def test_saturation_of_many_examples_does_not_depend_on_dead_units_of_another(self):
        generator = torch.Generator().manual_seed(0)
        healthy = torch.randn(600, 128, generator=generator) - 0.3
        dying = healthy.clone()
        dying[:, :5] = -1.0
        relu = ACTIVATIONS["relu"]
        together = summarize_derivative([torch.stack([healthy, dying])], relu, None, -1)
        alone = summarize_derivative([healthy.unsqueeze(0)], relu, None, -1)
        assert together["saturation"][0, 0] == alone["saturation"][0, 0]
        assert together["dead_units"].tolist() == [[0, 5]]

    def test_the_histogram_of_a_finite_layer_does_not_depend_on_other_layers(self):
        samples = torch.tensor([[1.0, 2.0, 3.0], [1.0, torch.inf, 3.0]])
        low, high = torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [torch.inf]])
        together = count_bins(samples, low, high)
        alone = count_bins(samples[:1], low[:1], high[:1])
        for name, column in alone.items():
            assert torch.equal(together[name][:1], column), name
        assert (together["bin_low"][1], together["bin_high"][1]) == (1.0, 3.0)
