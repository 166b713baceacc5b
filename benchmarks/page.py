"""The pages' benchmark table: from an edit to the picture, as the browser itself measures it.

Beside each edit of a chain, taking turns with it, a bare fetch of the smallest file that the same
server sends: what no page can be faster than. Beside each key on the explorer's slider the same key
on a bare page of the same stack (bare_page.py).
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

import chainrule.app

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browsing import CHROMIUM_ARGUMENTS, serve_explorer

WARM_UP = 5
DRAG_KEYS, KEY_PAUSE = 20, 40
EDIT_BUDGET = 4.0
"""An edit of a chain or an expression is painted within so many bare fetches."""

EXPRESSION = "h = sigmoid(w*x); y = h + tanh(v*h); y*y + max(h, b)"
"""Of 12 nodes, and several paths to w."""

ASSETS = Path(chainrule.app.__file__).parent / "assets"

EDIT = """([part, name, value]) => new Promise(done => {
    const root = document.getElementById(part);
    const box = root.querySelector(`input[type="number"][data-name="${name}"]`);
    const drawn = new MutationObserver(() => {
        const { weights, set } = JSON.parse(root.dataset.drawn);
        const said = weights?.split(",")[0] ?? set.split(",").find(each => each.startsWith(name));
        if (said !== value && said !== `${name}=${value}`) return;
        drawn.disconnect();
        // Painted: the frame after the drawing has been made.
        requestAnimationFrame(() => {
            const paint = new MessageChannel();
            paint.port1.onmessage = () => done(performance.now() - start);
            paint.port2.postMessage(0);
        });
    });
    drawn.observe(root, { attributeFilter: ["data-drawn"] });
    const start = performance.now();
    box.value = value;
    box.dispatchEvent(new Event("input", { bubbles: true }));
})"""

FETCH = """async path => {
    const start = performance.now();
    await (await fetch(path, { cache: "no-store" })).text();
    return performance.now() - start;
}"""

WATCH = """() => {
    const marks = (window.marks = {});
    const now = () => performance.now();
    addEventListener("keydown", event => (marks.key = event.timeStamp), { capture: true });
    const ask = window.fetch;
    window.fetch = async (...question) => {
        if (!String(question[0]).startsWith("/api/explore")) return ask(...question);
        const asked = now();
        const answer = await ask(...question);
        const heard = now();
        const parse = answer.json.bind(answer);
        answer.json = async () => {
            const parsed = await parse();
            const server = {};
            for (const part of answer.headers.get("Server-Timing").split(", ")) {
                const [name, time] = part.split(";dur=");
                server[name] = Number(time);
            }
            Object.assign(marks, { asked, heard, parsed: now(), server });
            return parsed;
        };
        return answer;
    };
    const draw = globalThis.Plotly.react;
    globalThis.Plotly.react = (chart, ...figure) => {
        const begun = now();
        const done = draw(chart, ...figure);
        if (chart.id === "gradient-chart") Object.assign(marks, { begun, drawn: now() });
        return done;
    };
    // Painted: the frame after the drawing has been made. A frame's callbacks run before it.
    window.painted = (shown) => new Promise(done => {
        const look = () => {
            if (!shown()) return requestAnimationFrame(look);
            const paint = new MessageChannel();
            paint.port1.onmessage = () => {
                marks.painted = now();
                done({ ...marks });
            };
            paint.port2.postMessage(0);
        };
        requestAnimationFrame(look);
    });
}"""

AWAIT_DEPTH = """depth => {
    const shown = () => document.getElementById("gradient-chart").data?.[1].x.length === depth;
    window.answer = painted(shown);
}"""

AWAIT_TEXT = """text => {
    window.answer = painted(() => document.getElementById("text").textContent === text);
}"""

GO = """const go = query => {
    history.pushState(null, "", `?${query}`);
    dispatchEvent(new PopStateEvent("popstate"));
};
const read = () => new URLSearchParams(document.getElementById("explore-root").dataset.address);
"""
"""Show a network as the back button does; read what the page shows."""

APPLY = """query => {
    GO
    const start = performance.now();
    go(query);
    const wanted = new URLSearchParams(query);
    const shown = () => {
        const view = read();
        const drawn = document.getElementById("gradient-chart").data[1].x.length;
        return view.get("seed") === wanted.get("seed") && drawn === Number(wanted.get("depth"));
    };
    return painted(shown).then(marks => marks.painted - start);
}""".replace("GO", GO)

SETTLED = """query => {
    const root = document.getElementById("explore-root");
    const shown = root.querySelector("[data-part=results]").dataset.shown;
    const remedies = root.querySelector("[data-part=remedies]");
    const calm = !remedies.classList.contains("ex-old");
    const view = new URLSearchParams(root.dataset.address);
    return calm && !root.dataset.pending && shown === root.dataset.address
        && view.get("seed") === new URLSearchParams(query).get("seed");
}"""

DRAG = """last => {
    const seen = (window.seen = { answers: 0, time: null });
    const root = document.getElementById("explore-root");
    new MutationObserver(() => {
        if (seen.time !== null) return;
        seen.answers += 1;
        if (Number(new URLSearchParams(root.dataset.address).get("depth")) !== last) return;
        painted(() => true).then(marks => (seen.time = marks.painted - marks.key));
    }).observe(root, { attributeFilter: ["data-address"] });
}"""

REST = "() => new Promise(done => requestIdleCallback(() => done()))"


@dataclass(frozen=True)
class Row:
    what: str
    milliseconds: list[float]
    median_budget: float | None = None
    p95_budget: float | None = None
    bare: list[float] | None = None
    ratio_budget: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.milliseconds, n=20, method="inclusive")[-1]

    @property
    def ratio(self) -> float | None:
        return None if self.bare is None else self.median / statistics.median(self.bare)

    @property
    def kept(self) -> bool:
        return all(
            budget is None or (found is not None and found <= budget)
            for found, budget in (
                (self.median, self.median_budget),
                (self.p95, self.p95_budget),
                (self.ratio, self.ratio_budget),
            )
        )

    @property
    def budget(self) -> str:
        """What must hold, in words."""
        parts = [
            (self.median_budget, "≤ {:g}"),
            (self.p95_budget, "p95 ≤ {:g}"),
            (self.ratio_budget, "≤ {:g} × bare"),
        ]
        return ", ".join(words.format(budget) for budget, words in parts if budget is not None)


Spent = dict[str, list[float]]
"""Where the time went: by part, milliseconds of every key press."""


@contextmanager
def serve_bare() -> Iterator[str]:
    """Start a bare page in a process of its own; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("bare_page.py")
    process = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def measure_chain_edits(browser: Browser, url: str, layers: int, rounds: int) -> Row:
    """Set w1 again and again; see graph, equation and gradients follow."""
    weights = ",".join(str((0.5, -2, 1.5)[n % 3]) for n in range(layers))
    page = open_page(browser, url)
    page.goto(f"{url}/chain-rule?weights={weights}")
    page.wait_for_function(
        "document.querySelector('[data-part=\"real-sentence\"]').textContent !== ''"
    )
    what = f"edit w₁ of {layers} layers → graph, equation, gradients painted; charts follow"
    return measure_edits(page, url, what, "chain-root", "w1", rounds)


