"""The page for one's own model: over HTTP, and in a real browser."""

import json
import runpy
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

from axe import find_violations
from browsing import PATIENCE, empty, expect, watch
from chainrule._utils.numbers import format_number
from chainrule.app.routes.model_page import LIMITS, describe_model
from chainrule.app.samples import SAMPLES, read_sample
from chainrule.diagnosis.attribution import rank_attributions
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.display.sentences import explain
from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.remedies.advice import advise
from chainrule.report import build_report
from chainrule.spec.network_spec import NetworkSpec
from report_models import measure_gpt2
from serving import wait_until

MALICIOUS = "<img src=x onerror=alert(1)>"
OVERFLOWING = NetworkSpec(depth=8, width=4, init="random", weight_std=1e6)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.second(torch.tanh(self.first(self.norm(x))))


def measure_large():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.blocks = nn.Sequential(*(Block() for _ in range(75)))
    return inspect(model, lambda m: m.blocks(torch.randn(4, 8)).square().mean())


def measure_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return inspect(model, lambda m: m(0.1 * torch.randn(4, 7, 8)).square().mean())


def measure_without_weights():
    return inspect(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum())


FLOWS = {
    "specified": lambda: simulate(NetworkSpec(depth=6, width=8), 3),
    "large": measure_large,
    "no weights": measure_without_weights,
    "undefined": lambda: simulate(OVERFLOWING.replace(activation="identity"), 2),
}


VERDICTS = {
    "transformer_that_trains": Verdict.HEALTHY,
    "lost_over_time": Verdict.VANISHING,
    "undefined_distance": Verdict.NON_FINITE,
    "flat_loss": Verdict.FLAT_LOSS,
}


def make_malicious():
    document = json.loads(measure_large().to_json())
    for call in document["layers"]:
        call["name"] = f"blocks.0.{MALICIOUS}"
        call["kind"] = "</script><script>alert(2)</script>"
    figures = {"entropy": 0.01, "one_hot": 1.0, "uniform": 0.0}
    sizes = {"heads": 1, "queries": 2, "keys": 2}
    document["attentions"] = [{"name": MALICIOUS, "call": 0, **sizes, **figures}]
    return json.dumps(document)


HOSTILE = {
    "words": ("not json", "must hold JSON"),
    "nested": ("[" * 10**6, "nested too deeply"),
    "entries": (
        '{"schema_version":1,"layers":[' + "{}," * 10**6 + "{}]}",
        "at most 5,000 entries in layers",
    ),
    "integer": ('{"schema_version":' + "9" * 10**6 + "}", "a whole number of 1000000 digits"),
    "newer": ('{"schema_version":4}', "pip install --upgrade chainrule"),
    "html": ('{"schema_version":1,"layers":"<script>"}', "damaged at layers"),
    "constant": ('{"schema_version":NaN}', "NaN must be in quotes"),
    "twice": ('{"schema_version":1,"schema_version":1}', "is given twice"),
    "binary": (b"\x80\x04\x95cos\nsystem\n", "it is not UTF-8 text"),
}


def post(url, content, query=""):
    return httpx.post(f"{url}/api/flow{query}", content=content, timeout=120)


