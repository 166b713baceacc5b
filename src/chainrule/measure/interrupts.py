"""Holding signals back while a model's state is changed or put back.

Ctrl-C raises `KeyboardInterrupt` between any two instructions of the main thread. Raised in the
middle of putting things back, it would lose the rest. Inside `HoldInterrupts` signals that have a
handler in Python therefore wait, except where they are let through.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGALRM") if hasattr(signal, name)
)
"""Signals whose handlers people let raise something: Ctrl-C, an end from outside, a time limit."""

_Handler = Callable[[int, FrameType | None], Any]


class HoldInterrupts:
    """A context in which signals wait; they are handled when it ends.

    Python runs the handlers of signals in the main thread; in other threads this does nothing.
    A handler that raises does so at most once inside, and not again before the context has ended.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._waiting: list[int] = []
        self._lets_through = False

    def __enter__(self) -> Self:
        """Put own handlers in the place of those there are."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    try:
                        signal.signal(number, self._receive)
                    except ValueError:  # another interpreter in this process has the signals
                        self._handlers.clear()
                        break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Put the handlers back, and handle what has waited."""
        handlers = dict(self._handlers)
        raised: BaseException | None = None
        while self._handlers:
            try:
                number = next(reversed(self._handlers))
                if signal.getsignal(number) == self._receive:  # else compute_loss has set its own
                    signal.signal(number, handlers[number])
                del self._handlers[number]
            except BaseException as another:  # a handler that is back already
                raised = another
        if raised is not None:
            raise raised
        waiting, self._waiting = self._waiting, []
        for number in dict.fromkeys(waiting):
            handlers[number](number, None)

    @contextmanager
    def let_through(self) -> Iterator[None]:
        """Handle signals at once inside, and first those that have waited."""
        # Whatever raises in the block below, raised by a handler or not, comes past `finally` with
        # signals held back again: a handler that raises sees to that before it does.
        try:
            self._lets_through = True
            while self._waiting:
                self._receive(self._waiting.pop(0), None)
            yield
        finally:
            self._lets_through = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._lets_through:
            self._waiting.append(number)
            return
        self._lets_through = False
        self._handlers[number](number, frame)
        self._lets_through = True
