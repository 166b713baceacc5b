"""The pages as the server sends them: text, titles, what is not there, and how files are kept."""

import gzip
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from chainrule import find_remedies, simulate
from chainrule.app import create_app
from chainrule.app.answers.flow_answer import describe_flow
from chainrule.app.lesson.glossary import GLOSSARY
from chainrule.app.site.assets import FOLDER, PLOTLY, STYLES, load_assets
from chainrule.app.site.pages import LESSON_WAYS, PAGES, write_json, write_page
from chainrule.app.state.controls import CONTROLS
from chainrule.app.state.view import PANELS
from chainrule.app.text import read_sections
from chainrule.presets import PRESETS
from chainrule.spec.activations import ACTIVATIONS


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(), base_url="http://localhost") as client:
        yield client


def read_text(client, path: str) -> str:
    """Return the words of a page, without its markup."""
    text = client.get(path).text
    body = re.sub(r"(?s)<(script|style).*?</\1>", "", text.partition("<body>")[2])
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


class Nesting(HTMLParser):
    """Follows which elements are open, and notes an end that fits none."""

    EMPTY = frozenset(
        ["area", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[tuple[str, tuple[int, int]]] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """An element of SVG or MathML that ends where it begins."""

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append((tag, self.getpos()))


# --- pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_each_page_has_a_title_and_a_description_of_its_own(client, path):
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<title>{PAGES[path].title} · chainrule</title>" in page.text
    assert len(re.findall(r"<h1[ >]", page.text)) == 1
    assert page.text.count('aria-current="page"') == 1
    assert len({page.title for page in PAGES.values()}) == len(PAGES)
    assert len({page.description for page in PAGES.values()}) == len(PAGES)


@pytest.mark.parametrize("path", [*PAGES, "/?embed=gradient", "/nowhere"])
def test_every_element_of_a_page_ends_where_it_must(client, path):
    nesting = Nesting()
    nesting.feed(client.get(path).text)
    assert nesting.wrong == []
    assert nesting.open == []


STOPPED = (
    "explains itself here",
    "bound <",
    "divides the odds",
    "the odds that",
    "some usual learning rate trains it",
    "growth of small differences ÷ that of",
    "share is of all factors",
    "(wanted ",
    "is told",
    "gradient this short",
    "gradients so long",
    "Halves the mean square",
    "It holds where with He",
    "arrives with",
    "Of others, such as ReLU",
    "average out luck",
    "averages out luck",
    "illness",
    "stays ill",
    "as it was, and so does the diagnosis",
    "See its product of factors",
    "is likely to learn",
    "(extrapolated)",
    "Weights that ignore the width",
)
"""Parts of sentences at which readers of the pages stopped."""


@pytest.mark.parametrize("path", PAGES)
def test_no_page_says_what_stopped_its_readers(client, path):
    text = read_text(client, path)
    assert [phrase for phrase in STOPPED if phrase in text] == []


def test_no_answer_says_what_stopped_readers():
    """Every scenario with all of its remedies; Xavier, He and LeCun are never the subject alone."""
    for preset in PRESETS.values():
        flow = simulate(preset.spec, 2)
        remedies = find_remedies(preset.spec.replace(width=16), 1)
        words = [json.dumps(describe_flow(flow), ensure_ascii=False)]
        for remedy in remedies.tried:
            words += [remedy.title, remedy.outcome_text, str(remedy.reason)]
        text = " ".join(words)
        assert [phrase for phrase in STOPPED if phrase in text] == []
        assert not re.search(r"[.:] He (doubles|draws|makes|keeps)", text)


def test_the_text_of_the_explorer_is_in_its_page(client):
    text = read_text(client, "/")
    for control in CONTROLS.values():
        assert control.label in text
        assert control.help.replace("'", "&#39;") in text
    for preset in PRESETS.values():
        assert preset.label in text
    for title in PANELS.values():
        assert title in text
    for words in ("Train it for real", "What to change", "Learn why"):
        assert words in text


def test_the_text_of_the_lesson_is_in_its_page_alone(client):
    text, other = read_text(client, "/learn"), read_text(client, "/")
    for term, _ in GLOSSARY:
        assert term.partition(",")[0].partition("$")[0] in text
    for words in (
        "Backpropagation in one picture",
        "What this tool does",
        "chain rule, one layer at a time",
    ):
        assert words in text
    assert "Self-normalizing" in text
    assert "What this tool does" not in other
    assert GLOSSARY[0][1].partition("'")[0] in other  # explained where it is read
    for place, _ in LESSON_WAYS:
        assert f'id="lesson-{place}"' in client.get("/learn").text


def test_the_text_of_the_other_pages_is_in_them(client):
    chain = read_text(client, "/chain-rule")
    for section in read_sections("walk"):
        assert section.title in chain
        assert re.sub(r"<[^>]+>", "", section.body).split("\n")[0][:60] in chain
    for entry in ACTIVATIONS.values():
        assert entry.label in chain
    assert "chainrule inspect" in read_text(client, "/your-model")


@pytest.mark.parametrize("path", ["/no/such/page", "/explore", "/chain-rule/x", "/assets/x.js"])
def test_an_unknown_path_is_a_page_that_says_so(client, path):
    page = client.get(path)
    assert page.status_code == 404
    assert "There is no such page" in page.text
    for known in PAGES:
        assert f'href="{known}"' in page.text


@pytest.mark.parametrize("path", ["/api/nothing", "/files/"])
def test_an_unknown_question_is_answered_in_a_sentence(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert path in answer.json()["error"]


def test_a_wrong_method_is_answered_in_a_sentence(client):
    answer = client.post("/api/explore")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json()["error"]


@pytest.mark.parametrize("panel", PANELS)
def test_one_chart_alone_has_nothing_else(client, panel):
    text = client.get(f"/?embed={panel}").text
    assert text.count("data-chart=") == 1
    assert f'id="{panel}-chart"' in text
    assert "<header" not in text
    other = client.get("/?embed=nonsense").text.replace("?embed=nonsense&amp;quick", "?quick")
    assert other == client.get("/").text


def test_data_in_a_page_cannot_end_its_element():
    assert "</script>" not in write_json({"a": "</script><script>alert(1)"})


def test_only_the_known_script_stands_in_a_page(client):
    for path in [*PAGES, "/?embed=gradient"]:
        answer = client.get(path)
        found = re.findall(r"<script>(.*?)</script>", answer.text)
        policy = answer.headers["Content-Security-Policy"]
        digests = re.findall(r"'sha256-([^']+)'", policy)
        assert len(found) == len(digests) == 1
        assert not re.findall(r"\son\w+=", answer.text)


# --- files --------------------------------------------------------------------------------------


def test_pages_name_every_file_by_its_content(client):
    for path in PAGES:
        text = client.get(path).text
        named = re.findall(r'(?:href|src)="(/assets/[^"]+)"', text)
        assert named
        for address in named:
            answer = client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]


def test_scripts_that_a_page_will_import_are_announced(client):
    for path, page in PAGES.items():
        text = client.get(path).text
        announced = set(re.findall(r'rel="modulepreload" href="([^"]+)"', text))
        waiting, seen = [load_assets().locate(page.script)], set()
        while waiting:
            address = waiting.pop()
            script = client.get(address).text
            for found in re.findall(r'^import [^;("]*"([^"]+)"', script, re.MULTILINE):
                target = str(client.get(address).url.join(found).path)
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        assert seen == announced


def test_files_are_compressed_and_plain_for_who_cannot_read_that(client):
    address = load_assets().locate("shared/dom.js")
    packed = client.get(address, headers={"Accept-Encoding": "gzip"})
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content == (FOLDER / "shared/dom.js").read_bytes()
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


@pytest.mark.parametrize("path", ["/", "/assets/shared/dom.js", f"/assets/{PLOTLY}"])
def test_what_a_browser_has_already_is_not_sent_again(client, path):
    first = client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


def test_the_chart_library_is_the_vendored_one_with_its_licence(client):
    source = (FOLDER / f"{PLOTLY}.gz").read_bytes()
    answer = client.get(load_assets().locate(PLOTLY))
    assert answer.content == gzip.decompress(source)
    assert hashlib.sha256(answer.content).hexdigest()[:16] in str(answer.url)
    assert "MIT" in client.get("/assets/vendor/plotly-LICENSE.txt").text


def test_a_first_visit_is_light(client):
    """What a browser loads before the first chart: at most 700 KB, in at most 20 requests."""
    text = client.get("/").text
    named = re.findall(r'(?:<link[^>]+|<script[^>]+)(?:href|src)="(/assets/[^"]+)"', text)
    answers = ["/api/explore?quick=1", "/api/explore?", "/api/remedies?depth=15&init=xavier"]
    addresses = ["/", *named, *answers]
    sizes = [int(client.get(address).headers["content-length"]) for address in addresses]
    assert len(addresses) <= 20
    assert sum(sizes) <= 700_000


@pytest.mark.parametrize("query", ["", "depth=6&activation=tanh&pin=depth%3D4", 'x="<b>'])
def test_a_browser_is_told_to_ask_for_the_first_answer_at_once(client, query):
    text = client.get(f"/?{query}").text
    (link,) = re.findall(r'<link rel="preload" as="fetch" href="([^"]+)" crossorigin', text)
    path, _, asked = html.unescape(link).partition("?")
    assert path == "/api/explore"
    assert asked in (f"{query}&quick=1", f"{quote(query, safe='=&%')}&quick=1", "quick=1")
    assert client.get(html.unescape(link)).json()["quick"]
    assert 'as="fetch"' not in client.get("/?embed=factor").text
    assert "/api/explore" not in client.get("/learn").text


def test_every_style_sheet_is_used_by_some_page():
    joined = {part for parts in STYLES.values() for part in parts}
    assert joined == {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.css")}
    assert {page.styles for page in PAGES.values()} <= STYLES.keys()


def test_pages_are_written_once():
    page = PAGES["/"]
    assert write_page(page) is write_page(page)
