"""See, explain and fix gradient flow in deep networks.

Numbers come from real PyTorch autograd. Start with `inspect` for your own model, or with
`NetworkSpec` and `simulate` for a network described by a few settings.
"""

from chainrule.activations import ACTIVATIONS
from chainrule.chain import ScalarChain
from chainrule.diagnoses import Verdict
from chainrule.diagnosis import Diagnosis, diagnose
from chainrule.errors import ChainruleError
from chainrule.flow import GradientFlow
from chainrule.flow_file import load_flow
from chainrule.initializers import INITIALIZERS
from chainrule.inspection import inspect
from chainrule.model_remedies import apply_remedy
from chainrule.networks import build_network, make_loss
from chainrule.plotting import plot
from chainrule.presets import PRESETS
from chainrule.remedies import find_remedies
from chainrule.remedy import Remedy
from chainrule.report import write_report
from chainrule.simulation import simulate
from chainrule.spec import NetworkSpec

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
