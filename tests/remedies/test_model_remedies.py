"""`find_remedies(model, compute_loss)`, `apply_remedy`, and models that cannot be helped."""

import copy
import html
import io
import re
import statistics
import threading

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.display.terminal import render_remedies
from chainrule.errors import InspectionError, RemedyError
from chainrule.remedies.advice import advise
from chainrule.remedies.data_driven import fit_biases, fit_scales
from chainrule.remedies.edits import Edit, apply_edits
from chainrule.remedies.failures import quote_error
from chainrule.remedies.model_changes import (
    find_activation,
    list_model_changes,
    list_weights,
)
from chainrule.remedies.result import Outcome, compare_flows
from chainrule.spec.initializers import INITIALIZERS
from sick_models import VARIANTS, plain
from traces import unchanged
from zoo import Lambda, draw


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def sick():
    torch.manual_seed(2)
    return plain(12, nn.ReLU)


# --- What is tried -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ReLU", "relu"), ("ReLU6", "relu"), ("LeakyReLU", "leaky_relu"), ("SELU", "selu"),
        ("NewGELUActivation", "gelu"), ("SiLUActivation", "silu"), ("Tanh", "tanh"), ("", ""),
        ("Softmax", ""),
    ],
)  # fmt: skip
def test_activations_by_class_name(kind, name):
    assert find_activation(kind) == name


@pytest.mark.parametrize("blocks", [4, 9])
def test_scaled_branches_together_add_as_much_as_one_did(blocks):
    def run(m, x):
        h = m.first(x)
        for branch in m.branches:
            h = h + branch(h)
        return m.head(h)

    branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(blocks))
    model = Lambda(run, first=nn.Linear(16, 16), branches=branches, head=nn.Linear(16, 16))
    with torch.no_grad():
        for branch in branches:
            branch.weight.normal_()
    x = torch.randn(8, 16)
    flow = chainrule.inspect(model, lambda m: m(x).square().mean())
    assert len(flow.residuals) == blocks
    changes = list_model_changes(model, flow, chainrule.diagnose(flow))
    (scaled,) = (each for each in changes if each.title.startswith("Residual branches scaled"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    apply_edits(model, scaled.edits)
    for name, parameter in model.named_parameters():
        in_branch = name.startswith("branches.")
        power = parameter.detach().square() * (blocks if in_branch else 1)
        assert torch.allclose(power, before[name].square(), rtol=1e-5, atol=0), name


def test_weights_with_their_fans_and_what_follows():
    class Conv1D(nn.Module):
        """Its weight is in × out, as in GPT-2 of transformers."""

        def __init__(self, nf, nx):
            super().__init__()
            self.nf, self.nx = nf, nx
            self.weight = nn.Parameter(torch.randn(nx, nf))

        def forward(self, x):
            return x @ self.weight

    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2), nn.Flatten(), nn.Linear(100, 5),
        nn.SELU(), Conv1D(7, 5),
    )  # fmt: skip
    x = torch.randn(3, 2, 6, 6)
    found = list_weights(model, chainrule.inspect(model, lambda m: m(x).square().mean()))
    assert [(w.name, w.fan_in, w.fan_out, w.follows) for w in found] == [
        ("0.weight", 18, 54, "relu"),
        ("2.weight", 24, 16, ""),
        ("4.weight", 100, 5, "selu"),
        ("6.weight", 5, 7, ""),
    ]


def test_recurrent_weights_are_drawn_gate_by_gate():
    model, compute_loss = VARIANTS["lstm, 60 steps"]()
    flow = chainrule.inspect(model, compute_loss)
    found = {w.name: w for w in list_weights(model, flow)}
    assert found["rnn.weight_hh_l0"].blocks == 4
    assert found["rnn.weight_hh_l0"].fan_out == 24
    assert "embedding.weight" not in found
    edit = Edit(
        parameter="rnn.weight_hh_l0", shape=(96, 24), action="orthogonal", value=1.0, blocks=4
    )
    apply_edits(model, [edit])
    for gate in model.rnn.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(24))


def test_the_first_remedy_draws_what_the_table_says():
    model, compute_loss = sick()
    remedy = chainrule.find_remedies(model, compute_loss)[0]
    assert remedy.title == "Initialization by what follows each layer"
    by_name = {edit.parameter: edit for edit in remedy.edits}
    he, xavier = INITIALIZERS["he"], INITIALIZERS["xavier"]
    assert by_name["0.weight"].value == he.standard_deviation(32, 32)
    assert by_name["24.weight"].value == xavier.standard_deviation(32, 4)
    assert by_name["0.bias"].action == "fill"
    chainrule.apply_remedy(remedy, model)
    assert model[0].weight.std().item() == pytest.approx(by_name["0.weight"].value, rel=0.05)
    assert (model[0].bias == 0).all()


