"""`chainrule simulate`: measure several random networks that have the same settings."""

from typing import Annotated

import typer

from chainrule.cli.options import (
    DISTRIBUTIONS,
    DTYPES,
    NORMALIZATIONS,
    RESIDUALS,
    ActivationOption,
    AllOption,
    CheckOption,
    DebugOption,
    InitOption,
    JsonOption,
    OpenOption,
    OutputOption,
    PresetOption,
    RemediesOption,
    ReportOption,
    setting,
)
from chainrule.cli.progress import show_progress
from chainrule.cli.results import check_outputs, show_flow, write_flow, write_page
from chainrule.cli.streams import print_error
from chainrule.presets import get_preset
from chainrule.spec.network_spec import MAX_BATCH_SIZE, MAX_DEPTH, MAX_WIDTH, NetworkSpec


def simulate_command(  # noqa: PLR0913  (one option per setting)
    preset: PresetOption = None,
    depth: Annotated[
        int | None, setting("depth", f"Weight layers, 1 to {MAX_DEPTH}.", metavar="N")
    ] = None,
    width: Annotated[
        int | None, setting("width", f"Units per layer, 1 to {MAX_WIDTH}.", metavar="N")
    ] = None,
    activation: ActivationOption = None,
    init: InitOption = None,
    distribution: Annotated[
        str | None,
        setting(
            "distribution",
            "What weights are drawn from",
            names=DISTRIBUTIONS,
            none="what the initialization uses",
        ),
    ] = None,
    weight_std: Annotated[
        float | None,
        setting("weight_std", "The σ of the weights; with --init random only.", metavar="NUMBER"),
    ] = None,
    bias_std: Annotated[
        float | None,
        setting(
            "bias_std",
            "The σ of normal biases.",
            metavar="NUMBER",
            none="zero; uniform for --init pytorch",
        ),
    ] = None,
    residual: Annotated[
        str | None,
        setting(
            "residual",
            "Residual connections; scaled divides the layer's output by √depth",
            names=RESIDUALS,
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        setting("normalization", "Normalization before the activation", names=NORMALIZATIONS),
    ] = None,
    clip_norm: Annotated[
        float | None,
        setting("clip_norm", "Largest total gradient norm.", metavar="NUMBER", none="no clipping"),
    ] = None,
    batch_size: Annotated[
        int | None,
        setting("batch_size", f"Examples per batch, 1 to {MAX_BATCH_SIZE}.", metavar="N"),
    ] = None,
    input_scale: Annotated[
        float | None,
        setting("input_scale", "What the inputs are multiplied by.", metavar="NUMBER"),
    ] = None,
    dtype: Annotated[str | None, setting("dtype", "Precision", names=DTYPES)] = None,
    seed: Annotated[int | None, setting("seed", "Seed of the first network.", metavar="N")] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", help="Networks to measure, each with its own seed.")
    ] = 16,
    no_budget: Annotated[
        bool,
        typer.Option(
            "--no-budget", help="Allow networks of any size, even if they take very long."
        ),
    ] = False,
    remedies: RemediesOption = False,
    as_json: JsonOption = False,
    output: OutputOption = None,
    report: ReportOption = None,
    open_report: OpenOption = False,
    check: CheckOption = False,
    everything: AllOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure several random networks that have the same settings."""
    given = {name: value for name, value in locals().items() if name in NetworkSpec.model_fields}
    changes = {name: value for name, value in given.items() if value is not None}
    base = get_preset(preset).spec if preset is not None else NetworkSpec()
    if "init" in changes and changes["init"] != "random" and "weight_std" not in changes:
        changes["weight_std"] = NetworkSpec.model_fields["weight_std"].default
    spec = base.replace(**changes)
    check_outputs({"--output": output, "--report": report})
    import torch

    from chainrule.diagnosis.diagnosis import diagnose
    from chainrule.diagnosis.limits import check_limits
    from chainrule.measure.simulation import BUDGET, simulate
    from chainrule.remedies.spec_search import find_remedies

    torch.set_num_threads(1)  # this process is ours; small networks run fastest so
    budget = None if no_budget else BUDGET
    found = None
    with show_progress("measuring") as advance:
        if remedies:
            found = find_remedies(spec, seeds, budget=budget, progress=advance)
            flow = found.before
        else:
            flow = simulate(spec, seeds, budget=budget, progress=advance)
    diagnosis = diagnose(flow)
    show_flow(flow, diagnosis, found, as_json=as_json, everything=everything)
    write_flow(flow, output)
    write_page(flow, report, opened=open_report, remedies=found)
    violations = check_limits(flow, diagnosis) if check else ()
    for violation in violations:
        print_error(f"{violation}", label="check: ")
    if violations:
        raise typer.Exit(1)
