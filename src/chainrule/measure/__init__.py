"""A module or a specification goes in, a measured `GradientFlow` comes out."""

from chainrule.measure.inspection import (
    inspect,
)
from chainrule.measure.networks import (
    build_network,
    draw_batch,
    make_loss,
)
from chainrule.measure.sharpness import (
    measure_sharpness,
)
from chainrule.measure.simulation import (
    simulate,
)

__all__ = [
    "build_network",
    "draw_batch",
    "inspect",
    "make_loss",
    "measure_sharpness",
    "simulate",
]
