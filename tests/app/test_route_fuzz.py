"""Every route under hundreds of random questions: an answer or a reason, never an accident."""

import json
import os
import random
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from chainrule import NetworkSpec, simulate
from chainrule.app import create_app

pytestmark = [pytest.mark.slow, pytest.mark.fuzz]

REQUESTS = 300 if "FUZZ_SEED" in os.environ else 60
"""How many of each kind; `make fuzz` asks more of them."""

MOST_BYTES = 2**20

VALUES = [
    "", "0", "-0.0", "1", "2", "3", "7", "-1", "0.1", "2.5", "9" * 12, "1e308", "-1e308", "1e-320",
    "1e999", "inf", "-inf", "nan", "x", "²", "%00", "é", "🦆", "<script>", "../../etc/passwd",
    "1,2,3", "0.5,-2,1.5", "0,0,0", ",,", ",".join(["1e300"] * 50), ",".join(["-3"] * 51),
    ",".join(["1e-300"] * 40), "w1", "w2", "b1", "h1", "z2", "all", "sigmoid", "tanh", "relu",
    "selu", "identity", "leaky_relu", "gelu", "relu,tanh,gelu", "xavier", "he", "orthogonal",
    "random", "zeros", "uniform", "plain", "scaled", "none", "layernorm", "batchnorm", "rmsnorm",
    "float64", "float32", "50", "200", "1000", "weight", "delta", "log", "linear", "gradient",
    "x + sigmoid(w*x)", "x*x", "log(x-1)", "x=1e308", "x=-2,w=0.5", "tied", "softmax", "exp(" * 99,
    "*".join(["(x+tanh(x))"] * 25), "__import__('os')", "x**x**x**99",
    "; ".join(["h0 = x", *(f"h{i} = h{i - 1}*h{i - 1}" for i in range(1, 70))]),
    "depth=2&width=2", "depth=3&pin=depth%3D1", "adam", "sgd",
]  # fmt: skip

NETWORK = [*NetworkSpec.model_fields, "network_activation", "wrt"]
VIEW = [*NETWORK, "seeds", "measure", "scale", "layer", "pin", "hide", "lock", "embed", "preset"]
SMALL = {"width": ["1", "2", "8", "x"], "batch_size": ["1", "4", "-1"], "seeds": ["1", "2"]}
"""What keeps a measurement short; the rest is random."""

TINY = {**SMALL, "depth": ["1", "2", "5", "x"]}

ROUTES = {
    "/": (VIEW, {}),
    "/chain-rule": ([*VIEW, "weights", "biases", "expr", "set"], {}),
    "/your-model": (VIEW, {}),
    "/api/chain": (
        ["x", "weights", "activation", "wrt", "biases", "lines", "graph", "order", "nudge", "form"],
        {},
    ),
    "/api/expression": (["expr", "preset", "set", "wrt", "form"], {}),
    "/files/chain.svg": (["x", "weights", "activation", "wrt", "biases", "expr", "set"], {}),
    "/files/model.svg": (["sample", "run"], {}),
    "/api/depth": (["w", "x", "activation", "depth"], {}),
    "/api/recurrence": (["w", "steps", "x", "activation", "clip"], {}),
    "/api/network": (NETWORK, TINY),
    "/api/explore": ([*VIEW, "first"], TINY),
    "/api/remedies": (VIEW, {**TINY, "depth": ["1", "2"]}),
    "/api/listing": (VIEW, TINY),
    "/listing.py": (VIEW, {}),
    "/api/lesson": (VIEW, {}),
    "/files/flow.json": (VIEW, TINY),
    "/files/numbers.csv": (VIEW, TINY),
    "/files/numbers.json": (VIEW, TINY),
    "/files/report.html": (VIEW, TINY),
    "/files/passwd": (VIEW, {}),
    "/api/train": (
        [*NETWORK, "seeds", "optimizer", "learning_rate"],
        {**TINY, "steps": ["1", "2", "0", "x"]},
    ),
    "/assets/shared/dom.js": (VIEW, {}),
    "/assets/styles/explore.css": (VIEW, {}),
}


@pytest.fixture(scope="module")
def client():
    server = create_app()
    with TestClient(server, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def draw_query(rng: random.Random, names: list[str], fixed: dict[str, list[str]]) -> str:
    if rng.random() < 0.05:
        return rng.choice(["%ff%00", "a=&b", "&&&", "=", "depth=%", "x" * 5000, "depth=1&" * 200])
    pairs = [(rng.choice(names), rng.choice(VALUES)) for _ in range(rng.randrange(7))]
    pairs = [(name, value) for name, value in pairs if name not in fixed and name != "preset"]
    pairs += [(name, rng.choice(values)) for name, values in fixed.items()]
    return urlencode(pairs)


@pytest.mark.parametrize("path", ROUTES)
def test_random_questions_are_answered_or_refused(client, path, fuzz_seed):
    rng = random.Random(f"{path} {fuzz_seed}")
    names, fixed = ROUTES[path]
    for _ in range(REQUESTS):
        query = draw_query(rng, names, fixed)
        if fixed and ("width" not in query or "pin" in query):
            query = urlencode({name: values[0] for name, values in fixed.items()})
        answer = client.get(f"{path}?{query}")
        check(answer, query)
        if answer.headers["content-type"] == "application/json":
            json.loads(answer.text, parse_constant=pytest.fail)
        if answer.status_code == 422:
            assert 10 < len(answer.json()["error"]) < 2000, query


def check(answer, question) -> None:
    assert answer.status_code < 500, (question, answer.text[:300])
    assert int(answer.headers.get("content-length", 0)) <= MOST_BYTES, question
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text


def test_random_methods_and_paths(client, fuzz_seed):
    rng = random.Random(fuzz_seed)
    parts = ["api", "files", "assets", "..", "%2e%2e", "explore", "flow", "x", "styles", "é",
             "vendor", "dom.js", "listing.py", "", "%00", "deps",
             "a" * 200]  # fmt: skip
    for _ in range(REQUESTS):
        path = "/" + "/".join(rng.choices(parts, k=rng.randrange(1, 5)))
        method = rng.choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
        check(client.request(method, path), (method, path))


def test_random_flow_files(client, fuzz_seed):
    rng = random.Random(fuzz_seed + 2)
    whole = simulate(NetworkSpec(depth=2, width=2, batch_size=2), 2).to_json()
    assert client.post("/api/flow", content=whole).status_code == 200
    for _ in range(REQUESTS):
        query = draw_query(rng, ["measure", "scale", "layer", "x"], {})
        answer = client.post(f"/api/flow?{query}", content=mutate(rng, whole))
        check(answer, "a flow file")


def mutate(rng: random.Random, text: str) -> bytes:
    """Return a text with a few pieces cut out, doubled or replaced."""
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(text))
        end = min(len(text), start + rng.randrange(1, 20))
        piece = rng.choice(
            ["", text[start:end] * 2, "null", "-1", "[]", "{}", '"x"', "1e400", "\x00", "9" * 30]
        )
        text = text[:start] + piece + text[end:]
        if not text:
            break
    return text.encode()


def test_the_largest_network_is_refused_with_what_to_lower(client):
    answer = client.get("/api/network?depth=100&width=512&batch_size=4096")
    assert answer.status_code == 422
    for word in ("depth", "width", "batch"):
        assert word in answer.json()["error"]
    assert "28 layers are possible" in answer.json()["error"]


def test_long_answers_are_compressed(client):
    query = "/api/network?depth=1000&width=2&batch_size=1"
    answer = client.get(query)
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < MOST_BYTES / 4
    plain = client.get(query, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
