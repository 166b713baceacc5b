"""How tests read and use the chain-rule page."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from urllib.parse import parse_qs

import httpx

from chainrule.chain import ScalarChain, describe_chain, measure_depth
from chainrule.chain.document import describe_number
from serving import wait_until

START = ScalarChain(1.0, [0.5, -2.0, 1.5], "sigmoid")


def ask(url: str, route: str, **query) -> dict:
    answer = httpx.get(f"{url}/api/{route}", params=query, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def join(numbers) -> str:
    return ",".join(repr(number) for number in numbers)


PART = '[data-part="{}"]'


def visit(page, url, query=""):
    page.goto(f"{url}/chain-rule{query}")
    wait_for(page)
    return page


def wait_for(page, **query) -> None:
    """Wait until a chain has been drawn for which the page's question says this."""
    page.wait_for_function(
        """wanted => {
            const shown = document.getElementById("chain-root")?.dataset.shown;
            const query = shown && JSON.parse(shown);
            return query && Object.entries(wanted).every(([k, v]) => String(query[k]) === v);
        }""",
        arg={name: str(value) for name, value in query.items()},
    )


def read_query(page) -> dict[str, list[str]]:
    """Return what the address says now; `page.url` may learn it a moment later."""
    return parse_qs(page.evaluate("location.search.slice(1)"), keep_blank_values=True)


def copy(page, name: str) -> str:
    """Press a button that copies; return what was copied, once the page has said so.

    It says so for a second and a half only, in which a slow test may not look.
    """
    do(page, name).evaluate(
        """button => {
            window.said = [];
            new MutationObserver(() => said.push(button.textContent))
                .observe(button, { childList: true, characterData: true, subtree: true });
        }"""
    )
    do(page, name).click()
    page.wait_for_function("said.includes('Copied')")
    return page.evaluate("navigator.clipboard.readText()")


def count_entries(page) -> Callable[[], int]:
    """Return a function that says how many entries the page has added to the history since now.

    The length of the history would not do: browsers keep at most 50.
    """
    page.evaluate(
        """() => {
            const push = history.pushState.bind(history);
            window.entries = 0;
            history.pushState = (...given) => {
                window.entries += 1;
                push(...given);
            };
        }"""
    )
    return lambda: page.evaluate("window.entries")


def part(page, name: str):
    return page.locator(PART.format(name))


def text(page, name: str) -> str:
    return part(page, name).inner_text()


def do(page, name: str):
    return page.locator(f'button[data-do="{name}"]')


def box(page, name: str, kind: str = "number"):
    return page.locator(f'{PART.format("values")} input[type="{kind}"][data-name="{name}"]')


def assert_shows(page, chain: ScalarChain, wrt: str = "w1") -> None:
    """The graph, the equation, the chart, the table and the sentence are this chain's."""
    document = describe_chain(chain, wrt)
    factors, gradient = document["factors"], document["gradient"]
    bars = page.locator(".bar").evaluate_all(
        "bars => bars.map(bar => [...bar.querySelectorAll('text')].map(t => t.textContent))"
    )
    assert bars == [[factor["short"], factor["value"]["text"]] for factor in factors]
    rows = page.locator(f"{PART.format('factor-table')} tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert rows == [
        [f["short"], f["substituted"], f["value"]["text"], f["running_product"]["text"]]
        for f in factors
    ]
    subject = f"{document['subject']['text']} {gradient['relation']} {gradient['text']}"
    assert text(page, "step-sentence") == f"The whole product: {subject}."
    assert text(page, "step-product") == gradient["text"]
    title = page.locator("#graph-title").text_content()
    assert title == f"Computational graph: {subject}"
    lines = page.locator(f"{PART.format('lines')} math").evaluate_all(
        "lines => lines.map(line => line.textContent)"
    )
    assert lines[-2:] == [read_math(line["mathml"]) for line in document["lines"][-2:]]


def read_math(mathml: str) -> str:
    return "".join(ET.fromstring(mathml).itertext())


def read_all(page) -> dict:
    """Everything that the address must be able to bring back."""
    return page.evaluate(
        """() => ({
            graph: document.querySelector('[data-part="graph"]').textContent,
            lines: document.querySelector('[data-part="lines"]').textContent,
            bars: document.querySelector('[data-part="factors"]').textContent,
            walk: document.querySelector('[data-part="walk-title"]').textContent,
            controls: [...document.querySelectorAll(
                '[data-part="values"] input, [data-part="wrt"], [data-part="activation"],' +
                '[data-part="layers"], [data-part="biased"]'
            )].map(control => control.type === "checkbox" ? control.checked : control.value),
        })"""
    )


