"""The chain-rule page: what its routes answer, and the page used in a real browser."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from starlette.testclient import TestClient

from browsing import watch
from chainrule import PRESETS, NetworkSpec, simulate
from chainrule.app.application import create_app
from chainrule.chain import (
    ScalarChain,
    count_stable_layers,
    derive,
    describe_chain,
    describe_product,
    draw_graph,
    find_stable_weights,
    measure_depth,
    measure_product,
    measure_recurrence,
)
from chainrule.chain.document import describe_number
from chainrule.spec.activations import ACTIVATIONS

START = ScalarChain(1.0, [0.5, -2.0, 1.5], "sigmoid")
FIRST = next(iter(PRESETS.values())).spec
"""What the explorer starts with."""

SPREAD = [0.5, -1.25, 2.0, 0.75, -3.0, 1.1, 0.9]


# --- the routes ---------------------------------------------------------------------------------


def ask(url: str, route: str, **query) -> dict:
    answer = httpx.get(f"{url}/api/{route}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def join(numbers) -> str:
    return ",".join(repr(number) for number in numbers)


def test_first_page_asked_of_a_fresh_server_carries_the_pages_script():
    with TestClient(create_app().server) as client:
        assert "assets/chain/chain.js" in client.get("/chain-rule").text


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
    answer = httpx.get(f"{url}/api/{route}", params=query, timeout=60)
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


# --- the page in a browser ----------------------------------------------------------------------

PART = '[data-part="{}"]'


@pytest.fixture(scope="module")
def context(browser):
    """One context for the module, so that scripts are loaded once."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        permissions=["clipboard-read", "clipboard-write"],
    )
    yield context
    context.close()


@pytest.fixture
def page(context, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(context.new_page(), url) as page:
        page.set_default_timeout(10_000)
        yield page


@pytest.fixture
def shown(page, url):
    """The page with the chain it starts with."""
    return visit(page, url)


def visit(page, url, query=""):
    page.goto(f"{url}/chain-rule{query}")
    wait_for(page)
    return page


def wait_for(page, **query) -> None:
    """Wait until a chain has been drawn for which the page's question says this."""
    page.wait_for_function(
        """wanted => {
            const shown = document.getElementById("chain-root")?.dataset.shown;
            const query = shown && JSON.parse(shown);
            return query && Object.entries(wanted).every(([k, v]) => String(query[k]) === v);
        }""",
        arg={name: str(value) for name, value in query.items()},
    )


def part(page, name: str):
    return page.locator(PART.format(name))


def text(page, name: str) -> str:
    return part(page, name).inner_text()


def do(page, name: str):
    return page.locator(f'button[data-do="{name}"]')


def box(page, name: str, kind: str = "number"):
    return page.locator(f'{PART.format("values")} input[type="{kind}"][data-name="{name}"]')


def assert_shows(page, chain: ScalarChain, wrt: str = "w1") -> None:
    """The graph, the equation, the chart, the table and the sentence are this chain's."""
    document = describe_chain(chain, wrt)
    factors, gradient = document["factors"], document["gradient"]["text"]
    bars = page.locator(".bar").evaluate_all(
        "bars => bars.map(bar => [...bar.querySelectorAll('text')].map(t => t.textContent))"
    )
    assert bars == [[factor["short"], factor["value"]["text"]] for factor in factors]
    rows = page.locator(f"{PART.format('factor-table')} tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert rows == [
        [f["short"], f["substituted"], f["value"]["text"], f["running_product"]["text"]]
        for f in factors
    ]
    subject = document["subject"]["text"]
    assert text(page, "step-sentence") == f"The whole product: {subject} = {gradient}."
    assert text(page, "step-product") == gradient
    title = page.locator("#graph-title").text_content()
    assert title == f"Computational graph: {subject} = {gradient}"
    lines = page.locator(f"{PART.format('lines')} math").evaluate_all(
        "lines => lines.map(line => line.textContent)"
    )
    assert lines[-2:] == [read_math(line["mathml"]) for line in document["lines"][-2:]]


def read_math(mathml: str) -> str:
    return "".join(ET.fromstring(mathml).itertext())


def read_all(page) -> dict:
    """Everything that the address must be able to bring back."""
    return page.evaluate(
        """() => ({
            graph: document.querySelector('[data-part="graph"]').textContent,
            lines: document.querySelector('[data-part="lines"]').textContent,
            bars: document.querySelector('[data-part="factors"]').textContent,
            walk: document.querySelector('[data-part="walk-title"]').textContent,
            controls: [...document.querySelectorAll(
                '[data-part="values"] input, [data-part="wrt"], [data-part="activation"],' +
                '[data-part="layers"], [data-part="biased"]'
            )].map(control => control.type === "checkbox" ? control.checked : control.value),
        })"""
    )


def read_lit(page) -> dict[str, list[str]]:
    """Return what is lit, by where it is."""
    return page.evaluate(
        """() => Object.fromEntries(Object.entries({
            graph: ".chain-graph .edge", equation: '[data-view="chain"] math .factor',
            chart: ".bar",
        }).map(([name, selector]) => [name, [...new Set(
            [...document.querySelectorAll(selector)].filter(entry => entry.matches(".lit"))
                .map(entry => entry.dataset.edge || entry.dataset.factor)
        )].sort()]))"""
    )


def find_point(page, selector: str) -> tuple[float, float]:
    """Return a point of an element: of a line, which has no area, its middle."""
    return tuple(
        page.locator(selector).first.evaluate(
            """element => {
                const find = () => {
                    const line = element.querySelector("path.line");
                    if (line) {
                        const at = line.getPointAtLength(line.getTotalLength() / 2)
                            .matrixTransform(line.getScreenCTM());
                        return [at.x, at.y];
                    }
                    const at = (element.querySelector(".shape, .hit") || element)
                        .getBoundingClientRect();
                    return [at.x + at.width / 2, at.y + at.height / 2];
                };
                for (const block of ["nearest", "end", "center", "start"]) {
                    element.scrollIntoView({ block, inline: "center", behavior: "instant" });
                    if (element.contains(document.elementFromPoint(...find()))) break;
                }
                return find();
            }"""
        )
    )


def hover(page, selector: str) -> None:
    page.mouse.move(*find_point(page, selector))


def click(page, selector: str) -> None:
    page.mouse.click(*find_point(page, selector))


def term(factor: str, kind: str = "formulas") -> str:
    return f'li[data-kind="{kind}"] .factor[data-factor="{factor}"]'


def edge(name: str) -> str:
    return f'.chain-graph .edge[data-edge="{name}"]'


def node(name: str) -> str:
    return f'.chain-graph .node[data-node="{name}"]'


def bar(factor: str) -> str:
    return f'.bar[data-factor="{factor}"]'


DARK = {"graph": [], "equation": [], "chart": []}


def lights_of(factor: str) -> dict[str, list[str]]:
    """Return what must be lit, and nothing else, for a factor of the first chain."""
    edges = next(f.edges for f in START.factors("w1") if f.id == factor)
    return {"graph": sorted(edges), "equation": [factor], "chart": [factor]}


@pytest.mark.browser
def test_page_starts_with_the_librarys_numbers(shown):
    assert_shows(shown, START)
    assert text(shown, "error") == ""
    lines = [describe["mathml"] for describe in describe_chain(START)["lines"]]
    found = shown.locator(f"{PART.format('lines')} math")
    assert found.evaluate_all("all => all.map(one => one.textContent)") == [
        read_math(line) for line in lines
    ]
    for value in START.nodes:
        label = shown.locator(f"{node(value.id)} title").text_content()
        document = next(n for n in describe_chain(START)["nodes"] if n["id"] == value.id)
        assert document["value"]["text"] in label
        assert document["gradient"]["text"] in label


@pytest.mark.browser
def test_hovering_a_factor_lights_it_everywhere(shown):
    assert read_lit(shown) == DARK
    for factor in (factor.id for factor in START.factors("w1")):
        for place in (term(factor, "product"), term(factor), bar(factor), edge(factor)):
            hover(shown, place)
            assert read_lit(shown) == lights_of(factor), place
            shown.mouse.move(0, 0)
            assert read_lit(shown) == DARK, place
    hover(shown, term("z2-h2", "numbers"))
    assert read_lit(shown) == lights_of("z2-h2")


SEEN = """all => all.filter(([, wanted]) => ![...document.querySelectorAll(wanted)].some(one => {
    const line = one.querySelector("path.line, rect.hit") || one;
    const at = line.getBoundingClientRect();
    const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
    return at.top >= 0 && at.bottom <= innerHeight && found && (one.contains(found)
        || found.closest("g") === one || found.contains(one) && found.closest("math"));
})).map(([name]) => name)"""
"""Which of some lit things a person does not see: out of the window, or under something."""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (1280, 800)])
def test_what_is_lit_is_seen_wherever_it_is_hovered(page, url, width, height):
    page.set_viewport_size({"width": width, "height": height})
    visit(page, url)
    for factor in START.factors("w1"):
        for place in (term(factor.id, "numbers"), bar(factor.id)):
            page.locator(place).evaluate(
                """one => {
                    const up = one.closest(".cr-card").getBoundingClientRect().top;
                    scrollBy({ top: up - innerHeight * 0.45, behavior: "instant" });
                }"""
            )
            page.locator(place).hover()
            wanted = [
                ["number", f"{term(factor.id, 'numbers')}.lit"],
                ["formula", f"{term(factor.id)}.lit"],
                ["bar", f"{bar(factor.id)}.lit"],
                ["edge", f"{edge(factor.edge)}.lit"],
            ]
            assert page.evaluate(SEEN, wanted) == [], place


