"""The numbers of `check_width` equal those of a plain loop with hooks, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from chainrule import check_width
from chainrule.width.check import _find_reason
from chainrule.width.judging import Facts, judge_modules
from chainrule.width.measuring import ModuleSizes, _cancels, _measure_along
from chainrule.width.recording import Recorder
from chainrule.width.records import (
    ModuleScaling,
    ParameterScaling,
    WidthCheck,
    WidthFinding,
    describe_harm,
)
from chainrule.width.scaling import (
    Scaling,
    find_quantile,
    fit_scaling,
    round_exponent,
    write_power,
)

WIDTHS, STEPS, SEEDS, RATE = (8, 16, 32), 3, 2, 0.1


def make_model(width):
    layers = nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Linear(width, 2)
    return nn.Sequential(*layers).double()


DRAW = torch.Generator().manual_seed(0)
BATCHES = [
    tuple(torch.randn(4, size, generator=DRAW).double() for size in (3, 2)) for _ in range(SEEDS)
]


def rms(tensor):
    return tensor.detach().square().mean().sqrt().item()


def measure_by_hand(width, seed):
    """Return sizes of one model by (name, metric)."""
    torch.manual_seed(seed)
    model = make_model(width)
    x, y = BATCHES[seed]
    outputs = {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: outputs.update({name: out}))
        for name, module in model.named_children()
    ]
    loss = F.mse_loss(model(x), y)
    for output in outputs.values():
        output.retain_grad()
    loss.backward()
    before = {name: output.detach().clone() for name, output in outputs.items()}
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    sizes = {}
    for name, output in outputs.items():
        sizes[name, "output"] = rms(output)
        sizes[name, "gradient"] = rms(output.grad)
    delta = outputs["3"].grad.clone()
    for name, p in model.named_parameters():
        sizes[name, "size"], sizes[name, "gradient"] = rms(p), rms(p.grad)
    for _ in range(STEPS):
        model.zero_grad()
        F.mse_loss(model(x), y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(RATE * p.grad)
    model(x)
    for name, output in outputs.items():
        sizes[name, "change"] = rms(output - before[name])
    for name, p in model.named_parameters():
        sizes[name, "update"] = rms(p - start[name])
    h = outputs["1"].detach()
    weight, bias = model[2].weight, model[2].bias
    sizes["2.weight", "effect"] = rms(h @ (weight - start["2.weight"]).T)
    sizes["2.bias", "effect"] = rms((bias - start["2.bias"]).expand(4, width))
    passed = h @ start["2.weight"].T + start["2.bias"] - before["2"]
    sizes["2", "inherited"] = rms(passed)
    h = outputs["2"].detach()
    passed = h @ start["3.weight"].T + start["3.bias"] - before["3"]
    along = (passed * delta).sum() / delta.norm()  # for the readout: along the gradient
    sizes["3", "inherited"] = abs(along.item()) / math.sqrt(passed.numel())
    for handle in handles:
        handle.remove()
    return sizes


def test_sizes_equal_those_of_a_plain_loop():
    batches = iter(BATCHES)
    check = check_width(
        make_model,
        WIDTHS,
        lambda: next(batches),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=RATE),
        steps=STEPS,
        seeds=SEEDS,
    )
    found = {
        (row["parameter"] or row["module"], row["metric"], row["width"]): row
        for row in check.to_records()
    }
    expected = {
        (width, seed): measure_by_hand(width, seed) for width in WIDTHS for seed in range(SEEDS)
    }
    for name, metric in expected[8, 0]:
        logs = np.log([[expected[w, s][name, metric] for s in range(SEEDS)] for w in WIDTHS])
        slopes = [np.polyfit(np.log(WIDTHS), logs[:, s], 1)[0] for s in range(SEEDS)]
        for width, row in zip(WIDTHS, logs, strict=True):
            entry = found[name, metric, width]
            assert entry["size"] == pytest.approx(np.exp(row.mean()), rel=1e-8)
            assert entry["exponent"] == pytest.approx(np.mean(slopes), abs=1e-8)
    for width, losses in zip(WIDTHS, check.losses, strict=True):
        torch.manual_seed(0)
        one = F.mse_loss(make_model(width)(BATCHES[0][0]), BATCHES[0][1]).item()
        torch.manual_seed(1)
        other = F.mse_loss(make_model(width)(BATCHES[1][0]), BATCHES[1][1]).item()
        assert losses[0] == pytest.approx((one + other) / 2, rel=1e-8)


class Shared(nn.Module):
    """One activation that serves two layers."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)
        self.act = nn.Tanh()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


