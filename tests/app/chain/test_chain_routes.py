"""The chain-rule page: what its routes answer."""

import json
import math
import re
from collections.abc import Iterable

import httpx
import pytest
from starlette.testclient import TestClient

from chain_page import START, ask, join, read_math
from chainrule import NetworkSpec, simulate
from chainrule.app.application import create_app
from chainrule.app.site.assets import load_assets
from chainrule.chain import (
    ScalarChain,
    describe_chain,
    draw_graph,
    find_stable_weights,
    measure_depth,
    measure_recurrence,
)
from chainrule.spec.activations import ACTIVATIONS

SPREAD = [0.5, -1.25, 2.0, 0.75, -3.0, 1.1, 0.9]


def test_first_page_asked_of_a_fresh_server_carries_the_pages_script():
    with TestClient(create_app(), base_url="http://localhost") as client:
        assert load_assets().locate("chain/chain.js") in client.get("/chain-rule").text


@pytest.mark.parametrize(
    ("chain", "wrt"),
    [
        (START, "w1"),
        (START, "x"),
        (ScalarChain(-0.75, SPREAD, "tanh", [0.1 * n - 0.3 for n in range(7)]), "b2"),
        (
            ScalarChain(2.0, SPREAD, ["gelu", "sigmoid", "relu", "tanh", "elu", "selu", "silu"]),
            "w3",
        ),
        (ScalarChain(1.0, [1.1] * 50, "identity"), "w50"),
        (ScalarChain(1.0, [1e-9] * 50, "sigmoid"), "w1"),
    ],
    ids=["start", "x", "biases", "mixed", "long", "underflow"],
)
def test_chain_route_answers_the_librarys_numbers(url, chain, wrt):
    names = chain.activation if isinstance(chain.activation, str) else ",".join(chain.activation)
    query = {"x": chain.x, "weights": join(chain.weights), "activation": names, "wrt": wrt}
    if chain.biases:
        query["biases"] = join(chain.biases)
    answer = ask(url, "chain", **query)
    factors, products = chain.factors(wrt), chain.running_products(wrt)
    assert [f["id"] for f in answer["factors"]] == [f.id for f in factors]
    assert [f["value"]["value"] for f in answer["factors"]] == [f.value for f in factors]
    shown = [f["running_product"] for f in answer["factors"]]
    assert [product["log10"] for product in shown] == [product.log10 for product in products]
    assert [product["sign"] for product in shown] == [product.sign for product in products]
    assert answer["svg"] == draw_graph(chain, wrt, identifier="graph")
    expected = json.loads(json.dumps(describe_chain(chain, wrt)))
    assert {name: answer[name] for name in expected} == expected


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_chain_route_answers_for_every_activation_and_extreme_values(url, activation):
    for x, weights in ((1e300, [1e300, -1e300]), (-1e-300, [1e-300] * 40), (0.0, [0.0, -0.0])):
        chain = ScalarChain(x, weights, activation)
        answer = ask(url, "chain", x=repr(x), weights=join(weights), activation=activation)
        assert answer["gradient"]["sign"] == chain.gradient("w1").sign
        assert all(factor["value"]["text"] for factor in answer["factors"])


def test_depth_route_answers_the_librarys_numbers(url):
    answer = ask(url, "depth", w=-3.5, x=0.5, activation="tanh", depth=20)
    curve = measure_depth(-3.5, "tanh", x=0.5, depth=20)
    stable = find_stable_weights("tanh", x=0.5, depth=20)
    assert [p["log10"] for p in answer["products"]] == [p.log10 for p in curve.products]
    assert [p["log10"] for p in answer["best"]] == [p.log10 for p in curve.best]
    assert answer["threshold"] == stable.threshold
    assert answer["region"] == list(stable.best)
    assert answer["intervals"] == [list(interval) for interval in stable.intervals]
    assert answer["sentence"] == stable.sentence


def test_best_sigmoid_weight_is_four(url):
    answer = ask(url, "depth", w=4, activation="sigmoid")
    assert answer["threshold"] == 4.0
    assert [p["value"] for p in answer["best"]] == [1.0] * 50


