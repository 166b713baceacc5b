"""`chainrule inspect`: measure a model of yours."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import (
    AllOption,
    CheckOption,
    DebugOption,
    JsonOption,
    OpenOption,
    OutputOption,
    RemediesOption,
    ReportOption,
)
from chainrule.cli.progress import show_progress
from chainrule.cli.results import check_outputs, show_flow, write_flow, write_page
from chainrule.cli.streams import keep_output, print_error, print_note
from chainrule.errors import ChainruleError, InspectionError


def inspect_command(  # noqa: PLR0913  (one option per setting)
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="FILE.py:FUNCTION or package.module:FUNCTION. The function takes no arguments "
            "and returns (model, compute_loss), or (model, compute_loss, optimizer).",
        ),
    ],
    as_json: JsonOption = False,
    output: OutputOption = None,
    report: ReportOption = None,
    open_report: OpenOption = False,
    remedies: RemediesOption = False,
    try_it: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Train copies for a short while, with the optimizer of the target or with SGD and "
            "Adam. The verdict follows what came of it.",
        ),
    ] = False,
    passes: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=40,
            help="With --try: the most forward and backward passes. [default: 300]",
        ),
    ] = None,
    check: CheckOption = False,
    min_gradient: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --check: the smallest ‖∂𝓛/∂W‖ that is allowed. [default: the diagnosis's "
            "bound, relative to the error at the output]",
        ),
    ] = None,
    max_gradient: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --check: the largest ‖∂𝓛/∂W‖ that is allowed. [default: the diagnosis's "
            "bound, relative to the error at the output]",
        ),
    ] = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="With --check: the largest ratio that is allowed between the ‖∂𝓛/∂W‖ of two "
            "layers. [default: no limit]",
        ),
    ] = None,
    everything: AllOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure the gradient flow of your own PyTorch model.

    What the code of the model prints goes to standard error.
    """
    from chainrule.cli.target import get_file, load_target
    from chainrule.diagnosis.diagnosis import diagnose
    from chainrule.diagnosis.limits import Limits, check_limits

    source = get_file(target)
    inputs = [Path(source)] if source is not None else []
    check_outputs({"--output": output, "--report": report}, inputs)
    limits = Limits(min_gradient=min_gradient, max_gradient=max_gradient, max_ratio=max_ratio)
    if limits != Limits() and not check:
        raise ChainruleError(
            "--min-gradient, --max-gradient and --max-ratio must come with --check, which compares "
            "with them. Give --check as well."
        )
    if passes is not None and not try_it:
        raise ChainruleError("--passes must come with --try, which it limits. Give --try as well.")
    with keep_output() as out:
        found = trial = None
        ended = ""
        with show_progress("measuring") as advance:
            model, compute_loss, optimizer = load_target(target)
            from chainrule.measure.inspection import inspect
            from chainrule.measure.non_finite import add_origin
            from chainrule.remedies.spec_search import find_remedies

            try:
                if remedies:
                    found = find_remedies(
                        model, compute_loss, prove=try_it, optimizer=optimizer, progress=advance
                    )
                    flow = found.before
                else:
                    flow = inspect(model, compute_loss, optimizer)
                    flow = add_origin(flow, model, compute_loss)
                if try_it:
                    from chainrule.training.trial import PASSES, describe_end, try_training

                    try:
                        trial = try_training(
                            model, compute_loss, optimizer, passes=passes or PASSES
                        )
                    except InspectionError as error:  # what was measured stays true
                        ended = describe_end(error)
            except SystemExit as error:
                raise InspectionError(
                    f"The model's code must run without errors, but it raised SystemExit: {error}."
                ) from error
        flow = replace(flow, trial=trial)
        diagnosis = diagnose(flow)
        show_flow(flow, diagnosis, found, file=out, as_json=as_json, everything=everything)
    if ended:
        print_note(ended)
    write_flow(flow, output)
    write_page(flow, report, opened=open_report, remedies=found)
    violations = check_limits(flow, diagnosis, limits) if check else ()
    for violation in violations:
        print_error(f"{violation}", label="check: ")
    if violations:
        raise typer.Exit(1)
