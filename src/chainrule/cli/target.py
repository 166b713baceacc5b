"""Loading the function in a file or package that a command is given."""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from chainrule.errors import TargetError, abbreviate, suggest

if TYPE_CHECKING:
    import torch
    from torch import nn

_FORM = "FILE.py:FUNCTION or package.module:FUNCTION"


def get_file(target: str) -> str | None:
    """Return the file that a target names; nothing where it names a module."""
    place = target.rpartition(":")[0]
    return place if place.endswith(".py") or "/" in place else None


def load_target(
    target: str,
) -> "tuple[nn.Module, Callable[[Any], Any], torch.optim.Optimizer | None]":
    """Return the (model, compute_loss, optimizer) that the function named by `target` returns.

    The optimizer is `None` if the function returns only a model and compute_loss.

    Args:
        target: "FILE.py:FUNCTION" or "package.module:FUNCTION". The file's folder (or the current
            one, for a package) is importable while its code runs.

    Raises:
        TargetError: If there is no such file or function, its code raises (chained with `from`),
            or it returns anything else.
    """
    function = load_function(target)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise TargetError(
            f"{target} must be a function that needs no arguments; {error}. Give them "
            "defaults. `chainrule width` passes a width, `chainrule sweep --axis NAME=VALUES` any."
        ) from None
    except ValueError:  # of a builtin, nobody knows
        pass
    result = _run(target, function)
    if inspect.iscoroutine(result):
        result.close()
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise TargetError(
            f"{target} must return (model, compute_loss) or (model, compute_loss, optimizer); got "
            f"{type(result).__name__}"
            + (f" of length {len(result)}." if isinstance(result, tuple) else ".")
            + (" It must not be async." if inspect.iscoroutine(result) else "")
        )
    import torch
    from torch import nn

    model, compute_loss, optimizer = (*result, None)[:3]
    if not isinstance(model, nn.Module) or not callable(compute_loss):
        raise TargetError(
            f"{target} must return (model, compute_loss): a torch.nn.Module and a function of it; "
            f"got ({type(model).__name__}, {type(compute_loss).__name__})."
        )
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TargetError(
            f"{target} must return a torch.optim.Optimizer as the third of (model, compute_loss, "
            f"optimizer); got {type(optimizer).__name__}. Leave it out to try SGD and Adam."
        )
    return model, compute_loss, optimizer


def load_function(target: str) -> Callable[..., Any]:
    """Return the function that a target names, without calling it.

    Raises:
        TargetError: If there is no such file or function, or the code of its module raises.
    """
    place, colon, name = (part.strip() for part in target.rpartition(":"))
    file = get_file(f"{place}:")
    if not colon or not place or not name or (file is None and ":" in place):
        raise TargetError(
            f"The target must be {_FORM}; got {target!r:.200}.{_show_names(target.rstrip(':'))}"
        )
    module = _run(place, lambda: _load_file(Path(file)) if file else _load_module(place))
    function = getattr(module, name, None)
    if not callable(function):
        what = "" if function is None else f": it is {abbreviate(function)}"
        hint = suggest(name, functions) if (functions := _list_functions(module)) else ""
        raise TargetError(
            f"{place} must define a function {name!r}, but does not{what}. "
            f"{hint or 'It defines no function.'}"
        )
    return function


def _list_functions(module: ModuleType) -> list[str]:
    """Return the functions that a module defines, or those that it has if it defines none."""
    named = {
        key: value
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and not isinstance(value, type)
    }
    own = [
        key
        for key, value in named.items()
        if getattr(value, "__module__", module.__name__) == module.__name__
    ]
    return own or list(named)


def _show_names(file: str) -> str:
    """Return an example for somebody who named a file without a function."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, ValueError, SyntaxError):
        return ""
    names = [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]
    public = [name for name in names if not name.startswith("_")]
    return f" Write {file}:{public[0]}, for example." if public else " It defines no function."


def _run(what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except TargetError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too: an exit code is not its to choose
        from chainrule.measure.inspection import describe_error

        said = describe_error(error)
        hint = ""
        if isinstance(error, ImportError) and "relative import" in str(error):
            hint = " Name it as a part of its package: package.module:FUNCTION."
        raise TargetError(f"{what} must run without errors, but it raised {said}.{hint}") from error


def _load_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise TargetError(f"{path} is a folder. The target must be {_FORM}.")
    if not path.is_file():
        raise TargetError(f"No such file: {path}.{_find_near(path)} The target must be {_FORM}.")
    description = importlib.util.spec_from_file_location(path.stem, path)
    if description is None or description.loader is None:
        raise TargetError(f"{path} must be a Python file; its name does not end in .py.")
    module = importlib.util.module_from_spec(description)
    _make_importable(path.parent)
    known = getattr(sys.modules.get(path.stem), "__file__", None)
    if path.stem not in sys.modules or known == module.__file__:
        sys.modules[path.stem] = module  # dataclasses and pickling look modules up by name
    description.loader.exec_module(module)
    return module


def _find_near(path: Path) -> str:
    """Return a question that names a file with nearly the same name."""
    try:
        names = {each.name.lower(): each for each in path.parent.glob("*.py")}
    except OSError:
        return ""
    near = get_close_matches(path.name.lower(), names, n=1, cutoff=0.7)
    return f" Did you mean {names[near[0]]}?" if near else ""


def _load_module(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(f"No such module: {name!r}. The target must be {_FORM}.") from error
        raise


def _make_importable(folder: Path) -> None:
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)
