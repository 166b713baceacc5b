"""Small models of many kinds, with good and bad starts and known faults, each with a task.

`list_entries()` lists them all, and `Entry.build()` makes one. Each draws fresh batches from a
seeded stream, and says how wrong it is on a batch that was kept aside: 0 is as good as can be, 1 is
what guessing without a look at the input gives.

`truth.py` fits its score on the kinds in `FITTED`, and is judged on the others.
"""

import itertools
import random

from truth_models import densities, faults, images, sequences
from truth_models.family import FAMILIES, Batch, Entry, Problem

__all__ = ["FAMILIES", "FITTED", "JUDGED", "Batch", "Entry", "Problem", "list_entries"]

FITTED = ("convolutional", "residual", "autoencoder", "head", "loss")
JUDGED = ("recurrent", "attention", "flow", "generator", "set", "input", "precision")
SEED = 11

_MODULES = (images, sequences, densities, faults)
"""Each adds its families to `FAMILIES`."""


def list_entries() -> list[Entry]:
    """Return every model, in an order in which each part of the list holds all kinds."""
    ordered = []
    for each in FAMILIES.values():
        grid = [
            tuple(zip(each.grid, values, strict=True))
            for values in itertools.product(*each.grid.values())
        ]
        random.Random(f"{SEED} {each.name}").shuffle(grid)
        drawn = grid[: each.most]
        for position, parameters in enumerate(drawn):
            again = drawn[:position].count(parameters)
            seed = random.Random(f"{SEED} {each.name} {parameters} {again}").randrange(2**31)
            ordered.append(
                ((position + 0.5) / len(drawn), each.name, Entry(each, parameters, seed))
            )
    ordered.sort(key=lambda item: item[:2])
    return [entry for *_, entry in ordered]
