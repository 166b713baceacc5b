"""`chainrule presets`: the named scenarios."""

from typing import Annotated

import typer

from chainrule.cli.options import DebugOption
from chainrule.cli.streams import open_console, print_json
from chainrule.presets import PRESETS


def presets_command(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print names, what to look at, and specifications as JSON instead."
        ),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """List the named scenarios and what to look at in each."""
    presets = list(PRESETS.values())
    if as_json:
        print_json(
            [
                {
                    "name": preset.name,
                    "short_name": preset.slug,
                    "look_at": preset.look_at,
                    "spec": preset.spec.model_dump(),
                }
                for preset in presets
            ]
        )
        return
    from chainrule.display.terminal import render_presets

    open_console().print(render_presets(presets), crop=False)
