"""`NetworkSpec`: everything that defines a dense network, validated."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self, TypedDict, Unpack
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chainrule.errors import SpecError, abbreviate, suggest
from chainrule.spec.activations import get_activation
from chainrule.spec.initializers import Distribution, Initializer, get_initializer

Residual = Literal["none", "plain", "scaled"]
Normalization = Literal["none", "layernorm", "batchnorm", "rmsnorm"]
Dtype = Literal["float32", "float64"]

MAX_DEPTH = 1000
MAX_WIDTH = 4096
MAX_BATCH_SIZE = 4096
MAX_SEED = 2**31 - 1


class SpecFields(TypedDict, total=False):
    """The fields of `NetworkSpec` for type checkers, which see no further than its `__init__`."""

    depth: int
    width: int
    activation: str
    init: str
    distribution: Distribution | None
    weight_std: float
    bias_std: float | None
    residual: Residual
    normalization: Normalization
    clip_norm: float | None
    batch_size: int
    input_scale: float
    seed: int
    dtype: Dtype


FIELD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "depth": "depth",
        "width": "width",
        "activation": "activation",
        "init": "initialization",
        "distribution": "distribution of the weights",
        "weight_std": "spread of the weights",
        "bias_std": "spread of the biases",
        "residual": "residual connections",
        "normalization": "normalization",
        "clip_norm": "gradient clipping",
        "batch_size": "batch size",
        "input_scale": "scale of the inputs",
        "seed": "seed",
        "dtype": "precision",
    }
)
"""What sentences call the fields of `NetworkSpec`."""


class NetworkSpec(BaseModel):
    """A dense network of square layers: h_l = φ(W_l h_{l−1} + b_l), l = 1 … depth.

    It is trained to map inputs N(0, 1) of shape [batch_size, width] to targets N(0, 1) of the same
    shape under the mean squared error. The defaults reproduce the classic vanishing-gradient
    script.

    Attributes:
        depth: Number of weight layers L.
        width: Units per layer; also the number of input features.
        activation: A name of the table `ACTIVATIONS`.
        init: A name of the table `INITIALIZERS`.
        distribution: "normal" or "uniform"; `None` draws the initialization's usual form.
        weight_std: The σ of `init="random"`.
        bias_std: Standard deviation of normal biases; `None` means the initialization's own
            (zero, but uniform on ±1/√width for "pytorch").
        residual: "plain" adds the layer's input to its output, "scaled" adds it to the output
            divided by √depth.
        normalization: Applied to the pre-activation z_l, before φ.
        clip_norm: Total gradient norm above which gradients are scaled down; `None` for never.
        batch_size: Examples per batch.
        input_scale: What the inputs N(0, 1) are multiplied by; targets stay as they are.
        seed: The seed of the network, or the first one of an ensemble.
        dtype: Precision of the measurement. Weights and data are the same draws in both.

    Raises:
        SpecError: On construction, naming the field, what must hold and what came.

    Example:
        >>> NetworkSpec(depth=15, activation="tanh").to_query()
        'depth=15&activation=tanh'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(10, ge=1, le=MAX_DEPTH)
    width: int = Field(64, ge=1, le=MAX_WIDTH)
    activation: str = "sigmoid"
    init: str = "pytorch"
    distribution: Distribution | None = None
    weight_std: float = Field(1.0, ge=0.0, le=1e6, allow_inf_nan=False)
    bias_std: float | None = Field(None, ge=0.0, le=1e6, allow_inf_nan=False)
    residual: Residual = "none"
    normalization: Normalization = "none"
    clip_norm: float | None = Field(None, gt=0.0, le=1e30, allow_inf_nan=False)
    batch_size: int = Field(32, ge=1, le=MAX_BATCH_SIZE)
    input_scale: float = Field(1.0, gt=0.0, le=1e6, allow_inf_nan=False)
    seed: int = Field(0, ge=0, le=MAX_SEED)
    dtype: Dtype = "float32"

    def __init__(self, /, **fields: Unpack[SpecFields]) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(_explain(error)) from None

    @field_validator("activation")
    @classmethod
    def _check_activation(cls, name: str) -> str:
        return get_activation(name).name

    @field_validator("init")
    @classmethod
    def _check_init(cls, name: str) -> str:
        return get_initializer(name).name

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.distribution not in (None, *self.initializer.distributions):
            raise SpecError(
                f"distribution: init={self.init!r} has no {self.distribution} form; "
                "leave distribution out or choose another init."
            )
        if self.weight_std != 1.0 and self.init != "random":
            raise SpecError(
                f"weight_std: only init='random' uses it, but init={self.init!r} came with "
                f"weight_std={self.weight_std:g}. Set init='random' or leave weight_std out."
            )
        if self.normalization == "batchnorm" and self.batch_size < 2:
            raise SpecError("batch_size: must be at least 2 with batch normalization; got 1.")
        return self

    @property
    def initializer(self) -> Initializer:
        """The table entry of `init`."""
        return get_initializer(self.init)

    @property
    def drawn_distribution(self) -> Distribution:
        """The distribution that weights are drawn from."""
        return self.distribution or self.initializer.default_distribution

    @property
    def weight_std_drawn(self) -> float:
        """Standard deviation of one weight as it will be drawn."""
        return self.initializer.standard_deviation(self.width, self.width, self.weight_std)

    def replace(self, /, **changes: Unpack[SpecFields]) -> Self:
        """Return a copy with some fields changed, validated again.

        Raises:
            SpecError: If the result is not a legal specification.

        Example:
            >>> NetworkSpec(depth=15).replace(depth=20).depth
            20
        """
        return type(self)(**{**self.model_dump(), **changes})

    def to_query(self) -> str:
        """Return the URL query string that holds every field that differs from its default.

        Example:
            >>> NetworkSpec(depth=15).to_query()
            'depth=15'
        """
        return urlencode(self.model_dump(exclude_defaults=True, exclude_none=True))

    def to_command(self) -> str:
        """Return the shell command that measures it: only what differs from the defaults.

        Example:
            >>> NetworkSpec(depth=15).to_command()
            'chainrule simulate --depth 15'
        """
        fields = self.model_dump(exclude_defaults=True, exclude_none=True)
        options = [f"--{name.replace('_', '-')} {value}" for name, value in fields.items()]
        return " ".join(["chainrule simulate", *options])

    @classmethod
    def from_query(cls, query: str) -> Self:
        """Return the specification that a URL query string describes.

        Args:
            query: For example "depth=15&activation=tanh", with or without a leading "?".

        Raises:
            SpecError: If a field is unknown, given twice or out of range.

        Example:
            >>> NetworkSpec.from_query("depth=15&activation=tanh").depth
            15
        """
        pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True)
        fields: dict[str, Any] = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1)
            raise SpecError(
                f"{abbreviate(twice)[1:-1]}: must be given once; got it several times in the query."
            )
        return cls(**fields)

    def to_json(self) -> str:
        """Return the specification as one line of JSON.

        Example:
            >>> NetworkSpec(depth=15).to_json()[:11]
            '{"depth":15'
        """
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the specification that `to_json` wrote.

        Raises:
            SpecError: If the text is not JSON or not a legal specification.

        Example:
            >>> NetworkSpec.from_json('{"depth": 15}').depth
            15
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SpecError(_explain(error)) from None