@pytest.mark.browser
def test_nothing_shows_between_the_header_and_what_stays_below_it(page, url):
    for query, stays in (("", ".cr-graph"), (f"?weights={equal('1', 12)}", ".cr-strip")):
        visit(page, url, query)
        page.locator('[data-view="chain"] .cr-two').evaluate(
            "two => scrollBy({ top: two.getBoundingClientRect().top - 300, behavior: 'instant' })"
        )
        top, under, shadow = page.evaluate(
            """name => {
                const card = document.querySelector(name);
                const header = document.querySelector("header").getBoundingClientRect();
                return [card.getBoundingClientRect().top, header.bottom,
                    Number(getComputedStyle(card).boxShadow.match(/ -(\\d+)px 0px/)?.[1])];
            }""",
            stays,
        )
        assert 0 <= top - under <= shadow


@pytest.mark.browser
def test_a_bar_out_of_the_charts_room_is_brought_into_it(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    page.locator(".cr-factors").evaluate(
        "card => scrollBy({ top: card.getBoundingClientRect().top - 60, behavior: 'instant' })"
    )
    page.locator(term("w1-z1", "numbers")).hover()
    assert page.evaluate(SEEN, [["bar", f"{bar('w1-z1')}.lit"]]) == []


@pytest.mark.browser
def test_focusing_a_factor_lights_it_everywhere(shown):
    for place in (term, bar, edge):
        for factor in START.factors("w1"):
            shown.locator(place(factor.id)).first.focus()
            assert read_lit(shown) == lights_of(factor.id), place(factor.id)
        shown.locator(place(factor.id)).first.blur()
        assert read_lit(shown) == DARK


@pytest.mark.browser
def test_whole_derivative_lights_every_factor(shown):
    factors = START.factors("w1")
    names = sorted(factor.id for factor in factors)
    edges = sorted(name for factor in factors for name in factor.edges)
    for kind in ("derivative", "value"):
        hover(shown, f'li[data-kind="{kind}"] .factors[data-factor]')
        assert read_lit(shown) == {"graph": edges, "equation": names, "chart": names}
    shown.mouse.move(0, 0)
    assert read_lit(shown) == DARK


@pytest.mark.browser
def test_factors_are_reached_and_walked_by_keyboard(shown):
    names = [factor.id for factor in START.factors("w1")]
    do(shown, "copy").focus()
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.dataset.factor") == " ".join(names)
    assert read_lit(shown)["chart"] == sorted(names)
    shown.keyboard.press("Tab")
    for name in names:
        focused = "document.activeElement.dataset.factor"
        assert shown.evaluate(focused) == name
        assert read_lit(shown) == lights_of(name)
        shown.keyboard.press("ArrowRight")
    assert shown.evaluate("document.activeElement.dataset.factor") == names[-1]
    shown.keyboard.press("ArrowLeft")
    assert read_lit(shown) == lights_of(names[-2])
    shown.locator(bar(names[0])).focus()
    shown.keyboard.press("ArrowRight")
    assert read_lit(shown) == lights_of(names[1])


@pytest.mark.browser
def test_what_has_the_focus_is_in_sight(shown):
    """Neither the header nor the graph that stays in sight may lie over it."""
    wait_for_network(shown, "15 layers")
    hidden = []
    do(shown, "copy").focus()
    for key in ["Tab"] * 8 + ["Shift+Tab"] * 8:
        shown.keyboard.press(key)
        hidden += shown.evaluate(
            """() => {
                const focused = document.activeElement;
                const at = focused.getBoundingClientRect();
                const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
                const over = found?.closest("header, .cr-graph");
                return over && !over.contains(focused)
                    ? [focused.dataset.factor || focused.dataset.part || focused.textContent] : [];
            }"""
        )
    assert hidden == []


@pytest.mark.browser
@pytest.mark.parametrize(
    "query", ["", f"?weights={','.join(['1'] * 12)}&biases={','.join(['0'] * 12)}"]
)
def test_tab_reaches_the_graph_once_and_arrow_keys_walk_it(page, url, query):
    visit(page, url, query)
    do(page, "svg").focus()
    page.keyboard.press("Tab")
    at = "document.activeElement.dataset.node || document.activeElement.dataset.edge"
    assert page.evaluate(at) == "x"
    walked = ["x"]
    while True:
        page.keyboard.press("ArrowRight")
        now = page.evaluate(at)
        if now == walked[-1]:
            break
        walked.append(now)
    everything = page.locator(".chain-graph .node[role=button], .chain-graph .edge[data-factor]")
    all_of_it = everything.evaluate_all(
        "all => all.filter(one => one.dataset.node || one.dataset.factor)"
        ".map(one => one.dataset.node || one.dataset.edge)"
    )
    assert sorted(walked) == sorted(all_of_it)
    layers = [int(name[1:]) for name in walked if re.fullmatch(r"w\d+", name)]
    assert layers == sorted(layers)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at) == walked[-2]
    page.keyboard.press("Tab")
    assert not page.evaluate("Boolean(document.activeElement.closest('.chain-graph'))")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(at) == walked[-2]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("way", "place", "name", "expected"),
    [
        ("click", node("w2"), "w2", ScalarChain(1.0, [0.5, 4.0, 1.5])),
        ("click", node("x"), "x", ScalarChain(4.0, [0.5, -2.0, 1.5])),
        ("click", term("h1-z2"), "w2", ScalarChain(1.0, [0.5, 4.0, 1.5])),
        ("click", term("w1-z1"), "x", ScalarChain(4.0, [0.5, -2.0, 1.5])),
        ("Enter", node("w3"), "w3", ScalarChain(1.0, [0.5, -2.0, 4.0])),
        ("Enter", term("h2-z3", "numbers"), "w3", ScalarChain(1.0, [0.5, -2.0, 4.0])),
    ],
    ids=["graph w2", "graph x", "equation w2", "equation x", "graph, key", "equation, key"],
)
def test_editing_a_value_in_place(shown, way, place, name, expected):
    if way == "click":
        click(shown, place)
    else:
        shown.locator(place).focus()
        shown.keyboard.press("Enter")
    editor = shown.locator(".cr-edit input")
    assert float(editor.input_value()) == (
        START.x if name == "x" else START.weights[int(name[1]) - 1]
    )
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    weights = ",".join(f"{weight:g}" for weight in expected.weights)
    wait_for(shown, x=f"{expected.x:g}", weights=weights)
    assert shown.locator(".cr-edit").count() == 0
    assert_shows(shown, expected)
    assert box(shown, name).input_value() == "4"


