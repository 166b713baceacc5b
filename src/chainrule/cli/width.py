"""`chainrule width`: whether a model of yours keeps its sizes as it gets wider."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from chainrule._utils.files import write_text
from chainrule.cli.options import DebugOption, complete
from chainrule.cli.progress import show_progress
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import keep_output, open_console, print_json, print_note
from chainrule.errors import ChainruleError, InspectionError, PackageError, suggest
from chainrule.figures.theme import INSTALL_PLOTLY

WIDTHS = "64,128,256,512"
STEPS, SEEDS = 4, 3
"""Those of `check_width`, which is not loaded for a help text: it loads PyTorch."""

METRICS = ("output", "change", "gradient", "effect")


def width_command(  # noqa: PLR0913  (one argument per option)
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="FILE.py:FUNCTION or package.module:FUNCTION. The function takes a width and "
            "returns (model, compute_loss) or (model, compute_loss, optimizer). Without an "
            "optimizer, Adam with its own learning rate is used. Draw the data before the model: "
            "so all widths get the same.",
        ),
    ],
    widths: Annotated[
        str,
        typer.Option(metavar="NUMBERS", help="Two widths or more, separated by commas."),
    ] = WIDTHS,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Steps that each model is trained for.")
    ] = STEPS,
    seeds: Annotated[int, typer.Option(metavar="N", help="Models of every width.")] = SEEDS,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Exit with code 1 if a size goes with the width and must not, or nothing could be "
            "judged.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture (HTML): a line for every module."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"With --plot, what to draw: {', '.join(METRICS)}.",
            autocompletion=complete(METRICS),
        ),
    ] = "change",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all exponents and the verdict as JSON instead.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Find sizes in your model that depend on its width and must not.

    Models of several widths are trained for a few steps, and the sizes of outputs, of their changes
    and of updates are compared. What the code of the model prints goes to standard error.
    """
    from chainrule.cli.target import get_file, load_function

    sizes = _read_widths(widths)
    source = get_file(target)
    _check_plot(plot, metric, [Path(source)] if source is not None else [])
    with keep_output() as out:
        with show_progress("training") as advance:
            function = load_function(target)
            from chainrule.width.factories import check_factory

            try:
                found = check_factory(function, sizes, steps=steps, seeds=seeds, progress=advance)
            except SystemExit as error:
                raise InspectionError(
                    f"The model's code must run without errors, but it raised SystemExit: {error}."
                ) from error
        if as_json:
            print_json(found.to_dict(), out)
        else:
            open_console(out).print(found.summary, soft_wrap=True)
    if plot is not None:
        write_text(plot, found.plot(metric).to_html())
        print_note(f"Wrote {plot}")
    if check and not found.passed:
        raise typer.Exit(1)


def _read_widths(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InspectionError(
            f"--widths must be whole numbers separated by commas, such as {WIDTHS}; got "
            f"{text!r:.60}."
        ) from None


def _check_plot(plot: Path | None, metric: str, inputs: list[Path]) -> None:
    """Raise unless the picture can be written, before minutes of work."""
    if metric not in METRICS:
        raise ChainruleError(f"--metric: unknown {metric!r:.60}. {suggest(metric, METRICS)}")
    if plot is None:
        return
    check_outputs({"--plot": plot}, inputs)
    if find_spec("plotly") is None:
        raise PackageError(f"--plot needs plotly, which must be installed. Run: {INSTALL_PLOTLY}")
