"""Models in µP with one fault each: found by name; and without it: no alarm."""

from functools import cache

import pytest
import torch

from chainrule import check_width
from width_models import perceptron_case, transformer_case

CASES = {"perceptron": perceptron_case, "transformer": transformer_case}


@cache
def check(model, fault):
    """Return what is found; the same for every test."""
    return check_width(**CASES[model](fault))


FAULTS = [
    # model, fault, what is named, which of its sizes, the exponent in theory
    ("perceptron", "readout", ["head"], "change", 0.5),
    ("perceptron", "readout of order 1", ["head"], "change", 1.0),
    ("perceptron", "one initialization", ["second"], "output", 0.5),
    ("perceptron", "small initialization", ["third"], "output", -0.5),
    ("perceptron", "first layer", ["first"], "output", 0.5),
    ("perceptron", "multiplier", ["head"], "change", 1.0),
    (
        "perceptron",
        "one rate",
        ["second.weight", "third.weight", "head.weight"],
        "effect",
        1.0,
    ),
    ("perceptron", "one layer's rate", ["third.weight"], "effect", 1.0),
    ("perceptron", "bias rate", ["second.bias"], "effect", 1.0),
    ("perceptron", "slow first layer", ["first.weight"], "effect", -1.0),
    ("perceptron", "eps", ["second.weight", "third.weight"], "effect", -1.0),
    ("transformer", "readout", ["head"], "output", 0.5),
    ("transformer", "embedding", ["embed"], "output", 1.0),
    ("transformer", "embedding multiplier", ["embed"], "output", 0.5),
    ("transformer", "attention", ["blocks.0.attn (scores)"], "change", 0.5),
    ("transformer", "one layer's rate", ["blocks.0.up.weight"], "effect", 1.0),
    ("transformer", "tied", ["head"], "output", 1.0),
    ("transformer", "norm removed", ["blocks.0.gate", "blocks.1.gate"], "output", 0.5),
    ("transformer", "branch", ["blocks.0.down", "blocks.1.down"], "output", 1.0),
]


@pytest.mark.parametrize(
    ("model", "fault", "names", "metric", "exponent"),
    FAULTS,
    ids=[f"{model}, {fault}" for model, fault, *_ in FAULTS],
)
def test_a_planted_fault_is_found_by_name(model, fault, names, metric, exponent):
    found = check(model, fault)
    assert found.verdict == "depends on width"
    assert not found.passed
    causes = {f.parameter or f.module: f for f in found.causes if f.metric == metric}
    assert set(names) <= set(causes)
    modules = {name.removesuffix(".weight").removesuffix(".bias") for name in names}
    if fault != "eps":  # which spoils every parameter
        assert {f.module.partition(" (")[0] for f in found.causes} <= modules | {
            "blocks.0.attn",
            "blocks.1.attn",
        }
    for name in names:
        finding = causes[name]
        # Nearer to theory's exponent, or half a power below it where terms add up at random.
        assert exponent - 0.5 - 0.1 < finding.exponent < exponent + 0.25
        assert f"`{name}`" in str(finding)
        assert finding.action


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("readout of order 1", "initialization by 1/width"),
        ("one initialization", "initialization by 1/√width"),
        ("small initialization", "initialization by √width"),
        ("one layer's rate", "learning rate by 1/width"),
        ("slow first layer", "learning rate by width"),
        ("multiplier", "constant that it is multiplied by"),
        ("eps", "ε of Adam (1)"),
    ],
)
def test_the_words_say_what_to_do(fault, words):
    assert words in check("perceptron", fault).summary


def shift(case, number):
    """Have models and batches draw other numbers."""
    make_model, make_batch = case["make_model"], case["make_batch"]

    def draw(make, *args):
        torch.rand(number)
        return make(*args)

    return case | {
        "make_model": lambda width: draw(make_model, width),
        "make_batch": lambda: draw(make_batch),
    }


@pytest.mark.parametrize("number", range(3))
def test_a_sound_perceptron_gives_no_alarm(number, fuzz_seed):
    found = check_width(**shift(perceptron_case(), number + 100 * fuzz_seed))
    assert not found.findings, found.summary
    assert found.passed
    assert found.verdict == "width-independent"
    assert found["head"].output.exponent < -0.2  # √width ÷ width


@pytest.mark.parametrize(
    ("fault", "fused"),
    [
        ("", False),
        ("", True),
        ("tied with multiplier", False),  # also right: one matrix, with the constant of a readout
        ("input of head", False),  # the constant before the readout instead of after it
        ("norm inside", False),
    ],
)
def test_a_sound_transformer_gives_no_alarm(fault, fused, fuzz_seed):
    found = check_width(**shift(transformer_case(fault, fused=fused), fuzz_seed))
    assert not found.findings, found.summary
    assert found.passed


def test_fused_attention_is_seen_alike():
    options = {"widths": [16, 32], "seeds": 2, "steps": 1}
    one, other = (
        check_width(**transformer_case("attention", fused=fused, **options))
        for fused in (False, True)
    )
    name = "blocks.0.attn (scores)"
    assert one[name].kind == other[name].kind == "scores"
    assert one[name].output.sizes == pytest.approx(other[name].output.sizes, rel=1e-4)
    assert one[name].change.sizes == pytest.approx(other[name].change.sizes, rel=1e-2)
