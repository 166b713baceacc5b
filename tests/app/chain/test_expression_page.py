"""The chain-rule page: any expression, as a graph, as a sum over paths, and factored."""

import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from axe import list_serious
from browsing import PATIENCE, empty, watch
from chain_page import (
    ask,
    copy,
    count_entries,
    do,
    leave,
    part,
    read_math,
    read_query,
    wait_for,
)
from chainrule.chain import EXPRESSIONS, ScalarGraph, describe_expression, draw_expression

RESIDUAL = EXPRESSIONS["residual"]
MOST_PATHS = 12


def describe(graph: ScalarGraph, wrt: str) -> dict:
    return json.loads(json.dumps(describe_expression(graph, wrt, limit=MOST_PATHS)))


def show(page, url, query: str):
    page.goto(f"{url}/chain-rule{query}")
    wait_for_expression(page)
    return page


def wait_for_expression(page, **query) -> None:
    page.wait_for_function(
        """wanted => {
            const shown = document.getElementById("expression-root")?.dataset.shown;
            const query = shown && JSON.parse(shown);
            return query && Object.entries(wanted).every(([k, v]) => query[k] === v);
        }""",
        arg=query,
    )


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_route_answers_the_librarys_numbers(url, name):
    known = EXPRESSIONS[name]
    answer = ask(url, "expression", preset=name)
    expected = describe(known.build(), known.wrt)
    assert {key: answer[key] for key in expected} == expected
    assert answer["svg"] == draw_expression(known.build(), known.wrt, identifier="expression")
    written = ",".join(f"{key}={value}" for key, value in known.values.items())
    again = ask(url, "expression", expr=known.text, set=written, wrt=known.wrt)
    assert again == answer


def test_route_takes_ones_for_what_is_not_set_and_leaves_out_what_is_gone(url):
    answer = ask(url, "expression", expr="x*y", set="y=3,gone=7")
    assert answer["expression"]["values"] == {"x": 1.0, "y": 3.0}
    assert answer["wrt"] == "x"
    assert ask(url, "expression", expr="log(x - 1)", set="x=3")["gradient"]["text"] == "0.5"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"expr": "x + "}, "character 4"),
        ({"expr": ""}, "character 1"),
        ({}, "character 1"),
        ({"expr": "__import__('os')"}, "character"),
        ({"expr": "x*y", "set": "x=nan"}, "finite number"),
        ({"expr": "*".join(f"(x + {n})" for n in range(2, 40))}, "at most 40 nodes"),
        ({"preset": "nothing"}, "unknown"),
    ],
)
def test_route_refuses_with_the_reason(url, query, words):
    answer = httpx.get(f"{url}/api/expression", params=query, timeout=60)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


@pytest.mark.browser
def test_the_tab_shows_an_expression_and_comes_back(page, url):
    page.goto(f"{url}/chain-rule?weights=0.5,3")
    wait_for(page, weights="0.5,3")
    tab = page.get_by_role("navigation", name="what to differentiate").get_by_role("link")
    tab.nth(1).click()
    wait_for_expression(page, expr=RESIDUAL.text)
    assert page.locator("#chain-root").is_hidden()
    assert "sum of products" in page.locator("h1").inner_text()
    page.go_back()
    page.wait_for_function("!document.getElementById('chain-root').hidden")
    assert read_query(page)["weights"] == ["0.5,3"]
    assert page.locator("#expression-root").is_hidden()
    tab.nth(1).click()
    tab.nth(0).click()
    assert read_query(page)["weights"] == ["0.5,3"]


@pytest.mark.browser
def test_an_expression_is_shown_with_the_librarys_numbers(page, url):
    text = "u = x*x; u + sigmoid(w*u)"
    show(page, url, f"?expr={quote(text)}&set=x=2,w=-0.5&wrt=x")
    graph = ScalarGraph.parse(text, {"x": 2.0, "w": -0.5})
    document = describe(graph, "x")
    for name, key in (("expr-lines", "lines"), ("expr-backward", "backward")):
        shown = part(page, name).locator("math")
        assert shown.evaluate_all("all => all.map(one => one.textContent)") == [
            read_math(line["mathml"]) for line in document[key]
        ]
    paths = part(page, "expr-paths").locator("[data-path]")
    assert paths.locator(".cr-way").all_inner_texts() == [
        path["text"] for path in document["paths"]["listed"]
    ]
    assert paths.locator(".cr-percent").all_inner_texts() == [
        f"{round(100 * path['share'])} %" for path in document["paths"]["listed"]
    ]
    counts = part(page, "expr-costs").locator("b").all_inner_texts()
    assert counts == [document["multiplications"][way]["text"] for way in ("by_path", "factored")]
    assert document["gradient"]["text"] in part(page, "expr-headline").inner_text()
    values = part(page, "expr-values").locator('input[type="number"]')
    assert values.evaluate_all("all => all.map(one => one.value)") == ["2", "-0.5"]


@pytest.mark.browser
def test_a_path_lights_its_edges_and_no_others(page, url):
    show(page, url, "?expr=")
    document = describe(RESIDUAL.build(), RESIDUAL.wrt)
    for number, path in enumerate(document["paths"]["listed"]):
        row = part(page, "expr-paths").locator(f'[data-path="{number}"]')
        for way in (row.hover, row.focus):
            way()
            lit = part(page, "expr-graph").locator(".edge.lit")
            assert lit.evaluate_all("all => all.map(one => one.dataset.edge).sort()") == sorted(
                path["factors"]
            )
    row.blur()
    leave(page)
    assert lit.count() == 0


