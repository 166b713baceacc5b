"""A module or a specification goes in, a measured `GradientFlow` comes out."""

from chainrule.measure.inspection import (
    inspect,
)
from chainrule.measure.loss_scale import (
    probe_precision,
)
from chainrule.measure.networks import (
    build_network,
    draw_batch,
    make_loss,
)
from chainrule.measure.non_finite import (
    find_non_finite,
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
    "find_non_finite",
    "inspect",
    "make_loss",
    "measure_sharpness",
    "probe_precision",
    "simulate",
]
