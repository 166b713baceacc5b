"""What enters a model from outside: a sample at once, its statistics when they are first read."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from chainrule.flow.inputs import InputFlow
from chainrule.flow.quantity import Quantity

MAX_ENTERING = 16
"""Most tensors that are looked at."""

SAMPLE, EXAMPLES = 2**16, 256
"""Of tensors with more than `SAMPLE` entries, so many examples and entries are looked at."""


@dataclass(frozen=True, slots=True)
class Entering:
    """A sample of a tensor that enters the model.

    Attributes:
        reader: Name of the module that read it.
        source: The tensor without its graph, by which it is known again.
        shape: Its shape.
        dtype: Its data type.
        sample: Some of its values, [examples, columns, ...].
        is_part: Whether the module reads it joined to values that have a gradient.
    """

    reader: str
    source: Tensor
    shape: tuple[int, ...]
    dtype: str
    sample: Tensor
    is_part: bool = False

    def is_of(self, tensor: Tensor) -> bool:
        """Whether another tensor is the same, or another view of the same whole."""
        same = tensor.data_ptr() == self.source.data_ptr()
        return same and tensor.numel() == self.source.numel()


def take_entering(
    reader: str,
    module: nn.Module,
    unit_dim: int | None,
    tensor: Tensor,
    *,
    is_part: bool = False,
) -> Entering:
    """Return a sample of what a module reads; its examples first, then its columns.

    Args:
        reader: The module's name.
        module: The module.
        unit_dim: Where it counts its units, from the end, if its class says so.
        tensor: What it reads.
        is_part: Whether it reads it joined to values that have a gradient.
    """
    source = tensor.detach()
    values = source
    if isinstance(module, nn.RNNBase) and not module.batch_first and values.dim() == 3:
        values = values.transpose(0, 1)
    if values.dim() > 2:
        if unit_dim is None or -unit_dim >= values.dim():
            unit_dim = 1 if values.dim() > 3 else -1  # images by channel, sequences by feature
        values = values.movedim(unit_dim, 1)
    elif values.dim() == 1:
        values = values.unsqueeze(-1)
    if values.numel() > SAMPLE:
        values = _thin_out(values)
    return Entering(
        reader=reader,
        source=source,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        sample=values.clone(),  # what is read may be overwritten later
        is_part=is_part,
    )


def _thin_out(values: Tensor) -> Tensor:
    """Return evenly spaced examples, and of each evenly spaced columns and places."""
    left = SAMPLE
    for dim in range(values.dim()):
        wanted = EXAMPLES if dim == 0 else left
        if dim > 1:  # the places of an image are thinned out alike in both directions
            wanted = math.ceil(left ** (1 / (values.dim() - dim)))
        step = -(-values.shape[dim] // max(1, wanted))
        values = values[(slice(None),) * dim + (slice(None, None, step),)]
        left = max(1, left // values.shape[dim])
    return values


@dataclass(frozen=True, slots=True)
class Packed:
    """The numbers of a tensor without the tensor: a flow keeps none alive."""

    content: bytes
    dtype: torch.dtype
    shape: torch.Size

    def unpack(self) -> Tensor:
        """Return the tensor anew."""
        flat = torch.frombuffer(bytearray(self.content), dtype=self.dtype)
        return flat.reshape(self.shape)


def pack(sample: Tensor) -> Packed:
    """Return a sample's numbers."""
    values = sample.cpu().contiguous()
    content = ctypes.string_at(values.data_ptr(), values.numel() * values.element_size())
    return Packed(content, values.dtype, values.shape)


def assemble_inputs(
    entering: Sequence[tuple[str, tuple[int, ...], str, Packed, bool]],
) -> Iterator[InputFlow]:
    """Yield the statistics of samples.

    Args:
        entering: Reader, shape, data type and sample of each, and whether it is joined to more.
    """
    with torch.no_grad():
        for reader, shape, dtype, sample, is_part in entering:
            found = _assemble_input(reader, shape, dtype, sample.unpack().double())
            yield replace(found, is_part=is_part)


def _assemble_input(reader: str, shape: tuple[int, ...], dtype: str, values: Tensor) -> InputFlow:
    examples, columns = values.shape[:2]
    is_finite = torch.isfinite(values)
    finite = values[is_finite]
    low, high = finite.aminmax() if finite.numel() else (values.new_tensor(math.nan),) * 2
    by_column = values.transpose(0, 1).flatten(1)
    known = by_column[torch.isfinite(by_column).all(1)]
    means = known.mean(1)
    deviations = (known - means.unsqueeze(-1)).square().mean(1).sqrt()
    constant = known.amin(1) == known.amax(1)
    deviations = torch.where(constant, 0.0, deviations)  # rounding leaves something of a constant
    varying = deviations > 0
    some = examples > 1 and bool(varying.any())
    spreads, centers = deviations[varying], means[varying]
    distinct = len(torch.unique(values.flatten(1), dim=0))
    return InputFlow(
        reader=reader,
        shape=shape,
        dtype=dtype,
        examples=examples,
        columns=columns,
        mean=_write(finite.mean()),
        std=_write(finite.std(correction=0) if finite.numel() else low),
        min=_write(low),
        max=_write(high),
        non_finite=Quantity([1.0 - finite.numel() / values.numel()]),
        constant_columns=_count(constant & (means != 0), examples),
        zero_columns=_count(constant & (means == 0), examples),
        offset=_write(torch.linalg.vector_norm(centers) / torch.linalg.vector_norm(spreads))
        if some
        else None,
        spread_ratio=_write(spreads.max() / spreads.min()) if some else None,
        repeated=Quantity([1.0 - distinct / examples]),
        typical=_compare_examples(values),
    )


def _compare_examples(values: Tensor) -> Quantity | None:
    """Return the size of the median example ÷ the size of all; zero ones do not count."""
    sizes = values.flatten(1).square().mean(1)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2 or not bool(sizes.isfinite().all()):
        return None
    return _write((sizes.median() / sizes.mean()).sqrt())


def _count(found: Tensor, examples: int) -> Quantity:
    return Quantity([float(found.sum()) if examples > 1 else 0.0])


def _write(value: Tensor) -> Quantity:
    return Quantity([value.item()])
