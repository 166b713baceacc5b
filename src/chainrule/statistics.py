"""Statistics of tensors, computed where the tensors are and fetched in one transfer.

All functions take a stack of same-shaped tensors, [entries, members, *shape], and give one figure
per entry and ensemble member, [entries, members]. Values are rescaled by their largest magnitude
first (or summed in float64), so that squares neither overflow at 1e20 nor underflow at 1e−25.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from chainrule.activations import SATURATION_SHARE, Activation
from chainrule.measurement import ActivationStatistics, GradientStatistics, Histogram
from chainrule.quantity import Quantity

BINS = 40
"""Bins of an activation histogram."""

HISTOGRAM_ENTRIES = 8192
"""Entries that a histogram looks at; of larger tensors an evenly spaced sample."""

SMALL = 2**16
"""Tensors of up to this many entries are summarized together, many in one operation."""

_BLOCK = 1024
_MODERATE = (1e-15, 1e15)
"""Between these, squares of float32 neither overflow nor underflow."""

Table = dict[str, Tensor]
Row = Mapping[str, list[Any]]


def summarize_values(values: Tensor) -> Table:
    """Return the figures of `ActivationStatistics` that need the values alone.

    Args:
        values: [entries, members, examples, ...], real or complex (then magnitudes), any precision.

    Returns:
        Tables of shape [entries, members]; the histogram's are [entries] and [entries, bins].
    """
    values = to_real(values)
    flat = values.flatten(2)
    low, high = flat.amin(-1), flat.amax(-1)
    scaled, scale = _rescale(flat, torch.maximum(-low, high))
    mean = scaled.mean(-1)
    table = {
        "mean": mean,
        "std": torch.linalg.vector_norm(scaled - mean.unsqueeze(-1), dim=-1)
        / flat.shape[-1] ** 0.5,
        "min": low,
        "max": high,
        "zero_share": _share_of_zeros(flat, flat.abs().amin(-1)),
        "non_finite": _count_non_finite(flat, mean),
    }
    if values.dim() > 2 and values.shape[2] > 1:
        examples = scaled.unflatten(-1, (values.shape[2], -1))
        deviations = examples - examples.mean(2, keepdim=True)
        size = torch.linalg.vector_norm(scaled, dim=-1)
        spread = torch.linalg.vector_norm(deviations, dim=(2, 3))
        table["variation"] = torch.where(size > 0, spread / size, 0.0)
    if scale is not None:
        table["mean"], table["std"] = mean * scale, table["std"] * scale
    return table | _count_bins(flat, low, high)


def summarize_derivative(
    activation: Activation, module: object, pre_activation: Tensor, unit_dim: int
) -> Table:
    """Return saturation and dead units from φ'(z), as autograd multiplies by it.

    Args:
        activation: The table's entry for φ.
        module: The module, whose attributes (slope, alpha, …) are used; anything without these
            attributes means the standard ones.
        pre_activation: z, [entries, members, examples, ...].
        unit_dim: Which dimension of z counts the units.

    Returns:
        Table with "dead_units" and, if the parameters are the standard ones, "saturation".
    """
    derivative = _DERIVATIVES[activation.name](to_real(pre_activation), module).abs()
    dims = [dim for dim in range(2, derivative.dim()) if dim != unit_dim % derivative.dim()]
    largest = derivative.amax(dims) if dims else derivative
    table = {"dead_units": (largest == 0).sum(-1)}
    standard = all(
        getattr(module, name, default) == default
        for name, default in activation.module_defaults.items()
    )
    if standard:
        limit = SATURATION_SHARE * activation.derivative_max
        # The sign of the difference instead of a comparison: bools are slow to average on a CPU.
        table["saturation"] = (limit - derivative.flatten(2)).sign_().clamp_(min=0).mean(-1)
    return table


def summarize_gradients(gradients: Tensor, entries: int | None = None) -> Table:
    """Return the figures of `GradientStatistics`.

    Args:
        gradients: [entries, members, ...].
        entries: Size of the dense tensor of which these are the stored entries, for sparse ones.
    """
    flat = to_real(gradients).flatten(2)
    if flat.shape[-1] == 0:
        zeros = torch.zeros(flat.shape[:2], device=flat.device)
        return dict.fromkeys(("norm", "max_abs", "non_finite"), zeros) | {"zero_share": zeros + 1}
    magnitudes = flat.abs()
    largest = magnitudes.amax(-1)
    stored_share = flat.shape[-1] / entries if entries else 1.0
    zero_share = _share_of_zeros(magnitudes, magnitudes.amin(-1))
    return {
        "norm": _compute_norm(flat, largest),
        "max_abs": largest,
        "zero_share": 1.0 - (1.0 - zero_share) * stored_share,
        "non_finite": _count_non_finite(flat, largest),
    }


def summarize_parameters(parameters: Tensor) -> Table:
    """Return "norm" and "non_finite" of a stack of parameters, [entries, members, ...]."""
    flat = to_real(parameters).flatten(2)
    if flat.shape[-1] == 0:
        zeros = torch.zeros(flat.shape[:2], device=flat.device)
        return {"norm": zeros, "non_finite": zeros}
    norm = _compute_norm(flat, flat.abs().amax(-1))
    return {"norm": norm, "non_finite": _count_non_finite(flat, norm)}


def to_real(tensor: Tensor) -> Tensor:
    """Return magnitudes of complex tensors, and half precision as float32."""
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def fetch_rows(tables: Sequence[Table]) -> list[Row]:
    """Return tables as nested Python lists, with one transfer from the device for all of them."""
    if all(tensor.device.type == "cpu" for table in tables for tensor in table.values()):
        return [{name: tensor.tolist() for name, tensor in table.items()} for table in tables]
    by_device: dict[torch.device, list[tuple[int, str, Tensor]]] = {}
    for index, table in enumerate(tables):
        for name, tensor in table.items():
            by_device.setdefault(tensor.device, []).append((index, name, tensor))
    rows: list[dict[str, list[Any]]] = [{} for _ in tables]
    for device, entries in by_device.items():
        joined = torch.cat([t.to(_widest(device)).flatten() for _, _, t in entries]).cpu()
        parts = joined.split([tensor.numel() for _, _, tensor in entries])
        for (index, name, tensor), part in zip(entries, parts, strict=True):
            rows[index][name] = part.reshape(tensor.shape).tolist()
    return [dict(row) for row in rows]


def read_activation(figures: Mapping[str, Any], units: int) -> ActivationStatistics:
    """Return the statistics of one entry from its fetched figures (each a list over members)."""

    def read(name: str) -> Quantity | None:
        return Quantity(figures[name]) if name in figures else None

    counts = tuple(map(int, figures["counts"]))
    return ActivationStatistics(
        mean=Quantity(figures["mean"]),
        std=Quantity(figures["std"]),
        min=Quantity(figures["min"]),
        max=Quantity(figures["max"]),
        zero_share=Quantity(figures["zero_share"]),
        non_finite=Quantity(figures["non_finite"]),
        variation=read("variation"),
        saturation=read("saturation"),
        dead_units=read("dead_units"),
        units=units,
        histogram=Histogram(
            low=figures["bin_low"], high=figures["bin_high"], counts=counts, sampled=sum(counts)
        )
        if any(counts)
        else None,
    )


def read_gradient(figures: Mapping[str, Any]) -> GradientStatistics:
    """Return the gradient statistics of one entry from its fetched figures."""
    return GradientStatistics(
        norm=Quantity(figures["norm"]),
        max_abs=Quantity(figures["max_abs"]),
        zero_share=Quantity(figures["zero_share"]),
        non_finite=Quantity(figures["non_finite"]),
    )


def _share_of_zeros(flat: Tensor, smallest: Tensor) -> Tensor:
    """Return the share of exact zeros, given a lower bound of the magnitudes (or less)."""
    if flat.device.type == "cpu" and bool((smallest > 0).all()):
        return torch.zeros_like(smallest)
    return 1.0 - torch.linalg.vector_norm(flat, ord=0, dim=-1) / flat.shape[-1]


def _rescale(flat: Tensor, largest: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return tensors whose squares neither overflow nor underflow, and what they were divided by.

    On a CPU, where a look costs nothing, tensors that need no scale stay as they are (`None`).
    """
    if flat.device.type == "cpu":
        moderate = ((largest > _MODERATE[0]) & (largest < _MODERATE[1])) | (largest == 0)
        if bool(moderate.all()):
            return flat, None
    scale = torch.where(torch.isfinite(largest) & (largest > 0), largest, 1.0)
    return flat / scale.unsqueeze(-1), scale


