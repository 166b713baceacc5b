"""The rows of a measurement's tables, as text: weight layers, calls, attention, parameters, causes.

Page, report, notebook and terminal show the same cells.
"""

from chainrule._utils.numbers import format_number, format_shape, format_share
from chainrule.diagnosis.attribution import Attribution
from chainrule.flow.blocks import Block
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import format_band
from chainrule.flow.records import (
    AttentionFlow,
    LayerFlow,
    ParameterFlow,
    WeightLayer,
    read_saturation,
)

CALL_HEAD = ("module", "kind", "shape", "‖∂𝓛/∂output‖", "gain", "mean", "std", "zeros")
BLAME_HEAD = ("module", "kind", "factor", "share")
ATTENTION_HEAD = (
    "module",
    "heads",
    "queries × keys",
    "relative entropy",
    "heads near one-hot",
    "heads near uniform",
)
PARAMETER_HEAD = (
    "parameter",
    "shape",
    "norm",
    "gradient",
    "gradient ÷ norm",
    "zeros in gradient",
)


NOTHING = "–"
"""A cell without a value."""


def write_cell(value: float | None) -> str:
    """Return a value, a dash where there is none.

    Example:
        >>> write_cell(1.4e-10), write_cell(None)
        ('1.4·10⁻¹⁰', '–')
    """
    return NOTHING if value is None else format_number(value)


def write_share(share: float | None) -> str:
    """Return a share in percent, a dash where there is none.

    Example:
        >>> write_share(0.25), write_share(None)
        ('25 %', '–')
    """
    return NOTHING if share is None else format_share(share)


def list_layer_head(flow: GradientFlow) -> tuple[str, ...]:
    """Return the headings for `write_layer_row`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> list_layer_head(flow)[:2]
        ('layer', '‖∂𝓛/∂W‖')
    """
    return (
        "layer",
        *(("module",) if flow.spec is None else ()),
        "‖∂𝓛/∂W‖",
        *(("10–90 %",) if flow.ensemble_size > 1 else ()),
        "‖δ‖",
        "gradient ÷ weight",
        "std of h",
        "saturated",
        "dead",
    )


def write_layer_row(flow: GradientFlow, layer: WeightLayer) -> tuple[str, ...]:
    """Return one weight layer's cells; a model of yours has a name in it, too.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> len(write_layer_row(flow, flow.weight_layers[0])) == len(list_layer_head(flow))
        True
    """
    gradient = layer.weight_gradient_norm
    return (
        str(layer.layer),
        *((layer.name or "(model)",) if flow.spec is None else ()),
        write_cell(gradient),
        *((format_band(gradient),) if flow.ensemble_size > 1 else ()),
        write_cell(layer.delta_norm),
        write_cell(layer.grad_to_weight),
        write_cell(layer.std),
        write_share(read_saturation(layer)),
        write_share(layer.dead_share),
    )


def write_call_row(call: LayerFlow) -> tuple[str, ...]:
    """Return one module output's cells, for `CALL_HEAD`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> write_call_row(flow.layers[0])[:3]
        ('0', 'Linear', '32×4')
    """
    statistics = call.statistics
    return (
        call.label,
        call.kind,
        format_shape(call.shape),
        write_cell(call.gradient.norm if call.gradient else None),
        write_cell(call.gain),
        write_cell(statistics.mean if statistics else None),
        write_cell(statistics.std if statistics else None),
        write_share(statistics.zero_share if statistics else None),
    )


def write_attention_row(attention: AttentionFlow) -> tuple[str, ...]:
    """Return the cells of one computation of attention weights, for `ATTENTION_HEAD`."""
    return (
        attention.label,
        str(attention.heads),
        f"{attention.queries} × {attention.keys}",
        write_cell(attention.entropy),
        write_share(attention.one_hot),
        write_share(attention.uniform),
    )


def write_parameter_row(parameter: ParameterFlow) -> tuple[str, ...]:
    """Return one parameter's cells, for `PARAMETER_HEAD`.

    Example:
        >>> from chainrule import NetworkSpec, simulate
        >>> flow = simulate(NetworkSpec(depth=3, width=4), 2)
        >>> write_parameter_row(flow.parameters[0])[:2]
        ('0.weight', '4×4')
    """
    gradient = parameter.grad_norm
    return (
        ", ".join((parameter.name, *parameter.aliases)),
        format_shape(parameter.shape),
        write_cell(parameter.norm),
        parameter.status if gradient is None else format_number(gradient),
        write_cell(parameter.grad_to_weight),
        write_share(parameter.grad_zero_share),
    )


def write_blame_row(flow: GradientFlow, blame: Attribution) -> tuple[str, ...]:
    """Return the cells of one cause, for `BLAME_HEAD`; layers of a specification are numbered."""
    number = f"layer {blame.layer}" if blame.layer is not None else "(model)"
    name = number if flow.spec else blame.name or "(model)"
    calls = f" ({blame.calls} calls)" if blame.calls > 1 else ""
    return (
        f"{name}{calls}",
        f"block ending in {blame.kind}" if blame.what == "residual stream gradient" else blame.kind,
        f"× {format_number(blame.factor)}",
        write_share(blame.share),
    )


def describe_block(block: Block) -> str:
    """Return what is in a block and which gradients reach it, in a few words."""
    low, high = block.smallest_gradient, block.largest_gradient
    reach = (
        "no gradient" if low is None else f"gradients {format_number(low)} to {format_number(high)}"
    )
    bad = f", {block.non_finite} not finite" if block.non_finite else ""
    return f"{count_outputs(len(block.calls))}, {reach}{bad}"


def count_outputs(count: int) -> str:
    """Return a number of module outputs in words.

    Example:
        >>> count_outputs(1), count_outputs(2000)
        ('1 output', '2,000 outputs')
    """
    return f"{count:,} output{'' if count == 1 else 's'}"
