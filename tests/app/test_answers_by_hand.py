"""Words of answers, from plain numbers."""

import math
from dataclasses import replace

import pytest

from chainrule.app.answers.flow_answer import _tell_factor
from chainrule.app.answers.page_picture import title_sample
from chainrule.app.answers.remedy_answer import _describe_chance
from chainrule.app.answers.run_answer import describe_line, describe_run
from chainrule.app.samples import SAMPLES
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.measure.simulation import simulate
from chainrule.remedies.spec_search import find_spec_remedies
from chainrule.spec.network_spec import NetworkSpec
from chainrule.watch.reading import RunReader
from chainrule.watch.store import RunWriter
from made_runs import make_alarm, make_facts, make_records, make_run


class TestRuns:
    @pytest.mark.parametrize(("processes", "words"), [(1, []), (2, ["2 processes"])])
    def test_processes_are_named_where_there_are_several(self, processes, words, tmp_path):
        path = make_run(tmp_path / "a.db", steps=4, world_size=processes)
        found = describe_run(RunReader(path), "a")["words"]
        assert [word for word in found if "process" in word] == words

    def test_speed_is_that_of_a_run_that_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr("chainrule.app.answers.run_answer.measure_speed", lambda *_: 12.0)
        path = tmp_path / "a.db"

        def describe():
            found = describe_run(RunReader(path), "a")
            return found["state"], "12 steps a second" in found["words"]

        with RunWriter.open(path, make_facts()) as writer:
            for record in make_records(4):
                writer.write(record)
            writer.flush()
            assert describe() == ("live", True)
        assert describe() == ("ended", False)

    @pytest.mark.parametrize(("count", "more"), [(0, ""), (1, ""), (2, "and 1 more")])
    def test_a_line_names_the_first_alarm_and_counts_the_others(self, count, more, tmp_path):
        path = tmp_path / "a.db"
        with RunWriter.open(path, make_facts()) as writer:
            for record in make_records(4):
                writer.write(record)
            for step in range(3, 3 + count):
                writer.write(make_alarm(step))
        line = describe_line(path, "a")
        assert line["more"] == more
        assert line["alarm"].endswith("at step 3" if count else "")
        assert bool(line["alarm"]) is (count > 0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (2.0, 2.0, ", about the same"),
        (2.0, 2.09, ", about the same"),
        (2.09, 2.0, ", about the same"),
        (2.0, 8.0, ", 4 times larger"),
        (8.0, 2.0, ", 4 times smaller"),
        *((value, 1.0, "") for value in (None, 0.0, math.inf, math.nan)),
        *((1.0, value, "") for value in (None, 0.0, math.inf, math.nan)),
    ],
)
def test_a_factor_is_told_where_both_are_positive_and_finite(old, new, words):
    assert _tell_factor(old, new) == words


def test_a_sample_is_titled_by_what_it_shows():
    name, sample = next(iter(SAMPLES.items()))
    assert title_sample({"sample": name}) == f"{sample.title}: {sample.teaser}"
    assert title_sample({}).startswith("Your own model")


def test_a_chance_names_the_depth_where_a_change_made_it_another():
    spec = NetworkSpec(depth=30, width=16, activation="sigmoid")
    tried = find_spec_remedies(spec, 2).tried
    shallower = next(each for each in tried if len(each.after.weight_layers) < 30)
    same = replace(shallower, after=simulate(spec, 2), diagnosis_after=diagnose(simulate(spec, 2)))
    depth = len(shallower.after.weight_layers)
    assert f"{depth} layers" in _describe_chance(shallower)["text"]
    assert "layers" not in _describe_chance(same)["text"]
