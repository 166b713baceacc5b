"""What theory says, behind the main chart of the explorer."""

import httpx
import pytest
from fastapi.testclient import TestClient

from browsing import PATIENCE, empty, watch
from chainrule import NetworkSpec, simulate
from chainrule.app.application import create_app
from chainrule.app.jobs.measuring import Measurer
from chainrule.app.routes.theory_route import DEEPEST
from chainrule.app.state.view import read_view
from chainrule.figures import MEASURES
from chainrule.theory import predict
from explorer import CHART, open_explorer, wait_until_settled

SPEC = NetworkSpec(depth=4, width=64, activation="tanh", init="xavier")
QUERY = "depth=4&width=64&activation=tanh&init=xavier&seeds=4"
NAME = "theory for infinite width"
PLACE = "document.querySelector('[data-part=theory]')"


@pytest.fixture
def page(kept_page, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        yield page


def ask(url, query):
    answer = httpx.get(f"{url}/api/theory?{query}", timeout=120)
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("measure", ["weight", "delta"])
def test_the_answer_is_the_chart_with_the_numbers_of_predict(url, measure):
    prediction, flow = predict(SPEC, 4), simulate(SPEC, 4)
    answer = ask(url, f"{QUERY}&measure={measure}")
    traces = {trace["name"]: trace for trace in answer["figure"]["data"]}
    expected = [median for _, median, _ in prediction.list_bands(measure)]
    assert traces[NAME]["y"] == pytest.approx(expected)
    measured = flow.delta_norms if measure == "delta" else flow.weight_gradient_norms
    assert traces["median"]["y"] == pytest.approx(list(measured))
    assert answer["words"].startswith(prediction.describe_agreement(flow, measure))
    assert prediction.sentence in answer["words"]


@pytest.mark.parametrize(
    ("query", "fact"),
    [
        (f"depth={DEEPEST + 1}&width=4", f"{DEEPEST + 1}"),
        (f"{QUERY}&measure=relative", MEASURES["delta"].label),
        ("depth=40&width=8&activation=relu&init=he&seeds=2", "too large for the width"),
    ],
)
def test_where_theory_says_nothing_a_sentence_says_why(url, query, fact):
    answer = ask(url, query)
    assert answer["figure"] is None
    assert fact in answer["words"]


def test_what_is_refused_is_not_measured_before(monkeypatch):
    def measure(*_):
        raise AssertionError("measured")

    monkeypatch.setattr(Measurer, "measure", measure)
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        answer = client.get("/api/theory?depth=1000&width=4&seeds=2").json()
    assert "1000" in answer["words"]


def wait_for_theory(page):
    wait_until_settled(page)
    page.wait_for_function(
        f"{PLACE} && !{PLACE}.hidden && {PLACE}.dataset.shown === "
        "document.querySelector('#explore-root').dataset.address",
        timeout=PATIENCE,
    )


def read_names(page):
    return page.evaluate(f"{CHART}.data.map(trace => trace.name)")


@pytest.mark.browser
def test_the_switch_shows_theory_and_the_address_keeps_it(page, url):
    asked = []
    page.on("request", lambda request: asked.append("/api/theory" in request.url))
    open_explorer(page, url, QUERY)
    assert not any(asked)
    assert NAME not in read_names(page)
    switch = page.get_by_role("group", name="what theory says")
    switch.get_by_text("with theory").click()
    wait_for_theory(page)
    assert NAME in read_names(page)
    words = page.locator("[data-part=theory]").inner_text()
    assert NAME in words
    assert "They agree in all 4 layers" in words
    assert read_view(page.evaluate("location.search"))[0].theory
    page.reload()
    wait_for_theory(page)
    assert NAME in read_names(page)
    page.locator("#control-activation").select_option("relu")
    page.wait_for_function(f"{PLACE}.dataset.shown?.includes('activation=relu')", timeout=PATIENCE)
    assert NAME in read_names(page)
    switch.get_by_text("measured").click()
    page.wait_for_function(f"{PLACE}.hidden", timeout=PATIENCE)
    wait_until_settled(page)
    assert NAME not in read_names(page)
    assert not read_view(page.evaluate("location.search"))[0].theory


@pytest.mark.browser
def test_where_there_is_none_the_chart_stays_and_a_sentence_says_why(page, url):
    open_explorer(page, url, f"{QUERY}&measure=relative&theory=1")
    wait_for_theory(page)
    assert MEASURES["delta"].label in page.locator("[data-part=theory]").inner_text()
    assert not page.locator(".fv-theory-name").is_visible()
    assert NAME not in read_names(page)
