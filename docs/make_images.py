"""Make the pictures of the documents: the page and the terminal, as a user sees them.

Run `make images`; it needs Chromium on the path.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browsing import CHROMIUM_ARGUMENTS, serve_explorer

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"
MAP_STORE, MAP_TABLE = ROOT / ".venv/phase-map.db", ROOT / "benchmarks/phase_map.csv"
"""What the phase map of README goes on from, and the values that it shows."""

STILL = "header.site, .cr-graph, .cr-strip { position: static !important }"
"""What stays in sight on a screen would lie over a picture higher than the screen."""


def photograph_explorer(browser: Browser, url: str) -> None:
    """Photograph the explorer: scenarios, desktop and phone, light and dark."""
    for name, scenario, width, height, scheme in (
        ("explorer", "Vanishing (Sigmoid)", 1400, 1220, "light"),
        ("explorer-healthy", "Healthy (ReLU + He)", 1400, 1220, "light"),
        ("explorer-dark", "Exploding (ReLU + random σ = 1)", 1400, 1220, "dark"),
        ("explorer-phone", "Vanishing (Sigmoid)", 390, 1700, "light"),
        ("explorer-phone-dark", "Deep and rescued (100 layers, residual)", 390, 1700, "dark"),
    ):
        page = open_explorer(browser, url, f"preset={quote(scenario)}", (width, height), scheme)
        page.screenshot(path=IMAGES / f"{name}.png")
        page.close()


def photograph_uses(browser: Browser, url: str) -> None:
    """Photograph what can be done: compare, change, train, learn."""
    scenario = f"preset={quote('Vanishing (Sigmoid)')}"
    page = open_explorer(browser, url, scenario, (1400, 1220), "light")
    page.wait_for_selector(".ex-remedy", timeout=60_000)
    page.locator("#what-to-change").screenshot(path=IMAGES / "remedies.png", style=STILL)
    page.get_by_role("button", name="Pin to compare").click()
    page.get_by_role("button", name="Healthy (ReLU + He)").click()
    page.wait_for_function("document.querySelectorAll('.ex-differences li').length > 4")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "compare.png")
    train = page.locator("#train")
    train.scroll_into_view_if_needed()  # its script is loaded when it comes near
    train.get_by_label("optimizer").select_option(label="Adam")
    train.get_by_role("button", name="Train").click()
    page.wait_for_function(
        "document.querySelectorAll('#train [data-part=ends] p').length === 2 && "
        "!document.querySelector('#train [data-part=begin]').disabled",
        timeout=120_000,
    )
    page.wait_for_timeout(500)
    train.screenshot(path=IMAGES / "training.png", style=STILL)
    page.set_viewport_size({"width": 1366, "height": 900})
    page.goto(f"{url}/learn#lesson-claims")
    page.wait_for_selector('[data-part="picture"][data-network*="relu"] .main-svg')
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "lesson-claims.png")
    page.close()


def open_explorer(
    browser: Browser, url: str, query: str, size: tuple[int, int], scheme: Any
) -> Page:
    """Return a page that shows an address, settled."""
    page = browser.new_page(
        bypass_csp=True, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    page.goto(f"{url}/?{query}")
    page.wait_for_function(
        "document.querySelector('[data-part=results]')?.dataset.shown && "
        "!document.querySelector('#explore-root').dataset.pending"
    )
    page.wait_for_function("document.querySelector('[data-part=remedies]').dataset.shown")
    page.wait_for_timeout(800)
    return page


def photograph_chain(browser: Browser, url: str) -> None:
    """Photograph the chain, the answer of the walk, and the product of a measured network."""
    page = browser.new_page(bypass_csp=True, viewport={"width": 1280, "height": 900})
    page.goto(f"{url}/chain-rule")
    page.wait_for_selector("#chain-root[data-shown]")
    for _ in range(3):
        page.locator('[data-do="next"]').click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.locator('[data-view="chain"]').screenshot(path=IMAGES / "chain-rule.png", style=STILL)
    page.goto(f"{url}/chain-rule?walk=5")
    page.wait_for_selector("#chain-root[data-shown]")
    page.locator('[data-part="depth-w"]').fill("4")
    page.wait_for_timeout(500)
    page.locator('[data-part="depth-card"]').screenshot(
        path=IMAGES / "chain-depth.png", style=STILL
    )
    page.goto(f"{url}/chain-rule?depth=12&network_activation=sigmoid&init=xavier")
    page.wait_for_selector('[data-part="real-check"]:not(:empty)')
    for _ in range(5):
        page.locator('[data-do="real-next"]').click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.locator('[data-view="real"]').screenshot(path=IMAGES / "chain-network.png", style=STILL)
    page.close()


def photograph_tutorial(browser: Browser) -> None:
    """Photograph the gradients of the tutorial's network, before and after its remedy."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    import plain_network  # type: ignore[import-not-found]

    import chainrule

    model, compute_loss = plain_network.build()
    found = chainrule.find_remedies(model, compute_loss)
    flows = {"before": found.before, "after": found[0].after}
    for name, flow in flows.items():
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.html"
            chainrule.write_report(flow, report)
            page = browser.new_page(
                bypass_csp=True, viewport={"width": 1000, "height": 900}, color_scheme="light"
            )
            page.goto(report.as_uri())
            page.locator("section.charts > *").first.screenshot(
                path=IMAGES / f"tutorial-plain-{name}.png"
            )
            page.close()


