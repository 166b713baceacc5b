"""Which line of your code is running: the innermost that is neither PyTorch's nor chainrule's."""

from collections.abc import Callable
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


class Callers:
    """Functions that call another one so that its caller seems to be the line a frame is at.

    A warning names the line of its caller. Where a function is called for someone else, that would
    be a line which they did not write. They are kept by place, for as long as a model runs.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[CodeType, dict[str, Any], Any]] = {}

    def find(self, frame: FrameType | None) -> Callable[[Any, Any, Any], Any]:
        """Return what calls a function, given with arguments and keywords, as from a frame."""
        if frame is None:
            return _CALLER
        code, names = frame.f_code, frame.f_globals
        key = id(code), frame.f_lasti
        known = self._known.get(key)
        if known is None or known[0] is not code or known[1] is not names:
            line = _place_caller(code.co_filename, frame.f_lineno)
            known = self._known[key] = code, names, FunctionType(line, names)
        function: Callable[[Any, Any, Any], Any] = known[2]
        return function


@lru_cache(maxsize=4096)
def _place_caller(file: str, line: int) -> CodeType:
    return _CALLER.__code__.replace(co_filename=file, co_firstlineno=line)


_CALLER = lambda function, args, kwargs: function(*args, **kwargs)  # noqa: E731  (one line of code)