@pytest.mark.browser
def test_editing_keeps_the_keyboards_place(shown):
    shown.locator(node("w2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    wait_for(shown, weights="0.5,4,1.5")
    assert shown.evaluate("document.activeElement.dataset.node") == "w2"


@pytest.mark.browser
def test_escape_leaves_the_value(shown):
    before = read_all(shown)
    shown.locator(node("w2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("9")
    shown.keyboard.press("Escape")
    assert shown.locator(".cr-edit").count() == 0
    assert shown.evaluate("document.activeElement.dataset.node") == "w2"
    assert parse_qs(urlsplit(shown.url).query)["weights"] == ["0.5,-2,1.5"]
    assert read_all(shown) == before


@pytest.mark.browser
def test_leaving_the_editor_leaves_the_value(shown):
    click(shown, node("w2"))
    shown.keyboard.type("9")
    part(shown, "activation").focus()
    assert shown.locator(".cr-edit").count() == 0
    assert parse_qs(urlsplit(shown.url).query)["weights"] == ["0.5,-2,1.5"]


@pytest.mark.browser
@pytest.mark.parametrize("typed", ["", "-", "1e999"])
def test_what_is_no_number_keeps_the_old_value(shown, typed):
    click(shown, node("w1"))
    shown.keyboard.press("Delete")
    shown.keyboard.type(typed)
    shown.keyboard.press("Enter")
    assert parse_qs(urlsplit(shown.url).query)["weights"] == ["0.5,-2,1.5"]
    box(shown, "w2").fill("")
    shown.keyboard.type(typed[:1].strip("1"))
    assert parse_qs(urlsplit(shown.url).query)["weights"] == ["0.5,-2,1.5"]
    box(shown, "w3").fill("2")
    wait_for(shown, weights="0.5,-2,2")
    assert_shows(shown, ScalarChain(1.0, [0.5, -2.0, 2.0]))


@pytest.mark.browser
def test_a_box_left_empty_shows_the_value_in_force(shown):
    box(shown, "w2").fill("")
    box(shown, "w3").focus()
    assert box(shown, "w2").input_value() == "-2"


@pytest.mark.browser
def test_boxes_and_sliders_change_the_numbers(shown):
    box(shown, "w1").fill("-0.25")
    wait_for(shown, weights="-0.25,-2,1.5")
    assert_shows(shown, ScalarChain(1.0, [-0.25, -2.0, 1.5]))
    assert box(shown, "w1", "range").input_value() == "-0.25"
    box(shown, "x", "range").focus()
    shown.keyboard.press("ArrowRight")
    wait_for(shown, x="1.05")
    assert_shows(shown, ScalarChain(1.05, [-0.25, -2.0, 1.5]))
    assert box(shown, "x").input_value() == "1.05"


@pytest.mark.browser
def test_typing_two_digits_of_layers_keeps_the_weights(shown):
    part(shown, "layers").click(click_count=3)
    shown.keyboard.type("12")
    shown.wait_for_function(
        "JSON.parse(document.getElementById('chain-root').dataset.shown)"
        ".weights.split(',').length === 12"
    )
    weights = parse_qs(urlsplit(shown.url).query)["weights"][0]
    assert weights.startswith("0.5,-2,1.5,")


# --- stepping -----------------------------------------------------------------------------------


def read_later(page) -> list[list[str]]:
    return page.evaluate(
        """() => ['[data-view="chain"] li[data-kind="formulas"] .factor', ".bar"].map(selector =>
            [...document.querySelectorAll(selector)].filter(entry => entry.matches(".later"))
                .map(entry => entry.dataset.factor))"""
    )


def assert_at_step(page, count: int, chain: ScalarChain = START, wrt: str = "w1") -> None:
    factors = describe_chain(chain, wrt)["factors"]
    assert text(page, "step-count") == f"{count} of {len(factors)} factors"
    if count:
        assert text(page, "step-sentence") == f"{factors[count - 1]['sentence']}."
        assert text(page, "step-product") == factors[count - 1]["running_product"]["text"]
        assert read_lit(page)["chart"] == [factors[count - 1]["id"]]
    else:
        assert text(page, "step-product") == "1"
        assert read_lit(page) == DARK
    assert read_later(page) == [[factor["id"] for factor in factors[count:]]] * 2


@pytest.mark.browser
def test_stepping_by_buttons(shown):
    factors = START.factors("w1")
    for count in range(1, len(factors) + 1):
        do(shown, "next").click()
        assert_at_step(shown, count)
    assert do(shown, "next").is_disabled()
    for count in reversed(range(len(factors))):
        do(shown, "back").click()
        assert_at_step(shown, count)
    assert do(shown, "back").is_disabled()
    assert "starts at the output" in text(shown, "step-sentence")
    do(shown, "next").click()
    do(shown, "reset").click()
    assert_shows(shown, START)
    assert read_later(shown) == [[], []]


@pytest.mark.browser
def test_stepping_by_arrow_keys(shown):
    do(shown, "next").focus()
    for count in range(1, 5):
        shown.keyboard.press("ArrowRight")
        assert_at_step(shown, count)
    for count in (3, 2):
        shown.keyboard.press("ArrowLeft")
        assert_at_step(shown, count)


@pytest.mark.browser
def test_arrow_keys_go_back_from_the_last_step(shown):
    do(shown, "next").focus()
    for _ in range(6):
        shown.keyboard.press("ArrowRight")
    assert_at_step(shown, 6)
    # A disabled button loses the focus when the page is next painted.
    shown.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    shown.keyboard.press("ArrowLeft")
    assert_at_step(shown, 5)


@pytest.mark.browser
def test_hovering_between_steps_returns_to_the_steps_factor(shown):
    do(shown, "next").click()
    do(shown, "next").click()
    hover(shown, bar("z1-h1"))
    assert read_lit(shown) == lights_of("z1-h1")
    shown.mouse.move(0, 0)
    assert read_lit(shown) == lights_of("h2-z3")
    assert_at_step(shown, 2)


@pytest.fixture
def timed(browser, url):
    """The page with a clock that the test turns."""
    with (
        browser.new_context(viewport={"width": 1280, "height": 900}) as context,
        watch(context.new_page(), url) as page,
    ):
        page.clock.install()
        visit(page, url)
        yield page


@pytest.mark.browser
def test_playing_pausing_and_playing_to_the_end(timed):
    do(timed, "play").click()
    assert_at_step(timed, 0)
    assert text_of_play(timed) == ("Pause", "true")
    timed.clock.run_for(2500)
    assert_at_step(timed, 2)
    do(timed, "play").click()
    assert text_of_play(timed) == ("Play", "false")
    timed.clock.run_for(10_000)
    assert_at_step(timed, 2)
    do(timed, "play").click()
    timed.clock.run_for(1200)
    assert_at_step(timed, 3)
    timed.clock.run_for(20_000)
    assert_at_step(timed, 6)
    assert text_of_play(timed) == ("Play", "false")


def text_of_play(page) -> tuple[str, str]:
    return do(page, "play").inner_text(), do(page, "play").get_attribute("aria-pressed")


@pytest.mark.browser
def test_playing_waits_while_a_factor_is_hovered(timed):
    do(timed, "play").click()
    timed.clock.run_for(1200)
    hover(timed, bar("z1-h1"))
    timed.clock.run_for(10_000)
    assert text(timed, "step-count") == "1 of 6 factors"
    assert read_lit(timed) == lights_of("z1-h1")
    timed.mouse.move(0, 0)
    timed.clock.run_for(1200)
    assert_at_step(timed, 2)


@pytest.mark.browser
def test_a_shorter_chain_while_playing_does_no_harm(timed):
    do(timed, "play").click()
    timed.clock.run_for(2500)
    part(timed, "layers").fill("1")
    wait_for(timed, weights="0.5")
    timed.clock.run_for(20_000)
    count = int(text(timed, "step-count").split()[0])
    assert count <= 2
    assert text_of_play(timed) == ("Play", "false")


# --- other chains -------------------------------------------------------------------------------


def equal(weight: str, layers: int) -> str:
    return ",".join([weight] * layers)


@pytest.mark.browser
def test_thirty_layers_are_folded_and_unfold(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    chain = ScalarChain(1.0, [1.0] * 30)
    row = '[data-view="chain"] li[data-kind="formulas"]'
    assert_shows(page, chain)
    assert page.locator(f"{row} .factor").count() == 6
    fold = page.locator(f"{row} .fold")
    assert "54 factors" in fold.text_content()
    assert page.locator(".chain-graph .node.fold").count() == 1
    hover(page, f"{row} .fold")
    lit = read_lit(page)
    assert len(lit["chart"]) == 54
    assert [name for name in lit["graph"] if "28" not in name] != []
    hover(page, bar("h14-z15"))
    assert "lit" in fold.get_attribute("class").split()
    assert "lit" in page.locator(".chain-graph .node.fold").get_attribute("class").split() or (
        page.locator('.chain-graph .edge.lit[data-factor~="h14-z15"]').count() == 1
    )
    assert do(page, "fold").inner_text() == "Show all factors"
    do(page, "fold").click()
    assert page.locator(f"{row} .factor").count() == 60
    assert page.locator(f"{row} .fold").count() == 0
    hover(page, term("h14-z15"))
    assert read_lit(page)["chart"] == ["h14-z15"]
    do(page, "fold").click()
    assert page.locator(f"{row} .factor").count() == 6


@pytest.mark.browser
def test_what_is_left_out_of_a_long_derivation_is_said(page, url):
    visit(page, url, f"?weights={equal('1', 30)}")
    hidden = describe_chain(ScalarChain(1.0, [1.0] * 30))["hidden_lines"]
    assert hidden > 0
    assert f"{hidden} more lines" in text(page, "lines")


@pytest.mark.browser
def test_three_layers_offer_no_folding(shown):
    assert do(shown, "fold").is_hidden()


@pytest.mark.browser
def test_other_variables_biases_and_activations(shown):
    options = part(shown, "wrt").locator("option").evaluate_all("all => all.map(o => o.value)")
    assert options == ["x", "w1", "w2", "w3"]
    part(shown, "wrt").select_option("w2")
    wait_for(shown, wrt="w2")
    assert_shows(shown, START, "w2")
    part(shown, "biased").check()
    wait_for(shown, biases="0,0,0")
    assert_shows(shown, ScalarChain(1.0, START.weights, "sigmoid", [0.0] * 3), "w2")
    part(shown, "wrt").select_option("b1")
    wait_for(shown, wrt="b1")
    box(shown, "b2").fill("-0.5")
    wait_for(shown, biases="0,-0.5,0")
    biased = ScalarChain(1.0, START.weights, "sigmoid", [0.0, -0.5, 0.0])
    assert_shows(shown, biased, "b1")
    click(shown, node("b3"))
    shown.keyboard.type("2")
    shown.keyboard.press("Enter")
    wait_for(shown, biases="0,-0.5,2")
    part(shown, "activation").select_option("gelu")
    wait_for(shown, activation="gelu")
    assert_shows(shown, ScalarChain(1.0, START.weights, "gelu", [0.0, -0.5, 2.0]), "b1")
    part(shown, "biased").uncheck()
    wait_for(shown, wrt="w1", biases="undefined")
    assert_shows(shown, ScalarChain(1.0, START.weights, "gelu"))


@pytest.mark.browser
def test_erratum_is_shown_for_sigmoid_only(shown):
    erratum = describe_chain(START)["erratum"]
    assert erratum["sentence"] in text(shown, "erratum")
    cells = part(shown, "erratum").locator("tbody tr").first.inner_text().split()
    layer = erratum["layers"][0]
    assert cells == [str(layer["layer"]), layer["right"]["text"], layer["wrong"]["text"]]
    part(shown, "activation").select_option("tanh")
    wait_for(shown, activation="tanh")
    assert part(shown, "erratum-card").is_hidden()


@pytest.mark.browser
def test_same_weight_everywhere(shown):
    part(shown, "equal").check()
    wait_for(shown, weights="0.5,0.5,0.5")
    assert box(shown, "w1").count() == 0
    box(shown, "w").fill("2")
    wait_for(shown, weights="2,2,2")
    assert_shows(shown, ScalarChain(1.0, [2.0] * 3))
    part(shown, "layers").fill("5")
    wait_for(shown, weights="2,2,2,2,2")
    part(shown, "equal").uncheck()
    box(shown, "w4").fill("1")
    wait_for(shown, weights="2,2,2,1,2")


@pytest.mark.browser
def test_same_weight_everywhere_stays_true_after_editing_one(shown):
    part(shown, "equal").check()
    wait_for(shown, weights="0.5,0.5,0.5")
    click(shown, node("w2"))
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    shown.wait_for_function("document.getElementById('chain-root').dataset.shown.includes('4')")
    weights = set(parse_qs(urlsplit(shown.url).query)["weights"][0].split(","))
    assert part(shown, "equal").is_checked() == (len(weights) == 1)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("weight", "activation", "kind"),
    [("1e-7", "sigmoid", "underflow"), ("1e10", "identity", "overflow"), ("0", "tanh", "normal")],
)
def test_values_beyond_float64_are_shown_as_such(page, url, weight, activation, kind):
    visit(page, url, f"?weights={equal(weight, 50)}&activation={activation}")
    chain = ScalarChain(1.0, [float(weight)] * 50, activation)
    gradient = chain.gradient("w1")
    assert gradient.range == kind
    assert_shows(page, chain)
    assert text(page, "range") == derive(chain).describe_range()
    shown = text(page, "step-product")
    if kind != "normal":
        assert re.fullmatch(r"[−-]?\d\.\d+·10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", shown)
        assert f"log₁₀|∂p/∂w₁| = {gradient.log10:.1f}".replace("-", "−") in text(page, "range")
    for pieces in (".bar text", ".chain-graph .value", ".chain-graph .gradient"):
        texts = page.locator(pieces).evaluate_all("all => all.map(one => one.textContent.trim())")
        assert texts
        assert all(texts)
        assert not {"NaN", "null", "undefined", "Infinity", "∞"} & set(texts)
    cells = page.locator(f"{PART.format('factor-table')} td")
    assert all(cells.evaluate_all("all => all.map(one => one.textContent)"))


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.browser
def test_address_brings_back_what_was_shown(shown, context, url):
    part(shown, "layers").fill("4")
    part(shown, "activation").select_option("tanh")
    part(shown, "biased").check()
    box(shown, "b2").fill("0.25")
    box(shown, "w4").fill("1e-7")
    box(shown, "x").fill("-0.5")
    part(shown, "wrt").select_option("b1")
    wait_for(shown, x="-0.5", wrt="b1", biases="0,0.25,0,0", weights="0.5,-2,1.5,1e-7")
    chain = ScalarChain(-0.5, [0.5, -2.0, 1.5, 1e-7], "tanh", [0.0, 0.25, 0.0, 0.0])
    assert_shows(shown, chain, "b1")
    before = read_all(shown)
    shown.reload()
    wait_for(shown)
    assert read_all(shown) == before
    with watch(context.new_page(), url) as other:
        other.goto(shown.url)
        wait_for(other)
        assert read_all(other) == before


@pytest.mark.browser
def test_address_brings_back_the_walk(shown):
    do(shown, "walk-next").click()
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5,-2")
    before = read_all(shown)
    assert before["walk"] == "2 of 5: Two layers"
    shown.reload()
    wait_for(shown, weights="0.5,-2")
    assert read_all(shown) == before


HOSTILE = {
    "not numbers": "?weights=nan,inf,1e999,two&x=nan&biases=x,y",
    "empty": "?weights=,,,&x=&biases=,&wrt=&activation=",
    "markup": "?weights=%3Cscript%3Ealert(1)%3C/script%3E&x=%3Cb%3E&wrt=%22%3E%3Cimg%20src=x%3E",
    "unknown activation": "?activation=%3Cimg%20src=x%20onerror=alert(1)%3E",
    "too many layers": f"?weights={','.join(['1'] * 2000)}",
    "unknown variable": "?wrt=w99",
    "walk beyond": "?walk=99",
    "walk between": "?walk=1.5",
    "walk below": "?walk=-3",
    "broken escapes": "?weights=%E0%A4%A&x=%00",
    "network": "?depth=1e9&width=-4&init=%3Cb%3E&network_activation=nothing&seed=x",
    "per layer": "?weights=1,2&activation=tanh,relu",
}


@pytest.mark.browser
@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_hostile_addresses_do_no_harm(context, url, query):
    def is_refusal(problem: str) -> bool:
        return "status of 422" in problem

    with watch(context.new_page(), url, expected=is_refusal) as page:
        page.set_default_timeout(10_000)
        page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
        page.goto(f"{url}/chain-rule{query}")
        page.wait_for_function(
            """() => document.getElementById("chain-root")?.dataset.shown
                || document.querySelector('[data-part="error"]')?.textContent"""
        )
        assert page.locator("#chain-root img, #chain-root b, #chain-root script").count() == 0
        for name in ("next", "back", "play", "play", "reset", "copy"):
            do(page, name).dispatch_event("click")
        onward = do(page, "walk-next")
        if not text(page, "walk-title").startswith("5 of 5"):
            assert onward.is_enabled()
            onward.dispatch_event("click")
            assert re.match(r"\d of 5: ", text(page, "walk-title"))
        part(page, "layers").fill("2")
        part(page, "activation").select_option("tanh")
        wait_for(page, activation="tanh")
        assert text(page, "error") == ""
        weights = [float(w) for w in parse_qs(urlsplit(page.url).query)["weights"][0].split(",")]
        assert len(weights) == 2
        assert all(map(math.isfinite, weights))


NOTICES = {
    "too many": (f"?weights={','.join(['1'] * 60)}", "weights: 60 came; the first 50 are shown."),
    "no number": ("?weights=1,nan", "w₂: “nan” is no finite number; using 1."),
    "no x": ("?x=", "x: “” is no finite number; using 1."),
    "activation": ("?activation=sigmiod", "activation: “sigmiod” is not known; using sigmoid."),
    "activations": ("?activation=tanh,relu", "activation: 2 came for 3 layers; using sigmoid."),
    "variable": ("?wrt=w9", "gradient of p with respect to: “w9” is no variable"),
    "biases": ("?biases=1", "biases: 1 came for 3 layers; those missing are 0."),
    "walk": ("?walk=99", "walk: it has 5 steps; showing step 5."),
    "no walk": ("?walk=abc", "walk: “abc” is no finite number; not started."),
    "depth": ("?depth=1000000", "depth “1000000” is not possible; using 1000."),
    "no depth": ("?depth=NaN", "depth of the real network: “NaN” is no finite number; left out."),
    "card": ("?depth_w=", "w of “Why it vanishes”: “” is no finite number; using 1."),
    "steps": ("?time_steps=0", "steps: 0 is not possible; using 1."),
    "clip": ("?time_clip=-1", "clip: “-1” is no number above 0; never clipping."),
}


@pytest.mark.browser
@pytest.mark.parametrize(("query", "notice"), NOTICES.values(), ids=NOTICES)
def test_what_was_corrected_in_an_address_is_said(page, url, query, notice):
    visit(page, url, query + ("&width=8" if "depth=1000000" in query else ""))
    said = part(page, "notice")
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"notice\"]').textContent.includes(text)",
        arg=notice,
        timeout=60_000,
    )
    assert said.get_attribute("role") == "alert"
    assert said.is_visible()
    box(page, "x").fill("2")
    assert said.is_hidden()


@pytest.mark.browser
def test_a_good_address_has_no_notice(shown):
    wait_for_network(shown, "15 layers")
    assert part(shown, "notice").is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("typed", "layers"), [("99", 50), ("2.4", 2), ("", 3), ("-4", 1), ("0", 1), ("1e9", 50)]
)
def test_the_layers_box_says_what_it_can_have(shown, typed, layers):
    part(shown, "layers").fill(typed)
    part(shown, "layers").blur()
    wait_for_count(shown, layers)
    assert "a whole number from 1 to 50" in text(shown, "notice")
    assert part(shown, "layers").input_value() == str(layers)


def wait_for_count(page, layers: int) -> None:
    page.wait_for_function(
        "n => JSON.parse(document.getElementById('chain-root').dataset.shown)"
        ".weights.split(',').length === n",
        arg=layers,
    )


@pytest.mark.browser
def test_address_brings_back_the_cards(shown):
    part(shown, "depth-w").fill("-3.5")
    part(shown, "depth-activation").select_option("tanh")
    part(shown, "rnn-w").fill("0.9")
    part(shown, "rnn-steps").fill("30")
    part(shown, "rnn-activation").select_option("relu")
    part(shown, "rnn-clip").fill("2")
    wait_for_depth(shown, -3.5, "tanh")
    names = ["depth-w", "depth-w-range", "depth-activation", "depth-end", "depth-sentence"]
    names += ["rnn-w", "rnn-steps", "rnn-activation", "rnn-clip", "rnn-sentence"]
    shown.wait_for_function(
        "document.querySelector('[data-part=\"rnn-sentence\"]').textContent.match(/[Cc]lip/)"
    )

    def look() -> list[str]:
        return [part(shown, name).evaluate("one => one.value ?? one.textContent") for name in names]

    before = look()
    shown.reload()
    wait_for(shown)
    wait_for_depth(shown, -3.5, "tanh")
    shown.wait_for_function(
        "document.querySelector('[data-part=\"rnn-sentence\"]').textContent.match(/[Cc]lip/)"
    )
    assert look() == before


@pytest.mark.browser
def test_back_button_returns_through_the_walk(shown):
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5")
    box(shown, "w1").fill("3")
    wait_for(shown, weights="3")
    do(shown, "walk-next").click()
    wait_for(shown, weights="0.5,-2")
    shown.go_back()
    wait_for(shown, weights="3")
    assert text(shown, "walk-title") == "1 of 5: One layer"
    assert_shows(shown, ScalarChain(1.0, [3.0]))
    shown.go_back()
    wait_for(shown, weights="0.5,-2,1.5")
    assert text(shown, "walk-title") == "A guided walk in five steps"
    shown.go_forward()
    wait_for(shown, weights="3")


# --- what was once missing ----------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("layers", [5, 30])
def test_every_line_of_the_derivation_can_be_shown(page, url, layers):
    visit(page, url, f"?weights={equal('1', layers)}")
    derivation = derive(ScalarChain(1.0, [1.0] * layers))
    lines = part(page, "lines").locator("math")
    folded = [line for line in derivation.lines if not line.hidden]
    assert lines.count() == len(folded) < len(derivation.lines)
    part(page, "lines").get_by_role("button", name="Show them", exact=True).click()
    page.wait_for_function(
        "n => document.querySelectorAll('[data-part=\"lines\"] math').length === n",
        arg=len(derivation.lines),
    )
    assert lines.evaluate_all("all => all.map(one => one.textContent)") == [
        read_math(line.to_mathml()) for line in derivation.lines
    ]
    assert page.evaluate("document.activeElement.dataset.do") == "lines"
    page.keyboard.press("Enter")
    assert lines.count() == len(folded)


@pytest.mark.browser
@pytest.mark.parametrize("way", ["button", "click", "Enter"])
def test_the_graph_unfolds_into_one_row_and_folds_again(page, url, way):
    visit(page, url, f"?weights={equal('1.5', 30)}")
    if way == "button":
        do(page, "graph").click()
    elif way == "click":
        click(page, ".chain-graph .node.fold")
    else:
        page.locator(".chain-graph .node.fold").focus()
        page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.chain-graph .node.weight').length === 30")
    assert page.locator(".chain-graph .node.fold").count() == 0
    heights = page.locator(".chain-graph .node.weight .shape").evaluate_all(
        "all => all.map(one => one.getAttribute('y'))"
    )
    assert len(set(heights)) == 1
    graph = part(page, "graph")
    assert graph.evaluate("one => one.scrollWidth > 2 * one.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    do(page, "next").click()  # what a step lights is scrolled into sight
    lit = page.locator(edge("z30-h30")).bounding_box()
    assert 0 <= lit["x"] <= 1280
    do(page, "graph").click()
    page.wait_for_function("document.querySelectorAll('.chain-graph .node.fold').length === 1")


@pytest.mark.browser
@pytest.mark.parametrize("view", ["chain", "real"])
@pytest.mark.parametrize("way", ["click", "Enter"])
def test_a_folded_middle_unfolds_where_it_stands(page, url, view, way):
    visit(page, url, f"?weights={equal('1', 9)}")
    wait_for_network(page, "15 layers")
    row = f'[data-view="{view}"] li[data-kind="formulas"]'
    count = {"chain": 18, "real": 30}[view]
    if way == "click":
        click(page, f"{row} .fold")
    else:
        page.locator(f"{row} .fold").focus()
        page.keyboard.press("Enter")
    assert page.locator(f"{row} .factor").count() == count
    other = {"chain": "real", "real": "chain"}[view]
    assert page.locator(f'[data-view="{other}"] li[data-kind="formulas"] .fold').count() == 1
    fold = "document.activeElement.dataset.do"
    assert page.evaluate(fold) == {"chain": "fold", "real": "real-fold"}[view]
    page.keyboard.press("Enter")
    assert page.locator(f"{row} .factor").count() == 6


@pytest.mark.browser
def test_what_is_too_long_to_unfold_offers_no_unfolding(page, url):
    visit(page, url, "?depth=200&width=2")
    wait_for_network(page, "200 layers")
    fold = page.locator(f"{REAL} li[data-kind='formulas'] .fold")
    assert fold.get_attribute("role") == "img"
    assert fold.get_attribute("aria-label") == "394 factors folded"
    assert do(page, "real-fold").is_hidden()
    click(page, f"{REAL} li[data-kind='formulas'] .fold")
    assert fold.count() == 1


@pytest.mark.browser
def test_finding_the_weight_gives_the_answer(page, url):
    visit(page, url, "?walk=5")
    for name in ("reveal", "region", "depth-sentence"):
        assert part(page, name).is_hidden()
    part(page, "depth-w").fill("3.9")
    wait_for_depth(page, 3.9, "sigmoid")
    assert part(page, "region").is_hidden()
    part(page, "depth-w").fill("4")
    wait_for_depth(page, 4.0, "sigmoid")
    for name in ("reveal", "region", "depth-sentence"):
        assert part(page, name).is_visible()
    assert "At |w| = 4: a quarter of 4 is 1" in text(page, "depth-task")
    lesson = part(page, "depth-task").get_by_role("link", name="Back to the lesson")
    assert lesson.get_attribute("href") == "/#lesson"


@pytest.mark.browser
def test_walk_says_what_comes_of_it_where_it_stands(page, url):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, url, "?walk=1")
    assert text(page, "walk-sentence") == "∂p/∂w₁ = 0.235"
    box(page, "w1").fill("3")
    wait_for(page, weights="3")
    gradient = describe_chain(ScalarChain(1.0, [3.0]))["gradient"]["text"]
    assert text(page, "walk-sentence") == f"∂p/∂w₁ = {gradient}"
    do(page, "to-graph").click()
    assert part(page, "graph-card").evaluate("one => one.getBoundingClientRect().top") < 200
    visit(page, url, "?walk=3")
    do(page, "walk-step").click()
    factor = describe_chain(START)["factors"][0]
    assert text(page, "walk-sentence").startswith(f"{factor['sentence']}. Product so far:")
    assert read_lit(page)["chart"] == [factor["id"]]


@pytest.mark.browser
@pytest.mark.parametrize(("layers", "height"), [(3, 900), (8, 900), (30, 900), (3, 700)])
def test_the_chain_stays_in_sight_while_the_equation_is_read(page, url, layers, height):
    page.set_viewport_size({"width": 1280, "height": height})
    visit(page, url, f"?weights={equal('1', layers)}")
    page.locator('[data-view="chain"] li[data-kind="value"]').scroll_into_view_if_needed()
    hover(page, '[data-view="chain"] li[data-kind="numbers"] .factor')
    assert page.evaluate(
        """() => [...document.querySelectorAll('[data-view="chain"] :is(.edge, .link).lit')].some(
            one => {
                const at = one.getBoundingClientRect();
                const found = document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2);
                return at.top > 40 && at.bottom < innerHeight && found?.closest("svg");
            })"""
    )


@pytest.mark.browser
def test_the_strip_lights_with_the_chain(page, url):
    visit(page, url, f"?weights={equal('1', 8)}")
    hover(page, bar("h3-z4"))
    lit = page.locator(".cr-strip .link.lit")
    assert lit.evaluate_all("all => all.map(one => one.dataset.factor)") == ["h3-z4"]
    hover(page, '.cr-strip .link[data-factor="z2-h2"]')
    assert read_lit(page)["chart"] == ["z2-h2"]
    page.locator(".cr-strip .link").last.focus()
    page.mouse.move(0, 0)
    page.keyboard.press("ArrowLeft")
    assert read_lit(page)["chart"] == ["h7-z8"]
    page.keyboard.press("Enter")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    wait_for(page, weights="1,1,1,1,1,1,1,4")


@pytest.mark.browser
def test_enter_on_a_bar_edits_its_weight(shown):
    shown.locator(bar("h1-z2")).focus()
    shown.keyboard.press("Enter")
    shown.keyboard.type("4")
    shown.keyboard.press("Enter")
    wait_for(shown, weights="0.5,4,1.5")
    assert shown.evaluate("document.activeElement.closest('.bar')?.dataset.factor") == "h1-z2"
    assert shown.locator(bar("h1-z2")).get_attribute("role") == "button"
    assert shown.locator(bar("z2-h2")).get_attribute("role") == "img"


@pytest.mark.browser
def test_an_emptied_box_keeps_its_last_good_value_and_says_so(shown):
    part(shown, "depth-w").fill("3")
    wait_for_depth(shown, 3.0, "sigmoid")
    part(shown, "depth-w").fill("")
    assert "keeping 3" in text(shown, "depth-note")
    part(shown, "depth-w").blur()
    part(shown, "depth-activation").select_option("tanh")
    wait_for_depth(shown, 3.0, "tanh")
    assert part(shown, "depth-w").input_value() == "3"
    part(shown, "rnn-w").fill("2")
    part(shown, "rnn-w").fill("")
    assert "keeping 2" in text(shown, "rnn-note")
    part(shown, "rnn-steps").fill("")
    assert "keeping 20" in text(shown, "rnn-note")
    part(shown, "rnn-steps").fill("9999")
    assert "using 200" in text(shown, "rnn-note")
    part(shown, "rnn-steps").blur()
    assert part(shown, "rnn-w").input_value() == "2"
    assert part(shown, "rnn-steps").input_value() == "200"


@pytest.mark.browser
def test_whole_derivative_lights_by_focus_too(shown):
    names = sorted(factor.id for factor in START.factors("w1"))
    for kind in ("derivative", "value"):
        whole = shown.locator(f'[data-view="chain"] li[data-kind="{kind}"] [data-factor]')
        assert whole.get_attribute("tabindex") == "0"
        whole.focus()
        assert read_lit(shown)["chart"] == names
        whole.blur()


@pytest.mark.browser
def test_many_different_weights_have_a_box_each_and_one_for_all(page, url):
    weights = [0.5 + n / 10 for n in range(20)]
    visit(page, url, f"?weights={join(weights)}")
    assert not part(page, "equal").is_checked()
    assert page.locator(f'{PART.format("values")} input[type="number"]').count() == 22
    assert box(page, "w20").input_value() == repr(weights[-1])
    assert box(page, "w").input_value() == ""
    assert box(page, "w").get_attribute("placeholder") == "they differ"
    box(page, "w7").fill("9")
    weights[6] = 9.0
    page.wait_for_function(
        "text => document.getElementById('chain-root').dataset.shown.includes(text)",
        arg=",9,",
    )
    assert_shows(page, ScalarChain(1.0, weights))
    box(page, "w").fill("2")
    wait_for(page, weights=equal("2", 20))
    assert_shows(page, ScalarChain(1.0, [2.0] * 20))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_activations_of_each_layer_can_be_read_and_set(page, url):
    visit(page, url, "?weights=1,2,3&activation=tanh,relu,gelu")
    assert part(page, "activation").input_value() == "mixed"
    selects = part(page, "phis").locator("select")
    assert selects.evaluate_all("all => all.map(one => one.value)") == ["tanh", "relu", "gelu"]
    selects.nth(1).select_option("sigmoid")
    wait_for(page, activation="tanh,sigmoid,gelu")
    assert_shows(page, ScalarChain(1.0, [1.0, 2.0, 3.0], ["tanh", "sigmoid", "gelu"]))
    part(page, "layers").fill("4")
    wait_for(page, activation="tanh,sigmoid,gelu,gelu")
    part(page, "layers").fill("1")
    wait_for(page, activation="tanh")
    part(page, "layers").fill("3")
    wait_for(page, activation="tanh,sigmoid,gelu")
    part(page, "layers").fill("4")
    part(page, "activation").select_option("relu")
    wait_for(page, activation="relu")
    assert part(page, "phis").is_hidden()
    part(page, "activation").select_option("mixed")
    wait_for(page, activation="relu,relu,relu,relu")


@pytest.mark.browser
def test_an_edit_keeps_the_step_where_it_still_makes_sense(shown):
    for _ in range(3):
        do(shown, "next").click()
    box(shown, "w2").fill("4")
    wait_for(shown, weights="0.5,4,1.5")
    shown.mouse.move(0, 0)
    box(shown, "w2").blur()
    assert_at_step(shown, 3, ScalarChain(1.0, [0.5, 4.0, 1.5]))
    part(shown, "layers").fill("2")
    wait_for(shown, weights="0.5,4")
    assert_shows(shown, ScalarChain(1.0, [0.5, 4.0]))


@pytest.mark.browser
def test_ways_to_the_explorer_and_the_lesson(page, url):
    visit(page, url, "?depth=7&width=16&network_activation=tanh")
    wait_for_network(page, "7 layers of 16 units, tanh")
    ways = page.get_by_role("navigation", name="ways from here").get_by_role("link")
    links = ways.evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert links[1] == "/#lesson"
    spec = NetworkSpec(depth=7, width=16, activation="tanh")
    assert NetworkSpec.from_query(links[0].removeprefix("/?")) == spec


@pytest.mark.browser
def test_region_of_stable_weights_is_a_picture(shown):
    part(shown, "depth-activation").select_option("tanh")
    part(shown, "depth-w").fill("-1.25")
    wait_for_depth(shown, -1.25, "tanh")
    region = part(shown, "region-chart")
    label = region.locator("svg").get_attribute("aria-label")
    low, high = find_stable_weights("tanh").best
    assert f"from {low:#.3g} to {high:#.3g}; now |w| is 1.25" in label

    def place(selector: str, attribute: str) -> float:
        return float(region.locator(selector).get_attribute(attribute))

    # The axis is logarithmic from 0.03 to 100, and everything stands on it.
    left, width = place("rect.axis", "x"), place("rect.axis", "width")

    def find(weight: float) -> float:
        return left + width * (math.log10(weight) - math.log10(0.03)) / math.log10(100 / 0.03)

    assert place("line.marker", "x1") == pytest.approx(find(1.25), abs=0.5)
    assert place("rect.best", "x") == pytest.approx(find(low), abs=0.5)
    assert place("rect.best", "x") + place("rect.best", "width") == pytest.approx(find(high), abs=2)
    outline = region.locator("path.best").get_attribute("d")
    points = [tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", outline)]
    widths = [
        right[0] - left[0]
        for left, right in zip(points[1:51], reversed(points[51:-1]), strict=True)
    ]
    assert all(a > b for a, b in itertools.pairwise(widths))
    assert "w &lt; 0" in region.inner_html()


def test_layers_a_weight_stays_stable_for(url):
    answer = ask(url, "depth", w=-1.5, activation="tanh", depth=20)
    assert answer["negative"] is True
    expected = count_stable_layers("tanh", depth=20, negative=True)
    assert [layers for _, layers in answer["reach"]] == [layers for _, layers in expected]
    for layers, (low, high) in enumerate(answer["funnel"], 1):
        assert low == pytest.approx(10 ** (-1 / layers))
        assert high == pytest.approx(10 ** (1 / layers))


# --- taking along -------------------------------------------------------------------------------


def split_latex(latex: str) -> list[str]:
    """Return the rows of an aligned environment, spaces left out."""
    found = re.fullmatch(r"\\begin\{aligned\}(.*)\\end\{aligned\}", latex.strip(), re.DOTALL)
    assert found, latex
    return [re.sub(r"\s+", "", row) for row in re.split(r"\\\\", found[1])]


@pytest.mark.browser
@pytest.mark.parametrize("layers", [1, 3, 30])
def test_latex_copied_is_the_derivations(page, url, layers):
    weights = START.weights[:layers] if layers <= 3 else (1.0,) * layers
    visit(page, url, f"?weights={','.join(f'{w:g}' for w in weights)}")
    do(page, "copy").click()
    page.wait_for_function("document.querySelector('[data-do=\"copy\"]').textContent === 'Copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    derivation = derive(ScalarChain(1.0, weights))
    assert split_latex(copied) == split_latex(derivation.to_latex())
    if layers > 12:
        do(page, "lines").click()
        do(page, "fold").click()
        page.wait_for_function(
            "document.querySelectorAll('[data-part=\"lines\"] li[data-kind]').length > 50"
        )
        do(page, "copy").click()
        page.wait_for_timeout(200)
        copied = page.evaluate("navigator.clipboard.readText()")
        assert split_latex(copied) == split_latex(derivation.to_latex(fold=False))


@pytest.mark.browser
def test_graph_downloaded_is_the_librarys(shown):
    with shown.expect_download() as download:
        do(shown, "svg").click()
    assert download.value.suggested_filename == "chain.svg"
    svg = Path(download.value.path()).read_text(encoding="utf-8")
    assert svg == draw_graph(START, "w1", identifier="graph")
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


# --- the walk, depth, time ----------------------------------------------------------------------


@pytest.mark.browser
def test_walk_from_its_first_sentence_to_the_weight_of_four(shown):
    assert text(shown, "walk-title") == "A guided walk in five steps"
    assert do(shown, "walk-back").is_disabled()
    for number, (title, weights) in enumerate(
        [
            ("One layer", "0.5"),
            ("Two layers", "0.5,-2"),
            ("Three layers", "0.5,-2,1.5"),
            ("Many layers", equal("1", 30)),
            ("When is it large enough?", equal("1", 30)),
        ],
        1,
    ):
        do(shown, "walk-next").click()
        wait_for(shown, weights=weights, activation="sigmoid", wrt="w1")
        assert text(shown, "walk-title") == f"{number} of 5: {title}"
        assert len(text(shown, "walk-text")) > 80
        assert_shows(shown, ScalarChain(1.0, [float(w) for w in weights.split(",")]))
        if number == 1:  # the controls are the reader's
            box(shown, "w1").fill("3")
            wait_for(shown, weights="3")
            assert_shows(shown, ScalarChain(1.0, [3.0]))
    assert do(shown, "walk-next").is_disabled()
    shown.wait_for_function(
        """() => {
            const at = document.querySelector('[data-part="depth-card"]').getBoundingClientRect();
            return at.top < innerHeight && at.bottom > 0;
        }"""
    )
    assert part(shown, "reveal").is_hidden()
    do(shown, "reveal").click()
    assert part(shown, "reveal").is_visible()
    assert "|w| = 4" in text(shown, "reveal")
    assert text(shown, "depth-sentence") == find_stable_weights("sigmoid").sentence
    assert "Below |w| = 4 the product vanishes" in text(shown, "depth-sentence")
    for typed, best in (("3.5", "0.00126"), ("4", "1")):
        part(shown, "depth-w").fill(typed)
        wait_for_depth(shown, float(typed), "sigmoid")
        assert text(shown, "depth-end").endswith(f"in the best case {best}.")
    do(shown, "walk-back").click()
    wait_for(shown)
    assert text(shown, "walk-title") == "4 of 5: Many layers"
    assert do(shown, "reveal").is_hidden()


def wait_for_depth(page, weight: float, activation: str) -> None:
    """Wait for what the library says of 50 layers."""
    curve = measure_depth(weight, activation)
    product, best = (describe_number(n)["text"] for n in (curve.products[-1], curve.best[-1]))
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"depth-end\"]').textContent === text",
        arg=f"After 50 layers: {product}, in the best case {best}.",
    )


@pytest.mark.browser
def test_depth_chart_follows_its_controls(shown):
    wait_for_depth(shown, 1.0, "sigmoid")
    lines = part(shown, "depth-chart").locator("path")
    before = lines.evaluate_all("all => all.map(path => path.getAttribute('d'))")
    assert [len(path.split("L")) for path in before] == [50, 50]
    part(shown, "depth-w-range").focus()
    shown.keyboard.press("ArrowRight")
    assert part(shown, "depth-w").input_value() == "1.05"
    wait_for_depth(shown, 1.05, "sigmoid")
    assert lines.evaluate_all("all => all.map(path => path.getAttribute('d'))") != before
    part(shown, "depth-activation").select_option("tanh")
    wait_for_depth(shown, 1.05, "tanh")
    assert text(shown, "depth-sentence") == find_stable_weights("tanh").sentence
    part(shown, "depth-w").fill("-1e9")
    wait_for_depth(shown, -1e9, "tanh")


@pytest.mark.browser
def test_gradient_through_time_and_clipping(shown):
    def expect(**settings) -> None:
        recurrence = measure_recurrence(
            settings["w"],
            settings["steps"],
            x=0.1,
            activation=settings["activation"],
            clip=settings.get("clip"),
        )
        said = recurrence.sentence
        assert describe_number(recurrence.gradient)["text"] in said
        shown.wait_for_function(
            "text => document.querySelector('[data-part=\"rnn-sentence\"]').textContent"
            ".startsWith(text)",
            arg=said,
        )

    lines = part(shown, "rnn-chart").locator("path")
    expect(w=1.3, steps=20, activation="identity")
    assert lines.count() == 3
    part(shown, "rnn-clip").fill("1")
    expect(w=1.3, steps=20, activation="identity", clip=1.0)
    assert lines.count() == 4
    part(shown, "rnn-w-range").focus()
    shown.keyboard.press("ArrowLeft")
    part(shown, "rnn-steps").fill("50")
    part(shown, "rnn-activation").select_option("tanh")
    expect(w=1.25, steps=50, activation="tanh", clip=1.0)
    assert lines.first.get_attribute("d").count("L") == 50


@pytest.mark.browser
def test_an_impossible_clip_is_answered_with_the_reason(context, url):
    with watch(context.new_page(), url, expected=lambda p: "status of 422" in p) as page:
        visit(page, url)
        part(page, "rnn-clip").fill("-1")
        page.wait_for_function(
            "document.querySelector('[data-part=\"rnn-sentence\"]').textContent"
            ".startsWith('clip: must be a finite number above 0')"
        )


# --- the real network ---------------------------------------------------------------------------

CHART = "document.querySelector('#gradient-chart')"


def wait_for_network(page, words: str) -> str:
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"real-sentence\"]')?.textContent"
        ".startsWith(text)",
        arg=words,
        timeout=30_000,
    )
    return text(page, "real-sentence")


def wait_for_gradients(page, spec: NetworkSpec) -> None:
    """Wait until the explorer shows what `simulate` measures."""
    expected = list(simulate(spec, 16).weight_gradient_norms)
    page.wait_for_function(
        f"""expected => {{
            const shown = {CHART}?.data?.[1]?.y;
            return shown?.length === expected.length && expected.every(
                (value, i) => Math.abs(shown[i] - value) <= 1e-9 * Math.abs(value));
        }}""",
        arg=expected,
    )


REAL = '[data-view="real"]'


def read_real(page) -> dict[str, list[str]]:
    """Return what is lit of the measured network, by where it is."""
    return page.evaluate(
        """() => Object.fromEntries(Object.entries({
            equation: "li[data-kind='formulas'] .factor", strip: ".link", chart: ".gain",
            gradients: ".column",
        }).map(([name, selector]) => [name,
            [...document.querySelectorAll(`[data-view="real"] ${selector}`)]
                .filter(entry => entry.matches(".lit")).map(entry => entry.dataset.factor)
        ]))"""
    )


@pytest.mark.browser
def test_real_network_is_an_equation_of_measured_gains(shown):
    spec = NetworkSpec(depth=15, activation="sigmoid", init="xavier")
    said = wait_for_network(shown, "15 layers of 64 units, sigmoid, xavier: gains of 8 ")
    product = measure_product(simulate(spec, 8))
    document = describe_product(product)
    assert f"All 30 factors multiply to {document['gradient']['text']}:" in said
    lines = shown.locator(f"{REAL} [data-part='real-lines'] math")
    shown_lines = lines.evaluate_all("all => all.map(one => one.textContent)")
    assert shown_lines == [read_math(line["mathml"]) for line in document["lines"]]
    assert "24 factors" in shown_lines[2]
    assert text(shown, "real-extremes") == product.extremes
    assert text(shown, "real-check") == product.check
    do(shown, "real-fold").click()
    assert shown.locator(f"{REAL} li[data-kind='formulas'] .factor").count() == 30
    rows = part(shown, "real-table").locator("tbody tr")
    assert rows.evaluate_all("rows => rows.map(row => row.cells[2].textContent)") == [
        factor["value"]["text"] for factor in document["factors"]
    ]
    do(shown, "real-copy").click()
    shown.wait_for_function(
        "document.querySelector('[data-do=\"real-copy\"]').textContent === 'Copied'"
    )
    copied = shown.evaluate("navigator.clipboard.readText()")
    unfolded = [line["unfolded"] or line for line in document["lines"]]
    assert "underbrace" not in copied
    assert all(line["latex"] in copied for line in unfolded)
    do(shown, "real-fold").click()
    do(shown, "real-copy").click()
    shown.wait_for_function(
        "async text => await navigator.clipboard.readText() === text", arg=document["latex"]
    )


@pytest.mark.browser
def test_real_network_links_equation_strip_factors_and_gradients(shown):
    wait_for_network(shown, "15 layers")
    do(shown, "real-fold").click()
    lit = {
        "equation": ["W-7"],
        "strip": ["W-7"],
        "chart": ["W-7"],
        "gradients": ["W-7 phi-7"],
    }
    places = {
        "equation": f'{REAL} li[data-kind="formulas"] .factor[data-factor="W-7"]',
        "strip": f'{REAL} .link[data-factor="W-7"]',
        "chart": f'{REAL} .gain[data-factor="W-7"]',
    }
    for place in places.values():
        hover(shown, place)
        assert read_real(shown) == lit, place
        shown.mouse.move(0, 0)
        assert not any(read_real(shown).values()), place
        shown.locator(place).focus()
        assert read_real(shown) == lit, place
        shown.locator(place).blur()
    hover(shown, f'{REAL} .column[data-factor="W-7 phi-7"]')
    both = read_real(shown)
    assert {name: sorted(ids) for name, ids in both.items()} == {
        "equation": ["W-7", "phi-7"],
        "strip": ["W-7", "phi-7"],
        "chart": ["W-7", "phi-7"],
        "gradients": ["W-7 phi-7"],
    }
    assert read_lit(shown) == DARK  # the other view's chain is not meant
    shown.mouse.move(0, 0)
    shown.locator(f"{REAL} .column").last.focus()
    shown.keyboard.press("ArrowLeft")
    assert read_real(shown)["chart"] == ["W-14", "phi-14"]


@pytest.mark.browser
def test_stepping_through_the_real_network(shown):
    wait_for_network(shown, "15 layers")
    document = describe_product(
        measure_product(simulate(NetworkSpec(depth=15, activation="sigmoid", init="xavier"), 8))
    )
    do(shown, "real-back").click()
    do(shown, "real-reset").click()
    do(shown, "real-next").focus()
    for count, factor in enumerate(document["factors"][:4], 1):
        shown.keyboard.press("ArrowRight")
        assert text(shown, "real-step-sentence") == f"{factor['sentence']}."
        assert text(shown, "real-step-product") == factor["running_product"]["text"]
        assert text(shown, "real-step-count") == f"{count} of 30 factors"
        assert read_real(shown)["strip"] == [factor["id"]]
    assert text(shown, "step-count") == "6 of 6 factors"


@pytest.mark.browser
def test_columns_of_the_real_network_do_not_overlap(shown):
    wait_for_network(shown, "15 layers")
    for kind in (".column", ".gain .hit", ".link .hit"):
        spans = shown.locator(f"{REAL} {kind}").evaluate_all(
            "all => all.map(one => [one.x.baseVal.value, one.width.baseVal.value])"
        )
        ordered = sorted(spans)
        assert len(ordered) >= 15
        for (x, width), (following, _) in itertools.pairwise(ordered):
            assert x + width <= following + 0.01


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("depth=100&network_activation=tanh", "100 layers"),
        ("depth=6&residual=scaled&network_activation=relu&init=he", "6 layers"),
        ("depth=4&width=8&init=random&weight_std=0", "4 layers"),
        ("depth=3&normalization=layernorm", "3 layers"),
        ("depth=1", "1 layers"),
    ],
)
def test_every_real_network_is_drawn(page, url, query, words):
    visit(page, url, f"?{query}")
    wait_for_network(page, words)
    drawn = part(page, "real-layers").inner_html()
    assert "NaN" not in drawn
    assert 'undefined"' not in drawn
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    factors = part(page, "real-layers").locator(".gain").count()
    assert factors == part(page, "real-layers").locator(".link").count() > 0