def test_widths_are_put_in_order_and_calls_of_one_activation_told_apart():
    def make_optimizer(model):
        return torch.optim.SGD(model.parameters(), lr=RATE)

    batch = torch.randn(6, 4), torch.randn(6, 2)
    check = check_width(
        Shared, [32, 8, 8, 16], lambda: batch, optimizer=make_optimizer, steps=1, seeds=1
    )
    assert check.widths == (8, 16, 32)
    modules = dict.fromkeys(row["module"] for row in check.to_records())
    assert list(modules) == ["first", "act", "second", "act (call 2)"]


@pytest.mark.parametrize("gradient", [1e-6, 1e-3])
def test_a_gradient_is_rounding_if_far_below_that_of_independent_rows(gradient):
    rows, one = 4, 1.0
    values = {"gradient": one, "factor": 1.0}
    module = ModuleSizes(((rows, 8),), ((rows, 8),), False, False, values)
    bound = math.sqrt(2.0**-23) * one * math.sqrt(rows)  # 7e-4 in float32
    assert _cancels(gradient, torch.zeros(8), module) is (gradient < bound)


def test_the_line_is_least_squares_with_an_offset_per_seed():
    rng = np.random.default_rng(0)
    widths, seeds = np.array([8, 16, 32, 64]), 3
    logs = 0.5 * np.log(widths)[:, None] + rng.normal(size=seeds) + 0.1 * rng.normal(size=(4, 3))
    found = fit_scaling(list(widths), np.exp(logs).tolist())
    rows = np.kron(np.ones((4, 1)), np.eye(seeds))
    design = np.column_stack([np.repeat(np.log(widths), seeds), rows])
    solution, left, *_ = np.linalg.lstsq(design, logs.reshape(-1), rcond=None)
    freedom = 12 - 4
    deviation = np.sqrt(left[0] / freedom * np.linalg.inv(design.T @ design)[0, 0])
    assert found.exponent == pytest.approx(solution[0])
    assert found.error == pytest.approx(stats.t.ppf(0.975, freedom) * deviation, rel=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 20, 100])
def test_the_quantile_is_that_of_student(freedom):
    assert find_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_what_has_no_logarithm_has_no_exponent(value):
    assert fit_scaling([8, 16], [[1.0, 1.0], [1.0, value]]) is None


@pytest.mark.parametrize(
    ("measured", "meant", "factor"),
    [(0.27, 0.5, "√width"), (0.8, 1.0, "width"), (-0.4, -0.5, "1/√width"), (1.6, 1.5, "width^1.5")],
)
def test_exponents_are_multiples_of_one_half(measured, meant, factor):
    assert round_exponent(measured) == meant
    assert write_power(meant) == factor


def scale(exponent, error=0.0):
    return Scaling((1.0, 4.0**exponent, 16.0**exponent), exponent, error)


def judge(*modules, **known):
    """Return the findings at widths of 16, 64 and 256."""
    facts = {
        **{"wide_inputs": frozenset(), "containers": frozenset(), "rows": {}, "eps": 0.0},
        **{"optimizer": "SGD", "shared": {}},
    } | known
    found, _, _, _ = judge_modules(modules, (16, 64, 256), Facts(**facts))
    return found


@pytest.mark.parametrize(
    ("along", "floor", "size"),
    [
        ([2.0, 0.0], 0.0, 3.0 / math.sqrt(2.0)),  # the root mean square of (3, 0)
        ([-5.0, 0.0], 0.0, 3.0 / math.sqrt(2.0)),
        ([4.0, -3.0], 1e-9, 0.0),
        ([2.0, 0.0], 2.1, 3.0 / math.sqrt(2.0)),
        ([2.0, 0.0], 2.2, 0.0),  # no more than rounding makes
        ([0.0, 0.0], 0.0, 0.0),
    ],
)
def test_the_part_of_a_change_along_another_is_its_projection(along, floor, size):
    moved = [torch.tensor([3.0]), torch.tensor([4.0])]
    parts = [torch.tensor([each]) for each in along]
    assert _measure_along(moved, parts, floor) == pytest.approx(size)


