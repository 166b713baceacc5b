"""Changes of a model that are found by running a copy of it: measured scales, woken units."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.edits import Edit, apply_edits, respond_once
from chainrule.remedies.model_changes import ModelChange, list_biases, list_weights

SIGMOID_SPREAD = 4.0
"""Spread that is given to what a sigmoid receives: as it passes on a quarter at most, its layer
needs weights four times as large to pass back what it receives."""


def fit_scales(
    copied: nn.Module, flow: GradientFlow, run: Callable[[nn.Module], Any]
) -> ModelChange | None:
    """Return orthogonal weights, scaled layer by layer so that outputs have one spread on the data.

    Layer-sequential unit-variance initialization (LSUV: Mishkin & Matas 2016, arXiv 1511.06422), in
    one forward pass: a layer is linear in its weights, so dividing weights and output by the
    output's standard deviation is what measuring again would confirm. The spread is 1, but
    `SIGMOID_SPREAD` before a sigmoid.

    Args:
        copied: A copy of the model, which is changed.
        flow: A measurement of the model.
        run: Runs the copy forward.
    """
    weights = [
        weight
        for weight in list_weights(copied, flow)
        if not isinstance(weight.module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention))
    ]
    if not weights:
        return None
    zeros = list_biases(copied, flow, tuple(weights))
    drawn = {
        weight.module: Edit(
            parameter=weight.name, shape=weight.shape, action="orthogonal", value=1.0, seed=at
        )
        for at, weight in enumerate(weights)
    }
    apply_edits(copied, (*drawn.values(), *zeros))
    targets = {
        weight.module: SIGMOID_SPREAD if weight.follows == "sigmoid" else 1.0 for weight in weights
    }
    scales: dict[nn.Module, float] = {}

    def respond(module: nn.Module, output: Tensor) -> Tensor:
        spread = output.detach().double().std(correction=0).item() / targets[module]
        if not math.isfinite(spread) or spread <= 0.0:
            return output
        scales[module] = 1.0 / spread
        weight = module._parameters["weight"]
        assert weight is not None
        weight.data.div_(spread)
        return output / spread

    with respond_once(list(drawn), respond):
        run(copied)
    edits = [
        Edit(
            parameter=edit.parameter,
            shape=edit.shape,
            action="orthogonal",
            value=scales.get(module, 1.0),
            seed=edit.seed,
        )
        for module, edit in drawn.items()
    ]
    return ModelChange(
        kinds=("gain",),
        title="Layers of one spread on your data (LSUV)",
        reason="Orthogonal weights. Those of each layer are divided by the standard deviation of "
        "its outputs on this batch, and are four times as large before a sigmoid. Biases start at "
        "zero.",
        edits=(*edits, *zeros),
    )


def fit_biases(
    copied: nn.Module, flow: GradientFlow, run: Callable[[nn.Module], Any]
) -> ModelChange | None:
    """Return shifts of the biases of dead units, so that each is on for about half the examples.

    Args:
        copied: A copy of the model, which is changed.
        flow: A measurement of the model.
        run: Runs the copy forward.
    """
    sick = {layer.name for layer in flow.weight_layers if layer.dead_share}
    modules: dict[nn.Module, str] = {
        module: name
        for name, module in copied.named_modules()
        if name in sick and isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    }
    shifts: dict[nn.Module, tuple[float, ...]] = {}

    def respond(module: nn.Module, output: Tensor) -> Tensor:
        bias = module._parameters.get("bias")
        if bias is None or not bias.requires_grad:
            return output
        unit_dim = output.dim() - 1
        if isinstance(module, nn.modules.conv._ConvNd):
            unit_dim -= len(module.kernel_size)
        units = output.detach().double().movedim(unit_dim, 0).flatten(1)
        shift = (-units.mean(1)).where(units.amax(1) <= 0.0, 0.0)
        shifts[module] = tuple(shift.tolist())
        shape = [1] * output.dim()
        shape[unit_dim] = -1
        return output + shift.to(output.dtype).reshape(shape)

    with respond_once(list(modules), respond):
        run(copied)
    edits = tuple(
        Edit(
            parameter=f"{modules[module]}.bias" if modules[module] else "bias",
            shape=(len(values),),
            action="shift",
            values=values,
        )
        for module, values in shifts.items()
        if any(values) and all(map(math.isfinite, values))
    )
    if not edits:
        return None
    return ModelChange(
        kinds=("bias",),
        title="Biases that wake dead units",
        reason="The bias of each dead unit is raised until the mean of its pre-activations on this "
        "batch is 0. Then it is on for about half of the examples.",
        edits=edits,
    )
