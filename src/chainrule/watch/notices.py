"""What goes wrong in watching itself: said once each, in the log; training goes on."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chainrule.errors import TrainingStopped

_LOG = logging.getLogger(__name__)


class Notices:
    """What was said to the user of one run.

    Example:
        >>> Notices().reporter("reading")  # doctest: +ELLIPSIS
        <function ...>
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    @property
    def said(self) -> tuple[str, ...]:
        """Everything that was said, in order."""
        return tuple(self._said.values())

    def say(self, subject: str, message: str) -> None:
        """Say something, if nothing was said of its subject before."""
        if subject not in self._said:
            self._said[subject] = message
            _LOG.warning("chainrule.watch: %s", message)

    def report(self, doing: str, error: Exception) -> None:
        """Say that something failed; what a signal handler raised is raised again."""
        if _is_from_signal(error):
            raise error
        said = str(error).rstrip(". ")
        self.say(
            doing,
            f"While {doing}, {type(error).__name__} was raised{': ' * bool(said)}{said}. Training "
            "goes on; this is said once.",
        )

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Report what fails in a block, and go on after it; what ends a training is let through."""
        try:
            yield
        except TrainingStopped:
            raise
        except Exception as error:
            self.report(doing, error)

    def reporter(self, doing: str) -> Callable[[Exception], None]:
        """Return a function that reports what fails while doing something."""
        return lambda error: self.report(doing, error)


def _is_from_signal(error: Exception) -> bool:
    """Return whether a signal handler raised an error, to end what runs: a time limit, for example.

    A handler is a function called with the frame that it interrupts.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        before, trace = trace.tb_frame, trace.tb_next
        code = trace.tb_frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 1]
        for value in map(trace.tb_frame.f_locals.get, names):
            held = value if isinstance(value, tuple) else (value,)  # of `*arguments`
            if any(each is before for each in held):
                return True
    return False
