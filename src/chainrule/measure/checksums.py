"""Telling whether the values of parameters changed, also where PyTorch does not count it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from chainrule.measure._torch_internals import join_flat, read_version

COPIED = 1_000_000
"""Most numbers in all parameters together up to which a copy is kept, to undo changes."""

_PLAIN = (Tensor, nn.Parameter)
"""Tensors that are what they look like: a parameter of another class is of that class."""

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class ParameterWatch:
    """The values of parameters at one moment, to be compared with later ones and put back.

    PyTorch counts changes in place, but none through `.data`. Of small models the values are
    therefore copied; of larger ones their bits are added up as 64-bit whole numbers, which reads
    every value once and notices any that changes alone. (Changes that cancel each other, such as
    an exchange of two values, go unnoticed there.) A tensor put in the place of a parameter's own
    by `parameter.data = ...` is seen by its address; the old one is kept and can be put back.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        """Note the values of parameters, in this order."""
        self.parameters = parameters
        self.versions = [read_version(tensor) for tensor in parameters]
        self.held = [tensor.detach() if is_plain(tensor) else None for tensor in parameters]
        watched = [held for held in self.held if held is not None]
        self.has_copies = sum(held.numel() for held in watched) <= COPIED
        self.copies = self._copy() if self.has_copies else []
        self.sums = [] if self.has_copies else sum_bits(watched)

    def put_back(self, failures: dict[int, Exception]) -> tuple[int, ...]:
        """Give parameters their tensors and, of small models, their values.

        Args:
            failures: Receives, by position, why one could not be put back.

        Returns:
            The positions of parameters whose values were changed in place.
        """
        for at, (tensor, held) in enumerate(zip(self.parameters, self.held, strict=True)):
            try:
                if held is not None:
                    put_memory_back(tensor, held)
            except Exception as error:
                failures[at] = error
        changed = {
            at
            for at, tensor in enumerate(self.parameters)
            if read_version(tensor) != self.versions[at]
        }
        if self.has_copies:
            for places, copied in self.copies:
                changed |= self._put_values_back(places, copied, failures)
        else:
            places = [at for at, held in enumerate(self.held) if held is not None]
            now = sum_bits([held for held in self.held if held is not None])
            changed |= {at for at, a, b in zip(places, self.sums, now, strict=True) if a != b}
        return tuple(sorted(changed))

    def _copy(self) -> list[tuple[list[int], Tensor]]:
        """Return a copy of all values of one type, one after another, with their places."""
        alike: dict[tuple[torch.dtype, torch.device], list[int]] = {}
        for at, held in enumerate(self.held):
            if held is not None:
                alike.setdefault((held.dtype, held.device), []).append(at)
        return [(places, self._join(places)) for places in alike.values()]

    def _join(self, places: Sequence[int]) -> Tensor:
        return join_flat([held for at in places if (held := self.held[at]) is not None])

    def _put_values_back(
        self, places: Sequence[int], copied: Tensor, failures: dict[int, Exception]
    ) -> set[int]:
        """Undo what changed of some parameters; return the places of these."""
        try:
            if _has_same_bits(self._join(places), copied):
                return set()
        except Exception:  # one of them cannot be read: look at each by itself
            pass
        changed = set()
        helds = [(at, held) for at in places if (held := self.held[at]) is not None]
        parts = copied.split([held.numel() for _, held in helds])
        for (at, held), part in zip(helds, parts, strict=True):
            try:
                before = part.view(held.shape)
                if not _has_same_bits(held, before):
                    changed.add(at)
                    held.data.copy_(before)
            except Exception as error:
                failures[at] = error
        return changed


def sum_bits(tensors: Sequence[Tensor]) -> list[int]:
    """Return for each tensor the sum of its bits, read as whole numbers, modulo 2⁶⁴.

    One transfer from each device.
    """
    sums = [_sum_bits(tensor) for tensor in tensors]
    found: dict[int, int] = {}
    for device in {each.device for each in sums}:
        places = [at for at, each in enumerate(sums) if each.device == device]
        values = torch.stack([sums[at] for at in places]).tolist()
        found.update(zip(places, values, strict=True))
    return [found[at] for at in range(len(sums))]


def _sum_bits(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().reshape(-1)
    size = flat.element_size()
    whole = flat.numel() * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    return flat.view(torch.int64 if whole else torch.uint8).sum(dtype=torch.int64)


def _has_same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(_read_bits(one), _read_bits(other))


def _read_bits(tensor: Tensor) -> Tensor:
    """Return a tensor's values as whole numbers: undefined numbers then equal themselves."""
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return plain.view(_WHOLE[plain.element_size()])


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has memory of its own that can be read: sparse and meta tensors have not."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_meta
        and not tensor.is_quantized
        and (type(tensor) in _PLAIN or type(tensor.data) is Tensor)
    )


def put_memory_back(tensor: Tensor, held: Tensor) -> None:
    """Let a tensor lie where another one lies, in the same shape, unless it does."""
    if not _is_same_memory(tensor, held):
        tensor.data = held


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
    )
