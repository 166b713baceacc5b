"""The chain-rule page: walking through the product step by step."""

import pytest

from browsing import watch
from chain_page import (
    START,
    assert_at_step,
    assert_shows,
    bar,
    do,
    hover,
    leave,
    lights_of,
    part,
    read_later,
    read_lit,
    text,
    visit,
    wait_for,
)
from serving import wait_until


@pytest.mark.browser
def test_stepping_by_buttons(shown):
    factors = START.factors("w1")
    for count in range(1, len(factors) + 1):
        do(shown, "next").click()
        assert_at_step(shown, count)
    assert do(shown, "next").is_disabled()
    for count in reversed(range(len(factors))):
        do(shown, "back").click()
        assert_at_step(shown, count)
    assert do(shown, "back").is_disabled()
    assert "starts at the output" in text(shown, "step-sentence")
    do(shown, "next").click()
    do(shown, "reset").click()
    assert_shows(shown, START)
    assert read_later(shown) == [[], []]


@pytest.mark.browser
def test_stepping_by_arrow_keys(shown):
    do(shown, "next").focus()
    for count in range(1, 5):
        shown.keyboard.press("ArrowRight")
        assert_at_step(shown, count)
    for count in (3, 2):
        shown.keyboard.press("ArrowLeft")
        assert_at_step(shown, count)


@pytest.mark.browser
def test_arrow_keys_go_back_from_the_last_step(shown):
    do(shown, "next").focus()
    for _ in range(6):
        shown.keyboard.press("ArrowRight")
    assert_at_step(shown, 6)
    # A disabled button loses the focus when the page is next painted.
    shown.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    shown.keyboard.press("ArrowLeft")
    assert_at_step(shown, 5)


@pytest.mark.browser
def test_hovering_between_steps_returns_to_the_steps_factor(shown):
    do(shown, "next").click()
    do(shown, "next").click()
    hover(shown, bar("z1-h1"))
    assert read_lit(shown) == lights_of("z1-h1")
    leave(shown)
    assert read_lit(shown) == lights_of("h2-z3")
    assert_at_step(shown, 2)


@pytest.fixture
def timed(browser, url):
    """The page with a clock that the test turns."""
    with (
        browser.new_context(viewport={"width": 1280, "height": 900}) as context,
        watch(context.new_page(), url) as page,
    ):
        page.clock.install()
        visit(page, url)
        page.clock.pause_at(
            page.evaluate("Date.now()") / 1000 + 3600
        )  # it runs by itself till then
        yield page


@pytest.mark.browser
def test_playing_pausing_and_playing_to_the_end(timed):
    do(timed, "play").click()
    assert_at_step(timed, 0)
    assert text_of_play(timed) == ("Pause", "true")
    timed.clock.run_for(2500)
    assert_at_step(timed, 2)
    do(timed, "play").click()
    assert text_of_play(timed) == ("Play", "false")
    timed.clock.run_for(10_000)
    assert_at_step(timed, 2)
    do(timed, "play").click()
    timed.clock.run_for(1200)
    assert_at_step(timed, 3)
    timed.clock.run_for(20_000)
    assert_at_step(timed, 6)
    assert text_of_play(timed) == ("Play", "false")


def text_of_play(page) -> tuple[str, str]:
    return do(page, "play").inner_text(), do(page, "play").get_attribute("aria-pressed")


@pytest.mark.browser
def test_playing_waits_while_a_factor_is_hovered(timed):
    do(timed, "play").click()
    timed.clock.run_for(1200)
    hover(timed, bar("z1-h1"))
    wait_until(lambda: timed.evaluate("() => Boolean(document.querySelector('.bar:hover'))"))
    timed.clock.run_for(10_000)
    assert text(timed, "step-count") == "1 of 6 factors"
    assert read_lit(timed) == lights_of("z1-h1")
    leave(timed)
    timed.clock.run_for(1200)
    assert_at_step(timed, 2)


@pytest.mark.browser
def test_a_shorter_chain_while_playing_does_no_harm(timed):
    do(timed, "play").click()
    timed.clock.run_for(2500)
    part(timed, "layers").fill("1")
    timed.clock.resume()  # what is drawn waits for a frame
    wait_for(timed, weights="0.5")
    timed.clock.run_for(20_000)
    count = int(text(timed, "step-count").split()[0])
    assert count <= 2
    assert text_of_play(timed) == ("Play", "false")
