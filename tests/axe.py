"""What axe finds on a page, at a third of the computing time of its plain run."""

import json
from collections.abc import Iterable
from typing import Any

from axe_playwright_python.sync_playwright import Axe

COLOR_RULES = ("color-contrast", "link-in-text-block")
"""All that can differ between light and dark."""

# Contrast is nearly all of the time, and reading the same few colours thousands of times a third
# of it: each is read once.
PREPARE = """() => {
  const color = axe.commons.color.Color.prototype;
  const { parseString } = color;
  const known = new Map();
  color.parseString = function (text) {
    if (!known.has(text)) {
      parseString.call(this, text);
      known.set(text, [this.r, this.g, this.b, this.alpha]);
    }
    [this.r, this.g, this.b, this.alpha] = known.get(text);
    return this;
  };
}"""


def find_violations(
    page: Any,
    *,
    rules: Iterable[str] = (),
    within: str = "html",
    without: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Return what breaks a rule of axe.

    Args:
        page: A page of a browser.
        rules: The only rules to look at; without any, all.
        within: Selector of the part to look at.
        without: Selectors of parts that are not looked at.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
        page.evaluate(PREPARE)
    context = {"include": [[within]], "exclude": [[selector] for selector in without]}
    # What passes is not described: that alone is a third of the time.
    options = {"resultTypes": ["violations"], **({"runOnly": [*rules]} if rules else {})}
    return page.evaluate(f"axe.run({json.dumps(context)}, {json.dumps(options)})")["violations"]


def list_serious(page: Any, **options: Any) -> list[str]:
    """Return what axe calls serious or critical, with the rule and the place of each."""
    return [
        f"{violation['id']}: {node['html'][:160]}"
        for violation in find_violations(page, **options)
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
