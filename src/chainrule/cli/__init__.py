"""The command line: one module per command, and what they share."""

from chainrule.cli.commands import (
    app,
    main,
)

__all__ = [
    "app",
    "main",
]
