import errno
import inspect
import json

import pytest

from chainrule.width.check import check_width

MODEL = """
import torch
from torch import nn

def build_width(width, fault=True, seeded=False, rates=True):
    if seeded:
        torch.manual_seed(0)
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2, bias=False))
    nn.init.normal_(model[2].weight, std=1.0 if fault else 1.0 / width)
    print("from the model")
    groups = [{"params": model[0].parameters()}]
    groups += [{"params": model[2].parameters(), "lr": 0.02 / width}]
    optimizer = torch.optim.Adam(groups, lr=1e-3, eps=1e-12)
    loss = lambda m: (m(x) - y).square().mean()
    return (model, loss, optimizer) if rates else (model, loss)

def build_sound(width): return build_width(width, fault=False)
def build_seeded(width): return build_width(width, seeded=True)
def build_without_rates(n): return build_width(n, rates=False)
def build_alone(width): return build_width(width)[0]
def build_two(width, depth): return build_width(width)
def build_nothing(): return build_width(8)
def build_end(width): raise SystemExit(0)
"""


@pytest.fixture
def width(run, tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    return lambda name, *words: run(
        "width", f"{tmp_path / 'model.py'}:{name}", "--widths", "16,32,64", "--steps", "2", *words
    )


def test_a_fault_is_named_and_only_check_makes_it_an_exit_code(width):
    code, out, err = width("build_width")
    assert code == 0
    assert out.startswith("Depends on width")
    assert "  `2`: " in out
    assert "from the model" in err
    assert "from the model" not in out
    code, out, err = width("build_width", "--check", "--json")
    assert code == 1
    found = json.loads(out)
    assert (found["verdict"], found["widths"], found["steps"], found["seeds"]) == (
        "depends on width", [16, 32, 64], 2, 3,
    )  # fmt: skip
    assert "2" in {each["module"] for each in found["findings"]}


def test_a_sound_model_ends_well(width):
    code, out, _ = width("build_sound", "--check")
    assert code == 0
    assert out.startswith("Width-independent")


def test_without_an_optimizer_it_is_adam(width):
    code, out, _ = width("build_without_rates", "--json")
    assert (code, json.loads(out)["optimizer"]) == (0, "Adam")


def test_a_factory_that_sets_its_own_seed_counts_once(width):
    code, out, err = width("build_seeded", "--json")
    found = json.loads(out)
    assert (code, found["seeds"]) == (0, 1)
    assert any("torch.manual_seed" in note for note in found["notes"])
    code, out, err = width("build_seeded", "--widths", "16,32")
    assert (code, out) == (2, "")
    assert "torch.manual_seed" in err


def test_a_picture_is_written(width, tmp_path):
    place = tmp_path / "width.html"
    code, _, err = width("build_width", "--plot", place, "--metric", "output")
    assert code == 0
    assert "width^" in place.read_text(encoding="utf-8")
    assert str(place) in err.replace("\n", "")


@pytest.mark.parametrize(
    ("name", "words", "facts"),
    [
        ("build_width", ("--widths", "64,wide"), ["--widths", "64,wide"]),
        ("build_width", ("--widths", "64"), ["widths", "two"]),
        ("build_width", ("--steps", "0"), ["steps", "0"]),
        ("build_width", ("--metric", "chnage"), ["--metric", "chnage", "'change'"]),
        ("build_width", ("--plot", "nowhere/width.html"), ["nowhere"]),
        ("build_width", ("--plot", "width.py"), ["--plot", "width.py"]),
        ("build_none", (), ["build_none", "build_nothing"]),
        ("build_alone", (), ["build_alone(16)", "compute_loss", "Sequential"]),
        ("build_two", (), ["build_two", "width", "depth"]),
        ("build_nothing", (), ["build_nothing", "width"]),
        ("build_end", (), ["SystemExit"]),
    ],
)
def test_what_cannot_be_says_why(width, name, words, facts):
    code, out, err = width(name, *words, "--check")
    assert (code, out) == (2, "")
    assert all(fact in err for fact in facts)


def test_defaults_are_those_of_the_function(run):
    out = " ".join(run("width", "--help", columns=200)[1].split())
    for name in ("steps", "seeds"):
        default = inspect.signature(check_width).parameters[name].default
        assert f"[default: {default}]" in out.partition(f"--{name}")[2][:80]


def test_a_folder_that_takes_no_files_is_refused_before_the_work(width, monkeypatch, tmp_path):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("chainrule._utils.files.tempfile.TemporaryFile", refuse)
    code, _, err = width("build_sound", "--plot", str(tmp_path / "a.html"))
    assert code != 0
    assert "must take files" in err
    assert "from the model" not in err
    assert "Traceback" not in err
