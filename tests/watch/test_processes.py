"""Two processes that train together (gloo, on the CPU)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "watching_ranks.py"


def run(case, folder):
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SCRIPT), case, str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [each.communicate(timeout=280)[0] for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()
    assert [each.returncode for each in started] == [0, 0], "\n".join(said)[-6000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ddp", "fsdp"])
def test_training_is_the_same_and_norms_are_those_of_the_whole(case, tmp_path):
    first, second = run(case, tmp_path)
    for each in (first, second):
        assert each["same"]
        assert each["ratio"] < 1e-4
        assert each["said"] == []
        assert each["bad"] == []
        assert each["steps"] == (500 if case == "ddp" else 200)
        assert each["names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert each["shapes"] == [[7, 4], [7], [3, 7], [3]]
        assert each["layers"] == ["0", "1", "2"]
        assert all(each["deltas"])
        assert min(each["updates"]) > 0
    assert first["updates"] == pytest.approx(second["updates"], rel=1e-9)
    assert first["spread"] == (0.0 if case == "ddp" else None)
    assert second["spread"] is None
    assert first["written"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bad_ddp", "bad_fsdp"])
def test_a_bad_gradient_is_seen_by_all_and_its_process_is_named(case, tmp_path):
    first, second = run(case, tmp_path)
    for each in (first, second):
        assert each["finite"] == [True] * 6 + [False] * 6
        assert each["bad"][:6] == [None] * 6
        assert each["bad"][6] == 1
    assert "non_finite" in first["alarms"]
    assert second["alarms"] == []


@pytest.mark.slow
def test_all_processes_leave_the_same_step_out(tmp_path):
    for each in run("skip", tmp_path):
        assert each["skipped"] == [""] * 6 + ["non-finite gradient"] + [""] * 5
        assert each["finite"]


@pytest.mark.slow
def test_replicas_that_differ_are_seen(tmp_path):
    first, second = run("replicas", tmp_path)
    assert first["spread"] > 0.1
    assert second["spread"] is None


@pytest.mark.slow
def test_norms_of_spread_tensors(tmp_path):
    for each in run("norms", tmp_path):
        assert each["found"] == pytest.approx(each["wanted"], rel=1e-6)
        assert each["none"] == []


@pytest.mark.slow
def test_a_process_that_does_not_watch_is_found_out(tmp_path):
    first, _ = run("absent", tmp_path)
    assert "2 processes" in first["said"]
    assert first["hooks"] == 0


@pytest.mark.slow
def test_flat_shards_are_refused(tmp_path):
    for each in run("fsdp1", tmp_path):
        if each["said"].startswith("skipped"):
            pytest.skip(each["said"])
        assert "fully_shard" in each["said"]
