"""benchmarks/alarms.py: real programs with a known fault, what was said of them, and the page."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from chainrule.watch.alarm_constants import RECORD
from chainrule.watch.rules import RULES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def alarms():
    """Return the script."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("alarms")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rows(alarms):
    return list(alarms.load_rows().values())


FAULTY = (
    "softmax_over_one_unit",
    "unscaled_inputs_tanh",
    "logarithm_of_raw_outputs",
    "feature_to_100",
    "optimizer_of_another_copy",
    "sgd_rate_1e_7",
    "one_step_kills",
    "class_weights_of_zero",
    "layers_added_afterwards",
    "most_targets_ignored",
    "never_zeroed",
    "convolution_dies",
)
SOUND = (
    "fine_tuned_head",
    "dense_momentum_cosine",
    "small_batches",
    "probe_of_open_body",
    "two_players",
)


class TestPrograms:
    @pytest.mark.parametrize("name", FAULTY)
    def test_a_fault_is_named_in_time(self, alarms, name):
        program = alarms.PROGRAMS[name]
        torch.manual_seed(program.seed)
        setup = program.build(True)
        setup.steps = min(setup.steps, program.onset + program.patience + 1)
        outcome = alarms.train_watched(setup)
        said = [each for each in outcome.alarms if each.kind in program.kinds]
        assert said
        assert program.onset <= said[0].step <= program.onset + program.patience

    @pytest.mark.parametrize("name", SOUND)
    def test_a_sound_program_gives_no_alarm(self, alarms, name):
        program = alarms.PROGRAMS[name]
        torch.manual_seed(program.seed)
        setup = program.build(False)
        setup.steps = min(setup.steps, 120)
        assert alarms.train_watched(setup).alarms == ()


class TestTruth:
    def test_every_program_was_trained(self, alarms, rows):
        wanted = {
            (name, bug)
            for name, program in alarms.PROGRAMS.items()
            for bug in ((True, False) if program.kinds else (False,))
        }
        assert {(row.program.name, row.bug) for row in rows} == wanted

    def test_faulty_programs_fail_and_sound_ones_train(self, rows):
        assert [row.program.name for row in rows if row.trained == row.bug] == []

    def test_there_are_enough(self, rows):
        assert sum(row.bug and row.program.group == "own" for row in rows) >= 30
        assert sum(not row.program.kinds for row in rows) >= 30

    def test_most_faults_are_named_in_time(self, rows):
        faulty = [row for row in rows if row.bug]
        known = [row for row in faulty if row.program.group == "known"]
        own = [row for row in faulty if row.program.group == "own"]
        assert sum(row.found for row in known) >= len(known) - 1
        assert sum(row.found for row in own) >= 0.95 * len(own)

    def test_sound_programs_are_left_alone(self, rows):
        clean = [row for row in rows if not row.program.kinds]
        twins = [row for row in rows if row.program.kinds and not row.bug]
        assert 30 * sum(bool(row.alarms) for row in clean) <= len(clean)
        known = [row for row in twins if row.program.group == "known"]
        assert [row.program.name for row in known if row.alarms] == []

    def test_page_and_constants_are_those_of_the_table(self, alarms, rows, tmp_path, monkeypatch):
        assert alarms.count_rules(rows) == dict(RECORD)
        page = alarms.REPORT_FILE.read_text(encoding="utf-8")
        monkeypatch.setattr(alarms, "REPORT_FILE", tmp_path / "alarms.md")
        alarms.write_report(rows)
        assert (tmp_path / "alarms.md").read_text(encoding="utf-8") == page

    def test_every_kind_of_rule_but_replicas_is_in_the_set(self, rows):
        kinds = {kind for row in rows for kind in row.program.kinds}
        assert {rule.kind for rule in RULES} - kinds == {"replicas diverge"}
