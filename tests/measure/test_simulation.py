"""`simulate` against `inspect` and against itself in pieces; seeds and budget."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from chainrule.errors import SpecError
from chainrule.measure import simulation, statistics
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, make_loss
from chainrule.measure.simulation import BUDGET, simulate
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

SPEC = NetworkSpec(depth=4, width=12, batch_size=9, init="he", dtype="float64")
"""Small, but wide enough that normalization does not magnify rounding errors of float32."""

ONE_MEMBER = SPEC.depth * SPEC.width * (SPEC.width + SPEC.batch_size)
"""The share of `CHUNK` that one network takes."""

SEEDS = (5, 0, 11)
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}
NORMALIZATIONS = ("none", "layernorm", "batchnorm", "rmsnorm")
STRUCTURES = list(product(("none", "plain", "scaled"), NORMALIZATIONS))


def describe(flow):
    """Return everything about a flow that is no measured figure."""
    call_fields = ("name", "kind", "role", "layer", "call", "output", "shape", "dtype", "parent")
    parameter_fields = ("name", "aliases", "shape", "dtype", "layer", "status")
    flow_fields = ("chain", "device", "torch_version", "chainrule_version", "schema_version")
    return (
        [[getattr(call, name) for name in call_fields] for call in flow.layers],
        [call.statistics.units for call in flow.layers],
        [[getattr(part, name) for name in parameter_fields] for part in flow.parameters],
        [getattr(flow, name) for name in flow_fields],
    )


def read_figures(flow, spec, member=0):
    """Return {what: (one member's figure, the magnitude it is relative to besides its own)}.

    Under normalization some gradients are zero in theory and rounding errors in practice: those of
    biases that batch normalization subtracts again are relative to the gradient of the layer's
    weights, and shares of exact zeros are left out.
    """
    figures = {("loss",): (flow.loss, 0.0)}
    skip = () if spec.normalization == "none" else ("zero_share", "grad_zero_share")
    for call in flow.layers:
        statistics, gradient = call.statistics, call.gradient
        peak = max(abs(statistics.min.values[member]), abs(statistics.max.values[member]))
        for name in ("mean", "std", "min", "max"):
            figures[call.name, name] = getattr(statistics, name), peak
        for name in ("zero_share", "non_finite", "variation", "saturation", "dead_units"):
            figures[call.name, name] = getattr(statistics, name), 1.0
        for name in ("norm", "max_abs", "zero_share", "non_finite"):
            if name not in skip:
                figures[call.name, "gradient", name] = getattr(gradient, name), 0.0
        figures[call.name, "gain"] = call.gain, 0.0
    for part in flow.parameters:
        if part.is_weight:
            layer_gradient = part.grad_norm.values[member]
        cancels = spec.normalization == "batchnorm" and part.name.endswith("bias")
        for name in ("norm", "non_finite", "grad_norm", "grad_zero_share", "grad_non_finite"):
            if name not in skip:
                figures[part.name, name] = getattr(part, name), cancels * layer_gradient
    return {
        what: (None if quantity is None else quantity.values[member], magnitude)
        for what, (quantity, magnitude) in figures.items()
    }


def is_close(received, expected, tolerance, magnitude):
    """Whether two figures are the same up to rounding; pytest.approx takes ten times as long."""
    if received is None or expected is None or received == expected:
        return received == expected
    if math.isnan(expected):
        return math.isnan(received)
    limit = tolerance * max(abs(expected), magnitude)
    return math.isfinite(expected) and abs(received - expected) <= limit


def assert_same(received, expected, tolerance):
    assert received.keys() == expected.keys()
    for what, (figure, magnitude) in expected.items():
        shown = received[what][0]
        assert is_close(shown, figure, tolerance, magnitude), (what, shown, figure)


def assert_agrees_with_inspect(spec, seeds=SEEDS):
    flow = simulate(spec, seeds)
    assert flow.seeds == seeds
    assert flow.spec == spec
    for member, seed in enumerate(seeds):
        expected = inspect(build_network(spec, seed), make_loss(spec, seed))
        assert describe(flow) == describe(expected)
        received = read_figures(flow, spec, member)
        assert_same(received, read_figures(expected, spec), TOLERANCES[spec.dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
class TestAgreementWithInspect:
    @pytest.mark.parametrize("init", INITIALIZERS)
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_for_every_initialization(self, activation, init, dtype):
        assert_agrees_with_inspect(SPEC.replace(activation=activation, init=init, dtype=dtype))

    @pytest.mark.parametrize(("residual", "normalization"), STRUCTURES)
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_for_every_structure(self, activation, residual, normalization, dtype):
        structure = {"residual": residual, "normalization": normalization}
        spec = SPEC.replace(activation=activation, dtype=dtype, **structure)
        assert_agrees_with_inspect(spec, SEEDS[:2])

    @pytest.mark.parametrize(
        "fields",
        [
            {"distribution": "uniform", "bias_std": 0.5},
            {"init": "random", "weight_std": 0.0},
            {"init": "random", "weight_std": 1e6, "activation": "identity", "depth": 9},
            {"init": "random", "weight_std": 1e-6, "activation": "tanh", "depth": 9},
            {"depth": 1},
            {"width": 1, "activation": "tanh"},
            {"batch_size": 1, "normalization": "layernorm"},
            {"depth": 1, "width": 1, "batch_size": 1, "activation": "sigmoid"},
            {"depth": 2, "width": 70, "batch_size": 40, "residual": "plain"},
            {"clip_norm": 1e-3},
        ],
        ids=str,
    )
    def test_at_the_edges(self, fields, dtype):
        assert_agrees_with_inspect(SPEC.replace(**fields, dtype=dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_histograms_of_one_network_are_those_of_inspect(activation):
    spec = SPEC.replace(activation=activation, normalization="layernorm")
    expected = inspect(build_network(spec), make_loss(spec))
    for call, other in zip(simulate(spec, 1).layers, expected.layers, strict=True):
        assert call.statistics.histogram.counts == other.statistics.histogram.counts
        assert call.statistics.histogram.low == pytest.approx(other.statistics.histogram.low)
        assert call.statistics.histogram.high == pytest.approx(other.statistics.histogram.high)


class TestHistograms:
    """Units that differ much (by their biases) show what a histogram leaves out."""

    @staticmethod
    def assert_represents(histogram, statistics):
        edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        mean = np.average(centres, weights=histogram.counts)
        std = np.average((centres - mean) ** 2, weights=histogram.counts) ** 0.5
        means, stds = np.array(statistics.mean.values), np.array(statistics.std.values)
        expected = ((stds**2 + means**2).mean() - means.mean() ** 2) ** 0.5
        assert mean == pytest.approx(means.mean(), abs=0.1 * expected)
        assert std == pytest.approx(expected, rel=0.1)

    @pytest.mark.parametrize(
        ("width", "batch_size", "seeds", "chunk"),
        [(64, 32, 1, 1), (64, 32, 16, 16), (64, 4096, 1, 1), (64, 128, 6, 2), (1, 4096, 3, 2)],
    )
    def test_represent_all_units_and_members(self, width, batch_size, seeds, chunk, monkeypatch):
        spec = NetworkSpec(depth=1, width=width, batch_size=batch_size, bias_std=5.0)
        monkeypatch.setattr(simulation, "CHUNK", chunk * width * (width + batch_size))
        statistics = simulate(spec, seeds).layers[0].statistics
        self.assert_represents(statistics.histogram, statistics)

    @pytest.mark.parametrize("batch_size", [32, 4096])
    def test_of_inspect_represent_all_units(self, batch_size):
        spec = NetworkSpec(depth=1, batch_size=batch_size, bias_std=5.0)
        statistics = inspect(build_network(spec), make_loss(spec)).layers[0].statistics
        self.assert_represents(statistics.histogram, statistics)


class TestPieces:
    """Large ensembles are measured in chunks, and large tensors one by one."""

    @pytest.fixture(params=STRUCTURES, ids="-".join)
    def spec(self, request):
        residual, normalization = request.param
        return SPEC.replace(residual=residual, normalization=normalization, activation="relu")

    @pytest.mark.parametrize("members", [1, 2])
    def test_chunks_give_the_same_figures(self, spec, members, monkeypatch):
        whole = simulate(spec, 5)
        monkeypatch.setattr(simulation, "CHUNK", members * ONE_MEMBER)
        done = []
        pieces = simulate(spec, 5, progress=lambda *counts: done.append(counts))
        assert len({count for count, _ in done}) == 1 + -(-5 // members)
        assert describe(pieces) == describe(whole)
        for member in range(5):
            expected = read_figures(whole, spec, member)
            assert_same(read_figures(pieces, spec, member), expected, 1e-10)

    @pytest.mark.parametrize("chunk", [1, simulation.CHUNK], ids=["chunks", "whole"])
    def test_histograms_hold_all_members(self, chunk, monkeypatch):
        monkeypatch.setattr(simulation, "CHUNK", chunk)
        for call in simulate(SPEC, 5).layers:
            statistics, histogram = call.statistics, call.statistics.histogram
            assert histogram.sampled == sum(histogram.counts) == 5 * 9 * 12
            assert histogram.low == min(statistics.min.values)
            assert histogram.high == max(statistics.max.values)

    def test_tensors_alone_give_the_same_figures(self, spec, monkeypatch):
        together = simulate(spec, 2)
        monkeypatch.setattr(statistics, "SMALL", 0)
        alone = simulate(spec, 2)
        assert [c.statistics.histogram for c in alone.layers] == [
            call.statistics.histogram for call in together.layers
        ]
        for member in range(2):
            expected = read_figures(together, spec, member)
            assert_same(read_figures(alone, spec, member), expected, 1e-12)

    def test_progress_counts_members(self, monkeypatch):
        calls = []
        simulate(SPEC, 3, progress=lambda *counts: calls.append(counts))
        assert list(dict.fromkeys(calls)) == [(0, 3), (3, 3)]
        assert calls.count((0, 3)) > SPEC.depth
        calls.clear()
        monkeypatch.setattr(simulation, "CHUNK", 2 * ONE_MEMBER)
        simulate(SPEC, 5, progress=lambda *counts: calls.append(counts))
        assert list(dict.fromkeys(calls)) == [(0, 5), (2, 5), (4, 5), (5, 5)]

    def test_raising_in_progress_ends_it_within_a_layer(self):
        calls = []

        def stop(*counts):
            calls.append(counts)
            if len(calls) == 3:
                raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            simulate(SPEC, 3, progress=stop)
        assert len(calls) == 3


class TestSeeds:
    @pytest.mark.parametrize(
        ("seeds", "expected"),
        [
            (1, (7,)),
            (3, (7, 8, 9)),
            ([4, 2], (4, 2)),
            ((0, 2**31 - 1), (0, 2**31 - 1)),
            (range(2, 8, 3), (2, 5)),
            (np.int64(2), (7, 8)),
            (np.arange(3), (0, 1, 2)),
        ],
        ids=repr,
    )
    def test_are_a_number_or_the_seeds_themselves(self, seeds, expected):
        flow = simulate(SPEC.replace(seed=7), seeds)
        assert flow.seeds == expected
        assert [type(seed) for seed in flow.seeds] == [int] * len(expected)
        assert flow.ensemble_size == len(expected)
        flow.to_json()

    def test_are_sixteen_by_default(self):
        assert simulate(SPEC.replace(depth=1)).seeds == tuple(range(16))

    @pytest.mark.parametrize(
        ("seeds", "facts"),
        [
            (0, ["1 to 1024", "got 0"]),
            (-3, ["1 to 1024", "got 0"]),
            ([], ["1 to 1024", "got 0"]),
            (1025, ["1 to 1024", "got 1025"]),
            ([1, -1], ["0 to 2147483647", "got -1"]),
            ([2**31], ["0 to 2147483647", "got 2147483648"]),
            ([3, 4, 3], ["once"]),
        ],
    )
    def test_that_cannot_be_are_named(self, seeds, facts):
        with pytest.raises(SpecError, match=r"^seeds: ") as caught:
            simulate(SPEC, seeds)
        assert [fact for fact in facts if fact not in str(caught.value)] == []

    @pytest.mark.parametrize("seeds", [2.5, [0.5], "12", ["a"], None, [None]], ids=repr)
    def test_of_a_wrong_type_are_named(self, seeds):
        with pytest.raises(SpecError, match=r"^seeds: "):
            simulate(SPEC, seeds)

    def test_beyond_the_last_are_named(self):
        with pytest.raises(SpecError, match="each must be from 0 to 2147483647; got 2147483648"):
            simulate(SPEC.replace(seed=2**31 - 1), 2)


class TestBudget:
    def test_names_the_product_and_the_ways_out(self):
        with pytest.raises(SpecError) as caught:
            simulate(NetworkSpec(depth=1000, width=4096), 2)
        assert str(caught.value) == (
            "depth · width² · seeds must be at most 536,870,912; 1000 · 4096² · 2 is "
            "33,554,432,000. Make the network smaller, use fewer seeds, or run it on the command "
            "line with --no-budget."
        )
        assert BUDGET == 536_870_912

    def test_may_be_spent_whole_and_be_lifted(self):
        weights = 4 * 12**2 * 3
        assert simulate(SPEC, 3, budget=weights).ensemble_size == 3
        with pytest.raises(SpecError, match=r"at most 1,727; 4 · 12² · 3 is 1,728\."):
            simulate(SPEC, 3, budget=weights - 1)

    def test_may_be_lifted(self, monkeypatch):
        monkeypatch.setattr(simulation, "BUDGET", 1)
        assert simulate(SPEC, 3, budget=None).ensemble_size == 3


class TestSurroundings:
    def test_the_global_generator_is_left_alone(self):
        before = torch.get_rng_state()
        simulate(SPEC, 2)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        "enter",
        [
            torch.no_grad,
            torch.inference_mode,
            lambda: torch.autocast("cpu", torch.bfloat16),
            lambda: torch.device("meta"),
        ],
        ids=["no_grad", "inference_mode", "autocast", "default device"],
    )
    def test_the_mode_around_it_changes_nothing(self, enter):
        spec = SPEC.replace(dtype="float32", normalization="layernorm")
        expected = simulate(spec, 2)
        with enter():
            assert simulate(spec, 2) == expected

    def test_the_default_dtype_changes_nothing(self):
        expected = simulate(SPEC.replace(dtype="float32"), 2)
        torch.set_default_dtype(torch.float64)
        try:
            received = simulate(SPEC.replace(dtype="float32"), 2)
        finally:
            torch.set_default_dtype(torch.float32)
        assert received == expected
