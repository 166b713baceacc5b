"""How remedies are applied: what is printed is run."""

import io
import shlex
import sys

import pytest
import torch
from rich.console import Console
from torch import nn

from chainrule import cli
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.display.terminal import render_remedies
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.remedies.result import PREPARATION, write_call, write_recipe, write_search
from chainrule.remedies.spec_search import find_remedies
from chainrule.spec.network_spec import NetworkSpec


def make_sick():
    torch.manual_seed(1)
    parts = [part for _ in range(10) for part in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*parts)
    x, y = torch.randn(16, 16), torch.randn(16, 16)
    return model, lambda m: nn.functional.mse_loss(m(x), y)


def read_code(remedies, number):
    """Return the code for one remedy, as a person would take it from the terminal."""
    buffer = io.StringIO()
    Console(file=buffer, width=120).print(render_remedies(remedies))
    lines = buffer.getvalue().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("To apply one"))
    end = next(i for i, line in enumerate(lines) if i > start and line[:4].strip() == "1")
    own = next(line for line in lines[end:] if line[:4].strip() == str(number + 1))
    return "\n".join(line[5:] for line in (*lines[start + 1 : end], own))


@pytest.mark.parametrize("number", [0, 1])
def test_the_terminals_code_changes_the_model_as_the_remedy_was_measured(number):
    model, compute_loss = make_sick()
    remedies = find_remedies(model, compute_loss)
    code = read_code(remedies, number)
    assert code.strip() == write_recipe(remedies, number).strip()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    exec(compile(code, "terminal", "exec"), {"model": model, "compute_loss": compute_loss})
    edited = {edit.parameter for edit in remedies[number].edits}
    assert edited
    assert {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    } == edited
    after = inspect(model, compute_loss)
    expected = remedies[number].after
    assert [float(n) for n in after.weight_gradient_norms] == pytest.approx(
        [float(n) for n in expected.weight_gradient_norms]
    )
    assert diagnose(after).verdict is remedies[number].verdict_after


def test_a_specifications_command_measures_the_changed_network(monkeypatch, capsys):
    remedies = find_remedies(NetworkSpec(depth=12, width=8, activation="sigmoid"), 3)
    command = write_recipe(remedies, 0)
    assert command == write_call(remedies, 0) == remedies[0].command
    program, *arguments = shlex.split(command)
    assert program == "chainrule"
    monkeypatch.setattr(sys, "argv", [program, *arguments, "--seeds", "3", "--check"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0  # 1 unless the network is healthy
    assert "HEALTHY" in capsys.readouterr().out


def test_the_command_that_searches_is_one_that_the_command_line_knows(monkeypatch, capsys):
    command = write_search(simulate(NetworkSpec(depth=3, width=4, activation="tanh"), 2))
    program, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [program, *arguments, "--seeds", "2"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert "Remedies" in capsys.readouterr().out
    model, compute_loss = make_sick()
    assert write_search(inspect(model, compute_loss)).endswith("--remedies")


def test_the_preparation_is_code():
    compile(PREPARATION, "preparation", "exec")
