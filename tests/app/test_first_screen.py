"""The explorer's first screen in a real browser: what is in sight, and that nothing covers it."""

import pytest
from playwright.sync_api import expect

from axe import list_serious
from browsing import empty, watch
from chainrule import PRESETS, NetworkSpec, diagnose, simulate
from chainrule.app.lesson.glossary import GLOSSARY
from chainrule.app.state.view import DEFAULT_PRESET, read_view
from chainrule.display.sentences import explain
from explorer import (
    CHART,
    ROOT,
    measure,
    open_explorer,
    overlap,
    read_part,
    wait_for_layers,
    wait_until_settled,
)

pytestmark = pytest.mark.browser

DEEP = "depth=15&activation=sigmoid&init=xavier"
LAPTOP, PHONE, ZOOMED, SHORT = (1366, 768), (390, 844), (720, 450), (1366, 590)


@pytest.fixture
def page(kept_page, url):
    """An empty page; leaving it, nothing must have gone wrong on it."""
    with watch(kept_page, url, leave=empty) as page:
        yield page


def resize(page, size):
    page.set_viewport_size({"width": size[0], "height": size[1]})


def wait_until_redrawn(page):
    """Wait until the main chart is as wide as its place."""
    page.wait_for_function(f"{CHART}._fullLayout.width === {CHART}.clientWidth")


def find_bar(page):
    return measure(page.locator(".ex-bar"))


def is_in_sight(page, locator, bottom):
    box = measure(locator)
    header = measure(page.locator("header.site"))
    return box["top"] >= header["bottom"] - 1 and box["bottom"] <= bottom + 1


