"""The command line: what it prints, writes and exits with."""

import json
from pathlib import Path

import pytest

import chainrule
from chainrule._utils.version import read_version
from chainrule.cli.explore import INSTALL_APP

ROOT = Path(__file__).parents[2]
CLASSIC = f"{ROOT}/examples/classic_sigmoid.py:build"


def test_version(run):
    code, out, _ = run("--version")
    assert (code, out) == (0, f"chainrule {read_version()}\n")


def test_check_exits_with_1_only_when_unhealthy(run):
    assert run("simulate", "--preset", "Vanishing (Sigmoid)", "--check")[0] == 1
    assert run("simulate", "--preset", "Healthy (ReLU + He)", "--check")[0] == 0


def test_check_says_what_is_wrong(run):
    code, _, errors = run("inspect", CLASSIC, "--check")
    assert code == 1
    (line,) = [line for line in errors.splitlines() if "error at the output" in line]
    assert line.startswith("check: ")
    assert "'0'" in line
    assert "7.4·10⁻⁹" in line
    assert "0.003" in line
    code, _, errors = run("simulate", "--preset", "vanishing-sigmoid", "--seeds", "2", "--check")
    assert (code, errors.count("check: ") > 0) == (1, True)


@pytest.mark.parametrize(
    ("limit", "code", "message"),
    [
        (["--max-ratio", "1000"], 0, ""),
        (["--max-ratio", "10"], 1, "ratio 15 10"),
        (["--min-gradient", "0.1"], 1, "'tokens' 0.0374 0.1"),
        (["--max-gradient", "0.1"], 1, "'head' 0.562 0.1"),
    ],
)
def test_check_with_limits(run, limit, code, message):
    target = f"{ROOT}/examples/small_transformer.py:build"
    result = run("inspect", target, "--check", *limit)
    assert result[0] == code
    assert all(fact in result[2] for fact in message.split())


def test_limits_need_check(run):
    code, _, errors = run("inspect", CLASSIC, "--max-ratio", "10")
    assert code == 2
    assert "--check" in errors


def test_remedies_of_a_model_in_json_and_report(run, tmp_path):
    report, target = tmp_path / "report.html", f"{ROOT}/examples/plain_network.py:build"
    code, out, _ = run("inspect", target, "--remedies", "--json", "--report", str(report))
    document = json.loads(out)
    assert code == 0
    assert document["remedies"][0]["outcome"] == "measures well"
    assert "0.weight" in document["remedies"][0]["parameters"]
    assert document["advice"][0]["code"]
    assert document["remedies"][0]["title"] in report.read_text(encoding="utf-8")


