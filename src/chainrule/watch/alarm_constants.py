"""How often each rule was right on the truth set, written by `make alarms`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

RECORD: Mapping[str, tuple[int, int, int, int]] = MappingProxyType({})
"""By rule: alarms that were right, all its alarms, faulty programs of its kind it found, and how
many there are."""
