"""The explorer: a web page on the same engine (needs the extra `app`)."""

from chainrule.app.application import create_app

__all__ = ["create_app"]
