"""Which line of your code is running: the innermost that is neither PyTorch's nor chainrule's."""

import linecache
import os
import sysconfig
from functools import cache, lru_cache
from inspect import currentframe
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch

_LIBRARY = tuple(
    f"{Path(each).resolve()}{os.sep}"
    for each in (
        str(Path(torch.__file__).parent),
        str(Path(__file__).parent.parent),
        sysconfig.get_path("stdlib"),
    )
)

_MOST_CHARACTERS = 160


@cache
def is_of_user(file: str) -> bool:
    """Whether a file is neither PyTorch's, nor chainrule's, nor Python's own."""
    if file.startswith("<frozen"):
        return False
    path = str(Path(file).resolve())
    is_installed = "site-packages" in path or "dist-packages" in path
    return not path.startswith(_LIBRARY[:2]) and (is_installed or not path.startswith(_LIBRARY[2]))


def find_line() -> tuple[str, int | None]:
    """Return file and number of the line of your code that is running; ("", None) if none is."""
    frame = currentframe()
    while frame is not None:
        if is_of_user(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", None


def read_line(file: str, line: int | None) -> str:
    """Return what a line of code says, cut to a sensible length; "" if it cannot be read."""
    text = linecache.getline(file, line).strip() if line else ""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def call_from(frame: FrameType | None, function: Any, args: Any, kwargs: Any) -> Any:
    """Call a function so that its caller seems to be the line that a frame is at.

    A warning names the line of its caller. Where a function is called for someone else, that would
    be a line which they did not write.
    """
    if frame is None:
        return function(*args, **kwargs)
    code = _place_caller(frame.f_code.co_filename, frame.f_lineno)
    return FunctionType(code, frame.f_globals)(function, args, kwargs)


@lru_cache(maxsize=4096)
def _place_caller(file: str, line: int) -> CodeType:
    return _CALLER.__code__.replace(co_filename=file, co_firstlineno=line)


_CALLER = lambda function, args, kwargs: function(*args, **kwargs)  # noqa: E731  (one line of code)
