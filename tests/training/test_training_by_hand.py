"""Costs, bounds, tasks, batches and the level of guessing, worked out by hand."""

import math
import random
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import InspectionError, SpecError
from chainrule.flow.trial import TrialOutcome
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.batches import (
    KEPT,
    KEPT_UNCHOSEN,
    MOST_HELD,
    Counter,
    call,
    check_loss,
    find_batches,
)
from chainrule.training.guessing import _start, measure_guessing
from chainrule.training.movement import measure_movement
from chainrule.training.optimizers import rebuild_optimizer
from chainrule.training.tasks import Task, load_task
from chainrule.training.trainability import (
    PARTLY,
    RATES,
    TRAINED,
    Outcome,
    _clip,
    _Race,
    judge_accuracy,
    measure_alike,
    measure_progress,
)
from chainrule.training.training import (
    BUDGET,
    DEFAULT_RATES,
    adapt,
    build_read_out,
    check_rate,
    estimate_cost,
    make_order,
    measure_norms,
    train,
)
from chainrule.training.trial import _find_further, _rank

SPEC = NetworkSpec(depth=3, width=16)


class TestCost:
    @pytest.mark.parametrize(
        ("depth", "width", "steps", "cost"),
        [
            (1, 64, 64, 64 * (4096 + 4096)),
            (3, 10, 100, 3 * (100 + 4096) * 100),
            (1, 1, 1, 64 * (1 + 4096)),
            (1, 1, 63, 64 * (1 + 4096)),
            (1, 1, 65, 65 * (1 + 4096)),
        ],
    )
    def test_grows_with_depth_width_and_steps(self, depth, width, steps, cost):
        assert estimate_cost(NetworkSpec(depth=depth, width=width), steps) == cost

    def test_on_the_budget_is_trained_and_above_it_is_not(self):
        cost = estimate_cost(SPEC, 64)
        train(SPEC, steps=64, budget=cost)
        with pytest.raises(SpecError):
            train(SPEC, steps=64, budget=cost - 1)
        assert BUDGET == 2**31

    @pytest.mark.parametrize("rate", [1e-9, 1000, 1000.0])
    def test_rates_in_range(self, rate):
        check_rate(rate)

    @pytest.mark.parametrize("rate", [0, 0.0, -1.0, 1000.1, math.nan, math.inf, True, "1"])
    def test_rates_out_of_range(self, rate):
        with pytest.raises(SpecError, match="learning_rate"):
            check_rate(rate)

    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [("steps", 1, 100_000), ("every", 1, 100_000), ("batch_size", 1, 1024)],
    )
    def test_counts_in_range(self, name, low, high):
        for value in (low, high):
            train(SPEC, **({"steps": 1} | {name: value, "budget": None}))
        for value in (low - 1, high + 1, True, 2.0):
            with pytest.raises(SpecError, match=name):
                train(SPEC, **({"steps": 1} | {name: value, "budget": None}))

    def test_rates_without_being_asked(self):
        assert dict(DEFAULT_RATES) == {"sgd": 0.03, "adam": 0.001}
        assert RATES["sgd"] == (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
        assert RATES["adam"] == (1e-4, 1e-3, 3e-3, 1e-2)


class TestParts:
    @pytest.mark.parametrize("width", [16, 64, 100])
    def test_read_out_is_uniform_on_the_bound_of_pytorch(self, width):
        layer = build_read_out(NetworkSpec(depth=1, width=width), 400)
        bound = 1 / math.sqrt(width)
        assert layer.weight.shape == (400, width)
        assert bound * 0.98 < float(layer.weight.detach().abs().max()) <= bound
        assert bound * 0.9 < float(layer.bias.detach().abs().max()) <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)

    def test_orders_are_those_of_the_seed_and_of_no_other(self):
        draws = [torch.rand(3, generator=make_order(SPEC.replace(seed=at))) for at in (0, 0, 1)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_wider_inputs_keep_their_mean_square_and_narrower_their_length(self):
        inputs = torch.randn(50, 64, dtype=torch.float64)
        wide = adapt(inputs, 100)
        assert float(wide.square().mean()) == pytest.approx(float(inputs.square().mean()))
        narrow = adapt(inputs, 16)
        assert narrow.shape == (50, 16)
        assert float(narrow.square().mean()) == pytest.approx(1.0, rel=0.2)
        assert adapt(inputs, 64) is inputs

    def test_norms_do_not_overflow(self):
        tensors = [torch.tensor([3e30, 4e30]), torch.tensor([[3.0], [4.0]])]
        assert measure_norms(tensors) == pytest.approx([5e30, 5.0])

    def test_clipping_is_pytorchs_for_every_copy(self):
        gradients = [torch.randn(3, 4, 2) * 5, torch.randn(3, 4)]
        gradients[0][2] *= 1e-3
        gradients[1][2] *= 1e-3
        found = _clip(gradients, 0.5)
        for copy in range(3):
            leaves = [nn.Parameter(torch.zeros_like(g[copy])) for g in gradients]
            for leaf, g in zip(leaves, gradients, strict=True):
                leaf.grad = g[copy].clone()
            nn.utils.clip_grad_norm_(leaves, 0.5)
            for leaf, g in zip(leaves, found, strict=True):
                torch.testing.assert_close(leaf.grad, g[copy])


class TestOutcome:
    def test_progress_is_the_share_of_the_way_from_chance(self):
        assert measure_progress(0.1, 0.1) == 0.0
        assert measure_progress(1.0, 0.1) == 1.0
        assert measure_progress(0.55, 0.1) == pytest.approx(0.5)
        assert measure_progress(0.0, 0.5) == -1.0

    @pytest.mark.parametrize("task", TRAINED)
    def test_bounds_must_be_passed(self, task):
        def ask(progress):
            return judge_accuracy(0.1 + 0.9 * progress, 0.1, task)

        assert ask(TRAINED[task] + 1e-6) is Outcome.TRAINED
        assert ask(TRAINED[task] - 1e-6) is Outcome.PARTLY
        assert ask(PARTLY + 1e-6) is Outcome.PARTLY
        assert ask(PARTLY - 1e-6) is Outcome.NOT
        assert (pytest.approx(7 / 9), pytest.approx(2 / 9)) == (TRAINED["digits"], PARTLY)
        assert TRAINED["teacher"] == pytest.approx(2 / 3)


class TestTasks:
    @pytest.mark.parametrize(("name", "classes"), [("teacher", 6), ("patterns", 8)])
    def test_are_standardized_and_the_same_every_time(self, name, classes):
        task = load_task(name)
        assert task.count == classes
        assert task.inputs.shape == (len(task.classes), 64)
        assert float(task.inputs.mean(0).abs().max()) < 1e-9
        assert float((task.inputs.std(0) - 1).abs().max()) < 5e-3
        counts = task.classes.bincount(minlength=classes)
        assert int(counts.min()) > 0
        assert task.chance == pytest.approx(int(counts.max()) / len(task.classes))
        assert load_task(name) is task

    def test_chance_is_that_of_the_most_frequent_class(self):
        task = Task(torch.zeros(5, 64), torch.tensor([0, 2, 2, 1, 2]))
        assert (task.count, task.chance) == (3, 0.6)

    def test_stripes_of_one_direction_are_alike(self):
        task = load_task("patterns")
        means = torch.stack([task.inputs[task.classes == at].mean(0) for at in range(8)])
        right = ((task.inputs @ means.T).argmax(1) == task.classes).double().mean()
        assert float(right) > 0.7


class TestBatches:
    @staticmethod
    def find(compute_loss, given=None):
        torch.manual_seed(0)
        counter = Counter()
        return find_batches(nn.Linear(3, 1), compute_loss, given, counter), counter

    def test_one_batch_is_seen_as_such(self):
        x = torch.randn(4, 3)
        found, counter = self.find(lambda m: m(x).square().mean())
        assert (found.kept, found.fresh, found.chosen) == (1, False, True)
        assert counter.passes == 1.0

    def test_drawn_batches_can_be_had_twice(self):
        found, counter = self.find(lambda m: m(torch.randn(4, 3)).square().mean())
        assert (found.kept, found.fresh, found.chosen) == (KEPT, True, True)
        assert counter.passes == 1.5
        model = nn.Linear(3, 1)
        losses = [
            float(found.compute(model, at, kept).detach()) for at in (0, 1) for kept in (0, 1)
        ]
        assert len(set(losses)) == 4
        assert found.evaluate(model) == found.evaluate(model)
        assert counter.passes == 1.5 + 2 * KEPT * 0.5

    @pytest.mark.parametrize("draw", [random.random, np.random.random_sample])
    def test_batches_of_other_random_numbers_can_be_had_twice_too(self, draw):
        found, _ = self.find(lambda m: m(torch.full((4, 3), draw())).square().mean())
        assert (found.kept, found.fresh, found.chosen) == (KEPT, True, True)
        model = nn.Linear(3, 1)
        losses = found.evaluate(model)
        assert len(set(losses)) == KEPT
        assert found.evaluate(model) == losses

    def test_an_undefined_loss_of_no_tensors_is_no_fresh_batch(self):
        found, _ = self.find(lambda m: m.weight.sum() * math.nan)
        assert (found.kept, found.fresh, found.chosen) == (1, False, True)

    def test_batches_of_an_iterator_cannot_be_chosen(self):
        stream = iter(torch.randn(99, 4, 3))
        found, counter = self.find(lambda m: m(next(stream)).square().mean())
        assert (found.kept, found.fresh, found.chosen) == (KEPT_UNCHOSEN, True, False)
        assert counter.passes == 1.5

    @pytest.mark.parametrize(
        ("count", "kept", "fresh"),
        [(1, 1, False), (2, 1, True), (5, 2, True), (6, 3, True), (50, 3, True)],
    )
    def test_given_ones_are_split(self, count, kept, fresh):
        given = [torch.full((2, 3), float(at)) for at in range(count)]
        seen = []

        def compute_loss(model, batch):
            seen.append(float(batch[0, 0]))
            return model(batch).square().mean()

        found, _ = self.find(compute_loss, given)
        assert (found.kept, found.fresh, found.chosen) == (kept, fresh, True)
        model = nn.Linear(3, 1)
        found.evaluate(model)
        assert seen == [float(at) for at in range(kept)]
        seen.clear()
        trained = min(count - kept, MOST_HELD) if fresh else count
        for number in range(trained + 1):
            found.compute(model, number, False)
        first = kept if fresh else 0
        assert seen == [*(float(first + at) for at in range(trained)), float(first)]

    def test_loss_must_be_one_real_number_with_a_gradient(self):
        model, x = nn.Linear(3, 1), torch.randn(4, 3)

        def ask(compute_loss):
            return check_loss(call(compute_loss, model))

        assert float(ask(lambda m: {"a": m(x).sum(), "b": m(x).sum()}).detach()) == (
            pytest.approx(2 * float(model(x).sum().detach()))
        )
        assert ask(lambda m: m(x[:1])).shape == ()
        for wrong in (
            lambda m: m(x),
            lambda m: 1.0,
            lambda m: m(x).sum().detach(),
            lambda m: m(x).sum() * 1j,
        ):
            with pytest.raises(InspectionError):
                ask(wrong)


class TestGuessing:
    @staticmethod
    def measure(model, compute_loss):
        batches = find_batches(model, compute_loss, None, Counter())
        return measure_guessing(model, batches)

    def test_of_a_squared_error_is_the_variance_of_the_targets(self):
        x, y = torch.randn(20, 3), torch.randn(20, 2) + 5
        found = self.measure(nn.Linear(3, 2), lambda m: F.mse_loss(m(x), y))
        assert found == pytest.approx(float(y.var(0, correction=0).mean()), rel=1e-4)

    def test_of_a_cross_entropy_is_the_entropy_of_the_classes(self):
        x, y = torch.randn(20, 3), torch.tensor([0] * 10 + [1] * 6 + [2] * 4)
        found = self.measure(nn.Linear(3, 3), lambda m: F.cross_entropy(m(x), y))
        shares = (0.5, 0.3, 0.2)
        assert found == pytest.approx(-sum(p * math.log(p) for p in shares), rel=1e-4)

    def test_of_maps_is_one_value_per_channel(self):
        x, y = torch.randn(6, 1, 4, 4), torch.randn(6, 2, 4, 4)
        found = self.measure(nn.Conv2d(1, 2, 1), lambda m: F.mse_loss(m(x), y))
        assert found == pytest.approx(float(y.var((0, 2, 3), correction=0).mean()), rel=1e-4)

    @pytest.mark.parametrize(
        ("shape", "answer"),
        [
            ((5,), (1,)),
            ((5, 3), (1, 3)),
            ((5, 7, 3), (1, 1, 3)),
            ((5, 3, 2, 2), (1, 3, 1, 1)),
            ((5, 3, 2, 2, 2), (1, 3, 1, 1, 1)),
        ],
    )
    def test_starts_from_the_mean_answer_per_feature(self, shape, answer):
        output = torch.randn(shape)
        start = _start(output)
        assert start.shape == answer
        dims = [at for at, size in enumerate(answer) if size == 1]
        torch.testing.assert_close(start.detach(), output.mean(dims, keepdim=True))

    def test_makes_no_sense_for_one_example_or_a_loss_without_a_floor(self):
        one = torch.randn(1, 3)
        assert self.measure(nn.Linear(3, 1), lambda m: m(one).square().mean()) is None
        x = torch.randn(8, 3)
        assert self.measure(nn.Linear(3, 1), lambda m: m(x).mean()) is None
        model = nn.Linear(3, 1)
        twice = self.measure(
            model, lambda m: (m(x) - m(x + 1)).square().mean() + m(x).square().mean()
        )
        assert twice is None
        assert "forward" not in vars(model)


class TestOptimizers:
    def test_a_group_without_parameters_stays_and_all_states_are_kept(self):
        model = nn.Linear(3, 1)
        groups = [{"params": [model.bias]}, {"params": [], "lr": 0.7}, {"params": [model.weight]}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        copied, notes = deepcopy(model), []
        made = rebuild_optimizer(model, copied, optimizer, notes)
        assert [group["lr"] for group in made.param_groups] == [0.1, 0.7, 0.1]
        assert [group["params"] for group in made.param_groups] == [
            [copied.bias],
            [],
            [copied.weight],
        ]
        kept = made.state[copied.weight]["momentum_buffer"]
        torch.testing.assert_close(kept, torch.full((1, 3), 2.0))
        assert notes == []

    def test_what_the_model_does_not_have_is_left_out_with_its_group(self):
        model, other = nn.Linear(3, 1), nn.Linear(2, 1)
        groups = [{"params": [*other.parameters()], "lr": 0.7}, {"params": [model.weight]}]
        notes = []
        copied = deepcopy(model)
        made = rebuild_optimizer(model, copied, torch.optim.SGD(groups, lr=0.1), notes)
        assert [group["lr"] for group in made.param_groups] == [0.1]
        assert made.param_groups[0]["params"] == [copied.weight]
        assert ["1 of 2" in notes[0], "2 parameters" in notes[1]] == [True, True]

    def test_a_function_gets_what_is_trained(self):
        model = nn.Linear(3, 1)
        model.bias.requires_grad_(False)
        copied = deepcopy(model)
        made = rebuild_optimizer(model, copied, torch.optim.SGD)
        assert made.param_groups[0]["params"] == [copied.weight]

    def test_a_group_keeps_its_settings_beside_one_that_is_left_out(self):
        model, other = nn.Linear(3, 1), nn.Linear(2, 1)
        model.bias.requires_grad_(False)
        groups = [
            {"params": [model.weight], "lr": 0.5, "momentum": 0.2},
            {"params": [other.weight]},
            {"params": [other.bias], "lr": 0.7},
        ]
        notes = []
        made = rebuild_optimizer(model, deepcopy(model), torch.optim.SGD(groups, lr=0.1), notes)
        assert [(g["lr"], g["momentum"]) for g in made.param_groups] == [(0.5, 0.2)]
        assert ["2 parameters" in note for note in notes] == [True]  # a frozen one lacks nothing


class TestMovement:
    @staticmethod
    def move(change, held=("weight", "bias"), dtype=torch.float32):
        """A weight of norm 5 and a bias of norm 12, of which one entry each changes."""
        model = nn.Linear(2, 2).to(dtype)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
            model.bias.copy_(torch.tensor([0.0, 12.0]))
            copied = deepcopy(model)
            for name, by in change.items():
                getattr(copied, name).view(-1)[0] += by
        return measure_movement(model, copied, {id(getattr(copied, name)) for name in held})

    def test_is_that_of_what_the_optimizer_holds(self):
        assert self.move({"weight": 1.0})[0] == pytest.approx(1 / 13)
        assert self.move({"weight": 3.0, "bias": 4.0})[0] == pytest.approx(5 / 13)
        assert self.move({"weight": 1.0, "bias": 4.0}, ["weight"])[0] == pytest.approx(1 / 5)
        assert self.move({"bias": 4.0}, ["weight"]) == (0.0, None)
        assert self.move({"bias": 4.0}, []) == (None, None)

    def test_counts_the_entries_of_half_precision_that_stay(self):
        assert self.move({"bias": 4.0}, dtype=torch.bfloat16)[1] == pytest.approx(5 / 6)
        assert self.move({"bias": 4.0}, ["weight"], torch.bfloat16) == (0.0, 1.0)

    def test_from_zero_is_infinite(self):
        model = nn.Linear(2, 2, bias=False)
        nn.init.zeros_(model.weight)
        copied = deepcopy(model)
        held = {id(copied.weight)}
        assert measure_movement(model, copied, held) == (0.0, None)
        nn.init.ones_(copied.weight)
        assert measure_movement(model, copied, held) == (math.inf, None)


class TestRace:
    SPEC = NetworkSpec(depth=7, width=16, activation="relu", init="he")

    @pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adam", 0.01)])
    def test_goes_on_as_alone_when_others_are_lost(self, optimizer, rate, monkeypatch):
        kept = []
        keep = _Race._keep
        monkeypatch.setattr(
            _Race, "_keep", lambda self, alive: kept.append(alive.tolist()) or keep(self, alive)
        )

        def measure(*specs):
            rates = (rate / 100, rate)
            return measure_alike(
                specs, task="teacher", optimizer=optimizer, learning_rates=rates, steps=40
            )

        lost = self.SPEC.replace(init="random", weight_std=1e6)  # no number is finite
        specs = (self.SPEC, self.SPEC.replace(init="xavier"))
        alone = [measure(spec)[0] for spec in specs]
        assert kept == []
        first, nothing, last = measure(specs[0], lost, specs[1])
        assert kept == [[True, False, True] * 2]
        assert nothing.outcome is Outcome.NOT
        for one, other in zip((first, last), alone, strict=True):
            assert one.accuracy == pytest.approx(other.accuracy, abs=2e-3)
            assert (one.learning_rate, one.steps) == (rate, 40)
            assert one.accuracy > one.chance + 0.02


@torch.no_grad()
def test_in_a_race_an_answer_with_one_score_that_is_no_number_is_not_right():
    race = _Race([SPEC], (0.1, 0.2), "sgd", load_task("teacher"))
    before = race._measure(race.stack, 1)
    race.stack["read_out", "bias"][0][1, 0] = math.nan  # which is the largest to argmax
    assert before[0] > 0.0
    assert race._measure(race.stack, 1) == [before[0], 0.0]


def make_lane(rate, before, after, *, is_over=False, outcome=TrialOutcome.SLOW, learned=0.1):
    """A copy that is trained at a rate, with its losses on one batch."""
    return SimpleNamespace(
        rate=rate,
        before=[before],
        after=[after],
        is_over=is_over,
        judge=lambda: (outcome, learned),
    )


class TestRanks:
    @pytest.mark.parametrize("shift", [0.0, -100.0])
    def test_lower_losses_first_then_those_that_hardly_moved_by_their_rates(self, shift):
        """A loss of 100 that moved by 1 or less hardly did, also where all are negative."""
        start = 100.0 + 2 * shift
        lanes = [
            make_lane(0.1, start, start - 50.0),
            make_lane(0.2, start, start - 1.1),
            make_lane(0.4, start, start - 0.9),
            make_lane(0.3, start, start + 0.9),
            make_lane(0.5, start, start + 1.1),
            make_lane(0.6, start, start + 30.0),
            make_lane(0.7, start, -1e9, is_over=True),
        ]
        mixed = [lanes[at] for at in (3, 0, 6, 2, 5, 1, 4)]
        assert sorted(mixed, key=_rank) == lanes

    @pytest.mark.parametrize(
        ("name", "after", "rate", "further"),
        [
            ("SGD", 50.0, 1.0, 10.0),  # it falls at the largest rate
            ("Adam", 50.0, 1.0, 10.0),
            ("SGD", 50.0, 0.1, None),  # not the largest: it is among those that were tried
            ("SGD", 99.5, 1.0, None),  # its steps grow with the gradient: that is flat
            ("Adam", 99.5, 1.0, 10.0),
            ("SGD", 150.0, 0.1, 0.001),  # all are too large
            ("Adam", 150.0, 1.0, 0.001),
        ],
    )
    def test_further_rates_lie_beyond_the_end_that_does_best(self, name, after, rate, further):
        best = make_lane(rate, 100.0, after)
        lanes = [make_lane(each, 100.0, 120.0) for each in (0.01, 0.1, 1.0)]
        assert _find_further(name, [best], lanes) == further
        settled = make_lane(rate, 100.0, after, outcome=TrialOutcome.TRAINED, learned=0.5)
        assert _find_further(name, [settled], lanes) is None
        nearly = make_lane(rate, 100.0, after, outcome=TrialOutcome.TRAINED, learned=0.49)
        assert _find_further(name, [nearly], lanes) == further


def test_batches_that_are_kept_aside_are_judged_with_draws_of_their_own():
    def compute_loss(model, batch):
        return torch.rand((), requires_grad=True)

    found = find_batches(nn.Identity(), compute_loss, [0] * 8, Counter())

    def look(number, kept):
        return found.compute(nn.Identity(), number, kept).item()

    draws = [look(number, kept) for kept in (False, True) for number in (0, 1)]
    assert len(set(draws)) == 4
    assert look(1, True) == draws[3]
