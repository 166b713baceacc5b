"""A server as a user starts it, a Chromium, and pages on which nothing may go wrong."""

import os
import re
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

PATIENCE = 120_000
"""Milliseconds after which something that must happen on a page is said not to."""

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def serve_explorer(*options: str) -> Iterator[str]:
    """Start the explorer as a user does; give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "explore", "--no-browser", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # What it says must be read, or it would wait for a reader once the pipe is full.
    output = process.stdout
    assert output is not None
    reader = threading.Thread(target=output.read)
    try:
        ready, _, _ = select.select([output], [], [], PATIENCE / 1000)
        line = output.readline() if ready else ""
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"the explorer did not start: {line}{output.read() if line else ''}"
        reader.start()
        yield found.group()
    finally:
        process.terminate()
        process.wait(timeout=120)
        if reader.ident:
            reader.join(timeout=120)
        output.close()


@contextmanager
def launch_chromium():
    """Launch the Chromium on the path; without one the test is skipped, in CI it fails.

    Debian's `chromium-headless-shell` is the same engine without windows: it opens a page in half
    the time.
    """
    executable = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing; install it (Debian: apt-get install chromium)")
        pytest.skip("chromium is not installed")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=executable, args=CHROMIUM_ARGUMENTS, timeout=PATIENCE
        )
        # To wait for something, Playwright evaluates text on the page, which the pages' policy
        # forbids. test_pages_policy.py opens them with the policy in force.
        for name in ("new_page", "new_context"):
            opening = partial(getattr(chromium, name), bypass_csp=True)
            setattr(chromium, name, partial(wait_patiently, opening))
        yield chromium
        chromium.close()


def wait_patiently(opening: Callable[..., Any], **options: Any) -> Any:
    """Open a page or a context of a browser, on which whatever must happen has time to."""
    opened = opening(**options)
    opened.set_default_timeout(PATIENCE)
    return opened


@contextmanager
def watch(
    page,
    url: str,
    *,
    expected: Callable[[str], bool] = lambda problem: False,
    leave: Callable[[Any], None] = lambda page: page.close(),
):
    """Give a page and close it; nothing must have gone wrong on it.

    Problems are uncaught errors, errors in the console, dialogs and requests to another host.

    Args:
        page: A page of a browser.
        url: The only host it may ask.
        expected: Whether a problem is one that the test provokes.
        leave: What is done with the page at the end instead of closing it.
    """
    own = (url, url.replace("http", "ws", 1), "data:", "blob:")
    problems: list[str] = []
    listeners = {
        "pageerror": lambda error: problems.append(str(error)),
        "console": lambda m: problems.append(m.text) if m.type == "error" else None,
        "request": lambda r: None if r.url.startswith(own) else problems.append(r.url),
        "dialog": lambda dialog: (problems.append(f"a dialog: {dialog.message}"), dialog.dismiss()),
        "websocket": lambda w: None if w.url.startswith(own) else problems.append(w.url),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    try:
        yield page
    finally:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        leave(page)
    found = [problem for problem in problems if not expected(problem)]
    assert not found, found


def empty(page) -> None:
    """Leave a page as a new one is, for the next test.

    The same page again loads in a quarter of the computing time of a new one, for which Chromium
    opens a window, starts a process and compiles all scripts.
    """
    page.unroute_all(behavior="ignoreErrors")
    if page.url.startswith("http"):
        # Nor may what the page is just about to keep come to the next test.
        page.evaluate(
            "Storage.prototype.setItem = () => {}; localStorage.clear(); sessionStorage.clear()"
        )
    page.context.clear_cookies()
    page.goto("about:blank")  # what runs on the page ends
    page.emulate_media(color_scheme="light", reduced_motion="no-preference", forced_colors="none")
    page.mouse.move(0, 0)


def read_scheme(page) -> str:
    """Return whether a page is light or dark, by what is seen."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return "light" if min(map(int, re.findall(r"\d+", color)[:3])) > 127 else "dark"


def expect(found: Any) -> Any:
    """Return Playwright's assertions on a part of a page: each waits for its fact."""
    from playwright.sync_api import expect as assertions

    assertions.set_options(timeout=PATIENCE)
    return assertions(found)