def read_lit(page) -> dict[str, list[str]]:
    """Return what is lit, by where it is."""
    return page.evaluate(
        """() => Object.fromEntries(Object.entries({
            graph: ".chain-graph .edge", equation: '[data-view="chain"] math .factor',
            chart: ".bar",
        }).map(([name, selector]) => [name, [...new Set(
            [...document.querySelectorAll(selector)].filter(entry => entry.matches(".lit"))
                .map(entry => entry.dataset.edge || entry.dataset.factor)
        )].sort()]))"""
    )


def find_point(page, selector: str) -> tuple[float, float]:
    """Return a point of an element: of a line, which has no area, its middle."""
    return tuple(
        page.locator(selector).first.evaluate(
            """element => {
                const find = () => {
                    const line = element.querySelector("path.line");
                    if (line) {
                        const at = line.getPointAtLength(line.getTotalLength() / 2)
                            .matrixTransform(line.getScreenCTM());
                        return [at.x, at.y];
                    }
                    const at = (element.querySelector(".shape, .hit") || element)
                        .getBoundingClientRect();
                    return [at.x + at.width / 2, at.y + at.height / 2];
                };
                for (const block of ["nearest", "end", "center", "start"]) {
                    element.scrollIntoView({ block, inline: "center", behavior: "instant" });
                    if (element.contains(document.elementFromPoint(...find()))) break;
                }
                return find();
            }"""
        )
    )


def hover(page, selector: str) -> None:
    page.mouse.move(*find_point(page, selector))


def leave(page) -> None:
    """Move the mouse off everything, and wait until the page has noticed."""
    page.mouse.move(0, 0)
    hovered = "document.querySelector('.factor:hover, .bar:hover, .edge:hover, .node:hover')"
    wait_until(lambda: not page.evaluate(f"() => Boolean({hovered})"))


def click(page, selector: str) -> None:
    page.mouse.click(*find_point(page, selector))


def term(factor: str, kind: str = "formulas") -> str:
    return f'li[data-kind="{kind}"] .factor[data-factor="{factor}"]'


def edge(name: str) -> str:
    return f'.chain-graph .edge[data-edge="{name}"]'


def node(name: str) -> str:
    return f'.chain-graph .node[data-node="{name}"]'


def bar(factor: str) -> str:
    return f'.bar[data-factor="{factor}"]'


DARK = {"graph": [], "equation": [], "chart": []}


def lights_of(factor: str) -> dict[str, list[str]]:
    """Return what must be lit, and nothing else, for a factor of the first chain."""
    edges = next(f.edges for f in START.factors("w1") if f.id == factor)
    return {"graph": sorted(edges), "equation": [factor], "chart": [factor]}


def read_later(page) -> list[list[str]]:
    return page.evaluate(
        """() => ['[data-view="chain"] li[data-kind="formulas"] .factor', ".bar"].map(selector =>
            [...document.querySelectorAll(selector)].filter(entry => entry.matches(".later"))
                .map(entry => entry.dataset.factor))"""
    )


def assert_at_step(page, count: int, chain: ScalarChain = START, wrt: str = "w1") -> None:
    factors = describe_chain(chain, wrt)["factors"]
    assert text(page, "step-count") == f"{count} of {len(factors)} factors"
    if count:
        assert text(page, "step-sentence") == f"{factors[count - 1]['sentence']}."
        assert text(page, "step-product") == factors[count - 1]["running_product"]["text"]
        assert read_lit(page)["chart"] == [factors[count - 1]["id"]]
    else:
        assert text(page, "step-product") == "1"
        assert read_lit(page) == DARK
    assert read_later(page) == [[factor["id"] for factor in factors[count:]]] * 2


def equal(weight: str, layers: int) -> str:
    return ",".join([weight] * layers)


def wait_for_depth(page, weight: float, activation: str) -> None:
    """Wait for what the library says of 50 layers."""
    curve = measure_depth(weight, activation)
    product, best = (describe_number(n)["text"] for n in (curve.products[-1], curve.best[-1]))
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"depth-end\"]').textContent === text",
        arg=f"After 50 layers: {product}, in the best case {best}.",
    )


def wait_for_cards(page) -> None:
    """Wait until every card has its answer: after that nothing moves by itself."""
    page.wait_for_function(
        """() => ["depth-sentence", "rnn-sentence", "real-sentence", "game-picture"].every(
            name => document.querySelector(`[data-part="${name}"]`).textContent.trim())"""
    )


def wait_for_network(page, words: str) -> str:
    """Wait until a network has been measured, and all else is there; return what is said of it."""
    page.wait_for_function(
        "text => document.querySelector('[data-part=\"real-sentence\"]')?.textContent"
        ".startsWith(text)",
        arg=words,
        timeout=120_000,
    )
    wait_for_cards(page)
    return text(page, "real-sentence")


REAL = '[data-view="real"]'
