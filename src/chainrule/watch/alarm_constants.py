"""How often each rule was right on the truth set, written by `make alarms`: not by hand."""

from collections.abc import Mapping
from types import MappingProxyType

RECORD: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {
        "not_zeroed": (3, 3, 3, 3),
        "rate_too_high": (20, 20, 20, 21),
        "exploding": (4, 4, 14, 14),
        "non_finite": (10, 10, 10, 10),
        "zero_inputs": (2, 2, 2, 2),
        "symmetric": (3, 3, 3, 3),
        "underflow": (2, 2, 2, 2),
        "stale_optimizer": (4, 4, 6, 6),
        "dead_units": (7, 7, 8, 8),
        "saturated": (3, 3, 3, 3),
        "no_gradient": (9, 9, 8, 8),
        "vanishing": (3, 4, 4, 4),
        "no_update": (5, 5, 8, 8),
        "replicas_diverge": (0, 0, 0, 0),
        "rate_too_low": (5, 5, 7, 7),
        "empty_batches": (1, 1, 1, 1),
        "spike": (1, 1, 9, 9),
        "outlier_batch": (3, 3, 4, 4),
        "data_changed": (7, 7, 8, 8),
        "stalled": (1, 1, 1, 1),
        "loss_flat": (6, 7, 6, 6),
    }
)
"""By rule: alarms that were right, all its alarms, faulty programs of its kind that were found, and
how many there are."""
