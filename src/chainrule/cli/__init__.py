"""The command line: one module per command, and what they share."""

from chainrule.cli.application import app, main

__all__ = ["app", "main"]
