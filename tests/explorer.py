"""How tests read the explore page."""

from urllib.parse import quote

CHART = "document.querySelector('#gradient-chart')"
ROOT = "document.querySelector('#explore-root')"
SHOWN = "document.querySelector('[data-part=results]')?.dataset.shown"
TOUR = "document.querySelector('[data-part=tour]')"


def open_explorer(page, url: str, query: str = "") -> None:
    """Open the page and wait until it shows a measurement, and all that comes after it."""
    page.goto(f"{url}/{'?' if query else ''}{query}")
    # The script of the tour comes last: it may make the page's head higher, or go to a step.
    page.wait_for_function(f"!{TOUR} || {TOUR}.dataset.ready")
    wait_until_settled(page)


def wait_until_settled(page) -> None:
    """Wait until the newest answer is on screen, whole."""
    page.wait_for_function(
        f"{SHOWN} && !{ROOT}.dataset.pending && {SHOWN} === {ROOT}.dataset.address"
    )


def wait_for_layers(page, count: int) -> None:
    page.wait_for_function(f"{CHART}?.data?.[1]?.x?.length === {count}")


def read_chart(page, trace: int = 1) -> list[float | None]:
    return page.evaluate(f"Array.from({CHART}.data[{trace}].y)")


def read_part(page, name: str) -> str:
    return page.locator(f"[data-part='{name}']").first.inner_text()


def encode(text: str) -> str:
    return quote(text, safe="")


def measure(locator) -> dict[str, float]:
    """Return the rectangle of an element in the window."""
    return locator.evaluate(
        "node => { const r = node.getBoundingClientRect();"
        " return {left: r.left, right: r.right, top: r.top, bottom: r.bottom}; }"
    )


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two rectangles share more than an edge."""
    across = min(one["right"], other["right"]) - max(one["left"], other["left"])
    down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return across > 1 and down > 1
