"""The standalone report: what it says, that it is safe, and that it opens offline."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import made_flows
from browsing import PATIENCE
from chainrule._utils.html import Markup, element, render
from chainrule._utils.numbers import format_number
from chainrule.diagnosis.attribution import rank_attributions
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.display import plotting
from chainrule.display.cards import describe_subject
from chainrule.display.plotting import plot
from chainrule.errors import ChainruleError, FlowFileError
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
    build_layer_figure,
    theme,
)
from chainrule.flow.loading import decode_flow
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.presets import PRESETS
from chainrule.remedies.advice import advise
from chainrule.remedies.spec_search import find_remedies
from chainrule.report import build_report, write_report
from chainrule.report.changes import build_search
from chainrule.report.charts import draw_figure
from chainrule.report.scales import list_ticks
from chainrule.report.tables import build_module_tables
from chainrule.spec.network_spec import NetworkSpec
from made_flows import make_chain, make_trial
from report_models import measure_gpt2

MALICIOUS = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.second(torch.tanh(self.first(self.norm(x))))


def measure_large():
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(75)))
    return inspect(model, lambda m: m(torch.randn(4, 8)).square().mean())


def measure_without_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.requires_grad_(False)
    x = torch.ones(2, 2, requires_grad=True)
    return inspect(model, lambda m: m(x).sum())


OVERFLOWING = NetworkSpec(depth=8, width=4, activation="sigmoid", init="random", weight_std=1e6)
FLOWS = {
    "ensemble": lambda: simulate(PRESETS["Vanishing (Sigmoid)"].spec, 8),
    "one network": lambda: simulate(NetworkSpec(depth=4, width=8), 1),
    "one layer": lambda: simulate(NetworkSpec(depth=1, width=8), 3),
    "dying": lambda: simulate(PRESETS["Dying ReLU"].spec, 4),
    "hundred": lambda: simulate(PRESETS["Deep and rescued (100 layers, residual)"].spec, 8),
    "undefined": lambda: simulate(OVERFLOWING.replace(activation="identity"), 3),
    "large": measure_large,
    "no weights": lambda: inspect(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum()),
    "no gradients": measure_without_gradients,
}


@pytest.fixture(scope="module", params=FLOWS)
def flow(request):
    return FLOWS[request.param]()


class Reader(HTMLParser):
    """Collects a page's text, addresses and what is left open."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, page):
        super().__init__()
        self.texts, self.addresses, self.open, self.tags, self.styles = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href", "action", "srcset", "style"):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


class Tree(HTMLParser):
    """Collects what a page folds away, and its code."""

    def __init__(self, page):
        super().__init__()
        self.codes, self.code = [], None
        self.folds, self.above, self.in_title = [], [], False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag == "details":
            own = {"title": "", "text": "", "folds": [], "open": ("open", "") in attributes}
            (self.above[-1]["folds"] if self.above else self.folds).append(own)
            self.above.append(own)
        self.in_title = self.in_title or tag == "summary"
        if tag == "code":
            self.code = ""

    def handle_endtag(self, tag):
        if tag == "details":
            own = self.above.pop()
            own["title"] = " ".join(own["title"].split())
        if tag == "summary":
            self.in_title = False
        if tag == "code":
            self.codes.append(self.code)
            self.code = None

    def handle_data(self, data):
        if self.code is not None:
            self.code += data
        if self.above:
            self.above[-1]["title" if self.in_title else "text"] += data


def make_sick():
    torch.manual_seed(0)
    parts = [part for _ in range(12) for part in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Linear(16, 4))
    x, y = torch.randn(16, 16), torch.randint(0, 4, (16,))
    return model, lambda m: nn.functional.cross_entropy(m(x), y)


