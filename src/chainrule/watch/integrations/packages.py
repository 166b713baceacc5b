"""Packages that chainrule works with and does not install."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from chainrule.errors import PackageError


def load(name: str, *, package: str | None = None, install: str | None = None) -> ModuleType:
    """Import a module of a package that may not be installed.

    Args:
        name: The module, for example "lightning.pytorch".
        package: The package to look for; the first part of `name` if not given.
        install: What pip calls it; `package` if not given.

    Raises:
        PackageError: If the package is not there; the message says how to install it.

    Example:
        >>> load("json").dumps(1)
        '1'
    """
    package = package or name.partition(".")[0]
    if find_spec(package) is None:
        raise PackageError(
            f"This needs the package {package}, which is not installed. "
            f"Run: pip install {install or package}",
            name=package,
        )
    return import_module(name)
