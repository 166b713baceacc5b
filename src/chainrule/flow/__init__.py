"""One measurement, `GradientFlow`: its values, its file format, its modules by block."""

from chainrule.flow.gradient_flow import (
    RECORD_TYPES,
    SCHEMA_VERSION,
    GradientFlow,
    Seed,
    flow_adapter,
    select_path,
)
from chainrule.flow.loading import (
    decode_flow,
    load_flow,
)
from chainrule.flow.loss import (
    LossFlow,
    LossPart,
    LossTerm,
    TermGradient,
)
from chainrule.flow.non_finite import (
    NonFiniteElement,
    NonFiniteOrigin,
)
from chainrule.flow.quantity import (
    Quantity,
)
from chainrule.flow.records import (
    ActivationStatistics,
    AttentionFlow,
    Factor,
    GradientStatistics,
    Histogram,
    LayerFlow,
    ParameterFlow,
    ResidualFlow,
    WeightLayer,
)

__all__ = [
    "RECORD_TYPES",
    "SCHEMA_VERSION",
    "ActivationStatistics",
    "AttentionFlow",
    "Factor",
    "GradientFlow",
    "GradientStatistics",
    "Histogram",
    "LayerFlow",
    "LossFlow",
    "LossPart",
    "LossTerm",
    "NonFiniteElement",
    "NonFiniteOrigin",
    "ParameterFlow",
    "Quantity",
    "ResidualFlow",
    "Seed",
    "TermGradient",
    "WeightLayer",
    "decode_flow",
    "flow_adapter",
    "load_flow",
    "select_path",
]
