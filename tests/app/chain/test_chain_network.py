"""The chain-rule page: the product of a real network."""

import itertools

import pytest

from chain_page import (
    DARK,
    REAL,
    START,
    assert_shows,
    box,
    copy,
    do,
    hover,
    leave,
    part,
    read_lit,
    read_math,
    text,
    visit,
    wait_for,
    wait_for_network,
)
from chainrule import PRESETS, NetworkSpec, simulate
from chainrule.chain import describe_product, measure_product
from chainrule.display.cards import describe_spec

FIRST = next(iter(PRESETS.values())).spec
"""What the explorer starts with."""


CHART = "document.querySelector('#gradient-chart')"


def wait_for_gradients(page, spec: NetworkSpec) -> None:
    """Wait until the explorer shows what `simulate` measures."""
    expected = list(simulate(spec, 16).weight_gradient_norms)
    page.wait_for_function(
        f"""expected => {{
            const shown = {CHART}?.data?.[1]?.y;
            return shown?.length === expected.length && expected.every(
                (value, i) => Math.abs(shown[i] - value) <= 1e-9 * Math.abs(value));
        }}""",
        arg=expected,
    )


def read_real(page) -> dict[str, list[str]]:
    """Return what is lit of the measured network, by where it is."""
    return page.evaluate(
        """() => Object.fromEntries(Object.entries({
            equation: "li[data-kind='formulas'] .factor", strip: ".link", chart: ".gain",
            gradients: ".column",
        }).map(([name, selector]) => [name,
            [...document.querySelectorAll(`[data-view="real"] ${selector}`)]
                .filter(entry => entry.matches(".lit")).map(entry => entry.dataset.factor)
        ]))"""
    )


@pytest.mark.browser
def test_real_network_is_an_equation_of_measured_gains(shown):
    spec = NetworkSpec(depth=15, activation="sigmoid", init="xavier")
    said = wait_for_network(shown, f"{describe_spec(spec)}: the factors of 8 ")
    product = measure_product(simulate(spec, 8))
    document = describe_product(product)
    assert f" multiply to {document['gradient']['text']}:" in said
    assert "All 30 factors (15 layers of two factors" in said
    lines = shown.locator(f"{REAL} [data-part='real-lines'] math")
    shown_lines = lines.evaluate_all("all => all.map(one => one.textContent)")
    assert shown_lines == [read_math(line["mathml"]) for line in document["lines"]]
    assert "24 factors" in shown_lines[2]
    assert text(shown, "real-extremes") == product.extremes
    assert text(shown, "real-check") == product.check
    do(shown, "real-fold").click()
    assert shown.locator(f"{REAL} li[data-kind='formulas'] .factor").count() == 30
    rows = part(shown, "real-table").locator("tbody tr")
    assert rows.evaluate_all("rows => rows.map(row => row.cells[2].textContent)") == [
        factor["value"]["text"] for factor in document["factors"]
    ]
    copied = copy(shown, "real-copy")
    unfolded = [line["unfolded"] or line for line in document["lines"]]
    assert "underbrace" not in copied
    assert all(line["latex"] in copied for line in unfolded)
    do(shown, "real-fold").click()
    assert copy(shown, "real-copy") == document["latex"]


@pytest.mark.browser
def test_real_network_links_equation_strip_factors_and_gradients(shown):
    wait_for_network(shown, "15 layers")
    do(shown, "real-fold").click()
    lit = {
        "equation": ["W-7"],
        "strip": ["W-7"],
        "chart": ["W-7"],
        "gradients": ["W-7 phi-7"],
    }
    places = {
        "equation": f'{REAL} li[data-kind="formulas"] .factor[data-factor="W-7"]',
        "strip": f'{REAL} .link[data-factor="W-7"]',
        "chart": f'{REAL} .gain[data-factor="W-7"]',
    }
    for place in places.values():
        hover(shown, place)
        assert read_real(shown) == lit, place
        leave(shown)
        assert not any(read_real(shown).values()), place
        shown.locator(place).focus()
        assert read_real(shown) == lit, place
        shown.locator(place).blur()
    hover(shown, f'{REAL} .column[data-factor="W-7 phi-7"]')
    both = read_real(shown)
    assert {name: sorted(ids) for name, ids in both.items()} == {
        "equation": ["W-7", "phi-7"],
        "strip": ["W-7", "phi-7"],
        "chart": ["W-7", "phi-7"],
        "gradients": ["W-7 phi-7"],
    }
    assert read_lit(shown) == DARK  # the other view's chain is not meant
    leave(shown)
    shown.locator(f"{REAL} .column").last.focus()
    shown.keyboard.press("ArrowLeft")
    assert read_real(shown)["chart"] == ["W-14", "phi-14"]


