"""Edits, changes, advice and judgements of small models, worked out by hand."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import RemedyError
from chainrule.flow.quantity import Quantity
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.measure.inspection import inspect
from chainrule.remedies.advice import advise, format_rate
from chainrule.remedies.changes import COSTS, KINDS, Change
from chainrule.remedies.data_driven import fit_biases, fit_scales
from chainrule.remedies.edits import Edit, apply_edits, apply_or_undo, describe_edits, respond_once
from chainrule.remedies.model_changes import (
    ModelChange,
    combine,
    draw,
    find_activation,
    list_biases,
    list_branch_ends,
    list_model_changes,
    list_weights,
)
from chainrule.remedies.result import (
    Comparison,
    Outcome,
    Remedies,
    compare_flows,
    confirm,
    describe_harm,
    prove,
)
from chainrule.remedies.search import Search
from chainrule.remedies.spec_changes import (
    SpecChange,
    choose_ingredients,
    combine_spec_changes,
    list_spec_changes,
    scale_weights,
)
from chainrule.spec.network_spec import NetworkSpec
from made_flows import call, make_chain, make_flow, parameter, residual


class TestEdits:
    @staticmethod
    def apply(*edits, model=None):
        model = model or nn.Linear(2, 4)
        with torch.no_grad():
            model.weight.copy_(torch.arange(8.0).reshape(4, 2))
            model.bias.copy_(torch.arange(4.0))
        apply_edits(model, edits)
        return model

    def test_fill_scale_and_shift(self):
        fill = Edit(parameter="weight", shape=(4, 2), action="fill", value=3.0)
        assert self.apply(fill).weight.tolist() == [[3.0, 3.0]] * 4
        rows = Edit(parameter="bias", shape=(4,), action="fill", value=9.0, rows=(1, 3))
        assert self.apply(rows).bias.tolist() == [0.0, 9.0, 9.0, 3.0]
        scale = Edit(parameter="bias", shape=(4,), action="scale", value=2.0)
        assert self.apply(scale, scale).bias.tolist() == [0.0, 4.0, 8.0, 12.0]
        shift = Edit(parameter="weight", shape=(4, 2), action="shift", values=(1.0, 2.0, 3.0, 4.0))
        assert self.apply(shift).weight.tolist() == [[1.0, 2.0], [4.0, 5.0], [7.0, 8.0], [10, 11]]

    def test_drawings_have_their_size_and_seed(self):
        shape = (200, 100)
        model = nn.Linear(100, 200)
        normal = Edit(parameter="weight", shape=shape, action="normal", value=0.25, seed=3)
        apply_edits(model, [normal])
        first = model.weight.detach().clone()
        assert float(first.std()) == pytest.approx(0.25, rel=0.02)
        assert abs(float(first.mean())) < 0.01
        apply_edits(model, [normal])
        assert torch.equal(model.weight, first)
        apply_edits(model, [replace(normal, seed=4)])
        assert not torch.equal(model.weight, first)

    @pytest.mark.parametrize("blocks", [1, 2])
    def test_orthogonal_blocks_have_orthonormal_rows_times_the_value(self, blocks):
        model = nn.Conv1d(3, 4, 2)
        edit = Edit(
            parameter="weight", shape=(4, 3, 2), action="orthogonal", value=3.0, blocks=blocks
        )
        apply_edits(model, [edit])
        for block in model.weight.detach().flatten(1).chunk(blocks):
            gram = block @ block.T
            torch.testing.assert_close(gram, 9.0 * torch.eye(len(block)), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        "fields",
        [
            {"action": "shift", "values": (1.0,) * 3},
            {"action": "fill", "rows": (0, 5)},
            {"action": "fill", "rows": (-1, 2)},
            {"action": "fill", "rows": (3, 2)},
            {"action": "orthogonal", "blocks": 3},
            {"action": "orthogonal", "blocks": 0},
            {"action": "turn"},
        ],
    )
    def test_that_do_not_fit_their_shape_are_refused(self, fields):
        with pytest.raises(RemedyError):
            Edit(parameter="weight", shape=(4, 2), **fields)

    def test_that_fit_their_shape_are_not(self):
        Edit(parameter="weight", shape=(4, 2), action="fill", rows=(0, 4))
        Edit(parameter="weight", shape=(4, 2), action="fill", rows=(2, 2))
        Edit(parameter="weight", shape=(4, 2), action="orthogonal", blocks=4)

    def test_come_back_if_what_follows_raises(self):
        model = nn.Linear(2, 4)
        before = model.weight.detach().clone()
        edit = Edit(parameter="weight", shape=(4, 2), action="fill")

        def run(error):
            with apply_or_undo(model, [edit, edit]):
                assert model.weight.abs().sum() == 0
                raise error

        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error):
                run(error)
            assert torch.equal(model.weight, before)
        with apply_or_undo(model, [edit]):
            pass
        assert model.weight.abs().sum() == 0

    @pytest.mark.parametrize(
        ("names", "text"),
        [("", "no parameter"), ("a", "a"), ("aab", "a and 1 other"), ("abc", "a and 2 others")],
    )
    def test_are_named_by_the_first_and_how_many_more(self, names, text):
        edits = [Edit(parameter=name, shape=(1,), action="fill") for name in names]
        assert describe_edits(edits) == text

    def test_answers_are_changed_at_the_first_call_alone(self):
        model = nn.Identity()
        x = torch.ones(2)
        with respond_once([model], lambda module, output: output + 1):
            assert [model(x).tolist() for _ in range(2)] == [[2.0, 2.0], [1.0, 1.0]]
        assert model(x).tolist() == [1.0, 1.0]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(7, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.conv, self.back = nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(6, 4, 3)
        self.cell, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        h = self.embed(x)
        h = h + self.attend(h, h, h)[0]
        h = self.back(self.conv(h.mT).relu()).mT
        return self.head(self.cell(h)[0])


def measure(model, x):
    return inspect(model, lambda m: m(x).square().mean())


class TestWeights:
    def test_of_every_kind_with_their_fans(self):
        torch.manual_seed(0)
        model = Attending()
        flow = measure(model, torch.randint(7, (3, 6)))
        found = {w.name: (w.fan_in, w.fan_out, w.blocks) for w in list_weights(model, flow)}
        assert found == {
            "attend.in_proj_weight": (4, 4, 3),
            "attend.out_proj.weight": (4, 4, 1),
            "conv.weight": (12, 18, 1),
            "back.weight": (18, 12, 1),
            "cell.weight_ih_l0": (4, 5, 3),
            "cell.weight_hh_l0": (5, 5, 3),
            "head.weight": (5, 2, 1),
        }
        weights = list_weights(model, flow)
        assert [edit.parameter for edit in list_biases(model, flow, weights)] == [
            "attend.out_proj.bias",
            "conv.bias",
            "back.bias",
            "head.bias",
        ]
        (embedding,) = [
            each
            for each in list_model_changes(model, flow, diagnose(flow))
            if each.edits[0].parameter == "embed.weight"
        ]
        assert (embedding.edits[0].value, embedding.edits[0].shape) == (0.02, (7, 4))

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("LeakyReLU", "leaky_relu"),
            ("ReLU6", "relu"),
            ("NewGELUActivation", "gelu"),
            ("SELU", "selu"),
            ("ELU", "elu"),
            ("Softmax", ""),
        ],
    )
    def test_activation_is_the_longest_name_that_fits(self, kind, name):
        assert find_activation(kind) == name

    @pytest.mark.parametrize(
        ("initializer", "std"), [("he", math.sqrt(2 / 9)), ("lecun", 1 / 3), ("xavier", 0.4)]
    )
    def test_are_drawn_as_the_table_says(self, initializer, std):
        (weight,) = list_weights(*self.build())
        edit = draw(replace(weight, fan_in=9, fan_out=3.5), initializer, 8)
        assert (edit.action, edit.seed) == ("normal", 8)
        assert edit.value == pytest.approx(std)

    @pytest.mark.parametrize(("follows", "gain"), [("relu", 2**0.5), ("tanh", 1.0), ("", 1.0)])
    def test_orthogonal_ones_make_up_for_a_relu(self, follows, gain):
        (weight,) = list_weights(*self.build())
        edit = draw(replace(weight, follows=follows, blocks=2), "orthogonal", 5)
        assert (edit.action, edit.blocks, edit.seed) == ("orthogonal", 2, 5)
        assert edit.value == pytest.approx(gain)

    @staticmethod
    def build():
        model = nn.Linear(4, 4)
        return model, measure(model, torch.randn(3, 4))

    def test_gates_remember_for_as_many_steps_as_there_are(self):
        model = nn.LSTM(3, 5)
        flow = inspect(model, lambda m: m(torch.randn(7, 2, 3))[0].square().mean())
        first = nn.LSTM(3, 5, batch_first=True)
        other = inspect(first, lambda m: m(torch.randn(4, 9, 3))[0].square().mean())
        values = {
            edit.value
            for each in list_model_changes(first, other, diagnose(other))
            for edit in each.edits
            if edit.rows
        }
        assert values == {0.0, math.log(9)}
        (change,) = [
            each
            for each in list_model_changes(model, flow, diagnose(flow))
            if any(edit.rows for edit in each.edits)
        ]
        found = {e.parameter: (e.value, e.rows, e.shape) for e in change.edits}
        assert found == {
            "bias_ih_l0": (0.0, (5, 10), (20,)),
            "bias_hh_l0": (pytest.approx(math.log(7)), (5, 10), (20,)),
        }

    def test_two_changes_are_made_one_after_the_other(self):
        one, two = (
            ModelChange(
                kinds=(kind,),
                title=kind,
                reason=f"{kind}.",
                edits=(Edit(parameter=kind, shape=(1,), action="fill"),),
            )
            for kind in ("bias", "gain")
        )
        both = combine(one, two)
        assert (both.kinds, both.edits) == (("bias", "gain"), (*one.edits, *two.edits))
        assert (both.title, both.reason) == ("bias + gain", "bias. gain.")
        assert both.cost > two.cost > one.cost

    def test_kinds_are_ranked_by_what_they_cost(self):
        assert list(KINDS) == [
            "initialization",
            "bias",
            "clipping",
            "residual",
            "normalization",
            "gain",
            "activation",
            "depth",
            "width",
        ]
        pair = Change(kinds=("bias", "width"), title="", reason="")
        assert pair.cost == (2, COSTS["width"], COSTS["bias"])


class Branching(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())
            for _ in range(blocks)
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class TestBranches:
    def test_end_in_their_last_module_with_weights(self):
        torch.manual_seed(0)
        model = Branching(3)
        x = torch.randn(5, 4, requires_grad=True)
        flow = measure(model, x)
        assert [name for name, _ in list_branch_ends(model, flow)] == [
            f"blocks.{at}.3" for at in range(3)
        ]
        diagnosis = diagnose(flow)
        assert not any("branches" in c.title for c in list_model_changes(model, flow, diagnosis))
        exploding = replace(diagnosis, verdict=Verdict.EXPLODING)
        zero, scaled = (
            c for c in list_model_changes(model, flow, exploding) if "branches" in c.title
        )
        names = [f"blocks.{at}.3.{key}" for at in range(3) for key in ("weight", "bias")]
        assert [edit.parameter for edit in zero.edits] == names
        assert [(edit.action, edit.value) for edit in zero.edits] == [("fill", 0.0)] * 6
        assert [edit.parameter for edit in scaled.edits] == names
        for edit in scaled.edits:
            assert (edit.action, edit.value) == ("scale", pytest.approx(3**-0.5))


class TestMeasuredScales:
    def test_outputs_get_one_spread_and_four_times_that_before_a_sigmoid(self):
        torch.manual_seed(0)
        x = torch.randn(50, 6) * 3 + 1
        model = nn.Sequential(
            nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
        )
        flow = measure(model, x)
        change = fit_scales(copy.deepcopy(model), flow, lambda m: m(x))
        apply_edits(model, change.edits)
        spreads = []
        h = x
        for layer in model:
            h = layer(h)
            if isinstance(layer, nn.Linear):
                spreads.append(float(h.detach().std(correction=0)))
                assert layer.bias.abs().sum() == 0
        assert spreads == pytest.approx([4.0, 1.0, 1.0], rel=1e-4)

    def test_dead_units_get_a_mean_of_zero_and_the_others_stay(self):
        torch.manual_seed(0)
        x = torch.randn(50, 6)
        model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        with torch.no_grad():
            model[0].bias[1:3] = -20.0
        flow = measure(model, x)
        change = fit_biases(copy.deepcopy(model), flow, lambda m: m(x))
        (edit,) = change.edits
        assert (edit.parameter, edit.action) == ("0.bias", "shift")
        assert [bool(value) for value in edit.values] == [False, True, True, False]
        apply_edits(model, change.edits)
        assert model[0](x).mean(0)[1:3].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
        assert fit_biases(copy.deepcopy(model), measure(model, x), lambda m: m(x)) is None

    def test_dead_channels_of_a_convolution(self):
        torch.manual_seed(0)
        x = torch.randn(5, 2, 6, 6)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
        with torch.no_grad():
            model[0].bias[2] = -20.0
        change = fit_biases(copy.deepcopy(model), measure(model, x), lambda m: m(x))
        apply_edits(model, change.edits)
        means = model[0](x).detach().mean((0, 2, 3))
        assert float(means[2]) == pytest.approx(0.0, abs=1e-5)
        assert [bool(value) for value in change.edits[0].values] == [False, False, True]


class TestAdvice:
    @staticmethod
    def titles(flow, **options):
        return [each.title for each in advise(flow, diagnose(flow), **options)]

    def test_rates_change_the_median_layer_by_a_thousandth(self):
        norms = ((2.0, 0.5), (2.0, 1.0), (2.0, 4.0))
        weights = [
            parameter(str(at), at + 1, norm=norm, grad_norm=grad, shape=(4, 4))
            for at, (norm, grad) in enumerate(norms)
        ]
        weights += [
            parameter("bias", 1, shape=(4,), grad_norm=99.0),
            parameter("still", 1, grad_norm=0.0),
            parameter("zero", 1, norm=0.0),
            parameter("frozen", 1, status="frozen"),
        ]
        flow = make_flow(make_chain([1.0] * 3).layers, weights, chain=True)
        (advice,) = [e for e in advise(flow, diagnose(flow)) if "learning rate" in e.title]
        # median of ‖g‖ ÷ ‖W‖ is 0.5, and the root mean square of the weights 0.5
        assert "0.002 for SGD" in advice.title
        assert "0.0005 for Adam" in advice.title
        assert "lr=0.0005" in advice.code

    @pytest.mark.parametrize(("spread", "alone"), [(999.0, False), (1001.0, True)])
    def test_no_rate_of_sgd_suits_layers_a_thousand_times_apart(self, spread, alone):
        flow = make_chain([1.0, spread])
        (title,) = [each for each in self.titles(flow) if "learning rate" in each]
        assert ("SGD" not in title) is alone

    @pytest.mark.parametrize(
        ("rate", "text"), [(0.0312, "0.03"), (2.7e-5, "3e-05"), (0.96, "1"), (12.0, "10")]
    )
    def test_rates_have_one_digit(self, rate, text):
        assert format_rate(rate) == text

    def test_rate_is_for_what_is_healthy_or_cured(self):
        sick, well = make_chain([1e-9, 1.0, 1.0]), make_chain([1.0, 1.0, 1.0])
        assert not any("learning rate" in each for each in self.titles(sick))
        (advice,) = [
            e for e in advise(sick, diagnose(sick), cured=well) if "learning rate" in e.title
        ]
        assert advice.reason.startswith("After the first remedy")

    def test_clipping_is_for_what_explodes(self):
        flow = make_chain([3e6, 4e6])
        (advice,) = [e for e in advise(flow, diagnose(flow)) if "clip" in e.code]
        assert "5.0·10⁶" in advice.reason
        assert not any("lipping" in each for each in self.titles(make_chain([1e-9, 1.0])))

    def test_architecture_is_what_is_missing(self):
        def ask(kind="Tanh", norms=(1e-9, 1.0, 1.0), extra=(), **fields):
            flow = make_chain(list(norms), kind)
            layers = (*flow.layers, *extra)
            return self.titles(make_flow(layers, flow.parameters, chain=True, **fields))

        def has(titles, word):
            return any(word in each for each in titles)

        assert has(ask(), "Residual")
        assert has(ask(), "Normalization")
        assert has(ask(), "flat on one side")
        assert not has(ask("ReLU"), "flat on one side")
        assert has(ask("Sigmoid"), "flat on one side")
        assert not has(ask(norms=(1e-9, 1.0)), "Residual")  # too few layers
        assert not has(ask(residuals=(residual(),)), "Residual")
        assert not has(ask(extra=(call("n", "LayerNorm"),)), "Normalization")
        assert not has(ask(norms=(1.0, 1.0, 1.0)), "Normalization")
        after = residual(normalization="after", gradient=1e-3)
        flow = ask(residuals=(after, residual(normalization="after")))
        assert has(flow, "before each branch")
        assert not has(ask(residuals=(residual(gradient=1e-3), residual())), "before each branch")

    def test_unreached_weights_are_named(self):
        weights = [parameter("a.weight", 1), parameter("b.weight", 2, status="unreached")]
        flow = make_flow([call("a", layer=1)], weights)
        (advice,) = [e for e in advise(flow, diagnose(flow)) if "Freeze" in e.title]
        assert "'b.weight'" in advice.reason
        assert "('b.weight',)" in advice.code


class TestOutcome:
    @staticmethod
    def compare(before, after, **options):
        values = {"title": "t", "reason": "r", "kinds": ("initialization",)} | options
        return compare_flows(before, after, **values)

    def test_is_judged_by_the_gravest_finding(self):
        before = make_chain([1e-9, 1.0, 1.0])
        remedy = self.compare(before, make_chain([1.0, 1.0, 1.0]))
        assert remedy.outcome is Outcome.MEASURES
        assert remedy.is_good
        assert not remedy.is_cure
        assert remedy.comparison.rule == "vanishing_gradient"
        root = math.sqrt(3.0)  # three outputs
        assert remedy.comparison.before == pytest.approx(1e-9 / root)
        assert remedy.comparison.after == pytest.approx(1.0 / root)
        assert self.compare(before, make_chain([1e-5, 1.0, 1.0])).outcome is Outcome.HELPS
        assert self.compare(before, make_chain([1.1e-9, 1.0, 1.0])).outcome is Outcome.FAILS
        assert self.compare(before, make_chain([1.0, 1e7, 1.0])).outcome is Outcome.TRADES

    def test_weights_that_are_cut_off_are_another_problem(self):
        before = make_chain([1e-9, 1.0, 1.0])
        after = make_chain([1.0, 1.0, 1.0])
        cut = replace(after.parameters[1], status="unreached", grad_norm=None)
        after = make_flow(after.layers, (after.parameters[0], cut, after.parameters[2]), chain=True)
        assert self.compare(before, after).outcome is Outcome.TRADES

    def test_of_a_healthy_network_there_is_nothing_to_compare(self):
        with pytest.raises(RemedyError):
            self.compare(make_chain([1.0, 1.0]), make_chain([1.0, 1.0]))

    @pytest.mark.parametrize(
        ("before", "after", "harm"),
        [
            (1.0, 9.9, False),
            (1.0, 10.1, True),
            (0.0, 10.0, False),
            (-1.0, 99.0, False),
            (math.nan, 99.0, False),
            (1.0, math.nan, True),
            (1.0, math.inf, True),
            (10.0, 1.0, False),
        ],
    )
    def test_a_loss_ten_times_as_large_is_harm(self, before, after, harm):
        one, other = make_chain([1.0], loss=before), make_chain([1.0], loss=after)
        assert bool(describe_harm(one, other)) is harm

    def test_numbers_that_are_lost_are_harm(self):
        one = make_chain([1.0, 1.0])

        def spoil(**fields):
            bad = replace(one.parameters[0], **{k: Quantity([v]) for k, v in fields.items()})
            return make_flow(one.layers, (bad, one.parameters[1]), chain=True)

        assert describe_harm(one, spoil(grad_non_finite=1.0))
        assert describe_harm(one, spoil(non_finite=1.0))
        assert not describe_harm(spoil(non_finite=5.0), spoil(non_finite=1.0))
        assert describe_harm(spoil(non_finite=5.0), spoil(non_finite=5.0))

    @pytest.mark.parametrize(
        ("rule", "after", "passes"),
        [
            ("dead_units", 0.7, True),
            ("dead_units", 0.71, False),
            ("same_answer", 0.01, True),
            ("same_answer", 0.009, False),
            ("same_answer", math.nan, False),
            ("same_answer", None, True),
        ],
    )
    def test_passes_on_the_bound(self, rule, after, passes):
        bound, beyond = (0.7, ">") if rule == "dead_units" else (0.01, "<")
        comparison = Comparison(
            rule=rule, metric="m", before=0.8, after=after, threshold=bound, beyond=beyond
        )
        assert comparison.passes is passes
        word = "largest" if rule == "dead_units" else "m"
        assert word in comparison.name


def make_trial(outcome, learned=0.5, fresh=True, name="SGD"):
    rate = RateTrial(
        rate=0.1, steps=40, before=2.0, after=1.0, learned=learned, outcome=TrialOutcome(outcome)
    )
    optimizer = OptimizerTrial(name=name, rates=(rate,))
    return Trial(optimizers=(optimizer,), passes=80.0, limit=300, fresh=fresh, kept=3)


class TestProof:
    REMEDY = TestOutcome.compare(make_chain([1e-9, 1.0, 1.0]), make_chain([1.0, 1.0, 1.0]))

    @pytest.mark.parametrize(
        ("before", "after", "outcome"),
        [
            (("flat", 0.0), ("trained", 0.2), Outcome.CURES),
            (("trained", 0.5), ("trained", 0.55), Outcome.HELPS),
            (("trained", 0.2), ("trained", 0.99), Outcome.CURES),
            (("flat", 0.0), ("flat", 0.0), Outcome.FAILS),
            (("trained", 0.9), ("slow", 0.05), Outcome.FAILS),
        ],
    )
    def test_is_training_where_it_did_not_or_far_better(self, before, after, outcome):
        proved = prove(self.REMEDY, make_trial(*before), make_trial(*after))
        assert proved.outcome is outcome
        assert proved.is_cure is (outcome is Outcome.CURES)
        assert proved.trial_after == make_trial(*after)
        assert proved.loss_text.count("tried") == 2

    def test_on_one_batch_is_none(self):
        silent = make_trial("trained", fresh=False, name="Adam")
        proved = prove(self.REMEDY, silent, silent)
        assert proved.outcome is Outcome.MEASURES
        assert "one batch repeated" in proved.outcome_text

    @pytest.mark.parametrize(
        ("longer", "kept"),
        [("trained", True), ("flat", True), ("diverged", False), ("non-finite", False)],
    )
    def test_is_lost_if_the_loss_is_lost_later(self, longer, kept):
        cured = prove(self.REMEDY, make_trial("flat", 0.0), make_trial("trained"))
        assert confirm(cured, make_trial(longer)).is_cure is kept


class TestRemedies:
    @staticmethod
    def build(*outcomes):
        remedy = TestProof.REMEDY
        tried = tuple(
            replace(remedy, outcome=each, title=str(at)) for at, each in enumerate(outcomes)
        )
        return Remedies(before=remedy.before, diagnosis=remedy.diagnosis_before, tried=tried)

    def test_are_cures_then_what_measures_well_then_what_helps(self):
        found = self.build(
            Outcome.HELPS, Outcome.FAILS, Outcome.MEASURES, Outcome.CURES, Outcome.TRADES
        )
        assert [each.title for each in found] == ["3", "2", "0"]
        assert len(found) == 3
        assert (found[0].title, found[-1].title) == ("3", "0")
        assert [each.title for each in found[1:]] == ["2", "0"]
        assert [each.title for each in found.refuted] == ["1", "4"]
        assert "1 cure, 1 measures well, 1 helps, 2 do not" in repr(found)

    def test_are_counted_in_words(self):
        many = self.build(*[Outcome.HELPS] * 2, Outcome.FAILS, *[Outcome.MEASURES] * 2)
        assert "2 measure well, 2 help, 1 does not" in repr(many)
        assert "cure" not in repr(many)
        assert "nothing was tried" in repr(self.build())

    def test_of_a_model_have_no_query_and_no_command(self):
        found = TestProof.REMEDY.to_dict()
        assert (found["query"], found["command"], found["changes"]) == ("", "", {})
        assert found["comparison"]["passes"] is True
        assert (found["verdict_before"], found["verdict_after"]) == ("vanishing", "healthy")
        assert "training was not tried" in found["outcome_text"]
        assert found["trial"] is None
        assert found["loss"] == {"before": 1.0, "after": 1.0, "text": "loss 1 → 1"}


class TestUnreached:
    """Weights that the loss reached neither before nor after a change are left out."""

    @staticmethod
    def build(weakest, names):
        flow = make_chain([weakest, 1.0, 1.0])
        others = [parameter(name, None, status="unreached") for name in names]
        calls = [call(name.removesuffix(".weight"), layer=None) for name in names]
        return make_flow((*calls, *flow.layers), (*flow.parameters, *others), chain=True)

    def test_the_same_ones_do_not_count_and_others_do(self):
        before = self.build(1e-9, ["u.weight"])
        assert diagnose(before).verdict is Verdict.NO_GRADIENT
        same = TestOutcome.compare(before, self.build(1.0, ["u.weight"]))
        assert (same.verdict_before, same.verdict_after) == (Verdict.VANISHING, Verdict.HEALTHY)
        assert same.outcome is Outcome.MEASURES
        other = TestOutcome.compare(before, self.build(1.0, ["v.weight"]))
        assert other.verdict_after is Verdict.NO_GRADIENT
        assert other.outcome is Outcome.TRADES


class TestSearch:
    @staticmethod
    def build(*weakest, kinds=None, **options):
        search = Search(make_chain([1e-9, 1.0, 1.0]), enough=2, **options)
        kinds = kinds or ["bias"] * len(weakest)
        changes = [Change(kinds=(kind,), title=str(at), reason="") for at, kind in enumerate(kinds)]
        flows = {id(c): make_chain([w, 1.0, 1.0]) for c, w in zip(changes, weakest, strict=True)}
        return search, changes, lambda change: flows.get(id(change))

    def test_ranks_by_outcome_then_cost_then_effect(self):
        kinds = ["width", "bias", "bias", "bias"]
        search, changes, measure_change = self.build(1.0, 1e-6, 1e-5, 1.0, kinds=kinds)
        search.run(changes, [], measure_change)
        assert [each.title for each in search.rank()] == ["3", "0", "1", "2"]
        ranked = search.rank(lambda remedy: remedy.comparison.closed)
        assert [each.title for each in ranked] == ["3", "0", "2", "1"]
        assert [change.title for change in search.list_best()] == ["0", "3", "2", "1"]
        assert search.count(Outcome.MEASURES) == 2
        assert search.count(Outcome.MEASURES, Outcome.HELPS) == 4
        assert search.is_done
        assert search.has_good()
        assert search.has_good("width")
        assert not search.has_good("gain")

    def test_is_not_done_before_enough_measure_well(self):
        search, changes, measure_change = self.build(1.0, 1e-6)
        search.run(changes, [], measure_change)
        assert not search.is_done

    def test_pairs_stay_if_they_do_more_than_the_better_of_the_two(self):
        search, changes, measure_change = self.build(1e-7, 1e-6)
        search.run(changes, [], measure_change)
        for weakest, kept in ((1e-5, 3), (0.5e-6, 2), (1e-6, 2), (1.0, 3)):
            search, changes, measure_change = self.build(1e-7, 1e-6)
            both = Change(kinds=("bias", "gain"), title="both", reason="")
            flow = make_chain([weakest, 1.0, 1.0])
            search.run(changes, [], measure_change)
            (pair,) = search.pair_up(changes, lambda first, second, both=both: both)
            assert pair.alone == max(each.remedy.comparison.closed for each in search.tried)
            search.run([], [pair], lambda change, flow=flow: flow)
            assert len(search.tried) == kept
        assert search.pair_up(changes, lambda first, second: None) == []

    def test_keeps_the_best_of_a_kind(self):
        kinds = ["bias", "bias", "gain"]
        search, changes, measure_change = self.build(1e-7, 1e-6, 1e-5, kinds=kinds)
        search.run(changes, [], measure_change)
        search.keep_best("bias")
        assert [entry.change.title for entry in search.tried] == ["1", "2"]
        search.keep_best("width")
        assert len(search.tried) == 2

    def test_counts_what_was_done_and_planned(self):
        seen = []
        search = Search(
            make_chain([1e-9, 1.0]), enough=1, progress=lambda *a: seen.append(a), limit=4
        )
        assert (search.left, search.done, search.planned) == (3, 1, 4)
        search.plan(2)
        search.advance()
        search.advance(8)
        search.finish()
        assert seen == [(1, 6), (2, 6), (10, 10), (10, 10)]
        assert search.left == -6
        assert Search(make_chain([1e-9, 1.0]), enough=1).left == math.inf


class TestSpecChanges:
    SPEC = NetworkSpec(depth=9, width=16, activation="sigmoid", init="xavier")

    def list(self, verdict=Verdict.VANISHING, **fields):
        return list(list_spec_changes(self.SPEC.replace(**fields), verdict))

    def find(self, kind, verdict=Verdict.VANISHING, **fields):
        return [each.spec for each in self.list(verdict, **fields) if each.kinds == (kind,)]

    def test_depths_are_halved_down_to_two(self):
        assert [spec.depth for spec in self.find("depth")] == [4, 2]
        assert self.find("depth", depth=3) == []
        assert [spec.depth for spec in self.find("depth", depth=4)] == [2]

    def test_widths_are_doubled_where_there_are_few_units_or_dead_ones(self):
        assert [spec.width for spec in self.find("width")] == [32, 64, 128]
        assert [spec.width for spec in self.find("width", width=32)] == [64, 128, 256]
        assert self.find("width", width=33) == []
        dead = self.find("width", Verdict.DEAD_UNITS, width=128)
        assert [spec.width for spec in dead] == [256, 512]

    def test_clipping_is_tried_where_gradients_vanish_or_explode(self):
        for verdict, tried in (
            (Verdict.VANISHING, 1),
            (Verdict.EXPLODING, 1),
            (Verdict.DEAD_UNITS, 0),
        ):
            assert len(self.find("clipping", verdict)) == tried
        assert self.find("clipping")[0].clip_norm == 1.0
        assert self.find("clipping", clip_norm=3.0) == []

    def test_biases_are_set_to_zero_where_they_are_drawn(self):
        assert self.find("bias") == []
        assert [spec.bias_std for spec in self.find("bias", bias_std=0.5)] == [0.0]
        assert [spec.bias_std for spec in self.find("bias", init="pytorch")] == [0.0]
        assert self.find("bias", init="pytorch", bias_std=0.0) == []

    def test_initializations_draw_something_else_and_the_suited_one_is_first(self):
        assert [spec.init for spec in self.find("initialization")] == ["he", "orthogonal"]
        relu = self.find("initialization", activation="relu", init="pytorch")
        assert [spec.init for spec in relu] == ["he", "xavier", "orthogonal"]

    def test_activations_bring_their_initialization(self):
        found = {spec.activation: spec.init for spec in self.find("activation")}
        assert found == {
            "relu": "he",
            "leaky_relu": "he",
            "elu": "he",
            "selu": "lecun",
            "tanh": "xavier",
        }

    def test_structures_that_are_there_already_are_not_tried(self):
        assert [spec.residual for spec in self.find("residual")] == ["scaled", "plain"]
        assert [spec.residual for spec in self.find("residual", residual="plain")] == ["scaled"]
        names = ["layernorm", "rmsnorm", "batchnorm"]
        assert [spec.normalization for spec in self.find("normalization")] == names
        assert "layernorm" not in {
            spec.normalization for spec in self.find("normalization", normalization="layernorm")
        }

    def test_measured_scale_is_drawn(self):
        drawn = [each.reason for each in self.list() if each.kinds == ("initialization",)]
        assert "σ = 0.354 instead of 0.25" in drawn[0]  # √(2 ÷ 16) and √(1 ÷ 16)
        change = scale_weights(self.SPEC, 0.25)
        assert change.kinds == ("gain",)
        assert (change.spec.init, change.spec.weight_std) == ("random", 0.25)

    def test_pairs_change_different_fields_and_are_of_different_kinds(self):
        changes = {each.kinds[0]: each for each in self.list()}
        both = combine_spec_changes(self.SPEC, changes["residual"], changes["depth"])
        assert (both.spec.residual, both.spec.depth) == ("plain", 2)
        assert both.kinds == ("residual", "depth")
        assert combine_spec_changes(self.SPEC, changes["depth"], changes["depth"]) is None
        relu = next(each for each in self.list() if each.spec.activation == "relu")
        clash = combine_spec_changes(self.SPEC, changes["initialization"], relu)
        assert clash is None

    def test_ingredients_are_the_best_one_or_two_of_every_kind(self):
        def make(kind):
            return SpecChange(kinds=(kind,), title="", reason="", spec=self.SPEC)

        kinds = ("residual", "normalization", "clipping", "width", "bias")
        chosen = choose_ingredients([make(kind) for kind in kinds for _ in range(3)])
        assert [each.kinds[0] for each in chosen] == [
            "residual",
            "residual",
            "normalization",
            "normalization",
            "width",
            "bias",
        ]
