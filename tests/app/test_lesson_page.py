import socket
import threading

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe

from browsing import PATIENCE, empty, watch
from chainrule.app.lesson.subjects import ADDRESSES, SUBJECTS
from chainrule.display.script import format_listing_output, write_listing
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from lesson_stand import create_server

pytestmark = pytest.mark.browser

START = NetworkSpec(depth=15, init="xavier")


@pytest.fixture(scope="module")
def stand():
    """The address of a page with the lesson on it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_server(), log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=120)


@pytest.fixture
def page(kept_page, stand):
    with watch(kept_page, stand, leave=empty) as page:
        page.set_viewport_size({"width": 1280, "height": 720})
        page.emulate_media(reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        page.goto(stand)
        page.wait_for_selector("body[data-ready]")
        yield page


def part(page, name):
    return page.locator(f'[data-part="{name}"]')


def wait_for_listing(page, spec):
    part(page, "listing").scroll_into_view_if_needed()
    page.wait_for_function(
        "text => document.querySelector('[data-part=code]').textContent === text",
        arg=write_listing(spec, 16),
    )


# --- the telephone game ------------------------------------------------------------------------


def test_half_over_five_layers_leaves_three_percent(page):
    assert part(page, "result").inner_text().startswith("3.1 % of the message is left.")
    assert part(page, "row").locator(".ls-person").count() == 6
    assert part(page, "row").get_attribute("data-fate") == "fades"


def test_the_game_is_played_by_keyboard(page):
    layers = page.get_by_role("slider", name="Number of layers")
    layers.focus()
    page.keyboard.press("ArrowRight")
    assert part(page, "result").inner_text().startswith("1.6 % of the message is left.")
    multiplier = page.get_by_role("slider", name="Each layer multiplies by")
    multiplier.focus()
    page.keyboard.press("End")
    assert part(page, "result").inner_text().startswith("The message has grown to 64 times")
    assert part(page, "row").get_attribute("data-fate") == "swells"
    multiplier.fill("1")
    assert part(page, "result").inner_text().startswith("100 % of the message is left.")
    assert part(page, "row").get_attribute("data-fate") == "keeps"
    layers.focus()
    page.keyboard.press("Home")
    assert part(page, "layers-value").inner_text() == "1"
    assert "1 time:" in part(page, "result").inner_text()


@pytest.mark.parametrize(
    ("multiplier", "layers", "words"),
    [
        ("0.5", "10", "0.098 % of the message is left."),
        ("0.1", "50", "1.0·10⁻⁴⁸ % of the message is left."),
        ("2", "50", "The message has grown to 1.1·10¹⁵ times what it was."),
        ("1.5", "20", "The message has grown to 3,330 times what it was."),
    ],
)
def test_results_are_written_as_people_read_them(page, multiplier, layers, words):
    part(page, "multiplier").fill(multiplier)
    part(page, "layers").fill(layers)
    assert part(page, "result").inner_text().startswith(words)


def test_examples_set_the_game(page):
    page.get_by_role("button", name="like sigmoid").click()
    assert part(page, "layers").input_value() == str(SUBJECTS["vanishing"].depth)
    assert "·10⁻" in part(page, "result").inner_text()
    page.get_by_role("button", name="like ReLU + σ = 1").click()
    assert float(part(page, "multiplier").input_value()) == pytest.approx(6.2, abs=0.1)
    assert "it explodes" in part(page, "result").inner_text()


# --- links -------------------------------------------------------------------------------------


def test_show_me_sets_the_explorer_and_there_is_a_way_back(page, stand):
    link = page.locator("#lesson-claim-hidden a[data-show]").first
    link.click()
    assert "?" + page.evaluate("explore.current") == ADDRESSES["hidden"].removeprefix("/")
    assert page.url == f"{stand}/"
    assert page.evaluate("scrollY") == 0
    back = page.get_by_role("button", name="Back to the lesson")
    back.click()
    assert link.evaluate("link => link === document.activeElement")
    assert page.evaluate("scrollY") > 1000
    assert not back.is_visible()


def test_the_contents_lead_to_their_sections(page, stand):
    for link in page.locator(".ls-contents a").all():
        target = link.get_attribute("href")
        link.click()
        assert page.evaluate("document.activeElement.id") == target[1:]
        assert page.locator(target).evaluate(
            "heading => heading.getBoundingClientRect().top >= 0 &&"
            " heading.getBoundingClientRect().top < innerHeight"
        )
        assert page.url == f"{stand}/{target}"


def test_an_address_with_an_anchor_leads_there(page, stand):
    page.goto("about:blank")
    page.goto(f"{stand}/#lesson-glossary")
    page.wait_for_function("document.activeElement.id === 'lesson-glossary'")
    near = (
        "() => Math.abs(document.getElementById('lesson-glossary').getBoundingClientRect().top"
        " - 76) < 2"
    )
    page.wait_for_function(near)
    page.evaluate("document.getElementById('charts').style.height = '2500px'")
    page.wait_for_function(near)


def test_the_steps_lead_to_the_parts_of_the_page_that_they_name(page):
    page.locator(".ls-steps").get_by_role("link", name="What to change").click()
    assert page.evaluate("document.activeElement.id") == "what-to-change"


def test_a_new_window_is_the_visitors_choice(page):
    before = page.evaluate("explore.current")
    page.locator("#lesson-claim-hidden a[data-show]").first.click(modifiers=["Control"])
    assert page.evaluate("explore.current") == before


def test_the_chain_rule_page_opens_for_the_configuration_on_screen(page):
    def query():
        return dict(
            pair.split("=")
            for pair in part(page, "chain").get_attribute("href").split("?")[1].split("&")
        )

    assert query() == {"depth": "15", "init": "xavier", "network_activation": "sigmoid"}
    page.evaluate("explore.apply('activation=relu&seeds=4')")
    assert query() == {"depth": "10", "network_activation": "relu"}


# --- the listing -------------------------------------------------------------------------------


def test_the_listing_is_that_of_the_configuration_on_screen(page):
    wait_for_listing(page, START)
    assert part(page, "output").inner_text() == format_listing_output(simulate(START, 16))
    other = NetworkSpec(depth=4, width=16, activation="relu", init="he")
    page.evaluate("query => explore.apply(query)", other.to_query())
    wait_for_listing(page, other)
    assert part(page, "output").inner_text() == format_listing_output(simulate(other, 16))


def test_the_listing_is_asked_for_only_in_sight(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for depth in range(3, 9):
        page.evaluate("query => explore.apply(query)", f"depth={depth}")
    page.wait_for_timeout(400)
    assert asked == []
    wait_for_listing(page, NetworkSpec(depth=8))
    assert len(asked) == 1


def test_the_listing_is_copied(page):
    wait_for_listing(page, START)
    part(page, "copy").click()
    page.wait_for_function("document.querySelector('[data-part=copied]').textContent === 'Copied.'")
    assert page.evaluate("navigator.clipboard.readText()") == write_listing(START, 16)


def test_the_listing_is_downloaded(page):
    page.evaluate("explore.apply('depth=4&width=16&seeds=3')")
    with page.expect_download() as download:
        part(page, "download").click()
    assert download.value.suggested_filename == "listing.py"
    text = download.value.path().read_text(encoding="utf-8")
    assert text == write_listing(NetworkSpec(depth=4, width=16), 3)


def test_a_large_network_has_a_script_but_no_output(page):
    page.evaluate("explore.apply('depth=100&width=1024')")
    wait_for_listing(page, NetworkSpec(depth=100, width=1024))
    assert not part(page, "output").is_visible()
    assert "Run it" in part(page, "listing").inner_text()


# --- looks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_the_lesson_fits_and_is_accessible(kept_page, stand, scheme, width):
    with watch(kept_page, stand, leave=empty) as page:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.goto(stand)
        page.wait_for_selector("body[data-ready]")
        wait_for_listing(page, START)
        page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width == 1400:  # there, no table needs to scroll
            assert page.evaluate(
                "[...document.querySelectorAll('.ls-table')].every("
                "box => box.scrollWidth <= box.clientWidth)"
            )
        violations = [
            f"{violation['id']}: {place['html'][:120]}"
            for violation in Axe().run(page).response["violations"]
            if violation["impact"] in ("serious", "critical")
            for place in violation["nodes"]
        ]
        assert violations == []


def test_what_scrolls_sideways_shows_it_and_formulas_fit_the_smallest_phone(kept_page, stand):
    with watch(kept_page, stand, leave=empty) as page:
        page.set_viewport_size({"width": 320, "height": 800})
        page.goto(stand)
        page.wait_for_selector("body[data-ready]")
        formulas, tables = page.evaluate(
            """() => [".ls-formula", ".ls-table"].map((kind) => [...document.querySelectorAll(kind)]
              .map((box) => [box.scrollWidth - box.clientWidth,
                getComputedStyle(box).backgroundAttachment]))"""
        )
        assert formulas
        assert all(beyond <= 0 for beyond, _ in formulas)
        assert any(beyond > 0 for beyond, _ in tables)
        assert {layers for _, layers in tables} == {"local, local, scroll, scroll"}