class TestReport:
    def test_is_whole_html_without_any_address_but_its_own_pictures(self, flow):
        page = build_report(flow)
        reader = Reader(page)
        assert reader.open == []
        assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
        assert "http://" not in page
        assert "https://" not in page
        assert "@import" not in page
        assert "url(" not in page

    def test_says_verdict_evidence_and_what_to_do(self, flow):
        text = Reader(build_report(flow)).text
        diagnosis = diagnose(flow)
        assert f"Diagnosis: {diagnosis.verdict}" in text
        assert " ".join(diagnosis.action.split()) in text
        for finding in diagnosis.findings:
            assert " ".join(finding.evidence[1:].split()) in text

    def test_shows_every_figure_of_every_layer_module_and_parameter(self, flow):
        text = Reader(build_report(flow)).text
        for layer in flow.weight_layers:
            if layer.weight_gradient_norm is not None:
                assert format_number(layer.weight_gradient_norm) in text
        for call in flow.layers:
            assert " ".join(call.label.split()) in text
            if call.gain is not None:
                assert format_number(call.gain) in text
        for parameter in flow.parameters:
            assert parameter.name in text

    def test_of_one_flow_is_always_the_same(self):
        flow = simulate(NetworkSpec(depth=3, width=8), 3)
        again = simulate(NetworkSpec(depth=3, width=8), 3)
        assert build_report(flow) == build_report(again)
        assert build_report(decode_flow(flow.to_json())) == build_report(flow)
        assert not re.search(r"20\d\d-\d\d", build_report(flow))

    def test_says_title_and_date_if_given(self):
        flow = simulate(NetworkSpec(depth=3, width=8), 1)
        text = Reader(build_report(flow, title="My <model>", date="1 May")).text
        assert "My <model>" in text
        assert "1 May" in text
        assert "3 layers × 8 units" in text

    def test_follows_a_short_training_if_there_was_one(self):
        model = torch.nn.Linear(4, 1)
        x = torch.randn(8, 4)
        flow = inspect(model, lambda m: (m(x) - 1).square().mean())
        trial = make_trial()
        assert "SGD: trained" in build_report(flow, trial=trial)
        assert "SGD: trained" not in build_report(flow)

    def test_writes_powers_of_ten_with_their_sign(self):
        flow = make_chain([3e-9, 1.0, 2e8])
        page = build_report(flow)
        assert "3.0·10<sup>−9</sup>" in page
        assert "2.0·10<sup>8</sup>" in page

    def test_says_what_clipping_does(self):
        flow = simulate(NetworkSpec(depth=3, width=8, clip_norm=0.01), 3)
        text = Reader(build_report(flow)).text
        assert f"multiplies every gradient by {format_number(flow.clip_factor)}." in text
        assert "clipping" not in Reader(build_report(FLOWS["one network"]())).text

    def test_stays_small(self):
        assert len(build_report(FLOWS["large"]()).encode()) < 600_000
        assert len(build_report(FLOWS["hundred"]()).encode()) < 600_000

    def test_of_300_modules_is_one_offline_file_below_2_megabytes(self, tmp_path):
        flow = measure_gpt2(layers=34)
        assert len(flow.layers) >= 300
        write_report(flow, tmp_path / "report.html")
        assert (tmp_path / "report.html").stat().st_size < 2_000_000
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        reader = Reader(page)
        assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
        assert "http://" not in page
        assert "https://" not in page

    def test_holds_a_large_model_as_a_folded_tree(self):
        tree = Tree(build_report(measure_gpt2(layers=34))).folds
        (modules,) = [fold for fold in tree if fold["title"].startswith("Module calls")]
        (stack,) = [f for f in modules["folds"] if f["title"].startswith("transformer.h.*")]
        assert stack["title"].startswith("transformer.h.* 34 blocks, 306 outputs, gradients ")
        assert [fold["title"].split()[0] for fold in stack["folds"]] == [
            f"transformer.h.{at}" for at in range(34)
        ]
        assert "transformer.h.3.attn.c_attn" in stack["folds"][3]["text"]
        assert not any(fold["open"] for fold in (modules, stack, *stack["folds"]))

    def test_shows_repeated_blocks_side_by_side(self):
        flow = measure_gpt2(layers=12)
        page = build_report(flow)
        assert "Depth profile: transformer.h.*, 12 blocks, 0 to 11" in Reader(page).text
        tips = re.findall(r'data-tip="(block 7\n[^"]*)"', page)
        assert len(tips) == 2  # drawn for wide and for narrow windows
        for layer in flow.weight_layers:
            if layer.name.startswith("transformer.h.7."):
                name = layer.name.removeprefix("transformer.h.7.")
                assert f"{name}: {layer.weight_gradient_norm:.3g}" in tips[0]
        assert "Depth profile" not in build_report(FLOWS["one network"]())

    def test_names_the_main_causes(self, flow):
        text = Reader(build_report(flow)).text
        blames = rank_attributions(flow)
        assert ("Main causes, by factor" in text) is bool(blames)
        for blame in blames:
            assert f"× {format_number(blame.factor)}" in text

    def test_gives_code_that_applies_a_remedy(self):
        """The code of the page, pasted, changes the model as the remedy was measured."""
        model, compute_loss = make_sick()
        remedies = find_remedies(model, compute_loss)
        codes = Tree(build_report(remedies.before, remedies=remedies)).codes
        (code,) = [each for each in codes if "remedies[0]" in each]
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        exec(compile(code, "report", "exec"), {"model": model, "compute_loss": compute_loss})
        edited = {edit.parameter for edit in remedies[0].edits}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]) is (name not in edited), name
        after = inspect(model, compute_loss)
        assert diagnose(after).verdict is remedies[0].verdict_after
        assert [float(norm) for norm in after.weight_gradient_norms] == pytest.approx(
            [float(norm) for norm in remedies[0].after.weight_gradient_norms]
        )

    def test_gives_the_command_that_applies_a_remedy_of_a_specification(self):
        remedies = find_remedies(NetworkSpec(depth=20, width=16, activation="relu"), 3)
        codes = Tree(build_report(remedies.before, remedies=remedies)).codes
        for remedy in remedies:
            assert remedy.command in codes

    def test_runs_only_its_own_script_and_loads_nothing(self):
        page = build_report(simulate(NetworkSpec(depth=2, width=4), 1))
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
        assert "default-src 'none'" in unescape(policy)
        assert "unsafe" not in policy
        assert Reader(page).tags.count("script") == 1

    def test_shows_malicious_names_as_text(self):
        document = simulate(NetworkSpec(depth=2, width=4), 1).to_json()
        text = document.replace('"name":"0"', f'"name":"{MALICIOUS}"'.replace('>"', '>\\"'))
        text = text.replace('"kind":"Linear"', '"kind":"<b onclick=x>"')
        flow = decode_flow(text.replace('"device":"cpu"', '"device":"<svg/onload=alert(3)>"'))
        reader = Reader(build_report(flow, title=MALICIOUS))
        assert reader.tags.count("script") == 1
        assert "img" not in reader.tags
        assert MALICIOUS in reader.text

    def test_replaces_characters_that_html_forbids_or_that_turn_text_around(self):
        assert render("a\0b\u202ec") == "a\ufffdb\ufffdc"
        assert element("p", Markup("<b>"), "<b>", class_='"') == (
            '<p class="&#34;"><b>&lt;b&gt;</p>'
        )

    def test_lists_remedies_and_what_does_not_help_as_measured(self):
        spec = NetworkSpec(depth=20, width=16, activation="relu", init="xavier")
        remedies = find_remedies(spec, 4)
        reader = Reader(build_report(remedies.before, remedies=remedies))
        assert len(remedies) > 0
        for remedy in (*remedies, *remedies.refuted):
            assert remedy.title in reader.text
            before, after = remedy.comparison.before_text, remedy.comparison.after_text
            assert f"{before} → {after}" in reader.text
            assert f"{remedy.verdict_before} → {remedy.verdict_after}" in reader.text
        assert f"without success ({len(remedies.refuted)})" in reader.text
        for remedy in remedies:
            assert remedy.outcome_text[1:] in reader.text

    def test_says_so_when_nothing_helps_or_nothing_was_asked(self):
        flow = simulate(NetworkSpec(depth=3, width=8), 1)
        assert "none helps" in build_report(flow, remedies=[])
        assert f"{flow.spec.to_command()} --remedies" in build_report(flow)
        well = simulate(PRESETS["Healthy (ReLU + He)"].spec, 1)
        assert "What to change" not in build_report(well)
        healthy = find_remedies(PRESETS["Healthy (ReLU + He)"].spec, 2)
        assert "nothing was tried" in build_report(healthy.before, remedies=healthy)

    def test_advice_is_for_a_model_of_yours(self):
        flow = made_flows.make_chain([1e-9, 1.0, 1.0])
        diagnosis = diagnose(flow)
        titles = [each.title for each in advise(flow, diagnosis)]
        assert titles
        assert all(title in Reader(build_search(flow, diagnosis)).text for title in titles)
        flow = made_flows.make_chain([1e-9, 1.0, 1.0], spec=NetworkSpec(depth=3, width=4))
        assert "Advice" not in Reader(build_search(flow, diagnosis)).text

    def test_two_blocks_that_repeat_are_folded_together(self):
        calls = [
            made_flows.call(name)
            for name in ("stem", "h.0.a", "h.0.b", "h.1.a", "h.1.b", "end.0.a")
        ]
        reader = Reader(build_module_tables(made_flows.make_flow(calls)))
        assert reader.text.count("h.* 2 blocks, 4 outputs") == 1
        assert "end.* " not in reader.text

    def test_goes_to_a_file_or_says_why_not(self, tmp_path):
        flow = simulate(NetworkSpec(depth=3, width=8), 1)
        write_report(flow, tmp_path / "report.html")
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == build_report(flow)
        with pytest.raises(FlowFileError, match="existing folder"):
            write_report(flow, tmp_path / "nowhere" / "report.html")


