"""Which chainrule this is."""

from functools import cache
from importlib.metadata import version


@cache
def read_version() -> str:
    """Return the version of the installed chainrule."""
    return version("chainrule")
