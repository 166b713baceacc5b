"""Options that several commands share, their completion, and the defaults that help texts state."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from chainrule.presets import PRESETS
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS, Distribution
from chainrule.spec.network_spec import Dtype, NetworkSpec, Normalization, Residual

RESIDUALS = get_args(Residual)
NORMALIZATIONS = get_args(Normalization)
DISTRIBUTIONS = get_args(Distribution)
DTYPES = get_args(Dtype)


def complete(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that completes one of some names."""
    known = tuple(names)
    return lambda incomplete: [name for name in known if name.startswith(incomplete)]


def complete_list(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that completes the last of several names separated by commas."""
    known = tuple(names)

    def finish(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return finish


def complete_presets(incomplete: str) -> list[tuple[str, str]]:
    """Return the short names of presets, which need no quotes, with their full names."""
    return [
        (preset.slug, preset.name)
        for preset in PRESETS.values()
        if preset.slug.startswith(incomplete.lower())
    ]


def setting(
    name: str,
    text: str,
    *,
    none: str = "",
    metavar: str = "NAME",
    names: Iterable[str] = (),
) -> Any:
    """Return the option of a field of `NetworkSpec`; its help states the field's own default.

    Args:
        name: The field.
        text: What it is.
        none: What happens where the field's default is `None`.
        metavar: What is given.
        names: The names that can be given; they are listed and completed.
    """
    default = NetworkSpec.model_fields[name].default
    known = tuple(names)
    listed = f"{text.rstrip('.')}: {', '.join(known)}." if known else text
    return typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=metavar,
        help=f"{listed} [default: {none if default is None else default}]",
        autocompletion=complete(known) if known else None,
    )


PresetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Start from a named scenario; `chainrule presets` lists them. Other settings that you "
        "give replace those of the scenario.",
        autocompletion=complete_presets,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the flow and the diagnosis as JSON instead.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the flow to a file (JSON)."),
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a report to a file (HTML)."),
]
OpenOption = Annotated[
    bool,
    typer.Option(
        "--open", help="Open the report in a browser. Without --report, it is a temporary file."
    ),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Exit with code 1 if the diagnosis is not healthy.")
]
RemediesOption = Annotated[
    bool, typer.Option("--remedies", help="Look for changes that help, and measure each.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Show every measured module, as a tree.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
ActivationOption = Annotated[str | None, setting("activation", "Activation", names=ACTIVATIONS)]
InitOption = Annotated[str | None, setting("init", "Initialization", names=INITIALIZERS)]
