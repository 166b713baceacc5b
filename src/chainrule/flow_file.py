"""Reading flow files: a `GradientFlow` as JSON, validated before anything sees it."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chainrule.errors import FlowFileError
from chainrule.flow import SCHEMA_VERSION, GradientFlow, flow_adapter
from chainrule.quantity import Quantity

MAX_BYTES = 256 * 2**20
"""Largest flow file that is read."""


def load_flow(path: str | os.PathLike[str]) -> GradientFlow:
    """Return the flow that `GradientFlow.save` wrote.

    Raises:
        FlowFileError: If the file is missing, too large, damaged, or from a newer chainrule.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        content = source.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise FlowFileError(f"Could not read {source}: {error.strerror}.") from None
    except ValueError as error:  # a path that no file system has
        raise FlowFileError(f"Could not read {str(path)!r}: {error}.") from None
    if size > MAX_BYTES:
        raise FlowFileError(
            f"A flow file must be at most {MAX_BYTES // 2**20} MiB; "
            f"{source} has {size // 2**20} MiB."
        )
    return decode_flow(content)


def decode_flow(text: str | bytes) -> GradientFlow:
    """Return the flow that JSON text holds.

    Raises:
        FlowFileError: If the text is not a flow, is damaged, or has a newer schema.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FlowFileError(
            f"A flow file must hold JSON as written by chainrule; it could not be read ({error})."
        ) from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise FlowFileError(
            f"This flow file has schema version {version}, but this chainrule reads up to "
            f"{SCHEMA_VERSION}. Upgrade with: pip install --upgrade chainrule"
        )
    if version != SCHEMA_VERSION:
        raise FlowFileError(
            f"A flow file must state schema_version {SCHEMA_VERSION}; this one has {version!r}. "
            "It was not written by chainrule, or is damaged."
        )
    try:
        flow = flow_adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FlowFileError(
            f"The flow file is damaged at {place or 'its start'}: "
            f"{first['msg'].removeprefix('Value error, ').rstrip('.')}. "
            "Measure again and save a new one."
        ) from None
    _check_quantities(flow, flow.ensemble_size, "")
    if flow.seeds and len(flow.seeds) != flow.ensemble_size:
        raise FlowFileError(
            f"The flow file is damaged at seeds: {len(flow.seeds)} seeds for an ensemble of "
            f"{flow.ensemble_size}."
        )
    for index, call in enumerate(flow.layers):
        if call.parent is not None and not index < call.parent < len(flow.layers):
            raise FlowFileError(
                f"The flow file is damaged at layers.{index}.parent: must be the position of a "
                f"later entry; got {call.parent}."
            )
    return flow


def _check_quantities(value: Any, size: int, place: str) -> None:
    """Raise unless every figure below `value` has one value per ensemble member."""
    if isinstance(value, Quantity):
        if len(value.values) != size:
            raise FlowFileError(
                f"The flow file is damaged at {place}: {len(value.values)} values for an "
                f"ensemble of {size}."
            )
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            _check_quantities(entry, size, f"{place}.{index}")
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            _check_quantities(getattr(value, name), size, f"{place}.{name}".lstrip("."))
