"""What people share: pictures, previews of links, tiny charts, and screens that are told apart."""

import base64
import re
import struct
import threading
from html import unescape
from itertools import combinations
from urllib.parse import quote
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from starlette.testclient import TestClient

from browsing import PATIENCE, empty, expect, watch
from chainrule import PRESETS, NetworkSpec, Verdict, diagnose, simulate
from chainrule.app import create_app
from chainrule.app.answers.stored import AnswerStore, Stored
from chainrule.app.jobs.queue import BOUNDS, Lane
from chainrule.app.lesson.figures import load_figures
from chainrule.app.lesson.plots import POWERS
from chainrule.app.samples import SAMPLES, read_sample
from chainrule.app.site.thumbnails import SIZE, draw_thumbnail, plot_thumbnail
from chainrule.app.state.subjects import PRESET_SUBJECTS
from chainrule.app.state.view import COVERS
from chainrule.chain import ScalarChain
from chainrule.chain.notation import format_equal
from chainrule.display.cards import describe_spec
from chainrule.figures import theme
from chainrule.flow.loading import decode_flow
from chainrule.report.picture import draw_picture
from explorer import measure, open_explorer
from serving import PATIENCE as WAIT_SECONDS
from serving import wait_until

SVG = "{http://www.w3.org/2000/svg}"
BEFORE = NetworkSpec(depth=12, width=16, init="xavier")
AFTER = NetworkSpec(depth=12, width=16, activation="relu", init="he")
SUBJECTS = {preset: subject for subject, preset in PRESET_SUBJECTS.items()}
PAIR = f"{AFTER.to_query()}&pin={quote(BEFORE.to_query(), safe='')}"


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(), base_url="http://localhost") as client:
        yield client


def read_meta(page: str) -> dict[str, str]:
    found = re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', page)
    return {name: unescape(text) for name, text in found}


def read_words(svg: str) -> str:
    return " ".join(text for node in ET.fromstring(svg).iter() if (text := node.text))


# --- the picture --------------------------------------------------------------------------------


def test_a_picture_is_a_png_of_the_size_of_previews(client):
    answer = client.get(f"/files/picture.png?{AFTER.to_query()}")
    assert answer.headers["content-type"] == "image/png"
    assert "content-encoding" not in answer.headers
    assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", answer.content[16:24]) == (1200, 630)
    assert len(answer.content) < 300_000
    assert client.get(f"/files/picture.png?{AFTER.to_query()}").content == answer.content


def test_it_names_verdict_network_and_address(client):
    text = client.get(f"/files/picture.svg?{AFTER.to_query()}&tour=2&hide=lesson").text
    words = read_words(text)
    assert str(diagnose(simulate(AFTER, 16)).verdict).capitalize() in words
    assert describe_spec(AFTER) in words
    assert f"http://localhost/?{AFTER.to_query()}" in words
    assert "tour" not in words  # how the page shows it is no part of it
    assert "Before" not in words


def test_before_and_after_are_on_the_same_axis(client):
    text = client.get(f"/files/picture.svg?{PAIR}").text
    words = read_words(text)
    for spec in (BEFORE, AFTER):
        assert str(diagnose(simulate(spec, 16)).verdict).capitalize() in words
    one, other = ([], [])
    for side, found in zip(ET.fromstring(text).findall(f"{SVG}g"), (one, other), strict=True):
        found += [node.text for node in side.iter(f"{SVG}text") if node.get("class") == "tick"]
    assert [each for each in one if each.startswith("10")] == [
        each for each in other if each.startswith("10")
    ]


def find_middle(mark):
    """Return the height at which a circle, or a triangle (its top, then how high it is), stands."""
    if mark.get("cy"):
        return float(mark.get("cy"))
    numbers = [float(each) for each in re.findall(r"-?[\d.]+", mark.get("d"))]
    return numbers[1] + numbers[-1] / 2


def test_the_marks_of_a_picture_stand_where_the_gradients_are():
    flow = simulate(NetworkSpec(depth=6, width=8), 2)
    chart = ET.fromstring(draw_picture(flow)).find(f".//{SVG}svg")
    marks = [node for node in chart if node.tag in (f"{SVG}circle", f"{SVG}path")]
    places = [find_middle(node) for node in marks[-6:]]
    norms = [float(norm) for norm in flow.weight_gradient_norms]
    assert np.corrcoef(np.log10(norms), places)[0, 1] < -0.99


