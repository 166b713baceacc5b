"""Addresses as specifications: the nearest legal one, whatever a visitor's URL says."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from chainrule.errors import SpecError
from chainrule.spec.network_spec import FIELD_NAMES, NetworkSpec

MAX_QUERY = 4000
"""Longest address that is read, in characters."""

_NOT_GIVEN: Mapping[str, str] = MappingProxyType(
    {
        "distribution": "the initialization's own is used",
        "bias_std": "the initialization's own is used",
        "clip_norm": "no clipping is used",
    }
)
"""What is used where nothing is given, for the fields whose default is `None`."""

_CONTRADICTIONS: Mapping[str, str] = MappingProxyType(
    {
        "distribution": "is not possible with this initialization",
        "weight_std": "has no use without the random initialization",
        "batch_size": "is not possible with batch normalization",
    }
)
"""What is wrong with a field that is legal alone, but not together with the others."""


def repair_query(query: str) -> tuple[NetworkSpec, tuple[str, ...]]:
    """Return the nearest legal specification to a URL query, and what was changed.

    For a page: whatever a visitor's URL says, there is a network to show. Numbers beyond a bound
    become the bound; everything else that is illegal falls back to its default.

    Args:
        query: Any string.

    Returns:
        The specification, and one notice per repaired field (empty if nothing was).

    Example:
        >>> repair_query("depth=2000")[1]
        ('depth “2000” is not possible; using 1000.',)
    """
    notices: list[str] = []
    pairs: list[tuple[str, str]] = []
    try:
        if len(query) > MAX_QUERY:
            raise ValueError
        pairs = parse_qsl(
            query.removeprefix("?"), keep_blank_values=True, max_num_fields=100, errors="replace"
        )
    except ValueError:
        notices.append("The address was too long and was ignored.")
    fields = dict(pairs)
    if len(fields) < len(pairs):
        notices.append("Some settings were given several times; the last one counts.")
    accepted: dict[str, Any] = {}
    for name, text in fields.items():
        if name not in NetworkSpec.model_fields:
            notices.append(f"“{name[:40]}” is not a setting and was ignored.")
            continue
        value, is_legal = _repair_field(name, text)
        if not is_legal:
            notices.append(_write_notice(name, text, "is not possible", value))
        if value is not None:
            accepted[name] = value
    while True:
        try:
            return NetworkSpec(**accepted), tuple(notices)
        except SpecError as error:  # fields legal alone but not together
            name = str(error).partition(":")[0]
            del accepted[name]
            notices.append(_write_notice(name, fields[name], _CONTRADICTIONS[name], None))


def _write_notice(name: str, text: str, problem: str, value: Any) -> str:
    """Return what is wrong with a field and what is used instead (`None` for its default)."""
    if value is None:
        value = NetworkSpec.model_fields[name].default
    used = f"{value:g}" if isinstance(value, float) else str(value)  # as an address holds it
    instead = _NOT_GIVEN[name] if value is None else f"using {used}"
    return f"{FIELD_NAMES[name]} “{text[:40]}” {problem}; {instead}."


def _repair_field(name: str, text: str) -> tuple[Any, bool]:
    """Return the nearest legal value of one field (`None` for its default), and if `text` is it."""
    context = {"init": "random"} if name == "weight_std" else {}

    def read(value: str | float) -> Any:
        fields: dict[str, Any] = {**context, name: value}
        return getattr(NetworkSpec(**fields), name)

    try:
        return read(text), True
    except SpecError:
        pass
    low = high = None
    for constraint in NetworkSpec.model_fields[name].metadata:
        low = getattr(constraint, "ge", low)
        high = getattr(constraint, "le", high)
    try:
        number = float(text)
    except ValueError:
        return None, False
    if high is not None and number > high:
        number = high
    elif low is not None and number < low:
        number = low
    if not math.isfinite(number):
        return None, False
    whole = isinstance(NetworkSpec.model_fields[name].default, int)
    try:
        return read(round(number) if whole else float(number)), False
    except SpecError:
        return None, False
