"""Real trainings: the same as a plain PyTorch loop, honest about chance and about divergence."""

import importlib.util
import itertools
import math
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from chainrule import NetworkSpec, build_network
from chainrule.errors import ChainruleError, SpecError
from chainrule.training.training import (
    BUDGET,
    CHANCE_LOSS,
    adapt,
    build_read_out,
    count_examples,
    estimate_cost,
    measure_chance,
    train,
)
from traces import describe_process

SPECS = {
    "loud inputs": NetworkSpec(depth=3, width=16, activation="tanh", input_scale=7.5),
    "plain": NetworkSpec(depth=3, activation="tanh", init="xavier", dtype="float64"),
    "single": NetworkSpec(depth=4, activation="relu", init="he", seed=7),
    "wide": NetworkSpec(depth=2, width=100, activation="gelu", init="lecun", dtype="float64"),
    "narrow": NetworkSpec(depth=2, width=12, activation="selu", init="lecun", dtype="float64"),
    "residual": NetworkSpec(depth=5, activation="relu", residual="scaled", dtype="float64"),
    "batchnorm": NetworkSpec(depth=3, activation="relu", normalization="batchnorm"),
    "clipped": NetworkSpec(depth=3, activation="tanh", init="he", clip_norm=0.05, dtype="float64"),
}


class Reference:
    """The same training, written down as one would on a blackboard."""

    def __init__(self, spec: NetworkSpec, optimizer: str, rate: float, batch_size: int = 64):
        images, classes = load_digits(return_X_y=True)
        images = (images - images.mean(0)) / (images.std(0, ddof=1) + 1e-3)
        if spec.width != 64:
            # A reference for the draw would be the code again: its properties are tested below.
            images = adapt(torch.tensor(images), spec.width).numpy()
        dtype = getattr(torch, spec.dtype)
        images = images * spec.input_scale
        self.images, self.classes = torch.tensor(images, dtype=dtype), torch.tensor(classes)
        state = torch.get_rng_state()
        torch.manual_seed(spec.seed + 2 * 2**31)
        read_out = nn.Linear(spec.width, 10)
        torch.set_rng_state(state)
        self.order = torch.Generator().manual_seed(spec.seed + 3 * 2**31)
        self.body = build_network(spec)
        self.model = nn.Sequential(self.body, read_out.to(dtype))
        self.clip_norm, self.batch_size = spec.clip_norm, batch_size
        self.optimizer, self.rate = optimizer, rate
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.model.parameters()]
        self.step = 0

    def advance(self) -> dict[str, object]:
        batch = torch.randint(0, 1797, (self.batch_size,), generator=self.order)
        loss = F.cross_entropy(self.model(self.images[batch]), self.classes[batch])
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        by_name = dict(zip(dict(self.model.named_parameters()), gradients, strict=True))
        total = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        factor = 1.0 if self.clip_norm is None else min(1.0, self.clip_norm / (total + 1e-6))
        self.step += 1
        with torch.no_grad():
            for p, g, (m, v) in zip(parameters, gradients, self.moments, strict=True):
                clipped = g * factor
                if self.optimizer == "sgd":
                    p.sub_(self.rate * clipped)
                else:  # Kingma & Ba 2015, algorithm 1
                    m.mul_(0.9).add_(0.1 * clipped)
                    v.mul_(0.999).add_(0.001 * clipped**2)
                    mean, variance = m / (1 - 0.9**self.step), v / (1 - 0.999**self.step)
                    p.sub_(self.rate * mean / (variance.sqrt() + 1e-8))
        return {
            "loss": loss.item(),
            "norms": [
                float(by_name[f"0.{name}"].double().norm())
                for name, p in self.body.named_parameters()
                if p.ndim == 2
            ],
            "total": total,
            "clipped": total * factor,
        }

    def measure_accuracy(self, stride: int) -> float:
        with torch.no_grad():
            scores = self.model(self.images[::stride])
        return float((scores.argmax(1) == self.classes[::stride]).double().mean())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", SPECS)
def test_records_are_those_of_a_plain_loop(name, optimizer):
    spec = SPECS[name]
    rate = 0.05 if optimizer == "sgd" else 0.002
    records = list(train(spec, optimizer=optimizer, learning_rate=rate, steps=12))
    reference = Reference(spec, optimizer, rate)
    near = {"rel": 1e-9 if spec.dtype == "float64" else 2e-3, "abs": 1e-12}
    assert [record.step for record in records] == list(range(13))
    for record in records:
        expected_accuracy = reference.measure_accuracy(1 if record.last else 5)
        assert record.accuracy == pytest.approx(expected_accuracy, abs=1.5 / record.examples)
        expected = reference.advance()
        assert record.loss == pytest.approx(expected["loss"], **near)
        assert record.gradient_norms == pytest.approx(expected["norms"], **near)
        assert record.total_norm == pytest.approx(expected["total"], **near)
        assert record.clipped_norm == pytest.approx(expected["clipped"], **near)
        assert len(record.gradient_norms) == spec.depth
    assert [record.last for record in records] == [False] * 12 + [True]
    assert not any(record.diverged for record in records)