@pytest.mark.browser
def test_examples_values_and_variables_change_what_is_shown(page, url):
    show(page, url, "?expr=")
    page.get_by_role("button", name="Square").click()
    wait_for_expression(page, expr="x*x")
    assert "2x" in part(page, "expr-sentence").inner_text()
    part(page, "expr-values").locator('input[type="number"]').fill("5")
    wait_for_expression(page, set="x=5")
    assert "= 10" in part(page, "expr-headline").inner_text()
    assert part(page, "expr-values").locator('input[type="range"]').input_value() == "4"
    part(page, "expr").fill("x*y")
    wait_for_expression(page, expr="x*y")
    part(page, "expr-wrt").select_option("y")
    wait_for_expression(page, wrt="y")
    assert "dp/dy = 5" in part(page, "expr-headline").inner_text()
    page.reload()
    wait_for_expression(page, expr="x*y", wrt="y")
    assert "dp/dy = 5" in part(page, "expr-headline").inner_text()


@pytest.fixture
def refused(kept_page, url):
    """A page on which the server may refuse an expression."""
    expected = {"expected": lambda problem: "status of 422" in problem}
    with watch(kept_page, url, leave=empty, **expected) as page:
        page.set_default_timeout(PATIENCE)
        yield page


@pytest.mark.browser
def test_an_error_points_at_its_character(refused, url):
    page = refused
    show(page, url, "?expr=x*x")
    part(page, "expr").fill("x + foo(x)")
    page.wait_for_function("document.getElementById('expr-error').textContent")
    error = part(page, "expr-error")
    text, caret = error.locator(".cr-caret").text_content().split("\n")
    reason = error.locator(".cr-reason").text_content()
    assert text == "x + foo(x)"
    assert caret.index("▲") == 4
    assert reason.startswith("Character 5: ")
    assert part(page, "expr").get_attribute("aria-invalid") == "true"
    part(page, "expr").fill("x + tanh(x)")
    wait_for_expression(page, expr="x + tanh(x)")
    assert part(page, "expr-error").text_content() == ""


@pytest.mark.browser
def test_graph_and_latex_are_taken_along(page, url):
    show(page, url, "?expr=")
    graph = RESIDUAL.build()
    with page.expect_download() as download:
        do(page, "expr-svg").click()
    assert download.value.suggested_filename == "expression.svg"
    assert Path(download.value.path()).read_text(encoding="utf-8") == draw_expression(
        graph, RESIDUAL.wrt, identifier="expression"
    )
    copied = copy(page, "expr-copy")
    document = describe(graph, RESIDUAL.wrt)
    assert copied.startswith("\\begin{aligned}")
    for line in document["lines"][1:]:
        assert line["latex"].strip() in copied


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1366, "dark")])
def test_the_expression_fits_and_is_accessible(page, url, width, scheme):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    show(page, url, "?expr=")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert list_serious(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_on_edges_stand_on_a_ground_of_their_own(page, url, scheme):
    """What lies behind a number has the colour of the card, so that the line does not cross it."""
    page.emulate_media(color_scheme=scheme)
    show(page, url, "?expr=x*y")
    fill, card = page.evaluate(
        "[getComputedStyle(document.querySelector('#expression-root .plate')).fill,"
        " getComputedStyle(document.querySelector('#expression-root .card')).backgroundColor]"
    )
    assert fill == card


@pytest.mark.browser
def test_each_finished_edit_of_an_expression_is_undone_by_back(refused, url):
    page = refused  # between two keys there may be a rest, in which the page asks
    show(page, url, "?expr=x*y&set=x=2,y=3&wrt=x")
    count = count_entries(page)
    field = part(page, "expr")
    field.click()
    field.press("ControlOrMeta+a")
    page.keyboard.type("x + y", delay=1)
    field.press("Tab")  # done before the page has asked
    wait_for_expression(page, expr="x + y")
    page.locator("[data-preset=square]").click()
    square = EXPRESSIONS["square"].text
    wait_for_expression(page, expr=square)
    assert count() == 2
    page.go_back()
    wait_for_expression(page, expr="x + y", set="x=2,y=3")
    assert field.input_value() == "x + y"
    page.go_back()
    wait_for_expression(page, expr="x*y")
    page.go_forward()
    wait_for_expression(page, expr="x + y")


@pytest.mark.browser
def test_the_first_key_does_not_wait_and_says_nothing_of_what_is_not_finished(page, url):
    page.goto(f"{url}/chain-rule?expr=x*w&set=x=3,w=2&wrt=w")
    page.wait_for_selector("#expression-root[data-shown]", state="attached")
    field = part(page, "expr")
    field.focus()
    page.evaluate("window.setTimeout = () => 1")  # no rest between keys ever comes
    field.press("End")
    field.press("1")  # x*w1
    page.wait_for_function(
        "JSON.parse(document.getElementById('expression-root').dataset.drawn).expr === 'x*w1'"
    )
    assert field.get_attribute("aria-invalid") == "false"