_REQUIREMENTS: Mapping[str, str] = {
    "depth": f"a whole number from 1 to {MAX_DEPTH}",
    "width": f"a whole number from 1 to {MAX_WIDTH}",
    "batch_size": f"a whole number from 1 to {MAX_BATCH_SIZE}",
    "seed": f"a whole number from 0 to {MAX_SEED}",
    "weight_std": "a finite number from 0 to 1e6",
    "bias_std": "a finite number from 0 to 1e6",
    "clip_norm": "a finite number above 0, at most 1e30",
    "input_scale": "a finite number above 0, at most 1e6",
}


def _explain(error: ValidationError) -> str:
    """Return one line per wrong field: its name, what must hold, what came."""
    lines = []
    for detail in error.errors(include_url=False):
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, SpecError):
            lines.append(str(cause))
            continue
        field = abbreviate(detail["loc"][0]).strip("'") if detail["loc"] else "specification"
        received = abbreviate(detail["input"])
        if detail["type"] == "extra_forbidden":
            lines.append(f"{field}: no such field. {suggest(field, NetworkSpec.model_fields)}")
        elif field in _REQUIREMENTS:
            lines.append(f"{field}: must be {_REQUIREMENTS[field]}; got {received}.")
        elif detail["type"] == "literal_error":
            expected = detail["ctx"]["expected"]
            lines.append(f"{field}: must be one of {expected}; got {received}.")
        elif detail["type"] == "string_type":
            lines.append(f"{field}: must be a name in quotes; got {received}.")
        else:
            lines.append(f"{field}: {detail['msg']}; got {received}.")
    return "\n".join(lines)
