"""Reports from the command line; no browser is opened."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from chainrule.flow.loading import load_flow
from chainrule.report import build_report

ROOT = Path(__file__).parents[2]
CLASSIC = f"{ROOT}/examples/classic_sigmoid.py:build"
SMALL = ("simulate", "--depth", "3", "--width", "8", "--seeds", "2")


def read_opened(addresses):
    (address,) = addresses
    assert address.startswith("file:///")
    return Path(unquote(urlparse(address).path)).read_text(encoding="utf-8")


def test_inspect_opens_a_report_and_says_where_it_is(run, opened):
    code, out, err = run("inspect", CLASSIC, "--open")
    assert code == 0
    assert "VANISHING" in out
    page = read_opened(opened)
    assert page.startswith("<!DOCTYPE html>")
    (path,) = re.findall(r"Wrote (\S+\.html)", err)
    assert Path(path).read_text(encoding="utf-8") == page


def test_inspect_writes_flow_and_report_where_it_is_told(run, opened, tmp_path):
    flow, report = tmp_path / "flow.json", tmp_path / "a report.html"
    code, _, err = run("inspect", CLASSIC, "--output", flow, "--report", report, "--open")
    assert code == 0
    assert f"Wrote {flow}" in err
    assert f"Wrote {report}" in err
    assert report.read_text(encoding="utf-8") == build_report(load_flow(flow))
    assert read_opened(opened) == build_report(load_flow(flow))


def test_simulate_writes_a_report_without_opening_it(run, opened, tmp_path):
    report = tmp_path / "report.html"
    code, _, err = run(*SMALL, "--report", report)
    assert code == 0
    assert f"Wrote {report}" in err
    assert "3 layers × 8 units" in report.read_text(encoding="utf-8")
    assert opened == []


def test_a_report_holds_the_remedies_that_were_asked_for(run, tmp_path):
    report = tmp_path / "report.html"
    shape = ("--depth", "20", "--width", "8", "--init", "xavier", "--activation", "relu")
    code, _, _ = run("simulate", *shape, "--seeds", "2", "--remedies", "--report", report)
    assert code == 0
    assert "What to change" in report.read_text(encoding="utf-8")


def test_json_on_standard_output_stays_json(run, tmp_path):
    import json

    _, out, _ = run(*SMALL, "--json", "--report", tmp_path / "report.html")
    assert json.loads(out)["flow"]["spec"]["depth"] == 3


def test_an_unhealthy_network_still_gets_its_report(run, opened):
    code, _, _ = run("inspect", CLASSIC, "--check", "--open")
    assert code == 1
    assert "Diagnosis: vanishing" in read_opened(opened)


def test_report_turns_a_saved_flow_into_a_page(run, opened, tmp_path):
    flow, report = tmp_path / "flow.json", tmp_path / "report.html"
    run(*SMALL, "--output", flow)
    code, out, _ = run("report", flow, "--report", report, "--title", "A & B")
    assert (code, out) == (0, "")
    page = report.read_text(encoding="utf-8")
    assert page == build_report(load_flow(flow), title="A & B")
    assert opened == []
    assert run("report", flow, "--open")[0] == 0
    assert read_opened(opened) == build_report(load_flow(flow))


def test_without_a_browser_it_says_what_to_do(run, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    code, _, err = run(*SMALL, "--open")
    assert code == 0
    assert "open that file" in err.lower()


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("report", "lost.json", "--open"), "Could not read lost.json: No such file"),
        (("report", f"{ROOT}/pyproject.toml", "--open"), "must hold JSON as written by chainrule"),
        (("report", "flow.json"), "--report FILE"),
        (("report", "flow.json", "--report", "nowhere/r.html"), "existing folder"),
        (("report", "flow.json", "--output", "r.html"), "--report FILE"),
        (("report", "flow.json", "-o", "flow.json"), "--report FILE"),
        (("simulate", "--depth", "900", "--report", "nowhere/r.html"), "existing folder"),
        (("inspect", CLASSIC, "--report", "/"), "must be a file, but / is a folder"),
    ],
)
def test_what_cannot_be_done_is_one_message(run, opened, args, problem):
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert problem in " ".join(err.split())
    assert "Traceback" not in err
    assert opened == []


@pytest.mark.parametrize("spelling", ["flow.json", "./flow.json", "folder/../flow.json", "link"])
def test_a_report_never_takes_the_place_of_its_flow(run, tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    run(*SMALL, "--output", "flow.json")
    (tmp_path / "link").symlink_to("flow.json")
    before = (tmp_path / "flow.json").read_text(encoding="utf-8")
    code, out, err = run("report", "flow.json", "--report", spelling)
    assert (code, out) == (2, "")
    assert "--report" in err
    assert "flow.json" in err
    assert (tmp_path / "flow.json").read_text(encoding="utf-8") == before


def test_no_file_is_written_twice_or_over_code(run, tmp_path):
    model = tmp_path / "model.py"
    model.write_text((ROOT / "examples/classic_sigmoid.py").read_text())
    code = model.read_text()
    link = tmp_path / "link"
    link.symlink_to(model)
    both = tmp_path / "both"
    for options in (
        ("--output", both, "--report", both),
        ("--output", model),
        ("--report", link),
        ("--report", tmp_path / "other.py"),
    ):
        assert run("inspect", f"{model}:build", *options)[:2] == (2, "")
    assert model.read_text() == code
    assert not both.exists()
