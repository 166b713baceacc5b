"""The training panel in a real browser, on a page that holds nothing else."""

import json
from contextlib import ExitStack
from functools import partial
from urllib.parse import urlencode

import httpx
import pytest

from axe import find_violations
from browsing import empty, watch
from chainrule import NetworkSpec
from chainrule.app.jobs.queue import JobQueue, Lane
from chainrule.app.routes import training_route
from chainrule.training.training import DEFAULT_RATES, train
from serving import wait_until
from training_site import serve_site, train_endlessly

pytestmark = pytest.mark.browser

HEALTHY = "depth=6&activation=relu&init=he"
VANISHING = "depth=15&activation=sigmoid&init=xavier"
LOOKS = [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def queue():
    return JobQueue()


@pytest.fixture(scope="module")
def site(queue):
    with serve_site(queue) as address:
        yield address


@pytest.fixture
def endless(monkeypatch, queue):
    """Replace trainings by ones that go on until they are told to stop."""
    # A training of the test before may still have its seat, though its page was left.
    wait_until(lambda: not queue.count_taken(Lane.TRAINING))
    running = []
    monkeypatch.setattr(training_route, "describe_training", partial(train_endlessly, running))
    return running


def open_page(page, site, *, query=HEALTHY, pinned=None, width=1400, scheme="light"):
    page.set_viewport_size({"width": width, "height": 900})
    settings = {"query": query, "scheme": scheme} | ({"pinned": pinned} if pinned else {})
    return page, f"{site}/?{urlencode(settings)}"


def part(page, name):
    return page.locator(f'.tr [data-part="{name}"]')


def start(page, **settings):
    for name, value in settings.items():
        part(page, name).select_option(value)
    part(page, "begin").click()


def finish(page, runs=1):
    page.wait_for_function(
        f"document.querySelectorAll('.tr [data-outcome]').length === {runs}"
        " && !document.querySelector('.tr [data-part=begin]').disabled"
    )


def read_pixels(page, index=0):
    """Return the colours of a heatmap, rows from the last layer down, `None` where empty."""
    return page.evaluate(
        """(index) => {
          const canvas = document.querySelector(`.tr [data-part="map-${index}"] canvas`);
          const {width, height} = canvas;
          const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
          return Array.from({length: height}, (_, y) => Array.from({length: width}, (_, x) => {
            const at = 4 * (y * width + x);
            return data[at + 3] ? Array.from(data.slice(at, at + 3)) : null;
          }));
        }""",
        index,
    )


def test_trains_and_shows_what_the_library_measures(kept_page, site):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page, optimizer="adam", steps="100")
        finish(page)
        spec = NetworkSpec.from_query(HEALTHY)
        expected = list(train(spec, optimizer="adam", steps=100, every=2))
        share = f"{100 * expected[-1].accuracy:.0f} %"
        sentence = part(page, "ends").inner_text()
        assert f"After 100 steps {share} are right (chance is 10 %)" in sentence
        assert "Step 100 of 100: loss" in part(page, "status").inner_text()
        assert part(page, "spoken").inner_text() in sentence
        assert part(page, "spoken").get_attribute("aria-live") == "polite"
        assert "Adam 0.001" in part(page, "key").inner_text()
        assert part(page, "progress").evaluate("bar => bar.value / bar.max") == 1

        part(page, "details").locator("summary").click()
        rows = part(page, "tables").locator("tbody tr")
        rows.last.wait_for()
        assert rows.count() == len(expected) == 51
        cells = rows.last.locator("th, td").all_inner_texts()
        assert cells[0] == "100"
        assert float(cells[1]) == pytest.approx(expected[-1].loss, rel=0.006)
        assert cells[2] == share
        assert float(cells[3]) == pytest.approx(expected[-1].gradient_norms[0], rel=0.006)
        assert float(cells[4]) == pytest.approx(expected[-1].gradient_norms[-1], rel=0.006)

        pixels = read_pixels(page)
        assert (len(pixels), len(pixels[0])) == (6, 51)
        assert all(color for row in pixels for color in row)


