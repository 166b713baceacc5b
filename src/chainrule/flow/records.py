"""The parts of a measurement: one module call, one parameter, one weight layer, one factor.

They hold numbers only (no tensors, no modules) and never change. Every measured value is a
`Quantity`: a float that is the median over the ensemble, with all members' values kept. `None`
always means "there is no such value" (for example, no gradient reached it), never zero.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as shorten
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, FailFast, Field, Strict, with_config

from chainrule._utils.numbers import format_number, format_shape, format_share
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.spec.activations import ACTIVATIONS

Role = Literal["weight", "activation", "normalization", "residual", "other"]
GradientStatus = Literal["measured", "unreached", "frozen"]

CLOSED = ConfigDict(extra="forbid")
"""How files are read: a field that is not known is an error."""

_ROUNDING = 1e-6
_MANY = 100_000

NEAR_ONE_HOT, NEAR_UNIFORM = 0.05, 0.95
"""Relative entropy of attention below which it is nearly one-hot, above which nearly uniform."""


def _require(holds: Callable[[float], bool], requirement: str) -> AfterValidator:
    """Return a check of what a file says about every member of an ensemble."""

    def check(quantity: Quantity) -> Quantity:
        for value in quantity.values:
            if not holds(value):
                raise ValueError(f"must be {requirement}")
        return quantity

    return AfterValidator(check)


Magnitude = Annotated[Quantity, _require(lambda v: not v < 0, "zero, positive or undefined")]
"""A norm, a deviation or a gain."""

Share = Annotated[
    Quantity,
    _require(lambda v: not (v < -_ROUNDING or v > 1 + _ROUNDING), "a share from 0 to 1"),
]
"""A part of a whole."""

Count = Annotated[
    Quantity, _require(lambda v: v >= 0 and v.is_integer(), "a whole number, zero or positive")
]
"""How many."""

Text = Annotated[str, Strict(), Field(max_length=10_000)]
Size = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
PositiveSize = Annotated[int, Strict(), Field(ge=1, lt=2**63)]
Shape = Annotated[tuple[Size, ...], FailFast(), Field(max_length=64)]
Position = Annotated[int, Strict(), Field(ge=0, lt=2**31)]
LayerNumber = Annotated[int, Strict(), Field(ge=1, lt=2**31)]
Edge = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""How files are read: nothing is converted, and a list ends at its first error."""


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of a tensor's finite entries in equal bins, over all ensemble members.

    Attributes:
        low: Left edge of the first bin.
        high: Right edge of the last bin.
        counts: Entries per bin.
        sampled: Number of entries looked at: evenly spaced ones where the tensor is large.

    Example:
        >>> Histogram(low=0.0, high=1.0, counts=(3, 1), sampled=4).counts
        (3, 1)
    """

    low: Edge
    high: Edge
    counts: Annotated[tuple[Size, ...], FailFast(), Field(min_length=1, max_length=10_000)]
    sampled: PositiveSize

    def __repr__(self) -> str:
        ends = f"{format_number(self.low)} to {format_number(self.high)}"
        return f"Histogram({len(self.counts)} bins from {ends}, {self.sampled:,} entries)"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStatistics:
    """What the entries of a module's output look like.

    Attributes:
        mean: Mean of all entries.
        std: Standard deviation of all entries.
        min: Smallest entry.
        max: Largest entry.
        zero_share: Share of entries that are exactly zero, in [0, 1]. Of tensors with more than
            65,536 entries, an evenly spaced sample is counted; so it is for gradients.
        non_finite: Number of entries that are infinite or NaN.
        variation: How differently the examples of the batch are answered: root of the mean square
            deviation from the batch mean, relative to the root mean square, in [0, 1]. 0 means
            that every input gives the same output. `None` for a single example.
        saturation: Share of entries where |φ'(z)| is below 5 % of its maximum over z. `None`
            unless the module is an activation of the table with its standard parameters.
        dead_units: Number of units whose φ'(z) is zero for every example. `None` unless the
            module is an activation of the table.
        units: Number of units of the output (its features or channels).
        histogram: Distribution of the entries; `None` if none was finite.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> 0 <= flow.layers[1].statistics.zero_share <= 1
        True
    """

    mean: Quantity
    std: Magnitude
    min: Quantity
    max: Quantity
    zero_share: Share
    non_finite: Count
    variation: Share | None
    saturation: Share | None
    dead_units: Count | None
    units: PositiveSize
    histogram: Histogram | None

    def __repr__(self) -> str:
        bad = f", {format_number(self.non_finite)} not finite" if self.non_finite else ""
        return (
            f"ActivationStatistics(mean {format_number(self.mean)}, std {format_number(self.std)}, "
            f"from {format_number(self.min)} to {format_number(self.max)}, {self.units:,} units"
            f"{_add('saturated', self.saturation)}{_add('dead', self.dead_share)}{bad})"
        )

    @property
    def dead_share(self) -> Quantity | None:
        """Share of units that are dead, in [0, 1]."""
        if self.dead_units is None:
            return None
        return Quantity(count / self.units for count in self.dead_units.values)


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientStatistics:
    """What the gradient of the loss with respect to one tensor looks like.

    Attributes:
        norm: Frobenius norm.
        max_abs: Largest absolute entry.
        zero_share: Share of entries that are exactly zero, in [0, 1].
        non_finite: Number of entries that are infinite or NaN.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> flow.layers[0].gradient.norm > 0
        True
    """

    norm: Magnitude
    max_abs: Magnitude
    zero_share: Share
    non_finite: Count

    def __repr__(self) -> str:
        bad = f", {format_number(self.non_finite)} not finite" if self.non_finite else ""
        return (
            f"GradientStatistics(norm {format_number(self.norm)}, largest entry "
            f"{format_number(self.max_abs)}, zero {format_share(self.zero_share)}{bad})"
        )


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFlow:
    """One output tensor of one call of one module.

    Attributes:
        name: Qualified name of the module, as in `model.named_modules()`.
        kind: Class name of the module.
        role: What it contributes to the chain-rule product.
        layer: Number l = 1 … L of the weight layer that it is, or that it follows; `None` before
            the first one.
        call: 0 for the module's first call, 1 for its second, and so on.
        output: Where the tensor sits in the module's output ("" if it is the output itself,
            "1.0" for the first entry of the second one, "logits" for that key or field).
        shape: Shape of the tensor.
        dtype: Data type of the tensor.
        parent: Position in `GradientFlow.layers` of the measured module inside which this one
            ran, or `None`.
        statistics: The values; `None` for integer and empty tensors.
        gradient: The gradient of the loss with respect to the values; `None` if the loss does
            not depend on them through the graph.
        gain: ‖∂loss/∂input‖ ÷ ‖∂loss/∂output‖ of the call, one factor of the chain-rule product.
            Both are total gradients, so other paths that the input takes count too. `None` where
            either does not exist. Calls with several outputs have it on the first one.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> [(call.label, call.shape) for call in flow.layers][:2]
        [('0', (32, 4)), ('1', (32, 4))]
    """

    name: Text
    kind: Text
    role: Role
    layer: LayerNumber | None
    call: Position
    output: Text
    shape: Shape
    dtype: Text
    parent: Position | None
    statistics: ActivationStatistics | None
    gradient: GradientStatistics | None
    gain: Magnitude | None

    def __repr__(self) -> str:
        norm = self.gradient.norm if self.gradient else None
        return (
            f"LayerFlow({shorten(self.label)}, {shorten(self.kind)}, {_describe(self.shape)}, "
            f"‖∂𝓛/∂output‖ {format_number(norm)}, gain {format_number(self.gain)})"
        )

    @property
    def label(self) -> str:
        """A name that tells calls and outputs of one module apart."""
        call = f" (call {self.call + 1})" if self.call else ""
        return f"{self.name or '(model)'}{call}{f' → {self.output}' if self.output else ''}"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualFlow:
    """One residual connection: stream + branch = sum, as seen where a module reads the sum.

    Sizes are root mean squares of all entries.

    Attributes:
        stream: Number of the residual stream it belongs to, from 0; an encoder and a decoder have
            one each.
        branch: Position in `GradientFlow.layers` of the output that the branch adds; `None` if no
            module returned it.
        normalization: Where the residual stream is normalized: "before" (a branch begins with it:
            pre-norm), "after" (the sum goes through it: post-norm), or "none".
        before: Size of the residual stream before the sum; `None` if no module returned or read it.
        added: Size of what the branch adds; `None` if no module returned it.
        after: Size of the sum.
        gradient: ‖∂loss/∂sum‖; `None` if no gradient reaches it. The branch's output receives the
            same.
        parameters: Positions in `GradientFlow.parameters` of those that the branch is computed
            with, between where it leaves the residual stream and the sum.

    Example:
        >>> one = Quantity([1.0])
        >>> ResidualFlow(
        ...     stream=0,
        ...     branch=None,
        ...     normalization="none",
        ...     before=one,
        ...     added=Quantity([2.0]),
        ...     after=one,
        ...     gradient=None,
        ... ).share
        2.0
    """

    stream: Position
    branch: Position | None
    normalization: Literal["before", "after", "none"]
    before: Magnitude | None
    added: Magnitude | None
    after: Magnitude
    gradient: Magnitude | None
    parameters: Annotated[tuple[Position, ...], FailFast(), Field(max_length=_MANY)] = ()

    def __repr__(self) -> str:
        return (
            f"ResidualFlow(stream {self.stream}, size {format_number(self.before)} + "
            f"{format_number(self.added)} = {format_number(self.after)}, "
            f"‖∂𝓛/∂sum‖ {format_number(self.gradient)}, normalization {self.normalization})"
        )

    @property
    def share(self) -> Quantity | None:
        """What the branch adds relative to the residual stream: added ÷ before."""
        if self.added is None or self.before is None:
            return None
        return divide_members(self.added, self.before)


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFlow:
    """One computation of attention weights: how widely the queries spread their attention.

    Values come from a sample: up to 16 evenly spaced queries in up to 2 evenly spaced examples
    of the batch, in all heads. Queries that may attend a single key have no choice and are left
    out. Weights are taken before dropout.

    Attributes:
        name: The innermost module with submodules in which it was computed, as in
            `model.named_modules()`; "" for the model itself, and outside of it.
        call: 0 for the first computation in that module, 1 for its second, and so on.
        heads: Number of heads.
        queries: Number of queries of an example.
        keys: Number of keys of an example, barred ones included.
        entropy: Relative entropy −Σ p ln p ÷ ln n of the weights p over the n keys that a query may
            attend, mean of queries and heads, in [0, 1]: 0 if every query attends one key alone
            (one-hot), 1 if it attends all alike (uniform).
        one_hot: Share of heads with a mean below 0.05.
        uniform: Share of heads with a mean above 0.95.

    Example:
        >>> half = Quantity([0.5])
        >>> AttentionFlow(
        ...     name="block.0",
        ...     call=1,
        ...     heads=2,
        ...     queries=8,
        ...     keys=8,
        ...     entropy=half,
        ...     one_hot=half,
        ...     uniform=half,
        ... ).label
        'block.0 (call 2)'
    """

    name: Text
    call: Position
    heads: LayerNumber
    queries: PositiveSize
    keys: PositiveSize
    entropy: Share
    one_hot: Share
    uniform: Share

    def __repr__(self) -> str:
        return (
            f"AttentionFlow({shorten(self.label)}, {self.heads:,} heads, {self.queries:,} queries, "
            f"{self.keys:,} keys, relative entropy {format_number(self.entropy)})"
        )

    @property
    def label(self) -> str:
        """A name that tells several computations in one module apart."""
        return f"{self.name or '(model)'}{f' (call {self.call + 1})' if self.call else ''}"


@with_config(CLOSED)
@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterFlow:
    """One parameter and its gradient.

    Attributes:
        name: Qualified name, as in `model.named_parameters()`.
        aliases: Further names under which the same tensor is registered (tied weights).
        shape: Shape of the parameter.
        dtype: Data type of the parameter.
        layer: Number of the weight layer that owns it, or `None`.
        status: "measured", "frozen" (requires no gradient), or "unreached" (the loss does not
            depend on it). Only "measured" parameters have values of a gradient.
        norm: Frobenius norm of the parameter.
        grad_norm: Frobenius norm of the gradient.
        grad_zero_share: Share of gradient entries that are exactly zero, in [0, 1].
        grad_non_finite: Number of gradient entries that are infinite or NaN.
        non_finite: Number of parameter entries that are infinite or NaN.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> [parameter.name for parameter in flow.parameters][:2]
        ['0.weight', '0.bias']
    """

    name: Text
    aliases: Annotated[tuple[Text, ...], FailFast(), Field(max_length=_MANY)]
    shape: Shape
    dtype: Text
    layer: LayerNumber | None
    status: GradientStatus
    norm: Magnitude
    non_finite: Count
    grad_norm: Magnitude | None
    grad_zero_share: Share | None
    grad_non_finite: Count | None

    def __repr__(self) -> str:
        gradient = self.status if self.grad_norm is None else format_number(self.grad_norm)
        return (
            f"ParameterFlow({shorten(self.name)}, {_describe(self.shape)}, "
            f"norm {format_number(self.norm)}, gradient {gradient})"
        )

    @property
    def is_weight(self) -> bool:
        """Whether it is a weight matrix or kernel rather than a bias or a scale."""
        return len(self.shape) >= 2

    @property
    def grad_to_weight(self) -> Quantity | None:
        """‖gradient‖ ÷ ‖parameter‖: the relative update that a learning rate of 1 would make."""
        return None if self.grad_norm is None else divide_members(self.grad_norm, self.norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLayer:
    """One weight layer l = 1 … L: the summary row of tables and charts.

    Attributes:
        layer: Its number l, counted from the input.
        name: Qualified name of the module that owns the weights.
        kind: Class name of that module ("" if it was never called itself).
        weight_norm: ‖W_l‖.
        weight_gradient_norm: ‖∂loss/∂W_l‖; `None` if frozen or unreached.
        delta_norm: ‖δ_l‖ = ‖∂loss/∂z_l‖, all calls together; `None` if there is no gradient.
        pre_activation: Statistics of z_l (its first call).
        activation: Statistics of h_l = φ(z_l); `None` if no activation module follows.
        activation_kind: Class name of that activation module ("" if none follows).

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> [(layer.layer, layer.activation_kind) for layer in flow.weight_layers]
        [(1, 'ReLU'), (2, 'ReLU')]
    """

    layer: int
    name: str
    kind: str
    weight_norm: Quantity
    weight_gradient_norm: Quantity | None
    delta_norm: Quantity | None
    pre_activation: ActivationStatistics | None
    activation: ActivationStatistics | None
    activation_kind: str

    def __repr__(self) -> str:
        return (
            f"WeightLayer({self.layer}, {shorten(self.name)}, ‖W‖ "
            f"{format_number(self.weight_norm)}, ‖∂𝓛/∂W‖ "
            f"{format_number(self.weight_gradient_norm)}, ‖δ‖ {format_number(self.delta_norm)})"
        )

    @property
    def output(self) -> ActivationStatistics | None:
        """Statistics of h_l, or of z_l where no activation module follows."""
        return self.activation or self.pre_activation

    @property
    def std(self) -> Quantity | None:
        """Standard deviation of the layer's output."""
        return self.output.std if self.output else None

    @property
    def variation(self) -> Quantity | None:
        """How much the layer's output differs between examples, in [0, 1]."""
        return self.output.variation if self.output else None

    @property
    def saturation(self) -> Quantity | None:
        """Share of saturated activations, in [0, 1]; undefined where values are not finite."""
        return self._mask(self.activation.saturation if self.activation else None)

    @property
    def dead_share(self) -> Quantity | None:
        """Share of dead units, in [0, 1]; undefined where values are not finite."""
        return self._mask(self.activation.dead_share if self.activation else None)

    def _mask(self, share: Quantity | None) -> Quantity | None:
        """Return a share that is undefined for every member whose values are not all finite.

        A slope at an undefined value is undefined; counting it as steep or flat would be made up.
        """
        parts = [part.non_finite for part in (self.pre_activation, self.activation) if part]
        if share is None or not any(max(part.values) for part in parts):
            return share
        members = zip(share.values, *(part.values for part in parts), strict=True)
        return Quantity(math.nan if any(bad) else value for value, *bad in members)

    @property
    def grad_to_weight(self) -> Quantity | None:
        """‖∂loss/∂W_l‖ ÷ ‖W_l‖."""
        if self.weight_gradient_norm is None:
            return None
        return divide_members(self.weight_gradient_norm, self.weight_norm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor of the chain-rule product: the gradient gain of one module call.

    Attributes:
        name: The module, with its call number where it has several.
        kind: Class name of the module.
        role: "weight" for a weight factor, "activation" for an activation factor, and so on.
        layer: The weight layer it belongs to.
        value: ‖∂loss/∂input‖ ÷ ‖∂loss/∂output‖; `None` if there is no gradient on either side.
        running: Product of all factors from the loss back to and including this one.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=2, width=4, activation="relu"))
        >>> [factor.role for factor in flow.factors()]
        ['activation', 'weight', 'activation', 'weight']
    """

    name: str
    kind: str
    role: Role
    layer: int | None
    value: Quantity | None
    running: Quantity | None

    def __repr__(self) -> str:
        return (
            f"Factor({shorten(self.name)}, {shorten(self.kind)}, {self.role}, "
            f"{format_number(self.value)}, product so far {format_number(self.running)})"
        )


def _add(word: str, share: Quantity | None) -> str:
    return "" if share is None else f", {format_share(share)} {word}"


def _describe(shape: tuple[int, ...]) -> str:
    return format_shape(shape) if len(shape) <= 6 else f"{len(shape)} dimensions"


def get_file_name(path: str) -> str:
    """Return the last part of a path, written on any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def read_saturation(layer: WeightLayer) -> Quantity | None:
    """Return saturation where it means something: for activations that are flat on both sides."""
    entry = _BY_CLASS.get(layer.activation_kind)
    bounded = entry is not None and all(map(math.isfinite, entry.output_range))
    return layer.saturation if bounded else None


_BY_CLASS = {entry.module: entry for entry in ACTIVATIONS.values()}