@pytest.mark.browser
def test_from_the_explorer_to_the_product_and_back(page, url):
    spec = FIRST.replace(depth=16)
    page.goto(url)
    wait_for_gradients(page, FIRST)
    page.get_by_role("slider", name="depth").focus()
    page.keyboard.press("ArrowRight")
    wait_for_gradients(page, spec)
    page.get_by_role("link", name="See its product of factors").click()
    wait_for(page)
    assert_shows(page, START)
    words = f"16 layers of {spec.width} units, {spec.activation}, {spec.init}:"
    wait_for_network(page, words)
    box(page, "w1").fill("2")
    wait_for(page, weights="2,-2,1.5")
    page.reload()
    wait_for(page, weights="2,-2,1.5")
    wait_for_network(page, words)
    page.get_by_role("link", name="Open it in the explorer").click()
    wait_for_gradients(page, spec)
    assert page.locator("#control-depth").input_value() == "16"


@pytest.mark.browser
def test_browsers_back_button_returns_to_the_explorer(page, url):
    page.goto(url)
    wait_for_gradients(page, FIRST)
    page.get_by_role("link", name="See its product of factors").click()
    wait_for(page)
    page.go_back()
    wait_for_gradients(page, FIRST)
    assert page.locator("#chain-root").count() == 0


