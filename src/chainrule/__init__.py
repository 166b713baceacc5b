"""See, explain and fix gradient flow in deep networks.

Numbers come from real PyTorch autograd. Start with `inspect` for your own model, or with
`NetworkSpec` and `simulate` for a network described by a few settings.

Importing the package loads next to nothing: a name is imported from its module when it is first
used, and PyTorch with the first name that measures.

Example:
    >>> import chainrule
    >>> chainrule.ScalarChain(x=1.0, weights=[0.5, -2.0]).depth
    2
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chainrule import chain as chain
    from chainrule import diagnosis as diagnosis
    from chainrule import display as display
    from chainrule import errors as errors
    from chainrule import figures as figures
    from chainrule import flow as flow
    from chainrule import measure as measure
    from chainrule import presets as presets
    from chainrule import remedies as remedies
    from chainrule import report as report
    from chainrule import spec as spec
    from chainrule import sweeps as sweeps
    from chainrule import testing as testing
    from chainrule import theory as theory
    from chainrule import training as training
    from chainrule import width as width
    from chainrule.chain.scalar_chain import ScalarChain
    from chainrule.chain.scalar_graph import ScalarGraph
    from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
    from chainrule.diagnosis.rule import Verdict
    from chainrule.display.plotting import plot
    from chainrule.errors import ChainruleError
    from chainrule.flow.gradient_flow import GradientFlow
    from chainrule.flow.loading import load_flow
    from chainrule.flow.trial import Trial
    from chainrule.measure.inspection import inspect
    from chainrule.measure.loss_scale import probe_precision
    from chainrule.measure.networks import build_network, make_loss
    from chainrule.measure.non_finite import find_non_finite
    from chainrule.measure.sharpness import measure_sharpness
    from chainrule.measure.simulation import simulate
    from chainrule.presets import PRESETS
    from chainrule.remedies.model_search import apply_remedy
    from chainrule.remedies.result import Remedy
    from chainrule.remedies.spec_search import find_remedies
    from chainrule.report import write_report
    from chainrule.spec.activations import ACTIVATIONS
    from chainrule.spec.initializers import INITIALIZERS
    from chainrule.spec.network_spec import NetworkSpec
    from chainrule.training.trial import try_training
    from chainrule.watch.watching import watch
    from chainrule.width.check import check_width
    from chainrule.width.records import WidthCheck

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
    "ScalarGraph",
    "Trial",
    "Verdict",
    "WidthCheck",
    "apply_remedy",
    "build_network",
    "check_width",
    "diagnose",
    "find_non_finite",
    "find_remedies",
    "inspect",
    "load_flow",
    "make_loss",
    "measure_sharpness",
    "plot",
    "probe_precision",
    "simulate",
    "try_training",
    "watch",
    "write_report",
]

_HOMES = {
    "ACTIVATIONS": "spec",
    "INITIALIZERS": "spec",
    "PRESETS": "presets",
    "ChainruleError": "errors",
    "Diagnosis": "diagnosis",
    "GradientFlow": "flow",
    "NetworkSpec": "spec",
    "Remedy": "remedies",
    "ScalarChain": "chain",
    "ScalarGraph": "chain",
    "Trial": "flow",
    "Verdict": "diagnosis",
    "WidthCheck": "width",
    "apply_remedy": "remedies",
    "build_network": "measure",
    "check_width": "width",
    "diagnose": "diagnosis",
    "find_non_finite": "measure",
    "find_remedies": "remedies",
    "inspect": "measure",
    "load_flow": "flow",
    "make_loss": "measure",
    "measure_sharpness": "measure",
    "plot": "display.plotting",
    "probe_precision": "measure",
    "simulate": "measure",
    "try_training": "training",
    "write_report": "report",
}
"""Where each public name is imported from: the face of a room, or a module in it."""

_ROOMS = frozenset(
    {
        "chain",
        "diagnosis",
        "display",
        "errors",
        "figures",
        "flow",
        "measure",
        "presets",
        "remedies",
        "report",
        "spec",
        "sweeps",
        "testing",
        "theory",
        "training",
        "watch",
        "width",
    }
)
"""What is also an attribute: `chainrule.chain.derive` needs no import of its own. The room `watch`
can be called, as the function that it is named after."""

if not TYPE_CHECKING:  # a type checker must still object to names that do not exist

    def __getattr__(name: str) -> object:
        """Import a public name, or a room, when it is first asked for (PEP 562)."""
        if name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name in _ROOMS:
            value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_ROOMS})
