"""Answers as bytes: JSON in which a number that is not finite has one spelling."""

import json
import math
from typing import Any


def encode(answer: Any) -> bytes:
    """Return an answer as JSON.

    JSON has no number for infinity: "Infinity", "-Infinity" and "NaN" stand for what is not finite,
    as in flow files.
    """
    try:
        text = _write(answer)
    except ValueError:  # some number is not finite
        text = _write(_replace(answer))
    return text.encode("utf-8", "replace")  # an address can name half a character


def _write(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _replace(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _replace(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(entry) for entry in value]
    return value
