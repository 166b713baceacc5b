"""See, explain and fix gradient flow in deep networks.

Numbers come from real PyTorch autograd. Start with `inspect` for your own model, or with
`NetworkSpec` and `simulate` for a network described by a few settings.
"""

from chainrule.chain import ScalarChain
from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.rules import Verdict
from chainrule.errors import ChainruleError
from chainrule.figures.plotting import plot
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loading import load_flow
from chainrule.measure.inspection import inspect
from chainrule.measure.networks import build_network, make_loss
from chainrule.measure.simulation import simulate
from chainrule.presets import PRESETS
from chainrule.remedies.model_search import apply_remedy
from chainrule.remedies.result import Remedy
from chainrule.remedies.spec_search import find_remedies
from chainrule.report import write_report
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "PRESETS",
    "ChainruleError",
    "Diagnosis",
    "GradientFlow",
    "NetworkSpec",
    "Remedy",
    "ScalarChain",
    "Verdict",
    "apply_remedy",
    "build_network",
    "diagnose",
    "find_remedies",
    "inspect",
    "load_flow",
    "make_loss",
    "plot",
    "simulate",
    "write_report",
]
