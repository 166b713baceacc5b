"""Statistics of tensors, computed where the tensors are and fetched in one transfer.

The functions take a list of same-shaped tensors, one per entry, each [members, *shape], or these
stacked as one, and give one value per entry and ensemble member, [entries, members]. Squares of
float32 overflow at 1e20 and underflow at 1e−23, so tensors beyond moderate size are divided by
their largest magnitude first.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from chainrule.flow.quantity import Quantity
from chainrule.flow.records import ActivationStatistics, GradientStatistics, Histogram
from chainrule.measure.host import Numbers, count_into_bins, share_below, share_zeros
from chainrule.spec.activations import (
    LEAKY_SLOPE,
    SATURATION_SHARE,
    SELU_ALPHA,
    SELU_SCALE,
    Activation,
)

HALF = (torch.float16, torch.bfloat16)
"""Formats of half precision, whose gradients may be too small for them."""

BINS = 40
"""Bins of an activation histogram."""

HISTOGRAM_ENTRIES = 4096
"""Entries that a histogram looks at; of larger tensors an evenly spaced sample."""

SMALL = 2**14
"""Tensors of up to this many entries are stacked, many in one operation."""

STACK = 2**22
"""Most entries in one stack."""

LARGE, SAMPLE = 2**16, 2**14
"""Of tensors with more than `LARGE` entries, zeros are counted in `SAMPLE` evenly spaced ones, and
saturation in evenly spaced rows with some `LARGE` entries together."""

UNITS = 8
"""Evenly spaced units of a weight of which one entry is compared."""

_BLOCK = 1024
MODERATE = (1e-15, 1e15)
"""Between these, squares of float32 neither overflow nor underflow."""

Table = dict[str, Tensor]
AnyTable = dict[str, Any]
"""A table, or the same as NumPy's arrays: numbers that are on the host already."""
Row = Mapping[str, list[Any]]


def summarize_values(tensors: Sequence[Tensor] | Tensor) -> Table:
    """Return the values of `ActivationStatistics` that need the values alone.

    Args:
        tensors: Each [members, examples, ...], real or complex (then magnitudes), any precision.

    Returns:
        Values of shape [entries, members]; those of histograms are [entries] and [entries, bins].
    """
    table = summarize_distribution(tensors)
    return table | count_bins(sample_entries(tensors), table["min"], table["max"])


def summarize_distribution(tensors: Sequence[Tensor] | Tensor) -> Table:
    """Return what `summarize_values` does, without the histograms."""
    return _reduce(_to_reals(tensors), _reduce_values, rescale=_find_largest)


