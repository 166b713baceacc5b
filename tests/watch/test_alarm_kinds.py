"""Kinds of trouble in real small trainings, and what only looks like them."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.flow.optimizer import SUITED_EPSILON
from chainrule.watch import watch
from chainrule.watch.reading import RunReader


def make_data():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(600, 8, generator=generator)
    centres = torch.randn(5, 8, generator=generator)
    return x, (x @ centres.T).argmax(1)


DATA = make_data()


def make(act=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 32), act(), nn.Linear(32, 32), act(), nn.Linear(32, 5))


def draw(step, size=32):
    index = torch.randint(0, 600, (size,), generator=torch.Generator().manual_seed(step))
    return DATA[0][index], DATA[1][index]


def train(
    model,
    optimizers,
    steps,
    *,
    before=lambda step: None,
    change=lambda x, y, step: (x, y),
    zeroes=lambda step: True,
    passes=1,
    to_none=True,
    answer=None,
    **settings,
):
    """Train watched; return the run."""
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    with watch(model, optimizers, **settings) as run:
        for step in range(1, steps + 1):
            before(step)
            for optimizer in optimizers if zeroes(step) else ():
                optimizer.zero_grad(set_to_none=to_none)
            total = 0.0
            for number in range(passes):
                x, y = change(*draw(1000 * number + step), step)
                loss = F.cross_entropy((answer or model)(x), y) / passes
                loss.backward()
                total += loss.item()
            for optimizer in optimizers:
                optimizer.step()
            run.log(loss=total)
    return run


def list_kinds(run):
    return [alarm.kind for alarm in run.alarms]


def sgd(parameters, rate=0.1, **settings):
    return torch.optim.SGD(parameters, rate, **settings)


def adam(parameters, rate=0.005):
    return torch.optim.Adam(parameters, rate)


# --- Freezing on purpose --------------------------------------------------------------------------


class TestFreezing:
    @pytest.mark.parametrize("to_none", [True, False])
    def test_layers_frozen_in_mid_run(self, to_none):
        model = make()

        def freeze(step):
            if step == 60:
                model[:3].requires_grad_(False)

        run = train(model, sgd(model.parameters()), 120, before=freeze, to_none=to_none)
        assert list_kinds(run) == []

    @pytest.mark.parametrize("start", [1, 40])
    def test_a_group_with_a_rate_of_zero(self, start):
        model = make()
        groups = [{"params": model[:3].parameters()}, {"params": model[3:].parameters()}]
        optimizer = sgd(groups)

        def stop(step):
            if step == start:
                optimizer.param_groups[0]["lr"] = 0.0

        assert list_kinds(train(model, optimizer, 120, before=stop)) == []

    def test_layers_unfrozen_one_after_the_other(self):
        model = make()
        model[:3].requires_grad_(False)
        held, given = adam(model.parameters()), make()
        given[:3].requires_grad_(False)
        part = adam(given[3:].parameters())

        def unfreeze(step):
            if step in (40, 80):
                model[2 if step == 40 else 0].requires_grad_(True)

        def give(step):
            if step in (40, 80):
                layer = given[2 if step == 40 else 0].requires_grad_(True)
                part.add_param_group({"params": list(layer.parameters())})

        assert list_kinds(train(model, held, 120, before=unfreeze)) == []
        assert list_kinds(train(given, part, 120, before=give)) == []

    def test_a_probe_of_a_body_that_still_asks_for_gradients(self):
        model = make()
        assert list_kinds(train(model, adam(model[4].parameters(), 0.02), 120)) == []

    def test_biases_alone(self):
        model = make()
        biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
        assert list_kinds(train(model, adam(biases, 0.02), 120)) == []

    def test_adapters_on_weights_that_still_ask_for_gradients(self):
        class Adapter(nn.Module):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer
                self.a = nn.Parameter(0.3 * torch.randn(2, layer.in_features))
                self.b = nn.Parameter(torch.zeros(layer.out_features, 2))

            def forward(self, x):
                return self.layer(x) + x @ self.a.T @ self.b.T

        plain = make()
        model = nn.Sequential(
            *(Adapter(each) if isinstance(each, nn.Linear) else each for each in plain)
        )
        small = [p for name, p in model.named_parameters() if "layer" not in name]
        assert list_kinds(train(model, adam(small), 120)) == []

    def test_an_optimizer_that_nobody_watches_holds_the_rest(self):
        model = make()
        head = sgd(model[4].parameters())

        def step_head(step):
            if step > 1:
                head.step()
            head.zero_grad()

        run = train(model, sgd(model[:4].parameters()), 60, before=step_head)
        assert list_kinds(run) == []

    def test_everything_but_a_bias_frozen_before_anything_was_learned(self):
        model = make(nn.Sigmoid)

        def freeze(step):
            if step == 30:
                for parameter in list(model.parameters())[:-1]:
                    parameter.requires_grad_(False)

        run = train(model, sgd(model.parameters(), 0.05), 60, before=freeze)
        assert list_kinds(run) == ["no gradient"]
        assert 30 <= run.alarms[0].step <= 50


class TestStaleOptimizer:
    """Onset and the layer that must be named; the alarm comes within 20 steps."""

    def check(self, run, onset, layer, kinds=("stale optimizer",)):
        assert run.alarms
        first = run.alarms[0]
        assert first.kind in kinds
        assert onset <= first.step <= onset + 20
        assert first.layer == layer

    @pytest.mark.parametrize("to_none", [True, False])
    def test_one_layer_replaced_in_mid_run(self, to_none):
        model = make()

        def replace(step):
            if step == 67:
                model[2] = nn.Linear(32, 32)

        run = train(model, adam(model.parameters()), 100, before=replace, to_none=to_none)
        self.check(run, 67, "2")

    def test_the_head_replaced_before_the_run(self):
        model = make()
        optimizer = adam(model.parameters())
        model[4] = nn.Linear(32, 5)
        self.check(train(model, optimizer, 30), 1, "4")

    def test_tensors_made_anew_by_to(self):
        model = make()

        def convert(step):
            if step == 71:
                torch.__future__.set_overwrite_module_params_on_conversion(True)
                try:
                    model.double().float()
                finally:
                    torch.__future__.set_overwrite_module_params_on_conversion(False)

        self.check(train(model, adam(model.parameters()), 100, before=convert), 71, "0")

    @pytest.mark.parametrize("onset", [1, 55])
    def test_the_model_made_anew(self, onset):
        model, other = make(), make(seed=1)
        now = [0]

        def answer(x):
            return (model if now[0] < onset else other)(x)

        def count(step):
            now[0] = step

        run = train(model, sgd(model.parameters()), 80, before=count, answer=answer)
        self.check(run, onset, "")

    def test_the_optimizer_of_another_model(self):
        model, other = make(), make(seed=1)
        run = train(model, sgd(other.parameters()), 30)
        self.check(run, 1, "0", ("no update", "stale optimizer"))

    def test_a_layer_added_in_mid_run_and_never_given(self):
        model = make()

        def add(step):
            if step == 67:
                model.append(nn.Linear(5, 5))

        self.check(train(model, adam(model.parameters()), 100, before=add), 67, "5")

    def test_a_layer_added_before_the_run_and_never_given(self):
        plain = make()
        optimizer = adam(plain[:4].parameters())
        run = train(nn.Sequential(plain[:4], nn.Linear(32, 5)), optimizer, 30)
        self.check(run, 1, "1", ("no update", "stale optimizer"))

    def test_a_layer_unfrozen_and_never_given(self):
        model = make()
        model[0].requires_grad_(False)
        optimizer = adam(model[2:].parameters())

        def unfreeze(step):
            if step == 67:
                model[0].requires_grad_(True)

        run = train(model, optimizer, 100, before=unfreeze)
        self.check(run, 67, "0", ("no update", "stale optimizer"))


# --- Gradients that nobody zeroed -----------------------------------------------------------------


class TestNotZeroed:
    @pytest.mark.parametrize("make_optimizer", [sgd, adam])
    def test_never(self, make_optimizer):
        model = make()
        run = train(model, make_optimizer(model.parameters()), 40, zeroes=lambda step: False)
        assert list_kinds(run)[:1] == ["gradients not zeroed"]
        assert run.alarms[0].step <= 5

    def test_no_more_from_a_step_on(self):
        model = make()
        optimizer = adam(model.parameters())
        run = train(model, optimizer, 110, zeroes=lambda step: step < 75)
        assert list_kinds(run)[:1] == ["gradients not zeroed"]
        assert 75 <= run.alarms[0].step <= 95

    def test_only_sometimes(self):
        model = make()
        optimizer = sgd(model.parameters(), 0.02)
        run = train(model, optimizer, 60, zeroes=lambda step: step % 7 == 0)
        assert list_kinds(run)[:1] == ["gradients not zeroed"]

    def test_by_one_of_two_optimizers(self):
        model = make()
        both = [sgd(model[:3].parameters(), 0.02), sgd(model[3:].parameters(), 0.02)]

        def zero_first(step):
            both[0].zero_grad()

        run = train(model, both, 40, before=zero_first, zeroes=lambda step: False)
        assert list_kinds(run)[:1] == ["gradients not zeroed"]

    @pytest.mark.parametrize("clips", [False, True])
    def test_under_a_scaler_and_clipping(self, clips):
        model = make()
        optimizer = sgd(model.parameters(), 0.02)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        with watch(model, optimizer) as run:
            for step in range(30):
                x, y = draw(step)
                loss = F.cross_entropy(model(x), y)
                scaler.scale(loss).backward()
                if clips:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                scaler.step(optimizer)
                scaler.update()
                run.log(loss=loss)
        assert list_kinds(run)[:1] == ["gradients not zeroed"]

    @pytest.mark.parametrize("to_none", [True, False])
    @pytest.mark.parametrize("passes", [2, 5])
    def test_several_backward_passes_for_one_step_are_meant(self, passes, to_none):
        model = make()
        optimizer = sgd(model.parameters())
        assert list_kinds(train(model, optimizer, 60, passes=passes, to_none=to_none)) == []

    def test_one_slip_is_none(self):
        model = make()
        optimizer = sgd(model.parameters())
        assert list_kinds(train(model, optimizer, 80, zeroes=lambda step: step != 48)) == []

    def test_a_closure_that_zeroes_or_does_not(self):
        for zeroes in (True, False):
            model = make()
            optimizer = sgd(model.parameters(), 0.02)
            with watch(model, optimizer) as run:
                for step in range(20):

                    def closure(step=step, zeroes=zeroes, model=model, optimizer=optimizer):
                        if zeroes:
                            optimizer.zero_grad()
                        x, y = draw(step)
                        loss = F.cross_entropy(model(x), y)
                        loss.backward()
                        return loss

                    optimizer.step(closure)
            assert (list_kinds(run)[:1] == ["gradients not zeroed"]) != zeroes


# --- Targets that change --------------------------------------------------------------------------


def spoil(how, start):
    def change(x, y, step):
        generator = torch.Generator().manual_seed(step)
        if step < start:
            return x, y
        if how == "random":
            return x, torch.randint(0, 5, y.shape, generator=generator)
        if how == "shifted":
            return x, y.roll(1)
        if how == "noise":
            return torch.randn(x.shape, generator=generator), y
        return x[torch.randperm(len(x), generator=generator)], y

    return change


class TestTargets:
    @pytest.mark.parametrize("how", ["random", "shifted", "noise", "shuffled inputs"])
    @pytest.mark.parametrize(("make_optimizer", "start"), [(adam, 153), (sgd, 121)])
    def test_targets_that_part_from_the_inputs(self, how, make_optimizer, start):
        model = make()
        run = train(model, make_optimizer(model.parameters()), start + 25, change=spoil(how, start))
        assert list_kinds(run) == ["data changed"]
        alarm = run.alarms[0]
        assert start <= alarm.step <= start + 20
        found = {each.name: each for each in alarm.evidence}
        assert found["loss"].step in range(start - 1, start + 2)
        assert found["loss since"].value > 0.85 * found["loss since"].bound
        assert str(found["loss"].step) in alarm.summary

    def test_a_rate_that_jumps_is_another_kind(self):
        model = make()
        optimizer = sgd(model.parameters())

        def jump(step):
            optimizer.param_groups[0]["lr"] = 0.1 if step < 120 else 100.0

        assert "data changed" not in list_kinds(train(model, optimizer, 150, before=jump))

    def test_weights_that_somebody_overwrote_are_another_kind(self):
        model = make()

        def overwrite(step):
            if step == 120:
                with torch.no_grad():
                    model[4].weight.add_(3.0 * torch.randn(5, 32))

        run = train(model, adam(model.parameters()), 150, before=overwrite)
        assert "data changed" not in list_kinds(run)


# --- Units that die between two samples -----------------------------------------------------------


class TestDying:
    @pytest.mark.parametrize(
        ("layer", "units", "onset"), [(0, 32, 101), (2, 32, 152), (2, 30, 203), (0, 30, 127)]
    )
    def test_a_layer_that_dies_just_after_a_sample(self, layer, units, onset):
        model = make()

        def kill(step):
            if step == onset:
                with torch.no_grad():
                    model[layer].bias[:units].sub_(50.0)

        run = train(model, adam(model.parameters(), 0.002), onset + 22, before=kill)
        assert list_kinds(run)[:1] == ["dead units"]
        assert run.alarms[0].layer == str(layer + 1)
        assert onset <= run.alarms[0].step <= onset + 20


# --- Losses that are trained against each other ---------------------------------------------------


def play(seed, kind):
    """A generator and a discriminator near the loss where neither wins; the runs of it."""
    torch.manual_seed(seed)
    make, tell = (
        nn.Sequential(nn.Linear(a, 16), nn.LeakyReLU(0.2), nn.Linear(16, b))
        for a, b in ((4, 2), (2, 1))
    )
    makes, tells = (
        torch.optim.Adam(each.parameters(), 0.001, betas=(0.5, 0.9)) for each in (make, tell)
    )
    both = nn.ModuleDict({"make": make, "tell": tell})
    runs = {
        "together": lambda: [watch(both, [tells, makes])],
        "apart": lambda: [watch(tell, tells), watch(make, makes)],
        "one of them": lambda: [watch(make, makes)],
        "unequal": lambda: [watch(both, [tells, makes])],
    }[kind]()
    for step in range(260):
        fake = make(torch.randn(32, 4))
        tells.zero_grad()
        loss = F.softplus(-tell(torch.randn(32, 2))).mean() + F.softplus(tell(fake.detach())).mean()
        loss.backward()
        tells.step()
        if kind != "unequal" or step % 3 == 0:
            makes.zero_grad()
            F.softplus(-tell(fake)).mean().backward()
            makes.step()
        for run in runs:
            run.log(loss=loss)
    for run in runs:
        run.close()
    return runs


@pytest.mark.parametrize("kind", ["together", "apart", "one of them", "unequal"])
@pytest.mark.parametrize("seed", [0, 3])
def test_players_near_their_balance_are_no_trouble(kind, seed):
    assert [alarm for run in play(seed, kind) for alarm in run.alarms] == []


def test_two_optimizers_of_one_loss_are_no_players():
    model = make()
    both = [sgd(model[:3].parameters()), sgd(model[3:].parameters())]

    def shuffle(x, y, step):
        return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(step))]

    assert list_kinds(train(model, both, 210, change=shuffle)) == ["loss flat"]


# --- What an alarm says ---------------------------------------------------------------------------


def test_no_alarm_offers_a_flow_that_is_not_kept(tmp_path):
    model = make()
    optimizer = sgd(model.parameters())

    def poison(x, y, step):
        return (x * float("nan") if step == 33 else x), y

    train(model, optimizer, 40, change=poison, store=tmp_path / "run.db")
    reader = RunReader(tmp_path / "run.db")
    alarm = reader.alarms()[0]
    assert alarm.kind == "non-finite"
    assert alarm.step not in reader.flow_steps()
    assert "flow" not in alarm.action


@pytest.mark.parametrize("transforms", [False, True])
def test_functional_calls_are_not_called_compiled(transforms):
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))  # something was compiled before
    model = make()
    optimizer = sgd(model.parameters())
    named = dict(model.named_parameters())

    def compute(parameters, x, y):
        return F.cross_entropy(torch.func.functional_call(model, parameters, (x,)), y)

    with watch(model, optimizer, every=1) as run:
        for step in range(5):
            x, y = draw(step)
            if transforms:
                found = torch.func.grad(compute)({n: p.detach() for n, p in named.items()}, x, y)
                for name, parameter in named.items():
                    parameter.grad = found[name]
            else:
                optimizer.zero_grad()
                compute(named, x, y).backward()
            optimizer.step()
    for sample in run.samples:
        assert bool(sample.layers) != transforms
        assert "compile" not in sample.missing
        assert ".." not in sample.missing
    assert all("torch.func" in sample.missing for sample in run.samples) or not transforms


@pytest.mark.parametrize(
    ("dtype", "settings", "is_lost"),
    [
        (torch.float16, {}, True),
        (torch.float16, {"eps": 1e-4}, False),
        (torch.float32, {}, False),
    ],
)
def test_an_epsilon_that_float16_rounds_to_zero_is_named(dtype, settings, is_lost):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4)).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, **settings)
    x = torch.randn(64, 10)
    with watch(model, optimizer) as run:
        for step in range(4):
            scale = math.nan if not is_lost and step == 2 else 1.0
            optimizer.zero_grad()
            loss = scale * F.cross_entropy(model(x.to(dtype)), x[:, :4].argmax(1))
            loss.backward()
            optimizer.step()
            run.log(loss=loss.detach())
    alarm = next(each for each in run.alarms if each.rule == "non_finite")
    assert (f"eps={SUITED_EPSILON:g}" in alarm.action) is is_lost
    assert ("float16" in alarm.cause) is is_lost
