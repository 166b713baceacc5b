"""Showing how far a measurement is, in the terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error, from the second second on."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bars.add_task(what, total=None)
    timer = threading.Timer(1.0, bars.start)
    timer.daemon = True
    if bars.console.is_terminal:
        timer.start()
    try:
        yield lambda done, total: bars.update(task, completed=done, total=total)
    finally:
        timer.cancel()
        if bars.live.is_started:
            bars.stop()