def test_recording_less_often_changes_no_number():
    spec = SPECS["batchnorm"].replace(normalization="layernorm", clip_norm=0.3)
    every = list(train(spec, steps=20))
    some = list(train(spec, steps=20, every=7))
    assert [record.step for record in some] == [0, 7, 14, 20]
    assert some == [every[0], every[7], every[14], every[20]]


def test_clipping_is_that_of_pytorch():
    spec = SPECS["clipped"]
    first = next(iter(train(spec, steps=1)))
    reference = Reference(spec, "sgd", 0.1)
    batch = torch.randint(0, 1797, (64,), generator=reference.order)
    output = reference.model(reference.images[batch])
    F.cross_entropy(output, reference.classes[batch]).backward()
    total = nn.utils.clip_grad_norm_(reference.model.parameters(), 0.05)
    assert first.total_norm == pytest.approx(float(total), rel=1e-12)
    after = [p.grad.flatten() for p in reference.model.parameters()]
    assert first.clipped_norm == pytest.approx(float(torch.cat(after).norm()), rel=1e-12)
    assert first.clipped_norm < 0.0501 < first.total_norm
    free = next(iter(train(spec.replace(clip_norm=None), steps=1)))
    assert free.clipped_norm == free.total_norm == pytest.approx(first.total_norm)


def test_chance_is_the_share_of_the_most_frequent_class():
    _, classes = load_digits(return_X_y=True)
    assert measure_chance() == np.unique(classes, return_counts=True)[1].max() / len(classes)
    assert count_examples() == len(classes) == 1797
    assert math.isclose(CHANCE_LOSS, -math.log(1 / 10))


def test_healthy_networks_learn_and_vanishing_ones_stay_at_chance():
    healthy = NetworkSpec(depth=15, activation="relu", init="he")
    *_, last = train(healthy, optimizer="adam", steps=200, every=200)
    assert last.examples == 1797
    assert last.accuracy > 0.9
    vanishing = NetworkSpec(depth=15, activation="sigmoid", init="xavier")
    *_, last = train(vanishing, steps=100, every=100)
    assert last.accuracy < measure_chance() + 0.03
    assert last.gradient_norms[0] < 1e-6 < last.gradient_norms[-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 15, "activation": "relu", "init": "random"},
        {"depth": 60, "activation": "relu", "init": "random", "weight_std": 10},
        {"depth": 3, "activation": "identity", "init": "random", "weight_std": 1e6},
        {"depth": 200, "activation": "relu", "init": "random", "clip_norm": 1.0},
    ],
)
def test_divergence_ends_with_a_record_and_no_error(settings):
    records = list(train(NetworkSpec(**settings), learning_rate=1.0, steps=50))
    *before, last = records
    assert last.diverged
    assert last.last
    assert last.step < 50
    assert not math.isfinite(last.loss)
    assert all(math.isnan(norm) for norm in (*last.gradient_norms, last.total_norm))
    assert not any(record.diverged or record.last for record in before)


def test_an_answer_that_is_no_number_is_not_right():
    """Of scores that are all NaN, argmax names class 0: a tenth right, by mere accident."""
    spec = NetworkSpec(depth=60, activation="relu", init="random", weight_std=10)
    *_, last = train(spec, learning_rate=1.0, steps=5)
    assert last.accuracy == 0.0


def test_an_answer_with_one_score_that_is_no_number_is_not_right(monkeypatch):
    """An infinite score would name its class for half of the examples, rightly for some."""

    def build_overflowing(spec):
        read_out = build_read_out(spec)
        with torch.no_grad():
            read_out.weight[3].mul_(math.inf)
        return read_out

    monkeypatch.setattr("chainrule.training.training.build_read_out", build_overflowing)
    spec = NetworkSpec(depth=1, activation="tanh")
    (only,) = train(spec, steps=5)
    assert only.diverged
    assert only.accuracy == 0.0


def test_a_gradient_beyond_the_square_root_of_float32_is_measured():
    spec = NetworkSpec(depth=28, activation="identity", init="random")
    first = next(iter(train(spec, steps=1)))
    assert 1e20 < max(first.gradient_norms) < math.inf
    exact = next(iter(train(spec.replace(dtype="float64"), steps=1)))
    assert first.gradient_norms == pytest.approx(exact.gradient_norms, rel=1e-3)


@pytest.mark.parametrize("width", [1, 7, 63, 65, 200])
def test_adapter_has_orthonormal_rows_or_columns(width):
    matrix = adapt(torch.eye(64, dtype=torch.float64), width)
    assert matrix.shape == (64, width)
    if width > 64:
        product, expected = matrix @ matrix.T, torch.eye(64).double() * width / 64
    else:
        product, expected = matrix.T @ matrix, torch.eye(width).double()
    torch.testing.assert_close(product, expected)
    assert torch.equal(matrix, adapt(torch.eye(64, dtype=torch.float64), width))