class TestSentences:
    def test_the_servers_sentences_are_on_screen(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        flow = simulate(NetworkSpec(depth=15, init="xavier"), 16)
        said = explain(flow, diagnose(flow))
        assert read_part(page, "what") == said.what
        assert read_part(page, "why") == said.why
        assert read_part(page, "verdict") == "▼ Vanishing"

    def test_the_evidence_is_folded_under_them_with_both_limits(self, page, url):
        open_explorer(page, url, DEEP)
        assert not page.locator("[data-part=findings]").is_visible()
        page.locator("[data-part=evidence] > summary").click()
        assert "limit of 0.003" in read_part(page, "findings")
        assert "0.003 × 0.281 = 8.4·10⁻⁴" in read_part(page, "limits")
        assert "below 8.4·10⁻⁴" in page.locator(".fv-card").first.inner_text()

    def test_one_button_applies_the_first_remedy(self, page, url):
        resize(page, PHONE)
        open_explorer(page, url, DEEP)
        page.wait_for_selector(".ex-remedy", state="attached")
        page.locator("[data-part=apply-first]").click()
        page.wait_for_function(
            "document.querySelector('[data-part=verdict]').innerText.includes('Healthy')"
        )
        wait_until_settled(page)
        assert page.locator("[data-part=apply-first]").is_disabled()

    def test_bars_stand_on_the_axis_of_the_main_chart(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.wait_for_selector(".ex-remedy")
        shares = page.evaluate(
            """() => {
              const { range } = document.querySelector("#gradient-chart").layout.yaxis;
              const { y } = document.querySelector("#gradient-chart").data[1];
              const share = (Math.log10(Math.min(...y)) - range[0]) / (range[1] - range[0]);
              const bar = document.querySelector(".ex-bar-chart");
              const [axis, before, after] = [".axis", ".before", ".after"].map((name) =>
                bar.querySelector(name).getBoundingClientRect());
              const at = (box) => (box.x + box.width / 2 - axis.x) / axis.width;
              const green = bar.querySelector(".usable").getBoundingClientRect();
              const arrived = after.x + after.width / 2;
              return [share, at(before), arrived > green.x && arrived < green.right];
            }"""
        )
        assert shares[1] == pytest.approx(shares[0], abs=0.04)
        assert shares[2]

    def test_a_remedy_is_tried_by_training(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, "depth=6&width=16&init=xavier")
        page.wait_for_selector(".ex-remedy")
        card = page.locator(".ex-remedy").first
        card.get_by_role("button", name="try it by training").click()
        page.wait_for_selector(".ex-remedy-tried[data-outcome]", state="attached")
        text = card.locator(".ex-remedy-tried").inner_text()
        assert "After 300 steps" in text
        assert "% are right (chance is 10 %)" in text


class TestInSight:
    def test_on_a_laptop_all_of_it_is_on_the_first_screen(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.wait_for_selector(".ex-remedy")
        bottom = LAPTOP[1]
        for name in ("depth", "width", "activation", "init"):
            assert is_in_sight(page, page.locator(f"#control-{name}"), bottom)
        for selector in (".st", "#gradient-chart", ".ex-verdict-word", ".ex-say"):
            assert is_in_sight(page, page.locator(selector), bottom)
        card = page.locator(".ex-remedy").first
        assert is_in_sight(page, card, bottom)  # whole
        assert not any(
            overlap(find_bar(page), measure(page.locator(name).first))
            for name in (".ex-configure", ".ex-main", ".ex-remedy", "header.site")
        )
        left, middle, right = (
            measure(page.locator(name)) for name in (".ex-configure", ".ex-main", ".ex-verdict")
        )
        assert left["right"] < middle["left"] < middle["right"] < right["left"]

    @pytest.mark.parametrize("query", [DEEP, f"{DEEP}&tour=1", f"{DEEP}&tour=3"])
    def test_the_axis_of_the_chart_is_free_in_the_tour_too(self, page, url, query):
        resize(page, LAPTOP)
        open_explorer(page, url, query)
        page.wait_for_selector(".ex-remedy")
        for name in (".xtick text", ".xtitle"):
            axis = page.locator(f"#gradient-chart {name}").last
            box = measure(axis)
            assert is_in_sight(page, axis, LAPTOP[1])
            covering = page.evaluate(
                "([x, y]) => document.elementsFromPoint(x, y).map(node => node.closest("
                "'.ex-bar, .ex-tour, .ex-verdict')?.className).filter(Boolean)",
                [(box["left"] + box["right"]) / 2, (box["top"] + box["bottom"]) / 2],
            )
            assert covering == []

    def test_scrolled_the_actions_cover_no_panel(self, page, url):
        """What stays in sight stands below them."""
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.wait_for_selector(".ex-remedy")
        page.evaluate("scrollTo(0, 700)")
        page.wait_for_function("scrollY > 600")
        bar, header = find_bar(page), measure(page.locator("header.site"))
        assert header["bottom"] <= bar["top"] + 1
        for name in (".ex-configure", ".ex-verdict"):
            panel = measure(page.locator(name))
            assert not overlap(bar, panel)
            assert panel["bottom"] <= LAPTOP[1]

    def test_after_a_change_the_verdict_is_seen_whole(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.wait_for_selector(".ex-remedy")
        page.locator("[data-part=evidence] > summary").click()
        panel = page.locator(".ex-verdict")
        panel.evaluate("node => { node.scrollTop = node.scrollHeight; }")
        assert panel.evaluate("node => node.scrollTop") > 50
        page.locator("[data-part=apply-first]").click()
        page.wait_for_function(
            "document.querySelector('[data-part=verdict]').innerText.includes('Healthy')"
        )
        wait_until_settled(page)
        page.wait_for_function("document.querySelector('.ex-verdict').scrollTop === 0")
        box, word = measure(panel), measure(page.locator(".ex-verdict-word"))
        assert box["top"] <= word["top"] < word["bottom"] <= box["bottom"]
        assert is_in_sight(page, page.locator(".ex-verdict-word"), LAPTOP[1])
        assert word["top"] >= find_bar(page)["bottom"] - 1

    def test_on_a_phone_a_moved_slider_changes_something_in_sight(self, page, url):
        resize(page, PHONE)
        open_explorer(page, url, "depth=2&activation=sigmoid&init=xavier")
        page.wait_for_selector(".ex-glance-dot")
        slider = page.get_by_role("slider", name="Width")
        slider.evaluate("node => node.scrollIntoView({block: 'center'})")
        box, bar = measure(slider), find_bar(page)
        glance = measure(page.locator("[data-part=glance]"))
        assert glance["bottom"] <= box["top"] < box["bottom"] <= bar["top"]
        before, at = page.locator(".ex-glance-chart").inner_html(), page.evaluate("scrollY")
        page.locator("#control-depth-slider").evaluate(
            "node => { node.value = 13; node.dispatchEvent(new Event('input', {bubbles: true}));"
            " node.dispatchEvent(new Event('change', {bubbles: true})); }"
        )
        wait_for_layers(page, 15)
        wait_until_settled(page)
        assert page.evaluate("scrollY") == at
        assert page.locator(".ex-glance-chart").inner_html() != before
        assert "Vanishing" in read_part(page, "glance-verdict")
        assert is_in_sight(page, page.locator("[data-part=glance]"), box["top"])

    def test_nothing_covers_a_control(self, page, url):
        """At 200 % zoom, in short windows, on a phone: each is free once it has the focus."""
        resize(page, ZOOMED)
        open_explorer(page, url, DEEP)
        page.locator("[data-part=more] summary").click()
        for size in (ZOOMED, SHORT, PHONE, LAPTOP):
            resize(page, size)
            page.evaluate("scrollTo(0, 0)")
            assert self.find_covered(page) == [], size
            wait_until_redrawn(page)
            assert self.find_covered(page) == [], size
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]

    def test_a_chart_that_is_still_too_wide_does_not_widen_the_page(self, page, url):
        """In a window that has become smaller: it is drawn anew a moment later."""
        # The first who listens, so that nobody else hears of another size until it may.
        page.add_init_script(
            "addEventListener('resize', (e) => window.held && e.stopImmediatePropagation(), true)"
        )
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.locator(".fv-chart").first.focus()
        page.keyboard.press("End")  # a mark stands over it, on its right
        page.evaluate("window.held = true")
        resize(page, PHONE)
        page.wait_for_function(f"innerWidth === {PHONE[0]}")
        widths = f"[document.documentElement.scrollWidth, {CHART}._fullLayout.width]"
        shown, drawn = page.evaluate(widths)
        assert shown <= PHONE[0] < drawn
        page.evaluate("window.held = false; dispatchEvent(new Event('resize'))")
        wait_until_redrawn(page)
        assert page.evaluate(widths)[0] <= PHONE[0]

    def test_what_stands_over_a_chart_follows_it(self, page, url):
        """Into a window of another size: each layer of the strip, and the mark of one."""
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.locator(".fv-chart").first.focus()
        page.keyboard.press("End")
        for size in (LAPTOP, PHONE, ZOOMED):
            resize(page, size)
            wait_until_redrawn(page)
            there, mark, strip = page.evaluate(
                f"""() => {{
                  const middle = (box) => box.x + box.width / 2;
                  const {{ _size, xaxis }} = {CHART}._fullLayout;
                  const box = {CHART}.getBoundingClientRect();
                  const mark = document.querySelector("#gradient-chart ~ .fv-mark");
                  const columns = [...document.querySelectorAll(".st-column")];
                  return [box.x + _size.l + xaxis.l2p(15), middle(mark.getBoundingClientRect()),
                    middle(columns.at(-1).getBoundingClientRect())];
                }}"""
            )
            assert [mark, strip] == pytest.approx([there, there], abs=1.5), size

    def find_covered(self, page):
        return page.evaluate(
            """() => {
              const fields = [...document.querySelectorAll(
                ".ex-configure :is(input, select, button, summary, a)")];
              const names = [];
              for (const field of fields) {
                if (field.disabled || !field.checkVisibility()) continue;
                field.focus({ preventScroll: true });
                field.scrollIntoView({ block: "nearest" });
                const { left, right, top, bottom } = field.getBoundingClientRect();
                const inner = [[left + 3, top + 3], [right - 3, bottom - 3]];
                const free = inner.every(([x, y]) => {
                  const hit = document.elementFromPoint(x, y);
                  return hit && (field.contains(hit) || hit.contains(field));
                });
                if (!free) names.push(field.id || field.textContent);
              }
              return names;
            }"""
        )

    def test_with_a_large_zoom_nothing_floats(self, page, url):
        resize(page, ZOOMED)
        open_explorer(page, url, DEEP)
        floating = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(node => node.checkVisibility()"
            " && ['fixed', 'sticky'].includes(getComputedStyle(node).position)"
            " && !node.closest('table')).map(node => node.className)"
        )
        assert floating == []
        slider, chart = page.locator("#control-depth-slider"), page.locator(".ex-main")
        assert not overlap(measure(slider), measure(chart))
        assert measure(slider)["top"] < measure(chart)["bottom"]  # beside it

    def test_more_settings_leave_the_actions_in_sight(self, page, url):
        resize(page, (1440, 900))
        open_explorer(page, url, DEEP)
        page.locator("[data-part=more] summary").click()
        for name in ("pin", "apply-first", "go-train"):
            box = measure(page.locator(f"[data-part={name}]"))
            assert 0 < box["top"] < box["bottom"] <= 900

    def test_on_a_phone_the_small_chart_names_its_zones_beside_the_layers(self, page, url):
        resize(page, PHONE)
        for query in (DEEP, "depth=15&activation=relu&init=random"):
            open_explorer(page, url, query)
            page.wait_for_selector(".ex-glance-name")
            chart = measure(page.locator(".ex-glance-chart"))
            names = [measure(name) for name in page.locator(".ex-glance-name").all()]
            marks = [measure(mark) for mark in page.locator(".ex-glance-dot").all()]
            words = " ".join(page.locator(".ex-glance-name").all_text_contents())
            assert words == "too large layers learn here too small"
            assert max(name["right"] for name in names) <= chart["right"] + 0.5
            assert max(mark["right"] for mark in marks) <= min(name["left"] for name in names)
            shapes = page.locator(".ex-glance-dot").evaluate_all(
                "nodes => nodes.map((node) => node.getAttribute('d').replace(/^M\\S+ [\\d.]+/, ''))"
            )
            fills = page.locator(".ex-glance-dot").evaluate_all(
                "nodes => nodes.map((node) => node.getAttribute('fill'))"
            )
            assert len(shapes) == 15
            assert len(set(zip(shapes, fills, strict=True))) == len(set(fills)) == len(set(shapes))


@pytest.mark.parametrize("size", [LAPTOP, PHONE])
@pytest.mark.parametrize(
    "query", [DEEP, "depth=5&activation=relu&init=random&weight_std=2", "preset=Dying ReLU"]
)
def test_the_quick_picture_stands_where_the_librarys_chart_does(page, url, size, query):
    resize(page, size)
    open_explorer(page, url, query)
    places = page.evaluate(
        """async () => {
          const script = document.querySelector("link[href$='shared/quick_chart.js']").href;
          const { findPlace } = await import(script);
          const plot = document.querySelector("#gradient-chart");
          const place = findPlace(plot.layout, plot.clientWidth, plot.clientHeight);
          const { l, t, w, h } = plot._fullLayout._size;
          return [[place.left, place.top, place.width, place.height], [l, t, w, h]];
        }"""
    )
    assert places[0] == pytest.approx(places[1], abs=1.5)


def test_the_first_answer_is_asked_for_once(page, url):
    """By the page's head; its script takes that answer over."""
    asked = []
    page.on("request", lambda each: asked.append(each.url))
    open_explorer(page, url, DEEP)
    assert sum(each.endswith("&quick=1") for each in asked) == 1


def test_while_a_slider_moves_one_network_is_drawn(page, url):
    """It is a true one: the first seed's; at rest the others refine it."""
    resize(page, LAPTOP)
    open_explorer(page, url, DEEP)
    asked = []
    page.on("request", lambda each: asked.append(each.url) if "/api/explore" in each.url else None)
    page.locator("#control-depth-slider").evaluate(
        "node => { node.value = 18; node.dispatchEvent(new Event('input', {bubbles: true})); }"
    )
    wait_for_layers(page, 20)
    wait_until_settled(page)
    assert [each.endswith("&quick=1") for each in asked] == [True, False]
    assert "Median of 16 networks" in read_part(page, "ensemble")


class TestTour:
    def test_a_first_visit_is_asked_once(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url)
        invite = page.locator("[data-part=invite]")
        assert invite.is_visible()
        assert not page.locator("[data-part=tour]").is_visible()
        invite.get_by_role("button", name="Skip").click()
        assert not invite.is_visible()
        open_explorer(page, url)
        assert not invite.is_visible()

    def test_an_address_is_not_asked(self, page, url):
        open_explorer(page, url, DEEP)
        assert not page.locator("[data-part=invite]").is_visible()

    def test_all_three_steps_by_keyboard(self, page, url):  # noqa: PLR0915
        """By keys alone: Tab goes there, and nothing is focused or chosen by the test itself."""
        resize(page, LAPTOP)
        open_explorer(page, url)

        def reach(locator, most=45):
            before = locator.evaluate(
                "element => Boolean(element.compareDocumentPosition(document.activeElement)"
                " & Node.DOCUMENT_POSITION_FOLLOWING)"
            )
            for _ in range(most):
                if locator.evaluate("element => element === document.activeElement"):
                    break
                page.keyboard.press("Shift+Tab" if before else "Tab")
            assert locator.evaluate("element => element === document.activeElement")
            assert is_in_sight(page, locator, page.viewport_size["height"])

        def press(name):
            reach(page.get_by_role("button", name=name))
            page.keyboard.press("Enter")

        def choose(name, letter, value):
            """Go to the option with a first letter: more of them would have to come in time."""
            reach(page.locator(f"#control-{name}"))
            page.keyboard.press(letter)
            expect(page.locator(f"#control-{name}")).to_have_value(value)

        press("Three steps")
        wait_for_layers(page, 2)
        wait_until_settled(page)
        assert page.evaluate("new URLSearchParams(location.search).get('tour')") == "1"
        press("It almost disappears")
        assert page.locator("[data-control=depth].ex-lit").count() == 1
        reach(page.get_by_role("slider", name="Depth"))
        for _ in range(15):
            page.keyboard.press("ArrowRight")
        step = page.locator("[data-tour='1']")
        step.get_by_text("Your guess was right.").wait_for()
        wait_for_layers(page, 17)
        wait_until_settled(page)
        flow = simulate(NetworkSpec(depth=17, init="xavier"), 16)
        what = explain(flow, diagnose(flow)).what
        assert what in step.inner_text()
        assert "‖" not in step.inner_text()  # words first: symbols are folded
        assert "δ" not in step.inner_text()
        press("Next")
        page.locator("[data-tour='2']").wait_for()
        wait_until_settled(page)
        view = read_view(page.evaluate(f"{ROOT}.dataset.address"))[0]
        assert (view.spec.depth, view.pin.depth) == (17, 17)  # the learner's own network
        assert "17 Sigmoid layers" in page.locator("[data-tour='2']").inner_text()
        press("Nothing changes")
        choose("activation", "R", "relu")
        choose("init", "H", "he")
        page.locator("[data-tour='2']").get_by_text("Not as you guessed.").wait_for()
        press("Next")
        page.locator("[data-tour='3']").wait_for()
        view = read_view(page.evaluate(f"{ROOT}.dataset.address"))[0]
        assert (view.spec.depth, view.pin.depth) == (17, 17)
        press("as by chance")
        press("Start the race")
        page.locator("[data-tour='3'] [data-end]").wait_for()
        text = page.locator("[data-tour='3']").inner_text()
        assert "Your guess was right." in text
        assert "the Sigmoid network 10 %" in text
        press("Done")
        wait_until_settled(page)
        assert not page.locator("[data-part=tour]").is_visible()
        assert "tour" not in page.evaluate(f"{ROOT}.dataset.address")

    def test_far_from_what_is_asked_it_says_what_will_do(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, "tour=1")
        page.locator("[data-tour='1']").wait_for()
        wait_for_layers(page, 2)
        wait_until_settled(page)
        page.get_by_role("button", name="It grows").click()
        slider = page.locator("#control-depth-slider")
        move = (
            "(node, depth) => { node.value = depth - 2;"
            " node.dispatchEvent(new Event('input', {bubbles: true}));"
            " node.dispatchEvent(new Event('change', {bubbles: true})); }"
        )
        end = page.locator("[data-tour='1'] [data-end]")
        for depth, done in ((40, False), (12, True), (25, False), (10, True)):
            slider.evaluate(move, depth)
            wait_for_layers(page, depth)
            wait_until_settled(page)
            assert end.is_visible() is done
            told = read_part(page, "tour-hint")
            assert (str(depth) in told and "10 to 20" in told) is not done

    def test_the_address_holds_the_step_and_skip_leaves_it(self, page, url):
        resize(page, PHONE)
        open_explorer(page, url, "tour=2")
        page.locator("[data-tour='2']").wait_for()
        wait_until_settled(page)
        view = read_view(page.evaluate(f"{ROOT}.dataset.address"))[0]
        assert (view.tour, view.spec) == ("2", PRESETS[DEFAULT_PRESET].spec)
        page.locator("[data-part=tour-skip]").click()
        wait_until_settled(page)
        assert not page.locator("[data-part=tour]").is_visible()
        assert page.locator(".ex-scenarios").is_visible()

    def test_it_is_accessible_on_a_phone(self, page, url):
        """In a wide window, test_accessibility.py looks at it."""
        resize(page, PHONE)
        page.emulate_media(color_scheme="dark")
        open_explorer(page, url, f"{DEEP}&tour=1")
        page.locator("[data-tour='1']").wait_for()
        page.wait_for_selector(".ex-remedy", state="attached")
        assert list_serious(page) == []


class TestWords:
    """Words of the field are explained where they stand, from the one glossary."""

    def test_terms_of_the_first_screen_have_an_explanation(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, "preset=hidden-vanishing-relu-xavier")
        page.wait_for_selector(".ex-remedy")
        page.wait_for_selector("[data-part=chance] button.term")
        page.locator("[data-part=evidence] > summary").click()
        page.locator("[data-part=bridge] > summary").click()
        page.locator("[data-part=remedies-list] > details > summary").first.click()
        words = {each.lower() for each in page.locator("button.term:visible").all_inner_texts()}
        for word in (
            "loss", "gradient", "weight gradient", "δ", "‖δ‖", "sgd", "adam", "not viable",
            "xavier", "he (kaiming)", "batch normalization", "autograd", "median", "slope",
            "gradient ratio", "residual connections",
        ):  # fmt: skip
            assert word in words

    def test_each_is_opened_and_closed_by_keyboard(self, page, url):
        resize(page, PHONE)
        open_explorer(page, url, DEEP)
        word = page.locator("[data-part=why] button.term", has_text="slope").first
        word.wait_for()
        word.focus()
        page.keyboard.press("Enter")
        card = page.locator(".term-card")
        card.wait_for()
        expect(word).to_have_attribute("aria-expanded", "true")
        meaning = dict(GLOSSARY)["Slope (derivative)"]
        assert meaning.split(". ")[0] in " ".join(card.inner_text().split())
        box = measure(card)
        assert 0 <= box["left"] < box["right"] <= PHONE[0]
        assert 0 <= box["top"] < box["bottom"] <= PHONE[1]
        page.keyboard.press("Escape")
        card.wait_for(state="hidden")
        expect(word).to_have_attribute("aria-expanded", "false")
        expect(word).to_be_focused()

    def test_the_sentences_stay_as_the_server_wrote_them(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.wait_for_selector("[data-part=why] button.term")
        page.locator("#control-activation").select_option("tanh")
        wait_until_settled(page)
        page.wait_for_selector("[data-part=what] button.term")
        flow = simulate(NetworkSpec(depth=15, activation="tanh", init="xavier"), 16)
        said = explain(flow, diagnose(flow))
        assert (read_part(page, "what"), read_part(page, "why")) == (said.what, said.why)

    def test_the_whole_glossary_is_a_link_away(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.locator("[data-part=chance] button.term").first.click()
        page.get_by_role("link", name="All words").click()
        glossary = page.locator("#words")
        assert glossary.locator("dt").count() == len(GLOSSARY)
        assert glossary.get_by_text("One number that says how wrong").is_visible()

    def test_with_a_card_open_it_is_accessible(self, page, url):
        resize(page, LAPTOP)
        open_explorer(page, url, DEEP)
        page.locator("[data-part=why] button.term").first.click()
        page.locator(".term-card").wait_for()
        assert list_serious(page) == []


def test_a_training_that_falls_short_offers_another_rate(page, url):
    resize(page, LAPTOP)
    open_explorer(page, url, "preset=sigmoid-that-survives-random-1")
    page.locator("[data-part=go-train]").click()
    page.locator(".tr-again").wait_for()
    assert page.locator(".tr-again").inner_text() == "Try learning rate 0.3"
    page.locator(".tr-again").click()
    page.wait_for_function(
        "document.querySelector('.tr [data-outcome]')?.dataset.outcome === 'trained'"
    )
    assert "it trains" in read_part(page, "ends")
