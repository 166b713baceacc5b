"""Notes and verdicts of flows small enough for paper."""

import math
from dataclasses import replace

import pytest

from chainrule.diagnosis.diagnosis import ACTION_MEASURED, diagnose, overlook
from chainrule.diagnosis.notes import OBSERVATIONS, list_notes
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.score import score_model
from chainrule.diagnosis.viability.model import Outlook
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loss import AlignmentFlow, LossFlow, LossPart, LossTerm, TermGradient
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import AttentionFlow
from chainrule.flow.sharpness import Sharpness
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.flow.time import TimeFlow
from chainrule.flow.trial import Trial
from chainrule.spec.network_spec import NetworkSpec
from made_flows import call, gradient, make_chain, make_flow, parameter, quantity, residual


def note(name, *args, **fields):
    flow = make_flow(*args, **fields)
    found = [each for each in list_notes(flow) if each.name == name]
    return found[0] if found else None


def attention(entropy, name="b", at=0):
    shares = {"one_hot": quantity(0.0), "uniform": quantity(0.0)}
    sizes = {"heads": 2, "queries": 3, "keys": 4}
    return AttentionFlow(name=name, call=at, entropy=quantity(entropy), **sizes, **shares)


class TestAttention:
    def test_nearly_one_hot_is_noted_with_the_least(self):
        calls = (attention(0.04, "a"), attention(0.01, "b"), attention(0.06, "c"))
        found = note("one_hot_attention", attentions=calls)
        assert (found.value, found.modules) == (0.01, ("a", "b"))
        assert "2 of 3 computations" in found.evidence
        assert "'b'" in found.evidence
        assert note("one_hot_attention", attentions=calls[2:]) is None
        again = (attention(0.04, "a"), attention(0.02, "a", at=1))
        assert note("one_hot_attention", attentions=again).modules == ("a",)

    def test_nearly_uniform_is_noted_where_most_are(self):
        calls = (attention(0.9999, "a"), attention(0.9612, "b"), attention(0.5, "c"))
        found = note("uniform_attention", attentions=calls)
        assert (found.value, found.modules) == (0.9612, ("a", "b"))
        assert "at least 0.961 there" in found.evidence
        assert note("uniform_attention", attentions=calls[1:]) is None  # half is not most


class TestBranches:
    CALLS = (call("a"), call("b"), call("c"))

    def test_large_ones_are_noted_with_the_largest(self):
        sums = (
            residual(branch=0, before=1.0, added=2.5),
            residual(branch=1, before=2.0, added=10.0),
            residual(branch=2, before=1.0, added=2.0),
            residual(branch=2, before=None, added=9.0),
        )
        found = note("large_branch", self.CALLS, residuals=sums)
        assert (found.value, found.modules) == (5.0, ("a", "b"))
        assert found.evidence.startswith("2 of 3 branches")
        assert "'b' adds 5 times" in found.evidence

    def test_tiny_ones_are_noted_by_their_median(self):
        def ask(*added):
            sums = tuple(residual(branch=0, added=each) for each in added)
            return note("tiny_branch", self.CALLS, residuals=sums)

        assert ask(0.0, 0.004, 9.0).value == 0.004
        assert ask(0.0, 0.011, 9.0) is None
        assert ask(0.002, 0.006).value == 0.004
        assert "nothing yet" in ask(0.0, 0.0, 0.0).evidence
        assert "nothing yet" not in ask(0.0, 0.0, 9.0).evidence


