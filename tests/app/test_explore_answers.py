"""What the explore page's route answers."""

import json
import math
import statistics
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chainrule import PRESETS, NetworkSpec, Verdict, diagnose, find_remedies, inspect, simulate
from chainrule._utils.numbers import format_number
from chainrule.app.answers.flow_answer import (
    compare,
    describe_bridge,
    describe_clipping,
    describe_flow,
)
from chainrule.app.answers.remedy_answer import describe_remedies
from chainrule.app.jobs.measuring import NETWORK_BUDGET, PAGE_BUDGET, plan_seeds
from chainrule.app.state.controls import (
    ACTIVATION_MEANINGS,
    CONTROLS,
    INITIALIZATION_MEANINGS,
)
from chainrule.app.state.view import DEFAULT_PRESET, View, read_view, write_query
from chainrule.diagnosis.viability.model import LEAST, Outlook, describe_probability
from chainrule.display.cards import OUTLOOK_LOOKS
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import MAX_SEED
from strategies import legal_specs

SMALL = "depth=4&width=8&activation=tanh&init=xavier"


def ask(url: str, query: str, status: int = 200) -> dict:
    answer = httpx.get(f"{url}/api/explore?{query}", timeout=120)
    assert answer.status_code == status
    return answer.json()


class TestViews:
    @settings(deadline=None)
    @given(
        spec=legal_specs,
        seeds=st.integers(1, 64),
        measure=st.sampled_from(("weight", "delta", "relative")),
        pin=st.none() | legal_specs,
        lock=st.sets(st.sampled_from(tuple(CONTROLS))),
        hide=st.sets(st.sampled_from((*CONTROLS, "lesson", "train"))),
        embed=st.sampled_from((None, "gradient", "factor")),
        data=st.data(),
    )
    def test_an_address_gives_back_the_view(
        self, spec, seeds, measure, pin, lock, hide, embed, data
    ):
        assume(spec.seed + seeds - 1 <= MAX_SEED)
        view = View(
            spec=spec,
            seeds=seeds,
            measure=measure,
            scale=data.draw(st.sampled_from(("log", "linear"))),
            layer=data.draw(st.integers(1, spec.depth)),
            pin=pin,
            hide=tuple(sorted(hide)),
            lock=tuple(sorted(lock)),
            embed=embed,
            theory=data.draw(st.booleans()),
        )
        assert read_view(view.address) == (view, ())

    def test_no_address_is_the_first_scenario(self):
        view, notices = read_view("")
        assert view.spec == PRESETS[DEFAULT_PRESET].spec
        assert notices == ()

    def test_a_scenario_by_name_with_changes(self):
        view, notices = read_view("preset=dying+relu&depth=7")
        assert view.spec == PRESETS["Dying ReLU"].spec.replace(depth=7)
        assert notices == ()

    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ("preset=no+such", "no such"),
            ("depth=5&seeds=1000", "seeds"),
            ("depth=5&seeds=nan", "seeds"),
            ("depth=5&seeds=2.5", "seeds"),
            ("depth=5&measure=size", "measure"),
            ("depth=5&scale=cubic", "scale"),
            ("depth=5&layer=6", "layer"),
            ("depth=5&lock=depth,colour", "colour"),
            ("depth=5&hide=%3Cscript%3E", "<script>"),
            ("depth=5&embed=all", "embed"),
            ("depth=5&theory=yes", "theory"),
            ("depth=5&pin=depth%3Dten", "Pinned"),
            ("depth=5&nonsense=1", "nonsense"),
            ("nonsense=1", "nonsense"),
        ],
    )
    def test_each_repair_is_told(self, query, word):
        view, notices = read_view(query)
        assert any(word in notice for notice in notices)
        assert read_view(view.address) == (view, ())

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=300))
    def test_any_text_gives_a_view(self, query):
        view, _ = read_view(query)
        assert read_view(view.address) == (view, ())

    def test_seeds_end_at_the_last_one(self):
        view, _ = read_view(f"depth=2&seed={MAX_SEED}")
        assert view.seeds == 1
        assert read_view(view.address) == (view, ())

    def test_an_endless_address_is_ignored(self):
        view, notices = read_view("depth=5&" * 5000)
        assert view.spec == PRESETS[DEFAULT_PRESET].spec
        assert "too long" in notices[0]


