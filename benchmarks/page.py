"""The pages' benchmark table: from an edit to the picture, as the browser itself measures it.

Beside each edit of a chain, taking turns with it, a bare fetch of the smallest file that the same
server sends: what no page can be faster than. Beside each key on the explorer's slider the same key
on a bare page of the same stack (bare_page.py).

"First picture" is the first truthful one of a new setting: the main chart, the strip and the
verdict of one network, measured by autograd. "Refined" is the main chart of all of its networks,
which the page asks for after 150 ms of rest.
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

WATCH = """async () => {
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
            for (const part of answer.headers.get("Server-Timing")?.split(", ") ?? []) {
                const [name, time] = part.split(";dur=");
                server[name] = Number(time);
            }
            const whole = !/(quick|first)=1$/.test(question[0]);
            Object.assign(marks, { asked, heard, parsed: now(), server, whole });
            return parsed;
        };
        return answer;
    };
    const script = document.querySelector('link[href$="/shared/quick_chart.js"]');
    if (script) {
        const { QuickChart } = await import(script.href);
        const draw = QuickChart.prototype.show;
        QuickChart.prototype.show = function (figure) {
            marks.begun = now();
            draw.call(this, figure);
            marks.drawn = now();
        };
    }
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
    const { dataset } = document.querySelector("[data-part=results]");
    marks.whole = false;
    const is = () => Number(new URLSearchParams(dataset.painted).get("depth")) === depth;
    window.answer = painted(is);
    window.refined = painted(() => is() && marks.whole);
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
        const { painted } = document.querySelector("[data-part=results]").dataset;
        const view = new URLSearchParams(painted);
        return ["seed", "depth"].every(name => view.get(name) === wanted.get(name));
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
    const seen = (window.seen = { depths: new Set(), time: null });
    const results = document.querySelector("[data-part=results]");
    const watcher = new MutationObserver(() => {
        const depth = Number(new URLSearchParams(results.dataset.painted).get("depth"));
        seen.depths.add(depth);
        if (depth !== last) return;
        watcher.disconnect();
        painted(() => true).then(marks => (seen.time = marks.painted - marks.key));
    });
    watcher.observe(results, { attributeFilter: ["data-painted"] });
}"""

FIRST_PAINT = """() => {
    const look = new MutationObserver(() => {
        if (!document.querySelector(".fv-quick path, .scatterlayer path")) return;
        look.disconnect();
        requestAnimationFrame(() => setTimeout(() => (window.first = performance.now())));
    });
    look.observe(document, { childList: true, subtree: true });
}"""
"""From the request for the page to the frame with the first chart."""

LOADED = """() => {
    const all = [...performance.getEntriesByType("navigation"),
        ...performance.getEntriesByType("resource")];
    return [all.length, all.reduce((sum, { transferSize }) => sum + transferSize, 0)];
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


def measure_keys(browser: Browser, url: str, bare_url: str, rounds: int) -> tuple[Row, Row, Spent]:
    """Press keys on the explorer's slider for the depth; see the chart follow.

    Every press asks for networks that nobody has measured before, and the page is at rest before.
    A bare page takes turns with it.

    Returns:
        The first picture and the refined one, and where the time until the first went.
    """
    bare_page = browser.new_page(bypass_csp=True, viewport={"width": 1280, "height": 900})
    bare_page.goto(bare_url)
    bare_page.wait_for_selector("#slider")
    bare_page.evaluate(WATCH)
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times: list[float] = []
    refined: list[float] = []
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
        refined.append(page.evaluate("() => window.refined")["painted"] - marks["key"])
        if turn >= WARM_UP:
            for part, milliseconds in split_time(marks).items():
                spent.setdefault(part, []).append(milliseconds)
    page.close()
    bare_page.close()
    what = "explorer, 15×64: key → first picture"
    first = Row(what, times[WARM_UP:], 60.0, 90.0, bare[WARM_UP:], ratio_budget=1.5)
    return first, Row("explorer, 15×64: key → refined, 16 networks", refined[WARM_UP:]), spent


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
        "controls": marks["begun"] - marks["parsed"],
        "drawing": marks["drawn"] - marks["begun"],
        "words, strip, painting": marks["painted"] - marks["drawn"],
    }


