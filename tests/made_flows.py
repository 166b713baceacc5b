"""Flows written by hand: what is worked out of them can be worked out on paper."""

from typing import Any

from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import (
    ActivationStatistics,
    GradientStatistics,
    LayerFlow,
    ParameterFlow,
    ResidualFlow,
)
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome


def quantity(value: Any) -> Quantity | None:
    """A number, or a list with one for each member, as a quantity; `None` stays `None`."""
    if value is None or isinstance(value, Quantity):
        return value
    return Quantity(value if isinstance(value, (list, tuple)) else [value])


def statistics(**fields: Any) -> ActivationStatistics:
    """Values with mean 0 and deviation 1 of four units, but for what is given."""
    ordinary = {
        **{"mean": 0.0, "std": 1.0, "min": -2.0, "max": 2.0, "zero_share": 0.0, "non_finite": 0.0},
        **{"variation": 1.0, "saturation": None, "dead_units": None, "units": 4, "histogram": None},
    }
    values = ordinary | fields
    plain = ("units", "histogram")
    return ActivationStatistics(
        **{name: value if name in plain else quantity(value) for name, value in values.items()}
    )


def gradient(norm: Any = 1.0, **fields: Any) -> GradientStatistics:
    """A gradient of this norm without zeros, all of its entries finite."""
    values = {"norm": norm, "max_abs": norm, "zero_share": 0.0, "non_finite": 0.0} | fields
    return GradientStatistics(**{name: quantity(value) for name, value in values.items()})


def call(name: str, kind: str = "Linear", role: str | None = None, **fields: Any) -> LayerFlow:
    """An output of shape (3, 4); `gradient` may be a norm, and `statistics` a dictionary."""
    roles = {"Linear": "weight", "Conv2d": "weight", "LayerNorm": "normalization"}
    values: dict[str, Any] = {
        **{"layer": None, "call": 0, "output": "", "shape": (3, 4), "dtype": "float32"},
        **{"parent": None, "statistics": {}, "gradient": 1.0, "gain": 1.0},
    } | fields
    if isinstance(values["statistics"], dict):
        values["statistics"] = statistics(**values["statistics"])
    if values["gradient"] is not None and not isinstance(values["gradient"], GradientStatistics):
        values["gradient"] = gradient(values["gradient"])
    values["gain"] = quantity(values["gain"])
    return LayerFlow(name=name, kind=kind, role=role or roles.get(kind, "activation"), **values)


def parameter(name: str, layer: int | None = None, **fields: Any) -> ParameterFlow:
    """A weight [4, 4] of norm 2 with a gradient of norm 1, but for what is given."""
    values: dict[str, Any] = {
        **{"aliases": (), "shape": (4, 4), "dtype": "float32", "status": "measured", "norm": 2.0},
        **{"non_finite": 0.0, "grad_norm": 1.0, "grad_zero_share": 0.0, "grad_non_finite": 0.0},
    } | fields
    if values["status"] != "measured":
        values |= dict.fromkeys(("grad_norm", "grad_zero_share", "grad_non_finite"))
    plain = ("aliases", "shape", "dtype", "status")
    values = {key: each if key in plain else quantity(each) for key, each in values.items()}
    return ParameterFlow(name=name, layer=layer, **values)


def residual(**fields: Any) -> ResidualFlow:
    """A residual connection 1 + 1 with a gradient of 1, but for what is given."""
    values: dict[str, Any] = {
        **{"stream": 0, "branch": None, "normalization": "none", "parameters": ()},
        **{"before": 1.0, "added": 1.0, "after": 1.0, "gradient": 1.0},
    } | fields
    plain = ("stream", "branch", "normalization", "parameters")
    return ResidualFlow(
        **{name: each if name in plain else quantity(each) for name, each in values.items()}
    )


def make_flow(
    layers: list[LayerFlow] | tuple[LayerFlow, ...] = (),
    parameters: list[ParameterFlow] | tuple[ParameterFlow, ...] = (),
    **fields: Any,
) -> GradientFlow:
    """The flow of a model with these entries and a loss of 1."""
    values: dict[str, Any] = {
        **{"loss": 1.0, "chain": False, "seeds": (), "spec": None, "device": "cpu"},
        **{"torch_version": "2", "chainrule_version": "0"},
    } | fields
    values["loss"] = quantity(values["loss"])
    return GradientFlow(layers=tuple(layers), parameters=tuple(parameters), **values)


def make_chain(
    norms: list[float], kind: str = "ReLU", gradients: list[float] | None = None, **fields: Any
) -> GradientFlow:
    """A chain Linear, activation, Linear, activation, …, with these ‖∂loss/∂W‖."""
    deltas = gradients or [1.0] * len(norms)
    layers, parameters = [], []
    for number, (norm, delta) in enumerate(zip(norms, deltas, strict=True), start=1):
        layers += [
            call(str(2 * number - 2), layer=number, gradient=delta),
            call(str(2 * number - 1), kind, layer=number, gradient=delta),
        ]
        parameters.append(parameter(f"{2 * number - 2}.weight", number, grad_norm=norm))
    return make_flow(layers, parameters, **({"chain": True} | fields))


def make_trial(*optimizers: OptimizerTrial, **fields: Any) -> Trial:
    """A trial on fresh batches; of SGD at one rate, which trained, if nothing else is said."""
    rate = RateTrial(
        rate=0.1, steps=9, before=2.0, after=1.0, learned=0.5, outcome=TrialOutcome.TRAINED
    )
    tried = optimizers or (OptimizerTrial(name="SGD", rates=(rate,)),)
    return Trial(
        optimizers=tried, **({"passes": 80.0, "limit": 300, "fresh": True, "kept": 3} | fields)
    )
