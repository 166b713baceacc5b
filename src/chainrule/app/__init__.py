"""The explorer: a web page on the same engine (needs the extra `app`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.app.application import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Load the application when it is asked for: a process that supervises workers needs none."""
    if name == "create_app":
        from chainrule.app.application import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
