"""The search itself: what it counts, keeps, forgets and ranks, given measurements."""

import pytest

from chainrule.diagnosis.rule import Verdict
from chainrule.measure.simulation import simulate
from chainrule.remedies.result import Outcome
from chainrule.remedies.search import Pair, Search
from chainrule.remedies.spec_changes import SpecChange
from chainrule.spec.network_spec import NetworkSpec

SICK = NetworkSpec(depth=12, width=32, activation="relu", init="pytorch")
SPECS = {
    "cure": SICK.replace(init="he"),
    "help": SICK.replace(init="random", weight_std=0.15),
    "small help": SICK.replace(init="random", weight_std=0.13),
    "fail": SICK.replace(clip_norm=1.0),
}
KINDS = {"cure": "initialization", "help": "gain", "small help": "depth", "fail": "clipping"}


@pytest.fixture(scope="module")
def flows():
    return {name: simulate(spec, 3) for name, spec in {"before": SICK, **SPECS}.items()}


def change(title, *kinds):
    kinds = kinds or (KINDS[title],)
    return SpecChange(kinds=kinds, title=title, reason="", spec=SPECS.get(title, SICK))


@pytest.fixture
def measured(flows):
    """A search and what measures for it, by title; of "A + B" the flow is that of "A"."""

    def start(**options):
        search = Search(flows["before"], options.pop("enough", 4), **options)

        def measure(each):
            if each.title == "nothing":
                return None
            search.advance()
            return flows[each.title.partition(" + ")[0]]

        return search, measure

    return start


def list_titles(remedies):
    return [remedy.title for remedy in remedies]


def test_outcomes_come_first_then_costs(measured):
    search, measure = measured()
    assert search.diagnosis.verdict is Verdict.VANISHING
    search.run(map(change, ["fail", "small help", "help", "cure"]), [], measure)
    assert list_titles(search.rank()) == ["cure", "help", "small help", "fail"]
    assert [r.outcome for r in search.rank()] == ["measures well", "helps", "helps", "fails"]
    assert search.count(Outcome.HELPS) == 2
    assert search.count(Outcome.MEASURES, Outcome.HELPS) == 3
    assert search.has_good()
    assert search.has_good("initialization")
    assert not search.has_good("gain")
    assert [each.title for each in search.list_best()] == ["cure", "help", "small help", "fail"]


def test_of_one_cost_the_larger_effect_comes_first_if_asked(measured):
    search, measure = measured()
    changes = [change("small help", "gain"), change("help", "gain")]
    search.run(changes, [], measure)
    assert list_titles(search.rank()) == ["small help", "help"]
    assert list_titles(search.rank(lambda r: r.comparison.closed)) == ["help", "small help"]


def test_pairs_are_kept_only_if_they_do_more_than_one_change(measured):
    search, measure = measured()
    search.run([change("small help"), change("help")], [], measure)
    pairs = search.pair_up(
        [entry.change for entry in search.tried],
        lambda one, other: change(f"{other.title} + {one.title}", "gain", "depth"),
    )
    (pair,) = pairs
    closed = {r.title: r.comparison.closed for r in search.rank()}
    assert pair.alone == closed["help"] > closed["small help"]
    search.run([], pairs, measure)  # the pair has the effect of "help": no more than it alone
    assert len(search.tried) == 2
    search.run([], [Pair(pair.change, closed["small help"])], measure)
    assert list_titles(search.rank())[-1] == "help + small help"
    search.run([], [Pair(change("fail + help", "gain", "clipping"), -9.0)], measure)
    assert len(search.tried) == 3
    search.run([], [Pair(change("cure + help", "gain", "clipping"), 2.0)], measure)
    assert list_titles(search.rank())[0] == "cure + help"


def test_of_one_kind_the_best_is_kept(measured):
    search, measure = measured()
    changes = [change("help", "depth"), change("small help", "depth"), change("fail")]
    search.run(changes, [], measure)
    search.keep_best("depth")
    assert list_titles(search.rank()) == ["help", "fail"]
    search.keep_best("width")
    assert len(search.tried) == 2


def test_candidates_see_what_was_measured_before_them(measured):
    search, measure = measured(enough=1)
    seen = []

    def list_candidates():
        for title in ("fail", "cure", "help"):
            seen.append((search.done, search.is_done))
            if search.is_done:
                return
            yield change(title)

    search.run(list_candidates(), [], measure)
    assert seen == [(1, False), (2, False), (3, True)]


def test_what_cannot_be_measured_leaves_no_trace(measured):
    search, measure = measured()
    nothing = SpecChange(kinds=("gain",), title="nothing", reason="", spec=SICK)
    search.run([nothing], [Pair(nothing, 0.0)], measure)
    assert search.tried == []
    assert search.done == 1


def test_a_limit_and_progress(measured):
    calls = []
    search, measure = measured(limit=3, progress=lambda *call: calls.append(call))
    assert search.left == 2
    search.run([change("help")], [], measure)
    assert search.left == 1
    search.plan(4)
    search.finish()
    assert calls == [(2, 3), (2, 7), (2, 2)]
    assert measured()[0].left == float("inf")
