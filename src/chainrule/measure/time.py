"""Where time lies in a sequence, and the size of its gradient at each step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chainrule.flow.time import MAX_STEPS
from chainrule.measure.autograd_graph import Edge


@dataclass(slots=True, eq=False)
class Scan:
    """A loop over time.

    Attributes:
        name: The module that made the sequence, or that owns the weights.
        kind: Its class.
        marks: What the graph holds of each step, the first step first.
        edges: Recorded edges of those that are kept.
        source: Recorded edge of the sequence, if a module returned it.
        dim: Its dimension of time.
        places: Which part of it each step reads.
        read: What the products read at each step.
        state: Recorded edge of the state that is joined with the data before the product.
        data_first: Whether the data come first there.
    """

    name: str
    kind: str
    marks: list[Edge]
    edges: tuple[int, ...] = ()
    source: int | None = None
    dim: int = 0
    places: tuple[int, ...] = ()
    read: tuple[Tensor, ...] = ()
    state: int | None = None
    data_first: bool = True


def find_time_dim(module: nn.Module, sequence: Tensor) -> int:
    """Return which dimension of a recurrent module's sequence is time."""
    return 1 if sequence.dim() == 3 and getattr(module, "batch_first", False) else 0


def choose_steps(length: int) -> list[int]:
    """Return the steps that are kept: all, or evenly spaced ones with the first and the last."""
    if length <= MAX_STEPS:
        return list(range(length))
    return [round(at * (length - 1) / (MAX_STEPS - 1)) for at in range(MAX_STEPS)]


def measure_steps(gradient: Tensor, time_dim: int) -> Tensor:
    """Return the norms of a sequence's gradient at the steps that are kept, [steps]."""
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    steps = torch.tensor(choose_steps(gradient.shape[time_dim]), device=gradient.device)
    kept = gradient.index_select(time_dim, steps).movedim(time_dim, 0).flatten(1)
    # Squares of what is left after a hundred steps are below the smallest float32.
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    return torch.linalg.vector_norm(kept.to(wide), dim=1)