def test_measured_scales_give_every_layer_its_spread():
    model, compute_loss = sick()
    treatment = fit_scales(
        copy.deepcopy(model), chainrule.inspect(model, compute_loss), compute_loss
    )
    apply_edits(model, treatment.edits)
    flow = chainrule.inspect(model, compute_loss)
    for layer in flow.weight_layers:
        assert layer.pre_activation.std == pytest.approx(1.0, rel=1e-3)


def test_woken_units_are_on_for_some_examples():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    with torch.no_grad():
        model[0].bias[:3] = -50.0
        model[3].bias[4:] = -50.0
    x = torch.randn(9, 2, 6, 6)

    def compute_loss(m):
        return m(x).square().mean()

    before = chainrule.inspect(model, compute_loss)
    treatment = fit_biases(copy.deepcopy(model), before, compute_loss)
    kept = [model[0].bias[3].item(), *model[3].bias[:4].tolist()]
    apply_edits(model, treatment.edits)
    assert [model[0].bias[3].item(), *model[3].bias[:4].tolist()] == kept
    after = chainrule.inspect(model, compute_loss)
    assert [layer.dead_share for layer in before.weight_layers[:2]] == [0.75, 0.5]
    assert [layer.dead_share for layer in after.weight_layers[:2]] == [0.0, 0.0]


def test_the_same_twice_and_ranked():
    first, second = (chainrule.find_remedies(*sick()) for _ in range(2))
    assert [r.to_dict() for r in first.tried] == [r.to_dict() for r in second.tried]
    order = ["measures well", "helps", "trades", "fails"]
    places = [order.index(remedy.outcome) for remedy in first.tried]
    assert places == sorted(places)
    assert all(remedy.before is first.before for remedy in first.tried)
    assert all(remedy not in first.refuted for remedy in first)


def test_dropout_is_the_same_before_and_after():
    model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Linear(64, 64), nn.Linear(64, 4))
    with torch.no_grad():
        model[2].weight.mul_(1e-5)
    x = torch.randn(32, 16)

    def compute_loss(m):
        return F.mse_loss(m(x), torch.ones(32, 4))

    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    zeros = [r.after.layers[1].statistics.zero_share for r in found.tried]
    assert zeros == [found.before.layers[1].statistics.zero_share] * len(zeros)
    assert zeros


def test_bounded_and_cancelled():
    model, compute_loss = sick()
    found = chainrule.find_remedies(model, compute_loss, measurements=3)
    assert len(found.tried) == 1
    assert not chainrule.find_remedies(model, compute_loss, measurements=1).tried
    calls = 0

    def count(m):
        nonlocal calls
        calls += 1
        return compute_loss(m)

    chainrule.find_remedies(model, count, enough=100)
    assert calls <= 14  # 12 measurements, and a forward pass for each of two candidates

    def stop(done, planned):
        if done == 3:
            raise KeyboardInterrupt

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        chainrule.find_remedies(model, compute_loss, progress=stop)


def test_compiled_models_are_changed_through_the_original():
    model, compute_loss = sick()
    wrapped = torch.compile(model, backend="eager")
    remedy = chainrule.find_remedies(wrapped, compute_loss)[0]
    flow = chainrule.apply_remedy(remedy, wrapped, compute_loss)
    assert flow.to_json() == chainrule.inspect(model, compute_loss).to_json()


def test_the_advised_rates_change_the_median_layer_by_a_thousandth():
    spec = chainrule.NetworkSpec(depth=5, width=32, activation="relu", init="he")
    model, compute_loss = chainrule.build_network(spec), chainrule.make_loss(spec)
    flow = chainrule.inspect(model, compute_loss)
    (found,) = (
        each for each in advise(flow, chainrule.diagnose(flow)) if "learning rate" in each.title
    )
    sgd, adam = map(float, re.findall(r"near ([0-9.e-]+)", found.title))
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    gradients = torch.autograd.grad(compute_loss(model), weights)
    sizes = [weight.detach().norm() for weight in weights]
    by_sgd = [float(sgd * g.norm() / w) for w, g in zip(sizes, gradients, strict=True)]
    by_adam = [float(adam * 32 / size) for size in sizes]  # Adam moves all 32² entries by its rate
    # A rate is told to one digit.
    assert statistics.median(by_sgd) == pytest.approx(1e-3, rel=0.34)
    assert statistics.median(by_adam) == pytest.approx(1e-3, rel=0.34)


