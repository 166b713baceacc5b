"""`chainrule demo` as a user starts it."""

import queue
import re
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from chainrule.watch.reading import RunReader

PATIENCE = 120


def run_demo(*options):
    command = [sys.executable, "-m", "chainrule", "demo", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )


@pytest.mark.slow
def test_trains_tells_the_alarm_and_ends_by_ctrl_c(tmp_path):
    options = ("--fault", "dead", "--step", "20", "--steps", "40", "--no-browser")
    process = run_demo(*options, "--folder", str(tmp_path))
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout])
    reader.start()
    said = ""
    try:
        while not ("has ended after 40 steps" in said and "explorer:" in said):
            said += lines.get(timeout=PATIENCE)
        assert re.search(r"step 2\d: dead units", said)
        url = re.search(r"http://127\.0\.0\.1:\d+/runs/demo-dead", said)
        assert url
        answer = httpx.get(url.group().replace("/runs/", "/api/runs/"), timeout=PATIENCE).json()
        assert (answer["step"], answer["state"]) == (40, "ended")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    assert RunReader(tmp_path / "demo-dead.db").ended


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--fault", "weather"), "rate, dead, masked, underflow"),
        (("--step", "0"), "--step"),
        (("--step", "30", "--steps", "20"), "30 of 20"),
        (("--folder", "/dev/null/runs"), "--folder"),
    ],
)
def test_bad_options(capsys, options, named):
    from chainrule.cli.application import main

    with pytest.raises(SystemExit) as stopped:
        main(["demo", *options])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def test_a_folder_of_runs_must_be_one(capsys, tmp_path):
    from chainrule.cli.application import main

    with pytest.raises(SystemExit) as stopped:
        main(["explore", "--runs", str(tmp_path / "none")])
    assert stopped.value.code == 2
    assert "--runs" in capsys.readouterr().err


def test_ctrl_c_before_the_page_ends_the_training_first(capsys, monkeypatch):
    from chainrule.cli import demo
    from chainrule.cli.application import main

    folders, before = [], set(threading.enumerate())

    def press(path, trainer):
        folders.append(path.parent)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_wait_for", press)
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--no-browser"])
    assert stopped.value.code == 130
    assert set(threading.enumerate()) <= before
    assert not folders[0].exists()
