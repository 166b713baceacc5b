"""Named scenarios: each has a specification, and says what to look at."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule.diagnosis.rule import Verdict
from chainrule.errors import SpecError, suggest
from chainrule.spec.network_spec import NetworkSpec


@dataclass(frozen=True, slots=True)
class Preset:
    """A scenario to start from.

    Attributes:
        name: The name shown to people.
        look_at: What to look at, in one or two sentences.
        spec: The network.
        verdict: The diagnosis that it shows.

    Example:
        >>> PRESETS["Dying ReLU"].verdict.value
        'dead units'
    """

    name: str
    look_at: str
    spec: NetworkSpec
    verdict: Verdict

    @property
    def label(self) -> str:
        """The name as pages show it, without a letter that has another meaning beside it.

        Example:
            >>> get_preset("exploding-relu-random-1").label
            'Exploding (ReLU + random, spread 1)'
        """
        return self.name.replace("random σ = 1", "random, spread 1").replace("(random, ", "(")

    @property
    def slug(self) -> str:
        """The name as one word that needs no quotes in a shell: "dying-relu".

        Example:
            >>> get_preset("Vanishing (Sigmoid)").slug
            'vanishing-sigmoid'
        """
        return "-".join(re.findall(r"[a-z0-9]+", self.name.lower()))


_TABLE = (
    Preset(
        "Vanishing (Sigmoid)",
        "Each step back towards the input multiplies the gradient by less than a quarter, so the "
        "weight gradient of layer 1 is about a billionth of the last layer's.",
        NetworkSpec(depth=15, activation="sigmoid", init="xavier"),
        Verdict.VANISHING,
    ),
    Preset(
        "Healthy (ReLU + He)",
        "All layers receive weight gradients of the same size: the first and the last differ by "
        "less than a factor of 3.",
        NetworkSpec(depth=15, activation="relu", init="he"),
        Verdict.HEALTHY,
    ),
    Preset(
        "Exploding (ReLU + random σ = 1)",
        "The size of the weights does not depend on the width here, so every layer multiplies "
        "values and gradients by more than 5. Yet the ratio of first to last looks healthy.",
        NetworkSpec(depth=15, activation="relu", init="random"),
        Verdict.EXPLODING,
    ),
    Preset(
        "Vanishing (Tanh, PyTorch default)",
        "The default weights of nn.Linear are too small to keep the gradient. On average a layer "
        "passes back little more than half of it, so less than a thousandth reaches layer 1.",
        NetworkSpec(depth=20, activation="tanh", init="pytorch"),
        Verdict.VANISHING,
    ),
    Preset(
        "Hidden vanishing (ReLU + Xavier)",
        "The gradient ratio is near 1, but every weight gradient is close to zero. Values shrink "
        "forward as fast as gradients shrink backward, and in the ratio the two cancel.",
        NetworkSpec(depth=30, activation="relu", init="xavier"),
        Verdict.VANISHING,
    ),
    Preset(
        "Self-normalizing (SELU + LeCun)",
        "The activations keep a standard deviation near 1 in all 30 layers without any "
        "normalization, while gradients grow a little on the way back.",
        NetworkSpec(depth=30, activation="selu", init="lecun"),
        Verdict.HEALTHY,
    ),
    Preset(
        "Dying ReLU",
        "These networks are narrow and deep. In most of them a whole layer is off for every "
        "input, so the gradient before it is exactly zero and cannot recover.",
        NetworkSpec(depth=30, width=4, activation="relu", init="he"),
        Verdict.DEAD_UNITS,
    ),
    Preset(
        "Sigmoid that survives (random σ = 1)",
        "Large weights make up for the small slope of the sigmoid. With 10 layers, the weight "
        "gradient of layer 1 is still more than a tenth of the last layer's.",
        NetworkSpec(depth=10, activation="sigmoid", init="random"),
        Verdict.HEALTHY,
    ),
    Preset(
        "Deep and rescued (100 layers, residual)",
        "In each of 100 layers the gradient takes the path around the layer, nearly unchanged. "
        "Without the residual connections, almost no gradient reaches layer 1.",
        NetworkSpec(depth=100, activation="relu", init="pytorch", residual="scaled"),
        Verdict.HEALTHY,
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _TABLE})
"""Every preset by name, in display order."""


def get_preset(name: str) -> Preset:
    """Return the preset called `name`, in full or as its slug (upper and lower case are the same).

    Raises:
        SpecError: If there is none; the message names the nearest and lists all.

    Example:
        >>> get_preset("dying relu").spec.width
        4
    """
    by_fold = {each: preset for preset in _TABLE for each in (preset.name.casefold(), preset.slug)}
    try:
        return by_fold[name.strip().casefold()]
    except KeyError:
        raise SpecError(f"preset: unknown {name!r}. {suggest(name, PRESETS)}") from None