def test_a_learning_rate_is_advised_only_where_gradients_can_be_used():
    titles = [a.title for a in chainrule.find_remedies(*VARIANTS["plain 30, sigmoid"]()).advice]
    assert not any("learning rate" in title for title in titles)
    advice = chainrule.find_remedies(*sick()).advice
    assert any("After the first remedy" in entry.reason for entry in advice)
    for entry in advice:
        compile(entry.code, "advice", "exec")


# --- Applying ------------------------------------------------------------------------------------


def test_applying_keeps_the_tensors():
    model, compute_loss = sick()
    parameters = [id(p) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    remedy = chainrule.find_remedies(model, compute_loss)[0]
    assert chainrule.apply_remedy(remedy, model) is remedy.after
    assert [id(p) for p in model.parameters()] == parameters
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == parameters
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_another_model_is_refused_and_stays():
    remedy = chainrule.find_remedies(*sick())[0]
    for other in (plain(11, nn.ReLU)[0], plain(13, nn.ReLU)[0], nn.Linear(3, 3)):
        with unchanged(other), pytest.raises(RemedyError, match="Nothing was changed"):
            chainrule.apply_remedy(remedy, other)
    wider = nn.Sequential(nn.Linear(33, 32), *sick()[0][1:])
    with pytest.raises(RemedyError, match=re.escape("'0.weight' has shape [32, 33]")):
        chainrule.apply_remedy(remedy, wider)


def test_what_is_no_remedy_for_a_model_is_refused():
    model, _ = sick()
    spec = chainrule.find_remedies(chainrule.NetworkSpec(depth=15, activation="sigmoid"), 3)[0]
    with pytest.raises(RemedyError, match=r"build_network\(remedy.spec\)"):
        chainrule.apply_remedy(spec, model)
    with pytest.raises(RemedyError, match=r"remedy .*got str"):
        chainrule.apply_remedy("he", model)
    with pytest.raises(RemedyError, match=r"model .*torch\.nn\.Module; got int"):
        chainrule.apply_remedy(chainrule.find_remedies(*sick())[0], 3)


# --- Bad input -----------------------------------------------------------------------------------


def test_arguments():
    model, compute_loss = sick()
    with pytest.raises(RemedyError, match=r"measurements: .*above 0; got 0"):
        chainrule.find_remedies(model, compute_loss, measurements=0)
    with pytest.raises(RemedyError, match=r"enough: .*above 0; got True"):
        chainrule.find_remedies(model, compute_loss, enough=True)
    with pytest.raises(chainrule.ChainruleError, match=r"or give a torch\.nn\.Module"):
        chainrule.find_remedies("model")


def test_a_model_without_parameters():
    model = nn.Sequential(nn.Tanh())
    x = draw(4, 3, grad=True)

    def compute_loss(m):
        return m(x).sum()

    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.diagnosis.verdict is Verdict.NO_GRADIENT
    assert found.diagnosis.summary == "The model has no parameters."
    assert not found.tried
    assert "the model has no parameters" in found.note
    assert "detach" not in found.diagnosis.action + found.note
    with pytest.raises(chainrule.errors.LossError, match="it has no parameters") as caught:
        chainrule.find_remedies(model, lambda m: m(x.detach()).sum())
    assert "detach" not in str(caught.value)


def test_a_model_without_gradient():
    model = nn.Linear(3, 2).requires_grad_(False)
    x = torch.randn(4, 3)
    with unchanged(model), pytest.raises(chainrule.errors.LossError, match="all frozen"):
        chainrule.find_remedies(model, lambda m: m(x).sum())


def test_a_loss_that_ignores_the_model():
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    x = torch.randn(4, 3)
    with unchanged(model):
        found = chainrule.find_remedies(model, lambda m: other(x).sum())
    assert found.diagnosis.findings[0].rule == "nothing_to_train"
    assert not found.tried


def test_a_loss_that_uses_the_original_instead_of_the_copy():
    model, compute_loss = sick()
    with (
        unchanged(model),
        pytest.raises(InspectionError, match=r"compute_loss must use .*lambda m: loss\(m\(x\)\)"),
    ):
        chainrule.find_remedies(model, lambda m: compute_loss(model))


def test_batch_statistics_of_the_original_stay_though_the_loss_runs_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(8, 3)
    with torch.no_grad():
        model[2].weight.mul_(1e-6)

    def compute_loss(m):
        return m(x).square().mean() + model(x).detach().sum()

    with unchanged(model):
        chainrule.find_remedies(model, compute_loss)


def test_weights_that_are_not_numbers():
    model, compute_loss = sick()
    with torch.no_grad():
        model[4].weight[0, 0] = torch.nan
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.diagnosis.verdict is Verdict.NON_FINITE
    assert found.diagnosis.findings[0].modules[0] == "4.weight"
    assert found[0].title == "Initialization by what follows each layer"
    assert found[0].is_good


def test_too_large_for_a_copy():
    model, compute_loss = sick()
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss, copy_limit=1000)
    assert not found.tried
    assert all(fact in found.note for fact in ("Nothing was tried", "copy_limit", "MiB"))
    assert found.advice