def test_images_of_64_features_go_straight_in():
    images = torch.randn(5, 64)
    assert adapt(images, 64) is images


def test_wider_networks_get_inputs_of_the_same_mean_square():
    images = torch.randn(50, 64, dtype=torch.float64)
    mean_square = images.square().mean(1)
    torch.testing.assert_close(adapt(images, 300).square().mean(1), mean_square)


def test_seed_replaces_the_specifications():
    spec = SPECS["plain"]
    assert list(train(spec, steps=2, seed=5)) == list(train(spec.replace(seed=5), steps=2))
    assert list(train(spec, steps=2, seed=5)) != list(train(spec, steps=2))


def test_nothing_is_left_changed():
    spec = SPECS["batchnorm"]
    list(train(spec, steps=1))
    before = describe_process()
    for record in train(spec, optimizer="adam", steps=3):
        assert describe_process() == before  # nor in between
        assert record.step < 4
    assert describe_process() == before


def test_the_callers_modes_do_not_count():
    spec = SPECS["single"]
    expected = list(train(spec, steps=3))
    with torch.inference_mode():
        assert list(train(spec, steps=3)) == expected
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        assert list(train(spec, steps=3)) == expected


def test_should_stop_is_asked_before_every_step():
    asked = itertools.count()
    records = list(train(SPECS["plain"], steps=50, should_stop=lambda: next(asked) >= 4))
    assert [record.step for record in records] == [0, 1, 2, 3]
    assert next(asked) == 5
    assert not records[-1].last


def test_records_are_frozen():
    record = next(iter(train(SPECS["plain"], steps=1)))
    with pytest.raises(FrozenInstanceError):
        record.loss = 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer: unknown 'rmsprop'. Known: sgd, adam."),
        ({"optimizer": "adm"}, "Did you mean 'adam'?"),
        (
            {"learning_rate": 0.0},
            "learning_rate: must be a number above 0, at most 1000; got '0.0'",
        ),
        ({"learning_rate": math.nan}, "learning_rate: must be a number above 0"),
        ({"learning_rate": math.inf}, "learning_rate: must be a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate: must be a number above 0"),
        ({"learning_rate": True}, "learning_rate: must be a number above 0"),
        ({"steps": 0}, "steps: must be a whole number from 1 to 100000; got '0'"),
        ({"steps": 1.5}, "steps: must be a whole number"),
        ({"every": 0}, "every: must be a whole number"),
        ({"batch_size": 1025}, "batch_size: must be a whole number from 1 to 1024; got '1025'"),
        ({"seed": -1}, "seed: must be a whole number"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments, message):
    with pytest.raises(SpecError) as caught:
        train(NetworkSpec(depth=2), **arguments)
    assert message in str(caught.value)


def test_batch_normalization_needs_two_examples():
    with pytest.raises(SpecError, match=r"from 2 to 1024 \(batch normalization compares examples"):
        train(SPECS["batchnorm"], batch_size=1)


@pytest.mark.parametrize(
    ("depth", "width", "steps", "ways"),
    [(1000, 4096, 300, 0), (1000, 64, 600, 2), (500, 64, 600, 3), (5, 4096, 300, 0)],
)
def test_too_large_a_training_is_refused_and_what_is_said_to_be_possible_is(
    depth, width, steps, ways
):
    spec = NetworkSpec(depth=depth, width=width)
    with pytest.raises(SpecError) as caught:
        train(spec, steps=steps)
    sentence = str(caught.value)
    assert f"Training {depth} layers of width {width} for {steps} steps" in sentence
    assert not re.search(r"\d{5}", sentence.replace(",", ""))
    found = [
        (spec.replace(**{field: int(match[1])}), steps)
        for field, pattern in (("depth", r"(\d+) layers?[,.]"), ("width", r"a width up to (\d+)"))
        if (match := re.search(pattern, sentence.partition("instead")[2]))
    ]
    if match := re.search(r"(\d+) steps\.", sentence.partition("instead")[2]):
        found.append((spec, int(match[1])))
    assert len(found) >= ways
    assert bool(found) is ("Possible instead" in sentence)
    for possible, count in found:
        assert estimate_cost(possible, count) <= BUDGET
    train(spec, steps=steps, budget=None)  # allowed, and no work before the iteration


def test_few_steps_do_not_allow_a_network_that_fills_the_memory():
    with pytest.raises(SpecError, match="would take too long"):
        train(NetworkSpec(depth=1000, width=4096), steps=1)


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("chainrule.training.training.find_spec", lambda name: None)
    with pytest.raises(ChainruleError, match=r'pip install "chainrule\[app\]"'):
        train(NetworkSpec(depth=2))


def test_importing_the_module_does_not_import_scikit_learn():
    code = "import sys, chainrule.training; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert importlib.util.find_spec("sklearn")
