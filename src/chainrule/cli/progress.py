"""Showing how far a measurement is, in the terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from chainrule.cli.streams import open_console


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error, from the second second on."""
    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=open_console(stderr=True),
        transient=True,
    )
    task = bars.add_task(what, total=None)
    timer = threading.Timer(1.0, bars.start)
    timer.daemon = True
    shown = bars.console.is_terminal
    if shown:
        timer.start()
    try:
        yield lambda done, total: bars.update(task, completed=done, total=total)
    finally:
        timer.cancel()
        if shown:
            timer.join()  # it may be starting the bars just now
            bars.stop()
