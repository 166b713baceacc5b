"""`check_width` around its numbers: results, words, arguments, and what it leaves alone."""

import copy
import dataclasses
import json
import math
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import chainrule
from chainrule import check_width
from chainrule.errors import ChainruleError, InspectionError
from chainrule.testing import assert_width_independent
from traces import unchanged
from width_models import perceptron_case


def plain(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                         nn.Linear(width, 3))  # fmt: skip


def batch():
    return torch.randn(6, 4), torch.randint(3, (6,))


ADAM = partial(torch.optim.Adam, lr=1e-3)
QUICK = {"widths": [8, 16, 32], "make_batch": batch, "optimizer": ADAM, "seeds": 2, "steps": 2}


@pytest.fixture(scope="module")
def faulty():
    return check_width(**perceptron_case("one layer's rate"))


# --- Standard parametrization ---------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "is_harmful"), [(1e-4, False), (3e-2, True)])
def test_a_plain_model_leaves_and_the_rate_says_whether_it_harms(rate, is_harmful):
    check = check_width(
        plain, [16, 32, 64, 128], batch, optimizer=partial(torch.optim.Adam, lr=rate)
    )
    found = {f.parameter: f for f in check.causes if f.metric == "effect"}
    assert "2.weight" in found
    finding = found["2.weight"]
    assert finding.harmful is is_harmful
    assert finding.harmful is (finding.size >= finding.limit)
    assert finding.limit == pytest.approx(check["2"].output.sizes[-1])
    assert ("harmful, being above" in check.summary) is is_harmful
    if not is_harmful:
        assert finding.harmful_from > 128


def test_a_gradient_step_alone_is_judged_as_well():
    case = perceptron_case("readout of order 1")
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.05)  # noqa: E731
    check = check_width(**case | {"optimizer": sgd})
    assert "head" in {f.module for f in check.causes}


# --- What a model may hold ------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(7, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, 7)

    def forward(self, x):
        return self.head(self.layer(self.embed(x)))


def tokens():
    return torch.randint(7, (2, 4)), torch.randint(7, (2, 4))


def test_modules_of_pytorch_are_taken_apart():
    check = check_width(Encoder, **QUICK | {"make_batch": tokens})
    attention = check["layer.self_attn"]
    names = {parameter.name for parameter in attention.parameters}
    assert "layer.self_attn.in_proj_weight" in names
    assert "layer.self_attn.out_proj.weight" in names  # which never runs as a module
    assert check["layer.self_attn (scores)"].kind == "scores"
    assert check["head"].kind == "output"
    assert check["layer.linear1"].kind == "hidden"


def test_dropout_draws_the_same_before_and_after():
    frozen = lambda model: torch.optim.SGD(model.parameters(), lr=0.0)  # noqa: E731
    check = check_width(Encoder, **QUICK | {"make_batch": tokens, "optimizer": frozen})
    assert all(module.change is None for module in check.modules)  # nothing moved at all
    assert check["layer.dropout"].output is not None