@pytest.mark.browser
def test_a_scenarios_other_settings_survive_the_way_there_and_back(page, url):
    preset = next(entry for entry in PRESETS.values() if entry.spec.residual != "none")
    spec = preset.spec.replace(depth=20)
    page.goto(f"{url}/chain-rule?{spec.to_query().replace('activation=', 'network_activation=')}")
    wait_for(page)
    wait_for_network(page, f"20 layers of {spec.width} units, {spec.activation}, {spec.init}:")
    page.get_by_role("link", name="Open it in the explorer").click()
    wait_for_gradients(page, spec)


# --- every reader -------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "layers"), [("light", 3), ("dark", 30)])
def test_page_fits_a_phone(page, url, scheme, layers):
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme=scheme)
    visit(page, url, f"?weights={equal('1', layers)}")
    wait_for_network(page, "15 layers")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.dataset.mantineColorScheme") == scheme
    click(page, node("w1"))
    editor = page.locator(".cr-edit").bounding_box()
    assert editor["x"] >= 0
    assert editor["x"] + editor["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_dark_mode_reaches_the_graph_and_the_charts(page, url):
    looks = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        visit(page, url)
        looks[scheme] = page.evaluate(
            """() => [
                getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector(".chain-graph .value")).fill,
                getComputedStyle(document.querySelector(".bar.shrinks rect.value")).fill,
                getComputedStyle(document.querySelector(".chain-graph .shrinks .line")).stroke,
                getComputedStyle(document.querySelector("math")).color,
            ]"""
        )
    assert all(a != b for a, b in zip(*looks.values(), strict=True))


@pytest.fixture(scope="module")
def axe():
    return Axe()


def find_violations(axe, page) -> list[str]:
    return [
        f"{violation['id']} ({violation['impact']}): {place['html'][:120]}"
        for violation in axe.run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for place in violation["nodes"]
    ]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_chain_page(page, url, axe, scheme):
    page.emulate_media(color_scheme=scheme)
    visit(page, url, "?weights=0.5,-2,1.5&biases=0,0,1&walk=5")
    wait_for_network(page, "15 layers")
    do(page, "reveal").click()
    do(page, "next").click()
    page.locator("summary").first.click()
    click(page, node("w2"))
    assert find_violations(axe, page) == []


@pytest.mark.browser
def test_axe_finds_nothing_serious_in_thirty_layers(page, url, axe):
    visit(page, url, f"?weights={equal('1', 30)}")
    do(page, "fold").click()
    assert find_violations(axe, page) == []


# --- what is seen -------------------------------------------------------------------------------


@pytest.mark.browser
def test_an_address_with_a_network_alone_leads_to_that_network(page, url):
    visit(page, url, "?depth=6&width=16&network_activation=tanh")
    wait_for_network(page, "6 layers of 16 units")
    page.wait_for_function(
        """() => {
            const { top } =
                document.querySelector('[data-part="real-card"]').getBoundingClientRect();
            return scrollY > 500 && top >= 50 && top < innerHeight / 2;
        }"""
    )
    for query in ("?depth=6&width=16&weights=1,2", "?depth=6&width=16&walk=1"):
        visit(page, url, query)
        wait_for_network(page, "6 layers of 16 units")
        page.wait_for_timeout(300)
        assert page.evaluate("scrollY") == 0
    page.get_by_role("button", name="The same in a real, wide network").click()
    assert page.evaluate("scrollY") > 500


@pytest.mark.browser
def test_the_tied_equation_and_every_line_through_time_are_seen(shown):
    recurrence = measure_recurrence(1.3, 20, x=0.1, activation="identity")
    shown.wait_for_function("document.querySelector('[data-part=\"rnn-equation\"] math')")
    written = part(shown, "rnn-equation").locator("math").text_content()
    assert written == read_math(recurrence.to_mathml())
    paths = (
        part(shown, "rnn-chart")
        .locator("path")
        .evaluate_all(
            "all => all.map(one => [one.getAttribute('d'), one.getAttribute('stroke-dasharray')])"
        )
    )
    shapes = [shape for shape, _ in paths]
    assert shapes[0] == shapes[1]  # w^t is the whole product here: it must lie above, and be dashed
    assert paths[0][1] is None
    assert paths[1][1]
    swatches = (
        part(shown, "rnn-chart")
        .locator(".cr-swatch line")
        .evaluate_all("all => all.map(one => one.getAttribute('stroke-dasharray'))")
    )
    assert swatches == [dash for _, dash in paths]


@pytest.mark.browser
@pytest.mark.parametrize("place", ["low", "high"])
def test_the_editor_opens_where_it_is_seen(page, url, place):
    page.set_viewport_size({"width": 1280, "height": 700})
    visit(page, url)
    target = page.locator(node("w2"))
    edge_of_window = 650 if place == "low" else 140
    target.evaluate(
        "(one, at) => scrollBy({ top: one.getBoundingClientRect().top - at, behavior: 'instant' })",
        edge_of_window,
    )
    target.evaluate("one => one.focus({ preventScroll: true })")
    page.keyboard.press("Enter")
    form = page.locator(".cr-edit").evaluate(
        "one => { const at = one.getBoundingClientRect(); return [at.top, at.bottom]; }"
    )
    assert form[0] >= 56
    assert form[1] <= 700


@pytest.mark.browser
def test_numbers_whose_power_is_a_power_stay_inside_the_charts(page, url):
    visit(page, url, "?weights=1e300,-1e300,1e300&depth_w=1e300")
    page.wait_for_function(
        "document.querySelector('[data-part=\"depth-end\"]').textContent.includes('10^(')"
    )
    outside = page.evaluate(
        """() => [...document.querySelectorAll(
            '[data-part="factors"] text, [data-part="depth-chart"] svg.cr-chart text'
        )].filter(text => {
            const [at, chart] = [text, text.closest("svg")].map(one => one.getBoundingClientRect());
            return at.left < chart.left || at.right > chart.right;
        }).map(text => text.textContent)"""
    )
    assert outside == []
    assert "e+" not in part(page, "depth-chart").inner_text()
    overlaps = page.evaluate(
        """() => {
            const texts = [...document.querySelectorAll(".chain-graph text")]
                .map(one => [one.textContent, one.getBoundingClientRect()]);
            return texts.flatMap(([a, one], i) => texts.slice(i + 1).filter(([, other]) =>
                Math.min(one.right, other.right) - Math.max(one.left, other.left) > 3 &&
                Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 6
            ).map(([b]) => [a, b]));
        }"""
    )
    assert overlaps == []


@pytest.mark.browser
def test_on_a_phone_the_graph_starts_where_the_walk_does(page, url):
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, url, "?walk=1")
    at = page.locator(node("p")).bounding_box()
    assert 0 <= at["x"] <= 390 - at["width"]


@pytest.mark.browser
def test_the_walk_ends_with_a_way_to_the_real_network(page, url):
    visit(page, url, "?walk=5")
    part(page, "depth-task").get_by_role("button", name="On to a real network").click()
    page.wait_for_function(
        """() => {
            const { top } =
                document.querySelector('[data-part="real-card"]').getBoundingClientRect();
            return top >= 0 && top < innerHeight / 2;
        }"""
    )


@pytest.mark.browser
def test_a_depth_that_is_no_number_leaves_the_pages_own_network(page, url):
    visit(page, url, "?depth=NaN")
    wait_for_network(page, "15 layers of 64 units, sigmoid")
