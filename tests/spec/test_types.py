"""What a type checker says about code that uses chainrule: README's listings, and mistakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LISTINGS = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)

pytestmark = pytest.mark.slow

RIGHT = """
import chainrule

spec = chainrule.NetworkSpec(depth=15, activation="tanh", clip_norm=None, residual="plain")
depth: int = spec.replace(width=32).depth
fields: dict[str, object] = spec.model_dump()
flow: chainrule.GradientFlow = chainrule.simulate(spec, seeds=2)
norms: list[float] = [norm for norm in flow.weight_gradient_norms if norm is not None]
"""

WRONG = {
    'chainrule.NetworkSpec(depth="x")': "arg-type",
    "chainrule.NetworkSpec(widht=3)": "call-arg",
    'chainrule.NetworkSpec(residual="full")': "arg-type",
    "chainrule.NetworkSpec(15)": "call-arg",
    'chainrule.NetworkSpec().replace(depth="x")': "arg-type",
    "chainrule.NetworkSpec().replace(widht=3)": "call-arg",
    "chainrule.NetworkSpec().dept": "attr-defined",
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """What mypy --strict says: file name, line and kind of every error."""
    folder = tmp_path_factory.mktemp("typed")
    files = {f"listing_{at}.py": text for at, text in enumerate(LISTINGS)}
    files |= {"right.py": RIGHT, "wrong.py": "\n".join(["import chainrule", *WRONG])}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in files]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--show-error-codes"]
    run = subprocess.run(
        [*command, *paths], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert run.stderr == ""
    error = re.compile(r"^(?:.*/)?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)
    found = error.findall(run.stdout)
    assert len(found) == run.stdout.count(": error:"), run.stdout
    return [(name, int(line), kind) for name, line, kind in found], run.stdout


def test_readme_listings_have_no_type_errors(complaints):
    found, text = complaints
    assert LISTINGS
    assert not [name for name, _, _ in found if name.startswith("listing")], text


def test_right_code_has_no_type_errors(complaints):
    found, text = complaints
    assert not [name for name, _, _ in found if name == "right.py"], text


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_in_a_specification_are_type_errors(line, complaints):
    found, text = complaints
    number = list(WRONG).index(line) + 2
    assert ("wrong.py", number, WRONG[line]) in found, text