def measure_first_pictures(browser: Browser, url: str, rounds: int) -> list[Row]:
    """Show networks that nobody has measured, of 15 and of 1000 layers in turns.

    Returns:
        The times until the first picture of either.
    """
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times: dict[int, list[float]] = {15: [], 1000: []}
    for turn in range(rounds):
        for depth, found in times.items():
            settle(page, f"depth=4&width=8&activation=relu&init=he&seed={turn + 1}")
            seed = 1000 * turn + 50
            found.append(page.evaluate(APPLY, f"depth={depth}&activation=relu&init=he&seed={seed}"))
    page.close()
    usual, large = times.values()
    return [
        Row("explorer, 15×64: → first picture", usual),
        Row("explorer, 1000×64: → first picture", large, 600.0),
    ]


def measure_drags(
    browser: Browser, url: str, rounds: int, depth: int, width: int
) -> tuple[Row, list[int], float]:
    """Hold a key on the slider for the depth; see when the last setting is shown.

    Returns:
        The row, how many settings were drawn in each drag, and how many a second.
    """
    page = open_page(browser, url)
    page.evaluate(WATCH)
    times, drawn, speeds = [], [], []
    for turn in range(rounds):
        seed = 1000 * turn + 99
        settle(page, f"depth={depth}&width={width}&activation=relu&init=he&seed={seed}")
        page.locator("#control-depth-slider").focus()
        page.evaluate(DRAG, depth - DRAG_KEYS)
        begun = page.evaluate("() => performance.now()")
        for _ in range(DRAG_KEYS):
            page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(KEY_PAUSE)
        page.wait_for_function("() => window.seen.time !== null", timeout=60_000)
        times.append(page.evaluate("() => window.seen.time"))
        drawn.append(page.evaluate("() => window.seen.depths.size"))
        until = page.evaluate("() => marks.key + window.seen.time")
        speeds.append(1000 * drawn[-1] / (until - begun))
    page.close()
    what = f"explorer, {depth}×{width}: last of {DRAG_KEYS} keys → its first picture"
    return Row(what, times, 600.0), drawn, statistics.median(speeds)


def measure_visits(browser: Browser, url: str, rounds: int) -> tuple[Row, list[tuple[int, int]]]:
    """Visit the explorer with an empty cache; see the first chart.

    Returns:
        The row, and of each visit the requests and bytes until half a second after that.
    """
    times, loaded = [], []
    for _ in range(rounds):
        context = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.add_init_script(f"({FIRST_PAINT})()")
        page.goto(url)
        page.wait_for_function("() => window.first", timeout=60_000)
        times.append(page.evaluate("() => window.first"))
        page.wait_for_timeout(500)
        requests, size = page.evaluate(LOADED)
        loaded.append((requests, size))
        context.close()
    return Row("explorer: request → first chart, nothing cached", times, 1000.0), loaded


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
    parser.add_argument(
        "--only", choices=["edits", "keys", "large", "drags", "visits"], help="one part of it"
    )
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
            first, refined, spent = measure_keys(browser, url, bare_url, rounds)
            rows += first, refined
            console.print(show_spent(spent))
        few = max(3, rounds // 10)
        if only in (None, "large"):
            rows += measure_first_pictures(browser, url, few)
        if only in (None, "drags"):
            for depth, width in ((35, 64), (100, 256)):
                row, drawn, speed = measure_drags(browser, url, few, depth, width)
                rows.append(row)
                print(
                    f"{depth}×{width}: settings drawn in each drag of {DRAG_KEYS} keys, at least "
                    f"{KEY_PAUSE} ms apart: {drawn}; {speed:.0f} a second"
                )
        if only in (None, "visits"):
            row, loaded = measure_visits(browser, url, few)
            rows.append(row)
            print(f"requests and bytes of each first visit: {loaded}")
        browser.close()
    console.print(show_rows(rows))
    print(f"load averages: {describe_load()}")


def describe_load() -> str:
    """Return how busy the machine is: a table made on a busy one says little."""
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    main()
