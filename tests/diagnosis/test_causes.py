"""What lies behind a finding is named first: in its action, and in why it matters."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis import Verdict, diagnose
from chainrule.diagnosis.causes import CALM, describe_growth
from chainrule.diagnosis.factors import Part
from chainrule.diagnosis.notes import list_notes
from chainrule.diagnosis.observations import OBSERVATIONS
from chainrule.diagnosis.places import list_local, word_names
from chainrule.diagnosis.rules import measure_metric
from chainrule.diagnosis.time_rules import is_held, list_cut
from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow
from chainrule.measure import inspect
from chainrule.measure.non_finite import add_origin
from made_flows import make_flow


@pytest.fixture(autouse=True)
def _same_at_every_call():
    torch.manual_seed(0)


def judge(model, compute_loss, optimizer=None):
    return diagnose(inspect(model, compute_loss, optimizer))


def find(diagnosis, rule):
    return next(each for each in diagnosis.findings if each.rule == rule)


def stack(widths, between=nn.ReLU):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), between()]
    return layers[:-1]


def classify(model, width=32, count=64, **options):
    x, labels = torch.randn(count, width), torch.randint(4, (count,))
    return judge(model, lambda m: F.cross_entropy(m(x), labels), **options)


class Reading(nn.Module):
    """A cell that reads tokens one by one; the first one tells the answer."""

    def __init__(self, cell, cut):
        super().__init__()
        self.tokens, self.cell, self.head = nn.Embedding(12, 8), cell(8, 16), nn.Linear(16, 4)
        self.cut = cut

    def forward(self, ids):
        state = torch.zeros(len(ids), 16)
        for step in range(ids.shape[1]):
            state = self.cell(self.tokens(ids[:, step]), state)
            if self.cut(step):
                state = state.detach()
        return self.head(state)


def read_tokens(cell, cut, steps=12, told=True):
    ids, labels = torch.randint(4, 12, (48, steps)), torch.randint(4, (48,))
    if told:
        ids[:, 0] = labels
    return inspect(Reading(cell, cut), lambda m: F.cross_entropy(m(ids), labels))


class TestTime:
    @pytest.mark.parametrize("cell", [nn.GRUCell, nn.RNNCell])
    def test_a_state_that_is_detached_is_cut_and_does_not_decay(self, cell):
        diagnosis = diagnose(read_tokens(cell, lambda step: step < 11))
        finding = find(diagnosis, "unheard_steps")
        assert "no gradient at all reaches steps 1 to 11 of 12" in finding.evidence
        assert "cut" in finding.reason
        assert "detach()" in diagnosis.action
        assert "'cell'" in diagnosis.action
        assert "gates" not in diagnosis.action
        assert not [note for note in diagnosis.notes if note.name == "fading_time"]

    def test_one_that_is_detached_now_and_then_is_cut_at_the_last_time(self):
        flow = read_tokens(nn.GRUCell, lambda step: step % 4 == 3 and step < 11)
        time = next(each for each in flow.times if each.name == "cell")
        assert list_cut(flow, time) == tuple(range(8))
        assert "between step 8 and the next one" in diagnose(flow).action

    @pytest.mark.parametrize(("first", "name"), [(0.0, "cut_time"), (1e-9, "fading_time")])
    def test_where_it_is_not_known_what_a_cut_costs_it_is_a_note(self, first, name):
        norms = (first, first, first, 1.0)
        time = TimeFlow(
            name="loop", kind="loop", call=0, of="output", length=4,
            steps=(0, 1, 2, 3), gradients=tuple(Quantity([each]) for each in norms),
        )  # fmt: skip
        notes = [note for note in list_notes(make_flow(times=(time,))) if "time" in note.name]
        assert [note.name for note in notes] == [name]
        assert ("no gradient at all reaches steps 1 to 3" in notes[0].evidence) is (first == 0.0)

    def test_a_whole_path_is_not_cut(self):
        flow = read_tokens(nn.GRUCell, lambda step: False)
        assert not any(list_cut(flow, each) for each in flow.times)

    @pytest.mark.parametrize(
        ("norms", "cut"),
        [((0.0, 0.0, 1.0, 1.0), (0, 1)), ((0.0, 1e-9, 1.0), ()), ((1.0, 1.0, 1.0), ())],
    )
    def test_of_other_loops_a_usable_gradient_comes_before_none(self, norms, cut):
        time = TimeFlow(
            name="loop", kind="loop", call=0, of="output", length=len(norms),
            steps=tuple(range(len(norms))), gradients=tuple(Quantity([each]) for each in norms),
        )  # fmt: skip
        assert list_cut(make_flow(), time) == cut

    @pytest.mark.parametrize("optimizer", [None, torch.optim.SGD, torch.optim.Adam])
    @pytest.mark.parametrize("start", [nn.init.eye_, None])
    def test_recurrent_weights_that_hold_the_gradient_are_left_to_adam(self, start, optimizer):
        rate = {torch.optim.SGD: 0.01, torch.optim.Adam: 1e-3}.get(optimizer)
        diagnosis = self._judge_untold(start, rate and (lambda p: optimizer(p, lr=rate)))
        if start and optimizer is torch.optim.Adam:
            assert diagnosis.verdict is Verdict.HEALTHY
            assert "untold_steps" in {note.name for note in diagnosis.notes}
        else:
            assert "untold_steps" in {each.rule for each in diagnosis.findings}

    def _judge_untold(self, start, optimizer=None):
        torch.manual_seed(0)
        rnn, head = nn.RNN(2, 24, batch_first=True), nn.Linear(24, 1)
        if start is not None:
            start(rnn.weight_hh_l0)
            nn.init.normal_(rnn.weight_ih_l0, std=0.1)
        model = nn.ModuleList([rnn, head])
        x = torch.randn(64, 24, 2)
        y = (x[:, 0, :1] * x[:, 12, :1]).sign()
        optimizer = optimizer and optimizer(model.parameters())
        return judge(model, lambda m: F.mse_loss(m[1](m[0](x)[0][:, -1]), y), optimizer)

    def test_adam_is_not_advised_to_who_has_it(self):
        assert "Adam" in self._judge_untold(None).action
        assert "Adam" not in self._judge_untold(None, torch.optim.Adam).action

    def test_what_is_undefined_is_not_held(self):
        norms = (Quantity([math.nan]), Quantity([1.0]))
        time = TimeFlow(
            name="a", kind="RNN", call=0, of="input", length=2, steps=(0, 1), gradients=norms
        )
        assert not is_held(time)


class TestOutput:
    @pytest.mark.parametrize("end", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 1.0)])
    def test_an_activation_at_the_end_that_is_flat_everywhere_is_to_be_left_out(self, end):
        diagnosis = self._judge_end(end, -9.0)
        assert diagnosis.action.startswith("Leave the last activation out ('3'")
        assert "from layer to layer" not in find(diagnosis, "fading_signal").reason

    def test_a_function_at_the_end_is_named_with_its_line(self):
        model = self._make(None, -9.0)
        x = torch.rand(48, 6)
        diagnosis = judge(model, lambda m: F.mse_loss(F.relu(m(x)), x[:, :1]))
        assert diagnosis.verdict is Verdict.FLAT_LOSS
        assert "relu" in diagnosis.action
        assert "test_causes.py" in diagnosis.action

    @pytest.mark.parametrize(("end", "bias"), [(nn.ReLU(), 1.0), (nn.Softplus(), -2.0)])
    def test_one_that_is_not_gets_no_such_words(self, end, bias):
        assert "last activation" not in self._judge_end(end, bias).action

    def test_units_that_are_off_in_the_middle_keep_their_action(self):
        model = nn.Sequential(*stack([6, 24, 24, 1]))
        nn.init.constant_(model[2].bias, -30.0)
        x = torch.rand(48, 6)
        diagnosis = judge(model, lambda m: F.mse_loss(m(x), x[:, :1]))
        assert diagnosis.verdict is Verdict.DEAD_UNITS
        assert "Leaky ReLU" in diagnosis.action

    def _make(self, end, bias):
        model = nn.Sequential(*stack([6, 24, 1]), *([] if end is None else [end]))
        nn.init.constant_(model[2].bias, bias)
        return model

    def _judge_end(self, end, bias):
        x = torch.rand(48, 6)
        return judge(self._make(end, bias), lambda m: F.mse_loss(m(x), x[:, :1]))

    @pytest.mark.parametrize(
        ("loss", "words"),
        [(F.binary_cross_entropy, "binary_cross_entropy_with_logits"), (F.mse_loss, "one output")],
    )
    def test_a_softmax_over_one_value_is_not_applied_twice(self, loss, words):
        x = torch.randn(48, 6)
        y = (x[:, :1] > 0).float()
        model = nn.Sequential(*stack([6, 24, 1]), nn.Softmax(dim=1))
        diagnosis = judge(model, lambda m: loss(m(x), y))
        assert "twice" not in diagnosis.findings[0].reason
        assert words in diagnosis.action
        assert "'3'" in diagnosis.action

    def test_a_softmax_before_cross_entropy_is_to_be_left_out(self):
        model = nn.Sequential(*stack([6, 24, 40]), nn.Softmax(dim=1))
        assert "leave the softmax out" in classify(model, 6).action


class TestCauses:
    def test_heavy_dropout_is_named_before_what_grows_by_it(self):
        def make(p):
            def between():
                return nn.Sequential(nn.ReLU(), nn.Dropout(p))

            model = nn.Sequential(*stack([32] * 9 + [4], between))
            for layer in model[::2]:
                nn.init.kaiming_normal_(layer.weight)
            return classify(model)

        diagnosis = make(0.95)
        assert diagnosis.verdict in (Verdict.EXPLODING, Verdict.LARGE_LOSS)
        assert diagnosis.action.startswith("Lower the dropout")
        assert "95 %" in diagnosis.action
        assert make(0.1).verdict is Verdict.HEALTHY

    def _normalized(self, prepare, depth=16):
        layers = []
        for _ in range(depth):
            layers += [nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(32, 4))
        prepare(model)
        return classify(model)

    def test_statistics_of_nothing_in_eval_mode_are_named(self):
        diagnosis = self._normalized(lambda model: model.eval())
        assert diagnosis.verdict is Verdict.VANISHING
        assert diagnosis.action.startswith("Call model.train()")
        assert "'1', '4' and 14 more" in diagnosis.action
        assert "ε" not in find(diagnosis, "starved_normalization").reason
        assert "untouched_statistics" in {note.name for note in diagnosis.notes}

    @pytest.mark.parametrize("mode", ["train", "counted", "frozen"])
    def test_others_are_not(self, mode):
        def prepare(model):
            if mode == "counted":
                for _ in range(40):
                    model(torch.randn(64, 32))
            model.train(mode == "train")
            if mode == "frozen":
                model[:-1].requires_grad_(False)

        diagnosis = self._normalized(prepare, depth=2)
        assert "untouched_statistics" not in {note.name for note in diagnosis.notes}
        assert "model.train()" not in diagnosis.action

    def _scaled(self, factors, between=nn.Tanh):
        model = nn.Sequential(*stack([32] * 8 + [4], between))
        for at, layer in enumerate(model[::2]):
            nn.init.xavier_normal_(layer.weight)
            layer.weight.data *= factors.get(at, 1.0)
        return classify(model)

    def test_the_layers_that_make_it_small_are_named(self):
        one, two = self._scaled({3: 1e-5}), self._scaled({2: 1e-4, 5: 1e-4})
        assert one.action.startswith("Most of it is lost at '6', where the weights are")
        assert two.action.startswith("Most of it is lost at '4' and '10', where the weights are")

    def test_the_layer_that_makes_it_large_is_named(self):
        diagnosis = self._scaled({3: 1e6}, nn.ReLU)
        assert diagnosis.verdict is Verdict.EXPLODING
        assert diagnosis.action.startswith("Most of it comes from '6'")

    def test_no_layer_is_named_where_all_are_alike(self):
        diagnosis = self._scaled(dict.fromkeys(range(8), 0.1))
        assert diagnosis.verdict is Verdict.VANISHING
        assert diagnosis.action.startswith("Worth trying")

    def test_values_that_shrink_in_one_place_are_said_to_shrink_there(self):
        model = nn.Sequential(*stack([32] * 8 + [4]))
        for layer in model[::2]:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        model[6].weight.data *= 1e-6
        assert "shrink at '6'" in find(classify(model), "fading_signal").reason


class TestPlaces:
    @staticmethod
    def _make(values):
        return [Part(name, "Linear", 1, Quantity([x]), "gradient") for name, x in values]

    def test_a_few_have_most_of_a_product(self):
        parts = self._make([("a", 1e-4), ("b", 0.9), ("c", 1.0), ("d", 0.5)])
        assert list_local(parts, grows=False) == ("a",)
        assert list_local(parts, grows=True) == ()

    @pytest.mark.parametrize(
        "values",
        [
            [("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 0.1)],
            [("a", 1e-4), ("b", 1.0)],  # one of two is no few
            [("a", 0.5), ("b", 1.0), ("c", 1.0)],  # small, but not by much
            [("a", 1e-4), ("b", 0.0), ("c", 1.0)],
            [("a", 1e-4), ("b", math.nan), ("c", 1.0)],
            [],
        ],
    )
    def test_or_none_has(self, values):
        assert list_local(self._make(values), grows=False) == ()

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["a"], "'a'"),
            (["a", "b"], "'a' and 'b'"),
            (["a", "b", "c"], "'a', 'b' and 'c'"),
            (["a", "b", "c", "d"], "'a', 'b' and 2 more"),
            ([""], "'(model)'"),
        ],
    )
    def test_names_in_words(self, names, words):
        assert word_names(names) == words


class TestNumbers:
    def test_of_a_logarithm_nothing_is_said_of_weights(self):
        x = torch.randn(48, 6)
        diagnosis = judge(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), lambda m: m(x).log().mean())
        assert diagnosis.verdict is Verdict.NON_FINITE
        assert "weights" not in diagnosis.action
        assert "chance" not in diagnosis.findings[0].consequence

    def test_of_nothing_to_train_no_chance_is_told(self):
        model, other = nn.Linear(3, 3), torch.ones((), requires_grad=True)
        diagnosis = judge(model, lambda m: m(torch.ones(4, 3)).detach().sum() + other)
        assert diagnosis.verdict is Verdict.NO_GRADIENT
        assert "chance" not in diagnosis.findings[0].consequence

    @pytest.mark.parametrize(
        ("steps", "traced", "verdict"),
        [
            (30, False, Verdict.EXPLODING),
            (60, False, Verdict.NON_FINITE),
            (60, True, Verdict.NON_FINITE),
        ],
    )
    def test_a_recurrent_module_whose_values_grow_is_named(self, steps, traced, verdict):
        class Recurrent(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.RNN(4, 32, nonlinearity="relu", batch_first=True)
                self.head = nn.Linear(32, 1)
                nn.init.normal_(self.rnn.weight_hh_l0)

            def forward(self, x):
                return self.head(self.rnn(x)[0][:, -1])

        x = torch.randn(48, steps, 4)
        model = Recurrent()
        flow = inspect(model, lambda m: F.mse_loss(m(x), x[:, 0, :1]))
        flow = add_origin(flow, model, lambda m: F.mse_loss(m(x), x[:, 0, :1])) if traced else flow
        assert "in 'rnn', from step to step" in describe_growth(flow)
        assert diagnose(flow).verdict is verdict
        assert describe_growth(flow) in diagnose(flow).action

    def test_values_that_grow_everywhere_are_said_to(self):
        model = nn.Sequential(*stack([64] * 41 + [1]))
        for layer in model[::2]:
            nn.init.normal_(layer.weight)
        x = torch.randn(48, 64)
        flow = inspect(model, lambda m: F.mse_loss(m(x), x[:, :1]))
        assert "from layer to layer" in describe_growth(flow)

    @pytest.mark.parametrize("scale", [1000.0, 1.0])
    def test_large_inputs_beside_infinite_numbers_are_named(self, scale):
        x, shift = scale * torch.rand(48, 6), 0.0 if scale > 1.0 else 100.0
        diagnosis = judge(nn.Linear(6, 4), lambda m: (m(x) + shift).exp().mean())
        assert diagnosis.verdict is Verdict.NON_FINITE
        assert ("The input of" in diagnosis.action) is (scale > 1.0)
        for note in diagnosis.notes:
            assert "Nothing comes of it" not in note.meaning


class TestRates:
    def _judge(self, optimizer, **options):
        torch.manual_seed(0)
        model = nn.Sequential(*stack([6, 24, 1]))
        x = torch.randn(48, 6)
        made = optimizer(model.parameters(), **options)
        return model, lambda m: F.mse_loss(m(x), x[:, :1]), made

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (torch.optim.Adam, {"lr": 0.5}),
            (torch.optim.SGD, {"lr": 40.0}),
            (torch.optim.SGD, {"lr": 0.5, "momentum": 0.999}),
        ],
    )
    def test_a_rate_that_is_too_high_gets_one_at_which_a_step_is_one_percent(self, kind, options):
        model, compute, made = self._judge(kind, **options)
        diagnosis = judge(model, compute, made)
        value = find(diagnosis, "large_step").value
        assert "Lower the learning rate to" in diagnosis.action
        for group in made.param_groups:
            group["lr"] *= 0.01 / value
        again = inspect(model, compute, made)
        assert measure_metric(again, "large_step") == pytest.approx(0.01, rel=1e-3)
        assert ("with 0.9, it is so at" in diagnosis.action) is ("momentum" in options)
        assert ("momentum" in diagnosis.findings[0].evidence) is ("momentum" in options)

    @pytest.mark.parametrize("scale", [0.0, 1e-6])
    def test_scales_that_start_small_need_no_high_rate(self, scale):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.lift, self.head = nn.Linear(6, 32), nn.Linear(32, 4)
                self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
                self.scales = nn.ParameterList(nn.Parameter(torch.tensor(scale)) for _ in range(8))

            def forward(self, x):
                x = self.lift(x)
                for factor, layer in zip(self.scales, self.layers, strict=True):
                    x = x + factor * F.relu(layer(x))
                return self.head(x)

        diagnosis = classify(Scaled(), 6)
        assert diagnosis.verdict is Verdict.HEALTHY
        assert "high_rate" not in {note.name for note in diagnosis.notes}


class TestOneVoice:
    def test_a_note_that_advises_a_change_is_in_the_action(self):
        x = torch.randn(48, 6)
        diagnosis = judge(
            nn.Sequential(*stack([6, 24, 1])), lambda m: F.mse_loss(m(x), 3e5 + 1e5 * x[:, :1])
        )
        assert diagnosis.verdict is Verdict.HEALTHY
        assert "needs to change" not in diagnosis.action
        assert diagnosis.notes[0].evidence in diagnosis.action

    def test_calm_notes_are_those_of_the_table(self):
        assert set(OBSERVATIONS) >= CALM