def choose_step(entries: int, wanted: int) -> int:
    """Return the distance at which about `wanted` of so many entries are sampled.

    It shares no factor with their number, or it could fall into step with rows and see only some
    of the units.
    """
    step = max(1, -(-entries // wanted))
    while math.gcd(step, entries) > 1:
        step += 1
    return step


def sample_entries(tensors: Sequence[Tensor] | Tensor, step: int | None = None) -> Tensor:
    """Return evenly spaced entries of each tensor, [entries, sample].

    Args:
        tensors: Of one shape.
        step: Their distance; chosen by `HISTOGRAM_ENTRIES` if it is `None`.
    """
    if step is None:
        step = choose_step(_look_at(tensors)[0], HISTOGRAM_ENTRIES)
    if step == 1:
        stacked = tensors if isinstance(tensors, Tensor) else torch.stack(list(tensors))
        return to_real(stacked).flatten(1)
    if isinstance(tensors, Tensor):
        return to_real(tensors.flatten(1)[:, ::step])
    return to_real(torch.stack([tensor.flatten()[::step] for tensor in tensors]))


def count_bins(samples: Tensor, low: Tensor, high: Tensor) -> Table:
    """Return histogram counts of finite entries over a range shared by all members.

    Args:
        samples: [entries, sample].
        low: Smallest values, [entries, members].
        high: Largest values, [entries, members].
    """
    bin_low, bin_high = low.amin(-1).to(samples.dtype), high.amax(-1).to(samples.dtype)
    width = bin_high - bin_low
    if is_cheap_to_read(samples.device) and bool(torch.isfinite(width).all()):
        lows, widths = bin_low.detach().numpy(), width.detach().numpy()
        known = torch.from_numpy(count_into_bins(samples.detach(), lows, widths, BINS))
        return {"bin_low": bin_low, "bin_high": bin_high, "counts": known}
    finite = torch.isfinite(samples)
    samples = samples / 4  # so that the width of the range is finite up to the largest float
    lowest = torch.where(finite, samples, torch.inf).amin(-1)
    highest = torch.where(finite, samples, -torch.inf).amax(-1)
    bin_low = torch.where(torch.isfinite(bin_low), bin_low / 4, lowest)
    bin_high = torch.where(torch.isfinite(bin_high), bin_high / 4, highest)
    width = bin_high - bin_low
    per_width = torch.where(width > 0, BINS / width, 0.0)
    bins = ((samples - bin_low.unsqueeze(-1)) * per_width.unsqueeze(-1)).to(torch.int32)
    bins = bins.clamp_(0, BINS - 1).to(torch.int64)
    bins.masked_fill_(~finite, BINS)
    bin_low, bin_high = bin_low * 4, bin_high * 4
    counts = torch.zeros(len(samples), BINS + 1, device=samples.device, dtype=torch.int64)
    one = torch.ones((), dtype=torch.int64, device=samples.device)
    counts.scatter_add_(1, bins, one.expand_as(bins))
    return {"bin_low": bin_low, "bin_high": bin_high, "counts": counts[:, :BINS]}


def summarize_derivative(
    tensors: Sequence[Tensor] | Tensor, activation: Activation, module: object, unit_dim: int
) -> Table:
    """Return saturation and dead units from φ'(z), as autograd multiplies by it.

    Args:
        tensors: Pre-activations z, each [members, examples, ...].
        activation: The table's entry for φ.
        module: The module, whose attributes (slope, alpha, …) are used; anything without these
            attributes means the standard ones.
        unit_dim: Which dimension counts the units, the one of the members left out.

    Returns:
        "dead_units" and, if the parameters are the standard ones, "saturation".
    """
    derive = _DERIVATIVES[activation.name]
    one_sided = activation.derivative_range[0] >= 0
    limit = SATURATION_SHARE * activation.derivative_max
    standard = all(
        getattr(module, name, default) == default
        for name, default in activation.module_defaults.items()
    )

    def reduce(z: Tensor) -> Table:
        rows = _sample_rows(z, unit_dim)
        if rows is None:
            return reduce_all(z, unit_dim)
        table = reduce_all(rows, -1)
        if bool(table["dead_units"].any()):  # a unit that is off in the sample may be on elsewhere
            table["dead_units"] = reduce_all(z, unit_dim)["dead_units"]
        return table

    def reduce_all(z: Tensor, unit_dim: int) -> Table:
        derivative = derive(z, module)
        if not one_sided:
            derivative = derivative.abs()
        unit = unit_dim % (z.dim() - 2) + 2 if z.dim() > 2 else 2
        dims = [dim for dim in range(2, z.dim()) if dim != unit]
        largest = derivative.amax(dims) if dims else derivative
        table = {"dead_units": (largest == 0).sum(-1)}
        if standard and is_cheap_to_read(z.device) and math.isfinite(largest.sum().item()):
            table["saturation"] = torch.from_numpy(
                share_below(derivative.detach().flatten(2), limit)
            )
        elif standard:
            # The sign of the difference, not a comparison: bools are slow to average on a CPU.
            table["saturation"] = (limit - derivative).sign_().clamp_(min=0).flatten(2).mean(-1)
        return table

    return _reduce(_to_reals(tensors), reduce)


def _sample_rows(z: Tensor, unit_dim: int) -> Tensor | None:
    """Return spaced rows [entries, members, rows, units] of a large tensor with units last."""
    last = z.dim() > 3 and unit_dim % (z.dim() - 2) == z.dim() - 3
    if not last or z.numel() <= LARGE * z.shape[0] * z.shape[1] or not z.is_contiguous():
        return None
    rows = z.flatten(2, -2)
    return rows[:, :, :: choose_step(rows.shape[2], max(1, LARGE // z.shape[-1]))]


def summarize_gradients(tensors: Sequence[Tensor] | Tensor) -> Table:
    """Return the values of `GradientStatistics` of dense tensors, each [members, ...]."""
    table = _reduce(_to_reals(tensors), _reduce_gradients, rescale=_find_largest)
    if tensors[0].dtype in HALF:
        table["subnormal_share"] = measure_subnormal(tensors, torch.finfo(tensors[0].dtype).tiny)
    return table


def measure_subnormal(tensors: Sequence[Tensor] | Tensor, tiny: float) -> Tensor:
    """Return the share of entries that are below `tiny` and not zero, [entries, members].

    Args:
        tensors: Each [members, ...]. Of large ones evenly spaced entries are looked at.
        tiny: Smallest normal number of the format.
    """
    shares = []
    for tensor in tensors:
        flat = to_real(tensor).reshape(len(tensor), -1)
        if flat.shape[-1] > LARGE:
            flat = flat[:, :: choose_step(flat.shape[-1], SAMPLE)]
        size = flat.abs()
        shares.append(((size < tiny) & (size > 0)).to(size.dtype).mean(-1))
    return torch.nan_to_num(torch.stack(shares))  # of nothing, nothing


def summarize_sparse_gradient(tensor: Tensor) -> Table:
    """Return the values of `GradientStatistics` of one sparse tensor; repeated indices add up."""
    stored = tensor.coalesce().values()
    table = summarize_gradients([stored.unsqueeze(0)])
    stored_share = stored.numel() / max(1, tensor.numel())
    return table | {"zero_share": 1.0 - (1.0 - table["zero_share"]) * stored_share}


def summarize_parameters(tensors: Sequence[Tensor] | Tensor) -> Table:
    """Return "norm" and "non_finite" of parameters, each [members, ...]."""
    return _reduce(_to_reals(tensors), _reduce_parameters, rescale=_find_largest)


def summarize_weights(tensors: Sequence[Tensor] | Tensor) -> Table:
    """The same, and "first": one entry each of a few units, [entries, members, units].

    They cost next to nothing, and tell whether it is worth comparing units.
    """
    return _reduce(_to_reals(tensors), _reduce_weights, rescale=_find_largest)


def _reduce_weights(weights: Tensor) -> Table:
    table = _reduce_parameters(weights)
    if weights.dim() > 3 and weights.numel():
        table["first"] = take_first(weights).clone()  # tables are written to, weights never
    return table


def take_first(weights: Tensor) -> Tensor:
    """Return one entry each of a few units of [entries, members, units, ...], not copied."""
    size, stride = weights.shape, weights.stride()
    return weights.as_strided(
        (size[0], size[1], min(size[2], UNITS)),
        (stride[0], stride[1], stride[2] * max(1, size[2] // UNITS)),
    )


def is_cheap_to_read(device: torch.device) -> bool:
    """Whether reading a number costs nothing, so that it may be asked what is worth computing.

    On an accelerator a question waits until everything before it is computed. There the longer way
    is taken without asking.
    """
    return device.type == "cpu"


def to_real(tensor: Tensor) -> Tensor:
    """Return magnitudes of complex tensors, and half precision as float32."""
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _to_reals(tensors: Sequence[Tensor] | Tensor) -> Sequence[Tensor] | Tensor:
    return to_real(tensors) if isinstance(tensors, Tensor) else [to_real(each) for each in tensors]


def stack_alike(tensors: Sequence[Tensor]) -> Sequence[Tensor] | Tensor:
    """Return tensors of one shape as entries of one member each: small ones stacked, if not many.

    Args:
        tensors: Of one shape and type, on one device.
    """
    size = tensors[0].numel()
    if size <= SMALL and size * len(tensors) <= STACK:
        return torch.stack(tensors if isinstance(tensors, list) else list(tensors)).unsqueeze(1)
    return [tensor.unsqueeze(0) for tensor in tensors]


def gather_rows(tables: Sequence[AnyTable]) -> Callable[[], list[Row]]:
    """Return a function that returns tables as nested Python lists; the numbers are read now.

    To nest them takes longer, so it waits until somebody reads them.
    """
    count = len(tables)
    tensors: list[Table] = [{} for _ in range(count)]
    arrays: list[tuple[int, str, Numbers]] = []
    alike: dict[torch.dtype, list[tuple[int, str, Tensor]]] = {}
    is_cheap = True
    for at, table in enumerate(tables):
        for name, each in table.items():
            if isinstance(each, Tensor):
                is_cheap = is_cheap and is_cheap_to_read(each.device)
                tensors[at][name] = each
                alike.setdefault(each.dtype, []).append((at, name, each))
            else:
                arrays.append((at, name, each))
    fetched = [] if is_cheap else fetch_rows(tensors)
    read_out = [
        (
            torch.cat([tensor.reshape(-1) for _, _, tensor in group]).tolist(),
            [(at, name, tensor.shape) for at, name, tensor in group],
        )
        for group in alike.values()
        if is_cheap
    ]

    def read() -> list[Row]:
        found: list[dict[str, list[Any]]] = [dict(row) for row in fetched or [{}] * count]
        for flat, places in read_out:
            numbers = iter(flat)
            for at, name, shape in places:
                found[at][name] = _nest(numbers, shape)
        for at, name, array in arrays:
            found[at][name] = array.tolist()
        return [dict(row) for row in found]

    return read


def _nest(numbers: Iterator[Any], shape: Sequence[int]) -> Any:
    """Take the next numbers as lists in lists of a shape."""
    if not shape:
        return next(numbers)
    if len(shape) == 1:
        return list(islice(numbers, shape[0]))
    return [_nest(numbers, shape[1:]) for _ in range(shape[0])]


def fetch_rows(tables: Sequence[Table]) -> list[Row]:
    """Return tables as nested Python lists, with one transfer from the device for all of them."""
    if all(is_cheap_to_read(tensor.device) for table in tables for tensor in table.values()):
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


def read_activation(row: Mapping[str, Any], units: int) -> ActivationStatistics:
    """Return the statistics of one entry from its fetched row (each a list over members)."""

    def read(name: str) -> Quantity | None:
        return Quantity(row[name]) if name in row else None

    counts = tuple(row["counts"]) if "counts" in row else ()
    return ActivationStatistics(
        mean=Quantity(row["mean"]),
        std=Quantity(row["std"]),
        min=Quantity(row["min"]),
        max=Quantity(row["max"]),
        zero_share=Quantity(row["zero_share"]),
        non_finite=Quantity(row["non_finite"]),
        variation=read("variation"),
        saturation=read("saturation"),
        dead_units=read("dead_units"),
        units=units,
        histogram=Histogram(
            low=row["bin_low"], high=row["bin_high"], counts=counts, sampled=sum(counts)
        )
        if any(counts)
        else None,
    )


def read_gradient(row: Mapping[str, Any]) -> GradientStatistics:
    """Return the gradient statistics of one entry from its fetched row."""
    return GradientStatistics(
        norm=Quantity(row["norm"]),
        max_abs=Quantity(row["max_abs"]),
        zero_share=Quantity(row["zero_share"]),
        non_finite=Quantity(row["non_finite"]),
    )


_LENGTHS = {"mean", "std", "min", "max", "norm", "max_abs"}
"""Values that grow with the tensor, and so are multiplied back after a rescaling."""


def _reduce(
    tensors: Sequence[Tensor] | Tensor,
    reduce: Callable[[Tensor], Table],
    rescale: Callable[[Table], Tensor] | None = None,
) -> Table:
    """Return what `reduce` gives of [entries, members, ...] for all tensors together.

    Small tensors are stacked; large ones are taken one by one, which needs no copy and stays in the
    processor's cache. On a CPU, where a look costs nothing, entries of immoderate size are then
    found and done again rescaled; elsewhere everything is rescaled from the start.
    """
    size, dims, device = _look_at(tensors)
    if dims == 1:  # single numbers
        tensors = [tensor.unsqueeze(-1) for tensor in tensors]
    size = max(1, size)
    groups: Sequence[Tensor]
    if isinstance(tensors, Tensor) and tensors.numel() <= STACK:
        groups = [tensors]
    elif size <= SMALL:
        step = max(1, STACK // size)
        groups = [torch.stack(list(tensors[i : i + step])) for i in range(0, len(tensors), step)]
    else:
        groups = [tensor.unsqueeze(0) for tensor in tensors]
    reads = is_cheap_to_read(device)
    if rescale and not reads:
        parts = [_reduce_rescaled(group, reduce, rescale(reduce(group))) for group in groups]
    else:
        parts = [reduce(group) for group in groups]
    table = parts[0]
    if len(parts) > 1:
        table = {name: torch.cat([part[name] for part in parts]) for name in table}
    if rescale is None or not reads:
        return table
    largest = rescale(table)
    if _lies_between(largest, *MODERATE):
        return table
    moderate = (largest > MODERATE[0]) & (largest < MODERATE[1]) | (largest == 0)
    if not bool(moderate.all()):
        for entry in (~moderate).any(-1).nonzero().flatten().tolist():
            again = tensors[entry].unsqueeze(0)
            for name, value in _reduce_rescaled(again, reduce, largest[entry : entry + 1]).items():
                table[name][entry] = value[0]
    return table


def _look_at(tensors: Sequence[Tensor] | Tensor) -> tuple[int, int, torch.device]:
    """Return size, dimensions and device of each; to take one out of a stack takes longer."""
    if isinstance(tensors, Tensor):
        return tensors.numel() // max(1, len(tensors)), tensors.dim() - 1, tensors.device
    return tensors[0].numel(), tensors[0].dim(), tensors[0].device


def _reduce_rescaled(group: Tensor, reduce: Callable[[Tensor], Table], largest: Tensor) -> Table:
    # A member of moderate size is left as it is: its numbers must not depend on the others.
    beyond = (largest <= MODERATE[0]) | (largest >= MODERATE[1])
    scale = torch.where(beyond & torch.isfinite(largest) & (largest > 0), largest, 1.0)
    scale = scale.to(group.dtype)
    table = reduce(group / scale.view(*scale.shape, *[1] * (group.dim() - 2)))
    for name in _LENGTHS & table.keys():
        table[name] = table[name] * scale
    if "zero_share" in table and group.numel():  # dividing may round small entries to zero
        table["zero_share"] = _share_of_zeros(group.flatten(2))
    return table


def _lies_between(values: Tensor, low: float, high: float) -> bool:
    """Whether all values lie between two bounds; undefined ones do not."""
    smallest, largest = torch.aminmax(values)
    return low < smallest.item() and largest.item() < high


def _find_largest(table: Table) -> Tensor:
    if "max_abs" in table:
        return table["max_abs"]
    return torch.maximum(-table["min"], table["max"])


def _reduce_values(values: Tensor) -> Table:
    flat = values.flatten(2)
    low, high = find_extremes(flat)
    table = {"min": low, "max": high}
    if values.dim() > 2 and values.shape[2] > 1:
        within, between, whole, mean = measure_spreads(values)
        size = torch.hypot(within, whole)
        table["variation"] = torch.where(size > 0, within / size, torch.where(size == 0, 0.0, size))
        deviation = torch.hypot(within, between)
    else:
        mean, deviation = measure_deviation(flat)
    table["mean"] = mean
    table["std"] = deviation / flat.shape[-1] ** 0.5
    table["zero_share"] = _share_of_zeros(flat)
    table["non_finite"] = _count_non_finite(flat, mean)
    return table


def _reduce_gradients(gradients: Tensor) -> Table:
    flat = gradients.flatten(2)
    if flat.shape[-1] == 0:
        return _reduce_nothing(flat) | {"zero_share": torch.ones(flat.shape[:2]).to(flat)}
    low, high = find_extremes(flat)
    largest = torch.maximum(-low, high)
    return {
        "norm": compute_norm(flat),
        "max_abs": largest,
        "zero_share": _share_of_zeros(flat),
        "non_finite": _count_non_finite(flat, largest),
    }


def _reduce_parameters(parameters: Tensor) -> Table:
    flat = parameters.flatten(2)
    if flat.shape[-1] == 0:
        return _reduce_nothing(flat)
    low, high = find_extremes(flat)
    largest = torch.maximum(-low, high)
    return {
        "norm": compute_norm(flat),
        "max_abs": largest,
        "non_finite": _count_non_finite(flat, largest),
    }


def _reduce_nothing(flat: Tensor) -> Table:
    zeros = torch.zeros(flat.shape[:2]).to(flat)
    return {"norm": zeros, "max_abs": zeros, "non_finite": zeros}


def find_extremes(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest over the last dimension; NaN where there is one."""
    if flat.numel() == flat.shape[-1] and flat.numel() > LARGE:
        low, high = torch.aminmax(flat)  # one pass; with a dimension it is slower than two
        return low.view(flat.shape[:2]), high.view(flat.shape[:2])
    return flat.amin(-1), flat.amax(-1)


def compute_norm(flat: Tensor) -> Tensor:
    """Return the norm over the last dimension.

    Entries are squared in their own precision, in blocks short enough not to lose digits, and the
    blocks are added in float64 (where the device has it).
    """
    block = math.gcd(flat.shape[-1], _BLOCK)
    if block > 1:
        blocks = flat.reshape(*flat.shape[:-1], -1, block)
        flat = torch.linalg.vector_norm(blocks, dim=-1)
    return torch.linalg.vector_norm(flat, dim=-1, dtype=_widest(flat.device))


def measure_norm(tensor: Tensor) -> Tensor:
    """Return the norm of one real tensor of any size of values, in the widest format."""
    if is_cheap_to_read(tensor.device):
        norm = compute_norm(to_real(tensor).reshape(-1))
        if MODERATE[0] < norm.item() < MODERATE[1]:
            return norm
    return torch.linalg.vector_norm(tensor, dtype=_widest(tensor.device))


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def measure_deviation(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and the norm of the deviations from it, over the last dimension."""
    mean = flat.mean(-1)
    return mean, torch.linalg.vector_norm(flat - mean.unsqueeze(-1), dim=-1)


def measure_spreads(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return how values spread between and within examples, each [entries, members].

    The spread around the batch mean, and of the batch mean around the overall mean, are orthogonal:
    their squares add up to the whole.

    Args:
        values: [entries, members, examples, ...], more than one example.

    Returns:
        The norms of the deviations from the batch mean, of its deviations from the overall mean,
        and of the batch mean itself, the last two over all examples; the overall mean.
    """
    centre = values.mean(2, keepdim=True)
    within = _measure_spread(values, centre)
    centre = centre.flatten(2)
    mean, between = measure_deviation(centre)
    weight = values.shape[2] ** 0.5
    return within, between * weight, torch.linalg.vector_norm(centre, dim=-1) * weight, mean


def _measure_spread(values: Tensor, centre: Tensor) -> Tensor:
    """Return the norm of the deviations from the batch mean.

    Args:
        values: [entries, members, examples, ...].
        centre: Their mean over the examples, [entries, members, 1, ...].
    """
    if values.numel() > LARGE and is_cheap_to_read(values.device):
        # ‖x − c‖² = ‖x‖² − n‖c‖² needs no copy, and keeps its digits unless the two are close.
        whole = compute_norm(values.flatten(2)) ** 2
        mean = values.shape[2] * compute_norm(centre.flatten(2)) ** 2
        if bool((mean < 0.9 * whole).all()):
            return torch.sqrt(whole - mean).to(values.dtype)
    return torch.linalg.vector_norm((values - centre).flatten(2), dim=-1)


def _share_of_zeros(flat: Tensor) -> Tensor:
    flat = thin_out(flat)
    if is_cheap_to_read(flat.device):
        return torch.from_numpy(share_zeros(flat.detach()))
    return 1.0 - torch.linalg.vector_norm(flat, ord=0, dim=-1) / flat.shape[-1]


def thin_out(flat: Tensor) -> Tensor:
    """Return where zeros are counted: in all of a tensor, or in evenly spaced entries."""
    size = flat.shape[-1]
    return flat[..., :: choose_step(size, SAMPLE)] if size > LARGE else flat


def _count_non_finite(flat: Tensor, witness: Tensor) -> Tensor:
    """Count infinite and NaN entries; `witness` is a value that is finite if all entries are."""
    if is_cheap_to_read(flat.device) and math.isfinite(witness.sum().item()):
        return torch.zeros_like(witness)  # a sum is finite only if everything is
    return (~torch.isfinite(flat)).sum(-1).to(witness.dtype)


def _ones(z: Tensor) -> Tensor:
    return z.new_ones(()).expand_as(z)


_aten = torch.ops.aten

_DERIVATIVES: Mapping[str, Callable[[Tensor, object], Tensor]] = {
    # PyTorch's own backward kernels applied to ones: exactly the factors that autograd uses.
    "sigmoid": lambda z, _: _aten.sigmoid_backward(_ones(z), torch.sigmoid(z)),
    "tanh": lambda z, _: _aten.tanh_backward(_ones(z), torch.tanh(z)),
    "relu": lambda z, _: _aten.threshold_backward(_ones(z), z, 0),
    "leaky_relu": lambda z, module: _aten.leaky_relu_backward(
        _ones(z), z, getattr(module, "negative_slope", LEAKY_SLOPE), False
    ),
    "elu": lambda z, module: _aten.elu_backward(
        _ones(z), getattr(module, "alpha", 1.0), 1.0, 1.0, False, z
    ),
    "selu": lambda z, _: _aten.elu_backward(_ones(z), SELU_ALPHA, SELU_SCALE, 1.0, False, z),
    "gelu": lambda z, module: _aten.gelu_backward(
        _ones(z), z, approximate=getattr(module, "approximate", "none")
    ),
    "silu": lambda z, _: _aten.silu_backward(_ones(z), z),
    "identity": lambda z, _: _ones(z),
}
