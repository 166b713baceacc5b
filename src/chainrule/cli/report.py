"""`chainrule report`: a saved measurement as a web page."""

from pathlib import Path
from typing import Annotated

import typer

from chainrule.cli.options import DebugOption
from chainrule.cli.results import check_outputs, write_page
from chainrule.errors import ChainruleError


def report_command(
    flow_file: Annotated[
        Path, typer.Argument(metavar="FLOW", help="A file that --output wrote (JSON).")
    ],
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write the report to a file (HTML)."),
    ] = None,
    open_report: Annotated[
        bool,
        typer.Option(
            "--open", help="Open it in a browser. Without --report, it is a temporary file."
        ),
    ] = False,
    title: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Heading of the report. [default: what was measured]"),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", hidden=True)] = None,
    debug: DebugOption = False,
) -> None:
    """Write a saved measurement as a web page that opens offline."""
    if output is not None:
        raise ChainruleError(
            f"--output: must not be given here, because it writes a flow (JSON); got {output}. "
            "Write the report with --report FILE."
        )
    if report is None and not open_report:
        raise ChainruleError(
            "A report must be written or opened. Give --report FILE, --open, or both."
        )
    check_outputs({"--report": report}, [flow_file])
    from chainrule.flow.loading import load_flow

    write_page(load_flow(flow_file), report, opened=open_report, title=title)
