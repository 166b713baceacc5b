"""The pages' benchmark table: from an edit to the picture, as the browser itself measures it.

Beside each edit of a chain, taking turns with it, a bare fetch of the smallest file that the same
server sends: what no page can be faster than.
"""

import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

import chainrule.app

ROUNDS = 60
WARM_UP = 5
ASSETS = Path(chainrule.app.__file__).parent / "assets"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

EDIT = """value => new Promise(done => {
    const root = document.getElementById("chain-root");
    const box = root.querySelector('input[type="number"][data-name="w1"]');
    const drawn = new MutationObserver(() => {
        if (JSON.parse(root.dataset.shown).weights.split(",")[0] !== value) return;
        drawn.disconnect();
        requestAnimationFrame(() => done(performance.now() - start));
    });
    drawn.observe(root, { attributeFilter: ["data-shown"] });
    const start = performance.now();
    box.value = value;
    box.dispatchEvent(new Event("input", { bubbles: true }));
})"""

FETCH = """async path => {
    const start = performance.now();
    await (await fetch(path, { cache: "no-store" })).text();
    return performance.now() - start;
}"""

AWAIT_CHART = """layers => {
    const chart = document.querySelector("#gradient-chart .js-plotly-plot");
    window.painted = new Promise(done => {
        let start;
        const press = () => (start = performance.now());
        addEventListener("keydown", press, { capture: true, once: true });
        const look = () => {
            if (chart.data[1].x.length !== layers) return;
            chart.removeListener("plotly_afterplot", look);
            requestAnimationFrame(() => done(performance.now() - start));
        };
        chart.on("plotly_afterplot", look);
    });
}"""

REST = "() => new Promise(done => requestIdleCallback(() => done()))"


@dataclass(frozen=True)
class Row:
    what: str
    milliseconds: list[float]
    median_budget: float
    p95_budget: float | None = None
    bare: list[float] | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.milliseconds, n=20)[-1]

    @property
    def kept(self) -> bool:
        in_time = self.p95_budget is None or self.p95 <= self.p95_budget
        return self.median <= self.median_budget and in_time


@contextmanager
def serve() -> Iterator[str]:
    """Start the explorer as a user does; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "explore", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the explorer did not start"
        yield found.group()
    finally:
        process.terminate()
        process.wait(timeout=20)


def measure_edits(browser: Browser, url: str, layers: int, budget: float) -> Row:
    """Set w1 again and again; see graph, equation and chart follow."""
    page = open_page(browser, url)
    weights = ",".join(str((0.5, -2, 1.5)[n % 3]) for n in range(layers))
    page.goto(f"{url}/chain-rule?weights={weights}")
    page.wait_for_selector("#chain-root[data-shown]", state="attached")
    page.wait_for_function(
        "document.querySelector('[data-part=\"real-sentence\"]').textContent !== ''"
    )
    smallest = min(ASSETS.iterdir(), key=lambda path: path.stat().st_size)
    edits: list[float] = []
    bare: list[float] = []
    for turn in range(WARM_UP + ROUNDS):
        edits.append(page.evaluate(EDIT, f"{0.5 + (turn + 1) / 100:g}"))
        page.evaluate(REST)
        bare.append(page.evaluate(FETCH, f"/assets/{smallest.name}"))
    page.close()
    what = f"edit w₁ of {layers} layers → graph, equation and chart"
    return Row(what, edits[WARM_UP:], budget, bare=bare[WARM_UP:])


def measure_keys(browser: Browser, url: str) -> Row:
    """Press keys on the explorer's slider for the depth; see the chart follow."""
    page = open_page(browser, url)
    page.goto(url)
    shown = "document.querySelector('#gradient-chart .js-plotly-plot')?.data?.[1]?.x?.length"
    page.wait_for_function(f"{shown} === 15")
    page.get_by_role("slider", name="depth").focus()
    times = []
    for turn in range(WARM_UP + ROUNDS):
        deeper = turn % 2 == 0
        page.evaluate(AWAIT_CHART, 16 if deeper else 15)
        page.keyboard.press("ArrowRight" if deeper else "ArrowLeft")
        times.append(page.evaluate("() => window.painted"))
        page.evaluate(REST)
    page.close()
    return Row("explorer, 15×64, 16 networks: key → chart", times[WARM_UP:], 60.0, 90.0)


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)  # what both pages load is in the cache after this
    page.wait_for_selector("#gradient-chart .main-svg")
    return page


def main() -> None:
    """Print the table."""
    with serve() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        rows = [
            measure_edits(browser, url, 3, 30.0),
            measure_edits(browser, url, 12, 60.0),
            measure_keys(browser, url),
        ]
        browser.close()
    table = Table(title=f"chainrule pages in headless Chromium: milliseconds over {ROUNDS} edits")
    table.add_column("what")
    for heading in ("median", "p95", "a bare fetch", "budget", ""):
        table.add_column(heading, justify="right")
    for row in rows:
        budget = f"≤ {row.median_budget:g}"
        if row.p95_budget is not None:
            budget += f", p95 ≤ {row.p95_budget:g}"
        table.add_row(
            row.what,
            f"{row.median:.1f}",
            f"{row.p95:.1f}",
            "–" if row.bare is None else f"{statistics.median(row.bare):.1f}",
            budget,
            "✔" if row.kept else "missed",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
