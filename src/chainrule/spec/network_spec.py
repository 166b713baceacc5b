"""`NetworkSpec`: everything that defines a dense network, validated."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chainrule.errors import SpecError, suggest
from chainrule.spec.activations import get_activation
from chainrule.spec.initializers import Distribution, Initializer, get_initializer

Residual = Literal["none", "plain", "scaled"]
Normalization = Literal["none", "layernorm", "batchnorm", "rmsnorm"]
Dtype = Literal["float32", "float64"]

MAX_DEPTH = 1000
MAX_WIDTH = 4096
MAX_BATCH_SIZE = 4096
MAX_SEED = 2**31 - 1
MAX_QUERY = 4000
"""Longest address that is read, in characters."""


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

    def __init__(self, **fields: Any) -> None:
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
            raise SpecError(
                "batch_size: batch normalization needs at least 2 examples to compare; got 1."
            )
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

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, validated again.

        Raises:
            SpecError: If the result is not a legal specification.
        """
        return type(self)(**{**self.model_dump(), **changes})

    def to_query(self) -> str:
        """Return the URL query string that holds every field that differs from its default."""
        return urlencode(self.model_dump(exclude_defaults=True, exclude_none=True))

    def to_command(self) -> str:
        """Return the shell command that measures it: only what differs from the defaults."""
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
        """
        pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True)
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1)
            raise SpecError(f"{twice}: must be given once; the query gives it several times.")
        return cls(**fields)

    def to_json(self) -> str:
        """Return the specification as one line of JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the specification that `to_json` wrote.

        Raises:
            SpecError: If the text is not JSON or not a legal specification.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SpecError(_explain(error)) from None


def repair_query(query: str) -> tuple[NetworkSpec, tuple[str, ...]]:
    """Return the nearest legal specification to a URL query, and what was changed.

    For a page: whatever a visitor's URL says, there is a network to show. Numbers beyond a bound
    become the bound; everything else that is illegal falls back to its default.

    Args:
        query: Any string.

    Returns:
        The specification, and one notice per repaired field (empty if nothing was).
    """
    notices: list[str] = []
    pairs: list[tuple[str, str]] = []
    try:
        if len(query) > MAX_QUERY:
            raise ValueError
        pairs = parse_qsl(
            query.removeprefix("?"), keep_blank_values=True, max_num_fields=100, errors="replace"
        )
    except ValueError:
        notices.append("The address was too long and was ignored.")
    fields = dict(pairs)
    if len(fields) < len(pairs):
        notices.append("Some settings were given several times; the last one counts.")
    accepted: dict[str, Any] = {}
    for name, text in fields.items():
        if name not in NetworkSpec.model_fields:
            notices.append(f"“{name[:40]}” is not a setting and was ignored.")
            continue
        value, notice = _repair_field(name, text)
        if notice:
            notices.append(notice)
        if value is not None:
            accepted[name] = value
    while True:
        try:
            return NetworkSpec(**accepted), tuple(notices)
        except SpecError as error:  # fields legal alone but not together
            field = str(error).partition(":")[0]
            accepted.pop(field if field in accepted else next(iter(accepted)))
            notices.append(f"{error}")


def _repair_field(name: str, text: str) -> tuple[Any, str | None]:
    """Return the nearest legal value of one field (`None` for its default) and a notice."""
    context = {"init": "random"} if name == "weight_std" else {}
    try:
        return getattr(NetworkSpec(**{**context, name: text}), name), None
    except SpecError:
        pass
    low = high = None
    for constraint in NetworkSpec.model_fields[name].metadata:
        low = getattr(constraint, "ge", low)
        high = getattr(constraint, "le", high)
    default = NetworkSpec.model_fields[name].default
    fallback = f"{name} “{text[:40]}” is not possible; using {default}."
    try:
        number = float(text)
    except ValueError:
        return None, fallback
    if high is not None and number > high:
        number = high
    elif low is not None and number < low:
        number = low
    if not math.isfinite(number):
        return None, fallback
    value = round(number) if isinstance(default, int) else float(number)
    try:
        accepted = getattr(NetworkSpec(**{**context, name: value}), name)
    except SpecError:
        return None, fallback
    return accepted, f"{name} “{text[:40]}” is not possible; using {accepted}."


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
        field = str(detail["loc"][0]) if detail["loc"] else "specification"
        received = repr(detail["input"])[:60]
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