def test_before_and_after_both_show_what_is_missing_and_neither_the_other():
    flow = simulate(NetworkSpec(depth=12, width=8, init="xavier"), 2)
    sound = simulate(NetworkSpec(depth=12, width=8, activation="relu", init="he"), 2)
    for one, other, gaps in ((flow, None, 1), (flow, sound, 1), (flow, flow, 2)):
        drawn = draw_picture(one, other=other)
        assert drawn.count(theme.GAPS["small"]) == gaps
        assert theme.PINNED["color"] not in drawn


def test_a_covered_page_has_a_picture_that_tells_nothing(client):
    query = f"{BEFORE.to_query()}&guess={','.join(COVERS)}&ask=Why"
    words = read_words(client.get(f"/files/picture.svg?{query}").text)
    assert describe_spec(BEFORE) in words
    assert not [verdict for verdict in Verdict if str(verdict) in words.lower()]
    assert "circle" not in client.get(f"/files/picture.svg?{query}").text
    meta = read_meta(client.get(f"/?{query}").text)
    assert meta["og:title"] == "Why"
    assert "guess=" in meta["og:image"]


def test_a_picture_is_kept_and_asked_for_by_its_tag(client):
    first = client.get(f"/files/picture.png?{PAIR}")
    assert "max-age" in first.headers["cache-control"]
    again = client.get(
        f"/files/picture.png?{PAIR}", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(f"/files/picture.png?{PAIR}").status_code == 200


def test_the_store_is_bounded_and_lets_the_oldest_go():
    store = AnswerStore(most=4)  # a question and an answer of a byte each
    for name in "ab":
        store.keep(name, Stored(name.encode(), "image/png"))
    assert store.find("a")
    store.keep("c", Stored(b"c", "image/png"))
    assert store.find("b") is None
    assert {store.find(name).body for name in "ac"} == {b"a", b"c"}
    store.keep("a", Stored(b"d", "image/png"))
    assert store.find("a").body == b"d"
    store.keep("e", Stored(b"much too long", "image/png"))
    assert store.find("e") is None
    assert all(store.find(name) for name in "ac")


def test_another_sites_page_cannot_make_the_server_draw(client):
    path = f"/files/picture.png?{AFTER.to_query()}"
    assert client.get(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_too_large_a_network_is_refused(client):
    answer = client.get("/files/picture.png?depth=1000&width=4096")
    assert answer.status_code == 422
    assert "depth · width" in answer.json()["error"]


def test_a_busy_server_says_when_to_ask_again():
    app = create_app()
    gate = threading.Event()
    queue = app.state.queue
    jobs = [
        queue.submit(lambda check: gate.wait(WAIT_SECONDS), lane=Lane.SEARCH)
        for _ in range(BOUNDS[Lane.SEARCH].seats)
    ]
    try:
        with TestClient(app, base_url="http://localhost") as client:
            answer = client.get(f"/files/picture.png?{AFTER.to_query()}")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    finally:
        gate.set()
        for job in jobs:
            job.cancel()
        wait_until(lambda: queue.count_taken(Lane.SEARCH) == 0)


# --- previews of links --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/learn", "/chain-rule", "/your-model", "/map", "/runs", "/runs/none"]
)
def test_each_page_says_what_a_link_to_it_shows(client, path):
    page = client.get(path).text
    meta = read_meta(page)
    assert meta["og:title"]
    assert meta["og:description"] == meta["description"]
    assert meta["og:url"] == f"http://localhost{path}"
    own = {"/chain-rule": "chain", "/your-model": "model", "/map": "map", "/runs": "runs"}
    name = own.get(path, "runs" if path.startswith("/runs/") else "picture")
    assert meta["og:image"].startswith(f"http://localhost/files/{name}.png")
    image = client.get(meta["og:image"].removeprefix("http://localhost"))
    assert struct.unpack(">II", image.content[16:24]) == (1200, 630)
    assert meta["twitter:card"] == "summary_large_image"
    assert 'name="preview"' not in page


@pytest.mark.parametrize("path", ["/", "/learn"])
def test_a_link_shows_the_network_of_its_address(client, path):
    meta = read_meta(client.get(f"{path}?{PAIR}&tour=1").text)
    for spec in (BEFORE, AFTER):
        assert describe_spec(spec) in meta["og:title"]
    image = meta["og:image"].removeprefix("http://localhost")
    assert client.get(image).content == client.get(f"/files/picture.png?{PAIR}").content
    alone = read_meta(client.get(f"{path}?{AFTER.to_query()}").text)
    assert alone["og:title"] == describe_spec(AFTER)


@pytest.mark.parametrize(
    "path", ["/?depth=7&hide=lesson&lock=depth", "/chain-rule?x=1&weights=0.5%2C3"]
)
def test_a_link_leads_to_the_whole_address(client, path):
    assert read_meta(client.get(path).text)["og:url"] == f"http://localhost{path}"


EXPRESSION = "h = x + tanh(w*x); h*h + max(h, 1)"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("weights=0.5,3&wrt=w2", ["∂p/∂w₂", "2 layers", "h₂(1 − h₂)"]),
        ("weights=1,2&activation=tanh,relu&biases=0,0.5&wrt=b1", ["∂p/∂b₁", "Tanh and ReLU"]),
        (f"expr={quote(EXPRESSION)}&set=x=1,w=0.5&wrt=w", ["dp/dw", "max(h, 1)", "3 paths"]),
        ("expr=", ["dp/dx", "4 paths"]),
        ("walk=3&depth=7", ["∂p/∂w₁", "3 layers"]),
        ("weights=many", ["∂p/∂w₁", "3 layers"]),
        ("expr=x+%2B+(", ["∂p/∂w₁", "3 layers"]),
        ("weights=" + ",".join(["1e-300"] * 50), ["50 layers", "⋯"]),
    ],
)
def test_a_link_to_the_chain_rule_shows_its_own_graph_and_equation(client, query, words):
    meta = read_meta(client.get(f"/chain-rule?{query}").text)
    image = meta["og:image"].removeprefix("http://localhost")
    answer = client.get(image)
    assert answer.headers["content-type"] == "image/png"
    assert struct.unpack(">II", answer.content[16:24]) == (1200, 630)
    drawn = client.get(image.replace(".png", ".svg")).text
    said = read_words(drawn)
    assert [word for word in words if word not in said] == []
    assert "var(" not in drawn
    assert drawn.count("data-node") >= 4
    usual = image.endswith(".png")  # nothing that could be drawn was asked for
    assert (meta["og:title"] == "The chain rule") == usual
    assert meta["og:image:alt"].startswith("The chain rule: ")