def photograph_terminal(browser: Browser) -> None:
    """Photograph what `chainrule inspect` prints."""
    script = (
        "import sys; from rich.console import Console; from chainrule import diagnose, inspect; "
        "from chainrule.display.terminal import print_flow; "
        "from chainrule.cli.target import load_target; "
        "flow = inspect(*load_target('examples/classic_sigmoid.py:build')); "
        "console = Console(record=True, width=100, file=open('/dev/null', 'w')); "
        "console.print('[bold]$ chainrule inspect examples/classic_sigmoid.py:build[/]\\n'); "
        "print_flow(console, flow, diagnose(flow)); "
        "print(console.export_svg(title='chainrule'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=IMAGES.parent.parent,
    )
    photograph_svg(browser, done.stdout, "terminal")


def photograph_svg(browser: Browser, text: str, name: str) -> None:
    """Photograph a terminal that rich has drawn, in a font that is here."""
    drawn = re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code", "DejaVu Sans Mono")
    page = browser.new_page(bypass_csp=True, viewport={"width": 1240, "height": 800})
    page.set_content(f"<body style='margin:0'>{drawn}</body>")
    page.locator("svg").first.screenshot(path=IMAGES / f"{name}.png")
    page.close()


def photograph_demo(browser: Browser) -> None:
    """Do what the README says, `chainrule demo`: the alarm in the terminal and on the page."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "demo", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "92"},
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if "has ended" in line:
                break
        said = Text.from_ansi("".join(lines))
        address = re.search(r"http://\S+", said.plain)
        assert address, said.plain
        for name, width, height, scheme in (
            ("runs", 1440, 900, "light"),
            ("runs-dark", 1440, 900, "dark"),
            ("runs-phone", 390, 844, "light"),
            ("runs-phone-dark", 390, 844, "dark"),
        ):
            page = browser.new_page(
                bypass_csp=True,
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto(address.group())
            page.wait_for_selector("[data-ready]")
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
            page.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        process.stdout.close()
    console = Console(record=True, width=92, file=io.StringIO())
    console.print("[bold]$ chainrule demo[/]")
    console.print(said, end="")
    photograph_svg(browser, console.export_svg(title="chainrule demo"), "demo")


def photograph_map(browser: Browser) -> None:
    """Draw a phase map: theory, measurement and training of 72 networks. Minutes, at first."""
    from plotly.offline import get_plotlyjs

    from chainrule.sweeps import Training, phase_map

    axes = {
        "weight_scale": [round(0.5 + 0.2 * step, 1) for step in range(12)],
        "depth": range(8, 49, 8),
    }
    training = Training(optimizer="adam", steps=100)
    found = phase_map(axes, training=training, store=MAP_STORE)
    found.write(MAP_TABLE)
    print(found.summary)
    figure = found.plot().update_layout(width=900, height=520, paper_bgcolor="white")
    page = browser.new_page(
        bypass_csp=True, viewport={"width": 900, "height": 520}, device_scale_factor=1.5
    )
    page.set_content("<body style='margin:0'><div id='map'></div>")
    page.add_script_tag(content=get_plotlyjs())
    page.evaluate(f"Plotly.newPlot('map', {figure.to_json()})")
    page.wait_for_selector("#map .legend")
    page.screenshot(path=IMAGES / "phase-map.png")
    page.close()


def main() -> None:
    """Start the explorer, take the pictures, stop it."""
    IMAGES.mkdir(exist_ok=True)
    with serve_explorer() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
        )
        photograph_explorer(browser, url)
        photograph_uses(browser, url)
        photograph_chain(browser, url)
        photograph_terminal(browser)
        photograph_tutorial(browser)
        photograph_demo(browser)
        photograph_map(browser)
        browser.close()


if __name__ == "__main__":
    main()