def measure_expression_edits(browser: Browser, url: str, rounds: int) -> Row:
    """Set w of an expression of 12 nodes again and again; see graph and sums follow."""
    query = urlencode({"expr": EXPRESSION, "set": "x=1,w=0.5,v=0.3,b=0.2", "wrt": "w"})
    page = open_page(browser, url)
    page.goto(f"{url}/chain-rule?{query}")
    what = "edit w of 12 nodes → graph, sum over paths, gradients painted; costs follow"
    return measure_edits(page, url, what, "expression-root", "w", rounds)


def measure_edits(page: Page, url: str, what: str, part: str, name: str, rounds: int) -> Row:
    """Set a value again and again, each time one that nobody has asked for."""
    page.wait_for_selector(f"#{part}[data-shown]", state="attached")
    smallest = min(ASSETS.rglob("*.js"), key=lambda path: path.stat().st_size)
    edits: list[float] = []
    bare: list[float] = []
    for turn in range(WARM_UP + rounds):
        page.evaluate(REST)
        edits.append(page.evaluate(EDIT, [part, name, f"{0.5 + (turn + 1) / 100:g}"]))
        page.evaluate(REST)
        bare.append(page.evaluate(FETCH, f"/assets/{smallest.relative_to(ASSETS)}"))
    page.close()
    return Row(what, edits[WARM_UP:], bare=bare[WARM_UP:], ratio_budget=EDIT_BUDGET)