def test_the_picture_of_a_chain_says_what_the_library_computes(client):
    chain = ScalarChain(1.0, [0.5, -2.0, 1.5])
    svg = client.get("/files/chain.svg").text
    assert f"∂p/∂w₁ {format_equal(chain.gradient('w1'))}" in read_words(svg)
    for node in chain.nodes:
        assert f'data-node="{node.id}"' in svg
    assert "0.243 · 1.5 · 0.174 · (−2) · 0.235 · 1" in read_words(svg)


@pytest.mark.parametrize("name", ["", *SAMPLES, "none"])
def test_a_link_to_your_model_shows_the_sample_that_is_open(client, name):
    meta = read_meta(client.get(f"/your-model?sample={name}").text)
    image = meta["og:image"].removeprefix("http://localhost")
    answer = client.get(image)
    assert struct.unpack(">II", answer.content[16:24]) == (1200, 630)
    words = read_words(client.get(image.replace(".png", ".svg")).text)
    if name in SAMPLES:
        flow = decode_flow(read_sample(name))
        assert str(diagnose(flow).verdict).capitalize() in words
        assert meta["og:title"].startswith(SAMPLES[name].title)
    else:
        assert "Your own model" in words
        assert "chainrule inspect" in words
        assert meta["og:title"] == "Your model"


def test_what_an_address_says_cannot_leave_its_place(client):
    question = '"><script>alert(1)</script>'
    page = client.get(f"/?depth=3&guess=cards&ask={quote(question)}").text
    assert "<script>alert" not in page
    assert read_meta(page)["og:title"] == question


def test_a_preview_measures_nothing(client, monkeypatch):
    monkeypatch.setattr("chainrule.app.jobs.measuring.simulate", None)
    assert client.get("/?depth=37&width=31").status_code == 200


# --- tiny charts --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_each_scenario_has_a_tiny_chart_of_its_state(name):
    drawing = ET.fromstring(draw_thumbnail(name))
    kinds = [node.get("class") for node in drawing if "zone" not in node.get("class")]
    state = {
        Verdict.HEALTHY: "th-usable",
        Verdict.VANISHING: "th-small",
        Verdict.EXPLODING: "th-large",
        Verdict.DEAD_UNITS: "th-none",
    }[PRESETS[name].verdict]
    assert kinds.count(state) > len(kinds) / 2
    if PRESETS[name].verdict is Verdict.HEALTHY:
        assert set(kinds) == {state}


