"""`import chainrule` loads next to nothing, and every name is there when it is asked for."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import chainrule

ROOMS = (
    *("chain", "diagnosis", "display", "errors", "figures", "flow", "measure", "presets"),
    *("remedies", "report", "spec", "sweeps", "testing", "theory", "training", "watch", "width"),
)
TREE = ast.parse(Path(chainrule.__file__).read_text(encoding="utf-8"))


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def list_typed_names():
    """Return what type checkers are told: each name with the module that defines it."""
    (block,) = [
        node
        for node in TREE.body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_importing_loads_neither_torch_nor_anything_heavy():
    heavy = "{'torch', 'numpy', 'pydantic', 'rich', 'typer', 'plotly', 'pandas', 'fastapi'}"
    assert run(f"import sys, chainrule; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "name",
    ["ScalarChain", "ScalarGraph", "PRESETS", "NetworkSpec", "load_flow", "diagnose", "plot"],
)
def test_a_name_that_measures_nothing_loads_no_torch(name):
    run(f"import sys, chainrule; chainrule.{name}; assert 'torch' not in sys.modules")


def test_measuring_loads_neither_plotly_nor_the_compiler():
    names = "chainrule.inspect, chainrule.simulate, chainrule.find_remedies"
    heavy = "{'plotly', 'torch._dynamo'}"
    run(f"import sys, chainrule; {names}; assert not {heavy} & {{*sys.modules}}")


def test_a_process_that_only_supervises_workers_loads_no_torch():
    run("import sys, chainrule.app.server; assert 'torch' not in sys.modules")


def test_names_are_the_same_for_python_and_for_type_checkers():
    typed = list_typed_names()
    rooms = {name for name, home in typed.items() if home == "chainrule"}
    assert rooms == {*ROOMS} - {"watch"}  # a type checker sees the function of that name
    assert typed.keys() - rooms == {*chainrule.__all__}


@pytest.mark.parametrize("name", chainrule.__all__)
def test_every_name_is_the_object_of_its_module(name):
    home = importlib.import_module(list_typed_names()[name])
    found = getattr(chainrule, name)
    if name == "watch":  # the package of that name, which can be called
        found = found.watch
    assert found is getattr(home, name)
    assert name in vars(chainrule)  # the second time it costs nothing


def test_star_import_gives_all_names():
    names = ", ".join(map(repr, chainrule.__all__))
    run(f"from chainrule import *; assert {{{names}}} <= set(globals())")


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_need_no_import_of_their_own(room):
    assert chainrule.__getattr__(room).__name__ == f"chainrule.{room}"


def test_a_room_needs_no_import_of_its_own_in_a_new_process():
    run("import chainrule; assert chainrule.display.__name__ == 'chainrule.display'")


def test_it_lists_its_names_before_they_are_loaded():
    assert run("import chainrule; print({*chainrule.__all__, 'chain'} <= set(dir(chainrule)))")


@pytest.mark.parametrize("name", ["nonsense", "_nonsense", "__wrapped__"])
def test_other_names_do_not_exist(name):
    with pytest.raises(AttributeError, match=name):
        getattr(chainrule, name)
    with pytest.raises(ImportError, match="nonsense"):
        from chainrule import nonsense  # noqa: F401


def test_names_can_be_pickled_in_another_process():
    assert pickle.loads(pickle.dumps(chainrule.inspect)) is chainrule.inspect
    spec = chainrule.NetworkSpec(depth=3)
    code = f"import pickle; print(pickle.loads({pickle.dumps(spec)!r}).depth)"
    assert run(code) == "3"


def test_threads_that_ask_at_once_get_one_object():
    run(
        "import chainrule\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = list(pool.map(lambda _: chainrule.simulate, range(8)))\n"
        "assert len(set(map(id, found))) == 1"
    )
