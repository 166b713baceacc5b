"""`ScalarGraph` and its paths against torch.autograd, chains, finite differences and itself."""

import itertools
import math
import pickle
import random

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import chainrule
from chainrule.chain import EXPRESSIONS, ScalarChain, ScalarGraph, get_expression
from chainrule.chain.paths import MAX_PATHS
from chainrule.chain.scalar_graph import MAX_LISTED
from chainrule.chain.wide_float import ZERO
from chainrule.errors import SpecError
from random_expressions import FUNCTIONS, draw_cases, run_torch
from test_scalar_chain import DEPTHS, draw_chain

COUNT = 1000


def build_tower(depth, weight=0.3, name="tanh"):
    """Return a residual network: each sum doubles the paths."""
    lines = [f"h{n} = h{n - 1} + {name}(w*h{n - 1})" for n in range(1, depth + 1)]
    return ScalarGraph.parse(";".join(["h0 = x + 0", *lines]), {"x": 0.5, "w": weight})


# ------------------------------------------------------------------ against torch


@pytest.mark.slow
def test_sums_over_paths_and_factored_gradients_are_those_of_torch():
    cases = 0
    counts = set()
    for text, values, value, gradients in draw_cases(COUNT + 60, seed=0):
        try:
            graph = ScalarGraph.parse(text, values)
        except SpecError:  # infinite for PyTorch, too, in a part that brings nothing
            continue
        cases += 1
        assert float(graph.output) == pytest.approx(value, rel=1e-10, abs=1e-12)
        for name, expected in gradients.items():
            paths = graph.find_paths(name, limit=MAX_LISTED)
            counts.add(paths.count)
            # terms that cancel leave the rounding of the largest of them
            near = pytest.approx(expected, rel=1e-10, abs=1e-13 * (1 + float(paths.absolute)))
            assert float(sum((path.product for path in paths.paths), paths.rest)) == near, text
            assert float(paths.total) == near, text
            assert float(graph.gradient(name)) == near, text
        if cases == COUNT:
            break
    assert cases == COUNT
    assert len(counts) > 20


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_presets_are_those_of_torch(name):
    preset = get_expression(name)
    value, gradients = run_torch(preset.text, preset.values)
    graph = preset.build()
    assert float(graph.output) == pytest.approx(value, rel=1e-13)
    for variable, expected in gradients.items():
        assert float(graph.gradient(variable)) == pytest.approx(expected, rel=1e-12)


def test_every_node_knows_its_gradient():
    text = "h = tanh(w*x); g = h*h + w; log(g)/h"
    values = {"w": 0.7, "x": 1.3}
    graph = ScalarGraph.parse(text, values)
    w, x = (torch.tensor(values[name], dtype=torch.float64, requires_grad=True) for name in "wx")
    u1 = w * x
    h = torch.tanh(u1)
    u2 = h * h
    g = u2 + w
    u3 = torch.log(g)
    kept = {"w": w, "x": x, "u1": u1, "h": h, "u2": u2, "g": g, "u3": u3}
    found = torch.autograd.grad(u3 / h, list(kept.values()))
    for node in graph.nodes[:-1]:
        expected = found[list(kept).index(node.id)].item()
        assert float(node.gradient) == pytest.approx(expected, rel=1e-13)
    assert float(graph.root.gradient) == 1.0


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("relu(x)", {"x": 0.0}),
        ("leaky_relu(x)", {"x": 0.0}),
        ("selu(x)", {"x": 0.0}),
        ("abs(x)", {"x": 0.0}),
        ("max(x, y)", {"x": 2.0, "y": 2.0}),
        ("min(x, y)", {"x": 2.0, "y": 2.0}),
        ("max(x, x*x)", {"x": 1.0}),
        ("x*max(x, y)", {"x": 3.0, "y": 3.0}),
    ],
)
def test_kinks_are_as_in_torch_and_said(text, values):
    graph = ScalarGraph.parse(text, values)
    assert len(graph.kinks) == 1
    assert "PyTorch" in graph.kinks[0]
    for name, expected in run_torch(text, values)[1].items():
        assert float(graph.gradient(name)) == expected
    moved = graph.replace(x=values["x"] + 0.5)
    assert moved.kinks == ()


@pytest.mark.parametrize("text", ["elu(x)", "gelu(x)", "x**2", "sigmoid(x)", "x*abs(x + 1)"])
def test_what_is_smooth_there_has_no_kink(text):
    assert ScalarGraph.parse(text, {"x": 0.0}).kinks == ()


