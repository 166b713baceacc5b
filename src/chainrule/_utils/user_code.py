"""Which lines are your code: neither PyTorch's, nor chainrule's, nor Python's own."""

import linecache
import os
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from chainrule.errors import ChainruleError

_MOST_CHARACTERS = 160


@cache
def _list_libraries() -> tuple[str, str, str]:
    """Return the folders of chainrule, of Python and of PyTorch, which is not loaded for this."""
    torch = find_spec("torch")
    found = Path(torch.origin).parent if torch is not None and torch.origin else Path(os.devnull)
    folders = (Path(__file__).parent.parent, sysconfig.get_path("stdlib"), found)
    ours, python, theirs = (f"{Path(each).resolve()}{os.sep}" for each in folders)
    return ours, python, theirs


@cache
def is_of_user(file: str) -> bool:
    """Whether a file is neither PyTorch's, nor chainrule's, nor Python's own."""
    if file.startswith("<"):
        return not file.startswith("<frozen")
    path = str(Path(file).resolve())
    ours, python, theirs = _list_libraries()
    return not path.startswith((ours, theirs)) and (
        is_installed(file) or not path.startswith(python)
    )


@cache
def is_installed(file: str) -> bool:
    """Whether a file is of an installed package."""
    return "site-packages" in file or "dist-packages" in file


def read_line(file: str, line: int | None) -> str:
    """Return what a line of code says, cut to a sensible length; "" if it cannot be read."""
    text = linecache.getline(file, line).strip() if line else ""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


@dataclass(frozen=True, slots=True)
class Place:
    """A line of your code.

    Attributes:
        file: Its file.
        line: Its number.
        function: The function that it stands in; "" outside of any.
        text: What it says.
    """

    file: str
    line: int
    function: str
    text: str

    def describe(self) -> str:
        """Return where it is: file, line and function."""
        inside = f", in {self.function}" if self.function else ""
        return f"{_shorten(self.file)}, line {self.line}{inside}"


def find_place(error: BaseException) -> Place | None:
    """Return the innermost line of your code that an error came through, if it came through one.

    A line of an installed package is returned where none of your own files was in the way. An error
    of chainrule stands for the one that caused it: none if it was raised for its own sake.

    Args:
        error: What was raised.

    Example:
        >>> find_place(ValueError("not raised")) is None
        True
    """
    while isinstance(error, ChainruleError):
        if error.__cause__ is None:
            return None
        error = error.__cause__
    if isinstance(error, SyntaxError) and error.filename and is_of_user(error.filename):
        text = (error.text or "").strip()[:_MOST_CHARACTERS]
        return Place(error.filename, error.lineno or 1, "", text)
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        file = code.co_filename
        if not is_of_user(file) or (found and is_installed(file) and not is_installed(found.file)):
            continue
        linecache.checkcache(file)
        function = "" if code.co_name == "<module>" else code.co_name
        found = Place(file, line, function, read_line(file, line))
    return found


def _shorten(file: str) -> str:
    """Return a file as one that is looked for from the current folder, if it is in there."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return file
