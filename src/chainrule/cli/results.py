"""What commands do with a measurement: print it, write it, open it."""

import tempfile
import webbrowser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from chainrule._utils.files import check_writable
from chainrule.cli.streams import open_console, print_json, print_note
from chainrule.errors import FlowFileError

if TYPE_CHECKING:
    from chainrule.diagnosis.diagnosis import Diagnosis
    from chainrule.flow.gradient_flow import GradientFlow
    from chainrule.remedies.result import Remedies


_WRITTEN: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "--report": ("HTML", (".html", ".htm")),
    "--plot": ("HTML", (".html", ".htm")),
    "--output": ("JSON", (".json",)),
    "--svg": ("SVG", (".svg",)),
}
"""What each option writes, and how such a file is named."""

_NAMED = frozenset(
    {
        *(".html", ".htm", ".json", ".svg", ".png", ".jpg", ".pdf", ".txt", ".md"),
        *(".csv", ".parquet", ".db", ".sqlite", ".pt", ".zip", ".yaml"),
    }
)
"""Endings that say what a file holds. Any other one is up to its owner."""


def check_outputs(
    outputs: Mapping[str, Path | None],
    inputs: Iterable[Path] = (),
    *,
    written: Mapping[str, tuple[str, tuple[str, ...]]] = _WRITTEN,
) -> None:
    """Raise unless every file can be written and none takes the place of another or of an input.

    Args:
        outputs: The files to write, by the option that names them.
        inputs: The files that are read.
        written: What an option writes, and the endings of such a file.

    Raises:
        FlowFileError: If one cannot be written, is Python code or named like another kind of file,
            or is named twice.
    """
    taken = [(f"the input {path}", path) for path in inputs]
    for option, path in outputs.items():
        if path is None:
            continue
        check_writable(path)
        if path.suffix == ".py":
            raise FlowFileError(f"{option}: must not be a file of Python code; got {path}.")
        kind, endings = written.get(option, ("", ()))
        if kind and path.suffix.lower() in _NAMED.difference(endings):
            raise FlowFileError(
                f"{option}: writes {kind}, so the file must end with {endings[0]}; got {path.name}."
            )
        for what, other in taken:
            if _is_same(path, other):
                raise FlowFileError(
                    f"{option}: must be a different file; {path} is {what}. Give another name."
                )
        taken.append((f"also the file of {option}", path))


def show_flow(
    flow: "GradientFlow",
    diagnosis: "Diagnosis",
    remedies: "Remedies | None" = None,
    *,
    file: TextIO | None = None,
    as_json: bool = False,
    everything: bool = False,
) -> None:
    """Print a measurement, what it means and what helps, as text or as JSON."""
    if as_json:
        from chainrule.display.export import to_result_json

        print_json(to_result_json(flow, diagnosis, remedies), file)
        return
    from chainrule.display.terminal import print_flow, render_remedies

    console = open_console(file)
    print_flow(console, flow, diagnosis, everything=everything)
    if remedies is not None:
        console.print()
        console.print(render_remedies(remedies), crop=False)  # code to copy stays whole


def write_flow(flow: "GradientFlow", path: Path | None) -> None:
    """Write a flow to a file if one is named, and say so."""
    if path is not None:
        flow.save(path)
        print_note(f"Wrote {path}")


def write_page(
    flow: "GradientFlow",
    path: Path | None,
    *,
    opened: bool,
    title: str | None = None,
    remedies: "Remedies | None" = None,
) -> None:
    """Write the report if it is asked for, say where it is, and open it if that is asked for."""
    if path is None and not opened:
        return
    from chainrule.report import write_report

    place = path or Path(tempfile.mkdtemp(prefix="chainrule-")) / "report.html"
    write_report(flow, place, title=title, remedies=remedies)
    print_note(f"Wrote {place}")
    if opened and not webbrowser.open(place.resolve().as_uri()):
        print_note("No browser could be started. Open that file in one.")


def _is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, through links and however they are spelled."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one.resolve() == other.resolve()
