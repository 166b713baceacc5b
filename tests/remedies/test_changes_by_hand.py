"""Edits, changes, advice and judgements of small models, worked out by hand."""

import copy
import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import RemedyError
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
    list_trained,
    list_weights,
)
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
        matrices = model.weight.detach().flatten(1).chunk(blocks)
        for block in matrices:
            gram = block @ block.T
            torch.testing.assert_close(gram, 9.0 * torch.eye(len(block)), atol=1e-5, rtol=0)
        for one, other in combinations(matrices, 2):  # each is drawn anew: gates differ
            assert not torch.allclose(one, other, atol=0.1)

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
    def test_frozen_ones_and_those_without_a_gradient_are_none(self):
        model = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("a", "frozen", "b", "unused")})
        model["frozen"].requires_grad_(False)

        def compute_loss(m):
            return m["b"](m["frozen"](m["a"](torch.ones(3, 4)))).square().mean()

        flow = inspect(model, compute_loss)
        weights = list_weights(model, flow)
        assert [each.name for each in weights] == ["a.weight", "b.weight"]
        parameters = dict(model.named_parameters())
        trained = {id(parameters[f"{name}.{key}"]) for name in "ab" for key in ("weight", "bias")}
        assert list_trained(model, flow) == trained

    def test_what_is_tied_to_an_embedding_is_none(self):
        model = nn.ModuleDict({"head": nn.Linear(4, 7, bias=False), "embed": nn.Embedding(7, 4)})
        model["embed"].weight = model["head"].weight
        ids = torch.arange(7)
        flow = inspect(model, lambda m: m["head"](m["embed"](ids)).square().mean())
        assert [each.name for each in flow.parameters] == ["head.weight"]
        assert list_weights(model, flow) == ()
        model["embed"].weight = nn.Parameter(torch.randn(7, 4))
        flow = inspect(model, lambda m: m["head"](m["embed"](ids)).square().mean())
        assert [each.name for each in list_weights(model, flow)] == ["head.weight"]

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
        assert values == {0.0, math.log(9), -math.log(9)}
        (change,) = [
            each
            for each in list_model_changes(model, flow, diagnose(flow))
            if any(edit.rows for edit in each.edits)
        ]
        found = [(e.parameter, e.value, e.rows, e.shape) for e in change.edits]
        # The input gate (rows 0 to 4) closes as far as the forget gate opens.
        assert sorted(found) == [
            ("bias_hh_l0", pytest.approx(-math.log(7)), (0, 5), (20,)),
            ("bias_hh_l0", pytest.approx(math.log(7)), (5, 10), (20,)),
            ("bias_ih_l0", 0.0, (0, 5), (20,)),
            ("bias_ih_l0", 0.0, (5, 10), (20,)),
        ]

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


class Around(nn.Module):
    """A layer, and behind it a branch that has no weights."""

    def __init__(self):
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(4, 4), nn.Sequential(nn.Tanh()), Branching(1)

    def forward(self, x):
        h = self.first(x)
        return self.head(h + self.branch(h))


def test_a_branch_without_weights_does_not_end_in_the_layer_before_it():
    torch.manual_seed(0)
    model = Around()
    flow = measure(model, torch.randn(5, 4, requires_grad=True))
    assert len(flow.residuals) == 2
    assert [name for name, _ in list_branch_ends(model, flow)] == ["head.blocks.0.3"]


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

    def test_dead_units_behind_dead_units_get_a_mean_of_zero_as_well(self):
        torch.manual_seed(0)
        x = torch.randn(50, 6)
        model = nn.Sequential(
            nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
        )
        with torch.no_grad():
            model[0].bias[1:3] = -20.0
            model[2].bias[0] = -20.0
        change = fit_biases(copy.deepcopy(model), measure(model, x), lambda m: m(x))
        assert [edit.parameter for edit in change.edits] == ["0.bias", "2.bias"]
        apply_edits(model, change.edits)
        assert float(model[:3](x)[:, 0].detach().mean()) == pytest.approx(0.0, abs=1e-5)

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
