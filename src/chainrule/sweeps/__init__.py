"""Sweeps: many measurements, on one machine or on many, that go on where they stopped."""

from chainrule.sweeps.cells import FactoryCell, SpecCell, Training, list_axes
from chainrule.sweeps.grids import count_cells, make_factory_grid, make_grid, parse_axis
from chainrule.sweeps.pools import connect_dask
from chainrule.sweeps.records import (
    CellResult,
    Foreseen,
    Measured,
    Outcome,
    Progress,
    Sweep,
    Trained,
)
from chainrule.sweeps.running import run

__all__ = [
    "CellResult",
    "FactoryCell",
    "Foreseen",
    "Measured",
    "Outcome",
    "Progress",
    "SpecCell",
    "Sweep",
    "Trained",
    "Training",
    "connect_dask",
    "count_cells",
    "list_axes",
    "make_factory_grid",
    "make_grid",
    "parse_axis",
    "run",
]