def test_zero_to_a_power_is_as_in_torch():
    for text, values in (("x**y", {"x": 0.0, "y": 2.0}), ("x**0", {"x": 0.0})):
        _, gradients = run_torch(text, values)
        for name, expected in gradients.items():
            assert float(ScalarGraph.parse(text, values).gradient(name)) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_the_limits_of_difference_quotients(name):
    arguments = "x, y" if name in ("max", "min") else "x"
    graph = ScalarGraph.parse(f"y*{name}({arguments})", {"x": 0.8, "y": 1.4})
    step = 1e-6
    high, low = (float(graph.replace(x=0.8 + h).output) for h in (step, -step))
    assert float(graph.gradient("x")) == pytest.approx((high - low) / (2 * step), rel=1e-6)


# ------------------------------------------------------------------ chains


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "gelu"])
def test_a_chain_is_its_special_case_with_one_path(depth, biased, activation):
    chain = draw_chain(depth, activation, biased)
    graph = chain.to_graph()
    assert graph.output == chain.output
    assert set(graph.variables) <= set(chain.variables)
    for name in graph.variables:
        assert graph.gradient(name) == pytest.approx(chain.gradient(name), rel=1e-15)
        paths = graph.find_paths(name)
        assert paths.count == 1
        assert paths.multiplications == paths.factored
        if not biased:
            values = [factor.exact for factor in chain.factors(name)]
            assert [factor.exact for factor in paths.paths[0].factors] == values


def test_a_chain_can_be_pickled_whatever_was_read_of_it():
    chain = ScalarChain(1.0, [0.5, -2.0], "tanh", [0.1, 0.2])
    before = pickle.dumps(chain)
    assert (len(chain.nodes), len(chain.values)) == (12, 6)
    assert pickle.loads(pickle.dumps(chain)) == chain == pickle.loads(before)


def test_an_expression_that_is_a_chain_has_its_gradients():
    chain = ScalarChain(1.0, [0.5, -2.0, 1.5])
    graph = get_expression("chain").build()
    for name in graph.variables:
        assert graph.gradient(name) == chain.gradient(name)


# ------------------------------------------------------------------ size


def test_nothing_underflows_or_overflows():
    names = [f"w{n}" for n in range(80)]
    values = {"x": 1.0, **dict.fromkeys(names, 1e-300)}
    graph = ScalarGraph.parse("*".join(["x", *names]), values)
    assert graph.gradient("x").log10 == pytest.approx(-300 * 80)
    assert graph.replace(**dict.fromkeys(names, 1e300)).gradient("x").log10 == pytest.approx(24000)
    assert graph.find_paths("x").total == graph.gradient("x")


@pytest.mark.parametrize(
    ("text", "x", "formula"),
    [
        ("exp(exp(x))", 9.0, lambda x: mpmath.exp(mpmath.exp(x))),
        ("log(exp(x))", 1e6, lambda x: x),
        ("exp(-x)**3", 1e4, lambda x: mpmath.exp(-x) ** 3),
        ("x**1000", 123.0, lambda x: x**1000),
        ("1/exp(x)", 5e3, lambda x: mpmath.exp(-x)),
        ("log(x**400)", 1e5, lambda x: mpmath.log(x) * 400),
        ("sigmoid(x)/sigmoid(x - 1)", -1e4, lambda x: mpmath.e),
    ],
)
def test_far_from_floats_it_is_as_exact(text, x, formula):
    value = ScalarGraph.parse(text, {"x": x}).output
    with mpmath.workdps(60):
        exact = formula(mpmath.mpf(x))
        got = mpmath.ldexp(mpmath.mpf(value.mantissa), value.exponent)
        assert abs(got / exact - 1) < 1e-12 * max(1.0, abs(x))