def test_what_cannot_be_copied():
    model, compute_loss = sick()
    model.lock = threading.Lock()
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert not found.tried
    facts = ("Nothing was tried", "'lock'", "type lock", "TypeError: cannot pickle '_thread.lock'")
    assert all(fact in found.note for fact in facts)
    assert "None" in found.note
    assert found.advice


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("a"), "KeyError: 'a'"),
        (StopIteration(), "StopIteration"),
        (ValueError("First. Second one."), "ValueError: First"),
        (ValueError("torch.nn.utils.x " * 40), "ValueError: " + "torch.nn.utils.x " * 17 + "…"),
    ],
)
def test_errors_are_quoted_in_whole_words(error, text):
    assert quote_error(error) == text


def test_data_on_a_device_that_is_not_there():
    model, _ = sick()

    def compute_loss(m):
        return m(torch.randn(2, 32, device="cuda")).sum()

    if torch.cuda.is_available():
        pytest.skip("the device is there")
    with unchanged(model), pytest.raises(InspectionError, match="compute_loss must run"):
        chainrule.find_remedies(model, compute_loss)


def test_parameters_without_values():
    model = nn.Linear(3, 2, device="meta")
    with pytest.raises(InspectionError, match="meta device"):
        chainrule.find_remedies(model, lambda m: m(torch.randn(4, 3)).sum())


def test_modules_that_chainrule_does_not_know_stay_as_they_are():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4) * 1e-5)

        def forward(self, x):
            return x @ self.weight

    model = nn.Sequential(Odd(), nn.Tanh(), Odd())
    x = torch.randn(8, 4)
    found = chainrule.find_remedies(model, lambda m: F.mse_loss(m(x), x))
    assert found.diagnosis.verdict is not Verdict.HEALTHY
    assert not found.tried
    assert "'0.weight', '2.weight'" in found.note
    assert found.advice


def test_tied_weights_are_drawn_once():
    shared = nn.Linear(16, 16)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        shared.weight.mul_(1e-3)
    x = torch.randn(8, 16)
    found = chainrule.find_remedies(model, lambda m: F.mse_loss(m(x), torch.ones(8, 2)))
    names = [edit.parameter for edit in found[0].edits]
    assert len(names) == len(set(names)) == 4


