"""`GradientFlow`: records for data frames, copies, and being filled in on first use."""

import copy
import math
import pickle
import threading
import time

import pytest
import torch
from torch import nn

from chainrule._utils.numbers import format_number
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, make_loss
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

SPEC = NetworkSpec(depth=3, width=4, batch_size=5, activation="relu", init="he")


def inspect_model_with_gaps():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 1), nn.Sigmoid())
    tokens = torch.tensor([[0, 1], [2, 3]])
    return inspect(model, lambda m: m(tokens).mean())


class Scaled(nn.Module):
    """Owns a parameter and contains a module: both are measured."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.scale * self.inner(x)


def test_of_a_module_that_contains_measured_ones_the_contained_ones_are_factors():
    model = nn.Sequential(Scaled(), nn.Tanh())
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    flow = inspect(model, lambda m: m(x).square().sum())
    assert [call.name for call in flow.layers] == ["0.inner", "0", "1"]
    assert [factor.name for factor in flow.factors()] == ["1", "0.inner"]
    assert flow.chain is False


class TestRecords:
    KEYS = (
        "name",
        "kind",
        "role",
        "layer",
        "call",
        "output",
        "shape",
        "mean",
        "std",
        "min",
        "max",
        "zero_share",
        "non_finite",
        "variation",
        "saturation",
        "dead_units",
        "grad_norm",
        "grad_max_abs",
        "grad_zero_share",
        "grad_non_finite",
        "gain",
        "weight_grad_norm",
    )

    @pytest.mark.parametrize("measure", [lambda: simulate(SPEC, 3), inspect_model_with_gaps])
    def test_are_flat_dictionaries_of_plain_values(self, measure):
        flow = measure()
        records = flow.to_records()
        assert len(records) == len(flow.layers)
        for record in records:
            assert tuple(record) == self.KEYS
            assert {type(value) for value in record.values()} <= {str, int, float, type(None)}

    def test_hold_the_medians(self):
        flow = simulate(SPEC, 3)
        for call, record in zip(flow.layers, flow.to_records(), strict=True):
            assert record["shape"] == "5×4"
            assert record["mean"] == sorted(call.statistics.mean.values)[1]
            assert record["grad_norm"] == sorted(call.gradient.norm.values)[1]
            assert record["gain"] == float(call.gain)
            expected = flow.weight_gradient_norms[call.layer - 1] if call.role == "weight" else None
            assert record["weight_grad_norm"] == expected

    def test_show_gaps_as_none(self):
        embedding, flatten, *_ = inspect_model_with_gaps().to_records()
        assert embedding["saturation"] is embedding["dead_units"] is embedding["gain"] is None
        assert embedding["weight_grad_norm"] > 0
        assert flatten["weight_grad_norm"] is None


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.ReLU()])
def test_shares_are_undefined_where_only_the_pre_activations_are_not_finite(activation):
    model = nn.Sequential(nn.Linear(2, 3), activation, nn.Linear(3, 1))
    with torch.no_grad():
        model[0].bias[0] = -math.inf  # sigmoid and ReLU make a zero of it
    (first, _) = inspect(model, lambda m: m(torch.ones(4, 2)).sum()).weight_layers
    assert (first.pre_activation.non_finite, first.activation.non_finite) == (4.0, 0.0)
    assert math.isfinite(first.activation.dead_units)
    assert math.isnan(first.saturation)
    assert math.isnan(first.dead_share)


class TestDeferral:
    """`simulate` and `inspect` return flows that are filled in on first use."""

    @pytest.mark.parametrize(
        "duplicate",
        [lambda flow: pickle.loads(pickle.dumps(flow)), copy.copy, copy.deepcopy],
        ids=["pickle", "copy", "deepcopy"],
    )
    @pytest.mark.parametrize("seeds", [1, 3])
    def test_copies_are_equal_flows(self, duplicate, seeds):
        twin = duplicate(simulate(SPEC, seeds))
        assert type(twin) is GradientFlow
        assert twin == simulate(SPEC, seeds)
        assert twin.gradient_ratio == simulate(SPEC, seeds).gradient_ratio

    @pytest.mark.parametrize("read", [repr, hash, GradientFlow.to_json, GradientFlow.factors])
    def test_any_first_use_fills_in(self, read):
        calls = []
        full = simulate(SPEC, 2)
        flow = GradientFlow.defer(lambda: calls.append(1) or full)
        assert calls == []
        assert read(flow) == read(full)
        assert read(flow) == read(full)
        assert len(calls) <= 1

    def test_an_unknown_attribute_is_an_error(self):
        flow = simulate(SPEC, 1)
        with pytest.raises(AttributeError, match="'GradientFlow' object has no attribute 'colour'"):
            _ = flow.colour
        assert flow.seeds == (0,)

    def test_a_flow_cannot_be_changed(self):
        flow = simulate(SPEC, 1)
        with pytest.raises(AttributeError):
            flow.loss = 3.0
        with pytest.raises(AttributeError):
            flow.layers[0].name = "x"

    def test_two_threads_may_read_it_first(self):
        full, started = simulate(SPEC, 1), threading.Event()

        def build():
            started.set()
            time.sleep(0.1)
            return full

        flow = GradientFlow.defer(build)
        other = threading.Thread(target=lambda: flow.loss)
        other.start()
        started.wait()
        try:
            assert flow.loss == full.loss
        finally:
            other.join()


class TestText:
    """One readable line for a flow and for each of its parts."""

    def test_of_a_flow_names_its_size_its_gradients_and_their_ratio(self):
        flow = simulate(NetworkSpec(depth=10, width=16), 3)
        norms = [float(norm) for norm in flow.weight_gradient_norms]
        text = repr(flow)
        assert text.startswith("GradientFlow(10 layers, 3 networks, ")
        assert format_number(min(norms)) in text
        assert format_number(max(norms)) in text
        assert text.endswith(f"ratio {format_number(flow.gradient_ratio)})")
        assert "networks" not in repr(simulate(SPEC, 1))

    def test_of_a_flow_with_one_layer(self):
        text = repr(simulate(SPEC.replace(depth=1), 1))
        assert "1 layer," in text
        assert "ratio" not in text

    def test_of_a_flow_without_weight_layers(self):
        x = torch.ones(2, 3, requires_grad=True)
        flow = inspect(nn.Tanh(), lambda m: m(x).sum())
        assert "no weight layers" in repr(flow)
        assert format_number(flow.loss) in repr(flow)

    def test_of_undefined_gradients(self):
        fields = {"activation": "identity", "init": "random", "weight_std": 1e6}
        assert "undefined" in repr(simulate(SPEC.replace(depth=8, **fields), 2))

    def test_of_every_part_is_one_short_line(self):
        torch.manual_seed(0)
        model = nn.Sequential()
        place = model
        for _ in range(40):
            place.add_module("a_container_with_a_long_name", nn.Sequential())
            place = place[0]
        place.add_module("0", nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0))
        x = torch.randn(2, 3, 8) * 1e-30
        flow = inspect(model, lambda m: m(x).square().mean())
        assert flow.residuals
        assert flow.attentions
        statistics = [call.statistics for call in flow.layers]
        parts = (
            *(flow, *flow.layers, *flow.parameters, *flow.residuals, *flow.attentions),
            *(*flow.weight_layers, *flow.factors(), *statistics),
            *(each.histogram for each in statistics if each),
            *(call.gradient for call in flow.layers),
        )
        for part in parts:
            assert len(repr(part)) <= 200
            assert repr(part).isprintable()
            assert part is None or repr(part).startswith(type(part).__name__)


class TestClipping:
    """Against `torch.nn.utils.clip_grad_norm_`, which changes the gradients themselves."""

    @staticmethod
    def clip(model, compute_loss, limit):
        compute_loss(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        return float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())

    @pytest.mark.parametrize("limit", [1e-9, 1e-3, 0.1, 1e9])
    @pytest.mark.parametrize("structure", [{}, {"residual": "plain", "normalization": "layernorm"}])
    def test_of_an_ensemble(self, limit, structure):
        spec = SPEC.replace(dtype="float64", clip_norm=limit, **structure)
        flow = simulate(spec, 3)
        for member, seed in enumerate(flow.seeds):
            expected = self.clip(build_network(spec, seed), make_loss(spec, seed), limit)
            found = flow.clipped_gradient_norm.values[member]
            assert found == pytest.approx(expected, rel=1e-9)
        assert all(0 < factor <= 1 for factor in flow.clip_factor.values)

    @pytest.mark.parametrize("limit", [1e-9, 1e-3, 0.1, 1e9])
    def test_of_any_model(self, limit):
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(5, 3)
        flow = inspect(model, lambda m: m(x).square().mean())
        assert (flow.clip_factor, flow.clipped_gradient_norm) == (None, None)
        expected = self.clip(model, lambda m: m(x).square().mean(), limit)
        found = flow.compute_clip_factor(limit) * flow.gradient_norm
        assert found == pytest.approx(expected, rel=1e-5)

    def test_where_gradients_are_not_finite(self):
        """clip_grad_norm_ multiplies by 0 for an infinite norm and by NaN for an undefined one."""
        fields = {"activation": "identity", "init": "random", "weight_std": 1e5, "clip_norm": 1.0}
        flow = simulate(SPEC.replace(depth=60, **fields), 2)
        norm, factor = flow.gradient_norm, flow.clip_factor
        assert all(map(math.isnan, norm.values)) or all(map(math.isinf, norm.values))
        for each, multiplied in zip(norm.values, factor.values, strict=True):
            assert math.isnan(multiplied) if math.isnan(each) else multiplied == 0.0
        assert all(map(math.isnan, flow.clipped_gradient_norm.values))

    def test_without_gradients(self):
        model = nn.Linear(2, 2).requires_grad_(requires_grad=False)
        x = torch.ones(1, 2, requires_grad=True)
        flow = inspect(model, lambda m: m(x).sum())
        assert flow.compute_clip_factor(1.0) is None
