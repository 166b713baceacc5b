"""Networks described by a few settings, and the tables of activations and initializations."""

from chainrule.spec.activations import (
    ACTIVATIONS,
    Activation,
    get_activation,
)
from chainrule.spec.initializers import (
    INITIALIZERS,
    Distribution,
    Initializer,
    get_initializer,
)
from chainrule.spec.network_spec import (
    FIELD_NAMES,
    MAX_BATCH_SIZE,
    MAX_DEPTH,
    MAX_SEED,
    MAX_WIDTH,
    Dtype,
    NetworkSpec,
    Normalization,
    Residual,
)
from chainrule.spec.query import MAX_QUERY, repair_query

__all__ = [
    "ACTIVATIONS",
    "FIELD_NAMES",
    "INITIALIZERS",
    "MAX_BATCH_SIZE",
    "MAX_DEPTH",
    "MAX_QUERY",
    "MAX_SEED",
    "MAX_WIDTH",
    "Activation",
    "Distribution",
    "Dtype",
    "Initializer",
    "NetworkSpec",
    "Normalization",
    "Residual",
    "get_activation",
    "get_initializer",
    "repair_query",
]