def test_a_loss_with_a_gradient_penalty():
    model = nn.Sequential(nn.Linear(4, 32), nn.Softplus(), nn.Linear(32, 1))
    with torch.no_grad():
        model[0].weight.mul_(1e-4)
    x = torch.randn(8, 4, requires_grad=True)

    def compute_loss(m):
        (slope,) = torch.autograd.grad(m(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.tried or found.diagnosis.verdict is Verdict.HEALTHY


# --- Models as people have them ------------------------------------------------------------------


class Around(nn.Module):
    """A deep network that vanishes, in a module that holds something else, too."""

    def __init__(self, **parts):
        super().__init__()
        self.net, self.compute = sick()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.net(x)


def test_unused_weights_do_not_keep_the_rest_from_being_helped():
    model = Around(head=nn.Linear(3, 3), mask=nn.Parameter(torch.zeros(1, 3)))
    with unchanged(model):
        found = chainrule.find_remedies(model, model.compute)
    reference = chainrule.find_remedies(*sick())
    assert found.diagnosis.verdict is reference.diagnosis.verdict
    assert [(r.title, r.outcome) for r in found.tried] == [
        (r.title, r.outcome) for r in reference.tried
    ]
    best = found[0]
    assert best.is_good
    assert best.comparison.rule == reference[0].comparison.rule
    assert best.comparison.before == reference[0].comparison.before
    assert best.verdict_after is Verdict.HEALTHY
    assert best.verdict_before is reference[0].verdict_before
    assert "does not reach 'mask', 'head.weight'" in found.note
    touched = {edit.parameter for edit in best.edits}
    assert touched
    assert not any(name.startswith(("head", "mask")) for name in touched)
    flow = chainrule.apply_remedy(best, model, model.compute)
    assert not chainrule.diagnose(flow).findings


def test_remedies_and_the_note_are_shown_together(tmp_path):
    model = Around(head=nn.Linear(3, 3))
    found = chainrule.find_remedies(model, model.compute)
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(render_remedies(found))
    chainrule.write_report(found.before, tmp_path / "report.html", remedies=found)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in (console.export_text(), html.unescape(page)):
        assert found[0].title in shown
        assert "the loss does not reach 'head.weight'" in shown


def test_weights_that_become_unreached_are_no_cure():
    """A change after which more is unreached exchanges one problem for another."""
    model = Around(head=nn.Linear(3, 3))
    other = Around(head=nn.Linear(3, 3), tail=nn.Linear(3, 3))
    chainrule.apply_remedy(chainrule.find_remedies(other.net, other.compute)[0], other.net)
    before, after = (chainrule.inspect(m, m.compute) for m in (model, other))
    remedy = compare_flows(before, after, title="", reason="", kinds=("initialization",))
    assert remedy.outcome is Outcome.TRADES


def test_only_unreached_weights():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model.unused = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    x = torch.randn(16, 8)
    found = chainrule.find_remedies(model, lambda m: F.mse_loss(m[:3](x), x))
    assert [f.rule for f in found.diagnosis.findings] == ["unreached"]
    assert not found.tried
    assert "no change of weights helps" in found.note
    advice = next(each for each in found.advice if each.title.startswith("Freeze"))
    exec(advice.code, {"model": model})
    flow = chainrule.inspect(model, lambda m: F.mse_loss(m[:3](x), x))
    assert chainrule.diagnose(flow).verdict is Verdict.HEALTHY


class Keeping(Around):
    """Keeps what it computes, with its graph, as mixture-of-experts layers do."""

    def forward(self, x):
        out = self.net(x)
        self.aux = out.pow(2).mean()
        self.kept = {"outputs": [out, (out.sum(),)]}
        return out


@pytest.mark.parametrize("ran_before", [False, True])
def test_models_that_keep_tensors_are_copied(ran_before):
    model = Keeping(aux=None)
    if ran_before:
        model(torch.randn(3, model.net[0].in_features))

    def compute_loss(m):
        return model.compute(m) + m.aux

    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found[0].is_good
    assert not found.note


def test_old_weight_normalization_is_copied():
    model, compute_loss = sick()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[0])
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.tried
    assert not found.note


@pytest.mark.parametrize("runs", [1, 5])
def test_a_loss_that_runs_a_few_times(runs):
    model, compute_loss = sick()
    batches = [None] * runs

    def take(m):
        batches.pop()
        return compute_loss(m)

    with unchanged(model):
        found = chainrule.find_remedies(model, take, enough=9)
    assert "IndexError: pop from" in found.note
    if runs > 1:  # the model, its copy, and forward passes that fit a change take some runs
        failed, listed = map(int, re.match(r"(\d+) of (\d+) changes", found.note).groups())
        assert 0 < len(found.tried) == listed - failed < runs - 1
    assert found.note.count("Nothing was tried") == (runs == 1)


@pytest.mark.parametrize("batches", [[2.0, 5.0, 7.0], (2.0,), iter([2.0, 5.0])])
def test_of_batches_the_first_is_measured(batches):
    model, compute_loss = sick()
    expected = float(2.0 * compute_loss(model).detach())
    found = chainrule.find_remedies(
        model, lambda m, factor: factor * compute_loss(m), batches=batches, enough=1
    )
    assert found.before.loss == pytest.approx(expected)
    assert found.tried
    for each in found.tried:
        changed = copy.deepcopy(model)
        after = chainrule.apply_remedy(each, changed, lambda m: 2.0 * compute_loss(m))
        assert each.after.loss == pytest.approx(after.loss)


def test_no_measurement_left_for_a_change():
    model, compute_loss = sick()
    found = chainrule.find_remedies(model, compute_loss, measurements=2)
    assert not found.tried
    assert "Nothing was tried: `measurements`" in found.note


def test_lambda_modules_are_copied_with_their_functions():
    model = Lambda(
        lambda m, x: m.last(m.first(x).relu()), first=nn.Linear(8, 8), last=nn.Linear(8, 1)
    )
    with torch.no_grad():
        model.first.weight.mul_(1e-6)
    x = torch.randn(8, 8)
    assert chainrule.find_remedies(model, lambda m: (m(x) - 1).square().mean()).tried