@pytest.mark.parametrize("clip", [None, 2.0, 1e9])
def test_recurrence_route_answers_the_librarys_numbers(url, clip):
    query = {"w": 1.3, "steps": 30, "x": 0.1, "activation": "identity"}
    answer = ask(url, "recurrence", **query, **({"clip": clip} if clip else {}))
    expected = measure_recurrence(1.3, 30, x=0.1, activation="identity", clip=clip)
    assert answer["sentence"] == expected.sentence
    assert read_math(answer["mathml"]) == read_math(expected.to_mathml())
    for name in ("power", "slopes", "product", "clipped"):
        shown = [step[name]["log10"] for step in answer["steps"]]
        assert shown == [getattr(step, name).log10 for step in expected.steps]
    assert answer["gradient"]["value"] == float(expected.gradient)
    assert answer["x"] == 0.1
    assert [use["value"] for use in answer["uses"]] == [float(use) for use in expected.uses]
    assert float(sum(expected.uses)) == pytest.approx(float(expected.gradient), rel=1e-12)
    assert answer["clip_factor"]["value"] == float(expected.clip_factor)
    assert answer["clipped_gradient"]["value"] == float(expected.clipped_gradient)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 6, "width": 32, "activation": "tanh", "init": "lecun"},
        {"depth": 12, "width": 16, "activation": "relu", "init": "he", "residual": "scaled"},
        {"depth": 4, "width": 8, "activation": "tanh", "init": "random", "weight_std": 0},
    ],
    ids=["plain", "residual", "zeros"],
)
def test_network_route_answers_what_simulate_measures(url, settings):
    spec = NetworkSpec(**settings)
    answer = ask(url, "network", **dict(re.findall(r"([^&=]+)=([^&]*)", spec.to_query())))
    flow = simulate(spec, answer["seeds"])
    assert answer["spec"] == json.loads(spec.model_dump_json())
    assert answer["notices"] == []
    factors = flow.factors()
    assert [(f["name"], f["kind"]) for f in answer["factors"]] == [
        (f.name, f.role) for f in factors
    ]
    expected = [average(factor.value) for factor in factors]
    assert_close([read(factor["value"]) for factor in answer["factors"]], expected)
    assert_close(map(read, answer["deltas"]), [average(norm) for norm in flow.delta_norms])
    assert_close(
        map(read, answer["weight_gradients"]),
        [average(norm) for norm in flow.weight_gradient_norms],
    )
    values = [read(factor["value"]) for factor in answer["factors"]]
    if None not in values:  # they multiply to what is called their product, and to the gradient's
        running = read(answer["factors"][-1]["running_product"])
        assert math.prod(values) == pytest.approx(running, rel=1e-9)
        assert running == pytest.approx(average(factors[-1].running), rel=1e-9)
        assert answer["gradient"] == answer["factors"][-1]["running_product"]
        weights = [i for i, f in enumerate(answer["factors"]) if f["kind"] == "weight"]
        between = values[weights[0] : weights[-1]] if weights else []
        if between:
            deltas = list(map(read, answer["deltas"]))
            assert math.prod(between) == pytest.approx(deltas[0] / deltas[-1], rel=1e-9)
            down = math.prod(values[: weights[-1]]) * read(answer["output"])
            assert down == pytest.approx(deltas[0], rel=1e-6)
            assert answer["check"].endswith(": the same.")


def read(number: dict) -> float | None:
    return number["value"]


def assert_close(shown: Iterable[float | None], expected: list[float | None]) -> None:
    shown = list(shown)
    assert [value is None for value in shown] == [value is None for value in expected]
    numbers = [value for value in expected if value is not None]
    assert [value for value in shown if value is not None] == pytest.approx(numbers, rel=1e-9)


def average(value) -> float | None:
    """Return the geometric mean over the networks, if all of them have one."""
    if value is None or not all(0 <= member < math.inf for member in value.values):
        return None
    return math.prod(member ** (1 / len(value.values)) for member in value.values)


BAD = [
    ("chain", {"weights": ""}, "weights"),
    ("chain", {"weights": ","}, "weights"),
    ("chain", {"weights": "1,two"}, "weights"),
    ("chain", {"weights": "nan"}, "w1: must be a finite number"),
    ("chain", {"weights": "1,inf"}, "w2: must be a finite number"),
    ("chain", {"weights": "1,1e999"}, "w2: must be a finite number"),
    ("chain", {"weights": ",".join(["1"] * 51)}, "weights: must be at most 50 here; got 51"),
    ("chain", {"weights": ",".join(["1"] * 1000), "graph": "all", "lines": "all"}, "at most 50"),
    ("chain", {"x": ""}, "x"),
    ("chain", {"x": "nan"}, "x: must be a finite number"),
    ("chain", {"x": "1,2"}, "x"),
    ("chain", {"biases": "1"}, "biases: must be as many as weights (3)"),
    ("chain", {"biases": "0,-inf,0"}, "b2: must be a finite number"),
    ("chain", {"wrt": "w4"}, "wrt: unknown 'w4'"),
    ("chain", {"wrt": ""}, "wrt: unknown"),
    ("chain", {"wrt": "<script>alert(1)</script>"}, "wrt: unknown"),
    ("chain", {"activation": "sigmiod"}, "sigmoid"),
    ("chain", {"activation": "<img src=x onerror=alert(1)>"}, "activation"),
    ("chain", {"activation": "tanh,relu"}, "activation: must be one name"),
    ("chain", {"weights": "../../etc/passwd\x00"}, "weights"),
    ("depth", {"depth": "0"}, "depth: must be a whole number from 1 to 1000"),
    ("depth", {"depth": "1000000"}, "depth: must be a whole number from 1 to 1000"),
    ("depth", {"depth": "-1"}, "depth: must be a whole number"),
    ("depth", {"depth": "9" * 400}, "depth: must be a whole number"),
    ("depth", {"w": "nan"}, "w: must be a finite number"),
    ("depth", {"w": "inf"}, "must be a finite number"),
    ("depth", {"w": "1,2"}, "w"),
    ("depth", {"activation": "'; drop table"}, "activation"),
    ("recurrence", {"steps": "0"}, "steps: must be a whole number from 1 to 1000"),
    ("recurrence", {"steps": "1000000"}, "steps: must be a whole number from 1 to 1000"),
    ("recurrence", {"clip": "0"}, "clip: must be a finite number above 0"),
    ("recurrence", {"clip": "-1"}, "clip: must be a finite number above 0"),
    ("recurrence", {"clip": "nan"}, "clip: must be a finite number"),
    ("recurrence", {"w": "inf"}, "w: must be a finite number"),
]


@pytest.mark.parametrize(
    ("route", "query", "message"), BAD, ids=[f"{r}-{str(q)[:40]}" for r, q, _ in BAD]
)
def test_bad_input_is_answered_with_the_reason(url, route, query, message):
    answer = httpx.get(f"{url}/api/{route}", params=query, timeout=120)
    assert answer.status_code == 422, answer.text[:300]
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]
    assert len(answer.text) < 600
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_network_route_repairs_what_cannot_be_and_says_so(url):
    answer = ask(url, "network", depth="ten", width=8, activation="<b>", weights="1")
    assert answer["spec"] == NetworkSpec(width=8).model_dump(mode="json")
    assert len(answer["notices"]) == 3
    assert "Traceback" not in str(answer)
