"""The table of initializations against `torch.nn.init`, and the draws made from it."""

import math

import pytest
import torch
from torch import nn

from chainrule.errors import SpecError
from chainrule.measure.networks import initialize
from chainrule.spec.initializers import INITIALIZERS, get_initializer
from chainrule.spec.network_spec import NetworkSpec

NAMES = ("xavier", "he", "lecun", "random", "orthogonal", "pytorch")
ENTRIES = [pytest.param(entry, id=name) for name, entry in INITIALIZERS.items()]
FORMS = [
    pytest.param(entry, form, id=f"{name}-{form}")
    for name, entry in INITIALIZERS.items()
    for form in entry.distributions
]
FANS = [(300, 700), (700, 300), (5, 1), (1, 1)]
"""(fan_in, fan_out); the first two are large enough to estimate a standard deviation."""

SIGMA = 0.3
FILLERS = {
    ("xavier", "normal"): nn.init.xavier_normal_,
    ("xavier", "uniform"): nn.init.xavier_uniform_,
    ("he", "normal"): lambda w, generator: nn.init.kaiming_normal_(
        w, nonlinearity="relu", generator=generator
    ),
    ("he", "uniform"): lambda w, generator: nn.init.kaiming_uniform_(
        w, nonlinearity="relu", generator=generator
    ),
    ("lecun", "normal"): lambda w, generator: nn.init.kaiming_normal_(
        w, nonlinearity="linear", generator=generator
    ),
    ("lecun", "uniform"): lambda w, generator: nn.init.kaiming_uniform_(
        w, nonlinearity="linear", generator=generator
    ),
    ("random", "normal"): lambda w, generator: nn.init.normal_(w, 0.0, SIGMA, generator=generator),
    ("random", "uniform"): lambda w, generator: nn.init.uniform_(
        w, -SIGMA * 3**0.5, SIGMA * 3**0.5, generator=generator
    ),
    ("orthogonal", "normal"): nn.init.orthogonal_,
    ("pytorch", "normal"): lambda w, generator: nn.init.normal_(
        w, 0.0, (1 / 3 / w.shape[1]) ** 0.5, generator=generator
    ),
    ("pytorch", "uniform"): lambda w, generator: nn.init.kaiming_uniform_(
        w, a=5**0.5, generator=generator
    ),
}


def make_spec(entry, form=None, **fields):
    sigma = {"weight_std": SIGMA} if entry.name == "random" else {}
    return NetworkSpec(init=entry.name, distribution=form, **sigma, **fields)


def draw(spec, fan_in, fan_out, seed=7):
    weight, bias = torch.full((fan_out, fan_in), math.nan), torch.full((fan_out,), math.nan)
    initialize(weight, bias, spec, torch.Generator().manual_seed(seed))
    return weight, bias


def test_the_table_holds_the_documented_initializations():
    assert tuple(INITIALIZERS) == NAMES
    assert all(get_initializer(name) is entry for name, entry in INITIALIZERS.items())


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_is_complete(entry):
    assert entry.default_distribution in entry.distributions
    assert set(entry.distributions) <= {"normal", "uniform"}
    assert entry.formula.count("{") == entry.formula.count("}")
    assert all(text.strip() for text in (entry.formula, entry.label, entry.best_for, entry.source))


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("xavier", 2 / 1000),
        ("he", 2 / 300),
        ("lecun", 1 / 300),
        ("random", 0.09),
        ("orthogonal", 1 / 700),
        ("pytorch", 1 / 900),
    ],
)
def test_variance_deviation_and_bound_belong_together(name, variance):
    entry = get_initializer(name)
    assert entry.variance(300, 700, SIGMA) == pytest.approx(variance)
    assert entry.standard_deviation(300, 700, SIGMA) == pytest.approx(variance**0.5)
    assert entry.uniform_bound(300, 700, SIGMA) == pytest.approx((3 * variance) ** 0.5)


def test_only_random_looks_at_its_sigma():
    with_default = {name: e.standard_deviation(3, 5) for name, e in INITIALIZERS.items()}
    with_other = {name: e.standard_deviation(3, 5, 9.0) for name, e in INITIALIZERS.items()}
    assert with_default.pop("random") == 1.0
    assert with_other.pop("random") == 9.0
    assert with_default == with_other


