"""The lesson's figures: how they are measured, kept and written.

`measure_flows` measures every subject; `docs/make_lesson.py` keeps the result, with accuracies from
short trainings, in figures.json. A test measures again and compares.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from chainrule._utils.html import Markup, element
from chainrule._utils.numbers import format_number, format_times
from chainrule.app.state.subjects import PRESET_SUBJECTS, SEEDS, SUBJECTS
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.limits import read_usable_range
from chainrule.diagnosis.rules import RULES
from chainrule.display.sentences import measure_step
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.measure.simulation import simulate
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.training import CLASSES, Optimizer
from chainrule.training.training import TRAINED as LEARNED

FILE = "figures.json"
SPACE = "\u202f"
"""Narrow and not broken: what stands between a number and its sign."""

Value = float | str


def _norms(flow: GradientFlow) -> list[Quantity]:
    return [norm for norm in flow.weight_gradient_norms if norm is not None]


def _largest(values: list[Quantity | None]) -> float:
    return max((float(value) for value in values if value is not None), default=math.nan)


READERS: Mapping[str, Callable[[GradientFlow], float | Quantity | None]] = MappingProxyType(
    {
        "first": lambda flow: _norms(flow)[0],
        "first_delta": lambda flow: flow.delta_norms[0],
        "last": lambda flow: _norms(flow)[-1],
        "mean_first": lambda flow: statistics.fmean(_norms(flow)[0].values),
        "smallest": lambda flow: min(map(float, _norms(flow))),
        "largest": lambda flow: max(map(float, _norms(flow))),
        "ratio": lambda flow: flow.gradient_ratio,
        "delta_ratio": lambda flow: flow.delta_ratio,
        "step": measure_step,
        "std_first": lambda flow: flow.weight_layers[0].std,
        "std_last": lambda flow: flow.weight_layers[-1].std,
        "dead": lambda flow: _largest([layer.dead_share for layer in flow.weight_layers]),
        "saturated": lambda flow: _largest([layer.saturation for layer in flow.weight_layers]),
        "variation": lambda flow: flow.weight_layers[-1].variation,
        "clip_factor": lambda flow: flow.clip_factor,
        "error": lambda flow: flow.output_error,
    }
)
"""What is read of every subject; each gives a number."""

PROFILED = tuple(PRESET_SUBJECTS)
"""Subjects whose every layer is drawn: the scenarios."""

TRAINED: Mapping[str, tuple[Optimizer, ...]] = MappingProxyType(
    {
        "sigmoid_pytorch_5": ("sgd",),
        "sigmoid_pytorch_10": ("sgd",),
        "sigmoid_xavier_10": ("sgd", "adam"),
        "sigmoid_he_10": ("sgd",),
        "survivor": ("sgd",),
        "tanh_pytorch_10": ("sgd", "adam"),
        "tanh_pytorch_15": ("sgd",),
        "tanh_xavier_15": ("sgd",),
        "vanishing": ("sgd",),
        "vanishing_residual": ("sgd",),
        "healthy": ("sgd",),
        "exploding": ("sgd",),
        "relu_he_50": ("sgd",),
        "relu_he_100": ("sgd",),
        "rescued": ("sgd",),
    }
)
"""Subjects that are really trained, and with which optimizers."""

SPREAD = ("healthy",)
"""Subjects whose accuracy depends so much on the start that it is stated as a range.