def test_a_mapping_is_passed_on_by_name():
    class WithLoss(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = plain(width)

        def forward(self, x, y):
            return {"loss": nn.functional.cross_entropy(self.inner(x), y)}

    check = check_width(
        WithLoss, **QUICK | {"make_batch": lambda: dict(zip("xy", batch(), strict=True))}
    )
    assert check["inner.4"].kind == "output"


def test_parameters_that_are_not_held_are_noted():
    check = check_width(
        plain, **QUICK | {"optimizer": lambda m: torch.optim.SGD(m[0].parameters(), lr=0.1)}
    )
    assert any("2.weight" in note and "3 more" in note for note in check.notes)
    assert check["2"].parameters[0].update is None


def test_many_rows_are_noted():
    many = lambda: (torch.randn(50, 4), torch.randint(3, (50,)))  # noqa: E731
    check = check_width(plain, **QUICK | {"make_batch": many})
    assert any("50 rows" in note for note in check.notes)


# --- The result -----------------------------------------------------------------------------------


def test_the_result_is_frozen_and_can_be_sent(faulty):
    with pytest.raises(dataclasses.FrozenInstanceError):
        faulty.widths = ()
    assert pickle.loads(pickle.dumps(faulty)) == faulty
    assert hash(faulty.findings[0]) == hash(copy.copy(faulty.findings[0]))


def test_json_and_records_hold_the_numbers(faulty):
    held = json.loads(faulty.to_json())
    assert held["verdict"] == faulty.verdict == "depends on width"
    assert held["widths"] == [16, 32, 64, 128]
    assert [f["module"] for f in held["findings"]] == [f.module for f in faulty.findings]
    by_name = {module["name"]: module for module in held["modules"]}
    assert by_name["third"]["output"]["exponent"] == faulty["third"].output.exponent
    rows = faulty.to_records()
    assert {row["metric"] for row in rows} >= {"output", "change", "gradient", "effect", "update"}
    assert all(set(row) == set(rows[0]) for row in rows)
    with pytest.raises(KeyError):
        faulty["nowhere"]


@pytest.mark.parametrize("metric", ["output", "change", "gradient", "effect"])
def test_the_plot_shows_every_size(faulty, metric):
    figure = faulty.plot(metric)
    assert figure.data
    assert all(tuple(line.x) == faulty.widths for line in figure.data)
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    assert ticks == {str(width): width for width in faulty.widths}
    if metric == "effect":
        assert figure.data[0].name.startswith("third.weight: width^")  # the finding first
        assert figure.data[0].line.width > figure.data[1].line.width


def test_an_unknown_plot_is_refused(faulty):
    with pytest.raises(ChainruleError, match=r"efect.*Did you mean 'effect'"):
        faulty.plot("efect")


# --- For tests ------------------------------------------------------------------------------------


def test_the_assertion_names_module_exponent_and_remedy():
    case = perceptron_case("one layer's rate")
    with pytest.raises(AssertionError) as caught:
        assert_width_independent(**case)
    message = str(caught.value)
    assert all(part in message for part in ("`third.weight`", "width^", "expected 0", "1/width"))
    check = assert_width_independent(**case, allow=["third.weight"])
    assert check.findings  # accepted, not hidden
    assert assert_width_independent(**perceptron_case()).passed
    with pytest.raises(InspectionError, match="thrid"):
        assert_width_independent(**case, allow=["thrid.weight"])


# --- Leaving no trace -----------------------------------------------------------------------------


def test_random_states_and_settings_are_as_before():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()

    def noisy():
        random.random()
        np.random.rand()
        return batch()

    with torch.no_grad():
        check_width(plain, **QUICK | {"make_batch": noisy})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    ) == settings


def test_it_gives_the_same_again():
    assert check_width(plain, **QUICK) == check_width(plain, **QUICK)


def test_a_model_that_is_kept_is_refused_and_left_alone():
    kept = {width: plain(width) for width in (8, 16, 32)}
    refused = pytest.raises(InspectionError, match=r"new model.*width 8, seed 1")
    with unchanged(kept[8]), unchanged(kept[16]), refused:
        check_width(kept.get, **QUICK)


# --- Bad input ------------------------------------------------------------------------------------


