"""What a model of the benchmark is: a family, its parameters and a seed; and what a family is."""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

Batch = tuple[Tensor, ...]
Draw = Callable[[Generator, int], Batch]


@dataclass(frozen=True)
class Problem:
    """A model with all that its training needs.

    `measure_error` returns 0 for a perfect model, and 1 for one that guesses. Models with the same
    `task` are measured alike on the same data, so what one of them reaches can be asked of all.
    Gradients are divided by `loss_scale` before a step, as a `GradScaler` does.
    """

    task: str
    model: nn.Module
    draw: Draw
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    measure_error: Callable[[nn.Module, Batch], float]
    batch_size: int = 32
    loss_scale: float = 1.0


@dataclass(frozen=True)
class Family:
    """Models that one function builds."""

    kind: str
    name: str
    build: Callable[..., Problem]
    grid: Mapping[str, Sequence[Any]]
    most: int


@dataclass(frozen=True)
class Entry:
    """One model: a family, its parameters, and a seed."""

    family: Family
    parameters: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def query(self) -> str:
        return "&".join(f"{name}={value}" for name, value in self.parameters)

    @property
    def key(self) -> str:
        """What the model is, code included: another key, another model."""
        text = "\n".join((self.query, str(self.seed), read_code(self.family.build)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def build(self) -> Problem:
        torch.manual_seed(self.seed)
        return self.family.build(**dict(self.parameters))


FAMILIES: dict[str, Family] = {}


def family(
    kind: str, most: int, /, **grid: Sequence[Any]
) -> Callable[[Callable[..., Problem]], Callable[..., Problem]]:
    """Add a function to the families: it is called with one value per name of the grid.

    `most` members of the grid are drawn.
    """

    def add(build: Callable[..., Problem]) -> Callable[..., Problem]:
        name = build.__name__
        FAMILIES[name] = Family(kind=kind, name=name, build=build, grid=grid, most=most)
        return build

    return add


@cache
def read_code(build: Callable[..., Any]) -> str:
    """Return the code of a function, and of all that it uses of its package but this module.

    Comments, docstrings, decorators, annotations and layout do not count.
    """
    found: dict[str, str] = {}
    _collect_code(build.__name__, build.__module__, found)
    return "\n".join(found[name] for name in sorted(found))


def _collect_code(name: str, module: str, found: dict[str, str]) -> None:
    definition = _read_definitions(module).get(name)
    if definition is None or name in found:
        return
    if isinstance(definition, ast.ImportFrom):
        package = f"{module.partition('.')[0]}."
        if definition.module and definition.module.startswith(package):
            _collect_code(name, definition.module, found)
        return
    if module == __name__:
        return
    found[name] = ast.unparse(definition)
    for node in ast.walk(definition):
        if isinstance(node, ast.Name):
            _collect_code(node.id, module, found)


@cache
def _read_definitions(module: str) -> dict[str, ast.stmt]:
    """Return what a module defines or imports, by name."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(...)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = []
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    found: dict[str, ast.stmt] = {}
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = statement
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = statement
            case ast.ImportFrom(names=names):
                found.update((alias.asname or alias.name, statement) for alias in names)
    return found