class TestAnswers:
    def test_numbers_are_simulates(self, url):
        answer = ask(url, SMALL)
        flow = simulate(NetworkSpec.from_query(SMALL), 16)
        drawn = answer["figures"]["gradient"]["data"][1]["y"]
        assert drawn == pytest.approx(list(flow.weight_gradient_norms), rel=1e-12)

    def test_the_journey_of_the_gradient_is_measured(self, url):
        steps = ask(url, SMALL)["journey"]
        flow = simulate(NetworkSpec.from_query(SMALL), 16)
        members = [norm.values for norm in flow.delta_norms]
        assert len(steps) == len(members)
        for step, own in zip(steps, members, strict=True):
            ratios = [a / b for a, b in zip(own, members[-1], strict=True)]
            left = statistics.median(ratios)
            assert step["left"] == format_number(left)
            assert step["power"] == pytest.approx(math.log10(left))
        for step, own, after in zip(steps, members, members[1:], strict=False):
            factor = statistics.median(a / b for a, b in zip(own, after, strict=True))
            assert float(step["factor"]) == pytest.approx(factor, rel=0.06)
        assert steps[-1]["factor"] is None

    def test_a_gradient_that_ends_on_its_way_has_no_power(self, url):
        query = write_query(NetworkSpec(depth=5, width=4, init="random", weight_std=0.0))
        steps = ask(url, query)["journey"]
        assert [step["left"] for step in steps] == ["0", "0", "0", "0", "1"]
        assert [step["power"] for step in steps] == [None, None, None, None, 0.0]

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_scenario_shows_its_verdict_and_sentence(self, url, name):
        preset = PRESETS[name]
        answer = ask(url, write_query(preset.spec))
        assert answer["verdict"] == preset.verdict
        assert answer["scenario"] == name
        assert answer["look_at"] == preset.look_at
        assert len(answer["findings"]) == len(diagnose(simulate(preset.spec, 16)).findings)

    @pytest.mark.parametrize("measure", ["weight", "delta", "relative"])
    @pytest.mark.parametrize("scale", ["log", "linear"])
    def test_the_switches(self, url, measure, scale):
        answer = ask(url, f"{SMALL}&measure={measure}&scale={scale}")
        figure = answer["figures"]["gradient"]
        layers = simulate(NetworkSpec.from_query(SMALL), 16).weight_layers
        read = {"weight": "weight_gradient_norm", "delta": "delta_norm"}.get(
            measure, "grad_to_weight"
        )
        expected = [float(getattr(layer, read)) for layer in layers]
        assert figure["data"][1]["y"] == pytest.approx(expected, rel=1e-12)
        assert figure["layout"]["yaxis"]["type"] == scale

    def test_a_pinned_network_is_drawn_and_compared_in_words(self, url):
        answer = ask(url, f"{SMALL}&pin=depth%3D6%26width%3D8%26activation%3Drelu")
        other = simulate(NetworkSpec(depth=6, width=8, activation="relu"), 16)
        traces = {trace["name"]: trace for trace in answer["figures"]["gradient"]["data"]}
        assert traces["pinned"]["y"] == pytest.approx(list(other.weight_gradient_norms))
        assert "depth: 6 → 4" in answer["comparison"]["settings"]
        assert "activation: ReLU → Tanh" in answer["comparison"]["settings"]
        assert any("diagnosis" in line for line in answer["comparison"]["results"])

    def test_the_same_address_gives_the_same_bytes(self, url):
        address = f"{url}/api/explore?{SMALL}"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: httpx.get(address, timeout=120), range(16)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1

    def test_a_large_network_is_answered_at_once_from_fewer_seeds(self, url):
        query = "depth=200&width=128&activation=relu&init=he"
        first, whole = ask(url, f"{query}&first=1"), ask(url, query)
        assert first["ensemble"]["partial"]
        assert not whole["ensemble"]["partial"]
        assert 1 <= first["ensemble"]["seeds"] < whole["ensemble"]["seeds"] == 16
        assert "First answer" in first["ensemble"]["note"]
        flow = simulate(NetworkSpec.from_query(query), first["ensemble"]["seeds"])
        drawn = first["figures"]["gradient"]["data"][1]["y"]
        assert drawn == pytest.approx(list(flow.weight_gradient_norms), rel=1e-12)

    @pytest.mark.parametrize(
        "query", [SMALL, "depth=60&width=128&activation=relu&init=he", "seeds=1"]
    )
    def test_a_quick_answer_is_what_one_network_gives(self, url, query):
        quick, whole = ask(url, f"{query}&quick=1"), ask(url, f"{query}&seeds=1")
        assert quick["ensemble"]["seeds"] == 1
        assert quick["ensemble"]["partial"]
        assert quick["figures"].keys() == {"gradient"}
        assert quick["figures"]["gradient"] == whole["figures"]["gradient"]
        for name in ("verdict", "said", "cards", "journey", "bridge", "limits", "clip"):
            assert quick[name] == whole[name]

    def test_the_server_says_what_is_asked_for_next(self, url):
        usual, large = f"{SMALL}&seeds=3", "depth=200&width=128&activation=relu&init=he"
        assert ask(url, f"{usual}&quick=1")["ensemble"]["next"] == "whole"
        assert ask(url, usual)["ensemble"]["next"] is None
        assert ask(url, f"{usual}&first=1")["ensemble"]["next"] is None
        assert ask(url, f"{large}&quick=1")["ensemble"]["next"] == "first"
        assert ask(url, f"{large}&first=1")["ensemble"]["next"] == "whole"

    def test_an_answer_is_kept_and_asked_for_by_its_tag(self, url):
        address = f"{url}/api/explore?{SMALL}&seed=77&quick=1"
        first = httpx.get(address, timeout=120)
        again = httpx.get(address, timeout=120)
        assert first.content == again.content
        assert "Server-Timing" not in again.headers  # nothing was measured
        tag = {"If-None-Match": first.headers["ETag"]}
        kept = httpx.get(address, headers=tag, timeout=120)
        assert (kept.status_code, kept.content) == (304, b"")
        other = httpx.get(address.replace("seed=77", "seed=78"), headers=tag, timeout=120)
        assert other.status_code == 200

    def test_what_is_too_large_is_refused_in_words(self, url):
        answer = ask(url, "depth=1000&width=4096", 422)
        assert "depth · width · (width + batch size) must be at most" in answer["error"]
        assert answer["view"]["settings"]["width"] == "4096"

    @pytest.mark.parametrize(
        "query",
        ["depth=%00", "pin=pin%3Dpin", "depth=1e999", "activation=<script>alert(1)</script>"],
    )
    def test_hostile_addresses_get_an_answer_and_no_traceback(self, url, query):
        text = httpx.get(f"{url}/api/explore?{query}&first=1", timeout=120).text
        assert "Traceback" not in text
        assert "/src/" not in text
        assert json.loads(text)["notices"]

    def test_non_finite_numbers_are_words(self, url):
        answer = ask(url, "depth=100&width=256&activation=relu&init=random&seeds=2")
        assert answer["verdict"] == Verdict.NON_FINITE
        assert {card["value"]["digits"] for card in answer["cards"][:3]} <= {
            "undefined",
            "infinite",
        }


