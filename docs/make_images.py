"""Make the pictures of the documents: the page and the terminal, as a user sees them.

Run `make images`; it needs Chromium on the path.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def photograph_page(browser: Browser, url: str) -> None:
    """Photograph the explorer on a desktop and on a phone, light and dark."""
    for name, width, height, scheme in (
        ("explorer", 1280, 900, "light"),
        ("explorer-dark", 1280, 900, "dark"),
        ("explorer-phone", 390, 844, "light"),
    ):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(url)
        page.wait_for_selector("#gradient-chart .main-svg")
        page.wait_for_timeout(500)
        page.screenshot(path=IMAGES / f"{name}.png", full_page=scheme == "light")
        page.close()


def photograph_chain(browser: Browser, url: str) -> None:
    """Photograph the chain-rule page: graph beside equation, and the answer of the walk."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{url}/chain-rule")
    page.wait_for_selector("#chain-root[data-shown]")
    for _ in range(3):
        page.get_by_role("button", name="Next", exact=True).last.click()
    page.wait_for_timeout(300)
    page.screenshot(
        path=IMAGES / "chain-rule.png",
        full_page=True,
        clip={"x": 0, "y": 0, "width": 1280, "height": 1590},
    )
    page.goto(f"{url}/chain-rule?walk=5")
    page.wait_for_selector("#chain-root[data-shown]")
    page.locator('[data-part="depth-w"]').fill("4")
    page.wait_for_timeout(500)
    page.locator('[data-part="depth-card"]').screenshot(path=IMAGES / "chain-depth.png")
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
            page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
            page.goto(report.as_uri())
            page.locator("section.charts > *").first.screenshot(
                path=IMAGES / f"tutorial-plain-{name}.png"
            )
            page.close()


def photograph_terminal(browser: Browser) -> None:
    """Photograph what `chainrule inspect` prints."""
    script = (
        "import sys; from rich.console import Console; from chainrule import diagnose, inspect; "
        "from chainrule.terminal import print_flow; from chainrule.target import load_target; "
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
    svg = re.sub(r"@font-face \{.*?\}", "", done.stdout, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")
    page = browser.new_page(viewport={"width": 1240, "height": 800})
    page.set_content(f"<body style='margin:0'>{svg}</body>")
    page.locator("svg").first.screenshot(path=IMAGES / "terminal.png")
    page.close()


def main() -> None:
    """Start the explorer, take the pictures, stop it."""
    IMAGES.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "explore", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the explorer did not start"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS
            )
            photograph_page(browser, found.group())
            photograph_chain(browser, found.group())
            photograph_terminal(browser)
            photograph_tutorial(browser)
            browser.close()
    finally:
        process.terminate()


if __name__ == "__main__":
    main()