class TestStreams:
    @staticmethod
    def build(normalization="before", last=8.0, gradients=(1.0, 1.0), count=4):
        sizes = [2.0 + (last - 2.0) * at / (count - 1) for at in range(count)]
        shares = [0.5, 0.25, 0.125, 0.0625, 0.03125][:count]
        ends = [gradients[0], *[1.0] * (count - 2), gradients[1]]
        return tuple(
            residual(
                branch=None,
                normalization=normalization,
                before=2.0,
                added=2.0 * share,
                after=size,
                gradient=norm,
            )
            for size, share, norm in zip(sizes, shares, ends, strict=True)
        )

    def test_growth_is_the_last_sum_over_the_start(self):
        found = note("growing_pre_norm", residuals=self.build(last=8.0, gradients=(6.0, 2.0)))
        assert found.value == 4.0
        assert "0.375 times its size in the first half and 0.0938 times" in found.evidence
        assert "at the first sum is 3 times" in found.evidence
        assert note("growing_pre_norm", residuals=self.build(last=3.0)) is None
        assert note("growing_pre_norm", residuals=self.build(last=3.01)) is not None
        assert note("growing_pre_norm", residuals=self.build("none")) is None
        assert note("growing_pre_norm", residuals=self.build(count=3)) is None

    def test_growth_starts_at_the_first_sum_where_nothing_is_known_before(self):
        first, *others = self.build(last=8.0)
        sums = (replace(first, before=None, added=None), *others)
        assert note("growing_pre_norm", residuals=sums).value == 4.0
        two = replace(first, before=None, added=None, after=Quantity([4.0]))
        assert note("growing_pre_norm", residuals=(two, *others)).value == 2.0
        known = replace(first, after=Quantity([4.0]))
        assert note("growing_pre_norm", residuals=(known, *others)).value == 4.0

    def test_growth_of_an_odd_number_compares_without_the_middle(self):
        found = note("growing_pre_norm", residuals=self.build(count=5))
        assert "0.375 times its size in the first half and 0.0469 times" in found.evidence

    @pytest.mark.parametrize(
        ("ratio", "noted"), [(0.49, True), (0.5, False), (0.03, True), (0.029, False)]
    )
    def test_fading_is_between_the_finding_and_one_half(self, ratio, noted):
        sums = self.build("after", gradients=(ratio, 1.0))
        found = note("fading_post_norm", residuals=sums)
        assert (found is not None) is noted
        if noted:
            assert found.value == ratio

    def test_fading_needs_a_gradient_at_both_ends(self):
        for gradients in ((None, 1.0), (0.1, None), (0.1, 0.0)):
            sums = self.build("after", gradients=gradients)
            assert note("fading_post_norm", residuals=sums) is None
        mixed = (*self.build("after", gradients=(0.1, 1.0)), residual(normalization="none"))
        assert note("fading_post_norm", residuals=mixed) is None


class TestInputs:
    @staticmethod
    def build(**fields):
        values = {
            **{"reader": "a", "shape": (10, 20), "dtype": "float32", "examples": 10},
            **{"columns": 20, "mean": 0.0, "std": 1.0, "min": -1.0, "max": 1.0},
            **{"non_finite": 0.0, "constant_columns": 0.0, "zero_columns": 0.0},
            **{"offset": 0.0, "spread_ratio": 1.0, "repeated": 0.0},
        } | fields
        plain = ("reader", "shape", "dtype", "examples", "columns")
        return (InputFlow(**{k: v if k in plain else quantity(v) for k, v in values.items()}),)

    @pytest.mark.parametrize(
        ("constant", "examples", "noted"), [(3.0, 10, True), (2.0, 10, False), (3.0, 7, False)]
    )
    def test_columns_that_never_change(self, constant, examples, noted):
        inputs = self.build(constant_columns=constant, examples=examples)
        found = note("constant_columns", inputs=inputs)
        assert (found is not None) is noted
        if noted:
            assert found.value == 0.15
            assert "3 of 20 columns" in found.evidence

    @pytest.mark.parametrize(
        ("repeated", "examples", "noted"),
        [(0.6, 10, True), (0.5, 10, True), (0.4, 10, False), (0.6, 7, False)],
    )
    def test_examples_that_repeat(self, repeated, examples, noted):
        inputs = self.build(repeated=repeated, examples=examples)
        found = note("repeated_examples", inputs=inputs)
        assert (found is not None) is noted
        if noted:
            assert f"{10 * repeated:.0f} of 10 examples" in found.evidence

    def test_columns_of_an_input_with_one_value_are_not_counted(self):
        inputs = self.build(constant_columns=20.0, min=1.0, max=1.0, std=0.0)
        assert note("constant_columns", inputs=inputs) is None

    def test_examples_that_differ_in_another_input_do_not_repeat(self):
        (same,) = self.build(repeated=0.9)
        (other,) = self.build(reader="b", repeated=0.0)
        (longer,) = self.build(reader="c", repeated=0.0, examples=12)
        assert note("repeated_examples", inputs=(same, other)) is None
        assert note("repeated_examples", inputs=(same, longer)).modules == ("a",)

    @pytest.mark.parametrize(("repeated", "noted"), [(0.9, True), (0.8, False)])
    def test_examples_have_to_repeat_where_only_two_are_possible(self, repeated, noted):
        """Of ten, (0, 1) and (1, 0): but ten times the same one are no accident."""
        one_hot = {"min": 0.0, "mean": 0.5, "std": 0.5, "columns": 2, "shape": (10, 2)}
        found = note("repeated_examples", inputs=self.build(**one_hot, repeated=repeated))
        assert (found is not None) is noted

    def test_large_ones_of_which_nothing_comes_are_noted_with_the_largest(self):
        (one,), (two,) = self.build(std=50.0), self.build(reader="b", std=90.0)
        (small,) = self.build(reader="c")
        found = note("large_inputs", inputs=(one, two, small))
        assert (found.value, found.modules) == (90.0, ("a", "b"))
        assert "'b' has" in found.evidence


