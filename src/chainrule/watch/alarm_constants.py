"""How often each rule was right on the truth set, written by `make alarms`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

RECORD: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {
        "not_zeroed": (3, 3, 3, 3),
        "exploding": (3, 4, 10, 10),
        "rate_too_high": (11, 11, 11, 12),
        "non_finite": (8, 8, 8, 8),
        "symmetric": (3, 3, 3, 3),
        "underflow": (2, 2, 2, 2),
        "stale_optimizer": (4, 4, 6, 6),
        "dead_units": (7, 7, 7, 7),
        "saturated": (3, 3, 3, 3),
        "no_gradient": (6, 6, 5, 5),
        "vanishing": (3, 3, 4, 4),
        "no_update": (5, 5, 6, 6),
        "replicas_diverge": (0, 0, 0, 0),
        "rate_too_low": (3, 3, 5, 5),
        "empty_batches": (1, 1, 1, 1),
        "spike": (2, 2, 6, 7),
        "outlier_batch": (2, 2, 2, 2),
        "data_changed": (6, 6, 6, 6),
        "stalled": (1, 1, 1, 1),
        "loss_flat": (4, 5, 4, 4),
    }
)
"""By rule: alarms that were right, all its alarms, faulty programs of its kind that were found, and
how many there are."""
