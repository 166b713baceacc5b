"""The guard: under which names the explorer is served, to whose pages, and with which headers."""

import socket

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from chainrule.app import create_app
from chainrule.app.guard import BODY, Guard, choose_hosts, read_host
from chainrule.app.site.assets import PLOTLY, load_assets
from chainrule.app.state.view import PANELS

PAGES = ["/", "/chain-rule", "/your-model"]
NOWHERE = ["/no/such/page", "/assets/no.js", "/api/no", "/files", "/docs"]
ASSETS = ["/assets/shared/dom.js", load_assets().locate("shared/dom.js"), f"/assets/{PLOTLY}"]
COSTLY = ["/api/depth", "/api/explore?depth=1&width=1", "/files/flow.json?depth=1", "/listing.py"]


@pytest.fixture(scope="module")
def client():
    with TestClient(create_app(), base_url="http://localhost") as client:
        yield client


# --- the host -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8050", "localhost"),
        ("localhost.", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8050", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("", None),
        ("evil@localhost", None),
        ("localhost/x", None),
        ("localhost:port", None),
        ("localhost:99999", None),
        ("[::1", None),
        (":80", None),
    ],
)
def test_hosts_are_read(header, host):
    assert read_host(header) == host


OWN = socket.gethostname()


@pytest.mark.parametrize(
    ("bound", "allowed", "header", "served"),
    [
        ("127.0.0.1", (), "127.0.0.1:8050", True),
        ("127.0.0.1", (), "localhost:8050", True),
        ("127.0.0.1", (), "[::1]:8050", True),
        ("127.0.0.1", (), "attacker.example", False),
        ("127.0.0.1", (), "localhost.attacker.example", False),
        ("127.0.0.1", (), "10.0.0.1", False),
        ("127.0.0.1", ("Flow.Example.org",), "flow.example.org", True),
        ("127.0.0.1", ("flow.example.org",), "www.flow.example.org", False),
        ("127.0.0.1", ("*",), "attacker.example", True),
        ("::1", (), "[::1]:8050", True),
        ("localhost", (), "127.0.0.1", True),
        ("192.168.1.5", (), "192.168.1.5:8050", True),
        ("192.168.1.5", (), "192.168.1.6:8050", False),
        ("0.0.0.0", (), "192.168.1.6:8050", True),
        ("::", (), "[fe80::1]:8050", True),
        ("0.0.0.0", (), OWN, True),
        ("0.0.0.0", (), "attacker.example", False),
    ],
)
def test_only_known_names_are_served(bound, allowed, header, served):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    guard = Guard(answer, hosts=choose_hosts(bound, allowed), script_hashes=())
    answered = TestClient(guard).get("/api/x", headers={"Host": header})
    assert answered.status_code == (200 if served else 421)
    if not served:
        assert header in answered.json()["error"]
        assert "--allow-host" in answered.json()["error"]


@pytest.mark.parametrize("path", ["/", "/api/explore", "/no/such/page"])
def test_no_web_socket_is_opened(client, path):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
        pass


# --- whose page asks ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", COSTLY)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://example.com"},
        {"Origin": "null"},
    ],
)
def test_pages_of_other_sites_may_not_make_it_work(client, path, headers):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert "own page" in answer.json()["error"]
    posted = client.post("/api/flow", headers=headers, content=b"{}")
    assert posted.status_code == 403


@pytest.mark.parametrize("path", COSTLY)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
    ],
)
def test_its_own_pages_and_programs_may(client, path, headers):
    assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_links_from_other_sites_lead_to_the_pages(client, path):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get(path, headers=headers).status_code == 200


# --- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, *NOWHERE, *ASSETS, *COSTLY, "/api/depth?w=x", "/files/x"])
def test_every_answer_carries_the_headers(client, path):
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    policy = read_policy(headers)
    assert policy["default-src"] == ["'self'"]
    assert "'unsafe-inline'" not in policy["script-src"]
    assert "'unsafe-eval'" not in policy["script-src"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert policy["object-src"] == policy["base-uri"] == ["'none'"]


def test_refusals_carry_them_too(client):
    for headers in ({"Host": "attacker.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert "Content-Security-Policy" in client.get("/api/depth", headers=headers).headers


def read_policy(headers) -> dict[str, list[str]]:
    parts = (part.split() for part in headers["Content-Security-Policy"].split(";"))
    return {name: values for name, *values in parts}


@pytest.mark.parametrize("panel", PANELS)
def test_one_panel_may_be_framed(client, panel):
    policy = read_policy(client.get(f"/?depth=3&embed={panel}").headers)
    assert policy["frame-ancestors"] == ["*"]


@pytest.mark.parametrize("query", ["", "embed=", "embed=all", "embed=gradient&embed=x", "x=embed"])
def test_nothing_else_may(client, query):
    assert read_policy(client.get(f"/?{query}").headers)["frame-ancestors"] == ["'none'"]
    policy = read_policy(client.get("/chain-rule?embed=gradient").headers)
    assert policy["frame-ancestors"] == ["'none'"]


# --- bodies and errors --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/no/such/page", "/api/depth", "/"])
def test_bodies_are_bounded(client, path):
    assert client.post(path, content=b"x" * (BODY + 1)).status_code == 413
    assert client.post(path, content=iter([b"x"] * 3)).status_code == 411


def test_a_failure_of_the_server_is_told_without_details():
    async def fail(scope, receive, send):
        raise RuntimeError("/secret/path")

    guard = Guard(fail, hosts=["*"], script_hashes=())
    answer = TestClient(guard).get("/")
    assert answer.status_code == 500
    assert answer.json() == {"error": "The server could not answer this request."}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