def deeper(width):
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(width // 8)), nn.Linear(4, 3))


def exploding(width):
    model = plain(width)
    if width > 16:
        nn.init.constant_(model[2].bias, torch.inf)
    return model


FOREIGN = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"widths": [16]}, ["widths", "two", "[16]"]),
        ({"widths": [16, 16]}, ["widths", "two"]),
        ({"widths": []}, ["widths"]),
        ({"widths": 16}, ["widths", "16"]),
        ({"widths": [16, 0]}, ["widths", "0"]),
        ({"widths": [16, 2.5]}, ["widths", "2.5"]),
        (
            {"widths": [16, 10**9 + 1], "make_model": lambda width: 1 / 0},  # none is made
            ["widths", "1,000,000,000", str(10**9 + 1)],
        ),
        ({"widths": [8, 16], "seeds": 1}, ["seeds=2"]),
        ({"steps": 0}, ["steps", "0"]),
        ({"seeds": True}, ["seeds", "True"]),
        ({"make_model": plain(8)}, ["make_model", "Sequential"]),
        ({"make_model": lambda width: plain(8)}, ["width 8 and 16", "same shapes"]),
        (
            {"make_model": lambda width: plain(min(width, 16))},
            ["width 16 and 32", "same shapes"],
        ),
        ({"make_model": lambda width: width}, ["make_model", "int", "width 8"]),
        ({"make_model": lambda width: 1 / 0}, ["make_model(8)", "ZeroDivisionError"]),
        ({"make_model": deeper}, ["'2'", "width 8", "width 16"]),
        ({"make_model": exploding}, ["width 32, seed 0", "'2'", "before the first step"]),
        ({"make_batch": lambda: 3}, ["make_batch", "pair", "int"]),
        ({"make_batch": None}, ["make_batch", "NoneType"]),
        ({"optimizer": torch.optim.SGD(FOREIGN.parameters(), lr=1)}, ["optimizer", "SGD"]),
        (
            {"optimizer": lambda model: torch.optim.SGD(FOREIGN.parameters(), lr=1)},
            ["optimizer", "width 8", "2 that are not"],
        ),
        ({"optimizer": lambda model: model}, ["optimizer", "Sequential"]),
        ({"optimizer": partial(torch.optim.SGD, lr=1e30)}, ["finite", "width 8", "step"]),
        ({"compute_loss": lambda model, xy: model(xy[0])}, ["compute_loss", "[6, 3]"]),
        (
            {"make_model": lambda width: plain(width).requires_grad_(False)},
            ["trained", "width 8"],
        ),
    ],
)
def test_bad_input_is_refused_with_the_facts(changes, facts):
    before = torch.get_rng_state()
    with pytest.raises(InspectionError) as caught:
        check_width(**{"make_model": plain} | QUICK | changes)
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert torch.equal(torch.get_rng_state(), before)


def test_the_name_is_public():
    assert chainrule.check_width is check_width


# --- What is not decided --------------------------------------------------------------------------


def draw_elsewhere(width):
    model = plain(width)
    source = random.SystemRandom()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 ** source.uniform(-2, 2))
    return model


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"optimizer": partial(torch.optim.SGD, lr=0.0)}, ["Nothing changed", "2 steps", "rate"]),
        ({"optimizer": partial(torch.optim.SGD, lr=1e-9)}, ["Nothing changed", "rounding"]),
        ({"make_model": draw_elsewhere}, ["make_model draws", "differ between calls"]),
        ({"widths": [1, 2], "steps": 4}, ["1 to 2", "did not change"]),
    ],
)
def test_too_little_that_is_decided_is_no_pass(changes, facts):
    case = {"make_model": plain} | QUICK | changes
    check = check_width(**case)
    assert not check.passed
    if check.verdict != "undecided":  # of random models, a finding may come by chance
        assert case["make_model"] is draw_elsewhere
        return
    assert check.summary.startswith("Not decided")
    assert all(fact in check.summary for fact in facts), check.summary
    assert check.to_dict()["reason"] == check.reason
    if case["make_model"] is plain:
        with pytest.raises(AssertionError, match="Not decided"):
            assert_width_independent(**case)


def test_a_pass_names_how_many_are_not_decided():
    check = check_width(**perceptron_case())
    undecided = dataclasses.replace(check, undecided=(("third", "change"),))
    assert check.passed
    assert undecided.passed
    assert "Not decided: 1 exponent" in undecided.summary


# --- Bad data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "facts", "never"),
    [
        ((torch.tensor([[1.0, 2, 3, math.nan]]), torch.tensor([1])),
         ["batch[0]", "nan", "[0, 3]"], "learning rate"),
        ((torch.ones(6, 4), torch.full((6,), 7)), ["usual loss", "out of bounds.", "labels"], ".."),
        ((torch.ones(6, 4), torch.full((6,), 7)), ["make_batch"], "batches"),
        ((torch.ones(6, 4), torch.full((6,), 7)), ["make_batch"], "compute_loss"),
    ],
)  # fmt: skip
def test_bad_data_is_named(data, facts, never):
    with pytest.raises(InspectionError) as caught:
        check_width(**{"make_model": plain} | QUICK | {"make_batch": lambda: data})
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert never not in str(caught.value)
