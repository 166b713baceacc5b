"""Waiting for what another thread or process brings about."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds after which something that must happen is said not to."""


def wait_until(is_so: Callable[[], object]) -> None:
    """Return when something is so; fail if it does not happen."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
