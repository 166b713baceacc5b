"""The page of training runs: over HTTP, and in a real browser."""

import csv
import io
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import nn

import chainrule
from axe import COLOR_RULES, list_serious
from browsing import PATIENCE, empty, expect, watch
from chainrule.app.application import create_app
from chainrule.app.routes.runs_page import LISTED
from chainrule.cli.demo_training import FAULTS, train_demo
from chainrule.display.run_charts import BINS, BROKEN, LAYERS, POINTS, build_charts
from chainrule.flow.loading import decode_flow
from chainrule.watch.reading import RunReader
from chainrule.watch.store import RunWriter
from made_runs import (
    make_alarm,
    make_facts,
    make_noisy_sample,
    make_noisy_steps,
    make_records,
    make_run,
    make_sample,
    make_step,
)
from serving import PATIENCE as WAIT_SECONDS
from serving import serve_app, wait_until

MALICIOUS = "<img src=x onerror=alert(1)>"


def make_client(folder: Path | None) -> TestClient:
    return TestClient(create_app(runs=folder), base_url="http://127.0.0.1")


def train_small(path: Path, steps: int = 12) -> None:
    """A run with whole measurements."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(8, 4)
    with chainrule.watch(model, optimizer, store=path, every=5) as run:
        for _ in range(steps):
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log(loss=loss)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    make_run(place / "plain.db", steps=120)
    train_small(place / "whole.db")
    with RunWriter.open(place / "many.db", make_facts(name="many")) as writer:
        for record in make_records(300):
            writer.write(record)
        for step, kind in ((90, "spike"), (92, "stalled"), (200, "dead units"), (299, "late one")):
            writer.write(make_alarm(step, kind=kind))
    damaged = bytearray((place / "plain.db").read_bytes())
    damaged[4096:9000] = bytes(9000 - 4096)
    (place / "damaged.db").write_bytes(damaged)
    (place / "headless.db").write_bytes((place / "plain.db").read_bytes()[:200])
    (place / "notes.txt").write_text("no run", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def client(folder):
    return make_client(folder)


class TestPreview:
    """What is shown of a link to a run."""

    def test_a_run_shows_its_loss_and_its_first_alarm(self, client):
        page = client.get("/runs/many").text
        assert "/files/runs.png?name=many" in page
        drawn = client.get("/files/runs.svg?name=many").text
        for fact in ("Training run many", "300 steps", "Step 90", "<polyline", "/runs/many"):
            assert fact in drawn
        assert client.get("/files/runs.png?name=many").content[1:4] == b"PNG"
        assert client.get("/files/runs.gif").status_code == 404

    def test_what_cannot_be_read_shows_the_list(self, client):
        usual = client.get("/files/runs.svg").text
        assert "Training runs" in usual
        for name in ("none", "headless", "../plain", MALICIOUS):
            drawn = client.get("/files/runs.svg", params={"name": name})
            assert drawn.status_code == 200
            assert drawn.text == usual
            page = client.get(f"/runs/{name.replace('/', '%2F')}").text
            assert MALICIOUS not in page


class TestList:
    def test_names_every_run_with_its_state_and_first_alarm(self, client):
        answer = client.get("/api/runs").json()
        runs = {run["name"]: run for run in answer["runs"]}
        assert set(runs) == {"plain", "whole", "many", "damaged", "headless"}
        assert runs["many"]["state"] == "ended"
        assert runs["many"]["steps"] == "300"
        assert runs["many"]["alarm"] == "spike at step 90"
        assert runs["many"]["more"] == "and 3 more"
        assert runs["damaged"]["state"] == runs["headless"]["state"] == "damaged"
        assert not runs["headless"]["readable"]

    def test_the_newest_comes_first(self, tmp_path):
        for name in ("first", "second"):
            make_run(tmp_path / f"{name}.db", steps=2)
        os.utime(tmp_path / "first.db", (2e9, 2e9))
        names = [run["name"] for run in make_client(tmp_path).get("/api/runs").json()["runs"]]
        assert names == ["first", "second"]

    def test_two_files_of_one_stem_are_two_runs(self, tmp_path):
        make_run(tmp_path / "a.db", steps=2)
        make_run(tmp_path / "a.sqlite", steps=3)
        client = make_client(tmp_path)
        names = {run["name"] for run in client.get("/api/runs").json()["runs"]}
        assert len(names) == 2
        steps = {client.get(f"/api/runs/{name}").json()["step"] for name in names}
        assert steps == {2, 3}

    def test_is_bounded(self, tmp_path):
        content = make_run(tmp_path / "a.db", steps=2).read_bytes()
        for number in range(LISTED + 5):
            (tmp_path / f"b{number}.db").write_bytes(content)
        answer = make_client(tmp_path).get("/api/runs").json()
        assert len(answer["runs"]) == LISTED
        assert answer["hidden"] == 6

    @pytest.mark.parametrize("given", [False, True])
    def test_an_empty_folder_and_none(self, tmp_path, given):
        client = make_client(tmp_path if given else None)
        answer = client.get("/api/runs").json()
        assert answer["runs"] == []
        assert answer["folder"] == (tmp_path.name if given else "")
        assert client.get("/api/runs/a").status_code == 404
        assert "chainrule demo" in client.get("/runs").text

    def test_a_folder_that_went_away(self, tmp_path):
        place = tmp_path / "gone"
        place.mkdir()
        client = make_client(place)
        place.rmdir()
        assert client.get("/api/runs").status_code == 422
        assert client.get("/api/runs/a").status_code == 404


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["lost", "plain.sqlite", "..%2Fplain", "%2e%2e%2fplain.db", "notes",
         "notes.txt", "plain%00", "PLAIN", "a" * 3000, "%F0%9F%98%80", "/etc/passwd"],
    )  # fmt: skip
    def test_only_listed_names_are_runs(self, client, name):
        for address in (f"/api/runs/{name}", f"/files/runs/{name}/report.html"):
            assert client.get(address).status_code in (404, 421)

    def test_no_answer_names_the_folder(self, client, folder):
        for address in ("/api/runs", "/api/runs/damaged", "/api/runs/headless", "/api/runs/plain",
                        "/files/runs/plain/flow.json?step=3"):  # fmt: skip
            assert str(folder.parent) not in client.get(address).text

    def test_the_report_is_found_below_the_run(self, client):
        answer = client.get("/runs/plain/report.html", follow_redirects=False)
        assert answer.headers["location"] == "/files/runs/plain/report.html"
        assert client.get("/runs/lost/report.html").status_code == 404

    @pytest.mark.parametrize(
        "address", ["/api/runs", "/api/runs/plain", "/files/runs/plain/steps.csv"]
    )
    def test_other_sites_may_not_ask(self, client, address):
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert client.get(address, headers=headers).status_code == 403


class TestRun:
    def test_shows_what_the_reader_reads(self, client, folder):
        answer = client.get("/api/runs/plain").json()
        reader = RunReader(folder / "plain.db")
        assert answer["step"] == 120
        assert answer["span"] == [1, 120]
        assert answer["loss"]["first"] == list(range(1, 121))
        assert answer["loss"]["low"][3] == pytest.approx(1 / 4)
        maps = {each["name"]: each for each in answer["maps"]}
        assert set(maps) == {"gradient", "update", "dead"}
        norms = reader.norm_map(LAYERS, BINS)
        assert maps["gradient"]["values"][1][7] == pytest.approx(norms.gradient[1, 7], rel=0.01)
        # Weights of norm 2 that move by 2/100.
        assert maps["update"]["values"][0] == [0.01] * len(maps["update"]["first"])
        assert maps["dead"]["shades"][0][0] == 75
        assert [alarm["step"] for alarm in answer["alarms"]] == [60]
        assert answer["alarms"][0]["flow"] is None
        assert [event["step"] for event in answer["events"]] == [0, 60, 120]

    def test_a_sample_stands_until_the_next(self, client):
        (drawn,) = [
            each
            for each in client.get("/api/runs/plain").json()["maps"]
            if each["name"] == "update"
        ]
        assert drawn["first"] == [1, 50, 100]
        assert drawn["last"] == [49, 99, 120]

    def test_an_unchanged_run_is_not_sent_again(self, client):
        first = client.get("/api/runs/plain")
        again = client.get("/api/runs/plain", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")

    def test_grows_while_it_is_written(self, tmp_path):
        client = make_client(tmp_path)
        with RunWriter.open(tmp_path / "a.db", make_facts(name="a")) as writer:
            writer.write(make_step(1))
            writer.flush()
            first = client.get("/api/runs/a")
            assert (first.json()["state"], first.json()["step"]) == ("live", 1)
            writer.write(make_step(2))
            writer.flush()
            tag = {"If-None-Match": first.headers["etag"]}
            second = client.get("/api/runs/a", headers=tag).json()
            assert second["step"] == 2
        assert client.get("/api/runs/a").json()["state"] == "ended"

    def test_is_bounded(self, tmp_path):
        tensors, modules = 400, 300
        with RunWriter.open(tmp_path / "a.db", make_facts(tensors, "a")) as writer:
            for record in make_noisy_steps(1500, tensors):
                writer.write(record)
                if record.step % 10 == 0:
                    writer.write(make_noisy_sample(record.step, tensors, modules))
            for step in range(1, 300):
                writer.write(make_alarm(step, summary="long " * 5000))
        response = make_client(tmp_path).get("/api/runs/a")
        answer = response.json()
        assert len(answer["loss"]["first"]) == POINTS
        for drawn in answer["maps"]:
            assert len(drawn["rows"]) <= LAYERS
            assert len(drawn["first"]) <= BINS
        assert len(answer["alarms"]) + answer["hidden"] == 299
        assert len(response.content) < 700_000

    def test_numbers_that_are_not_finite(self, tmp_path):
        with RunWriter.open(tmp_path / "a.db", make_facts(name="a")) as writer:
            writer.write(make_step(1))
            bad = np.array([1.0, np.nan, 1.0, np.inf])
            writer.write(make_step(2, grad_norms=bad, loss=float("nan"), total_norm=float("nan")))
            writer.write(make_step(3, loss=float("inf")))
        answer = make_client(tmp_path).get("/api/runs/a").json()
        assert answer["loss"]["bad"] == [0, 1, 1]
        assert answer["loss"]["low"][1] is None
        assert answer["maps"][0]["shades"][0][1] == 100 * BROKEN

    def test_learning_rates_that_change_are_drawn_and_on_the_time_line(self, client, tmp_path):
        assert client.get("/api/runs/plain").json()["rate"] is None
        rates = [(0.1, 0.2) if step < 20 else (0.001, 0.2) for step in range(1, 41)]
        with RunWriter.open(tmp_path / "a.db", make_facts(name="a")) as writer:
            for step, each in enumerate(rates, 1):
                writer.write(make_step(step, rates=each))
            writer.write(make_alarm(20))
        client = make_client(tmp_path)
        answer = client.get("/api/runs/a").json()
        assert [row[19] for row in answer["rate"]["rates"]] == ["0.001", "0.2"]
        assert answer["rate"]["heights"][0][-1] == 0.0
        assert answer["rate"]["heights"][1] == [1.0] * 40
        assert [tick[1] for tick in answer["rate"]["ticks"]] == ["0.001", "0.2"]
        events = [(event["step"], event["text"]) for event in answer["events"]]
        assert events[1] == (20, "learning rate of group 1: 0.1 → 0.001")
        assert events[2][0] == 20
        report = client.get("/files/runs/a/report.html").text
        assert "Learning rate" in report
        assert "step 20: learning rate of group 1" in report

    def test_a_run_without_a_step(self, tmp_path):
        RunWriter.open(tmp_path / "a.db", make_facts(name="a")).close()
        answer = make_client(tmp_path).get("/api/runs/a").json()
        assert (answer["step"], answer["loss"], answer["maps"]) == (0, None, [])

    def test_damage_is_said(self, client):
        assert client.get("/api/runs/damaged").json()["damage"]
        broken = client.get("/api/runs/headless")
        assert broken.status_code == 422
        assert "headless.db" in broken.json()["error"]

    def test_a_growing_loss_does_not_press_the_rest_to_the_floor(self, tmp_path):
        with RunWriter.open(tmp_path / "a.db", make_facts(name="a")) as writer:
            for step in range(1, 101):
                writer.write(make_step(step, loss=2.0 if step < 60 else 10.0 ** (step - 59)))
            writer.write(make_alarm(60))
        loss = build_charts(RunReader(tmp_path / "a.db")).loss
        assert loss is not None
        assert 2 < loss.ticks[-1] <= 8
        assert "cut off" in loss.note


class TestComparison:
    def test_says_where_two_runs_part(self, tmp_path):
        for name, later in (("a", 0.5), ("b", 0.7)):
            with RunWriter.open(tmp_path / f"{name}.db", make_facts(name=name)) as writer:
                for step in range(1, 21):
                    writer.write(make_step(step, loss=1.0 if step < 12 else later))
        client = make_client(tmp_path)
        other = client.get("/api/runs/a?with=b").json()["other"]
        assert (other["name"], other["parted"]) == ("b", 12)
        assert other["loss"]["low"][-1] == 0.7
        assert client.get("/api/runs/a?with=lost").status_code == 404


class TestFiles:
    def test_a_step_is_a_flow_file(self, client, folder):
        step = RunReader(folder / "whole.db").flow_steps()[0]
        response = client.get(f"/files/runs/whole/flow.json?step={step}")
        flow = decode_flow(response.content)
        assert len(flow.weight_layers) == 2

    @pytest.mark.parametrize("step", ["", "x", "-1", "9" * 40, "4"])
    def test_a_step_without_a_flow(self, client, step):
        response = client.get(f"/files/runs/plain/flow.json?step={step}")
        assert response.status_code == 422
        assert "step" in response.json()["error"]

    @pytest.mark.parametrize("what", ["steps", "norms", "updates", "layers", "alarms"])
    def test_tables(self, client, what):
        response = client.get(f"/files/runs/plain/{what}.csv")
        rows = list(csv.reader(io.StringIO(response.text)))
        assert len(rows) > 1
        assert "step" in rows[0]
        assert f"plain-{what}.csv" in response.headers["content-disposition"]

    def test_another_file(self, client):
        assert client.get("/files/runs/plain/secrets.txt").status_code == 404

    def test_the_report_needs_nothing_and_escapes(self, tmp_path):
        make_run(tmp_path / "a.db", steps=60, model=MALICIOUS)
        with RunWriter.open(
            tmp_path / "a.db", make_facts(4, "a", model=MALICIOUS), resume=True
        ) as w:
            w.write(make_alarm(59, kind=MALICIOUS, layer=MALICIOUS, summary="</script>"))
        text = make_client(tmp_path).get("/files/runs/a/report.html").text
        assert MALICIOUS not in text
        assert "</script></p>" not in text
        assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
        assert text.count("<svg") == 4
        assert "The loss jumped." in text


@pytest.fixture(scope="module")
def site(folder):
    with serve_app(create_app(runs=folder)) as address:
        yield address


def rectangles(page, selector):
    return [box.bounding_box() for box in page.locator(selector).all() if box.is_visible()]


def overlap(a, b):
    return (
        min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"]) > 1
        and min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"]) > 1
    )


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def page(self, kept_page, site):
        with watch(kept_page, site, expected=lambda text: "404" in text or "422" in text,
                   leave=empty) as page:  # fmt: skip
            page.set_default_timeout(PATIENCE)
            page.set_viewport_size({"width": 1366, "height": 768})
            page.emulate_media(reduced_motion="reduce")
            yield page

    def open(self, page, address):
        page.goto(address)
        page.wait_for_selector("[data-ready]")

    @pytest.mark.parametrize("width", [1366, 390])
    def test_nothing_overlaps_or_leaves_the_screen(self, page, site, width):
        page.set_viewport_size({"width": width, "height": 844})
        self.open(page, f"{site}/runs/many?with=plain")
        # The runs to choose from come last; the list is as wide as the longest.
        page.locator("[data-part=with] option", has_text="whole").wait_for(state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in (".ru-columns > .card, .ru-side > .card", ".ru-plot, .ru-head, .ru-lane",
                         ".ru-mark", ".ru-tools > *"):  # fmt: skip
            boxes = rectangles(page, selector)
            assert boxes
            for i, box in enumerate(boxes):
                assert box["x"] >= -1
                assert box["x"] + box["width"] <= width + 1
                assert not any(overlap(box, other) for other in boxes[i + 1 :]), selector
        self.open(page, f"{site}/runs")
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_the_list_leads_to_a_run(self, page, site):
        self.open(page, f"{site}/runs")
        page.get_by_role("link", name="many").click()
        page.wait_for_selector("#run-root[data-ready]")
        assert page.locator("h1").inner_text() == "many"
        assert page.locator("nav [aria-current=page]").inner_text() == "Runs"
        assert (
            page.locator("[data-part=alarm-title]")
            .inner_text()
            .endswith("Step 90: spike in layer 1 (module 0)")
        )

    def test_alarms_by_keyboard(self, page, site):
        self.open(page, f"{site}/runs/many")
        title = page.locator("[data-part=alarm-title]")
        page.locator("[data-event='2']").focus()
        page.keyboard.press("Enter")
        assert "dead units" in title.inner_text()
        assert page.evaluate("location.search") == "?alarm=3"
        marks = page.locator(".ru-mark")
        assert marks.count() == 3  # two are next to each other
        marks.first.focus()
        page.keyboard.press("Enter")
        assert "Step 90" in title.inner_text()
        assert page.evaluate("document.activeElement.dataset.at") == "0"
        page.keyboard.press("Enter")
        assert "Step 92" in title.inner_text()
        page.reload()
        page.wait_for_selector("[data-ready]")
        assert "Step 92" in title.inner_text()

    def test_a_cell_is_read_out_by_arrow_keys(self, page, site):
        self.open(page, f"{site}/runs/plain")
        page.locator("[data-chart=gradient]").focus()
        page.keyboard.press("Home")
        readout = page.locator("[data-part=readout]")
        # Step 1: norms 1 and 2 in layer 1, 4 and 8 in layer 2.
        assert readout.inner_text() == "step 1: layer 1 · 0 (Linear) · ‖∂𝓛/∂W‖ 2.24"
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        assert readout.inner_text() == "step 2: layer 2 · 1 (Linear) · ‖∂𝓛/∂W‖ 4.47"
        assert page.locator("[data-chart=gradient] .ru-cell").is_visible()
        page.locator("[data-chart=update]").focus()
        page.keyboard.press("End")
        assert readout.inner_text() == "steps 100–120: layer 1 · 0 (Linear) · ‖ΔW‖ ÷ ‖W‖ 1 %"
        page.locator("[data-chart=loss]").focus()
        page.keyboard.press("Home")
        assert readout.inner_text() == "step 1: loss 1"

    def test_a_step_opens_as_a_flow(self, page, site):
        self.open(page, f"{site}/runs/whole")
        page.locator("[data-chart=gradient]").focus()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-part=results][data-shown]")
        assert page.locator(".mo-heading").inner_text() == "Step 1 of the run whole"
        page.get_by_role("link", name="Back to the run whole").click()
        page.wait_for_selector("#run-root[data-ready]")
        page.goto(f"{site}/your-model?run=plain&step=7")
        page.wait_for_selector(".ex-error:not([hidden])")
        assert "got 7" in page.locator(".ex-error").inner_text()

    def test_errors_are_on_the_page(self, page, site):
        self.open(page, f"{site}/runs/lost")
        assert "lost" in page.get_by_role("alert").inner_text()
        self.open(page, f"{site}/runs/damaged")
        assert "damaged" in page.locator("[data-part=damage]").inner_text()

    @pytest.mark.parametrize("path", ["/runs", "/runs/many?with=whole"])
    def test_nothing_serious_is_in_the_way_of_anybody(self, page, site, path):
        self.open(page, f"{site}{path}")
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            assert list_serious(page, rules=COLOR_RULES if scheme == "dark" else ()) == []

    def test_follows_a_run_and_keeps_what_was_chosen(self, page, site, folder):
        path = folder / "following.db"
        with RunWriter.open(path, make_facts(name="following")) as writer:
            for record in make_records(40):
                writer.write(record)
            writer.write(make_alarm(20))
            writer.flush()
            self.open(page, f"{site}/runs/following")
            page.wait_for_selector("[data-step='40']")
            assert "live" in page.locator("[data-part=facts]").inner_text()
            page.locator(".ru-evidence summary").click()
            page.locator("[data-chart=gradient]").focus()
            page.keyboard.press("Home")
            before = page.locator("[data-part=readout]").inner_text()
            for step in range(41, 61):
                writer.write(make_step(step))
            writer.write(make_sample(60))
            writer.write(make_alarm(55, kind="dead units"))
            writer.flush()
            page.wait_for_selector("[data-step='60']")
            page.wait_for_selector("[data-event='1']")
            assert page.locator("[data-part=readout]").inner_text() == before
            assert page.evaluate("document.activeElement.dataset.chart") == "gradient"
            assert page.locator(".ru-evidence").get_attribute("open") is not None
            assert "Step 20" in page.locator("[data-part=alarm-title]").inner_text()
            assert "dead units" in page.locator("[data-part=said]").inner_text()
        page.wait_for_function("document.querySelector('[data-run=ended]')")

    def test_says_that_a_run_was_deleted_and_goes_on_when_it_is_back(self, page, site, folder):
        path = make_run(folder / "leaving.db", steps=9)
        self.open(page, f"{site}/runs/leaving")
        away = path.rename(folder.parent / "leaving.db")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("deleted")
        assert "step 9" in alert.inner_text()
        assert "gone" in page.locator("[data-part=facts]").inner_text()
        assert page.locator("[data-chart=loss]").is_visible()
        assert page.locator("[data-part=tools]").is_hidden()
        away.rename(path)
        alert.wait_for(state="hidden")
        assert "ended" in page.locator("[data-part=facts]").inner_text()
        assert page.locator("[data-part=tools]").is_visible()

    def test_the_learning_rate_is_read_out_by_arrow_keys(self, page, site, folder):
        with RunWriter.open(folder / "rates.db", make_facts(name="rates")) as writer:
            for step in range(1, 41):
                writer.write(make_step(step, rates=(0.1 if step < 20 else 0.001, 0.2)))
        self.open(page, f"{site}/runs/rates")
        page.locator("[data-chart=rate]").focus()
        page.keyboard.press("End")
        readout = page.locator("[data-part=readout]")
        assert readout.inner_text() == "step 40: learning rate 1 0.001"
        page.keyboard.press("ArrowUp")
        assert readout.inner_text() == "step 40: learning rate 2 0.2"
        assert "learning rate" in page.locator("[data-part=events]").inner_text()

    def test_without_a_folder_the_page_says_how(self, kept_page):
        with (
            serve_app(create_app()) as address,
            watch(kept_page, address, leave=empty) as page,
        ):
            page.set_default_timeout(PATIENCE)
            page.set_viewport_size({"width": 390, "height": 844})
            self.open(page, f"{address}/runs")
            how = page.locator("[data-part=how]")
            assert how.is_visible()
            assert "chainrule.watch" in how.inner_text()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("rate", "learning rate too high"), ("dead", "dead units"), ("masked", "non-finite"),
     ("underflow", "underflow")],
)  # fmt: skip
def test_each_demo_gives_its_alarm(tmp_path, fault, kind):
    alarms = []
    train_demo(tmp_path / "a.db", fault, at=30, steps=45, on_alarm=alarms.append)
    assert alarms[0].kind == kind
    assert 30 <= alarms[0].step <= 42
    assert set(FAULTS) == {"rate", "dead", "masked", "underflow"}
    assert json.loads(make_client(tmp_path).get("/api/runs/a").text)["alarms"]


def test_a_demo_stops_when_it_is_told(tmp_path):
    stop = threading.Event()
    thread = threading.Thread(
        target=train_demo,
        args=(tmp_path / "a.db", "dead"),
        kwargs={"at": 5, "steps": 10**5, "stop": stop, "on_alarm": lambda alarm: stop.set()},
    )
    thread.start()
    wait_until(stop.is_set)
    thread.join(WAIT_SECONDS)
    assert RunReader(tmp_path / "a.db").ended