def test_the_lighter_the_cell_the_larger_the_gradient(kept_page, site):
    page, url = open_page(kept_page, site, query=VANISHING)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page, steps="100")
        finish(page)
        sums = [sum(row[0]) for row in read_pixels(page)]  # layer 15 first
        assert sums == sorted(sums, reverse=True)
        assert sums[0] > sums[-1] + 100
        assert (
            "does not train, as the diagnosis (vanishing) said" in part(page, "ends").inner_text()
        )
        assert part(page, "from").inner_text() == "10⁻¹⁰"
        assert not part(page, "zero").is_visible()
        box = part(page, "map-0").bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 40)
        readout = part(page, "readout").inner_text()
        assert readout.startswith("After 0 steps, layer 1: ‖∂𝓛/∂W‖ = ")
        assert readout.endswith("·10⁻¹⁰")
        box = part(page, "accuracy").bounding_box()
        page.mouse.move(box["x"] + box["width"] - 14, box["y"] + 40)
        assert part(page, "readout").inner_text().startswith("After 100 steps: loss 2.3")


def test_the_pinned_network_is_trained_too_and_both_are_named(kept_page, site):
    page, url = open_page(kept_page, site, query=VANISHING, pinned=HEALTHY)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page, steps="100")
        assert part(page, "key").locator("li").count() == 2
        finish(page, runs=2)
        now, pinned = part(page, "ends").locator("p").all_inner_texts()
        assert "On screen: After 100 steps" in now
        assert "Pinned: After 100 steps" in pinned
        key = part(page, "key").locator("li").all_inner_texts()
        assert "On screen: trained: 15 layers of 64, Sigmoid" in key[0]
        assert "Pinned: trained: 6 layers of 64, ReLU" in key[1]
        for name in ("loss", "accuracy"):
            assert part(page, name).locator("path.tr-now").count() == 1
            assert part(page, name).locator("path.tr-pinned").count() == 1
        assert [len(read_pixels(page, index)) for index in (0, 1)] == [15, 6]
        page.evaluate("shown.pinned = null; answer(shown.query)")
        assert "no longer the pinned one" in part(page, "key").inner_text()


def test_a_network_pinned_to_itself_is_trained_once(kept_page, site):
    page, url = open_page(kept_page, site, query=HEALTHY, pinned=f"seeds=8&{HEALTHY}")
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page, steps="100")
        finish(page)
        assert part(page, "ends").locator("p").count() == 1


def test_a_training_of_an_earlier_configuration_says_so(kept_page, site, endless):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page)
        page.wait_for_function("document.querySelector('.tr [data-part=progress]').value > 0")
        assert "earlier configuration" not in part(page, "key").inner_text()
        page.evaluate("answer('depth=3')")
        assert "earlier configuration" in part(page, "key").inner_text()
        assert "6 layers of 64" in part(page, "key").inner_text()
        page.evaluate("query => answer(query)", "init=he&activation=relu&depth=6&seeds=4")
        assert "earlier configuration" not in part(page, "key").inner_text()
        part(page, "cancel").click()


def test_cancel_stops_the_server_too(kept_page, site, endless):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page)
        page.wait_for_function("document.querySelector('.tr [data-part=progress]').value > 3")
        assert len(endless) == 1
        assert part(page, "begin").is_disabled()
        page.keyboard.press("Enter")  # the focus is on Cancel
        page.wait_for_selector('.tr [data-part="status"][data-state="cancelled"]')
        assert part(page, "status").inner_text().startswith("Cancelled after step ")
        assert part(page, "begin").is_enabled()
        assert part(page, "cancel").is_disabled()
        wait_until(lambda: not endless)


def test_leaving_the_page_stops_the_server(kept_page, site, endless):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page)
        wait_until(lambda: len(endless) == 1)
    wait_until(lambda: not endless)


