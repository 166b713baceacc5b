"""The explorer's lesson: texts whose every figure was measured, and the listing beside them."""

from chainrule.app.lesson.routes import register_routes

__all__ = ["register_routes"]
