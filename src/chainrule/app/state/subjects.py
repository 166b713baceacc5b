"""The networks that the lesson and other pages speak of, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from chainrule.presets import PRESETS
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec

SEEDS = 16
"""Networks of each subject; as many as the explorer shows, so that both show the same figures."""


def _name_spec(depth: int, activation: str, init: str, **others: Any) -> NetworkSpec:
    return NetworkSpec(depth=depth, activation=activation, init=init, **others)


PRESET_SUBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "vanishing": "Vanishing (Sigmoid)",
        "healthy": "Healthy (ReLU + He)",
        "exploding": "Exploding (ReLU + random σ = 1)",
        "tanh_default": "Vanishing (Tanh, PyTorch default)",
        "hidden": "Hidden vanishing (ReLU + Xavier)",
        "selu": "Self-normalizing (SELU + LeCun)",
        "dying": "Dying ReLU",
        "survivor": "Sigmoid that survives (random σ = 1)",
        "rescued": "Deep and rescued (100 layers, residual)",
    }
)
"""What the lesson calls the scenarios, each with its own name."""


_VANISHING = PRESETS[PRESET_SUBJECTS["vanishing"]].spec
_EXPLODING = PRESETS[PRESET_SUBJECTS["exploding"]].spec
_DYING = PRESETS[PRESET_SUBJECTS["dying"]].spec
_RESCUED = PRESETS[PRESET_SUBJECTS["rescued"]].spec

SUBJECTS: Mapping[str, NetworkSpec] = MappingProxyType(
    {
        **{name: PRESETS[preset].spec for name, preset in PRESET_SUBJECTS.items()},
        "sigmoid_pytorch_5": _name_spec(5, "sigmoid", "pytorch"),
        "sigmoid_pytorch_10": _name_spec(10, "sigmoid", "pytorch"),
        "sigmoid_xavier_5": _name_spec(5, "sigmoid", "xavier"),
        "sigmoid_xavier_10": _name_spec(10, "sigmoid", "xavier"),
        "sigmoid_he_5": _name_spec(5, "sigmoid", "he"),
        "sigmoid_he_10": _name_spec(10, "sigmoid", "he"),
        "sigmoid_random_wide": _name_spec(10, "sigmoid", "random", width=256),
        "tanh_pytorch_10": _name_spec(10, "tanh", "pytorch"),
        "tanh_pytorch_15": _name_spec(15, "tanh", "pytorch"),
        "tanh_xavier_15": _name_spec(15, "tanh", "xavier"),
        "tanh_xavier_100": _name_spec(100, "tanh", "xavier"),
        "relu_he_50": _name_spec(50, "relu", "he"),
        "relu_he_100": _name_spec(100, "relu", "he"),
        "relu_pytorch_100": _RESCUED.replace(residual="none"),
        "selu_100": _name_spec(100, "selu", "lecun"),
        "selu_gain": _name_spec(30, "selu", "random", weight_std=0.75 / 8.0),
        "gelu_he_30": _name_spec(30, "gelu", "he"),
        "silu_he_30": _name_spec(30, "silu", "he"),
        "relu_he_30": _name_spec(30, "relu", "he"),
        **{
            f"{name}_random_15": _name_spec(15, name, "random")
            for name in ACTIVATIONS
            if name != "identity"
        },
        # What is tried against vanishing, exploding and dead units.
        "vanishing_he": _VANISHING.replace(init="he"),
        "vanishing_tanh": _VANISHING.replace(activation="tanh"),
        "vanishing_relu": _VANISHING.replace(activation="relu", init="he"),
        "vanishing_residual": _VANISHING.replace(residual="scaled"),
        "vanishing_layernorm": _VANISHING.replace(normalization="layernorm"),
        "vanishing_batchnorm": _VANISHING.replace(normalization="batchnorm"),
        "vanishing_shallow": _VANISHING.replace(depth=3),
        "exploding_clipped": _EXPLODING.replace(clip_norm=1.0),
        "exploding_layernorm": _EXPLODING.replace(normalization="layernorm"),
        "he_residual_50": _name_spec(50, "relu", "he", residual="scaled"),
        "he_plain_50": _name_spec(50, "relu", "he", residual="plain"),
        "he_batchnorm_50": _name_spec(50, "relu", "he", normalization="batchnorm"),
        "he_layernorm_50": _name_spec(50, "relu", "he", normalization="layernorm"),
        "dying_leaky": _DYING.replace(activation="leaky_relu"),
        "dying_wide": _DYING.replace(width=64),
        # The rows of the two tables.
        **{
            f"activation_{name}": _name_spec(15, name, entry.initialization)
            for name, entry in ACTIVATIONS.items()
        },
        **{f"tanh_with_{name}": _name_spec(15, "tanh", name) for name in INITIALIZERS},
        **{f"relu_with_{name}": _name_spec(15, "relu", name) for name in INITIALIZERS},
    }
)
"""Every network that a text, a claim or a table of the lesson names."""


def write_address(spec: NetworkSpec) -> str:
    """Return the explorer's address of a network, with what people look for first always in it."""
    always = {name: getattr(spec, name) for name in ("depth", "activation", "init")}
    others = spec.model_dump(exclude_defaults=True, exclude_none=True)
    return f"/?{urlencode(always | others)}"


ADDRESSES: Mapping[str, str] = MappingProxyType(
    {name: write_address(spec) for name, spec in SUBJECTS.items()}
)
"""The explorer's address of every subject."""
