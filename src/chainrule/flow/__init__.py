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
from chainrule.flow.optimizer import OptimizerFlow
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
from chainrule.flow.sharpness import Sharpness
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome

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
    "OptimizerFlow",
    "OptimizerTrial",
    "ParameterFlow",
    "Quantity",
    "RateTrial",
    "ResidualFlow",
    "Seed",
    "Sharpness",
    "Trial",
    "TrialOutcome",
    "WeightLayer",
    "decode_flow",
    "flow_adapter",
    "load_flow",
    "select_path",
]
