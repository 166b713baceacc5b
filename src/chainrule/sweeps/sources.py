"""The source of a factory: its own text, and that of what it uses of its own module."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, ModuleType
from typing import Any

from chainrule.errors import SweepError, abbreviate

_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def read_source(factory: Callable[..., Any]) -> str:
    """Return the text that decides what a factory builds.

    That is the source of the function or class, of every function and class of the same module that
    it uses, directly or through others, and the plain constants that these use. Other modules do
    not count.

    Raises:
        SweepError: If there is no source, or the function uses variables of a function around it.
    """
    parts: dict[str, str] = {}
    _collect(factory, parts)
    return "\n".join(f"# {name}\n{text}" for name, text in sorted(parts.items()))


def _collect(item: Any, parts: dict[str, str]) -> None:
    if isinstance(item, partial):
        settings = sorted(item.keywords.items())
        parts[f"partial {_name(item.func)}"] = repr((item.args, settings))
        _collect(item.func, parts)
        return
    name = _name(item)
    if name in parts:
        return
    try:
        parts[name] = inspect.getsource(item)
    except (OSError, TypeError):
        raise SweepError(
            f"A factory must be a function or class that is written in a file, because its source "
            f"is part of a cell's address; got {abbreviate(item)}. Put it into a module."
        ) from None
    inside = inspect.getmodule(item)
    for function in _list_functions(item):
        _check_closure(function)
        for used in _list_names(function.__code__):
            value = function.__globals__.get(used)
            if isinstance(value, _PLAIN) or _is_plain_row(value):
                parts[f"{function.__module__}.{used} ="] = repr(value)
            elif _is_local(value, inside):
                _collect(value, parts)
    if isinstance(item, type):
        for base in item.__bases__:
            if _is_local(base, inside):
                _collect(base, parts)


def _list_functions(item: Any) -> Iterator[Any]:
    for each in vars(item).values() if isinstance(item, type) else [item]:
        function = inspect.unwrap(getattr(each, "__func__", getattr(each, "fget", each)))
        if inspect.isfunction(function):
            yield function


def _list_names(code: CodeType) -> set[str]:
    """Return every name that a function or a function inside it may look up in its module."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _list_names(constant)
    return names


def _check_closure(function: Any) -> None:
    hidden = [name for name in function.__code__.co_freevars if name != "__class__"]
    if hidden:
        raise SweepError(
            f"A factory must get what it needs as arguments; {_name(function)} uses "
            f"{', '.join(hidden)} of the function around it, which no address can hold. Move it to "
            "the top of a module and make these its arguments."
        )


def _is_local(value: Any, inside: ModuleType | None) -> bool:
    own = inspect.isfunction(value) or isinstance(value, type)
    return own and inside is not None and value.__module__ == inside.__name__


def _is_plain_row(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(each, _PLAIN) for pair in value.items() for each in pair)
    return isinstance(value, tuple | list) and all(isinstance(each, _PLAIN) for each in value)


def _name(item: Any) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
