"""Counting in tensors on a CPU, by NumPy: its calls on small arrays take a third of the time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[Any]
"""Numbers on the host, as a rule [entries, members]."""


def share_zeros(flat: Tensor) -> Numbers:
    """Return the share of zeros along the last dimension, in the tensor's own precision.

    Args:
        flat: Real numbers on a CPU, without a gradient.
    """
    values = flat.numpy()
    is_zero = values == 0
    if not is_zero.any():
        return np.zeros(values.shape[:-1], values.dtype)
    size = values.shape[-1]
    others = size - np.count_nonzero(is_zero, axis=-1)
    return np.asarray(1.0 - others.astype(values.dtype) / values.dtype.type(size))


def share_below(flat: Tensor, limit: float) -> Numbers:
    """Return the share of numbers below a limit along the last dimension; there must be no NaN.

    Args:
        flat: Real numbers on a CPU, without a gradient.
        limit: Rounded to the tensor's precision first.
    """
    values = flat.numpy()
    below = np.count_nonzero(values < values.dtype.type(limit), axis=-1)
    return np.asarray(below.astype(values.dtype) / values.dtype.type(values.shape[-1]))


@np.errstate(all="ignore")  # whatever its caller has NumPy do
def count_into_bins(samples: Tensor, low: Numbers, width: Numbers, bins: int) -> Numbers:
    """Return how many of some finite numbers lie in each of equally wide bins, [entries, bins].

    Args:
        samples: Real numbers on a CPU, without a gradient, [entries, sample].
        low: Where the first bins begin, [entries]; no number is smaller.
        width: Of all bins together, [entries]; if it is 0, or so small that numbers cannot be
            divided by it, all is in the first bin.
        bins: How many there are.
    """
    values = samples.numpy()
    one = values.dtype.type(1)
    is_divisor = width > bins / np.finfo(values.dtype).max
    per_width = np.divide(one, width, out=np.zeros_like(width), where=is_divisor)
    per_width *= values.dtype.type(bins)
    places = values - low[:, None]
    places *= per_width[:, None]
    numbers = places.astype(np.int32)
    np.minimum(numbers, bins - 1, out=numbers)
    count = len(values)
    numbers += np.arange(0, count * bins, bins, dtype=np.int32)[:, None]
    return np.bincount(numbers.reshape(-1), minlength=count * bins).reshape(count, bins)