Deep ReLU networks under plain SGD enlarge the last digit of a sum until the runs have nothing in
common: with another version of PyTorch, one start gives another accuracy.
"""

STARTS = 8
"""So many starts (seeds) make a range."""


def measure_flow(spec: NetworkSpec) -> dict[str, Value]:
    """Return every figure of one network, measured in float64.

    Deep networks enlarge rounding: in float32 two processors can differ by a tenth. In float64
    the same draws give the same figures on every machine.
    """
    flow = simulate(spec.replace(dtype="float64"), SEEDS)
    figures: dict[str, Value] = {"verdict": str(diagnose(flow).verdict)}
    for name, read in READERS.items():
        value = read(flow)
        if value is not None and math.isfinite(value):
            figures[name] = float(value)
    return figures


def measure_flows() -> dict[str, dict[str, Value]]:
    """Return every figure of every subject."""
    return {name: measure_flow(spec) for name, spec in SUBJECTS.items()}


def measure_profiles() -> dict[str, dict[str, list[float]]]:
    """Return what is drawn of subjects: "norms" and "usable".

    "norms" is ‖∂𝓛/∂W_l‖ for l = 1 … L; "usable" the least and the largest with which a layer
    learns.
    """
    profiles = {}
    for name in PROFILED:
        flow = simulate(SUBJECTS[name].replace(dtype="float64"), SEEDS)
        profiles[name] = {
            "norms": list(map(float, _norms(flow))),
            "usable": list(read_usable_range(flow, diagnose(flow).verdict)),
        }
    return profiles


def _compute_others() -> dict[str, float]:
    """Return the figures that need no network: arithmetic and the tables."""
    sigmoid = ACTIVATIONS["sigmoid"]
    z = 2.0
    h = sigmoid.function(z)
    return {
        "game.multiplier": 0.5,
        "game.layers": 5,
        "game.left": 0.5**5,
        "game.grown": 2.0**5,
        "sigmoid.most": sigmoid.derivative_max,
        "sigmoid.loss": 1.0 - sigmoid.derivative_max,
        "sigmoid.z": z,
        "sigmoid.slope": sigmoid.derivative(z),
        "sigmoid.from_output": h * (1.0 - h),
        "sigmoid.from_input": z * (1.0 - z),
        "spread.twice": math.sqrt(2.0),
        "rule.vanishing": RULES["vanishing_gradient"].threshold,
        "rule.exploding": RULES["exploding_gradient"].threshold,
        "rule.dead": RULES["dead_units"].threshold,
        "lesson.seeds": SEEDS,
        "lesson.starts": STARTS,
        "lesson.chance": 1.0 / CLASSES,
        "listing.first": 0.000003,
        "listing.last": 0.284719,
        "training.steps": 300,
        "training.batch": 64,
        "training.learned": LEARNED,
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of the lesson.

    Attributes:
        values: Numbers and words by "subject.figure".
        profiles: Of the subjects that are drawn, the gradient "norms" of every layer, and what is
            "usable": the least and the largest with which a layer learns.
        provenance: With what they were measured.
    """

    values: Mapping[str, Value]
    profiles: Mapping[str, Mapping[str, list[float]]]
    provenance: Mapping[str, Any]

    def number(self, name: str) -> float:
        """Return a figure that is a number.

        Raises:
            KeyError: If there is none of that name.
        """
        return float(self.values[name])

    def render(self, name: str, style: str | None = None) -> Markup:
        """Return a figure as HTML.

        Args:
            name: For example "vanishing.ratio".
            style: "%" for a share, "times" for how many times, `None` for the figure as it is.
        """
        value = self.values[name]
        if isinstance(value, str):
            return element("span", value, class_="ls-figure")
        if style == "about%":  # two digits, as the page's own sums have them
            text = f"{format_number(float(f'{100.0 * value:.2g}'))}{SPACE}%"
        elif style == "%":
            text = f"{format_number(100.0 * value)}{SPACE}%"
        else:
            text = format_times(value) if style == "times" else format_number(value)
        return element("span", text, class_="ls-figure", data_figure=name)


def collect_figures(document: Mapping[str, Any]) -> Figures:
    """Return the figures that a document as in figures.json holds, and those of the tables."""
    values: dict[str, Value] = {
        f"{subject}.{name}": value
        for subject, figures in document["flows"].items()
        for name, value in figures.items()
    }
    for subject, accuracies in document["trainings"].items():
        for optimizer, accuracy in accuracies.items():
            values[f"{subject}.{optimizer}"] = accuracy
    for subject, ranges in document["spreads"].items():
        for optimizer, (low, high) in ranges.items():
            values |= {
                f"{subject}.{optimizer}_low": low,
                f"{subject}.{optimizer}_high": high,
            }
    for subject, spec in SUBJECTS.items():
        for field in ("depth", "width", "batch_size", "weight_std", "clip_norm"):
            setting = getattr(spec, field)
            if setting is not None:
                values[f"{subject}.{field}"] = setting
    return Figures(
        values=MappingProxyType(values | _compute_others()),
        profiles=MappingProxyType(dict(document["profiles"])),
        provenance=MappingProxyType(dict(document["provenance"])),
    )


@cache
def load_figures() -> Figures:
    """Return the figures that came with the package."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return collect_figures(json.loads(text))
