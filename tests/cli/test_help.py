"""What `--help` says, and what the shell completes."""

import re
import shlex

import pytest

from chainrule.presets import PRESETS, get_preset
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

MEASURING = ("inspect", "simulate", "sweep", "width", "map")
COMMANDS = (*MEASURING, "report", "presets", "equation", "explore")


def read_help(run, *args):
    code, out, err = run(*args, "--help", columns=80)
    assert (code, err) == (0, "")
    return out


def test_the_list_of_commands_is_whole_sentences(run):
    out = read_help(run)
    for command in COMMANDS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [command]]
        assert line.endswith(".")
        assert not line.endswith("...")
    assert re.findall(r"\b(\d+),", out.partition("Exit codes")[2]) == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_what_it_takes_and_shows_examples(run, command):
    out = read_help(run, command)
    assert not re.search(r"[{}]|<str>|<int>|<float>", out.replace("<str>  FILE.py", ""))
    examples = re.findall(rf"^ +(chainrule {command}.*)$", out.partition("Examples:")[2], re.M)
    assert len(examples) >= 2
    assert max(map(len, out.splitlines())) <= 80


WIDTH_CODE = """

def build_width(width):
    x = torch.randn(8, 4)
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
    return model, lambda m: m(x).square().mean()
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_run(run, tmp_path, monkeypatch, opened, command):
    from pathlib import Path

    code = (Path(__file__).parents[2] / "examples/classic_sigmoid.py").read_text()
    monkeypatch.setattr("chainrule.app.server.serve", lambda *args, **settings: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(code + WIDTH_CODE)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "my_package/__init__.py").touch()
    (tmp_path / "my_package/model.py").write_text(code)
    run("simulate", "--depth", "2", "--width", "4", "--seeds", "1", "-o", "flow.json")
    examples = re.findall(r"^ +chainrule (.*)$", read_help(run, command), re.M)
    for example in examples:
        words = shlex.split(example)
        if words[0] == "simulate":
            words += ["--width", "8", "--seeds", "1"]
        if words[0] in ("sweep", "map"):
            words += ["--processes", "1"]  # each loads PyTorch
        assert run(*words)[0] == ("--check" in words), example


def test_defaults_are_those_of_the_specification(run):
    out = " ".join(read_help(run, "simulate").split())
    for name, field in NetworkSpec.model_fields.items():
        option = f"--{name.replace('_', '-')}"
        shown = re.search(rf"{option} [A-Z]+ .*?\[default: (.*?)\]", out).group(1)
        assert shown == str(field.default) or field.default is None, name
    for name in (*ACTIVATIONS, *INITIALIZERS):
        assert name in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("simulate --preset d", ["dying-relu", "deep-and-rescued-100-layers-residual"]),
        ("simulate --activation si", ["sigmoid", "silu"]),
        ("simulate --init l", ["lecun"]),
        ("simulate --residual s", ["scaled"]),
        ("equation --activation tanh,si", ["tanh,sigmoid", "tanh,silu"]),
        ("equation --order f", ["forward"]),
        ("width model.py:build --metric c", ["change"]),
        ("pre", ["presets"]),
    ],
)
def test_the_shell_completes(start, words, expected):
    line = f"chainrule {words}"
    done = start(
        env={
            "_CHAINRULE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
    )
    assert done.returncode == 0
    assert done.stdout.split() == expected


def test_completion_can_be_installed(run):
    out = read_help(run)
    assert "--install-completion" in out
    assert "--show-completion" in out


def test_presets_have_short_names_that_need_no_quotes(run):
    slugs = [preset.slug for preset in PRESETS.values()]
    assert len(set(slugs)) == len(PRESETS)
    for name, preset in PRESETS.items():
        assert shlex.quote(preset.slug) == preset.slug
        assert get_preset(preset.slug.upper()) is get_preset(name) is preset
    out = run("presets", columns=60)[1]
    for preset in PRESETS.values():
        assert f"chainrule simulate --preset {preset.slug}\n" in out
        assert preset.name in out


def test_a_wrong_option_is_one_error_in_the_common_style(run):
    for words, fact in (
        (("simulate", "--nonsense"), "--nonsense"),
        (("nonsense",), "nonsense"),
        (("simulate", "--depth", "ten"), "--depth"),
        (("inspect",), "TARGET"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert fact in err
        assert err.splitlines()[-1].startswith("See: chainrule")
