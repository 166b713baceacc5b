"""Troubles that people meet in mid-run, what only looks like them, and what is said of a slip."""

import copy
import gc
import logging
import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.errors import TrainingStopped
from chainrule.watch import watch
from chainrule.watch.copies import CopySearch

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(600, 8, generator=GENERATOR)
Y = (X @ torch.randn(5, 8, generator=GENERATOR).T).argmax(1)


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Keep what is said in the log for the tests that ask for it."""
    caplog.set_level(logging.WARNING)


def make(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5)
    )


def draw(step, size=32):
    index = torch.randint(0, 600, (size,), generator=torch.Generator().manual_seed(step))
    return X[index], Y[index]


def train(model, optimizer, steps, *, change=lambda x, y, step: (x, y), answer=None, **settings):
    """Train watched; return the run, and what stopped it."""
    before, after = settings.pop("before", None), settings.pop("after", None)
    with watch(model, optimizer, **settings) as run:
        for step in range(1, steps + 1):
            if before is not None:
                before(step)
            x, y = change(*draw(step), step)
            optimizer.zero_grad()
            loss = F.cross_entropy((answer or model)(x), y)
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            if after is not None:
                after(step)
    return run


def list_kinds(run):
    return [alarm.kind for alarm in run.alarms]


def sgd(model, rate=0.1):
    return torch.optim.SGD(model.parameters(), rate)


def adam(model, rate=0.005):
    return torch.optim.Adam(model.parameters(), rate)


# --- Targets that a copy of the weights makes -----------------------------------------------------


def learn_values(seed, copy_weights, *, steps=135, period=100):
    """Q-learning whose target network is copied anew in mid-run."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2000, 4, generator=generator)
    actions = torch.randint(0, 2, (2000,), generator=generator)
    after = states + 0.1 * torch.randn(2000, 4, generator=generator)
    rewards = states[:, 0] * (2 * actions - 1) + 0.5
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    kept = copy.deepcopy(model)
    optimizer = adam(model, 0.001)
    with watch(model, optimizer) as run:
        for step in range(1, steps + 1):
            index = torch.randint(0, 2000, (64,), generator=generator)
            with torch.no_grad():
                target = rewards[index] + 0.95 * kept(after[index]).max(1).values
            found = model(states[index]).gather(1, actions[index, None]).squeeze(1)
            loss = F.mse_loss(found, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            if step % period == 0:
                kept = copy_weights(kept, model)
    return run


def load(kept, model):
    kept.load_state_dict(model.state_dict())
    return kept


def copy_by_hand(kept, model):
    for old, new in zip(kept.parameters(), model.parameters(), strict=True):
        old.data.copy_(new.data)
    return kept


class TestTargetNetworks:
    @pytest.mark.parametrize(
        "copy_weights", [load, copy_by_hand, lambda kept, model: copy.deepcopy(model)]
    )
    @pytest.mark.parametrize("seed", [0, 2])
    def test_a_target_network_copied_anew_is_no_trouble(self, copy_weights, seed):
        run = learn_values(seed, copy_weights)
        losses = [each.loss for each in run.steps]
        assert losses[100] > 5 * max(losses[90:100])  # it jumps
        assert list_kinds(run) == []
        assert [each for each in run.notices if "step 101" in each and "copy" in each]

    def test_data_that_change_are_said_while_somebody_keeps_an_average_and_a_checkpoint(self):
        model = make()
        average, kept = copy.deepcopy(model), []

        def follow(step):
            with torch.no_grad():
                for mean, each in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(each, 0.02)
            if step in (30, 60):
                kept.append(copy.deepcopy(model))

        def spoil(x, y, step):
            return x, torch.randint(0, 5, y.shape) if step >= 121 else y

        run = train(model, adam(model), 140, change=spoil, after=follow)
        assert list_kinds(run) == ["data changed"]

    @pytest.mark.parametrize("end", [120, 122])
    def test_the_same_run_started_again_says_what_it_said(self, end):
        def spoil(x, y, step):
            generator = torch.Generator().manual_seed(step)
            return x, torch.randint(0, 5, y.shape, generator=generator) if step >= 121 else y

        stopped = make()  # as in a notebook: its weights are near those of the next run at its jump
        train(stopped, sgd(stopped), end, change=spoil)
        model = make()
        run = train(model, sgd(model), 146, change=spoil)
        assert list_kinds(run) == ["data changed"]
        assert not [each for each in run.notices if "copy" in each]

    def test_zeros_are_no_copy_of_weights_that_decayed_since_the_last_sample(self):
        weight = nn.Parameter(torch.full((4, 8), 1e-6))
        yes = np.array([True])
        sample = SimpleNamespace(update_norms=np.array([1.0]), weight_norms=np.array([5.0]))
        history = SimpleNamespace(
            samples=[sample], get_totals=lambda: np.ones(5), sizes=[32],
            is_weight=yes, is_trained=yes, is_held=yes,
        )  # fmt: skip
        search = CopySearch([weight], print)
        ((_, bound),) = search._choose(history)
        assert bound == pytest.approx(float(weight.detach().norm()) / 2)
        weight.data.zero_()
        assert search._choose(history) == []


# --- Freezing -------------------------------------------------------------------------------------


class TestFreezing:
    def freeze(self, part, start, end=10_000):
        def before(step):
            if step in (start, end):
                part.requires_grad_(step == end)

        return before

    def test_most_of_a_network_frozen_in_mid_run_is_said_and_no_alarm(self):
        model = make()
        run = train(model, sgd(model), 90, before=self.freeze(model[:3], 60))
        assert list_kinds(run) == []
        (said,) = run.notices
        assert "step 60" in said
        assert "'0.weight'" in said
        assert "4 parameters" in said

    def test_a_small_part_frozen_or_one_for_a_moment_is_not_said(self):
        model = make()
        assert train(model, sgd(model), 90, before=self.freeze(model[4:], 60)).notices == ()
        model = make()
        run = train(model, sgd(model), 90, before=self.freeze(model[:3], 60, 65))
        assert run.notices == ()

    def test_what_was_frozen_from_the_start_is_not_said(self):
        model = make()
        model[:3].requires_grad_(False)
        assert train(model, sgd(model), 40).notices == ()


# --- Inputs ---------------------------------------------------------------------------------------


class Apart(nn.Module):
    """A model of parts that are called one by one, so that its own inputs cannot be seen."""

    def __init__(self, bias):
        super().__init__()
        self.first = nn.Linear(8, 32, bias=bias)
        self.rest = nn.Sequential(nn.Tanh(), nn.Linear(32, 5))


class TestZeroInputs:
    @pytest.mark.parametrize("start", [1, 33])
    @pytest.mark.parametrize("biases", [True, False])
    def test_inputs_that_are_all_zero(self, start, biases):
        model = make()
        if not biases:
            for layer in model[::2]:
                nn.init.zeros_(layer.bias)
        run = train(model, adam(model), start + 30, change=lambda x, y, s: (x * (s < start), y))
        assert list_kinds(run) == ["inputs all zero"]
        assert run.alarms[0].layer == "0"
        assert start <= run.alarms[0].step <= start + 3

    @pytest.mark.parametrize("bias", [True, False])
    def test_inputs_of_a_part_that_is_called_alone(self, bias):
        torch.manual_seed(0)
        model = Apart(bias)
        run = train(
            model,
            sgd(model),
            60,
            change=lambda x, y, s: (x * (s < 33), y),
            answer=lambda x: model.rest(model.first(x)),
        )
        assert list_kinds(run)[:1] == ["inputs all zero"]
        assert run.alarms[0].layer == "first"
        assert 33 <= run.alarms[0].step <= 40

    def test_dead_units_with_a_pull_on_their_biases_have_inputs(self):
        """The first weight has a gradient of zero, its bias has one, and the inputs are sound."""
        model = make()
        with torch.no_grad():
            model[0].bias.fill_(-100.0)
        optimizer = sgd(model)
        with watch(model, optimizer) as run:
            for step in range(1, 40):
                x, y = draw(step)
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y) + 1e-3 * model[0].bias.sum()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
        assert float(model[0].weight.grad.norm()) == 0.0 < float(model[0].bias.grad.norm())
        assert "inputs all zero" not in list_kinds(run)
        assert "dead units" in list_kinds(run)

    def test_one_such_batch_is_none(self):
        model = make()
        run = train(model, adam(model), 60, change=lambda x, y, s: (x * (s != 33), y))
        assert "inputs all zero" not in list_kinds(run)