class TestWords:
    def test_a_model_without_weight_layers_is_described(self):
        import torch
        from torch import nn

        flow = inspect(nn.LayerNorm(3), lambda m: m(torch.ones(2, 3)).sum())
        answer = describe_flow(flow)
        assert answer["figures"] is None
        assert answer["table"]["rows"] == []
        json.dumps(answer, allow_nan=False)

    @settings(max_examples=30, deadline=None)
    @given(
        depth=st.integers(2, 12),
        width=st.sampled_from((6, 16)),
        activation=st.sampled_from(("sigmoid", "relu", "selu")),
        init=st.sampled_from(("he", "random", "pytorch")),
        residual=st.sampled_from(("none", "plain")),
        other=st.booleans(),
    )
    def test_every_answer_is_json_and_every_card_has_word_and_icon(
        self, depth, width, activation, init, residual, other
    ):
        spec = NetworkSpec(
            depth=depth, width=width, activation=activation, init=init, residual=residual
        )
        flow = simulate(spec, 3)
        pinned = simulate(spec.replace(depth=3), 2) if other else None
        answer = describe_flow(flow, other=pinned, layer=depth)
        json.dumps(answer, allow_nan=False)
        for card in answer["cards"][:3]:
            assert card["icon"]
            assert card["word"]
            assert card["state"] in ("good", "warn", "bad", "")
        estimated = diagnose(flow).viability.sgd.word is not Outlook.UNKNOWN
        assert estimated or width < LEAST
        start = "training " if estimated else "measured only"
        assert answer["cards"][3]["badge"]["text"].startswith(start)

    def test_cards_say_the_figures(self):
        flow = simulate(PRESETS["Vanishing (Sigmoid)"].spec, 16)
        first, last, ratio, verdict = describe_flow(flow)["cards"]
        exponent = math.floor(math.log10(flow.weight_gradient_norms[0]))
        assert first["value"]["exponent"] == exponent
        assert (first["state"], last["state"]) == ("warn", "good")
        assert ratio["word"] == "shrinks on the way back"
        assert verdict["badge"]["text"] == "training not viable (15 layers)"

    def test_clipping_is_told_with_norms_before_and_after(self):
        spec = NetworkSpec(depth=5, width=8, activation="relu", init="random", clip_norm=0.5)
        flow = simulate(spec, 4)
        text = describe_clipping(flow)
        assert "0.5 after" in text
        assert "4 of 4 networks" in text
        assert describe_clipping(simulate(spec.replace(clip_norm=None), 2)) == ""
        assert "does nothing" in describe_clipping(simulate(spec.replace(clip_norm=1e20), 2))

    def test_comparing_with_itself_finds_nothing(self):
        flow = simulate(NetworkSpec(depth=3, width=4), 2)
        comparison = compare(flow, flow)
        assert comparison["settings"] == []
        assert all("about the same" in line for line in comparison["results"][:3])


