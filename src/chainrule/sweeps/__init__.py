"""Sweeps: many measurements, on one machine or on many, that go on where they stopped."""

from chainrule.sweeps.axes import Axis
from chainrule.sweeps.cells import FactoryCell, SpecCell, Training, list_axes
from chainrule.sweeps.grids import count_cells, make_factory_grid, make_grid, parse_axis
from chainrule.sweeps.mapping import phase_map
from chainrule.sweeps.phases import Agreement, PhaseCell, PhaseMap
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
from chainrule.sweeps.store import rescue_store

__all__ = [
    "Agreement",
    "Axis",
    "CellResult",
    "FactoryCell",
    "Foreseen",
    "Measured",
    "Outcome",
    "PhaseCell",
    "PhaseMap",
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
    "phase_map",
    "rescue_store",
    "run",
]
