"""The lesson's page in a real browser: the picture follows the text."""

import re

import pytest

from axe import list_serious
from browsing import empty, watch
from chainrule.app.lesson.scenes import DEPTHS, SCENES
from chainrule.app.state.subjects import ADDRESSES, SUBJECTS
from chainrule.display.script import format_listing_output, write_listing
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from explorer import encode, measure, open_explorer, wait_until_settled

pytestmark = pytest.mark.browser

PICTURE = "document.querySelector('[data-part=picture]')"
FIRST = ADDRESSES["vanishing"].replace("depth=15", "depth=2")
"""What the picture shows first."""


@pytest.fixture
def page(kept_page, url):
    """The lesson, showing its first picture."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 1366, "height": 768})
        page.emulate_media(reduced_motion="reduce")
        open_lesson(page, url)
        yield page


def open_lesson(page, url, address="") -> None:
    page.goto(f"{url}/learn{address}")
    page.wait_for_function(f"{PICTURE}.dataset.network && {PICTURE}.dataset.shown")


def part(page, name):
    return page.locator(f'[data-part="{name}"]').first


def read_picture(page) -> str:
    return page.evaluate(f"{PICTURE}.dataset.network")


def wait_for_picture(page, address: str) -> None:
    """Wait until the picture shows the network of an address, drawn."""
    query = address.removeprefix("/?")
    page.wait_for_function(f"query => {PICTURE}.dataset.network === query", arg=query)
    depth = NetworkSpec.from_query(query).depth
    page.wait_for_function(
        f"document.querySelector('#gradient-chart')?.data?.[1]?.x?.length === {depth}"
    )


def go_to(page, name: str) -> None:
    """Scroll to a section, as a reader does."""
    page.evaluate(
        "id => { const box = document.getElementById(id).closest('section');"
        " scrollTo(0, scrollY + box.getBoundingClientRect().top - innerHeight * 0.45); }",
        f"lesson-{name}",
    )
    page.wait_for_function(f"location.hash === '#lesson-{name}'")


def wait_for_listing(page, spec):
    part(page, "listing").scroll_into_view_if_needed()
    page.wait_for_function(
        "text => document.querySelector('[data-part=code]').textContent === text",
        arg=write_listing(spec, 16),
    )


# --- the picture --------------------------------------------------------------------------------


def test_the_picture_is_measured_by_the_server(page):
    wait_for_picture(page, FIRST)
    flow = simulate(NetworkSpec.from_query(FIRST.removeprefix("/?")), 16)
    shown = page.evaluate("Array.from(document.querySelector('#gradient-chart').data[1].y)")
    assert shown == pytest.approx(list(flow.weight_gradient_norms), rel=1e-12)
    assert page.locator(".le-picture .st-column").count() == 2
    assert part(page, "verdict").get_attribute("data-verdict") == "healthy"


def test_the_picture_follows_the_section_in_sight_and_so_does_the_address(page):
    for name in ("looks", "initializations", "fix", "problem"):
        go_to(page, name)
        scene = SCENES[name]
        wait_for_picture(page, scene.choices[scene.start].address)
        current = page.locator(".ls-contents [aria-current]")
        assert current.get_attribute("href") == f"#lesson-{name}"
    go_to(page, "glossary")  # it has no picture of its own
    assert page.locator(".ls-contents [aria-current]").get_attribute("href") == "#lesson-glossary"


def test_the_picture_stays_in_sight_of_the_text(page):
    for name in ("backprop", "claims", "reading"):
        go_to(page, name)
        box = page.locator(".le-picture").bounding_box()
        assert box["y"] >= 52
        assert box["y"] + box["height"] <= 768
        right_of_text = page.locator(".le-text").bounding_box()
        assert box["x"] >= right_of_text["x"] + right_of_text["width"]


def test_a_slider_sets_the_picture(page):
    slider = page.get_by_role("slider", name="Layers of sigmoid").first
    slider.focus()
    page.keyboard.press("End")
    wait_for_picture(page, SCENES["problem"].choices[-1].address)
    assert slider.get_attribute("aria-valuetext") == f"{DEPTHS[-1]} layers"
    assert page.locator(".ls-slider output").first.inner_text() == str(DEPTHS[-1])
    assert part(page, "verdict").get_attribute("data-verdict") == "vanishing"
    assert "vanishing" in part(page, "said").text_content()


def test_names_set_the_picture_by_keyboard(page):
    go_to(page, "looks")
    page.get_by_role("radio", name="Vanishing", exact=True).focus()
    for address in [choice.address for choice in SCENES["looks"].choices][1:]:
        page.keyboard.press("ArrowRight")
        wait_for_picture(page, address)


def test_the_backward_pass_is_played(page):
    go_to(page, "backprop")
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("button", name="Play the backward pass").click()
    # It has come to every layer, which stay marked, and is over.
    page.wait_for_function(
        "document.querySelectorAll('.st:not(.playing) .st-column.lit').length === 5"
    )
    assert "4 factors" in part(page, "strip-words").inner_text()


def test_show_me_sets_the_picture_where_one_reads(page, url):
    link = page.locator("#lesson-claim-hidden a[data-show]").first
    link.evaluate("link => link.scrollIntoView({ block: 'center' })")
    before = measure(link)["top"]  # what one reads stays there, also where something above grows
    link.click()
    wait_for_picture(page, ADDRESSES["hidden"])
    assert measure(link)["top"] == pytest.approx(before, abs=2)
    shown = f"show={encode(ADDRESSES['hidden'].removeprefix('/?'))}"
    assert shown in page.evaluate("location.search")
    # The address shows the same again, wherever the section's own picture would be another.
    page.reload()
    wait_for_picture(page, ADDRESSES["hidden"])
    way = part(page, "open").get_attribute("href")
    assert NetworkSpec.from_query(way.removeprefix("/?")) == SUBJECTS["hidden"]


def test_what_is_chosen_stays_when_its_section_comes_into_sight_only_then(page):
    """On a slow machine the page hears late of the section that somebody has scrolled to."""
    go_to(page, "looks")
    page.evaluate(
        """() => {
          const link = document.querySelector("#lesson-claim-hidden a[data-show]");
          link.scrollIntoView({ block: "center" });
          link.click();
        }"""
    )
    page.wait_for_function("location.hash === '#lesson-claims'")
    wait_for_picture(page, ADDRESSES["hidden"])
    assert "show=" in page.evaluate("location.search")


def test_a_new_window_is_the_visitors_choice(page):
    go_to(page, "claims")
    wait_for_picture(page, SCENES["claims"].choices[SCENES["claims"].start].address)
    before = read_picture(page)
    link = page.locator("#lesson-claim-sigmoid_depth a[data-show]").first
    with page.context.expect_page() as opened:
        link.click(modifiers=["Control"])
    opened.value.close()
    assert page.evaluate("location.search") == ""
    assert read_picture(page) == before


def test_a_server_that_is_gone_is_said(kept_page, url):
    expected = {"expected": lambda problem: "Failed to load" in problem or "ERR_" in problem}
    with watch(kept_page, url, leave=empty, **expected) as page:
        open_lesson(page, url)
        page.route("**/api/explore*", lambda route: route.abort())
        go_to(page, "looks")
        page.get_by_text("The server does not answer").wait_for()
        page.unroute("**/api/explore*")
        page.get_by_role("radio", name="Exploding", exact=True).check(force=True)
        wait_for_picture(page, ADDRESSES["exploding"])
        assert not part(page, "error").is_visible()


# --- the network on the other pages -------------------------------------------------------------


def test_the_explorers_network_and_pin_are_kept_on_the_way_to_the_lesson_and_back(page, url):
    query = "depth=33&activation=tanh&init=he&pin=depth%3D4%26width%3D8"
    open_explorer(page, url, query)
    for name, path in (("Learn", "/learn"), ("Your model", "/your-model")):
        page.get_by_role("navigation", name="pages").get_by_role("link", name=name).click()
        page.wait_for_url(f"**{path}*")
        if path == "/learn":
            page.wait_for_function(f"{PICTURE}.dataset.shown")
            way = part(page, "open").get_attribute("href")
            assert "pin=depth%3D4%26width%3D8" in way
            assert page.evaluate("location.search") == f"?{query}"
        page.get_by_role("navigation", name="pages").get_by_role("link", name="Explore").click()
        wait_until_settled(page)
        assert page.evaluate("location.search") == f"?{query}"


def test_the_chain_is_found_again(page, url):
    page.goto(f"{url}/chain-rule?weights=0.5,0.25&activation=tanh")
    page.wait_for_selector("#graph-title", state="attached")
    pages = page.get_by_role("navigation", name="pages")
    pages.get_by_role("link", name="Learn").click()
    page.wait_for_selector("#learn-root[data-ready]")
    pages.get_by_role("link", name="Chain rule").click()
    page.wait_for_selector("#graph-title", state="attached")
    assert "weights=0.5" in page.evaluate("location.search")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/#lesson", "/learn"),
        ("/#lesson-glossary", "/learn#lesson-glossary"),
        ("/?depth=7&width=9#lesson-claim-hidden", "/learn?depth=7&width=9#lesson-claim-hidden"),
    ],
)
def test_old_addresses_lead_to_the_lesson(page, url, old, new):
    page.goto("about:blank")
    page.goto(f"{url}{old}")
    page.wait_for_selector("#learn-root[data-ready]")
    path, _, hash_ = new.partition("#")
    assert page.url.startswith(f"{url}{path}")
    if hash_:
        page.wait_for_function(
            f"(() => {{ const top = document.getElementById('{hash_}').getBoundingClientRect().top;"
            " return top > 0 && top < innerHeight; })()"
        )


def test_the_explorer_links_to_the_lesson_instead_of_holding_it(page, url):
    open_explorer(page, url, "depth=6&width=8")
    links = page.locator("#lesson a")
    for href in links.evaluate_all("all => all.map(one => one.getAttribute('href'))"):
        path, _, place = href.partition("#")
        assert path == "/learn?depth=6&width=8"
        assert re.fullmatch(r"lesson-\w+", place)
    assert page.locator(".ls-section").count() == 0
    assert page.evaluate("document.documentElement.scrollHeight") < 6000


# --- the telephone game ------------------------------------------------------------------------


def test_half_over_five_layers_leaves_three_percent(page):
    assert part(page, "result").inner_text().startswith("3.1 % of the message is left.")
    assert part(page, "row").locator(".ls-person").count() == 6
    assert part(page, "row").get_attribute("data-fate") == "fades"


def test_the_game_is_played_by_keyboard(page):
    layers = page.get_by_role("slider", name="Number of steps")
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


def test_results_are_written_as_people_read_them(page):
    for multiplier, layers, words in (
        ("0.5", "10", "0.098 % of the message is left."),
        ("0.1", "50", "1.0·10⁻⁴⁸ % of the message is left."),
        ("2", "50", "The message has grown to 1.1·10¹⁵ times what it was."),
        ("1.5", "20", "The message has grown to 3,330 times what it was."),
    ):
        part(page, "multiplier").fill(multiplier)
        part(page, "layers").fill(layers)
        assert part(page, "result").inner_text().startswith(words)


def test_examples_set_the_game_and_the_picture(page):
    page.get_by_role("button", name="like sigmoid").click()
    assert part(page, "layers").input_value() == str(SUBJECTS["vanishing"].depth - 1)  # steps
    assert "·10⁻" in part(page, "result").inner_text()
    wait_for_picture(page, ADDRESSES["vanishing"])
    page.get_by_role("button", name="like ReLU + spread 1").click()
    assert float(part(page, "multiplier").input_value()) == pytest.approx(6.2, abs=0.1)
    assert "it explodes" in part(page, "result").inner_text()
    wait_for_picture(page, ADDRESSES["exploding"])


# --- links -------------------------------------------------------------------------------------


def test_the_contents_lead_to_their_sections(page):
    for link in page.locator(".ls-contents a").all():
        target = link.get_attribute("href")
        link.click()
        assert page.evaluate("document.activeElement.id") == target[1:]
        page.wait_for_function(
            "id => { const { top } = document.querySelector(id).getBoundingClientRect();"
            " return top >= 0 && top < innerHeight; }",
            arg=target,
        )


def test_an_address_with_an_anchor_leads_there_and_shows_its_picture(page, url):
    page.goto("about:blank")
    page.goto(f"{url}/learn#lesson-fix")
    page.wait_for_function("document.activeElement.id === 'lesson-fix'")
    wait_for_picture(page, SCENES["fix"].choices[0].address)


def test_the_chain_rule_page_opens_for_the_network_in_the_picture(page):
    wait_for_picture(page, FIRST)
    href = part(page, "chain").get_attribute("href")
    fields = dict(pair.split("=") for pair in href.split("?")[1].split("&"))
    assert fields == {"depth": "2", "init": "xavier", "network_activation": "sigmoid"}


# --- the listing -------------------------------------------------------------------------------


def test_the_listing_is_that_of_the_network_in_the_picture(page):
    page.get_by_role("radio", name="Only He", exact=True).check(force=True)
    spec = SUBJECTS["vanishing_he"]
    wait_for_picture(page, ADDRESSES["vanishing_he"])
    wait_for_listing(page, spec)
    assert part(page, "output").inner_text() == format_listing_output(simulate(spec, 16))
    part(page, "copy").click()
    page.wait_for_function("document.querySelector('[data-part=copied]').textContent === 'Copied.'")
    assert page.evaluate("navigator.clipboard.readText()") == write_listing(spec, 16)
    with page.expect_download() as download:
        part(page, "download").click()
    assert download.value.suggested_filename == "listing.py"
    assert download.value.path().read_text(encoding="utf-8") == write_listing(spec, 16)


def test_the_listing_is_asked_for_only_in_sight(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    go_to(page, "looks")
    for choice in SCENES["looks"].choices:
        page.get_by_role("radio", name=choice.label, exact=True).check(force=True)
        wait_for_picture(page, choice.address)
    assert not [address for address in asked if "/api/listing" in address]
    wait_for_listing(page, SUBJECTS["hidden"])
    assert len([address for address in asked if "/api/listing" in address]) == 1


# --- looks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1366, "light")])
def test_the_lesson_fits_and_is_accessible(kept_page, url, scheme, width):
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        open_lesson(page, url)
        page.evaluate("document.querySelectorAll('details').forEach(d => (d.open = true))")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width == 1366:  # there, no table needs to scroll
            assert page.evaluate(
                "[...document.querySelectorAll('.ls-table')].every("
                "box => box.scrollWidth <= box.clientWidth)"
            )
        else:  # test_accessibility.py looks at wide windows
            assert list_serious(page) == []


@pytest.mark.parametrize(("width", "height", "most"), [(390, 844, 0.3), (720, 450, 0.45)])
def test_above_the_text_the_picture_is_a_slim_band(kept_page, url, width, height, most):
    """On a phone, and on a laptop enlarged to 200 %: cause and effect are on one screen."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(reduced_motion="reduce")
        open_lesson(page, url)
        for name in ("problem", "fix"):
            page.locator(f"[data-scene={name}]").evaluate(
                "box => box.scrollIntoView({ block: 'center' })"
            )
            scene = SCENES[name]
            wait_for_picture(page, scene.choices[scene.start].address)
            band = page.locator(".le-picture").bounding_box()
            assert band["y"] == pytest.approx(52, abs=1)
            assert band["height"] <= most * height
            control = page.locator(f"[data-scene={name}] :is(.ls-slider, .ls-chips)").bounding_box()
            assert control["y"] >= band["y"] + band["height"]
            assert control["y"] + 40 <= height
            assert page.locator(".le-picture .st-picture").bounding_box()["height"] > 40


def test_what_scrolls_sideways_shows_it_and_formulas_fit_the_smallest_phone(kept_page, url):
    with watch(kept_page, url, leave=empty) as page:
        page.set_viewport_size({"width": 320, "height": 800})
        open_lesson(page, url)
        formulas, tables = page.evaluate(
            """() => [".ls-formula", ".ls-table"].map((kind) => [...document.querySelectorAll(kind)]
              .map((box) => [box.scrollWidth - box.clientWidth,
                getComputedStyle(box).backgroundAttachment]))"""
        )
        assert formulas
        assert all(beyond <= 0 for beyond, _ in formulas)
        assert any(beyond > 0 for beyond, _ in tables)
        assert {layers for _, layers in tables} == {"local, local, scroll, scroll"}
