"""What half precision leaves of the gradients of a measurement."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from chainrule.flow.precision import FORMATS, PrecisionFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import GradientStatistics, LayerFlow, ParameterFlow
from chainrule.measure.autograd_graph import list_views
from chainrule.measure.modules import find_owner
from chainrule.measure.statistics import HALF, measure_subnormal

if TYPE_CHECKING:
    from chainrule.measure.recording import Output, Recorder
    from chainrule.measure.statistics import Table


def note_arriving(loss: Tensor, recorder: "Recorder") -> None:
    """Note where gradients come back to half precision: what is rounded there is wider before.

    Between the loss and the last outputs in half precision, the graph changes to a wider format,
    as autocast and `output.float()` do. The gradient there is the last one that has all its digits.
    """
    outputs = {
        output.edge: output
        for call in recorder.calls
        for output in call.outputs
        if output.edge is not None and output.dtype in HALF
    }
    seen: set[Any] = set()
    pending: list[Any] = [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "ToCopyBackward0":
            for view in list_views(*node.next_functions[0]) if node.next_functions[0][0] else ():
                edge = recorder.find_edge(*view)
                if edge in outputs:
                    recorder.arriving[recorder.note_node(node)] = outputs[edge]
                    break
            else:
                pending += [following for following, _ in node.next_functions]
            continue
        pending += [following for following, _ in node.next_functions]


@dataclass(frozen=True, slots=True)
class Rounded:
    """A gradient in a wider format than it is, was or will be computed in.

    Attributes:
        subnormal: Share of its entries that are subnormal there, [1, 1].
        dtype: That format.
        source: Edge of a gradient on its way to half precision, or position of a parameter.
    """

    subnormal: Tensor
    dtype: str
    source: int


def take_arriving(
    recorder: "Recorder", edge_gradients: "Mapping[int, Tensor | Table]"
) -> list[tuple["Output", Rounded]]:
    """Return the gradients that are rounded to half precision next."""
    found = []
    for edge, output in recorder.arriving.items():
        gradient = edge_gradients.get(edge)
        if isinstance(gradient, Tensor) and not gradient.is_sparse and gradient.numel():
            name = str(output.dtype).removeprefix("torch.")
            subnormal = measure_subnormal([gradient.unsqueeze(0)], FORMATS[name].normal)
            found.append((output, Rounded(subnormal, name, edge)))
    return found


def take_weights(
    recorder: "Recorder", names: Sequence[str], gradients: Mapping[int, Tensor]
) -> list[Rounded]:
    """Return the gradients of weights that were computed in half precision.

    Under autocast they are float32 again; the module's output has the format of the computation.
    """
    if not recorder.has_half:
        return []
    dtypes = {
        call.subject.name: output.dtype
        for call in recorder.calls
        if call.subject.role == "weight"
        for output in call.outputs
    }
    found = []
    for position, gradient in gradients.items():
        dtype = dtypes.get(find_owner(names[position]))
        if dtype in HALF and gradient.dim() > 1 and gradient.numel() and not gradient.is_sparse:
            name = str(dtype).removeprefix("torch.")
            subnormal = measure_subnormal([gradient.unsqueeze(0)], FORMATS[name].normal)
            found.append(Rounded(subnormal, name, position))
    return found


def assemble_precisions(
    layers: Sequence[LayerFlow],
    parameters: Sequence[ParameterFlow],
    subnormal_outputs: Mapping[int, float],
    arriving: Sequence[tuple[int, str, float, GradientStatistics]],
    weights: Mapping[int, tuple[str, float, GradientStatistics]],
) -> Iterator[PrecisionFlow]:
    """Yield what is known of gradients in half precision.

    Args:
        layers: The outputs.
        parameters: The parameters.
        subnormal_outputs: Share of subnormal entries by position in `layers`.
        arriving: Position in `layers`, format, share of subnormal entries and values of the
            gradients that are rounded there.
        weights: Format, share of subnormal entries and values by position in `parameters`.
    """
    for position, dtype, share, gradient in arriving:
        shape = layers[position].shape
        yield _write(layers[position].label, "arriving", dtype, position, share, gradient, shape)
    for position, share in subnormal_outputs.items():
        call = layers[position]
        if call.gradient is not None:
            yield _write(
                call.label, "output", call.dtype, position, share, call.gradient, call.shape
            )
    for position, (dtype, share, gradient) in weights.items():
        parameter = parameters[position]
        yield _write(parameter.name, "weight", dtype, None, share, gradient, parameter.shape)


def _write(
    name: str,
    of: Any,
    dtype: str,
    layer: int | None,
    share: float,
    gradient: GradientStatistics,
    shape: Sequence[int],
) -> PrecisionFlow:
    entries = math.sqrt(max(1, math.prod(shape)))
    return PrecisionFlow(
        name=name,
        of=of,
        dtype=dtype,
        layer=layer,
        zero_share=gradient.zero_share,
        subnormal_share=Quantity([share]),
        size=Quantity(norm / entries for norm in gradient.norm.values),
        largest=gradient.max_abs,
    )
