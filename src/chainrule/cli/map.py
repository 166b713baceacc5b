"""`chainrule map`: theory, measurement and training of the networks over two axes."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from chainrule.cli.cells import (
    LIMIT,
    CsvOption,
    DaskOption,
    LimitOption,
    ParquetOption,
    ProcessesOption,
    RescueOption,
    RetryOption,
    SetOption,
    StoreOption,
    TrainOption,
    check_files,
    check_scale,
    check_training,
    end_with_failures,
    keep_going,
    note_rows,
    open_executor,
    read_axes,
    read_settings,
    rescue_results,
    show_progress,
)
from chainrule.cli.options import DebugOption
from chainrule.cli.streams import open_console, print_json
from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec

STEPS = 100


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
    fixed: SetOption = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Networks per cell.")] = 4,
    train: TrainOption = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Steps of that training. [default: {STEPS}]"),
    ] = None,
    store: StoreOption = None,
    retry_failed: RetryOption = False,
    rescue: RescueOption = None,
    processes: ProcessesOption = None,
    dask: DaskOption = None,
    limit: LimitOption = LIMIT,
    csv: CsvOption = None,
    parquet: ParquetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the map as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Draw theory, measurement and training over two axes.

    A cell that fails is drawn as "?"; the exit code is then 3.
    """
    from chainrule.sweeps.cells import Training
    from chainrule.sweeps.mapping import AXES, BASE, phase_map
    from chainrule.sweeps.pools import check_arguments

    settings = read_settings(fixed)
    axes = read_axes(axis) if axis else AXES
    check_scale(axes, settings)
    check_files({"--csv": csv, "--parquet": parquet}, store, rescue, retry_failed=retry_failed)
    check_training(train, steps)
    check_arguments(None, processes)
    training = None if train is None else Training(optimizer=train, steps=steps or STEPS)  # type: ignore[arg-type]
    base = _make_base(BASE, axes, settings)
    with open_executor(dask, processes) as executor, show_progress() as show, keep_going(store):
        rescue_results(rescue, store)
        found = phase_map(
            axes,
            base,
            seeds=seeds,
            training=training,
            executor=executor,
            store=store,
            processes=processes,
            limit=limit,
            retry_failed=retry_failed,
            progress=show,
        )
    for path in (csv, parquet):
        if path is not None:
            note_rows(found.write(path), path)
    if as_json:
        print_json(found.to_dict())
    else:
        console = open_console()
        console.print(found.draw_text(), crop=False, soft_wrap=True, highlight=False, markup=False)
        console.print(_explain(found.training is not None), highlight=False)
        console.print(found.summary, highlight=False)
    failed = [
        (f"{found.x.name}={found.x.write(x)}, {found.y.name}={found.y.write(y)}", cell.error)
        for y, row in zip(found.y.values, found.rows, strict=True)
        for x, cell in zip(found.x.values, row, strict=True)
        if cell.error
    ]
    end_with_failures(failed, len(list(found)), store)


def _make_base(
    base: NetworkSpec, axes: Mapping[str, Sequence[Any]], settings: dict[str, Any]
) -> NetworkSpec:
    """Return the settings that all cells have."""
    from chainrule.sweeps.grids import make_spec

    if "weight_scale" in settings and "width" in axes:
        raise SweepError(
            "weight_scale: must be an axis where width is one, because weight_std = σ_w/√width. "
            "Give --axis weight_scale=…, or leave one of them out."
        )
    if "weight_scale" in settings:
        return make_spec(base, settings)
    return base.replace(**settings)


def _explain(trained: bool) -> str:
    text = "First ÷ last gradient as measured: - below 1/20, + above 20, · between."
    return f"{text} Training: ● learned, ○ did not." if trained else text