def test_waiting_and_busy_are_said(kept_page, site, endless):
    page, url = open_page(kept_page, site)
    refused = "the server responded with a status of 503"
    with (
        ExitStack() as stack,
        watch(page, site, leave=empty, expected=lambda problem: refused in problem),
    ):
        others = [stack.enter_context(ExitStack()) for _ in range(4)]
        client = stack.enter_context(httpx.Client(timeout=120))
        lines = [
            other.enter_context(client.stream("GET", f"{site}/api/train?depth=2")).iter_lines()
            for other in others
        ]
        for line in lines:
            assert json.loads(next(line))["type"] == "start"
        page.goto(url)
        start(page)
        page.wait_for_selector('.tr [data-part="status"][data-state="busy"]')
        busy = part(page, "status").inner_text()
        assert "busy: 4 jobs come first" in busy  # one is under way, three wait
        assert part(page, "spoken").text_content() == busy
        assert part(page, "begin").is_enabled()

        others[3].close()
        wait_until(lambda: try_again(page))
        assert part(page, "status").inner_text() == "Waiting: 3 trainings come first."
        for other in others[:3]:
            other.close()
        page.wait_for_selector('.tr [data-part="status"][data-state="working"]')
        page.wait_for_function("document.querySelector('.tr [data-part=progress]').value > 0")
        part(page, "cancel").click()
    wait_until(lambda: not endless)


def try_again(page) -> bool:
    """Press Train until the server has noticed that somebody left."""
    start(page)
    page.wait_for_selector(
        '.tr [data-part="status"]:is([data-state="busy"], [data-state="queued"])'
    )
    return part(page, "status").get_attribute("data-state") == "queued"


def test_a_lost_connection_is_said(kept_page, site):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        page.route("**/api/train*", lambda route: route.fulfill(body='\n{"type":"queued"'))
        start(page)
        page.wait_for_selector('.tr [data-part="status"][data-state="error"]')
        assert "was lost" in part(page, "status").inner_text()
        assert part(page, "begin").is_enabled()


def test_what_cannot_be_trained_is_said(kept_page, site):
    page, url = open_page(kept_page, site, query="depth=1000&width=4096")
    with watch(page, site, leave=empty, expected=lambda problem: "status of 422" in problem):
        page.goto(url)
        start(page)
        page.wait_for_selector('.tr [data-part="status"][data-state="error"]')
        assert "would take too long" in part(page, "status").inner_text()


def test_divergence_and_zero_gradients_are_shown(kept_page, site):
    exploding = "depth=15&activation=relu&init=random"
    page, url = open_page(
        kept_page, site, query=exploding, pinned="depth=30&width=4&activation=relu"
    )
    with watch(page, site, leave=empty):
        page.goto(url)
        start(page, rate="1", steps="100")
        finish(page, runs=2)
        now, pinned = part(page, "ends").locator("p").all()
        assert now.get_attribute("data-outcome") == "diverged"
        assert "no finite number" in now.inner_text()
        assert pinned.get_attribute("data-outcome") == "chance"
        assert part(page, "zero").is_visible()
        assert [138, 143, 148] in [row[0] for row in read_pixels(page, 1)]
        part(page, "details").locator("summary").click()
        part(page, "tables").locator("tbody tr").last.wait_for()
        assert "none" in part(page, "tables").locator("tbody").first.inner_text()


def test_learning_rates_fit_the_optimizer(kept_page, site):
    page, url = open_page(kept_page, site)
    with watch(page, site, leave=empty):
        page.goto(url)
        for name, rate in DEFAULT_RATES.items():
            part(page, "optimizer").select_option(name)
            assert float(part(page, "rate").input_value()) == rate


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_look_fits_keeps_its_place_and_is_accessible(kept_page, site, width, scheme):
    page, url = open_page(kept_page, site, query=VANISHING, width=width, scheme=scheme)
    with watch(page, site, leave=empty):
        page.goto(url)
        before = page.locator(".tr").bounding_box()["height"]
        start(page, steps="100")
        during = page.locator(".tr").bounding_box()["height"]
        finish(page)
        after = page.locator(".tr").bounding_box()["height"]
        assert during == after
        assert before < 360  # nothing is kept free for charts before there are any
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        part(page, "details").locator("summary").click()
        found = find_violations(page)
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
