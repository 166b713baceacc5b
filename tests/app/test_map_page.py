"""The page of phase maps: its stream, and the page in a real browser."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from axe import COLOR_RULES, list_serious
from browsing import PATIENCE, empty, expect, read_scheme, watch
from chainrule._utils.numbers import format_number
from chainrule.app.answers import map_answer
from chainrule.app.answers.map_answer import CellStore, describe_cells, describe_start
from chainrule.app.application import create_app
from chainrule.app.jobs.queue import BOUNDS, Lane, TooLong
from chainrule.app.lesson.claims import CLAIMS
from chainrule.app.routes import map_page
from chainrule.app.state.maps import DEFAULTS, KINDS, SETTINGS, read_map
from chainrule.app.state.subjects import SUBJECTS
from chainrule.app.state.view import read_view
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps import phase_map
from chainrule.sweeps.cells import SpecCell
from chainrule.sweeps.mapping import SEEDS, make_cells
from chainrule.sweeps.measuring import measure_cell
from chainrule.sweeps.phase_figure import shade
from chainrule.theory.critical import critical_line
from serving import PATIENCE as WAIT_SECONDS
from serving import serve_app, wait_until

QUICK = "map=names&depth=5&width=32"


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        yield client


def read(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines() if line]


@pytest.fixture(scope="module")
def lines(client):
    return read(client.get(f"/api/map?{QUICK}"))


class TestAddress:
    def test_every_choice_makes_legal_networks(self):
        for kind in KINDS:
            for name, values in SETTINGS.items():
                for value in values:
                    view, notices = read_map(f"map={kind}&{name}={value}")
                    assert not notices
                    assert view.settings[name] == value
                    x, y = view.axes
                    cells = make_cells(x, y, view.base, seeds=1, training=view.training)
                    assert {len(row) for row in cells} == {len(x.values)}
                    assert read_map(view.address) == (view, ())

    @pytest.mark.parametrize(
        ("kind", "fields"),
        [
            ("depth", {"activation": "relu", "bias_std": 0.4}),
            ("bias", {"activation": "relu", "depth": 30}),
            ("names", {"depth": 30}),
        ],
    )
    def test_settings_that_are_on_an_axis_are_not_those_of_all_cells(self, kind, fields):
        query = f"map={kind}&activation=relu&bias_std=0.4&depth=30&width=128&size=24"
        view, _ = read_map(query)
        assert view.base == NetworkSpec(width=128, **fields)
        if kind != "names":
            assert [len(axis.values) for axis in view.axes] == [24, 24]

    def test_axes_are_even_and_begin_where_they_should(self):
        scales, depths = (axis.values for axis in read_map("")[0].axes)
        assert scales == pytest.approx([0.5 + 0.2 * place for place in range(12)])
        assert depths == tuple(range(4, 49, 4))
        _, biases = (axis.values for axis in read_map("map=bias&size=24")[0].axes)
        assert biases == pytest.approx([0.05 * place for place in range(24)])

    def test_the_usual_address_is_empty(self):
        view, _ = read_map("")
        assert view.address == ""
        assert dict(view.settings) == dict(DEFAULTS)
        assert [len(axis.values) for axis in view.axes] == [12, 12]

    @pytest.mark.parametrize(
        "query", ["map=zzz", "foo=1", "size=13", "width=1e9", "depth=-1", "activation=%ff", "=&&="]
    )
    def test_what_is_not_possible_is_repaired_and_reported(self, query):
        view, notices = read_map(query)
        assert len(notices) == 1
        assert dict(view.settings) == dict(DEFAULTS)


class TestStream:
    def test_has_the_axes_every_cell_once_and_a_summary(self, lines):
        start, *cells, done = lines
        assert start["type"] == "start"
        assert len(start["x"]["ticks"]) * len(start["y"]["ticks"]) == start["total"] == 54
        assert {tuple(cell["at"]) for cell in cells} == {(x, y) for x in range(6) for y in range(9)}
        assert done["type"] == "done"
        assert "54 networks" in done["summary"]

    def test_cells_are_those_of_the_library(self, lines):
        view, _ = read_map(QUICK)
        x, y = view.axes
        axes = {"init": x.values[:2], "activation": y.values[:2]}
        with ThreadPoolExecutor(1) as threads:
            found = phase_map(axes, view.base, seeds=SEEDS, executor=threads)
        cells = {tuple(line["at"]): line for line in lines if line["type"] == "cell"}
        for j, row in enumerate(found.rows):
            for i, cell in enumerate(row):
                line = cells[i, j]
                assert line["text"] == cell.sentence
                assert line["measured"] == round(300 * shade(cell.measured_ratio))
                assert line["theory"] == round(300 * shade(cell.expected_ratio))
                assert line["expects"] == cell.expects_training

    @pytest.mark.parametrize(
        ("query", "is_critical"),
        [("activation=relu", False), ("activation=relu&bias_std=0.0", True), ("", True)],
    )
    def test_the_line_has_its_right_name(self, query, is_critical):
        view, _ = read_map(query)
        start = describe_start(view, ())
        assert ("The critical line of theory" in start["line_text"]) == is_critical
        assert ("critical" in start["line_name"]) == is_critical
        assert ("no fixed point" in start["line_text"]) != is_critical
        point = critical_line(view.base.activation, view.base.bias_std)
        assert (point is not None) == is_critical

    def test_a_cell_leads_to_its_network_in_the_explorer(self):
        view, _ = read_map("size=12")
        lines = describe_cells(view, CellStore(), lambda: False)
        line = next(lines)
        shown, notices = read_view(line["query"])
        assert not notices
        x, y = view.axes
        at = line["at"]
        assert shown.spec.depth == y.values[at[1]]
        assert shown.spec.weight_std == x.values[at[0]] / 8
        assert shown.spec.bias_std == 0.2

    def test_is_computed_once(self, client, lines, monkeypatch):
        monkeypatch.setattr(map_answer, "measure_cell", lambda cell: pytest.fail("measured again"))
        assert read(client.get(f"/api/map?{QUICK}")) == lines

    def test_trains_if_it_shall(self):
        view, _ = read_map("map=names&depth=5&width=32&train=adam")
        line = next(describe_cells(view, CellStore(), lambda: False))
        cell = SpecCell(view.base.replace(init="xavier"), SEEDS, view.training)
        end = measure_cell(cell)[0].trained
        assert line["dot"] == ("filled" if end.trained else "empty")
        assert f"{end.steps} steps" in line["text"]
        assert line["accuracy"] == round(-99 + 199 * end.accuracy)

    def test_keeps_a_bounded_number_of_cells(self, monkeypatch):
        monkeypatch.setattr(map_answer, "KEPT", 2)
        monkeypatch.setattr(map_answer, "measure_cell", lambda cell: (cell.spec.depth, 0.0))
        store, view = CellStore(), read_map("")[0]
        cells = [SpecCell(view.base.replace(depth=depth)) for depth in (1, 2, 3)]
        assert [store.measure(cell) for cell in cells] == [1, 2, 3]
        monkeypatch.setattr(map_answer, "measure_cell", lambda cell: ("anew", 0.0))
        assert [store.measure(cell) for cell in cells[::-1]] == [3, 2, "anew"]

    def test_a_map_that_nobody_waits_for_ends(self, monkeypatch):
        """Between two cells: the queue is free again for the next visitor."""
        asked, jobs = [], []
        app = create_app()
        submit = app.state.queue.submit

        def submit_known(*work, **options):
            jobs.append(submit(*work, **options))
            return jobs[-1]

        def measure(cell):
            asked.append(cell)
            if len(asked) == 3:  # the others wait until it is known that the visitor has left
                jobs[0].gone.wait(WAIT_SECONDS)
            return measure_cell(SpecCell(cell.spec.replace(depth=1, width=2), 1))

        monkeypatch.setattr(app.state.queue, "submit", submit_known)
        monkeypatch.setattr(map_answer, "measure_cell", measure)
        with (
            serve_app(app) as url,
            httpx.stream("GET", f"{url}/api/map?size=24", timeout=WAIT_SECONDS) as answer,
        ):
            rows = answer.iter_lines()
            while '"cell"' not in next(rows):
                pass
            answer.close()
            wait_until(lambda: not app.state.queue.count_taken(Lane.MAP))
        assert 0 < len(asked) <= 3

    def test_uses_up_its_time_and_no_more(self, client, monkeypatch):
        def describe(view, store, should_stop):
            raise TooLong("This must take at most 1 second.")
            yield

        monkeypatch.setattr(map_page, "describe_cells", describe)
        *_, last = read(client.get("/api/map"))
        assert last == {"type": "error", "error": "This must take at most 1 second."}
        assert BOUNDS[Lane.MAP].seconds <= 900

    def test_other_sites_may_not_ask(self, client):
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert client.get("/api/map", headers=headers).status_code == 403

    def test_where_biases_move_the_line_both_places_are_said(self):
        view, _ = read_map("")
        said = describe_start(view, ())["biases"]
        here, there = (critical_line("tanh", bias).weight_std for bias in (0.2, 0.0))
        for value in (0.2, here, there):
            assert f"= {format_number(value)}" in said["text"]
        addresses = [address for _, address in said["links"]]
        other, notices = read_map(urlsplit(addresses[0]).query)
        assert not notices
        assert other.settings == {**view.settings, "bias_std": 0.0}
        assert describe_start(other, ())["biases"] is None  # there it is where the lesson has it
        assert addresses[1].removeprefix("/learn#lesson-claim-") in {each.name for each in CLAIMS}
        assert f"{SUBJECTS['tanh_xavier_100'].depth} layers" in said["text"]
        assert (SUBJECTS["tanh_xavier_100"].bias_std or 0.0) == 0.0

    def test_the_lesson_is_named_where_its_network_lies_on_the_line_only(self):
        texts = {
            query: (describe_start(read_map(query)[0], ())["biases"] or {"text": ""})["text"]
            for query in ("activation=relu", "activation=sigmoid", "map=bias", "map=names")
        }
        assert not any("lesson" in text for text in texts.values())
        assert texts["activation=relu"] == texts["map=bias"] == texts["map=names"] == ""


@pytest.fixture(scope="module")
def site():
    with serve_app(create_app()) as address:
        yield address


@pytest.fixture
def page(kept_page, site):
    with watch(kept_page, site, leave=empty) as page:
        page.set_default_timeout(PATIENCE)
        page.set_viewport_size({"width": 1280, "height": 900})
        yield page


def show(page, site, query=QUICK):
    page.goto(f"{site}/map?{query}")
    page.wait_for_selector("#map-root[data-ready]")


@pytest.mark.browser
class TestPage:
    @pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844), (320, 640)])
    def test_everything_has_its_place(self, page, site, width, height):
        page.set_viewport_size({"width": width, "height": height})
        show(page, site)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = {
            name: page.locator(selector).bounding_box()
            for name, selector in {
                "plot": "[data-part=plot]",
                "x": "[data-part=x]",
                "y": "[data-part=y]",
                "read": ".mp-read",
                "form": "[data-part=form]",
            }.items()
        }
        plot, y, x = boxes["plot"], boxes["y"], boxes["x"]
        assert plot["width"] > 0.4 * width
        assert plot["height"] > 150
        assert y["x"] + y["width"] <= plot["x"] + 1
        assert plot["y"] + plot["height"] <= x["y"] + 1
        assert boxes["form"]["y"] + boxes["form"]["height"] <= plot["y"]
        beside = boxes["read"]["x"] >= plot["x"] + plot["width"]
        assert beside if width > 960 else boxes["read"]["y"] > plot["y"] + plot["height"]
        ticks = [tick.bounding_box() for tick in page.locator("[data-part=x] span").all()]
        assert len(ticks) == 6
        for left, right in pairwise(ticks):
            assert left["x"] + left["width"] <= right["x"] + 1

    def test_every_cell_is_painted_and_is_a_rectangle_of_its_own(self, page, site):
        show(page, site)
        fills = page.eval_on_selector_all(
            ".mp-cell", "cells => cells.map((cell) => cell.style.fill)"
        )
        assert len(fills) == 54
        assert all(fill.startswith("rgb") for fill in fills)
        assert len(set(fills)) > 5
        first, second = (page.locator(".mp-cell").nth(place).bounding_box() for place in (0, 1))
        assert first["x"] + first["width"] < second["x"]

    def test_keys_go_through_the_cells_and_enter_opens_one(self, page, site, lines):
        show(page, site)
        cells = {tuple(line["at"]): line for line in lines if line["type"] == "cell"}
        page.locator("[data-part=plot]").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        cell = cells[2, 1]
        where = page.locator("[data-part=where]").inner_text()
        assert where.lower() == cell["where"].lower()
        shown = page.locator("[data-part=text] dd").all_inner_texts()
        assert len(shown) == 3
        for told in shown[:2]:
            assert told[1:] in cell["text"]
        assert page.locator("[data-part=open]").get_attribute("href") == f"/?{cell['query']}"
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: urlsplit(url).path == "/")
        opened = dict(parse_qsl(urlsplit(page.url).query))
        assert read_view(page.url.partition("?")[2])[0].spec == read_view(cell["query"])[0].spec
        assert opened["depth"] == "5"

    def test_a_pointer_shows_the_cell_below_it_and_a_click_opens_it(self, page, site, lines):
        show(page, site)
        box = page.locator("[data-part=plot]").bounding_box()
        x, y = box["x"] + 4.5 / 6 * box["width"], box["y"] + 0.5 / 9 * box["height"]
        page.mouse.move(x, y)
        (cell,) = (line for line in lines if line.get("at") == [4, 8])
        expect(page.locator("[data-part=where]")).to_have_text(cell["where"], ignore_case=True)
        mark = page.locator(".mp-mark").bounding_box()
        assert mark["x"] < x < mark["x"] + mark["width"]
        assert mark["y"] < y < mark["y"] + mark["height"]
        page.mouse.click(x, y)
        page.wait_for_url(lambda url: url.endswith(f"/?{cell['query']}"))

    def test_another_choice_is_another_map_and_another_address(self, page, site):
        show(page, site)
        page.locator("select[name=width]").select_option("64")
        page.wait_for_function("location.search === '?map=names&depth=5'")
        page.wait_for_selector("#map-root[data-ready]")
        page.locator("input[name=colour][value=theory]").check(force=True)
        assert "theory" in page.locator("[data-part=colour-name]").inner_text()
        assert page.locator("input[value=accuracy]").is_disabled()

    def test_cells_appear_while_others_are_computed_and_it_can_be_stopped(
        self, page, site, monkeypatch
    ):
        asked, stopped = [], threading.Event()

        def measure(cell):
            asked.append(cell)
            if len(asked) > 3:
                stopped.wait(WAIT_SECONDS)
            return measure_cell(SpecCell(cell.spec.replace(depth=1, width=2), 1))

        monkeypatch.setattr(map_answer, "measure_cell", measure)
        page.goto(f"{site}/map?size=24&width=128")
        expect(page.locator("[data-part=count]")).to_have_text("3 of 576")
        painted = "[...document.querySelectorAll('.mp-cell')].filter((cell) => cell.style.fill)"
        assert page.evaluate(f"{painted}.length") == 3
        assert page.locator("#map-root[data-ready]").count() == 0
        page.locator("[data-part=stop]").click()
        page.wait_for_selector("#map-root[data-ready]")
        stopped.set()
        assert page.locator("[data-part=summary]").inner_text() == "Stopped."
        assert page.evaluate(f"{painted}.length") == 3

    def test_the_critical_line_and_what_trained_are_drawn(self, page, site, monkeypatch):
        small = read_map("map=depth&train=sgd&width=128")[0]
        spec = small.base.replace(width=8, depth=2)
        ended = measure_cell(SpecCell(spec, 1, small.training))
        monkeypatch.setattr(map_answer, "measure_cell", lambda cell: ended)
        show(page, site, "train=sgd&width=128")
        line, plot = (
            page.locator(each).bounding_box() for each in (".mp-plot .mp-line", "[data-part=plot]")
        )
        assert line["height"] == pytest.approx(plot["height"], abs=4)
        assert plot["x"] < line["x"] < plot["x"] + plot["width"]
        assert page.locator(".mp-dots > i").count() == 144
        page.locator("input[name=colour][value=accuracy]").check(force=True)
        assert "digits" in page.locator("[data-part=colour-name]").inner_text()

    def test_all_values_are_in_a_table(self, page, site):
        show(page, site)
        page.locator("[data-part=details] summary").click()
        rows = page.locator("[data-part=table] tbody tr")
        expect(rows).to_have_count(54)
        assert rows.nth(0).locator("td").count() == 3

    def test_nothing_serious_is_in_the_way_of_anybody(self, page, site):
        show(page, site)
        page.locator("[data-part=plot]").focus()
        page.keyboard.press("ArrowRight")
        page.locator("[data-part=details] summary").click()
        expect(page.locator("[data-part=table] tbody tr")).to_have_count(54)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert read_scheme(page) == scheme
            assert list_serious(page, rules=COLOR_RULES if scheme == "dark" else ()) == []

    def test_why_the_line_is_not_where_the_lesson_has_it_is_said_below_the_map(self, page, site):
        page.goto(f"{site}/map?width=32")
        place = page.locator("[data-part=biases]")
        place.locator("a").first.wait_for()
        assert "0.2" in place.inner_text()
        assert place.locator("a").count() == 2
        show(page, site)
        assert place.is_hidden()