def measure_keys(browser: Browser, url: str, bare_url: str, rounds: int) -> tuple[Row, Spent]:
    """Press keys on the explorer's slider for the depth; see the chart follow.

    Every press asks for networks that nobody has measured before, and the page is at rest before.
    A bare page takes turns with it.
    """
    bare_page = browser.new_page(bypass_csp=True, viewport={"width": 1280, "height": 900})
    bare_page.goto(bare_url)
    bare_page.wait_for_selector("#slider")
    bare_page.evaluate("globalThis.Plotly = { react() {} }")
    bare_page.evaluate(WATCH)
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times: list[float] = []
    bare: list[float] = []
    spent: Spent = {}
    for turn in range(WARM_UP + rounds):
        bare_page.bring_to_front()
        bare_page.locator("#slider").focus()
        marks = press(bare_page, "ArrowRight", AWAIT_TEXT, f"{501 + turn}")
        bare.append(marks["painted"] - marks["key"])
        page.bring_to_front()
        settle(page, f"depth=15&activation=sigmoid&init=xavier&seed={1000 * turn + 17}")
        page.locator("#control-depth-slider").focus()
        marks = press(page, "ArrowRight", AWAIT_DEPTH, 16)
        times.append(marks["painted"] - marks["key"])
        if turn >= WARM_UP:
            for part, milliseconds in split_time(marks).items():
                spent.setdefault(part, []).append(milliseconds)
    page.close()
    bare_page.close()
    what = "explorer, 15×64, 16 networks: key → chart"
    return Row(what, times[WARM_UP:], 60.0, 90.0, bare=bare[WARM_UP:]), spent


def press(page: Page, key: str, watch: str, wanted: Any) -> dict[str, Any]:
    """Press a key and return when what happened, until what is wanted was painted."""
    page.evaluate(watch, wanted)
    page.keyboard.press(key)
    return page.evaluate("() => window.answer")


def settle(page: Page, query: str) -> None:
    """Show a network and wait until nothing is being measured or drawn any more."""
    page.evaluate(f"query => {{ {GO} go(query); }}", query)
    page.wait_for_function(SETTLED, arg=query, timeout=120_000)
    page.evaluate(REST)


def split_time(marks: dict[str, Any]) -> dict[str, float]:
    """Return where the time of one key press went, in milliseconds."""
    server = marks["server"]
    return {
        "key → request": marks["asked"] - marks["key"],
        "server: waiting": server["wait"],
        "server: measuring": server["measure"],
        "server: describing": server["describe"],
        "on the way": marks["heard"] - marks["asked"] - sum(server.values()),
        "parsing": marks["parsed"] - marks["heard"],
        "cards and controls": marks["begun"] - marks["parsed"],
        "drawing": marks["drawn"] - marks["begun"],
        "painting": marks["painted"] - marks["drawn"],
    }