def test_json_holds_flow_and_diagnosis(run):
    code, out, _ = run("simulate", "--depth", "4", "--width", "8", "--seeds", "3", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["diagnosis"]["verdict"] in list(chainrule.Verdict)
    assert document["flow"]["spec"]["depth"] == 4
    assert len(document["flow"]["loss"]) == 3


def test_remedies_in_json(run):
    _, out, _ = run("simulate", "--depth", "9", "--width", "8", "--remedies", "--json")
    document = json.loads(out)
    found = chainrule.find_remedies(chainrule.NetworkSpec(**document["flow"]["spec"]), 16)
    assert [{**each, "code": ""} for each in document["remedies"]] == [
        {**remedy.to_dict(), "code": ""} for remedy in found.tried
    ]
    codes = [each["code"] for each in document["remedies"]]
    assert codes[: len(found)] == [remedy.command for remedy in found]
    assert not any(codes[len(found) :])
    assert [blame["kind"] for blame in document["blame"]] == ["Sigmoid"] * 3
    assert document["diagnosis"]["verdict"] == found.diagnosis.verdict


def test_a_healthy_network_needs_no_remedies(run):
    code, out, _ = run("simulate", "--preset", "Healthy (ReLU + He)", "--remedies", "--check")
    assert code == 0
    assert "Remedies: none needed." in out


def test_the_command_of_a_specification_measures_it(run):
    spec = chainrule.NetworkSpec(
        depth=2,
        width=4,
        activation="relu",
        init="random",
        distribution="uniform",
        weight_std=0.25,
        bias_std=0.0,
        residual="scaled",
        normalization="rmsnorm",
        clip_norm=0.125,
        batch_size=3,
        seed=7,
        dtype="float64",
    )
    program, *args = spec.to_command().split()
    assert program == "chainrule"
    _, out, _ = run(*args, "--seeds", "1", "--json")
    assert chainrule.NetworkSpec(**json.loads(out)["flow"]["spec"]) == spec
    assert chainrule.NetworkSpec().to_command() == "chainrule simulate"


def test_output_writes_a_flow_that_loads(run, tmp_path):
    target = tmp_path / "flow.json"
    code, _, err = run("inspect", CLASSIC, "--output", str(target))
    assert code == 0
    assert "flow.json" in err
    assert len(chainrule.load_flow(target).weight_layers) == 10


def test_settings_beside_a_preset_replace_the_presets(run):
    preset = "Exploding (ReLU + random σ = 1)"
    _, out, _ = run("simulate", "--preset", preset, "--init", "he", "--depth", "5", "--json")
    spec = json.loads(out)["flow"]["spec"]
    assert (spec["init"], spec["depth"], spec["activation"]) == ("he", 5, "relu")


def test_printed_norms_are_plain_autograds_in_float64(run):
    import torch
    from torch.nn import functional as F

    _, out, _ = run(
        "simulate",
        "--preset",
        "Vanishing (Sigmoid)",
        "--dtype",
        "float64",
        "--json",
        "--seeds",
        "3",
    )
    flow = json.loads(out)["flow"]
    printed = {p["name"]: p["grad_norm"] for p in flow["parameters"]}
    spec = chainrule.NetworkSpec(**flow["spec"])
    for member, seed in enumerate(flow["seeds"]):
        model = chainrule.build_network(spec, seed)
        inputs, targets = chainrule.measure.draw_batch(spec, seed)
        hidden = inputs
        for index in range(0, len(model), 2):
            hidden = torch.sigmoid(hidden @ model[index].weight.T + model[index].bias)
        F.mse_loss(hidden, targets).backward()
        for name, parameter in model.named_parameters():
            expected = float((parameter.grad**2).sum().sqrt())
            assert printed[name][member] == pytest.approx(expected, rel=1e-6)


def test_inspected_norms_are_plain_autograds_in_float64(run, tmp_path):
    import torch

    script = tmp_path / "double.py"
    script.write_text(
        (ROOT / "examples/classic_sigmoid.py").read_text() + "\ndef build_double():\n"
        "    model, _ = build()\n"
        "    g = torch.Generator().manual_seed(1)\n"
        "    x = torch.randn(32, 64, generator=g, dtype=torch.float64)\n"
        "    y = torch.randn(32, 64, generator=g, dtype=torch.float64)\n"
        "    return model.double(), lambda m: F.mse_loss(m(x), y)\n"
    )
    _, out, _ = run("inspect", f"{script}:build_double", "--json")
    printed = {p["name"]: p["grad_norm"] for p in json.loads(out)["flow"]["parameters"]}
    namespace: dict = {}
    exec(script.read_text(), namespace)
    model, compute_loss = namespace["build_double"]()
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(compute_loss(model), parameters)
    for name, gradient in zip(names, gradients, strict=True):
        assert printed[name] == pytest.approx(float(gradient.norm()), rel=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["simulate", "--depth", "0"], "depth: 1 to 1000 got 0"),
        (["simulate", "--depth", "1000000000"], "depth: 1000 1000000000"),
        (["simulate", "--depth", "ten"], "--depth"),
        (["simulate", "--activation", "sigmoyd"], "Did you mean 'sigmoid'? Known: sigmoid, tanh"),
        (["simulate", "--init", "kaming"], "init: unknown 'kaming'."),
        (["simulate", "--init", "random", "--weight-std", "-1"], "weight_std: must be a finite"),
        (["simulate", "--init", "random", "--weight-std", "nan"], "weight_std: must be a finite"),
        (["simulate", "--init", "he", "--weight-std", "2"], "only init='random' uses it"),
        (["simulate", "--depth", "1000", "--width", "4096"], "depth · width² · seeds must be"),
        (["simulate", "--seeds", "0"], "seeds: must be 1 to 1024 networks; got 0."),
        (["simulate", "--preset", "vanish"], "preset: unknown 'vanish'."),
        (["simulate", "--output", "/no/such/folder/flow.json"], "there is no /no/such/folder"),
        (["simulate", "--output", "/"], "must be a file"),
        (["simulate", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["inspect", "nofile.py:build"], "o such file: nofile.py"),
        (["inspect", "no.such.module:build"], "o such module: 'no.such.module'"),
        (["inspect", "nocolon"], "must be FILE.py:FUNCTION or package.module:FUNCTION"),
        (["inspect", CLASSIC.replace(":build", ":buil")], "Did you mean 'build'?"),
        (["inspect", "os.path:join"], "needs no arguments 'a' `chainrule width`"),
        (["inspect", CLASSIC.rpartition(":")[0]], "classic_sigmoid.py:build, for example"),
        (["inspect", CLASSIC.replace(":build", "::build")], "FILE.py:FUNCTION"),
        (["inspect", CLASSIC.replace("classic_s", "clasic_s")], "Did you mean classic_sigmoid.py?"),
        (["inspect", f"{ROOT}/:build"], "is a folder"),
        (["inspect", "os:getcwd"], "must return (model, compute_loss) got str."),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run, args, message):
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert all(fact in err for fact in message.split()), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('boom')", "it raised ValueError: boom."),
        ("import sys; sys.exit(3)", "it raised SystemExit: 3."),
        ("import no_such_dependency", "it raised ModuleNotFoundError"),
        ("def build(): return 1, 2", "got (int, int)"),
        ("def build(): return (1, 2, 3, 4)", "got tuple of length 4."),
        ("def (", "it raised SyntaxError"),
        (
            "import torch\ndef build():\n"
            "    return torch.nn.Linear(2, 2), lambda m: m(torch.ones(3, 3)).sum()",
            "compute_loss must run without errors, but it raised RuntimeError",
        ),
        (
            "import sys, torch\ndef build():\n"
            "    return torch.nn.Linear(2, 2), lambda m: sys.exit(0)",
            "compute_loss must run without errors, but it raised SystemExit: 0",
        ),
        (
            "import torch\ndef build():\n"
            "    return torch.nn.Linear(2, 2, device='meta'), lambda m: m(torch.ones(3, 2)).sum()",
            "must have values, but some are on the meta device",
        ),
    ],
)
def test_faulty_user_code_is_one_message(run, tmp_path, body, message):
    script = tmp_path / "user_code.py"
    script.write_text(body)
    output = tmp_path / "flow.json"
    code, _, err = run("inspect", f"{script}:build", "--output", str(output))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not output.exists()


