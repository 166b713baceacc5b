"""What `inspect(model, compute_loss, optimizer)` knows of the optimizer, judged by training."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.errors import FlowFileError, InspectionError
from traces import unchanged

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
Y = X @ torch.randn(6, 1, generator=torch.Generator().manual_seed(1))


def compute_loss(model):
    return F.mse_loss(model(X), Y)


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))


def train(model, optimizer, steps=200):
    before = float(compute_loss(model).detach())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
    return float(compute_loss(model).detach()) < 0.1 * before


CASES = {
    "sgd": (lambda m: torch.optim.SGD(m.parameters(), 0.05), None),
    "momentum": (lambda m: torch.optim.SGD(m.parameters(), 0.01, momentum=0.9), None),
    "adam": (lambda m: torch.optim.Adam(m.parameters(), 1e-2), None),
    "adamw": (lambda m: torch.optim.AdamW(m.parameters(), 1e-2), None),
    "sgd, huge": (lambda m: torch.optim.SGD(m.parameters(), 50.0), "large_step"),
    "adam, huge": (lambda m: torch.optim.Adam(m.parameters(), 30.0), "large_step"),
    "sgd, tiny": (lambda m: torch.optim.SGD(m.parameters(), 1e-8), "small_step"),
    "adam, tiny": (lambda m: torch.optim.Adam(m.parameters(), 1e-9), "small_step"),
    "another model's": (
        lambda m: torch.optim.SGD(copy.deepcopy(m).parameters(), 0.05), "not_held"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_finding_and_what_training_says(name):
    make, rule = CASES[name]
    model = build()
    optimizer = make(model)
    with unchanged(model):
        flow = chainrule.inspect(model, compute_loss, optimizer)
    diagnosis = chainrule.diagnose(flow)
    assert [finding.rule for finding in diagnosis.findings] == ([rule] if rule else [])
    if rule is None:
        assert diagnosis.verdict is Verdict.HEALTHY
    else:
        steps = rule in {"large_step", "small_step"}
        assert diagnosis.verdict is (Verdict.LEARNING_RATE if steps else Verdict.OPTIMIZER)
    assert train(model, optimizer) == (rule is None)


def test_rates_by_parameter_and_a_note_on_those_left_out(tmp_path):
    model = build()
    optimizer = torch.optim.Adam(
        [{"params": [model[0].weight], "lr": 0.25}, {"params": [model[2].weight]}], lr=0.01
    )
    flow = chainrule.inspect(model, compute_loss, optimizer)
    assert flow.optimizer.rates == (0.25, None, 0.01, None)
    assert (flow.optimizer.name, flow.optimizer.steps) == ("Adam", "rescaled")
    notes = [note for note in chainrule.diagnose(flow).notes if note.name == "partly_held"]
    assert notes[0].modules == ("0.bias", "2.bias")
    flow.save(tmp_path / "flow.json")
    assert chainrule.load_flow(tmp_path / "flow.json") == flow


@pytest.mark.parametrize(
    ("first", "second", "other", "whole"),
    [
        (True, True, True, True),
        (True, False, False, False),  # it descends with a part of the model
        (False, True, False, False),
        (True, True, False, True),  # what belongs to no part of it does not count
        (False, False, True, False),
    ],
)
def test_an_optimizer_maximizes_if_it_does_so_with_all_of_the_model(first, second, other, whole):
    model, alpha = build(), nn.Parameter(torch.zeros(1))
    groups = (list(model[0].parameters()), first), (list(model[2].parameters()), second)
    optimizer = torch.optim.SGD(
        [{"params": each, "maximize": up} for each, up in (*groups, ([alpha], other))], lr=0.01
    )
    assert chainrule.inspect(model, compute_loss, optimizer).optimizer.maximizes is whole


@pytest.mark.parametrize(
    ("kind", "setting", "sizes", "largest"),
    [
        (torch.optim.Adam, "eps", (1e-3, 1e-5, 1.0), (1e-3, 0.0)),
        (torch.optim.SGD, "momentum", (0.5, 0.9, 0.99), (0.0, 0.9)),
    ],
)
def test_of_groups_of_the_model_the_largest_setting_counts(kind, setting, sizes, largest):
    model, others = build(), [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parts = (list(model[0].parameters()), list(model[2].parameters()), others)
    groups = [{"params": part, setting: each} for part, each in zip(parts, sizes, strict=True)]
    found = chainrule.inspect(model, compute_loss, kind(groups, lr=0.01)).optimizer
    assert (found.epsilon, found.momentum) == largest
    assert found.foreign == 3


@pytest.mark.parametrize(
    ("make", "decoupled"),
    [
        (lambda p: torch.optim.AdamW(p), True),
        (lambda p: torch.optim.NAdam(p, decoupled_weight_decay=True), True),
        (lambda p: torch.optim.NAdam(p), False),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), False),
        (lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1), False),
    ],
)
def test_decay_is_decoupled_as_the_step_has_it(make, decoupled):
    model = build()
    optimizer = make(model.parameters())
    found = chainrule.inspect(model, compute_loss, optimizer).optimizer
    assert found.is_decoupled is decoupled
    assert found.decays == (optimizer.defaults["weight_decay"],) * 4


def test_a_file_with_another_number_of_rates(tmp_path):
    model = build()
    flow = chainrule.inspect(model, compute_loss, torch.optim.SGD(model.parameters(), 0.5))
    text = flow.to_json().replace("[0.5,0.5,0.5,0.5]", "[0.5,0.5,0.5]")
    (tmp_path / "flow.json").write_text(text)
    with pytest.raises(FlowFileError, match=r"optimizer\.rates"):
        chainrule.load_flow(tmp_path / "flow.json")


SCHEDULES = {
    "from 0": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1.0, k / 500)),
    "from a tiny rate": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1e-6, 1.0, 5_000),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, o.param_groups[0]["lr"], total_steps=100, div_factor=1e6, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adadelta])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_begins_near_zero_is_judged_by_where_it_leads(kind, name):
    rates = {torch.optim.AdamW: 1e-3, torch.optim.SGD: 0.1, torch.optim.Adadelta: 1.0}
    model = build()
    optimizer = kind(model.parameters(), lr=rates[kind])
    SCHEDULES[name](optimizer)
    flow = chainrule.inspect(model, compute_loss, optimizer)
    assert max(flow.optimizer.rates) < 1e-3 * max(flow.optimizer.planned)
    diagnosis = chainrule.diagnose(flow)
    assert diagnosis.verdict is Verdict.HEALTHY
    assert not {each.name for each in diagnosis.notes} & {"small_steps", "foreign_rate"}


def test_a_tiny_rate_stays_tiny_with_a_schedule():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, (k + 1) / 10))
    diagnosis = chainrule.diagnose(chainrule.inspect(model, compute_loss, optimizer))
    assert [each.rule for each in diagnosis.findings] == ["small_step"]
    assert "1.0·10⁻⁹" in diagnosis.findings[0].evidence


@pytest.mark.parametrize("name", ["decays", "planned", "rounded"])
def test_a_file_with_another_number_of_decays_or_planned_rates(tmp_path, name):
    model = build()
    flow = chainrule.inspect(model, compute_loss, torch.optim.SGD(model.parameters(), 0.5))
    data = json.loads(flow.to_json())
    data["optimizer"][name] = [0.5]
    (tmp_path / "flow.json").write_text(json.dumps(data))
    with pytest.raises(FlowFileError, match=rf"optimizer\.{name}"):
        chainrule.load_flow(tmp_path / "flow.json")


def test_what_is_no_optimizer():
    with pytest.raises(InspectionError, match="optimizer"):
        chainrule.inspect(build(), compute_loss, 0.1)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0])
def test_learning_rates_that_no_step_can_use_are_refused(rate):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = rate
    for measure in (chainrule.inspect, chainrule.measure_sharpness, chainrule.try_training):
        with unchanged(model), pytest.raises(InspectionError, match=f"{rate:g}"):
            measure(model, compute_loss, optimizer)


def test_an_optimizer_without_groups_is_refused():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.param_groups.clear()
    with pytest.raises(InspectionError, match="groups"):
        chainrule.inspect(model, compute_loss, optimizer)


FOREIGN = {
    "Adadelta, its own": (lambda p: torch.optim.Adadelta(p), False),
    "Adadelta, a tenth": (lambda p: torch.optim.Adadelta(p, 0.1), False),
    "Adadelta, that of Adam": (lambda p: torch.optim.Adadelta(p, 1e-3), True),
    "Adafactor, its own": (lambda p: torch.optim.Adafactor(p), False),
    "Adafactor, far below": (lambda p: torch.optim.Adafactor(p, 1e-5), True),
    "Rprop finds its own": (lambda p: torch.optim.Rprop(p, 1e-5), False),
    "LBFGS": (lambda p: torch.optim.LBFGS(p, 0.5), False),
    "LBFGS, that of Adam": (lambda p: torch.optim.LBFGS(p, 1e-3), True),
    "a schedule at its start": (lambda p: torch.optim.Adadelta(p, 0.0), False),
    "SGD, whose step is known": (lambda p: torch.optim.SGD(p, 0.3), False),
    "Adam, whose step is known": (lambda p: torch.optim.Adam(p, 0.2), False),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_rate_far_from_the_optimizers_own_is_noted(name):
    make, noted = FOREIGN[name]
    model = build()
    diagnosis = chainrule.diagnose(
        chainrule.inspect(model, compute_loss, make(list(model.parameters())))
    )
    found = [each for each in diagnosis.notes if each.name == "foreign_rate"]
    assert bool(found) is noted
    if noted:
        assert found[0].value == pytest.approx(1000.0)


def test_the_rate_of_a_class_is_that_of_its_signature():
    class Own(torch.optim.SGD):
        def __init__(self, params, lr="fast"):
            super().__init__(params, 0.1 if lr == "fast" else lr)

    class Without(torch.optim.SGD):
        def __init__(self, params, rate):
            super().__init__(params, rate)

    model = build()
    for make, rate in (
        (lambda p: torch.optim.Adadelta(p, 3.0), 1.0),
        (lambda p: torch.optim.Adam(p), 1e-3),
        (Own, None),
        (lambda p: Without(p, 0.1), None),
    ):
        flow = chainrule.inspect(model, compute_loss, make(model.parameters()))
        assert flow.optimizer.default_rate == rate


@pytest.mark.parametrize("kind", [torch.optim.Adadelta, torch.optim.Adafactor])
def test_at_a_thousandth_of_its_own_rate_an_optimizer_learns_nothing(kind):
    own = build()
    assert train(own, kind(own.parameters()))
    foreign = build()
    optimizer = kind(foreign.parameters())
    optimizer.param_groups[0]["lr"] *= 1e-3
    before = compute_loss(foreign).item()
    train(foreign, optimizer)
    assert compute_loss(foreign).item() > 0.9 * before


def test_a_rate_of_zero_is_a_finding_unless_a_schedule_starts_there():
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.Adadelta):
        model = build()
        optimizer = kind(model.parameters(), lr=0.0)
        found = chainrule.diagnose(chainrule.inspect(model, compute_loss, optimizer))
        assert [each.rule for each in found.findings] == ["small_step"]
        optimizer = kind(model.parameters(), lr=0.1)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, epoch / 5))
        found = chainrule.diagnose(chainrule.inspect(model, compute_loss, optimizer))
        assert found.verdict is Verdict.HEALTHY
        (note,) = [each for each in found.notes if each.name == "rate_of_zero"]
        assert "0.1" in note.evidence
        assert kind.__name__ in note.evidence


def test_rates_of_zero_are_no_finding_where_an_optimizer_finds_its_own():
    class Relative(torch.optim.Optimizer):
        """It takes no rate, as Adafactor of other packages."""

        def __init__(self, params, lr=None):
            super().__init__(params, {"lr": lr})

    for make in (Relative, lambda p: torch.optim.Rprop(p, 0.0)):
        model = build()
        flow = chainrule.inspect(model, compute_loss, make(model.parameters()))
        assert chainrule.diagnose(flow).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adadelta])
def test_a_group_at_zero_among_others_is_noted(kind):
    model = build()
    groups = [{"params": [model[0].weight], "lr": 0.0}, {"params": [model[2].weight]}]
    flow = chainrule.inspect(model, compute_loss, kind(groups, lr=0.1))
    diagnosis = chainrule.diagnose(flow)
    assert diagnosis.verdict is Verdict.HEALTHY
    names = {each.name: each for each in diagnosis.notes}
    assert names["still_group"].modules == ("0.weight",)
    assert "rate_of_zero" not in names


HALF = {
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adam, foreach": lambda p: torch.optim.Adam(p, 1e-3, foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, 1e-3, fused=True),
    "adam, amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adam, decay": lambda p: torch.optim.Adam(p, 1e-3, weight_decay=0.1),
    "adam, larger ε": lambda p: torch.optim.Adam(p, 1e-3, eps=1e-4),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-3),
    "adagrad, started": lambda p: torch.optim.Adagrad(p, 1e-3, initial_accumulator_value=0.1),
    "sgd": lambda p: torch.optim.SGD(p, 1e-3),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("has_dead_unit", [False, True])
@pytest.mark.parametrize("name", HALF)
def test_a_lost_epsilon_is_found_where_the_step_really_divides_by_it(name, has_dead_unit, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():
        model[0].bias[0] = -100.0 if has_dead_unit else 0.0
    model = model.to(dtype)
    optimizer = HALF[name](model.parameters())

    def compute(m):
        return F.mse_loss(m(X.to(dtype)), Y.to(dtype))

    flow = chainrule.inspect(model, compute, optimizer)
    found = {each.rule: each for each in chainrule.diagnose(flow).findings}.get("lost_epsilon")
    compute(model).backward()
    optimizer.step()
    spoiled = sum(int((~each.isfinite()).sum()) for each in model.parameters())
    count = sum(each.numel() for each in model.parameters())
    assert (found.value if found else 0.0) == pytest.approx(spoiled / count)
    if found:
        assert found.verdict is Verdict.UNDERFLOW
        assert "float16" in found.evidence


def test_a_state_that_holds_squares_is_divided_by():
    torch.manual_seed(0)
    model = build().half()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def compute(m):
        return F.mse_loss(m(X.half()), Y.half())

    assert sum(chainrule.inspect(model, compute, optimizer).optimizer.divided) > 0.0
    for each in model.parameters():
        held = torch.full_like(each, 0.01)
        optimizer.state[each] = {"step": torch.tensor(5.0), "exp_avg": held, "exp_avg_sq": held}
    assert chainrule.inspect(model, compute, optimizer).optimizer.divided == (0.0,) * 4