class TestRoute:
    @pytest.mark.parametrize("name", FLOWS)
    def test_answers_what_the_library_says(self, url, name):
        flow = FLOWS[name]()
        response = post(url, flow.to_json())
        assert response.status_code == 200
        answer = response.json()
        diagnosis = diagnose(flow)
        assert answer["verdict"] == diagnosis.verdict
        assert answer["action"] == diagnosis.action
        assert len(answer["findings"]) == len(diagnosis.findings)
        assert len(answer["cards"]) == 4
        assert len(answer["layers"]) == len(answer["table"]["rows"]) == len(flow.weight_layers)
        assert bool(answer["figures"]) is bool(flow.weight_layers)
        rows = [row for block in answer["modules"]["blocks"] for row in block["rows"]]
        assert sorted(row[0] for row in rows) == sorted(call.label for call in flow.layers)
        assert len(answer["parameters"]["rows"]) == len(flow.parameters)

    def test_shows_the_measure_scale_and_layer_that_are_asked_for(self, url):
        flow = FLOWS["specified"]()
        answer = post(url, flow.to_json(), "?measure=delta&scale=linear&layer=3").json()
        trace = answer["figures"]["gradient"]["data"][1]
        assert trace["y"] == [float(norm) for norm in flow.delta_norms]
        assert answer["figures"]["gradient"]["layout"]["yaxis"]["type"] == "linear"
        assert "layer 3" in answer["figures"]["layer"]["layout"]["xaxis"]["title"]["text"]
        strange = post(url, flow.to_json(), "?measure=<b>&scale=&layer=-1")
        assert strange.json()["view"]["measure"] == "weight"

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("histogram", {"low": -1.7e308, "high": 1.7e308, "counts": [1, 2], "sampled": 3}),
            ("histogram", {"low": 1e308, "high": 1.7e308, "counts": [0, 3], "sampled": 3}),
            ("histogram", {"low": 0, "high": 5e-324, "counts": [0, 3], "sampled": 3}),
            ("histogram", {"low": 0, "high": 1, "counts": [3], "sampled": 3}),
            ("saturation", ["NaN", 1, 0]),
            ("std", [1.7e308, 5e-324, "Infinity"]),
        ],
    )
    def test_figures_at_the_edge_of_what_numbers_can_say_are_shown(self, place, value):
        """Whatever can be loaded can be shown: as strict JSON, and as a report."""
        document = json.loads(FLOWS["specified"]().to_json())
        for call in document["layers"][2:]:
            call["statistics"][place] = value
            call["gain"] = [1.7e308, 5e-324, "NaN"]
        flow = decode_flow(json.dumps(document))
        for scale in ("log", "linear"):
            json.dumps(describe_model(flow, scale=scale, layer=3), allow_nan=False)
        assert build_report(flow)

    def test_names_modules_of_ones_own_model(self):
        flow = measure_large()
        answer = describe_model(flow)
        assert answer["table"]["rows"][0][1] == "blocks.0.first"
        assert answer["layers"][0].endswith("(blocks.0.first)")
        blocks = answer["modules"]["blocks"]
        assert [block["name"] for block in blocks][:2] == ["blocks.0", "blocks.1"]
        assert blocks[0]["note"].startswith("3 outputs, gradients ")
        assert len(blocks) == 75
        (stack,) = answer["modules"]["stacks"]
        assert stack == {"name": "blocks.*", "blocks": list(range(75))}

    def test_shows_repeated_blocks_side_by_side(self):
        flow = measure_gpt2(layers=12)
        (profile,) = describe_model(flow)["profile"]
        assert profile["title"] == "Depth profile: transformer.h.*, 12 blocks, 0 to 11"
        lines = {trace["name"]: trace["y"] for trace in profile["figure"]["data"]}
        places = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
        (stream,) = lines.keys() - set(places)
        assert "residual stream" in stream
        assert len(lines[stream]) == 12
        for place in places:
            assert lines[place] == [
                float(layer.weight_gradient_norm)
                for layer in flow.weight_layers
                if layer.name.endswith(place) and ".h." in layer.name
            ]
        assert describe_model(FLOWS["specified"]())["profile"] == []

    def test_names_who_is_to_blame_and_the_command_that_finds_remedies(self):
        flow = measure_gpt2(layers=12, std=1e-5)
        answer = describe_model(flow)
        blames = rank_attributions(flow)
        assert [row[0] for row in answer["blame"]["rows"]] == [blame.name for blame in blames]
        assert len(blames) == 3
        assert answer["changes"]["command"] == "chainrule inspect FILE.py:FUNCTION --remedies"
        assert [each["code"] for each in answer["changes"]["advice"]] == [
            each.code for each in advise(flow, diagnose(flow))
        ]
        torch.manual_seed(0)
        deep = nn.Sequential(*(part for _ in range(9) for part in (nn.Linear(4, 4), nn.Sigmoid())))
        advised = describe_model(inspect(deep, lambda m: m(torch.ones(3, 4)).square().mean()))
        assert "nn.LayerNorm(width)" in advised["changes"]["advice"][1]["code"]
        well = describe_model(measure_gpt2(layers=12))
        assert well["blame"]["words"] == ""
        assert well["changes"] is None

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_files_get_one_sentence(self, url, name):
        content, problem = HOSTILE[name]
        response = post(url, content)
        assert response.status_code == 422
        error = response.json()["error"]
        assert problem in error
        assert len(error) < 400
        assert "Traceback" not in error
        assert "/src/" not in error

    def test_too_large_files_are_refused_unread(self, url):
        response = post(url, b" " * (LIMITS.size + 1))
        assert response.status_code == 413
        assert "must be at most 16 MiB here" in response.json()["error"]

    def test_too_large_files_of_unknown_size_are_refused(self, url):
        response = post(url, (b" " * 2**20 for _ in range(LIMITS.size // 2**20 + 1)))
        assert response.status_code == 413

    @pytest.mark.parametrize("name", SAMPLES)
    def test_samples_are_flow_files_that_the_page_takes(self, url, name):
        response = httpx.get(f"{url}/files/samples/{name}.json", timeout=120)
        assert response.content == read_sample(name)
        assert len(response.content) < 60_000
        flow = decode_flow(response.content)
        assert diagnose(flow).verdict is VERDICTS[name]
        assert post(url, response.content).json()["verdict"] == VERDICTS[name]
        missing = httpx.get(f"{url}/files/samples/lost.json", timeout=120)
        assert missing.status_code == 404
        assert all(each in missing.json()["error"] for each in SAMPLES)

    @pytest.mark.parametrize("name", SAMPLES)
    def test_samples_are_what_their_scripts_measure(self, name):
        """Measured with another PyTorch, values agree up to rounding; the trial is not repeated."""
        kept = decode_flow(read_sample(name))
        path = Path(__file__).parents[2] / "examples" / "samples" / f"{name}.py"
        model, compute_loss = runpy.run_path(str(path))["build"]()
        flow = inspect(model, compute_loss)
        assert flow.loss == pytest.approx(kept.loss, rel=1e-3)
        assert flow.weight_gradient_norms == pytest.approx(
            kept.weight_gradient_norms, rel=1e-2, nan_ok=True
        )
        assert kept.trial is not None
        assert kept.trial.tried
        assert name in SAMPLES[name].command

    @pytest.mark.parametrize("name", SAMPLES)
    def test_all_that_was_measured_is_somewhere_on_the_page(self, name):
        flow = decode_flow(read_sample(name))
        answer = describe_model(flow)
        sections = {each["name"]: each for each in answer["sections"]}
        expected = {
            "origin": flow.origin,
            "trial": flow.trial,
            "times": flow.times,
            "loss": flow.loss_facts,
            "inputs": flow.inputs,
        }
        assert set(sections) == {name for name, held in expected.items() if held}
        cells = {
            cell
            for each in sections.values()
            for t in each["tables"]
            for r in t["rows"]
            for cell in r
        }
        for optimizer in flow.trial.optimizers:
            for rate in optimizer.rates:
                assert f"{format_number(rate.before)} → {format_number(rate.after)}" in cells
        assert format_number(flow.loss) in cells
        for entering in flow.inputs:
            assert {entering.reader, format_number(entering.std)} <= cells
        for chart, time in zip(
            sections["times"]["charts"] if flow.times else (), flow.times, strict=True
        ):
            (line,) = chart["figure"]["data"]
            assert line["x"] == [step + 1 for step in time.steps]
            assert line["y"] == [max(float(share), 1e-12) for share in time.shares]
        if flow.origin:
            assert sections["origin"]["code"] == flow.origin.code
            assert flow.origin.position in sections["origin"]["title"]

    def test_copies_half_precision_and_the_optimizer_have_sections_too(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
        nn.init.constant_(model[0].weight, 0.1)
        nn.init.zeros_(model[0].bias)
        nn.init.constant_(model[2].weight, 0.1)
        x, y = torch.randn(16, 8), torch.randn(16, 1)

        def compute_loss(m):
            with torch.autocast("cpu", torch.bfloat16):
                answer = m(x)
            return {"fit": (answer.float() - y).square().mean(), "size": 0.1 * answer.abs().mean()}

        flow = inspect(model, compute_loss, torch.optim.SGD(model.parameters(), 0.125))
        sections = {each["name"]: each for each in describe_model(flow)["sections"]}
        assert flow.symmetries
        assert flow.precisions
        assert sections["symmetries"]["first"]
        (copies,) = sections["symmetries"]["tables"]
        assert ("0.weight", "4", "3") in [tuple(row[:3]) for row in copies["rows"]]
        (rounded,) = sections["precisions"]["tables"]
        assert len(rounded["rows"]) == len(flow.precisions)
        assert {row[2] for row in rounded["rows"]} == {"bfloat16"}
        (held,) = sections["optimizer"]["tables"]
        assert ("learning rate", "0.125") in held["rows"]
        terms = sections["loss"]["tables"][1]
        assert [row[0] for row in terms["rows"]] == ["fit", "size"]

    def test_only_posts_are_answered(self, url):
        answer = httpx.get(f"{url}/api/flow", timeout=120)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def open_page(self, kept_page, url):
        """Return a function that opens the page; nothing may go wrong on it."""
        with ExitStack() as stack:

            def go(expected=lambda problem: False, *, viewport, color_scheme="light"):
                page = stack.enter_context(watch(kept_page, url, expected=expected, leave=empty))
                page.set_default_timeout(PATIENCE)
                page.set_viewport_size(viewport)
                page.emulate_media(color_scheme=color_scheme)
                page.goto(f"{url}/your-model")
                page.wait_for_selector("#model-root[data-ready]")
                return page

            yield go

    @staticmethod
    def give(page, text, name="flow.json"):
        content = text if isinstance(text, bytes) else text.encode()
        page.set_input_files(
            "#model-file", {"name": name, "mimeType": "application/json", "buffer": content}
        )

    @pytest.mark.parametrize("width", [1280, 390])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_shows_a_file(self, open_page, width, scheme):
        flow = measure_large()
        page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.give(page, flow.to_json())
        page.wait_for_selector("[data-shown]")
        page.wait_for_function("document.querySelector('#factor-chart')?.data?.length > 0")
        drawn = page.evaluate("Array.from(document.querySelector('#gradient-chart').data[1].y)")
        assert drawn == [float(norm) for norm in flow.weight_gradient_norms]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cards = page.locator("[data-part=cards]").inner_text()
        assert format_number(flow.weight_gradient_norms[0]) in cards
        assert str(diagnose(flow).verdict).capitalize() in cards
        stack = page.locator(".mo-blocks > details")
        assert stack.count() == 1
        stack.locator("> summary").click()
        block = stack.locator("> details").nth(3)
        block.locator("> summary").click()
        block.locator("table").wait_for()  # it is built when the block opens
        assert "blocks.3.first" in block.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("width", [1280, 390])
    def test_shows_blocks_side_by_side_and_who_is_to_blame(self, open_page, width):
        flow = measure_gpt2(layers=12, std=1e-5)
        page = open_page(viewport={"width": width, "height": 900})
        self.give(page, flow.to_json())
        page.locator("[data-part=evidence] > summary").click()
        page.wait_for_selector("[data-part=blame] table")
        page.wait_for_function("document.querySelector('.mo-plot')?.data?.length > 3")
        blame = page.locator("[data-part=blame]").inner_text()
        for each in rank_attributions(flow):
            assert each.name in blame
            assert f"× {format_number(each.factor)}" in blame
        drawn = page.evaluate("Array.from(document.querySelector('.mo-plot').data[0].y)")
        assert len(drawn) == 12
        assert "--remedies" in page.locator("[data-panel=changes]").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("width", [1280, 390])
    def test_shows_attention_and_notes(self, open_page, width):
        flow = measure_transformer()
        page = open_page(viewport={"width": width, "height": 900})
        self.give(page, flow.to_json())
        page.locator("[data-part=evidence] > summary").click()
        page.wait_for_selector("[data-part=notes]")
        told = page.locator("[data-part=notes]").inner_text()
        for note in diagnose(flow).notes:
            assert note.evidence[1:] in told
            assert note.meaning in told
        attention = page.locator("details", has_text="Attention (3)")
        attention.locator("summary").click()
        rows = attention.locator("tbody tr")
        rows.first.wait_for()  # a table is built once it is opened
        assert rows.count() == 3
        cells = rows.nth(1).locator("th, td").all_inner_texts()
        entropy = flow.attentions[1].entropy
        assert cells[:4] == ["layers.1.self_attn", "2", "7 × 7", format_number(entropy)]
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("width", [1280, 390])
    def test_a_sample_is_opened_by_name_and_says_what_to_do_first(self, open_page, url, width):
        page = open_page(viewport={"width": width, "height": 900})
        page.get_by_role("button", name="An LSTM over 100 steps").click()
        page.wait_for_selector("[data-shown]")
        page.wait_for_function("document.querySelector('.mo-time')?.data?.length > 0")
        expect(page).to_have_url(f"{url}/your-model?sample=lost_over_time")
        flow = decode_flow(read_sample("lost_over_time"))
        said = explain(flow, diagnose(flow))
        for name in ("what", "why", "do"):
            assert page.locator(f"[data-part={name}]").inner_text() == getattr(said, name)
        assert "0.7 → 0.687" in page.locator("[data-panel=trial]").inner_text()
        steps = page.evaluate("Array.from(document.querySelector('.mo-time').data[0].x)")
        assert steps == [step + 1 for step in flow.times[0].steps]
        page.wait_for_function("document.activeElement.className === 'mo-heading'")
        # Both at once: the page is on its way to them.
        heights = page.evaluate(
            """["do", "cards"].map((part) =>
                document.querySelector(`[data-part=${part}]`).getBoundingClientRect().top)"""
        )
        assert heights == sorted(heights)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_role("button", name="A distance of pictures").click()
        line = page.locator("[data-panel=origin] code")
        expect(line).to_have_text("return difference.square().sum(dim=1).sqrt()")
        page.go_back()
        page.wait_for_selector("[data-panel=times]")
        page.go_back()
        page.wait_for_selector("#model-root .mo-results", state="hidden")
        self.give(page, FLOWS["specified"]().to_json(), name="mine.json")
        page.wait_for_function("document.querySelector('.mo-heading').textContent === 'mine.json'")
        assert page.locator("[data-part=sample-command]").is_hidden()
        assert page.locator("[data-sample][aria-pressed=true]").count() == 0

    def test_an_address_opens_its_sample_and_a_wrong_one_says_so(self, open_page, url):
        page = open_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{url}/your-model?sample=flat_loss")
        page.wait_for_selector("[data-shown]")
        assert "does not change at all" in page.locator("[data-part=what]").inner_text()
        assert page.locator("[data-sample=flat_loss]").get_attribute("aria-pressed") == "true"
        page.goto(f"{url}/your-model?sample=%3Cb%3E")
        error = page.locator(".ex-error:visible")
        error.wait_for()
        assert "<b>" in error.inner_text()

    def test_switches_measure_and_layer_without_another_choice(self, open_page):
        flow = FLOWS["specified"]()
        page = open_page(viewport={"width": 1280, "height": 900})
        self.give(page, flow.to_json())
        page.wait_for_selector("[data-shown]")
        page.locator("[data-choice=measure] label").nth(1).click()
        page.wait_for_function(
            "document.querySelector('#gradient-chart').data[1].y[0] === "
            f"{float(flow.delta_norms[0])!r}"
        )

    def test_all_of_a_file_is_shown_where_another_measure_is_chosen_meanwhile(self, open_page):
        """The first answer is overtaken by that to the choice, which then brings everything."""
        page = open_page(viewport={"width": 1280, "height": 900})
        self.give(page, measure_large().to_json(), name="first.json")
        expect(page.locator(".mo-blocks > details")).to_have_count(1)
        held = []
        page.route("**/api/flow?*", lambda route: held.append(route))
        self.give(page, FLOWS["specified"]().to_json(), name="second.json")
        wait_until(lambda: len(held) == 1 or page.wait_for_timeout(10))
        page.locator("[data-choice=measure] label").nth(1).click()
        wait_until(lambda: len(held) == 2 or page.wait_for_timeout(10))
        for route in held[::-1]:
            route.continue_()
        expect(page.locator(".mo-heading")).to_have_text("second.json")
        assert "blocks.0" not in page.locator(".mo-blocks").text_content()
        assert "second.json" in page.locator(".mo-status").text_content()

    def test_a_sample_that_is_lost_leaves_the_file_that_was_opened_after_it(self, open_page):
        page = open_page(lambda text: "ERR_FAILED" in text, viewport={"width": 1280, "height": 900})
        held = []
        page.route("**/files/samples/*", lambda route: held.append(route))
        page.get_by_role("button", name="An LSTM over 100 steps").click()
        wait_until(lambda: held or page.wait_for_timeout(10))
        self.give(page, FLOWS["specified"]().to_json(), name="mine.json")
        expect(page.locator(".mo-heading")).to_have_text("mine.json")
        with page.expect_event("requestfailed"):
            held[0].abort()
        page.evaluate("() => new Promise((done) => setTimeout(done))")
        assert page.locator(".mo-heading").is_visible()
        assert not page.locator(".ex-error:visible").count()

    def test_takes_a_dropped_file(self, open_page):
        flow = FLOWS["specified"]()
        page = open_page(viewport={"width": 1280, "height": 900})
        transfer = page.evaluate_handle(
            """(text) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([text], "dropped.json"));
                return transfer;
            }""",
            flow.to_json(),
        )
        page.dispatch_event(".mo-drop", "dragover", {"dataTransfer": transfer})
        assert "mo-over" in page.locator(".mo-drop").get_attribute("class")
        page.dispatch_event(".mo-drop", "drop", {"dataTransfer": transfer})
        page.wait_for_selector("[data-shown]")
        assert page.locator(".mo-heading").inner_text() == "dropped.json"
        assert "mo-over" not in page.locator(".mo-drop").get_attribute("class")

    @pytest.mark.parametrize("name", ["no weights", "undefined"])
    def test_shows_models_without_weights_or_without_numbers(self, open_page, name):
        page = open_page(viewport={"width": 1280, "height": 900})
        self.give(page, FLOWS[name]().to_json())
        page.wait_for_selector("[data-shown]")
        verdict = {"no weights": "No gradient", "undefined": "Non-finite"}[name]
        assert verdict in page.locator("[data-part=cards]").inner_text()

    @pytest.mark.parametrize("name", ["words", "nested", "html"])
    def test_says_what_is_wrong_with_a_file(self, open_page, name):
        content, problem = HOSTILE[name]
        page = open_page(lambda text: "422" in text, viewport={"width": 1280, "height": 900})
        self.give(page, content)
        error = page.locator(".ex-error:visible")
        error.wait_for()
        assert problem in error.inner_text()
        self.give(page, FLOWS["specified"]().to_json())
        page.wait_for_selector("[data-shown]")
        assert not error.is_visible()

    def test_a_huge_file_is_not_even_sent(self, open_page):
        page = open_page(viewport={"width": 1280, "height": 900})
        asked = []
        page.on("request", lambda request: asked.append(request.method))
        transfer = page.evaluate_handle(
            """(size) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(size)], "huge.json"));
                return transfer;
            }""",
            LIMITS.size + 1,
        )
        page.dispatch_event(".mo-drop", "drop", {"dataTransfer": transfer})
        error = page.locator(".ex-error:visible")
        error.wait_for()
        assert "must be at most 16 MiB here" in error.inner_text()
        assert "POST" not in asked

    def test_names_from_a_file_stay_text(self, open_page):
        text = make_malicious()
        assert decode_flow(text)
        page = open_page(viewport={"width": 1280, "height": 900})
        self.give(page, text, name=f"{MALICIOUS}.json")
        page.wait_for_selector("[data-shown]")
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.wait_for_function(  # a table is built once it is opened
            """[...document.querySelectorAll(".mo-blocks details:not(.mo-stack)")].every(
                (block) => block.querySelector("tbody"))"""
        )
        assert page.locator("#model-root img").count() == 0
        assert MALICIOUS in page.locator(".mo-blocks").inner_text()
        assert MALICIOUS in page.locator(".mo-heading").inner_text()

    def test_can_be_used_by_keyboard_and_has_no_accessibility_problems(self, open_page, tmp_path):
        Path(tmp_path / "flow.json").write_text(FLOWS["specified"]().to_json(), encoding="utf-8")
        page = open_page(viewport={"width": 1280, "height": 900})
        # From now on a chooser is given to the test; asked for only when the key is pressed,
        # Chromium may open it before it knows that, and nobody sees it.
        opened = []
        page.on("filechooser", lambda chooser: opened.append(chooser))
        page.wait_for_load_state("load")
        page.locator("#model-file").focus()
        assert page.evaluate("document.activeElement.id") == "model-file"
        page.keyboard.press("Enter")
        wait_until(lambda: page.evaluate("1") and opened)  # asking lets events arrive
        opened[0].set_files(tmp_path / "flow.json")
        page.wait_for_selector("[data-shown]")
        assert page.evaluate("document.activeElement.className") == "mo-heading"
        found = find_violations(page, within="#model-root")
        assert [(entry["id"], entry["nodes"][0]["html"]) for entry in found] == []
