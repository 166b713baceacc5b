"""The standalone report: a measurement as one HTML file that opens offline, anywhere."""

import os
from collections.abc import Iterable

from chainrule._utils.files import write_text
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.trial import Trial
from chainrule.remedies.result import Remedy
from chainrule.report.page import build_report

__all__ = ["build_report", "write_report"]


def write_report(
    flow: GradientFlow,
    path: str | os.PathLike[str],
    *,
    remedies: Iterable[Remedy] | None = None,
    title: str | None = None,
    date: str | None = None,
    trial: Trial | None = None,
    other: GradientFlow | None = None,
) -> None:
    """Write a measurement as one HTML file that needs no other file and no network.

    It holds the status cards, the diagnosis with its evidence, the charts and all values as
    tables. The same arguments always give the same file. An older file is replaced only when all
    is written.

    Args:
        flow: The measurement.
        path: The file.
        remedies: Changes that were measured, as `find_remedies` returns them; of these, the ones
            that do not help are shown, too.
        title: What the report is about; what was measured, by default.
        date: When it was measured, in any form; left out by default.
        trial: What `try_training` showed of the same model and loss; the verdict follows it.
        other: A second measurement to compare with, the one before a change, say: its values
            stand beside, and it is dashed in the charts.

    Raises:
        FlowFileError: If the file cannot be written there.

    Example:
        >>> import chainrule, pathlib, tempfile
        >>> flow = chainrule.simulate(chainrule.NetworkSpec(depth=3, width=4), seeds=2)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "report.html")
        >>> write_report(flow, path)
        >>> path.exists()
        True
    """
    text = build_report(flow, remedies=remedies, title=title, date=date, trial=trial, other=other)
    write_text(path, text)
