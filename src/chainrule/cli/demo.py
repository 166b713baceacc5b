"""`chainrule demo`: a training that goes wrong, with its alarm in the terminal and on the page."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.cli.explore import check_packages
from chainrule.cli.options import DebugOption, complete
from chainrule.cli.streams import open_console
from chainrule.errors import ChainruleError, abbreviate, suggest

if TYPE_CHECKING:
    from chainrule.watch.records import Alarm

FAULTS = ("rate", "dead", "masked", "underflow")

PAUSE = 0.02
"""Seconds after each step: a run of 600 steps can be watched for a quarter of a minute."""

PATIENCE = 60
"""Seconds in which the training must have begun; loading PyTorch takes long on a busy machine."""


def demo_command(
    fault: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What goes wrong: {', '.join(FAULTS)}.",
            autocompletion=complete(FAULTS),
        ),
    ] = "rate",
    step: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="The step at which it goes wrong.")
    ] = 150,
    steps: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="How many steps are trained.")
    ] = 600,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep the run here; else it is deleted at the end."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for any free one.")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open a browser.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Train a small network that goes wrong, and show its alarm here and on the page Runs."""
    if fault not in FAULTS:
        raise ChainruleError(
            f"--fault must be a known name; got {abbreviate(fault)}. {suggest(fault, FAULTS)}"
        )
    if step > steps:
        raise ChainruleError(
            f"--step must be at most --steps, or nothing goes wrong; got {step} of {steps}."
        )
    check_packages()
    import torch

    from chainrule.app.server import serve
    from chainrule.cli.demo_training import FAULTS as TRAININGS
    from chainrule.cli.demo_training import train_demo
    from chainrule.display.runs import render_alarm

    torch.set_num_threads(1)  # the page and the training share the machine
    console = open_console()
    stop = threading.Event()
    failed: list[BaseException] = []
    with _choose_folder(folder) as place:
        path = _choose_name(place, fault)
        console.print(
            f"A small network learns digits; {TRAININGS[fault].words.format(step=step)}.",
            soft_wrap=True,
        )

        def tell(alarm: "Alarm") -> None:
            console.print(render_alarm(alarm), crop=False)
            console.file.flush()

        def train() -> None:
            try:
                train_demo(path, fault, at=step, steps=steps, on_alarm=tell, pause=PAUSE, stop=stop)
                if not stop.is_set():
                    console.print(f"The run has ended after {steps:,} steps. Ctrl+C closes it.")
                    console.file.flush()
            except BaseException as error:  # said by the thread that serves
                failed.append(error)
                console.print(f"The training failed: {type(error).__name__}: {error}")

        trainer = threading.Thread(target=train, daemon=True)
        try:
            trainer.start()
            _wait_for(path, trainer)
            serve(
                "127.0.0.1", port, open_browser=not no_browser, runs=place,
                path=f"/runs/{path.stem}",
            )  # fmt: skip
        finally:
            stop.set()  # also where Ctrl-C came before the page: the folder is deleted next
            if trainer.ident is not None:
                trainer.join(timeout=30)
    if failed:
        raise failed[0]


@contextmanager
def _choose_folder(folder: Path | None) -> Iterator[Path]:
    """Give the folder of the run: the one that is named, or one that is deleted afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="chainrule-demo-") as place:
            yield Path(place)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if folder.is_file() else f"cannot be: {error.strerror}"
        raise ChainruleError(
            f"--folder must be a folder that can be made; {folder} {reason}."
        ) from None
    yield folder


def _wait_for(path: Path, trainer: threading.Thread) -> None:
    """Return when a run is there to be shown, or none will come."""
    end = time.monotonic() + PATIENCE
    while trainer.is_alive() and not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


def _choose_name(folder: Path, fault: str) -> Path:
    """Return the file of a run that is not there yet."""
    number = 1
    while True:
        path = folder / f"demo-{fault}{f'-{number}' if number > 1 else ''}.db"
        if not path.exists():
            return path
        number += 1