class TestCharts:
    def test_every_figure_can_be_drawn(self):
        """A figure that learns something new must be drawn here, too."""
        flow = simulate(PRESETS["Dying ReLU"].spec, 4)
        other = simulate(NetworkSpec(depth=5, width=8), 4)
        for figure in (
            build_gradient_figure(flow, other=other),
            build_gradient_figure(flow, usable=(1e-8, 1e-7)),
            build_gradient_figure(flow, measure="relative", scale="linear"),
            build_activation_figure(flow, other=other),
            build_factor_figure(flow, other=other),
            build_layer_figure(flow, 1),
        ):
            for width in (1000, 360):
                assert draw_figure(figure, width=width, height=300, name="n").startswith("<svg")

    def test_points_stand_where_their_values_are(self):
        figure = build_gradient_figure(simulate(NetworkSpec(depth=5, width=8), 3))
        axis, values = figure["layout"]["yaxis"], figure["data"][1]["y"]
        svg = draw_figure(figure, width=1000, height=346, name="n")
        heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', svg)]
        low, high = axis["range"]
        top, bottom = figure["layout"]["margin"]["t"] + 2, 300
        expected = [
            bottom - (torch.tensor(v).log10().item() - low) / (high - low) * (bottom - top)
            for v in values
        ]
        assert heights == pytest.approx(expected, abs=0.1)

    def test_columns_carry_the_values_that_hovering_shows(self):
        flow = simulate(NetworkSpec(depth=3, width=8), 3)
        svg = draw_figure(build_gradient_figure(flow), width=1000, height=300, name="n")
        tips = re.findall(r'data-tip="([^"]*)"', svg)
        assert [tip.splitlines()[0] for tip in tips] == ["layer 1", "layer 2", "layer 3"]
        for tip, norm in zip(tips, flow.weight_gradient_norms, strict=True):
            assert format_number(norm) in tip

    def test_what_cannot_be_drawn_is_an_error(self):
        figure = build_gradient_figure(simulate(NetworkSpec(depth=2, width=4), 1))
        figure["data"].append({"type": "pie"})
        with pytest.raises(ValueError, match="got 'pie'"):
            draw_figure(figure, width=100, height=100, name="n")

    @pytest.mark.parametrize(
        ("axis", "low", "high", "labels"),
        [
            ({"type": "log"}, -2.0, 2.0, ["10⁻²", "10⁻¹", "1", "10", "10²"]),
            ({"type": "log", "dtick": 5}, -10.0, 0.0, ["10⁻¹⁰", "10⁻⁵", "1"]),
            ({"type": "log"}, -0.5, 0.5, ["0.5", "1", "2"]),
            ({"type": "log"}, 0.45, 0.8, ["3", "4", "5", "6"]),
            ({}, 0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
            ({}, -1.0, 1.0, ["−1", "−0.5", "0", "0.5", "1"]),
            ({"dtick": 3, "tick0": 1}, 0.5, 8.5, ["1", "4", "7"]),
            ({"tickvals": [0, 1], "ticktext": ["none", "all"]}, 0.0, 1.0, ["none", "all"]),
            ({"tickformat": ".0%"}, 0.0, 0.4, ["0 %", "10 %", "20 %", "30 %", "40 %"]),
        ],
    )
    def test_ticks_are_round(self, axis, low, high, labels):
        assert [label for _, label in list_ticks(axis, low, high)] == labels


class TestBeforeAndAfter:
    def test_a_second_flow_stands_beside_and_is_named(self, tmp_path):
        before = simulate(NetworkSpec(depth=15, init="xavier", width=16), 2)
        after = simulate(NetworkSpec(depth=15, activation="relu", init="he", width=16), 2)
        path = tmp_path / "report.html"
        write_report(after, path, other=before)
        text = path.read_text(encoding="utf-8")
        assert describe_subject(before) in text
        table = text.partition("Before and after")[2].partition("</table>")[0]
        rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', table)
        assert rows[-1][1:] == (str(diagnose(before).verdict).capitalize(), "Healthy")
        first = format_number(before.weight_gradient_norms[0])
        assert first.split("·")[0] in rows[0][1]
        assert theme.PINNED["color"] in text  # the dashed line

    def test_alone_there_is_nothing_to_compare(self, tmp_path):
        path = tmp_path / "report.html"
        write_report(simulate(NetworkSpec(depth=3, width=4), 2), path)
        text = path.read_text(encoding="utf-8")
        assert "Before and after" not in text
        assert theme.PINNED["color"] not in text


class TestTheory:
    def test_specified_networks_are_compared_with_it(self):
        from chainrule.theory import predict

        spec = NetworkSpec(depth=3, width=64, activation="tanh", init="xavier")
        flow = simulate(spec, 4)
        page, theory = build_report(flow), predict(spec, 4)
        assert theory.describe_agreement(flow) in page
        assert theory.sentence.replace("'", "&#39;") in page

    def test_other_models_are_not(self):
        assert "theory" not in build_report(make_chain([1.0, 0.1]))


class TestPlot:
    @pytest.mark.parametrize("chart", ["gradients", "activations", "factors"])
    def test_is_a_plotly_figure_of_the_same_numbers(self, chart):
        from plotly.graph_objects import Figure

        flow = simulate(NetworkSpec(depth=4, width=8), 2)
        figure = plot(flow, chart)
        assert isinstance(figure, Figure)
        if chart == "gradients":
            assert list(figure.data[1].y) == [float(n) for n in flow.weight_gradient_norms]

    def test_the_gradients_lie_over_the_zones_of_the_page(self):
        flow = simulate(NetworkSpec(depth=15, init="xavier", width=16), 2)
        low, high = read_usable_range(flow)
        shapes = plot(flow).layout.shapes
        assert [shape.fillcolor for shape in shapes] == list(theme.ZONES.values())
        assert (shapes[1].y0, shapes[1].y1) == pytest.approx((low, high))
        assert set(plot(flow).data[1].marker.symbol) == {"triangle-down", "circle"}

    def test_another_measurement_is_drawn_with_it(self):
        flow, other = (simulate(NetworkSpec(depth=depth, width=8), 2) for depth in (4, 3))
        assert list(plot(flow, other=other).data[3].y) == list(other.weight_gradient_norms)
        for chart in ("activations", "factors"):
            beside = [each for each in plot(flow, chart, other=other).data if "pinned" in each.name]
            assert beside
            assert all(sorted(each.x) == [1, 2, 3] for each in beside)
            assert not any("pinned" in each.name for each in plot(flow, chart).data)

    def test_theory_is_drawn_behind_the_gradients_and_described(self):
        from chainrule.theory import predict

        spec = NetworkSpec(depth=3, width=64, activation="tanh", init="xavier")
        flow, theory = simulate(spec, 4), predict(spec, 4)
        figure = plot(flow, theory=theory)
        assert list(figure.data[1].y) == [each.median for each in theory.weight_gradient_norms]
        assert figure.layout.title.text == theory.describe_agreement(flow)
        with pytest.raises(ChainruleError, match=r"theory: .*'factors'"):
            plot(flow, "factors", theory=theory)

    def test_without_plotly_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setattr(plotting, "find_spec", lambda name: None)
        with pytest.raises(ChainruleError, match="Run: pip install plotly"):
            plot(simulate(NetworkSpec(depth=2, width=4), 1))

    def test_says_what_is_known_and_what_is_needed(self):
        with pytest.raises(ChainruleError, match="Did you mean 'gradients'"):
            plot(simulate(NetworkSpec(depth=2, width=4), 1), "gradient")
        with pytest.raises(ChainruleError, match="needs at least one weight layer"):
            plot(FLOWS["no weights"]())


@pytest.mark.browser
class TestInABrowser:
    @pytest.fixture
    def open_report(self, browser, tmp_path):
        """Return a function that opens a report offline; nothing may go wrong on the page."""
        pages, problems = [], []

        def open_page(flow, **options):
            path = tmp_path / "report.html"
            write_report(flow, path, title=MALICIOUS)
            context = browser.new_context(offline=True, **options)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            pages.append(context)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda m: problems.append(m.text))
            page.on("dialog", lambda d: problems.append(d.message))
            page.on(
                "request",
                lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url),
            )
            page.goto(path.as_uri())
            return page

        yield open_page
        for context in pages:
            context.close()
        assert problems == []

    @pytest.mark.parametrize("width", [1280, 360])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("name", ["ensemble", "large", "no weights"])
    def test_fits_the_window_in_light_and_dark(self, open_report, name, width, scheme):
        page = open_report(
            FLOWS[name](), viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
        charts = page.locator("svg[role=img]:visible")
        # A large model has its depth profile, too.
        assert charts.count() == {"no weights": 0, "large": 4}.get(name, 3)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_pointing_at_a_chart_shows_its_values(self, open_report):
        flow = FLOWS["ensemble"]()
        page = open_report(flow, viewport={"width": 1280, "height": 800})
        column = page.locator("svg[role=img]:visible [data-tip]").nth(2)
        column.scroll_into_view_if_needed()
        # Scrolling hides what it says, and is told to the page before the next frame.
        page.evaluate("new Promise((end) => requestAnimationFrame(() => setTimeout(end)))")
        column.hover()
        tip = page.locator("#tip")
        tip.wait_for(state="visible")
        said = tip.inner_text()
        assert "layer 3" in said
        assert format_number(flow.weight_gradient_norms[2]) in said

    def test_prints_the_wide_charts_on_white(self, open_report):
        page = open_report(
            FLOWS["ensemble"](), viewport={"width": 390, "height": 800}, color_scheme="dark"
        )
        page.emulate_media(media="print")
        assert page.locator(".wide:visible").count() == 3
        assert page.locator(".narrow:visible").count() == 0
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"

    def test_is_readable_without_scripts(self, open_report):
        page = open_report(FLOWS["ensemble"](), java_script_enabled=False)
        assert page.locator("svg[role=img]:visible").count() == 3

    def test_has_no_accessibility_problems(self, open_report):
        from axe import find_violations

        page = open_report(FLOWS["ensemble"](), bypass_csp=True)
        found = find_violations(page)
        assert [(entry["id"], len(entry["nodes"])) for entry in found] == []


@pytest.mark.parametrize(
    "arguments",
    [{"flow": None}, {"flow": nn.Linear(2, 2)}, {"title": 3}, {"remedies": "all"}, {"other": 3},
     {"trial": 3}, {"date": 2026}],
)  # fmt: skip
def test_what_is_of_another_kind_says_what_it_must_be(tmp_path, arguments):
    path = tmp_path / "a.html"
    settings = {"flow": make_chain([1.0, 1.0]), **arguments}
    with pytest.raises(ChainruleError, match=r": must be "):
        write_report(path=path, **settings)
    assert not path.exists()


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", ["a.html"]])
def test_a_report_needs_the_path_of_a_file(path):
    with pytest.raises(FlowFileError):
        write_report(make_chain([1.0, 1.0]), path)
