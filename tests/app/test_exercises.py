"""For a class: what is covered until a guess is made, exercises, embedded charts, the report."""

import pytest
from starlette.testclient import TestClient

from browsing import empty, watch
from chainrule.app import create_app
from chainrule.app.state.exercises import EXERCISES, SPECS
from chainrule.app.state.view import COVERS, MAX_QUESTION, PANELS, read_view
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.display.cards import describe_subject
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from explorer import open_explorer, wait_until_settled

COVERED = "depth=6&width=8&guess=cards,charts,diagnosis"
PARTS = ("[data-part=cards]", ".fv-charts", "[data-panel=diagnosis]", "[data-part=remedies]")


@pytest.fixture
def page(kept_page, url):
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 1366, "height": 768})
        yield page


# --- addresses ----------------------------------------------------------------------------------


def test_an_address_says_what_is_covered_and_what_is_asked():
    view, notices = read_view("depth=3&guess=cards,charts&ask=Which+%3Cb%3E+one%3F")
    assert notices == ()
    assert (view.guess, view.ask) == (("cards", "charts"), "Which <b> one?")
    assert read_view(view.address)[0] == view
    view, notices = read_view("depth=3&guess=everything")
    assert view.guess == ()
    assert "everything" in notices[0]


@pytest.mark.parametrize(
    ("given", "asked"),
    [("a%0A%0Ab", "a b"), ("a%E2%80%AEb", "ab"), ("x" * 500, "x" * MAX_QUESTION)],
)
def test_a_question_is_one_harmless_line(given, asked):
    assert read_view(f"depth=3&ask={given}")[0].ask == asked


def test_exercises_cover_all_and_have_different_answers():
    verdicts = set()
    for title, address in EXERCISES:
        view, notices = read_view(address.removeprefix("/?"))
        spec, question = SPECS[title]
        assert notices == ()
        assert (view.spec, view.ask, view.guess) == (spec, question, tuple(COVERS))
        verdicts.add(str(diagnose(simulate(spec, 16)).verdict))
    assert verdicts == {"vanishing", "healthy", "exploding"}


def test_the_report_holds_the_pinned_network():
    spec, pin = NetworkSpec(depth=5, width=8), NetworkSpec(depth=4, width=8, activation="relu")
    with TestClient(create_app(), base_url="http://localhost") as client:
        query = f"{spec.to_query()}&pin={pin.to_query().replace('=', '%3D').replace('&', '%26')}"
        text = client.get(f"/files/report.html?{query}").text
        alone = client.get(f"/files/report.html?{spec.to_query()}").text
    assert f"Before: {describe_subject(simulate(pin, 2))}" in text
    assert str(diagnose(simulate(pin, 16)).verdict).capitalize() in text
    assert text.count("stroke-dasharray") > alone.count("stroke-dasharray")
    assert "Before and after" not in alone


# --- guess first --------------------------------------------------------------------------------


@pytest.mark.browser
def test_what_is_covered_appears_after_the_guess(page, url):
    open_explorer(page, url, COVERED)
    for part in (*PARTS, "[data-part=presets]", "[data-part=look-at]"):
        assert not page.locator(part).is_visible(), part
    page.set_viewport_size({"width": 390, "height": 844})
    for part in (*PARTS, "[data-part=glance]", "[data-part=apply-first]"):
        assert not page.locator(part).is_visible(), part
    page.set_viewport_size({"width": 1366, "height": 768})
    page.get_by_role("button", name="It explodes").click()
    assert "Not so: measured, it is “vanishing”" in page.locator("[data-part=guessed]").inner_text()
    for part in (*PARTS, "[data-part=presets]", "[data-part=look-at]"):
        assert page.locator(part).is_visible(), part
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator("[data-part=glance]").is_visible()
    page.set_viewport_size({"width": 1366, "height": 768})
    # Another network is another question; the one before is answered.
    page.locator(".ex-configure").get_by_label("Activation", exact=True).select_option("relu")
    wait_until_settled(page)
    assert not page.locator(PARTS[0]).is_visible()
    page.go_back()
    wait_until_settled(page)
    assert page.locator(PARTS[0]).is_visible()


@pytest.mark.browser
def test_the_look_of_a_button_tells_nothing_before_the_guess(page, url):
    open_explorer(
        page, url, "depth=6&width=32&activation=relu&init=he&guess=cards,charts,diagnosis"
    )
    loud = """() => {
      const [train, pin] = ["go-train", "pin"].map((name) =>
        getComputedStyle(document.querySelector(`[data-part=${name}]`)).backgroundColor);
      return train !== pin;
    }"""
    assert "primary" in page.locator("[data-part=go-train]").get_attribute("class")
    assert not page.evaluate(loud)
    page.get_by_role("button", name="It holds").click()
    page.wait_for_function(loud)  # the network is healthy: train it


@pytest.mark.browser
def test_a_question_of_ones_own_and_parts_that_are_not_covered(page, url):
    open_explorer(page, url, "depth=6&width=8&guess=cards&ask=%3Cimg%20src%3Dx%3E+which%3F")
    question = page.locator("[data-part=question]")
    assert question.inner_text() == "<img src=x> which?"
    assert not page.locator(PARTS[0]).is_visible()
    assert page.locator(PARTS[1]).is_visible()
    # It is about the network that it came with.
    page.locator(".ex-configure").get_by_label("Activation", exact=True).select_option("relu")
    wait_until_settled(page)
    assert "which?" not in question.inner_text()
    open_explorer(page, url, "depth=6&width=8")
    assert not page.locator("[data-part=guess]").is_visible()
    assert page.locator(PARTS[0]).is_visible()


@pytest.mark.browser
def test_a_teacher_prepares_an_exercise(page, url):
    open_explorer(page, url, "depth=6&width=8")
    page.locator("[data-part=teacher] summary").click()
    page.locator("[data-teacher=guess]").get_by_label("the charts").check()
    page.locator("[data-part=ask]").fill("Vanish or hold?")
    page.keyboard.press("Tab")
    prepared = page.locator("[data-part=prepared]").input_value()
    view, _ = read_view(prepared.partition("?")[2])
    assert (view.guess, view.ask, view.spec.depth) == (("charts",), "Vanish or hold?", 6)
    hrefs = page.locator("[data-part=teacher] li a").evaluate_all(
        "all => all.map(one => one.getAttribute('href'))"
    )
    assert hrefs == [address for _, address in EXERCISES]


# --- embedded -----------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("panel", PANELS)
def test_an_embedded_chart_names_its_network_and_fits_its_frame(page, url, panel):
    for width, height in ((640, 640), (420, 420), (700, 320)):
        page.set_viewport_size({"width": width, "height": height})
        open_explorer(page, url, f"depth=6&width=8&activation=tanh&embed={panel}")
        name = describe_subject(simulate(NetworkSpec(depth=6, width=8, activation="tanh"), 2))
        assert page.locator("[data-part=caption]").inner_text() == name
        page.wait_for_function("document.documentElement.scrollHeight <= innerHeight")
        page.wait_for_function(
            f"[...document.querySelectorAll('#{panel}-chart .xtitle')].at(-1)"
            ".getBoundingClientRect().bottom <= innerHeight"
        )
    way = page.get_by_role("link", name="Open in full").get_attribute("href")
    assert NetworkSpec.from_query(way.removeprefix("/?")).activation == "tanh"
