"""Docstrings: every example in them runs, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import chainrule
from chainrule.errors import PackageError

FACES = (
    "spec",
    "flow",
    "diagnosis",
    "theory",
    "remedies",
    "training",
    "figures",
    "report",
    "chain",
    "width",
    "sweeps",
)
"""Packages whose names people import, besides `chainrule` itself."""


def list_modules():
    found = pkgutil.walk_packages(chainrule.__path__, "chainrule.")
    return sorted(module.name for module in found if module.name != "chainrule.__main__")


@pytest.mark.parametrize("name", list_modules())
def test_examples_run(name):
    try:
        module = importlib.import_module(name)
    except PackageError as error:  # a callback for a trainer that is not there
        pytest.skip(str(error))
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def list_public():
    for face in ("chainrule", *(f"chainrule.{name}" for name in FACES)):
        module = importlib.import_module(face)
        for name in module.__all__:
            item = getattr(module, name)
            is_own = getattr(item, "__module__", "").startswith("chainrule")
            if is_own and (inspect.isfunction(item) or inspect.isclass(item)):
                yield pytest.param(item, id=f"{item.__module__}.{name}")


@pytest.mark.parametrize("item", list(list_public()))
def test_everything_public_has_an_example(item):
    lines = inspect.getdoc(item).splitlines()
    assert any(line.strip().startswith(">>>") for line in lines)