def measure_first_answer(browser: Browser, url: str, rounds: int) -> Row:
    """Show networks of 1000 layers that nobody has measured; see the first answer."""
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times = []
    for turn in range(rounds):
        settle(page, f"depth=4&width=8&activation=relu&init=he&seed={turn + 1}")
        query = f"depth=1000&width=64&activation=relu&init=he&seed={1000 * turn + 50}"
        times.append(page.evaluate(APPLY, query))
    page.close()
    return Row("explorer, 1000×64, 16 networks: → first answer", times, 600.0)


def measure_drags(browser: Browser, url: str, rounds: int) -> tuple[Row, list[int]]:
    """Hold a key on the slider for the depth of wide networks; see when the last is shown.

    Returns:
        The row, and how many answers were shown on the way.
    """
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times, answers = [], []
    for turn in range(rounds):
        settle(page, f"depth=100&width=256&activation=relu&init=he&seed={1000 * turn + 99}")
        page.locator("#control-depth-slider").focus()
        page.evaluate(DRAG, 100 - DRAG_KEYS)
        for _ in range(DRAG_KEYS):
            page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(KEY_PAUSE)
        page.wait_for_function("() => window.seen.time !== null", timeout=60_000)
        times.append(page.evaluate("() => window.seen.time"))
        answers.append(page.evaluate("() => window.seen.answers"))
    page.close()
    return Row("explorer, 100×256: last of 20 keys → its first answer", times, 600.0), answers


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(bypass_csp=True, viewport={"width": 1280, "height": 900})
    page.goto(url)  # what both pages load is in the cache after this
    page.wait_for_selector("#gradient-chart .main-svg")
    page.wait_for_selector("#explore-root:not([data-pending])")
    return page


def show_rows(rows: list[Row]) -> Table:
    """Return the main table."""
    table = Table(title="chainrule pages in headless Chromium: milliseconds")
    table.add_column("what")
    for heading in ("times", "fastest", "median", "p95", "bare", "× bare", "budget", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.what,
            str(len(row.milliseconds)),
            f"{min(row.milliseconds):.1f}",
            f"{row.median:.1f}",
            f"{row.p95:.1f}",
            "–" if row.bare is None else f"{statistics.median(row.bare):.1f}",
            "–" if row.ratio is None else f"{row.ratio:.1f}",
            row.budget,
            "✔" if row.kept else "missed",
        )
    table.caption = (
        "bare: for edits a fetch of the smallest file, for keys the same key on a page of "
        "the same stack that shows one number"
    )
    return table


def show_spent(spent: Spent) -> Table:
    """Return the table of where the time of a key press went."""
    table = Table(title="where the time of key → chart goes: milliseconds")
    for heading in ("part", "fastest", "median", "p95"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, times in spent.items():
        p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
        table.add_row(part, f"{min(times):.1f}", f"{statistics.median(times):.1f}", f"{p95:.1f}")
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The pages' benchmark.")
    parser.add_argument("--rounds", type=int, default=60, help="presses and edits of each kind")
    parser.add_argument("--only", choices=["edits", "keys", "large"], help="one part of it")
    options = parser.parse_args()
    rounds, only = options.rounds, options.only
    rows: list[Row] = []
    console = Console(width=130)
    print(f"load averages: {describe_load()}")
    with serve_explorer() as url, serve_bare() as bare_url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        if only in (None, "edits"):
            rows.append(measure_chain_edits(browser, url, 3, rounds))
            rows.append(measure_chain_edits(browser, url, 12, rounds))
            rows.append(measure_expression_edits(browser, url, rounds))
        if only in (None, "keys"):
            row, spent = measure_keys(browser, url, bare_url, rounds)
            rows.append(row)
            console.print(show_spent(spent))
        if only in (None, "large"):
            few = max(3, rounds // 10)
            rows.append(measure_first_answer(browser, url, few))
            row, answers = measure_drags(browser, url, few)
            rows.append(row)
            print(f"answers shown during each drag of {DRAG_KEYS} keys: {answers}")
        browser.close()
    console.print(show_rows(rows))
    print(f"load averages: {describe_load()}")


def describe_load() -> str:
    """Return how busy the machine is: a table made on a busy one says little."""
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    main()
