"""`predict`: what theory says of a start before anything is measured."""

import math
from dataclasses import dataclass, replace

from chainrule.errors import SpecError, abbreviate, suggest
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.spec.network_spec import NetworkSpec
from chainrule.theory.agreement import describe_agreement
from chainrule.theory.critical import DepthScales, find_depth_scales
from chainrule.theory.expected import Expected, spread_out
from chainrule.theory.fluctuations import Spread, compute_spreads
from chainrule.theory.mean_field import (
    Backward,
    Forward,
    Setting,
    compute_chi,
    read_setting,
    run_backward,
    run_forward,
)

SURE = 3.0
"""Standard deviations of a median that its band reaches: 99.7 of 100 medians are in it."""

WILD = 4.0
"""Variance of ln‖·‖² above which first-order corrections say nothing about typical networks."""

MIN_BATCH = 6
"""Examples that batch normalization needs here: below, E 1/s² of the batch's variance diverges, or
two examples have no density on the sphere."""

_RANGES = {"float32": (1e-37, 1e38), "float64": (1e-300, 1e300)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrediction:
    """What theory says of weight layer l. A value is `None` where theory does not hold.

    Attributes:
        layer: l = 1 … depth.
        q: Mean square of the pre-activations z_l.
        m: Mean square of the layer's output h_l.
        chi: χ_l: what the layer multiplies the square of a gradient by.
        correlation: Of z_l of two examples.
        delta_norm: ‖δ_l‖ over batch and units.
        weight_gradient_norm: ‖∂𝓛/∂W_l‖.

    Example:
        >>> round(predict(NetworkSpec(depth=2, activation="relu", init="he")).layers[1].q, 12)
        2.0
    """

    layer: int
    q: Expected | None
    m: Expected | None
    chi: Expected | None
    correlation: Expected | None
    delta_norm: Expected | None
    weight_gradient_norm: Expected | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What theory says of a specification.

    Attributes:
        spec: What it is about.
        seeds: Size of the ensemble for whose medians the bands hold.
        layers: One entry per weight layer, input to output.
        depth_scales: How far signals get; `None` where there is no such scale.
        missing: What theory does not say, and why: one sentence each.

    Example:
        >>> predict(NetworkSpec(depth=2, residual="plain")).depth_scales is None
        True
    """

    spec: NetworkSpec
    seeds: int
    layers: tuple[LayerPrediction, ...]
    depth_scales: DepthScales | None
    missing: tuple[str, ...]

    @property
    def weight_gradient_norms(self) -> tuple[Expected | None, ...]:
        """‖∂𝓛/∂W_l‖ for l = 1 … L."""
        return tuple(layer.weight_gradient_norm for layer in self.layers)

    @property
    def delta_norms(self) -> tuple[Expected | None, ...]:
        """‖δ_l‖ for l = 1 … L."""
        return tuple(layer.delta_norm for layer in self.layers)

    @property
    def sentence(self) -> str:
        """How far this start carries a signal, in words."""
        return self.depth_scales.sentence if self.depth_scales else ""

    def list_bands(self, measure: str = "weight") -> list[tuple[float, float, float] | None]:
        """Return what a chart draws of every layer: low, median and high; `None` without a value.

        Args:
            measure: "weight" for ‖∂𝓛/∂W‖ or "delta" for ‖δ‖; of others theory says nothing here.

        Raises:
            SpecError: If the measure is another one.

        Example:
            >>> len(predict(NetworkSpec(depth=3)).list_bands("delta"))
            3
        """
        known = {"weight": self.weight_gradient_norms, "delta": self.delta_norms}
        values = known.get(measure) if isinstance(measure, str) else None
        if values is None:
            raise SpecError(
                f"measure: must be 'weight' or 'delta'; got {abbreviate(measure)}. "
                f"{suggest(str(measure), known)}"
            )
        return [None if each is None else (each.low, each.median, each.high) for each in values]

    def describe_agreement(self, flow: GradientFlow, measure: str = "weight") -> str:
        """Return in words whether measured gradients have the medians that theory gives.

        Args:
            flow: A measurement of the same specification, with as many seeds.
            measure: "weight" for ‖∂𝓛/∂W‖, "delta" for ‖δ‖.

        Raises:
            ChainruleError: If it has another number of weight layers.

        Example:
            >>> import chainrule
            >>> spec = NetworkSpec(depth=2, width=128, activation="tanh")
            >>> predict(spec, 4).describe_agreement(chainrule.simulate(spec, 4))[:18]
            'Layer 1: measured '
        """
        name = "delta_norm" if measure == "delta" else "weight_gradient_norm"
        starts = (f"{name}: ", "layers: ")
        reasons = [each.partition(": ")[2] for each in self.missing if each.startswith(starts)]
        reason = reasons[0] if reasons else ""
        norms = self.delta_norms if measure == "delta" else self.weight_gradient_norms
        return describe_agreement(norms, flow, reason, measure)


def predict(spec: NetworkSpec, seeds: int = 16) -> Prediction:
    """Return what mean-field theory says of a specification; nothing is drawn or measured.

    The values are the limit of infinite width, at the width's own initialization: signals of Poole
    et al. 2016, gradients of Schoenholz et al. 2017, residual connections of Yang & Schoenholz
    2017, batch normalization of Yang et al. 2019. The output is as wide as the hidden layers here,
    so its part in the gradient of the mean squared error is kept (see `mean_field`). ‖∂𝓛/∂W‖ counts
    the products of all pairs of examples: n²·Σ_ab G_ab·M_ab.

    The bands hold for the median of an ensemble of networks of this width. ln‖·‖² varies between
    networks by v, of the order depth/width (Hanin & Nica 2018; `fluctuations`). A median then lies
    v/2 below the logarithm of the mean. The band reaches 3 standard deviations of a median of
    `seeds` networks around it, and in addition as far as this shift itself (for one example): the
    terms of next order are not larger.

    Args:
        spec: What to predict.
        seeds: Size of the ensemble whose medians are to be compared.

    Raises:
        SpecError: If `spec` is no specification, or `seeds` is not a whole number of at least 1.

    Example:
        >>> prediction = predict(NetworkSpec(depth=5, width=256, activation="relu", init="he"))
        >>> round(prediction.layers[4].chi, 12)
        1.0
    """
    if not isinstance(spec, NetworkSpec):
        raise SpecError(
            f"spec: must be a chainrule.NetworkSpec; got {abbreviate(spec)}. Write for example "
            "NetworkSpec(depth=20, activation='tanh')."
        )
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise SpecError(f"seeds: must be a whole number of at least 1; got {seeds!r}.")
    setting = read_setting(spec)
    missing: list[str] = []
    scales, why = find_depth_scales(setting) if _is_covered(setting) else (None, "")
    if why:
        missing.append(why)
    layers = _predict_layers(spec, setting, seeds, missing)
    return Prediction(
        spec=spec, seeds=seeds, layers=layers, depth_scales=scales, missing=tuple(missing)
    )


def _is_covered(setting: Setting) -> bool:
    return setting.normalization != "batchnorm" or setting.batch >= MIN_BATCH


def _predict_layers(
    spec: NetworkSpec, setting: Setting, seeds: int, missing: list[str]
) -> tuple[LayerPrediction, ...]:
    if not _is_covered(setting):
        missing.append(
            f"layers: batch normalization needs a batch of at least {MIN_BATCH} here; got "
            f"{setting.batch}"
        )
        return tuple(_leave_out(number) for number in range(1, spec.depth + 1))
    forward, why = run_forward(setting)
    if why:
        missing.append(f"layers: {why}; nothing is said of what comes after, nor of gradients")
    complete = len(forward) == spec.depth
    backward = run_backward(setting, forward) if complete else []
    spreads = compute_spreads(setting, forward, backward) if complete else []
    single = replace(setting, batch=1)
    shifts = compute_spreads(single, forward, backward) if complete else []
    writer = _Writer(spec, setting, seeds, missing)
    layers = []
    for number in range(1, spec.depth + 1):
        if number > len(forward):
            layers.append(_leave_out(number))
        elif complete:
            at = number - 1
            layers.append(writer.write(number, forward[at], backward[at], spreads[at], shifts[at]))
        else:
            layers.append(_write_signal(setting, number, forward[number - 1]))
    return tuple(layers)


def _leave_out(number: int) -> LayerPrediction:
    return LayerPrediction(
        layer=number,
        q=None,
        m=None,
        chi=None,
        correlation=None,
        delta_norm=None,
        weight_gradient_norm=None,
    )


def _write_signal(setting: Setting, number: int, layer: Forward) -> LayerPrediction:
    """Return a layer of a network whose end is not known: its signal, without a band."""

    def write(value: float) -> Expected:
        return Expected(value, value, 0.0, math.inf)

    return LayerPrediction(
        layer=number,
        q=write(layer.q),
        m=write(layer.after),
        chi=write(compute_chi(setting, layer)),
        correlation=Expected(layer.correlation, layer.correlation, -1.0, 1.0),
        delta_norm=None,
        weight_gradient_norm=None,
    )


class _Writer:
    """Turns the numbers of a layer into values with bands, and notes what it leaves out."""

    def __init__(self, spec: NetworkSpec, setting: Setting, seeds: int, missing: list[str]) -> None:
        self._setting, self._missing = setting, missing
        self._range = _RANGES[spec.dtype]
        self._name = spec.dtype
        # A median of a normal distribution varies by π/2 more than a mean of as many numbers.
        self._error = SURE * math.sqrt((math.pi / 2 if seeds > 2 else 1.0) / seeds)
        self._said: set[str] = set()

    def write(
        self, number: int, layer: Forward, gradient: Backward, spread: Spread, shift: Spread
    ) -> LayerPrediction:
        setting = self._setting
        batch, width = setting.batch, setting.width
        others = batch - 1
        own = gradient.delta * layer.before
        pair = gradient.delta_pair * layer.before_pair
        square = batch * (own + others * pair)
        chance = batch * others * gradient.pair_response * spread.pair_spread * layer.before**2
        by_chance = math.log1p(max(chance / square, -0.5)) if square > 0.0 else 0.0
        # Examples with one direction, of signal or gradient, act as one: Σ_ab G_ab·M_ab is then
        # |Σ_a δ_a|²·m, whose noise no mean over the batch makes smaller. This part is that of one.
        together = 0.0
        if own + others * pair > 0.0:
            signal = layer.before_pair * (gradient.delta + others * gradient.delta_pair)
            back = gradient.delta_pair * (layer.before + others * layer.before_pair)
            together = min(max(signal, back, 0.0) / (own + others * pair), 1.0)
        single = max(shift.weight_gradient, spread.weight_gradient)
        mixed = (1.0 - together) * math.sqrt(spread.weight_gradient) + together * math.sqrt(single)
        return LayerPrediction(
            layer=number,
            q=spread_out(math.log(layer.q), spread.q, shift.q, self._error),
            m=spread_out(_log(layer.after), spread.m, shift.m, self._error),
            chi=spread_out(_log(compute_chi(setting, layer)), spread.chi, shift.chi, self._error),
            correlation=self._write_correlation(layer.correlation, spread),
            delta_norm=self._write_norm(
                "delta_norm",
                number,
                _log(batch * width * gradient.delta) + gradient.log_scale,
                (spread.delta, shift.delta),
            ),
            weight_gradient_norm=self._write_norm(
                "weight_gradient_norm",
                number,
                _log(width**2 * square) + gradient.log_scale,
                (mixed**2, single),
                by_chance,
            ),
        )

    def _write_correlation(self, value: float, spread: Spread) -> Expected:
        reach = self._error * math.sqrt(spread.correlation)
        return Expected(value, value, max(value - reach, -1.0), min(value + reach, 1.0))

    def _write_norm(
        self,
        name: str,
        number: int,
        log_square: float,
        spreads: tuple[float, float],
        by_chance: float = 0.0,
    ) -> Expected | None:
        if max(spreads) > WILD:
            self._say(
                name,
                f"{name}: the depth is too large for the width. ln‖·‖² of single networks would "
                f"vary by {max(spreads):.3g} (more than {WILD:g}), and the limit of infinite width "
                "says nothing about a typical network",
            )
            return None
        low, high = self._range
        if not 2.0 * math.log(low) < log_square < 2.0 * math.log(high):
            self._say(
                name,
                f"{name}: at layer {number} and perhaps at others it is outside of what "
                f"{self._name} can hold",
            )
            return None
        return spread_out(log_square, *spreads, self._error, by_chance, root=True)

    def _say(self, name: str, sentence: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._missing.append(sentence)


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf
