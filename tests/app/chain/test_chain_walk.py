"""The chain-rule page: the walk, the depth and the time cards."""

import pytest

from browsing import empty, watch
from chain_page import assert_shows, box, do, equal, part, text, visit, wait_for, wait_for_depth
from chainrule.chain import ScalarChain, find_stable_weights, measure_recurrence
from chainrule.chain.document import describe_number
from waiting import wait_until


@pytest.mark.browser
def test_walk_from_its_first_sentence_to_the_weight_of_four(shown):
    assert text(shown, "walk-title") == "A guided walk in seven steps"
    assert do(shown, "walk-back").is_disabled()
    for number, (title, weights) in enumerate(
        [
            ("One layer", "0.5"),
            ("Two layers", "0.5,-2"),
            ("Three layers", "0.5,-2,1.5"),
            ("Many layers", equal("1", 30)),
            ("When is it large enough?", equal("1", 30)),
        ],
        1,
    ):
        do(shown, "walk-next").click()
        wait_for(shown, weights=weights, activation="sigmoid", wrt="w1")
        assert text(shown, "walk-title") == f"{number} of 7: {title}"
        assert len(text(shown, "walk-text")) > 80
        assert_shows(shown, ScalarChain(1.0, [float(w) for w in weights.split(",")]))
        if number == 1:  # the controls are the reader's
            box(shown, "w1").fill("3")
            wait_for(shown, weights="3")
            assert_shows(shown, ScalarChain(1.0, [3.0]))
    shown.wait_for_function(
        """() => {
            const at = document.querySelector('[data-part="depth-card"]').getBoundingClientRect();
            return at.top < innerHeight && at.bottom > 0;
        }"""
    )
    assert part(shown, "reveal").is_hidden()
    do(shown, "reveal").click()
    assert part(shown, "reveal").is_visible()
    assert "|w| = 4" in text(shown, "reveal")
    assert text(shown, "depth-sentence") == find_stable_weights("sigmoid").sentence
    assert "Below |w| = 4 the product vanishes" in text(shown, "depth-sentence")
    for typed, best in (("3.5", "0.00126"), ("4", "1")):
        part(shown, "depth-w").fill(typed)
        wait_for_depth(shown, float(typed), "sigmoid")
        assert text(shown, "depth-end").endswith(f"in the best case {best}.")
    do(shown, "walk-back").click()
    wait_for(shown)
    assert text(shown, "walk-title") == "4 of 7: Many layers"
    assert do(shown, "reveal").is_hidden()
    for card in ("depth", "game", "conclusion"):
        do(shown, "walk-next").click()
        shown.wait_for_function(
            """name => {
                const at = document.querySelector(`[data-part="${name}-card"]`)
                    .getBoundingClientRect();
                return at.top < innerHeight && at.bottom > 0;
            }""",
            arg=card,
        )
    assert do(shown, "walk-next").is_hidden()
    end = part(shown, "walk-end")
    assert end.inner_text().startswith("Done")
    assert "Next:" in end.inner_text()
    assert shown.evaluate("document.activeElement.dataset.part") == "walk-end"
    assert end.locator("a").evaluate_all("all => all.map(link => link.pathname)") == [
        "/chain-rule",
        "/learn",
        "/",
    ]
    do(shown, "walk-again").click()
    wait_for(shown, weights="0.5")
    assert text(shown, "walk-title") == "1 of 7: One layer"
    assert end.is_hidden()
    assert shown.evaluate("document.activeElement.dataset.do") == "walk-next"


@pytest.mark.browser
def test_who_has_scrolled_on_while_a_chain_is_drawn_stays_there(page, url):
    """A page that moves at that moment moves under the mouse: a click misses its button."""
    visit(page, url, "?walk=4")
    held = []
    page.route("**/api/chain?*", lambda route: held.append(route))
    do(page, "walk-next").click()
    page.wait_for_function("scrollY > 0")
    wait_until(lambda: held or page.wait_for_timeout(10))
    page.evaluate("scrollTo(0, 0)")
    page.evaluate("delete document.getElementById('chain-root').dataset.shown")
    held[0].continue_()
    wait_for(page)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("scrollY") == 0


@pytest.mark.browser
def test_no_two_buttons_in_sight_have_one_name(page, url):
    visit(page, url, "?walk=3")
    names = page.locator("[data-part='walk-card'] .cr-head button, [data-part='steps'] button")
    names = names.evaluate_all("all => all.filter(b => b.offsetParent).map(b => b.textContent)")
    assert len(names) == len(set(names)) == 6
    assert not {"Next", "Back"} & set(names)


@pytest.mark.browser
def test_depth_chart_follows_its_controls(shown):
    wait_for_depth(shown, 1.0, "sigmoid")
    lines = part(shown, "depth-chart").locator("path")
    before = lines.evaluate_all("all => all.map(path => path.getAttribute('d'))")
    assert [len(path.split("L")) for path in before] == [50, 50]
    part(shown, "depth-w-range").focus()
    shown.keyboard.press("ArrowRight")
    assert part(shown, "depth-w").input_value() == "1.05"
    wait_for_depth(shown, 1.05, "sigmoid")
    assert lines.evaluate_all("all => all.map(path => path.getAttribute('d'))") != before
    part(shown, "depth-activation").select_option("tanh")
    wait_for_depth(shown, 1.05, "tanh")
    assert text(shown, "depth-sentence") == find_stable_weights("tanh").sentence
    part(shown, "depth-w").fill("-1e9")
    wait_for_depth(shown, -1e9, "tanh")


@pytest.mark.browser
def test_gradient_through_time_and_clipping(shown):
    def expect(**settings) -> None:
        recurrence = measure_recurrence(
            settings["w"],
            settings["steps"],
            x=0.1,
            activation=settings["activation"],
            clip=settings.get("clip"),
        )
        said = recurrence.sentence
        assert describe_number(recurrence.gradient)["text"] in said
        shown.wait_for_function(
            "text => document.querySelector('[data-part=\"rnn-sentence\"]').textContent"
            ".startsWith(text)",
            arg=said,
        )

    lines = part(shown, "rnn-chart").locator("path")
    expect(w=1.3, steps=20, activation="identity")
    assert lines.count() == 4
    part(shown, "rnn-clip").fill("1")
    expect(w=1.3, steps=20, activation="identity", clip=1.0)
    assert lines.count() == 5
    part(shown, "rnn-w-range").focus()
    shown.keyboard.press("ArrowLeft")
    part(shown, "rnn-steps").fill("50")
    part(shown, "rnn-activation").select_option("tanh")
    expect(w=1.25, steps=50, activation="tanh", clip=1.0)
    assert lines.first.get_attribute("d").count("L") == 50


@pytest.mark.browser
def test_an_impossible_clip_is_answered_with_the_reason(kept_page, url):
    expected = {"expected": lambda problem: "status of 422" in problem}
    with watch(kept_page, url, leave=empty, **expected) as page:
        visit(page, url)
        part(page, "rnn-clip").fill("-1")
        page.wait_for_function(
            "document.querySelector('[data-part=\"rnn-sentence\"]').textContent"
            ".startsWith('clip: must be a finite number above 0')"
        )