def test_tiny_charts_have_one_axis_and_kept_measurements():
    norms = load_figures().profiles[SUBJECTS["Healthy (ReLU + He)"]]["norms"]
    drawing = ET.fromstring(draw_thumbnail("Healthy (ReLU + He)"))
    places = [float(node.get("cy")) for node in drawing if node.tag == "circle"]
    height = SIZE[1] - 6
    for norm, y in ((norms[0], places[0]), (norms[-1], places[-1])):
        share = (np.log10(norm) - POWERS[0]) / (POWERS[1] - POWERS[0])
        assert y == pytest.approx(3 + height * (1 - share), abs=0.2)


@pytest.mark.parametrize("norms", [[1.0], [0.0, 1e-30], [1e300, 1.0], [0.5] * 1000])
def test_any_gradients_can_be_drawn_in_small(norms):
    drawing = ET.fromstring(plot_thumbnail(norms, (0.003, 1500.0)))
    for node in drawing:
        numbers = [
            float(n) for n in re.findall(r"-?[\d.]+", node.get("cy") or node.get("d") or "0")
        ]
        assert all(-8 <= number <= SIZE[0] for number in numbers)


# --- in a browser -------------------------------------------------------------------------------

FIVE = (
    "Healthy (ReLU + He)",
    "Vanishing (Sigmoid)",
    "Exploding (ReLU + random σ = 1)",
    "Hidden vanishing (ReLU + Xavier)",
    "Dying ReLU",
)

THUMBNAIL = 200
"""Width to which a screen is reduced, in pixels."""

LEVELS, SHARE = 16, 0.08
"""So many of 256 levels make a pixel of another colour; of the chart, at least this share must be.

Measured: 9.7 % (a falling line, vanishing, and a flat one as low, hidden vanishing) to 49 %, light
and dark.
"""

REDUCE = """async ([picture, width]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${picture}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.round(width * image.height / image.width);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.height, btoa(String.fromCharCode(...pixels))];
}"""


@pytest.fixture
def page(kept_page, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(kept_page, url, leave=empty) as page:
        page.set_default_timeout(PATIENCE)
        yield page


def reduce_chart(page) -> np.ndarray:
    """Return the main chart as it is in a screenshot of the width of a thumbnail [y, x, rgb]."""
    picture = base64.b64encode(page.screenshot()).decode()
    height, pixels = page.evaluate(REDUCE, [picture, THUMBNAIL])
    levels = np.frombuffer(base64.b64decode(pixels), np.uint8)
    whole = levels.reshape(height, THUMBNAIL, 4)[..., :3].astype(int)
    zoom = THUMBNAIL / page.viewport_size["width"]
    box = {side: round(zoom * value) for side, value in find_chart(page).items()}
    return whole[box["top"] : box["bottom"], box["left"] : box["right"]]


def find_chart(page):
    return measure(page.locator("#gradient-chart"))


@pytest.mark.browser
@pytest.mark.slow
def test_five_first_screens_are_told_apart_at_the_size_of_a_thumbnail(page, url):
    page.set_viewport_size({"width": 1440, "height": 900})
    charts: dict[str, dict[str, np.ndarray]] = {"light": {}, "dark": {}}
    for scheme, found in charts.items():
        page.emulate_media(color_scheme=scheme)  # first: a chart takes on other colors with delay
        for name in FIVE:
            open_explorer(page, url, f"preset={quote(name)}")
            found[name] = reduce_chart(page)
    for scheme, found in charts.items():
        for one, other in combinations(FIVE, 2):
            distance = np.abs(found[one] - found[other]).max(axis=-1)
            assert np.mean(distance > LEVELS) > SHARE, (scheme, one, other)


@pytest.mark.browser
def test_share_shows_the_picture_and_saves_it(page, url):
    open_explorer(page, url, PAIR)
    page.get_by_role("button", name="Share", exact=True).click()
    image = page.locator("[data-part=picture-image]")
    expect(page.locator("[data-part=picture-said]")).to_contain_text("the same picture")
    assert image.evaluate("node => [node.naturalWidth, node.naturalHeight]") == [1200, 630]
    assert "pin=" in image.get_attribute("src")
    for kind, start in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Save {kind}").click()
        assert download.value.suggested_filename == f"chainrule.{kind.lower()}"
        assert download.value.path().read_bytes().startswith(start)
    page.get_by_role("dialog").get_by_role("button", name="Copy link").click()
    expect(page.locator("[data-part=picture-said]")).to_have_text("Copied.")
    assert "pin=" in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    expect(page.get_by_role("button", name="Share", exact=True)).to_be_focused()


@pytest.mark.browser
def test_a_class_that_shares_nothing_has_no_such_button(page, url):
    open_explorer(page, url, f"{AFTER.to_query()}&hide=share")
    assert not page.get_by_role("button", name="Share", exact=True).is_visible()