class TestPlanning:
    @settings(deadline=None)
    @given(legal_specs, st.integers(1, 64))
    def test_a_plan_keeps_the_budget(self, spec, seeds):
        entries = spec.depth * spec.width * (spec.width + spec.batch_size)
        try:
            whole = plan_seeds(spec, seeds, first=False)
        except SpecError:
            assert entries > NETWORK_BUDGET
            return
        assert 1 <= plan_seeds(spec, seeds, first=True) <= whole <= seeds
        assert whole * entries <= PAGE_BUDGET

    @pytest.mark.parametrize(("depth", "width"), [(100, 256), (1000, 64), (15, 64)])
    def test_the_usual_sizes_are_measured_whole(self, depth, width):
        assert plan_seeds(NetworkSpec(depth=depth, width=width), 16, first=False) == 16

    @pytest.mark.parametrize(("batch", "most"), [(32, 3), (4096, 2)])
    def test_what_is_too_large_names_the_depth_that_is_possible(self, batch, most):
        spec = NetworkSpec(depth=most, width=4096, batch_size=batch)
        assert plan_seeds(spec, 16, first=False) == PAGE_BUDGET // NETWORK_BUDGET
        with pytest.raises(SpecError, match=f"{most} layers are possible"):
            plan_seeds(spec.replace(depth=most + 1), 16, first=False)

    def test_a_large_pinned_network_makes_a_first_answer_too(self, url):
        query = f"{SMALL}&pin=depth%3D200%26width%3D128"
        first, whole = ask(url, f"{query}&first=1"), ask(url, query)
        assert first["ensemble"]["partial"]
        assert "pinned" in first["ensemble"]["note"]
        assert not whole["ensemble"]["partial"]


