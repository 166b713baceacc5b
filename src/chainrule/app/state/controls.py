"""The table of the explore page's controls: labels, bounds, choices, help."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import MAX_BATCH_SIZE, MAX_DEPTH, MAX_SEED, MAX_WIDTH, NetworkSpec

Kind = Literal["range", "choice", "number"]

DEFAULT_SEEDS, MAX_SEEDS = 16, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control of the page.

    Attributes:
        name: The setting it changes: a field of `NetworkSpec`, or "seeds".
        label: Its label.
        help: One line that explains it, shown under its label when it is asked for.
        kind: "range" is a slider with a box beside it, "choice" a list, "number" a box.
        choices: Value and label of each choice; an empty value stands for "not given".
        meanings: What each choice is, in one line, where its name alone does not say it.
        low: Smallest value that may be typed.
        high: Largest value that may be typed.
        slider: Values the slider stops at, from first to last.
        step: Step of the box; "any" for any number.
        placeholder: What an empty box means; `None` if it may not be empty.
        when: The setting and values under which the control matters; else it is out of use.
        more: Whether it stands among the further settings.
    """

    name: str
    label: str
    help: str
    kind: Kind
    choices: tuple[tuple[str, str], ...] = ()
    meanings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    low: float | None = None
    high: float | None = None
    slider: tuple[int, ...] = ()
    step: float | str = "any"
    placeholder: str | None = None
    when: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    more: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the control as JSON can hold it, with its default."""
        default = DEFAULT_SEEDS if self.name == "seeds" else _get_default(self.name)
        return {
            "name": self.name,
            "label": self.label,
            "help": self.help,
            "kind": self.kind,
            "choices": [list(choice) for choice in self.choices],
            "meanings": dict(self.meanings),
            "low": self.low,
            "high": self.high,
            "slider": list(self.slider),
            "step": self.step,
            "placeholder": self.placeholder,
            "when": {name: list(values) for name, values in self.when.items()},
            "more": self.more,
            "default": "" if default is None else write_setting(default),
        }


def write_setting(value: Any) -> str:
    """Return a setting's value as a control and an address hold it: 1 rather than 1.0."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _get_default(name: str) -> Any:
    return NetworkSpec.model_fields[name].default


ACTIVATION_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "sigmoid": "S-curve from 0 to 1; slope at most 0.25",
        "tanh": "S-curve from −1 to 1; slope at most 1",
        "relu": "keeps positive values, else 0; slope 1 or 0",
        "leaky_relu": "like ReLU, but slope 0.01 below 0",
        "elu": "like ReLU, but bends smoothly to −1",
        "selu": "ELU, scaled so that sizes settle near 1",
        "gelu": "a smooth ReLU that dips a little below 0",
        "silu": "z times its sigmoid: another smooth ReLU",
        "identity": "no curve at all: slope 1 everywhere",
    }
)
"""What each activation is, in one line."""

INITIALIZATION_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "xavier": "Xavier keeps sizes alike both ways, if slopes are near 1",
        "he": "He is for ReLU: weights of variance 2 ÷ inputs (LeCun's: 1 ÷ inputs)",
        "lecun": "LeCun keeps the size of values on the way forward: variance 1 ÷ inputs",
        "random": "one spread σ for all widths: you choose it",
        "orthogonal": "directions at right angles: stretches none",
        "pytorch": "what nn.Linear starts with: rather small",
    }
)
"""What each initialization does, in one line."""