@pytest.mark.parametrize(("fan_in", "fan_out"), FANS)
@pytest.mark.parametrize(("entry", "form"), FORMS)
def test_draws_are_those_of_torch(entry, form, fan_in, fan_out):
    received, _ = draw(make_spec(entry, form), fan_in, fan_out)
    expected = torch.empty(fan_out, fan_in)
    FILLERS[entry.name, form](expected, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(received, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("fan_in", "fan_out"), FANS)
def test_pytorch_default_is_what_a_fresh_linear_layer_has(fan_in, fan_out):
    weight, bias = draw(NetworkSpec(init="pytorch"), fan_in, fan_out)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        fresh = nn.Linear(fan_in, fan_out)
    torch.testing.assert_close(weight, fresh.weight.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(bias, fresh.bias.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("fan_in", "fan_out"), FANS[:2])
@pytest.mark.parametrize(("entry", "form"), FORMS)
def test_draws_have_the_promised_deviation_and_bound(entry, form, fan_in, fan_out):
    weight, _ = draw(make_spec(entry, form), fan_in, fan_out)
    std = entry.standard_deviation(fan_in, fan_out, SIGMA)
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    assert weight.mean().item() == pytest.approx(0.0, abs=0.01 * std)
    bound = entry.uniform_bound(fan_in, fan_out, SIGMA)
    if form == "uniform":
        assert 0.999 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    else:
        assert weight.abs().max().item() > bound


@pytest.mark.parametrize(("fan_in", "fan_out"), FANS)
def test_orthogonal_matrices_have_singular_values_of_one(fan_in, fan_out):
    weight, _ = draw(NetworkSpec(init="orthogonal"), fan_in, fan_out)
    short = weight if fan_out <= fan_in else weight.T
    torch.testing.assert_close(short @ short.T, torch.eye(len(short)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("entry", "form"), FORMS)
def test_equal_generators_draw_equal_layers(entry, form):
    spec = make_spec(entry, form, bias_std=0.5)
    first, again, other = draw(spec, 8, 6), draw(spec, 8, 6), draw(spec, 8, 6, seed=8)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_a_generator_moves_on_so_that_layers_differ():
    generator = torch.Generator().manual_seed(0)
    layers = [(torch.empty(4, 4), torch.empty(4)) for _ in range(2)]
    for weight, bias in layers:
        initialize(weight, bias, NetworkSpec(), generator)
    assert not torch.equal(layers[0][0], layers[1][0])
    assert not torch.equal(layers[0][1], layers[1][1])


class TestBiases:
    @pytest.mark.parametrize("entry", ENTRIES)
    def test_are_zero_but_for_pytorch(self, entry):
        _, bias = draw(make_spec(entry), 30, 20_000)
        if entry.name != "pytorch":
            assert entry.bias_bound is None
            assert not bias.any()
        else:
            bound = 30**-0.5
            assert entry.bias_bound(30) == pytest.approx(bound)
            assert 0.999 * bound < bias.abs().max().item() <= bound * (1 + 1e-6)
            assert bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)

    @pytest.mark.parametrize("entry", ENTRIES)
    def test_are_normal_with_a_given_deviation(self, entry):
        weight, bias = draw(make_spec(entry, bias_std=2.0), 3, 20_000)
        assert bias.std().item() == pytest.approx(2.0, rel=0.03)
        assert bias.abs().max().item() > 2.0 * 3**0.5
        assert torch.equal(weight, draw(make_spec(entry), 3, 20_000)[0])

    def test_of_deviation_zero_are_zero(self):
        _, bias = draw(NetworkSpec(init="pytorch", bias_std=0.0), 4, 50)
        assert not bias.any()


@pytest.mark.parametrize(
    ("unknown", "nearest"), [("kaiming", None), ("xaviar", "xavier"), ("LeCun", "lecun")]
)
def test_an_unknown_name_lists_all_and_leads_with_the_nearest(unknown, nearest):
    with pytest.raises(SpecError) as caught:
        get_initializer(unknown)
    guess = f"Did you mean {nearest!r}? " if nearest else ""
    assert str(caught.value) == f"init: unknown {unknown!r}. {guess}Known: {', '.join(NAMES)}."