@pytest.mark.parametrize(
    ("text", "values", "at", "facts"),
    [
        ("2 + 1/x", {"x": 0.0}, 7, "divisor 0 1/x x = 0"),
        ("x/(y - y)", {"x": 1.0, "y": 3.0}, 4, "divisor x/u₁ u₁ = 0 x, y"),
        ("log(x)", {"x": 0.0}, 1, "above 0 log(x) x = 0"),
        ("log(3*x)", {"x": -1.0}, 1, "above 0 u₁ = −3"),
        ("x**0.5", {"x": -1.0}, 4, "negative whole x = −1"),
        ("x**0.5", {"x": 0.0}, 4, "derivative x = 0"),
        ("0**x", {"x": -1.0}, 4, "negative power"),
        ("x**y", {"x": -2.0, "y": 2.0}, 4, "base negative derivative"),
        ("exp(exp(exp(exp(x))))", {"x": 10.0}, 5, "exp below 10"),
        ("x**x**x**x", {"x": 9.0}, 4, "power below 10"),
        ("tanh(x**x**x)", {"x": 60.0}, 1, "tanh below"),
    ],
)
def test_what_has_no_value_or_no_derivative_is_refused(text, values, at, facts):
    with pytest.raises(SpecError) as caught:
        ScalarGraph.parse(text, values)
    assert str(caught.value).startswith(f"expression, character {at}: ")
    assert all(fact in str(caught.value) for fact in facts.split()), caught.value


def test_what_no_gradient_passes_needs_no_derivative():
    assert ScalarGraph.parse("x*0**0.5", {"x": 2.0}).gradient("x") == 0
    assert ScalarGraph.parse("x*(-2)**2", {"x": 2.0}).gradient("x") == 4


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"x": 1.0}, "values: x, w none w"),
        (None, "values: x, w none"),
        ({"x": 1, "w": 2, "y": 3}, "values: unknown 'y' Known: x, w"),
        ({"x": 1, "w": math.nan}, "w: finite nan"),
        ({"x": 1, "w": 10**400}, "w: finite"),
        ({"x": 1, "w": "2"}, "w: number '2'"),
        ({"x": True, "w": 2}, "x: number True"),
    ],
)
def test_values_that_cannot_be(values, facts):
    with pytest.raises(SpecError) as caught:
        ScalarGraph.parse("x*w", values)
    assert all(fact in str(caught.value) for fact in facts.split()), caught.value


def test_other_names_can_have_a_default():
    graph = ScalarGraph.parse("x*w", {"x": 3}, default=1.0)
    assert dict(graph.values) == {"x": 3.0, "w": 1.0}


def test_other_values_make_another_graph():
    graph = ScalarGraph.parse("x*x", {"x": 3})
    other = graph.replace(x=5)
    assert (graph.gradient("x"), other.gradient("x")) == (6, 10)
    assert graph == ScalarGraph.parse("x*x", {"x": 3}) != other
    assert hash(graph) == hash(ScalarGraph.parse("x*x", {"x": 3}))
    assert pickle.loads(pickle.dumps(graph)) == graph
    with pytest.raises(SpecError, match="unknown 'y'"):
        graph.replace(y=1)
    with pytest.raises(AttributeError):
        graph.numbers = ()


def test_an_unknown_variable():
    graph = ScalarGraph.parse("h = x*w; h*h", {"x": 1, "w": 2})
    for ask in (graph.gradient, graph.find_paths, graph.factors):
        for name in ("h", "p", "y", ""):
            with pytest.raises(SpecError, match="wrt: unknown") as caught:
                ask(name)
            assert "Known: x, w" in str(caught.value)


def test_it_says_what_it_is():
    graph = ScalarGraph.parse("h = tanh(w*x); h*h", {"x": 0.5, "w": 1.2})
    assert repr(graph) == "ScalarGraph(p = h · h ≈ 0.288, 5 nodes)"
    assert len(repr(build_tower(40))) < 80
    assert graph._repr_svg_().startswith("<svg")
    assert chainrule.ScalarGraph is ScalarGraph


# ------------------------------------------------------------------ paths


def list_all(graph, name):
    """Return the products of all paths, walked one by one."""
    below = {}
    for edge in graph.edges:
        below.setdefault(edge.target, []).append(edge)

    def walk(node):
        if node == name:
            yield 1.0
        for edge in below.get(node, []):
            for rest in walk(edge.source):
                yield float(edge.value) * rest

    return list(walk(graph.root.id))