@pytest.mark.browser
def test_stepping_through_the_real_network(shown):
    wait_for_network(shown, "15 layers")
    document = describe_product(
        measure_product(simulate(NetworkSpec(depth=15, activation="sigmoid", init="xavier"), 8))
    )
    do(shown, "real-back").click()
    do(shown, "real-reset").click()
    do(shown, "real-next").focus()
    for count, factor in enumerate(document["factors"][:4], 1):
        shown.keyboard.press("ArrowRight")
        assert text(shown, "real-step-sentence") == f"{factor['sentence']}."
        assert text(shown, "real-step-product") == factor["running_product"]["text"]
        assert text(shown, "real-step-count") == f"{count} of 30 factors"
        assert read_real(shown)["strip"] == [factor["id"]]
    assert text(shown, "step-count") == "6 of 6 factors"


@pytest.mark.browser
def test_columns_of_the_real_network_do_not_overlap(shown):
    wait_for_network(shown, "15 layers")
    for kind in (".column", ".gain .hit", ".link .hit"):
        spans = shown.locator(f"{REAL} {kind}").evaluate_all(
            "all => all.map(one => [one.x.baseVal.value, one.width.baseVal.value])"
        )
        ordered = sorted(spans)
        assert len(ordered) >= 15
        for (x, width), (following, _) in itertools.pairwise(ordered):
            assert x + width <= following + 0.01


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("depth=100&network_activation=tanh", "100 layers"),
        ("depth=6&residual=scaled&network_activation=relu&init=he", "6 layers"),
        ("depth=4&width=8&init=random&weight_std=0", "4 layers"),
        ("depth=3&normalization=layernorm", "3 layers"),
        ("depth=1", "1 layer"),
    ],
)
def test_every_real_network_is_drawn(page, url, query, words):
    visit(page, url, f"?{query}")
    wait_for_network(page, words)
    drawn = part(page, "real-layers").inner_html()
    assert "NaN" not in drawn
    assert 'undefined"' not in drawn
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    factors = part(page, "real-layers").locator(".gain").count()
    assert factors == part(page, "real-layers").locator(".link").count() > 0


@pytest.mark.browser
def test_from_the_explorer_to_the_product_and_back(page, url):
    spec = FIRST.replace(depth=16)
    page.goto(url)
    wait_for_gradients(page, FIRST)
    page.get_by_role("slider", name="depth").focus()
    page.keyboard.press("ArrowRight")
    wait_for_gradients(page, spec)
    page.get_by_role("link", name="Its gradient as a product, layer by layer").click()
    wait_for(page)
    assert_shows(page, START)
    words = describe_spec(spec)
    wait_for_network(page, words)
    box(page, "w1").fill("2")
    wait_for(page, weights="2,-2,1.5")
    page.reload()
    wait_for(page, weights="2,-2,1.5")
    wait_for_network(page, words)
    page.get_by_role("link", name="Open it in the explorer").click()
    wait_for_gradients(page, spec)
    assert page.locator("#control-depth").input_value() == "16"


@pytest.mark.browser
def test_browsers_back_button_returns_to_the_explorer(page, url):
    page.goto(url)
    wait_for_gradients(page, FIRST)
    page.get_by_role("link", name="Its gradient as a product, layer by layer").click()
    wait_for(page)
    page.go_back()
    wait_for_gradients(page, FIRST)
    assert page.locator("#chain-root").count() == 0


@pytest.mark.browser
def test_a_scenarios_other_settings_survive_the_way_there_and_back(page, url):
    preset = next(entry for entry in PRESETS.values() if entry.spec.residual != "none")
    spec = preset.spec.replace(depth=20)
    page.goto(f"{url}/chain-rule?{spec.to_query().replace('activation=', 'network_activation=')}")
    wait_for(page)
    wait_for_network(page, describe_spec(spec))
    page.get_by_role("link", name="Open it in the explorer").click()
    wait_for_gradients(page, spec)
