"""Which line of your code is running: the innermost that is neither PyTorch's nor chainrule's."""

from functools import lru_cache
from inspect import currentframe
from types import CodeType, FrameType, FunctionType
from typing import Any

from chainrule._utils.user_code import is_of_user


def find_line() -> tuple[str, int | None]:
    """Return file and number of the line of your code that is running; ("", None) if none is."""
    frame = currentframe()
    while frame is not None:
        if is_of_user(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", None


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