def test_counts_shares_and_order_are_those_of_a_walk_over_all_paths():
    draw = random.Random(1)
    for text, values, _, _ in itertools.islice(draw_cases(120, seed=1), 120):
        try:
            graph = ScalarGraph.parse(text, values)
        except SpecError:
            continue
        name = draw.choice(graph.variables)
        products = sorted(list_all(graph, name), key=abs, reverse=True)
        limit = draw.choice((1, 2, 5, MAX_LISTED))
        paths = graph.find_paths(name, limit=limit)
        size = sum(map(abs, products))
        assert paths.count == len(products)
        assert len(paths.paths) == min(limit, len(products))
        assert paths.omitted == len(products) - len(paths.paths)
        shown = [abs(float(path.product)) for path in paths.paths]
        assert shown == pytest.approx([abs(each) for each in products[:limit]], rel=1e-12)
        assert [path.share for path in paths.paths] == pytest.approx(
            [each / size if size else 0.0 for each in shown], rel=1e-12
        )
        rest = sum(abs(each) for each in products[limit:])
        assert paths.rest_share * size == pytest.approx(rest, rel=1e-9, abs=1e-300)
        if size:
            assert sum(path.share for path in paths.paths) + paths.rest_share == pytest.approx(1.0)
        by_hand = sum(len(path.factors) - 1 for path in paths.paths if path.factors)
        if not paths.omitted:
            assert paths.multiplications == by_hand


@pytest.mark.parametrize("depth", [1, 3, 10, 45])
def test_paths_are_counted_without_walking_them(depth):
    graph = build_tower(depth)
    paths = graph.find_paths("x")
    assert paths.count == 2**depth
    assert len(paths.paths) == min(2**depth, MAX_PATHS)
    assert paths.total == pytest.approx(graph.gradient("x"), rel=1e-13)
    assert paths.paths[0].product == 1
    listed = sum((path.product for path in paths.paths), ZERO)
    assert listed + paths.rest == pytest.approx(paths.total, rel=1e-13)
    assert graph.find_paths("w").count == 2**depth - 1
    # each block passes 1 edge or 3, and every path one into the sum x + 0
    assert paths.multiplications == 2**depth * (2 * depth) + 2**depth - 2**depth
    assert paths.factored == len(graph.factors("x")) - 2


def test_reverse_mode_takes_each_edge_once():
    graph = build_tower(3)
    way = graph.factors("x")
    assert len(way) == len({factor.id for factor in way})
    gradients = {graph.root.id: 1.0}
    ends = {edge.id: edge for edge in graph.edges}
    for factor in way:
        edge = ends[factor.id]
        step = gradients[edge.target] * factor.value
        gradients[edge.source] = gradients.get(edge.source, 0.0) + step
    assert gradients["x"] == pytest.approx(float(graph.gradient("x")), rel=1e-14)


def test_paths_that_cancel():
    paths = ScalarGraph.parse("x/x", {"x": 3}).find_paths("x")
    assert (paths.total, paths.cancellation, paths.count) == (0, 0.0, 2)
    assert [path.share for path in paths.paths] == [0.5, 0.5]


@pytest.mark.parametrize(("text", "share"), [("x - 3*x", 0.5), ("3*x - x", 0.5), ("-x - x", 1.0)])
def test_what_cancels_has_no_sign(text, share):
    assert ScalarGraph.parse(text, {"x": 2}).find_paths("x").cancellation == share


def test_paths_without_any_size():
    paths = ScalarGraph.parse("0*x + 0*abs(x)", {"x": 3}).find_paths("x")
    assert [path.share for path in paths.paths] == [0.0, 0.0]
    assert (paths.total, paths.absolute, paths.cancellation) == (0, 0, 1.0)


def test_a_variable_alone_is_one_path_of_no_edges():
    paths = ScalarGraph.parse("x", {"x": 3}).find_paths("x")
    assert (paths.count, paths.total, paths.multiplications, paths.factored) == (1, 1, 0, 0)
    assert paths.paths[0].factors == ()


@pytest.mark.parametrize("limit", [0, -1, MAX_LISTED + 1, 2.0, True, None])
def test_a_limit_that_is_none(limit):
    with pytest.raises(SpecError, match=f"limit: .* 1 to {MAX_LISTED}"):
        ScalarGraph.parse("x", {"x": 3}).find_paths("x", limit=limit)


@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 12))
def test_listed_and_other_paths_are_the_gradient(x, w, limit):
    graph = get_expression("residual").build(x=x, w1=w)
    for name in graph.variables:
        paths = graph.find_paths(name, limit=limit)
        total = sum((path.product for path in paths.paths), paths.rest)
        assert float(total) == pytest.approx(float(graph.gradient(name)), rel=1e-12, abs=1e-15)


def test_an_unknown_preset():
    with pytest.raises(SpecError, match=r"preset: unknown 'tide'\. Did you mean 'tied'"):
        get_expression("tide")
