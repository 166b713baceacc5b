"""Reading tensors of any kind: whether they are finite, and which of their elements are not."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from chainrule.flow.non_finite import SHOWN, NonFiniteElement
from chainrule.flow.quantity import Quantity
from chainrule.measure.results import flatten_nested

Number = Literal["nan", "inf", "-inf"]


def read_plain(tensor: Tensor) -> Tensor | None:
    """Return the real numbers that a tensor holds here, as a plain tensor; `None` if it has none.

    Of a distributed tensor that is this process's part, of a sparse one what is not zero.
    """
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    plain = tensor.detach()
    if hasattr(plain, "to_local"):
        plain = plain.to_local()
    plain = flatten_nested(plain)
    if plain.is_sparse:
        plain = plain._values()
    elif plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    return plain if plain.numel() else None


def is_finite(values: Tensor) -> bool:
    """Whether all numbers of a tensor are finite; its largest and smallest tell."""
    try:
        low, high = torch.aminmax(values)
    except (RuntimeError, NotImplementedError):  # eight-bit numbers
        low, high = torch.aminmax(values.float())
    return math.isfinite(float(low)) and math.isfinite(float(high))


def has_nan(values: Tensor) -> bool:
    """Whether a number of a tensor is undefined."""
    return bool(values.isnan().any())


def has_infinity(values: Tensor) -> bool:
    """Whether a number of a tensor is plus infinity."""
    return bool(values.isposinf().any())


def name_number(values: Tensor) -> Number:
    """Return the kind of number that a tensor holds and should not."""
    return "nan" if has_nan(values) else "inf" if has_infinity(values) else "-inf"


def find_memory(tensor: Tensor) -> int | None:
    """Return where the memory begins that a tensor lies in; `None` if unknown."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):  # a kind of tensor that has none
        return None


def mark_elements(output: Tensor, bad: Tensor | None = None) -> Tensor:
    """Return which elements of a tensor are meant: those that are `bad`, or else not finite.

    Where some are undefined, only these: minus infinity beside them may be a mask.
    """
    if bad is not None:
        return bad
    nan = output.isnan()
    return nan if bool(nan.any()) else ~output.isfinite()


def describe_elements(
    output: Tensor,
    values: Sequence[Tensor | float],
    *,
    bad: Tensor | None = None,
    incoming: Sequence[Tensor] = (),
    results: Sequence[Tensor | float] = (),
    mixes: bool = False,
) -> tuple[NonFiniteElement, ...]:
    """Return the first bad elements of a tensor, and what went in at the same places.

    Where there is both, undefined numbers are shown rather than infinite ones: these may have been
    there before.

    Args:
        output: The tensor that is not finite.
        values: What went in.
        bad: Which elements are meant.
        incoming: Gradients that came in.
        results: What came out in the forward pass, if that is all that is known of it.
        mixes: Whether elements of other places count, too.
    """
    marks = mark_elements(output, bad).flatten().clone()
    shape = tuple(output.shape)
    elements = []
    for _ in range(min(SHOWN, int(marks.sum()))):
        position = int(marks.to(torch.uint8).argmax())
        marks[position] = False
        index = _unravel(position, shape)
        given = [_read_at(each, index, shape, mixes=mixes) for each in values[:8]]
        made = [_read_at(each, index, shape, mixes=mixes) for each in results[:8]]
        gradients = [_read_at(each, index, shape) for each in incoming]
        arrived = next((each for each in gradients if each is not None), None)
        elements.append(
            NonFiniteElement(
                index=index,
                value=Quantity([float(output[index])]),
                inputs=tuple(Quantity([number]) for number in given if number is not None),
                gradient=None if arrived is None else Quantity([arrived]),
                results=tuple(Quantity([number]) for number in made if number is not None),
            )
        )
    return tuple(elements)


def _read_at(
    values: Tensor | float, index: tuple[int, ...], shape: tuple[int, ...], *, mixes: bool = False
) -> float | None:
    """Return the number at a place; where places do not correspond, the one of largest size."""
    if not isinstance(values, Tensor):
        return float(values)
    try:
        if not mixes or tuple(values.shape) == shape:
            return float(values.expand(shape)[index])
    except RuntimeError:  # it has another shape
        pass
    flat = values.flatten()
    return float(flat[flat.abs().float().argmax()])


def _unravel(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        position, rest = divmod(position, size)
        index.append(rest)
    return tuple(reversed(index))
