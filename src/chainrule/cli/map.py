"""`chainrule map`: theory, measurement and training of the networks over two axes."""

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import DebugOption
from chainrule.cli.results import check_outputs
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.cli.sweep import LIMIT, read_axes, read_settings, show_progress


def map_command(  # noqa: PLR0913  (one argument per option)
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="NAME=VALUES",
            help="Two of them, the first one to the right: weight_scale=0.5..2.8..0.1 (σ_w) and "
            "depth=2..48..2, for example. These are what is drawn without any.",
        ),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting that is the same everywhere."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Networks per cell.")] = 4,
    train: Annotated[
        str | None,
        typer.Option(metavar="OPTIMIZER", help="Train each cell on the digits, too: sgd, adam."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps of that training.")] = 100,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep results here; what it has is not measured again."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes of this machine. [default: its cores]"),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="Most cells that are allowed.")] = LIMIT,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row per cell (.csv).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the map as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Draw theory, measurement and training over two axes."""
    from chainrule._utils.tables import check_table
    from chainrule.errors import SweepError
    from chainrule.sweeps.cells import Training
    from chainrule.sweeps.mapping import BASE, phase_map
    from chainrule.sweeps.pools import check_arguments

    check_arguments(None, processes)
    if csv is not None:
        check_table(csv, SweepError)
        check_outputs({"--csv": csv})
    training = None if train is None else Training(optimizer=train, steps=steps)  # type: ignore[arg-type]
    axes = read_axes(axis) if axis else None
    base = BASE.replace(**read_settings(fixed))
    with show_progress() as show:
        try:
            found = phase_map(
                axes,
                base,
                seeds=seeds,
                training=training,
                store=store,
                processes=processes,
                limit=limit,
                progress=show,
            )
        except KeyboardInterrupt:
            if store is not None:
                print_note(f"What is finished is in {store}; the same command goes on from there.")
            raise
    if csv is not None:
        print_note(f"{found.write(csv)} rows are in {csv}.")
    if as_json:
        print_json(found.to_json())
        return
    console = open_console()
    console.print(found.draw_text(), crop=False, soft_wrap=True, highlight=False, markup=False)
    console.print(_explain(found.training is not None), highlight=False)
    console.print(found.summary, highlight=False)


def _explain(trained: bool) -> str:
    text = "First ÷ last gradient as measured: - below 1/20, + above 20, · between."
    return f"{text} Training: ● learned, ○ did not." if trained else text