_TABLE = (
    Control(
        name="depth",
        label="Depth (weight layers)",
        help="How many weight layers stand in a row. The gradient of the first layer is a product "
        "with a factor for each.",
        kind="range",
        low=1,
        high=MAX_DEPTH,
        slider=tuple(range(2, 101)),
        step=1,
    ),
    Control(
        name="width",
        label="Width (units per layer)",
        help="How many units each layer has; also the number of inputs. In wider layers, "
        "networks of different seeds are more alike.",
        kind="range",
        low=1,
        high=MAX_WIDTH,
        slider=tuple(2**exponent for exponent in range(2, 10)),
        step=1,
    ),
    Control(
        name="activation",
        label="Activation",
        help="The function φ after each weight layer. Its derivative is one factor of the product.",
        kind="choice",
        choices=tuple((entry.name, entry.label) for entry in ACTIVATIONS.values()),
        meanings=ACTIVATION_MEANINGS,
    ),
    Control(
        name="init",
        label="Initialization",
        help="How the first weights are chosen: at random, and how large. Their size is the other "
        "factor of the product.",
        kind="choice",
        choices=tuple((entry.name, entry.label) for entry in INITIALIZERS.values()),
        meanings=INITIALIZATION_MEANINGS,
    ),
    Control(
        name="weight_std",
        label="Spread of the weights",
        help="How far from 0 random weights usually lie: their standard deviation σ, whatever the "
        "width. Most lie within σ of 0, nearly all within 2 σ.",
        kind="number",
        low=0,
        high=1e6,
        when=MappingProxyType({"init": ("random",)}),
    ),
    Control(
        name="distribution",
        label="Distribution",
        help="Normal or uniform weights of the same variance: it hardly matters, see for yourself.",
        kind="choice",
        choices=(("", "as usual"), ("normal", "normal"), ("uniform", "uniform")),
        when=MappingProxyType(
            {
                "init": tuple(
                    entry.name for entry in INITIALIZERS.values() if len(entry.distributions) > 1
                )
            }
        ),
        more=True,
    ),
    Control(
        name="residual",
        label="Residual connections",
        help="A path around every layer: h + φ(z). Scaled divides the branch by the square root "
        "of the depth.",
        kind="choice",
        choices=(("none", "none"), ("plain", "plain"), ("scaled", "scaled by 1/√depth")),
        more=True,
    ),
    Control(
        name="normalization",
        label="Normalization",
        help="Rescales each pre-activation z to a standard size before the activation.",
        kind="choice",
        choices=(
            ("none", "none"),
            ("layernorm", "layer normalization"),
            ("batchnorm", "batch normalization"),
            ("rmsnorm", "RMS normalization"),
        ),
        more=True,
    ),
    Control(
        name="clip_norm",
        label="Clip the gradient norm at",
        help="If all gradients together are longer than this, all are scaled down alike. It "
        "shortens; it never lengthens.",
        kind="number",
        low=1e-6,
        high=1e30,
        placeholder="never",
        more=True,
    ),
    Control(
        name="bias_std",
        label="Spread of the biases",
        help="How far from 0 the first biases usually lie: their standard deviation σ. Empty: as "
        "the initialization has them.",
        kind="number",
        low=0,
        high=1e6,
        placeholder="as usual",
        more=True,
    ),
    Control(
        name="input_scale",
        label="Input scale",
        help="What the inputs, drawn from N(0, 1), are multiplied by: 1 is what standardized data "
        "have.",
        kind="number",
        low=1e-6,
        high=1e6,
        more=True,
    ),
    Control(
        name="batch_size",
        label="Batch size",
        help="How many examples the loss is averaged over.",
        kind="number",
        low=1,
        high=MAX_BATCH_SIZE,
        step=1,
        more=True,
    ),
    Control(
        name="seeds",
        label="Networks",
        help="How many networks are drawn, each with its own seed. The chart shows their median "
        "and the middle 80 %.",
        kind="number",
        low=1,
        high=MAX_SEEDS,
        step=1,
        more=True,
    ),
    Control(
        name="seed",
        label="First seed",
        help="Another seed draws other networks. What stays is the network's doing, what changes "
        "was luck.",
        kind="number",
        low=0,
        high=MAX_SEED,
        step=1,
        more=True,
    ),
)

CONTROLS: Mapping[str, Control] = MappingProxyType({control.name: control for control in _TABLE})
"""Every control by name, in display order."""