USER_CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x).veiw(-1)  # in forward

class Broken(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError  # in backward

def build(width=2):
    raise ValueError("no data")  # in build

def load(width=2):
    return nn.Linear(width, "two"), None  # in load

def lose(width=2):
    def loss(model):
        return model(torch.ones(2, 9)).sum()  # in loss
    return nn.Linear(width, 2), loss

def use_net(width=2):
    return Net(), lambda model: model(torch.ones(2, 2)).sum()

def break_backward():
    return nn.Linear(2, 2), lambda model: Broken.apply(model(torch.ones(2, 2))).sum()

def leave():
    raise SystemExit(3)  # in leave

async def wait():
    return 1

thing = 3
"""


@pytest.mark.parametrize(
    ("command", "name", "function"),
    [
        ("inspect", "build", "build"),
        ("inspect", "load", "load"),
        ("inspect", "lose", "loss"),
        ("inspect", "use_net", "forward"),
        ("inspect", "break_backward", "backward"),
        ("inspect", "leave", "leave"),
        ("width", "build", "build"),
        ("width", "lose", "loss"),
        ("width", "use_net", "forward"),
    ],
)
def test_an_error_in_the_users_code_is_shown_with_its_line(run, tmp_path, command, name, function):
    script = tmp_path / "user_code.py"
    script.write_text(USER_CODE)
    code, out, err = run(command, f"{script}:{name}")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    lines = USER_CODE.splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith(f"# in {function}")]
    place, text = err.splitlines()[-3:-1]
    assert place.endswith(f"user_code.py, line {number}, in {function}")
    assert text.strip() == lines[number - 1].strip()
    assert "--debug" in err


@pytest.mark.parametrize(
    ("body", "line", "text"),
    [
        ("x = 1\nimport no_such_dependency", 2, "import no_such_dependency"),
        ("x = 1\n\ndef (", 3, "def ("),
        ("def build():\n\tif True:\n        pass", 3, "pass"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_shown_with_its_line(run, tmp_path, body, line, text):
    script = tmp_path / "user_code.py"
    script.write_text(body)
    code, _, err = run("inspect", f"{script}:build")
    assert code == 2
    place, shown = err.splitlines()[-3:-1]
    assert place.endswith(f"user_code.py, line {line}")
    assert shown.strip() == text


def test_what_is_no_function_to_call_says_what_it_is(run, tmp_path):
    script = tmp_path / "user_code.py"
    script.write_text(USER_CODE)
    for name, fact in (("thing", "it is 3"), ("wait", "async"), ("ladd", "Did you mean 'load'?")):
        code, _, err = run("inspect", f"{script}:{name}")
        assert code == 2
        assert fact in err


def test_debug_shows_the_traceback(run, tmp_path):
    script = tmp_path / "user_code.py"
    script.write_text("raise ValueError('boom\\x1b[2J')")
    code, _, errors = run("inspect", f"{script}:build", "--debug")
    assert code == 2
    assert "Traceback" in errors
    assert "boom\\x1b[2J" in errors
    assert "\x1b" not in errors


def test_a_package_target_is_found_from_the_current_folder(run, tmp_path, monkeypatch):
    package = tmp_path / "my_package_for_chainrule"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "net.py").write_text((ROOT / "examples/classic_sigmoid.py").read_text())
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("inspect", "my_package_for_chainrule.net:build")
    assert code == 0
    assert "VANISHING" in out


def test_explore_without_the_extra_prints_the_install_line(run, monkeypatch):
    monkeypatch.setattr("chainrule.cli.explore.find_spec", lambda name: None)
    code, _, err = run("explore")
    assert code == 2
    assert INSTALL_APP in err


def test_explore_on_a_taken_port_says_so(run):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("explore", "--no-browser", "--port", str(port))
    assert code == 2
    assert f"127.0.0.1:{port}" in err


def test_output_is_never_put_in_the_place_of_something_else(run, tmp_path):
    import os

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = run("simulate", "--depth", "2", "--output", str(pipe))
    assert code == 2
    assert "no regular file" in err
    assert pipe.is_fifo()
    target, link = tmp_path / "flow.json", tmp_path / "link.json"
    target.write_text("older")
    link.symlink_to(target)
    assert run("simulate", "--depth", "2", "--output", str(link))[0] == 0
    assert link.is_symlink()
    assert chainrule.load_flow(target).spec.depth == 2


def test_a_name_that_cannot_be_is_one_message(run):
    code, _, err = run("simulate", "--depth", "2", "--output", "x" * 300)
    assert code == 2
    assert "No file can be called" in err


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("all_modules", [[], ["--all"]])
def test_no_number_is_cut_at_any_width(run, columns, all_modules):
    _, out, _ = run("inspect", CLASSIC, *all_modules, columns=columns)
    table = out.split("loss  ")[0]
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= columns


def test_inspect_names_what_makes_the_first_number_that_is_not_finite(run, tmp_path):
    path = tmp_path / "roots.py"
    path.write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n    x = torch.ones(3, 2)\n"
        "    return nn.Linear(2, 1), lambda m: (0 * m(x)).sqrt().sum()\n"
    )
    flow, page = tmp_path / "flow.json", tmp_path / "page.html"
    code, out, _ = run(
        "inspect", f"{path}:build", "--check", "--output", flow, "--report", page, columns=200
    )
    assert code == 1
    saved, html = json.loads(flow.read_text()), page.read_text(encoding="utf-8")
    assert saved["origin"]["op"] == "square root"
    for text in (out, html):
        assert "square root in the loss (roots.py:7" in " ".join(text.split())