class Named(nn.Module):
    """A model that reads a mapping, and a mask."""

    def __init__(self):
        super().__init__()
        self.inner = make()

    def forward(self, batch, mask=None):
        found = self.inner(batch["x"])
        return found if mask is None else (found + mask).clamp_min(-50.0)


class TestBadBatches:
    @staticmethod
    def spoil(step, value=math.nan):
        def change(x, y, now):
            x = x.clone()
            if now == step:
                x[3, 2] = value
            return x, y

        return change

    @pytest.mark.parametrize("step", [1, 33, 50])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_the_batch_is_named_and_no_layer(self, step, value):
        model = make()
        run = train(model, adam(model), step + 4, change=self.spoil(step, value))
        (alarm,) = run.alarms
        assert (alarm.kind, alarm.step, alarm.layer) == ("non-finite", step, "")
        assert "1 number is" in alarm.summary
        assert "[32, 8]" in alarm.summary
        assert "batch" in alarm.cause

    def test_a_loss_that_is_not_finite_from_the_start_is_no_matter_of_the_rate(self):
        """The logarithm of a negative number is undefined, and its derivative is large."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 64), nn.Sigmoid(), nn.Linear(64, 5))
        optimizer = sgd(model, 1.0)
        with watch(model, optimizer) as run:
            for step in range(1, 6):
                x, y = draw(step)
                optimizer.zero_grad()
                given, wanted = model(x), F.one_hot(y, 5)
                loss = -(wanted * given.log() + (1 - wanted) * (1 - given).log()).sum(1).mean()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
        assert list_kinds(run) == ["non-finite"]

    @pytest.mark.parametrize("step", [33, 50])
    def test_with_a_step_that_is_run_again(self, step):
        model = make()
        run = train(model, adam(model), step + 2, change=self.spoil(step), keep_batches=True)
        assert run.alarms[0].layer == ""
        assert "input" in run.alarms[0].cause

    def test_in_a_mapping_and_beside_a_mask_of_minus_infinity(self):
        model = Named()
        mask = torch.tensor([0.0, 0.0, 0.0, 0.0, -math.inf])
        run = train(
            model,
            adam(model),
            36,
            change=self.spoil(33),
            answer=lambda x: model({"x": x}, mask=mask),
        )
        assert "'x'" in run.alarms[0].summary
        assert run.alarms[0].layer == ""

    def test_a_mask_alone_is_not_blamed(self):
        model = Named()
        mask = torch.tensor([0.0, 0.0, 0.0, 0.0, -math.inf])

        def answer(x):
            found = model({"x": x}, mask=mask)
            return found * (math.nan if len(run_steps) == 33 else 1.0)

        run_steps = []
        run = train(model, adam(model), 36, before=run_steps.append, answer=answer)
        assert run.alarms[0].kind == "non-finite"
        assert "input" not in run.alarms[0].summary

    def test_a_target_that_is_undefined(self):
        model = make()
        optimizer = sgd(model)
        with watch(model, optimizer) as run:
            for step in range(1, 52):
                x, _ = draw(step)
                target = torch.zeros(32, 5)
                if step == 50:
                    target[0, 0] = math.nan
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), target)
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
        assert run.alarms[-1].kind == "non-finite"
        assert run.alarms[-1].layer == ""
        assert "target" in run.alarms[-1].summary

    def test_it_is_said_where_the_step_is_left_out_and_training_goes_on(self):
        model = make()
        run = train(model, adam(model), 60, change=self.spoil(33), skip_step_on=["non_finite"])
        assert list_kinds(run) == ["non-finite"]
        assert "1 number is" in run.alarms[0].summary
        assert math.isfinite(run.steps[-1].loss)

    def test_in_an_earlier_one_of_several_batches(self):
        model = make()
        optimizer = sgd(model)
        with watch(model, optimizer) as run:
            for step in range(1, 10):
                optimizer.zero_grad()
                batches = [draw(3 * step + at) for at in range(3)]
                if step == 7:
                    batches[0][0][0, 0] = math.nan
                for x, y in batches:
                    (F.cross_entropy(model(x), y) / 3).backward()
                optimizer.step()
        assert run.alarms[0].step == 7
        assert "1 number is" in run.alarms[0].summary

    def test_inputs_are_held_no_longer_than_until_the_step(self):
        model = make()
        optimizer = sgd(model)
        with watch(model, optimizer):
            x, y = draw(1)
            held = weakref.ref(x)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            del x
            gc.collect()
            assert held() is None


# --- Numbers that grow over time ------------------------------------------------------------------


@pytest.mark.parametrize(("growth", "length"), [(2.0, 200), (1.5, 120), (1.5, 400)])
def test_a_recurrent_network_that_overflows_is_called_exploding(growth, length):
    torch.manual_seed(0)
    model = nn.RNN(2, 16, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        nn.init.eye_(model.weight_hh_l0).mul_(growth)
    optimizer = adam(model, 0.001)
    with watch(model, optimizer) as run:
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(torch.randn(8, length, 2))[0][:, -1].square().mean()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
    assert list_kinds(run)[0] == "exploding"
    assert run.alarms[0].step == 1


# --- The learning rate ----------------------------------------------------------------------------


class TestRate:
    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
    @pytest.mark.parametrize("rate", [1e9, 1e30])
    def test_a_run_stops_at_a_rate_too_high_also_where_numbers_overflow_at_once(
        self, optimizer, rate
    ):
        model = make()
        with pytest.raises(TrainingStopped, match="Step 2"):
            train(model, optimizer(model.parameters(), lr=rate), 20, raise_on=["rate_too_high"])

    @pytest.mark.parametrize("rate", [1e4, 1e30])
    def test_a_rate_that_is_raised_far_from_any_sample(self, rate):
        model = make()
        optimizer = sgd(model)

        def raise_rate(step):
            optimizer.param_groups[0]["lr"] = rate if step >= 127 else 0.1

        with pytest.raises(TrainingStopped) as caught:
            train(model, optimizer, 150, before=raise_rate, raise_on=["rate_too_high"])
        assert int(str(caught.value).split()[1].rstrip(":")) <= 132

    def test_a_restart_that_does_no_harm_is_no_trouble(self):
        model = make()
        optimizer = sgd(model)

        def schedule(step):
            phase = (step % 60) / 60
            optimizer.param_groups[0]["lr"] = 0.1 * (0.501 + 0.499 * math.cos(math.pi * phase))

        assert list_kinds(train(model, optimizer, 200, before=schedule)) == []

    def test_a_schedule_that_falls_before_anything_is_learned(self):
        model = make()
        optimizer = sgd(model, 0.01)

        def schedule(step):
            optimizer.param_groups[0]["lr"] = 0.01 * 0.7**step

        run = train(model, optimizer, 70, before=schedule)
        assert list_kinds(run) == ["learning rate too low"]
        assert "fell" in run.alarms[0].cause


# --- Optimizers -----------------------------------------------------------------------------------


class TestOptimizers:
    def test_one_of_another_model_is_said_at_once(self):
        model = make()
        with watch(model, adam(copy.deepcopy(model))) as run:
            assert [each for each in run.notices if "6 parameters" in each]
        model = make()
        run = train(model, adam(copy.deepcopy(model)), 3)
        assert [(each.kind, each.step) for each in run.alarms][:1] == [("no update", 1)]

    @pytest.mark.parametrize("optimizes", [slice(4, 5), slice(0, 4)])
    def test_one_of_a_part_is_said_at_the_first_step(self, optimizes):
        model = make()
        run = train(model, adam(model[optimizes]), 2)
        (said,) = run.notices
        assert "'0.weight'" in said or "'4.weight'" in said
        assert "%" in said

    def test_the_rest_in_another_one_is_not_said(self):
        model = make()
        head = sgd(model[4:])

        def step_head(step):
            head.step()

        run = train(model, sgd(model[:4]), 20, after=step_head)
        assert run.notices == ()

    def test_one_that_is_made_anew_for_each_step(self):
        model = make()
        with watch(model, adam(model)) as run:
            for step in range(1, 8):
                fresh = adam(model)
                x, y = draw(step)
                F.cross_entropy(model(x), y).backward()
                fresh.step()
                fresh.zero_grad()
            assert [each for each in run.notices if "5 times" in each and "Adam" in each]

    def test_one_that_never_steps(self):
        model = make()
        with watch(model, adam(model)) as run:
            for step in range(1, 102):
                x, y = draw(step)
                F.cross_entropy(model(x), y).backward()
            assert [each for each in run.notices if "100 times" in each]

    def test_two_that_hold_the_same(self):
        model = make()
        with watch(model, [sgd(model), sgd(model[4:])]) as run:
            (said,) = run.notices
        assert "2 parameters" in said
        assert "'4.weight'" in said

    def test_a_decay_that_takes_most_of_the_weights(self):
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=50.0)
        (said,) = train(model, optimizer, 3).notices
        assert "50 %" in said
        assert train(make(), adam(make()), 1).notices != (said,)

    @pytest.mark.parametrize("to_none", [True, False])
    def test_a_body_that_is_cut_off_in_mid_run(self, to_none):
        model, cut = make(), []
        optimizer = sgd(model, 0.02)

        def answer(x):
            hidden = model[:4](x)
            return model[4](hidden.detach() if cut else hidden)

        with watch(model, optimizer) as run:
            for step in range(1, 50):
                if step == 25:
                    cut.append(step)
                optimizer.zero_grad(set_to_none=to_none)
                x, y = draw(step)
                loss = F.cross_entropy(answer(x), y)
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
        assert list_kinds(run)[:1] == ["no gradient"]
        assert run.alarms[0].layer == "0"
        assert 25 <= run.alarms[0].step <= 45
