"""Two processes that train together (gloo, on the CPU)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "watching_ranks.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What both processes found, by case; they go through all cases one after another."""
    folder = tmp_path_factory.mktemp("ranks")
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [each.communicate(timeout=1800)[0] for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert [each.returncode for each in started] == [0, 0], "\n".join(said)[-6000:]

    def read(case):
        found = [json.loads((folder / case / f"{rank}.json").read_text()) for rank in range(2)]
        assert not [each["error"] for each in found if "error" in each]
        return found

    return read


@pytest.mark.parametrize("case", ["ddp", "fsdp"])
def test_training_is_the_same_and_norms_are_those_of_the_whole(run, case):
    first, second = run(case)
    for each in (first, second):
        assert each["same"]
        assert each["ratio"] < 1e-4
        assert each["said"] == []
        assert each["bad"] == []
        assert each["steps"] == 500
        assert each["names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert each["shapes"] == [[7, 4], [7], [3, 7], [3]]
        assert each["layers"] == ["0", "1", "2"]
        assert all(each["deltas"])
        assert min(each["updates"]) > 0
    assert first["updates"] == pytest.approx(second["updates"], rel=1e-9)
    found = set(first["spreads"]) - {None}  # of a sample that the first one takes alone
    assert found == ({0.0} if case == "ddp" else set())
    assert set(second["spreads"]) == {None}
    assert first["written"]


@pytest.mark.parametrize("case", ["bad_ddp", "bad_fsdp"])
def test_a_bad_gradient_is_seen_by_all_and_its_process_is_named(run, case):
    first, second = run(case)
    for each in (first, second):
        assert each["finite"] == [True] * 6 + [False] * 6
        assert each["bad"][:6] == [None] * 6
        assert each["bad"][6] == 1
    assert "non_finite" in first["alarms"]
    assert second["alarms"] == []


def test_all_processes_leave_the_same_step_out(run):
    for each in run("skip"):
        assert each["skipped"] == [""] * 6 + ["non-finite gradient"] + [""] * 5
        assert each["finite"]


def test_replicas_that_differ_are_seen(run):
    first, second = run("replicas")
    assert first["spread"] > 0.1
    assert second["spread"] is None


def test_norms_of_spread_tensors(run):
    for each in run("norms"):
        assert each["found"] == pytest.approx(each["wanted"], rel=1e-6)
        assert each["none"] == []


def test_a_process_that_does_not_watch_is_found_out(run):
    first, _ = run("absent")
    assert "2 processes" in first["said"]
    assert first["hooks"] == 0


def test_flat_shards_are_refused(run):
    for each in run("fsdp1"):
        if each["said"].startswith("skipped"):
            pytest.skip(each["said"])
        assert "fully_shard" in each["said"]
