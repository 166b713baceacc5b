"""The line of the user's code that an error came through."""

import sysconfig
from pathlib import Path

import pytest
import torch

from chainrule._utils.user_code import Place, find_place, read_line
from chainrule.errors import ChainruleError


def catch(function):
    try:
        function()
    except Exception as error:
        return error
    return None


def fail():
    raise ValueError("mine")


def wrap():
    try:
        fail()
    except ValueError as error:
        raise ChainruleError("ours") from error


def wrap_twice():
    try:
        wrap()
    except ChainruleError as error:
        raise ChainruleError("ours again") from error


def test_an_error_of_chainrule_stands_for_its_cause():
    for function in (fail, wrap, wrap_twice):
        place = find_place(catch(function))
        assert place is not None
        assert (place.function, place.text) == ("fail", 'raise ValueError("mine")')
        assert place.file == __file__


def test_one_raised_for_its_own_sake_has_no_place():
    def refuse():
        raise ChainruleError("a value must be positive")

    assert find_place(catch(refuse)) is None


FILES = {
    "mine": "/home/me/train.py",
    "also mine": "/home/me/model.py",
    "package": "/opt/env/lib/site-packages/them/outer.py",
    "package inside": "/opt/env/lib/site-packages/them/inner.py",
    "notebook": "<ipython-input-3>",
    "import": "<frozen importlib._bootstrap>",
    "torch": str(Path(torch.__file__).parent / "nn" / "made.py"),
    "python": str(Path(sysconfig.get_path("stdlib")) / "made.py"),
}
STEP = """
def step(rest):
    if not rest:
        raise ValueError
    rest[0](rest[1:])
"""


def raise_through(names):
    """Return an error that came through functions of these files, the last one raised it."""
    functions = []
    for name in names:
        space = {}
        exec(compile(STEP, FILES[name], "exec"), space)
        functions.append(space["step"])
    try:
        functions[0](functions[1:])
    except ValueError as error:
        return error.with_traceback(error.__traceback__.tb_next)  # without this file
    raise AssertionError


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["mine", "also mine"], "also mine"),
        (["mine", "also mine", "torch"], "also mine"),
        (["mine", "package", "package inside"], "mine"),
        (["package", "mine", "package inside"], "mine"),
        (["package", "package inside"], "package inside"),
        (["package", "package inside", "torch", "python"], "package inside"),
        (["torch", "package", "python"], "package"),
        (["torch", "python"], None),
        (["mine", "notebook", "torch"], "notebook"),
        (["mine", "import"], "mine"),
    ],
)
def test_it_is_the_innermost_of_your_files_else_of_a_package(names, found):
    place = find_place(raise_through(names))
    assert (place and place.file) == (found and FILES[found])
    if place:
        assert (place.function, place.line) == ("step", 5 if found != names[-1] else 4)


@pytest.mark.parametrize("name", ["mine", "torch"])
def test_of_a_file_that_cannot_be_read_by_python_it_is_the_wrong_line(name):
    with pytest.raises(SyntaxError) as caught:
        compile("x = 1\n  y = (", FILES[name], "exec")
    place = find_place(caught.value)
    assert place is not None
    if name == "mine":
        assert (place.file, place.line, place.function, place.text) == (FILES[name], 2, "", "y = (")
    else:
        assert place.file == __file__  # what asked for it


def test_a_long_line_is_cut(tmp_path):
    path = tmp_path / "long.py"
    path.write_text(f"x = {'1' * 155}  \ny = {'2' * 157}\n")
    assert read_line(str(path), 1) == f"x = {'1' * 155}"
    assert read_line(str(path), 2) == f"y = {'2' * 153}..."
    assert read_line(str(path), None) == read_line(str(path), 9) == ""


def test_a_place_is_told_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = Place(str(tmp_path / "net" / "train.py"), 7, "step", "")
    assert inside.describe() == f"{Path('net') / 'train.py'}, line 7, in step"
    assert Place("/elsewhere/train.py", 7, "", "").describe() == "/elsewhere/train.py, line 7"
