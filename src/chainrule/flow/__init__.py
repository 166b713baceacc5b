"""One measurement, `GradientFlow`: its values, its file format, its modules by block."""

from chainrule.flow.gradient_flow import (
    RECORD_TYPES,
    SCHEMA_VERSION,
    GradientFlow,
    Seed,
    flow_adapter,
    select_path,
)
from chainrule.flow.inputs import InputFlow
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
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.precision import (
    FORMATS,
    Format,
    PrecisionFlow,
    PrecisionProbe,
    PrecisionTrial,
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
from chainrule.flow.sharpness import Sharpness
from chainrule.flow.slips import SlipFlow
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.flow.time import MAX_STEPS, TimeFlow
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome

__all__ = [
    "FORMATS",
    "MAX_STEPS",
    "RECORD_TYPES",
    "SCHEMA_VERSION",
    "ActivationStatistics",
    "AttentionFlow",
    "Factor",
    "Format",
    "GradientFlow",
    "GradientStatistics",
    "Histogram",
    "InputFlow",
    "LayerFlow",
    "LossFlow",
    "LossPart",
    "LossTerm",
    "NonFiniteElement",
    "NonFiniteOrigin",
    "OptimizerFlow",
    "OptimizerTrial",
    "ParameterFlow",
    "PrecisionFlow",
    "PrecisionProbe",
    "PrecisionTrial",
    "Quantity",
    "RateTrial",
    "ResidualFlow",
    "Seed",
    "Sharpness",
    "SlipFlow",
    "SymmetryFlow",
    "TermGradient",
    "TimeFlow",
    "Trial",
    "TrialOutcome",
    "WeightLayer",
    "decode_flow",
    "flow_adapter",
    "load_flow",
    "select_path",
]