@pytest.mark.parametrize("name", ["Vanishing (Sigmoid)", "Deep and rescued (100 layers, residual)"])
def test_gradient_of_weights_is_shown_as_what_it_is_the_product_of(name):
    flow = simulate(PRESETS[name].spec, 2)
    text = describe_bridge(flow)
    for layer in (flow.weight_layers[0], flow.weight_layers[-1]):
        weight, delta = layer.weight_gradient_norm, layer.delta_norm
        product = f"{format_number(delta)} × {format_number(weight / delta)}"
        assert f"ayer {layer.layer}: {product} ≈ {format_number(weight)}" in text


def test_a_change_says_how_likely_it_then_trains_beside_what_it_is_called():
    """Healthy is said of gradients; whether the network trains is another matter."""
    spec = NetworkSpec(depth=30, width=16, activation="relu", init="xavier")
    remedies = find_remedies(spec, 2)
    described = describe_remedies(remedies)
    shown = [*described["remedies"], *described["refuted"]]
    for each, remedy in zip(shown, (*remedies, *remedies.refuted), strict=True):
        sgd = remedy.diagnosis_after.viability.sgd
        assert describe_probability(sgd.probability) in each["chance_after"]["text"]
        assert each["chance_after"]["state"] == OUTLOOK_LOOKS[sgd.word].state


def test_every_activation_and_initialization_says_in_one_line_what_it_is():
    assert set(ACTIVATION_MEANINGS) == set(ACTIVATIONS)
    assert set(INITIALIZATION_MEANINGS) == set(INITIALIZERS)


@pytest.mark.parametrize(("depth", "words"), [(1, "(1 layer)"), (12, "(12 layers)")])
def test_an_estimate_names_the_depth_that_it_holds_for(depth, words):
    flow = simulate(NetworkSpec(depth=depth, width=16, activation="tanh"), 2)
    assert describe_flow(flow)["cards"][-1]["badge"]["text"].endswith(words)
    tiny = simulate(NetworkSpec(depth=12, width=2), 2)  # nothing is estimated
    assert "layer" not in describe_flow(tiny)["cards"][-1]["badge"]["text"]


def test_a_change_of_the_depth_says_for_how_many_layers_its_chance_holds():
    remedies = find_remedies(NetworkSpec(depth=15, init="xavier"), 2)
    described = describe_remedies(remedies)
    shown = [*described["remedies"], *described["refuted"]]
    depths = set()
    for each, remedy in zip(shown, (*remedies, *remedies.refuted), strict=True):
        text, depth = each["chance_after"]["text"], remedy.spec.depth
        assert text.endswith(f"({depth} layers)" if depth not in (1, 15) else "%")
        depths.add(depth)
    assert len(depths) > 1  # fewer layers are among the changes


def test_values_of_fewer_networks_than_the_chart_shows_say_so():
    remedies = find_remedies(NetworkSpec(depth=12, width=16, init="xavier"), 2)
    names = {
        shown: {each["bar"]["name"] for each in describe_remedies(remedies, shown)["remedies"]}
        for shown in (2, 3)
    }
    assert all("median of 2 networks" in name for name in names[3])
    assert not any("networks" in name for name in names[2])


@pytest.mark.parametrize(("query", "whole"), [("", 16), ("seeds=5", 5)])
def test_an_answer_from_fewer_networks_says_from_how_many(url, query, whole):
    quick = ask(url, f"{query}&quick=1" if query else "quick=1")
    assert f"1 of {whole} networks" in quick["ensemble"]["so_far"]
    assert ask(url, query)["ensemble"]["so_far"] == ""