class TestOthers:
    def test_time_that_fades_up_to_one_half(self):
        def ask(*norms):
            steps = tuple(range(len(norms)))
            time = TimeFlow(
                name="a",
                kind="GRU",
                call=0,
                of="input",
                length=len(norms),
                steps=steps,
                gradients=tuple(map(quantity, norms)),
            )
            return note("fading_time", times=(time,))

        assert ask(0.0, 1.0, 1.0).value == pytest.approx(1 / 3)
        assert ask(0.0, 1.0).value == 0.5
        assert ask(0.0, 0.0, 1.0) is None
        assert ask(1.0, 1.0) is None
        assert ask(0.0, 0.0) is None

    def test_copies_up_to_nine_tenths(self):
        def ask(copies):
            flow = make_chain([1.0, 1.0])
            each = SymmetryFlow(
                parameter="0.weight", layer=1, units=11, copies=quantity(copies), idle=quantity(0.0)
            )
            return note(
                "copied_units", flow.layers, flow.parameters, chain=True, symmetries=(each,)
            )

        assert ask(1.0) is None
        assert ask(2.0).value == 0.2
        assert ask(9.0).value == 0.9
        assert ask(10.0) is None

    def test_saturation_from_one_half_up_to_nine_tenths(self):
        def ask(*shares):
            calls, weights = [], []
            for at, share in enumerate(shares, start=1):
                calls += [
                    call(f"w{at}", layer=at),
                    call(f"h{at}", "Tanh", layer=at, statistics={"saturation": share}),
                ]
                weights.append(parameter(f"w{at}.weight", at))
            return note("partly_saturated", calls, weights)

        assert ask(0.5, 0.91) is None
        found = ask(0.6, 0.9, 0.51)
        assert (found.value, found.modules) == (0.9, ("w1", "w2", "w3"))
        assert "layer 2" in found.evidence
        assert "3 layers" in found.evidence
        assert "layers" not in ask(0.6).evidence

    @pytest.mark.parametrize(
        ("low", "high", "dtype", "value"),
        [
            (-1.0, 6551.0, "float16", 6551.0 / 65504.0),
            (-13100.8, 1.0, "float16", 0.2),
            (-1.0, 6550.0, "float16", None),
            (-1.0, 60000.0, "float32", None),
        ],
    )
    def test_values_near_the_largest_number_of_float16(self, low, high, dtype, value):
        calls = [call("a", dtype=dtype, statistics={"min": low, "max": high})]
        found = note("near_overflow", calls)
        assert (found and found.value) == (value if value is None else pytest.approx(value))

    @pytest.mark.parametrize(
        ("share", "noted"),
        [(0.25, False), (0.26, True), (0.95, True), (0.96, False), (None, False)],
    )
    def test_examples_that_send_nothing_back(self, share, noted):
        facts = LossFlow(parts=(), outputs=(1,), zero_examples=quantity(share))
        found = note("idle_examples", [call("a"), call("b")], loss_facts=facts)
        assert (found is not None) is noted
        if noted:
            assert (found.value, found.modules) == (share, ("b",))

    @pytest.mark.parametrize(
        ("step", "percent"), [(2.5e-4, "0.025 %"), (1e-5, "0.001 %"), (3e-4, None), (1e-7, None)]
    )
    def test_a_loss_that_hardly_feels_the_weights_with_its_fall_in_percent(self, step, percent):
        facts = LossFlow(parts=(), step=quantity(step), reaction=quantity(0.1))
        sound = make_chain([0.5, 0.5], loss_facts=facts)
        (found,) = [x for x in list_notes(sound) if x.name == "slow_start"] or [None]
        assert (found and found.value) == (None if percent is None else step)
        if percent is not None:
            assert "1 % along its gradient" in found.evidence
            assert found.evidence.endswith(f" {percent}")

    def test_parts_that_were_detached(self):
        for value, noted in ((-2.5, 2.5), (0.0, None), (None, None)):
            facts = LossFlow(parts=(), detached=quantity(value))
            found = note("detached_constant", loss_facts=facts)
            assert (found and found.value) == noted
        named = LossTerm(name="kl", value=quantity(-2.5), gradients=())  # it has a name
        facts = LossFlow(parts=(), detached=quantity(-2.5), terms=(named,))
        assert note("detached_constant", loss_facts=facts) is None

    @pytest.mark.parametrize(
        ("own", "guessing", "value"),
        [
            ((3.0, 4.0), 1.0, 10.0),  # hypot(30, 40) ÷ hypot(3, 4)
            ((0.0, 4.0), 1.0, 12.5),
            ((6.0, 8.0), 1.0, None),  # 5 is the limit
            ((0.0, 0.0), 1.0, None),  # a term without a gradient is swamped by nothing
            ((3.0, 4.0), None, None),
        ],
    )
    def test_a_term_beside_a_larger_one(self, own, guessing, value):
        """The bias, where the other term has a gradient a thousand times as large, is no weight."""
        norms = {"error": (*own, 1e-3), "penalty": (30.0, 40.0, 1e3)}
        terms = tuple(
            LossTerm(
                name=name,
                value=quantity(1.0),
                gradients=tuple(
                    TermGradient(parameter=at, norm=quantity(each), cosine=quantity(0.5))
                    for at, each in enumerate(sizes)
                ),
                guessing=quantity(guessing if name == "error" else None),
            )
            for name, sizes in norms.items()
        )
        facts = LossFlow(parts=(), terms=terms)
        weights = [parameter("a.weight"), parameter("b.weight"), parameter("b.bias", shape=(4,))]
        found = note("swamped_term", (), weights, loss_facts=facts)
        assert (found and found.value) == value
        if found:
            assert found.modules == ("b.weight" if own[0] == 0.0 else "a.weight",)
            assert "'penalty'" in found.evidence
            assert "'error'" in found.evidence

    def test_infinite_values_are_beyond_the_largest_number(self):
        calls = [call("a", dtype="float16", statistics={"min": -1.0, "max": math.inf})]
        assert "beyond the largest" in note("near_overflow", calls).evidence
        calls = [call("a", dtype="float16", statistics={"min": -1.0, "max": 6551.0})]
        assert "reach 10 % of" in note("near_overflow", calls).evidence

    def test_numbers_that_stop_before_a_parameter(self):
        bad = call("a", layer=1, gradient=gradient(non_finite=3.0))
        found = note("stopped_non_finite", [bad], [parameter("w.weight", 1)])
        assert (found.value, found.modules) == (3.0, ("a",))
        reached = parameter("w.weight", 1, grad_non_finite=1.0)
        assert note("stopped_non_finite", [bad], [reached]) is None

    @pytest.mark.parametrize(("tied", "noted"), [(False, 30.0), (True, None)])
    def test_a_start_far_above_guessing_unless_the_head_is_tied(self, tied, noted):
        """Above 20 times guessing, a head that is an embedding, too, is a finding."""
        part = LossPart(
            **{"kind": "cross_entropy", "value": quantity(30.0), "guessing": quantity(1.0)},
            **{"is_direct": True, "outputs": (1,)},
        )
        calls = [call("a", layer=1), call("b", layer=2)]
        calls += [call("a", layer=1, call=1)] * tied
        weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
        found = note("large_start", calls, weights, loss_facts=LossFlow(parts=(part,)))
        assert (found and found.value) == noted

    @pytest.mark.parametrize(("short", "noted"), [(0, None), (10, 0.2), (47, 0.94), (48, None)])
    def test_sequences_that_are_too_short_for_their_labels(self, short, noted):
        alignment = AlignmentFlow(
            examples=50, short=quantity(short), example=3, steps=4, labels=4, repeats=1
        )
        found = note("short_sequences", loss_facts=LossFlow(parts=(), alignment=alignment))
        assert (found and found.value) == noted

    @pytest.mark.parametrize(("variation", "noted"), [(0.5, True), (0.001, False)])
    def test_a_first_layer_of_switches(self, variation, noted):
        """Its values differ, and it receives a gradient: the layers behind it can learn."""
        first = {"saturation": 0.95, "variation": variation}
        calls = [
            call("a", layer=1),
            call("h", "Tanh", layer=1, statistics=first),
            call("b", layer=2),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        weights = [parameter("a.weight", 1), parameter("b.weight", 2)]
        found = note("partly_saturated", calls, weights)
        assert (found and found.value) == (0.95 if noted else None)
        verdict = diagnose(make_flow(calls, weights)).verdict
        assert (verdict is Verdict.SATURATED) is not noted

    def test_weights_that_are_not_used(self):
        weights = [parameter("a.weight", 1), parameter("b.weight", 2, status="unreached")]
        found = note("unused_weights", [call("a"), call("b")], weights)
        assert (found.value, found.modules) == (1.0, ("b.weight",))
        assert note("unused_weights", [call("b"), call("a")], weights) is None  # cut: a finding

    def test_normalizations_that_are_made_up_for(self):
        calls = [
            call("a", "LayerNorm", statistics={"std": 0.05}),
            call("b", "LayerNorm", statistics={"std": 0.02}),
            call("c", "LayerNorm"),
        ]
        found = note("starved_branch", calls)
        assert (found.value, found.modules) == (0.02, ("a", "b"))
        assert found.evidence.startswith("2 of 3 normalizations")
        assert note("starved_branch", calls[:2]) is None  # a finding
        weights = [parameter("a.weight", None, shape=(4,), norm=2.0)]
        one = [call("a", "LayerNorm", statistics={"std": 0.05}), call("fc", layer=1)]
        branch = (residual(parameters=(0,)),)
        assert note("starved_branch", one, weights, residuals=branch).value == 0.05
        mixed = [*one, call("b", "LayerNorm"), call("c", "LayerNorm", statistics={"std": 0.02})]
        assert note("starved_branch", mixed, weights, residuals=branch) is None  # a finding, too

    def test_bounds(self):
        bounds = {
            **{"large_branch": 2.0, "tiny_branch": 0.01, "growing_pre_norm": 1.5},
            **{"fading_post_norm": 0.5, "idle_examples": 0.25, "large_start": 8.0},
            **{"constant_columns": 0.1, "repeated_examples": 0.49, "copied_units": 0.1},
            **{"partly_saturated": 0.5, "near_overflow": 0.1, "one_hot_attention": 0.05},
            **{"uniform_attention": 0.95, "starved_branch": 0.1, "fading_time": 0.0},
        }
        assert {name: OBSERVATIONS[name].threshold for name in bounds} == bounds


class TestVerdict:
    def test_is_that_of_the_gravest_finding(self):
        flow = make_chain([1e-9, 1.0, 1e7])
        diagnosis = diagnose(flow)
        assert [each.rule for each in diagnosis.findings] == [
            "exploding_gradient",
            "vanishing_gradient",
        ]
        assert diagnosis.verdict is Verdict.EXPLODING
        assert not diagnosis.specified
        rest = overlook(diagnosis, flow, ["exploding_gradient"])
        assert (rest.verdict, len(rest.findings)) == (Verdict.VANISHING, 1)
        assert overlook(diagnosis, flow, ["dead_units"]) is diagnosis
        healthy = overlook(diagnosis, flow, ["exploding_gradient", "vanishing_gradient"])
        assert healthy.verdict is Verdict.HEALTHY

    def test_finding_names_all_layers_beyond_and_the_worst(self):
        flow = make_chain([1e-9, 1e-7, 1.0, 1e-8])
        (finding,) = [each for each in diagnose(flow).findings if each.rule == "vanishing_gradient"]
        assert (finding.layers, finding.modules) == ((1, 2, 4), ("0", "2", "6"))
        assert finding.worst == "0"
        assert finding.value == pytest.approx(1e-9 / math.sqrt(3))
        assert "3 of 4 layers are below" in finding.evidence
        assert "layer 1" in finding.evidence

    def test_of_numbers_that_are_not_finite_silences_what_compares_them(self):
        flow = make_chain([1e-9, 1.0, 1e7])
        bad = replace(flow.parameters[0], grad_non_finite=Quantity([1.0]))
        flow = make_flow(flow.layers, (bad, *flow.parameters[1:]), chain=True)
        assert [each.rule for each in diagnose(flow).findings] == ["non_finite"]

    @pytest.mark.parametrize(
        ("activation", "options", "change"),
        [
            ("relu", {"init": "xavier"}, "He (Kaiming) initialization"),
            ("relu", {"init": "random"}, "He (Kaiming) initialization"),
            ("relu", {"init": "he"}, "another activation with its own initialization"),
            ("tanh", {"init": "he"}, "Xavier (Glorot) initialization"),
            ("tanh", {"init": "xavier"}, "another activation with its own initialization"),
            ("selu", {"init": "he"}, "LeCun initialization"),
            ("sigmoid", {"init": "he"}, "an activation whose largest derivative is above 0.25"),
            ("sigmoid", {"init": "xavier"}, "an activation whose largest derivative is above 0.25"),
            ("sigmoid", {"init": "random"}, "an activation whose largest derivative is above 0.25"),
            ("sigmoid", {"init": "random", "weight_std": 0.0}, "Xavier (Glorot) initialization"),
            ("relu", {"init": "random", "weight_std": 0.0}, "He (Kaiming) initialization"),
            (None, {}, "an initialization that suits the activation"),
        ],
    )
    def test_of_vanishing_gradients_suggests_what_suits_the_network(
        self, activation, options, change
    ):
        spec = activation and NetworkSpec(depth=3, activation=activation, **options)
        found = diagnose(make_chain([1e-9, 1e-6, 1.0], spec=spec))
        assert found.verdict is Verdict.VANISHING
        assert found.action.startswith(f"Worth trying: {change}, residual connections")

    def test_of_vanishing_gradients_suggests_nothing_that_is_there(self):
        flow = make_chain([1e-9, 1e-6, 1.0], residuals=(residual(normalization="before"),))
        found = diagnose(flow)
        assert found.verdict is Verdict.VANISHING
        assert found.action == (
            "Worth trying: an initialization that suits the activation; then measure again."
        )

    @staticmethod
    def build_recurrent(norms, lost, loops="b"):
        """Layers "a" to "d" with these gradients, some recurrent with so many lost steps."""
        steps = (*[0.0] * lost, *[1.0] * (4 - lost))
        times = tuple(
            TimeFlow(
                **{"name": name, "kind": "LSTM", "call": 0, "of": "input", "length": 4},
                **{"steps": (0, 1, 2, 3), "gradients": tuple(map(quantity, steps))},
            )
            for name in loops
        )
        calls = [
            call(name, "LSTM" if name in loops else "Linear", "weight", layer=at)
            for at, name in enumerate("abcd", start=1)
        ]
        weights = [
            parameter(f"{name}.weight", at, grad_norm=norm)
            for at, (name, norm) in enumerate(zip("abcd", norms, strict=True), start=1)
        ]
        return make_flow(calls, weights, times=times)

    @pytest.mark.parametrize(
        ("norms", "loops", "first"),
        [
            ((1e-9, 1.0, 1.0, 1.0), "b", "vanishing_time"),
            ((1e-9, 1.0, 1e-9, 1.0), "b", "vanishing_gradient"),  # one lies behind it
            ((1e-9, 1.0, 1e-9, 1.0), "bd", "vanishing_gradient"),
            ((1.0, 1.0, 1e-9, 1.0), "b", "vanishing_gradient"),
        ],
    )
    def test_begins_with_the_module_that_loses_all_that_is_small_before_it(
        self, norms, loops, first
    ):
        found = diagnose(self.build_recurrent(norms, lost=3, loops=loops)).findings
        assert found[0].rule == first
        assert {"vanishing_time", "vanishing_gradient"} <= {each.rule for each in found}

    def test_finding_names_its_layers_from_input_to_output(self):
        flow = self.build_recurrent([1.0] * 4, lost=3, loops="cb")
        (finding,) = [each for each in diagnose(flow).findings if each.rule == "vanishing_time"]
        assert finding.layers == (2, 3)

    def test_of_an_own_model_has_a_score_for_each_optimizer(self):
        flow = make_chain([1.0, 1.0])
        scores = score_model(flow, "sgd"), score_model(flow, "adam")
        viability = diagnose(flow).viability
        assert (viability.sgd.probability, viability.adam.probability) == scores
        assert scores[0] != scores[1]
        assert viability.sgd.word is viability.adam.word is Outlook.UNKNOWN
        assert diagnose(make_chain([1e-9, 1.0, 1.0])).viability.sgd.word is Outlook.UNKNOWN

    def test_of_a_specification_that_is_not_covered_has_no_score(self):
        found = diagnose(make_chain([1.0, 1.0], spec=NetworkSpec(depth=2, width=4))).viability
        assert not found.covered
        assert (found.sgd.probability, found.adam.probability) == (None, None)

    def test_of_a_training_that_could_not_be_tried_is_that_of_the_measurement(self):
        skipped = Trial(
            optimizers=(), passes=0.0, limit=300, fresh=False, kept=0, skipped="no room"
        )
        found = diagnose(make_chain([1.0, 1.0]), trial=skipped)
        assert (found.verdict, found.action) == (Verdict.HEALTHY, ACTION_MEASURED)
        assert found.prospects == "measured only"

    def test_of_nothing_to_train(self):
        frozen = parameter("a.weight", 1, status="frozen")
        assert diagnose(make_flow([call("a", layer=1)], [frozen])).verdict is Verdict.NO_GRADIENT
        assert "has none" in diagnose(make_flow()).action

    def test_of_a_healthy_model_says_between_what_gradients_lie(self):
        diagnosis = diagnose(make_chain([3.0, 1.0, 2.0]))
        assert diagnosis.verdict is Verdict.HEALTHY
        assert "between 1 and 3" in diagnosis.summary
        assert "1.5 times" in diagnosis.summary
        assert diagnosis.action == ACTION_MEASURED
        assert diagnosis.prospects == "measured only"

    def test_of_a_layer_without_a_weight_is_given(self):
        single = diagnose(make_flow([call("a")], [parameter("a.bias", shape=(4,))]))
        assert single.summary == "No measured value is beyond its limit."

    def test_of_explained_gradients_counts_them(self):
        flow = make_chain([0.0, 0.0, 1.0])
        zero = replace(flow.parameters[2], norm=Quantity([0.0]))
        flow = make_flow(flow.layers, (*flow.parameters[:2], zero), chain=True)
        assert "2 of 3 layers" in diagnose(flow).summary

    @pytest.mark.parametrize(("rate", "found"), [(0.29, False), (0.31, True)])
    def test_of_a_rate_far_above_the_limit(self, rate, found):
        sharpness = Sharpness(eigenvalue=40.0, tolerance=0.0, rate=rate, optimizer="SGD")
        diagnosis = diagnose(make_chain([1.0, 1.0]), sharpness=sharpness)
        assert (diagnosis.verdict is Verdict.LEARNING_RATE) is found
        if found:
            assert diagnosis.findings[0].value == pytest.approx(rate / 0.05)
        adam = replace(sharpness, optimizer="Adam")
        assert diagnose(make_chain([1.0, 1.0]), sharpness=adam).verdict is Verdict.HEALTHY

    def test_of_a_rate_far_above_the_limit_comes_before_what_is_hard_to_train(self):
        one = quantity(1.0)
        untold = TimeFlow(
            **{"name": "0", "kind": "RNN", "call": 0, "of": "input", "length": 17},
            **{"steps": tuple(range(17)), "chances": (one,) * 17, "state_chance": one},
            gradients=(quantity(0.05), *(one,) * 16),
        )
        flow = make_chain([1.0, 1.0], times=(untold,))
        assert diagnose(flow).verdict is Verdict.HARD_TO_TRAIN
        sharpness = Sharpness(eigenvalue=40.0, tolerance=0.0, rate=1.0, optimizer="SGD")
        found = diagnose(flow, sharpness=sharpness)
        assert [each.rule for each in found.findings] == ["overshoots", "untold_steps"]
        assert "A rate of 0.025 is safe" in found.findings[0].evidence  # half of the limit
