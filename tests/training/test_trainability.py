"""What really training finds out, against `train` and PyTorch's own optimizers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import SpecError
from chainrule.measure.networks import build_network
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.tasks import load_task
from chainrule.training.trainability import (
    PARTLY,
    TRAINED,
    Outcome,
    measure_alike,
    measure_progress,
    measure_trainability,
)
from chainrule.training.training import train

SHALLOW = NetworkSpec(depth=2, width=16, activation="tanh", init="xavier")
ODD = NetworkSpec(
    depth=3,
    width=16,
    activation="relu",
    init="he",
    residual="plain",
    normalization="batchnorm",
    clip_norm=0.5,
)


class TestAgainstTraining:
    @pytest.mark.parametrize(
        "spec",
        [SHALLOW, ODD, ODD.replace(normalization="layernorm"), SHALLOW.replace(input_scale=5.0)],
    )
    @pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adam", 0.002)])
    def test_a_rate_gets_where_train_gets(self, spec, optimizer, rate):
        *_, last = train(spec, optimizer=optimizer, learning_rate=rate, steps=20, every=20)
        found = measure_trainability(spec, optimizer=optimizer, learning_rates=[rate], steps=20)
        assert found.accuracy == pytest.approx(last.accuracy, abs=2 / last.examples)
        assert found.steps == 20

    def test_copies_do_not_influence_each_other(self):
        alone = [
            measure_trainability(SHALLOW, learning_rates=[rate], steps=15).accuracy
            for rate in (0.003, 0.1, 1e3)
        ]
        together = measure_trainability(SHALLOW, learning_rates=[0.003, 0.1, 1e3], steps=15)
        assert together.accuracy == pytest.approx(max(alone), abs=2e-3)

    def test_networks_side_by_side_are_those_alone(self):
        specs = [SHALLOW.replace(init=init) for init in ("xavier", "pytorch")]
        together = measure_alike(specs, task="teacher", steps=15)
        for spec, found in zip(specs, together, strict=True):
            alone = measure_trainability(spec, task="teacher", steps=15)
            assert found.spec == spec
            assert found.accuracy == pytest.approx(alone.accuracy, abs=2e-3)


class TestOutcome:
    @pytest.mark.parametrize("task", ["digits", "teacher", "patterns"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_a_healthy_network_trains_and_stops_early(self, task, optimizer):
        found = measure_trainability(
            NetworkSpec(depth=2, width=32, activation="tanh", init="xavier"),
            task=task,
            optimizer=optimizer,
        )
        assert found.outcome is Outcome.TRAINED
        assert found.progress > TRAINED[task]
        assert found.steps < 300
        assert 0.1 < found.chance < 0.35

    @pytest.mark.parametrize("task", ["digits", "teacher", "patterns"])
    def test_a_vanishing_network_does_not(self, task):
        spec = NetworkSpec(depth=15, width=16, activation="sigmoid", init="pytorch")
        found = measure_trainability(spec, task=task, steps=60)
        assert found.outcome is Outcome.NOT
        assert found.progress < PARTLY

    def test_what_diverges_at_every_rate_did_not_train(self):
        spec = NetworkSpec(depth=20, width=32, activation="relu", init="random", weight_std=10.0)
        found = measure_trainability(spec, steps=30)
        assert found.outcome is Outcome.NOT
        assert 0 <= found.accuracy <= 1

    def test_progress_runs_from_chance_to_perfect(self):
        assert measure_progress(0.1, 0.1) == 0
        assert measure_progress(1.0, 0.27) == 1
        assert measure_progress(0.8, 0.1) == pytest.approx(7 / 9)

    def test_the_same_network_has_the_same_outcome(self):
        first, second = (measure_trainability(SHALLOW, task="patterns", steps=30) for _ in "ab")
        assert first == second

    def test_random_state_and_modes_are_left_alone(self):
        before = torch.get_rng_state()
        with torch.no_grad():
            measure_trainability(SHALLOW, task="teacher", steps=2)
            assert not torch.is_grad_enabled()
        assert torch.equal(before, torch.get_rng_state())


class TestOptimizers:
    """Against torch.optim on the same data, without any of the batching."""

    @pytest.mark.parametrize(
        ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)]
    )
    def test_steps_are_pytorchs(self, name, kind):
        from chainrule.training.trainability import _Race
        from chainrule.training.training import build_read_out

        spec = SHALLOW.replace(dtype="float64", width=64)
        data = load_task("teacher")
        race = _Race([spec], [0.01, 0.1], name, data)
        model = nn.Sequential(build_network(spec), build_read_out(spec, data.count))
        optimizer = kind(model.parameters(), lr=0.1)
        for start in range(0, 320, 64):
            inputs, classes = data.inputs[start : start + 64], data.classes[start : start + 64]
            race._advance(inputs, classes)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), classes).backward()
            optimizer.step()
        weights, biases = (race.stack["weight", field] for field in ("weight", "bias"))
        stacked = [each for layer in zip(weights, biases, strict=True) for each in layer]
        stacked += [race.stack["read_out", field][0] for field in ("weight", "bias")]
        for values, parameter in zip(stacked, model.parameters(), strict=True):
            torch.testing.assert_close(values[1], parameter, rtol=1e-6, atol=1e-9)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"task": "mnist"}, "task: unknown 'mnist'"),
            ({"optimizer": "lion"}, "optimizer: unknown 'lion'"),
            ({"learning_rates": []}, "learning_rates: must be at least one"),
            ({"learning_rates": [0.1, -1]}, "learning_rate: must be a number above 0"),
            ({"steps": 0}, "steps: must be a whole number, at least 1; got 0"),
            ({"steps": True}, "steps: must be"),
        ],
    )
    def test_what_is_wrong_is_said(self, arguments, message):
        with pytest.raises(SpecError, match=message):
            measure_trainability(SHALLOW, **arguments)

    def test_different_architectures_are_refused(self):
        with pytest.raises(SpecError, match="differ only in init"):
            measure_alike([SHALLOW, SHALLOW.replace(depth=3)])