class TestJudging:
    @pytest.mark.parametrize(
        ("rows", "is_wide", "falls"),
        [(16, True, True), (17, True, False), (100, True, False), (17, False, True)],
    )
    def test_an_update_of_more_rows_than_the_smallest_width_may_fall_by_a_half(
        self, rows, is_wide, falls
    ):
        weight = ParameterScaling(name="a.weight", shapes=((16, 16),) * 3, effect=scale(-0.5))
        module = ModuleScaling(name="a", kind="hidden", parameters=(weight,))
        wide = frozenset({"a"}) if is_wide else frozenset()
        found = judge(module, rows={"a": rows}, wide_inputs=wide)
        assert [(each.parameter, each.exponent) for each in found] == (
            [("a.weight", -0.5)] if falls else []
        )

    def test_a_bias_has_no_rows_of_its_own_so_its_update_may_not_fall(self):
        bias = ParameterScaling(name="a.bias", shapes=((16,),) * 3, effect=scale(-0.5))
        module = ModuleScaling(name="a", kind="hidden", parameters=(bias,))
        found = judge(module, rows={"a": 17}, wide_inputs=frozenset({"a"}))
        assert [(each.parameter, each.exponent) for each in found] == [("a.bias", -0.5)]

    @pytest.mark.parametrize(("effect", "cause"), [(0.5, "a"), (1.0, "")])
    def test_an_effect_that_grows_like_the_input_follows_from_what_is_before(self, effect, cause):
        before = ParameterScaling(name="a.weight", shapes=((16, 16),) * 3)
        weight = ParameterScaling(name="b.weight", shapes=((16, 16),) * 3, effect=scale(effect))
        found = judge(
            ModuleScaling(name="a", kind="hidden", output=scale(0.5), parameters=(before,)),
            ModuleScaling(name="b", kind="hidden", input=scale(0.5), parameters=(weight,)),
        )
        assert [(each.module, each.metric, each.cause) for each in found] == [
            ("a", "output", ""),
            ("b", "effect", cause),
        ]

    @pytest.mark.parametrize(
        ("change_gain", "power"),
        [(1.0, "1/width"), (0.5, "1/√width"), (0.1, "1/√width"), (None, "1/√width")],
    )
    def test_a_readout_is_scaled_by_what_training_lines_up(self, change_gain, power):
        weight = ParameterScaling(name="head.weight", shapes=((2, 16),))
        gain = None if change_gain is None else scale(change_gain)
        module = ModuleScaling(
            name="head", kind="output", output=scale(0.5), change_gain=gain, parameters=(weight,)
        )
        (found,) = judge(module)
        assert (found.metric, found.at_most, found.exponent) == ("output", True, 0.5)
        assert found.action.endswith(f"by {power}")

    @pytest.mark.parametrize(
        ("output", "limit", "harmful", "harmful_from"),
        [
            ((1.0, 2.0, 8.0), 8.0, False, 1024.0),  # a change of 4 that grows with √width
            ((8.0, 2.0, 4.0), 4.0, True, 256.0),
            ((9.0, 9.0, 2.0), 2.0, True, 64.0),
            (None, 1.0, True, 16.0),
        ],
    )
    def test_a_change_does_harm_from_the_size_of_the_output_on(
        self, output, limit, harmful, harmful_from
    ):
        known = None if output is None else Scaling(output, 0.0, 0.1)
        (found,) = judge(ModuleScaling(name="a", kind="hidden", output=known, change=scale(0.5)))
        assert (found.metric, found.size, found.limit) == ("change", 4.0, limit)
        assert found.harmful is harmful
        assert found.harmful_from == pytest.approx(harmful_from)

    @pytest.mark.parametrize(
        ("gradients", "is_blamed"),
        [((1.0, 0.1, 0.01), True), ((0.01, 0.1, 1.0), False), ((0.04, 0.04, 0.04), True)],
    )
    def test_an_epsilon_is_compared_with_the_gradient_at_the_largest_width(
        self, gradients, is_blamed
    ):
        weight = ParameterScaling(
            name="a.weight",
            shapes=((16, 16),) * 3,
            effect=scale(-1.0),
            gradient=Scaling(gradients, 0.0, 0.1),
        )
        module = ModuleScaling(name="a", kind="hidden", parameters=(weight,))
        (found,) = judge(module, eps=0.005, optimizer="Adam")
        assert ("ε of Adam (0.005)" in found.action) is is_blamed
        assert ("width 256" in found.action) is is_blamed
        assert ("learning rate by width" in found.action) is not is_blamed

    @pytest.mark.parametrize("places", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
    def test_harm_of_several_updates_is_that_of_the_first_to_come(self, places):
        sizes = {"a": (0.5, 80_000.0), "b": (2.0, 2_000.0), "c": (1.0, 9_000.0)}
        findings = [
            WidthFinding(
                **{"module": name, "parameter": f"{name}.weight", "metric": "effect"},
                **{"exponent": 1.0, "error": 0.1, "text": "", "limit": 10.0},
                size=size,
                harmful_from=harmful_from,
            )
            for name, (size, harmful_from) in sizes.items()
        ]
        text = describe_harm(tuple(findings[at] for at in places), (16, 64, 256))
        assert "At width 256 it is 2 (`b.weight`)" in text
        assert "above 10" in text
        assert "about 2,000" in text

    @pytest.mark.parametrize(
        ("still", "unheld", "words"),
        [
            (0, 0, ""),
            (2, 0, ""),
            (3, 0, "3 of 4 parameters did not change in 1 step, among them `a0`"),
            (3, 2, ""),
            (4, 0, "Nothing changed in 1 step"),
            (4, 4, "Nothing changed in 1 step"),
        ],
    )
    def test_more_than_half_of_the_trained_parameters_must_change(self, still, unheld, words):
        effects = [None] * still + [scale(0.0)] * (4 - still)
        parameters = tuple(
            ParameterScaling(name=f"a{at}", shapes=((16, 16),), effect=effect)
            for at, effect in enumerate(effects)
        )
        module = ModuleScaling(name="a", kind="hidden", parameters=parameters)
        away = [f"a{at}" for at in range(unheld)]
        found = _find_reason([module], away, 1, (5, 3, 0))
        assert found.startswith(words)
        assert bool(found) == bool(words)

    @pytest.mark.parametrize(
        ("following", "words"),
        [
            ([], None),
            (["b"], "`b` follows from it."),
            (["b", "b"], "`b` follows from it."),
            (["c", "b"], "`b`, `c` follow from it."),
        ],
    )
    def test_what_follows_from_a_finding_is_named_once_below_it(self, following, words):
        findings = tuple(
            WidthFinding(
                **{"module": name, "parameter": "", "metric": "change", "cause": cause},
                **{"exponent": 0.5, "error": 0.1, "text": "grows", "limit": 1.0, "size": 4.0},
                harmful_from=16.0,
            )
            for name, cause in [("a", ""), *((name, "a") for name in following)]
        )
        check = WidthCheck(
            **{"widths": (16, 32), "seeds": 2, "steps": 3, "optimizer": "Adam"},
            **{"decided": 4, "findings": findings},
        )
        assert check.causes == findings[:1]
        found = [line.strip() for line in check.summary.splitlines() if "from it" in line]
        assert found == ([] if words is None else [words])

    @pytest.mark.parametrize(
        ("kind", "owns", "action"),
        [
            ("scores", False, "multiply q·k by 1/d"),
            ("hidden", False, "multiply its output by 1/√width"),
            ("hidden", True, ""),  # its parameters are judged by themselves
        ],
    )
    def test_what_to_do_about_a_change_depends_on_what_changes(self, kind, owns, action):
        weight = ParameterScaling(name="a.weight", shapes=((16, 16),), effect=scale(0.0))
        parameters = (weight,) if owns else ()
        module = ModuleScaling(name="a", kind=kind, change=scale(0.5), parameters=parameters)
        (found,) = judge(module)
        assert (found.metric, found.cause) == ("change", "")
        assert found.action.startswith(action)
        assert bool(found.action) == bool(action)

    @pytest.mark.parametrize(
        ("output", "change", "undecided", "counts"),
        [
            (scale(0.0), scale(0.0), [], (2, 1)),
            (scale(0.25), scale(-0.25), [], (2, 1)),  # as near to 0 as to a half
            (scale(0.5), scale(0.5), [], (2, 1)),  # what is wrong is decided
            (scale(-0.5), scale(-0.5), [], (2, 1)),
            (scale(0.0, 0.3), scale(0.0), ["output"], (1, 1)),
            (scale(0.1, 0.2), scale(-0.1, 0.2), ["output", "change"], (0, 0)),
            (scale(0.5, 0.3), scale(0.5, 0.3), ["output", "change"], (0, 0)),
            (scale(-0.5, 0.3), scale(-0.5, 0.3), ["output", "change"], (0, 0)),
            (scale(0.1, 0.1), scale(-0.1, 0.3), ["change"], (1, 0)),
            (None, scale(0.0), [], (1, 1)),
            (scale(0.0), None, [], (1, 0)),
            (None, None, [], (0, 0)),
        ],
    )
    def test_decided_is_what_lies_on_one_side_with_its_error(
        self, output, change, undecided, counts
    ):
        module = ModuleScaling(name="a", kind="hidden", output=output, change=change)
        facts = Facts(
            **{"wide_inputs": frozenset(), "containers": frozenset(), "rows": {}, "eps": 0.0},
            **{"optimizer": "SGD", "shared": {}},
        )
        _, unknown, *found = judge_modules([module], (16, 64, 256), facts)
        assert unknown == tuple(("a", metric) for metric in undecided)
        assert tuple(found) == counts

    @pytest.mark.parametrize(
        ("counts", "words"),
        [
            ((5, 3, 5), ""),
            ((5, 3, 6), "Use more widths"),
            ((5, 1, 0), ""),
            ((5, 0, 0), "No change after 2 steps is among them. Use more widths"),
        ],
    )
    def test_a_pass_needs_a_change_and_half_of_the_exponents(self, counts, words):
        weight = ParameterScaling(name="a.weight", shapes=((16, 16),), effect=scale(0.0))
        module = ModuleScaling(name="a", kind="hidden", parameters=(weight,))
        found = _find_reason([module], [], 2, counts)
        assert found.startswith(words)
        assert bool(found) == bool(words)

    @pytest.mark.parametrize(
        ("decided", "reason", "verdict", "words"),
        [
            (4, "", "width-independent", "(4 exponents)"),
            (4, "Because.", "undecided", "4 of 5 exponents are known well enough. Because."),
            (0, "", "undecided", "0 of 1 exponents are known well enough. Use more seeds."),
        ],
    )
    def test_nothing_found_is_a_pass_if_enough_is_decided(self, decided, reason, verdict, words):
        check = WidthCheck(
            **{"widths": (16, 32), "seeds": 2, "steps": 3, "optimizer": "Adam"},
            **{"decided": decided, "reason": reason, "undecided": (("a", "change"),)},
        )
        assert (check.verdict, check.passed) == (verdict, verdict == "width-independent")
        assert words in check.summary

    @pytest.mark.parametrize(
        ("earlier", "cause"),
        [("h.1.q", "h.1.q"), ("h.1", ""), ("h.10.q", ""), ("h.1x", ""), ("stem", "")],
    )
    def test_scores_follow_from_what_lies_in_the_same_module(self, earlier, cause):
        wrong = ModuleScaling(name=earlier, kind="hidden", output=scale(0.5))
        scores = ModuleScaling(name="h.1.attn (scores)", kind="scores", output=scale(0.5))
        first, second = judge(wrong, scores)
        assert (first.module, first.cause) == (earlier, "")
        assert (second.module, second.cause) == ("h.1.attn (scores)", cause)


class Fused(nn.Module):
    def forward(self, q, k, v, **options):
        return F.scaled_dot_product_attention(q, k, v, **options)


BARRED_ROW = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.1},
        {"attn_mask": BARRED_ROW},
        {"attn_mask": torch.randn(3, 3, generator=DRAW)},
        {"enable_gqa": True},
    ],
    ids=["plain", "causal", "scale", "barred", "added", "grouped"],
)
def test_attention_step_by_step_equals_the_fused_one(options):
    heads = 2 if "enable_gqa" in options else 4
    q, k, v = torch.randn(1, 4, 3, 5), torch.randn(1, heads, 3, 5), torch.randn(1, heads, 3, 5)
    model = Fused()
    expected = model(q, k, v, **options)
    recorder = Recorder(model)
    with recorder.watch():
        found = model(q, k, v, **options)
    torch.testing.assert_close(found, expected)
    assert recorder.seen["(model) (scores)"].outputs[0].shape == (1, 4, 3, 3)