def _count_non_finite(flat: Tensor, witness: Tensor) -> Tensor:
    """Count infinite and NaN entries; `witness` is a figure that is finite if all entries are."""
    if flat.device.type == "cpu" and bool(torch.isfinite(witness).all()):
        return torch.zeros_like(witness)
    return (~torch.isfinite(flat)).sum(-1)


def _compute_norm(flat: Tensor, largest: Tensor) -> Tensor:
    """Return the norm over the last dimension, given the largest magnitudes there.

    Entries are squared in their own precision, in blocks short enough not to lose digits, and the
    blocks are added in float64 (where the device has it).
    """
    flat, scale = _rescale(flat, largest)
    block = math.gcd(flat.shape[-1], _BLOCK)
    if block > 1:
        flat = torch.linalg.vector_norm(flat.unflatten(-1, (-1, block)), dim=-1)
    norm = torch.linalg.vector_norm(flat, dim=-1, dtype=_widest(flat.device))
    return norm if scale is None else norm * scale


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _count_bins(flat: Tensor, low: Tensor, high: Tensor) -> Table:
    """Return histogram counts of finite entries over a range shared by all members."""
    entries, members, size = flat.shape
    step = max(1, -(-size * members // HISTOGRAM_ENTRIES))
    sample = (flat[..., ::step] if step > 1 else flat).reshape(entries, -1)
    bin_low, bin_high = low.amin(-1), high.amax(-1)
    finite = None
    width = bin_high - bin_low
    if flat.device.type != "cpu" or not bool(torch.isfinite(width).all()):
        finite = torch.isfinite(sample)
        sample = sample / 4  # so that the width of the range is finite up to the largest float
        bin_low = torch.where(finite, sample, torch.inf).amin(-1)
        bin_high = torch.where(finite, sample, -torch.inf).amax(-1)
        width = bin_high - bin_low
    per_width = torch.where(width > 0, BINS / width, 0.0)
    bins = ((sample - bin_low.unsqueeze(-1)) * per_width.unsqueeze(-1)).to(torch.int32)
    bins = bins.clamp_(0, BINS - 1).to(torch.int64)
    if finite is not None:
        bins.masked_fill_(~finite, BINS)
        bin_low, bin_high = bin_low * 4, bin_high * 4
    counts = torch.zeros(entries, BINS + 1, device=flat.device, dtype=torch.int64)
    counts.scatter_add_(
        1, bins, torch.ones((), dtype=torch.int64, device=flat.device).expand_as(bins)
    )
    return {"bin_low": bin_low, "bin_high": bin_high, "counts": counts[:, :BINS]}


_aten = torch.ops.aten

_DERIVATIVES: Mapping[str, Callable[[Tensor, object], Tensor]] = {
    # PyTorch's own backward kernels applied to ones: exactly the factors that autograd uses.
    "sigmoid": lambda z, _: _aten.sigmoid_backward(torch.ones_like(z), torch.sigmoid(z)),
    "tanh": lambda z, _: _aten.tanh_backward(torch.ones_like(z), torch.tanh(z)),
    "relu": lambda z, _: _aten.threshold_backward(torch.ones_like(z), z, 0),
    "leaky_relu": lambda z, module: _aten.leaky_relu_backward(
        torch.ones_like(z), z, getattr(module, "negative_slope", 0.01), False
    ),
    "elu": lambda z, module: _aten.elu_backward(
        torch.ones_like(z), getattr(module, "alpha", 1.0), 1.0, 1.0, False, z
    ),
    "selu": lambda z, _: _aten.elu_backward(
        torch.ones_like(z), 1.6732632423543772, 1.0507009873554805, 1.0, False, z
    ),
    "gelu": lambda z, module: _aten.gelu_backward(
        torch.ones_like(z), z, approximate=getattr(module, "approximate", "none")
    ),
    "silu": lambda z, _: _aten.silu_backward(torch.ones_like(z), z),
    "identity": lambda z, _: torch.ones_like(z),
}
